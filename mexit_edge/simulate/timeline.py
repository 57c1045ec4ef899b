"""The order of events in a stream: which window is taken up when, what it decides, and what is reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mexit_edge.exits import BudgetController, Chain
from mexit_edge.exits.temporal import UNDECIDED
from mexit_edge.signals import WindowStatus
from mexit_edge.simulate.brown_out import WindowDecision
from mexit_edge.simulate.columns import Outcome, Reason
from mexit_edge.simulate.costs import ServiceTimes
from mexit_edge.simulate.queue import NEVER_SERVED, Queue

_LONG_AGO = -(1 << 62)


@dataclass(frozen=True, eq=False)
class Decided:
    """What every window of a batch decides if it is computed.

    Args:
        exit: (n,) from 1; 0 where the window's samples are rejected.
        label: (n,) class; `UNDECIDED` there.
        hit: (n,) whether the supply is lost.
        again: (n,) stages that are run a second time.
    """

    exit: NDArray[np.int64]
    label: NDArray[np.int64]
    hit: NDArray[np.bool_]
    again: NDArray[np.int64]

    @classmethod
    def nothing(cls, n_windows: int) -> Decided:
        """Return windows of which none is computed."""
        zeros = np.zeros(n_windows, np.int64)
        return cls(zeros, np.full(n_windows, UNDECIDED), zeros != 0, zeros.copy())

    def at(self, place: int) -> WindowDecision:
        """Return what one window decides."""
        return WindowDecision(
            int(self.exit[place]), int(self.label[place]), bool(self.hit[place]), int(self.again[place])
        )

    def put(self, place: int, one: WindowDecision) -> None:
        """Set what one window decides."""
        self.exit[place], self.label[place] = one.exit, one.label
        self.hit[place], self.again[place] = one.hit, one.again


class Decisions(Protocol):
    """Decides on the windows of one batch."""

    def all(self) -> Decided:
        """Return what every window decides at the bundle's own thresholds."""

    def one(self, place: int, thresholds: tuple[int, ...] | None) -> WindowDecision:
        """Return what one window decides, at these thresholds where they are not the bundle's own."""


