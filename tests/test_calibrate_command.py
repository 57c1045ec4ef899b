"""`mexit calibrate`: goals and options as a user types them, what is written, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from fixtures_networks import SENSOR, bundle_of, hand_whole, synthetic_windows
from typer.testing import CliRunner

from mexit_edge.bundle import Bundle, Training, load_policy
from mexit_edge.cli.app import app
from mexit_edge.cli.calibrate_request import OPTIONS, CalibrateRequest, parse_temporal, parse_thresholds
from mexit_edge.errors import InputError
from mexit_edge.exits import NEVER
from mexit_edge.signals import Windows


@pytest.fixture(scope="module")
def windows() -> Windows:
    return synthetic_windows(400, seed=21, noise=1.5)


@pytest.fixture
def here(command_folder: Path, windows: Windows) -> Path:
    """A folder with a bundle, and calibration windows as counts and as floats."""
    bundle_of(hand_whole(), training=Training(data="other", train_subjects=(0,))).save("hand.mexit")
    np.savez("own.npz", x=windows.x, y=windows.y, subject=windows.subject)
    np.savez("counts.npz", x=windows.counts(), y=windows.y)
    return command_folder


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["calibrate", *arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_a_bundle_with_its_policy_and_golden_vectors_is_written(here):
    said = run("hand.mexit", "--windows", "own.npz", "--max-drop", "0.05")
    made = Bundle.load("hand-calibrated.mexit")
    assert made.golden is not None
    policy = made.manifest.policy
    assert policy.calibration.max_drop == 0.05
    assert policy.calibration.data == "own"
    for exit_, threshold in zip(("exit_01", "exit_02"), policy.thresholds_int, strict=True):
        assert f"{exit_} │ " in said
        assert f" {threshold:,} " in said or threshold == NEVER
    assert "least macs with a loss of at most 5.00 points" in said
    assert "Written: hand-calibrated.mexit" in said
    # Never over something: the next one has another name.
    assert "hand-calibrated-2.mexit" in run("hand.mexit", "--windows", "counts.npz", "--max-drop", "0.05")


def test_json_says_the_policy_its_costs_and_the_curve(here):
    result = CliRunner().invoke(
        app, ["calibrate", "hand.mexit", "--windows", "own.npz", "--json", "--policy-out", "policy.json"]
    )
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    bundle = load_policy(Bundle.load("hand.mexit"), "policy.json")
    assert facts["policy"] == bundle.manifest.policy.model_dump(mode="json")
    assert list(facts["costs"].values()) == [1000, 3000, 6000]
    assert len(facts["curve"]) == 39
    assert not Path("hand-calibrated.mexit").exists()


def test_the_curve_is_a_tidy_csv_and_a_picture(here):
    pytest.importorskip("matplotlib")
    run(
        "hand.mexit",
        "--windows",
        "own.npz",
        "--curve",
        "c.csv",
        "--figure",
        "f.png",
        "--policy-out",
        "p.json",
    )
    rows = list(csv.DictReader(Path("c.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 39
    assert {row["cost_unit"] for row in rows} == {"macs"}
    shares = [float(rows[0][f"share_exit_0{number}"]) for number in (1, 2, 3)]
    assert sum(shares) == pytest.approx(1)
    assert Path("f.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--floor", "0.5"], "balanced accuracy of at least 0.5000"),
        (["--budget", "2500"], "within 2,500 macs in the mean"),
        (["--ratio", "0.5"], "shares of windows that change by 0.5"),
        (["--eps", "0.1", "--method", "crc"], "a performance_gap of at most 0.1 by crc"),
        (["--eps", "0.05", "--unit", "subject"], "No level passes (ucb, eps 0.05"),
        (["--thresholds", "exit_01=12,exit_02=0.5"], "Set for nothing: they were given"),
        (["--off", "exit_01"], "exit_01 │ off"),
        (["--score", "max_prob", "--temperatures"], "temperature"),
        (["--score", "vote", "--score-option", "lambda=0.3"], "vote on 400 windows"),
        (["--device", "nucleo-u575zi", "--cost", "energy_uj"], "estimated_energy_uj on nucleo-u575zi"),
        (["--temporal", "majority:n=3"], "Over a stream: majority:n=3."),
        (["--online-budget", "2500"], "A controller holds 2,500 macs in the mean"),
    ],
)
def test_every_goal_and_option_is_said_back(here, options, said):
    assert said in run("hand.mexit", "--windows", "own.npz", "--policy-out", "p.json", *options)


def test_a_threshold_that_few_windows_hold_is_said_so(here, windows):
    few = windows.take(np.arange(20))
    np.savez("few.npz", x=few.x, y=few.y)
    said = run(
        "hand.mexit", "--windows", "few.npz", "--thresholds", "exit_01=3,exit_02=3", "--policy-out", "p"
    )
    assert "NOT SUPPORTED: exit_01" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--floor", "0.5", "--budget", "9"], "one goal must be given at most"),
        (["--floor", "0.9999"], "`--floor` must not be above"),
        (["--budget", "10"], "`--budget` must be at least"),
        (["--thresholds", "exit_01=1"], "`--thresholds` needs one value per early exit that is on (2"),
        (["--thresholds", "exit_01=x"], "`--thresholds` must be EXIT=VALUE"),
        (["--score", "marging"], "Did you mean 'margin'"),
        (["--score", "vote", "--score-option", "lamda=.5"], "Did you mean 'lambda'"),
        (["--method", "ltd", "--eps", "0.1"], "Did you mean 'ltt'"),
        (["--cost", "energy_uj"], "`--device` must be given for the cost energy_uj"),
        (["--device", "nucleo-l4"], "`--device` must be one of"),
        (["--temporal", "majority:m=3"], "majority` must be one of: n"),
        (["--temporal", "majority:n=x"], "`--temporal` must be RULE"),
        (["--temporal", "majority:n=1000000000"], "whole number from 1 to 255"),
        (["--temporal", "majority", "--temporal", "skip"], "only the first may skip"),
        (["--ratio", "0.0001"], "`--ratio` must lie between 1/64 and 64"),
        (["--budget", "inf"], "`--budget` must be finite"),
        (["--thresholds", "exit_01=99999999999,exit_02=1"], "`--thresholds` must lie within 32 bits"),
        (["--online-budget", "2500", "--online-horizon", "1"], "`--online-horizon` must be at least"),
        (["--data", "hapt"], "must not be given together"),
        (["--out", "x.mexit", "--policy-out", "p.json"], "takes the place of `--out`"),
        (["--figure", "x.gif"], "`--figure` must end in .png or .svg"),
        (["--curve", "own.npz"], "exists"),
    ],
)
def test_what_is_wrong_is_refused_in_the_options_words(here, options, message):
    out = [] if "--policy-out" in options else ["--policy-out", "p.json"]
    assert message in run("hand.mexit", "--windows", "own.npz", *out, *options, code=2)
    assert not Path("p.json").exists()


def test_windows_of_subjects_that_were_trained_on_are_refused(here, windows):
    bundle_of(hand_whole(), training=Training(data="own", train_subjects=(1,))).save("seen.mexit")
    assert "from its training set" in run("seen.mexit", "--windows", "own.npz", code=2)
    empty = windows.take(np.zeros(0, int))
    np.savez("empty.npz", x=empty.x, y=empty.y)
    assert "at least one window" in run("hand.mexit", "--windows", "empty.npz", code=2)
    one = windows.take(windows.y == 0)
    np.savez("one.npz", x=one.x, y=one.y)
    assert "at least two classes" in run("hand.mexit", "--windows", "one.npz", code=2)
    np.savez("narrow.npz", x=windows.x[:, :, :2], y=windows.y)
    assert f"{SENSOR.channels}"[:6] in run("hand.mexit", "--windows", "narrow.npz", code=2)


def test_values_are_steps_or_units():
    assert parse_thresholds("exit_01=16, exit_02=0.5") == {"exit_01": 16, "exit_02": 0.5}
    assert isinstance(parse_thresholds("exit_01=16")["exit_01"], int)
    assert isinstance(parse_thresholds("exit_01=16.0")["exit_01"], float)
    for text in ("", "exit_01", "exit_01=1,exit_01=2", "=3", "exit_01=nan"):
        with pytest.raises(InputError, match="`--thresholds` must be EXIT=VALUE"):
            parse_thresholds(text)


def test_rules_over_streams():
    assert parse_temporal("skip:stable=3,skip=4").options == {"stable": 3, "skip": 4}
    assert parse_temporal("hysteresis").options == {}


def test_every_goal_has_the_name_of_its_option():
    goals = CalibrateRequest(goals={"floor": 0.9}).goal()
    assert goals.balanced_accuracy == 0.9
    assert {"floor", "budget", "max_drop"} <= set(OPTIONS)
