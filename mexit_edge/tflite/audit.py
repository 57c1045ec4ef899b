"""Check that a converted model is int8 throughout, as a microcontroller's kernels need it."""

from __future__ import annotations

from mexit_edge.errors import InputError
from mexit_edge.tflite.graph import Graph

INTEGER_ACTIVATIONS = {"INT8"}
# Shape arithmetic may be carried by int32 tensors; these operators only move data.
SHAPE_OPERATORS = {"SHAPE", "STRIDED_SLICE", "PACK"}


def audit_int8(content: bytes) -> None:
    """Refuse a model in which any operator computes on something other than int8.

    The converter's int8 mode leaves an operator in float without an error when it has no int8 form, or when a
    tensor's range was not observed: the first such operator is named.

    Args:
        content: a .tflite.

    Raises:
        InputError: names the operator, its output and the type found.
    """
    fault = _first_fault(Graph(content))
    if fault is not None:
        raise InputError(f"`network` must consist of operators that have an int8 form. Received: {fault}")


def is_int8(content: bytes) -> bool:
    """Tell whether `audit_int8` accepts a model."""
    return _first_fault(Graph(content)) is None


def _first_fault(graph: Graph) -> str | None:
    """Return what is wrong with the first operator that is not int8 throughout, as a sentence."""
    for operator in graph.operators:
        if operator.name in SHAPE_OPERATORS:
            continue
        for index in (*graph.activations(operator), *operator.outputs):
            tensor = graph.tensors[index]
            if tensor.dtype not in INTEGER_ACTIVATIONS:
                return (
                    f"{operator.name} with the {tensor.dtype} tensor {tensor.name!r}. "
                    "Replace the layer that makes it."
                )
            if tensor.scale is None:
                return f"{operator.name} with the tensor {tensor.name!r}, which has no single quantization."
    return None
