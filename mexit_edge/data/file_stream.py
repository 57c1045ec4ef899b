"""What recordings of one's own have in common: what a file leaves unsaid, and how it names classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError, did_you_mean
from mexit_edge.signals import UNLABELLED, Sensor
from mexit_edge.signals.adapt import refuse_missing_channels
from mexit_edge.signals.stream import Stream

# Counters of a day at this rate fit into 64 bits with room to spare.
MAX_RATE_HZ = 1e9


class FileStream(Stream):
    """A stream that is read from a file as it is played.

    Args:
        sensor: of the file, in its own order, units and rate (see `file_sensor`).
        assumed: what the file does not say, so that it was taken from the bundle's sensor: of ``"channels"``,
            ``"units"`` and ``"sampling_rate_hz"``.
        name: of the file.
        subject: whom it comes from; 0 where the file does not say.
        classes: name per class, in the order of the bundle.
        n_samples: where the counter ends; None where only reading tells.
    """

    def __init__(
        self,
        sensor: Sensor,
        assumed: tuple[str, ...],
        name: str,
        subject: int = 0,
        classes: tuple[str, ...] | None = None,
        n_samples: int | None = None,
    ) -> None:
        super().__init__(sensor, name, subject, classes, n_samples)
        self.assumed = assumed


def file_sensor(
    name: str,
    channels: Sequence[str] | None,
    units: Sequence[str | None] | None,
    sampling_rate_hz: float | None,
    n_channels: int,
    sensor: Sensor | None,
) -> tuple[Sensor, tuple[str, ...]]:
    """Return the sensor of a file, and what of it was taken from the bundle's.

    What a file does not say is as the bundle's sensor has it: its channels in their order, the unit of the
    channel of that name, its sampling rate.

    Args:
        name: of the file, for messages.
        channels: what the file names, or None.
        units: per channel; None for one that the file does not name.
        sampling_rate_hz: what the file or the caller says, or None.
        n_channels: columns of samples.
        sensor: of the bundle; None where there is none.

    Returns:
        The sensor, with window and hop of the bundle's (without one, of a single sample), and the assumptions
        as in `FileStream`.

    Raises:
        InputError: a channel of the bundle's sensor is missing, a channel stands twice, the numbers do not
            fit, or nobody says the sampling rate.
    """
    assumed = []
    if channels is None and sensor is not None and n_channels == sensor.n_channels:
        assumed.append("channels")
        channels = sensor.channels
    if channels is None and sensor is None:
        channels = Sensor.plain(n_channels, 1).channels
    if channels is None or len(channels) != n_channels:
        wanted = sensor.channels if channels is None and sensor is not None else channels or ()
        raise InputError(
            f"`{name}` must hold one column per channel ({len(wanted)}: {', '.join(wanted)}). "
            f"Received: {n_channels} columns."
        )
    if len(set(channels)) != n_channels:
        raise InputError(f"`{name}` must name each channel once. Received: {', '.join(channels)}.")
    stated = [None] * n_channels if units is None else list(units)
    if len(stated) != n_channels:
        raise InputError(f"`units` of {name} needs one per channel ({n_channels}). Received: {len(stated)}.")
    default: dict[str, str] = {}
    if sensor is not None:
        refuse_missing_channels(channels, sensor, name)
        default = dict(zip(sensor.channels, sensor.units, strict=True))
        if None in stated:
            assumed.append("units")
        if sampling_rate_hz is None:
            assumed.append("sampling_rate_hz")
            sampling_rate_hz = sensor.sampling_rate_hz
    if sampling_rate_hz is None:
        raise InputError(
            f"`sampling_rate_hz` of {name} must be known. Received: a file that does not say it, and no "
            "sensor. Use `sampling_rate_hz=50`, or a column time_s."
        )
    refuse_rate(sampling_rate_hz, name)
    full = tuple(unit or default.get(channel, "1") for unit, channel in zip(stated, channels, strict=True))
    if sensor is not None and tuple(channels) == sensor.channels and full == sensor.units:
        return replace(sensor, sampling_rate_hz=sampling_rate_hz), tuple(assumed)
    window, hop = (sensor.window, sensor.hop) if sensor is not None else (1, 1)
    return Sensor(tuple(channels), full, sampling_rate_hz, window, hop), tuple(assumed)


def refuse_rate(sampling_rate_hz: float, name: str) -> None:
    """Refuse what is no sampling rate.

    Raises:
        InputError: it is not positive, or above `MAX_RATE_HZ`.
    """
    if not 0 < sampling_rate_hz <= MAX_RATE_HZ:
        raise InputError(
            f"`sampling_rate_hz` of {name} must be positive and at most {MAX_RATE_HZ:g}. "
            f"Received: {sampling_rate_hz}."
        )


def class_indices(
    labels: NDArray[Any], classes: Sequence[str] | None, name: str, lines: Iterable[int] | None = None
) -> NDArray[np.int64]:
    """Return the class index of labels: a name, an index, or nothing or -1 for no label.

    Args:
        labels: (m,) text or integers.
        classes: name per class; None where nobody names them, so that only indices can be read.
        name: of the file, for messages.
        lines: (m,) where each label stands.

    Raises:
        InputError: a label that is neither.
    """
    distinct, place = np.unique(labels, return_inverse=True)
    known = {label: index for index, label in enumerate(classes or ())}
    indices = np.empty(len(distinct), np.int64)
    for row, text in enumerate(str(label).strip() for label in distinct.tolist()):
        index = known.get(text, UNLABELLED if not text else _whole(text))
        if index is None or not UNLABELLED <= index < (len(known) or np.inf):
            at = "" if lines is None else f" in line {list(lines)[int(np.argmax(place == row))]}"
            told = ", ".join(known) or "indices only, as no class is named"
            raise InputError(
                f"`label` of {name} must be a class ({told}), its index, or {UNLABELLED} for none. "
                f"Received: {text!r}{at}.{did_you_mean(text, tuple(known))}"
            )
        indices[row] = index
    return indices[place.reshape(-1)]


def _whole(text: str) -> int | None:
    """Return a whole number that may be written as 3 or 3.0; None for anything else."""
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() and abs(number) < 2**31 else None
