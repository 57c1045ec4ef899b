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
    loss = (reference == y).astype(np.float64) - (predicted == y)
    drops = drawn_balanced_means(loss, y, which, drawn_subjects(len(subjects), draws, seed))
    low, high = np.quantile(drops, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)


def drawn_subjects(n_subjects: int, draws: int, seed: int) -> NDArray[np.float64]:
    """Return (draws, subjects) how often each subject is there when as many are drawn with replacement."""
    drawn = np.random.default_rng(seed).integers(n_subjects, size=(draws, n_subjects))
    places = drawn + n_subjects * np.arange(draws)[:, None]
    times = np.bincount(places.ravel(), minlength=draws * n_subjects)
    return times.reshape(draws, n_subjects).astype(np.float64)


def drawn_balanced_means(
    values: NDArray[np.float64], y: NDArray[np.int64], subject: NDArray[np.int64], times: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the mean over classes of a value per window, for every draw of whole subjects.

    Args:
        values: (n,) one per window.
        y: (n,) labels.
        subject: (n,) column of ``times`` per window.
        times: (draws, subjects) of `drawn_subjects`.

    Returns:
        (draws,) over the classes that a draw holds; NaN where it holds no window.
    """
    classes, column = np.unique(y, return_inverse=True)
    # Per subject and class: summed value and number of windows. A draw only adds rows of these tables.
    summed, counts = np.zeros((2, times.shape[1], len(classes)))
    np.add.at(summed, (subject, column), values)
    np.add.at(counts, (subject, column), 1)
    totals = times @ counts
    is_there = totals > 0
    means = np.divide(times @ summed, totals, out=np.zeros_like(totals), where=is_there)
    n_classes = is_there.sum(axis=1)
    return np.divide(means.sum(axis=1), n_classes, out=np.full(len(times), np.nan), where=n_classes > 0)


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
