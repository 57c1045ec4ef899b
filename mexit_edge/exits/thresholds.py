"""Set thresholds by search: the least mean cost whose loss against the final exit stays within a limit.

The limit holds for the upper 90 % bound of the paired loss, not for its point estimate: a search that rides
the edge of its calibration set misses the limit on the next subjects. For the same reason a window that only
the early exit gets right earns nothing: on a few calibration subjects an early exit may beat the final one by
chance, and a search that may trade such gains for losses sends every window to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.exits.metrics import balanced_weights
from mexit_edge.exits.rule import decide, passes

UPPER_LEVEL = 0.90
Z_UPPER = 1.2815515655446004  # the standard normal quantile at UPPER_LEVEL
# Up to this many prefixes (combinations of all thresholds but the last) are tried one by one.
MAX_PREFIXES = 70_000
# The search that goes before comes up to the limit in this many steps.
LIMIT_STEPS = 8


@dataclass(frozen=True)
class ThresholdSearch:
    """Thresholds and what they do on the calibration windows.

    Args:
        thresholds: one integer per early exit.
        mean_cost: mean cost per window, in the unit of the costs given.
        drop: balanced accuracy lost against the final exit, gains counted; negative when the policy wins.
        drop_upper: upper bound at level 0.90 of what is lost when gains are not counted, at most the limit
            asked for; so it bounds `drop` from above.
        exact: whether every combination was tried, so that no cheaper admissible set exists.
    """

    thresholds: tuple[int, ...]
    mean_cost: float
    drop: float
    drop_upper: float
    exact: bool


def upper_bound_of_loss(
    total: NDArray[Any] | float, total_of_squares: NDArray[Any] | float, n: int, largest: float
) -> NDArray[np.float64]:
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


def search_thresholds(
    scores: NDArray[np.int64],
    predicted: NDArray[np.int64],
    y: NDArray[np.int64],
    costs: Sequence[float],
    max_drop: float,
) -> ThresholdSearch:
    """Find the thresholds of least mean cost whose loss of balanced accuracy stays within ``max_drop``.

    Every distinct score of an exit is a candidate, and "never" is one. All combinations are tried where that
    is affordable (always for three exits, and for four with `logit_margin`); otherwise thresholds are
    improved one at a time, starting from "never", and the result says so.

    Args:
        scores: (n, E - 1) integer scores of the early exits.
        predicted: (n, E) class predicted at each exit.
        y: (n,) labels.
        costs: cost of a window that leaves at each exit, E values in ascending order.
        max_drop: largest allowed loss of balanced accuracy against the final exit, as a share (0.01 is one
            point), held on the upper 90 % bound, gains not counted.

    Returns:
        The cheapest admissible thresholds. To run everything to the end is always admissible.

    Raises:
        InputError: shapes do not fit, costs do not ascend, or ``max_drop`` is not in [0, 1].
    """
    n, n_exits = predicted.shape
    if scores.shape != (n, n_exits - 1) or len(costs) != n_exits or y.shape != (n,) or not n:
        raise InputError(
            f"`scores`, `y` and `costs` must fit `predicted` of shape {predicted.shape}. "
            f"Received: {scores.shape}, {y.shape}, {len(costs)} costs."
        )
    # The search leaves out prefixes that cannot win, which is right only for costs that ascend.
    if not np.isfinite(costs).all() or (np.diff(costs) < 0).any():
        raise InputError(f"`costs` must be finite and ascend with the exits. Received: {list(costs)}.")
    if not 0 <= max_drop <= 1:
        raise InputError(f"`max_drop` must be a share between 0 and 1. Received: {max_drop}.")
    if n_exits == 1:
        return ThresholdSearch((), float(costs[0]), 0.0, 0.0, exact=True)
    weights = balanced_weights(y)
    correct = (predicted == y[:, None]).astype(np.float64)
    paired = weights[:, None] * (correct[:, -1:] - correct)
    never = scores.max(axis=0) + 1
    search = _Search(
        scores=scores,
        loss=np.maximum(paired, 0.0),
        costs=np.asarray(costs, np.float64),
        max_drop=max_drop,
        largest=float(weights.max()),
        candidates=[
            np.append(np.unique(column), above).astype(np.int64)
            for column, above in zip(scores.T, never, strict=True)
        ],
        best=(float(costs[-1]), tuple(never.tolist())),
    )
    exact = prod(len(candidates) for candidates in search.candidates[:-1]) <= MAX_PREFIXES
    search.improve_one_by_one()
    if exact:
        search.try_all(0, np.arange(n), (0.0, 0.0, 0.0), ())
    thresholds = search.best[1]
    exits = decide(scores, thresholds)
    losses = search.loss[np.arange(n), exits - 1]
    upper = upper_bound_of_loss(losses.sum(), (losses**2).sum(), n, search.largest)
    ran_to_the_end = bool((exits == n_exits).all())
    return ThresholdSearch(
        thresholds=thresholds,
        mean_cost=float(search.costs[exits - 1].mean()),
        drop=float(paired[np.arange(n), exits - 1].mean()),
        drop_upper=0.0 if ran_to_the_end else float(upper),
        exact=exact,
    )


@dataclass
class _Search:
    """State of one search; loss is (n, E) and >= 0, weighted so that its mean is one of balanced accuracy."""

    scores: NDArray[np.int64]
    loss: NDArray[np.float64]
    costs: NDArray[np.float64]
    max_drop: float
    largest: float
    candidates: list[NDArray[np.int64]]
    best: tuple[float, tuple[int, ...]]

    def try_all(
        self,
        early: int,
        remaining: NDArray[np.intp],
        left: tuple[float, float, float],
        prefix: tuple[int, ...],
    ) -> None:
        """Try every threshold of exit ``early`` and of those after it on the windows that remain.

        Args:
            early: index of the early exit.
            remaining: windows that have not left yet.
            left: summed cost, loss and squared loss of those that have.
            prefix: the thresholds before this one.
        """
        # Bounds: even if every remaining window left here the prefix could not win, or even without another
        # loss its mean loss is above the limit.
        n = len(self.scores)
        least_cost, least_loss = left[0] + self.costs[early] * len(remaining), left[1] + self.largest
        if least_cost / n >= self.best[0] or least_loss / (n + 1) > self.max_drop:
            return
        if early == self.scores.shape[1] - 1:
            final = np.full(len(remaining), early + 1)
            cost, threshold = self._sweep(early, remaining, final, left, self.max_drop)
            self._keep(cost, (*prefix, threshold))
            return
        score, loss = self.scores[remaining, early], self.loss[remaining, early]
        for threshold in self.candidates[early].tolist():
            leaves = passes(score, threshold)
            now = loss[leaves]
            self.try_all(
                early + 1,
                remaining[~leaves],
                (left[0] + self.costs[early] * len(now), left[1] + now.sum(), left[2] + (now**2).sum()),
                (*prefix, threshold),
            )

    def improve_one_by_one(self) -> None:
        """Coordinate descent: the best threshold of one exit while the others stay, until none gets better.

        The limit is raised in steps, else the first exit would spend all of it. The best thresholds so far
        are admissible after every step, and running to the end is where they start.
        """
        for limit in self.max_drop * np.arange(1, LIMIT_STEPS + 1) / LIMIT_STEPS:
            improved = 1
            while improved:
                improved = sum(self._improve(early, limit) for early in range(self.scores.shape[1]))

    def _improve(self, early: int, limit: float) -> bool:
        """Give one exit its best threshold; return whether that made the policy cheaper."""
        thresholds = list(self.best[1])
        # "Never" tells where the windows that reach this exit leave otherwise.
        thresholds[early] = int(self.candidates[early][-1])
        otherwise = decide(self.scores, thresholds) - 1
        reach, gone = np.flatnonzero(otherwise > early), np.flatnonzero(otherwise < early)
        loss = self.loss[gone, otherwise[gone]]
        left = (float(self.costs[otherwise[gone]].sum()), float(loss.sum()), float((loss**2).sum()))
        cost, thresholds[early] = self._sweep(early, reach, otherwise[reach], left, limit)
        return self._keep(cost, tuple(thresholds))

    def _keep(self, cost: float, thresholds: tuple[int, ...]) -> bool:
        # Rounding must not pass for an improvement.
        better = cost < self.best[0] - 1e-12 * abs(self.best[0])
        if better:
            self.best = (cost, thresholds)
        return better

    def _sweep(
        self,
        early: int,
        remaining: NDArray[np.intp],
        otherwise: NDArray[np.intp],
        left: tuple[float, float, float],
        limit: float,
    ) -> tuple[float, int]:
        """Try every threshold of one exit at once, by cumulative sums over sorted scores.

        The sums restate `passes`: a window leaves from the first position whose score is not below the
        threshold (side="left"). `test_the_search_equals_brute_force_...` and
        `test_the_sweep_costs_what_the_rule_does` hold them to `decide`.

        Args:
            early: index of the exit.
            remaining: windows that reach it.
            otherwise: index of the exit at which each of them leaves if not here.
            left: summed cost, loss and squared loss of all other windows.
            limit: largest allowed upper bound of the loss.

        Returns:
            The least mean cost within the limit, infinite if there is none, and its threshold.
        """
        n = len(self.scores)
        order = np.argsort(self.scores[remaining, early], kind="stable")
        remaining, otherwise = remaining[order], otherwise[order]
        first = np.searchsorted(self.scores[remaining, early], self.candidates[early], side="left")
        here, there = self.loss[remaining, early], self.loss[remaining, otherwise]
        total = left[1] + _sums_split_at(first, there, here)
        squares = left[2] + _sums_split_at(first, there**2, here**2)
        price = np.full(len(remaining), self.costs[early])
        cost = (left[0] + _sums_split_at(first, self.costs[otherwise], price)) / n
        cost[upper_bound_of_loss(total, squares, n, self.largest) > limit] = np.inf
        # Of equal costs the strictest threshold wins: argmin from the far end.
        place = len(cost) - 1 - int(np.argmin(cost[::-1]))
        return float(cost[place]), int(self.candidates[early][place])


def _sums_split_at(
    first: NDArray[np.intp], below: NDArray[np.float64], above: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the sum of ``below[:k]`` and ``above[k:]`` for every k of ``first``."""
    heads = np.append(0.0, np.cumsum(below))
    tails = np.append(np.cumsum(above[::-1])[::-1], 0.0)
    return heads[first] + tails[first]
