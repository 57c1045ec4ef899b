"""Which tf_keras layers stand for a layer of Keras 3, in the form NHWC of height 1.

A tensor (batch, time, channels) of Keras 3 is (batch, 1, time, channels) here; all others keep their shape.
Weights keep their order, and their values in memory: only kernels get another shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from mexit_edge.compress.height_1 import axis_of
from mexit_edge.compress.tfmot.activations import (
    ACTIVATION_LAYERS,
    Call,
    activation_of,
    no_such_option,
    part_of,
)
from mexit_edge.errors import InputError
from mexit_edge.models.join import SelectChannels
from mexit_edge.models.running_sum import RunningSum


@dataclass(frozen=True, eq=False)
class Translated:
    """What stands for one layer.

    Args:
        calls: applied one after the other.
        main: the layer among them that holds the weights; None where there are none.
    """

    calls: tuple[Call, ...]
    main: Any | None = None

    def __call__(self, tensors: Sequence[Any]) -> Any:
        """Apply to the layer's inputs."""
        value: Any = tensors[0] if len(tensors) == 1 else list(tensors)
        for call in self.calls:
            value = call(value)
        return value


def translate(layer: Any, tf_keras: Any, name: str, rank: int) -> Translated:
    """Return what stands for a layer.

    Args:
        layer: of Keras 3.
        tf_keras: the module.
        name: of the new layer.
        rank: of the layer's first input, in Keras 3.

    Raises:
        InputError: there is nothing that stands for such a layer, or for one of its options; by name.
    """
    # By exact type: a subclass of somebody's own may compute anything, whatever it inherits from.
    rule = _RULES.get(type(layer))
    if rule is None:
        raise InputError(
            "`network` must consist of layers that the bridge to tf_keras knows. Received: the layer "
            f"{layer.name!r} ({type(layer).__name__}). Known: {', '.join(known_layers())}."
        )
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise no_such_option(layer, "data_format", layer.data_format)
    return rule(layer, tf_keras.layers, name, rank)


def known_layers() -> list[str]:
    """Return the names of the layers that `translate` takes."""
    return sorted(kind.__name__ for kind in _RULES)


def _high(sizes: Any, one_dimensional: bool) -> tuple[int, int]:
    """Return (height, width) of sizes of a 1-D or 2-D layer."""
    sizes = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    return (1, *sizes) if one_dimensional else sizes


def _convolution(layer: Any, k: Any, name: str, rank: int) -> Translated:
    flat = rank == 3
    kernel, dilation = _high(layer.kernel_size, flat), _high(layer.dilation_rate, flat)
    activation, after = activation_of(layer, k, name, rank)
    before: tuple[Call, ...] = ()
    padding = layer.padding
    if padding == "causal":
        edge = (dilation[1] * (kernel[1] - 1), 0)
        before = (k.ZeroPadding2D(((0, 0), edge), name=part_of(name, "causal")),)
        padding = "valid"
    strides = _high(layer.strides, flat)
    options = {
        "kernel_size": kernel,
        "padding": padding,
        "dilation_rate": dilation,
        "activation": activation,
        "use_bias": layer.use_bias,
        "name": name,
    }
    if isinstance(layer, keras.layers.Conv1D | keras.layers.Conv2D):
        main = k.Conv2D(layer.filters, strides=strides, groups=layer.groups, **options)
    else:
        # TensorFlow has depthwise convolutions of equal strides only; on a height of 1 that changes nothing.
        if not flat and strides[0] != strides[1]:
            raise no_such_option(layer, "strides", strides)
        options |= {"strides": (strides[1],) * 2, "depth_multiplier": layer.depth_multiplier}
        if isinstance(layer, keras.layers.DepthwiseConv1D | keras.layers.DepthwiseConv2D):
            main = k.DepthwiseConv2D(**options)
        else:
            main = k.SeparableConv2D(layer.filters, **options)
    return Translated((*before, main, *after), main)


def _dense(layer: Any, k: Any, name: str, rank: int) -> Translated:
    activation, after = activation_of(layer, k, name, rank)
    if rank == 2:
        main = k.Dense(layer.units, activation=activation, use_bias=layer.use_bias, name=name)
    else:
        main = k.Conv2D(layer.units, (1, 1), activation=activation, use_bias=layer.use_bias, name=name)
    return Translated((main, *after), main)


def _normalisation(layer: Any, k: Any, name: str, rank: int) -> Translated:
    if layer.axis % rank != rank - 1:
        raise no_such_option(layer, "axis", layer.axis)
    main = k.BatchNormalization(
        momentum=layer.momentum,
        epsilon=layer.epsilon,
        center=layer.center,
        scale=layer.scale,
        name=name,
    )
    return Translated((main,), main)


def _activation_layer(layer: Any, k: Any, name: str, rank: int) -> Translated:
    activation, after = activation_of(layer, k, name, rank)
    return Translated(after or (k.Activation(activation, name=name),))


def _pooling(kind: str) -> Callable[..., Translated]:
    def rule(layer: Any, k: Any, name: str, rank: int) -> Translated:
        flat = rank == 3
        made = getattr(k, kind)(
            _high(layer.pool_size, flat), _high(layer.strides, flat), padding=layer.padding, name=name
        )
        return Translated((made,))

    return rule


