"""What a model must be, beyond a sound file, so that its stages compute what it computes."""

from __future__ import annotations

from typing import NoReturn

from mexit_edge.errors import InputError
from mexit_edge.tflite.graph import Graph, Tensor

# They compute with shapes, or give a shape that depends on the values.
VALUE_SHAPED = {
    *("SHAPE", "RANK", "RANGE", "WHERE", "UNIQUE"),
    *("NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5"),
}
# With a dynamic batch, the file states batch 1 on both sides of these, and TFLM believes it: it computes
# wrong numbers without an error.
BATCH_OPERATORS = {"SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"}
REDUCTIONS = ("MEAN", "SUM", "REDUCE_PROD", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_ANY", "REDUCE_ALL")
# Operator -> the inputs whose values decide the shape of its output: a shape, axes, counts or sizes.
SHAPE_INPUTS: dict[str, tuple[int, ...]] = {
    "RESHAPE": (1,),
    "EXPAND_DIMS": (1,),
    "TRANSPOSE": (1,),
    "FILL": (0,),
    "BROADCAST_TO": (1,),
    "TILE": (1,),
    "PAD": (1,),
    "PADV2": (1,),
    "MIRROR_PAD": (1,),
    "DILATE": (1,),
    "SLICE": (1, 2),
    "STRIDED_SLICE": (1, 2, 3),
    "SPLIT": (0,),
    "SPLIT_V": (1, 2),
    "SPACE_TO_BATCH_ND": (1, 2),
    "BATCH_TO_SPACE_ND": (1, 2),
    "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,),
    "TRANSPOSE_CONV": (0,),
    "CONV_3D_TRANSPOSE": (0,),
    "RFFT2D": (1,),
    "ARG_MAX": (1,),
    "ARG_MIN": (1,),
    "TOPK_V2": (1,),
    "ONE_HOT": (1,),
    "SCATTER_ND": (2,),
    "SPARSE_TO_DENSE": (1,),
    "EMBEDDING_LOOKUP_SPARSE": (2,),
    "SEGMENT_SUM": (1,),
    "UNSORTED_SEGMENT_MAX": (2,),
    "UNSORTED_SEGMENT_MIN": (2,),
    "UNSORTED_SEGMENT_PROD": (2,),
    "UNSORTED_SEGMENT_SUM": (2,),
    "MULTINOMIAL": (1,),
    "RANDOM_UNIFORM": (0,),
    "RANDOM_STANDARD_NORMAL": (0,),
    **dict.fromkeys(REDUCTIONS, (1,)),
}


def refuse_uncuttable(graph: Graph) -> None:
    """Refuse a model whose shapes are not fixed, or that keeps a state from one run to the next.

    A batch that the file calls dynamic while every shape is stated for a batch of 1 passes: engines compute
    with the stated shapes.

    Raises:
        InputError: names the tensor.
    """
    changed = {
        index: operator.name
        for operator in graph.operators
        if operator.name in BATCH_OPERATORS
        for index in (*operator.inputs, *operator.outputs)
    }
    for tensor in graph.tensors:
        _refuse_free_axis(graph, tensor, changed.get(tensor.index))
    for operator in graph.operators:
        if not operator.outputs or any(_is_variable(graph, index) for index in operator.inputs):
            raise InputError(
                "every operator must compute from its inputs alone. Received: "
                f"{operator.name}, which keeps a state between runs. A model with a state cannot be cut."
            )
        if operator.name in VALUE_SHAPED:
            _refuse_shape(graph.tensors[operator.outputs[0]], f"which {operator.name} computes")
        for place in SHAPE_INPUTS.get(operator.name, ()):
            index = operator.inputs[place] if place < len(operator.inputs) else -1
            if index >= 0 and not graph.tensors[index].is_constant and graph.tensors[index].elements:
                _refuse_shape(graph.tensors[operator.outputs[0]], "whose shape is computed at run time")


def _refuse_free_axis(graph: Graph, tensor: Tensor, changed_by: str | None) -> None:
    raw = graph.subgraph.tensors[tensor.index].shapeSignature
    free = [] if raw is None else [axis for axis, size in enumerate(raw) if size < 0]
    if not free:
        return
    if free != [0] or tensor.shape[:1] != (1,):
        _refuse_shape(tensor, f"whose shape {tensor.shape} is free along axis {free[-1]}")
    if changed_by is not None:
        _refuse_shape(tensor, f"a dynamic batch that {changed_by} changes")


def _is_variable(graph: Graph, index: int) -> bool:
    return index >= 0 and bool(graph.subgraph.tensors[index].isVariable)


def _refuse_shape(tensor: Tensor, why: str) -> NoReturn:
    called = f"tensor {tensor.index} ({tensor.name!r})" if tensor.name else f"tensor {tensor.index}"
    raise InputError(
        f"every tensor must have a static shape. Received: {called}, {why}. Convert the network with a "
        "static batch of 1: `keras.Input(batch_shape=(1, ...))`."
    )
