"""The way in: a raw window becomes the int8 of the network's input.

int16 counts take the fixed-point way of the device: one multiplication, addition and shift per sample, all
within int32, which folds the sensor's units, the normalisation and the input's quantization. Float windows in
the sensor's units are normalised and quantized in float32.
"""

from __future__ import annotations

from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle import FixedPointInput, Manifest
from mexit_edge.errors import InputError
from mexit_edge.signals import Normalisation, Sensor
from mexit_edge.signals.windows import refuse_non_finite

INT16_LOW, INT16_HIGH = -(1 << 15), (1 << 15) - 1
INT32_HIGH = (1 << 31) - 1
# Below this the multiplier of a channel would be coarser than the quantization it stands for.
SMALLEST_SHIFT = 8


def fixed_point_affine(
    sensor: Sensor, normalisation: Normalisation, scale: float, zero_point: int
) -> FixedPointInput | None:
    """Fold counts -> units -> normalised -> int8 into q = clamp((count * multiplier + bias) >> shift).

    The shift is the largest for which no count overflows int32, so that plain 32-bit arithmetic is exact on
    the device. It is common to all channels.

    Args:
        sensor: with `units_per_count`.
        normalisation: of the bundle.
        scale: quantization scale of the network's input.
        zero_point: its zero point.

    Returns:
        The integers, or None where the sensor's counts are unknown.

    Raises:
        InputError: a channel spans so many counts per step that int32 cannot hold it.
    """
    if sensor.units_per_count is None:
        return None
    step = np.asarray(normalisation.scale) * scale
    factor = np.asarray(sensor.units_per_count) / step
    addend = zero_point - np.asarray(normalisation.offset) / step
    reach = float((factor * -INT16_LOW + np.abs(addend)).max()) + 1
    shift = min(30, floor(np.log2(INT32_HIGH / reach)))
    if shift < SMALLEST_SHIFT:
        raise InputError(
            "`units_per_count` must be small against the normalisation's scale. "
            f"Received: {sensor.units_per_count} for scales {normalisation.scale}."
        )
    half = 1 << (shift - 1)
    return FixedPointInput(
        multiplier=tuple(int(value) for value in np.rint(factor * (1 << shift))),
        bias=tuple(int(value) + half for value in np.rint(addend * (1 << shift))),
        shift=shift,
    )


