"""The options of `mexit bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mexit_edge.cli.options import DEFAULTS, KNOWN, AsJson
from mexit_edge.cli.settings import MAX_SEED

SWEEP = "Sweep (without a file)"
WHERE = "Where it runs"
# Nobody runs as many; a slip of the keyboard is refused before it is counted out.
MOST_SEEDS = 1000


def bench(
    sweep: Annotated[
        Path | None,
        typer.Argument(help="A sweep in TOML (docs/bench.md); without, the options below make one."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the sweep; one that was broken off goes on (default: a new name in runs/)."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Data set, or a .npz of windows; may come several times "
            f"(default: {DEFAULTS.data}). {KNOWN}",
            rich_help_panel=SWEEP,
        ),
    ] = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Network, or NETWORK/PRESET; may come several times (default: cnn/medium). {KNOWN}",
            rich_help_panel=SWEEP,
        ),
    ] = None,
    regime: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Training regime; may come several times (default: all). {KNOWN}", rich_help_panel=SWEEP
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_SEEDS, help="Seeds 0, 1, ... (default: 3).", rich_help_panel=SWEEP),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Over all phases (default: 30).", rich_help_panel=SWEEP)
    ] = None,
    equal_cost: Annotated[
        bool,
        typer.Option(
            "--equal-cost",
            help="The epochs are those of joint; others get as many as cost the same.",
            rich_help_panel=SWEEP,
        ),
    ] = False,
    out_of_fold: Annotated[
        bool,
        typer.Option(
            "--out-of-fold",
            help="Judge training subjects fold by fold, and leave the test subjects alone.",
            rich_help_panel=SWEEP,
        ),
    ] = False,
    split_seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MAX_SEED,
            help="Draws test subjects where the data names none: the same out of fold and for the test "
            "(default: the seed of the run).",
            rich_help_panel=SWEEP,
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A few epochs on a few windows: to try it out.", rich_help_panel=SWEEP),
    ] = False,
    backend: Annotated[str, typer.Option(help="local, dask or ray.", rich_help_panel=WHERE)] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs at once, a thread each (default: one per core, or all of a cluster).",
            rich_help_panel=WHERE,
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Of a running Dask scheduler or Ray head (default: a cluster on this machine).",
            rich_help_panel=WHERE,
        ),
    ] = None,
    test_log: Annotated[
        Path | None,
        typer.Option(
            help="CSV that lists every run that was judged on test subjects (default: in the folder)."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare training regimes: data x networks x regimes x seeds, resumable, with a CSV and a page."""
    from mexit_edge.cli.bench import BenchRequest, bench_and_print

    given = {
        "data": data,
        "backbone": backbone,
        "regime": regime,
        "seeds": seeds,
        "epochs": epochs,
        "equal-cost": equal_cost or None,
        "out-of-fold": out_of_fold or None,
        "split-seed": split_seed,
        "quick": quick or None,
    }
    request = BenchRequest(
        sweep=sweep,
        options={name: value for name, value in given.items() if value is not None},
        out=out,
        backend=backend,
        workers=workers,
        address=address,
        test_log=test_log,
    )
    bench_and_print(request, as_json=as_json)
