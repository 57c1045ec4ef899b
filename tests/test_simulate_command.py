"""`mexit simulate`: one's own streams and those of a data set; what is said, written, watched and refused."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from fixtures_networks import CLASSES, N_CLASSES, SENSOR, bundle_of, hand_whole, with_policy
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from mexit_edge.bundle import Bundle, ControllerSpec, TemporalSpec, Training, save_policy
from mexit_edge.cli.app import app
from mexit_edge.cli.simulate_faults import health_of, parse_brown_out
from mexit_edge.cli.simulate_watch import Seen, Watch, in_time, sparkline
from mexit_edge.data import DATASETS, DataSet, open_streams
from mexit_edge.errors import InputError
from mexit_edge.exits import NEVER, BudgetController, make_temporal
from mexit_edge.runtime import Runtime
from mexit_edge.signals import Recording, adapt, apply_faults, cut_windows, parse_fault
from mexit_edge.simulate import BrownOut, PlayOptions, Supply, play

ENGINE = ("--engine", "litert-reference")
DEVICE = "nucleo-l4r5zi"
N_WINDOWS = 60


def recording(n_windows: int = N_WINDOWS, seed: int = 0, subject: int = 3) -> Recording:
    """Stretches of one class each, in noise, that the hand-made network tells apart."""
    rng = np.random.default_rng(seed)
    n = (n_windows - 1) * SENSOR.hop + SENSOR.window
    y = np.repeat(rng.integers(0, N_CLASSES, n // 96 + 1), 96)[:n]
    shapes = np.random.default_rng(99).standard_normal((N_CLASSES, *SENSOR.shape))
    x = shapes[y, np.arange(n) % SENSOR.window] + 0.8 * rng.standard_normal((n, 3))
    return Recording(x.astype(np.float32), y, subject, SENSOR, f"made up {subject}")


def write_csv(
    path: str,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    channels: Sequence[str] = ("acc_x [g]", "acc_y [g]", "acc_z [g]"),
    rate_hz: float | None = 50.0,
) -> None:
    """Write samples with times (where there is a rate) and names of classes (where there are labels)."""
    headings = [*(["time_s"] if rate_hz else []), *channels, *(["label"] if y is not None else [])]
    lines = [",".join(headings)]
    for row, sample in enumerate(x):
        cells = [f"{row / rate_hz:.4f}"] if rate_hz else []
        cells += [f"{value:.6g}" for value in sample]
        cells += [CLASSES[y[row]]] if y is not None else []
        lines.append(",".join(cells))
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """With thresholds at which windows leave at every exit."""
    plain = bundle_of(hand_whole(), training=Training(data="made_up", train_subjects=(1, 2)))
    windows = cut_windows([recording(100, seed=7)], CLASSES)
    open_ = with_policy(plain, "logit_margin", (NEVER, NEVER)).manifest.exit_rule()
    scores, _ = open_.score(Runtime(plain, ENGINE[1]).all_logits(windows.counts()))
    return with_policy(plain, "logit_margin", [int(np.quantile(one, 0.6)) for one in scores.T[:-1]])


@pytest.fixture
def here(command_folder: Path, bundle: Bundle) -> Path:
    """A folder with the bundle and a recording."""
    bundle.save("hand.mexit")
    one = recording()
    write_csv("walk.csv", one.x, one.y)
    return command_folder


def run(*arguments: object, code: int = 0, given: str | None = None) -> str:
    """Return what is said, on one line."""
    result = CliRunner().invoke(app, ["simulate", *map(str, arguments)], input=given)
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def facts(*arguments: object, given: str | None = None) -> dict:
    result = CliRunner().invoke(
        app, ["simulate", "hand.mexit", *map(str, arguments), *ENGINE, "--json"], input=given
    )
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# What comes out


def test_the_facts_are_those_of_play(here, bundle):
    found = facts(
        *("walk.csv", "--battery-mah", 200, "--rest", "sleep", "--sensor-mw", 0.5, "--waiting", 2),
        *("--fault", "dropped=0.05,burst=4", "--fault-seed", 7, "--temporal", "majority:n=3"),
        *("--brown-out", "0.2,boot_ms=5", "--max-fill", 1),
    )
    sensor = bundle.manifest.sensor.to_sensor()
    stream = adapt(open_streams("walk.csv", sensor, CLASSES)[0], sensor)
    options = PlayOptions(
        supply=Supply("sleep", 0.5, battery_mah=200),
        waiting=2,
        max_fill=1,
        temporal=(make_temporal("majority", n=3),),
        brown_out=BrownOut(share=0.2, boot_ms=5, seed=7),
    )
    faulty = apply_faults(stream, [parse_fault("dropped=0.05,burst=4", 7)])
    expected = play(bundle, [faulty], device=DEVICE, engine=ENGINE[1], options=options).summary
    assert found["outcomes"] == expected.outcomes
    assert found["reasons"] == expected.reasons
    assert found["reasons"]["missing samples"] > 0
    assert found["outcomes"]["resumed"] > 0
    assert sum(found["outcomes"].values()) == found["windows"] == N_WINDOWS
    assert tuple(found["exit_shares"].values()) == expected.exit_shares
    assert min(expected.exit_shares) > 0
    assert found["quality"]["reported"]["balanced_accuracy"] == expected.reported_quality.balanced_accuracy
    assert found["estimated_latency_ms"]["p95"]["value"] == expected.latency.p95.value
    assert found["estimated_energy_mj_per_hour"]["high"] == expected.energy.mj_per_hour.high
    assert found["estimated_battery_days"]["low"] == expected.energy.battery_days.low
    parts = sum(part["value"] for part in found["estimated_parts_mj_per_hour"].values())
    assert parts == pytest.approx(found["estimated_energy_mj_per_hour"]["value"])
    assert [one["name"] for one in found["side_by_side"]] == ["policy", "always_full", "single_exit"]
    assert found["side_by_side"][0]["mean_macs"] == found["mean_macs"]
    assert found["side_by_side"][1]["mean_macs"] > found["mean_macs"]
    assert found["conditions"]["faults"] == "dropped=0.05,burst=4"


def test_people_read_outcomes_latency_and_the_three_ways(here):
    said = run("hand.mexit", "walk.csv", *ENGINE, "--battery-mah", "200", "--fault", "nan=0.01")
    for words in (
        *("What became of the windows", "decided", "not finite", "Where computed windows left", "exit_02"),
        *(
            "Quality, decided: balanced accuracy 0.",
            "Quality, reported:",
            "latency p50, ms",
            "latency max, ms",
        ),
        *("utilisation, %", "energy, mJ per hour", "days on 200 mAh", "value [low, high]"),
        *("Side by side policy always full single exit", "mean MACs, 0 if not computed"),
        *("faults: nan=0.01", "seed of faults: 0", "battery: 200 mAh, 3 V", "recordings: whole"),
        "nobody can know",
    ):
        assert words in said


def test_standard_input_an_array_and_a_folder_play_the_same(here):
    one = recording()
    Path("day").mkdir()
    np.savez("day/a.npz", x=one.x, y=one.y)
    from_file = facts("walk.csv")
    from_pipe = facts("-", given=Path("walk.csv").read_text(encoding="utf-8"))
    from_folder = facts("day")
    for other in (from_pipe, from_folder):
        assert other["outcomes"] == from_file["outcomes"]
        assert other["exit_shares"] == from_file["exit_shares"]
    assert "a.npz does not say the channels and the units and the sampling rate: taken from" in " ".join(
        from_folder["notes"]
    )
    assert not any("taken from" in note for note in from_file["notes"])


def test_only_the_first_seconds_are_played(here):
    found = facts("walk.csv", "--limit-s", 10)
    assert found["windows"] == (500 - SENSOR.window) // SENSOR.hop + 1
    assert found["streams"][0]["recorded_s"] == pytest.approx(10, abs=SENSOR.hop / 50)
    assert found["source"] == "a recording of one's own, the first 10 s of each"
    assert found["conditions"]["recordings"] == "the first 10 s of each"
    assert facts("walk.csv", "--limit-s", 1e308)["windows"] == N_WINDOWS


def test_without_labels_and_without_a_device_nothing_is_made_up(here):
    write_csv("bare.csv", recording(8).x, rate_hz=None)
    found = facts("bare.csv", "--device", "none")
    assert found["device"] is None
    assert found["estimated_latency_ms"] is None
    assert found["estimated_energy_mj_per_hour"] is None
    assert found["quality"]["decided"]["balanced_accuracy"] is None
    said = run("hand.mexit", "bare.csv", "--device", "none", *ENGINE)
    assert "Quality, decided: unknown, as no window with a label was decided." in said
    assert "latency p50, ms unknown" in said
    assert "No device: no times" in said


def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the drawing out, which takes most of the time."""
    monkeypatch.setattr("mexit_edge.report.playback_page.render_playback_page", lambda **given: "page")


