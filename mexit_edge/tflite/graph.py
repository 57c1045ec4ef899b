"""A read-only view of one model's graph, in plain Python types."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.tflite.flatbuffer import parse, refuse_unsound, text
from mexit_edge.tflite.verify import damaged

MAX_SIGNATURES = 64
_OP_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
_TYPE_NAMES = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
# Operator -> the first of its inputs that may be absent (-1), mostly the bias. Where another one is, LiteRT
# reads what stands before its tensors in memory: XNNPACK may end the process on an ADD with one input.
_MAY_BE_ABSENT = {
    **dict.fromkeys(("CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), 2),
    **dict.fromkeys(("CONV_3D_TRANSPOSE", "SVDF", "TRANSPOSE_CONV"), 3),
    **dict.fromkeys(("BIDIRECTIONAL_SEQUENCE_LSTM", "LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM"), 1),
    "BIDIRECTIONAL_SEQUENCE_RNN": 1,
}
_NUMPY_TYPES = {
    "FLOAT32": "<f4",
    "FLOAT16": "<f2",
    "INT8": "i1",
    "UINT8": "u1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "BOOL": "?",
}


@dataclass(frozen=True)
class Tensor:
    """One tensor of the graph.

    Args:
        index: place in the subgraph.
        name: as stored, "" when stripped.
        shape: static shape.
        dtype: name of the type in the TFLite schema, for example ``"INT8"``.
        scale: quantization scale when there is exactly one, else None.
        zero_point: quantization zero point when there is exactly one, else None.
        is_constant: whether the file holds its values.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int | None
    is_constant: bool

    @property
    def numpy_dtype(self) -> np.dtype[Any] | None:
        """The type in NumPy, or None where it has none."""
        return np.dtype(_NUMPY_TYPES[self.dtype]) if self.dtype in _NUMPY_TYPES else None

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Operator:
    """One operator of the graph.

    Args:
        index: place in the subgraph, in order of execution.
        name: name in the TFLite schema, for example ``"CONV_2D"``; ``"custom:NAME"`` of a custom operator.
        inputs: tensor indices, -1 for an optional one that is absent.
        outputs: tensor indices.
        options: the operator's options of the TFLite schema's object form, or None.
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


class Graph:
    """The first subgraph of a .tflite and its signature.

    Args:
        content: a whole .tflite file.

    Raises:
        InputError: it is no .tflite or a damaged one, is more than 256 MiB, holds more than one subgraph, or
            its operators cannot be followed: a tensor with two producers, or read before it is made; an
            input left out that an operator needs; a shape that cannot be; values outside of the file's own
            buffers.
    """

    def __init__(self, content: bytes) -> None:
        model = parse(content)
        n_subgraphs = len(model.subgraphs or [])
        if n_subgraphs > 1:
            keys = _signature_keys(model)
            found = (
                f"with the signatures {', '.join(keys.values())}. Use the model that these parts were made "
                "of; `mexit inspect` lists the parts themselves"
                if keys
                else "which only control flow (IF, WHILE) or variables need. Convert the network without them"
            )
            raise InputError(f"a model must hold one subgraph. Received: {n_subgraphs} subgraphs, {found}.")
        self._open(model)

    @classmethod
    def of_signatures(cls, content: bytes) -> dict[str, Graph]:
        """Return the graph of every signature of a file whose subgraphs have one each, as phone.tflite.

        Args:
            content: a whole .tflite file.

        Returns:
            Signature key -> graph, in the order of the subgraphs; nothing for a file of another kind.

        Raises:
            InputError: as for the constructor.
        """
        model = parse(content)
        graphs = {}
        for place, key in _signature_keys(model).items():
            part = copy.copy(model)
            part.subgraphs = [model.subgraphs[place]]
            part.signatureDefs = [one for one in model.signatureDefs if one.subgraphIndex == place]
            graphs[key] = cls.__new__(cls)
            graphs[key]._open(part)
        return graphs

    def _open(self, model: Any) -> None:
        """Take the model's one subgraph."""
        if not model.subgraphs:
            raise damaged("no subgraph")
        self.model = model
        self.subgraph = model.subgraphs[0]
        refuse_unsound(self.model, self.subgraph)
        self._refuse_absent_inputs()

    def _refuse_absent_inputs(self) -> None:
        for operator in self.operators:
            first = 0 if operator.name.startswith("custom:") else _MAY_BE_ABSENT.get(operator.name)
            needed = operator.inputs if first is None else operator.inputs[:first]
            if -1 in needed:
                raise InputError(
                    f"every operator must have the inputs that it needs. Received: {operator.name} (operator "
                    f"{operator.index}) without input {needed.index(-1)}. Convert the model again."
                )

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, by index."""
        return tuple(self._tensor(index, raw) for index, raw in enumerate(self.subgraph.tensors))

    @cached_property
    def operators(self) -> tuple[Operator, ...]:
        """All operators in order of execution."""
        return tuple(self._operator(index, raw) for index, raw in enumerate(self.subgraph.operators))

    @cached_property
    def producers(self) -> dict[int, int]:
        """Tensor index -> index of the operator that computes it."""
        return {tensor: operator.index for operator in self.operators for tensor in operator.outputs}

    @property
    def inputs(self) -> tuple[int, ...]:
        """Tensor indices of the graph's inputs."""
        return tuple(int(index) for index in self.subgraph.inputs)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Tensor indices of the graph's outputs, in the file's order, which is not the network's."""
        return tuple(int(index) for index in self.subgraph.outputs)

    @cached_property
    def signature_outputs(self) -> dict[str, int]:
        """Output name -> tensor index: the only reliable way to tell outputs apart."""
        return self._signature("outputs")

    @cached_property
    def signature_inputs(self) -> dict[str, int]:
        """Input name -> tensor index; empty where the file has no signature."""
        return self._signature("inputs")

    def activations(self, operator: Operator) -> tuple[int, ...]:
        """Return the operator's inputs that are computed or fed, not stored in the file."""
        return tuple(index for index in operator.inputs if index >= 0 and not self.tensors[index].is_constant)

    def constant(self, index: int) -> NDArray[Any]:
        """Return the values of a constant tensor.

        Raises:
            InputError: the tensor is no constant, or of a type that NumPy does not know.
        """
        tensor = self.tensors[index]
        if not tensor.is_constant or tensor.dtype not in _NUMPY_TYPES:
            raise InputError(
                f"tensor {index} must be a plain constant. Received: {tensor.dtype}, {tensor.name!r}."
            )
        data = self.model.buffers[self.subgraph.tensors[index].buffer].data
        try:
            return np.frombuffer(bytes(bytearray(data)), _NUMPY_TYPES[tensor.dtype]).reshape(tensor.shape)
        except ValueError as error:
            raise InputError(
                f"tensor {index} must have as many values as its shape {tensor.shape}. Received: {error}."
            ) from error

    def _signature(self, side: str) -> dict[str, int]:
        if not self.model.signatureDefs:
            return {}
        entries = getattr(self.model.signatureDefs[0], side) or []
        return {text(entry.name): int(entry.tensorIndex) for entry in entries}

    def _tensor(self, index: int, raw: Any) -> Tensor:
        quantization = raw.quantization
        scales = [] if quantization is None or quantization.scale is None else list(quantization.scale)
        zeros = [] if quantization is None or quantization.zeroPoint is None else list(quantization.zeroPoint)
        data = self.model.buffers[raw.buffer].data
        return Tensor(
            index=index,
            name=text(raw.name),
            shape=() if raw.shape is None else tuple(int(size) for size in raw.shape),
            dtype=_TYPE_NAMES.get(raw.type, str(raw.type)),
            scale=float(scales[0]) if len(scales) == 1 else None,
            zero_point=int(zeros[0]) if len(zeros) == 1 else None,
            is_constant=data is not None and len(data) > 0,
        )

    def _operator(self, index: int, raw: Any) -> Operator:
        code = self.model.operatorCodes[raw.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        # Engines look at a custom name only where the code is CUSTOM: elsewhere it may say anything.
        name = _OP_NAMES.get(number, str(number))
        if number == schema.BuiltinOperator.CUSTOM:
            name = f"custom:{text(code.customCode)}"
        return Operator(
            index=index,
            name=name,
            inputs=tuple(int(tensor) for tensor in raw.inputs),
            outputs=tuple(int(tensor) for tensor in raw.outputs),
            options=raw.builtinOptions,
        )


def _signature_keys(model: Any) -> dict[int, str]:
    """Return subgraph -> key of its signature where every subgraph has just one, with a key of its own."""
    signatures = sorted(model.signatureDefs or [], key=lambda one: int(one.subgraphIndex))
    keys = {int(one.subgraphIndex): text(one.signatureKey) for one in signatures}
    whole = list(keys) == list(range(len(model.subgraphs or []))) and len(signatures) == len(keys)
    return keys if whole and len(set(keys.values())) == len(keys) <= MAX_SIGNATURES else {}
