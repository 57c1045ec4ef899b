"""What the study says to its questions: paired differences over seeds, with 95 % intervals.

    python benchmarks/study_answers.py

Reads what benchmarks/study.py left in results/study; writes answers.csv and official.csv beside it,
docs/study.svg, and every table as docs/study_tables.md. A row of answers is one regime against another, on
one data set, at equal training cost, for 60 epochs, trained on four people, or cross-fitted and judged out of
fold: the mean of the differences seed by seed, Student's interval, and on how many seeds the regime did
better. Points are of balanced accuracy of int8 stages, costs are shares of the MACs of the same network with
a single exit. Seeds split the people of watch in other ways; HAPT has the same nine test people for all, so
its intervals say nothing about other people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tables
from study_standings import (
    CROSS_FITTED,
    HERE,
    HOURS_SAID,
    OFFICIAL_SAID,
    RESULTS,
    SIXTY_EPOCHS,
    STANDINGS_SAID,
    SWEEPS,
    Row,
    advice_text,
    figures_of,
    hours,
    official_tables,
    section,
    standings_text,
    summary_of,
    table,
)

from mexit_edge.benchmark.figures import Difference, plot_forests
from mexit_edge.benchmark.quality_cost import QualityCostCurve
from mexit_edge.benchmark.rows import INT8
from mexit_edge.benchmark.statistics import LEVEL, PairedDifference, leaves_out_zero, paired_difference
from mexit_edge.benchmark.summary import (
    ROBUST_QUALITY,
    Measure,
    Setting,
    Summary,
    policy_cost,
    policy_quality,
)
from mexit_edge.benchmark.sweep import JOINT
from mexit_edge.exits import Interval
from mexit_edge.files import write_bytes
from mexit_edge.report.theme import svg
from mexit_edge.report.words import signed_points

FIGURE = HERE.parent / "docs" / "study.svg"
TABLES = FIGURE.with_name("study_tables.md")
# Of the way from the better first exit to the lower of both best qualities.
QUALITY_LEVELS = (0.5, 0.9)
SEVERITIES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
# Where more is compared than a figure has room for.
EVERY_REGIME = "Is any regime ahead of joint?"
OUT_OF_FOLD = "What do settings and regimes give out of fold?"
DRAWN = ("first exit", "quality at 25 %", "final exit")
ANSWERS_SAID = (
    "Differences in points, mean over seeds [95 % interval]; bold where the interval leaves out 0. A "
    "negative difference of costs is a saving. `policy at severities 3 to 5` is the mean over these."
)

# (regime, seed, severity) -> quality over cost.
Curves = dict[tuple[str, int, float], QualityCostCurve]


class Results(NamedTuple):
    """What a sweep says on one data set: its figures, and the curves that were kept."""

    setting: Setting
    protocol: str
    summary: Summary
    curves: Curves


def main() -> None:
    results = [
        Results(setting, said, summary_of(name), curves_of(name, setting.data))
        for data in CROSS_FITTED
        for said, name in SWEEPS.items()
        for setting in summary_of(name).settings
        if setting.data == data
    ]
    rows = [
        {"question": question, "data": one.setting.data, "protocol": one.protocol, **row}
        for question, answers in QUESTIONS.items()
        for one in results
        for row in answers(one)
    ]
    rows += [{"question": OUT_OF_FOLD, **row} for row in out_of_fold()]
    tables.write(RESULTS / "answers.csv", rows)
    drawn = [row for row in rows if row["question"] not in (EVERY_REGIME, OUT_OF_FOLD)]
    write_bytes(
        FIGURE,
        svg(lambda: plot_forests(forests(drawn), "points of balanced accuracy")),
        overwrite=True,
    )
    standings = official_tables()
    tables.write(RESULTS / "official.csv", standings)
    texts = [
        "# The tables of the study\n\nWritten by `python benchmarks/study_answers.py`; what they say is in "
        "[study.md](study.md).",
        *(answers_text(question, rows) for question in (*QUESTIONS, OUT_OF_FOLD)),
        section("On the test subjects", OFFICIAL_SAID, table(standings)),
        *(
            standings_text(name, said, note)
            for note, sweeps in STANDINGS_SAID.items()
            for name, said in sweeps.items()
        ),
        *(advice_text(said, name) for said, name in SWEEPS.items()),
        section("What it takes", HOURS_SAID, table(hours())),
    ]
    write_bytes(TABLES, ("\n\n".join(texts) + "\n").encode(), overwrite=True)
    print(f"{len(rows)} differences. Tables: {TABLES}")


def curves_of(name: str, data: str) -> Curves:
    """Return the kept curves of a sweep on a data set."""
    points: dict[tuple[str, int, float], list[tuple[float, float]]] = {}
    for row in tables.read(RESULTS / f"{name}_curves.csv"):
        if row["data"] == data:
            of_run = points.setdefault((row["regime"], int(row["seed"]), float(row["severity"])), [])
            of_run.append((float(row["cost"]), float(row["quality"])))
    return {
        which: QualityCostCurve(*map(np.asarray, zip(*some, strict=True))) for which, some in points.items()
    }


def of_mixed(results: Results) -> Iterator[Row]:
    """Does mixed beat joint and disjoint?"""
    for other in (JOINT, "disjoint"):
        yield from compared(results, "mixed", other)


def of_consistency(results: Results) -> Iterator[Row]:
    """Does consistency let windows exit earlier than label, at equal quality?"""
    for severity in SEVERITIES:
        yield from costs_compared(results, "consistency", "label", severity)
        yield from compared(results, "consistency", "label", severity)


def of_weighted(results: Results) -> Iterator[Row]:
    """Does weighted help the budgeted curve?"""
    yield from compared(results, "weighted", JOINT)


def of_phase_1(results: Results) -> Iterator[Row]:
    """What does the length of phase 1 do? 0 is joint, 50 % is mixed."""
    if results.protocol == SIXTY_EPOCHS:
        for regime in ("mixed 25 %", "mixed", "mixed 75 %"):
            yield from compared(results, regime, JOINT)


def of_epochs(results: Results) -> Iterator[Row]:
    """What do more and fewer epochs of joint do? The sweep at equal cost has half of them."""
    if results.protocol == SIXTY_EPOCHS:
        yield from compared(results, "joint twice", JOINT)
        half = summary_of(SWEEPS["equal cost"])
        for figure, measure in measures_of(results).items():
            ours, theirs = (one.seeds(results.setting, JOINT, measure) for one in (half, results.summary))
            lower = measure.lower_is_better
            yield from seed_by_seed("joint half", JOINT, figure, ours, theirs, lower_is_better=lower)


def of_every_regime(results: Results) -> Iterator[Row]:
    """Is any regime ahead of joint?"""
    for regime in results.summary.regimes_of(results.setting):
        if regime != JOINT:
            yield from compared(results, regime, JOINT)


def out_of_fold() -> Iterator[Row]:
    """Yield what settings and regimes give on the training subjects of the test's splits, cross-fitted."""
    for data, (plain, recommended) in CROSS_FITTED.items():
        for ours, theirs in (
            ((recommended, JOINT), (plain, JOINT)),
            ((recommended, "mixed"), (recommended, JOINT)),
            ((plain, "mixed"), (plain, JOINT)),
            ((plain, "alternating"), (plain, JOINT)),
            ((plain, "joint 1.5 x 120 epochs"), (plain, JOINT)),
        ):
            if all(regime in figures_of(name, data) for name, regime in (ours, theirs)):
                values = [figures_of(name, data)[regime]["out of fold"] for name, regime in (ours, theirs)]
                said = [regime if name == plain else f"{regime}, {name}" for name, regime in (ours, theirs)]
                for row in seed_by_seed(*said, "final exit", *values):
                    yield {"data": data, "protocol": "out of fold", **row}


