"""The command line: honest exit codes, messages that help, and nothing written by a command that refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures_networks import bundle_of, hand_whole, synthetic_windows
from typer.testing import CliRunner

import mexit_edge
from mexit_edge.bundle import Bundle
from mexit_edge.cli.app import app
from mexit_edge.cli.progress import JobProgress
from mexit_edge.cli.run import RunSettings
from mexit_edge.cli.tables import console
from mexit_edge.data import DATASETS
from mexit_edge.errors import InputError, MissingExtraError, RunError
from mexit_edge.estimate import device_names
from mexit_edge.simulate import make_golden

# By hand: their own room imports TensorFlow.
REGIME_NAMES = [
    *("1-2-3", "2-3", "alternating", "boosted", "consistency", "disjoint", "distill", "joint", "layerwise"),
    *("mixed", "weighted"),
]
WORK = {
    "run": ("mexit_edge.cli.run.run_and_print", []),
    "bench": ("mexit_edge.cli.bench.bench_and_print", []),
    "analyze": ("mexit_edge.cli.analyze.analyze_and_print", ["a.keras"]),
    "calibrate": ("mexit_edge.cli.calibrate.calibrate_and_print", ["a.mexit"]),
    "simulate": ("mexit_edge.cli.simulate.simulate_and_print", ["a.mexit"]),
    "train": ("mexit_edge.cli.train.train_and_print", []),
    "verify": ("mexit_edge.cli.verify.verify_and_print", ["a.mexit"]),
    "cut": ("mexit_edge.cli.cut.cut_and_print", ["a.tflite"]),
    "export": ("mexit_edge.cli.export.export_and_print", ["a.keras"]),
    "prune": ("mexit_edge.cli.prune.prune_and_print", ["a.keras"]),
    "cluster": ("mexit_edge.cli.cluster.cluster_and_print", ["a.keras"]),
    "quantize-aware": ("mexit_edge.cli.quantize_aware.quantize_aware_and_print", ["a.keras"]),
    "inspect": ("mexit_edge.cli.inspect.inspect_and_print", ["a.mexit"]),
    "models": ("mexit_edge.cli.models.models_and_print", []),
    "estimate": ("mexit_edge.cli.estimate.estimate_and_print", ["a.tflite"]),
    "devices": ("mexit_edge.cli.devices.devices_and_print", []),
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """Run in an empty folder, so that whatever is written shows."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MEXIT_DEBUG", raising=False)
    return folder


