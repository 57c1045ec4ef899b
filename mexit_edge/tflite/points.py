"""Where a model can be cut between two operators, and the most even cut into n stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.tflite.checks import refuse_uncuttable
from mexit_edge.tflite.graph import Graph, Tensor
from mexit_edge.tflite.liveness import alive_after, needed_operators
from mexit_edge.tflite.plan import VIEWS

MAX_LIVE = 3


@dataclass(frozen=True)
class CutPoint:
    """A place between two operators.

    Args:
        position: operators of a lower index run before it, the others after it.
        last: output of the operator that runs just before it.
        live: tensors that what runs before gives, or the caller, and that what runs after reads.
    """

    position: int
    last: Tensor
    live: tuple[Tensor, ...]


def cut_points(content: bytes, max_live: int = MAX_LIVE) -> tuple[CutPoint, ...]:
    """Return the places at which a model can be cut in two, in order of execution.

    A view (RESHAPE and its like) belongs to the stage that reads it, so that the place behind a view is the
    same as the one before it and is left out. Operators that no output needs are left out too.

    Args:
        content: a .tflite.
        max_live: largest number of tensors alive there; an input of the model that is read later counts.

    Raises:
        InputError: as for `Graph`, the model has dynamic shapes or a state, or ``max_live`` is below 1.
    """
    graph = Graph(content)
    refuse_uncuttable(graph)
    return points_of(graph, max_live)


def points_of(graph: Graph, max_live: int) -> tuple[CutPoint, ...]:
    """See `cut_points`."""
    if max_live < 1:
        raise InputError(f"`max_live` must be at least 1. Received: {max_live}.")
    alive = alive_after(graph)
    points = []
    for index, following in pairwise(needed_operators(graph)):
        operator, live = graph.operators[index], alive[index]
        if operator.name not in VIEWS and len(live) <= max_live:
            points.append(
                CutPoint(
                    position=following,
                    last=graph.tensors[operator.outputs[0]],
                    live=tuple(graph.tensors[tensor] for tensor in sorted(live)),
                )
            )
    return tuple(points)


def most_even(points: Sequence[CutPoint], macs: Sequence[int], n: int) -> tuple[int, ...]:
    """Choose the n - 1 positions that make the largest of n stages smallest.

    Among equal choices, the one whose boundaries hold the fewest elements.

    Args:
        points: to choose from.
        macs: multiply-accumulates per operator.
        n: number of stages.

    Raises:
        InputError: there are not enough points, or ``macs`` has not one value per operator.
    """
    if not 2 <= n <= len(points) + 1:
        raise InputError(
            f"`n` must be from 2 to {len(points) + 1}, as there are {len(points)} places to cut at. "
            f"Received: {n}. Allow more tensors at a boundary (`max_live`), or cut into fewer stages."
        )
    total = np.concatenate([[0], np.cumsum(np.asarray(macs, np.int64))])
    before = np.asarray([0, *(total[point.position] for point in points), total[-1]], np.int64)
    elements = np.asarray([sum(tensor.elements for tensor in point.live) for point in points], np.int64)
    largest = _smallest_maximum(before, n)
    return tuple(points[place - 1].position for place in _lightest(before, elements, n, largest))


def _smallest_maximum(before: NDArray[np.int64], n: int) -> int:
    """Return the largest stage of the most even cut; ``before`` is what runs before each place."""
    best = before.copy()
    for _ in range(n - 1):
        best = np.asarray(
            [
                np.maximum(best[: place + 1], before[place] - before[: place + 1]).min()
                for place in range(len(best))
            ]
        )
    return int(best[-1])


def _lightest(before: NDArray[np.int64], elements: NDArray[np.int64], n: int, largest: int) -> list[int]:
    """Return the places of n - 1 cuts with no stage above ``largest`` and the fewest elements crossing."""
    impossible = np.iinfo(np.int64).max // 2
    weight = np.asarray([0, *elements, 0], np.int64)
    cost = np.full(len(before), impossible)
    cost[0] = 0
    origins = []
    for _ in range(n):
        step = np.full(len(before), impossible)
        origin = np.zeros(len(before), np.int64)
        for place in range(1, len(before)):
            allowed = np.where(before[place] - before[:place] <= largest, cost[:place], impossible)
            origin[place] = int(allowed.argmin())
            step[place] = min(int(allowed.min()) + int(weight[place]), impossible)
        cost = step
        origins.append(origin)
    places = [len(before) - 1]
    for origin in reversed(origins):
        places.append(int(origin[places[-1]]))
    return places[-2:0:-1]
