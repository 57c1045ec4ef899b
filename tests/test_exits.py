"""The exit rule, its scores as floats and integers, and figures of merit."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.exits import (
    balanced_accuracy,
    balanced_weights,
    decide,
    expected_calibration_error,
    oracle_exits,
    paired_drop_interval,
    passes,
    softmax,
)

Q15 = 1 << 15
LN2 = log(2)

seeds = st.integers(0, 2**32 - 1)
scales = st.floats(1e-3, 1.0)
int8 = st.integers(-128, 127)


# The rule


@pytest.mark.parametrize(
    ("scores", "thresholds", "exit_"),
    [
        ([5, 0], [5, 3], 1),  # at the threshold is enough
        ([4, 3], [5, 3], 2),
        ([4, 2], [5, 3], 3),  # the final exit takes the rest
        ([9, 9], [5, 3], 1),  # the first that passes, not the surest
        ([4, 9], [5, 3], 2),
        ([255, 255], [256, 256], 3),  # never
        ([0, 0], [0, 0], 1),
        ([-1, 0], [0, 0], 2),
        ([4, 2, 99], [5, 3], 3),  # the final exit's own score is not looked at
        ([4, 2, -99], [5, 3], 3),
        ([], [], 1),  # a single exit
        ([7], [], 1),
        ([0.25, 0.5], [0.25, 0.9], 1),
        ([np.nextafter(0.25, 0), 0.5], [0.25, 0.5], 2),
        ([float("nan"), 1.0], [0.0, 0.0], 2),  # what is no number is not sure
    ],
)
def test_the_rule_leaves_at_the_first_score_at_or_above_its_threshold(scores, thresholds, exit_):
    assert decide(np.asarray([scores]), thresholds).tolist() == [exit_]


@pytest.mark.parametrize(("score", "threshold", "leaves"), [(3, 3, True), (2, 3, False), (4, 3, True)])
def test_passes_includes_equality_for_one_and_for_many(score, threshold, leaves):
    assert passes(score, threshold) is leaves
    assert passes(np.array([score]), threshold).tolist() == [leaves]


@given(
    st.integers(0, 5).flatmap(
        lambda early: st.tuples(
            st.lists(st.integers(-2, 2), min_size=early, max_size=early),
            st.lists(st.lists(st.integers(-2, 2), min_size=early, max_size=early), max_size=8),
        )
    )
)
@settings(deadline=None, max_examples=100)
def test_decide_equals_a_slow_loop(case):
    thresholds, rows = case
    expected = []
    for row in rows:
        for number, (score, threshold) in enumerate(zip(row, thresholds, strict=True), start=1):
            if score >= threshold:
                expected.append(number)
                break
        else:
            expected.append(len(thresholds) + 1)
    scores = np.asarray(rows, np.int64).reshape(len(rows), len(thresholds))
    assert decide(scores, thresholds).tolist() == expected


@pytest.mark.parametrize(("shape", "n"), [((4, 3), 1), ((4, 1), 2), ((4,), 1), ((4, 2, 1), 2)])
def test_scores_and_thresholds_that_do_not_fit_are_refused(shape, n):
    with pytest.raises(InputError, match=rf"`thresholds`.*Received: {n} thresholds"):
        decide(np.zeros(shape), [0] * n)


# Figures of merit

labelled = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 4), min_size=n, max_size=n),
        st.lists(st.integers(0, 4), min_size=n, max_size=n),
    )
)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")
@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
@given(labelled)
@settings(deadline=None, max_examples=60)
def test_balanced_accuracy_is_that_of_scikit_learn(case):
    metrics = pytest.importorskip("sklearn.metrics")
    y, predicted = map(np.asarray, case)
    expected = metrics.balanced_accuracy_score(y, predicted)
    assert balanced_accuracy(y, predicted) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
@settings(deadline=None, max_examples=40)
def test_balanced_weights_give_every_class_the_same_total(labels):
    y = np.asarray(labels)
    weights = balanced_weights(y)
    assert weights.mean() == pytest.approx(1)
    totals = [weights[y == c].sum() for c in np.unique(y)]
    np.testing.assert_allclose(totals, len(y) / len(totals))


def test_softmax_is_stable_and_sums_to_one():
    p = softmax(np.array([[1000.0, 1000.0], [0.0, -2000.0], [0.0, log(3)]]))
    np.testing.assert_allclose(p, [[0.5, 0.5], [1, 0], [0.25, 0.75]])


def calibration_error_slowly(confidence, correct, bins) -> float:
    ordered = sorted(range(len(confidence)), key=lambda index: confidence[index])
    size, longer = divmod(len(ordered), bins)
    error, start = 0.0, 0
    for number in range(bins):
        members = ordered[start : start + size + (number < longer)]
        start += len(members)
        if members:
            gap = sum(confidence[i] for i in members) - sum(int(correct[i]) for i in members)
            error += abs(gap) / len(confidence)
    return error


@given(seed=seeds, n=st.integers(1, 80), bins=st.integers(1, 20))
@settings(deadline=None, max_examples=60)
def test_calibration_error_equals_a_slow_version(seed, n, bins):
    rng = np.random.default_rng(seed)
    confidence, correct = np.round(rng.random(n), 2), rng.random(n) < 0.7
    got = expected_calibration_error(confidence, correct, bins)
    assert got == pytest.approx(calibration_error_slowly(confidence, correct, bins), abs=1e-12)


def test_calibration_error_of_honest_and_of_boasting_confidence():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 40_000)
    correct = rng.random(40_000) < confidence
    assert expected_calibration_error(confidence, correct) < 0.02
    assert expected_calibration_error(np.full(1000, 0.9), np.arange(1000) % 2 == 0) == pytest.approx(0.4)


def drop_case(n_subjects: int, seed: int = 0, per_subject: int = 40):
    """Labels, predictions of the final exit and of the policy, and subjects, all subjects alike."""
    rng = np.random.default_rng(seed)
    n = n_subjects * per_subject
    y = rng.integers(3, size=n)
    reference = np.where(rng.random(n) < 0.95, y, (y + 1) % 3)
    predicted = np.where(rng.random(n) < 0.1, (reference + 1) % 3, reference)
    return y, reference, predicted, np.repeat(np.arange(n_subjects), per_subject)


def test_the_drop_interval_holds_the_drop_and_is_deterministic():
    y, reference, predicted, subject = drop_case(60)
    interval = paired_drop_interval(y, reference, predicted, subject)
    drop = balanced_accuracy(y, reference) - balanced_accuracy(y, predicted)
    assert interval.low < drop < interval.high
    assert interval.high - interval.low < 0.06
    assert interval.level == 0.95
    assert paired_drop_interval(y, reference, predicted, subject) == interval
    assert paired_drop_interval(y, reference, predicted, subject, seed=1) != interval
    narrow = paired_drop_interval(y, reference, predicted, subject, level=0.5)
    assert interval.low < narrow.low < narrow.high < interval.high


def test_the_drop_interval_is_as_wide_as_its_subjects_say():
    # One class: the drop is the mean over subjects, whose standard error is known.
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(50), 100)
    y = np.zeros(len(subject), np.int64)
    predicted = (rng.random(len(y)) < rng.uniform(0, 0.3, 50)[subject]).astype(np.int64)
    interval = paired_drop_interval(y, y, predicted, subject)
    standard_error = predicted.reshape(50, 100).mean(axis=1).std() / sqrt(50)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * standard_error, rel=0.08)


def test_equal_predictions_lose_exactly_nothing():
    y, reference, _, subject = drop_case(5)
    interval = paired_drop_interval(y, reference, reference, subject)
    assert (interval.low, interval.high) == (0.0, 0.0)


def test_the_drop_interval_draws_whole_subjects():
    # Ten copies of every window make no new subjects: the interval stays where it was.
    y, reference, predicted, subject = drop_case(12, per_subject=30)
    once = paired_drop_interval(y, reference, predicted, subject)
    tenfold = paired_drop_interval(*(np.repeat(values, 10) for values in (y, reference, predicted, subject)))
    assert tenfold.low == pytest.approx(once.low)
    assert tenfold.high == pytest.approx(once.high)
    # One subject says nothing about others.
    assert paired_drop_interval(y, reference, predicted, np.zeros_like(subject)) is None


def test_subjects_that_differ_widen_the_interval():
    y, reference, predicted, subject = drop_case(20)
    alike = paired_drop_interval(y, reference, predicted, subject)
    # The same number of losses, all with the first subjects.
    lossy = np.sort(predicted != reference)[::-1]
    crowded = paired_drop_interval(y, y, np.where(lossy, (y + 1) % 3, y), subject)
    assert crowded.high - crowded.low > 2 * (alike.high - alike.low)


def test_a_class_that_only_one_subject_has_may_be_missing_from_a_draw():
    y = np.array([0, 0, 1, 0, 0, 0])
    subject = np.array([1, 1, 1, 2, 2, 2])
    interval = paired_drop_interval(y, y, np.array([0, 0, 0, 0, 0, 0]), subject, draws=500)
    assert (interval.low, interval.high) == (0.0, 0.5)


def test_the_oracle_stops_at_the_first_correct_exit():
    y = np.array([1, 1, 1, 1])
    predicted = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    assert oracle_exits(y, predicted).tolist() == [1, 2, 3, 3]
