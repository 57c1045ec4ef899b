"""What `mexit simulate` was asked: what is played, on what, with which faults, and what is written."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from mexit_edge.bundle import Bundle
from mexit_edge.cli.calibrate_request import parse_temporal
from mexit_edge.cli.estimate_request import FIGURE_SUFFIXES, EnergyRequest, Subject, read_device
from mexit_edge.cli.option_words import with_option_names
from mexit_edge.cli.settings import refuse_not_positive
from mexit_edge.cli.simulate_faults import health_of, parse_brown_out
from mexit_edge.data.csv_file import STANDARD_INPUT
from mexit_edge.errors import InputError
from mexit_edge.estimate import Device
from mexit_edge.exits import TemporalRule, make_temporal
from mexit_edge.files import refuse_existing, refuse_unwritable
from mexit_edge.signals import Fault, parse_fault
from mexit_edge.simulate import BrownOut, PlayOptions, Supply

NONE = "none"
# Windows at a time where somebody looks on: often enough to look alive.
WATCHED_BATCH = 32
# Times real time: slower than the first nobody watches, and what is faster than the second just runs.
SPEEDS = (0.01, 1e6)
# What a folder of results holds: windows, figures, page.
FOLDER_FILES = ("windows.csv", "summary.json", "page.html")

# What the arguments of the library are called on the command line.
_OPTIONS = {
    **{name: f"--{name}" for name in ("engine", "device", "stack", "rest", "waiting", "batch", "fault")},
    **{name: f"--{name.replace('_', '-')}" for name in ("policy", "max_fill", "supply_v")},
    **{name: f"--{name.replace('_', '-')}" for name in ("battery_mah", "battery_v", "sampling_rate_hz")},
    **{f"{name}=True": f"--{name}" for name in ("reorder", "convert", "resample")},
    "sampling_rate_hz=50": "--sampling-rate-hz 50",
    "sensor_power_mw": "--sensor-mw",
    "paths": "RECORDING",
}


def in_option_words(text: str) -> str:
    """Return what the library says in the words of the command line."""
    return with_option_names(text, _OPTIONS)


@dataclass(frozen=True, kw_only=True)
class RecordingsRequest:
    """Where samples come from.

    Args:
        paths: files, folders, or "-" for standard input.
        play: whether a data set's own recordings are played.
        data: name of a data set; None for the default one.
        seed: of the data set's split.
        reorder: see `mexit_edge.signals.adapt`.
        convert: see there.
        resample: see there.
        sampling_rate_hz: of the files; None for what they say.
        limit_s: how much of each recording is played; None for all of it.
    """

    paths: tuple[str, ...] = ()
    play: bool = False
    data: str | None = None
    seed: int = 0
    reorder: bool = False
    convert: bool = False
    resample: bool = False
    sampling_rate_hz: float | None = None
    limit_s: float | None = None

    @property
    def first_seconds(self) -> str:
        """In words, how much of each recording is played where there is a limit."""
        return f"the first {self.limit_s:g} s of each"


@dataclass(frozen=True, kw_only=True)
class DeviceRequest:
    """What runs the bundle.

    Args:
        device: name, file, or "none".
        stack: kernel library; None for the device's first.
        engine: that executes the stages; None for the one that stands for the device.
        energy: rest, sensor, supply and battery.
    """

    device: str
    stack: str | None = None
    engine: str | None = None
    energy: EnergyRequest = field(default_factory=EnergyRequest)

    def board(self) -> Device | None:
        """Return the device; None where no times are wanted.

        Raises:
            InputError: there is no such device.
        """
        return None if self.device == NONE else read_device(self.device)

    def supply(self, bundle: Bundle) -> Supply:
        """Return rest, sensor and battery.

        Raises:
            InputError: a figure is out of its range.
        """
        period = self.energy.period(Subject(bundle.manifest.name, bundle))
        assert period is not None  # a bundle says how often its sensor has a window
        return Supply(
            period.rest,
            period.sensor_power_mw,
            period.supply_v,
            self.energy.battery_mah,
            self.energy.battery_v,
        )


@dataclass(frozen=True, kw_only=True)
class LoopRequest:
    """How the loop goes, and what goes wrong.

    Args:
        temporal: RULE:NAME=VALUE,..., "none" for no rule; none given for those of the bundle.
        no_controller: whether a controller of the bundle is left out.
        fault: NAME=..., in the order in which they act.
        fault_seed: of what faults and brown-outs draw.
        brown_out: SHARE,NAME=...; None for no brown-outs.
        waiting: windows that may wait; None for the default.
        max_fill: missing samples in a row that are filled; None for the default.
        batch: windows that are played at a time; None for the default.
        executed: whether stage after stage is invoked.
    """

    temporal: tuple[str, ...] = ()
    no_controller: bool = False
    fault: tuple[str, ...] = ()
    fault_seed: int = 0
    brown_out: str | None = None
    waiting: int | None = None
    max_fill: int | None = None
    batch: int | None = None
    executed: bool = False

    def faults(self) -> tuple[Fault, ...]:
        """Return the faults, in order."""
        return tuple(parse_fault(text, self.fault_seed) for text in self.fault)

    def temporal_rules(self) -> tuple[TemporalRule, ...] | None:
        """Return the rules that were asked for; None for those of the bundle.

        Raises:
            InputError: there is no such rule, or it stands beside "none".
        """
        if NONE in self.temporal:
            if len(self.temporal) > 1:
                raise InputError(
                    f"`--temporal none` must stand alone. Received: {', '.join(self.temporal)}. Leave it out."
                )
            return ()
        try:
            specs = [parse_temporal(text) for text in self.temporal]
        except InputError as error:
            raise InputError(str(error).replace("`name`", "`--temporal`")) from error
        return tuple(make_temporal(spec.name, **spec.options) for spec in specs) or None

    def brown_outs(self) -> BrownOut | None:
        """Return the brown-outs that were asked for."""
        return None if self.brown_out is None else parse_brown_out(self.brown_out, self.fault_seed)


@dataclass(frozen=True, kw_only=True)
class OutputRequest:
    """What is written and shown.

    Args:
        out: folder for windows.csv, summary.json and page.html.
        page: HTML to write.
        csv: windows to write, a row each.
        figure: picture of exits over time to write.
        overwrite: whether what is there may be replaced.
        as_json: whether facts are printed in place of tables.
        watch: whether the loop is shown as it goes.
        speed: times real time; None for as fast as it comes.
    """

    out: Path | None = None
    page: Path | None = None
    csv: Path | None = None
    figure: Path | None = None
    overwrite: bool = False
    as_json: bool = False
    watch: bool = False
    speed: float | None = None

    def check(self) -> None:
        """Refuse what cannot be written or shown, before anything is played.

        Raises:
            InputError: something is there already or cannot be written, or options do not go together.
        """
        files = [path for path in (self.out, self.page, self.csv, self.figure) if path is not None]
        for path in files:
            refuse_existing(path, overwrite=self.overwrite)
            refuse_unwritable(path)
        if self.out is not None and self.out.exists():
            _refuse_other_folder(self.out)
        if len({path.absolute() for path in files}) < len(files):
            raise InputError(
                f"files to write must have names of their own. Received: {files[0]} for several."
            )
        if self.figure is not None and self.figure.suffix.lower() not in FIGURE_SUFFIXES:
            raise InputError(
                f"`--figure` must end in {' or '.join(FIGURE_SUFFIXES)}. Received: {self.figure}. "
                f"Name it {self.figure.with_suffix(FIGURE_SUFFIXES[0])}."
            )
        if self.watch and self.as_json:
            raise InputError(
                "`--watch` and `--json` must not be given together: both want standard output. "
                "Received: both. Leave one out, or add `--out`, which writes summary.json too."
            )
        if self.speed is not None and not self.watch:
            raise InputError(f"`--speed` needs `--watch`. Received: {self.speed:g} alone. Add it.")
        if self.speed is not None and not SPEEDS[0] <= self.speed <= SPEEDS[1]:
            raise InputError(
                f"`--speed` must be from {SPEEDS[0]:g} to {SPEEDS[1]:,.0f} times real time. "
                f"Received: {self.speed:g}. Leave it out to play as fast as it comes."
            )

    @property
    def wants_pictures(self) -> bool:
        """Whether anything is drawn."""
        return self.out is not None or self.page is not None or self.figure is not None


@dataclass(frozen=True, kw_only=True)
class SimulateRequest:
    """The options of `mexit simulate`.

    Args:
        recordings: where samples come from.
        target: what runs the bundle.
        loop: how, and what goes wrong.
        output: what is written and shown.
        policy: a policy file to use in place of the bundle's policy.
    """

    target: DeviceRequest
    recordings: RecordingsRequest = field(default_factory=RecordingsRequest)
    loop: LoopRequest = field(default_factory=LoopRequest)
    output: OutputRequest = field(default_factory=OutputRequest)
    policy: Path | None = None

    @property
    def plays(self) -> bool:
        """Whether streams are played; else the windows of a data set are evaluated one by one."""
        return bool(self.recordings.paths) or self.recordings.play

    def check(self) -> None:
        """Refuse options that do not go together, and outputs that cannot be written.

        Raises:
            InputError: so they do, or cannot be.
        """
        self.output.check()
        refuse_not_positive({"limit-s": self.recordings.limit_s})
        if not self.plays:
            wanting = [
                *(one for one in _given(self.recordings) if one not in ("--data", "--seed")),
                *_given(self.target.energy),
                *_given(self.loop),
                *(one for one in _given(self.output) if one != "--as-json"),
            ]
            if wanting:
                raise InputError(
                    f"`{wanting[0]}` needs streams. Received: no RECORDING and no `--play`. Name a file, or "
                    "add `--play` for the recordings of the data set's test subjects."
                )
        if self.recordings.paths and (self.recordings.play or self.recordings.data is not None):
            option = "--play" if self.recordings.play else "--data"
            raise InputError(
                f"`{option}` must not stand beside recordings of one's own. "
                f"Received: {self.recordings.paths[0]} too. Leave one out."
            )

    def options(self, bundle: Bundle) -> PlayOptions:
        """Return how streams are played.

        Raises:
            InputError: an option is out of its range or names nothing that there is.
        """
        loop, defaults = self.loop, PlayOptions()
        return PlayOptions(
            temporal=loop.temporal_rules(),
            fixed_thresholds=loop.no_controller,
            brown_out=loop.brown_outs(),
            waiting=defaults.waiting if loop.waiting is None else loop.waiting,
            supply=self.target.supply(bundle),
            max_fill=defaults.max_fill if loop.max_fill is None else loop.max_fill,
            health=health_of(loop.faults(), bundle.manifest.sensor.to_sensor()),
            all_exits=True,
            executed=loop.executed,
            batch=self._batch(defaults.batch),
        )

    def conditions(self) -> dict[str, str]:
        """Return what was asked for that a playback does not know, by name."""
        recordings = self.recordings
        said = {"recordings": "whole" if recordings.limit_s is None else recordings.first_seconds}
        if recordings.sampling_rate_hz is not None:
            said["sampling rate of the files"] = f"{recordings.sampling_rate_hz:g} Hz, as given"
        allowed = [name for name in ("reorder", "convert", "resample") if getattr(recordings, name)]
        if allowed:
            said["allowed to"] = ", ".join(allowed)
        if not recordings.paths:
            said["seed of the split"] = str(recordings.seed)
        if self.loop.fault:
            said["seed of faults"] = str(self.loop.fault_seed)
        if self.policy is not None:
            said["policy file"] = self.policy.name
        return said

    def _batch(self, default: int) -> int:
        if self.loop.batch is not None or not self.output.watch:
            return default if self.loop.batch is None else self.loop.batch
        # At a pace, and from a sensor that is running, every window is shown when it is complete.
        is_live = self.output.speed is not None or STANDARD_INPUT in self.recordings.paths
        return 1 if is_live else WATCHED_BATCH


def _refuse_other_folder(out: Path) -> None:
    """Refuse to replace a folder that holds anything but results.

    Raises:
        InputError: names what it holds.
    """
    others = [] if not out.is_dir() else sorted({one.name for one in out.iterdir()} - set(FOLDER_FILES))
    if others or not out.is_dir():
        raise InputError(
            f"`--out` must be a new folder, or one of an earlier simulation. Received: {out}, "
            f"{'which holds ' + others[0] if others else 'a file'}. Choose another name."
        )


def _given(group: object) -> list[str]:
    """Return the options of a group that are not at their defaults."""
    default = type(group)()
    return [
        f"--{one.name.replace('_', '-')}"
        for one in fields(group)  # type: ignore[arg-type]
        if getattr(group, one.name) != getattr(default, one.name)
    ]
