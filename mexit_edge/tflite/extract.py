"""Copy part of a graph, or all of it, into a model of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from mexit_edge.errors import InputError
from mexit_edge.tflite.flatbuffer import serialize, text
from mexit_edge.tflite.graph import Graph

SIGNATURE = b"serving_default"
# A plan of TFLM's arena by tensor indices, which a copy numbers anew: TFLM would follow it to wrong numbers.
MEMORY_PLAN = "OfflineMemoryAllocation"


def mended(content: bytes) -> bytes:
    """Return the model with what LiteRT refuses and no kernel reads put right; often the same bytes.

    Converters of old gave a bias, which has one axis, the channel axis of its weights. TFLM runs such files
    (its own example of person detection is one), LiteRT refuses them. Stages are mended as they are cut.

    Args:
        content: a .tflite.

    Raises:
        InputError: as for `Graph`.
    """
    graph = Graph(content)
    wrong = [raw for raw in graph.subgraph.tensors if _with_axis(raw) is not raw.quantization]
    for raw in wrong:
        raw.quantization = _with_axis(raw)
    return serialize(graph.model) if wrong else content


def extract(
    graph: Graph,
    operators: Sequence[int],
    inputs: Sequence[int],
    outputs: Sequence[int],
    names: Mapping[int, str] | None = None,
) -> bytes:
    """Return a .tflite with these operators of a graph.

    Args:
        graph: the whole.
        operators: indices, in order of execution.
        inputs: tensor indices, in the order that the file is to have.
        outputs: the same.
        names: of inputs and outputs, for a signature: the file then keeps the names and metadata of the
            whole. None leaves all of them out, to save flash.

    Raises:
        InputError: an operator has intermediate tensors.
    """
    extraction = _Extraction(graph, keep_names=names is not None)
    extraction.add(operators, inputs, outputs)
    if names is not None:
        extraction.keep_facts(inputs, outputs, names)
    return serialize(extraction.model)


def signature(
    key: bytes, subgraph: int, inputs: Mapping[str, int], outputs: Mapping[str, int]
) -> schema.SignatureDefT:
    """Return the signature of a subgraph: tensor index per name."""
    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = key, subgraph
    made.inputs = [_named(name, index) for name, index in inputs.items()]
    made.outputs = [_named(name, index) for name, index in outputs.items()]
    return made


def _named(name: str, index: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    return entry


class _Extraction:
    """A model under construction, with indices of its own."""

    def __init__(self, graph: Graph, *, keep_names: bool) -> None:
        self.graph = graph
        self.keep_names = keep_names
        self.model = schema.ModelT()
        self.model.version = graph.model.version
        self.model.operatorCodes = []
        # The format wants buffer 0 to be empty: it stands for "no data".
        self.model.buffers = [schema.BufferT()]
        self.subgraph = schema.SubGraphT()
        self.subgraph.tensors, self.subgraph.operators = [], []
        self.model.subgraphs = [self.subgraph]
        self.tensor_of: dict[int, int] = {}
        self.code_of: dict[int, int] = {}
        self.buffer_of: dict[int, int] = {}

    def add(self, operators: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> None:
        self.subgraph.inputs = [self._tensor(tensor) for tensor in inputs]
        for index in operators:
            self.subgraph.operators.append(self._operator(self.graph.subgraph.operators[index]))
        self.subgraph.outputs = [self._tensor(tensor) for tensor in outputs]

    def keep_facts(self, inputs: Sequence[int], outputs: Sequence[int], names: Mapping[int, str]) -> None:
        whole = self.graph.model
        self.model.description, self.subgraph.name = whole.description, self.graph.subgraph.name
        self.model.signatureDefs = [
            signature(
                SIGNATURE,
                0,
                {names[tensor]: self.tensor_of[tensor] for tensor in inputs},
                {names[tensor]: self.tensor_of[tensor] for tensor in outputs},
            )
        ]
        self.model.metadata = []
        for entry in whole.metadata or []:
            if text(entry.name) != MEMORY_PLAN and entry.buffer < len(whole.buffers):
                fresh = copy.copy(entry)
                fresh.buffer = self._buffer(entry.buffer)
                self.model.metadata.append(fresh)

    def _operator(self, raw: Any) -> Any:
        if raw.intermediates is not None and len(raw.intermediates):
            raise InputError(
                "operators must have no intermediate tensors. Received: one that has, a fused recurrent "
                "layer, which cannot be cut. Replace the layer."
            )
        fresh = copy.copy(raw)
        # It points into metadata of the converter that only fits the whole.
        fresh.debugMetadataIndex = -1
        if raw.opcodeIndex not in self.code_of:
            self.code_of[raw.opcodeIndex] = len(self.model.operatorCodes)
            self.model.operatorCodes.append(self.graph.model.operatorCodes[raw.opcodeIndex])
        fresh.opcodeIndex = self.code_of[raw.opcodeIndex]
        fresh.inputs = [self._tensor(int(tensor)) for tensor in raw.inputs]
        fresh.outputs = [self._tensor(int(tensor)) for tensor in raw.outputs]
        return fresh

    def _tensor(self, index: int) -> int:
        if index < 0:
            return index
        if index not in self.tensor_of:
            fresh = copy.copy(self.graph.subgraph.tensors[index])
            fresh.buffer = self._buffer(fresh.buffer) if self.graph.tensors[index].is_constant else 0
            fresh.quantization = _with_axis(fresh)
            if not self.keep_names:
                fresh.name = None
                fresh.quantization = _without_range(fresh.quantization)
            self.tensor_of[index] = len(self.subgraph.tensors)
            self.subgraph.tensors.append(fresh)
        return self.tensor_of[index]

    def _buffer(self, index: int) -> int:
        if index not in self.buffer_of:
            fresh = schema.BufferT()
            fresh.data = self.graph.model.buffers[index].data
            self.buffer_of[index] = len(self.model.buffers)
            self.model.buffers.append(fresh)
        return self.buffer_of[index]


def _with_axis(raw: Any) -> Any:
    """Return the quantization of a tensor, along its only axis where it has only one (see `mended`)."""
    quantization = raw.quantization
    if (
        quantization is None
        or not quantization.quantizedDimension
        or raw.shape is None
        or len(raw.shape) != 1
    ):
        return quantization
    fresh = copy.copy(quantization)
    fresh.quantizedDimension = 0
    return fresh


def _without_range(quantization: Any) -> Any:
    """Leave out the range seen in calibration: no kernel reads it."""
    if quantization is None or (quantization.min is None and quantization.max is None):
        return quantization
    fresh = copy.copy(quantization)
    fresh.min = fresh.max = None
    return fresh
