"""Which layers are what their class says, so that a form of them elsewhere computes the same."""

from __future__ import annotations

from typing import Any

from mexit_edge.models.join import SelectChannels
from mexit_edge.models.running_sum import RunningSum


def is_of_its_kind(layer: Any) -> bool:
    """Return whether a layer or operation is one of Keras itself, or of the two that networks have from here.

    A subclass of somebody's own may compute anything in its `call`, whatever it inherits from.
    """
    return type(layer).__module__.partition(".")[0] == "keras" or type(layer) in (RunningSum, SelectChannels)
