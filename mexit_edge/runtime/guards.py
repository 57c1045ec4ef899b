"""What an engine would compute wrongly without an error: refused before it opens the file.

TFLM and LiteRT's reference kernels run some models to wrong numbers and say nothing. Each case here was found
by running converted networks on every engine (benchmarks/variants.py, whose table a test repeats).
"""

from __future__ import annotations

from collections.abc import Mapping

from mexit_edge.errors import InputError
from mexit_edge.tflite import Graph, Operator
from mexit_edge.tflite.audit import WEIGHTED

QUANTIZED = {"INT8", "UINT8", "INT16"}


def refuse_for_tflm(graph: Graph) -> None:
    """Refuse a model whose types TFLM does not know, or of which it would read only the first scale.

    Raises:
        InputError: names the operator and the reason.
    """
    for operator in graph.operators:
        reason = _type_reason(graph, operator)
        if reason is not None:
            raise InputError(
                f"a model for TFLM must be of float32 or of integers throughout. Received: {operator.name} "
                f"(operator {operator.index}), {reason} Convert the network to 'int8'."
            )
        reason = _value_reason(graph, operator)
        if reason is not None:
            raise InputError(
                "a model for TFLM must have no operator that TFLM computes wrongly. Received: "
                f"{operator.name} (operator {operator.index}), {reason}"
            )


def refuse_untrue_shapes(graph: Graph, shapes: Mapping[int, tuple[int, ...]]) -> None:
    """Refuse a model whose stored shapes are not those that its operators compute.

    LiteRT computes every shape anew, TFLM trusts the file. They differ where a dilation was converted with a
    dynamic batch: SPACE_TO_BATCH_ND then makes more than the stored batch of 1; and in damaged files.

    Args:
        graph: of the model.
        shapes: tensor index -> shape as LiteRT computes it; of the tensors that are to be compared.

    Raises:
        InputError: names the operator and both shapes.
    """
    for operator in graph.operators:
        for index in operator.outputs:
            stored = graph.tensors[index].shape
            if shapes.get(index, stored) != stored:
                raise InputError(
                    "a model must store the shapes that its operators compute. Received: "
                    f"{operator.name} (operator {operator.index}) with {stored} instead of {shapes[index]}. "
                    "Convert the network with a static batch of 1."
                )


def refuse_for_reference(graph: Graph) -> None:
    """Refuse a model that LiteRT's reference kernels compute wrongly: a quantized SUM comes out constant.

    Raises:
        InputError: names the operator.
    """
    for operator in graph.operators:
        types = {graph.tensors[index].dtype for index in operator.inputs[:1]}
        if operator.name == "SUM" and types & QUANTIZED:
            raise InputError(
                "a model for 'litert-reference' must have no quantized SUM, which these kernels compute "
                f"wrongly. Received: SUM (operator {operator.index}). Use 'litert-builtin' or 'tflm', or a "
                "mean in place of the sum."
            )


def _type_reason(graph: Graph, operator: Operator) -> str | None:
    """Return why TFLM would run an operator wrongly or not at all, or None."""
    weights = WEIGHTED.get(operator.name, ())
    for place, index in enumerate(operator.inputs):
        if index < 0:
            continue
        tensor = graph.tensors[index]
        if tensor.dtype == "FLOAT16":
            return "with weights in float16, which TFLM does not know."
        if place not in weights and _n_scales(graph, index) > 1:
            return "reads a tensor with a scale per channel, of which TFLM takes the first for all."
        computed = graph.tensors[operator.inputs[0]].dtype
        if place in weights and tensor.dtype == "INT8" and computed == "FLOAT32":
            return "computes with int8 weights on float32 (dynamic range), which TFLM does not know."
    return None


def _value_reason(graph: Graph, operator: Operator) -> str | None:
    """Return what TFLM would compute otherwise than every kernel of LiteRT, or None.

    Both are measured operator by operator (benchmarks/op_parity.py, whose table a test repeats).
    """
    if not operator.inputs or not operator.outputs or min(operator.inputs) < 0:
        return None
    tensor, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
    if tensor.dtype not in QUANTIZED:
        return None
    requantizes = (tensor.scale, tensor.zero_point) != (result.scale, result.zero_point)
    if operator.name == "RELU6" and requantizes:
        return (
            "which does not turn codes into those of its output. Use ReLU, or put ReLU6 behind a convolution."
        )
    if operator.name == "SPACE_TO_BATCH_ND" and tensor.zero_point and len(operator.inputs) > 2:
        padding = graph.tensors[operator.inputs[2]]
        if not padding.is_constant or graph.constant(operator.inputs[2]).any():
            return "which pads with 0 in place of the zero point. Convert with a static batch of 1."
    return None


def _n_scales(graph: Graph, index: int) -> int:
    quantization = graph.subgraph.tensors[index].quantization
    return 0 if quantization is None or quantization.scale is None else len(quantization.scale)
