"""What every backbone and preset must be able to do: a registered one is tested. And the kinds of heads."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_networks import (
    HAS_TFLM,
    TRAIN_REASON,
    bundle_of,
    converting_in_this_process,
    random_samples,
    randomise,
)

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
import tensorflow as tf
from keras import layers

from mexit_edge.cli.models import committed_figures
from mexit_edge.compress import convert
from mexit_edge.errors import InputError
from mexit_edge.estimate import total_macs
from mexit_edge.models import BACKBONES, HEADS, PRESETS, build, layer_table, make_head
from mexit_edge.regimes import MultiExitModel
from mexit_edge.regimes.fitting import _Fit
from mexit_edge.runtime import Runtime, staged_against_whole
from mexit_edge.signals import Sensor
from mexit_edge.tflite import Graph

pytestmark = pytest.mark.train

PAIRS = [(backbone, preset) for backbone in BACKBONES for preset in PRESETS[backbone]]
EVERY_PRESET = pytest.mark.parametrize(("backbone", "preset"), PAIRS)
EVERY_BACKBONE = pytest.mark.parametrize("backbone", BACKBONES)
WINDOWS, SPECTROGRAMS = (Sensor.plain(6, 128), 6), (Sensor.plain(10, 49), 12)


def shape_of(backbone: str) -> tuple[Sensor, int]:
    return SPECTROGRAMS if backbone == "dscnn2d" else WINDOWS


@cache
def network_of(backbone: str, preset: str) -> keras.Model:
    keras.utils.set_random_seed(1)
    return randomise(build(backbone, *shape_of(backbone), preset=preset))


def needed(network: keras.Model, exit_: str) -> dict[str, Any]:
    return {layer.name: layer for layer in keras.Model(network.inputs, network.output[exit_]).layers}


def macs_by_hand(layer: Any) -> int:
    """Every weight of a kernel is used once per position of the output."""
    with_kernel = layers.Conv1D, layers.Conv2D, layers.DepthwiseConv1D, layers.DepthwiseConv2D, layers.Dense
    return prod(layer.output.shape[1:-1]) * prod(layer.kernel.shape) if isinstance(layer, with_kernel) else 0


@cache
def one_step(backbone: str, preset: str) -> tuple[dict[str, Any], list[Any]]:
    """Logits of 16 windows, and the gradients of the sum of all exits' losses."""
    network = network_of(backbone, preset)
    sensor, n_classes = shape_of(backbone)
    y = np.arange(16) % n_classes
    with tf.GradientTape() as tape:
        outputs = network(random_samples(16, sensor.shape), training=False)
        loss = sum(
            keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True))
            for logits in outputs.values()
        )
    return outputs, tape.gradient(loss, [variable.value for variable in network.trainable_variables])


@EVERY_PRESET
def test_gives_logits_by_name(backbone: str, preset: str) -> None:
    network = network_of(backbone, preset)
    sensor, n_classes = shape_of(backbone)
    assert network.name == backbone
    assert [tensor.name for tensor in network.inputs] == ["window"]
    assert network.input_shape == (None, *sensor.shape)
    names = list(network.output)
    assert names == [f"exit_{number:02d}" for number in range(1, len(names) + 1)]
    assert len(names) >= 2
    outputs, _ = one_step(backbone, preset)
    for name in names:
        assert outputs[name].shape == (16, n_classes)
        assert network.get_layer(name).activation is keras.activations.linear
        assert not np.allclose(np.sum(outputs[name], axis=1), 1, atol=1e-3)


@EVERY_PRESET
def test_later_exits_contain_all_of_earlier_ones_but_their_heads(backbone: str, preset: str) -> None:
    network = network_of(backbone, preset)
    final = needed(network, list(network.output)[-1])
    done: set[str] = set()
    for exit_ in network.output:
        here = needed(network, exit_)
        block = {name for name in here if not name.startswith(exit_)}
        assert block <= set(final)
        assert sum(macs_by_hand(here[name]) for name in block - done) > 0
        done |= block
    assert done | {name for name in final if name.startswith("exit_")} == set(final)


