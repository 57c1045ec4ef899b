"""Which windows a device refuses to classify, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.signals.sensor import Sensor
from mexit_edge.signals.stream import window_views

INT16_LIMITS = (-32768, 32767)
# Below this many samples equal values in a row are chance: see `Health`.
MIN_STUCK_SAMPLES = 16
# Samples that are compared as one row.
_ROW = 128


class WindowStatus(IntEnum):
    """What is found of a window; where several things hold, the lowest code above 0."""

    OK = 0
    MISSING_SAMPLES = 1
    NOT_FINITE = 2
    STUCK_CHANNEL = 3
    SATURATED_CHANNEL = 4

    @property
    def reason(self) -> str:
        """In words, for messages and tables."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class Health:
    """The checks of a window. Samples that are missing or not finite always reject it.

    The defaults reject none of the clean windows of the training subjects of HAPT (9,503 windows of 128
    samples) and watch (1,624). HAPT's gyroscope does touch its int16 limits there, for up to 13 % of a window
    of 128 and up to half of one of 16, so that of such short windows 13 of 152,675 are rejected. No channel
    repeats one value for 16 samples; for 8 samples one in 5,000 windows does.

    Args:
        stuck: reject a window of at least `MIN_STUCK_SAMPLES` samples in which a channel never changes.
        saturated_share: reject a window of which more than this share of a channel's samples lies at or
            beyond its limits; None switches the check off.
        limits: smallest and largest value that the sensor can give, in its units, for every channel alike or
            a pair per channel; None for the int16 range times the sensor's `units_per_count`, and no check
            where that is unknown.

    Raises:
        InputError: the share or the limits make no sense.
    """

    stuck: bool = True
    saturated_share: float | None = 0.2
    limits: tuple[float, float] | tuple[tuple[float, float], ...] | None = None

    def __post_init__(self) -> None:
        if self.saturated_share is not None and not 0 <= self.saturated_share < 1:
            raise InputError(
                f"`saturated_share` must be from 0 to below 1, or None. Received: {self.saturated_share}."
            )
        if self.limits is not None:
            pairs = np.asarray(self.limits, np.float64)
            if pairs.shape[-1:] != (2,) or pairs.ndim > 2 or not (pairs[..., 0] < pairs[..., 1]).all():
                raise InputError(
                    "`limits` must be a pair (low, high), low < high, or one per channel. "
                    f"Received: {self.limits}."
                )

    def check(self, samples: NDArray[np.float32], sensor: Sensor) -> NDArray[np.int8]:
        """Return a `WindowStatus` per window. Each sample is looked at once, although windows overlap.

        Args:
            samples: (m, channels) in the sensor's units, from the first window's first one on.
            sensor: what was measured; it says window and hop.

        Returns:
            (n,) codes. Missing samples are not seen here: `StreamWindows`, which knows, puts them first.

        Raises:
            InputError: the limits are not one pair per channel.
        """
        views = window_views(samples, sensor)
        status = np.zeros(len(views), np.int8)
        if not len(status):
            return status
        # NaN goes through minimum and maximum: few batches need a closer look than at these extremes.
        low, high = _over_time(np.minimum, samples), _over_time(np.maximum, samples)
        starts = np.arange(len(status)) * sensor.hop
        ends = starts + sensor.window
        bounds = self._bounds(sensor)
        if bounds is not None and self.saturated_share is not None:
            # Written so that NaN counts as touched: it may hide a limit.
            for channel in np.flatnonzero(~((low > bounds[0]) & (high < bounds[1]))).tolist():
                values = samples[:, channel]
                at_limit = (values <= bounds[0][channel]) | (values >= bounds[1][channel])
                over = set_between(at_limit, starts, ends) / sensor.window > self.saturated_share
                status[over] = WindowStatus.SATURATED_CHANNEL
        if self.stuck and sensor.window >= MIN_STUCK_SAMPLES:
            first = views[:, 0]
            maybe = np.flatnonzero(
                ((first == views[:, sensor.window // 2]) & (first == views[:, -1])).any(axis=1)
            )
            is_stuck = (views[maybe] == first[maybe, None]).all(axis=1).any(axis=1)
            status[maybe[is_stuck]] = WindowStatus.STUCK_CHANNEL
        if not (np.isfinite(low) & np.isfinite(high)).all():
            is_lost = np.asarray(~np.isfinite(samples).all(axis=1))
            status[set_between(is_lost, starts, ends) > 0] = WindowStatus.NOT_FINITE
        return status

    def _bounds(self, sensor: Sensor) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Return the lowest and the highest value per channel, or None where they are unknown."""
        if self.limits is None:
            bounds = count_limits(sensor)
            if bounds is None:
                return None
            # Half a count of room, for samples that came another way to their float than these.
            room = np.asarray(sensor.units_per_count, np.float32) / np.float32(2)
            return bounds[0] + room, bounds[1] - room
        pairs = np.asarray(self.limits, np.float32)
        if pairs.ndim == 2 and len(pairs) != sensor.n_channels:
            raise InputError(
                f"`limits` needs one pair per channel ({sensor.n_channels}). Received: {len(pairs)}."
            )
        low, high = np.broadcast_to(pairs, (sensor.n_channels, 2)).T
        return low, high


def _over_time(extreme: np.ufunc, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the minimum or maximum (channels,) of each channel.

    NumPy compares long rows many times faster than it reduces rows of a few channels.
    """
    n_channels = samples.shape[1]
    n_even = len(samples) // _ROW * _ROW
    parts = [samples[n_even:]]
    if n_even:
        rows = samples[:n_even].reshape(-1, _ROW * n_channels)
        parts.append(extreme.reduce(rows, axis=0).reshape(_ROW, n_channels))
    found: NDArray[np.float32] = extreme.reduce(np.concatenate(parts), axis=0)
    return found


def set_between(
    flags: NDArray[np.bool_], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return how many flags are set from each start to before its end; quick where few are set at all."""
    places = np.flatnonzero(flags)
    return np.searchsorted(places, ends) - np.searchsorted(places, starts)


def count_limits(sensor: Sensor) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return the values of the lowest and the highest int16 count per channel; None without counts."""
    if sensor.units_per_count is None:
        return None
    step = np.asarray(sensor.units_per_count, np.float64)
    low, high = INT16_LIMITS
    return (low * step).astype(np.float32), (high * step).astype(np.float32)


def rejections(status: NDArray[np.int8] | Sequence[int]) -> dict[str, int]:
    """Return reason -> number of windows, of the windows that are not ok."""
    return {
        one.reason: count
        for one in WindowStatus
        if one is not WindowStatus.OK and (count := int((np.asarray(status) == one).sum()))
    }
