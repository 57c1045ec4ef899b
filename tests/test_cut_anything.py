"""Cutting any model: at tensors, at positions, into n stages; and what is refused before it is cut."""

from __future__ import annotations

import os
import re
import struct
import time
from contextlib import suppress
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from fixtures_networks import EACH_ENGINE, HandModel, hand_whole, tflm
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.estimate import operations
from mexit_edge.runtime import available_engines, cut_parity, open_model, run_stages, run_whole
from mexit_edge.runtime.staged import random_inputs
from mexit_edge.tflite import (
    CutStage,
    Graph,
    cut_at,
    cut_at_exits,
    cut_at_positions,
    cut_into,
    cut_points,
    mended,
    tensor_names,
)
from mexit_edge.tflite import verify as verify_module
from mexit_edge.tflite.flatbuffer import parse, serialize
from mexit_edge.tflite.plan import VIEWS
from mexit_edge.tflite.points import most_even

SHAPES = ((1, 8), (1, 2, 4))


def macs_of(content: bytes) -> list[int]:
    return [cost.macs for cost in operations(content)]


def chain(n: int = 4, **options: Any) -> bytes:
    """ADDs in a row on tensors 0 to n; the last is the only output."""
    model = HandModel()
    tensor = model.window((1, 8), **options)
    for number in range(n):
        tensor = model.add(tensor, tensor, scale=0.2 * (number + 1))
    return model.finish({"out": tensor})


def branches() -> bytes:
    """window -> a; a -> left, a -> right; left + right -> sum; outputs sum and left."""
    model = HandModel()
    a = model.add(*[model.window((1, 8))] * 2, scale=0.2)
    left, right = model.add(a, a, scale=0.3), model.add(a, a, scale=0.25)
    total = model.add(left, right, scale=0.5)
    return model.finish({"sum": total, "left": left})


