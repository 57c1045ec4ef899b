"""Mode connectivity: the loss on the way from one trained network to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mexit_edge.analysis.inputs import network_of, or_none, require_finite, require_whole, sampled, shown
from mexit_edge.analysis.weight_space import Weights, WeightSpace, refuse_unlike, weights_of
from mexit_edge.errors import InputError
from mexit_edge.signals import Windows

N_POINTS = 21
N_PLANE_POINTS = 15
N_WINDOWS = 1000
# How far the plane reaches beyond its three networks, as a share of their spread.
_MARGIN = 0.2


@dataclass(frozen=True, eq=False)
class Line:
    """Loss and accuracy on the line w(a) = (1 - a) w_1 + a w_2.

    Args:
        ends: names of both networks.
        a: (points,) from 0 to 1.
        loss: (points, E) mean cross-entropy per exit, in nats.
        accuracy: (points, E).
        distance: ||w_2 - w_1|| of the weights that learn, frozen or not.
    """

    ends: tuple[str, str]
    a: NDArray[np.float64]
    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    distance: float

    @property
    def total(self) -> NDArray[np.float64]:
        """(points,) mean loss over the exits."""
        return np.asarray(self.loss.mean(axis=1))

    @property
    def chord(self) -> NDArray[np.float64]:
        """(points,) the straight way between the total loss of both ends."""
        return _chord(self.a, self.total)

    @property
    def barrier(self) -> float:
        """max_a L(w(a)) - ((1 - a) L(w_1) + a L(w_2)) of the mean loss, in nats; never below 0."""
        return float(_barrier(self.a, self.total))

    @property
    def exit_barriers(self) -> NDArray[np.float64]:
        """(E,) the same of each exit's loss."""
        return np.asarray([_barrier(self.a, self.loss[:, k]) for k in range(self.loss.shape[1])])


@dataclass(frozen=True, eq=False)
class Plane:
    """Loss and accuracy on the plane through three networks.

    Args:
        corners: names of the networks.
        u: (points,) first coordinate: along w_2 - w_1, in the same unit as the weights.
        v: (points,) second coordinate, at a right angle to it.
        loss: (points of v, points of u, E) in nats.
        accuracy: (points of v, points of u, E).
        places: (3, 2) where the networks are, as (u, v).
    """

    corners: tuple[str, str, str]
    u: NDArray[np.float64]
    v: NDArray[np.float64]
    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    places: NDArray[np.float64]

    @property
    def total(self) -> NDArray[np.float64]:
        """(points of v, points of u) mean loss over the exits."""
        return np.asarray(self.loss.mean(axis=-1))


@dataclass(frozen=True, eq=False)
class Connectivity:
    """Lines between each two networks, and the plane through three.

    Args:
        exits: name per exit.
        lines: one for two networks, three for three.
        plane: None for two networks.
        n_windows: that loss and accuracy are of.
        n_statistics: windows behind the statistics of batch normalisation; 0 for a network without.
    """

    exits: tuple[str, ...]
    lines: tuple[Line, ...]
    plane: Plane | None
    n_windows: int
    n_statistics: int

    def rows(self) -> list[dict[str, Any]]:
        """Return tidy rows: what, from, to, a, u, v, exit, loss_nats, accuracy; exit "mean" is over all."""
        rows = []
        for line in self.lines:
            for place, a in enumerate(line.a.tolist()):
                where = {
                    "what": "line",
                    "from": line.ends[0],
                    "to": line.ends[1],
                    "a": a,
                    "u": None,
                    "v": None,
                }
                rows += _rows(where, self.exits, line.loss[place], line.accuracy[place])
        if self.plane is not None:
            for row, column in np.ndindex(self.plane.total.shape):
                where = {"what": "plane", "from": None, "to": None, "a": None}
                where |= {"u": float(self.plane.u[column]), "v": float(self.plane.v[row])}
                rows += _rows(
                    where, self.exits, self.plane.loss[row, column], self.plane.accuracy[row, column]
                )
        for line in self.lines:
            where = {"what": "barrier", "from": line.ends[0], "to": line.ends[1]}
            where |= {"a": None, "u": None, "v": None}
            barriers = (*line.exit_barriers.tolist(), line.barrier)
            rows += [
                {**where, "exit": exit_, "loss_nats": or_none(barrier), "accuracy": None}
                for exit_, barrier in zip((*self.exits, "mean"), barriers, strict=True)
            ]
        return rows


