"""The options of the commands on what is quantized already: `mexit inspect`, `verify`, `cut`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mexit_edge.cli.options import KNOWN, AsJson, BundlePath
from mexit_edge.cli.settings import ROUNDING_STEPS


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            help="A bundle (folder NAME.mexit or .zip), a Keras network (.keras), any model (.tflite), or a "
            "folder that `mexit cut` wrote."
        ),
    ],
    svg: Annotated[Path | None, typer.Option(help="File to draw a bundle's stages into.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a bundle against its golden vectors and draw its stages; or list a file's layers or operators."""
    from mexit_edge.cli.inspect import inspect_and_print

    inspect_and_print(path, as_json=as_json, svg=svg)


def verify(
    bundle: BundlePath,
    data: Annotated[
        str | None, typer.Option(help=f"Data set whose test subjects are run too. {KNOWN}")
    ] = None,
    windows: Annotated[
        Path | None, typer.Option(help="A .npy or .npz of raw windows to run too: int16 counts or float.")
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(help=f"Engine to compare; may come several times (default: all). {KNOWN}"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most windows to run of the recording, evenly spaced.")
    ] = None,
    within: Annotated[
        int, typer.Option(min=0, help="int8 steps from turning, up to which a decision differs by rounding.")
    ] = ROUNDING_STEPS,
    as_json: AsJson = False,
) -> None:
    """Run a bundle on every engine, and say where tensors and decisions differ from the device's."""
    from mexit_edge.cli.verify import verify_and_print

    verify_and_print(
        bundle,
        data=data,
        windows=windows,
        engines=engine or [],
        limit=limit,
        within=within,
        as_json=as_json,
    )


def cut(
    model: Annotated[Path, typer.Argument(help="Any .tflite with static shapes.")],
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TENSOR",
            help="Tensor that a stage ends with, by name or by index (--at 24); may come several times.",
        ),
    ] = None,
    into: Annotated[int | None, typer.Option(min=2, help="Number of stages of nearly equal MACs.")] = None,
    max_live: Annotated[
        int | None,
        typer.Option(min=1, help="Most tensors at a boundary, for --into and the list (default: 3)."),
    ] = None,
    exits: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Output that a stage ends with; may come several times."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write (default: a new name, MODEL_stages).")
    ] = None,
    keep_names: Annotated[
        bool, typer.Option("--keep-names", help="Keep tensor names, metadata and a signature, to debug.")
    ] = False,
    phone: Annotated[
        bool, typer.Option("--phone", help="Write phone.tflite too: all stages as signatures of one file.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Cut any .tflite into stages that compute the same; without --at, --into or --exits, list where."""
    from mexit_edge.cli.cut import CutRequest, cut_and_print

    request = CutRequest(at=at or (), into=into, exits=exits or (), max_live=max_live)
    cut_and_print(model, request, out, keep_names=keep_names, phone=phone, as_json=as_json)
