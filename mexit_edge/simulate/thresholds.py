"""Thresholds for the early exits that are on, goal by goal; and the table of a controller."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor, log2
from numbers import Integral

import numpy as np

from mexit_edge.bundle import ControllerSpec, Manifest
from mexit_edge.errors import InputError
from mexit_edge.exits import (
    NEVER,
    BudgetController,
    RiskControl,
    budgeted_thresholds,
    by_subject,
    control_risk,
    exit_losses,
    losses_along,
    search_thresholds,
    softmax,
    threshold_family,
    threshold_levels,
)
from mexit_edge.simulate.exit_costs import MS_PER_DAY, ExitCosts
from mexit_edge.simulate.goals import BudgetedShares, Floor, Given, Goal, LeastCost, OnlineBudget, Risk
from mexit_edge.simulate.scored import Judged, Scored

MOST_DEBT = 1 << 30
# Of the cheapest exit's cost: rounding it is then an error of .5 % at most, a tenth of the usual tolerance.
LEAST_STEPS = 100
RATIO_STEPS = 4096


@dataclass(frozen=True)
class Found:
    """Thresholds of the early exits that are on, and how they were found.

    Args:
        thresholds: integers.
        exact: whether every combination was tried; None where nothing was searched.
        risk: what was controlled, if anything.
    """

    thresholds: tuple[int, ...]
    exact: bool | None = None
    risk: RiskControl | None = None


def find_thresholds(
    goal: Goal, scored: Scored, judged: Judged, manifest: Manifest, costs: ExitCosts
) -> Found:
    """Return thresholds for the early exits that are on."""
    y, early = judged.windows.y, scored.scores[:, :-1]
    paid = [costs.values[place] for place in scored.on]
    if isinstance(goal, Given):
        return Found(_given(goal, scored, manifest))
    if isinstance(goal, BudgetedShares):
        return Found(budgeted_thresholds(early, Fraction(round(goal.ratio * RATIO_STEPS), RATIO_STEPS)))
    if isinstance(goal, Risk):
        return _controlled(goal, scored, judged)
    if isinstance(goal, LeastCost):
        searched = search_thresholds(early, scored.predicted, y, paid, goal.max_drop)
    elif isinstance(goal, Floor):
        searched = search_thresholds(early, scored.predicted, y, paid, floor=goal.balanced_accuracy)
    else:
        searched = search_thresholds(early, scored.predicted, y, paid, budget=goal.mean_cost)
    return Found(searched.thresholds, searched.exact)


def _given(goal: Given, scored: Scored, manifest: Manifest) -> tuple[int, ...]:
    """Return thresholds set by hand: whole numbers are integer scores, others the score's own unit.

    Raises:
        InputError: not one per early exit that is on, or one that int32 does not hold.
    """
    names = [manifest.exits[place] for place in scored.on[:-1]]
    if set(goal.thresholds) != set(names):
        received = ", ".join(f"{name}={value:g}" for name, value in goal.thresholds.items()) or "none"
        raise InputError(
            f"`thresholds` needs one value per early exit that is on ({len(names)}: {', '.join(names)}). "
            f"Received: {received}."
        )
    found = []
    for name, score in zip(names, scored.of_exit, strict=True):
        value = goal.thresholds[name]
        steps = value if isinstance(value, Integral) else value / score.unit
        if not abs(steps) <= NEVER:
            raise InputError(
                f"`thresholds` must lie within 32 bits. Received: {value} for {name}, where the largest "
                f"score is {score.highest} ({score.to_float(score.highest):.6g}). `off` switches an exit off."
            )
        found.append(int(value) if isinstance(value, Integral) else score.to_integer(float(value)))
    return tuple(found)


def _controlled(goal: Risk, scored: Scored, judged: Judged) -> Found:
    """Return the loosest thresholds along one scalar that hold the risk."""
    y, windows = judged.windows.y, judged.windows
    probabilities = None
    if goal.loss == "brier_gap":
        probabilities = np.stack(
            [
                softmax(judged.logits[:, place].astype(np.float64) * scale)
                for place, scale in zip(scored.on, scored.scales, strict=True)
            ],
            axis=1,
        )
    # A score that compares exits says the same of all windows at the first one: nothing leaves there.
    enabled = [place > 0 or not score.compares_exits for place, score in enumerate(scored.of_exit)]
    levels = threshold_levels(
        [score.highest for score in scored.of_exit], [score.lowest for score in scored.of_exit], enabled
    )
    lost = exit_losses(goal.loss, scored.predicted, y, probabilities)
    losses = losses_along(scored.scores[:, :-1], lost, levels)
    if goal.unit == "subject":
        losses = by_subject(losses, windows.subject)
    risk = control_risk(losses, goal.method, goal.eps, goal.delta)
    never = (NEVER,) * len(scored.of_exit)
    return Found(never if risk.index is None else tuple(levels[risk.index].tolist()), risk=risk)


def make_controller(
    manifest: Manifest, scored: Scored, costs: ExitCosts, online: OnlineBudget
) -> ControllerSpec:
    """Return a controller whose costs are whole numbers as fine as 32 bits of debt allow."""
    horizon = round(MS_PER_DAY / manifest.sensor.hop_ms) if online.horizon is None else online.horizon
    n_early = len(manifest.stages) - 1
    if not scored.of_exit:
        raise InputError(
            "`online` needs an early exit that is on, to spend less or more. Received: none. Switch one on."
        )
    every = np.full((len(scored.scores), n_early + 1), 0, np.int64)
    every[:, scored.on] = scored.scores
    enabled = np.isin(np.arange(n_early + 1), scored.on)
    family = threshold_family(every, costs.values, online.mean_cost, enabled=enabled.tolist())
    # The debt stays below some two horizons' tolerance beside one window.
    room = 2 * online.tolerance * online.mean_cost * horizon + 4 * costs.values[-1]
    scale = 2.0 ** floor(log2(MOST_DEBT / room))
    if min(costs.values[0], online.mean_cost) * scale < LEAST_STEPS:
        raise InputError(
            f"`horizon` must leave the cheapest exit at least {LEAST_STEPS} steps of a debt of 32 bits. "
            f"Received: {horizon:,} windows, which leave {costs.values[0] * scale:.1f}. Shorten it."
        )
    whole = [round(value * scale) for value in costs.values]
    controller = BudgetController(
        family, whole, round(online.mean_cost * scale), horizon=horizon, tolerance=online.tolerance
    )
    return ControllerSpec.of(controller, unit=costs.unit, unit_cost=1 / scale)
