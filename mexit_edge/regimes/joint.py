"""Joint training: every exit and the backbone at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from mexit_edge.errors import InputError
from mexit_edge.regimes.regime import Regime, weighted_mean


@dataclass(frozen=True)
class Joint(Regime):
    """L = sum_e w_e CE_e / sum_e w_e; with uniform weights the mean over the exits.

    Args:
        exit_weights: weight per exit, or None for uniform weights.

    Raises:
        InputError: a weight is negative, or all are zero.

    Reference:
        "Joint or Disjoint: Mixing Training Regimes for Early-Exit Models", arXiv 2407.14320, phase 2.
    """

    name = "joint"

    exit_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.exit_weights is not None:
            # A list, as a .keras file gives it back, would make the regime unequal to the one saved.
            object.__setattr__(self, "exit_weights", tuple(self.exit_weights))
        weights = self.exit_weights
        if weights is not None and (min(weights, default=0) < 0 or not sum(weights)):
            raise InputError(f"`exit_weights` must be >= 0 with a positive sum. Received: {weights}.")

    def loss(self, cross_entropies: Any, sample_weight: Any | None) -> Any:
        """See `Regime.loss`."""
        n_exits = cross_entropies.shape[1]
        weights = self.exit_weights or (1.0,) * n_exits
        if len(weights) != n_exits:
            raise InputError(
                f"`exit_weights` needs one value per exit ({n_exits}). Received: {list(weights)}."
            )
        shares = keras.ops.convert_to_tensor([weight / sum(weights) for weight in weights])
        return weighted_mean(keras.ops.sum(cross_entropies * shares, axis=1), sample_weight)
