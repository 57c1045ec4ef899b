"""The loss around a trained network, on a random plane whose directions are normalised filter by filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mexit_edge.analysis.inputs import or_none, require_whole, sampled, shown
from mexit_edge.analysis.weight_space import Weights, WeightSpace, weights_of
from mexit_edge.errors import InputError
from mexit_edge.signals import Windows

N_POINTS = 17
N_WINDOWS = 1000


@dataclass(frozen=True, eq=False)
class LossLandscape:
    """Loss on a grid of a plane through the network's weights.

    Args:
        exits: name per exit.
        steps: (n,) coordinates along either direction; 1 is as far as the filters are long, 0 the network.
        loss: (n, n, E) mean cross-entropy in nats; rows are the second direction.
        n_windows: that the loss is of.
        seed: of the directions.
    """

    exits: tuple[str, ...]
    steps: NDArray[np.float64]
    loss: NDArray[np.float64]
    n_windows: int
    seed: int

    @property
    def total(self) -> NDArray[np.float64]:
        """(n, n) mean loss over the exits."""
        return np.asarray(self.loss.mean(axis=-1))

    def rows(self) -> list[dict[str, Any]]:
        """Return tidy rows: first, second, exit, loss_nats; exit "mean" is over all."""
        return [
            {
                "first": float(self.steps[column]),
                "second": float(self.steps[row]),
                "exit": exit_,
                "loss_nats": or_none(nats),
            }
            for row, column in np.ndindex(self.total.shape)
            for exit_, nats in zip(
                (*self.exits, "mean"), (*self.loss[row, column], self.total[row, column]), strict=True
            )
        ]


def loss_landscape(
    model: keras.Model,
    windows: Windows,
    *,
    n_points: int = N_POINTS,
    reach: float = 1.0,
    n_windows: int = N_WINDOWS,
    seed: int = 0,
) -> LossLandscape:
    """Evaluate the loss on a grid around a network, per exit.

    Both directions are Gaussian; each filter of a direction gets the norm of the network's filter at its
    place. Biases and the parameters of normalisations are 0 in both, and the statistics of batch
    normalisation stay as they are, as in the source. Two seeds give two planes: look at several before
    reading much into a shape.

    Args:
        model: a `MultiExitModel` or a functional network with exits.
        windows: that the loss is of, labelled.
        n_points: per side of the grid, odd, so that the network itself is a point.
        reach: of the grid to either side, in norms of the filters.
        n_windows: at most so many, drawn at random.
        seed: of the directions and of the draw.

    Raises:
        InputError: the grid has an even side, the reach is not positive, or the windows do not fit.

    Reference:
        Li et al., "Visualizing the Loss Landscape of Neural Nets", arXiv 1712.09913, section 4.
    """
    require_whole("n_points", n_points, 3)
    if n_points % 2 == 0:
        raise InputError(f"`n_points` must be odd. Received: {n_points}. Use {n_points + 1}.")
    if not 0 < reach < float("inf"):
        raise InputError(f"`reach` must be positive and finite. Received: {reach}.")
    given = shown(model, sampled(windows, n_windows, seed))
    space = WeightSpace(given)
    (centre,) = weights_of([given.network])
    rng = np.random.default_rng(seed)
    first, second = (_direction(space, centre, rng) for _ in range(2))
    steps = np.linspace(-reach, reach, n_points)
    loss = np.empty((n_points, n_points, len(given.exits)))
    for row, column in np.ndindex(loss.shape[:2]):
        point = [
            w + steps[column] * x + steps[row] * y for w, x, y in zip(centre, first, second, strict=True)
        ]
        loss[row, column], _ = space.at(point)
    return LossLandscape(given.exits, steps, loss, len(given.y), seed)


def _direction(space: WeightSpace, centre: Weights, rng: np.random.Generator) -> Weights:
    depthwise = {
        id(weight)
        for layer in space.layers
        for weight in layer.weights
        if isinstance(layer, keras.layers.DepthwiseConv1D | keras.layers.DepthwiseConv2D)
        or weight.name == "depthwise_kernel"
    }
    return [
        filter_normalised(rng.standard_normal(weight.shape), weight, depthwise=id(variable) in depthwise)
        for variable, weight in zip(space.variables, centre, strict=True)
    ]


def filter_normalised(
    direction: NDArray[np.float64], weight: NDArray[np.float64], *, depthwise: bool = False
) -> NDArray[np.float64]:
    """Return a direction whose filters have the norms of a weight's; 0 for what is no kernel.

    Args:
        direction: of the shape of the weight.
        weight: a kernel (..., inputs, outputs), or a vector.
        depthwise: whether the kernel is (..., channels, multiplier), with one filter for each of the two.
    """
    if weight.ndim < 2:
        return np.zeros(weight.shape)
    axes = tuple(range(weight.ndim - (2 if depthwise else 1)))
    norms = [np.sqrt(np.sum(one**2, axis=axes, keepdims=True)) for one in (weight, direction)]
    return np.asarray(direction * norms[0] / norms[1])
