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

from mexit_edge.data.csv_clock import Clock, FirstTimes, read_first_times
from mexit_edge.data.csv_header import UNITLESS_TIMES, finer_time_unit, read_header
from mexit_edge.data.csv_rows import Rows, read_rows
from mexit_edge.data.file_stream import FileStream, class_indices, file_sensor
from mexit_edge.errors import InputError, in_digits
from mexit_edge.signals import UNLABELLED, Sensor
from mexit_edge.signals.stream import CHUNK_SAMPLES, Chunk, refuse_size

STANDARD_INPUT = "-"
_MAX_LINE = 1 << 16
# Rows from whose times the sampling rate is measured: 2.6 s at 50 Hz.
_RATE_ROWS = 128
# Of their steps, at most this share may be 0; with more the times are coarser than the samples.
_MAX_EQUAL = 0.1
# Gaps of a file in all: nights without the sensor are recordings of their own.
_MAX_GAP_S = 24 * 3600.0


class CsvStream(FileStream):
    """A CSV file or standard input as a stream.

    The first line names the columns: channels, each with its unit in brackets where it has one, and if wanted
    ``time_s`` (or time, or timestamp; in s, ms, us or ns by the unit in brackets, else s) and ``label``.
    Cells that are empty or NaN become samples that are NaN. The stream begins at its first time. A gap in the
    times, but not their jitter, is seen as missing samples (see `Clock`).

    Args:
        path: of the file, or "-" for standard input, which can be played once.
        sensor: of the bundle, for what the file does not say; None where there is none.
        classes: name per class.
        sampling_rate_hz: what the caller knows; None to measure it on the first rows' times, which must then
            be regular enough.
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
        self._jitter = 0.0
        if self._header.time is not None:
            expected_hz = sampling_rate_hz or (sensor.sampling_rate_hz if sensor else None)
            first = self._first_times(expected_hz)
            self._jitter = first.jitter
            sampling_rate_hz = sampling_rate_hz or self._measured_rate(first)
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
            counters = _Counters(self, self._jitter)
            line, end = 2, 0
            while block := list(islice(lines, size)):
                rows = read_rows(block, line, self._header, self.name)
                line += len(block)
                if len(rows.values):
                    index, time_s = counters.read(rows)
                    end = int(index[-1]) + 1
                    yield self._chunk(rows, index, time_s)
        # Only now it is known, for whoever has lost samples on the way.
        self._n_samples = end

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

    def _first_times(self, expected_hz: float | None) -> FirstTimes:
        """Return what the times of the first rows tell.

        Raises:
            InputError: they go back, have fewer digits than a counter needs, such as milliseconds of a sensor
                at 3 kHz, or can only be in another unit.
        """
        rows = read_rows(self._head, 2, self._header, self.name)
        assert rows.time_s is not None
        first = read_first_times(rows.time_s)
        n_steps = max(0, len(rows.time_s) - 1)
        if first.equal > _MAX_EQUAL * n_steps:
            raise InputError(
                f"`{self.time_heading}` of {self.name} must ascend with the samples. Received: {first.equal} "
                f"of the first {n_steps} steps are 0. Write times with more digits, or leave the column out "
                "and use `sampling_rate_hz`."
            )
        if expected_hz and first.rate_hz:
            self._refuse_unit(first.rate_hz, expected_hz)
        _refuse_jumps(np.diff(rows.time_s, prepend=rows.time_s[:1]), rows.line, self)
        return first

    def _refuse_unit(self, rate_hz: float, expected_hz: float) -> None:
        """Refuse times without a unit that are seconds by default, and by their steps are not."""
        unit = finer_time_unit(expected_hz / rate_hz)
        if self.time_heading in UNITLESS_TIMES and unit is not None:
            raise InputError(
                f"`{self.time_heading}` of {self.name} must name its unit in brackets. Received: none, and "
                f"{in_digits(rate_hz)} samples per second if it is s, where {in_digits(expected_hz)} are "
                f"expected. Name it `{self.time_heading} ({unit})`, or `{self.time_heading} (s)` if it is s."
            )

    def _measured_rate(self, first: FirstTimes) -> float:
        """Return the sampling rate of the first rows."""
        if first.steps_s is None:
            raise InputError(
                f"`{self.time_heading}` of {self.name} must ascend over at least two rows, to measure the "
                f"sampling rate. Received: {len(self._head)} rows. Use `sampling_rate_hz`."
            )
        if first.rate_hz is None:
            shortest, usual, longest = (f"{1000 * step_s:.4g}" for step_s in first.steps_s)
            raise InputError(
                f"`{self.time_heading}` of {self.name} must ascend by about a sampling period per row, to "
                f"measure the sampling rate. Received: steps from {shortest} to {longest} ms, most often "
                f"about {usual} ms, in the first {len(self._head)} rows. Use `sampling_rate_hz`, or leave "
                "the column out."
            )
        return first.rate_hz

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


class _Counters:
    """Counters and times of arrival of rows, from block to block."""

    def __init__(self, stream: CsvStream, jitter: float) -> None:
        self._stream = stream
        self._clock = Clock(stream.sensor.sampling_rate_hz, jitter)
        self._n_rows = 0
        self._first_s = self._last_s = 0.0

    def read(self, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the counter (m,) of rows and when each reached the device, in seconds."""
        rate_hz = self._stream.sensor.sampling_rate_hz
        number = np.arange(self._n_rows, self._n_rows + len(rows.values))
        self._n_rows += len(number)
        if rows.time_s is None:
            return number, number / rate_hz
        if not number[0]:
            self._first_s = self._last_s = float(rows.time_s[0])
        _refuse_jumps(np.diff(rows.time_s, prepend=self._last_s), rows.line, self._stream)
        self._last_s = float(rows.time_s[-1])
        index = self._clock.read(rows.time_s)
        gaps_s = (index - number) / rate_hz
        if gaps_s[-1] > _MAX_GAP_S:
            line = rows.line[int(np.argmax(gaps_s > _MAX_GAP_S))]
            raise InputError(
                f"`{self._stream.time_heading}` of {self._stream.name} must not leave out more than a day in "
                f"all. Received: gaps of {gaps_s[-1] / _MAX_GAP_S:.3g} days, too long in line {line}. Make a "
                "file of each part, or name the unit of the times in brackets."
            )
        return index, rows.time_s - self._first_s


def _refuse_jumps(step_s: NDArray[np.float64], line: NDArray[np.int64], stream: CsvStream) -> None:
    """Refuse times that go back, or ahead by more than a day.

    Args:
        step_s: (m,) to each row, in seconds.
        line: (m,) of the rows.
        stream: whose they are, for the message.
    """
    wrong = np.flatnonzero((step_s < 0) | (step_s > _MAX_GAP_S))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"`{stream.time_heading}` of {stream.name} must never go back, nor ahead by more than a day. "
            f"Received: a step of {step_s[row]:.6g} s to line {line[row]}. "
            "Sort the rows, or make a file of each part."
        )
