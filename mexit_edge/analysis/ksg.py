"""Mutual information of two continuous variables from the distances to nearest neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError

NEIGHBOURS = 4


def ksg(x: NDArray[np.float64], z: NDArray[np.float64], neighbours: int = NEIGHBOURS) -> float:
    """Return an estimate of I(X; Z) in nats; it may come out slightly below 0.

    I = psi(k) + psi(n) - <psi(n_x + 1) + psi(n_z + 1)>, where n_x and n_z count the points that are nearer in
    X and Z alone than the k-th neighbour is in both, by the largest coordinate. Memory and time grow with
    n^2.

    The more dimensions and the stronger the dependence, the more it falls short: n points cannot show much
    more than log n nats.

    Args:
        x: (n, dimensions).
        z: (n, dimensions), of the same points.
        neighbours: k.

    Raises:
        InputError: there are not more points than neighbours.

    Reference:
        Kraskov, Stoegbauer, Grassberger, "Estimating mutual information", Phys. Rev. E 69 (2004), eq. 8.
    """
    from scipy.spatial.distance import cdist
    from scipy.special import digamma

    n = len(x)
    if n <= neighbours:
        raise InputError(f"`neighbours` must be below the number of points ({n}). Received: {neighbours}.")
    of_x, of_z = cdist(x, x, "chebyshev"), cdist(z, z, "chebyshev")
    both = np.maximum(of_x, of_z)
    # Each point itself is at distance 0 and comes first.
    reach = np.partition(both, neighbours, axis=1)[:, [neighbours]]
    nearer_x = np.sum(of_x < reach, axis=1) - 1
    nearer_z = np.sum(of_z < reach, axis=1) - 1
    # Points that fall on each other leave a reach of 0, within which there is nobody, not even oneself.
    counts = digamma(np.maximum(nearer_x, 0) + 1) + digamma(np.maximum(nearer_z, 0) + 1)
    return float(digamma(neighbours) + digamma(n) - np.mean(counts))
