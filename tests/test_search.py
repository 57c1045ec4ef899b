"""Thresholds by search, by budget, and what calibration windows can support."""

from __future__ import annotations

from functools import cache
from itertools import pairwise, product
from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.exits import (
    NEVER,
    balanced_accuracy,
    budgeted_curve,
    clopper_pearson,
    decide,
    oracle_exits,
    search_thresholds,
    threshold_support,
    upper_bound_of_loss,
)
from mexit_edge.exits import grid as grid_module
from mexit_edge.exits import search as search_module
from mexit_edge.exits.support import MIN_WINDOWS

SLACK = 1e-9
seeds = st.integers(0, 2**32 - 1)


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


# Brute force: every combination, window by window


def outcome(problem, thresholds) -> dict[str, float]:
    """Cost, quality, drop and its upper bound; the bound counts what is lost and not what is gained."""
    scores, predicted, y, costs = problem
    n, n_exits = predicted.shape
    classes, counts = np.unique(y, return_counts=True)
    weight = {int(c): n / (len(classes) * int(k)) for c, k in zip(classes, counts, strict=True)}
    cost, right_weight, losses, to_the_end = 0.0, 0.0, [], True
    for window in range(n):
        early = [e for e in range(n_exits - 1) if scores[window, e] >= thresholds[e]]
        leaves = early[0] if early else n_exits - 1
        to_the_end &= leaves == n_exits - 1
        cost += costs[leaves]
        here, final = (bool(predicted[window, e] == y[window]) for e in (leaves, n_exits - 1))
        right_weight += weight[int(y[window])] * here
        losses.append(weight[int(y[window])] * (final - here))
    largest = max(weight.values())
    with_one_more = [*(max(loss, 0.0) for loss in losses), largest]
    mean = sum(with_one_more) / (n + 1)
    deviation = sqrt(max(0.0, sum(loss**2 for loss in with_one_more) / (n + 1) - mean**2))
    return {
        "cost": cost / n,
        "quality": right_weight / n,
        "drop": sum(losses) / n,
        "upper": 0.0 if to_the_end else mean + 1.2815515655446004 * deviation / sqrt(n + 1),
    }


def grid_of(scores, levels: int):
    return [search_module._candidates(column, levels).tolist() for column in scores.T]


def strictest_best(table, admissible, *objectives):
    """The best thresholds: the first objective, then the next, then strict before loose, exit by exit."""
    left = {key: value for key, value in table.items() if admissible(value)}
    for name, sign in objectives:
        best = min(sign * value[name] for value in left.values())
        left = {key: value for key, value in left.items() if sign * value[name] <= best + SLACK}
    return max(left)


@pytest.mark.parametrize("n_exits", [1, 2, 3, 4, 5])
def test_the_search_equals_brute_force_for_every_goal(n_exits):
    # 60 problems for each number of exits. Thresholds are compared, not only figures: so ties are, too.
    rng = np.random.default_rng(n_exits)
    used: set[bool] = set()
    for seed in range(60):
        n_scores, levels = (20, 6) if n_exits < 4 else (2, 3) if n_exits == 5 else (3, 4)
        problem = problem_of(seed, int(rng.integers(1, 14)), n_exits, n_scores)
        scores, predicted, y, costs = problem
        if seed % 4 == 0:  # equal costs: many combinations are equally good
            costs[:] = np.sort(rng.integers(1, 3, n_exits)).tolist()
        grid = grid_of(scores, levels)
        table = {one: outcome(problem, one) for one in product(*grid)}
        reached = balanced_accuracy(y, predicted[:, -1])
        max_drop, floor = rng.uniform(0, 0.6), rng.uniform(0, reached)
        budget = rng.uniform(costs[0], costs[-1] * 1.1)
        cost_first = (("cost", 1),)
        cases = [
            ({"max_drop": max_drop}, lambda o, m=max_drop: o["upper"] <= m, cost_first),
            ({"floor": floor}, lambda o, m=reached - floor: o["upper"] <= m, cost_first),
            # On the edge, where rounding decides: the floor is what one of the combinations reaches.
            *(
                ({"floor": at, "on_bound": False}, lambda o, at=at: o["quality"] >= at - SLACK, cost_first)
                for at in (floor, min(reached, table[next(iter(table))]["quality"]))
            ),
            *(
                (
                    {"budget": at},
                    lambda o, at=at: o["cost"] <= at + SLACK,
                    (("quality", -1), ("cost", 1)),
                )
                for at in (budget, costs[0], table[next(reversed(table))]["cost"])
            ),
        ]
        for goal, admissible, objectives in cases:
            found = search_thresholds(*problem, levels=levels, **goal)
            best = strictest_best(table, admissible, *objectives)
            assert found.thresholds == best, (seed, goal)
            expected = table[best]
            assert found.mean_cost == pytest.approx(expected["cost"])
            assert found.quality == pytest.approx(expected["quality"])
            assert found.drop == pytest.approx(expected["drop"], abs=1e-12)
            assert found.drop_upper == pytest.approx(expected["upper"], abs=1e-12)
            assert found.exact
            assert found.levels == tuple(map(len, grid))
            used |= {threshold == NEVER for threshold in found.thresholds}
    assert used == ({True, False} if n_exits > 1 else set())


