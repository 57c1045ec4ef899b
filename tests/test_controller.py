"""The online budget controller: what it holds for any stream, its integers, and its two paths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.exits import (
    ALWAYS,
    NEVER,
    TABLE_COST,
    BudgetController,
    decide,
    float_looseness,
    threshold_family,
)

INT32 = range(-(1 << 31), 1 << 31)
COSTS = (63_360, 173_440, 755_072)
seeds = st.integers(0, 2**32 - 1)


def margins(rng, n, n_early=2, hard=0.5):
    """Scores of windows of which a share is hard: low at every early exit."""
    easy = rng.random(n) >= hard
    return np.where(easy[:, None], rng.integers(20, 90, (n, n_early)), rng.integers(0, 25, (n, n_early)))


def family_of(budget=150_000, **options):
    return threshold_family(margins(np.random.default_rng(0), 400), COSTS, budget, **options)


FAMILY = family_of()


class Watched(BudgetController):
    """A controller that asserts that its state stays in int32."""

    def __setattr__(self, name, value):
        if name == "debt":
            assert type(value) is int
            assert value in INT32
        super().__setattr__(name, value)


@st.composite
def controllers(draw):
    n_early = draw(st.integers(1, 4))
    steps = draw(st.lists(st.integers(1, 1000), min_size=n_early, max_size=n_early))
    costs = tuple(np.cumsum([draw(st.integers(100, 1000)), *steps]).tolist())
    budget = draw(st.integers(costs[0], costs[-1]))
    rng = np.random.default_rng(draw(seeds))
    n_rows = draw(st.sampled_from([3, 7, 21]))
    family = -np.sort(-rng.integers(0, 100, (n_rows, n_early)), axis=0)
    family[0], family[-1] = NEVER, ALWAYS
    return Watched(family, costs, budget, horizon=draw(st.integers(2000, 2500)), tolerance=0.05)


def played(controller, scores, spent=None):
    """Exits and costs by the path of one window."""
    controller.reset()
    exits, costs = [], []
    for number, row in enumerate(scores.tolist()):
        exit_ = int(decide(np.array([row]), controller.thresholds())[0])
        given_ = TABLE_COST if spent is None else int(spent[number])
        costs.append(controller.costs[exit_ - 1] if given_ == TABLE_COST else given_)
        controller.update(costs[-1])
        exits.append(exit_)
    return exits, costs


@settings(max_examples=20)
@given(controllers(), seeds, st.booleans())
def test_several_streams_at_once_equal_one_controller_each(controller, seed, interrupted):
    rng = np.random.default_rng(seed)
    n_early = len(controller.costs) - 1
    scores = np.stack([margins(rng, 180, n_early, hard) for hard in (0.0, 0.5, 1.0)])
    spent = None
    if interrupted:
        spent = rng.choice([TABLE_COST, 0, 3 * controller.costs[-1]], scores.shape[:2])
        # Pauses that reach the lowest debt, and a run of wild costs that reaches the highest.
        spent[0, :140], spent[1, :140] = 0, 60 * controller.costs[-1]
    together = controller.batch(scores, spent)
    for number, stream in enumerate(scores):
        exits, costs = played(controller, stream, None if spent is None else spent[number])
        assert together.exits[number].tolist() == exits
        assert together.spent[number].tolist() == costs


@settings(max_examples=25)
@given(controllers(), seeds)
def test_the_mean_cost_keeps_its_bound_after_every_window_of_any_stream(controller, seed):
    n, n_early = 400, len(controller.costs) - 1
    # Streams that do their worst: all hard, all easy, and changes from one to the other.
    change = np.random.default_rng(seed).integers(n)
    streams = np.zeros((3, n, n_early), np.int64)
    streams[1] = streams[2, change:] = 200
    spent = controller.batch(streams).spent
    windows = np.arange(1, n + 1)
    deviation = np.abs(np.cumsum(spent, axis=1) / windows - controller.budget)
    bounds = np.array([controller.deviation_bound(number) for number in windows.tolist()])
    assert (deviation <= bounds * (1 + 1e-12)).all()


@settings(max_examples=25)
@given(controllers(), seeds)
def test_any_stretch_later_on_keeps_twice_the_bound(controller, seed):
    rng = np.random.default_rng(seed)
    streams = np.repeat(rng.integers(0, 2, (2, 12, 1)) * 200, 40, axis=1)
    streams = np.repeat(streams, len(controller.costs) - 1, axis=2)
    over = np.cumsum(controller.batch(streams).spent - controller.budget, axis=1)
    reach = controller.highest - controller.lowest
    for length in (1, 40, 160, 400):
        assert np.abs(over[:, length:] - over[:, :-length]).max() <= reach


@given(controllers())
def test_the_bound_over_the_horizon_is_the_tolerance(controller):
    allowed = controller.tolerance * controller.budget
    bound = controller.deviation_bound(controller.horizon)
    assert bound <= allowed
    # And it is not bought by a needlessly high gain: one more unit of debt per row would exceed it.
    n_rows = len(controller.family)
    assert bound + (n_rows + 4) / controller.horizon > allowed


def test_a_day_of_drift_costs_the_budget_where_fixed_thresholds_do_not():
    rng = np.random.default_rng(1)
    budget, n, family = 150_000, 12_000, FAMILY
    controller = BudgetController(family, COSTS, budget, horizon=n)
    day = np.concatenate([margins(rng, n // 4, hard=hard) for hard in (0.1, 0.9, 0.6, 0.8)])
    spent = controller.batch(day[None]).spent[0]
    assert abs(spent.mean() / budget - 1) <= 0.05
    fixed = np.asarray(COSTS)[decide(day, family[len(family) // 2].tolist()) - 1]
    assert abs(fixed.mean() / budget - 1) > 0.05


@settings(max_examples=50)
@given(seeds, st.floats(0.05, 1.0))
def test_integers_follow_the_float_definition_within_a_unit_per_window(seed, unit):
    """Costs in a fine unit, rounded to a coarse one: the error bound that `float_looseness` states."""
    rng = np.random.default_rng(seed)
    true_costs = np.cumsum(rng.uniform(50, 500, 3)) * 100
    true_budget = rng.uniform(true_costs[0], true_costs[-1])
    unit *= true_costs[0] / 100
    whole = [round(cost / unit) for cost in true_costs]
    budget = min(max(round(true_budget / unit), whole[0]), whole[-1])
    family = FAMILY
    controller = Watched(family, whole, budget, horizon=4000, tolerance=0.3)
    span = len(family) * controller.step
    n = 300
    # A cost beyond the table now and then, so that the limits are met.
    truth = np.where(rng.random(n) < 0.02, 40 * true_costs[-1], true_costs[rng.integers(0, 3, n)])
    truth[n // 2 :] = 0
    expected = float_looseness(
        truth,
        true_budget,
        span=span * unit,
        start=controller.start * unit,
        lowest=true_costs[0] - true_budget,
        highest=span * unit + true_costs[-1] - true_budget,
    )
    for number, cost in enumerate(truth.tolist()):
        assert abs(controller.debt / span - expected[number]) <= (number + 1e-6) / span
        controller.update(round(cost / unit))


def test_a_pause_is_forgotten_and_a_wild_cost_does_not_overflow():
    controller = Watched(FAMILY, COSTS, 150_000, horizon=67_500)
    for _ in range(100_000):
        controller.update(0)
    assert controller.debt == controller.lowest
    assert controller.thresholds() == (NEVER, NEVER)
    for _ in range(3):
        controller.update((1 << 31) - 1)
    assert controller.debt == controller.highest
    assert controller.thresholds() == (ALWAYS, ALWAYS)
    # One cheap window after the other brings it back: no debt was wound up beyond the rows.
    for _ in range(10):
        controller.update(COSTS[0])
    assert controller.row == len(controller.family) - 1
    controller.reset()
    assert controller.row == len(controller.family) // 2


def test_no_intermediate_value_leaves_int32():
    """The largest numbers there are, at the longest horizon that is accepted."""
    budget, family = 150_000, FAMILY
    accepted = []
    for horizon in range(100_000, 200_000, 500):
        try:
            accepted.append(Watched(family, COSTS, budget, horizon=horizon))
        except InputError:
            break
    longest = accepted[-1]
    assert longest.horizon < 199_000
    for debt in (longest.lowest, 0, longest.highest):
        assert debt in INT32
        assert debt - budget in INT32
        assert longest.highest - (debt - budget) in INT32
    # And no range is given away: 500 windows more would not fit.
    assert longest.highest - longest.lowest + budget > 0.99 * (1 << 31)


@settings(max_examples=15)
@given(seeds, st.floats(0, 1), st.sampled_from([3, 31, 63]))
def test_the_family_is_monotone_from_never_to_always_with_the_budget_in_the_middle(seed, place, n_rows):
    scores = margins(np.random.default_rng(seed), 500)
    budget = COSTS[0] + place * (COSTS[-1] - COSTS[0])
    family = threshold_family(scores, COSTS, budget, n_rows=n_rows)
    assert family.shape == (n_rows, 2)
    assert (np.diff(family, axis=0) <= 0).all()
    assert family[0].tolist() == [NEVER, NEVER]
    assert family[-1].tolist() == [ALWAYS, ALWAYS]
    means = np.array([np.asarray(COSTS)[decide(scores, row) - 1].mean() for row in family.tolist()])
    assert (np.diff(means) <= 1e-6).all()
    # No cheaper than one step of the ladder of shares below the budget, ties aside.
    assert 0.85 * budget - 1 <= means[n_rows // 2] <= budget * (1 + 1e-9) or place < 0.02


def test_an_exit_that_is_off_stays_off_and_the_first_that_is_on_is_the_cheapest():
    family = family_of(budget=200_000, enabled=[False, True, True])
    assert (family[:, 0] == NEVER).all()
    assert family[-1].tolist() == [NEVER, ALWAYS]
    controller = BudgetController(family, COSTS, 200_000, horizon=20_000)
    exits = controller.batch(np.full((1, 2000, 2), 99)).exits
    assert set(exits.ravel().tolist()) <= {2, 3}
    with pytest.raises(InputError, match="173,440, the least possible"):
        BudgetController(family, COSTS, 100_000, horizon=20_000)
    with pytest.raises(InputError, match="173,440, the least possible"):
        family_of(budget=100_000, enabled=[False, True, True])


def made(**changed):
    arguments = {"family": FAMILY, "costs": COSTS, "budget": 150_000, "horizon": 67_500} | changed
    return BudgetController(**arguments)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"budget": 63_359}, r"`budget` must lie between .*63,360, the least possible.*Received: 63359"),
        ({"budget": 755_073}, r"`budget` must lie between .*755,072.*Received: 755073"),
        ({"family": FAMILY[::-1]}, "`family` must go from the strictest"),
        ({"family": [[5, 5], [4, 6]]}, r"never rise. Received: 5 and then 6 for exit_02, in rows 0 and 1"),
        ({"family": [[5], [4]]}, r"rows of 2 whole numbers"),
        ({"family": [[5.0, 5.0], [4.0, 4.0]]}, "whole numbers"),
        ({"costs": (3, 2, 1)}, "`costs` must be finite and ascend"),
        ({"costs": (0.5, 1.5, 2.5)}, r"`costs` must be whole numbers .*Received: 0\.5"),
        ({"costs": (1, 2, 1 << 31)}, "`costs` must be whole numbers from 0 to 2147483647"),
        ({"budget": 150_000.5}, "`budget` must be whole numbers"),
        ({"horizon": 0}, "`horizon` be at least 1"),
        ({"tolerance": 0.0}, "`tolerance` must lie between 0 and 1"),
        ({"horizon": 1_000_000}, "in a unit 8 times as large"),
    ],
)
def test_bad_input_is_refused(changed, message):
    with pytest.raises(InputError, match=message):
        made(**changed)


def test_a_horizon_too_short_is_told_the_least():
    with pytest.raises(InputError, match=r"`horizon` must be at least (\d+) windows") as caught:
        made(horizon=10)
    least = int(str(caught.value).split("at least ")[1].split()[0])
    assert made(horizon=least).step >= 1
    with pytest.raises(InputError, match="`horizon`"):
        made(horizon=least - 2)


def test_costs_in_a_larger_unit_as_told_are_accepted():
    with pytest.raises(InputError, match="times as large") as caught:
        made(horizon=1_000_000)
    factor = int(str(caught.value).split("in a unit ")[1].split()[0])
    assert made(horizon=1_000_000, costs=[cost // factor for cost in COSTS], budget=150_000 // factor)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scores": np.zeros((0, 2), np.int64)}, "at least one window"),
        ({"scores": np.zeros((5, 1), np.int64)}, "one column per early exit"),
        ({"n_rows": 4}, "`n_rows` must be odd"),
        ({"enabled": [False, False, True]}, "one of them true"),
        ({"budget": 10}, "the least possible"),
    ],
)
def test_a_family_that_cannot_be_made_is_refused(changed, message):
    arguments = {"scores": np.zeros((5, 2), np.int64), "costs": COSTS, "budget": 150_000} | changed
    with pytest.raises(InputError, match=message):
        threshold_family(**arguments)


def test_wrong_costs_and_shapes_at_run_time_are_refused():
    controller = made()
    with pytest.raises(InputError, match="`cost` must not be negative"):
        controller.update(-1)
    with pytest.raises(InputError, match=r"`scores` must be \(streams, n, 2\)"):
        controller.batch(np.zeros((5, 2), np.int64))
    with pytest.raises(InputError, match=r"`spent` must be \(1, 5\)"):
        controller.batch(np.zeros((1, 5, 2), np.int64), np.zeros((1, 4), np.int64))
