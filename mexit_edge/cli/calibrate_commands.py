"""The options of `mexit calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mexit_edge.cli.options import DEFAULTS, KNOWN, AsJson, BundlePath, Overwrite, Seed

GOAL = "Goal (one of)"
RISK = "Risk (with --eps)"
SCORE = "Score"
COST = "Cost"
STREAM = "Streams"


def calibrate(
    bundle: BundlePath,
    data: Annotated[
        str | None,
        typer.Option(
            help=f"Data set whose calibration subjects are taken (default: {DEFAULTS.data}). {KNOWN}"
        ),
    ] = None,
    windows: Annotated[
        Path | None,
        typer.Option(
            help="Windows of one's own instead: .npz of raw x (n, time, channels), labels y (n,) and, if "
            "known, subject (n,)."
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Least cost, losing at most this share of balanced accuracy, held on the upper 90 % bound "
            f"(default: {DEFAULTS.max_drop}).",
            rich_help_panel=GOAL,
        ),
    ] = None,
    floor: Annotated[
        float | None,
        typer.Option(help="Least cost above this balanced accuracy.", rich_help_panel=GOAL),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Best balanced accuracy within this mean cost.", rich_help_panel=GOAL),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(
            help="Shares of windows that change by this factor from exit to exit.", rich_help_panel=GOAL
        ),
    ] = None,
    eps: Annotated[
        float | None,
        typer.Option(help="Risk against the final exit of at most this share.", rich_help_panel=GOAL),
    ] = None,
    thresholds: Annotated[
        str | None,
        typer.Option(
            metavar="EXIT=VALUE,...",
            help="Set by hand: integers are steps of the score, decimals its own unit.",
            rich_help_panel=GOAL,
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help=f"crc holds it in the mean, ucb and ltt for most sets. {KNOWN}", rich_help_panel=RISK
        ),
    ] = "ucb",
    loss: Annotated[
        str, typer.Option(help=f"What is lost. {KNOWN}", rich_help_panel=RISK)
    ] = "performance_gap",
    delta: Annotated[
        float, typer.Option(help="Share of calibration sets that may miss it.", rich_help_panel=RISK)
    ] = 0.1,
    unit: Annotated[
        str, typer.Option(metavar="[window|subject]", help="What is exchangeable.", rich_help_panel=RISK)
    ] = "window",
    score: Annotated[str, typer.Option(help=KNOWN, rich_help_panel=SCORE)] = "logit_margin",
    score_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Of the score; may come several times.", rich_help_panel=SCORE
        ),
    ] = None,
    off: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXIT", help="Exit to switch off; may come several times.", rich_help_panel=SCORE
        ),
    ] = None,
    temperatures: Annotated[
        bool, typer.Option("--temperatures", help="Fit a temperature per exit first.", rich_help_panel=SCORE)
    ] = False,
    cost: Annotated[
        str | None,
        typer.Option(
            help=f"Of a window (default: latency_ms with --device, else macs). {KNOWN}", rich_help_panel=COST
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME_OR_FILE", help=f"Device to estimate the cost on. {KNOWN}", rich_help_panel=COST
        ),
    ] = None,
    temporal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE:NAME=VALUE,...",
            help="Rule over decisions, e.g. majority:n=5; may come several times, in order.",
            rich_help_panel=STREAM,
        ),
    ] = None,
    online_budget: Annotated[
        float | None,
        typer.Option(
            help="Mean cost that a controller holds while the stream drifts.", rich_help_panel=STREAM
        ),
    ] = None,
    online_horizon: Annotated[
        int | None,
        typer.Option(
            min=1, help="Windows over which it is to hold (default: those of a day).", rich_help_panel=STREAM
        ),
    ] = None,
    seed: Seed = DEFAULTS.seed,
    out: Annotated[
        Path | None, typer.Option(help="Bundle to write (default: a new name, NAME-calibrated.mexit).")
    ] = None,
    policy_out: Annotated[
        Path | None, typer.Option(help="Write the policy alone, as JSON, in place of a bundle.")
    ] = None,
    curve: Annotated[
        Path | None, typer.Option(help="CSV to write: quality over cost for 39 shares of windows.")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Picture of that curve to write, .png or .svg.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Set a bundle's thresholds on calibration subjects: for a loss, a floor, a budget or a risk."""
    from mexit_edge.cli.calibrate import calibrate_and_print
    from mexit_edge.cli.calibrate_request import CalibrateRequest

    request = CalibrateRequest(
        data=data,
        windows=windows,
        seed=seed,
        goals={
            "max-drop": max_drop,
            "floor": floor,
            "budget": budget,
            "ratio": ratio,
            "eps": eps,
            "thresholds": thresholds,
        },
        risk={"method": method, "loss": loss, "delta": delta, "unit": unit},
        score=score,
        score_options=score_option or (),
        off=off or (),
        tempered=temperatures,
        cost=cost,
        device=device,
        temporal=temporal or (),
        online_budget=online_budget,
        online_horizon=online_horizon,
        out=out,
        policy_out=policy_out,
        curve=curve,
        figure=figure,
        overwrite=overwrite,
    )
    calibrate_and_print(bundle, request, as_json=as_json)
