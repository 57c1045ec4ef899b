"""Layers of Keras networks: multiply-accumulates as in the converted model, and what blocks int8."""

from __future__ import annotations

import csv
import sys
import warnings
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_networks import (
    N_CLASSES,
    SENSOR,
    TRAIN_REASON,
    converted,
    converting_in_this_process,
    dscnn_network,
    random_samples,
)
from hypothesis import given, settings
from hypothesis import strategies as st

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
import tensorflow as tf
from keras import layers

from mexit_edge.compress import convert
from mexit_edge.errors import InputError
from mexit_edge.estimate import MAC_KINDS, operations, total_macs
from mexit_edge.models import attach_exits, int8_support, layer_macs, layer_table
from mexit_edge.models.int8_support import Int8Support
from mexit_edge.models.layer_table import LayerRow
from mexit_edge.models.running_sum import add_running_sums
from mexit_edge.regimes.macs import traced_macs

pytestmark = pytest.mark.train


def network_of(*parts: Any, shape: tuple[int | None, ...] = (12, 4)) -> keras.Model:
    x = window = keras.Input(shape)
    for part in parts:
        x = part(x)
    return keras.Model(window, x)


def row_of(layer: Any, shape: tuple[int | None, ...] = (12, 4)) -> LayerRow:
    (row,) = layer_table(network_of(layer, shape=shape))
    return row


def macs_of(network: keras.Model) -> int | None:
    counts = [row.macs for row in layer_table(network)]
    return None if None in counts else sum(counts)


def one_input(layer: Any, *inputs: Any, **options: Any) -> Any:
    return lambda x: layer(x, *(one(x) for one in inputs), **options)


# --- Multiply-accumulates -----------------------------------------------------------------------------------


def everything_that_converts() -> keras.Model:
    """Every kind of layer with products that the estimates know; dilations that do not divide the length."""
    window = keras.Input((13, 4))
    x = layers.Conv1D(8, 3, dilation_rate=3, padding="same")(window)
    x = layers.Conv1D(8, 3, groups=2, activation="relu")(x)
    x = layers.DepthwiseConv1D(3, depth_multiplier=2, padding="same", dilation_rate=2)(x)
    x = layers.SeparableConv1D(6, 3, padding="same", depth_multiplier=2)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.Conv1D(6, 2, padding="causal", dilation_rate=4)(x)
    x = layers.Dense(5, activation="tanh")(x)
    x = layers.AveragePooling1D(2)(layers.EinsumDense("abc,cd->abd", (11, 6))(x))
    x = layers.Conv1DTranspose(5, 3, strides=2, padding="same")(layers.Conv1DTranspose(4, 2)(x))
    x = layers.MaxPooling1D(2)(x)[:, :5]
    x = keras.ops.matmul(keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1))), x)
    x = layers.TimeDistributed(layers.Dense(3))(x)
    y = layers.Reshape((3, 5, 1))(layers.Permute((2, 1))(x))
    y = layers.Conv2D(4, (2, 3), strides=(1, 2), padding="same")(y)
    y = layers.DepthwiseConv2D(2)(layers.Conv2DTranspose(4, (1, 2), strides=(1, 2))(y))
    y = layers.SeparableConv2D(5, 2, padding="same")(y)
    y = layers.GlobalMaxPooling2D()(y)
    x = layers.Bidirectional(layers.SimpleRNN(3, unroll=True))(x)
    logits = layers.Dense(N_CLASSES, name="exit_01")(layers.Concatenate()([x, y]))
    return keras.Model(window, {"exit_01": logits})


def converted_here(network: keras.Model) -> bytes:
    with converting_in_this_process(), warnings.catch_warnings():
        warnings.simplefilter("default")
        return convert(network, random_samples(8, network.inputs[0].shape[1:]))


def test_macs_of_every_layer_are_those_of_the_converted_model() -> None:
    network = everything_that_converts()
    content = converted_here(network)
    assert macs_of(network) == total_macs(content)
    assert set(MAC_KINDS) - {one.kind for one in operations(content)} == {"recurrent"}
    assert all(row.int8.converts for row in layer_table(network))


@pytest.mark.parametrize("name", ["dscnn", "dilated", "cascaded", "attached"])
def test_macs_of_a_network_are_those_of_the_converted_model(name: str) -> None:
    made = converted(name)
    assert macs_of(made.network) == total_macs(made.whole)
    assert all(row.int8.converts for row in layer_table(made.network))


