"""The page of a sweep: one self-contained HTML file, no script, no request, both colour schemes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mexit_edge.benchmark import pictures, tables
from mexit_edge.benchmark.advice import advise, choose, percent_of, points_of
from mexit_edge.benchmark.quality_cost import (
    credit_at,
    final_credit,
    policy_credit,
)
from mexit_edge.benchmark.statistics import DRAWS, FEWEST_PAIRS, LEVEL, subject_bootstrap
from mexit_edge.benchmark.summary import (
    FINAL_QUALITY,
    ROBUST_QUALITY,
    Measure,
    Setting,
    Summary,
    quality_at,
    robust_severities,
)
from mexit_edge.report.environment import load_template
from mexit_edge.report.page import KeyFigure
from mexit_edge.report.provenance import FEW_SUBJECTS, settings_table

if TYPE_CHECKING:
    from mexit_edge.benchmark.record import RunRecord
    from mexit_edge.benchmark.sweep import Sweep
    from mexit_edge.exits import Interval
    from mexit_edge.report.tables import Table
    from mexit_edge.report.theme import Picture

TEMPLATE = "bench.html.j2"
# Of more settings the headline counts only.
MOST_NAMED = 3

Floats = NDArray[np.float64]
# Setting -> regime -> records.
Records = Mapping[Setting, Mapping[str, Sequence["RunRecord"]]]


@dataclass(frozen=True)
class Compared:
    """A figure that paired differences and ranks are of.

    Args:
        title: what it is called.
        measure: where the summary has it.
        credit: record -> (n,) how far each judged window is told right; None where it does not apply.
    """

    title: str
    measure: Measure
    credit: Callable[[RunRecord], Floats | None]


def robust_credit(record: RunRecord) -> Floats | None:
    """Return (n,) how far the policy is right on a window, mean over the severities of robustness."""
    severities = robust_severities(record.severities)
    if not severities:
        return None
    return np.asarray(np.mean([policy_credit(record, severity) for severity in severities], axis=0))


COMPARED = (
    Compared("final exit", FINAL_QUALITY, final_credit),
    Compared("at 50 % of the cost", quality_at(0.5), partial(credit_at, share=0.5)),
    Compared("robustness", ROBUST_QUALITY, robust_credit),
)


@dataclass(frozen=True)
class Part:
    """What the page shows of one setting; None where the rows or records do not hold it.

    Args:
        name: of the setting.
        quality: table of balanced accuracy per exit.
        merits: table of all figures of merit.
        forest: paired differences.
        differences: the same as tables, one per figure; none with the reference alone.
        budgets: table of quality at cost shares.
        curves: quality over cost.
        robustness: table per severity.
        severities: quality and cost over severity.
        training: table of training cost.
        cost: training cost against quality.
    """

    name: str
    quality: Table
    merits: Table
    forest: Picture | None
    differences: tuple[Table, ...]
    budgets: Table
    curves: Picture | None
    robustness: Table | None
    severities: tuple[Picture, ...]
    training: Table
    cost: Picture | None


def render_bench_page(
    summary: Summary,
    records: Iterable[RunRecord],
    failed: Mapping[str, str],
    sweep: Sweep,
    versions: Mapping[str, str],
) -> str:
    """Return the whole page as HTML.

    Args:
        summary: of the rows of all finished runs.
        records: of the same runs: for curves, and for intervals over subjects.
        failed: run -> why it failed.
        sweep: what was asked for.
        versions: tool -> version, of the runs.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    grouped = _grouped(records)
    rankings = {one.title: summary.ranking(one.measure) for one in COMPARED}
    return str(
        load_template(TEMPLATE).render(
            name="Which regime, at which cost",
            about=_about(summary, sweep),
            headline=headline(summary),
            key_figures=_key_figures(summary, grouped, failed, sweep),
            advice=advise(summary),
            reference=summary.reference,
            fewest_pairs=FEWEST_PAIRS,
            parts=[_part(summary, setting, grouped.get(setting, {})) for setting in summary.settings],
            ranks=tables.ranks_table(rankings),
            rank_notes=[f"{title}: {one.note} {_blocks(one.blocks)}" for title, one in rankings.items()],
            rank_pictures=[
                pictures.ranks(title, one) for title, one in rankings.items() if len(one.regimes) > 1
            ],
            failed=tables.failed_table(failed) if failed else None,
            settings=settings_table(_settings(sweep, summary.reference)),
            versions=tables.plain_table(
                "Of the runs; several where they differ.", ("tool", "version"), versions.items()
            ),
            notes=_notes(summary, grouped, sweep),
        )
    )


