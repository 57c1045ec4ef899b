"""A temperature per exit, so that its probabilities mean what they say (Guo et al., arXiv 1706.04599)."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.exits.metrics import expected_calibration_error, log_loss, softmax

LOWEST, HIGHEST = 0.05, 20.0
# Halvings of log(HIGHEST / LOWEST): the temperature is right to 1e-13 of itself.
HALVINGS = 46


@dataclass(frozen=True)
class TemperatureFit:
    """A temperature and what it does on some windows.

    Args:
        temperature: logits are divided by it.
        ece_before: expected calibration error of softmax(logits), 15 bins of equal mass.
        ece_after: the same of softmax(logits / temperature).
        nll_before: mean negative log-likelihood of softmax(logits), in nats.
        nll_after: the same of softmax(logits / temperature); on the windows of the fit, never above.
        at_limit: whether the search ended at 0.05 or 20, which tells of the data and not of the exit: all
            windows are right (or nearly all wrong), and ever sharper (flatter) probabilities seem better.
    """

    temperature: float
    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float
    at_limit: bool


def fit_temperature(logits: NDArray[np.floating[Any]], y: NDArray[np.int64]) -> float:
    """Return argmin_T of the negative log-likelihood of softmax(logits / T), between 0.05 and 20.

    The loss is convex in 1 / T, so the sign of its derivative, halved in log T, finds the least one. Where
    the derivative has one sign all over the range, the temperature is the end that it points to; where it is
    0 all over, because the logits of a window are all equal, the temperature is 1.

    Args:
        logits: (n, classes) float logits of one exit: int8 steps times their scale.
        y: (n,) class indices.

    Raises:
        InputError: empty, not finite, integers, or labels that do not fit.
    """
    _check(logits, y)
    values = logits.astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    of_class = values[np.arange(len(y)), y]

    def slope(temperature: float) -> float:
        """Return the derivative of the loss with respect to 1 / T: mean of E_p[f] - f_y."""
        return float(((softmax(values / temperature) * values).sum(axis=1) - of_class).mean())

    # Towards higher T, 1 / T falls: the loss falls with T where the slope is positive.
    wants_higher, wants_lower = slope(HIGHEST) >= 0, slope(LOWEST) <= 0
    if wants_higher or wants_lower:
        return 1.0 if wants_higher and wants_lower else HIGHEST if wants_higher else LOWEST
    low, high = log(LOWEST), log(HIGHEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(exp(middle)) > 0 else (low, middle)
    return exp((low + high) / 2)


def judge_temperature(
    temperature: float, logits: NDArray[np.floating[Any]], y: NDArray[np.int64]
) -> TemperatureFit:
    """Return what a temperature does on windows: those it was fitted on, or others.

    Args:
        temperature: of `fit_temperature`.
        logits: (n, classes) float logits of one exit.
        y: (n,) class indices.

    Raises:
        InputError: as `fit_temperature`, or the temperature is not positive.
    """
    _check(logits, y)
    if not 0 < temperature < np.inf:
        raise InputError(f"`temperature` must be positive. Received: {temperature}. Leave it at 1 for none.")
    scaled = logits.astype(np.float64) / temperature
    right = logits.argmax(axis=1) == y
    return TemperatureFit(
        temperature=temperature,
        ece_before=expected_calibration_error(softmax(logits.astype(np.float64)).max(axis=1), right),
        ece_after=expected_calibration_error(softmax(scaled).max(axis=1), right),
        nll_before=log_loss(logits[:, None], y),
        nll_after=log_loss(scaled[:, None], y),
        at_limit=temperature in (LOWEST, HIGHEST),
    )


def _check(logits: NDArray[Any], y: NDArray[np.int64]) -> None:
    if logits.ndim != 2 or logits.dtype.kind != "f" or not len(logits) or logits.shape[1] < 2:
        raise InputError(
            "`logits` must be floats (windows, classes), of at least one window and two classes. Received: "
            f"{logits.dtype} of shape {logits.shape}. Multiply int8 logits by their scale."
        )
    if not np.isfinite(logits).all():
        raise InputError(
            f"`logits` must be finite. Received: {(~np.isfinite(logits)).sum()} values that are not. "
            "Leave these windows out."
        )
    n_classes = logits.shape[1]
    if y.shape != logits.shape[:1] or y.dtype.kind not in "iu" or ((y < 0) | (y >= n_classes)).any():
        raise InputError(
            f"`y` must be {len(logits)} class indices from 0 to {n_classes - 1}. Received: {y.dtype} of "
            f"shape {y.shape}" + (f", from {y.min()} to {y.max()}." if y.size else ".")
        )
