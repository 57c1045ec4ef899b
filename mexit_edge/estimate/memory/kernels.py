"""What TFLM's kernels take of the tensor arena, operator by operator.

Beside the tensors there are scratch buffers, which lie among them while their operator runs, and what a
kernel keeps from one run to the next. Both follow from the operator's shapes and types. Source: TFLM's public
kernels (github.com/tensorflow/tflite-micro, tensorflow/lite/micro/kernels), held against what TFLM reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from mexit_edge.errors import InputError, unknown_name
from mexit_edge.tflite import Graph, Operator

KernelLibrary = Literal["reference", "cmsis-nn"]
INT32_BYTES, HOST_POINTER_BYTES = 4, 8
# Operator -> bytes of its options as TFLM stores them, of what its kernel keeps on a 64-bit host (as reported
# by tflite-micro 0.dev20261023182759), and how many pointers are in that. What is not in `_SCRATCH` below
# asks for no scratch buffer.
# fmt: off
_KEPT: dict[str, tuple[int, int, int]] = {
    **dict.fromkeys(
        (
            "BATCH_TO_SPACE_ND", "BROADCAST_TO", "CEIL", "COS", "EXP", "EXPAND_DIMS", "FLOOR", "FLOOR_DIV",
            "FLOOR_MOD", "LOG", "LOGICAL_AND", "LOGICAL_NOT", "LOGICAL_OR", "MAXIMUM", "MINIMUM", "NEG",
            "REVERSE_V2", "ROUND", "SIN", "SLICE", "SQRT", "SQUARE", "TRANSPOSE", "ZEROS_LIKE",
        ),
        (0, 0, 0),
    ),
    "ABS": (0, 28, 0), "ADD": (8, 60, 0), "ADD_N": (0, 40, 0), "ARG_MAX": (4, 0, 0), "ARG_MIN": (4, 0, 0),
    "AVERAGE_POOL_2D": (40, 32, 0), "BATCH_MATMUL": (3, 48, 3), "CAST": (8, 0, 0),
    "CONCATENATION": (8, 80, 2), "CONV_2D": (28, 80, 2), "CUMSUM": (2, 36, 0),
    "DEPTHWISE_CONV_2D": (28, 80, 2), "DEPTH_TO_SPACE": (4, 20, 0), "DEQUANTIZE": (0, 32, 0),
    "DIV": (4, 28, 0), "ELU": (0, 256, 0), "EQUAL": (0, 32, 0), "FULLY_CONNECTED": (32, 72, 2),
    "GATHER": (8, 20, 0), "GATHER_ND": (0, 12, 0), "GREATER": (0, 32, 0), "GREATER_EQUAL": (0, 32, 0),
    "HARD_SWISH": (0, 20, 0), "L2_NORMALIZATION": (4, 4, 0), "L2_POOL_2D": (40, 20, 0),
    "LEAKY_RELU": (4, 24, 0), "LESS": (0, 32, 0), "LESS_EQUAL": (0, 32, 0), "LOGISTIC": (0, 16, 0),
    "LOG_SOFTMAX": (0, 40, 0), "MAX_POOL_2D": (40, 32, 0), "MEAN": (1, 44, 0), "MIRROR_PAD": (4, 20, 0),
    "MUL": (4, 36, 0), "NOT_EQUAL": (0, 32, 0), "PACK": (8, 0, 0), "PAD": (0, 56, 0), "PADV2": (0, 56, 0),
    "PRELU": (0, 28, 0), "QUANTIZE": (0, 32, 0), "REDUCE_MAX": (1, 44, 0), "REDUCE_MIN": (1, 44, 0),
    "RELU": (0, 28, 0), "RELU6": (0, 8, 0), "RESHAPE": (36, 0, 0), "RESIZE_BILINEAR": (2, 0, 0),
    "RESIZE_NEAREST_NEIGHBOR": (2, 0, 0), "RSQRT": (0, 28, 0), "SELECT_V2": (0, 1, 0), "SHAPE": (4, 0, 0),
    "SOFTMAX": (4, 80, 5), "SPACE_TO_BATCH_ND": (0, 4, 0), "SPACE_TO_DEPTH": (4, 20, 0), "SPLIT": (4, 0, 0),
    "SPLIT_V": (4, 0, 0), "SQUARED_DIFFERENCE": (0, 112, 0), "SQUEEZE": (36, 0, 0),
    "STRIDED_SLICE": (24, 84, 0), "SUB": (8, 52, 0), "SUM": (1, 44, 0), "TANH": (0, 16, 0),
    "TRANSPOSE_CONV": (20, 88, 2), "UNPACK": (8, 0, 0),
}
# fmt: on
# Quantized kernels that keep a multiplier and a shift, int32 both, per output channel.
_PER_CHANNEL = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}
_BATCH_MATMUL_QUANTIZATION = 28  # bytes of multiplier, shift, range and zero points
_EVAL_TENSOR_WORDS = 3
_SOFTMAX_TABLE = 2 * 513  # bytes of a table of int16


def listed_operators() -> tuple[str, ...]:
    """Return the names of the operators whose kernels' memory is known."""
    return tuple(sorted(_KEPT))


