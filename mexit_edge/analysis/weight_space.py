"""A network at any point of its weight space: loss and accuracy per exit, without touching the original."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mexit_edge.analysis.inputs import Shown, network_of, normalisation_of
from mexit_edge.errors import InputError
from mexit_edge.models.heads import exit_names
from mexit_edge.regimes.losses import cross_entropies

# Windows per call: what the activations of a small network need stays within some 100 MB.
BATCH_SIZE = 512
# Options of layers that say how much is drawn at random in training mode: of dropout and noise layers,
# recurrent cells and attention.
_NOISE = ("rate", "stddev", "dropout", "recurrent_dropout")
# Of a layer's options, those that say nothing about what it computes once it has weights.
_NO_STRUCTURE = ("name", "seed", "trainable", "build_config")

Weights = list[NDArray[np.float64]]


class WeightSpace:
    """Evaluates a copy of a network at points of its weight space.

    Args:
        given: the network, and the windows that loss and accuracy are of.
        statistics: (m, time, channels), windows as the network takes them, on which the statistics of batch
            normalisation are taken anew at every point; None to leave them as they are.
    """

    def __init__(self, given: Shown, statistics: NDArray[np.float32] | None = None) -> None:
        self.given = given
        self._copy = keras.models.clone_model(given.network, clone_function=_without_noise)
        self._copy.set_weights(given.network.get_weights())
        norms = [layer for layer in _layers(self._copy) if isinstance(layer, keras.layers.BatchNormalization)]
        of_norms = {id(weight) for layer in norms for weight in (layer.moving_mean, layer.moving_variance)}
        self._statistics = statistics if norms else None
        for layer in norms:
            # The statistics become those of the one batch that is shown in training mode.
            layer.momentum = 0.0
            # A frozen one would run in inference mode.
            layer.trainable = True
        self._places = [
            place for place, weight in enumerate(self._copy.weights) if id(weight) not in of_norms
        ]
        self._variables = [self._copy.weights[place] for place in self._places]
        self._evaluate = tf.function(self._sums)
        self._update = tf.function(lambda x: self._copy(x, training=True))

    def weights_of(self, network: keras.Model) -> Weights:
        """Return the weights of a network of the same structure, in float64, without batch statistics."""
        values = network.get_weights()
        return [values[place].astype(np.float64) for place in self._places]

    @property
    def has_statistics(self) -> bool:
        """Whether statistics of batch normalisation are taken anew at every point."""
        return self._statistics is not None

    @property
    def variables(self) -> list[Any]:
        """The Keras variables behind `weights_of`."""
        return self._variables

    @property
    def layers(self) -> list[Any]:
        """All layers of the copy, those of nested models too."""
        return _layers(self._copy)

    def at(self, weights: Weights) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return cross-entropy in nats and accuracy at a point, (E,) each."""
        for variable, value in zip(self._variables, weights, strict=True):
            variable.assign(value.astype(variable.dtype))
        if self._statistics is not None:
            self._update(self._statistics)
        x, y = self.given.x, self.given.y
        totals = np.zeros((2, len(self.given.exits)))
        for start in range(0, len(y), BATCH_SIZE):
            stop = start + BATCH_SIZE
            totals += self._evaluate(x[start:stop], y[start:stop]).numpy()
        loss, accuracy = totals / len(y)
        return loss, accuracy

    def _sums(self, x: Any, y: Any) -> Any:
        outputs = self._copy(x, training=False)
        logits = tf.stack([outputs[exit_] for exit_ in self.given.exits], axis=1)
        right = tf.equal(tf.argmax(logits, axis=-1), tf.cast(y, tf.int64)[:, None])
        # In float64: a sum of many float32 would be rounded by the order of its parts.
        columns = tf.cast(cross_entropies(logits, y), tf.float64)
        return tf.stack([tf.reduce_sum(columns, 0), tf.reduce_sum(tf.cast(right, tf.float64), 0)])


def _without_noise(layer: Any) -> Any:
    """Return a layer like this one, without weights yet, that draws nothing at random in training mode."""
    return layer.__class__.from_config(_silent(layer.get_config()))


def _silent(config: Any) -> Any:
    if isinstance(config, dict):
        return {
            key: 0.0 if key in _NOISE and isinstance(value, int | float) else _silent(value)
            for key, value in config.items()
        }
    return [_silent(one) for one in config] if isinstance(config, list) else config


def refuse_unlike(models: Sequence[keras.Model], argument: str = "models") -> None:
    """Refuse networks of different structure, exits or normalisation.

    Raises:
        InputError: says which of them differs from the first, and in what.
    """
    first = models[0]
    exits, structure = exit_names(network_of(first), argument), structure_of(network_of(first))
    for number, model in enumerate(models[1:], start=2):
        network = network_of(model)
        if exit_names(network, argument) != exits or structure_of(network) != structure:
            raise InputError(
                f"`{argument}` must have the same structure, layer by layer. Received: number {number} "
                "differs from number 1. Build both with the same options, or look at each on its own."
            )
        if normalisation_of(model) != normalisation_of(first):
            raise InputError(
                f"`{argument}` must normalise windows alike: their weights are for different inputs else. "
                f"Received: number {number} differs from number 1. Train both with one `normalisation`."
            )


def structure_of(network: keras.Model) -> str:
    """Return what a network computes but for its weights, as text: layers, options and connections.

    Layers are numbered, as their automatic names differ from network to network.
    """
    numbers = {layer.name: f"#{number}" for number, layer in enumerate(_layers(network))}
    config = network.get_config()
    return json.dumps(_without_names(config, numbers), sort_keys=True, default=str)


def _without_names(value: Any, numbers: dict[str, str]) -> Any:
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            history = value["config"]["keras_history"]
            return [numbers.get(history[0], history[0]), *history[1:]]
        return {
            key: _without_names(one, numbers)
            for key, one in value.items()
            if key not in _NO_STRUCTURE and not key.endswith(("_initializer", "_regularizer"))
        }
    if isinstance(value, list | tuple):
        return [_without_names(one, numbers) for one in value]
    return numbers.get(value, value) if isinstance(value, str) else value


def _layers(network: keras.Model) -> list[Any]:
    """Return the layers of a network, those of nested models and of wrappers too, in a fixed order."""
    return list(network._flatten_layers(include_self=False))
