"""Cycles measured on one board: what they say of its rates, of each other, and of the model itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from mexit_edge.estimate.interval import Estimate
from mexit_edge.estimate.latency.rates import Floats, LogRates, log_cycles

# Of the log speed of a board, beyond what is known of its core and library: another compiler, kernels in
# plain C or slow memory make all terms slower. One measured model outweighs it.
SPEED_DEVIATION = 1.0
# Of the log ratios between terms, where nothing but the measurements themselves is to count: half or double.
RATIO_DEVIATION = 0.7
# How much more than published boards this one may stray, in the ratios of its terms and in what terms do not
# tell of a model. The first is normal; of the second the log, as for the spreads in `choose_spreads`.
_RATIO_DEVIATIONS = (0.0, 0.2, 0.4, 0.8, 1.6)
_RATIO_SPREAD = 0.4
_GROWTHS = (1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0)
_GROWTH_SPREAD = 0.7


def of_any_speed(prior: LogRates) -> LogRates:
    """Return a prior that keeps what is known of the ratios of terms, and leaves the speed to be measured."""
    return replace(prior, covariance=prior.covariance + SPEED_DEVIATION**2)


def of_other_ratios(prior: LogRates, deviation: float) -> LogRates:
    """Return a prior whose terms stray by so much more, each by itself."""
    return replace(prior, covariance=prior.covariance + deviation**2 * np.eye(len(prior.mean)))


@dataclass(frozen=True)
class MeasuredCycles:
    """Cycles of models on one board with one kernel library.

    Args:
        asked: what each model asks for (`terms.amounts`), (models, terms).
        cycles: of one invocation, (models,).
    """

    asked: Floats
    cycles: Floats

    def __len__(self) -> int:
        return len(self.cycles)

    def without(self, index: int) -> MeasuredCycles:
        """Return all but one model."""
        return MeasuredCycles(np.delete(self.asked, index, axis=0), np.delete(self.cycles, index))

    def rates(self, prior: LogRates) -> LogRates:
        """Return what they make of a prior: the prior itself, where there are none."""
        return prior.updated(list(self.asked), self.cycles.tolist()) if len(self) else prior

    def left_out(self, prior: LogRates) -> tuple[Estimate, ...]:
        """Estimate the cycles of every model from those of the others."""
        return tuple(self.without(index).rates(prior).cycles(asked) for index, asked in enumerate(self.asked))

    def log_evidence(self, prior: LogRates) -> float:
        """Return how likely they are under the prior: the log, up to a constant per model."""
        if not len(self):
            return 0.0
        theta = self.rates(prior).mean
        value, shares = log_cycles(theta, self.asked)
        residual = np.log(self.cycles) - value - shares @ (prior.mean - theta)
        covariance = shares @ prior.covariance @ shares.T + prior.model_error**2 * np.eye(len(self))
        _, log_determinant = np.linalg.slogdet(covariance)
        return float(-0.5 * (residual @ np.linalg.solve(covariance, residual) + log_determinant))

    def contradiction(self, prior: LogRates, factor: float) -> tuple[int, Estimate] | None:
        """Return the model that contradicts the others by more than a factor, and what they let expect.

        The first model of its kind may be far off, and its interval says so: a contradiction lies outside of
        twice the interval that the others give it, where the ratios of terms may be others than published.

        Returns:
            None where there is no such model.
        """
        loose = of_other_ratios(prior, RATIO_DEVIATION)
        expected = self.left_out(loose)
        off = [
            index
            for index, (cycles, one) in enumerate(zip(self.cycles, expected, strict=True))
            if abs(math.log(cycles / one.value)) > max(math.log(factor), 2 * math.log(one.high / one.value))
        ]
        if len(self) < 2 or not off:
            return None
        # A wrong figure makes right ones look wrong too: it is the one without which the others agree best.
        worst = max(off, key=lambda index: self.without(index).log_evidence(loose))
        return worst, expected[worst]

    def likeliest(self, prior: LogRates) -> LogRates:
        """Return the prior, strayed from as far as makes them most likely.

        Never narrowed: a handful of models cannot show that a board is better understood than others.
        """

        def fit(strayed: tuple[float, float]) -> float:
            growth, deviation = strayed
            unusual = math.log(growth) / _GROWTH_SPREAD, deviation / _RATIO_SPREAD
            return self.log_evidence(_strayed(prior, *strayed)) - 0.5 * math.hypot(*unusual) ** 2

        return _strayed(prior, *max(product(_GROWTHS, _RATIO_DEVIATIONS), key=fit))


def _strayed(prior: LogRates, growth: float, deviation: float) -> LogRates:
    return replace(of_other_ratios(prior, deviation), model_error=prior.model_error * growth)
