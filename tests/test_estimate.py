"""Counting rules, device files and estimates; needs neither TensorFlow nor an interpreter."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.bundle import (
    Bundle,
    InputSpec,
    Manifest,
    NormalisationSpec,
    SensorSpec,
    StageSpec,
    TensorSpec,
)
from mexit_edge.errors import InputError
from mexit_edge.estimate import (
    OPERATIONS,
    Estimate,
    device_names,
    estimate_bundle,
    estimate_model,
    load_device,
    operations,
    parse_device,
    total_live_macs,
    total_macs,
)
from mexit_edge.estimate.latency import price
from mexit_edge.files import sha256
from mexit_edge.tflite.flatbuffer import serialize

DEVICE = "nucleo-l4r5zi"
BUILTIN = schema.BuiltinOperator
INT8, FLOAT32 = schema.TensorType.INT8, schema.TensorType.FLOAT32


class Model:
    """A model under construction: tensors and operators, enough of them to be counted."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.operatorCodes, self.model.buffers = [], [schema.BufferT()]
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs, self.graph.outputs = [], []
        self.model.subgraphs = [self.graph]

    def tensor(self, shape: Sequence[int], dtype: int = INT8, values: Any = None, zero_point: int = 0) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = list(shape), dtype, 0
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [0.1], [zero_point]
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def add(self, name: str, inputs: Sequence[int], shape: Sequence[int], dtype: int = INT8) -> int:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(BUILTIN, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes)
        self.model.operatorCodes.append(code)
        output = self.tensor(shape, dtype)
        operator.inputs, operator.outputs = list(inputs), [output]
        self.graph.operators.append(operator)
        return output

    def weights(self, values: Any, zero_point: int = 0) -> int:
        values = np.asarray(values, np.int8)
        return self.tensor(values.shape, values=values, zero_point=zero_point)

    def content(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        self.graph.inputs, self.graph.outputs = list(inputs), list(outputs)
        return serialize(self.model)


def conv_model(
    weights: Any, in_shape: Sequence[int], out_shape: Sequence[int], name: str = "CONV_2D"
) -> bytes:
    model = Model()
    window = model.tensor(in_shape)
    output = model.add(name, [window, model.weights(weights)], out_shape)
    return model.content([window], [output])


def reference(name: str) -> bytes:
    folder = os.environ.get("MEXIT_EDGE_DIR")
    if not folder:
        pytest.skip("MEXIT_EDGE_DIR is not set: the MLPerf Tiny reference models are not here")
    return (Path(folder) / "models" / f"{name}.tflite").read_bytes()


def ones(*shape: int) -> Any:
    return np.ones(shape, np.int8)


# Counting


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
    content = conv_model(
        weights, (1, *size, n_in), (1, *out_size, n_out), "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    )
    (cost,) = operations(content)
    assert cost.macs == cost.live_macs == products
    assert cost.weight_bytes == weights.size
    assert cost.kind == ("depthwise" if depthwise else "conv_1x1" if kernel == (1, 1) else "conv_kxk")


def test_a_grouped_convolution_counts_its_groups_inputs_only():
    (cost,) = operations(conv_model(ones(8, 1, 3, 2), (1, 1, 10, 4), (1, 1, 8, 8)))
    assert cost.macs == 8 * 8 * 3 * 2


def test_fully_connected_and_operators_without_macs():
    model = Model()
    window = model.tensor((1, 4, 1, 6))
    mean = model.add("MEAN", [window], (1, 6))
    bias = model.tensor((3,), schema.TensorType.INT32, np.zeros(3, np.int32))
    logits = model.add("FULLY_CONNECTED", [mean, model.weights(ones(3, 6)), bias], (1, 3))
    costs = operations(model.content([window], [logits]))
    assert [(cost.kind, cost.macs, cost.elements, cost.output_elements) for cost in costs] == [
        ("other", 0, 24, 6),
        ("fully_connected", 18, 6, 3),
    ]
    assert costs[1].weight_bytes == 18 + 3 * 4


def test_an_operator_without_a_rule_is_refused_by_name():
    model = Model()
    window = model.tensor((1, 4))
    output = model.add("SVDF", [window], (1, 4))
    content = model.content([window], [output])
    for count in (operations, total_macs, total_live_macs, estimate_model):
        with pytest.raises(InputError, match=r"Received: SVDF at place 0"):
            count(content)


def test_every_name_in_the_table_is_one_of_the_format():
    assert [name for name in OPERATIONS if not hasattr(BUILTIN, name)] == []


def test_channels_at_the_zero_point_are_dead_and_zeros_beside_it_are_not():
    model = Model()
    window = model.tensor((1, 2))
    weights = model.weights([[5, 5], [0, 0], [5, 1]], zero_point=5)
    logits = model.add("FULLY_CONNECTED", [window, weights], (1, 3))
    content = model.content([window], [logits])
    assert total_macs(content) == 6
    assert total_live_macs(content) == 4


def test_weights_that_are_computed_count_as_live():
    model = Model()
    window, weights = model.tensor((1, 2)), model.tensor((3, 2))
    content = model.content([window, weights], [model.add("FULLY_CONNECTED", [window, weights], (1, 3))])
    assert total_live_macs(content) == total_macs(content) == 6
    model = Model()
    window, weights = model.tensor((1, 1, 5, 2)), model.tensor((1, 1, 3, 2))
    content = model.content(
        [window, weights], [model.add("DEPTHWISE_CONV_2D", [window, weights], (1, 1, 3, 2))]
    )
    assert total_live_macs(content) == total_macs(content) == 18


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_live_macs_are_those_whose_operand_and_sum_change_with_the_input(seed):
    """conv 1x1, depthwise (multiplier 2), conv 1x1, in NumPy on two inputs: what differs depends on them."""
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

    model = Model()
    tensor = window = model.tensor((1, 1, positions, sizes[0]))
    for name, weights, n_out in (
        ("CONV_2D", first[:, None, None], 4),
        ("DEPTHWISE_CONV_2D", depthwise[None, None, None], 8),
        ("CONV_2D", last[:, None, None], 4),
    ):
        tensor = model.add(name, [tensor, model.weights(weights)], (1, 1, positions, n_out))
    costs = operations(model.content([window], [tensor]))
    assert [cost.live_macs for cost in costs] == [positions * int(count) for count in live]


def test_dead_channels_are_not_followed_through_other_operators():
    model = Model()
    window = model.tensor((1, 1, 4, 2))
    dead = model.add("CONV_2D", [window, model.weights(0 * ones(2, 1, 1, 2))], (1, 1, 4, 2))
    mean = model.add("MEAN", [dead], (1, 2))
    logits = model.add("FULLY_CONNECTED", [mean, model.weights(ones(3, 2))], (1, 3))
    assert [cost.live_macs for cost in operations(model.content([window], [logits]))] == [0, 0, 6]


REFERENCE = {
    "KWS": ("kws_ref_model", 2_656_768, 2_656_768, 13),
    "IC": ("pretrainedResnet_quant", 12_501_632, 12_501_632, 16),
    "VWW": ("vww_96_int8", 7_489_664, 3_742_559, 31),
    "AD": ("ad01_int8", 264_192, 264_192, 10),
}


@pytest.mark.parametrize("model", REFERENCE)
def test_reference_models_have_the_macs_others_counted(model):
    name, macs, live_macs, n_operators = REFERENCE[model]
    content = reference(name)
    assert (total_macs(content), total_live_macs(content)) == (macs, live_macs)
    assert len(operations(content)) == n_operators


# Devices


def device_text() -> str:
    return (resources.files("mexit_edge.estimate") / "devices" / f"{DEVICE}.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", device_names())
def test_every_device_file_loads_under_its_own_name(name):
    device = load_device(name)
    assert device.name == name
    assert device.stack() is device.stacks[0]
    assert device.stack(device.stacks[-1].name) is device.stacks[-1]


def test_unknown_devices_and_stacks_suggest_the_nearest():
    with pytest.raises(InputError, match=r"`device` must be one of: .*Did you mean 'nucleo-l4r5zi'"):
        load_device("nucleo-l4r5")
    with pytest.raises(InputError, match=r"`stack` must be one of: .*Did you mean 'tflm-cmsis-nn'"):
        load_device(DEVICE).stack("tflm-cmsis")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('core = "Cortex-M4F"', 'core = "Cortex-M4F"\ncolour = "white"', r"at colour: Extra inputs"),
        (
            "[clock_mhz]\nvalue = 120\nsource = ",
            "[clock_mhz]\nvalue = 120\nsauce = ",
            r"clock_mhz\.source: Field",
        ),
        ('status = "measured"', 'status = "guessed"', r"clock_mhz\.status"),
        ("low = 5.0", "low = 7.0", r"cycles_per_mac\.conv_kxk.*in this order"),
        ("value = 6.7", "value = nan", r"cycles_per_mac\.conv_kxk\.value"),
        ("[clock_mhz]", "[clock_mhz", r"must be TOML"),
    ],
)
def test_a_device_file_with_a_fault_is_refused_at_its_place(old, new, message):
    assert old in device_text()
    with pytest.raises(InputError, match=message):
        parse_device(device_text().replace(old, new, 1))


