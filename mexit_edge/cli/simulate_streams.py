"""The streams that `mexit simulate` plays: one's own recordings, or those of a data set's test subjects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mexit_edge.bundle import Bundle
from mexit_edge.cli.options import DEFAULTS
from mexit_edge.cli.simulate_request import RecordingsRequest
from mexit_edge.data import FileStream, dataset, load, open_streams, split_by_subject
from mexit_edge.signals import Fault, RecordingStream, Sensor, Stream, adapt, apply_faults
from mexit_edge.signals.adapt import RATE_TOLERANCE, Rates
from mexit_edge.signals.stream import CHUNK_SAMPLES, Chunk
from mexit_edge.simulate.subjects import SEEN, refuse_seen

# Beyond any recording, and within what a counter holds.
_LAST_COUNTER = 1 << 62


@dataclass(frozen=True, eq=False)
class Recordings:
    """What is played.

    Args:
        streams: as the bundle's sensor gives them, with their faults.
        source: whose they are, in a few words.
        notes: what is taken for granted, and what was changed.
    """

    streams: tuple[Stream, ...]
    source: str
    notes: tuple[str, ...]

    @property
    def n_windows(self) -> int | None:
        """Number of windows; None where only reading tells."""
        total = 0
        for stream in self.streams:
            if stream.n_samples is None:
                return None
            total += max(0, (stream.n_samples - stream.sensor.window) // stream.sensor.hop + 1)
        return total


def open_recordings(bundle: Bundle, request: RecordingsRequest, faults: Sequence[Fault]) -> Recordings:
    """Open what is to be played.

    Args:
        bundle: that they are for.
        request: where they come from.
        faults: done to each of them.

    Raises:
        InputError: there is none, one does not fit the bundle and nothing was asked that would make it fit,
            a fault does not fit, or the bundle has seen a data set's test subjects.
    """
    sensor = bundle.manifest.sensor.to_sensor()
    if request.paths:
        opened = open_streams(
            request.paths, sensor, bundle.manifest.classes, sampling_rate_hz=request.sampling_rate_hz
        )
        own: Sequence[Stream] = opened
        source = "recordings of one's own" if len(opened) > 1 else "a recording of one's own"
        notes = [
            *_assumptions(opened),
            "Whether the bundle was made with these recordings or people, nobody can know here: quality on "
            "those that it has seen is no test.",
        ]
    else:
        name = request.data or DEFAULTS.data
        own, notes = _of_test_subjects(bundle, name, request.seed), []
        source = f"recordings of {name}'s test subjects"
    adapted = [
        adapt(one, sensor, reorder=request.reorder, convert=request.convert, resample=request.resample)
        for one in own
    ]
    if request.limit_s is not None:
        source += f", {request.first_seconds}"
        adapted = [LimitedStream(one, request.limit_s) for one in adapted]
    streams = tuple(apply_faults(one, faults) for one in adapted)
    return Recordings(streams, source, (*_changes(own, sensor, request), *notes))


def _of_test_subjects(bundle: Bundle, name: str, seed: int) -> list[Stream]:
    """Return the recordings of the test subjects of a data set."""
    entry = dataset(name)
    test = split_by_subject(load(name), test=entry.standard_test, seed=seed).test
    refuse_seen(bundle.manifest, test, SEEN)
    return [
        RecordingStream(one, entry.classes) for one in entry.load_recordings() if one.subject in test.subjects
    ]


def _assumptions(streams: Sequence[FileStream]) -> list[str]:
    """Say what files do not say, so that it was taken from the bundle; one sentence per kind."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for stream in streams:
        if stream.assumed:
            kinds.setdefault(stream.assumed, []).append(stream.name)
    return [
        f"{_named(names)} {'does' if len(names) == 1 else 'do'} not say the "
        f"{' and the '.join(one.removesuffix('_hz').replace('_', ' ') for one in assumed)}: taken from the "
        "bundle."
        for assumed, names in kinds.items()
    ]


def _changes(streams: Sequence[Stream], sensor: Sensor, request: RecordingsRequest) -> list[str]:
    """Say what was done to recordings of another sensor, as far as it was allowed; one sentence per kind."""
    done: dict[str, list[str]] = {"Reordered": [], "Converted": [], "Resampled": []}
    for stream in streams:
        own = stream.sensor
        unit_of = dict(zip(own.channels, own.units, strict=True))
        if request.reorder and own.channels != sensor.channels:
            done["Reordered"].append(stream.name)
        if request.convert and tuple(unit_of[channel] for channel in sensor.channels) != sensor.units:
            done["Converted"].append(stream.name)
        if Rates(own.sampling_rate_hz, sensor.sampling_rate_hz).need_resampling:
            done["Resampled"].append(stream.name)
    said = [f"{what} to the bundle's sensor: {_named(names)}." for what, names in done.items() if names]
    return said + _other_rates(streams, sensor)


def _other_rates(streams: Sequence[Stream], sensor: Sensor) -> list[str]:
    """Say which rates were taken for the bundle's, as they are close to it; one sentence per rate."""
    names: dict[float, list[str]] = {}
    for stream in streams:
        rates = Rates(stream.sensor.sampling_rate_hz, sensor.sampling_rate_hz)
        if rates.taken_as_one:
            names.setdefault(rates.own_hz, []).append(stream.name)
    return [
        f"{_named(own)}: {rate_hz:.8g} Hz, taken for the bundle's {sensor.sampling_rate_hz:.8g} Hz, as rates "
        f"within {RATE_TOLERANCE:.0%} are one."
        for rate_hz, own in names.items()
    ]


def _named(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} recordings ({names[0]}, ...)"


class LimitedStream(Stream):
    """The first seconds of a stream.

    Args:
        stream: of which.
        limit_s: how many.
    """

    def __init__(self, stream: Stream, limit_s: float) -> None:
        self._stream = stream
        self._end = int(min(limit_s * stream.sensor.sampling_rate_hz, _LAST_COUNTER))
        super().__init__(stream.sensor, stream.name, stream.subject, stream.classes)

    @property
    def n_samples(self) -> int | None:
        """Where the counter ends: at the limit, where the stream comes so far."""
        n_samples = self._stream.n_samples
        return self._n_samples if n_samples is None else min(n_samples, self._end)

    def chunks(self, size: int = CHUNK_SAMPLES) -> Iterator[Chunk]:
        """Yield chunks up to the limit; what lies behind it is not read."""
        for chunk in self._stream.chunks(size):
            kept = chunk.take(chunk.index < self._end)
            if len(kept):
                yield kept
            if chunk.index[-1] >= self._end - 1:
                self._n_samples = self._end
                return
