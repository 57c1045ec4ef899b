"""The main job under every regime: quality, cost of training, and stages against the whole model, bit by bit.

    python benchmarks/main_job.py [--full] [--regimes NAME ...] [--out results.csv]

Runs `mexit run --seed 0 --regime NAME` per regime, by default with `--quick` (8 epochs on a quarter of the
windows: enough to see that every part works, too little to compare regimes by), with `--full` as it comes.
One row per regime in benchmarks/results/main_job_quick.csv or main_job.csv; rows that are there are not
computed again. `differing_logits` counts int8 logits of the stages that differ from the whole model's, over
all test windows, exits and engines.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import tables

from mexit_edge.regimes import REGIMES

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--regimes", nargs="*", default=sorted(REGIMES))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out or RESULTS / ("main_job.csv" if options.full else "main_job_quick.csv")
    rows = tables.read(out)
    for regime in options.regimes:
        if regime not in {row["regime"] for row in rows}:
            rows.append(one_run(regime, quick=not options.full))
            tables.write(out, rows)
            print(rows[-1], flush=True)


def one_run(regime: str, *, quick: bool) -> dict[str, Any]:
    command = [sys.executable, "-c", "from mexit_edge.cli import main; main()", "run"]
    command += ["--seed", "0", "--regime", regime, "--json", *(["--quick"] if quick else [])]
    with tempfile.TemporaryDirectory() as folder:
        started = perf_counter()
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
        seconds = perf_counter() - started
    facts = json.loads(done.stdout)
    cost = facts["training_cost"]
    row: dict[str, Any] = {"regime": regime, "epochs": facts["settings"]["epochs"]}
    for floats, exit_ in zip(facts["float"], facts["exits"], strict=True):
        row[f"{exit_['exit']}_float_balanced_accuracy"] = round(floats["balanced_accuracy"], 5)
        row[f"{exit_['exit']}_int8_balanced_accuracy"] = round(exit_["balanced_accuracy"], 5)
    row |= {
        "policy_balanced_accuracy": round(facts["policy"]["balanced_accuracy"], 5),
        "policy_mean_macs": round(facts["policy"]["mean_macs"]),
        "policy_drop": round(facts["policy"]["drop"], 5),
        "engines": " ".join(sorted({one["engine"] for one in facts["parity"]})),
        "compared_windows": facts["windows"],
        "differing_logits": sum(one["differing_elements"] for one in facts["parity"]),
        "forward_macs": sum(one["forward_macs"] for one in cost),
        "backward_macs": sum(one["backward_macs"] for one in cost),
        "training_measured_seconds": round(sum(one["measured_seconds"] for one in cost), 1),
        "run_measured_seconds": round(seconds, 1),
    }
    return row


if __name__ == "__main__":
    main()
