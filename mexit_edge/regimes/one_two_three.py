"""Phases 1, 2 and 3: the plain network, everything, the early heads once more."""

from __future__ import annotations

from dataclasses import dataclass

from mexit_edge.regimes.phase_regime import PhaseRegime
from mexit_edge.regimes.phases import backbone_phase, heads_phase, joint_phase


@dataclass(frozen=True, kw_only=True)
class OneTwoThree(PhaseRegime):
    """Phase 1: min CE_E over the plain network. Phase 2: min sum_e w_e CE_e over everything. Phase 3: heads.

    In phase 3 the loss of phase 2 is minimised over the early heads, everything else frozen.

    Reference:
        "Joint or Disjoint: Mixing Training Regimes for Early-Exit Models", arXiv 2407.14320.
    """

    name = "1-2-3"
    sequence = (backbone_phase, joint_phase, heads_phase)
