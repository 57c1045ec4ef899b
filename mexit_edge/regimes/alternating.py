"""Alternating training: the final exit and all exits by turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from mexit_edge.regimes.losses import cross_entropies, weighted_mean
from mexit_edge.regimes.regime import ExitOutputs, Regime


@dataclass(frozen=True, kw_only=True)
class Alternating(Regime):
    """Odd steps: L = CE_E. Even steps: L = sum_e w_e CE_e. Steps count from 1.

    On odd steps the early heads have a gradient of zero: momentum and weight decay may move them still.
    Running losses, where the weights of exits follow them, take every step into account.

    Reference:
        Xin et al., "BERxiT: Early Exiting for BERT with Better Fine-Tuning and Extension to Regression",
        EACL 2021.
    """

    name = "alternating"
    min_exits: ClassVar[int] = 2

    def loss(self, outputs: ExitOutputs) -> Any:
        """See `Regime.loss`."""
        per_exit = cross_entropies(outputs.logits, outputs.y, self.label_smoothing)
        final_only = keras.ops.equal(outputs.step % 2, 0)
        final = weighted_mean(per_exit[:, -1], outputs.sample_weight)
        return keras.ops.where(final_only, final, self.weighted_sum(per_exit, outputs))
