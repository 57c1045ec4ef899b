"""Multiply-accumulates of a call of a Keras layer.

Counted are the products of matrices and convolutions, those on padding included, as
`mexit_edge.estimate.operations` counts them in the converted model. Normalisation, pooling, activations and
other element-wise work counts as 0, as there. What is in no table of this module is unknown, not 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import keras
from keras import layers

from mexit_edge.models.layer_calls import LayerCall

Rule = Callable[[LayerCall], int | None]


def layer_macs(call: LayerCall) -> int | None:
    """Return the multiply-accumulates of one call on one window.

    Args:
        call: of any layer or operation.

    Returns:
        The count; None where it is unknown: the layer is in no table, or a shape is not static.
    """
    for kind in type(call.layer).__mro__:
        if kind in _RULES:
            return _RULES[kind](call)
        if kind in _WITHOUT_MACS:
            return 0
    if isinstance(call.layer, keras.layers.Layer):
        # Those layers of this package that have products are derived from Keras' own.
        return 0 if type(call.layer).__module__.startswith("mexit_edge.") else None
    return _operation_macs(call)


def is_known(layer: Any) -> bool:
    """Tell whether a layer, or an operation by the name of its class, is in the tables of this module."""
    if isinstance(layer, str):
        return layer in _ELEMENTWISE_OPERATIONS
    return any(kind in _RULES or kind in _WITHOUT_MACS for kind in type(layer).__mro__)


def _size(tensor: Any) -> int | None:
    """Return the elements of a tensor for one window."""
    shape = tensor.shape[1:]
    return None if None in shape else prod(shape)


def _positions(tensor: Any, layer: Any) -> int | None:
    """Return the positions (time, or height times width) of a feature map."""
    shape = tensor.shape[2:] if layer.data_format == "channels_first" else tensor.shape[1:-1]
    return None if None in shape else prod(shape)


def _times(factor: int, count: int | None) -> int | None:
    return None if count is None else factor * count


def _dense(call: LayerCall) -> int | None:
    return _times(call.inputs[0].shape[-1], _size(call.outputs[0]))


def _einsum_dense(call: LayerCall) -> int | None:
    """Each weight meets every position of the axes that it does not have itself."""
    layer = call.layer
    terms, _, result = layer.equation.partition("->")
    source, weights = terms.split(",")
    # The letters behind an ellipsis are not known; a letter of the input alone is summed before.
    if "." in layer.equation or not set(source) <= set(result) | set(weights):
        return None
    shape = dict(zip(result, call.outputs[0].shape, strict=True))
    sizes = [shape[letter] for letter in result[1:] if letter not in weights]
    return None if None in sizes else prod(layer.kernel.shape) * prod(sizes)


def _convolution(call: LayerCall) -> int | None:
    """Each weight is used once per position of the output."""
    return _times(prod(call.layer.kernel.shape), _positions(call.outputs[0], call.layer))


def _transposed_convolution(call: LayerCall) -> int | None:
    """Each weight is used once per position of the input."""
    return _times(prod(call.layer.kernel.shape), _positions(call.inputs[0], call.layer))


def _separable(call: LayerCall) -> int | None:
    layer = call.layer
    weights = prod(layer.depthwise_kernel.shape) + prod(layer.pointwise_kernel.shape)
    return _times(weights, _positions(call.outputs[0], layer))


def _recurrent(call: LayerCall) -> int | None:
    """Each weight is used once per time step, but for a first state of zeros, which nobody multiplies."""
    cell, steps = call.layer.cell, call.inputs[0].shape[1]
    if steps is None:
        return None
    starts_at_zero = len(call.inputs) == 1 and not call.layer.stateful
    of_state = prod(cell.recurrent_kernel.shape) * (steps - starts_at_zero)
    return int(prod(cell.kernel.shape) * steps + of_state)


def _bidirectional(call: LayerCall) -> int | None:
    both = (call.layer.forward_layer, call.layer.backward_layer)
    counts = [layer_macs(replace(call, layer=layer)) for layer in both]
    return None if None in counts else sum(count for count in counts if count is not None)


def _time_distributed(call: LayerCall) -> int | None:
    """The wrapped layer runs once per time step."""
    steps = call.outputs[0].shape[1]
    one_step = [
        tuple(keras.KerasTensor((None, *tensor.shape[2:])) for tensor in tensors)
        for tensors in (call.inputs, call.outputs)
    ]
    count = layer_macs(LayerCall(call.name, call.layer.layer, *one_step))
    return None if steps is None else _times(steps, count)


def _wrapped(call: LayerCall) -> int | None:
    return layer_macs(replace(call, layer=call.layer.layer))


_RULES: dict[type, Rule] = {
    layers.Dense: _dense,
    layers.EinsumDense: _einsum_dense,
    layers.Conv1D: _convolution,
    layers.Conv2D: _convolution,
    layers.Conv3D: _convolution,
    layers.DepthwiseConv1D: _convolution,
    layers.DepthwiseConv2D: _convolution,
    layers.SeparableConv1D: _separable,
    layers.SeparableConv2D: _separable,
    layers.Conv1DTranspose: _transposed_convolution,
    layers.Conv2DTranspose: _transposed_convolution,
    layers.Conv3DTranspose: _transposed_convolution,
    layers.SimpleRNN: _recurrent,
    layers.LSTM: _recurrent,
    layers.GRU: _recurrent,
    layers.Bidirectional: _bidirectional,
    layers.TimeDistributed: _time_distributed,
    layers.SpectralNormalization: _wrapped,
}

# fmt: off
_WITHOUT_MACS: frozenset[type] = frozenset({
    # They move, select or reshape data, or do nothing at inference.
    layers.ActivityRegularization, layers.AlphaDropout, layers.Concatenate, layers.Cropping1D,
    layers.Cropping2D, layers.Cropping3D, layers.Dropout, layers.Embedding, layers.Flatten,
    layers.GaussianDropout, layers.GaussianNoise, layers.Identity, layers.Masking, layers.Permute,
    layers.RepeatVector, layers.Reshape, layers.SpatialDropout1D, layers.SpatialDropout2D,
    layers.SpatialDropout3D, layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D,
    layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D,
    # They combine or map elements, or scale channels.
    layers.Activation, layers.Add, layers.Average, layers.BatchNormalization, layers.ELU,
    layers.GroupNormalization, layers.LayerNormalization, layers.LeakyReLU, layers.Maximum, layers.Minimum,
    layers.Multiply, layers.Normalization, layers.PReLU, layers.RMSNormalization, layers.ReLU,
    layers.Rescaling, layers.Softmax, layers.Subtract, layers.UnitNormalization,
    # They reduce.
    layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D, layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D, layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D, layers.MaxPooling1D, layers.MaxPooling2D,
    layers.MaxPooling3D,
})
# Operations of `keras.ops` by their class.
_ELEMENTWISE_OPERATIONS = frozenset({
    "Absolute", "Add", "Amax", "Amin", "BroadcastTo", "Cast", "Clip", "Concatenate", "Divide", "Elu",
    "Exp", "ExpandDims", "Flip", "Gelu", "GetItem", "HardSigmoid", "HardSilu", "HardTanh", "LeakyRelu", "Log",
    "Max", "Maximum", "Mean", "Min", "Minimum", "Multiply", "Negative", "Pad", "Power", "Reciprocal", "Relu",
    "Relu6", "Repeat", "Reshape", "Rsqrt", "Sigmoid", "Silu", "Softmax", "Softplus", "Split", "Sqrt",
    "Square", "Squeeze", "Stack", "Std", "Subtract", "Sum", "Take", "Tanh", "Tile", "Transpose", "TrueDivide",
    "Var",
})
# fmt: on


def _operation_macs(call: LayerCall) -> int | None:
    kind = type(call.layer).__name__
    if kind == "Matmul" and len(call.inputs) == 2:
        return _times(call.inputs[0].shape[-1] or 0, _size(call.outputs[0])) or None
    return 0 if kind in _ELEMENTWISE_OPERATIONS else None
