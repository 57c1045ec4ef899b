"""Reading, cutting, batching and auditing .tflite files."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from fixtures_networks import (
    EACH_ENGINE,
    LITERT_ENGINES,
    NETWORKS,
    SENSOR,
    HandModel,
    bundle_of,
    converted,
    hand_whole,
    random_samples,
    tflm,
    train,
    with_stage,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.runtime import Runtime, open_model, staged_against_whole
from mexit_edge.tflite import CutStage, Graph, audit_int8, batchable, cut_at_exits
from mexit_edge.tflite.flatbuffer import parse, serialize
from mexit_edge.tflite.names import INPUT_NAME
from mexit_edge.tflite.plan import VIEWS

EACH_NETWORK = pytest.mark.parametrize("name", list(NETWORKS))
RESOLVERS = {
    "litert-xnnpack": OpResolverType.AUTO,
    "litert-builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "litert-reference": OpResolverType.BUILTIN_REF,
}


def by_signature(whole: bytes, codes: np.ndarray, engine: str) -> dict[str, np.ndarray]:
    """Outputs of a whole model by name, by LiteRT's own signature runner, one window at a time."""
    interpreter = Interpreter(
        model_content=whole, num_threads=1, experimental_op_resolver_type=RESOLVERS[engine]
    )
    runner = interpreter.get_signature_runner()
    (name,) = runner.get_input_details()
    rows = [runner(**{name: code[None]}) for code in codes]
    return {output: np.concatenate([row[output] for row in rows]) for output in rows[0]}


def run_stages(stages: tuple[CutStage, ...], codes: np.ndarray, engine: str) -> list[np.ndarray]:
    """Logits per exit of a chain of stages; a stage may only read what an earlier one has made."""
    live = {INPUT_NAME: codes}
    logits = []
    for stage in stages:
        outputs = open_model(engine, stage.content).run_batch([live[name] for name, _ in stage.inputs])
        live |= {name: value for (name, _), value in zip(stage.outputs, outputs, strict=True)}
        logits.append(outputs[0])
    return logits


# --- The cut is exact ---------------------------------------------------------------------------------------


@train
@EACH_NETWORK
@EACH_ENGINE
def test_stages_equal_the_whole_bit_for_bit(name: str, engine: str) -> None:
    made = converted(name)
    windows = random_samples(48, made.network.inputs[0].shape[1:])
    rows = staged_against_whole(made.bundle, made.whole, windows, engine)
    assert [row.exit for row in rows] == sorted(made.network.output)
    assert [(row.windows, row.differing_windows, row.largest_difference) for row in rows] == [
        (48, 0, 0)
    ] * len(rows)


@train
@EACH_NETWORK
def test_exits_carry_the_logits_that_the_signature_names(name: str) -> None:
    # Judged by LiteRT's own signature runner and against Keras, so that a swap of exits cannot hide.
    made = converted(name)
    windows = random_samples(40, made.network.inputs[0].shape[1:], seed=1) / 1.5
    runtime = Runtime(made.bundle, "litert-reference")
    codes = runtime.quantizer.quantize(windows)
    expected = by_signature(made.whole, codes, "litert-reference")
    logits = runtime.all_logits(windows)
    keras_logits = made.network.predict(windows, verbose=0)
    for index, stage in enumerate(made.bundle.manifest.stages):
        np.testing.assert_array_equal(logits[:, index], expected[stage.exit])
        out = stage.outputs[0]
        floats = (logits[:, index].astype(float) - out.zero_point) * out.scale
        distance = {other: float(np.abs(floats - values).mean()) for other, values in keras_logits.items()}
        assert min(distance, key=distance.__getitem__) == stage.exit


@EACH_ENGINE
def test_hand_made_model_whose_file_order_is_reversed(engine: str) -> None:
    whole = hand_whole()
    graph = Graph(whole)
    assert [graph.signature_outputs[name] for name in ("exit_01", "exit_02", "exit_03")] == list(
        reversed(graph.outputs)
    )
    rows = staged_against_whole(bundle_of(whole), whole, random_samples(300, SENSOR.shape), engine)
    assert [row.differing_windows for row in rows] == [0, 0, 0]


@pytest.mark.parametrize("engine", LITERT_ENGINES)
def test_reversed_file_order_by_signature_runner(engine: str) -> None:
    whole = hand_whole()
    runtime = Runtime(bundle_of(whole), engine)
    windows = random_samples(40, SENSOR.shape)
    expected = by_signature(whole, runtime.quantizer.quantize(windows), engine)
    logits = runtime.all_logits(windows)
    for index, name in enumerate(("exit_01", "exit_02", "exit_03")):
        np.testing.assert_array_equal(logits[:, index], expected[name])


