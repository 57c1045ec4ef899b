"""Attach exits to a functional Keras model that somebody else designed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from mexit_edge.errors import InputError, unknown_name
from mexit_edge.models.heads import exit_name, pooled_head


def attach_exits(model: keras.Model, at: Sequence[str], *, dropout: float = 0.3) -> keras.Model:
    """Return a multi-exit network that shares the model's layers.

    Args:
        model: a functional model with one input and one output of logits (batch, classes); that output
            becomes the final exit as it is.
        at: names of layers whose output gets an exit, from the input on: exits run in this order.
        dropout: rate in the new heads.

    Returns:
        A functional model with outputs ``exit_01``, ..., the last one being the model's own.

    Raises:
        InputError: the model is not functional or has several outputs, a layer is unknown, named twice,
            named after one that needs it, or of a rank that carries no exit, or the final output is a
            softmax.

    Example:
        ```python
        network = attach_exits(my_model, at=["block_1_relu", "block_2_relu"])
        ```
    """
    logits = _single_output(model)
    if len(set(at)) != len(at) or not at:
        raise InputError(f"`at` needs distinct layer names, at least one. Received: {list(at)}.")
    names = [layer.name for layer in model.layers]
    tapped: dict[str, Any] = {}
    outputs = {}
    for number, layer_name in enumerate(at, start=1):
        if layer_name not in names:
            raise unknown_name("at", layer_name, names)
        features = model.get_layer(layer_name).output
        if isinstance(features, list | tuple | dict):
            raise InputError(f"`at` must name layers with one output. Received: {layer_name!r} with several.")
        tapped[layer_name] = features
        name = exit_name(number)
        outputs[name] = pooled_head(features, logits.shape[-1], name, dropout)
    _refuse_wrong_order(model, tapped)
    final = exit_name(len(at) + 1)
    # An identity gives the model's own output the exit's name; the converter drops it.
    outputs[final] = keras.layers.Identity(name=final)(logits)
    return keras.Model(model.inputs[0], outputs, name=f"{model.name}_multi_exit")


def _refuse_wrong_order(model: keras.Model, tapped: dict[str, Any]) -> None:
    """Refuse an exit whose features need those of an exit after it: the later one could never save work."""
    before: list[str] = []
    order = [layer.name for layer in model.layers if layer.name in tapped]
    for layer_name, features in tapped.items():
        needed = {layer.name for layer in keras.Model(model.inputs[0], features).layers}
        late = [name for name in tapped if name in needed and name not in (*before, layer_name)]
        if late:
            raise InputError(
                "`at` must name layers in the order in which they run. "
                f"Received: {list(tapped)}, where {layer_name!r} needs {late[0]!r}. Use `at={order}`."
            )
        before.append(layer_name)


def _single_output(model: keras.Model) -> Any:
    has_graph = isinstance(model, keras.Sequential) or hasattr(model, "operations")
    if not (isinstance(model, keras.Model) and has_graph and model.built and model.inputs):
        raise InputError(
            "`model` must be a functional (or Sequential, built) Keras model. "
            f"Received: {type(model).__name__}."
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(
            "`model` must have one input and one output. "
            f"Received: {len(model.inputs)} inputs, {len(model.outputs)} outputs."
        )
    logits = model.outputs[0]
    if len(logits.shape) != 2 or logits.shape[-1] is None or logits.shape[-1] < 2:
        raise InputError(f"`model` must end in logits (batch, classes). Received: shape {logits.shape}.")
    last = model.layers[-1]
    ends_in_softmax = isinstance(last, keras.layers.Softmax) or (
        getattr(getattr(last, "activation", None), "__name__", "") == "softmax"
    )
    if ends_in_softmax:
        raise InputError(
            "`model` must end in logits: scores and losses take them as they are. Received: a softmax at the "
            "end. Build the last layer without activation."
        )
    return logits
