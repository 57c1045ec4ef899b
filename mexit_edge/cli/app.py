"""The command line `mexit`: its commands in the order of the help.

Options stand in the modules `*_commands`, what a command does in a file per verb, imported when it is called.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mexit_edge.cli.analyze_commands import analyze
from mexit_edge.cli.bench_commands import bench
from mexit_edge.cli.bundle_commands import cut, inspect, verify
from mexit_edge.cli.calibrate_commands import calibrate
from mexit_edge.cli.device_commands import fit, probes
from mexit_edge.cli.estimate_commands import devices, estimate
from mexit_edge.cli.guarded import EXIT_CODES, Command, guarded
from mexit_edge.cli.network_commands import cluster, export, models, prune, quantize_aware
from mexit_edge.cli.simulate_commands import simulate
from mexit_edge.cli.training_commands import run, train

# Command -> its example.
COMMANDS: dict[Command, str] = {
    run: "mexit run --data hapt --regime consistency --set weak=hard --seed 1",
    train: "mexit train --data hapt --regime mixed --set 'shares=[1,2]' --epochs 60",
    bench: "mexit bench --data hapt --regime joint --regime mixed --seeds 3 --quick",
    analyze: "mexit analyze joint.keras mixed.keras --data hapt --what gradients,connectivity",
    calibrate: "mexit calibrate tflite_models/reference.mexit --floor 0.94 --device nucleo-u575zi",
    simulate: "mexit simulate tflite_models/reference.mexit walk.csv --fault dropped=2% --battery-mah 200",
    estimate: "mexit estimate tflite_models/reference.mexit --device nucleo-l4r5zi --battery-mah 200",
    devices: "mexit devices nucleo-l4r5zi",
    inspect: "mexit inspect tflite_models/reference.mexit --svg stages.svg",
    verify: "mexit verify tflite_models/reference.mexit --data hapt --limit 2000",
    models: "mexit models --backbone tcn --window 200 --channels 3 --classes 5",
    cut: "mexit cut model.tflite --into 3 --out stages",
    export: "mexit export runs/hapt-joint/model.keras --data hapt --per-tensor",
    prune: "mexit prune runs/hapt-joint/model.keras --data hapt --sparsity 0.8",
    cluster: "mexit cluster runs/hapt-joint/model.keras --data hapt --clusters 16",
    quantize_aware: "mexit quantize-aware runs/hapt-joint/model.keras --data hapt",
}
# Of `mexit device`: command -> its example.
DEVICE_COMMANDS: dict[Command, str] = {
    probes: "mexit device probes --out probes",
    fit: (
        "mexit device fit probes/measurements.csv --name my-board --core Cortex-M4F --clock-mhz 80 "
        "--stack tflm-cmsis-nn --flash-kib 1024 --ram-kib 256"
    ),
}

app = typer.Typer(
    help=(
        "Multi-exit networks for sensor recordings: train, quantize to int8, cut into stages, and run on a "
        "device that stops computing as soon as it is sure."
    ),
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command, example in COMMANDS.items():
    app.command(epilog=f"Example: {example}")(guarded(command))
device = typer.Typer(
    help="Make a device file for a board of your own.", epilog=EXIT_CODES, no_args_is_help=True
)
for command, example in DEVICE_COMMANDS.items():
    device.command(epilog=f"Example: {example}")(guarded(command))
app.add_typer(device, name="device")


def _print_version(wanted: bool) -> None:
    if wanted:
        from mexit_edge import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _mexit(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit with its code."""
    # TensorFlow's own notices would drown the progress; errors stay.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    app()
