"""Numerical rank: in how many directions the output of a block varies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mexit_edge.analysis.features import MAX_FEATURES, block_features
from mexit_edge.analysis.inputs import require_whole, sampled, shown
from mexit_edge.signals import Windows

THRESHOLD = 1e-3
N_WINDOWS = 2000


@dataclass(frozen=True, eq=False)
class NumericalRank:
    """The rank of every block's output.

    Args:
        exits: name per exit.
        rank: (E,) singular values above `threshold` times the largest one; 0 where nothing varies.
        share: (E,) rank / min(n, m).
        effective_rank: (E,) exp of the entropy of the singular values as shares of their sum (Roy and
            Vetterli, EUSIPCO 2007): tells blocks apart whose rank is full.
        singular_values: per exit, descending.
        n_windows: n, that were looked at.
        n_features: (E,) m, that were looked at.
        all_features: (E,) that the block has.
        threshold: of the rank.
    """

    exits: tuple[str, ...]
    rank: NDArray[np.int64]
    share: NDArray[np.float64]
    effective_rank: NDArray[np.float64]
    singular_values: tuple[NDArray[np.float64], ...]
    n_windows: int
    n_features: NDArray[np.int64]
    all_features: NDArray[np.int64]
    threshold: float = THRESHOLD

    @property
    def largest(self) -> NDArray[np.int64]:
        """(E,) min(n, m): no rank is above it."""
        return np.minimum(self.n_windows, self.n_features)

    def rows(self) -> list[dict[str, Any]]:
        """Return tidy rows: exit, rank, share, effective_rank, n_windows, n_features, all_features."""
        return [
            {
                "exit": exit_,
                "rank": int(self.rank[place]),
                "share": float(self.share[place]),
                "effective_rank": float(self.effective_rank[place]),
                "n_windows": self.n_windows,
                "n_features": int(self.n_features[place]),
                "all_features": int(self.all_features[place]),
            }
            for place, exit_ in enumerate(self.exits)
        ]


def numerical_rank(
    model: keras.Model,
    windows: Windows,
    *,
    n_windows: int = N_WINDOWS,
    max_features: int = MAX_FEATURES,
    seed: int = 0,
) -> NumericalRank:
    """Return the numerical rank of what every exit's head reads, in inference mode.

    A rank depends on n and m: compare networks on the same windows, blocks by their shares.

    Args:
        model: a `MultiExitModel` or a functional network with exits.
        windows: labelled; the labels are not used.
        n_windows: at most so many, drawn at random.
        max_features: of a block with more, so many are drawn at random.
        seed: of both draws.

    Raises:
        InputError: the windows do not fit the network, or a number is below 1.

    Reference:
        Threshold and number of features as in "Joint or Disjoint: Mixing Training Regimes for Early-Exit
        Models", arXiv 2407.14320.
    """
    require_whole("max_features", max_features, 1)
    given = shown(model, sampled(windows, n_windows, seed))
    features, sizes = block_features(given, max_features, seed)
    values = [singular_values(features[exit_]) for exit_ in given.exits]
    rank = np.asarray([rank_of(one) for one in values])
    shapes = np.asarray([features[exit_].shape for exit_ in given.exits])
    return NumericalRank(
        exits=given.exits,
        rank=rank,
        share=rank / shapes.min(axis=1),
        effective_rank=np.asarray([effective_rank_of(one) for one in values]),
        singular_values=tuple(values),
        n_windows=len(given.y),
        n_features=shapes[:, 1],
        all_features=np.asarray([sizes[exit_] for exit_ in given.exits]),
    )


def singular_values(matrix: ArrayLike) -> NDArray[np.float64]:
    """Return the singular values of a matrix (n, m) with its columns centred, min(n, m), descending.

    They come from the smaller of its two Gram matrices, in float64: below 1e-7 of the largest they are
    rounding, four decades under the threshold.
    """
    values = np.asarray(matrix, np.float64)
    values = values - values.mean(axis=0)
    gram = values @ values.T if values.shape[0] < values.shape[1] else values.T @ values
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0))


def rank_of(values: NDArray[np.float64], threshold: float = THRESHOLD) -> int:
    """Return how many singular values lie above a share of the largest one; 0 where all are 0."""
    return int(np.sum(values > threshold * values[0]))


def effective_rank_of(values: NDArray[np.float64]) -> float:
    """Return exp(-sum p log p) of p = values / sum of values; 0 where all are 0."""
    total = float(values.sum())
    if not total:
        return 0.0
    shares = values[values > 0] / total
    return float(np.exp(-np.sum(shares * np.log(shares))))
