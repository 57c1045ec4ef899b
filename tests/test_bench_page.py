"""The page of a sweep and its figures: whole, honest about what is not told apart, losing rows and all."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from fixtures_bench import drawn_record, run_of, sweep_of
from rich.console import Console

from mexit_edge.benchmark.advice import share_of
from mexit_edge.benchmark.record import RunRecord
from mexit_edge.benchmark.rows import COLUMNS, rows_of
from mexit_edge.benchmark.statistics import Ranking, rank_regimes
from mexit_edge.benchmark.summary import FINAL_QUALITY, Cell, Setting, Summary, summarise
from mexit_edge.benchmark.tables import (
    budget_table,
    by_final_quality,
    differences_table,
    merits_table,
    quality_table,
    ranks_table,
    robustness_table,
    training_table,
)
from mexit_edge.cli.bench import _table
from mexit_edge.errors import InputError
from mexit_edge.exits import Interval

pytest.importorskip("pandas")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("scipy")

import pandas as pd

from mexit_edge.benchmark import figures
from mexit_edge.benchmark.page import headline, render_bench_page

# As long and odd as labels may be.
REGIMES = {"joint": (1.2, 1.8, 2.2), "mixed 25 %": (1.3, 1.9, 2.25), "worst_x=1": (0.1, 0.2, 0.3)}
HAPT = Setting("hapt", "cnn medium", "test")


@cache
def records() -> tuple[RunRecord, ...]:
    return tuple(
        drawn_record(run_of(regime=regime, seed=seed), strength, n=90, severities=(0.0, 3.0, 4.0, 5.0))
        for seed in (0, 1, 2)
        for regime, strength in REGIMES.items()
    )


def summary_of(given: tuple[RunRecord, ...], reference: str = "joint") -> Summary:
    return summarise(
        pd.DataFrame([row for one in given for row in rows_of(one)], columns=list(COLUMNS)), reference
    )


@cache
def page_of_all() -> str:
    failed = {"hapt, cnn medium, mixed 25 %, seed 3": "its worker died: <b>exit -9</b>"}
    given = records()
    return render_bench_page(summary_of(given), given, failed, sweep_of(list(given)), {"keras": "3.12"})


def test_the_page_is_whole_and_asks_for_nothing_outside():
    page = page_of_all()
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert re.findall(r'(?:src|srcset|href)="(?!data:|#)', page) == []
    # Forest, curves, quality and cost over severity, training cost, and three times ranks.
    assert page.count("<img ") == page.count('media="screen and (prefers-color-scheme: dark)"') == 8
    for section in re.findall(r'href="#(\w+)"', page):
        assert f'<section id="{section}">' in page
    assert "its worker died: &lt;b&gt;exit -9&lt;/b&gt;" in page
    assert "3 training regimes compared on hapt, cnn medium; each was trained for the same number" in page
    for alt in re.findall(r'alt="([^"]*)"', page):
        assert len(alt) > 40


def test_every_regime_stands_in_every_table_and_the_advice_says_what_is_not_told_apart():
    page = page_of_all()
    sections = dict(re.findall(r'<section id="(\w+)">(.*?)</section>', page, flags=re.DOTALL))
    for regime in REGIMES:
        for name in ("quality", "budgets", "robustness", "training", "ranks"):
            assert f'<th scope="row">{regime}</th>' in re.sub(r' class="marked"', "", sections[name]), name
    assert "shown to lose less than 1 point of final quality to the best" in page
    # By construction these two are alike, and the third is far off.
    advice = sections["advice"]
    first = re.search(
        r'class="take">([^<]*)<.*?"Not told apart from">([^<]*)<.*?"Next best">([^<]*)<', advice
    )
    assert {first[1], first[2]} == {"joint", "mixed 25 %"}
    assert first[3].startswith(f"{first[2]}: ")
    assert "Too few blocks (3) for any two of 3 regimes" in sections["ranks"]


def test_tables_hold_the_summary_and_print_the_losing_row_last():
    summary = summary_of(records())
    order = by_final_quality(summary, HAPT)
    assert order[-1] == "worst_x=1"
    for table in (
        quality_table(summary, HAPT),
        budget_table(summary, HAPT),
        robustness_table(summary, HAPT),
        training_table(summary, HAPT),
    ):
        assert tuple(row[0] for row in table.rows) == order
        assert {len(row) for row in table.rows} == {len(table.columns)}
    merits = merits_table(summary, HAPT)
    assert len(merits.rows) == 3 * (3 + 1)
    assert {len(row) for row in merits.rows} == {len(merits.columns)} == {9}
    lost = differences_table(summary, HAPT, "final", FINAL_QUALITY, {"worst_x=1": Interval(-0.5, -0.4, 0.95)})
    assert lost.columns == ("final", "points [over seeds]", "[over subjects]", "won / tied / lost")
    row = dict(zip(lost.columns, lost.rows[-1], strict=True))
    found = summary.difference(HAPT, "worst_x=1", FINAL_QUALITY)
    assert row["points [over seeds]"].startswith(f"{100 * found.mean:.2f} [")
    assert row["[over subjects]"] == "[-50.00,\N{NO-BREAK SPACE}-40.00]"
    assert row["won / tied / lost"] == "0 / 0 / 3"
    # Mixed has no interval over subjects here: that is unknown, not nothing.
    assert lost.rows[0][2] == "unknown"
    ranked = ranks_table({"final": summary.ranking(FINAL_QUALITY)})
    assert ranked.rows[-1] == ("worst_x=1", "3.00")


@pytest.mark.parametrize(
    ("mean", "ends", "expected"),
    [
        (0.9, (0.85, 0.95), "90.0 [85.0,\N{NO-BREAK SPACE}95.0]"),
        (0.9, (-0.4, 2.2), "90.0 [0.0,\N{NO-BREAK SPACE}100.0]"),
        (1.2, (0.8, 1.6), "120.0 [80.0,\N{NO-BREAK SPACE}120.0]"),
        (0.9, None, "90.0"),
    ],
)
def test_the_interval_of_a_share_ends_where_shares_do(mean, ends, expected):
    cell = Cell(mean, None if ends is None else Interval(*ends, 0.95), 3)
    assert share_of(cell) == expected


@pytest.mark.parametrize(
    "label", ["joint", "consistency", "mirrored 1.5 x 120 epochs limited to 4", "x" * 60]
)
def test_nothing_is_cut_short_in_a_narrow_terminal(label: str):
    given = tuple(drawn_record(run_of(regime=label, seed=seed), (1.2, 1.8, 2.2), n=90) for seed in (0, 1))
    console = Console(file=io.StringIO(), width=80)
    console.print(_table(summary_of(given, label)))
    text = console.file.getvalue()
    assert "…" not in text
    places = [cells[3] for line in text.splitlines() if len(cells := line.split("│")) > 3]
    assert "".join(places).replace(" ", "") == label.replace(" ", "")


def test_one_seed_without_perturbations_or_a_reference_still_gives_a_page():
    given = tuple(
        replace(
            drawn_record(run_of(regime=regime), n=40, severities=(0.0,)),
            training_cost=({**records()[0].training_cost[0], "forward_macs": None},),
            versions={"numpy": version},
        )
        for regime, version in (("distill", "1"), ("mixed", "2"))
    )
    page = render_bench_page(summary_of(given), given, {}, sweep_of(list(given)), {})
    assert re.search("(distill|mixed) was ahead, on one seed; nothing is told apart: ", page)
    assert set(re.findall(r'class="take[^"]*">([^<]*)<', page)) == {"unknown"}
    assert "too few seeds to tell" in page
    assert "There is nothing to compare" in page
    assert "not judged at severities 3 to 5" in page
    assert "Judged on the windows as they are alone" in page
    assert "The sensor of hapt names no rigid bodies" in page
    assert "With one data set nothing tells" in page
    assert "There is no block in which all regimes have a run." in page
    assert "Not all runs were made with the same version of numpy." in page
    assert page.count("<img ") == 3
    assert page == render_bench_page(summary_of(given), given, {}, sweep_of(list(given)), {})


@pytest.mark.parametrize(
    "runs",
    [
        [("joint", 1, None), ("mixed", 0, None)],
        [("joint", 0, 1), ("mixed", 0, 0)],
        [("joint", 0, 1), ("joint", 1, 0), ("mixed", 0, 1)],
    ],
    ids=["no seed", "no fold", "no whole seed"],
)
def test_a_sweep_that_was_broken_off_has_a_page(runs):
    given = tuple(
        drawn_record(run_of(regime=regime, seed=seed, fold=fold), n=40, severities=(0.0,))
        for regime, seed, fold in runs
    )
    page = render_bench_page(summary_of(given), given, {}, sweep_of(list(given)), {})
    assert "There is nothing to compare" in page
    if given[0].run.fold is not None:
        assert "no regime has a seed with all its folds yet" in page
        assert "no exit is as cheap" not in page


def test_folds_judge_other_windows_and_the_page_says_how_many_in_all():
    first, second = (
        drawn_record(run_of(regime=regime, fold=fold), n=40, severities=(0.0, 3.0))
        for regime, fold in (("joint", 0), ("joint", 1))
    )
    # Other subjects, fewer windows.
    second = replace(
        second,
        y=second.y[:30],
        subject=second.subject[:30] + 50,
        float_logits=second.float_logits[:30],
        int8_logits=second.int8_logits[:, :30],
    )
    given = (first, second)
    versions = {"numpy": "2.2, 2.3"}
    settings = {"settings": {"qat_share": 0.25}, "label": "joint"}
    sweep = sweep_of(list(given), regimes=({"name": "joint", **settings},))
    page = render_bench_page(summary_of(given), given, {}, sweep, versions)
    assert "some with settings of their own" in page
    assert "qat_share: 0.25" in page
    figures_shown = dict(re.findall(r'class="name">([^<]*)</span><span class="value">([^<]*)<', page))
    assert figures_shown["judged windows per run"] == "30 to 40"
    assert "hapt, 70 in all" in page
    assert "names no rigid bodies" not in page
    assert "severity 3, mean" in page
    assert ">2.2, 2.3<" in page


def test_the_headline_counts_where_there_are_many_settings():
    given = [
        drawn_record(run_of(data, regime), strength, n=30, severities=(0.0,))
        for data in "abcd"
        for regime, strength in (("joint", (3, 4, 6)), ("mixed", (0.1, 0.2, 0.3)))
    ]
    assert headline(summary_of(tuple(given))) == (
        "Highest final balanced accuracy, of 4 data sets and backbones: joint on 4."
    )
    said = headline(summary_of(tuple(given[:2]), "mixed"))
    assert said.startswith("On a, cnn medium, joint has the highest final balanced accuracy")
    assert said.endswith("points (one pair) against mixed, not told apart.")


def line(level: float) -> figures.Line:
    x = np.array([0.0, 1.0, 2.0])
    mean = level - 0.1 * x
    return figures.Line(x, mean, mean - 0.01, mean + 0.02)


def test_every_panel_shows_its_regime_and_the_reference():
    lines = {f"regime {k}": line(0.9 - 0.05 * k) for k in range(5)}
    ax = figures.plot_panels(lines, "regime 0", "severity", "quality")
    panels = ax.figure.axes
    assert [panel.get_title() for panel in panels] == list(lines)
    for name, panel in zip(lines, list(panels), strict=True):
        own = panel.lines[-1]
        np.testing.assert_allclose(own.get_ydata(), 100 * lines[name].mean)
        assert len(panel.lines) == (1 if name == "regime 0" else 2)
    low, high = panels[0].get_ylim()
    assert low < 100 * min(one.low.min() for one in lines.values())
    assert high > 100 * max(one.high.max() for one in lines.values())
    alone = figures.plot_panels({"one": line(0.9)}, "none", "x", "y", ax=ax.figure.add_subplot())
    assert alone.get_title() == "one"


def test_only_what_is_told_apart_is_drawn_in_colour():
    rows = {
        "better": figures.Difference(2.0, Interval(1.0, 3.0, 0.95), Interval(0.5, 3.5, 0.95)),
        "alike": figures.Difference(0.5, Interval(-1.0, 2.0, 0.95)),
        "one pair": figures.Difference(-3.0, None),
        "worse": figures.Difference(-2.0, Interval(-3.0, -1.0, 0.95)),
    }
    ax = figures.plot_forest({**rows, "unknown": None}, "points")
    assert [label.get_text() for label in ax.get_yticklabels()] == [*rows, "unknown"]
    marks = {float(one.get_ydata()[0]): one for one in ax.lines if one.get_marker() in ("o", "D")}
    assert [marks[k].get_marker() for k in range(4)] == ["o", "D", "D", "o"]
    assert marks[0].get_color() != marks[3].get_color()
    assert marks[1].get_color() == marks[2].get_color()
    assert len(marks) == len(rows)


def test_training_cost_stands_cheapest_first():
    spots = {
        "dear": figures.Spot(9e12, 0.97, Interval(0.96, 0.98, 0.95), is_marked=True),
        "cheap": figures.Spot(1e12, 0.90, None, is_marked=False),
    }
    ax = figures.plot_training_cost(spots, "quality")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cheap", "dear"]
    widths = [bar.get_width() for bar in ax.figure.axes[1].patches]
    assert widths == [1e12, 9e12]


def test_ranks_have_a_bar_per_clique_and_none_where_nothing_could_differ():
    values = np.arange(4.0) + np.random.default_rng(0).normal(scale=0.05, size=(12, 4))
    values[:, 3] = values[:, 2] + np.where(np.arange(12) % 2, 0.01, -0.01)
    ranking = rank_regimes(values, ["a", "b", "c", "d"])
    assert [set(one) for one in ranking.cliques] == [{"c", "d"}]
    ax = figures.plot_ranks(ranking, "quality")
    bars = [one for one in ax.lines if one.get_linewidth() == 4]
    assert len(bars) == 1
    few = figures.plot_ranks(rank_regimes(values[:3], ["a", "b", "c", "d"]), "quality")
    assert not [one for one in few.lines if one.get_linewidth() == 4]
    assert [text.get_text().split()[0] for text in few.texts[:2]] == list(
        rank_regimes(values[:3], "abcd").regimes[:2]
    )


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.plot_panels({}, "joint", "x", "y"), "`lines` must hold at least one regime"),
        (lambda: figures.plot_forest({}, "x"), "`rows` must hold at least one regime"),
        (
            lambda: figures.plot_forests({"one": {"a": None}, "two": {"b": None, "a": None}}, "x"),
            "`forests` must have the same rows in one order",
        ),
        (lambda: figures.plot_training_cost({}, "x"), "`spots` must hold at least one regime"),
        (
            lambda: figures.plot_ranks(Ranking((), (), 0, None, (), "None ran."), "x"),
            "`ranking` must hold at least two regimes. Received: 0. None ran.",
        ),
    ],
)
def test_figures_of_nothing_are_refused(draw, message):
    with pytest.raises(InputError, match=message):
        draw()
