"""Cross-fitting: every training window judged by a network that never saw its subject."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.exits import log_loss
from mexit_edge.regimes.checkpoint import Checkpoint, training_facts
from mexit_edge.regimes.checks import refuse_absent_class
from mexit_edge.regimes.cost import PhaseCost
from mexit_edge.regimes.early_stopping import eligible_from
from mexit_edge.regimes.regime import require_positive, require_share
from mexit_edge.regimes.sources import make_source
from mexit_edge.signals import Normalisation, Windows

MakeModel = Callable[[Windows, int], Any]
Result = tuple[dict[int, NDArray[np.float32]], tuple[PhaseCost, ...]]


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """What K fold networks say of the windows of subjects that they did not see.

    Args:
        windows: the labelled training windows, in the order of ``logits``.
        logits: (n, E, classes), after the chosen number of epochs.
        epochs: chosen number: that with the lowest loss.
        losses: number of epochs -> mean cross-entropy over windows and exits, for every number that could
            have been chosen.
        folds: subjects per fold.
        costs: training cost per fold, phase by phase.
    """

    windows: Windows
    logits: NDArray[np.float32]
    epochs: int
    losses: dict[int, float]
    folds: tuple[tuple[int, ...], ...]
    costs: tuple[tuple[PhaseCost, ...], ...]


def subject_folds(subjects: Sequence[int], n_folds: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Deal subjects out to folds, at random and as evenly as possible.

    Args:
        subjects: distinct.
        n_folds: K.
        seed: of the order.

    Raises:
        InputError: fewer than two folds, or fewer subjects than folds.
    """
    if not 2 <= n_folds <= len(subjects):
        raise InputError(
            f"`n_folds` must be from 2 to the number of training subjects ({len(subjects)}). "
            f"Received: {n_folds}."
        )
    order = np.random.default_rng(seed).permutation(sorted(subjects))
    return tuple(tuple(sorted(part.tolist())) for part in np.array_split(order, n_folds))


def cross_fit(
    make_model: MakeModel,
    windows: Windows,
    n_folds: int,
    *,
    epochs: int,
    batch_size: int = 64,
    seed: int = 0,
    last_share: float = 1.0,
    input_limit: float | None = None,
    callbacks: Callable[[int], Sequence[Any]] | None = None,
    checkpoint: Path | None = None,
) -> OutOfFold:
    """Train a network per fold on the other folds' subjects, and gather its logits of its own fold.

    The network for use is trained afterwards on all windows, for as many epochs of the same plan as had the
    lowest out-of-fold loss (`StopAfterEpoch`); its thresholds come from the logits
    (`mexit_edge.simulate.calibrate_out_of_fold`).

    Args:
        make_model: (training windows, fold from 0) -> a compiled `MultiExitModel`, new and untrained.
        windows: of all training subjects; those without a label are trained on in every fold but their own.
        n_folds: K.
        epochs: of every fold's training.
        batch_size: windows per step.
        seed: of the folds.
        last_share: share of the last phase's epochs, at its end, among which the best number is chosen; see
            `MultiExitEarlyStopping`.
        input_limit: of the network for use (`mexit_edge.compress.Quantization`): the logits are of inputs
            that saturate there. None for none.
        callbacks: fold from 0 -> callbacks for its training.
        checkpoint: folder for what is done, so that an interrupted call goes on; None for none. It is not
            removed at the end.

    Raises:
        InputError: as `subject_folds`, ``last_share`` is no share above 0, or a class stands in one fold
            alone.
    """
    require_share("last_share", last_share)
    require_positive("last_share", last_share)
    folds = subject_folds(windows.subjects, n_folds, seed)
    check_folds(windows, folds)
    results = []
    for number, subjects in enumerate(folds):
        train, held_out = _split(windows, subjects)
        model = make_model(train, number)
        file = None if checkpoint is None else checkpoint / f"fold_{number + 1:02d}.npz"
        if input_limit is not None:
            normalisation = model.normalisation or Normalisation.fit(train)
            held_out = replace(held_out, x=normalisation.saturated(held_out.x, input_limit))
        fold_file = _FoldFile(file, model, epochs, batch_size, train, last_share, input_limit)
        result = fold_file.load()
        if result is None:
            collector = _Collector(held_out, len(model.phases), last_share)
            model.fit(
                train,
                epochs=epochs,
                batch_size=batch_size,
                callbacks=[collector, *(callbacks(number) if callbacks else ())],
                checkpoint=None if file is None else file.with_suffix(".unfinished.npz"),
                verbose=0,
            )
            result = collector.logits, model.training_cost
            fold_file.save(*result)
        results.append(result)
    together = _together(windows, folds)
    losses = {
        epoch: log_loss(np.concatenate([logits[epoch] for logits, _ in results]), together.y)
        # Early stopping may have ended one fold before another.
        for epoch in sorted(set.intersection(*(set(logits) for logits, _ in results)))
    }
    if not losses:
        raise InputError(
            "`callbacks` must leave all folds an epoch in common that can be chosen. Received: "
            f"{[sorted(logits) for logits, _ in results]}. Leave out what stops training early."
        )
    best = min(losses, key=lambda epoch: losses[epoch])
    return OutOfFold(
        windows=together,
        logits=np.concatenate([logits[best] for logits, _ in results]),
        epochs=best,
        losses=losses,
        folds=folds,
        costs=tuple(cost for _, cost in results),
    )