class InputQuantizer:
    """Checks raw windows and turns them into int8, with buffers kept between calls.

    Args:
        manifest: of the bundle.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.shape = (manifest.sensor.window, len(manifest.sensor.channels))
        self.tensor_shape = manifest.stages[0].inputs[0].shape
        self.fixed_point = manifest.input.fixed_point
        if self.fixed_point is not None:
            fixed = self.fixed_point
            self._multiplier = np.tile(np.asarray(fixed.multiplier, np.int32), (self.shape[0], 1))
            self._bias = np.tile(np.asarray(fixed.bias, np.int32), (self.shape[0], 1))
            self._shift = np.int32(fixed.shift)
            self._low, self._high = self._unsaturated_counts(fixed)
        step = np.asarray(manifest.normalisation.scale) * manifest.input.scale
        self._factor = np.asarray(1 / step, np.float32)
        self._addend = np.asarray(
            manifest.input.zero_point - np.asarray(manifest.normalisation.offset) / step, np.float32
        )
        self._wide = np.empty((0, *self.shape), np.int32)

    def way_in(self, windows: NDArray[Any]) -> str:
        """Return ``"fixed_point"`` for int16 counts, ``"float"`` for float windows."""
        return "fixed_point" if windows.dtype == np.int16 else "float"

    def check(self, windows: NDArray[Any], argument: str, *, batch: bool) -> None:
        """Refuse windows of a wrong type, shape or dtype.

        Raises:
            InputError: says what was expected.
        """
        expected = f"(n, {self.shape[0]}, {self.shape[1]})" if batch else f"{self.shape}"
        if not isinstance(windows, np.ndarray) or windows.shape[1 if batch else 0 :] != self.shape:
            got = windows.shape if isinstance(windows, np.ndarray) else type(windows).__name__
            raise InputError(f"`{argument}` must be an array of shape {expected}. Received: {got}.")
        if windows.dtype == np.int16 and self.fixed_point is None:
            raise InputError(
                f"`{argument}` must be float32 or float64 in the sensor's units: the bundle's sensor has no "
                "`units_per_count`. Received: int16."
            )
        if windows.dtype not in (np.int16, np.float32, np.float64):
            raise InputError(
                f"`{argument}` must be int16 counts or float32 / float64 in the sensor's units. "
                f"Received: {windows.dtype}."
            )

    def quantize(self, windows: NDArray[Any], argument: str = "windows") -> NDArray[np.int8]:
        """Return int8 of the shape that stage 1 takes, with the leading axis n.

        Args:
            windows: (n, time, channels), checked by `check`.
            argument: its name, for the message.

        Raises:
            InputError: NaN or infinite samples.
        """
        n = len(windows)
        out = np.empty(windows.shape, np.int8)
        if windows.dtype == np.int16:
            if len(self._wide) < n:
                self._wide = np.empty(windows.shape, np.int32)
            self._fixed_point_into(windows, self._wide[:n], out)
        else:
            refuse_non_finite(windows, f"`{argument}`")
            scaled = windows.astype(np.float32, copy=False) * self._factor + self._addend
            np.clip(np.rint(scaled, out=scaled), -128, 127, out=scaled)
            out[...] = scaled
        return out.reshape(n, *self.tensor_shape[1:])

    def _fixed_point_into(
        self, counts: NDArray[np.int16], wide: NDArray[np.int32], out: NDArray[np.int8]
    ) -> None:
        """Compute clamp((count * multiplier + bias) >> shift) without a temporary array.

        Clamping the count to the range that does not saturate is the same as clamping the result, because
        every multiplier is positive, and costs a quarter on int16.
        """
        clamped = np.minimum(np.maximum(counts, self._low), self._high)
        np.multiply(clamped, self._multiplier, out=wide, dtype=np.int32)
        np.add(wide, self._bias, out=wide)
        np.right_shift(wide, self._shift, out=wide)
        np.copyto(out, wide, casting="unsafe")

    def _unsaturated_counts(self, fixed: FixedPointInput) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """Return per sample the smallest and largest count whose result is within int8.

        Raises:
            InputError: a multiplier is not positive, a count can overflow int32, or none is within int8.
        """
        lows, highs = [], []
        for multiplier, bias in zip(fixed.multiplier, fixed.bias, strict=True):
            if multiplier < 1 or multiplier * -INT16_LOW + abs(bias) > INT32_HIGH:
                raise InputError(
                    "`fixed_point` must have positive multipliers and stay within int32 for every count. "
                    f"Received: multiplier {multiplier}, bias {bias}."
                )
            # ceil((-128 * 2**shift - bias) / multiplier) and floor((128 * 2**shift - 1 - bias) / multiplier)
            low = -((128 << fixed.shift) + bias) // multiplier
            low += (low * multiplier + bias) >> fixed.shift < -128
            high = ((128 << fixed.shift) - 1 - bias) // multiplier
            lows.append(min(max(low, INT16_LOW), INT16_HIGH))
            highs.append(max(min(high, INT16_HIGH), INT16_LOW))
            if (lows[-1] * multiplier + bias) >> fixed.shift not in range(-128, 128):
                raise InputError(
                    "`fixed_point` must map some counts into int8. "
                    f"Received: multiplier {multiplier}, bias {bias}, shift {fixed.shift}."
                )
        time = self.shape[0]
        return np.tile(np.asarray(lows, np.int16), (time, 1)), np.tile(np.asarray(highs, np.int16), (time, 1))
