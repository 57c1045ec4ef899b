"""The device's ring buffer: a stream goes in, overlapping windows come out, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.signals.health import Health, WindowStatus, set_between
from mexit_edge.signals.stream import CHUNK_SAMPLES, Chunk, Stream, window_views
from mexit_edge.signals.windows import UNLABELLED

# Missing samples in a row that are filled by holding the last one: 60 ms at 50 Hz. A choice of ours.
MAX_FILL = 3


@dataclass(frozen=True, eq=False)
class WindowBatch:
    """Consecutive windows of a stream.

    Args:
        number: (n,) int64; window k covers the counters k * hop to k * hop + window - 1.
        start: (n,) int64, the counter of the first sample.
        ready_s: (n,) float64, when the last of its samples reached the device.
        samples: (m, channels) float32 in the sensor's units, from the first sample of the first window to the
            last one of the last; NaN where a sample is missing and not filled. Not to be written to.
        x: (n, time, channels) float32, the windows: a view of `samples`.
        y: (n,) int64, the class where all samples share one, else -1.
        status: (n,) int8, a `WindowStatus` each.
        filled: (n,) int64, samples that hold the value of the one before.
    """

    number: NDArray[np.int64]
    start: NDArray[np.int64]
    ready_s: NDArray[np.float64]
    samples: NDArray[np.float32]
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    status: NDArray[np.int8]
    filled: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.number)


class StreamWindows:
    """The windows of a stream, on the device's own grid of counters.

    Every window that the counter reaches comes out, also one of which all samples are missing. Memory holds
    the samples of one batch and the batch itself, whatever the length of the stream.

    Args:
        stream: its sensor says window and hop.
        batch: windows per batch at most; with 1, each window comes out as soon as it is complete.
        max_fill: missing samples in a row that are filled with the last sample before them; a window that
            meets a longer run has the status "missing samples". What the device cannot know yet does not
            count: a run that goes on behind the end of a window is as long as the window has seen it.
        health: the checks of each window.

    Raises:
        InputError: `batch` is not positive, or `max_fill` is negative.

    Example:
        >>> for batch in StreamWindows(stream, batch=100):  # doctest: +SKIP
        ...     runtime.infer_batch(batch.x[batch.status == WindowStatus.OK])
    """

    def __init__(
        self, stream: Stream, *, batch: int = 500, max_fill: int = MAX_FILL, health: Health | None = None
    ) -> None:
        if batch < 1 or max_fill < 0:
            raise InputError(
                "`batch` must be positive and `max_fill` at least 0. "
                f"Received: batch {batch}, max_fill {max_fill}."
            )
        self.stream = stream
        self.batch = batch
        self.max_fill = max_fill
        self.health = health or Health()
        self._grid = _Grid(self)

    @property
    def end_s(self) -> float:
        """When the period of the latest sample ends that came, or should have: the time recorded so far."""
        return self._grid.latest_s + 1 / self.stream.sensor.sampling_rate_hz

    def __iter__(self) -> Iterator[WindowBatch]:
        """Yield the batches, in time order; a stream shorter than one window gives none."""
        self._grid = grid = _Grid(self)
        # A live stream is read hop by hop where windows are wanted one by one.
        for chunk in self.stream.chunks(min(self.batch * self.stream.sensor.hop, CHUNK_SAMPLES)):
            while len(chunk):
                chunk = grid.take(chunk)
                if grid.is_full:
                    yield grid.cut()
        while self.stream.n_samples is not None and grid.end < self.stream.n_samples:
            grid.miss_until(self.stream.n_samples)
            if grid.is_full:
                yield grid.cut()
        if grid.n_windows:
            yield grid.cut()


class _Grid:
    """Samples by counter, one row each, of which a batch of windows is cut at once."""

    def __init__(self, windows: StreamWindows) -> None:
        self._sensor = windows.stream.sensor
        self._health = windows.health
        self._max_fill = windows.max_fill
        window, n_channels = self._sensor.shape
        self._capacity = (windows.batch - 1) * self._sensor.hop + window
        self._x = np.empty((self._capacity, n_channels), np.float32)
        self._time_s = np.empty(self._capacity, np.float64)
        self._y = np.empty(self._capacity, np.int64)
        # Whether a row holds the sample before it, or none because that came too long ago.
        self._is_held, self._is_lost = np.zeros((2, self._capacity), bool)
        # The counter of the first row, and the number of rows that are settled.
        self._base = self._length = 0
        # When the latest of all samples came, or should have come.
        self.latest_s = -1 / self._sensor.sampling_rate_hz
        # The last sample before the rows that are not settled yet; before the first of all there is nothing
        # to hold.
        self._last = Chunk(
            np.array([-windows.max_fill - 1]),
            np.array([(-windows.max_fill - 1) / self._sensor.sampling_rate_hz]),
            np.full((1, n_channels), np.nan, np.float32),
            np.array([UNLABELLED]),
        )

    @property
    def end(self) -> int:
        """The counter behind the last settled row."""
        return self._base + self._length

    @property
    def is_full(self) -> bool:
        """Whether a whole batch of windows can be cut."""
        return self._length == self._capacity

    @property
    def n_windows(self) -> int:
        """How many windows can be cut."""
        return max(0, (self._length - self._sensor.window) // self._sensor.hop + 1)

    def take(self, chunk: Chunk) -> Chunk:
        """Put samples into their rows and return those that have none yet."""
        index = chunk.index
        first, fits = index.searchsorted((self.end, self._base + self._capacity)).tolist()
        # With a hop longer than the window, samples between two windows are only there to be held.
        if first:
            self._last = chunk.take(slice(first - 1, first))
        samples, rest = chunk.take(slice(first, fits)), chunk.take(slice(fits, None))
        if len(samples) and samples.index[-1] - self.end == len(samples) - 1:
            self._settle(samples, False, False)
            self._last = samples.take(slice(-1, None))
        elif len(samples) or len(rest):
            self._settle_with_holes(samples, self._base + self._capacity if len(rest) else None)
        return rest

    def miss_until(self, counter: int) -> None:
        """Settle rows up to a counter, or the last row, of which no sample came."""
        self._settle_with_holes(self._last.take(slice(0)), min(counter, self._base + self._capacity))

    def _settle(
        self, samples: Chunk, is_held: NDArray[np.bool_] | bool, is_lost: NDArray[np.bool_] | bool
    ) -> None:
        rows = slice(self._length, self._length + len(samples))
        self._x[rows], self._time_s[rows], self._y[rows] = samples.x, samples.time_s, samples.y
        self._is_held[rows], self._is_lost[rows] = is_held, is_lost
        self.latest_s = max(self.latest_s, float(samples.time_s.max(initial=self.latest_s)))
        self._length = rows.stop

    def _settle_with_holes(self, samples: Chunk, end: int | None) -> None:
        """Settle the rows up to the last sample, or up to the counter `end`, holding what came before."""
        known = Chunk.joined(self._last, samples)
        index = np.arange(self.end, int(known.index[-1]) + 1 if end is None else end)
        source = np.searchsorted(known.index, index, side="right") - 1
        age = index - known.index[source]
        x, y = known.x[source], known.y[source]
        lost = age > self._max_fill
        x[lost], y[lost] = np.nan, UNLABELLED
        time_s = known.time_s[source] + age / self._sensor.sampling_rate_hz
        self._settle(Chunk(index, time_s, x, y), (age > 0) & ~lost, lost)
        self._last = known.take(slice(-1, None))

    def cut(self) -> WindowBatch:
        """Return the windows that are complete, and go on to the rows behind them."""
        window, hop = self._sensor.window, self._sensor.hop
        n_windows = self.n_windows
        used = slice(0, (n_windows - 1) * hop + window)
        starts = np.arange(n_windows) * hop
        ends = starts + window
        samples = self._x[used]
        samples.flags.writeable = False
        y, time_s = self._y[used], self._time_s[used]
        changed = y[1:] != y[:-1]
        filled = set_between(self._is_held[used], starts, ends)
        status = self._health.check(samples, self._sensor)
        status[set_between(self._is_lost[used], starts, ends) > 0] = WindowStatus.MISSING_SAMPLES
        in_order = bool((time_s[1:] >= time_s[:-1]).all())
        batch = WindowBatch(
            number=(self._base + starts) // hop,
            start=self._base + starts,
            ready_s=time_s[ends - 1] if in_order else sliding_window_view(time_s, window)[::hop].max(axis=1),
            samples=samples,
            x=window_views(samples, self._sensor),
            y=np.where(set_between(changed, starts, ends - 1) == 0, y[starts], UNLABELLED),
            status=status,
            filled=filled,
        )
        self._go_on(n_windows * hop)
        return batch

    def _go_on(self, n_rows: int) -> None:
        kept = slice(min(n_rows, self._length), self._length)
        self._length = kept.stop - kept.start
        for column in (self._time_s, self._y, self._is_held, self._is_lost):
            column[: self._length] = column[kept].copy()
        # A batch keeps the rows that it is cut from.
        rows = self._x[kept]
        self._x = np.empty_like(self._x)
        self._x[: self._length] = rows
        self._base += n_rows