@cache
def whole_run(content: bytes, engine: str, n: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Random inputs, and the outputs of the uncut model."""
    inputs = random_inputs(content, n, seed=1)
    return inputs, run_whole(content, inputs, engine)


def assert_equal(content: bytes, stages: tuple[CutStage, ...], engine: str, n: int = 4) -> None:
    """Staged equals whole in every output, each given by exactly one stage."""
    inputs, expected = whole_run(content, engine, n)
    live = run_stages(stages, inputs, engine)
    given_ = [name for stage in stages for name, _ in stage.outputs]
    assert len(set(given_)) == len(given_)
    for name, values in expected.items():
        np.testing.assert_array_equal(live[name], values, err_msg=name)


# --- Where stages begin and end -----------------------------------------------------------------------------


def test_a_tensor_is_given_by_name_by_index_or_by_its_name_in_the_signature() -> None:
    content = chain()
    ways = (["some_long_tensor_name_2"], [2], ["#2"])
    assert len({tuple(stage.content for stage in cut_at(content, way)) for way in ways}) == 1
    first, second = cut_at(content, ["some_long_tensor_name_2"])
    assert [name for name, _ in first.outputs] == ["some_long_tensor_name_2"]
    assert [name for name, _ in second.outputs] == ["out"]
    assert (first.places, second.places) == ((0, 1), (2, 3))
    # The last output leaves nothing for a further stage.
    assert len(cut_at(content, ["#1", "out"])) == 2


def test_an_output_computed_early_belongs_to_the_early_stage() -> None:
    content = branches()
    first, second = cut_at(content, ["left"])
    assert [name for name, _ in first.outputs] == ["left", "some_long_tensor_name_1"]
    assert [name for name, _ in second.outputs] == ["sum"]
    early, late = cut_at_positions(content, [3])
    assert [name for name, _ in early.outputs] == ["left", "some_long_tensor_name_3"]
    assert [name for name, _ in late.inputs] == ["left", "some_long_tensor_name_3"]


@EACH_ENGINE
def test_an_output_that_no_later_stage_reads_is_still_given(engine: str) -> None:
    content = branches()
    stages = cut_at(content, ["#1", "left", "#3"])
    assert [stage.places for stage in stages] == [(0,), (1,), (2,), (3,)]
    assert_equal(content, stages, engine)


def two_inputs() -> bytes:
    model = HandModel()
    a, b = model.window((1, 8), scale=0.1), model.window((1, 8), scale=0.2)
    early = model.add(a, a, scale=0.2)
    late = model.add(early, b, scale=0.4)
    content = parse(model.finish({"exit_01": early, "exit_02": late}))
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = b"second", b
    content.signatureDefs[0].inputs.append(entry)
    return serialize(content)


def test_an_input_called_like_an_output_of_a_stage_is_refused() -> None:
    model = parse(two_inputs())
    model.signatureDefs[0].inputs[1].name = b"exit_01_logits"
    with pytest.raises(InputError, match=r"Received: exit_01_logits, window. Rename"):
        cut_at_exits(serialize(model), ["exit_01", "exit_02"])


@EACH_ENGINE
def test_several_inputs_have_the_names_of_the_signature(engine: str) -> None:
    content = two_inputs()
    stages = cut_at_exits(content, ["exit_01", "exit_02"])
    assert [[name for name, _ in stage.inputs] for stage in stages] == [
        ["window"],
        ["exit_01_logits", "second"],
    ]
    inputs = random_inputs(content, 6)
    assert sorted(inputs) == ["second", "window"]
    expected = run_whole(content, inputs, engine)
    live = run_stages(stages, inputs, engine)
    np.testing.assert_array_equal(live["exit_01_logits"], expected["exit_01"])
    np.testing.assert_array_equal(live["exit_02_logits"], expected["exit_02"])
    assert_equal(content, cut_at(content, ["exit_01"]), engine)


def test_a_place_behind_a_view_is_not_listed_and_inputs_count_as_alive() -> None:
    model = HandModel()
    window = model.window((1, 8))
    a = model.add(window, window, scale=0.2)
    b = model.add(model.view(a, (1, 2, 4)), model.view(window, (1, 2, 4)), scale=0.3)
    c = model.add(b, b, scale=0.4)
    points = cut_points(model.finish({"out": c}))
    # Operators: ADD, RESHAPE of a, RESHAPE of the window, ADD, ADD.
    assert [(point.position, point.last.index) for point in points] == [(1, a), (4, b)]
    assert [[tensor.index for tensor in point.live] for point in points] == [[window, a], [b]]
    assert [point.position for point in cut_points(model.finish({"out": c}), max_live=1)] == [4]


def test_operators_that_no_output_needs_are_left_out() -> None:
    model = HandModel()
    window = model.window((1, 8))
    a = model.add(window, window, scale=0.2)
    model.add(a, a, scale=0.9)
    content = model.finish({"out": model.add(a, window, scale=0.3)})
    assert [stage.places for stage in cut_at(content, [a])] == [(0,), (2,)]
    assert [point.position for point in cut_points(content)] == [2]


# --- n stages of equal work ---------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(macs=st.lists(st.integers(0, 9), min_size=4, max_size=9), n=st.integers(2, 4))
def test_the_largest_stage_is_as_small_as_can_be(macs: list[int], n: int) -> None:
    points = cut_points(chain(len(macs)))
    chosen = most_even(points, macs, n)

    def largest(positions: tuple[int, ...]) -> int:
        borders = [0, *positions, len(macs)]
        return max(sum(macs[low:high]) for low, high in pairwise(borders))

    choices = combinations([point.position for point in points], n - 1)
    assert list(chosen) == sorted(set(chosen))
    assert largest(chosen) == min(largest(choice) for choice in choices)


def test_among_equal_cuts_the_smallest_boundary_is_taken() -> None:
    model = HandModel()
    window = model.window((1, 8))
    a = model.add(window, window, scale=0.2)
    b = model.add(a, a, scale=0.3)
    c = model.add(b, a, scale=0.3)
    content = model.finish({"out": model.add(c, c, scale=0.5)})
    # Behind the second operator a and b are alive, behind the third c alone; both leave 10 on either side.
    assert [stage.places for stage in cut_into(content, 2, [5, 5, 0, 10])] == [(0, 1, 2), (3,)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, [1, 1, 1, 1]), "`n` must be from 2 to 4"),
        ((5, [1, 1, 1, 1]), "there are 3 places"),
        ((2, [1, 1, 1]), "`macs` needs one count per operator (4)"),
        ((2, [1, 1, 1, -1]), "from 0 on"),
    ],
)
def test_an_impossible_number_of_stages_is_refused(arguments: tuple[int, list[int]], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        cut_into(chain(), *arguments)


# --- Random graphs ------------------------------------------------------------------------------------------


@st.composite
def random_models(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    """ADDs, FULLY_CONNECTEDs and RESHAPEs on one or two inputs; returns the tensors that they compute too."""
    model = HandModel()
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    shape_of = {model.window(SHAPES[0], scale=0.05): 0}
    if draw(st.booleans()):
        shape_of[model.window(SHAPES[1], scale=0.07)] = 1
    for _ in range(draw(st.integers(2, 9))):
        source = draw(st.sampled_from(sorted(shape_of)))
        kind = draw(st.sampled_from(["view", "add", "add", "dense"]))
        place = shape_of[source]
        if kind == "view":
            output = model.view(source, SHAPES[1 - place])
            place = 1 - place
        elif kind == "dense" and place == 0:
            output = model.dense(source, rng.standard_normal((8, 8)), draw(st.sampled_from([0.1, 0.2])))
        else:
            peers = [tensor for tensor in shape_of if shape_of[tensor] == place]
            # A scale of its own per tensor, so that a mix-up shows in the numbers.
            scale = draw(st.sampled_from([0.05, 0.1, 0.15, 0.2]))
            output = model.add(source, draw(st.sampled_from(peers)), scale=scale)
        shape_of[output] = place
    n_inputs = len(model.graph.inputs)
    computed = sorted(shape_of)[n_inputs:]
    outputs = draw(st.lists(st.sampled_from(computed), min_size=1, max_size=3, unique=True))
    content = model.finish({f"out_{number}": tensor for number, tensor in enumerate(outputs)})
    return content, computed


def tensors_needed(graph: Graph, tensor: int) -> set[int]:
    """A tensor and all that it is computed from, by plain recursion."""
    producer = graph.producers.get(tensor)
    sources = () if producer is None else graph.activations(graph.operators[producer])
    return {tensor}.union(*(tensors_needed(graph, source) for source in sources))


@settings(max_examples=50, deadline=None)
@given(made=random_models(), data=st.data())
def test_any_graph_cut_anywhere_computes_the_same(made: tuple[bytes, list[int]], data: st.DataObject) -> None:
    content, computed = made
    graph = Graph(content)
    points = cut_points(content, max_live=3)
    ways = []
    if points:
        chosen = data.draw(st.sets(st.sampled_from([point.position for point in points]), min_size=1))
        ways.append(cut_at_positions(content, sorted(chosen)))
        ways.append(cut_into(content, data.draw(st.integers(2, len(points) + 1)), macs_of(content)))
        # What a place is said to leave alive is what crosses there.
        point = data.draw(st.sampled_from(points))
        second = cut_at_positions(content, [point.position])[1]
        crossing = {tensor.index for _, tensor in second.inputs}
        assert crossing == {tensor.index for tensor in point.live}
        assert len(crossing) <= 3
    targets = data.draw(st.lists(st.sampled_from(computed), min_size=1, max_size=3, unique=True))
    done: set[int] = set()
    refusal = None
    for target in targets:
        refusal = refusal or (target in done and "an operator of their own")
        done |= tensors_needed(graph, target)
    needed = set().union(*(tensors_needed(graph, output) for output in graph.outputs))
    refusal = refusal or (not set(targets) <= needed and "which no output needs")
    if refusal:
        with pytest.raises(InputError, match=refusal):
            cut_at(content, targets)
    else:
        at_tensors = cut_at(content, targets)
        assert [stage.outputs[0][1].index for stage in at_tensors[: len(targets)]] == targets
        ways.append(at_tensors)
    for stages in ways:
        places = [place for stage in stages for place in stage.places]
        needed = {index for index in places if graph.operators[index].name not in VIEWS}
        assert sorted(place for place in places if place in needed) == sorted(needed)
        assert_equal(content, stages, "litert-reference", n=3)


# --- On every engine ----------------------------------------------------------------------------------------


@EACH_ENGINE
def test_a_whole_network_cut_at_every_place(engine: str) -> None:
    content = hand_whole()
    for point in cut_points(content, max_live=9):
        assert_equal(content, cut_at_positions(content, [point.position]), engine, n=8)
    for n in (2, 3, 4):
        assert_equal(content, cut_into(content, n, macs_of(content), max_live=9), engine, n=8)


@EACH_ENGINE
@pytest.mark.parametrize("dtype", ["FLOAT32", "INT16"])
def test_other_types_are_cut_exactly_too(dtype: str, engine: str) -> None:
    model = HandModel()
    scale = None if dtype == "FLOAT32" else 0.1
    tensors = [model.window((1, 8), dtype=dtype, scale=scale)]
    for _ in range(3):
        tensors.append(model.add(tensors[-1], tensors[0], dtype, scale=scale))
    content = model.finish({"out": tensors[-1]})
    assert_equal(content, cut_at(content, tensors[1:3]), engine)


def test_parity_sees_a_changed_weight() -> None:
    content = hand_whole()
    first, second = cut_at_positions(content, [cut_points(content)[0].position])
    engines = available_engines()
    assert [row.differing_elements for row in cut_parity(content, (first, second), engines)] == [0] * len(
        engines
    )
    model = parse(second.content)
    largest = max(model.buffers, key=lambda buffer: 0 if buffer.data is None else len(buffer.data))
    largest.data = np.asarray(largest.data, np.uint8) ^ np.uint8(0x40)
    changed = CutStage(serialize(model), second.inputs, second.outputs, second.operators, second.places)
    rows = cut_parity(content, (first, changed), engines)
    assert [row.engine for row in rows] == list(engines)
    for row in rows:
        assert row.refusal is None
        assert row.differing_elements
        # 5 windows, 3 exits, 4 classes.
        assert row.elements == 60


def test_what_an_engine_refuses_is_said_in_its_words() -> None:
    model = HandModel()
    window = model.window((1, 8))
    output = model.operator("CUSTOM", [window], model.tensor((1, 8)))
    model.model.operatorCodes[0].customCode = b"WASHING_MACHINE"
    content = model.finish({"out": output})
    (row,) = cut_parity(content, (), ["litert-reference"])
    assert row.differing_elements is None
    assert row.refusal is not None
    assert "WASHING_MACHINE" in row.refusal


@tflm
def test_an_operator_that_tflm_lacks_is_named_and_litert_cuts_all_the_same() -> None:
    model = HandModel()
    window = model.window((1, 8), dtype="FLOAT32", scale=None)
    a = model.add(window, window, "FLOAT32", scale=None)
    output = model.operator("ATAN2", [a, window], model.tensor((1, 8), "FLOAT32", scale=None))
    content = model.finish({"out": output})
    stages = cut_at(content, [a])
    reference, row = cut_parity(content, stages, ["litert-reference", "tflm"])
    assert reference.differing_elements == 0
    assert row.refusal is not None
    assert "ATAN2" in row.refusal


def test_a_model_that_ends_the_process_of_an_engine_ends_that_of_a_child() -> None:
    model = HandModel()
    window = model.window((1, 8))
    wide = model.tensor((1, 8), "FLOAT64", scale=None)
    model.operator("ADD", [window, window], wide, schema.AddOptionsT(), "AddOptions", 2)
    (row,) = cut_parity(model.finish({"out": wide}), (), ["litert-reference"])
    assert row.elements is None
    assert row.refusal is not None
    assert "litert-reference can come back from. Received: signal" in row.refusal


@pytest.mark.parametrize("shape", [(8,), (4, 2), (1,)])
def test_a_model_whose_tensors_have_no_batch_is_compared_all_the_same(shape: tuple[int, ...]) -> None:
    model = HandModel()
    window = model.window(shape)
    tensors = [window]
    for number in range(3):
        made = model.tensor(shape, scale=0.2 * (number + 1))
        operands = [tensors[-1], window]
        tensors.append(model.operator("ADD", operands, made, schema.AddOptionsT(), "AddOptions", 2))
    content = model.finish({"out": tensors[-1]})
    rows = cut_parity(content, cut_at(content, [tensors[1]]), available_engines())
    elements = 5 * int(np.prod(shape))
    assert {(row.elements, row.differing_elements, row.refusal) for row in rows} == {(elements, 0, None)}


def test_inputs_of_another_shape_or_type_are_refused() -> None:
    stages = cut_at(chain(), ["#2"])
    good = random_inputs(chain(), 2)
    (name,) = good
    for wrong in ({}, {name: good[name][:, :4]}, {name: good[name].astype(np.int16)}, {name: good[name][:0]}):
        with pytest.raises(InputError, match=r"must hold window as INT8 of shape \(n, 8\)"):
            run_stages(stages, wrong, "litert-reference")


# --- Names --------------------------------------------------------------------------------------------------


def with_metadata() -> bytes:
    model = parse(chain())
    model.metadata = []
    for name in (b"min_runtime_version", b"OfflineMemoryAllocation"):
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, len(model.buffers)
        model.metadata.append(entry)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(b"value of " + name, np.uint8)
        model.buffers.append(buffer)
    return serialize(model)


def test_names_and_metadata_are_kept_on_request_with_a_signature_of_the_stage() -> None:
    content = with_metadata()
    bare, kept = cut_at(content, ["#2"])[1], cut_at(content, ["#2"], keep_names=True)[1]
    assert b"some_long_tensor_name" not in bare.content
    assert parse(bare.content).metadata is None
    graph = Graph(kept.content)
    assert graph.signature_inputs == {"some_long_tensor_name_2": graph.inputs[0]}
    assert graph.signature_outputs == {"out": graph.outputs[0]}
    assert [tensor.name for tensor in graph.tensors] == [f"some_long_tensor_name_{i}" for i in (2, 3, 4)]
    (entry,) = graph.model.metadata
    # A memory plan by the whole's tensor indices would lead TFLM astray.
    assert entry.name == b"min_runtime_version"
    assert bytes(bytearray(graph.model.buffers[entry.buffer].data)) == b"value of min_runtime_version"
    assert_equal(content, cut_at(content, ["#2"], keep_names=True), "litert-reference")


def test_names_are_distinct_even_where_the_file_has_none_or_one_twice() -> None:
    model = parse(chain())
    for index, name in ((1, b"twice"), (2, b"twice"), (3, b"#2")):
        model.subgraphs[0].tensors[index].name = name
    content = serialize(model)
    assert list(dict(sorted(tensor_names(Graph(content)).items())).values()) == [
        "window",
        "twice",
        "#2",
        "#3",
        "out",
    ]
    assert cut_at(content, ["#2"])[0].outputs[0][0] == "#2"


def test_the_axis_of_a_bias_is_mended() -> None:
    # LiteRT refuses the file, TFLM runs it: TFLM's own person detection example is of this kind.
    model = parse(hand_whole())
    biases = [tensor for tensor in model.subgraphs[0].tensors if tensor.type == schema.TensorType.INT32]
    for tensor in biases:
        if tensor.quantization is not None:
            tensor.quantization.quantizedDimension = 3
    wrong = serialize(model)
    with pytest.raises(InputError, match="quantized_dimension"):
        open_model("litert-reference", wrong)
    stages = cut_at_exits(wrong, ["exit_01", "exit_02", "exit_03"])
    assert stages == cut_at_exits(hand_whole(), ["exit_01", "exit_02", "exit_03"])
    assert_equal(mended(wrong), cut_into(wrong, 2, macs_of(wrong)), "litert-reference")
    assert mended(hand_whole()) == hand_whole()


# --- What is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([], "at least one tensor"),
        (["some_long_tensor_nam_3"], "Did you mean 'some_long_tensor_name_3'?"),
        (["#99"], "Received: '#99'"),
        ([-1], "Received: -1"),
        (["#3", "#2"], "Received: some_long_tensor_name_2, which earlier ones compute already"),
        (["#2", "#2"], "Received: some_long_tensor_name_2, which earlier ones"),
        (["window"], "Received: window, which earlier ones compute already, or none does"),
    ],
)
def test_wrong_tensors_are_refused(tensors: list[str | int], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        cut_at(chain(), tensors)


def fused(*names: bytes) -> bytes:
    """A chain of additions whose tensors have these names, from the second one on."""
    model = parse(chain(len(names) + 1))
    for tensor, name in zip(model.subgraphs[0].tensors[1:], names, strict=False):
        tensor.name = name
    return serialize(model)


def test_the_first_part_of_a_fused_name_is_enough_where_no_other_begins_so() -> None:
    content = fused(b"relu;add", b"pool;mean", b"pool;max")
    assert cut_at(content, ["relu"]) == cut_at(content, [1])
    with pytest.raises(InputError, match=r"'pool', with which the names of the tensors 2, 3 begin"):
        cut_at(content, ["pool"])
    # A whole name comes first.
    assert cut_at(fused(b"relu;add", b"relu"), ["relu"]) == cut_at(fused(b"relu;add", b"relu"), [2])


def test_unknown_tensors_are_answered_with_indices_and_short_names() -> None:
    content = fused(*(b"layer_%d;" % number + 200 * b"x" for number in range(30)))
    for wanted in ("9999", "layer_77"):
        with pytest.raises(InputError, match=r"\d+ \(layer_\d+\)") as caught:
            cut_at(content, [wanted])
        assert len(str(caught.value)) < 400


def test_in_a_large_model_only_near_names_are_listed() -> None:
    with pytest.raises(InputError, match="The nearest names are: ") as caught:
        cut_at(chain(40), ["some_long_tensor_name_77"])
    assert len(str(caught.value)) < 400


def test_a_tensor_that_no_output_needs_is_refused() -> None:
    model = HandModel()
    window = model.window((1, 8))
    idle = model.add(window, window, scale=0.9)
    content = model.finish({"out": model.add(window, window, scale=0.2)})
    with pytest.raises(InputError, match=r"which no output needs"):
        cut_at(content, [idle])


@pytest.mark.parametrize("positions", [[3, 2], [0], [4], [9], [-1], [2, 2]])
def test_positions_out_of_order_or_range_are_refused(positions: list[int]) -> None:
    with pytest.raises(InputError, match="`positions` must be ascending"):
        cut_at_positions(chain(), positions)


def test_an_output_that_nothing_computes_is_refused() -> None:
    model = HandModel()
    window = model.window((1, 8))
    model.add(window, window, scale=0.2)
    with pytest.raises(InputError, match="every output of a model to cut must be computed"):
        cut_at(model.finish({"out": window}), ["#1"])


def dynamic(kind: str) -> bytes:
    """A model with a shape that is not fixed."""
    model = HandModel()
    window = model.window((1, 8))
    a = model.add(window, window, scale=0.2)
    if kind == "computed":
        shape = model.tensor([2], "INT32", scale=None)
        model.operator("SHAPE", [window], shape, schema.ShapeOptionsT(), "ShapeOptions")
        view = model.tensor((1, 8), scale=0.2)
        model.operator("RESHAPE", [a, shape], view, schema.ReshapeOptionsT(), "ReshapeOptions")
    elif kind == "input":
        shape = model.window((2,), dtype="INT32", scale=None)
        view = model.tensor((1, 8), scale=0.2)
        model.operator("RESHAPE", [a, shape], view, schema.ReshapeOptionsT(), "ReshapeOptions")
    else:
        view = model.tensor((1, 8), scale=0.2)
        name = "SPACE_TO_BATCH_ND" if kind == "batch" else "ADD"
        model.operator(name, [a, a], view)
        axis = 1 if kind == "time" else 0
        signature = np.asarray([1, 8], np.int32)
        signature[axis] = -1
        model.graph.tensors[a].shapeSignature = signature
        if kind == "batch of 4":
            model.graph.tensors[a].shape = np.asarray([4, 8], np.int32)
    return model.finish({"out": view})


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("TOPK_V2", 1),
        ("SCATTER_ND", 2),
        ("SPARSE_TO_DENSE", 1),
        ("ONE_HOT", 1),
        ("SPACE_TO_BATCH_ND", 2),
        ("SPLIT_V", 1),
        ("MEAN", 1),
    ],
)
def test_a_shape_that_an_input_decides_at_run_time_is_refused(name: str, place: int) -> None:
    model = HandModel()
    window = model.window((1, 8))
    inputs = [window] * place + [model.window((2,), dtype="INT32", scale=None)]
    content = model.finish({"out": model.operator(name, inputs, model.tensor((1, 8)))})
    with pytest.raises(InputError, match="whose shape is computed at run time"):
        cut_points(content)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("computed", "which SHAPE computes"),
        ("input", "whose shape is computed at run time"),
        ("batch", "a dynamic batch that SPACE_TO_BATCH_ND changes"),
        ("batch of 4", "is free along axis 0"),
        ("time", "is free along axis 1"),
    ],
)
def test_dynamic_shapes_are_refused_with_the_tensor_and_the_way_out(kind: str, message: str) -> None:
    for cut in (
        lambda content: cut_at(content, ["#1"]),
        cut_points,
        lambda content: cut_at_exits(content, ["out"]),
    ):
        with pytest.raises(InputError, match=re.escape(message)) as caught:
            cut(dynamic(kind))
        assert "some_long_tensor_name_" in str(caught.value)
        assert "static batch of 1" in str(caught.value)


def test_a_batch_that_is_free_in_name_only_is_cut() -> None:
    # As in the MLPerf Tiny models: every shape is stated for a batch of 1, the signature says -1.
    content = dynamic("free in name only")
    assert_equal(content, cut_at(content, ["#1"]), "litert-reference")


def test_a_state_is_refused() -> None:
    model = parse(chain())
    model.subgraphs[0].tensors[0].isVariable = True
    with pytest.raises(InputError, match=r"ADD, which keeps a state between runs"):
        cut_at(serialize(model), ["#2"])


# --- Files that lie -----------------------------------------------------------------------------------------


def lying(kind: str) -> bytes:
    model = parse(chain())
    graph = model.subgraphs[0]
    if kind == "cycle":
        graph.operators[0].inputs = np.asarray([0, 3], np.int32)
    elif kind == "two producers":
        graph.operators[1].outputs = np.asarray([1], np.int32)
    elif kind == "input made again":
        graph.operators[3].outputs = np.asarray([0], np.int32)
    elif kind == "negative size":
        graph.tensors[1].shape = np.asarray([1, -8], np.int32)
    elif kind == "overflowing shape":
        graph.tensors[1].shape = np.asarray([1 << 30] * 4, np.int32)
    elif kind == "values behind the end":
        model.buffers[0].offset, model.buffers[0].size = 1 << 40, 64
    elif kind == "values in another file":
        graph.tensors[1].externalBuffer = 7
    elif kind == "options behind the end":
        graph.operators[0].largeCustomOptionsOffset = 1 << 40
    elif kind == "StableHLO":
        graph.operators[0].builtinOptions2Type = schema.BuiltinOptions2.StablehloSliceOptions
        graph.operators[0].builtinOptions2 = schema.StablehloSliceOptionsT()
    elif kind == "variable":
        graph.operators[0].builtinOptionsType = schema.BuiltinOptions.VarHandleOptions
        graph.operators[0].builtinOptions = schema.VarHandleOptionsT()
    return serialize(model)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cycle", "tensor 3 ('some_long_tensor_name_3'), read before an operator makes it"),
        ("two producers", "tensor 1 ('some_long_tensor_name_1'), which has two producers"),
        ("input made again", "which has two producers"),
        ("negative size", "of shape (1, -8)"),
        ("overflowing shape", "at most 2147483648 elements"),
        ("values behind the end", "values behind its end"),
        ("values in another file", "in another file"),
        ("options behind the end", "values behind its end"),
        ("StableHLO", "Received: StableHLO"),
        ("variable", "Received: VAR_HANDLE"),
    ],
)
def test_a_graph_that_cannot_be_followed_is_refused(kind: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Graph(lying(kind))


def test_a_model_above_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify_module.MAX_MODEL_BYTES == 256 << 20
    monkeypatch.setattr(verify_module, "MAX_MODEL_BYTES", 1000)
    with pytest.raises(InputError, match="at most 1000 bytes"):
        Graph(hand_whole())


def bomb(n: int, levels: int) -> bytes:
    """Vectors whose n entries all point to one table, level below level: n ** levels tables in a few kB.

    Subgraphs (slot 2 of the root) that are one subgraph, whose operators (slot 3) are one operator.
    """
    slots = [2, 3, 1][:levels]
    content = bytearray(struct.pack("<I4s", 8, b"TFL3"))
    for slot in slots:
        # vtable of `slot + 1` entries, then the table, whose one field points to the vector right behind it.
        entries = [0] * (slot + 1)
        entries[slot] = 4
        vtable = struct.pack(f"<HH{slot + 1}H", 4 + 2 * (slot + 1), 8, *entries)
        vtable += bytes(-len(vtable) % 4)
        if slot == slots[0]:
            struct.pack_into("<I", content, 0, len(content) + len(vtable))
        content += vtable
        content += struct.pack("<i", len(vtable)) + struct.pack("<I", 4)
        following = slots[slots.index(slot) + 1 :]
        next_vtable = 4 + 2 * (following[0] + 1) if following else 0
        next_vtable += -next_vtable % 4
        content += struct.pack("<I", n)
        behind = 4 * n + next_vtable
        content += b"".join(struct.pack("<I", behind - 4 * item) for item in range(n))
    return bytes(content + bytes(64))


def test_tables_within_tables_do_not_run_away() -> None:
    content = bomb(3000, 3)
    assert len(content) < 40_000
    started = time.process_time()
    with pytest.raises(InputError, match="a damaged one"):
        Graph(content)
    assert time.process_time() - started < 5


def test_a_vector_longer_than_the_file_is_refused_at_once() -> None:
    content = bytearray(chain())
    graph = schema.Model.GetRootAsModel(content, 0)
    place = graph._tab.Vector(graph._tab.Offset(8)) - 4
    struct.pack_into("<I", content, place, 0xFFFFFFFF)
    with pytest.raises(InputError, match="a vector of 4294967295 elements"):
        Graph(bytes(content))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_wild_offsets_end_in_an_error_or_a_graph(data: st.DataObject) -> None:
    content = bytearray(chain())
    for _ in range(data.draw(st.integers(1, 3))):
        place = 4 * data.draw(st.integers(0, len(content) // 4 - 1))
        value = data.draw(st.sampled_from([0, 1, 4, 255, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF]))
        struct.pack_into("<I", content, place, value)
    for use in (
        lambda model: cut_at(model, ["#2"]),
        lambda model: cut_into(model, 2, [1] * len(Graph(model).operators)),
        lambda model: cut_at_exits(model, ["out"]),
        mended,
    ):
        with suppress(InputError):
            use(bytes(content))


# --- Models of others ---------------------------------------------------------------------------------------


def foreign(name: str) -> bytes:
    folder = os.environ.get("MEXIT_TFLITE_DIR")
    if not folder:
        pytest.skip("MEXIT_TFLITE_DIR is not set: the MLPerf Tiny reference models are not here")
    return mended((Path(folder) / f"{name}.tflite").read_bytes())


@pytest.mark.parametrize("name", ["ad01_int8", "kws_ref_model", "tflm_person_detect_model_data"])
@EACH_ENGINE
def test_models_of_others_are_cut_exactly(name: str, engine: str) -> None:
    # A slice of benchmarks/cut_models.py: two places, and three stages.
    content = foreign(name)
    points = cut_points(content)
    for point in (points[1], points[-2]):
        assert_equal(content, cut_at_positions(content, [point.position]), engine, n=2)
    assert_equal(content, cut_into(content, 3, macs_of(content)), engine, n=2)


def test_three_parts_of_a_residual_network_are_nearly_equal() -> None:
    content = foreign("pretrainedResnet_quant")
    macs = macs_of(content)
    parts = [sum(macs[place] for place in stage.places) for stage in cut_into(content, 3, macs)]
    assert sum(parts) == sum(macs)
    assert max(parts) < 0.42 * sum(macs)


@tflm
def test_mending_changes_nothing_on_tflm() -> None:
    from mexit_edge.runtime.tflm import open_interpreter

    content = foreign("tflm_person_detect_model_data")
    original = (Path(os.environ["MEXIT_TFLITE_DIR"]) / "tflm_person_detect_model_data.tflite").read_bytes()
    assert content != original
    (window,) = random_inputs(content, 3).values()
    left, right = open_interpreter(original), open_interpreter(content)
    for row in window:
        for interpreter in (left, right):
            interpreter.set_input(row[None], 0)
            interpreter.invoke()
        np.testing.assert_array_equal(left.get_output(0), right.get_output(0))
