"""Losses per window and exit. Logits are (batch, E, classes) in Keras tensors; losses are in nats."""

from __future__ import annotations

from typing import Any

import keras

from mexit_edge.signals import UNLABELLED


def cross_entropies(logits: Any, y: Any, label_smoothing: float = 0.0) -> Any:
    """Return the cross-entropy of every window at every exit, (batch, E).

    Args:
        logits: (batch, E, classes).
        y: (batch,) class indices; the loss of an unlabelled window is that of class 0, to be masked out.
        label_smoothing: share of the target that is spread evenly over all classes (arXiv 1512.00567).
    """
    ops = keras.ops
    labels = ops.maximum(ops.cast(y, "int32"), 0)
    labels = ops.broadcast_to(ops.expand_dims(labels, 1), ops.shape(logits)[:2])
    exact = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    if not label_smoothing:
        return exact
    even = -ops.mean(ops.log_softmax(logits, axis=-1), axis=-1)
    return (1 - label_smoothing) * exact + label_smoothing * even


def soft_cross_entropies(target: Any, logits: Any) -> Any:
    """Return -sum_c target_c log softmax(logits)_c, (batch, E), for targets (batch, E, classes)."""
    ops = keras.ops
    return -ops.sum(target * ops.log_softmax(logits, axis=-1), axis=-1)


def divergences(target: Any, logits: Any) -> Any:
    """Return KL(target || softmax(logits)), (batch, E), for targets (batch, E, classes)."""
    ops = keras.ops
    # x log x at 0 is 0, and so is its part of the divergence.
    safe = ops.maximum(target, keras.config.epsilon())
    return soft_cross_entropies(target, logits) + ops.sum(target * ops.log(safe), axis=-1)


def labelled(y: Any, dtype: str) -> Any:
    """Return 1 for windows with a label and 0 for those without, (batch,)."""
    return keras.ops.cast(keras.ops.not_equal(y, UNLABELLED), dtype)


def weighted_mean(per_window: Any, sample_weight: Any | None) -> Any:
    """Return the mean over the batch, each window counted by its weight (Keras' sum over batch size)."""
    if sample_weight is None:
        return keras.ops.mean(per_window)
    return keras.ops.mean(per_window * keras.ops.cast(sample_weight, per_window.dtype))


def labelled_mean(per_window: Any, y: Any, sample_weight: Any | None) -> Any:
    """Return the weighted mean over the labelled windows of a batch; 0 where there is none."""
    known = labelled(y, per_window.dtype)
    weights = known if sample_weight is None else known * keras.ops.cast(sample_weight, per_window.dtype)
    return keras.ops.sum(per_window * weights) / keras.ops.maximum(keras.ops.sum(known), 1)
