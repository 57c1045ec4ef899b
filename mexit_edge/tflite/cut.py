"""Cut one quantized multi-output model into a chain of stage models, one per exit.

Stage k holds the operators that exit k needs and no earlier stage has run. The operators, their weights and
every quantization are copied as they are, so that the stages compute what the whole model computes, bit for
bit. What later stages need from earlier ones crosses as boundary tensors; one that a stage does not touch
stays with the caller, who keeps all live tensors by name.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from mexit_edge.errors import InputError
from mexit_edge.tflite.graph import Graph, Tensor, serialize

# Operators that only rename the shape of their input. They are repeated in the stages that read them, so
# that a boundary carries each tensor once, and not the same bytes again under another shape.
VIEWS = {"RESHAPE", "EXPAND_DIMS", "SQUEEZE"}
INPUT_NAME = "window"


@dataclass(frozen=True)
class CutStage:
    """One stage as cut from the whole model.

    Args:
        content: the stage's .tflite, without tensor names.
        inputs: (name, tensor of the whole model) per input, in the order of the file.
        outputs: the same per output; the first is the exit's logits.
        operators: number of operators per name.
    """

    content: bytes
    inputs: tuple[tuple[str, Tensor], ...]
    outputs: tuple[tuple[str, Tensor], ...]
    operators: dict[str, int]


def cut_at_exits(content: bytes, exits: Sequence[str]) -> tuple[CutStage, ...]:
    """Cut a model at its exits.

    Args:
        content: a .tflite with one input and a signature that names its outputs.
        exits: output names in the order in which the exits are to run.

    Returns:
        One stage per exit.

    Raises:
        InputError: an exit is no output, two exits are one tensor, or an exit needs no operator of its own.
    """
    graph = Graph(content)
    if len(graph.inputs) != 1:
        raise InputError(f"a model to cut must have one input. Received: {len(graph.inputs)}.")
    missing = [name for name in exits if name not in graph.signature_outputs]
    if missing or not exits:
        raise InputError(
            f"`exits` must name outputs of the model ({', '.join(sorted(graph.signature_outputs))}). "
            f"Received: {', '.join(exits) or 'none'}."
        )
    logits = [graph.signature_outputs[name] for name in exits]
    if len(set(logits)) != len(logits):
        raise InputError(
            f"`exits` must be distinct tensors. Received: {', '.join(exits)}, of which two are one."
        )
    plan = _with_views(graph, _partition(graph, logits), logits)
    return tuple(_extract_all(graph, plan, logits, exits))


def _partition(graph: Graph, logits: Sequence[int]) -> list[set[int]]:
    """Return per exit the operators it needs beyond those of the exits before it."""
    done: set[int] = set()
    stages = []
    for target in logits:
        needed = _ancestors(graph, [target], done)
        stages.append(needed)
        done |= needed
    return stages


def _ancestors(graph: Graph, targets: Iterable[int], without: set[int]) -> set[int]:
    """Return the operators that compute ``targets``, as far as not in ``without``."""
    needed: set[int] = set()
    waiting = list(targets)
    while waiting:
        operator = graph.producers.get(waiting.pop())
        if operator is None or operator in without or operator in needed:
            continue
        needed.add(operator)
        waiting += graph.activations(graph.operators[operator])
    return needed


def _with_views(graph: Graph, stages: list[set[int]], logits: Sequence[int]) -> list[set[int]]:
    """Repeat views in the stages that read them."""
    plan = []
    for operators in stages:
        whole = set(operators)
        waiting = list(operators)
        while waiting:
            for tensor in graph.activations(graph.operators[waiting.pop()]):
                producer = graph.producers.get(tensor)
                if (
                    producer is not None
                    and producer not in whole
                    and graph.operators[producer].name in VIEWS
                    and tensor not in logits
                ):
                    whole.add(producer)
                    waiting.append(producer)
        plan.append(whole)
    return plan


def _extract_all(
    graph: Graph, plan: list[set[int]], logits: Sequence[int], exits: Sequence[str]
) -> Iterable[CutStage]:
    names = {graph.inputs[0]: INPUT_NAME}
    needs = [_reads(graph, operators) for operators in plan]
    for number, (operators, target, exit_name) in enumerate(zip(plan, logits, exits, strict=True), start=1):
        if not operators:
            raise InputError(
                f"`exits` must each need an operator of their own. Received: {exit_name}, which earlier "
                "exits compute already. Put the exits in the order in which they run."
            )
        unknown = [tensor for tensor in needs[number - 1] if tensor not in names]
        if unknown:
            raise InputError(
                f"every operator of {exit_name} must read what the window or another operator gives. "
                f"Received: tensor {unknown[0]}, which nothing computes."
            )
        made = {tensor for index in operators for tensor in graph.operators[index].outputs}
        later = [tensor for need in needs[number:] for tensor in need]
        crossing = [tensor for tensor in sorted(made) if tensor in later and tensor not in names]
        names[target] = f"{exit_name}_logits"
        outputs = [target] + [tensor for tensor in crossing if tensor != target]
        for place, tensor in enumerate(outputs[1:], start=1):
            names[tensor] = f"stage_{number:02d}_features_{place:02d}"
        inputs = needs[number - 1]
        ordered = sorted(operators)
        counts: dict[str, int] = {}
        for index in ordered:
            counts[graph.operators[index].name] = counts.get(graph.operators[index].name, 0) + 1
        yield CutStage(
            content=_extract(graph, ordered, inputs, outputs),
            inputs=tuple((names[tensor], graph.tensors[tensor]) for tensor in inputs),
            outputs=tuple((names[tensor], graph.tensors[tensor]) for tensor in outputs),
            operators=dict(sorted(counts.items())),
        )


def _reads(graph: Graph, operators: set[int]) -> list[int]:
    """Return the activations that these operators read and do not make, in order of first use."""
    made = {tensor for index in operators for tensor in graph.operators[index].outputs}
    reads: dict[int, None] = {}
    for index in sorted(operators):
        for tensor in graph.activations(graph.operators[index]):
            if tensor not in made:
                reads[tensor] = None
    return list(reads)


def _extract(graph: Graph, operators: list[int], inputs: list[int], outputs: list[int]) -> bytes:
    """Return a .tflite with these operators, with tensor names and metadata left out to save flash."""
    return _Extraction(graph).run(operators, inputs, outputs)


class _Extraction:
    """Copies part of a graph into a model of its own, with new indices."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.model = schema.ModelT()
        self.model.version = graph.model.version
        self.model.operatorCodes = []
        # The format wants buffer 0 to be empty: it stands for "no data".
        self.model.buffers = [schema.BufferT()]
        self.subgraph = schema.SubGraphT()
        self.subgraph.tensors, self.subgraph.operators = [], []
        self.tensor_of: dict[int, int] = {}
        self.code_of: dict[int, int] = {}
        self.buffer_of: dict[int, int] = {}

    def run(self, operators: list[int], inputs: list[int], outputs: list[int]) -> bytes:
        self.subgraph.inputs = [self._tensor(tensor) for tensor in inputs]
        for index in operators:
            self.subgraph.operators.append(self._operator(self.graph.subgraph.operators[index]))
        self.subgraph.outputs = [self._tensor(tensor) for tensor in outputs]
        self.model.subgraphs = [self.subgraph]
        return serialize(self.model)

    def _operator(self, raw: Any) -> Any:
        if raw.intermediates is not None and len(raw.intermediates):
            raise InputError("operators with intermediate tensors (fused recurrent layers) cannot be cut.")
        fresh = copy.copy(raw)
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
            fresh.name = None
            fresh.buffer = self._buffer(fresh.buffer) if self.graph.tensors[index].is_constant else 0
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