def test_a_folder_holds_windows_summary_and_page_and_is_not_replaced_unasked(here, monkeypatch):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    found = facts("walk.csv", "--out", "out", "--csv", "w.csv", "--page", "p.html", "--figure", "f.svg")
    assert sorted(one.name for one in Path("out").iterdir()) == ["page.html", "summary.json", "windows.csv"]
    assert found.pop("written") == ["out", "p.html", "w.csv", "f.svg"]
    assert json.loads(Path("out/summary.json").read_text(encoding="utf-8")) == found
    text = Path("out/windows.csv").read_text(encoding="utf-8")
    assert Path("w.csv").read_text(encoding="utf-8") == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == N_WINDOWS
    assert list(rows[0])[:5] == ["stream", "subject", "window", "start", "ready_s"]
    assert {row["label"] for row in rows} <= set(CLASSES)
    page = Path("p.html").read_text(encoding="utf-8")
    assert Path("out/page.html").read_text(encoding="utf-8") == page
    assert "walk.csv" in page
    assert b"<svg" in Path("f.svg").read_bytes()
    assert "exists already" in run("hand.mexit", "walk.csv", *ENGINE, "--out", "out", code=2)
    undrawn(monkeypatch)
    run("hand.mexit", "walk.csv", *ENGINE, "--out", "out", "--overwrite", "--limit-s", 10)
    assert len(Path("out/windows.csv").read_text(encoding="utf-8").splitlines()) < N_WINDOWS
    said = run("hand.mexit", "walk.csv", *ENGINE, "--out", "hand.mexit", "--overwrite", code=2)
    assert "an earlier simulation" in said
    assert Bundle.load("hand.mexit").manifest.name == "hand"


