"""Damaged files end in an InputError or a correct run: a slice of what benchmarks/fuzz.py does at length."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from fixtures_networks import SENSOR, bundle_of, hand_whole, random_samples
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.bundle import Bundle
from mexit_edge.errors import InputError
from mexit_edge.estimate import operations
from mexit_edge.files import sha256
from mexit_edge.runtime import Runtime, arena_bytes, available_engines, compare_engines, trial
from mexit_edge.runtime.engines import open_model
from mexit_edge.tflite import Graph
from mexit_edge.tflite.flatbuffer import parse, serialize

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import fuzz
import mutations

N = 150
ENGINE = "litert-xnnpack"  # the one that ends a process most often


@pytest.fixture(scope="module")
def found():
    """What becomes of the first mutations, in child processes."""
    return fuzz.supervise(seed=1, start=0, stop=N, tflm_every=12, engines=[ENGINE])


def test_every_damaged_file_is_refused_or_runs(found):
    assert len(found) == N
    bad = [
        (entry["number"], step, outcome)
        for entry in found
        for step, outcome in entry["found"].items()
        if outcome not in (fuzz.REFUSED, fuzz.RAN, fuzz.BY_TRIAL)
    ]
    assert bad == []


def test_the_damage_gets_past_the_hashes_and_to_the_engines(found):
    # Were the hashes not mended, every bundle would be refused when it is loaded, and nothing behind tried.
    rows = [row for row in fuzz.summary(found) if row["file"] == "stage"]
    ran = {row["step"]: 0 for row in rows}
    refused = dict(ran)
    for row in rows:
        ran[row["step"]] += row[fuzz.RAN]
        refused[row["step"]] += row[fuzz.REFUSED]
    assert refused["Bundle.load"] == 0
    of_a_cut = ("cut_at_exits", "cut_points", "cut_into", "keep_names", "phone_model", "mended")
    for step in ("Graph", *of_a_cut, "operations", f"Runtime {ENGINE}"):
        assert ran[step] > 10, step
        assert refused[step] > 10, step


@pytest.mark.skipif("tflm" not in available_engines(), reason="needs TFLM")
def test_some_damage_is_carried_on_to_tflm(found):
    assert sum(entry["found"].get("Runtime tflm") == fuzz.RAN for entry in found) >= 3


@pytest.mark.parametrize(("on_tflm", "code"), [(1, 1), (2, 0)])
def test_a_run_that_tries_too_little_on_tflm_fails(monkeypatch, tmp_path, on_tflm, code):
    entry = {"target": "0", "kind": "byte", "found": {"Runtime tflm": fuzz.RAN}}
    monkeypatch.setattr(fuzz, "supervise", lambda *arguments: [entry] * on_tflm)
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "--mutations", "40", "--out", str(tmp_path / "fuzz.csv")])
    assert fuzz.main() == code


def test_a_number_makes_the_same_damage_again():
    bundle = bundle_of(hand_whole())
    manifest = bundle.manifest.model_dump_json().encode()
    changes = [mutations.mutation(manifest, bundle.stages, 3, number) for number in range(60)]
    assert changes == [mutations.mutation(manifest, bundle.stages, 3, number) for number in range(60)]
    assert {change.kind for change in changes} == {*mutations.TFLITE_KINDS, *mutations.MANIFEST_KINDS}
    whole = {"manifest": manifest, **{str(place): stage for place, stage in enumerate(bundle.stages)}}
    # A byte or a field may be replaced by what was there.
    assert sum(change.content != whole[change.target] for change in changes) > 50


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_litert_does_not_survive_is_refused_before_it(scale):
    model = parse(bundle_of(hand_whole()).stages[1])
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].quantization.scale = np.asarray([scale], np.float32)
    with pytest.raises(InputError, match=r"positive, finite scales. Received: tensor \d+ with the scale"):
        Graph(serialize(model))


@pytest.mark.parametrize("name", ["ADD", "FULLY_CONNECTED"])
@pytest.mark.parametrize("place", [0, 1])
def test_an_input_that_an_operator_needs_must_be_there(name, place):
    model = parse(bundle_of(hand_whole()).stages[1])
    operator = next(one for one in Graph(serialize(model)).operators if one.name == name)
    model.subgraphs[0].operators[operator.index].inputs[place] = -1
    with pytest.raises(InputError, match=rf"Received: {name} \(operator \d+\) without input {place}"):
        Graph(serialize(model))


def test_a_bias_may_be_absent():
    model = parse(bundle_of(hand_whole()).stages[1])
    operator = next(one for one in Graph(serialize(model)).operators if one.name == "FULLY_CONNECTED")
    model.subgraphs[0].operators[operator.index].inputs[2] = -1
    open_model(ENGINE, serialize(model)).invoke()


def test_an_output_without_elements_has_no_price():
    model = parse(bundle_of(hand_whole()).stages[0])
    graph = model.subgraphs[0]
    graph.tensors[graph.operators[-1].outputs[0]].shape = np.asarray([0, 4], np.int32)
    with pytest.raises(InputError, match="an output without elements"):
        operations(serialize(model))


@pytest.mark.parametrize("engine", [name for name in available_engines() if name != "tflm"])
def test_outputs_of_another_shape_than_stored_are_refused(engine):
    """Weights of half the inputs: LiteRT takes the window for two, and gives twice the logits."""
    model = parse(bundle_of(hand_whole()).stages[0])
    graph = model.subgraphs[0]
    head = next(one for one in graph.operators if graph.outputs[0] in one.outputs)
    n_out, n_in = graph.tensors[head.inputs[1]].shape
    graph.tensors[head.inputs[1]].shape = np.asarray([n_out, n_in // 2], np.int32)
    with pytest.raises(InputError, match=r"FULLY_CONNECTED .* with \(1, 4\) instead of \(2, 4\)"):
        open_model(engine, serialize(model))


@settings(max_examples=40)
@given(shape=st.lists(st.integers(0, 5), max_size=5), place=st.integers(0, 2))
def test_weights_of_any_shape_are_counted_or_refused(shape, place):
    model = parse(bundle_of(hand_whole()).stages[1])
    graph = model.subgraphs[0]
    operator = next(one for one in graph.operators if len(one.inputs) == 3)
    graph.tensors[operator.inputs[place]].shape = np.asarray(shape, np.int32)
    try:
        counted = operations(serialize(model))
    except InputError:
        return
    assert all(cost.macs >= cost.live_macs >= 0 for cost in counted)


def killer() -> bytes:
    """A stage that passes every check made here, and ends LiteRT's process: an ADD without a quantization."""
    model = parse(bundle_of(hand_whole()).stages[1])
    for operator in Graph(serialize(model)).operators:
        if operator.name == "ADD":
            model.subgraphs[0].tensors[operator.inputs[0]].quantization = None
    return serialize(model)


