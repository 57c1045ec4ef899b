"""A folded network computes what the network computes, layer kind by layer kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fixtures_networks import NETWORKS, randomise

pytest.importorskip("tensorflow", reason="TensorFlow is not installed (the [train] extra)")

import keras
from keras import layers as kl

from mexit_edge.compress.folding import fold
from mexit_edge.errors import InputError
from mexit_edge.models.join import SelectChannels

pytestmark = pytest.mark.train

TIME, CHANNELS = 12, 3
IMAGE = (6, 5, 3)


def chain(*made: Any, shape: tuple[int, ...] = (TIME, CHANNELS)) -> keras.Model:
    features = window = keras.Input(shape, name="window")
    for layer in made:
        features = layer(features)
    return keras.Model(window, features)


def nested_twice() -> keras.Model:
    """A block with a normalization, called twice: one set of weights."""
    block = keras.Sequential(
        [
            keras.Input((TIME, CHANNELS)),
            kl.Conv1D(CHANNELS, 3, padding="same", name="conv"),
            kl.BatchNormalization(),
            kl.ReLU(),
        ],
        name="block",
    )
    window = keras.Input((TIME, CHANNELS), name="window")
    stem = kl.Conv1D(CHANNELS, 1, name="conv")(window)
    return keras.Model(window, block(block(stem)))


def shared_with_two_norms() -> keras.Model:
    """Folding either normalization into the shared kernel would spoil the other."""
    window = keras.Input((TIME, CHANNELS), name="window")
    shared = kl.Conv1D(CHANNELS, 3, padding="same", name="shared")
    one = kl.BatchNormalization(name="one")(shared(window))
    return keras.Model(window, kl.BatchNormalization(name="two")(shared(one)))


def norm_beside_a_reader() -> keras.Model:
    """The convolution is read without its normalization too."""
    window = keras.Input((TIME, CHANNELS), name="window")
    features = kl.Conv1D(4, 3, padding="same")(window)
    return keras.Model(window, kl.Add()([features, kl.BatchNormalization()(features)]))


def operators() -> keras.Model:
    window = keras.Input((TIME, CHANNELS), name="window")
    left = kl.Conv1D(4, 3, padding="same")(window)
    right = kl.Conv1D(4, 3, padding="same")(window)
    both = keras.ops.relu((left + right) * left - right)
    return keras.Model(window, [both[:, 2:9:2, 1:], both[:, :3]])


def merges() -> keras.Model:
    window = keras.Input((TIME, CHANNELS), name="window")
    left = kl.Conv1D(4, 3, padding="same", activation="relu")(window)
    right = kl.Conv1D(4, 3, padding="same", activation="relu6")(window)
    along = kl.Concatenate(axis=1)([left, right])
    deep = kl.Concatenate(axis=-1)([left, kl.Multiply()([left, right])])
    gate = kl.Dense(8, activation="sigmoid")(kl.GlobalAveragePooling1D(keepdims=True)(deep))
    rest = kl.Subtract()([kl.Multiply()([deep, gate]), deep])
    return keras.Model(window, {"along": along, "rest": rest})


def two_inputs() -> keras.Model:
    window, facts = keras.Input((TIME, CHANNELS), name="window"), keras.Input((5,), name="facts")
    pooled = kl.GlobalMaxPooling1D()(kl.Conv1D(4, 3)(window))
    return keras.Model([window, facts], kl.Dense(2)(kl.Concatenate()([pooled, kl.Dense(3)(facts)])))


def joined() -> keras.Model:
    """Two branches, one of channels at equal distances and one of others, which takes a concatenation."""
    window = keras.Input((TIME, 5), name="window")
    left = SelectChannels([0, 2], name="left")(window)
    right = SelectChannels([4, 1, 3], name="right")(window)
    return keras.Model(window, [kl.Conv1D(4, 3)(left), kl.Conv1D(4, 3)(right)])


def names_taken() -> keras.Model:
    """Every name that is made up for a further layer is one of the network's own already."""
    window = keras.Input((TIME, CHANNELS), name="window")
    features = kl.Conv1D(CHANNELS, 3, padding="causal", activation="relu", name="block")(window)
    features = kl.ReLU(name="block_relu")(kl.Identity(name="block_causal")(features))
    features = kl.Identity(name="window_at_height_1")(kl.Identity(name="at_rank_3")(features))
    features = kl.SeparableConv1D(CHANNELS, 3, padding="same", name="split")(features)
    along = kl.Identity(name="split_depthwise")(features)
    flat = kl.BatchNormalization(name="norm")(kl.Flatten(name="norm_up")(along))
    return keras.Model(window, [along, kl.Dense(2, name="norm_down")(flat)])


