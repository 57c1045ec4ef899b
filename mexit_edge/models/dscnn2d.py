"""A depthwise-separable 2-D convolutional network for spectrograms, with an exit after every block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from mexit_edge.models.heads import with_exits
from mexit_edge.models.layers import Convolution, normalised_relu
from mexit_edge.signals import Sensor

# (channels, (kernel over frames, kernel over bins), stride of both) of the first convolution.
Stem = tuple[int, tuple[int, int], int]

STEM: Stem = (24, (10, 4), 2)
BLOCKS: tuple[tuple[Convolution, ...], ...] = (
    ((32, 3, 1),),
    ((48, 3, 1),),
    ((64, 3, 2), (64, 3, 1)),
)


def dscnn2d(
    sensor: Sensor,
    n_classes: int,
    *,
    stem: Stem = STEM,
    blocks: Sequence[Sequence[Convolution]] = BLOCKS,
    head: str = "both",
    cascade: bool = False,
    dropout: float = 0.3,
) -> keras.Model:
    """Build the network: one plain 2-D convolution, then blocks of separable ones, each with an exit.

    A window is an image of one channel: (time, channels) of the sensor are the frames and bins of a
    spectrogram. Windows of several sensor channels work too; the kernels then run over neighbouring channels.

    Args:
        sensor: gives the input's shape.
        n_classes: number of classes.
        stem: channels, kernel (over frames, over bins) and stride of the first convolution.
        blocks: per block its separable convolutions as (channels, kernel, stride), alike in both directions.
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
    return with_exits("dscnn2d", window, features, n_classes, head=head, cascade=cascade, dropout=dropout)


def _blocks(window: Any, stem: Stem, blocks: Sequence[Sequence[Convolution]]) -> Iterator[Any]:
    image = keras.layers.Reshape((*window.shape[1:], 1), name="image")(window)
    features = _convolution(image, *stem, "stem")
    for number, block in enumerate(blocks, start=1):
        for place, (channels, kernel, stride) in enumerate(block, start=1):
            name = f"block_{number:02d}_{place:02d}"
            depthwise = keras.layers.DepthwiseConv2D(
                kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise"
            )
            features = normalised_relu(depthwise(features), f"{name}_depthwise")
            features = _convolution(features, channels, (1, 1), 1, f"{name}_pointwise")
        yield features


def _convolution(features: Any, channels: int, kernel: tuple[int, int], stride: int, name: str) -> Any:
    layer = keras.layers.Conv2D(channels, kernel, strides=stride, padding="same", use_bias=False, name=name)
    return normalised_relu(layer(features), name)
