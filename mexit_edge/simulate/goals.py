"""What thresholds are to achieve on calibration windows, and what is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from mexit_edge.errors import InputError

DEFAULT_MAX_DROP = 0.005


@dataclass(frozen=True)
class LeastCost:
    """Least mean cost with a bounded loss against the final exit.

    Args:
        max_drop: largest allowed loss of balanced accuracy, as a share, held on the upper 90 % bound of the
            paired loss, gains not counted. The bound takes windows as independent and is not corrected for
            the search: it keeps the search off the edge, and guarantees nothing.
    """

    max_drop: float = DEFAULT_MAX_DROP


@dataclass(frozen=True)
class Floor:
    """Least mean cost with a balanced accuracy that does not fall below a floor.

    Args:
        balanced_accuracy: the floor, as a share; what the final exit has above it may be lost, held on the
            same bound as in `LeastCost`.
    """

    balanced_accuracy: float


@dataclass(frozen=True)
class Budget:
    """Best balanced accuracy within a mean cost per window.

    Args:
        mean_cost: in the unit of the costs (`calibrate`'s ``cost``).
    """

    mean_cost: float

    def __post_init__(self) -> None:
        _refuse_not_finite("budget", self.mean_cost)


@dataclass(frozen=True)
class BudgetedShares:
    """Shares of windows per exit that fall or rise by a constant ratio (MSDNet, arXiv 1703.09844).

    Args:
        ratio: share of an exit over that of the one before, p; below 1 windows leave early.
    """

    ratio: float

    def __post_init__(self) -> None:
        if not 1 / 64 <= self.ratio <= 64:
            raise InputError(
                f"`ratio` must lie between 1/64 and 64. Received: {self.ratio}. Below 1 most windows leave "
                "early."
            )


@dataclass(frozen=True)
class Risk:
    """Loosest thresholds whose risk against the final exit is held with a guarantee (`exits/risk.py`).

    One scalar loosens all exits together, so that a chain of tests stays valid.

    Args:
        eps: limit of the risk, as a share.
        method: ``"crc"``, ``"ucb"`` or ``"ltt"``.
        loss: ``"performance_gap"``, ``"consistency"`` or ``"brier_gap"``.
        delta: share of calibration sets that may miss the limit; nothing to ``"crc"``.
        unit: what is taken to be exchangeable with what comes later: ``"window"`` or ``"subject"``.
    """

    eps: float
    method: str = "ucb"
    loss: str = "performance_gap"
    delta: float = 0.1
    unit: Literal["window", "subject"] = "window"

    def __post_init__(self) -> None:
        if self.unit not in ("window", "subject"):
            raise InputError(f"`unit` must be one of: subject, window. Received: {self.unit!r}.")


@dataclass(frozen=True)
class Given:
    """Thresholds set by hand.

    Args:
        thresholds: exit name -> threshold, one per early exit that is on: an int in the score's integer
            steps, or a float in its own unit.
    """

    thresholds: Mapping[str, float]


Goal = LeastCost | Floor | Budget | BudgetedShares | Risk | Given


@dataclass(frozen=True)
class Scoring:
    """What is scored, and where.

    Args:
        score: a key of `mexit_edge.exits.SCORES`.
        options: of the score, by name.
        off: names of early exits that are switched off.
        tempered: whether a temperature per exit is fitted first (`mexit_edge.exits.fit_temperature`).
    """

    score: str = "logit_margin"
    options: Mapping[str, float] = field(default_factory=dict)
    off: tuple[str, ...] = ()
    tempered: bool = False


@dataclass(frozen=True)
class OnlineBudget:
    """A mean cost that a controller holds while a stream drifts (`mexit_edge.exits.BudgetController`).

    Args:
        mean_cost: in the unit of the costs.
        horizon: number of windows over which it is to hold; None for those of a day.
        tolerance: allowed deviation over the first horizon, as a share of the budget.
    """

    mean_cost: float
    horizon: int | None = None
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        _refuse_not_finite("online_budget", self.mean_cost)
        if (self.horizon is not None and self.horizon < 1) or not 0 < self.tolerance < 1:
            raise InputError(
                "`horizon` must be at least one window, and `tolerance` lie between 0 and 1. "
                f"Received: {self.horizon} and {self.tolerance}."
            )


def _refuse_not_finite(argument: str, value: float) -> None:
    if not 0 < value < inf:
        raise InputError(f"`{argument}` must be finite and above 0. Received: {value}.")
