"""The page's tables of a sweep, as text cells; best final quality first, and losing rows like any other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mexit_edge.benchmark.advice import points_of, severities_said, share_of
from mexit_edge.benchmark.rows import COST_SHARES, FLOAT, INT8, POLICY
from mexit_edge.benchmark.statistics import Ranking
from mexit_edge.benchmark.summary import (
    FINAL_QUALITY,
    ROBUST_COST,
    ROBUST_QUALITY,
    TRAINING_MACS,
    TRAINING_WINDOWS,
    Cell,
    Measure,
    Setting,
    Summary,
    exit_quality,
    policy_cost,
    policy_quality,
    quality_at,
    robust_severities,
)
from mexit_edge.report import words
from mexit_edge.report.tables import Table

if TYPE_CHECKING:
    from mexit_edge.exits import Interval

OVER_SEEDS = (
    "Means over a regime's own seeds, in brackets their 95 % interval (Student's t); none with one seed."
)
MERITS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "kappa": "kappa",
}


def by_final_quality(summary: Summary, setting: Setting) -> tuple[str, ...]:
    """Return the regimes of a setting, best final quality first, and last what has none yet."""
    standings = {
        regime: summary.standing(setting, regime, FINAL_QUALITY) for regime in summary.regimes_of(setting)
    }
    return tuple(sorted(standings, key=lambda one: -(standings[one] or 0.0)))


def quality_table(summary: Summary, setting: Setting) -> Table:
    """Return balanced accuracy per exit and of the policy, and what the policy costs."""
    exits = summary.exits_of(setting)
    rows = []
    for regime in by_final_quality(summary, setting):
        cells = [share_of(summary.cell(setting, regime, exit_quality(one))) for one in exits]
        final = summary.cell(setting, regime, exit_quality(exits[-1], FLOAT)) if exits else None
        policy = summary.cell(setting, regime, policy_quality())
        cost = summary.cell(setting, regime, policy_cost())
        seeds = len(summary.seeds(setting, regime, policy_quality()))
        rows.append((regime, *cells, share_of(final), share_of(policy), share_of(cost), str(seeds)))
    return Table(
        "Balanced accuracy of int8 stages on the windows as they are, when every window leaves at the "
        "exit, and of the policy, whose thresholds were set on calibration subjects; its cost as a share "
        f"of the same network with a single exit. All in percent. {OVER_SEEDS} Best final quality first, by "
        f"the difference to {summary.reference} over the seeds that both have. Unknown: no seed has all its "
        "folds yet.",
        (
            "regime",
            *exits,
            f"{exits[-1] if exits else 'final'}, float network",
            "policy",
            "policy's cost",
            "seeds",
        ),
        tuple(rows),
        marked=rows[0][0],
    )


def merits_table(summary: Summary, setting: Setting) -> Table:
    """Return accuracy, balanced accuracy, macro F1 and kappa per exit, float and int8: means over seeds."""
    rows = []
    for regime in by_final_quality(summary, setting):
        for exit_ in (*summary.exits_of(setting), POLICY):
            cells = []
            for metric in MERITS:
                for kind in (FLOAT, INT8):
                    cell = summary.cell(setting, regime, Measure(metric, kind, exit_, 0.0))
                    absent = words.NOT_APPLICABLE if (kind, exit_) == (FLOAT, POLICY) else words.UNKNOWN
                    cells.append(absent if cell is None else f"{100 * cell.mean:.1f}")
            rows.append((f"{regime}, {exit_}", *cells))
    return Table(
        "Means over seeds, in percent. The policy decides on int8 stages alone.",
        ("regime, exit", *(f"{name}, {kind}" for name in MERITS.values() for kind in (FLOAT, INT8))),
        tuple(rows),
    )


def differences_table(
    summary: Summary,
    setting: Setting,
    title: str,
    measure: Measure,
    over_subjects: Mapping[str, Interval | None],
) -> Table:
    """Return what every regime has over the reference by a figure.

    Args:
        summary: of the sweep.
        setting: to compare on.
        title: what the figure is called.
        measure: the figure.
        over_subjects: regime -> interval of the difference over judged subjects.
    """
    found = {
        regime: summary.difference(setting, regime, measure)
        for regime in by_final_quality(summary, setting)
        if regime != summary.reference
    }
    has_test = any(one is not None and one.p_value is not None for one in found.values())
    rows = []
    for regime, one in found.items():
        cells = [words.UNKNOWN] * 4
        if one is not None:
            p_value = words.NOT_APPLICABLE if one.p_value is None else f"{one.p_value:.2g}"
            won = f"{one.wins} / {one.ties} / {one.losses}"
            cells = [points_of(one), _points_interval(over_subjects.get(regime)), won, p_value]
        rows.append((regime, *(cells if has_test else cells[:-1])))
    return Table(
        f"{title.capitalize()}: points of balanced accuracy over {summary.reference}.",
        (title, "points [over seeds]", "[over subjects]", "won / tied / lost", *(("p",) if has_test else ())),
        tuple(rows),
    )


def budget_table(summary: Summary, setting: Setting) -> Table:
    """Return quality at shares of the plain network's cost, and the area under the curve."""
    area = Measure("curve_area_share", INT8, None, 0.0)
    rows = [
        (
            regime,
            *(share_of(summary.cell(setting, regime, quality_at(share))) for share in COST_SHARES),
            share_of(summary.cell(setting, regime, area)),
        )
        for regime in by_final_quality(summary, setting)
    ]
    return Table(
        "Balanced accuracy at a mean cost of so much of the same network with a single exit; thresholds "
        f"are set on calibration subjects. {words.UNKNOWN.capitalize()}: below what the first exit costs. "
        "Area: mean quality from the first exit's cost to 100 %, as a share of what an oracle reaches that "
        f"knows the labels. All in percent. {OVER_SEEDS}",
        (
            "regime",
            *(f"at {100 * share:.0f} % of the cost" for share in COST_SHARES),
            "area, of the oracle's",
        ),
        tuple(rows),
    )