def test_watching_and_the_executed_way_change_nothing(here):
    ways = {
        "plain": (),
        "watched": ("--watch",),
        "paced": ("--watch", "--speed", "10000"),
        "executed": ("--executed",),
        "in sevens": ("--batch", "7"),
    }
    written = {}
    for name, options in ways.items():
        run(
            *("hand.mexit", "walk.csv", *ENGINE, "--csv", f"{name}.csv", "--fault", "nan=0.01"),
            *("--temporal", "skip:stable=2,skip=1", *options),
        )
        written[name] = Path(f"{name}.csv").read_text(encoding="utf-8")
    assert "skipped" in written["plain"]
    assert len(set(written.values())) == 1


def test_a_policy_of_its_own_takes_the_bundles_place(here, bundle):
    never = with_policy(bundle, "max_prob", (1 << 30, 1 << 30))
    save_policy(never, "policy.json")
    found = facts("walk.csv", "--policy", "policy.json")
    assert found["exit_shares"]["exit_03"] == 1
    assert found["conditions"]["policy"].startswith("max_prob")
    text = Path("policy.json").read_text(encoding="utf-8")
    Path("other.json").write_text(text.replace(bundle.manifest.stages[0].sha256, "0" * 64), encoding="utf-8")
    said = run("hand.mexit", "walk.csv", "--policy", "other.json", code=2)
    assert "`--policy` must be made for this bundle's stages" in said


