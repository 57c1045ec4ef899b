"""All stages as signatures of one file, for LiteRT on phones.

Each stage is a subgraph of its own with the signature ``stage_01``, ``stage_02``, ...; the app runs one after
the other and stops when it is sure. Values that several stages share are stored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mexit_edge.bundle import Bundle
from mexit_edge.errors import InputError
from mexit_edge.tflite.cut import CutStage
from mexit_edge.tflite.extract import signature
from mexit_edge.tflite.flatbuffer import serialize
from mexit_edge.tflite.graph import Graph


def phone_model(stages: Sequence[CutStage]) -> bytes:
    """Return one .tflite with a signature per stage.

    Args:
        stages: of one model, in order; inputs and outputs of the signatures have their names.

    Raises:
        InputError: there is no stage.
    """
    return _merged(
        [
            _Part(stage.content, [name for name, _ in stage.inputs], [name for name, _ in stage.outputs])
            for stage in stages
        ]
    )


def phone_bundle(bundle: Bundle) -> bytes:
    """Return one .tflite with a signature per stage of a bundle.

    Example:
        ```python
        bundle.with_phone(phone_bundle(bundle)).save("tflite_models/hapt")
        ```
    """
    return _merged(
        [
            _Part(
                content,
                [tensor.name for tensor in spec.inputs],
                [tensor.name for tensor in spec.outputs],
            )
            for spec, content in zip(bundle.manifest.stages, bundle.stages, strict=True)
        ]
    )


@dataclass(frozen=True)
class _Part:
    """A stage's file, and the names of its inputs and outputs in the file's order."""

    content: bytes
    inputs: list[str]
    outputs: list[str]


def _merged(parts: Sequence[_Part]) -> bytes:
    if not parts:
        raise InputError("`stages` must hold at least one stage. Received: none.")
    model = schema.ModelT()
    model.version = 3
    model.operatorCodes, model.buffers = [], [schema.BufferT()]
    model.subgraphs, model.signatureDefs = [], []
    codes: dict[tuple[Any, ...], int] = {}
    buffers: dict[bytes, int] = {}
    for number, part in enumerate(parts, start=1):
        graph = Graph(part.content)
        key = f"stage_{number:02d}".encode()
        model.signatureDefs.append(
            signature(
                key,
                number - 1,
                dict(zip(part.inputs, graph.inputs, strict=True)),
                dict(zip(part.outputs, graph.outputs, strict=True)),
            )
        )
        subgraph = graph.subgraph
        subgraph.name = key
        for operator in subgraph.operators:
            code = graph.model.operatorCodes[operator.opcodeIndex]
            facts = (code.builtinCode, code.deprecatedBuiltinCode, code.customCode, code.version)
            if facts not in codes:
                codes[facts] = len(model.operatorCodes)
                model.operatorCodes.append(code)
            operator.opcodeIndex = codes[facts]
        for tensor in subgraph.tensors:
            tensor.buffer = _buffer(model, buffers, graph.model.buffers[tensor.buffer].data)
        model.subgraphs.append(subgraph)
    return serialize(model)


def _buffer(model: schema.ModelT, buffers: dict[bytes, int], data: Any) -> int:
    """Return the index of a buffer with these values, made if there is none yet."""
    if data is None or not len(data):
        return 0
    values = np.asarray(data, np.uint8)
    key = values.tobytes()
    if key not in buffers:
        fresh = schema.BufferT()
        fresh.data = values
        buffers[key] = len(model.buffers)
        model.buffers.append(fresh)
    return buffers[key]