def robustness_table(summary: Summary, setting: Setting) -> Table:
    """Return the policy's quality and cost at every severity."""
    severities = summary.severities_of(setting)
    robust = severities_said(robust_severities(severities))
    rows = []
    for regime in by_final_quality(summary, setting):
        cells = [
            f"{_percent(summary.cell(setting, regime, policy_quality(severity)))} at "
            f"{_percent(summary.cell(setting, regime, policy_cost(severity)), 0)}"
            for severity in severities
        ]
        mean, cost = (summary.cell(setting, regime, one) for one in (ROBUST_QUALITY, ROBUST_COST))
        rows.append((regime, *cells, share_of(mean), share_of(cost)))
    return Table(
        "Balanced accuracy of the policy at its mean cost, on windows perturbed with rising severity; "
        "severity 1 is half the strength that training uses by default, 2 all of it. All in percent. "
        f"{OVER_SEEDS}",
        (
            "regime",
            *(f"severity {severity:g}" for severity in severities),
            f"{robust}, mean",
            "its cost",
        ),
        tuple(rows),
    )


def training_table(summary: Summary, setting: Setting) -> Table:
    """Return what training costs, beside what it gives."""
    rows = []
    for regime in by_final_quality(summary, setting):
        forward, backward = (
            summary.cell(setting, regime, Measure(name)) for name in ("forward_macs", "backward_macs")
        )
        ratio = summary.ratio(setting, regime, TRAINING_MACS)
        rows.append(
            (
                regime,
                *(words.macs(None if one is None else one.mean) for one in (forward, backward)),
                words.UNKNOWN if ratio is None else f"{ratio:.2f}",
                _number(summary.cell(setting, regime, Measure("epochs"))),
                _number(summary.cell(setting, regime, TRAINING_WINDOWS)),
                share_of(summary.cell(setting, regime, FINAL_QUALITY)),
            )
        )
    return Table(
        "Multiply-accumulates of every network that a run trained, mean over the regime's seeds; their ratio "
        f"is over the seeds that it has in common with {summary.reference}. Validation is not included. "
        "Epochs are those of the network that was judged.",
        (
            "regime",
            "forward MACs",
            "backward MACs",
            f"both, of {summary.reference}'s",
            "epochs",
            "training windows",
            "final quality, %",
        ),
        tuple(rows),
    )


def ranks_table(rankings: Mapping[str, Ranking]) -> Table:
    """Return average ranks, one column per figure."""
    names = list(dict.fromkeys(name for one in rankings.values() for name in one.regimes))
    columns = {title: dict(zip(one.regimes, one.ranks, strict=True)) for title, one in rankings.items()}
    return Table(
        "Average rank over blocks of data, backbone, seed and fold in which every regime has a run; 1 is "
        "best. Blocks of the same data share subjects, so they tell less than as many independent ones.",
        ("regime", *rankings),
        tuple(
            (name, *(f"{of[name]:.2f}" if name in of else words.NOT_APPLICABLE for of in columns.values()))
            for name in names
        ),
    )


def failed_table(failed: Mapping[str, str]) -> Table:
    """Return the runs that failed, and why."""
    return Table(
        "Start the sweep again to repeat them. No figure here counts them.",
        ("run", "reason"),
        tuple(failed.items()),
        is_text=True,
    )


def plain_table(caption: str, columns: tuple[str, str], facts: Iterable[tuple[str, str]]) -> Table:
    """Return facts by name."""
    return Table(caption, columns, tuple(facts), is_text=True)


def _percent(cell: Cell | None, digits: int = 1) -> str:
    return words.UNKNOWN if cell is None else f"{100 * cell.mean:.{digits}f}"


def _number(cell: Cell | None) -> str:
    return words.UNKNOWN if cell is None else f"{cell.mean:,.0f}"


def _points_interval(interval: Interval | None) -> str:
    if interval is None:
        return words.UNKNOWN
    return f"[{words.signed_points(interval.low)},{words.NBSP}{words.signed_points(interval.high)}]"
