"""The options of the commands on a board of one's own: `mexit device probes` and `mexit device fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mexit_edge.cli.options import KNOWN, AsJson, Overwrite

# Those of `relatives.known_cores`, which reads a file: help must not wait for it.
CORES = (
    "AndesCore D25F, AndesCore D45, AndesCore NX27V, Cortex-A72, Cortex-M0+, Cortex-M33, Cortex-M4F, "
    "Cortex-M7, RV32IMAC, RV32IMC, RXv2, Xtensa LX6, Xtensa LX7"
)


def probes(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("probes"),
    overwrite: Overwrite = False,
) -> None:
    """Write small int8 models to time on a board, a program for TFLM that does it, and a table to fill in."""
    from mexit_edge.cli.device import write_probes_and_print

    write_probes_and_print(out, overwrite=overwrite)


def fit(
    measurements: Annotated[
        Path,
        typer.Argument(
            help="A .csv with the columns model (a .tflite below its folder) and latency_ms, latency_us or "
            "cycles; optional energy_uj and runs."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Of the device: a-z, 0-9 and hyphens. Needed.")] = None,
    core: Annotated[
        str | None,
        typer.Option(help=f"Processor core. Needed. With figures: {CORES}; any other is taken, too."),
    ] = None,
    clock_mhz: Annotated[float | None, typer.Option(help="Clock of the measurements. Needed.")] = None,
    stack: Annotated[str | None, typer.Option(help=f"Family of kernel libraries. Needed. {KNOWN}")] = None,
    flash_kib: Annotated[int | None, typer.Option(help="Flash for program and models. Needed.")] = None,
    ram_kib: Annotated[int | None, typer.Option(help="RAM in one block. Needed.")] = None,
    stack_version: Annotated[str | None, typer.Option(help="Version of the kernel library.")] = None,
    supply_v: Annotated[float, typer.Option(help="Supply of the measurements.")] = 3.3,
    title: Annotated[str | None, typer.Option(help="Of the board (default: its name).")] = None,
    out: Annotated[Path | None, typer.Option(help=".toml to write (default: NAME.toml here).")] = None,
    keep_contradictions: Annotated[
        bool, typer.Option("--keep-contradictions", help="Warn of figures that cannot be right; keep them.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a device file from models that were measured on a board, and say how well it estimates them."""
    from mexit_edge.cli.device import FitRequest, fit_and_print

    request = FitRequest(
        name=name,
        core=core,
        clock_mhz=clock_mhz,
        stack=stack,
        flash_kib=flash_kib,
        ram_kib=ram_kib,
        stack_version=stack_version,
        supply_v=supply_v,
        title=title,
    )
    fit_and_print(
        measurements,
        request,
        out,
        keep_contradictions=keep_contradictions,
        overwrite=overwrite,
        as_json=as_json,
    )
