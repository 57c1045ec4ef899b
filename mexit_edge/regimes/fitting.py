"""How a `MultiExitModel` is fitted: phase after phase, each a `keras.Model.fit` of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mexit_edge.errors import InputError
from mexit_edge.regimes.active_phase import ActivePhase
from mexit_edge.regimes.checkpoint import Checkpoint, SaveCheckpoint, resumable, training_facts
from mexit_edge.regimes.cost import CostMeter, PhaseCost, per_window
from mexit_edge.regimes.history import PhaseColumn, PhaseHistory, StopAtNonFiniteLoss
from mexit_edge.regimes.metrics import set_directions
from mexit_edge.regimes.phases import epochs_per_phase
from mexit_edge.regimes.schedule import optimizer_of_phase, schedule_of
from mexit_edge.regimes.sources import Source, specs_of


@dataclass(eq=False)
class _Progress:
    """Where a fit stands: at the beginning of a phase, or after an epoch in it."""

    phase: int = 0
    epochs_done: int = 0
    phase_begun_at: int = 0
    stopped: bool = False
    costs: list[PhaseCost] = field(default_factory=list)
    running: PhaseCost | None = None


def fit_phases(
    model: Any,
    source: Source,
    *,
    provenance: Any,
    callbacks: Sequence[Any],
    epochs: int,
    initial_epoch: int,
    checkpoint: Path | None,
    validation_data: Any,
    options: dict[str, Any],
) -> keras.callbacks.History:
    """Fit a model under its regime; see `MultiExitModel.fit`.

    Args:
        model: compiled.
        source: training data.
        provenance: callback that notes what the weights have seen.
        callbacks: of the user.
        epochs: over all phases.
        initial_epoch: epochs done before; 0 with several phases.
        checkpoint: file to resume from and write to, or None.
        validation_data: as `MultiExitModel.fit` takes them.
        options: of `keras.Model.fit`.
    """
    run = _Fit(model, source, provenance, callbacks, epochs, initial_epoch, checkpoint, options)
    before = model.normalisation
    loggers = {id(one): one.append for one in callbacks if isinstance(one, keras.callbacks.CSVLogger)}
    model.normalisation = source.normalisation or before
    model.training_cost = ()
    try:
        run.all_phases(model.as_keras_data(validation_data))
    finally:
        if not run.has_learned:
            model.normalisation = before
        for one in callbacks:
            if id(one) in loggers:
                one.append = loggers[id(one)]
        _come_to_rest(model, run.compiled)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return run.history


class _Fit:
    def __init__(
        self,
        model: Any,
        source: Source,
        provenance: Any,
        callbacks: Sequence[Any],
        epochs: int,
        initial_epoch: int,
        checkpoint: Path | None,
        options: dict[str, Any],
    ) -> None:
        self.model, self.source, self.options = model, source, options
        self.provenance, self.callbacks = provenance, list(callbacks)
        self.checkpoint, self.epochs, self.initial_epoch = checkpoint, epochs, initial_epoch
        self.compiled = model.optimizer
        self.phases = model.phases
        self._check()
        self.lengths = (
            epochs_per_phase(self.phases, epochs) if len(self.phases) > 1 else (epochs - initial_epoch,)
        )
        # All of them now: a phase in which nothing could learn is refused before the first one begins.
        self.active = [
            model.whole if phase == model.whole.phase else ActivePhase(model.network, model.anatomy, phase)
            for phase in self.phases
        ]
        self.steps_per_epoch = int(options.get("steps_per_epoch") or source.steps_per_epoch or 0)
        if not self.steps_per_epoch and model.regime.follows_progress:
            raise InputError(
                f"`steps_per_epoch` must be given: the loss of {model.regime} follows the progress of the "
                "training. Received: a data set of unknown length."
            )
        self.fingerprint = {
            **training_facts(model, epochs),
            "callbacks": [[type(one).__name__, one.get_config()] for one in resumable(self.callbacks)],
            **source.facts,
            "steps_per_epoch": self.steps_per_epoch,
        }
        self.history = PhaseHistory()
        self.progress = _Progress(epochs_done=initial_epoch, phase_begun_at=initial_epoch)
        self.has_learned = False

    def all_phases(self, validation_data: Any) -> None:
        """Run the phases that are not done yet."""
        set_directions(self.callbacks, self.model.exits)
        if not self.compiled.built:
            self.compiled.build(self.model.trainable_variables)
        stored = self._stored()
        while self.progress.phase < len(self.phases):
            self._one_phase(stored, validation_data)
            stored = None
        self.model.training_cost = tuple(self.progress.costs)

    def _check(self) -> None:
        """Refuse arguments that do not go together."""
        several = len(self.phases) > 1
        if several and self.initial_epoch:
            raise InputError(
                f"`initial_epoch` must be 0 for a regime of several phases ({self.model.regime.name}). "
                f"Received: {self.initial_epoch}. Give `checkpoint` to go on after an interrupt."
            )
        if several and getattr(self.compiled, "use_ema", False):
            raise InputError(
                f"`optimizer` must not use use_ema for a regime of phases ({self.model.regime.name}): "
                f"Keras averages frozen weights too. Received: {type(self.compiled).__name__} with "
                "use_ema=True. Leave the option out."
            )
        if self.checkpoint is None:
            return
        if self.initial_epoch:
            raise InputError(
                "`initial_epoch` must be 0 with `checkpoint`, which knows the epochs that are done. "
                f"Received: {self.initial_epoch}."
            )
        if self.options.get("steps_per_epoch"):
            # Keras reads on in the data set from epoch to epoch; where it was is not known afterwards.
            raise InputError(
                "`steps_per_epoch` must be left out with `checkpoint`. "
                f"Received: {self.options['steps_per_epoch']}. Let the data set end with the epoch."
            )

    def _one_phase(self, stored: Checkpoint | None, validation_data: Any) -> None:
        model, progress = self.model, self.progress
        number = progress.phase
        self._begin(number)
        first_step = int(model.step)
        if stored is not None:
            self._take_up(stored)
        first = progress.phase_begun_at
        last = first + self.lengths[number]
        model.phase_epochs = (first, last)
        meter = CostMeter(progress.running, self._macs_per_window(), first_step)
        keras.Model.fit(
            model,
            **self.source.data,
            **self.options,
            validation_data=validation_data,
            callbacks=self._all_callbacks(number, meter),
            initial_epoch=progress.epochs_done,
            epochs=progress.epochs_done if progress.stopped else last,
        )
        progress.costs.append(meter.cost())
        progress.phase += 1
        progress.phase_begun_at = progress.epochs_done
        progress.stopped, progress.running = False, None
        if self.checkpoint is not None and progress.phase < len(self.phases):
            self._begin(progress.phase)
            self._save(within_phase=False)

    def _all_callbacks(self, number: int, meter: CostMeter) -> list[Any]:
        """Return the user's callbacks of a phase, and ours around them.

        What adds to an epoch's figures, notes what was seen or refuses it comes first; History comes where
        Keras has it, after those that add their figures, such as the learning rate; what keeps a state last.
        """
        for callback in self.callbacks:
            if self.progress.epochs_done and isinstance(callback, keras.callbacks.CSVLogger):
                # Else the file would begin anew with every phase, and after an interrupt.
                callback.append = True
        ours = [
            _BeginEpoch(self.source),
            PhaseColumn(number + 1),
            _HasLearned(self),
            self.provenance,
            StopAtNonFiniteLoss(None if self.checkpoint is None else str(self.checkpoint)),
        ]
        last = [self.history, meter, _Count(self.progress, meter)]
        if self.checkpoint is not None:
            last.append(SaveCheckpoint(self._save))
        return [*ours, *self.callbacks, *last]

    def _begin(self, number: int) -> None:
        """Get the model ready for the first step of a phase."""
        model = self.model
        model.active = self.active[number]
        several = len(self.phases) > 1
        factor = 1 / model.regime.updates_per_step
        if several:
            factor *= self.epochs / self.lengths[number]
        if several or (factor != 1 and schedule_of(self.compiled) is not None):
            model.optimizer = optimizer_of_phase(self.compiled, factor)
            # On all variables, whichever learn: see `MultiExitModel.trainable_weights`.
            model.optimizer.build(model.trainable_variables)
        # Epochs that were done before, in a regime of one phase, are part of its progress.
        model.step.assign(self.initial_epoch * self.steps_per_epoch)
        model.n_steps.assign((self.initial_epoch + self.lengths[number]) * self.steps_per_epoch)
        model.windows_seen.assign(0)
        model.first_non_finite.assign(np.full(model.first_non_finite.shape, -1))
        # Both were traced for another phase.
        model.train_function = model.test_function = None

    def _macs_per_window(self) -> tuple[float, float] | None:
        model = self.model
        x, y, windows = specs_of(self.source, model.network, twins=model.regime.perturbs)
        return per_window(model.regime.step_macs(model, x, y), windows)

    def _variables(self) -> list[Any]:
        """Return everything that a step changes."""
        seen: dict[int, Any] = {}
        for variable in (
            *self.model.variables,
            *self.model.optimizer.variables,
            *self.model.regime_state.optimizer_variables,
        ):
            seen.setdefault(id(variable), variable)
        return list(seen.values())

    def _save(self, *, within_phase: bool = True) -> None:
        progress = self.progress
        progress.stopped = within_phase and bool(self.model.stop_training)
        Checkpoint(
            fingerprint=self.fingerprint,
            position={
                "phase": progress.phase,
                "epochs_done": progress.epochs_done,
                "phase_begun_at": progress.phase_begun_at,
                "stopped": progress.stopped,
                "costs": [cost.to_dict() for cost in progress.costs],
                "running": progress.running.to_dict() if within_phase and progress.running else None,
                "history": self.history.history,
                "epoch": self.history.epoch,
                "provenance": self.model.provenance.model_dump(mode="json"),
            },
            variables=[np.array(variable) for variable in self._variables()],
            callbacks=[callback.state() for callback in resumable(self.callbacks)] if within_phase else [],
        ).save(self.checkpoint)  # type: ignore[arg-type]

    def _stored(self) -> Checkpoint | None:
        """Return the checkpoint to go on from, if there is one, with the progress set to it."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return None
        stored = Checkpoint.load(self.checkpoint)
        stored.check(self.fingerprint, self.checkpoint)
        position = stored.position
        running = position["running"]
        self.progress = _Progress(
            phase=position["phase"],
            epochs_done=position["epochs_done"],
            phase_begun_at=position["phase_begun_at"],
            stopped=position["stopped"],
            costs=[PhaseCost(**cost) for cost in position["costs"]],
            running=None if running is None else PhaseCost(**running),
        )
        self.has_learned = True
        self.history.history = position["history"]
        self.history.epoch = position["epoch"]
        self.model.provenance = type(self.model.provenance).model_validate(position["provenance"])
        return stored

    def _take_up(self, stored: Checkpoint) -> None:
        """Give the model what the checkpoint holds."""
        variables = self._variables()
        shapes = [tuple(variable.shape) for variable in variables]
        if shapes != [array.shape for array in stored.variables]:
            raise InputError(
                f"`checkpoint` must belong to this training. Received: {self.checkpoint} with other "
                "variables. Remove it to begin anew."
            )
        for variable, array in zip(variables, stored.variables, strict=True):
            variable.assign(array)
        if stored.callbacks:
            for callback, (plain, arrays) in zip(resumable(self.callbacks), stored.callbacks, strict=True):
                callback.resume(plain, arrays)


class _BeginEpoch(keras.callbacks.Callback):
    """Tells the training data which epoch comes."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Tell."""
        self._source.begin_epoch(epoch)


class _HasLearned(keras.callbacks.Callback):
    """Notes that a step was done, after which nothing of the fit is taken back."""

    def __init__(self, run: _Fit) -> None:
        super().__init__()
        self._run = run

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Note."""
        self._run.has_learned = True


class _Count(keras.callbacks.Callback):
    """Keeps the progress of the fit."""

    def __init__(self, progress: _Progress, meter: CostMeter) -> None:
        super().__init__()
        self._progress, self._meter = progress, meter

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the epoch."""
        self._progress.epochs_done = epoch + 1
        self._progress.running = self._meter.cost()


def _come_to_rest(model: Any, compiled: Any) -> None:
    """Leave a model as it is outside of `fit`: whole, with the optimizer it was compiled with."""
    if model.active is not model.whole:
        model.active = model.whole
        model.train_function = None
    model.test_function = None
    if model.optimizer is not compiled:
        model.optimizer = compiled
        model.train_function = None