# Layers that do not convert as they are, and others, against the graph that TensorFlow builds.
TRACED = {
    "conv3d": (lambda: layers.Conv3D(6, 2), (4, 4, 5, 2)),
    "conv1d transpose": (lambda: layers.Conv1DTranspose(6, 3, strides=2), (5, 4)),
    "conv2d transpose": (lambda: layers.Conv2DTranspose(6, 3, strides=2, padding="same"), (5, 7, 4)),
    "lstm": (lambda: layers.LSTM(5, unroll=True, stateful=False), (6, 4)),
    "gru": (lambda: layers.GRU(5, unroll=True), (6, 4)),
    "einsum": (lambda: layers.EinsumDense("abc,bcd->ad", 5), (6, 4)),
    "matmul": (lambda: one_input(keras.ops.matmul, lambda x: keras.ops.transpose(x, (0, 2, 1))), (6, 4)),
    "spectral": (lambda: layers.SpectralNormalization(layers.Dense(5)), (6, 4)),
}


@pytest.mark.parametrize("name", TRACED)
def test_macs_are_those_of_the_traced_layer(name: str) -> None:
    make, shape = TRACED[name]
    network = network_of(make(), shape=shape)
    traced = traced_macs(lambda x: network(x, training=False), tf.TensorSpec((1, *shape)))
    if name in ("lstm", "gru"):
        # TensorFlow multiplies the state of zeros before the first step; the converter does not.
        cell = network.layers[-1].cell
        assert traced.forward == macs_of(network) + int(np.prod(cell.recurrent_kernel.shape))
    else:
        assert traced.forward == macs_of(network)


