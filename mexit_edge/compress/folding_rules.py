"""What layers without weights become in the height-1 form of a network (see `folding`)."""

from __future__ import annotations

from numbers import Real
from typing import Any

import keras

from mexit_edge.compress.flat_graph import Call
from mexit_edge.compress.folder import Folder, Rule, refuse_channels_first, refuse_mixed_ranks, refused
from mexit_edge.compress.folding_activations import ACTIVATION_LAYERS
from mexit_edge.compress.folding_merges import MERGES
from mexit_edge.compress.height_1 import axis_of
from mexit_edge.compress.operators import is_slice, slice_key
from mexit_edge.models.join import SelectChannels, slices_of
from mexit_edge.models.running_sum import RunningSum

layers = keras.layers


def rule_of(layer: Any) -> Rule | None:
    """Return the rule of a layer, or of a slice; None where there is none.

    By exact type: a subclass of somebody's own may compute anything, whatever it inherits from.
    """
    return _slice if is_slice(layer) else RULES.get(type(layer))


def _pooling(kind: type) -> Rule:
    def rule(folder: Folder, call: Call, inputs: list[Any]) -> Any:
        layer = call.layer
        refuse_channels_first(call)
        sizes = [tuple(layer.pool_size), tuple(layer.strides)]
        if folder.rank(call.inputs[0]) == 3:
            sizes = [(1, *size) for size in sizes]
        return folder.once(call, lambda name: kind(*sizes, layer.padding, name=name))(inputs[0])

    return rule


def _global_pooling(kind: type) -> Rule:
    def rule(folder: Folder, call: Call, inputs: list[Any]) -> Any:
        refuse_channels_first(call)
        return folder.once(call, lambda name: kind(keepdims=call.layer.keepdims, name=name))(inputs[0])

    return rule


def _margins(kind: type, option: str) -> Rule:
    """Return the rule of a layer that adds or removes samples at both ends of its axes."""

    def rule(folder: Folder, call: Call, inputs: list[Any]) -> Any:
        refuse_channels_first(call)
        margins = getattr(call.layer, option)
        if folder.rank(call.inputs[0]) == 3:
            margins = ((0, 0), tuple(margins))
        return folder.once(call, lambda name: kind(margins, name=name))(inputs[0])

    return rule


def _concatenate(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    refuse_mixed_ranks(folder, call)
    axis = axis_of(call.layer, call.layer.axis, folder.rank(call.output))
    return folder.once(call, lambda name: layers.Concatenate(axis, name=name))(inputs)


def _reshape(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    target = folder.shape(call.output)[1:]
    if len(target) not in (1, 2, 3):
        raise refused(call, "Use shapes (features,), (time, channels) or (height, width, channels).")
    if len(target) == 2:
        target = (1, *target)
    return folder.once(call, lambda name: layers.Reshape(target, name=name))(inputs[0])


def _upsampling(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    """Return each sample several times, by concatenating and reshaping: TFLM has no operator TILE."""
    layer = call.layer
    refuse_channels_first(call)
    if getattr(layer, "interpolation", "nearest") != "nearest":
        raise refused(call, 'Use interpolation="nearest".')
    high, wide = (1, layer.size) if folder.rank(call.inputs[0]) == 3 else layer.size
    _, height, width, channels = inputs[0].shape
    tensor = inputs[0]
    if wide > 1:
        copies = folder.once(call, lambda name: layers.Concatenate(3, name=name), "columns")([tensor] * wide)
        target = (height, wide * width, channels)
        part = "wide" if high > 1 else ""
        tensor = folder.once(call, lambda name: layers.Reshape(target, name=name), part)(copies)
    if high > 1:
        copies = folder.once(call, lambda name: layers.Concatenate(2, name=name), "rows")([tensor] * high)
        tensor = folder.once(
            call, lambda name: layers.Reshape((high * height, wide * width, channels), name=name)
        )(copies)
    return tensor


def _flatten(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    refuse_channels_first(call)
    return folder.once(call, lambda name: layers.Flatten(name=name))(inputs[0])


def _dropout(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    layer = call.layer
    if layer.noise_shape is not None:
        raise refused(call, "Use a dropout without noise_shape, or SpatialDropout.")
    return folder.once(call, lambda name: layers.Dropout(layer.rate, seed=layer.seed, name=name))(inputs[0])


def _spatial_dropout(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    refuse_channels_first(call)
    layer = call.layer
    return folder.once(call, lambda name: layers.SpatialDropout2D(layer.rate, seed=layer.seed, name=name))(
        inputs[0]
    )


def _noise(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    layer = call.layer
    return folder.once(call, lambda name: layers.GaussianNoise(layer.stddev, layer.seed, name=name))(
        inputs[0]
    )


def _identity(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    return folder.once(call, lambda name: layers.Identity(name=name))(inputs[0])


def _activation(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    layer = call.layer
    return folder.activated(
        call, inputs[0], layer.activation if isinstance(layer, layers.Activation) else layer
    )


def _running_sum(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    return folder.once(call, lambda name: RunningSum(call.layer.ratio, name=name))(inputs)


def _select_channels(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    if folder.rank(call.inputs[0]) != 3:
        raise refused(call, "Use it on (batch, time, channels).")
    parts = [inputs[0][:, :, :, slice(*bounds)] for bounds in slices_of(call.layer.channels)]
    if len(parts) == 1:
        return parts[0]
    return folder.once(call, lambda name: layers.Concatenate(-1, name=name))(parts)


def _slice(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    key = slice_key(call.arguments, folder.rank(call.inputs[0]))
    if key is None:
        raise refused(call, "Slice with ranges or indices such as x[:, 2:6], the batch as a whole.")
    part = inputs[0][key]
    # An index leaves an axis of one element.
    is_shorter = folder.rank(call.output) < folder.rank(call.inputs[0])
    return _reshape(folder, call, [part]) if is_shorter else part


def _rescaling(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    scale, offset, tensor = call.layer.scale, call.layer.offset, inputs[0]
    if not (isinstance(scale, Real) and isinstance(offset, Real)):
        raise refused(call, "Use one number for all channels, or BatchNormalization.")
    if scale != 1 and offset != 0:
        # Two int8 operators: each has a range.
        tensor = folder.once(call, lambda name: layers.Rescaling(scale, name=name), "scaled")(tensor)
        scale = 1.0
    return folder.once(call, lambda name: layers.Rescaling(scale, offset, name=name))(tensor)


RULES: dict[type, Rule] = {
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
    **MERGES,
    layers.Concatenate: _concatenate,
    layers.Reshape: _reshape,
    layers.UpSampling1D: _upsampling,
    layers.UpSampling2D: _upsampling,
    layers.Rescaling: _rescaling,
    layers.Flatten: _flatten,
    layers.SpatialDropout1D: _spatial_dropout,
    layers.SpatialDropout2D: _spatial_dropout,
    layers.Dropout: _dropout,
    layers.GaussianNoise: _noise,
    layers.Identity: _identity,
    layers.ActivityRegularization: _identity,
    **dict.fromkeys(ACTIVATION_LAYERS, _activation),
    RunningSum: _running_sum,
    SelectChannels: _select_channels,
}
