"""The weight network of L2W-DEN: from a window's loss at every exit to its weight at every exit."""

from __future__ import annotations

from math import isfinite
from typing import Any

import keras
import tensorflow as tf

from mexit_edge.errors import InputError, unknown_name

CENTRES: dict[str, tuple[int, ...]] = {"per_sample": (1,), "per_exit": (0,), "global": (0, 1)}


def build_weight_network(n_exits: int, hidden: int = 100, seed: int = 0) -> keras.Model:
    """Build the multilayer perceptron E -> hidden (ReLU) -> E (tanh).

    Args:
        n_exits: E.
        hidden: units of the hidden layer, 100 to 500 in the paper.
        seed: of the initial weights.

    Returns:
        A model from cross-entropies (batch, E), in nats, to outputs (batch, E) between -1 and 1, which
        `sample_weights` turns into weights.

    Raises:
        InputError: no exit or no hidden unit.

    Reference:
        "Learning to Weight Samples for Dynamic Early-exiting Networks", arXiv 2209.08310.
    """
    for argument, value in {"n_exits": n_exits, "hidden": hidden}.items():
        if value < 1:
            raise InputError(f"`{argument}` must be at least 1. Received: {value}.")
    initial = [keras.initializers.GlorotUniform(seed=2 * seed + layer) for layer in range(2)]
    losses = keras.Input((n_exits,), name="losses")
    features = keras.layers.Dense(hidden, "relu", kernel_initializer=initial[0], name="hidden")(losses)
    output = keras.layers.Dense(n_exits, "tanh", kernel_initializer=initial[1], name="output")(features)
    return keras.Model(losses, output, name="weight_network")


def sample_weights(output: Any, eps: float, centre: str) -> Any:
    """Return w = max(0, 1 + eps * (output - its mean)).

    Centred, the weights redistribute a loss instead of scaling it: their mean over ``centre`` is 1 as long as
    none is clipped. An output of tanh lies less than 2 from the mean, so nothing is clipped up to eps = .5.

    A clipped weight (also one of exactly 0) passes no gradient of its own. Its output still learns through
    the mean, which the others subtract: never are all weights of one mean clipped.

    Args:
        output: tensor (batch, E) of the weight network.
        eps: how far the weights may stray from 1; 0.8 for small tasks and 0.3 for large ones in the paper.
        centre: mean over each window's exits (``"per_sample"``), over the batch for each exit
            (``"per_exit"``), or over both (``"global"``).

    Returns:
        Tensor (batch, E), >= 0.

    Raises:
        InputError: no such ``centre``, or ``eps`` is negative or not finite.

    Reference:
        arXiv 2209.08310; clipping at 0 is ours.
    """
    if centre not in CENTRES:
        raise unknown_name("centre", centre, CENTRES)
    if not (isfinite(eps) and eps >= 0):
        raise InputError(f"`eps` must be a finite number >= 0. Received: {eps}. The default is 0.8.")
    output = tf.convert_to_tensor(output)
    centred = output - tf.reduce_mean(output, axis=CENTRES[centre], keepdims=True)
    return tf.nn.relu(1 + eps * centred)
