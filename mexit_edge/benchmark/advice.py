"""Which regime to take for what, from a summary, and what it is not told apart from.

Two regimes are told apart where the 95 % interval of their paired differences over seeds leaves out 0. With
few seeds hardly any are, so "not told apart" does not mean "as good": that is shown where the interval ends
above -`MARGIN`. The intervals are not corrected for how many regimes were compared, so the best of many looks
better than it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
    robust_severities,
)
from mexit_edge.report import words

BUDGETS = (0.25, 0.5)
# Largest loss of balanced accuracy, as a share, with which a regime still counts as good as the best.
MARGIN = 0.01
# Training costs whose largest is at most this ratio of the smallest count as equal: epochs are whole.
SAME_COST = 1.1
ANY = "any"
MARGIN_SAID = f"{words.points(MARGIN, 0)} point"
ONE_SEED = " (one seed)"
NOTHING_WHOLE = "no regime has a seed with all its folds yet"


@dataclass(frozen=True)
class Choice:
    """The best regime by a figure, and what comes next.

    Args:
        best: its name.
        cell: its figure.
        behind: every other regime -> what it has over the best, best first; None where they have no seed in
            common.
    """

    best: str
    cell: Cell
    behind: Mapping[str, PairedDifference | None]

    @property
    def tied(self) -> tuple[str, ...]:
        """Regimes that are not told apart from the best."""
        return tuple(name for name, one in self.behind.items() if one is None or not one.told_apart)

    @property
    def untested(self) -> tuple[str, ...]:
        """Those of them that have fewer than two seeds in common with it."""
        return tuple(name for name, one in self.behind.items() if one is None or one.interval is None)

    @property
    def is_untested(self) -> bool:
        """Whether there are others, and none of them could be compared."""
        return bool(self.behind) and len(self.untested) == len(self.behind)

    @property
    def as_good(self) -> tuple[str, ...]:
        """The best, and the regimes whose figure is shown to be less than `MARGIN` below it."""
        shown = (
            name
            for name, one in self.behind.items()
            if one is not None and one.interval is not None and one.interval.low > -MARGIN
        )
        return (self.best, *shown)


@dataclass(frozen=True)
class Pick:
    """One row of advice, as text.

    Args:
        where: data set and backbone.
        take: regime; `words.UNKNOWN` where nothing speaks for one; `ANY` where it makes no difference.
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
            "balanced accuracy of the policy, mean over those of severities 3 to 5 that were judged",
            tuple(_by_robustness(summary, setting) for setting in summary.settings),
        ),
        Advice(
            "the least training cost",
            f"forward and backward MACs, among the regimes shown to lose less than {MARGIN_SAID} of final "
            f"quality to the best: the paired interval stays above -{MARGIN_SAID}",
            tuple(_by_training_cost(summary, setting) for setting in summary.settings),
        ),
        *_for_small_data(summary),
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
    return Choice(best, cells[best], {one: summary.difference(setting, one, measure, best) for one in others})


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
    # No share is below 0; only a cost may pass 1, where a head at every exit is dearer than a single one.
    low, high = max(cell.interval.low, 0.0), min(cell.interval.high, max(1.0, cell.mean))
    return f"{words.percent(cell.mean)} [{words.points(low, 1)},{words.NBSP}{words.points(high, 1)}]"


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


def severities_said(severities: Sequence[float]) -> str:
    """Return ``severity 5`` or ``severities 3, 4, 5``, and of none the range."""
    named = ", ".join(f"{one:g}" for one in severities) or "3 to 5"
    return f"severit{'y' if len(severities) == 1 else 'ies'} {named}"


def _by_quality(summary: Summary, setting: Setting, measure: Measure) -> Pick:
    choice = choose(summary, setting, measure)
    if choice is None:
        return _unknown(
            setting, _why(summary, setting, f"the first exit alone costs {_first_cost(summary, setting)}")
        )
    return _pick(setting, choice, percent_of(choice.cell))


def _by_robustness(summary: Summary, setting: Setting) -> Pick:
    choice = choose(summary, setting, ROBUST_QUALITY)
    if choice is None:
        return _unknown(setting, _why(summary, setting, "not judged at severities 3 to 5"))
    cost = summary.cell(setting, choice.best, ROBUST_COST)
    judged = severities_said(robust_severities(summary.severities_of(setting)))
    because = f"{percent_of(choice.cell)} over {judged}, at {percent_of(cost)} of the plain network's cost"
    return _pick(setting, choice, because)


