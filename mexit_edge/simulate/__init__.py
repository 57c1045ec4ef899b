"""Evaluate and calibrate a bundle on windows, executed on its int8 stages."""

import sys
from types import ModuleType
from typing import Any

from mexit_edge.bundle import Bundle
from mexit_edge.signals import Windows
from mexit_edge.simulate.brown_out import BrownOut
from mexit_edge.simulate.calibrate import budgeted_points, calibrate, judge, make_golden, with_policy
from mexit_edge.simulate.columns import Columns, Outcome, Reason
from mexit_edge.simulate.costs import DeviceCosts, PlayedEnergy, Supply
from mexit_edge.simulate.evaluate import quality_of, raw_windows, simulate
from mexit_edge.simulate.exit_costs import COSTS, ExitCosts, exit_costs
from mexit_edge.simulate.goals import (
    Budget,
    BudgetedShares,
    Floor,
    Given,
    Goal,
    LeastCost,
    OnlineBudget,
    Risk,
    Scoring,
)
from mexit_edge.simulate.oracle_gap import OracleGap, oracle_gap
from mexit_edge.simulate.out_of_fold import calibrate_out_of_fold
from mexit_edge.simulate.play import play
from mexit_edge.simulate.play_options import PlayOptions
from mexit_edge.simulate.playback import Playback, PlayedStream
from mexit_edge.simulate.playback_summary import Latencies, PlaybackSummary
from mexit_edge.simulate.scored import Judged
from mexit_edge.simulate.side_by_side import SideBySide, compare
from mexit_edge.simulate.simulation import Simulation
from mexit_edge.simulate.subjects import seen_subjects

__all__ = [
    "COSTS",
    "BrownOut",
    "Budget",
    "BudgetedShares",
    "Columns",
    "DeviceCosts",
    "ExitCosts",
    "Floor",
    "Given",
    "Goal",
    "Judged",
    "Latencies",
    "LeastCost",
    "OnlineBudget",
    "OracleGap",
    "Outcome",
    "PlayOptions",
    "Playback",
    "PlaybackSummary",
    "PlayedEnergy",
    "PlayedStream",
    "Reason",
    "Risk",
    "Scoring",
    "SideBySide",
    "Simulation",
    "Supply",
    "budgeted_points",
    "calibrate",
    "calibrate_out_of_fold",
    "compare",
    "exit_costs",
    "judge",
    "make_golden",
    "oracle_gap",
    "play",
    "quality_of",
    "raw_windows",
    "seen_subjects",
    "simulate",
    "with_policy",
]


class _CallableRoom(ModuleType):
    """Lets `mexit_edge.simulate(...)` be the function although the room of that name is loaded.

    Importing a submodule binds its name in the package, over any function of the same name.
    """

    def __call__(self, bundle: Bundle, windows: Windows, **options: Any) -> Simulation:
        return simulate(bundle, windows, **options)


sys.modules[__name__].__class__ = _CallableRoom
