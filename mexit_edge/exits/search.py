"""Set thresholds by search: least cost within a limit of loss, or best quality within a budget.

A limit of loss holds for the upper 90 % bound of the paired loss, not for its point estimate: a search that
rides the edge of its calibration set misses the limit on the next subjects. For the same reason a window that
only the early exit gets right earns nothing there: on a few calibration subjects an early exit may beat the
final one by chance, and a search that may trade such gains for losses sends every window to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.exits.grid import (
    ROUNDING,
    BestQuality,
    Floats,
    Goal,
    LeastCost,
    best_by_descent,
    best_of_all,
    upper_bound_of_loss,
)
from mexit_edge.exits.metrics import balanced_accuracy, balanced_weights
from mexit_edge.exits.rule import NEVER, decide

# Up to this many early exits have all combinations tried, of which there are at most 2**COMBINATION_BITS.
MAX_EARLY_EXITS = 4
COMBINATION_BITS = 24


@dataclass(frozen=True)
class ThresholdOutcome:
    """Thresholds and what they do on the calibration windows.

    Args:
        thresholds: one integer per early exit, `NEVER` for an exit that is better left unused.
        mean_cost: mean cost per window, in the unit of the costs given.
        quality: balanced accuracy.
        drop: balanced accuracy lost against the final exit, gains counted; negative when the policy wins.
        drop_upper: upper bound at level 0.90 of what is lost when gains are not counted, so that it bounds
            `drop` from above; 0 when every window runs to the end.
    """

    thresholds: tuple[int, ...]
    mean_cost: float
    quality: float
    drop: float
    drop_upper: float


@dataclass(frozen=True)
class ThresholdSearch(ThresholdOutcome):
    """Thresholds that were searched.

    Args:
        exact: whether every combination on the grid was tried, so that none of them is better.
        levels: number of thresholds on the grid per early exit, "never" among them.
    """

    exact: bool
    levels: tuple[int, ...]


def search_thresholds(
    scores: NDArray[Any],
    predicted: NDArray[Any],
    y: NDArray[Any],
    costs: Sequence[float],
    max_drop: float | None = None,
    *,
    floor: float | None = None,
    budget: float | None = None,
    levels: int | None = None,
    on_bound: bool = True,
) -> ThresholdSearch:
    """Find the best thresholds for exactly one goal: ``max_drop``, ``floor`` or ``budget``.

    Up to five exits every combination on a grid is tried. The grid of an exit holds all its distinct scores
    where they fit, else scores at its quantiles (equal scores stay together), and "never" always. With more
    exits the thresholds of two neighbours are improved at a time, and the result says that it is not exact.
    Of equally good combinations the one with the strictest threshold at the first exit wins, then at the
    second, and so on.

    The sums over windows of at most 2**18 combinations are held at a time: about 30 MB, beside some hundred
    bytes per window and exit.

    Args:
        scores: (n, E - 1) or (n, E) integer scores; the final exit's own are never looked at.
        predicted: (n, E) class decided when a window leaves at each exit.
        y: (n,) labels.
        costs: cost of a window that leaves at each exit, E values in ascending order.
        max_drop: least cost, with a loss of balanced accuracy against the final exit of at most this share
            (0.01 is one point). To run everything to the end is always admissible.
        floor: least cost, with a balanced accuracy of at least this share: what the final exit has above the
            floor may be lost.
        budget: best balanced accuracy at a mean cost of at most this, in the unit of the costs; of equal ones
            the cheapest.
        levels: largest number of thresholds per exit; None for as many as can be searched: 64 from five exits
            on, 256 for four, 4,096 for three.
        on_bound: whether the loss that ``max_drop`` and ``floor`` limit is the upper 90 % bound, gains not
            counted. False takes the point estimate, gains counted: for hindsight, on windows that are the
            whole population.

    Raises:
        InputError: shapes do not fit, costs do not ascend, none or several goals, a share outside [0, 1], a
            floor above what the final exit (or, off the bound, any thresholds) reaches, or a budget below
            the cheapest exit.
    """
    scores = checked_scores(scores, predicted, y)
    prices = checked_costs(costs, predicted.shape[1])
    n_early = scores.shape[1]
    weights = balanced_weights(y)
    correct = (predicted == y[:, None]).astype(np.float64)
    paired = weights[:, None] * (correct[:, -1:] - correct)
    lost = np.maximum(paired, 0.0)
    cost = np.broadcast_to(prices, paired.shape)
    largest = float(weights.max())
    reached = balanced_accuracy(y, predicted[:, -1])
    name, limit = _limit_of(max_drop, floor, budget, prices, reached, on_bound=on_bound)
    goal: Goal
    if name == "budget":
        goal = BestQuality(np.stack([paired, cost]), limit)
    elif on_bound:
        goal = LeastCost(np.stack([lost, cost, lost**2]), limit, largest)
    else:
        goal = LeastCost(np.stack([paired, cost]), limit, largest=None)
    most = _most_levels(levels, n_early)
    candidates = [_candidates(column, most) for column in scores.T]
    exact = n_early <= MAX_EARLY_EXITS
    thresholds = _search(scores, candidates, goal, exact) if n_early else ()
    outcome = outcome_of(thresholds, scores, predicted, y, costs)
    if limit < 0 and outcome.drop > limit + ROUNDING:
        raise InputError(
            "`floor` must be a balanced accuracy that some thresholds reach; the final exit's is "
            f"{reached:.4f}. Received: {floor}. Ask for less."
        )
    return ThresholdSearch(**vars(outcome), exact=exact, levels=tuple(map(len, candidates)))


def outcome_of(
    thresholds: Sequence[int],
    scores: NDArray[Any],
    predicted: NDArray[Any],
    y: NDArray[Any],
    costs: Sequence[float],
) -> ThresholdOutcome:
    """Return what thresholds do on windows, however they were set.

    Args:
        thresholds: one integer per early exit.
        scores: as for `search_thresholds`.
        predicted: as for `search_thresholds`.
        y: as for `search_thresholds`.
        costs: as for `search_thresholds`.

    Raises:
        InputError: shapes do not fit, or costs do not ascend.
    """
    scores = checked_scores(scores, predicted, y)
    prices = checked_costs(costs, predicted.shape[1])
    left_at = decide(scores, thresholds) - 1
    told = predicted[np.arange(len(y)), left_at]
    weights = balanced_weights(y)
    paired = weights * ((predicted[:, -1] == y).astype(np.float64) - (told == y))
    lost = np.maximum(paired, 0.0)
    upper = upper_bound_of_loss(lost.sum(), (lost**2).sum(), len(y), float(weights.max()))
    return ThresholdOutcome(
        thresholds=tuple(thresholds),
        mean_cost=float(prices[left_at].mean()),
        quality=balanced_accuracy(y, told),
        drop=float(paired.mean()),
        drop_upper=0.0 if (left_at == scores.shape[1]).all() else float(upper),
    )


def _search(
    scores: NDArray[Any], candidates: list[NDArray[np.int64]], goal: Goal, exact: bool
) -> tuple[int, ...]:
    """Return the best thresholds among the candidates of each exit."""
    columns = list(zip(candidates, scores.T, strict=True))
    stays = np.stack([np.searchsorted(one, column, side="right") for one, column in columns], axis=1)
    best = best_of_all if exact else best_by_descent
    places = best(stays.astype(np.int64), tuple(map(len, candidates)), goal)
    return tuple(int(one[place]) for one, place in zip(candidates, places, strict=True))


def _candidates(column: NDArray[Any], levels: int) -> NDArray[np.int64]:
    """Return the thresholds to try at one exit, at most ``levels``, ascending from "all leave" to "never"."""
    distinct = np.unique(column)
    if len(distinct) >= levels:
        quantiles = np.arange(levels - 1) * len(column) // (levels - 1)
        distinct = np.unique(np.sort(column)[quantiles])
    return np.append(distinct, NEVER).astype(np.int64)


def checked_scores(scores: NDArray[Any], predicted: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """Return the (n, E - 1) scores of the early exits.

    Args:
        scores: (n, E - 1) or (n, E).
        predicted: (n, E).
        y: (n,).

    Raises:
        InputError: shapes do not fit each other, or there are no windows.
    """
    n, n_exits = predicted.shape if predicted.ndim == 2 else (0, 0)
    fits = scores.shape in ((n, n_exits - 1), (n, n_exits)) and y.shape == (n,)
    if not (fits and n and n_exits):
        raise InputError(
            "`scores` (n, E - 1) or (n, E) and `y` (n,) must fit `predicted` (n, E), with windows in them. "
            f"Received: {scores.shape}, {y.shape} and {predicted.shape}."
        )
    return scores[:, : n_exits - 1]


def checked_costs(costs: Sequence[float], n_exits: int) -> Floats:
    """Return the cost of a window that leaves at each exit as an array.

    Raises:
        InputError: their number is wrong, or they are not finite or do not ascend.
    """
    prices = np.asarray(costs, np.float64)
    if prices.shape != (n_exits,) or not np.isfinite(prices).all() or (np.diff(prices) < 0).any():
        raise InputError(
            f"`costs` must be finite and ascend with the exits, {n_exits} of them. Received: {list(costs)}."
        )
    return prices


def _most_levels(levels: int | None, n_early: int) -> int:
    """Return the largest number of thresholds per exit."""
    most: int = 1 << COMBINATION_BITS // min(max(n_early, 1), MAX_EARLY_EXITS)
    if levels is not None and not 2 <= levels <= most:
        raise InputError(
            f"`levels` must be a whole number from 2 to {most} with {n_early + 1} exits. Received: {levels}."
        )
    return levels or most


def _limit_of(
    max_drop: float | None,
    floor: float | None,
    budget: float | None,
    prices: Floats,
    reached: float,
    *,
    on_bound: bool,
) -> tuple[str, float]:
    """Return the name of the one goal that was given, and its limit: of mean cost or of loss.

    Args:
        max_drop: see `search_thresholds`.
        floor: see `search_thresholds`.
        budget: see `search_thresholds`.
        prices: cost per exit.
        reached: balanced accuracy of the final exit.
        on_bound: see `search_thresholds`; where it is not asked for, a floor may lie above the final exit.
    """
    goals = {"max_drop": max_drop, "floor": floor, "budget": budget}
    given = [(name, value) for name, value in goals.items() if value is not None]
    if len(given) != 1:
        raise InputError(
            "Exactly one of `max_drop`, `floor` and `budget` must be given. "
            f"Received: {', '.join(name for name, _ in given) or 'none of them'}."
        )
    name, value = given[0]
    if name == "budget":
        least = float(prices[0])
        if not value >= least - ROUNDING * abs(least):
            raise InputError(
                f"`budget` must be at least what a window costs that leaves at the first exit, {least!r}. "
                f"Received: {value}. Allow {least!r} or more, or put an exit earlier."
            )
        return name, value
    if not 0 <= value <= 1:
        raise InputError(f"`{name}` must be a share between 0 and 1. Received: {value}.")
    limit = value if name == "max_drop" else reached - value
    if limit < -ROUNDING and on_bound:
        raise InputError(
            f"`floor` must not be above the balanced accuracy that the final exit reaches, {reached:.4f}. "
            f"Received: {value}. Ask for less, or train a better network."
        )
    return name, max(limit, 0.0) if on_bound else limit
