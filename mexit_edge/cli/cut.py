"""`mexit cut`: turn any .tflite into stages, or list where it can be cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveInt
from rich.markup import escape
from rich.table import Table

from mexit_edge.bundle.spec import FileName, Sha256, Spec
from mexit_edge.cli.inspect_model import macs_and_why_unknown, why_unknown
from mexit_edge.cli.model_file import read_model
from mexit_edge.cli.tables import console, print_json
from mexit_edge.errors import InputError, RunError
from mexit_edge.estimate import OPERATIONS, operations
from mexit_edge.estimate.operations import known_sum
from mexit_edge.files import free_name, refuse_unwritable, sha256, stands, written_whole
from mexit_edge.runtime import CutParity, available_engines, cut_parity
from mexit_edge.tflite import (
    CutStage,
    Graph,
    Tensor,
    cut_at,
    cut_at_exits,
    cut_into,
    cut_points,
    phone_model,
    short_name,
    tensor_names,
)
from mexit_edge.tflite.points import MAX_LIVE

MANIFEST, PHONE = "cut.json", "phone.tflite"
WINDOWS = 5
# What the arguments of the library are called on the command line.
OPTIONS = {"tensors": "--at", "n": "--into", "exits": "--exits", "max_live": "--max-live"}


class CutTensor(Spec):
    """A tensor that crosses a stage's border; None where it has no single scale or zero point."""

    name: str
    shape: tuple[NonNegativeInt, ...]
    dtype: str
    scale: float | None
    zero_point: int | None


class CutFile(Spec):
    """One stage; `macs` is None where it holds an operator whose cost is not known."""

    file: FileName
    sha256: Sha256
    bytes: PositiveInt
    inputs: tuple[CutTensor, ...]
    outputs: tuple[CutTensor, ...]
    operators: dict[str, PositiveInt]
    macs: NonNegativeInt | None


class Parity(Spec):
    """See `mexit_edge.runtime.CutParity`."""

    engine: str
    windows: PositiveInt
    elements: NonNegativeInt | None
    differing_elements: NonNegativeInt | None
    refusal: str | None


class CutManifest(Spec):
    """What `mexit cut` wrote."""

    schema_version: Literal[1] = 1
    source: str
    source_sha256: Sha256
    source_bytes: PositiveInt
    stages: tuple[CutFile, ...]
    parity: tuple[Parity, ...]
    phone_sha256: Sha256 | None = None


@dataclass(frozen=True)
class CutRequest:
    """Where to cut; nothing for a list of the places.

    Args:
        at: tensor names or indices.
        into: number of stages.
        exits: output names.
        max_live: largest number of tensors at a boundary, for `into` and the list; None for the usual.
    """

    at: Sequence[str] = ()
    into: int | None = None
    exits: Sequence[str] = ()
    max_live: int | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("at", "into", "exits") if getattr(self, name)]
        if self.max_live is not None and (self.at or self.exits):
            raise InputError(
                "`--max-live` must come with `--into`, or without a place to list all. "
                f"Received: --{given[0]}. Leave it out: the tensors that cross follow from where you cut."
            )
        if len(given) > 1:
            raise InputError(
                "`--at`, `--into` and `--exits` must not be combined. "
                f"Received: {' and '.join('--' + name for name in given)}."
            )

    def cut(self, content: bytes, *, keep_names: bool) -> tuple[CutStage, ...]:
        """Cut the model.

        Raises:
            InputError: as for `tflite.cut_at` and its like, in the words of the command line.
        """
        try:
            return self._cut(content, keep_names=keep_names)
        except InputError as error:
            message = str(error)
            for argument, option in OPTIONS.items():
                message = message.replace(f"`{argument}`", f"`{option}`")
            raise InputError(message) from error

    def _cut(self, content: bytes, *, keep_names: bool) -> tuple[CutStage, ...]:
        if self.exits:
            return cut_at_exits(content, self.exits, keep_names=keep_names)
        if self.at:
            return cut_at(content, self.at, keep_names=keep_names)
        macs = [cost.macs for cost in operations(content)]
        return cut_into(
            content, self.into or 0, macs, max_live=self.max_live or MAX_LIVE, keep_names=keep_names
        )


