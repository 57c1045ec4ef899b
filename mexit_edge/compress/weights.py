"""How many zeros and distinct values kernels hold, in a Keras network and in a .tflite.

Both make a file smaller when it is compressed, and only then: TFLite stores every weight, and dense kernels
multiply by zero like by any other number.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.tflite import Graph

# Operator -> axis of its weights that holds the output channels.
_OUTPUT_CHANNELS = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "DEPTHWISE_CONV_2D": 3}


@dataclass(frozen=True)
class KernelFacts:
    """What one kernel holds.

    Args:
        layer: name of the layer; of the operator's output in a .tflite.
        kernel: name of the variable in the layer, such as ``"kernel"``; the operator's name in a .tflite.
        elements: number of weights.
        zeros: how many of them are 0.
        distinct: how many different values there are.
        distinct_per_channel: the same within one output channel, in the channel that has most.
    """

    layer: str
    kernel: str
    elements: int
    zeros: int
    distinct: int
    distinct_per_channel: int

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return self.zeros / self.elements

    @property
    def is_depthwise(self) -> bool:
        """Whether it is the kernel of a depthwise convolution: pruning and clustering leave these alone."""
        return self.kernel in ("depthwise_kernel", "DEPTHWISE_CONV_2D")


def kernel_facts(network: keras.Model | bytes) -> tuple[KernelFacts, ...]:
    """Return the facts of all kernels of convolutions and dense layers.

    Args:
        network: a Keras model, or a .tflite.

    Raises:
        InputError: the bytes are no .tflite.
    """
    return _of_tflite(network) if isinstance(network, bytes) else _of_keras(network)


def sparsity(network: keras.Model | bytes) -> float:
    """Return the share of zeros among the weights of all kernels, depthwise ones included.

    Raises:
        InputError: there is no kernel, or the bytes are no .tflite.
    """
    facts = kernel_facts(network)
    if not facts:
        raise InputError("`network` must have a convolution or a dense layer. Received: one without kernels.")
    return sum(one.zeros for one in facts) / sum(one.elements for one in facts)


def zipped_bytes(content: bytes) -> int:
    """Return the size of bytes after DEFLATE at its highest level, the method of zip and gzip."""
    return len(zlib.compress(content, 9))


def kernels(network: Any) -> list[tuple[Any, str, Any]]:
    """Return (layer, name, variable) of all kernels of a Keras model, nested ones included, each once."""
    found = {
        id(variable): (layer, _kernel_name(layer, variable), variable)
        for layer in network._flatten_layers(include_self=False)
        for variable in layer.weights
        if variable.name in ("kernel", "depthwise_kernel", "pointwise_kernel")
        # A model has its layers' weights too.
        and not isinstance(layer, keras.Model)
    }
    return list(found.values())


def _kernel_name(layer: Any, variable: Any) -> str:
    depthwise = isinstance(layer, keras.layers.DepthwiseConv1D | keras.layers.DepthwiseConv2D)
    return "depthwise_kernel" if depthwise else str(variable.name)


def _of_keras(network: keras.Model) -> tuple[KernelFacts, ...]:
    found = []
    for layer, name, variable in kernels(network):
        values = np.asarray(variable)
        # (..., channels, multiplier) of a depthwise kernel: each pair is an output channel.
        n_channels = values.shape[-1] * (values.shape[-2] if name == "depthwise_kernel" else 1)
        found.append(_facts(layer.name, name, values, values.reshape(-1, n_channels).T))
    return tuple(found)


def _of_tflite(content: bytes) -> tuple[KernelFacts, ...]:
    graph = Graph(content)
    found = []
    for operator in graph.operators:
        axis = _OUTPUT_CHANNELS.get(operator.name)
        if axis is not None and graph.tensors[operator.inputs[1]].is_constant:
            values = graph.constant(operator.inputs[1])
            channels = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
            name = graph.tensors[operator.outputs[0]].name
            found.append(_facts(name, operator.name, values, channels))
    return tuple(found)


def _facts(layer: str, kernel: str, values: NDArray[Any], channels: NDArray[Any]) -> KernelFacts:
    return KernelFacts(
        layer=layer,
        kernel=kernel,
        elements=int(values.size),
        zeros=int(np.count_nonzero(values == 0)),
        distinct=len(np.unique(values)),
        distinct_per_channel=max(len(np.unique(channel)) for channel in channels),
    )
