"""The same streams under the policy, always to the end, and on a network with a single exit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle import Bundle
from mexit_edge.errors import InputError
from mexit_edge.estimate import single_exit_operations
from mexit_edge.estimate.operations import known_sum
from mexit_edge.signals import WindowStatus
from mexit_edge.simulate.brown_out import Interruptions, WindowDecision
from mexit_edge.simulate.columns import Columns, Reason
from mexit_edge.simulate.costs import DeviceCosts, ServiceTimes
from mexit_edge.simulate.playback import Playback
from mexit_edge.simulate.timeline import Decided, Timeline


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Three ways to play the same streams.

    Args:
        policy: as it was played.
        always_full: every window runs through all stages and their heads, to the final exit.
        single_exit: the same network without its early heads, run as one model in one invocation
            (`estimate.single_exit_cost`): the decisions of the final exit. It has no boundary to store, so a
            brown-out costs it a whole run more.
    """

    policy: Playback
    always_full: Playback
    single_exit: Playback

    def __iter__(self) -> Iterator[Playback]:
        """Iterate over the three, in order."""
        return iter(getattr(self, field.name) for field in fields(self))


def compare(playback: Playback, bundle: Bundle) -> SideBySide:
    """Put a playback beside the network that always runs to the end, and beside one with a single exit.

    Health of windows, temporal rules, brown-outs, queue and device stay as they were; a controller has
    nothing to set.

    Args:
        playback: of `play`, with `all_exits`.
        bundle: that was played.

    Raises:
        InputError: the playback was made without `all_exits`, or by another bundle.
    """
    manifest = bundle.manifest
    if not playback.options.all_exits:
        raise InputError(
            "`playback` must know the final exit of every window. Received: one that does not. "
            "Play with `PlayOptions(all_exits=True)`."
        )
    if playback.exits != manifest.exits or playback.exit_macs != manifest.cumulative_macs:
        raise InputError(
            f"`bundle` must be the one that was played, with {len(playback.exits)} exits. "
            f"Received: {manifest.name} with {len(manifest.exits)} exits and other costs."
        )
    n_exits = len(manifest.exits)
    columns, costs = playback.columns, playback.costs
    macs = known_sum(cost.macs for cost in single_exit_operations(bundle)) or manifest.cumulative_macs[-1]
    alone = None if costs is None else costs.as_single_exit(bundle)
    full = _replayed(playback, bundle, columns.full_label, costs, may_store=True)
    single = _replayed(playback, bundle, columns.final_label, alone, may_store=False)
    return SideBySide(
        playback,
        replace(full, name="always_full"),
        replace(single, name="single_exit", exit_macs=(macs,) * n_exits),
    )


class _Settled:
    """Decisions that are known already; see `timeline.Decisions`."""

    def __init__(self, decided: Decided) -> None:
        self._decided = decided

    def all(self) -> Decided:
        return self._decided

    def one(self, place: int, thresholds: tuple[int, ...] | None) -> WindowDecision:
        return self._decided.at(place)


def _replayed(
    playback: Playback,
    bundle: Bundle,
    label: NDArray[np.int16],
    costs: DeviceCosts | None,
    *,
    may_store: bool,
) -> Playback:
    """Play again, with every healthy window leaving at the final exit with this label."""
    options, n_exits = playback.options, len(playback.exits)
    times = ServiceTimes(np.zeros(n_exits + 1, np.int64))
    if costs is not None:
        times = costs.service_times(options.boot_ms())
    parts, streams = [], []
    for number, stream in enumerate(playback.streams):
        own, labels = playback.columns.of_stream(number), label[playback.columns.stream == number]
        by_samples = own.rejected & (own.reason != Reason.OVERRUN)
        status = np.where(by_samples, own.reason, WindowStatus.OK)
        decided = Decided.nothing(len(own))
        healthy = ~by_samples
        decided.exit[healthy] = n_exits
        decided.label[healthy] = labels[healthy]
        if options.brown_out is not None:
            hits = Interruptions(options.brown_out, number, n_exits).of(own.number.astype(np.int64))
            for place, hit in hits.items():
                anew = hit.damaged_at is not None or not may_store
                if healthy[place]:
                    decided.hit[place], decided.again[place] = True, hit.after if anew else 0
        timeline = Timeline(times, options.waiting, options.temporal_rule(bundle.manifest), None)
        taken = timeline.play(own.ready_ns, status, _Settled(decided))
        part = Columns.of(**_columns(own) | taken)
        parts.append(part)
        end_s = max(int(part.finish_ns.max(initial=0)) / 1e9, stream.recorded_s)
        streams.append(replace(stream, played_s=end_s))
    return replace(playback, columns=Columns.joined(parts), streams=tuple(streams), costs=costs)


def _columns(columns: Columns) -> dict[str, NDArray[Any]]:
    return {field.name: getattr(columns, field.name) for field in fields(columns)}
