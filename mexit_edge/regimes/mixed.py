"""Mixed training: first the plain network, then everything."""

from __future__ import annotations

from dataclasses import dataclass

from mexit_edge.regimes.phase_regime import PhaseRegime
from mexit_edge.regimes.phases import backbone_phase, joint_phase


@dataclass(frozen=True, kw_only=True)
class Mixed(PhaseRegime):
    """Phase 1: min CE_E over backbone and final exit. Phase 2: min sum_e w_e CE_e over everything.

    Reference:
        "Joint or Disjoint: Mixing Training Regimes for Early-Exit Models", arXiv 2407.14320, phases 1 and 2.
    """

    name = "mixed"
    sequence = (backbone_phase, joint_phase)
