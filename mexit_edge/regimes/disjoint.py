"""Disjoint training: first the plain network, then the early heads on it."""

from __future__ import annotations

from dataclasses import dataclass

from mexit_edge.regimes.phase_regime import PhaseRegime
from mexit_edge.regimes.phases import backbone_phase, heads_phase


@dataclass(frozen=True, kw_only=True)
class Disjoint(PhaseRegime):
    """Phase 1: min CE_E over backbone and final exit. Phase 3: min sum_e w_e CE_e over the early heads.

    In phase 3 everything else is frozen.

    Reference:
        "Joint or Disjoint: Mixing Training Regimes for Early-Exit Models", arXiv 2407.14320, phases 1 and 3.
    """

    name = "disjoint"
    sequence = (backbone_phase, heads_phase)
