"""What a sweep comes to: one tidy CSV, a summary, times, a log of every look at test subjects, and a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mexit_edge.benchmark import page
from mexit_edge.benchmark.folder import PAGE, RESULTS, TIMES, SweepFolder
from mexit_edge.benchmark.record import RunRecord
from mexit_edge.benchmark.rows import COLUMNS, INT8, TIME_COLUMNS, rows_of, times_of
from mexit_edge.benchmark.summary import Summary, read_rows, summarise
from mexit_edge.benchmark.sweep import TEST, Sweep
from mexit_edge.errors import InputError
from mexit_edge.files import write_bytes

SUMMARY = "summary.csv"
LOG_COLUMNS = (
    "time_utc",
    "run",
    "data",
    "backbone",
    "regime",
    "seed",
    "subjects",
    "final_exit_balanced_accuracy",
    "policy_balanced_accuracy",
    "policy_mean_macs_share",
)


def write_results(folder: SweepFolder, sweep: Sweep, test_log: Path) -> Summary | None:
    """Write everything that follows from the records of a sweep, and log new evaluations on test subjects.

    Args:
        folder: of the sweep.
        sweep: whose runs are meant; what else the folder holds is left out.
        test_log: CSV that lists every run that was judged on test subjects, whatever became of it.

    Returns:
        The summary; None where no run is finished.
    """
    runs = sweep.runs()
    records = list(folder.records(runs))
    log_tests(test_log, records)
    write_tables(folder, records)
    if not records:
        return None
    summary = summarise(read_rows(folder.path / RESULTS), sweep.reference)
    frame = summary.to_frame()
    write_csv(folder.path / SUMMARY, tuple(frame.columns), frame.to_dict("records"))
    failed = folder.failures(runs)
    html = page.render_bench_page(summary, records, failed, sweep, records[0].versions)
    write_bytes(folder.path / PAGE, html.encode(), overwrite=True)
    return summary


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


def log_tests(path: Path, records: Iterable[RunRecord]) -> None:
    """Add a line for every run that was judged on test subjects and is not in the log yet.

    Raises:
        InputError: the file is no such log.
    """
    before = path.read_text("utf-8") if path.exists() else ",".join(LOG_COLUMNS) + "\n"
    lines = list(csv.DictReader(io.StringIO(before)))
    if not before.startswith(",".join(LOG_COLUMNS) + "\n"):
        raise InputError(
            f"`test_log` must be a log of evaluations on test subjects, with the columns "
            f"{', '.join(LOG_COLUMNS)}. Received: {path}, which has others."
        )
    known = {line["run"] for line in lines}
    new = [
        _log_line(record)
        for record in records
        if record.run.judged_on == TEST and record.run.key not in known
    ]
    if new:
        write_csv(path, LOG_COLUMNS, [*lines, *new])


def _log_line(record: RunRecord) -> dict[str, Any]:
    found = {
        (row["metric"], row["exit"]): row["value"]
        for row in rows_of(record)
        if (row["kind"], row["severity"]) == (INT8, 0.0)
    }
    run = record.run
    return {
        "time_utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "run": run.key,
        "data": run.data,
        "backbone": run.backbone,
        "regime": run.regime,
        "seed": run.seed,
        "subjects": " ".join(map(str, record.subjects["judged"])),
        "final_exit_balanced_accuracy": found["balanced_accuracy", record.exits[-1]],
        "policy_balanced_accuracy": found["balanced_accuracy", "policy"],
        "policy_mean_macs_share": found["mean_macs_share", "policy"],
    }


def _cell(value: Any) -> Any:
    return "" if value is None or value != value else value
