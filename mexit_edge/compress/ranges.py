"""Where the ranges of a folded network go: the copy of it that computes on the steps of int8."""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np

from mexit_edge.compress.fake_quant import (
    FakeQuant,
    FakeQuantConv2D,
    FakeQuantDense,
    FakeQuantDepthwiseConv2D,
    FakeQuantRunningSum,
)
from mexit_edge.compress.flat_graph import Call, FlatGraph
from mexit_edge.compress.joint_ranges import JointRanges
from mexit_edge.models.running_sum import RunningSum

layers = keras.layers

_KERNEL_LAYERS: dict[type, type] = {
    # A depthwise convolution is no subclass of the plain one.
    layers.Conv2D: FakeQuantConv2D,
    layers.DepthwiseConv2D: FakeQuantDepthwiseConv2D,
    layers.Dense: FakeQuantDense,
}
_ARITHMETIC = (layers.Add, layers.Subtract, layers.Multiply, layers.Rescaling)
_COMPUTES = (*_ARITHMETIC, layers.LeakyReLU, layers.Activation)
_MAKES_VALUES = (
    *_KERNEL_LAYERS,
    *_COMPUTES,
    *(layers.Concatenate, layers.GlobalAveragePooling2D, layers.ReLU, RunningSum),
)
# int8 kernels have these ReLUs inside: no range stands between.
_TAKES_RELU = (*_KERNEL_LAYERS, *_ARITHMETIC)
# What TFLite's kernels demand of these outputs: scale 1/256 from 0 on, and 1/128 around 0.
_FIXED = {"sigmoid": (0.0, 255 / 256), "softmax": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}
_TOPS_OF_RELUS = (None, 6)
# Beyond 1: a factor that changes no int8 value. By 1 itself the converter would not multiply, and of two
# products with the same factor it would make one.
SMALLEST_STEP = float(np.finfo(np.float32).eps)


def with_ranges(folded: keras.Model) -> keras.Model:
    """Return a copy of a network whose weights and activations are on steps, the ranges not set yet.

    Every tensor that an int8 operator computes gets a range, named after the layer it comes from. Operators
    that only move values (maxima, padding, reshaping, slices) pass the range on, as does the average pool,
    whose kernel wants one scale on both sides. Concatenated tensors share one range (`JointRanges`). The
    logits' range is part of the layer that makes them, so that a head is still its dense layer.

    Args:
        folded: see `fold`.
    """
    return _RangeSetter(FlatGraph(folded, merges=True)).result()


def _is_moving(call: Call) -> bool:
    """Return whether a call computes nothing new, so that its output is on the steps of its input."""
    return type(call.layer) not in _MAKES_VALUES


def _has_given_range(call: Call) -> bool:
    """Return whether the output of a call has a range that is not free to be another."""
    kind = type(call.layer)
    if kind is layers.ReLU:
        return call.layer.max_value not in _TOPS_OF_RELUS
    return kind is RunningSum or (kind is layers.Activation and call.layer.activation.__name__ in _FIXED)