@pytest.mark.parametrize("row", load_device(DEVICE).stack().in_sample, ids=lambda row: row.model)
def test_published_rows_lie_in_the_interval_and_the_recorded_errors_are_current(row):
    estimate = estimate_model(reference(REFERENCE[row.model][0]), DEVICE)
    latency_ms, energy_uj = estimate.estimated_latency_ms, estimate.estimated_energy_uj
    assert energy_uj is not None
    assert latency_ms.low <= row.measured_latency_ms <= latency_ms.high
    assert energy_uj.low <= row.measured_energy_uj <= energy_uj.high
    assert latency_ms.value == pytest.approx(row.estimated_latency_ms, rel=1e-3)
    assert energy_uj.value == pytest.approx(row.estimated_energy_uj, rel=1e-3)
    error = 100 * (latency_ms.value / row.measured_latency_ms - 1)
    assert error == pytest.approx(row.latency_error_percent, abs=0.1)
    error = 100 * (energy_uj.value / row.measured_energy_uj - 1)
    assert error == pytest.approx(row.energy_error_percent, abs=0.1)


@pytest.mark.parametrize("model", REFERENCE)
def test_what_the_rates_and_the_other_terms_both_hold_is_small(model):
    """The device file says: at most 0.9 % of the latency is counted twice."""
    stack = load_device(DEVICE).stack()
    costs = operations(reference(REFERENCE[model][0]))
    rates_only = stack.model_copy(
        update={
            "cycles_per_op": stack.cycles_per_op.model_copy(update={"value": 0, "low": 0}),
            "cycles_per_element": stack.cycles_per_element.model_copy(update={"value": 0, "low": 0}),
        }
    )
    whole, part = price(costs, stack).cycles.value, price(costs, rates_only).cycles.value
    assert 0 < 1 - part / whole < 0.009


