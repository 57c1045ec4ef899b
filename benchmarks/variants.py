"""Which kind of quantization runs on which engine: one row per network, variant and engine.

    python benchmarks/variants.py

Every variant that `convert` makes, and two that it never makes: int8 weights behind a DEQUANTIZE with a scale
per channel (weight-only quantization, as other tools write it) and a dilation converted with a dynamic batch.
Random windows that reach past the calibrated range run through every engine; the truth is LiteRT's reference
kernels. `exact`: no element differs; `close`: none by more than the steps or the share of
the largest output that `LIMITS` grants the type; `refused`: the engine, or our guard before it, says why;
`wrong`: anything else, which makes the exit code 1. Takes some two minutes. Writes
benchmarks/results/variants.csv; tests/test_variants.py repeats a part of it.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tables
from ai_edge_litert import schema_py_generated as schema
from keras import layers

from mexit_edge.compress import Quantization, convert, converter_child
from mexit_edge.errors import InputError
from mexit_edge.runtime import available_engines, open_model
from mexit_edge.tflite import Graph
from mexit_edge.tflite.flatbuffer import serialize

RESULTS = Path(__file__).parent / "results" / "variants.csv"
SHAPE, N_CLASSES, WINDOWS = (32, 3), 4, 50
TRUTH = "litert-reference"
# Type of the outputs -> largest difference: steps, or with float outputs a share of the largest output. With
# dynamic range XNNPACK quantizes activations otherwise than the others.
LIMITS = {"INT8": 3, "INT16": 16, "FLOAT32": 0.02}


def network(pooling: str) -> keras.Model:
    """A network of convolutions: strided, separable, dilated and residual; heads pool by average, or by both.

    Its larger kernels have more than 1,024 weights: dynamic range leaves smaller ones in float.
    """
    window = keras.Input(SHAPE, name="window")
    x = layers.Conv1D(32, 3, strides=2, padding="same", use_bias=False, name="stem")(window)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.SeparableConv1D(48, 5, padding="same", activation="relu", name="separable")(x)
    early = _pooled(x, pooling)
    x = layers.Add()([x, layers.Conv1D(48, 3, dilation_rate=2, padding="same", activation="relu")(x)])
    late = layers.Dense(32, activation="relu")(_pooled(x, pooling))
    return keras.Model(
        window,
        {
            "exit_01": layers.Dense(N_CLASSES, name="exit_01")(early),
            "exit_02": layers.Dense(N_CLASSES, name="exit_02")(late),
        },
    )


def _pooled(x: Any, pooling: str) -> Any:
    mean = layers.GlobalAveragePooling1D()(x)
    if pooling == "average":
        return mean
    return layers.Concatenate()([mean, layers.GlobalMaxPooling1D()(x)])


def with_int8_weights(content: bytes) -> bytes:
    """Return a float32 model whose kernels are int8 constants with a scale per channel, behind DEQUANTIZE."""
    graph = Graph(content)
    model, subgraph = graph.model, graph.subgraph
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 2
    model.operatorCodes.append(code)
    conversions = []
    for operator in graph.operators:
        if operator.name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        index = operator.inputs[1]
        kernel, axis = graph.constant(index), 3 if operator.name == "DEPTHWISE_CONV_2D" else 0
        others = tuple(place for place in range(kernel.ndim) if place != axis)
        scales = np.abs(kernel).max(axis=others, keepdims=True) / 127
        stored = copy.copy(subgraph.tensors[index])
        stored.type = schema.TensorType.INT8
        stored.quantization = schema.QuantizationParametersT()
        stored.quantization.scale = scales.ravel().astype(np.float32)
        stored.quantization.zeroPoint = np.zeros(scales.size, np.int64)
        stored.quantization.quantizedDimension = axis
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.rint(kernel / scales).astype(np.int8).tobytes(), np.uint8)
        model.buffers.append(buffer)
        stored.buffer = len(model.buffers) - 1
        subgraph.tensors[index].buffer = 0
        subgraph.tensors.append(stored)
        conversion = schema.OperatorT()
        conversion.opcodeIndex = len(model.operatorCodes) - 1
        conversion.inputs = np.asarray([len(subgraph.tensors) - 1], np.int32)
        conversion.outputs = np.asarray([index], np.int32)
        conversion.builtinOptions = schema.DequantizeOptionsT()
        conversion.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
        conversions.append(conversion)
    subgraph.operators = [*conversions, *subgraph.operators]
    return serialize(model)


def with_dynamic_batch(model: keras.Model, windows: np.ndarray) -> bytes:
    """Return an int8 model converted with a dynamic batch, as TensorFlow does by default."""
    with tempfile.TemporaryDirectory() as folder:
        workshop = Path(folder)
        model.export(str(workshop / converter_child.SAVED_MODEL), format="tf_saved_model", verbose=False)
        np.savez(workshop / converter_child.REPRESENTATIVE, input_window=windows)
        (workshop / converter_child.REQUEST).write_text(json.dumps(asdict(Quantization())), encoding="utf-8")
        converter_child.main(workshop, converter_child.MLIR)
        return (workshop / converter_child.MODEL).read_bytes()


def _kind(*arguments: Any, **options: Any) -> Callable[[keras.Model, np.ndarray], bytes]:
    return lambda model, windows: convert(model, windows, Quantization(*arguments, **options))


VARIANTS: dict[str, Callable[[keras.Model, np.ndarray], bytes]] = {
    "float32": _kind("float32"),
    "float16": _kind("float16"),
    "dynamic": _kind("dynamic"),
    "int8": _kind("int8"),
    "int8, float32 io": _kind("int8", io="float32"),
    "int8, per tensor": _kind("int8", per_channel=False),
    "int16": _kind("int16"),
    "int16, float32 io": _kind("int16", io="float32"),
    "int8 weights only": lambda model, windows: with_int8_weights(_kind("float32")(model, windows)),
    "int8, dynamic batch": with_dynamic_batch,
}
POOLINGS = ("average", "both")


def make_network(pooling: str) -> tuple[keras.Model, np.ndarray]:
    """Return a network of fixed random weights and its representative windows."""
    keras.utils.set_random_seed(1)
    model = network(pooling)
    return model, np.random.default_rng(3).standard_normal((24, *SHAPE)).astype(np.float32)


def compare(content: bytes, n_windows: int = WINDOWS) -> list[dict[str, Any]]:
    """Return one row per available engine: what a model's outputs are beside the truth."""
    graph = Graph(content)
    inputs = [_codes(graph, n_windows)]
    dtype = graph.tensors[graph.outputs[0]].dtype
    truth = open_model(TRUTH, content).run_batch(inputs)
    largest = max(float(np.abs(values).max()) for values in truth) if dtype == "FLOAT32" else 1
    rows = []
    for engine in available_engines():
        row = {"engine": engine, "outcome": "refused", "elements": "", "difference": "", "reason": ""}
        try:
            outputs = open_model(engine, content).run_batch(inputs)
        except InputError as error:
            row["reason"] = " ".join(str(error).partition("Received: ")[2].split())
        else:
            differences = [
                np.abs(got.astype(float) - values) for got, values in zip(outputs, truth, strict=True)
            ]
            difference = max(float(values.max()) for values in differences) / largest
            outcome = "exact" if difference == 0 else "close" if difference <= LIMITS[dtype] else "wrong"
            elements = sum(int((values > 0).sum()) for values in differences)
            row.update(outcome=outcome, elements=elements, difference=f"{difference:.2g}")
        rows.append(row)
    return rows


def _codes(graph: Graph, n_windows: int) -> np.ndarray:
    """Return random windows in the type of a model's input."""
    tensor = graph.tensors[graph.inputs[0]]
    windows = 1.5 * np.random.default_rng(0).standard_normal((n_windows, *SHAPE))
    if tensor.dtype == "FLOAT32" or tensor.numpy_dtype is None:
        return windows.astype(np.float32)
    assert tensor.scale is not None
    assert tensor.zero_point is not None
    limits = np.iinfo(tensor.numpy_dtype)
    codes = np.rint(windows / tensor.scale + tensor.zero_point)
    return np.clip(codes, limits.min, limits.max).astype(tensor.numpy_dtype)


def main() -> int:
    rows = []
    for pooling in POOLINGS:
        model, windows = make_network(pooling)
        for variant, make in VARIANTS.items():
            content = make(model, windows)
            dtype = Graph(content).tensors[Graph(content).outputs[0]].dtype
            known = {"pooling": pooling, "variant": variant, "bytes": len(content), "outputs": dtype}
            rows += [{**known, **row} for row in compare(content)]
    tables.write(RESULTS, rows)
    wrong = [row for row in rows if row["outcome"] == "wrong"]
    for row in wrong:
        print(f"WRONG: {row}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
