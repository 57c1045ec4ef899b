"""From a stream's windows to int8, each sample once although windows overlap."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mexit_edge.runtime import InputQuantizer, Runtime
from mexit_edge.signals import Sensor, WindowBatch, Windows, WindowStatus

INT8 = np.dtype(np.int8)
# Windows whose scratch space stays in the cache.
BLOCK = 256


class WayIn:
    """Turns windows in the sensor's units into what a bundle's loop takes.

    Args:
        runtime: whose bundle it is.
    """

    def __init__(self, runtime: Runtime) -> None:
        manifest = runtime.bundle.manifest
        sensor = manifest.sensor.to_sensor()
        self._window, self._hop = sensor.window, sensor.hop
        self._tail = manifest.stages[0].inputs[0].shape[1:]
        self._quantizer = runtime.quantizer
        # To this sensor all samples of a window are so many channels: NumPy divides long rows by equal rows
        # several times faster than by a few numbers per sample.
        self._wide = None
        if manifest.input.fixed_point is not None and sensor.units_per_count is not None:
            steps = sensor.units_per_count * sensor.window
            self._wide = replace(Sensor.plain(len(steps), 1), units_per_count=steps)

    def raw(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """Return windows, all finite, as int16 counts where the bundle takes them, else as they are."""
        if self._wide is None:
            return x
        # The one rule for counts is that of `Windows`; labels and subjects play no part in it.
        rows, nobody = x.reshape(len(x), 1, -1), np.zeros(len(x), np.int64)
        return Windows(rows, nobody, nobody, self._wide, ("any",)).counts().reshape(x.shape)

    def quantized(self, batch: WindowBatch) -> NDArray[np.int8]:
        """Return the healthy windows of a batch as int8, as stage 1 takes them."""
        healthy = batch.status == WindowStatus.OK
        window, hop = self._window, self._hop
        if hop >= window or not healthy.all() or not len(batch):
            return self._in_blocks(batch.x[healthy])
        n_channels = batch.x.shape[2]
        # What windows share is taken from the first that has it, and laid out as if windows did not overlap.
        fresh, rest = batch.x[:, :hop].reshape(-1, n_channels), batch.x[-1, hop:]
        n_samples = len(fresh) + len(rest)
        samples = np.zeros((-(-n_samples // window), window, n_channels), np.float32)
        flat = samples.reshape(-1, n_channels)
        flat[: len(fresh)], flat[len(fresh) : n_samples] = fresh, rest
        codes = self._in_blocks(samples).reshape(flat.shape)[:n_samples]
        views = sliding_window_view(codes, window, axis=0)[::hop].transpose(0, 2, 1)
        return np.ascontiguousarray(views).reshape(len(batch), *self._tail)

    def _in_blocks(self, x: NDArray[np.float32]) -> NDArray[np.int8]:
        codes = np.empty((len(x), *self._tail), np.int8)
        for start in range(0, len(x), BLOCK):
            block = slice(start, start + BLOCK)
            codes[block] = self._quantizer.quantize(self.raw(x[block]))
        return codes


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