CASES: dict[str, Callable[[], keras.Model]] = {
    "conv": lambda: chain(kl.Conv1D(4, 5, strides=2, padding="valid")),
    "conv norm relu": lambda: chain(
        kl.Conv1D(4, 5, strides=2, padding="same", use_bias=False), kl.BatchNormalization(), kl.ReLU()
    ),
    "conv bias norm": lambda: chain(kl.Conv1D(4, 3), kl.BatchNormalization(scale=False)),
    "conv relu norm": lambda: chain(kl.Conv1D(4, 3, activation="relu"), kl.BatchNormalization(center=False)),
    "causal": lambda: chain(kl.Conv1D(4, 3, padding="causal", dilation_rate=2)),
    "dilated": lambda: chain(kl.Conv1D(4, 3, padding="same", dilation_rate=3), kl.BatchNormalization()),
    "depthwise": lambda: chain(
        kl.DepthwiseConv1D(3, strides=2, padding="same", depth_multiplier=2), kl.BatchNormalization()
    ),
    "separable": lambda: chain(
        kl.SeparableConv1D(4, 3, strides=2, padding="same", depth_multiplier=2), kl.BatchNormalization()
    ),
    "separable dilated": lambda: chain(kl.SeparableConv1D(4, 3, dilation_rate=2, activation="tanh")),
    "dense norm": lambda: chain(kl.Dense(4), kl.BatchNormalization(), kl.ReLU(), shape=(7,)),
    "dense on a sequence": lambda: chain(kl.Dense(4), kl.BatchNormalization(), kl.Dense(2)),
    "lone norm": lambda: chain(kl.BatchNormalization(), kl.Conv1D(4, 3)),
    "lone norm on features": lambda: chain(kl.Flatten(), kl.BatchNormalization(), kl.Dense(3)),
    "pools": lambda: chain(kl.MaxPooling1D(3, 2, padding="same"), kl.AveragePooling1D(2)),
    "global average": lambda: chain(kl.GlobalAveragePooling1D()),
    "global maximum": lambda: chain(kl.GlobalMaxPooling1D(keepdims=True)),
    "margins": lambda: chain(kl.ZeroPadding1D((1, 3)), kl.Cropping1D((0, 2)), kl.Conv1D(2, 3)),
    "reshapes": lambda: chain(
        kl.Reshape((6, 6)), kl.Conv1D(4, 3), kl.Flatten(), kl.Reshape((2, 2, 4)), kl.Conv2D(2, 2)
    ),
    "dropouts": lambda: chain(
        kl.Dropout(0.3), kl.SpatialDropout1D(0.3), kl.GaussianNoise(1.0), kl.Identity(), kl.Conv1D(2, 3)
    ),
    "activations": lambda: chain(
        *(kl.Activation(name) for name in ("tanh", "linear")),
        *(kl.LeakyReLU(0.1), kl.ReLU(6), kl.ReLU(negative_slope=0.2), kl.Softmax()),
        kl.Dense(3, activation=kl.LeakyReLU(0.3)),
    ),
    "2-D": lambda: chain(
        kl.Conv2D(4, 3, strides=2, padding="same"),
        kl.BatchNormalization(),
        kl.ReLU(),
        kl.DepthwiseConv2D((3, 2), padding="same"),
        kl.BatchNormalization(),
        kl.SeparableConv2D(5, 2, padding="same"),
        kl.ZeroPadding2D(((1, 0), (0, 1))),
        kl.MaxPooling2D(2),
        kl.GlobalAveragePooling2D(),
        shape=IMAGE,
    ),
    "nested and shared": nested_twice,
    "shared with two norms": shared_with_two_norms,
    "norm beside a reader": norm_beside_a_reader,
    "operators": operators,
    "merges": merges,
    "two inputs": two_inputs,
    "joined": joined,
    "names taken": names_taken,
    **{name: NETWORKS[name] for name in ("dscnn", "long_skip", "attached")},
}


@pytest.mark.parametrize("name", list(CASES))
def test_fold_equals_the_network(name: str) -> None:
    keras.utils.set_random_seed(0)
    network = randomise(CASES[name]())
    folded = fold(network)
    assert not [one for one in folded.layers if isinstance(one, kl.BatchNormalization | keras.Model)]
    rng = np.random.default_rng(1)
    x = [rng.standard_normal((4, *tensor.shape[1:])).astype(np.float32) for tensor in network.inputs]
    x = keras.tree.pack_sequence_as(network.input, x)
    expected, found = network(x), folded(x)
    keras.tree.assert_same_structure(expected, found)
    for one, other in zip(keras.tree.flatten(expected), keras.tree.flatten(found), strict=True):
        assert np.ptp(np.asarray(one)) > 0
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_layers_keep_their_names() -> None:
    network = NETWORKS["dscnn"]()
    kept = {one.name for one in network.layers if not isinstance(one, kl.BatchNormalization)}
    names = {one.name for one in fold(network).layers}
    assert names - kept == {"window_at_height_1"}
    assert kept <= names


