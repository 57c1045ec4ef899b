"""What a sweep comes to: one tidy CSV, a summary, times, and a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mexit_edge.benchmark import page
from mexit_edge.benchmark.folder import PAGE, RESULTS, TIMES, SweepFolder
from mexit_edge.benchmark.record import RunRecord
from mexit_edge.benchmark.rows import COLUMNS, TIME_COLUMNS, rows_of, times_of
from mexit_edge.benchmark.summary import Summary, read_rows, summarise
from mexit_edge.benchmark.sweep import Run, Sweep
from mexit_edge.files import write_bytes

SUMMARY = "summary.csv"


def write_results(folder: SweepFolder, sweep: Sweep, runs: Sequence[Run]) -> Summary | None:
    """Write everything that follows from the records of a sweep.

    Args:
        folder: of the sweep.
        sweep: of the runs.
        runs: that are meant; what else the folder holds is left out.

    Returns:
        The summary; None where no run is finished, and there is no page then.
    """
    records = list(folder.records(runs))
    write_tables(folder, records)
    if not records:
        # An older sweep may have left them.
        for name in (SUMMARY, PAGE):
            (folder.path / name).unlink(missing_ok=True)
        return None
    summary = summarise(read_rows(folder.path / RESULTS), sweep.compared_with)
    frame = summary.to_frame()
    write_csv(folder.path / SUMMARY, tuple(frame.columns), frame.to_dict("records"))
    html = page.render_bench_page(summary, records, folder.failures(runs), sweep, _versions(records))
    write_bytes(folder.path / PAGE, html.encode(), overwrite=True)
    return summary


def _versions(records: Iterable[RunRecord]) -> dict[str, str]:
    """Return the versions of each package that made the records; several where a sweep went on later."""
    found: dict[str, set[str]] = {}
    for record in records:
        for name, version in record.versions.items():
            found.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(versions)) for name, versions in found.items()}


def write_tables(folder: SweepFolder, records: Sequence[RunRecord]) -> None:
    """Write the figures of runs, and beside them what a clock measured."""
    figures = [row for record in records for row in rows_of(record)]
    write_csv(folder.path / RESULTS, COLUMNS, figures)
    measured = [row for record in records for row in times_of(record)]
    write_csv(folder.path / TIMES, TIME_COLUMNS, measured)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows whole, over an older file; None and NaN are empty cells."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row[name]) for name in columns] for row in rows)
    write_bytes(path, text.getvalue().encode(), overwrite=True)


def _cell(value: Any) -> Any:
    return "" if value is None or value != value else value
