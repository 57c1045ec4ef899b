"""Which activations are alive after each operator: one rule, for the places to cut at and for listings."""

from __future__ import annotations

from collections.abc import Sequence

from mexit_edge.tflite.graph import Graph
from mexit_edge.tflite.plan import VIEWS, ancestors, reads


def alive_after(graph: Graph) -> tuple[frozenset[int], ...]:
    """Return per operator the activations that are there after it and that a later one reads.

    A view (RESHAPE and its like) holds no values of its own: who reads it reads what it shows, unless the
    view is an output of the model. What no output needs reads nothing. An output is not alive by being one:
    it counts as long as an operator reads it.
    """
    needed = needed_operators(graph)
    last_read = _last_reads(graph, needed, set(graph.outputs))
    live = frozenset(index for index in graph.inputs if index in last_read)
    after = []
    for operator in graph.operators:
        made = {tensor for tensor in operator.outputs if tensor in last_read}
        live = frozenset(tensor for tensor in live | made if last_read[tensor] > operator.index)
        after.append(live)
    return tuple(after)


def needed_operators(graph: Graph) -> list[int]:
    """Return the operators that the model's outputs need, in order of execution."""
    return sorted(ancestors(graph, graph.outputs, lambda operator, tensor: True))


def _last_reads(graph: Graph, needed: Sequence[int], fixed: set[int]) -> dict[int, int]:
    """Return per tensor the last operator that reads it, by way of views or not."""
    last: dict[int, int] = {}
    for index in needed:
        if graph.operators[index].name in VIEWS and not fixed & set(graph.operators[index].outputs):
            continue
        own = {index}
        behind = ancestors(
            graph,
            graph.activations(graph.operators[index]),
            lambda operator, tensor: graph.operators[operator].name in VIEWS and tensor not in fixed,
        )
        for tensor in reads(graph, sorted(own | behind)):
            last[tensor] = index
    return last
