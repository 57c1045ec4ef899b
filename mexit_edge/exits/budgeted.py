"""Thresholds for a budget, without a search: every exit takes its share of windows, the surest first.

MSDNet's budgeted batch classification (Huang et al., arXiv 1703.09844): one parameter p sets the share of
windows that leaves at each exit, and sweeping it draws the curve of quality over cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.exits.metrics import balanced_accuracy
from mexit_edge.exits.rule import NEVER, decide, passes
from mexit_edge.exits.search import checked_costs, checked_scores

# Small p sends windows to the first exits, large p to the last; p = 1 gives every exit the same share.
SWEEP = tuple(Fraction(step, 20) for step in range(1, 40))


@dataclass(frozen=True)
class BudgetedPoint:
    """One point of the curve, on the windows that set its thresholds.

    Args:
        p: ratio between the shares of an exit and of the one before it.
        thresholds: one integer per early exit, `NEVER` for an exit whose share is less than one window.
        mean_cost: mean cost per window, in the unit of the costs given.
        quality: balanced accuracy.
        exit_shares: share of windows that leaves at each exit, E of them. Equal scores leave together, so an
            early exit may take more than its share.
    """

    p: float
    thresholds: tuple[int, ...]
    mean_cost: float
    quality: float
    exit_shares: tuple[float, ...]


def budgeted_curve(
    scores: NDArray[Any], predicted: NDArray[Any], y: NDArray[Any], costs: Sequence[float]
) -> tuple[BudgetedPoint, ...]:
    """Return the curve of quality over cost for p = 0.05, 0.1, ..., 1.95.

    Args:
        scores: (n, E - 1) or (n, E) integer scores; the final exit's own are never looked at.
        predicted: (n, E) class decided when a window leaves at each exit.
        y: (n,) labels.
        costs: cost of a window that leaves at each exit, E values in ascending order.

    Raises:
        InputError: shapes do not fit, or costs do not ascend.
    """
    scores = checked_scores(scores, predicted, y)
    n, n_exits = predicted.shape
    prices = checked_costs(costs, n_exits)
    points = []
    for p in SWEEP:
        thresholds = budgeted_thresholds(scores, p)
        left_at = decide(scores, thresholds) - 1
        points.append(
            BudgetedPoint(
                p=float(p),
                thresholds=thresholds,
                mean_cost=float(prices[left_at].mean()),
                quality=balanced_accuracy(y, predicted[np.arange(n), left_at]),
                exit_shares=tuple((np.bincount(left_at, minlength=n_exits) / n).tolist()),
            )
        )
    return tuple(points)


def budgeted_thresholds(scores: NDArray[Any], p: Fraction) -> tuple[int, ...]:
    """Return thresholds by which exit e takes p^e / (p^1 + ... + p^E) of all windows; scores (n, E - 1)."""
    n, n_early = scores.shape
    whole = sum(p**number for number in range(1, n_early + 2))
    remaining = np.arange(n)
    thresholds = []
    for early in range(n_early):
        column = scores[remaining, early]
        # In fractions, so that the share of a whole number of windows is never rounded down. Fewer may be
        # left where equal scores made an exit before take more than its share.
        taken = min(int(n * p ** (early + 1) / whole), len(column))
        threshold = int(np.sort(column)[-taken]) if taken else NEVER
        thresholds.append(threshold)
        remaining = remaining[~passes(column, threshold)]
    return tuple(thresholds)
