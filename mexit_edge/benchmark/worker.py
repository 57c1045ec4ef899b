"""What a worker of any back end does with a run: give it a process of its own, and say how that ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from mexit_edge.benchmark import child
from mexit_edge.benchmark.folder import SWEEP, SweepFolder, full
from mexit_edge.benchmark.sweep import Run
from mexit_edge.errors import InputError

# What was killed is begun once more: the system may have been short of memory for a moment.
TRIES = 2


def work(folder: str, facts: str) -> None:
    """Do one run, unless it is done.

    Args:
        folder: of the sweep, under this path on every machine.
        facts: the run as JSON.

    Raises:
        InputError: this machine does not see the folder.
        RunError: the disk is full.
    """
    place, run = SweepFolder(Path(folder)), Run.model_validate_json(facts)
    if not place.path.joinpath(SWEEP).exists():
        raise InputError(
            f"`out` must be a folder that every worker sees under the same path. Received: {folder}, which "
            f"{os.uname().nodename} does not see. Put it on a disk that the machines share."
        )
    with place.held(run):
        if place.is_open(run):
            _begin(place, run, facts)


def _begin(place: SweepFolder, run: Run, facts: str) -> None:
    """Do a run that nobody else works on; whoever began it before has died."""
    if place.start(run) > TRIES:
        place.fail(run, f"its worker died, {TRIES} times")
        place.stop(run)
        return
    code, words = 0, ""
    for _ in range(TRIES):
        code, words = _in_child(place.path, facts)
        # However it ended: it may have been killed after it saved its record.
        if not place.is_open(run):
            break
        if code == child.DISK_FULL:
            raise full(place.path)
    else:
        place.fail(run, f"its process {_ended(code)}, {TRIES} times; its last words: {words or 'none'}")
    place.stop(run)


def _in_child(folder: Path, facts: str) -> tuple[int, str]:
    """Return a child's exit code and its last words."""
    with subprocess.Popen(
        [sys.executable, "-m", "mexit_edge.benchmark.child", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, **child.ONE_THREAD},
        # An interrupt at the keyboard is for the sweep; the child ends with its standard input.
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        # A child that ends before it has read breaks the pipe; its exit code says how.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(facts + "\n")
            process.stdin.flush()
        words = process.stderr.read()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    return process.returncode, words.strip()[-400:]


def _ended(code: int) -> str:
    return f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
