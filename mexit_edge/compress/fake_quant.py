"""Layers that compute in float what the int8 model will compute: weights and activations on 255 or 256 steps.

The gradient takes the rounding as the identity (straight through) and is 0 where a range clips. It is made of
operations that can be differentiated again, which those of `tf.quantization` cannot: the regime `weighted`
needs that.

Reference:
    Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", arXiv 1712.05877.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from mexit_edge.models.running_sum import RunningSum

# Batches that the range from calibration counts for, once training moves it.
MEMORY = 50
# A range that is a point has no scale.
SMALLEST_WIDTH = 1e-6
# A channel of nearly no weights gets a thousandth of the layer's largest range: with a scale of its own its
# bias, in units of that scale, would not fit int32. Likewise a sum that is nearly always 0, of its parts.
SMALLEST_SHARE, SMALLEST_WEIGHT = 1 / 1024, 1e-5


@keras.saving.register_keras_serializable("mexit_edge")
class FakeQuant(keras.layers.Layer):
    """Puts activations on the 256 steps between the ends of a range that holds 0.

    In training the range follows the extremes of the batches: it is their mean, each batch counting alike and
    the range from calibration as ``memory`` of them. So it moves less and less, and train and export agree.

    Called with a tensor, or with several that shall have one range.

    Args:
        memory: number of batches that the range counts for before the first one; None for a range that never
            moves.
        low: lower end, at most 0.
        high: upper end, at least 0.
    """

    def __init__(
        self, memory: float | None = MEMORY, low: float = 0.0, high: float = 0.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.memory, self._start = memory, (low, high)
        self.low, self.high, self.n_batches = (
            self.add_weight(
                shape=(), initializer=keras.initializers.Constant(value), trainable=False, name=name
            )
            for name, value in (("low", low), ("high", high), ("n_batches", 0.0))
        )
        self.built = True
        self.calibrates = False

    def call(
        self,
        inputs: Any,
        training: bool | None = None,
        observe: bool = True,
        beside: Sequence[Any] = (),
        watched: Sequence[Any] = (),
    ) -> Any:
        """Return the tensors on the steps of the range.

        Args:
            inputs: a tensor or a list of them.
            training: whether the range follows the batch.
            observe: False for a tensor that only borrows the range.
            beside: what a sum is made of. The range reaches to a thousandth of it even where the sum is
                always 0: kernels abort on steps a million times finer than those of their inputs.
            watched: what the range follows instead of the inputs, which then come back as they are.
        """
        tensors = list(watched) or (list(inputs) if isinstance(inputs, list | tuple) else [inputs])
        moves = observe and self.memory is not None
        # A range that never moves is part of what the network computes, as the top of a ReLU is.
        if self.calibrates and self.memory is not None:
            if observe:
                low, high = self._extremes(tensors, beside)
                self.low.assign(keras.ops.minimum(self.low, low))
                self.high.assign(keras.ops.maximum(self.high, high))
            return inputs
        if training and moves:
            self._follow(tensors, beside)
        if watched:
            return inputs
        low = tf.convert_to_tensor(self.low)
        high = tf.maximum(tf.convert_to_tensor(self.high), low + SMALLEST_WIDTH)
        quantized = [_on_steps(tensor, low, high, bool(training)) for tensor in tensors]
        return quantized if isinstance(inputs, list | tuple) else quantized[0]

    def compute_output_spec(self, inputs: Any, *options: Any, **named: Any) -> Any:
        """Return tensors like the inputs."""
        return keras.tree.map_structure(lambda one: keras.KerasTensor(one.shape, one.dtype), inputs)

    def get_config(self) -> dict[str, Any]:
        """Return memory and ends with Keras' own options."""
        low, high = self._start
        return {**super().get_config(), "memory": self.memory, "low": low, "high": high}

    def _follow(self, tensors: Sequence[Any], beside: Sequence[Any]) -> None:
        low, high = self._extremes(tensors, beside)
        n_batches = self.n_batches + 1
        rate = 1 / (self.memory + n_batches)
        self.low.assign(self.low + rate * (low - self.low))
        self.high.assign(self.high + rate * (high - self.high))
        self.n_batches.assign(n_batches)

    def _extremes(self, tensors: Sequence[Any], beside: Sequence[Any]) -> tuple[Any, Any]:
        tensors = [tf.stop_gradient(tensor) for tensor in tensors]
        low = tf.reduce_min([tf.reduce_min(tensor) for tensor in tensors])
        high = tf.reduce_max([tf.reduce_max(tensor) for tensor in tensors])
        parts = [tf.reduce_max(tf.abs(tf.stop_gradient(tensor))) for tensor in beside]
        return tf.minimum(low, 0.0), tf.reduce_max([high, 0.0, *(SMALLEST_SHARE * part for part in parts)])


