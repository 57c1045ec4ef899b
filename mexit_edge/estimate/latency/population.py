"""What published measurements say of a kernel library on a board, measured there or not.

Every measurement is the cycles of one model on one system: a board with a kernel library on it. With theta
the logarithm of the cycles per unit of every term (`terms`),

    log cycles = log sum_j exp(theta_j) * amount_j + error
    theta_j    = prior mean_j + speed of the system + preference of the system for term j

Speeds, preferences and errors are normal, and each is a sum of parts that systems share: all of them, those
of one family of libraries, of one version, of one core, of one family on one core, of one board, and their
own. The standard deviations of the parts (`Spreads`) tell how much a board says of another one. A board or
library without measurements thus gets the figures of its relatives and their uncertainty.

It is a Gaussian process over systems with a linearised sum of terms (the Laplace approximation; Rasmussen and
Williams, Gaussian Processes for Machine Learning, 2006, sections 2.7 and 3.4). `choose_spreads` maximizes the
marginal likelihood (section 5.4.1), with a weak prior on the spreads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import RunError
from mexit_edge.estimate.latency.rates import Floats, LogRates, log_cycles, settled

Indices = Sequence[int] | NDArray[np.intp]

GROUPS = ("all", "family", "version", "core", "family_core", "board", "system")

_UNLIKELY = 1e6
_SMALLEST_STEP = 1e-3  # Of the log of a rate: a tenth of a percent.


@dataclass(frozen=True)
class Prior:
    """What is believed of cycles per unit before any measurement; one value per term of `TERMS`.

    The ratios of the four kinds of multiply-accumulates are those of the simplest predictor that this one has
    to beat (four rates per system). On an emulated Cortex-M4 an output costs 40 to 100 instructions and a
    multiply-accumulate 2 to 3: 20 is 40 to 2. An element of other operators costs 14 (pooling in CMSIS-NN) to
    92 (ADD in plain C99) there. TFLM takes 660 to 960 cycles per operator on Cortex-M4, M7 and ESP32: 350
    times 2.5. What an invocation takes is not published; 400 is a guess.

    Args:
        cycles_per_mac: of a 1x1 convolution; systems differ tenfold, so that it hardly matters.
        ratios: cycles per unit over it.
        vagueness: how much a ratio may be off, over that of the convolutions.
    """

    cycles_per_mac: float = 2.5
    ratios: tuple[float, ...] = (1.0, 1.0, 4.0, 1.5, 20.0, 9.0, 350.0, 400.0)
    vagueness: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 2.0, 4.0, 3.0, 4.0)

    @property
    def mean(self) -> Floats:
        """Of the log cycles per unit."""
        return np.log(np.array(self.ratios) * self.cycles_per_mac)


@dataclass(frozen=True)
class System:
    """A kernel library on a board.

    Args:
        board: the board.
        core: its processor core.
        family: the kernel library.
        version: the library's version, within its family.
        name: of this very set-up: two submissions of one library on one board differ in it.
    """

    board: str
    core: str
    family: str
    version: str
    name: str

    def groups(self) -> tuple[str, ...]:
        """Return what it shares with others, one label per group of `GROUPS`."""
        version, family_core = f"{self.family} {self.version}", f"{self.family} on {self.core}"
        return ("", self.family, version, self.core, family_core, self.board, self.name)


@dataclass(frozen=True)
class Measurement:
    """Cycles of one invocation of a model on a system.

    Args:
        system: where.
        model: name of the model; the same model has the same name everywhere.
        amounts: what it asks for (`terms.amounts`), (terms,).
        cycles: measured latency times clock.
        deviation: standard deviation of the log cycles on top of `Spreads.error`, for what is no whole model.
    """

    system: System
    model: str
    amounts: Floats
    cycles: float
    deviation: float = 0.0


@dataclass(frozen=True)
class Spreads:
    """Standard deviations of the parts of speeds, preferences and errors, in log cycles: one per group.

    The defaults are the starting point of `choose_spreads`, and the centre of its prior.
    """

    speed: tuple[float, ...] = (0.5, 0.3, 0.15, 0.3, 0.1, 0.15, 0.03)
    preference: tuple[float, ...] = (0.25, 0.15, 0.1, 0.1, 0.1, 0.05, 0.0)
    error: tuple[float, ...] = (0.05, 0.04, 0.03, 0.03, 0.02, 0.02, 0.01)

    @property
    def model_error(self) -> float:
        """Standard deviation of the log cycles of a model measured nowhere, the rates being known."""
        return float(np.sqrt(np.square(self.error).sum()))


class Population:
    """Measurements and what they say of each other's systems.

    Args:
        measurements: of any number of models and systems.
        spreads: how much systems share.
        prior: what is believed before any measurement.
    """

    def __init__(
        self,
        measurements: Sequence[Measurement],
        spreads: Spreads = Spreads(),
        prior: Prior = Prior(),
    ) -> None:
        self.measurements = tuple(measurements)
        self.spreads = spreads
        self.prior = prior
        self._vagueness_squared = np.square(prior.vagueness)
        self._amounts = np.array([one.amounts for one in self.measurements])
        self._log_cycles = np.log([one.cycles for one in self.measurements])
        # The least keeps the covariance of equal rows (one board published twice) invertible.
        self._noise = np.square([one.deviation for one in self.measurements]) + 1e-6
        models = np.array([one.model for one in self.measurements], dtype=object)
        self._same_model = models[:, None] == models[None, :]
        systems = [one.system for one in self.measurements]
        self._shared = _shared(systems, systems)

    def with_spreads(self, spreads: Spreads) -> Population:
        """Return the same measurements under other spreads."""
        return Population(self.measurements, spreads, self.prior)

    def predict(self, known: Indices) -> tuple[Floats, Floats]:
        """Predict every measurement from some of them.

        Args:
            known: indices of the measurements that count as known.

        Returns:
            Mean and standard deviation of the log cycles of all measurements, (n,) each.
        """
        fit = self._fit(np.asarray(known, np.intp))
        across = fit.covariance[:, fit.known]
        explained = np.einsum("ij,ji->i", across, np.linalg.solve(fit.known_covariance, across.T))
        return fit.centre + across @ fit.weights, np.sqrt(np.maximum(np.diag(fit.covariance) - explained, 0))

    def rates(self, system: System, known: Indices | None = None) -> LogRates:
        """Return what is known of a system's cycles per unit.

        Args:
            system: any; what it shares with measured ones decides how much is known.
            known: indices of the measurements that count as known; all if None.
        """
        fit = self._fit(np.arange(len(self.measurements)) if known is None else np.asarray(known, np.intp))
        shared = _shared([system], [self.measurements[index].system for index in fit.known])
        # Covariance of theta with the log cycles of every known measurement: (terms, known).
        across = _part(self.spreads.speed, shared) + self._vagueness_squared[:, None] * (
            fit.shares[fit.known].T * _part(self.spreads.preference, shared)
        )
        own = _shared([system], [system])
        before = _part(self.spreads.speed, own) + np.diag(
            self._vagueness_squared * _part(self.spreads.preference, own)[0, 0]
        )
        return LogRates(
            mean=self.prior.mean + across @ fit.weights,
            covariance=before - across @ np.linalg.solve(fit.known_covariance, across.T),
            model_error=self.spreads.model_error,
        )

    def log_likelihood(self, known: Indices) -> float:
        """Return the log marginal likelihood of some measurements."""
        fit = self._fit(np.asarray(known, np.intp))
        _, log_determinant = np.linalg.slogdet(fit.known_covariance)
        n = len(fit.known)
        return float(-0.5 * (fit.residual @ fit.weights + log_determinant + n * np.log(2 * np.pi)))

    def _fit(self, known: NDArray[np.intp]) -> _Fit:
        """Find the most probable theta of every measurement's system.

        Raises:
            RunError: the steps do not settle.
        """
        speed = _part(self.spreads.speed, self._shared)
        preference = _part(self.spreads.preference, self._shared)
        error = _part(self.spreads.error, self._shared) * self._same_model

        def step(theta: Floats) -> tuple[Floats, _Fit]:
            value, shares = log_cycles(theta, self._amounts)
            centre = value + (shares * (self.prior.mean - theta)).sum(axis=1)
            covariance = speed + (shares * self._vagueness_squared) @ shares.T * preference + error
            known_covariance = covariance[np.ix_(known, known)] + np.diag(self._noise[known])
            residual = self._log_cycles[known] - centre[known]
            weights = np.linalg.solve(known_covariance, residual)
            found = self.prior.mean + (
                (speed[:, known] @ weights)[:, None]
                + preference[:, known] @ (weights[:, None] * shares[known]) * self._vagueness_squared
            )
            return found, _Fit(known, centre, shares, covariance, known_covariance, residual, weights)

        start = np.tile(self.prior.mean, (len(self._amounts), 1))
        _, fit = settled(step, start, _SMALLEST_STEP, "Choose smaller spreads.")
        return fit


@dataclass(frozen=True)
class _Fit:
    """Log cycles as a linear function of theta around the most probable one.

    Args:
        known: indices of the known measurements.
        centre: log cycles at the prior mean, as the linear function has it, (n,).
        shares: of every term in the cycles, (n, terms).
        covariance: of the log cycles before measuring, (n, n).
        known_covariance: its part of the known ones.
        residual: of the known log cycles from the centre.
        weights: the residual over the covariance.
    """

    known: NDArray[np.intp]
    centre: Floats
    shares: Floats
    covariance: Floats
    known_covariance: Floats
    residual: Floats
    weights: Floats


def choose_spreads(population: Population, known: Indices, *, steps: int = 25) -> Spreads:
    """Return the spreads under which known measurements are most likely.

    A weak prior keeps a spread that the measurements do not determine near its start: its logarithm is normal
    around the population's own, with a standard deviation of 0.7. The spread of speeds that all systems share
    stays as it is: one number cannot tell how much it varies. Needs SciPy.

    Args:
        population: its spreads are the start.
        known: indices of the measurements to look at.
        steps: of the optimizer, at most.
    """
    from scipy.optimize import minimize

    start = np.concatenate(
        [population.spreads.speed, population.spreads.preference, population.spreads.error]
    )
    free = np.flatnonzero(start)[1:]

    def spreads(logs: Floats) -> Spreads:
        found = start.copy()
        found[free] *= np.exp(logs)
        speed, preference, error = np.split(found, 3)
        return Spreads(tuple(speed), tuple(preference), tuple(error))

    def cost(logs: Floats) -> float:
        try:
            likelihood = population.with_spreads(spreads(logs)).log_likelihood(known)
        except RunError:
            return _UNLIKELY
        return 0.5 * float(np.square(logs / 0.7).sum()) - likelihood

    found = minimize(cost, np.zeros(len(free)), method="L-BFGS-B", options={"maxiter": steps})
    return spreads(found.x)


def _shared(left: Sequence[System], right: Sequence[System]) -> NDArray[np.bool_]:
    """Tell in which groups systems are together, (groups, left, right)."""
    rows, columns = (
        np.array([one.groups() for one in systems], dtype=object).reshape(-1, len(GROUPS))
        for systems in (left, right)
    )
    return np.asarray(rows.T[:, :, None] == columns.T[:, None, :], np.bool_)


def _part(spreads: Sequence[float], shared: NDArray[np.bool_]) -> Floats:
    """Return the covariance that groups of these spreads make, (left, right)."""
    return np.einsum("g,gij->ij", np.square(spreads), shared)
