"""Hold a mean cost per window at run time, whatever the stream does.

Thresholds set once hold a mean cost only while windows come as they did at calibration. The controller keeps
a debt instead, the cost spent so far beyond the budget, and loosens all thresholds together as it grows: a
running quantile tracked by online gradient descent on the pinball loss, whose long-run error is bounded for
any stream (Gibbs and Candes, arXiv 2106.00170; Angelopoulos, Candes and Tibshirani, arXiv 2307.16895).

    looseness(t + 1) = looseness(t) + gain * (cost(t) - budget)

Here looseness is debt / span, with gain = 1 / span. The debt is an integer in the unit of the costs, so the
controller adds and compares int32 and divides once; nothing is rounded as it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError, in_digits
from mexit_edge.exits.budgeted import budgeted_thresholds
from mexit_edge.exits.rule import NEVER, decide
from mexit_edge.exits.search import checked_costs

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

INT32_MAX = (1 << 31) - 1
ALWAYS = -(1 << 31)  # a threshold that no integer score is below
TABLE_COST = -1  # in `spent`: the window cost what its exit costs
N_ROWS = 63
# Ratios between the shares of an exit and of the one before it: 1/64 to 64, in steps of about 5 %.
_RATIOS = tuple(Fraction(round(4096 * 2 ** (step / 14)), 4096) for step in range(-84, 85))


def threshold_family(
    scores: NDArray[Any],
    costs: Sequence[float],
    budget: float,
    *,
    enabled: Sequence[bool] | None = None,
    n_rows: int = N_ROWS,
) -> Integers:
    """Return threshold vectors from the strictest to the loosest, the middle one made for the budget.

    Every vector lets each exit take its share of calibration windows, the surest first, with shares p, p^2,
    ... (`budgeted_curve`). Rows lie close together around the budget and far apart at the ends, where all
    windows run to the end and where all leave at the first exit. Labels are not looked at. Of four ways to
    make a family, on days of held-out calibration and validation subjects of HAPT, this one lost least
    against hindsight: .6 points of balanced accuracy, one common threshold or quantile .9, thresholds
    searched on labels 1.2 (benchmarks/results/online_budget_families.csv) **[ours]**.

    Args:
        scores: (n, E - 1) or (n, E) integer scores of calibration windows.
        costs: cost of a window that leaves at each exit, E values in ascending order.
        budget: mean cost per window to hold, in the unit of the costs.
        enabled: (E,) or (E - 1,) whether each exit is switched on; one that is off has `NEVER` in every row.
        n_rows: how many vectors, an odd number.

    Returns:
        (n_rows, E - 1) integer thresholds that never rise from row to row.

    Raises:
        InputError: there are no windows, costs do not ascend, their number is wrong, or the budget is out of
            reach.
    """
    n_early = len(costs) - 1
    prices = checked_costs(costs, n_early + 1)
    if scores.ndim != 2 or not len(scores) or scores.shape[1] not in (n_early, n_early + 1) or not n_early:
        raise InputError(
            f"`scores` must be (n, {n_early}), one column per early exit, with at least one window. "
            f"Received: shape {scores.shape} for {n_early + 1} costs."
        )
    if n_rows < 3 or n_rows % 2 == 0:
        raise InputError(f"`n_rows` must be odd and at least 3. Received: {n_rows}. The default is {N_ROWS}.")
    on = np.ones(n_early, bool) if enabled is None else np.asarray(enabled, bool)[:n_early]
    if len(on) != n_early or not on.any():
        raise InputError(
            f"`enabled` needs one value per early exit ({n_early}), one of them true. Received: {enabled}."
        )
    cheapest, dearest = float(prices[:-1][on].min()), float(prices[-1])
    _check_budget(budget, cheapest, dearest)
    early = scores[:, :n_early][:, on]
    ladder = np.asarray([budgeted_thresholds(early, ratio) for ratio in _RATIOS], np.int64)
    paid = prices[np.append(np.flatnonzero(on), n_early)]
    mean_costs = np.maximum.accumulate([paid[decide(early, row) - 1].mean() for row in ladder])
    # Squared distance from the middle: flat where the budget is, steep where the debt nears its limits.
    place = np.linspace(1, -1, n_rows)
    ends = np.where(place > 0, dearest / budget, cheapest / budget)
    wanted = budget * ends ** (place**2)
    chosen = np.searchsorted(mean_costs, wanted * (1 + 1e-12), side="right") - 1
    family = np.full((n_rows, n_early), NEVER, np.int64)
    family[:, on] = ladder[np.maximum(chosen, 0)]
    family[0, on], family[-1, on] = NEVER, ALWAYS
    return np.minimum.accumulate(family, axis=0)


@dataclass(frozen=True)
class ControlledStreams:
    """What the controller did on several streams.

    Args:
        exits: (streams, n) exit from 1 to E at which each window left, or would have left.
        rows: (streams, n) row of the family that decided it.
        spent: (streams, n) cost of each window.
    """

    exits: Integers
    rows: Integers
    spent: Integers


class BudgetController:
    """Thresholds for the next window, such that windows cost the budget on average.

    Where the family runs from `NEVER` to `ALWAYS`, as `threshold_family` makes it, and windows cost what
    their exits cost, the debt stays within its limits by itself, for every stream: after the first T
    windows the mean cost is within `deviation_bound(T)` of the budget, and within tolerance * budget from
    `horizon` windows on. Of any T windows later on, which may begin with the debt at one limit and end with
    it at the other, it is within twice that: (highest - lowest) / T. The lower the number of windows over
    which the budget holds, the harder it pulls, and the more an hour of hard windows is paid for at once:
    make `horizon` as long as the battery allows. Costs that are no exit's (skipped windows, a brown-out
    resumed) may push the debt beyond its limits; what is beyond is forgotten, so that a pause is not made
    up for by waste.

    Args:
        family: (L, E - 1) integer thresholds, from the strictest to the loosest.
        costs: whole numbers that fit int32, cost of a window that leaves at each exit, E values in ascending
            order: nJ, us, or MACs.
        budget: mean cost per window to hold, a whole number in the unit of the costs.
        horizon: number of windows over which the budget is to hold.
        tolerance: allowed deviation of the mean cost over the horizon, as a share of the budget.

    Attributes:
        debt: the state, an int32: cost spent beyond the budget, on top of what it started from.
        step: how much more debt makes thresholds looser by one row; the gain is 1 / step.
        start: the debt to start from, the middle of the family.
        lowest: limit of the debt.
        highest: limit of the debt.

    Raises:
        InputError: the family is not monotone or has another number of exits, costs do not ascend or are no
            whole numbers, the budget is below the cheapest exit or above the dearest, the horizon is too
            short for the tolerance, or the debt would not fit int32.
    """

    def __init__(
        self,
        family: Sequence[Sequence[int]] | Integers,
        costs: Sequence[int],
        budget: int,
        *,
        horizon: int,
        tolerance: float = 0.05,
    ) -> None:
        self.costs = tuple(_whole("costs", cost) for cost in costs)
        checked_costs(self.costs, len(self.costs))
        self.family = _checked_family(family, len(self.costs))
        self.budget = _whole("budget", budget)
        self.horizon = _whole("horizon", horizon)
        self.tolerance = tolerance
        # The cheapest exit is the first that is ever left at: one that is off says `NEVER` in every row.
        cheapest, dearest = self.costs[_first_open(self.family[-1])], self.costs[-1]
        _check_budget(self.budget, cheapest, dearest)
        if not 0 < tolerance < 1 or self.horizon < 1:
            raise InputError(
                "`tolerance` must lie between 0 and 1, and `horizon` be at least 1 window. "
                f"Received: {tolerance} and {horizon}."
            )
        # One window may overshoot the last row: the debt then ends up this far beyond the rows.
        overshoot = max(self.budget - cheapest, dearest - self.budget)
        room = int(tolerance * self.budget * self.horizon) - overshoot - 1
        n_rows = len(self.family)
        self.step = 2 * room // n_rows
        if self.step < 1:
            least = ceil((overshoot + 2 + n_rows / 2) / (tolerance * self.budget))
            raise InputError(
                f"`horizon` must be at least {least} windows for a tolerance of {tolerance} of the budget. "
                f"Received: {horizon}. Lengthen it, or allow a larger `tolerance`."
            )
        self.start = n_rows * self.step // 2
        self.lowest = cheapest - self.budget
        self.highest = n_rows * self.step + dearest - self.budget
        # The largest number that `update` ever holds.
        largest = self.highest - self.lowest + self.budget
        if largest > INT32_MAX:
            bits = (largest // INT32_MAX).bit_length()
            raise InputError(
                f"`costs` must be small enough for the debt to fit 32 bits. Received: up to {dearest}, of "
                f"which {largest} may add up. Give costs and budget in a unit {1 << bits} times as large, or "
                "shorten `horizon`."
            )
        self._table = [tuple(row) for row in self.family.tolist()]
        self.debt = self.start

    @property
    def row(self) -> int:
        """Row of the family that decides the next window."""
        return min(max(self.debt, 0) // self.step, len(self._table) - 1)

    def thresholds(self) -> tuple[int, ...]:
        """Return the integer thresholds for the next window, one per early exit."""
        return self._table[self.row]

    def update(self, cost: int) -> None:
        """Take in what a window cost: 0 if it was skipped, and whatever it was if its run was interrupted.

        Args:
            cost: whole number from 0 to 2**31 - 1, in the unit of the costs.

        Raises:
            InputError: the cost is negative.
        """
        if cost < 0:
            raise InputError(f"`cost` must not be negative. Received: {cost}. A skipped window costs 0.")
        after_income = self.debt - self.budget
        # Compared before it is added, so that no cost overflows 32 bits.
        debt = self.highest if cost > self.highest - after_income else after_income + cost
        self.debt = max(debt, self.lowest)

    def reset(self) -> None:
        """Start anew, as at the first window."""
        self.debt = self.start

    def deviation_bound(self, n_windows: int) -> float:
        """Return how far the mean cost of the first windows can be from the budget, in the unit of the costs.

        It holds for every stream while the debt is not cut off at its limits; see the class.

        Args:
            n_windows: how many windows from the start.
        """
        return max(self.start - self.lowest, self.highest - self.start) / n_windows

    def batch(self, scores: Integers, spent: Integers | None = None) -> ControlledStreams:
        """Control several streams side by side, each from its start; equal to one controller per stream.

        Args:
            scores: (streams, n, E - 1) or (streams, n, E) integer scores.
            spent: (streams, n) cost of the windows that do not cost what their exit does: 0 for a skipped
                one; `TABLE_COST` for all others. None where every window costs what its exit does.

        Raises:
            InputError: shapes do not fit.
        """
        n_early = len(self.costs) - 1
        if scores.ndim != 3 or scores.shape[2] not in (n_early, n_early + 1):
            raise InputError(
                f"`scores` must be (streams, n, {n_early}). Received: shape {scores.shape}. "
                "One stream is `scores[None]`."
            )
        n_streams, n = scores.shape[:2]
        given = np.full((n_streams, n), TABLE_COST, np.int64) if spent is None else spent
        if given.shape != (n_streams, n) or (given < TABLE_COST).any():
            raise InputError(
                f"`spent` must be ({n_streams}, {n}) costs that are not negative, or {TABLE_COST} for the "
                f"exit's own. Received: shape {given.shape}."
            )
        costs, zeros = np.asarray(self.costs, np.int64), (0,) * n_early
        exits, rows, paid = (np.empty((n_streams, n), np.int64) for _ in range(3))
        debt = np.full(n_streams, self.start, np.int64)
        for number in range(n):
            row = np.clip(debt // self.step, 0, len(self.family) - 1)
            # Margins over the thresholds, because each stream has its own thresholds and the rule takes one.
            exit_ = decide(scores[:, number, :n_early] - self.family[row], zeros)
            cost = np.where(given[:, number] == TABLE_COST, costs[exit_ - 1], given[:, number])
            debt = np.clip(debt + cost - self.budget, self.lowest, self.highest)
            exits[:, number], rows[:, number], paid[:, number] = exit_, row, cost
        return ControlledStreams(exits, rows, paid)


def float_looseness(
    spent: NDArray[Any], budget: float, *, span: float, start: float, lowest: float, highest: float
) -> Floats:
    """Return the looseness before every window and after the last: the definition that integers approximate.

    A controller whose costs and budget are rounded to whole units is off by at most one unit of debt per
    window: after t windows debt / span differs from this by t / span at most.

    Args:
        spent: (n,) cost of each window.
        budget: mean cost per window to hold.
        span: debt that takes the family from end to end; the gain is 1 / span.
        start: debt to start from.
        lowest: limit of the debt.
        highest: limit of the debt.

    Returns:
        (n + 1,) looseness: from 0, the strictest, to 1, the loosest, and a window's cost beyond either.
    """
    looseness = np.empty(len(spent) + 1)
    looseness[0] = start / span
    for number, cost in enumerate(spent.tolist()):
        moved = looseness[number] + (cost - budget) / span
        looseness[number + 1] = min(max(moved, lowest / span), highest / span)
    return looseness


def _check_budget(budget: float, cheapest: float, dearest: float) -> None:
    """Refuse a mean cost that no thresholds reach."""
    if not cheapest <= budget <= dearest:
        raise InputError(
            f"`budget` must lie between the cheapest exit's cost ({in_digits(cheapest)}, the least possible) "
            f"and the dearest's ({in_digits(dearest)}). Received: {budget}."
        )


def _checked_family(family: Sequence[Sequence[int]] | Integers, n_exits: int) -> Integers:
    """Return the family as an array."""
    table = np.asarray(family)
    if table.ndim != 2 or len(table) < 2 or table.shape[1] != n_exits - 1 or table.dtype.kind != "i":
        raise InputError(
            f"`family` must hold at least two rows of {n_exits - 1} whole numbers, one per early exit. "
            f"Received: shape {table.shape} of {table.dtype}. Make it with `threshold_family`."
        )
    rises = np.argwhere(np.diff(table.astype(np.int64), axis=0) > 0)
    if len(rises):
        row, early = rises[0].tolist()
        raise InputError(
            "`family` must go from the strictest thresholds to the loosest and never rise. Received: "
            f"{table[row, early]} and then {table[row + 1, early]} for exit_{early + 1:02d}, in rows {row} "
            f"and {row + 1}. Make it with `threshold_family`."
        )
    return table.astype(np.int64)


def _first_open(loosest: Integers) -> int:
    """Return the index of the first exit that the loosest row ever leaves at."""
    return int(np.append(loosest < NEVER, True).argmax())


def _whole(argument: str, value: object) -> int:
    """Return a whole number that fits int32."""
    try:
        number = index(value)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not 0 <= number <= INT32_MAX:
        raise InputError(
            f"`{argument}` must be whole numbers from 0 to {INT32_MAX}. Received: {value!r}. "
            "Choose a unit in which they are, such as nJ, us, or MACs."
        )
    return number
