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

from mexit_edge.errors import InputError

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
_PER_CHANNEL = "`keras.layers.BatchNormalization` for one per channel"
# What to use instead of an operand that is not known.
_INSTEAD: dict[str, str] = {
    **dict.fromkeys(
        ("Add", "Multiply", "Subtract"),
        f"Use one number for all channels, as `keras.layers.Rescaling` does, or {_PER_CHANNEL}.",
    ),
    **dict.fromkeys(
        ("Divide", "TrueDivide"), f"Divide by one number, use {_PER_CHANNEL}, or multiply by a tensor."
    ),
    "Maximum": "Use `keras.layers.ReLU` for the maximum with 0, `c + relu(x - c)` for that with a number c.",
    "Minimum": "Use `c - relu(c - x)`, by `keras.layers.ReLU`, for the minimum with a number c.",
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
    constant = _number(operands[1] if tensors[0] else operands[0])
    if kind not in forms or constant is None or (kind.endswith("Divide") and not constant):
        return None
    scale, offset = forms[kind](constant)
    return layers.Rescaling(scale, offset, name=operator.name)


def unusable_operand(operator: Any, arguments: Any) -> InputError | None:
    """Return the error for an operator that `layer_of` knows, though not of its operands; None for others.

    Args:
        operator: for which `layer_of` has no layer.
        arguments: of its call, as Keras keeps them.
    """
    kind = type(operator).__name__
    # Layers have the names of operators.
    if isinstance(operator, layers.Layer) or not _is_of_keras(operator) or kind not in _INSTEAD:
        return None
    takes = ["two tensors"] if kind in _BETWEEN_TENSORS else []
    takes += ["a tensor and a number"] if kind in _OF_A_CONSTANT else []
    takes += ["a tensor and, behind it, a number other than 0"] if kind.endswith("Divide") else []
    given = " and ".join(_described(one) for one in (*arguments.args, *arguments.kwargs.values()))
    return InputError(
        f"`network` must use the operator {kind} on {' or on '.join(takes)}. Received: {given} for "
        f"{operator.name!r}. {_INSTEAD[kind]}"
    )


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
    # A list once the network has been through its configuration, as in a file.
    parts = [*key] if isinstance(key, tuple | list) else [key]
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


def _number(operand: Any) -> float | None:
    """Return an operand as a number; None for an array, also of one element, and a tensor.

    An array without axes is a number once the network has been through its configuration.
    """
    is_number = isinstance(operand, Real) or (isinstance(operand, np.ndarray) and not operand.ndim)
    return float(operand) if is_number else None


def _described(operand: Any) -> str:
    if isinstance(operand, keras.KerasTensor):
        return "a tensor"
    number = _number(operand)
    if number is not None:
        return f"the number {number:g}"
    kind = type(operand).__name__
    return f"an array of shape {tuple(operand.shape)}" if hasattr(operand, "shape") else f"a {kind}"


def _range(part: Any) -> slice | None:
    if isinstance(part, slice):
        return part
    if isinstance(part, int | np.integer) and not isinstance(part, bool):
        return slice(int(part), int(part) + 1 or None)
    return None
