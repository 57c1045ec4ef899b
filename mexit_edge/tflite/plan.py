"""Which operators each stage holds, and which tensors cross from stage to stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mexit_edge.tflite.graph import Graph

# Operators that only rename the shape of their input. They are repeated in the stages that read them, so
# that a boundary carries each tensor once, and not the same bytes again under another shape.
VIEWS = {"RESHAPE", "EXPAND_DIMS", "SQUEEZE"}


@dataclass(frozen=True)
class StagePlan:
    """One stage, as indices of the whole graph.

    Args:
        operators: in order of execution.
        inputs: tensors, in the order of their first use.
        outputs: tensors; those that were asked for first.
    """

    operators: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def plan_stages(
    graph: Graph, stages: Sequence[set[int]], wanted: Sequence[Sequence[int]]
) -> tuple[StagePlan, ...]:
    """Find what crosses between stages, and repeat views where they are read.

    Args:
        graph: the whole.
        stages: the operators of each stage, without a view repeated; no operator reads from a later stage.
        wanted: per stage the tensors that it must give whether a later one reads them or not, in order.

    Returns:
        One plan per stage. An operator whose result nobody reads is left out.
    """
    fixed = {tensor for tensors in wanted for tensor in tensors}
    later: set[int] = set()
    plans: list[StagePlan] = []
    for own, first in zip(reversed(stages), reversed(wanted), strict=True):
        made = {tensor for index in own for tensor in graph.operators[index].outputs}
        outputs = (*first, *sorted((made & later) - set(first)))
        operators = sorted(ancestors(graph, outputs, _takes(graph, own, fixed)))
        inputs = reads(graph, operators)
        later.update(inputs)
        plans.append(StagePlan(tuple(operators), tuple(inputs), outputs))
    return tuple(reversed(plans))


def ancestors(graph: Graph, targets: Iterable[int], takes: Callable[[int, int], bool]) -> set[int]:
    """Return the operators that compute ``targets``.

    Args:
        graph: the whole.
        targets: tensors.
        takes: whether an operator, first argument, that makes a tensor, second argument, is to be followed.
    """
    needed: set[int] = set()
    waiting = list(targets)
    while waiting:
        tensor = waiting.pop()
        operator = graph.producers.get(tensor)
        if operator is None or operator in needed or not takes(operator, tensor):
            continue
        needed.add(operator)
        waiting += graph.activations(graph.operators[operator])
    return needed


def reads(graph: Graph, operators: Iterable[int]) -> list[int]:
    """Return the activations that these operators read and do not make, in order of first use."""
    made = {tensor for index in operators for tensor in graph.operators[index].outputs}
    found: dict[int, None] = {}
    for index in operators:
        for tensor in graph.activations(graph.operators[index]):
            if tensor not in made:
                found[tensor] = None
    return list(found)


def _takes(graph: Graph, own: set[int], fixed: set[int]) -> Callable[[int, int], bool]:
    """A stage holds its own operators, and the views it reads unless their result crosses anyway."""

    def takes(operator: int, tensor: int) -> bool:
        return operator in own or (graph.operators[operator].name in VIEWS and tensor not in fixed)

    return takes
