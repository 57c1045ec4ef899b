"""Lay the working memory of a bundle's loop out in one block: what may overlap, and what may not.

Stages run one after the other, so that their arenas may overlap each other, if the interpreter of every
stage is set up anew when its turn comes. A tensor that crosses from one stage to another must outlive its
producer's arena: it lies outside of every arena that is in use while the tensor is alive, from the stage
that makes it to the last one that reads it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mexit_edge.bundle import Manifest, crossings

ALIGNMENT = 16  # what TFLM asks of an arena


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

    def meets(self, other: Buffer) -> bool:
        """Tell whether a stage uses both, so that they must not overlap."""
        return self.first_stage <= other.last_stage and other.first_stage <= self.last_stage


@dataclass(frozen=True)
class MemoryPlan:
    """Where everything lies that the loop over stages needs besides the models themselves.

    Args:
        buffers: arenas and the tensors that cross between stages; arenas only where all are known.
        arena_bytes: the largest arena, as TFLM reports it on a 64-bit host; None where one is unknown.
        boundary_bytes: the most bytes of tensors alive at once.
    """

    buffers: tuple[Buffer, ...]
    arena_bytes: int | None
    boundary_bytes: int

    @property
    def ram_bytes(self) -> int | None:
        """Size of the block; None where an arena is unknown."""
        return None if self.arena_bytes is None else max((one.end for one in self.buffers), default=0)


def plan_memory(manifest: Manifest) -> MemoryPlan:
    """Plan one block of memory for a bundle's loop.

    Every stage's arena is one buffer, in use in that stage alone. The window is written into the first
    stage's arena and counts as a tensor only where a later stage reads it. Larger buffers are placed first,
    each at the lowest offset that is free in all its stages.

    Args:
        manifest: of the bundle.
    """
    tensors = _crossing(manifest)
    arenas = [
        Buffer(f"stage_{number:02d}_arena", stage.arena_bytes, number, number)
        for number, stage in enumerate(manifest.stages, start=1)
        if stage.arena_bytes is not None
    ]
    known = len(arenas) == len(manifest.stages)
    return MemoryPlan(
        buffers=_placed([*arenas, *tensors] if known else tensors),
        arena_bytes=max(arena.bytes for arena in arenas) if known else None,
        boundary_bytes=max(
            (
                sum(one.bytes for one in tensors if one.first_stage <= number < one.last_stage)
                for number in range(1, len(manifest.stages) + 1)
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
    placed: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda one: (-one.bytes, one.first_stage, one.name)):
        neighbours = sorted((one for one in placed if one.meets(buffer)), key=lambda one: one.offset)
        offset = 0
        for other in neighbours:
            if offset + buffer.bytes <= other.offset:
                break
            offset = max(offset, -(-other.end // ALIGNMENT) * ALIGNMENT)
        placed.append(replace(buffer, offset=offset))
    return tuple(sorted(placed, key=lambda one: (one.first_stage, one.offset)))
