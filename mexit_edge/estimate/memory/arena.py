"""Estimate the arena that TFLM needs on a 32-bit microcontroller, from the .tflite alone.

The head of the arena, activations and scratch buffers, is as large there as on a 64-bit host
(`plan_activations`). The tail holds structs with pointers and is smaller. It is summed up here struct by
struct, with the layouts of TFLM's public headers (github.com/tensorflow/tflite-micro,
tensorflow/lite/micro: micro_common.h, micro_allocator.h, the kernels'): with pointers of 8 bytes the sum is
the tail that TFLM reports on the host, with pointers of 4 bytes it is the estimate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from mexit_edge.estimate.memory.activations import ActivationPlan
from mexit_edge.estimate.memory.kernels import INT32_BYTES, kept_bytes, option_layout
from mexit_edge.estimate.memory.placement import ALIGNMENT
from mexit_edge.tflite import Graph

# The allocators and the planner, once per interpreter: of the host as built for Python, which also records
# what it allocates; of a microcontroller 33 words, without the recorder.
_FIXED_BYTES = {8: 488, 4: 132}
_TFLITE_TENSOR_BYTES = {8: 64, 4: 40}
PointerBytes = Literal[4, 8]


def estimate_arena_bytes_32bit(content: bytes | Graph, plan: ActivationPlan) -> int:
    """Estimate the arena that TFLM needs for a model on a 32-bit microcontroller.

    Not in it: what planning itself takes for a moment, where activations take less than a few hundred bytes;
    resource variables; the stack; and what kernels of a device keep beyond the reference kernels, a few bytes
    per operator with CMSIS-NN. Compilers that store enumerations in one byte need a little less.

    Args:
        content: a .tflite, or its graph.
        plan: of the head of its arena, with the scratch buffers of the kernels in use there.
    """
    graph = content if isinstance(content, Graph) else Graph(content)
    return plan.bytes + tail_bytes(graph, plan, 4)


def tail_bytes(graph: Graph, plan: ActivationPlan, pointer_bytes: PointerBytes) -> int:
    """Return the tail of a model's arena, what stays there from one run to the next.

    Args:
        graph: of the model.
        plan: of the head of its arena.
        pointer_bytes: 8 on a 64-bit host, 4 on a 32-bit microcontroller.
    """
    used = 0
    for size, alignment in _allocations(graph, plan, pointer_bytes):
        # The tail grows downwards from the end of the arena.
        used = -(-(used + size) // alignment) * alignment
    return -(-used // ALIGNMENT) * ALIGNMENT


def _allocations(
    graph: Graph, plan: ActivationPlan, pointer_bytes: PointerBytes
) -> Iterator[tuple[int, int]]:
    """Yield size and alignment of everything in the tail, in TFLM's order."""
    yield _FIXED_BYTES[pointer_bytes], pointer_bytes
    # TfLiteEvalTensor: data, dims, type; NodeAndRegistration: eight words.
    yield len(graph.tensors) * 3 * pointer_bytes, pointer_bytes
    yield len(graph.operators) * 8 * pointer_bytes, pointer_bytes
    for operator in graph.operators:
        yield option_layout(operator, pointer_bytes)
    for operator in graph.operators:
        yield from ((size, ALIGNMENT) for size in kept_bytes(graph, operator, pointer_bytes))
    yield sum(one.tensor is None for one in plan.buffers) * pointer_bytes, pointer_bytes
    for tensor, raw in zip(graph.tensors, graph.subgraph.tensors, strict=True):
        if raw.isVariable and tensor.numpy_dtype is not None:
            yield tensor.elements * tensor.numpy_dtype.itemsize, ALIGNMENT
    for side in (graph.inputs, graph.outputs):
        yield len(side) * pointer_bytes, ALIGNMENT
        for index in side:
            yield _TFLITE_TENSOR_BYTES[pointer_bytes], pointer_bytes
            yield from _quantization(graph, index, pointer_bytes)


def _quantization(graph: Graph, index: int, pointer_bytes: PointerBytes) -> Iterator[tuple[int, int]]:
    """Yield TfLiteAffineQuantization (scale, zero_point, dimension) and its array of zero points."""
    raw = graph.subgraph.tensors[index].quantization
    scales = [] if raw is None or raw.scale is None else list(raw.scale)
    if scales and raw.zeroPoint is not None and len(raw.zeroPoint):
        yield 3 * pointer_bytes, pointer_bytes
        yield INT32_BYTES * (1 + len(scales)), INT32_BYTES
