"""The calls of layers that a functional network consists of, nested models opened.

A nested model is replaced by the calls of its own layers: in Keras a tensor inside one is not connected to
the inputs of the network around it, so no exit could read it. The layers stay the same objects, so their
weights are shared with the network they come from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras.src.models.functional import Functional

from mexit_edge.errors import InputError


@dataclass(frozen=True, eq=False)
class LayerCall:
    """One call of a layer.

    Args:
        name: of the layer; behind the names of the nested models it is in (``"inner/conv_b"``), and with a
            number where it is called several times (``"shared#2"``).
        layer: what is called; a Keras layer, or an operation such as that of ``x + y``.
        inputs: Keras tensors it reads.
        outputs: Keras tensors it returns.
    """

    name: str
    layer: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class LayerCalls:
    """A network as the calls of its layers.

    Args:
        calls: in an order in which they can run, exit by exit, those of input layers left out.
        inputs: as the model's `input`: a Keras tensor, or a structure of them.
        outputs: as the model's `output`, on the tensors of these calls.
        nested: output tensors of each call of a nested model, by its name.
    """

    calls: tuple[LayerCall, ...]
    inputs: Any
    outputs: Any
    nested: dict[str, tuple[Any, ...]]

    @property
    def final_output(self) -> Any:
        """The output tensor, of several the last one: that of the final exit."""
        return keras.tree.flatten(self.outputs)[-1]

    @property
    def flat_inputs(self) -> tuple[Any, ...]:
        """Input tensors, in the order of the model's `inputs`."""
        return tuple(keras.tree.flatten(self.inputs))

    def outputs_of(self, name: str) -> tuple[Any, ...] | None:
        """Return the output tensors of a call, of a nested model's, or of an input; None for no such name."""
        found = next((call.outputs for call in self.calls if call.name == name), self.nested.get(name))
        if found is None:
            found = next(((tensor,) for tensor in self.flat_inputs if input_name(tensor) == name), None)
        return found

    def needs(self) -> dict[int, int]:
        """Return, by the id of every tensor, what has to be there to make it, itself included.

        As bits: the inputs in their order, then the calls in theirs.
        """
        needs: dict[int, int] = {}
        for tensor in self.flat_inputs:
            needs[id(tensor)] = 1 << len(needs)
        for place, call in enumerate(self.calls, start=len(needs)):
            needed = 1 << place
            for tensor in call.inputs:
                needed |= needs[id(tensor)]
            needs.update({id(tensor): needed for tensor in call.outputs})
        return needs

    @property
    def names(self) -> tuple[str, ...]:
        """Names of inputs, calls, and nested models."""
        inputs = [input_name(tensor) for tensor in self.flat_inputs]
        return (*inputs, *(call.name for call in self.calls), *self.nested)


def functional_graph(model: Any) -> Functional | None:
    """Return the graph of a functional or built Sequential model; None of anything else.

    A model with a `call` of its own does what that says, not what its graph says.
    """
    if isinstance(model, keras.Sequential) and type(model).call is keras.Sequential.call:
        return model._functional if model.built else None
    return model if isinstance(model, Functional) and type(model).call is Functional.call else None


def input_name(tensor: Any) -> str:
    """Return the name of the input layer that a tensor comes from."""
    return str(tensor._keras_history.operation.name)


def layer_calls(model: Any, argument: str = "model", *, inputs: Sequence[Any] | None = None) -> LayerCalls:
    """List the calls of a network.

    Args:
        model: functional or Sequential, built.
        argument: name of the argument that carried it, for the message.
        inputs: Keras tensors to run the network on instead of its own inputs, in the order of
            ``model.inputs``; the calls are then new ones of the same layers.

    Raises:
        InputError: it is no such model.
    """
    graph = functional_graph(model)
    if graph is None or not graph.inputs:
        raise InputError(
            f"`{argument}` must be a functional (or Sequential, built) Keras model. "
            f"Received: {type(model).__name__}."
        )
    anew = inputs is not None or any(functional_graph(node.operation) for node in _nodes(graph))
    walk = _Walk(graph, anew)
    outputs = walk.run(graph, graph.inputs if inputs is None else inputs, "")
    structure = graph.output
    if isinstance(structure, list) and len(structure) == 1:
        structure = structure[0]
    given = graph.input if inputs is None else list(inputs)
    listed = LayerCalls(
        calls=tuple(walk.calls),
        inputs=keras.tree.flatten(given)[0] if len(graph.inputs) == 1 else given,
        outputs=keras.tree.pack_sequence_as(structure, outputs),
        nested=walk.nested,
    )
    return listed if len(outputs) == 1 else replace(listed, calls=_output_by_output(listed))