@given(seed=seeds, n=st.integers(1, 200), n_scores=st.integers(1, 300), levels=st.integers(2, 64))
@settings(deadline=None, max_examples=60)
def test_a_grid_keeps_ties_together_and_spreads_windows_evenly(seed, n, n_scores, levels):
    column = np.random.default_rng(seed).integers(-n_scores, n_scores, n)
    grid = search_module._candidates(column, levels)
    distinct, counts = np.unique(column, return_counts=True)
    assert len(grid) <= levels
    assert (np.diff(grid) > 0).all()
    assert (grid[0], grid[-1]) == (column.min(), NEVER)
    assert set(grid[:-1].tolist()) <= set(distinct.tolist())
    if len(distinct) < levels:
        assert grid[:-1].tolist() == distinct.tolist()
    # Between two neighbours there is at most one quantile's worth of windows beside one group of ties.
    between = np.histogram(column, [*grid[:-1], column.max() + 1])[0]
    assert between.max() <= -(-n // (levels - 1)) + counts.max()


def test_levels_are_all_scores_where_they_fit():
    problem = problem_of(0, 4000, 3, 255)
    assert search_thresholds(*problem, 0.02).levels == tuple(len(np.unique(one)) + 1 for one in problem[0].T)
    assert max(search_thresholds(*problem, 0.02, levels=16).levels) <= 16


def test_more_levels_never_cost_more_where_they_hold_the_coarse_ones():
    # 2**k quantiles are among 2**(k + 1).
    problem = problem_of(3, 512, 3, 1000)
    costs = [search_thresholds(*problem, 0.1, levels=2**k + 1).mean_cost for k in range(1, 9)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < costs[0]


# What the goals mean


def test_a_problem_solved_by_hand():
    # Exit 1 is right for the 20 windows that it is sure of, wrong for the other 20; the final exit is right.
    y = np.arange(40) % 2
    sure = np.repeat([9, 1], 20)
    predicted = np.stack([np.where(sure == 9, y, 1 - y), y], axis=1)
    found = search_thresholds(sure[:, None], predicted, y, [1.0, 5.0], max_drop=0.1)
    assert found.thresholds == (9,)
    assert (found.mean_cost, found.quality, found.drop, found.levels) == (3.0, 1.0, 0.0, (3,))
    # Mean 1/41 of one loss added, variance 1/41 - 1/41^2.
    assert found.drop_upper == pytest.approx(1 / 41 + 1.28155 * sqrt((1 / 41 - 1 / 41**2) / 41), abs=1e-5)
    # A budget of 3 buys the same; with 2.99 some must leave that the exit gets wrong, so all do.
    assert search_thresholds(sure[:, None], predicted, y, [1.0, 5.0], budget=3.0).thresholds == (9,)
    assert search_thresholds(sure[:, None], predicted, y, [1.0, 5.0], budget=2.99).thresholds == (1,)


def test_with_a_limit_below_the_bound_everything_runs_to_the_end():
    y = np.arange(40) % 2
    found = search_thresholds(np.full((40, 1), 9), np.stack([y, y], axis=1), y, [1.0, 5.0], max_drop=0.01)
    assert found.thresholds == (NEVER,)
    assert (found.mean_cost, found.drop, found.drop_upper) == (5.0, 0.0, 0.0)


def test_gains_do_not_pay_for_losses():
    # Exit 1 gets 20 windows right that the final exit gets wrong, and 20 the other way round.
    y = np.zeros(200, np.int64)
    early, final = y.copy(), y.copy()
    early[:20], final[20:40] = 1, 1
    problem = (np.full((200, 1), 7), np.stack([early, final], axis=1), y, [1.0, 5.0])
    assert search_thresholds(*problem, max_drop=0.05).thresholds == (NEVER,)
    # Its drop is 0 and would be within the limit, its losses alone are 0.1.
    allowed = search_thresholds(*problem, max_drop=0.2)
    assert (allowed.thresholds, allowed.drop) == ((7,), 0.0)
    assert 0.1 < allowed.drop_upper < 0.2
    # In hindsight they do.
    assert search_thresholds(*problem, max_drop=0.0, on_bound=False).thresholds == (7,)


def test_a_policy_that_wins_has_a_negative_drop():
    y = np.zeros(200, np.int64)
    final = y.copy()
    final[:20] = 1
    problem = (np.full((200, 1), 7), np.stack([y, final], axis=1), y, [1.0, 5.0])
    found = search_thresholds(*problem, max_drop=0.05)
    assert (found.thresholds, found.quality) == ((7,), 1.0)
    assert found.drop == pytest.approx(-0.1)
    assert 0 < found.drop_upper < 0.05


def test_an_exit_that_loses_windows_is_not_used_even_where_the_budget_allows_all():
    y = np.zeros(10, np.int64)
    problem = (np.full((10, 1), 7), np.stack([y + 1, y], axis=1), y, [1.0, 5.0])
    assert search_thresholds(*problem, budget=5.0).thresholds == (NEVER,)
    # An exit as good as the final one is: of equal quality the cheaper.
    assert search_thresholds(problem[0], np.stack([y, y], axis=1), y, [1.0, 5.0], budget=9.0).mean_cost == 1


@given(seed=seeds, share=st.floats(0, 1), on_bound=st.booleans())
@settings(deadline=None, max_examples=30)
def test_a_floor_is_what_the_final_exit_may_lose(seed, share, on_bound):
    problem = problem_of(seed, 40, 3, 8)
    reached = balanced_accuracy(problem[2], problem[1][:, -1])
    floor = share * reached
    found = search_thresholds(*problem, floor=floor, on_bound=on_bound)
    assert found == search_thresholds(*problem, max_drop=reached - floor, on_bound=on_bound)
    assert found.quality >= floor - SLACK


@given(seed=seeds, tight=st.floats(0, 0.3), more=st.floats(0, 0.3))
@settings(deadline=None, max_examples=20)
def test_more_room_is_never_worse(seed, tight, more):
    problem = problem_of(seed, 30, 3, 6)
    costs = [search_thresholds(*problem, limit).mean_cost for limit in (tight, tight + more)]
    assert costs[1] <= costs[0] + SLACK
    span = problem[3][-1] - problem[3][0]
    found = [search_thresholds(*problem, budget=problem[3][0] + x * span) for x in (tight, tight + more)]
    assert found[1].quality >= found[0].quality - SLACK
    if found[1].drop >= 0:  # what the budget buys is no cheaper to have by asking for its quality
        back = search_thresholds(*problem, floor=found[1].quality, on_bound=False)
        assert back.mean_cost == pytest.approx(found[1].mean_cost)


def test_the_final_exits_own_scores_are_never_looked_at():
    scores, predicted, y, costs = problem_of(5, 50, 3, 9)
    whole = np.concatenate([scores, np.full((50, 1), 99)], axis=1)
    for goal in ({"max_drop": 0.2}, {"budget": costs[1]}):
        assert search_thresholds(whole, predicted, y, costs, **goal) == search_thresholds(
            scores, predicted, y, costs, **goal
        )


def test_a_single_exit_needs_no_threshold():
    one = (np.empty((4, 0), int), np.zeros((4, 1), int), np.zeros(4, int), [2.5])
    for goal in ({"max_drop": 0.0}, {"floor": 1.0}, {"budget": 2.5}):
        found = search_thresholds(*one, **goal)
        assert (found.thresholds, found.levels) == ((), ())
        assert (found.mean_cost, found.quality, found.exact) == (2.5, 1.0, True)


# More exits than can be tried


@pytest.mark.parametrize("n_exits", [6, 16])
def test_with_many_exits_the_search_says_that_it_is_not_exact_and_stays_within_its_limit(n_exits):
    problem = problem_of(1, 300, n_exits, 250)
    found = search_thresholds(*problem, 0.1)
    assert (found.exact, len(found.thresholds)) == (False, n_exits - 1)
    assert found.mean_cost < 0.7 * problem[3][-1]
    assert found.drop_upper <= 0.1 + SLACK
    # A budget buys more than shares of windows do, and no more than there is.
    curve = budgeted_curve(*problem)
    for point in curve[4::10]:
        spent = search_thresholds(*problem, budget=point.mean_cost)
        assert not spent.exact
        assert spent.mean_cost <= point.mean_cost + SLACK
        assert spent.quality >= point.quality
        assert (spent.quality, -spent.mean_cost) > (point.quality, -point.mean_cost)


@pytest.mark.parametrize("seed", range(6))
def test_two_thresholds_at_a_time_come_close_to_all_combinations(seed, monkeypatch):
    problem = problem_of(seed, 200, 5, 30)
    cheapest, dearest = problem[3][0], problem[3][-1]
    goals = ({"max_drop": 0.1}, {"budget": (cheapest + dearest) / 2})
    exact = [search_thresholds(*problem, levels=16, **goal) for goal in goals]
    monkeypatch.setattr(search_module, "MAX_EARLY_EXITS", 2)
    close = [search_thresholds(*problem, levels=16, **goal) for goal in goals]
    assert [one.exact for one in exact + close] == [True, True, False, False]
    saved = [dearest - found[0].mean_cost for found in (exact, close)]
    assert 0.9 * saved[0] <= saved[1] <= saved[0] + SLACK
    assert exact[1].quality - 0.015 <= close[1].quality <= exact[1].quality + SLACK


@pytest.mark.parametrize("cells", [1, 7, 40])
def test_a_table_made_in_parts_finds_the_same(cells, monkeypatch):
    for seed in range(5):
        problem = problem_of(seed, 40, 3, 9)
        if seed % 2:  # equal costs: ties between the parts
            problem[3][:] = [1.0, 1.0, 1.0]
        goals = ({"max_drop": 0.2}, {"budget": problem[3][1]})
        whole = [search_thresholds(*problem, **goal) for goal in goals]
        with monkeypatch.context() as patch:
            patch.setattr(grid_module, "MAX_TABLE", cells)
            assert [search_thresholds(*problem, **goal) for goal in goals] == whole


# What is refused


@pytest.mark.parametrize("name", ["max_drop", "floor"])
@pytest.mark.parametrize("share", [-0.01, 1.01, float("nan")])
def test_a_limit_that_is_no_share_is_refused(name, share):
    with pytest.raises(InputError, match=rf"`{name}` must be a share.*Received: {share}"):
        search_thresholds(*problem_of(0, 10, 3, 5), **{name: share})


@given(seeds)
@settings(max_examples=40)
def test_in_hindsight_a_floor_may_lie_above_the_final_exit(seed):
    scores, predicted, y, costs = problem_of(seed, 30, 3, 6)
    # The final exit becomes the worst: most combinations stand above it.
    predicted[:, -1] = (y + (np.arange(len(y)) % 3 > 0)) % 3
    qualities = {}
    for thresholds in product([*range(6), NEVER], repeat=2):
        left_at = decide(scores[:, :2], thresholds) - 1
        quality = balanced_accuracy(y, predicted[np.arange(len(y)), left_at])
        cost = float(np.asarray(costs)[left_at].mean())
        qualities[thresholds] = (quality, cost)
    floor = np.median([quality for quality, _ in qualities.values()])
    found = search_thresholds(scores, predicted, y, costs, floor=floor, on_bound=False)
    assert found.quality >= floor - SLACK
    assert found.mean_cost == pytest.approx(
        min(cost for quality, cost in qualities.values() if quality >= floor - SLACK)
    )
    with pytest.raises(InputError, match="`floor` must be a balanced accuracy that some thresholds reach"):
        search_thresholds(scores, predicted, y, costs, floor=1.0, on_bound=False)


def test_a_floor_above_what_the_final_exit_reaches_is_refused_with_what_it_reaches():
    scores, predicted, y, costs = problem_of(0, 40, 3, 5)
    reached = balanced_accuracy(y, predicted[:, -1])
    assert search_thresholds(scores, predicted, y, costs, floor=reached).quality >= reached - SLACK
    with pytest.raises(InputError, match=rf"`floor`.*reaches, {reached:.4f}\. Received: 0\.99"):
        search_thresholds(scores, predicted, y, costs, floor=0.99)


@pytest.mark.parametrize("below", [1e-6, 1.0, float("nan")])
def test_a_budget_below_the_cheapest_exit_is_refused_with_the_least_possible(below):
    problem = problem_of(0, 10, 3, 5)
    with pytest.raises(InputError, match=r"`budget` must be at least .*Received: .* Allow ") as refused:
        search_thresholds(*problem, budget=problem[3][0] - below)
    # What the error says is enough is enough.
    least = float(str(refused.value).split("Allow ")[1].split(" or")[0])
    assert search_thresholds(*problem, budget=least).mean_cost == pytest.approx(problem[3][0])


@pytest.mark.parametrize(
    ("goals", "received"),
    [
        ({}, "none of them"),
        ({"max_drop": 0.1, "budget": 9.0}, "max_drop, budget"),
        ({"max_drop": 0.1, "floor": 0.5, "budget": 9.0}, "max_drop, floor, budget"),
    ],
)
def test_none_or_several_goals_are_refused(goals, received):
    with pytest.raises(InputError, match=rf"`max_drop`, `floor` and `budget`.*Received: {received}\."):
        search_thresholds(*problem_of(0, 10, 3, 5), **goals)


@pytest.mark.parametrize(
    "costs", [[3.0, 2.0, 4.0], [1.0, 2.0, float("nan")], [1.0, 2.0, float("inf")], [1.0, 2.0]]
)
def test_costs_that_do_not_ascend_are_refused(costs):
    scores, predicted, y, _ = problem_of(0, 10, 3, 5)
    with pytest.raises(InputError, match=r"`costs`.*Received"):
        search_thresholds(scores, predicted, y, costs, 0.1)
    with pytest.raises(InputError, match=r"`costs`.*Received"):
        budgeted_curve(scores, predicted, y, costs)


@pytest.mark.parametrize("place", range(3))
def test_shapes_that_do_not_fit_are_refused(place):
    problem = list(problem_of(0, 10, 3, 5))
    problem[place] = problem[place][:-1]
    for call in (
        lambda: search_thresholds(*problem, 0.1),
        lambda: budgeted_curve(*problem),
        lambda: threshold_support((1, 1), *problem[:3]),
    ):
        with pytest.raises(InputError, match=r"`scores`.* must fit `predicted`.*Received"):
            call()


@pytest.mark.parametrize(
    ("scores", "predicted", "y"), [((0, 1), (0, 2), (0,)), ((4, 0), (4, 0), (4,)), ((4,), (4,), (4,))]
)
def test_no_windows_and_no_exits_give_no_thresholds(scores, predicted, y):
    arrays = [np.empty(shape, int) for shape in (scores, predicted, y)]
    with pytest.raises(InputError, match="must fit `predicted`"):
        search_thresholds(*arrays, [1.0, 2.0], 0.1)


@pytest.mark.parametrize(
    ("levels", "n_exits", "most"), [(1, 3, 4096), (65, 5, 64), (65, 7, 64), (257, 4, 256)]
)
def test_a_grid_too_fine_or_too_coarse_is_refused(levels, n_exits, most):
    with pytest.raises(InputError, match=rf"`levels`.*from 2 to {most}.*Received: {levels}"):
        search_thresholds(*problem_of(0, 10, n_exits, 5), 0.1, levels=levels)


# The upper bound


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


# The budgeted curve


def distinct_scores(seed: int, n: int, n_exits: int):
    """A problem without equal scores, in which every exit gets exactly its share."""
    _, predicted, y, costs = problem_of(seed, n, n_exits, 5)
    order = np.random.default_rng(seed).random((n, n_exits - 1)).argsort(axis=0)
    return order, predicted, y, costs


def test_a_budgeted_curve_by_hand():
    # p = 1 with three exits: a third each. The two surest leave at exit 1; of the rest, the two surest at 2.
    scores = np.array([[9, 0], [8, 0], [7, 3], [6, 5], [5, 4], [4, 9]])
    y = np.zeros(6, np.int64)
    predicted = np.zeros((6, 3), np.int64)
    predicted[5, 1] = 1
    point = budgeted_curve(scores, predicted, y, [1.0, 2.0, 4.0])[19]
    assert (point.p, point.thresholds) == (1.0, (8, 5))
    assert point.exit_shares == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert point.mean_cost == pytest.approx(14 / 6)
    assert point.quality == pytest.approx(5 / 6)
    # Equal scores leave together: three at exit 1, and of the other three again two.
    scores[2, 0] = 8
    point = budgeted_curve(scores, predicted, y, [1.0, 2.0, 4.0])[19]
    assert point.thresholds == (8, 5)
    assert point.exit_shares == pytest.approx((1 / 2, 1 / 3, 1 / 6))


def test_an_exit_whose_share_is_less_than_a_window_is_never_used():
    points = budgeted_curve(*distinct_scores(0, 10, 4))
    # p = 0.05: 9.5, 0.475, 0.02 and 0.001 of 10 windows.
    assert points[0].thresholds == (1, NEVER, NEVER)
    assert points[0].exit_shares == pytest.approx((0.9, 0, 0, 0.1))


@given(seed=seeds, n=st.integers(1, 120), n_exits=st.integers(1, 6))
@settings(deadline=None, max_examples=40)
def test_every_exit_gets_its_share_and_the_curve_ascends_in_cost(seed, n, n_exits):
    problem = distinct_scores(seed, n, n_exits)
    costs = problem[3]
    points = budgeted_curve(*problem)
    assert [point.p for point in points] == pytest.approx(np.arange(1, 40) / 20)
    for point in points:
        q = point.p ** np.arange(1, n_exits + 1)
        shares = np.floor(n * q / q.sum() + 1e-9)[:-1] / n
        assert point.exit_shares[:-1] == pytest.approx(shares.tolist())
        assert sum(point.exit_shares) == pytest.approx(1)
        assert point.mean_cost == pytest.approx(np.dot(point.exit_shares, costs))
    firsts = [point.exit_shares[0] for point in points]
    if n_exits > 1:
        assert firsts == sorted(firsts, reverse=True)
        thresholds = [point.thresholds[0] for point in points]
        assert thresholds == sorted(thresholds)
    # With whole windows the shares are off by less than one window per exit, and so is the cost.
    off = (n_exits - 1) * (costs[-1] - costs[0]) / n
    means = [point.mean_cost for point in points]
    assert all(later >= earlier - off - SLACK for earlier, later in pairwise(means))


@given(seed=seeds, n=st.integers(1, 60), n_exits=st.integers(2, 5), n_scores=st.integers(0, 4))
@settings(deadline=None, max_examples=30)
def test_equal_scores_never_give_early_exits_less_than_their_share(seed, n, n_exits, n_scores):
    problem = problem_of(seed, n, n_exits, n_scores)
    for point in budgeted_curve(*problem):
        q = point.p ** np.arange(1, n_exits + 1)
        floors = np.floor(n * q / q.sum() - 1e-9)[:-1]
        left = np.cumsum(np.asarray(point.exit_shares) * n)[:-1]
        assert (left >= np.minimum(np.cumsum(floors), n) - 1e-6).all()
        exits = decide(problem[0], point.thresholds)
        assert point.exit_shares == pytest.approx(np.bincount(exits, minlength=n_exits + 1)[1:] / n)


# Support


@cache
def at_most(events: int, n: int, p: float) -> float:
    return sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(events + 1))


@given(n=st.integers(1, 80), share=st.floats(0, 1), level=st.sampled_from([0.5, 0.9, 0.99]))
@settings(deadline=None, max_examples=50)
def test_the_ends_of_the_interval_are_where_the_tails_are_as_small_as_they_say(n, share, level):
    events = round(share * n)
    interval = clopper_pearson(events, n, level)
    assert interval.level == level
    assert interval.low <= events / n <= interval.high
    tail = (1 - level) / 2
    if events < n:
        assert at_most(events, n, interval.high) == pytest.approx(tail, abs=1e-6)
    else:
        assert interval.high == 1
    if events:
        assert 1 - at_most(events - 1, n, interval.low) == pytest.approx(tail, abs=1e-6)
    else:
        assert interval.low == 0


def test_the_interval_covers_at_least_as_often_as_it_says():
    n = 40
    intervals = [clopper_pearson(events, n, 0.9) for events in range(n + 1)]
    for p in np.linspace(0.01, 0.99, 25).tolist():
        covered = [
            comb(n, k) * p**k * (1 - p) ** (n - k) * (one.low <= p <= one.high)
            for k, one in enumerate(intervals)
        ]
        assert sum(covered) >= 0.9


def test_known_intervals():
    # Zero of n: 1 - 0.05 ** (1 / n). Ten of a hundred, 95 %: 0.0490 to 0.1762 (any table of the method).
    assert clopper_pearson(0, 30).high == pytest.approx(1 - 0.05 ** (1 / 30))
    interval = clopper_pearson(10, 100, 0.95)
    assert (interval.low, interval.high) == pytest.approx((0.0490, 0.1762), abs=1e-4)
    assert clopper_pearson(20_000, 100_000).high < 0.2025


@pytest.mark.parametrize(("events", "n", "level"), [(2, 1, 0.9), (-1, 5, 0.9), (0, 0, 0.9), (1, 5, 1.0)])
def test_an_interval_of_nothing_is_refused(events, n, level):
    with pytest.raises(InputError, match=r"`events`.*`n`.*`level`.*Received"):
        clopper_pearson(events, n, level)


def support_case(n: int, windows: int, losses: int, gains: int = 0):
    """``windows`` of n leave at exit 1: of these some are lost there, some won, and some wrong anyway."""
    y = np.zeros(n, np.int64)
    predicted = np.zeros((n, 2), np.int64)
    predicted[:losses, 0] = 1
    predicted[losses : losses + gains, 1] = 1
    predicted[losses + gains : losses + gains + 2] = 1
    return np.where(np.arange(n) < windows, 5, 1)[:, None], predicted, y


def test_support_counts_losses_where_windows_leave():
    (support,) = threshold_support((5,), *support_case(1000, 400, 3, gains=7), max_drop=0.01)
    assert (support.exit, support.threshold, support.windows, support.losses) == (1, 5, 400, 3)
    assert support.loss_rate == pytest.approx(3 / 400)
    assert support.interval == clopper_pearson(3, 400)
    assert support.drop_upper == pytest.approx(0.4 * support.interval.high)
    assert support.supported


def test_too_few_windows_support_nothing():
    (few,) = threshold_support((5,), *support_case(10_000, MIN_WINDOWS - 1, 0))
    assert not few.supported
    (enough,) = threshold_support((5,), *support_case(10_000, MIN_WINDOWS, 0))
    assert enough.supported
    # The number is the least that holds the loss rate below one in ten.
    assert enough.interval.high < 0.1 < few.interval.high


def test_a_loss_that_the_data_does_not_rule_out_is_not_supported():
    case = support_case(1000, 400, 3)
    (support,) = threshold_support((5,), *case, max_drop=0.005)
    assert support.losses / support.n_windows < 0.005 < support.drop_upper
    assert not support.supported
    assert support.drop_upper == pytest.approx(0.0077, abs=5e-5)
    assert threshold_support((5,), *case)[0].supported, "nothing is asked of the loss"


def test_an_exit_that_is_not_used_needs_no_support_and_one_that_nobody_reaches_has_none():
    scores, predicted, y, _ = problem_of(0, 50, 3, 9)
    unused, unreached = threshold_support((NEVER, 11), scores, predicted, y)
    assert unused.supported
    assert not unreached.supported
    assert (unreached.loss_rate, unreached.interval, unreached.drop_upper) == (None, None, None)


@given(seed=seeds, n=st.integers(1, 80), n_exits=st.integers(1, 5), data=st.data())
@settings(deadline=None, max_examples=30)
def test_losses_of_all_exits_are_the_losses_of_the_policy(seed, n, n_exits, data):
    scores, predicted, y, _ = problem_of(seed, n, n_exits, 6)
    thresholds = tuple(data.draw(st.integers(0, 7)) for _ in range(n_exits - 1))
    supports = threshold_support(thresholds, scores, predicted, y)
    exits = decide(scores, thresholds)
    decided = predicted[np.arange(n), exits - 1]
    assert sum(one.losses for one in supports) == ((decided != y) & (predicted[:, -1] == y)).sum()
    assert sum(one.windows for one in supports) == (exits < n_exits).sum()
