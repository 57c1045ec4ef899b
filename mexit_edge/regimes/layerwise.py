"""Layerwise training: block by block, each with its head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mexit_edge.errors import InputError
from mexit_edge.regimes.exit_weights import UNIFORM
from mexit_edge.regimes.phases import Phase, block_phase
from mexit_edge.regimes.regime import Regime


@dataclass(frozen=True, kw_only=True)
class Layerwise(Regime):
    """Phase n: min over block n and head n of CE_n, the blocks before it frozen; one phase per exit.

    Later blocks are not run in a phase, so that it costs what its exit costs.

    Reference:
        Belilovsky et al., "Greedy Layerwise Learning Can Scale to ImageNet", arXiv 1812.11446.
    """

    name = "layerwise"
    min_exits: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exit_weights != UNIFORM:
            raise InputError(
                "`exit_weights` must be left out for the regime `layerwise`: every phase has one exit. "
                f"Received: {self.exit_weights}."
            )

    def phases(self, n_exits: int) -> tuple[Phase, ...]:
        """See `Regime.phases`."""
        return tuple(block_phase(number) for number in range(1, n_exits + 1))
