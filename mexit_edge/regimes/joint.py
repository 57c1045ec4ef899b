"""Joint training: every exit and the backbone at once."""

from __future__ import annotations

from dataclasses import dataclass

from mexit_edge.regimes.regime import Regime


@dataclass(frozen=True, kw_only=True)
class Joint(Regime):
    """L = sum_e w_e CE_e over backbone and heads; with uniform weights the mean over the exits.

    Reference:
        "Joint or Disjoint: Mixing Training Regimes for Early-Exit Models", arXiv 2407.14320, phase 2.
    """

    name = "joint"
