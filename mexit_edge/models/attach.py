"""Attach exits to a functional Keras model that somebody else designed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import keras

from mexit_edge.errors import InputError, unknown_name
from mexit_edge.models.candidates import chosen_of, reason_against
from mexit_edge.models.heads import HEADS, exit_name, make_head
from mexit_edge.models.layer_calls import LayerCalls, layer_calls


def attach_exits(
    model: keras.Model,
    at: Sequence[str | float],
    *,
    head: str = "both",
    dropout: float = 0.3,
    cascade: bool = False,
) -> keras.Model:
    """Return a multi-exit network that shares the model's layers.

    Nested models are opened: their layers become layers of the network. Where two layers of nested models
    have the same name, one of them gets that of its model in front, in the network alone.

    Args:
        model: a functional model with one input or several, and one output of logits (batch, classes); that
            output becomes the final exit as it is.
        at: where exits sit, from the input on, in the order in which they run: names of layers
            (``"inner/conv_b"`` inside a nested model, ``"shared#2"`` for the second call of a layer), or
            shares of the network's MACs (0.1, ``"10 %"``), which `choose_exits` resolves.
        head: kind of the new heads, a key of `HEADS`.
        dropout: rate in the new heads.
        cascade: whether each new head after the first also reads the logits of the exit before.

    Returns:
        A functional model with outputs ``exit_01``, ..., the last one being the model's own.

    Raises:
        InputError: the model is not functional or has several outputs; a layer is unknown, named twice, named
            after one that needs it, or cannot carry an exit (see `exit_candidates`); the final output is a
            softmax; or a layer has the name of an exit.

    Example:
        ```python
        network = attach_exits(my_model, at=["10 %", "block_2_relu"], head="average")
        ```
    """
    if head not in HEADS:
        raise unknown_name("head", head, HEADS)
    network = layer_calls(model)
    logits = _logits(network)
    names = chosen_of(network, at)
    tapped = {name: _features(name, network) for name in names}
    _refuse_wrong_order(network, tapped)
    _refuse_taken_names(network, len(names) + 1)
    outputs: dict[str, Any] = {}
    previous = None
    for number, features in enumerate(tapped.values(), start=1):
        name = exit_name(number)
        outputs[name] = make_head(
            features, logits.shape[-1], name, kind=head, dropout=dropout, previous=previous
        )
        previous = outputs[name] if cascade else None
    final = exit_name(len(names) + 1)
    # An identity gives the model's own output the exit's name; the converter drops it.
    outputs[final] = keras.layers.Identity(name=final)(logits)
    return keras.Model(network.inputs, outputs, name=f"{model.name}_multi_exit")


def _logits(network: LayerCalls) -> Any:
    outputs = keras.tree.flatten(network.outputs)
    if len(outputs) != 1:
        raise InputError(
            f"`model` must have one output, of logits. Received: {len(outputs)} outputs. "
            "Use `keras.Model(model.input, model.outputs[0])` for the one to keep."
        )
    (logits,) = outputs
    if len(logits.shape) != 2 or logits.shape[-1] is None or logits.shape[-1] < 2:
        raise InputError(f"`model` must end in logits (batch, classes). Received: shape {logits.shape}.")
    last = next((call.layer for call in network.calls if logits is call.outputs[0]), None)
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    # The layer and the operation of `keras.ops` have the same name.
    if type(last).__name__ == "Softmax" or activation == "softmax":
        raise InputError(
            "`model` must end in logits: scores and losses take them as they are. Received: a softmax at the "
            "end. Build the last layer without activation."
        )
    return logits


def _features(name: str, network: LayerCalls) -> Any:
    features = network.outputs_of(name) or ()
    reason = reason_against(features, network)
    if reason is not None:
        raise InputError(
            f"`at` must name layers that can carry an exit. Received: {name!r}: {reason}. "
            "`exit_candidates` lists those that can."
        )
    return features[0]


def _refuse_wrong_order(network: LayerCalls, tapped: dict[str, Any]) -> None:
    """Refuse an exit whose features need those of an exit after it: the later one could never save work."""
    needs = network.needs()
    needed = {name: needs[id(features)] for name, features in tapped.items()}
    for name, later in combinations(tapped, 2):
        if needed[name] == needed[later]:
            raise InputError(
                f"`at` must name distinct tensors. Received: {name!r} and {later!r}, which are one. Drop one."
            )
        # What makes a tensor is the last bit of what it needs.
        if needed[name] >> (needed[later].bit_length() - 1) & 1:
            order = sorted(tapped, key=lambda one: needed[one].bit_length())
            raise InputError(
                "`at` must name layers in the order in which they run. "
                f"Received: {list(tapped)}, where {name!r} needs {later!r}. Use `at={order}`."
            )


def _refuse_taken_names(network: LayerCalls, n_exits: int) -> None:
    exits = tuple(exit_name(number) for number in range(1, n_exits + 1))
    taken = [call.layer.name for call in network.calls if call.layer.name.startswith(exits)]
    if taken:
        raise InputError(
            f"`model` must have no layers named as exits are ({', '.join(exits)}). Received: {taken[0]!r}. "
            "Rename it."
        )
