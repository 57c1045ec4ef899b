"""Make a model of static batch 1 accept any batch, without changing what it computes."""

from __future__ import annotations

import copy

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mexit_edge.tflite.flatbuffer import serialize
from mexit_edge.tflite.graph import Graph


def batchable(content: bytes) -> bytes:
    """Return the model with its leading batch of 1 made free, for batched evaluation in LiteRT.

    A model converted with a static batch cannot be resized because its RESHAPEs name the batch. Their shape
    constants get -1 there, and every activation a dynamic leading axis in its shape signature.

    Args:
        content: a .tflite whose activations have a leading axis of 1.
    """
    graph = Graph(content)
    for operator in graph.operators:
        raw = graph.subgraph.operators[operator.index]
        if operator.name == "RESHAPE" and len(operator.inputs) > 1:
            target = graph.constant(operator.inputs[1]).copy()
            if len(target) and target[0] == 1 and -1 not in target:
                target[0] = -1
                buffer = schema.BufferT()
                buffer.data = np.frombuffer(target.tobytes(), np.uint8)
                graph.model.buffers.append(buffer)
                # The constant may be shared with another operator: give this one a tensor of its own.
                tensor = copy.copy(graph.subgraph.tensors[operator.inputs[1]])
                tensor.buffer = len(graph.model.buffers) - 1
                graph.subgraph.tensors.append(tensor)
                raw.inputs = np.asarray([operator.inputs[0], len(graph.subgraph.tensors) - 1], np.int32)
                raw.builtinOptions, raw.builtinOptionsType = None, 0
    activations = {index for operator in graph.operators for index in operator.outputs} | set(graph.inputs)
    for index in activations:
        shape = graph.tensors[index].shape
        if shape and shape[0] == 1:
            graph.subgraph.tensors[index].shapeSignature = np.asarray([-1, *shape[1:]], np.int32)
    return serialize(graph.model)
