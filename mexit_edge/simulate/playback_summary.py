"""A playback in figures: what became of windows, how good, how late, how much energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mexit_edge.estimate import Estimate
from mexit_edge.exits import balanced_accuracy
from mexit_edge.simulate.columns import Columns, Outcome, Reason
from mexit_edge.simulate.costs import DeviceCosts, End, PlayedEnergy, ServiceTimes
from mexit_edge.simulate.play_options import PlayOptions
from mexit_edge.simulate.queue import Queue

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Quality:
    """How often a class is right, over windows with a label that were given a class.

    Args:
        n_windows: number of these.
        accuracy: None without any.
        balanced_accuracy: None without any.
    """

    n_windows: int
    accuracy: float | None
    balanced_accuracy: float | None


@dataclass(frozen=True)
class Latencies:
    """Time from when a window is ready until it is decided, in ms, waiting and waking up included.

    The interval of a percentile spans what the queue gives with every latency at its low and at its high end.

    Args:
        p50: median.
        p95: 95th percentile.
        p99: 99th percentile.
        max: the largest.
    """

    p50: Estimate
    p95: Estimate
    p99: Estimate
    max: Estimate


@dataclass(frozen=True)
class PlaybackSummary:
    """A playback in figures. What needs a device is None without one.

    Args:
        n_windows: windows of the streams.
        played_s: how long the streams took.
        outcomes: word -> number of windows, of every outcome.
        reasons: words -> number of windows, of the reasons that occurred.
        exit_shares: (E,) share of the computed windows that left at each exit; zeros where none was computed.
        quality: of the decided windows.
        reported_quality: of what the stream reported, held over windows without a decision.
        mean_macs: multiply-accumulates per window of the streams; one that is not computed counts with 0.
        latency: of the computed windows; None also where none was computed.
        utilisation: share of the time that the processor would be busy if it took up every window; above 1 it
            cannot keep up.
        energy: of the whole time, rest and sensor alone where none was computed; None also without windows.
        notes: what is left out or extrapolated, and what is wrong.
    """

    n_windows: int
    played_s: float
    outcomes: dict[str, int]
    reasons: dict[str, int]
    exit_shares: tuple[float, ...]
    quality: Quality
    reported_quality: Quality
    mean_macs: float
    latency: Latencies | None
    utilisation: Estimate | None
    energy: PlayedEnergy | None
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Return a line per concern."""
        outcomes = ", ".join(f"{count:,} {word}" for word, count in self.outcomes.items() if count)
        lines = [f"{self.n_windows:,} windows in {self.played_s:,.1f} s: {outcomes or 'none'}"]
        if self.reasons:
            why = ", ".join(f"{count:,} {words}" for words, count in self.reasons.items())
            lines.append(f"reasons: {why}")
        shares = " / ".join(f"{share:.1%}" for share in self.exit_shares)
        lines.append(f"exits {shares}, {self.mean_macs:,.0f} MACs per window")
        for what, one in (("decided", self.quality), ("reported", self.reported_quality)):
            if one.balanced_accuracy is not None:
                lines.append(f"{what}: balanced accuracy {one.balanced_accuracy:.4f} of {one.n_windows:,}")
        if self.latency is not None:
            parts = [f"{name} {_in_words(getattr(self.latency, name))}" for name in ("p50", "p95", "p99")]
            lines.append(f"estimated latency in ms: {', '.join(parts)}")
        if self.utilisation is not None:
            lines.append(f"utilisation {_in_words(self.utilisation)}")
        if self.energy is not None:
            lines.append(_energy_sentence(self.energy))
        return "\n".join(lines)


def summarise(
    columns: Columns,
    costs: DeviceCosts | None,
    options: PlayOptions,
    played_s: float,
    exit_macs: Sequence[int],
    notes: Sequence[str],
) -> PlaybackSummary:
    """Return the figures of a playback.

    Args:
        columns: of the playback.
        costs: of the device, or None.
        options: how it was played.
        played_s: how long the streams took.
        exit_macs: (E,) of a window that leaves at each exit.
        notes: of the playback.
    """
    computed = columns.computed
    macs = np.asarray([0, *exit_macs], np.float64)
    counts = np.bincount(columns.exit[computed], minlength=len(macs))[1:]
    n_computed = int(computed.sum())
    said = list(notes)
    utilisation = None
    if costs is not None:
        utilisation = _utilisation(columns, costs, options, played_s)
        said += _overload(utilisation, costs)
        if not n_computed:
            said.append(
                "No window was computed: there is no latency, and energy is that of rest, and of the sensor "
                "where its power was given."
            )
    timed = costs if n_computed else None
    powered = costs if len(columns) and played_s > 0 else None
    return PlaybackSummary(
        n_windows=len(columns),
        played_s=played_s,
        outcomes={one.word: int((columns.outcome == one).sum()) for one in Outcome},
        reasons={one.words: count for one in Reason if one and (count := int((columns.reason == one).sum()))},
        exit_shares=tuple((counts / max(n_computed, 1)).tolist()),
        quality=_quality(columns.y, columns.label),
        reported_quality=_quality(columns.y, columns.reported),
        mean_macs=float((macs[columns.exit] + macs[columns.again]).sum() / max(len(columns), 1)),
        latency=None if timed is None else _latencies(columns, timed, options),
        utilisation=utilisation,
        energy=None if powered is None else _energy(columns, powered, options, played_s, counts),
        notes=tuple(said),
    )


