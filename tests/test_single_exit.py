"""What the network costs without its early heads, held against a model that never had them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from fixtures_networks import N_CLASSES, SENSOR, HandModel, bundle_of, hand_whole, synthetic_windows

from mexit_edge.bundle import Bundle
from mexit_edge.estimate import (
    OPERATIONS,
    Cost,
    estimate_bundle,
    estimate_model,
    load_device,
    single_exit_cost,
    single_exit_operations,
)
from mexit_edge.runtime import InputQuantizer, Runtime, open_model
from mexit_edge.tflite import Graph, cut_at_exits

DEVICE = "nucleo-l4r5zi"


def alone(whole: bytes, exit_: str = "exit_03") -> bytes:
    """The whole network, cut to one exit by the code that cuts networks into stages."""
    (stage,) = cut_at_exits(whole, [exit_])
    return stage.content


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return bundle_of(hand_whole())


def test_it_costs_what_the_network_without_early_heads_costs(bundle: Bundle) -> None:
    expected = estimate_model(alone(hand_whole()), DEVICE)
    cost = single_exit_cost(bundle, DEVICE)
    assert (cost.macs, cost.live_macs) == (expected.macs, expected.live_macs)
    for name in ("estimated_cycles", "estimated_latency_ms", "estimated_energy_uj"):
        one, other = getattr(cost, name), getattr(expected, name)
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))
    # One invocation, and the view of the window that two stages hold counts once.
    counted = Counter(operation.name for operation in single_exit_operations(bundle))
    assert counted == Counter(operator.name for operator in Graph(alone(hand_whole())).operators)


def test_it_is_cheaper_than_all_stages(bundle: Bundle) -> None:
    cost, last = single_exit_cost(bundle, load_device(DEVICE)), estimate_bundle(bundle, DEVICE).exits[-1]
    assert cost.macs is not None
    assert last.macs is not None
    heads = 2 * 24 * N_CLASSES
    assert cost.macs == last.macs - heads
    assert cost.estimated_latency_ms is not None
    assert last.estimated_latency_ms is not None
    assert cost.estimated_latency_ms.value < last.estimated_latency_ms.value


def test_its_decisions_are_those_of_the_final_exit(bundle: Bundle) -> None:
    counts = synthetic_windows(60, noise=2.0).counts()
    codes = InputQuantizer(bundle.manifest).quantize(counts)
    (logits,) = open_model("litert-reference", alone(hand_whole())).run_batch([codes])
    np.testing.assert_array_equal(logits, Runtime(bundle, "litert-reference").all_logits(counts)[:, -1])


def test_a_head_that_a_later_stage_reads_is_kept() -> None:
    model = HandModel()
    flat = model.view(model.window((1, *SENSOR.shape), scale=0.03), (1, 96))
    rng = np.random.default_rng(0)
    first = model.dense(flat, rng.standard_normal((N_CLASSES, 96)), 0.1)
    other = model.dense(flat, rng.standard_normal((N_CLASSES, 96)), 0.1)
    whole = model.finish({"exit_01": first, "exit_02": model.add(first, other, scale=0.1)})
    cascade = bundle_of(whole)
    names = [operation.name for operation in single_exit_operations(cascade)]
    assert sorted(names) == sorted(["RESHAPE", "FULLY_CONNECTED", "FULLY_CONNECTED", "ADD"])


def test_a_network_with_one_exit_costs_what_it_costs() -> None:
    model = HandModel()
    flat = model.view(model.window((1, *SENSOR.shape), scale=0.03), (1, 96))
    weights = np.random.default_rng(0).standard_normal((N_CLASSES, 96))
    only = bundle_of(model.finish({"exit_01": model.dense(flat, weights, 0.1)}))
    exit_ = estimate_bundle(only, DEVICE).exits[0]
    cost = single_exit_cost(only, DEVICE)
    assert cost == Cost(**{name: getattr(exit_, name) for name in Cost.__dataclass_fields__})


def test_an_unknown_operator_makes_it_unknown(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(OPERATIONS, "ADD")
    cost = single_exit_cost(bundle, DEVICE)
    assert (cost.macs, cost.estimated_latency_ms, cost.estimated_energy_uj) == (None, None, None)
