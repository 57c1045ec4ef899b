"""The on-device loop: the way in, the engines, the loop itself, parity and the arena. No TensorFlow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from fixtures_networks import (
    CLASSES,
    EACH_ENGINE,
    N_CLASSES,
    SENSOR,
    HandModel,
    bundle_of,
    hand_whole,
    random_samples,
    synthetic_windows,
    tflm,
    with_policy,
    with_stage,
)
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from mexit_edge.bundle import Bundle, FixedPointInput, InputSpec
from mexit_edge.errors import InputError, MissingExtraError, RunError
from mexit_edge.exits import SCORES
from mexit_edge.runtime import (
    ENGINES,
    CaughtStderr,
    InputQuantizer,
    Runtime,
    arena_bytes,
    available_engines,
    engines,
    fixed_point_affine,
    open_model,
    reference_engine,
    verify_golden,
)
from mexit_edge.runtime import tflm as tflm_room
from mexit_edge.runtime import trial as trial_room
from mexit_edge.signals import Normalisation, Sensor
from mexit_edge.simulate import make_golden
from mexit_edge.tflite.flatbuffer import parse, serialize

EVERY_COUNT = np.arange(-32768, 32768)
EACH_SCORE = pytest.mark.parametrize("score", list(SCORES))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """A hand-made bundle whose policy lets windows leave at every exit."""
    plain = bundle_of(hand_whole())
    return with_policy(plain, "logit_margin", thresholds_that_split(plain, "logit_margin"))


def thresholds_that_split(bundle: Bundle, score: str) -> list[int]:
    """Thresholds at the 60 % quantile of each early exit's scores."""
    logits = Runtime(bundle, "litert-reference").all_logits(synthetic_windows(200, noise=2.0).x)
    scores, _ = with_policy(bundle, score, (0, 0)).manifest.exit_rule().score(logits)
    # At the first exit agreement with nobody says the same of all windows: none leaves there.
    return [
        int(np.quantile(column, 0.6)) if np.ptp(column) else int(column[0]) + 1 for column in scores.T[:-1]
    ]


# --- The way in ---------------------------------------------------------------------------------------------


def quantizer(
    sensor: Sensor, normalisation: Normalisation, scale: float, zero_point: int
) -> tuple[InputQuantizer, FixedPointInput]:
    """The quantizer of a bundle with this input; the stages play no part."""
    fixed = fixed_point_affine(sensor, normalisation, scale, zero_point)
    assert fixed is not None
    plain = bundle_of(hand_whole()).manifest
    tensor = plain.stages[0].inputs[0].model_copy(update={"shape": (1, *sensor.shape)})
    stage = plain.stages[0].model_copy(update={"inputs": (tensor,)})
    manifest = plain.model_copy(
        update={
            "sensor": plain.sensor.model_copy(
                update={"window": sensor.window, "channels": sensor.channels, "units": sensor.units}
            ),
            "normalisation": plain.normalisation.model_copy(
                update={"offset": normalisation.offset, "scale": normalisation.scale}
            ),
            "input": InputSpec(scale=scale, zero_point=zero_point, fixed_point=fixed),
            "stages": (stage,),
        }
    )
    return InputQuantizer(manifest), fixed


def counts_sensor(units_per_count: float) -> Sensor:
    """One channel and one sample per window, so that a batch is a list of counts."""
    return Sensor(("a",), ("g",), 50.0, 1, 1, units_per_count=(units_per_count,))


def slow_affine(fixed: FixedPointInput) -> np.ndarray:
    """clamp((count * multiplier + bias) >> shift) for every count, in Python's own integers."""
    (multiplier,), (bias,) = fixed.multiplier, fixed.bias
    values = []
    for count in range(-32768, 32768):
        product = count * multiplier + bias
        assert -(2**31) <= product < 2**31, "the device computes this in int32"
        values.append(max(-128, min(127, product >> fixed.shift)))
    return np.asarray(values, np.int8)


