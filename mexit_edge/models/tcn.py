"""A temporal convolutional network: residual units of dilated convolutions, an exit after every block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from mexit_edge.models.heads import with_exits
from mexit_edge.models.layers import Convolution, convolution, residual
from mexit_edge.signals import Sensor

STEM: Convolution = (24, 7, 2)
BLOCKS: tuple[tuple[int, ...], ...] = ((24,), (24,), (24, 24))


def tcn(
    sensor: Sensor,
    n_classes: int,
    *,
    stem: Convolution = STEM,
    blocks: Sequence[Sequence[int]] = BLOCKS,
    kernel: int = 3,
    causal: bool = False,
    head: str = "both",
    cascade: bool = False,
    dropout: float = 0.3,
) -> keras.Model:
    """Build the network: one strided convolution, then blocks of dilated residual units, each with an exit.

    The dilation doubles from unit to unit: 1, 2, 4, ... Unlike the paper's, the units are batch-normalised,
    which folds into int8, and a strided convolution before them shortens the window.

    Args:
        sensor: gives the input's shape.
        n_classes: number of classes.
        stem: channels, kernel and stride of the first convolution.
        blocks: per block the channels of its residual units, two convolutions each.
        kernel: taps of every dilated convolution.
        causal: whether each feature reads only samples up to its own time, so that it is final once these
            have come. Costs one operator more per convolution. The heads pool over the whole window all the
            same.
        head: kind of the heads, see `mexit_edge.models.heads.make_head`.
        cascade: whether every head after the first also reads the logits of the exit before.
        dropout: rate in the heads.

    Returns:
        A functional model with input "window" (batch, time, channels) and outputs ``exit_01``, ...

    Raises:
        InputError: no such kind of head.

    Reference:
        Bai et al., "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence
        Modeling", arXiv 1803.01271.
    """
    window = keras.Input(sensor.shape, name="window")
    features = _blocks(window, stem, blocks, kernel, "causal" if causal else "same")
    return with_exits("tcn", window, features, n_classes, head=head, cascade=cascade, dropout=dropout)


def _blocks(
    window: Any, stem: Convolution, blocks: Sequence[Sequence[int]], kernel: int, padding: str
) -> Iterator[Any]:
    features = convolution(window, stem, "stem", padding=padding)
    dilation = 1
    for number, block in enumerate(blocks, start=1):
        for place, channels in enumerate(block, start=1):
            name = f"block_{number:02d}_{place:02d}"
            features = residual(features, (channels, kernel, 1), name, dilation=dilation, padding=padding)
            dilation *= 2
        yield features
