"""What a device made of streams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import MissingExtraError
from mexit_edge.simulate.columns import Columns, Outcome, Reason
from mexit_edge.simulate.costs import DeviceCosts
from mexit_edge.simulate.play_options import PlayOptions
from mexit_edge.simulate.playback_summary import PlaybackSummary, summarise

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class PlayedStream:
    """One stream that was played.

    Args:
        name: of the stream.
        subject: whom it comes from.
        recorded_s: from its start until its last sample has come.
        played_s: until its last window is done with, too.
    """

    name: str
    subject: int
    recorded_s: float
    played_s: float


@dataclass(frozen=True, eq=False)
class Playback:
    """What a device made of streams.

    Args:
        columns: a row per window.
        streams: what was played.
        name: of the way it was played: ``"policy"``, or what `compare` puts beside it.
        engine: that computed the windows.
        classes: name per class.
        exits: name per exit.
        exit_macs: (E,) multiply-accumulates of a window that leaves at each exit.
        costs: of the device; None where no times are known.
        options: how it was played.
        notes: what is left out or extrapolated.
    """

    columns: Columns
    streams: tuple[PlayedStream, ...]
    name: str
    engine: str
    classes: tuple[str, ...]
    exits: tuple[str, ...]
    exit_macs: tuple[int, ...]
    costs: DeviceCosts | None
    options: PlayOptions
    notes: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.columns)

    def __str__(self) -> str:
        """Return the summary in a few lines."""
        return str(self.summary)

    @cached_property
    def summary(self) -> PlaybackSummary:
        """Counts, quality, latency, energy and battery."""
        return summarise(self.columns, self.costs, self.options, self.played_s, self.exit_macs, self.notes)

    @property
    def played_s(self) -> float:
        """How long all streams took, one after the other."""
        return sum(stream.played_s for stream in self.streams)

    def tidy(self) -> dict[str, list[Any]]:
        """Return name -> a value per window, None where there is none; times in s, from each stream's start.

        Names: stream, subject, window, start, ready_s, start_s, finish_s, latency_ms, exit, label, reported,
        y, outcome, reason, filled. Of a rejected window there is no start, finish, latency, exit or label;
        of a skipped one no exit and no label; without a device nothing but `ready_s` is known of times.
        """
        columns = self.columns
        timed = self.costs is not None
        served = ~columns.rejected & timed
        latency_ms = (columns.finish_ns - columns.ready_ns) / 1e6
        names = [stream.name for stream in self.streams]
        subjects = [stream.subject for stream in self.streams]
        return {
            "stream": [names[stream] for stream in columns.stream.tolist()],
            "subject": [subjects[stream] for stream in columns.stream.tolist()],
            "window": columns.number.tolist(),
            "start": columns.start.tolist(),
            "ready_s": (columns.ready_ns / 1e9).tolist(),
            "start_s": _or_none(columns.start_ns / 1e9, served),
            "finish_s": _or_none(columns.finish_ns / 1e9, served),
            "latency_ms": _or_none(latency_ms, served & columns.computed),
            "exit": _or_none(columns.exit, columns.computed),
            "label": self._classes_of(columns.label),
            "reported": self._classes_of(columns.reported),
            "y": self._classes_of(columns.y),
            "outcome": [Outcome(code).word for code in columns.outcome.tolist()],
            "reason": [Reason(code).words for code in columns.reason.tolist()],
            "filled": columns.filled.tolist(),
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row per window, names as in `tidy`."""
        tidy = self.tidy()
        for values in zip(*tidy.values(), strict=True):
            yield dict(zip(tidy, values, strict=True))

    def to_frame(self) -> pd.DataFrame:
        """Return `rows` as a table. Needs pandas."""
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtraError("pandas", "train") from error
        return pd.DataFrame(self.tidy())

    def _classes_of(self, labels: NDArray[np.int16]) -> list[str | None]:
        # The last name stands for -1.
        names = [*self.classes, None]
        return [names[label] for label in labels.tolist()]


def _or_none(values: NDArray[Any], known: NDArray[np.bool_]) -> list[Any]:
    return [
        value if is_known else None for value, is_known in zip(values.tolist(), known.tolist(), strict=True)
    ]
