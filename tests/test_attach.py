"""Exits attached to any functional model, and several inputs joined into one window."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from fixtures_networks import (
    EACH_ENGINE,
    N_CLASSES,
    SENSOR,
    TRAIN_REASON,
    bundle_of,
    converting_in_this_process,
    random_samples,
    randomise,
    user_model,
)
from hypothesis import given, settings
from hypothesis import strategies as st

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
from keras import layers

from mexit_edge.compress import convert
from mexit_edge.errors import InputError
from mexit_edge.models import attach_exits, choose_exits, exit_candidates, join_inputs
from mexit_edge.models.anatomy import anatomy
from mexit_edge.models.join import SelectChannels
from mexit_edge.models.running_sum import add_running_sums
from mexit_edge.regimes import MultiExitModel
from mexit_edge.runtime import staged_against_whole
from mexit_edge.signals import Sensor
from mexit_edge.tflite import Graph, audit_int8

pytestmark = pytest.mark.train
X = random_samples(6, SENSOR.shape)


# --- Networks -----------------------------------------------------------------------------------------------


def encoder(name: str, channels: int) -> keras.Model:
    """A residual block that is a model; every encoder's layers have the same names."""
    signal = keras.Input((None, channels))
    x = layers.Conv1D(8, 3, padding="same", name="conv")(signal)
    x = layers.BatchNormalization(name="norm")(x)
    y = layers.Conv1D(8, 3, padding="same", activation="relu", name="conv_b")(x)
    return keras.Model(signal, layers.Add(name="add")([x, y]), name=name)


def two_sensors(time: int = 32) -> keras.Model:
    """Two inputs, an encoder for each, and a layer that is called twice."""
    acc, gyr = keras.Input((time, 3), name="acc"), keras.Input((time, 2), name="gyr")
    x = layers.Concatenate(name="both")([encoder("left", 3)(acc), encoder("right", 2)(gyr)])
    shared = layers.Conv1D(16, 3, padding="same", activation="relu", name="shared")
    x = layers.GlobalAveragePooling1D(name="mean")(shared(layers.MaxPooling1D(name="pool")(shared(x))))
    return keras.Model([acc, gyr], layers.Dense(N_CLASSES, name="classes")(x), name="two_sensors")


def siamese() -> keras.Model:
    """One encoder called on both halves of the window."""
    window = keras.Input(SENSOR.shape)
    inner = encoder("inner", 3)
    x = layers.Subtract(name="difference")([inner(window[:, :16]), inner(window[:, 16:])])
    return keras.Model(window, layers.Dense(N_CLASSES)(layers.Flatten()(x)))


def chain(n_layers: int = 8) -> keras.Model:
    x = window = keras.Input(SENSOR.shape)
    for number in range(n_layers):
        x = layers.Conv1D(4 + 3 * (number % 3), 3, padding="same", use_bias=False, name=f"conv_{number}")(x)
        x = layers.BatchNormalization(name=f"norm_{number}")(x)
        x = layers.ReLU(name=f"relu_{number}")(x)
        x = layers.Dropout(0.1, name=f"dropout_{number}")(x)
    return keras.Model(window, layers.Dense(3, name="classes")(layers.Flatten()(x)))


def blocks(n_blocks: int = 3, skip: bool = False) -> keras.Model:
    """Residual blocks; with a skip from the input of the first to the end."""
    window = keras.Input(SENSOR.shape)
    x = start = layers.Conv1D(8, 3, padding="same", name="stem")(window)
    for number in range(n_blocks):
        y = layers.Conv1D(8, 3, padding="same", activation="relu", name=f"first_{number}")(x)
        y = layers.Conv1D(8, 3, padding="same", name=f"second_{number}")(y)
        x = layers.ReLU(name=f"block_{number}")(layers.Add(name=f"sum_{number}")([x, y]))
    if skip:
        x = layers.Concatenate(name="long")([x, start])
    return keras.Model(window, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def images() -> keras.Sequential:
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, name="image"),
            layers.Flatten(),
            layers.Dense(5, name="features"),
            layers.Dense(3),
        ]
    )


def values_of(network: keras.Model, x: Any) -> Any:
    """Outputs in inference mode, without the tracing that `predict` would do."""
    return keras.tree.map_structure(np.asarray, network(x, training=False))


