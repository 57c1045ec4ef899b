"""Predictions of hidden rows: by the population, the paths that the package takes, and simpler predictors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import references
from estimator_folds import Fold, Rows
from mlperf import Result

from mexit_edge.estimate.latency.population import Population, Prior, Spreads
from mexit_edge.estimate.latency.rates import QUANTILE, LogRates
from mexit_edge.estimate.own_board.measured_cycles import MeasuredCycles, of_any_speed


@dataclass(frozen=True)
class Prediction:
    """One hidden row and what is said about it.

    Args:
        row: its index.
        fold: number of the fold, the same for every predictor of a setting.
        log_ratio: log of predicted over measured.
        deviation: the predictor's own standard deviation of it, None where it states none.
    """

    row: int
    fold: int
    log_ratio: float
    deviation: float | None = None

    @property
    def error(self) -> float:
        """Of the prediction, over the measured value."""
        return abs(float(np.expm1(self.log_ratio)))


def ours(
    folds: Sequence[Fold],
    rows: Rows,
    spreads: dict[str, Spreads],
    prior: Prior = Prior(),  # noqa: B008
) -> list[Prediction]:
    """Predict every hidden row."""
    truth = np.log([one.cycles for one in rows.measured])
    found = []
    for number, fold in enumerate(folds):
        mean, deviation = Population(rows.measured, spreads[fold.name], prior).predict(fold.known)
        found += [
            Prediction(int(row), number, float(mean[row] - truth[row]), float(deviation[row]))
            for row in fold.hidden
        ]
    return found


def folding_unknown(
    folds: Sequence[Fold], rows: Rows, blind: Rows, spreads: dict[str, Spreads]
) -> list[Prediction]:
    """Predict every hidden row, blind to folding where no visible row shows it.

    Only one of the models has constant channels: visual wake words.

    Args:
        folds: what is visible.
        rows: which know what libraries fold.
        blind: the same, which take all libraries for such that fold nothing.
        spreads: of every fold.
    """
    found = []
    for number, fold in enumerate(folds):
        can_see = (rows.model[fold.known] == "vww").any()
        told = ours([fold], rows if can_see else blind, spreads)
        found += [replace(one, fold=number) for one in told]
    return found


def by_device_file(folds: Sequence[Fold], rows: Rows, spreads: dict[str, Spreads]) -> list[Prediction]:
    """Predict every hidden row from the rates that a device file would hold.

    Rates alone do not know what the same model took on other boards beyond what its terms explain.
    """
    found = []
    for number, fold in enumerate(folds):
        population = Population(rows.measured, spreads[fold.name])
        for row in fold.hidden:
            system = replace(rows.measured[row].system, name="another")
            found.append(_predicted(number, int(row), rows, population.rates(system, fold.known)))
    return found


def by_device_fit(folds: Sequence[Fold], rows: Rows, spreads: dict[str, Spreads]) -> list[Prediction]:
    """Predict every hidden row as `mexit device fit` does: from other boards, and the board's own rows."""
    found = []
    for number, fold in enumerate(folds):
        population = Population(rows.measured, spreads[fold.name])
        for row in fold.hidden:
            here = rows.measured[row].system
            is_own = rows.system[fold.known] == here.name
            elsewhere = population.rates(replace(here, board="another", name="another"), fold.known[~is_own])
            own = [rows.measured[one] for one in fold.known[is_own]]
            cycles = MeasuredCycles(
                np.array([one.amounts for one in own]), np.array([one.cycles for one in own])
            )
            rates = cycles.rates(cycles.likeliest(of_any_speed(elsewhere)))
            found.append(_predicted(number, int(row), rows, rates))
    return found


def _predicted(fold: int, row: int, rows: Rows, rates: LogRates) -> Prediction:
    estimate = rates.cycles(rows.measured[row].amounts)
    return Prediction(
        row,
        fold,
        float(np.log(estimate.value / rows.measured[row].cycles)),
        float(np.log(estimate.high / estimate.value) / QUANTILE),
    )


def reference(folds: Sequence[Fold], rows: Rows, predict: references.Predictor) -> list[Prediction]:
    """Predict every hidden row that a reference predictor can predict."""
    found = []
    for number, fold in enumerate(folds):
        for row in fold.hidden:
            cycles = predict(rows.results, rows.measured, fold.known, int(row))
            if cycles is not None:
                measured = rows.measured[row].cycles
                found.append(Prediction(int(row), number, float(np.log(max(cycles, 1.0) / measured))))
    return found


def energy_errors(results: Sequence[Result], middle: Callable[[list[float]], Any]) -> dict[int, float]:
    """Return the error of every row's energy from the middle power of its system's other models.

    Energy is power times latency, so that the error of energy, the latency being given, is that of power.
    """
    found = {}
    for row, one in enumerate(results):
        others = [
            other.power_mw
            for other in results
            if other.power_mw is not None
            and other.system == one.system
            and other.supply_v == one.supply_v
            and other.model != one.model
        ]
        if others and one.power_mw is not None:
            found[row] = abs(float(middle(others)) / one.power_mw - 1)
    return found
