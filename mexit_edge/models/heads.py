"""Heads: what turns a feature map into logits."""

from __future__ import annotations

from typing import Any

import keras

from mexit_edge.errors import InputError


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


def pooled_head(features: Any, n_classes: int, name: str, dropout: float) -> Any:
    """Return logits of average and maximum pooling over all positions, dropout and a dense layer.

    Args:
        features: a Keras tensor (batch, time, channels), (batch, height, width, channels) or
            (batch, features).
        n_classes: number of logits.
        name: of the output; every layer's name starts with it.
        dropout: rate.

    Raises:
        InputError: the tensor has another rank.
    """
    layers = keras.layers
    rank = len(features.shape)
    if rank == 2:
        pooled = features
    elif rank in (3, 4):
        pools = (
            (layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D)
            if rank == 3
            else (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
        )
        both = [
            pool(name=f"{name}_{kind}")(features) for pool, kind in zip(pools, ("mean", "max"), strict=True)
        ]
        pooled = layers.Concatenate(name=f"{name}_pooled")(both)
    else:
        raise InputError(
            f"`at` must name layers with an output of rank 2 to 4. Received: {features.name} of shape "
            f"{features.shape}."
        )
    if dropout:
        pooled = layers.Dropout(dropout, name=f"{name}_dropout")(pooled)
    return layers.Dense(n_classes, name=name)(pooled)
