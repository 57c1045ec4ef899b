"""Sweeps: what is asked for, the folder they go on in, and workers that die."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures_bench import save_windows
from typer.testing import CliRunner

from mexit_edge.benchmark import conduct as conducting
from mexit_edge.benchmark import pools
from mexit_edge.benchmark import worker as working
from mexit_edge.benchmark.conduct import conduct
from mexit_edge.benchmark.evaluation_log import EvaluationLog
from mexit_edge.benchmark.folder import (
    FAILED,
    LOCK,
    PAGE,
    RESULTS,
    STARTED,
    SWEEP,
    TEST_LOG,
    SweepFolder,
    is_full,
)
from mexit_edge.benchmark.pools import Pool, WorkersLostError
from mexit_edge.benchmark.record import RunRecord
from mexit_edge.benchmark.results import SUMMARY, write_results, write_tables
from mexit_edge.benchmark.rows import rows_of
from mexit_edge.benchmark.sweep import Run, Sweep, make_sweep, read_sweep
from mexit_edge.cli import app
from mexit_edge.errors import InputError, RunError

pytestmark = pytest.mark.train


def sweep_of(**changes: object) -> Sweep:
    facts = {
        "data": ["hapt"],
        "backbones": [{"name": "cnn", "preset": "tiny"}],
        "regimes": [{"name": "joint"}, {"name": "mixed"}],
        "seeds": [0, 1],
        "protocol": {"epochs": 2},
    }
    return make_sweep({**facts, **changes}, "the test")


def record_of(run: Run, n: int = 24) -> RunRecord:
    rng = np.random.default_rng(run.seed)
    y = np.arange(n) % 3
    return RunRecord(
        run=run,
        classes=("a", "b", "c"),
        exits=("exit_01", "exit_02"),
        subjects={"training": (1, 2), "validation": (3,), "calibration": (4,), "judged": (5, 6)},
        n_training_windows=100,
        y=y,
        subject=np.where(np.arange(n) < n // 2, 5, 6),
        float_logits=rng.normal(size=(n, 2, 3)).astype(np.float32),
        severities=(0.0, 3.0),
        int8_logits=rng.integers(-128, 128, (2, n, 2, 3)).astype(np.int8),
        calibration_y=y,
        calibration_logits=rng.integers(-128, 128, (n, 2, 3)).astype(np.int8),
        scales=(0.1, 0.1),
        thresholds=(50,),
        exit_macs=(1000, 5000),
        plain_macs=4900,
        training_cost=(
            {
                "phase": "joint",
                "forward_macs": 10,
                "backward_macs": 20,
                "measured_seconds": 1.5,
                "measured_peak_memory_bytes": None,
            },
        ),
        epochs=2,
        engine="litert-builtin",
        versions={"mexit-edge": "0.1.0"},
    )


# What is asked for


def test_every_combination_is_a_run_with_a_name_of_its_own() -> None:
    sweep = sweep_of(data=["hapt", "watch"], regimes=[{"name": "joint"}, {"name": "mixed", "seeds": [7]}])
    runs = sweep.runs()
    assert len(runs) == 2 * (2 + 1)
    assert len({run.key for run in runs}) == len(runs)
    assert {run.seed for run in runs if run.regime == "mixed"} == {7}


def test_out_of_fold_has_a_run_per_fold() -> None:
    runs = sweep_of(protocol={"judged_on": "out_of_fold", "folds": 4}).runs()
    assert sorted({run.fold for run in runs}) == [0, 1, 2, 3]
    assert len({run.key for run in runs}) == 2 * 2 * 4


def test_the_same_training_in_another_sweep_is_the_same_run() -> None:
    alone = sweep_of(regimes=[{"name": "mixed"}], seeds=[1]).runs()
    assert {run.key for run in alone} <= {run.key for run in sweep_of().runs()}
    own = sweep_of(regimes=[{"name": "mixed", "epochs": 2, "seeds": [1]}]).runs()
    assert [run.key for run in own] == [run.key for run in alone]
    whole = sweep_of(protocol={"epochs": 2, "qat_share": 0.2, "batch_size": 32}).runs()
    settings = {"qat_share": 0.2, "batch_size": 32}
    regimes = [{"name": name, "settings": settings} for name in ("joint", "mixed")]
    assert [run.key for run in sweep_of(regimes=regimes).runs()] == [run.key for run in whole]


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": {"epochs": 3}},
        {"protocol": {"epochs": 2, "engine": "litert-builtin"}},
        {"protocol": {"epochs": 2, "qat_share": 0.1}},
        {"protocol": {"epochs": 2, "mirror_axis": "x"}},
        {"protocol": {"epochs": 2, "input_limit": 4}},
        {"regimes": [{"name": "joint", "options": {"label_smoothing": 0.1}}, {"name": "mixed"}]},
        {"backbones": [{"name": "cnn", "preset": "tiny", "options": {"dropout": 0.1}}]},
    ],
)
def test_any_other_setting_is_another_run(changes: dict[str, object]) -> None:
    assert not {run.key for run in sweep_of(**changes).runs() if run.regime == "joint"} & {
        run.key for run in sweep_of().runs()
    }


def test_own_windows_are_known_by_what_they_hold(tmp_path: Path) -> None:
    here, there = tmp_path / "mine.npz", tmp_path / "elsewhere" / "mine.npz"
    there.parent.mkdir()
    for file in (here, there):
        save_windows(file)
    keys = [{run.key for run in sweep_of(data=[str(file)]).runs()} for file in (here, there)]
    assert keys[0] == keys[1]
    save_windows(there, n_subjects=9)
    assert not keys[0] & {run.key for run in sweep_of(data=[str(there)]).runs()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regimes": [{"name": "jiont"}]}, r"`regime` must be one of: .*Did you mean 'joint'"),
        ({"regimes": [{"name": "joint", "options": {"weak": "soft"}}]}, "option of joint"),
        ({"data": ["hpat"]}, r"`data` must be one of"),
        ({"backbones": [{"name": "cnn", "preset": "huge"}]}, "`preset` must be one of"),
        ({"backbones": [{"name": "cnn", "options": {"widht": 2}}]}, "Did you mean 'width'"),
        ({"protocol": {"engine": "tflite"}}, "`engine` must be one of"),
        ({"protocol": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"protocol": {"severities": [1, 2]}}, "begin with 0"),
        ({"regimes": [{"name": "mixed"}, {"name": "mixed", "options": {"shares": [1, 3]}}]}, "a `label`"),
        ({"seeds": [1, 1]}, "'1' stands twice; leave one out"),
        ({"data": ["a/mine.npz", "b/mine.npz"]}, "'mine' stands twice; leave one out, or rename a file"),
        ({"regimes": [{"name": "joint", "seeds": []}]}, r"seeds: Tuple should have at least 1 item"),
        ({"seeds": [-1]}, "seeds.0"),
        ({"regimes": []}, "at least 1 item"),
        ({"reference": "jiont"}, "`reference` must be one of: joint, mixed"),
        ({"protocol": {"equal_cost": True, "patience": 3}}, "equal_cost must be left out"),
        ({"protocol": {"equal_cost": True, "cross_fit": 3}}, "equal_cost must be left out"),
        ({"protocol": {"cross_fit": 3, "patience": 3}}, "patience must be left out"),
        (
            {"protocol": {"cross_fit": 3}, "regimes": [{"name": "joint", "settings": {"patience": 3}}]},
            "the regime 'joint' with its settings, at the protocol: patience must be left out",
        ),
        ({"protocol": {"equal_cost": True, "qat_share": 0.1}}, "qat_share must be left out"),
        (
            {"regimes": [{"name": "joint", "label": "mine", "settings": {"qat_share": 2}}]},
            "the regime 'mine' with its settings, at qat_share: Input should be less than",
        ),
        (
            {"regimes": [{"name": "joint", "settings": {"severities": [0]}}]},
            "settings must be of: batch_size",
        ),
        ({"protocol": {"perturbation_strength": 5}}, "perturbation_strength"),
        ({"protocol": {"mirror_axis": "w"}}, "mirror_axis"),
        ({"protocol": {"input_limit": 4, "qat_share": 0.1}}, "input_limit must be left out with qat_share"),
        (
            {"data": ["watch"], "seeds": [0], "protocol": {"judged_on": "out_of_fold"}},
            "`split_seed` must be given",
        ),
        ({"seeds": list(range(50_001))}, "at most 100,000 runs"),
        ({"data": ["missing.npz"]}, "No such file"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_does(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        sweep_of(**changes).runs()
    assert "Value error" not in str(caught.value)


@pytest.mark.parametrize(
    ("n_subjects", "protocol", "message"),
    [
        (0, {}, r"`data` must be a .npz of numbers"),
        (3, {}, r"every run. Received: .*mine.npz, seed 0: `windows` needs at least 4 subjects"),
        (4, {"training_subjects": 2}, "`training_subjects` must be at most"),
        (8, {"cross_fit": 7}, r"must be from 2 to the number of training subjects \(6\)"),
        (6, {"judged_on": "out_of_fold", "split_seed": 0, "folds": 5}, "number of training subjects"),
    ],
)
def test_windows_of_ones_own_that_do_not_suffice_are_refused_before_anything_runs(
    tmp_path: Path, n_subjects: int, protocol: dict[str, object], message: str
) -> None:
    file = tmp_path / "mine.npz"
    save_windows(file, n_subjects) if n_subjects else file.write_bytes(b"no windows")
    with pytest.raises(InputError, match=message):
        sweep_of(data=[str(file)], protocol=protocol)


def test_windows_without_rigid_bodies_cannot_be_mirrored(tmp_path: Path) -> None:
    save_windows(tmp_path / "mine.npz")
    mirrored = {"name": "joint", "label": "mirrored", "settings": {"mirror_axis": "x"}}
    with pytest.raises(
        InputError, match=r"`mirror_axis` must be left out .* mine with the regime 'mirrored'"
    ):
        sweep_of(data=[str(tmp_path / "mine.npz")], regimes=[mirrored])


def test_a_run_keeps_its_name_when_a_setting_that_it_does_not_use_is_added() -> None:
    (run, *_) = make_sweep({"data": ["hapt"], "regimes": [{"name": "joint"}]}, "the test").runs()
    protocol = run.protocol.model_copy(update={"engine": "litert-builtin"})
    # Records of before are found by it: what is new must be listed in `came_later`.
    assert run.model_copy(update={"protocol": protocol}).key == "hapt-cnn-medium-joint-s0-0ce9aa6f14ea"


def test_a_sweep_file_is_read_and_its_windows_are_looked_for_beside_it(tmp_path: Path) -> None:
    save_windows(tmp_path / "mine.npz")
    file = tmp_path / "sweep.toml"
    file.write_text('data = ["mine.npz"]\nregimes = [{ name = "joint" }]\nseeds = [3]\n')
    (run,) = read_sweep(file).runs()
    assert (run.data, run.seed, run.windows_file) == ("mine", 3, str(tmp_path / "mine.npz"))
    file.write_text("data = [")
    with pytest.raises(InputError, match="must be a TOML file"):
        read_sweep(file)


# Records


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = record_of(sweep_of().runs()[0])
    record.save(tmp_path / "run.npz")
    found = RunRecord.load(tmp_path / "run.npz")
    for name in (
        "run",
        "classes",
        "exits",
        "subjects",
        "severities",
        "thresholds",
        "training_cost",
        "scales",
    ):
        assert getattr(found, name) == getattr(record, name), name
    for name in ("y", "subject", "float_logits", "int8_logits", "calibration_logits"):
        np.testing.assert_array_equal(getattr(found, name), getattr(record, name))
        assert getattr(found, name).dtype == getattr(record, name).dtype


@pytest.mark.parametrize("damage", [lambda data: data[:-40], lambda data: b"", lambda data: b"PK" + data[9:]])
def test_a_damaged_record_is_refused_by_name(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = tmp_path / "run.npz"
    record_of(sweep_of().runs()[0]).save(file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match=r"`run.npz` must be the record of a run"):
        RunRecord.load(file)


# The folder


def test_a_second_sweep_in_a_folder_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from mexit_edge.benchmark.folder import SweepFolder\n"
        "with SweepFolder(Path(sys.argv[1])).locked():\n    print('in', flush=True); time.sleep(60)"
    )
    folder = SweepFolder(tmp_path / "sweep")
    command = [sys.executable, "-c", code, str(folder.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "in\n"
            with pytest.raises(InputError, match="no sweep is at work"), folder.locked():
                pass
        finally:
            first.kill()
    # Killed with no chance to tidy up: the lock is free all the same.
    with folder.locked():
        pass


def test_a_folder_of_something_else_or_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="a new folder, or that of a sweep"):
        SweepFolder(tmp_path).begin(sweep_of())
    folder = SweepFolder(tmp_path / "sweep")
    folder.path.mkdir()
    folder.begin(sweep_of())
    facts = json.loads((folder.path / SWEEP).read_text())
    (folder.path / SWEEP).write_text(json.dumps({**facts, "version": 2}))
    with pytest.raises(InputError, match=r"a sweep of version 1. Received: .*version 2"):
        folder.begin(sweep_of())


def test_a_larger_sweep_keeps_the_runs_that_are_done(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    folder.begin(sweep_of())
    for run in sweep_of().runs():
        record_of(run).save(folder.record_file(run))
    larger = sweep_of(seeds=[0, 1, 2])
    folder.begin(larger)
    assert [run.seed for run in larger.runs() if folder.is_open(run)] == [2, 2]


def test_a_folder_whose_sweep_was_killed_as_it_began_is_taken(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    (tmp_path / f".{SWEEP}.a1b2c3d4").mkdir()
    SweepFolder(tmp_path).begin(sweep_of())
    assert SweepFolder(tmp_path).sweep() == sweep_of()


def test_what_failed_has_its_traceback_until_the_sweep_begins_again(tmp_path: Path) -> None:
    folder, run = SweepFolder(tmp_path), sweep_of().runs()[0]
    folder.begin(sweep_of())
    folder.fail(run, "no", "Traceback: there")
    assert folder.failures([run]) == {str(run): "no"}
    assert (tmp_path / FAILED / f"{run.key}.txt").read_text() == "Traceback: there"
    folder.begin(sweep_of())
    assert folder.is_open(run)
    assert not any((tmp_path / FAILED).iterdir())


# Results


def test_results_are_of_the_runs_that_were_conducted_whatever_becomes_of_their_windows(
    tmp_path: Path,
) -> None:
    folder, file = SweepFolder(tmp_path / "sweep"), save_windows(tmp_path / "mine.npz")
    sweep = sweep_of(data=[str(file)])
    runs = sweep.runs()
    folder.begin(sweep)
    for run in runs:
        record_of(run).save(folder.record_file(run))
    file.unlink()
    assert write_results(folder, sweep, runs) is not None
    assert (folder.path / RESULTS).read_text().count("\n") > 100
    # Another sweep of which nothing is done: what was written of the first is not taken for its own.
    assert write_results(folder, sweep_of(), sweep_of().runs()) is None
    assert (folder.path / RESULTS).read_text().count("\n") == 1
    assert not (folder.path / SUMMARY).exists()
    assert not (folder.path / PAGE).exists()


def test_every_metric_is_documented() -> None:
    text = (Path(__file__).parents[1] / "docs" / "bench.md").read_text()
    metrics = {row["metric"] for row in rows_of(record_of(sweep_of().runs()[0]))}
    assert [metric for metric in sorted(metrics) if f"`{metric}`" not in text] == []


# Workers


def fate(folder: Path, facts: str) -> tuple[int, str]:
    """Stand in for the child of `work`: the run's regime and seed say how it ends, and for whom."""
    place, run = SweepFolder(folder), Run.model_validate_json(facts)
    with (folder / "begun.txt").open("a") as log:
        log.write(f"{run.key}\n")
    again = (folder / "begun.txt").read_text().splitlines().count(run.key) > 1
    time.sleep(0.05)
    if (run.regime, run.seed) == ("mixed", 1) or ((run.regime, run.seed) == ("mixed", 0) and not again):
        os.kill(os.getpid(), signal.SIGKILL)
    if (run.regime, run.seed) == ("joint", 1):
        place.fail(run, "it could not be done")
        return working.child.FAILED, ""
    record_of(run).save(place.record_file(run))
    return working.child.DONE, ""


