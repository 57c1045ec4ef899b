"""Small multi-exit networks for tests: flatbuffers made by hand, and Keras networks converted once each.

Plain functions with a cache instead of fixtures: a fixture imported into several modules would be made again
in each. Nothing here imports TensorFlow before a function that needs it is called.
"""

from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from mexit_edge.bundle import (
    Bundle,
    GateSpec,
    InputSpec,
    Manifest,
    NormalisationSpec,
    Policy,
    SensorSpec,
    StageSpec,
    TensorSpec,
    Training,
)
from mexit_edge.files import sha256
from mexit_edge.runtime import ENGINES, fixed_point_affine
from mexit_edge.signals import Normalisation, Sensor, Windows
from mexit_edge.tflite import Graph, cut_at_exits
from mexit_edge.tflite.flatbuffer import serialize

HAS_TENSORFLOW = find_spec("tensorflow") is not None and find_spec("keras") is not None
HAS_TFLM = find_spec("tflite_micro") is not None
TRAIN_REASON = "TensorFlow or Keras is not installed (the [train] extra)"
TFLM_REASON = "tflite-micro is not installed (the [tflm] extra)"


def train(test: Any) -> Any:
    """Mark a test that needs TensorFlow and Keras."""
    return pytest.mark.train(pytest.mark.skipif(not HAS_TENSORFLOW, reason=TRAIN_REASON)(test))


def tflm(test: Any) -> Any:
    """Mark a test that needs TFLM."""
    return pytest.mark.tflm(pytest.mark.skipif(not HAS_TFLM, reason=TFLM_REASON)(test))


EACH_ENGINE = pytest.mark.parametrize(
    "engine",
    [
        pytest.param(
            name,
            marks=[pytest.mark.tflm, pytest.mark.skipif(not HAS_TFLM, reason=TFLM_REASON)]
            if name == "tflm"
            else [],
        )
        for name in ENGINES
    ],
)
LITERT_ENGINES = ENGINES[:-1]

SENSOR = Sensor(
    channels=("acc_x", "acc_y", "acc_z"),
    units=("g", "g", "g"),
    sampling_rate_hz=50.0,
    window=32,
    hop=16,
    triads=((0, 1, 2),),
    rigid_bodies=((0,),),
    units_per_count=(1 / 4096,) * 3,
)
N_CLASSES = 4
CLASSES = ("lie", "sit", "stand", "walk")


def synthetic_windows(
    n: int = 96, *, sensor: Sensor = SENSOR, seed: int = 0, noise: float = 0.6, name: str = "synthetic"
) -> Windows:
    """Windows of one shape per class plus noise; classes and the six subjects in turn."""
    shapes = np.random.default_rng(99).standard_normal((N_CLASSES, *sensor.shape))
    rng = np.random.default_rng(seed)
    y = np.arange(n) % N_CLASSES
    x = shapes[y] + noise * rng.standard_normal((n, *sensor.shape))
    return Windows.from_arrays(x, y, np.arange(n) % 6, sensor, CLASSES, name)