# Estimates


def test_a_stage_costs_the_sum_of_its_terms():
    model = Model()
    window = model.tensor((1, 1, 16, 4))
    pooled = model.add("MAX_POOL_2D", [window], (1, 1, 8, 4))
    features = model.add("CONV_2D", [pooled, model.weights(ones(2, 1, 9, 4))], (1, 1, 8, 2))
    estimate = estimate_model(model.content([window], [features]))
    macs = 8 * 2 * 9 * 4
    stack = load_device(DEVICE).stack()
    for end in ("value", "low", "high"):
        rate, element, op = (
            getattr(figure.estimate, end)
            for figure in (stack.cycles_per_mac.conv_kxk, stack.cycles_per_element, stack.cycles_per_op)
        )
        cycles = rate * macs + element * 64 + op * 2
        assert getattr(estimate.estimated_cycles, end) == pytest.approx(cycles)
        assert getattr(estimate.estimated_latency_ms, end) == pytest.approx(cycles / 120e3)
    assert any("MAX_POOL_2D" in note for note in estimate.notes)
    assert any("fixed cost of an invocation" in note for note in estimate.notes)


def test_a_layer_unlike_those_fitted_on_has_a_wider_interval_and_is_named():
    inside = estimate_model(conv_model(ones(1, 3, 3, 8), (1, 10, 10, 8), (1, 8, 8, 8), "DEPTHWISE_CONV_2D"))
    outside = estimate_model(conv_model(ones(1, 1, 3, 8), (1, 1, 10, 8), (1, 1, 8, 8), "DEPTHWISE_CONV_2D"))

    def width(estimate: Estimate) -> float:
        return (estimate.high - estimate.low) / estimate.value

    assert not any("DEPTHWISE_CONV_2D" in note for note in inside.notes)
    assert any("DEPTHWISE_CONV_2D" in note for note in outside.notes)
    assert width(outside.estimated_latency_ms) > 1.5 * width(inside.estimated_latency_ms)


def test_only_a_stack_that_folds_is_priced_by_live_macs():
    weights = ones(4, 1, 1, 64)
    weights[2:] = 0
    content = conv_model(weights, (1, 1, 8, 64), (1, 1, 8, 4))
    device = load_device(DEVICE)
    folding = device.stack().model_copy(update={"folds_constant_channels": True})
    costs = operations(content)
    rate, op = device.stack().cycles_per_mac.conv_1x1.value, device.stack().cycles_per_op.value
    assert price(costs, device.stack()).cycles.value == pytest.approx(rate * 2048 + op)
    assert price(costs, folding).cycles.value == pytest.approx(rate * 1024 + op)


