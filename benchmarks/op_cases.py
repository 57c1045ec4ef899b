"""Models of one int8 operator each, with random weights and quantizations, for `op_parity.py`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fixtures_networks import HandModel

Rng = np.random.Generator
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID
NO_ACTIVATION, RELU, RELU6 = (
    schema.ActivationFunctionType.NONE,
    schema.ActivationFunctionType.RELU,
    schema.ActivationFunctionType.RELU6,
)
IMAGE = (1, 9, 10, 8)


@dataclass(frozen=True)
class Case:
    """A model of one operator.

    Args:
        operator: name in the TFLite schema.
        variant: what is particular about it.
        content: the .tflite.
    """

    operator: str
    variant: str
    content: bytes


def hand_made(draws: int, seed: int = 0) -> Iterator[Case]:
    """Make every case with so many draws of weights and quantizations."""
    for (operator, variant), make in CASES.items():
        for draw in range(draws):
            rng = np.random.default_rng((seed, draw, *map(ord, operator + variant)))
            yield Case(operator, variant, make(rng))


def options_of(kind: str, **fields: Any) -> tuple[Any, str]:
    """Return the options of an operator with these fields, and their kind."""
    made = getattr(schema, f"{kind}T")()
    for name, value in fields.items():
        if not hasattr(made, name):
            raise AttributeError(f"{kind} has no {name}")
        setattr(made, name, value)
    return made, kind


class OneOperator(HandModel):
    """A model under construction that will have one operator."""

    def __init__(self, rng: Rng) -> None:
        super().__init__()
        self.rng = rng

    def activation(
        self, shape: Sequence[int], scale: float | None = None, zero_point: int | None = None
    ) -> int:
        """Add an input of a random or a given quantization."""
        return self.window(
            shape,
            scale=float(self.rng.uniform(0.02, 0.1)) if scale is None else scale,
            zero_point=int(self.rng.integers(-128, 128)) if zero_point is None else zero_point,
        )

    def weights(self, shape: Sequence[int], axis: int | None) -> tuple[int, np.ndarray]:
        """Add weights quantized per channel along ``axis``, or per tensor where that is None."""
        values = np.clip(np.rint(self.rng.normal(0, 40, shape)), -127, 127).astype(np.int8)
        n = 1 if axis is None else shape[axis]
        scales = self.rng.uniform(0.002, 0.01, n).astype(np.float32)
        index = self.tensor(shape, values=values)
        quantization = self.graph.tensors[index].quantization
        quantization.scale, quantization.zeroPoint = scales, np.zeros(n, np.int64)
        quantization.quantizedDimension = 0 if axis is None else axis
        return index, scales

    def bias(self, n: int, input_scale: float, weight_scales: np.ndarray) -> int:
        """Add a bias of n values."""
        values = self.rng.integers(-2000, 2000, n, np.int32)
        index = self.tensor([n], "INT32", values=values)
        quantization = self.graph.tensors[index].quantization
        quantization.scale = (np.float32(input_scale) * weight_scales).astype(np.float32)
        quantization.zeroPoint = np.zeros(len(weight_scales), np.int64)
        return index

    def constant(self, values: Any) -> int:
        """Add an int32 constant."""
        values = np.asarray(values, np.int32)
        return self.tensor(values.shape, "INT32", values=values, scale=None)

    def scale_of(self, index: int) -> float:
        """Return the scale of a tensor."""
        return float(self.graph.tensors[index].quantization.scale[0])

    def zero_point_of(self, index: int) -> int:
        """Return the zero point of a tensor."""
        return int(self.graph.tensors[index].quantization.zeroPoint[0])

    def finished(
        self,
        name: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        options: tuple[Any, str] | None,
        *,
        scale: float | None = None,
        zero_point: int | None = None,
        version: int = 1,
        dtype: str = "INT8",
    ) -> bytes:
        """Add the operator and return the file."""
        output = self.tensor(
            shape,
            dtype,
            scale=float(self.rng.uniform(0.02, 0.1)) if scale is None else scale,
            zero_point=int(self.rng.integers(-128, 128)) if zero_point is None else zero_point,
        )
        self.operator(name, inputs, output, *(options or ()), version=version)
        return self.finish({"exit_01": output})


def _spatial(
    sizes: Sequence[int], kernel: Sequence[int], stride: int, dilation: int, padding: int
) -> list[int]:
    if padding == SAME:
        return [ceil(size / stride) for size in sizes]
    return [ceil((size - (side - 1) * dilation) / stride) for size, side in zip(sizes, kernel, strict=True)]


def convolution(
    kernel: tuple[int, int],
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: int = SAME,
    activation: int = NO_ACTIVATION,
    multiplier: int | None = None,
) -> Callable[[Rng], bytes]:
    """Return the maker of a convolution; with a multiplier, of a depthwise one."""

    def make(rng: Rng) -> bytes:
        model = OneOperator(rng)
        window = model.activation(IMAGE)
        channels = IMAGE[-1] * multiplier if multiplier else 12
        shape = (1, *kernel, channels) if multiplier else (channels, *kernel, IMAGE[-1])
        weights, scales = model.weights(shape, 3 if multiplier else 0)
        bias = model.bias(channels, model.scale_of(window), scales)
        common = {"padding": padding, "strideW": stride, "strideH": stride}
        common |= {"dilationWFactor": dilation, "dilationHFactor": dilation}
        common |= {"fusedActivationFunction": activation}
        name, kind, version = "CONV_2D", "Conv2DOptions", 3
        if multiplier:
            name, kind, version = "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions", 3
            common |= {"depthMultiplier": multiplier}
        taps = prod(kernel) * (1 if multiplier else IMAGE[-1])
        # The sum of so many products of random codes spans about the range of int8.
        scale = model.scale_of(window) * float(scales.mean()) * 74 * 40 * taps**0.5 / 50
        sides = _spatial(IMAGE[1:3], kernel, stride, dilation, padding)
        return model.finished(
            name, [window, weights, bias], (1, *sides, channels), options_of(kind, **common),
            scale=scale, version=version, zero_point=-128 if activation else None,
        )  # fmt: skip

    return make


def fully_connected(
    *, per_channel: bool, n_in: int = 64, activation: int = NO_ACTIVATION
) -> Callable[[Rng], bytes]:
    """Return the maker of a fully connected operator."""

    def make(rng: Rng) -> bytes:
        model = OneOperator(rng)
        window = model.activation((1, n_in))
        weights, scales = model.weights((24, n_in), 0 if per_channel else None)
        bias = model.bias(24, model.scale_of(window), scales)
        scale = model.scale_of(window) * float(scales.mean()) * 74 * 40 * n_in**0.5 / 50
        options = options_of("FullyConnectedOptions", fusedActivationFunction=activation)
        return model.finished(
            "FULLY_CONNECTED", [window, weights, bias], (1, 24), options, scale=scale, version=4
        )

    return make


def of_two(
    name: str, kind: str, *, activation: int | None = None, other: Sequence[int] = IMAGE, scale: float = 0.15
) -> Callable[[Rng], bytes]:
    """Return the maker of an operator on two activations."""

    def make(rng: Rng) -> bytes:
        model = OneOperator(rng)
        left = model.activation(IMAGE)
        same = {"scale": model.scale_of(left), "zero_point": model.zero_point_of(left)}
        # The larger or smaller of two needs one quantization; the others take any.
        right = model.activation(other, **same) if activation is None else model.activation(other)
        fields = {} if activation is None else {"fusedActivationFunction": activation}
        result = same if activation is None else {"scale": scale}
        return model.finished(name, [left, right], IMAGE, options_of(kind, **fields), version=2, **result)

    return make


def of_one(
    name: str,
    shape: Sequence[int],
    kind: str | None = None,
    constants: Sequence[Any] = (),
    *,
    source: Sequence[int] = IMAGE,
    keeps: bool = True,
    scale: float | None = None,
    zero_point: int | None = None,
    version: int = 2,
    first_constant: bool = False,
    dtype: str = "INT8",
    **fields: Any,
) -> Callable[[Rng], bytes]:
    """Return the maker of an operator on one activation; ``keeps`` its quantization or not."""

    def make(rng: Rng) -> bytes:
        model = OneOperator(rng)
        window = model.activation(source)
        others = [model.constant(values) for values in constants]
        result: dict[str, Any] = {"scale": scale, "zero_point": zero_point}
        if keeps:
            result = {"scale": model.scale_of(window), "zero_point": model.zero_point_of(window)}
        options = None if kind is None else options_of(kind, **fields)
        inputs = [*others, window] if first_constant else [window, *others]
        return model.finished(name, inputs, shape, options, version=version, dtype=dtype, **result)

    return make


def joined(axis: int) -> Callable[[Rng], bytes]:
    """Return the maker of a CONCATENATION, whose tensors share one quantization."""

    def make(rng: Rng) -> bytes:
        model = OneOperator(rng)
        left = model.activation(IMAGE)
        same = {"scale": model.scale_of(left), "zero_point": model.zero_point_of(left)}
        right = model.activation(IMAGE, **same)
        shape = [2 * size if place == axis else size for place, size in enumerate(IMAGE)]
        options = options_of("ConcatenationOptions", axis=axis)
        return model.finished("CONCATENATION", [left, right], shape, options, version=2, **same)

    return make


def leaking(rng: Rng) -> bytes:
    """Return a PRELU with a slope per channel."""
    model = OneOperator(rng)
    window = model.activation(IMAGE)
    slopes, _ = model.weights((1, 1, IMAGE[-1]), None)
    return model.finished("PRELU", [window, slopes], IMAGE, None)


def pooled(
    name: str, size: int, stride: int, padding: int, activation: int = NO_ACTIVATION
) -> Callable[[Rng], bytes]:
    """Return the maker of a pooling."""
    sides = _spatial(IMAGE[1:3], (size, size), stride, 1, padding)
    fields = {"filterWidth": size, "filterHeight": size, "strideW": stride, "strideH": stride}
    fields |= {"padding": padding, "fusedActivationFunction": activation}
    return of_one(name, (1, *sides, IMAGE[-1]), "Pool2DOptions", **fields)


_SQUEEZED = (1, 24)
CASES: dict[tuple[str, str], Callable[[Rng], bytes]] = {
    ("CONV_2D", "1x1"): convolution((1, 1)),
    ("CONV_2D", "1x5"): convolution((1, 5)),
    ("CONV_2D", "3x3, valid"): convolution((3, 3), padding=VALID),
    ("CONV_2D", "3x3, stride 2"): convolution((3, 3), stride=2),
    ("CONV_2D", "3x3, dilation 2"): convolution((3, 3), dilation=2),
    ("CONV_2D", "3x3, ReLU"): convolution((3, 3), activation=RELU),
    ("CONV_2D", "3x3, ReLU6"): convolution((3, 3), activation=RELU6),
    ("DEPTHWISE_CONV_2D", "3x3"): convolution((3, 3), multiplier=1),
    ("DEPTHWISE_CONV_2D", "1x7"): convolution((1, 7), multiplier=1),
    ("DEPTHWISE_CONV_2D", "3x3, stride 2, valid"): convolution((3, 3), stride=2, padding=VALID, multiplier=1),
    ("DEPTHWISE_CONV_2D", "3x3, dilation 2"): convolution((3, 3), dilation=2, multiplier=1),
    ("DEPTHWISE_CONV_2D", "3x3, multiplier 3"): convolution((3, 3), multiplier=3),
    ("DEPTHWISE_CONV_2D", "3x3, ReLU"): convolution((3, 3), multiplier=1, activation=RELU),
    ("FULLY_CONNECTED", "per tensor"): fully_connected(per_channel=False),
    ("FULLY_CONNECTED", "per channel"): fully_connected(per_channel=True),
    ("FULLY_CONNECTED", "per tensor, ReLU"): fully_connected(per_channel=False, activation=RELU),
    ("FULLY_CONNECTED", "per tensor, 640 inputs"): fully_connected(per_channel=False, n_in=640),
    ("ADD", ""): of_two("ADD", "AddOptions", activation=NO_ACTIVATION),
    ("ADD", "ReLU"): of_two("ADD", "AddOptions", activation=RELU),
    ("ADD", "broadcast"): of_two("ADD", "AddOptions", activation=NO_ACTIVATION, other=(1, 1, 1, IMAGE[-1])),
    ("SUB", ""): of_two("SUB", "SubOptions", activation=NO_ACTIVATION),
    ("MUL", ""): of_two("MUL", "MulOptions", activation=NO_ACTIVATION),
    ("MUL", "broadcast"): of_two("MUL", "MulOptions", activation=NO_ACTIVATION, other=(1, 1, 1, IMAGE[-1])),
    ("MAXIMUM", ""): of_two("MAXIMUM", "MaximumMinimumOptions"),
    ("MINIMUM", ""): of_two("MINIMUM", "MaximumMinimumOptions"),
    ("CONCATENATION", "channels"): joined(3),
    ("CONCATENATION", "time"): joined(1),
    ("MEAN", "one quantization"): of_one("MEAN", (1, 8), "ReducerOptions", [[1, 2]]),
    ("MEAN", "another quantization"): of_one("MEAN", (1, 8), "ReducerOptions", [[1, 2]], keeps=False),
    ("MEAN", "keeps dimensions"): of_one(
        "MEAN", (1, 1, 1, 8), "ReducerOptions", [[1, 2]], keeps=False, keepDims=True
    ),
    ("SUM", ""): of_one("SUM", (1, 8), "ReducerOptions", [[1, 2]], keeps=False, scale=1.0, zero_point=0),
    ("REDUCE_MAX", ""): of_one("REDUCE_MAX", (1, 8), "ReducerOptions", [[1, 2]]),
    ("AVERAGE_POOL_2D", "2x2"): pooled("AVERAGE_POOL_2D", 2, 2, VALID),
    ("AVERAGE_POOL_2D", "3x3, same"): pooled("AVERAGE_POOL_2D", 3, 1, SAME),
    ("AVERAGE_POOL_2D", "3x3, ReLU"): pooled("AVERAGE_POOL_2D", 3, 2, SAME, RELU),
    ("MAX_POOL_2D", "2x2"): pooled("MAX_POOL_2D", 2, 2, VALID),
    ("MAX_POOL_2D", "3x3, same"): pooled("MAX_POOL_2D", 3, 1, SAME),
    ("PAD", ""): of_one("PAD", (1, 12, 10, 8), "PadOptions", [[[0, 0], [2, 1], [0, 0], [0, 0]]]),
    ("MIRROR_PAD", "reflect"): of_one(
        "MIRROR_PAD", (1, 12, 10, 8), "MirrorPadOptions", [[[0, 0], [2, 1], [0, 0], [0, 0]]], version=1
    ),
    ("RESHAPE", ""): of_one("RESHAPE", (1, 720), "ReshapeOptions", [[1, 720]], version=1),
    ("EXPAND_DIMS", ""): of_one("EXPAND_DIMS", (1, 1, *IMAGE[1:]), "ExpandDimsOptions", [1], version=1),
    ("SQUEEZE", ""): of_one(
        "SQUEEZE", _SQUEEZED, "SqueezeOptions", source=(1, 1, 24), squeezeDims=[1], version=1
    ),
    ("STRIDED_SLICE", ""): of_one(
        "STRIDED_SLICE", (1, 4, 5, 8), "StridedSliceOptions",
        [[0, 1, 0, 0], [1, 9, 10, 8], [1, 2, 2, 1]],
    ),
    ("SLICE", ""): of_one("SLICE", (1, 4, 5, 8), "SliceOptions", [[0, 1, 2, 0], [1, 4, 5, 8]]),
    ("SPLIT", "first half"): of_one(
        "SPLIT", (1, 9, 10, 8), "SplitOptions", [3], first_constant=True, numSplits=1
    ),
    ("PACK", ""): of_one("PACK", (1, 1, *IMAGE[1:]), "PackOptions", valuesCount=1, axis=1),
    ("GATHER", ""): of_one("GATHER", (1, 3, 10, 8), "GatherOptions", [[0, 4, 7]], axis=1),
    ("TRANSPOSE", ""): of_one("TRANSPOSE", (1, 10, 9, 8), "TransposeOptions", [[0, 2, 1, 3]]),
    ("SPACE_TO_BATCH_ND", "padded"): of_one(
        "SPACE_TO_BATCH_ND", (2, 5, 10, 8), "SpaceToBatchNDOptions", [[2, 1], [[0, 1], [0, 0]]]
    ),
    ("SPACE_TO_BATCH_ND", "not padded"): of_one(
        "SPACE_TO_BATCH_ND", (2, 9, 5, 8), "SpaceToBatchNDOptions", [[1, 2], [[0, 0], [0, 0]]]
    ),
    ("RESIZE_NEAREST_NEIGHBOR", ""): of_one(
        "RESIZE_NEAREST_NEIGHBOR", (1, 18, 20, 8), "ResizeNearestNeighborOptions", [[18, 20]]
    ),
    ("RESIZE_BILINEAR", ""): of_one(
        "RESIZE_BILINEAR", (1, 18, 20, 8), "ResizeBilinearOptions", [[18, 20]]
    ),
    ("RESIZE_BILINEAR", "half-pixel centres"): of_one(
        "RESIZE_BILINEAR", (1, 18, 20, 8), "ResizeBilinearOptions", [[18, 20]], halfPixelCenters=True
    ),
    ("SOFTMAX", ""): of_one(
        "SOFTMAX", (1, 12), "SoftmaxOptions", source=(1, 12), keeps=False, scale=1 / 256, zero_point=-128,
        beta=1.0,
    ),
    ("LOG_SOFTMAX", ""): of_one(
        "LOG_SOFTMAX", (1, 12), "LogSoftmaxOptions", source=(1, 12), keeps=False, scale=1 / 16, zero_point=127
    ),
    ("LOGISTIC", ""): of_one("LOGISTIC", IMAGE, keeps=False, scale=1 / 256, zero_point=-128),
    ("TANH", ""): of_one("TANH", IMAGE, keeps=False, scale=1 / 128, zero_point=0),
    ("HARD_SWISH", ""): of_one("HARD_SWISH", IMAGE, "HardSwishOptions", keeps=False, version=1),
    ("LEAKY_RELU", ""): of_one("LEAKY_RELU", IMAGE, "LeakyReluOptions", keeps=False, alpha=0.1),
    ("RELU", ""): of_one("RELU", IMAGE, keeps=False),
    ("RELU6", "one quantization"): of_one("RELU6", IMAGE),
    ("RELU6", "another quantization"): of_one("RELU6", IMAGE, keeps=False),
    ("PRELU", ""): leaking,
    ("ELU", ""): of_one("ELU", IMAGE, keeps=False, version=1),
    ("ABS", ""): of_one("ABS", IMAGE, "AbsOptions", keeps=False),
    ("SQUARED_DIFFERENCE", ""): of_two(
        "SQUARED_DIFFERENCE", "SquaredDifferenceOptions", activation=None, scale=0.3
    ),
    ("QUANTIZE", "int8 to int8"): of_one("QUANTIZE", IMAGE, "QuantizeOptions", keeps=False),
    ("ARG_MAX", ""): of_one(
        "ARG_MAX", (1,), "ArgMaxOptions", [1], source=(1, 24), dtype="INT32", outputType=2
    ),
    ("BATCH_TO_SPACE_ND", ""): of_one(
        "BATCH_TO_SPACE_ND", (1, 18, 10, 8), "BatchToSpaceNDOptions", [[2, 1], [[0, 0], [0, 0]]],
        source=(2, 9, 10, 8),
    ),
}  # fmt: skip