def _global_pooling(kind: str) -> Callable[..., Translated]:
    return lambda layer, k, name, rank: Translated((getattr(k, kind)(keepdims=layer.keepdims, name=name),))


def _merge(kind: str) -> Callable[..., Translated]:
    return lambda layer, k, name, rank: Translated((getattr(k, kind)(name=name),))


def _edges(kind: str, option: str) -> Callable[..., Translated]:
    """Return the rule of padding and cropping."""

    def rule(layer: Any, k: Any, name: str, rank: int) -> Translated:
        sizes = getattr(layer, option)
        return Translated((getattr(k, kind)(((0, 0), tuple(sizes)) if rank == 3 else sizes, name=name),))

    return rule


def _upsampling(layer: Any, k: Any, name: str, rank: int) -> Translated:
    size = _high(layer.size, rank == 3)
    return Translated(
        (k.UpSampling2D(size, interpolation=getattr(layer, "interpolation", "nearest"), name=name),)
    )


def _reshape(layer: Any, k: Any, name: str, rank: int) -> Translated:
    target = tuple(layer.target_shape)
    return Translated((k.Reshape((1, *target) if len(target) == 2 else target, name=name),))


def _dropout(layer: Any, k: Any, name: str, rank: int) -> Translated:
    if layer.noise_shape is not None:
        raise no_such_option(layer, "noise_shape", layer.noise_shape)
    return Translated((k.Dropout(layer.rate, name=name),))


def _running_sum(layer: Any, k: Any, name: str, rank: int) -> Translated:
    import tensorflow as tf

    constant = k.Lambda(tf.stop_gradient, name=part_of(name, "constant"))
    scaled, total = k.Rescaling(layer.ratio, name=part_of(name, "scaled")), k.Add(name=name)
    return Translated((lambda both: total([both[0], scaled(constant(both[1]))]),))


def _select_channels(layer: Any, k: Any, name: str, rank: int) -> Translated:
    import tensorflow as tf

    return Translated((lambda window: tf.gather(window, layer.channels, axis=-1),))


def _concatenate(layer: Any, k: Any, name: str, rank: int) -> Translated:
    return Translated((k.Concatenate(axis_of(layer, layer.axis, rank), name=name),))


def _one(make: Callable[[Any, Any, str, int], Any]) -> Callable[..., Translated]:
    """Return the rule of a layer without weights that one layer stands for."""
    return lambda layer, k, name, rank: Translated((make(layer, k, name, rank),))


_L = keras.layers
_RULES: dict[type, Callable[[Any, Any, str, int], Translated]] = {
    **dict.fromkeys((_L.Conv1D, _L.Conv2D, _L.DepthwiseConv1D, _L.DepthwiseConv2D), _convolution),
    **dict.fromkeys((_L.SeparableConv1D, _L.SeparableConv2D), _convolution),
    _L.Dense: _dense,
    _L.BatchNormalization: _normalisation,
    _L.Activation: _activation_layer,
    **{kind: _one(make) for kind, make in ACTIVATION_LAYERS.items()},
    **{kind: _pooling("MaxPooling2D") for kind in (_L.MaxPooling1D, _L.MaxPooling2D)},
    **{kind: _pooling("AveragePooling2D") for kind in (_L.AveragePooling1D, _L.AveragePooling2D)},
    _L.GlobalAveragePooling1D: _global_pooling("GlobalAveragePooling2D"),
    _L.GlobalAveragePooling2D: _global_pooling("GlobalAveragePooling2D"),
    _L.GlobalMaxPooling1D: _global_pooling("GlobalMaxPooling2D"),
    _L.GlobalMaxPooling2D: _global_pooling("GlobalMaxPooling2D"),
    **{getattr(_L, kind): _merge(kind) for kind in ("Add", "Subtract", "Multiply", "Average")},
    **{getattr(_L, kind): _merge(kind) for kind in ("Maximum", "Minimum")},
    _L.Concatenate: _concatenate,
    **{kind: _edges("ZeroPadding2D", "padding") for kind in (_L.ZeroPadding1D, _L.ZeroPadding2D)},
    **{kind: _edges("Cropping2D", "cropping") for kind in (_L.Cropping1D, _L.Cropping2D)},
    **dict.fromkeys((_L.UpSampling1D, _L.UpSampling2D), _upsampling),
    _L.Flatten: _one(lambda layer, k, name, rank: k.Flatten(name=name)),
    _L.Reshape: _reshape,
    _L.Rescaling: _one(lambda layer, k, name, rank: k.Rescaling(layer.scale, layer.offset, name=name)),
    _L.Dropout: _dropout,
    _L.GaussianNoise: _one(lambda layer, k, name, rank: k.GaussianNoise(layer.stddev, name=name)),
    _L.SpatialDropout1D: _one(lambda layer, k, name, rank: k.SpatialDropout2D(layer.rate, name=name)),
    _L.SpatialDropout2D: _one(lambda layer, k, name, rank: k.SpatialDropout2D(layer.rate, name=name)),
    # In inference and in training alike; regularisers stay behind.
    **dict.fromkeys((_L.Identity, _L.ActivityRegularization), lambda layer, k, name, rank: Translated(())),
    RunningSum: _running_sum,
    SelectChannels: _select_channels,
}