def test_a_float_model_is_refused_by_int8_rates():
    model = Model()
    window = model.tensor((1, 2), FLOAT32)
    weights = model.tensor((3, 2), FLOAT32, np.ones((3, 2), np.float32))
    content = model.content([window], [model.add("FULLY_CONNECTED", [window, weights], (1, 3), FLOAT32)])
    assert total_macs(content) == 6
    with pytest.raises(InputError, match=r"FULLY_CONNECTED at place 0 that computes FLOAT32"):
        estimate_model(content)


def test_what_is_unknown_is_none_and_said():
    text = device_text()
    start, end = text.index("[stacks.active_power_mw]"), text.index("[stacks.idle_power_mw]")
    device = parse_device(text[:start] + text[end:])
    estimate = estimate_bundle(make_bundle([8, 8]), device)
    assert all(one.estimated_energy_uj is None for one in (*estimate.stages, *estimate.exits))
    assert estimate.expected([0.5, 0.5]).estimated_energy_uj is None
    assert any("active power" in note for note in estimate.notes)


def test_a_known_cost_of_invocation_is_paid_by_every_stage():
    figure = 'value = 5000\nsource = "made up"\ndate = "2026-01"\nstatus = "extrapolated"\n'
    device = parse_device(
        device_text().replace(
            "[stacks.active_power_mw]", f"[stacks.cycles_per_invoke]\n{figure}\n[stacks.active_power_mw]"
        )
    )
    bundle = make_bundle([4, 8, 4])
    without, paid = estimate_bundle(bundle), estimate_bundle(bundle, device)
    last = without.exits[-1].estimated_cycles
    assert paid.exits[-1].estimated_cycles.value == pytest.approx(last.value + 3 * 5000)
    assert not any("invocation" in note for note in paid.notes)


def test_a_manifest_that_states_other_macs_than_its_files_is_reported():
    bundle = make_bundle([4, 8])
    first, second = bundle.manifest.stages
    wrong = bundle.with_manifest(stages=(first, second.model_copy(update={"macs": 1})))
    assert not any("manifest" in note for note in estimate_bundle(bundle).notes)
    (note,) = [note for note in estimate_bundle(wrong).notes if "manifest" in note]
    assert "exit_02" in note
    assert "exit_01" not in note
    assert estimate_bundle(wrong).stages == estimate_bundle(bundle).stages


def tensor_spec(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, scale=0.1, zero_point=0)


def make_bundle(widths: Sequence[int], arenas: Sequence[int | None] | None = None) -> Bundle:
    """Make a chain of fully connected stages with 2 classes; widths are those of the stages' inputs."""
    contents, specs = [], []
    for number, width in enumerate(widths, start=1):
        model = Model()
        window = model.tensor((1, width))
        outputs = [model.add("FULLY_CONNECTED", [window, model.weights(ones(2, width))], (1, 2))]
        output_specs = [tensor_spec(f"exit_{number:02d}_logits", 1, 2)]
        if number < len(widths):
            following = widths[number]
            weights = model.weights(ones(following, width))
            outputs.append(model.add("FULLY_CONNECTED", [window, weights], (1, following)))
            output_specs.append(tensor_spec(f"features_{number:02d}", 1, following))
        content = model.content([window], outputs)
        source = "window" if number == 1 else f"features_{number - 1:02d}"
        contents.append(content)
        specs.append(
            StageSpec(
                file=f"stage_{number:02d}.tflite",
                sha256=sha256(content),
                flash_bytes=len(content),
                exit=f"exit_{number:02d}",
                inputs=(tensor_spec(source, 1, width),),
                outputs=tuple(output_specs),
                ops={"FULLY_CONNECTED": len(outputs)},
                macs=total_macs(content),
                live_macs=total_live_macs(content),
                arena_bytes=None if arenas is None else arenas[number - 1],
            )
        )
    manifest = Manifest(
        name="chain",
        sensor=SensorSpec(channels=("x",), units=("1",), sampling_rate_hz=1, window=widths[0], hop=1),
        normalisation=NormalisationSpec(offset=(0.0,), scale=(1.0,)),
        classes=("a", "b"),
        input=InputSpec(scale=0.1, zero_point=0),
        stages=tuple(specs),
    )
    return Bundle(manifest, tuple(contents))