def test_parity_sees_a_changed_weight() -> None:
    # The comparison itself: a stage with one weight changed must not pass.
    whole = hand_whole()
    bundle = bundle_of(whole)
    model = parse(bundle.stages[1])
    largest = max(model.buffers, key=lambda buffer: 0 if buffer.data is None else len(buffer.data))
    largest.data = np.asarray(largest.data, np.uint8) ^ np.uint8(0x40)
    damaged = with_stage(bundle, 1, serialize(model))
    rows = staged_against_whole(damaged, whole, random_samples(40, SENSOR.shape), "litert-reference")
    assert [row.differing_windows > 0 for row in rows] == [False, True, True]


@train
@tflm
def test_dilated_network_is_right_in_tflm() -> None:
    # TFLM computes SPACE_TO_BATCH_ND wrongly without an error; a static batch of 1 fuses the dilation.
    made = converted("dilated")
    graph = Graph(made.whole)
    assert {operator.name for operator in graph.operators}.isdisjoint(
        {"SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"}
    )
    assert all(graph.tensors[index].shape[0] == 1 for index in graph.inputs)
    windows = random_samples(60, SENSOR.shape)
    device = Runtime(made.bundle, "tflm").run_all_exits(windows)
    reference = Runtime(made.bundle, "litert-reference").run_all_exits(windows)
    for name, values in device.items():
        limit = 1 if name.endswith("logits") else 0
        assert np.abs(values.astype(int) - reference[name]).max() <= limit, name


@train
@tflm
@EACH_NETWORK
def test_tflm_and_litert_reference_agree(name: str) -> None:
    # FULLY_CONNECTED alone may round the last step differently; what it feeds may then differ as well.
    made = converted(name)
    windows = random_samples(40, made.network.inputs[0].shape[1:])
    device = Runtime(made.bundle, "tflm").run_all_exits(windows)
    reference = Runtime(made.bundle, "litert-reference").run_all_exits(windows)
    dense_on_the_way = {"flatten", "many_exits", "cascaded"}
    for tensor, values in device.items():
        difference = np.abs(values.astype(int) - reference[tensor])
        if not tensor.endswith("logits") and name not in dense_on_the_way:
            assert difference.max() == 0, tensor
        assert difference.max() <= (4 if name in dense_on_the_way else 1), tensor


# --- What the stages look like ------------------------------------------------------------------------------


def boundaries(stages: tuple[CutStage, ...]) -> list[dict[str, Any]]:
    """Per border between stages, the tensors made before and read after, without the window."""
    found = []
    for cut in range(1, len(stages)):
        made = {name: tensor for stage in stages[:cut] for name, tensor in stage.outputs}
        read = {name for stage in stages[cut:] for name, _ in stage.inputs}
        found.append({name: tensor for name, tensor in made.items() if name in read})
    return found


@train
@EACH_NETWORK
def test_a_boundary_holds_each_tensor_once(name: str) -> None:
    whole = converted(name).whole
    graph = Graph(whole)
    stages = cut_at_exits(whole, sorted(graph.signature_outputs))
    for boundary in boundaries(stages):
        indices = [tensor.index for tensor in boundary.values()]
        assert len(set(indices)) == len(indices)
        for tensor in boundary.values():
            producer = graph.operators[graph.producers[tensor.index]]
            assert producer.name not in VIEWS, f"{tensor.name} is a view"


def test_a_view_read_by_two_stages_is_repeated_instead_of_sent() -> None:
    graph = Graph(hand_whole())
    stages = cut_at_exits(hand_whole(), ("exit_01", "exit_02", "exit_03"))
    assert [stage.operators.get("RESHAPE", 0) for stage in stages] == [1, 1, 0]
    # Stage 2 reads the window again under its own shape, not the flat view.
    assert [name for name, _ in stages[1].inputs] == ["window", "stage_01_features_01"] or [
        name for name, _ in stages[1].inputs
    ] == ["stage_01_features_01", "window"]
    assert graph.tensors[graph.inputs[0]] in [tensor for _, tensor in stages[1].inputs]


def test_a_boundary_may_hold_several_tensors_and_pass_by_a_stage() -> None:
    stages = cut_at_exits(hand_whole(), ("exit_01", "exit_02", "exit_03"))
    assert [name for name, _ in stages[2].inputs] == ["stage_02_features_01", "stage_01_features_01"]


