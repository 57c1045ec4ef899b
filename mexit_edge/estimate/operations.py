"""Count what a .tflite computes, operator by operator.

`OPERATIONS` is the one table of operators: an operator that is not in it is refused by name, so that no
total leaves something out without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.tflite import Graph, Operator

Kind = Literal["conv_kxk", "conv_1x1", "depthwise", "fully_connected", "other"]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class OperationCost:
    """What one operator computes and reads.

    Args:
        index: place in the model, in order of execution.
        name: name in the TFLite schema.
        kind: what decides its cost per multiply-accumulate; ``"other"`` has none.
        macs: multiply-accumulates for one window, those on padding included.
        live_macs: those among them whose result can depend on the model's input (see `operations`).
        weight_bytes: bytes of the constants it reads: weights, bias, shapes.
        elements: elements of its largest activation, read or written.
        output_elements: elements written.
        dtype: type of its first output, for example ``"INT8"``.
    """

    index: int
    name: str
    kind: Kind
    macs: int
    live_macs: int
    weight_bytes: int
    elements: int
    output_elements: int
    dtype: str


@dataclass(frozen=True)
class _Count:
    """MACs of one operator, and which of its output channels are constant (None: taken as none)."""

    kind: Kind = "other"
    macs: int = 0
    live_macs: int = 0
    constant: Mask | None = None


Rule = Callable[[Graph, Operator, Mask | None], _Count]


def operations(content: bytes | Graph) -> tuple[OperationCost, ...]:
    """Count every operator of a model, for a batch of 1.

    An output channel is constant when all its weights are zero (equal to the zero point, where there is one)
    on every input channel that is not constant itself: its values do not depend on the model's input, so that
    an engine can fold them. `live_macs` leaves out the MACs that make or read constant channels. Constant
    channels are followed through convolutions and fully connected operators only; behind any other operator
    all channels count as live. `live_macs` is thus an upper bound of what a folding engine has to compute.

    Args:
        content: a .tflite, or its graph.

    Raises:
        InputError: the model holds an operator for which there is no rule; it is named.
    """
    graph = content if isinstance(content, Graph) else Graph(content)
    constant: dict[int, Mask | None] = {}
    costs = []
    for operator in graph.operators:
        first = constant.get(operator.inputs[0]) if operator.inputs else None
        count = _counted(_rule(operator), graph, operator, first)
        constant[operator.outputs[0]] = count.constant
        written = [graph.tensors[index].elements for index in operator.outputs]
        read = [graph.tensors[index].elements for index in graph.activations(operator)]
        costs.append(
            OperationCost(
                index=operator.index,
                name=operator.name,
                kind=count.kind,
                macs=count.macs,
                live_macs=count.live_macs,
                weight_bytes=_constant_bytes(graph, operator),
                elements=max(written + read),
                output_elements=sum(written),
                dtype=graph.tensors[operator.outputs[0]].dtype,
            )
        )
    return tuple(costs)


def total_macs(content: bytes) -> int:
    """Return the multiply-accumulates of one run of a .tflite.

    Raises:
        InputError: the model holds an operator for which there is no rule.
    """
    return sum(cost.macs for cost in operations(content))


def total_live_macs(content: bytes) -> int:
    """Return the multiply-accumulates that can depend on the input (see `operations`).

    Raises:
        InputError: the model holds an operator for which there is no rule.
    """
    return sum(cost.live_macs for cost in operations(content))


def _rule(operator: Operator) -> Rule:
    if operator.name not in OPERATIONS:
        raise InputError(
            f"`content` must consist of operators whose cost is known. Received: {operator.name} at place "
            f"{operator.index}. Replace the layer that makes it, or add its rule to "
            "`mexit_edge.estimate.OPERATIONS`."
        )
    return OPERATIONS[operator.name]


def _counted(rule: Rule, graph: Graph, operator: Operator, constant: Mask | None) -> _Count:
    """Apply a rule to an operator whose tensors need not be what the format promises."""
    try:
        if not operator.outputs or min(operator.inputs[:1], default=0) < 0:
            raise IndexError("an operator without input or output")
        if not all(graph.tensors[index].elements for index in operator.outputs):
            raise ValueError("an output without elements")
        return rule(graph, operator, constant)
    except InputError:
        raise
    # A hostile file may state weights of another rank or size, or leave them out.
    except (IndexError, ValueError, ZeroDivisionError) as error:
        shapes = [graph.tensors[index].shape for index in operator.inputs if index >= 0]
        raise InputError(
            f"`content` must give {operator.name} at place {operator.index} inputs whose shapes fit. "
            f"Received: {shapes} ({error}). Convert the model again."
        ) from error


def _conv_2d(graph: Graph, operator: Operator, constant: Mask | None) -> _Count:
    """Weights (out, kernel_h, kernel_w, in per group)."""
    _, height, width, _ = graph.tensors[operator.inputs[1]].shape
    return _dense(graph, operator, constant, "conv_1x1" if height == width == 1 else "conv_kxk")


def _fully_connected(graph: Graph, operator: Operator, constant: Mask | None) -> _Count:
    """Weights (out, in)."""
    return _dense(graph, operator, constant, "fully_connected")


def _dense(graph: Graph, operator: Operator, constant: Mask | None, kind: Kind) -> _Count:
    """Count an operator each of whose outputs sums over taps and input channels; weights (out, ..., in)."""
    weights = graph.tensors[operator.inputs[1]]
    n_out, n_in = weights.shape[0], weights.shape[-1]
    taps = int(np.prod(weights.shape[1:-1], dtype=np.int64))
    elements = graph.tensors[operator.outputs[0]].elements
    macs = elements * taps * n_in
    if not weights.is_constant:
        return _Count(kind, macs, macs)
    # A grouped convolution, or a flattened input, does not map channel to channel: all inputs count as live.
    live_in = ~constant if constant is not None and len(constant) == n_in else np.ones(n_in, bool)
    nonzero = _nonzero_weights(graph, operator).reshape(n_out, taps, n_in) & live_in
    live_out = nonzero.any(axis=(1, 2))
    live_macs = elements // n_out * taps * int(live_out.sum()) * int(live_in.sum())
    return _Count(kind, macs, live_macs, ~live_out)


def _depthwise_conv_2d(graph: Graph, operator: Operator, constant: Mask | None) -> _Count:
    """Weights (1, kernel_h, kernel_w, out); output channel c reads input channel c // multiplier."""
    weights = graph.tensors[operator.inputs[1]]
    _, height, width, n_out = weights.shape
    elements = graph.tensors[operator.outputs[0]].elements
    macs = elements * height * width
    if not weights.is_constant:
        return _Count("depthwise", macs, macs)
    live_out: Mask = np.asarray(_nonzero_weights(graph, operator).any(axis=(0, 1, 2)), np.bool_)
    if constant is not None:
        live_out &= ~np.repeat(constant, n_out // len(constant))
    live_macs = elements // n_out * height * width * int(live_out.sum())
    return _Count("depthwise", macs, live_macs, ~live_out)


def _without_macs(graph: Graph, operator: Operator, constant: Mask | None) -> _Count:
    """Element-wise or data-moving: its cost goes with the elements."""
    return _Count()


def _nonzero_weights(graph: Graph, operator: Operator) -> NDArray[Any]:
    # Per-channel weights have no single zero point: the format fixes theirs at 0.
    return graph.constant(operator.inputs[1]) != (graph.tensors[operator.inputs[1]].zero_point or 0)


def _constant_bytes(graph: Graph, operator: Operator) -> int:
    constants = {index for index in operator.inputs if index >= 0 and graph.tensors[index].is_constant}
    return sum(len(graph.model.buffers[graph.subgraph.tensors[index].buffer].data) for index in constants)


# fmt: off
_WITHOUT_MACS = (
    # They move, select or reshape data.
    "BATCH_TO_SPACE_ND", "CAST", "CONCATENATION", "EXPAND_DIMS", "GATHER", "MIRROR_PAD", "PACK", "PAD",
    "PADV2", "RESHAPE", "SHAPE", "SLICE", "SPACE_TO_BATCH_ND", "SPLIT", "SPLIT_V", "SQUEEZE", "STRIDED_SLICE",
    "TRANSPOSE", "UNPACK",
    # They change the type.
    "DEQUANTIZE", "QUANTIZE",
    # They combine or map elements.
    "ABS", "ADD", "ADD_N", "DIV", "ELU", "EXP", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "MAXIMUM", "MINIMUM",
    "MUL", "NEG", "PRELU", "RELU", "RELU6", "RELU_N1_TO_1", "RSQRT", "SOFTMAX", "SQRT", "SQUARE",
    "SQUARED_DIFFERENCE", "SUB", "TANH",
    # They reduce.
    "ARG_MAX", "ARG_MIN", "AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "REDUCE_MAX", "REDUCE_MIN", "SUM",
)
# fmt: on
OPERATIONS: dict[str, Rule] = {
    "CONV_2D": _conv_2d,
    "DEPTHWISE_CONV_2D": _depthwise_conv_2d,
    "FULLY_CONNECTED": _fully_connected,
    **dict.fromkeys(_WITHOUT_MACS, _without_macs),
}
