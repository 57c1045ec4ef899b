"""One sweep on every back end, and on each with something killed in the middle: is the CSV the same?

    python benchmarks/back_ends.py [--runs 8]

Real trainings of seconds: HAPT, every 16th window, `cnn` tiny, two epochs. Reference is the sweep on this
machine with one run at a time. Every other way has two at once, and ends when all runs are finished; after a
kill of the sweep or of the scheduler the same command is given once more. Writes results/back_ends.csv: per
way how many runs were finished, how many lines the log of evaluations has (a run that counted twice would
have two), and whether results.csv is the same, byte for byte. Three quarters of an hour on two cores
that did other work as well.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import tables

OUT = Path(__file__).parent / "results" / "back_ends.csv"
SWEEP = """
data = ["hapt"]
backbones = [{{ name = "cnn", preset = "tiny" }}]
seeds = {seeds}
regimes = [{{ name = "joint" }}, {{ name = "mixed" }}]
[protocol]
epochs = 2
stride = 16
severities = [0, 3]
engine = "litert-builtin"
"""
MODULE = [sys.executable, "-m", "mexit_edge", "bench"]
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
PATIENCE_S = 600

Way = Callable[[Path, Path], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=8)
    n_runs = parser.parse_args().runs
    # A token that Ray left for this user would be asked for by the head, and not by who is given its address.
    os.environ["RAY_AUTH_MODE"] = "disabled"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        sweep = place / "sweep.toml"
        sweep.write_text(SWEEP.format(seeds=list(range(n_runs // 2))))
        wanted = b""
        for name, way in WAYS.items():
            out = place / name.replace(" ", "_")
            way(sweep, out)
            found = (out / "results.csv").read_bytes()
            wanted = wanted or found
            log = (out / "test_evaluations.csv").read_text().splitlines()
            rows.append(
                {
                    "way": name,
                    "runs": n_runs,
                    "finished": len(list((out / "runs").glob("*.npz"))),
                    "logged": len(log) - 1,
                    "same_csv": found == wanted,
                }
            )
            print(rows[-1], flush=True)
            tables.write(OUT, rows)
    sys.exit(any(not row["same_csv"] or {row["finished"], row["logged"]} != {n_runs} for row in rows))


def one_by_one(sweep: Path, out: Path) -> None:
    """Do the sweep on this machine, one run at a time."""
    again(sweep, out, "--workers", "1")


def on(*options: str) -> Way:
    """Return a way that does the sweep with these options."""
    return lambda sweep, out: again(sweep, out, *options)


def with_sweep_killed(*options: str) -> Way:
    """Return a way that kills the sweep itself when two runs are finished, and starts it again."""

    def way(sweep: Path, out: Path) -> None:
        with begun(sweep, out, *options) as process:
            wait_for(lambda: finished(out) >= 2)
            process.kill()
        again(sweep, out, *options)

    return way


def with_worker_killed(pattern: str, *options: str) -> Way:
    """Return a way that kills a process below the sweep whose command line holds ``pattern``."""

    def way(sweep: Path, out: Path) -> None:
        with begun(sweep, out, *options) as process:
            wait_for(lambda: finished(out) >= 2 and bool(below(process.pid, pattern)))
            kill_below(process.pid, pattern)
            if process.wait(PATIENCE_S):
                raise SystemExit(f"the sweep ended with code {process.returncode} after the loss of a worker")

    return way


def with_dask_scheduler_killed(sweep: Path, out: Path) -> None:
    """Kill a Dask scheduler when two runs are finished, and go on without it."""
    address = free_address()
    with (
        started("dask", "scheduler", "--host", f"tcp://{address}", "--no-dashboard") as scheduler,
        started("dask", "worker", address, "--nworkers", "2", "--no-dashboard", when_at=address),
    ):
        lost_with(scheduler.kill, sweep, out, "--backend", "dask", "--address", address)
    again(sweep, out)


def with_ray_head_killed(sweep: Path, out: Path) -> None:
    """Kill what a Ray cluster keeps its state in when two runs are finished, and go on without it."""
    address = free_address()
    with tempfile.TemporaryDirectory() as folder:
        start = ["ray.scripts.scripts", "start", "--head", "--block", "--num-cpus", "2"]
        where = ["--port", address.rpartition(":")[2], "--temp-dir", folder, "--include-dashboard", "false"]
        with started(*start, *where) as head:
            wait_for(lambda: answers(address))
            kill = partial(kill_below, head.pid, "gcs_server")
            lost_with(kill, sweep, out, "--backend", "ray", "--address", address)
    again(sweep, out)


def kill_below(pid: int, pattern: str) -> None:
    """Kill a process that descends from one and whose command line holds a pattern."""
    below(pid, pattern)[0].kill()


def lost_with(kill: Callable[[], object], sweep: Path, out: Path, *options: str) -> None:
    """Begin the sweep, kill what it hangs on when two runs are finished, and wait until it ends by itself."""
    with begun(sweep, out, *options) as process:
        wait_for(lambda: finished(out) >= 2 or process.poll() is not None)
        kill()
        if process.wait(PATIENCE_S) == 0:
            raise SystemExit("the sweep ended well without its scheduler")


@contextmanager
def started(module: str, *arguments: str, when_at: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Start a part of a cluster when somebody answers at an address; kill it and its children at the end."""
    if when_at is not None:
        wait_for(lambda: answers(when_at))
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, **QUIET)
    try:
        yield process
    finally:
        for one in [*psutil.Process(process.pid).children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


def free_address() -> str:
    """Return an address of this machine at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def answers(address: str) -> bool:
    """Return whether somebody listens at an address."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True


def again(sweep: Path, out: Path, *options: str) -> None:
    """Do what is left of the sweep."""
    subprocess.run([*MODULE, sweep, "--out", out, *(options or ("--workers", "2"))], check=True, **QUIET)


@contextmanager
def begun(sweep: Path, out: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the sweep; it is dead when the block ends."""
    with subprocess.Popen(
        [*MODULE, sweep, "--out", out, *(options or ("--workers", "2"))], **QUIET
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def below(pid: int, pattern: str) -> list[psutil.Process]:
    """Return the processes that descend from one and whose command line holds a pattern."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if pattern in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def finished(out: Path) -> int:
    """Return the number of finished runs in a folder."""
    return len(list(out.glob("runs/*.npz")))


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > ends:
            raise SystemExit("nothing was finished in time")
        time.sleep(0.1)


WAYS: dict[str, Way] = {
    "one by one": one_by_one,
    "local": on("--workers", "2"),
    "dask": on("--backend", "dask", "--workers", "2"),
    "ray": on("--backend", "ray", "--workers", "2"),
    "local, sweep killed": with_sweep_killed("--workers", "2"),
    "dask, sweep killed": with_sweep_killed("--backend", "dask", "--workers", "2"),
    "ray, sweep killed": with_sweep_killed("--backend", "ray", "--workers", "2"),
    "local, run killed": with_worker_killed("benchmark.child", "--workers", "2"),
    "local, worker killed": with_worker_killed("popen_loky_posix", "--workers", "2"),
    "dask, worker killed": with_worker_killed("spawn_main", "--backend", "dask", "--workers", "2"),
    "ray, worker killed": with_worker_killed("ray::", "--backend", "ray", "--workers", "2"),
    "dask, scheduler killed": with_dask_scheduler_killed,
    "ray, head killed": with_ray_head_killed,
}


if __name__ == "__main__":
    main()
