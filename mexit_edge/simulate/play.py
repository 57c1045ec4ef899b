"""Play streams through a bundle's loop as a device would: windows, decisions, time, energy and faults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from mexit_edge.bundle import Bundle
from mexit_edge.errors import InputError
from mexit_edge.estimate import BundleEstimate, Device
from mexit_edge.exits import BudgetController, Chain
from mexit_edge.runtime import Runtime, reference_engine
from mexit_edge.signals import Recording, Stream, StreamWindows, WindowBatch, adapt
from mexit_edge.simulate.batch_decisions import BatchDecisions, Loop
from mexit_edge.simulate.brown_out import Interruptions
from mexit_edge.simulate.columns import Columns
from mexit_edge.simulate.costs import ServiceTimes, device_costs
from mexit_edge.simulate.executed import executed_windows
from mexit_edge.simulate.play_options import PlayOptions
from mexit_edge.simulate.playback import Playback, PlayedStream
from mexit_edge.simulate.timeline import Timeline

OnBatch = Callable[[WindowBatch, Columns], None]


class PlaybackInterrupted(KeyboardInterrupt):
    """`play` was interrupted.

    Attributes:
        playback: the windows that were done with.
    """

    def __init__(self, playback: Playback) -> None:
        super().__init__()
        self.playback = playback


def play(
    bundle: Bundle | str | Path | Runtime,
    streams: Iterable[Stream | Recording],
    *,
    device: str | Device | BundleEstimate | None = None,
    stack: str | None = None,
    engine: str | None = None,
    options: PlayOptions | None = None,
    on_batch: OnBatch | None = None,
) -> Playback:
    """Play streams, one after the other, through the bundle's loop with a device's times and powers.

    Windows overlap as on the device; those whose samples are bad are rejected; the rest is decided by stages,
    in batches of which only what remains goes on. With a controller every window runs to the end, and its
    exit is then taken from its scores, window after window, by the thresholds of its turn; likewise windows
    are computed ahead that a temporal rule then skips. That gives what a device gives which computes no more
    than it must, because a window's scores do not depend on other windows.

    Args:
        bundle: a bundle or the path of one; or a `Runtime` of one, which need not be opened again.
        streams: of the bundle's channels, units and rate (`adapt` makes them so); window and hop are the
            bundle's. Each starts at time 0 with an idle processor and rules without a past.
        device: whose latencies and powers: a name, a device, or an estimate of this bundle that is made
            already; None for no times.
        stack: a kernel library of the device; the first one if None.
        engine: one of `mexit_edge.runtime.ENGINES`; None for the one that stands for the device, or that of
            the `Runtime`.
        options: how to play; None for the defaults.
        on_batch: called after each batch with its windows and what became of them.

    Raises:
        InputError: no stream, one that is not the bundle's or has a class that it does not have; no such
            device, stack or engine; or options that do not fit the bundle.
        PlaybackInterrupted: it was interrupted after the first window.
    """
    chosen = options or PlayOptions()
    player = _Player(Loop(_opened(bundle, engine)), chosen)
    manifest = player.loop.runtime.bundle.manifest
    costs, notes = device_costs(player.loop.runtime.bundle, device, stack, chosen.supply)
    if costs is not None:
        player.times = costs.service_times(chosen.boot_ms())
    parts: list[Columns] = []
    played: list[PlayedStream] = []

    def so_far() -> Playback:
        return Playback(
            columns=Columns.joined(parts),
            streams=tuple(played),
            name="policy",
            engine=player.loop.runtime.engine,
            classes=manifest.classes,
            exits=manifest.exits,
            exit_macs=manifest.cumulative_macs,
            costs=costs,
            options=chosen,
            notes=notes,
        )

    for number, given in enumerate(streams):
        stream = _fitting(given, player.loop.runtime.bundle)
        batches = player.cut(stream)
        ready_s = finished_s = 0.0
        try:
            for batch, columns in player.windows(batches, number):
                Columns.gathered(parts, columns)
                ready_s = max(ready_s, float(batch.ready_s.max()))
                finished_s = max(finished_s, int(columns.finish_ns.max()) / 1e9)
                if on_batch is not None:
                    on_batch(batch, columns)
        except KeyboardInterrupt as error:
            if not parts:
                raise
            # Samples behind the last window have been read, and not been played.
            played.append(PlayedStream(stream.name, stream.subject, ready_s, max(ready_s, finished_s)))
            raise PlaybackInterrupted(so_far()) from error
        played_s = max(batches.end_s, finished_s)
        played.append(PlayedStream(stream.name, stream.subject, batches.end_s, played_s))
    if not played:
        raise InputError("`streams` must hold at least one stream. Received: none.")
    return so_far()


def _opened(bundle: Bundle | str | Path | Runtime, engine: str | None) -> Runtime:
    if not isinstance(bundle, Runtime):
        return Runtime(bundle, engine or reference_engine())
    if engine not in (None, bundle.engine):
        raise InputError(
            f"`engine` must be that of the runtime, {bundle.engine}, or None. Received: {engine!r}."
        )
    return bundle


def _fitting(given: Stream | Recording, bundle: Bundle) -> Stream:
    manifest = bundle.manifest
    stream = adapt(given, manifest.sensor.to_sensor())
    if stream.classes is not None and stream.classes != manifest.classes:
        raise InputError(
            f"`streams` must have the bundle's classes ({', '.join(manifest.classes)}). "
            f"Received: {', '.join(stream.classes)} of {stream.name}."
        )
    return stream


class _Player:
    """What all streams share.

    Args:
        loop: that decides.
        options: how to play.

    Attributes:
        times: how long windows take; nothing takes any without a device.
    """

    def __init__(self, loop: Loop, options: PlayOptions) -> None:
        self.loop = loop
        self.options = options
        manifest = loop.runtime.bundle.manifest
        n_exits = len(manifest.exits)
        self.times = ServiceTimes(np.zeros(n_exits + 1, np.int64))
        self.temporal: Chain | None = options.temporal_rule(manifest)
        self.controller: BudgetController | None = options.budget_controller(manifest)
        if options.brown_out is not None:
            options.brown_out.check_fit(n_exits)

    def cut(self, stream: Stream) -> StreamWindows:
        """Return the windows of a stream."""
        return StreamWindows(
            stream,
            batch=1 if self.options.executed else self.options.batch,
            max_fill=self.options.max_fill,
            health=self.options.health,
        )

    def windows(self, batches: StreamWindows, number: int) -> Iterator[tuple[WindowBatch, Columns]]:
        """Play one stream, its batches in order."""
        options, loop, manifest = self.options, self.loop, self.loop.runtime.bundle.manifest
        interruptions = None
        if options.brown_out is not None:
            interruptions = Interruptions(options.brown_out, number, len(manifest.exits))
        name = batches.stream.name
        labelled = (_with_known_classes(batch, len(manifest.classes), name) for batch in batches)
        if options.executed:
            yield from executed_windows(
                labelled,
                stream=number,
                runtime=loop.runtime,
                raw=loop.way_in.raw,
                times=self.times,
                waiting=options.waiting,
                rule=self.temporal,
                controller=self.controller,
                interruptions=interruptions,
                all_exits=options.all_exits,
            )
            return
        timeline = Timeline(self.times, options.waiting, self.temporal, self.controller)
        for batch in labelled:
            hits = {} if interruptions is None else interruptions.of(batch.number)
            decisions = BatchDecisions(
                loop, batch, loop.way_in.quantized(batch), hits, all_exits=options.all_exits
            )
            ready_ns = np.rint(batch.ready_s * 1e9).astype(np.int64)
            columns = Columns.of(
                stream=np.full(len(batch), number),
                number=batch.number,
                start=batch.start,
                y=batch.y,
                filled=batch.filled,
                full_label=decisions.full_label,
                final_label=decisions.final_label,
                **timeline.play(ready_ns, batch.status, decisions),
            )
            yield batch, columns


def _with_known_classes(batch: WindowBatch, n_classes: int, name: str) -> WindowBatch:
    """Return the batch.

    Raises:
        InputError: it has a class that the bundle does not have.
    """
    if len(batch) and batch.y.max() >= n_classes:
        raise InputError(
            f"`y` of {name} must hold the bundle's classes, 0 to {n_classes - 1}, or -1. "
            f"Received: {batch.y.max()}."
        )
    return batch
