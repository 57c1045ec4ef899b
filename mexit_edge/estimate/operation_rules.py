"""What one TFLite operator computes, kind by kind: the rules that `operations` applies.

`OPERATIONS` is the one table of operators. It has the builtin ones that TFLM registers and those that int8
networks become in LiteRT. What is not in it cannot be counted from the main graph (IF, WHILE, CALL_ONCE,
variables, custom operators), takes work that depends on the values (UNIQUE, NON_MAX_SUPPRESSION_V4), or was
never met: it is unknown.
Shapes of weights are those that TFLite's kernels take (tensorflow/lite/kernels/conv.cc and its like).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mexit_edge.tflite import Graph, Operator

MacKind = Literal[
    "conv_kxk", "conv_1x1", "depthwise", "fully_connected", "transpose_conv", "batch_matmul", "recurrent"
]
Kind = Literal[MacKind, "pooling", "elementwise", "nonlinear", "movement", "unknown"]
MAC_KINDS: tuple[MacKind, ...] = get_args(MacKind)
SIMD_WIDTH = 4  # int8 values in one 32-bit register

Mask = NDArray[np.bool_]
Masks = Mapping[int, Mask]


@dataclass(frozen=True)
class Count:
    """What a rule says of one operator; fields as those of `operations.OperationCost`.

    Args:
        kind: decides the cost of a multiply-accumulate, or of a unit of work.
        macs: multiply-accumulates; None where unknown.
        live_macs: those among them that can depend on the model's input; None where unknown.
        work: element operations, of operators without multiply-accumulates.
        channel_rounding: growth of the reduction when it is rounded up to `SIMD_WIDTH`.
        constant: which channels of the first output are constant; None: taken as none.
    """

    kind: Kind
    macs: int | None = 0
    live_macs: int | None = 0
    work: int = 0
    channel_rounding: float = 1.0
    constant: Mask | None = None


# A rule gets the graph, one operator of it, and tensor -> which of its channels are constant, where known.
# Weights of another rank or size than the format promises end in an IndexError or a ValueError.
Rule = Callable[[Graph, Operator, Masks], Count]


def _conv_2d(graph: Graph, operator: Operator, masks: Masks) -> Count:
    """Weights (out, kernel_h, kernel_w, in per group), each used once per position of the output."""
    n_out, height, width, n_in = graph.tensors[operator.inputs[1]].shape
    positions = _positions(_output_elements(graph, operator), n_out)
    kind: Kind = "conv_1x1" if height == width == 1 else "conv_kxk"
    return _sums(graph, operator, masks.get(operator.inputs[0]), kind, positions, height * width * n_in)


def _fully_connected(graph: Graph, operator: Operator, masks: Masks) -> Count:
    """Weights (out, in), each used once per vector."""
    n_out, n_in = graph.tensors[operator.inputs[1]].shape
    positions = _positions(_output_elements(graph, operator), n_out)
    return _sums(graph, operator, masks.get(operator.inputs[0]), "fully_connected", positions, n_in)


def _transpose_conv(graph: Graph, operator: Operator, masks: Masks) -> Count:
    """Weights (out, kernel_h, kernel_w, in), each used once per position of the input, which comes third."""
    _, _, _, n_in = graph.tensors[operator.inputs[1]].shape
    positions = _positions(graph.tensors[operator.inputs[2]].elements, n_in)
    return _sums(graph, operator, masks.get(operator.inputs[2]), "transpose_conv", positions)


def _sums(
    graph: Graph,
    operator: Operator,
    constant: Mask | None,
    kind: Kind,
    positions: int,
    reduction: int | None = None,
) -> Count:
    """Count an operator whose weights (out, ..., in) are each used once per position.

    A `reduction` is the length that kernels round up to their SIMD width; None where they round none.
    """
    weights = graph.tensors[operator.inputs[1]]
    n_out, n_in = weights.shape[0], weights.shape[-1]
    macs = positions * weights.elements
    rounding = 1.0 if reduction is None else _rounding(reduction)
    if not _is_readable(graph, operator.inputs[1]):
        return Count(kind, macs, macs, channel_rounding=rounding)
    # A grouped convolution, or a flattened input, does not map channel to channel: all inputs count as live.
    live_in = ~constant if constant is not None and len(constant) == n_in else np.ones(n_in, bool)
    nonzero = _nonzero_weights(graph, operator).reshape(n_out, -1, n_in)
    live_out = (nonzero & live_in).any(axis=(1, 2))
    live_macs = positions * nonzero.shape[1] * int(live_out.sum()) * int(live_in.sum())
    return Count(kind, macs, live_macs, channel_rounding=rounding, constant=~live_out)


def _depthwise_conv_2d(graph: Graph, operator: Operator, masks: Masks) -> Count:
    """Weights (1, kernel_h, kernel_w, out); output channel c reads input channel c // multiplier."""
    weights, constant = graph.tensors[operator.inputs[1]], masks.get(operator.inputs[0])
    _, height, width, n_out = weights.shape
    positions = _positions(_output_elements(graph, operator), n_out)
    macs, rounding = positions * weights.elements, _rounding(n_out)
    if not _is_readable(graph, operator.inputs[1]):
        return Count("depthwise", macs, macs, channel_rounding=rounding)
    live_out: Mask = np.asarray(_nonzero_weights(graph, operator).any(axis=(0, 1, 2)), np.bool_)
    if constant is not None:
        live_out &= ~np.repeat(constant, n_out // len(constant))
    live_macs = positions * height * width * int(live_out.sum())
    return Count("depthwise", macs, live_macs, channel_rounding=rounding, constant=~live_out)


def _conv_3d(graph: Graph, operator: Operator, masks: Masks) -> Count:
    """Weights (kernel_d, kernel_h, kernel_w, in, out), each used once per position of the output."""
    weights = graph.tensors[operator.inputs[1]]
    *taps, _, n_out = weights.shape
    macs = _positions(_output_elements(graph, operator), n_out) * weights.elements
    return Count("conv_1x1" if prod(taps) == 1 else "conv_kxk", macs, macs)


def _batch_matmul(graph: Graph, operator: Operator, masks: Masks) -> Count:
    """Products of matrices (..., m, k) and (..., k, n), each as it is or transposed; one may be constant."""
    left, right = (graph.tensors[index].shape for index in operator.inputs)
    inner = left[-2] if _option(operator, "adjX") else left[-1]
    facing = right[-1] if _option(operator, "adjY") else right[-2]
    if inner != facing:
        raise ValueError(f"sums over {inner} and {facing} products")
    macs = _output_elements(graph, operator) * inner
    return Count("batch_matmul", macs, macs)


def _svdf(graph: Graph, operator: Operator, masks: Masks) -> Count:
    """A filter per unit and rank: over the features, (filters, in), then over time, (filters, memory)."""
    window, features, time = (graph.tensors[index] for index in operator.inputs[:3])
    batch, n_in = window.shape
    (n_filters, n_features), (n_times, _) = features.shape, time.shape
    if (n_in, n_filters) != (n_features, n_times):
        raise ValueError(f"filters {features.shape} and {time.shape} of {n_in} features")
    macs = batch * (features.elements + time.elements)
    return Count("recurrent", macs, macs)


def _lstm(graph: Graph, operator: Operator, masks: Masks) -> Count:
    """Matrices of the four gates, each used once per step: of the input, of the state, of the projection.

    A state of zeros before the first step is multiplied as well. Products of a vector with a vector
    (peepholes, normalisation) are no sums and count as none.
    """
    window = graph.tensors[operator.inputs[0]]
    places = (*operator.inputs[1:9], operator.inputs[16])  # gates by input, gates by state, projection
    matrices = [graph.tensors[index] for index in places if index >= 0]
    _, _, n_in = window.shape
    of_input = [graph.tensors[index].shape for index in operator.inputs[1:5] if index >= 0]
    if any(len(matrix.shape) != 2 for matrix in matrices) or {n for _, n in of_input} != {n_in}:
        raise ValueError(f"gates {of_input} of {n_in} features")
    macs = window.elements // n_in * sum(matrix.elements for matrix in matrices)
    return Count("recurrent", macs, macs)


def _pool_2d(graph: Graph, operator: Operator, masks: Masks) -> Count:
    taps = (_option(operator, "filterHeight"), _option(operator, "filterWidth"))
    if min(taps) < 1:
        raise ValueError(f"a window {taps}")
    return Count("pooling", work=_output_elements(graph, operator) * prod(taps))


def _reduction(graph: Graph, operator: Operator, masks: Masks) -> Count:
    """Every element read goes into one that is written: the window is what is reduced."""
    return Count("pooling", work=graph.tensors[operator.inputs[0]].elements)


def _per_element(kind: Kind) -> Rule:
    """Return the rule of an operator that handles each element once."""

    def rule(graph: Graph, operator: Operator, masks: Masks) -> Count:
        read = sum(graph.tensors[index].elements for index in graph.activations(operator))
        return Count(kind, work=max(read, _output_elements(graph, operator)))

    return rule


def _output_elements(graph: Graph, operator: Operator) -> int:
    return sum(graph.tensors[index].elements for index in operator.outputs)


def _positions(elements: int, channels: int) -> int:
    positions, rest = divmod(elements, channels)
    if rest:
        raise ValueError(f"{elements} elements in {channels} channels")
    return positions


def _rounding(length: int) -> float:
    return -(-length // SIMD_WIDTH) * SIMD_WIDTH / length


def _option(operator: Operator, name: str) -> int:
    # Options that a file leaves out, or of another operator, have the format's default, as engines read them.
    return int(getattr(operator.options, name, 0))


def _is_readable(graph: Graph, index: int) -> bool:
    return graph.tensors[index].is_constant and graph.tensors[index].numpy_dtype is not None


def _nonzero_weights(graph: Graph, operator: Operator) -> NDArray[Any]:
    # Per-channel weights have no single zero point: the format fixes theirs at 0.
    return graph.constant(operator.inputs[1]) != (graph.tensors[operator.inputs[1]].zero_point or 0)


# fmt: off
_REDUCTIONS = (
    "ARG_MAX", "ARG_MIN", "MEAN", "REDUCE_ALL", "REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD",
    "SUM",
)
# A few additions, comparisons and multiplications by fixed numbers per element.
_ELEMENTWISE = (
    "ABS", "ADD", "ADD_N", "CAST", "CEIL", "CUMSUM", "DEQUANTIZE", "EQUAL", "FLOOR", "GREATER",
    "GREATER_EQUAL", "HARD_SWISH", "LEAKY_RELU", "LESS", "LESS_EQUAL", "LOGICAL_AND", "LOGICAL_NOT",
    "LOGICAL_OR", "MAXIMUM", "MINIMUM", "MUL", "NEG", "NOT_EQUAL", "PRELU", "QUANTIZE", "RELU", "RELU6",
    "RELU_0_TO_1", "RELU_N1_TO_1", "RESIZE_BILINEAR", "ROUND", "SELECT", "SELECT_V2", "SIGN", "SQUARE",
    "SQUARED_DIFFERENCE", "SUB",
)
# A division, a root, or a function by a table or a series per element.
_NONLINEAR = (
    "ATAN2", "COS", "DIV", "ELU", "EXP", "FLOOR_DIV", "FLOOR_MOD", "GELU", "L2_NORMALIZATION", "LOG",
    "LOGISTIC", "LOG_SOFTMAX", "POW", "RSQRT", "SIN", "SOFTMAX", "SQRT", "TANH",
)
_MOVEMENT = (
    "BATCH_TO_SPACE_ND", "BITCAST", "BROADCAST_ARGS", "BROADCAST_TO", "CONCATENATION", "DEPTH_TO_SPACE",
    "DYNAMIC_UPDATE_SLICE", "EMBEDDING_LOOKUP", "EXPAND_DIMS", "FILL", "GATHER", "GATHER_ND", "MATRIX_DIAG",
    "MATRIX_SET_DIAG", "MIRROR_PAD", "ONE_HOT", "PACK", "PAD", "PADV2", "RANGE", "RANK", "RESHAPE",
    "RESIZE_NEAREST_NEIGHBOR", "REVERSE_SEQUENCE", "REVERSE_V2", "SCATTER_ND", "SHAPE", "SLICE",
    "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQUEEZE", "STRIDED_SLICE", "TILE",
    "TRANSPOSE", "UNPACK", "ZEROS_LIKE",
)
# fmt: on
OPERATIONS: dict[str, Rule] = {
    "BATCH_MATMUL": _batch_matmul,
    "CONV_2D": _conv_2d,
    "CONV_3D": _conv_3d,
    "DEPTHWISE_CONV_2D": _depthwise_conv_2d,
    "FULLY_CONNECTED": _fully_connected,
    "SVDF": _svdf,
    "TRANSPOSE_CONV": _transpose_conv,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
    **dict.fromkeys(("AVERAGE_POOL_2D", "L2_POOL_2D", "MAX_POOL_2D"), _pool_2d),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    **dict.fromkeys(_ELEMENTWISE, _per_element("elementwise")),
    **dict.fromkeys(_NONLINEAR, _per_element("nonlinear")),
    **dict.fromkeys(_MOVEMENT, _per_element("movement")),
}
