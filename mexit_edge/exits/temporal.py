"""Temporal rules: what a stream reports, given what its windows decide one after the other.

A rule sees the class that the exit rule decided for each window and returns the class to report. Its state is
a fixed number of small integers that start as zeros, so the same few lines serve a device. `UNDECIDED` stands
for a window without a decision: rejected, lost, or not computed. Every rule holds its last report over such a
window and counts it neither for nor against a class; before the first decision the report is `UNDECIDED`.

Every rule has two paths through the same integers: `step` for one window, and `batch` for whole streams.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError, unknown_name

UNDECIDED = -1
MOST_WINDOWS = 255  # of an option: what a rule remembers fits a device, and an int32 holds what it counts
MOST_RULES = 8

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


class TemporalRule(ABC):
    """What is reported after each window of a stream."""

    name: ClassVar[str]
    may_skip: ClassVar[bool] = False

    @property
    @abstractmethod
    def n_state(self) -> int:
        """Number of integers that the rule remembers; all of them start as 0 and fit int32."""

    @abstractmethod
    def step(self, state: list[int], label: int) -> int:
        """Take in one window and return the class to report.

        Args:
            state: `n_state` integers, changed in place.
            label: class decided for the window, or `UNDECIDED`; not looked at if the window was not wanted.

        Returns:
            The class to report, `UNDECIDED` before the first decision.
        """

    def wants(self, state: list[int]) -> bool:
        """Tell whether the next window is to be computed. One that is not is stepped all the same."""
        return True

    def batch(self, labels: Integers, stream: Integers | None = None) -> tuple[Integers, Booleans]:
        """Take in whole streams; equal to `step` from a state of zeros at the start of each.

        Args:
            labels: (n,) class that each window decides if it is computed, `UNDECIDED` where it cannot.
            stream: (n,) number of each window's stream, in which a stream's windows stand together; a new
                number starts anew. None for a single stream.

        Returns:
            (n,) reported classes, and (n,) whether the rule wanted the window computed.

        Raises:
            InputError: the arrays have different lengths or another shape.
        """
        return self._batch(labels, _starts(labels, stream))

    @abstractmethod
    def _batch(self, labels: Integers, starts: Booleans) -> tuple[Integers, Booleans]:
        """Return what `batch` does, from where streams start."""


@dataclass(frozen=True)
class Majority(TemporalRule):
    """The most frequent of the last ``n`` decided classes; of equally frequent ones the most recent.

    After a clean change from one class to another the report follows at the new class's decision number
    ceil(n / 2); with n = 5 it is two windows late.

    Args:
        n: how many decisions vote.
    """

    n: int = 5
    name: ClassVar[str] = "majority"

    def __post_init__(self) -> None:
        _check_counts(self)

    @property
    def n_state(self) -> int:
        """The last ``n`` classes plus 1, the most recent first; 0 where there is none yet."""
        return self.n

    def step(self, state: list[int], label: int) -> int:
        """See `TemporalRule.step`."""
        if label != UNDECIDED:
            state.pop()
            state.insert(0, label + 1)
        best, most = 0, 0
        for seen in state:
            votes = state.count(seen)
            if seen and votes > most:
                best, most = seen, votes
        return best - 1

    def _batch(self, labels: Integers, starts: Booleans) -> tuple[Integers, Booleans]:
        decided = np.flatnonzero(labels != UNDECIDED)
        kept, of_stream = labels[decided], np.cumsum(starts)[decided]
        # (decided, n): the last n classes, the most recent first; UNDECIDED from before the stream's start.
        last = np.full((len(decided), self.n), UNDECIDED, np.int64)
        for age in range(min(self.n, len(decided))):
            older = len(decided) - age
            same = of_stream[age:] == of_stream[:older]
            last[age:, age] = np.where(same, kept[:older], UNDECIDED)
        votes = np.zeros_like(last)
        for age in range(self.n):
            votes += last == last[:, age : age + 1]
        votes[last == UNDECIDED] = 0
        # Of equal counts argmax takes the first, which is the most recent.
        winners = np.take_along_axis(last, votes.argmax(axis=1)[:, None], axis=1)[:, 0]
        return _held(winners, decided, starts), np.ones(len(labels), bool)


@dataclass(frozen=True)
class Hysteresis(TemporalRule):
    """The reported class changes only after ``n`` decisions in a row agree on another one.

    A change is reported n - 1 windows late; another class for fewer than ``n`` decisions is never seen. The
    first decision of a stream is reported at once.

    Args:
        n: how many decisions in a row it takes.
    """

    n: int = 3
    name: ClassVar[str] = "hysteresis"

    def __post_init__(self) -> None:
        _check_counts(self)

    @property
    def n_state(self) -> int:
        """The reported class plus 1, the last decided class plus 1, and how often in a row, up to ``n``."""
        return 3

    def step(self, state: list[int], label: int) -> int:
        """See `TemporalRule.step`."""
        if label != UNDECIDED:
            state[2] = min(state[2] + 1, self.n) if label + 1 == state[1] else 1
            state[1] = label + 1
            if state[2] == self.n or state[0] == 0:
                state[0] = label + 1
        return state[0] - 1

    def _batch(self, labels: Integers, starts: Booleans) -> tuple[Integers, Booleans]:
        decided = np.flatnonzero(labels != UNDECIDED)
        kept, of_stream = labels[decided], np.cumsum(starts)[decided]
        first = np.append(True, of_stream[1:] != of_stream[:-1])[: len(decided)]
        new_run = first | np.append(True, kept[1:] != kept[:-1])[: len(decided)]
        places = np.arange(len(decided))
        run_start = np.maximum.accumulate(np.where(new_run, places, 0))
        # The report changes at a run's n-th decision, and is set at a stream's first.
        changes = np.flatnonzero(first | (places - run_start == self.n - 1))
        return _held(kept[changes], decided[changes], starts), np.ones(len(labels), bool)


@dataclass(frozen=True)
class Skip(TemporalRule):
    """While the scene is stable, windows are not computed: the last class is reported for them.

    After ``stable`` decisions in a row of one class the next ``skip`` windows are not computed. Then one is:
    if it agrees the next ``skip`` are skipped again, else counting starts anew with it. A steady scene costs
    one window in skip + 1; a change is noticed up to ``skip`` windows late, a shorter event perhaps never. A
    wanted window without a decision changes nothing: the next one is wanted instead.

    Args:
        stable: how many decisions in a row make a scene stable.
        skip: how many windows are then not computed.
    """

    stable: int = 3
    skip: int = 3
    name: ClassVar[str] = "skip"
    may_skip: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_counts(self)

    @property
    def n_state(self) -> int:
        """The last class plus 1, how often it came in a row, up to ``stable``, and windows left to skip."""
        return 3

    def wants(self, state: list[int]) -> bool:
        """See `TemporalRule.wants`."""
        return state[2] == 0

    def step(self, state: list[int], label: int) -> int:
        """See `TemporalRule.step`."""
        if state[2]:
            state[2] -= 1
        elif label != UNDECIDED:
            state[1] = min(state[1] + 1, self.stable) if label + 1 == state[0] else 1
            state[0] = label + 1
            if state[1] == self.stable:
                state[2] = self.skip
        return state[0] - 1

    def _batch(self, labels: Integers, starts: Booleans) -> tuple[Integers, Booleans]:
        # Which window is looked at next hangs on every one before it: this walks from one to the next, and
        # only what lies between is filled at once.
        wanted = np.ones(len(labels), bool)
        bounds = [*np.flatnonzero(starts).tolist(), len(labels)]
        values = labels.tolist()
        for place, end in pairwise(bounds):
            last, in_a_row = UNDECIDED, 0
            while place < end:
                label = values[place]
                place += 1
                if label == UNDECIDED:
                    continue
                in_a_row = in_a_row + 1 if label == last else 1
                last = label
                if in_a_row >= self.stable:
                    wanted[place : min(place + self.skip, end)] = False
                    place += self.skip
        decided = np.flatnonzero(wanted & (labels != UNDECIDED))
        return _held(labels[decided], decided, starts), wanted


@dataclass(frozen=True)
class Chain(TemporalRule):
    """Rules one after the other: each takes in what the one before it reports.

    Only a window that was computed and decided is handed on, so a class that `skip` repeats does not vote.

    Args:
        rules: one to `MOST_RULES`. Only the first may skip windows.
    """

    rules: tuple[TemporalRule, ...]
    name: ClassVar[str] = "chain"
    may_skip: ClassVar[bool] = True

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.rules]
        if not 1 <= len(self.rules) <= MOST_RULES or any(rule.may_skip for rule in self.rules[1:]):
            raise InputError(
                f"`rules` needs one to {MOST_RULES} rules, and only the first may skip windows. "
                f"Received: {', '.join(names[: MOST_RULES + 1]) or 'none'}. Put `skip` first, as in skip, "
                "majority."
            )

    @property
    def n_state(self) -> int:
        """The states of the rules, one after the other."""
        return sum(rule.n_state for rule in self.rules)

    def wants(self, state: list[int]) -> bool:
        """See `TemporalRule.wants`."""
        return self.rules[0].wants(state[: self.rules[0].n_state])

    def step(self, state: list[int], label: int) -> int:
        """See `TemporalRule.step`."""
        if not self.wants(state):
            label = UNDECIDED
        start, report = 0, label
        for rule in self.rules:
            own = state[start : start + rule.n_state]
            report = rule.step(own, label if label == UNDECIDED else report)
            state[start : start + rule.n_state] = own
            start += rule.n_state
        return report

    def _batch(self, labels: Integers, starts: Booleans) -> tuple[Integers, Booleans]:
        report, wanted = self.rules[0]._batch(labels, starts)
        handed_on = wanted & (labels != UNDECIDED)
        for rule in self.rules[1:]:
            report, _ = rule._batch(np.where(handed_on, report, UNDECIDED), starts)
        return report, wanted


TEMPORAL_RULES: dict[str, type[TemporalRule]] = {kind.name: kind for kind in (Majority, Hysteresis, Skip)}


def make_temporal(name: str, **options: int) -> TemporalRule:
    """Return the temporal rule of that name.

    Args:
        name: a key of `TEMPORAL_RULES`.
        options: arguments of the rule; what is left out has the rule's default.

    Raises:
        InputError: no such rule, no such option, or an option that is no whole number from 1 to 255.

    Example:
        >>> Chain((make_temporal("skip", stable=3, skip=4), make_temporal("majority", n=5))).n_state
        8
    """
    if name not in TEMPORAL_RULES:
        raise unknown_name("name", name, TEMPORAL_RULES)
    kind = TEMPORAL_RULES[name]
    known = _options(kind)
    for option in options:
        if option not in known:
            raise unknown_name(f"options of {name}", option, known)
    return kind(**options)


def _options(kind: type[TemporalRule]) -> tuple[str, ...]:
    return tuple(one.name for one in fields(kind))  # type: ignore[arg-type]


def _check_counts(rule: TemporalRule) -> None:
    """Refuse an option that is not a whole number from 1 to `MOST_WINDOWS`."""
    for option in _options(type(rule)):
        value = getattr(rule, option)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_WINDOWS:
            raise InputError(
                f"`{option}` of {rule.name} must be a whole number from 1 to {MOST_WINDOWS}. "
                f"Received: {value!r}. The default is {getattr(type(rule), option)}."
            )


def _starts(labels: Integers, stream: Integers | None) -> Booleans:
    """Return (n,) where a stream starts."""
    if labels.ndim != 1 or (stream is not None and stream.shape != labels.shape):
        raise InputError(
            "`labels` must be (n,), and `stream` of the same shape. "
            f"Received: shapes {labels.shape} and {None if stream is None else stream.shape}."
        )
    starts = np.zeros(len(labels), bool)
    starts[:1] = True
    if stream is not None:
        starts[1:] = stream[1:] != stream[:-1]
    return starts


def _held(reports: Integers, places: NDArray[np.intp], starts: Booleans) -> Integers:
    """Return (n,) reports that are set at some places and held until the next, or the stream's end."""
    set_at = starts.copy()
    set_at[places] = True
    values = np.full(len(starts), UNDECIDED, np.int64)
    values[places] = reports
    last_set = np.maximum.accumulate(np.where(set_at, np.arange(len(starts)), 0))
    return values[last_set] if len(starts) else values