def random_samples(n: int, shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Float windows that reach past the range the networks were calibrated on."""
    return (1.5 * np.random.default_rng(seed).standard_normal((n, *shape))).astype(np.float32)


# --- Flatbuffers made by hand -------------------------------------------------------------------------------


class HandModel:
    """A .tflite under construction, operator by operator."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.operatorCodes, self.model.buffers = [], [schema.BufferT()]
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs, self.graph.outputs = [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        shape: Sequence[int],
        dtype: str = "INT8",
        *,
        values: Any = None,
        scale: float | None = 0.1,
        zero_point: int = 0,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name = f"some_long_tensor_name_{len(self.graph.tensors)}".encode()
        tensor.shape, tensor.buffer = np.asarray(shape, np.int32), 0
        tensor.type = getattr(schema.TensorType, dtype)
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.asarray([scale], np.float32)
            tensor.quantization.zeroPoint = np.asarray([zero_point], np.int64)
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(
        self,
        name: str,
        inputs: Sequence[int],
        output: int,
        options: Any = None,
        kind: str = "",
        version: int = 1,
    ) -> int:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = version
        raw = schema.OperatorT()
        raw.opcodeIndex = len(self.model.operatorCodes)
        self.model.operatorCodes.append(code)
        raw.inputs, raw.outputs = np.asarray(inputs, np.int32), np.asarray([output], np.int32)
        if options is not None:
            raw.builtinOptions, raw.builtinOptionsType = options, getattr(schema.BuiltinOptions, kind)
        self.graph.operators.append(raw)
        return output

    def window(self, shape: Sequence[int], **options: Any) -> int:
        index = self.tensor(shape, **options)
        self.graph.inputs = [*self.graph.inputs, index]
        return index

    def add(self, left: int, right: int, dtype: str = "INT8", **options: Any) -> int:
        shape = self.graph.tensors[left].shape
        output = self.tensor(shape, dtype, **options)
        return self.operator("ADD", [left, right], output, schema.AddOptionsT(), "AddOptions", 2)

    def view(self, source: int, shape: Sequence[int]) -> int:
        raw = self.graph.tensors[source]
        constant = self.tensor([len(shape)], "INT32", values=np.asarray(shape, np.int32), scale=None)
        output = self.tensor(shape)
        self.graph.tensors[output].quantization = raw.quantization
        options = schema.ReshapeOptionsT()
        options.newShape = np.asarray(shape, np.int32)
        return self.operator("RESHAPE", [source, constant], output, options, "ReshapeOptions")

    def dense(self, source: int, weights: np.ndarray, scale: float, *, relu: bool = False) -> int:
        """A fully connected operator of float weights (out, in), quantized here."""
        weight_scale = float(np.abs(weights).max()) / 127
        codes = np.rint(weights / weight_scale).astype(np.int8)
        input_scale = float(self.graph.tensors[source].quantization.scale[0])
        w = self.tensor(codes.shape, values=codes, scale=weight_scale)
        b = self.tensor(
            [len(codes)], "INT32", values=np.zeros(len(codes), np.int32), scale=input_scale * weight_scale
        )
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = int(relu)
        output = self.tensor([1, len(codes)], scale=scale)
        return self.operator("FULLY_CONNECTED", [source, w, b], output, options, "FullyConnectedOptions", 4)

    def finish(self, outputs: dict[str, int], order: Sequence[int] | None = None) -> bytes:
        """Name the outputs by a signature; ``order`` is the file's own order of them."""
        self.graph.outputs = list(order if order is not None else outputs.values())
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs = [_named("window", self.graph.inputs[0])]
        signature.outputs = [_named(name, index) for name, index in outputs.items()]
        self.model.signatureDefs = [signature]
        return serialize(self.model)


def _named(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), int(index)
    return entry


@cache
def hand_whole() -> bytes:
    """Three exits that tell `synthetic_windows` apart, each better than the one before.

    Made without TensorFlow. A RESHAPE view that two stages read, a long skip from stage 1 over exit 2 to
    stage 3, and the file's outputs in reverse order.
    """
    rng = np.random.default_rng(5)
    model = HandModel()
    window = model.window((1, *SENSOR.shape), scale=0.03)
    flat = model.view(window, (1, 96))
    projection = rng.standard_normal((24, 96)) / 10
    first = model.dense(flat, projection, 0.05)
    second = model.add(first, model.dense(flat, rng.standard_normal((24, 96)) / 10, 0.05), scale=0.08)
    third = model.add(second, first, scale=0.1)
    # Least squares on the float features gives heads that work.
    data = synthetic_windows(400, seed=7)
    features = _float_features(serialize_with(model, [first, second, third]), data.x)
    logits = []
    for number, (tensor, values) in enumerate(zip((first, second, third), features, strict=True), start=1):
        target = np.eye(N_CLASSES)[data.y] - 1 / N_CLASSES
        weights = np.linalg.lstsq(values, 6 * target, rcond=None)[0].T
        weights += (4 - number) * 0.12 * np.abs(weights).max() * rng.standard_normal(weights.shape)
        logits.append(model.dense(tensor, weights, 0.08))
    return model.finish(
        {f"exit_{number:02d}": tensor for number, tensor in enumerate(logits, start=1)}, logits[::-1]
    )


def serialize_with(model: HandModel, outputs: Sequence[int]) -> bytes:
    """The model so far with these outputs."""
    model.graph.outputs = list(outputs)
    return serialize(model.model)


def _float_features(content: bytes, x: np.ndarray) -> list[np.ndarray]:
    from mexit_edge.runtime import open_model

    codes = np.clip(np.rint(x / 0.03), -128, 127).astype(np.int8)
    return [
        values.astype(np.float64) for values in open_model("litert-reference", content).run_batch([codes])
    ]


def bundle_of(
    whole: bytes,
    *,
    sensor: Sensor = SENSOR,
    exits: Sequence[str] | None = None,
    n_classes: int = N_CLASSES,
    thresholds: Sequence[int] | None = None,
    score: str = "logit_margin",
    training: Training | None = None,
) -> Bundle:
    """A bundle of a whole model, by way of `cut_at_exits` alone, so that no TensorFlow is needed."""
    from mexit_edge.tflite import Graph

    exits = exits or sorted(Graph(whole).signature_outputs)
    cuts = cut_at_exits(whole, exits)

    def spec(name: str, tensor: Any) -> TensorSpec:
        return TensorSpec(name=name, shape=tensor.shape, scale=tensor.scale, zero_point=tensor.zero_point)

    window = spec(*cuts[0].inputs[0])
    normalisation = Normalisation.identity(sensor.n_channels)
    policy = thresholds is not None and Policy(
        score=score, thresholds=tuple(float(t) for t in thresholds), thresholds_int=tuple(thresholds)
    )
    manifest = Manifest(
        name="hand",
        sensor=SensorSpec(**{field: getattr(sensor, field) for field in SensorSpec.model_fields}),
        normalisation=NormalisationSpec(offset=normalisation.offset, scale=normalisation.scale),
        classes=CLASSES if n_classes == N_CLASSES else tuple(f"class_{i}" for i in range(n_classes)),
        input=InputSpec(
            scale=window.scale,
            zero_point=window.zero_point,
            fixed_point=fixed_point_affine(sensor, normalisation, window.scale, window.zero_point),
        ),
        stages=tuple(
            StageSpec(
                file=f"stage_{number:02d}.tflite",
                sha256=sha256(cut.content),
                flash_bytes=len(cut.content),
                exit=name,
                inputs=tuple(spec(*tensor) for tensor in cut.inputs),
                outputs=tuple(spec(*tensor) for tensor in cut.outputs),
                ops=cut.operators,
                macs=1000 * number,
                live_macs=1000 * number,
                arena_bytes=None,
            )
            for number, (name, cut) in enumerate(zip(exits, cuts, strict=True), start=1)
        ),
        policy=policy or None,
        training=training or Training(),
    )
    return Bundle(manifest, tuple(cut.content for cut in cuts))


def with_policy(bundle: Bundle, score: str, thresholds: Sequence[int]) -> Bundle:
    """The bundle under another score and other integer thresholds; `learned` with gates that look at all."""
    gates = tuple(
        GateSpec(weights=(300, 100, 200, *[150] * place), bias=-(1 << 22)) for place in range(len(thresholds))
    )
    policy = Policy(
        score=score,
        thresholds=tuple(map(float, thresholds)),
        thresholds_int=tuple(thresholds),
        gates=gates if score == "learned" else (),
    )
    return bundle.with_manifest(policy=policy, golden=None)


def with_stage(bundle: Bundle, index: int, content: bytes) -> Bundle:
    """The bundle with another file for one stage, and a manifest that agrees."""
    stages = [*bundle.stages]
    specs = [*bundle.manifest.stages]
    stages[index] = content
    specs[index] = specs[index].model_copy(update={"sha256": sha256(content), "flash_bytes": len(content)})
    return Bundle(bundle.manifest.model_copy(update={"stages": tuple(specs)}), tuple(stages))


# --- Keras networks -----------------------------------------------------------------------------------------


def randomise(network: Any, seed: int = 0) -> Any:
    """Give every weight that starts as a constant (biases, norms) a random value, so that none is idle."""
    rng = np.random.default_rng(seed)
    for weight in network.weights:
        value = np.asarray(weight)
        # Variances and scales of batch normalisation must stay positive.
        if value.size > 1 and np.ptp(value) == 0:
            weight.assign(value + rng.uniform(0, 0.5, value.shape).astype(np.float32))
    return network


def dscnn_network() -> Any:
    from mexit_edge.models import build

    blocks = (((8, 3, 1),), ((12, 3, 2),), ((16, 3, 1),))
    return build("dscnn", SENSOR, N_CLASSES, stem=(8, 5, 2), blocks=blocks)


def long_skip_network() -> Any:
    """Block 1 is added again behind exit 2; two branches of block 2 are both read by block 3."""
    import keras
    from keras import layers

    window = keras.Input(SENSOR.shape, name="window")
    one = layers.Conv1D(8, 3, padding="same", activation="relu")(window)
    left = layers.Conv1D(8, 3, padding="same", activation="relu")(one)
    right = layers.Conv1D(8, 5, padding="same", activation="relu")(one)
    both = layers.Add()([left, right])
    three = layers.Add()([layers.Conv1D(8, 3, padding="same")(layers.Multiply()([left, right])), one])
    outputs = {
        f"exit_{number:02d}": layers.Dense(N_CLASSES, name=f"exit_{number:02d}")(
            layers.GlobalAveragePooling1D()(features)
        )
        for number, features in enumerate((one, both, layers.ReLU()(three)), start=1)
    }
    return keras.Model(window, outputs)


def residual_network() -> Any:
    """A residual sum that feeds both a head and a convolution."""
    import keras
    from keras import layers

    window = keras.Input(SENSOR.shape, name="window")
    stem = layers.Conv1D(8, 3, padding="same", activation="relu")(window)
    total = layers.Add()([stem, layers.Conv1D(8, 3, padding="same")(stem)])
    last = layers.Conv1D(8, 3, padding="same", activation="relu")(total)
    outputs = {
        f"exit_{number:02d}": layers.Dense(N_CLASSES, name=f"exit_{number:02d}")(
            layers.GlobalAveragePooling1D()(features)
        )
        for number, features in enumerate((total, last), start=1)
    }
    return keras.Model(window, outputs)


def cascaded_network() -> Any:
    """Exit 2 reads exit 1's logits."""
    import keras
    from keras import layers

    window = keras.Input(SENSOR.shape, name="window")
    one = layers.Conv1D(8, 3, padding="same", activation="relu")(window)
    exit_01 = layers.Dense(N_CLASSES, name="exit_01")(layers.GlobalAveragePooling1D()(one))
    two = layers.Conv1D(8, 3, padding="same", activation="relu")(one)
    joined = layers.Concatenate()([layers.GlobalAveragePooling1D()(two), exit_01])
    return keras.Model(
        window, {"exit_01": exit_01, "exit_02": layers.Dense(N_CLASSES, name="exit_02")(joined)}
    )


def dilated_network() -> Any:
    """Causal convolutions with dilations 2 and 4."""
    import keras
    from keras import layers

    window = keras.Input(SENSOR.shape, name="window")
    one = layers.Conv1D(8, 3, padding="causal", dilation_rate=2, activation="relu")(window)
    two = layers.Conv1D(8, 3, padding="same", dilation_rate=4, activation="relu")(one)
    outputs = {
        f"exit_{number:02d}": layers.Dense(N_CLASSES, name=f"exit_{number:02d}")(
            layers.GlobalAveragePooling1D()(features)
        )
        for number, features in enumerate((one, two), start=1)
    }
    return keras.Model(window, outputs)


def flatten_network() -> Any:
    """Flatten and Dense: both exits and the second block read the same RESHAPE view."""
    import keras
    from keras import layers

    window = keras.Input(SENSOR.shape, name="window")
    features = layers.Conv1D(4, 3, strides=2, padding="same", activation="relu")(window)
    flat = layers.Flatten()(features)
    exit_01 = layers.Dense(N_CLASSES, name="exit_01")(flat)
    hidden = layers.Dense(16, activation="relu")(flat)
    return keras.Model(
        window, {"exit_01": exit_01, "exit_02": layers.Dense(N_CLASSES, name="exit_02")(hidden)}
    )


def user_model(**last: Any) -> Any:
    """A single-exit network as a user would write it."""
    import keras
    from keras import layers

    window = keras.Input(SENSOR.shape, name="my_input")
    x = layers.Conv1D(8, 5, strides=2, padding="same", name="conv_a")(window)
    x = layers.BatchNormalization(name="norm_a")(x)
    x = layers.ReLU(name="relu_a")(x)
    x = layers.MaxPooling1D(name="pool_a")(x)
    x = layers.Conv1D(12, 3, padding="same", activation="relu", name="conv_b")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(window, layers.Dense(N_CLASSES, name="classes", **last)(x), name="mine")


def attached_network() -> Any:
    from mexit_edge.models import attach_exits

    return attach_exits(user_model(), at=["pool_a", "conv_b"])


def many_exits_network() -> Any:
    """Eleven exits, so that an unpadded exit_10 would sort before exit_2."""
    import keras
    from keras import layers

    window = keras.Input((8, 2), name="window")
    features = layers.Flatten()(window)
    outputs = {}
    for number in range(1, 12):
        features = layers.Dense(6, activation="relu")(features)
        outputs[f"exit_{number:02d}"] = layers.Dense(3, name=f"exit_{number:02d}")(features)
    return keras.Model(window, outputs)


def two_heads_residual_network() -> Any:
    """A residual sum before a strided convolution, with heads on both sides of the sum.

    The graph of examples/own_network.py: the converter's newer quantizer leaves that convolution in float, so
    that `convert` falls back to the older one.
    """
    import keras
    from keras import layers

    from mexit_edge.models import attach_exits

    window = keras.Input((48, 1))
    x = layers.Conv1D(16, 5, strides=2, padding="same", activation="relu", name="early")(window)
    y = layers.Conv1D(16, 3, padding="same", activation="relu")(x)
    x = layers.Add(name="residual")([x, y])
    x = layers.Conv1D(32, 3, strides=2, padding="same", activation="relu", name="late")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return attach_exits(keras.Model(window, layers.Dense(3)(x)), at=["early", "residual"])


NETWORKS: dict[str, Callable[[], Any]] = {
    "dscnn": dscnn_network,
    "long_skip": long_skip_network,
    "residual": residual_network,
    "cascaded": cascaded_network,
    "dilated": dilated_network,
    "flatten": flatten_network,
    "attached": attached_network,
    "many_exits": many_exits_network,
    "two_heads_residual": two_heads_residual_network,
}


@dataclass(frozen=True)
class Converted:
    """A network, its whole int8 model, and the bundle of its stages."""

    network: Any
    representative: np.ndarray
    whole: bytes
    bundle: Bundle


def export_untracked(network: Any, folder: str, *, input_signature: Any = None, **options: Any) -> None:
    """Write what `Model.export` does, without its search for lookup tables: that traces the network again."""
    from keras.export import ExportArchive
    from keras.src.export.export_utils import get_input_signature

    archive = ExportArchive()
    archive.add_endpoint("serve", network.__call__, input_signature or get_input_signature(network))
    archive.write_out(folder, verbose=False)


@contextmanager
def converting_in_this_process() -> Iterator[None]:
    """Let `convert` call the child's `main` here: TensorFlow is loaded already, which saves 5 s each.

    And leave out what changes nothing of the model: a search for lookup tables, reading the saved model a
    second time, for its debug information, and collecting garbage among all that the session holds.

    One test converts in the real child process, with all of these, and compares the bytes.
    """
    from keras import Model
    from tensorflow.lite.python import lite

    from mexit_edge.compress import converter, converter_child

    read, loaded = lite._load, {}

    def load_once(folder: str, tags: Any) -> Any:
        if folder not in loaded:
            loaded.clear()
            loaded[folder] = read(folder, tags)
        return loaded[folder]

    def here(workshop: Path, quantizer: str) -> bytes:
        gc.freeze()
        try:
            status = converter_child.main(workshop, quantizer)
        finally:
            gc.unfreeze()
            loaded.clear()
        if status == converter_child.REFUSED:
            raise converter.Refusal(json.loads((workshop / converter_child.REFUSAL).read_text("utf-8")))
        return (workshop / converter_child.MODEL).read_bytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converter, "run_child", here)
        patch.setattr(Model, "export", export_untracked)
        patch.setattr(lite, "_load", load_once)
        yield


@contextmanager
def commands_on(windows: Windows, folder: Path) -> Iterator[Path]:
    """Run commands in a folder on these windows in place of a data set's, converting in this process."""
    with pytest.MonkeyPatch.context() as patch, converting_in_this_process(), warnings.catch_warnings():
        warnings.simplefilter("default")
        patch.chdir(folder)
        patch.setattr("mexit_edge.cli.training_windows.load", lambda name: windows)
        yield folder


def int8_logits(whole: bytes, x: Any) -> dict[str, tuple[Any, float]]:
    """Return exit -> logits of an int8 model on LiteRT's reference kernels as real values, and the scale."""
    from mexit_edge.runtime.engines import open_model

    graph = Graph(whole)
    entrance = graph.tensors[graph.inputs[0]]
    codes = np.clip(np.rint(x / entrance.scale) + entrance.zero_point, -128, 127).astype(np.int8)
    found = open_model("litert-reference", whole).run_batch([codes])
    logits = {}
    for exit_, index in graph.signature_outputs.items():
        tensor = graph.tensors[index]
        steps = found[graph.outputs.index(index)].astype(float) - tensor.zero_point
        logits[exit_] = steps * tensor.scale, tensor.scale
    return logits


@contextmanager
def leaving_out_the_count() -> Iterator[None]:
    """Fit without the count of multiply-accumulates, which traces a graph per phase; the costs say None."""
    from mexit_edge.regimes.fitting import _Fit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Fit, "_macs_per_window", lambda self: None)
        yield


