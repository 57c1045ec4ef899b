"""What a model and a bundle take of a device's memory: flash, and RAM for the loop over stages.

The working memory of the loop is one block. Stages run one after the other, so that their arenas may overlap
each other, if the interpreter of every stage is set up anew when its turn comes. A tensor that crosses from
one stage to another must outlive its producer's arena: it lies outside of every arena that is in use while
the tensor is alive, from the stage that makes it to the last one that reads it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mexit_edge.bundle import Bundle, Manifest, crossings
from mexit_edge.errors import InputError
from mexit_edge.estimate.memory.activations import ActivationPlan, plan_activations
from mexit_edge.estimate.memory.arena import estimate_arena_bytes_32bit
from mexit_edge.estimate.memory.kernels import KernelLibrary, refuse_unknown_library
from mexit_edge.estimate.memory.placement import Span, aligned, tight_fit
from mexit_edge.tflite import Graph
from mexit_edge.tflite.extract import extract


@dataclass(frozen=True)
class FlashBytes:
    """What one model takes of flash; kernels and program are not in it.

    Args:
        file_bytes: the file as it is.
        stripped_bytes: without names, signature, metadata and the ranges seen in calibration, which no kernel
            reads; None where it cannot be stripped.
        c_array_bytes: the smaller of both as a C array, which takes a multiple of 16 bytes.
    """

    file_bytes: int
    stripped_bytes: int | None
    c_array_bytes: int


@dataclass(frozen=True)
class ModelMemory:
    """What one model takes of a 32-bit microcontroller, from its file alone.

    Args:
        flash: bytes of flash.
        activations: the head of its arena; None where unknown.
        estimated_arena_bytes_32bit: the whole arena (`estimate_arena_bytes_32bit`); None where unknown.
        unknown_because: why they are unknown; none where they are not.
    """

    flash: FlashBytes
    activations: ActivationPlan | None
    estimated_arena_bytes_32bit: int | None
    unknown_because: tuple[str, ...] = ()


@dataclass(frozen=True)
class Buffer:
    """One part of the block.

    Args:
        name: of a tensor, or ``stage_01_arena``, ...
        bytes: its size.
        first_stage: number of the stage from which on it is in use, from 1.
        last_stage: number of the last stage that uses it.
        offset: from the start of the block, a multiple of 16.
    """

    name: str
    bytes: int
    first_stage: int
    last_stage: int
    offset: int = 0

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.bytes


@dataclass(frozen=True)
class MemoryPlan:
    """Where everything lies that the loop over stages needs besides the models themselves.

    Args:
        buffers: arenas and the tensors that cross between stages; arenas only where all are known.
        arena_bytes: the largest arena; None where one is unknown.
        boundary_bytes: the most bytes of tensors alive at once.
    """

    buffers: tuple[Buffer, ...]
    arena_bytes: int | None
    boundary_bytes: int

    @property
    def ram_bytes(self) -> int | None:
        """Size of the block, the peak of the loop; None where an arena is unknown."""
        return None if self.arena_bytes is None else max((one.end for one in self.buffers), default=0)

    def stage_bytes(self, number: int) -> int | None:
        """Return the bytes in use while a stage runs: its arena, and the tensors that cross it.

        Args:
            number: of the stage, from 1.
        """
        if self.arena_bytes is None:
            return None
        return sum(one.bytes for one in self.buffers if one.first_stage <= number <= one.last_stage)


@dataclass(frozen=True)
class BundleMemory:
    """What a bundle takes of a device's memory.

    Args:
        stages: one per stage.
        host: the loop's block with the arenas that TFLM reports on a 64-bit host, as the manifest has them.
        estimated_32bit: the loop's block with the arenas estimated for a 32-bit microcontroller.
    """

    stages: tuple[ModelMemory, ...]
    host: MemoryPlan
    estimated_32bit: MemoryPlan

    @property
    def unknown_because(self) -> tuple[str, ...]:
        """Why the estimate is unknown, each reason once."""
        return tuple(dict.fromkeys(reason for stage in self.stages for reason in stage.unknown_because))


def bundle_memory(
    bundle: Bundle, kernels: KernelLibrary = "reference", graphs: Sequence[Graph] | None = None
) -> BundleMemory:
    """Return what a bundle takes of flash and RAM, stage by stage and for the loop.

    Args:
        bundle: the bundle.
        kernels: whose scratch buffers are in the estimate (see `plan_activations`).
        graphs: of the same stages, where they have been read already.

    Raises:
        InputError: ``kernels`` is unknown.
    """
    read: Sequence[Graph | None] = [None] * len(bundle.stages) if graphs is None else graphs
    stages = tuple(
        model_memory(content, kernels, graph) for content, graph in zip(bundle.stages, read, strict=True)
    )
    return BundleMemory(
        stages=stages,
        host=plan_memory(bundle.manifest),
        estimated_32bit=plan_memory(bundle.manifest, [stage.estimated_arena_bytes_32bit for stage in stages]),
    )


def model_memory(
    content: bytes, kernels: KernelLibrary = "reference", graph: Graph | None = None
) -> ModelMemory:
    """Return what one model takes of flash and RAM; what cannot be known is None, with the reason.

    Args:
        content: a .tflite.
        kernels: whose scratch buffers are in the estimate (see `plan_activations`).
        graph: of the same file, where it has been read already.

    Raises:
        InputError: ``kernels`` is unknown.
    """
    refuse_unknown_library(kernels)
    try:
        graph = Graph(content) if graph is None else graph
        plan = plan_activations(graph, kernels)
        arena = estimate_arena_bytes_32bit(graph, plan)
    except InputError as error:
        return ModelMemory(flash_bytes(content, graph), None, None, (str(error),))
    return ModelMemory(flash_bytes(content, graph), plan, arena)


def flash_bytes(content: bytes, graph: Graph | None = None) -> FlashBytes:
    """Return what a .tflite takes of flash.

    Args:
        content: a .tflite.
        graph: of the same file, where it has been read already.
    """
    try:
        graph = Graph(content) if graph is None else graph
        stripped = len(extract(graph, range(len(graph.operators)), graph.inputs, graph.outputs))
    except InputError:
        return FlashBytes(len(content), None, aligned(len(content)))
    return FlashBytes(len(content), stripped, aligned(min(stripped, len(content))))


def plan_memory(manifest: Manifest, arenas: Sequence[int | None] | None = None) -> MemoryPlan:
    """Plan one block of memory for a bundle's loop: of up to seven buffers the smallest there is.

    Every stage's arena is one buffer, in use in that stage alone. The window is written into the first
    stage's arena and counts as a tensor only where a later stage reads it. Of more than seven buffers the
    larger ones are placed first, each at the lowest offset that is free in all its stages.

    Args:
        manifest: of the bundle.
        arenas: bytes per stage, None where unknown; those of the manifest, of a 64-bit host, if left out.

    Raises:
        InputError: ``arenas`` has not one value per stage.
    """
    known = [stage.arena_bytes for stage in manifest.stages] if arenas is None else list(arenas)
    if len(known) != len(manifest.stages):
        raise InputError(
            f"`arenas` needs one value per stage ({len(manifest.stages)}). Received: {len(known)} values."
        )
    tensors = _crossing(manifest)
    buffers = [
        Buffer(f"stage_{number:02d}_arena", size, number, number)
        for number, size in enumerate(known, start=1)
        if size is not None
    ]
    complete = len(buffers) == len(known)
    return MemoryPlan(
        buffers=_placed([*buffers, *tensors] if complete else tensors),
        arena_bytes=max(arena.bytes for arena in buffers) if complete else None,
        boundary_bytes=max(
            (
                sum(one.bytes for one in tensors if one.first_stage <= number < one.last_stage)
                for number in range(1, len(known) + 1)
            ),
            default=0,
        ),
    )


def _crossing(manifest: Manifest) -> list[Buffer]:
    """Return the tensors that a stage reads and an earlier one makes, the window among them."""
    found = []
    for one in crossings(manifest):
        first = max(one.made_by, 1)
        if one.read_by and one.read_by[-1] > first:
            found.append(Buffer(one.tensor.name, math.prod(one.tensor.shape), first, one.read_by[-1]))
    return found


def _placed(buffers: Sequence[Buffer]) -> tuple[Buffer, ...]:
    offsets = tight_fit([Span(one.bytes, one.first_stage, one.last_stage) for one in buffers])
    placed = [replace(one, offset=offset) for one, offset in zip(buffers, offsets, strict=True)]
    return tuple(sorted(placed, key=lambda one: (one.first_stage, one.offset)))
