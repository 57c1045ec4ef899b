"""The folder of a sweep: a file per finished run, so that a sweep that is killed goes on where it was."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mexit_edge.benchmark.record import RunRecord
from mexit_edge.benchmark.sweep import Run, Sweep
from mexit_edge.errors import InputError, MissingExtraError, RunError
from mexit_edge.files import read_from_folder, refuse_unwritable, write_bytes

VERSION = 1
MAX_NOTE_BYTES = 1 << 24
SWEEP, LOCK, RUNS, FAILED, STARTED = "sweep.json", "sweep.lock", "runs", "failed", "started"
RESULTS, TIMES, PAGE, TEST_LOG = "results.csv", "times.csv", "page.html", "test_evaluations.csv"


@dataclass(frozen=True)
class SweepFolder:
    """The folder of a sweep.

    ``runs/`` holds a record per finished run, ``failed/`` a reason per failed one, with the traceback where
    there is one, and ``started/`` a mark per run that somebody works on. Every file is written whole, under a
    name that depends on nothing but the run: whoever writes it, and however often, it counts once.

    Args:
        path: of the folder.
    """

    path: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other sweeps out; the system lets go of the lock when this process ends, however it ends.

        Raises:
            InputError: another sweep is at work here.
        """
        try:
            from filelock import FileLock, Timeout
        except ImportError as error:
            raise MissingExtraError("filelock", "bench") from error
        refuse_unwritable(self.path / SWEEP)
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"`out` must be a folder in which no sweep is at work. Received: {self.path}, where one is. "
                "Wait for it, or choose another folder."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def check(self) -> None:
        """Refuse a folder that holds something else.

        Raises:
            InputError: it holds a sweep of another version, or files that are none of a sweep.
        """
        if not self.path.exists():
            return
        if self.path.joinpath(SWEEP).exists():
            self.sweep()
        # A sweep that is killed as it begins leaves its lock, and a note half written under a hidden name.
        elif any(one.name != LOCK and not one.name.startswith(".") for one in self.path.iterdir()):
            raise InputError(
                f"`out` must be a new folder, or that of a sweep to go on with. Received: {self.path}, which "
                f"holds no {SWEEP}. Choose another name."
            )

    def begin(self, sweep: Sweep) -> None:
        """Note the sweep, and forget what failed or was broken off before; call it with the folder locked.

        A folder takes other sweeps later: runs that both have are not done again.

        Raises:
            InputError: see `check`.
        """
        self.check()
        facts = {"version": VERSION, "sweep": sweep.model_dump(mode="json")}
        write_bytes(self.path / SWEEP, (json.dumps(facts, indent=1) + "\n").encode(), overwrite=True)
        for name in (RUNS, FAILED, STARTED):
            (self.path / name).mkdir(exist_ok=True)
        for pattern in (f"{FAILED}/*.json", f"{FAILED}/*.txt", f"{STARTED}/*.json"):
            for file in self.path.glob(pattern):
                file.unlink(missing_ok=True)

    def sweep(self) -> Sweep:
        """Return the sweep that was noted last.

        Raises:
            InputError: there is none, or it is of another version.
        """
        content = read_from_folder(self.path, SWEEP, MAX_NOTE_BYTES)
        try:
            facts = json.loads(content)
            if facts["version"] != VERSION:
                raise ValueError(f"version {facts['version']}")
            return Sweep.model_validate(facts["sweep"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"`out` must be the folder of a sweep of version {VERSION}. Received: {self.path}: {error}. "
                "Choose a new folder, or go on with the version of the package that made this one."
            ) from error

    def record_file(self, run: Run) -> Path:
        """Return where a run's record goes."""
        return self.path / RUNS / f"{run.key}.npz"

    def is_finished(self, run: Run) -> bool:
        """Return whether a run has its record."""
        return self.record_file(run).exists()

    def is_open(self, run: Run) -> bool:
        """Return whether a run is neither finished nor failed."""
        return not self.is_finished(run) and not self._failure(run).exists()

    @contextmanager
    def held(self, run: Run) -> Iterator[None]:
        """Wait until nobody else works on a run, and keep others from it.

        A cluster that lost its scheduler may still be at work on what is handed out again. The system lets go
        of the lock when its holder dies.
        """
        from filelock import FileLock

        with FileLock(self.path / STARTED / f"{run.key}.lock"):
            yield

    def is_started(self, run: Run) -> bool:
        """Return whether somebody has begun a run and not come to its end."""
        return self._mark(run).exists()

    def state(self, runs: Sequence[Run]) -> tuple[tuple[bool, int], ...]:
        """Return, per run, whether it is open, and how often it has been begun without coming to its end."""
        return tuple((self.is_open(run), self._times(run)) for run in runs)

    def start(self, run: Run) -> int:
        """Note that this process works on a run; return how often it has been begun since `begin`."""
        times = self._times(run) + 1
        _write(self._mark(run), {"times": times, "host": socket.gethostname(), "pid": os.getpid()})
        return times

    def stop(self, run: Run) -> None:
        """Note that nobody works on a run any more."""
        self._mark(run).unlink(missing_ok=True)

    def fail(self, run: Run, reason: str, trace: str | None = None) -> None:
        """Note that a run failed, and why.

        Args:
            run: that failed.
            reason: for who reads the page.
            trace: for who repairs it, in a file of its own.
        """
        if trace is not None:
            write_bytes(self._failure(run).with_suffix(".txt"), trace.encode(), overwrite=True)
        _write(self._failure(run), {"run": str(run), "key": run.key, "reason": reason})

    def failures(self, runs: Sequence[Run]) -> dict[str, str]:
        """Return the failed ones among runs, as they are shown, with their reasons."""
        return {
            str(run): str(json.loads(self._failure(run).read_text("utf-8"))["reason"])
            for run in runs
            if self._failure(run).exists() and not self.is_finished(run)
        }

    def record_files(self) -> list[Path]:
        """Return the files of all finished runs, of this sweep or another."""
        return sorted((self.path / RUNS).glob("*.npz"))

    def records(self, runs: Sequence[Run]) -> Iterator[RunRecord]:
        """Give the records of the finished ones among runs, in their order.

        Raises:
            InputError: a record is damaged or of another version.
        """
        for run in runs:
            if self.is_finished(run):
                yield RunRecord.load(self.record_file(run))

    def _times(self, run: Run) -> int:
        try:
            return int(json.loads(self._mark(run).read_text("utf-8"))["times"])
        except FileNotFoundError:
            return 0

    def _failure(self, run: Run) -> Path:
        return self.path / FAILED / f"{run.key}.json"

    def _mark(self, run: Run) -> Path:
        return self.path / STARTED / f"{run.key}.json"


def is_full(error: BaseException | None) -> bool:
    """Return whether a disk or quota was full, here or in what caused it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def full(path: Path) -> RunError:
    """Return the error of a full disk."""
    return RunError(
        f"The disk of {path} must have room for the results. Received: no space left. Finished runs are "
        f"whole; make room and start the same sweep again with `--out {path}`."
    )


def _write(path: Path, facts: dict[str, Any]) -> None:
    write_bytes(path, (json.dumps(facts) + "\n").encode(), overwrite=True)
