"""THE exit rule: leave at the first exit e with score_e >= threshold_e; the final exit takes the rest.

Every part that decides (the loop in Python, the batch path, calibration, later the generated C) calls or is
tested against these two functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError


def passes(score: Any, threshold: float) -> Any:
    """Tell whether a score lets a window leave at this exit.

    Args:
        score: one score or an array of them, in the threshold's own unit (integers where integers decide).
        threshold: the exit's threshold.

    Returns:
        A bool, or a boolean array of the score's shape.
    """
    return score >= threshold


def decide(scores: NDArray[Any], thresholds: Sequence[float]) -> NDArray[np.int64]:
    """Return the exit at which each window leaves.

    Args:
        scores: (n, E - 1) or (n, E) scores per exit; the final exit's own score is never looked at.
        thresholds: one per early exit, E - 1 of them.

    Returns:
        (n,) exit numbers from 1 to E.

    Raises:
        InputError: the numbers of scores and thresholds do not fit.
    """
    n_early = len(thresholds)
    if scores.ndim != 2 or scores.shape[1] not in (n_early, n_early + 1):
        raise InputError(
            f"`thresholds` needs one value per early exit. Received: {n_early} thresholds for scores of "
            f"shape {scores.shape}."
        )
    leaves = np.ones((len(scores), n_early + 1), bool)
    for early, threshold in enumerate(thresholds):
        leaves[:, early] = passes(scores[:, early], threshold)
    return leaves.argmax(axis=1) + 1
