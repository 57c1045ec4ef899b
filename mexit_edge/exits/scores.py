"""Scores of confidence, each with the integer form that decides on a device.

`logit_margin` needs no softmax: the difference of the two largest int8 logits is exact. The others need
exp(-d) for differences d of int8 logits, of which there are 256: a table in Q15 per exit, made here and later
printed into the firmware, so that Python and C add and divide the same integers.

Every score has two paths through the same integers: `batch` for arrays and `one` for a single window as a
list of Python integers, because NumPy's cost per call would dominate a loop of microseconds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import ceil, exp, inf, log
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError, unknown_name

Q15 = 1 << 15
LN2_Q15 = round(log(2) * Q15)
LN_STEPS = 64
# ln(1 + k/64) in Q15: 65 knots, linear between them; the error is below 2**-15.
LN_TABLE = tuple(round(log(1 + step / LN_STEPS) * Q15) for step in range(LN_STEPS + 1))

Logits = NDArray[np.int8]
Integers = NDArray[np.int64]


class Score(ABC):
    """A score of one exit: high means sure.

    Args:
        scale: quantization scale of the exit's int8 logits.
        n_classes: number of logits.
    """

    name: ClassVar[str]

    def __init__(self, scale: float, n_classes: int) -> None:
        if not 0 < scale < inf or n_classes < 2:
            raise InputError(
                f"`scale` must be positive and `n_classes` at least 2. Received: {scale}, {n_classes}."
            )
        self.scale = scale
        self.n_classes = n_classes

    @property
    @abstractmethod
    def unit(self) -> float:
        """The float value of integer score 1."""

    @abstractmethod
    def batch(self, logits: Logits) -> Integers:
        """Return (n,) integer scores of (n, classes) int8 logits."""

    @abstractmethod
    def one(self, logits: Sequence[int]) -> int:
        """Return the integer score of one window's logits; equal to `batch` on that window."""

    def to_integer(self, threshold: float) -> int:
        """Return the smallest integer score that is at least ``threshold``."""
        # The tolerance keeps a float that stands for an integer (t * scale / scale) on that integer.
        return ceil(threshold / self.unit - 1e-6)

    def to_float(self, score: int) -> float:
        """Return the float that an integer score stands for, for display."""
        return score * self.unit


class LogitMargin(Score):
    """f_(1) - f_(2): the largest logit minus the second largest."""

    name = "logit_margin"

    @property
    def unit(self) -> float:
        """One step of the int8 logits."""
        return self.scale

    def batch(self, logits: Logits) -> Integers:
        """See `Score.batch`."""
        top = np.partition(logits, -2, axis=1)[:, -2:].astype(np.int64)
        return top[:, 1] - top[:, 0]

    def one(self, logits: Sequence[int]) -> int:
        """See `Score.one`."""
        second, first = sorted(logits)[-2:]
        return first - second


class SoftmaxScore(Score):
    """Shared by the scores on probabilities: the table of exp(-d * scale) in Q15, d = 0 ... 255."""

    def __init__(self, scale: float, n_classes: int) -> None:
        """Make the table."""
        super().__init__(scale, n_classes)
        self.exp_table = [round(exp(-difference * scale) * Q15) for difference in range(256)]
        self._exp_array = np.asarray(self.exp_table, np.int64)

    @property
    def unit(self) -> float:
        """One step of Q15."""
        return 1 / Q15

    def _batch_differences(self, logits: Logits) -> Integers:
        """Return (n, classes) differences to the largest logit, 0 to 255, in ascending order."""
        wide = np.sort(logits.astype(np.int64), axis=1)[:, ::-1]
        return wide[:, :1] - wide

    def _one_differences(self, logits: Sequence[int]) -> list[int]:
        first = max(logits)
        return sorted(first - logit for logit in logits)


class MaxProb(SoftmaxScore):
    """max_c p_c in Q15."""

    name = "max_prob"

    def batch(self, logits: Logits) -> Integers:
        """See `Score.batch`."""
        weights = self._exp_array[self._batch_differences(logits)]
        return (weights[:, 0] << 15) // weights.sum(axis=1)

    def one(self, logits: Sequence[int]) -> int:
        """See `Score.one`."""
        weights = [self.exp_table[difference] for difference in self._one_differences(logits)]
        return (weights[0] << 15) // sum(weights)


