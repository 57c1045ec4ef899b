"""Figures per epoch over all phases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from mexit_edge.errors import RunError


class PhaseHistory(keras.callbacks.History):
    """A History with one epoch axis over all phases, and a column with the number of the phase, from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch: list[int] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Keep what earlier phases have given."""


class PhaseColumn(keras.callbacks.Callback):
    """Adds ``phase`` to an epoch's figures, for every callback after this one.

    Args:
        number: of the phase, from 1.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the column."""
        if logs is not None:
            logs["phase"] = self.number


class StopAtNonFiniteLoss(keras.callbacks.Callback):
    """Ends the training at a loss that is no finite number, and says where.

    Args:
        checkpoint: where the last good epoch is kept, or None.
    """

    def __init__(self, checkpoint: str | None) -> None:
        super().__init__()
        self.checkpoint = checkpoint

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remember where the epoch begins."""
        self.epoch, self.first_step = epoch, int(self.model.step)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the first step, per exit and in all, whose loss was not finite.

        Raises:
            RunError: there is one.
        """
        found = self.model.first_non_finite.numpy()
        if (found < 0).all():
            return
        step = int(found[found >= 0].min())
        names = [*self.model.exits, "the regime's loss"]
        where = ", ".join(name for name, at in zip(names, found.tolist(), strict=True) if at == step)
        kept = " Give `checkpoint` to keep the last whole epoch."
        if self.checkpoint:
            # Not there yet in the first epoch.
            kept = (
                f" The last whole epoch is kept in {self.checkpoint}: `fit` goes on from it with mended "
                "samples; remove it to train with another learning rate or clipping."
                if Path(self.checkpoint).exists()
                else ""
            )
        raise RunError(
            f"the loss must stay finite. Received: {where} without at step {step - self.first_step + 1} of "
            f"epoch {self.epoch + 1}, phase {self.model.active.phase.name!r}. Lower the learning rate, clip "
            f"the gradient (`clipnorm` of the optimizer), or look for extreme samples.{kept}"
        )
