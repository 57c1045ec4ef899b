"""Which Keras layers become int8 operators, as the converter of TensorFlow 2.21 turned out to treat them.

The tables hold what was found by converting networks of one such layer each (benchmarks/int8_layers.py); what
was not tried is unknown. The word of the converter itself comes with `mexit_edge.compress.convert`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from mexit_edge.models.activation_names import activation_name
from mexit_edge.models.layer_calls import LayerCall
from mexit_edge.models.layer_macs import is_known


@dataclass(frozen=True)
class Int8Support:
    """Whether a call of a layer becomes int8 operators.

    Args:
        converts: True, False where it blocks an int8 export, None where it is unknown.
        reason: why it blocks or is unknown, or what it costs; None where there is nothing to say.
        suggestion: what to use instead; None where there is nothing to suggest.
    """

    converts: bool | None
    reason: str | None = None
    suggestion: str | None = None


_IN_FRONT = "Compute it in front of the network."
_NORMALISE = "Use BatchNormalization, which folds into the convolution before it."
# What the converter leaves in float, or refuses: the operator, and what to use instead.
_BLOCKING: dict[type, tuple[str, str]] = {
    layers.Conv3D: ("CONV_3D has no int8 form", "Use Conv2D, with the third axis among the channels."),
    layers.Conv3DTranspose: ("CONV_3D_TRANSPOSE has no int8 form", "Reshape and use Conv2DTranspose."),
    layers.MaxPooling3D: ("TFLite has no MaxPool3D", "Reshape and use MaxPooling2D."),
    layers.AveragePooling3D: ("TFLite has no AvgPool3D", "Reshape and use AveragePooling2D."),
    layers.Discretization: ("BUCKETIZE has no int8 form", _IN_FRONT),
    layers.ELU: ("ELU has no int8 form", "Use ReLU or LeakyReLU."),
    layers.Embedding: ("the input of an int8 network is int8, and look-ups need whole numbers", _IN_FRONT),
    layers.GroupNormalization: ("NEG and others of its operators have no int8 form", _NORMALISE),
    layers.LayerNormalization: (
        "it takes a dozen operators, of which NEG has no int8 form",
        _NORMALISE,
    ),
    layers.Masking: ("NOT_EQUAL and SELECT have no int8 form", "Use windows of a fixed length."),
    layers.MelSpectrogram: ("Fourier transforms have no int8 form", _IN_FRONT),
    layers.RMSNormalization: ("SQUARE has no int8 form", _NORMALISE),
    layers.STFTSpectrogram: ("SQUARE and LOG of its operators have no int8 form", _IN_FRONT),
    layers.UnitNormalization: ("SQUARE has no int8 form", _NORMALISE),
}
_BLOCKING_ACTIVATIONS = {
    "elu": "ELU has no int8 form",
    "log_sigmoid": "LOG and SELECT leave the int8 types",
    "selu": "GREATER and SELECT leave the int8 types",
    "squareplus": "SQUARE has no int8 form",
}
_BLOCKING_OPERATIONS = {
    "Argmax": ("TFLite has no BitwiseAnd", "Take the argmax of the logits behind the network."),
    "Cumsum": ("CUMSUM has no int8 form", _IN_FRONT),
    "Negative": ("NEG has no int8 form", "Use `x * -1.0`."),
    "RFFT": ("Fourier transforms have no int8 form", _IN_FRONT),
    "Sin": ("SIN has no int8 form", _IN_FRONT),
    "Square": ("SQUARE has no int8 form", "Use `x * x`."),
    "Where": ("comparisons leave the int8 types", "Use ReLU, Maximum or Minimum."),
}
# These become int8; `layer_macs`, whose tables name the others, does not count them.
_CONVERTING = (
    layers.AdditiveAttention,
    layers.Attention,
    layers.Dot,
    layers.MultiHeadAttention,
    layers.Resizing,
)
_CONVERTING_OPERATIONS = frozenset({"Matmul"})
# They become int8, and LiteRT runs them, TFLM does not: what it lacks.
_ON_LITERT_ONLY: dict[type, str] = {
    layers.Cropping3D: "STRIDED_SLICE of five axes",
    layers.RepeatVector: "TILE",
    layers.UpSampling1D: "TILE",
    layers.UpSampling2D: "TILE",
    layers.UpSampling3D: "TILE",
}
_ACTIVATIONS_ON_LITERT_ONLY = {
    "celu": "EXP",
    "exponential": "EXP",
    "gelu": "GELU",
    "mish": "EXP",
    "softplus": "EXP",
}
_OPERATIONS_ON_LITERT_ONLY = {
    "Gelu": "GELU",
    "Log": "LOG",
    "Prod": "REDUCE_PROD",
    "Repeat": "TILE",
    "Softplus": "EXP",
    "Sqrt": "SQRT",
    "Std": "SQRT",
    "Take": "GATHER by int64",
    "Tile": "TILE",
}
# fmt: off
_ACTIVATIONS = frozenset({
    "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu", "linear", "log_softmax", "relu", "relu6",
    "sigmoid", "silu", "softmax", "softsign", "tanh", "tanh_shrink",
})
# fmt: on


def int8_support(call: LayerCall) -> Int8Support:
    """Tell whether a call of a layer becomes int8 operators.

    Args:
        call: of any layer or operation.
    """
    if any(None in tensor.shape[1:] for tensor in (*call.inputs, *call.outputs)):
        return Int8Support(
            False, "a dimension is not fixed", "Build the network for windows of a fixed length."
        )
    return _of_layer(call.layer, call)


def layer_suggestion(layer: Any) -> str | None:
    """Return what to use instead of a layer that blocks an int8 export; None where nothing is known."""
    return next((_BLOCKING[kind][1] for kind in type(layer).__mro__ if kind in _BLOCKING), None)


def _of_layer(layer: Any, call: LayerCall) -> Int8Support:
    if isinstance(layer, layers.RNN):
        return _of_recurrent(layer)
    if isinstance(layer, layers.Bidirectional):
        return _of_layer(layer.forward_layer, call)
    if isinstance(layer, layers.SpectralNormalization):
        return _of_layer(layer.layer, call)
    if isinstance(layer, layers.TimeDistributed):
        inner = _of_layer(layer.layer, call)
        if inner.converts:
            return Int8Support(
                True, "one operator per time step", "Use the layer itself: Dense takes sequences as they are."
            )
        return inner
    if isinstance(layer, keras.layers.Layer) and not _is_known_class(type(layer)):
        return _unknown(type(layer).__name__)
    for kind in type(layer).__mro__:
        if kind in _BLOCKING:
            return Int8Support(False, *_BLOCKING[kind])
    if isinstance(layer, layers.Lambda):
        return Int8Support(
            None,
            "what it computes stands in Python code",
            "Use layers and `keras.ops`, or a registered layer, which a .keras file can hold.",
        )
    if type(layer) in _ON_LITERT_ONLY:
        return _on_litert_only(_ON_LITERT_ONLY[type(layer)])
    if isinstance(layer, _CONVERTING):
        return Int8Support(True)
    if isinstance(layer, layers.ReLU):
        return _of_relu(layer)
    if not isinstance(layer, keras.layers.Layer):
        return _of_operation(type(layer).__name__)
    return _of_activation(layer, call)


def _is_known_class(kind: type) -> bool:
    """Tell Keras' classes and those of this package from others, which may compute anything."""
    return kind.__module__.partition(".")[0] in ("keras", "mexit_edge")


