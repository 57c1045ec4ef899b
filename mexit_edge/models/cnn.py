"""A plain 1-D convolutional network with an exit after every block."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from mexit_edge.errors import InputError
from mexit_edge.models.heads import exit_name, pooled_head
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
    dropout: float = 0.3,
) -> keras.Model:
    """Build the network: blocks of convolutions, each followed by an exit.

    At 128 samples of 6 channels and 6 classes: 43 k parameters; 105 k, 310 k and 778 k multiply-accumulates
    up to exit 1, 2 and 3.

    Args:
        sensor: gives the input's shape.
        n_classes: number of classes.
        width: multiplies the channels of every convolution.
        blocks: per block its convolutions as (channels, kernel, stride).
        dropout: rate in the heads.

    Returns:
        A functional model with input "window" (batch, time, channels) and outputs ``exit_01``, ...

    Raises:
        InputError: ``width`` is not positive.
    """
    if not width > 0:
        raise InputError(f"`width` must be positive. Received: {width}.")
    features = window = keras.Input(sensor.shape, name="window")
    outputs = {}
    for number, block in enumerate(blocks, start=1):
        for place, (channels, kernel, stride) in enumerate(block, start=1):
            spec = (max(1, round(width * channels)), kernel, stride)
            features = convolution(features, spec, f"block_{number:02d}_{place:02d}")
        name = exit_name(number)
        outputs[name] = pooled_head(features, n_classes, name, dropout)
    return keras.Model(window, outputs, name="cnn")
