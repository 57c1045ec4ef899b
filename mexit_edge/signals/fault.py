"""What a fault is: a small object that turns a stream into a faulty one, the same at each run.

What chance decides hangs on the seed, the fault, the stream's name and the counter of the sample alone:
neither the size of the chunks nor another fault before it changes which samples are hit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError, unknown_name
from mexit_edge.signals.sensor import Sensor
from mexit_edge.signals.stream import Stream

FAULTS: dict[str, type[Fault]] = {}
# Numbers drawn at once.
_DRAWS = 4096


@dataclass(frozen=True)
class Fault(ABC):
    """What turns a stream into a faulty one; its first field is what `parse_fault` reads behind the name."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, stream: Stream) -> Stream:
        """Return the faulty stream; the given one stays as it is.

        Raises:
            InputError: the stream has no such channel, triad or limit.
        """


FaultClass = TypeVar("FaultClass", bound=type[Fault])


def register(fault: FaultClass) -> FaultClass:
    """Enter a fault into `FAULTS`."""
    FAULTS[fault.name] = fault
    return fault


def refuse_draw(share: float, seed: int) -> None:
    """Refuse what chance cannot draw.

    Raises:
        InputError: the share is not from 0 to 1, or the seed is negative.
    """
    if not 0 <= share <= 1:
        raise InputError(f"`share` must be from 0 to 1. Received: {share}. 0.02 is 2 %.")
    if seed < 0:
        raise InputError(f"`seed` must be at least 0. Received: {seed}.")


def channel_of(name: str, sensor: Sensor) -> int:
    """Return the index of a channel.

    Raises:
        InputError: the sensor has no such channel.
    """
    if name not in sensor.channels:
        raise unknown_name("channel", name, sensor.channels)
    return sensor.channels.index(name)


def drawn(name: str, share: float, seed: int, stream: Stream, event: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which events of a stream chance picks.

    Args:
        name: of the fault.
        share: of the events, from 0 to 1.
        seed: of the draw.
        stream: its name goes into the draw: no two streams are hit at the same places.
        event: (m,) their numbers in the stream.
    """
    key = crc32(f"{name} {stream.name}".encode())
    block = event // _DRAWS
    hit = np.zeros(len(event), np.bool_)
    for number in np.unique(block).tolist():
        inside = block == number
        hit[inside] = _draws(seed, key, number)[event[inside] % _DRAWS] < share
    return hit


@lru_cache(maxsize=16)
def _draws(seed: int, key: int, number: int) -> NDArray[np.float64]:
    return np.random.default_rng([seed, key, number]).random(_DRAWS)
