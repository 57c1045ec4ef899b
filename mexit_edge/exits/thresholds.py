"""Set thresholds by search: the least mean cost whose loss against the final exit stays within a limit.

The limit holds for the upper 90 % bound of the paired loss, not for its point estimate: a search that rides
the edge of its calibration set misses the limit on the next subjects. For the same reason a window that only
the early exit gets right earns nothing: on a few calibration subjects an early exit may beat the final one by
chance, and a search that may trade such gains for losses sends every window to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.exits.metrics import balanced_weights
from mexit_edge.exits.rule import decide

UPPER_LEVEL = 0.90
Z_UPPER = 1.2815515655446004  # the standard normal quantile at UPPER_LEVEL
# Above this many prefixes (combinations of all thresholds but the last) candidates are thinned out.
MAX_PREFIXES = 70_000


@dataclass(frozen=True)
class ThresholdSearch:
    """Thresholds and what they do on the calibration windows.

    Args:
        thresholds: one integer per early exit.
        mean_cost: mean cost per window, in the unit of the costs given.
        drop: balanced accuracy lost against the final exit, gains counted; negative when the policy wins.
        drop_upper: upper bound at level 0.90 of what is lost when gains are not counted, at most the limit
            asked for; so it bounds `drop` from above.
        exact: whether every distinct integer threshold was tried, so that no cheaper admissible set exists.
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
    is affordable (always for three exits, and for four with `logit_margin`); otherwise quantiles of the
    scores are, and the result says so.

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
    search = _Search(
        scores=scores,
        loss=np.maximum(paired, 0.0),
        costs=np.asarray(costs, np.float64),
        max_drop=max_drop,
        largest=float(weights.max()),
        candidates=[],
    )
    exact = search.set_candidates()
    thresholds = search.run()
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
    best: tuple[float, tuple[int, ...]] = (np.inf, ())

    def set_candidates(self) -> bool:
        """Choose candidate thresholds per exit; return whether they are all there are."""
        n_early = self.scores.shape[1]
        per_exit = max(8, int(MAX_PREFIXES ** (1 / max(1, n_early - 1))))
        exact = True
        for early in range(n_early):
            distinct = np.unique(self.scores[:, early])
            # The last early exit is swept in one pass, so that it may keep all its candidates.
            if early < n_early - 1 and len(distinct) > per_exit:
                distinct = np.unique(np.quantile(distinct, np.linspace(0, 1, per_exit), method="nearest"))
                exact = False
            never = self.scores[:, early].max() + 1
            self.candidates.append(np.append(distinct, never).astype(np.int64))
        return exact

    def run(self) -> tuple[int, ...]:
        """Return the cheapest admissible thresholds."""
        never = tuple(int(candidates[-1]) for candidates in self.candidates)
        self.best = (float(self.costs[-1]), never)
        self._descend(0, np.arange(len(self.scores)), (0.0, 0.0, 0.0), ())
        return self.best[1]

    def _descend(
        self,
        early: int,
        remaining: NDArray[np.intp],
        so_far: tuple[float, float, float],
        prefix: tuple[int, ...],
    ) -> None:
        """Try every threshold of exit ``early`` on the windows that remain.

        Args:
            early: index of the early exit.
            remaining: windows that have not left yet.
            so_far: summed cost, loss and squared loss of those that have.
            prefix: the thresholds before this one.
        """
        # Bound: even if every remaining window left here, the prefix could not win.
        n = len(self.scores)
        if (so_far[0] + self.costs[early] * len(remaining)) / n >= self.best[0]:
            return
        if early == self.scores.shape[1] - 1:
            self._sweep_last(early, remaining, so_far, prefix)
            return
        score, loss = self.scores[remaining, early], self.loss[remaining, early]
        for threshold in self.candidates[early]:
            leaves = score >= threshold
            left = loss[leaves]
            self._descend(
                early + 1,
                remaining[~leaves],
                (
                    so_far[0] + self.costs[early] * len(left),
                    so_far[1] + left.sum(),
                    so_far[2] + (left**2).sum(),
                ),
                (*prefix, int(threshold)),
            )

    def _sweep_last(
        self,
        early: int,
        remaining: NDArray[np.intp],
        so_far: tuple[float, float, float],
        prefix: tuple[int, ...],
    ) -> None:
        """Try every threshold of the last early exit at once, by cumulative sums over sorted scores."""
        n = len(self.scores)
        score = self.scores[remaining, early]
        order = np.argsort(score, kind="stable")
        loss = self.loss[remaining, early][order]
        first = np.searchsorted(score[order], self.candidates[early], side="left")
        leaving = len(remaining) - first
        total, squares = _sums_from(loss, first), _sums_from(loss**2, first)
        upper = upper_bound_of_loss(so_far[1] + total, so_far[2] + squares, n, self.largest)
        cost = (so_far[0] + self.costs[early] * leaving + self.costs[-1] * first) / n
        cost[upper > self.max_drop] = np.inf
        # Of equal costs the strictest threshold wins: argmin from the far end.
        place = len(cost) - 1 - int(np.argmin(cost[::-1]))
        if cost[place] < self.best[0]:
            self.best = (float(cost[place]), (*prefix, int(self.candidates[early][place])))


def _sums_from(values: NDArray[np.float64], first: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the sums of ``values[k:]`` for every k of ``first``."""
    tails = np.append(np.cumsum(values[::-1])[::-1], 0.0)
    return tails[first]
