"""Make a policy from logits: scores, temperatures, gates and thresholds, and what they rest on."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor, log2

import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle import (
    Bundle,
    Calibration,
    ControllerSpec,
    GateSpec,
    Manifest,
    Policy,
    RiskSpec,
    SupportSpec,
    TemperatureSpec,
)
from mexit_edge.errors import InputError, unknown_name
from mexit_edge.exits import (
    NEVER,
    Exits,
    Gate,
    RiskControl,
    Score,
    TemperatureFit,
    balanced_accuracy,
    balanced_weights,
    budgeted_thresholds,
    by_subject,
    control_risk,
    decide,
    exit_losses,
    fit_gates,
    fit_temperature,
    judge_temperature,
    losses_along,
    make_scores,
    score_exits,
    search_thresholds,
    softmax,
    tempered,
    threshold_family,
    threshold_levels,
    threshold_support,
    upper_bound_of_loss,
)
from mexit_edge.signals import Windows
from mexit_edge.simulate.exit_costs import ExitCosts
from mexit_edge.simulate.goals import (
    Budget,
    BudgetedShares,
    Floor,
    Given,
    Goal,
    LeastCost,
    OnlineBudget,
    Risk,
    Scoring,
)

GATE_FOLDS = 5
SECONDS_PER_DAY = 86_400
MOST_DEBT = 1 << 30

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Judged:
    """Calibration windows with what every exit says of them.

    Args:
        logits: (n, E, classes) int8, of every exit.
        windows: (n), of which only label, subject and name are read.
        engine: that made the logits; None for out-of-fold logits.
        folds: number of networks that made out-of-fold logits; None for logits of the bundle itself.
    """

    logits: NDArray[np.int8]
    windows: Windows
    engine: str | None = None
    folds: int | None = None


@dataclass(frozen=True, eq=False)
class _Scored:
    """What the exits that are on say of the calibration windows; the final exit comes last.

    Thresholds are searched over these exits alone: one that is off cannot be left at.
    """

    on: NDArray[np.intp]  # places of the exits that are on
    of_exit: tuple[Score, ...]
    scales: tuple[float, ...]
    scores: Integers
    predicted: Integers
    temperatures: tuple[float, ...] | None
    fits: tuple[TemperatureFit, ...]
    gates: tuple[Gate, ...]


@dataclass(frozen=True)
class _Found:
    """Thresholds of the early exits that are on, and how they were found."""

    thresholds: tuple[int, ...]
    exact: bool = True
    risk: RiskControl | None = None


def make_policy(
    bundle: Bundle,
    judged: Judged,
    goal: Goal,
    scoring: Scoring,
    costs: ExitCosts,
    online: OnlineBudget | None = None,
) -> Policy:
    """Set thresholds on calibration windows, and note how they were found.

    Args:
        bundle: on whose int8 grid the logits are.
        judged: the calibration windows.
        goal: what the thresholds are to achieve.
        scoring: what is scored.
        costs: of a window that leaves at each exit.
        online: what a controller is to hold over a stream; None for no controller.

    Raises:
        InputError: a single class, no such score, option or exit, a goal out of reach, or a guarantee asked
            for on out-of-fold logits.
    """
    manifest = bundle.manifest
    _check(manifest, judged, goal, scoring)
    scored = _score(manifest, judged, scoring)
    found = _thresholds(goal, scored, judged, manifest, costs)
    thresholds_int = [NEVER] * (len(manifest.stages) - 1)
    thresholds = [0.0] * len(thresholds_int)
    for place, score, threshold in zip(scored.on, scored.of_exit, found.thresholds, strict=False):
        thresholds_int[place], thresholds[place] = threshold, score.to_float(threshold)
    return Policy(
        score=scoring.score,
        thresholds=tuple(thresholds),
        thresholds_int=tuple(thresholds_int),
        temperatures=scored.temperatures,
        score_options=dict(scoring.options),
        gates=tuple(GateSpec(weights=gate.weights, bias=gate.bias) for gate in scored.gates),
        off=tuple(name for name in manifest.exits if name in scoring.off),
        calibration=_calibration(manifest, judged, goal, costs, scored, found),
        controller=None if online is None else _controller(manifest, scored, costs, online),
    )


def _check(manifest: Manifest, judged: Judged, goal: Goal, scoring: Scoring) -> None:
    early = manifest.exits[:-1]
    for name in scoring.off:
        if name not in early:
            raise unknown_name("off", name, early)
    present = np.unique(judged.windows.y)
    if len(present) < 2:
        raise InputError(
            "`windows` must hold at least two classes: on one alone an exit that always names it loses "
            f"nothing. Received: {len(judged.windows)} windows of {manifest.classes[int(present[0])]}."
        )
    if scoring.score == "boosted" and manifest.training.regime == "boosted":
        raise InputError(
            "`score` must not be boosted for a network trained with the regime boosted: its stages carry the "
            "running sum already. Received: 'boosted'. Use 'logit_margin', which is then the boosted score."
        )
    if not isinstance(goal, Risk):
        return
    if judged.folds is not None:
        raise InputError(
            "a risk can be controlled on held-out subjects only: out-of-fold logits are those of other "
            f"networks than the bundle's. Received: {goal.method} on {judged.folds} folds. Use `calibrate`."
        )
    if scoring.tempered or scoring.score == "learned":
        raise InputError(
            "a risk can be controlled for a score that is fixed beforehand only: temperatures and gates that "
            "are fitted on the same windows void the guarantee. "
            f"Received: {'temperatures' if scoring.tempered else 'learned'}. Use 'logit_margin'."
        )


def _score(manifest: Manifest, judged: Judged, scoring: Scoring) -> _Scored:
    """Fit temperatures and gates where they are asked for, and score the windows."""
    scales, n_classes = [stage.outputs[0].scale for stage in manifest.stages], len(manifest.classes)
    enabled = [name not in scoring.off for name in manifest.exits]
    fits = _fit_temperatures(judged, scales) if scoring.tempered else ()
    temperatures = tuple(fit.temperature for fit in fits) or None
    exits = tempered(scales, n_classes, temperatures)
    learns = scoring.score == "learned"
    gates = fit_gates(exits, judged.logits, judged.windows.y, enabled) if learns else ()
    scores = make_scores(
        scoring.score, scales, n_classes, temperatures=temperatures, options=scoring.options, gates=gates
    )
    columns, labels = score_exits(scores, judged.logits, enabled)
    if learns:
        columns = _held_out_gate_scores(exits, judged, enabled)
    on = np.flatnonzero(enabled)
    return _Scored(
        on=on,
        of_exit=tuple(scores[place] for place in on[:-1]),
        scales=tuple(exits.scales[place] for place in on),
        scores=columns[:, on],
        predicted=labels[:, on],
        temperatures=temperatures,
        fits=fits,
        gates=gates,
    )


def _fit_temperatures(judged: Judged, scales: list[float]) -> tuple[TemperatureFit, ...]:
    fits = []
    for place, scale in enumerate(scales):
        logits = judged.logits[:, place].astype(np.float64) * scale
        temperature = fit_temperature(logits, judged.windows.y)
        fits.append(judge_temperature(temperature, logits, judged.windows.y))
    return tuple(fits)


def _held_out_gate_scores(exits: Exits, judged: Judged, enabled: list[bool]) -> Integers:
    """Return (n, E) scores of gates that did not see the window they score.

    A gate is surer of the windows it was fitted on. Folds are subjects where there are several, else
    stretches of time, because neighbouring windows overlap.
    """
    n, y = len(judged.windows), judged.windows.y
    subjects, fold = np.unique(judged.windows.subject, return_inverse=True)
    if len(subjects) < 2:
        fold = np.arange(n) * GATE_FOLDS // n
    found = np.zeros((n, len(enabled)), np.int64)
    for number in np.unique(fold):
        held = fold == number
        gates = fit_gates(exits, judged.logits[~held], y[~held], enabled)
        scores = make_scores("learned", exits.scales, exits.n_classes, gates=gates)
        found[held] = score_exits(scores, judged.logits[held], enabled)[0]
    return found


def _thresholds(goal: Goal, scored: _Scored, judged: Judged, manifest: Manifest, costs: ExitCosts) -> _Found:
    """Return thresholds for the early exits that are on."""
    y, early = judged.windows.y, scored.scores[:, :-1]
    paid = [costs.values[place] for place in scored.on]
    if isinstance(goal, Given):
        return _Found(_given(goal, scored, manifest))
    if isinstance(goal, BudgetedShares):
        return _Found(budgeted_thresholds(early, Fraction(goal.ratio).limit_denominator(4096)))
    if isinstance(goal, Risk):
        return _controlled(goal, scored, judged)
    if isinstance(goal, LeastCost):
        searched = search_thresholds(early, scored.predicted, y, paid, goal.max_drop)
    elif isinstance(goal, Floor):
        searched = search_thresholds(early, scored.predicted, y, paid, floor=goal.balanced_accuracy)
    else:
        searched = search_thresholds(early, scored.predicted, y, paid, budget=goal.mean_cost)
    return _Found(searched.thresholds, searched.exact)


def _given(goal: Given, scored: _Scored, manifest: Manifest) -> tuple[int, ...]:
    """Return thresholds set by hand: whole numbers are integer scores, others the score's own unit."""
    names = [manifest.exits[place] for place in scored.on[:-1]]
    if set(goal.thresholds) != set(names):
        received = ", ".join(f"{name}={value:g}" for name, value in goal.thresholds.items()) or "none"
        raise InputError(
            f"`thresholds` needs one value per early exit that is on ({len(names)}: {', '.join(names)}). "
            f"Received: {received}."
        )
    values = [goal.thresholds[name] for name in names]
    return tuple(
        value if isinstance(value, int) else score.to_integer(value)
        for value, score in zip(values, scored.of_exit, strict=True)
    )


