"""`mexit estimate` and `mexit devices`: the numbers of the library, and refusals that help."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fixtures_networks import HandModel, bundle_of, hand_whole
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mexit_edge.bundle import Bundle
from mexit_edge.cli import estimate_ethos_u as ethos_command
from mexit_edge.cli.app import app
from mexit_edge.cli.devices import FIGURES
from mexit_edge.errors import in_digits
from mexit_edge.estimate import Device, device_names, estimate_bundle, estimate_model, ethos_u, load_device
from mexit_edge.estimate.device_toml import device_toml
from mexit_edge.estimate.energy.clocks import cheapest_clock, clock_choices
from mexit_edge.estimate.energy.period import Period, battery_life_days, energy_over_period
from mexit_edge.estimate.ethos_u import ACCELERATORS, EthosUEstimate, EthosULayer

REFERENCE = Path(__file__).parents[1] / "tflite_models" / "reference.mexit"
DEVICE = "nucleo-l4r5zi"


@pytest.fixture(autouse=True)
def here(command_folder: Path) -> Path:
    return command_folder


@pytest.fixture
def model() -> Path:
    path = Path("whole.tflite")
    path.write_bytes(hand_whole())
    return path


@pytest.fixture
def bundle() -> Bundle:
    """With a policy, and without a word on where windows leave."""
    made = bundle_of(hand_whole(), thresholds=(8, 10))
    made.save("hand.mexit")
    return made


def mexit(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def estimate(*arguments: object):
    return mexit("estimate", *arguments)


def facts(*arguments: object, code: int = 0) -> dict[str, Any]:
    result = estimate(*arguments, "--json")
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout)


def words(text: str) -> str:
    """The text without the line breaks of a terminal."""
    return " ".join(text.split())


def own_device(**changes: Any) -> Path:
    """A device file of one's own: the default device with changes."""
    device = load_device(DEVICE).model_copy(update={"name": "my-board", **changes})
    path = Path("my-board.toml")
    path.write_text(device_toml(device), "utf-8")
    return path


def figure(name: str, value: float) -> Any:
    return getattr(load_device(DEVICE), name).model_copy(update={"value": value, "low": None, "high": None})


def custom_model() -> bytes:
    made = HandModel()
    window = made.window((1, 4, 4))
    found = made.operator("CUSTOM", [window], made.tensor((1, 4, 4)))
    made.model.operatorCodes[-1].customCode = b"fft"
    return made.finish({"exit_01": made.add(found, window)})


def float_model() -> bytes:
    made = HandModel()
    window = made.window((1, 8), dtype="FLOAT32", scale=None)
    weights = made.tensor((2, 8), "FLOAT32", scale=None)
    output = made.tensor((1, 2), "FLOAT32", scale=None)
    return made.finish({"exit_01": made.operator("FULLY_CONNECTED", [window, weights], output)})


# --- One device ---------------------------------------------------------------------------------------------


def test_a_model_is_estimated_with_the_numbers_of_the_library(model):
    found, expected = facts(model), estimate_model(hand_whole())
    assert found["rows"] == json.loads(json.dumps(expected.rows()))
    assert found["notes"] == list(expected.notes)
    (row,) = found["rows"]
    assert (row["file_bytes"], row["flash_bytes"]) == (len(hand_whole()), expected.fit.flash_bytes)
    assert found["memory"]["fits"] is True
    assert found["memory"]["flash_bytes"] == expected.fit.flash_bytes
    assert (found["device"], found["stack"], found["energy"]) == (DEVICE, expected.stack, None)
    shown = words(estimate(model).stdout)
    assert "arena, est. flash, 32-bit, MACs latency, ms energy, uJ bytes bytes" in shown
    assert in_digits(expected.estimated_latency_ms.value) in shown
    assert f"{expected.fit.flash_bytes:,} of {expected.fit.device_flash_bytes:,} bytes of flash" in shown