def mexit(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def raising(error: BaseException):
    def raise_it(*arguments, **options):
        raise error

    return raise_it


def test_without_a_command_the_help_is_shown():
    result = mexit()
    assert "Usage: " in result.output
    assert all(name in result.output for name in WORK)


@pytest.mark.parametrize("command", sorted(WORK))
def test_every_command_has_help_with_an_example(command):
    result = mexit(command, "--help")
    assert result.exit_code == 0
    assert f"Example: mexit {command} " in result.stdout


def test_these_tests_know_every_command():
    names = [command.callback.__name__.replace("_", "-") for command in app.registered_commands]
    assert set(names) == set(WORK)
    shown = mexit("--help").stdout
    assert re.findall(rf"^. ({'|'.join(names)})  ", shown, re.MULTILINE) == [
        *("run", "train", "bench", "analyze", "calibrate", "simulate", "estimate", "devices", "inspect"),
        *("verify", "models", "cut", "export", "prune", "cluster", "quantize-aware"),
    ]


def test_the_help_states_the_exit_codes():
    assert "0 done, 1 failed" in " ".join(mexit("--help").stdout.split())


def test_version_prints_the_version():
    result = mexit("--version")
    assert result.exit_code == 0
    assert result.stdout.strip() == mexit_edge.__version__


# Wrong input: exit code 2, and nothing written


@pytest.mark.parametrize(
    ("option", "received", "known", "nearest"),
    [
        ("--data", "hatp", sorted(DATASETS), "hapt"),
        ("--data", "wacth", sorted(DATASETS), "watch"),
        ("--device", "nucleo-l4r5zj", sorted(device_names()), "nucleo-l4r5zi"),
        ("--backbone", "dcsnn", ["cnn", "dscnn"], "dscnn"),
        ("--regime", "jiont", REGIME_NAMES, "joint"),
    ],
)
def test_an_unknown_name_lists_the_known_and_suggests_the_nearest(here, option, received, known, nearest):
    result = mexit("run", option, received)
    assert result.exit_code == 2
    assert f"`{option.removeprefix('--')}` must be one of: " in result.stderr
    assert all(name in result.stderr for name in known)
    assert f"Received: {received!r}. Did you mean {nearest!r}?" in result.stderr
    assert result.stdout == ""
    assert list(here.iterdir()) == []


def test_an_unknown_data_set_is_refused_by_simulate_too(here, tiny_bundle):
    tiny_bundle.save("tiny.mexit")
    result = mexit("simulate", "tiny.mexit", "--data", "hatp")
    assert result.exit_code == 2
    assert "Did you mean 'hapt'?" in result.stderr


@pytest.mark.parametrize("max_drop", ["-0.01", "1.5", "nan", "five"])
def test_a_limit_that_is_no_share_is_refused(here, max_drop):
    result = mexit("run", "--max-drop", max_drop)
    assert result.exit_code == 2
    assert "--max-drop" in result.stderr
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input-limit", "0"], "`--input-limit` must be positive and finite"),
        (["--input-limit", "inf"], "`--input-limit` must be positive and finite"),
        (["--input-limit", "4", "--qat"], "`--input-limit` must be left out with `--qat`"),
    ],
)
def test_a_limit_of_inputs_that_cannot_be_is_refused(here, options, message):
    result = mexit("run", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--epochs", "0"],
        ["run", "--seed", "-1"],
        ["run", "--unheard-of"],
        ["run", "surplus"],
        ["simulate"],
        ["inspect"],
        ["unheard-of"],
    ],
)
def test_options_that_do_not_parse_give_exit_code_2(here, arguments):
    assert mexit(*arguments).exit_code == 2
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("out", ["mine.mexit", "mine.zip", "mine"])
def test_an_existing_bundle_is_refused_before_the_work_begins(here, tiny_bundle, monkeypatch, out):
    monkeypatch.setattr("mexit_edge.cli.run.run", raising(AssertionError("the work has begun")))
    path = tiny_bundle.save(out)
    before = path.read_bytes() if path.is_file() else None
    result = mexit("run", "--out", out)
    assert result.exit_code == 2
    assert "exists already" in result.stderr
    assert "--overwrite" in result.stderr
    assert [entry.name for entry in here.iterdir()] == [path.name]
    assert before is None or path.read_bytes() == before


def test_with_overwrite_an_existing_bundle_is_no_obstacle(tiny_bundle, monkeypatch):
    monkeypatch.setattr("mexit_edge.cli.run.run", raising(RunError("the work has begun")))
    tiny_bundle.save("mine.mexit")
    result = mexit("run", "--out", "mine.mexit", "--overwrite")
    assert (result.exit_code, "the work has begun" in result.stderr) == (1, True)


@pytest.mark.parametrize("command", ["inspect", "simulate"])
def test_a_bundle_that_is_not_there_is_refused(here, command):
    result = mexit(command, "nothing.mexit")
    assert result.exit_code == 2
    assert "Error: `path` must be a bundle" in result.stderr
    assert "Received: nothing.mexit" in result.stderr
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("command", ["inspect", "simulate"])
def test_a_bundle_with_a_changed_byte_is_refused(tiny_bundle, command):
    stage = tiny_bundle.save("tiny.mexit") / "stage_02.tflite"
    content = bytearray(stage.read_bytes())
    content[7] ^= 1
    stage.write_bytes(content)
    result = mexit(command, "tiny.mexit")
    assert result.exit_code == 2
    assert "`stage_02.tflite` must have the sha256" in result.stderr
    assert result.stdout == ""


# Settings of a run