def test_the_bundles_controller_is_used_unless_it_is_left_out(here, bundle):
    costs = bundle.manifest.cumulative_macs
    family = ((1 << 30, 1 << 30), (0, 0))
    controller = BudgetController(family, costs, 2500, horizon=50, tolerance=0.2)
    spec = ControllerSpec.of(controller, unit="macs", unit_cost=1.0)
    policy = bundle.manifest.policy.model_copy(update={"controller": spec})
    bundle.with_manifest(policy=policy, golden=None).save("held.mexit")
    held = CliRunner().invoke(app, ["simulate", "held.mexit", "walk.csv", *ENGINE, "--json"])
    assert held.exit_code == 0, held.output
    assert "holds 2,500 macs in the mean" in json.loads(held.stdout)["conditions"]["controller"]
    free = CliRunner().invoke(
        app, ["simulate", "held.mexit", "walk.csv", *ENGINE, "--json", "--no-controller"]
    )
    assert json.loads(free.stdout)["conditions"]["controller"] == "left out"
    assert json.loads(free.stdout)["exit_shares"] == facts("walk.csv")["exit_shares"]
    assert json.loads(held.stdout)["exit_shares"] != facts("walk.csv")["exit_shares"]


@pytest.fixture
def made_up_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set of six subjects, of whom the first two are the bundle's."""
    entry = DataSet(
        name="made_up",
        title="made up",
        licence="none",
        source="none",
        classes=CLASSES,
        official_test_subjects=(5, 6),
        load_recordings=lambda: [recording(30, seed=subject, subject=subject) for subject in range(1, 7)],
    )
    monkeypatch.setitem(DATASETS, "made_up", entry)


def test_a_data_sets_test_subjects_are_played_whole(here, made_up_data):
    found = facts("--play", "--data", "made_up")
    assert [one["subject"] for one in found["streams"]] == [5, 6]
    assert found["windows"] == 60
    # Windows in which the class changes are played too, and have no label.
    assert 0 < found["quality"]["decided"]["windows"] < 60
    assert not any("nobody can know" in note for note in found["notes"])
    assert found["source"] == "recordings of made_up's test subjects"
    assert found["conditions"]["seed of the split"] == "0"
    limited = facts("--play", "--data", "made_up", "--limit-s", 5)
    assert limited["source"] == "recordings of made_up's test subjects, the first 5 s of each"


def test_without_recordings_windows_are_evaluated_as_ever(here, made_up_data):
    found = facts("--data", "made_up")
    labelled = cut_windows([recording(30, seed=subject, subject=subject) for subject in (5, 6)], CLASSES)
    assert found["windows"] == len(labelled)
    assert list(found) == [
        *("engine", "data", "windows", "subjects", "exits", "policy", "oracle", "oracle_gap", "device"),
        *("stack", "estimate_notes"),
    ]


@pytest.mark.parametrize("options", [(), ("--play",)])
def test_subjects_that_the_bundle_has_seen_are_refused(here, bundle, made_up_data, options):
    training = Training(data="made_up", train_subjects=(1, 5))
    bundle.with_manifest(training=training).save("seen.mexit")
    said = run("seen.mexit", "--data", "made_up", *ENGINE, *options, code=2)
    assert "must come from subjects that are new to the bundle. Received: 5 of made_up" in said


