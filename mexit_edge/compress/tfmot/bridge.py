"""A network of Keras 3 as one of tf_keras, and its weights back.

TensorFlow Model Optimization takes neither networks of Keras 3 nor 1-D convolutions, and does not always say
so: `cluster_weights` returns None for the former.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from mexit_edge.compress.flat_graph import Call, FlatGraph
from mexit_edge.compress.operators import is_slice, slice_key, unusable_operand
from mexit_edge.compress.tfmot.extra import load_extra
from mexit_edge.compress.tfmot.layers import Translated, translate
from mexit_edge.errors import InputError
from mexit_edge.models.heads import exit_names


@dataclass(frozen=True, eq=False)
class Bridged:
    """A network and its twin in tf_keras.

    Args:
        network: of Keras 3, never changed.
        twin: functional model of tf_keras with the same inputs, and a list of logits, exit 1 first. Inside it
            is NHWC, of height 1 where the network is 1-D.
        exits: names of the exits.
        pairs: layers with weights, as (layer of the network, name of the twin's).
    """

    network: keras.Model
    twin: Any
    exits: tuple[str, ...]
    pairs: tuple[tuple[Any, str], ...]

    def back(self, twin: Any) -> keras.Model:
        """Return a copy of the network with the weights of a twin.

        Args:
            twin: ours, or one whose layers have the same names.
        """
        arrays = {
            id(variable): array.reshape(variable.shape)
            for layer, name in self.pairs
            for variable, array in zip(layer.weights, twin.get_layer(name).get_weights(), strict=True)
        }
        # Not by `clone_model`, which renames inputs.
        with keras.saving.custom_object_scope(_functions(self.network)):
            copy = type(self.network).from_config(self.network.get_config())
        copy.set_weights([arrays[id(variable)] for variable in self.network.weights])
        return copy


def bridge(network: keras.Model) -> Bridged:
    """Rebuild a network of Keras 3 in tf_keras, with copies of its weights.

    Regularisers and constraints stay behind.

    Args:
        network: a functional model with outputs ``exit_01``, ...; nested models and shared layers may be
            part of it.

    Raises:
        InputError: it is no such model, an input's shape is not fixed or not of rank 2 to 4, or a layer is
            unknown to the bridge, by name.
        MissingExtraError: the [compress] extra is not installed.
    """
    exits = exit_names(network)
    tf_keras = load_extra().keras
    work = _Translation(tf_keras, FlatGraph(network))
    inputs, tensors = [], []
    for tensor in network.inputs:
        shape = tuple(tensor.shape[1:])
        if None in shape or not 1 <= len(shape) <= 3:
            raise InputError(
                "`network` must have inputs of fixed shape: (features,), (time, channels) or (height, width, "
                f"channels). Received: {shape} for {tensor.name!r}."
            )
        inputs.append(tf_keras.Input(shape, name=work.free_name(tensor.name)))
        # Named, lest a name of tf_keras' own choice be that of one of the network's layers.
        high = tf_keras.layers.Reshape((1, *shape), name=work.free_name(f"{tensor.name}_high"))
        tensors.append(high(inputs[-1]) if len(shape) == 2 else inputs[-1])
    outputs = work.run(tensors)
    logits = [outputs[exit_] for exit_ in exits]
    twin = tf_keras.Model(inputs, logits, name=work.free_name(f"{network.name}_twin"))
    return Bridged(network, twin, exits, tuple(work.pairs()))


def _functions(network: keras.Model) -> dict[str, Any]:
    """Return the activations of a network by the names that its configuration has for them.

    Keras does not find all of those that are not its own, such as `tf.nn.silu`, which calls itself swish.
    """
    found: list[Any] = [getattr(layer, "activation", None) for layer in network._flatten_layers()]
    return {one.__name__: one for one in found if hasattr(one, "__name__")}


class _Translation:
    """Goes through the graph of a network, call by call."""

    def __init__(self, tf_keras: Any, graph: FlatGraph) -> None:
        self._tf_keras = tf_keras
        self._graph = graph
        self._layers: dict[int, tuple[Any, Translated]] = {}
        self._names: set[str] = set()

    def run(self, tensors: Sequence[Any]) -> dict[str, Any]:
        """Call the network on tensors of tf_keras; return its outputs by name."""
        there = dict(zip(self._graph.inputs, tensors, strict=True))
        for call in self._graph.calls:
            there[call.output] = self._call(call, [there[number] for number in call.inputs])
        return {name: there[number] for name, number in self._graph.outputs.items()}

    def _call(self, call: Call, given: Sequence[Any]) -> Any:
        if is_slice(call.layer):
            return self._slice(call, given[0])
        unusable = unusable_operand(call.layer, call.arguments)
        if unusable is not None:
            raise unusable
        ranks = {len(self._graph.shapes[number]) for number in call.inputs}
        if not isinstance(call.layer, keras.layers.Layer) or len(ranks) != 1:
            what = f"inputs of ranks {sorted(ranks)}" if len(ranks) != 1 else "an operation that is no layer"
            raise InputError(
                "`network` must consist of layers with inputs of one rank. Received: "
                f"{what} ({call.name!r}, {type(call.layer).__name__}). Use a layer such as "
                "`keras.layers.Add`, and `Reshape` before it where ranks differ."
            )
        if id(call.layer) not in self._layers:
            translated = translate(call.layer, self._tf_keras, self.free_name(call.name), ranks.pop())
            self._layers[id(call.layer)] = call.layer, translated
        translated = self._layers[id(call.layer)][1]
        first = translated.main is not None and not translated.main.built
        output = translated(given)
        if first:
            _copy_weights(call.layer, translated.main)
        return output

    def _slice(self, call: Call, tensor: Any) -> Any:
        shape = self._graph.shapes[call.output]
        key = slice_key(call.arguments, len(self._graph.shapes[call.inputs[0]]))
        if key is None or len(shape) < 2:
            raise InputError(
                "`network` must slice with ranges or indices, the batch as a whole. Received: "
                f"{call.name!r} with {call.arguments.args[1:]}. Use slices such as x[:, 2:6]."
            )
        if len(shape) == len(self._graph.shapes[call.inputs[0]]):
            return tensor[key]
        # An index leaves an axis of one element.
        target = (1, *shape[1:]) if len(shape) == 3 else shape[1:]
        return self._tf_keras.layers.Reshape(target, name=self.free_name(call.name))(tensor[key])

    def pairs(self) -> Iterator[tuple[Any, str]]:
        """Yield layers with weights and the names of those that stand for them."""
        for layer, translated in self._layers.values():
            if translated.main is not None:
                yield layer, translated.main.name

    def free_name(self, name: str) -> str:
        """Return a name that TensorFlow takes, not used before: nested models may repeat names."""
        stem = re.sub(r"[^A-Za-z0-9_]", "_", name)
        # TensorFlow wants a letter or digit in front.
        stem = stem if stem[:1].isalnum() else f"layer{stem}"
        names = (stem if number == 1 else f"{stem}_again_{number}" for number in range(1, 1_000_000))
        free = next(name for name in names if name not in self._names)
        self._names.add(free)
        return free


def _copy_weights(layer: Any, main: Any) -> None:
    shapes = [array.shape for array in main.get_weights()]
    arrays = [np.asarray(variable, np.float32) for variable in layer.weights]
    main.set_weights([array.reshape(shape) for array, shape in zip(arrays, shapes, strict=True)])
    main.trainable = layer.trainable
