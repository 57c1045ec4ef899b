"""A figure that is estimated, and how far off it may be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mexit_edge.errors import InputError


@dataclass(frozen=True)
class Estimate:
    """An estimated figure with its interval.

    Sums add lows to lows and highs to highs, as if all errors had the same sign: the interval of a sum is
    wider than independent errors would make it, and never narrower.

    Args:
        value: the estimate.
        low: lower end of the interval.
        high: upper end of the interval.

    Raises:
        InputError: the three are not in order.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.value <= self.high:
            raise InputError(
                "`low`, `value` and `high` must be in this order, from 0. "
                f"Received: {self.low}, {self.value}, {self.high}."
            )

    def __add__(self, other: Estimate) -> Estimate:
        """Return the sum; see the class about its interval."""
        return Estimate(self.value + other.value, self.low + other.low, self.high + other.high)

    def __mul__(self, other: Estimate) -> Estimate:
        """Return the product; its interval goes from the product of the lows to that of the highs."""
        return Estimate(self.value * other.value, self.low * other.low, self.high * other.high)

    def times(self, factor: float) -> Estimate:
        """Return the estimate times an exactly known factor, at least 0."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


def total(estimates: Iterable[Estimate]) -> Estimate:
    """Return the sum of estimates; that of none is 0."""
    result = Estimate(0.0, 0.0, 0.0)
    for estimate in estimates:
        result = result + estimate
    return result