def inputs_of(model: keras.Model, n: int = 3) -> list[np.ndarray]:
    return [random_samples(n, tensor.shape[1:], seed) for seed, tensor in enumerate(model.inputs)]


# --- Where exits sit ----------------------------------------------------------------------------------------


def test_attached_exits_share_layers_and_keep_the_models_own_output() -> None:
    model = user_model()
    network = attach_exits(model, at=["pool_a", "conv_b"])
    assert sorted(network.output) == ["exit_01", "exit_02", "exit_03"]
    for name in ("conv_a", "conv_b", "classes"):
        assert network.get_layer(name) is model.get_layer(name)
    outputs = values_of(network, X)
    np.testing.assert_array_equal(outputs["exit_03"], values_of(model, X))
    # A change of the user's weights is a change of the network's.
    kernel = model.get_layer("conv_a").kernel
    kernel.assign(2 * np.asarray(kernel))
    assert np.abs(values_of(network, X)["exit_01"] - outputs["exit_01"]).max() > 0


def test_attach_to_sequential_and_to_images_and_features() -> None:
    network = attach_exits(images(), at=["image", "features"], dropout=0.0)
    outputs = values_of(network, np.zeros((2, 8, 8, 2), np.float32))
    assert {name: value.shape for name, value in outputs.items()} == {
        "exit_01": (2, 3),
        "exit_02": (2, 3),
        "exit_03": (2, 3),
    }


def several_outputs() -> keras.Model:
    window = keras.Input((8, 2))
    flat = layers.Flatten()(window)
    return keras.Model(window, [layers.Dense(3)(flat), layers.Dense(3)(flat)])


def softmax_layer_at_the_end() -> keras.Model:
    window = keras.Input((4,))
    return keras.Model(window, layers.Softmax()(layers.Dense(3)(window)))


def activation_layer_at_the_end() -> keras.Model:
    window = keras.Input((4,))
    return keras.Model(window, layers.Activation("softmax")(layers.Dense(3)(window)))


def named_like_an_exit() -> keras.Model:
    window = keras.Input((4,))
    return keras.Model(window, layers.Dense(3)(layers.Dense(4, name="exit_01")(window)))


