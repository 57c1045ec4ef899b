"""A plain 1-D convolutional network with an exit after every block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from mexit_edge.models.heads import with_exits
from mexit_edge.models.layers import Convolution, convolution
from mexit_edge.signals import Sensor

BLOCKS: tuple[tuple[Convolution, ...], ...] = (
    ((16, 7, 2), (24, 5, 2)),
    ((32, 5, 1), (32, 5, 2)),
    ((48, 5, 1), (64, 3, 1), (64, 3, 1)),
)


def cnn(
    sensor: Sensor,
    n_classes: int,
    *,
    width: float = 1.0,
    blocks: Sequence[Sequence[Convolution]] = BLOCKS,
    head: str = "both",
    cascade: bool = False,
    dropout: float = 0.3,
) -> keras.Model:
    """Build the network: blocks of convolutions, each followed by an exit.

    Args:
        sensor: gives the input's shape.
        n_classes: number of classes.
        width: multiplies the channels of every convolution.
        blocks: per block its convolutions as (channels, kernel, stride).
        head: kind of the heads, see `mexit_edge.models.heads.make_head`.
        cascade: whether every head after the first also reads the logits of the exit before.
        dropout: rate in the heads.

    Returns:
        A functional model with input "window" (batch, time, channels) and outputs ``exit_01``, ...

    Raises:
        InputError: no such kind of head.
    """
    window = keras.Input(sensor.shape, name="window")
    features = _blocks(window, blocks, width)
    return with_exits("cnn", window, features, n_classes, head=head, cascade=cascade, dropout=dropout)


def _blocks(features: Any, blocks: Sequence[Sequence[Convolution]], width: float) -> Iterator[Any]:
    for number, block in enumerate(blocks, start=1):
        for place, (channels, kernel, stride) in enumerate(block, start=1):
            spec = (max(1, round(width * channels)), kernel, stride)
            features = convolution(features, spec, f"block_{number:02d}_{place:02d}")
        yield features
