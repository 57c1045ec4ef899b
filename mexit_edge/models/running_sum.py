"""Exits that add the logits of the exits before them, as part of the network's graph."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import keras

from mexit_edge.errors import InputError
from mexit_edge.models.heads import exit_names


@keras.saving.register_keras_serializable("mexit_edge")
class RunningSum(keras.layers.Layer):
    """F_e = f_e + ratio * F_{e-1}, without a gradient into F_{e-1}.

    Called with [f_e, F_{e-1}], (batch, classes) each.

    Args:
        ratio: factor of the logits of the exit before.

    Reference:
        Yu et al., "Boosted Dynamic Neural Networks", arXiv 2211.16726 (the loss takes the sum before as a
        constant, prediction takes it as it is: one forward value, no gradient).
    """

    def __init__(self, ratio: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        self.ratio = ratio

    def call(self, inputs: Any) -> Any:
        """Return the sum."""
        own, before = inputs
        return own + self.ratio * keras.ops.stop_gradient(before)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of both inputs."""
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        """Return the ratio with Keras' own options."""
        return {**super().get_config(), "ratio": self.ratio}


def add_running_sums(network: keras.Model, ratio: float) -> keras.Model:
    """Return a network with the same layers whose exits after the first are running sums.

    A network that has running sums with this ratio is returned as it is.

    Args:
        network: a functional model with outputs ``exit_01``, ...
        ratio: see `RunningSum`.

    Raises:
        InputError: it is no such model, or has running sums with another ratio.
    """
    exits = exit_names(network)
    there = {sum_.ratio for exit_ in exits if (sum_ := _running_sum(network, exit_)) is not None}
    if there == {ratio}:
        return network
    if there:
        raise InputError(
            f"`ratio` must be that of the network's running sums. Received: {ratio}, there {sorted(there)}. "
            "Take the network without sums."
        )
    outputs = {exits[0]: network.output[exits[0]]}
    for before, exit_ in pairwise(exits):
        sum_ = RunningSum(ratio, name=f"{exit_}_running_sum")
        outputs[exit_] = sum_([network.output[exit_], outputs[before]])
    inputs = network.inputs[0] if len(network.inputs) == 1 else network.input
    return keras.Model(inputs, outputs, name=f"{network.name}_boosted")


def own_logits(network: keras.Model, exit_: str) -> Any:
    """Return an exit's own logits f_e, whether or not the exit is a running sum."""
    logits = network.output[exit_]
    if _running_sum(network, exit_) is None:
        return logits
    sum_, call, _ = logits._keras_history
    # Not `sum_.input`: that is the layer's first call, which may belong to another network.
    return sum_._inbound_nodes[call].input_tensors[0]


def _running_sum(network: keras.Model, exit_: str) -> RunningSum | None:
    layer = network.output[exit_]._keras_history.operation
    return layer if isinstance(layer, RunningSum) else None