def _by_training_cost(summary: Summary, setting: Setting) -> Pick:
    choice = choose(summary, setting, FINAL_QUALITY)
    if choice is None:
        return _unknown(setting, NOTHING_WHOLE)
    standings = {
        regime: cost
        for regime in (choice.best, *choice.behind)
        if (cost := summary.standing(setting, regime, TRAINING_MACS)) is not None
    }
    costs = dict(sorted(standings.items(), key=lambda item: item[1]))
    good = [regime for regime in costs if regime in choice.as_good]
    if not good:
        return _unknown(setting, "training cost could not be counted")
    least, most = min(costs.values()), max(costs.values())
    if len(costs) > 1 and most <= SAME_COST * least:
        because = f"all cost the same here: {words.macs(least)} to {words.macs(most)} MACs"
        return Pick(str(setting), ANY, because, words.NOT_APPLICABLE, words.NOT_APPLICABLE)
    cheapest, *others = good
    of_all = next(iter(costs))
    if choice.is_untested or (len(choice.as_good) == 1 and of_all != choice.best):
        why = f"no other is shown to lose less than {MARGIN_SAID} to {choice.best}"
        why = _ahead(choice) if choice.is_untested else f"{why} ({words.macs(costs[choice.best])} MACs)"
        return _unknown(
            setting, f"{why}; the cheapest is {of_all}: {_price(summary, setting, of_all, choice)}"
        )
    alike = []
    for other in others:
        found = summary.difference(setting, other, TRAINING_MACS, cheapest)
        if found is None or not found.told_apart:
            alike.append(other)
    second = f"{others[0]}: {words.macs(costs[others[0]])} MACs" if others else words.NOT_APPLICABLE
    because = _price(summary, setting, cheapest, choice)
    return Pick(str(setting), cheapest, because, ", ".join(alike) or "none", second)


def _price(summary: Summary, setting: Setting, regime: str, choice: Choice) -> str:
    """Return what a regime's training costs, and what it loses to the best."""
    cost = summary.standing(setting, regime, TRAINING_MACS)
    quality = summary.cell(setting, regime, FINAL_QUALITY)
    said = f"{words.macs(cost)} MACs; final quality {percent_of(quality)}"
    if regime != choice.best:
        said += f", {points_of(choice.behind[regime], ' points')} against {choice.best}"
    return said


def _for_small_data(summary: Summary) -> tuple[Advice, ...]:
    """Return the advice for the data with the fewest training windows; none where there is no other data."""
    windows = fewest_windows(summary)
    if len(windows) < 2:
        return ()
    smallest = next(iter(windows))
    picks = []
    for setting in summary.settings:
        if setting.data == smallest:
            pick = _by_quality(summary, setting, FINAL_QUALITY)
            said = f"{pick.because}; {smallest} has {windows[smallest]:,.0f} training windows"
            picks.append(replace(pick, because=said))
    judged_by = "final quality on the data with the fewest training windows here"
    return (Advice("to train on small data", judged_by, tuple(picks)),)


def _first_cost(summary: Summary, setting: Setting) -> str:
    exits = summary.exits_of(setting)
    regime = summary.regimes_of(setting)[0]
    first, plain = (summary.cell(setting, regime, Measure("macs", exit=e)) for e in (exits[0], "plain"))
    return words.UNKNOWN if first is None or plain is None else words.percent(first.mean / plain.mean)


def _pick(setting: Setting, choice: Choice, because: str) -> Pick:
    take = choice.best
    if choice.is_untested:
        take, because = words.UNKNOWN, f"{_ahead(choice)}: {because.replace(ONE_SEED, '')}"
    return Pick(str(setting), take, because, _tied(choice), _second(choice))


def _ahead(choice: Choice) -> str:
    seeds = "on one seed" if choice.cell.seeds == 1 else "with no two seeds in common with another"
    return f"{choice.best} was ahead, {seeds}; nothing is told apart"


def _tied(choice: Choice) -> str:
    if not choice.behind:
        return words.NOT_APPLICABLE
    if not choice.tied:
        return "none"
    if choice.untested == choice.tied:
        return f"{', '.join(choice.tied)}: too few seeds to tell"
    return ", ".join(
        f"{one} (too few seeds to tell)" if one in choice.untested else one for one in choice.tied
    )


def _second(choice: Choice) -> str:
    for name, behind in choice.behind.items():
        return f"{name}: {points_of(behind, ' points')}"
    return words.NOT_APPLICABLE


def _why(summary: Summary, setting: Setting, otherwise: str) -> str:
    """Return why nothing is known of a setting."""
    is_whole = any(
        summary.cell(setting, regime, FINAL_QUALITY) is not None for regime in summary.regimes_of(setting)
    )
    return otherwise if is_whole else NOTHING_WHOLE


def _unknown(setting: Setting, why: str) -> Pick:
    return Pick(str(setting), words.UNKNOWN, why, words.NOT_APPLICABLE, words.NOT_APPLICABLE)
