"""Count what a .tflite computes, operator by operator.

An operator without a rule (see `operation_rules`) is reported as unknown, and makes every total unknown, so
that none leaves something out without a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mexit_edge.errors import InputError
from mexit_edge.estimate.operation_rules import OPERATIONS, Count, Kind, Mask, Masks
from mexit_edge.tflite import Graph, Operator

Shape = tuple[int, ...]
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class OperationCost:
    """What one operator computes, reads and writes.

    Args:
        index: place in the model, in order of execution.
        name: name in the TFLite schema; ``"custom:NAME"`` of a custom operator.
        kind: what decides its cost per multiply-accumulate (`MAC_KINDS`) or per unit of work;
            ``"unknown"`` where there is no rule.
        macs: multiply-accumulates for one window, those on padding included; 0 of kinds that have none, None
            where they are unknown.
        live_macs: those among them whose result can depend on the model's input (see `operations`).
        input_shapes: of the activations it reads.
        output_shapes: of the tensors it writes.
        weight_bytes: bytes of the constants it reads: weights, bias, shapes.
        activation_bytes: bytes of the activations it reads and writes, each tensor once; None where one has a
            type without a fixed size.
        output_elements: elements written.
        live_output_elements: those among them in channels that are not constant (see `operations`).
        work: element operations of kinds without multiply-accumulates: output elements times the window of a
            pooling or reduction, else the larger of the elements read and written; 0 of the others.
        channel_rounding: factor, at least 1, by which the reduction grows when it is rounded up to a multiple
            of 4, the int8 values that SIMD kernels take at once (Lai et al., arXiv:1801.06601): kernel taps x
            input channels of CONV_2D and FULLY_CONNECTED, channels of DEPTHWISE_CONV_2D; 1.0 of the others.
        dtype: type of its first output, for example ``"INT8"``; "" where it has none.
    """

    index: int
    name: str
    kind: Kind
    macs: int | None
    live_macs: int | None
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]
    weight_bytes: int
    activation_bytes: int | None
    output_elements: int
    live_output_elements: int
    work: int
    channel_rounding: float
    dtype: str


def operations(content: bytes | Graph) -> tuple[OperationCost, ...]:
    """Count every operator of a model, for a batch of 1.

    An output channel is constant when all its weights are zero (equal to the zero point, where there is one)
    on every input channel that is not constant itself: its values do not depend on the model's input, so that
    an engine can fold them. `live_macs` leaves out the MACs that make or read constant channels. Constant
    channels are followed through CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV and FULLY_CONNECTED only; behind
    any other operator all channels count as live. `live_macs` is thus an upper bound of what a folding engine
    has to compute.

    Args:
        content: a .tflite, or its graph.

    Raises:
        InputError: an operator has weights, other inputs or options that do not fit; it is named.
    """
    graph = content if isinstance(content, Graph) else Graph(content)
    constant: dict[int, Mask] = {}
    costs = []
    for operator in graph.operators:
        count = _count(graph, operator, constant)
        if count.constant is not None:
            constant[operator.outputs[0]] = count.constant
        costs.append(_cost(graph, operator, count))
    return tuple(costs)


def total_macs(content: bytes | Graph) -> int | None:
    """Return the multiply-accumulates of one run of a .tflite; None where an operator is unknown.

    Raises:
        InputError: as for `operations`.
    """
    return known_sum(cost.macs for cost in operations(content))


def total_live_macs(content: bytes | Graph) -> int | None:
    """Return the multiply-accumulates that can depend on the input (see `operations`); None if unknown.

    Raises:
        InputError: as for `operations`.
    """
    return known_sum(cost.live_macs for cost in operations(content))


def unknown_operations(costs: Iterable[OperationCost]) -> tuple[str, ...]:
    """Return the names of the operators without a rule, each once, in order of execution."""
    return tuple(dict.fromkeys(cost.name for cost in costs if cost.kind == "unknown"))


def known_sum(counts: Iterable[Number | None]) -> Number | None:
    """Return the sum; None when a part is unknown."""
    known: list[Number] = []
    for count in counts:
        if count is None:
            return None
        known.append(count)
    return sum(known)


def tensor_bytes(graph: Graph, indices: Iterable[int]) -> int | None:
    """Return the bytes of these tensors; None when one has a type without a fixed size."""
    tensors = (graph.tensors[index] for index in indices)
    return known_sum(
        None if one.numpy_dtype is None else one.elements * one.numpy_dtype.itemsize for one in tensors
    )


def _count(graph: Graph, operator: Operator, constant: Masks) -> Count:
    """Apply its rule to an operator whose tensors need not be what the format promises."""
    rule = OPERATIONS.get(operator.name)
    if rule is None:
        return Count("unknown", None, None)
    try:
        if not operator.outputs or min(operator.inputs[:1], default=0) < 0:
            raise IndexError("an operator without input or output")
        if not all(graph.tensors[index].elements for index in operator.outputs):
            raise ValueError("an output without elements")
        count = rule(graph, operator, constant)
        if not (count.macs or count.work):
            raise ValueError("nothing to compute from")
        return count
    except InputError:
        raise
    # A hostile file may state weights of another rank or size, or leave them out.
    except (IndexError, ValueError, ZeroDivisionError) as error:
        shapes = [graph.tensors[index].shape for index in operator.inputs if index >= 0]
        raise InputError(
            f"`content` must give {operator.name} at place {operator.index} inputs whose shapes fit. "
            f"Received: {shapes} ({error}). Convert the model again."
        ) from error


def _cost(graph: Graph, operator: Operator, count: Count) -> OperationCost:
    read = [graph.tensors[index] for index in graph.activations(operator)]
    written = [graph.tensors[index] for index in operator.outputs]
    elements, constant = sum(tensor.elements for tensor in written), count.constant
    return OperationCost(
        index=operator.index,
        name=operator.name,
        kind=count.kind,
        macs=count.macs,
        live_macs=count.live_macs,
        input_shapes=tuple(tensor.shape for tensor in read),
        output_shapes=tuple(tensor.shape for tensor in written),
        weight_bytes=_constant_bytes(graph, operator.inputs),
        activation_bytes=tensor_bytes(graph, {tensor.index for tensor in (*read, *written)}),
        output_elements=elements,
        live_output_elements=elements
        if constant is None
        else elements * int((~constant).sum()) // len(constant),
        work=count.work,
        channel_rounding=count.channel_rounding,
        dtype=written[0].dtype if written else "",
    )


def _constant_bytes(graph: Graph, indices: Sequence[int]) -> int:
    constants = {index for index in indices if index >= 0 and graph.tensors[index].is_constant}
    return sum(len(graph.model.buffers[graph.subgraph.tensors[index].buffer].data) for index in constants)
