"""Why a regime does what it does: gradients, ways between networks, landscapes, rank, information.

Each function takes a trained multi-exit network and windows, and returns a frozen dataclass of arrays, whose
`rows` are a tidy table; `mexit_edge.report` draws it.
"""

from mexit_edge.analysis.connectivity import Connectivity, Line, Plane, mode_connectivity
from mexit_edge.analysis.gradients import GradientDominance, gradient_dominance
from mexit_edge.analysis.information import InformationFlow, information_flow
from mexit_edge.analysis.ksg import ksg
from mexit_edge.analysis.landscape import LossLandscape, loss_landscape
from mexit_edge.analysis.probes import ProbeBound
from mexit_edge.analysis.rank import NumericalRank, numerical_rank
from mexit_edge.analysis.window_information import Channel, Repeated

__all__ = [
    "Channel",
    "Connectivity",
    "GradientDominance",
    "InformationFlow",
    "Line",
    "LossLandscape",
    "NumericalRank",
    "Plane",
    "ProbeBound",
    "Repeated",
    "gradient_dominance",
    "information_flow",
    "ksg",
    "loss_landscape",
    "mode_connectivity",
    "numerical_rank",
]
