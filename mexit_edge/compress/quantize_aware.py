"""Quantization-aware training: a copy of a trained network that computes on the steps of int8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, overload

import keras
from numpy.typing import NDArray

from mexit_edge.compress.fake_quant import carries_ranges, fake_quants
from mexit_edge.compress.folding import fold
from mexit_edge.compress.provenance import fine_tuned
from mexit_edge.compress.ranges import with_ranges
from mexit_edge.compress.representative import representative_arrays, representative_sample
from mexit_edge.errors import InputError
from mexit_edge.regimes import MultiExitModel
from mexit_edge.regimes.recipe import STEPS_PER_EXECUTION, adamw_cosine
from mexit_edge.regimes.regime import require_share
from mexit_edge.signals import Normalisation, Windows

# Of the learning rate that the network was trained with.
FINE_TUNING_RATE = 0.1
QUANTIZATION_AWARE = "quantization-aware"
CALIBRATION_BATCH = 64


@overload
def quantize_aware(model: MultiExitModel, representative: Any) -> MultiExitModel: ...


@overload
def quantize_aware(model: keras.Model, representative: Any) -> keras.Model: ...


def quantize_aware(model: Any, representative: Any) -> Any:
    """Return a copy of a trained network that computes on the steps of int8, ready to be fine-tuned.

    Batch normalization is folded (`fold`), weights have 255 steps per output channel, activations 256 per
    tensor, on ranges that are those of the representative windows until training moves them (`FakeQuant`).
    What it predicts is what the int8 model will, but for a step here and there; conversion needs no
    representative windows.

    Args:
        model: a trained `MultiExitModel`, or a functional network.
        representative: training windows: `Windows`, of which a class-balanced choice is used, or an array as
            the network takes it; with several inputs a tuple in their order, or arrays by input name.

    Returns:
        Of a `MultiExitModel` another one with the same regime and its memory, normalisation, perturbations
        and seed, not compiled; its provenance says ``quantization-aware``. Of a network a network.

    Raises:
        InputError: a layer has no such form, the copy would be one of such a copy, or the windows do not fit.

    Example:
        ```python
        aware = quantize_aware(model, split.train)
        epochs = fine_tuning_epochs(30)
        aware.compile(adamw_cosine(len(split.train), epochs, learning_rate=FINE_TUNING_RATE * LEARNING_RATE))
        aware.fit(split.train, validation_data=split.validation, epochs=epochs)
        ```

    Reference:
        Jacob et al., arXiv 1712.05877.
    """
    network = model.network if isinstance(model, MultiExitModel) else model
    if isinstance(network, keras.Model) and carries_ranges(network):
        raise InputError(
            "`model` must be a network without fake quantization. Received: one that has it. Fine-tune that "
            "one as it is."
        )
    normalisation = model.normalisation if isinstance(model, MultiExitModel) else None
    copy = with_ranges(fold(network))
    _calibrate(copy, _samples(copy, representative, normalisation))
    return _model_of(copy, model) if isinstance(model, MultiExitModel) else copy


def fine_tuning_epochs(epochs: int, share: float = 0.1, *, phases: int = 1) -> int:
    """Return how many epochs a fine-tuning takes: a share of the training's, at least one per phase.

    Args:
        epochs: of the training.
        share: of them.
        phases: of the regime.

    Raises:
        InputError: ``share`` is no share, or ``epochs`` or ``phases`` is not positive.
    """
    require_share("share", share)
    for argument, value in {"epochs": epochs, "phases": phases}.items():
        if value < 1:
            raise InputError(f"`{argument}` must be at least 1. Received: {value}.")
    return max(phases, round(share * epochs))


def fake_quantized(
    model: MultiExitModel,
    windows: Windows,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    clip_norm: float | None = None,
    seed: int,
) -> MultiExitModel:
    """Return a copy of a model with fake quantization, compiled for its fine-tuning.

    Args:
        model: trained.
        windows: to fine-tune with; a choice of them sets the ranges.
        epochs: of the fine-tuning.
        batch_size: windows per step.
        learning_rate: at the start of every phase.
        clip_norm: largest norm of the gradient; None for no limit.
        seed: of everything that is drawn at random from here on.

    Raises:
        InputError: a layer has no such form, the model is such a copy itself, or the windows do not fit.
    """
    # Set anew here, so that it does not depend on whether the training before was interrupted.
    keras.utils.set_random_seed(seed)
    aware = quantize_aware(model, windows)
    optimizer = adamw_cosine(len(windows), epochs, batch_size, learning_rate, clip_norm)
    aware.compile(optimizer, steps_per_execution=STEPS_PER_EXECUTION)
    return aware


def _model_of(network: keras.Model, model: MultiExitModel) -> MultiExitModel:
    """Return a model of this network that goes on where another one stands."""
    own = model.perturbations
    copy = MultiExitModel(
        network,
        model.regime,
        normalisation=model.normalisation,
        perturbations=() if own is None else own,
        seed=model.seed,
        name=model.name,
    )
    # None asks for perturbations that no file could hold.
    copy.perturbations = own
    for new, old in zip(copy.regime_state.variables, model.regime_state.variables, strict=True):
        new.assign(old)
    copy.provenance = fine_tuned(model.provenance, QUANTIZATION_AWARE)
    return copy


def _samples(
    network: keras.Model, representative: Any, normalisation: Normalisation | None
) -> dict[str, NDArray[Any]]:
    """Return an array per input of the network, as the network takes it."""
    if isinstance(representative, Windows):
        chosen = representative_sample(representative)
        normalisation = normalisation or Normalisation.identity(chosen.sensor.n_channels)
        representative = normalisation.apply(chosen.x)
    return representative_arrays(network, representative)


def _calibrate(network: keras.Model, samples: Mapping[str, NDArray[Any]]) -> None:
    """Set the ranges to what the windows reach, weights on their steps and activations exact."""
    ranges = fake_quants(network)
    n_windows = len(next(iter(samples.values())))
    for one in ranges:
        one.calibrates = True
    try:
        for start in range(0, n_windows, CALIBRATION_BATCH):
            batch = [samples[tensor.name][start : start + CALIBRATION_BATCH] for tensor in network.inputs]
            network(keras.tree.pack_sequence_as(network.input, batch), training=False)
    finally:
        for one in ranges:
            one.calibrates = False
