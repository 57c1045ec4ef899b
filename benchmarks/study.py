"""The study: every sweep of benchmarks/study, and its results as committed CSV.

    python benchmarks/study.py [NAME ...] [--workers 2]

Sweeps go on where they were broken off (runs/study/NAME); rows are copied to results/study/NAME.csv, also of
an unfinished sweep. Every record that was judged on test subjects has a line in
results/study/test_evaluations.csv.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SWEEPS = sorted(path.stem for path in (HERE / "study").glob("*.toml"))
RESULTS = HERE / "results" / "study"
RUNS = HERE.parent / "runs" / "study"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(SWEEPS)}")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    codes = [sweep(name, options.workers) for name in options.names or SWEEPS]
    sys.exit(max(codes))


def sweep(name: str, workers: int) -> int:
    """Run a sweep and copy its rows; return the exit code of `mexit bench`."""
    command = ["-m", "mexit_edge", "bench", HERE / "study" / f"{name}.toml", "--out", RUNS / name]
    log = ["--test-log", RESULTS / "test_evaluations.csv"]
    done = subprocess.run(
        [sys.executable, *map(str, [*command, *log]), "--workers", str(workers)], check=False
    )
    rows = RUNS / name / "results.csv"
    if rows.exists():
        shutil.copyfile(rows, RESULTS / f"{name}.csv")
    return done.returncode


if __name__ == "__main__":
    main()
