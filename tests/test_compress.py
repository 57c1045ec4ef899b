"""Conversion to int8 in a child process, and export to a bundle."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from dataclasses import asdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_networks import (
    CLASSES,
    N_CLASSES,
    SENSOR,
    TRAIN_REASON,
    HandModel,
    converted,
    converting_in_this_process,
    dscnn_network,
    random_samples,
    synthetic_windows,
    tflm,
    user_model,
)
from test_tflite import with_float_island

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
from keras import layers

from mexit_edge.bundle import Training
from mexit_edge.compress import (
    Quantization,
    bundle_from_whole,
    convert,
    converter,
    converter_child,
    export,
    export_with_whole,
)
from mexit_edge.errors import InputError, RunError
from mexit_edge.regimes import MultiExitModel
from mexit_edge.runtime import Runtime, arena_bytes, open_model
from mexit_edge.signals import Normalisation, Sensor
from mexit_edge.tflite import Graph, audit_int8

pytestmark = pytest.mark.train
X = random_samples(8, SENSOR.shape)


@pytest.fixture
def workshops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary folders go here, so that a test sees what is left behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def never_converts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*options: object) -> bytes:
        raise AssertionError("the converter was started")

    monkeypatch.setattr(converter, "run_child", refuse)


@cache
def tiny_network() -> keras.Model:
    """The smallest network that there is to convert, where the child never gets that far."""
    window = keras.Input((4, 1))
    return keras.Model(window, {"exit_01": layers.Dense(2, name="exit_01")(layers.Flatten()(window))})


def converted_by_the_child(
    network: keras.Model, representative: np.ndarray, folder: Path, *, static: bool
) -> bytes:
    """What the newer quantizer makes of a network, without the fallback."""
    specification = keras.InputSpec(shape=(1, *network.inputs[0].shape[1:]), dtype="float32")
    options = {"input_signature": [specification]} if static else {}
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        network.export(
            str(folder / converter_child.SAVED_MODEL), format="tf_saved_model", verbose=False, **options
        )
        np.savez(folder / converter_child.REPRESENTATIVE, input_window=representative)
        (folder / converter_child.REQUEST).write_text(json.dumps(asdict(Quantization())), encoding="utf-8")
        assert converter_child.main(folder, converter_child.MLIR) == 0
    return (folder / converter_child.MODEL).read_bytes()


def head(features: object, name: str = "exit_01") -> keras.Model:
    return layers.Dense(N_CLASSES, name=name)(features)


# --- Before the converter -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("never_converts")
def test_representative_windows_must_fit() -> None:
    network = dscnn_network()
    with pytest.raises(InputError, match=r"network's shape \(32, 3\).*Received: \(31, 3\)"):
        export(network, X[:, :31])
    with pytest.raises(InputError, match=r"network's shape \(32, 3\)"):
        export(network, synthetic_windows(8, sensor=Sensor.plain(3, 16)))


BAD = X.copy()
BAD[2, 1, 0] = np.inf


@pytest.mark.usefixtures("never_converts")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"representative": BAD},
            r"`representative` must hold finite samples. Received: inf at index \(2, 1, 0\)",
        ),
        (
            {"representative": [[1.0, 2.0], [3.0]]},
            "`representative` must be an array, or lists of equal length",
        ),
        ({"representative": X.astype(str)}, r"`representative` must hold windows .*Received: \(32, 3\), <U"),
        ({"representative": X[:0]}, "`representative` must hold at least one window"),
        ({"sensor": Sensor.plain(3, 16)}, r"`sensor` must have .* \(32, 3\). Received: \(16, 3\)"),
        ({"classes": ["a", "b"]}, r"`classes` needs one name per logit \(4\). Received: 2 \(a, b\)"),
        ({"classes": "walk"}, "`classes` must hold one distinct name per class"),
        ({"classes": ["a", "b", "c", "a"]}, "`classes` must hold one distinct name per class"),
        (
            {"model": user_model()},
            "`model` must be a functional Keras model with a dict of outputs.*attach_exits",
        ),
    ],
    ids=["infinite", "ragged", "text", "none", "sensor", "classes", "a text", "twice", "plain output"],
)
def test_export_refuses_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        export(**{"model": dscnn_network(), "representative": X, **options})


# --- The child ----------------------------------------------------------------------------------------------


def test_the_child_makes_the_same_bytes_as_this_process(workshops: Path) -> None:
    made = converted("dscnn")
    assert convert(made.network, made.representative) == made.whole
    assert list(workshops.glob("mexit-*")) == []


def child_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> Path:
    """Put another script in the place of the converter; returns the folder of temporary folders."""
    script = tmp_path / "child.py"
    script.write_text(code, encoding="utf-8")
    folder = tmp_path / "workshops"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(converter_child, "__file__", str(script))
    return folder


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_a_crash_of_the_converter_is_an_error_with_its_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    code = (
        "import os, signal, sys\n"
        "print('last words', file=sys.stderr, flush=True)\n"
        f"os.kill(os.getpid(), signal.{name})\n"
    )
    folder = child_that(tmp_path, monkeypatch, code)
    with pytest.raises(
        RunError, match=rf"crashed \(killed by signal {name}\).*Nothing was written.*last words"
    ):
        convert(tiny_network(), X[:, :4, :1])
    assert list(folder.glob("mexit-*")) == []


def test_an_exit_status_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = child_that(tmp_path, monkeypatch, "import sys\nsys.exit(9)\n")
    with pytest.raises(RunError, match=r"crashed \(exit status 9\).*last words: none"):
        convert(tiny_network(), X[:, :4, :1])
    assert list(folder.glob("mexit-*")) == []


def test_status_3_without_a_reason_is_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child_that(tmp_path, monkeypatch, f"import sys\nsys.exit({converter_child.REFUSED})\n")
    with pytest.raises(RunError, match="exit status 3"):
        convert(tiny_network(), X[:, :4, :1])


def test_a_converter_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = tmp_path / "pid"
    code = f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n"
    folder = child_that(tmp_path, monkeypatch, code)
    monkeypatch.setattr(converter, "TIMEOUT_S", 1)
    with pytest.raises(RunError, match="did not finish within 1 seconds"):
        convert(tiny_network(), X[:, :4, :1])
    assert list(folder.glob("mexit-*")) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_float_operator_is_refused_after_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converter, "run_child", lambda *options: with_float_island())
    with pytest.raises(InputError, match=r"operators that have an int8 form. Received: ADD with the FLOAT32"):
        convert(tiny_network(), X[:, :4, :1])


def test_the_older_quantizer_takes_what_the_newer_leaves_in_float(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = converted("dscnn").whole
    asked: list[str] = []

    def child(workshop: Path, quantizer: str) -> bytes:
        asked.append(quantizer)
        return whole if quantizer == converter_child.LEGACY else with_float_island()

    monkeypatch.setattr(converter, "run_child", child)
    assert convert(tiny_network(), X[:, :4, :1]) == whole
    assert asked == [converter_child.MLIR, converter_child.LEGACY]


def test_the_newer_quantizer_still_leaves_floats_behind_a_residual_sum(tmp_path: Path) -> None:
    # Why there is a fallback. If this ever fails, the older quantizer and the second pass may go.
    made = converted("two_heads_residual")
    audit_int8(made.whole)
    with pytest.raises(InputError, match=r"Received: .* with the FLOAT32 tensor"):
        audit_int8(converted_by_the_child(made.network, made.representative, tmp_path, static=True))


# --- Operators ----------------------------------------------------------------------------------------------


class IncompleteBeta(layers.Layer):
    """Not registered with Keras, and its operator has no TFLite form."""

    def call(self, inputs: object) -> object:
        import tensorflow as tf

        return tf.math.betainc(tf.ones_like(inputs), tf.ones_like(inputs), tf.sigmoid(inputs))


class Doubled(layers.Layer):
    """Not registered with Keras; its operator has an int8 form."""

    def call(self, inputs: object) -> object:
        return keras.ops.relu(inputs + inputs)


def test_an_operator_without_a_tflite_form_is_named() -> None:
    # By the real child, whose refusal must cross the border between processes.
    window = keras.Input(SENSOR.shape)
    network = keras.Model(
        window, {"exit_01": head(layers.GlobalAveragePooling1D()(IncompleteBeta()(window)))}
    )
    with pytest.raises(InputError, match=r"Received: Betainc of the layer '\w+' \(IncompleteBeta\). Replace"):
        convert(network, X)


def test_a_custom_layer_crosses_as_a_saved_model() -> None:
    window = keras.Input(SENSOR.shape)
    network = keras.Model(window, {"exit_01": head(layers.GlobalAveragePooling1D()(Doubled()(window)))})
    with converting_in_this_process(), warnings.catch_warnings():
        warnings.simplefilter("default")
        whole = convert(network, X)
    assert list(Graph(whole).signature_outputs) == ["exit_01"]


@tflm
def test_the_dynamic_batch_trap_is_still_there(tmp_path: Path) -> None:
    # Why the batch is static: with a dynamic one, dilations become SPACE_TO_BATCH_ND, and TFLM computes those
    # wrongly without an error. If this ever fails, the static batch and the guard before TFLM may go.
    from tflite_micro import runtime

    made = converted("dilated")
    content = converted_by_the_child(made.network, made.representative, tmp_path, static=False)
    assert "SPACE_TO_BATCH_ND" in {operator.name for operator in Graph(content).operators}
    codes = np.random.default_rng(0).integers(-128, 128, (20, *SENSOR.shape), np.int8)
    with pytest.raises(InputError, match=r"SPACE_TO_BATCH_ND .* with \(1, .* instead of \(2, .*static batch"):
        open_model("tflm", content)
    device = runtime.Interpreter.from_bytes(content, arena_size=1 << 18)
    reference = open_model("litert-reference", content)
    difference = 0
    for code in codes:
        device.set_input(code[None], 0)
        device.invoke()
        reference.set_input(0, code[None])
        reference.invoke()
        for place in range(2):
            steps = np.abs(device.get_output(place).astype(int) - reference.get_output(place))
            difference = max(difference, int(steps.max()))
    assert difference > 8


@pytest.mark.parametrize(
    ("text", "operators"),
    [
        ("error: 'tf.Lgamma' op is neither a custom op nor a flex op\n", {"Lgamma": ""}),
        (
            'loc(callsite(fused["Erf:", "functional_1/my_gelu_1/Erf@__inference"] at x)): '
            "'tf.Erf' op is neither a custom op nor a flex op\n"
            "'tf.Acosh' op is neither a custom op nor a flex op",
            {"Acosh": "", "Erf": "functional_1/my_gelu_1/Erf"},
        ),
        (
            "Quantization not yet supported for op: 'NEG'.\nQuantization not yet supported for op: 'DIV'.\n"
            * 9,
            {"DIV": "", "NEG": ""},
        ),
        ("Quantization to 16x8-bit not yet supported for op: 'ELU'.\n", {"ELU": ""}),
        ("Cannot set tensor: Dimension mismatch. Got 31 but expected 32 for dimension 1 of input 0.", {}),
        ("could not allocate memory in tf.function(predict)", {}),
    ],
)
def test_operators_are_refused_only_where_the_converter_names_them(
    text: str, operators: dict[str, str]
) -> None:
    assert converter_child._refused_operators(text) == operators


def test_another_failure_of_the_converter_is_no_refusal(tmp_path: Path) -> None:
    # Exit code 2 would tell the user that the network is wrong; here the representative windows are.
    network = tiny_network()
    with pytest.raises((RuntimeError, ValueError)):
        converted_by_the_child(network, np.zeros((2, 5, 1), np.float32), tmp_path, static=True)
    assert not (tmp_path / converter_child.REFUSAL).exists()


def test_the_text_of_another_failure_reaches_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child_that(tmp_path, monkeypatch, "raise RuntimeError('no memory for 7 tensors')\n")
    with pytest.raises(RunError, match=r"(?s)exit status 1\).*RuntimeError: no memory for 7 tensors"):
        convert(tiny_network(), X[:, :4, :1])


# --- Export -------------------------------------------------------------------------------------------------


def test_export_describes_what_it_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = converted("dscnn")
    monkeypatch.setattr(converter, "run_child", lambda *options: made.whole)
    windows = synthetic_windows(40)
    model = MultiExitModel(made.network, normalisation=Normalisation.fit(windows))
    bundle = export(model, windows, name="small", training=Training(data="synthetic", seed=3))
    manifest = bundle.manifest
    assert (manifest.name, manifest.classes, manifest.training.seed) == ("small", CLASSES, 3)
    assert manifest.sensor.to_sensor() == SENSOR
    assert manifest.normalisation.scale == model.normalisation.scale
    assert manifest.input.fixed_point is not None
    assert manifest.policy is None
    assert {"keras", "tensorflow", "numpy"} <= set(manifest.versions)
    for spec, content in zip(manifest.stages, bundle.stages, strict=True):
        assert spec.flash_bytes == len(content)
        assert spec.arena_bytes == arena_bytes(content)
        assert spec.macs >= spec.live_macs > 0
        assert sum(spec.ops.values()) == len(Graph(content).operators)
    # int16 counts and floats in the sensor's units are normalised on the way in.
    runtime = Runtime(bundle)
    counts, floats = runtime.all_logits(windows.counts()), runtime.all_logits(windows.x)
    assert np.abs(counts.astype(int) - floats).max() <= 3


def test_export_of_arrays_needs_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    made = converted("attached")
    monkeypatch.setattr(converter, "run_child", lambda *options: made.whole)
    bundle = export(made.network, made.representative)
    assert bundle.manifest.classes == ("class_0", "class_1", "class_2", "class_3")
    assert bundle.manifest.sensor.units_per_count is None
    assert bundle.manifest.input.fixed_point is None
    agreement = (
        Runtime(bundle).all_logits(made.representative)[:, -1].argmax(axis=1)
        == made.network.predict(made.representative, verbose=0)["exit_03"].argmax(axis=1)
    ).mean()
    assert agreement >= 0.8


@pytest.mark.parametrize("quantization", ["int16", "float32", Quantization(io="float32")], ids=str)
def test_a_bundle_is_int8(quantization: str | Quantization) -> None:
    with pytest.raises(InputError, match=r"of a bundle must be 'int8' .*`mexit cut` take every"):
        export(tiny_network(), X[:, :4, :1], quantization=quantization)


def test_a_bundle_has_one_input_of_windows() -> None:
    left, right = keras.Input((4, 1), name="left"), keras.Input((4, 1), name="right")
    logits = layers.Dense(2, name="exit_01")(layers.Flatten()(layers.Concatenate()([left, right])))
    with pytest.raises(InputError, match=r"one input .*Received: 2 \(left, right\).*models.join_inputs"):
        export(keras.Model([left, right], {"exit_01": logits}), X[:, :4, :1])
    image = keras.Input((4, 4, 1))
    logits = layers.Dense(2, name="exit_01")(layers.Flatten()(image))
    with pytest.raises(InputError, match=r"windows \(time, channels\).*Received: an input \(4, 4, 1\)"):
        export(keras.Model(image, {"exit_01": logits}), X[:, :4, :1])


def test_the_whole_model_comes_with_the_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    made = converted("dscnn")
    monkeypatch.setattr(converter, "run_child", lambda *options: made.whole)
    bundle, whole = export_with_whole(made.network, made.representative)
    assert whole == made.whole
    assert bundle.stages == made.bundle.stages


def test_bundle_from_whole_refuses_exits_that_are_not_there() -> None:
    made = converted("cascaded")
    with pytest.raises(InputError, match="must name outputs of the model"):
        bundle_from_whole(
            made.whole,
            exits=["exit_01", "exit_07"],
            name="x",
            sensor=SENSOR,
            normalisation=Normalisation.identity(3),
            classes=CLASSES,
            training=Training(),
        )


def test_bundle_from_whole_refuses_an_operator_without_a_known_cost() -> None:
    model = HandModel()
    flat = model.view(model.window((1, *SENSOR.shape)), (1, 96))
    features = model.operator("LSH_PROJECTION", [flat], model.tensor((1, 96)))
    whole = model.finish({"exit_01": model.dense(features, np.ones((N_CLASSES, 96)), 0.1)})
    with pytest.raises(InputError, match=r"`model` must become .* Received: LSH_PROJECTION\. Replace"):
        bundle_from_whole(
            whole,
            exits=["exit_01"],
            name="x",
            sensor=SENSOR,
            normalisation=Normalisation.identity(3),
            classes=CLASSES,
            training=Training(),
        )


def test_the_child_imports_nothing_of_this_package() -> None:
    source = Path(converter_child.__file__).read_text("utf-8")
    assert "mexit_edge" not in source
    assert "import keras" not in source
