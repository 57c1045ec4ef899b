"""Pruning: zeros in every kernel, in the int8 model too, and what stays as it was."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from math import ceil
from typing import Any, NamedTuple

import fixtures_networks as fixtures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.signals import Normalisation

pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(not fixtures.HAS_TENSORFLOW, reason=fixtures.TRAIN_REASON),
    pytest.mark.skipif(
        find_spec("tensorflow_model_optimization") is None,
        reason="TensorFlow Model Optimization is not installed (the [compress] extra)",
    ),
]

SPARSITY = 0.7
WINDOWS = fixtures.synthetic_windows(64)


class Pruned(NamedTuple):
    """A model with running sums, its weights before, and the pruned copy."""

    given: Any
    before: list[np.ndarray]
    pruned: Any


def arrays(network: Any) -> list[np.ndarray]:
    return [np.asarray(weight).copy() for weight in network.weights]


@cache
def boosted() -> Any:
    """Convolution, depthwise, separable and dense layers with normalisation, and a boosted second exit."""
    import keras
    from keras import layers

    import mexit_edge as mx

    keras.utils.set_random_seed(3)
    window = keras.Input(fixtures.SENSOR.shape, name="window")
    x = layers.Conv1D(8, 5, strides=2, padding="same", use_bias=False, name="stem")(window)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9, name="stem_norm")(x))
    early = layers.Dense(fixtures.N_CLASSES, name="exit_01")(layers.GlobalAveragePooling1D()(x))
    x = layers.DepthwiseConv1D(3, padding="same", name="depthwise")(x)
    x = layers.SeparableConv1D(12, 3, strides=2, activation="relu", name="separable")(x)
    late = layers.Dense(fixtures.N_CLASSES, name="exit_02")(layers.GlobalMaxPooling1D()(x))
    network = fixtures.randomise(keras.Model(window, {"exit_01": early, "exit_02": late}))
    return mx.MultiExitModel(network, "boosted", normalisation=Normalisation.fit(WINDOWS), seed=5)


@cache
def pruned_model() -> Pruned:
    from mexit_edge.compress import prune

    given, before = boosted(), arrays(boosted().network)
    done = prune(given, WINDOWS, sparsity=SPARSITY, epochs=2, batch_size=16, verbose=0)
    return Pruned(given, before, done)


@cache
def int8(pruned: bool) -> bytes:
    from mexit_edge.compress import convert

    model = pruned_model().pruned if pruned else boosted()
    with fixtures.converting_in_this_process():
        return convert(model.network, model.normalisation.apply(WINDOWS.x))


def test_every_kernel_but_the_depthwise_ones_is_sparse() -> None:
    from mexit_edge.compress import kernel_facts

    facts = {(one.layer, one.kernel): one for one in kernel_facts(pruned_model().pruned.network)}
    assert set(facts) == {
        ("stem", "kernel"),
        ("depthwise", "depthwise_kernel"),
        ("separable", "depthwise_kernel"),
        ("separable", "pointwise_kernel"),
        ("exit_01", "kernel"),
        ("exit_02", "kernel"),
    }
    for one in facts.values():
        assert one.zeros == (0 if one.is_depthwise else ceil(SPARSITY * one.elements))


def test_what_was_given_stays_and_what_comes_is_of_its_kind() -> None:
    import mexit_edge as mx

    given, before, pruned = pruned_model()
    for old, now in zip(before, arrays(given.network), strict=True):
        np.testing.assert_array_equal(old, now)
    assert isinstance(pruned, mx.MultiExitModel)
    assert pruned.regime == given.regime
    assert (pruned.normalisation, pruned.seed) == (given.normalisation, given.seed)
    assert [layer.name for layer in pruned.network.layers] == [layer.name for layer in given.network.layers]
    assert pruned.provenance.train_subjects == WINDOWS.subjects
    assert pruned.provenance.epochs == 2
    assert pruned.provenance.regime == "boosted, pruned 70 %"
    assert given.provenance.regime == "boosted"
    assert given.provenance.epochs is None


def test_a_model_that_was_trained_without_normalisation_stays_so() -> None:
    import mexit_edge as mx
    from mexit_edge.compress import prune

    given = mx.MultiExitModel(boosted().network, "joint", seed=5)
    pruned = prune(given, WINDOWS, epochs=2, batch_size=16, verbose=0)
    assert pruned.normalisation == Normalisation.identity(WINDOWS.sensor.n_channels)
    assert given.normalisation is None


def test_statistics_of_normalisation_are_learned_on() -> None:
    given, _, pruned = pruned_model()
    for name in ("moving_mean", "moving_variance"):
        old, new = (getattr(one.network.get_layer("stem_norm"), name) for one in (given, pruned))
        assert (np.asarray(old) != np.asarray(new)).all()


def test_zeros_survive_into_the_int8_model_and_its_zipped_size() -> None:
    from mexit_edge.compress import kernel_facts, sparsity, zipped_bytes

    facts = kernel_facts(int8(pruned=True))
    assert sorted(one.kernel for one in facts) == sorted(
        ["CONV_2D"] * 2 + ["DEPTHWISE_CONV_2D"] * 2 + ["FULLY_CONNECTED"] * 2
    )
    assert all(one.sparsity >= SPARSITY for one in facts if not one.is_depthwise)
    assert sparsity(int8(pruned=False)) < 0.1 < sparsity(int8(pruned=True))
    assert zipped_bytes(int8(pruned=True)) < zipped_bytes(int8(pruned=False))
    # The file itself is as long as before: TFLite stores zeros like any other weight.
    assert len(int8(pruned=True)) == len(int8(pruned=False))


@pytest.mark.parametrize("kept", [True, False])
def test_zeros_stay_in_a_later_fit_where_that_is_asked_for(kept: bool) -> None:
    # A copy: a constraint lasts as long as its network.
    import mexit_edge as mx
    from mexit_edge.compress import keep_zeros, kernel_facts
    from mexit_edge.compress.tfmot import bridge

    source = pruned_model().pruned
    bridged = bridge(source.network)
    network = bridged.back(bridged.twin)
    model = mx.MultiExitModel(network, "boosted", normalisation=source.normalisation)
    if kept:
        keep_zeros(model)
    before = arrays(network)
    model.compile("adam", run_eagerly=True)
    model.fit(WINDOWS, batch_size=32, epochs=1, verbose=0)
    facts = [one for one in kernel_facts(network) if not one.is_depthwise]
    learned = [
        (old != now)[old != 0].any() for old, now in zip(before, arrays(network), strict=True) if old.any()
    ]
    assert all(learned)
    if kept:
        assert all(one.sparsity >= SPARSITY for one in facts)
    else:
        assert all(one.sparsity < SPARSITY for one in facts)


def test_keep_zeros_wants_zeros() -> None:
    from mexit_edge.compress import keep_zeros

    with pytest.raises(InputError, match="Use `prune` before"):
        keep_zeros(boosted())


def test_the_same_seed_gives_the_same_weights_to_a_plain_network_of_one_exit() -> None:
    import keras

    from mexit_edge.compress import prune

    keras.utils.set_random_seed(0)
    window = keras.Input(fixtures.SENSOR.shape, name="window")
    features = keras.layers.Dropout(0.3)(keras.layers.Flatten()(window))
    logits = keras.layers.Dense(fixtures.N_CLASSES, name="exit_01")(features)
    network = keras.Model(window, {"exit_01": logits})
    options = {"sparsity": 0.5, "epochs": 1, "batch_size": 16, "frequency": 1, "verbose": 0}
    one, two = (arrays(prune(network, WINDOWS.x, WINDOWS.y, seed=1, **options)) for _ in range(2))
    for left, right, before in zip(one, two, arrays(network), strict=True):
        np.testing.assert_array_equal(left, right)
        assert (left != before).any()


@given(
    n_steps=st.integers(1, 500),
    begin=st.floats(0, 0.9),
    length=st.floats(0.05, 1),
    frequency=st.none() | st.integers(1, 200),
)
def test_the_last_change_of_masks_always_happens(
    n_steps: int, begin: float, length: float, frequency: int | None
) -> None:
    from mexit_edge.compress.tfmot.pruning import _schedule

    end = min(1.0, begin + length)
    room = max(1, round(end * n_steps)) - max(1, round(begin * n_steps))
    if room < (frequency or 1):
        with pytest.raises(InputError, match="`frequency` must be at most"):
            _schedule(n_steps, begin, end, frequency)
        return
    made = _schedule(n_steps, begin, end, frequency)
    assert 1 <= made.begin < made.end <= n_steps
    assert (made.end - made.begin) % made.frequency == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sparsity": 1.0}, "`sparsity` must be a share"),
        ({"sparsity": float("nan")}, "`sparsity` must be a share"),
        ({"begin": 0.6, "end": 0.5}, "`begin` and `end`"),
        ({"epochs": 0}, "`epochs` must be a whole number of at least 1"),
        ({"epochs": 1.5}, r"`epochs` must be a whole number of at least 1. Received: 1.5"),
        ({"batch_size": True}, "`batch_size` must be a whole number"),
        ({"learning_rate": float("inf")}, "`learning_rate` must be positive"),
        ({"frequency": 0}, "`frequency` must be at least 1"),
        ({"frequency": 100, "epochs": 1}, r"`frequency` must be at most .*Received: 100"),
        ({"x": iter([1])}, "`x` must be `Windows`, or arrays"),
        ({"x": WINDOWS.x[:, :5], "y": WINDOWS.y}, "shape"),
    ],
)
def test_bad_input(options: dict[str, Any], words: str) -> None:
    from mexit_edge.compress import prune

    with pytest.raises(InputError, match=words):
        prune(boosted(), **{"x": WINDOWS, "verbose": 0, **options})
