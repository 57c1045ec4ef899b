"""Scores of one exit: the margin of its logits, and those that need a softmax.

`logit_margin` is exact: the difference of the two largest int8 logits. The others need exp(-d) for
differences d of int8 logits, of which there are 256: a table in Q15 per exit, made here and later printed
into the firmware, so that Python and C add and divide the same integers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, exp, log

import numpy as np

from mexit_edge.exits.scores.base import Exits, Integers, Logits, Memoryless, Score

Q15 = 1 << 15
LN2_Q15 = round(log(2) * Q15)
LN_STEPS = 64
# ln(1 + k/64) in Q15: 65 knots, linear between them; the error is below 2**-15.
LN_TABLE = tuple(round(log(1 + step / LN_STEPS) * Q15) for step in range(LN_STEPS + 1))
_LN_ARRAY = np.asarray(LN_TABLE, np.int64)


class LogitMargin(Memoryless):
    """f_(1) - f_(2): the largest logit minus the second largest."""

    name = "logit_margin"
    highest = 255

    @property
    def unit(self) -> float:
        """One step of the int8 logits."""
        return self.scale

    def scored(self, logits: Logits) -> Integers:
        """See `Memoryless.scored`."""
        top = np.partition(logits, -2, axis=1)[:, -2:].astype(np.int64)
        return top[:, 1] - top[:, 0]

    def scored_one(self, logits: Sequence[int]) -> int:
        """See `Memoryless.scored_one`."""
        second, first = sorted(logits)[-2:]
        return first - second


class ExpTable:
    """exp(-d * scale) in Q15 for the 256 differences d of int8 logits to the largest one.

    Args:
        scale: quantization scale of the logits, divided by the temperature.
    """

    def __init__(self, scale: float) -> None:
        self.values = tuple(round(exp(-difference * scale) * Q15) for difference in range(256))
        self._array = np.asarray(self.values, np.int64)

    def weights(self, logits: Logits) -> Integers:
        """Return (n, classes) softmax numerators in Q15; their sum is at least 1.0."""
        wide = logits.astype(np.int64)
        return self._array[wide.max(axis=1, keepdims=True) - wide]

    def weights_one(self, logits: Sequence[int]) -> list[int]:
        """Return `weights` of one window."""
        first = max(logits)
        return [self.values[first - logit] for logit in logits]


class ProbabilityScore(Score):
    """Shared by the scores in Q15 on probabilities: one exit's table."""

    highest = Q15

    def __init__(self, exits: Exits, place: int, options: Mapping[str, float]) -> None:
        """Make the table."""
        super().__init__(exits, place, options)
        self.exp = ExpTable(self.scale)

    @property
    def unit(self) -> float:
        """One step of Q15."""
        return 1 / Q15

    @property
    def tables(self) -> dict[str, tuple[int, ...]]:
        """See `Score.tables`."""
        return {"exp_table": self.exp.values}


class SoftmaxScore(ProbabilityScore, Memoryless):
    """Shared by the scores on one exit's probabilities."""


class MaxProb(SoftmaxScore):
    """max_c p_c in Q15."""

    name = "max_prob"

    def scored(self, logits: Logits) -> Integers:
        """See `Memoryless.scored`."""
        weights = self.exp.weights(logits)
        return (weights.max(axis=1) << 15) // weights.sum(axis=1)

    def scored_one(self, logits: Sequence[int]) -> int:
        """See `Memoryless.scored_one`."""
        weights = self.exp.weights_one(logits)
        return (max(weights) << 15) // sum(weights)


class Margin(SoftmaxScore):
    """p_(1) - p_(2) in Q15."""

    name = "margin"

    def scored(self, logits: Logits) -> Integers:
        """See `Memoryless.scored`."""
        weights = self.exp.weights(logits)
        top = np.partition(weights, -2, axis=1)[:, -2:]
        return ((top[:, 1] - top[:, 0]) << 15) // weights.sum(axis=1)

    def scored_one(self, logits: Sequence[int]) -> int:
        """See `Memoryless.scored_one`."""
        weights = self.exp.weights_one(logits)
        second, first = sorted(weights)[-2:]
        return ((first - second) << 15) // sum(weights)


class Entropy(SoftmaxScore):
    """1 - H(p) / log C in Q15, from H = ln S + sum_c w_c d_c / S with w = exp(-d), S = sum w."""

    name = "entropy"

    def __init__(self, exits: Exits, place: int, options: Mapping[str, float]) -> None:
        """Make the second table, w_c * d_c in Q15."""
        super().__init__(exits, place, options)
        self.product_table = tuple(
            round(exp(-difference * self.scale) * difference * self.scale * Q15) for difference in range(256)
        )
        self._product_array = np.asarray(self.product_table, np.int64)
        self.max_entropy_q15 = round(log(self.n_classes) * Q15)

    @property
    def lowest(self) -> int:
        """Rounding may take a uniform window a few steps below 0: one per class, four of the logarithm."""
        return -ceil((self.n_classes + 4) / log(self.n_classes) + 2)

    @property
    def tables(self) -> dict[str, tuple[int, ...]]:
        """See `Score.tables`."""
        return {**super().tables, "product_table": self.product_table, "ln_table": LN_TABLE}

    def scored(self, logits: Logits) -> Integers:
        """See `Memoryless.scored`."""
        total = self.exp.weights(logits).sum(axis=1)
        wide = logits.astype(np.int64)
        products = self._product_array[wide.max(axis=1, keepdims=True) - wide].sum(axis=1)
        entropy = _ln_q15_batch(total) + (products << 15) // total
        return Q15 - (entropy << 15) // self.max_entropy_q15

    def scored_one(self, logits: Sequence[int]) -> int:
        """See `Memoryless.scored_one`."""
        first = max(logits)
        total = sum(self.exp.weights_one(logits))
        products = sum(self.product_table[first - logit] for logit in logits)
        entropy = _ln_q15(total) + (products << 15) // total
        return Q15 - (entropy << 15) // self.max_entropy_q15


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
    low = _LN_ARRAY[knot]
    return exponent * LN2_Q15 + low + (((_LN_ARRAY[knot + 1] - low) * rest) >> 9)
