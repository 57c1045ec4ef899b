"""The exit rule, its scores as floats and integers, the search for thresholds, and figures of merit."""

from __future__ import annotations

from itertools import product
from math import log, sqrt
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.exits import (
    SCORES,
    balanced_accuracy,
    balanced_weights,
    decide,
    expected_calibration_error,
    float_score,
    make_score,
    oracle_exits,
    paired_drop_interval,
    passes,
    search_thresholds,
    softmax,
    upper_bound_of_loss,
)
from mexit_edge.exits import thresholds as thresholds_module

Q15 = 1 << 15
LN2 = log(2)
SOFTMAX_SCORES = sorted(set(SCORES) - {"logit_margin"})

seeds = st.integers(0, 2**32 - 1)
scales = st.floats(1e-3, 1.0)
int8 = st.integers(-128, 127)


@st.composite
def logits_batches(draw, max_windows=12):
    """(n, classes) int8 logits: uniform, or crowded so that many are equal, or at the ends of the range."""
    n, n_classes = draw(st.integers(1, max_windows)), draw(st.integers(2, 20))
    rng = np.random.default_rng(draw(seeds))
    low, high = draw(st.sampled_from([(-128, 127), (-2, 2), (120, 127), (-128, -120)]))
    logits = rng.integers(low, high + 1, (n, n_classes))
    if draw(st.booleans()):
        logits[:, rng.integers(n_classes)] = 127
    return logits.astype(np.int8)


def float_error_bound(name: str, n_classes: int) -> float:
    """Return how far an integer score may be from its definition.

    Every weight is rounded by at most half a step of Q15, and the sum of weights is at least 1: C/2 steps on
    the sum, half a step on the numerator, one for the division that rounds down. The entropy has the same on
    its second sum, up to four steps from the logarithm, and is divided by log C.
    """
    if name == "logit_margin":
        return 0.0
    steps = n_classes / 2 + 2
    if name == "entropy":
        steps = (n_classes + 4) / log(n_classes) + 2
    return steps / Q15


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


# Scores

