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
    ROBUST_SEVERITIES,
    Setting,
    Summary,
    quality_at,
)
from mexit_edge.report import canvas
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
# What the paired differences and the ranks are of.
FINAL, HALF, ROBUST = "final exit", "at 50 % of the cost", "severity 3 to 5"

Floats = NDArray[np.float64]
# Setting -> regime -> records.
Records = Mapping[Setting, Mapping[str, Sequence["RunRecord"]]]


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


def check_installed() -> None:
    """Refuse to begin where the page or its figures cannot be made in the end.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    load_template(TEMPLATE)
    canvas.load_matplotlib()


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
    measures = {
        FINAL: FINAL_QUALITY,
        HALF: quality_at(0.5),
        ROBUST: ROBUST_QUALITY,
    }
    rankings = {title: summary.ranking(measure) for title, measure in measures.items()}
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
            settings=settings_table(_settings(sweep)),
            versions=tables.plain_table("Of the runs.", ("tool", "version"), versions.items()),
            notes=_notes(summary, grouped),
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
            text += f", not told apart from {len(choice.tied)} of {len(choice.others)} others"
        said.append(text + ".")
    return " ".join(said)


def _about(summary: Summary, sweep: Sweep) -> str:
    where = "; ".join(map(str, summary.settings))
    trained = "epochs of equal training cost" if sweep.protocol.equal_cost else "the same number of epochs"
    own = " unless it has its own" if any(one.epochs for one in sweep.regimes) else ""
    return (
        f"{len(summary.regimes)} training regimes compared on {where}; each was trained for {trained}{own}. "
        "Every figure follows from the logits of int8 stages; no threshold was set on the windows that are "
        "judged."
    )


def _key_figures(
    summary: Summary, grouped: Records, failed: Mapping[str, str], sweep: Sweep
) -> tuple[KeyFigure, ...]:
    done = [one for regimes in grouped.values() for records in regimes.values() for one in records]
    asked = len(sweep.runs())
    windows = {one.run.data: len(one.y) for one in done}
    seeds = {one.run.seed for one in done}
    return (
        KeyFigure("runs finished", f"{len(done):,}", f"of {asked:,} in the sweep; {len(failed):,} failed"),
        KeyFigure("regimes", str(len(summary.regimes)), f"compared with {summary.reference}"),
        KeyFigure("seeds", str(len(seeds)), "in all; the tables say how many of each regime"),
        KeyFigure(
            "judged windows per run",
            " / ".join(f"{n:,}" for n in windows.values()),
            ", ".join(windows),
        ),
    )


def _part(summary: Summary, setting: Setting, records: Mapping[str, Sequence[RunRecord]]) -> Part:
    order = tables.by_final_quality(summary, setting)
    severities = summary.severities_of(setting)
    compared = {FINAL: FINAL_QUALITY, HALF: quality_at(0.5), ROBUST: ROBUST_QUALITY}
    compared = {
        title: one
        for title, one in compared.items()
        if any(summary.cell(setting, regime, one) is not None for regime in order)
    }
    over_subjects = _over_subjects(records, summary.reference, list(compared))
    is_compared = summary.reference in order and len(order) > 1
    differences = tuple(
        tables.differences_table(
            summary,
            setting,
            title,
            measure,
            {regime: interval for (figure, regime), interval in over_subjects.items() if figure == title},
        )
        for title, measure in compared.items()
        if is_compared
    )
    return Part(
        name=str(setting),
        quality=tables.quality_table(summary, setting),
        merits=tables.merits_table(summary, setting),
        forest=pictures.forest(summary, setting, order, compared, over_subjects) if is_compared else None,
        differences=differences,
        budgets=tables.budget_table(summary, setting),
        curves=pictures.curves(summary, setting, order, records),
        robustness=tables.robustness_table(summary, setting) if len(severities) > 1 else None,
        severities=pictures.severities(summary, setting, order) if len(severities) > 1 else (),
        training=tables.training_table(summary, setting),
        cost=pictures.training_cost(summary, setting, order),
    )


def _over_subjects(
    records: Mapping[str, Sequence[RunRecord]], reference: str, titles: Sequence[str]
) -> dict[tuple[str, str], Interval | None]:
    """Return (title, regime) -> interval over judged subjects of what a regime has over the reference."""
    made: dict[str, Callable[[RunRecord], Floats | None]] = {
        FINAL: final_credit,
        HALF: partial(credit_at, share=0.5),
        ROBUST: _robust_credit,
    }
    found: dict[tuple[str, str], Interval | None] = {}
    for title in titles:
        credits = {id(one): made[title](one) for several in records.values() for one in several}
        for regime, ours in records.items():
            theirs = records.get(reference, ())
            if regime == reference or not _in_common(ours, theirs):
                continue
            found[title, regime] = subject_bootstrap(ours, theirs, partial(_known, credits))
    return found


def _known(credits: Mapping[int, Floats | None], record: RunRecord) -> Floats | None:
    return credits[id(record)]


def _robust_credit(record: RunRecord) -> Floats | None:
    if not set(ROBUST_SEVERITIES) <= set(record.severities):
        return None
    return np.asarray(np.mean([policy_credit(record, one) for one in ROBUST_SEVERITIES], axis=0))


def _settings(sweep: Sweep) -> dict[str, object]:
    facts = sweep.model_dump(mode="json")
    return {
        "data": facts["data"],
        "backbones": [one.shown for one in sweep.backbones],
        **{
            f"regime {one.shown}": {
                "name": one.name,
                **one.options,
                **{k: v for k in ("seeds", "epochs") if (v := getattr(one, k)) is not None},
            }
            for one in sweep.regimes
        },
        "seeds": facts["seeds"],
        "reference": facts["reference"],
        **facts["protocol"],
    }


def _notes(summary: Summary, grouped: Records) -> list[str]:
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
    for setting, regimes in grouped.items():
        subjects = {int(s) for records in regimes.values() for one in records for s in np.unique(one.subject)}
        if len(subjects) < FEW_SUBJECTS:
            lines.append(
                f"On {setting} there are {len(subjects)} judged subjects: with fewer than {FEW_SUBJECTS} the "
                "interval over subjects is narrower than its level says."
            )
    done = [one for regimes in grouped.values() for records in regimes.values() for one in records]
    engines = ", ".join(sorted({one.engine for one in done}))
    if engines:
        lines.append(f"Executed by {engines}. Another engine may round some logits differently.")
    tools = sorted({name for one in done for name in one.versions})
    mixed = [name for name in tools if len({one.versions.get(name) for one in done}) > 1]
    if mixed:
        lines.append(f"Not all runs were made with the same version of {', '.join(mixed)}.")
    return lines


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
