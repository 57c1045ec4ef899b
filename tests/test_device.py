"""Device files: their schema, the files that come with the package, and writing them."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.estimate import Coefficient, CyclesPer, Device, Stack, device_names, load_device, parse_device
from mexit_edge.estimate.device_toml import device_toml, stack_toml
from mexit_edge.estimate.latency.rates import QUANTILE
from mexit_edge.estimate.latency.terms import MAC_TERMS, TERMS
from mexit_edge.estimate.relatives import (
    core_warning,
    find_core,
    find_stack,
    known_cores,
    relative,
    relative_stack,
    relatives,
)

FIGURE = 'source = "made up", date = "2026-11", status = "unverified"'
HEAD = f"""
name = "my-board"
title = "My board"
core = "Cortex-M4F"
regulator = "LDO"
clock_mhz = {{ value = 100, {FIGURE} }}
supply_v = {{ value = 3.0, low = 2.9, high = 3.1, {FIGURE} }}
flash_bytes = {{ value = 1000000, {FIGURE} }}
ram_bytes = {{ value = 200000, {FIGURE} }}
idle_power_mw = {{ value = 5, {FIGURE} }}
"""
CYCLES_PER = """
conv_kxk = { value = 3.0, low = 2.0, high = 5.0, status = "fitted", macs_per_output = [27.0, 576.0] }
conv_1x1 = { value = 2.5, low = 2.0, high = 3.0, status = "fitted", macs_per_output = [8.0, 256.0] }
depthwise = { value = 12.0, low = 9.0, high = 15.0, status = "fitted", macs_per_output = [9.0, 9.0] }
fully_connected = { value = 4.0, low = 3.0, high = 5.0, status = "extrapolated" }
output = { value = 50.0, low = 20.0, high = 100.0, status = "extrapolated" }
element = { value = 20.0, low = 5.0, high = 90.0, status = "extrapolated" }
operator = { value = 900.0, low = 300.0, high = 2000.0, status = "extrapolated" }
invocation = { value = 1000.0, low = 100.0, high = 9000.0, status = "extrapolated" }
model_error = 0.1
"""


def stack_text(name: str = "kernels-1", family: str = "kernels") -> str:
    return f"""
