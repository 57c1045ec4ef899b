"""The arena of one model, from its file alone: as TFLM reports it, and as a naive planner finds it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from fixtures_networks import NETWORKS, HandModel, bundle_of, converted, hand_whole, tflm, train
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.estimate import ActivationPlan, estimate_arena_bytes_32bit, plan_activations
from mexit_edge.estimate.memory.arena import tail_bytes
from mexit_edge.estimate.memory.kernels import KernelLibrary, listed_operators
from mexit_edge.estimate.memory.placement import ALIGNMENT
from mexit_edge.runtime.tflm import own_arena_report
from mexit_edge.tflite import Graph
from mexit_edge.tflite.extract import MEMORY_PLAN
from mexit_edge.tflite.flatbuffer import parse, serialize
from mexit_edge.tflite.verify import IDENTIFIER

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import op_cases
from op_cases import IMAGE, SAME, VALID, OneOperator, of_one, options_of

REFERENCE = Path(__file__).parent.parent / "tflite_models" / "reference.mexit"
FLOAT = {"dtype": "FLOAT32", "scale": None}
HALVES: dict[str, Any] = {"padding": VALID, "strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def typed(
    name: str, kind: str | None = None, *, reads: Sequence[str] = ("FLOAT32",), makes: str = "FLOAT32",
    shape: Sequence[int] = IMAGE, **fields: Any,
) -> bytes:  # fmt: skip
    """One operator on activations of these types, all of one shape."""
    model = HandModel()
    scales = {"INT8": 0.1, "INT16": 1 / 32768}
    inputs = [model.window(IMAGE, dtype=dtype, scale=scales.get(dtype)) for dtype in reads]
    output = model.tensor(shape, makes, scale=scales.get(makes))
    model.operator(name, inputs, output, *(options_of(kind, **fields) if kind else ()))
    return model.finish({"exit_01": output})


def parts(
    name: str, kind: str, shape: Sequence[int], n: int, constants: Sequence[Any] = (), **fields: Any
) -> bytes:
    """One operator with several outputs; of SPLIT the constant comes first."""
    model = OneOperator(rng())
    window = model.activation(IMAGE, 0.05, 3)
    others = [model.constant(values) for values in constants]
    outputs = [model.tensor(shape, scale=0.05, zero_point=3) for _ in range(n)]
    inputs = [*others, window] if name == "SPLIT" else [window, *others]
    model.operator(name, inputs, outputs[0], *options_of(kind, **fields))
    model.graph.operators[-1].outputs = np.asarray(outputs, np.int32)
    return model.finish({f"exit_{number:02d}": output for number, output in enumerate(outputs, start=1)})


def product(*, adjoint_left: bool, adjoint_right: bool, constant: bool = False) -> bytes:
    model = OneOperator(rng())
    left = model.activation((1, 8, 6) if adjoint_left else (1, 6, 8))
    shape = (1, 10, 8) if adjoint_right else (1, 8, 10)
    right = model.tensor(shape, values=np.ones(shape, np.int8)) if constant else model.activation(shape)
    options = options_of("BatchMatMulOptions", adjX=adjoint_left, adjY=adjoint_right)
    return model.finished("BATCH_MATMUL", [left, right], (1, 6, 10), options, scale=1.0)


def transposed_convolution() -> bytes:
    model = OneOperator(rng())
    window = model.activation((1, 5, 6, 8))
    shape = model.constant([1, 10, 12, 4])
    weights, scales = model.weights((4, 3, 3, 8), 0)
    bias = model.bias(4, model.scale_of(window), scales)
    options = options_of("TransposeConvOptions", padding=SAME, strideW=2, strideH=2)
    return model.finished(
        "TRANSPOSE_CONV", [shape, weights, window, bias], (1, 10, 12, 4), options, scale=1.0, version=3
    )


def sum_of(n: int) -> bytes:
    model = OneOperator(rng())
    inputs = [model.activation(IMAGE, 0.05, 0) for _ in range(n)]
    return model.finished("ADD_N", inputs, IMAGE, options_of("AddNOptions"), scale=0.1, zero_point=0)


def padded_with_value() -> bytes:
    model = OneOperator(rng())
    window = model.activation(IMAGE, 0.05, 0)
    padding = model.constant([[0, 0], [2, 1], [0, 0], [0, 0]])
    value = model.tensor((1,), values=np.zeros(1, np.int8), scale=0.05)
    options = options_of("PadV2Options")
    return model.finished(
        "PADV2", [window, padding, value], (1, 12, 10, 8), options, scale=0.05, zero_point=0
    )


def float_mean() -> bytes:
    model = HandModel()
    window = model.window(IMAGE, **FLOAT)
    axes = model.tensor([2], "INT32", values=np.array([1, 2], np.int32), scale=None)
    output = model.operator(
        "MEAN", [window, axes], model.tensor((1, 8), **FLOAT), *options_of("ReducerOptions")
    )
    return model.finish({"exit_01": output})


def float_weights(name: str, shape: Sequence[int], kind: str, **fields: Any) -> bytes:
    model = HandModel()
    window = model.window(IMAGE if len(shape) == 4 else (1, 64), **FLOAT)
    weights = model.tensor(shape, values=np.zeros(shape, np.float32), **FLOAT)
    bias = model.tensor([shape[0]], values=np.zeros(shape[0], np.float32), **FLOAT)
    output = model.tensor((*IMAGE[:3], shape[0]) if len(shape) == 4 else (1, shape[0]), **FLOAT)
    model.operator(name, [window, weights, bias], output, *options_of(kind, **fields))
    return model.finish({"exit_01": output})


def selected() -> bytes:
    model = HandModel()
    condition = model.window(IMAGE, dtype="BOOL", scale=None)
    inputs = [condition, model.window(IMAGE), model.window(IMAGE)]
    output = model.operator("SELECT_V2", inputs, model.tensor(IMAGE), *options_of("SelectV2Options"))
    return model.finish({"exit_01": output})


def camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_")) + "Options"


int8 = partial(typed, reads=("INT8",), makes="INT8")
int16 = partial(typed, reads=("INT16",), makes="INT16")
# What benchmarks/op_cases.py does not have, since the engines need not agree on it.
MORE = {
    **{name: typed(name) for name in ("CEIL", "COS", "FLOOR", "LOG", "ROUND", "RSQRT", "SIN", "SQRT")},
    **{name: typed(name, camel(name)) for name in ("EXP", "NEG", "SQUARE")},
    **{
        name: typed(name, camel(name), reads=("INT8", "INT8"), makes="BOOL")
        for name in ("EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "NOT_EQUAL")
    },
    **{
        name: typed(name, camel(name), reads=("BOOL", "BOOL"), makes="BOOL")
        for name in ("LOGICAL_AND", "LOGICAL_OR")
    },
    "LOGICAL_NOT": typed("LOGICAL_NOT", "LogicalNotOptions", reads=("BOOL",), makes="BOOL"),
    "DIV": typed("DIV", "DivOptions", reads=("FLOAT32", "FLOAT32")),
    "FLOOR_MOD": typed("FLOOR_MOD", "FloorModOptions", reads=("FLOAT32", "FLOAT32")),
    "ZEROS_LIKE": int8("ZEROS_LIKE", "ZerosLikeOptions"),
    "L2_POOL_2D": typed("L2_POOL_2D", "Pool2DOptions", shape=(1, 4, 5, 8), **HALVES),
    "AVERAGE_POOL_2D of int16": int16("AVERAGE_POOL_2D", "Pool2DOptions", shape=(1, 4, 5, 8), **HALVES),
    "SOFTMAX of int16": int16("SOFTMAX", "SoftmaxOptions", beta=1.0),
    "LOGISTIC of int16": int16("LOGISTIC"),
    "RELU of float": typed("RELU"),
    "ADD of float": typed("ADD", "AddOptions", reads=("FLOAT32", "FLOAT32")),
    "QUANTIZE of float": typed("QUANTIZE", "QuantizeOptions", makes="INT8"),
    "MEAN of float": float_mean(),
    "CONV_2D of float": float_weights(
        "CONV_2D", (12, 1, 1, 8), "Conv2DOptions",
        strideW=1, strideH=1, dilationWFactor=1, dilationHFactor=1,
    ),
    "FULLY_CONNECTED of float": float_weights("FULLY_CONNECTED", (24, 64), "FullyConnectedOptions"),
    "MEAN over one axis": of_one("MEAN", (1, 10, 8), "ReducerOptions", [[1]])(rng()),
    "REDUCE_MIN": of_one("REDUCE_MIN", (1, 8), "ReducerOptions", [[1, 2]])(rng()),
    "ARG_MIN": of_one(
        "ARG_MIN", (1,), "ArgMinOptions", [1], source=(1, 24), dtype="INT32", outputType=2
    )(rng()),
    "DEQUANTIZE": of_one("DEQUANTIZE", IMAGE, "DequantizeOptions", dtype="FLOAT32")(rng()),
    "CAST": of_one("CAST", IMAGE, "CastOptions", dtype="INT32", inDataType=9, outDataType=2)(rng()),
    "SHAPE": of_one("SHAPE", (4,), "ShapeOptions", dtype="INT32", outType=2)(rng()),
    "CUMSUM": of_one("CUMSUM", IMAGE, "CumsumOptions", [1])(rng()),
    "REVERSE_V2": of_one("REVERSE_V2", IMAGE, "ReverseV2Options", [[1]])(rng()),
    "GATHER_ND": of_one("GATHER_ND", (2, 8), "GatherNdOptions", [[[0, 1, 2], [0, 2, 3]]])(rng()),
    "BROADCAST_TO": of_one("BROADCAST_TO", (2, *IMAGE[1:]), "BroadcastToOptions", [[2, *IMAGE[1:]]])(rng()),
    "DEPTH_TO_SPACE": of_one("DEPTH_TO_SPACE", (1, 18, 20, 2), "DepthToSpaceOptions", blockSize=2)(rng()),
    "SPACE_TO_DEPTH": of_one("SPACE_TO_DEPTH", IMAGE, "SpaceToDepthOptions", blockSize=1)(rng()),
    "L2_NORMALIZATION": of_one(
        "L2_NORMALIZATION", IMAGE, "L2NormOptions", keeps=False, scale=1 / 128, zero_point=0
    )(rng()),
    "UNPACK": parts("UNPACK", "UnpackOptions", (1, 10, 8), 9, num=9, axis=1),
    "SPLIT": parts("SPLIT", "SplitOptions", (1, 9, 5, 8), 2, [2], numSplits=2),
    "SPLIT_V": parts("SPLIT_V", "SplitVOptions", (1, 9, 5, 8), 2, [[5, 5], 2], numSplits=2),
    "PADV2": padded_with_value(),
    "SELECT_V2": selected(),
    "TRANSPOSE_CONV": transposed_convolution(),
    "ADD_N of three": sum_of(3),
    "ADD_N of five": sum_of(5),
    "BATCH_MATMUL": product(adjoint_left=False, adjoint_right=False),
    "BATCH_MATMUL, right as wanted": product(adjoint_left=False, adjoint_right=True),
    "BATCH_MATMUL, left transposed": product(adjoint_left=True, adjoint_right=False),
    "BATCH_MATMUL by a constant": product(adjoint_left=False, adjoint_right=False, constant=True),
}  # fmt: skip
ONE_OPERATOR = {f"{case.operator}, {case.variant}": case.content for case in op_cases.hand_made(1)} | MORE
# TFLM computes them wrongly or divides the zeros of the trial by zero.
NOT_RUN = {"SPACE_TO_BATCH_ND, padded", "RELU6, another quantization"}


def assert_as_reported(content: bytes) -> None:
    report = own_arena_report(content)
    assert report is not None
    graph = Graph(content)
    plan = plan_activations(graph)
    # What is estimated with pointers of 4 bytes is the tail of the host with pointers of 8.
    assert (plan.bytes, tail_bytes(graph, plan, 8)) == (report.head_bytes, report.tail_bytes)
    assert report.head_bytes + report.tail_bytes == report.total_bytes
    assert plan.least_bytes <= plan.bytes
    assert plan.bytes < estimate_arena_bytes_32bit(graph, plan) < report.total_bytes


@tflm
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_stage_of_the_reference_takes_what_tflm_reports(number: int) -> None:
    assert_as_reported((REFERENCE / f"stage_{number:02d}.tflite").read_bytes())


@tflm
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_stage_made_by_hand_takes_what_tflm_reports(number: int) -> None:
    assert_as_reported(bundle_of(hand_whole()).stages[number - 1])


@tflm
@pytest.mark.parametrize("name", sorted(set(ONE_OPERATOR) - NOT_RUN))
def test_an_operator_takes_what_tflm_reports(name: str) -> None:
    assert_as_reported(ONE_OPERATOR[name])


def test_every_listed_operator_is_held_against_tflm() -> None:
    held = {Graph(ONE_OPERATOR[name]).operators[0].name for name in set(ONE_OPERATOR) - NOT_RUN}
    # TFLM's trial on zeros divides by zero; its kernel keeps what that of FLOOR_MOD keeps: nothing.
    assert set(listed_operators()) - held == {"FLOOR_DIV"}


@tflm
@pytest.mark.parametrize(
    "name",
    ["ad01_int8", "kws_ref_model", "pretrainedResnet_quant", "tflm_person_detect_model_data", "vww_96_int8"],
)
def test_a_model_of_others_takes_what_tflm_reports(name: str) -> None:
    folder = os.environ.get("MEXIT_TFLITE_DIR")
    if not folder:
        pytest.skip("MEXIT_TFLITE_DIR is not set: the MLPerf Tiny reference models are not here")
    assert_as_reported((Path(folder) / f"{name}.tflite").read_bytes())


@train
@tflm
@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_converted_network_takes_what_tflm_reports(name: str) -> None:
    made = converted(name)
    for content in (made.whole, *made.bundle.stages):
        assert_as_reported(content)


# --- Random graphs ------------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> bytes:
    """Up to ten operators on vectors of many lengths; some results are outputs, nothing reads others."""
    model = HandModel()
    lengths = st.integers(1, 300)
    tensors = [model.window((1, draw(lengths)), scale=0.1) for _ in range(draw(st.integers(1, 3)))]
    axis = model.tensor([1], "INT32", values=np.array([1], np.int32), scale=None)
    if draw(st.booleans()):
        model.tensor((1, draw(lengths)))  # nothing makes or reads it
    for _ in range(draw(st.integers(1, 10))):
        kind = draw(st.sampled_from(("add", "dense", "join", "mean", "view")))
        left, right = (draw(st.sampled_from(tensors)) for _ in range(2))
        length = int(model.graph.tensors[left].shape[1])
        if kind == "add":
            tensors.append(model.add(left, left, scale=0.1))
        elif kind == "dense":
            tensors.append(model.dense(left, np.ones((draw(st.integers(1, 40)), length)), 0.1))
        elif kind == "view":
            tensors.append(model.view(left, (1, length)))
        elif kind == "mean":
            output = model.tensor((1, 1))
            tensors.append(
                model.operator("MEAN", [left, axis], output, *options_of("ReducerOptions", keepDims=True))
            )
        else:
            output = model.tensor((1, length + int(model.graph.tensors[right].shape[1])))
            options = options_of("ConcatenationOptions", axis=1)
            tensors.append(model.operator("CONCATENATION", [left, right], output, *options))
    others = draw(st.sets(st.sampled_from(tensors), max_size=2)) - {tensors[-1]}
    return model.finish({f"exit_{n:02d}": index for n, index in enumerate([*sorted(others), tensors[-1]], 1)})


def naive_plan(graph: Graph) -> tuple[int, int]:
    """Bytes of TFLM's plan and the most alive at once, on a grid of moments and cells of 16 bytes."""
    moments = range(-1, len(graph.operators))
    alive: list[tuple[int, set[int]]] = []
    for tensor in graph.tensors:
        if tensor.is_constant:
            continue
        makers = [operator.index for operator in graph.operators if tensor.index in operator.outputs]
        readers = [operator.index for operator in graph.operators if tensor.index in operator.inputs]
        uses = makers + readers
        if tensor.index in graph.inputs:
            uses.append(-1)
        if tensor.index in graph.outputs:
            uses.append(len(graph.operators) - 1)
        # A moment of its own for what nothing uses.
        alive.append((tensor.elements, set(range(min(uses), max(uses) + 1)) if uses else {-2}))
    for operator in graph.operators:
        if operator.name == "MEAN":
            sums = 4 * graph.tensors[operator.outputs[0]].elements
            alive += [(size, {operator.index}) for size in (sums, 4 * 2, 4 * 1)]
    cells = [(-(-size // ALIGNMENT), when) for size, when in alive]
    taken: set[tuple[int, int]] = set()
    top = 0
    later_first = cells[::-1]
    for size, when in sorted(later_first, key=lambda one: -one[0]):
        place = 0
        while any((moment, place + cell) in taken for moment in when for cell in range(size)):
            place += 1
        taken |= {(moment, place + cell) for moment in when for cell in range(size)}
        top = max(top, place + size)
    least = max(sum(size for size, when in cells if moment in when) for moment in (-2, *moments))
    return top * ALIGNMENT, least * ALIGNMENT


@given(content=graphs())
@settings(max_examples=40)
def test_the_plan_is_that_of_the_naive_planner(content: bytes) -> None:
    graph = Graph(content)
    plan = plan_activations(graph)
    assert (plan.bytes, plan.least_bytes) == naive_plan(graph)
    assert plan.least_bytes <= plan.bytes
    assert_nothing_overlaps(plan)
    at_peak = [one for one in plan.buffers if one.first_operator <= plan.peak_operator <= one.last_operator]
    assert sum(one.bytes for one in at_peak) == plan.least_bytes


@tflm
@given(content=graphs())
@settings(max_examples=40)
def test_the_plan_of_any_graph_is_what_tflm_reports(content: bytes) -> None:
    report = own_arena_report(content)
    assert report is not None
    graph = Graph(content)
    plan = plan_activations(graph)
    assert (plan.bytes, tail_bytes(graph, plan, 8)) == (report.head_bytes, report.tail_bytes)


@tflm
def test_options_with_a_pointer_lie_on_a_multiple_of_it() -> None:
    # Those of RESHAPE take 36 bytes; without the rule the tail would be 16 bytes smaller here.
    model = HandModel()
    last = model.window((1, 8))
    for _ in range(2):
        last = model.dense(model.view(last, (1, 8)), np.eye(8), 0.1)
    assert_as_reported(model.finish({"exit_01": last}))


def assert_nothing_overlaps(plan: ActivationPlan) -> None:
    for place, one in enumerate(plan.buffers):
        assert one.offset % ALIGNMENT == one.bytes % ALIGNMENT == 0
        for other in plan.buffers[place + 1 :]:
            if one.first_operator <= other.last_operator and other.first_operator <= one.last_operator:
                bounds = sorted([(one.offset, one.bytes), (other.offset, other.bytes)])
                assert bounds[0][0] + bounds[0][1] <= bounds[1][0], (one, other)


def test_buffers_say_what_they_hold_and_when() -> None:
    model = HandModel()
    window = model.window((1, 100))
    first = model.add(window, window, scale=0.2)
    second = model.add(first, first, scale=0.4)
    content = model.finish({"exit_01": first, "exit_02": model.add(second, second, scale=0.8)})
    plan = plan_activations(content)
    names = [Graph(content).tensors[index].name for index in range(4)]
    assert [(one.tensor, one.bytes, one.first_operator, one.last_operator) for one in plan.buffers] == [
        (names[0], 112, -1, 0),
        (names[1], 112, 0, 2),  # an output stays to the end
        (names[2], 112, 1, 2),
        (names[3], 112, 2, 2),
    ]
    # Of equal buffers the last of the file is placed first, at 0: the output of the last operator.
    assert [one.offset for one in plan.buffers] == [0, 224, 112, 0]
    assert (plan.bytes, plan.least_bytes, plan.peak_operator, plan.scratch_bytes) == (336, 336, 2, 0)


# --- Kernels of a device ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "scratch"),
    [
        ("CONV_2D, 3x3, valid", 2 * 3 * 3 * 8 * 2),  # two columns of int16
        ("CONV_2D, 3x3, dilation 2", 2 * 3 * 3 * 8 * 2),
        ("CONV_2D, 1x1", 2 * 8 * 2),
        ("DEPTHWISE_CONV_2D, 3x3", 0),
        ("DEPTHWISE_CONV_2D, 3x3, dilation 2", 0),
        ("DEPTHWISE_CONV_2D, 3x3, multiplier 3", 0),
        ("DEPTHWISE_CONV_2D, 1x7", 8 * 7 * 2),
        ("AVERAGE_POOL_2D, 2x2", 8 * 4),
        ("MAX_POOL_2D, 2x2", 0),
        ("FULLY_CONNECTED, per channel", 0),
        ("CONV_2D of float", 0),
    ],
)
def test_cmsis_nn_asks_for_buffers(name: str, scratch: int) -> None:
    content = ONE_OPERATOR[name]
    plan, reference = plan_activations(content, "cmsis-nn"), plan_activations(content)
    assert plan.scratch_bytes == -(-scratch // ALIGNMENT) * ALIGNMENT
    # Here every tensor is alive beside it.
    assert plan.bytes == reference.bytes + plan.scratch_bytes
    assert reference.scratch_bytes == 0


def test_columns_come_in_fours() -> None:
    model = OneOperator(rng())
    window = model.activation((1, 9, 9, 1))
    weights, scales = model.weights((2, 3, 3, 1), 0)
    bias = model.bias(2, model.scale_of(window), scales)
    options = options_of("Conv2DOptions", strideW=1, strideH=1, dilationWFactor=1, dilationHFactor=1)
    content = model.finished("CONV_2D", [window, weights, bias], (1, 9, 9, 2), options)
    assert plan_activations(content, "cmsis-nn").scratch_bytes == 48  # 2 x 12 x 2, not 2 x 9 x 2


def test_a_strided_1x1_kernel_needs_no_columns() -> None:
    content = op_cases.convolution((1, 1), stride=2)(rng())
    assert plan_activations(content, "cmsis-nn").scratch_bytes == 0


def test_other_kernels_ask_for_what_the_reference_asks_for() -> None:
    content = ONE_OPERATOR["MEAN, one quantization"]
    assert plan_activations(content, "cmsis-nn").bytes == plan_activations(content).bytes
    assert plan_activations(content).scratch_bytes == 8 * 4 + 16 + 16  # sums, an index per dimension, axes


@pytest.mark.parametrize("name", ["TRANSPOSE_CONV", "BATCH_MATMUL", "AVERAGE_POOL_2D of int16"])
def test_buffers_that_are_not_known_are_refused(name: str) -> None:
    with pytest.raises(
        InputError, match=r"whose buffers in CMSIS-NN are known\. Received: [A-Z0-9_]+ \(operator 0\)"
    ):
        plan_activations(ONE_OPERATOR[name], "cmsis-nn")


def test_the_arena_of_32_bits_is_counted_by_hand() -> None:
    model = HandModel()
    window = model.window((1, 100))
    content = model.finish({"exit_01": model.add(window, window, scale=0.2)})
    # From the end of the arena on: allocators and planner 132, two TfLiteEvalTensors of 12, a node of 32 and
    # TfLiteAddParams of 8, to 196; OpDataAdd of 60, which begins on a multiple of 16, to 256; a pointer, to
    # 272; the input's TfLiteTensor of 40, quantization of 12 and zero point of 8, to 332; a pointer, to 336;
    # the same of the output, to 396. Two activations of 112 in the head.
    assert estimate_arena_bytes_32bit(content, plan_activations(content)) == 2 * 112 + 400


# --- Bad input ----------------------------------------------------------------------------------------------


def test_an_operator_without_data_is_refused_by_name() -> None:
    with pytest.raises(
        InputError, match=r"operators whose memory in TFLM is known\. Received: GELU \(operator 0\)"
    ):
        plan_activations(int8("GELU", "GeluOptions"))


def test_unknown_kernels_are_refused_with_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"`kernels` must be one of: cmsis-nn, reference\. .* mean 'cmsis-nn'"
    ):
        plan_activations(ONE_OPERATOR["RESHAPE, "], cast(KernelLibrary, "cmsisnn"))


def test_an_activation_without_a_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"type of fixed size\. Received: STRING"):
        plan_activations(typed("RESHAPE", reads=("STRING",), makes="STRING"))


def test_a_file_with_a_plan_of_its_own_is_refused() -> None:
    model = parse(ONE_OPERATOR["RESHAPE, "])
    entry = schema.MetadataT()
    entry.name, entry.buffer = MEMORY_PLAN, 0
    model.metadata = [entry]
    with pytest.raises(InputError, match=rf"Received: a file with a plan of its own \({MEMORY_PLAN}\)"):
        plan_activations(serialize(model))


@pytest.mark.parametrize("kernels", ["reference", "cmsis-nn"])
@pytest.mark.parametrize(
    "name", ["CONV_2D, 3x3, ReLU", "DEPTHWISE_CONV_2D, 1x7", "MEAN, one quantization", "MIRROR_PAD, reflect"]
)
def test_shapes_that_do_not_fit_are_refused(name: str, kernels: KernelLibrary) -> None:
    model = parse(ONE_OPERATOR[name])
    operator = model.subgraphs[0].operators[0]
    operator.inputs = operator.inputs[:1] if name != "MIRROR_PAD, reflect" else operator.inputs[:0]
    content = serialize(model)
    with pytest.raises(InputError, match="inputs whose shapes fit"):
        estimate_arena_bytes_32bit(content, plan_activations(content, kernels))


def test_a_damaged_file_is_refused() -> None:
    with pytest.raises(InputError, match=r"whole \.tflite"):
        plan_activations(b"\x1c\x00\x00\x00" + IDENTIFIER + b"damaged")