def headline(summary: Summary) -> str:
    """Return who is best by final quality, setting by setting, and whether that can be told."""
    choices = {
        setting: choice
        for setting in summary.settings
        if (choice := choose(summary, setting, FINAL_QUALITY)) is not None
    }
    if len(choices) > MOST_NAMED:
        best = Counter(choice.best for choice in choices.values()).most_common()
        counted = ", ".join(f"{name} on {count}" for name, count in best)
        return f"Highest final balanced accuracy, of {len(choices)} data sets and backbones: {counted}."
    said = []
    for setting, choice in choices.items():
        text = (
            f"On {setting}, {choice.best} has the highest final balanced accuracy, {percent_of(choice.cell)}"
        )
        found = summary.difference(setting, choice.best, FINAL_QUALITY)
        if choice.best != summary.reference and found is not None:
            apart = "" if found.told_apart else ", not told apart"
            text += f": {points_of(found, ' points')} against {summary.reference}{apart}"
        elif choice.tied:
            text += f", not told apart from {len(choice.tied)} of {len(choice.behind)} others"
        said.append(text + ".")
    return " ".join(said)


def _about(summary: Summary, sweep: Sweep) -> str:
    where = "; ".join(map(str, summary.settings))
    trained = "epochs of equal training cost" if sweep.protocol.equal_cost else "the same number of epochs"
    own = " unless it has its own" if any(one.epochs for one in sweep.regimes) else ""
    own += ", some with settings of their own" if any(one.settings for one in sweep.regimes) else ""
    return (
        f"{len(summary.regimes)} training regimes compared on {where}; each was trained for {trained}{own}. "
        "Every figure follows from the logits of int8 stages; no threshold was set on the windows that are "
        "judged."
    )


def _key_figures(
    summary: Summary, grouped: Records, failed: Mapping[str, str], sweep: Sweep
) -> tuple[KeyFigure, ...]:
    done = [one for regimes in grouped.values() for records in regimes.values() for one in records]
    seeds = {one.run.seed for one in done}
    return (
        KeyFigure(
            "runs finished", f"{len(done):,}", f"of {sweep.n_runs:,} in the sweep; {len(failed):,} failed"
        ),
        KeyFigure("regimes", str(len(summary.regimes)), f"compared with {summary.reference}"),
        KeyFigure("seeds", str(len(seeds)), "in all; the tables say how many of each regime"),
        _judged_windows(done),
    )


def _judged_windows(done: Sequence[RunRecord]) -> KeyFigure:
    """Return how many windows a run judges; folds and drawn splits judge other subjects."""
    per_run: dict[str, set[int]] = {}
    of_subjects: dict[str, dict[int, int]] = {}
    for one in done:
        per_run.setdefault(one.run.data, set()).add(len(one.y))
        # All windows of a judged subject are judged, in every run the same.
        numbers, counts = np.unique(one.subject, return_counts=True)
        of_subjects.setdefault(one.run.data, {}).update(zip(numbers.tolist(), counts.tolist(), strict=True))
    shown, said = [], []
    for data, numbers_of in per_run.items():
        ends = dict.fromkeys(f"{n:,}" for n in (min(numbers_of), max(numbers_of)))
        shown.append(" to ".join(ends))
        in_all = sum(of_subjects[data].values())
        said.append(data if in_all == max(numbers_of) else f"{data}, {in_all:,} in all")
    return KeyFigure("judged windows per run", " / ".join(shown), "; ".join(said))


def _part(summary: Summary, setting: Setting, records: Mapping[str, Sequence[RunRecord]]) -> Part:
    order = tables.by_final_quality(summary, setting)
    severities = summary.severities_of(setting)
    compared = [
        one
        for one in COMPARED
        if any(summary.cell(setting, regime, one.measure) is not None for regime in order)
    ]
    over_subjects = _over_subjects(records, summary.reference, compared)
    forest = pictures.forest(
        summary, setting, order, {one.title: one.measure for one in compared}, over_subjects
    )
    differences = tuple(
        tables.differences_table(
            summary,
            setting,
            one.title,
            one.measure,
            {regime: interval for (title, regime), interval in over_subjects.items() if title == one.title},
        )
        for one in compared
        if forest is not None
    )
    return Part(
        name=str(setting),
        quality=tables.quality_table(summary, setting),
        merits=tables.merits_table(summary, setting),
        forest=forest,
        differences=differences,
        budgets=tables.budget_table(summary, setting),
        curves=pictures.curves(summary, setting, order, records),
        robustness=tables.robustness_table(summary, setting) if len(severities) > 1 else None,
        severities=pictures.severities(summary, setting, order) if len(severities) > 1 else (),
        training=tables.training_table(summary, setting),
        cost=pictures.training_cost(summary, setting, order),
    )