# A real accelerometer (16 g over int16), a gyroscope, a coarse 8-bit one, and one that saturates early.
INPUTS = {
    "accelerometer": (1 / 2048, 0.1, 0.41, 0.038, -3),
    "gyroscope": (8.7266e-4, 0.0, 1.1, 0.05, 0),
    "coarse": (0.0625, -1.0, 2.0, 0.1, 17),
    "saturating": (1.0, 3.0, 0.5, 0.02, -128),
    "small": (1e-6, 0.0, 1.0, 0.04, 127),
}


@pytest.mark.parametrize("name", list(INPUTS))
def test_fixed_point_way_equals_the_slow_integers_for_every_count(name: str) -> None:
    per_count, offset, deviation, scale, zero_point = INPUTS[name]
    way, fixed = quantizer(
        counts_sensor(per_count), Normalisation((offset,), (deviation,)), scale, zero_point
    )
    fast = way.quantize(EVERY_COUNT.astype(np.int16).reshape(-1, 1, 1)).ravel()
    np.testing.assert_array_equal(fast, slow_affine(fixed))


@pytest.mark.parametrize(("name", "share"), [("accelerometer", 1e-3), ("gyroscope", 1e-3), ("coarse", 1e-3)])
def test_fixed_point_way_is_within_one_step_of_the_float_way(
    name: str, share: float, record_property: Any
) -> None:
    per_count, offset, deviation, scale, zero_point = INPUTS[name]
    way, _ = quantizer(counts_sensor(per_count), Normalisation((offset,), (deviation,)), scale, zero_point)
    counts = EVERY_COUNT.astype(np.int16).reshape(-1, 1, 1)
    difference = way.quantize(counts).astype(int) - way.quantize((EVERY_COUNT * per_count).reshape(-1, 1, 1))
    assert np.abs(difference).max() <= 1
    record_property("differing_counts", int((difference != 0).sum()))
    assert (difference != 0).mean() <= share


@settings(max_examples=40, deadline=None)
@given(
    per_count=st.floats(1e-6, 0.1),
    offset=st.floats(-3, 3),
    deviation=st.floats(0.05, 20),
    scale=st.floats(0.005, 0.2),
    zero_point=st.integers(-128, 127),
)
def test_fixed_point_way_for_any_input(
    per_count: float, offset: float, deviation: float, scale: float, zero_point: int
) -> None:
    normalisation = Normalisation((offset,), (deviation,))
    try:
        way, fixed = quantizer(counts_sensor(per_count), normalisation, scale, zero_point)
    except InputError:
        # int32 cannot hold so many steps per count, or a multiplier would be zero: said, not computed.
        reject()
    # The ends, the middle and a stride: every count is tested above for a few inputs.
    chosen = np.unique(np.r_[EVERY_COUNT[:3], EVERY_COUNT[-3:], EVERY_COUNT[::331], -1, 0, 1])
    counts = chosen.astype(np.int16).reshape(-1, 1, 1)
    fast = way.quantize(counts).ravel()
    (multiplier,), (bias,) = fixed.multiplier, fixed.bias
    slow = [max(-128, min(127, (int(c) * multiplier + bias) >> fixed.shift)) for c in chosen]
    assert fast.tolist() == slow
    assert max(abs(int(c) * multiplier) + abs(bias) for c in (-32768, 32767)) < 2**31
    exact = ((chosen * per_count - offset) / deviation) / scale + zero_point
    assert np.abs(fast - np.clip(np.rint(exact), -128, 127)).max() <= 1


def test_channels_have_multipliers_of_their_own() -> None:
    sensor = Sensor(("a", "b"), ("g", "dps"), 50.0, 2, 2, units_per_count=(0.001, 0.07))
    way, fixed = quantizer(sensor, Normalisation((0.5, -20.0), (0.4, 90.0)), 0.04, 5)
    rng = np.random.default_rng(0)
    counts = rng.integers(-32768, 32768, (500, 2, 2)).astype(np.int16)
    got = way.quantize(counts)
    for channel in range(2):
        product = counts[..., channel].astype(np.int64) * fixed.multiplier[channel] + fixed.bias[channel]
        np.testing.assert_array_equal(got[..., channel], np.clip(product >> fixed.shift, -128, 127))


