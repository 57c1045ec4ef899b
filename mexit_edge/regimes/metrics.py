"""Means over what was seen."""

from __future__ import annotations

from typing import Any

import keras


class SeenMean(keras.metrics.Mean):
    """A mean that is NaN where nothing was seen: exits that a phase does not run have no training figures."""

    def result(self) -> Any:
        """Return the mean, NaN of nothing."""
        return self.total / keras.ops.cast(self.count, self.dtype)