def seed_by_seed(
    regime: str,
    other: str,
    figure: str,
    ours: dict[int, float],
    theirs: dict[int, float],
    *,
    lower_is_better: bool = False,
) -> Iterator[Row]:
    """Yield the row of two regimes of different sweeps; none where they have no seed in common."""
    pairs = [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
    if pairs:
        found = paired_difference(*zip(*pairs, strict=True), lower_is_better=lower_is_better)
        yield row_of(regime, other, figure, 0.0, found)


def compared(results: Results, regime: str, other: str, severity: float = 0.0) -> Iterator[Row]:
    """Yield a row per figure that at least one seed of both has."""
    for figure, measure in measures_of(results, severity).items():
        found = results.summary.difference(results.setting, regime, measure, other)
        if found is not None:
            yield row_of(regime, other, figure, severity, found)


def measures_of(results: Results, severity: float = 0.0) -> dict[str, Measure]:
    """Return what regimes are compared by."""
    exits = results.summary.exits_of(results.setting)
    measures = {
        "first exit": Measure("balanced_accuracy", INT8, exits[0], severity),
        "quality at 25 %": Measure("quality_at_cost", INT8, None, severity, 0.25),
        "quality at 50 %": Measure("quality_at_cost", INT8, None, severity, 0.5),
        "curve as a share of the oracle's": Measure("curve_area_share", INT8, None, severity),
        "policy's quality": policy_quality(severity),
        "policy's cost": policy_cost(severity),
        "final exit": Measure("balanced_accuracy", INT8, exits[-1], severity),
    }
    return measures if severity else {**measures, "policy at severities 3 to 5": ROBUST_QUALITY}


def costs_compared(results: Results, regime: str, other: str, severity: float) -> Iterator[Row]:
    """Yield the differences of the costs at which both reach the same quality.

    That quality lies between the first exits and the best qualities of both, so that each has to spend
    something and none is unknown. Seeds where the curves have no such quality are left out.
    """
    ours, theirs = (
        {seed: curve for (name, seed, at), curve in results.curves.items() if (name, at) == (one, severity)}
        for one in (regime, other)
    )
    curves = [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
    ends = [
        (max(float(one.quality[0]) for one in both), min(float(one.quality.max()) for one in both))
        for both in curves
    ]
    for level in QUALITY_LEVELS:
        pairs = [
            [known(one.cost_at(low + level * (high - low))) for one in both]
            for both, (low, high) in zip(curves, ends, strict=True)
            if low < high
        ]
        if pairs:
            found = paired_difference(*zip(*pairs, strict=True), lower_is_better=True)
            yield row_of(regime, other, f"cost of {100 * level:.0f} % of the gain", severity, found)


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
        "difference": round(found.mean, 7),
        "low": "" if found.interval is None else round(found.interval.low, 7),
        "high": "" if found.interval is None else round(found.interval.high, 7),
        "better_on": found.wins,
        "pairs": found.pairs,
    }


def forests(rows: list[Row]) -> dict[str, dict[str, Difference | None]]:
    """Return a panel per figure that is drawn, on the windows as they are."""
    panels: dict[str, dict[str, Difference]] = {}
    for figure in DRAWN:
        chosen = {
            f"{row['regime']} over {row['against']}, {row['data']}, {row['protocol']}": row
            for row in rows
            if (row["figure"], row["severity"]) == (figure, 0.0)
        }
        panels[figure] = {name: difference_of(row) for name, row in chosen.items()}
    names = dict.fromkeys(name for panel in panels.values() for name in panel)
    return {figure: {name: panel.get(name) for name in names} for figure, panel in panels.items()}


def difference_of(row: Row) -> Difference:
    """Return a row for the figure, in points."""
    ends = None if row["low"] == "" else Interval(100 * row["low"], 100 * row["high"], LEVEL)
    return Difference(100 * row["difference"], ends)


def answers_text(question: str, rows: list[Row]) -> str:
    """Return the tables of a question: a row per comparison, a column per figure."""
    lines: dict[tuple[Any, ...], Row] = {}
    for row in (one for one in rows if one["question"] == question):
        head = {
            "data": row["data"],
            "protocol": row["protocol"],
            "regime": f"{row['regime']} over {row['against']}",
            "severity": f"{row['severity']:g}",
            "seeds": row["pairs"],
        }
        lines.setdefault(tuple(head.values()), head)[row["figure"]] = difference_text(row)
    return section(question, ANSWERS_SAID, table(list(lines.values())))


def difference_text(row: Row) -> str:
    """Return a difference in points with its interval, bold where that leaves out 0."""
    if row["low"] == "":
        return signed_points(row["difference"])
    ends = Interval(row["low"], row["high"], LEVEL)
    text = f"{signed_points(row['difference'])} [{signed_points(ends.low)}, {signed_points(ends.high)}]"
    return f"**{text}**" if leaves_out_zero(ends) else text


QUESTIONS: dict[str, Callable[[Results], Iterator[Row]]] = {
    "Does mixed beat joint and disjoint?": of_mixed,
    "Does consistency let windows exit earlier than label at equal quality?": of_consistency,
    "Does weighted help the budgeted curve?": of_weighted,
    "What does the length of phase 1 do?": of_phase_1,
    "What do twice and half the epochs of joint do?": of_epochs,
    EVERY_REGIME: of_every_regime,
}


if __name__ == "__main__":
    main()
