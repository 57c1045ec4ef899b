"""Samples as they reach a device: chunk after chunk, each with its counter and its time of arrival."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.signals.recording import Recording
from mexit_edge.signals.sensor import Sensor

# Samples per chunk where the caller names no number: 5.5 minutes at 50 Hz, and 0.4 MB of six channels.
CHUNK_SAMPLES = 16_384


@dataclass(frozen=True, eq=False)
class Chunk:
    """Consecutive samples of one stream.

    Unlike a `Recording`, a chunk may hold samples that are not finite: they are what a device meets.

    Args:
        index: (m,) int64, the sensor's sample counter, strictly ascending; a number left out is a sample that
            never came.
        time_s: (m,) float64, when each sample reaches the device; index / sampling rate when all is well. A
            late sample keeps its place by counter, so times need not ascend.
        x: (m, channels) float32 in the sensor's units.
        y: (m,) int64, class index per sample, -1 where it is unknown.
    """

    index: NDArray[np.int64]
    time_s: NDArray[np.float64]
    x: NDArray[np.float32]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.index)

    def take(self, chosen: slice | NDArray[np.bool_]) -> Chunk:
        """Return the samples of a slice (as views) or a mask."""
        return Chunk(self.index[chosen], self.time_s[chosen], self.x[chosen], self.y[chosen])

    @classmethod
    def joined(cls, first: Chunk, second: Chunk) -> Chunk:
        """Return two chunks as one."""
        return cls(
            np.concatenate([first.index, second.index]),
            np.concatenate([first.time_s, second.time_s]),
            np.concatenate([first.x, second.x]),
            np.concatenate([first.y, second.y]),
        )


class Stream(ABC):
    """One sensor's samples, from its first counter to its last.

    Args:
        sensor: what is measured, and how windows are cut from it.
        name: for messages and results.
        subject: whom it comes from; 0 where nobody says.
        classes: name per class; None where nothing names them.
        n_samples: where the counter ends; None where only the end of the stream tells.

    Attributes:
        n_samples: the same; a stream that did not know may know once it has been read to its end.
    """

    def __init__(
        self,
        sensor: Sensor,
        name: str,
        subject: int = 0,
        classes: tuple[str, ...] | None = None,
        n_samples: int | None = None,
    ) -> None:
        self.sensor = sensor
        self.name = name
        self.subject = subject
        self.classes = classes
        self._n_samples = n_samples

    @property
    def n_samples(self) -> int | None:
        """Where the counter ends, as far as it is known."""
        return self._n_samples

    @abstractmethod
    def chunks(self, size: int = CHUNK_SAMPLES) -> Iterator[Chunk]:
        """Yield the samples in the order of their counters, from the first on at each call.

        Args:
            size: samples per chunk, about; what is computed from a stream does not depend on it.
        """


class RecordingStream(Stream):
    """A recording, played as a stream: counters from 0, every sample in time.

    Args:
        recording: what is played; it is not copied.
        classes: name per class of its labels.
    """

    def __init__(self, recording: Recording, classes: tuple[str, ...] | None = None) -> None:
        super().__init__(recording.sensor, recording.name, recording.subject, classes, len(recording.x))
        self.recording = recording

    def chunks(self, size: int = CHUNK_SAMPLES) -> Iterator[Chunk]:
        """Yield slices of the recording.

        Raises:
            InputError: `size` is not positive.
        """
        refuse_size(size)
        x, y = self.recording.x, self.recording.y
        for start in range(0, len(x), size):
            index = np.arange(start, min(start + size, len(x)))
            part = slice(start, start + size)
            yield Chunk(
                index,
                index / self.sensor.sampling_rate_hz,
                x[part].astype(np.float32, copy=False),
                y[part].astype(np.int64, copy=False),
            )


class ChangedStream(Stream):
    """A stream whose chunks are changed one by one.

    Args:
        stream: what is changed.
        begin: called at the start of each pass; returns what changes a chunk, and may remember across chunks.
        sensor: of the changed samples; the stream's own if None.
    """

    def __init__(
        self, stream: Stream, begin: Callable[[], Callable[[Chunk], Chunk]], sensor: Sensor | None = None
    ) -> None:
        super().__init__(sensor or stream.sensor, stream.name, stream.subject, stream.classes)
        self._stream = stream
        self._begin = begin

    @property
    def n_samples(self) -> int | None:
        """Where the counter ends: changes leave it."""
        return self._stream.n_samples

    def chunks(self, size: int = CHUNK_SAMPLES) -> Iterator[Chunk]:
        """Yield the changed chunks; one that loses all its samples is left out."""
        change = self._begin()
        for chunk in self._stream.chunks(size):
            changed = change(chunk)
            if len(changed):
                yield changed


def refuse_size(size: int) -> None:
    """Refuse a chunk without samples.

    Raises:
        InputError: `size` is not positive.
    """
    if size < 1:
        raise InputError(f"`size` must be a positive number of samples. Received: {size}.")


def window_views(samples: NDArray[Any], sensor: Sensor) -> NDArray[Any]:
    """Return the windows of consecutive samples, of which each is there once.

    Args:
        samples: (m, channels), contiguous, the first one the first of a window.
        sensor: says window and hop.

    Returns:
        (n, time, channels), a view.
    """
    n_windows = max(0, (len(samples) - sensor.window) // sensor.hop + 1)
    n_channels, item = samples.shape[1], samples.itemsize
    strides = (sensor.hop * n_channels * item, n_channels * item, item)
    return np.ndarray((n_windows, sensor.window, n_channels), samples.dtype, samples, 0, strides)
