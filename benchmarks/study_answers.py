"""What the study says to its questions: paired differences over seeds, with 95 % intervals.

    python benchmarks/study_answers.py

Reads what benchmarks/study.py left in results/study; prints a table per question, and what each regime
reaches on the test subjects; writes answers.csv and official.csv beside it, and docs/study.svg. A row of
answers is one regime against another, on one data set, at equal training cost or at convergence (60
epochs): the mean of the differences seed by seed, Student's interval, and on how many seeds the regime did
better. Points are of balanced accuracy of int8 stages, costs are shares of the MACs of the same network
with a single exit. Seeds split the people of watch in other ways; HAPT has the same nine test people for
all, so its intervals say nothing about other people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tables

from mexit_edge.benchmark.figures import Difference, plot_forests
from mexit_edge.benchmark.quality_cost import QualityCostCurve
from mexit_edge.benchmark.rows import INT8, PLAIN
from mexit_edge.benchmark.statistics import LEVEL, PairedDifference, paired_difference
from mexit_edge.benchmark.summary import (
    FINAL_QUALITY,
    Measure,
    Summary,
    policy_cost,
    policy_quality,
    read_rows,
    summarise,
)
from mexit_edge.exits import Interval
from mexit_edge.files import write_bytes
from mexit_edge.report.theme import svg

HERE = Path(__file__).parent
OUT = HERE / "results" / "study" / "answers.csv"
OFFICIAL = OUT.with_name("official.csv")
FIGURE = HERE.parent / "docs" / "study.svg"
# Sweep, data -> wanted balanced accuracy of the final exit.
WANTED = {("converged", "hapt"): 0.955, ("cross_fit", "hapt"): 0.97, ("cross_fit", "watch"): 0.92}
DATA = ("hapt", "watch")
SWEEPS = {"equal cost": "equal_cost", "converged": "converged"}
POINTS_BELOW = (1, 3)
PLAIN_MACS = Measure("macs", None, PLAIN)
SEVERITIES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)

# (regime, seed, severity) -> quality over cost.
Curves = dict[tuple[str, int, float], QualityCostCurve]
Row = dict[str, Any]


class Results(NamedTuple):
    """What a sweep says on one data set: its figures, and the curves that were kept."""

    data: str
    protocol: str
    summary: Summary
    curves: Curves


def main() -> None:
    results = [
        Results(data, said, summary_of(name), curves_of(name, data))
        for data in DATA
        for said, name in SWEEPS.items()
        if results_of(name).exists()
    ]
    rows = [
        {"question": question, "data": one.data, "protocol": one.protocol, **row}
        for question, answers in QUESTIONS.items()
        for one in results
        for row in answers(one)
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


def curves_of(name: str, data: str) -> Curves:
    """Return the kept curves of a sweep on a data set."""
    points: dict[tuple[str, int, float], list[tuple[float, float]]] = {}
    for row in tables.read(OUT.with_name(f"{name}_curves.csv")):
        if row["data"] == data:
            of_run = points.setdefault((row["regime"], int(row["seed"]), float(row["severity"])), [])
            of_run.append((float(row["cost"]), float(row["quality"])))
    return {
        which: QualityCostCurve(*map(np.asarray, zip(*some, strict=True))) for which, some in points.items()
    }


def results_of(name: str) -> Path:
    """Return the committed rows of a sweep."""
    return OUT.with_name(f"{name}.csv")


def summary_of(name: str) -> Summary:
    """Return every figure of a sweep."""
    return summarise(read_rows(results_of(name)))


def of_mixed(results: Results) -> Iterator[Row]:
    """Does mixed beat joint and disjoint?"""
    for other in ("joint", "disjoint"):
        yield from compared(results, "mixed", other)


def of_consistency(results: Results) -> Iterator[Row]:
    """Does consistency let windows exit earlier than label, at equal quality?"""
    for severity in SEVERITIES:
        yield from costs_compared(results, "consistency", "label", severity)
        yield from compared(results, "consistency", "label", severity)


def of_weighted(results: Results) -> Iterator[Row]:
    """Does weighted help the budgeted curve?"""
    yield from compared(results, "weighted", "joint")


def of_phase_1(results: Results) -> Iterator[Row]:
    """What does the length of phase 1 do? 0 is joint, 50 % is mixed."""
    for regime in ("mixed 25 %", "mixed", "mixed 75 %"):
        yield from compared(results, regime, "joint")


def compared(results: Results, regime: str, other: str, severity: float = 0.0) -> Iterator[Row]:
    """Yield a row per figure that at least one seed of both has."""
    for setting in results.summary.settings:
        if setting.data == results.data:
            exits = results.summary.exits_of(setting)
            measures = {
                "first exit": Measure("balanced_accuracy", INT8, exits[0], severity),
                "quality at 25 %": Measure("quality_at_cost", INT8, None, severity, 0.25),
                "quality at 50 %": Measure("quality_at_cost", INT8, None, severity, 0.5),
                "area under the curve": Measure("curve_area_share", INT8, None, severity),
                "policy's quality": policy_quality(severity),
                "policy's cost": policy_cost(severity),
                "final exit": Measure("balanced_accuracy", INT8, exits[-1], severity),
            }
            for figure, measure in measures.items():
                found = results.summary.difference(setting, regime, measure, other)
                if found is not None:
                    yield row_of(regime, other, figure, severity, found)


def costs_compared(results: Results, regime: str, other: str, severity: float) -> Iterator[Row]:
    """Yield the differences of the costs at which both reach the same quality.

    That quality lies so many points below the best that both curves reach, so that none is unknown.
    """
    ours, theirs = (
        {seed: curve for (name, seed, at), curve in results.curves.items() if (name, at) == (one, severity)}
        for one in (regime, other)
    )
    curves = [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
    for below in POINTS_BELOW if curves else ():
        pairs = []
        for both in curves:
            wanted = min(curve.quality.max() for curve in both) - below / 100
            pairs.append([known(curve.cost_at(wanted)) for curve in both])
        found = paired_difference(*zip(*pairs, strict=True), lower_is_better=True)
        figure = f"cost {below} point{'s' * (below > 1)} below the best quality of both"
        yield row_of(regime, other, figure, severity, found)


def known(cost: float | None) -> float:
    """Return the cost of a quality that the curve reaches."""
    assert cost is not None
    return cost


def row_of(regime: str, other: str, figure: str, severity: float, found: PairedDifference) -> Row:
    """Return the row of one comparison."""
    return {
        "regime": regime,
        "against": other,
        "figure": figure,
        "severity": severity,
        "difference": round(found.mean, 5),
        "low": "" if found.interval is None else round(found.interval.low, 5),
        "high": "" if found.interval is None else round(found.interval.high, 5),
        "better_on": found.wins,
        "pairs": found.pairs,
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


def official(name: str, data: str) -> list[Row]:
    """Return a row per regime on a data set, best on the calibration windows first.

    Cross-fitted, these are all training windows, each judged by a network that never saw its subject, and a
    choice rests on them. Otherwise they are those of three people.
    """
    if not results_of(name).exists():
        return []
    summary = summary_of(name)
    rows = []
    for setting in (one for one in summary.settings if one.data == data):
        final_exit = summary.exits_of(setting)[-1]
        on_calibration = Measure("calibration_balanced_accuracy", INT8, final_exit)
        for regime in summary.regimes_of(setting):
            calibration, final, policy, cost, plain = (
                summary.cell(setting, regime, one)
                for one in (on_calibration, FINAL_QUALITY, policy_quality(), policy_cost(), PLAIN_MACS)
            )
            if final is not None and policy is not None and cost is not None and plain is not None:
                rows.append(
                    {
                        "sweep": name,
                        "data": data,
                        "regime": regime,
                        "seeds": final.seeds,
                        "calibration": "" if calibration is None else round(calibration.mean, 4),
                        "final_exit": round(final.mean, 4),
                        "low": "" if final.interval is None else round(final.interval.low, 4),
                        "high": "" if final.interval is None else round(final.interval.high, 4),
                        "wanted": WANTED[name, data],
                        "policy": round(policy.mean, 4),
                        "policy_macs": round(cost.mean * plain.mean),
                    }
                )
    return sorted(rows, key=lambda row: -(row["calibration"] or 0))


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row as text: shares in points."""
    ends = "" if row["low"] == "" else f" [{100 * row['low']:.2f}, {100 * row['high']:.2f}]"
    return [
        *(str(row[name]) for name in ("data", "protocol", "regime", "against", "figure")),
        f"{row['severity']:g}",
        f"{100 * row['difference']:.2f}{ends}",
        f"{row['better_on']} of {row['pairs']}",
    ]


QUESTIONS: dict[str, Callable[[Results], Iterator[Row]]] = {
    "Does mixed beat joint and disjoint?": of_mixed,
    "Does consistency let windows exit earlier than label at equal quality?": of_consistency,
    "Does weighted help the budgeted curve?": of_weighted,
    "What does the length of phase 1 do?": of_phase_1,
}


if __name__ == "__main__":
    main()
