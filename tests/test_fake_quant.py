"""Layers that compute on the steps of int8: values, gradients, ranges that follow, files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tensorflow", reason="TensorFlow is not installed (the [train] extra)")

import keras
import tensorflow as tf

from mexit_edge.compress.fake_quant import (
    FakeQuant,
    FakeQuantConv2D,
    FakeQuantDense,
    FakeQuantDepthwiseConv2D,
    FakeQuantRunningSum,
    carries_ranges,
    fake_quants,
)

pytestmark = pytest.mark.train


def quantized(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """TFLite's quantization and back: 256 steps, one of which is 0 exactly."""
    scale = (high - low) / 255
    zero_point = np.round(-low / scale)
    return (np.clip(np.round(x / scale) + zero_point, 0, 255) - zero_point) * scale


@settings(max_examples=40, deadline=None)
@given(st.floats(-50, -0.01), st.floats(0.01, 50), st.integers(0, 99))
def test_values_are_on_the_steps_that_tflite_has(low: float, high: float, seed: int) -> None:
    x = np.random.default_rng(seed).uniform(1.5 * low, 1.5 * high, 200).astype(np.float32)
    found = np.asarray(FakeQuant(None, low, high)(x))
    scale = (high - low) / 255
    off = np.abs(found - quantized(x, low, high))
    # float32 and float64 may round a value in the middle between two steps, and the zero point, to either.
    assert (off < 0.01 * scale).mean() > 0.95 or np.abs(-low / scale % 1 - 0.5) < 1e-3
    assert off.max() < 1.01 * scale
    assert len(np.unique(np.round(found / scale))) <= 256
    assert float(FakeQuant(None, low, high)(np.zeros(1, np.float32))[0]) == 0


def test_gradient_is_that_of_clipping_and_can_be_differentiated_again() -> None:
    layer = FakeQuant(None, -1.0, 2.0)
    x = tf.constant([-3.0, -0.5, 0.013, 1.9, 2.5])
    factor = tf.constant(3.0)
    with tf.GradientTape() as outer:
        outer.watch(factor)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = layer(x, training=True)
            loss = factor * tf.reduce_sum(y)
        gradient = inner.gradient(loss, x)
        total = tf.reduce_sum(gradient)
    np.testing.assert_array_equal(gradient, [0, 3, 3, 3, 0])
    assert float(outer.gradient(total, factor)) == 3
    np.testing.assert_allclose(y, layer(x, training=False), atol=1e-6)


def test_range_is_the_mean_of_the_batches_extremes() -> None:
    layer = FakeQuant(memory=2, low=-1.0, high=4.0)
    batches = [np.array([[-3.0, 10.0]]), np.array([[1.0, 7.0]]), np.array([[-8.0, -2.0]])]
    for batch in batches:
        layer(batch, training=True)
    # 0 is in every range; calibration counts as two batches.
    assert float(layer.low) == pytest.approx((2 * -1 - 3 + 0 - 8) / 5)
    assert float(layer.high) == pytest.approx((2 * 4 + 10 + 7 + 0) / 5)


@pytest.mark.parametrize(
    ("memory", "options"),
    [(50, {"training": False}), (50, {"training": True, "observe": False}), (None, {"training": True})],
)
def test_range_rests(memory: float | None, options: dict) -> None:
    layer = FakeQuant(memory, -1.0, 4.0)
    layer(np.array([[-30.0, 100.0]]), **options)
    assert (float(layer.low), float(layer.high)) == (-1, 4)


def test_calibration_lets_values_through_and_keeps_the_largest_range() -> None:
    layer = FakeQuant()
    layer.calibrates = True
    x = np.array([[-3.21, 10.7]], np.float32)
    np.testing.assert_array_equal(layer(x), x)
    layer(np.array([[0.5, 2.0]], np.float32))
    assert (float(layer.low), float(layer.high)) == (pytest.approx(-3.21), pytest.approx(10.7))


def test_a_range_that_never_moves_clips_in_calibration_too() -> None:
    # What stands behind it sees the values that it will see later.
    layer = FakeQuant(None, 0.0, 1.0)
    layer.calibrates = True
    np.testing.assert_allclose(layer(np.array([[-1.0, 0.5, 7.0]], np.float32)), [[0, 0.5, 1]], atol=0.01)


