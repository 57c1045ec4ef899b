"""What an output tells of the window: nearest neighbours, and beside them a channel whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.analysis.ksg import ksg

REPEATS = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Repeated:
    """An estimate over several repetitions, with other noise and, where there are more, other windows.

    Args:
        mean: in nats.
        deviation: standard deviation of one repetition, in nats. It does not hold the estimator's bias.
    """

    mean: float
    deviation: float


@dataclass(frozen=True)
class Channel:
    """The estimator on a Gaussian channel whose information is known: what it can show, and what not.

    Component i of Z is component i of X, both Gaussian, of as many points and components and of the same
    variances as those of a network, with the same noise on Z.

    Args:
        known: sum of 1/2 log(1 + variance of a component of Z / variance of the noise), in nats.
        found: what the estimator says.
    """

    known: float
    found: Repeated

    @property
    def error(self) -> float:
        """Estimate minus truth in nats; mostly below 0: the estimator falls short."""
        return self.found.mean - self.known


def principal(values: NDArray[Any], components: int, seed: int) -> Floats:
    """Return the first principal components (n, k), scaled together so that their mean variance is 1."""
    from sklearn.decomposition import PCA

    reduction = PCA(min(components, *values.shape), random_state=seed)
    # Of a constant output the shares of its components in the variance are 0 / 0, and not used.
    with np.errstate(invalid="ignore"):
        found = reduction.fit_transform(values.astype(np.float64))
    power = float(np.mean(found**2))
    return np.asarray(found / (power**0.5 or 1.0))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Estimates I(X; Z + noise) for several Z of the same windows.

    Args:
        x: (n, k) principal components of the windows.
        noise: standard deviation of the noise on each component of Z.
        n: pairs per repetition, at most.
        seed: of the draws.
    """

    x: Floats
    noise: float
    n: int
    seed: int

    def repeated(self, z: Floats, *, shuffle: bool = False) -> Repeated:
        """Return the estimate for principal components (n, m) of an output; paired at random to shuffle."""
        found = []
        for rng in self._generators():
            chosen = rng.permutation(len(self.x))[: self.n]
            partner = rng.permutation(chosen) if shuffle else chosen
            found.append(self._once(self.x[chosen], z[partner], rng))
        return _summed_up(found)

    def channel(self, z: Floats) -> Channel:
        """Return truth and estimate for the Gaussian channel of the same size and variances."""
        of_x, of_z = self.x.std(axis=0), z.std(axis=0)
        shared = min(len(of_x), len(of_z))
        found = []
        for rng in self._generators():
            drawn = rng.standard_normal((min(self.n, len(self.x)), max(len(of_x), len(of_z))))
            found.append(self._once(drawn[:, : len(of_x)] * of_x, drawn[:, : len(of_z)] * of_z, rng))
        known = 0.5 * float(np.sum(np.log1p((of_z[:shared] / self.noise) ** 2)))
        return Channel(known, _summed_up(found))

    def _generators(self) -> list[np.random.Generator]:
        return [np.random.default_rng([self.seed, repeat]) for repeat in range(REPEATS)]

    def _once(self, x: Floats, z: Floats, rng: np.random.Generator) -> float:
        return ksg(x, z + self.noise * rng.standard_normal(z.shape))


def _summed_up(found: list[float]) -> Repeated:
    return Repeated(float(np.mean(found)), float(np.std(found, ddof=1)))
