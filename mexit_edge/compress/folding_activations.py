"""What activations become in the height-1 form of a network (see `folding`): layers of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import keras

from mexit_edge.models.activation_names import activation_name

layers = keras.layers


class Once(Protocol):
    """Makes a layer at the first call of what it is a part of."""

    def __call__(self, make: Callable[[str], Any], part: str = "") -> Any:
        """Return the layer of a part.

        Args:
            make: takes the name of the new layer.
            part: of the activation, "" for the one that bears its name.
        """


Form = Callable[[Once, Any], Any]


def _one(make: Callable[[str], Any]) -> Form:
    return lambda once, tensor: once(make)(tensor)


def _named(name: str) -> Form:
    return _one(lambda layer: layers.Activation(name, name=layer))


def _hard_sigmoid(once: Once, tensor: Any) -> Any:
    """Return ReLU6(x + 3) / 6, one int8 operator per range."""
    shifted = once(lambda name: layers.Rescaling(1.0, 3.0, name=name), "shifted")(tensor)
    clipped = once(lambda name: layers.ReLU(6.0, name=name), "clipped")(shifted)
    return once(lambda name: layers.Rescaling(1 / 6, name=name))(clipped)


def _silu(once: Once, tensor: Any) -> Any:
    """Return x * sigmoid(x)."""
    gate = once(lambda name: layers.Activation("sigmoid", name=name), "gate")(tensor)
    return once(lambda name: layers.Multiply(name=name))([tensor, gate])


ACTIVATIONS: dict[str, Form] = {
    "relu": _one(lambda name: layers.ReLU(name=name)),
    "relu6": _one(lambda name: layers.ReLU(6.0, name=name)),
    "leaky_relu": _one(lambda name: layers.LeakyReLU(0.2, name=name)),
    "sigmoid": _named("sigmoid"),
    "hard_sigmoid": _hard_sigmoid,
    "tanh": _named("tanh"),
    "silu": _silu,
    "hard_silu": _named("hard_silu"),
    "softmax": _named("softmax"),
    "linear": lambda once, tensor: tensor,
}


def _of_relu(layer: Any, rank: int) -> Form | None:
    slope, top = float(layer.negative_slope), layer.max_value
    if layer.threshold or (top is not None and (slope or top <= 0)):
        return None
    if slope:
        return _one(lambda name: layers.LeakyReLU(slope, name=name))
    return _one(lambda name: layers.ReLU(top, name=name))


def _of_leaky_relu(layer: Any, rank: int) -> Form | None:
    return _one(lambda name: layers.LeakyReLU(layer.negative_slope, name=name))


def _of_softmax(layer: Any, rank: int) -> Form | None:
    return ACTIVATIONS["softmax"] if layer.axis in (-1, rank - 1) else None


ACTIVATION_LAYERS: dict[type, Callable[[Any, int], Form | None]] = {
    layers.Activation: lambda layer, rank: form_of(layer.activation, rank),
    layers.LeakyReLU: _of_leaky_relu,
    layers.ReLU: _of_relu,
    layers.Softmax: _of_softmax,
}


def form_of(activation: Any, rank: int) -> Form | None:
    """Return the form of an activation; None for one that int8 kernels do not have.

    Args:
        activation: function or layer, None for the linear one.
        rank: of its tensor in the network, the batch included.
    """
    if type(activation) in ACTIVATION_LAYERS:
        return ACTIVATION_LAYERS[type(activation)](activation, rank)
    return ACTIVATIONS.get(activation_name(activation) or "")
