"""`mexit inspect MODEL.tflite`: the operators of any model, what they cost and what is alive after them.

Of a file whose subgraphs are one signature each, as phone.tflite, every one is listed like a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from mexit_edge.cli.model_file import read_model
from mexit_edge.cli.tables import console, print_json
from mexit_edge.errors import InputError
from mexit_edge.estimate import operations, unknown_operations
from mexit_edge.estimate.operations import known_sum, tensor_bytes
from mexit_edge.tflite import Graph, Tensor, alive_after

SUFFIX = ".tflite"
SHOWN_DIMENSIONS = 8


def inspect_model_and_print(path: Path, *, as_json: bool) -> None:
    """Print the table of a model's operators. The model is read, not run.

    Raises:
        InputError: it is no .tflite, a damaged one, or holds control flow.
    """
    content = read_model(path, "path")
    graphs = Graph.of_signatures(content)
    if len(graphs) < 2:
        facts = model_facts(Graph(content))
        print_json(facts) if as_json else _print(path.name, facts)
        return
    parts = {key: model_facts(graph) for key, graph in graphs.items()}
    if as_json:
        print_json({"signatures": parts})
        return
    for key, facts in parts.items():
        _print(f"{path.name}, {key}", facts)


def _print(name: str, facts: dict[str, Any]) -> None:
    screen = console(quiet=False)
    screen.print(_table(name, facts))
    for kind in ("inputs", "outputs"):
        for tensor in facts[kind]:
            screen.print(f"{kind[:-1]}: {_tensor_text(tensor)}", markup=False)
    screen.print(
        f"{len(facts['operators'])} operators, {_count(facts['macs'])} MACs, "
        f"{facts['weight_bytes']:,} bytes of constants, "
        f"at most {_count(facts['most_live_bytes'])} bytes of activations alive between two operators.",
        markup=False,
    )
    if facts["macs_unknown_because"]:
        screen.print(facts["macs_unknown_because"], markup=False)


def model_facts(graph: Graph) -> dict[str, Any]:
    """Return what the table tells, in plain types.

    Args:
        graph: of a .tflite, or of one signature of it.

    Returns:
        Inputs and outputs as name, shape, type, scale and zero point; per operator its name, shapes, types,
        multiply-accumulates (None where they are unknown), bytes of constants, and the activations alive
        after it: their number and bytes (None for a type without a fixed size).
    """
    macs, why = macs_and_why_unknown(graph)
    alive = _alive_after(graph)
    rows: list[dict[str, Any]] = [
        {
            "index": operator.index,
            "operator": operator.name,
            "inputs": [_tensor_facts(graph.tensors[index]) for index in graph.activations(operator)],
            "outputs": [_tensor_facts(graph.tensors[index]) for index in operator.outputs],
            "macs": macs[operator.index],
            "weight_bytes": _stored_bytes(graph, set(operator.inputs)),
            "live_tensors": len(alive[operator.index]),
            "live_bytes": tensor_bytes(graph, alive[operator.index]),
        }
        for operator in graph.operators
    ]
    sizes = [tensor_bytes(graph, indices) for indices in (set(graph.inputs), *alive)]
    return {
        "inputs": [_tensor_facts(graph.tensors[index]) for index in graph.inputs],
        "outputs": [_tensor_facts(graph.tensors[index]) for index in graph.outputs],
        "operators": rows,
        "macs": known_sum(macs),
        "macs_unknown_because": why,
        "weight_bytes": _stored_bytes(graph, {index for one in graph.operators for index in one.inputs}),
        "most_live_bytes": max((size for size in sizes if size is not None), default=0)
        if None not in sizes
        else None,
    }


def macs_and_why_unknown(graph: Graph) -> tuple[list[int | None], str | None]:
    """Return the multiply-accumulates per operator, None where unknown, and why any are."""
    try:
        costs = operations(graph)
    except InputError as error:
        return [None] * len(graph.operators), f"MACs are unknown: {error}"
    return [cost.macs for cost in costs], why_unknown(unknown_operations(costs))


def why_unknown(names: Sequence[str]) -> str | None:
    """Return a sentence that names the operators without a rule; None where there are none."""
    return f"MACs are unknown: nothing is known of {', '.join(names)}." if names else None


def _alive_after(graph: Graph) -> list[set[int]]:
    """Return per operator what is alive after it (`tflite.alive_after`), and the outputs that are there."""
    return [
        {*live, *(index for index in graph.outputs if graph.producers.get(index, -1) <= place)}
        for place, live in enumerate(alive_after(graph))
    ]


def _stored_bytes(graph: Graph, indices: set[int]) -> int:
    """Return the bytes of the constants among these tensors; a buffer that several share counts once."""
    buffers = {
        graph.subgraph.tensors[index].buffer
        for index in indices
        if index >= 0 and graph.tensors[index].is_constant
    }
    return sum(len(graph.model.buffers[buffer].data) for buffer in buffers)


def _tensor_facts(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "type": tensor.dtype,
        "scale": tensor.scale,
        "zero_point": tensor.zero_point,
    }


def _tensor_text(facts: dict[str, Any]) -> str:
    name = f"{facts['name']!r}, " if facts["name"] else ""
    quantized = (
        f", scale {facts['scale']:.6g}, zero point {facts['zero_point']}"
        if facts["scale"] is not None and facts["zero_point"] is not None
        else ""
    )
    return f"{name}{_shape(facts)} {facts['type']}{quantized}"


def _shape(facts: dict[str, Any]) -> str:
    shape = facts["shape"]
    shown = "x".join(map(str, shape[:SHOWN_DIMENSIONS])) or "scalar"
    return shown if len(shape) <= SHOWN_DIMENSIONS else f"{shown}x..."


def _count(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _table(name: str, facts: dict[str, Any]) -> Table:
    table = Table(
        title=f"{escape(name)}: operators", caption="alive: activations that are read later", box=None
    )
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("operator", overflow="fold")
    table.add_column("reads", overflow="fold")
    table.add_column("writes", overflow="fold")
    table.add_column("type", overflow="fold")
    for heading in ("MACs", "constant\nbytes", "alive", "alive\nbytes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in facts["operators"]:
        table.add_row(
            str(row["index"]),
            escape(row["operator"]),
            "\n".join(_shape(tensor) for tensor in row["inputs"]) or "-",
            "\n".join(_shape(tensor) for tensor in row["outputs"]) or "-",
            escape(row["outputs"][0]["type"]) if row["outputs"] else "-",
            _count(row["macs"]),
            f"{row['weight_bytes']:,}",
            str(row["live_tensors"]),
            _count(row["live_bytes"]),
        )
    return table
