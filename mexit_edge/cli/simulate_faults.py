"""`mexit simulate`: brown-outs as text, and what a device knows of the faults that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np

from mexit_edge.errors import InputError, unknown_name
from mexit_edge.signals import Fault, Health, Sensor
from mexit_edge.signals.faults import Saturated
from mexit_edge.signals.health import count_limits
from mexit_edge.simulate import BrownOut

_BROWN_OUT_OPTIONS = {"after": int, "boot_ms": float, "damaged": float}


def parse_brown_out(text: str, seed: int) -> BrownOut:
    """Return brown-outs given as SHARE or SHARE,NAME=VALUE,...

    Raises:
        InputError: the text is another, or a figure is out of its range.
    """
    share, *others = (part.strip() for part in text.split(","))
    options: dict[str, int | float] = {}
    try:
        number = float(share.removesuffix("%")) * (0.01 if share.endswith("%") else 1)
        for other in others:
            name, _, value = other.partition("=")
            if name.strip() not in _BROWN_OUT_OPTIONS:
                raise unknown_name("--brown-out", name.strip(), _BROWN_OUT_OPTIONS)
            options[name.strip()] = _BROWN_OUT_OPTIONS[name.strip()](value)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(
            "`--brown-out` must be SHARE or SHARE,NAME=VALUE,..., such as 0.01,after=1 or 1%,boot_ms=20. "
            f"Received: {text!r}."
        ) from error
    return BrownOut(share=number, seed=seed, **options)  # type: ignore[arg-type]


def health_of(faults: Sequence[Fault], sensor: Sensor) -> Health | None:
    """Return the checks of windows where a fault says at which value the sensor saturates.

    A device knows the range of its sensor, so windows that lie at a limit which a fault names are rejected
    like those at the limits of int16. None where no fault names one: the checks stay at their defaults.
    """
    named = [one for one in faults if isinstance(one, Saturated) and one.limit is not None]
    if not named:
        return None
    whole = np.full(sensor.n_channels, inf)
    low, high = count_limits(sensor) or (-whole, whole)
    limits = dict(zip(sensor.channels, zip(low.tolist(), high.tolist(), strict=True), strict=True))
    for one in named:
        for channel in sensor.channels if one.channel is None else (one.channel,):
            lowest, highest = limits.get(channel, (-inf, inf))
            limit = inf if one.limit is None else one.limit
            limits[channel] = (max(lowest, -limit), min(highest, limit))
    return Health(limits=tuple(limits[channel] for channel in sensor.channels))
