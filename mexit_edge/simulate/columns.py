"""What became of every window of played streams: small columns, one row per window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.signals import WindowStatus


class Outcome(IntEnum):
    """How a window ended."""

    DECIDED = 0
    RESUMED = 1  # decided, after a brown-out
    SKIPPED = 2  # not computed, because a temporal rule did not want it
    REJECTED = 3

    @property
    def word(self) -> str:
        """In a word, for messages and tables."""
        return self.name.lower()


class Reason(IntEnum):
    """Why a window ended so; the first ones are those of `WindowStatus`."""

    NONE = 0
    MISSING_SAMPLES = WindowStatus.MISSING_SAMPLES
    NOT_FINITE = WindowStatus.NOT_FINITE
    STUCK_CHANNEL = WindowStatus.STUCK_CHANNEL
    SATURATED_CHANNEL = WindowStatus.SATURATED_CHANNEL
    OVERRUN = 5  # the processor was busy, and nothing was left to keep the window in
    STARTED_ANEW = 6  # what a brown-out left behind was damaged

    @property
    def words(self) -> str:
        """For messages and tables; "" where there is no reason to be given."""
        return "" if self is Reason.NONE else self.name.lower().replace("_", " ")


# Parts of columns that are kept apart: beyond, the arrays' own heads would outgrow the rows.
MOST_PARTS = 512

_DTYPES = {
    "stream": np.int32,
    "number": np.int32,
    "start": np.int64,
    "ready_ns": np.int64,
    "start_ns": np.int64,
    "finish_ns": np.int64,
    "exit": np.int8,
    "label": np.int16,
    "reported": np.int16,
    "y": np.int16,
    "outcome": np.int8,
    "reason": np.int8,
    "filled": np.int32,
    "again": np.int8,
    "full_label": np.int16,
    "final_label": np.int16,
}


@dataclass(frozen=True, eq=False)
class Columns:
    """A row per window, in the order of the streams and of time within each; at most 100 bytes per window.

    Args:
        stream: (n,) number of the stream, from 0.
        number: (n,) of the window in its stream.
        start: (n,) counter of the window's first sample.
        ready_ns: (n,) when it could be taken up: its samples, and those of all windows before, have arrived.
        start_ns: (n,) when it was taken up; -1 for a rejected window, which never is.
        finish_ns: (n,) when it was done with; -1 for a rejected window.
        exit: (n,) that it left at, from 1; 0 where it was not computed.
        label: (n,) class that it was given; -1 where it was not computed.
        reported: (n,) class that the stream reports after it: the temporal rules' or `label`; -1 for none.
        y: (n,) true class; -1 where it is unknown or changes within the window.
        outcome: (n,) an `Outcome` each.
        reason: (n,) a `Reason` each.
        filled: (n,) samples that hold the value of the one before, because theirs never came.
        again: (n,) stages that were run a second time after a brown-out.
        full_label: (n,) class that the rule gives at the final exit; -1 where the window was rejected for its
            samples, or nobody asked for all exits.
        final_label: (n,) class with the largest logit at the final exit; `full_label` unless the rule heeds
            the exits before; -1 as there.
    """

    stream: NDArray[np.int32]
    number: NDArray[np.int32]
    start: NDArray[np.int64]
    ready_ns: NDArray[np.int64]
    start_ns: NDArray[np.int64]
    finish_ns: NDArray[np.int64]
    exit: NDArray[np.int8]
    label: NDArray[np.int16]
    reported: NDArray[np.int16]
    y: NDArray[np.int16]
    outcome: NDArray[np.int8]
    reason: NDArray[np.int8]
    filled: NDArray[np.int32]
    again: NDArray[np.int8]
    full_label: NDArray[np.int16]
    final_label: NDArray[np.int16]

    @classmethod
    def of(cls, **columns: NDArray[Any]) -> Columns:
        """Return columns in their own types."""
        return cls(**{name: columns[name].astype(dtype, copy=False) for name, dtype in _DTYPES.items()})

    @classmethod
    def joined(cls, parts: Sequence[Columns]) -> Columns:
        """Return columns one below the other; none gives columns without rows."""
        return cls(
            **{
                name: np.concatenate([np.empty(0, dtype), *(getattr(part, name) for part in parts)])
                for name, dtype in _DTYPES.items()
            }
        )

    @classmethod
    def gathered(cls, parts: list[Columns], more: Columns) -> None:
        """Add columns to a list, and join it when it grows: small parts take far more than their rows."""
        parts.append(more)
        if len(parts) >= MOST_PARTS:
            parts[:] = [cls.joined(parts)]

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.number)

    @property
    def nbytes(self) -> int:
        """Bytes of all columns."""
        return sum(getattr(self, name).nbytes for name in _DTYPES)

    @property
    def computed(self) -> NDArray[np.bool_]:
        """(n,) whether the network was run."""
        return self.exit > 0

    @property
    def rejected(self) -> NDArray[np.bool_]:
        """(n,) whether the window was lost."""
        return self.outcome == Outcome.REJECTED

    def of_stream(self, stream: int) -> Columns:
        """Return the windows of one stream, as views."""
        rows = slice(*np.searchsorted(self.stream, [stream, stream + 1]).tolist())
        return Columns(**{name: getattr(self, name)[rows] for name in _DTYPES})
