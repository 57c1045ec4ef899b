"""The study: every sweep of benchmarks/study, and its results as committed CSV.

    python benchmarks/study.py [NAME ...] [--workers 2]

As a run ends, its rows go to results/study/NAME.csv, a line to results/study/test_evaluations.csv where it
was judged on test subjects, and its quality-cost curves to results/study/NAME_curves.csv where an answer
needs them. What has rows there is not done again: delete them to have it done anew. Records stay in
runs/study/NAME; `mexit bench benchmarks/study/NAME.toml --out runs/study/NAME` makes the page of the sweep,
and does what has no record there. What a start took by the clock is a line of results/study/hours.csv.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tables

from mexit_edge.benchmark.conduct import conduct
from mexit_edge.benchmark.evaluation_log import EvaluationLog
from mexit_edge.benchmark.folder import SweepFolder
from mexit_edge.benchmark.pools import Pool
from mexit_edge.benchmark.quality_cost import quality_cost_curve
from mexit_edge.benchmark.record import RunRecord
from mexit_edge.benchmark.results import write_csv
from mexit_edge.benchmark.rows import COLUMNS, DECIMALS, RUN_COLUMNS, cells_of, rows_of
from mexit_edge.benchmark.sweep import Run, Sweep, read_sweep

HERE = Path(__file__).parent
SWEEPS = sorted(path.stem for path in (HERE / "study").glob("*.toml"))
RESULTS = HERE / "results" / "study"
HOURS = RESULTS / "hours.csv"
RUNS = HERE.parent / "runs" / "study"
CURVE_COLUMNS = (*RUN_COLUMNS, "severity", "cost", "quality")
# At equal quality these two are compared.
WITH_CURVES = ("consistency", "label")

# A run as the columns `RUN_COLUMNS` of a file say it.
Identity = tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(SWEEPS)}")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    failed = [failure for name in options.names or SWEEPS for failure in conduct_sweep(name, options.workers)]
    sys.exit(1 if failed else 0)


def conduct_sweep(name: str, workers: int) -> list[str]:
    """Do what a sweep lacks; return the runs that failed."""
    sweep, folder, results = read_sweep(HERE / "study" / f"{name}.toml"), SweepFolder(RUNS / name), Kept(name)
    log = EvaluationLog(RESULTS / "test_evaluations.csv")
    failed: list[str] = []

    def ended(run: Run, failure: str | None) -> None:
        if failure is None:
            log.add([folder.record_file(run)])
            results.add(RunRecord.load(folder.record_file(run)))
        else:
            failed.append(str(run))
        print(f"{name}: {run}: {failure or 'done'}", flush=True)

    with folder.locked():
        runs = remaining(sweep, results.runs)
        for run in [run for run in runs if folder.is_finished(run)]:
            ended(run, None)
        runs = [run for run in runs if not folder.is_finished(run)]
        if runs:
            began = time.perf_counter()
            try:
                conduct(sweep, runs, folder, Pool("local", workers, None), ended)
            finally:
                finished = sum(folder.is_finished(run) for run in runs)
                note_hours(name, finished, workers, (time.perf_counter() - began) / 3600)
    return failed


def note_hours(name: str, runs: int, workers: int, hours: float) -> None:
    """Add what this start of a sweep took, by the clock of a machine that may do other work too."""
    row = {"sweep": name, "runs": runs, "workers": workers, "measured_hours": round(hours, 3)}
    tables.write(HOURS, [*tables.read(HOURS), row])


def remaining(sweep: Sweep, done: set[Identity]) -> list[Run]:
    """Return the runs of a sweep that are not done."""
    return [run for run in sweep.runs() if identity(run) not in done]


class Kept:
    """The committed rows and curves of a sweep."""

    def __init__(self, name: str) -> None:
        self._files = {COLUMNS: RESULTS / f"{name}.csv", CURVE_COLUMNS: RESULTS / f"{name}_curves.csv"}

    @property
    def runs(self) -> set[Identity]:
        """Every run that has rows."""
        return {identity_of(row) for row in tables.read(self._files[COLUMNS])}

    def add(self, record: RunRecord) -> None:
        """Put in the figures of a run; its rows last, since they say that it is done."""
        if record.run.regime in WITH_CURVES:
            self._add(CURVE_COLUMNS, record.run, list(curve_rows(record)))
        self._add(COLUMNS, record.run, rows_of(record))

    def _add(self, columns: tuple[str, ...], run: Run, new: list[dict[str, Any]]) -> None:
        others = [row for row in tables.read(self._files[columns]) if identity_of(row) != identity(run)]
        RESULTS.mkdir(parents=True, exist_ok=True)
        write_csv(self._files[columns], columns, sorted([*others, *new], key=in_order))


def curve_rows(record: RunRecord) -> Iterable[dict[str, Any]]:
    """Yield the points of a run's curves, the ends of its straight pieces."""
    head = cells_of(record.run)
    for severity in record.severities:
        curve = quality_cost_curve(record, severity)
        for cost, quality in zip(curve.cost, curve.quality, strict=True):
            point = {"cost": round(float(cost), DECIMALS), "quality": round(float(quality), DECIMALS)}
            yield {**head, "severity": severity, **point}


def identity(run: Run) -> Identity:
    """Return what stands in a file for a run."""
    return identity_of(cells_of(run))


def identity_of(row: Mapping[str, Any]) -> Identity:
    """Return the run that a row is of."""
    return tuple("" if row[name] is None else str(row[name]) for name in RUN_COLUMNS)


def in_order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return where the run of a row stands: by data set, backbone and seed; otherwise as they came."""
    data, backbone, _, seed, *_ = identity_of(row)
    return data, backbone, int(seed)


if __name__ == "__main__":
    main()
