"""Boosted exits: each exit corrects the sum of those before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from mexit_edge.models.running_sum import add_running_sums
from mexit_edge.regimes.regime import ExitOutputs, Regime, require_positive


@dataclass(frozen=True, kw_only=True)
class Boosted(Regime):
    """F_e = f_e + ratio * F_{e-1}; L = E sum_e w_e CE(f_e + ratio * sg[F_{e-1}], y), by default sum_e CE.

    The sum is part of the network, so that prediction, scores and exported stages have it: F_{e-1} crosses
    the boundary to the next stage.

    Args:
        ratio: factor of the sum before, r in the paper.
        gradient_equilibrium: see `Regime`; on by default, as in the paper.

    Raises:
        InputError: ``ratio`` is not positive.

    Reference:
        Yu et al., "Boosted Dynamic Neural Networks", arXiv 2211.16726.
    """

    name = "boosted"
    min_exits: ClassVar[int] = 2

    ratio: float = 0.5
    gradient_equilibrium: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("ratio", self.ratio)

    def prepare(self, network: keras.Model) -> keras.Model:
        """See `Regime.prepare`."""
        return add_running_sums(network, self.ratio)

    def loss(self, outputs: ExitOutputs) -> Any:
        """See `Regime.loss`."""
        return outputs.n_exits * super().loss(outputs)
