"""Curves of quality over cost: worked out by hand, below the oracle's, and what follows from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fixtures_bench import drawn_record, hand_record, phase_cost, run_of
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.benchmark.quality_cost import (
    QualityCostCurve,
    credit_at,
    curve_area_share,
    decided,
    final_credit,
    oracle_curve,
    policy_credit,
    quality_cost_curve,
)
from mexit_edge.benchmark.rows import COLUMNS, TIME_COLUMNS, figures_of_merit, rows_of, times_of
from mexit_edge.errors import InputError
from mexit_edge.exits import balanced_accuracy, balanced_weights, oracle_exits


def test_the_curve_by_hand():
    """Budgets let 1, 2 or 3 of the four windows leave at exit 1, the ends 0 and 4; each saves 100 MACs."""
    curve = quality_cost_curve(hand_record())
    # Window 2 is right at exit 1 alone, windows 1 and 3 at exit 2 alone, window 0 at both.
    np.testing.assert_allclose(curve.cost, np.array([100, 125, 150, 175, 200]) / 190)
    np.testing.assert_allclose(curve.quality, [0.5, 0.75, 1.0, 0.75, 0.75])
    assert curve.quality_at(0.5) is None
    assert curve.quality_at(100 / 190) == pytest.approx(0.5)
    assert curve.quality_at(137.5 / 190) == pytest.approx(0.875)
    assert curve.quality_at(5.0) == curve.quality[-1]
    assert curve.cost_at(0.4) == curve.cost[0]
    assert curve.cost_at(0.875) == pytest.approx(137.5 / 190)
    assert curve.cost_at(1.0) == pytest.approx(150 / 190)
    # From 100 to 190 MACs: three trapezoids of 25 MACs, and 15 MACs at .75.
    by_hand = (25 * (0.625 + 0.875 + 0.875) + 15 * 0.75) / 90
    assert curve.mean_quality(100 / 190, 1.0) == pytest.approx(by_hand)
    # The oracle buys windows 1 and 3, a quarter of the weight for 25 MACs each.
    oracle = oracle_curve(hand_record())
    np.testing.assert_allclose(oracle.cost, np.array([100, 150]) / 190)
    np.testing.assert_allclose(oracle.quality, [0.5, 1.0])
    assert curve_area_share(hand_record()) == pytest.approx(by_hand / ((50 * 0.75 + 40) / 90))


def test_a_quality_that_is_never_reached_has_no_cost():
    curve = QualityCostCurve(np.array([0.2, 0.4, 0.6]), np.array([0.5, 0.8, 0.7]))
    assert curve.cost_at(0.81) is None
    assert curve.cost_at(0.75) == pytest.approx(0.2 + 0.2 * 25 / 30)


def test_thresholds_come_from_the_calibration_windows_alone():
    record = hand_record()
    # With calibration logits that are never sure, every budgeted threshold lets all windows leave, or none.
    unsure = np.zeros_like(record.calibration_logits)
    curve = quality_cost_curve(replace(record, calibration_logits=unsure))
    np.testing.assert_allclose(curve.cost, np.array([100, 200]) / 190)
    # Of the judged labels nothing but the worth of the policies depends.
    relabelled = replace(record, y=1 - record.y)
    np.testing.assert_array_equal(quality_cost_curve(relabelled).cost, quality_cost_curve(record).cost)


def test_policies_of_equal_cost_count_with_their_mean():
    """Two exits of the same cost: which of the policies is better, only the labels could tell."""
    record = replace(hand_record(), exit_macs=(190, 190))
    curve = quality_cost_curve(record)
    assert curve.cost.tolist() == [1.0]
    assert min(0.5, 0.75) < curve.quality[0] < 1.0
    assert curve_area_share(record) is None
    # Later exits cost the oracle nothing: it begins with every window that any exit gets right.
    assert oracle_curve(record).quality.tolist() == [1.0]


def test_a_single_exit_is_a_point():
    record = hand_record()
    alone = replace(
        record,
        exits=record.exits[1:],
        float_logits=record.float_logits[:, 1:],
        int8_logits=record.int8_logits[:, :, 1:],
        calibration_logits=record.calibration_logits[:, 1:],
        scales=record.scales[1:],
        thresholds=(),
        exit_macs=(190,),
    )
    assert quality_cost_curve(alone).quality.tolist() == oracle_curve(alone).quality.tolist() == [0.75]
    values = {(row["metric"], row["exit"], row["cost_share"]): row["value"] for row in rows_of(alone)}
    assert values["quality_at_cost", None, 0.75] is None
    assert values["quality_at_cost", None, 1.0] == 0.75
    assert values["curve_area_share", None, None] is None
    assert values["mean_macs_share", "policy", None] == 1.0


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    strength=st.tuples(*[st.floats(-1, 4)] * 3),
    severity=st.sampled_from([0.0, 3.0]),
)
def test_nothing_passes_the_oracle(seed, strength, severity):
    record = drawn_record(run_of(seed=seed), strength, n=60, severities=(0.0, 3.0), draw=seed)
    curve, oracle = quality_cost_curve(record, severity), oracle_curve(record, severity)
    grid = np.concatenate([curve.cost, oracle.cost, np.linspace(curve.cost[0], 1.1, 23)])
    for share in grid[grid >= curve.cost[0]]:
        assert curve.quality_at(share) <= oracle.quality_at(share) + 1e-9
    share = curve_area_share(record, severity)
    assert share is None or 0 <= share <= 1 + 1e-9
    # The oracle that stops at the first correct exit is a point below the curve, or on it.
    predicted = record.int8_logits[record.severities.index(severity)].argmax(axis=2)
    left_at = oracle_exits(record.y, predicted) - 1
    cost = np.asarray(record.exit_macs)[left_at].mean() / record.plain_macs
    quality = balanced_accuracy(record.y, predicted[np.arange(len(left_at)), left_at])
    assert oracle.quality_at(cost) >= quality - 1e-9
    assert oracle.quality[-1] == pytest.approx(quality)
    # Both ends are the first and the final exit.
    assert curve.cost[0] == record.exit_macs[0] / record.plain_macs
    assert curve.quality[-1] == pytest.approx(balanced_accuracy(record.y, predicted[:, -1]))


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), share=st.floats(0.14, 1.2))
def test_credit_is_the_quality_of_the_mix(seed, share):
    record = drawn_record(run_of(seed=seed), n=40, severities=(0.0,), draw=seed)
    credit = credit_at(record, share)
    expected = quality_cost_curve(record).quality_at(share)
    assert np.mean(balanced_weights(record.y) * credit) == pytest.approx(expected)
    assert credit_at(record, 0.1) is None


def test_the_policy_decides_by_its_own_thresholds():
    record = hand_record()
    exits, labels = decided(record)
    assert exits.tolist() == [1, 2, 1, 2]
    assert labels.tolist() == [0, 0, 1, 1]
    assert policy_credit(record).tolist() == [1, 1, 1, 1]
    assert final_credit(record).tolist() == [1, 1, 0, 1]
    with pytest.raises(InputError, match=r"`severity` must be one .*\(0\)\. Received: 2\.0"):
        decided(record, 2.0)


def test_merits_by_hand():
    y, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    # Per class 2 of 3 and 1 of 1; F1 .8 and 2/3; agreement .75, by chance (3 * 2 + 1 * 2) / 16.
    assert figures_of_merit(y, predicted) == pytest.approx(
        {"accuracy": 0.75, "balanced_accuracy": 5 / 6, "macro_f1": (0.8 + 2 / 3) / 2, "kappa": 0.5}
    )
    assert figures_of_merit(y[:3], y[:3])["kappa"] is None


def test_rows_by_hand():
    rows = rows_of(hand_record())
    assert all(tuple(row) == COLUMNS for row in rows)
    values = {(r["metric"], r["kind"], r["exit"], r["severity"], r["cost_share"]): r["value"] for r in rows}
    assert len(values) == len(rows)
    assert values["balanced_accuracy", "int8", "exit_01", 0.0, None] == 0.5
    assert values["balanced_accuracy", "float", "exit_02", 0.0, None] == 0.75
    assert values["kappa", "int8", "exit_02", 0.0, None] == 0.5
    assert values["calibration_balanced_accuracy", "int8", "exit_01", None, None] == 0.5
    assert values["calibration_balanced_accuracy", "int8", "exit_02", None, None] == 0.75
    assert values["accuracy", "int8", "policy", 0.0, None] == 1.0
    assert values["mean_macs_share", "int8", "policy", 0.0, None] == round(150 / 190, 6)
    assert values["macs", None, "exit_02", None, None] == 200
    assert values["macs", None, "plain", None, None] == 190
    assert values["quality_at_cost", "int8", None, 0.0, 0.5] is None
    assert values["quality_at_cost", "int8", None, 0.0, 1.0] == 0.75
    assert values["training_windows", None, None, None, None] == 100
    head = {name: rows[0][name] for name in COLUMNS[:6]}
    assert head == {
        "data": "hapt",
        "backbone": "cnn medium",
        "regime": "joint",
        "seed": 0,
        "judged_on": "test",
        "fold": None,
    }


def test_cost_of_training_is_that_of_all_networks_and_unknown_where_a_part_is():
    costs = (phase_cost(10, 20), phase_cost(1, 2, phase="second"))
    record = replace(hand_record(), training_cost=costs)
    values = {row["metric"]: row["value"] for row in rows_of(record)}
    assert (values["forward_macs"], values["backward_macs"]) == (11, 22)
    times = times_of(record)
    assert [tuple(row) for row in times] == [TIME_COLUMNS] * 2
    assert [row["phase"] for row in times] == ["joint", "second"]
    unknown = replace(record, training_cost=(*costs, phase_cost(None, None)))
    assert {row["metric"]: row["value"] for row in rows_of(unknown)}["forward_macs"] is None