def stand_in(folder: str, facts: str) -> None:
    """Do what a worker does, without a training."""
    working._in_child = fate
    working.work(folder, facts)


@pytest.mark.slow
# Ray takes ten seconds to start, which it does again after each loss: one death is enough there.
@pytest.mark.parametrize(("backend", "seeds"), [("local", [0, 1, 2]), ("dask", [0, 1, 2]), ("ray", [0])])
def test_a_worker_that_dies_loses_nothing_and_nothing_counts_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, seeds: list[int]
) -> None:
    # Workers cannot import a module of tests: it goes to them as it is.
    by_value = [pytest.importorskip("cloudpickle")]
    if backend == "ray":
        by_value.append(pytest.importorskip("ray").cloudpickle)
    for pickler in by_value:
        pickler.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(conducting, "work", stand_in)
    folder, sweep = SweepFolder(tmp_path / "sweep"), sweep_of(seeds=seeds)
    ended: list[tuple[str, bool]] = []
    with folder.locked():
        conduct(
            sweep,
            sweep.runs(),
            folder,
            Pool(backend, 2),
            lambda run, failure: ended.append((str(run), failure is None)),
        )
    # One worker died once and its run was repeated; one dies whenever it is begun; one run failed by itself.
    failed = [(run.regime, run.seed) for run in sweep.runs() if not folder.is_finished(run)]
    assert failed == ([("joint", 1), ("mixed", 1)] if 1 in seeds else [])
    reasons = list(folder.failures(sweep.runs()).values())
    assert reasons == (["it could not be done", "its worker died, 2 times"] if 1 in seeds else [])
    assert sorted(ended) == sorted((str(run), folder.is_finished(run)) for run in sweep.runs())
    assert not any((folder.path / STARTED).glob("*.json"))
    begun = (folder.path / "begun.txt").read_text().splitlines()
    assert begun.count(next(run.key for run in sweep.runs() if run.regime == "mixed")) == 2


