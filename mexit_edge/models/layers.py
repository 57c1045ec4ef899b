"""Layers that several backbones are built of.

Convolutions have no bias and are followed by batch normalisation, then ReLU: in this order the three fold
into one int8 operator.
"""

from __future__ import annotations

from typing import Any

import keras

# (channels, kernel, stride) of a convolution.
Convolution = tuple[int, int, int]


def convolution(
    features: Any,
    spec: Convolution,
    name: str,
    *,
    dilation: int = 1,
    padding: str = "same",
    relu: bool = True,
) -> Any:
    """Return a 1-D convolution without bias, batch normalisation and ReLU: one int8 operator once folded.

    Args:
        features: Keras tensor (batch, time, channels).
        spec: channels, kernel and stride.
        name: of the convolution; the other layers' names start with it.
        dilation: distance between the kernel's taps, in samples; above 1 with stride 1 only.
        padding: ``"same"``, or ``"causal"``, which costs one more operator.
        relu: whether the ReLU is wanted.
    """
    channels, kernel, stride = spec
    features = keras.layers.Conv1D(
        channels,
        kernel,
        strides=stride,
        padding=padding,
        dilation_rate=dilation,
        use_bias=False,
        name=name,
    )(features)
    return normalised_relu(features, name) if relu else normalised(features, name)


def residual(features: Any, spec: Convolution, name: str, *, dilation: int = 1, padding: str = "same") -> Any:
    """Return two convolutions with a shortcut around them: ReLU(x + norm(conv(ReLU(norm(conv(x)))))).

    Where channels or length change, the shortcut is a normalised convolution of kernel 1.

    Args:
        features: Keras tensor (batch, time, channels).
        spec: channels, kernel and stride; the second convolution has stride 1.
        name: with which every layer's name starts.
        dilation: of both convolutions.
        padding: of both convolutions.

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385, section 3.2.
    """
    channels, kernel, stride = spec
    inner = convolution(features, spec, f"{name}_01", dilation=dilation, padding=padding)
    inner = convolution(
        inner, (channels, kernel, 1), f"{name}_02", dilation=dilation, padding=padding, relu=False
    )
    if stride != 1 or features.shape[-1] != channels:
        features = convolution(features, (channels, 1, stride), f"{name}_shortcut", relu=False)
    total = keras.layers.Add(name=f"{name}_sum")([inner, features])
    return keras.layers.ReLU(name=f"{name}_relu")(total)


def normalised(features: Any, name: str) -> Any:
    """Return batch normalisation of features."""
    return keras.layers.BatchNormalization(momentum=0.95, name=f"{name}_norm")(features)


def normalised_relu(features: Any, name: str) -> Any:
    """Return batch normalisation and ReLU of features."""
    return keras.layers.ReLU(name=f"{name}_relu")(normalised(features, name))
