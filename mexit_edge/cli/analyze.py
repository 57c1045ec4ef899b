"""`mexit analyze`: look into trained networks, write a table per analysis and a page."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mexit_edge.cli.analyze_request import (
    ANALYSES,
    CONNECTIVITY,
    GRADIENTS,
    INFORMATION,
    LANDSCAPE,
    NETWORKS,
    PAGE,
    RANK,
    AnalyzeRequest,
    Loaded,
    load,
    refuse_foreign,
)
from mexit_edge.cli.option_words import with_option_names
from mexit_edge.cli.progress import JobProgress
from mexit_edge.cli.tables import console, print_json
from mexit_edge.errors import InputError
from mexit_edge.files import written_whole

if TYPE_CHECKING:
    from mexit_edge.report.analysis_sections import Analyses

# What the library calls its arguments -> the option behind them.
_OPTIONS = {"windows": "--windows", **dict.fromkeys(("model", "models", "network"), NETWORKS)}

Rows = list[dict[str, Any]]


def analyze_and_print(request: AnalyzeRequest, *, as_json: bool) -> None:
    """Analyze networks, write the folder, and print what was found.

    Raises:
        InputError: an option is wrong, or networks and windows do not fit.
        MissingExtraError: an extra is not installed.
    """
    request.check()
    progress = JobProgress(console(quiet=as_json))
    try:
        loaded = load(request, progress)
        wanted, left_out = _wanted(request, loaded)
        for line in (loaded.said, loaded.said_of_judging, *left_out):
            if line is not None:
                progress.screen.print(line, markup=False, soft_wrap=True)
        found = _analyze(request, loaded, wanted, progress)
    except InputError as error:
        raise InputError(with_option_names(str(error), _OPTIONS)) from error
    tables = dict(_tables(found))
    with progress.step("Writing tables and page"):
        target = _write(request, loaded, found, tables, left_out)
    if as_json:
        print_json(
            {
                "folder": str(target),
                "networks": {
                    name: str(path) for name, path in zip(found.names, request.networks, strict=True)
                },
                "windows": loaded.said,
                "judging": loaded.said_of_judging,
                "left_out": left_out,
                "seed": request.seed,
                "analyses": tables,
            }
        )
        return
    from mexit_edge.report.analysis_page import headline

    progress.screen.print(headline(found), markup=False, soft_wrap=True)
    for name in (*(f"{table}.csv" for table in tables), PAGE):
        progress.screen.print(f"Written: {target / name}", markup=False, soft_wrap=True)


def _wanted(request: AnalyzeRequest, loaded: Loaded) -> tuple[list[str], list[str]]:
    """Return the analyses to do, and a sentence for each that is left out.

    Raises:
        InputError: one that was asked for by name cannot be done.
    """
    wanted, left_out = [], []
    for name in request.what or ANALYSES:
        if name == CONNECTIVITY and not request.can_connect:
            left_out.append("No connectivity: it takes two or three networks.")
            continue
        try:
            _check(name, request, loaded)
        except InputError as error:
            if request.what is not None:
                raise InputError(f"{error} Or leave {name} out of `--what`.") from error
            left_out.append(f"No {name}: {with_option_names(str(error), _OPTIONS)}")
        else:
            wanted.append(name)
    return wanted, left_out


def _check(name: str, request: AnalyzeRequest, loaded: Loaded) -> None:
    """Refuse an analysis that these networks or windows do not allow, before any is done.

    Raises:
        InputError: so it is.
    """
    if name == CONNECTIVITY:
        from mexit_edge.analysis.connectivity import connectable

        connectable(loaded.models)
    elif name == INFORMATION:
        from mexit_edge.analysis.information import fittable

        if loaded.judging is None:
            raise InputError(
                "`windows` must hold windows of two subjects at least: probes are judged on others than they "
                f"are fitted on. Received: subject {loaded.windows.subjects[0]} alone. "
                "Add windows of others, or `subject` to the file."
            )
        fittable(loaded.probed, seed=request.seed)


def _analyze(
    request: AnalyzeRequest, loaded: Loaded, wanted: Sequence[str], progress: JobProgress
) -> Analyses:
    from mexit_edge import analysis
    from mexit_edge.report.analysis_sections import Analyses

    windows, seed = loaded.windows, request.seed
    probes: Any = loaded.probed, loaded.judging

    def each(name: str, what: Callable[[Any], Any]) -> tuple[Any, ...]:
        if name not in wanted:
            return ()
        found = []
        for network, model in zip(request.names, loaded.models, strict=True):
            with progress.step(f"{name.capitalize()} of {network}"):
                found.append(what(model))
        return tuple(found)

    gradients = each(GRADIENTS, partial(analysis.gradient_dominance, windows=windows, seed=seed))
    connectivity = landscape = None
    if CONNECTIVITY in wanted:
        with progress.step(f"Connectivity of {', '.join(request.names)}"):
            connectivity = analysis.mode_connectivity(loaded.models, windows, names=request.names, seed=seed)
    if LANDSCAPE in wanted:
        with progress.step(f"Landscape around {request.names[-1]}"):
            landscape = analysis.loss_landscape(loaded.models[-1], windows, seed=seed)
    return Analyses(
        names=request.names,
        gradients=gradients,
        connectivity=connectivity,
        landscape=landscape,
        rank=each(RANK, partial(analysis.numerical_rank, windows=windows, seed=seed)),
        information=each(INFORMATION, lambda model: analysis.information_flow(model, *probes, seed=seed)),
    )


def _tables(found: Analyses) -> Iterator[tuple[str, Rows]]:
    """Yield name and rows of every analysis that was done."""
    of_each: tuple[tuple[str, Sequence[Any]], ...] = (
        (GRADIENTS, found.gradients),
        (RANK, found.rank),
        (INFORMATION, found.information),
    )
    for name, results in of_each:
        if results:
            yield (
                name,
                [
                    {"network": network, **row}
                    for network, result in zip(found.names, results, strict=True)
                    for row in result.rows()
                ],
            )
    if found.connectivity is not None:
        yield CONNECTIVITY, found.connectivity.rows()
    if found.landscape is not None:
        yield LANDSCAPE, [{"network": found.names[-1], **row} for row in found.landscape.rows()]


def _write(
    request: AnalyzeRequest,
    loaded: Loaded,
    found: Analyses,
    tables: dict[str, Rows],
    left_out: Sequence[str],
) -> Path:
    """Write the folder, all or nothing, and return it."""
    from mexit_edge import __version__
    from mexit_edge.report.analysis_page import render_analysis_page

    conditions = {
        "networks": ", ".join(map(str, request.networks)),
        "windows": loaded.said,
        **({} if loaded.said_of_judging is None else {"probes": loaded.said_of_judging}),
        "seed": str(request.seed),
        "mexit_edge": __version__,
    }
    page = render_analysis_page(found, about=loaded.said, conditions=conditions, notes=left_out)
    # Much may have come to lie there since the work began: a free name is chosen anew.
    target = request.target
    refuse_foreign(target)
    with written_whole(target, overwrite=request.overwrite) as folder:
        folder.mkdir()
        for name, rows in tables.items():
            with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
                # A figure that is not defined is an empty cell.
                writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
        (folder / PAGE).write_text(page, encoding="utf-8")
    return target
