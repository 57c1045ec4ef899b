"""A multi-scale dense network in one dimension, with exits on the coarsest scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from mexit_edge.models.heads import with_exits
from mexit_edge.models.layers import Convolution, convolution
from mexit_edge.signals import Sensor

STEM: Convolution = (8, 7, 2)
BLOCKS: tuple[int, ...] = (2, 2, 2)


def msdnet(
    sensor: Sensor,
    n_classes: int,
    *,
    stem: Convolution = STEM,
    scales: int = 3,
    growth: int = 8,
    kernel: int = 3,
    blocks: Sequence[int] = BLOCKS,
    head: str = "both",
    cascade: bool = False,
    dropout: float = 0.3,
) -> keras.Model:
    """Build the network: several scales side by side, densely connected, with exits on the coarsest.

    Every layer adds channels to each scale, made from all earlier channels of that scale and, by a strided
    convolution, of the finer one. The coarsest scale is there from the first layer on, so that an early exit
    reads features as coarse as a late one. What no exit needs is not built: near the end, finer scales stop.
    The bottleneck convolutions of the paper are left out.

    Args:
        sensor: gives the input's shape.
        n_classes: number of classes.
        stem: channels, kernel and stride of the convolution that makes the finest scale; each coarser one
            has twice the channels at half the length.
        scales: number of scales.
        growth: channels that a layer adds to the finest scale; twice as many to each coarser one.
        kernel: taps of every convolution after the stem.
        blocks: number of layers before each exit.
        head: kind of the heads, see `mexit_edge.models.heads.make_head`.
        cascade: whether every head after the first also reads the logits of the exit before.
        dropout: rate in the heads.

    Returns:
        A functional model with input "window" (batch, time, channels) and outputs ``exit_01``, ...

    Raises:
        InputError: no such kind of head.

    Reference:
        Huang et al., "Multi-Scale Dense Networks for Resource Efficient Image Classification",
        arXiv 1703.09844.
    """
    window = keras.Input(sensor.shape, name="window")
    features = _blocks(window, stem, scales, growth, kernel, blocks)
    return with_exits("msdnet", window, features, n_classes, head=head, cascade=cascade, dropout=dropout)


def _blocks(
    window: Any, stem: Convolution, scales: int, growth: int, kernel: int, blocks: Sequence[int]
) -> Iterator[Any]:
    finest = convolution(window, stem, "stem_01")
    # Scale -> features, finest first.
    features = {1: finest}
    for scale in range(2, scales + 1):
        spec = (stem[0] * 2 ** (scale - 1), kernel, 2)
        features[scale] = convolution(features[scale - 1], spec, f"stem_{scale:02d}")
    left = sum(blocks)
    for number, n_layers in enumerate(blocks, start=1):
        for place in range(1, n_layers + 1):
            left -= 1
            # A layer's features reach the next coarser scale one layer later.
            needed = range(max(1, scales - left), scales + 1)
            name = f"block_{number:02d}_{place:02d}"
            features = {
                scale: _grown(features, scale, growth * 2 ** (scale - 1), kernel, f"{name}_scale_{scale:02d}")
                for scale in needed
            }
        yield features[scales]


def _grown(features: dict[int, Any], scale: int, growth: int, kernel: int, name: str) -> Any:
    """Return a scale's features with the channels that one layer adds to them."""
    own = features[scale]
    if scale == 1:
        added = [convolution(own, (growth, kernel, 1), f"{name}_same")]
    else:
        finer = (growth // 2, kernel, 2)
        added = [
            convolution(own, (growth - growth // 2, kernel, 1), f"{name}_same"),
            convolution(features[scale - 1], finer, f"{name}_finer"),
        ]
    return keras.layers.Concatenate(name=f"{name}_dense")([own, *added])
