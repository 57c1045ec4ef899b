"""Scores that count what earlier exits said: `patience` and `vote`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from mexit_edge.exits.scores.base import Exits, Integers, Logits, Score, label_of
from mexit_edge.exits.scores.softmax import Q15


class Patience(Score):
    """How many exits in a row have agreed with the one before (PABEE, Zhou et al., arXiv 2006.04152).

    State: class of the exit before plus 1 (0: there was none), and the count.
    """

    name = "patience"
    compares_exits = True

    @property
    def n_state(self) -> int:
        """See `Score.n_state`."""
        return 2

    @property
    def unit(self) -> float:
        """One agreement."""
        return 1.0

    @property
    def highest(self) -> int:
        """Every exit up to this one agreed."""
        return self.place

    def batch(self, logits: Logits, state: Integers) -> tuple[Integers, Integers]:
        """See `Score.batch`."""
        label = logits.argmax(axis=1)
        count = np.where(state[:, 0] == label + 1, state[:, 1] + 1, 0)
        state[:, 0], state[:, 1] = label + 1, count
        return count, label

    def one(self, logits: Sequence[int], state: list[int]) -> tuple[int, int]:
        """See `Score.one`."""
        label = logits.index(max(logits))
        state[1] = state[1] + 1 if state[0] == label + 1 else 0
        state[0] = label + 1
        return state[1], label

    def accepts(self, state: Sequence[int]) -> bool:
        """See `Score.accepts`."""
        return 0 <= state[0] <= self.n_classes and 0 <= state[1] < max(self.place, 1)


class Vote(Score):
    """max_c votes_c / e^lambda in Q15, every exit up to e having one vote (arXiv 2105.13792).

    A bare share would be 1 at the first exit always; with 0 < lambda < 1 agreement counts for more the more
    exits agree. The class is the one with the most votes; where several have as many, the exit's own if it is
    among them, else the lowest (the source leaves that open). State: votes per class.

    Options:
        lambda: see above; 0.5.
    """

    name = "vote"
    compares_exits = True
    options: ClassVar[Mapping[str, float]] = {"lambda": 0.5}

    def __init__(self, exits: Exits, place: int, options: Mapping[str, float]) -> None:
        """Make the table of 1 / e^lambda."""
        super().__init__(exits, place, options)
        power = options["lambda"]
        # Switched-off exits have no vote, so that any number up to this exit's own may have voted.
        self.divisor_table = tuple(round(Q15 / voters**power) for voters in range(1, place + 2))
        self._divisor_array = np.asarray(self.divisor_table, np.int64)

    @property
    def n_state(self) -> int:
        """See `Score.n_state`."""
        return self.n_classes

    @property
    def unit(self) -> float:
        """One step of Q15."""
        return 1 / Q15

    @property
    def highest(self) -> int:
        """Every exit so far agreed, of as many as may have voted."""
        return max(voters * share for voters, share in enumerate(self.divisor_table, start=1))

    @property
    def tables(self) -> dict[str, tuple[int, ...]]:
        """See `Score.tables`."""
        return {"divisor_table": self.divisor_table}

    def batch(self, logits: Logits, state: Integers) -> tuple[Integers, Integers]:
        """See `Score.batch`."""
        latest = logits.argmax(axis=1)
        state[np.arange(len(state)), latest] += 1
        scores = state.max(axis=1) * self._divisor_array[state.sum(axis=1) - 1]
        return scores, latest if self.is_final else label_of(state, latest)

    def one(self, logits: Sequence[int], state: list[int]) -> tuple[int, int]:
        """See `Score.one`."""
        latest = logits.index(max(logits))
        state[latest] += 1
        most = max(state)
        label = latest if self.is_final or state[latest] == most else state.index(most)
        return most * self.divisor_table[sum(state) - 1], label

    def accepts(self, state: Sequence[int]) -> bool:
        """See `Score.accepts`."""
        return min(state) >= 0 and sum(state) <= self.place
