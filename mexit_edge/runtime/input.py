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
COUNTS = np.dtype(np.int16)
# Below this the multiplier of a channel would be coarser than the quantization it stands for.
SMALLEST_SHIFT = 8
# Windows per block of arithmetic: its int32 scratch space stays in the cache beside the engine's buffers.
BLOCK = 64


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
            "`units_per_count` must be small against the normalisation's scale times the input's. "
            f"Received: {sensor.units_per_count} for scales {normalisation.scale} times {scale:g}."
        )
    half = 1 << (shift - 1)
    return FixedPointInput(
        multiplier=tuple(int(value) for value in np.rint(factor * (1 << shift))),
        bias=tuple(int(value) + half for value in np.rint(addend * (1 << shift))),
        shift=shift,
    )


class FixedPointArithmetic:
    """The device's arithmetic on counts: q = clamp((count * multiplier + bias) >> shift), within int32.

    Args:
        fixed: the integers of the manifest.
        time: samples per window.

    Raises:
        InputError: a multiplier is not positive, or a count would overflow int32 on the device.
    """

    def __init__(self, fixed: FixedPointInput, time: int) -> None:
        multiplier, bias = np.asarray(fixed.multiplier, np.int64), np.asarray(fixed.bias, np.int64)
        if multiplier.min() < 1 or (multiplier * -INT16_LOW + np.abs(bias)).max() > INT32_HIGH:
            raise InputError(
                "`fixed_point` must have positive multipliers and stay within int32 for every count. "
                f"Received: multiplier {fixed.multiplier}, bias {fixed.bias}."
            )
        self._shift = np.int32(fixed.shift)
        self._wide = np.empty((BLOCK, time, len(multiplier)), np.int32)
        # Spread over a whole window: NumPy multiplies equal shapes several times faster than it broadcasts
        # six numbers along the last axis.
        self._multiplier = np.tile(multiplier.astype(np.int32), (time, 1))
        self._bias = np.tile(bias.astype(np.int32), (time, 1))
        self._table = self._every_count(fixed)
        starts = np.arange(len(multiplier)) * (1 << 16) - INT16_LOW
        self._start = np.tile(starts.astype(np.intp), (1, time, 1))
        self._index = np.empty_like(self._start)

    def many(self, counts: NDArray[np.int16]) -> NDArray[np.int8]:
        """Return (n, time, channels) int8 of as many int16 counts."""
        quantized = np.empty(counts.shape, np.int8)
        for start in range(0, len(counts), BLOCK):
            block = counts[start : start + BLOCK]
            wide = self._wide[: len(block)]
            quantized[start : start + BLOCK] = _clamped(
                block, self._multiplier, self._bias, self._shift, wide
            )
        return quantized

    def one(self, counts: NDArray[np.int16]) -> NDArray[np.int8]:
        """Return what `many` returns, for one window (1, time, channels): looked up, three calls not six.

        For a single window NumPy's cost per call is what counts, and the loop is to cost no more than the
        interpreter calls that it makes.
        """
        np.copyto(self._index, counts)
        np.add(self._index, self._start, out=self._index)
        return self._table.take(self._index)

    @staticmethod
    def _every_count(fixed: FixedPointInput) -> NDArray[np.int8]:
        """Return what each of the 65,536 counts becomes, channel after channel."""
        counts = np.arange(INT16_LOW, INT16_HIGH + 1, dtype=np.int16)
        wide = np.empty(len(counts), np.int32)
        columns = [
            _clamped(counts, np.int32(multiplier), np.int32(bias), np.int32(fixed.shift), wide).astype(
                np.int8
            )
            for multiplier, bias in zip(fixed.multiplier, fixed.bias, strict=True)
        ]
        return np.concatenate(columns)


def _clamped(
    counts: NDArray[np.int16], multiplier: Any, bias: Any, shift: Any, wide: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Return clamp((counts * multiplier + bias) >> shift), computed in ``wide``."""
    # Widened first: NumPy multiplies int32 by int32 faster than it mixes types.
    np.copyto(wide, counts)
    np.multiply(wide, multiplier, out=wide)
    np.add(wide, bias, out=wide)
    np.right_shift(wide, shift, out=wide)
    return np.clip(wide, -128, 127, out=wide)


class InputQuantizer:
    """Checks raw windows and turns them into int8.

    Args:
        manifest: of the bundle.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.shape = (manifest.sensor.window, len(manifest.sensor.channels))
        self._tail = manifest.stages[0].inputs[0].shape[1:]
        fixed = manifest.input.fixed_point
        self._accepted = {np.dtype(np.float32), np.dtype(np.float64)}
        if fixed is not None:
            self._accepted.add(COUNTS)
            self._arithmetic = FixedPointArithmetic(fixed, self.shape[0])
        step = np.asarray(manifest.normalisation.scale) * manifest.input.scale
        self._factor = np.asarray(1 / step, np.float32)
        self._addend = np.asarray(
            manifest.input.zero_point - np.asarray(manifest.normalisation.offset) / step, np.float32
        )

    def way_in(self, windows: NDArray[Any]) -> str:
        """Return ``"fixed_point"`` for int16 counts, ``"float"`` for float windows."""
        return "fixed_point" if windows.dtype == COUNTS else "float"

    def check(self, windows: NDArray[Any], argument: str, *, batch: bool) -> None:
        """Refuse windows of a wrong type, shape or dtype.

        Raises:
            InputError: says what was expected.
        """
        if (
            not isinstance(windows, np.ndarray)
            or (windows.shape[1:] if batch else windows.shape) != self.shape
        ):
            expected = f"(n, {self.shape[0]}, {self.shape[1]})" if batch else f"{self.shape}"
            got = windows.shape if isinstance(windows, np.ndarray) else type(windows).__name__
            raise InputError(f"`{argument}` must be an array of shape {expected}. Received: {got}.")
        if windows.dtype in self._accepted:
            return
        if windows.dtype == COUNTS:
            raise InputError(
                f"`{argument}` must be float32 or float64 in the sensor's units: the bundle's sensor has no "
                "`units_per_count`. Received: int16."
            )
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
        if windows.dtype == COUNTS:
            arithmetic = self._arithmetic
            quantized = arithmetic.one(windows) if len(windows) == 1 else arithmetic.many(windows)
        else:
            refuse_non_finite(windows, f"`{argument}`")
            # A sample near the largest float becomes infinite here, and saturates as it should.
            with np.errstate(over="ignore"):
                scaled = windows.astype(np.float32, copy=False) * self._factor + self._addend
            quantized = np.clip(np.rint(scaled), -128, 127).astype(np.int8)
        return quantized if self._tail == self.shape else quantized.reshape(len(windows), *self._tail)
