"""Recordings in CSV, from a file or standard input, read block by block as they are played."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from mexit_edge.data.csv_header import read_header
from mexit_edge.data.csv_rows import Rows, read_rows
from mexit_edge.data.file_stream import FileStream, class_indices, file_sensor
from mexit_edge.errors import InputError
from mexit_edge.signals import UNLABELLED, Sensor
from mexit_edge.signals.stream import CHUNK_SAMPLES, Chunk, refuse_size

STANDARD_INPUT = "-"
_MAX_LINE = 1 << 16
# Rows from whose times the sampling rate is measured: 2.6 s at 50 Hz.
_RATE_ROWS = 128
# Of their steps, at most this share may be 0; with more the times are coarser than the samples.
_MAX_EQUAL = 0.1
# A step of more than this many times the usual one is a gap, and no measure of the rate.
_GAP = 1.5
_MAX_GAP_S = 24 * 3600.0


class CsvStream(FileStream):
    """A CSV file or standard input as a stream.

    The first line names the columns: channels, each with its unit in brackets where it has one, and if wanted
    ``time_s`` (or time, or timestamp; in s, ms, us or ns by the unit in brackets, else s) and ``label``.
    Cells that are empty or NaN become samples that are NaN. The stream begins at its first time. A step of n
    sampling periods, rounded, moves the counter by n, at least 1: a gap is seen as missing samples.

    Args:
        path: of the file, or "-" for standard input, which can be played once.
        sensor: of the bundle, for what the file does not say; None where there is none.
        classes: name per class.
        sampling_rate_hz: what the caller knows; None to measure it on the first rows' times.
        name: for messages; the file's if None.

    Raises:
        InputError: the file cannot be read, is empty, or its header or first rows are not as described.
    """

    def __init__(
        self,
        path: Path | str,
        sensor: Sensor | None = None,
        classes: tuple[str, ...] | None = None,
        sampling_rate_hz: float | None = None,
        name: str | None = None,
    ) -> None:
        self._path = None if str(path) == STANDARD_INPUT else Path(path)
        self.name = name or ("standard input" if self._path is None else self._path.name)
        self._head: list[str] = []
        self._is_played = False
        with self._opened() as file:
            lines = self._lines(file)
            self._header = read_header(next(lines, ""), self.name)
            wanted = 1 if self._header.time is None else _RATE_ROWS
            # What comes through a pipe comes once: there its first rows are kept for the playing.
            self._head = list(islice(lines, wanted))
        if not self._head:
            raise InputError(f"`{self.name}` must hold samples. Received: a header and no row.")
        if self._header.time is not None:
            self._refuse_coarse_times()
            sampling_rate_hz = sampling_rate_hz or self._measured_rate()
        if self._path is not None:
            self._head = []
        own, assumed = file_sensor(
            self.name,
            self._header.channels,
            self._header.units,
            sampling_rate_hz,
            len(self._header.channels),
            sensor,
        )
        super().__init__(own, assumed, self.name, classes=classes)

    def chunks(self, size: int = CHUNK_SAMPLES) -> Iterator[Chunk]:
        """Yield the rows as they are read.

        Raises:
            InputError: a row is not as the header says, with its line; or standard input was played before.
        """
        refuse_size(size)
        if self._path is None and self._is_played:
            raise InputError("`-` must be played once: standard input is gone. Received: a second time.")
        self._is_played = True
        with self._opened() as file:
            lines = self._lines(file)
            if self._path is None:
                lines = chain(self._head, lines)
            else:
                next(lines)
            clock = _Clock(self)
            line = 2
            while block := list(islice(lines, size)):
                rows = read_rows(block, line, self._header, self.name)
                line += len(block)
                if len(rows.values):
                    yield self._chunk(rows, *clock.read(rows))

    @property
    def time_heading(self) -> str:
        """Heading of the column of times; empty without one."""
        return "" if self._header.time is None else self._header.headings[self._header.time]

    def _chunk(self, rows: Rows, index: NDArray[np.int64], time_s: NDArray[np.float64]) -> Chunk:
        # What float32 cannot hold becomes infinite, and its window is rejected.
        with np.errstate(over="ignore"):
            x = rows.values.astype(np.float32)
        unlabelled = np.full(len(index), UNLABELLED)
        label = rows.label
        y = unlabelled if label is None else class_indices(label, self.classes, self.name, rows.line)
        return Chunk(index, time_s, x, y)

    def _head_steps(self) -> NDArray[np.float64]:
        """Return the steps between the times of the first rows, in seconds."""
        times = read_rows(self._head, 2, self._header, self.name).time_s
        assert times is not None
        return np.diff(times)

    def _refuse_coarse_times(self) -> None:
        """Refuse times from which no counter can be told, such as milliseconds of a sensor at 3 kHz."""
        step_s = self._head_steps()
        equal = int((step_s == 0).sum())
        if equal > _MAX_EQUAL * len(step_s):
            raise InputError(
                f"`{self.time_heading}` of {self.name} must ascend with the samples. Received: {equal} of "
                f"the first {len(step_s)} steps are 0. Write times with more digits, or leave the column out "
                "and use `sampling_rate_hz`."
            )

    def _measured_rate(self) -> float:
        """Return the sampling rate of the first rows: their mean step, gaps left out."""
        step_s = self._head_steps()
        step_s = step_s[step_s > 0]
        if not len(step_s):
            raise InputError(
                f"`{self.time_heading}` of {self.name} must ascend over at least two rows, to measure the "
                f"sampling rate. Received: {len(self._head)} rows. Use `sampling_rate_hz`."
            )
        step_s = step_s[step_s <= _GAP * np.median(step_s)]
        return float(1 / step_s.mean())

    @contextmanager
    def _opened(self) -> Iterator[TextIO]:
        if self._path is None:
            yield sys.stdin
            return
        try:
            with self._path.open(encoding="utf-8", newline="") as file:
                yield file
        except OSError as error:
            raise InputError(
                f"`{self._path}` must be a file that can be read. Received: {error.strerror or error}."
            ) from error

    def _lines(self, file: TextIO) -> Iterator[str]:
        """Yield lines, none longer than memory should hold."""
        try:
            while line := file.readline(_MAX_LINE):
                if len(line) == _MAX_LINE:
                    raise InputError(
                        f"`{self.name}` must hold lines of less than {_MAX_LINE} characters. Received: more."
                    )
                yield line
        except UnicodeDecodeError as error:
            raise InputError(f"`{self.name}` must be CSV in UTF-8. Received: {error.reason}.") from error


class _Clock:
    """Counters and times of arrival of rows, from block to block."""

    def __init__(self, stream: CsvStream) -> None:
        self._stream = stream
        self._counter = -1
        self._first_s = self._last_s = 0.0

    def read(self, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the counter (m,) of rows and when each reached the device, in seconds."""
        rate_hz = self._stream.sensor.sampling_rate_hz
        times = rows.time_s
        steps = np.ones(len(rows.values), np.int64)
        if times is not None:
            if self._counter < 0:
                self._first_s = self._last_s = float(times[0])
            step_s = np.diff(times, prepend=self._last_s)
            self._refuse_jumps(step_s, rows)
            steps = np.maximum(1, np.rint(step_s * rate_hz)).astype(np.int64)
            self._last_s = float(times[-1])
        index = self._counter + np.cumsum(steps)
        self._counter = int(index[-1])
        return index, index / rate_hz if times is None else times - self._first_s

    def _refuse_jumps(self, step_s: NDArray[np.float64], rows: Rows) -> None:
        wrong = np.flatnonzero((step_s < 0) | (step_s > _MAX_GAP_S))
        if len(wrong):
            row = int(wrong[0])
            raise InputError(
                f"`{self._stream.time_heading}` of {self._stream.name} must never go back, nor ahead by more "
                f"than a day. Received: a step of {step_s[row]:.6g} s to line {rows.line[row]}. "
                "Sort the rows, or make a file of each part."
            )