def _rows(
    where: dict[str, Any], exits: tuple[str, ...], loss: NDArray[np.float64], accuracy: NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Return the rows of one point."""
    values = [*zip(exits, loss, accuracy, strict=True), ("mean", loss.mean(), accuracy.mean())]
    return [
        {**where, "exit": exit_, "loss_nats": or_none(nats), "accuracy": float(share)}
        for exit_, nats, share in values
    ]


def mode_connectivity(
    models: Sequence[keras.Model],
    windows: Windows,
    *,
    names: Sequence[str] | None = None,
    statistics: Windows | None = None,
    n_points: int = N_POINTS,
    n_plane_points: int = N_PLANE_POINTS,
    n_windows: int = N_WINDOWS,
    seed: int = 0,
) -> Connectivity:
    """Follow the loss on the line between two networks, and on the plane through three.

    The mean activation of a network halfway is not halfway between theirs. So at every point, the ends
    included, mean and variance of each batch normalisation are taken anew, from one pass in training mode of
    all statistics windows as a single batch, dropout off; then loss and accuracy come from inference mode.

    Args:
        models: two or three of the same structure, each a `MultiExitModel` or a functional network.
        windows: that loss and accuracy are of, labelled.
        names: of the networks; None for "1", "2", "3".
        statistics: training windows for batch normalisation; None for ``windows``.
        n_points: on a line, ends included, at least 3.
        n_plane_points: per side of the plane's grid, at least 3.
        n_windows: at most so many of either set of windows, drawn at random.
        seed: of the draw.

    Raises:
        InputError: the networks cannot be connected (see `connectable`), or windows do not fit.

    Reference:
        Barrier: Frankle et al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis",
        arXiv 1912.05671. Plane: Garipov et al., arXiv 1802.10026. Statistics: Izmailov et al.,
        arXiv 1803.05407.
    """
    require_whole("n_points", n_points, 3)
    require_whole("n_plane_points", n_plane_points, 3)
    ends = connectable(models)
    names = [str(number + 1) for number in range(len(models))] if names is None else list(names)
    if len(names) != len(models):
        raise InputError(
            f"`names` needs one per network ({len(models)}). Received: {names}. Or leave it out."
        )
    given = shown(models[0], sampled(windows, n_windows, seed))
    of_norms = given
    if statistics is not None:
        of_norms = shown(models[0], sampled(statistics, n_windows, seed), "statistics")
    space = WeightSpace(given, of_norms.x)
    plane = None if len(ends) == 2 else _plane(space, ends, names, n_plane_points)
    pairs = combinations(range(len(ends)), 2)
    return Connectivity(
        exits=given.exits,
        lines=tuple(_line(space, ends, names, pair, n_points) for pair in pairs),
        plane=plane,
        n_windows=len(given.y),
        n_statistics=len(of_norms.y) if space.has_statistics else 0,
    )


def connectable(models: Sequence[keras.Model]) -> list[Weights]:
    """Return the weights that learn of networks that a line or a plane goes through.

    Raises:
        InputError: one network or more than three, of different structure or normalisation, with weights that
            are not finite, with others than learn that differ (see `weights_of`), or three on one line.
    """
    if len(models) not in (2, 3):
        raise InputError(
            f"`models` must be two networks, for a line, or three, for a plane. Received: {len(models)}. "
            "Leave some out, or look at one with `loss_landscape`."
        )
    refuse_unlike(models)
    for model in models:
        require_finite(network_of(model), "models")
    ends = weights_of(models)
    if len(ends) == 3:
        _axes(ends)
    return ends


def _line(
    space: WeightSpace, ends: list[Weights], names: list[str], pair: tuple[int, int], n_points: int
) -> Line:
    start, end = ends[pair[0]], ends[pair[1]]
    way = [there - here for here, there in zip(start, end, strict=True)]
    a = np.linspace(0, 1, n_points)
    # Not as steps from the start: rounding of much larger weights there would not lead to the end.
    found = [
        space.at([(1 - share) * here + share * there for here, there in zip(start, end, strict=True)])
        for share in a
    ]
    return Line(
        ends=(names[pair[0]], names[pair[1]]),
        a=a,
        loss=np.stack([loss for loss, _ in found]),
        accuracy=np.stack([accuracy for _, accuracy in found]),
        distance=_dot(way, way) ** 0.5,
    )


def _axes(ends: list[Weights]) -> tuple[Weights, Weights, NDArray[np.float64]]:
    """Return both axes of the plane, by Gram and Schmidt, and the places (3, 2) of the networks in it.

    w_1 is the origin, w_2 on the first axis.

    Raises:
        InputError: the networks span no plane.
    """
    one, two, three = ends
    along = [there - here for here, there in zip(one, two, strict=True)]
    across = [there - here for here, there in zip(one, three, strict=True)]
    reach, slant = _dot(along, along) ** 0.5, _dot(across, across) ** 0.5
    foot = _dot(along, across) / reach if reach else 0.0
    first = [part / (reach or 1) for part in along]
    rest = [part - foot * unit for part, unit in zip(across, first, strict=True)]
    height = _dot(rest, rest) ** 0.5
    # Float32 weights carry seven digits.
    if not reach or height <= 1e-6 * slant:
        raise InputError(
            "`models` must span a plane. Received: three networks on one line, or two of them equal. "
            "Give two of them alone."
        )
    second = [part / height for part in rest]
    return first, second, np.asarray([[0.0, 0.0], [reach, 0.0], [foot, height]])


def _plane(space: WeightSpace, ends: list[Weights], names: list[str], n_points: int) -> Plane:
    first, second, places = _axes(ends)
    low, high = places.min(axis=0), places.max(axis=0)
    margin = _MARGIN * (high - low)
    u, v = (np.linspace(low[k] - margin[k], high[k] + margin[k], n_points) for k in (0, 1))
    shape = (n_points, n_points, len(space.given.exits))
    loss, accuracy = np.empty(shape), np.empty(shape)
    for row, column in np.ndindex(shape[:2]):
        loss[row, column], accuracy[row, column] = space.at(
            [w + u[column] * x + v[row] * y for w, x, y in zip(ends[0], first, second, strict=True)]
        )
    return Plane((names[0], names[1], names[2]), u, v, loss, accuracy, places)


def _dot(first: Weights, second: Weights) -> float:
    return float(sum(np.vdot(one, other) for one, other in zip(first, second, strict=True)))


def _barrier(a: NDArray[np.float64], loss: NDArray[np.float64]) -> float:
    return float(np.max(loss - _chord(a, loss)))


def _chord(a: NDArray[np.float64], loss: NDArray[np.float64]) -> NDArray[np.float64]:
    # As a rise above the start, so that the barrier between equal ends is exactly 0.
    return np.asarray(loss[0] + a * (loss[-1] - loss[0]))
