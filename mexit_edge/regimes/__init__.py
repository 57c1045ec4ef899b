"""Training regimes for multi-exit networks, in plain Keras `fit`."""

from mexit_edge.regimes.alternating import Alternating
from mexit_edge.regimes.boosted import Boosted
from mexit_edge.regimes.consistency import Consistency
from mexit_edge.regimes.cost import PhaseCost
from mexit_edge.regimes.cross_fit import OutOfFold, StopAfterEpoch, cross_fit
from mexit_edge.regimes.disjoint import Disjoint
from mexit_edge.regimes.distill import Distill
from mexit_edge.regimes.early_stopping import MultiExitEarlyStopping
from mexit_edge.regimes.joint import Joint
from mexit_edge.regimes.layerwise import Layerwise
from mexit_edge.regimes.mixed import Mixed
from mexit_edge.regimes.model import MultiExitModel
from mexit_edge.regimes.one_two_three import OneTwoThree
from mexit_edge.regimes.phases import Phase
from mexit_edge.regimes.recipe import Recipe, adamw_cosine
from mexit_edge.regimes.regime import REGIMES, Regime, make_regime
from mexit_edge.regimes.two_three import TwoThree
from mexit_edge.regimes.weighted import Weighted

__all__ = [
    "REGIMES",
    "Alternating",
    "Boosted",
    "Consistency",
    "Disjoint",
    "Distill",
    "Joint",
    "Layerwise",
    "Mixed",
    "MultiExitEarlyStopping",
    "MultiExitModel",
    "OneTwoThree",
    "OutOfFold",
    "Phase",
    "PhaseCost",
    "Recipe",
    "Regime",
    "StopAfterEpoch",
    "TwoThree",
    "Weighted",
    "adamw_cosine",
    "cross_fit",
    "make_regime",
]
