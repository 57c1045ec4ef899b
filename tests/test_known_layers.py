"""One battery for everything that folding and the bridge to tf_keras know, and what only one of them does."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_networks import (
    TRAIN_REASON,
    converting_in_this_process,
    int8_logits,
    random_samples,
    randomise,
)

pytest.importorskip("tensorflow", reason=TRAIN_REASON)

import keras
import tensorflow as tf
from keras import layers as kl
from keras import ops

from mexit_edge.compress import convert
from mexit_edge.compress.folding import fold, known_layers
from mexit_edge.compress.folding_activations import ACTIVATIONS
from mexit_edge.compress.operators import known_operators
from mexit_edge.compress.quantize_aware import quantize_aware
from mexit_edge.compress.tfmot import activations, layers
from mexit_edge.errors import InputError
from mexit_edge.models import layer_table
from mexit_edge.models.activation_names import activation_name
from mexit_edge.models.join import SelectChannels
from mexit_edge.models.running_sum import RunningSum
from mexit_edge.tflite import audit_int8

pytestmark = pytest.mark.train
HAS_TFMOT = find_spec("tensorflow_model_optimization") is not None
has_tfmot = pytest.mark.skipif(
    not HAS_TFMOT,
    reason="TensorFlow Model Optimization is not installed (the [compress] extra)",
)

# What only one of the two knows, and why. Operators are the same for both by construction: `layer_of`.
ONLY_FOLDED: dict[str, str] = {}
ONLY_BRIDGED = {"ELU": "ELU has no int8 form"}
ONLY_FOLDED_ACTIVATIONS: dict[str, str] = {}
ONLY_BRIDGED_ACTIVATIONS = {
    "elu": "ELU has no int8 form",
    "exponential": "TFLM has no int8 form of EXP",
    "gelu": "TFLM has no GELU",
    "mish": "it takes EXP and LOG, of which TFLM has no int8 form",
    "selu": "GREATER and SELECT leave the int8 types",
    "softplus": "it takes EXP and LOG, of which TFLM has no int8 form",
    "softsign": "its int8 form, by ABS, ADD and DIV, has no fake quantization",
}
# What a plain export blocks, and fine-tuning does not: it has other operators for them.
ONLY_BY_FOLDING = {"UpSampling1D", "UpSampling2D", "Negative"}

# Of other homes than `keras.activations`.
FUNCTIONS = (ops.relu, ops.silu, ops.hard_swish, ops.leaky_relu, tf.nn.silu, tf.nn.softmax, tf.sigmoid)

Branch = Callable[[Any, Any], Any]


def of_one(*makers: Callable[[], Any]) -> list[Branch]:
    return [lambda one, other, make=make: make()(one) for make in makers]


def of_several(make: Callable[[], Any]) -> list[Branch]:
    return [lambda one, other: make()([one, other]), lambda one, other: make()([other, one, one])]


def in_both(names: str, make: Callable[[Any, int], Any]) -> tuple[list[Branch], list[Branch]]:
    """A layer of 1-D and its sister of 2-D."""
    one, two = names.split(" / ")
    return of_one(lambda: make(getattr(kl, one), 1)), of_one(lambda: make(getattr(kl, two), 2))


def sizes(rank: int, *of_two: int) -> Any:
    """The last of two sizes in one dimension, both in two."""
    return of_two[-1] if rank == 1 else of_two


TWICE = [
    in_both("Conv1D / Conv2D", lambda kind, n: kind(5, sizes(n, 2, 3), strides=2, padding="same")),
    in_both("Conv1D / Conv2D", lambda kind, n: kind(6, 3, groups=2, padding="same", activation="relu")),
    in_both("Conv1D / Conv2D", lambda kind, n: kind(5, sizes(n, 1, 3), dilation_rate=2, use_bias=False)),
    in_both(
        "DepthwiseConv1D / DepthwiseConv2D",
        lambda kind, n: kind(3, strides=2, padding="same", depth_multiplier=2),
    ),
    in_both("SeparableConv1D / SeparableConv2D", lambda kind, n: kind(5, 2, depth_multiplier=2)),
    in_both("MaxPooling1D / MaxPooling2D", lambda kind, n: kind(3, 2, padding="same")),
    in_both("AveragePooling1D / AveragePooling2D", lambda kind, n: kind(2)),
    in_both("GlobalMaxPooling1D / GlobalMaxPooling2D", lambda kind, n: kind()),
    in_both("GlobalAveragePooling1D / GlobalAveragePooling2D", lambda kind, n: kind(keepdims=True)),
    in_both("ZeroPadding1D / ZeroPadding2D", lambda kind, n: kind((1, 2))),
    in_both("Cropping1D / Cropping2D", lambda kind, n: kind((1, 2))),
    in_both("UpSampling1D / UpSampling2D", lambda kind, n: kind(sizes(n, 2, 3))),
    in_both("SpatialDropout1D / SpatialDropout2D", lambda kind, n: kind(0.2)),
]
# On features of any rank.
ANYWHERE = [
    *of_one(lambda: kl.Dense(5), kl.BatchNormalization, lambda: kl.Rescaling(0.7, -0.4)),
    *of_one(lambda: kl.Rescaling(-1.3), lambda: kl.Rescaling(1.0, 0.6)),
    *of_one(lambda: kl.Activation("tanh"), kl.Softmax, lambda: kl.LeakyReLU(0.3)),
    *of_one(kl.ReLU, lambda: kl.ReLU(6.0), lambda: kl.ReLU(0.7), lambda: kl.ReLU(negative_slope=0.2)),
    *of_one(lambda: kl.Dense(5, activation=kl.LeakyReLU(0.1)), lambda: kl.Dense(5, activation=kl.ReLU(0.5))),
    *of_one(lambda: kl.Dropout(0.2), lambda: kl.GaussianNoise(0.2), kl.Identity, kl.ActivityRegularization),
    *of_one(kl.Flatten, lambda: kl.Reshape((4, -1))),
    *of_several(kl.Add),
    *of_several(kl.Average),
    *of_several(kl.Maximum),
    *of_several(kl.Minimum),
    *of_several(kl.Multiply),
    *of_several(kl.Concatenate),
    lambda one, other: kl.Subtract()([one, other]),
]
RUNNING_SUM: Branch = lambda one, other: RunningSum(0.5)([kl.Dense(3)(kl.Flatten()(one))] * 2)  # noqa: E731
OPERATORS: list[Branch] = [
    lambda one, other: one + other,
    lambda one, other: one - other * one,
    lambda one, other: ops.maximum(one, other),
    lambda one, other: ops.minimum(one, other),
    lambda one, other: 1.5 + one,
    lambda one, other: one - 0.5,
    lambda one, other: 1 - one,
    lambda one, other: one * np.float32(0.3),
    lambda one, other: one + np.array(0.6, np.float32),
    lambda one, other: one / 4,
    lambda one, other: ops.divide(one, -2.0),
    lambda one, other: -one,
    lambda one, other: ops.concatenate([one, other], axis=1),
    lambda one, other: one[:, 2:9:2, 1:],
    lambda one, other: one[:, -1],
    lambda one, other: one[..., 2],
    lambda one, other: one[..., -3:-1],
    *[
        lambda one, other, function=function: function(one)
        for function in (ops.relu, ops.relu6, ops.sigmoid, ops.hard_sigmoid, ops.tanh, ops.silu, ops.softmax)
    ],
    lambda one, other: ops.hard_silu(one),
    lambda one, other: ops.leaky_relu(one, 0.1),
]
BRANCHES: dict[str, tuple[tuple[int, ...], list[Branch]]] = {
    "1-D": (
        (12, 4),
        [
            *(branch for both in TWICE for branch in both[0]),
            *ANYWHERE,
            *of_one(lambda: kl.Conv1D(5, 3, padding="causal", dilation_rate=2)),
            *of_one(lambda: SelectChannels([3, 0, 1]), lambda: SelectChannels([1, 3])),
            RUNNING_SUM,
        ],
    ),
    "2-D": ((6, 8, 4), [*(branch for both in TWICE for branch in both[1]), *ANYWHERE]),
    "operators": ((12, 4), OPERATORS),
    "operators in 2-D": ((6, 8, 4), OPERATORS),
    "activations": (
        (12, 4),
        of_one(*(lambda name=name: kl.Dense(4, activation=name) for name in (*ACTIVATIONS, *FUNCTIONS))),
    ),
    # What becomes several int8 operators, or has a range of its own making.
    "int8": (
        (12, 4),
        [
            *of_one(lambda: kl.UpSampling1D(2), lambda: kl.Rescaling(0.7, -0.4), lambda: kl.ReLU(0.7)),
            *of_one(lambda: kl.Conv1D(6, 3, groups=2)),
            *of_one(lambda: kl.Activation(ops.hard_silu), lambda: kl.Activation("hard_sigmoid")),
            # The second of three is the first again, so that one of the differences is always 0.
            *of_several(kl.Maximum)[1:],
            *of_several(kl.Average)[1:],
            lambda one, other: 1 - one[:, -1],
        ],
    ),
}


def network_of(branches: list[Branch], shape: tuple[int, ...]) -> keras.Model:
    """An exit per branch, all on the same two feature maps."""
    window = keras.Input(shape, name="window")
    kind = kl.Conv1D if len(shape) == 2 else kl.Conv2D
    one, other = (kind(4, 3, padding="same", name=name)(window) for name in ("one", "other"))
    outputs = {}
    for number, branch in enumerate(branches, start=1):
        name = f"exit_{number:02d}"
        outputs[name] = kl.Dense(3, name=name)(kl.Flatten()(branch(one, other)))
    return keras.Model(window, outputs)


@cache
def battery(name: str) -> keras.Model:
    keras.utils.set_random_seed(3)
    shape, branches = BRANCHES[name]
    return randomise(network_of(branches, shape))


def samples_of(network: keras.Model) -> np.ndarray:
    return random_samples(32, network.inputs[0].shape[1:])


def translations() -> list[Callable[[keras.Model], Any]]:
    """Folding, and the bridge where its extra is installed."""
    if not HAS_TFMOT:
        return [fold]
    from mexit_edge.compress.tfmot import bridge

    return [fold, bridge]


def test_the_two_know_the_same_but_for_what_is_listed() -> None:
    folded, bridged = set(known_layers()), set(layers.known_layers())
    assert folded - bridged == set(ONLY_FOLDED)
    assert bridged - folded == set(ONLY_BRIDGED)
    names = set(activations.known_activations())
    assert set(ACTIVATIONS) - names == set(ONLY_FOLDED_ACTIVATIONS)
    assert names - set(ACTIVATIONS) == set(ONLY_BRIDGED_ACTIVATIONS)


def test_the_batteries_hold_everything_that_folding_knows() -> None:
    there = {type(layer).__name__ for name in BRANCHES for layer in battery(name)._operations}
    assert set(known_layers()) <= there
    # An ELU is one for the bridge alone.
    assert set(known_operators()) - {"Elu"} <= there


def test_the_documentation_names_all_of_them() -> None:
    text = (Path(__file__).parents[1] / "docs" / "qat.md").read_text("utf-8")
    text = re.sub(r"(\w+)1D/2D", r"\g<1>1D \g<1>2D", text).partition("## What it takes")[2]
    table = set(re.findall(r"\w+", text.partition("Nested networks")[0]))
    assert set(known_layers()) | set(ACTIVATIONS) - {"linear"} <= table
    assert not table & {*ONLY_BRIDGED, *ONLY_BRIDGED_ACTIVATIONS}


@pytest.mark.parametrize("name", BRANCHES)
def test_what_folding_knows_exports_to_int8(name: str) -> None:
    blocked = {row.type for row in layer_table(battery(name)) if row.int8.converts is not True}
    assert blocked <= ONLY_BY_FOLDING


@pytest.mark.parametrize("home", [keras.activations, ops, tf.nn], ids=["activations", "ops", "nn"])
def test_functions_of_a_name_compute_the_same(home: Any) -> None:
    x = np.linspace(-4, 8, 30, dtype=np.float32).reshape(5, 6)
    functions = [
        getattr(home, name, None) for name in {*ACTIVATIONS, *activations.known_activations(), "gelu"}
    ]
    named = {activation_name(one): one for one in functions if one is not None and activation_name(one)}
    assert {"relu", "sigmoid", "silu", "softmax", "tanh"} <= set(named)
    # The one of `keras.ops` approximates.
    assert ("gelu" in named) == (home is not ops)
    for name, function in named.items():
        expected = keras.activations.get(name)(x)
        np.testing.assert_allclose(function(x), expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_function_of_ones_own_is_none_of_them() -> None:
    def relu(x: Any) -> Any:
        return -x

    assert activation_name(relu) is None
    assert activation_name(kl.ReLU()) is None
    assert activation_name(None) == "linear"
    for layer in (kl.Dense(3, activation=relu), kl.Activation(relu)):
        network = network_of(of_one(lambda layer=layer: layer), (12, 4))
        assert [row.int8.reason for row in layer_table(network) if row.int8.converts is None] == [
            "the activation relu was not tried"
        ]


@pytest.mark.parametrize("name", BRANCHES)
def test_folding_keeps_what_each_computes(name: str) -> None:
    network = battery(name)
    x = samples_of(network)
    folded = fold(network)(x)
    for exit_, expected in network(x).items():
        assert np.ptp(expected) > 0.01, exit_
        np.testing.assert_allclose(folded[exit_], expected, rtol=1e-5, atol=1e-5, err_msg=exit_)


@has_tfmot
@pytest.mark.parametrize("name", BRANCHES)
def test_the_bridge_keeps_what_each_computes(name: str) -> None:
    from mexit_edge.compress.tfmot import bridge

    network = battery(name)
    x = samples_of(network)
    bridged = bridge(network)
    expected = network(x)
    for exit_, logits in zip(bridged.exits, bridged.twin(x), strict=True):
        np.testing.assert_allclose(logits, expected[exit_], rtol=1e-5, atol=1e-5, err_msg=exit_)
    back = bridged.back(bridged.twin)
    for exit_, logits in back(x).items():
        np.testing.assert_array_equal(logits, expected[exit_], err_msg=exit_)


@pytest.mark.parametrize("name", ["1-D", "2-D", "operators", "activations"])
def test_what_each_knows_it_knows_from_a_file(name: str, tmp_path: Path) -> None:
    """Keras writes tuples as lists, among them the key of a slice."""
    battery(name).save(tmp_path / "battery.keras")
    # Not found by Keras alone: `tf.nn.silu` calls itself swish.
    custom = {function.__name__: function for function in FUNCTIONS}
    network = keras.saving.load_model(tmp_path / "battery.keras", custom_objects=custom)
    x = samples_of(network)
    found = [fold(network)(x)]
    if HAS_TFMOT:
        from mexit_edge.compress.tfmot import bridge

        bridged = bridge(network)
        found.append(dict(zip(bridged.exits, bridged.twin(x), strict=True)))
    for exit_, expected in network(x).items():
        for logits in found:
            np.testing.assert_allclose(logits[exit_], expected, rtol=1e-5, atol=1e-5, err_msg=exit_)


@pytest.mark.parametrize(
    ("branch", "message"),
    [
        (
            lambda one: ops.maximum(one, 0.5),
            "the operator Maximum on two tensors. Received: a tensor and the number 0.5 for 'maximum",
        ),
        (lambda one: ops.maximum(one, 0.5), "Use `keras.layers.ReLU`"),
        (lambda one: ops.minimum(2, one), "Received: the number 2 and a tensor for 'minimum"),
        (lambda one: one + np.ones(4), "a tensor and an array of shape (4,) for 'add"),
        (lambda one: one + np.ones(4), "`keras.layers.Rescaling` does, or `keras.layers.BatchNormalization`"),
        (lambda one: ops.ones(4) * one, "an array of shape (4,) and a tensor for 'multiply"),
        (lambda one: one / one, "a tensor and a tensor for"),
        (lambda one: 1 / one, "a tensor and, behind it, a number other than 0. Received: the number 1 and"),
        (lambda one: one / 0, "Received: a tensor and the number 0 for"),
    ],
)
def test_an_operand_that_is_not_known_is_said(branch: Callable[[Any], Any], message: str) -> None:
    network = network_of([lambda one, other: branch(one)], (12, 4))
    for translated in translations():
        with pytest.raises(InputError, match=re.escape(message)):
            translated(network)


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_windows_cannot_be_concatenated(rank: int) -> None:
    window = keras.Input((12, 4, 3)[: rank - 1], name="window")
    for made in (kl.Concatenate(axis=-rank, name="stack")([window] * 2), ops.concatenate([window] * 2)):
        network = keras.Model(window, {"exit_01": kl.Dense(3, name="exit_01")(kl.Flatten()(made))})
        for translated in translations():
            with pytest.raises(InputError, match=r"the batch alone\. Received: axis=.* \(Concatenate\)"):
                translated(network)


@has_tfmot
def test_a_softmax_over_several_axes_is_one_for_the_bridge_but_over_windows() -> None:
    from mexit_edge.compress.tfmot import bridge

    network = network_of(of_one(lambda: kl.Softmax([1, -1])), (12, 4))
    x = samples_of(network)
    np.testing.assert_allclose(bridge(network).twin(x), network(x)["exit_01"], rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match=r"axis=0 in the layer 'mixed' \(Softmax\)"):
        bridge(network_of(of_one(lambda: kl.Softmax(0, name="mixed")), (12, 4)))


def converted(aware: keras.Model) -> bytes:
    with converting_in_this_process():
        whole = convert(aware)
    audit_int8(whole)
    return whole


def test_each_becomes_int8_and_agrees_with_its_fake_quantization(tmp_path: Path) -> None:
    network = battery("int8")
    x = samples_of(network)
    aware = quantize_aware(network, x)
    aware.save(tmp_path / "aware.keras")
    aware = keras.saving.load_model(tmp_path / "aware.keras")
    whole = converted(aware)
    expected, floats = aware(x), network(x)
    for exit_, (logits, scale) in int8_logits(whole, x).items():
        steps = np.abs(logits - np.asarray(expected[exit_])) / scale
        assert steps.max() < 1.01, exit_
        assert (steps < 0.5).mean() > 0.85, exit_
        assert np.abs(logits - np.asarray(floats[exit_])).mean() < 4 * scale, exit_
