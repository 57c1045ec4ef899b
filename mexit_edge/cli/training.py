"""The training of `mexit run` and `mexit train`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mexit_edge.cli.progress import EpochLines, JobProgress
from mexit_edge.cli.settings import (
    QUICK_STRIDE,
    RunSettings,
    TrainSettings,
    refuse_not_positive,
)
from mexit_edge.data import HeldOutTest, Split, dataset, hold_out_test, load, split_by_subject
from mexit_edge.errors import InputError, MissingExtraError
from mexit_edge.exits import balanced_accuracy
from mexit_edge.runtime import CaughtStderr
from mexit_edge.signals import Windows


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained Keras model with the figures of its epochs.

    Args:
        model: a `MultiExitModel`.
        history: figures per epoch.
        out_of_fold: what the fold networks say, with cross-fitting.
        before: the training of the float network, where this one is fine-tuned with fake quantization.
    """

    model: Any
    history: list[dict[str, float]]
    out_of_fold: Any | None = None
    before: Trained | None = None

    @property
    def float_model(self) -> Any:
        """The model that computes in float: this one, or the one before its fine-tuning."""
        return self.model if self.before is None else self.before.model

    @property
    def cost(self) -> list[dict[str, Any]]:
        """Training cost, a row per phase; the folds' phases first, and those of fine-tuning last."""
        folds = self.out_of_fold.costs if self.out_of_fold else ()
        rows = [
            {"training": f"fold_{number:02d}", **cost.to_dict()}
            for number, costs in enumerate(folds, start=1)
            for cost in costs
        ]
        name = "refit" if folds else "network"
        rows += [{"training": name, **cost.to_dict()} for cost in self.float_model.training_cost]
        tuning = () if self.before is None else self.model.training_cost
        return rows + [{"training": "fine-tuning", **cost.to_dict()} for cost in tuning]


def check_train_settings(settings: TrainSettings, modules: dict[str, str]) -> None:
    """Check what can be checked without TensorFlow.

    Args:
        settings: of the training.
        modules: module -> extra of what the job imports later.

    Raises:
        InputError: names the option, what was expected and what came.
        MissingExtraError: something is not installed.
    """
    require_modules(modules)
    dataset(settings.data)
    refuse_not_positive({"learning-rate": settings.learning_rate, "clip-norm": settings.clip_norm})
    if not 0 < settings.qat_share <= 1:
        raise InputError(
            f"`--qat-share` must be a share above 0 and at most 1. Received: {settings.qat_share}."
        )
    if settings.cross_fit is not None and settings.patience is not None:
        raise InputError(
            "`--patience` must be left out with `--cross-fit`, which chooses the epochs itself. "
            f"Received: {settings.patience}."
        )


def require_modules(modules: dict[str, str]) -> None:
    """Refuse to begin where something is missing that the job imports later.

    Args:
        modules: module -> extra.

    Raises:
        MissingExtraError: something is not installed.
    """
    for module, extra in modules.items():
        if find_spec(module) is None:
            raise MissingExtraError(module, extra)


def checked_sets(settings: TrainSettings, progress: JobProgress) -> Split | HeldOutTest:
    """Load TensorFlow and the windows, and check all that is left to check before anything is trained.

    Raises:
        InputError: a name is unknown, or the options do not fit the network or the windows.
    """
    # TensorFlow writes notices about absent GPUs past Python's streams, whatever its log level says.
    with progress.step("Loading TensorFlow"), CaughtStderr():
        _check_names(settings)
    with progress.step(f"Reading {settings.data} and cutting windows"):
        sets = _load_sets(settings)
        check_fit(settings, sets.train)
    return sets


def _check_names(settings: TrainSettings) -> None:
    """Check the options whose names stand in rooms that load TensorFlow.

    Raises:
        InputError: lists the known names.
    """
    from mexit_edge.models.build import check_preset
    from mexit_edge.regimes import make_regime

    check_preset(settings.backbone, settings.preset)
    make_regime(settings.regime, **settings.options)


def _load_sets(settings: TrainSettings) -> Split | HeldOutTest:
    """Return the sets of windows, thinned out with `quick`: four, or two with cross-fitting."""
    windows: Windows = load(settings.data)
    if settings.quick:
        windows = windows.take(np.arange(0, len(windows), QUICK_STRIDE))
    split = split_by_subject if settings.cross_fit is None else hold_out_test
    return split(windows, test=dataset(settings.data).standard_test, seed=settings.seed)


def check_fit(settings: TrainSettings, windows: Windows) -> None:
    """Check what depends on the network and the number of windows, before anything is trained or written.

    Raises:
        InputError: fewer epochs than phases, a batch too small for the regime, more folds than subjects, or a
            fold whose other folds lack a class.
    """
    from mexit_edge.regimes.cross_fit import check_folds, subject_folds
    from mexit_edge.regimes.phases import epochs_per_phase

    model = build_model(settings, windows)
    epochs_per_phase(model.phases, settings.n_epochs)
    model.regime.check_fit(model, min(settings.batch_size, len(windows)))
    if settings.cross_fit is not None:
        check_folds(windows, subject_folds(windows.subjects, settings.cross_fit, settings.seed))