def _quality(y: NDArray[np.int16], label: NDArray[np.int16]) -> Quality:
    known = (y >= 0) & (label >= 0)
    n_windows = int(known.sum())
    if not n_windows:
        return Quality(0, None, None)
    true, given = y[known].astype(np.int64), label[known].astype(np.int64)
    return Quality(n_windows, float(np.mean(true == given)), balanced_accuracy(true, given))


def _latencies(columns: Columns, costs: DeviceCosts, options: PlayOptions) -> Latencies:
    computed = columns.computed
    own = (columns.finish_ns - columns.ready_ns)[computed] / 1e6
    ends: list[NDArray[np.float64]] = [_latencies_at(columns, costs, options, end) for end in ("low", "high")]

    def percentile(share: float) -> Estimate:
        value = float(np.percentile(own, share))
        # Windows that a full queue loses at the high end may leave shorter waits to the others.
        others = [float(np.percentile(end, share)) for end in ends if len(end)]
        return Estimate(value, min(value, *others, value), max(value, *others, value))

    return Latencies(*(percentile(share) for share in (*PERCENTILES, 100)))


def _latencies_at(
    columns: Columns, costs: DeviceCosts, options: PlayOptions, end: End
) -> NDArray[np.float64]:
    """Return the latencies of the windows that were taken in, queued again with all times at one end."""
    times = costs.service_times(options.boot_ms(), end)
    parts = []
    for stream in np.unique(columns.stream).tolist():
        own = columns.of_stream(stream)
        taken = ~own.rejected
        ready_ns = own.ready_ns[taken]
        served = Queue(options.waiting).serve_all(ready_ns, _busy_ns(own, times)[taken])
        kept = ~served.lost & own.computed[taken]
        parts.append((served.finish_ns - ready_ns)[kept] / 1e6)
    return np.concatenate(parts)


def _busy_ns(columns: Columns, times: ServiceTimes) -> NDArray[np.int64]:
    """Return (n,) how long each window kept the processor busy."""
    busy: NDArray[np.int64] = times.of(columns.exit, columns.outcome == Outcome.RESUMED, columns.again)
    return busy


def _utilisation(columns: Columns, costs: DeviceCosts, options: PlayOptions, played_s: float) -> Estimate:
    n_computed, n_lost = int(columns.computed.sum()), int((columns.reason == Reason.OVERRUN).sum())
    # A window that was lost would have taken what the others took on average.
    factor = (1 + n_lost / n_computed if n_computed else 1.0) / max(played_s, 1e-9)

    def at(end: End) -> float:
        return float(_busy_ns(columns, costs.service_times(options.boot_ms(), end)).sum()) / 1e9 * factor

    return Estimate(at("value"), at("low"), at("high"))


def _overload(utilisation: Estimate, costs: DeviceCosts) -> list[str]:
    if utilisation.value >= 1:
        return [
            f"Overloaded: {costs.board.name} would have to be busy for {utilisation.value:.2f} times the "
            "time there is; windows are lost, and it never rests."
        ]
    if utilisation.high >= 1:
        return [
            f"At the high end of its latencies {costs.board.name} is overloaded: busy for "
            f"{utilisation.high:.2f} times the time there is."
        ]
    return []


def _energy(
    columns: Columns, costs: DeviceCosts, options: PlayOptions, played_s: float, counts: NDArray[np.int64]
) -> PlayedEnergy:
    hit = columns.outcome == Outcome.RESUMED
    extra = costs.extra_ms(int(hit.sum()), options.boot_ms(), columns.again[hit])
    return costs.energy(costs.mean_latency_ms(counts.tolist(), extra), int(counts.sum()), played_s)


def _energy_sentence(energy: PlayedEnergy) -> str:
    per_hour = energy.mj_per_hour
    if per_hour is None:
        return f"energy unknown: nothing is known of {', '.join(energy.per_window.unknown)}"
    days = "" if energy.battery_days is None else f", battery {_in_words(energy.battery_days)} days"
    return f"estimated energy {_in_words(per_hour)} mJ per hour{days}"


def _in_words(one: Estimate) -> str:
    return f"{one.value:.3g} [{one.low:.3g}, {one.high:.3g}]"
