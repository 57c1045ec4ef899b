"""phone.tflite: all stages as signatures of one file, run as an app would run them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from fixtures_networks import HandModel, bundle_of, hand_whole, synthetic_windows, with_policy

from mexit_edge.bundle import Bundle
from mexit_edge.errors import InputError
from mexit_edge.runtime import Runtime, run_stages
from mexit_edge.runtime.staged import random_inputs
from mexit_edge.tflite import cut_at, cut_at_exits, phone_bundle, phone_model
from mexit_edge.tflite.graph import parse

DOCS = Path(__file__).parent.parent / "docs" / "phone.md"
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
    stages = cut_at_exits(hand_whole(), EXITS)
    assert len(phone_model(stages)) < sum(len(stage.content) for stage in stages) + 1000


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
def test_a_bundle_carries_it_on_request_and_loads_as_before(tmp_path: Path, name: str) -> None:
    bundle = bundle_of(hand_whole())
    phone = phone_bundle(bundle)
    assert phone == phone_model(cut_at_exits(hand_whole(), EXITS))
    plain, carrying = bundle.save(tmp_path / f"plain-{name}"), bundle.save(tmp_path / name, phone=phone)
    assert Bundle.load(carrying).manifest == Bundle.load(plain).manifest
    assert Bundle.load(carrying).stages == bundle.stages
    if carrying.is_dir():
        assert (carrying / "phone.tflite").read_bytes() == phone
        assert not (plain / "phone.tflite").exists()


def test_a_stage_of_the_same_name_is_not_overwritten(tmp_path: Path) -> None:
    bundle = bundle_of(hand_whole())
    first, *others = bundle.manifest.stages
    stages = (first.model_copy(update={"file": "phone.tflite"}), *others)
    clash = Bundle(bundle.manifest.model_copy(update={"stages": stages}), bundle.stages)
    with pytest.raises(InputError, match="must not take the name of a stage"):
        clash.save(tmp_path / "clash", phone=phone_bundle(clash))
    assert not list(tmp_path.iterdir())


def test_the_docs_name_what_is_in_the_file() -> None:
    text = DOCS.read_text("utf-8")
    for name in (
        "phone_bundle",
        "stage_%02d",
        "exit_%02d_logits",
        "thresholds_int",
        "runSignature",
        '"window"',
    ):
        assert name in text, name
    fences = re.findall(r"^```(\w+)$", text, flags=re.MULTILINE)
    assert {"kotlin", "swift", "python"} <= set(fences)
