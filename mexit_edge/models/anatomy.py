"""Which layers of a multi-exit network belong to which block, and which to which head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from mexit_edge.models.heads import exit_names
from mexit_edge.models.running_sum import own_logits


@dataclass(frozen=True)
class Anatomy:
    """Layer names per block and head, exit 1 first.

    Block n is what exit n needs beyond the blocks before it and shares with a later exit; head n is what
    exit n alone needs. The final exit shares nothing with later ones: its head is its last layer with
    weights, its block the rest. A layer that a later exit needs too, such as a head whose logits are read on,
    belongs to a block.

    Args:
        exits: names of the exits.
        blocks: names of the layers per block.
        heads: names of the layers per head.
        plain: names of the layers of the plain network: those that the final exit needs.
    """

    exits: tuple[str, ...]
    blocks: tuple[tuple[str, ...], ...]
    heads: tuple[tuple[str, ...], ...]
    plain: tuple[str, ...]


def anatomy(network: keras.Model) -> Anatomy:
    """Tell blocks and heads of a network apart by which exits need which layers.

    Running sums of logits (`add_running_sums`) carry no gradient from exit to exit and count as part of
    their own head.

    Args:
        network: a functional model with outputs ``exit_01``, ...

    Raises:
        InputError: it is no such model.
    """
    exits = exit_names(network)
    needed = [_needed(network, own_logits(network, exit_)) for exit_ in exits]
    heads: list[tuple[str, ...]] = []
    for number, layers in enumerate(needed):
        elsewhere = {name for other, names in enumerate(needed) if other != number for name in names}
        alone = [name for name in layers if name not in elsewhere]
        if number == len(exits) - 1:
            alone = [name for name in _last_with_weights(network, layers) if name in alone]
        heads.append(tuple(alone))
    blocks: list[tuple[str, ...]] = []
    before: set[str] = set()
    for layers, head in zip(needed, heads, strict=True):
        block = tuple(name for name in layers if name not in head and name not in before)
        before.update(block)
        blocks.append(block)
    return Anatomy(exits, tuple(blocks), tuple(heads), plain=tuple(needed[-1]))


def _needed(network: keras.Model, logits: Any) -> list[str]:
    inputs = network.inputs
    return [
        layer.name
        for layer in keras.Model(inputs, logits).layers
        if not isinstance(layer, keras.layers.InputLayer)
    ]


def _last_with_weights(network: keras.Model, names: list[str]) -> list[str]:
    with_weights = [name for name in names if network.get_layer(name).weights]
    return with_weights[-1:]
