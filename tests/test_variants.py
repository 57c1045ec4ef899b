"""Kinds of quantization: what each promises, which engine runs it, and that conversion repeats."""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from fixtures_networks import (
    HAS_TFLM,
    SENSOR,
    TRAIN_REASON,
    HandModel,
    converting_in_this_process,
    dscnn_network,
    random_samples,
    tflm,
)

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
from keras import layers

from mexit_edge.compress import Quantization, convert
from mexit_edge.compress.quantization import KINDS, as_quantization
from mexit_edge.errors import InputError
from mexit_edge.runtime import open_model
from mexit_edge.tflite import Graph, audit, cut_at_exits
from mexit_edge.tflite.flatbuffer import serialize

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import variants

pytestmark = pytest.mark.train
POOLING = "average"


@pytest.fixture
def here() -> Iterator[None]:
    """Convert in this process."""
    with converting_in_this_process(), warnings.catch_warnings():
        warnings.simplefilter("default")
        yield


@cache
def made(variant: str) -> bytes:
    """A variant of the benchmark's network."""
    with converting_in_this_process(), warnings.catch_warnings():
        warnings.simplefilter("default")
        return variants.VARIANTS[variant](*network())


@cache
def network() -> tuple[keras.Model, np.ndarray]:
    return variants.make_network(POOLING)


@cache
def committed(pooling: str) -> dict[tuple[str, str], dict[str, str]]:
    """The committed table of one network: (variant, engine) -> row."""
    with variants.RESULTS.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["pooling"] == pooling]
    return {(row["variant"], row["engine"]): row for row in rows}


# --- The object ---------------------------------------------------------------------------------------------


def test_a_name_and_an_object_are_equally_good() -> None:
    for kind in KINDS:
        assert as_quantization(kind) == Quantization(kind)
    assert Quantization() == Quantization("int8", io="int8", per_channel=True)
    assert [Quantization(kind).io for kind in KINDS] == ["int8", "int16", "float32", "float32", "float32"]
    assert [Quantization(kind).is_integer for kind in KINDS] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "int9"}, r"`quantization` must be one of: .*Received: 'int9'. Did you mean 'int8'"),
        ({"kind": "int16", "io": "int8"}, r"`io` must be one of: int16, float32.*Received: 'int8'"),
        ({"kind": "float16", "io": "int8"}, r"`io` must be one of: float32, for .*'float16'"),
        ({"kind": "int16", "per_channel": False}, "`per_channel` must be left out unless .* with 'int16'"),
        (
            {"kind": "dynamic", "per_channel": False},
            "`per_channel` must be left out unless .* with 'dynamic'",
        ),
        ({"kind": "float16", "input_limit": 4.0}, "`input_limit` must be left out for 'float16'"),
        ({"input_limit": 0.0}, "`input_limit` must be positive and finite. Received: 0.0"),
        ({"input_limit": float("nan")}, "`input_limit` must be positive and finite"),
    ],
)
def test_options_that_a_kind_does_not_have_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Quantization(**options)


# --- What a kind promises -----------------------------------------------------------------------------------


def types(content: bytes, *, constant: bool) -> set[str]:
    """Types of the tensors that operators read, without those of shapes."""
    graph = Graph(content)
    read = {index for operator in graph.operators for index in operator.inputs if index >= 0}
    return {graph.tensors[i].dtype for i in read if graph.tensors[i].is_constant is constant}


@pytest.mark.parametrize(
    ("variant", "activations", "constants"),
    [
        ("int8", {"INT8"}, {"INT8", "INT32"}),
        ("int8, float32 io", {"INT8", "FLOAT32"}, {"INT8", "INT32"}),
        ("int16", {"INT16"}, {"INT8", "INT32", "INT64"}),
        ("float16", {"FLOAT32"}, {"FLOAT16", "INT32"}),
        ("dynamic", {"FLOAT32"}, {"INT8", "INT32", "FLOAT32"}),
        ("float32", {"FLOAT32"}, {"FLOAT32", "INT32"}),
    ],
)
def test_a_kind_has_the_types_it_promises(variant: str, activations: set[str], constants: set[str]) -> None:
    assert types(made(variant), constant=False) == activations
    assert types(made(variant), constant=True) == constants


def test_per_channel_and_per_tensor_scales() -> None:
    def most_scales(content: bytes) -> int:
        graph = Graph(content)
        kernels = [operator.inputs[1] for operator in graph.operators if operator.name == "CONV_2D"]
        return max(len(graph.subgraph.tensors[index].quantization.scale) for index in kernels)

    assert most_scales(made("int8")) == 48
    assert most_scales(made("int8, per tensor")) == 1


