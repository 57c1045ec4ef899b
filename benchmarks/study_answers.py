"""What the study says to its questions: paired differences over seeds, with 95 % intervals.

    python benchmarks/study_answers.py

Reads the records that `python benchmarks/study.py` left in runs/study; prints a table per question, and what
each regime reaches on the test subjects; writes answers.csv and official.csv in results/study, and
docs/study.svg. A row of answers is one regime against another, on one data set, at equal training cost or at
convergence (60 epochs): the mean of the differences seed by seed, Student's interval, and on how many seeds
the regime did better. Points are of balanced accuracy of int8 stages, costs are shares of the MACs of the
same network with a single exit. Seeds split the people of watch in other ways; HAPT has the same nine test
people for all, so its intervals say nothing about other people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tables

from mexit_edge.benchmark.figures import Difference, plot_forests
from mexit_edge.benchmark.folder import SweepFolder
from mexit_edge.benchmark.quality_cost import (
    curve_area_share,
    decided,
    policy_credit,
    quality_cost_curve,
    scored,
)
from mexit_edge.benchmark.record import RunRecord
from mexit_edge.benchmark.statistics import LEVEL, mean_interval, paired_difference
from mexit_edge.benchmark.sweep import read_sweep
from mexit_edge.exits import Interval, balanced_accuracy, balanced_weights
from mexit_edge.files import write_bytes
from mexit_edge.report.theme import svg

HERE = Path(__file__).parent
RUNS = HERE.parent / "runs" / "study"
OUT = HERE / "results" / "study" / "answers.csv"
OFFICIAL = OUT.with_name("official.csv")
FIGURE = HERE.parent / "docs" / "study.svg"
# Sweep, data -> wanted balanced accuracy of the final exit.
WANTED = {("converged", "hapt"): 0.955, ("cross_fit", "hapt"): 0.97, ("cross_fit", "watch"): 0.92}
DATA = ("hapt", "watch")
SWEEPS = {"equal cost": "equal_cost", "converged": "converged"}
POINTS_BELOW = (1, 3)
SEVERITIES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)

Records = dict[tuple[str, int], RunRecord]
Figure = Callable[[RunRecord], float | None]


def main() -> None:
    records = {(data, said): records_of(name, data) for data in DATA for said, name in SWEEPS.items()}
    rows = [
        {"question": question, "data": data, "protocol": said, **row}
        for question, answers in QUESTIONS.items()
        for (data, said), of_sweep in records.items()
        for row in answers(of_sweep)
    ]
    tables.write(OUT, rows)
    drawn = svg(lambda: plot_forests(forests(rows), "points of balanced accuracy"))
    write_bytes(FIGURE, drawn, overwrite=True)
    for question in QUESTIONS:
        print(f"\n{question}\n")
        print("| data | protocol | regime | against | figure | severity | difference | better on |")
        print("|---|---|---|---|---|---|---|---|")
        for row in rows:
            if row["question"] == question:
                print("| " + " | ".join(cells(row)) + " |")
    standings = [row for name, data in WANTED for row in official(name, data)]
    tables.write(OFFICIAL, standings)
    print("\nOn the test subjects, and on the windows that thresholds were set on\n")
    print("| " + " | ".join(standings[0]) + " |\n" + "|---" * len(standings[0]) + "|")
    for row in standings:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")


def records_of(name: str, data: str) -> Records:
    """Return (regime, seed) -> record of the finished runs of a sweep on a data set."""
    runs = [run for run in read_sweep(HERE / "study" / f"{name}.toml").runs() if run.data == data]
    found = SweepFolder(RUNS / name).records(runs) if (RUNS / name).exists() else ()
    return {(record.run.regime, record.run.seed): record for record in found}


def of_mixed(records: Records) -> Iterator[dict[str, Any]]:
    """Does mixed beat joint and disjoint?"""
    for other in ("joint", "disjoint"):
        yield from compared(records, "mixed", other, QUALITIES)


def of_consistency(records: Records) -> Iterator[dict[str, Any]]:
    """Does consistency let windows exit earlier than label, at equal quality?"""
    for severity in SEVERITIES:
        yield from costs_compared(records, "consistency", "label", severity)
        figures = {
            "quality at 25 %": quality_at(0.25, severity),
            "quality at 50 %": quality_at(0.5, severity),
            "final exit": lambda record, at=severity: final_quality(record, at),
            "policy's quality": lambda record, at=severity: policy_quality(record, at),
            "policy's cost": lambda record, at=severity: policy_cost(record, at),
        }
        yield from compared(records, "consistency", "label", figures, severity)


def of_weighted(records: Records) -> Iterator[dict[str, Any]]:
    """Does weighted help the budgeted curve?"""
    yield from compared(records, "weighted", "joint", QUALITIES)


def of_phase_1(records: Records) -> Iterator[dict[str, Any]]:
    """What does the length of phase 1 do? 0 is joint, 50 % is mixed."""
    for regime in ("mixed 25 %", "mixed", "mixed 75 %"):
        yield from compared(records, regime, "joint", QUALITIES)


def compared(
    records: Records, regime: str, other: str, figures: dict[str, Figure], severity: float = 0.0
) -> Iterator[dict[str, Any]]:
    """Yield a row per figure that at least one seed of both has."""
    seeds = sorted(seed for name, seed in records if name == regime and (other, seed) in records)
    for figure, value_of in figures.items():
        pairs = [(value_of(records[regime, seed]), value_of(records[other, seed])) for seed in seeds]
        yield from row_of(regime, other, figure, severity, pairs)


def costs_compared(records: Records, regime: str, other: str, severity: float) -> Iterator[dict[str, Any]]:
    """Yield the differences of the costs at which both reach the same quality.

    That quality lies so many points below the best that both curves reach, so that none is unknown.
    """
    seeds = sorted(seed for name, seed in records if name == regime and (other, seed) in records)
    curves = {
        seed: [quality_cost_curve(records[name, seed], severity) for name in (regime, other)]
        for seed in seeds
    }
    for below in POINTS_BELOW:
        pairs = []
        for both in curves.values():
            wanted = min(curve.quality.max() for curve in both) - below / 100
            pairs.append([curve.cost_at(wanted) for curve in both])
        figure = f"cost {below} point{'s' * (below > 1)} below the best quality of both"
        yield from row_of(regime, other, figure, severity, pairs)


def row_of(
    regime: str, other: str, figure: str, severity: float, pairs: list[Any]
) -> Iterator[dict[str, Any]]:
    """Yield the row of one comparison; pairs of which either is unknown are left out, and counted."""
    known = [pair for pair in pairs if None not in pair]
    if not known:
        return
    found = paired_difference(*zip(*known, strict=True), lower_is_better="cost" in figure)
    yield {
        "regime": regime,
        "against": other,
        "figure": figure,
        "severity": severity,
        "difference": round(found.mean, 5),
        "low": "" if found.interval is None else round(found.interval.low, 5),
        "high": "" if found.interval is None else round(found.interval.high, 5),
        "better_on": found.wins,
        "pairs": found.pairs,
        "pairs_unknown": len(pairs) - len(known),
    }


def forests(rows: list[dict[str, Any]]) -> dict[str, dict[str, Difference]]:
    """Return a panel per figure of the curve and the final exit on the windows as they are."""
    panels: dict[str, dict[str, Difference]] = {}
    for figure in ("quality at 25 %", "quality at 50 %", "final exit"):
        chosen = {
            f"{row['regime']} over {row['against']}, {row['data']}, {row['protocol']}": row
            for row in rows
            if (row["figure"], row["severity"]) == (figure, 0.0)
        }
        panels[figure] = {name: difference_of(chosen[name]) for name in sorted(chosen)}
    return panels


def difference_of(row: dict[str, Any]) -> Difference:
    """Return a row for the figure, in points."""
    ends = None if row["low"] == "" else Interval(100 * row["low"], 100 * row["high"], LEVEL)
    return Difference(100 * row["difference"], ends)


def official(name: str, data: str) -> list[dict[str, Any]]:
    """Return a row per regime on a data set, best on the calibration windows first: a choice rests on these.

    Cross-fitted, these are all training windows, each judged by a network that never saw its subject.
    """
    by_regime: dict[str, list[RunRecord]] = {}
    for (regime, _), record in records_of(name, data).items():
        by_regime.setdefault(regime, []).append(record)
    rows = []
    for regime, records in by_regime.items():
        final = [final_quality(record) for record in records]
        ends = mean_interval(final)
        macs = [policy_cost(record) * record.plain_macs for record in records]
        rows.append(
            {
                "sweep": name,
                "data": data,
                "regime": regime,
                "seeds": len(records),
                "calibration": round(float(np.mean([on_calibration(record) for record in records])), 4),
                "final_exit": round(float(np.mean(final)), 4),
                "low": "" if ends is None else round(ends.low, 4),
                "high": "" if ends is None else round(ends.high, 4),
                "wanted": WANTED[name, data],
                "policy": round(float(np.mean([policy_quality(record) for record in records])), 4),
                "policy_macs": round(float(np.mean(macs))),
            }
        )
    return sorted(rows, key=lambda row: -row["calibration"])


def on_calibration(record: RunRecord) -> float:
    """Return the balanced accuracy of the final exit on the windows that set the thresholds."""
    return balanced_accuracy(record.calibration_y, record.calibration_logits[:, -1].argmax(axis=1))


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row as text: shares in points."""
    ends = "" if row["low"] == "" else f" [{100 * row['low']:.2f}, {100 * row['high']:.2f}]"
    unknown = f", {row['pairs_unknown']} unknown" if row["pairs_unknown"] else ""
    return [
        *(str(row[name]) for name in ("data", "protocol", "regime", "against", "figure")),
        f"{row['severity']:g}",
        f"{100 * row['difference']:.2f}{ends}",
        f"{row['better_on']} of {row['pairs']}{unknown}",
    ]


