"""One step down the gradient of a regime's loss."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def gradient_step(model: Any, x: Any, y: Any, sample_weight: Any) -> tuple[dict[str, Any], Any]:
    """Do one step of a `MultiExitModel` with its own optimizer.

    Args:
        model: whose weights learn.
        x: what the network takes.
        y: (batch,).
        sample_weight: (batch,), or None.

    Returns:
        Logits per exit, and the loss.
    """
    with tf.GradientTape() as tape:
        y_pred = model(x, training=True)
        loss = model.compute_loss(x, y, y_pred, sample_weight, training=True)
        scaled = model.optimizer.scale_loss(loss)
    apply_gradients(model, tape.gradient(scaled, model.trainable_weights))
    return y_pred, loss


def apply_gradients(model: Any, gradients: list[Any]) -> None:
    """Let the optimizer apply the gradients of the variables that learn, in equilibrium if so wanted."""
    variables = model.trainable_weights
    if model.regime.gradient_equilibrium:
        gradients = [
            gradient if gradient is None else gradient * coefficient
            for gradient, coefficient in zip(gradients, model.equilibrium(variables), strict=True)
        ]
    model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
