"""One processor, windows in order, and room for a few that wait: when each window starts and finishes.

Times are whole nanoseconds, so that sums are exact and both ways through the queue give the same. Where no
window is lost, they follow Lindley's recursion as a cumulative maximum (Lindley, 1952, "The theory of queues
with a single server"):

    finish(k) = max(finish(k - 1), ready(k)) + service(k)
              = S(k) + max over j <= k of (ready(j) - S(j - 1)),   S(k) = sum of service(0 .. k)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError

Nanoseconds = NDArray[np.int64]

NEVER_SERVED = -1  # in place of a time
# Far more spare buffers than a microcontroller has memory for; the queue remembers a time for each.
MAX_WAITING = 10_000
_LONG_AGO = -(1 << 62)


@dataclass(frozen=True, eq=False)
class Served:
    """What became of windows that reached the queue.

    Args:
        start_ns: (n,) when each was taken up, `NEVER_SERVED` where it was lost.
        finish_ns: (n,) when it was done, `NEVER_SERVED` where it was lost.
    """

    start_ns: Nanoseconds
    finish_ns: Nanoseconds

    @property
    def lost(self) -> NDArray[np.bool_]:
        """(n,) whether there was no room for the window."""
        return self.start_ns == NEVER_SERVED


class Queue:
    """First come, first served, by one processor; a window that finds no room to wait in is lost.

    Args:
        waiting: windows that may wait while another is computed.

    Attributes:
        free_ns: when the processor is done with all that it took in.

    Raises:
        InputError: `waiting` is negative or above `MAX_WAITING`.
    """

    def __init__(self, waiting: int) -> None:
        if isinstance(waiting, bool) or not isinstance(waiting, int) or not 0 <= waiting <= MAX_WAITING:
            raise InputError(
                f"`waiting` must be a number of windows from 0 to {MAX_WAITING:,}. Received: {waiting!r}. "
                "A device with one spare buffer has 1."
            )
        self.waiting = waiting
        self.free_ns = _LONG_AGO
        # When the last windows were or will be taken up: one of them lies ahead for every window that waits.
        self._starts = deque([_LONG_AGO] * waiting, maxlen=waiting)

    def has_room(self, ready_ns: int) -> bool:
        """Tell whether a window that is ready now is taken in."""
        return (self._starts[0] if self.waiting else self.free_ns) <= ready_ns

    def serve(self, ready_ns: int, service_ns: int) -> tuple[int, int]:
        """Take in one window, for which there is room, and return when it starts and finishes.

        Args:
            ready_ns: when it is ready, not before the window ahead of it.
            service_ns: how long it takes.
        """
        start_ns = max(ready_ns, self.free_ns)
        self.free_ns = start_ns + service_ns
        self._starts.append(start_ns)
        return start_ns, self.free_ns

    def serve_all(self, ready_ns: Nanoseconds, service_ns: Nanoseconds) -> Served:
        """Do with many windows what `has_room` and `serve` do with one after the other.

        Args:
            ready_ns: (n,) when each is ready, ascending.
            service_ns: (n,) how long each takes if it is served.
        """
        total = np.cumsum(service_ns)
        earliest = np.maximum(np.maximum.accumulate(ready_ns - (total - service_ns)), self.free_ns)
        finish = total + earliest
        served = Served(finish - service_ns, finish)
        if self._overflows(ready_ns, served):
            return self._one_by_one(ready_ns, service_ns)
        if len(finish):
            self.free_ns = int(finish[-1])
            self._starts.extend(served.start_ns[max(0, len(finish) - self.waiting) :].tolist())
        return served

    def _overflows(self, ready_ns: Nanoseconds, served: Served) -> bool:
        """Tell whether a window is ready when `waiting` others ahead of it still wait."""
        ahead = (
            np.concatenate([np.asarray(self._starts, np.int64), served.start_ns])
            if self.waiting
            else np.append(self.free_ns, served.finish_ns)
        )
        return bool((ahead[: len(ready_ns)] > ready_ns).any())

    def _one_by_one(self, ready_ns: Nanoseconds, service_ns: Nanoseconds) -> Served:
        times = [
            self.serve(ready, service) if self.has_room(ready) else (NEVER_SERVED, NEVER_SERVED)
            for ready, service in zip(ready_ns.tolist(), service_ns.tolist(), strict=True)
        ]
        start, finish = np.asarray(times, np.int64).reshape(len(times), 2).T
        return Served(start, finish)