def test_a_bundle_is_expected_where_its_manifest_says_that_windows_leave():
    reference = Bundle.load(REFERENCE)
    policy = reference.manifest.quality.policy
    found, expected = facts(REFERENCE), estimate_bundle(reference)
    assert found["rows"] == json.loads(json.dumps(expected.rows(policy.exit_shares)))
    assert found["exit_shares"] == list(policy.exit_shares)
    assert "manifest" in found["exit_shares_source"]
    result = estimate(REFERENCE, "--explain")
    assert result.exit_code == 0, result.stderr
    # Nothing is cut off on a terminal of the usual width.
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "…" not in result.stdout
    shown = words(result.stdout)
    library = expected.library
    fit = "tflm-cmsis-nn was fitted to 4 models published for it (ad, ic, kws, vww)."
    for fact in (library.version, library.source, library.date, "90 % intervals", fit):
        assert fact in shown
    assert in_digits(expected.expected(policy.exit_shares).estimated_latency_ms.value) in shown


def test_shares_that_are_given_go_before_those_of_the_manifest():
    found = facts(REFERENCE, "--exit-shares", "0.6,0.3,0.1")
    expected = estimate_bundle(Bundle.load(REFERENCE)).rows([0.6, 0.3, 0.1])
    assert found["rows"] == json.loads(json.dumps(expected))
    assert found["exit_shares_source"] == "given"


def test_without_shares_there_is_no_expected_row_and_the_way_to_one_is_said(bundle):
    found = facts("hand.mexit")
    assert {row["what"] for row in found["rows"]} == {"stage", "exit"}
    assert [case["what"] for case in found["energy"]["cases"]] == list(bundle.manifest.exits)
    assert "Add --exit-shares" in words(estimate("hand.mexit").stdout)


def test_a_period_is_the_sensors_and_its_parts_are_the_librarys():
    reference = Bundle.load(REFERENCE)
    sensor, shares = reference.manifest.sensor, reference.manifest.quality.policy.exit_shares
    found = facts(REFERENCE, "--battery-mah", 200, "--sensor-mw", 1.5, "--rest", "sleep")["energy"]
    library = estimate_bundle(reference)
    latency_ms = library.expected(shares).estimated_latency_ms
    period = Period(1000 * sensor.hop / sensor.sampling_rate_hz, "sleep", 1.5)
    energy = energy_over_period(latency_ms, library.board, library.library, period)
    (case,) = found["cases"]
    assert (case["what"], case["period_ms"], case["rest"]) == ("expected", period.period_ms, "sleep")
    assert case["estimated_total_uj_high"] == energy.estimated_total_uj.high
    assert case["estimated_energy_mj_per_hour"] == energy.estimated_energy_mj_per_hour.value
    assert case["estimated_sensor_uj"] == 1.5 * period.period_ms
    assert case["duty_cycle"] == energy.duty_cycle.value
    assert case["estimated_battery_days_low"] == battery_life_days(energy, 200).low
    assert found["battery"] == "200 mAh at 3 V"


def test_slower_clocks_are_compared_where_the_device_lists_some(model):
    device = load_device(DEVICE)
    assert device.clock_choices_mhz
    found = facts(model, "--period-ms", 500)["energy"]
    library = estimate_model(hand_whole())
    choices = clock_choices(library.estimated_cycles, device, library.library, Period(500))
    assert [one["clock_mhz"] for one in found["clocks"]] == [one.clock_mhz for one in choices]
    assert found["cheapest_clock_mhz"] == cheapest_clock(choices)
    shown = words(estimate(model, "--period-ms", 500).stdout)
    assert "Is a slower clock cheaper here?" in shown
    # How much of the active power is static is unknown: none less than all of the idle power is a tie.
    assert found["another_clock_may_be_as_cheap"]
    assert "Cheapest or as cheap: 26 MHz" in shown
    assert all(note in shown for note in found["clock_notes"])
    assert len(found["clock_notes"]) == 2
    fixed = estimate(model, "--period-ms", 500, "--device", own_device(clock_choices_mhz=()))
    assert "slower clock" not in fixed.stdout