class Margin(SoftmaxScore):
    """p_(1) - p_(2) in Q15."""

    name = "margin"

    def batch(self, logits: Logits) -> Integers:
        """See `Score.batch`."""
        weights = self._exp_array[self._batch_differences(logits)]
        return ((weights[:, 0] - weights[:, 1]) << 15) // weights.sum(axis=1)

    def one(self, logits: Sequence[int]) -> int:
        """See `Score.one`."""
        weights = [self.exp_table[difference] for difference in self._one_differences(logits)]
        return ((weights[0] - weights[1]) << 15) // sum(weights)


class Entropy(SoftmaxScore):
    """1 - H(p) / log C in Q15, from H = ln S + sum_c w_c d_c / S with w = exp(-d), S = sum w."""

    name = "entropy"

    def __init__(self, scale: float, n_classes: int) -> None:
        """Make the second table, w_c * d_c in Q15."""
        super().__init__(scale, n_classes)
        self.product_table = [
            round(exp(-difference * scale) * difference * scale * Q15) for difference in range(256)
        ]
        self._product_array = np.asarray(self.product_table, np.int64)
        self.max_entropy_q15 = round(log(n_classes) * Q15)

    def batch(self, logits: Logits) -> Integers:
        """See `Score.batch`."""
        differences = self._batch_differences(logits)
        total = self._exp_array[differences].sum(axis=1)
        products = self._product_array[differences].sum(axis=1)
        entropy = _ln_q15_batch(total) + (products << 15) // total
        return Q15 - (entropy << 15) // self.max_entropy_q15

    def one(self, logits: Sequence[int]) -> int:
        """See `Score.one`."""
        differences = self._one_differences(logits)
        total = sum(self.exp_table[difference] for difference in differences)
        products = sum(self.product_table[difference] for difference in differences)
        entropy = _ln_q15(total) + (products << 15) // total
        return Q15 - (entropy << 15) // self.max_entropy_q15


SCORES: dict[str, type[Score]] = {kind.name: kind for kind in (LogitMargin, MaxProb, Entropy, Margin)}


def make_score(name: str, scale: float, n_classes: int) -> Score:
    """Return the score of that name for one exit.

    Args:
        name: a key of `SCORES`.
        scale: quantization scale of the exit's int8 logits.
        n_classes: number of logits.

    Raises:
        InputError: no such score.
    """
    if name not in SCORES:
        raise unknown_name("score", name, SCORES)
    return SCORES[name](scale, n_classes)


def float_score(name: str, logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return (n,) scores of float logits (n, classes): the definition that the integers approximate.

    Raises:
        InputError: no such score.
    """
    if name not in SCORES:
        raise unknown_name("score", name, SCORES)
    ordered = np.sort(logits.astype(np.float64), axis=1)[:, ::-1]
    if name == "logit_margin":
        return ordered[:, 0] - ordered[:, 1]
    weights = np.exp(ordered - ordered[:, :1])
    p = weights / weights.sum(axis=1, keepdims=True)
    if name == "max_prob":
        return p[:, 0]
    if name == "margin":
        return p[:, 0] - p[:, 1]
    entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0).sum(axis=1)
    return 1 - entropy / log(logits.shape[1])


def _ln_q15(value: int) -> int:
    """Return ln(value / 2**15) in Q15 for value >= 2**15."""
    exponent = value.bit_length() - 16
    fraction = (value >> exponent) - Q15
    knot, rest = fraction >> 9, fraction & 511
    low = LN_TABLE[knot]
    return exponent * LN2_Q15 + low + (((LN_TABLE[knot + 1] - low) * rest) >> 9)


def _ln_q15_batch(values: Integers) -> Integers:
    """Return `_ln_q15` of every element."""
    # frexp is exact below 2**53, which is far above any sum of Q15 weights.
    exponent = np.frexp(values.astype(np.float64))[1].astype(np.int64) - 16
    fraction = (values >> exponent) - Q15
    knot, rest = fraction >> 9, fraction & 511
    table = np.asarray(LN_TABLE, np.int64)
    low = table[knot]
    return exponent * LN2_Q15 + low + (((table[knot + 1] - low) * rest) >> 9)
