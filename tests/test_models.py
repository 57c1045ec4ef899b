"""Backbones and exits attached to any functional model."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from fixtures_networks import N_CLASSES, SENSOR, TRAIN_REASON, dscnn_network, random_samples, user_model

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
from keras import layers

from mexit_edge.errors import InputError
from mexit_edge.models import BACKBONES, attach_exits, build
from mexit_edge.signals import Sensor

pytestmark = pytest.mark.train
X = random_samples(6, SENSOR.shape)


@pytest.mark.parametrize("backbone", list(BACKBONES))
def test_every_backbone_names_its_exits(backbone: str) -> None:
    network = build(backbone, SENSOR, N_CLASSES)
    assert network.input_shape == (None, *SENSOR.shape)
    assert network.input_names == ["window"] if hasattr(network, "input_names") else True
    names = sorted(network.output)
    assert names == [f"exit_{number:02d}" for number in range(1, len(names) + 1)]
    assert len(names) >= 2
    outputs = network.predict(X, verbose=0)
    assert {name: value.shape for name, value in outputs.items()} == dict.fromkeys(names, (6, N_CLASSES))
    # Logits, not probabilities.
    assert not np.allclose(np.exp(outputs[names[-1]]).sum(axis=1), np.e, atol=1e-3)
    assert all(network.get_layer(name).activation is keras.activations.linear for name in names)


def test_dscnn_takes_its_options() -> None:
    network = dscnn_network()
    assert network.get_layer("stem").filters == 8
    assert [network.get_layer(f"block_{n:02d}_01_pointwise").filters for n in (1, 2, 3)] == [8, 12, 16]
    assert build("dscnn", SENSOR, 3, blocks=(((8, 3, 1),),)).output.keys() == {"exit_01"}
    assert not any(
        isinstance(layer, layers.Dropout) for layer in build("dscnn", SENSOR, 3, dropout=0.0).layers
    )


def test_dropout_rests_at_inference() -> None:
    network = build("dscnn", SENSOR, N_CLASSES, dropout=0.5)
    once, twice = (network(X, training=False)["exit_03"] for _ in range(2))
    np.testing.assert_array_equal(once, twice)
    noisy, again = (network(X, training=True)["exit_03"] for _ in range(2))
    assert np.abs(np.asarray(noisy) - np.asarray(again)).max() > 1e-3


def test_build_refuses() -> None:
    with pytest.raises(InputError, match=r"`backbone` must be one of: cnn, dscnn. .*Did you mean 'dscnn'"):
        build("dscn", SENSOR, 4)
    with pytest.raises(InputError, match=r"`n_classes` must be at least 2. Received: 1"):
        build("dscnn", SENSOR, 1)
    assert build("dscnn", Sensor.plain(1, 64), 2).input_shape == (None, 64, 1)


def test_attached_exits_share_layers_and_keep_the_models_own_output() -> None:
    model = user_model()
    network = attach_exits(model, at=["pool_a", "conv_b"])
    assert sorted(network.output) == ["exit_01", "exit_02", "exit_03"]
    for name in ("conv_a", "conv_b", "classes"):
        assert network.get_layer(name) is model.get_layer(name)
    outputs = network.predict(X, verbose=0)
    np.testing.assert_array_equal(outputs["exit_03"], model.predict(X, verbose=0))
    # A change of the user's weights is a change of the network's.
    kernel = model.get_layer("conv_a").kernel
    kernel.assign(2 * np.asarray(kernel))
    assert np.abs(network.predict(X, verbose=0)["exit_01"] - outputs["exit_01"]).max() > 0


def test_attach_to_sequential_and_to_images_and_features() -> None:
    sequential = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, name="image"),
            layers.Flatten(),
            layers.Dense(5, name="features"),
            layers.Dense(3),
        ]
    )
    network = attach_exits(sequential, at=["image", "features"], dropout=0.0)
    outputs = network.predict(np.zeros((2, 8, 8, 2), np.float32), verbose=0)
    assert {name: value.shape for name, value in outputs.items()} == {
        "exit_01": (2, 3),
        "exit_02": (2, 3),
        "exit_03": (2, 3),
    }


def several_outputs() -> keras.Model:
    window = keras.Input((8, 2))
    flat = layers.Flatten()(window)
    return keras.Model(window, [layers.Dense(3)(flat), layers.Dense(3)(flat)])


def several_inputs() -> keras.Model:
    left, right = keras.Input((4,)), keras.Input((4,))
    return keras.Model([left, right], layers.Dense(3)(layers.Add()([left, right])))


def softmax_layer_at_the_end() -> keras.Model:
    window = keras.Input((4,))
    return keras.Model(window, layers.Softmax()(layers.Dense(3)(window)))


def activation_layer_at_the_end() -> keras.Model:
    window = keras.Input((4,))
    return keras.Model(window, layers.Activation("softmax")(layers.Dense(3)(window)))


class Subclassed(keras.Model):
    def call(self, inputs: object) -> object:
        return inputs


def sequence_at_the_end() -> keras.Model:
    window = keras.Input((8, 2))
    return keras.Model(window, layers.Conv1D(3, 3)(window))


@pytest.mark.parametrize(
    ("model", "at", "message"),
    [
        (user_model, ["conv_bb"], r"`at` must be one of: .*Did you mean 'conv_b'"),
        (user_model, ["conv_b", "conv_b"], "distinct layer names"),
        (user_model, [], "at least one. Received: \\[\\]"),
        (lambda: user_model(activation="softmax"), ["conv_b"], "must end in logits.*softmax"),
        (softmax_layer_at_the_end, ["dense"], "must end in logits.*softmax"),
        (activation_layer_at_the_end, ["dense"], "must end in logits.*softmax"),
        (several_outputs, ["flatten"], "Received: 1 inputs, 2 outputs"),
        (several_inputs, ["add"], "Received: 2 inputs, 1 outputs"),
        (sequence_at_the_end, ["conv1d"], "must end in logits"),
        (Subclassed, ["x"], "functional.*Received: Subclassed"),
        (lambda: keras.Sequential([layers.Dense(3)]), ["x"], "Sequential, built.*Received: Sequential"),
        (lambda: None, ["x"], "functional.*Received: NoneType"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_attach_refuses(model: object, at: list[str], message: str) -> None:
    keras.backend.clear_session()
    with pytest.raises(InputError, match=message):
        attach_exits(model(), at=at)


def test_exits_must_be_named_in_the_order_in_which_they_run() -> None:
    message = (
        r"order in which they run\. Received: .*'conv_b' needs 'pool_a'\. Use `at=\['pool_a', 'conv_b'\]`"
    )
    with pytest.raises(InputError, match=message):
        attach_exits(user_model(), at=["conv_b", "pool_a"])


def test_exits_on_branches_that_need_nothing_of_each_other_stand_in_any_order() -> None:
    window = keras.Input((8, 2))
    left, right = (layers.Conv1D(4, 3, name=name)(window) for name in ("left", "right"))
    both = layers.GlobalAveragePooling1D()(layers.Add(name="sum")([left, right]))
    model = keras.Model(window, layers.Dense(3)(both))
    for at in (["left", "right"], ["right", "left"], ["right", "left", "sum"]):
        assert len(attach_exits(model, at=at).output) == len(at) + 1
    with pytest.raises(InputError, match=r"'sum' needs 'left'\. Use `at=\['right', 'left', 'sum'\]`|needs"):
        attach_exits(model, at=["right", "sum", "left"])


def test_attach_refuses_a_rank_without_a_head() -> None:
    window = keras.Input((8, 2))
    high = layers.Reshape((2, 2, 2, 2), name="high")(window)
    model = keras.Model(window, layers.Dense(3)(layers.Flatten()(high)))
    with pytest.raises(InputError, match="rank 2 to 4"):
        attach_exits(model, at=["high"])
