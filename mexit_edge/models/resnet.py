"""A residual 1-D convolutional network with an exit after every block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from mexit_edge.models.heads import with_exits
from mexit_edge.models.layers import Convolution, convolution, residual
from mexit_edge.signals import Sensor

STEM: Convolution = (16, 7, 2)
BLOCKS: tuple[tuple[Convolution, ...], ...] = (
    ((16, 5, 1),),
    ((32, 5, 2),),
    ((48, 3, 2), (48, 3, 1)),
)


def resnet(
    sensor: Sensor,
    n_classes: int,
    *,
    stem: Convolution = STEM,
    blocks: Sequence[Sequence[Convolution]] = BLOCKS,
    head: str = "both",
    cascade: bool = False,
    dropout: float = 0.3,
) -> keras.Model:
    """Build the network: one plain convolution, then blocks of residual units, each with an exit.

    ReLU comes after the sum, not before the convolutions: in this order each convolution takes its batch
    normalisation with it into int8.

    Args:
        sensor: gives the input's shape.
        n_classes: number of classes.
        stem: channels, kernel and stride of the first convolution.
        blocks: per block its residual units, two convolutions each, as (channels, kernel, stride).
        head: kind of the heads, see `mexit_edge.models.heads.make_head`.
        cascade: whether every head after the first also reads the logits of the exit before.
        dropout: rate in the heads.

    Returns:
        A functional model with input "window" (batch, time, channels) and outputs ``exit_01``, ...

    Raises:
        InputError: no such kind of head.

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385; in one dimension: Wang et
        al., "Time Series Classification from Scratch with Deep Neural Networks", arXiv 1611.06455.
    """
    window = keras.Input(sensor.shape, name="window")
    features = _blocks(window, stem, blocks)
    return with_exits("resnet", window, features, n_classes, head=head, cascade=cascade, dropout=dropout)


def _blocks(window: Any, stem: Convolution, blocks: Sequence[Sequence[Convolution]]) -> Iterator[Any]:
    features = convolution(window, stem, "stem")
    for number, block in enumerate(blocks, start=1):
        for place, spec in enumerate(block, start=1):
            features = residual(features, spec, f"block_{number:02d}_{place:02d}")
        yield features