@contextmanager
def counting_once() -> Iterator[dict[str, Any]]:
    """Count the multiply-accumulates of a phase in the first of several equal fits alone.

    Yields:
        The counts that are known; whoever empties it lets the next fit count anew.
    """
    from mexit_edge.regimes.fitting import _Fit, specs_of

    count = _Fit._macs_per_window
    known: dict[str, Any] = {}

    def remembered(fit: Any) -> Any:
        model = fit.model
        specs = specs_of(fit.source, model.network, twins=model.regime.perturbs)
        shapes = [tuple(weight.shape) for weight in model.network.weights]
        key = repr((model.regime, model.active.phase, shapes, specs))
        if key not in known:
            known[key] = count(fit)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Fit, "_macs_per_window", remembered)
        yield known


@cache
def converted(name: str) -> Converted:
    """The network of that name, converted once per session."""
    import keras

    from mexit_edge.compress import convert

    keras.utils.set_random_seed(1)
    network = randomise(NETWORKS[name]())
    shape = network.inputs[0].shape[1:]
    representative = np.random.default_rng(3).standard_normal((24, *shape)).astype(np.float32)
    with converting_in_this_process(), warnings.catch_warnings():
        warnings.simplefilter("default")
        whole = convert(network, representative)
    sensor = SENSOR if shape == SENSOR.shape else Sensor.plain(shape[1], shape[0])
    n_classes = next(iter(network.output.values())).shape[-1]
    return Converted(network, representative, whole, bundle_of(whole, sensor=sensor, n_classes=n_classes))
