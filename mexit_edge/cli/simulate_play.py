"""`mexit simulate` on streams: play them, with progress or a live view, until they end or are interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mexit_edge.bundle import Bundle
from mexit_edge.cli.simulate_request import SimulateRequest
from mexit_edge.cli.simulate_streams import Recordings, open_recordings
from mexit_edge.cli.simulate_watch import Watch
from mexit_edge.errors import InputError
from mexit_edge.runtime import Runtime, reference_engine
from mexit_edge.signals import WindowBatch
from mexit_edge.simulate import (
    Columns,
    DeviceCosts,
    Playback,
    PlayOptions,
    SideBySide,
    compare,
    play,
)
from mexit_edge.simulate.costs import device_costs
from mexit_edge.simulate.play import OnBatch, PlaybackInterrupted

# Long enough for any latency to fit into.
_LONG_S = 1e9


@dataclass(frozen=True, eq=False)
class Played:
    """What was played, and under which conditions.

    Args:
        bundle: that was played, with the policy in use.
        sides: the playback, and what stands beside it.
        source: whose recordings they are.
        faults: as they were given.
        given: what else was, by name, that a playback does not know.
        notes: on the recordings, the playback and its energy.
        is_interrupted: whether it ended before the streams did.
    """

    bundle: Bundle
    sides: SideBySide
    source: str
    faults: tuple[str, ...]
    given: dict[str, str]
    notes: tuple[str, ...]
    is_interrupted: bool

    @property
    def playback(self) -> Playback:
        """The one under the policy."""
        return self.sides.policy


def play_recordings(bundle: Bundle, request: SimulateRequest, screen: Console) -> Played:
    """Play what was asked for.

    Args:
        bundle: with the policy to use.
        request: what was asked.
        screen: where progress or the live view goes.

    Raises:
        InputError: an option is wrong, a recording does not fit, or all are shorter than a window.
        KeyboardInterrupt: it was interrupted before the first window.
    """
    options = request.options(bundle)
    board = request.target.board()
    faults = request.loop.faults()
    recordings = open_recordings(bundle, request.recordings, faults)
    runtime = Runtime(bundle, request.target.engine or reference_engine())
    costs, _ = device_costs(bundle, board, request.target.stack, options.supply)
    _try_energy(costs)
    notes: tuple[str, ...] = ()
    with _looking_on(request, bundle, recordings, costs, options, screen) as on_batch:
        try:
            playback = play(
                runtime,
                recordings.streams,
                device=board,
                stack=request.target.stack,
                options=options,
                on_batch=on_batch,
            )
        except PlaybackInterrupted as interruption:
            playback = interruption.playback
            last = playback.streams[-1].name
            notes = (f"Interrupted in {last}: what follows holds for what was played.",)
    if not len(playback):
        sensor = bundle.manifest.sensor
        raise InputError(
            f"recordings must be at least one window long ({sensor.window} samples, "
            f"{sensor.window / sensor.sampling_rate_hz:g} s). Received: none that is."
        )
    sides = compare(playback, bundle)
    return Played(
        bundle=bundle,
        sides=sides,
        source=recordings.source,
        faults=request.loop.fault,
        given=request.conditions(),
        notes=(*notes, *_notes(recordings, sides)),
        is_interrupted=bool(notes),
    )


def _try_energy(costs: DeviceCosts | None) -> None:
    """Refuse a supply or a battery that the device cannot have, before hours are played."""
    if costs is not None:
        costs.energy(costs.latencies[-1], 1, _LONG_S)


def _notes(recordings: Recordings, sides: SideBySide) -> tuple[str, ...]:
    said = dict.fromkeys(recordings.notes)
    for one in sides:
        energy = one.summary.energy
        notes = [*one.summary.notes, *(() if energy is None else energy.per_window.notes)]
        if one.costs is not None and energy is not None and energy.per_window.unknown:
            unknown = ", ".join(energy.per_window.unknown)
            notes.append(f"Unknown of {one.costs.board.name}: {unknown}, and with it the energy of an hour.")
        prefix = "" if one.name == "policy" else f"{one.name.replace('_', ' ').capitalize()}: "
        said |= dict.fromkeys(prefix + note for note in notes if note not in said)
    return tuple(said)


@contextmanager
def _looking_on(
    request: SimulateRequest,
    bundle: Bundle,
    recordings: Recordings,
    costs: DeviceCosts | None,
    options: PlayOptions,
    screen: Console,
) -> Iterator[OnBatch]:
    """Give what is to be called after each batch, to show how it goes."""
    if request.output.watch:
        with Watch(bundle, recordings.streams, costs, options, screen, request.output.speed) as watch:
            yield watch.on_batch
        return
    bar = Progress(
        TextColumn("Playing"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("windows,"),
        TimeRemainingColumn(),
        # A name may hold what reads as markup.
        TextColumn("left, {task.fields[stream]}", markup=False),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
    with bar:
        task = bar.add_task("windows", total=recordings.n_windows, stream="")

        def advance(batch: WindowBatch, columns: Columns) -> None:
            name = recordings.streams[int(columns.stream[-1])].name
            bar.update(task, advance=len(batch), stream=name)

        yield advance
