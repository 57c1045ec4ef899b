"""Boards for tests: what is known of their rates before measuring, and what models take on one of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from mexit_edge.estimate import OperationCost, Stack, operations
from mexit_edge.estimate.coefficients import cycles_per
from mexit_edge.estimate.latency.rates import LogRates, log_cycles
from mexit_edge.estimate.latency.terms import MAC_TERMS, amounts
from mexit_edge.estimate.own_board.probes import Probe, probes

# In the order of `terms.TERMS`: of TFLM with CMSIS-NN on a Cortex-M4, in round figures, and how far boards
# stray from the speed that they have in common.
CYCLES = np.array([4.0, 4.0, 15.0, 5.0, 60.0, 40.0, 1200.0, 1500.0])
DEVIATIONS = np.array([0.3, 0.3, 0.3, 0.3, 0.6, 1.2, 0.9, 1.2])
COMMON_DEVIATION = 0.4


@cache
def probe_set() -> tuple[Probe, ...]:
    return probes()


def rates(model_error: float = 0.1) -> LogRates:
    """What is known of a board before anything is measured on it."""
    covariance = COMMON_DEVIATION**2 * np.ones((8, 8)) + np.diag(DEVIATIONS**2)
    return LogRates(np.log(CYCLES), covariance, model_error)


def relative(model_error: float = 0.1) -> Stack:
    """The same as a stack."""
    ranges = {name: (10.0, 600.0) for name in MAC_TERMS if name != "depthwise"}
    return Stack(
        name="tflm-cmsis-nn",
        family="tflm-cmsis-nn",
        version="2022",
        dtype="INT8",
        folds_constant_channels=False,
        source="Made up",
        date="2026-11",
        fitted_on=(),
        cycles_per=cycles_per(rates(model_error), (), ranges),
    )


def board_theta(seed: int) -> np.ndarray:
    """Log cycles per unit of one of the boards that `rates` expects."""
    known = rates()
    return np.random.default_rng(seed).multivariate_normal(known.mean, known.covariance)


@cache
def costs_of(content: bytes) -> tuple[OperationCost, ...]:
    return operations(content)


def asked_of(content: bytes) -> np.ndarray:
    """What a model asks for."""
    return amounts(costs_of(content), folds_constant_channels=False)


def cycles_on(
    theta: np.ndarray, contents: Mapping[str, bytes], noise: float = 0.0, seed: int = 0
) -> dict[str, float]:
    """What models take on a board, up to an error that the terms do not explain."""
    logs, _ = log_cycles(theta, np.array([asked_of(content) for content in contents.values()]))
    logs = logs + noise * np.random.default_rng(seed).standard_normal(len(logs))
    return dict(zip(contents, np.exp(logs).tolist(), strict=True))
