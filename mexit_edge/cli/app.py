"""The commands of `mexit` and their options; what they do stands in one file per verb."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from mexit_edge.cli.settings import (
    BATCH_SIZE,
    BUNDLES,
    EPOCHS,
    MAX_SEED,
    QUICK_BATCH_SIZE,
    QUICK_EPOCHS,
    RUNS,
    RunSettings,
    TrainSettings,
    parse_options,
)
from mexit_edge.errors import InputError

EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130

app = typer.Typer(
    help=(
        "Multi-exit networks for sensor recordings: train, quantize to int8, cut into stages, and run on a "
        "device that stops computing as soon as it is sure."
    ),
    epilog="Exit codes: 0 done, 1 failed at run time, 2 the input is wrong, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

KNOWN = "An unknown name lists the known ones."
DEFAULTS = RunSettings()
TRAINING = "Training"

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Engine = Annotated[
    str | None,
    typer.Option(
        help=f"Engine that executes the stages (default: the one that stands for the device). {KNOWN}"
    ),
]
Data = Annotated[str, typer.Option(help=f"Data set. {KNOWN}")]
Device = Annotated[str, typer.Option(help=f"Device to estimate for. {KNOWN}")]
Seed = Annotated[
    int, typer.Option(min=0, max=MAX_SEED, help="Of the split, the weights and the perturbations.")
]

Command = Callable[..., None]


def guarded(command: Command) -> Command:
    """Turn what a command raises into a message on standard error and an exit code."""

    @functools.wraps(command)
    def run_guarded(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except InputError as error:
            _stop(f"Error: {error}", EXIT_INPUT)
        except KeyboardInterrupt:
            _stop("Interrupted. What was there before is still whole.", EXIT_INTERRUPTED)
        except typer.Exit:
            raise
        except Exception as error:
            if os.environ.get("MEXIT_DEBUG"):
                raise
            _stop(f"Failed: {type(error).__name__}: {error}\nSet MEXIT_DEBUG=1 for details.", EXIT_FAILED)

    return run_guarded


def _stop(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)


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


Backbone = Annotated[str, typer.Option(help=f"Network. {KNOWN}")]
Regime = Annotated[str, typer.Option(help=f"Training regime. {KNOWN}")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Option of the regime, e.g. weak=hard; may come several times."
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help=f"Epochs over all phases (default: {EPOCHS}, with --quick {QUICK_EPOCHS}).",
        rich_help_panel=TRAINING,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help=f"Windows per step (default: {BATCH_SIZE}, with --quick {QUICK_BATCH_SIZE}).",
        rich_help_panel=TRAINING,
    ),
]
LearningRate = Annotated[
    float,
    typer.Option(help="At the start of every phase; falls to 0 along a cosine.", rich_help_panel=TRAINING),
]
ClipNorm = Annotated[
    float | None,
    typer.Option(help="Largest norm of the gradient (default: no limit).", rich_help_panel=TRAINING),
]
Patience = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Epochs without an improvement of any exit that end a phase (default: train all epochs).",
        rich_help_panel=TRAINING,
    ),
]
CrossFit = Annotated[
    int | None,
    typer.Option(
        min=2,
        metavar="K",
        help="Choose epochs and thresholds by K folds over all training subjects, then train on all of them.",
        rich_help_panel=TRAINING,
    ),
]
Quick = Annotated[bool, typer.Option(help="A short training on a quarter of the windows.")]


@app.command(epilog="Example: mexit run --data hapt --regime consistency --set weak=hard --seed 1")
@guarded
def run(
    data: Data = DEFAULTS.data,
    backbone: Backbone = DEFAULTS.backbone,
    regime: Regime = DEFAULTS.regime,
    options: SetOption = None,
    device: Device = DEFAULTS.device,
    seed: Seed = DEFAULTS.seed,
    max_drop: Annotated[
        float, typer.Option(help="Largest loss of balanced accuracy against the final exit; 0.01 is a point.")
    ] = DEFAULTS.max_drop,
    out: Annotated[
        Path | None, typer.Option(help=f"Bundle to write (default: a new name in {BUNDLES}/).")
    ] = DEFAULTS.out,
    overwrite: Annotated[
        bool, typer.Option(help="Replace an existing bundle of that name.")
    ] = DEFAULTS.overwrite,
    as_json: AsJson = False,
    quick: Quick = DEFAULTS.quick,
    epochs: Epochs = DEFAULTS.epochs,
    batch_size: BatchSize = DEFAULTS.batch,
    learning_rate: LearningRate = DEFAULTS.learning_rate,
    clip_norm: ClipNorm = DEFAULTS.clip_norm,
    patience: Patience = DEFAULTS.patience,
    cross_fit: CrossFit = DEFAULTS.cross_fit,
) -> None:
    """Do the whole job: recordings, training, int8 stages, thresholds, test, estimates, page."""
    from mexit_edge.cli.run import run_and_print

    settings = RunSettings(
        data=data,
        backbone=backbone,
        regime=regime,
        options=parse_options(options or []),
        epochs=epochs,
        batch=batch_size,
        learning_rate=learning_rate,
        clip_norm=clip_norm,
        patience=patience,
        cross_fit=cross_fit,
        seed=seed,
        out=out,
        overwrite=overwrite,
        quick=quick,
        device=device,
        max_drop=max_drop,
    )
    run_and_print(settings, as_json=as_json)


@app.command(epilog="Example: mexit train --data hapt --regime mixed --set 'shares=[1,2]' --epochs 60")
@guarded
def train(
    context: typer.Context,
    data: Data = DEFAULTS.data,
    backbone: Backbone = DEFAULTS.backbone,
    regime: Regime = DEFAULTS.regime,
    options: SetOption = None,
    seed: Seed = DEFAULTS.seed,
    out: Annotated[
        Path | None, typer.Option(help=f"Folder to write (default: a new name in {RUNS}/).")
    ] = DEFAULTS.out,
    resume: Annotated[
        Path | None, typer.Option(help="Folder of an interrupted training to go on with; all else is known.")
    ] = None,
    as_json: AsJson = False,
    quick: Quick = DEFAULTS.quick,
    epochs: Epochs = DEFAULTS.epochs,
    batch_size: BatchSize = DEFAULTS.batch,
    learning_rate: LearningRate = DEFAULTS.learning_rate,
    clip_norm: ClipNorm = DEFAULTS.clip_norm,
    patience: Patience = DEFAULTS.patience,
    cross_fit: CrossFit = DEFAULTS.cross_fit,
) -> None:
    """Train a network; an interrupted training goes on with --resume."""
    from mexit_edge.cli.train import train_and_print

    if resume is not None:
        _refuse_others(context, ("resume", "as_json"))
    settings = TrainSettings(
        data=data,
        backbone=backbone,
        regime=regime,
        options=parse_options(options or []),
        epochs=epochs,
        batch=batch_size,
        learning_rate=learning_rate,
        clip_norm=clip_norm,
        patience=patience,
        cross_fit=cross_fit,
        seed=seed,
        out=out,
        quick=quick,
    )
    train_and_print(settings, resume, as_json=as_json)


def _refuse_others(context: typer.Context, allowed: tuple[str, ...]) -> None:
    """Refuse options on the command line other than these."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in allowed and source is not None and source.name == "COMMANDLINE":
            raise InputError(
                f"`--{name.replace('_', '-')}` must be left out with `--resume`: the folder knows the "
                f"training. Received: {context.params[name]}."
            )


@app.command(epilog="Example: mexit simulate tflite_models/reference.mexit --data hapt --engine tflm")
@guarded
def simulate(
    bundle: Annotated[Path, typer.Argument(help="A bundle: folder NAME.mexit or .zip.")],
    data: Data = DEFAULTS.data,
    engine: Engine = None,
    device: Device = DEFAULTS.device,
    seed: Seed = DEFAULTS.seed,
    as_json: AsJson = False,
) -> None:
    """Execute a bundle's stages on a data set's test subjects."""
    from mexit_edge.cli.simulate import simulate_and_print

    simulate_and_print(bundle, data, engine, device, seed, as_json=as_json)


@app.command(epilog="Example: mexit inspect tflite_models/reference.mexit")
@guarded
def inspect(
    bundle: Annotated[Path, typer.Argument(help="A bundle: folder NAME.mexit or .zip.")],
    as_json: AsJson = False,
) -> None:
    """Check a bundle's files against its manifest and its golden vectors, and print its stages."""
    from mexit_edge.cli.inspect import inspect_and_print

    inspect_and_print(bundle, as_json=as_json)


def main() -> None:
    """Run the command line and exit with its code."""
    # TensorFlow's own notices would drown the progress; errors stay.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    app()
