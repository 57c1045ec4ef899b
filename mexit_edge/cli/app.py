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
    ROUNDING_STEPS,
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
Preset = Annotated[
    str, typer.Option(help=f"Size of the network; `mexit models` prints what each costs. {KNOWN}")
]
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
Qat = Annotated[
    bool,
    typer.Option(
        "--qat", help="Fine-tune the trained network with fake quantization.", rich_help_panel=TRAINING
    ),
]
QatShare = Annotated[
    float,
    typer.Option(help="Epochs of fine-tuning, as a share of --epochs.", rich_help_panel=TRAINING),
]
Quick = Annotated[bool, typer.Option(help="A short training on a quarter of the windows.")]


@app.command(epilog="Example: mexit run --data hapt --regime consistency --set weak=hard --seed 1")
@guarded
def run(
    data: Data = DEFAULTS.data,
    backbone: Backbone = DEFAULTS.backbone,
    preset: Preset = DEFAULTS.preset,
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
    qat: Qat = DEFAULTS.qat,
    qat_share: QatShare = DEFAULTS.qat_share,
) -> None:
    """Do the whole job: recordings, training, int8 stages, thresholds, test, estimates, page."""
    from mexit_edge.cli.run import run_and_print

    settings = RunSettings(
        data=data,
        backbone=backbone,
        preset=preset,
        regime=regime,
        options=parse_options(options or []),
        epochs=epochs,
        batch=batch_size,
        learning_rate=learning_rate,
        clip_norm=clip_norm,
        patience=patience,
        cross_fit=cross_fit,
        qat=qat,
        qat_share=qat_share,
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
    preset: Preset = DEFAULTS.preset,
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
    qat: Qat = DEFAULTS.qat,
    qat_share: QatShare = DEFAULTS.qat_share,
) -> None:
    """Train a network; an interrupted training goes on with --resume."""
    from mexit_edge.cli.train import train_and_print

    if resume is not None:
        _refuse_others(context, ("resume", "as_json"))
    settings = TrainSettings(
        data=data,
        backbone=backbone,
        preset=preset,
        regime=regime,
        options=parse_options(options or []),
        epochs=epochs,
        batch=batch_size,
        learning_rate=learning_rate,
        clip_norm=clip_norm,
        patience=patience,
        cross_fit=cross_fit,
        qat=qat,
        qat_share=qat_share,
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


@app.command(epilog="Example: mexit inspect tflite_models/reference.mexit --svg stages.svg")
@guarded
def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            help="A bundle (folder NAME.mexit or .zip), a Keras network (.keras), any model (.tflite), or a "
            "folder that `mexit cut` wrote."
        ),
    ],
    svg: Annotated[Path | None, typer.Option(help="File to draw a bundle's stages into.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a bundle against its golden vectors and draw its stages; or list a file's layers or operators."""
    from mexit_edge.cli.inspect import inspect_and_print

    inspect_and_print(path, as_json=as_json, svg=svg)


@app.command(epilog="Example: mexit verify tflite_models/reference.mexit --data hapt --limit 2000")
@guarded
def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle: folder NAME.mexit or .zip.")],
    data: Annotated[
        str | None, typer.Option(help=f"Data set whose test subjects are run too. {KNOWN}")
    ] = None,
    windows: Annotated[
        Path | None, typer.Option(help="A .npy or .npz of raw windows to run too: int16 counts or float.")
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(help=f"Engine to compare; may come several times (default: all). {KNOWN}"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most windows to run of the recording, evenly spaced.")
    ] = None,
    within: Annotated[
        int, typer.Option(min=0, help="int8 steps from turning, up to which a decision differs by rounding.")
    ] = ROUNDING_STEPS,
    as_json: AsJson = False,
) -> None:
    """Run a bundle on every engine, and say where tensors and decisions differ from the device's."""
    from mexit_edge.cli.verify import verify_and_print

    verify_and_print(
        bundle,
        data=data,
        windows=windows,
        engines=engine or [],
        limit=limit,
        within=within,
        as_json=as_json,
    )


@app.command(epilog="Example: mexit models --backbone tcn --window 200 --channels 3 --classes 5")
@guarded
def models(
    data: Annotated[
        str | None, typer.Option(help=f"Measure anew for the windows of this data set. {KNOWN}")
    ] = None,
    window: Annotated[int | None, typer.Option(min=1, help="Measure anew: samples per window.")] = None,
    channels: Annotated[int | None, typer.Option(min=1, help="Measure anew: channels per sample.")] = None,
    classes: Annotated[int | None, typer.Option(min=2, help="Measure anew: number of classes.")] = None,
    backbone: Annotated[str | None, typer.Option(help=f"Only this network. {KNOWN}")] = None,
    preset: Annotated[str | None, typer.Option(help=f"Only this size. {KNOWN}")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what every network and size costs as int8 stages: parameters, MACs, bytes, arena."""
    from mexit_edge.cli.models import models_and_print

    models_and_print(data, (window, channels, classes), backbone, preset, as_json=as_json)


@app.command(epilog="Example: mexit cut model.tflite --into 3 --out stages")
@guarded
def cut(
    model: Annotated[Path, typer.Argument(help="Any .tflite with static shapes.")],
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TENSOR",
            help="Tensor that a stage ends with, by name or by index (--at 24); may come several times.",
        ),
    ] = None,
    into: Annotated[int | None, typer.Option(min=2, help="Number of stages of nearly equal MACs.")] = None,
    max_live: Annotated[
        int | None,
        typer.Option(min=1, help="Most tensors at a boundary, for --into and the list (default: 3)."),
    ] = None,
    exits: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Output that a stage ends with; may come several times."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write (default: a new name, MODEL_stages).")
    ] = None,
    keep_names: Annotated[
        bool, typer.Option("--keep-names", help="Keep tensor names, metadata and a signature, to debug.")
    ] = False,
    phone: Annotated[
        bool, typer.Option("--phone", help="Write phone.tflite too: all stages as signatures of one file.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Cut any .tflite into stages that compute the same; without --at, --into or --exits, list where."""
    from mexit_edge.cli.cut import CutRequest, cut_and_print

    request = CutRequest(at=at or (), into=into, exits=exits or (), max_live=max_live)
    cut_and_print(model, request, out, keep_names=keep_names, phone=phone, as_json=as_json)


TrainedOn = Annotated[
    str | None,
    typer.Option(help=f"Data set that the network was trained on (default: {DEFAULTS.data}). {KNOWN}"),
]
OwnWindows = Annotated[
    Path | None,
    typer.Option(
        help="Windows of one's own instead: .npz of raw x (n, time, channels), labels y (n,) and, if known, "
        "subject (n,)."
    ),
]
RangesSeed = Annotated[
    int,
    typer.Option(
        min=0,
        max=MAX_SEED,
        help="Of the choice of windows for ranges, and of a data set's split where the network knows no "
        "subjects.",
    ),
]


SavedNetwork = Annotated[
    Path, typer.Argument(help="A multi-exit network: .keras, as `mexit train` or Keras itself saves it.")
]


@app.command(epilog="Example: mexit export runs/hapt-joint/model.keras --data hapt --per-tensor")
@guarded
def export(
    network: SavedNetwork,
    data: TrainedOn = None,
    windows: OwnWindows = None,
    quantization: Annotated[
        str, typer.Option(help=f"Kind of numbers; any but int8 gives one .tflite. {KNOWN}")
    ] = "int8",
    io: Annotated[
        str | None,
        typer.Option(help=f"Type of inputs and outputs: float32, or that of the kind (default). {KNOWN}"),
    ] = None,
    per_tensor: Annotated[
        bool, typer.Option("--per-tensor", help="One scale per kernel instead of one per channel (int8).")
    ] = False,
    keep_names: Annotated[
        bool, typer.Option("--keep-names", help="Keep tensor names, metadata and signatures in the stages.")
    ] = False,
    phone: Annotated[
        bool, typer.Option("--phone", help="Put phone.tflite into the bundle: all stages in one file.")
    ] = False,
    seed: RangesSeed = DEFAULTS.seed,
    out: Annotated[
        Path | None, typer.Option(help=f"Bundle or .tflite to write (default: a new name in {BUNDLES}/).")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file or bundle of that name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Quantize a trained network: to a bundle of int8 stages without a policy, or to one .tflite."""
    from mexit_edge.cli.export import ExportSettings, export_and_print
    from mexit_edge.cli.training_windows import WindowsSource

    settings = ExportSettings(
        network=network,
        source=WindowsSource(data=data, windows=windows, seed=seed),
        quantization=quantization,
        io=io,
        per_channel=not per_tensor,
        keep_names=keep_names,
        phone=phone,
        seed=seed,
        out=out,
        overwrite=overwrite,
    )
    export_and_print(settings, as_json=as_json)


FineTuningEpochs = Annotated[int, typer.Option(min=1, help="Of the fine-tuning.")]
FineTuningSeed = Annotated[
    int,
    typer.Option(
        min=0,
        max=MAX_SEED,
        help="Of the fine-tuning, and of a data set's split where the network knows no subjects.",
    ),
]
FineTuningRate = Annotated[float, typer.Option(help="At the start of the fine-tuning.")]
KerasOut = Annotated[Path | None, typer.Option(help=".keras file to write (default: a new name here).")]
Overwrite = Annotated[bool, typer.Option(help="Replace an existing file of that name.")]


@app.command(epilog="Example: mexit prune runs/hapt-joint/model.keras --data hapt --sparsity 0.8")
@guarded
def prune(
    network: SavedNetwork,
    data: TrainedOn = None,
    windows: OwnWindows = None,
    sparsity: Annotated[float, typer.Option(help="Share of every kernel that becomes zero.")] = 0.5,
    epochs: FineTuningEpochs = 20,
    learning_rate: FineTuningRate = 1e-3,
    seed: FineTuningSeed = DEFAULTS.seed,
    out: KerasOut = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Set the smallest weights of a trained network to zero: a smaller file once it is compressed."""
    from mexit_edge.cli.compressing import CompressSettings
    from mexit_edge.cli.prune import prune_and_print
    from mexit_edge.cli.training_windows import WindowsSource

    settings = CompressSettings(
        network=network,
        source=WindowsSource(data=data, windows=windows, seed=seed),
        epochs=epochs,
        learning_rate=learning_rate,
        seed=seed,
        out=out,
        overwrite=overwrite,
    )
    prune_and_print(settings, sparsity, as_json=as_json)


@app.command(epilog="Example: mexit cluster runs/hapt-joint/model.keras --data hapt --clusters 16")
@guarded
def cluster(
    network: SavedNetwork,
    data: TrainedOn = None,
    windows: OwnWindows = None,
    clusters: Annotated[int, typer.Option(min=3, help="Largest number of distinct values per kernel.")] = 16,
    epochs: FineTuningEpochs = 3,
    learning_rate: FineTuningRate = 1e-3,
    seed: FineTuningSeed = DEFAULTS.seed,
    out: KerasOut = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Give every kernel of a trained network few distinct values: a smaller file once it is compressed."""
    from mexit_edge.cli.cluster import cluster_and_print
    from mexit_edge.cli.compressing import CompressSettings
    from mexit_edge.cli.training_windows import WindowsSource

    settings = CompressSettings(
        network=network,
        source=WindowsSource(data=data, windows=windows, seed=seed),
        epochs=epochs,
        learning_rate=learning_rate,
        seed=seed,
        out=out,
        overwrite=overwrite,
    )
    cluster_and_print(settings, clusters, as_json=as_json)


def main() -> None:
    """Run the command line and exit with its code."""
    # TensorFlow's own notices would drown the progress; errors stay.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    app()
