"""Scores on what all exits so far say together: means of probabilities, and running sums of logits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from math import floor, log2
from typing import ClassVar

import numpy as np

from mexit_edge.exits.scores.base import Exits, Integers, Logits, Score
from mexit_edge.exits.scores.softmax import Q15, ProbabilityScore

# Of the largest factor that brings logits to their common scale: 64 exits of 255 steps each fit int32.
LARGEST_FACTOR_BITS = 15
RATE_BITS = 8


class Ensemble(ProbabilityScore):
    """max_c of the mean of p_1 ... p_e in Q15; the class is the one with the largest mean.

    State: sum of probabilities per class in Q15, and the number of exits summed.
    """

    name = "ensemble"

    @property
    def n_state(self) -> int:
        """See `Score.n_state`."""
        return self.n_classes + 1

    def batch(self, logits: Logits, state: Integers) -> tuple[Integers, Integers]:
        """See `Score.batch`."""
        weights = self.exp.weights(logits)
        state[:, :-1] += (weights << 15) // weights.sum(axis=1, keepdims=True)
        state[:, -1] += 1
        named = logits if self.is_final else state[:, :-1]
        return state[:, :-1].max(axis=1) // state[:, -1], named.argmax(axis=1)

    def one(self, logits: Sequence[int], state: list[int]) -> tuple[int, int]:
        """See `Score.one`."""
        weights = self.exp.weights_one(logits)
        total = sum(weights)
        for place, weight in enumerate(weights):
            state[place] += (weight << 15) // total
        state[-1] += 1
        named = logits if self.is_final else state[:-1]
        return max(state[:-1]) // state[-1], named.index(max(named))

    def accepts(self, state: Sequence[int]) -> bool:
        """See `Score.accepts`."""
        return 0 <= state[-1] <= self.place and all(0 <= sum_ <= state[-1] * Q15 for sum_ in state[:-1])


class RunningLogits(Score):
    """Shared by the scores on a running sum of logits: a margin, so that no softmax is needed.

    Logits of different exits have different scales. Their differences to the exit's largest logit, which is
    all that a softmax sees, are multiplied to one scale by an integer per exit.
    """

    def __init__(self, exits: Exits, place: int, options: Mapping[str, float]) -> None:
        """Find the factor of this exit."""
        super().__init__(exits, place, options)
        self.fraction_bits = floor(LARGEST_FACTOR_BITS - log2(max(exits.scales)))
        self.factor = max(1, round(self.scale * 2.0**self.fraction_bits))

    @property
    def unit(self) -> float:
        """One step of the common scale of all exits."""
        return 2.0**-self.fraction_bits

    @property
    def tables(self) -> dict[str, tuple[int, ...]]:
        """See `Score.tables`."""
        return {"factor": (self.factor,)}

    @abstractmethod
    def _kept(self, state: Integers) -> Integers:
        """Return the sums (n, classes) of the exits before, as they count at this exit."""

    @abstractmethod
    def _kept_one(self, sums: list[int]) -> list[int]:
        """Return what `_kept` does, for one window."""

    def _summed(self, logits: Logits, state: Integers) -> Integers:
        wide = logits.astype(np.int64)
        state[:, : self.n_classes] = (
            self._kept(state[:, : self.n_classes]) + (wide - wide.max(axis=1, keepdims=True)) * self.factor
        )
        return state[:, : self.n_classes]

    def _summed_one(self, logits: Sequence[int], state: list[int]) -> list[int]:
        first = max(logits)
        kept = self._kept_one(state[: self.n_classes])
        state[: self.n_classes] = [
            sum_ + (logit - first) * self.factor for sum_, logit in zip(kept, logits, strict=True)
        ]
        return state[: self.n_classes]


class GeometricEnsemble(RunningLogits):
    """log p_(1) - log p_(2) of the geometric mean of p_1 ... p_e: the margin of the mean of the logits.

    State: sum of scaled logits per class, and the number of exits summed.
    """

    name = "geometric_ensemble"

    @property
    def n_state(self) -> int:
        """See `Score.n_state`."""
        return self.n_classes + 1

    @property
    def highest(self) -> int:
        """The widest margin at the coarsest exit."""
        return 255 << LARGEST_FACTOR_BITS

    def batch(self, logits: Logits, state: Integers) -> tuple[Integers, Integers]:
        """See `Score.batch`."""
        sums = self._summed(logits, state)
        state[:, -1] += 1
        return _margin(sums) // state[:, -1], (logits if self.is_final else sums).argmax(axis=1)

    def one(self, logits: Sequence[int], state: list[int]) -> tuple[int, int]:
        """See `Score.one`."""
        sums = self._summed_one(logits, state)
        state[-1] += 1
        second, first = sorted(sums)[-2:]
        named = logits if self.is_final else sums
        return (first - second) // state[-1], named.index(max(named))

    def accepts(self, state: Sequence[int]) -> bool:
        """See `Score.accepts`."""
        return 0 <= state[-1] <= self.place

    def _kept(self, state: Integers) -> Integers:
        return state

    def _kept_one(self, sums: list[int]) -> list[int]:
        return sums


class Boosted(RunningLogits):
    """F_(1) - F_(2) of the running sum F_e = f_e + r * F_{e-1} (BoostNet, arXiv 2211.16726).

    For networks whose exits give f_e. One that was trained with the regime `boosted` carries the sum in its
    stages and gives F_e: its boosted score is `logit_margin`.

    State: sum of scaled logits per class. The product with the rate needs 64 bits.

    Options:
        rate: r, from 0 to 1, rounded to 1/256; 0.5.
    """

    name = "boosted"
    options: ClassVar[Mapping[str, float]] = {"rate": 0.5}

    def __init__(self, exits: Exits, place: int, options: Mapping[str, float]) -> None:
        """Round the rate."""
        super().__init__(exits, place, options)
        self.rate = round(options["rate"] * (1 << RATE_BITS))

    @property
    def n_state(self) -> int:
        """See `Score.n_state`."""
        return self.n_classes

    @property
    def highest(self) -> int:
        """The widest margin at every exit up to this one."""
        return (self.place + 1) * 255 << LARGEST_FACTOR_BITS

    @property
    def tables(self) -> dict[str, tuple[int, ...]]:
        """See `Score.tables`."""
        return {**super().tables, "rate": (self.rate,)}

    def batch(self, logits: Logits, state: Integers) -> tuple[Integers, Integers]:
        """See `Score.batch`."""
        sums = self._summed(logits, state)
        return _margin(sums), (logits if self.is_final else sums).argmax(axis=1)

    def one(self, logits: Sequence[int], state: list[int]) -> tuple[int, int]:
        """See `Score.one`."""
        sums = self._summed_one(logits, state)
        second, first = sorted(sums)[-2:]
        named = logits if self.is_final else sums
        return first - second, named.index(max(named))

    def _kept(self, state: Integers) -> Integers:
        return (state * self.rate) >> RATE_BITS

    def _kept_one(self, sums: list[int]) -> list[int]:
        return [(sum_ * self.rate) >> RATE_BITS for sum_ in sums]


def _margin(sums: Integers) -> Integers:
    top = np.partition(sums, -2, axis=1)[:, -2:]
    return top[:, 1] - top[:, 0]
