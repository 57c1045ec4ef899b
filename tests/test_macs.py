"""Multiply-accumulates read off a traced step, against counts made by hand."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from fixtures_networks import N_CLASSES, SENSOR, TRAIN_REASON, dscnn_network
from hypothesis import given
from hypothesis import strategies as st

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from mexit_edge.bundle import Bundle
from mexit_edge.errors import InputError
from mexit_edge.models import build
from mexit_edge.regimes.macs import StepMacs, count_macs, traced_macs
from mexit_edge.signals import Sensor

pytestmark = pytest.mark.train
REFERENCE = Path(__file__).parent.parent / "tflite_models" / "reference.mexit"
B = 4
# A (4, 3) times a (3, 3) matrix, and each of its two gradients.
ONE = 4 * 3 * 3
ROWS, SQUARE = tf.TensorSpec((4, 3)), tf.TensorSpec((3, 3))


def macs_of(forward, backward=0):
    return StepMacs(forward, backward)


def loss_of(outputs):
    return sum(tf.reduce_sum(tf.square(values)) for values in tf.nest.flatten(outputs))


def step_of(network, *, of_input=False):
    """A function that returns the gradients of the trainable weights, and of the input."""

    def step(x):
        with tf.GradientTape() as tape:
            sources = [weight.value for weight in network.trainable_weights]
            if of_input:
                tape.watch(x)
                sources.append(x)
            loss = loss_of(network(x, training=True))
        return tape.gradient(loss, sources)

    return step


def network_of(layer, shape):
    window = keras.Input(shape)
    return keras.Model(window, layer(window))


def attention():
    window = keras.Input((7, 6))
    return keras.Model(window, layers.MultiHeadAttention(2, 3)(window, window))


# Layer, input shape, multiply-accumulates of one window.
LAYERS = {
    "dense": (lambda: layers.Dense(5), (7,), 7 * 5),
    "dense per position": (lambda: layers.Dense(5), (9, 7), 9 * 7 * 5),
    "einsum dense": (lambda: layers.EinsumDense("abc,cd->abd", (None, 5)), (9, 7), 9 * 7 * 5),
    "conv1d valid": (lambda: layers.Conv1D(6, 3), (10, 4), 8 * 3 * 4 * 6),
    "conv1d same": (lambda: layers.Conv1D(6, 3, padding="same"), (10, 4), 10 * 3 * 4 * 6),
    "conv1d stride": (lambda: layers.Conv1D(6, 3, strides=2, padding="same"), (10, 4), 5 * 3 * 4 * 6),
    "conv1d dilation": (lambda: layers.Conv1D(6, 3, dilation_rate=2), (10, 4), 6 * 3 * 4 * 6),
    # 5 positions; TensorFlow pads 9 to 10 and computes 6.
    "conv1d odd dilation": (lambda: layers.Conv1D(6, 3, dilation_rate=2), (9, 4), 6 * 3 * 4 * 6),
    "conv1d causal": (
        lambda: layers.Conv1D(6, 3, padding="causal", dilation_rate=2),
        (10, 4),
        10 * 3 * 4 * 6,
    ),
    "conv1d groups": (lambda: layers.Conv1D(6, 3, groups=2), (10, 4), 8 * 3 * 2 * 6),
    "conv1d transpose": (lambda: layers.Conv1DTranspose(6, 3, strides=2), (5, 4), 5 * 3 * 4 * 6),
    "depthwise": (
        lambda: layers.DepthwiseConv1D(3, padding="same", depth_multiplier=2),
        (10, 4),
        10 * 3 * 4 * 2,
    ),
    "separable": (lambda: layers.SeparableConv1D(6, 3, padding="same"), (10, 4), 10 * (3 * 4 + 4 * 6)),
    "conv2d": (lambda: layers.Conv2D(6, 3, strides=2), (9, 11, 4), 4 * 5 * 9 * 4 * 6),
    "conv2d transpose": (
        lambda: layers.Conv2DTranspose(6, 3, strides=2, padding="same"),
        (5, 7, 4),
        5 * 7 * 9 * 4 * 6,
    ),
    "conv3d": (lambda: layers.Conv3D(6, 2), (4, 4, 5, 2), 3 * 3 * 4 * 8 * 2 * 6),
    # Queries, keys, values and output; then scores and mixture of 2 heads of size 3.
    "attention": (attention, (7, 6), 4 * 7 * 6 * 6 + 2 * 2 * 7 * 7 * 3),
}


@pytest.mark.parametrize(("layer", "shape", "macs"), LAYERS.values(), ids=LAYERS)
def test_a_layer_costs_its_products_forward_and_twice_that_back(layer, shape, macs):
    network = network_of(layer(), shape)
    spec = tf.TensorSpec((B, *shape))
    assert traced_macs(network, spec) == macs_of(B * macs)
    # Every product has a gradient for each of its two factors.
    assert traced_macs(step_of(network, of_input=True), spec) == macs_of(B * macs, 2 * B * macs)


@pytest.mark.parametrize("name", ["dense", "conv1d stride", "conv1d causal", "depthwise", "conv2d transpose"])
def test_the_first_layer_has_no_input_gradient(name):
    layer, shape, macs = LAYERS[name]
    step = step_of(network_of(layer(), shape))
    assert traced_macs(step, tf.TensorSpec((B, *shape))) == macs_of(B * macs, B * macs)


def hand_counts_of_dscnn_network():
    """Stem, blocks and heads of `dscnn_network`: 16 positions, halved by block 2."""
    stem = 16 * 5 * SENSOR.shape[1] * 8
    blocks = 16 * 8 * (3 + 8) + 8 * 8 * (3 + 12) + 8 * 12 * (3 + 16)
    return stem, blocks, 2 * (8 + 12 + 16) * N_CLASSES


def test_a_network_with_exits_costs_the_sum_of_its_layers():
    assert SENSOR.shape[0] == 32
    stem, blocks, heads = hand_counts_of_dscnn_network()
    step = step_of(dscnn_network())
    for batch in (1, 7):
        macs = traced_macs(step, tf.TensorSpec((batch, *SENSOR.shape)))
        forward = stem + blocks + heads
        assert macs == batch * macs_of(forward, 2 * forward - stem)


def test_frozen_layers_cost_no_weight_gradient():
    stem, blocks, heads = hand_counts_of_dscnn_network()
    network = dscnn_network()
    for layer in network.layers:
        layer.trainable = layer.name.startswith("exit_")
    macs = traced_macs(step_of(network), tf.TensorSpec((B, *SENSOR.shape)))
    assert macs == B * macs_of(stem + blocks + heads, heads)


def test_a_frozen_layer_in_between_still_hands_the_gradient_on():
    network = keras.Sequential([keras.Input((5,)), *(layers.Dense(units) for units in (7, 11, 13))])
    network.layers[1].trainable = False
    one, two, three = 5 * 7, 7 * 11, 11 * 13
    macs = traced_macs(step_of(network), tf.TensorSpec((B, 5)))
    assert macs == B * macs_of(one + two + three, one + two + 2 * three)


def test_the_default_network_costs_what_its_int8_bundle_counts():
    manifest = Bundle.load(REFERENCE).manifest
    sensor = Sensor(
        **{field: getattr(manifest.sensor, field) for field in type(manifest.sensor).model_fields}
    )
    network = build("dscnn", sensor, len(manifest.classes))
    macs = traced_macs(network, tf.TensorSpec((1, *sensor.shape)))
    assert macs == macs_of(sum(stage.macs for stage in manifest.stages)) == macs_of(755_072)


def test_what_nobody_reads_is_not_counted():
    def discards(x, w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            y = x @ w
            loss = loss_of(y)
        assert tape.gradient(loss, w) is not None
        return loss

    assert traced_macs(discards, ROWS, SQUARE) == macs_of(ONE)
    assert traced_macs(lambda x, w: (x @ w, x)[1], ROWS, SQUARE) == macs_of(0)


def test_tracing_runs_nothing_and_counts_what_is_only_assigned():
    network = keras.Sequential([keras.Input((3,)), layers.Dense(3)])
    optimizer = keras.optimizers.Adam()
    optimizer.build(network.trainable_variables)
    metric = keras.metrics.Mean()
    traces = []

    def step(x):
        traces.append(x)
        with tf.GradientTape() as tape:
            loss = loss_of(network(x))
        gradients = tape.gradient(loss, [weight.value for weight in network.trainable_weights])
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        metric.update_state(loss)

    state = [*network.variables, *optimizer.variables, *metric.variables]
    before = [np.array(variable) for variable in state]
    assert traced_macs(step, ROWS) == macs_of(ONE, ONE)
    assert len(traces) == 1
    assert len(before) == len([*network.variables, *optimizer.variables, *metric.variables])
    for variable, value in zip(state, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def optimizer_built_in_the_step():
    network = keras.Sequential([keras.Input((3,)), layers.Dense(3)])
    optimizer = keras.optimizers.Adam()

    def step(x):
        with tf.GradientTape() as tape:
            loss = loss_of(network(x))
        gradients = tape.gradient(loss, [weight.value for weight in network.trainable_weights])
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))

    return step


@pytest.mark.parametrize(
    "function",
    [
        optimizer_built_in_the_step(),
        lambda x: layers.Dense(3)(x),
        tf.function(lambda x: x @ tf.Variable(tf.ones((3, 3)))),
    ],
    ids=["optimizer", "layer", "function"],
)
def test_a_function_that_creates_variables_is_refused(function):
    with pytest.raises(InputError, match=r"^`function` must create no variables.*optimizer\.build"):
        traced_macs(function, ROWS)


def test_an_error_of_the_function_itself_passes():
    with pytest.raises(ValueError, match="Dimensions must be equal"):
        traced_macs(lambda x: x @ x, ROWS)


# --- Gradients of gradients, and gradients that do not look like any ----------------------------------------


def test_a_nested_tape_counts_the_gradient_of_the_gradient():
    def plain(x, w, v):
        with tf.GradientTape() as tape:
            tape.watch(w)
            loss = loss_of(x @ w @ v)
        return tape.gradient(loss, w)

    def meta(x, w, v):
        with tf.GradientTape() as tape:
            tape.watch(v)
            meta_loss = loss_of(x @ (w - 0.1 * plain(x, w, v)))
        return tape.gradient(meta_loss, v)

    # Forward h = x w, y = h v; backward dh = dy v', dw = x' dh.
    assert traced_macs(plain, ROWS, SQUARE, SQUARE) == macs_of(2 * ONE, 2 * ONE)
    # One more product forward; back through it, through dw to dh, through dh to dy and to v, and from y to v.
    assert traced_macs(meta, ROWS, SQUARE, SQUARE) == macs_of(3 * ONE, (2 + 5) * ONE)


def test_a_functional_step_with_a_weight_network_splits_into_both_passes():
    network = keras.Sequential([keras.Input((10, 4)), layers.Conv1D(6, 3), layers.Flatten(), layers.Dense(5)])
    weigh = keras.Sequential([keras.Input((5,)), layers.Dense(1)])

    def meta(x):
        inner_weights = [tf.convert_to_tensor(weight.value) for weight in network.trainable_weights]
        outer_weights = [tf.convert_to_tensor(weight.value) for weight in weigh.trainable_weights]
        with tf.GradientTape() as outer:
            outer.watch(outer_weights)
            with tf.GradientTape() as inner:
                inner.watch(inner_weights)
                outputs, _ = network.stateless_call(inner_weights, [], x)
                weights, _ = weigh.stateless_call(outer_weights, [], tf.stop_gradient(outputs))
                loss = loss_of(weights * outputs)
            gradients = inner.gradient(loss, inner_weights)
            fast = [weight - 0.1 * slope for weight, slope in zip(inner_weights, gradients, strict=True)]
            outputs, _ = network.stateless_call(fast, [], x)
            meta_loss = loss_of(outputs)
        return outer.gradient(meta_loss, outer_weights)

    convolution, dense, weighing = 8 * 3 * 4 * 6, 48 * 5, 5
    spec = tf.TensorSpec((B, 10, 4))
    macs = traced_macs(meta, spec)
    assert macs.forward == B * (2 * (convolution + dense) + weighing)
    first_order = traced_macs(step_of(network), spec).backward
    assert first_order == B * (convolution + 2 * dense)
    # Inner and meta gradient are two of them; the gradient of the gradient comes on top.
    assert macs.backward > 2 * first_order + B * weighing


@tf.custom_gradient
def own_product(x, w):
    """A product whose gradients are built under names of no gradient."""

    def backward(upstream):
        return tf.matmul(upstream, w, transpose_b=True), tf.matmul(x, upstream, transpose_a=True)

    return x @ w, backward


@pytest.mark.parametrize("product", [tf.matmul, own_product, tf.function(own_product)])
def test_the_gradient_of_a_called_function_is_backward(product):
    called = tf.function(lambda x, w: tf.nn.relu(product(x, w)))

    def step(x, w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            loss = loss_of(called(called(x, w), w))
        return tape.gradient(loss, w)

    # The gradient of x is computed by the same function as that of w, and pruned once it is inlined.
    assert traced_macs(step, ROWS, SQUARE) == macs_of(2 * ONE, 3 * ONE)


def test_a_custom_gradient_and_a_forward_pass_done_anew_are_backward():
    constant = tf.ones((3, 3))
    remade = tf.recompute_grad(lambda x: tf.nn.relu(x @ constant) @ constant)

    def step_through(function):
        def step(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = loss_of(function(x))
            return tape.gradient(loss, x)

        return step

    assert traced_macs(step_through(lambda x: own_product(x, constant)), ROWS) == macs_of(ONE, ONE)
    # Of the forward pass that is done anew the last product is built, and pruned: no gradient needs it.
    assert traced_macs(step_through(remade), ROWS) == macs_of(2 * ONE, (1 + 2) * ONE)


# --- Calls, branches, loops, and what is unknown ------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True], ids=["inlined", "xla"])
def test_an_output_of_a_call_that_nobody_reads(compiled):
    @tf.function(jit_compile=compiled)
    def two(x, w):
        return x @ w, x @ w @ w

    # XLA compiles the whole function; an inlined one is pruned.
    macs = traced_macs(lambda x, w: two(x, w)[0], ROWS, SQUARE)
    assert macs == macs_of(3 * ONE if compiled else ONE)


def test_of_two_branches_the_larger_one_counts():
    def step(x, w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            y = tf.cond(tf.reduce_sum(x) > 0, lambda: x @ w, lambda: x @ w @ w)
            loss = loss_of(y)
        return tape.gradient(loss, w)

    # Three, not four: nobody asks for the gradient of x.
    assert traced_macs(step, ROWS, SQUARE) == macs_of(2 * ONE, 3 * ONE)


def test_a_product_in_a_loop_is_unknown_and_a_loop_without_one_is_not():
    def looped(body):
        return lambda x, w: tf.while_loop(lambda y: tf.reduce_sum(y) < 9, lambda y: (body(y, w),), (x @ w,))

    assert traced_macs(looped(lambda y, w: y @ w), ROWS, SQUARE) is None
    assert traced_macs(looped(lambda y, w: y + 1), ROWS, SQUARE) == macs_of(ONE)


def test_a_recurrent_layer_is_known_when_unrolled():
    spec = tf.TensorSpec((B, 7, 3))
    assert traced_macs(network_of(layers.GRU(5), (7, 3)), spec) is None
    unrolled = network_of(layers.GRU(5, unroll=True), (7, 3))
    assert traced_macs(unrolled, spec) == macs_of(B * 7 * (3 + 5) * 3 * 5)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: tf.sparse.sparse_dense_matmul(tf.sparse.from_dense(x), w),
        lambda x, w: tf.numpy_function(np.matmul, [x, w], tf.float32),
        lambda x, w: tf.einsum("...a,ab->...b", x, w),
        lambda x, w: tf.cond(tf.reduce_sum(x) > 0, lambda: tf.einsum("...a,ab->...b", x, w), lambda: x @ w),
    ],
    ids=["sparse", "numpy", "ellipsis", "branch"],
)
def test_an_unknown_product_makes_the_sum_unknown_where_it_is_read(function):
    assert traced_macs(lambda x, w: x @ w + function(x, w), ROWS, SQUARE) is None


def test_a_dynamic_batch_is_unknown():
    network = dscnn_network()
    assert traced_macs(network, tf.TensorSpec((None, *SENSOR.shape))) is None
    assert traced_macs(step_of(network), tf.TensorSpec((None, *SENSOR.shape))) is None


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("abc,cd->abd", ((2, 3, 5), (5, 7)), 2 * 3 * 5 * 7),
        ("abc,abd->acd", ((2, 3, 5), (2, 3, 7)), 2 * 3 * 5 * 7),
        ("ab,cd->ad", ((2, 3), (5, 7)), 2 * 7),
        ("ab->ba", ((2, 3),), 0),
    ],
)
def test_einsum_is_the_matrix_product_it_becomes(equation, shapes, macs):
    specs = [tf.TensorSpec(shape) for shape in shapes]
    assert traced_macs(lambda *tensors: tf.einsum(equation, *tensors), *specs) == macs_of(macs)


@pytest.mark.parametrize("transposed", [False, True])
def test_the_contracted_length_is_found_whichever_factor_is_transposed(transposed):
    shape = (5, 2) if transposed else (2, 5)
    flat = traced_macs(
        lambda x, w: tf.matmul(x, w, transpose_a=transposed), tf.TensorSpec(shape), tf.TensorSpec((5, 7))
    )
    batched = traced_macs(
        lambda x, w: tf.matmul(x, w, transpose_a=transposed),
        tf.TensorSpec((3, *shape)),
        tf.TensorSpec((3, 5, 7)),
    )
    assert (flat, batched) == (macs_of(2 * 5 * 7), macs_of(3 * 2 * 5 * 7))


def test_specs_may_be_nested():
    assert traced_macs(lambda pair: pair["x"] @ pair["w"], {"x": ROWS, "w": SQUARE}) == macs_of(ONE)


def test_a_plain_graph_has_no_outputs_and_counts_whole():
    graph = tf.Graph()
    with graph.as_default():
        x = tf.zeros((4, 3)) @ tf.zeros((3, 3))
        y = x @ tf.ones((3, 3))
        # The second one is built under a name with a number.
        tf.gradients(y, [x])
        tf.gradients(y, [x])
    assert count_macs(graph) == macs_of(2 * ONE, 4 * ONE)


@given(*[st.integers(0, 10**12)] * 4, st.integers(0, 1000))
def test_steps_add_up_and_multiply(forward, backward, more, less, times):
    one, two = StepMacs(forward, backward), StepMacs(more, less)
    assert one + two == StepMacs(forward + more, backward + less)
    assert times * one == one * times == StepMacs(times * forward, times * backward)
    assert one * 2 == one + one


def test_a_share_of_a_step_is_rounded():
    assert 0.25 * StepMacs(5, 7) == StepMacs(1, 2)
