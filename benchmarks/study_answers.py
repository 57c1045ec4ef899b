"""What the study says to its questions: paired differences over seeds, with 95 % intervals.

    python benchmarks/study_answers.py

Reads what benchmarks/study.py left in results/study; writes answers.csv and official.csv beside it,
docs/study.svg, and every table as docs/study_tables.md. A row of answers is one regime against another, on
one data set, at equal training cost, at convergence (60 epochs) or trained on four people: the mean of the
differences seed by seed, Student's interval, and on how many seeds the regime did better. Points are of
balanced accuracy of int8 stages, costs are shares of the MACs of the same network with a single exit. Seeds
split the people of watch in other ways; HAPT has the same nine test people for all, so its intervals say
nothing about other people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tables

from mexit_edge.benchmark.advice import advise, points_of, severities_said, share_of
from mexit_edge.benchmark.figures import Difference, plot_forests
from mexit_edge.benchmark.quality_cost import QualityCostCurve
from mexit_edge.benchmark.rows import INT8, PLAIN
from mexit_edge.benchmark.statistics import (
    LEVEL,
    PairedDifference,
    leaves_out_zero,
    mean_interval,
    paired_difference,
)
from mexit_edge.benchmark.summary import (
    FINAL_QUALITY,
    ROBUST_QUALITY,
    TRAINING_MACS,
    Measure,
    Setting,
    Summary,
    exit_quality,
    policy_cost,
    policy_quality,
    quality_at,
    read_rows,
    robust_severities,
    summarise,
)
from mexit_edge.benchmark.sweep import JOINT, read_sweep
from mexit_edge.benchmark.tables import by_final_quality
from mexit_edge.exits import Interval
from mexit_edge.files import write_bytes
from mexit_edge.report.theme import svg
from mexit_edge.report.words import signed_points

HERE = Path(__file__).parent
OUT = HERE / "results" / "study" / "answers.csv"
OFFICIAL = OUT.with_name("official.csv")
FIGURE = HERE.parent / "docs" / "study.svg"
TABLES = FIGURE.with_name("study_tables.md")
# Sweep, data -> wanted balanced accuracy of the final exit.
WANTED = {
    ("converged", "hapt"): 0.955,
    ("four_sets", "hapt"): 0.955,
    ("cross_fit", "hapt"): 0.97,
    ("hapt_recommended", "hapt"): 0.97,
    ("cross_fit", "watch"): 0.92,
    ("watch_recommended", "watch"): 0.92,
}
BEST_BY_SPLIT = "best out of fold, split by split"
DATA = ("hapt", "watch")
SWEEPS = {"equal cost": "equal_cost", "converged": "converged", "four people": "hapt_small"}
# Every regime is compared there, which no figure has room for.
EVERY_REGIME = "Is any regime ahead of joint?"
# Of the way from the better first exit to the lower of both best qualities.
QUALITY_LEVELS = (0.5, 0.9)
PLAIN_MACS = Measure("macs", None, PLAIN)
SEVERITIES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
STANDINGS = {
    "first exit": exit_quality("exit_01"),
    "at 25 % of the cost": quality_at(0.25),
    "final exit": FINAL_QUALITY,
    "policy": policy_quality(),
    "its cost": policy_cost(),
}
ANSWERS_SAID = (
    "Differences in points, mean over seeds [95 % interval]; bold where the interval leaves out 0. A "
    "negative difference of costs is a saving."
)
OFFICIAL_SAID = (
    "Balanced accuracy of int8 stages, mean over seeds with 95 % interval; `policy_macs` is the mean of the "
    "multiply-accumulates per window. `out_of_fold` is the quality on all training windows, each judged by a "
    "network that never saw its subject: what a choice may rest on."
)
# Note -> sweep -> heading.
STANDINGS_SAID = {
    "Test subjects. Balanced accuracy of int8 stages in percent, mean over a regime's seeds [95 % interval]; "
    "costs are percents of what the same network with a single exit computes.": {
        "converged": "Every regime, 60 epochs",
        "equal_cost": "Every regime, for what 30 epochs of joint cost",
        "hapt_small": "Small data: four training subjects of HAPT",
    },
    "Training subjects in three folds, mean over folds and seeds; in percent.": {
        "hapt_choice": "Out of fold: which regime",
        "hapt_settings": "Out of fold: how to train it",
        "watch_settings": "Out of fold: how to train on watch",
        "hapt_backbones": "Out of fold: other networks",
        "hapt_wide_tail": "Out of fold: wider later blocks, trained longer",
    },
}
HOURS_SAID = (
    "By the clock of two cores, which did other work as well. `measured_hours` are of the starts that were "
    "timed, `estimated_hours` of all runs of the sweep at that pace."
)
ADVICE_SAID = "As the page of the sweep says it. No interval is corrected for the number of regimes."

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
        if any(setting.data == data for setting in summary_of(name).settings)
    ]
    rows = [
        {"question": question, "data": one.data, "protocol": one.protocol, **row}
        for question, answers in QUESTIONS.items()
        for one in results
        for row in answers(one)
    ]
    tables.write(OUT, rows)
    of_few = [row for row in rows if row["question"] != EVERY_REGIME]
    drawn = svg(lambda: plot_forests(forests(of_few), "points of balanced accuracy"))
    write_bytes(FIGURE, drawn, overwrite=True)
    standings = [row for name, data in WANTED for row in official(name, data)]
    tables.write(OFFICIAL, standings)
    texts = [
        "# The tables of the study\n\nWritten by `python benchmarks/study_answers.py`; what they say is in "
        "[study.md](study.md).",
        *(answers_text(question, rows) for question in QUESTIONS),
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


@cache
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


def of_epochs(results: Results) -> Iterator[Row]:
    """What do more and fewer epochs of joint do? The sweep at equal cost has half of them."""
    if results.protocol == "converged":
        yield from compared(results, "joint twice", JOINT)
        half = summary_of(SWEEPS["equal cost"])
        for setting, figure, measure in figures_of(results):
            ours, theirs = (one.seeds(setting, JOINT, measure) for one in (half, results.summary))
            pairs = [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
            found = paired_difference(*zip(*pairs, strict=True), lower_is_better=measure.lower_is_better)
            yield row_of("joint half", JOINT, figure, 0.0, found)


def of_every_regime(results: Results) -> Iterator[Row]:
    """Is any regime ahead of joint?"""
    for setting in results.summary.settings:
        if setting.data == results.data:
            for regime in results.summary.regimes_of(setting):
                if regime != JOINT:
                    yield from compared(results, regime, JOINT)
                    found = results.summary.difference(setting, regime, ROBUST_QUALITY, JOINT)
                    if found is not None:
                        yield row_of(regime, JOINT, "policy at severities 3 to 5", 0.0, found)


def compared(results: Results, regime: str, other: str, severity: float = 0.0) -> Iterator[Row]:
    """Yield a row per figure that at least one seed of both has."""
    for setting, figure, measure in figures_of(results, severity):
        found = results.summary.difference(setting, regime, measure, other)
        if found is not None:
            yield row_of(regime, other, figure, severity, found)


def figures_of(results: Results, severity: float = 0.0) -> Iterator[tuple[Setting, str, Measure]]:
    """Yield what regimes are compared by."""
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
                yield setting, figure, measure


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
        "difference": round(found.mean, 5),
        "low": "" if found.interval is None else round(found.interval.low, 5),
        "high": "" if found.interval is None else round(found.interval.high, 5),
        "better_on": found.wins,
        "pairs": found.pairs,
    }


def forests(rows: list[Row]) -> dict[str, dict[str, Difference | None]]:
    """Return a panel for the first exit, the curve and the final exit, on the windows as they are."""
    panels: dict[str, dict[str, Difference]] = {}
    for figure in ("first exit", "quality at 25 %", "final exit"):
        chosen = {
            f"{row['regime']} over {row['against']}, {row['data']}, {row['protocol']}": row
            for row in rows
            if (row["figure"], row["severity"]) == (figure, 0.0)
        }
        panels[figure] = {name: difference_of(chosen[name]) for name in sorted(chosen)}
    names = sorted({name for rows in panels.values() for name in rows})
    return {figure: {name: rows.get(name) for name in names} for figure, rows in panels.items()}


def difference_of(row: Row) -> Difference:
    """Return a row for the figure, in points."""
    ends = None if row["low"] == "" else Interval(100 * row["low"], 100 * row["high"], LEVEL)
    return Difference(100 * row["difference"], ends)


def official(name: str, data: str) -> list[Row]:
    """Return a row per regime on a data set, best out of fold first, and one of what is best split by split.

    Cross-fitted, the calibration windows are all training windows, each judged by a network that never saw
    its subject, and a choice rests on them. Otherwise they are those of three people, and are left out.
    """
    summary = summary_of(name)
    (setting,) = (one for one in summary.settings if one.data == data)
    out_of_fold = Measure("calibration_balanced_accuracy", INT8, summary.exits_of(setting)[-1])
    measures = (out_of_fold, FINAL_QUALITY, policy_quality(), policy_cost(), PLAIN_MACS)
    found = {
        regime: {measure: summary.seeds(setting, regime, measure) for measure in measures}
        for regime in summary.regimes_of(setting)
    }
    is_cross_fitted = read_sweep(HERE / "study" / f"{name}.toml").protocol.cross_fit is not None
    if is_cross_fitted and len(found) > 1:
        common = set.intersection(*(set(figures[out_of_fold]) for figures in found.values()))
        best = {seed: max(found, key=lambda one: found[one][out_of_fold][seed]) for seed in sorted(common)}
        found[BEST_BY_SPLIT] = {
            measure: {seed: found[regime][measure][seed] for seed, regime in best.items()}
            for measure in measures
        }
    rows = []
    for regime, figures in found.items():
        calibration, final, policy, cost, plain = (
            float(np.mean(list(figures[measure].values()))) for measure in measures
        )
        finals = list(figures[FINAL_QUALITY].values())
        interval = mean_interval(finals)
        rows.append(
            {
                "sweep": name,
                "data": data,
                "regime": regime,
                "seeds": len(finals),
                "out_of_fold": round(calibration, 4) if is_cross_fitted else "",
                "final_exit": round(final, 4),
                "low": "" if interval is None else round(interval.low, 4),
                "high": "" if interval is None else round(interval.high, 4),
                "wanted": WANTED[name, data],
                "missed_by": round(max(0.0, WANTED[name, data] - final), 4),
                "policy": round(policy, 4),
                "policy_macs": round(cost * plain),
            }
        )
    return sorted(rows, key=lambda row: -(row["out_of_fold"] or row["final_exit"]))


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


def standings_text(name: str, said: str, note: str) -> str:
    """Return the table of every regime and network of a sweep, the best final exit first."""
    summary = summary_of(name)
    rows: list[Row] = []
    for setting in summary.settings:
        robustness = f"policy at {severities_said(robust_severities(summary.severities_of(setting)))}"
        for regime in by_final_quality(summary, setting):
            row: Row = {"data": setting.data, "network": setting.backbone, "regime": regime}
            for title, measure in {**STANDINGS, robustness: ROBUST_QUALITY}.items():
                cell = summary.cell(setting, regime, measure)
                row[title] = "" if cell is None else share_of(cell)
                if measure is FINAL_QUALITY:
                    row["over joint, same seeds"] = over_joint(summary, setting, regime)
                    row["seeds"] = "" if cell is None else cell.seeds
            ratio = summary.ratio(setting, regime, TRAINING_MACS)
            row["training cost over joint"] = "" if ratio is None else f"{ratio:.2f}"
            rows.append(row)
    return section(said, note, table(rows))


def over_joint(summary: Summary, setting: Setting, regime: str) -> str:
    """Return the paired difference of the final exit against joint, where that is there."""
    found = None if regime == JOINT else summary.difference(setting, regime, FINAL_QUALITY, JOINT)
    return "" if found is None else points_of(found)


def advice_text(said: str, name: str) -> str:
    """Return what the page of a sweep advises."""
    rows = [
        {"if you want": advice.want, **asdict(pick)}
        for advice in advise(summary_of(name))
        for pick in advice.picks
    ]
    return section(f"Which regime to take, {said}", ADVICE_SAID, table(rows))


def hours() -> list[Row]:
    """Return a row per sweep that was timed."""
    rows: dict[str, Row] = {}
    for start in (one for one in tables.read(OUT.with_name("hours.csv")) if int(one["runs"])):
        row = rows.setdefault(
            start["sweep"], {"sweep": start["sweep"], "timed_runs": 0, "measured_hours": 0.0}
        )
        row["timed_runs"] += int(start["runs"])
        row["measured_hours"] += float(start["measured_hours"])
    for name, row in rows.items():
        row["runs"] = read_sweep(HERE / "study" / f"{name}.toml").n_runs
        row["measured_hours"] = round(row["measured_hours"], 2)
        row["estimated_hours"] = round(row["runs"] * row["measured_hours"] / row["timed_runs"], 1)
    return list(rows.values())


def section(title: str, said: str, text: str) -> str:
    """Return a part of the file of tables."""
    return f"## {title}\n\n{said}\n\n{text}"


def table(rows: list[Row]) -> str:
    """Return rows as a table of Markdown; columns that no row fills are left out."""
    named = dict.fromkeys(key for row in rows for key in row)
    columns = [name for name in named if any(row.get(name, "") != "" for row in rows)]
    lines = [columns, ["---"] * len(columns), *([str(row.get(name, "")) for name in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


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
