"""Rows of a CSV recording: fast where they are plain, cell by cell where they are not."""

from __future__ import annotations

import csv
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mexit_edge.data.csv_header import Header
from mexit_edge.errors import InputError

# The difference of two times must not overflow.
_MAX_TIME_S = 1e300


@dataclass(frozen=True, eq=False)
class Rows:
    """A block of rows: values (m, channels), time (m,) in seconds or None, label (m,), line (m,)."""

    values: NDArray[np.float64]
    time_s: NDArray[np.float64] | None
    label: NDArray[np.str_] | None
    line: NDArray[np.int64]


def read_rows(lines: list[str], first: int, header: Header, name: str) -> Rows:
    """Read lines; blank ones are left out.

    Args:
        lines: of the file.
        first: number of the first of them, from 1.
        header: of the file.
        name: of the file, for messages.

    Raises:
        InputError: a row is not as the header says, with its line.
    """
    numbers = (*header.columns, *(() if header.time is None else (header.time,)))
    cells = _read_fast(lines, header, numbers)
    if cells is None:
        table, label, line = _read_slowly(lines, first, numbers, header, name)
    else:
        (table, label), line = cells, np.arange(first, first + len(lines))
    if header.time is None:
        return Rows(table, None, label, line)
    time_s = table[:, -1] * header.time_unit_s
    is_time = np.abs(time_s) <= _MAX_TIME_S
    if not is_time.all():
        row = int(np.argmin(is_time))
        raise InputError(
            f"`{header.headings[header.time]}` of {name} must hold a time in every row. "
            f"Received: {'none' if np.isnan(time_s[row]) else f'{table[row, -1]:g}'} in line {line[row]}."
        )
    return Rows(table[:, :-1], time_s, label, line)


def _read_slowly(
    lines: list[str], first: int, numbers: tuple[int, ...], header: Header, name: str
) -> tuple[NDArray[np.float64], NDArray[np.str_] | None, NDArray[np.int64]]:
    """Read cell by cell, which takes quotes and empty cells, and knows where a wrong one stands."""
    values, labels, at = [], [], []
    reader = csv.reader(lines, delimiter=header.delimiter)
    try:
        for row in reader:
            line = first + reader.line_num - 1
            if not row:
                continue
            if len(row) != len(header.headings):
                raise InputError(
                    f"`{name}` must hold {len(header.headings)} cells in every row, as its header "
                    f"does. Received: {len(row)} in line {line}."
                )
            values.append([_number(row[column], header.headings[column], line, name) for column in numbers])
            labels.append("" if header.label is None else row[header.label])
            at.append(line)
    except csv.Error as error:
        raise InputError(
            f"`{name}` must be CSV. Received: {error} in line {first + reader.line_num - 1}."
        ) from error
    table = np.array(values, np.float64).reshape(len(values), len(numbers))
    return table, None if header.label is None else np.array(labels, np.str_), np.array(at, np.int64)


def _number(cell: str, heading: str, line: int, name: str) -> float:
    try:
        return float(cell) if cell.strip() else float("nan")
    except ValueError as error:
        raise InputError(
            f"`{heading}` of {name} must hold a number in every cell, or "
            f"nothing. Received: {cell[:40]!r} in line {line}."
        ) from error


def _read_fast(
    lines: list[str], header: Header, numbers: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.str_] | None] | None:
    """Read plain rows with NumPy's parser; None where a row is not plain, which then is for the slow one."""
    wanted = len(header.headings) - 1
    if any(line.count(header.delimiter) != wanted or '"' in line for line in lines):
        return None
    # One column: a blank line has as many delimiters as a row, and NumPy would leave it out unseen.
    if not wanted and not all(map(str.strip, lines)):
        return None
    delimiter = header.delimiter
    try:
        table = np.loadtxt(lines, delimiter=delimiter, comments=None, ndmin=2, usecols=numbers)
    except ValueError:
        return None
    if header.label is None:
        return table, None
    label = np.loadtxt(lines, np.str_, comments=None, delimiter=delimiter, ndmin=1, usecols=header.label)
    return table, label
