"""Faults of when samples come: lost, late, or taken by a clock that is wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mexit_edge.errors import InputError
from mexit_edge.signals.fault import Fault, drawn, refuse_draw, register
from mexit_edge.signals.resample import ResampledStream, linear_kernel
from mexit_edge.signals.stream import ChangedStream, Chunk, Stream

# A clock that is further off is no drift.
_MAX_DRIFT = 0.5
# What comes more than an hour late, or is gone for longer than any recording, is another fault.
MAX_DELAY_MS = 3_600_000
MAX_BURST = 1_000_000_000


@register
@dataclass(frozen=True)
class Dropped(Fault):
    """Samples that never arrive, `burst` consecutive ones at a time.

    Args:
        share: of the samples, from 0 to 1.
        burst: samples lost together, for example those of one radio packet; at most `MAX_BURST`.
        seed: of the draw.
    """

    name: ClassVar[str] = "dropped"
    share: float
    burst: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        refuse_draw(self.share, self.seed)
        if not 1 <= self.burst <= MAX_BURST:
            raise InputError(f"`burst` must be from 1 to {MAX_BURST:,} samples. Received: {self.burst}.")

    def __call__(self, stream: Stream, place: int = 0) -> Stream:
        """Leave samples out."""
        key = self.key(stream, place)

        def change(chunk: Chunk) -> Chunk:
            return chunk.take(~drawn(key, self.share, self.seed, chunk.index // self.burst))

        return ChangedStream(stream, lambda: change)


@register
@dataclass(frozen=True)
class Late(Fault):
    """Samples that arrive later than they should; their counter stays.

    Args:
        share: of the samples, from 0 to 1.
        delay_ms: how much later; at most `MAX_DELAY_MS`.
        seed: of the draw.
    """

    name: ClassVar[str] = "late"
    share: float
    delay_ms: float = 100.0
    seed: int = 0

    def __post_init__(self) -> None:
        refuse_draw(self.share, self.seed)
        if not 0 <= self.delay_ms <= MAX_DELAY_MS:
            raise InputError(
                f"`delay_ms` must be from 0 to {MAX_DELAY_MS:,} (an hour). Received: {self.delay_ms}."
            )

    def __call__(self, stream: Stream, place: int = 0) -> Stream:
        """Delay samples."""
        key = self.key(stream, place)

        def change(chunk: Chunk) -> Chunk:
            late = drawn(key, self.share, self.seed, chunk.index)
            return replace(chunk, time_s=chunk.time_s + np.where(late, self.delay_ms / 1000, 0.0))

        return ChangedStream(stream, lambda: change)


@register
@dataclass(frozen=True)
class ClockDrift(Fault):
    """A sensor clock that runs fast or slow, while its counter and the network take it for right.

    Samples are interpolated linearly, which takes a share of up to (pi f / sampling rate)^2 / 2 off a tone of
    frequency f: 0.2 % at a fiftieth of the rate.

    Args:
        drift: share by which the clock is fast (0.01 or "1%" or "10000ppm"), negative where it is slow.
    """

    name: ClassVar[str] = "clock_drift"
    drift: float

    def __post_init__(self) -> None:
        if not abs(self.drift) <= _MAX_DRIFT:
            raise InputError(
                f"`drift` must be a share from -{_MAX_DRIFT} to {_MAX_DRIFT}. Received: {self.drift}. "
                'Use 0.01, "1%" or "200ppm".'
            )

    def __call__(self, stream: Stream, place: int = 0) -> Stream:
        """Take the samples at the times of the wrong clock."""
        return (
            ResampledStream(stream, 1 + self.drift, linear_kernel(), stream.sensor) if self.drift else stream
        )
