"""What is known before conversion to fail in it: refused here, with the reason."""

from __future__ import annotations

import math
import re
from keyword import iskeyword

import keras
import numpy as np

from mexit_edge.errors import InputError
from mexit_edge.tflite.audit import instead_of

# Of weights. The largest microcontroller network has a hundredth of it; past it the converter takes minutes
# and several times the memory.
LARGEST_BYTES = 256 << 20
_ARGUMENT_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.-]*")


def check_convertible(network: keras.Model) -> None:
    """Refuse a network that the converter cannot take.

    Raises:
        InputError: it is not functional, has a rolled recurrent layer, an input whose shape is not static,
            which does not take float32 or, among several, whose name TensorFlow does not take, a layer that
            computes in another type, more than 256 MiB of weights, or a weight that is not finite.
    """
    if not (isinstance(network, keras.Model) and getattr(network, "inputs", None)):
        raise InputError(
            f"`network` must be a functional Keras model. Received: {type(network).__name__}. "
            "Use `model.network` of a `MultiExitModel`."
        )
    _refuse_rolled_recurrence(network)
    for tensor in network.inputs:
        _refuse_dynamic(tensor)
    _refuse_input_names(network)
    _refuse_other_types(network)
    _refuse_large(network)
    for weight in network.weights:
        if not np.isfinite(np.asarray(weight)).all():
            raise InputError(
                f"`network` must have finite weights. Received: NaN or infinity in {weight.path!r}. "
                "Train again with a smaller learning rate or `clipnorm`."
            )


def refused(network: keras.Model, operators: dict[str, str], kind: str) -> InputError:
    """Make the error for operators that the converter has no form of some kind for.

    Args:
        network: before conversion.
        operators: name -> scope of a tensor, "" where it is not known.
        kind: of the quantization.
    """
    named = []
    for operator, scope in operators.items():
        layer = layer_of(network, scope)
        named.append(operator if layer is None else f"{operator} of the layer {layer}")
    return InputError(
        f"`network` must consist of operators that TFLite has a form for in {kind!r}. "
        f"Received: {', '.join(named)}. Replace the layer that makes it{instead_of(*operators)}."
    )


def layer_of(network: keras.Model, tensor: str) -> str | None:
    """Return the layer that a tensor of a converted network came from, as its name and type.

    Args:
        network: before conversion.
        tensor: name in the .tflite: paths of scopes, ``functional_1/norm_1/Neg;...``. Each scope is a layer's
            name, and mostly a number that makes it unique.

    Returns:
        The innermost layer of the first path, for example ``"'norm' (LayerNormalization)"``; None where the
        name tells of none.
    """
    types = {layer.name: type(layer).__name__ for layer in network._flatten_layers(include_self=False)}
    for scope in reversed(tensor.partition(";")[0].split("/")[1:-1]):
        for name in (re.sub(r"_\d+$", "", scope), scope):
            if name in types:
                return f"{name!r} ({types[name]})"
    return None


def _refuse_rolled_recurrence(network: keras.Model) -> None:
    # Converting one to int8 kills the process that does it. Wrappers and nested models are looked into.
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.RNN) and not getattr(layer, "unroll", False):
            raise InputError(
                "`network` must consist of layers that can be converted. Received: the recurrent layer "
                f"{layer.name!r} ({type(layer).__name__}), a loop, which crashes the converter. "
                "Use `unroll=True`, or a convolutional network."
            )


def _refuse_dynamic(tensor: keras.KerasTensor) -> None:
    batch, *shape = tensor.shape
    if None in shape or batch not in (None, 1):
        raise InputError(
            "`network` must have inputs of a static shape, with a free batch or one of 1. "
            f"Received: {tensor.name!r} of shape {tuple(tensor.shape)}. "
            "Build it with a fixed window: `keras.Input((window, channels))`."
        )
    if tensor.dtype != "float32":
        raise InputError(
            f"`network` must have float32 inputs. Received: {tensor.name!r} of type {tensor.dtype}."
        )


def _refuse_input_names(network: keras.Model) -> None:
    # Several inputs go through TensorFlow as named arguments; a single one goes by its place.
    names = [tensor.name for tensor in network.inputs]
    fits = all(_ARGUMENT_NAME.fullmatch(name) and not iskeyword(name) for name in names)
    distinct = {re.sub(r"\W", "_", name).lower() for name in names}
    if len(names) > 1 and not (fits and len(distinct) == len(names)):
        raise InputError(
            "`network` must have inputs that TensorFlow can tell by name, where there are several: of "
            "letters, digits and underscores, no underscore first, and different in more than upper case. "
            f"Received: {', '.join(map(repr, names))}. Rename them, as in `keras.Input(shape, name='acc')`."
        )


def _refuse_other_types(network: keras.Model) -> None:
    for layer in network._flatten_layers(include_self=False):
        if layer.compute_dtype != "float32":
            raise InputError(
                f"`network` must compute in float32. Received: the layer {layer.name!r} "
                f"({type(layer).__name__}) in {layer.compute_dtype}. Build the same network under "
                '`keras.config.set_dtype_policy("float32")`, and give it the weights by `set_weights`.'
            )


def _refuse_large(network: keras.Model) -> None:
    n_bytes = sum(math.prod(weight.shape) * 4 for weight in network.weights)
    if n_bytes > LARGEST_BYTES:
        raise InputError(
            f"`network` must have at most {LARGEST_BYTES} bytes of float32 weights. Received: {n_bytes}. "
            "Use fewer filters; a microcontroller holds a hundredth of that."
        )
