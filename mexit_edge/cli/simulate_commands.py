"""The options of `mexit simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mexit_edge.cli.options import DEFAULTS, KNOWN, AsJson, BundlePath, Overwrite, Seed

STREAMS = "Recordings"
DEVICE = "Device"
LOOP = "Loop"
FAULTS = "Faults"
OUTPUT = "Output"


def simulate(
    bundle: BundlePath,
    recordings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECORDING",
            help="Recordings to play: .csv, .npy, .npz, folders of such, or - for CSV on standard input.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help=f"Data set whose test subjects are taken (default: {DEFAULTS.data}). {KNOWN}"),
    ] = None,
    play: Annotated[
        bool,
        typer.Option("--play", help="Play the whole recordings of the data set's test subjects as streams."),
    ] = False,
    policy: Annotated[
        Path | None,
        typer.Option(help="Policy to use in place of the bundle's (`mexit calibrate --policy-out`)."),
    ] = None,
    seed: Seed = DEFAULTS.seed,
    as_json: AsJson = False,
    reorder: Annotated[
        bool,
        typer.Option("--reorder", help="Put channels into the bundle's order.", rich_help_panel=STREAMS),
    ] = False,
    convert: Annotated[
        bool, typer.Option("--convert", help="Convert units into the bundle's.", rich_help_panel=STREAMS)
    ] = False,
    resample: Annotated[
        bool, typer.Option("--resample", help="Resample to the bundle's rate.", rich_help_panel=STREAMS)
    ] = False,
    sampling_rate_hz: Annotated[
        float | None,
        typer.Option(help="Of the files (default: what they say).", rich_help_panel=STREAMS),
    ] = None,
    limit_s: Annotated[
        float | None,
        typer.Option(help="Play only the first seconds of each recording.", rich_help_panel=STREAMS),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            metavar="NAME_OR_FILE",
            help=f"Device to estimate for; for streams also none, for no times. {KNOWN}",
            rich_help_panel=DEVICE,
        ),
    ] = DEFAULTS.device,
    stack: Annotated[
        str | None,
        typer.Option(
            help=f"Kernel library, by name or family (default: the device's first). {KNOWN}",
            rich_help_panel=DEVICE,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help=f"Engine that executes the stages (default: the one that stands for the device). {KNOWN}",
            rich_help_panel=DEVICE,
        ),
    ] = None,
    rest: Annotated[
        str | None,
        typer.Option(metavar="[idle|sleep]", help="Between windows (default: idle).", rich_help_panel=DEVICE),
    ] = None,
    sensor_mw: Annotated[
        float | None, typer.Option(help="Drawn by the sensor all the time.", rich_help_panel=DEVICE)
    ] = None,
    supply_v: Annotated[
        float | None,
        typer.Option(help="Supply (default: the one its powers hold at).", rich_help_panel=DEVICE),
    ] = None,
    battery_mah: Annotated[
        float | None, typer.Option(help="Capacity, for days of battery life.", rich_help_panel=DEVICE)
    ] = None,
    battery_v: Annotated[
        float | None,
        typer.Option(
            help="Nominal voltage (default: 3.0 for a supply of up to 3.0, else 3.7).", rich_help_panel=DEVICE
        ),
    ] = None,
    temporal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE:NAME=VALUE,...",
            help="Rule over decisions, e.g. majority:n=5; may come several times, in order; none for none "
            "(default: the bundle's).",
            rich_help_panel=LOOP,
        ),
    ] = None,
    no_controller: Annotated[
        bool,
        typer.Option(
            "--no-controller",
            help="Keep the policy's thresholds where the bundle has a controller.",
            rich_help_panel=LOOP,
        ),
    ] = False,
    waiting: Annotated[
        int | None,
        typer.Option(help="Windows that may wait for the processor (default: 1).", rich_help_panel=LOOP),
    ] = None,
    max_fill: Annotated[
        int | None,
        typer.Option(
            help="Missing samples in a row that hold the last value (default: 3).", rich_help_panel=LOOP
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Windows played at a time (default: 2048, fewer with --watch); changes no result.",
            rich_help_panel=LOOP,
        ),
    ] = None,
    executed: Annotated[
        bool,
        typer.Option(
            "--executed",
            help="Invoke stage after stage, window after window: slow, with the same result.",
            rich_help_panel=LOOP,
        ),
    ] = False,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=...",
            help="dropped=2%, late=0.05,delay_ms=200, nan=0.01, stuck=acc_x,from_s=10,for_s=5, "
            f"saturated=4, wrong_axis=acc or clock_drift=200ppm; may come several times. {KNOWN}",
            rich_help_panel=FAULTS,
        ),
    ] = None,
    brown_out: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE[,after=K]",
            help="Lose the supply in a share of the windows, after stage K (default: drawn); also boot_ms=, "
            "damaged=.",
            rich_help_panel=FAULTS,
        ),
    ] = None,
    fault_seed: Annotated[
        int, typer.Option(min=0, help="Of what faults and brown-outs draw.", rich_help_panel=FAULTS)
    ] = 0,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the loop as it goes.", rich_help_panel=OUTPUT)
    ] = False,
    speed: Annotated[
        float | None,
        typer.Option(
            help="With --watch: times real time, 1 for real time (default: as fast as it comes).",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write: windows.csv, summary.json and page.html.", rich_help_panel=OUTPUT
        ),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="HTML page to write, of one file.", rich_help_panel=OUTPUT)
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="CSV to write, a row per window.", rich_help_panel=OUTPUT)
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Picture of exits over time to write, .png or .svg.", rich_help_panel=OUTPUT),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Run a bundle on a data set's test windows; or play recordings through it as a device would.

    Without RECORDING or --play, a data set's windows are run one by one, without time and queue.
    """
    from mexit_edge.cli.estimate_request import EnergyRequest
    from mexit_edge.cli.simulate import simulate_and_print
    from mexit_edge.cli.simulate_request import (
        DeviceRequest,
        LoopRequest,
        OutputRequest,
        RecordingsRequest,
        SimulateRequest,
    )

    request = SimulateRequest(
        recordings=RecordingsRequest(
            paths=tuple(recordings or ()),
            play=play,
            data=data,
            seed=seed,
            reorder=reorder,
            convert=convert,
            resample=resample,
            sampling_rate_hz=sampling_rate_hz,
            limit_s=limit_s,
        ),
        target=DeviceRequest(
            device=device,
            stack=stack,
            engine=engine,
            energy=EnergyRequest(None, rest, sensor_mw, supply_v, battery_mah, battery_v),
        ),
        loop=LoopRequest(
            temporal=tuple(temporal or ()),
            no_controller=no_controller,
            fault=tuple(fault or ()),
            fault_seed=fault_seed,
            brown_out=brown_out,
            waiting=waiting,
            max_fill=max_fill,
            batch=batch,
            executed=executed,
        ),
        output=OutputRequest(
            out=out,
            page=page,
            csv=csv,
            figure=figure,
            overwrite=overwrite,
            as_json=as_json,
            watch=watch,
            speed=speed,
        ),
        policy=policy,
    )
    simulate_and_print(bundle, request)
