"""The bridge to tf_keras: the same logits there, the same weights back."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import fixtures_networks as fixtures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.errors import InputError, MissingExtraError

pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(not fixtures.HAS_TENSORFLOW, reason=fixtures.TRAIN_REASON),
    pytest.mark.skipif(
        find_spec("tensorflow_model_optimization") is None,
        reason="TensorFlow Model Optimization is not installed (the [compress] extra)",
    ),
]


def network_of(inputs: Any, *features: Any) -> Any:
    """Dense exits on features of rank 2."""
    import keras

    outputs = {
        f"exit_{number:02d}": keras.layers.Dense(3, name=f"exit_{number:02d}")(one)
        for number, one in enumerate(features, start=1)
    }
    return keras.Model(inputs, outputs)


def activations_network() -> Any:
    """Every activation, inside a layer and as one, in one dimension."""
    import keras
    from keras import layers

    names = ("relu", "relu6", "leaky_relu", "elu", "selu", "silu", "gelu", "mish", "tanh", "sigmoid")
    names += ("hard_sigmoid", "hard_silu", "softmax", "softplus", "softsign", "exponential", "linear")
    x = window = keras.Input((12, 4), name="window")
    branches = [layers.Conv1D(3, 3, activation=name)(window) for name in names]
    branches += [layers.Activation(name)(branches[0]) for name in names]
    x = layers.Concatenate(axis=2)(branches)
    kinds = (layers.ReLU(4.0, 0.1, 0.2), layers.LeakyReLU(0.3), layers.ELU(0.7), layers.Softmax(axis=1))
    y = layers.Concatenate(axis=1)([kind(branches[-1]) for kind in kinds])
    return network_of(window, layers.Flatten()(x), layers.GlobalAveragePooling1D()(y))


def shapes_network() -> Any:
    """What changes shapes in one dimension: pooling, padding, cropping, reshaping, dense on sequences."""
    import keras
    from keras import layers

    window = keras.Input((17, 4), name="a window")
    x = layers.ZeroPadding1D((1, 2))(window)
    x = layers.SpatialDropout1D(0.2)(layers.MaxPooling1D(3, strides=2, padding="same")(x))
    x = layers.Cropping1D((1, 0))(layers.UpSampling1D(2)(x))
    x = layers.SeparableConv1D(6, 3, depth_multiplier=2, strides=2, activation="relu6")(x)
    x = layers.DepthwiseConv1D(3, dilation_rate=2, padding="same", depth_multiplier=2)(x)
    x = layers.Conv1D(6, 3, groups=2, padding="causal", dilation_rate=3)(x)
    gate = layers.Dense(6, activation="hard_sigmoid")(layers.GlobalMaxPooling1D(keepdims=True)(x))
    x = layers.Multiply()([x, gate])
    early = layers.GlobalAveragePooling1D()(layers.AveragePooling1D(2)(x))
    grid = layers.Reshape((-1, 2, 3))(x)
    grid = layers.Maximum()([grid, layers.Rescaling(0.5, 0.1)(grid)])
    again = layers.Reshape((-1, 3))(layers.Dense(6, activation="tanh")(grid))
    again = layers.ActivityRegularization(l2=0.1)(layers.GaussianNoise(0.1)(layers.Identity()(again)))
    return network_of(window, early, layers.Flatten()(again))


def grid_network() -> Any:
    """Two dimensions."""
    import keras
    from keras import layers

    window = keras.Input((9, 8, 2), name="window")
    x = layers.ZeroPadding2D(1)(window)
    x = layers.Conv2D(6, (3, 2), strides=(2, 1), padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(scale=False)(x))
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    early = layers.GlobalMaxPooling2D()(layers.SpatialDropout2D(0.2)(layers.MaxPooling2D()(x)))
    x = layers.SeparableConv2D(5, (2, 3), dilation_rate=(1, 2), activation="leaky_relu")(x)
    x = layers.Subtract()([x, layers.Minimum()([x, layers.Average()([x, x])])])
    x = layers.Concatenate(axis=-2)(
        [layers.UpSampling2D(2)(x), layers.Cropping2D(0)(layers.UpSampling2D(2)(x))]
    )
    return network_of(window, early, layers.GlobalAveragePooling2D()(layers.AveragePooling2D(2)(x)))


def shared_network() -> Any:
    """Two inputs, nested models (one called twice), a shared layer, a repeated name, and running sums."""
    import keras
    from keras import layers

    from mexit_edge.models.running_sum import add_running_sums

    acc, gyr = keras.Input((16, 3), name="acc"), keras.Input((16, 3), name="gyr")
    inside = keras.Input((16, 3))
    body = layers.BatchNormalization()(layers.Conv1D(5, 3, name="twice")(inside))
    nested = keras.Model(inside, keras.Sequential([layers.ReLU(), layers.Conv1D(4, 1)])(body))
    shared = layers.Conv1D(4, 3, padding="same", name="twice")
    left, right = nested(acc), nested(gyr)
    x = layers.Add()([shared(left), shared(right)])
    pool = layers.GlobalAveragePooling1D()
    return add_running_sums(network_of([acc, gyr], pool(x), pool(shared(x)), pool(left)), 0.5)


def joined_network() -> Any:
    """Two sensors in one window, and layers of the names that activations and padding would be given."""
    import keras
    from keras import layers

    from mexit_edge.models import join_inputs

    left, right = keras.Input((16, 2), name="left"), keras.Input((16, 3), name="right")
    x = layers.Conv1D(4, 3, padding="causal", activation="relu6", name="block")(left)
    x = layers.ReLU(6.0, name="block_relu6")(layers.Identity(name="block_causal")(x))
    both = layers.Concatenate(name="left_high")([x, layers.Conv1D(4, 3, padding="same")(right)])
    pool = layers.GlobalAveragePooling1D()
    model = network_of([left, right], pool(x), layers.GlobalMaxPooling1D()(both))
    return join_inputs(model, {"left": [4, 1], "right": [0, 2, 3]})


MAKERS = {
    **fixtures.NETWORKS,
    "activations": activations_network,
    "shapes": shapes_network,
    "grid": grid_network,
    "shared": shared_network,
    "joined": joined_network,
}


@cache
def known() -> set[str]:
    from mexit_edge.compress.tfmot.layers import known_layers

    return set(known_layers())


def layer_names(network: Any) -> list[str]:
    return [layer.name for layer in network._flatten_layers()]


@pytest.mark.parametrize("name", MAKERS)
def test_same_logits_there_and_same_weights_back(name: str) -> None:
    import keras

    from mexit_edge.compress.tfmot import bridge

    keras.utils.set_random_seed(1)
    network = fixtures.randomise(MAKERS[name]())
    x = [fixtures.random_samples(8, tensor.shape[1:], seed) for seed, tensor in enumerate(network.inputs)]
    x = x if len(x) > 1 else x[0]
    before = {exit_: np.asarray(logits) for exit_, logits in network(x).items()}
    bridged = bridge(network)
    for exit_, logits in zip(bridged.exits, bridged.twin(x), strict=True):
        assert np.ptp(before[exit_]) > 0.01
        np.testing.assert_allclose(logits, before[exit_], rtol=1e-5, atol=1e-5)
    # No layer computes on (batch, time, channels) there, which TensorFlow Model Optimization cannot take.
    computing = [layer for layer in bridged.twin.layers if type(layer).__name__ != "InputLayer"]
    assert all(len(layer.get_output_shape_at(0)) != 3 for layer in computing)
    # What is learned there comes back, and the network itself stays as it is.
    for layer in bridged.twin.layers:
        layer.set_weights([array * 1.25 for array in layer.get_weights()])
    copy = bridged.back(bridged.twin)
    assert layer_names(copy) == layer_names(network)
    for old, new in zip(network.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(old) * np.float32(1.25), np.asarray(new))
    for exit_, logits in network(x).items():
        np.testing.assert_array_equal(logits, before[exit_])


def test_every_layer_the_bridge_knows_is_in_one_of_the_networks() -> None:
    there = {
        type(layer).__name__
        for name in MAKERS
        for layer in MAKERS[name]()._flatten_layers(include_self=False)
    }
    assert known() <= there


@settings(max_examples=12, deadline=None)
@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    padding=st.sampled_from(["same", "valid", "causal"]),
    channels=st.integers(1, 4),
    kind=st.sampled_from(["Conv1D", "SeparableConv1D", "DepthwiseConv1D"]),
)
def test_any_convolution_in_one_dimension(
    kernel: int, stride: int, dilation: int, padding: str, channels: int, kind: str
) -> None:
    import keras

    from mexit_edge.compress.tfmot import bridge

    # Keras takes no strides with a dilation, and knows causal padding of plain convolutions alone.
    options = {"strides": stride} if stride > 1 else {"dilation_rate": dilation}
    padding = "same" if padding == "causal" and kind != "Conv1D" else padding
    filters = () if kind == "DepthwiseConv1D" else (3,)
    window = keras.Input((20, channels))
    x = getattr(keras.layers, kind)(*filters, kernel, padding=padding, **options)(window)
    network = network_of(window, keras.layers.Flatten()(x))
    samples = fixtures.random_samples(3, (20, channels))
    there = bridge(network).twin(samples)
    np.testing.assert_allclose(there, network(samples)["exit_01"], rtol=1e-5, atol=1e-5)


def refused_network(kind: str) -> Any:
    import keras
    from keras import layers

    class Own(layers.Conv1D):
        def call(self, inputs: Any) -> Any:
            return -super().call(inputs)

    def own_function(x: Any) -> Any:
        return -x

    def linear(x: Any) -> Any:
        return -x

    window = keras.Input((None if kind == "dynamic" else 8, 3), name="window")
    x = layers.Conv1D(3, 3, padding="same", name="conv")(window)
    made = {
        "normalisation": lambda: layers.LayerNormalization(name="odd")(x),
        "own layer": lambda: Own(3, 1, name="odd")(x),
        "activation": lambda: layers.Conv1D(3, 1, activation=own_function, name="odd")(x),
        "namesake": lambda: layers.Conv1D(3, 1, activation=linear, name="odd")(x),
        "axis": lambda: layers.BatchNormalization(axis=1, name="odd")(x),
        "operation": lambda: keras.ops.cumsum(x, 1),
        "slice": lambda: x[:4, 1:],
        "noise": lambda: layers.Dropout(0.1, noise_shape=(None, 1, 3), name="odd")(x),
        "ranks": lambda: layers.Multiply(name="odd")([x, layers.GlobalAveragePooling1D()(x)]),
        "dynamic": lambda: x,
    }[kind]()
    return network_of(window, layers.GlobalAveragePooling1D()(made))


@pytest.mark.parametrize("kind", ["Conv1D", "Dense", "BatchNormalization", "ReLU", "Add", "RunningSum"])
def test_a_layer_with_a_call_of_its_own_is_no_layer_of_its_parent(kind: str) -> None:
    """Neither for the bridge nor for folding, which would drop what it does."""
    import keras

    from mexit_edge.compress.folding import fold
    from mexit_edge.compress.tfmot import bridge
    from mexit_edge.models.running_sum import RunningSum

    parent: Any = RunningSum if kind == "RunningSum" else getattr(keras.layers, kind)

    class Own(parent):
        def call(self, inputs: Any) -> Any:
            return -super().call(inputs)

    window = keras.Input((8,), name="window")
    options = {"Conv1D": (3, 3), "Dense": (4,)}.get(kind, ())
    features = keras.layers.Reshape((4, 2))(window) if kind == "Conv1D" else window
    given = [features, features] if kind in ("Add", "RunningSum") else features
    network = network_of(window, keras.layers.Flatten()(Own(*options, name="odd")(given)))
    for translated in (fold, bridge):
        with pytest.raises(InputError, match=r"Received: the layer 'odd' \(Own\)\."):
            translated(network)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("normalisation", r"'odd' \(LayerNormalization\)\. Known: .*Conv1D"),
        ("own layer", r"'odd' \(Own\)"),
        ("activation", r"activation='own_function' in the layer 'odd'"),
        ("namesake", r"activation='linear' in the layer 'odd'"),
        ("axis", r"axis=1 in the layer 'odd'"),
        ("operation", r"'cumsum.*', Cumsum\).*keras\.layers\.Add"),
        ("slice", r"must slice with ranges or indices.*'get_item"),
        ("noise", r"noise_shape=\(None, 1, 3\) in the layer 'odd' \(Dropout\)"),
        ("ranks", r"inputs of ranks \[2, 3\] \('odd', Multiply\)"),
        ("dynamic", r"\(None, 3\) for 'window'"),
    ],
)
def test_what_the_bridge_does_not_know_is_refused_by_name(kind: str, words: str) -> None:
    from mexit_edge.compress.tfmot import bridge

    with pytest.raises(InputError, match=words):
        bridge(refused_network(kind))


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from mexit_edge.compress import prune
    from mexit_edge.compress.tfmot import extra

    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"mexit-edge\[compress\]"):
        prune(fixtures.cascaded_network(), fixtures.synthetic_windows(8))
