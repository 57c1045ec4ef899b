"""Check that a converted model computes on integers throughout, as a microcontroller's kernels need it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mexit_edge.errors import InputError
from mexit_edge.tflite.graph import Graph, Operator

# Shape arithmetic may be carried by int32 tensors; these operators only move data.
SHAPE_ARITHMETIC = {"SHAPE", "STRIDED_SLICE", "PACK"}
CONVERSIONS = {"QUANTIZE", "DEQUANTIZE"}
# Operator -> at which of its inputs filter and bias stand; each may have a scale per channel.
WEIGHTED = {
    "CONV_2D": (1, 2),
    "DEPTHWISE_CONV_2D": (1, 2),
    "FULLY_CONNECTED": (1, 2),
    "TRANSPOSE_CONV": (1, 3),
}
# Type of the activations -> types that a bias may have beside them.
BIASES = {"INT8": {"INT32"}, "INT16": {"INT32", "INT64"}}
# Operator -> what to use in place of the layer that makes it.
SUGGESTIONS = {
    "BUCKETIZE": "its values, computed in front of the network",
    "CAST": "input windows of float32",
    "CONV_3D": "Conv2D, with the third axis among the channels",
    "CUMSUM": "a convolution",
    "DIV": "a multiplication",
    "ELU": "`relu` or `leaky_relu`",
    "Erf": "`relu`",
    "GREATER": "`relu`",
    "HARD_SWISH": "`relu`",
    "NEG": "BatchNormalization where it normalises, by `x * -1.0` where it is a minus",
    "PRELU": "`leaky_relu`",
    "RFFT2D": "its values, computed in front of the network",
    "SQRT": "BatchNormalization",
    "SQUARE": "BatchNormalization where it normalises, by `x * x` where it is a square",
}


@dataclass(frozen=True)
class _Fault:
    """What is wrong with an operator, as the rest of a sentence, and the tensor that shows it."""

    operator: str
    what: str
    tensor: str


def audit_int8(content: bytes) -> None:
    """Refuse a model in which any operator computes on something other than int8; see `audit`.

    Args:
        content: a .tflite.

    Raises:
        InputError: names the operator, its output and the type found.
    """
    audit(content)


def audit(
    content: bytes,
    activations: str = "INT8",
    *,
    float_ends: bool = False,
    layer_of: Callable[[str], str | None] = lambda tensor: None,
) -> None:
    """Refuse a model in which any operator computes on something other than integers of one type.

    The converter's integer modes leave an operator in float without an error when it has no such form, or
    when a tensor's range was not observed: the first such operator is named. Weights must be int8, and
    16-bit activations have the zero point 0.

    Args:
        content: a .tflite.
        activations: type of every activation in the TFLite schema, ``"INT8"`` or ``"INT16"``.
        float_ends: whether inputs and outputs are FLOAT32, converted at both ends of the model.
        layer_of: says which layer a tensor came from by its name, where it can.

    Raises:
        InputError: names the operator, its output and the type found, and the layer where it is known.
    """
    fault = _first_fault(Graph(content), activations, float_ends)
    if fault is None:
        return
    layer = layer_of(fault.tensor)
    way_out = f"Replace the layer {layer or 'that makes it'}{instead_of(fault.operator)}."
    raise InputError(
        f"`network` must consist of operators that have an {activations.lower()} form. "
        f"Received: {fault.operator} with {fault.what}. {way_out}"
    )


def instead_of(*operators: str) -> str:
    """Return " by ..." with what to use in place of the layers that make operators, "" where nobody knows."""
    known = sorted({SUGGESTIONS[operator] for operator in operators if operator in SUGGESTIONS})
    return f" by {' or '.join(known)}" if known else ""


def is_integer(content: bytes, activations: str = "INT8", *, float_ends: bool = False) -> bool:
    """Tell whether `audit` accepts a model."""
    return _first_fault(Graph(content), activations, float_ends) is None


def _first_fault(graph: Graph, activations: str, float_ends: bool) -> _Fault | None:
    """Return what is wrong with the first operator that is not of integers throughout.

    Conversions at the shore of a float island are named only where there is no other operator on it.
    """
    shore = None
    for operator in graph.operators:
        if operator.name in SHAPE_ARITHMETIC or (float_ends and _is_end(graph, operator)):
            continue
        fault = _activation_fault(graph, operator, activations) or _weight_fault(graph, operator, activations)
        if fault is not None and operator.name not in CONVERSIONS:
            return fault
        shore = shore or fault
    return shore


def _is_end(graph: Graph, operator: Operator) -> bool:
    """Tell whether an operator only turns a float input into integers, or integers into a float output."""
    return (operator.name == "QUANTIZE" and set(operator.inputs) <= set(graph.inputs)) or (
        operator.name == "DEQUANTIZE" and set(operator.outputs) <= set(graph.outputs)
    )


def _activation_fault(graph: Graph, operator: Operator, activations: str) -> _Fault | None:
    # Outputs first: they carry the name of the layer.
    for index in (*operator.outputs, *graph.activations(operator)):
        tensor = graph.tensors[index]
        what = None
        if tensor.dtype != activations:
            what = f"the {tensor.dtype} tensor {tensor.name!r}"
        elif tensor.scale is None:
            what = f"the tensor {tensor.name!r}, which has no single quantization"
        elif activations == "INT16" and tensor.zero_point != 0:
            what = f"the tensor {tensor.name!r} of zero point {tensor.zero_point}, which must be 0"
        if what is not None:
            return _Fault(operator.name, what, tensor.name)
    return None


def _weight_fault(graph: Graph, operator: Operator, activations: str) -> _Fault | None:
    if operator.name not in WEIGHTED:
        return None
    for place, allowed in zip(WEIGHTED[operator.name], ({"INT8"}, BIASES[activations]), strict=True):
        index = operator.inputs[place] if place < len(operator.inputs) else -1
        if index >= 0 and graph.tensors[index].is_constant and graph.tensors[index].dtype not in allowed:
            tensor = graph.tensors[index]
            return _Fault(operator.name, f"{tensor.dtype} values in {tensor.name!r}", tensor.name)
    return None
