"""Gradient dominance: which exit moves which part of a network, and where exits pull against each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mexit_edge.analysis.copies import learning_copy
from mexit_edge.analysis.inputs import exit_weights_of, or_none, require_whole, shown
from mexit_edge.models.anatomy import anatomy
from mexit_edge.regimes.losses import cross_entropies
from mexit_edge.signals import Windows

MIN_BATCHES = 20
BATCH_SIZE = 64


@dataclass(frozen=True, eq=False)
class GradientDominance:
    """Means over batches, and standard deviations of one; NaN where a figure is defined in too few batches.

    With g_k the gradient of w_k CE_k with respect to the weights of a group, and G = sum_k g_k:

    Args:
        groups: block_01, ..., head_01, ...: those of `mexit_edge.models.anatomy` that have weights to learn,
            frozen or not.
        exits: name per exit.
        exit_weights: (E,) the w_k.
        share: (groups, E) ||g_k||^2 / sum_j ||g_j||^2; sums to 1 over exits.
        projection: (groups, E) <g_k, G> / ||G||^2; sums to 1 over exits; below 0 where an exit is overruled.
        conflict: (groups, E, E) cosine between g_k and g_j; NaN where either is 0.
        share_deviation: (groups, E) standard deviation of `share` over batches, of two at least (n - 1).
        projection_deviation: (groups, E) the same of `projection`.
        conflict_deviation: (groups, E, E) the same of `conflict`.
        share_batches: (groups, E) number of batches in which `share` is defined.
        projection_batches: (groups, E) the same of `projection`.
        conflict_batches: (groups, E, E) the same of `conflict`.
        n_batches: that were looked at.
        batch_size: windows in each.
    """

    groups: tuple[str, ...]
    exits: tuple[str, ...]
    exit_weights: NDArray[np.float64]
    share: NDArray[np.float64]
    projection: NDArray[np.float64]
    conflict: NDArray[np.float64]
    share_deviation: NDArray[np.float64]
    projection_deviation: NDArray[np.float64]
    conflict_deviation: NDArray[np.float64]
    share_batches: NDArray[np.int64]
    projection_batches: NDArray[np.int64]
    conflict_batches: NDArray[np.int64]
    n_batches: int
    batch_size: int

    def rows(self) -> list[dict[str, Any]]:
        """Return tidy rows: group, figure, exit, other_exit, value, sd_over_batches, n_batches."""
        rows = []
        for place, group in enumerate(self.groups):
            for figure in ("share", "projection"):
                for k, exit_ in enumerate(self.exits):
                    rows.append(self._row(group, figure, figure, (place, k), exit_, None))
            for first, second in zip(*np.triu_indices(len(self.exits), 1), strict=True):
                pair = self.exits[first], self.exits[second]
                rows.append(self._row(group, "cosine", "conflict", (place, int(first), int(second)), *pair))
        return rows

    def _row(
        self, group: str, figure: str, field: str, at: tuple[int, ...], exit_: str, other: str | None
    ) -> dict[str, Any]:
        return {
            "group": group,
            "figure": figure,
            "exit": exit_,
            "other_exit": other,
            "value": or_none(getattr(self, field)[at]),
            "sd_over_batches": or_none(getattr(self, f"{field}_deviation")[at]),
            "n_batches": int(getattr(self, f"{field}_batches")[at]),
        }


def gradient_dominance(
    model: keras.Model,
    windows: Windows,
    *,
    n_batches: int = MIN_BATCHES,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> GradientDominance:
    """Compare the gradients that the exits' losses give every block and head, batch by batch.

    The network runs in inference mode. So the gradient of a window depends on that window alone, neither on
    the company of its batch nor on dropout's draws, and the statistics of batch normalisation stay. The loss
    is the weighted cross-entropy alone, on windows as they are: terms that a regime adds to it (consistency,
    distillation, decay of weights) are left out. Gradient equilibrium scales all exits of a block alike and
    changes nothing here. What is frozen counts as if it learned.

    Args:
        model: a `MultiExitModel`, whose regime's exit weights apply (see `exit_weights_of`), or a functional
            network with exits, of uniform weights.
        windows: of training subjects, labelled.
        n_batches: drawn without repetition, at least 20; fewer windows than that are a batch each.
        batch_size: windows per batch, at most: few windows make smaller batches, not fewer of them.
        seed: of the draw.

    Raises:
        InputError: the windows do not fit the network, or fewer than 20 batches are asked for.

    Reference:
        The measure is our own; the question is that of "Joint or Disjoint: Mixing Training Regimes for
        Early-Exit Models", arXiv 2407.14320. Cosines as conflict: Yu et al., arXiv 2001.06782.
    """
    require_whole("n_batches", n_batches, MIN_BATCHES)
    require_whole("batch_size", batch_size, 1)
    given = shown(model, windows)
    n_batches = min(n_batches, len(given.y))
    batch_size = min(batch_size, len(given.y) // n_batches)
    weights = exit_weights_of(model)
    copy = learning_copy(given.network)
    groups = _groups(copy)
    products = _inner_products(copy, given.exits, weights, list(groups.values()))
    order = np.random.default_rng(seed).permutation(len(given.y))[: n_batches * batch_size]
    found = np.stack(
        [products(given.x[batch], given.y[batch]).numpy() for batch in order.reshape(n_batches, batch_size)]
    )
    return _dominance(found, tuple(groups), given.exits, weights, batch_size)


def _groups(network: keras.Model) -> dict[str, list[Any]]:
    """Return group -> its weights that learn; a layer that several blocks share is in the first of them."""
    parts = anatomy(network)
    named = {f"{kind}_{number:02d}": layers
             for kind, groups in (("block", parts.blocks), ("head", parts.heads))
             for number, layers in enumerate(groups, start=1)}  # fmt: skip
    weights = {
        name: [weight for layer in layers for weight in network.get_layer(layer).trainable_variables]
        for name, layers in named.items()
    }
    return {name: own for name, own in weights.items() if own}


def _inner_products(
    network: keras.Model, exits: tuple[str, ...], weights: NDArray[np.float64], groups: list[list[Any]]
) -> Callable[[Any, Any], Any]:
    """Return a function of a batch that gives <g_k, g_j> per group, (groups, E, E), in float64."""
    variables = [weight.value for group in groups for weight in group]
    ends = np.cumsum([len(group) for group in groups])

    @tf.function
    def products(x: Any, y: Any) -> Any:
        with tf.GradientTape(persistent=True) as tape:
            outputs = network(x, training=False)
            columns = cross_entropies(keras.ops.stack([outputs[exit_] for exit_ in exits], axis=1), y)
            losses = [weight * tf.reduce_mean(columns[:, k]) for k, weight in enumerate(weights.tolist())]
        gradients = [
            tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            for loss in losses
        ]
        found = []
        for start, end in zip((0, *ends[:-1]), ends, strict=True):
            flat = tf.stack(
                [
                    tf.concat(
                        [tf.reshape(tf.cast(one, tf.float64), [-1]) for one in of_exit[start:end]], axis=0
                    )
                    for of_exit in gradients
                ]
            )
            found.append(tf.matmul(flat, flat, transpose_b=True))
        return tf.stack(found)

    return products


def _dominance(
    products: NDArray[np.float64],
    groups: tuple[str, ...],
    exits: tuple[str, ...],
    weights: NDArray[np.float64],
    batch_size: int,
) -> GradientDominance:
    """Return the figures from the inner products (batches, groups, E, E)."""
    squares = np.diagonal(products, axis1=2, axis2=3)
    share = _ratio(squares, squares.sum(axis=-1, keepdims=True))
    projection = _ratio(products.sum(axis=-1), products.sum(axis=(-2, -1))[..., None])
    norms = np.sqrt(squares)
    conflict = _ratio(products, norms[..., :, None] * norms[..., None, :])
    figures: dict[str, Any] = {}
    for name, values in (("share", share), ("projection", projection), ("conflict", conflict)):
        figures[name], figures[f"{name}_deviation"], figures[f"{name}_batches"] = _over_batches(values)
    return GradientDominance(
        groups=groups,
        exits=exits,
        exit_weights=weights,
        n_batches=len(products),
        batch_size=batch_size,
        **figures,
    )


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quotient, NaN where the divisor is 0."""
    below = np.broadcast_to(below, above.shape)
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)


def _over_batches(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return mean, standard deviation and number of the batches in which a figure is defined.

    There is no mean of none, and no deviation of fewer than two: NaN.
    """
    known = np.isfinite(values)
    n = known.sum(axis=0)
    mean = _ratio(np.where(known, values, 0).sum(axis=0), n)
    squares = np.where(known, (values - mean) ** 2, 0).sum(axis=0)
    return mean, np.sqrt(_ratio(squares, np.maximum(n - 1, 0))), n
