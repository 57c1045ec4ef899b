"""Set a bundle's policy on calibration windows, and make the golden vectors that go with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mexit_edge.bundle import Bundle, Golden, TemporalSpec
from mexit_edge.errors import InputError
from mexit_edge.estimate import Device
from mexit_edge.exits import NEVER, BudgetedPoint, budgeted_curve
from mexit_edge.runtime import Runtime, available_engines, reference_engine
from mexit_edge.signals import Windows
from mexit_edge.simulate.evaluate import check_fit, raw_windows
from mexit_edge.simulate.exit_costs import ExitCosts, exit_costs
from mexit_edge.simulate.goals import DEFAULT_MAX_DROP, Goal, LeastCost, OnlineBudget, Scoring
from mexit_edge.simulate.policies import make_policy
from mexit_edge.simulate.scored import Judged, held_out_gate_scores
from mexit_edge.simulate.subjects import FITTED, refuse_seen

GOLDEN_WINDOWS = 48


def calibrate(
    bundle: Bundle,
    windows: Windows,
    goal: Goal | None = None,
    *,
    max_drop: float | None = None,
    score: str | Scoring = "logit_margin",
    cost: str | ExitCosts | None = None,
    device: str | Device | None = None,
    temporal: Sequence[TemporalSpec] = (),
    online: OnlineBudget | None = None,
    engine: str | None = None,
) -> Bundle:
    """Set thresholds on calibration windows and return the bundle with that policy.

    Args:
        bundle: the stages.
        windows: of calibration subjects, disjoint from training, validation and test subjects.
        goal: what the thresholds are to achieve; None for `LeastCost`.
        max_drop: short for ``goal=LeastCost(max_drop)``.
        score: a key of `mexit_edge.exits.SCORES`, or a `Scoring` with options, temperatures, and exits that
            are switched off.
        cost: of a window, one of `mexit_edge.simulate.COSTS`; None for the estimated latency where there is a
            device, else multiply-accumulates.
        device: to estimate the cost on, by name or as a `Device`.
        temporal: rules over the decisions of a stream, in order.
        online: what a controller is to hold over a stream; None for no controller.
        engine: executes the stages; None for the one that stands for the device.

    Raises:
        InputError: windows of subjects that the network was trained or validated on, or that do not fit or
            hold a single class; no such score, exit, cost or device; a goal out of reach.

    Example:
        ```python
        bundle = calibrate(bundle, split.calibration, Floor(0.94), cost="energy_uj", device="nucleo-u575zi")
        ```
    """
    return with_policy(
        bundle,
        judge(bundle, windows, engine),
        chosen_goal(goal, max_drop),
        score,
        cost if isinstance(cost, ExitCosts) else exit_costs(bundle, cost, device),
        temporal,
        online,
    )


def judge(bundle: Bundle, windows: Windows, engine: str | None = None) -> Judged:
    """Return calibration windows with what every exit says of them.

    Args:
        bundle: the stages.
        windows: of calibration subjects.
        engine: executes the stages; None for the one that stands for the device.

    Raises:
        InputError: windows of subjects that the network was trained or validated on, or that do not fit.
    """
    check_fit(bundle, windows)
    refuse_seen(bundle.manifest, windows, FITTED)
    engine = engine or reference_engine()
    logits = Runtime(bundle, engine).all_logits(raw_windows(bundle, windows))
    return Judged(logits, windows, engine=engine)


def budgeted_points(bundle: Bundle, judged: Judged, costs: ExitCosts) -> tuple[BudgetedPoint, ...]:
    """Return quality over cost on calibration windows by the scores of a bundle's policy.

    Args:
        bundle: with a policy.
        judged: the calibration windows.
        costs: of a window that leaves at each exit.

    Returns:
        39 points (`mexit_edge.exits.budgeted_curve`); thresholds and shares of exits that are off are `NEVER`
        and 0.
    """
    rule = bundle.manifest.exit_rule()
    scores, labels = rule.score(judged.logits)
    if rule.scores[0].name == "learned":
        # The policy's gates were fitted on these windows, and are surer of them than of others.
        scores = held_out_gate_scores(rule.scores[0].exits, judged, list(rule.enabled))
    on = np.flatnonzero(rule.enabled)
    points = budgeted_curve(
        scores[:, on[:-1]], labels[:, on], judged.windows.y, [costs.values[place] for place in on]
    )
    n_exits = len(rule.enabled)
    spread = []
    for point in points:
        thresholds, shares = [NEVER] * (n_exits - 1), [0.0] * n_exits
        for place, threshold in zip(on, point.thresholds, strict=False):
            thresholds[place] = threshold
        for place, share in zip(on, point.exit_shares, strict=True):
            shares[place] = share
        spread.append(replace(point, thresholds=tuple(thresholds), exit_shares=tuple(shares)))
    return tuple(spread)


def with_policy(
    bundle: Bundle,
    judged: Judged,
    goal: Goal,
    score: str | Scoring,
    costs: ExitCosts,
    temporal: Sequence[TemporalSpec] = (),
    online: OnlineBudget | None = None,
) -> Bundle:
    """Return the bundle with a policy made from logits; see `calibrate`."""
    scoring = Scoring(score) if isinstance(score, str) else score
    policy = make_policy(bundle, judged, goal, scoring, costs, online)
    policy = policy.model_copy(update={"temporal": tuple(temporal)})
    return bundle.with_manifest(policy=policy, golden=None)


def chosen_goal(goal: Goal | None, max_drop: float | None) -> Goal:
    """Return the goal that was meant.

    Raises:
        InputError: both were given.
    """
    if goal is None:
        return LeastCost(DEFAULT_MAX_DROP if max_drop is None else max_drop)
    if max_drop is not None:
        raise InputError(
            f"`max_drop` must be left out where there is a `goal`. Received: {max_drop}, {goal}."
        )
    return goal


def make_golden(bundle: Bundle, windows: Windows, n: int = GOLDEN_WINDOWS) -> Bundle:
    """Return the bundle with golden vectors: windows of every exit and class, as far as there are.

    Args:
        bundle: with its policy.
        windows: to choose from.
        n: number of golden windows.

    Raises:
        InputError: the windows do not fit the bundle.
    """
    check_fit(bundle, windows)
    samples = raw_windows(bundle, windows)
    reference = reference_engine()
    left_at = Runtime(bundle, reference).infer_batch(samples).exit
    # Round robin over exits, then in order of time: rare late exits are among them whenever there are any.
    turn = np.empty(len(windows), np.int64)
    for number in np.unique(left_at):
        members = np.flatnonzero(left_at == number)
        spread = np.random.default_rng(0).permutation(len(members))
        turn[members] = spread
    chosen = np.sort(np.argsort(turn, kind="stable")[:n])
    golden_windows = np.ascontiguousarray(samples[chosen])
    tensors = Runtime(bundle, reference).run_all_exits(golden_windows)
    decisions = {
        engine: Runtime(bundle, engine).infer_batch(golden_windows) for engine in available_engines()
    }
    return bundle.with_golden(
        Golden(
            windows=golden_windows,
            tensors=tensors,
            reference=reference,
            labels={engine: result.label for engine, result in decisions.items()},
            exits={engine: result.exit for engine, result in decisions.items()},
        )
    )
