"""Quality over cost of one run, and the bound that its exits set, from the logits that it left.

Thresholds come from the calibration windows alone; the judged windows only say what they are worth. Cost is
a share of what the same network costs with a single exit. Between two neighbouring policies the curve is
linear, because a device that takes either at random reaches every point between them in expectation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.exits import balanced_weights, budgeted_curve, decide, make_scores, score_exits

if TYPE_CHECKING:
    from mexit_edge.benchmark.record import RunRecord

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SCORE = "logit_margin"
# Sums of shares in another order differ by less.
ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class QualityCostCurve:
    """Balanced accuracy over mean cost, linear between points.

    Args:
        cost: (points,) mean cost per window as a share of the plain network's, ascending and distinct.
        quality: (points,) balanced accuracy.
    """

    cost: Floats
    quality: Floats

    def quality_at(self, share: float) -> float | None:
        """Return the quality at a cost share; None below the cheapest point, that of the dearest above it."""
        if share < self.cost[0] - ROUNDING:
            return None
        return float(np.interp(share, self.cost, self.quality))

    def cost_at(self, quality: float) -> float | None:
        """Return the least cost share that reaches a quality, None where no point does."""
        reached = np.flatnonzero(self.quality >= quality - ROUNDING)
        if not len(reached):
            return None
        place = int(reached[0])
        if place == 0:
            return float(self.cost[0])
        ends = slice(place - 1, place + 1)
        return float(np.interp(quality, self.quality[ends], self.cost[ends]))

    def mean_quality(self, low: float, high: float) -> float:
        """Return the mean quality over the cost shares from ``low`` to ``high``, which is larger."""
        inside = self.cost[(self.cost > low) & (self.cost < high)]
        cost = np.concatenate([[low], inside, [high]])
        quality = np.interp(cost, self.cost, self.quality)
        return float(np.diff(cost) @ (quality[1:] + quality[:-1]) / 2 / (high - low))


def quality_cost_curve(record: RunRecord, severity: float = 0.0) -> QualityCostCurve:
    """Return the curve of a run at a severity.

    Its points are the 39 budgeted policies (`mexit_edge.exits.budgeted_curve`) of the calibration windows,
    and both ends: every window leaves at the first exit, and every window runs to the final one. Policies of
    equal cost count with their mean quality: which of them is better, only the judged windows could tell.

    Raises:
        InputError: the run was not judged at that severity.
    """
    cost, credit = _mixes(record, severity)
    return QualityCostCurve(cost, credit @ balanced_weights(record.y) / len(record.y))


def oracle_curve(record: RunRecord, severity: float = 0.0) -> QualityCostCurve:
    """Return the curve that no policy with these exits passes, drawn with the labels of the judged windows.

    Every window leaves at the first exit until the budget lets one run on that becomes right later: first
    those that add most balanced accuracy per multiply-accumulate. Windows that no exit gets right are not
    worth running. This is the linear relaxation of a knapsack, so it bounds mixes of policies too.

    Raises:
        InputError: the run was not judged at that severity.
    """
    _, predicted = scored(record, severity)
    macs = np.asarray(record.exit_macs, np.int64)
    weight = balanced_weights(record.y) / len(record.y)
    correct = predicted == record.y[:, None]
    at_first = float(weight[correct[:, 0]].sum())
    later = ~correct[:, 0] & correct.any(axis=1)
    extra = (macs - macs[0])[correct[later].argmax(axis=1)]
    # One step of the curve for all windows that cost the same per weight: there are few such prices.
    price, group = np.unique(extra / weight[later], return_inverse=True)
    cost = np.bincount(group, extra, len(price)) / len(record.y)
    gain = np.bincount(group, weight[later], len(price))
    free = price == 0
    start = at_first + float(gain[free].sum())
    return QualityCostCurve(
        (macs[0] + np.concatenate([[0.0], np.cumsum(cost[~free])])) / record.plain_macs,
        start + np.concatenate([[0.0], np.cumsum(gain[~free])]),
    )


def curve_area_share(record: RunRecord, severity: float = 0.0) -> float | None:
    """Return the area under the curve over the oracle's, from the first exit's cost to the plain network's.

    Returns:
        A share in [0, 1]; None where the first exit costs as much as the plain network, or nothing is right.

    Raises:
        InputError: the run was not judged at that severity.
    """
    low = record.exit_macs[0] / record.plain_macs
    if low >= 1:
        return None
    bound = oracle_curve(record, severity).mean_quality(low, 1.0)
    return quality_cost_curve(record, severity).mean_quality(low, 1.0) / bound if bound else None


def scored(record: RunRecord, severity: float = 0.0) -> tuple[Integers, Integers]:
    """Return (n, E) integer scores, and (n, E) classes predicted at each exit, of the judged windows.

    Raises:
        InputError: the run was not judged at that severity.
    """
    if severity not in record.severities:
        known = ", ".join(f"{one:g}" for one in record.severities)
        raise InputError(
            f"`severity` must be one that the run was judged at ({known}). Received: {severity}."
        )
    return _score(record, record.int8_logits[record.severities.index(severity)])


def decided(record: RunRecord, severity: float = 0.0) -> tuple[Integers, Integers]:
    """Return (n,) exits from 1 to E, and (n,) classes, that the run's own policy gives the judged windows.

    Raises:
        InputError: the run was not judged at that severity.
    """
    scores, predicted = scored(record, severity)
    exits = decide(scores, record.thresholds)
    return exits, predicted[np.arange(len(predicted)), exits - 1]


def final_credit(record: RunRecord) -> Floats:
    """Return (n,) 1 where the final exit is right on the window as it is, else 0."""
    return (scored(record)[1][:, -1] == record.y).astype(np.float64)


def policy_credit(record: RunRecord, severity: float = 0.0) -> Floats:
    """Return (n,) 1 where the run's own policy is right on the window at a severity, else 0."""
    return (decided(record, severity)[1] == record.y).astype(np.float64)


