"""`mexit inspect network.keras`: a Keras network layer by layer, before it becomes a bundle."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from mexit_edge.cli.keras_file import load_saved
from mexit_edge.cli.tables import console, print_json
from mexit_edge.runtime import CaughtStderr

SUFFIX = ".keras"
VERBS = {False: "blocks int8", None: "may block int8", True: "becomes int8, at a price"}


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
    loaded = load_saved(path, "path")
    return getattr(loaded, "network", loaded)


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
        verb = VERBS[int8["converts"]]
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
