"""A depthwise-separable 1-D convolutional network with an exit after every block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from mexit_edge.models.heads import with_exits
from mexit_edge.models.layers import Convolution, convolution, normalised_relu
from mexit_edge.signals import Sensor

STEM: Convolution = (16, 7, 2)
BLOCKS: tuple[tuple[Convolution, ...], ...] = (
    ((32, 7, 2),),
    ((48, 7, 1), (64, 5, 2)),
    ((96, 5, 1), (128, 5, 1), (128, 5, 1)),
)


def dscnn(
    sensor: Sensor,
    n_classes: int,
    *,
    stem: Convolution = STEM,
    blocks: Sequence[Sequence[Convolution]] = BLOCKS,
    head: str = "both",
    cascade: bool = False,
    dropout: float = 0.3,
) -> keras.Model:
    """Build the network: one plain convolution, then blocks of separable ones, each with an exit.

    Args:
        sensor: gives the input's shape.
        n_classes: number of classes.
        stem: channels, kernel and stride of the first convolution.
        blocks: per block its separable convolutions as (channels, kernel, stride).
        head: kind of the heads, see `mexit_edge.models.heads.make_head`.
        cascade: whether every head after the first also reads the logits of the exit before.
        dropout: rate in the heads.

    Returns:
        A functional model with input "window" (batch, time, channels) and outputs ``exit_01``, ...

    Raises:
        InputError: no such kind of head.

    Reference:
        Zhang et al., "Hello Edge: Keyword Spotting on Microcontrollers", arXiv 1711.07128 (DS-CNN).
    """
    window = keras.Input(sensor.shape, name="window")
    features = _blocks(window, stem, blocks)
    return with_exits("dscnn", window, features, n_classes, head=head, cascade=cascade, dropout=dropout)


def _blocks(window: Any, stem: Convolution, blocks: Sequence[Sequence[Convolution]]) -> Iterator[Any]:
    features = convolution(window, stem, "stem")
    for number, block in enumerate(blocks, start=1):
        for place, spec in enumerate(block, start=1):
            features = _separable(features, spec, f"block_{number:02d}_{place:02d}")
        yield features


def _separable(features: Any, spec: Convolution, name: str) -> Any:
    channels, kernel, stride = spec
    layers = keras.layers
    features = layers.DepthwiseConv1D(
        kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise"
    )(features)
    features = normalised_relu(features, f"{name}_depthwise")
    return convolution(features, (channels, 1, 1), f"{name}_pointwise")