widths = st.lists(st.integers(1, 64), min_size=1, max_size=5)
FIGURES = ("estimated_cycles", "estimated_latency_ms", "estimated_energy_uj")


@settings(max_examples=30, deadline=None)
@given(widths)
def test_exits_are_sums_of_stages_and_intervals_hold_their_value(widths):
    estimate = estimate_bundle(make_bundle(widths))
    assert [stage.exit for stage in estimate.stages] == [one.exit for one in estimate.exits]
    for number, one in enumerate(estimate.exits, start=1):
        stages = estimate.stages[:number]
        assert one.macs == sum(stage.macs for stage in stages)
        assert one.flash_bytes == sum(stage.flash_bytes for stage in stages)
        for figure in FIGURES:
            for end in ("low", "value", "high"):
                parts = sum(getattr(getattr(stage, figure), end) for stage in stages)
                assert getattr(getattr(one, figure), end) == pytest.approx(parts, rel=1e-12)
            assert 0 < getattr(one, figure).low < getattr(one, figure).value < getattr(one, figure).high


@settings(max_examples=30, deadline=None)
@given(widths, st.data())
def test_the_expected_cost_lies_between_the_cheapest_and_the_dearest_exit(widths, data):
    estimate = estimate_bundle(make_bundle(widths))
    raw = np.array(data.draw(st.lists(st.integers(1, 100), min_size=len(widths), max_size=len(widths))))
    expected = estimate.expected(raw / raw.sum())
    assert estimate.exits[0].macs <= expected.mean_macs * (1 + 1e-9)
    assert expected.mean_macs <= estimate.exits[-1].macs * (1 + 1e-9)
    for figure in FIGURES[1:]:
        for end in ("low", "value", "high"):
            costs = [getattr(getattr(one, figure), end) for one in estimate.exits]
            mean = getattr(getattr(expected, figure), end)
            assert min(costs) * (1 - 1e-9) <= mean <= max(costs) * (1 + 1e-9)


def test_all_windows_at_one_exit_cost_that_exit():
    estimate = estimate_bundle(make_bundle([8, 16, 4]))
    for number, one in enumerate(estimate.exits):
        expected = estimate.expected([float(number == place) for place in range(3)])
        assert expected.estimated_latency_ms == one.estimated_latency_ms
        assert expected.estimated_energy_uj == one.estimated_energy_uj
        assert expected.mean_macs == one.macs


@pytest.mark.parametrize("shares", [[1.0], [0.5, 0.4], [1.5, -0.5], [float("nan"), 1.0]])
def test_shares_that_are_no_distribution_are_refused(shares):
    with pytest.raises(InputError, match=r"`exit_shares`.*Received"):
        estimate_bundle(make_bundle([8, 8])).expected(shares)


def test_memory_takes_the_largest_arena_and_boundary():
    memory = estimate_bundle(make_bundle([8, 32, 16], arenas=[3000, 5000, 4000])).memory
    assert (memory.plan.arena_bytes, memory.plan.boundary_bytes) == (5000, 32)
    assert (memory.device_flash_bytes, memory.device_ram_bytes) == (2 * 1024 * 1024, 640 * 1024)
    assert memory.fits is True
    limit = 640 * 1024
    assert estimate_bundle(make_bundle([8, 32], arenas=[1, limit - 32])).memory.fits is True
    assert estimate_bundle(make_bundle([8, 32], arenas=[1, limit - 31])).memory.fits is False


def test_a_boundary_larger_than_the_ram_does_not_fit_whatever_the_arena():
    memory = estimate_bundle(make_bundle([1, 700_000])).memory
    assert memory.plan.ram_bytes is None
    assert memory.plan.boundary_bytes == 700_000
    assert memory.fits is False


def test_an_unknown_arena_leaves_the_fit_unknown():
    estimate = estimate_bundle(make_bundle([8, 8, 8], arenas=[3000, None, 4000]))
    assert [one.arena_bytes for one in estimate.exits] == [3000, None, None]
    assert estimate.memory.plan.arena_bytes is None
    assert estimate.memory.fits is None


def test_an_interval_out_of_order_is_refused():
    for values in ((1.0, 2.0, 3.0), (1.0, 0.5, 0.9), (1.0, -0.1, 2.0), (float("nan"), 0.0, 1.0)):
        with pytest.raises(InputError, match=r"in this order"):
            Estimate(*values)