def _of_relu(layer: Any) -> Int8Support:
    """Judge a ReLU by its options: only some of them are an operator of TFLite."""
    if layer.threshold:
        return Int8Support(
            False, "a threshold takes GREATER, which has no int8 form", "Use ReLU without `threshold`."
        )
    if layer.max_value is not None and layer.negative_slope:
        return Int8Support(
            False,
            "a slope below zero with a largest value takes NEG, which has no int8 form",
            "Use one of `max_value` and `negative_slope`.",
        )
    return Int8Support(True)


def _of_recurrent(layer: Any) -> Int8Support:
    if isinstance(layer, layers.LSTM | layers.GRU | layers.SimpleRNN) and layer.unroll:
        return Int8Support(True, "one set of operators per time step", "Use convolutions for fewer.")
    way_out = "Use convolutions."
    if isinstance(layer, layers.LSTM | layers.GRU | layers.SimpleRNN):
        way_out = "Use `unroll=True`, or convolutions."
    return Int8Support(False, "it is a loop, which crashes the converter", way_out)


def _of_operation(name: str) -> Int8Support:
    if name == "Cast":
        return Int8Support(None, "only a cast that changes nothing converts", "Leave it out.")
    if name in _BLOCKING_OPERATIONS:
        return Int8Support(False, *_BLOCKING_OPERATIONS[name])
    if name.lower() in _BLOCKING_ACTIVATIONS:
        return Int8Support(False, _BLOCKING_ACTIVATIONS[name.lower()], "Use relu or leaky_relu.")
    if name in _OPERATIONS_ON_LITERT_ONLY:
        return _on_litert_only(_OPERATIONS_ON_LITERT_ONLY[name])
    return Int8Support(True) if name in _CONVERTING_OPERATIONS or is_known(name) else _unknown(name)


def _of_activation(layer: Any, call: LayerCall) -> Int8Support:
    """Judge a layer by its activation, once its kind is no obstacle."""
    own = type(layer).__module__.startswith("mexit_edge.")
    if not (own or is_known(layer)):
        return _unknown(type(layer).__name__)
    activation = getattr(layer, "activation", None)
    if isinstance(activation, keras.layers.Layer):
        return _of_layer(activation, call)
    name = activation_name(activation)
    if name in _ACTIVATIONS_ON_LITERT_ONLY:
        return _on_litert_only(_ACTIVATIONS_ON_LITERT_ONLY[name])
    if name in _ACTIVATIONS:
        if name == "softmax" or isinstance(layer, layers.Softmax):
            return Int8Support(
                True, "it takes an exponential per element", "Leave it out at exits, which take logits."
            )
        return Int8Support(True)
    if name in _BLOCKING_ACTIVATIONS:
        return Int8Support(False, f"{name}: {_BLOCKING_ACTIVATIONS[name]}", "Use relu or leaky_relu.")
    return _unknown(f"the activation {getattr(activation, '__name__', type(activation).__name__)}")


def _on_litert_only(lacking: str) -> Int8Support:
    return Int8Support(
        True, f"TFLM does not run it: it has no int8 {lacking}", "Use another layer on a device."
    )


def _unknown(what: str) -> Int8Support:
    return Int8Support(None, f"{what} was not tried", "Convert the network to see.")