def test_a_clock_that_windows_to_the_last_exit_would_be_late_at_is_not_advised():
    exits = estimate_bundle(Bundle.load(REFERENCE)).exits
    # At 80 MHz every window just fits, at 26 MHz those that leave early do.
    period_ms = exits[-1].estimated_latency_ms.high * 120 / 80 * 1.01
    assert exits[0].estimated_latency_ms.high * 120 / 26 < period_ms
    arguments = (REFERENCE, "--period-ms", period_ms, "--exit-shares", "1,0,0")
    found = facts(*arguments)["energy"]
    assert [one["clock_mhz"] for one in found["clocks"]] == [80, 120]
    assert found["cheapest_clock_mhz"] == 80
    shown = words(estimate(*arguments).stdout)
    assert "Too slow for the period at the high end of the longest latency: 26 MHz" in shown


def test_a_battery_that_is_not_given_a_voltage_gets_the_one_that_is_said(model):
    for supply, battery in ((3.0, "3 V"), (3.3, "3.7 V")):
        arguments = (model, "--period-ms", 500, "--battery-mah", 200, "--supply-v", supply)
        assert facts(*arguments)["energy"]["battery"] == f"200 mAh at {battery}"
        assert f"days on 200 mAh at {battery}" in words(estimate(*arguments).stdout)
    result = estimate(*arguments, "--battery-v", 3)
    assert result.exit_code == 2
    said = "`--battery-v` must be at least `--supply-v`, 3.3 V: an LDO regulator only lowers a voltage."
    assert f"{said} Received: 3 V. Give a higher `--battery-v` or a lower `--supply-v`." in result.stderr


def test_what_is_unknown_is_named_and_never_0(model):
    path = own_device(idle_power_mw=None)
    (case,) = facts(model, "--device", path, "--period-ms", 500, "--battery-mah", 200)["energy"]["cases"]
    assert case["unknown"] == ["idle power"]
    for name in ("rest_uj", "total_uj", "battery_days"):
        assert case[f"estimated_{name}"] is None
    assert case["estimated_active_uj"] > 0
    result = estimate(model, "--device", path, "--period-ms", 500)
    assert "Unknown of my-board: idle power" in words(result.stdout)