# What does not fit


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("walk.csv", "--device", "nucleo-l4r5zj"), "Did you mean 'nucleo-l4r5zi'?"),
        (("walk.csv", "--engine", "litert-xnnpak"), "Did you mean 'litert-xnnpack'?"),
        (("walk.csv", "--fault", "droped=0.1"), "Did you mean 'dropped'?"),
        (
            ("walk.csv", "--fault", "stuck=acc_q,from_s=1,for_s=2"),
            "`channel` must be one of: acc_x, acc_y, acc_z",
        ),
        (("walk.csv", "--temporal", "majorty:n=3"), "`--temporal` must be one of"),
        (("walk.csv", "--temporal", "none", "--temporal", "majority"), "must stand alone"),
        (("walk.csv", "--rest", "slep"), "Did you mean 'sleep'?"),
        (("walk.csv", "--brown-out", "lots"), "`--brown-out` must be SHARE"),
        (("walk.csv", "--brown-out", "0.1,aftr=1"), "Did you mean 'after'?"),
        (("walk.csv", "--brown-out", "0.1,after=3"), "a number of stages from 1 to 2"),
        (("walk.csv", "--waiting", "-1"), "`--waiting` must be a number of windows"),
        (("walk.csv", "--waiting", 10**12), "`--waiting` must be a number of windows from 0 to 10,000"),
        (("walk.csv", "--batch", "0"), "`--batch` must be a number of windows from 1"),
        (("walk.csv", "--batch", 10**11), "`--batch` must be a number of windows from 1 to 65,536"),
        (("walk.csv", "--brown-out", "0.5,boot_ms=1e300"), "`boot_ms` from 0 to 3,600,000"),
        (("walk.csv", "--watch", "--speed", "1e-300"), "`--speed` must be from 0.01"),
        (("walk.csv", "--watch", "--speed", "nan"), "`--speed` must be from 0.01"),
        (("walk.csv", "--battery-v", "3"), "`--battery-v` needs `--battery-mah`"),
        (("walk.csv", "--battery-mah", "100", "--battery-v", "1"), "`--battery-v` must be at least"),
        (("walk.csv", "--limit-s", "0"), "`--limit-s` must be positive"),
        (("walk.csv", "--limit-s", "0.1"), "must be at least one window long"),
        (("walk.csv", "--watch", "--json"), "`--watch` and `--json` must not be given together"),
        (("walk.csv", "--speed", "2"), "`--speed` needs `--watch`"),
        (("walk.csv", "--figure", "f.pdf"), "`--figure` must end in .png or .svg"),
        (("walk.csv", "--page", "a.html", "--csv", "a.html"), "names of their own"),
        (("walk.csv", "--page", "walk.csv"), "exists already"),
        (("walk.csv", "--play"), "must not stand beside recordings"),
        (("walk.csv", "--data", "hapt"), "must not stand beside recordings"),
        (("--play", "--data", "hatp"), "Did you mean 'hapt'?"),
        (("--fault", "nan=0.1"), "`--fault` needs streams"),
        (("--watch",), "`--watch` needs streams"),
        (("--battery-mah", "100"), "`--battery-mah` needs streams"),
        (("nothing.csv",), "must be a file. Received: none of that name"),
        (("walk.txt",), "`RECORDING` must be .csv, .npy, .npz files, folders"),
        (("empty.csv",), "Received: "),
        (("empty",), "must hold .csv, .npy, .npz files. Received: none"),
        (("walk.csv", "--policy", "walk.csv"), "`--policy` must follow the schema"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(here, arguments, said):
    Path("empty.csv").write_text("", encoding="utf-8")
    Path("empty").mkdir()
    before = sorted(here.iterdir())
    assert said in run("hand.mexit", *arguments, code=2)
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("how", "option", "changed"),
    [
        ({"channels": ("acc_z [g]", "acc_x [g]", "acc_y [g]")}, "--reorder", "Reordered"),
        ({"channels": ("acc_x [m/s^2]", "acc_y [m/s^2]", "acc_z [m/s^2]")}, "--convert", "Converted"),
        ({"rate_hz": 100.0}, "--resample", "Resampled"),
    ],
)
def test_another_sensor_is_offered_what_fits_it_and_then_runs(here, how, option, changed):
    one = recording(20)
    write_csv("other.csv", one.x, one.y, **how)
    said = run("hand.mexit", "other.csv", *ENGINE, code=2)
    assert f"Allow it with `{option}`." in said
    found = facts("other.csv", option)
    assert found["notes"][0] == f"{changed} to the bundle's sensor: other.csv."
    assert found["windows"] == (9 if option == "--resample" else 20)


def test_a_sampling_rate_may_be_given(here):
    np.save("plain.npy", recording(20).x)
    assert "--resample" in run("hand.mexit", "plain.npy", *ENGINE, "--sampling-rate-hz", 25, code=2)
    assert facts("plain.npy", "--sampling-rate-hz", 25, "--resample")["windows"] > 35


