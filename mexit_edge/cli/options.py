"""The options that several commands of `mexit` share, and those of a training: one type each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mexit_edge.cli.settings import (
    BATCH_SIZE,
    EPOCHS,
    MAX_SEED,
    QUICK_BATCH_SIZE,
    QUICK_EPOCHS,
    RunSettings,
)

KNOWN = "An unknown name lists the known ones."
DEFAULTS = RunSettings()
TRAINING = "Training"

# Of many commands

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Data = Annotated[str, typer.Option(help=f"Data set. {KNOWN}")]
Device = Annotated[str, typer.Option(help=f"Device to estimate for. {KNOWN}")]
Seed = Annotated[
    int, typer.Option(min=0, max=MAX_SEED, help="Of the split, the weights and the perturbations.")
]
BundlePath = Annotated[Path, typer.Argument(help="A bundle: folder NAME.mexit or .zip.")]
Overwrite = Annotated[bool, typer.Option(help="Replace an existing file or bundle of that name.")]

# Of a training

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
InputLimit = Annotated[
    float | None,
    typer.Option(
        help="Where the inputs of integer models saturate at the latest, in standard deviations after "
        "normalisation, for example 4; not with --qat (default: the range of the windows observed)."
    ),
]
Quick = Annotated[bool, typer.Option(help="A short training on a quarter of the windows.")]

# Of a trained network

SavedNetwork = Annotated[
    Path, typer.Argument(help="A multi-exit network: .keras, as `mexit train` or Keras itself saves it.")
]
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

# Of a fine-tuning: `mexit prune`, `mexit cluster`, `mexit quantize-aware`

FineTuningEpochs = Annotated[int, typer.Option(min=1, help="Of the fine-tuning.")]
FineTuningRate = Annotated[float, typer.Option(help="At the start of the fine-tuning.")]
FineTuningSeed = Annotated[
    int,
    typer.Option(
        min=0,
        max=MAX_SEED,
        help="Of the fine-tuning, and of a data set's split where the network knows no subjects.",
    ),
]
KerasOut = Annotated[Path | None, typer.Option(help=".keras file to write (default: a new name here).")]
