"""Where the ranges of a folded network go: the copy of it that computes on the steps of int8."""

from __future__ import annotations

from typing import Any

import keras

from mexit_edge.compress.fake_quant import (
    FakeQuant,
    FakeQuantConv2D,
    FakeQuantDense,
    FakeQuantDepthwiseConv2D,
    FakeQuantRunningSum,
)
from mexit_edge.compress.flat_graph import Call, FlatGraph, copy_random_state
from mexit_edge.models.running_sum import RunningSum

layers = keras.layers

_KERNEL_LAYERS: dict[type, type] = {
    # A depthwise convolution is no subclass of the plain one.
    layers.Conv2D: FakeQuantConv2D,
    layers.DepthwiseConv2D: FakeQuantDepthwiseConv2D,
    layers.Dense: FakeQuantDense,
}
# int8 kernels have these ReLUs inside: no range stands between.
_TAKES_RELU = (*_KERNEL_LAYERS, layers.Add, layers.Subtract, layers.Multiply)
_COMPUTES = (layers.Add, layers.Subtract, layers.Multiply, layers.LeakyReLU)
# What TFLite's kernels demand of these outputs: scale 1/256 from 0 on, and 1/128 around 0.
_FIXED = {"sigmoid": (0.0, 255 / 256), "softmax": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}


def with_ranges(folded: keras.Model) -> keras.Model:
    """Return a copy of a network whose weights and activations are on steps, the ranges not set yet.

    Every tensor that an int8 operator computes gets a range, named after the layer it comes from. Operators
    that only move values (maxima, padding, reshaping, slices) pass the range on, as does the average pool,
    whose kernel wants one scale on both sides. Concatenated tensors get one range together, unless they have
    one already; averages over all positions of a tensor that is concatenated too borrow its range. The
    logits' range is part of the layer that makes them, so that a head is still its dense layer.

    Args:
        folded: see `fold`.
    """
    return _RangeSetter(FlatGraph(folded)).result()


