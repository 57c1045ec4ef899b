"""The gradient that teaches the weight network: through one step of training to a loss on other windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from mexit_edge.errors import InputError
from mexit_edge.models.heads import exit_names
from mexit_edge.regimes.assignment import assign_exits, exit_counts, exit_counts_of_batch
from mexit_edge.regimes.losses import cross_entropies
from mexit_edge.regimes.pseudo_step import pseudo_step
from mexit_edge.regimes.weight_network import sample_weights


def meta_gradients(
    network: keras.Model,
    optimizer: Any,
    weight_network: keras.Model,
    train_half: Sequence[Any],
    meta_half: Sequence[Any],
    *,
    p: float,
    eps: float,
    centre: str,
    label_smoothing: float = 0.0,
    exit_factors: Any = 1.0,
    gradient_factors: Sequence[float] | None = None,
    variables: Sequence[Any] | None = None,
) -> tuple[Any, list[Any]]:
    """Return the meta loss and its gradient in the weight network's parameters.

    The train half's losses, weighted, give the gradient of a pseudo step; the network after that step is
    judged on the meta half, each exit on the windows it would answer for. Batch normalisation and dropout run
    in training mode on both halves. Nothing is assigned: statistics, random states and moments stay.

    With L the loss of the pseudo step, only the derivative of dL/dtheta in the *weights* is needed, not the
    one in theta. It costs about one more pass, since the outer tape does not watch theta.

    Args:
        network: a functional model with a dict of logits ``exit_01``, ... as outputs.
        optimizer: that of the network, built (see `pseudo_step`).
        weight_network: see `build_weight_network`.
        train_half: (x, y) or (x, y, sample_weight): windows (n, ...) as the network takes them, class indices
            (n,), and a weight per window (n,) that multiplies its cross-entropies.
        meta_half: likewise, other windows. An exit that gets none of them (see `smallest_batch`) adds
            nothing to the meta loss.
        p: see `exit_shares`.
        eps: see `sample_weights`.
        centre: see `sample_weights`.
        label_smoothing: of the train half's losses, as in the real step.
        exit_factors: (E,) that multiply the losses of the pseudo step, as in the real step.
        gradient_factors: per trainable variable of the network, for its gradient, as in the real step; None
            for 1.
        variables: trainable variables of the network that the pseudo step moves, None for all. With few,
            such as those of the heads, it is cheaper, and clipping by the global norm sees only these.

    Returns:
        The meta loss, sum over exits of the mean cross-entropy in nats on the exit's own windows, and a
        gradient per trainable variable of the weight network.

    Raises:
        InputError: ``variables`` is empty or holds others than trainable variables of the network; see also
            `exit_names`, `exit_shares`, `pseudo_step` and `sample_weights`.

    Reference:
        "Learning to Weight Samples for Dynamic Early-exiting Networks", arXiv 2209.08310.
    """
    exits = exit_names(network)
    moved = _moved(network, variables)
    values = [tf.convert_to_tensor(variable.value) for variable in network.trainable_variables]
    state = [tf.convert_to_tensor(variable.value) for variable in network.non_trainable_variables]
    weight_values = [tf.convert_to_tensor(variable.value) for variable in weight_network.trainable_variables]
    weight_state = [
        tf.convert_to_tensor(variable.value) for variable in weight_network.non_trainable_variables
    ]

    with tf.GradientTape(watch_accessed_variables=False) as outer:
        outer.watch(weight_values)
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch([values[index] for index in moved])
            outputs, state, penalties = network.stateless_call(
                values, state, train_half[0], training=True, return_losses=True
            )
            losses = cross_entropies(_logits(outputs, exits), train_half[1], label_smoothing)
            output, _ = weight_network.stateless_call(
                weight_values, weight_state, tf.stop_gradient(losses), training=True
            )
            weights = tf.cast(sample_weights(output, eps, centre), losses.dtype)
            per_window = tf.reduce_sum(exit_factors * weights * losses, axis=1) * _given_weight(
                train_half, losses.dtype
            )
            loss = tf.reduce_mean(per_window)
            if penalties:
                loss = loss + tf.add_n([tf.cast(penalty, losses.dtype) for penalty in penalties])
        starts = [values[index] for index in moved]
        gradients = inner.gradient(loss, starts)
        if gradient_factors is not None:
            gradients = [
                gradient if gradient is None else gradient * gradient_factors[index]
                for index, gradient in zip(moved, gradients, strict=True)
            ]
        steps = pseudo_step(
            optimizer,
            starts,
            gradients,
            [network.trainable_variables[index] for index in moved],
        )
        for index, step in zip(moved, steps, strict=True):
            values[index] = step
        # The state left by the first call, so that dropout draws anew for the other windows.
        outputs, _ = network.stateless_call(values, state, meta_half[0], training=True)
        meta_loss = assigned_loss(outputs, exits, meta_half, p)
    # Zeros rather than None where no loss reaches the variables that moved.
    return meta_loss, outer.gradient(
        meta_loss, weight_values, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )


def assigned_loss(outputs: Mapping[str, Any], exits: Sequence[str], half: Sequence[Any], p: float) -> Any:
    """Return the sum over exits of the mean cross-entropy on the windows that the exit answers for.

    Args:
        outputs: exit -> logits (n, classes).
        exits: their order.
        half: (x, y) or (x, y, sample_weight) of the windows.
        p: see `exit_shares`.

    Returns:
        Scalar tensor, in nats. An exit without windows adds nothing.
    """
    logits = _logits(outputs, exits)
    losses = cross_entropies(logits, half[1])
    confidence = tf.reduce_max(tf.nn.softmax(logits), axis=2)
    # Batches have an unknown size under tf.function wherever the last one may be smaller.
    n = losses.shape[0]
    counts = (
        exit_counts(n, len(exits), p)
        if n is not None
        else exit_counts_of_batch(tf.shape(losses)[0], len(exits), p)
    )
    mask = assign_exits(confidence, counts)
    totals = tf.reduce_sum(mask * losses * _given_weight(half, losses.dtype)[:, None], axis=0)
    return tf.reduce_sum(tf.math.divide_no_nan(totals, tf.reduce_sum(mask, axis=0)))


def _logits(outputs: Mapping[str, Any], exits: Sequence[str]) -> Any:
    """Return the logits (n, E, classes), in float32 where the network computes in half precision."""
    logits = tf.stack([tf.convert_to_tensor(outputs[exit_]) for exit_ in exits], axis=1)
    return tf.cast(logits, tf.float32) if logits.dtype.size < 4 else logits


def _given_weight(half: Sequence[Any], dtype: Any) -> Any:
    """Return the weight per window (n,), 1 where none came."""
    if len(half) > 2 and half[2] is not None:
        return tf.cast(half[2], dtype)
    return tf.ones_like(half[1], dtype)


def _moved(network: keras.Model, variables: Sequence[Any] | None) -> list[int]:
    """Return the places of the variables among the network's trainable ones."""
    places = {id(variable): place for place, variable in enumerate(network.trainable_variables)}
    if variables is None:
        return list(places.values())
    others = [variable.path for variable in variables if id(variable) not in places]
    if others or not variables:
        raise InputError(
            "`variables` must be trainable variables of the network, at least one. "
            f"Received: {others or 'none'}. Leave it out to move all of them."
        )
    return sorted({places[id(variable)] for variable in variables})
