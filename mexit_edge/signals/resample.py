"""Samples at other times than a sensor took them: another rate, or a clock that runs fast or slow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from mexit_edge.signals.sensor import Sensor
from mexit_edge.signals.stream import CHUNK_SAMPLES, Chunk, Stream

# Kaiser's window for about 80 dB (Oppenheim and Schafer, Discrete-Time Signal Processing, section 7.5).
_BETA = 7.857
_ZERO_CROSSINGS = 16
_TABLE_STEPS = 512
# Where the low-pass halves the signal, in Nyquist frequencies of the slower rate: its transition band lies
# around it.
_CUTOFF = 0.85


@dataclass(frozen=True)
class Kernel:
    """How much each sample counts, by its distance from the time that is asked for.

    Args:
        positions: distances in samples, ascending from 0.
        weights: at those distances, linear in between; 0 at the last one.
    """

    positions: NDArray[np.float64]
    weights: NDArray[np.float64]

    @property
    def half_width(self) -> float:
        """From this distance on, in samples, nothing counts."""
        return float(self.positions[-1])


@cache
def linear_kernel() -> Kernel:
    """Return the kernel of linear interpolation between the two nearest samples."""
    return Kernel(np.array([0.0, 1.0]), np.array([1.0, 0.0]))


@cache
def low_pass_kernel(factor: float) -> Kernel:
    """Return the kernel for `factor` output samples per input sample: a sinc under a Kaiser window.

    With r the slower of the two rates: what lies below 0.35 r comes out with an error of at most 0.1 % of its
    amplitude; what lies above r / 2 is at most 0.1 % of it, wherever it folds to. Between the two the
    low-pass falls.
    """
    slower = min(1.0, factor)
    u = np.linspace(0.0, 1.0, _ZERO_CROSSINGS * _TABLE_STEPS + 1)
    weights = np.sinc(u * _ZERO_CROSSINGS) * np.i0(_BETA * np.sqrt(1 - u**2)) / np.i0(_BETA)
    weights[-1] = 0.0
    return Kernel(u * _ZERO_CROSSINGS / (slower * _CUTOFF), weights)


class ResampledStream(Stream):
    """A stream at another rate: sample j is what the old one had at its counter j / factor.

    Each run of samples without a gap is resampled for itself, its first and last sample repeated beyond its
    ends; where samples are missing, those of the new rate are missing too. A sample that is not finite
    reaches as far as the kernel. Labels are those of the nearest sample; times of arrival are interpolated.

    Args:
        stream: what is resampled.
        factor: new samples per old one.
        kernel: how old samples make new ones.
        sensor: of the new samples.
    """

    def __init__(self, stream: Stream, factor: float, kernel: Kernel, sensor: Sensor) -> None:
        super().__init__(sensor, stream.name, stream.subject, stream.classes)
        self._stream = stream
        self._factor = factor
        self._kernel = kernel

    @property
    def n_samples(self) -> int | None:
        """Where the new counter ends."""
        n_samples = self._stream.n_samples
        return floor((n_samples - 1) * self._factor) + 1 if n_samples else n_samples

    def chunks(self, size: int = CHUNK_SAMPLES) -> Iterator[Chunk]:
        """Yield the new samples of each old chunk, as far as the kernel can see their surroundings."""
        run: Chunk | None = None
        counter = 0
        for chunk in self._stream.chunks(size):
            for part in _without_gaps(chunk):
                if run is not None and part.index[0] != run.index[-1] + 1:
                    yield from self._samples(run, counter, floor(run.index[-1] * self._factor))
                    run = None
                if run is None:
                    run, counter = part, ceil(part.index[0] * self._factor)
                else:
                    run = Chunk.joined(run, part)
                # One sample more than the kernel reaches: rounding must not decide what it sees.
                seen = floor((run.index[-1] - self._kernel.half_width - 1) * self._factor)
                yield from self._samples(run, counter, seen)
                counter = max(counter, seen + 1)
                needed = counter / self._factor - self._kernel.half_width - 1
                run = run.take(slice(max(0, min(floor(needed - run.index[0]), len(run) - 1)), None))
        if run is not None:
            yield from self._samples(run, counter, floor(run.index[-1] * self._factor))

    def _samples(self, run: Chunk, first: int, last: int) -> Iterator[Chunk]:
        """Yield the new samples from counter `first` to `last`; nothing if there is none."""
        if last < first:
            return
        index = np.arange(first, last + 1)
        # Rows of the run; clipped, since the division may fall below its first sample by a rounding.
        place = np.clip(index / self._factor - run.index[0], 0, len(run) - 1)
        left = np.floor(place).astype(np.int64)
        right = np.minimum(left + 1, len(run) - 1)
        share = place - left
        reach = ceil(self._kernel.half_width)
        total = np.zeros((len(index), run.x.shape[1]))
        norm = np.zeros(len(index))
        # Tap by tap: little memory, and a sum whose order does not depend on the size of the chunk.
        # Infinite samples may meet: what comes out is not finite either, and is found as such.
        with np.errstate(invalid="ignore", over="ignore"):
            for tap in range(1 - reach, reach + 1):
                weight = np.interp(np.abs(left + tap - place), self._kernel.positions, self._kernel.weights)
                used = weight != 0
                source = np.clip(left[used] + tap, 0, len(run) - 1)
                total[used] += weight[used, None] * run.x[source]
                norm += weight
            x = (total / norm[:, None]).astype(np.float32)
        yield Chunk(
            index,
            run.time_s[left] * (1 - share) + run.time_s[right] * share,
            x,
            run.y[np.where(share < 0.5, left, right)],
        )


def _without_gaps(chunk: Chunk) -> Iterator[Chunk]:
    """Yield the stretches of a chunk whose counters follow each other; the whole where nothing is missing."""
    ends = [*(np.flatnonzero(np.diff(chunk.index) != 1) + 1).tolist(), len(chunk)]
    start = 0
    for end in ends:
        if end > start:
            yield chunk.take(slice(start, end))
        start = end