def final_quality(record: RunRecord, severity: float = 0.0) -> float:
    """Return the balanced accuracy of the final exit."""
    return balanced_accuracy(record.y, scored(record, severity)[1][:, -1])


def first_quality(record: RunRecord) -> float:
    """Return the balanced accuracy of the first exit."""
    return balanced_accuracy(record.y, scored(record)[1][:, 0])


def policy_quality(record: RunRecord, severity: float = 0.0) -> float:
    """Return the balanced accuracy under the run's own policy."""
    return float(policy_credit(record, severity) @ balanced_weights(record.y) / len(record.y))


def policy_cost(record: RunRecord, severity: float = 0.0) -> float:
    """Return the mean cost under the run's own policy."""
    left_at, _ = decided(record, severity)
    return float(np.mean(np.asarray(record.exit_macs)[left_at - 1])) / record.plain_macs


def quality_at(share: float, severity: float = 0.0) -> Figure:
    """Return the quality on the curve at a share of the cost, as a function of a record."""
    return lambda record: quality_cost_curve(record, severity).quality_at(share)


QUALITIES: dict[str, Figure] = {
    "first exit": first_quality,
    "quality at 25 %": quality_at(0.25),
    "quality at 50 %": quality_at(0.5),
    "area under the curve": curve_area_share,
    "policy's quality": policy_quality,
    "policy's cost": policy_cost,
    "final exit": final_quality,
}
QUESTIONS: dict[str, Callable[[Records], Iterator[dict[str, Any]]]] = {
    "Does mixed beat joint and disjoint?": of_mixed,
    "Does consistency let windows exit earlier than label at equal quality?": of_consistency,
    "Does weighted help the budgeted curve?": of_weighted,
    "What does the length of phase 1 do?": of_phase_1,
}


if __name__ == "__main__":
    main()
