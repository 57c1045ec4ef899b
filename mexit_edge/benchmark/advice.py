"""Which regime to take for what, from a summary, and what it is not told apart from.

Two regimes are told apart where the 95 % interval of their paired differences over seeds leaves out 0. The
intervals are not corrected for how many regimes were compared, so the best of many looks better than it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from mexit_edge.benchmark.statistics import PairedDifference
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
    quality_at,
)
from mexit_edge.report import words

BUDGETS = (0.25, 0.5)
ONE_SEED = " (one seed)"


@dataclass(frozen=True)
class Choice:
    """The best regime by a figure, and what comes next.

    Args:
        best: its name.
        cell: its figure.
        tied: regimes that are not told apart from it, best first.
        others: with the next best figures, best first.
        behind: what the first of them has over the best; None where there is no other.
        untested: those of ``tied`` that have fewer than two seeds in common with it.
    """

    best: str
    cell: Cell
    tied: tuple[str, ...]
    others: tuple[str, ...]
    behind: PairedDifference | None
    untested: tuple[str, ...]


@dataclass(frozen=True)
class Pick:
    """One row of advice, as text.

    Args:
        where: data set and backbone.
        take: regime; `words.UNKNOWN` where nothing speaks for any.
        because: its figure with its interval.
        tied: what is not told apart from it.
        second: the next best, and by how much it is behind.
    """

    where: str
    take: str
    because: str
    tied: str
    second: str


@dataclass(frozen=True)
class Advice:
    """What to take for one purpose.

    Args:
        want: the purpose, as the end of "If you want ...".
        judged_by: the figure.
        picks: one per data set and backbone that tells.
    """

    want: str
    judged_by: str
    picks: tuple[Pick, ...]


def advise(summary: Summary) -> tuple[Advice, ...]:
    """Return what to take for final quality, a budget, robustness, cheap training, and small data."""
    budgets = [
        Advice(
            f"quality at {100 * share:.0f} % of the cost",
            f"balanced accuracy at {100 * share:.0f} % of the plain network's MACs",
            tuple(_by_quality(summary, setting, quality_at(share)) for setting in summary.settings),
        )
        for share in BUDGETS
    ]
    return (
        Advice(
            "the best final quality",
            "balanced accuracy of the final exit, int8",
            tuple(_by_quality(summary, setting, FINAL_QUALITY) for setting in summary.settings),
        ),
        *budgets,
        Advice(
            "robustness",
            "balanced accuracy of the policy, mean over severities 3 to 5",
            tuple(_by_robustness(summary, setting) for setting in summary.settings),
        ),
        Advice(
            "the least training cost",
            "forward and backward MACs, among the regimes whose final quality is not told apart from the "
            "best",
            tuple(_by_training_cost(summary, setting) for setting in summary.settings),
        ),
        Advice(
            "to train on small data",
            "final quality on the data with the fewest training windows here",
            tuple(_by_small_data(summary)),
        ),
    )


def choose(summary: Summary, setting: Setting, measure: Measure) -> Choice | None:
    """Return the regime that stands best by a figure; None where no run has it."""
    cells = {
        regime: cell
        for regime in summary.regimes_of(setting)
        if (cell := summary.cell(setting, regime, measure)) is not None
    }
    if not cells:
        return None
    standings = {regime: summary.standing(setting, regime, measure) or 0.0 for regime in cells}
    best, *others = sorted(cells, key=lambda one: standings[one], reverse=not measure.lower_is_better)
    differences = {one: summary.difference(setting, one, measure, best) for one in others}
    return Choice(
        best,
        cells[best],
        tuple(one for one, found in differences.items() if found is None or not found.told_apart),
        tuple(others),
        differences[others[0]] if others else None,
        tuple(one for one, found in differences.items() if found is None or found.interval is None),
    )


def fewest_windows(summary: Summary) -> dict[str, float]:
    """Return data set -> mean number of training windows, fewest first."""
    found: dict[str, float] = {}
    for setting in summary.settings:
        for regime in summary.regimes_of(setting):
            cell = summary.cell(setting, regime, TRAINING_WINDOWS)
            if cell is not None:
                found.setdefault(setting.data, cell.mean)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def percent_of(cell: Cell | None) -> str:
    """Return a share with its interval, in percent."""
    if cell is None:
        return words.UNKNOWN
    if cell.interval is None:
        return f"{words.percent(cell.mean)}{ONE_SEED}"
    ends = words.points(cell.interval.low, 1), words.points(min(cell.interval.high, 1.0), 1)
    return f"{words.percent(cell.mean)} [{ends[0]},{words.NBSP}{ends[1]}]"


def share_of(cell: Cell | None) -> str:
    """Return a share with its interval in percent, without the sign, for tables that say so."""
    return percent_of(cell).replace(f"{words.NBSP}%", "").removesuffix(ONE_SEED)


def points_of(difference: PairedDifference | None, unit: str = "") -> str:
    """Return a difference with its interval, in points; ``unit`` goes behind the number."""
    if difference is None:
        return words.UNKNOWN
    mean = f"{words.signed_points(difference.mean)}{unit}"
    if difference.interval is None:
        return f"{mean} (one pair)"
    low, high = (words.signed_points(end) for end in (difference.interval.low, difference.interval.high))
    return f"{mean} [{low},{words.NBSP}{high}]"


def _by_quality(summary: Summary, setting: Setting, measure: Measure) -> Pick:
    choice = choose(summary, setting, measure)
    if choice is None:
        return _unknown(setting, f"no exit is as cheap: the first one costs {_first_cost(summary, setting)}")
    return Pick(str(setting), choice.best, percent_of(choice.cell), _tied(choice), _second(choice))


def _by_robustness(summary: Summary, setting: Setting) -> Pick:
    choice = choose(summary, setting, ROBUST_QUALITY)
    if choice is None:
        return _unknown(setting, "not judged at severities 3 to 5")
    cost = summary.cell(setting, choice.best, ROBUST_COST)
    because = f"{percent_of(choice.cell)}, at {percent_of(cost)} of the plain network's cost"
    return Pick(str(setting), choice.best, because, _tied(choice), _second(choice))


def _by_training_cost(summary: Summary, setting: Setting) -> Pick:
    choice = choose(summary, setting, FINAL_QUALITY)
    if choice is None or (choice.others and set(choice.untested) == set(choice.others)):
        return _unknown(setting, "too few seeds to say which regimes are as good as the best")
    costs = {
        regime: cell.mean
        for regime in (choice.best, *choice.tied)
        if regime not in choice.untested
        and (cell := summary.cell(setting, regime, TRAINING_MACS)) is not None
    }
    if not costs:
        return _unknown(setting, "training cost could not be counted")
    cheapest, *others = sorted(costs, key=lambda regime: costs[regime])
    because = f"{words.macs(costs[cheapest])} MACs; final quality "
    because += percent_of(summary.cell(setting, cheapest, FINAL_QUALITY))
    if cheapest != choice.best:
        behind = points_of(summary.difference(setting, cheapest, FINAL_QUALITY, choice.best), " points")
        because += f", {behind} against {choice.best}"
    alike = []
    for other in others:
        found = summary.difference(setting, other, TRAINING_MACS, cheapest)
        if found is None or not found.told_apart:
            alike.append(other)
    second = f"{others[0]}: {words.macs(costs[others[0]])} MACs" if others else words.NOT_APPLICABLE
    return Pick(str(setting), cheapest, because, ", ".join(alike) or "none", second)


def _by_small_data(summary: Summary) -> list[Pick]:
    windows = fewest_windows(summary)
    if not windows:
        return []
    smallest = next(iter(windows))
    said = f"{smallest} has {windows[smallest]:,.0f} training windows"
    if len(windows) == 1:
        said += "; there is no other data set here, so nothing tells how it would be with fewer"
    picks = []
    for setting in summary.settings:
        if setting.data == smallest:
            pick = _by_quality(summary, setting, FINAL_QUALITY)
            picks.append(Pick(pick.where, pick.take, f"{pick.because}; {said}", pick.tied, pick.second))
    return picks


def _first_cost(summary: Summary, setting: Setting) -> str:
    exits = summary.exits_of(setting)
    regime = summary.regimes_of(setting)[0]
    first, plain = (summary.cell(setting, regime, Measure("macs", exit=e)) for e in (exits[0], "plain"))
    return words.UNKNOWN if first is None or plain is None else words.percent(first.mean / plain.mean)


def _tied(choice: Choice) -> str:
    if not choice.others:
        return words.NOT_APPLICABLE
    if not choice.tied:
        return "none"
    if choice.untested == choice.tied:
        return f"{', '.join(choice.tied)}: too few seeds to tell"
    return ", ".join(
        f"{one} (too few seeds to tell)" if one in choice.untested else one for one in choice.tied
    )


def _second(choice: Choice) -> str:
    if not choice.others:
        return words.NOT_APPLICABLE
    return f"{choice.others[0]}: {points_of(choice.behind, ' points')}"


def _unknown(setting: Setting, why: str) -> Pick:
    return Pick(str(setting), words.UNKNOWN, why, words.NOT_APPLICABLE, words.NOT_APPLICABLE)