def test_an_operator_without_a_rule_leaves_totals_unknown_until_it_has_a_price():
    Path("custom.tflite").write_bytes(custom_model())
    (row,) = facts("custom.tflite")["rows"]
    assert row["estimated_cycles"] is None
    shown = words(estimate("custom.tflite").stdout)
    assert "Unknown: the cycles of custom:fft, and with them every total. Price them: `--price`." in shown
    (dear,), (cheap,) = (
        facts("custom.tflite", "--price", f"custom:fft={cycles}")["rows"] for cycles in (9000, 1000)
    )
    assert dear["estimated_cycles"] - cheap["estimated_cycles"] == pytest.approx(8000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--period-ms", "500"], "`--period-ms` must come with a known latency. Received: custom:fft"),
        (["--period-ms", "500"], "Add `--price custom:fft=CYCLES`."),
        (["--figure", "a.png"], "`--figure` must come with a known latency. Received: custom:fft"),
        (["--price", "fft=1"], "Received: 'fft'. Did you mean 'custom:fft'?"),
        (["--price", "ADD=1"], "`--price` must be of operators without a rule (custom:fft). Received: 'ADD'"),
    ],
)
def test_what_an_unknown_operator_forbids_is_refused_with_its_name(options, message):
    Path("custom.tflite").write_bytes(custom_model())
    result = estimate("custom.tflite", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("a.png").exists()


def test_what_does_not_fit_is_printed_and_then_refused_by_the_bytes(model):
    path = own_device(flash_bytes=figure("flash_bytes", 1000), ram_bytes=figure("ram_bytes", 100))
    fit = facts(model, "--device", path, code=2)["memory"]
    assert fit["fits"] is False
    assert min(fit["missing_flash_bytes"], fit["missing_ram_bytes"]) > 0
    result = estimate(model, "--device", path)
    assert result.exit_code == 2
    assert "latency, ms" in result.stdout
    assert f"{fit['missing_flash_bytes']:,} bytes of flash too many" in result.stderr
    assert f"{fit['missing_ram_bytes']:,} bytes of RAM too many" in result.stderr


def test_a_period_that_is_asked_for_and_too_short_is_refused_at_the_end(model, bundle):
    slow = own_device(clock_mhz=figure("clock_mhz", 1e-3), clock_choices_mhz=())
    result = estimate(model, "--device", slow, "--period-ms", 5)
    assert result.exit_code == 2
    assert "latency, ms" in result.stdout
    assert "`--period-ms` must be at least the latency on my-board" in result.stderr
    # The sensor's own period was not asked for: that the device is too slow for it is a finding.
    found = facts("hand.mexit", "--device", slow)["energy"]
    assert found["cases"] == []
    assert sum(note.startswith("No energy per period") for note in found["notes"]) == 3


def test_a_mean_that_keeps_up_hides_no_window_that_does_not():
    library = estimate_bundle(Bundle.load(REFERENCE))
    last = library.exits[-1].estimated_latency_ms
    between = (last.value + last.high) / 2
    arguments = (REFERENCE, "--exit-shares", "1,0,0", "--period-ms", between)
    assert "A window that runs to exit_03 may take" in words(estimate(*arguments).stdout)


# --- What it is made of -------------------------------------------------------------------------------------


def test_terms_and_operators_explain_all_cycles(model):
    for path, library in (
        (model, estimate_model(hand_whole())),
        (REFERENCE, estimate_bundle(Bundle.load(REFERENCE)).exits[-1]),
    ):
        found = facts(path, "--explain")["explain"]
        whole = library.estimated_cycles.value
        assert sum(row["estimated_cycles"] for row in found["terms"]) == pytest.approx(whole)
        assert sum(row["share_of_cycles"] for row in found["terms"]) == pytest.approx(1)
        (invocations,) = (row["estimated_cycles"] for row in found["terms"] if row["term"] == "invocation")
        operators = sum(row["estimated_cycles"] for row in found["operators"])
        assert operators + invocations == pytest.approx(whole)
        assert found["figures"]["clock_mhz"]["source"]


def test_a_price_is_a_term_and_an_operator_of_its_own():
    Path("custom.tflite").write_bytes(custom_model())
    found = facts("custom.tflite", "--explain", "--price", "custom:fft=5000")["explain"]
    assert found["terms"][-1]["term"] == "priced"
    assert found["terms"][-1]["estimated_cycles"] == 5000
    unpriced = facts("custom.tflite", "--explain")["explain"]["operators"][0]
    assert (unpriced["estimated_cycles"], unpriced["share_of_cycles"]) == (None, None)


# --- Every device -------------------------------------------------------------------------------------------


def test_a_comparison_lists_every_device_the_fastest_first(model):
    found = facts(model, "--compare", "--period-ms", 1000)
    assert set(found) == {"name", "interval_level", "period", "battery_mah", "compare"}
    assert (found["name"], found["interval_level"], found["battery_mah"]) == ("whole.tflite", 0.9, None)
    assert (found["period"]["period_ms"], found["period"]["rest"]) == (1000, "idle")
    rows = found["compare"]
    assert sorted(row["device"] for row in rows) == list(device_names())
    latencies = [row["estimated_latency_ms"] for row in rows if row["estimated_latency_ms"] is not None]
    assert latencies == sorted(latencies)
    (row,) = (row for row in rows if row["device"] == DEVICE)
    assert row["estimated_latency_ms"] == estimate_model(hand_whole()).estimated_latency_ms.value
    assert row["fits"] is True
    for row in rows:
        assert (row["estimated_mean_power_mw"] is None) == bool(row["unknown"])
        assert row["unknown_because"] == row["refusals"] == []
        assert "Not counted: the sensor, whose power was not given." in row["notes"]


def test_a_comparison_has_days_on_the_battery_of_every_device():
    arguments = (REFERENCE, "--compare", "--battery-mah", 200)
    rows = {row["device"]: row for row in facts(*arguments)["compare"]}
    for name in (DEVICE, "raspberry-pi-pico"):
        (case,) = facts(REFERENCE, "--device", name, "--battery-mah", 200)["energy"]["cases"]
        assert rows[name]["estimated_battery_days"] == case["estimated_battery_days"] > 0
    assert (rows[DEVICE]["battery_v"], rows["esp32"]["battery_v"]) == (3.0, 3.7)
    result = estimate(*arguments)
    assert max(map(len, result.stdout.splitlines())) <= 80
    shown = words(result.stdout)
    for fact in ("days on", in_digits(rows[DEVICE]["estimated_battery_days"]), "3 V or 3.7 V", "10 kernels"):
        assert fact in shown
    arguments = (*arguments, "--stack", "esp-nn", "--battery-v", 3)
    for row in facts(*arguments)["compare"]:
        (refusal,) = row["refusals"]
        assert refusal.startswith("`--battery-v` must be at least `--supply-v`, 3.3 V")
        assert row["estimated_battery_days"] is None
        assert row["estimated_mean_power_mw"] > 0
    assert "Refused on esp32: `--battery-v` must be" in words(estimate(*arguments).stdout)
    wrong = estimate(REFERENCE, "--compare", "--battery-mah", 0)
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "`--battery-mah` must be finite and above 0" in wrong.stderr


def test_a_comparison_names_an_unknown_operator_once():
    Path("custom.tflite").write_bytes(custom_model())
    found = facts("custom.tflite", "--compare")["compare"]
    assert all(row["unknown_because"][0] == "no rule for custom:fft" for row in found)
    shown = words(estimate("custom.tflite", "--compare").stdout)
    assert shown.count("custom:fft") == 1
    assert "Price them: `--price`" in shown


def test_a_comparison_takes_a_stack_and_a_device_of_ones_own(model):
    having = {
        name
        for name in device_names()
        if any("tflm-cmsis-nn" in (stack.name, stack.family) for stack in load_device(name).stacks)
    }
    found = facts(model, "--compare", "--stack", "tflm-cmsis-nn", "--device", own_device())
    assert found["device"] == "my-board"
    assert {row["device"] for row in found["compare"]} == having | {"my-board"}
    result = estimate(model, "--compare", "--stack", "tflm-cmsis-n")
    assert result.exit_code == 2
    assert "Did you mean 'tflm-cmsis-nn'?" in result.stderr


def test_what_no_device_can_estimate_is_refused():
    Path("float.tflite").write_bytes(float_model())
    result = estimate("float.tflite", "--compare")
    assert result.exit_code == 2
    assert "computes FLOAT32" in result.stderr


# --- Wrong input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "nucleo-l4r5zj"], "`device` must be one of: andes-d25f,"),
        (["--device", "nucleo-l4r5zj"], "Did you mean 'nucleo-l4r5zi'?"),
        (["--device", "ethos-u55-127"], "Did you mean 'ethos-u55-128'?"),
        (["--device", "nothing.toml"], "nothing.toml, which is no file"),
        (["--stack", "tflm-cmsis"], "Did you mean 'tflm-cmsis-nn'?"),
        (["--stack", "esp-nn"], "--extrapolate"),
        (["--exit-shares", "1"], "`--exit-shares` must come with a bundle"),
        (["--price", "custom:fft"], "`--price` must be NAME=CYCLES"),
        (["--price", "custom:fft=much"], "`--price` must be NAME=CYCLES"),
        (["--price", "a=1", "--price", "a=2"], "each operator once"),
        (["--rest", "sleep"], "`--rest` needs a period"),
        (["--battery-mah", "200"], "`--battery-mah` needs a period"),
        (["--period-ms", "0"], "`--period-ms` must be finite and above 0"),
        (["--period-ms", "500", "--rest", "doze"], "`--rest` must be one of: idle, sleep"),
        (["--period-ms", "500", "--battery-v", "3"], "`--battery-v` needs `--battery-mah`"),
        (["--period-ms", "500", "--battery-mah", "-1"], "`--battery-mah` must be finite and above 0"),
        (["--period-ms", "500", "--sensor-mw", "-1"], "`--sensor-mw` must be finite"),
        (["--figure", "a.pdf"], "`--figure` must end in .png or .svg. Received: a.pdf. Name it a.png."),
        (["--figure", "whole.tflite/a.svg"], "which is no folder"),
    ],
)
def test_a_wrong_option_is_refused_with_the_way_out(model, options, message):
    result = estimate(model, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("shares", ["0.5,0.5", "0.5,0.5,0.5", "0.5,0.5,x", "nan,0.5,0.5"])
def test_shares_that_are_no_distribution_are_refused(bundle, shares):
    result = estimate("hand.mexit", "--exit-shares", shares)
    assert result.exit_code == 2
    assert "`--exit-shares`" in result.stderr
    assert re.search(r"Received: .*\. (Give the share|Divide|Example: )", result.stderr)


@pytest.mark.parametrize("name", ["nothing.tflite", "nothing.mexit", "nothing", "text.txt", "text.tflite"])
def test_what_is_neither_a_model_nor_a_bundle_is_refused(name):
    if name.startswith("text"):
        Path(name).write_text("no model")
    result = estimate(name)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "must be" in result.stderr


def test_a_float_model_is_refused_by_rates_for_int8():
    Path("float.tflite").write_bytes(float_model())
    result = estimate("float.tflite")
    assert result.exit_code == 2
    assert "FULLY_CONNECTED at place 0 that computes FLOAT32" in result.stderr


def test_a_stack_without_data_is_extrapolated_on_request(model):
    found = facts(model, "--stack", "esp-nn", "--extrapolate")
    assert found["fitted_on"] == []
    assert "extrapolated" in words(estimate(model, "--stack", "esp-nn", "--extrapolate").stdout)
    said = "No published figures for core 'Cortex-M4F' with esp-nn: those of all cores are taken."
    assert any(note.startswith(said) for note in found["notes"])
    known = facts(model, "--device", own_device(core="Xtensa LX7"), "--stack", "esp-nn", "--extrapolate")
    assert not any("all cores" in note for note in known["notes"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("core = ", 'colour = "white"\ncore = ', "colour: Extra inputs"),
        ("conv_kxk = { value = ", "conv_kxk = { value = -", "cycles_per.conv_kxk.value"),
        (
            "clock_mhz = ",
            "clock_khz = ",
            "at clock_khz: Extra inputs are not permitted (did you mean 'clock_mhz'?)",
        ),
        ("[[stacks]]", "[[stacks", "must be TOML"),
        ("core = ", "\udcff = ", "in UTF-8"),
    ],
)
def test_a_device_file_with_a_fault_is_refused_at_its_place(model, old, new, message):
    text = own_device().read_text("utf-8")
    assert old in text
    Path("my-board.toml").write_bytes(text.replace(old, new, 1).encode("utf-8", "surrogateescape"))
    for command in (("estimate", model, "--device", "my-board.toml"), ("devices", "my-board.toml")):
        result = mexit(*command)
        assert result.exit_code == 2
        assert message in result.stderr


# --- Ethos-U ------------------------------------------------------------------------------------------------


def compiler_says(content: bytes, accelerator: str, *, system_config: str) -> EthosUEstimate:
    return EthosUEstimate(
        accelerator=accelerator,
        system_config=system_config,
        memory_mode="Shared_Sram",
        vela_version="5.2.0",
        core_clock_mhz=200,
        compiler_cycles=len(content),
        compiler_latency_ms=0.25,
        sram_bytes=1792,
        dram_bytes=0,
        flash_bytes=3296,
        compiled_model_bytes=5000,
        npu_macs=49000,
        layers=(EthosULayer("a[b]", "Conv2D", "NPU", 1952, 43008),),
        cpu_operators=("CUMSUM",),
        notes=("the own estimates of the compiler",),
    )


def test_an_ethos_u_is_estimated_by_its_compiler_and_called_so(bundle, monkeypatch):
    monkeypatch.setattr(ethos_command, "estimate_ethos_u", compiler_says)
    found = facts("hand.mexit", "--device", "ethos-u65-256")
    assert [part["compiler_cycles"] for part in found["parts"]] == [len(one) for one in bundle.stages]
    assert found["parts"][0]["complete"] is False
    shown = words(estimate("hand.mexit", "--device", "ethos-u65-256", "--explain").stdout)
    for fact in ("by its compiler", "the own estimates of the compiler", "Ethos_U65_Embedded", "a[b]"):
        assert fact in shown


def test_an_ethos_u_takes_no_option_of_other_devices(model):
    result = estimate(model, "--device", "ethos-u55-128", "--stack", "esp-nn", "--compare")
    assert result.exit_code == 2
    assert "Received: --stack, --compare." in result.stderr


def test_without_the_compiler_its_extra_is_named(model, monkeypatch):
    monkeypatch.setattr(ethos_u, "find_spec", lambda name: None)
    result = estimate(model, "--device", "ethos-u55-128")
    assert result.exit_code == 2
    assert "mexit-edge[ethos-u]" in result.stderr


def test_every_family_of_npu_has_a_system():
    assert {name.rpartition("-")[0] for name in ACCELERATORS} == set(ethos_command.SYSTEMS)


# --- Devices ------------------------------------------------------------------------------------------------


def test_every_device_is_listed_with_its_stacks():
    rows = json.loads(mexit("devices", "--json").stdout)["devices"]
    assert [row["name"] for row in rows] == list(device_names())
    for row in rows:
        device = load_device(row["name"])
        assert [stack["name"] for stack in row["stacks"]] == [stack.name for stack in device.stacks]
        figures = {
            "idle_power_mw": device.idle_power_mw,
            "active_power_mw": device.power_mw(device.stacks[0]),
        }
        for name, power in figures.items():
            assert (row[name] is None) == (power is None)
            assert power is None or row[name] == asdict(power.estimate) | {"status": power.status}
    result = mexit("devices")
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "…" not in result.stdout
    assert all(name in result.stdout for name in device_names())
    assert "unknown" in result.stdout
    # Of the same board: measured, and a guess.
    assert " 40.6 " in result.stdout
    assert "~12 " in result.stdout
    assert "~: extrapolated or unverified" in result.stdout
    assert "esp-nn (1 model," in result.stdout
    assert "10 kernels)" in result.stdout


def test_all_figures_of_a_device_are_listed_and_counted():
    device = load_device(DEVICE)
    known = [getattr(device, name) for name in FIGURES if getattr(device, name) is not None]
    powers = [stack.active_power_mw for stack in device.stacks if stack.active_power_mw is not None]
    found = json.loads(mexit("devices", DEVICE, "--json").stdout)
    assert sum(found["statuses"].values()) == len(known) + len(powers) + 8 * len(device.stacks)
    assert found["device"] == device.model_dump(mode="json")
    shown = words(mexit("devices", DEVICE).stdout)
    for one in (*known, *powers):
        assert words(one.source) in shown
    for stack in device.stacks:
        assert stack.version in shown
    assert "fitted to 4 models published for it (ad, ic, kws, vww)" in shown
    assert "fitted to 1 model and 10 kernels published for it (add" in words(
        mexit("devices", "esp32-s3").stdout
    )
    assert "fitted to 4 models measured for it" in words(mexit("devices", own_device()).stdout)


def test_no_figure_of_a_device_is_left_out():
    assert {name for name, field in Device.model_fields.items() if "Figure" in str(field.annotation)} == set(
        FIGURES
    )


def test_an_unknown_device_has_no_figures():
    result = mexit("devices", "esp23")
    assert result.exit_code == 2
    assert "Did you mean 'esp32'?" in result.stderr


# --- The command itself -------------------------------------------------------------------------------------


def test_estimates_load_neither_tensorflow_nor_pandas_nor_matplotlib(model):
    program = (
        "import sys\n"
        "from mexit_edge.cli.app import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "wrong = {'tensorflow', 'keras', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not wrong, wrong\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "estimate", str(model), "--explain", "--compare"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@given(st.floats(1e-9, 1e12))
def test_a_number_keeps_three_digits(value):
    assert float(in_digits(value).replace(",", "")) == pytest.approx(value, rel=5.1e-3)