def _controlled(goal: Risk, scored: _Scored, judged: Judged) -> _Found:
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
    levels = threshold_levels(
        [score.highest for score in scored.of_exit], [score.lowest for score in scored.of_exit]
    )
    lost = exit_losses(goal.loss, scored.predicted, y, probabilities)
    losses = losses_along(scored.scores[:, :-1], lost, levels)
    if goal.unit == "subject":
        losses = by_subject(losses, windows.subject)
    risk = control_risk(losses, goal.method, goal.eps, goal.delta)
    never = (NEVER,) * len(scored.of_exit)
    return _Found(never if risk.index is None else tuple(levels[risk.index].tolist()), risk=risk)


def _controller(
    manifest: Manifest, scored: _Scored, costs: ExitCosts, online: OnlineBudget
) -> ControllerSpec:
    """Return a controller whose costs are whole numbers as fine as 32 bits of debt allow."""
    per_window_s = manifest.sensor.hop / manifest.sensor.sampling_rate_hz
    horizon = round(SECONDS_PER_DAY / per_window_s) if online.horizon is None else online.horizon
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
    return ControllerSpec(
        family=tuple(tuple(row) for row in family.tolist()),
        costs=tuple(max(1, round(value * scale)) for value in costs.values),
        budget=max(1, round(online.mean_cost * scale)),
        unit=costs.unit,
        unit_cost=1 / scale,
        horizon=horizon,
        tolerance=online.tolerance,
    )