@EVERY_PRESET
def test_costs_what_the_committed_table_says(backbone: str, preset: str) -> None:
    network = network_of(backbone, preset)
    (committed,) = (one for one in committed_figures() if (one.backbone, one.preset) == (backbone, preset))
    assert committed.parameters == sum(prod(weight.shape) for weight in network.weights)
    done: dict[str, Any] = {}
    for exit_, macs in zip(network.output, committed.exit_macs, strict=True):
        done |= needed(network, exit_)
        assert macs == sum(map(macs_by_hand, done.values()))


@EVERY_BACKBONE
def test_presets_go_from_tiny_to_medium(backbone: str) -> None:
    assert list(PRESETS[backbone]) == ["tiny", "small", "medium"]
    assert PRESETS[backbone]["medium"] == {}
    costs = {one.preset: one for one in committed_figures() if one.backbone == backbone}
    tiny, small, medium = (costs[preset] for preset in PRESETS[backbone])
    assert 50_000 <= tiny.exit_macs[-1] <= 100_000 < small.exit_macs[-1] <= 400_000
    assert 500_000 <= medium.exit_macs[-1] <= (1_500_000 if backbone == "msdnet" else 1_000_000)
    assert tiny.int8_bytes < small.int8_bytes < medium.int8_bytes


@EVERY_PRESET
def test_gradients_reach_every_weight(backbone: str, preset: str) -> None:
    _, gradients = one_step(backbone, preset)
    weights = network_of(backbone, preset).trainable_variables
    for weight, gradient in zip(weights, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.isfinite(gradient).all(), weight.path
        assert np.any(gradient), weight.path


@EVERY_BACKBONE
def test_survives_saving(backbone: str, tmp_path: Path) -> None:
    network = network_of(backbone, "tiny")
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in network.layers]
    expected, _ = one_step(backbone, "tiny")
    for name, logits in loaded(random_samples(16, network.input_shape[1:]), training=False).items():
        np.testing.assert_array_equal(logits, expected[name])


def in_int8_as_in_float(network: keras.Model) -> None:
    """Convert, and check: no float operator, the layers' MACs, stages equal the whole, int8 as in float."""
    shape = network.input_shape[1:]
    sensor, n_classes = Sensor.plain(shape[1], shape[0]), network.output["exit_01"].shape[-1]
    x = random_samples(20, shape)
    with converting_in_this_process():
        whole = convert(network, x)
    graph = Graph(whole)
    assert {graph.tensors[index].dtype for one in graph.operators for index in one.outputs} == {"INT8"}
    assert total_macs(whole) == sum(row.macs for row in layer_table(network))
    bundle = bundle_of(whole, sensor=sensor, n_classes=n_classes)
    for engine in ("litert-reference", "tflm") if HAS_TFLM else ("litert-reference",):
        rows = staged_against_whole(bundle, whole, x, engine)
        assert [row.exit for row in rows] == list(network.output)
        assert {(row.windows, row.differing_elements) for row in rows} == {(20, 0)}
    codes = Runtime(bundle, "litert-reference").all_logits(x)
    floats = network(x, training=False)
    for place, stage in enumerate(bundle.manifest.stages):
        logits = stage.outputs[0]
        values = (codes[:, place].astype(float) - logits.zero_point) * logits.scale
        expected = np.asarray(floats[stage.exit])
        # A wrong padding, dilation or shortcut would be off by the spread of the logits themselves.
        assert np.abs(values - expected).mean() < 0.15 * expected.std()


@EVERY_BACKBONE
def test_becomes_int8_stages(backbone: str) -> None:
    in_int8_as_in_float(network_of(backbone, "tiny"))


