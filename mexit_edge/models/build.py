"""Backbones by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras

from mexit_edge.errors import unknown_name
from mexit_edge.models.cnn import cnn
from mexit_edge.models.dscnn import dscnn
from mexit_edge.models.dscnn2d import dscnn2d
from mexit_edge.models.msdnet import msdnet
from mexit_edge.models.options import check_n_classes, check_options
from mexit_edge.models.presets import PRESETS
from mexit_edge.models.resnet import resnet
from mexit_edge.models.tcn import tcn
from mexit_edge.signals import Sensor

BACKBONES: dict[str, Callable[..., keras.Model]] = {
    "cnn": cnn,
    "dscnn": dscnn,
    "dscnn2d": dscnn2d,
    "msdnet": msdnet,
    "resnet": resnet,
    "tcn": tcn,
}


def build(
    backbone: str, sensor: Sensor, n_classes: int, *, preset: str = "medium", **options: Any
) -> keras.Model:
    """Build a multi-exit network by name.

    Args:
        backbone: a key of `BACKBONES`.
        sensor: gives the input's shape.
        n_classes: number of classes, at least 2.
        preset: ``"tiny"``, ``"small"`` or ``"medium"``; `mexit models` prints what each costs.
        **options: of that backbone, see its function; they override the preset's.

    Returns:
        A functional model with a dict of outputs ``exit_01``, ``exit_02``, ...

    Raises:
        InputError: no such backbone, preset or option, fewer than two classes, or an option that is no size
            of its kind.
    """
    check_backbone(backbone, preset, options)
    check_n_classes(n_classes)
    return BACKBONES[backbone](sensor, n_classes, **{**PRESETS[backbone][preset], **options})


def check_backbone(backbone: str, preset: str, options: dict[str, Any]) -> None:
    """Refuse what `build` cannot build, whatever the sensor.

    Raises:
        InputError: no such backbone, preset or option, or an option that is no size of its kind.
    """
    check_preset(backbone, preset)
    parameters = inspect.signature(BACKBONES[backbone]).parameters
    known = [name for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise unknown_name("options", name, known)
    check_options(backbone, options)


def check_preset(backbone: str, preset: str) -> None:
    """Refuse names that `build` does not know.

    Raises:
        InputError: no such backbone or preset; the known ones are listed.
    """
    if backbone not in BACKBONES:
        raise unknown_name("backbone", backbone, BACKBONES)
    if preset not in PRESETS[backbone]:
        raise unknown_name("preset", preset, PRESETS[backbone])