def credit_at(record: RunRecord, share: float) -> Floats | None:
    """Return (n,) probability that a window is told right at a cost share, by the mix of policies there.

    None below the first exit's cost, as `QualityCostCurve.quality_at`.
    """
    cost, credit = _mixes(record, 0.0)
    if share < cost[0] - ROUNDING:
        return None
    place = np.interp(share, cost, np.arange(len(cost)))
    low, high = int(np.floor(place)), int(np.ceil(place))
    return np.asarray(credit[low] + (place - low) * (credit[high] - credit[low]))


def _mixes(record: RunRecord, severity: float) -> tuple[Floats, Floats]:
    """Return distinct cost shares, ascending, and (points, n) how probably each window is told right."""
    scores, predicted = scored(record, severity)
    n, n_exits = predicted.shape
    macs = np.asarray(record.exit_macs, np.int64)
    left_at = [np.zeros(n, np.int64), np.full(n, n_exits - 1)]
    left_at += [decide(scores, thresholds) - 1 for thresholds in _thresholds(record)]
    right = predicted == record.y[:, None]
    # Sums of integers: equal costs are equal.
    totals, group, size = np.unique(
        [macs[exits].sum() for exits in left_at], return_inverse=True, return_counts=True
    )
    credit = np.zeros((len(totals), n))
    for place, exits in zip(group, left_at, strict=True):
        credit[place] += right[np.arange(n), exits] / size[place]
    return totals / (n * record.plain_macs), credit


# Every severity and figure of a run asks for the same ones.
@lru_cache(maxsize=1)
def _thresholds(record: RunRecord) -> tuple[tuple[int, ...], ...]:
    """Return the distinct thresholds of the budgeted policies on the calibration windows."""
    scores, predicted = _score(record, record.calibration_logits)
    points = budgeted_curve(scores, predicted, record.calibration_y, record.exit_macs)
    return tuple(dict.fromkeys(point.thresholds for point in points))


def _score(record: RunRecord, logits: NDArray[np.int8]) -> tuple[Integers, Integers]:
    return score_exits(make_scores(SCORE, record.scales, len(record.classes)), logits)