class _RangeSetter:
    """Keeps per tensor what was computed, and once somebody asks for it, the same on the steps of a range."""

    def __init__(self, graph: FlatGraph) -> None:
        self.graph = graph
        self.exact: dict[int, Any] = {}
        self.on_steps: dict[int, Any] = {}
        # What a result of arithmetic is made of.
        self.parts: dict[int, list[Any]] = {}
        # None for a range that nobody else can borrow.
        self.range_of: dict[int, FakeQuant | None] = {}
        self.range_of_group: dict[int, FakeQuant] = {}
        # How often a tensor was put on a further range.
        self.n_requantized: Counter[int] = Counter()
        self.made: dict[int, Any] = {}
        self.logits = self._tensors_of_logits()
        given = self.logits | {call.output for call in graph.calls if _has_given_range(call)}
        self.joint = JointRanges(graph, _is_moving, given)

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
        """Return a tensor on the steps of its range: its group's, or one of its own."""
        if number not in self.on_steps:
            group = self.joint.group(number)
            is_shared = len(self.joint.sources[group]) > 1
            range_ = self._range_of_group(group) if is_shared else FakeQuant(name=self._free_name(number))
            # The range of a group is set by all of it, at its last concatenation.
            seen = {"observe": False} if is_shared else {"beside": self.parts.get(number, [])}
            self._put(number, range_(self.exact[number], **seen), range_)
        return self.on_steps[number]

    def _range_of_group(self, group: int) -> FakeQuant:
        if group not in self.range_of_group:
            name = self.graph.free_name(f"{self.joint.last[group].name}_range")
            self.range_of_group[group] = FakeQuant(name=name)
        return self.range_of_group[group]

    def _free_name(self, number: int) -> str:
        maker = self.graph.maker_of(number)
        return self.graph.free_name(f"{maker.name if maker else self.exact[number].name}_range")

    def _run(self, call: Call) -> None:
        kind, output = type(call.layer), call.output
        if kind in _KERNEL_LAYERS:
            self._kernel_layer(call)
        elif kind is layers.ReLU and call.layer.max_value in _TOPS_OF_RELUS:
            self.exact[output] = self._layer(call)(self._before_relu(call))
            self.parts[output] = self.parts.get(call.inputs[0], [])
        elif kind is layers.ReLU:
            # The end of the range clips as the layer does.
            relu = self.made.setdefault(id(call.layer), layers.ReLU(name=call.name))
            self._fix(call, relu(self._before_relu(call)), 0.0, call.layer.max_value)
        elif kind is layers.Concatenate:
            self._concatenate(call)
        elif kind is layers.GlobalAveragePooling2D:
            self._mean(call)
        elif kind is layers.Activation and call.layer.activation.__name__ in _FIXED:
            made = self._layer(call)(self.quantized(call.inputs[0]))
            self._fix(call, made, *_FIXED[call.layer.activation.__name__])
        elif kind is RunningSum:
            inputs = [self.quantized(number) for number in call.inputs]
            self._put(output, FakeQuantRunningSum(call.layer.ratio, name=call.name)(inputs), None)
        elif kind in _COMPUTES:
            inputs = [self.quantized(number) for number in call.inputs]
            self.exact[output] = self._layer(call)(inputs if len(inputs) > 1 else inputs[0])
            self.parts[output] = inputs
        else:
            self._passing(call)

    def _fix(self, call: Call, tensor: Any, low: float, high: float) -> None:
        """Put the result of a call on the steps of a range that never moves."""
        fixed = FakeQuant(None, low, high, name=self.graph.free_name(f"{call.name}_range"))
        self._put(call.output, fixed(tensor), fixed)

    def _mean(self, call: Call) -> None:
        """Run an average over all positions, on the range of what it averages where they share one."""
        number, output = call.inputs[0], call.output
        self.exact[output] = self._layer(call)(self.quantized(number))
        range_ = self.range_of[number]
        if range_ is not None and self.joint.group(output) == self.joint.group(number):
            self._put(output, range_(self.exact[output], observe=False), range_)

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
        maker = self.graph.maker_of(number)
        is_inside = maker is not None and isinstance(maker.layer, _TAKES_RELU)
        if is_inside and number not in self.on_steps and self.graph.only_consumer(number) is call:
            return self.exact[number]
        return self.quantized(number)

    def _concatenate(self, call: Call) -> None:
        group = self.joint.group(call.output)
        if not self.joint.is_joined(call):
            self._concatenate_given(call)
            return
        tensor = self._layer(call)([self.quantized(number) for number in call.inputs])
        range_ = self.range_of[call.inputs[0]]
        if self.joint.last[group] is call and group in self.range_of_group:
            tensor = self._watched(group, tensor)
        self._put(call.output, tensor, range_)

    def _watched(self, group: int, tensor: Any) -> Any:
        """Return a tensor as it is, and let the group's range see all that the group holds."""
        sources = self.joint.sources[group]
        beside = [part for number in sources for part in self.parts.get(number, [])]
        return self.range_of_group[group](
            tensor, watched=[self.exact[number] for number in sources], beside=beside
        )

    def _concatenate_given(self, call: Call) -> None:
        """Concatenate tensors of which some have a range that is not free: all are put on a further one."""
        range_ = FakeQuant(name=self.graph.free_name(f"{call.name}_range"))
        # Once per tensor: the converter fails on one that is put on the same range twice.
        distinct = [*dict.fromkeys(call.inputs)]
        joint = range_([self._before_joint_range(number, call) for number in distinct])
        tensors = [joint[distinct.index(number)] for number in call.inputs]
        self._put(call.output, self._layer(call)(tensors), range_)

    def _before_joint_range(self, number: int, call: Call) -> Any:
        """Return what is put on the steps of a range together with other tensors."""
        if number not in self.on_steps and self.graph.only_consumer(number) is call:
            return self.exact[number]
        tensor, range_ = self.quantized(number), self.range_of[number]
        if range_ is None:
            return tensor
        # Right behind the operator that computes it the converter takes no second range.
        maker = self.graph.maker_of(number)
        name = self.graph.free_name(f"{maker.name if maker else tensor.name}_requantized")
        self.n_requantized[number] += 1
        return layers.Rescaling(1 + self.n_requantized[number] * SMALLEST_STEP, name=name)(tensor)

    def _put(self, number: int, tensor: Any, range_: FakeQuant | None) -> None:
        self.on_steps[number], self.range_of[number] = tensor, range_

    def _layer(self, call: Call) -> Any:
        """Return the copy of a layer without weights."""
        if id(call.layer) not in self.made:
            self.made[id(call.layer)] = type(call.layer).from_config(call.layer.get_config())
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
        maker = self.graph.maker_of(number)
        return maker is not None and len(self.graph.calls_of(maker.layer)) == 1
