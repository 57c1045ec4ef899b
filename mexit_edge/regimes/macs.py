"""What a training step computes, read off the graph that TensorFlow builds of it.

`macs` counts multiply-accumulates of matrix products and convolutions, those on padding included. Left out on
purpose: elementwise arithmetic, normalisation, pooling, softmax, the optimizer's update, look-ups and matrix
decompositions.

A graph says more than a list of layers: a frozen layer has no gradient of its weights, the first layer none
of its input, and a second-order step differentiates its own gradients. It is counted before TensorFlow
optimizes it, but for the pruning of what nobody reads: equal products that are built twice count twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import tensorflow as tf

from mexit_edge.errors import InputError


@dataclass(frozen=True)
class StepMacs:
    """Multiply-accumulates of one step, for all windows of its batch together.

    Steps add up, and a number times a step is rounded to whole multiply-accumulates.

    Args:
        forward: of the forward pass.
        backward: of everything computed to differentiate, gradients of gradients included.
    """

    forward: int
    backward: int

    def __add__(self, other: StepMacs) -> StepMacs:
        """Return the sum, pass by pass."""
        return StepMacs(self.forward + other.forward, self.backward + other.backward)

    def __mul__(self, times: int | float) -> StepMacs:
        """Return the cost of so many steps; a share of a step is rounded, pass by pass."""
        return StepMacs(round(self.forward * times), round(self.backward * times))

    __rmul__ = __mul__


_ZERO = StepMacs(0, 0)


def traced_macs(function: Callable[..., Any], *specs: Any) -> StepMacs | None:
    """Trace a function once, without running it, and count its multiply-accumulates.

    What the function assigns (weights, metrics, states) stays as it is. It is traced as Keras traces a
    `train_step`, without AutoGraph; wrap it in `tf.function` where it needs that.

    Args:
        function: takes tensors of these shapes. Its products count if a tensor it returns or a side effect
            (an assignment) depends on them.
        *specs: a `tf.TensorSpec`, or a nested structure of them, per argument, with the batch in its shape.

    Returns:
        The count, or None where it is unknown (see `count_macs`).

    Raises:
        InputError: the function creates variables. An optimizer that was interrupted in it is half built and
            must be made anew.

    Example:
        ```python
        window, label = tf.TensorSpec((64, 128, 6)), tf.TensorSpec((64,), tf.int32)
        traced_macs(lambda x, y: model.train_step((x, y)), window, label)
        ```
    """
    created: list[Any] = []

    def refuse(_: Any, **options: Any) -> Any:
        created.append(options.get("name"))
        raise InputError("`function` must create no variables.")

    def guarded(*tensors: Any) -> Any:
        with tf.variable_creator_scope(refuse):
            return function(*tensors)

    try:
        traced = tf.function(guarded, autograph=False).get_concrete_function(*specs)
    except Exception as error:
        # Keras and AutoGraph put words of their own around what they pass on.
        if not created:
            raise
        raise InputError(
            f"`function` must create no variables. Received: one that creates {created[0]!r}. Build the "
            "layers and the optimizer first, the latter by `optimizer.build(model.trainable_variables)`."
        ) from error
    return count_macs(traced.graph)


def count_macs(graph: tf.Graph) -> StepMacs | None:
    """Count the multiply-accumulates of a graph.

    In the graph of a function those operations count on which its outputs or side effects depend, in any
    other graph all of them. Functions that are called count as often as they are called. Of the branches of a
    conditional the one with the larger sum counts. A dilated convolution counts as TensorFlow runs it, on a
    length padded to a multiple of the dilation.

    A product belongs to the backward pass if it was built for a gradient: see `_is_backward`.

    Args:
        graph: `tf.Graph`; for a traced function the `graph` of its concrete function.

    Returns:
        The count, or None where it is unknown: a product of which a dimension is not static; a product in a
        loop (a Keras LSTM or GRU has none with `unroll=True`); an operation that hides or may hold products
        and is not in the table of this module (sparse and quantized products, `tf.py_function`).
    """
    return _of_graph(graph, None, backward=False)


def _of_graph(graph: Any, used: Iterable[int] | None, backward: bool) -> StepMacs | None:
    """Count a graph of which these outputs are used (None: all)."""
    total = _ZERO
    for operation, outputs in _needed(graph, used).items():
        macs = _of_operation(operation, outputs, backward)
        if macs is None:
            return None
        total += macs
    return total


def _needed(graph: Any, used: Iterable[int] | None) -> dict[Any, set[int]]:
    """Return the operations that run, each with the indices of its outputs that are used.

    TensorFlow prunes all others before it runs a function: a convolution's gradient, for example, always
    comes with that of its input, which for the first layer nobody reads.
    """
    if not hasattr(graph, "control_outputs"):
        return {operation: set(range(len(operation.outputs))) for operation in graph.get_operations()}
    outputs = graph.outputs if used is None else [graph.outputs[index] for index in used]
    pending: list[tuple[Any, int | None]] = [(tensor.op, tensor.value_index) for tensor in outputs]
    pending += [(operation, None) for operation in graph.control_outputs]
    needed: dict[Any, set[int]] = {}
    while pending:
        operation, index = pending.pop()
        if operation not in needed:
            needed[operation] = set()
            pending += [(tensor.op, tensor.value_index) for tensor in operation.inputs]
            pending += [(before, None) for before in operation.control_inputs]
        if index is not None:
            needed[operation].add(index)
    return needed


_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_BRANCHES = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
# Operations that hold or hide products by their names: without a rule they are unknown.
_PRODUCTS = re.compile(
    r"Conv(?!ert)|MatMul|Matmul|Einsum|Dot|RNN|LSTM|GRU|PyFunc|XlaCallModule|XlaLaunch|^(Ref)?Enter$"
)

# Numbered where `tf.gradients` is called again.
_GRADIENT_SCOPE = re.compile(r"(^|/)(gradient_tape|gradients)(_\d+)?/")


def _of_operation(operation: Any, used: set[int], backward: bool) -> StepMacs | None:
    """Count an operation of which these outputs are used, within a backward pass or not."""
    if (rule := _RULES.get(operation.type)) is not None:
        macs = rule(operation)
        if macs is None:
            return None
        return StepMacs(0, macs) if backward or _is_backward(operation) else StepMacs(macs, 0)
    if _PRODUCTS.search(operation.type):
        return None
    functions = _functions(operation)
    return _of_functions(operation, functions, used, backward) if functions else _ZERO


def _of_functions(operation: Any, functions: list[Any], used: set[int], backward: bool) -> StepMacs | None:
    """Count an operation that calls functions; what a gradient calls is backward, whatever its names."""
    backward = backward or _is_backward(operation)
    runs_once = operation.type in _CALLS | _BRANCHES
    # Calls are inlined and then pruned, unless XLA compiles them: then it computes every output.
    pruned = runs_once and not operation.node_def.attr["_XlaMustCompile"].b
    bodies = []
    for graph in functions:
        macs = None if graph is None else _of_graph(graph, used if pruned else None, backward)
        if macs is None:
            return None
        bodies.append(macs)
    if runs_once:
        return max(bodies, key=lambda body: body.forward + body.backward)
    # How often a loop runs is unknown; without products that does not matter.
    return _ZERO if all(body == _ZERO for body in bodies) else None


def _functions(operation: Any) -> list[Any]:
    """Return the graphs (None where there is none) of the functions an operation calls."""
    fields = [field.name for field in operation.op_def.attr if field.type in ("func", "list(func)")]
    values = [operation.node_def.attr[field] for field in fields]
    names = [
        function.name
        for value in values
        for function in ([value.func] if value.HasField("func") else value.list.func)
    ]
    return [getattr(operation.graph._get_function(name), "graph", None) for name in names]


def _is_backward(operation: Any) -> bool:
    """Tell whether an operation was built for a gradient.

    A tape names what it builds ``gradient_tape/...``, and the gradients of a called function and of a branch
    are named ``gradients/...``. What a backward function of one's own builds (`tf.custom_gradient`, and what
    `keras.remat` computes anew) has a plain name, but there the tape is on the stack that built it.
    """
    if _GRADIENT_SCOPE.search(operation.name):
        return True
    return any(frame.filename.endswith("imperative_grad.py") for frame in operation.traceback or ())


def _dims(tensor: Any) -> tuple[int, ...] | None:
    return tuple(tensor.shape) if tensor.shape.is_fully_defined() else None


def _matrix_product(transposed: str) -> Callable[[Any], int | None]:
    """Return the rule of a product whose first factor is transposed by that attribute."""

    def rule(operation: Any) -> int | None:
        left, product = _dims(operation.inputs[0]), _dims(operation.outputs[0])
        if left is None or product is None:
            return None
        return prod(product) * left[-2 if operation.get_attr(transposed) else -1]

    return rule


def _convolution(small: Callable[[Any], Any], weights: Callable[[Any], Any]) -> Callable[[Any], int | None]:
    """Return the rule of a convolution or one of its gradients: all three meet the same pairs of numbers.

    Args:
        small: the tensor (n, positions, channels) on the side of the convolution's output.
        weights: the filter, or its gradient: (kernel, channels per group, channels), or for a depthwise one
            (kernel, channels, multiplier). Each of its elements is used once per position.
    """

    def rule(operation: Any) -> int | None:
        positions, kernel = _dims(small(operation)), _dims(weights(operation))
        if positions is None or kernel is None:
            return None
        channels_first = operation.get_attr("data_format").startswith(b"NC")
        channel = 1 if channels_first else len(positions) - 1
        return prod(positions[:channel]) * prod(positions[channel + 1 :]) * prod(kernel)

    return rule


def _einsum(operation: Any) -> int | None:
    """Count an `Einsum` as TensorFlow runs it: as one batched matrix product."""
    equation = operation.get_attr("equation").decode()
    shapes = [_dims(tensor) for tensor in operation.inputs]
    # The letters of an ellipsis are not known.
    if "." in equation or None in shapes:
        return None
    factors, _, product = equation.partition("->")
    terms = factors.split(",")
    if len(terms) == 1:
        return 0
    sizes = {
        letter: size
        for term, shape in zip(terms, shapes, strict=True)
        for letter, size in zip(term, shape or (), strict=True)
    }
    # A letter of one factor alone is summed before the product.
    return prod(
        size for letter, size in sizes.items() if letter in product or all(letter in term for term in terms)
    )


_FORWARD = _convolution(lambda op: op.outputs[0], lambda op: op.inputs[1])
# Also what a transposed convolution does forward.
_TO_INPUT = _convolution(lambda op: op.inputs[2], lambda op: op.inputs[1])
_TO_FILTER = _convolution(lambda op: op.inputs[2], lambda op: op.outputs[0])
_RULES: dict[str, Callable[[Any], int | None]] = {
    "MatMul": _matrix_product("transpose_a"),
    "BatchMatMul": _matrix_product("adj_x"),
    "BatchMatMulV2": _matrix_product("adj_x"),
    "BatchMatMulV3": _matrix_product("adj_x"),
    "Einsum": _einsum,
    "Conv2D": _FORWARD,
    "Conv2DBackpropInput": _TO_INPUT,
    "Conv2DBackpropFilter": _TO_FILTER,
    "Conv3D": _FORWARD,
    "Conv3DBackpropInputV2": _TO_INPUT,
    "Conv3DBackpropFilterV2": _TO_FILTER,
    "DepthwiseConv2dNative": _FORWARD,
    "DepthwiseConv2dNativeBackpropInput": _TO_INPUT,
    "DepthwiseConv2dNativeBackpropFilter": _TO_FILTER,
}