@settings(max_examples=25, deadline=None)
@given(
    # As long as the farthest reach of a kernel at least.
    time=st.integers(10, 20),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    padding=st.sampled_from(["same", "valid", "causal"]),
)
def test_macs_of_a_convolution_by_hand(
    time: int, kernel: int, stride: int, dilation: int, padding: str
) -> None:
    dilation = dilation if stride == 1 else 1
    layer = layers.Conv1D(5, kernel, strides=stride, dilation_rate=dilation, padding=padding)
    row = row_of(layer, (time, 3))
    reach = (kernel - 1) * dilation + 1
    positions = -(-time // stride) if padding != "valid" else (time - reach) // stride + 1
    assert row.macs == positions * kernel * 3 * 5
    assert row.shape == (positions, 5)


class Own(layers.Layer):
    """A layer of somebody's own, with weights."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],))

    def call(self, inputs: Any) -> Any:
        return inputs * self.scale


class OwnDense(layers.Dense):
    """A layer of Keras, made to compute something else."""

    def call(self, inputs: Any, training: Any = None) -> Any:
        return keras.ops.erf(super().call(inputs))


@pytest.mark.parametrize(
    "layer",
    [
        Own,
        lambda: one_input(layers.MultiHeadAttention(2, 3), lambda x: x),
        lambda: one_input(keras.ops.cumsum, axis=1),
    ],
    ids=["own", "attention", "operation"],
)
def test_what_no_table_knows_is_unknown_and_not_0(layer: Any) -> None:
    network = network_of(layer(), layers.Flatten(), layers.Dense(3))
    unknown, flat, dense = layer_table(network)
    assert (unknown.macs, unknown.cumulative_macs, unknown.share) == (None, None, None)
    assert flat.macs == 0
    assert flat.cumulative_macs is None
    assert dense.macs == 12 * 4 * 3
    assert dense.share is None


def test_a_length_that_is_not_fixed_leaves_macs_unknown_and_blocks_int8() -> None:
    row = row_of(layers.Conv1D(5, 3), (None, 4))
    assert row.shape == (None, 5)
    assert row.macs is None
    assert row.int8 == Int8Support(
        False, "a dimension is not fixed", "Build the network for windows of a fixed length."
    )


# --- The table ----------------------------------------------------------------------------------------------


def test_the_table_of_a_network_with_exits() -> None:
    network = dscnn_network()
    rows = layer_table(network)
    assert sum(row.parameters for row in rows) == network.count_params()
    assert len(rows) == len(network.layers) - 1
    outputs = {name: row for row in rows for name in row.outputs}
    assert sorted(outputs) == ["exit_01", "exit_02", "exit_03"]
    shares = [outputs[name].share for name in sorted(outputs)]
    # No exit needs the heads of the others: the final one needs less than everything.
    assert 0 < shares[0] < shares[1] < shares[2] < 1
    stem = next(row for row in rows if row.name == "stem")
    assert (stem.type, stem.shape, stem.parameters) == ("Conv1D", (16, 8), 5 * 3 * 8)
    assert stem.cumulative_macs == stem.macs == 16 * 5 * 3 * 8
    # Exit by exit: what a stage computes stands together, and only the backbone carries further exits.
    ends = [place for place, row in enumerate(rows) if row.outputs]
    assert [rows[place].outputs for place in ends] == [(name,) for name in sorted(outputs)]
    assert ends[-1] == len(rows) - 1
    assert {row.name for row in rows[: ends[0] + 1] if row.no_exit} == {
        name for name in (row.name for row in rows) if name.startswith("exit_01")
    }
    assert {row.live_tensors for row in rows if row.name.startswith("block_")} == {1}


def test_a_shared_layer_has_its_parameters_once_and_its_macs_at_each_call() -> None:
    shared = layers.Dense(4, name="shared")
    first, second, last = layer_table(network_of(shared, shared, layers.Dense(3, name="last"), shape=(4,)))
    assert (first.name, second.name, last.name) == ("shared#1", "shared#2", "last")
    assert (first.parameters, second.parameters) == (4 * 4 + 4, 0)
    assert (first.macs, second.macs, last.cumulative_macs) == (16, 16, 44)


def test_running_sums_and_opened_models_are_listed() -> None:
    inner = network_of(layers.Conv1D(4, 3, name="conv"), layers.GlobalMaxPooling1D(name="pool"))
    window = keras.Input((12, 4))
    inner.name = "inner"
    model = keras.Model(window, layers.Dense(3, name="classes")(inner(window)))
    network = add_running_sums(attach_exits(model, at=["inner/conv"]), 0.5)
    rows = {row.name: row for row in layer_table(network)}
    assert rows["exit_02_running_sum"].macs == 0
    assert rows["exit_02_running_sum"].outputs == ("exit_02",)
    assert rows["exit_02_running_sum"].int8.converts
    assert [row.name for row in layer_table(model)] == ["inner/conv", "inner/pool", "classes"]


def test_a_tensor_with_two_output_names_is_listed_under_both() -> None:
    window = keras.Input((4,))
    logits = layers.Dense(3, name="classes")(window)
    (row,) = layer_table(keras.Model(window, {"exit_01": logits, "exit_02": logits}))
    assert row.outputs == ("exit_01", "exit_02")
    assert row_of(layers.Dense(3), (4,)).outputs == ("output",)


def test_layer_table_refuses_what_is_no_functional_network() -> None:
    with pytest.raises(InputError, match=r"`network` must be a functional.*Received: Dense"):
        layer_table(layers.Dense(3))


# --- What blocks int8 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "reason", "suggestion"),
    [
        (lambda: layers.LSTM(3), "a loop, which crashes the converter", "unroll=True"),
        (lambda: layers.Bidirectional(layers.GRU(3)), "a loop", "unroll=True"),
        (lambda: layers.RNN(layers.SimpleRNNCell(3)), "a loop", "Use convolutions."),
        (lambda: layers.TimeDistributed(layers.ELU()), "ELU has no int8 form", "LeakyReLU"),
        (lambda: layers.LayerNormalization(), "a dozen operators, of which NEG", "BatchNormalization"),
        (lambda: layers.Conv1D(3, 3, activation="selu"), "selu: GREATER", "relu"),
        (lambda: layers.ReLU(threshold=0.5), "GREATER, which has no int8 form", "without `threshold`"),
        (
            lambda: layers.ReLU(max_value=3, negative_slope=0.1),
            "NEG, which has no int8",
            "one of `max_value`",
        ),
        (lambda: keras.ops.square, "SQUARE has no int8 form", "x * x"),
        (lambda: keras.ops.elu, "ELU has no int8 form", "relu"),
    ],
)
def test_a_layer_that_blocks_int8_is_named_with_a_way_out(layer: Any, reason: str, suggestion: str) -> None:
    int8 = row_of(layer()).int8
    assert int8.converts is False
    assert reason in (int8.reason or "")
    assert suggestion in (int8.suggestion or "")


@pytest.mark.parametrize(
    ("layer", "converts", "reason"),
    [
        (lambda: layers.Conv1D(3, 3, activation="relu"), True, None),
        (lambda: layers.GRU(3, unroll=True), True, "one set of operators per time step"),
        (lambda: layers.TimeDistributed(layers.Dense(2)), True, "one operator per time step"),
        (lambda: layers.ReLU(max_value=3), True, None),
        (lambda: layers.ReLU(negative_slope=0.1), True, None),
        (lambda: OwnDense(3), None, "OwnDense was not tried"),
        (lambda: layers.Softmax(), True, "an exponential per element"),
        (lambda: layers.Lambda(lambda x: x + 1, output_shape=(12, 4)), None, "Python code"),
        (Own, None, "Own was not tried"),
        (
            lambda: layers.Conv1D(3, 3, activation=keras.activations.sparsemax),
            None,
            "the activation sparsemax",
        ),
        (lambda: keras.ops.cos, None, "Cos was not tried"),
    ],
)
def test_a_layer_that_converts_or_may(layer: Any, converts: bool | None, reason: str | None) -> None:
    int8 = row_of(layer()).int8
    assert int8.converts is converts
    assert (reason or "") in (int8.reason or "")
    assert (int8.reason is None) == (reason is None)


@pytest.mark.parametrize(
    ("layer", "operator"),
    [
        (layers.ELU, "ELU"),
        (layers.LayerNormalization, "NEG"),
        (lambda: layers.ReLU(threshold=0.5), "GREATER"),
        (lambda: layers.ReLU(max_value=3, negative_slope=0.1), "NEG"),
    ],
    ids=["elu", "layer norm", "threshold", "slope and largest value"],
)
def test_the_converter_refuses_what_the_table_says_blocks(layer: Any, operator: str) -> None:
    parts = (layers.Conv1D(4, 3), layer(), layers.Flatten(), layers.Dense(3, name="exit_01"))
    network = network_of(*parts, shape=SENSOR.shape)
    network = keras.Model(network.input, {"exit_01": network.output})
    assert [row.int8.converts for row in layer_table(network)] == [True, False, True, True]
    with pytest.raises(InputError, match=operator):
        converted_here(network)


# --- The tables against the converter -----------------------------------------------------------------------

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def int8_layers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the script that converted a network per entry of the tables."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = spec_from_file_location("int8_layers", BENCHMARKS / "int8_layers.py")
    script = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "int8_layers", script)
    spec.loader.exec_module(script)
    return script


def test_the_tables_say_what_the_converter_did(monkeypatch: pytest.MonkeyPatch) -> None:
    script = int8_layers(monkeypatch)
    with script.RESULTS.open(newline="") as stream:
        rows = {row["case"]: row for row in csv.DictReader(stream)}
    found = {name: row["is_priced"] == "True" for name, row in rows.items()}
    assert list(found) == list(script.CASES)
    with warnings.catch_warnings():
        # A layer that masks, before one that does not read masks.
        warnings.filterwarnings("ignore", message=r".*was passed an input with a mask")
        tables = {name: layer_table(case.network()) for name, case in script.CASES.items()}
    said = {name: script.verdict(table) for name, table in tables.items()}
    assert {name for name, fact in said.items() if fact is None} == {"operation Cast"}
    assert {name: fact for name, fact in said.items() if fact not in (None, found[name])} == {}
    refused = {name for name, row in rows.items() if row["tflm"] not in ("", "runs") and found[name]}
    warned = {
        name
        for name, table in tables.items()
        if any("TFLM does not run it" in (row.int8.reason or "") for row in table)
    }
    assert refused == warned


def test_every_entry_of_the_tables_was_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    script = int8_layers(monkeypatch)
    kinds = {
        *int8_support._BLOCKING,
        *int8_support._CONVERTING,
        *int8_support._ON_LITERT_ONLY,
        *layer_macs._RULES,
        *layer_macs._WITHOUT_MACS,
    }
    tables = {
        "layer": [kind.__name__ for kind in kinds],
        "activation": [
            *int8_support._ACTIVATIONS,
            *int8_support._BLOCKING_ACTIVATIONS,
            *int8_support._ACTIVATIONS_ON_LITERT_ONLY,
        ],
        "operation": [
            *int8_support._BLOCKING_OPERATIONS,
            *int8_support._CONVERTING_OPERATIONS,
            *int8_support._OPERATIONS_ON_LITERT_ONLY,
            *layer_macs._ELEMENTWISE_OPERATIONS,
        ],
    }
    entries = {f"{part} {name}" for part, names in tables.items() for name in names}
    # What follows a comma are a case's options.
    assert entries - {name.partition(",")[0] for name in script.CASES} == set()