def note_process(file: str) -> None:
    """Leave the number of the process that this runs in."""
    Path(file).write_text(str(os.getpid()))


@pytest.mark.slow
def test_a_single_dask_worker_does_the_work_itself(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle").register_pickle_by_value(sys.modules[__name__])
    Pool("dask", 1).run(note_process, [(str(tmp_path / "pid"),)], None)
    assert int((tmp_path / "pid").read_text()) != os.getpid()


def slow_fate(folder: Path, facts: str) -> tuple[int, str]:
    """End the first run, and never the second."""
    place, run = SweepFolder(folder), Run.model_validate_json(facts)
    if run.regime == "mixed":
        time.sleep(600)
    record_of(run).save(place.record_file(run))
    return working.child.DONE, ""


def slow_stand_in(folder: str, facts: str) -> None:
    """Do what a worker does, without a training."""
    working._in_child = slow_fate
    working.work(folder, facts)


@pytest.mark.slow
def test_a_dask_scheduler_that_is_killed_loses_no_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cloudpickle").register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(conducting, "work", slow_stand_in)
    monkeypatch.setattr(pools, "TIMEOUT_S", 5.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    begun = (
        ["scheduler", "--host", f"tcp://{address}", "--no-dashboard"],
        ["worker", address, "--nworkers", "2", "--no-dashboard"],
    )
    processes: list[subprocess.Popen[bytes]] = []
    folder, sweep = SweepFolder(tmp_path / "sweep"), sweep_of(seeds=[0])
    try:
        for arguments in begun:
            command = [sys.executable, "-m", "dask", *arguments]
            processes.append(
                subprocess.Popen(
                    command,
                    cwd=tmp_path,
                    # Dask looks for the stand-in by the name of this module.
                    env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
            wait_for(lambda: answers(address))

        def killer(run: Run, failure: str | None) -> None:
            processes[0].kill()

        with folder.locked(), pytest.raises(RunError, match="scheduler"):
            conduct(sweep, sweep.runs(), folder, Pool("dask", 2, address), killer)
    finally:
        for process in processes:
            # With the workers that a worker's nanny began.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    joint, mixed = sweep.runs()
    assert folder.is_finished(joint)
    assert folder.is_open(mixed)
    monkeypatch.setattr(conducting, "work", stand_in)
    written = folder.record_file(joint).stat().st_mtime_ns
    with folder.locked():
        conduct(sweep, sweep.runs(), folder, Pool("local", 2))
    assert folder.record_file(joint).stat().st_mtime_ns == written
    assert folder.is_finished(mixed)


KILLED = """
import sys
import cloudpickle
import test_bench as tests
cloudpickle.register_pickle_by_value(tests)
tests.conducting.work = tests.slow_stand_in
folder = tests.SweepFolder(tests.Path(sys.argv[1]))
with folder.locked():
    sweep = tests.sweep_of(seeds=[0])
    tests.conduct(sweep, sweep.runs(), folder, tests.Pool("local", 2))
"""


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cloudpickle").register_pickle_by_value(sys.modules[__name__])
    folder, sweep = SweepFolder(tmp_path / "sweep"), sweep_of(seeds=[0])
    joint, mixed = sweep.runs()
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    first = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder.path)], env=here, start_new_session=True
    )
    try:
        wait_for(lambda: folder.is_finished(joint) and folder.is_started(mixed))
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    written = folder.record_file(joint).stat().st_mtime_ns
    monkeypatch.setattr(conducting, "work", stand_in)
    with folder.locked():
        conduct(sweep, sweep.runs(), folder, Pool("local", 2))
    assert folder.record_file(joint).stat().st_mtime_ns == written
    assert len(folder.record_files()) == 2
    assert not folder.failures(sweep.runs())


def answers(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0


def test_a_back_end_that_loses_workers_before_any_run_begins_is_given_up(tmp_path: Path) -> None:
    class Broken(Pool):
        def run(self, *arguments: object) -> None:
            raise WorkersLostError("nobody there")

    folder = SweepFolder(tmp_path)
    with pytest.raises(RunError, match=f"3 times before any run was begun.*--out {tmp_path}"):
        conduct(sweep_of(), sweep_of().runs(), folder, Broken())


class Here(Pool):
    """Does runs in this process, without a training."""

    def run(self, function: object, calls: list[tuple[str, str]], workers: int | None) -> None:
        for folder, facts in calls:
            run = Run.model_validate_json(facts)
            record_of(run).save(SweepFolder(Path(folder)).record_file(run))


def test_some_runs_of_a_sweep_are_conducted_and_the_whole_is_noted(tmp_path: Path) -> None:
    folder, runs = SweepFolder(tmp_path), sweep_of().runs()
    conduct(sweep_of(), runs[:1], folder, Here())
    assert [folder.is_finished(run) for run in runs] == [True, False, False, False]
    assert folder.sweep() == sweep_of()


def test_what_notices_raise_is_raised_when_the_runs_have_ended(tmp_path: Path) -> None:
    def notice(run: Run, failure: str | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = SweepFolder(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        conduct(sweep_of(), sweep_of().runs(), folder, Here(), notice)
    assert not any(folder.is_open(run) for run in sweep_of().runs())


def test_a_child_that_is_killed_is_begun_once_more_and_then_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run = SweepFolder(tmp_path), sweep_of().runs()[0]
    folder.begin(sweep_of())
    tries = []
    monkeypatch.setattr(
        working, "_in_child", lambda *_: tries.append(1) or (-signal.SIGKILL, "out of memory")
    )
    working.work(str(tmp_path), run.model_dump_json())
    assert len(tries) == 2
    (reason,) = folder.failures([run]).values()
    assert "was killed (SIGKILL), 2 times; its last words: out of memory" in reason


def test_a_child_that_is_killed_after_it_saved_its_record_is_not_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run = SweepFolder(tmp_path), sweep_of().runs()[0]
    folder.begin(sweep_of())
    tries = []

    def child(*_: object) -> tuple[int, str]:
        tries.append(1)
        record_of(run).save(folder.record_file(run))
        return -signal.SIGKILL, ""

    monkeypatch.setattr(working, "_in_child", child)
    working.work(str(tmp_path), run.model_dump_json())
    assert len(tries) == 1
    assert folder.is_finished(run)
    assert not (tmp_path / FAILED / f"{run.key}.json").exists()
    assert not folder.is_started(run)


def test_a_child_ends_with_its_worker(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mexit_edge.benchmark.child", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(sweep_of().runs()[0].model_dump_json() + "\n")
        process.stdin.close()
        # Long before it could have trained anything.
        assert process.wait(timeout=60) == working.child.FAILED
    assert not any(tmp_path.iterdir())


def test_a_run_that_somebody_is_at_work_on_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run = SweepFolder(tmp_path), sweep_of().runs()[0]
    folder.begin(sweep_of())
    monkeypatch.setattr(working, "_in_child", lambda *_: pytest.fail("begun twice"))
    with folder.held(run):
        folder.start(run)
        second = threading.Thread(target=working.work, args=(str(tmp_path), run.model_dump_json()))
        second.start()
        record_of(run).save(folder.record_file(run))
        folder.stop(run)
    second.join(timeout=30)
    assert not second.is_alive()
    assert not folder.is_started(run)


def test_a_full_disk_ends_the_sweep_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, run = SweepFolder(tmp_path), sweep_of().runs()[0]
    folder.begin(sweep_of())
    monkeypatch.setattr(working, "_in_child", lambda *_: (4, ""))
    with pytest.raises(RunError, match=rf"must have room .* Finished runs are whole.*--out {tmp_path}"):
        working.work(str(tmp_path), run.model_dump_json())
    assert folder.is_open(run)
    assert is_full(OSError(errno.ENOSPC, "No space left on device"))
    assert not is_full(OSError(errno.EACCES, "Permission denied"))


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="every worker sees under the same path"):
        working.work(str(tmp_path / "elsewhere"), sweep_of().runs()[0].model_dump_json())


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_an_address_where_nobody_listens_is_refused(backend: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(InputError, match=rf"running {backend} cluster. Received: {address}, which does not"):
        Pool(backend, 2, address)


@pytest.mark.parametrize("address", ["localhost", "localhost:abc", "", "127.0.0.1:99999", ":8786"])
@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_an_address_that_is_none_is_refused(backend: str, address: str) -> None:
    with pytest.raises(InputError, match=rf"`address` must be HOST:PORT of a running {backend} cluster"):
        Pool(backend, 2, address)


def test_a_ray_head_that_says_nothing_may_want_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    opened = pools.BACKENDS["ray"]

    def refuse(**_: object) -> None:
        raise errors.pop()

    monkeypatch.setattr(ray, "init", refuse)
    errors: list[Exception] = [ConnectionError("Failed to connect")]
    with pytest.raises(WorkersLostError, match=r"does not answer: .*set RAY_AUTH_MODE=token"):
        opened(Pool("ray", 2, pools.RAY_AUTO), None).__enter__()
    errors = [ConnectionError("Failed to start")]
    with pytest.raises(WorkersLostError) as caught:
        opened(Pool("ray", 2), None).__enter__()
    assert "RAY_AUTH_MODE" not in str(caught.value)
    errors = [ray.exceptions.AuthenticationError("no token found")]
    with pytest.raises(InputError, match=r"whose token is known here. Received: auto: .*no token found"):
        opened(Pool("ray", 2, pools.RAY_AUTO), None).__enter__()


@pytest.mark.parametrize("cpus", [4, 1])
def test_a_ray_cluster_of_fewer_cpus_does_fewer_runs_at_once(
    monkeypatch: pytest.MonkeyPatch, cpus: int
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": float(cpus)})
    with ExitStack() as stack:
        opened = pools.BACKENDS["ray"](Pool("ray", 8, pools.RAY_AUTO), None)
        if cpus > 1:
            assert stack.enter_context(opened)[:2] == ("ray", cpus)
        else:
            with pytest.raises(InputError, match=r"at least 2 CPUs.*`--workers`.*Received: auto, with 1"):
                stack.enter_context(opened)


def test_unknown_back_ends_and_addresses_of_none_are_refused() -> None:
    with pytest.raises(InputError, match=r"`backend` must be one of: dask, local, ray"):
        Pool("slurm")
    with pytest.raises(InputError, match=r"`address` must be left out"):
        Pool("local", address="127.0.0.1:8786")


# The log of evaluations on test subjects


def saved(folder: Path, sweep: Sweep) -> list[Path]:
    files = [folder / f"{run.key}.npz" for run in sweep.runs()]
    for file, run in zip(files, sweep.runs(), strict=True):
        record_of(run).save(file)
    return files


def test_every_evaluation_on_test_subjects_is_logged_once(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    files = saved(tmp_path, sweep_of())
    log = EvaluationLog(file)
    log.add(files[:2])
    first = file.read_text().splitlines()
    log.add(files)
    EvaluationLog(file).add(files)
    lines = file.read_text().splitlines()
    assert lines[:3] == first
    assert len(lines) == 1 + len(files)
    # Done again, with another result: another look.
    replace(record_of(sweep_of().runs()[0]), epochs=3).save(files[0])
    log.add(files)
    assert len(file.read_text().splitlines()) == 2 + len(files)
    (tmp_path / "folds").mkdir()
    log.add(saved(tmp_path / "folds", sweep_of(protocol={"judged_on": "out_of_fold"})))
    assert len(file.read_text().splitlines()) == 2 + len(files)


@pytest.mark.parametrize("content", [b"something,else\n", b"", b"\xff\xfe", None])
def test_what_is_no_such_log_is_refused_before_anything_runs(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "log.csv"
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(InputError, match="a log of evaluations on test subjects"):
        EvaluationLog(file)


# The whole, with trainings


@pytest.fixture(scope="module")
def own_windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_windows(tmp_path_factory.mktemp("data") / "mine.npz")


def sweep_file(own_windows: Path, folder: Path, seeds: list[int]) -> Path:
    file = folder / "sweep.toml"
    file.write_text(
        f'data = ["{own_windows}"]\nseeds = {seeds}\nregimes = [{{ name = "joint" }}]\n'
        'backbones = [{ name = "cnn", preset = "tiny" }]\n'
        'protocol = { epochs = 1, engine = "litert-builtin" }\n'
    )
    return file


def bench(*arguments: object):
    return CliRunner().invoke(app.app, ["bench", *map(str, arguments)])


@pytest.mark.slow
def test_every_back_end_gives_the_same_csv(own_windows: Path, tmp_path: Path) -> None:
    file = sweep_file(own_windows, tmp_path, [0])
    result = bench(file, "--out", tmp_path / "local", "--workers", 1, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["runs"], facts["finished"], facts["failed"]) == (1, 1, {})
    assert {one["figure"] for one in facts["summary"]} >= {"final exit", "policy"}
    assert len((tmp_path / "local" / TEST_LOG).read_text().splitlines()) == 2
    assert (tmp_path / "local" / "page.html").stat().st_size > 10_000
    assert "Balanced accuracy of int8 stages in percent" in bench(file, "--out", tmp_path / "local").stdout
    wanted = (tmp_path / "local" / RESULTS).read_bytes()
    assert wanted.count(b"\n") > 40
    sweep = read_sweep(file)
    for backend in ("dask", "ray"):
        folder = SweepFolder(tmp_path / backend)
        with folder.locked():
            conduct(sweep, sweep.runs(), folder, Pool(backend, 1))
        write_tables(folder, list(folder.records(sweep.runs())))
        assert (folder.path / RESULTS).read_bytes() == wanted, backend


def wait_for(condition: Callable[[], bool], seconds: float = 180) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "nothing was finished in time"
        time.sleep(0.05)


def test_options_beside_a_sweep_file_are_refused(own_windows: Path, tmp_path: Path) -> None:
    result = bench(sweep_file(own_windows, tmp_path, [0]), "--epochs", 3)
    assert result.exit_code == 2
    assert "`--epochs` must be left out with a sweep file" in result.stderr


Conducted = list[tuple[Sweep, tuple[Run, ...]]]


@pytest.fixture
def conducted(monkeypatch: pytest.MonkeyPatch) -> Conducted:
    """Return what a command has conducted; the first run of each sweep fails, no other is done."""
    found: Conducted = []

    def stand_in(sweep: Sweep, runs: tuple[Run, ...], folder: SweepFolder, *_: object) -> None:
        folder.begin(sweep)
        folder.fail(runs[0], "it could not be done")
        found.append((sweep, runs))

    monkeypatch.setattr(conducting, "conduct", stand_in)
    return found


def test_options_that_are_left_out_are_those_of_a_sweep(conducted: Conducted, tmp_path: Path) -> None:
    result = bench("--regime", "joint", "--out", tmp_path / "out")
    ((sweep, _),) = conducted
    assert sweep == make_sweep({"data": ["hapt"], "regimes": [{"name": "joint"}]}, "the test")
    # No run is done: there is no page. Why each failed lies in a folder.
    assert "Results: " in result.stdout
    assert "Page:" not in result.stdout
    assert "joint, seed 0: it could not be done" in result.stderr
    assert f"Tracebacks: {tmp_path / 'out' / FAILED}\n" in result.stderr
    assert result.exit_code == 1


def test_data_without_official_test_subjects_are_judged_out_of_fold_and_tested_under_one_split(
    conducted: Conducted, tmp_path: Path
) -> None:
    options = ("--data", "watch", "--regime", "joint", "--out", tmp_path / "out", "--json")
    refused = bench(*options, "--out-of-fold")
    assert refused.exit_code == 2
    assert "--split-seed 0" in refused.stderr
    result = bench(*options, "--out-of-fold", "--split-seed", 0, "--seeds", 2)
    facts = json.loads(result.stdout)
    assert (facts["runs"], facts["finished"], facts["page"]) == (2 * 3, 0, None)
    bench(*options, "--split-seed", 0)
    protocols = [sweep.protocol for sweep, _ in conducted]
    assert [(one.judged_on, one.split_seed) for one in protocols] == [("out_of_fold", 0), ("test", 0)]


def test_more_seeds_than_anybody_means_are_refused() -> None:
    assert bench("--seeds", 1_000_000_000).exit_code == 2


def test_an_unknown_regime_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    result = bench("--regime", "jiont", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "Did you mean 'joint'" in result.stderr
    assert not (tmp_path / "out").exists()
