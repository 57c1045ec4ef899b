"""The options of the commands on devices: `mexit estimate` and `mexit devices`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mexit_edge.cli.options import KNOWN, AsJson

PERIOD = "Energy of a period"


def estimate(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL_OR_BUNDLE",
            help="Any int8 model (.tflite), or a bundle (folder NAME.mexit or .zip).",
        ),
    ],
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME_OR_FILE",
            help=f"Device that `mexit devices` lists, an Ethos-U, or a device file of one's own "
            f"(.toml; default: nucleo-l4r5zi). {KNOWN}",
        ),
    ] = None,
    stack: Annotated[
        str | None,
        typer.Option(help=f"Kernel library, by name or family (default: the device's first). {KNOWN}"),
    ] = None,
    exit_shares: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE,...",
            help="Shares of windows that leave at each exit, with sum 1 (default: those that the bundle "
            "states of its policy).",
        ),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Every device, fastest first; one in detail as well with --device, --explain or --figure.",
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Cycles by term and by operator, and the source of every figure."),
    ] = False,
    extrapolate: Annotated[
        bool,
        typer.Option("--extrapolate", help="Take a stack without data on the device from other boards."),
    ] = False,
    price: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=CYCLES",
            help="Cycles per run of an operator without a rule; may come several times.",
        ),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Picture to write, .png or .svg: latency per stage, cycles by term.")
    ] = None,
    period_ms: Annotated[
        float | None,
        typer.Option(
            help="From one inference to the next (default: a bundle's sensor's, hop / sampling rate).",
            rich_help_panel=PERIOD,
        ),
    ] = None,
    rest: Annotated[
        str | None,
        typer.Option(
            metavar="[idle|sleep]", help="Between inferences (default: idle).", rich_help_panel=PERIOD
        ),
    ] = None,
    sensor_mw: Annotated[
        float | None, typer.Option(help="Drawn by the sensor all the time.", rich_help_panel=PERIOD)
    ] = None,
    supply_v: Annotated[
        float | None,
        typer.Option(help="Supply (default: the one its powers hold at).", rich_help_panel=PERIOD),
    ] = None,
    battery_mah: Annotated[
        float | None, typer.Option(help="Capacity, for days of battery life.", rich_help_panel=PERIOD)
    ] = None,
    battery_v: Annotated[
        float | None,
        typer.Option(
            help="Nominal voltage (default: 3.0 for a supply of up to 3.0, else 3.7).", rich_help_panel=PERIOD
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate latency, energy and memory on a device, stage by stage, and say how sure that is."""
    from mexit_edge.cli.estimate import estimate_and_print
    from mexit_edge.cli.estimate_request import EnergyRequest, EstimateRequest

    request = EstimateRequest(
        device=device,
        stack=stack,
        extrapolate=extrapolate,
        price=price or (),
        exit_shares=exit_shares,
        energy=EnergyRequest(period_ms, rest, sensor_mw, supply_v, battery_mah, battery_v),
        compare=compare,
        explain=explain,
        figure=figure,
    )
    estimate_and_print(path, request, as_json=as_json)


def devices(
    name: Annotated[
        str | None, typer.Argument(help="Device, or device file (.toml), to print every figure of.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the devices and what is known of them; or every figure of one, with status and source."""
    from mexit_edge.cli.devices import devices_and_print

    devices_and_print(name, as_json=as_json)
