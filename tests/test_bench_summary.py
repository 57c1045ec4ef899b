"""Rows of a sweep together: intervals, paired tests, ranks, and the advice that follows from them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from fixtures_bench import drawn_record, hand_record, run_of
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.benchmark.advice import advise, choose
from mexit_edge.benchmark.quality_cost import credit_at, final_credit
from mexit_edge.benchmark.rows import COLUMNS, rows_of
from mexit_edge.benchmark.statistics import (
    holm,
    mean_interval,
    paired_difference,
    rank_regimes,
    signed_rank_p,
    subject_bootstrap,
)
from mexit_edge.benchmark.summary import (
    FINAL_QUALITY,
    ROBUST_QUALITY,
    TRAINING_MACS,
    Measure,
    Setting,
    Summary,
    exit_quality,
    policy_quality,
    quality_at,
    read_rows,
    summarise,
)
from mexit_edge.benchmark.tables import by_final_quality
from mexit_edge.errors import InputError

pd = pytest.importorskip("pandas")
stats = pytest.importorskip("scipy.stats")

HAPT = Setting("hapt", "cnn medium", "test")


def made_rows(
    table: dict[str, dict[int, float]],
    metric: str = "balanced_accuracy",
    *,
    data: str = "hapt",
    fold: int | None = None,
    **where: object,
) -> list[dict]:
    """Rows of one figure: regime -> seed -> value."""
    where = {"kind": "int8", "exit": "exit_03", "severity": 0.0} | where
    return [
        {
            **dict.fromkeys(COLUMNS),
            "data": data,
            "backbone": "cnn medium",
            "regime": regime,
            "seed": seed,
            "judged_on": "test" if fold is None else "out_of_fold",
            "fold": fold,
            "metric": metric,
            **where,
            "value": value,
        }
        for regime, values in table.items()
        for seed, value in values.items()
    ]


def summary_of(rows: list[dict], reference: str = "joint"):
    return summarise(pd.DataFrame(rows, columns=list(COLUMNS)), reference)


@settings(max_examples=40)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.integers(0, 999))
def test_intervals_are_those_of_scipy(values, seed):
    found = mean_interval(values)
    deviation = np.std(values, ddof=1)
    if deviation > 1e-9:
        low, high = stats.t.interval(
            0.95, len(values) - 1, loc=np.mean(values), scale=deviation / len(values) ** 0.5
        )
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    theirs = np.random.default_rng(seed).normal(size=len(values))
    paired = paired_difference(values, theirs.tolist())
    confidence = stats.ttest_rel(values, theirs).confidence_interval(0.95)
    assert paired.interval.low == pytest.approx(confidence.low, abs=1e-9)
    assert paired.interval.high == pytest.approx(confidence.high, abs=1e-9)
    assert paired.told_apart is not (confidence.low <= 0 <= confidence.high)


@settings(max_examples=40)
@given(st.lists(st.integers(-60, 60).filter(bool), min_size=6, max_size=14, unique_by=abs))
def test_signed_ranks_are_those_of_scipy(differences):
    found = signed_rank_p(np.asarray(differences, np.float64))
    assert found == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)


def test_signed_ranks_are_exact_with_ties():
    """All 2**7 signs of the ranks that came out, counted one by one."""
    differences = np.array([2.0, 2, -2, 1, 1, 3, 0, 4])
    ranked = stats.rankdata(np.abs(differences[differences != 0]))
    lesser = ranked[2]
    sums = [
        sum(rank for rank, sign in zip(ranked, signs, strict=True) if sign)
        for signs in product((0, 1), repeat=7)
    ]
    expected = min(1.0, 2 * np.mean(np.asarray(sums) <= lesser))
    assert signed_rank_p(differences) == pytest.approx(expected)
    assert signed_rank_p(np.zeros(6)) == 1.0
    assert signed_rank_p(np.ones(5)) is None
    assert signed_rank_p(np.ones(6)) == pytest.approx(2 / 64)


def test_wins_follow_what_is_better():
    ours, theirs = [1.0, 2.0, 3.0], [2.0, 2.0, 1.0]
    better = paired_difference(ours, theirs)
    assert (better.wins, better.ties, better.losses) == (1, 1, 1)
    cheaper = paired_difference([1.0, 1.0], [2.0, 3.0], lower_is_better=True)
    assert (cheaper.wins, cheaper.losses, cheaper.mean) == (2, 0, -1.5)
    alone = paired_difference([1.0], [0.5])
    assert (alone.interval, alone.p_value, alone.told_apart) == (None, None, False)


def test_holm_by_hand():
    # .01 <= .05/4, .013 <= .05/3, .03 > .05/2: the rest stands, .04 too.
    assert holm([0.04, 0.01, 0.03, 0.013]) == [False, True, False, True]
    assert holm([None, 0.01]) == [False, True]
    # What is unknown still counts among the hypotheses.
    assert holm([None, 0.03]) == [False, False]


def test_cliques_of_a_table_made_for_them():
    """A beats C and D, B beats D, always; neighbours swap from block to block."""
    blocks = np.arange(16)
    swap = np.where(blocks % 2, 0.02, -0.02) * (1 + blocks / 16)
    a, b, c, d = 0.9 + swap, 0.9 - swap, 0.80 + swap, 0.80 - swap
    values = np.stack([d, b, a, c], axis=1) + 0.001 * blocks[:, None]
    found = rank_regimes(values, ["d", "b", "a", "c"])
    assert (found.blocks, len(found.cliques)) == (16, 2)
    assert {frozenset(one) for one in found.cliques} == {frozenset("ab"), frozenset("cd")}
    assert set(found.regimes[:2]) == {"a", "b"}
    assert sorted(found.ranks) == [1.5, 1.5, 3.5, 3.5]
    assert found.friedman_p == pytest.approx(stats.friedmanchisquare(*values.T).pvalue)
    assert "4 of 6 pairs are told apart" in found.note
    turned = rank_regimes(values, ["d", "b", "a", "c"], lower_is_better=True)
    assert set(turned.regimes[:2]) == {"c", "d"}


def test_cliques_overlap_like_a_chain():
    """Neighbours are not told apart, what lies further away is."""
    rng = np.random.default_rng(3)
    values = np.array([0.0, 0.55, 1.1]) + rng.normal(size=(24, 3))
    found = rank_regimes(values, ["low", "middle", "high"])
    p = {
        pair: stats.wilcoxon(values[:, pair[0]] - values[:, pair[1]], method="exact").pvalue
        for pair in ((0, 1), (1, 2), (0, 2))
    }
    # What the table was drawn for.
    assert sorted(p.values())[0] == p[0, 2] <= 0.05 / 3
    assert min(p[0, 1], p[1, 2]) > 0.05 / 2
    assert found.regimes == ("high", "middle", "low")
    assert found.cliques == (("high", "middle"), ("middle", "low"))


def test_too_few_blocks_are_said_to_be():
    values = np.array([[3.0, 2, 1]] * 6)
    found = rank_regimes(values, ["a", "b", "c"])
    assert found.cliques == ()
    assert found.ranks == (1, 2, 3)
    # 2**(1 - 7) = .0156 is the first below .05 / 3.
    assert "Too few blocks (6)" in found.note
    assert "It takes 7 blocks" in found.note
    assert rank_regimes(np.array([[3.0, 2, 1]] * 7), ["a", "b", "c"]).cliques == ()
    assert "3 of 3 pairs" in rank_regimes(np.array([[3.0, 2, 1]] * 7), ["a", "b", "c"]).note
    alike = rank_regimes(np.ones((9, 3)), ["a", "b", "c"])
    assert alike.cliques == (("a", "b", "c"),)
    assert "tells no regimes apart" in alike.note
    assert rank_regimes(np.empty((0, 2)), ["a", "b"]).regimes == ()
    assert rank_regimes(np.ones((5, 1)), ["a"]).note == "With one regime there is nothing to rank."


def test_folds_count_once_per_seed_and_are_compared_where_both_have_them():
    rows = []
    # regime -> seed -> value, fold by fold; mixed lacks fold 1 of seed 0.
    for fold, table in enumerate(
        (
            {"joint": {0: 0.8, 1: 0.7}, "mixed": {0: 0.9, 1: 0.7}},
            {"joint": {0: 0.6, 1: 0.5}, "mixed": {1: 0.6}},
        )
    ):
        rows += made_rows(table, fold=fold)
    summary = summary_of(rows)
    setting = Setting("hapt", "cnn medium", "out_of_fold")
    assert summary.settings == (setting,)
    assert summary.seeds(setting, "joint", FINAL_QUALITY) == {0: pytest.approx(0.7), 1: pytest.approx(0.6)}
    # Fold 0 of seed 0 alone is of other subjects than the means beside it.
    assert summary.seeds(setting, "mixed", FINAL_QUALITY) == {1: pytest.approx(0.65)}
    found = summary.difference(setting, "mixed", FINAL_QUALITY)
    assert (found.mean, found.pairs) == (pytest.approx((0.1 + 0.05) / 2), 2)
    assert summary.ranking(FINAL_QUALITY).blocks == 3
    assert summary.cell(setting, "mixed", policy_quality()) is None
    assert summary.difference(setting, "mixed", policy_quality()) is None


def test_a_network_that_lacks_a_fold_of_another_has_no_mean():
    """Fold 1 is hard for everybody: who lacks it would look better."""
    rows = made_rows({"joint": {0: 0.9}}, fold=0) + made_rows({"joint": {0: 0.5}}, fold=1)
    rows += [{**row, "backbone": "wide"} for row in made_rows({"joint": {0: 0.8}}, fold=0)]
    summary = summary_of(rows)
    cells = [summary.cell(setting, "joint", FINAL_QUALITY) for setting in summary.settings]
    assert [cell and cell.mean for cell in cells] == [pytest.approx(0.7), None]


def test_costs_are_compared_over_the_seeds_that_both_have():
    """Seed 2 has more training windows, and costs everybody more."""
    nothing = {"kind": None, "exit": None, "severity": None}
    rows = made_rows({"joint": {0: 1.0, 1: 1.0, 2: 4.0}, "dear": {0: 2.0, 1: 2.0}}, "epochs", **nothing)
    summary = summary_of(rows)
    assert summary.ratio(HAPT, "dear", Measure("epochs")) == pytest.approx(2.0)
    assert summary.ratio(HAPT, "joint", Measure("epochs")) == 1.0
    assert summary.ratio(HAPT, "unknown", Measure("epochs")) is None


def test_regimes_are_ordered_by_the_seeds_that_they_share_with_the_reference():
    """Seed 2 is hard for everybody: who skips it has the higher mean, and is the worse one."""
    summary = summary_of(
        made_rows({"joint": {0: 0.8, 1: 0.8, 2: 0.5}, "lucky": {0: 0.78, 1: 0.78}, "good": {2: 0.6}})
    )
    assert choose(summary, HAPT, FINAL_QUALITY).best == "good"
    assert summary.standing(HAPT, "lucky", FINAL_QUALITY) == pytest.approx(0.7 - 0.02)
    assert summary.cell(HAPT, "lucky", FINAL_QUALITY).mean == pytest.approx(0.78)


def test_rows_come_back_from_a_file(tmp_path: Path):
    records = [
        drawn_record(run_of(regime=regime, seed=seed), n=40)
        for regime in ("joint", "None")
        for seed in (0, 1)
    ]
    frame = pd.DataFrame([row for one in records for row in rows_of(one)], columns=list(COLUMNS))
    frame.to_csv(tmp_path / "rows.csv", index=False)
    read = summarise(read_rows(tmp_path / "rows.csv"))
    made = summarise(frame)
    assert read.values == made.values
    assert read.regimes == ("joint", "None")
    assert read.exits_of(HAPT) == ("exit_01", "exit_02", "exit_03")
    assert read.severities_of(HAPT) == (0, 1, 2, 3, 4, 5)
    # What is made of several rows.
    at = [read.cell(HAPT, "None", policy_quality(severity)).mean for severity in (3.0, 4.0, 5.0)]
    assert read.cell(HAPT, "None", ROBUST_QUALITY).mean == pytest.approx(np.mean(at))
    assert read.cell(HAPT, "joint", TRAINING_MACS).mean == pytest.approx(7e12)
    assert read.seeds(HAPT, "joint", FINAL_QUALITY) == read.seeds(HAPT, "joint", exit_quality("exit_03"))
    table = read.to_frame().set_index(["regime", "metric", "cost_share"])
    row = table.loc[("None", "quality_at_cost", 0.5)].iloc[0]
    found = read.difference(HAPT, "None", quality_at(0.5))
    assert (row["difference"], row["difference_low"]) == (found.mean, found.interval.low)
    assert (row["seeds"], row["pairs"]) == (2, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "`frame` must have the columns data, .* Received: .*rows.csv with a, b"),
        (None, "must be the CSV file of a sweep. Received"),
        (
            ",".join(COLUMNS) + "\nhapt,cnn,joint,zero,test,,macs,,exit_01,,,5\n",
            "must be the CSV file of a sweep",
        ),
    ],
)
def test_another_table_is_refused(tmp_path: Path, content: str | None, message: str):
    path = tmp_path / "rows.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        summarise(read_rows(path))


def test_a_run_twice_and_no_run_are_refused():
    rows = made_rows({"joint": {0: 0.8}})
    with pytest.raises(InputError, match=r"every figure of a run once\. Received: balanced_accuracy"):
        summary_of(rows + rows)
    with pytest.raises(InputError, match="at least one run"):
        summary_of([])


def test_the_bootstrap_over_subjects_by_hand():
    """Two subjects of one class each: a draw is subject 7 alone, both, or subject 8 alone."""
    one = hand_record()
    # As good on subject 7, worse on subject 8: the final exit is right on one of its windows only.
    logits = one.int8_logits.copy()
    logits[0, 3, -1] = logits[0, 2, -1]
    other = replace(one, int8_logits=logits)
    found = subject_bootstrap([one], [other], final_credit)
    # Subject 7 alone: 0; both: class by class (0 + .5) / 2; subject 8 alone: .5.
    assert (found.low, found.high, found.level) == (0.0, 0.5, 0.95)
    assert subject_bootstrap([one], [one], final_credit).high == 0
    assert subject_bootstrap([one], [other], lambda record: credit_at(record, 0.3)) is None
    alone = [replace(record, subject=np.full(4, 7)) for record in (one, other)]
    assert subject_bootstrap(alone[:1], alone[1:], final_credit) is None


def test_the_bootstrap_pairs_runs_and_refuses_what_has_no_partner():
    better = [drawn_record(run_of(regime="mixed", seed=seed), (3, 4, 5)) for seed in (0, 1)]
    worse = [drawn_record(run_of(seed=seed), (1, 1, 1)) for seed in (1, 0, 2)]
    found = subject_bootstrap(better, worse, final_credit, draws=200)
    means = [final_credit(one).mean() for one in (*better, *worse[:2])]
    difference = np.mean(means[:2]) - np.mean(means[2:])
    assert 0 < found.low < difference < found.high
    assert found == subject_bootstrap(better, worse, final_credit, draws=200)
    # Folds of other subjects stand for each other where a draw holds none of one's.
    folds = [
        [
            replace(drawn_record(run_of(regime=regime, fold=fold), strength), subject=np.full(120, fold))
            for fold in (0, 1)
        ]
        for regime, strength in (("mixed", (3, 4, 5)), ("joint", (1, 1, 1)))
    ]
    assert subject_bootstrap(*folds, final_credit, draws=50).low > 0
    with pytest.raises(InputError, match="with a seed and fold in common"):
        subject_bootstrap(better, worse[2:], final_credit)
    with pytest.raises(InputError, match="judged on the same windows"):
        subject_bootstrap(better[:1], [replace(worse[1], y=worse[1].y[::-1])], final_credit)


FINALS = {
    "joint": {0: 0.90, 1: 0.92, 2: 0.91},
    "mixed": {0: 0.95, 1: 0.97, 2: 0.96},
    "distill": {0: 0.951, 1: 0.95, 2: 0.97},
    "boosted": {0: 0.99},
}
COSTS = {"joint": 1.0, "mixed": 3.0, "distill": 2.0, "boosted": 0.5}


def advice_of(rows: list[dict]):
    return {one.want: one.picks for one in advise(summary_of(rows))}


def priced(data: str = "hapt", windows: int = 1000, costs: dict[str, float] = COSTS) -> list[dict]:
    rows = made_rows(FINALS, data=data)
    nothing = {"kind": None, "exit": None, "severity": None, "data": data}
    for metric in ("forward_macs", "backward_macs"):
        table = {one: dict.fromkeys(FINALS[one], 500000000000.0 * costs[one]) for one in FINALS}
        rows += made_rows(table, metric, **nothing)
    return rows + made_rows({one: {0: windows} for one in FINALS}, "training_windows", **nothing)


def test_advice_names_the_best_what_is_not_told_apart_and_the_next():
    advice = advice_of(priced())
    (final,) = advice["the best final quality"]
    # One seed of boosted is the highest mean; nothing can be told from it, so nothing is named to take.
    ahead = "boosted was ahead, on one seed; nothing is told apart"
    assert (final.take, final.because) == ("unknown", f"{ahead}: 99.0\N{NO-BREAK SPACE}%")
    assert final.tied == "mixed, distill, joint: too few seeds to tell"
    (cheap,) = advice["the least training cost"]
    assert cheap.take == "unknown"
    assert cheap.because.startswith(f"{ahead}; the cheapest is boosted: 500.00\N{NO-BREAK SPACE}G MACs")
    rows = [row for row in priced() if row["regime"] != "boosted"]
    advice = advice_of(rows)
    (final,) = advice["the best final quality"]
    assert (final.take, final.tied) == ("mixed", "distill")
    assert final.because.startswith("96.0")
    assert final.second.startswith("distill: -0.30 points [")
    # Not told apart is not as good: three seeds leave room for a loss of some points.
    (cheap,) = advice["the least training cost"]
    assert cheap.take == "unknown"
    assert cheap.because.startswith(
        "no other is shown to lose less than 1 point to mixed (3.00\N{NO-BREAK SPACE}T MACs); the cheapest "
        "is joint: 1.00\N{NO-BREAK SPACE}T MACs; final quality 91.0"
    )
    assert ", -5.00 points [" in cheap.because
    (robust,) = advice["robustness"]
    assert (robust.take, robust.because) == ("unknown", "not judged at severities 3 to 5")


def test_a_regime_without_a_whole_seed_is_not_compared_with_means():
    rows = []
    for fold, regimes in enumerate((("joint", "mixed", "late"), ("joint", "mixed"))):
        for regime in regimes:
            rows += [
                {**row, "judged_on": "out_of_fold", "fold": fold}
                for row in priced()
                if row["regime"] == "joint" and row["seed"] == 0
                for row in [{**row, "regime": regime, "value": row["value"] * (1 + (regime == "late"))}]
            ]
    summary = summary_of(rows)
    choice = choose(summary, summary.settings[0], FINAL_QUALITY)
    assert (choice.best, tuple(choice.behind)) == ("joint", ("mixed",))
    assert by_final_quality(summary, summary.settings[0])[-1] == "late"
    (final,) = advice_of(rows)["the best final quality"]
    assert (final.take, final.because[:31]) == ("unknown", "joint was ahead, on one seed; n")


def test_the_cheapest_that_is_shown_to_be_as_good_is_named():
    table = {
        "mixed": {0: 0.95, 1: 0.97, 2: 0.96},
        "distill": {0: 0.948, 1: 0.969, 2: 0.957},
        "joint": {0: 0.93, 1: 0.95, 2: 0.94},
    }
    rows = [row for row in priced() if row["metric"] != "balanced_accuracy" and row["regime"] != "boosted"]
    (cheap,) = advice_of(rows + made_rows(table))["the least training cost"]
    # joint is cheaper still, and surely two points worse.
    assert cheap.take == "distill"
    assert cheap.because.startswith("2.00\N{NO-BREAK SPACE}T MACs; final quality 95.8")
    assert "-0.20 points [" in cheap.because
    assert cheap.because.endswith("against mixed")
    assert cheap.second == "mixed: 3.00\N{NO-BREAK SPACE}T MACs"
    # The best is the cheapest: nothing is to be shown.
    (cheap,) = advice_of(rows + made_rows({**table, "joint": table["mixed"], "mixed": table["joint"]}))[
        "the least training cost"
    ]
    assert (cheap.take, "against" in cheap.because) == ("joint", False)


@pytest.mark.parametrize(("dearest", "same"), [(1.1, True), (1.12, False)])
def test_at_equal_cost_no_regime_is_the_cheapest(dearest: float, same: bool):
    (cheap,) = advice_of(priced(costs={**dict.fromkeys(FINALS, 1.0), "mixed": dearest}))[
        "the least training cost"
    ]
    said = "all cost the same here: 1.00\N{NO-BREAK SPACE}T to 1.10\N{NO-BREAK SPACE}T MACs"
    assert cheap.take == ("any" if same else "unknown")
    assert (cheap.because == said) is same


def test_a_worse_regime_is_hardly_ever_shown_to_be_as_good():
    """Two points worse, a standard deviation of one, three seeds: half of the time it is not told apart."""
    rng = np.random.default_rng(0)
    tied = as_good = 0
    for _ in range(300):
        drawn = {"joint": 0.95 + 0.01 * rng.normal(size=3), "worse": 0.93 + 0.01 * rng.normal(size=3)}
        values = {
            (HAPT, regime, FINAL_QUALITY): {(seed, None): float(one[seed]) for seed in range(3)}
            for regime, one in drawn.items()
        }
        summary = Summary("joint", (HAPT,), ("joint", "worse"), {HAPT: frozenset({None})}, values)
        choice = choose(summary, HAPT, FINAL_QUALITY)
        tied += "worse" in choice.tied
        as_good += "worse" in choice.as_good and choice.best != "worse"
    assert tied > 100
    assert as_good < 8


def test_robustness_is_over_the_severe_severities_that_were_judged():
    def judged(severities):
        records = [
            drawn_record(run_of(regime=regime, seed=seed), strength, n=60, severities=severities)
            for regime, strength in (("joint", (1, 2, 3)), ("mixed", (3, 4, 5)))
            for seed in (0, 1, 2)
        ]
        rows = [row for one in records for row in rows_of(one)]
        return summary_of(rows), advice_of(rows)["robustness"][0]

    summary, robust = judged((0.0, 2.0, 3.0, 5.0))
    at = [summary.cell(HAPT, "mixed", policy_quality(severity)).mean for severity in (3.0, 5.0)]
    assert summary.cell(HAPT, "mixed", ROBUST_QUALITY).mean == pytest.approx(np.mean(at))
    assert robust.take == "mixed"
    assert "] over severities 3, 5, at " in robust.because
    assert "] over severity 4, at " in judged((0.0, 4.0))[1].because
    assert judged((0.0, 2.0))[1].because == "not judged at severities 3 to 5"


def test_small_data_is_the_set_with_the_fewest_training_windows():
    assert "to train on small data" not in advice_of(priced())
    (small,) = advice_of(priced() + priced("watch", 400))["to train on small data"]
    assert small.where == "watch, cnn medium"
    assert small.because.endswith("watch has 400 training windows")


def test_a_cost_is_best_where_it_is_least():
    summary = summary_of(priced())
    assert choose(summary, HAPT, TRAINING_MACS).best == "boosted"
    assert choose(summary, HAPT, Measure("epochs")) is None
