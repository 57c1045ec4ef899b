"""Make a policy from what exits say of calibration windows, and note what it rests on."""

from __future__ import annotations

import numpy as np

from mexit_edge.bundle import (
    Bundle,
    Calibration,
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
    RiskControl,
    balanced_accuracy,
    outcome_of,
    threshold_support,
)
from mexit_edge.simulate.exit_costs import ExitCosts
from mexit_edge.simulate.goals import (
    Budget,
    BudgetedShares,
    Floor,
    Goal,
    LeastCost,
    OnlineBudget,
    Risk,
    Scoring,
)
from mexit_edge.simulate.scored import Integers, Judged, Scored, score_windows
from mexit_edge.simulate.thresholds import Found, find_thresholds, make_controller


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
    scored = score_windows(manifest, judged, scoring)
    found = find_thresholds(goal, scored, judged, manifest, costs)
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
        controller=None if online is None else make_controller(manifest, scored, costs, online),
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
    if scoring.tempered and scoring.score == "learned":
        raise InputError(
            "`tempered` must be left out with the score learned, whose gates find their own scale. "
            "Received: both."
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


def _calibration(
    manifest: Manifest, judged: Judged, goal: Goal, costs: ExitCosts, scored: Scored, found: Found
) -> Calibration:
    """Return the note on how the thresholds were set, and what they do on the windows."""
    y = judged.windows.y
    paid = [costs.values[place] for place in scored.on]
    outcome = outcome_of(found.thresholds, scored.scores, scored.predicted, y, paid)
    return Calibration(
        data=judged.windows.name,
        subjects=judged.windows.subjects,
        n_windows=len(y),
        max_drop=goal.max_drop if isinstance(goal, LeastCost) else None,
        drop=outcome.drop,
        drop_upper=outcome.drop_upper,
        cost=costs.unit,
        exact=found.exact,
        engine=judged.engine,
        kind="held_out" if judged.folds is None else "out_of_fold",
        folds=judged.folds,
        floor=goal.balanced_accuracy if isinstance(goal, Floor) else None,
        budget=goal.mean_cost if isinstance(goal, Budget) else None,
        ratio=goal.ratio if isinstance(goal, BudgetedShares) else None,
        risk=_risk_spec(goal, found.risk) if isinstance(goal, Risk) and found.risk else None,
        mean_cost=outcome.mean_cost,
        balanced_accuracy=outcome.quality,
        support=_support(manifest, y, goal, scored, found),
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


def _support(
    manifest: Manifest, y: Integers, goal: Goal, scored: Scored, found: Found
) -> tuple[SupportSpec, ...]:
    names = [manifest.exits[place] for place in scored.on[:-1]]
    max_drop = _allowed_drop(goal, balanced_accuracy(y, scored.predicted[:, -1]))
    return tuple(
        SupportSpec(
            exit=name,
            windows=one.windows,
            losses=one.losses,
            loss_rate_low=one.interval.low if one.interval else None,
            loss_rate_high=one.interval.high if one.interval else None,
            supported=one.supported,
        )
        for name, one in zip(
            names,
            threshold_support(found.thresholds, scored.scores, scored.predicted, y, max_drop),
            strict=True,
        )
    )


def _allowed_drop(goal: Goal, final: float) -> float | None:
    """Return the share of windows that a goal allows to lose; None where it names none, or another loss."""
    if isinstance(goal, LeastCost):
        return goal.max_drop
    return final - goal.balanced_accuracy if isinstance(goal, Floor) else None


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
        least_eps=found.least_eps,
    )