def _output_by_output(network: LayerCalls) -> tuple[LayerCall, ...]:
    """Return the calls as exits run them: all that the first output needs, then what the next one adds."""
    needs, n_inputs = network.needs(), len(network.flat_inputs)
    ordered: dict[int, LayerCall] = {}
    # Dictionaries are flattened by their keys in alphabetical order, so exits in theirs.
    for output in keras.tree.flatten(network.outputs):
        for place, call in enumerate(network.calls, start=n_inputs):
            if needs[id(output)] >> place & 1:
                ordered.setdefault(place, call)
    return tuple(ordered.values())


class _Walk:
    """Goes through the calls of a graph, and makes them anew where nested models have to be opened."""

    def __init__(self, graph: Functional, anew: bool) -> None:
        self.anew = anew
        self.calls: list[LayerCall] = []
        self.nested: dict[str, tuple[Any, ...]] = {}
        # Keras wants distinct names within a network. Layers at the top keep theirs.
        top = [node.operation for node in _nodes(graph) if functional_graph(node.operation) is None]
        self._taken = {one.name: one for one in (*top, *(t._keras_history.operation for t in graph.inputs))}
        self._handles: dict[int, Any] = {}

    def run(self, graph: Functional, inputs: Sequence[Any], prefix: str) -> list[Any]:
        """Note the calls of a graph on these tensors, and return its output tensors."""
        known = {id(ref): tensor for ref, tensor in zip(graph.inputs, inputs, strict=True)}
        nodes = list(_nodes(graph))
        total = Counter(id(node.operation) for node in nodes)
        seen: Counter[int] = Counter()
        for node in nodes:
            layer = node.operation
            seen[id(layer)] += 1
            number = f"#{seen[id(layer)]}" if total[id(layer)] > 1 else ""
            name = f"{prefix}{layer.name}{number}"
            inner = functional_graph(layer)
            if inner is not None:
                outputs = self.run(inner, _arguments(inner, node, known), f"{name}/")
                self.nested[name] = tuple(outputs)
            elif self.anew:
                layer = self._handle(layer, name)
                arguments, options = node.arguments.fill_in(known)
                outputs = keras.tree.flatten(layer(*arguments, **options))
                self._note(name, layer, [known[id(ref)] for ref in node.input_tensors], outputs)
            else:
                outputs = list(node.outputs)
                self._note(name, layer, node.input_tensors, outputs)
            known.update({id(ref): tensor for ref, tensor in zip(node.outputs, outputs, strict=True)})
        return [known[id(ref)] for ref in graph.outputs]

    def _note(self, name: str, layer: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        self.calls.append(LayerCall(name, layer, tuple(inputs), tuple(outputs)))

    def _handle(self, layer: Any, name: str) -> Any:
        """Return the layer, or a handle of another name on its weights if its own is taken."""
        if id(layer) not in self._handles:
            if self._taken.setdefault(layer.name, layer) is layer:
                self._handles[id(layer)] = layer
            else:
                free = stem = name.replace("/", "_").replace("#", "_")
                number = 1
                while free in self._taken:
                    number += 1
                    free = f"{stem}_{number}"
                self._taken[free] = self._handles[id(layer)] = _renamed(layer, free)
        return self._handles[id(layer)]


def _renamed(layer: Any, name: str) -> Any:
    """Return a second handle on a layer, with the same weights and state, and another name.

    Renaming the layer itself would change the network it was taken from. Weights and what they learn are
    one; a `trainable` that is set later is each handle's own.
    """
    handle = object.__new__(type(layer))
    handle.__dict__.update(layer.__dict__)
    handle.__dict__.update(name=name, _inbound_nodes=[], _outbound_nodes=[])
    return handle


def _nodes(graph: Functional) -> Iterator[Any]:
    """Yield the calls recorded in a graph, but for its inputs, in the order in which Keras runs them."""
    inputs = {id(tensor) for tensor in graph.inputs}
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if not node.is_input and not all(id(tensor) in inputs for tensor in node.outputs):
                yield node


def _arguments(inner: Functional, node: Any, known: dict[int, Any]) -> list[Any]:
    """Return the tensors a nested model is called on, in the order of its inputs."""
    arguments, options = node.arguments.fill_in(known)
    given = arguments[0] if arguments else options["inputs"]
    if isinstance(given, dict) and not isinstance(inner.input, dict):
        return [given[input_name(tensor)] for tensor in inner.inputs]
    return list(keras.tree.flatten(given))
