"""Read what models took on a board of one's own: a table with a row per measured .tflite.

Columns: `model`, a path below the table's folder; one of `latency_ms`, `latency_us` and `cycles`, and
optional `energy_uj`, all of one invocation; optional `runs`, how many invocations they are means of. A model
may have several rows.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from statistics import geometric_mean

from mexit_edge.errors import InputError, in_digits, unknown_name
from mexit_edge.estimate.operations import OperationCost, operations
from mexit_edge.files import read_from_folder
from mexit_edge.tflite.verify import MAX_MODEL_BYTES

TIMES = ("latency_ms", "latency_us", "cycles")
COLUMNS = ("model", *TIMES, "energy_uj", "runs")
MAX_TABLE_BYTES = 1 << 20
MAX_MODELS = 64
MAX_FIGURE = 1e12
# Figures that differ by more than this contradict each other.
CONTRADICTION = 3.0


@dataclass(frozen=True)
class MeasuredModel:
    """What one invocation of a model took.

    Args:
        name: as in the table.
        lines: of the table, on which it stands.
        costs: of its operators.
        cycles: geometric mean over its rows.
        latency_ms: the same in time.
        energy_uj: geometric mean over its rows with an energy; None where there are none.
    """

    name: str
    lines: tuple[int, ...]
    costs: tuple[OperationCost, ...]
    cycles: float
    latency_ms: float
    energy_uj: float | None

    @property
    def power_mw(self) -> float | None:
        """While it runs; None where its energy is unknown."""
        return None if self.energy_uj is None else self.energy_uj / self.latency_ms


@dataclass(frozen=True)
class _Row:
    line: int
    model: str
    cycles: float
    energy_uj: float | None


def read_measurements(path: Path, clock_mhz: float) -> tuple[MeasuredModel, ...]:
    """Read a table of measurements and the models that it names.

    Args:
        path: of the .csv.
        clock_mhz: of the processor while it measured.

    Raises:
        InputError: the table or a model cannot be read, is too large or lies outside of the table's folder; a
            column is unknown or its unit is missing; a figure is missing, not finite or not above 0; or the
            rows of a model differ by more than 3 times.
    """
    rows: dict[str, list[_Row]] = {}
    for row in _rows(path, clock_mhz):
        rows.setdefault(row.model, []).append(row)
    if not rows or len(rows) > MAX_MODELS:
        raise InputError(
            f"`{path.name}` must hold 1 to {MAX_MODELS} models. Received: {len(rows)}. "
            "`mexit device probes` writes models to measure."
        )
    return tuple(_model(path, name, found, clock_mhz) for name, found in rows.items())


def _rows(path: Path, clock_mhz: float) -> Iterator[_Row]:
    content = read_from_folder(path.parent, path.name, MAX_TABLE_BYTES)
    try:
        # Spreadsheets put a byte order mark in front.
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header = [name.strip() for name in next(reader, [])]
        time = _time_column(path.name, header)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield _row(path.name, reader.line_num, header, cells, time, clock_mhz)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"`{path.name}` must be a table in UTF-8 with commas. Received: {error}. Save it as CSV again."
        ) from error


def _time_column(table: str, header: Sequence[str]) -> str:
    """Check the columns and return the one that says how long."""
    for name in header:
        with_units = [known for known in COLUMNS if known.startswith(f"{name}_")]
        if name and with_units:
            raise InputError(
                f"`{table}` must have the units in the names of its columns. Received: {name!r}. "
                f"Call it {' or '.join(with_units)}."
            )
        if name not in COLUMNS:
            raise unknown_name(f"columns of {table}", name, COLUMNS)
    times = [name for name in header if name in TIMES]
    if "model" not in header or len(times) != 1 or len(set(header)) != len(header):
        raise InputError(
            f"`{table}` must have each column once: model and one of {', '.join(TIMES)}. "
            f"Received: {', '.join(header) or 'nothing'}."
        )
    return times[0]


def _row(
    table: str, line: int, header: Sequence[str], cells: Sequence[str], time: str, clock_mhz: float
) -> _Row:
    place = f"line {line} of {table}"
    if len(cells) != len(header):
        raise InputError(
            f"`{table}` must have a cell per column in every row. Received: {len(cells)} cells for "
            f"{len(header)} columns on line {line}. Write decimals with a point."
        )
    found = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    figures = {
        name: _figure(found["model"], name, cell, place)
        for name, cell in found.items()
        if name != "model" and (cell or name == time)
    }
    cycles_per = {"latency_ms": 1e3 * clock_mhz, "latency_us": clock_mhz, "cycles": 1.0}[time]
    # "./a.tflite" is the same model as "a.tflite".
    name = str(PurePath(found["model"])) if found["model"] else ""
    return _Row(line, name, figures[time] * cycles_per, figures.get("energy_uj"))


def _figure(model: str, column: str, cell: str, place: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 < value <= MAX_FIGURE:
        raise InputError(
            f"`{column}` must be a number above 0, at most {MAX_FIGURE:g}. Received: {cell or 'nothing'} for "
            f"{model} on {place}. Measure it, or take the row out."
        )
    return value


def _model(path: Path, name: str, rows: Sequence[_Row], clock_mhz: float) -> MeasuredModel:
    ms_by_line = {row.line: row.cycles / (1e3 * clock_mhz) for row in rows}
    uj_by_line = {row.line: row.energy_uj for row in rows if row.energy_uj is not None}
    for figures, unit in ((ms_by_line, "ms"), (uj_by_line, "uJ")):
        _refuse_contradiction(path.name, name, figures, unit)
    latency_ms = geometric_mean(ms_by_line.values())
    return MeasuredModel(
        name=name,
        lines=tuple(row.line for row in rows),
        costs=_costs(path, name, rows[0].line),
        cycles=latency_ms * 1e3 * clock_mhz,
        latency_ms=latency_ms,
        energy_uj=geometric_mean(uj_by_line.values()) if uj_by_line else None,
    )


def _refuse_contradiction(table: str, model: str, figures: Mapping[int, float], unit: str) -> None:
    """Refuse rows of one model that differ too much; `figures` are by line."""
    least, most = (choose(figures, key=figures.__getitem__, default=0) for choose in (min, max))
    if figures and figures[most] > CONTRADICTION * figures[least]:
        low, high = (f"{in_digits(figures[line])} {unit} on line {line}" for line in (least, most))
        raise InputError(
            f"`{table}` must not contradict itself by more than {CONTRADICTION:g} times. Received: {low} and "
            f"{high} for {model}. Measure it again."
        )


def _costs(path: Path, name: str, line: int) -> tuple[OperationCost, ...]:
    folder = path.parent.resolve()
    try:
        # Where links lead counts, too.
        model = (folder / name).resolve()
        is_below = bool(name) and model.is_relative_to(folder)
    except (OSError, RuntimeError, ValueError):
        is_below = False
    if not is_below:
        raise InputError(
            f"`model` must be a path below the folder of {path.name}. Received: {name!r} on line {line}. "
            "Copy the model there."
        )
    try:
        costs = operations(read_from_folder(model.parent, model.name, MAX_MODEL_BYTES))
    except (InputError, OSError) as error:
        raise InputError(
            f"`model` must be a .tflite that can be counted. Received: {name} on line {line}. {error}"
        ) from error
    if not costs:
        raise InputError(
            f"`model` must hold an operator. Received: {name} on line {line}, which has none. Take it out."
        )
    return costs
