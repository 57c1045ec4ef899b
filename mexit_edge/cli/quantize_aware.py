"""`mexit quantize-aware`: a trained network, fine-tuned on the steps of int8."""

from __future__ import annotations

import shlex
from typing import Any

from mexit_edge.cli.compressing import (
    TRAINING_MODULES,
    CompressSettings,
    load_for_tuning,
    save_network,
)
from mexit_edge.cli.fine_tuning import fake_quantized
from mexit_edge.cli.progress import JobProgress
from mexit_edge.cli.settings import BATCH_SIZE, EPOCHS, LEARNING_RATE
from mexit_edge.cli.tables import console, print_json
from mexit_edge.cli.training import epoch_callback, epoch_rows
from mexit_edge.signals import Normalisation, Windows


def quantize_aware_and_print(settings: CompressSettings, *, as_json: bool) -> None:
    """Fine-tune a network with fake quantization, write it and print what is to be done next.

    See `mexit_edge.compress.quantize_aware`. The file holds what the given one does: a `MultiExitModel`,
    fine-tuned under its own regime, or a functional network, of which the mean loss of all exits is taken.

    Raises:
        InputError: an option is wrong, or the file holds no multi-exit network that can be quantized so.
        MissingExtraError: an extra is not installed.
    """
    progress = JobProgress(console(quiet=as_json))
    loaded = load_for_tuning(settings, "quantization-aware", TRAINING_MODULES, progress)
    from mexit_edge.compress.quantize_aware import FINE_TUNING_RATE, fine_tuning_epochs
    from mexit_edge.regimes import MultiExitModel

    is_model = isinstance(loaded.model, MultiExitModel)
    model = _normalising(loaded.model, loaded.windows)
    trained_for = model.provenance.epochs or EPOCHS
    phases = len(model.regime.phases(len(model.exits)))
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
    save_network(aware if is_model else aware.network, loaded.target, overwrite=settings.overwrite)
    if as_json:
        print_json(
            {
                "network": str(loaded.target),
                "windows": loaded.said,
                "epochs": epochs,
                "learning_rate": rate,
                "history": epoch_rows(fitted),
            }
        )
        return
    progress.screen.print(f"Network: {loaded.target}", markup=False, soft_wrap=True)
    following = ["mexit", "export", str(loaded.target), *_source_options(settings)]
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


def _source_options(settings: CompressSettings) -> list[str]:
    """Return the options that name the same windows again."""
    source = settings.source
    if source.windows is not None:
        return ["--windows", str(source.windows)]
    return [] if source.data is None else ["--data", source.data]
