"""`mexit inspect network.keras`: a Keras network layer by layer, before it becomes a bundle."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from rich.markup import escape
from rich.table import Table

from mexit_edge.cli.tables import console, print_json
from mexit_edge.errors import InputError, MissingExtraError
from mexit_edge.runtime import CaughtStderr

SUFFIX = ".keras"
MAX_BYTES = 256 << 20
# Layers of this package register themselves with Keras when these modules are loaded.
REGISTERING = ("mexit_edge.models", "mexit_edge.regimes", "mexit_edge.compress.fake_quant")


def inspect_network_and_print(path: Path, *, as_json: bool) -> None:
    """Load a .keras file and print its layers, where exits are or could sit, and what blocks int8.

    Raises:
        InputError: it is no .keras file of a functional network, or holds Python code or unknown layers.
        MissingExtraError: TensorFlow is not installed.
    """
    facts = network_facts(path)
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def network_facts(path: Path) -> dict[str, Any]:
    """Return what the table tells, in plain types.

    Args:
        path: of a .keras file.

    Returns:
        Name, inputs, outputs, totals (None where the MACs of a layer are unknown) and a row per call of a
        layer, see `mexit_edge.models.LayerRow`.

    Raises:
        InputError: as for `inspect_network_and_print`.
        MissingExtraError: TensorFlow is not installed.
    """
    network = load_network(path)
    from mexit_edge.models import layer_table

    with CaughtStderr():
        rows = layer_table(network)
    return {
        "name": network.name,
        "inputs": [_tensor(tensor) for tensor in network.inputs],
        "outputs": _outputs(rows),
        "parameters": sum(row.parameters for row in rows),
        "macs": _sum(rows),
        "layers": [asdict(row) for row in rows],
    }


def _outputs(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the facts of every output.

    The MACs up to an exit are what the stages up to it compute, the heads of earlier exits included: rows
    stand in the order of the exits. An output of another name counts what it needs itself.
    """
    named = sorted((name, place) for place, row in enumerate(rows) for name in row.outputs)
    total = _sum(rows)
    facts, reached = [], 0
    for name, place in named:
        row, macs = rows[place], rows[place].cumulative_macs
        if re.fullmatch(r"exit_\d+", name):
            reached = max(reached, place + 1)
            macs = _sum(rows[:reached])
        share = macs / total if total and macs is not None else None
        facts.append({"name": name, "layer": row.name, "macs": macs, "share": share})
    return facts


def _sum(rows: Sequence[Any]) -> int | None:
    known = [row.macs for row in rows if row.macs is not None]
    return sum(known) if len(known) == len(rows) else None


def load_network(path: Path) -> Any:
    """Return the functional network in a .keras file; that of a saved `MultiExitModel`.

    Raises:
        InputError: as for `inspect_network_and_print`.
        MissingExtraError: TensorFlow is not installed.
    """
    loaded = load_saved(path)
    return getattr(loaded, "network", loaded)


def load_saved(path: Path) -> Any:
    """Return what a .keras file holds: a functional network, or a `MultiExitModel` with one.

    Code in the file is not run: Keras' safe mode stays on.

    Raises:
        InputError: as for `inspect_network_and_print`.
        MissingExtraError: TensorFlow is not installed.
    """
    check_saved(path)
    # TensorFlow writes notices about absent GPUs past Python's streams, whatever its log level says.
    with CaughtStderr():
        return _loaded(path)


def check_saved(path: Path) -> None:
    """Check what can be checked of a .keras file without TensorFlow.

    Raises:
        InputError: it is none, or unpacks to more than 256 MiB.
        MissingExtraError: TensorFlow is not installed.
    """
    try:
        with ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (OSError, BadZipFile, NotImplementedError, ValueError) as error:
        what = "something else" if path.exists() else "no such file"
        raise InputError(
            f"`path` must be a .keras file, as `model.save` writes it. Received: {path}, {what}."
        ) from error
    if size > MAX_BYTES:
        raise InputError(
            f"`path` must be a .keras file that unpacks to at most {MAX_BYTES:,} bytes. "
            f"Received: {path} with {size:,}."
        )
    if find_spec("tensorflow") is None or find_spec("keras") is None:
        raise MissingExtraError("TensorFlow", "train")


