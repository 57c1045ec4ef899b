"""`mexit quantize-aware`: a trained network, fine-tuned on the steps of int8."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from math import log
from typing import Any

from mexit_edge.cli.compressing import (
    TRAINING_MODULES,
    CompressSettings,
    load_for_tuning,
    save_network,
)
from mexit_edge.cli.progress import JobProgress
from mexit_edge.cli.settings import BATCH_SIZE, EPOCHS, LEARNING_RATE, RunSettings
from mexit_edge.cli.tables import console, print_json
from mexit_edge.cli.training import epoch_callback, epoch_rows
from mexit_edge.cli.training_windows import WindowsSource, known_subjects
from mexit_edge.errors import RunError
from mexit_edge.signals import Normalisation, Windows

# Times the loss of guessing: a network that was trained stays below once.
DIVERGED = 10


def quantize_aware_and_print(settings: CompressSettings, *, as_json: bool) -> None:
    """Fine-tune a network with fake quantization, write it and print what is to be done next.

    See `mexit_edge.compress.quantize_aware`. The file holds what the given one does: a `MultiExitModel`,
    fine-tuned under its own regime, or a functional network, of which the mean loss of all exits is taken.

    Raises:
        InputError: an option is wrong, or the file holds no multi-exit network that can be quantized so.
        MissingExtraError: an extra is not installed.
        RunError: the fine-tuning diverged; nothing is written.
    """
    progress = JobProgress(console(quiet=as_json))
    loaded = load_for_tuning(
        settings,
        "quantization-aware",
        TRAINING_MODULES,
        progress,
        lambda model: _refuse_too_few_epochs(model, settings.epochs),
    )
    from mexit_edge.compress.quantize_aware import FINE_TUNING_RATE, fake_quantized, fine_tuning_epochs
    from mexit_edge.regimes import MultiExitModel

    is_model = isinstance(loaded.model, MultiExitModel)
    model = _normalising(loaded.model, loaded.windows)
    trained_for = model.provenance.epochs or EPOCHS
    phases = len(model.phases)
    epochs = settings.epochs or fine_tuning_epochs(trained_for, phases=phases)
    rate = settings.learning_rate or FINE_TUNING_RATE * LEARNING_RATE
    with progress.step("Folding, and observing the ranges of activations"):
        aware = fake_quantized(
            model,
            loaded.windows,
            epochs=epochs,
            batch_size=BATCH_SIZE,
            learning_rate=rate,
            seed=settings.seed,
        )
    progress.screen.print(f"Epochs of fine-tuning: {epochs}; learning rate at the start: {rate:g}")
    aware.seed = settings.seed
    with progress.training(epochs, "Fine-tuning") as lines:
        fitted = aware.fit(
            loaded.windows,
            epochs=epochs,
            batch_size=BATCH_SIZE,
            callbacks=[epoch_callback(lines)],
            verbose=0,
        )
    history = epoch_rows(fitted)
    refuse_diverged(history, aware.exits, aware.n_classes)
    tuned = aware if is_model else aware.network
    save_network(tuned, loaded.target, overwrite=settings.overwrite)
    if as_json:
        print_json(
            {
                "network": str(loaded.target),
                "windows": loaded.said,
                "epochs": epochs,
                "learning_rate": rate,
                "history": history,
            }
        )
        return
    progress.screen.print(f"Network: {loaded.target}", markup=False, soft_wrap=True)
    following = ["mexit", "export", str(loaded.target), *_source_options(settings.source, tuned)]
    progress.screen.print(f"Next:    {shlex.join(following)}", markup=False, soft_wrap=True)


def _normalising(model: Any, windows: Windows) -> Any:
    """Return the model, or one of a functional network, with a normalisation: of none that changes nothing.

    Without one `fit` would take that of the windows, which the network has not been trained with.
    """
    from mexit_edge.regimes import MultiExitModel

    identity = Normalisation.identity(windows.sensor.n_channels)
    if not isinstance(model, MultiExitModel):
        return MultiExitModel(model, "joint", normalisation=identity, perturbations=())
    if model.normalisation is None:
        model.normalisation = identity
    return model


def _refuse_too_few_epochs(model: Any, epochs: int | None) -> None:
    from mexit_edge.regimes import MultiExitModel
    from mexit_edge.regimes.phases import epochs_per_phase

    if epochs is not None and isinstance(model, MultiExitModel):
        epochs_per_phase(model.phases, epochs, "--epochs")


def refuse_diverged(history: Sequence[Mapping[str, float]], exits: Sequence[str], n_classes: int) -> None:
    """Refuse the result of a fine-tuning that has lost what the training had found.

    `fit` itself ends at a loss that is no finite number. What it starts with is not among its figures, and
    the mean of the first epoch may be of a network already lost: the yardstick is the loss of guessing.

    Args:
        history: figures per epoch, with the cross-entropy of each exit; NaN of one that a phase does not run.
        exits: names of the exits.
        n_classes: of the network.

    Raises:
        RunError: where an exit was last trained, its loss was far above that of guessing.
    """
    guessing = log(n_classes)
    losses = {exit_: row[f"{exit_}_loss"] for row in history for exit_ in exits if row[f"{exit_}_loss"] >= 0}
    lost = {exit_: loss for exit_, loss in losses.items() if loss > DIVERGED * guessing}
    if lost:
        found = ", ".join(f"{loss:.3g} of {exit_}" for exit_, loss in lost.items())
        raise RunError(
            f"the loss of every exit must stay below {DIVERGED} times that of guessing, {guessing:.3g}. "
            f"Received: {found}. Lower `--learning-rate`, or give windows scaled as those of the training."
        )


def _source_options(source: WindowsSource, tuned: Any) -> list[str]:
    """Return the options that name the same windows again, for the network that was written."""
    if source.windows is not None:
        return ["--windows", str(source.windows)]
    options = [] if source.data is None else ["--data", source.data]
    # Of a network that knows no subjects the seed chooses them.
    chooses = source.seed != RunSettings().seed and not known_subjects(tuned)
    return [*options, "--seed", str(source.seed)] if chooses else options
