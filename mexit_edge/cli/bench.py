"""`mexit bench`: compare training regimes over data, networks and seeds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mexit_edge.cli.option_words import with_option_names
from mexit_edge.cli.settings import RUNS, RunSettings, refuse_file_name
from mexit_edge.cli.tables import console, print_json
from mexit_edge.cli.training import require_modules
from mexit_edge.errors import InputError
from mexit_edge.files import free_name

OPTIONS = {"address": "--address", "backend": "--backend", "out": "--out", "test_log": "--test-log"}
QUICK = {"epochs": 4, "stride": 8, "batch_size": 16, "severities": [0, 3]}


@dataclass(frozen=True)
class BenchRequest:
    """The options of `mexit bench`.

    Args:
        sweep: file; None where the options make the sweep.
        options: that were given in place of a file, by name without the dashes.
        out: folder; None for a new name.
        backend: where runs are done.
        workers: runs at once; None for what there is.
        address: of a cluster; None for this machine.
        test_log: of every look at test subjects; None for one in the folder.
    """

    sweep: Path | None
    options: Mapping[str, Any]
    out: Path | None
    backend: str
    workers: int | None
    address: str | None
    test_log: Path | None


def bench_and_print(request: BenchRequest, *, as_json: bool) -> None:
    """Run a sweep and print what it came to.

    Raises:
        InputError: the sweep, the folder or the back end is wrong; checked before anything runs.
        RunError: runs failed, the disk is full, or the workers were lost time and again.
    """
    modules = {"tensorflow": "train", "joblib": "bench", "filelock": "bench", "scipy": "bench"}
    require_modules({**modules, "pandas": "train", "matplotlib": "report", "jinja2": "report"})
    screen = console(quiet=as_json)
    try:
        facts, table = _bench(request, screen)
    except InputError as error:
        raise InputError(with_option_names(str(error), OPTIONS)) from error
    if as_json:
        print_json(facts)
    else:
        if table is not None:
            screen.print(table)
        page = "" if facts["page"] is None else f"\nPage:    {facts['page']}"
        screen.print(f"Results: {facts['results']}{page}", markup=False, soft_wrap=True)
    for name, reason in facts["failed"].items():
        typer.echo(f"Failed: {name}: {reason}", err=True)
    if facts["failed"]:
        from mexit_edge.benchmark.folder import FAILED

        typer.echo(f"Tracebacks: {Path(facts['folder']) / FAILED}", err=True)
        raise typer.Exit(1)


def _bench(request: BenchRequest, screen: Console) -> tuple[dict[str, Any], Table | None]:
    from mexit_edge.benchmark.conduct import conduct
    from mexit_edge.benchmark.evaluation_log import EvaluationLog
    from mexit_edge.benchmark.folder import PAGE, RESULTS, TEST_LOG, SweepFolder, full, is_full
    from mexit_edge.benchmark.pools import Pool
    from mexit_edge.benchmark.results import write_results
    from mexit_edge.runtime import CaughtStderr

    with CaughtStderr():
        sweep = _sweep(request)
    runs = sweep.runs()
    refuse_file_name(request.out, "the folder of a sweep")
    folder = SweepFolder(request.out or free_name(RUNS / (request.sweep.stem if request.sweep else "bench")))
    folder.check()
    log = EvaluationLog(request.test_log or folder.path / TEST_LOG)
    pool = Pool(request.backend, request.workers, request.address)
    try:
        with folder.locked():
            done = sum(folder.is_finished(run) for run in runs)
            screen.print(f"{done} of {len(runs)} runs done in {folder.path}.", soft_wrap=True)
            # What was judged before a sweep was killed too.
            log.add(folder.record_files())
            try:
                with _Lines(screen, len(runs), done) as lines:

                    def ended(run: Any, failure: str | None) -> None:
                        if failure is None:
                            log.add([folder.record_file(run)])
                        lines.ended(run, failure)

                    conduct(sweep, runs, folder, pool, ended)
            finally:
                # Also of what is finished when the rest is broken off.
                summary = write_results(folder, sweep, runs)
    except KeyboardInterrupt:
        typer.echo(f"Go on with the same command and --out {folder.path}", err=True)
        raise
    except OSError as error:
        if is_full(error):
            raise full(folder.path) from error
        raise
    facts = {
        "folder": str(folder.path),
        "results": str(folder.path / RESULTS),
        "page": None if summary is None else str(folder.path / PAGE),
        "runs": len(runs),
        "finished": sum(folder.is_finished(run) for run in runs),
        "failed": folder.failures(runs),
        "summary": [] if summary is None else _facts(summary),
    }
    return facts, None if summary is None else _table(summary)


def _sweep(request: BenchRequest) -> Any:
    from mexit_edge.benchmark.sweep import make_sweep, read_sweep

    if request.sweep is not None:
        if request.options:
            raise InputError(
                f"`--{next(iter(request.options))}` must be left out with a sweep file, which says it. "
                f"Received: both, and {request.sweep}."
            )
        return read_sweep(request.sweep)
    from mexit_edge.regimes import REGIMES

    options = request.options
    protocol: dict[str, Any] = dict(QUICK) if "quick" in options else {}
    for name in ("epochs", "equal-cost", "split-seed"):
        if name in options:
            protocol[name.replace("-", "_")] = options[name]
    if "out-of-fold" in options:
        protocol["judged_on"] = "out_of_fold"
    facts: dict[str, Any] = {
        "data": options.get("data", [RunSettings().data]),
        "regimes": [{"name": one} for one in options.get("regime", REGIMES)],
        "protocol": protocol,
    }
    if "backbone" in options:
        facts["backbones"] = [_backbone(one) for one in options["backbone"]]
    if "seeds" in options:
        facts["seeds"] = list(range(options["seeds"]))
    return make_sweep(facts, "the options")


def _backbone(text: str) -> dict[str, str]:
    name, slash, preset = text.partition("/")
    return {"name": name, "preset": preset} if slash else {"name": name}


class _Lines:
    """Shows the runs as they end: a bar on a terminal, a line each elsewhere."""

    def __init__(self, screen: Console, runs: int, done: int) -> None:
        self._screen, self._runs, self._done, self._new = screen, runs, done, 0
        self._started = time.perf_counter()
        self._bar = Progress(
            TextColumn("Runs"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=screen,
            disable=not screen.is_terminal,
        )
        self._task = self._bar.add_task("runs", total=runs, completed=done)

    def __enter__(self) -> _Lines:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def ended(self, run: Any, failure: str | None) -> None:
        """Show that a run ended."""
        self._new += 1
        self._bar.update(self._task, completed=self._done + self._new)
        seconds = (time.perf_counter() - self._started) / self._new
        left = seconds * (self._runs - self._done - self._new)
        how = "done" if failure is None else f"FAILED: {failure.strip().splitlines()[-1]}"
        self._screen.print(
            f"{self._done + self._new}/{self._runs} {run}: {how}, about {left / 60:.0f} min left",
            markup=False,
            soft_wrap=True,
        )


def _headline(summary: Any, setting: Any) -> Sequence[tuple[str, Any]]:
    from mexit_edge.benchmark import summary as measures

    final = measures.exit_quality(summary.exits_of(setting)[-1])
    return (
        ("final exit", final),
        ("policy", measures.policy_quality()),
        ("at 25 % of the cost", measures.quality_at(0.25)),
        ("at 50 %", measures.quality_at(0.5)),
    )


def _facts(summary: Any) -> list[dict[str, Any]]:
    found = []
    for setting in summary.settings:
        for regime in summary.regimes_of(setting):
            for name, measure in _headline(summary, setting):
                cell = summary.cell(setting, regime, measure)
                found.append(
                    {
                        **setting._asdict(),
                        "regime": regime,
                        "figure": name,
                        "balanced_accuracy": None if cell is None else cell.mean,
                        "interval": None
                        if cell is None or cell.interval is None
                        else [cell.interval.low, cell.interval.high],
                        "seeds": None if cell is None else cell.seeds,
                    }
                )
    return found


def _table(summary: Any) -> Table:
    from mexit_edge.benchmark.advice import share_of

    table = Table(
        title="Balanced accuracy of int8 stages in percent: mean over seeds [95 % interval]",
        title_justify="left",
    )
    columns = [name for name, _ in _headline(summary, summary.settings[0])]
    for name in ("data", "network", "regime", *columns):
        # Cut short, two labels of one regime would read the same.
        table.add_column(name, overflow="fold")
    for setting in summary.settings:
        for regime in summary.regimes_of(setting):
            cells = [share_of(summary.cell(setting, regime, one)) for _, one in _headline(summary, setting)]
            table.add_row(setting.data, setting.backbone, regime, *cells)
    return table
