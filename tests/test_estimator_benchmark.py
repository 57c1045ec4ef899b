"""The benchmark of the estimates hides what it says it hides; on made-up results."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import estimator_mlperf as benchmark
from mlperf import Result

from mexit_edge.estimate.latency.population import Measurement, Population, Spreads, System

MODELS = ("a", "b", "c", "d")
SHARED = {"family": "kernels", "version": "1"}


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(0)
    results, measured = [], []
    # Two systems on one board: a hidden board must take both along.
    systems = [
        System(board, core, **SHARED, name=name)
        for board, core, name in (
            ("one", "M4", "one first"),
            ("one", "M4", "one second"),
            ("two", "M4", "two"),
            ("three", "M7", "three"),
        )
    ]
    for system, model in itertools.product(systems, MODELS):
        amounts = random.uniform(1e3, 1e5, 8) * (MODELS.index(model) + 1)
        cycles = float(amounts.sum() * 3)
        results.append(Result(system, model, False, 100.0, 1.8, cycles / 1e5, 40.0, "v1.0", "somebody"))
        measured.append(Measurement(system, model, amounts, cycles))
    return benchmark.Rows(results, measured)


def test_a_hidden_row_is_never_known_nor_learned_on(rows):
    for make in benchmark.SETTINGS.values():
        for fold in make(rows):
            assert not set(fold.hidden) & {*fold.known, *fold.learned_on}
            assert set(fold.learned_on) <= set(fold.known)


def test_every_row_is_hidden_in_every_setting(rows):
    for make in benchmark.SETTINGS.values():
        assert {row for fold in make(rows) for row in fold.hidden} == set(rows.all)


@pytest.mark.parametrize("setting", ["model hidden on every board", "board and model hidden"])
def test_a_hidden_model_is_known_on_no_board(rows, setting):
    for fold in benchmark.SETTINGS[setting](rows):
        assert not set(rows.model[fold.hidden]) & set(rows.model[fold.known])


@pytest.mark.parametrize("setting", ["board hidden", "board and model hidden"])
def test_of_a_hidden_board_nothing_is_known(rows, setting):
    for fold in benchmark.SETTINGS[setting](rows):
        assert not set(rows.board[fold.hidden]) & set(rows.board[fold.known])


@pytest.mark.parametrize(
    ("setting", "n_known"),
    [
        ("one measured model", 1),
        ("three measured models", 3),
        ("one measured model, model hidden on every board", 1),
    ],
)
def test_of_a_board_only_the_measured_rows_are_known(rows, setting, n_known):
    for fold in benchmark.SETTINGS[setting](rows):
        (system,) = set(rows.system[fold.hidden])
        board = rows.board[fold.hidden[0]]
        own = [row for row in fold.known if rows.board[row] == board]
        assert len(own) == n_known
        assert set(rows.system[own]) == {system}


@pytest.mark.parametrize(
    ("setting", "predict"),
    [
        ("model hidden on every board", "ours"),
        ("model hidden on every board", "by_device_file"),
        ("one measured model", "ours"),
        ("one measured model", "by_device_fit"),
    ],
)
def test_what_is_said_does_not_hang_on_what_is_hidden(rows, setting, predict):
    (fold, *_) = benchmark.SETTINGS[setting](rows)
    other = list(rows.measured)
    for row in fold.hidden:
        other[row] = replace(other[row], cycles=other[row].cycles * 7)
    told = []
    for measured in (rows.measured, other):
        predictor = getattr(benchmark.predictors, predict)
        found = predictor([fold], benchmark.Rows(rows.results, measured), {fold.name: Spreads()})
        told.append([np.exp(one.log_ratio) * measured[one.row].cycles for one in found])
    np.testing.assert_allclose(told[0], told[1], rtol=1e-9)


def test_spreads_are_chosen_on_visible_rows_only(rows):
    (fold, *_) = benchmark.SETTINGS["board hidden"](rows)
    other = [
        replace(one, cycles=one.cycles * 7) if index in fold.hidden else one
        for index, one in enumerate(rows.measured)
    ]
    likelihoods = [
        Population(measured).log_likelihood(fold.learned_on) for measured in (rows.measured, other)
    ]
    assert likelihoods[0] == pytest.approx(likelihoods[1], rel=1e-9)


def test_pairs_say_what_boards_can_show(rows):
    def predictions(error: float):
        return [benchmark.Prediction(int(row), 0, float(np.log1p(error))) for row in rows.all]

    def verdict(ours: float, theirs: float) -> str:
        return benchmark.paired("s", "they", predictions(ours), predictions(theirs), rows)["verdict"]

    assert [verdict(0.1, 0.2), verdict(0.2, 0.1), verdict(0.1, 0.1)] == ["better", "worse", "tie"]


def test_a_table_of_other_results_does_not_take_over_chosen_spreads(rows):
    slower = [replace(one, cycles=one.cycles * 2) for one in rows.measured]
    assert benchmark.fingerprint(rows) != benchmark.fingerprint(benchmark.Rows(rows.results, slower))
    assert benchmark.fingerprint(rows) == benchmark.fingerprint(benchmark.Rows(rows.results, rows.measured))
