"""THE exit rule: leave at the first exit e with score_e >= threshold_e; the final exit takes the rest.

Every part that decides (the loop in Python, the batch path, calibration, later the generated C) calls or is
tested against these two functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.exits.scores import Score, score_exits

NEVER = (1 << 31) - 1  # a threshold above every integer score, within int32


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


@dataclass(frozen=True)
class ExitRule:
    """Scores and thresholds of a network: everything that decides where a window leaves.

    Args:
        scores: one per exit, E of them.
        thresholds: integers, one per early exit; `NEVER` where the exit is switched off.
        enabled: (E,) whether each exit is looked at; the final one always is.

    Raises:
        InputError: the numbers do not fit each other, or the final exit is switched off.
    """

    scores: tuple[Score, ...]
    thresholds: tuple[int, ...]
    enabled: tuple[bool, ...]

    def __post_init__(self) -> None:
        n_exits = len(self.scores)
        if len(self.thresholds) != n_exits - 1 or len(self.enabled) != n_exits or not self.enabled[-1]:
            raise InputError(
                f"`thresholds` needs one value per early exit ({n_exits - 1}), and the final exit cannot be "
                f"switched off. Received: {len(self.thresholds)} thresholds, exits on: {list(self.enabled)}."
            )

    @property
    def n_state(self) -> int:
        """Number of integers that a window carries from exit to exit."""
        return max(score.n_state for score in self.scores)

    def score(self, logits: NDArray[np.int8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (n, E) scores, and (n, E) classes given to a window that leaves there; see `score_exits`."""
        return score_exits(self.scores, logits, self.enabled)

    def decide(self, logits: NDArray[np.int8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Decide on windows of which every exit's logits are known.

        Args:
            logits: (n, E, classes) int8.

        Returns:
            (n,) exit numbers from 1 to E, and (n,) classes.
        """
        scores, labels = self.score(logits)
        exits = decide(scores, self.thresholds)
        return exits, labels[np.arange(len(labels)), exits - 1]