TRUTH = [
    # scale ln 2: a difference of d halves the weight d times.
    # logits, logit_margin, max_prob, margin
    ([1, 0], 1, 2 * Q15 // 3, Q15 // 3),
    ([0, 1], 1, 2 * Q15 // 3, Q15 // 3),
    ([5, 5], 0, Q15 // 2, 0),
    ([-128, -128, -128, -128], 0, Q15 // 4, 0),
    ([7, 7, 6], 0, 2 * Q15 // 5, 0),
    ([3, 1, 1], 2, 2 * Q15 // 3, Q15 // 2),
    ([127, -128], 255, Q15, Q15),
    ([-128, 127, -128], 255, Q15, Q15),
]


@pytest.mark.parametrize(("logits", "logit_margin", "max_prob", "margin"), TRUTH)
def test_scores_computed_by_hand(logits, logit_margin, max_prob, margin):
    expected = {"logit_margin": logit_margin, "max_prob": max_prob, "margin": margin}
    for name, value in expected.items():
        score = make_score(name, LN2, len(logits))
        assert score.one(logits) == value, name
        assert score.batch(np.array([logits], np.int8)).tolist() == [value], name


@pytest.mark.parametrize(
    ("logits", "share_of_certainty"),
    [
        ([0, 0], 0.0),
        ([9, 9, 9, 9], 0.0),
        ([127, -128], 1.0),
        ([1, 0], 1 - (log(3) - 2 / 3 * LN2) / LN2),  # p = 2/3, 1/3
        ([1, 1, 0, 0], 1 - (log(6) - 2 / 3 * LN2) / log(4)),  # p = 1/3, 1/3, 1/6, 1/6
    ],
)
def test_entropy_computed_by_hand_is_high_where_the_exit_is_sure(logits, share_of_certainty):
    score = make_score("entropy", LN2, len(logits))
    assert score.to_float(score.one(logits)) == pytest.approx(share_of_certainty, abs=2**-13)
    assert float_score("entropy", LN2 * np.array([logits], float))[0] == pytest.approx(share_of_certainty)


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_score_ranks_sure_above_unsure(name):
    score = make_score(name, 0.05, 4)
    sure, unsure, none = score.one([100, 0, -20, 3]), score.one([20, 10, 5, 3]), score.one([7, 7, 7, 7])
    assert sure > unsure > none
    dequantized = 0.05 * np.array([[100, 0, -20, 3], [20, 10, 5, 3], [7, 7, 7, 7]])
    assert (np.diff(float_score(name, dequantized)) < 0).all()


@given(logits=logits_batches(), scale=scales)
@settings(deadline=None, max_examples=100)
def test_batch_equals_one_for_every_score(logits, scale):
    for name in SCORES:
        score = make_score(name, scale, logits.shape[1])
        batch = score.batch(logits)
        assert batch.dtype == np.int64
        assert batch.tolist() == [score.one(row) for row in logits.tolist()], name


@given(logits=logits_batches(), scale=scales, zero_point=int8)
@settings(deadline=None, max_examples=100)
def test_the_integer_score_is_close_to_its_definition(logits, scale, zero_point):
    dequantized = scale * (logits.astype(np.float64) - zero_point)
    for name in SCORES:
        score = make_score(name, scale, logits.shape[1])
        got = score.batch(logits) * score.unit
        # The float margin itself is a difference of rounded products.
        slack = 1e-9
        np.testing.assert_allclose(
            got,
            float_score(name, dequantized),
            rtol=0,
            atol=float_error_bound(name, logits.shape[1]) + slack,
            err_msg=name,
        )


@pytest.mark.parametrize("name", SOFTMAX_SCORES)
def test_up_to_ten_classes_a_softmax_score_is_within_two_to_the_minus_12(name):
    rng = np.random.default_rng(0)
    for n_classes, scale in product(range(2, 11), (0.003, 0.02, 0.08, 0.3)):
        logits = rng.integers(-128, 128, (500, n_classes)).astype(np.int8)
        score = make_score(name, scale, n_classes)
        error = score.batch(logits) * score.unit - float_score(name, scale * logits.astype(float))
        assert np.abs(error).max() <= 2**-12


@given(logits=st.lists(int8, min_size=2, max_size=12), scale=scales, seed=seeds)
@settings(deadline=None, max_examples=60)
def test_a_score_does_not_depend_on_the_order_of_classes(logits, scale, seed):
    shuffled = np.random.default_rng(seed).permutation(logits).tolist()
    for name in SCORES:
        score = make_score(name, scale, len(logits))
        assert score.one(shuffled) == score.one(logits), name


@given(logits=st.lists(st.integers(-128, 126), min_size=2, max_size=12), scale=scales)
@settings(deadline=None, max_examples=100)
def test_raising_the_largest_logit_never_makes_an_exit_less_sure(logits, scale):
    raised = list(logits)
    raised[logits.index(max(logits))] += 1
    for name in SCORES:
        score = make_score(name, scale, len(logits))
        # Only the entropy rounds two sums against each other.
        slack = 2 * float_error_bound(name, len(logits)) * Q15 if name == "entropy" else 0
        assert score.one(raised) >= score.one(logits) - slack, name


@given(logits=logits_batches(), scale=scales)
@settings(deadline=None, max_examples=60)
def test_integer_scores_stay_in_their_range(logits, scale):
    for name in SCORES:
        score = make_score(name, scale, logits.shape[1])
        low, high = (0, 255) if name == "logit_margin" else (0, Q15)
        if name == "entropy":
            low = -float_error_bound(name, logits.shape[1]) * Q15
        batch = score.batch(logits)
        assert batch.min() >= low, name
        assert batch.max() <= high, name


@given(name=st.sampled_from(sorted(SCORES)), scale=scales, k=st.integers(0, Q15 + 1))
@settings(deadline=None, max_examples=150)
def test_an_integer_threshold_survives_the_way_over_its_float(name, scale, k):
    score = make_score(name, scale, 4)
    assert score.to_integer(score.to_float(k)) == k


@given(name=st.sampled_from(sorted(SCORES)), scale=scales, steps=st.floats(0, 300))
@settings(deadline=None, max_examples=150)
def test_to_integer_is_the_ceiling(name, scale, steps):
    score = make_score(name, scale, 4)
    threshold = steps * score.unit
    k = score.to_integer(threshold)
    assert score.to_float(k) >= threshold - 2e-6 * score.unit
    assert score.to_float(k - 1) < threshold


@pytest.mark.parametrize(
    ("threshold", "k"), [(0.0, 0), (0.1, 1), (0.11, 2), (0.19, 2), (0.3, 3), (0.7, 7), (-0.05, 0)]
)
def test_to_integer_on_a_grid_that_floats_cannot_hold(threshold, k):
    assert make_score("logit_margin", 0.1, 3).to_integer(threshold) == k


def test_an_unknown_score_lists_the_known_ones():
    for make in (lambda: make_score("entropi", 0.1, 3), lambda: float_score("entropi", np.zeros((1, 3)))):
        with pytest.raises(
            InputError, match=r"entropy, logit_margin, margin, max_prob.*Did you mean 'entropy'"
        ):
            make()


@pytest.mark.parametrize(
    ("scale", "n_classes"), [(0, 3), (-1, 3), (float("nan"), 3), (float("inf"), 3), (1, 1)]
)
def test_a_score_without_scale_or_classes_is_refused(scale, n_classes):
    for name in SCORES:
        with pytest.raises(InputError, match=r"`scale`.*`n_classes`.*Received"):
            make_score(name, scale, n_classes)


# The search for thresholds


def outcome(problem, thresholds) -> tuple[float, float, float, bool]:
    """Return mean cost, drop, its upper bound and whether all run to the end, window by window.

    The bound counts what is lost and not what is gained.
    """
    scores, predicted, y, costs = problem
    n, n_exits = predicted.shape
    classes, counts = np.unique(y, return_counts=True)
    weight = {int(c): n / (len(classes) * int(k)) for c, k in zip(classes, counts, strict=True)}
    cost, losses, to_the_end = 0.0, [], True
    for window in range(n):
        early = [e for e in range(n_exits - 1) if scores[window, e] >= thresholds[e]]
        leaves = early[0] if early else n_exits - 1
        to_the_end &= leaves == n_exits - 1
        cost += costs[leaves]
        right = [predicted[window, e] == y[window] for e in (leaves, n_exits - 1)]
        losses.append(weight[int(y[window])] * (int(right[1]) - int(right[0])))
    largest = max(weight.values())
    with_one_more = [*(max(loss, 0.0) for loss in losses), largest]
    mean = sum(with_one_more) / (n + 1)
    deviation = sqrt(max(0.0, sum(loss**2 for loss in with_one_more) / (n + 1) - mean**2))
    upper = mean + 1.2815515655446004 * deviation / sqrt(n + 1)
    return cost / n, sum(losses) / n, upper, to_the_end


def brute_force(problem, max_drop) -> float:
    """Return the least mean cost of all thresholds within the limit."""
    scores = problem[0]
    candidates = [[*np.unique(column), column.max() + 1] for column in scores.T]
    best = np.inf
    for thresholds in product(*candidates):
        cost, _, upper, to_the_end = outcome(problem, thresholds)
        if to_the_end or upper <= max_drop:
            best = min(best, cost)
    return best


def problem_of(seed: int, n: int, n_exits: int, n_scores: int, n_classes: int = 3):
    """A random problem in which later exits are better and sure exits are more often right."""
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    hardness = rng.random(n)
    right = hardness[:, None] < np.linspace(0.6, 0.95, n_exits) + rng.normal(0, 0.1, (n, n_exits))
    wrong = (y[:, None] + rng.integers(1, n_classes, (n, n_exits))) % n_classes
    predicted = np.where(right, y[:, None], wrong)
    scores = np.clip((1 - hardness[:, None] + rng.normal(0, 0.2, (n, n_exits - 1))) * n_scores, 0, n_scores)
    costs = np.cumsum(rng.uniform(0.5, 2, n_exits)).tolist()
    return scores.astype(np.int64), predicted, y, costs


def check_against_brute_force(problem, max_drop):
    found = search_thresholds(*problem, max_drop)
    cost, drop, upper, to_the_end = outcome(problem, found.thresholds)
    assert found.exact
    assert found.mean_cost == pytest.approx(cost)
    assert found.drop == pytest.approx(drop, abs=1e-12)
    assert found.drop_upper == pytest.approx(0.0 if to_the_end else upper, abs=1e-12)
    assert found.drop <= found.drop_upper + 1e-12
    assert to_the_end or found.drop_upper <= max_drop + 1e-12
    # A bound that equals the limit may fall on either side by rounding.
    slack = 1e-9
    assert brute_force(problem, max_drop + slack) - slack <= found.mean_cost
    assert found.mean_cost <= brute_force(problem, max_drop - slack) + slack


@given(seed=seeds, n=st.integers(1, 25), max_drop=st.floats(0, 0.5))
@settings(deadline=None, max_examples=40)
def test_the_search_equals_brute_force_for_three_exits(seed, n, max_drop):
    check_against_brute_force(problem_of(seed, n, 3, 5), max_drop)


@given(seed=seeds, n=st.integers(1, 40), max_drop=st.floats(0, 0.5))
@settings(deadline=None, max_examples=30)
def test_the_search_equals_brute_force_for_two_exits(seed, n, max_drop):
    check_against_brute_force(problem_of(seed, n, 2, 9), max_drop)


@given(seed=seeds, n=st.integers(1, 12), max_drop=st.floats(0, 0.6))
@settings(deadline=None, max_examples=12)
def test_the_search_equals_brute_force_for_four_exits(seed, n, max_drop):
    check_against_brute_force(problem_of(seed, n, 4, 3), max_drop)


def test_the_problems_of_these_tests_have_answers_on_both_sides_and_between():
    shares = set()
    for seed in range(60):
        problem = problem_of(seed, 25, 3, 5)
        exits = decide(problem[0], search_thresholds(*problem, 0.2).thresholds)
        shares.add("none" if (exits == 3).all() else "all" if (exits < 3).all() else "some")
        shares |= {f"exit {exit_}" for exit_ in np.unique(exits)}
    assert shares >= {"none", "some", "exit 1", "exit 2", "exit 3"}


def test_a_problem_solved_by_hand():
    # Exit 1 is right for the 20 windows that it is sure of, wrong for the other 20; the final exit is right.
    y = np.arange(40) % 2
    sure = np.repeat([9, 1], 20)
    predicted = np.stack([np.where(sure == 9, y, 1 - y), y], axis=1)
    found = search_thresholds(sure[:, None], predicted, y, [1.0, 5.0], max_drop=0.1)
    assert found.thresholds == (9,)
    assert found.mean_cost == 3.0
    assert found.drop == 0.0
    # Mean 1/41 of one loss added, variance 1/41 - 1/41^2.
    assert found.drop_upper == pytest.approx(1 / 41 + 1.28155 * sqrt((1 / 41 - 1 / 41**2) / 41), abs=1e-5)


def test_with_a_limit_below_the_bound_everything_runs_to_the_end():
    y = np.arange(40) % 2
    found = search_thresholds(np.full((40, 1), 9), np.stack([y, y], axis=1), y, [1.0, 5.0], max_drop=0.01)
    assert found.thresholds == (10,)
    assert (found.mean_cost, found.drop, found.drop_upper) == (5.0, 0.0, 0.0)


def test_gains_do_not_pay_for_losses():
    # Exit 1 gets 20 windows right that the final exit gets wrong, and 20 the other way round.
    y = np.zeros(200, np.int64)
    early, final = y.copy(), y.copy()
    early[:20], final[20:40] = 1, 1
    predicted = np.stack([early, final], axis=1)
    found = search_thresholds(np.full((200, 1), 7), predicted, y, [1.0, 5.0], max_drop=0.05)
    assert found.thresholds == (8,)
    # Its drop is 0 and would be within the limit, its losses alone are 0.1.
    allowed = search_thresholds(np.full((200, 1), 7), predicted, y, [1.0, 5.0], max_drop=0.2)
    assert (allowed.thresholds, allowed.drop) == ((7,), 0.0)
    assert 0.1 < allowed.drop_upper < 0.2


def test_a_policy_that_wins_has_a_negative_drop():
    y = np.zeros(200, np.int64)
    final = y.copy()
    final[:20] = 1
    found = search_thresholds(
        np.full((200, 1), 7), np.stack([y, final], axis=1), y, [1.0, 5.0], max_drop=0.05
    )
    assert found.thresholds == (7,)
    assert found.drop == pytest.approx(-0.1)
    assert 0 < found.drop_upper < 0.05


def test_a_single_exit_needs_no_threshold():
    found = search_thresholds(np.empty((4, 0), int), np.zeros((4, 1), int), np.zeros(4, int), [2.5], 0.0)
    assert found.thresholds == ()
    assert (found.mean_cost, found.exact) == (2.5, True)


@pytest.mark.parametrize("seed", range(5))
def test_a_search_that_is_not_exact_says_so_and_is_never_worse_than_running_to_the_end(seed, monkeypatch):
    monkeypatch.setattr(thresholds_module, "MAX_PREFIXES", 500)
    problem = problem_of(seed, 150, 5, 1000)
    found = search_thresholds(*problem, 0.1)
    assert not found.exact
    cost, _, upper, to_the_end = outcome(problem, found.thresholds)
    assert found.mean_cost == pytest.approx(cost)
    assert found.mean_cost < problem[3][-1], "each of these cases has something to find"
    assert not to_the_end
    assert upper <= 0.1 + 1e-12


@pytest.mark.parametrize("seed", range(6))
def test_one_threshold_at_a_time_comes_close_to_all_combinations(seed, monkeypatch):
    problem = problem_of(seed, 200, 4, 30)
    exact = search_thresholds(*problem, 0.1)
    monkeypatch.setattr(thresholds_module, "MAX_PREFIXES", 0)
    close = search_thresholds(*problem, 0.1)
    assert (exact.exact, close.exact) == (True, False)
    saved = [problem[3][-1] - found.mean_cost for found in (exact, close)]
    assert 0.9 * saved[0] <= saved[1] <= saved[0] + 1e-12


@pytest.mark.parametrize("n_exits", [9, 16])
def test_many_exits_are_searched_in_seconds(n_exits):
    problem = problem_of(1, 300, n_exits, 250)
    begun = process_time()
    found = search_thresholds(*problem, 0.1)
    # Trying combinations of nine exits would take more than an hour.
    assert process_time() - begun < 20
    assert not found.exact
    assert len(found.thresholds) == n_exits - 1
    assert found.mean_cost < problem[3][-1]
    assert found.drop_upper <= 0.1 + 1e-12


@given(seed=seeds, n=st.integers(1, 30), early=st.integers(0, 2), limit=st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_the_sweep_costs_what_the_rule_does(seed, n, early, limit):
    # `_sweep` restates the rule in sorted sums: this holds it to `decide`, at every threshold of an exit.
    scores, _, _, costs = problem_of(seed, n, 4, 5)
    rng = np.random.default_rng(seed)
    costs = np.asarray(costs)
    loss = np.append(rng.random((n, 3)) * (rng.random((n, 3)) < 0.3), np.zeros((n, 1)), axis=1)
    candidates = [np.append(np.unique(column), column.max() + 1) for column in scores.T]
    thresholds = [int(rng.choice(one)) for one in candidates]
    best = (1e9, tuple(thresholds))
    search = thresholds_module._Search(scores, loss, costs, 1.0, 1.0, candidates, best)
    improved = search._improve(early, limit)

    def cost_of(threshold: int) -> float:
        exits = decide(scores, [*thresholds[:early], threshold, *thresholds[early + 1 :]]) - 1
        losses = loss[np.arange(n), exits]
        upper = upper_bound_of_loss(losses.sum(), (losses**2).sum(), n, 1.0)
        return float(costs[exits].mean()) if upper <= limit else np.inf

    least = min(map(cost_of, candidates[early].tolist()))
    assert improved == np.isfinite(least)
    if improved:
        assert search.best[0] == pytest.approx(least)
        assert cost_of(search.best[1][early]) == pytest.approx(least)


def test_a_search_over_a_thousand_scores_is_exact_for_three_exits():
    found = search_thresholds(*problem_of(0, 400, 3, 1000), 0.08)
    assert found.exact
    assert found.mean_cost < problem_of(0, 400, 3, 1000)[3][-1], "the case must have something to find"


@given(seed=seeds, tight=st.floats(0, 0.3), more=st.floats(0, 0.3))
@settings(deadline=None, max_examples=30)
def test_a_looser_limit_never_costs_more(seed, tight, more):
    problem = problem_of(seed, 30, 3, 6)
    costs = [search_thresholds(*problem, limit).mean_cost for limit in (tight, tight + more)]
    assert costs[1] <= costs[0] + 1e-12


@pytest.mark.parametrize("max_drop", [-0.01, 1.01, float("nan")])
def test_a_limit_that_is_no_share_is_refused(max_drop):
    with pytest.raises(InputError, match=r"`max_drop`.*Received"):
        search_thresholds(*problem_of(0, 10, 3, 5), max_drop)


@pytest.mark.parametrize("costs", [[3.0, 2.0, 4.0], [1.0, 2.0, float("nan")], [1.0, 2.0, float("inf")]])
def test_costs_that_do_not_ascend_are_refused(costs):
    scores, predicted, y, _ = problem_of(0, 10, 3, 5)
    with pytest.raises(InputError, match=r"`costs`.*Received"):
        search_thresholds(scores, predicted, y, costs, 0.1)


@pytest.mark.parametrize("place", range(4))
def test_shapes_that_do_not_fit_are_refused(place):
    problem = list(problem_of(0, 10, 3, 5))
    problem[place] = problem[place][:-1]
    with pytest.raises(InputError, match="`scores`, `y` and `costs` must fit `predicted`"):
        search_thresholds(*problem, 0.1)


def test_no_windows_give_no_thresholds():
    with pytest.raises(InputError, match="must fit `predicted`"):
        search_thresholds(np.empty((0, 1), int), np.empty((0, 2), int), np.empty(0, int), [1, 2], 0.1)


@given(losses=st.lists(st.floats(-1, 1), min_size=1, max_size=50))
@settings(deadline=None, max_examples=100)
def test_the_upper_bound_is_never_below_the_mean_loss_and_never_zero(losses):
    values = np.asarray(losses)
    upper = float(upper_bound_of_loss(values.sum(), (values**2).sum(), len(values), 1.0))
    assert upper >= values.mean() - 1e-12
    assert float(upper_bound_of_loss(0.0, 0.0, len(values), 1.0)) > 0


def test_the_upper_bound_covers_the_true_loss_about_nine_times_in_ten():
    rng = np.random.default_rng(0)
    losses = rng.choice([1.0, 0.0, -1.0], p=[0.06, 0.92, 0.02], size=(2000, 400))
    upper = upper_bound_of_loss(losses.sum(axis=1), (losses**2).sum(axis=1), 400, 1.0)
    assert 0.88 <= np.mean(upper >= 0.04) <= 0.97


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


@given(seed=seeds)
@settings(deadline=None, max_examples=20)
def test_no_thresholds_beat_the_oracle(seed):
    scores, predicted, y, costs = problem_of(seed, 30, 3, 6)
    exits = oracle_exits(y, predicted)
    correct = predicted[np.arange(30), exits - 1] == y
    for thresholds in product(range(7), repeat=2):
        chosen = decide(scores, thresholds)
        right = predicted[np.arange(30), chosen - 1] == y
        assert not (right & ~correct).any()
        cheaper = np.asarray(costs)[chosen - 1] < np.asarray(costs)[exits - 1]
        assert not (cheaper & right).any()


def test_the_table_of_scores_is_filled_by_their_own_names():
    assert all(kind.name == name for name, kind in SCORES.items())
