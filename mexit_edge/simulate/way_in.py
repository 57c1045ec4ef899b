"""From a stream's windows to int8, each sample once although windows overlap."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.runtime import InputQuantizer, Runtime
from mexit_edge.signals import Sensor, WindowBatch, Windows, WindowStatus
from mexit_edge.signals.stream import window_views

INT8 = np.dtype(np.int8)
INT16_LOW, INT16_HIGH = -32768, 32767
# Windows whose scratch space stays in the cache.
BLOCK = 64
# How far a quotient in float32 may lie from the whole number next to it and be rounded as in float64: divisor
# and quotient are each off by at most 2^-24 of their value, one within int16 thus by less than 0.01.
SURE = 0.49
SMALLEST_STEP = np.finfo(np.float32).tiny


class WayIn:
    """Turns windows in the sensor's units into what a bundle's loop takes.

    Args:
        runtime: whose bundle it is.
    """

    def __init__(self, runtime: Runtime) -> None:
        manifest = runtime.bundle.manifest
        sensor = manifest.sensor.to_sensor()
        self._sensor = sensor
        self._tail = manifest.stages[0].inputs[0].shape[1:]
        self._quantizer = runtime.quantizer
        # To this sensor all samples of a window are so many channels: NumPy divides long rows by equal rows
        # several times faster than by a few numbers per sample.
        self._wide, self._is_quick = None, False
        if manifest.input.fixed_point is not None and sensor.units_per_count is not None:
            steps = sensor.units_per_count * sensor.window
            self._wide = replace(Sensor.plain(len(steps), 1), units_per_count=steps)
            self._step = np.asarray(steps, np.float32)
            self._quotient, self._whole = np.empty((2, BLOCK, len(steps)), np.float32)
            # Else float32 holds the divisor with fewer digits, or not at all.
            self._is_quick = bool((np.isfinite(self._step) & (self._step >= SMALLEST_STEP)).all())

    def raw(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """Return windows, all finite, as int16 counts where the bundle takes them, else as they are."""
        if self._wide is None:
            return x
        # The one rule for counts is that of `Windows`; labels and subjects play no part in it.
        rows, nobody = x.reshape(len(x), 1, -1), np.zeros(len(x), np.int64)
        return Windows(rows, nobody, nobody, self._wide, ("any",)).counts().reshape(x.shape)

    def quantized(self, batch: WindowBatch) -> NDArray[np.int8]:
        """Return the healthy windows of a batch as int8, as stage 1 takes them; not to be written to."""
        sensor, healthy = self._sensor, batch.status == WindowStatus.OK
        if sensor.hop >= sensor.window:
            return self._codes(batch.x[healthy]).reshape(-1, *self._tail)
        samples = batch.samples
        if not healthy.all():
            # What is not finite lies in windows that go no further.
            samples = np.where(np.isfinite(samples), samples, np.float32(0))
        n_even = len(samples) // sensor.window * sensor.window
        last = np.zeros((1, *sensor.shape), np.float32)
        last[0, : len(samples) - n_even] = samples[n_even:]
        codes = self._codes(samples[:n_even].reshape(-1, *sensor.shape), last)
        windows = window_views(codes.reshape(-1, sensor.n_channels)[: len(samples)], sensor)
        return (windows if healthy.all() else windows[healthy]).reshape(-1, *self._tail)

    def _codes(self, *parts: NDArray[np.float32]) -> NDArray[np.int8]:
        """Return (n, time, channels) int8 of windows, part after part."""
        shape = (sum(map(len, parts)), *self._sensor.shape)
        raw = np.empty(shape, np.float32 if self._wide is None else np.int16)
        end = 0
        for part in parts:
            for start in range(0, len(part), BLOCK):
                block = part[start : start + BLOCK]
                end += len(block)
                self._fill(raw[end - len(block) : end], block)
        return self._quantizer.quantize(raw).reshape(shape)

    def _fill(self, raw: NDArray[Any], x: NDArray[np.float32]) -> None:
        """Do as `raw` with at most `BLOCK` windows, in half the time if their samples were counts once.

        These lie next to whole numbers of steps, so that float32 tells which. What it does not tell goes the
        slower way.
        """
        if not self._is_quick:
            raw[:] = self.raw(x)
            return
        quotient, whole = self._quotient[: len(x)], self._whole[: len(x)]
        with np.errstate(all="ignore"):
            np.divide(x.reshape(quotient.shape), self._step, out=quotient)
            np.rint(quotient, out=whole)
            np.subtract(quotient, whole, out=quotient)
        # Of NaN, none of this holds.
        is_near = quotient.max() <= SURE and quotient.min() >= -SURE
        if is_near and whole.max() <= INT16_HIGH and whole.min() >= INT16_LOW:
            np.copyto(raw, whole.reshape(raw.shape), casting="unsafe")
        else:
            raw[:] = self.raw(x)


class _Ready(InputQuantizer):
    """Lets windows pass that are int8 already.

    Args:
        inner: takes all others.
    """

    def __init__(self, inner: InputQuantizer) -> None:
        # Not made anew: it holds a table of every count.
        self.__dict__.update(inner.__dict__)

    def check(self, windows: NDArray[Any], argument: str, *, batch: bool) -> None:
        """See `InputQuantizer.check`."""
        if windows.dtype != INT8:
            super().check(windows, argument, batch=batch)

    def quantize(self, windows: NDArray[Any], argument: str = "windows") -> NDArray[np.int8]:
        """See `InputQuantizer.quantize`."""
        return windows if windows.dtype == INT8 else super().quantize(windows, argument)


def taking_int8(runtime: Runtime) -> Runtime:
    """Return the same runtime, its interpreters included, which also takes what `WayIn.quantized` gives."""
    shared = copy.copy(runtime)
    shared.quantizer = _Ready(runtime.quantizer)
    return shared