def _over_subjects(
    records: Mapping[str, Sequence[RunRecord]], reference: str, compared: Sequence[Compared]
) -> dict[tuple[str, str], Interval | None]:
    """Return (title, regime) -> interval over judged subjects of what a regime has over the reference."""
    theirs = records.get(reference, ())
    found: dict[tuple[str, str], Interval | None] = {}
    for figure in compared:
        # The reference's stand in every pair.
        credits = {id(one): figure.credit(one) for several in records.values() for one in several}
        for regime, ours in records.items():
            if regime != reference and _in_common(ours, theirs):
                found[figure.title, regime] = subject_bootstrap(ours, theirs, partial(_known, credits))
    return found


def _known(credits: Mapping[int, Floats | None], record: RunRecord) -> Floats | None:
    return credits[id(record)]


def _settings(sweep: Sweep, reference: str) -> dict[str, object]:
    facts = sweep.model_dump(mode="json")
    return {
        "data": facts["data"],
        "backbones": [one.shown for one in sweep.backbones],
        **{
            f"regime {one.shown}": {
                "name": one.name,
                **one.options,
                **one.settings,
                **{k: v for k in ("seeds", "epochs") if (v := getattr(one, k)) is not None},
            }
            for one in sweep.regimes
        },
        "seeds": facts["seeds"],
        "reference": reference,
        **facts["protocol"],
    }


def _notes(summary: Summary, grouped: Records, sweep: Sweep) -> list[str]:
    done = [one for regimes in grouped.values() for records in regimes.values() for one in records]
    lines = [
        f"Every interval has level {100 * LEVEL:.0f} %. None is corrected for how many regimes are "
        "compared: the best of many looks better than it is, which is why a choice is made out of fold and "
        "tested once.",
        f"Intervals over subjects: {DRAWS:,} draws of whole judged subjects, the same for both regimes.",
        "The curve takes thresholds by MSDNet's budgeted rule on the score logit_margin; the policy is the "
        "one that the package would calibrate by default for the sweep's limit of loss.",
        "Seconds and memory differ from machine to machine and stand in times.csv.",
    ]
    if any(setting.judged_on != "test" for setting in summary.settings):
        lines.append(
            "Out of fold: every figure is of training subjects, judged by networks that never saw them."
        )
    if len({setting.data for setting in summary.settings}) == 1:
        lines.append("With one data set nothing tells which regime to take for fewer training windows.")
    unturned = dict.fromkeys(one.run.data for one in done if _has_no_perturbations(one, sweep))
    if unturned:
        lines.append(
            f"The sensor of {', '.join(unturned)} names no rigid bodies (that of windows of one's own never "
            "does): training windows were not perturbed, and there are no severities to judge at."
        )
    for setting, regimes in grouped.items():
        subjects = {int(s) for records in regimes.values() for one in records for s in np.unique(one.subject)}
        if len(subjects) < FEW_SUBJECTS:
            lines.append(
                f"On {setting} there are {len(subjects)} judged subjects: with fewer than {FEW_SUBJECTS} the "
                "interval over subjects is narrower than its level says."
            )
    engines = ", ".join(sorted({one.engine for one in done}))
    if engines:
        lines.append(f"Executed by {engines}. Another engine may round some logits differently.")
    tools = sorted({name for one in done for name in one.versions})
    mixed = [name for name in tools if len({one.versions.get(name) for one in done}) > 1]
    if mixed:
        lines.append(f"Not all runs were made with the same version of {', '.join(mixed)}.")
    return lines


def _has_no_perturbations(record: RunRecord, sweep: Sweep) -> bool:
    is_asked = record.run.windows_file is not None or len(sweep.protocol.severities) > 1
    return is_asked and record.severities == (0.0,)


def _grouped(records: Iterable[RunRecord]) -> Records:
    grouped: dict[Setting, dict[str, list[RunRecord]]] = {}
    for one in records:
        setting = Setting(one.run.data, one.run.backbone, one.run.judged_on)
        grouped.setdefault(setting, {}).setdefault(one.run.regime, []).append(one)
    return grouped


def _in_common(ours: Sequence[RunRecord], theirs: Sequence[RunRecord]) -> bool:
    runs = [{(one.run.seed, one.run.fold) for one in some} for some in (ours, theirs)]
    return bool(runs[0] & runs[1])


def _blocks(blocks: int) -> str:
    return f"Blocks: {blocks}."
