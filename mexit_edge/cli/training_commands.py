"""The options of `mexit run` and `mexit train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mexit_edge.cli.options import (
    DEFAULTS,
    AsJson,
    Backbone,
    BatchSize,
    ClipNorm,
    CrossFit,
    Data,
    Device,
    Epochs,
    InputLimit,
    LearningRate,
    Overwrite,
    Patience,
    Preset,
    Qat,
    QatShare,
    Quick,
    Regime,
    Seed,
    SetOption,
)
from mexit_edge.cli.settings import BUNDLES, RUNS, RunSettings, TrainSettings, parse_options
from mexit_edge.errors import InputError


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
    overwrite: Overwrite = DEFAULTS.overwrite,
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
    input_limit: InputLimit = DEFAULTS.input_limit,
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
        input_limit=input_limit,
    )
    run_and_print(settings, as_json=as_json)


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