def cut_and_print(
    path: Path, request: CutRequest, out: Path | None, *, keep_names: bool, phone: bool, as_json: bool
) -> None:
    """Cut a model, check the stages against the whole, and write them; or list where it can be cut.

    Args:
        path: of the .tflite.
        request: where to cut.
        out: folder to write; None for a new name in the current one.
        keep_names: whether stages keep tensor names, metadata and a signature.
        phone: whether to write all stages as signatures of one file too.
        as_json: whether to print JSON.

    Raises:
        InputError: the file is no model that can be cut so, no engine runs it, or the folder exists.
        RunError: the stages compute something else than the whole; nothing was written.
    """
    content = read_model(path, "model")
    macs, why = macs_and_why_unknown(Graph(content))
    if not (request.at or request.into is not None or request.exits):
        if out is not None or phone or keep_names:
            raise InputError(
                "`--out`, `--phone` and `--keep-names` need a place to cut at. "
                "Received: none. Use `--at`, `--into` or `--exits`."
            )
        _print_points(path, content, macs, why, request.max_live or MAX_LIVE, as_json=as_json)
        return
    folder = free_name(Path(f"{path.stem}_stages")) if out is None else out
    if stands(folder):
        raise InputError(f"`--out` must be a new folder. Received: {folder}, which exists.")
    refuse_unwritable(folder)
    stages = request.cut(content, keep_names=keep_names)
    parity = cut_parity(content, stages, available_engines(), WINDOWS)
    _refuse_difference(path, parity)
    whole_phone = phone_model(stages) if phone else None
    manifest = _manifest(path, content, stages, macs, parity, whole_phone)
    with written_whole(folder) as fresh:
        fresh.mkdir()
        for spec, stage in zip(manifest.stages, stages, strict=True):
            (fresh / spec.file).write_bytes(stage.content)
        if whole_phone is not None:
            (fresh / PHONE).write_bytes(whole_phone)
        (fresh / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if as_json:
        print_json({"folder": str(folder)} | manifest.model_dump(mode="json"))
    else:
        print_stages(manifest)
        console(quiet=False).print(f"Written: {folder}", markup=False)


def _refuse_difference(path: Path, parity: Sequence[CutParity]) -> None:
    wrong = [row.engine for row in parity if row.differing_elements]
    if wrong:
        raise RunError(
            f"the stages of `{path}` must compute what the whole computes. Received: other results on "
            f"{', '.join(wrong)}. Nothing was written."
        )
    if all(row.refusal is not None for row in parity):
        raise InputError(
            f"`model` must be one that an engine here can run. Received: {path}. In the words of "
            f"{parity[0].engine}: {parity[0].refusal}"
        )


def _manifest(
    path: Path,
    content: bytes,
    stages: Sequence[CutStage],
    macs: Sequence[int | None],
    parity: Sequence[CutParity],
    phone: bytes | None,
) -> CutManifest:
    return CutManifest(
        source=path.name,
        source_sha256=sha256(content),
        source_bytes=len(content),
        stages=tuple(
            CutFile(
                file=f"stage_{number:02d}.tflite",
                sha256=sha256(stage.content),
                bytes=len(stage.content),
                inputs=tuple(_tensor(*named) for named in stage.inputs),
                outputs=tuple(_tensor(*named) for named in stage.outputs),
                operators=stage.operators,
                macs=known_sum(macs[index] for index in stage.places),
            )
            for number, stage in enumerate(stages, start=1)
        ),
        parity=tuple(Parity(**vars(row)) for row in parity),
        phone_sha256=None if phone is None else sha256(phone),
    )


def _tensor(name: str, tensor: Tensor) -> CutTensor:
    return CutTensor(
        name=name,
        shape=tensor.shape,
        dtype=tensor.dtype,
        scale=tensor.scale,
        zero_point=tensor.zero_point,
    )


def print_stages(manifest: CutManifest) -> None:
    """Print the stages and how they compared with the whole."""
    screen = console(quiet=False)
    total = known_sum(stage.macs for stage in manifest.stages)
    table = Table(title=escape(f"{manifest.source}: {len(manifest.stages)} stages"))
    for heading in ("stage", "ops", "MACs", "of all", "bytes"):
        table.add_column(heading, justify="left" if heading == "stage" else "right", no_wrap=True)
    table.add_column("gives", overflow="fold")
    for stage in manifest.stages:
        table.add_row(
            stage.file,
            str(sum(stage.operators.values())),
            "unknown" if stage.macs is None else f"{stage.macs:,}",
            _share(stage.macs, total),
            f"{stage.bytes:,}",
            escape("\n".join(f"{short_name(tensor.name)} {_shape(tensor)}" for tensor in stage.outputs)),
        )
    screen.print(table)
    uncounted = [stage.operators for stage in manifest.stages if stage.macs is None]
    if why := why_unknown(sorted({name for names in uncounted for name in names} - set(OPERATIONS))):
        screen.print(why, markup=False)
    for row in manifest.parity:
        found = (
            f"refuses the model: {row.refusal}"
            if row.refusal is not None
            else f"{row.differing_elements} of {row.elements} output elements differ from the whole, "
            f"{row.windows} random inputs"
        )
        screen.print(f"{row.engine}: {found}.", markup=False)


def _print_points(
    path: Path, content: bytes, macs: Sequence[int | None], why: str | None, max_live: int, *, as_json: bool
) -> None:
    names = tensor_names(Graph(content))
    total = known_sum(macs)
    rows: list[dict[str, Any]] = [
        {
            "tensor": names[point.last.index],
            "index": point.last.index,
            "live": [
                {"name": names[tensor.index], "index": tensor.index, "type": _shape(tensor)}
                for tensor in point.live
            ],
            "cumulative_macs": known_sum(macs[: point.position]),
            "total_macs": total,
        }
        for point in cut_points(content, max_live)
    ]
    if as_json:
        print_json({"model": path.name, "macs_unknown_because": why, "cut_points": rows})
        return
    table = Table(
        title=escape(f"{path.name}: where to cut"), caption="--at INDEX or --at TENSOR; --into N stages"
    )
    table.add_column("index", justify="right")
    table.add_column("tensor", overflow="fold")
    table.add_column("MACs\nuntil here", justify="right", no_wrap=True)
    table.add_column("alive", no_wrap=True)
    for row in rows:
        share = _share(row["cumulative_macs"], total)
        alive = "\n".join(tensor["type"] for tensor in row["live"])
        table.add_row(str(row["index"]), escape(short_name(row["tensor"])), share, alive)
    screen = console(quiet=False)
    screen.print(table)
    if why:
        screen.print(why, markup=False)


def _share(part: int | None, total: int | None) -> str:
    return "unknown" if part is None or not total else f"{part / total:.1%}"


def _shape(tensor: CutTensor | Tensor) -> str:
    return f"{'x'.join(map(str, tensor.shape))} {tensor.dtype.lower()}"
