"""Faults of what samples say: not a number, stuck, saturated, of another axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

import numpy as np

from mexit_edge.errors import InputError, unknown_name
from mexit_edge.signals.fault import Fault, channel_of, drawn, refuse_draw, register
from mexit_edge.signals.health import count_limits
from mexit_edge.signals.sensor import Channels, Sensor
from mexit_edge.signals.stream import ChangedStream, Chunk, Stream

_AXES = "xyz"
# Within the range of float32.
MAX_FACTOR = 1e30


@register
@dataclass(frozen=True)
class NotANumber(Fault):
    """Samples that are NaN.

    Args:
        share: of the samples, from 0 to 1.
        channel: the one that is hit; all of them if None.
        seed: of the draw.
    """

    name: ClassVar[str] = "nan"
    share: float
    channel: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        refuse_draw(self.share, self.seed)

    def __call__(self, stream: Stream, place: int = 0) -> Stream:
        """Overwrite samples with NaN."""
        key = self.key(stream, place)
        hit = slice(None) if self.channel is None else channel_of(self.channel, stream.sensor)

        def change(chunk: Chunk) -> Chunk:
            x = chunk.x.copy()
            x[drawn(key, self.share, self.seed, chunk.index), hit] = np.nan
            return replace(chunk, x=x)

        return ChangedStream(stream, lambda: change)


@register
@dataclass(frozen=True)
class Stuck(Fault):
    """A channel that keeps the value it has when the fault begins.

    Args:
        channel: its name.
        from_s: when the fault begins, in seconds of the sensor's clock.
        for_s: how long it lasts; to the end if infinite.
    """

    name: ClassVar[str] = "stuck"
    channel: str
    from_s: float = 0.0
    for_s: float = inf

    def __post_init__(self) -> None:
        if not 0 <= self.from_s < inf or not self.for_s > 0:
            raise InputError(
                "`from_s` must be at least 0 and finite, and `for_s` positive. "
                f"Received: from_s {self.from_s}, for_s {self.for_s}."
            )

    def __call__(self, stream: Stream, place: int = 0) -> Stream:
        """Hold the channel's value."""
        channel = channel_of(self.channel, stream.sensor)

        def begin() -> Callable[[Chunk], Chunk]:
            held: list[np.float32] = []

            def change(chunk: Chunk) -> Chunk:
                second = chunk.index / stream.sensor.sampling_rate_hz
                stuck = (second >= self.from_s) & (second < self.from_s + self.for_s)
                if not stuck.any():
                    return chunk
                x = chunk.x.copy()
                if not held:
                    held.append(x[stuck, channel][0])
                x[stuck, channel] = held[0]
                return replace(chunk, x=x)

            return change

        return ChangedStream(stream, begin)


@register
@dataclass(frozen=True)
class Saturated(Fault):
    """An amplifier set too high: samples are multiplied and then clipped at the sensor's limits.

    Args:
        gain: the factor; at most `MAX_FACTOR`.
        limit: largest absolute value in the sensor's units; the int16 range times `units_per_count` if None.
        channel: the one that is hit; all of them if None.
    """

    name: ClassVar[str] = "saturated"
    gain: float
    limit: float | None = None
    channel: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.gain <= MAX_FACTOR or not (self.limit is None or 0 < self.limit <= MAX_FACTOR):
            raise InputError(
                f"`gain` and `limit` must be positive and at most {MAX_FACTOR:g}. "
                f"Received: gain {self.gain}, limit {self.limit}."
            )

    def __call__(self, stream: Stream, place: int = 0) -> Stream:
        """Multiply and clip."""
        limits = count_limits(stream.sensor)
        if self.limit is not None:
            whole = np.full(stream.sensor.n_channels, self.limit, np.float32)
            limits = -whole, whole
        if limits is None:
            raise InputError(
                "`limit` must be given where the sensor has no `units_per_count`. Received: None. "
                'For example `limit=2`, in the text of a fault "saturated=4,limit=2".'
            )
        low, high = limits
        hit = (
            slice(None)
            if self.channel is None
            else slice(at := channel_of(self.channel, stream.sensor), at + 1)
        )

        def change(chunk: Chunk) -> Chunk:
            x = chunk.x.copy()
            with np.errstate(over="ignore"):
                x[:, hit] = np.clip(x[:, hit] * np.float32(self.gain), low[hit], high[hit])
            return replace(chunk, x=x)

        return ChangedStream(stream, lambda: change)


@register
@dataclass(frozen=True)
class WrongAxis(Fault):
    """A sensor mounted the wrong way: two axes of a triad are exchanged, or one has its sign turned.

    Args:
        triad: what the names of its channels begin with, for example ``"acc"`` for acc_x, acc_y and acc_z.
        swap: the two axes, of x, y and z; not used where `flip` is given.
        flip: the axis whose sign is turned.
    """

    name: ClassVar[str] = "wrong_axis"
    triad: str
    swap: str = "xy"
    flip: str | None = None

    def __post_init__(self) -> None:
        pair = len(self.swap) == 2 and len(set(self.swap)) == 2 and set(self.swap) <= set(_AXES)
        if not pair or (self.flip is not None and (len(self.flip) != 1 or self.flip not in _AXES)):
            raise InputError(
                "`swap` must be two different axes of x, y and z, and `flip` one. "
                f"Received: swap {self.swap!r}, flip {self.flip!r}."
            )

    def __call__(self, stream: Stream, place: int = 0) -> Stream:
        """Exchange or turn axes."""
        axes = _triad(self.triad, stream.sensor)
        order = np.arange(stream.sensor.n_channels)
        sign = np.ones(stream.sensor.n_channels, np.float32)
        if self.flip is not None:
            sign[axes[_AXES.index(self.flip)]] = -1
        else:
            first, second = (axes[_AXES.index(axis)] for axis in self.swap)
            order[[first, second]] = second, first

        def change(chunk: Chunk) -> Chunk:
            return replace(chunk, x=chunk.x[:, order] * sign)

        return ChangedStream(stream, lambda: change)


def _triad(name: str, sensor: Sensor) -> Channels:
    """Return the channels of a triad of three axes, by the name of its first one without the last letter."""
    names = {
        sensor.channels[triad[0]][:-1].rstrip("_-") or sensor.channels[triad[0]]: triad
        for triad in sensor.triads
        if len(triad) == len(_AXES)
    }
    if not names:
        raise InputError("`triad` needs a sensor with a triad of three axes. Received: a sensor without one.")
    if name not in names:
        raise unknown_name("triad", name, names)
    return names[name]
