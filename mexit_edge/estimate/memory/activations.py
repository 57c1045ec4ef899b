"""Plan the tensor arena of one model as TFLM plans it, from the .tflite alone.

TFLM's own plan is imitated, not bettered: the head of its arena, where activations and scratch buffers lie.
Source: its public planner and allocator (github.com/tensorflow/tflite-micro, tensorflow/lite/micro:
memory_planner/greedy_memory_planner, micro_allocation_info).
"""

from __future__ import annotations

from dataclasses import dataclass

from mexit_edge.errors import InputError
from mexit_edge.estimate.memory.kernels import KernelLibrary, refuse_unlisted, scratch_bytes
from mexit_edge.estimate.memory.placement import Span, aligned, first_fit, most_in_use
from mexit_edge.tflite import Graph, Tensor
from mexit_edge.tflite.extract import MEMORY_PLAN
from mexit_edge.tflite.flatbuffer import text

BEFORE = -1  # the model's inputs are there before operator 0
UNUSED = -2  # a tensor that nothing makes or reads; TFLM plans it all the same, apart from all others


@dataclass(frozen=True)
class ActivationBuffer:
    """A tensor or a scratch buffer in the head of the arena.

    Args:
        tensor: its name, "" where the file has none; None for a scratch buffer.
        bytes: its size, a multiple of 16.
        first_operator: index of the operator that makes it, -1 for an input of the model.
        last_operator: index of the last operator that uses it; the model's last one for its outputs.
        offset: from the start of the arena, a multiple of 16.
    """

    tensor: str | None
    bytes: int
    first_operator: int
    last_operator: int
    offset: int


@dataclass(frozen=True)
class ActivationPlan:
    """Where the activations of one model lie in TFLM's arena.

    Args:
        buffers: of the file's tensors in their order, then the scratch buffers in the order of operators.
        kernels: whose scratch buffers are planned.
    """

    buffers: tuple[ActivationBuffer, ...]
    kernels: KernelLibrary

    @property
    def bytes(self) -> int:
        """Size of the head of the arena."""
        return max((one.offset + one.bytes for one in self.buffers), default=0)

    @property
    def least_bytes(self) -> int:
        """The most bytes alive at once: no plan takes less."""
        return most_in_use([_span(one) for one in self.buffers])

    @property
    def peak_operator(self) -> int:
        """Index of the first operator during which most bytes are alive; -1 before all of them."""
        return max(
            sorted({one.first_operator for one in self.buffers} | {BEFORE}),
            key=lambda at: sum(
                one.bytes for one in self.buffers if one.first_operator <= at <= one.last_operator
            ),
        )

    @property
    def scratch_bytes(self) -> int:
        """The most bytes of scratch buffers that one operator asks for."""
        return most_in_use([_span(one) for one in self.buffers if one.tensor is None])


def plan_activations(content: bytes | Graph, kernels: KernelLibrary = "reference") -> ActivationPlan:
    """Plan the head of a model's arena as TFLM's greedy planner does.

    A tensor is alive from the operator that makes it to the last one that reads it, an input of the model
    from before the first, an output to the end, a scratch buffer during its operator. Constants are in flash
    and variables in the tail of the arena, so that neither is planned; a view (RESHAPE and its like) has a
    buffer of its own. Larger buffers are placed first, of equal ones the later in the file first, each at the
    lowest offset that is free as long as it is alive. That is not the smallest plan of every model.

    Args:
        content: a .tflite, or its graph.
        kernels: ``"reference"`` as on the host, or ``"cmsis-nn"`` for a Cortex-M with the DSP extension.

    Raises:
        InputError: the file is damaged; ``kernels`` is unknown; the memory of an operator's kernel is not
            known, which is named; a tensor has no fixed size; or the file brings a plan of its own.
    """
    graph = content if isinstance(content, Graph) else Graph(content)
    refuse_unlisted(graph, kernels)
    _refuse_own_plan(graph)
    lifetimes = _lifetimes(graph)
    found: list[tuple[str | None, Span]] = [
        (tensor.name, Span(aligned(size), *lifetimes.get(tensor.index, (UNUSED, UNUSED))))
        for tensor in graph.tensors
        if (size := _planned_bytes(graph, tensor))
    ]
    found += [
        (None, Span(aligned(size), operator.index, operator.index))
        for operator in graph.operators
        for size in scratch_bytes(graph, operator, kernels)
    ]
    # TFLM lists buffers from the last to the first, then sorts them by size without moving equal ones.
    order = sorted(range(len(found)), key=lambda place: (-found[place][1].bytes, -place))
    offsets = dict(zip(order, first_fit([found[place][1] for place in order]), strict=True))
    return ActivationPlan(
        tuple(ActivationBuffer(name, *span, offsets[place]) for place, (name, span) in enumerate(found)),
        kernels,
    )


def _span(buffer: ActivationBuffer) -> Span:
    return Span(buffer.bytes, buffer.first_operator, buffer.last_operator)


def _planned_bytes(graph: Graph, tensor: Tensor) -> int:
    """Return the bytes of a tensor that lies in the head of the arena; 0 for another one."""
    if tensor.is_constant or graph.subgraph.tensors[tensor.index].isVariable:
        return 0
    if tensor.numpy_dtype is None:
        raise InputError(
            "`content` must have activations of a type of fixed size. Received: "
            f"{tensor.dtype}, {tensor.name!r}. Convert the model to int8."
        )
    return tensor.elements * tensor.numpy_dtype.itemsize


def _lifetimes(graph: Graph) -> dict[int, tuple[int, int]]:
    """Return tensor index -> the operators from and to which it is alive; not of one that nothing uses."""
    first = dict.fromkeys((*graph.inputs, *graph.outputs), BEFORE) | graph.producers
    last = dict(first)
    for operator in graph.operators:
        last |= dict.fromkeys((index for index in operator.inputs if index >= 0), operator.index)
    last |= dict.fromkeys(graph.outputs, len(graph.operators) - 1)
    return {index: (first.get(index, UNUSED), last[index]) for index in last}


def _refuse_own_plan(graph: Graph) -> None:
    if any(text(entry.name) == MEMORY_PLAN for entry in graph.model.metadata or []):
        raise InputError(
            "`content` must leave the plan of its arena to TFLM. Received: a file with a plan of its own "
            f"({MEMORY_PLAN}). Remove that metadata; `mexit_edge.tflite.cut_at` leaves it out."
        )
