"""`mexit simulate --watch`: the stream, the exits as they happen, the queue and the battery, live.

It looks on and changes nothing: what comes out is the same with and without it.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from itertools import groupby
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mexit_edge.bundle import Bundle
from mexit_edge.errors import in_digits
from mexit_edge.estimate import Estimate
from mexit_edge.signals import Stream, WindowBatch
from mexit_edge.simulate import Columns, DeviceCosts, Outcome, PlayedEnergy, PlayOptions

FRAME_S = 0.1
SPARK_WIDTH = 64
STRIP = 48
_BLOCKS, _ASCII = " ▁▂▃▄▅▆▇█", " _.,-=+*#"
_SKIPPED, _REJECTED = "·", "x"
_COLOURS = ("green", "cyan", "yellow", "magenta", "red")


class Watch:
    """Shows a playback as it goes; on something that is no terminal, a line per second of the stream.

    Args:
        bundle: that is played.
        streams: that are played.
        costs: of the device; None where no times are known.
        options: how it is played.
        screen: where to show it.
        speed: times real time; None for as fast as it comes.
    """

    def __init__(
        self,
        bundle: Bundle,
        streams: Sequence[Stream],
        costs: DeviceCosts | None,
        options: PlayOptions,
        screen: Console,
        speed: float | None,
    ) -> None:
        self._seen = Seen(bundle, streams, costs, options)
        self._screen = screen
        self._speed = speed
        self._live = Live(console=screen, auto_refresh=False) if screen.is_terminal else None
        self._started = self._drawn = time.monotonic()
        self._line_s = -np.inf

    def __enter__(self) -> Watch:
        """Begin."""
        self._started = time.monotonic()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last picture standing."""
        if self._live is not None:
            if self._seen.n_windows:
                self._live.update(self._seen.picture(self._screen), refresh=True)
            self._live.stop()

    def on_batch(self, batch: WindowBatch, columns: Columns) -> None:
        """Show a batch, in its time where there is a pace."""
        self._seen.take(batch, columns)
        wait_s = 0.0
        if self._speed is not None:
            wait_s = self._started + self._seen.elapsed_s / self._speed - time.monotonic()
        if self._live is None:
            if self._seen.elapsed_s >= self._line_s + 1:
                self._line_s = self._seen.elapsed_s
                self._screen.print(self._seen.line(), markup=False, soft_wrap=True)
        elif wait_s > FRAME_S or time.monotonic() - self._drawn >= FRAME_S:
            self._live.update(self._seen.picture(self._screen), refresh=True)
            self._drawn = time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)