@train
def test_long_skip_leaves_two_tensors_alive() -> None:
    stages = cut_at_exits(converted("long_skip").whole, ("exit_01", "exit_02", "exit_03"))
    first, second = boundaries(stages)
    assert len(first) == 1
    assert len(second) == 3  # two branches of block 2 and the skip from block 1
    assert len(stages[2].inputs) == 3


@train
def test_cascaded_head_reads_the_logits_of_exit_1() -> None:
    stages = cut_at_exits(converted("cascaded").whole, ("exit_01", "exit_02"))
    assert "exit_01_logits" in [name for name, _ in stages[1].inputs]
    assert [name for name, _ in stages[0].outputs].count("exit_01_logits") == 1


@train
def test_eleven_exits_keep_their_order() -> None:
    # Without the padding, exit_10 would come before exit_2.
    exits = converted("many_exits").bundle.manifest.exits
    assert exits == tuple(f"exit_{number:02d}" for number in range(1, 12))


@train
def test_batch_normalisation_folds_away() -> None:
    # Convolution, batch normalisation, ReLU is the order that leaves no operator behind.
    names = {operator.name for operator in Graph(converted("dscnn").whole).operators}
    assert names.isdisjoint({"MUL", "SUB", "RELU", "QUANTIZE", "DEQUANTIZE"})
    assert names.isdisjoint({"READ_VARIABLE", "VAR_HANDLE"}), "weights must be frozen"


@pytest.mark.parametrize("stage", range(3))
def test_stages_have_an_empty_buffer_0_and_no_names(stage: int) -> None:
    content = cut_at_exits(hand_whole(), ("exit_01", "exit_02", "exit_03"))[stage].content
    model = parse(content)
    assert model.buffers[0].data is None
    assert all(tensor.name is None for tensor in model.subgraphs[0].tensors)
    assert not model.signatureDefs
    assert b"some_long_tensor_name" not in content
    assert b"some_long_tensor_name" in hand_whole()


def test_stages_hold_every_weight_once() -> None:
    stages = cut_at_exits(hand_whole(), ("exit_01", "exit_02", "exit_03"))
    weights = sum(len(b.data) for s in stages for b in parse(s.content).buffers if b.data is not None)
    whole = sum(len(b.data) for b in parse(hand_whole()).buffers if b.data is not None)
    # The shape constant of the repeated view, two int32 of 4 bytes less or more, is all that may differ.
    assert weights == whole + 8


# --- What is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exits", "message"),
    [
        (("exit_03", "exit_01", "exit_02"), None),
        (("exit_01", "exit_09"), "must name outputs of the model"),
        ((), "Received: none"),
        (("exit_01", "exit_01"), "must be distinct tensors"),
    ],
)
def test_wrong_exits_are_refused(exits: tuple[str, ...], message: str | None) -> None:
    if message is None:
        # An order in which every exit still computes something of its own is the caller's choice.
        assert len(cut_at_exits(hand_whole(), exits)) == 3
    else:
        with pytest.raises(InputError, match=re.escape(message)):
            cut_at_exits(hand_whole(), exits)


def chain(exits: dict[str, int]) -> bytes:
    """Three ADDs in a row; exits name their outputs."""
    model = HandModel()
    tensors = [model.window((1, 6))]
    for _ in range(3):
        tensors.append(model.add(tensors[-1], tensors[-1], scale=0.2 * len(tensors)))
    return model.finish({name: tensors[place] for name, place in exits.items()})


def test_exits_in_the_wrong_order_are_refused() -> None:
    whole = chain({"exit_01": 1, "exit_02": 3})
    with pytest.raises(
        InputError, match=r"an operator of their own. Received: exit_01.*order in which they run"
    ):
        cut_at_exits(whole, ("exit_02", "exit_01"))


def test_one_tensor_under_two_names_is_refused() -> None:
    with pytest.raises(InputError, match="distinct tensors"):
        cut_at_exits(chain({"exit_01": 2, "exit_02": 2}), ("exit_01", "exit_02"))


def test_an_exit_that_is_the_input_is_refused() -> None:
    with pytest.raises(InputError, match=r"operator of their own. Received: exit_01"):
        cut_at_exits(chain({"exit_01": 0, "exit_02": 3}), ("exit_01", "exit_02"))


