"""Cycles measured on one board: what they say of its rates, of each other, and of the model itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from mexit_edge.errors import RunError
from mexit_edge.estimate.interval import Estimate
from mexit_edge.estimate.latency.rates import Floats, LogRates, log_cycles

# Of the log speed of a board, beyond what is known of its core and library: another compiler, kernels in
# plain C or slow memory make all terms slower. One measured model outweighs it.
SPEED_DEVIATION = 1.0
# How many times the half width of its interval a contradiction is off to be certain. Of 100 probe sets on
# boards as published figures expect them (model error included), 2 to 7 % hold one by chance, with five pairs
# of library and core; at once the half width it would be 6 to 15 %. Of the 46 systems of MLPerf Tiny v0.5 to
# v1.1 with three models or more, none held one, at any number.
CERTAIN_WIDTHS = 1.5
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
class Contradiction:
    """A model that is off from what the others let expect.

    Args:
        index: of the model.
        expected: cycles, by the others.
        is_certain: whether it is outside of the interval by far, so that chance does not explain it.
    """

    index: int
    expected: Estimate
    is_certain: bool


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

    def left_out(self, prior: LogRates) -> tuple[Estimate | None, ...]:
        """Estimate the cycles of every model from those of the others, whose straying alone counts.

        Returns:
            None for a single model: there are no others.
        """
        return tuple(
            others.rates(others.likeliest(prior)).cycles(asked) if len(others) else None
            for others, asked in ((self.without(index), asked) for index, asked in enumerate(self.asked))
        )

    def log_evidence(self, prior: LogRates) -> float:
        """Return how likely they are under the prior: the log, up to a constant per model."""
        if not len(self):
            return 0.0
        if (updated := self._settled(prior)) is None:
            return -math.inf
        theta = updated.mean
        value, shares = log_cycles(theta, self.asked)
        residual = np.log(self.cycles) - value - shares @ (prior.mean - theta)
        covariance = shares @ prior.covariance @ shares.T + prior.model_error**2 * np.eye(len(self))
        _, log_determinant = np.linalg.slogdet(covariance)
        return float(-0.5 * (residual @ np.linalg.solve(covariance, residual) + log_determinant))

    def _settled(self, prior: LogRates) -> LogRates | None:
        """Return `rates`; None where they do not settle, as no rates come near to what was measured."""
        try:
            return self.rates(prior)
        except RunError:
            return None

    def contradictions(self, prior: LogRates, factor: float) -> tuple[Contradiction, ...]:
        """Return the models that contradict the others by more than a factor, the worst one first.

        The prior is not loosened: the published ratios of terms are what the others let expect. A wrong
        figure makes right ones look wrong too, so that the worst is left out before the next one is looked
        for. It is the one without which the others agree best.
        """
        found: list[Contradiction] = []
        left = list(range(len(self)))
        while len(left) > 1:
            now = MeasuredCycles(self.asked[left], self.cycles[left])
            without = [now.without(place) for place in range(len(now))]
            # Where the others do not settle, what contradicts is among them.
            settled = {place: rates for place, one in enumerate(without) if (rates := one._settled(prior))}
            expected = {place: rates.cycles(now.asked[place]) for place, rates in settled.items()}
            offs = {place: abs(math.log(now.cycles[place] / one.value)) for place, one in expected.items()}
            off = [place for place, by in offs.items() if by > math.log(factor)]
            if not off:
                break
            worst = max(off, key=lambda place: without[place].log_evidence(prior))
            one = expected[worst]
            is_certain = offs[worst] > CERTAIN_WIDTHS * math.log(one.high / one.value)
            found.append(Contradiction(left.pop(worst), one, is_certain))
        return tuple(found)

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
