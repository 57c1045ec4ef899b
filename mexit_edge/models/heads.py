"""Heads: what turns a feature map into logits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from mexit_edge.errors import InputError, unknown_name
from mexit_edge.models.layers import normalised_relu

HEADS = ("average", "maximum", "both", "convolutional")


def exit_name(number: int) -> str:
    """Return the name of exit ``number``, from 1; zero-padded because TFLite sorts names."""
    return f"exit_{number:02d}"


def exit_names(network: Any, argument: str = "network") -> tuple[str, ...]:
    """Return the names of a network's exits, in order, after checking that they are what we need.

    Args:
        network: a functional model with a dict of logits ``exit_01``, ``exit_02``, ... as outputs.
        argument: name of the argument that carried it, for the message.

    Raises:
        InputError: it is no such model, or its exits have different numbers of logits.
    """
    output: Any = getattr(network, "output", None) if getattr(network, "inputs", None) else None
    names = tuple(output) if isinstance(output, dict) else ()
    expected = tuple(exit_name(number) for number in range(1, len(names) + 1))
    if not names or tuple(sorted(names)) != expected:
        raise InputError(
            f"`{argument}` must be a functional Keras model with a dict of outputs exit_01, exit_02, ... "
            f"Received: {type(network).__name__} with outputs {', '.join(names) or 'without names'}. "
            "Use `attach_exits` to give a model exits."
        )
    sizes = [output[name].shape[-1] for name in expected]
    if len(set(sizes)) != 1:
        raise InputError(
            f"`{argument}` must give the same number of logits at every exit. Received: {sizes}. "
            "Build the heads for one number of classes."
        )
    return expected


def make_head(
    features: Any,
    n_classes: int,
    name: str,
    *,
    kind: str = "both",
    dropout: float = 0.3,
    previous: Any | None = None,
) -> Any:
    """Return the logits of a head: pooling over all positions, dropout and a dense layer.

    Features of rank 2 have no positions: every kind of head takes them as they are.

    Args:
        features: a Keras tensor (batch, time, channels), (batch, height, width, channels) or
            (batch, features).
        n_classes: number of logits.
        name: of the output; every layer's name starts with it.
        kind: one of `HEADS`: the average of each channel, its maximum, both side by side, or both behind a
            convolution of stride 2 with batch normalisation and ReLU.
        dropout: rate on the pooled features.
        previous: logits (batch, classes) of the exit before, which the dense layer of a cascaded head reads
            beside the pooled features; None for a head that stands alone.

    Raises:
        InputError: the kind is unknown, or the tensor has another rank.

    Reference:
        Cascaded heads: Wolczyk et al., "Zero Time Waste: Recycling Predictions in Early Exit Neural
        Networks", arXiv 2106.05409.
    """
    if kind not in HEADS:
        raise unknown_name("head", kind, HEADS)
    rank = len(features.shape)
    if rank not in (2, 3, 4):
        raise InputError(
            f"`features` must be of rank 2 to 4. Received: {features.name} of shape {features.shape}. "
            "Place the exit on another layer."
        )
    layers = keras.layers
    pooled = features if rank == 2 else _pooled(features, name, kind)
    if dropout:
        pooled = layers.Dropout(dropout, name=f"{name}_dropout")(pooled)
    if previous is not None:
        pooled = layers.Concatenate(name=f"{name}_cascaded")([pooled, previous])
    return layers.Dense(n_classes, name=name)(pooled)


def with_exits(
    name: str,
    window: Any,
    blocks: Iterable[Any],
    n_classes: int,
    *,
    head: str,
    cascade: bool,
    dropout: float,
) -> keras.Model:
    """Return a network with an exit after every block.

    Args:
        name: of the network.
        window: its input.
        blocks: the features after every block. A generator makes block, head, block, head: in that order
            layers draw their initial weights, which a seed thereby fixes.
        n_classes: number of logits per exit.
        head: kind of the heads, see `make_head`.
        cascade: whether every head after the first also reads the logits of the exit before.
        dropout: rate in the heads.

    Raises:
        InputError: there is no block, or no such kind of head.
    """
    outputs: dict[str, Any] = {}
    previous = None
    for number, features in enumerate(blocks, start=1):
        exit_ = exit_name(number)
        before = previous if cascade else None
        previous = make_head(features, n_classes, exit_, kind=head, dropout=dropout, previous=before)
        outputs[exit_] = previous
    if not outputs:
        raise InputError("`blocks` needs at least one block. Received: none.")
    return keras.Model(window, outputs, name=name)


def _pooled(features: Any, name: str, kind: str) -> Any:
    """Return one or two values per channel of a feature map."""
    layers = keras.layers
    flat = len(features.shape) == 3
    if kind == "convolutional":
        convolve = layers.Conv1D if flat else layers.Conv2D
        layer = convolve(
            features.shape[-1], 3, strides=2, padding="same", use_bias=False, name=f"{name}_conv"
        )
        features = normalised_relu(layer(features), f"{name}_conv")
    average, maximum = (
        (layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D)
        if flat
        else (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
    )
    pools = []
    if kind != "maximum":
        pools.append(average(name=f"{name}_mean")(features))
    if kind != "average":
        pools.append(maximum(name=f"{name}_max")(features))
    return pools[0] if len(pools) == 1 else layers.Concatenate(name=f"{name}_pooled")(pools)
