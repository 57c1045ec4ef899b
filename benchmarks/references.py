"""Simpler predictors of latency, to be beaten: what one would try first.

Each takes the published rows, the same as measurements, the indices of the known ones and the index of the
row to predict, and returns cycles, or None where it has nothing to go by. ``live`` multiply-accumulates are
taken where the library folds constant channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from mlperf import Result
from numpy.typing import NDArray
from scipy.optimize import least_squares as solve
from scipy.optimize import nnls

from mexit_edge.estimate.latency.population import Measurement

Indices = NDArray[np.intp]
Predictor = Callable[[Sequence[Result], Sequence[Measurement], Indices, int], float | None]

# Of conv kxk, conv 1x1, depthwise and fully connected.
PRIOR_RATIOS = np.array([1.0, 1.0, 4.0, 1.5])
# How strongly log ratios are held to them, over the squared log error of a row.
PRIOR_STRENGTH = 0.1


def macs_only(
    results: Sequence[Result], measured: Sequence[Measurement], known: Indices, row: int
) -> float | None:
    """Cycles per multiply-accumulate of the system's other models, times the model's."""
    own = _own(results, known, row)
    if not own:
        return None
    rate = np.mean([measured[one].cycles / _macs(measured[one]).sum() for one in own])
    return float(rate * _macs(measured[row]).sum())


def least_squares(
    results: Sequence[Result], measured: Sequence[Measurement], known: Indices, row: int
) -> float | None:
    """One rate per kind of layer, from the system's other models, by non-negative least squares."""
    own = _own(results, known, row)
    if not own:
        return None
    rates, _ = nnls(
        np.array([_macs(measured[one]) for one in own]), np.array([measured[one].cycles for one in own])
    )
    return float(rates @ _macs(measured[row]))


def four_rates(
    results: Sequence[Result], measured: Sequence[Measurement], known: Indices, row: int
) -> float | None:
    """One rate per kind of layer, from the system's other models, held to prior ratios."""
    own = _own(results, known, row)
    if not own:
        return None
    relative = np.array([_macs(measured[one]) * PRIOR_RATIOS / measured[one].cycles for one in own])

    def misfit(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        rates = np.exp(logs[0] + logs[1:])
        return np.concatenate([np.log(relative @ rates), np.sqrt(PRIOR_STRENGTH) * logs[1:]])

    logs = solve(misfit, np.array([1.0, 0, 0, 0, 0])).x
    return float(np.exp(logs[0] + logs[1:]) * PRIOR_RATIOS @ _macs(measured[row]))


def same_core_and_library(
    results: Sequence[Result], measured: Sequence[Measurement], known: Indices, row: int
) -> float | None:
    """Geometric mean of the model's cycles on other boards with this core and family of libraries."""
    wanted = results[row]
    siblings = [
        measured[one].cycles
        for one in known
        if results[one].model == wanted.model and _related(results[one], wanted, by_version=False)
    ]
    return float(np.exp(np.mean(np.log(siblings)))) if siblings else None


def siblings_ratio(
    results: Sequence[Result], measured: Sequence[Measurement], known: Indices, row: int
) -> float | None:
    """The model measured here times the ratio of both models on boards with this core and library version."""
    wanted = results[row]
    own = _own(results, known, row)
    by_system: dict[str, dict[str, float]] = {}
    for one in known:
        if one not in own and _related(results[one], wanted, by_version=True):
            by_system.setdefault(results[one].system.name, {})[results[one].model] = measured[one].cycles
    here = results[own[0]].model
    ratios = [
        np.log(cycles[wanted.model] / cycles[here])
        for cycles in by_system.values()
        if wanted.model in cycles and here in cycles
    ]
    return float(measured[own[0]].cycles * np.exp(np.mean(ratios))) if ratios else None


def _macs(one: Measurement) -> NDArray[np.float64]:
    return one.amounts[:4]


def _own(results: Sequence[Result], known: Indices, row: int) -> list[int]:
    """Return the known rows of the system of a row."""
    return [int(one) for one in known if results[one].system.name == results[row].system.name]


def _related(one: Result, other: Result, *, by_version: bool) -> bool:
    here, there = one.system, other.system
    return (
        here.core == there.core
        and here.family == there.family
        and (not by_version or here.version == there.version)
    )
