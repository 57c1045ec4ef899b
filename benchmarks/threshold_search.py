"""How long the exact search for thresholds takes, for every goal.

    python benchmarks/threshold_search.py [--turns N]

10,000 made-up windows whose scores are all different, so that every level of the grid is used: 4 and 5 exits
with 64 levels, and 3 and 4 exits with as many levels as the search takes by itself. One thread. A figure is
the median over the turns; memory is the largest that Python and NumPy held at a time in a turn of its own,
above what they held before. Writes benchmarks/results/threshold_search.csv; a row with 64 levels over its
limit is named and makes the exit code 1.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy is imported

import argparse
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import tables

from mexit_edge.exits import ThresholdSearch, search_thresholds

RESULTS = Path(__file__).parent / "results" / "threshold_search.csv"
WINDOWS = 10_000
CLASSES = 6
LIMIT_SECONDS = 2.0
CASES = ((4, 64), (5, 64), (3, None), (4, None))


def problem_of(n_exits: int) -> tuple[Any, ...]:
    """Return scores, classes, labels and costs; later exits are better, sure ones more often right."""
    rng = np.random.default_rng(0)
    y = rng.integers(CLASSES, size=WINDOWS)
    hardness = rng.random(WINDOWS)[:, None]
    right = hardness < np.linspace(0.75, 0.95, n_exits) + rng.normal(0, 0.1, (WINDOWS, n_exits))
    wrong = (y[:, None] + rng.integers(1, CLASSES, right.shape)) % CLASSES
    sure = rng.normal(0, 0.2, (WINDOWS, n_exits - 1)) - hardness
    scores = sure.argsort(axis=0).argsort(axis=0)  # ranks: all different
    return scores, np.where(right, y[:, None], wrong), y, np.linspace(1, 5, n_exits).tolist()


def measured(search: Callable[[], ThresholdSearch], turns: int) -> tuple[ThresholdSearch, dict[str, Any]]:
    """Return what the search finds, and its time and memory."""
    tracemalloc.start()
    found = search()
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    wall, cpu = [], []
    for _ in range(turns):
        started = perf_counter(), process_time()
        search()
        wall.append(perf_counter() - started[0])
        cpu.append(process_time() - started[1])
    return found, {
        "measured_seconds": round(median(wall), 3),
        "slowest_seconds": round(max(wall), 3),
        "measured_cpu_seconds": round(median(cpu), 3),
        "measured_peak_mb": round(peak_bytes / 1e6, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for n_exits, levels in CASES:
        problem = problem_of(n_exits)
        goals: dict[str, dict[str, Any]] = {
            "max_drop": {"max_drop": 0.01},
            "floor": {"floor": 0.8},
            "floor in hindsight": {"floor": 0.8, "on_bound": False},
            "budget": {"budget": 3.0},
        }
        for name, goal in goals.items():
            found, figures = measured(
                lambda problem=problem, goal=goal, levels=levels: search_thresholds(
                    *problem, levels=levels, **goal
                ),
                options.turns,
            )
            row = {
                "exits": n_exits,
                "levels": max(found.levels),
                "combinations": int(np.prod(found.levels)),
                "windows": WINDOWS,
                "goal": name,
                **figures,
                "limit_seconds": LIMIT_SECONDS if levels == 64 else "",
                "exact": found.exact,
                "turns": options.turns,
            }
            rows.append(row)
            print(
                f"{n_exits} exits, {row['levels']:>4} levels, {name:18} {row['measured_seconds']:6.3f} s "
                f"(slowest {row['slowest_seconds']:.3f}, CPU {row['measured_cpu_seconds']:.3f}), "
                f"{row['measured_peak_mb']:.0f} MB"
            )
    tables.write(RESULTS, rows)
    exceeded = [
        row for row in rows if row["limit_seconds"] and row["measured_seconds"] > row["limit_seconds"]
    ]
    for row in exceeded:
        print(
            f"{row['exits']} exits, {row['goal']}: {row['measured_seconds']} s exceed {LIMIT_SECONDS} s",
            file=sys.stderr,
        )
    return 1 if exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
