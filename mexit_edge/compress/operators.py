"""Operators on Keras tensors, such as `x + y`, as the layers that compute the same.

So whatever goes through a network layer by layer knows an operator once it knows its layer. Slices, which are
no layer of Keras, come as ranges per axis.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import keras
import numpy as np

layers = keras.layers
Key = tuple[slice, ...]

_BETWEEN_TENSORS: dict[str, type] = {
    "Add": layers.Add,
    "Maximum": layers.Maximum,
    "Minimum": layers.Minimum,
    "Multiply": layers.Multiply,
    "Subtract": layers.Subtract,
}
# (scale, offset) of an operator whose second operand is a constant, and of one whose first is.
_WITH_A_CONSTANT: dict[str, Callable[[float], tuple[float, float]]] = {
    "Add": lambda constant: (1.0, constant),
    "Divide": lambda constant: (1 / constant, 0.0),
    "Multiply": lambda constant: (constant, 0.0),
    "Subtract": lambda constant: (1.0, -constant),
    "TrueDivide": lambda constant: (1 / constant, 0.0),
}
_OF_A_CONSTANT: dict[str, Callable[[float], tuple[float, float]]] = {
    "Add": _WITH_A_CONSTANT["Add"],
    "Multiply": _WITH_A_CONSTANT["Multiply"],
    "Subtract": lambda constant: (-1.0, constant),
}
_OF_ONE_TENSOR: dict[str, Callable[[Any], Any]] = {
    "Concatenate": lambda operator: layers.Concatenate(operator.axis, name=operator.name),
    "Elu": lambda operator: layers.ELU(operator.alpha, name=operator.name),
    "HardSigmoid": lambda operator: layers.Activation("hard_sigmoid", name=operator.name),
    "HardSilu": lambda operator: layers.Activation("hard_silu", name=operator.name),
    "LeakyRelu": lambda operator: layers.LeakyReLU(operator.negative_slope, name=operator.name),
    "Negative": lambda operator: layers.Rescaling(-1.0, name=operator.name),
    "Relu": lambda operator: layers.ReLU(name=operator.name),
    "Relu6": lambda operator: layers.ReLU(6.0, name=operator.name),
    "Sigmoid": lambda operator: layers.Activation("sigmoid", name=operator.name),
    "Silu": lambda operator: layers.Activation("silu", name=operator.name),
    "Softmax": lambda operator: layers.Softmax(operator.axis, name=operator.name),
    "Tanh": lambda operator: layers.Activation("tanh", name=operator.name),
}


def layer_of(operator: Any, arguments: Any) -> Any | None:
    """Return the layer that computes the same as an operator, of its name; None where there is none.

    Args:
        operator: of `keras.ops`.
        arguments: of its call, as Keras keeps them.
    """
    # Classes of operators have no public names.
    kind = type(operator).__name__
    if not _is_of_keras(operator):
        return None
    if kind in _OF_ONE_TENSOR:
        return _OF_ONE_TENSOR[kind](operator)
    operands = [*arguments.args, *arguments.kwargs.values()]
    if len(operands) != 2:
        return None
    tensors = [isinstance(one, keras.KerasTensor) for one in operands]
    if all(tensors):
        return _BETWEEN_TENSORS[kind](name=operator.name) if kind in _BETWEEN_TENSORS else None
    forms = _WITH_A_CONSTANT if tensors[0] else _OF_A_CONSTANT
    constant = operands[1] if tensors[0] else operands[0]
    if kind not in forms or not isinstance(constant, Real) or (kind.endswith("Divide") and not constant):
        return None
    scale, offset = forms[kind](float(constant))
    return layers.Rescaling(scale, offset, name=operator.name)


def is_slice(operator: Any) -> bool:
    """Return whether an operation is `x[...]`."""
    return type(operator).__name__ == "GetItem" and _is_of_keras(operator)


def slice_key(arguments: Any, rank: int) -> Key | None:
    """Return the ranges of a slice of a tensor of height 1.

    An index is a range of one element; whoever takes it reshapes afterwards.

    Args:
        arguments: of the call of `x[...]`, as Keras keeps them.
        rank: of the tensor in its network; of rank 3 the height is still to come.

    Returns:
        A range per axis; None where the batch is not taken whole, or an axis by something else.
    """
    key = arguments.args[1] if len(arguments.args) > 1 else arguments.kwargs["key"]
    parts = [*key] if isinstance(key, tuple) else [key]
    places = [place for place, part in enumerate(parts) if part is Ellipsis]
    for place in places[:1]:
        parts[place : place + 1] = [slice(None)] * (rank - len(parts) + 1)
    ranges = [_range(part) for part in parts]
    if len(ranges) > rank or not ranges or ranges[0] != slice(None):
        return None
    if rank == 3:
        ranges.insert(1, slice(None))
    return None if None in ranges else tuple(one for one in ranges if one is not None)


def known_operators() -> list[str]:
    """Return the names of the operators that `layer_of` and `slice_key` take."""
    return sorted({*_BETWEEN_TENSORS, *_WITH_A_CONSTANT, *_OF_A_CONSTANT, *_OF_ONE_TENSOR, "GetItem"})


def _is_of_keras(operator: Any) -> bool:
    return type(operator).__module__.partition(".")[0] == "keras"


def _range(part: Any) -> slice | None:
    if isinstance(part, slice):
        return part
    if isinstance(part, int | np.integer) and not isinstance(part, bool):
        return slice(int(part), int(part) + 1 or None)
    return None
