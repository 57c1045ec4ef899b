"""The optimizer of the main job."""

from __future__ import annotations

import keras

LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-3


def adamw_cosine(
    n_windows: int,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = LEARNING_RATE,
    clip_norm: float | None = None,
) -> keras.optimizers.Optimizer:
    """Return AdamW whose learning rate falls to zero along a cosine over the whole training.

    Args:
        n_windows: training windows.
        epochs: epochs in all.
        batch_size: windows per step.
        learning_rate: at the start.
        clip_norm: largest norm of the gradient of all weights together; None for no limit.

    Reference:
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101.
    """
    steps = max(1, n_windows // batch_size) * epochs
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    return keras.optimizers.AdamW(schedule, weight_decay=WEIGHT_DECAY, global_clipnorm=clip_norm)
