"""The first line of a CSV recording: which column is a channel, the time or the label."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass

from mexit_edge.errors import InputError

LABEL = "label"
UNITLESS_TIMES = ("time", "timestamp")
TIME_COLUMNS = ("time_s", *UNITLESS_TIMES)
_TIME_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
# A rate off by a unit's factor, to within this one, is off by the unit: sensors differ by less than units do.
_NEAR_UNIT = 4.0
# "acc_x (g)" or "acc_x [g]".
_HEADING = re.compile(r"(?P<name>.*?)\s*[(\[](?P<unit>[^()\[\]]*)[)\]]")
_DELIMITERS = ",;\t"
_EXAMPLE = "For example: time_s,acc_x (g),acc_y (g)."


@dataclass(frozen=True)
class Header:
    """Where things stand in a row.

    Args:
        delimiter: between the cells.
        headings: of all columns, as they stand in the file.
        channels: name per channel.
        units: per channel; None where the heading has none.
        columns: of the channels.
        time: column of the time, or None.
        time_unit_s: seconds per unit of that column.
        label: column of the label, or None.
    """

    delimiter: str
    headings: tuple[str, ...]
    channels: tuple[str, ...]
    units: tuple[str | None, ...]
    columns: tuple[int, ...]
    time: int | None
    time_unit_s: float
    label: int | None


def read_header(line: str, name: str) -> Header:
    """Read the first line.

    Args:
        line: it, a byte order mark before it or not; empty where the file is.
        name: of the file, for messages.

    Raises:
        InputError: there is none, it holds numbers, a column without a name, or no channel.
    """
    header = line.removeprefix("\ufeff")
    delimiter = next((one for one in _DELIMITERS if one in header), _DELIMITERS[0])
    cells = [cell.strip() for cell in next(csv.reader([header], delimiter=delimiter), [])]
    if not any(cells):
        raise InputError(
            f"`{name}` must begin with a header that names the columns. "
            f"Received: {'an empty first line' if header else 'an empty file'}. {_EXAMPLE}"
        )
    if any(map(_is_number, cells)) or not all(cells):
        raise InputError(
            f"`{name}` must begin with a header that names every column. "
            f"Received: {header.strip()[:80]!r}. {_EXAMPLE}"
        )
    found = [_HEADING.fullmatch(cell) for cell in cells]
    names = [match["name"] if match else cell for match, cell in zip(found, cells, strict=True)]
    units = [(match["unit"].strip() or None) if match else None for match in found]
    times = [column for column, one in enumerate(names) if one in TIME_COLUMNS]
    labels = [column for column, one in enumerate(names) if one == LABEL]
    channels = [column for column in range(len(names)) if column not in times + labels]
    time_unit = (units[times[0]] or "s") if times else "s"
    if len(times) > 1 or len(labels) > 1 or not channels or time_unit not in _TIME_UNITS:
        raise InputError(
            f"`{name}` must have one column per channel, at most one of time ({', '.join(TIME_COLUMNS)}, in "
            f"{', '.join(_TIME_UNITS)}) and one {LABEL}. Received: {', '.join(cells)}."
        )
    return Header(
        delimiter=delimiter,
        headings=tuple(cells),
        channels=tuple(names[column] for column in channels),
        units=tuple(units[column] for column in channels),
        columns=tuple(channels),
        time=times[0] if times else None,
        time_unit_s=_TIME_UNITS[time_unit],
        label=labels[0] if labels else None,
    )


def finer_time_unit(factor: float) -> str | None:
    """Return the unit of times that, read as seconds, give a rate too low by a factor; None for none."""
    return next(
        (
            unit
            for unit, seconds in _TIME_UNITS.items()
            if seconds < 1 and 1 / _NEAR_UNIT <= factor * seconds <= _NEAR_UNIT
        ),
        None,
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