@pytest.mark.parametrize("training", [False, True])
def test_a_sum_that_is_always_zero_has_a_range_that_kernels_take(training: bool) -> None:
    layer = FakeQuant(memory=0)
    layer.calibrates = not training
    parts = [np.array([[-64.0, 3.0]], np.float32), np.array([[64.0, -3.0]], np.float32)]
    layer(parts[0] + parts[1], training=training, beside=parts)
    assert (float(layer.low), float(layer.high)) == (0, 64 / 1024)


def test_several_tensors_have_one_range() -> None:
    layer = FakeQuant(memory=0)
    one, other = np.array([[-1.0, 0.3]], np.float32), np.array([[5.0]], np.float32)
    found = layer([one, other], training=True)
    assert (float(layer.low), float(layer.high)) == (-1, 5)
    np.testing.assert_allclose(found[0], quantized(one, -1, 5), atol=1e-6)
    np.testing.assert_allclose(found[1], quantized(other, -1, 5), atol=1e-6)


def test_a_range_without_width_gives_no_nan() -> None:
    assert np.isfinite(np.asarray(FakeQuant()(np.array([[0.0, 1.0]], np.float32)))).all()


@pytest.mark.parametrize(
    ("make", "shape", "channels"),
    [
        (lambda: FakeQuantConv2D(4, (1, 3)), (1, 1, 8, 3), (3,)),
        (lambda: FakeQuantDepthwiseConv2D((1, 3), depth_multiplier=2), (1, 1, 8, 3), (2, 3)),
        (lambda: FakeQuantDense(5), (1, 7), None),
    ],
)
def test_kernels_have_255_steps_per_channel(make, shape: tuple, channels: tuple | None) -> None:
    layer = make()
    layer.build(shape)
    kernel = np.random.default_rng(0).standard_normal(layer.kernel.shape).astype(np.float32)
    # A channel far smaller than the others keeps its precision only with a scale of its own.
    kernel[..., 0] *= 0.01
    if channels is not None:
        kernel[..., -1] = 0
    layer.kernel.assign(kernel)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    size = np.abs(kernel).max(axis=channels and tuple(set(range(4)) - set(channels)))
    scale = np.maximum(size, np.abs(kernel).max() / 1024) / 127
    expected = type(layer).__mro__[1].from_config(layer.get_config())
    expected.build(shape)
    expected.set_weights([np.round(kernel / scale) * scale, layer.bias])
    for training in (False, True):
        np.testing.assert_allclose(layer(x, training=training), expected(x), atol=1e-5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, training=True))
    with tf.GradientTape() as expected_tape:
        expected_loss = tf.reduce_sum(expected(x))
    np.testing.assert_allclose(
        tape.gradient(loss, layer.kernel.value),
        expected_tape.gradient(expected_loss, expected.kernel.value),
        atol=1e-5,
    )


def test_running_sum_is_on_the_steps_of_its_two_ranges() -> None:
    layer = FakeQuantRunningSum(0.5)
    layer.product.low.assign(-1.0)
    layer.product.high.assign(1.0)
    layer.total.low.assign(-4.0)
    layer.total.high.assign(3.0)
    own, before = (np.random.default_rng(seed).uniform(-2, 2, (3, 4)).astype(np.float32) for seed in (0, 1))
    expected = quantized(own + quantized(0.5 * before, -1, 1), -4, 3)
    np.testing.assert_allclose(layer([own, before]), expected, atol=1e-5)
    with tf.GradientTape() as tape:
        tensors = tf.constant(own), tf.constant(before)
        tape.watch(tensors)
        loss = tf.reduce_sum(layer(list(tensors), training=True))
    into_own, into_before = tape.gradient(loss, tensors)
    assert float(tf.reduce_min(into_own)) == 1
    assert into_before is None


def test_networks_say_whether_they_carry_ranges() -> None:
    window = keras.Input((4,))
    plain = keras.Model(window, keras.layers.Dense(3)(window))
    inside = keras.Model(window, FakeQuantDense(3, activation=FakeQuant())(window))
    assert not carries_ranges(plain)
    assert carries_ranges(inside)
    assert len(fake_quants(inside)) == 1


@pytest.mark.parametrize(
    "layer",
    [
        FakeQuant(7, -1.0, 2.0, name="a"),
        FakeQuantDense(3, activation=FakeQuant(None, 0.0, 1.0), name="b"),
        FakeQuantRunningSum(0.25, name="c"),
    ],
)
def test_layers_come_back_from_their_config(layer: keras.layers.Layer) -> None:
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
