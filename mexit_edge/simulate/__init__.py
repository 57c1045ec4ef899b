"""Evaluate and calibrate a bundle on windows, executed on its int8 stages."""

import sys
from types import ModuleType
from typing import Any

from mexit_edge.bundle import Bundle
from mexit_edge.signals import Windows
from mexit_edge.simulate.calibrate import calibrate, make_golden
from mexit_edge.simulate.evaluate import quality_of, raw_windows, simulate
from mexit_edge.simulate.out_of_fold import calibrate_out_of_fold
from mexit_edge.simulate.simulation import Simulation
from mexit_edge.simulate.subjects import seen_subjects

__all__ = [
    "Simulation",
    "calibrate",
    "calibrate_out_of_fold",
    "make_golden",
    "quality_of",
    "raw_windows",
    "seen_subjects",
    "simulate",
]


class _CallableRoom(ModuleType):
    """Lets `mexit_edge.simulate(...)` be the function although the room of that name is loaded.

    Importing a submodule binds its name in the package, over any function of the same name.
    """

    def __call__(self, bundle: Bundle, windows: Windows, **options: Any) -> Simulation:
        return simulate(bundle, windows, **options)


sys.modules[__name__].__class__ = _CallableRoom
