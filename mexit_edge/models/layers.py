"""Layers that several backbones are built of."""

from __future__ import annotations

from typing import Any

import keras

# (channels, kernel, stride) of a convolution.
Convolution = tuple[int, int, int]


def convolution(features: Any, spec: Convolution, name: str) -> Any:
    """Return a 1-D convolution without bias, batch normalisation and ReLU: one int8 operator once folded.

    Args:
        features: Keras tensor (batch, time, channels).
        spec: channels, kernel and stride.
        name: of the convolution; the other layers' names start with it.
    """
    channels, kernel, stride = spec
    features = keras.layers.Conv1D(
        channels, kernel, strides=stride, padding="same", use_bias=False, name=name
    )(features)
    return normalised_relu(features, name)


def normalised_relu(features: Any, name: str) -> Any:
    """Return batch normalisation and ReLU of features."""
    features = keras.layers.BatchNormalization(momentum=0.95, name=f"{name}_norm")(features)
    return keras.layers.ReLU(name=f"{name}_relu")(features)
