"""The mathematics of risk control: what each method compares, for many columns of losses at once.

Every function takes (n, L) losses in [0, 1], a column per level, and judges each column by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Halvings of a bracket: 1 becomes 1e-12.
HALVINGS = 40


def adjusted_risk(losses: Floats) -> Floats:
    """Return (n * mean + 1) / (n + 1) per column: CRC accepts while this is at most eps.

    Conformal risk control (Angelopoulos et al., arXiv 2208.02814, theorem 1) with losses of at most 1; the
    same as mean <= ((n + 1) eps - 1) / n.
    """
    return (losses.sum(axis=0) + 1) / (len(losses) + 1)


def bets(losses: Floats, delta: float) -> Floats:
    """Return the share nu_i that is bet before each loss is seen, (n, L).

    nu_i = min(sqrt(2 log(1 / delta) / (n s2_{i-1})), 1), with the running variance s2 of the losses before,
    which starts at 1/4 with a mean of 1/2 (Waudby-Smith and Ramdas, arXiv 2010.09686; in this form Bates
    et al., arXiv 2101.02703). Looking only at the past is what makes the bet a fair one.
    """
    n = len(losses)
    seen = np.arange(2.0, n + 2)[:, None]  # one more than the losses so far: the start counts as one
    mean = (np.cumsum(losses, axis=0) + 0.5) / seen
    variance = (np.cumsum((losses - mean) ** 2, axis=0) + 0.25) / seen
    before = np.concatenate([np.full((1, losses.shape[1]), 0.25), variance[:-1]])
    return np.asarray(np.minimum(np.sqrt(2 * log(1 / delta) / (n * before)), 1.0))


def log_wealth(losses: Floats, stakes: Floats, risk: float) -> Floats:
    """Return max_i sum_{j <= i} log(1 - nu_j (x_j - risk)) per column.

    Where the mean loss is ``risk`` or more, this reaches log(1 / delta) in at most a share delta of all
    samples (Ville's inequality). It grows with ``risk``.

    Args:
        losses: (n, L).
        stakes: (n, L), see `bets`.
        risk: in (0, 1].
    """
    return np.asarray(np.cumsum(np.log1p(stakes * (risk - losses)), axis=0).max(axis=0))


def betting_passes(losses: Floats, eps: float, delta: float) -> NDArray[np.bool_]:
    """Tell per column whether the upper bound by betting is at most ``eps``, without looking for the bound.

    The wealth grows with the risk, so U = inf{m : wealth(m) > 1/delta} <= eps where wealth(eps) >= 1/delta.
    """
    return log_wealth(losses, bets(losses, delta), eps) >= log(1 / delta)


def hoeffding_bentkus(losses: Floats, eps: float) -> Floats:
    """Return the p-value per column of "the mean loss exceeds ``eps``".

    min(exp(-n h(min(mean, eps), eps)), e P(Binomial(n, eps) <= ceil(n mean))), with h the Kullback-Leibler
    divergence of two Bernoulli distributions ("Learn then Test", Angelopoulos et al., arXiv 2110.01052).
    """
    n = len(losses)
    total = losses.sum(axis=0)
    mean = np.minimum(total / n, eps)
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = np.where(mean > 0, mean * np.log(mean / eps), 0.0) + (1 - mean) * np.log(
            (1 - mean) / (1 - eps)
        )
    # Rounding may carry a sum of n ones past n.
    events = np.minimum(np.ceil(total), n).astype(np.int64)
    return np.asarray(np.minimum(np.exp(-n * divergence), np.e * binomial_cdf(n, eps)[events]))


def binomial_cdf(n: int, p: float) -> Floats:
    """Return P(Binomial(n, p) <= k) for k = 0 ... n, from sums of logarithms; 0 < p < 1."""
    log_factorial = np.append(0.0, np.cumsum(np.log(np.arange(1, n + 1))))
    k = np.arange(n + 1)
    log_mass = (
        log_factorial[-1] - log_factorial - log_factorial[::-1] + k * log(p) + (n - k) * float(np.log1p(-p))
    )
    return np.asarray(np.minimum(np.cumsum(np.exp(log_mass)), 1.0))


def least_passing(passes: Callable[[float], bool], low: float = 0.0, high: float = 1.0) -> float:
    """Return the smallest value in (low, high] that passes, by halving; ``high`` if none below it does.

    Args:
        passes: fails up to some value and passes from there on.
        low: taken to fail.
        high: taken to pass.
    """
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high