[[stacks]]
name = "{name}"
family = "{family}"
version = "1"
dtype = "INT8"
folds_constant_channels = false
source = "made up"
date = "2026-11"
fitted_on = ["kws"]
[stacks.cycles_per]
{CYCLES_PER}
"""


TEXT = HEAD + stack_text()


def correlated(rows: Any) -> str:
    return TEXT.replace("model_error = 0.1", f"model_error = 0.1\ncorrelation = {np.array(rows).tolist()}")


# --- The schema ---------------------------------------------------------------------------------------------


def test_what_a_file_leaves_out_is_unknown_or_exact():
    device = parse_device(TEXT)
    assert device.active_power_mw is None
    assert device.clock_choices_mhz == ()
    assert device.clock_mhz.estimate.low == device.clock_mhz.estimate.high == 100
    assert (device.supply_v.estimate.low, device.supply_v.estimate.high) == (2.9, 3.1)
    assert device.stack().cycles_per.fully_connected.macs_per_output is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("", 'colour = "white"\n', r"at colour: Extra inputs"),
        ('100, source = "made up"', '100, sauce = "made up"', r"clock_mhz\.sauce: .*did you mean 'source'\?"),
        ("clock_mhz =", "clock_khz =", r"at clock_khz: Extra .*did you mean 'clock_mhz'\?"),
        ("fitted_on =", "fited_on =", r"at stacks\.0\.fited_on: Extra .*did you mean 'fitted_on'\?"),
        ("[stacks.cycles_per]\n", "[stacks.cycles_per]\nconv_3x3 = 1\n", r"cycles_per\.conv_3x3: Extra"),
        (
            "value = 3.0, low = 2.0",
            "value = 3.0, unit = 1, low = 2.0",
            r"conv_kxk\.unit: Extra .*known there: value, low,",
        ),
        ("[[stacks]]\n", "[[stacks]]\ncycles_per_mac = 1\n", r"cycles_per_mac: Extra"),
        (re.search("operator = .*\n", TEXT)[0], "", r"cycles_per\.operator: Field required"),
        ('core = "Cortex-M4F"\n', "", r"at core: Field required"),
        ("model_error = 0.1\n", "", r"model_error: Field required"),
        ('fitted_on = ["kws"]\n', "", r"fitted_on: Field required"),
        (', date = "2026-11", status = "unverified" }\nsupply', " }\nsupply", r"clock_mhz\.date: Field"),
        ('date = "2026-11"\nfitted', 'date = "last autumn"\nfitted', r"stacks\.0\.date"),
        ('source = "made up"\ndate', 'source = ""\ndate', r"stacks\.0\.source"),
        ('high = 5.0, status = "fitted"', 'high = 5.0, status = "guessed"', r"conv_kxk\.status"),
        ("value = 3.0, low = 2.0", "value = 3.0, low = -2.0", r"conv_kxk\.low"),
        ("value = 3.0, low = 2.0", "value = 3.0, low = 0.0", r"conv_kxk\.low"),
        ("value = 3.0, low = 2.0", "value = nan, low = 2.0", r"conv_kxk\.value"),
        ("value = 3.0, low = 2.0", "value = 1.0, low = 2.0", r"conv_kxk.*in this order"),
        ("high = 5.0", "high = 2.9", r"conv_kxk.*in this order"),
        ("low = 2.9, high", "low = 3.05, high", r"supply_v.*in this order"),
        ("high = 3.1", "high = inf", r"supply_v\.high"),
        ("model_error = 0.1", "model_error = -0.1", r"model_error"),
        ("value = 5,", "value = -5,", r"idle_power_mw\.value"),
        ("value = 100,", "value = 0,", r"`clock_mhz` and `supply_v` must be above 0"),
        ('name = "my-board"', 'name = "My Board"', r"at name"),
        ('regulator = "LDO"', 'regulator = "buck"', r"at regulator"),
        ("", stack_text(family="others"), r"`stacks` must have different names"),
        (stack_text(), "stacks = []", r"at stacks"),
        ("[[stacks]]", "[[stacks]", r"must be TOML"),
    ],
)
def test_a_file_with_a_fault_is_refused_at_its_place(old, new, message):
    assert old in TEXT
    # Keys of the device itself go before its stacks, more stacks behind.
    text = TEXT.replace(old, new, 1) if old else TEXT + new if new.startswith("\n") else new + TEXT
    with pytest.raises(InputError, match=message) as caught:
        parse_device(text)
    assert "Received:" in str(caught.value)


def test_a_fault_is_told_with_the_file_where_it_is_known():
    for text, rule in ((TEXT + "x = 1\n", "must follow the schema"), ("[", "must be TOML")):
        with pytest.raises(InputError, match=rf"the device file `a/my\.toml` {rule}"):
            parse_device(text, "a/my.toml")


def matrix(**places: float) -> Any:
    made = np.eye(len(TERMS))
    for place, value in places.items():
        made[int(place[1]), int(place[2])] = value
    return made


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.eye(7), "must have 8 rows of 8"),
        (np.eye(8)[:, :7], "must have 8 rows of 8"),
        (matrix(_01=0.5), "symmetric with ones"),
        (matrix(_00=0.9), "symmetric with ones"),
        (matrix(_01=1.5, _10=1.5), r"correlation\.0\.1"),
        # Three terms cannot all go against each other.
        (matrix(_01=-0.9, _10=-0.9, _12=-0.9, _21=-0.9, _02=-0.9, _20=-0.9), "no negative eigenvalue"),
    ],
)
def test_what_is_no_correlation_is_refused(rows, message):
    with pytest.raises(InputError, match=message):
        parse_device(correlated(rows))


def test_rates_are_the_coefficients_and_their_correlation_in_logarithms():
    rows = matrix(_01=0.5, _10=0.5, _34=-0.3, _43=-0.3)
    rates = parse_device(correlated(rows)).stack().cycles_per.log_rates
    deviation = np.sqrt(np.diag(rates.covariance))
    assert rates.mean == pytest.approx(np.log([3, 2.5, 12, 4, 50, 20, 900, 1000]))
    assert deviation[0] == pytest.approx(np.log(5 / 2) / (2 * QUANTILE))
    assert rates.covariance / np.outer(deviation, deviation) == pytest.approx(rows)
    assert rates.model_error == 0.1
    independent = parse_device(TEXT).stack().cycles_per.log_rates.covariance
    assert independent == pytest.approx(np.diag(deviation**2))


# --- Stacks of a device -------------------------------------------------------------------------------------


def test_a_stack_is_found_by_its_name_or_as_the_first_of_its_family():
    names = [("a-1", "a"), ("a-2", "a"), ("b", "c"), ("c", "d")]
    device = parse_device(HEAD + "".join(stack_text(*one) for one in names))
    assert device.stack() is device.stack("a-1") is device.stacks[0]
    assert device.stack("a") is device.stacks[0] is not device.stack("a-2")
    # A name goes before the family of another one.
    assert device.stack("c") is device.stacks[3]
    with pytest.raises(InputError, match=r"`stack` must be one of: .*'a-3'.*Did you mean 'a-"):
        device.stack("a-3")


def test_a_stack_without_power_of_its_own_takes_that_of_the_device():
    power = f"active_power_mw = {{ value = %d, {FIGURE} }}\n"
    device = parse_device(
        power % 40 + TEXT.replace("fitted_on", power % 30 + "fitted_on") + stack_text("kernels-2")
    )
    own, other = device.stacks
    assert [device.power_mw(one).value for one in (own, other)] == [30, 40]
    assert parse_device(TEXT).power_mw(parse_device(TEXT).stack()) is None


def test_unknown_devices_suggest_the_nearest():
    with pytest.raises(InputError, match=r"`device` must be one of: .*Did you mean 'nucleo-l4r5zi'"):
        load_device("nucleo-l4r5")


# --- Stacks of no device ------------------------------------------------------------------------------------


def test_a_stack_without_data_is_taken_from_relatives_only_when_asked_for():
    device = load_device("raspberry-pi-pico")
    with pytest.raises(InputError, match=r"data for: tflm-cmsis-nn.*Received: 'hale'.*`extrapolate=True`"):
        find_stack(device, "hale", extrapolate=False)
    found = find_stack(device, "hale", extrapolate=True)
    assert found == relative_stack("hale", "Cortex-M0+")
    assert found.fitted_on == ()
    assert find_stack(device, "tflm-cmsis-nn", extrapolate=True) is device.stacks[0]
    assert find_stack(device, None, extrapolate=True) is device.stacks[0]
    for extrapolate in (False, True):
        with pytest.raises(InputError, match=r"`stack` must be one of"):
            find_stack(device, "hail", extrapolate=extrapolate)


@pytest.mark.parametrize(
    ("core", "names"),
    [
        ("Cortex-M4F", ("M4", "m4f", "Cortex-M4", "cortex-m4f", "CORTEX M4F", "arm cortex m4")),
        ("Cortex-M0+", ("M0+", "cortex-m0plus")),
        ("Cortex-M33", ("m33",)),
        ("Cortex-M7", ("M7",)),
        ("Xtensa LX6", ("LX6", "xtensa-lx6")),
        ("Xtensa LX7", ("lx7",)),
        ("RV32IMC", ("rv32imc",)),
        (None, ("Cortex-M3", "M0", "ESP32", "", "cortex")),
    ],
)
def test_cores_are_found_by_the_names_they_go_by(core, names):
    assert {find_core(name) for name in names} == {core}


def test_every_known_core_is_found_by_its_own_name_and_has_its_own_figures():
    assert [find_core(core) for core in known_cores()] == list(known_cores())
    for family in {one.stack.family for one in relatives()}:
        for core in known_cores(family):
            assert relative(family, core.lower()).core == core
            assert core_warning(family, core) is None
        assert relative(family, "a core of nobody").core is None


def test_figures_of_all_cores_are_said_to_be_so():
    said = core_warning("tflm-cmsis-nn", "cortex-m3")
    assert said is not None
    assert "for core 'cortex-m3' with tflm-cmsis-nn: those of all cores are taken" in said
    assert said.endswith("RXv2. Did you mean 'Cortex-M33'?")
    # Known, but not with these kernels: no other name would help.
    assert str(core_warning("esp-nn", "M7")).endswith("Known cores: RV32IMC, Xtensa LX6, Xtensa LX7.")


def test_relatives_hold_every_family_for_every_core_and_know_less_of_an_unknown_core():
    families = {one.stack.family for one in relatives()}
    assert families >= {stack.family for name in device_names() for stack in load_device(name).stacks}
    assert max(Counter((one.core, one.stack.family) for one in relatives()).values()) == 1
    for one in relatives():
        assert one.stack.fitted_on == ()
        assert {one.stack.cycles_per.term(term).status for term in TERMS} == {"extrapolated"}
    for family in families:
        unknown = relative_stack(family, "a core of nobody").cycles_per
        for core in known_cores(family):
            known = relative_stack(family, core).cycles_per
            assert np.trace(known.log_rates.covariance) < np.trace(unknown.log_rates.covariance)


# --- The files that come with the package -------------------------------------------------------------------


@pytest.mark.parametrize("name", device_names())
def test_every_shipped_device_is_whole(name):
    device = load_device(name)
    assert device.name == name
    assert device.stack() is device.stacks[0]
    assert {one.dtype for one in device.stacks} == {"INT8"}
    stated = [(one.family, one.version, one.cycles_per) for one in device.stacks]
    assert all(stated.count(one) == 1 for one in stated)
    powers = [device.sleep_power_mw, device.idle_power_mw, device.active_power_mw]
    known = [one.value for one in powers if one is not None]
    assert known == sorted(known)
    for stack in device.stacks:
        for term in TERMS:
            coefficient = stack.cycles_per.term(term)
            # What nobody measured on the board is not stated as if somebody had.
            assert coefficient.status == "extrapolated" or stack.fitted_on
            assert coefficient.low < coefficient.high
            assert coefficient.macs_per_output is None or term in MAC_TERMS


def test_nucleo_l4r5zi_states_its_reference_stack_first():
    device = load_device("nucleo-l4r5zi")
    assert device.stack().name == "tflm-cmsis-nn"
    assert (device.flash_bytes.value, device.ram_bytes.value) == (2 * 1024 * 1024, 640 * 1024)


# --- Writing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", device_names())
def test_a_device_is_read_back_as_it_was_written(name):
    device = load_device(name)
    assert parse_device(device_toml(device)) == device


@pytest.mark.parametrize("text", [TEXT, correlated(matrix(_01=0.5, _10=0.5)), TEXT + stack_text("other")])
def test_a_device_of_ones_own_is_read_back_as_it_was_written(text):
    device = parse_device(text)
    assert parse_device(device_toml(device)) == device


factors = st.floats(1, 1e6)
coefficients = st.builds(
    lambda value, below, above, status, inside: Coefficient(
        value=value, low=value / below, high=value * above, status=status, macs_per_output=inside
    ),
    st.floats(1e-9, 1e9),
    factors,
    factors,
    st.sampled_from(["measured", "fitted", "datasheet", "extrapolated", "unverified"]),
    st.none() | st.tuples(factors, factors).map(sorted).map(tuple),
)
words = st.text(st.characters(codec="utf-8"), min_size=1)


@given(words, st.lists(words).map(tuple), st.booleans(), st.lists(coefficients, min_size=8, max_size=8))
def test_any_stack_is_read_back_as_it_was_written(word, models, folds, cycles):
    stack = Stack(
        name="kernels-1",
        family="kernels",
        version=word,
        dtype="INT8",
        folds_constant_channels=folds,
        source=word,
        date="2026-11-22",
        fitted_on=models,
        cycles_per=CyclesPer(**dict(zip(TERMS, cycles, strict=True)), model_error=0.1),
    )
    (read,) = tomllib.loads(stack_toml(stack, "mine"))["mine"]
    assert Stack.model_validate(read) == stack


def test_a_written_device_has_a_line_per_figure():
    device = parse_device(correlated(np.eye(8)))
    lines = device_toml(device).splitlines()
    assert [line.split(" = ")[0] for line in lines if line.startswith(TERMS)] == list(TERMS)
    assert sum(line.startswith("  [") for line in lines) == len(TERMS)
    assert isinstance(parse_device("\n".join(lines)), Device)