def refuse_unknown_library(kernels: str) -> None:
    """Refuse kernels of which there is no table.

    Raises:
        InputError: lists those there are.
    """
    if kernels not in get_args(KernelLibrary):
        raise unknown_name("kernels", kernels, get_args(KernelLibrary))


def refuse_unlisted(graph: Graph, kernels: str) -> None:
    """Refuse a model with an operator whose kernel's memory is not known.

    Raises:
        InputError: names the operator; or ``kernels`` is unknown.
    """
    refuse_unknown_library(kernels)
    for operator in graph.operators:
        if operator.name not in _KEPT:
            raise InputError(
                "`content` must consist of operators whose memory in TFLM is known. Received: "
                f"{operator.name} (operator {operator.index}). Replace the layer that makes it; or measure "
                "with `mexit_edge.runtime.arena_bytes`, where TFLM is installed."
            )
        own = kernels == "cmsis-nn" and _dtype(graph, operator) != "FLOAT32"
        listed = operator.name in _CMSIS_NN and _dtype(graph, operator) == "INT8"
        if own and operator.name in (*_CMSIS_NN, *_CMSIS_NN_UNLISTED) and not listed:
            raise InputError(
                "`content` must consist of operators whose buffers in CMSIS-NN are known. Received: "
                f"{operator.name} (operator {operator.index}) of {_dtype(graph, operator)}. "
                'Use `kernels="reference"`.'
            )


def scratch_bytes(graph: Graph, operator: Operator, kernels: KernelLibrary) -> tuple[int, ...]:
    """Return the scratch buffers that the kernel of a listed operator asks for, in its order.

    Those of ``"cmsis-nn"`` are for cores with the DSP extension (Cortex-M4, M7, M33), which ask for at least
    as much as those without; Helium (Cortex-M55) asks for others. Source: the `*_get_buffer_size` functions
    that CMSIS-NN's public header documents (github.com/ARM-software/CMSIS-NN, Include/arm_nnfunctions.h).

    Raises:
        InputError: the operator's shapes do not fit each other.
    """
    own = kernels == "cmsis-nn" and _dtype(graph, operator) == "INT8" and operator.name in _CMSIS_NN
    rule = (_CMSIS_NN if own else _SCRATCH).get(operator.name)
    with _refusing_misfits(graph, operator):
        return () if rule is None else tuple(size for size in rule(graph, operator) if size)


def option_layout(operator: Operator, pointer_bytes: int) -> tuple[int, int]:
    """Return size and alignment of a listed operator's options as TFLM stores them, in bytes."""
    size = _KEPT[operator.name][0]
    if operator.name == "FULLY_CONNECTED":
        return size, pointer_bytes
    return size, INT32_BYTES if size >= INT32_BYTES else 1  # the small ones are booleans


def kept_bytes(graph: Graph, operator: Operator, pointer_bytes: int) -> tuple[int, ...]:
    """Return the buffers that the kernel of a listed operator keeps from one run to the next.

    Args:
        graph: of the model.
        operator: a listed one.
        pointer_bytes: 8 on a 64-bit host, 4 on a 32-bit microcontroller.

    Raises:
        InputError: the operator's shapes do not fit each other.
    """
    _, size, pointers = _KEPT[operator.name]
    kept = [size - (HOST_POINTER_BYTES - pointer_bytes) * pointers] if size else []
    with _refusing_misfits(graph, operator):
        if operator.name in _PER_CHANNEL:
            kept += _per_channel(graph, operator)
        elif operator.name == "BATCH_MATMUL":
            kept += _batch_matmul(graph, operator, pointer_bytes)
        elif operator.name == "SOFTMAX" and _dtype(graph, operator) == "INT16":
            kept += [_SOFTMAX_TABLE] * 2
    return tuple(kept)


@contextmanager
def _refusing_misfits(graph: Graph, operator: Operator) -> Iterator[None]:
    """Refuse an operator whose tensors are not what the format promises, as in a hostile file."""
    try:
        yield
    except (IndexError, ValueError) as error:
        shapes = [graph.tensors[index].shape for index in operator.inputs if index >= 0]
        raise InputError(
            f"`content` must give {operator.name} (operator {operator.index}) inputs whose shapes fit. "
            f"Received: {shapes} ({error}). Convert the model again."
        ) from error


def _per_channel(graph: Graph, operator: Operator) -> list[int]:
    weights = graph.tensors[operator.inputs[1]]
    # A fully connected kernel keeps them only where there is more than one scale.
    if operator.name == "FULLY_CONNECTED" and (weights.scale is not None or weights.dtype == "FLOAT32"):
        return []
    return [weights.shape[_PER_CHANNEL[operator.name]] * INT32_BYTES] * 2


