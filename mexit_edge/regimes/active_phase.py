"""The part of a network that a phase runs, and the part of that which learns."""

from __future__ import annotations

from typing import Any

import keras

from mexit_edge.errors import InputError
from mexit_edge.models.anatomy import Anatomy
from mexit_edge.models.heads import exit_name
from mexit_edge.regimes.phases import Phase


class ActivePhase:
    """Runs a phase's exits in training mode, frozen layers in inference mode.

    Args:
        network: the whole network.
        anatomy: its blocks and heads.
        phase: what to train.

    Attributes:
        exits: names of the exits that are run.
        network: what is run.
        frozen: names of the layers that rest.
        variables: that learn.
        only_heads_learn: whether all that learns belongs to one exit alone.

    Raises:
        InputError: nothing would learn.
    """

    def __init__(self, network: keras.Model, anatomy: Anatomy, phase: Phase) -> None:
        self.phase = phase
        self.exits = tuple(exit_name(number) for number in phase.exits)
        if len(self.exits) == len(anatomy.exits):
            self.network = network
        else:
            outputs = {exit_: network.output[exit_] for exit_ in self.exits}
            self.network = keras.Model(network.input, outputs)
        frozen = {name for block in anatomy.blocks[: phase.frozen_blocks] for name in block}
        if phase.only_plain:
            frozen &= set(anatomy.plain)
        self.frozen = frozenset(frozen)
        learning = [layer for layer in self.network.layers if layer.name not in frozen]
        self.variables = [variable for layer in learning for variable in layer.trainable_variables]
        alone = {name for head in anatomy.heads for name in head}
        self.only_heads_learn = all(layer.name in alone for layer in learning if layer.weights)
        self._ids = frozenset(id(variable) for variable in self.variables)
        if not self.variables:
            raise InputError(
                f"`network` must have weights that learn in the phase {phase.name!r} "
                f"({', '.join(self.exits)}). Received: none; heads whose logits a later exit reads belong to "
                "the backbone. Take a regime that trains everything at once, such as `joint`."
            )

    def learns(self, variable: Any) -> bool:
        """Return whether a variable of the network learns in this phase."""
        return id(variable) in self._ids

    def __call__(self, inputs: Any) -> dict[str, Any]:
        """Return logits of the phase's exits, in training mode as far as layers learn."""
        if not self.frozen:
            return self.network(inputs, training=True)
        # Keras gives one `training` to all layers of a functional model; here each has its own. These two
        # private methods are what `Functional.call` consists of (test_frozen_layers_rest guards this).
        return self.network._run_through_graph(
            self.network._standardize_inputs(inputs), operation_fn=self._in_its_mode
        )

    def _in_its_mode(self, operation: Any) -> Any:
        if not getattr(operation, "_call_has_training_arg", False):
            return operation
        training = operation.name not in self.frozen

        def call(*inputs: Any, **options: Any) -> Any:
            # Not `partial`: Dropout was recorded with training=False, which would win over it.
            return operation(*inputs, **{**options, "training": training})

        return call
