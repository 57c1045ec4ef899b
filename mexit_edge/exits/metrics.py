"""Figures of merit on labels, predictions and logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15


@dataclass(frozen=True)
class Interval:
    """An interval of plausible values and the level it was made for.

    Args:
        low: lower end.
        high: upper end.
        level: nominal coverage, between 0 and 1.
    """

    low: float
    high: float
    level: float


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return (n, classes) probabilities of float logits."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float64)


def log_loss(logits: NDArray[Any], y: NDArray[np.int64]) -> float:
    """Return the mean cross-entropy over windows and exits, in nats.

    Args:
        logits: (n, E, classes).
        y: (n,) class indices.
    """
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=2, keepdims=True)
    of_class = shifted[np.arange(len(y)), :, y]
    return float(np.mean(np.log(np.exp(shifted).sum(axis=2)) - of_class))


def balanced_weights(y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a weight per window, of mean 1, that gives every class present in ``y`` the same total.

    The weighted mean of "is correct" under these weights is the balanced accuracy.
    """
    classes, index, counts = np.unique(y, return_inverse=True, return_counts=True)
    return (len(y) / (len(classes) * counts))[index]


def balanced_accuracy(y: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """Return the mean over the classes present in ``y`` of the share predicted right."""
    return float(np.mean(balanced_weights(y) * (predicted == y)))


def paired_drop_interval(
    y: NDArray[np.int64],
    reference: NDArray[np.int64],
    predicted: NDArray[np.int64],
    subject: NDArray[np.int64],
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval | None:
    """Return a percentile bootstrap interval of the balanced accuracy that ``predicted`` loses.

    Whole subjects are drawn with replacement, because windows of one subject are not independent.

    Args:
        y: (n,) labels.
        reference: (n,) predictions of the final exit.
        predicted: (n,) predictions of the policy.
        subject: (n,) subject per window.
        level: nominal coverage.
        draws: number of bootstrap samples.
        seed: of the draws.

    Returns:
        The interval; None with fewer than two subjects, of which nothing can be drawn.
    """
    subjects, which = np.unique(subject, return_inverse=True)
    if len(subjects) < 2:
        return None
    classes = np.unique(y)
    loss = (reference == y).astype(np.float64) - (predicted == y)
    # Per subject and class: summed loss and number of windows. A draw only adds rows of these tables.
    lost, counts = np.zeros((2, len(subjects), len(classes)))
    column = np.searchsorted(classes, y)
    np.add.at(lost, (which, column), loss)
    np.add.at(counts, (which, column), 1)
    drawn = np.random.default_rng(seed).integers(len(subjects), size=(draws, len(subjects)))
    totals = counts[drawn].sum(axis=1)
    drops = np.divide(lost[drawn].sum(axis=1), totals, out=np.full(totals.shape, np.nan), where=totals > 0)
    low, high = np.quantile(np.nanmean(drops, axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)


def expected_calibration_error(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = BINS
) -> float:
    """Return the expected calibration error over bins of equal mass (Nixon et al., arXiv 1904.01685).

    Args:
        confidence: (n,) probability given to the predicted class.
        correct: (n,) whether the prediction is right.
        bins: number of bins.
    """
    parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
    gaps = [abs(confidence[part].mean() - correct[part].mean()) * len(part) for part in parts if len(part)]
    return float(sum(gaps) / len(confidence))