def test_two_inputs_without_names_are_refused() -> None:
    model = HandModel()
    output = model.add(model.window((1, 6)), model.window((1, 6)))
    with pytest.raises(InputError, match=r"names its inputs, or a single one. Received: 2 inputs, 1 without"):
        cut_at_exits(model.finish({"exit_01": output}), ("exit_01",))


def test_fused_recurrent_operators_are_refused() -> None:
    model = parse(chain({"exit_01": 3}))
    model.subgraphs[0].operators[0].intermediates = np.asarray([0], np.int32)
    with pytest.raises(InputError, match="fused recurrent"):
        cut_at_exits(serialize(model), ("exit_01",))


def test_control_flow_is_refused() -> None:
    model = parse(chain({"exit_01": 3}))
    model.subgraphs.append(model.subgraphs[0])
    with pytest.raises(InputError, match=r"Received: 2 subgraphs, which only control flow"):
        Graph(serialize(model))
    assert Graph.of_signatures(serialize(model)) == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"no model at all", b"\0\0\0\0TFL3", b"\xff\xff\xff\x7fTFL3" + bytes(40)],
    ids=["empty", "text", "cut short", "offset beyond the end"],
)
def test_bytes_that_are_no_model_are_refused(content: bytes) -> None:
    with pytest.raises(InputError, match=r"^a model must "):
        Graph(content)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 4000))
def test_a_truncated_model_never_ends_in_another_error(cut: int) -> None:
    content = hand_whole()[:cut]
    try:
        graph = Graph(content)
        assert graph.operators is not None
        assert graph.tensors is not None
    except InputError:
        pass


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_model_never_ends_in_another_error(data: st.DataObject) -> None:
    content = bytearray(hand_whole())
    for _ in range(2):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    for use in (audit_int8, batchable, lambda model: cut_at_exits(model, ("exit_01", "exit_02", "exit_03"))):
        with suppress(InputError):
            use(bytes(content))


@pytest.mark.parametrize("kind", ["input", "output", "buffer", "code", "signature"])
def test_an_index_out_of_range_is_refused(kind: str) -> None:
    model = parse(chain({"exit_01": 3}))
    graph = model.subgraphs[0]
    if kind == "input":
        graph.operators[0].inputs = np.asarray([0, 99], np.int32)
    elif kind == "output":
        graph.operators[0].outputs = np.asarray([-1], np.int32)
    elif kind == "buffer":
        graph.tensors[0].buffer = 99
    elif kind == "code":
        graph.operators[0].opcodeIndex = 99
    else:
        model.signatureDefs[0].outputs[0].tensorIndex = 99
    with pytest.raises(InputError, match="index out of range"):
        Graph(serialize(model))


def test_an_activation_that_nothing_computes_is_refused() -> None:
    model = parse(chain({"exit_01": 3}))
    del model.subgraphs[0].operators[0]
    with pytest.raises(InputError, match="which nothing computes"):
        cut_at_exits(serialize(model), ("exit_01",))


def test_a_constant_of_the_wrong_size_is_refused() -> None:
    model = parse(hand_whole())
    graph = Graph(hand_whole())
    shape = next(operator for operator in graph.operators if operator.name == "RESHAPE").inputs[1]
    model.subgraphs[0].tensors[shape].shape = np.asarray([5], np.int32)
    with pytest.raises(InputError, match="as many values as its shape"):
        Graph(serialize(model)).constant(shape)


def test_constants_are_read_and_activations_are_not() -> None:
    graph = Graph(hand_whole())
    reshape = next(operator for operator in graph.operators if operator.name == "RESHAPE")
    assert graph.constant(reshape.inputs[1]).tolist() == [1, 96]
    with pytest.raises(InputError, match="must be a plain constant"):
        graph.constant(reshape.inputs[0])


# --- Random graphs ------------------------------------------------------------------------------------------

SHAPES = ((1, 6), (1, 2, 3))


@st.composite
def random_models(draw: st.DrawFn) -> tuple[bytes, list[int], list[str]]:
    """ADDs and RESHAPE views on int8 tensors; returns the model, tensors of the exits, and their names."""
    model = HandModel()
    shape_of = {model.window(SHAPES[0]): 0}
    computed = []
    for _ in range(draw(st.integers(2, 12))):
        source = draw(st.sampled_from(sorted(shape_of)))
        if draw(st.integers(0, 2)) == 0:
            other = 1 - shape_of[source]
            output = model.view(source, SHAPES[other])
            shape_of[output] = other
        else:
            peers = [tensor for tensor in shape_of if shape_of[tensor] == shape_of[source]]
            # A scale of its own per tensor, so that a mix-up shows in the numbers.
            scale = draw(st.sampled_from([0.05, 0.1, 0.15, 0.2]))
            output = model.add(source, draw(st.sampled_from(peers)), scale=scale)
            shape_of[output] = shape_of[source]
        computed.append(output)
    exits = draw(st.lists(st.sampled_from(computed), min_size=1, max_size=4, unique=True))
    names = [f"exit_{number:02d}" for number in range(1, len(exits) + 1)]
    order = draw(st.permutations(exits))
    return model.finish(dict(zip(names, exits, strict=True)), order), exits, names


