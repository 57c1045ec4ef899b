"""Concatenated tensors on one range: which share it, and what the converter makes of every arrangement."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from fixtures_networks import SENSOR, TRAIN_REASON, converting_in_this_process, int8_logits, random_samples

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
from keras import layers

import mexit_edge as mx
from mexit_edge.compress import convert
from mexit_edge.compress.fake_quant import fake_quants
from mexit_edge.compress.flat_graph import FlatGraph
from mexit_edge.compress.joint_ranges import JointRanges
from mexit_edge.compress.quantize_aware import quantize_aware
from mexit_edge.tflite import Graph, audit_int8

pytestmark = pytest.mark.train

SHAPE = (16, 4)
Arrangement = Callable[[Any, Any, Any], Any]


def joined(*tensors: Any) -> Any:
    return layers.Concatenate()(list(tensors))


def convolution(x: Any, **options: Any) -> Any:
    return layers.Conv1D(4, 3, padding="same", **options)(x)


def activation(name: str, x: Any) -> Any:
    return layers.Activation(name)(x)


def with_product(x: Any, a: Any, b: Any) -> Any:
    return joined(layers.Multiply()([a, b]), joined(a, b))


def dense_pairs(x: Any, a: Any, b: Any) -> Any:
    return joined(joined(a, b), convolution(joined(a, b)))


def two_with_a_common_tensor(x: Any, a: Any, b: Any) -> Any:
    return layers.Add()([convolution(joined(a, b)), convolution(joined(b, x))])


def pooled(x: Any, a: Any, b: Any) -> Any:
    return joined(layers.MaxPooling1D(2)(a), layers.AveragePooling1D(2)(b), convolution(a, strides=2))


def means_and_maxima(x: Any, a: Any, b: Any) -> Any:
    mean, maximum = layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D
    return joined(mean()(a), maximum()(a), mean()(b), mean()(a))


def twice_and_nested(x: Any, a: Any, b: Any) -> Any:
    return joined(joined(a, a, b), b, x)


def with_sums(x: Any, a: Any, b: Any) -> Any:
    return joined(layers.Add()([a, b]), a, layers.ReLU()(layers.Subtract()([a, b])))


def computed_twice(x: Any, a: Any, b: Any) -> Any:
    """The converter makes one operator of two that compute the same of the same tensors."""
    relu, c = layers.ReLU(), convolution(x)
    once = joined(relu(c), b, layers.LeakyReLU()(a), a + b)
    again = [convolution(one) for one in (relu(c), layers.ReLU()(c), layers.LeakyReLU()(a), a + b)]
    return joined(once, *again)


def with_a_gate(x: Any, a: Any, b: Any) -> Any:
    gate = activation("sigmoid", b)
    return joined(layers.Multiply()([a, gate]), gate)


def with_tanh(x: Any, a: Any, b: Any) -> Any:
    bounded = activation("tanh", b)
    return joined(layers.Multiply()([a, bounded]), bounded, b)


def with_a_low_top(x: Any, a: Any, b: Any) -> Any:
    return joined(layers.ReLU(3)(b), activation("softmax", a), a)


def two_given(x: Any, a: Any, b: Any) -> Any:
    return joined(activation("sigmoid", a), activation("tanh", b))


def chain(x: Any, a: Any, b: Any) -> Any:
    return joined(joined(activation("sigmoid", b), a), a, b)


def means_of_a_gate(x: Any, a: Any, b: Any) -> Any:
    gate = activation("sigmoid", b)
    return joined(layers.GlobalAveragePooling1D()(gate), layers.GlobalMaxPooling1D()(gate))


FREE = (
    *(with_product, dense_pairs, two_with_a_common_tensor, pooled),
    *(means_and_maxima, twice_and_nested, with_sums, computed_twice),
)
GIVEN = (with_a_gate, with_tanh, with_a_low_top, two_given, chain, means_of_a_gate)


def network_of(*arrangements: Arrangement) -> keras.Model:
    """One exit per arrangement of the window and two convolutions of it."""
    keras.utils.set_random_seed(1)
    window = keras.Input(SHAPE)
    exits = {}
    for number, arrangement in enumerate(arrangements, start=1):
        x = arrangement(window, convolution(window, activation="relu"), convolution(window))
        x = x if len(x.shape) == 2 else layers.GlobalAveragePooling1D()(x)
        name = f"exit_{number:02d}"
        exits[name] = layers.Dense(3, name=name)(x)
    return keras.Model(window, exits)


@cache
def int8(arrangements: tuple[Arrangement, ...]) -> tuple[keras.Model, bytes]:
    aware = quantize_aware(network_of(*arrangements), random_samples(48, SHAPE))
    with converting_in_this_process():
        return aware, convert(aware)


@pytest.mark.parametrize("arrangements", [FREE, GIVEN], ids=["free", "given"])
def test_every_arrangement_becomes_int8_and_computes_what_the_copy_does(arrangements: Any) -> None:
    aware, content = int8(arrangements)
    audit_int8(content)
    x = random_samples(48, SHAPE)
    expected = aware(x)
    for name, (logits, scale) in int8_logits(content, x).items():
        steps = np.abs(logits - np.asarray(expected[name])) / scale
        # A mean over all positions rounds its zero point too.
        assert steps.max() < 5.01, name
        assert steps.mean() < 1.5, name


def test_concatenations_of_free_tensors_take_no_further_operator() -> None:
    assert "QUANTIZE" not in {operator.name for operator in Graph(int8(FREE)[1]).operators}


def test_the_dense_backbone_becomes_int8() -> None:
    network = mx.models.build("msdnet", SENSOR, 4, preset="tiny")
    with converting_in_this_process():
        audit_int8(convert(quantize_aware(network, random_samples(48, SENSOR.shape))))


def is_pool(call: Any) -> bool:
    return isinstance(call.layer, layers.MaxPooling1D)


def test_what_is_concatenated_is_one_group_with_what_is_moved() -> None:
    window = keras.Input(SHAPE)
    a, b, c = (convolution(window) for _ in range(3))
    first = joined(layers.MaxPooling1D(2)(a), layers.MaxPooling1D(2)(b))
    second = joined(b, c)
    graph = FlatGraph(keras.Model(window, [first, second]))
    joint = JointRanges(graph, is_pool, given=set())
    made = {call.name: call.output for call in graph.calls}
    names = [call.name for call in graph.calls if isinstance(call.layer, layers.Conv1D)]
    groups = {joint.group(number) for name, number in made.items()}
    assert len(groups) == 1
    (group,) = groups
    assert sorted(joint.sources[group]) == sorted(made[name] for name in names)
    assert joint.last[group].layer is graph.calls[-1].layer
    assert joint.group(graph.inputs[0]) != group


def test_what_has_a_range_of_its_own_stays_outside_and_so_does_what_reads_it() -> None:
    window = keras.Input(SHAPE)
    a, b, c = (convolution(window) for _ in range(3))
    with_given = joined(layers.MaxPooling1D(2)(a), layers.MaxPooling1D(2)(b))
    after = joined(with_given, layers.MaxPooling1D(2)(c))
    graph = FlatGraph(keras.Model(window, after))
    first = next(call for call in graph.calls if isinstance(call.layer, layers.Conv1D))
    joint = JointRanges(graph, is_pool, given={first.output})
    concatenations = [call for call in graph.calls if isinstance(call.layer, layers.Concatenate)]
    assert [joint.is_joined(call) for call in concatenations] == [False, False]
    assert joint.last == {}
    assert {len(sources) for sources in joint.sources.values()} == {1}


def test_a_shared_range_follows_all_its_tensors_as_one() -> None:
    window = keras.Input(SHAPE)
    small, large = convolution(window, name="small"), convolution(window, name="large")
    x = layers.Flatten()(joined(small, layers.ReLU()(large)))
    network = keras.Model(window, {"exit_01": layers.Dense(3, name="exit_01")(x)})
    network.get_layer("large").set_weights([10 * one for one in network.get_layer("large").get_weights()])
    samples = random_samples(48, SHAPE)
    aware = quantize_aware(network, samples)
    shared = next(one for one in fake_quants(aware) if one.name.startswith("concatenate"))
    exact = np.asarray(keras.Model(window, [small, network.get_layer("large").output])(samples)[0])
    assert float(shared.low) == pytest.approx(exact.min(), rel=0.02)
    before = float(shared.high)
    aware(3 * samples, training=True)
    rate = 1 / (shared.memory + 1)
    # The largest value, of one of them, has tripled; the range follows it, not the mean of both.
    assert float(shared.high) == pytest.approx(before + rate * 2 * before, rel=0.02)
