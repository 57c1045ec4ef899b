"""Bytes of a .tflite to the object form of TFLite's schema, and back."""

from __future__ import annotations

import struct
from math import isfinite, prod
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from mexit_edge.errors import InputError
from mexit_edge.tflite.verify import IDENTIFIER, damaged, verify

MAX_ELEMENTS = 1 << 31
QUANTIZED_TYPES = {schema.TensorType.INT8, schema.TensorType.UINT8, schema.TensorType.INT16}


def parse(content: bytes) -> Any:
    """Return the object form (ModelT) of a .tflite.

    Raises:
        InputError: the bytes are no .tflite, or a damaged one, or more than 256 MiB.
    """
    verify(content)
    try:
        return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(content), 0))
    except (struct.error, IndexError, ValueError, TypeError, MemoryError, OverflowError) as error:
        raise damaged(f"{error}") from error


def serialize(model: Any) -> bytes:
    """Return the bytes of an object form (ModelT)."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def text(raw: bytes | str | None) -> str:
    """Return a flatbuffer string as text."""
    if raw is None:
        return ""
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw


def refuse_unsound(model: Any, subgraph: Any) -> None:
    """Refuse a graph that cannot be followed, so that everything after this may follow indices.

    Lists that the file leaves out become empty ones.

    Raises:
        InputError: a tensor, operator, buffer or operator code is referred to that is not there; values stand
            outside of the file's buffers; a shape is negative or too large; a scale is no positive number; an
            operator reads what a later one makes; or a tensor has two producers.
    """
    for holder, names in (
        (model, ("buffers", "operatorCodes")),
        (subgraph, ("tensors", "operators", "inputs", "outputs")),
        *((operator, ("inputs", "outputs")) for operator in subgraph.operators or []),
    ):
        for name in names:
            if getattr(holder, name) is None:
                setattr(holder, name, [])
    _refuse_dangling(model, subgraph)
    _refuse_external(model, subgraph)
    for index, raw in enumerate(subgraph.tensors):
        shape = [] if raw.shape is None else [int(size) for size in raw.shape]
        if any(size < 0 for size in shape) or prod(shape) > MAX_ELEMENTS:
            raise InputError(
                f"every tensor must have a shape of sizes from 0 on and at most {MAX_ELEMENTS} elements. "
                f"Received: {_called(subgraph, index)} of shape {tuple(shape)}."
            )
    _refuse_scales(model, subgraph)
    _refuse_disorder(model, subgraph)


def _refuse_dangling(model: Any, subgraph: Any) -> None:
    n_tensors = len(subgraph.tensors)
    signatures = (model.signatureDefs or [])[:1]
    named = [
        entry.tensorIndex
        for signature in signatures
        for entry in (*(signature.inputs or []), *(signature.outputs or []))
    ]
    read = [int(index) for operator in subgraph.operators for index in operator.inputs]
    made = [int(index) for operator in subgraph.operators for index in operator.outputs]
    whole = (
        all(0 <= raw.buffer < len(model.buffers) for raw in subgraph.tensors)
        and all(0 <= raw.opcodeIndex < len(model.operatorCodes) for raw in subgraph.operators)
        and all(0 <= index < n_tensors for index in (*subgraph.inputs, *subgraph.outputs, *named, *made))
        # -1 stands for an optional input that is absent.
        and all(-1 <= index < n_tensors for index in read)
    )
    if not whole:
        raise InputError("a model must be a whole .tflite file. Received: one with an index out of range.")


def _refuse_external(model: Any, subgraph: Any) -> None:
    """Refuse values that stand behind the flatbuffer or in other files: nothing here would copy them."""
    outside = (
        any(raw.offset or raw.size for raw in model.buffers)
        or bool(model.externalBuffers)
        or any(raw.externalBuffer for raw in subgraph.tensors)
        or any(raw.largeCustomOptionsOffset for raw in subgraph.operators)
    )
    if outside:
        raise InputError(
            "a model must hold its values in its own buffers. Received: one with values behind its end or in "
            "another file. Convert it anew, below 2 GB."
        )


def _refuse_scales(model: Any, subgraph: Any) -> None:
    """Refuse scales that LiteRT does not survive: it ends the process on an activation whose scale is 0."""
    for index, raw in enumerate(subgraph.tensors):
        quantization = raw.quantization
        if raw.type not in QUANTIZED_TYPES or quantization is None or quantization.scale is None:
            continue
        data = model.buffers[raw.buffer].data
        # Converters write 0 for weights that are all 0.
        is_constant = data is not None and len(data) > 0
        wrong = [
            float(scale)
            for scale in quantization.scale
            if not isfinite(scale) or scale < 0 or (scale == 0 and not is_constant)
        ]
        if wrong:
            raise InputError(
                "every quantized tensor must have positive, finite scales. "
                f"Received: {_called(subgraph, index)} with the scale {wrong[0]}. Convert the model again."
            )


def _refuse_disorder(model: Any, subgraph: Any) -> None:
    """Refuse what is no list of operators in an order in which they can run."""
    stored = {
        index
        for index, raw in enumerate(subgraph.tensors)
        if model.buffers[raw.buffer].data is not None and len(model.buffers[raw.buffer].data)
    }
    there = stored | {int(index) for index in subgraph.inputs}
    to_come = {int(index) for operator in subgraph.operators for index in operator.outputs}
    for operator in subgraph.operators:
        early = [int(index) for index in operator.inputs if index in to_come and index not in there]
        twice = [int(index) for index in operator.outputs if index in there]
        if early or twice:
            index = (early or twice)[0]
            why = "read before an operator makes it" if early else "which has two producers"
            raise InputError(
                "operators must stand in an order in which they can run, one producer per tensor. "
                f"Received: {_called(subgraph, index)}, {why}."
            )
        there.update(int(index) for index in operator.outputs)


def _called(subgraph: Any, index: int) -> str:
    name = text(subgraph.tensors[index].name)
    return f"tensor {index} ({name!r})" if name else f"tensor {index}"