@pytest.mark.parametrize("kind", ["int8", "int16"])
def test_inputs_saturate_at_their_limit(kind: str) -> None:
    model, windows = network()
    jolted = windows.copy()
    jolted[0, 3], jolted[1, 3] = 40.0, -40.0
    with converting_in_this_process():
        content = convert(model, jolted, Quantization(kind, input_limit=2.0))
        # The ranges of everything behind are those of inputs that saturate.
        assert content == convert(model, np.clip(jolted, -2, 2), kind)
    graph = Graph(content)
    (scale,) = graph.subgraph.tensors[graph.inputs[0]].quantization.scale
    assert scale == pytest.approx(4 / 255 if kind == "int8" else 2 / 32767, rel=0.01)


def test_ends_may_be_float_and_nothing_else() -> None:
    content = made("int8, float32 io")
    audit(content, float_ends=True)
    with pytest.raises(InputError, match="QUANTIZE with the FLOAT32"):
        audit(content)
    with pytest.raises(InputError, match=r"an int16 form. Received: .* with the INT8 tensor"):
        audit(made("int8"), "INT16")
    audit(made("int16"), "INT16")


@pytest.mark.parametrize("what", ["zero point", "weights", "bias"])
def test_the_audit_of_int16_looks_at_weights_and_zero_points(what: str) -> None:
    graph = Graph(made("int16"))
    operator = next(operator for operator in graph.operators if operator.name == "FULLY_CONNECTED")
    place = {"zero point": operator.outputs[0], "weights": operator.inputs[1], "bias": operator.inputs[2]}
    tensor = graph.subgraph.tensors[place[what]]
    if what == "zero point":
        tensor.quantization.zeroPoint = np.asarray([3], np.int64)
    else:
        tensor.type = schema.TensorType.FLOAT32
    with pytest.raises(
        InputError, match=f"FULLY_CONNECTED with .*{'point 3' if what == 'zero point' else ''}"
    ):
        audit(serialize(graph.model), "INT16")


# --- Which engine runs it -----------------------------------------------------------------------------------


@tflm
@pytest.mark.parametrize("variant", variants.VARIANTS)
def test_engines_run_or_refuse_a_variant_as_the_committed_table_says(variant: str) -> None:
    for row in variants.compare(made(variant)):
        stated = committed(POOLING)[variant, row["engine"]]
        assert (row["outcome"], row["reason"]) == (stated["outcome"], stated["reason"]), row


def test_the_committed_table_is_whole_and_has_no_wrong_numbers() -> None:
    for pooling in variants.POOLINGS:
        rows = committed(pooling)
        assert {variant for variant, _ in rows} == set(variants.VARIANTS)
        assert {row["outcome"] for row in rows.values()} <= {"exact", "close", "refused"}
    assert committed("average")["int8, dynamic batch", "tflm"]["outcome"] == "refused"
    assert committed("average")["int8 weights only", "tflm"]["outcome"] == "refused"


def in_words(row: dict[str, str]) -> str:
    """A row of the committed table as a cell of the documented one."""
    if row["outcome"] != "close":
        return {"exact": "equal", "refused": "refused"}[row["outcome"]]
    difference = float(row["difference"])
    if row["outputs"] != "FLOAT32":
        return f"within {difference:.0f} step{'s' * (difference > 1)}"
    return "equal to 1 in a million" if difference < 1e-6 else f"within {100 * difference:.2g} %"


def test_the_documented_table_is_the_committed_one() -> None:
    text = (Path(__file__).parent.parent / "docs" / "quantization.md").read_text("utf-8")
    lines = text.partition("## Which engine runs what")[2].partition("\n## ")[0].splitlines()
    documented = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:2] == "| "]
    first, second = (committed(pooling) for pooling in variants.POOLINGS)
    expected = []
    for variant in variants.VARIANTS:
        cells = []
        for engine in ("litert-xnnpack", "litert-builtin", "litert-reference", "tflm"):
            one, other = in_words(first[variant, engine]), in_words(second[variant, engine])
            cells.append(one if one == other else f"{one}; max pooling: {other}")
        expected.append([variant, *cells])
    assert documented[0] == ["variant", "LiteRT XNNPACK", "LiteRT builtin", "LiteRT reference", "TFLM"]
    assert documented[1:] == expected


@tflm
def test_tflm_would_run_weights_of_many_scales_wrongly() -> None:
    # Why there is a guard. If this ever fails, it may go.
    from tflite_micro import runtime

    content = made("int8 weights only")
    with pytest.raises(InputError, match=r"DEQUANTIZE .*a scale per channel, of which TFLM takes the first"):
        open_model("tflm", content)
    windows = random_samples(5, SENSOR.shape)
    truth = open_model("litert-reference", content).run_batch([windows])
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=1 << 18)
    difference = 0.0
    for index, window in enumerate(windows):
        interpreter.set_input(window[None], 0)
        interpreter.invoke()
        for place in range(2):
            got = interpreter.get_output(place)[0]
            difference = max(difference, float(np.abs(got - truth[place][index]).max()))
    # Far from rounding: LiteRT's kernels differ by some 1e-7 here.
    assert difference > 0.01


