"""Rates that a fit found, as the coefficients of a device file."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from mexit_edge.estimate.device import Coefficient, CyclesPer
from mexit_edge.estimate.latency.rates import QUANTILE, Floats, LogRates
from mexit_edge.estimate.latency.terms import TERMS

Range = tuple[float, float]

# A coefficient whose deviation fell below this share of the prior's was moved by the measurements.
FITTED_SHARE = 0.5


def fitted_terms(rates: LogRates, prior: LogRates, asked: Floats) -> set[str]:
    """Return the terms that measurements on a board tell of: those they ask for, and that they narrowed.

    Args:
        rates: with the measurements.
        prior: without them.
        asked: amounts of what was measured on the board, (measurements, terms).
    """
    after, before = (np.sqrt(np.diag(one.covariance)) for one in (rates, prior))
    told = (after < FITTED_SHARE * before) & asked.any(axis=0)
    return {term for term, is_told in zip(TERMS, told, strict=True) if is_told}


def cycles_per(
    rates: LogRates, fitted: Collection[str], macs_per_output: Mapping[str, Range | None]
) -> CyclesPer:
    """Return a distribution of log rates as coefficients with their intervals, rounded for a file.

    Args:
        rates: the distribution.
        fitted: the terms that measurements tell; the others are extrapolated.
        macs_per_output: of the terms that price multiply-accumulates (see `Coefficient`).
    """
    deviation = np.sqrt(np.diag(rates.covariance))
    correlation = np.clip(rates.covariance / np.outer(deviation, deviation), -1, 1).round(3)
    np.fill_diagonal(correlation, 1.0)
    coefficients = {
        term: Coefficient(
            value=rounded(np.exp(mean)),
            low=rounded(np.exp(mean - QUANTILE * spread)),
            high=rounded(np.exp(mean + QUANTILE * spread)),
            status="fitted" if term in fitted else "extrapolated",
            macs_per_output=macs_per_output.get(term),
        )
        for term, mean, spread in zip(TERMS, rates.mean, deviation, strict=True)
    }
    return CyclesPer(
        **coefficients,
        correlation=tuple(map(tuple, correlation.tolist())),
        model_error=rounded(rates.model_error),
    )


def rounded(value: float) -> float:
    """Return a figure with the four digits that it has in a file."""
    return float(f"{value:.4g}")