def check_folds(windows: Windows, folds: Sequence[Sequence[int]]) -> None:
    """Refuse folds without which a class is not there to train on.

    Raises:
        InputError: names the class.
    """
    for fold in folds:
        refuse_absent_class(_split(windows, fold)[0].y, windows.n_classes, windows.classes)


class StopAfterEpoch(keras.callbacks.Callback):
    """Ends the last phase after so many epochs of the plan, whatever their schedule was made for.

    Args:
        epochs: number of epochs, over all phases.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop when it is time."""
        if epoch + 1 >= self.epochs:
            self.model.stop_training = True


class _Collector(keras.callbacks.Callback):
    """Keeps the logits of held-out windows after every epoch that can be chosen."""

    def __init__(self, held_out: Windows, n_phases: int, last_share: float) -> None:
        super().__init__()
        self._held_out, self._last_phase, self._last_share = held_out, n_phases, last_share
        self.logits: dict[int, NDArray[np.float32]] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Predict."""
        is_late = epoch >= eligible_from(self.model.phase_epochs, self._last_share)
        if is_late and (logs or {}).get("phase") == self._last_phase:
            predicted = self.model.predict(self._held_out, batch_size=512, verbose=0)
            self.logits[epoch + 1] = np.stack([predicted[exit_] for exit_ in self.model.exits], axis=1)

    def get_config(self) -> dict[str, Any]:
        """Return whose logits are kept, and of which epochs."""
        return {"subjects": list(self._held_out.subjects), "last_share": self._last_share}

    def state(self) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        """Return what a checkpoint needs: see `MultiExitEarlyStopping.state`."""
        return {"epochs": list(self.logits)}, list(self.logits.values())

    def resume(self, plain: dict[str, Any], arrays: list[NDArray[Any]]) -> None:
        """Take the state of a checkpoint."""
        self.logits = dict(zip(plain["epochs"], arrays, strict=True))


class _FoldFile:
    """The result of a finished fold in a file of its own, so that an interrupt costs at most one epoch."""

    def __init__(
        self,
        path: Path | None,
        model: Any,
        epochs: int,
        batch_size: int,
        train: Windows,
        last_share: float,
        input_limit: float | None,
    ) -> None:
        self._path = path
        self._fingerprint = {
            **training_facts(model, epochs),
            **make_source(model, train, None, batch_size, None, None, None).facts,
            "last_share": last_share,
            "input_limit": input_limit,
        }

    def load(self) -> Result | None:
        if self._path is None or not self._path.exists():
            return None
        stored = Checkpoint.load(self._path)
        stored.check(self._fingerprint, self._path)
        logits = dict(zip(stored.position["epochs"], stored.variables, strict=True))
        return logits, tuple(PhaseCost(**cost) for cost in stored.position["costs"])

    def save(self, logits: dict[int, NDArray[np.float32]], costs: tuple[PhaseCost, ...]) -> None:
        if self._path is not None:
            position = {"epochs": list(logits), "costs": [cost.to_dict() for cost in costs]}
            Checkpoint(self._fingerprint, position, list(logits.values()), []).save(self._path)


def _split(windows: Windows, fold: Sequence[int]) -> tuple[Windows, Windows]:
    """Return the windows of all other subjects, and the fold's labelled ones."""
    inside = np.isin(windows.subject, fold)
    return windows.take(~inside), windows.take(inside & windows.labelled)


def _together(windows: Windows, folds: Sequence[Sequence[int]]) -> Windows:
    """Return the labelled windows in the order of the folds."""
    order = [np.flatnonzero(np.isin(windows.subject, fold) & windows.labelled) for fold in folds]
    return windows.take(np.concatenate(order))
