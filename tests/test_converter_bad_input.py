"""Networks that cannot be converted: each is refused with one message, and no process dies."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from fixtures_networks import N_CLASSES, SENSOR, TRAIN_REASON, converting_in_this_process, random_samples

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
from keras import layers, ops

from mexit_edge.compress import Quantization, convert, converter, convertible
from mexit_edge.compress.convertible import layer_of
from mexit_edge.errors import InputError
from mexit_edge.regimes import MultiExitModel

pytestmark = pytest.mark.train
X = random_samples(8, SENSOR.shape)


@pytest.fixture
def never_converts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*options: object) -> bytes:
        raise AssertionError("the converter was started")

    monkeypatch.setattr(converter, "run_child", refuse)


Middle = Callable[[Any], Any]


def network(middle: Middle, shape: tuple[int | None, ...] = SENSOR.shape, **options: Any) -> Any:
    """A network of one exit around some layers."""
    window = keras.Input(shape, name="window", **options)
    logits = layers.Dense(N_CLASSES, name="exit_01")(layers.Flatten()(middle(window)))
    return keras.Model(window, {"exit_01": logits})


def tiny() -> Any:
    return network(lambda x: x, (4, 1))


# --- Before the converter is started ------------------------------------------------------------------------


def nested_gru() -> keras.Model:
    return keras.Sequential([keras.Input(SENSOR.shape), layers.GRU(4)])


ROLLED: dict[str, Middle] = {
    "LSTM": layers.LSTM(4),
    "GRU": layers.GRU(4),
    "SimpleRNN": layers.SimpleRNN(4),
    "Bidirectional": layers.Bidirectional(layers.LSTM(4)),
    "RNN(cell)": layers.RNN(layers.GRUCell(4)),
    "stacked cells": layers.RNN([layers.GRUCell(4), layers.LSTMCell(4)]),
    "TimeDistributed": lambda x: layers.TimeDistributed(layers.LSTM(4))(layers.Reshape((4, 8, 3))(x)),
    "ConvLSTM": lambda x: layers.ConvLSTM1D(4, 3)(layers.Reshape((4, 8, 3))(x)),
    "nested model": lambda x: nested_gru()(x),
    "nested twice": lambda x: keras.Sequential([keras.Input(SENSOR.shape), nested_gru()])(x),
}


@pytest.mark.usefixtures("never_converts")
@pytest.mark.parametrize("kind", ROLLED)
@pytest.mark.parametrize("quantization", ["int8", "float32"])
def test_rolled_recurrence_is_refused_before_conversion(kind: str, quantization: str) -> None:
    # Converting a rolled LSTM or GRU to int8 kills the process that does it.
    with pytest.raises(InputError, match=r"recurrent layer '\w+' .*crashes the converter. Use `unroll=True`"):
        convert(network(ROLLED[kind]), X, quantization)


def with_nan() -> Any:
    made = tiny()
    kernel = made.get_layer("exit_01").kernel
    kernel.assign(np.full(kernel.shape, np.nan, np.float32))
    return made


@pytest.mark.usefixtures("never_converts")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: network(layers.GlobalAveragePooling1D(), (None, 3)),
            r"static shape.*Received: 'window' of shape \(None, None, 3\).*with a fixed window",
        ),
        (
            lambda: network(lambda x: x, (4, 1), batch_size=8),
            r"static shape.*Received: 'window' of shape \(8, 4, 1\)",
        ),
        (lambda: network(layers.Embedding(5, 2), (4,), dtype="int32"), "float32 inputs. Received: .*int32"),
        (with_nan, "finite weights. Received: NaN or infinity in 'exit_01/kernel'"),
        (
            lambda: MultiExitModel(tiny()),
            "functional .* Received: MultiExitModel. Use `model.network`",
        ),
        (object, "functional Keras model. Received: object"),
        (
            lambda: network(layers.Conv1D(2, 1, dtype="mixed_float16", name="half"), (4, 1)),
            r"compute in float32. Received: the layer 'half' \(Conv1D\) in float16. .*set_dtype_policy",
        ),
    ],
    ids=["dynamic time", "batch of 8", "integers", "nan", "MultiExitModel", "no model", "float16"],
)
def test_networks_are_refused_before_conversion(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(make(), X[:, :4, :1])


@pytest.mark.usefixtures("never_converts")
@pytest.mark.parametrize(
    "names", [("acc left", "gyr"), ("_acc", "gyr"), ("class", "gyr"), ("acc", "Acc"), ("acc-1", "acc.1")]
)
def test_inputs_that_tensorflow_cannot_tell_by_name_are_refused(names: tuple[str, str]) -> None:
    inputs = [keras.Input((4, 1), name=name) for name in names]
    logits = layers.Dense(2, name="exit_01")(layers.Flatten()(layers.Add()(inputs)))
    with pytest.raises(InputError, match=rf"tell by name.*Received: '{names[0]}', '{names[1]}'. Rename"):
        convert(keras.Model(inputs, {"exit_01": logits}), (X[:, :4, :1],) * 2)


@pytest.mark.usefixtures("never_converts")
def test_a_network_above_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny()
    n_bytes = 4 * made.count_params()
    monkeypatch.setattr(convertible, "LARGEST_BYTES", n_bytes)
    with pytest.raises(AssertionError, match="the converter was started"):
        convert(made, X[:, :4, :1])
    monkeypatch.setattr(convertible, "LARGEST_BYTES", n_bytes - 1)
    with pytest.raises(InputError, match=rf"at most {n_bytes - 1} bytes .*Received: {n_bytes}"):
        convert(made, X[:, :4, :1])


# --- In the converter ---------------------------------------------------------------------------------------


class Loop(layers.Layer):
    """Not registered with Keras; becomes control flow."""

    def call(self, inputs: Any) -> Any:
        return ops.while_loop(lambda x: ops.sum(x) < 10, lambda x: (x + 1,), (inputs,))[0]


def convolved(x: Any) -> Any:
    return layers.Conv1D(4, 3, padding="same", name="conv")(x)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("middle", "quantization", "message"),
    [
        (
            lambda x: layers.LayerNormalization(name="norm")(convolved(x)),
            "int8",
            r"Received: NEG with the FLOAT32 .*layer 'norm' \(LayerNormalization\) by BatchNormalization",
        ),
        (
            lambda x: layers.Activation("hard_silu")(convolved(x)),
            "int16",
            r"form for in 'int16'. Received: HARD_SWISH. Replace the layer that makes it by `relu`",
        ),
        (Loop(), "int8", "no loops or branches in its layers.*Received: one that becomes 3 subgraphs"),
    ],
    ids=["float island", "no int16 form", "loop"],
)
def test_operators_without_a_form_are_named(
    middle: Middle, quantization: str | Quantization, message: str
) -> None:
    with converting_in_this_process(), pytest.raises(InputError, match=message):
        convert(network(middle), X, quantization)


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        ("functional_7_1/conv_1/convolution;functional_7_1/other", "'conv' (Conv1D)"),
        ("functional/conv/Relu", "'conv' (Conv1D)"),
        ("functional_1/exit_01_1/BiasAdd", "'exit_01' (Dense)"),
        ("functional_1/Neg", None),
        ("StatefulPartitionedCall_1:0", None),
        ("tfl.dequantize", None),
        ("", None),
    ],
)
def test_a_tensor_tells_its_layer_where_it_can(tensor: str, expected: str | None) -> None:
    assert layer_of(network(convolved), tensor) == expected