@pytest.mark.parametrize(
    ("out", "path"),
    [("a.mexit", "a.mexit"), ("a.zip", "a.zip"), ("a", "a.mexit"), ("deep/a.v2", "deep/a.v2.mexit")],
)
def test_out_names_a_bundle(here, out, path):
    assert Bundle.check_target(RunSettings(out=Path(out)).target) == Path(path)


def test_without_out_a_free_name_is_taken(here):
    assert RunSettings().target == Path("tflite_models/hapt.mexit")
    (here / "tflite_models" / "hapt.mexit").mkdir(parents=True)
    assert RunSettings().target == Path("tflite_models/hapt-2.mexit")
    assert RunSettings(data="watch").target == Path("tflite_models/watch.mexit")


def test_quick_shortens_the_training_unless_epochs_are_given():
    assert RunSettings(quick=True).n_epochs < RunSettings().n_epochs
    assert RunSettings(quick=True, epochs=7).n_epochs == 7


# What goes wrong while it runs


@pytest.mark.parametrize("command", sorted(WORK))
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("`x` must be y."), 2, "Error: `x` must be y."),
        (MissingExtraError("matplotlib", "report"), 2, "pip install 'mexit-edge[report]'"),
        (KeyboardInterrupt(), 130, "Interrupted. What was there before is still whole."),
        (RunError("the converter crashed"), 1, "Failed: RunError: the converter crashed"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (ValueError("shapes differ"), 1, "Failed: ValueError: shapes differ"),
        (MemoryError(), 1, "Failed: MemoryError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_is_raised_becomes_a_message_and_an_exit_code(monkeypatch, command, error, code, message):
    inner, arguments = WORK[command]
    monkeypatch.setattr(inner, raising(error))
    result = mexit(command, *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_for_debugging_the_error_itself_comes_through(monkeypatch):
    monkeypatch.setenv("MEXIT_DEBUG", "1")
    monkeypatch.setattr(WORK["inspect"][0], raising(RunError("deep inside")))
    result = mexit("inspect", "a.mexit")
    assert isinstance(result.exception, RunError)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(30)", 130),
        ("raise RuntimeError('no')", 1),
        ("raise InputError('no')", 2),
        ("return None", 0),
    ],
)
def test_the_process_ends_with_the_exit_code(body, code):
    # A real process and a real signal: the runner above calls the commands in this one. A shell starts its
    # background jobs with interrupts ignored, which children inherit: that would hide the signal.
    script = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import mexit_edge.cli.inspect as room\n"
        "from mexit_edge.cli import main\n"
        "from mexit_edge.errors import InputError\n"
        f"def work(*arguments, **options):\n    {body}\n"
        "room.inspect_and_print = work\n"
        "sys.argv = ['mexit', 'inspect', 'a.mexit']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


# Inspecting a whole bundle


def without_golden(bundle: Bundle) -> Bundle:
    """The stages are no models, so that golden vectors cannot be run."""
    return bundle.with_manifest(golden=None)


def test_inspect_shows_stages_and_policy_and_says_unknown(tiny_bundle):
    without_golden(tiny_bundle).save("tiny.zip")
    result = mexit("inspect", "tiny.zip")
    assert result.exit_code == 0, result.stderr
    for fact in (
        "tiny: stages",
        "exit_03",
        "2,048",
        "unknown",
        "Policy: logit_margin, integer thresholds 5, 3.",
    ):
        assert fact in result.stdout
    assert "No golden vectors." in result.stdout


def test_inspect_says_when_there_is_no_policy(tiny_bundle):
    without_golden(tiny_bundle).with_manifest(policy=None).save("tiny.mexit")
    assert "No policy: every window runs to the final exit." in mexit("inspect", "tiny.mexit").stdout


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_inspect_fails_when_golden_decisions_differ_after_printing_them(option):
    plain = bundle_of(hand_whole(), thresholds=(8, 10))
    whole = make_golden(plain, synthetic_windows(40), 8)
    whole.save("whole.mexit")
    assert mexit("inspect", "whole.mexit", *option).exit_code == 0
    engine = "litert-reference"
    labels = whole.golden.labels[engine].copy()
    labels[3] = (labels[3] + 1) % 4
    golden = replace(whole.golden, labels=whole.golden.labels | {engine: labels})
    plain.with_golden(golden).save("changed.mexit")
    result = mexit("inspect", "changed.mexit", *option)
    assert result.exit_code == 1
    assert "changed.mexit` must be reproduced. Received: others on litert-reference." in result.stderr
    if option:
        rows = {row["engine"]: row["decisions_wrong"] for row in json.loads(result.stdout)["golden"]}
        assert rows == dict.fromkeys(golden.labels, 0) | {engine: 1}
    else:
        assert "Golden vectors, litert-reference: 1 of 8 decisions differ." in result.stdout


def test_inspect_shows_a_name_as_it_is(tiny_bundle):
    without_golden(tiny_bundle).with_manifest(name="[/red]").save("tiny.mexit")
    result = mexit("inspect", "tiny.mexit")
    assert (result.exit_code, "[/red]: stages" in result.stdout) == (0, True)


def test_inspect_as_json_prints_the_manifest_and_nothing_else(tiny_bundle):
    bundle = without_golden(tiny_bundle)
    bundle.save("tiny.mexit")
    result = mexit("inspect", "tiny.mexit", "--json")
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert set(facts) == {"manifest", "memory", "golden", "golden_tensors"}
    assert facts["manifest"] == bundle.manifest.model_dump(mode="json")
    assert (facts["golden"], facts["golden_tensors"]) == ([], None)
    assert result.stderr == ""


# Progress


def test_steps_and_epochs_print_a_line_each_where_there_is_no_terminal(capsys):
    progress = JobProgress(console(quiet=False))
    with progress.step("Reading"):
        pass
    with progress.training(2) as lines:
        for epoch in (1, 2):
            figures = {"loss": 0.5, "exit_01_accuracy": 0.75, "exit_02_accuracy": 0.875}
            lines.epoch_done(epoch, figures | {"val_exit_01_accuracy": 0.625, "val_exit_02_accuracy": 0.8})
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith("Reading: 0.0 s epoch 1/2")
    for line in shown.split("epoch ")[1:]:
        assert all(figure in line for figure in ("loss 0.500", "0.625", "0.800", "left"))
    assert shown.count("epoch ") == 2
    assert set(progress.seconds) == {"Reading", "Training"}


def test_the_time_left_counts_the_epochs_of_this_process_alone(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("mexit_edge.cli.progress.time.perf_counter", lambda: now[0])
    with JobProgress(console(quiet=False)).training(20) as lines:
        # Eleven epochs were done before the interrupt; each takes ten seconds.
        for epoch in (12, 13):
            now[0] += 10.0
            lines.epoch_done(epoch, {"loss": 0.5, "exit_01_accuracy": 0.75})
    shown = capsys.readouterr().out
    assert re.findall(r"epoch (\d+)/20.*about (\d+) s left", shown) == [("12", "80"), ("13", "70")]


def test_where_json_is_asked_for_people_read_standard_error(capsys):
    console(quiet=True).print("progress")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "progress\n")


def test_a_target_that_cannot_be_written_is_refused_before_the_work(here):
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("precious")
    (here / "mine").rename(here / "mine.mexit")
    result = mexit("run", "--out", "mine.mexit", "--overwrite")
    assert result.exit_code == 2
    assert "must be an existing bundle" in result.stderr
    (here / "file").write_text("")
    result = mexit("run", "--out", "file/inside.mexit")
    assert result.exit_code == 2
    assert "must lie in a folder" in result.stderr


@pytest.mark.parametrize("error", [KeyError("x"), ImportError("y"), TypeError("z")])
def test_any_other_failure_is_one_message_and_code_1(here, monkeypatch, error):
    def fail(*_arguments, **_options):
        raise error

    monkeypatch.setattr("mexit_edge.cli.inspect.inspect_and_print", fail)
    result = mexit("inspect", "x.mexit")
    assert result.exit_code == 1
    assert f"Failed: {type(error).__name__}" in result.stderr


def test_a_seed_that_keras_refuses_is_refused_at_once(here):
    result = mexit("run", "--seed", str(2**32))
    assert result.exit_code == 2
