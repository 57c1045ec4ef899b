"""`mexit models`: what every backbone and preset costs, as committed, or measured anew for another shape."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from importlib.util import find_spec
from itertools import accumulate
from typing import Any

from rich.console import Console
from rich.table import Table

from mexit_edge.cli.progress import JobProgress
from mexit_edge.cli.tables import console, print_json
from mexit_edge.errors import InputError, MissingExtraError, unknown_name
from mexit_edge.signals import Sensor

N_REPRESENTATIVE = 16
MAX_SAMPLES, MAX_CLASSES = 1 << 20, 10_000


@dataclass(frozen=True)
class PresetFigures:
    """What a preset costs as int8 stages.

    Args:
        backbone: its name.
        preset: its name.
        window: samples per window.
        channels: per sample.
        classes: number of classes.
        parameters: of the Keras network, all weights.
        exit_macs: multiply-accumulates of one window up to each exit, the heads before it included.
        int8_bytes: of all stage files together.
        largest_arena_bytes: of any stage, as TFLM reports it on a 64-bit host; None where it is unknown.
    """

    backbone: str
    preset: str
    window: int
    channels: int
    classes: int
    parameters: int
    exit_macs: tuple[int, ...]
    int8_bytes: int
    largest_arena_bytes: int | None

    @property
    def row(self) -> dict[str, Any]:
        """The figures as a row of presets.csv."""
        arena = self.largest_arena_bytes
        macs = " ".join(map(str, self.exit_macs))
        return {**asdict(self), "exit_macs": macs, "largest_arena_bytes": "" if arena is None else arena}

    @classmethod
    def of_row(cls, row: dict[str, str]) -> PresetFigures:
        """Read a row of presets.csv."""
        numbers = {
            name: int(row[name]) for name in ("window", "channels", "classes", "parameters", "int8_bytes")
        }
        arena = row["largest_arena_bytes"]
        return cls(
            backbone=row["backbone"],
            preset=row["preset"],
            exit_macs=tuple(map(int, row["exit_macs"].split())),
            largest_arena_bytes=int(arena) if arena else None,
            **numbers,
        )


def models_and_print(
    data: str | None,
    shape: tuple[int | None, int | None, int | None],
    backbone: str | None,
    preset: str | None,
    *,
    as_json: bool,
) -> None:
    """Print the figures of all presets, or of those chosen.

    Args:
        data: name of a data set whose windows to measure for; None for the committed figures.
        shape: window in samples, channels and classes to measure for: all three, or None each.
        backbone: the only backbone to print; None for all.
        preset: the only preset to print; None for all.
        as_json: whether to print JSON.

    Raises:
        InputError: a name is unknown, or the shape is not whole.
        MissingExtraError: there is something to measure, and no TensorFlow.
    """
    known = committed_figures()
    for argument, name in (("backbone", backbone), ("preset", preset)):
        if name is not None and name not in (names := {getattr(one, argument) for one in known}):
            raise unknown_name(argument, name, names)
    chosen = [one for one in known if backbone in (None, one.backbone) and preset in (None, one.preset)]
    screen = console(quiet=as_json)
    if data is not None or any(size is not None for size in shape):
        chosen = _measured_anew(chosen, data, shape, screen)
    if as_json:
        print_json({"models": [{**asdict(one), "exits": len(one.exit_macs)} for one in chosen]})
    else:
        screen.print(_table(chosen))


def committed_figures() -> list[PresetFigures]:
    """Return the rows of presets.csv, without TensorFlow."""
    # The room itself would load Keras.
    text = (files("mexit_edge") / "models" / "presets.csv").read_text("utf-8")
    return [PresetFigures.of_row(row) for row in csv.DictReader(text.splitlines())]


def measure(backbone: str, preset: str, sensor: Sensor, n_classes: int) -> PresetFigures:
    """Build a preset, quantize it, cut it into stages, and read its figures off them.

    Bytes and arena depend a little on the weights, here the initial ones of seed 0: where two tensors to be
    concatenated happen to have one range, the converter saves an operator.

    Raises:
        InputError: no such backbone or preset, or the network does not take the shape.
        RunError: the converter crashed.
    """
    from mexit_edge.runtime import CaughtStderr

    # TensorFlow writes notices about absent GPUs past Python's streams, whatever its log level says.
    with CaughtStderr():
        import keras
        import numpy as np

        from mexit_edge.compress import export
        from mexit_edge.models import build

        rng = np.random.default_rng(0)
        windows = rng.standard_normal((N_REPRESENTATIVE, *sensor.shape)).astype(np.float32)
        keras.utils.set_random_seed(0)
        network = build(backbone, sensor, n_classes, preset=preset)
        stages = export(network, windows).manifest.stages
    arenas = [stage.arena_bytes for stage in stages if stage.arena_bytes is not None]
    return PresetFigures(
        backbone=backbone,
        preset=preset,
        window=sensor.window,
        channels=sensor.n_channels,
        classes=n_classes,
        parameters=int(network.count_params()),
        exit_macs=tuple(accumulate(stage.macs for stage in stages)),
        int8_bytes=sum(stage.flash_bytes for stage in stages),
        largest_arena_bytes=max(arenas) if len(arenas) == len(stages) else None,
    )


def _measured_anew(
    chosen: Sequence[PresetFigures],
    data: str | None,
    shape: tuple[int | None, int | None, int | None],
    screen: Console,
) -> list[PresetFigures]:
    """Return the figures of these presets for another shape."""
    window, channels, classes = shape
    progress = JobProgress(screen)
    if data is not None:
        from mexit_edge.data import dataset, load

        if any(size is not None for size in shape):
            raise InputError(
                "`--window`, `--channels` and `--classes` must be left out with `--data`. "
                f"Received: {window}, {channels}, {classes} with {data}. Give either."
            )
        entry = dataset(data)
    elif window is None or channels is None or classes is None:
        raise InputError(
            "`--window`, `--channels` and `--classes` must come together. "
            f"Received: {window}, {channels}, {classes}. Give all three, or `--data`."
        )
    elif window * channels > MAX_SAMPLES or classes > MAX_CLASSES:
        raise InputError(
            f"`--window` times `--channels` must be at most {MAX_SAMPLES:,}, and `--classes` at most "
            f"{MAX_CLASSES:,}. Received: {window}, {channels}, {classes}."
        )
    if find_spec("tensorflow") is None or find_spec("keras") is None:
        raise MissingExtraError("TensorFlow with Keras", "train")
    if data is not None:
        with progress.step(f"Reading {data} and cutting windows"):
            sensor, n_classes = load(data).sensor, len(entry.classes)
    elif window is not None and channels is not None and classes is not None:
        sensor, n_classes = Sensor.plain(channels, window), classes
    figures = []
    for one in chosen:
        with progress.step(f"Building, quantizing and cutting {one.backbone} {one.preset}"):
            figures.append(measure(one.backbone, one.preset, sensor, n_classes))
    return figures


def _table(figures: Sequence[PresetFigures]) -> Table:
    table = Table(
        title="Networks as int8 stages", caption="arena in bytes, as TFLM reports it on a 64-bit host"
    )
    table.add_column("backbone")
    table.add_column("preset")
    for heading in (
        "window,\nclasses",
        "para-\nmeters",
        "MACs up to each\nexit, thousands",
        "int8\nbytes",
        "largest\narena",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    before = None
    for one in figures:
        if before not in (None, one.backbone):
            table.add_section()
        arena = one.largest_arena_bytes
        table.add_row(
            "" if one.backbone == before else one.backbone,
            one.preset,
            f"{one.window}x{one.channels}, {one.classes}",
            f"{one.parameters:,}",
            " ".join(f"{macs / 1000:,.0f}" for macs in one.exit_macs),
            f"{one.int8_bytes:,}",
            "unknown" if arena is None else f"{arena:,}",
        )
        before = one.backbone
    return table
