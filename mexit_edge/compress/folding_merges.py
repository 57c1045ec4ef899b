"""What layers that merge tensors element by element become in the height-1 form of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from mexit_edge.compress.flat_graph import Call
from mexit_edge.compress.folder import Folder, Rule, refuse_mixed_ranks

layers = keras.layers

# Makes the layer of a class, for a part of what is merged.
Once = Callable[..., Any]
Merge = Callable[[Once, Any, Any], Any]


def _merging(merge: Merge) -> Rule:
    """Return the rule of a layer that merges its inputs two at a time: int8 operators take no more."""
    return lambda folder, call, inputs: _merged(folder, call, inputs, merge)


def _merged(folder: Folder, call: Call, inputs: list[Any], merge: Merge, last: str = "") -> Any:
    """Return all inputs merged; the layer of the last two is the part ``last``."""
    refuse_mixed_ranks(folder, call)
    total, *others = inputs
    for number, other in enumerate(others, start=2):
        stem = last if number == len(inputs) else f"{number}"

        def once(kind: type, part: str = "", stem: str = stem) -> Any:
            return folder.once(call, lambda name: kind(name=name), "_".join(filter(None, (stem, part))))

        total = merge(once, total, other)
    return total


def _plain(kind: type) -> Merge:
    return lambda once, one, other: once(kind)([one, other])


def _maximum(once: Once, one: Any, other: Any) -> Any:
    """Return one + ReLU(other - one): the operator MAXIMUM wants one range for both and its output."""
    difference = once(layers.Subtract, "difference")([other, one])
    return once(layers.Add)([one, once(layers.ReLU, "excess")(difference)])


def _minimum(once: Once, one: Any, other: Any) -> Any:
    """Return one - ReLU(one - other)."""
    difference = once(layers.Subtract, "difference")([one, other])
    return once(layers.Subtract)([one, once(layers.ReLU, "excess")(difference)])


def _average(folder: Folder, call: Call, inputs: list[Any]) -> Any:
    total = _merged(folder, call, inputs, _plain(layers.Add), "sum")
    return folder.once(call, lambda name: layers.Rescaling(1 / len(inputs), name=name))(total)


MERGES: dict[type, Rule] = {
    layers.Add: _merging(_plain(layers.Add)),
    layers.Average: _average,
    layers.Maximum: _merging(_maximum),
    layers.Minimum: _merging(_minimum),
    layers.Multiply: _merging(_plain(layers.Multiply)),
    layers.Subtract: _merging(_plain(layers.Subtract)),
}
