"""What layers without weights become in the height-1 form of a network (see `folding`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import keras

from mexit_edge.compress.flat_graph import Call
from mexit_edge.errors import InputError
from mexit_edge.models.int8_support import layer_suggestion
from mexit_edge.models.join import SelectChannels, slices_of
from mexit_edge.models.running_sum import RunningSum

layers = keras.layers


class Folder(Protocol):
    """What a rule needs of the folding under way."""

    def once(self, call: Call, make: Callable[[], Any], part: str = "") -> Any:
        """Return the new layer for a part of an old one, made at the first of its calls."""

    def rank(self, number: int) -> int:
        """Return the rank of a tensor of the old network, the batch included."""

    def shape(self, number: int) -> tuple[int | None, ...]:
        """Return the shape of a tensor of the old network, the batch first."""

    def activated(self, call: Call, tensor: Any, activation: Any) -> Any:
        """Return the activation of a tensor, as a layer of its own."""


Rule = Callable[[Folder, Call, list[Any]], Any]

# Of layers that int8 operators do stand for: what they do not have is a fake quantization.
_ADVICE = {
    "Normalization": "Normalise the windows before the network.",
    "Rescaling": "Normalise the windows before the network.",
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional"), "Use convolutions."),
}
_OTHER_ADVICE = "Replace it, or quantize the network after training, without fake quantization."


def refused(call: Call, advice: str | None = None) -> InputError:
    """Return the error for a layer without a form that int8 kernels have."""
    kind = type(call.layer).__name__
    advice = advice or _ADVICE.get(kind) or layer_suggestion(call.layer) or _OTHER_ADVICE
    return InputError(
        "`network` must consist of layers that fake quantization knows. Received: the layer "
        f"{call.name!r} ({kind}). {advice}"
    )


def rule_of(layer: Any) -> Rule | None:
    """Return the rule of a layer, or of an operation of `keras.ops`; None where there is none."""
    if not isinstance(layer, layers.Layer):
        return _OPERATIONS.get(type(layer).__name__)
    return next((rule for kind, rule in _RULES.items() if isinstance(layer, kind)), None)


def _pooling(kind: type) -> Rule:
    def rule(folder: Folder, call: Call, inputs: list[Any]) -> Any:
        layer = call.layer
        _refuse_channels_first(call)
        sizes = [tuple(layer.pool_size), tuple(layer.strides)]
        if folder.rank(call.inputs[0]) == 3:
            sizes = [(1, *size) for size in sizes]
        return folder.once(call, lambda: kind(*sizes, layer.padding, name=call.name))(inputs[0])

    return rule


def _global_pooling(kind: type) -> Rule:
    def rule(folder: Folder, call: Call, inputs: list[Any]) -> Any:
        _refuse_channels_first(call)
        return folder.once(call, lambda: kind(keepdims=call.layer.keepdims, name=call.name))(inputs[0])

    return rule


def _margins(kind: type, option: str) -> Rule:
    """Return the rule of a layer that adds or removes samples at both ends of its axes."""

    def rule(folder: Folder, call: Call, inputs: list[Any]) -> Any:
        _refuse_channels_first(call)
        margins = getattr(call.layer, option)
        if folder.rank(call.inputs[0]) == 3:
            margins = ((0, 0), tuple(margins))
        return folder.once(call, lambda: kind(margins, name=call.name))(inputs[0])

    return rule


def _merging(kind: type) -> Rule:
    def rule(folder: Folder, call: Call, inputs: list[Any]) -> Any:
        _refuse_mixed_ranks(folder, call)
        return folder.once(call, lambda: kind(name=call.name))(inputs)

    return rule


def _concatenate(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    _refuse_mixed_ranks(folder, call)
    rank = folder.rank(call.output)
    axis = call.layer.axis % rank
    # The height of 1 has moved the axes behind the batch.
    axis += rank == 3
    return folder.once(call, lambda: layers.Concatenate(axis, name=call.name))(inputs)


def _reshape(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    target = folder.shape(call.output)[1:]
    if len(target) not in (1, 2, 3):
        raise refused(call, "Use shapes (features,), (time, channels) or (height, width, channels).")
    if len(target) == 2:
        target = (1, *target)
    return folder.once(call, lambda: layers.Reshape(target, name=call.name))(inputs[0])


def _flatten(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    _refuse_channels_first(call)
    return folder.once(call, lambda: layers.Flatten(name=call.name))(inputs[0])


def _dropout(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    layer = call.layer
    if layer.noise_shape is not None:
        raise refused(call, "Use a dropout without noise_shape, or SpatialDropout.")
    return folder.once(call, lambda: layers.Dropout(layer.rate, seed=layer.seed, name=call.name))(inputs[0])


def _spatial_dropout(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    _refuse_channels_first(call)
    layer = call.layer
    return folder.once(call, lambda: layers.SpatialDropout2D(layer.rate, seed=layer.seed, name=call.name))(
        inputs[0]
    )


def _noise(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    layer = call.layer
    return folder.once(call, lambda: layers.GaussianNoise(layer.stddev, layer.seed, name=call.name))(
        inputs[0]
    )


def _identity(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    return folder.once(call, lambda: layers.Identity(name=call.name))(inputs[0])


def _activation(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    layer = call.layer
    return folder.activated(
        call, inputs[0], layer.activation if isinstance(layer, layers.Activation) else layer
    )


def _running_sum(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    return folder.once(call, lambda: RunningSum(call.layer.ratio, name=call.name))(inputs)


def _select_channels(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    if folder.rank(call.inputs[0]) != 3:
        raise refused(call, "Use it on (batch, time, channels).")
    parts = [inputs[0][:, :, :, slice(*bounds)] for bounds in slices_of(call.layer.channels)]
    if len(parts) == 1:
        return parts[0]
    return folder.once(call, lambda: layers.Concatenate(-1, name=call.name))(parts)


def _two(kind: type) -> Rule:
    """Return the rule of an operator between two tensors, such as `a + b`."""

    def rule(folder: Folder, call: Call, inputs: list[Any]) -> Any:
        if len(inputs) != 2:
            raise refused(call, "Use it between two tensors, not with a constant.")
        _refuse_mixed_ranks(folder, call)
        return folder.once(call, lambda: kind(name=call.name))(inputs)

    return rule


def _relu(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    return folder.once(call, lambda: layers.ReLU(name=call.name))(inputs[0])


def _slice(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    key = call.arguments.args[1] if len(call.arguments.args) > 1 else call.arguments.kwargs["key"]
    parts = list(key) if isinstance(key, tuple) else [key]
    if not all(isinstance(part, slice) for part in parts) or parts[0] != slice(None):
        raise refused(call, "Slice with ranges such as x[:, 2:6], the batch as a whole.")
    if folder.rank(call.inputs[0]) == 3:
        parts.insert(1, slice(None))
    return inputs[0][tuple(parts)]


def _refuse_mixed_ranks(folder: Folder, call: Call) -> None:
    ranks = sorted({folder.rank(number) for number in call.inputs})
    if len(ranks) > 1:
        raise refused(call, f"Give its inputs the same rank; they have {ranks}, the batch included.")


def _refuse_channels_first(call: Call) -> None:
    if getattr(call.layer, "data_format", None) == "channels_first":
        raise refused(call, "Use channels_last.")


_RULES: dict[type, Rule] = {
    layers.MaxPooling1D: _pooling(layers.MaxPooling2D),
    layers.MaxPooling2D: _pooling(layers.MaxPooling2D),
    layers.AveragePooling1D: _pooling(layers.AveragePooling2D),
    layers.AveragePooling2D: _pooling(layers.AveragePooling2D),
    layers.GlobalMaxPooling1D: _global_pooling(layers.GlobalMaxPooling2D),
    layers.GlobalMaxPooling2D: _global_pooling(layers.GlobalMaxPooling2D),
    layers.GlobalAveragePooling1D: _global_pooling(layers.GlobalAveragePooling2D),
    layers.GlobalAveragePooling2D: _global_pooling(layers.GlobalAveragePooling2D),
    layers.ZeroPadding1D: _margins(layers.ZeroPadding2D, "padding"),
    layers.ZeroPadding2D: _margins(layers.ZeroPadding2D, "padding"),
    layers.Cropping1D: _margins(layers.Cropping2D, "cropping"),
    layers.Cropping2D: _margins(layers.Cropping2D, "cropping"),
    layers.Add: _merging(layers.Add),
    layers.Subtract: _merging(layers.Subtract),
    layers.Multiply: _merging(layers.Multiply),
    layers.Concatenate: _concatenate,
    layers.Reshape: _reshape,
    layers.Flatten: _flatten,
    layers.SpatialDropout1D: _spatial_dropout,
    layers.SpatialDropout2D: _spatial_dropout,
    layers.Dropout: _dropout,
    layers.GaussianNoise: _noise,
    layers.Identity: _identity,
    layers.ActivityRegularization: _identity,
    layers.Activation: _activation,
    layers.ReLU: _activation,
    layers.LeakyReLU: _activation,
    layers.Softmax: _activation,
    RunningSum: _running_sum,
    SelectChannels: _select_channels,
}
# Operators on Keras tensors have classes without public names.
_OPERATIONS: dict[str, Rule] = {
    "Add": _two(layers.Add),
    "Subtract": _two(layers.Subtract),
    "Multiply": _two(layers.Multiply),
    "Relu": _relu,
    "GetItem": _slice,
}
