"""Cycles per unit of every term, on one kernel library and board, as far as they are known.

Their logarithms, theta, are jointly normal: measured models determine sums of terms, so that the terms of one
board are uncertain together. The logarithm of a model's cycles is nearly linear in theta, with the share of
every term in the cycles as its slope, and so normal too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import RunError
from mexit_edge.estimate.interval import Estimate
from mexit_edge.estimate.latency.terms import Amounts

Floats = NDArray[np.float64]

# Intervals are central ones of this level. What boards share was learned from ten boards: 5 % lie above this
# many standard deviations by Student's t with nine degrees of freedom (1.645 if ten boards told all).
LEVEL = 0.9
QUANTILE = 1.833

Found = TypeVar("Found")

# Steps that go back and forth are halved after a few; boards that share little with others take a hundred.
_MOST_STEPS = 300
_UNDAMPED_STEPS = 8
_SMALLEST_STEP = 1e-6


@dataclass(frozen=True)
class LogRates:
    """Distribution of the log cycles per unit.

    Args:
        mean: of theta, in the order of `terms.TERMS`, (8,).
        covariance: of theta, (8, 8).
        model_error: standard deviation of the log cycles of a model when theta is known: what eight terms do
            not tell of a model.
    """

    mean: Floats
    covariance: Floats
    model_error: float

    def cycles(self, amounts: Amounts, extra_deviation: float = 0.0) -> Estimate:
        """Estimate the cycles of a model, with a 90 % interval.

        Args:
            amounts: what it asks for (`terms.amounts`), (8,).
            extra_deviation: standard deviation of the log cycles on top, for what lies outside the data.
        """
        (value,), (shares,) = log_cycles(self.mean, amounts[None])
        variance = shares @ self.covariance @ shares + self.model_error**2 + extra_deviation**2
        factor = float(np.exp(QUANTILE * np.sqrt(max(float(variance), 0.0))))
        cycles = float(np.exp(value))
        return Estimate(cycles, cycles / factor, cycles * factor)

    def updated(self, amounts: Sequence[Amounts], cycles: Sequence[float]) -> LogRates:
        """Return what is known once models have been measured on the board itself.

        Args:
            amounts: of every measured model, each another one: their errors count as independent.
            cycles: measured.

        Raises:
            RunError: the steps do not settle.
        """
        asked, measured = np.asarray(amounts), np.log(np.asarray(cycles, np.float64))

        def step(theta: Floats) -> tuple[Floats, tuple[Floats, Floats]]:
            value, shares = log_cycles(theta, asked)
            across = self.covariance @ shares.T
            total = shares @ across + self.model_error**2 * np.eye(len(asked))
            weights = np.linalg.solve(total, measured - value - shares @ (self.mean - theta))
            return self.mean + across @ weights, (across, total)

        theta, (across, total) = settled(
            step, self.mean, _SMALLEST_STEP, "Take out the model that fits least."
        )
        return LogRates(
            mean=theta,
            covariance=self.covariance - across @ np.linalg.solve(total, across.T),
            model_error=self.model_error,
        )


def settled(
    step: Callable[[Floats], tuple[Floats, Found]], start: Floats, smallest: float, way_out: str
) -> tuple[Floats, Found]:
    """Take Gauss-Newton steps until they hardly change anything.

    Args:
        step: takes theta, and returns the next one and what else it found there.
        start: theta to begin with.
        smallest: change of the log of any rate that ends it.
        way_out: what to do where they do not settle.

    Returns:
        The last theta, and what the last step found.

    Raises:
        RunError: the steps do not settle.
    """
    theta = start
    for number in range(_MOST_STEPS):
        proposed, found = step(theta)
        change = proposed - theta
        theta = theta + change * (1.0 if number < _UNDAMPED_STEPS else 0.5)
        if np.abs(change).max() < smallest:
            return theta, found
    raise RunError(
        f"the fit of rates must settle within {_MOST_STEPS} steps. Received: changes of "
        f"{np.abs(change).max():.2g} in the log of a rate. {way_out}"
    )


def log_cycles(theta: Floats, amounts: Floats) -> tuple[Floats, Floats]:
    """Return the log cycles of models and the share of every term in the cycles.

    Args:
        theta: log cycles per unit, (terms,) or (models, terms).
        amounts: of every term, from 0, at least one above 0 in every model, (models, terms).

    Returns:
        Shapes (models,) and (models, terms).
    """
    with np.errstate(divide="ignore"):
        logs = theta + np.log(amounts)
    top = logs.max(axis=1, keepdims=True)
    parts = np.exp(logs - top)
    sums = parts.sum(axis=1, keepdims=True)
    return (top + np.log(sums))[:, 0], parts / sums
