"""A network at any point of its weight space: loss and accuracy per exit, without touching the original."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mexit_edge.analysis.copies import batch_statistics, layers_of, learning_copy
from mexit_edge.analysis.inputs import Shown, network_of, normalisation_of
from mexit_edge.errors import InputError
from mexit_edge.models.heads import exit_names
from mexit_edge.regimes.losses import cross_entropies

# Windows per call: what the activations of a small network need stays within some 100 MB.
BATCH_SIZE = 512
# Of a layer's options, those that say nothing about what it computes once it has weights.
_NO_STRUCTURE = ("name", "seed", "trainable", "build_config")
# Of a model's options, the tensors that it takes and gives.
_ENDS = ("input_layers", "output_layers")

Weights = list[NDArray[np.float64]]


class WeightSpace:
    """Evaluates a copy of a network at points of the space of the weights that learn.

    Args:
        given: the network, and the windows that loss and accuracy are of.
        statistics: (m, time, channels), windows as the network takes them, on which the statistics of batch
            normalisation are taken anew at every point; None to leave them as they are.
    """

    def __init__(self, given: Shown, statistics: NDArray[np.float32] | None = None) -> None:
        self.given = given
        # Nothing is frozen in it: frozen batch normalisation would run in inference mode.
        self._copy = learning_copy(given.network)
        self._of_norms = batch_statistics(self._copy)
        self._statistics = statistics if self._of_norms else None
        for layer in self.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                # The statistics become those of the one batch that is shown in training mode.
                layer.momentum = 0.0
        self._variables = list(self._copy.trainable_variables)
        self._evaluate = tf.function(self._sums)
        self._update = tf.function(lambda x: self._copy(x, training=True))

    @property
    def has_statistics(self) -> bool:
        """Whether statistics of batch normalisation are taken anew at every point."""
        return self._statistics is not None

    @property
    def variables(self) -> list[Any]:
        """The Keras variables of the weights that learn."""
        return self._variables

    @property
    def layers(self) -> list[Any]:
        """All layers of the copy, those of nested models too."""
        return layers_of(self._copy)

    def at(self, weights: Weights) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return cross-entropy in nats and accuracy at a point, (E,) each."""
        for variable, value in zip(self._variables, weights, strict=True):
            variable.assign(value.astype(variable.dtype))
        if self._statistics is not None:
            for variable in self._of_norms:
                # Even at momentum 0 what a far point left would count: 0 times infinity.
                variable.assign(np.zeros(variable.shape))
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


def weights_of(models: Sequence[keras.Model]) -> list[Weights]:
    """Return the weights that learn, in float64, of each of several networks of one structure.

    Raises:
        InputError: they differ in others than these and the statistics of batch normalisation, such as the
            ranges of quantization-aware training: only one of them could be evaluated then.
    """
    copy = learning_copy(network_of(models[0]))
    learn = {id(variable) for variable in copy.trainable_variables}
    free = learn | {id(variable) for variable in batch_statistics(copy)}
    values = [network_of(model).get_weights() for model in models]
    for place, variable in enumerate(copy.weights):
        for number, own in enumerate(values, start=1):
            if id(variable) not in free and not np.array_equal(own[place], values[0][place]):
                raise InputError(
                    "`models` must have the same weights but for those that learn and the statistics of "
                    f"batch normalisation. Received: number {number} differs from number 1 in "
                    f"{variable.path}. Take both from before quantization-aware training."
                )
    places = [place for place, variable in enumerate(copy.weights) if id(variable) in learn]
    return [[own[place].astype(np.float64) for place in places] for own in values]


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
    return json.dumps(_without_names(network.get_config(), {}), sort_keys=True, default=str)


def _without_names(value: Any, numbers: dict[str, int]) -> Any:
    """Return a configuration without names; ``numbers`` are those of the layers of the model around it."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            return _numbered(value["config"]["keras_history"], numbers)
        if "input_layers" in value:
            numbers = {layer["name"]: number for number, layer in enumerate(value["layers"])}
        return {
            key: (_numbered if key in _ENDS else _without_names)(one, numbers)
            for key, one in value.items()
            if key not in _NO_STRUCTURE and not key.endswith(("_initializer", "_regularizer"))
        }
    return [_without_names(one, numbers) for one in value] if isinstance(value, list | tuple) else value


def _numbered(value: Any, numbers: dict[str, int]) -> Any:
    """Return tensors, all text in which is names of layers, with the numbers of these."""
    return keras.tree.map_structure(lambda one: numbers[one] if isinstance(one, str) else one, value)
