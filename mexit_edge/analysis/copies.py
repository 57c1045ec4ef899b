"""Copies of a network in which all that can learn does: what is frozen in a training says nothing here."""

from __future__ import annotations

from typing import Any

import keras

# Options of layers that say how much is drawn at random in training mode: of dropout and noise layers,
# recurrent cells and attention.
_NOISE = ("rate", "stddev", "dropout", "recurrent_dropout")


def learning_copy(network: keras.Model) -> keras.Model:
    """Return a copy of a network with its weights, nothing frozen, that draws nothing at random.

    Its trainable variables are the weights that learn, whether or not they are frozen in the network.

    Args:
        network: functional.
    """
    copy = keras.models.clone_model(network, clone_function=_without_noise)
    copy.set_weights(network.get_weights())
    # Set to what it is already, a model's own says nothing to its layers: tests/test_analysis.py.
    for layer in layers_of(copy):
        layer.trainable = True
    return copy


def layers_of(network: keras.Model) -> list[Any]:
    """Return the layers of a network, those of nested models and of wrappers too, in a fixed order."""
    return list(network._flatten_layers(include_self=False))


def batch_statistics(network: keras.Model) -> list[Any]:
    """Return the variables that hold the statistics of batch normalisation: means and variances in turn."""
    return [
        variable
        for layer in layers_of(network)
        if isinstance(layer, keras.layers.BatchNormalization)
        for variable in (layer.moving_mean, layer.moving_variance)
    ]


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