class Seen:
    """What has been seen of a playback so far.

    Args:
        bundle: that is played.
        streams: that are played.
        costs: of the device; None where no times are known.
        options: how it is played.

    Attributes:
        n_windows: windows so far.
        elapsed_s: time that has passed in the streams, one after the other.
    """

    def __init__(
        self, bundle: Bundle, streams: Sequence[Stream], costs: DeviceCosts | None, options: PlayOptions
    ) -> None:
        self._bundle, self._streams, self._costs, self._options = bundle, streams, costs, options
        self.n_windows = 0
        self.elapsed_s = 0.0
        self._before_s, self._now_s = 0.0, 0.0
        self._stream = 0
        self._exit_counts = np.zeros(len(bundle.manifest.exits), np.int64)
        self._outcomes: Counter[int] = Counter()
        self._again: list[int] = []
        self._latest: deque[tuple[int, int, int]] = deque(maxlen=STRIP)  # exit, label, outcome
        self._starts_ns: deque[int] = deque(maxlen=options.waiting + 1)
        self._latency_ms = 0.0
        self._window: NDArray[np.float32] = np.zeros(bundle.manifest.sensor.to_sensor().shape, np.float32)

    def take(self, batch: WindowBatch, columns: Columns) -> None:
        """Take in a batch."""
        if int(columns.stream[-1]) != self._stream:
            self._stream = int(columns.stream[-1])
            self._before_s += self._now_s
            self._starts_ns.clear()
        self._now_s = int(columns.ready_ns[-1]) / 1e9
        self.elapsed_s = self._before_s + self._now_s
        self.n_windows += len(columns)
        exits = columns.exit[columns.computed]
        self._exit_counts += np.bincount(exits, minlength=len(self._exit_counts) + 1)[1:]
        self._outcomes.update(columns.outcome.tolist())
        self._again += columns.again[columns.outcome == Outcome.RESUMED].tolist()
        recent = slice(-STRIP, None)
        self._latest.extend(
            zip(
                columns.exit[recent].tolist(),
                columns.label[recent].tolist(),
                columns.outcome[recent].tolist(),
                strict=True,
            )
        )
        served = ~columns.rejected
        self._starts_ns.extend(columns.start_ns[served][-self._options.waiting - 1 :].tolist())
        if columns.computed.any():
            last = int(np.flatnonzero(columns.computed)[-1])
            self._latency_ms = (int(columns.finish_ns[last]) - int(columns.ready_ns[last])) / 1e6
        self._window = batch.x[-1]

    def line(self) -> str:
        """Return where it stands, in a line."""
        shares = " ".join(f"{name} {share:.0%}" for name, share in self._shares())
        parts = [self._where(), self._last_words(), shares, self._outcome_words(), self._queue_words()]
        return "; ".join([*parts, self._battery_words()])

    def picture(self, screen: Console) -> RenderableType:
        """Return where it stands, as a picture for the terminal."""
        ramp = _ASCII if screen.options.ascii_only else _BLOCKS
        sensor = self._bundle.manifest.sensor
        waves = Table.grid(padding=(0, 1))
        for name, unit, samples in zip(sensor.channels, sensor.units, self._window.T, strict=True):
            last = samples[-1]
            value = f"{last:.3g} {unit}" if np.isfinite(last) else "?"
            # As text, since names and units may hold what reads as markup.
            waves.add_row(Text(name), Text(sparkline(samples, ramp)), Text(value))
        shares = Table.grid(padding=(0, 1))
        for number, (name, share) in enumerate(self._shares()):
            shares.add_row(name, Text("#" * round(30 * share), _colour(number + 1)), f"{share:6.1%}")
        body = Group(
            Text(self._where(), "bold"),
            waves,
            self._strip(),
            shares,
            Text(self._outcome_words()),
            Text(self._queue_words()),
            Text(self._battery_words()),
        )
        board = "no device" if self._costs is None else self._costs.board.name
        return Panel(body, title=Text(f"{self._bundle.manifest.name} on {board}"), title_align="left")

    def _shares(self) -> list[tuple[str, float]]:
        total = max(int(self._exit_counts.sum()), 1)
        names = self._bundle.manifest.exits
        return [(name, count / total) for name, count in zip(names, self._exit_counts.tolist(), strict=True)]

    def _where(self) -> str:
        return (
            f"{in_time(self._now_s)} of {self._streams[self._stream].name}, {self.n_windows:,} windows so far"
        )

    def _last_words(self) -> str:
        exit_, label, outcome = self._latest[-1]
        word = Outcome(outcome).word
        if not exit_:
            return f"the latest {word}"
        manifest = self._bundle.manifest
        return f"the latest {word} {manifest.classes[label]} at {manifest.exits[exit_ - 1]}"

    def _strip(self) -> Text:
        """Return the latest exits, windows of one class together behind its name."""
        text = Text("exits  ")
        for label, group in groupby(self._latest, key=lambda one: one[1]):
            text.append(f"{self._bundle.manifest.classes[label]} " if label >= 0 else "- ", "bold")
            for exit_, _, outcome in group:
                mark = _SKIPPED if outcome == Outcome.SKIPPED else _REJECTED
                text.append(str(exit_) if exit_ else mark, _colour(exit_))
            text.append("  ")
        return text

    def _outcome_words(self) -> str:
        return ", ".join(f"{self._outcomes[one]:,} {one.word}" for one in Outcome)

    def _queue_words(self) -> str:
        if self._costs is None:
            return "no device: no times"
        waiting = sum(start_ns > self._now_s * 1e9 for start_ns in self._starts_ns)
        latency = f"latest latency {in_digits(self._latency_ms)} ms (estimated)"
        return f"{waiting} of {self._options.waiting} waiting, {latency}"

    def _battery_words(self) -> str:
        energy = self._energy()
        power = None if energy is None else energy.per_window.estimated_mean_power_mw
        if energy is None or power is None:
            return "power unknown"
        said = f"mean power {_between(power)} mW (estimated)"
        if energy.battery_days is not None:
            left = 1 - self.elapsed_s / 86_400 / energy.battery_days.value
            said += f", battery {max(left, 0):.4%} left of {_between(energy.battery_days)} days"
        return said

    def _energy(self) -> PlayedEnergy | None:
        """Return the energy so far; None where times are unknown or none has passed."""
        n_computed = int(self._exit_counts.sum())
        if self._costs is None or not self.elapsed_s > 0:
            return None
        extra = self._costs.extra_ms(len(self._again), self._options.boot_ms(), np.asarray(self._again, int))
        mean_ms = self._costs.mean_latency_ms(self._exit_counts.tolist(), extra)
        return self._costs.energy(mean_ms, n_computed, self.elapsed_s)


def sparkline(samples: NDArray[np.float32], ramp: str = _BLOCKS, width: int = SPARK_WIDTH) -> str:
    """Return a line of blocks, from the lowest to the highest sample; a space where one is not finite.

    Args:
        samples: (time,); of more than `width`, means of neighbours are shown.
        ramp: a space, then characters of rising height.
        width: most characters.
    """
    parts = np.array_split(samples, min(width, len(samples)))
    with np.errstate(invalid="ignore"):
        means = np.asarray([part.mean() for part in parts], np.float64)
    known = means[np.isfinite(means)]
    if not len(known):
        return " " * len(means)
    low, span = known.min(), max(float(np.ptp(known)), 1e-12)
    levels = len(ramp) - 1
    places = np.where(
        np.isfinite(means), 1 + np.minimum(np.nan_to_num((means - low) / span * levels), levels - 1), 0
    )
    return "".join(ramp[int(place)] for place in places)


def in_time(seconds: float) -> str:
    """Return a time as hours, minutes and seconds."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _colour(exit_: int) -> str:
    return _COLOURS[min(exit_, len(_COLOURS)) - 1] if exit_ else "bright_black"


def _between(one: Estimate) -> str:
    return f"{in_digits(one.value)} [{in_digits(one.low)}, {in_digits(one.high)}]"
