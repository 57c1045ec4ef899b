"""Activations of Keras 3 in tf_keras, where some have another name or none, and one is another function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from mexit_edge.compress.height_1 import axis_of
from mexit_edge.errors import InputError
from mexit_edge.models.activation_names import activation_name

Call = Callable[[Any], Any]


def no_such_option(layer: Any, option: str, value: object) -> InputError:
    """Make the error for an option of a layer that has no counterpart in tf_keras."""
    return InputError(
        f"`network` must keep to options that tf_keras has. Received: {option}={value!r} in the layer "
        f"{layer.name!r} ({type(layer).__name__})."
    )


def part_of(name: str, part: str) -> str:
    """Return the name of a layer that is made beside the one of a name.

    With a dot, which no layer's own name has over there: so it is not the name of any other.
    """
    return f"{name}.{part}"


def _hard_sigmoid(k: Any, name: str) -> tuple[Call, ...]:
    # tf_keras' own hard_sigmoid is another function (0.2 x + 0.5).
    return (k.Rescaling(1 / 6, 0.5, name=f"{name}_shifted"), k.ReLU(max_value=1.0, name=f"{name}_clipped"))


def _hard_silu(k: Any, name: str) -> tuple[Call, ...]:
    shifted, clipped = _hard_sigmoid(k, name)
    multiply = k.Multiply(name=f"{name}_gated")
    return (lambda x: multiply([x, clipped(shifted(x))]),)


def _relu(layer: Any, k: Any, name: str, rank: int) -> Call:
    options = {"negative_slope": float(layer.negative_slope), "threshold": float(layer.threshold)}
    made: Call = k.ReLU(max_value=layer.max_value, name=name, **options)
    return made


def _softmax(layer: Any, k: Any, name: str, rank: int) -> Call:
    axes = (layer.axis,) if isinstance(layer.axis, int) else layer.axis
    made: Call = k.Softmax([axis_of(layer, axis, rank) for axis in axes], name=name)
    return made


_SAME_ACTIVATIONS = {
    **{name: name for name in ("linear", "relu", "sigmoid", "tanh", "softmax", "softplus", "softsign")},
    **{name: name for name in ("elu", "selu", "exponential", "mish", "gelu")},
    "silu": "swish",
}
_BUILT_ACTIVATIONS: dict[str, Callable[[Any, str], tuple[Call, ...]]] = {
    "relu6": lambda k, name: (k.ReLU(max_value=6.0, name=name),),
    "leaky_relu": lambda k, name: (k.LeakyReLU(alpha=0.2, name=name),),
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
}
# Layers that are an activation, which other layers may take for theirs.
ACTIVATION_LAYERS: dict[type, Callable[[Any, Any, str, int], Call]] = {
    keras.layers.ELU: lambda layer, k, name, rank: k.ELU(float(layer.alpha), name=name),
    keras.layers.LeakyReLU: lambda layer, k, name, rank: k.LeakyReLU(float(layer.negative_slope), name=name),
    keras.layers.ReLU: _relu,
    keras.layers.Softmax: _softmax,
}


def known_activations() -> list[str]:
    """Return the names of the activations that `activation_of` takes."""
    return sorted({*_SAME_ACTIVATIONS, *_BUILT_ACTIVATIONS})


def activation_of(layer: Any, k: Any, name: str, rank: int) -> tuple[str, tuple[Call, ...]]:
    """Return a layer's activation as tf_keras has it: by name, and as layers where the name does not do.

    Args:
        layer: of Keras 3, with or without an activation.
        k: `tf_keras.layers`.
        name: of the new layer.
        rank: of the layer's first input, in Keras 3.

    Raises:
        InputError: tf_keras has no such activation.
    """
    function = getattr(layer, "activation", None)
    if type(function) in ACTIVATION_LAYERS:
        return "linear", (ACTIVATION_LAYERS[type(function)](function, k, part_of(name, "activation"), rank),)
    activation = activation_name(function)
    if activation in _SAME_ACTIVATIONS:
        return _SAME_ACTIVATIONS[activation], ()
    if activation in _BUILT_ACTIVATIONS:
        return "linear", _BUILT_ACTIVATIONS[activation](k, part_of(name, activation))
    raise no_such_option(layer, "activation", getattr(function, "__name__", type(function).__name__))
