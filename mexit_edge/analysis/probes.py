"""How much a representation tells of the class: a lower bound from probes on other subjects' windows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.exits import Interval
from mexit_edge.exits.metrics import drawn_subjects

LINEAR, MLP = "linear", "mlp"
# Strength of the L2 penalty, weakest first. Chosen on subjects set apart from the probe's own.
_PENALTIES: dict[str, tuple[float, ...]] = {LINEAR: (1e-4, 1e-2, 1.0), MLP: (1e-2, 3.0)}
HIDDEN_UNITS = 32
_ITERATIONS = {LINEAR: 300, MLP: 40}
DRAWS = 2000
LEVEL = 0.95
# A probability of exactly 0 would make a single window count infinitely.
_LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class ProbeBound:
    """H(Y) - CE of a probe: at least so much does the representation tell of the class, as an estimate.

    Args:
        probe: ``"linear"`` or ``"mlp"``.
        value: in nats; below 0 where the probe does worse than the shares of the classes.
        interval: over the judged subjects, drawn whole; None with fewer than two. With fewer than ten it is
            narrower than its level says.
        accuracy: of the probe.
    """

    probe: str
    value: float
    interval: Interval | None
    accuracy: float


def probe_bound(
    probe: str,
    z: NDArray[Any],
    y: NDArray[np.int64],
    subject: NDArray[np.int64],
    judged_z: NDArray[Any],
    judged_y: NDArray[np.int64],
    judged_subject: NDArray[np.int64],
    seed: int = 0,
) -> ProbeBound:
    """Fit a probe on some subjects and judge it on others: I(Z; Y) >= H(Y) - CE.

    The strength of its penalty is chosen on a quarter of the first subjects, on which it is then fitted too.

    Args:
        probe: ``"linear"``, a logistic regression, or ``"mlp"``, with one hidden layer of 32 units.
        z: (n, m) to fit on.
        y: (n,) class indices.
        subject: (n,).
        judged_z: (k, m) of other subjects.
        judged_y: (k,).
        judged_subject: (k,).
        seed: of the weights and draws.
    """
    make = _makers(probe, seed)
    model = _fitted(make(_chosen_penalty(probe, make, z, y, subject)), z, y)
    nats = _surprise(model, judged_z, judged_y)
    predicted = model.classes_[model.predict_proba(judged_z).argmax(axis=1)]
    return ProbeBound(
        probe=probe,
        value=entropy(judged_y) - float(nats.mean()),
        interval=_interval(nats, judged_y, judged_subject, seed),
        accuracy=float(np.mean(predicted == judged_y)),
    )


def entropy(y: NDArray[np.int64]) -> float:
    """Return the entropy of the shares of the classes, in nats."""
    return float(_entropies(np.unique(y, return_counts=True)[1][None, :])[0])


def _entropies(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the entropy of every row of counts (rows, classes)."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    return np.asarray(-np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1))


def _makers(probe: str, seed: int) -> Callable[[float], Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    if probe == LINEAR:
        return lambda penalty: LogisticRegression(C=1 / penalty, max_iter=_ITERATIONS[LINEAR])
    return lambda penalty: MLPClassifier(
        hidden_layer_sizes=(HIDDEN_UNITS,),
        alpha=penalty,
        # Few passes of large steps: the rate of the default needs hundreds.
        learning_rate_init=0.01,
        max_iter=_ITERATIONS[MLP],
        random_state=seed,
    )


def _fitted(estimator: Any, z: NDArray[Any], y: NDArray[np.int64]) -> Any:
    """Return the fitted estimator; it stops at its number of iterations without a warning, as was set."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(z, y)


def _chosen_penalty(
    probe: str,
    make: Callable[[float], Any],
    z: NDArray[Any],
    y: NDArray[np.int64],
    subject: NDArray[np.int64],
) -> float:
    subjects = np.unique(subject)
    # Every fourth subject; of one subject alone every fourth window.
    apart = np.isin(subject, subjects[::4]) if len(subjects) > 1 else np.arange(len(y)) % 4 == 0
    penalties = _PENALTIES[probe]
    if len(np.unique(y[~apart])) < 2 or not apart.any():
        return penalties[len(penalties) // 2]
    losses = [
        _surprise(_fitted(make(one), z[~apart], y[~apart]), z[apart], y[apart]).mean() for one in penalties
    ]
    return penalties[int(np.argmin(losses))]


def _surprise(model: Any, z: NDArray[Any], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return -log p of every window's class, (n,) in nats."""
    probabilities = model.predict_proba(z)
    places = np.searchsorted(model.classes_, y)
    known = (places < len(model.classes_)) & (
        model.classes_[np.minimum(places, len(model.classes_) - 1)] == y
    )
    of_class = np.where(
        known, probabilities[np.arange(len(y)), np.minimum(places, len(model.classes_) - 1)], 0
    )
    return np.asarray(-np.log(np.maximum(of_class, _LEAST_PROBABILITY)))


def _interval(
    nats: NDArray[np.float64], y: NDArray[np.int64], subject: NDArray[np.int64], seed: int
) -> Interval | None:
    """Return a percentile interval of H(Y) - CE over draws of whole subjects."""
    subjects, whom = np.unique(subject, return_inverse=True)
    if len(subjects) < 2:
        return None
    classes = np.searchsorted(np.unique(y), y)
    counts = np.zeros((len(subjects), classes.max() + 1))
    np.add.at(counts, (whom, classes), 1)
    summed = np.bincount(whom, nats)
    times = drawn_subjects(len(subjects), DRAWS, seed)
    totals = times @ counts
    bounds = _entropies(totals) - times @ summed / totals.sum(axis=1)
    low, high = np.quantile(bounds, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), LEVEL)
