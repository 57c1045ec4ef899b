"""What leaving early loses against the full network, along one scalar that loosens all exits at once.

"Fast yet Safe" (Jazbec et al., arXiv 2405.20915) compares the policy with its own last exit, so that running
to the end is always admissible. Levels go from the strictest thresholds to the loosest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError, unknown_name
from mexit_edge.exits.rule import NEVER, decide

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

N_LEVELS = 256


def threshold_levels(
    highest: Sequence[int],
    lowest: Sequence[int],
    enabled: Sequence[bool] | None = None,
    n_levels: int = N_LEVELS,
) -> Integers:
    """Return the grid of thresholds, from the strictest to the loosest, evenly spaced per exit.

    256 levels from 255 to 0 are the integers of `logit_margin`; from 1 << 15 to 0, those of a score in Q15.

    Args:
        highest: the strictest integer threshold of each early exit.
        lowest: the loosest one.
        enabled: whether each early exit is switched on; one that is off has `NEVER` at every level.
        n_levels: how many levels; those that would repeat the one before are left out.

    Returns:
        (L, E - 1) integer thresholds.

    Raises:
        InputError: the numbers of values differ, a highest threshold is below its lowest, or there are fewer
            than two levels.
    """
    on = (True,) * len(highest) if enabled is None else tuple(enabled)
    if not len(highest) == len(lowest) == len(on):
        raise InputError(
            "`highest`, `lowest` and `enabled` need one value per early exit. "
            f"Received: {len(highest)}, {len(lowest)} and {len(on)} values."
        )
    if any(top < bottom for top, bottom in zip(highest, lowest, strict=True)):
        raise InputError(
            f"`highest` must not be below `lowest`. Received: {list(highest)} and {list(lowest)}. "
            "The first is the strictest threshold of each exit."
        )
    if n_levels < 2:
        raise InputError(
            f"`n_levels` must be at least 2: the strictest and the loosest. Received: {n_levels}."
        )
    levels = np.rint(np.linspace(highest, lowest, n_levels)).astype(np.int64)
    levels[:, ~np.asarray(on, bool)] = NEVER
    differs = (np.diff(levels, axis=0) != 0).any(axis=1)
    return levels[np.append(True, differs)]


def exits_along(scores: NDArray[Any], levels: Integers) -> Integers:
    """Return the exit, 1 to E, at which each window leaves at each level: (n, L).

    Args:
        scores: (n, E - 1) integer scores of the early exits.
        levels: (L, E - 1) integer thresholds.
    """
    exits = np.empty((len(scores), len(levels)), np.int64)
    for level, thresholds in enumerate(levels.tolist()):
        exits[:, level] = decide(scores, thresholds)
    return exits


def losses_along(scores: NDArray[Any], losses: NDArray[Any], levels: Integers) -> Floats:
    """Return what each window has lost at each level: the running maximum from the strictest level on.

    The methods of `control_risk` want a loss that does not fall as the exits loosen. A window's own loss may:
    a looser level can send it to an earlier exit that happens to be right. Its largest loss so far bounds it.

    Args:
        scores: (n, E - 1) integer scores of the early exits.
        losses: (n, E) loss of leaving at each exit, see `exit_losses`.
        levels: (L, E - 1) integer thresholds, the strictest first, see `threshold_levels`.

    Returns:
        (n, L) losses.

    Raises:
        InputError: shapes do not fit, or the levels do not loosen.
    """
    n, n_exits = losses.shape
    if scores.shape != (n, n_exits - 1) or levels.ndim != 2 or levels.shape[1] != n_exits - 1:
        raise InputError(
            f"`scores` and `levels` must fit `losses` of shape {losses.shape}: {n_exits - 1} early exits. "
            f"Received: {scores.shape} and {levels.shape}."
        )
    if (np.diff(levels, axis=0) > 0).any():
        raise InputError(
            "`levels` must go from the strictest thresholds to the loosest. Received: thresholds that rise "
            "from one level to the next. `threshold_levels` makes a grid in this order."
        )
    at_exit = np.take_along_axis(np.asarray(losses, np.float64), exits_along(scores, levels) - 1, axis=1)
    return np.asarray(np.maximum.accumulate(at_exit, axis=1))


def by_subject(losses: Floats, subject: Integers) -> Floats:
    """Return the mean loss of each subject at each level, so that subjects become the exchangeable units.

    Windows of one subject are not exchangeable with another's; subjects drawn alike are.

    Args:
        losses: (n, L) losses per window and level, see `losses_along`.
        subject: (n,) subject per window.

    Returns:
        (subjects, L) means, in ascending order of the subjects.
    """
    if len(subject) != len(losses):
        raise InputError(
            f"`subject` needs one value per window ({len(losses)}). Received: {len(subject)} values."
        )
    # Rows are added in one order at every level, so that rounding cannot make a mean fall along the levels.
    means = [losses[subject == one].mean(axis=0) for one in np.unique(subject)]
    return np.asarray(means, np.float64).reshape(-1, losses.shape[1])


def exit_losses(
    kind: str, predicted: Integers, y: Integers, probabilities: NDArray[np.floating[Any]] | None = None
) -> Floats:
    """Return the loss in [0, 1] of leaving at each exit, (n, E): `exit_gaps` clipped at 0.

    Clipping makes a window that only an early exit gets right earn nothing, so the risk that is controlled
    bounds the mean gap from above. To map a gap l of [-1, 1] to (l + 1) / 2 would not bring the gains back:
    the running maximum of `losses_along` starts where almost nothing leaves, at a gap of about 0.

    Args:
        kind: `performance_gap`, `consistency` or `brier_gap`.
        predicted: (n, E) class decided on when a window leaves at each exit.
        y: (n,) class indices; `consistency` does not look at them.
        probabilities: (n, E, classes), for `brier_gap` alone.

    Raises:
        InputError: no such loss, shapes do not fit, or probabilities are missing or are none.
    """
    return np.maximum(exit_gaps(kind, predicted, y, probabilities), 0.0)


def exit_gaps(
    kind: str, predicted: Integers, y: Integers, probabilities: NDArray[np.floating[Any]] | None = None
) -> Floats:
    """Return the signed loss of leaving at each exit against the final one, (n, E) in [-1, 1].

    - `performance_gap`: 1[class of the exit wrong] - 1[class of the final exit wrong].
    - `consistency`: 1[class of the exit is not that of the final exit]; never negative.
    - `brier_gap`: difference of the Brier scores sum_c (p_c - 1[c = y])^2, which lie in [0, 2], halved.

    Arguments and errors are those of `exit_losses`.
    """
    if kind not in RISK_LOSSES:
        raise unknown_name("loss", kind, RISK_LOSSES)
    if predicted.ndim != 2 or y.shape != predicted.shape[:1]:
        raise InputError(
            "`predicted` must be (windows, exits) and `y` (windows,). "
            f"Received: shapes {predicted.shape} and {y.shape}."
        )
    return RISK_LOSSES[kind](predicted, y, probabilities)


def _performance_gap(predicted: Integers, y: Integers, _: NDArray[Any] | None) -> Floats:
    wrong = (predicted != y[:, None]).astype(np.float64)
    return wrong - wrong[:, -1:]


def _consistency(predicted: Integers, y: Integers, _: NDArray[Any] | None) -> Floats:
    return (predicted != predicted[:, -1:]).astype(np.float64)


def _brier_gap(predicted: Integers, y: Integers, probabilities: NDArray[Any] | None) -> Floats:
    if probabilities is None or probabilities.ndim != 3 or probabilities.shape[:2] != predicted.shape:
        got = "None" if probabilities is None else f"shape {probabilities.shape}"
        raise InputError(
            f"`probabilities` must be (windows, exits, classes) for `brier_gap`, here {predicted.shape} and "
            f"the classes. Received: {got}. Pass the softmax of the logits, or choose another loss."
        )
    # "not" refuses NaN too. The sum is held to what float32 keeps.
    if not ((probabilities >= 0).all() and (abs(probabilities.sum(axis=2) - 1) <= 1e-3).all()):
        raise InputError(
            "`probabilities` must be at least 0 and add up to 1 over the classes. Received: values from "
            f"{probabilities.min()} to {probabilities.max()}. Pass the softmax of the logits."
        )
    n_classes = probabilities.shape[2]
    if ((y < 0) | (y >= n_classes)).any():
        raise InputError(
            f"`y` must be class indices from 0 to {n_classes - 1}. Received: {y.min()} to {y.max()}."
        )
    truth = np.eye(n_classes)[y]
    score = ((probabilities.astype(np.float64) - truth[:, None]) ** 2).sum(axis=2)
    return np.asarray(np.clip((score - score[:, -1:]) / 2, -1.0, 1.0))


RISK_LOSSES: dict[str, Callable[[Integers, Integers, NDArray[Any] | None], Floats]] = {
    "performance_gap": _performance_gap,
    "consistency": _consistency,
    "brier_gap": _brier_gap,
}
