"""`mexit device probes` and `mexit device fit`: a device file for a board of one's own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.markup import escape
from rich.table import Table

from mexit_edge.cli.tables import console, print_json
from mexit_edge.errors import InputError
from mexit_edge.estimate.device_toml import device_toml
from mexit_edge.estimate.own_board.fit import Board, Fitted, ModelFit, fit_device
from mexit_edge.estimate.own_board.measurements import read_measurements
from mexit_edge.estimate.own_board.probe_folder import MEASUREMENTS, write_probes
from mexit_edge.estimate.relatives import relative_stack
from mexit_edge.files import refuse_existing, refuse_unwritable, write_bytes

# Times as slow or fast as other boards: more of a mistake than of a board.
SUSPICIOUS = 5.0
NEEDED = ("name", "core", "clock_mhz", "stack", "flash_kib", "ram_kib")


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
        return Board(
            name=str(self.name),
            title=self.title or str(self.name),
            core=str(self.core),
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
    table = Table(title="Probe models")
    table.add_column("model", no_wrap=True)
    table.add_column("flash\nbytes", justify="right", no_wrap=True)
    table.add_column("purpose")
    for probe in made:
        table.add_row(probe.name, f"{len(probe.content):,}", escape(probe.purpose))
    screen = console(quiet=False)
    screen.print(table)
    screen.print(f"Written: {out}", markup=False)
    screen.print(
        f"Next: time them on the board ({out / 'README.md'}), fill in {out / MEASUREMENTS}, then "
        f"mexit device fit {out / MEASUREMENTS}",
        markup=False,
    )


def fit_and_print(
    measurements: Path, request: FitRequest, out: Path | None, *, overwrite: bool, as_json: bool
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
    prior = relative_stack(str(request.stack), board.core)
    fitted = fit_device(
        read_measurements(measurements, board.clock_mhz),
        board,
        prior,
        version=request.stack_version or f"{request.stack}, version not stated",
        source=measurements.name,
        date=date.today().isoformat(),
    )
    write_bytes(file, device_toml(fitted.device).encode(), overwrite=overwrite)
    print_json(_facts(fitted, file)) if as_json else _print(fitted, file)


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
                "left_out_ms": asdict(one.left_out_ms),
                "left_out_error_percent": one.left_out_error_percent,
            }
            for one in fitted.models
        ],
        "mean_left_out_error_percent": _mean_left_out_error(fitted),
        "half_width_percent": fitted.half_width_percent,
        "times_expected": fitted.times_expected,
        "active_power_mw": None if stack.active_power_mw is None else asdict(stack.active_power_mw.estimate),
    }


def _print(fitted: Fitted, file: Path) -> None:
    screen = console(quiet=False)
    screen.print(_table(fitted))
    screen.print(
        f"Left out, a model is {_mean_left_out_error(fitted):.0f} % off in the mean. The 90 % interval of a "
        f"model like these is +-{fitted.half_width_percent:.0f} % (median).",
        markup=False,
    )
    times = fitted.times_expected
    screen.print(
        f"The board takes {times:.2g} times what others with this core and library do.", markup=False
    )
    if not 1 / SUSPICIOUS <= times <= SUSPICIOUS:
        screen.print("Check the unit of the figures, --clock-mhz, --core and --stack.", style="bold")
    power = fitted.device.stacks[0].active_power_mw
    if power is not None:
        low, high = power.estimate.low, power.estimate.high
        screen.print(f"While inferring: {power.value:.3g} mW [{low:.3g}, {high:.3g}].", markup=False)
    place = file if len(file.parts) > 1 else f"./{file}"
    screen.print(f"Written: {file}", markup=False)
    screen.print(f"Next: mexit estimate MODEL --device {place}", markup=False)


def _table(fitted: Fitted) -> Table:
    device = fitted.device
    table = Table(
        title=escape(f"{device.title}: {device.stacks[0].name}, {len(fitted.models)} measured models"),
        caption="left out: from the other models alone; the only one of its kind is then hardly known",
    )
    table.add_column("model", overflow="fold")
    for heading in ("measured\nms", "estimated\nms", "error", "left out\nms", "error"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in fitted.models:
        table.add_row(*_cells(one))
    return table


def _cells(one: ModelFit) -> list[str]:
    return [
        escape(one.model.removesuffix(".tflite")),
        f"{one.measured_ms:.4g}",
        f"{one.estimated_ms.value:.4g}",
        f"{one.error_percent:+.1f} %",
        f"{one.left_out_ms.value:.4g}",
        f"{one.left_out_error_percent:+.1f} %",
    ]


def _mean_left_out_error(fitted: Fitted) -> float:
    return fmean(abs(one.left_out_error_percent) for one in fitted.models)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
