"""What a fault is: a small object that turns a stream into a faulty one, the same at each run.

What chance decides hangs on the seed, the fault's name, how many faults of that name came before it, the
stream's name and the counter of the sample alone: neither the size of the chunks nor a fault of another name
changes which samples are hit.
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
    def __call__(self, stream: Stream, place: int = 0) -> Stream:
        """Return the faulty stream; the given one stays as it is.

        Args:
            stream: what is made faulty.
            place: how many faults of this name the stream has already, so that a second one hits others.

        Raises:
            InputError: the stream has no such channel, triad or limit.
        """

    def key(self, stream: Stream, place: int) -> str:
        """Return what sets this draw apart: streams of two names are hit at other samples."""
        return f"{self.name} {place} {stream.name}"


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


def drawn(key: str, share: float, seed: int, event: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which events of a stream chance picks.

    Args:
        key: of the draw, from `Fault.key`.
        share: of the events, from 0 to 1.
        seed: of the draw.
        event: (m,) their numbers in the stream.
    """
    number_of_key = crc32(key.encode())
    block = event // _DRAWS
    hit = np.zeros(len(event), np.bool_)
    for number in np.unique(block).tolist():
        inside = block == number
        hit[inside] = _draws(seed, number_of_key, number)[event[inside] % _DRAWS] < share
    return hit


@lru_cache(maxsize=16)
def _draws(seed: int, key: int, number: int) -> NDArray[np.float64]:
    return np.random.default_rng([seed, key, number]).random(_DRAWS)