def test_units_per_count_unknown_means_floats_only() -> None:
    assert fixed_point_affine(Sensor.plain(3, 32), Normalisation.identity(3), 0.1, 0) is None
    runtime = Runtime(bundle_of(hand_whole(), sensor=Sensor.plain(3, 32)))
    with pytest.raises(InputError, match=r"no `units_per_count`. Received: int16"):
        runtime.infer(np.zeros((32, 3), np.int16))
    assert runtime.infer(np.zeros((32, 3), np.float32)).way_in == "float"


def test_too_many_steps_per_count_are_refused() -> None:
    with pytest.raises(InputError, match="`units_per_count` must be small"):
        fixed_point_affine(counts_sensor(1e4), Normalisation.identity(1), 0.01, 0)


@pytest.mark.parametrize(
    ("multiplier", "bias", "shift"), [(0, 0, 10), (-5, 0, 10), (1 << 20, 0, 10), (1 << 15, (1 << 30) + 1, 8)]
)
def test_a_foreign_bundle_cannot_make_the_way_in_overflow(multiplier: int, bias: int, shift: int) -> None:
    plain = bundle_of(hand_whole())
    fixed = FixedPointInput(multiplier=(multiplier,) * 3, bias=(bias,) * 3, shift=shift)
    spec = plain.manifest.input.model_copy(update={"fixed_point": fixed})
    with pytest.raises(InputError, match="`fixed_point` must"):
        Runtime(plain.with_manifest(input=spec))


def test_the_quantizer_keeps_nothing_between_calls(bundle: Bundle) -> None:
    way = InputQuantizer(bundle.manifest)
    counts = synthetic_windows(20).counts()
    first = way.quantize(counts)
    kept = first.copy()
    second = way.quantize(counts[5:8])
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(second, kept[5:8])


# --- The loop -----------------------------------------------------------------------------------------------


