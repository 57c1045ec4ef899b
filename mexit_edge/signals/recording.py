"""One uninterrupted stretch of samples of one subject."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.signals.sensor import Sensor
from mexit_edge.signals.windows import refuse_non_finite


@dataclass(frozen=True, eq=False)
class Recording:
    """Samples in time order with a label for each.

    Args:
        x: (time, channels), float32 in the sensor's units.
        y: (time,), class index per sample, -1 where there is none.
        subject: whom it was recorded from.
        sensor: what was measured.
        name: a name for messages.

    Raises:
        InputError: shapes do not fit each other or the sensor, labels are no integers, or a sample is not
            finite.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    subject: int
    sensor: Sensor
    name: str = "recording"

    def __post_init__(self) -> None:
        if self.x.dtype.kind not in "iuf" or self.x.ndim != 2 or self.x.shape[1] != self.sensor.n_channels:
            raise InputError(
                f"`x` of {self.name} must be real numbers of shape (time, {self.sensor.n_channels}). "
                f"Received: {self.x.dtype} of shape {self.x.shape}."
            )
        if self.y.dtype.kind not in "iu" or self.y.shape != self.x.shape[:1]:
            raise InputError(
                f"`y` of {self.name} needs one integer label per sample ({len(self.x)}). "
                f"Received: {self.y.dtype} of shape {self.y.shape}."
            )
        refuse_non_finite(self.x, f"`x` of {self.name}")
