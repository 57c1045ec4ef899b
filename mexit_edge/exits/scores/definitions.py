"""The scores in float: what the integers approximate, straight from the formulas."""

from __future__ import annotations

from collections.abc import Mapping
from math import log

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.exits.scores.registry import score_kind

Floats = NDArray[np.float64]


def float_scores(
    name: str, logits: NDArray[np.floating], options: Mapping[str, float] | None = None
) -> Floats:
    """Return (n, E) scores of float logits (n, E, classes), every exit looked at.

    `learned` has no definition in float: its gates are integers from the start.

    Raises:
        InputError: no such score, or `learned`.
    """
    kind = score_kind(name)
    if name == "learned":
        raise InputError("`score` must be one with a formula. Received: 'learned', which is fitted.")
    chosen = {**kind.options, **(options or {})}
    f = logits.astype(np.float64)
    p = _softmax(f)
    n_exits = f.shape[1]
    votes_of = np.arange(1, n_exits + 1)
    if name == "logit_margin":
        return _margin(f)
    if name == "max_prob":
        return p.max(axis=2)
    if name == "margin":
        return _margin(p)
    if name == "entropy":
        logs = np.where(p > 0, np.log(np.where(p > 0, p, 1.0)), 0.0)
        return 1 + (p * logs).sum(axis=2) / log(f.shape[2])
    if name == "ensemble":
        return np.cumsum(p, axis=1).max(axis=2) / votes_of
    if name == "geometric_ensemble":
        return _margin(np.cumsum(f, axis=1)) / votes_of
    if name == "boosted":
        sums = f.copy()
        for place in range(1, n_exits):
            sums[:, place] += chosen["rate"] * sums[:, place - 1]
        return _margin(sums)
    predicted = f.argmax(axis=2)
    if name == "vote":
        votes = np.cumsum(predicted[:, :, None] == np.arange(f.shape[2]), axis=1)
        return votes.max(axis=2) / votes_of ** chosen["lambda"]
    counts = np.zeros(predicted.shape)
    for place in range(1, n_exits):
        agrees = predicted[:, place] == predicted[:, place - 1]
        counts[:, place] = np.where(agrees, counts[:, place - 1] + 1, 0)
    return counts


def _softmax(logits: Floats) -> Floats:
    weights = np.exp(logits - logits.max(axis=2, keepdims=True))
    return np.asarray(weights / weights.sum(axis=2, keepdims=True))


def _margin(values: Floats) -> Floats:
    ordered = np.sort(values, axis=2)
    return np.asarray(ordered[:, :, -1] - ordered[:, :, -2])
