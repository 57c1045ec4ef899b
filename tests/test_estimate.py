"""Estimates of models and bundles on devices; needs neither TensorFlow nor an interpreter."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from fixtures_networks import HandModel, bundle_of, hand_whole
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
    BundleEstimate,
    Cost,
    Estimate,
    MemoryFit,
    estimate_bundle,
    estimate_model,
    load_device,
    operations,
    total_live_macs,
    total_macs,
)
from mexit_edge.estimate.relatives import relative_stack
from mexit_edge.files import sha256

DEVICE = "nucleo-l4r5zi"
FIGURES = ("estimated_cycles", "estimated_latency_ms", "estimated_energy_uj")
ENDS = ("low", "value", "high")


def stage(width: int, following: int | None = None, unknown: bool = False) -> bytes:
    """Return a fully connected exit with 2 classes, and the features that go on, if any do."""
    model = HandModel()
    window = model.window((1, width))
    outputs = {"logits": model.dense(window, np.ones((2, width)), 0.1)}
    if unknown:
        outputs["logits"] = model.operator("UNIQUE", [outputs["logits"]], model.tensor((1, 2)))
    if following is not None:
        outputs["features"] = model.dense(window, np.ones((following, width)), 0.1)
    return model.finish(outputs)


def tensor_spec(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, scale=0.1, zero_point=0)


def make_bundle(widths: Sequence[int], *, unknown: bool = False) -> Bundle:
    """Make a chain of stages with 2 classes; widths are those of the stages' inputs.

    With ``unknown``, the last stage has an operator without a rule.
    """
    contents, specs = [], []
    for number, width in enumerate(widths, start=1):
        following = widths[number] if number < len(widths) else None
        content = stage(width, following, unknown=unknown and following is None)
        outputs = [tensor_spec(f"exit_{number:02d}_logits", 1, 2)]
        if following is not None:
            outputs.append(tensor_spec(f"features_{number:02d}", 1, following))
        contents.append(content)
        specs.append(
            StageSpec(
                file=f"stage_{number:02d}.tflite",
                sha256=sha256(content),
                flash_bytes=len(content),
                exit=f"exit_{number:02d}",
                inputs=(tensor_spec("window" if number == 1 else f"features_{number - 1:02d}", 1, width),),
                outputs=tuple(outputs),
                ops={"FULLY_CONNECTED": len(outputs)},
                macs=total_macs(content) or 0,
                live_macs=total_live_macs(content) or 0,
                arena_bytes=3000 + number,
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


def figure(cost: Cost, name: str) -> Estimate:
    found = getattr(cost, name)
    assert isinstance(found, Estimate)
    return found


# --- Models -------------------------------------------------------------------------------------------------

# MLPerf Tiny v0.5, closed division, reference submission (TFLM on NUCLEO-L4R5ZI): ms and uJ per inference,
# and the multiply-accumulates counted from the models.
PUBLISHED = {
    "kws_ref_model": (181.92, 7373.7, 2_656_768),
    "pretrainedResnet_quant": (704.2, 29_207, 12_501_632),
    "vww_96_int8": (600.6, 24_313, 7_489_664),
    "ad01_int8": (10.05, 416.3, 264_192),
}


def reference(name: str) -> bytes:
    folder = os.environ.get("MEXIT_TFLITE_DIR")
    if not folder:
        pytest.skip("MEXIT_TFLITE_DIR is not set: the MLPerf Tiny reference models are not here")
    return (Path(folder) / f"{name}.tflite").read_bytes()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures_of_the_reference_lie_in_the_interval(name):
    latency_ms, energy_uj, macs = PUBLISHED[name]
    estimate = estimate_model(reference(name), DEVICE, "tflm-cmsis-nn")
    latency, energy = figure(estimate, FIGURES[1]), figure(estimate, FIGURES[2])
    assert latency.low < latency_ms < latency.high
    assert latency.value == pytest.approx(latency_ms, rel=0.25)
    assert energy.low < energy_uj < energy.high
    assert energy.value == pytest.approx(energy_uj, rel=0.25)
    assert estimate.macs == macs
    assert estimate.fit.fits is True


def test_latency_is_cycles_over_the_clock_and_cycles_are_their_terms():
    estimate = estimate_model(stage(8, 4))
    cycles, latency = figure(estimate, FIGURES[0]), figure(estimate, FIGURES[1])
    for end in ENDS:
        assert getattr(latency, end) == pytest.approx(getattr(cycles, end) / 120e3)
    assert sum(estimate.estimated_cycles_by_term.values()) == pytest.approx(cycles.value)
    assert estimate.macs == 8 * 2 + 8 * 4
    assert (estimate.device, estimate.stack) == (DEVICE, "tflm-cmsis-nn")
    assert estimate.operations == operations(stage(8, 4))


def test_rows_and_frame_say_what_the_estimate_says():
    estimate = estimate_model(stage(8))
    (row,) = estimate.rows()
    assert row["what"] == "model"
    assert row["macs"] == row["live_macs"] == 16
    assert row["file_bytes"] == len(stage(8))
    assert row["flash_bytes"] == estimate.memory.flash.c_array_bytes == estimate.fit.flash_bytes
    assert row["estimated_arena_bytes_32bit"] == estimate.memory.estimated_arena_bytes_32bit
    assert_row_is(row, estimate)
    pandas = pytest.importorskip("pandas")
    pandas.testing.assert_frame_equal(estimate.to_frame(), pandas.DataFrame([row]))


def assert_row_is(row: Mapping[str, object], cost: Cost) -> None:
    for name in FIGURES:
        found = getattr(cost, name)
        for end, suffix in zip(ENDS, ("_low", "", "_high"), strict=True):
            assert row[f"{name}{suffix}"] == (None if found is None else getattr(found, end))


def test_a_float_model_is_refused_by_int8_rates():
    model = HandModel()
    window = model.window((1, 2), dtype="FLOAT32")
    weights = model.tensor((3, 2), "FLOAT32", values=np.ones((3, 2), np.float32))
    output = model.operator("FULLY_CONNECTED", [window, weights], model.tensor((1, 3), "FLOAT32"))
    with pytest.raises(InputError, match=r"FULLY_CONNECTED at place 0 that computes FLOAT32"):
        estimate_model(model.finish({"logits": output}))


def test_an_unknown_operator_leaves_latency_and_macs_unknown_and_is_named():
    content = stage(8, unknown=True)
    estimate = estimate_model(content)
    assert estimate.macs is estimate.live_macs is None
    assert [getattr(estimate, name) for name in FIGURES] == [None] * 3
    assert estimate.estimated_cycles_by_term == {}
    assert any("Unknown: the cycles of UNIQUE" in note for note in estimate.notes)
    assert_row_is(estimate.rows()[0], estimate)
    priced = estimate_model(content, prices={"UNIQUE": 1234})
    assert priced.estimated_cycles_by_term["priced"] == 1234
    assert priced.macs is None
    assert not any("Unknown" in note for note in priced.notes)
    with pytest.raises(InputError, match=r"`prices` must be of .*\(UNIQUE\)"):
        estimate_model(content, prices={"FULLY_CONNECTED": 1})


def test_a_device_of_ones_own_is_as_good_as_a_name():
    device = load_device(DEVICE)
    assert estimate_model(stage(8), device) == estimate_model(stage(8), DEVICE) == estimate_model(stage(8))
    slower = device.model_copy(update={"clock_mhz": device.clock_mhz.model_copy(update={"value": 60})})
    doubled = figure(estimate_model(stage(8), slower), FIGURES[1])
    assert doubled.value == pytest.approx(2 * figure(estimate_model(stage(8)), FIGURES[1]).value)


def test_a_stack_without_data_is_extrapolated_only_when_asked_for():
    with pytest.raises(InputError, match=r"Received: 'esp-nn'.*`extrapolate=True`"):
        estimate_model(stage(64), DEVICE, "esp-nn")
    model = estimate_model(stage(64), DEVICE, "esp-nn", extrapolate=True)
    for made in (model, estimate_bundle(make_bundle([64, 64]), DEVICE, "esp-nn", extrapolate=True)):
        assert made.stack == "esp-nn"
        assert made.library == relative_stack("esp-nn", "Cortex-M4F")
        assert any(
            note.startswith("Extrapolated: esp-nn was never measured on nucleo-l4r5zi") for note in made.notes
        )
    known, guessed = (
        figure(estimate_model(stage(64), DEVICE, name, extrapolate=True), FIGURES[1])
        for name in ("tflm-cmsis-nn", "esp-nn")
    )
    assert guessed.high / guessed.value > known.high / known.value
    assert not any("never measured" in note for note in estimate_model(stage(64)).notes)


# --- Bundles ------------------------------------------------------------------------------------------------

widths = st.lists(st.integers(1, 64), min_size=1, max_size=5)


def assert_close(one: Cost, other: Cost, figures: Sequence[str] = FIGURES) -> None:
    for name in figures:
        for end in ENDS:
            expected = getattr(figure(other, name), end)
            assert getattr(figure(one, name), end) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=12)
@given(widths)
def test_exits_are_sums_of_stages_and_dearer_than_those_before(widths):
    bundle = make_bundle(widths)
    estimate = estimate_bundle(bundle)
    assert tuple(one.exit for one in estimate.stages) == bundle.manifest.exits
    assert tuple(one.exit for one in estimate.exits) == bundle.manifest.exits
    for number, (one, content) in enumerate(zip(estimate.exits, bundle.stages, strict=True), start=1):
        stages = estimate.stages[:number]
        assert_close(stages[-1], estimate_model(content))
        assert one.macs == sum(stage.macs or 0 for stage in stages)
        assert one.file_bytes == sum(map(len, bundle.stages[:number]))
        assert one.flash_bytes == sum(stage.flash_bytes for stage in stages)
        for name in FIGURES[:2]:
            found, parts = figure(one, name), [figure(stage, name) for stage in stages]
            assert found.value == pytest.approx(sum(part.value for part in parts))
            assert 0 < found.low < found.value < found.high
            # Errors of different terms do not add up: never wider than stage by stage.
            assert found.high / found.value <= max(part.high / part.value for part in parts) * (1 + 1e-9)
        assert sum(one.estimated_cycles_by_term.values()) == pytest.approx(figure(one, FIGURES[0]).value)
    latencies = [figure(one, FIGURES[1]).value for one in estimate.exits]
    assert latencies == sorted(set(latencies))


@settings(max_examples=12)
@given(widths, st.data())
def test_the_expected_cost_is_the_mean_of_the_exits(widths, data):
    estimate = estimate_bundle(make_bundle(widths))
    counts = data.draw(st.lists(st.integers(0, 100), min_size=len(widths), max_size=len(widths)).filter(any))
    shares = [count / sum(counts) for count in counts]
    expected = estimate.expected(shares)
    assert expected.macs == pytest.approx(np.dot(shares, [one.macs for one in estimate.exits]))
    assert expected.live_macs == pytest.approx(np.dot(shares, [one.live_macs for one in estimate.exits]))
    for name in FIGURES:
        values = [figure(one, name).value for one in estimate.exits]
        assert figure(expected, name).value == pytest.approx(np.dot(shares, values))
    total = sum(expected.estimated_cycles_by_term.values())
    assert total == pytest.approx(figure(expected, FIGURES[0]).value)


def test_all_windows_at_one_exit_cost_that_exit():
    estimate = estimate_bundle(make_bundle([8, 16, 4]))
    for number, one in enumerate(estimate.exits):
        expected = estimate.expected([float(number == place) for place in range(3)])
        assert_close(expected, one)
        assert expected.macs == one.macs


@pytest.mark.parametrize("shares", [[1.0], [0.5, 0.4], [1.5, -0.5], [float("nan"), 1.0]])
def test_shares_that_are_no_distribution_are_refused(shares):
    with pytest.raises(InputError, match=r"`exit_shares`.*Received"):
        estimate_bundle(make_bundle([8, 8])).expected(shares)


def test_rows_are_stages_then_exits_then_the_expected_cost():
    estimate = estimate_bundle(make_bundle([8, 16, 4]))
    rows = estimate.rows([0.5, 0.25, 0.25])
    names = [("stage", f"exit_{n:02d}") for n in (1, 2, 3)] + [("exit", f"exit_{n:02d}") for n in (1, 2, 3)]
    assert [(row["what"], row.get("exit")) for row in rows] == [*names, ("expected", None)]
    expected = estimate.expected([0.5, 0.25, 0.25])
    for row, cost in zip(rows, (*estimate.stages, *estimate.exits, expected), strict=True):
        assert_row_is(row, cost)
        assert (row["macs"], row["live_macs"]) == (cost.macs, cost.live_macs)
    assert estimate.rows() == rows[:-1]
    pandas = pytest.importorskip("pandas")
    pandas.testing.assert_frame_equal(estimate.to_frame([0.5, 0.25, 0.25]), pandas.DataFrame(rows))


def test_what_is_unknown_in_one_stage_is_unknown_from_there_on():
    bundle = make_bundle([8, 8, 8], unknown=True)
    estimate = estimate_bundle(bundle)
    for costs in (estimate.stages, estimate.exits):
        assert [cost.estimated_latency_ms is None for cost in costs] == [False, False, True]
        assert [cost.macs is None for cost in costs] == [False, False, True]
    expected = estimate.expected([0.5, 0.25, 0.25])
    assert expected.estimated_energy_uj is expected.macs is None
    assert sum("UNIQUE" in note for note in estimate.notes) == 1


def test_a_price_holds_in_the_stages_that_have_its_operator():
    bundle = make_bundle([8, 8, 8], unknown=True)
    free, priced = (estimate_bundle(bundle, prices={"UNIQUE": price}) for price in (0, 100))
    cycles = [[figure(one, FIGURES[0]).value for one in found.exits] for found in (free, priced)]
    assert np.subtract(*cycles[::-1]) == pytest.approx([0, 0, 100])
    with pytest.raises(InputError, match=r"`prices` must be of .*\(UNIQUE\)"):
        estimate_bundle(bundle, prices={"FULLY_CONNECTED": 1})


def test_without_an_active_power_energy_is_unknown_and_that_is_said():
    device = load_device(DEVICE)
    stacks = tuple(one.model_copy(update={"active_power_mw": None}) for one in device.stacks)
    estimate = estimate_bundle(
        make_bundle([8, 8]), device.model_copy(update={"active_power_mw": None, "stacks": stacks})
    )
    assert all(one.estimated_energy_uj is None for one in (*estimate.stages, *estimate.exits))
    assert estimate.expected([0.5, 0.5]).estimated_energy_uj is None
    assert all(one.estimated_latency_ms is not None for one in estimate.exits)
    assert any("energy, the active power of nucleo-l4r5zi is unknown" in note for note in estimate.notes)


def test_every_stage_is_an_invocation():
    """Two stages pay once more for being invoked than the same operators at once."""
    estimate = estimate_bundle(make_bundle([8, 16, 4]))
    terms = [one.estimated_cycles_by_term["invocation"] for one in estimate.exits]
    assert terms == pytest.approx([terms[0], 2 * terms[0], 3 * terms[0]])
    assert terms[0] == pytest.approx(load_device(DEVICE).stack().cycles_per.invocation.value)


def test_a_manifest_that_states_other_macs_than_its_files_is_reported():
    bundle = make_bundle([4, 8])
    first, second = bundle.manifest.stages
    wrong = bundle.with_manifest(stages=(first, second.model_copy(update={"macs": 1})))
    assert not any("manifest" in note for note in estimate_bundle(bundle).notes)
    (note,) = [note for note in estimate_bundle(wrong).notes if "manifest" in note]
    assert "exit_02" in note
    assert "exit_01" not in note
    assert estimate_bundle(wrong).stages == estimate_bundle(bundle).stages


def test_notes_say_what_is_not_priced_each_once():
    estimate = estimate_bundle(bundle_of(hand_whole()))
    assert any("the exit rule" in note for note in estimate.notes)
    assert any(note.startswith("Hardly known: ") and "ADD" in note for note in estimate.notes)
    assert len(set(estimate.notes)) == len(estimate.notes)


# --- Memory -------------------------------------------------------------------------------------------------


def on_a_device_with(bundle: Bundle, *, flash_bytes: int = 10**6, ram_bytes: int = 10**6) -> BundleEstimate:
    device = load_device(DEVICE)
    sizes = {"flash_bytes": flash_bytes, "ram_bytes": ram_bytes}
    figures = {name: getattr(device, name).model_copy(update={"value": size}) for name, size in sizes.items()}
    return estimate_bundle(bundle, device.model_copy(update=figures))


def test_a_bundle_fits_to_the_last_byte_and_lacks_what_it_has_too_much():
    bundle = make_bundle([8, 32, 16])
    estimate = estimate_bundle(bundle)
    flash, ram = estimate.fit.flash_bytes, estimate.fit.estimated_ram_bytes
    assert flash == sum(one.flash.c_array_bytes for one in estimate.memory.stages)
    assert ram == estimate.memory.estimated_32bit.ram_bytes
    assert ram is not None
    assert (estimate.fit.device_flash_bytes, estimate.fit.device_ram_bytes) == (2 * 1024 * 1024, 640 * 1024)
    assert on_a_device_with(bundle, flash_bytes=flash, ram_bytes=ram).fit.fits is True
    lacking = on_a_device_with(bundle, flash_bytes=flash - 3, ram_bytes=ram - 5).fit
    assert (lacking.missing_flash_bytes, lacking.missing_ram_bytes, lacking.fits) == (3, 5, False)
    assert lacking.verdict == "it does not fit: 3 bytes of flash too many and 5 bytes of RAM too many"
    assert estimate.exits[-1].flash_bytes == flash
    assert on_a_device_with(bundle, ram_bytes=ram - 1).fit.fits is False
    assert on_a_device_with(bundle, flash_bytes=flash - 1).fit.fits is False


def test_arenas_of_exits_are_the_largest_of_their_stages():
    estimate = estimate_bundle(make_bundle([8, 32, 16]))
    assert [one.arena_bytes for one in estimate.exits] == [3001, 3002, 3003]
    arenas = [one.estimated_arena_bytes_32bit for one in estimate.stages]
    assert [one.estimated_arena_bytes_32bit for one in estimate.exits] == [max(arenas[:n]) for n in (1, 2, 3)]


def test_an_unknown_arena_leaves_the_fit_unknown_unless_the_flash_is_too_small():
    bundle = make_bundle([8, 8], unknown=True)
    estimate = estimate_bundle(bundle)
    assert estimate.exits[0].estimated_arena_bytes_32bit is not None
    assert estimate.exits[1].estimated_arena_bytes_32bit is None
    assert estimate.fit.estimated_ram_bytes is estimate.fit.missing_ram_bytes is estimate.fit.fits is None
    assert on_a_device_with(bundle, flash_bytes=100).fit.fits is False


def test_a_model_fits_by_its_own_arena():
    estimate = estimate_model(stage(8))
    assert isinstance(estimate.fit, MemoryFit)
    assert estimate.fit.estimated_ram_bytes == estimate.memory.estimated_arena_bytes_32bit
    assert estimate.fit.flash_bytes == estimate.memory.flash.c_array_bytes


# --- Intervals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [(1.0, 2.0, 3.0), (1.0, 0.5, 0.9), (1.0, -0.1, 2.0), (float("nan"), 0.0, 1.0)]
)
def test_an_interval_out_of_order_is_refused(values):
    with pytest.raises(InputError, match=r"in this order"):
        Estimate(*values)


def test_the_operator_without_a_rule_has_none():
    assert "UNIQUE" not in OPERATIONS
