"""Where the gap between a policy and the oracle comes from, against brute force and by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.exits import NEVER, ExitRule, balanced_accuracy, decide, make_scores
from mexit_edge.simulate import OracleGap, Simulation, oracle_gap

STAGE_MACS = (100, 300, 1600)
SCALES = (0.1, 0.1, 0.1)
ROUNDING = 1e-9


def simulation_of(logits, y, thresholds, enabled=(True, True, True), score="logit_margin") -> Simulation:
    """Return what the rule does on logits (n, E, classes)."""
    n, n_exits, n_classes = logits.shape
    scores = make_scores(score, SCALES[:n_exits], n_classes)
    rule = ExitRule(scores, tuple(thresholds), tuple(enabled[:n_exits]))
    left_at, label = rule.decide(logits)
    return Simulation(
        engine="tflm",
        data="made_up",
        y=y,
        subject=np.zeros(n, np.int64),
        classes=tuple(f"class_{number}" for number in range(n_classes)),
        exits=tuple(f"exit_{number:02d}" for number in range(1, n_exits + 1)),
        logits=logits,
        scales=SCALES[:n_exits],
        stage_macs=STAGE_MACS[:n_exits],
        rule=rule,
        has_policy=True,
        exit=left_at,
        label=label,
        invocations=tuple(int((left_at >= number).sum()) for number in range(1, n_exits + 1)),
    )


def random_simulation(seed, enabled=(True, True, True), score="logit_margin", skill=(0.3, 0.6, 0.9), n=40):
    """Return a simulation with few distinct scores, and thresholds at random."""
    rng = np.random.default_rng(seed)
    y = np.append(np.arange(3), rng.integers(3, size=n - 3))
    logits = rng.integers(-4, 5, (n, 3, 3))
    for place, share in enumerate(skill):
        right = rng.random(n) < share
        logits[right, place, y[right]] += 6
    thresholds = [
        int(t) if is_on else NEVER for t, is_on in zip(rng.integers(0, 12, 2), enabled[:2], strict=True)
    ]
    return simulation_of(logits.astype(np.int8), y, thresholds, enabled, score)


def cheapest_by_brute_force(simulation, quality) -> float:
    """Try every pair of thresholds of the exits that are on."""
    columns = [
        [*np.unique(simulation.scores[:, place]), NEVER] if simulation.rule.enabled[place] else [NEVER]
        for place in (0, 1)
    ]
    best, rows = inf, np.arange(len(simulation))
    for thresholds in product(*columns):
        left_at = decide(simulation.scores, thresholds)
        reached = balanced_accuracy(simulation.y, simulation.rule_labels[rows, left_at - 1])
        if reached >= quality - ROUNDING:
            best = min(best, float(simulation.exit_macs[left_at - 1].mean()))
    return best


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(True, True, True), (False, True, True), (True, False, True), (False, False, True)]),
    st.sampled_from(["logit_margin", "vote", "boosted"]),
    # A final exit that is worse than the first: policies stand above what the whole network reaches.
    st.sampled_from([(0.3, 0.6, 0.9), (0.8, 0.6, 0.3)]),
)
def test_hindsight_is_the_cheapest_that_is_as_good(seed, enabled, score, skill) -> None:
    simulation = random_simulation(seed, enabled, score, skill)
    gap = oracle_gap(simulation)
    assert gap is not None
    reached = simulation.policy_balanced_accuracy
    assert gap.hindsight_macs == pytest.approx(cheapest_by_brute_force(simulation, reached))
    assert gap.full_quality_macs == pytest.approx(
        cheapest_by_brute_force(simulation, simulation.balanced_accuracies[-1])
    )
    # What is reported of the thresholds is what they do.
    left_at = decide(simulation.scores, gap.hindsight_thresholds)
    label = simulation.rule_labels[np.arange(len(simulation)), left_at - 1]
    assert gap.hindsight_macs == pytest.approx(simulation.exit_macs[left_at - 1].mean())
    assert gap.hindsight_balanced_accuracy == pytest.approx(balanced_accuracy(simulation.y, label))
    assert gap.hindsight_balanced_accuracy >= reached - ROUNDING
    for threshold, is_on in zip(gap.hindsight_thresholds, enabled, strict=False):
        assert is_on or threshold == NEVER
    assert gap.calibration_part >= 0
    assert gap.calibration_part + gap.score_part == pytest.approx(gap.policy_macs - gap.oracle_macs)


def two_exits(
    right_margin: int, wrong_margin: int, threshold: int, final_is_right: bool = True
) -> Simulation:
    """Three of four windows are right at the first exit; the fourth is wrong, with another margin."""
    y = np.array([0, 1, 0, 1])
    logits = np.zeros((4, 2, 2), np.int8)
    for window, label in enumerate(y):
        logits[window, 0, label] = right_margin
        logits[window, 1, label] = 50
    logits[3, 0] = (wrong_margin, 0)
    if not final_is_right:
        logits[3, 1] = (50, 0)
    return simulation_of(logits, y, [threshold])


def test_strict_thresholds_are_calibrations_part() -> None:
    gap = oracle_gap(two_exits(right_margin=20, wrong_margin=5, threshold=30))
    assert gap == OracleGap(
        policy_macs=400.0,
        hindsight_macs=(3 * 100 + 400) / 4,
        hindsight_thresholds=(20,),
        hindsight_balanced_accuracy=1.0,
        full_quality_macs=175.0,
        oracle_macs=175.0,
    )
    assert (gap.calibration_part, gap.score_part) == (225.0, 0.0)
    assert gap.ratio == pytest.approx(400 / 175)
    assert gap.sentence == (
        "The policy computes 2.29 times the oracle's MACs (400 against 175). Calibration makes +225 of the "
        "gap, the score +0: thresholds set with hindsight are as good as the policy for 175, and as good as "
        "the final exit for 175."
    )
    assert gap.to_dict()["hindsight_thresholds"] == [20]
    assert gap.to_dict()["score_part"] == 0.0


def test_a_score_that_is_surest_where_it_is_wrong_is_the_scores_part() -> None:
    gap = oracle_gap(two_exits(right_margin=5, wrong_margin=20, threshold=30))
    assert gap is not None
    assert (gap.calibration_part, gap.score_part) == (0.0, 225.0)
    assert gap.hindsight_thresholds == (30,)


def test_the_scores_part_is_negative_where_no_exit_is_right() -> None:
    gap = oracle_gap(two_exits(right_margin=20, wrong_margin=20, threshold=30, final_is_right=False))
    assert gap is not None
    # The oracle runs the fourth window to the end for nothing.
    assert (gap.hindsight_macs, gap.oracle_macs, gap.score_part) == (100.0, 175.0, -75.0)
    assert gap.full_quality_macs == 100.0


def test_a_policy_at_its_best_has_no_calibration_part() -> None:
    simulation = two_exits(right_margin=20, wrong_margin=5, threshold=11)
    gap = oracle_gap(simulation)
    assert gap is not None
    assert (gap.calibration_part, gap.score_part) == (0.0, 0.0)
    # The policy's own thresholds, since none are cheaper.
    assert gap.hindsight_thresholds == simulation.thresholds_int


def test_there_is_no_gap_without_a_policy_or_with_one_exit() -> None:
    simulation = two_exits(right_margin=20, wrong_margin=5, threshold=30)
    assert oracle_gap(replace(simulation, has_policy=False)) is None
    assert oracle_gap(simulation_of(simulation.logits[:, :1], simulation.y, ())) is None
