"""A functional Keras network as a list of calls on numbered tensors, nested networks taken apart."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import keras

from mexit_edge.compress.operators import layer_of
from mexit_edge.errors import InputError
from mexit_edge.models.layer_calls import LayerCall, input_name, layer_calls


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer.

    Args:
        layer: the Keras layer; one that is shared has several calls. For an operator the layer that computes
            the same, and for any other operation of `keras.ops` itself.
        inputs: numbers of the tensors that go in.
        output: number of the tensor that comes out.
        arguments: of the call, as Keras keeps them.
    """

    layer: Any
    inputs: tuple[int, ...]
    output: int
    arguments: Any

    @property
    def name(self) -> str:
        """Name of the layer, unique in the whole network."""
        return str(self.layer.name)


@dataclass(eq=False)
class FlatGraph:
    """Calls in an order in which they can run; tensors are numbers.

    Args:
        network: a functional or built Sequential model.
        merges: whether calls that compute the same of the same tensors are one, as the converter sees them.

    Attributes:
        inputs: tensor per input of the network.
        outputs: structure of the network's outputs, with tensors for leaves.
        calls: in order.
        shapes: shape per tensor, the batch first.
        consumers: calls that read a tensor.

    Raises:
        InputError: it is no such model, or a layer has several outputs.
    """

    network: keras.Model
    merges: bool = False
    calls: list[Call] = field(default_factory=list)
    shapes: dict[int, tuple[int | None, ...]] = field(default_factory=dict)
    consumers: dict[int, list[Call]] = field(default_factory=lambda: defaultdict(list))
    _names: set[str] = field(default_factory=set)
    _makers: dict[int, Call] = field(default_factory=dict)

    def __post_init__(self) -> None:
        whole = layer_calls(self.network, "network")
        self._numbers: dict[int, int] = {}
        # A tensor's number is looked up by its id: it must not be collected before the last one has its own.
        self._tensors: list[Any] = []
        self._layer_of: dict[int, Any] = {}
        self._made: dict[Any, int] = {}
        self.inputs = [self._number(tensor) for tensor in whole.flat_inputs]
        for call in whole.calls:
            self._add(call)
        self.outputs = keras.tree.map_structure(self._number, whole.outputs)
        self._names |= {input_name(tensor) for tensor in whole.flat_inputs}
        self._names |= {call.name for call in self.calls}

    @property
    def output_numbers(self) -> set[int]:
        """Tensors that are outputs of the network."""
        return set(keras.tree.flatten(self.outputs))

    def maker_of(self, number: int) -> Call | None:
        """Return the call that makes a tensor; None for an input."""
        return self._makers.get(number)

    def calls_of(self, layer: Any) -> list[Call]:
        """Return all calls of a layer."""
        return [call for call in self.calls if call.layer is layer]

    def free_name(self, wanted: str) -> str:
        """Return a name for a further layer: numbered where the network or another such layer has it."""
        free, number = wanted, 2
        while free in self._names:
            free, number = f"{wanted}_{number}", number + 1
        self._names.add(free)
        return free

    def only_consumer(self, number: int) -> Call | None:
        """Return the one call that reads a tensor; None for several, or for an output of the network."""
        readers = self.consumers[number]
        return readers[0] if len(readers) == 1 and number not in self.output_numbers else None

    def _add(self, call: LayerCall) -> None:
        if len(call.outputs) != 1:
            raise InputError(
                "`network` must consist of layers with one output. Received: the layer "
                f"{call.name!r} ({type(call.layer).__name__}) with {len(call.outputs)}."
            )
        output = call.outputs[0]
        inputs = tuple(self._number(tensor) for tensor in call.inputs)
        history = output._keras_history
        arguments = history.operation._inbound_nodes[history.node_index].arguments
        layer = self._layer(call.layer, arguments)
        what = _what_it_computes(layer) if self.merges else None
        if what is not None and (what, inputs) in self._made:
            self._numbers[id(output)] = self._made[what, inputs]
            return
        flat = Call(layer, inputs, self._number(output), arguments)
        if what is not None:
            self._made[what, inputs] = flat.output
        self.calls.append(flat)
        self._makers[flat.output] = flat
        # A call that reads a tensor twice is one consumer of it.
        for number in dict.fromkeys(inputs):
            self.consumers[number].append(flat)

    def _layer(self, operation: Any, arguments: Any) -> Any:
        """Return an operation, or the layer that computes the same: one for all its calls."""
        if isinstance(operation, keras.layers.Layer):
            return operation
        if id(operation) not in self._layer_of:
            self._layer_of[id(operation)] = layer_of(operation, arguments) or operation
        return self._layer_of[id(operation)]

    def _number(self, tensor: Any) -> int:
        if id(tensor) not in self._numbers:
            self._numbers[id(tensor)] = len(self._tensors)
            self.shapes[len(self._tensors)] = tuple(tensor.shape)
            self._tensors.append(tensor)
        return self._numbers[id(tensor)]


def _what_it_computes(layer: Any) -> Any:
    """Return what is equal for layers that compute the same; None for one that need not do so twice."""
    if not isinstance(layer, keras.layers.Layer) or getattr(layer, "seed_generator", None) is not None:
        return None
    if layer.weights:
        return id(layer)
    config = {name: option for name, option in layer.get_config().items() if name != "name"}
    return type(layer), repr(sorted(config.items()))
