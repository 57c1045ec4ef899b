"""Do the guarantees of risk control hold? An experiment that could refute them, and what each method costs.

    python benchmarks/guarantees.py [--draws 1000] [--out FOLDER]

The population is real: the int8 logits of the reference bundle on HAPT's official test subjects, engine TFLM,
so that the risk of a level is known and not estimated. Calibration sets are drawn from it with replacement,
thresholds are set on each by every method for every loss, and the risk of what was chosen is read off the
population. `ucb` and `ltt` may exceed eps in a share delta of the draws, `crc` may not exceed it in the mean;
three standard errors of the draws are allowed. Where even the loosest level's risk is within eps, the verdict
is "cannot fail", and where no draw found a level, "nothing found": such rows are no evidence. guarantees.csv
has a row per setting; a verdict "refuted" ends the script with exit code 1.

guarantees_by_subject.csv asks what no theorem promises: calibrated on some of the nine subjects (every choice
of 3 and of 6), what is the risk on those left out? Units are windows, or whole subjects. These choices
overlap, so no standard error is allowed on the limit, and a verdict "beyond" refutes no theorem.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import tables
from numpy.typing import NDArray

import mexit_edge as mx
from mexit_edge.exits import (
    RISK_LOSSES,
    RISK_METHODS,
    by_subject,
    control_risk,
    exit_gaps,
    exit_losses,
    exits_along,
    losses_along,
    make_scores,
    score_exits,
    softmax,
    threshold_levels,
)
from mexit_edge.simulate import Simulation, simulate

RESULTS = Path(__file__).parent / "results"
BUNDLE = Path(__file__).parent.parent / "tflite_models" / "reference.mexit"
SCORES = ("logit_margin", "max_prob")
SIZES = (200, 1000)
CALIBRATION_SUBJECTS = (3, 6)
EPS = (0.01, 0.02, 0.05)
DELTA = 0.1
STANDARD_ERRORS = 3.0
EVERY = slice(None)
REFUTED = "refuted"

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Population:
    """What every window loses and costs at every level, with one loss and one score.

    Args:
        score: name of the score.
        loss: name of the loss.
        losses: (n, L) clipped losses, their running maximum over the levels: what is controlled.
        gaps: (n, L) signed losses as they are.
        shares: (n, L) multiply-accumulates as a share of the full network's.
        subject: (n,) subject per window.
    """

    score: str
    loss: str
    losses: Floats
    gaps: Floats
    shares: Floats
    subject: NDArray[np.int64]

    def by_subject(self) -> Population:
        """Return the same with subjects as units."""
        return replace(
            self,
            losses=by_subject(self.losses, self.subject),
            gaps=by_subject(self.gaps, self.subject),
            shares=by_subject(self.shares, self.subject),
            subject=np.unique(self.subject),
        )

    def at(self, level: int | None, units: NDArray[np.bool_] | slice = EVERY) -> tuple[float, float, float]:
        """Return risk, signed gap and share of the full cost at a level; None runs everything to the end."""
        if level is None:
            return 0.0, 0.0, 1.0
        return (
            float(self.losses[units, level].mean()),
            float(self.gaps[units, level].mean()),
            float(self.shares[units, level].mean()),
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    windows = mx.data.load("hapt")
    simulation = simulate(BUNDLE, windows.of_subjects(windows.official_test_subjects), engine="tflm")
    people = [population(simulation, score, loss) for score, loss in product(SCORES, RISK_LOSSES)]
    drawn = [row for one in people for n in SIZES for row in from_draws(one, n, options.draws)]
    tables.write(options.out / "guarantees.csv", drawn)
    left_out = [row for one in people for k in CALIBRATION_SUBJECTS for row in from_subjects(one, k)]
    tables.write(options.out / "guarantees_by_subject.csv", left_out)
    for row in (*drawn, *left_out):
        print(*(f"{key}={value}" for key, value in row.items()))
    verdicts = Counter(row["verdict"] for row in drawn)
    print(f"{len(drawn)} guarantees: " + ", ".join(f"{count} {name}" for name, count in verdicts.items()))
    return 1 if verdicts[REFUTED] else 0


def population(simulation: Simulation, score: str, loss: str) -> Population:
    """Return the losses and costs of all windows at the 256 levels of a score."""
    n_classes = len(simulation.classes)
    scores = make_scores(score, simulation.scales, n_classes)
    values, labels = score_exits(scores, simulation.logits)
    early = values[:, :-1]
    levels = threshold_levels([one.highest for one in scores[:-1]], [one.lowest for one in scores[:-1]])
    floats = simulation.logits * np.asarray(simulation.scales)[:, None]
    probabilities = np.stack([softmax(floats[:, exit_]) for exit_ in range(len(scores))], axis=1)
    exits = exits_along(early, levels) - 1
    gaps = exit_gaps(loss, labels, simulation.y, probabilities)
    return Population(
        score=score,
        loss=loss,
        losses=losses_along(early, exit_losses(loss, labels, simulation.y, probabilities), levels),
        gaps=np.take_along_axis(gaps, exits, axis=1),
        shares=(simulation.exit_macs / simulation.full_macs)[exits],
        subject=simulation.subject,
    )


def from_draws(whole: Population, n: int, draws: int) -> Iterator[dict[str, Any]]:
    """Calibrate on sets drawn with replacement, measure on all of the population."""
    at = {level: whole.at(level) for level in (None, *range(whole.losses.shape[1]))}
    rng = np.random.default_rng(n)
    chosen: dict[tuple[str, float], list[int | None]] = {}
    for draw in range(draws):
        drawn = whole.losses[rng.integers(len(whole.losses), size=n)]
        for method, eps in product(RISK_METHODS, EPS):
            control = control_risk(drawn, method, eps, DELTA, seed=draw)
            chosen.setdefault((method, eps), []).append(control.index)
    for (method, eps), indices in chosen.items():
        row = summary(whole, method, eps, indices, [at[index] for index in indices])
        yield {"unit": "window", "n": n, **judged(row, STANDARD_ERRORS, REFUTED)}


def from_subjects(whole: Population, k: int) -> Iterator[dict[str, Any]]:
    """Calibrate on every choice of k subjects, measure on the subjects left out."""
    for unit, people in (("window", whole), ("subject", whole.by_subject())):
        chosen: dict[tuple[str, float], list[int | None]] = {}
        measured: dict[tuple[str, float], list[tuple[float, float, float]]] = {}
        for seed, subjects in enumerate(combinations(np.unique(whole.subject), k)):
            inside = np.isin(people.subject, subjects)
            losses = people.losses[inside]
            for setting in product(RISK_METHODS, EPS):
                index = control_risk(losses, *setting, DELTA, seed=seed).index
                chosen.setdefault(setting, []).append(index)
                measured.setdefault(setting, []).append(people.at(index, ~inside))
        for setting, indices in chosen.items():
            yield {
                "unit": unit,
                "subjects": k,
                **judged(summary(people, *setting, indices, measured[setting]), 0.0, "beyond"),
            }


def summary(
    whole: Population,
    method: str,
    eps: float,
    indices: Iterable[int | None],
    measured: list[tuple[float, float, float]],
) -> dict[str, Any]:
    """Return what the draws of one setting come to."""
    risk, gap, share = np.asarray(measured).T
    return {
        "score": whole.score,
        "loss": whole.loss,
        "method": method,
        "eps": eps,
        "delta": DELTA,
        "draws": len(risk),
        "loosest_risk": round(float(whole.losses[:, -1].mean()), 5),
        "mean_risk": round(float(risk.mean()), 5),
        "standard_error": round(float(risk.std(ddof=1) / sqrt(len(risk))), 5),
        "largest_risk": round(float(risk.max()), 5),
        # A mean of 0-1 losses may be eps itself but for rounding.
        "exceeds_eps": round(float((risk > eps + 1e-12).mean()), 4),
        "mean_signed_gap": round(float(gap.mean()), 5),
        "found_nothing": round(float(np.mean([index is None for index in indices])), 4),
        "mean_macs_share": round(float(share.mean()), 4),
    }


def judged(row: dict[str, Any], standard_errors: float, missed: str) -> dict[str, Any]:
    """Add what a method promises, plus standard errors of the draws, and whether it held."""
    if row["method"] == "crc":
        limit, seen, error = row["eps"], row["mean_risk"], row["standard_error"]
    else:
        limit, seen = DELTA, row["exceeds_eps"]
        error = sqrt(DELTA * (1 - DELTA) / row["draws"])
    limit += standard_errors * error
    verdict = "holds" if seen <= limit else missed
    if row["found_nothing"] == 1:
        verdict = "nothing found"
    elif missed == REFUTED and row["loosest_risk"] <= row["eps"]:
        verdict = "cannot fail"
    return {**row, "limit": round(limit, 5), "verdict": verdict}


if __name__ == "__main__":
    raise SystemExit(main())
