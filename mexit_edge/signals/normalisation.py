"""Normalisation: fitted on training subjects, stored in the bundle, folded into the device's input."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.signals.windows import Windows


@dataclass(frozen=True)
class Normalisation:
    """The affine map (x - offset) / scale, per channel.

    Args:
        offset: subtracted, in the channel's unit.
        scale: divided by, in the channel's unit; positive.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        fits = len(self.offset) == len(self.scale) > 0
        if not fits or not all(map(isfinite, self.offset)) or not all(0 < one < inf for one in self.scale):
            raise InputError(
                "`offset` and `scale` need one finite value per channel, each scale positive. "
                f"Received: offset {self.offset}, scale {self.scale}."
            )

    @classmethod
    def identity(cls, n_channels: int) -> Normalisation:
        """Leave every channel as it is."""
        return cls((0.0,) * n_channels, (1.0,) * n_channels)

    @classmethod
    def fit(cls, windows: Windows, *, centre: bool = False) -> Normalisation:
        """Fit on training windows: one scale per triad, so that directions in space keep their meaning.

        Args:
            windows: windows of training subjects only.
            centre: whether to subtract each channel's mean. Off by default: the mean of an accelerometer is
                gravity, which carries the posture.

        Raises:
            InputError: there is no window, or a group of channels is constant.
        """
        if not len(windows):
            raise InputError("`windows` must hold at least one window. Received: none.")
        offset = (
            windows.x.mean(axis=(0, 1), dtype=np.float64) if centre else np.zeros(windows.sensor.n_channels)
        )
        scale = np.empty(windows.sensor.n_channels)
        for group in windows.sensor.groups:
            deviation = float(windows.x[..., list(group)].std(dtype=np.float64))
            if deviation <= 0:
                names = ", ".join(windows.sensor.channels[channel] for channel in group)
                raise InputError(
                    f"`windows` must vary in every channel. Received: constant {names}. "
                    "Leave such channels out."
                )
            scale[list(group)] = deviation
        return cls(tuple(offset.tolist()), tuple(scale.tolist()))

    def apply(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (..., channels) normalised, as float32."""
        offset, scale = np.asarray(self.offset, np.float32), np.asarray(self.scale, np.float32)
        normalised: NDArray[np.float32] = (x - offset) / scale
        return normalised

    def saturated(self, x: NDArray[np.float32], limit: float) -> NDArray[np.float32]:
        """Return (..., channels), in their units, as an input would see them that saturates.

        Args:
            x: samples.
            limit: largest magnitude of a normalised sample; what lies beyond becomes as large as that.
        """
        offset, reach = np.asarray(self.offset, np.float32), np.asarray(self.scale, np.float32) * limit
        return np.clip(x, offset - reach, offset + reach).astype(np.float32)