def train(
    settings: TrainSettings, sets: Split | HeldOutTest, progress: JobProgress, folder: Path | None = None
) -> Trained:
    """Build a network, train it, with cross-fitting K networks before it, and fine-tune it if asked to.

    Args:
        settings: checked.
        sets: training windows, and validation windows without cross-fitting.
        progress: for the epochs.
        folder: for checkpoints, so that an interrupted training goes on; None for none.
    """
    from mexit_edge.cli.fine_tuning import fine_tune, n_tuning_epochs

    out_of_fold = None
    if isinstance(sets, HeldOutTest):
        out_of_fold = _cross_fitted(settings, sets.train, progress, folder)
        progress.screen.print(
            f"Out-of-fold loss is lowest after {out_of_fold.epochs} of {settings.n_epochs} epochs."
        )
    n_epochs = settings.n_epochs if out_of_fold is None else out_of_fold.epochs
    model = build_model(settings, sets.train)
    n_tuning = n_tuning_epochs(settings, model, n_epochs)
    with progress.training(n_epochs + n_tuning) as lines:
        trained = _trained(settings, sets, model, out_of_fold, lines, folder)
        return fine_tune(settings, sets, trained, n_tuning, lines, folder) if n_tuning else trained


def _trained(
    settings: TrainSettings,
    sets: Split | HeldOutTest,
    model: Any,
    out_of_fold: Any | None,
    lines: EpochLines,
    folder: Path | None,
) -> Trained:
    """Return the float network; where an interrupted fine-tuning has left it in the folder, that one."""
    from mexit_edge.cli.fine_tuning import kept_float
    from mexit_edge.regimes import StopAfterEpoch

    kept = None if folder is None else kept_float(folder)
    if kept is not None:
        return replace(kept, out_of_fold=out_of_fold)
    last: Any = _recipe(settings).best_epoch() if out_of_fold is None else StopAfterEpoch(out_of_fold.epochs)
    fitted = model.fit(
        sets.train,
        validation_data=sets.validation if isinstance(sets, Split) else None,
        epochs=settings.n_epochs,
        batch_size=settings.batch_size,
        callbacks=[last, epoch_callback(lines)],
        checkpoint=None if folder is None else folder / "unfinished.npz",
        verbose=0,
    )
    return Trained(model, epoch_rows(fitted), out_of_fold)


def epoch_rows(fitted: Any) -> list[dict[str, float]]:
    """Return the figures of a History, a row per epoch from 1 on."""
    return [
        {
            "epoch": epoch + 1,
            **{name: float(values[place]) for name, values in sorted(fitted.history.items())},
        }
        for place, epoch in enumerate(fitted.epoch)
    ]


def build_model(settings: TrainSettings, windows: Windows) -> Any:
    """Return a new `MultiExitModel`, compiled for these training windows."""
    with CaughtStderr():
        return _recipe(settings).model(windows)


def _recipe(settings: TrainSettings) -> Any:
    from mexit_edge.regimes import Recipe

    return Recipe(
        backbone=settings.backbone,
        preset=settings.preset,
        regime=settings.regime,
        options=settings.options,
        epochs=settings.n_epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        clip_norm=settings.clip_norm,
        patience=settings.patience,
        seed=settings.seed,
    )


def float_exits(model: Any, windows: Windows) -> list[dict[str, Any]]:
    """Return accuracy and balanced accuracy of the float network per exit."""
    logits = model.predict(windows, batch_size=512, verbose=0)
    predicted = {name: logits[name].argmax(axis=1) for name in model.exits}
    return [
        {
            "exit": name,
            "accuracy": float(np.mean(labels == windows.y)),
            "balanced_accuracy": balanced_accuracy(windows.y, labels),
        }
        for name, labels in predicted.items()
    ]


def epoch_callback(lines: EpochLines, done: int = 0) -> Any:
    """Return a callback that shows an epoch's figures, counted after those that are done."""
    import keras

    def epoch_done(epoch: int, logs: dict[str, float]) -> None:
        lines.epoch_done(done + epoch + 1, logs)

    return keras.callbacks.LambdaCallback(on_epoch_end=epoch_done)


def _cross_fitted(
    settings: TrainSettings, windows: Windows, progress: JobProgress, folder: Path | None
) -> Any:
    from mexit_edge.regimes import cross_fit
    from mexit_edge.regimes.recipe import LAST_SHARE

    n_folds = settings.cross_fit or 0

    def callbacks(fold: int) -> list[Any]:
        return [epoch_callback(lines, done=fold * settings.n_epochs)]

    with progress.training(n_folds * settings.n_epochs, f"Cross-fitting {n_folds} folds") as lines:
        return cross_fit(
            lambda train, fold: build_model(settings, train),
            windows,
            n_folds,
            epochs=settings.n_epochs,
            batch_size=settings.batch_size,
            seed=settings.seed,
            last_share=LAST_SHARE,
            input_limit=settings.input_limit if isinstance(settings, RunSettings) else None,
            callbacks=callbacks,
            checkpoint=folder,
        )
