"""The probe set: small int8 models to time on a board of one's own, so that `fit_device` can tell its terms.

Each one but the last spends most of its time in one term of the latency model (`terms`); the last is a
network as one meets it, with all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mexit_edge.estimate.own_board.probe_builder import ProbeBuilder

ARENA_BYTES = 40 * 1024  # enough for each of them, with any kernels


@dataclass(frozen=True)
class Probe:
    """A model of the probe set.

    Args:
        name: of its files, and a name in C.
        purpose: what it shows.
        content: the .tflite.
    """

    name: str
    purpose: str
    content: bytes


def probes() -> tuple[Probe, ...]:
    """Make the probe set: eight int8 models, 160 kB together, the same at every call."""
    return tuple(
        Probe(f"probe_{number:02d}_{make.__name__}", " ".join((make.__doc__ or "").split()), make(number))
        for number, make in enumerate(_MAKERS, start=1)
    )


def long_sums(seed: int) -> bytes:
    """Show what a multiply-accumulate of a convolution costs, 432 of them per output."""
    model = ProbeBuilder((1, 10, 10, 48), seed)
    return model.content(model.convolution(model.window, 16, (3, 3)))


def short_sums(seed: int) -> bytes:
    """Show what an output costs: a convolution of one channel, 9 multiply-accumulates per output."""
    model = ProbeBuilder((1, 24, 24, 1), seed)
    return model.content(model.convolution(model.window, 8, (3, 3)))


def pointwise(seed: int) -> bytes:
    """Show 1x1 convolutions, 192 multiply-accumulates per output."""
    model = ProbeBuilder((1, 8, 8, 192), seed)
    return model.content(model.convolution(model.window, 32, (1, 1)))


def depthwise(seed: int) -> bytes:
    """Show depthwise convolutions, 3x3 as on images and 1x9 as on sequences."""
    model = ProbeBuilder((1, 16, 16, 32), seed)
    return model.content(model.depthwise(model.depthwise(model.window, (3, 3)), (1, 9)))


def dense(seed: int) -> bytes:
    """Show fully connected layers, whose 112,000 weights are read from flash once each."""
    model = ProbeBuilder((1, 640), seed)
    return model.content(model.dense(model.dense(model.window, 160), 64))


def operators(seed: int) -> bytes:
    """Show what an operator costs by itself: 42 of them, on four values."""
    model = ProbeBuilder((1, 1, 1, 4), seed)
    last = model.window
    for _ in range(6):
        sums = model.depthwise(model.convolution(last, 4, (1, 1)), (1, 1))
        highest = model.pool(model.add(sums, last), "MAX_POOL_2D", (1, 1))
        last = model.reshape(model.dense(model.reshape(highest, (1, 4)), 4), (1, 1, 1, 4))
    return model.content(last)


def elements(seed: int) -> bytes:
    """Show operators without multiply-accumulates: sums of two tensors, poolings, a mean."""
    model = ProbeBuilder((1, 16, 16, 16), seed)
    last = model.pool(model.window, "MAX_POOL_2D", (2, 2))
    for _ in range(3):
        last = model.add(last, model.window)
    return model.content(model.mean(model.pool(last, "AVERAGE_POOL_2D", (3, 3), 2)))


def network(seed: int) -> bytes:
    """Show a network for 128 samples of 6 channels: separable convolutions, a residual, a mean, a head."""
    model = ProbeBuilder((1, 1, 128, 6), seed)
    first = model.convolution(model.window, 16, (1, 5), 2)
    second = model.add(first, model.convolution(model.depthwise(first, (1, 5)), 16, (1, 1)))
    third = model.pool(second, "MAX_POOL_2D", (1, 2), 2)
    fourth = model.convolution(model.depthwise(third, (1, 5)), 32, (1, 1))
    return model.content(model.dense(model.mean(model.convolution(fourth, 32, (1, 3))), 8))


_MAKERS: tuple[Callable[[int], bytes], ...] = (
    long_sums,
    short_sums,
    pointwise,
    depthwise,
    dense,
    operators,
    elements,
    network,
)
