"""Training regimes for multi-exit networks, in plain Keras `fit`."""

from mexit_edge.regimes.joint import Joint
from mexit_edge.regimes.model import MultiExitModel
from mexit_edge.regimes.recipe import adamw_cosine, restore_best_epoch
from mexit_edge.regimes.regime import REGIMES, Regime, make_regime

__all__ = [
    "REGIMES",
    "Joint",
    "MultiExitModel",
    "Regime",
    "adamw_cosine",
    "make_regime",
    "restore_best_epoch",
]
