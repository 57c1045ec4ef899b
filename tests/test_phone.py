"""phone.tflite: all stages as signatures of one file, run as an app would run them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from fixtures_networks import HandModel, bundle_of, hand_whole, synthetic_windows, with_policy

from mexit_edge.bundle import Bundle
from mexit_edge.bundle.spec import Spec
from mexit_edge.errors import InputError
from mexit_edge.files import sha256
from mexit_edge.runtime import Runtime, run_stages
from mexit_edge.runtime.input import InputQuantizer
from mexit_edge.runtime.staged import random_inputs
from mexit_edge.tflite import cut_at, cut_at_exits, phone_bundle, phone_model
from mexit_edge.tflite.flatbuffer import parse

DOCS = Path(__file__).parent.parent / "docs" / "phone.md"
REFERENCE = Path(__file__).parent.parent / "tflite_models" / "reference.mexit"
EXITS = ("exit_01", "exit_02", "exit_03")
RESOLVERS = {
    "litert-xnnpack": OpResolverType.AUTO,
    "litert-builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "litert-reference": OpResolverType.BUILTIN_REF,
}
EACH_RESOLVER = pytest.mark.parametrize("engine", list(RESOLVERS))


def opened(content: bytes, engine: str) -> Interpreter:
    return Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=RESOLVERS[engine])


@EACH_RESOLVER
def test_signatures_equal_the_stages_bit_for_bit(engine: str) -> None:
    stages = cut_at_exits(hand_whole(), EXITS)
    (codes,) = random_inputs(hand_whole(), 12).values()
    expected = run_stages(stages, {"window": codes}, engine)
    interpreter = opened(phone_model(stages), engine)
    assert sorted(interpreter.get_signature_list()) == ["stage_01", "stage_02", "stage_03"]
    runners = [interpreter.get_signature_runner(f"stage_{number:02d}") for number in (1, 2, 3)]
    for index, code in enumerate(codes):
        live = {"window": code[None]}
        for runner, stage in zip(runners, stages, strict=True):
            made = runner(**{name: live[name] for name in runner.get_input_details()})
            assert set(made) == {name for name, _ in stage.outputs}
            live |= made
        for name, values in live.items():
            np.testing.assert_array_equal(values[0], expected[name][index], err_msg=name)


def test_the_loop_of_the_docs_decides_as_the_runtime() -> None:
    bundle = with_policy(bundle_of(hand_whole()), "logit_margin", (4, 5))
    runtime = Runtime(bundle, "litert-xnnpack")
    windows = synthetic_windows(60, noise=2.0).x
    expected = runtime.infer_batch(windows)
    assert len(set(expected.exit.tolist())) == 3
    interpreter = opened(phone_bundle(bundle), "litert-xnnpack")
    runners = [interpreter.get_signature_runner(f"stage_{number:02d}") for number in (1, 2, 3)]
    thresholds = [*bundle.manifest.policy.thresholds_int, -256]
    for index, code in enumerate(runtime.quantizer.quantize(windows)):
        live = {"window": code[None]}
        for number, (runner, threshold) in enumerate(zip(runners, thresholds, strict=True), start=1):
            live |= runner(**{name: live[name] for name in runner.get_input_details()})
            logits = live[f"exit_{number:02d}_logits"][0].astype(int)
            second, first = np.sort(logits)[-2:]
            if first - second >= threshold:
                break
        assert (number, int(logits.argmax())) == (expected.exit[index], expected.label[index])


def test_values_that_stages_share_are_stored_once() -> None:
    model = HandModel()
    window = model.window((1, 8), scale=0.1)
    weights = np.random.default_rng(0).standard_normal((8, 8))
    first = model.dense(window, weights, 0.1)
    whole = model.finish({"out": model.dense(first, weights, 0.1)})
    stages = cut_at(whole, [first])
    merged = parse(phone_model(stages))
    kernels = [buffer for buffer in merged.buffers if buffer.data is not None and len(buffer.data) == 64]
    assert len(kernels) == 1
    assert len(merged.operatorCodes) == 1
    assert merged.buffers[0].data is None
    assert [subgraph.name for subgraph in merged.subgraphs] == [b"stage_01", b"stage_02"]


def test_one_file_is_smaller_than_its_stages() -> None:
    bundle = Bundle.load(REFERENCE)
    assert len(phone_bundle(bundle)) < sum(map(len, bundle.stages))


def test_the_order_of_signatures_is_that_of_the_stages_beyond_nine() -> None:
    model = HandModel()
    tensors = [model.window((1, 8))]
    for number in range(12):
        tensors.append(model.add(tensors[-1], tensors[-1], scale=0.1 * (number + 1)))
    stages = cut_at(model.finish({"out": tensors[-1]}), tensors[1:])
    keys = [signature.signatureKey for signature in parse(phone_model(stages)).signatureDefs]
    assert keys == sorted(keys) == [f"stage_{number:02d}".encode() for number in range(1, 13)]


def test_no_stage_is_refused() -> None:
    with pytest.raises(InputError, match="at least one stage"):
        phone_model(())


@pytest.mark.parametrize("name", ["hand.mexit", "hand.zip"])
def test_a_bundle_carries_it_through_load_and_save(tmp_path: Path, name: str) -> None:
    bundle = bundle_of(hand_whole(), thresholds=(8, 10))
    phone = phone_bundle(bundle)
    assert phone == phone_model(cut_at_exits(hand_whole(), EXITS))
    path = bundle.with_phone(phone).save(tmp_path / name)
    loaded = Bundle.load(path)
    assert loaded.phone == phone
    assert loaded.manifest.phone_sha256 == sha256(phone)
    loaded.with_manifest(policy=None).save(path, overwrite=True)
    again = Bundle.load(path)
    assert again.phone == phone
    assert again.manifest.model_copy(update={"phone_sha256": None}) == bundle.manifest.model_copy(
        update={"policy": None}
    )
    # Other stages are no longer those of the file.
    first, *others = loaded.manifest.stages
    other = loaded.with_manifest(stages=(first.model_copy(update={"macs": 1}), *others))
    assert (other.phone, other.manifest.phone_sha256) == (None, None)


def test_a_bundle_without_it_keeps_its_bytes(tmp_path: Path) -> None:
    path = bundle_of(hand_whole()).save(tmp_path / "plain")
    assert not (path / "phone.tflite").exists()
    assert "phone" not in (path / "manifest.json").read_text("utf-8")
    # Left out of a copy, the file leaves no hash behind.
    carrying = bundle_of(hand_whole()).with_phone(b"file")
    bare = replace(carrying, phone=None).save(tmp_path / "bare")
    assert (bare / "manifest.json").read_bytes() == (path / "manifest.json").read_bytes()


def test_a_changed_file_is_found_when_the_bundle_is_loaded(tmp_path: Path) -> None:
    bundle = bundle_of(hand_whole())
    path = bundle.with_phone(phone_bundle(bundle)).save(tmp_path / "hand")
    (path / "phone.tflite").write_bytes(b"another")
    with pytest.raises(InputError, match=r"`phone.tflite` must have the sha256 that the manifest states"):
        Bundle.load(path)
    (path / "phone.tflite").unlink()
    with pytest.raises(InputError, match=r"must hold the file phone.tflite. Received: none"):
        Bundle.load(path)
    with pytest.raises(InputError, match="Use `with_phone`"):
        replace(bundle, phone=b"file")


def test_a_stage_of_the_same_name_is_not_overwritten() -> None:
    bundle = bundle_of(hand_whole())
    first, *others = bundle.manifest.stages
    stages = (first.model_copy(update={"file": "phone.tflite"}), *others)
    clash = Bundle(bundle.manifest.model_copy(update={"stages": stages}), bundle.stages)
    with pytest.raises(InputError, match="must not take the name of a stage"):
        clash.with_phone(phone_bundle(clash))


def _with_arrays(spec: Spec) -> Spec:
    """Return a part of the manifest with NumPy integers and floats, one per channel."""
    return spec.model_copy(
        update={
            name: np.asarray(value, np.int32 if isinstance(value[0], int) else np.float64)
            for name, value in spec
            if isinstance(value, tuple)
        }
    )


def test_the_formulas_of_the_docs_are_those_of_the_runtime() -> None:
    """The two lines of code on the page, run as they stand, give what `InputQuantizer` gives."""
    manifest = Bundle.load(REFERENCE).manifest
    quantizer = InputQuantizer(manifest)
    rng = np.random.default_rng(0)
    names = {
        "normalisation": _with_arrays(manifest.normalisation),
        "input": manifest.input.model_copy(update={"fixed_point": _with_arrays(manifest.input.fixed_point)}),
        "c": slice(None),
        "float32": np.float32,
        "rint": np.rint,
        "clamp": lambda values: np.clip(values, -128, 127),
    }
    (lines,) = re.findall(r"^```python\n(step = .*?)```$", DOCS.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    x = (3 * rng.standard_normal((50, *quantizer.shape))).astype(np.float32)
    counts = rng.integers(-(1 << 15), 1 << 15, x.shape).astype(np.int16)
    for name, windows in (("x", x), ("count", counts)):
        made: dict[str, np.ndarray] = {}
        wide = windows.astype(np.int32) if name == "count" else windows
        for line in lines.splitlines():
            target, _, formula = line.partition("  #")[0].partition(" = ")
            if target != "q" or re.search(rf"\b{name}\b", formula):
                made[target] = eval(formula, names | made | {name: wide})  # noqa: S307
        expected = quantizer.quantize(windows)
        np.testing.assert_array_equal(made["q"].reshape(expected.shape), expected, err_msg=name)


def test_the_docs_name_what_is_in_the_file() -> None:
    text = DOCS.read_text("utf-8")
    for name in (
        "phone_bundle",
        "stage_%02d",
        "exit_%02d_logits",
        "thresholds_int",
        "input.fixed_point",
        '`policy.score == "logit_margin"`',
        "with_phone",
        "runSignature",
        '"window"',
    ):
        assert name in text, name
    fences = re.findall(r"^```(\w+)$", text, flags=re.MULTILINE)
    assert {"kotlin", "swift", "python"} <= set(fences)
