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
    graph = Graph(content)
    for operator in graph.operators:
        if operator.name in SHAPE_OPERATORS:
            continue
        for index in (*graph.activations(operator), *operator.outputs):
            tensor = graph.tensors[index]
            if tensor.dtype not in INTEGER_ACTIVATIONS:
                raise InputError(
                    f"`network` must consist of operators that have an int8 form. Received: {operator.name} "
                    f"with the {tensor.dtype} tensor {tensor.name!r}. Replace the layer that makes it."
                )
            if tensor.scale is None:
                raise InputError(
                    f"`network` must have one quantization per activation tensor. Received: {operator.name} "
                    f"with the tensor {tensor.name!r} that has none."
                )