def test_a_rate_that_is_taken_for_the_bundles_is_said(here):
    x = recording(20).x
    np.savez("slow.npz", x=x, sampling_rate_hz=49.6)
    found = facts("slow.npz")
    assert found["windows"] == 20
    assert found["notes"][0].startswith("slow.npz: 49.6 Hz, taken for the bundle's 50 Hz")
    np.savez("exact.npz", x=x, sampling_rate_hz=50)
    assert not any("taken for" in note for note in facts("exact.npz")["notes"])


@pytest.mark.parametrize(("heading", "unit_s", "unit"), [("timestamp", 1e-3, "ms"), ("time", 1e-6, "us")])
@pytest.mark.parametrize("options", [(), ("--resample",)])
def test_times_in_another_unit_are_not_resampled(here, heading, unit_s, unit, options):
    x = recording(30).x
    times = np.arange(len(x)) / 50 / unit_s
    rows = [f"{when:.6f},{','.join(map(str, sample))}" for when, sample in zip(times, x, strict=True)]
    lines = [f"{heading},acc_x (g),acc_y (g),acc_z (g)", *rows]
    Path("ms.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    said = run("hand.mexit", "ms.csv", *ENGINE, *options, code=2)
    assert f"Name it `{heading} ({unit})`" in said


def test_a_missing_channel_is_named(here):
    write_csv("two.csv", recording(4).x[:, :2], channels=("acc_x [g]", "acc_y [g]"))
    assert "without acc_z" in run("hand.mexit", "two.csv", code=2)


def test_samples_that_are_no_numbers_reject_their_windows(here):
    x = recording().x.copy()
    x[100:103, 1] = np.nan
    write_csv("holes.csv", x)
    found = facts("holes.csv")
    assert found["outcomes"]["rejected"] == found["reasons"]["not finite"] == 2
    assert found["outcomes"]["decided"] == N_WINDOWS - 2


def test_where_nothing_is_computed_the_terminal_says_so(here):
    said = run("hand.mexit", "walk.csv", *ENGINE, "--fault", "nan=1", "--sensor-mw", "0.5")
    assert "- No window was computed: there is no latency" in said
    assert "latency p50, ms -" in said
    assert "energy, mJ per hour unknown" not in said
    found = facts("walk.csv", "--fault", "nan=1", "--sensor-mw", 0.5)
    assert found["estimated_latency_ms"] is None
    assert found["estimated_parts_mj_per_hour"]["sensor"]["value"] == pytest.approx(1800)
    view = run("hand.mexit", "walk.csv", *ENGINE, "--fault", "nan=1", "--watch")
    assert "mean power" in view


def test_windows_at_the_limit_that_a_fault_names_are_rejected(here):
    found = facts("walk.csv", "--fault", "saturated=40,limit=0.2")
    assert found["reasons"]["saturated channel"] == N_WINDOWS
    assert "acc_x -0.2 to 0.2" in found["conditions"]["windows rejected for"]
    (one,) = (parse_fault("saturated=40,limit=0.2,channel=acc_y"),)
    limits = np.asarray(health_of([one], SENSOR).limits)
    np.testing.assert_array_equal(limits[1], [-0.2, 0.2])
    assert (np.abs(limits[[0, 2]]) > 1).all()
    assert health_of([parse_fault("nan=0.1"), parse_fault("saturated=2")], SENSOR) is None
    floats = replace(SENSOR, units_per_count=None)
    np.testing.assert_array_equal(health_of([one], floats).limits[0], [-np.inf, np.inf])


def test_a_device_that_cannot_keep_up_is_said_to_be_overloaded(here):
    own = files("mexit_edge.estimate").joinpath(f"devices/{DEVICE}.toml").read_text(encoding="utf-8")
    slow = own.replace("[clock_mhz]\nvalue = 120", "[clock_mhz]\nvalue = 0.05")
    slow = slow.replace("clock_choices_mhz = [26, 80]\n", "")
    assert slow.count("0.05") == own.count("0.05") + 1
    Path("slow.toml").write_text(slow, encoding="utf-8")
    found = facts("walk.csv", "--device", "slow.toml")
    assert found["estimated_utilisation"]["value"] > 1
    assert found["reasons"]["overrun"] > 0
    assert any(note.startswith("Overloaded: ") for note in found["notes"])


def test_powers_that_are_unknown_are_named(here):
    found = facts("walk.csv", "--device", "andes-d25f", "--rest", "sleep")
    assert found["unknown"] == ["active power", "sleep power", "wake-up time"]
    assert found["estimated_energy_mj_per_hour"] is None
    assert found["estimated_latency_ms"]["p50"]["value"] > 0
    note = "Unknown of andes-d25f: active power, sleep power, wake-up time, and with it the energy of an"
    assert f"{note} hour." in found["notes"]


# The live view


def interrupting(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Press Ctrl-C after so many batches."""
    seen = []
    look_on = Watch.on_batch

    def on_batch(self, batch, columns):
        seen.append(batch)
        look_on(self, batch, columns)
        if len(seen) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "on_batch", on_batch)


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Let the command write to what it takes for a terminal."""
    file = io.StringIO()
    screen = Console(file=file, force_terminal=True, width=120)
    monkeypatch.setattr("mexit_edge.cli.simulate.console", lambda quiet: screen)
    return file


@pytest.mark.parametrize("options", [(), ("--watch",)])
def test_a_name_that_reads_as_markup_is_a_name(here, monkeypatch, options):
    Path("day/a[").mkdir(parents=True)
    Path("walk.csv").rename("day/a[/b].csv")
    # Frames come at once, so that the name is drawn while it plays.
    monkeypatch.setattr("mexit_edge.cli.simulate_watch.FRAME_S", 0.0)
    screen = on_a_terminal(monkeypatch)
    run("hand.mexit", "day", *ENGINE, "--batch", "7", *options)
    assert "a[/b].csv" in screen.getvalue()


def test_an_interrupt_ends_with_what_was_played_so_far(here, monkeypatch):
    pytest.importorskip("matplotlib")
    undrawn(monkeypatch)
    interrupting(monkeypatch, after=3)
    write_csv("again.csv", recording(seed=1).x)
    arguments = ("hand.mexit", "walk.csv", "again.csv", *ENGINE, "--watch", "--batch", 30, "--out", "out")
    said = run(*arguments, code=130)
    assert "Interrupted in again.csv" in said
    found = json.loads(Path("out/summary.json").read_text(encoding="utf-8"))
    assert found["interrupted"]
    assert [one["windows"] for one in found["streams"]] == [N_WINDOWS, 30]
    assert found["streams"][0]["recorded_s"] == pytest.approx(((N_WINDOWS - 1) * 16 + 32) / 50)
    whole = facts("walk.csv", "again.csv")
    first = list(csv.DictReader(Path("out/windows.csv").read_text(encoding="utf-8").splitlines()))
    assert len(first) == N_WINDOWS + 30
    assert whole["interrupted"] is False


def test_an_interrupt_before_the_first_window_leaves_nothing(here, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("mexit_edge.cli.simulate_play.play", interrupted)
    said = run("hand.mexit", "walk.csv", *ENGINE, "--out", "out", code=130)
    assert "Interrupted. What was there before is still whole." in said
    assert not Path("out").exists()


def test_what_is_no_terminal_gets_a_line_per_second_at_most(here):
    result = CliRunner().invoke(
        app,
        ["simulate", "hand.mexit", "walk.csv", *ENGINE, "--watch", "--batch", "1", "--battery-mah", "100"],
    )
    lines = [line for line in result.stdout.splitlines() if " windows so far; " in line]
    # 19.5 s of windows, 0.32 s apart: the first one that is at least a second after the last one.
    assert 12 <= len(lines) <= 20
    last = lines[-1]
    for words in (
        "walk.csv",
        " at exit_0",
        "exit_01 ",
        " decided, ",
        "waiting, latest latency",
        "battery 99.",
    ):
        assert words in last


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_terminal_gets_waves_exits_and_the_battery(bundle, encoding):
    screen_file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    screen = Console(file=screen_file, force_terminal=True, width=100, height=40, highlight=False)
    stream = adapt(recording(40), SENSOR)
    faulty = [apply_faults(stream, [parse_fault("nan=0.01")])]
    options = PlayOptions(supply=Supply(battery_mah=100), batch=10)
    estimate = play(bundle, [recording(2)], device=DEVICE, engine=ENGINE[1], options=options).costs
    with Watch(bundle, faulty, estimate, options, screen, speed=None) as watch:
        play(bundle, faulty, device=DEVICE, engine=ENGINE[1], options=options, on_batch=watch.on_batch)
    screen_file.flush()
    shown = screen_file.buffer.getvalue().decode(encoding)
    for words in ("hand on nucleo-l4r5zi", "acc_x", " g", "exit_03", "rejected", "waiting", "battery 99."):
        assert words in shown
    assert ("█" in shown) == (encoding == "utf-8")
    # The picture is taken away whole at the end: the cursor comes back.
    assert "\x1b[?25h" in shown


def test_the_view_counts_what_the_summary_counts(bundle):
    seen = []

    options = PlayOptions(batch=7, brown_out=BrownOut(share=0.3, boot_ms=10))
    one = apply_faults(adapt(recording(40), SENSOR), [parse_fault("nan=0.01")])
    costs = play(bundle, [recording(2)], device=DEVICE, engine=ENGINE[1]).costs
    view = Seen(bundle, [one], costs, options)
    playback = play(
        bundle,
        [one],
        device=DEVICE,
        engine=ENGINE[1],
        options=options,
        on_batch=lambda batch, columns: (view.take(batch, columns), seen.append(view.line())),
    )
    counts = ", ".join(f"{count:,} {word}" for word, count in playback.summary.outcomes.items())
    assert counts in seen[-1]
    power = playback.summary.energy.per_window.estimated_mean_power_mw
    assert f"mean power {power.value:.3g} [" in seen[-1]


@given(st.lists(st.floats(-1e6, 1e6, width=32) | st.just(float("nan")), min_size=1, max_size=200))
def test_a_sparkline_is_as_wide_as_asked_and_rises_with_the_samples(values):
    samples = np.asarray(values, np.float32)
    ramp = " 12345678"
    line = sparkline(samples, ramp, width=300)
    assert len(line) == len(values)
    known = np.isfinite(samples)
    assert [mark == " " for mark in line] == (~known).tolist()
    heights = np.asarray([ramp.index(mark) for mark in line])[known]
    order = np.argsort(samples[known], kind="stable")
    assert (np.diff(heights[order]) >= 0).all()
    assert len(sparkline(samples, ramp, width=5)) == min(5, len(values))


def test_a_time_is_hours_minutes_and_seconds():
    assert in_time(3 * 3600 + 62.9) == "3:01:02"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.25", BrownOut(share=0.25, seed=4)),
        ("2%, after=1", BrownOut(share=0.02, after=1, seed=4)),
        ("1,boot_ms=2.5,damaged=0.5", BrownOut(share=1.0, boot_ms=2.5, damaged=0.5, seed=4)),
    ],
)
def test_a_brown_out_is_a_share_and_options(text, expected):
    assert parse_brown_out(text, seed=4) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "1.5", "nan", "0.1,after=x", "0.1,after", "0.5,boot_ms=1e300", "0.5,boot_ms=nan"]
)
def test_a_brown_out_that_is_none_is_refused(text):
    with pytest.raises(InputError):
        parse_brown_out(text, seed=0)


def test_temporal_rules_of_the_bundle_may_be_switched_off(here, bundle):
    policy = bundle.manifest.policy.model_copy(
        update={"temporal": (TemporalSpec(name="skip", options={"stable": 1, "skip": 3}),)}
    )
    bundle.with_manifest(policy=policy, golden=None).save("skips.mexit")
    for options, expected in (((), True), (("--temporal", "none"), False)):
        result = CliRunner().invoke(app, ["simulate", "skips.mexit", "walk.csv", *ENGINE, "--json", *options])
        assert (json.loads(result.stdout)["outcomes"]["skipped"] > 0) is expected
