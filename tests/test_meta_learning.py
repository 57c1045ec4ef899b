"""The mathematics of learned sample weights: assignment to exits, pseudo step, weights, meta gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from importlib.util import find_spec

import numpy as np
import pytest
from fixtures_networks import TRAIN_REASON
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
import tensorflow as tf
from keras import layers, optimizers

from mexit_edge.errors import InputError
from mexit_edge.regimes.assignment import (
    assign_exits,
    exit_counts,
    exit_counts_of_batch,
    exit_shares,
    smallest_batch,
)
from mexit_edge.regimes.meta_gradient import assigned_loss, meta_gradients
from mexit_edge.regimes.pseudo_step import check_pseudo_step, pseudo_step
from mexit_edge.regimes.weight_network import build_weight_network, sample_weights

pytestmark = pytest.mark.train
N_CLASSES = 3
BUDGETS = st.integers(1, 39).map(lambda twentieths: Fraction(twentieths, 20))
FEW = settings(max_examples=60, deadline=None)


# --- Assignment ---------------------------------------------------------------------------------------------


def exact_shares(n_exits: int, p: Fraction) -> list[Fraction]:
    powers = [p**number for number in range(1, n_exits + 1)]
    return [power / sum(powers) for power in powers]


def assigned_slowly(confidence: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
    """Window by window, as the text of the paper says it."""
    left, mask = list(range(len(confidence))), np.zeros(confidence.shape)
    for exit_, count in enumerate(counts[:-1]):
        for _ in range(count):
            best = max(left, key=lambda window: (confidence[window, exit_], -window))
            left.remove(best)
            mask[best, exit_] = 1
    mask[left, -1] = 1
    return mask


def test_published_shares() -> None:
    assert exit_shares(4, 0.75) == pytest.approx((0.366, 0.274, 0.206, 0.154), abs=5e-4)
    assert exit_shares(3, 1.0) == pytest.approx((1 / 3,) * 3)
    assert exit_shares(2, 3.0) == pytest.approx((0.25, 0.75))


@pytest.mark.parametrize("p", [1e-300, 1e-5, 1e5, 1e300])
def test_extreme_budgets_send_everything_to_one_end(p: float) -> None:
    expected = (16, 0, 0) if p < 1 else (0, 0, 16)
    # A share below one window leaves the rest to the last exit.
    assert exit_counts(16, 3, p) in {expected, (15, 0, 1)}
    assert sum(exit_shares(3, p)) == pytest.approx(1)


@FEW
@given(st.integers(1, 6), BUDGETS, st.integers(0, 300))
def test_counts_equal_exact_arithmetic(n_exits: int, p: Fraction, n: int) -> None:
    counts = exit_counts(n, n_exits, float(p))
    expected = [int(n * share) for share in exact_shares(n_exits, p)[:-1]]
    assert counts == (*expected, n - sum(expected))
    assert exit_counts_of_batch(tf.constant(n), n_exits, float(p)).numpy().tolist() == list(counts)


@FEW
@given(st.integers(1, 6), BUDGETS)
def test_smallest_batch_is_the_smallest(n_exits: int, p: Fraction) -> None:
    n, shares = smallest_batch(n_exits, float(p)), exact_shares(n_exits, p)
    assert min(n * share for share in shares) >= 1 > min((n - 1) * share for share in shares)
    assert min(exit_counts(n, n_exits, float(p))) >= 1


@FEW
@given(st.data(), st.integers(1, 4), st.integers(1, 24), BUDGETS)
def test_assignment_equals_the_slow_one(data: st.DataObject, n_exits: int, n: int, p: Fraction) -> None:
    # Few distinct values, so that ties are the rule.
    values = data.draw(arrays(np.float32, (n, n_exits), elements=st.sampled_from([0.25, 0.5, 0.75, 1.0])))
    counts = exit_counts(n, n_exits, float(p))
    mask = assign_exits(values, counts).numpy()
    np.testing.assert_array_equal(mask, assigned_slowly(values, counts))
    np.testing.assert_array_equal(mask.sum(1), 1)
    assert tuple(mask.sum(0)) == counts


def test_assignment_of_a_batch_whose_size_the_graph_learns_late() -> None:
    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32)])
    def assign(confidence: tf.Tensor) -> tf.Tensor:
        return assign_exits(confidence, exit_counts_of_batch(tf.shape(confidence)[0], 3, 0.75))

    for n in (5, 12):
        values = np.random.default_rng(n).random((n, 3), np.float32)
        expected = assigned_slowly(values, exit_counts(n, 3, 0.75))
        np.testing.assert_array_equal(assign(values).numpy(), expected)


@pytest.mark.parametrize("p", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_a_budget_that_is_none(p: float) -> None:
    with pytest.raises(InputError, match="`p`"):
        exit_shares(3, p)


def test_refuses_what_has_no_counts() -> None:
    with pytest.raises(InputError, match="`n_exits`"):
        exit_shares(0, 0.75)
    with pytest.raises(InputError, match="`n`"):
        exit_counts(-1, 3, 0.75)
    with pytest.raises(InputError, match="`p` must leave each"):
        smallest_batch(4, 1e-6)


# --- Pseudo step --------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[..., optimizers.Optimizer]] = {
    "sgd": lambda **options: optimizers.SGD(0.05, **options),
    "momentum": lambda **options: optimizers.SGD(0.05, momentum=0.9, **options),
    "nesterov": lambda **options: optimizers.SGD(
        0.05, momentum=0.8, nesterov=True, weight_decay=0.1, **options
    ),
    "adam": lambda **options: optimizers.Adam(0.02, beta_1=0.85, **options),
    "adamw": lambda **options: optimizers.AdamW(
        optimizers.schedules.CosineDecay(0.05, 20), weight_decay=0.3, **options
    ),
}
CLIPPINGS = ({}, {"clipnorm": 0.5}, {"global_clipnorm": 0.5}, {"clipvalue": 0.1}, {"global_clipnorm": 1e3})


@contextmanager
def double_precision() -> Iterator[None]:
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    # Layers go by the policy, which does not follow once anything has asked for it.
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)


def some_variables(dtype: str) -> list[keras.Variable]:
    rng = np.random.default_rng(1)
    return [
        keras.Variable(rng.standard_normal((4, 3)), dtype=dtype, name="kernel"),
        keras.Variable(rng.standard_normal(3), dtype=dtype, name="bias"),
        keras.Variable(rng.random(5), dtype=dtype, name="scale"),
    ]


def values_of(variables: list[keras.Variable]) -> list[tf.Tensor]:
    return [tf.convert_to_tensor(variable.value) for variable in variables]


@pytest.mark.parametrize("clipping", CLIPPINGS, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-12)])
def test_equals_the_real_step(name: str, clipping: dict[str, float], dtype: str, tolerance: float) -> None:
    rng = np.random.default_rng(2)
    variables = some_variables(dtype)
    variables[2].constraint = keras.constraints.NonNeg()
    optimizer = OPTIMIZERS[name](**clipping)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(variables)
    for _ in range(5):
        gradients = [tf.constant(rng.standard_normal(one.shape), dtype) for one in variables]
        start = values_of(variables)
        state = [np.array(one) for one in optimizer.variables]
        expected = pseudo_step(optimizer, start, gradients, variables)
        for before, after in zip(state, optimizer.variables, strict=True):
            np.testing.assert_array_equal(before, np.asarray(after))
        for before, after in zip(start, values_of(variables), strict=True):
            np.testing.assert_array_equal(before, after)
        optimizer.apply(gradients, variables)
        for imitated, real in zip(expected, variables, strict=True):
            np.testing.assert_allclose(imitated, np.asarray(real), rtol=0, atol=tolerance)


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
def test_a_variable_without_gradient_stays_as_keras_leaves_it() -> None:
    variables = some_variables("float32")
    optimizer = OPTIMIZERS["adamw"](global_clipnorm=0.1)
    optimizer.build(variables)
    gradients = [tf.ones((4, 3)), None, tf.ones(5)]
    expected = pseudo_step(optimizer, values_of(variables), gradients, variables)
    np.testing.assert_array_equal(expected[1], np.asarray(variables[1]))
    optimizer.apply(gradients, variables)
    for imitated, real in zip(expected, variables, strict=True):
        np.testing.assert_allclose(imitated, np.asarray(real), rtol=0, atol=1e-6)


@pytest.mark.parametrize("clipping", [{}, {"clipnorm": 0.5}, {"global_clipnorm": 0.5}], ids=str)
@pytest.mark.parametrize("filled", [False, True])
def test_derivative_of_adam_is_finite_at_gradient_zero(filled: bool, clipping: dict[str, float]) -> None:
    variable = keras.Variable(np.ones(3), dtype="float64")
    optimizer = optimizers.Adam(0.01, **clipping)
    optimizer.build([variable])
    if filled:
        optimizer.apply([tf.constant([0.3, -0.2, 0.0], tf.float64)], [variable])

    def after(gradient: tf.Tensor) -> tf.Tensor:
        return pseudo_step(optimizer, values_of([variable]), [gradient], [variable])[0]

    zero = tf.zeros(3, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(zero)
        result = after(zero)
    derivative = np.diag(tape.jacobian(result, zero))
    small = 1e-13
    numeric = [
        (after(tf.constant(row)) - after(tf.constant(-row)))[place] / (2 * small)
        for place, row in enumerate(small * np.eye(3))
    ]
    # Nothing rounds to the same value: at epsilon 1e-7 the step is steep where no moment has been.
    np.testing.assert_allclose(derivative[-1], numeric[-1], rtol=1e-2)
    assert np.isfinite(derivative).all()
    assert (derivative < 0).all()


def test_derivative_of_adam_is_right_where_the_square_of_a_gradient_underflows() -> None:
    variable = keras.Variable(np.ones(4), dtype="float32")
    optimizer = optimizers.Adam(0.01)
    optimizer.build([variable])
    gradient = tf.constant([0.0, 1e-30, 1e-21, 1e-18], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(gradient)
        after = pseudo_step(optimizer, values_of([variable]), [gradient], [variable])[0]
    # The first step: learning rate * sqrt(1 - beta_2) / (1 - beta_1) * (1 - beta_1) / epsilon.
    np.testing.assert_allclose(tape.gradient(after, gradient), -0.01 * np.sqrt(1e-3) / 1e-7, rtol=1e-3)


def test_derivative_is_finite_where_every_gradient_is_zero() -> None:
    variables = some_variables("float32")
    optimizer = OPTIMIZERS["momentum"](global_clipnorm=1.0)
    optimizer.build(variables)
    zeros = [tf.zeros(one.shape) for one in variables]
    with tf.GradientTape() as tape:
        tape.watch(zeros)
        total = tf.add_n([tf.reduce_sum(one) for one in pseudo_step(optimizer, zeros, zeros, variables)])
    for derivative in tape.gradient(total, zeros):
        # Value and gradient are the same tensors here: 1 - the learning rate.
        np.testing.assert_allclose(derivative, 0.95, rtol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (optimizers.RMSprop(), "SGD, keras.optimizers.Adam, keras.optimizers.AdamW. Received: RMSprop"),
        (optimizers.LossScaleOptimizer(optimizers.SGD()), "Received: LossScaleOptimizer"),
        (optimizers.Adam(amsgrad=True), "amsgrad"),
        (optimizers.SGD(gradient_accumulation_steps=2), "gradient_accumulation_steps"),
        (optimizers.SGD(loss_scale_factor=2.0), "loss_scale_factor"),
        (optimizers.SGD(use_ema=True, ema_overwrite_frequency=3), "ema_overwrite_frequency"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_refuses_other_steps(optimizer: optimizers.Optimizer, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_pseudo_step(optimizer)


def test_refuses_an_optimizer_without_these_variables() -> None:
    variables = some_variables("float32")
    optimizer = optimizers.Adam()
    with pytest.raises(InputError, match="must be built"):
        pseudo_step(optimizer, values_of(variables), values_of(variables), variables)
    optimizer.build(variables[:2])
    with pytest.raises(InputError, match=r"`variables`.*scale"):
        pseudo_step(optimizer, values_of(variables), values_of(variables), variables)


# --- Weight network -----------------------------------------------------------------------------------------


def test_weight_network_equals_numpy() -> None:
    model = build_weight_network(3, hidden=7, seed=4)
    x = np.random.default_rng(0).random((5, 3), np.float32)
    first, first_bias, second, second_bias = (np.asarray(one) for one in model.weights)
    assert first.shape == (3, 7)
    expected = np.tanh(np.maximum(x @ first + first_bias, 0) @ second + second_bias)
    np.testing.assert_allclose(model(x), expected, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(build_weight_network(3, hidden=7, seed=4).weights[2]), second)
    assert (np.asarray(build_weight_network(3, hidden=7, seed=5).weights[2]) != second).any()


@pytest.mark.parametrize(("centre", "axis"), [("per_sample", 1), ("per_exit", 0), ("global", None)])
@pytest.mark.parametrize("eps", [0.0, 0.3, 0.8])
def test_weights_equal_numpy(centre: str, axis: int | None, eps: float) -> None:
    output = np.tanh(3 * np.random.default_rng(1).standard_normal((40, 3)) + 2)
    expected = 1 + eps * (output - output.mean(axis=axis, keepdims=True))
    assert (expected.min() < 0) == (eps > 0.5)
    got = sample_weights(output, eps, centre).numpy()
    np.testing.assert_allclose(got, np.maximum(expected, 0), atol=1e-12)
    if eps < 0.5:
        np.testing.assert_allclose(got.mean(axis=axis), 1, atol=1e-12)


def test_a_clipped_weight_learns_only_through_the_mean() -> None:
    output = tf.constant([[-0.99, 0.99, 0.99]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(output)
        weights = sample_weights(output, 0.8, "per_sample")
        clipped, other = weights[0, 0], weights[0, 1]
    assert float(clipped) == 0
    np.testing.assert_array_equal(tape.gradient(clipped, output), 0)
    np.testing.assert_allclose(tape.gradient(other, output), [[-0.8 / 3, 1.6 / 3, -0.8 / 3]], rtol=1e-6)


def test_refuses_other_weights() -> None:
    with pytest.raises(InputError, match="`centre` must be one of: global, per_exit, per_sample"):
        sample_weights(np.zeros((2, 3)), 0.8, "per_samples")
    with pytest.raises(InputError, match="`eps`"):
        sample_weights(np.zeros((2, 3)), -0.1, "global")
    with pytest.raises(InputError, match="`hidden`"):
        build_weight_network(3, hidden=0)


# --- Meta gradient ------------------------------------------------------------------------------------------


def small_network(n_exits: int = 3, dropout: float = 0.0) -> keras.Model:
    """Smooth but for its pooling, with batch normalisation and a penalised kernel."""
    keras.utils.set_random_seed(3)
    window = keras.Input((12, 2), name="window")
    features, outputs = window, {}
    for number in range(1, n_exits + 1):
        features = layers.Conv1D(4, 3, activation="tanh", kernel_regularizer="l2", name=f"conv_{number}")(
            features
        )
        features = layers.BatchNormalization(name=f"norm_{number}")(features)
        pooled = layers.Dropout(dropout, seed=number)(layers.GlobalMaxPooling1D()(features))
        outputs[f"exit_{number:02d}"] = layers.Dense(N_CLASSES, name=f"exit_{number:02d}")(pooled)
    return keras.Model(window, outputs)


def half(seed: int, n: int = 12, *, weighted: bool = False) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 12, 2)).astype(keras.config.floatx())
    y = rng.integers(0, N_CLASSES, n)
    return (x, y, rng.random(n)) if weighted else (x, y)


def trained(optimizer: optimizers.Optimizer, network: keras.Model, steps: int = 4) -> None:
    """Fill the momenta."""
    optimizer.build(network.trainable_variables)
    for seed in range(steps):
        x, y = half(100 + seed)
        with tf.GradientTape() as tape:
            loss = tf.add_n(
                [
                    tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
                    for logits in network(x, training=True).values()
                ]
            )
        values = [variable.value for variable in network.trainable_variables]
        optimizer.apply(tape.gradient(loss, values), network.trainable_variables)


@pytest.mark.parametrize(
    ("name", "heads_only", "dropout", "centre", "graph"),
    [
        ("momentum", False, 0.0, "per_sample", False),
        ("adamw", False, 0.0, "per_exit", False),
        # As a graph the one with most that a graph could keep from one call to the next.
        ("adam", False, 0.3, "global", True),
        ("nesterov", True, 0.0, "per_sample", False),
    ],
)
def test_meta_gradient_equals_finite_differences(
    name: str, heads_only: bool, dropout: float, centre: str, graph: bool
) -> None:
    with double_precision():
        network = small_network(dropout=dropout)
        optimizer = OPTIMIZERS[name](global_clipnorm=2.0)
        trained(optimizer, network)
        weight_network = build_weight_network(3, hidden=5)
        moved = [one for one in network.trainable_variables if one.path.startswith("exit")]
        assert len(moved) == 6

        def meta() -> tuple[tf.Tensor, list[tf.Tensor]]:
            return meta_gradients(
                network,
                optimizer,
                weight_network,
                half(1, weighted=True),
                half(2, weighted=True),
                p=0.75,
                eps=0.8,
                centre=centre,
                variables=moved if heads_only else None,
            )

        if graph:
            meta = tf.function(meta)
        before = [np.array(one) for one in [*network.variables, *optimizer.variables]]
        _, gradients = meta()
        assert {one.dtype for one in gradients} == {tf.float64}
        rng, step = np.random.default_rng(0), 1e-5
        # The gradient itself, where nothing cancels, and a random direction.
        directions = [
            [np.asarray(one) for one in gradients],
            [rng.standard_normal(one.shape) for one in gradients],
        ]
        start = [np.array(one) for one in weight_network.trainable_variables]
        for direction in directions:
            norm = np.sqrt(sum((one**2).sum() for one in direction))
            sides = []
            for sign in (1, -1):
                for variable, value, one in zip(
                    weight_network.trainable_variables, start, direction, strict=True
                ):
                    variable.assign(value + sign * step * one / norm)
                sides.append(float(meta()[0]))
            numeric = (sides[0] - sides[1]) / (2 * step)
            analytic = sum(
                float((one * np.asarray(g)).sum()) for one, g in zip(direction, gradients, strict=True)
            )
            assert abs(numeric) > 1e-7
            assert analytic / norm == pytest.approx(numeric, rel=1e-4)
        for value, after in zip(before, [*network.variables, *optimizer.variables], strict=True):
            np.testing.assert_array_equal(value, np.asarray(after))


def test_meta_loss_is_that_of_the_network_after_a_real_step() -> None:
    """With weights of 1 (eps 0) the pseudo step is plain joint training, which Keras can do itself."""
    network = small_network()
    optimizer = OPTIMIZERS["adamw"]()
    trained(optimizer, network)
    train, meta = half(1, weighted=True), half(2, weighted=True)
    weight_network = build_weight_network(3, hidden=5)
    got, gradients = meta_gradients(
        network, optimizer, weight_network, train, meta, p=0.75, eps=0.0, centre="per_sample"
    )
    with tf.GradientTape() as tape:
        outputs = network(train[0], training=True)
        columns = [
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=train[1], logits=one)
            for one in outputs.values()
        ]
        loss = tf.reduce_mean(tf.add_n(columns) * tf.cast(train[2], tf.float32)) + sum(network.losses)
    values = [variable.value for variable in network.trainable_variables]
    optimizer.apply(tape.gradient(loss, values), network.trainable_variables)
    logits = np.stack([np.asarray(one, np.float64) for one in network(meta[0], training=True).values()], 1)
    p = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    mask = assigned_slowly(p.max(2), exit_counts(12, 3, 0.75))
    per_window = -np.log(p[np.arange(12), :, meta[1]]) * meta[2][:, None]
    assert float(got) == pytest.approx(((mask * per_window).sum(0) / mask.sum(0)).sum(), rel=1e-4)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0)


def test_a_frozen_layer_stays_out_of_the_pseudo_step() -> None:
    network = small_network()
    network.get_layer("conv_1").trainable = False
    optimizer = OPTIMIZERS["momentum"]()
    optimizer.build(network.trainable_variables)
    rest = {"p": 0.75, "eps": 0.8, "centre": "global"}
    weight_network = build_weight_network(3, hidden=5)
    meta_loss, gradients = meta_gradients(network, optimizer, weight_network, half(1), half(2), **rest)
    assert np.isfinite(meta_loss)
    assert max(float(tf.norm(one)) for one in gradients) > 0
    frozen = network.get_layer("conv_1").weights
    with pytest.raises(InputError, match=r"`variables`.*conv_1"):
        meta_gradients(network, optimizer, weight_network, half(1), half(2), variables=frozen, **rest)
    with pytest.raises(InputError, match=r"`variables`.*none"):
        meta_gradients(network, optimizer, weight_network, half(1), half(2), variables=[], **rest)


def test_a_batch_of_unknown_size_and_an_exit_without_windows() -> None:
    network = small_network()
    x, y = half(2)

    @tf.function(input_signature=[tf.TensorSpec((None, 12, 2), tf.float32), tf.TensorSpec((None,), tf.int64)])
    def loss(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return assigned_loss(network(x), network.output_names, (x, y), 0.75)

    for n in (12, 2, 1):
        expected = assigned_loss(network(x[:n]), network.output_names, (x[:n], y[:n]), 0.75)
        assert float(loss(x[:n], y[:n])) == pytest.approx(float(expected), rel=1e-5)
    # One window goes to the last exit alone.
    assert float(expected) == pytest.approx(
        float(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y[:1], logits=network(x[:1])["exit_03"])[0]
        ),
        rel=1e-5,
    )
