"""Build a small int8 .tflite operator by operator, with random weights and quantizations that keep it alive.

Activations have about the same spread in codes all the way through, so that no output is constant: the scale
of the weights makes up for their sum of squares. The time of these operators does not depend on the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, prod
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from mexit_edge.tflite.flatbuffer import serialize

Image = tuple[int, int]

SCALE = 0.025  # of activations, whose codes spread by about 40 around 0
BIAS_CODES = 10  # of the output, at most
# Operator -> version of it that computes int8, or the first one where the type makes no difference.
_VERSIONS = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "RESHAPE": 1,
}


class ProbeBuilder:
    """A model under construction. Methods add an operator and return the index of its output.

    Paddings are such that sizes shrink by the stride alone.

    Args:
        shape: of the input, (1, height, width, channels) or (1, features).
        seed: of the weights.
    """

    def __init__(self, shape: Sequence[int], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._codes: dict[str, int] = {}
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._model = schema.ModelT()
        self._model.version, self._model.description = 3, b"probe"
        self._model.operatorCodes, self._model.subgraphs = [], [self._graph]
        # The format wants the first one empty: it stands for "no values".
        self._model.buffers = [schema.BufferT()]
        self.window = self._tensor(shape, [SCALE])

    def convolution(self, source: int, channels: int, kernel: Image, stride: int = 1) -> int:
        """Add a CONV_2D with weights quantized per channel."""
        shape = self._shape(source)
        weights = self._weights(source, (channels, *kernel, shape[3]), 0)
        options = _made("Conv2DOptions", padding=schema.Padding.SAME, strideH=_down(shape, stride))
        options.strideW = stride
        return self._operator("CONV_2D", [source, *weights], self._strided(shape, stride, channels), options)

    def depthwise(self, source: int, kernel: Image, stride: int = 1) -> int:
        """Add a DEPTHWISE_CONV_2D with weights quantized per channel."""
        shape = self._shape(source)
        weights = self._weights(source, (1, *kernel, shape[3]), 3)
        options = _made("DepthwiseConv2DOptions", padding=schema.Padding.SAME, strideH=_down(shape, stride))
        options.strideW, options.depthMultiplier = stride, 1
        result = self._strided(shape, stride, shape[3])
        return self._operator("DEPTHWISE_CONV_2D", [source, *weights], result, options)

    def dense(self, source: int, features: int) -> int:
        """Add a FULLY_CONNECTED, with one scale for all weights: not every release of TFLM takes more."""
        weights = self._weights(source, (features, prod(self._shape(source))), None)
        result = self._tensor((1, features), [SCALE])
        options = _made("FullyConnectedOptions")
        return self._operator("FULLY_CONNECTED", [source, *weights], result, options)

    def add(self, left: int, right: int) -> int:
        """Add an ADD of two tensors of one shape."""
        result = self._tensor(self._shape(left), [hypot(self._scale(left), self._scale(right))])
        return self._operator("ADD", [left, right], result, _made("AddOptions"))

    def pool(self, source: int, name: str, size: Image, stride: int = 1) -> int:
        """Add a MAX_POOL_2D or an AVERAGE_POOL_2D."""
        shape = self._shape(source)
        options = _made("Pool2DOptions", padding=schema.Padding.SAME, strideH=_down(shape, stride))
        options.strideW, (options.filterHeight, options.filterWidth) = stride, size
        result = self._strided(shape, stride, shape[3], self._scale(source))
        return self._operator(name, [source], result, options)

    def mean(self, source: int) -> int:
        """Add a MEAN over height and width."""
        shape = self._shape(source)
        axes = self._tensor([2], None, np.array([1, 2], np.int32))
        # A mean varies less than what it is of; but where that is not centred, the mean is not, either.
        result = self._tensor((1, shape[3]), [self._scale(source) / 2])
        return self._operator("MEAN", [source, axes], result, _made("ReducerOptions"))

    def reshape(self, source: int, shape: Sequence[int]) -> int:
        """Add a RESHAPE."""
        target = self._tensor([len(shape)], None, np.array(shape, np.int32))
        result = self._tensor(shape, [self._scale(source)])
        options = _made("ReshapeOptions", newShape=np.array(shape, np.int32))
        return self._operator("RESHAPE", [source, target], result, options)

    def content(self, output: int) -> bytes:
        """Return the .tflite whose output this is."""
        self._graph.inputs, self._graph.outputs = [self.window], [output]
        return serialize(self._model)

    def _weights(self, source: int, shape: Sequence[int], axis: int | None) -> tuple[int, int]:
        """Add weights and biases for a scale per channel along an axis, or for a single one."""
        signs = self._rng.choice(np.array([-1, 1], np.int8), shape)
        # No weight near 0: the one of a 1x1 depthwise convolution would end all that comes after.
        values = signs * self._rng.integers(32, 128, shape, np.int8)
        channels = np.moveaxis(values, axis or 0, 0).reshape(shape[axis or 0], -1).astype(np.float64)
        norms = np.sqrt(np.square(channels).sum(axis=1))
        if axis is None:
            norms = np.sqrt([np.square(norms).mean()])
        scales = SCALE / (self._scale(source) * norms)
        # One code of the output is as many of the sum as the norm of the weights.
        biases = self._rng.uniform(-BIAS_CODES, BIAS_CODES, len(channels)) * norms
        weights = self._tensor(shape, scales, values, axis or 0)
        bias_scales = self._scale(source) * scales
        return weights, self._tensor([len(channels)], bias_scales, np.rint(biases).astype(np.int32))

    def _strided(self, shape: Sequence[int], stride: int, channels: int, scale: float = SCALE) -> int:
        height, width = -(-shape[1] // _down(shape, stride)), -(-shape[2] // stride)
        return self._tensor((1, height, width, channels), [scale])

    def _tensor(
        self,
        shape: Sequence[int],
        scales: Sequence[float] | NDArray[np.float64] | None,
        values: NDArray[Any] | None = None,
        axis: int = 0,
    ) -> int:
        """Add a tensor of the type of its values; of int8, where it has none."""
        tensor = schema.TensorT()
        tensor.shape, tensor.buffer = np.array(shape, np.int32), 0
        is_int32 = values is not None and values.dtype == np.int32
        tensor.type = schema.TensorType.INT32 if is_int32 else schema.TensorType.INT8
        if scales is not None:
            tensor.quantization = quantization = schema.QuantizationParametersT()
            quantization.scale = np.array(scales, np.float32)
            quantization.zeroPoint = np.zeros(len(scales), np.int64)
            quantization.quantizedDimension = axis
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            tensor.buffer = len(self._model.buffers)
            self._model.buffers.append(buffer)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _operator(self, name: str, inputs: Sequence[int], output: int, options: Any) -> int:
        raw = schema.OperatorT()
        raw.opcodeIndex = self._code(name)
        raw.inputs, raw.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        raw.builtinOptions = options
        raw.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self._graph.operators.append(raw)
        return output

    def _code(self, name: str) -> int:
        if name not in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
            code.version = _VERSIONS[name]
            self._codes[name] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(code)
        return self._codes[name]

    def _shape(self, index: int) -> tuple[int, ...]:
        return tuple(map(int, self._graph.tensors[index].shape))

    def _scale(self, index: int) -> float:
        return float(self._graph.tensors[index].quantization.scale[0])


def _made(kind: str, **fields: Any) -> Any:
    options = getattr(schema, f"{kind}T")()
    for name, value in fields.items():
        setattr(options, name, value)
    return options


def _down(shape: Sequence[int], stride: int) -> int:
    """Return the stride along the height: none in what is one high, a sequence."""
    return 1 if shape[1] == 1 else stride
