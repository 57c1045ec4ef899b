"""Means over what was seen, and which way they should go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras


class SeenMean(keras.metrics.Mean):
    """A mean that is NaN where nothing was seen: exits that a phase does not run have no training figures."""

    def result(self) -> Any:
        """Return the mean, NaN of nothing."""
        return self.total / keras.ops.cast(self.count, self.dtype)


def set_directions(callbacks: Iterable[Any], exits: Sequence[str]) -> None:
    """Tell callbacks that watch an exit whether its figure should rise or fall, unless they were told.

    Keras finds that out by itself for metrics given to `compile` alone.

    Args:
        callbacks: of the user; those in mode ``auto`` that watch an exit's loss or accuracy get a mode.
        exits: names of the exits.
    """
    modes = {
        f"{exit_}_{kind}": mode for exit_ in exits for kind, mode in (("loss", "min"), ("accuracy", "max"))
    }
    for callback in callbacks:
        if getattr(callback, "mode", None) == "auto":
            callback.mode = modes.get(str(callback.monitor).removeprefix("val_"), "auto")
