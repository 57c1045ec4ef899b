"""Which figures the page of a sweep holds, each with its alternative text and caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mexit_edge.benchmark import figures
from mexit_edge.benchmark.advice import MARGIN_SAID, choose
from mexit_edge.benchmark.quality_cost import QualityCostCurve, oracle_curve, quality_cost_curve
from mexit_edge.benchmark.summary import (
    FINAL_QUALITY,
    TRAINING_MACS,
    Measure,
    Setting,
    Summary,
    policy_cost,
    policy_quality,
)
from mexit_edge.report import words
from mexit_edge.report.theme import Picture, picture

if TYPE_CHECKING:
    from mexit_edge.benchmark.record import RunRecord
    from mexit_edge.benchmark.statistics import Ranking
    from mexit_edge.exits import Interval


def forest(
    summary: Summary,
    setting: Setting,
    order: Sequence[str],
    compared: Mapping[str, Measure],
    over_subjects: Mapping[tuple[str, str], Interval | None],
) -> Picture | None:
    """Return what every regime has over the reference, figure beside figure; None where nothing is paired.

    Args:
        summary: of the sweep.
        setting: to compare on.
        order: of the regimes.
        compared: title -> figure.
        over_subjects: (title, regime) -> interval of the difference over judged subjects.
    """
    forests: dict[str, dict[str, figures.Difference | None]] = {}
    for title, measure in compared.items():
        rows: dict[str, figures.Difference | None] = {}
        for regime in order:
            if regime != summary.reference:
                found = summary.difference(setting, regime, measure)
                rows[regime] = (
                    None
                    if found is None
                    else figures.Difference(
                        100 * found.mean,
                        _in_percent(found.interval),
                        _in_percent(over_subjects.get((title, regime))),
                    )
                )
        if any(rows.values()):
            forests[title] = rows
    if not forests:
        return None
    title, first = next(iter(forests.items()))
    said = "; ".join(f"{regime} {one.mean:+.2f}" for regime, one in first.items() if one is not None)
    return picture(
        partial(
            figures.plot_forests,
            forests,
            f"points of balanced accuracy over {summary.reference}",
        ),
        alt=f"Paired differences against {summary.reference} on {setting}, {title}, points: {said}.",
        caption=(
            "Solid: 95 % interval over seeds. Dotted: over judged subjects. In colour with a round mark: the "
            "interval over seeds leaves out 0; grey with a diamond: not told apart. Right is better."
        ),
        is_wide=True,
    )


def curves(
    summary: Summary, setting: Setting, order: Sequence[str], records: Mapping[str, Sequence[RunRecord]]
) -> Picture | None:
    """Return quality over cost, a panel per regime; None without records, or without a cost to save."""
    drawn: dict[str, dict[int, list[tuple[QualityCostCurve, QualityCostCurve]]]] = {}
    for regime in order:
        whole = summary.seeds(setting, regime, FINAL_QUALITY)
        for one in records.get(regime, ()):
            if one.run.seed in whole:
                of_seed = drawn.setdefault(regime, {}).setdefault(one.run.seed, [])
                of_seed.append((quality_cost_curve(one), oracle_curve(one)))
    begins = [float(one[0].cost[0]) for seeds in drawn.values() for folds in seeds.values() for one in folds]
    if not begins or max(begins) >= 1:
        return None
    lines = {regime: figures.curve_line(list(seeds.values()), max(begins)) for regime, seeds in drawn.items()}
    return picture(
        partial(
            figures.plot_panels,
            lines,
            summary.reference,
            "mean cost per window, % of the plain network's MACs",
            "balanced accuracy (%)",
        ),
        alt=f"Quality over cost on {setting}, one panel per regime: "
        + "; ".join(f"{regime} {_ends(line)}" for regime, line in lines.items())
        + ".",
        caption=(
            "Quality of int8 stages over cost, thresholds set on calibration subjects. The oracle knows the "
            "labels: no policy with these exits passes it. Up and to the left is better."
        ),
        is_wide=True,
    )


def severities(summary: Summary, setting: Setting, order: Sequence[str]) -> tuple[Picture, ...]:
    """Return the policy's quality and its cost over severity, a panel per regime."""
    severities = summary.severities_of(setting)
    made = []
    for measure, ylabel, better in (
        (policy_quality, "balanced accuracy (%)", "Higher is better"),
        (policy_cost, "cost, % of the plain network's", "Lower is cheaper; quality tells what for"),
    ):
        lines = {}
        for regime in order:
            columns = [summary.seeds(setting, regime, measure(severity)) for severity in severities]
            if all(columns):
                rows = np.array([list(column.values()) for column in columns])
                lines[regime] = figures.Line(
                    np.asarray(severities), rows.mean(axis=1), rows.min(axis=1), rows.max(axis=1)
                )
        if lines:
            made.append(
                picture(
                    partial(
                        figures.plot_panels, lines, summary.reference, "severity of perturbation", ylabel
                    ),
                    alt=f"Policy on {setting}, {ylabel} over severity: "
                    + "; ".join(f"{regime} {_ends(line)}" for regime, line in lines.items())
                    + ".",
                    caption=f"The policy on perturbed windows. {better}.",
                    is_wide=True,
                )
            )
    return tuple(made)


def training_cost(summary: Summary, setting: Setting, order: Sequence[str]) -> Picture | None:
    """Return final quality against training cost; None where it was not counted."""
    choice = choose(summary, setting, FINAL_QUALITY)
    spots = {}
    for regime in order:
        cost, quality = (summary.cell(setting, regime, one) for one in (TRAINING_MACS, FINAL_QUALITY))
        if choice is not None and cost is not None and quality is not None:
            spots[regime] = figures.Spot(
                cost.mean, quality.mean, quality.interval, is_marked=regime in choice.as_good
            )
    if not spots:
        return None
    return picture(
        partial(figures.plot_training_cost, spots, "balanced accuracy of the final exit (%)"),
        alt=f"Final quality against training cost on {setting}: "
        + "; ".join(
            f"{name} {words.macs(one.macs)}, {words.percent(one.quality)}" for name, one in spots.items()
        )
        + ".",
        caption=(
            "Cheapest training first. In colour with a round mark: the best final quality, and what is "
            f"shown to lose less than {MARGIN_SAID} to it. Lines: 95 % interval over seeds."
        ),
        is_wide=True,
    )


def ranks(title: str, ranking: Ranking) -> Picture:
    """Return average ranks by a figure, of at least two regimes."""
    shown = zip(ranking.regimes, ranking.ranks, strict=True)
    return picture(
        partial(figures.plot_ranks, ranking, title),
        alt=f"Average ranks by {title}: " + ", ".join(f"{name} {rank:.2f}" for name, rank in shown) + ".",
        caption=ranking.note,
        is_wide=True,
    )


def _in_percent(interval: Interval | None) -> Interval | None:
    if interval is None:
        return None
    return type(interval)(100 * interval.low, 100 * interval.high, interval.level)


def _ends(line: figures.Line) -> str:
    return f"from {words.percent(line.mean[0])} to {words.percent(line.mean[-1])}"