class Timeline:
    """Plays the windows of one stream, batch after batch.

    Where a window's decision changes what becomes of the next ones (windows that are skipped, thresholds that
    move), it goes from window to window in plain integers; else whole batches are queued at once.

    Args:
        times: how long windows take.
        waiting: windows that may wait.
        rule: temporal rules, or None.
        controller: changed as windows pass; or None.
    """

    def __init__(
        self,
        times: ServiceTimes,
        waiting: int,
        rule: Chain | None,
        controller: BudgetController | None,
    ) -> None:
        self._times = times
        self._queue = Queue(waiting)
        self._rule = rule
        self._state = [0] * (rule.n_state if rule else 0)
        self._controller = controller
        self._feeds_back = controller is not None or (rule is not None and rule.rules[0].may_skip)
        self._ready_ns = _LONG_AGO

    def play(
        self, ready_ns: NDArray[np.int64], status: NDArray[np.int8], decisions: Decisions
    ) -> dict[str, NDArray[Any]]:
        """Return what becomes of the next windows of the stream: name of a column of `Columns` -> (n,).

        Args:
            ready_ns: (n,) when each has all its samples; one that has them before the window ahead of it
                leaves the ring buffer with that.
            status: (n,) a `WindowStatus` each.
            decisions: on the windows.
        """
        ready_ns = np.maximum(np.maximum.accumulate(ready_ns), self._ready_ns)
        self._ready_ns = int(ready_ns[-1]) if len(ready_ns) else self._ready_ns
        taken = (self._one_by_one if self._feeds_back else self._at_once)(ready_ns, status, decisions)
        return {"ready_ns": ready_ns, **taken}

    def _at_once(
        self, ready_ns: NDArray[np.int64], status: NDArray[np.int8], decisions: Decisions
    ) -> dict[str, NDArray[Any]]:
        decided = decisions.all()
        exit_, label, again = decided.exit.copy(), decided.label.copy(), decided.again.copy()
        healthy = np.flatnonzero(status == WindowStatus.OK)
        start_ns, finish_ns = np.full((2, len(status)), NEVER_SERVED)
        service_ns = self._times.of(exit_, decided.hit, again)
        served = self._queue.serve_all(ready_ns[healthy], service_ns[healthy])
        start_ns[healthy], finish_ns[healthy] = served.start_ns, served.finish_ns
        lost = healthy[served.lost]
        exit_[lost], label[lost], again[lost] = 0, UNDECIDED, 0
        outcome = np.where(decided.hit, Outcome.RESUMED, Outcome.DECIDED)
        outcome[exit_ == 0] = Outcome.REJECTED
        reason = status.astype(np.int64)
        reason[again > 0] = Reason.STARTED_ANEW
        reason[lost] = Reason.OVERRUN
        reported = label
        if self._rule is not None:
            state, step = self._state, self._rule.step
            reported = np.asarray([step(state, one) for one in label.tolist()], np.int64)
        return _named(start_ns, finish_ns, exit_, label, reported, outcome, reason, again)

    def _one_by_one(
        self, ready_ns: NDArray[np.int64], status: NDArray[np.int8], decisions: Decisions
    ) -> dict[str, NDArray[Any]]:
        rows = [
            self._next(place, ready, code, decisions)
            for place, (ready, code) in enumerate(zip(ready_ns.tolist(), status.tolist(), strict=True))
        ]
        return _named(*np.asarray(rows, np.int64).reshape(len(rows), 8).T)

    def _next(self, place: int, ready_ns: int, status: int, decisions: Decisions) -> tuple[int, ...]:
        """Return start, finish, exit, label, reported, outcome, reason, and stages that were run again."""
        if status != WindowStatus.OK or not self._queue.has_room(ready_ns):
            reported = self._report(UNDECIDED, 0)
            reason = status or Reason.OVERRUN
            return NEVER_SERVED, NEVER_SERVED, 0, UNDECIDED, reported, Outcome.REJECTED, reason, 0
        if self._rule is not None and not self._rule.wants(self._state):
            times = self._queue.serve(ready_ns, 0)
            reported = self._report(UNDECIDED, 0)
            return *times, 0, UNDECIDED, reported, Outcome.SKIPPED, Reason.NONE, 0
        controller = self._controller
        one = decisions.one(place, None if controller is None else controller.thresholds())
        times = self._queue.serve(ready_ns, int(self._times.of(one.exit, one.hit, one.again)))
        spent = 0 if controller is None else spent_by(controller, one)
        reported = self._report(one.label, spent)
        outcome = Outcome.RESUMED if one.hit else Outcome.DECIDED
        reason = Reason.STARTED_ANEW if one.again else Reason.NONE
        return *times, one.exit, one.label, reported, outcome, reason, one.again

    def _report(self, label: int, spent: int) -> int:
        if self._controller is not None:
            self._controller.update(spent)
        return label if self._rule is None else self._rule.step(self._state, label)


def spent_by(controller: BudgetController, one: WindowDecision) -> int:
    """Return what a window cost, in the controller's unit: its exit, and stages that were run again."""
    again = controller.costs[one.again - 1] if one.again else 0
    return controller.costs[one.exit - 1] + again


def _named(
    start_ns: NDArray[np.int64],
    finish_ns: NDArray[np.int64],
    exit: NDArray[np.int64],
    label: NDArray[np.int64],
    reported: NDArray[np.int64],
    outcome: NDArray[np.int64],
    reason: NDArray[np.int64],
    again: NDArray[np.int64],
) -> dict[str, NDArray[Any]]:
    return {
        "start_ns": start_ns,
        "finish_ns": finish_ns,
        "exit": exit,
        "label": label,
        "reported": reported,
        "outcome": outcome,
        "reason": reason,
        "again": again,
    }