def test_what_kills_litert_kills_a_child_only():
    Graph(killer())
    with pytest.raises(InputError, match=rf"{ENGINE} can come back from. Received: signal \d+, from a trial"):
        trial.try_in_child([killer()], [ENGINE])


@pytest.mark.skipif("tflm" not in available_engines(), reason="needs TFLM")
def test_the_arena_of_a_killer_is_not_asked_for_in_this_process():
    with pytest.raises(InputError, match="from a trial in a child process"):
        arena_bytes(killer())


@pytest.mark.parametrize(
    "use",
    [
        lambda path: Runtime(path),
        lambda path: Runtime(Bundle.load(path)),
        # Replacing a part of it does not make it ours.
        lambda path: Runtime(Bundle.load(path).with_manifest(name="renamed")),
        lambda path: compare_engines(Bundle.load(path), random_samples(2, SENSOR.shape), [ENGINE]),
    ],
)
def test_a_bundle_with_a_killer_is_refused_when_it_comes_from_a_file(tmp_path, use):
    bundle = bundle_of(hand_whole())
    spec = bundle.manifest.stages[1].model_copy(update={"sha256": sha256(killer())})
    stages = (bundle.manifest.stages[0], spec, bundle.manifest.stages[2])
    hostile = Bundle(
        bundle.manifest.model_copy(update={"stages": stages}), (bundle.stages[0], killer(), bundle.stages[2])
    )
    path = hostile.save(tmp_path / "hostile.mexit")
    with pytest.raises(InputError, match="from a trial in a child process"):
        use(path)
