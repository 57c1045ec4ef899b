"""The options of `mexit analyze`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mexit_edge.cli.options import DEFAULTS, KNOWN, AsJson, OwnWindows, TrainedOn
from mexit_edge.cli.settings import MAX_SEED


def analyze(
    networks: Annotated[
        list[Path],
        typer.Argument(
            metavar="NETWORK.keras",
            help="Multi-exit networks of one structure: one alone; checkpoints in order; or two or three "
            "trainings, between which connectivity is looked at too.",
        ),
    ],
    data: TrainedOn = None,
    windows: OwnWindows = None,
    what: Annotated[
        str | None,
        typer.Option(
            help="Analyses, with commas: gradients, rank and information are of every network, landscape of "
            f"the last one, connectivity between two or three (default: all that fit). {KNOWN}"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write: a CSV per analysis and page.html (default: a new one in runs/)."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier analysis of that name.")] = False,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_SEED,
            help="Of all draws, and of a data set's split where the network knows no subjects.",
        ),
    ] = DEFAULTS.seed,
    as_json: AsJson = False,
) -> None:
    """Look into trained networks: gradients of exits, ways between networks, landscape, rank, information.

    Windows: of the subjects that the networks were trained on, where networks and file know them.

    Else of the training subjects of the split of --seed, or all of the file.
    """
    from mexit_edge.cli.analyze import analyze_and_print
    from mexit_edge.cli.analyze_request import AnalyzeRequest
    from mexit_edge.cli.training_windows import WindowsSource

    request = AnalyzeRequest(
        networks=tuple(networks),
        source=WindowsSource(data=data, windows=windows, seed=seed),
        what=None if what is None else tuple(name.strip() for name in what.split(",")),
        out=out,
        overwrite=overwrite,
        seed=seed,
    )
    analyze_and_print(request, as_json=as_json)