@settings(max_examples=120, deadline=None)
@given(made=random_models(), seed=st.integers(0, 1000))
def test_any_graph_is_partitioned_exactly(made: tuple[bytes, list[int], list[str]], seed: int) -> None:
    whole, exits, names = made
    graph = Graph(whole)
    needed: set[int] = set()
    refused = False
    for tensor in exits:
        refused |= graph.producers[tensor] in needed
        needed |= ancestors(graph, tensor)
    if refused:
        with pytest.raises(InputError, match="operator of their own"):
            cut_at_exits(whole, names)
        return
    stages = cut_at_exits(whole, names)
    # Stages partition the operators that the exits need; only views may be repeated.
    counts = {name: sum(stage.operators.get(name, 0) for stage in stages) for name in ("ADD", "RESHAPE")}
    by_name = [graph.operators[index].name for index in needed]
    assert counts["ADD"] == by_name.count("ADD")
    assert counts["RESHAPE"] >= by_name.count("RESHAPE")
    # Every input is there: the window, or an output of an earlier stage, under one name each.
    available = {INPUT_NAME}
    for stage in stages:
        assert {name for name, _ in stage.inputs} <= available
        fresh = [name for name, _ in stage.outputs]
        assert len(set(fresh)) == len(fresh)
        assert available.isdisjoint(fresh)
        available |= set(fresh)
    # A view crosses only where it is itself an exit.
    for boundary in boundaries(stages):
        for tensor in boundary.values():
            producer = graph.operators[graph.producers[tensor.index]]
            assert producer.name not in VIEWS or tensor.index in exits
    codes = np.random.default_rng(seed).integers(-128, 128, (5, 6), np.int8)
    # Outputs of the whole by the file's order and the signature's indices.
    outputs = open_model("litert-reference", whole).run_batch([codes])
    expected = dict(zip(graph.outputs, outputs, strict=True))
    for tensor, logits in zip(exits, run_stages(stages, codes, "litert-reference"), strict=True):
        np.testing.assert_array_equal(logits, expected[tensor])


def ancestors(graph: Graph, tensor: int) -> set[int]:
    """The operators that compute a tensor, by plain recursion."""
    producer = graph.producers.get(tensor)
    if producer is None:
        return set()
    return {producer}.union(
        *(ancestors(graph, source) for source in graph.activations(graph.operators[producer]))
    )


# --- Batches ------------------------------------------------------------------------------------------------


@train
@EACH_NETWORK
@pytest.mark.parametrize("engine", LITERT_ENGINES)
def test_a_batch_equals_single_windows(name: str, engine: str) -> None:
    made = converted(name)
    codes = np.random.default_rng(0).integers(-128, 128, (9, *made.network.inputs[0].shape[1:]), np.int8)
    expected = by_signature(made.whole, codes, engine)
    graph = Graph(made.whole)
    # Sizes change between calls: 9, then 2.
    model = open_model(engine, made.whole)
    for n in (9, 2):
        outputs = dict(zip(graph.outputs, model.run_batch([codes[:n]]), strict=True))
        for exit_, values in expected.items():
            np.testing.assert_array_equal(outputs[graph.signature_outputs[exit_]], values[:n])