@keras.saving.register_keras_serializable("mexit_edge")
class FakeQuantConv2D(keras.layers.Conv2D):
    """A convolution whose kernel has 255 steps per output channel, symmetric around 0."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Convolve with the kernel on its steps."""
        outputs = keras.ops.conv(
            inputs,
            _kernel_on_steps(self.kernel, bool(training), per_channel=True),
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        return _with_bias_and_activation(self, outputs)


@keras.saving.register_keras_serializable("mexit_edge")
class FakeQuantDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """A depthwise convolution whose kernel has 255 steps per output channel, symmetric around 0."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Convolve with the kernel on its steps."""
        shape = self.kernel.shape
        # Ranges are per channel of the last axis: (channels, multiplier) become one axis for it.
        flat = keras.ops.reshape(self.kernel, (*shape[:2], shape[2] * shape[3]))
        outputs = keras.ops.depthwise_conv(
            inputs,
            keras.ops.reshape(_kernel_on_steps(flat, bool(training), per_channel=True), shape),
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        return _with_bias_and_activation(self, outputs)


@keras.saving.register_keras_serializable("mexit_edge")
class FakeQuantDense(keras.layers.Dense):
    """A dense layer on (batch, features) whose kernel has 255 steps, symmetric around 0."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Multiply by the kernel on its steps."""
        # One scale for the whole kernel: the converter fails on a matrix product with one per column.
        kernel = _kernel_on_steps(self.kernel, bool(training), per_channel=False)
        return _with_bias_and_activation(self, keras.ops.matmul(inputs, kernel))


@keras.saving.register_keras_serializable("mexit_edge")
class FakeQuantRunningSum(RunningSum):
    """A running sum whose product ratio * F_{e-1}, and which itself, is on 256 steps."""

    def __init__(self, ratio: float = 0.5, **options: Any) -> None:
        super().__init__(ratio, **options)
        self.product, self.total = FakeQuant(name="product"), FakeQuant(name="total")

    def call(self, inputs: Any) -> Any:
        """Return the sum."""
        own, before = inputs
        # Without a range of its own the constant, and the product with it, would stay float.
        ratio = tf.quantization.fake_quant_with_min_max_args(tf.constant(self.ratio), 0.0, self.ratio)
        return self.total(own + self.product(ratio * tf.stop_gradient(before)))


def carries_ranges(network: keras.Model) -> bool:
    """Return whether a network says the ranges of its activations itself, for a conversion without data."""
    return any(isinstance(layer, FakeQuant) for layer in network._flatten_layers())


def fake_quants(network: keras.Model) -> list[FakeQuant]:
    """Return the layers of a network that hold a range, those inside other layers included."""
    return [layer for layer in network._flatten_layers() if isinstance(layer, FakeQuant)]


def _on_steps(exact: Any, low: Any, high: Any, training: bool) -> Any:
    """Return activations on the 256 steps of a range."""
    rounded = tf.quantization.fake_quant_with_min_max_vars(exact, low, high)
    return _straight_through(tf.clip_by_value(exact, low, high), rounded) if training else rounded


def _kernel_on_steps(kernel: Any, training: bool, *, per_channel: bool) -> Any:
    """Return a kernel (..., output channels) on 255 steps around 0, its range per output channel or one."""
    exact = tf.convert_to_tensor(kernel)
    size = tf.abs(tf.stop_gradient(exact))
    largest = tf.maximum(tf.reduce_max(size), SMALLEST_WEIGHT)
    if per_channel:
        axes = list(range(len(exact.shape) - 1))
        end = tf.maximum(tf.reduce_max(size, axis=axes), largest * SMALLEST_SHARE)
        quantize = tf.quantization.fake_quant_with_min_max_vars_per_channel
    else:
        end, quantize = largest, tf.quantization.fake_quant_with_min_max_vars
    rounded = quantize(exact, -end, end, narrow_range=True)
    return _straight_through(exact, rounded) if training else rounded


def _straight_through(exact: Any, rounded: Any) -> Any:
    """Return the rounded values with the gradient of the exact ones.

    Only in training: the converter knows the plain operation alone.
    """
    return exact + tf.stop_gradient(rounded - exact)


def _with_bias_and_activation(layer: Any, outputs: Any) -> Any:
    if layer.use_bias:
        outputs = keras.ops.add(outputs, layer.bias)
    return outputs if layer.activation is None else layer.activation(outputs)
