"""Streams of another sensor: reordered, converted and resampled to the bundle's, each only when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mexit_edge.errors import InputError, did_you_mean, in_digits
from mexit_edge.signals.recording import Recording
from mexit_edge.signals.resample import ResampledStream, low_pass_kernel
from mexit_edge.signals.sensor import Sensor
from mexit_edge.signals.stream import ChangedStream, Chunk, RecordingStream, Stream
from mexit_edge.signals.units import QUANTITIES, quantity_of, spelled

# Rates this close are one rate: what a sensor's oscillator is off by, and what is measured from time stamps.
# A choice of ours; the simulator's clock drift shows what such an error costs.
RATE_TOLERANCE = 0.01
# Below this they are not told apart: 0.09 s in a day.
_SAME_RATE = 1e-6
# The low-pass grows with the ratio of the rates.
MAX_RATE_RATIO = 1000


@dataclass(frozen=True)
class Rates:
    """The sampling rate of a stream beside that of a bundle's sensor.

    Args:
        own_hz: of the stream.
        wanted_hz: of the bundle's sensor.
    """

    own_hz: float
    wanted_hz: float

    @property
    def ratio(self) -> float:
        """Wanted samples per own one."""
        return self.wanted_hz / self.own_hz

    @property
    def need_resampling(self) -> bool:
        """Whether they are so far apart that only resampling makes one the other."""
        return abs(self.own_hz / self.wanted_hz - 1) > RATE_TOLERANCE

    @property
    def taken_as_one(self) -> bool:
        """Whether they differ, but so little that `adapt` plays the one as the other."""
        return not self.need_resampling and abs(self.ratio - 1) > _SAME_RATE


def adapt(
    stream: Stream | Recording,
    sensor: Sensor,
    *,
    reorder: bool = False,
    convert: bool = False,
    resample: bool = False,
) -> Stream:
    """Return a stream as a bundle's sensor would give it, by what was allowed and nothing else.

    Window and hop are the sensor's, whatever the stream says.

    Args:
        stream: or a recording, which is played.
        sensor: of the bundle.
        reorder: put the channels into the sensor's order, and leave out those that it does not have.
        convert: convert units of one quantity into each other.
        resample: change the sampling rate, by a low-pass filter that keeps what lies below 0.35 times the
            slower of both rates (see `low_pass_kernel`). Rates within 1 % of each other are one rate:
            `Rates.taken_as_one` tells that this was made use of.

    Raises:
        InputError: a channel is missing, a unit is of another quantity, or the stream differs in what was not
            allowed: the message names what would do it.
    """
    played = RecordingStream(stream) if isinstance(stream, Recording) else stream
    own = played.sensor
    refuse_missing_channels(own.channels, sensor, played.name)
    order = [own.channels.index(channel) for channel in sensor.channels]
    factors = [
        _factor(own.units[index], unit, f"{channel} of {played.name}")
        for index, unit, channel in zip(order, sensor.units, sensor.channels, strict=True)
    ]
    rates = Rates(own.sampling_rate_hz, sensor.sampling_rate_hz)
    offers = [
        ("reorder", reorder, own.channels != sensor.channels, f"channels {', '.join(own.channels)}"),
        ("convert", convert, any(factor != 1 for factor in factors), f"units {', '.join(own.units)}"),
        ("resample", resample, rates.need_resampling, f"{in_digits(rates.own_hz)} samples per second"),
    ]
    wanting = [(argument, what) for argument, allowed, needed, what in offers if needed and not allowed]
    if wanting:
        arguments = ", ".join(f"`{argument}=True`" for argument, _ in wanting)
        raise InputError(
            f"`{played.name}` must come as the bundle's sensor gives it: channels "
            f"{', '.join(sensor.channels)} in {', '.join(sensor.units)}, "
            f"{in_digits(sensor.sampling_rate_hz)} samples per second. "
            f"Received: {'; '.join(what for _, what in wanting)}. Allow it with {arguments}."
        )
    adapted = _with_channels(played, order, factors, sensor)
    if not rates.need_resampling:
        return adapted
    if not 1 / MAX_RATE_RATIO <= rates.ratio <= MAX_RATE_RATIO:
        raise InputError(
            f"`sampling_rate_hz` of {played.name} must be within a factor of {MAX_RATE_RATIO} of the "
            f"sensor's {in_digits(sensor.sampling_rate_hz)}. Received: {in_digits(own.sampling_rate_hz)}."
        )
    return ResampledStream(adapted, rates.ratio, low_pass_kernel(rates.ratio), sensor)


def refuse_missing_channels(channels: Sequence[str], sensor: Sensor, name: str) -> None:
    """Refuse a stream that lacks a channel of the sensor.

    Args:
        channels: of the stream.
        sensor: of the bundle.
        name: of the stream, for the message.

    Raises:
        InputError: names the missing channels, and the nearest name among those that are there.
    """
    missing = [channel for channel in sensor.channels if channel not in channels]
    if missing:
        others = [channel for channel in channels if channel not in sensor.channels]
        raise InputError(
            f"`{name}` must have the channels {', '.join(sensor.channels)}. "
            f"Received: {', '.join(channels)}, without {', '.join(missing)}."
            f"{did_you_mean(missing[0], others)} Rename the channels in the recording."
        )


def _factor(unit: str, wanted: str, what: str) -> float:
    """Return by what a value in one unit is multiplied to be in another.

    Raises:
        InputError: they are of different quantities, or one is unknown.
    """
    unit, wanted = spelled(unit), spelled(wanted)
    if unit == wanted:
        return 1.0
    quantity = quantity_of(wanted)
    known = {wanted: 1.0} if quantity is None else QUANTITIES[quantity]
    if unit in known:
        return known[unit] / known[wanted]
    raise InputError(
        f"`units` of {what} must be {wanted}, or convertible to it: {', '.join(known)}. Received: {unit!r}."
    )


def _with_channels(stream: Stream, order: list[int], factors: list[float], sensor: Sensor) -> Stream:
    """Return a stream with the sensor's channels in its units; at its own rate still."""
    scale = np.asarray(factors, np.float32)
    as_it_is = order == list(range(stream.sensor.n_channels)) and bool((scale == 1).all())

    def change(chunk: Chunk) -> Chunk:
        if as_it_is:
            return chunk
        with np.errstate(over="ignore"):
            return Chunk(chunk.index, chunk.time_s, chunk.x[:, order] * scale, chunk.y)

    return ChangedStream(stream, lambda: change, sensor)
