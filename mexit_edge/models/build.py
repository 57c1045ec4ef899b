"""Backbones by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from mexit_edge.errors import InputError, unknown_name
from mexit_edge.models.cnn import cnn
from mexit_edge.models.dscnn import dscnn
from mexit_edge.signals import Sensor

BACKBONES: dict[str, Callable[..., keras.Model]] = {"cnn": cnn, "dscnn": dscnn}


def build(backbone: str, sensor: Sensor, n_classes: int, **options: Any) -> keras.Model:
    """Build a multi-exit network by name.

    Args:
        backbone: a key of `BACKBONES`.
        sensor: gives the input's shape.
        n_classes: number of classes, at least 2.
        **options: of that backbone, see its function.

    Returns:
        A functional model with a dict of outputs ``exit_01``, ``exit_02``, ...

    Raises:
        InputError: no such backbone, or fewer than two classes.
    """
    if backbone not in BACKBONES:
        raise unknown_name("backbone", backbone, BACKBONES)
    if n_classes < 2:
        raise InputError(f"`n_classes` must be at least 2. Received: {n_classes}.")
    return BACKBONES[backbone](sensor, n_classes, **options)