def test_a_shared_layer_stays_one() -> None:
    folded = fold(nested_twice())
    assert [one.name for one in folded.layers if one.weights] == ["conv", "block_1_conv"]
    # Learnt by both calls at once.
    assert len(folded.trainable_variables) == 4


def test_frozen_layers_stay_frozen() -> None:
    network = chain(kl.Conv1D(4, 3, name="stem"), kl.Conv1D(4, 3, name="head"))
    network.get_layer("stem").trainable = False
    folded = fold(network)
    assert {one.name: one.trainable for one in folded.layers if one.weights} == {"stem": False, "head": True}


def test_dropout_of_the_copy_is_drawn_from_the_global_seed() -> None:
    """Not from where the network's stands: that depends on what trained or loaded it."""
    network = chain(kl.Dropout(0.5, name="drop"))
    x = np.ones((2, TIME, CHANNELS), np.float32)
    drawn = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        drawn.append(np.asarray(fold(network)(x, training=True)))
        network(x, training=True)
    np.testing.assert_array_equal(*drawn)
    assert 0 < np.mean(drawn[0] == 0) < 1


def relu(x: Any) -> Any:
    """Not the one of Keras."""
    return -x


def linear(x: Any) -> Any:
    """Not the one of Keras either."""
    return -x


class Half(kl.ReLU):
    def call(self, inputs: Any) -> Any:
        return 0.5 * super().call(inputs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: chain(kl.LSTM(4, name="memory")), "'memory' (LSTM). Use convolutions."),
        (lambda: chain(kl.LayerNormalization(name="norm")), "'norm' (LayerNormalization). Use BatchNorm"),
        (lambda: chain(kl.Conv1D(4, 3, activation="gelu", name="stem")), "'stem' (Conv1D). Use relu"),
        (lambda: chain(kl.ReLU(threshold=1.0, name="late")), "'late' (ReLU). Use relu"),
        (lambda: chain(kl.Conv1D(6, 3, activation=kl.ELU(), name="stem")), "'stem' (Conv1D). Use ReLU or"),
        (lambda: chain(kl.ReLU(2.0, 0.1, name="both")), "'both' (ReLU). Use relu"),
        (lambda: chain(kl.UpSampling2D(2, interpolation="bilinear", name="up"), shape=IMAGE), "nearest"),
        (lambda: chain(Half(name="own")), "'own' (Half). Its own `call`"),
        (lambda: chain(lambda x: x + np.ones((TIME, CHANNELS))), "Received: a tensor and an array of"),
        (lambda: chain(lambda x: x[:2, 1:]), "(GetItem). Slice with ranges"),
        (lambda: chain(lambda x: keras.ops.cumsum(x, 1)), "(Cumsum). Replace it"),
        (lambda: chain(kl.UnitNormalization(name="unit")), "'unit' (UnitNormalization). Use BatchNorm"),
        (lambda: chain(kl.ELU(name="bent")), "'bent' (ELU). Use ReLU or LeakyReLU."),
        (lambda: chain(kl.Conv1D(4, 3, activation=relu, name="stem")), "'stem' (Conv1D). Use relu"),
        (lambda: chain(kl.Activation(linear, name="same")), "'same' (Activation). Use relu"),
        (lambda: chain(kl.Conv1D(4, 3, activation=Half(), name="stem")), "'stem' (Conv1D). Use relu"),
        (lambda: chain(kl.Permute((2, 1), name="turn")), "'turn' (Permute). Replace it"),
        (lambda: chain(kl.BatchNormalization(axis=1, name="rows")), "'rows' (BatchNormalization). Normal"),
        (lambda: chain(kl.Conv1DTranspose(4, 3, name="up")), "'up' (Conv1DTranspose). Replace it"),
        (lambda: chain(kl.Rescaling([1.0, 2.0, 3.0], name="scale")), "'scale' (Rescaling). Use one number"),
        (lambda: chain(kl.Normalization(name="z")), "Normalise the windows before the network"),
        (lambda: chain(shape=(None, 3)), "static shape"),
    ],
)
def test_layers_without_a_form_are_named(make: Callable[[], keras.Model], message: str) -> None:
    with pytest.raises(InputError) as error:
        fold(make())
    assert message in str(error.value)
    assert "Received: " in str(error.value)


def test_only_networks_with_a_graph_can_be_folded() -> None:
    class Own(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(InputError, match="must be a functional"):
        fold(Own())
