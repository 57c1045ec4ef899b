"""Phases 2 and 3: everything, then the early heads once more."""

from __future__ import annotations

from dataclasses import dataclass

from mexit_edge.regimes.phase_regime import PhaseRegime
from mexit_edge.regimes.phases import heads_phase, joint_phase


@dataclass(frozen=True, kw_only=True)
class TwoThree(PhaseRegime):
    """Phase 2: min sum_e w_e CE_e over everything. Phase 3: over the early heads, the rest frozen.

    Reference:
        "Joint or Disjoint: Mixing Training Regimes for Early-Exit Models", arXiv 2407.14320.
    """

    name = "2-3"
    sequence = (joint_phase, heads_phase)