def summed() -> bytes:
    """A quantized sum over time."""
    model = HandModel()
    window = model.window((1, 4, 3), scale=0.1)
    axis = model.tensor([1], "INT32", values=np.asarray([1], np.int32), scale=None)
    options = schema.ReducerOptionsT()
    total = model.tensor((1, 3), scale=0.4)
    return model.finish(
        {"exit_01": model.operator("SUM", [window, axis], total, options, "ReducerOptions", 2)}
    )


def test_the_reference_kernels_are_given_no_quantized_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.arange(-6, 6, dtype=np.int8).reshape(1, 4, 3)
    expected = np.rint(codes.astype(int).sum(axis=1) / 4)
    for engine in ("litert-builtin", "litert-xnnpack", *(["tflm"] if HAS_TFLM else [])):
        got = open_model(engine, summed()).run_batch([codes])[0]
        assert np.abs(got - expected).max() <= 1, engine
    with pytest.raises(InputError, match=r"no quantized SUM.*Received: SUM \(operator 0\)"):
        open_model("litert-reference", summed())
    # Why: they compute it wrongly. If this ever fails, the guard may go.
    monkeypatch.setattr("mexit_edge.runtime.engines.refuse_for_reference", lambda graph: None)
    got = open_model("litert-reference", summed()).run_batch([codes])[0]
    assert np.abs(got - expected).max() > 1


@tflm
@pytest.mark.usefixtures("here")
def test_what_tflm_refuses_only_when_it_runs_is_refused_when_it_is_opened() -> None:
    window = keras.Input(SENSOR.shape)
    logits = layers.Dense(2, name="exit_01")(layers.GlobalMaxPooling1D()(window))
    content = convert(keras.Model(window, {"exit_01": logits}), random_samples(4, SENSOR.shape), "int16")
    with pytest.raises(InputError, match=r"Only float32 and int8 types are supported.*Node REDUCE_MAX"):
        open_model("tflm", content)


# --- Inputs, and that it repeats ----------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("structure", ["list", "dict"])
def test_several_inputs_keep_their_names_and_ranges(structure: str) -> None:
    other, left = keras.Input((6, 1), name="file"), keras.Input((8, 2), name="left")
    # A layer each: concatenated inputs would share one scale.
    branches = [layers.Dense(4)(layers.Flatten()(tensor)) for tensor in (other, left)]
    logits = layers.Dense(2, name="exit_01")(layers.Add()(branches))
    inputs = {"file": other, "left": left} if structure == "dict" else [other, left]
    windows = {"left": 10 * random_samples(8, (8, 2)), "file": random_samples(8, (6, 1))}
    graph = Graph(convert(keras.Model(inputs, {"exit_01": logits}), windows))
    found = {name: graph.tensors[index] for name, index in graph.signature_inputs.items()}
    assert {name: tensor.shape for name, tensor in found.items()} == {"left": (1, 8, 2), "file": (1, 6, 1)}
    scales = {name: np.ptp(np.append(values, 0)) / 255 for name, values in windows.items()}
    assert {name: tensor.scale for name, tensor in found.items()} == pytest.approx(scales, rel=1e-3)


FRESH = """
import sys, hashlib, warnings
import keras, numpy as np
from fixtures_networks import dscnn_network
from mexit_edge.compress import convert
from mexit_edge.tflite import cut_at_exits
for _ in range(int(sys.argv[1])):
    dscnn_network()  # so that Keras numbers the layers of the next one otherwise
keras.utils.set_random_seed(7)
windows = np.random.default_rng(3).standard_normal((16, 32, 3)).astype(np.float32)
whole = convert(dscnn_network(), windows)
stages = cut_at_exits(whole, ["exit_01", "exit_02", "exit_03"])
print(hashlib.sha256(b"".join(stage.content for stage in stages)).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_another_process_makes_the_same_stages_under_other_layer_names() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FRESH, "1"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    keras.utils.set_random_seed(7)
    windows = np.random.default_rng(3).standard_normal((16, *SENSOR.shape)).astype(np.float32)
    stages = cut_at_exits(convert(dscnn_network(), windows), ["exit_01", "exit_02", "exit_03"])
    assert done.stdout.split()[-1] == hashlib.sha256(b"".join(s.content for s in stages)).hexdigest()
