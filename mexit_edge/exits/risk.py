"""Risk control: the loosest thresholds whose loss against the full network is held, with a guarantee.

Three methods, all free of assumptions on the distribution, all for calibration units that are exchangeable
with those met later. Windows of one subject are not exchangeable with another's: calibrate on held-out
subjects, and read the guarantee as one for windows drawn like theirs. All else (scores, temperatures, gates,
the grid of levels) must have been fixed before, on other data.

- `crc`: the mean risk over calibration sets is at most eps (arXiv 2208.02814).
- `ucb`: the risk exceeds eps in at most a share delta of calibration sets, by betting (arXiv 2010.09686).
- `ltt`: the same, by Hoeffding-Bentkus p-values in a fixed sequence (arXiv 2110.01052).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log, log1p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError, unknown_name
from mexit_edge.exits.risk_bounds import (
    adjusted_risk,
    bets,
    betting_passes,
    hoeffding_bentkus,
    least_passing,
    log_wealth,
)

Floats = NDArray[np.float64]

RISK_METHODS = ("crc", "ucb", "ltt")


@dataclass(frozen=True)
class RiskControl:
    """The level that a method chose, and what it rests on.

    Args:
        index: of the chosen level; None where not even the strictest passes, so that nothing leaves early.
        risk: mean loss of the calibration units at the chosen level; 0 for None, the full network's own.
        bound: what the method compares, at the chosen level, or at the strictest for None: `crc`, the
            adjusted risk, and `ucb`, the upper bound of the risk, with eps; `ltt`, the p-value, with delta.
        least_eps: the smallest eps at which the strictest level passes for these units; None where one
            does.
        n: number of calibration units.
        method: one of `RISK_METHODS`.
        eps: limit of the risk.
        delta: share of calibration sets that may miss it; nothing to `crc`, whose limit holds in the mean.
    """

    index: int | None
    risk: float
    bound: float
    least_eps: float | None
    n: int
    method: str
    eps: float
    delta: float

    @property
    def sentence(self) -> str:
        """What is promised; without a level, which eps or how many units would do."""
        if self.least_eps is not None:
            least = ceil(self.least_eps * 1e4) / 1e4  # rounded up: whoever asks for it passes
            for_these = f"`eps` must be at least {least:g}" if least < 1 else "no `eps` will do"
            return (
                f"No level passes ({self.method}, eps {self.eps:g}, {self.n} units), so nothing leaves "
                f"early: {for_these} for these units, or there must be at least "
                f"{least_units(self.method, self.eps, self.delta):,} units without a loss at the strictest "
                "level."
            )
        promise = (
            f"is at most {self.eps:g} in the mean over calibration sets"
            if self.method == "crc"
            else f"is at most {self.eps:g} but for {self.delta:g} of all calibration sets"
        )
        return (
            f"The risk {promise} ({self.method}, {self.n} units like those met later; "
            f"{self.risk:.3g} on these)."
        )


def control_risk(
    losses: NDArray[Any], method: str, eps: float, delta: float = 0.1, seed: int = 0
) -> RiskControl:
    """Choose the last level before the first that fails, from the strictest on.

    Args:
        losses: (n, L) in [0, 1], of n calibration units at L levels from the strictest to the loosest, not
            falling along the levels: `losses_along`, or `by_subject` of it.
        method: `crc`, `ucb` or `ltt`.
        eps: limit of the mean loss, between 0 and 1.
        delta: share of calibration sets that may miss it, between 0 and 1; nothing to `crc`.
        seed: of the order in which `ucb` sees the units. Windows come in order of time, and a bet on the next
            one would otherwise know the subject.

    Raises:
        InputError: no such method, ``eps`` or ``delta`` out of range, or losses that are empty, out of range
            or falling along the levels.
    """
    if method not in RISK_METHODS:
        raise unknown_name("method", method, RISK_METHODS)
    for name, share in (("eps", eps), ("delta", delta)):
        if not 0 < share < 1:
            raise InputError(f"`{name}` must be between 0 and 1, both excluded. Received: {share}.")
    losses = _checked(losses)
    if method == "ucb":
        losses = losses[np.random.default_rng(seed).permutation(len(losses))]
    # Levels that lose what the one before loses are judged once: most do.
    new = np.append(True, (losses[:, 1:] != losses[:, :-1]).any(axis=0))
    passes = _passes(losses[:, new], method, eps, delta)[np.cumsum(new) - 1]
    index = None if not passes[0] else (len(passes) if passes.all() else int(np.argmin(passes))) - 1
    column = losses[:, [index or 0]]
    return RiskControl(
        index=index,
        risk=0.0 if index is None else float(column.mean()),
        bound=_bound(column, method, eps, delta, passed=index is not None),
        least_eps=None if index is not None else _least_eps(column, method, eps, delta),
        n=len(losses),
        method=method,
        eps=eps,
        delta=delta,
    )


def least_units(method: str, eps: float, delta: float = 0.1) -> int:
    """Return the number of calibration units, all without a loss, below which a method accepts no level.

    So many are enough for `crc` and `ltt`; `ucb` needs some per cent more, 3 % at a delta of 0.1.

    Args:
        method: one of `RISK_METHODS`.
        eps: limit of the risk.
        delta: as in `control_risk`.
    """
    needed = {
        "crc": 1 / eps - 1,
        # Nothing is ever bet but a share of at most 1, so that n units win (1 + eps)**n at best.
        "ucb": -log(delta) / log1p(eps),
        "ltt": log(delta) / log1p(-eps),
    }[method]
    # Rounding must not ask for one more where eps is 1 / (n + 1) itself.
    return max(1, ceil(needed * (1 - 1e-12)))


def _checked(losses: NDArray[Any]) -> Floats:
    # Differences of booleans would never be negative.
    losses = np.asarray(losses, np.float64)
    if losses.ndim != 2 or not losses.size:
        raise InputError(
            "`losses` must be (units, levels), at least one of each. "
            f"Received: shape {losses.shape}. See `losses_along`."
        )
    # "not" refuses NaN too.
    if not ((losses >= 0) & (losses <= 1)).all():
        raise InputError(
            f"`losses` must lie in [0, 1]. Received: values from {losses.min()} to {losses.max()}. "
            "`exit_losses` makes such losses; halve or clip others."
        )
    if (np.diff(losses, axis=1) < 0).any():
        raise InputError(
            "`losses` must not fall along the levels, from the strictest to the loosest. Received: losses "
            "that do. Pass the running maximum, as `losses_along` returns it."
        )
    return losses


def _passes(losses: Floats, method: str, eps: float, delta: float) -> NDArray[np.bool_]:
    """Tell per level whether it passes, each by itself."""
    if method == "crc":
        return adjusted_risk(losses) <= eps
    if method == "ucb":
        return betting_passes(losses, eps, delta)
    return hoeffding_bentkus(losses, eps) <= delta


def _bound(column: Floats, method: str, eps: float, delta: float, passed: bool) -> float:
    """Return what the method compares, of one level."""
    if method == "crc":
        return float(adjusted_risk(column)[0])
    if method == "ltt":
        return float(hoeffding_bentkus(column, eps)[0])
    stakes = bets(column, delta)
    # The bound is looked for on its own side of eps, so that it never contradicts the decision.
    low, high = (0.0, eps) if passed else (eps, 1.0)
    return least_passing(lambda risk: bool(log_wealth(column, stakes, risk)[0] >= -log(delta)), low, high)


def _least_eps(column: Floats, method: str, eps: float, delta: float) -> float:
    """Return the smallest eps at which one level passes that fails at ``eps``."""
    if method == "ltt":
        return least_passing(lambda larger: bool(hoeffding_bentkus(column, larger)[0] <= delta), eps)
    return _bound(column, method, eps, delta, passed=False)
