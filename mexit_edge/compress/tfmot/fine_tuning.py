"""Fine-tuning in tf_keras, on the batches and with the normalisation of `MultiExitModel.fit`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

import keras
import numpy as np

from mexit_edge.compress.provenance import fine_tuned
from mexit_edge.compress.tfmot.bridge import Bridged, bridge
from mexit_edge.compress.tfmot.extra import load_extra
from mexit_edge.errors import InputError
from mexit_edge.regimes import MultiExitModel, make_regime
from mexit_edge.regimes.provenance import NoteProvenance
from mexit_edge.regimes.sources import Source, make_source
from mexit_edge.signals import Normalisation, Windows

Network = TypeVar("Network", MultiExitModel, keras.Model)


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """How long and how fast.

    The loss is the mean cross-entropy of all exits, whatever regime trained the network before. Adam's
    learning rate falls to zero along a cosine.

    Args:
        epochs: over the windows.
        batch_size: windows per step.
        learning_rate: at the start.
        seed: of the order of windows, their perturbations and dropout. Python's, NumPy's and TensorFlow's
            global seeds are set to it, as `keras.utils.set_random_seed` does.
        verbose: as in `keras.Model.fit`.

    Raises:
        InputError: an argument is out of range.
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0
    verbose: int | str = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise InputError(f"`{name}` must be a whole number of at least 1. Received: {value}.")
        if not 0 < self.learning_rate < inf:
            raise InputError(f"`learning_rate` must be positive and finite. Received: {self.learning_rate}.")


class Task:
    """A network to be compressed, its twin, and the windows to fine-tune on.

    Args:
        given: a `MultiExitModel`, or a functional network with outputs ``exit_01``, ...
        x: `Windows`, or arrays as `MultiExitModel.fit` takes them, with ``y``.
        y: (n,) class indices; None with `Windows`.
        settings: of the fine-tuning.

    Raises:
        InputError: the network cannot be bridged, or the windows do not fit it.
        MissingExtraError: the [compress] extra is not installed.
    """

    def __init__(self, given: Any, x: Any, y: Any, settings: FineTuning) -> None:
        # Before anything long: says which extra is missing.
        self.extra = load_extra()
        if not isinstance(x, Windows | np.ndarray | list | tuple | dict):
            raise InputError(
                f"`x` must be `Windows`, or arrays with `y`. Received: {type(x).__name__}. "
                "Collect a data set's batches into arrays."
            )
        self.given, self.settings = given, settings
        self.network = given.network if isinstance(given, MultiExitModel) else given
        self.bridged: Bridged = bridge(self.network)
        self.source = _source(given, self.network, x, y, settings)
        self._provenance = NoteProvenance(x, None)

    @property
    def n_steps(self) -> int:
        """Steps of the whole fine-tuning."""
        return len(self.source.data["x"]) * self.settings.epochs

    def fine_tune(self, twin: Any, callbacks: Sequence[Any] = ()) -> None:
        """Train a model of tf_keras that has the twin's inputs and outputs."""
        tf_keras, settings = self.extra.keras, self.settings
        tf_keras.utils.set_random_seed(settings.seed)
        rate = tf_keras.optimizers.schedules.CosineDecay(settings.learning_rate, self.n_steps)
        n_exits = len(self.bridged.exits)
        losses = [tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True) for _ in range(n_exits)]
        twin.compile(tf_keras.optimizers.Adam(rate), losses, loss_weights=[1 / n_exits] * n_exits)
        for epoch in range(settings.epochs):
            x, y = _epoch(self.source, epoch)
            twin.fit(
                x,
                [y] * n_exits,
                batch_size=self.source.data["x"].batch_size,
                shuffle=False,
                initial_epoch=epoch,
                epochs=epoch + 1,
                callbacks=list(callbacks),
                verbose=settings.verbose,
            )

    def result(self, twin: Any, how: str) -> Any:
        """Return a copy of what was given, of the same kind, with a twin's weights.

        Args:
            twin: fine-tuned.
            how: what was done to it, for the provenance.
        """
        network = self.bridged.back(twin)
        return self._model(network, how) if isinstance(self.given, MultiExitModel) else network

    def _model(self, network: keras.Model, how: str) -> MultiExitModel:
        given = self.given
        regime = given.regime.get_config()
        model = MultiExitModel(
            network,
            make_regime(regime.pop("name"), **regime),
            normalisation=self.source.normalisation or given.normalisation,
            perturbations=given.perturbations or (),
            seed=given.seed,
            name=given.name,
        )
        # None after loading a model whose perturbations were objects: they are asked for again.
        model.perturbations = given.perturbations
        model.provenance = fine_tuned(given.provenance, how)
        self._provenance.set_model(model)
        self._provenance.on_train_batch_end(0)
        for epoch in range(self.settings.epochs):
            self._provenance.on_epoch_end(epoch)
        return model


def _source(given: Any, network: keras.Model, x: Any, y: Any, settings: FineTuning) -> Source:
    """Return the windows, normalised and perturbed as the model's own; of a plain network, as they are."""
    is_model = isinstance(given, MultiExitModel)
    normalisation, perturbations = (given.normalisation, given.perturbations) if is_model else (None, ())
    if normalisation is None and isinstance(x, Windows):
        # `fit` would take that of the windows, which the network has not been trained with.
        normalisation = Normalisation.identity(x.sensor.n_channels)
    # Whatever the model's regime does to its batches: these are for the mean over exits.
    joint = MultiExitModel(
        network, "joint", normalisation=normalisation, perturbations=perturbations or (), seed=settings.seed
    )
    joint.perturbations = perturbations
    return make_source(joint, x, y, settings.batch_size, None, None, None)


def _epoch(source: Source, epoch: int) -> tuple[list[Any], Any]:
    """Return all windows of an epoch in its order, per input, and their labels."""
    source.begin_epoch(epoch)
    batches = source.data["x"]
    steps = [batches[step] for step in range(len(batches))]
    inputs = [keras.tree.flatten(x) for x, _ in steps]
    x = [np.concatenate(parts).astype(np.float32) for parts in zip(*inputs, strict=True)]
    return x, np.concatenate([y for _, y in steps])