class Own(layers.Layer):
    """A layer that no table knows."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 4))

    def call(self, inputs: Any) -> Any:
        return inputs @ self.kernel


def unknown_macs() -> keras.Model:
    window = keras.Input((4,))
    return keras.Model(window, layers.Dense(3)(Own(name="own")(window)))


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
        (user_model, "conv_b", "at least one. Received: 'conv_b'"),
        (user_model, [1.0], "shares of the MACs between 0 and 1"),
        (user_model, ["0 %"], "shares of the MACs between 0 and 1"),
        (user_model, [True], "layer names, numbers between 0 and 1.*Received: True"),
        (user_model, ["conv_b", 0.98], "pick distinct layers.* 0.98 is 'conv_b'"),
        (user_model, ["classes"], "can carry an exit. Received: 'classes': it is an output"),
        (two_sensors, ["shared"], r"called as shared#1, shared#2. Use `at=\['shared#1'\]`"),
        (two_sensors, ["conv_b"], "Use 'left/conv_b' or 'right/conv_b'"),
        (two_sensors, ["left", "left/add"], "'left' and 'left/add', which are one"),
        (two_sensors, ["shared#2", "shared#1"], "'shared#2' needs 'shared#1'"),
        (two_sensors, ["left", "acc"], "'left' needs 'acc'"),
        (named_like_an_exit, ["exit_01"], "no layers named as exits.*'exit_01'"),
        (unknown_macs, [0.5], "MACs of a layer are unknown.*'own'"),
        (user_model, [], "at least one. Received: \\[\\]"),
        (lambda: user_model(activation="softmax"), ["conv_b"], "must end in logits.*softmax"),
        (softmax_layer_at_the_end, ["dense"], "must end in logits.*softmax"),
        (activation_layer_at_the_end, ["dense"], "must end in logits.*softmax"),
        (several_outputs, ["flatten"], "one output, of logits. Received: 2 outputs"),
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
    with pytest.raises(InputError, match="'high': its output is of rank 5"):
        attach_exits(model, at=["high"])


def test_an_unknown_kind_of_head_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"`head` must be one of: average.*Did you mean 'average'"):
        attach_exits(user_model(), at=["pool_a"], head="avarage")


def test_heads_of_a_kind_and_in_a_cascade() -> None:
    network = attach_exits(user_model(), at=["pool_a", "conv_b"], head="average", cascade=True, dropout=0)
    names = [layer.name for layer in network.layers]
    assert "exit_01_mean" in names
    assert not any(name.endswith(("_max", "_dropout")) for name in names)
    # Exit 2 reads 12 features and the 4 logits of exit 1; the model's own output is as it was.
    assert network.get_layer("exit_02").kernel.shape == (12 + N_CLASSES, N_CLASSES)
    assert network.get_layer("exit_01").kernel.shape == (8, N_CLASSES)
    assert anatomy(network).heads == ((), ("exit_02_mean", "exit_02_cascaded", "exit_02"), ("classes",))


def test_candidates_of_a_chain() -> None:
    rows = {row.layer: row for row in exit_candidates(user_model())}
    conv_a, conv_b, classes = 16 * 5 * 3 * 8, 8 * 3 * 8 * 12, 12 * N_CLASSES
    assert rows["pool_a"].cumulative_macs == conv_a
    assert rows["mean"].cumulative_macs == conv_a + conv_b
    assert rows["conv_b"].share == pytest.approx((conv_a + conv_b) / (conv_a + conv_b + classes))
    assert rows["pool_a"].shape == (8, 8)
    assert {row.live_tensors for row in rows.values() if row.possible} == {1}
    assert not rows["classes"].possible
    assert rows["classes"].share == 1


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.001, 0.999))
def test_a_share_picks_the_nearest_activation_of_a_chain(share: float) -> None:
    (chosen,) = choose_exits(the_chain(), [share])
    assert chosen.startswith("relu_")
    rows = [row for row in exit_candidates(the_chain()) if row.layer.startswith("relu_")]
    distance = {row.layer: abs(row.share - share) for row in rows}
    assert distance[chosen] == pytest.approx(min(distance.values()))
    assert choose_exits(the_chain(), [f"{100 * share!r} %"]) == (chosen,)


@cache
def the_chain() -> keras.Model:
    return chain()


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0.001, 0.999))
def test_a_share_picks_no_place_inside_a_residual_block(share: float) -> None:
    assert choose_exits(the_blocks(), [share])[0] in ("stem", "block_0", "block_1", "block_2")


@cache
def the_blocks() -> keras.Model:
    return blocks()


def test_a_long_skip_leaves_two_tensors_alive_and_shares_between_the_blocks() -> None:
    model = blocks(skip=True)
    rows = {row.layer: row for row in exit_candidates(model)}
    # The block's input, its own result, and what the skip keeps, which for the first block is the same.
    assert [rows[name].live_tensors for name in ("stem", "first_0", "first_1", "block_1", "long")] == [
        1,
        2,
        3,
        2,
        1,
    ]
    assert choose_exits(model, ["40 %", 0.7]) == ("block_0", "block_1")


def test_shares_and_names_mix_and_the_result_says_where_exits_sit() -> None:
    model = chain(3)
    at = ["20 %", "norm_1", 0.9]
    chosen = choose_exits(model, at)
    assert chosen == ("relu_0", "norm_1", "relu_2")
    network = attach_exits(model, at=at, head="maximum")
    for number, layer in enumerate(chosen, start=1):
        pool = network.get_layer(f"exit_{number:02d}_max")
        assert pool.input._keras_history.operation is model.get_layer(layer)


def test_shares_of_images_pick_the_feature_map() -> None:
    image, features = 6 * 6 * 9 * 2 * 4, 144 * 5
    rows = {row.layer: row for row in exit_candidates(images())}
    assert rows["image"].share == pytest.approx(image / (image + features + 5 * 3))
    # Flattened it is as far, but a vector.
    assert choose_exits(images(), [np.float32(0.6), "99%"]) == ("image", "features")


def test_shares_fail_where_nothing_computes() -> None:
    window = keras.Input((4,))
    model = keras.Model(window, layers.Dense(3)(layers.Dropout(0.5)(window)))
    with pytest.raises(InputError, match=r"a layer that can carry an exit\. Received: a share"):
        attach_exits(model, at=[0.5])


# --- Nested models, shared layers, several inputs -----------------------------------------------------------


def test_exits_inside_nested_models_share_layers_and_names_stay_distinct() -> None:
    model = two_sensors()
    before = values_of(model, inputs_of(model))
    network = attach_exits(model, at=["left/conv_b", "right", "shared#1", "shared#2"])
    # `right` had the same names: its layers got the model's in front, on the same weights.
    left, right = model.get_layer("left"), model.get_layer("right")
    assert network.get_layer("conv") is left.get_layer("conv")
    assert network.get_layer("right_conv").kernel is right.get_layer("conv").kernel
    assert {layer.name for layer in right.layers} >= {"conv", "norm", "conv_b", "add"}
    outputs = values_of(network, inputs_of(model))
    np.testing.assert_array_equal(outputs["exit_05"], before)
    np.testing.assert_array_equal(values_of(model, inputs_of(model)), before)
    weights = network.get_layer("right_norm").weights
    assert all(mine is theirs for mine, theirs in zip(weights, right.get_layer("norm").weights, strict=True))
    assert len(network.weights) == len({id(weight) for weight in network.weights})
    heads = 2 * (8 + 8 + 16 + 16) * N_CLASSES + 4 * N_CLASSES
    assert network.count_params() == model.count_params() + heads


def test_a_nested_model_that_is_called_twice() -> None:
    model = siamese()
    at = ["inner#1/add", "inner#2", "difference"]
    assert {"inner#1/conv", "inner#2/conv"} <= {row.layer for row in exit_candidates(model)}
    network = attach_exits(model, at=at, dropout=0)
    outputs = values_of(network, X)
    np.testing.assert_array_equal(outputs["exit_04"], values_of(model, X))
    # Each exit reads its own half: changing the other one changes nothing.
    changed = X.copy()
    changed[:, 16:] = 0
    again = values_of(network, changed)
    np.testing.assert_array_equal(again["exit_01"], outputs["exit_01"])
    assert np.abs(again["exit_02"] - outputs["exit_02"]).max() > 1e-3
    with pytest.raises(InputError, match="called as inner#1, inner#2"):
        attach_exits(model, at=["inner"])


@pytest.mark.parametrize("by_name", [False, True], ids=["list", "names"])
def test_a_nested_model_of_several_inputs_and_inputs_by_name(by_name: bool) -> None:
    one, two = keras.Input((6,), name="one"), keras.Input((4,), name="two")
    # The first input by name is the second by place.
    parts = [layers.Dense(5, name="of_two")(two), layers.Dense(5, name="of_one")(one)]
    inner = keras.Model([two, one], layers.Subtract(name="minus")(parts), name="inner")
    a, b = keras.Input((4,), name="a"), keras.Input((6,), name="b")
    x = inner({"one": b, "two": a} if by_name else [a, b])
    model = keras.Model({"a": a, "b": b}, layers.Dense(3, name="classes")(x))
    network = attach_exits(model, at=["inner/of_two", "inner/minus"], dropout=0)
    x_by_name = {"a": random_samples(3, (4,)), "b": random_samples(3, (6,), 1)}
    outputs = values_of(network, x_by_name)
    np.testing.assert_array_equal(outputs["exit_03"], values_of(model, x_by_name))
    zeroed = values_of(network, {**x_by_name, "b": np.zeros((3, 6), np.float32)})
    np.testing.assert_array_equal(zeroed["exit_01"], outputs["exit_01"])
    assert np.abs(zeroed["exit_02"] - outputs["exit_02"]).max() > 1e-3


def test_training_a_network_with_opened_models_trains_the_models() -> None:
    model = two_sensors()
    network = attach_exits(model, at=["left/add"])
    x, y = inputs_of(model, 8), np.arange(8) % N_CLASSES
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(
        optimizer=keras.optimizers.SGD(0.5), loss=dict.fromkeys(network.output, loss), run_eagerly=True
    )
    kernels = [model.get_layer(name).get_layer("conv").kernel for name in ("left", "right")]
    before = [np.array(kernel) for kernel in kernels]
    network.fit(x, dict.fromkeys(network.output, y), batch_size=8, verbose=0)
    assert all(np.abs(np.array(now) - then).max() > 0 for now, then in zip(kernels, before, strict=True))
    np.testing.assert_array_equal(values_of(network, x)["exit_02"], values_of(model, x))


def test_a_network_with_opened_models_survives_its_file(tmp_path: Any) -> None:
    network = randomise(attach_exits(two_sensors(), at=["right/add", "shared#1"], cascade=True))
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    x = inputs_of(network)
    again = values_of(loaded, x)
    for name, values in values_of(network, x).items():
        np.testing.assert_allclose(again[name], values, atol=1e-6)
    assert anatomy(loaded).blocks == anatomy(network).blocks


def test_anatomy_of_several_inputs_and_shared_layers() -> None:
    parts = anatomy(attach_exits(two_sensors(), at=["left", "shared#1"], dropout=0, head="average"))
    left = ("conv", "norm", "conv_b", "add")
    right = tuple(f"right_{name}" for name in left)
    # The shared layer belongs to the first block that needs it, and is no part of the final head.
    assert [set(block) for block in parts.blocks[:2]] == [set(left), {*right, "both", "shared"}]
    assert parts.heads == (("exit_01_mean", "exit_01"), ("exit_02_mean", "exit_02"), ("classes",))


def test_the_final_head_is_not_a_layer_of_the_backbone() -> None:
    # The last layer with weights is shared by all exits: the final one has no head of its own.
    window = keras.Input((6,))
    classify = layers.Dense(3, name="classify")
    one = layers.Dense(5, name="one")(window)
    two = layers.Dense(5, name="two")(one)
    outputs = {
        "exit_01": layers.Identity(name="exit_01")(classify(one)),
        "exit_02": layers.Identity(name="exit_02")(classify(two)),
    }
    parts = anatomy(keras.Model(window, outputs))
    assert parts.blocks == (("one", "classify"), ("two", "exit_02"))
    assert parts.heads == (("exit_01",), ())


def test_running_sums_on_a_network_made_anew_read_its_own_logits() -> None:
    network = add_running_sums(attach_exits(two_sensors(), at=["left", "shared#1"]), 0.5)
    joined = join_inputs(network, {"acc": [0, 1, 2], "gyr": [3, 4]})
    assert joined.get_layer("exit_02_running_sum") is network.get_layer("exit_02_running_sum")
    # On the first call's tensors this would not be connected to the window.
    assert anatomy(joined).heads == anatomy(network).heads
    assert add_running_sums(joined, 0.5) is joined


# --- Several inputs become one window -----------------------------------------------------------------------

CHANNELS = {"acc": [0, 2, 4], "gyr": [3, 1]}


def test_a_joined_network_computes_what_the_network_of_several_inputs_does() -> None:
    model = attach_exits(two_sensors(), at=["left"])
    joined = join_inputs(model, CHANNELS)
    window = random_samples(3, (32, 5))
    apart = values_of(model, [window[:, :, channels] for channels in CHANNELS.values()])
    assert [tensor.name for tensor in joined.inputs] == ["window"]
    for name, values in values_of(joined, window).items():
        np.testing.assert_array_equal(values, apart[name])
    # A single-exit model may be joined first as well.
    first = join_inputs(two_sensors(), CHANNELS)
    assert sorted(attach_exits(first, at=["add"]).output) == ["exit_01", "exit_02"]


@settings(max_examples=40, deadline=None)
@given(channels=st.lists(st.integers(0, 8), min_size=1, max_size=7))
def test_selecting_channels_is_indexing(channels: list[int]) -> None:
    window = np.arange(2 * 3 * 9, dtype=np.float32).reshape(2, 3, 9)
    layer = SelectChannels(channels)
    np.testing.assert_array_equal(layer(window), window[:, :, channels])
    assert layer.compute_output_shape((None, 3, 9)) == (None, 3, len(channels))
    assert SelectChannels.from_config(layer.get_config()).channels == channels


@cache
def joined_and_converted() -> tuple[Any, bytes]:
    keras.utils.set_random_seed(1)
    network = join_inputs(randomise(attach_exits(two_sensors(), at=["left/add", "shared#1"])), CHANNELS)
    sensor = Sensor.plain(5, 32)
    windows = random_samples(24, sensor.shape)
    with converting_in_this_process(), warnings.catch_warnings():
        warnings.simplefilter("default")
        whole = convert(network, windows)
    return bundle_of(whole, sensor=sensor), whole


@EACH_ENGINE
def test_stages_of_a_joined_network_compute_what_the_whole_does(engine: str) -> None:
    bundle, whole = joined_and_converted()
    audit_int8(whole)
    assert any("SLICE" in operator.name for operator in Graph(whole).operators)
    rows = staged_against_whole(bundle, whole, random_samples(100, (32, 5)), engine)
    assert [(row.exit, row.windows, row.differing_elements) for row in rows] == [
        (f"exit_{number:02d}", 100, 0) for number in (1, 2, 3)
    ]
    # What a stage is handed is what the candidates said would have to be kept.
    alive = {row.layer: row.live_tensors for row in exit_candidates(join_inputs(two_sensors(), CHANNELS))}
    assert [len(stage.inputs) for stage in bundle.manifest.stages] == [1, alive["add"], alive["shared#1"]]
    # The first stage does without the second sensor's branch.
    assert len(bundle.manifest.stages) == 3
    assert bundle.manifest.stages[0].ops["CONV_2D"] < bundle.manifest.stages[1].ops["CONV_2D"]


def test_a_joined_network_trains_on_windows_in_phases() -> None:
    network = join_inputs(attach_exits(two_sensors(), at=["left", "shared#1"]), CHANNELS)
    model = MultiExitModel(network, "disjoint")
    model.compile(optimizer=keras.optimizers.SGD(0.1), run_eagerly=True)
    kernel = network.get_layer("conv").kernel
    before = np.array(kernel)
    model.fit(random_samples(8, (32, 5)), np.arange(8) % N_CLASSES, epochs=2, batch_size=8, verbose=0)
    assert np.abs(np.array(kernel) - before).max() > 0


def of_two_lengths() -> keras.Model:
    acc, gyr = keras.Input((8, 3), name="acc"), keras.Input((4, 2), name="gyr")
    flat = [layers.Flatten()(signal) for signal in (acc, gyr)]
    return keras.Model([acc, gyr], layers.Dense(3)(layers.Concatenate()(flat)))


def of_any_length() -> keras.Model:
    acc, gyr = keras.Input((None, 3), name="acc"), keras.Input((None, 2), name="gyr")
    pooled = [layers.GlobalMaxPooling1D()(signal) for signal in (acc, gyr)]
    return keras.Model([acc, gyr], layers.Dense(3)(layers.Concatenate()(pooled)))


@pytest.mark.parametrize(
    ("model", "channels", "message"),
    [
        (user_model, {}, "must have several inputs. Received: one, 'my_input'"),
        (of_two_lengths, CHANNELS, r"\(time, channels\) of one length. Received: .*\(4, 2\)"),
        (two_sensors, {"acc": [0, 1, 2]}, "every input .acc, gyr.. Received: none for gyr"),
        (two_sensors, {**CHANNELS, "mag": [5]}, "`channels` must be one of: acc, gyr. Received: 'mag'"),
        (two_sensors, {**CHANNELS, "gyr": [3]}, "needs 2 indices from 0 on for the input 'gyr'"),
        (two_sensors, {**CHANNELS, "gyr": [3, -1]}, r"from 0 on for the input 'gyr'. Received: \[3, -1\]"),
        (two_sensors, {**CHANNELS, "gyr": [1, 6]}, r"every channel from 0 to 6.*none for 3, 5\. Leave"),
        (
            two_sensors,
            {**CHANNELS, "gyr": [3, 10**8]},
            r"none for 1, 5, 6, 7, 8, 9, 10, 11, 12, 13 and 99999986 others\. Leave",
        ),
        (of_any_length, CHANNELS, r"of a fixed length .*Received: .*\(None, 3\)"),
        (lambda: None, CHANNELS, "functional.*Received: NoneType"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_join_refuses(model: Callable[[], Any], channels: dict[str, list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        join_inputs(model(), channels)