def _loaded(path: Path) -> Any:
    import keras

    for module in REGISTERING:
        import_module(module)
    from mexit_edge.models.layer_calls import functional_graph

    try:
        loaded = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        # Keras raises whatever the first thing it cannot read raises.
        raise InputError(
            f"`path` must be a .keras file that can be read without running code in it. Received: {path}: "
            f"{_reason(error)}"
        ) from error
    network = getattr(loaded, "network", loaded)
    if functional_graph(network) is None:
        raise InputError(
            f"`path` must hold a functional (or Sequential, built) network. Received: {path} with a "
            f"{type(loaded).__name__}. Build it with `keras.Model(inputs, outputs)`."
        )
    return loaded


def _reason(error: Exception) -> str:
    text = str(error)
    if "Lambda" in text:
        return "a Lambda layer, which is Python code. Use a layer or `keras.ops` in its place."
    unknown = re.search(r"Could not locate (?:class|function|object) '([^']*)'", text)
    if unknown:
        return (
            f"{unknown[1]!r}, which is not registered here. Inspect the network in Python, with "
            "`mexit_edge.models.layer_table`."
        )
    return f"{type(error).__name__}: {text.splitlines()[0][:300] if text else 'no reason given'}"


def _tensor(tensor: Any) -> dict[str, Any]:
    return {
        "name": tensor._keras_history.operation.name,
        "shape": list(tensor.shape[1:]),
        "type": tensor.dtype,
    }


def _print(facts: dict[str, Any]) -> None:
    screen = console(quiet=False)
    screen.print(_table(facts))
    inputs = ", ".join(f"{one['name']} {_shape(one['shape'])} {one['type']}" for one in facts["inputs"])
    screen.print(
        f"Inputs: {inputs}. {facts['parameters']:,} parameters, {_count(facts['macs'])} MACs.", markup=False
    )
    for one in facts["outputs"]:
        screen.print(
            f"{one['name']}: {_count(one['macs'])} MACs, {_percent(one['share'])} of all ({one['layer']}).",
            markup=False,
        )
    if len(facts["outputs"]) == 1:
        free = [row for row in facts["layers"] if row["no_exit"] is None]
        alone = sum(row["live_tensors"] == 1 for row in free)
        screen.print(
            f"An exit can follow {len(free)} of {len(facts['layers'])} layers; behind {alone} of them one "
            "tensor is all that the rest needs (alive 1).",
            markup=False,
        )
    _print_obstacles(screen, facts)


def _print_obstacles(screen: Any, facts: dict[str, Any]) -> None:
    blocking = [row for row in facts["layers"] if row["int8"]["converts"] is False]
    for row in facts["layers"]:
        int8 = row["int8"]
        if int8["reason"] is None:
            continue
        verb = {False: "blocks int8", None: "may block int8", True: "costs time in int8"}[int8["converts"]]
        way_out = f" {int8['suggestion']}" if int8["suggestion"] else ""
        screen.print(f"{row['name']} ({row['type']}) {verb}: {int8['reason']}.{way_out}", markup=False)
    if not blocking:
        known = all(row["int8"]["converts"] for row in facts["layers"])
        screen.print(f"No layer {'blocks' if known else 'is known to block'} an int8 export.")


def _table(facts: dict[str, Any]) -> Table:
    table = Table(
        title=f"{escape(facts['name'])}: layers",
        caption="up to: MACs of all this output needs; alive: tensors to keep there; exit: one can sit there",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("layer", overflow="fold")
    table.add_column("type", overflow="fold")
    for heading in ("output", "weights", "MACs", "up to", "alive"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("exit", no_wrap=True)
    table.add_column("int8", no_wrap=True)
    for row in facts["layers"]:
        table.add_row(
            escape(row["name"]),
            escape(row["type"]),
            _shape(row["shape"]),
            f"{row['parameters']:,}",
            _count(row["macs"]),
            _percent(row["share"]),
            str(row["live_tensors"]),
            escape(", ".join(row["outputs"]) or ("yes" if row["no_exit"] is None else "no")),
            {True: "yes", False: "no", None: "unknown"}[row["int8"]["converts"]],
        )
    return table


def _shape(shape: Any) -> str:
    return "x".join("?" if one is None else str(one) for one in shape) or "scalar"


def _count(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}"
