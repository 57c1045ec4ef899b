"""A device file from a few measured models: what the fit finds, what it refuses, and `mexit device fit`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures_boards import asked_of, board_theta, costs_of, cycles_on, probe_set, rates, relative
from fixtures_networks import HandModel
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from mexit_edge.cli.app import app
from mexit_edge.cli.device_commands import CORES
from mexit_edge.errors import InputError, in_digits
from mexit_edge.estimate import Stack, parse_device
from mexit_edge.estimate.device_toml import device_toml
from mexit_edge.estimate.latency.terms import TERMS
from mexit_edge.estimate.own_board.fit import POWER_DEVIATION, Board, Fitted, fit_device
from mexit_edge.estimate.own_board.measured_cycles import MeasuredCycles, of_any_speed
from mexit_edge.estimate.own_board.measurements import (
    MAX_MODELS,
    MAX_TABLE_BYTES,
    MeasuredModel,
    read_measurements,
)
from mexit_edge.estimate.own_board.probe_builder import ProbeBuilder
from mexit_edge.estimate.relatives import known_cores, relatives

MHZ = 80.0
BOARD = Board("my-board", "My board", "Cortex-M4F", MHZ, 1 << 20, 1 << 18, 3.3)
PROBES = {f"{probe.name}.tflite": probe.content for probe in probe_set()}
NEEDED = ("--core", "Cortex-M4F", "--clock-mhz", 80, "--stack", "tflm-cmsis-nn", "--flash-kib", 1024)
NEEDED = (*NEEDED, "--ram-kib", 256, "--name", "my-board")


def measured(
    cycles: Mapping[str, float], energy_uj: Mapping[str, float] | None = None
) -> tuple[MeasuredModel, ...]:
    return tuple(
        MeasuredModel(
            name=name,
            lines=(line,),
            costs=costs_of(PROBES[name]),
            cycles=value,
            latency_ms=value / MHZ / 1e3,
            energy_uj=(energy_uj or {}).get(name),
        )
        for line, (name, value) in enumerate(cycles.items(), start=2)
    )


def fitted(models: tuple[MeasuredModel, ...], prior: Stack | None = None, *, keep: bool = False) -> Fitted:
    return fit_device(
        models,
        BOARD,
        prior or relative(),
        version="1",
        source="table.csv",
        date="2026-11-22",
        keep_contradictions=keep,
    )


def usual() -> dict[str, float]:
    """What the probes take on a board as all others are together."""
    return cycles_on(rates().mean, PROBES)


# The fit


# A board as far from the others as the first is warned of, and read back like any other.
@example(225, False)
@given(st.integers(0, 1000), st.booleans())
@settings(max_examples=6)
def test_a_device_reads_back_equal(seed, with_energy):
    cycles = cycles_on(board_theta(seed), PROBES, noise=0.1, seed=seed)
    energy = {name: value / 2e3 for name, value in cycles.items()} if with_energy else None
    device = fitted(measured(cycles, energy), keep=True).device
    assert parse_device(device_toml(device)) == device


def test_what_was_measured_is_fitted_and_the_rest_extrapolated():
    cycles = cycles_on(board_theta(1), PROBES)
    stack = fitted(measured(cycles)).device.stacks[0]
    statuses = {term: stack.cycles_per.term(term).status for term in TERMS}
    assert {term for term, status in statuses.items() if status == "fitted"} >= set(TERMS) - {"invocation"}
    assert stack.fitted_on == tuple(PROBES)
    assert stack.source == "Fit to 8 models measured on this board (2026-11-22, table.csv), prior: Made up"
    name = "probe_05_dense.tflite"
    alone = fitted(measured({name: cycles[name]})).device.stacks[0].cycles_per
    # The board's speed is known a little better, but no convolution was seen.
    before = relative().cycles_per.conv_kxk
    assert alone.conv_kxk.high / alone.conv_kxk.low < 0.9 * before.high / before.low
    assert alone.conv_kxk.status == alone.depthwise.status == "extrapolated"
    assert alone.fully_connected.status == "fitted"


def test_layers_like_the_measured_ones_are_no_longer_outside():
    before = relative().cycles_per
    after = fitted(measured(cycles_on(board_theta(1), PROBES))).device.stacks[0].cycles_per
    assert before.depthwise.macs_per_output is None
    assert after.depthwise.macs_per_output == (1.0, 9.0)
    assert before.conv_kxk.macs_per_output == (10.0, 600.0)
    assert after.conv_kxk.macs_per_output == (9.0, 600.0)
    assert after.output.macs_per_output is None


def sample(cycles: Mapping[str, float], contents: Mapping[str, bytes] = PROBES) -> MeasuredCycles:
    return MeasuredCycles(
        np.array([asked_of(contents[name]) for name in cycles]), np.array(list(cycles.values()))
    )


def test_errors_are_those_of_the_file_and_of_fits_without_the_model():
    cycles = cycles_on(board_theta(3), PROBES, noise=0.1, seed=3)
    result = fitted(measured(cycles))
    of_file = result.device.stacks[0].cycles_per.log_rates
    before = of_any_speed(relative().cycles_per.log_rates)
    for one, (name, took) in zip(result.models, cycles.items(), strict=True):
        assert one.model == name
        assert one.measured_ms == pytest.approx(took / MHZ / 1e3)
        others = sample({other: value for other, value in cycles.items() if other != name})
        # What is hidden has no say in how far the board strays from the published ones.
        others = others.rates(others.likeliest(before))
        for rates_then, found, error in (
            (of_file, one.estimated_ms, one.error_percent),
            (others, one.left_out_ms, one.left_out_error_percent),
        ):
            expected = rates_then.cycles(asked_of(PROBES[name])).times(1 / MHZ / 1e3)
            ends = (expected.value, expected.low, expected.high)
            assert (found.value, found.low, found.high) == pytest.approx(ends, rel=0.01)
            assert error == pytest.approx(100 * (found.value / one.measured_ms - 1))
    off = [abs(one.left_out_error_percent) for one in result.models]
    assert result.mean_left_out_error_percent == pytest.approx(np.mean(off))
    widths = [one.estimated_ms.high / one.estimated_ms.value - 1 for one in result.models]
    assert result.half_width_percent == pytest.approx(100 * np.median(widths))


def test_intervals_of_networks_that_were_not_measured_are_honest():
    network = ProbeBuilder((1, 20, 20, 3), 1)
    last = network.convolution(network.window, 24, (3, 3), 2)
    last = network.add(last, network.convolution(network.depthwise(last, (3, 3)), 24, (1, 1)))
    content = network.content(network.dense(network.mean(last), 6))
    before, inside = of_any_speed(rates()), []
    for seed in range(40):
        took = cycles_on(board_theta(seed), PROBES | {"new": content}, noise=0.1, seed=seed)
        new = took.pop("new")
        found = sample(took)
        expected = found.rates(found.likeliest(before)).cycles(asked_of(content))
        inside.append(expected.low <= new <= expected.high)
    assert 0.85 <= np.mean(inside) < 1


def test_what_terms_do_not_explain_widens_the_interval_and_agreement_never_narrows_it():
    before = of_any_speed(rates(0.1))

    def model_errors(noise: float) -> list[float]:
        samples = [sample(cycles_on(board_theta(seed), PROBES, noise, seed)) for seed in range(20)]
        return [one.likeliest(before).model_error for one in samples]

    assert set(model_errors(0.0)) == {0.1}
    assert np.mean(model_errors(0.4)) > 0.15


def test_boards_that_are_slower_than_all_others_are_fitted_as_well():
    cycles = cycles_on(board_theta(1), PROBES, noise=0.05)
    before, slow = (
        fitted(measured({name: factor * value for name, value in cycles.items()}), keep=True)
        for factor in (1, 60)
    )
    assert slow.times_expected == pytest.approx(60 * before.times_expected)
    for one, other in zip(before.models, slow.models, strict=True):
        assert other.error_percent == pytest.approx(one.error_percent, abs=2)
        assert other.left_out_error_percent == pytest.approx(one.left_out_error_percent, abs=15)


# Contradictions


@pytest.mark.parametrize("factor", [1e3, 1e-3, 10, 0.1, 4, 0.25])
@pytest.mark.parametrize("name", PROBES)
def test_a_wrong_row_is_refused_by_name_with_what_the_others_expect(name, factor):
    cycles = usual()
    ms = cycles[name] / MHZ / 1e3
    models = measured(cycles | {name: factor * cycles[name]})
    what = (
        r"`measurements` must not contradict each other by more than 3 times\. "
        rf"Received: {in_digits(factor * ms)} ms for {name} \(line {list(PROBES).index(name) + 2}\), "
        rf"where the others let expect {in_digits(ms)} ms"
    )
    # Each is the only one that shows its term, of which boards differ by as much: chance may explain 4 times.
    if name in ("probe_06_operators.tflite", "probe_07_elements.tflite") and factor in (4, 0.25):
        assert re.search(what, fitted(models).warnings[0])
        return
    with pytest.raises(InputError, match=what) as caught:
        fitted(models)
    assert "pass `keep_contradictions=True` (`--keep-contradictions`)" in str(caught.value)


def test_contradictions_that_are_to_be_kept_are_marked_and_told():
    name = "probe_03_pointwise.tflite"
    cycles = usual()
    result = fitted(measured(cycles | {name: 10 * cycles[name]}), keep=True)
    assert [one.model for one in result.models if one.contradicts] == [name]
    (warning,) = result.warnings
    assert f"ms for {name} (line 4), where the others let expect" in warning
    parse_device(device_toml(result.device))
    agreeing = fitted(measured(cycles))
    assert agreeing.warnings == ()
    assert not any(one.contradicts for one in agreeing.models)


def test_every_contradiction_is_found_and_each_is_held_against_what_agrees():
    before, cycles = of_any_speed(rates()), usual()
    names = list(cycles)
    wrong = cycles | {names[0]: 10 * cycles[names[0]], names[4]: cycles[names[4]] / 10}
    found = sample(wrong).contradictions(before, 3)
    assert {one.index for one in found} == {0, 4}
    assert found[-1].expected.value == pytest.approx(cycles[names[found[-1].index]], rel=0.05)
    assert sample({names[0]: 1.0}).contradictions(before, 3) == ()
    for factor in (1, 2, 0.5):
        assert sample(cycles | {names[0]: factor * cycles[names[0]]}).contradictions(before, 3) == ()


def test_boards_as_they_are_expected_are_hardly_ever_refused():
    before = of_any_speed(rates())
    refused = []
    for seed in range(40):
        found = sample(cycles_on(board_theta(seed), PROBES, noise=0.1, seed=seed)).contradictions(before, 3)
        refused.append(any(one.is_certain for one in found))
    assert np.mean(refused) <= 0.05


def test_of_a_single_model_the_error_left_out_is_unknown():
    result = fitted(measured({"probe_01_long_sums.tflite": 2 * usual()["probe_01_long_sums.tflite"]}))
    (one,) = result.models
    assert one.left_out_ms is one.left_out_error_percent is result.mean_left_out_error_percent is None
    assert abs(one.error_percent) < 15
    assert result.times_expected == pytest.approx(2)
    assert result.device.stacks[0].source.startswith("Fit to 1 model measured on this board")


@pytest.mark.parametrize(
    ("factor", "cause"),
    [
        (1e3, "1,000 times that, as microseconds under latency_ms would be"),
        (1e-3, "1/1,000 of that, as milliseconds under latency_us or seconds under latency_ms would be"),
        (MHZ, "80 times that, as cycles under latency_us would be"),
        (1 / MHZ, "1/80 of that, as microseconds under cycles would be"),
        (1e7, "10,000,000 times that."),
    ],
)
def test_a_board_unlike_all_others_is_refused_with_the_likely_unit(factor, cause):
    models = measured({name: factor * value for name, value in usual().items()})
    with pytest.raises(
        InputError, match=r"within 30 times of what other boards with tflm-cmsis-nn"
    ) as caught:
        fitted(models)
    assert f"Received: {cause}" in str(caught.value)
    kept = fitted(models, keep=True)
    assert cause in kept.warnings[0]
    assert not any(one.contradicts for one in kept.models)


def test_a_board_that_is_slower_than_usual_is_taken_with_a_warning():
    (warning,) = fitted(measured({name: 8 * value for name, value in usual().items()})).warnings
    assert "Received: 8 times that. Check the unit, `--clock-mhz`, `--core` and `--stack`" in warning


# Power


def test_energy_gives_the_power_with_the_spread_of_the_models():
    cycles = cycles_on(board_theta(1), PROBES)
    same = {name: 40 * value / MHZ / 1e3 for name, value in cycles.items()}
    power = fitted(measured(cycles, same)).device.stacks[0].active_power_mw
    assert (power.value, power.status) == (40, "measured")
    assert 1.02 < power.high / power.value < np.exp(2 * POWER_DEVIATION)
    spread = {
        name: value * (1.2 if place % 2 else 1 / 1.2) for place, (name, value) in enumerate(same.items())
    }
    wider = fitted(measured(cycles, spread)).device.stacks[0].active_power_mw
    assert wider.value == pytest.approx(40, rel=1e-3)
    assert wider.low < 40 / 1.2 < 40 * 1.2 < wider.high
    only = "probe_03_pointwise.tflite"
    one = fitted(measured(cycles, {only: same[only]})).device.stacks[0].active_power_mw
    assert one.value == 40
    assert one.high > power.high
    assert fitted(measured(cycles)).device.stacks[0].active_power_mw is None
    mistaken = measured(cycles, same | {only: 3000 * same[only]})
    with pytest.raises(InputError, match=r"`energy_uj` must not contradict .* 120,000 mW for probe_03_point"):
        fitted(mistaken)
    assert "120,000 mW" in fitted(mistaken, keep=True).warnings[0]


# The table


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for name, content in list(PROBES.items())[:2]:
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a.tflite").write_bytes(PROBES["probe_02_short_sums.tflite"])
    return path


@given(ms=st.floats(1e-3, 1e5), mhz=st.floats(1, 1000), rows=st.integers(1, 3))
@settings(max_examples=20)
def test_units_say_the_same(tmp_path_factory, ms, mhz, rows):
    folder = tmp_path_factory.mktemp("units")
    read = [
        read_measurements(written(folder, f"model,{column}\n" + f"a.tflite,{value!r}\n" * rows), mhz)[0]
        for column, value in (("latency_ms", ms), ("latency_us", 1e3 * ms), ("cycles", ms * 1e3 * mhz))
    ]
    for one in read:
        assert one.latency_ms == pytest.approx(ms)
        assert one.cycles == pytest.approx(1e3 * ms * mhz)
        assert one.lines == tuple(range(2, 2 + rows))


def test_repeats_count_by_their_geometric_mean_and_spreadsheets_are_read(tmp_path):
    rows = ["a.tflite,1,2,10", "", " ./a.tflite ,2.25,,", "probe_01_long_sums.tflite,7,,"]
    rows = [*rows, "a.tflite,1.5,4.5,1", ",,,", ""]
    text = "\r\n".join(["\ufeffmodel, latency_ms ,energy_uj,runs", *rows])
    first, second = read_measurements(written(tmp_path, text), MHZ)
    assert (first.name, first.lines) == ("a.tflite", (2, 4, 6))
    assert first.latency_ms == pytest.approx(1.5)
    assert first.cycles == pytest.approx(1.5 * 80_000)
    assert first.energy_uj == pytest.approx(3)
    assert (second.name, second.lines) == ("probe_01_long_sums.tflite", (5,))
    assert (second.latency_ms, second.energy_uj) == (pytest.approx(7), None)
    assert first.costs == costs_of(PROBES["probe_02_short_sums.tflite"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model,latency\na.tflite,1\n", r"units .* Received: 'latency'\. Call it latency_ms or latency_us"),
        ("model,latency_ms,energy\na.tflite,1,1\n", r"units .* Received: 'energy'\. Call it energy_uj\."),
        ("model,latncy_us\na.tflite,1\n", r"Received: 'latncy_us'\. Did you mean 'latency_us'\?"),
        ("model,latency_us,device\na.tflite,1,x\n", r"columns of table.csv` must be one of: cycles, energy"),
        ("model,latency_us,cycles\na.tflite,1,1\n", "each column once: model and one of latency_ms"),
        ("model,latency_us,latency_us\na.tflite,1,1\n", "each column once"),
        ("latency_us\n1\n", r"each column once: .* Received: latency_us\."),
        ("", r"each column once: .* Received: nothing\."),
        ("model,latency_us\n", "must hold 1 to 64 models. Received: 0"),
        ("model,latency_us\na.tflite,\n", "`latency_us` must be .* Received: nothing for a.tflite on line 2"),
        ("model,latency_us\na.tflite,1,2\n", "Received: 3 cells for 2 columns on line 2"),
        ("model,latency_us\na.tflite\n", "Received: 1 cells for 2 columns on line 2"),
        ('model,latency_us\na.tflite,"1,5"\n', "Received: 1,5 for a.tflite on line 2"),
        *(
            (f"model,latency_us\na.tflite,{bad}\n", f"above 0, at most 1e.12. Received: {bad} for")
            for bad in ("0", "-1", "nan", "inf", "1e13", "fast", "12 us")
        ),
        ("model,cycles,runs\na.tflite,1,0\n", "`runs` must be a number above 0, .* Received: 0 for a.tflite"),
        ("model,cycles,energy_uj\na.tflite,1,-3\n", "`energy_uj` must be a number above 0"),
        ("model,latency_ms\na.tflite,1\na.tflite,3.1\n", "1 ms on line 2 and 3.1 ms on line 3 for"),
        ("model,cycles,energy_uj\na.tflite,1,2\na.tflite,1,9\n", "2 uJ on line 2 and 9 uJ on line 3 for"),
        ("model,cycles\nnone.tflite,1\n", "can be counted. Received: none.tflite on line 2. .*none"),
        ("model,cycles\n../outside.tflite,1\n", "below the folder of table.csv. Received: '../outside.tf"),
        ("model,cycles\n/etc/passwd,1\n", "below the folder of table.csv"),
        ("model,cycles\n,1\n", "below the folder of table.csv. Received: ''"),
        ("model,cycles\n.,1\n", "can be counted"),
        ("model,cycles\na\0.tflite,1\n", "below the folder of table.csv"),
        (f"model,cycles\n{'x' * 5000},1\n", "can be counted"),
        ("model,cycles\ntable.csv,1\n", "can be counted. Received: table.csv on line 2"),
        ("model,cycles\nlink.tflite,1\n", "below the folder of table.csv. Received: 'link.tflite'"),
        ('model,cycles\n"a.tflite,1\n', "a table in UTF-8 with commas"),
        (b"model,cycles\n\xff,1\n", "a table in UTF-8 with commas"),
        (b"x" * (MAX_TABLE_BYTES + 1), "`table.csv` must be at most 1048576 bytes"),
        (
            "model,cycles\n" + "".join(f"{n}.tflite,1\n" for n in range(MAX_MODELS + 1)),
            "must hold 1 to 64 models. Received: 65",
        ),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_refused(tmp_path, text, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "outside.tflite").write_bytes(PROBES["probe_02_short_sums.tflite"])
    (folder / "link.tflite").symlink_to(tmp_path / "outside.tflite")
    with pytest.raises(InputError, match=f"(?s){message}"):
        read_measurements(written(folder, text), MHZ)


def unpriced() -> bytes:
    model = HandModel()
    window = model.window((1, 4))
    return model.finish({"out": model.operator("UNIQUE", [window], model.tensor((1, 4)))})


def float_model() -> bytes:
    model = HandModel()
    window = model.window((1, 4), dtype="FLOAT32", scale=None)
    weights = model.tensor((4, 4), "FLOAT32", values=np.ones((4, 4), np.float32), scale=None)
    output = model.tensor((1, 4), "FLOAT32", scale=None)
    return model.finish({"out": model.operator("FULLY_CONNECTED", [window, weights, -1], output)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (unpriced(), r"operators have a rule\. Received: a.tflite on line 2, with UNIQUE\. Take it out"),
        (float_model(), r"rates for INT8 only\. Received: FULLY_CONNECTED .* FLOAT32"),
    ],
)
def test_models_without_a_price_are_refused(tmp_path, content, message):
    path = written(tmp_path, "model,cycles\na.tflite,1\n")
    (tmp_path / "a.tflite").write_bytes(content)
    with pytest.raises(InputError, match=message):
        fitted(read_measurements(path, MHZ))


@pytest.mark.parametrize("field", ["clock_mhz", "flash_bytes", "ram_bytes", "supply_v"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_figures_of_the_board_are_above_0(field, value):
    with pytest.raises(InputError, match=rf"`{field}` must be .* above 0. Received: {value}\. .*\(`--"):
        replace(BOARD, **{field: value})


def test_a_name_that_is_no_file_name_is_refused():
    with pytest.raises(InputError, match="at name: String should match pattern"):
        fit_device(
            measured({"probe_05_dense.tflite": 1e6}), replace(BOARD, name="My board"), relative(),
            version="1", source="table.csv", date="2026-11",
        )  # fmt: skip


# The command


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with the probe set, measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEXIT_DEBUG", raising=False)
    (tmp_path / "probes").mkdir()
    lines = ["model,latency_us,energy_uj"]
    for name, cycles in cycles_on(board_theta(2), PROBES, noise=0.05).items():
        (tmp_path / "probes" / name).write_bytes(PROBES[name])
        lines.append(f"{name},{cycles / MHZ:.2f},{cycles / MHZ * 33e-3:.4g}")
    (tmp_path / "probes" / "measurements.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def mexit(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_fit_writes_a_device_and_says_how_well_it_estimates(here):
    result = mexit("device", "fit", "probes/measurements.csv", *NEEDED, "--title", "My [board]")
    assert result.exit_code == 0, result.output
    device = parse_device((here / "my-board.toml").read_text())
    assert (device.name, device.title, device.core, device.clock_mhz.value) == (
        "my-board",
        "My [board]",
        "Cortex-M4F",
        80,
    )
    assert (device.flash_bytes.value, device.ram_bytes.value, device.supply_v.value) == (
        1 << 20,
        1 << 18,
        3.3,
    )
    assert device.stack("tflm-cmsis-nn").active_power_mw.value == pytest.approx(33, rel=0.01)
    text = " ".join(result.stdout.split())
    for heading in (
        "My [board]: tflm-cmsis-nn, 8 measured models",
        "measured",
        "estimated",
        "left out",
        "+-",
        "The board takes",
        "times what others with this core and library do.",
        "mW: 33 [",
    ):
        assert heading in text
    for probe in probe_set():
        assert probe.name in text
    assert "mexit estimate MODEL --device ./my-board.toml" in text
    assert "Warning" not in text
    again = mexit("device", "fit", "probes/measurements.csv", *NEEDED)
    assert again.exit_code == 2
    assert "`my-board.toml` exists already" in again.output
    out = ("--out", "devices/other.toml", "--json", "--supply-v", 1.8, "--stack-version", "2024")
    facts = json.loads(mexit("device", "fit", "probes/measurements.csv", *NEEDED, *out).stdout)
    assert parse_device((here / "devices" / "other.toml").read_text()).stacks[0].version == "2024"
    assert [one["model"] for one in facts["models"]] == list(PROBES)
    assert {
        type(one[key]) for one in facts["models"] for key in ("measured_ms", "left_out_error_percent")
    } == {float}
    errors = [abs(one["left_out_error_percent"]) for one in facts["models"]]
    assert facts["mean_left_out_error_percent"] == pytest.approx(np.mean(errors))
    assert facts["half_width_percent"] > 0
    assert facts["file"] == "devices/other.toml"
    assert (facts["prior_core"], facts["warnings"]) == ("Cortex-M4F", [])
    assert mexit("device", "fit", "probes/measurements.csv", *NEEDED, "--overwrite").exit_code == 0


def test_fit_says_every_option_that_is_missing_and_writes_nothing(here):
    result = mexit("device", "fit", "probes/measurements.csv", "--core", "Cortex-M7", "--ram-kib", 64)
    assert result.exit_code == 2
    assert "Received: none for --name, --clock-mhz, --stack, --flash-kib." in result.output
    assert [path.name for path in here.iterdir()] == ["probes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--stack", "tflm-cmsis"), "Did you mean 'tflm-cmsis-nn'?"),
        (("--clock-mhz", 0), "`clock_mhz` must be a number above 0. Received: 0"),
        (("--flash-kib", 0), "(`--flash-kib`)"),
        (("--ram-kib", -3), "`ram_bytes` must be a number above 0"),
        (("--name", "my board"), "String should match pattern"),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_written(here, options, message):
    result = mexit("device", "fit", "probes/measurements.csv", *NEEDED, *options)
    assert result.exit_code == 2
    assert message in result.output
    assert [path.name for path in here.iterdir()] == ["probes"]


def table_of(here: Path, change: Callable[[str, float], float], n: int = 8) -> None:
    """Measure the first probes on a board as all others are together, with a mistake."""
    rows = [f"{name},{change(name, value)!r}\n" for name, value in list(usual().items())[:n]]
    (here / "probes" / "measurements.csv").write_text("".join(["model,cycles\n", *rows]))


def test_what_contradicts_is_refused_or_marked_and_told(here):
    wrong = "probe_03_pointwise.tflite"
    table_of(here, lambda name, value: value * (10 if name == wrong else 1))
    command = ("device", "fit", "probes/measurements.csv", *NEEDED)
    refused = mexit(*command)
    assert refused.exit_code == 2
    assert "--keep-contradictions" in refused.output
    assert not (here / "my-board.toml").exists()
    kept = mexit(*command, "--keep-contradictions")
    assert kept.exit_code == 0, kept.output
    lines = kept.stdout.splitlines()
    assert [line.split()[0] for line in lines if " * " in line] == ["probe_03_pointwise"]
    assert "* contradicts the others." in lines
    assert "Warning: `measurements` must not contradict each other" in " ".join(kept.stdout.split())
    facts = json.loads(mexit(*command, "--keep-contradictions", "--overwrite", "--json").stdout)
    assert [one["model"] for one in facts["models"] if one["contradicts"]] == [wrong]
    assert len(facts["warnings"]) == 1


def test_microseconds_under_milliseconds_are_refused(here):
    table_of(here, lambda name, value: 1e3 * value)
    result = mexit("device", "fit", "probes/measurements.csv", *NEEDED)
    assert result.exit_code == 2
    assert "microseconds under latency_ms" in " ".join(result.output.split())
    assert not (here / "my-board.toml").exists()


def test_one_model_leaves_its_error_unknown(here):
    table_of(here, lambda name, value: value, n=1)
    command = ("device", "fit", "probes/measurements.csv", *NEEDED, "--overwrite")
    text = " ".join(mexit(*command).stdout.split())
    assert "1 measured model " in text
    assert "How far off a model is when left out is unknown with one model." in text
    assert "(median)" not in text
    facts = json.loads(mexit(*command, "--json").stdout)
    assert facts["mean_left_out_error_percent"] is None
    assert facts["models"][0]["left_out_ms"] is facts["models"][0]["left_out_error_percent"] is None


def test_a_core_is_found_by_its_short_names_and_others_are_taken_with_a_word(here):
    command = ("device", "fit", "probes/measurements.csv", *NEEDED, "--overwrite", "--core")
    assert json.loads(mexit(*command, "m4", "--json").stdout)["prior_core"] == "Cortex-M4F"
    assert parse_device((here / "my-board.toml").read_text()).core == "Cortex-M4F"
    text = " ".join(mexit(*command, "Cortex-M85").stdout.split())
    assert "No published figures for core 'Cortex-M85' with tflm-cmsis-nn: those of all cores" in text
    assert "times what others with this library do." in text
    assert "this core" not in text
    assert parse_device((here / "my-board.toml").read_text()).core == "Cortex-M85"


def test_the_help_names_the_known_cores():
    assert ", ".join(known_cores()) == CORES


def test_every_family_takes_measurements_of_a_board_unlike_its_own(here):
    models = read_measurements(here / "probes" / "measurements.csv", MHZ)[::3]
    for one in (one for one in relatives() if one.core is None):
        device = fitted(models, one.stack, keep=True).device
        assert parse_device(device_toml(device)) == device


def test_probes_writes_a_folder_and_says_what_comes_next(here):
    result = mexit("device", "probes", "--out", "more")
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "Written: more" in text
    command = text[text.index("mexit device fit ") :]
    assert command == (
        "mexit device fit more/measurements.csv --name NAME --core CORE --clock-mhz MHZ --stack STACK "
        "--flash-kib KIB --ram-kib KIB"
    )
    assert all(probe.name in text for probe in probe_set())
    assert (here / "more" / "main.cc").is_file()
    again = mexit("device", "probes", "--out", "more")
    assert (again.exit_code, "`more` exists already" in again.output) == (2, True)
    assert mexit("device", "probes", "--out", "more", "--overwrite").exit_code == 0


@pytest.mark.parametrize("command", ["fit", "probes"])
def test_the_help_has_an_example(command):
    result = mexit("device", command, "--help")
    assert result.exit_code == 0
    assert f"Example: mexit device {command} " in " ".join(result.stdout.split())