def _calibration(
    manifest: Manifest, judged: Judged, goal: Goal, costs: ExitCosts, scored: _Scored, found: _Found
) -> Calibration:
    """Return the note on how the thresholds were set, and what they do on the windows."""
    y = judged.windows.y
    left_at = decide(scored.scores, found.thresholds) - 1
    predicted = scored.predicted[np.arange(len(y)), left_at]
    weights = balanced_weights(y)
    paired = weights * ((scored.predicted[:, -1] == y).astype(np.float64) - (predicted == y))
    lost = np.maximum(paired, 0.0)
    upper = upper_bound_of_loss(lost.sum(), (lost**2).sum(), len(y), float(weights.max()))
    max_drop = _allowed_drop(goal, balanced_accuracy(y, scored.predicted[:, -1]))
    names = [manifest.exits[place] for place in scored.on[:-1]]
    support = threshold_support(found.thresholds, scored.scores, scored.predicted, y, max_drop)
    return Calibration(
        data=judged.windows.name,
        subjects=judged.windows.subjects,
        n_windows=len(y),
        max_drop=goal.max_drop if isinstance(goal, LeastCost) else None,
        drop=float(paired.mean()),
        drop_upper=0.0 if (left_at == len(names)).all() else float(upper),
        cost=costs.unit,
        exact=found.exact,
        engine=judged.engine,
        kind="held_out" if judged.folds is None else "out_of_fold",
        folds=judged.folds,
        floor=goal.balanced_accuracy if isinstance(goal, Floor) else None,
        budget=goal.mean_cost if isinstance(goal, Budget) else None,
        ratio=goal.ratio if isinstance(goal, BudgetedShares) else None,
        risk=_risk_spec(goal, found.risk) if isinstance(goal, Risk) and found.risk else None,
        mean_cost=float(np.asarray(costs.values)[scored.on][left_at].mean()),
        balanced_accuracy=balanced_accuracy(y, predicted),
        support=tuple(
            SupportSpec(
                exit=name,
                windows=one.windows,
                losses=one.losses,
                loss_rate_low=one.interval.low if one.interval else None,
                loss_rate_high=one.interval.high if one.interval else None,
                supported=one.supported,
            )
            for name, one in zip(names, support, strict=True)
        ),
        temperatures=tuple(
            TemperatureSpec(
                exit=name,
                temperature=fit.temperature,
                ece_before=fit.ece_before,
                ece_after=fit.ece_after,
                at_limit=fit.at_limit,
            )
            for name, fit in zip(manifest.exits, scored.fits, strict=False)
        ),
    )


def _allowed_drop(goal: Goal, final: float) -> float | None:
    """Return the share of windows that a goal allows to lose; None where it names none."""
    if isinstance(goal, LeastCost):
        return goal.max_drop
    if isinstance(goal, Floor):
        return final - goal.balanced_accuracy
    return goal.eps if isinstance(goal, Risk) else None


def _risk_spec(goal: Risk, found: RiskControl) -> RiskSpec:
    return RiskSpec(
        method=goal.method,
        loss=goal.loss,
        eps=goal.eps,
        delta=goal.delta,
        unit=goal.unit,
        n=found.n,
        level=found.index,
        risk=found.risk,
        bound=found.bound,
    )