def _batch_matmul(graph: Graph, operator: Operator, pointer_bytes: int) -> list[int]:
    """Return the quantization, and of each input that lies otherwise than wanted a transposed copy."""
    kept = [] if _dtype(graph, operator) == "FLOAT32" else [_BATCH_MATMUL_QUANTIZATION]
    copied = (_option(operator, "adjX", 0), not _option(operator, "adjY", 0))
    for index, copies in zip(operator.inputs, copied, strict=True):
        tensor = graph.tensors[index]
        if copies and tensor.numpy_dtype is not None:
            dimensions = INT32_BYTES * (1 + len(tensor.shape))
            values = tensor.elements * tensor.numpy_dtype.itemsize
            kept += [_EVAL_TENSOR_WORDS * pointer_bytes, dimensions, values]
    return kept


def _dtype(graph: Graph, operator: Operator) -> str | None:
    """Return the type of what an operator computes."""
    return graph.tensors[operator.outputs[0]].dtype if operator.outputs else None


def _reduced(graph: Graph, operator: Operator) -> list[int]:
    """An index per dimension, and the axes."""
    window, axes = (graph.tensors[index] for index in operator.inputs)
    return [INT32_BYTES * len(window.shape), INT32_BYTES * axes.elements]


def _summed(graph: Graph, operator: Operator) -> list[int]:
    """Of integers, the sums too."""
    sums = INT32_BYTES * graph.tensors[operator.outputs[0]].elements
    quantized = _dtype(graph, operator) in ("INT8", "INT16")
    return [sums, *_reduced(graph, operator)] if quantized else _reduced(graph, operator)


def _mirrored(graph: Graph, operator: Operator) -> list[int]:
    """Strides of input and output."""
    return [INT32_BYTES * len(graph.tensors[operator.inputs[0]].shape)] * 2


def _transposed(graph: Graph, operator: Operator) -> list[int]:
    """The sums before they are rounded to codes."""
    result = graph.tensors[operator.outputs[0]]
    return [{"INT8": 4, "INT16": 8}.get(result.dtype, 0) * result.elements]


def _pointers(graph: Graph, operator: Operator) -> list[int]:
    """A pointer per input, of a 64-bit host."""
    return [HOST_POINTER_BYTES * len(operator.inputs)]


def _option(operator: Operator, name: str, default: int) -> int:
    # Options that a file leaves out have the format's default.
    return int(getattr(operator.options, name, default))


def _is_dilated(operator: Operator) -> bool:
    return _option(operator, "dilationHFactor", 1) > 1 or _option(operator, "dilationWFactor", 1) > 1


def _columns(graph: Graph, operator: Operator) -> list[int]:
    """Two columns of what the kernel sees, in int16 (im2col), of a multiple of four values each."""
    n_in = graph.tensors[operator.inputs[0]].shape[3]
    _, height, width, channels = graph.tensors[operator.inputs[1]].shape
    if height == width == 1 and channels == n_in and not _is_dilated(operator):
        # Under Arm's compiler only, or in older releases under any; with a stride never.
        return (
            [] if _option(operator, "strideH", 1) > 1 or _option(operator, "strideW", 1) > 1 else [4 * n_in]
        )
    return [4 * 4 * -(-height * width * n_in // 4)]


def _depthwise(graph: Graph, operator: Operator) -> list[int]:
    """What the kernel sees, in int16; nothing for 3x3, nor with dilation or a multiplier."""
    _, height, width, channels = graph.tensors[operator.inputs[1]].shape
    multiplies = channels != graph.tensors[operator.inputs[0]].shape[3]
    return (
        []
        if (height, width) == (3, 3) or multiplies or _is_dilated(operator)
        else [2 * height * width * channels]
    )


def _averaged(graph: Graph, operator: Operator) -> list[int]:
    """A sum per channel."""
    return [INT32_BYTES * graph.tensors[operator.inputs[0]].shape[3]]


_Rule = Callable[[Graph, Operator], list[int]]
_SCRATCH: dict[str, _Rule] = {
    "ADD_N": _pointers,
    "MEAN": _summed,
    "MIRROR_PAD": _mirrored,
    "REDUCE_MAX": _reduced,
    "REDUCE_MIN": _reduced,
    "SUM": _summed,
    "TRANSPOSE_CONV": _transposed,
}
_CMSIS_NN: dict[str, _Rule] = {
    "AVERAGE_POOL_2D": _averaged,
    "CONV_2D": _columns,
    "DEPTHWISE_CONV_2D": _depthwise,
}
# They ask for buffers there too, by rules that are not here.
_CMSIS_NN_UNLISTED = ("BATCH_MATMUL", "TRANSPOSE_CONV")