@train
@tflm
@pytest.mark.parametrize("name", ["flatten", "dilated", "dscnn"])
def test_batchable_changes_nothing_in_tflm(name: str) -> None:
    made = converted(name)
    codes = np.random.default_rng(1).integers(-128, 128, (10, *made.network.inputs[0].shape[1:]), np.int8)
    before = open_model("tflm", made.whole).run_batch([codes])
    after = open_model("tflm", batchable(made.whole)).run_batch([codes])
    for left, right in zip(before, after, strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_static_batch_cannot_be_resized_without_it() -> None:
    # The trap that `batchable` is there for: if this ever passes, it can go.
    interpreter = Interpreter(model_content=hand_whole(), num_threads=1)
    (detail,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(detail["index"], [4, *SENSOR.shape])
    with pytest.raises(RuntimeError):
        interpreter.allocate_tensors()


def test_a_shape_constant_that_two_operators_share_stays_intact() -> None:
    model = HandModel()
    window = model.window((1, 6))
    view = model.view(window, (1, 2, 3))
    left = model.add(view, view, scale=0.3)
    right = model.view(window, (1, 2, 3))
    # One constant for both RESHAPEs.
    model.graph.operators[2].inputs = np.asarray([window, model.graph.operators[0].inputs[1]], np.int32)
    content = model.finish({"exit_01": left, "exit_02": right})
    codes = np.arange(-12, 12, dtype=np.int8).reshape(4, 6)
    single = [open_model("litert-reference", content).run_batch([code[None]]) for code in codes]
    batch = open_model("litert-reference", content).run_batch([codes])
    for place, values in enumerate(batch):
        np.testing.assert_array_equal(values, np.concatenate([row[place] for row in single]))
    assert Graph(batchable(content)).constant(model.graph.operators[0].inputs[1]).tolist() == [1, 2, 3]


# --- Audit --------------------------------------------------------------------------------------------------


def test_an_int8_model_passes_the_audit() -> None:
    audit_int8(hand_whole())


def with_float_island() -> bytes:
    """int8, DEQUANTIZE, a float ADD, QUANTIZE: what the converter leaves where an int8 form is missing."""
    model = HandModel()
    window = model.window((1, 6))
    before = model.add(window, window, scale=0.2)
    real = model.tensor((1, 6), "FLOAT32", scale=None)
    model.operator("DEQUANTIZE", [before], real, version=2)
    summed = model.add(real, real, "FLOAT32", scale=None)
    after = model.tensor((1, 6), scale=0.4)
    model.operator("QUANTIZE", [summed], after, version=1)
    return model.finish({"exit_01": after})


def test_a_float_operator_in_an_int8_model_is_named() -> None:
    content = with_float_island()
    open_model(
        "litert-reference", content
    )  # the runtime has nothing against it, which is why the audit exists
    with pytest.raises(InputError, match=r"Received: ADD with the FLOAT32 tensor 'some_long_tensor_name"):
        audit_int8(content)


def test_float_input_and_output_are_refused() -> None:
    model = HandModel()
    window = model.window((1, 6), dtype="FLOAT32", scale=None)
    codes = model.tensor((1, 6), scale=0.1)
    model.operator("QUANTIZE", [window], codes)
    with pytest.raises(InputError, match="QUANTIZE with the FLOAT32"):
        audit_int8(model.finish({"exit_01": codes}))


def test_an_activation_without_one_quantization_is_refused() -> None:
    model = HandModel()
    window = model.window((1, 6))
    with pytest.raises(InputError, match=r"Received: ADD with the tensor .*no single quantization"):
        audit_int8(model.finish({"exit_01": model.add(window, window, scale=None)}))


def test_int16_activations_are_refused() -> None:
    model = HandModel()
    window = model.window((1, 6), dtype="INT16")
    with pytest.raises(InputError, match="ADD with the INT16"):
        audit_int8(model.finish({"exit_01": model.add(window, window, "INT16")}))


@pytest.mark.parametrize("weights", ["dynamic range", "float16"])
def test_weight_only_files_are_refused(weights: str) -> None:
    # TFLM refuses these, or runs them and returns wrong numbers; they must not get that far.
    model = HandModel()
    window = model.window((1, 6), dtype="FLOAT32", scale=None)
    codes = np.arange(12, dtype=np.int8).reshape(2, 6)
    if weights == "float16":
        stored = model.tensor((2, 6), "FLOAT16", values=codes.astype(np.float16), scale=None)
        kernel = model.tensor((2, 6), "FLOAT32", scale=None)
        model.operator("DEQUANTIZE", [stored], kernel, version=3)
    else:
        kernel = model.tensor((2, 6), values=codes)
    output = model.tensor((1, 2), "FLOAT32", scale=None)
    options = schema.FullyConnectedOptionsT()
    model.operator("FULLY_CONNECTED", [window, kernel, -1], output, options, "FullyConnectedOptions", 5)
    content = model.finish({"exit_01": output})
    open_model("litert-reference", content)
    with pytest.raises(InputError, match="FLOAT32"):
        audit_int8(content)


@train
@EACH_NETWORK
def test_converted_networks_pass_the_audit(name: str) -> None:
    made = converted(name)
    audit_int8(made.whole)
    for stage in made.bundle.stages:
        audit_int8(stage)