@pytest.mark.parametrize("regime", ["joint", "boosted"])
@EVERY_BACKBONE
def test_can_be_fitted(backbone: str, regime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # To count what a step costs, it is traced: most of the time of this test.
    monkeypatch.setattr(_Fit, "_macs_per_window", lambda self: None)
    sensor, n_classes = shape_of(backbone)
    model = MultiExitModel(build(backbone, sensor, n_classes, preset="tiny"), regime)
    model.compile(optimizer=keras.optimizers.SGD(0.01), run_eagerly=True)
    before = [np.array(weight) for weight in model.network.trainable_variables]
    y = np.arange(2 * n_classes) % n_classes
    history = model.fit(
        random_samples(len(y), sensor.shape), y, batch_size=len(y), epochs=1, verbose=0, shuffle=False
    )
    assert np.isfinite(history.history["loss"]).all()
    for old, new in zip(before, model.network.trainable_variables, strict=True):
        assert np.any(old != np.asarray(new)), new.path


@pytest.mark.parametrize("head", HEADS)
@EVERY_BACKBONE
def test_every_backbone_takes_every_head_and_a_cascade(backbone: str, head: str) -> None:
    sensor, n_classes = shape_of(backbone)
    network = build(backbone, sensor, n_classes, preset="tiny", head=head, cascade=True, dropout=0.0)
    names = [layer.name for layer in network.layers]
    exits = list(network.output)
    assert [f"{name}_cascaded" in names for name in exits] == [False] + [True] * (len(exits) - 1)
    assert [f"{name}_conv" in names for name in exits] == [head == "convolutional"] * len(exits)
    assert not any(isinstance(layer, layers.Dropout) for layer in network.layers)
    assert exits[0] in needed(network, exits[-1])


# --- What only one backbone has -----------------------------------------------------------------------------


@pytest.mark.parametrize(("backbone", "stem", "last"), [("cnn", -5.027, 4.59268), ("dscnn", -5.027, -2.6463)])
def test_a_seed_gives_the_weights_it_always_gave(backbone: str, stem: float, last: float) -> None:
    # Layers draw in the order in which they are made: another order would change what a seed trains.
    keras.utils.set_random_seed(0)
    network = build(backbone, *WINDOWS)
    first = next(layer for layer in network.layers if isinstance(layer, layers.Conv1D))
    assert np.asarray(first.kernel).sum() == pytest.approx(stem, abs=1e-3)
    assert np.asarray(network.get_layer("exit_03").kernel).sum() == pytest.approx(last, abs=1e-3)


def features_of(network: keras.Model, layer: str, x: np.ndarray) -> np.ndarray:
    return np.asarray(keras.Model(network.inputs[0], network.get_layer(layer).output)(x, training=False))


@pytest.mark.parametrize("causal", [True, False])
def test_a_causal_tcn_does_not_look_ahead(causal: bool) -> None:
    network = build("tcn", *WINDOWS, preset="tiny", causal=causal)
    x = random_samples(1, WINDOWS[0].shape)
    changed = x.copy()
    changed[:, 64:] += 1
    stride = PRESETS["tcn"]["tiny"]["stem"][2]
    before, after = (features_of(network, "block_03_02_relu", one)[:, : 64 // stride] for one in (x, changed))
    assert np.array_equal(before, after) == causal


def test_the_dilation_of_a_tcn_doubles() -> None:
    network = build("tcn", *WINDOWS, blocks=((8,), (8, 8), (8, 8)))
    units = ["block_01_01", "block_02_01", "block_02_02", "block_03_01", "block_03_02"]
    dilations = [
        network.get_layer(f"{unit}_{place}").dilation_rate for unit in units for place in ("01", "02")
    ]
    assert dilations == [(dilation,) for dilation in (1, 1, 2, 2, 4, 4, 8, 8, 16, 16)]


def test_an_msdnet_grows_and_drops_scales_that_no_exit_needs() -> None:
    network = build("msdnet", *WINDOWS, stem=(8, 7, 2), scales=3, growth=6, blocks=(2, 2))
    shapes = {layer.name: layer.output.shape[1:] for layer in network.layers}
    dense = {name.removesuffix("_dense"): shape for name, shape in shapes.items() if name.endswith("_dense")}
    assert dense == {
        **{f"block_01_{n:02d}_scale_01": (64, 8 + 6 * n) for n in (1, 2)},
        **{f"block_01_{n:02d}_scale_02": (32, 16 + 12 * n) for n in (1, 2)},
        **{f"block_01_{n:02d}_scale_03": (16, 32 + 24 * n) for n in (1, 2)},
        "block_02_01_scale_02": (32, 16 + 12 * 3),
        "block_02_01_scale_03": (16, 32 + 24 * 3),
        "block_02_02_scale_03": (16, 32 + 24 * 4),
    }
    with pytest.raises(InputError, match=r"`scales` must be a positive whole number\. Received: 0\."):
        build("msdnet", *WINDOWS, scales=0)


def test_a_residual_unit_shortcuts_only_where_it_must() -> None:
    network = build("resnet", *WINDOWS, stem=(8, 5, 2), blocks=(((8, 3, 1),), ((8, 3, 2),), ((12, 3, 1),)))
    names = [layer.name for layer in network.layers]
    assert [f"block_{number:02d}_01_shortcut" in names for number in (1, 2, 3)] == [False, True, True]
    left, right = (tensor.shape for tensor in network.get_layer("block_02_01_sum").input)
    assert left == right == (None, 32, 8)


def test_options_override_the_preset() -> None:
    tiny = build("cnn", *WINDOWS, preset="tiny", width=0.5)
    assert tiny.count_params() == build("cnn", *WINDOWS, preset="small").count_params()
    one = build("resnet", *WINDOWS, preset="tiny", blocks=(((4, 3, 1),),))
    assert (list(one.output), one.get_layer("stem").filters) == (["exit_01"], 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnt"}, r"`backbone` must be one of: cnn, dscnn, .* Did you mean 'resnet'"),
        ({"preset": "smal"}, r"`preset` must be one of: medium, small, tiny\. .* Did you mean 'small'"),
        ({"heads": "both"}, r"`options` must be one of: blocks, .*'heads'\. Did you mean 'head'"),
        ({"head": "averaged"}, r"`head` must be one of: average, .* Did you mean 'average'"),
        ({"n_classes": 1}, r"`n_classes` must be at least 2, a whole number\. Received: 1"),
        ({"n_classes": 2.5}, r"`n_classes` must be .*Received: 2\.5"),
        ({"n_classes": "3"}, r"`n_classes` must be .*Received: '3'"),
        ({"blocks": ()}, r"`blocks` must be one or more blocks .*Received: \(\)"),
        ({"blocks": [[8], []]}, r"`blocks` must be one or more blocks .*Received: \[\[8\], \[\]\]"),
        ({"backbone": "cnn", "blocks": [[(16, 7)]]}, r"\(channels, kernel, stride\).*\[\[\(16, 7\)\]\]"),
        ({"backbone": "resnet", "blocks": [[(8, 3, 1)], []]}, "`blocks` must be one or more blocks of one"),
        ({"backbone": "msdnet", "blocks": [2, 0]}, r"`blocks` must be .* of layers\. Received: \[2, 0\]"),
        ({"backbone": "dscnn2d", "stem": (8, 7, 2)}, r"`stem` must be .*kernel over bins.*\(8, 7, 2\)"),
        ({"dropout": 1.5}, r"`dropout` must be a rate from 0 on and below 1\. Received: 1\.5"),
        ({"backbone": "cnn", "width": 0.0}, r"`width` must be a positive and finite .*Received: 0\.0"),
    ],
)
def test_build_refuses(options: dict[str, Any], message: str) -> None:
    given = {"backbone": "tcn", "sensor": WINDOWS[0], "n_classes": 6, **options}
    with pytest.raises(InputError, match=message):
        build(**given)


# --- Heads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["average", "maximum", "both"])
@pytest.mark.parametrize("shape", [(7, 4), (5, 3, 4)])
def test_a_head_pools_over_all_positions(shape: tuple[int, ...], kind: str) -> None:
    features = keras.Input(shape)
    network = keras.Model(features, make_head(features, 3, "exit_01", kind=kind))
    x = random_samples(2, shape)
    positions = x.reshape(2, -1, shape[-1])
    pooled = {"average": positions.mean(axis=1), "maximum": positions.max(axis=1)}
    pooled["both"] = np.concatenate([pooled["average"], pooled["maximum"]], axis=1)
    dense = network.get_layer("exit_01")
    np.testing.assert_allclose(network(x), pooled[kind] @ np.asarray(dense.kernel), rtol=1e-4, atol=1e-5)
    assert all(layer.name.startswith("exit_01") for layer in network.layers[1:])


@pytest.mark.parametrize(("shape", "halved"), [((7, 4), (4, 4)), ((5, 3, 4), (3, 2, 4))])
def test_a_convolutional_head_halves_the_positions(shape: tuple[int, ...], halved: tuple[int, ...]) -> None:
    features = keras.Input(shape)
    network = keras.Model(features, make_head(features, 3, "exit_01", kind="convolutional"))
    assert network.get_layer("exit_01_conv_relu").output.shape == (None, *halved)
    assert network.get_layer("exit_01").input.shape == (None, 8)


@pytest.mark.parametrize("kind", HEADS)
def test_features_without_positions_are_taken_as_they_are(kind: str) -> None:
    features = keras.Input((5,))
    network = keras.Model(features, make_head(features, 3, "exit_01", kind=kind, dropout=0.0))
    assert [layer.name for layer in network.layers[1:]] == ["exit_01"]


def test_a_head_refuses_another_rank_and_kind() -> None:
    with pytest.raises(
        InputError, match=r"`features` must be of rank 2 to 4\. Received: .*\(None, 2, 2, 2, 2\)"
    ):
        make_head(keras.Input((2, 2, 2, 2)), 3, "exit_01")
    with pytest.raises(InputError, match="Did you mean 'maximum'"):
        make_head(keras.Input((2, 2)), 3, "exit_01", kind="maximun")


@pytest.mark.parametrize("cascade", [True, False])
def test_only_a_cascaded_head_reads_and_trains_the_one_before(cascade: bool) -> None:
    network = build("cnn", *WINDOWS, preset="tiny", cascade=cascade, dropout=0.0)
    first = network.get_layer("exit_01").kernel.value
    x = random_samples(3, WINDOWS[0].shape)
    with tf.GradientTape() as tape:
        loss = keras.ops.sum(keras.ops.square(network(x, training=False)["exit_03"]))
    gradient = tape.gradient(loss, first)
    assert np.any(gradient) if cascade else gradient is None


def heads_network(shape: tuple[int, ...]) -> keras.Model:
    """Every kind of head, each reading the one before, on windows or, reshaped, on images."""
    features = window = keras.Input(shape, name="window")
    flat = len(shape) == 2 and shape[1] < 10
    if not flat:
        features = layers.Reshape((*shape, 1))(features)
    outputs: dict[str, Any] = {}
    previous = None
    for number, kind in enumerate(HEADS, start=1):
        convolve = layers.Conv1D if flat else layers.Conv2D
        features = convolve(8, 3, strides=2, padding="same", activation="relu")(features)
        previous = make_head(features, 4, f"exit_{number:02d}", kind=kind, previous=previous)
        outputs[f"exit_{number:02d}"] = previous
    return keras.Model(window, outputs)


@pytest.mark.parametrize("shape", [(64, 3), (32, 16)], ids=["windows", "images"])
def test_cascaded_heads_of_every_kind_become_int8_stages(shape: tuple[int, ...]) -> None:
    keras.utils.set_random_seed(2)
    in_int8_as_in_float(randomise(heads_network(shape)))
