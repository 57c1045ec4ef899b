"""What was measured, how fast, and how it is cut into windows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from mexit_edge.errors import InputError

Channels = tuple[int, ...]


@dataclass(frozen=True)
class Sensor:
    """A stream of sensor channels and the windows it is cut into.

    Args:
        channels: name per channel, in the order of the last axis of every array.
        units: physical unit per channel, for example ``"g"`` or ``"rad/s"``.
        sampling_rate_hz: samples per second.
        window: samples per window.
        hop: samples between the starts of two windows.
        triads: groups of channels that are the axes of one physical sensor; they share one normalisation.
            Channels of no group stand alone.
        rigid_bodies: groups of triads (by their index) that turn together, because they sit in one device.
        units_per_count: physical units per count of the raw int16 sample, per channel; None when the stream
            has no known integer form, so that only float windows are accepted.

    Raises:
        InputError: the fields do not fit each other.
    """

    channels: tuple[str, ...]
    units: tuple[str, ...]
    sampling_rate_hz: float
    window: int
    hop: int
    triads: tuple[Channels, ...] = ()
    rigid_bodies: tuple[Channels, ...] = ()
    units_per_count: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        n_channels = len(self.channels)
        if not n_channels or len(set(self.channels)) != n_channels:
            raise InputError(f"`channels` needs distinct names, at least one. Received: {self.channels}.")
        if len(self.units) != n_channels:
            raise InputError(f"`units` needs one unit per channel ({n_channels}). Received: {self.units}.")
        if not 0 < self.sampling_rate_hz < inf or self.window < 1 or self.hop < 1:
            raise InputError(
                "`sampling_rate_hz`, `window` and `hop` must be positive. "
                f"Received: {self.sampling_rate_hz}, {self.window}, {self.hop}."
            )
        grouped = [channel for triad in self.triads for channel in triad]
        if (
            len(set(grouped)) != len(grouped)
            or not set(grouped) <= set(range(n_channels))
            or not all(self.triads)
        ):
            raise InputError(
                f"`triads` must be disjoint groups of channel indices below {n_channels}, none empty. "
                f"Received: {self.triads}."
            )
        bodies = [triad for body in self.rigid_bodies for triad in body]
        if len(set(bodies)) != len(bodies) or not set(bodies) <= set(range(len(self.triads))):
            raise InputError(
                f"`rigid_bodies` must be disjoint groups of triad indices below {len(self.triads)}. "
                f"Received: {self.rigid_bodies}."
            )
        # Only three axes can be turned in space.
        if any(len(self.triads[triad]) != 3 for triad in bodies):
            raise InputError(
                "`rigid_bodies` must name triads of three channels each. "
                f"Received: {self.rigid_bodies} with triads {self.triads}."
            )
        counts = self.units_per_count
        if counts is not None and (len(counts) != n_channels or not all(0 < one < inf for one in counts)):
            raise InputError(
                f"`units_per_count` needs one positive value per channel ({n_channels}). Received: {counts}."
            )

    @classmethod
    def plain(cls, n_channels: int, window: int, sampling_rate_hz: float = 1.0) -> Sensor:
        """Describe arrays of which nothing more is known: numbered channels, unit ``"1"``, hop = window.

        Args:
            n_channels: channels of the arrays.
            window: samples per window.
            sampling_rate_hz: samples per second.
        """
        names = tuple(f"channel_{index}" for index in range(n_channels))
        return cls(names, ("1",) * n_channels, sampling_rate_hz, window, window)

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return len(self.channels)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of one window: (time, channels)."""
        return self.window, self.n_channels

    @property
    def groups(self) -> tuple[Channels, ...]:
        """The triads, then every channel of no triad as a group of its own."""
        grouped = {channel for triad in self.triads for channel in triad}
        alone = tuple((channel,) for channel in range(self.n_channels) if channel not in grouped)
        return self.triads + alone

    def with_windowing(self, window: int, hop: int) -> Sensor:
        """Return the same sensor, cut into windows of another length or hop."""
        return replace(self, window=window, hop=hop)
