"""`mexit device probes` and `mexit device fit`: a device file for a board of one's own."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from mexit_edge.cli.estimate_tables import INTERVAL, UNKNOWN, estimated, plain, show
from mexit_edge.cli.tables import console, print_json
from mexit_edge.errors import InputError, in_digits
from mexit_edge.estimate.device_toml import device_toml
from mexit_edge.estimate.own_board.fit import Board, Fitted, ModelFit, counted, fit_device
from mexit_edge.estimate.own_board.measurements import read_measurements
from mexit_edge.estimate.own_board.probe_folder import MEASUREMENTS, write_probes
from mexit_edge.estimate.relatives import Relative, core_warning, find_core, relative
from mexit_edge.files import refuse_existing, refuse_unwritable, write_bytes

# Of what measurements do not tell -> what stands for it in an example.
NEEDED = {
    "name": "NAME",
    "core": "CORE",
    "clock_mhz": "MHZ",
    "stack": "STACK",
    "flash_kib": "KIB",
    "ram_kib": "KIB",
}
CONTRADICTS = "*"


@dataclass(frozen=True)
class FitRequest:
    """The options of `mexit device fit`; None where one was not given."""

    name: str | None
    core: str | None
    clock_mhz: float | None
    stack: str | None
    flash_kib: int | None
    ram_kib: int | None
    stack_version: str | None
    supply_v: float
    title: str | None

    def board(self) -> Board:
        """Return the board.

        Raises:
            InputError: an option that is needed is missing, and all that are missing are named; or a figure
                is not above 0.
        """
        missing = [_option(name) for name in NEEDED if getattr(self, name) is None]
        if missing:
            raise InputError(
                f"`mexit device fit` needs {', '.join(map(_option, NEEDED))}. "
                f"Received: none for {', '.join(missing)}. Add them."
            )
        core = str(self.core)
        return Board(
            name=str(self.name),
            title=self.title or str(self.name),
            core=find_core(core) or core,
            clock_mhz=float(self.clock_mhz or 0),
            flash_bytes=1024 * (self.flash_kib or 0),
            ram_bytes=1024 * (self.ram_kib or 0),
            supply_v=self.supply_v,
        )


def write_probes_and_print(out: Path, *, overwrite: bool) -> None:
    """Write the probe set and say what to do with it.

    Raises:
        InputError: the folder exists and `overwrite` is False, or it cannot be written to.
    """
    made = write_probes(out, overwrite=overwrite)
    table = plain("Probe models", "", ("flash,\nbytes", "purpose"))
    table.columns[-1].justify = "left"
    for probe in made:
        table.add_row(probe.name, f"{len(probe.content):,}", escape(probe.purpose))
    screen = console(quiet=False)
    show(screen, table)
    screen.print(f"Written: {out}", markup=False)
    options = " ".join(f"{_option(name)} {value}" for name, value in NEEDED.items())
    screen.print(
        f"Next: time them on the board ({out / 'README.md'}), fill in {out / MEASUREMENTS}, then "
        f"mexit device fit {shlex.quote(str(out / MEASUREMENTS))} {options}",
        markup=False,
    )


def fit_and_print(
    measurements: Path,
    request: FitRequest,
    out: Path | None,
    *,
    keep_contradictions: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Fit a device to measurements, write its file, and print how well it estimates the measured models.

    Raises:
        InputError: an option is missing, the measurements are wrong or contradict each other, nobody has
            measured the kernel library, or the file exists and `overwrite` is False.
    """
    board = request.board()
    file = Path(f"{board.name}.toml") if out is None else out
    refuse_existing(file, overwrite=overwrite)
    refuse_unwritable(file)
    prior = relative(str(request.stack), board.core)
    fitted = fit_device(
        read_measurements(measurements, board.clock_mhz),
        board,
        prior.stack,
        version=request.stack_version or f"{request.stack}, version not stated",
        source=measurements.name,
        date=date.today().isoformat(),
        keep_contradictions=keep_contradictions,
    )
    of_all_cores = core_warning(prior.stack.family, board.core)
    warnings = [*([] if of_all_cores is None else [of_all_cores]), *fitted.warnings]
    write_bytes(file, device_toml(fitted.device).encode(), overwrite=overwrite)
    if as_json:
        print_json(_facts(fitted, file) | {"prior_core": prior.core, "warnings": warnings})
    else:
        _print(fitted, file, prior, warnings)


def _facts(fitted: Fitted, file: Path) -> dict[str, Any]:
    stack = fitted.device.stacks[0]
    return {
        "file": str(file),
        "device": fitted.device.name,
        "stack": stack.name,
        "models": [
            {
                "model": one.model,
                "measured_ms": one.measured_ms,
                "estimated_ms": asdict(one.estimated_ms),
                "error_percent": one.error_percent,
                "left_out_ms": None if one.left_out_ms is None else asdict(one.left_out_ms),
                "left_out_error_percent": one.left_out_error_percent,
                "contradicts": one.contradicts,
            }
            for one in fitted.models
        ],
        "mean_left_out_error_percent": fitted.mean_left_out_error_percent,
        "half_width_percent": fitted.half_width_percent,
        "times_expected": fitted.times_expected,
        "active_power_mw": None if stack.active_power_mw is None else asdict(stack.active_power_mw.estimate),
    }


def _print(fitted: Fitted, file: Path, prior: Relative, warnings: list[str]) -> None:
    screen = console(quiet=False)
    show(screen, _table(fitted))
    error, width = fitted.mean_left_out_error_percent, f"+-{fitted.half_width_percent:.0f} %"
    sentences = [
        "How far off a model is when left out is unknown with one model."
        if error is None
        else "Left out: from the other models alone; the only one of its kind is then hardly known. "
        f"Left out, a model is {error:.0f} % off in the mean.",
        f"The {INTERVAL} interval of a model like these is {width}"
        f"{' (median)' if len(fitted.models) > 1 else ''}.",
        f"The board takes {in_digits(fitted.times_expected)} times what others with "
        f"{'this core and library' if prior.core else 'this library'} do.",
    ]
    for sentence in sentences:
        screen.print(sentence, markup=False)
    power = fitted.device.stacks[0].active_power_mw
    if power is not None:
        screen.print(f"While inferring, mW: {estimated(power.estimate)}.")
    if any(one.contradicts for one in fitted.models):
        screen.print(f"{CONTRADICTS} contradicts the others.", markup=False)
    for warning in warnings:
        screen.print(f"Warning: {warning}", style="bold", markup=False)
    place = str(file) if len(file.parts) > 1 else f"./{file}"
    screen.print(f"Written: {file}", markup=False)
    screen.print(f"Next: mexit estimate MODEL --device {shlex.quote(place)}", markup=False)


def _table(fitted: Fitted) -> Table:
    device = fitted.device
    table = plain(
        f"{device.title}: {device.stacks[0].name}, {counted(len(fitted.models), 'measured ')}",
        "",
        ("measured\nms", "estimated\nms", "error", "left out\nms", "error"),
    )
    for one in fitted.models:
        table.add_row(*_cells(one))
    return table


def _cells(one: ModelFit) -> list[str]:
    mark = f" {CONTRADICTS}" if one.contradicts else ""
    return [
        escape(one.model.removesuffix(".tflite")) + mark,
        in_digits(one.measured_ms),
        in_digits(one.estimated_ms.value),
        _percent(one.error_percent),
        UNKNOWN if one.left_out_ms is None else in_digits(one.left_out_ms.value),
        _percent(one.left_out_error_percent),
    ]


def _percent(error: float | None) -> str:
    return UNKNOWN if error is None else f"{error:+,.1f} %"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