def slow_decision(bundle: Bundle, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and exits by the rule itself, from the logits of every exit."""
    left_at, label = bundle.manifest.exit_rule().decide(logits)
    return label, left_at


@EACH_ENGINE
@EACH_SCORE
@pytest.mark.parametrize("way_in", ["fixed_point", "float"])
def test_infer_equals_infer_batch_equals_the_slow_way(score: str, engine: str, way_in: str) -> None:
    plain = bundle_of(hand_whole())
    bundle = with_policy(plain, score, thresholds_that_split(plain, score))
    windows = synthetic_windows(300, seed=3, noise=2.0)
    samples = windows.counts() if way_in == "fixed_point" else windows.x
    runtime = Runtime(bundle, engine)
    batch = runtime.infer_batch(samples)
    single = [Runtime.infer(runtime, sample) for sample in samples[:60]]
    label, left_at = slow_decision(bundle, runtime.all_logits(samples))
    assert set(left_at) >= ({2, 3} if score in ("patience", "vote") else {1, 2, 3}), "see every exit"
    np.testing.assert_array_equal(batch.label, label)
    np.testing.assert_array_equal(batch.exit, left_at)
    assert [decision.label for decision in single] == label[:60].tolist()
    assert [decision.exit for decision in single] == left_at[:60].tolist()
    assert {decision.way_in for decision in single} == {way_in}
    scores, _ = bundle.manifest.exit_rule().score(runtime.all_logits(samples[:60]))
    for decision, row in zip(single, scores, strict=True):
        assert decision.scores == tuple(row[: decision.exit])
        assert decision.stages_run == ("exit_01", "exit_02", "exit_03")[: decision.exit]


@EACH_ENGINE
def test_later_stages_do_not_run(bundle: Bundle, engine: str) -> None:
    samples = synthetic_windows(300, seed=4, noise=2.0).counts()
    runtime = Runtime(bundle, engine)
    result = runtime.infer_batch(samples)
    expected = tuple(int((result.exit >= number).sum()) for number in (1, 2, 3))
    assert expected[0] == 300 > expected[1] > expected[2] > 0
    assert result.invocations == expected == runtime.invocations
    # The same one window at a time, counted by the engines themselves.
    single = Runtime(bundle, engine)
    before = (0, 0, 0)
    for sample, left_at in zip(samples[:40], result.exit[:40], strict=True):
        now = single.infer(sample).invocations
        assert tuple(np.subtract(now, before)) == tuple(int(left_at > stage) for stage in range(3))
        before = now


@EACH_ENGINE
def test_a_batch_equals_single_windows(engine: str) -> None:
    # The built-in kernels' FULLY_CONNECTED would round 3 of these 300 windows differently in a batch.
    samples = synthetic_windows(300, seed=3, noise=2.0).x
    runtime = Runtime(bundle_of(hand_whole()), engine)
    together = runtime.run_all_exits(samples)
    alone = [runtime.run_all_exits(sample[None]) for sample in samples]
    for name, values in together.items():
        np.testing.assert_array_equal(values, np.concatenate([row[name] for row in alone]))


def test_a_second_batch_counts_itself_only(bundle: Bundle) -> None:
    runtime = Runtime(bundle)
    samples = synthetic_windows(30).counts()
    assert runtime.infer_batch(samples).invocations == runtime.infer_batch(samples).invocations
    assert runtime.invocations[0] == 60


def test_without_a_policy_every_window_runs_to_the_end() -> None:
    runtime = Runtime(bundle_of(hand_whole()))
    result = runtime.infer_batch(synthetic_windows(20).x)
    assert result.exit.tolist() == [3] * 20
    assert result.invocations == (20, 20, 20)
    assert runtime.infer(synthetic_windows(1).x[0]).exit == 3


@pytest.mark.parametrize(("threshold", "expected"), [(-(2**31), 1), (2**31 - 1, 3)])
def test_thresholds_at_the_ends(threshold: int, expected: int) -> None:
    bundle = with_policy(bundle_of(hand_whole()), "logit_margin", (threshold, threshold))
    assert set(Runtime(bundle).infer_batch(synthetic_windows(20).x).exit) == {expected}


def test_an_empty_batch_decides_nothing(bundle: Bundle) -> None:
    result = Runtime(bundle).infer_batch(np.empty((0, 32, 3), np.int16))
    assert (len(result.label), len(result.exit), result.invocations) == (0, 0, (0, 0, 0))
    with pytest.raises(InputError, match="at least one window"):
        Runtime(bundle).run_all_exits(np.empty((0, 32, 3), np.int16))


@pytest.mark.parametrize("n", [255, 256, 257])
def test_chunks_join(bundle: Bundle, n: int) -> None:
    samples = synthetic_windows(n, noise=2.0).counts()
    runtime = Runtime(bundle)
    label, left_at = slow_decision(bundle, runtime.all_logits(samples))
    result = runtime.infer_batch(samples)
    np.testing.assert_array_equal(result.label, label)
    np.testing.assert_array_equal(result.exit, left_at)


def test_ties_take_the_lowest_class(bundle: Bundle) -> None:
    # A zero weight everywhere gives equal logits.
    model = HandModel()
    window = model.window((1, *SENSOR.shape), scale=0.03)
    flat = model.view(window, (1, 96))
    weights = np.zeros((N_CLASSES, 96))
    weights[0, 0] = 1e-9
    logits = model.dense(flat, weights, 0.1)
    runtime = Runtime(bundle_of(model.finish({"exit_01": logits})))
    zeros = np.zeros((2, 32, 3), np.int16)
    assert runtime.infer(zeros[0]).label == 0
    assert runtime.infer_batch(zeros).label.tolist() == [0, 0]


GOOD = np.zeros((32, 3), np.float32)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (GOOD[:31], r"shape \(32, 3\). Received: \(31, 3\)"),
        (GOOD[None], r"shape \(32, 3\). Received: \(1, 32, 3\)"),
        (GOOD.tolist(), "Received: list"),
        (GOOD.astype(np.int8), "Received: int8"),
        (GOOD.astype(np.int32), "Received: int32"),
        (GOOD.astype(np.float16), "Received: float16"),
        (GOOD.astype(complex), "Received: complex128"),
        (np.where(np.arange(96).reshape(32, 3) == 4, np.nan, GOOD), r"finite samples. Received: nan"),
        (np.where(np.arange(96).reshape(32, 3) == 4, -np.inf, GOOD), r"finite samples. Received: -inf"),
    ],
)
def test_bad_windows_are_refused(bundle: Bundle, window: Any, message: str) -> None:
    runtime = Runtime(bundle)
    with pytest.raises(InputError, match=message):
        runtime.infer(window)
    assert runtime.invocations == (0, 0, 0)


def test_bad_batches_are_refused(bundle: Bundle) -> None:
    runtime = Runtime(bundle)
    with pytest.raises(InputError, match=r"shape \(n, 32, 3\)"):
        runtime.infer_batch(GOOD)
    bad = np.zeros((300, 32, 3), np.float32)
    bad[299, 0, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        runtime.infer_batch(bad)
    with pytest.raises(InputError, match="finite"):
        runtime.all_logits(bad)


def test_windows_need_not_be_contiguous(bundle: Bundle) -> None:
    samples = synthetic_windows(10).counts()
    strided = np.asfortranarray(samples)
    runtime = Runtime(bundle)
    assert (
        runtime.infer_batch(strided[::-1]).label[::-1].tolist() == runtime.infer_batch(samples).label.tolist()
    )
    assert runtime.infer(strided[3]).scores == runtime.infer(samples[3]).scores


def test_big_floats_saturate(bundle: Bundle) -> None:
    runtime = Runtime(bundle)
    tensors = runtime.run_all_exits(np.full((1, 32, 3), 3e38, np.float32))
    assert set(np.unique(tensors["window"])) == {127}


# --- Engines ------------------------------------------------------------------------------------------------


def test_an_unknown_engine_is_refused_with_a_suggestion(bundle: Bundle) -> None:
    with pytest.raises(InputError, match=r"`engine` must be one of: .*Did you mean 'litert-xnnpack'\?"):
        Runtime(bundle, "litert-xnpack")


def test_without_tflm_the_reference_kernels_stand_in(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (engines, tflm_room):
        monkeypatch.setattr(room, "find_spec", lambda name: None)
    assert available_engines() == ENGINES[:-1]
    assert reference_engine() == "litert-reference"
    assert arena_bytes(bundle.stages[0]) is None
    with pytest.raises(MissingExtraError, match=r"pip install 'mexit-edge\[tflm\]'"):
        Runtime(bundle, "tflm")
    golden = make_golden(bundle, synthetic_windows(20), 8).golden
    assert golden is not None
    assert golden.reference == "litert-reference"
    assert set(golden.labels) == set(ENGINES[:-1])


@tflm
def test_with_tflm_it_is_the_reference() -> None:
    assert available_engines() == ENGINES
    assert reference_engine() == "tflm"


@EACH_ENGINE
def test_every_engine_refuses_bytes_that_are_no_model(engine: str) -> None:
    with pytest.raises(InputError, match="a model must"):
        open_model(engine, b"\0\0\0\0TFL3" + bytes(100))


@EACH_ENGINE
def test_a_stage_that_is_what_the_manifest_says_is_opened(bundle: Bundle, engine: str) -> None:
    for spec, content in zip(bundle.manifest.stages, bundle.stages, strict=True):
        assert engines.open_stage(engine, content, spec).n_outputs == len(spec.outputs)


@pytest.mark.parametrize("kind", ["inputs", "outputs"])
@pytest.mark.parametrize(
    "changes",
    [{"scale": 123.0}, {"zero_point": 99}, {"shape": (1, 2)}, None],
    ids=["scale", "zero point", "shape", "number"],
)
def test_a_stage_unlike_the_manifest_is_refused(bundle: Bundle, kind: str, changes: Any) -> None:
    spec, content = bundle.manifest.stages[1], bundle.stages[1]
    tensors = getattr(spec, kind)
    wrong = (tensors[0].model_copy(update=changes), *tensors[1:]) if changes else (*tensors, tensors[0])
    other = spec.model_copy(update={kind: wrong})
    with pytest.raises(InputError, match=rf"the {kind} of `stage_02.tflite` must be those of the manifest"):
        engines.open_stage("litert-reference", content, other)


def test_a_model_opens_without_a_temporary_folder(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    for engine in ENGINES[:-1]:
        open_model(engine, bundle.stages[0])


def test_a_model_opens_without_a_standard_error(bundle: Bundle, tmp_path: Path) -> None:
    path = bundle.save(tmp_path / "hand.mexit")
    code = (
        "import os\n"
        "os.close(2)\n"
        "from mexit_edge.runtime import Runtime, available_engines\n"
        f"print([Runtime({str(path)!r}, engine).engine for engine in available_engines()])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == f"{list(available_engines())}\n"


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("in_memory", [True, False])
def test_what_native_code_writes_is_caught(
    keep: bool, in_memory: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    with CaughtStderr(keep=keep) as caught:
        os.write(2, b"native words")
    os.write(2, b"after")
    assert caught.text() == ("native words" if keep else "")
    assert capfd.readouterr().err == "after"


@tflm
def test_an_operator_that_tflm_lacks_is_named_in_its_words(bundle: Bundle) -> None:
    model = parse(bundle.stages[0])
    for code in model.operatorCodes:
        if code.builtinCode == schema.BuiltinOperator.FULLY_CONNECTED:
            code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.UNIQUE
    with pytest.raises(InputError, match=r"that TFLM can run.*In TFLM's words: Didn't find op .*UNIQUE"):
        tflm_room.own_arena_bytes(serialize(model))


@tflm
def test_an_arena_that_tflm_does_not_report_is_no_unknown(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tflm_room, "_REPORT", re.compile("another wording"))
    with pytest.raises(RunError, match=r"must report its arena.*Received: '.*Arena allocation total"):
        arena_bytes(bundle.stages[0])


def test_a_model_that_kills_an_engine_kills_a_child_only(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial_room.try_in_child(bundle.stages)
    monkeypatch.setattr(trial_room, "_CHILD", "import os; os.abort()")
    with pytest.raises(InputError, match=r"litert-xnnpack can come back from. Received: signal 6"):
        trial_room.try_in_child([arena_model(12)], ["litert-xnnpack"])


def test_a_model_is_tried_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [*bundle.stages, arena_model(10)]
    trial_room.try_in_child(contents)
    monkeypatch.setattr(subprocess, "run", None)
    trial_room.try_in_child(contents)


def test_a_model_that_an_engine_does_not_come_back_from_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_room, "_CHILD", "import time; time.sleep(60)")
    monkeypatch.setattr(trial_room, "CHILD_TIMEOUT_S", 0.2)
    with pytest.raises(InputError, match=r"Received: none after 0.2 seconds"):
        trial_room.try_in_child([arena_model(11)])


def test_a_bundle_from_a_file_is_tried_before_it_is_opened(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundle.save(tmp_path / "foreign")
    # What was tried before would not be tried again.
    monkeypatch.setattr(trial_room, "_passed", set())
    monkeypatch.setattr(trial_room, "_CHILD", "import os; os.abort()")
    with pytest.raises(InputError, match="from a trial in a child process"):
        Runtime(path, "litert-reference")
    # One made in this process is ours.
    Runtime(bundle, "litert-reference")


@pytest.mark.parametrize(
    ("child", "received"),
    [
        ("import no_such_module", "exit code 1, ModuleNotFoundError: No module named 'no_such_module'"),
        # LiteRT or TFLM could end the process without a signal.
        ("import os; os._exit(0)", "exit code 0, nothing on standard error"),
    ],
)
def test_a_trial_that_says_nothing_is_none_that_was_passed(
    child: str, received: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_room, "_CHILD", child)
    for _ in range(2):
        with pytest.raises(RunError, match=f"its last word. Received: {received}"):
            trial_room.try_in_child([arena_model(13)], ["litert-xnnpack"])


def test_a_child_that_cannot_start_has_tried_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "no/such/python")
    with pytest.raises(RunError, match=r"needs a child process. Received: .*No such file"):
        trial_room.try_in_child([arena_model(13)], ["litert-xnnpack"])


@tflm
def test_a_custom_name_does_not_hide_a_built_in_operator() -> None:
    model = HandModel()
    window = model.window((1, 8))
    content = model.finish({"exit_01": model.operator("RELU6", [window], model.tensor((1, 8), scale=0.9))})
    changed = parse(content)
    changed.operatorCodes[0].customCode = b"X"
    with pytest.raises(InputError, match=r"computes wrongly. Received: RELU6 \(operator 0\)"):
        open_model("tflm", serialize(changed))


@tflm
def test_a_damaged_model_reaches_litert_before_tflm(monkeypatch: pytest.MonkeyPatch) -> None:
    # TFLM trusts its input: a few changed bytes can kill the process.
    opened: list[bytes] = []
    monkeypatch.setattr(tflm_room, "open_interpreter", lambda content: opened.append(content))
    content = bytearray(bundle_of(hand_whole()).stages[0])
    model_end = len(content)
    refused = 0
    for place in range(40, model_end, 97):
        damaged = bytearray(content)
        damaged[place : place + 8] = b"\xff" * 8
        try:
            open_model("tflm", bytes(damaged))
        except InputError:
            refused += 1
    assert refused > 3
    # What LiteRT refuses, TFLM has never seen.
    for seen in opened:
        open_model("litert-reference", seen)


def opens_within(content: bytes, size: int, folder: Path) -> bool:
    """Whether TFLM runs a model in an arena of this size; in a child, for it may crash on too small a one."""
    path = folder / "model.tflite"
    path.write_bytes(content)
    code = (
        "import sys\n"
        "from tflite_micro import runtime\n"
        "content = open(sys.argv[1], 'rb').read()\n"
        "model = runtime.Interpreter.from_bytes(content, arena_size=int(sys.argv[2]))\n"
        "model.invoke()\n"
    )
    command = [sys.executable, "-c", code, str(path), str(size)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def arena_model(n: int) -> bytes:
    """Three ADDs whose activations of n bytes each are alive two at a time."""
    model = HandModel()
    window = model.window((1, n))
    twice = model.add(window, window, scale=0.2)
    return model.finish({"exit_01": model.add(twice, window, scale=0.3)})


@tflm
def test_arena_is_the_smallest_that_works(tmp_path: Path) -> None:
    content = arena_model(500)
    reported = arena_bytes(content)
    assert reported is not None
    low, high = reported - 300, reported + 300
    assert not opens_within(content, low, tmp_path)
    assert opens_within(content, high, tmp_path)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if opens_within(content, middle, tmp_path) else (middle, high)
    assert high == reported


@tflm
def test_arena_of_tiny_activations_misses_the_planning(tmp_path: Path) -> None:
    # A limit of the figure that the docstring states. If this ever fails, the sentence may go.
    content = bundle_of(hand_whole()).stages[1]
    reported = arena_bytes(content)
    assert reported is not None
    assert not opens_within(content, reported, tmp_path)
    assert opens_within(content, reported + 256, tmp_path)


@tflm
def test_a_model_larger_than_the_first_arena_is_opened() -> None:
    # 300 KB of activations: the arena grows until it fits.
    content = arena_model(100_000)
    needed = arena_bytes(content)
    assert needed is not None
    assert needed > tflm_room.ARENA_START
    codes = np.random.default_rng(0).integers(-128, 128, (2, 100_000), np.int8)
    np.testing.assert_array_equal(
        open_model("tflm", content).run_batch([codes])[0],
        open_model("litert-reference", content).run_batch([codes])[0],
    )


@tflm
def test_a_model_beyond_the_arena_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not smaller: TFLM crashes the process on an arena of a few bytes.
    monkeypatch.setattr(tflm_room, "ARENA_START", 4096)
    monkeypatch.setattr(tflm_room, "ARENA_LIMIT", 4096)
    with pytest.raises(InputError, match="within 4096 bytes of arena"):
        arena_bytes(arena_model(100_000))


@tflm
def test_boundaries_of_tflm_and_the_reference_kernels_are_one() -> None:
    # FULLY_CONNECTED may round one step apart; everything in this model is downstream of one.
    bundle = bundle_of(hand_whole())
    samples = random_samples(200, SENSOR.shape)
    device = Runtime(bundle, "tflm").run_all_exits(samples)
    reference = Runtime(bundle, "litert-reference").run_all_exits(samples)
    for name, values in device.items():
        assert np.abs(values.astype(int) - reference[name]).max() <= 2, name


def test_a_lone_stage_of_another_bundle_is_refused_when_run(bundle: Bundle) -> None:
    with pytest.raises(InputError, match=r"whole .tflite file. Received: a damaged one"):
        Runtime(with_stage(bundle, 0, bundle.stages[0][:200] + bytes(len(bundle.stages[0]) - 200)))


# --- Golden vectors -----------------------------------------------------------------------------------------


@EACH_ENGINE
def test_golden_vectors_verify(bundle: Bundle, engine: str) -> None:
    made = make_golden(bundle, synthetic_windows(120, noise=2.0), 24)
    rows, wrong = verify_golden(made, engine)
    assert wrong == 0
    assert [row.windows for row in rows] == [24] * 3
    if engine == reference_engine():
        assert [row.differing_windows for row in rows] == [0, 0, 0]


def test_golden_vectors_see_a_changed_stage(bundle: Bundle) -> None:
    made = make_golden(bundle, synthetic_windows(120, noise=2.0), 24)
    other = with_policy(bundle, "logit_margin", (-(2**31), 0))
    changed = Bundle(
        other.manifest.model_copy(update={"golden": made.manifest.golden}), other.stages, made.golden
    )
    _, wrong = verify_golden(changed, "litert-reference")
    assert wrong > 0


def test_golden_vectors_are_needed(bundle: Bundle) -> None:
    with pytest.raises(InputError, match=r"\(none\). Received: 'litert-reference'"):
        verify_golden(bundle, "litert-reference")
    made = make_golden(bundle, synthetic_windows(40), 8)
    with pytest.raises(InputError, match=r"litert-xnnpack.*Received: 'tpu'"):
        verify_golden(made, "tpu")


def test_golden_vectors_need_the_logits_of_every_exit(bundle: Bundle) -> None:
    golden = make_golden(bundle, synthetic_windows(40), 8).golden
    assert golden is not None
    last = bundle.manifest.stages[-1].outputs[0].name
    fewer = replace(golden, tensors={name: golden.tensors[name] for name in set(golden.tensors) - {last}})
    with pytest.raises(InputError, match=rf"logits of every exit.*Received: none of {last}"):
        verify_golden(bundle.with_golden(fewer), "litert-reference")


# --- Room ---------------------------------------------------------------------------------------------------


def test_the_loop_runs_without_tensorflow(bundle: Bundle, tmp_path: Any) -> None:
    path = bundle.save(tmp_path / "hand")
    code = (
        "import sys\n"
        "import numpy as np\n"
        "from mexit_edge.runtime import Runtime\n"
        f"decision = Runtime({str(path)!r}).infer(np.zeros((32, 3), np.int16))\n"
        "assert decision.exit in (1, 2, 3)\n"
        "assert not {'tensorflow', 'keras', 'pandas', 'sklearn'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "the engine's announcements are caught"


def test_classes_of_the_fixture() -> None:
    # The hand-made bundle must tell classes apart, the last exit better, for the tests above to mean much.
    windows = synthetic_windows(400, seed=11, noise=2.0)
    logits = Runtime(bundle_of(hand_whole()), "litert-reference").all_logits(windows.x)
    right = (logits.argmax(axis=2) == windows.y[:, None]).mean(axis=0)
    assert len(CLASSES) == N_CLASSES
    assert right[2] > right[0] > 1.2 / N_CLASSES
