"""Where every regime stands: the tables of the study that are not differences.

benchmarks/study_answers.py writes them. Rows are those of results/study.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tables

from mexit_edge.benchmark.advice import advise, points_of, severities_said, share_of
from mexit_edge.benchmark.rows import INT8, PLAIN
from mexit_edge.benchmark.statistics import mean_interval
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
from mexit_edge.report import words

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "study"
PLAIN_MACS = Measure("macs", None, PLAIN)
SIXTY_EPOCHS = "60 epochs"
# What is compared, under the words of the tables -> sweep.
SWEEPS = {"equal cost": "equal_cost", SIXTY_EPOCHS: "converged", "four people": "hapt_small"}
# Data -> sweeps that were cross-fitted, so that a choice between them can rest on training subjects.
CROSS_FITTED = {"hapt": ("cross_fit", "hapt_recommended"), "watch": ("cross_fit", "watch_recommended")}
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
STANDINGS = {
    "first exit": exit_quality("exit_01"),
    "at 25 % of the cost": quality_at(0.25),
    "final exit": FINAL_QUALITY,
    "policy": policy_quality(),
    "its cost": policy_cost(),
}
OFFICIAL_SAID = (
    "Balanced accuracy of int8 stages, mean over seeds with 95 % interval; `policy_macs` is the mean of the "
    "multiply-accumulates per window. `out_of_fold` is the quality on all training windows, each judged by a "
    "network that never saw its subject: what a choice may rest on. Of the best split by split it is left "
    "out: the best of several looks better than it is."
)
# Note -> sweep -> heading.
STANDINGS_SAID = {
    "Test subjects. Balanced accuracy of int8 stages in percent, mean over a regime's seeds [95 % interval]; "
    "costs are percents of what the same network with a single exit computes. In order of the final exit "
    "over joint on the same seeds, since other seeds split the people of watch in other ways.": {
        "converged": "Every regime, 60 epochs",
        "equal_cost": "Every regime, for what 30 epochs of joint cost",
        "hapt_small": "Small data: four training subjects of HAPT",
    },
    "Training subjects in three folds, mean over folds and draws of them (seeds); in percent. With one draw "
    "there is no interval.": {
        "hapt_choice": "Out of fold: which regime",
        "hapt_settings": "Out of fold: how to train it",
        "watch_settings": "Out of fold: how to train on watch",
        "hapt_backbones": "Out of fold: other networks",
        "hapt_wide_tail": "Out of fold: wider later blocks, trained longer",
    },
}
HOURS_SAID = (
    "By the clock of two cores, which did other work as well. `measured_hours` are of the starts that were "
    "timed, `estimated_hours` of all runs of the sweep at that pace, though runs differ in length."
)
ADVICE_SAID = (
    "As the page of the sweep says it. These are test subjects: it is no recommendation, which rests on what "
    "is out of fold. No interval is corrected for the number of regimes."
)

Row = dict[str, Any]
# Figure -> seed -> value.
Figures = dict[str, dict[int, float]]


@cache
def summary_of(name: str) -> Summary:
    """Return every figure of a sweep, of its committed rows."""
    return summarise(read_rows(RESULTS / f"{name}.csv"))


def official_tables() -> list[Row]:
    """Return what was reached on test subjects: sweep by sweep, and chosen out of fold in every split."""
    rows = [row for name, data in WANTED for row in official(name, data)]
    return [
        *rows,
        *(best_by_split(data, among) for data, all_ in CROSS_FITTED.items() for among in (all_[:1], all_)),
    ]


def official(name: str, data: str) -> list[Row]:
    """Return a row per regime, in order of quality: out of fold where it is cross-fitted, else on the test.

    Cross-fitted, the calibration windows are all training windows, each judged by a network that never saw
    its subject, and a choice rests on them. Otherwise they are those of three people, and are left out.
    """
    rows = [
        reached(name, data, regime, figures, is_cross_fitted=name in CROSS_FITTED.get(data, ()))
        for regime, figures in figures_of(name, data).items()
    ]
    return sorted(rows, key=lambda row: -(row["out_of_fold"] or row["final_exit"]))


def best_by_split(data: str, sweeps: tuple[str, ...]) -> Row:
    """Return what is reached by taking in each split what is best on its own training subjects."""
    candidates = [figures for name in sweeps for figures in figures_of(name, data).values()]
    common = set.intersection(*(set(figures["out of fold"]) for figures in candidates))
    best = {seed: max(candidates, key=lambda one: one["out of fold"][seed]) for seed in sorted(common)}
    chosen = {
        figure: {seed: figures[figure][seed] for seed, figures in best.items()} for figure in candidates[0]
    }
    row = reached(sweeps[0], data, BEST_BY_SPLIT, chosen, is_cross_fitted=False)
    return {**row, "sweep": " and ".join(sweeps)}


@cache
def figures_of(name: str, data: str) -> dict[str, Figures]:
    """Return regime -> figure -> seed -> value."""
    summary = summary_of(name)
    (setting,) = (one for one in summary.settings if one.data == data)
    measures = {
        "out of fold": Measure("calibration_balanced_accuracy", INT8, summary.exits_of(setting)[-1]),
        "final exit": FINAL_QUALITY,
        "policy": policy_quality(),
        "cost": policy_cost(),
        "plain": PLAIN_MACS,
    }
    return {
        regime: {figure: summary.seeds(setting, regime, measure) for figure, measure in measures.items()}
        for regime in summary.regimes_of(setting)
    }


def reached(name: str, data: str, regime: str, figures: Figures, *, is_cross_fitted: bool) -> Row:
    """Return a row of what was reached, and what is missing to what was wanted."""
    finals = list(figures["final exit"].values())
    interval, wanted = mean_interval(finals), WANTED[name, data]
    means = {figure: float(np.mean(list(values.values()))) for figure, values in figures.items()}
    return {
        "sweep": name,
        "data": data,
        "regime": regime,
        "seeds": len(finals),
        "out_of_fold": round(means["out of fold"], 4) if is_cross_fitted else "",
        "final_exit": round(means["final exit"], 4),
        "low": "" if interval is None else round(interval.low, 4),
        "high": "" if interval is None else round(interval.high, 4),
        "wanted": wanted,
        "missed_by": round(max(0.0, wanted - means["final exit"]), 4),
        "policy": round(means["policy"], 4),
        "policy_macs": round(means["cost"] * means["plain"]),
    }


def standings_text(name: str, said: str, note: str) -> str:
    """Return the table of every regime and network of a sweep, by the final exit over joint."""
    summary = summary_of(name)
    lines: list[Row] = []
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
            lines.append(row)
    return section(said, note, table(lines))


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
    return section(f"What stands first on the test subjects, {said}", ADVICE_SAID, table(rows))


def hours() -> list[Row]:
    """Return a row per sweep; unknown where no start of it was timed."""
    starts = tables.read(RESULTS / "hours.csv")
    rows = []
    for path in sorted((HERE / "study").glob("*.toml")):
        timed = [one for one in starts if one["sweep"] == path.stem and int(one["runs"])]
        n_timed = sum(int(one["runs"]) for one in timed)
        measured = sum(float(one["measured_hours"]) for one in timed)
        n_runs = read_sweep(path).n_runs
        rows.append(
            {
                "sweep": path.stem,
                "runs": n_runs,
                "timed_runs": n_timed,
                "measured_hours": f"{measured:.2f}" if timed else words.UNKNOWN,
                "estimated_hours": f"{n_runs * measured / n_timed:.1f}" if timed else words.UNKNOWN,
            }
        )
    return rows


def section(title: str, said: str, text: str) -> str:
    """Return a part of the file of tables."""
    return f"## {title}\n\n{said}\n\n{text}"


def table(rows: list[Row]) -> str:
    """Return rows as a table of Markdown; columns that no row fills are left out."""
    named = dict.fromkeys(key for row in rows for key in row)
    columns = [name for name in named if any(row.get(name, "") != "" for row in rows)]
    lines = [columns, ["---"] * len(columns), *([str(row.get(name, "")) for name in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
