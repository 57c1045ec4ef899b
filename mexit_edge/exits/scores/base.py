"""What every score of confidence has in common: integers that decide, with an array and a one-window path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError

# Far beyond any network's: what lies outside would overflow the arithmetic on scales.
SMALLEST_SCALE, LARGEST_SCALE = 1e-12, 1e12

Logits = NDArray[np.int8]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Exits:
    """The exits that a score looks at.

    Args:
        scales: per exit, the quantization scale of its int8 logits, divided by its temperature.
        n_classes: number of logits.

    Raises:
        InputError: no exit, a scale out of range, or fewer than two classes.
    """

    scales: tuple[float, ...]
    n_classes: int

    def __post_init__(self) -> None:
        fit = all(SMALLEST_SCALE <= scale <= LARGEST_SCALE for scale in self.scales)
        if not self.scales or not fit or self.n_classes < 2:
            raise InputError(
                f"`scales` must hold one number from {SMALLEST_SCALE:g} to {LARGEST_SCALE:g} per exit, after "
                "its temperature, and `n_classes` be at least 2. "
                f"Received: {list(self.scales)}, {self.n_classes}."
            )


class Score(ABC):
    """A score of one exit: high means sure.

    Every score has two paths through the same integers: `batch` for arrays and `one` for a single window as
    lists of Python integers, because NumPy's cost per call would dominate a loop of microseconds. The latter
    is what the firmware does, in the same order.

    A score may remember what earlier exits said of a window: `n_state` integers, all 0 before the first exit.
    Exits that are switched off are not scored and leave the state as it is. What exits say together names the
    class at early exits only: the final exit decides by itself, so that a window which runs to the end is
    always given what the whole network says.

    Args:
        exits: all exits of the network.
        place: index of this exit among them, from 0.
        options: by name, over the defaults in `options`.
    """

    name: ClassVar[str]
    options: ClassVar[Mapping[str, float]] = {}
    # Whether it says the same of every window at the first exit that is looked at.
    compares_exits: ClassVar[bool] = False

    def __init__(self, exits: Exits, place: int, options: Mapping[str, float]) -> None:
        self.exits = exits
        self.place = place
        self.scale = exits.scales[place]
        self.n_classes = exits.n_classes

    @property
    def n_state(self) -> int:
        """Number of integers that a window carries from exit to exit."""
        return 0

    @property
    @abstractmethod
    def unit(self) -> float:
        """The float value of integer score 1."""

    @property
    @abstractmethod
    def highest(self) -> int:
        """The largest integer score that there can be."""

    @property
    def lowest(self) -> int:
        """The smallest integer score that there can be."""
        return 0

    @property
    def tables(self) -> dict[str, tuple[int, ...]]:
        """The integers that the firmware needs for this exit, by name."""
        return {}

    @property
    def is_final(self) -> bool:
        """Whether this is the last exit."""
        return self.place == len(self.exits.scales) - 1

    @abstractmethod
    def batch(self, logits: Logits, state: Integers) -> tuple[Integers, Integers]:
        """Score n windows.

        Args:
            logits: (n, classes) int8.
            state: (n, n_state) of the exits before; brought up to date in place.

        Returns:
            (n,) integer scores, and (n,) classes that a window leaving here is given.
        """

    @abstractmethod
    def one(self, logits: Sequence[int], state: list[int]) -> tuple[int, int]:
        """Return score and class of one window, equal to `batch` on it; ``state`` is brought up to date."""

    def accepts(self, state: Sequence[int]) -> bool:
        """Tell whether exits before this one can have left this state, so that going on from it is safe."""
        return True

    def to_integer(self, threshold: float) -> int:
        """Return the smallest integer score that is at least ``threshold``."""
        # The tolerance keeps a float that stands for an integer (t * scale / scale) on that integer.
        return ceil(threshold / self.unit - 1e-6)

    def to_float(self, score: int) -> float:
        """Return the float that an integer score stands for, for display."""
        return score * self.unit


class Memoryless(Score):
    """Shared by the scores that look at one exit alone; the class is the largest logit, ties the lowest."""

    @abstractmethod
    def scored(self, logits: Logits) -> Integers:
        """Return (n,) integer scores of (n, classes) int8 logits."""

    @abstractmethod
    def scored_one(self, logits: Sequence[int]) -> int:
        """Return the integer score of one window's logits."""

    def batch(self, logits: Logits, state: Integers) -> tuple[Integers, Integers]:
        """See `Score.batch`."""
        return self.scored(logits), logits.argmax(axis=1)

    def one(self, logits: Sequence[int], state: list[int]) -> tuple[int, int]:
        """See `Score.one`."""
        return self.scored_one(logits), logits.index(max(logits))


def label_of(votes: Integers, latest: Integers) -> Integers:
    """Return (n,) the class with the most votes; the latest exit's where it is among them, else the lowest.

    Args:
        votes: (n, classes).
        latest: (n,) class that the latest exit voted for.
    """
    top = votes.argmax(axis=1)
    rows = np.arange(len(votes))
    return np.where(votes[rows, latest] == votes[rows, top], latest, top)
