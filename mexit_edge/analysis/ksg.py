"""Mutual information of two continuous variables from the distances to nearest neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mexit_edge.analysis.inputs import require_whole
from mexit_edge.errors import InputError

NEIGHBOURS = 4
# Kraskov et al. add noise so small that it does nothing but order points that fall on each other.
_JITTER = 1e-10


def ksg(x: ArrayLike, z: ArrayLike, neighbours: int = NEIGHBOURS) -> float:
    """Return an estimate of I(X; Z) in nats; it may come out slightly below 0.

    I = psi(k) + psi(n) - <psi(n_x + 1) + psi(n_z + 1)>, where n_x and n_z count the points that are nearer in
    X and Z alone than the k-th neighbour is in both, by the largest coordinate. Memory and time grow with
    n^2. Every coordinate is brought to variance 1 first, so that units do not matter, and gets noise of
    1e-10, so that values which occur more than once do no harm.

    The more dimensions and the stronger the dependence, the more it falls short: of two Gaussian coordinates
    in Z = X + noise with 2.5 nats it finds 2.4 with 1,000 points, of four with 9.2 nats 4.6.

    Args:
        x: (n, dimensions), finite.
        z: (n, dimensions), of the same points.
        neighbours: k, from 1 to n - 1.

    Raises:
        InputError: the arrays are not of that kind, or there are not more points than neighbours.

    Reference:
        Kraskov, Stoegbauer, Grassberger, "Estimating mutual information", Phys. Rev. E 69 (2004), eq. 8.
    """
    from scipy.spatial.distance import cdist
    from scipy.special import digamma

    require_whole("neighbours", neighbours, 1)
    rng = np.random.default_rng(0)
    of_x, of_z = (_coordinates(name, one, rng) for name, one in (("x", x), ("z", z)))
    n = len(of_x)
    if len(of_z) != n:
        raise InputError(f"`x` and `z` must hold the same points. Received: {n} and {len(of_z)} rows.")
    if n <= neighbours:
        raise InputError(
            f"`neighbours` must be below the number of points ({n}). Received: {neighbours}. "
            "Give more points."
        )
    of_x, of_z = cdist(of_x, of_x, "chebyshev"), cdist(of_z, of_z, "chebyshev")
    # Each point itself is at distance 0 and comes first.
    reach = np.partition(np.maximum(of_x, of_z), neighbours, axis=1)[:, [neighbours]]
    nearer_x = np.sum(of_x < reach, axis=1) - 1
    nearer_z = np.sum(of_z < reach, axis=1) - 1
    return float(digamma(neighbours) + digamma(n) - np.mean(digamma(nearer_x + 1) + digamma(nearer_z + 1)))


def _coordinates(name: str, values: ArrayLike, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return points with every coordinate of variance 1, or 0 where it is constant, and no two equal."""
    array: NDArray[Any] = np.asarray(values)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise InputError(
            f"`{name}` must be finite numbers (n, dimensions). "
            f"Received: {array.dtype} of shape {array.shape}. Give one row per point."
        )
    centred = array.astype(np.float64) - array.mean(axis=0, dtype=np.float64)
    deviation = centred.std(axis=0)
    # What is left of a constant by rounding is no variation.
    scaled = np.divide(
        centred, deviation, out=np.zeros_like(centred), where=deviation > 1e-12 * np.abs(array).max(axis=0)
    )
    return np.asarray(scaled + _JITTER * rng.standard_normal(scaled.shape))