class _RangeSetter:
    """Keeps per tensor what was computed, and once somebody asks for it, the same on the steps of a range."""

    def __init__(self, graph: FlatGraph) -> None:
        self.graph = graph
        self.exact: dict[int, Any] = {}
        self.on_steps: dict[int, Any] = {}
        # None for a range that nobody else can borrow.
        self.range_of: dict[int, FakeQuant | None] = {}
        self.first_mean: dict[tuple[int, bool], int] = {}
        # Tensors made by operators that only move values.
        self.moved: set[int] = set()
        self.maker_of = {call.output: call for call in graph.calls}
        self.made: dict[int, Any] = {}
        self.logits = self._tensors_of_logits()

    def result(self) -> keras.Model:
        network = self.graph.network
        inputs = [keras.Input(one.shape[1:], name=one.name, dtype=one.dtype) for one in network.inputs]
        for number, tensor in zip(self.graph.inputs, inputs, strict=True):
            self.exact[number] = tensor
        for call in self.graph.calls:
            self._run(call)
        outputs = keras.tree.map_structure(self.quantized, self.graph.outputs)
        return keras.Model(
            keras.tree.pack_sequence_as(network.input, inputs), outputs, name=f"{network.name}_int8"
        )

    def quantized(self, number: int) -> Any:
        """Return a tensor on the steps of its range, with a range of its own if it has none yet."""
        if number not in self.on_steps:
            maker = self.maker_of.get(number)
            name = maker.name if maker else self.exact[number].name
            range_ = FakeQuant(name=self.graph.free_name(f"{name}_range"))
            self._put(number, range_(self.exact[number]), range_)
        return self.on_steps[number]

    def _run(self, call: Call) -> None:
        kind, output = type(call.layer), call.output
        if kind in _KERNEL_LAYERS:
            self._kernel_layer(call)
        elif kind is layers.ReLU:
            self.exact[output] = self._layer(call)(self._before_relu(call))
        elif kind is layers.Concatenate:
            self._concatenate(call)
        elif kind is layers.GlobalAveragePooling2D:
            self._mean(call)
        elif kind is layers.Activation:
            low, high = _FIXED[call.layer.activation.__name__]
            fixed = FakeQuant(None, low, high, name=self.graph.free_name(f"{call.name}_range"))
            self._put(output, fixed(self._layer(call)(self.quantized(call.inputs[0]))), fixed)
        elif kind is RunningSum:
            inputs = [self.quantized(number) for number in call.inputs]
            self._put(output, FakeQuantRunningSum(call.layer.ratio, name=call.name)(inputs), None)
        elif kind in _COMPUTES:
            inputs = [self.quantized(number) for number in call.inputs]
            self.exact[output] = self._layer(call)(inputs if len(inputs) > 1 else inputs[0])
        else:
            self._passing(call)

    def _mean(self, call: Call) -> None:
        """Run an average over all positions; where several average the same tensor, the first one for all.

        The converter makes one operator of them, whose output cannot have two ranges.
        """
        number = call.inputs[0]
        first = self.first_mean.setdefault((number, call.layer.keepdims), call.output)
        if first != call.output:
            self._put(call.output, self.quantized(first), self.range_of[first])
            return
        self.exact[first] = self._layer(call)(self.quantized(number))
        range_ = self.range_of[number]
        if range_ is not None and self._stands_beside_maximum(number):
            self._put(first, range_(self.exact[first], observe=False), range_)

    def _stands_beside_maximum(self, number: int) -> bool:
        """Return whether averages of a tensor are concatenated with its maxima, which keep its range."""
        readers = self.graph.consumers[number]
        averages, maxima = (
            {one.output for one in readers if isinstance(one.layer, kind)}
            for kind in (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
        )
        return any(
            isinstance(one.layer, layers.Concatenate) and maxima & {*one.inputs} and averages & {*one.inputs}
            for one in self.graph.calls
        )

    def _passing(self, call: Call) -> None:
        """Run what passes the range of its input on."""
        number = call.inputs[0]
        tensor, range_ = self.quantized(number), self.range_of[number]
        if isinstance(call.layer, layers.Layer):
            tensor = self._layer(call)(tensor)
        else:
            tensor = tensor[call.arguments.args[1]]
        if isinstance(call.layer, layers.AveragePooling2D) and range_ is not None:
            tensor = range_(tensor, observe=False)
        self._put(call.output, tensor, range_)
        self.moved.add(call.output)

    def _kernel_layer(self, call: Call) -> None:
        tensor = self.quantized(call.inputs[0])
        if id(call.layer) not in self.made:
            config = {**call.layer.get_config(), "name": call.name}
            if call.output in self.logits:
                config["activation"] = FakeQuant(name="range")
            new = _KERNEL_LAYERS[type(call.layer)](**config)
            new.build(tensor.shape)
            # A range inside comes after kernel and bias.
            new.set_weights([*call.layer.get_weights(), *new.get_weights()[2:]])
            self.made[id(call.layer)] = new
        result = self.made[id(call.layer)](tensor)
        if call.output in self.logits:
            self._put(call.output, result, None)
        else:
            self.exact[call.output] = result

    def _before_relu(self, call: Call) -> Any:
        """Return what a ReLU reads: exact values where the operator before has it inside."""
        number = call.inputs[0]
        maker = self.maker_of.get(number)
        is_inside = maker is not None and isinstance(maker.layer, _TAKES_RELU)
        if is_inside and number not in self.on_steps and self.graph.only_consumer(number) is call:
            return self.exact[number]
        return self.quantized(number)

    def _concatenate(self, call: Call) -> None:
        ranges = [self.range_of.get(number) for number in call.inputs]
        range_ = ranges[0]
        if range_ is not None and all(one is range_ for one in ranges):
            tensors = [self.on_steps[number] for number in call.inputs]
        else:
            range_ = FakeQuant(name=self.graph.free_name(f"{call.name}_range"))
            tensors = range_([self._before_joint_range(number, call) for number in call.inputs])
        self._put(call.output, self._layer(call)(tensors), range_)
        self.moved.add(call.output)

    def _before_joint_range(self, number: int, call: Call) -> Any:
        """Return what is put on the steps of a range together with other tensors."""
        if number not in self.on_steps and self.graph.only_consumer(number) is call:
            return self.exact[number]
        tensor, range_ = self.quantized(number), self.range_of[number]
        # An operator that only moves values has one scale on both sides: the old range once more, behind it,
        # tells the converter that the change to the joint range is an operator of its own.
        return range_(tensor, observe=False) if range_ is not None and number in self.moved else tensor

    def _put(self, number: int, tensor: Any, range_: FakeQuant | None) -> None:
        self.on_steps[number], self.range_of[number] = tensor, range_

    def _layer(self, call: Call) -> Any:
        """Return the copy of a layer without weights."""
        if id(call.layer) not in self.made:
            self.made[id(call.layer)] = type(call.layer).from_config(call.layer.get_config())
            copy_random_state(self.made[id(call.layer)], call.layer)
        return self.made[id(call.layer)]

    def _tensors_of_logits(self) -> set[int]:
        """Return the tensors that become outputs or parts of running sums as they are."""
        ends = set(self.graph.output_numbers)
        ends |= {call.inputs[0] for call in self.graph.calls if isinstance(call.layer, RunningSum)}
        for call in reversed(self.graph.calls):
            if call.output in ends and isinstance(call.layer, layers.Identity):
                ends.add(call.inputs[0])
        # A range inside a layer that is called again would have to fit all its calls.
        return {number for number in ends if self._is_called_once(number)}

    def _is_called_once(self, number: int) -> bool:
        maker = self.maker_of.get(number)
        return maker is not None and len(self.graph.calls_of(maker.layer)) == 1
