"""Counting what a .tflite computes: rules, totals, live channels, what is unknown. Needs no TensorFlow."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from fixtures_networks import HandModel, hand_whole, tflm
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.estimate import (
    MAC_KINDS,
    OPERATIONS,
    OperationCost,
    operations,
    total_live_macs,
    total_macs,
    unknown_operations,
)
from mexit_edge.runtime.native import CaughtStderr
from mexit_edge.tflite.audit import CONVERSIONS, SHAPE_ARITHMETIC, WEIGHTED

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import op_cases

BENCHMARKS = Path(op_cases.__file__).parent

# What they compute does not stand in the main graph.
CONTROL_AND_VARIABLES = {"ASSIGN_VARIABLE", "CALL_ONCE", "IF", "READ_VARIABLE", "VAR_HANDLE", "WHILE"}
BUILTIN = {name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


class Counted(HandModel):
    """A model under construction, enough of it to be counted."""

    def weights(self, values: Any, zero_point: int = 0) -> int:
        values = np.asarray(values, np.int8)
        return self.tensor(values.shape, values=values, zero_point=zero_point)

    def apply(
        self, name: str, inputs: Sequence[int], shape: Sequence[int], kind: str = "", **fields: Any
    ) -> int:
        options = getattr(schema, f"{kind}T")() if kind else None
        for field, value in fields.items():
            setattr(options, field, value)
        return self.operator(name, inputs, self.tensor(shape), options, kind)

    def costs(self, output: int) -> tuple[OperationCost, ...]:
        return operations(self.finish({"exit_01": output}))


def ones(*shape: int) -> Any:
    return np.ones(shape, np.int8)


def cost_of(
    name: str,
    window: Sequence[int],
    weights: Sequence[Sequence[int]],
    shape: Sequence[int],
    kind: str = "",
    **fields: Any,
) -> OperationCost:
    """Count an operator that reads a window and weights of ones of these shapes."""
    model = Counted()
    inputs = [model.window(window), *(model.weights(ones(*one)) for one in weights)]
    (cost,) = model.costs(model.apply(name, inputs, shape, kind, **fields))
    return cost


# --- Multiply-accumulates -----------------------------------------------------------------------------------


def counted_products(height: int, width: int, weights: Any, stride: int, depthwise: bool) -> int:
    """Walk a VALID convolution as nested loops and count its multiplications."""
    kernel_h, kernel_w = weights.shape[1:3]
    channels = weights.shape[3] if depthwise else weights.shape[0] * weights.shape[3]
    products = 0
    for _top in range(0, height - kernel_h + 1, stride):
        for _left in range(0, width - kernel_w + 1, stride):
            for _tap in np.ndindex(kernel_h, kernel_w):
                products += channels
    return products


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.integers(3, 6)] * 2),
    st.tuples(*[st.integers(1, 3)] * 2),
    st.tuples(*[st.integers(1, 4)] * 2),
    st.integers(1, 2),
    st.booleans(),
)
def test_macs_equal_the_multiplications_of_a_loop(size, kernel, channels, stride, depthwise):
    n_in, factor = channels
    n_out = n_in * factor
    weights = ones(1, *kernel, n_out) if depthwise else ones(n_out, *kernel, n_in)
    products = counted_products(*size, weights, stride, depthwise)
    out_size = [(length - taps) // stride + 1 for length, taps in zip(size, kernel, strict=True)]
    name = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    cost = cost_of(name, (1, *size, n_in), [weights.shape], (1, *out_size, n_out))
    assert cost.macs == cost.live_macs == products
    assert (cost.work, cost.weight_bytes) == (0, weights.size)
    assert cost.kind == ("depthwise" if depthwise else "conv_1x1" if kernel == (1, 1) else "conv_kxk")


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.integers(1, 5)] * 2),
    st.tuples(*[st.integers(1, 3)] * 2),
    st.tuples(*[st.integers(1, 4)] * 2),
    st.integers(1, 3),
)
def test_a_transposed_convolution_multiplies_as_the_convolution_that_leads_back(
    size, kernel, channels, stride
):
    n_in, n_out = channels
    large = [(length - 1) * stride + taps for length, taps in zip(size, kernel, strict=True)]
    model = Counted()
    window, shape = model.window((1, *size, n_in)), model.tensor((4,), "INT32", values=ones(16))
    weights = model.weights(ones(n_out, *kernel, n_in))
    (cost,) = model.costs(model.apply("TRANSPOSE_CONV", [shape, weights, window], (1, *large, n_out)))
    back = cost_of("CONV_2D", (1, *large, n_out), [(n_in, *kernel, n_out)], (1, *size, n_in))
    assert cost.macs == cost.live_macs == back.macs
    assert (cost.kind, cost.channel_rounding) == ("transpose_conv", 1.0)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 3), max_size=2),
    st.tuples(*[st.integers(1, 5)] * 3),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_a_product_of_matrices_multiplies_as_so_many_vectors(batch, sizes, adj_x, adj_y, is_constant):
    m, k, n = sizes
    left = (*batch, k, m) if adj_x else (*batch, m, k)
    right = (*batch, n, k) if adj_y else (*batch, k, n)
    model = Counted()
    inputs = [model.window(left), model.weights(ones(*right)) if is_constant else model.window(right)]
    (cost,) = model.costs(
        model.apply("BATCH_MATMUL", inputs, (*batch, m, n), "BatchMatMulOptions", adjX=adj_x, adjY=adj_y)
    )
    one = cost_of("FULLY_CONNECTED", (m, k), [(n, k)], (m, n)).macs
    assert cost.macs == cost.live_macs == int(np.prod(batch, dtype=int)) * one
    assert cost.kind == "batch_matmul"
    assert cost.input_shapes == ((left,) if is_constant else (left, right))


def test_a_grouped_convolution_counts_its_groups_inputs_only():
    cost = cost_of("CONV_2D", (1, 1, 10, 4), [(8, 1, 3, 2)], (1, 1, 8, 8))
    assert cost.macs == 8 * 8 * 3 * 2


def test_a_convolution_over_three_axes():
    cost = cost_of("CONV_3D", (1, 4, 4, 4, 2), [(2, 3, 1, 2, 5)], (1, 3, 2, 4, 5))
    assert (cost.kind, cost.macs) == ("conv_kxk", 3 * 2 * 4 * 5 * 2 * 3 * 1 * 2)


def test_a_filter_over_features_and_one_over_time():
    cost = cost_of("SVDF", (1, 10), [(8, 10), (8, 6)], (1, 4))
    assert (cost.kind, cost.macs, cost.live_macs) == ("recurrent", 8 * 10 + 8 * 6, 8 * 10 + 8 * 6)


@pytest.mark.parametrize(("gates", "projected"), [(4, 5), (3, 5), (4, 2)])
def test_a_recurrent_layer_multiplies_every_matrix_that_is_there_once_per_step(gates, projected):
    steps, n_in, cells = 7, 3, 5
    model = Counted()
    window = model.window((1, steps, n_in))
    # The gate that may be absent is the first; so is a projection that changes nothing.
    missing = [-1] * (4 - gates)
    by_input = missing + [model.weights(ones(cells, n_in)) for _ in range(gates)]
    by_state = missing + [model.weights(ones(cells, projected)) for _ in range(gates)]
    projection = model.weights(ones(projected, cells)) if projected != cells else -1
    states = [model.window((1, projected)), model.window((1, cells))]
    inputs = [window, *by_input, *by_state, *[-1] * 7, projection, -1, *states, *[-1] * 4]
    (cost,) = model.costs(model.apply("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, (1, steps, projected)))
    per_step = gates * cells * (n_in + projected) + (projected * cells if projection >= 0 else 0)
    assert (cost.kind, cost.macs, cost.live_macs) == ("recurrent", steps * per_step, steps * per_step)


def test_the_whole_of_a_model_by_hand():
    costs = operations(hand_whole())
    dense = [cost for cost in costs if cost.kind == "fully_connected"]
    assert total_macs(hand_whole()) == sum(cost.macs for cost in dense) == 2 * 96 * 24 + 3 * 24 * 4
    assert [cost.kind for cost in costs if cost not in dense] == ["movement", "elementwise", "elementwise"]
    assert [cost.index for cost in costs] == list(range(len(costs)))
    assert costs[1].input_shapes == ((1, 96),)
    assert costs[1].output_shapes == ((1, 24),)
    assert costs[1].weight_bytes == 96 * 24 + 4 * 24
    assert {cost.dtype for cost in costs} == {"INT8"}


@pytest.mark.parametrize(
    ("name", "window", "weights", "shape", "factor"),
    [
        ("CONV_2D", (1, 1, 9, 3), (8, 1, 3, 3), (1, 1, 7, 8), 12 / 9),
        ("CONV_2D", (1, 1, 9, 4), (7, 1, 3, 4), (1, 1, 7, 7), 1.0),
        ("FULLY_CONNECTED", (1, 1), (5, 1), (1, 5), 4.0),
        ("DEPTHWISE_CONV_2D", (1, 1, 9, 6), (1, 1, 3, 6), (1, 1, 7, 6), 8 / 6),
        ("CONV_3D", (1, 2, 2, 2, 3), (1, 1, 1, 3, 3), (1, 2, 2, 2, 3), 1.0),
    ],
)
def test_the_length_of_a_sum_is_rounded_up_to_what_simd_takes(name, window, weights, shape, factor):
    assert cost_of(name, window, [weights], shape).channel_rounding == pytest.approx(factor)


# --- Live channels ------------------------------------------------------------------------------------------


def test_channels_at_the_zero_point_are_dead_and_zeros_beside_it_are_not():
    model = Counted()
    inputs = [model.window((1, 2)), model.weights([[5, 5], [0, 0], [5, 1]], zero_point=5)]
    (cost,) = model.costs(model.apply("FULLY_CONNECTED", inputs, (1, 3)))
    assert (cost.macs, cost.live_macs) == (6, 4)


@pytest.mark.parametrize(
    ("name", "weights", "window", "shape", "macs"),
    [
        ("FULLY_CONNECTED", (3, 2), (1, 2), (1, 3), 6),
        ("DEPTHWISE_CONV_2D", (1, 1, 3, 2), (1, 1, 5, 2), (1, 1, 3, 2), 18),
    ],
)
def test_weights_that_are_computed_or_packed_count_as_live(name, weights, window, shape, macs):
    model = Counted()
    computed = [model.window(window), model.window(weights)]
    (cost,) = model.costs(model.apply(name, computed, shape))
    assert cost.macs == cost.live_macs == macs
    model = Counted()
    packed = [model.window(window), model.tensor(weights, "INT4", values=ones(4))]
    (cost,) = model.costs(model.apply(name, packed, shape))
    assert cost.macs == cost.live_macs == macs


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_live_macs_are_those_whose_operand_and_sum_change_with_the_input(seed):
    """conv 1x1, depthwise (multiplier 2), transposed conv 1x1, in NumPy on two inputs: what differs."""
    rng = np.random.default_rng(seed)
    positions, sizes = 5, (3, 4, 8, 4)
    first = rng.integers(1, 9, (4, 3)) * (rng.random((4, 1)) < 0.6)
    depthwise = rng.integers(1, 9, 8) * (rng.random(8) < 0.7)
    last = rng.integers(1, 9, (4, 8)) * (rng.random((4, 8)) < 0.4)

    def layers(x: Any) -> list[Any]:
        a = first @ x + 7
        b = depthwise * np.repeat(a, 2) + 7
        return [x, a, b, last @ b + 7]

    varies = [one != other for one, other in zip(layers(np.ones(3)), layers(np.full(3, 2.0)), strict=True)]
    live = [
        np.outer(varies[1], varies[0]).sum(),
        (np.repeat(varies[1], 2) & varies[2]).sum(),
        np.outer(varies[3], varies[2]).sum(),
    ]

    model = Counted()
    tensor = model.window((1, 1, positions, sizes[0]))
    shape = model.tensor((4,), "INT32", values=ones(16))
    for name, weights, n_out in (
        ("CONV_2D", first[:, None, None], 4),
        ("DEPTHWISE_CONV_2D", depthwise[None, None, None], 8),
        ("TRANSPOSE_CONV" if seed % 2 else "CONV_2D", last[:, None, None], 4),
    ):
        inputs = [tensor, model.weights(weights)]
        if name == "TRANSPOSE_CONV":
            inputs = [shape, inputs[1], tensor]
        tensor = model.apply(name, inputs, (1, 1, positions, n_out))
    assert [cost.live_macs for cost in model.costs(tensor)] == [positions * int(count) for count in live]


def test_dead_channels_are_not_followed_through_other_operators():
    model = Counted()
    dead = model.apply(
        "CONV_2D", [model.window((1, 1, 4, 2)), model.weights(0 * ones(2, 1, 1, 2))], (1, 1, 4, 2)
    )
    mean = model.apply("MEAN", [dead], (1, 2))
    costs = model.costs(model.apply("FULLY_CONNECTED", [mean, model.weights(ones(3, 2))], (1, 3)))
    assert [cost.live_macs for cost in costs] == [0, 0, 6]


# --- Work and bytes -----------------------------------------------------------------------------------------


def test_the_work_of_a_pooling_is_its_window_per_output():
    options = {"filterHeight": 2, "filterWidth": 3}
    cost = cost_of("AVERAGE_POOL_2D", (1, 8, 9, 4), [], (1, 4, 3, 4), "Pool2DOptions", **options)
    assert (cost.kind, cost.macs, cost.work) == ("pooling", 0, 4 * 3 * 4 * 6)
    assert cost.output_elements == 4 * 3 * 4
    mean = cost_of("MEAN", (1, 4, 1, 6), [], (1, 6))
    assert (mean.kind, mean.work, mean.output_elements) == ("pooling", 24, 6)


@pytest.mark.parametrize(
    ("name", "window", "shape", "kind", "work"),
    [
        ("LOGISTIC", (1, 6), (1, 6), "nonlinear", 6),
        ("STRIDED_SLICE", (1, 6), (1, 2), "movement", 6),
        ("TILE", (1, 6), (1, 18), "movement", 18),
        ("RESHAPE", (1, 6), (6,), "movement", 6),
        ("RELU", (1, 6), (1, 6), "elementwise", 6),
    ],
)
def test_the_work_of_others_is_the_larger_of_what_they_read_and_write(name, window, shape, kind, work):
    cost = cost_of(name, window, [], shape)
    assert (cost.kind, cost.macs, cost.live_macs, cost.work) == (kind, 0, 0, work)


def test_an_activation_that_is_read_twice_or_has_no_size():
    model = Counted()
    window = model.window((1, 5), dtype="INT16")
    (twice,) = model.costs(model.add(window, window, "INT16"))
    # Two reads per sum, of one tensor in memory.
    assert (twice.work, twice.activation_bytes) == (10, 5 * 2 + 5 * 2)
    model = Counted()
    (sizeless,) = model.costs(model.apply("RESHAPE", [model.window((1, 5), dtype="STRING")], (5,)))
    assert (sizeless.activation_bytes, sizeless.output_elements) == (None, 5)


# --- What is unknown ----------------------------------------------------------------------------------------


def custom(model: Counted, name: str, source: int) -> int:
    output = model.apply("CUSTOM", [source], (1, 4))
    model.model.operatorCodes[-1].customCode = name.encode()
    return output


def test_an_operator_without_a_rule_is_named_and_leaves_totals_unknown():
    model = Counted()
    window = model.window((1, 4))
    output = model.apply("RELU", [custom(model, "Spin", model.apply("UNIQUE", [window], (1, 4)))], (1, 4))
    content = model.finish({"exit_01": custom(model, "Spin", output)})
    costs = operations(content)
    assert [(cost.kind, cost.macs, cost.live_macs, cost.work) for cost in costs] == [
        ("unknown", None, None, 0),
        ("unknown", None, None, 0),
        ("elementwise", 0, 0, 4),
        ("unknown", None, None, 0),
    ]
    assert unknown_operations(costs) == ("UNIQUE", "custom:Spin")
    assert (total_macs(content), total_live_macs(content)) == (None, None)
    assert unknown_operations(operations(hand_whole())) == ()


def test_an_unknown_operator_may_write_nothing():
    model = Counted()
    window = model.window((1, 4))
    output = model.apply("RELU", [window], (1, 4))
    model.apply("CALL_ONCE", [], (1,))
    model.graph.operators[-1].outputs = np.zeros(0, np.int32)
    _, cost = model.costs(output)
    assert (cost.kind, cost.dtype, cost.output_elements, cost.activation_bytes) == ("unknown", "", 0, 0)


WRONG = {
    "CONV_2D": [(3, 2)],
    "CONV_3D": [(3,)],
    "DEPTHWISE_CONV_2D": [(3, 4)],
    "FULLY_CONNECTED": [(2, 2, 2)],
    "SVDF": [(2, 4), (3, 4)],
    "TRANSPOSE_CONV": [(3, 4)],
    "BATCH_MATMUL": [(3, 2)],
    "UNIDIRECTIONAL_SEQUENCE_LSTM": [(2, 4)] * 8,
}


@pytest.mark.parametrize("name", WRONG)
def test_weights_of_another_rank_or_size_are_refused_by_name(name):
    with pytest.raises(InputError, match=rf"must give {name} at place 0 inputs whose shapes fit.*Received"):
        cost_of(name, (1, 4), WRONG[name], (1, 2))


def test_those_and_poolings_are_all_that_can_be_refused():
    refused = set()
    for name in OPERATIONS:
        try:
            assert cost_of(name, (1, 4), [], (1, 4)).kind not in (*MAC_KINDS, "unknown")
        except InputError:
            refused.add(name)
    assert refused == {*WRONG, "AVERAGE_POOL_2D", "L2_POOL_2D", "MAX_POOL_2D"}


@pytest.mark.parametrize(
    ("name", "window", "weights"),
    [
        ("DEPTHWISE_CONV_2D", (1, 1, 1, 4), [(1, 0, 3, 4)]),
        ("BATCH_MATMUL", (4, 0), [(0, 1)]),
        ("MEAN", (0, 4), []),
    ],
)
def test_an_operator_that_computes_from_nothing_is_refused_and_not_counted_as_0(name, window, weights):
    with pytest.raises(InputError, match=rf"{name} at place 0 .*nothing to compute from"):
        cost_of(name, window, weights, (1, 4))


def test_a_pooling_without_a_window_is_refused():
    for fields in ({}, {"filterHeight": -2, "filterWidth": 3}):
        with pytest.raises(InputError, match=r"MAX_POOL_2D at place 0 .*a window"):
            cost_of("MAX_POOL_2D", (1, 4, 4, 2), [], (1, 2, 2, 2), "Pool2DOptions", **fields)
    # Options of another operator are none.
    with pytest.raises(InputError, match="a window"):
        cost_of("MAX_POOL_2D", (1, 4, 4, 2), [], (1, 2, 2, 2), "AddOptions")


# --- The table against what there is ------------------------------------------------------------------------


def test_every_name_in_the_table_is_one_of_the_format():
    assert set(OPERATIONS) - BUILTIN == set()


def test_every_operator_of_the_int8_reference_set_has_a_rule():
    with (BENCHMARKS / "results" / "int8_layers.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["is_int8"] == "True"]
    converted = {name for row in rows for name in row["made_of"].split()}
    assert len(converted) > 30
    assert (converted | set(WEIGHTED) | SHAPE_ARITHMETIC | CONVERSIONS) - set(OPERATIONS) == set()


def test_every_case_that_engines_were_compared_on_is_counted():
    for case in op_cases.hand_made(draws=1):
        (cost,) = operations(case.content)
        assert cost.name == case.operator
        assert (cost.kind in MAC_KINDS) == (cost.macs > 0) == (cost.work == 0), case
        assert cost.macs >= cost.live_macs
        assert cost.activation_bytes > 0
        assert cost.channel_rounding >= 1


def registered_with_tflm() -> set[str]:
    """Ask TFLM for every operator: it looks all up before it touches the first, and none has the last one."""
    from tflite_micro.python.tflite_micro import runtime

    found = set()
    for name in BUILTIN - {"CUSTOM", "HASHTABLE_LOOKUP"}:
        model = Counted()
        options = "VarHandleOptions" if name == "VAR_HANDLE" else ""
        output = model.apply(name, [model.window((1, 4))], (1, 4), options)
        content = model.finish({"exit_01": model.apply("HASHTABLE_LOOKUP", [output], (1, 4))})
        with CaughtStderr(keep=True) as caught, pytest.raises(RuntimeError):
            runtime.Interpreter.from_bytes(content, arena_size=4096)
        if f"opcode '{name}'" not in caught.text():
            found.add(name)
    return found


@tflm
def test_every_builtin_operator_that_tflm_registers_has_a_rule():
    found = registered_with_tflm()
    assert {"ADD", "CONV_2D", "SVDF"} <= found
    assert "TILE" not in found
    assert found - set(OPERATIONS) == CONTROL_AND_VARIABLES


# --- Models that others counted -----------------------------------------------------------------------------

# Total, live, number of operators; per kind total and live.
REFERENCE = {
    "kws_ref_model": (
        (2_656_768, 2_656_768, 13),
        {
            "conv_kxk": (320_000, 320_000),
            "conv_1x1": (2_048_000, 2_048_000),
            "depthwise": (288_000, 288_000),
            "fully_connected": (768, 768),
        },
    ),
    "pretrainedResnet_quant": (
        (12_501_632, 12_501_632, 16),
        {
            "conv_kxk": (12_238_848, 12_238_848),
            "conv_1x1": (262_144, 262_144),
            "fully_connected": (640, 640),
        },
    ),
    "vww_96_int8": (
        (7_489_664, 3_742_559, 31),
        {
            "conv_kxk": (497_664, 497_664),
            "conv_1x1": (6_193_152, 2_605_860),
            "depthwise": (798_336, 638_523),
            "fully_connected": (512, 512),
        },
    ),
    "ad01_int8": ((264_192, 264_192, 10), {"fully_connected": (264_192, 264_192)}),
}


@pytest.mark.skipif("MEXIT_TFLITE_DIR" not in os.environ, reason="MEXIT_TFLITE_DIR is not set")
@pytest.mark.parametrize("name", REFERENCE)
def test_reference_models_have_the_macs_others_counted(name):
    totals, by_kind = REFERENCE[name]
    content = (Path(os.environ["MEXIT_TFLITE_DIR"]) / f"{name}.tflite").read_bytes()
    costs = operations(content)
    assert (total_macs(content), total_live_macs(content), len(costs)) == totals
    for kind in MAC_KINDS:
        of_kind = [cost for cost in costs if cost.kind == kind]
        found = (sum(cost.macs for cost in of_kind), sum(cost.live_macs for cost in of_kind))
        assert found == by_kind.get(kind, (0, 0)), kind
