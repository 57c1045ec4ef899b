"""The best combination of thresholds on a grid: sums over all windows for every combination, by one table.

A combination is written as places: per early exit the index of its threshold among the exit's candidates, in
ascending order; the last one is "never". A window stays at an exit from place ``stays`` on, which restates
`exits.rule.passes`; the tests of the search hold it to `decide`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z_UPPER = 1.2815515655446004  # the standard normal quantile at 0.90
# The search that is not exact changes this many thresholds at a time, and comes up to its limit in steps.
BLOCK = 2
LIMIT_STEPS = 8
# Cells of a table that is made at once: 64 levels of three exits.
MAX_TABLE = 2**18
# Sums over windows that differ by less than this share of their largest possible size are equal.
ROUNDING = 1e-12

Floats = NDArray[np.float64]
Places = tuple[int, ...]


def upper_bound_of_loss(
    total: NDArray[Any] | float, total_of_squares: NDArray[Any] | float, n: int, largest: float
) -> Floats:
    """Return the upper 90 % bound of a mean paired loss, by the normal approximation with one loss added.

    The added loss of the largest size keeps the bound above zero where the sample holds no loss at all.

    Args:
        total: sum of the losses.
        total_of_squares: sum of their squares.
        n: number of losses.
        largest: size of the largest possible loss.
    """
    mean = (np.asarray(total, np.float64) + largest) / (n + 1)
    variance = (np.asarray(total_of_squares, np.float64) + largest**2) / (n + 1) - mean**2
    return np.asarray(mean + Z_UPPER * np.sqrt(np.maximum(variance, 0) / (n + 1)), np.float64)


@dataclass(frozen=True, eq=False)
class Goal(ABC):
    """What is minimised, and within which limit.

    Args:
        values: (quantities, n, E) what a window adds to each quantity when it leaves at each exit; the first
            quantity is the loss, the second the cost.
        limit: see the subclasses.
    """

    values: Floats
    limit: float

    @property
    @abstractmethod
    def objectives(self) -> tuple[int, ...]:
        """Quantities to minimise, in order of importance."""

    @abstractmethod
    def admissible(self, sums: Floats) -> NDArray[np.bool_]:
        """Tell which columns of (quantities, m) sums over all windows stay within the limit."""

    @abstractmethod
    def start(self, sizes: Places) -> Places:
        """Return a combination that is always admissible, unless the limit asks for more than no loss."""

    @abstractmethod
    def at_step(self, share: float) -> Goal:
        """Return the same goal with its limit only a share of the way from where `start` is."""

    @cached_property
    def slack(self) -> Floats:
        """Largest difference of sums, per quantity, that is taken for rounding."""
        return np.asarray(ROUNDING * self.values.shape[1] * np.abs(self.values).max(axis=(1, 2)))

    @abstractmethod
    def caps(self, known: Floats) -> Floats:
        """Return what no sum may exceed, per quantity, of a combination that beats or equals a known one.

        Args:
            known: (quantities,) sums of the known combination.
        """

    def best(self, sums: Floats) -> int | None:
        """Return the last of the best admissible columns of (quantities, m) sums; None without one."""
        columns = np.flatnonzero(self.admissible(sums))
        for row in self.objectives if len(columns) else ():
            values = sums[row, columns]
            columns = columns[values <= values.min() + self.slack[row]]
        return int(columns[-1]) if len(columns) else None

    def better(self, sums: Floats, known: Floats) -> bool:
        """Tell whether one combination is better than a known one by more than rounding."""
        for row in self.objectives:
            if abs(sums[row] - known[row]) > self.slack[row]:
                return bool(sums[row] < known[row])
        return False


@dataclass(frozen=True, eq=False)
class LeastCost(Goal):
    """Least cost; the mean loss, or its upper bound, stays within the limit.

    Args:
        largest: largest possible loss, with which the third quantity, the squared loss, makes the bound; None
            for the mean loss itself, which then counts gains as negative.
    """

    largest: float | None

    @property
    def objectives(self) -> tuple[int, ...]:
        """The cost."""
        return (1,)

    def admissible(self, sums: Floats) -> NDArray[np.bool_]:
        """Hold the loss to the limit."""
        if self.largest is None:
            return np.asarray(sums[0] <= self._most_loss)
        n = self.values.shape[1]
        return np.asarray(upper_bound_of_loss(sums[0], sums[2], n, self.largest) <= self.limit + ROUNDING)

    def caps(self, known: Floats) -> Floats:
        """Hold the loss to the limit as if its bound had no width, and the cost to the known one."""
        caps = np.full(len(self.values), inf)
        caps[:2] = self._most_loss, known[1] + self.slack[1]
        return caps

    @property
    def _most_loss(self) -> float:
        n = self.values.shape[1]
        with_one_added = 0.0 if self.largest is None else self.limit - self.largest
        return float(self.limit * n + with_one_added + self.slack[0])

    def start(self, sizes: Places) -> Places:
        """Return "never" everywhere: to run everything to the end loses nothing."""
        return tuple(size - 1 for size in sizes)

    def at_step(self, share: float) -> Goal:
        """Allow a share of the loss."""
        return replace(self, limit=share * self.limit)


@dataclass(frozen=True, eq=False)
class BestQuality(Goal):
    """Least loss, then least cost; the mean cost stays within the limit."""

    @property
    def objectives(self) -> tuple[int, ...]:
        """The loss, then the cost."""
        return (0, 1)

    def admissible(self, sums: Floats) -> NDArray[np.bool_]:
        """Hold the mean cost to the limit."""
        return np.asarray(sums[1] <= self._most_cost)

    def caps(self, known: Floats) -> Floats:
        """Hold the loss to the known one, and the cost to the limit."""
        return np.array([known[0] + self.slack[0], self._most_cost])

    @property
    def _most_cost(self) -> float:
        return float(self.limit * self.values.shape[1] + self.slack[1])

    def start(self, sizes: Places) -> Places:
        """Return "all leave" everywhere: nothing costs less than the first exit."""
        return (0,) * len(sizes)

    def at_step(self, share: float) -> Goal:
        """Allow a share of what there is above the cost of the first exit."""
        least, most = self.values[1, 0, [0, -1]].tolist()
        return replace(self, limit=least + share * (min(self.limit, most) - least))


def best_of_all(stays: NDArray[np.int64], sizes: Places, goal: Goal) -> Places:
    """Return the best of all combinations; of equal ones the first exit's strictest, then the second's, ...

    Args:
        stays: (n, E - 1) place from which on a window stays at each early exit.
        sizes: number of thresholds per early exit, E - 1 of them, at least one.
        goal: with values of E exits.
    """
    start = goal.start(sizes)
    # Of equal ones the strictest wins: the start has to be beaten only where it is the strictest of all.
    strictest = start == tuple(size - 1 for size in sizes)
    known = _sums(stays, start, goal)
    if not strictest or not goal.admissible(known[:, None])[0]:
        known = np.full(len(goal.values), inf)
    return _search(stays, sizes, goal, known)[0] or start


def best_by_descent(stays: NDArray[np.int64], sizes: Places, goal: Goal) -> Places:
    """Return what block coordinate descent finds: two neighbours at a time, until nothing gets better.

    One threshold at a time would get stuck: where the next exit sends everything on, it does not pay to keep
    windows for it. The limit is raised in steps, else the first exits would spend all of it.

    Args:
        stays: as for `best_of_all`.
        sizes: as for `best_of_all`.
        goal: as for `best_of_all`.
    """
    places = goal.start(sizes)
    known = _sums(stays, places, goal)
    for step in range(1, LIMIT_STEPS + 1):
        now, improved = goal.at_step(step / LIMIT_STEPS), True
        while improved:
            improved = False
            for first in range(max(1, len(sizes) - BLOCK + 1)):
                block = slice(first, first + BLOCK)
                part = replace(now, values=_values_in_block(stays, places, block, now.values))
                found, known = _search(stays[:, block], sizes[block], part, known)
                if found:
                    places, improved = (*places[:first], *found, *places[block.stop :]), True
    return places


def _values_in_block(stays: NDArray[np.int64], places: Places, block: slice, values: Floats) -> Floats:
    """Return (quantities, n, exits in the block + 1): leaving there, or where the other thresholds say."""
    leaves = stays > np.asarray(places)
    leaves[:, block] = False
    otherwise = _first(leaves)
    # A window that has left before does not see these exits: all ways have the same value for it.
    ways = [*(np.minimum(otherwise, exit_) for exit_ in range(len(places))[block]), otherwise]
    return values[:, np.arange(len(stays))[:, None], np.stack(ways, axis=1)]


def _search(
    stays: NDArray[np.int64], sizes: Places, goal: Goal, known: Floats
) -> tuple[Places | None, Floats]:
    """Try all combinations; return the best and its sums, None and ``known`` where none is better than that.

    The sum of a quantity over all windows is that of leaving at exit 1, plus, for every window and every exit
    where it stays, what staying adds. A window stays at exits 1 to e where no place is below its own. So what
    staying adds goes into a table with an axis per exit, at the window's own places and at 0 for the exits
    after e: the cumulative sums along every axis are the sums of all combinations. A table that would be too
    large is made for a few places of the first exit at a time.
    """
    strides = [prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    added = np.diff(goal.values, axis=2)
    at_first = goal.values[:, :, 0].sum(axis=1)
    rows = max(1, MAX_TABLE // strides[0])
    best = None
    # The strictest places come first here and last in a table: of equal ones the strictest stays.
    for start in reversed(range(0, sizes[0], rows)):
        shape = (min(rows, sizes[0] - start), *sizes[1:])
        stay = stays[:, 0] < start + shape[0]
        places = stays[stay]
        places[:, 0] = np.maximum(places[:, 0] - start, 0)
        cells = np.cumsum(places * strides, axis=1).ravel()
        tables: list[Floats] = []
        within = np.ones(prod(shape), bool)
        for cap, offset, row in zip(goal.caps(known), at_first, added, strict=True):
            tables.append(_cumulated(cells, row[stay].ravel(), offset, shape))
            within &= tables[-1] <= cap
            if not within.any():
                break
        else:
            columns = np.flatnonzero(within)
            sums = np.stack([table[columns] for table in tables])
            column = goal.best(sums)
            if column is not None and goal.better(sums[:, column], known):
                first, *others = (int(place) for place in np.unravel_index(columns[column], shape))
                best, known = (start + first, *others), sums[:, column].copy()
    return best, known


def _cumulated(cells: NDArray[np.int64], values: Floats, offset: float, shape: Places) -> Floats:
    """Return the table of one quantity, cumulated along every axis and flat; ``offset`` is in every cell."""
    table = np.bincount(cells, values, prod(shape)).astype(np.float64, copy=False)  # integers without values
    table[0] += offset
    table = table.reshape(shape)
    for axis in range(table.ndim):
        np.cumsum(table, axis=axis, out=table)
    return table.ravel()


def _sums(stays: NDArray[np.int64], places: Places, goal: Goal) -> Floats:
    """Return the sums of every quantity for one combination."""
    left_at = _first(stays > np.asarray(places))
    return np.asarray(goal.values[:, np.arange(len(stays)), left_at].sum(axis=1))


def _first(leaves: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the index of the exit at which each window leaves, of (n, E - 1) whether it would."""
    return np.append(leaves, np.ones((len(leaves), 1), bool), axis=1).argmax(axis=1)
