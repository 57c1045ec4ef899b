"""Risk control: losses along one scalar, three methods against slow oracles, and an experiment with teeth."""

from __future__ import annotations

import sys
from itertools import product
from math import ceil, comb, exp, log, prod, sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import guarantees

from mexit_edge.errors import InputError
from mexit_edge.exits import (
    NEVER,
    RISK_LOSSES,
    RISK_METHODS,
    by_subject,
    control_risk,
    exit_gaps,
    exit_losses,
    exits_along,
    least_units,
    losses_along,
    passes,
    softmax,
    threshold_levels,
)
from mexit_edge.exits import risk as risk_module
from mexit_edge.exits.risk_bounds import betting_passes, binomial_cdf, hoeffding_bentkus

DELTA = 0.1
seeds = st.integers(0, 2**32 - 1)


def rising_losses(rng, n, n_levels, whole=True):
    """(n, L) losses that do not fall along the levels; 0 or 1, or anything between."""
    limit = rng.uniform(0, n_levels * 4, n)[:, None]
    losses = (np.arange(n_levels) >= limit).astype(float)
    return losses if whole else np.maximum.accumulate(losses * rng.random((n, n_levels)), axis=1)


# Losses


def test_the_gaps_are_those_of_the_definitions():
    y = np.array([0, 0, 0, 0])
    predicted = np.array([[0, 0], [1, 0], [0, 1], [1, 2]])  # both right, only the last, only the first, none
    assert exit_gaps("performance_gap", predicted, y)[:, 0].tolist() == [0, 1, -1, 0]
    assert exit_losses("performance_gap", predicted, y)[:, 0].tolist() == [0, 1, 0, 0]
    assert exit_gaps("consistency", predicted, y)[:, 0].tolist() == [0, 1, 1, 1]


def test_the_brier_gap_is_the_halved_difference_of_the_scores():
    probabilities = np.array([[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], [[0.5, 0.5, 0.0], [0.2, 0.4, 0.4]]])
    y, predicted = np.array([0, 0]), np.array([[1, 0], [0, 1]])
    gaps = exit_gaps("brier_gap", predicted, y, probabilities)
    assert gaps[:, 0] == pytest.approx([1.0, (0.5 - (0.64 + 0.32)) / 2])
    assert exit_losses("brier_gap", predicted, y, probabilities)[1, 0] == 0


@given(seeds, st.sampled_from(sorted(RISK_LOSSES)))
def test_losses_lie_in_0_1_and_the_final_exit_loses_nothing(seed, kind):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 10, (20, 3, 4))
    y = rng.integers(0, 4, 20)
    probabilities = np.stack([softmax(logits[:, exit_]) for exit_ in range(3)], axis=1)
    losses = exit_losses(kind, logits.argmax(axis=2), y, probabilities)
    assert losses.shape == (20, 3)
    assert losses.min() >= 0
    assert losses.max() <= 1
    assert not losses[:, -1].any()
    np.testing.assert_array_equal(
        losses, np.maximum(exit_gaps(kind, logits.argmax(axis=2), y, probabilities), 0)
    )


# Levels


def test_levels_of_logit_margin_are_the_integers_and_those_of_q15_go_from_1_to_0():
    np.testing.assert_array_equal(threshold_levels([255, 255], [0, 0])[:, 1], np.arange(255, -1, -1))
    levels = threshold_levels([1 << 15], [0])[:, 0]
    assert len(levels) == 256
    assert (levels[0], levels[-1]) == (1 << 15, 0)
    assert (abs(levels - (1 << 15) * np.linspace(1, 0, 256)) <= 0.5).all()


def test_levels_of_few_integers_are_not_repeated_and_an_exit_that_is_off_stays_off():
    levels = threshold_levels([3, 255], [0, 0], enabled=[True, False])
    assert levels.tolist() == [[3, NEVER], [2, NEVER], [1, NEVER], [0, NEVER]]
    assert (exits_along(np.full((1, 2), 255), levels) == 1).all()
    off = threshold_levels([255, 255], [0, 0], enabled=[False, False])
    assert off.tolist() == [[NEVER, NEVER]]
    assert exits_along(np.full((1, 2), 255), off).tolist() == [[3]]


@given(seeds, st.integers(1, 4))
def test_losses_along_equal_a_loop_over_windows(seed, n_early):
    rng = np.random.default_rng(seed)
    scores, losses = rng.integers(0, 12, (9, n_early)), rng.random((9, n_early + 1))
    levels = threshold_levels(rng.integers(6, 12, n_early).tolist(), [0] * n_early, n_levels=7)
    along = losses_along(scores, losses, levels)
    for window in range(9):
        largest = 0.0
        for level, thresholds in enumerate(levels):
            leaves = [early for early in range(n_early) if passes(scores[window, early], thresholds[early])]
            largest = max(largest, losses[window, leaves[0] if leaves else n_early])
            assert along[window, level] == largest


def test_by_subject_gives_each_subject_its_mean_and_does_not_fall():
    rng = np.random.default_rng(0)
    losses, subject = rising_losses(rng, 500, 40, whole=False), rng.integers(0, 5, 500) * 7
    means = by_subject(losses, subject)
    assert means.shape == (5, 40)
    np.testing.assert_allclose(means[3], losses[subject == 21].mean(axis=0))
    assert (np.diff(means, axis=1) >= 0).all()


# The methods, against slow oracles


def slow_upper_bound(losses, delta):
    """Waudby-Smith and Ramdas' bound of one column, by the book, to 1e-9."""
    n, mean, total, squares, stakes = len(losses), 0.5, 0.5, 0.25, []
    for i, loss in enumerate(losses, start=1):
        stakes.append(min(sqrt(2 * log(1 / delta) / (n * squares / i)), 1.0))
        total += loss
        mean = total / (i + 1)
        squares += (loss - mean) ** 2

    def wealth(risk):
        factors = [1 - nu * (loss - risk) for nu, loss in zip(stakes, losses, strict=True)]
        return max(prod(factors[:i]) for i in range(1, n + 1))

    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if wealth(middle) > 1 / delta else (middle, high)
    return high


def slow_p_value(losses, eps):
    n, mean = len(losses), float(np.mean(losses))
    a = min(mean, eps)
    divergence = (a * log(a / eps) if a else 0.0) + (1 - a) * log((1 - a) / (1 - eps))
    tail = sum(comb(n, k) * eps**k * (1 - eps) ** (n - k) for k in range(min(n, ceil(sum(losses))) + 1))
    return min(exp(-n * divergence), np.e * tail)


def slow_figure(method, losses, eps, delta):
    """What a method compares for one column, and with what."""
    if method == "crc":
        return (sum(losses) + 1) / (len(losses) + 1), eps
    if method == "ucb":
        return slow_upper_bound(losses, delta), eps
    return slow_p_value(losses, eps), delta


@settings(max_examples=40)
@given(seeds, st.sampled_from(RISK_METHODS), st.booleans(), st.sampled_from([0.05, 0.2, 0.5]))
def test_each_method_takes_the_last_level_before_the_first_failure(seed, method, whole, eps):
    rng = np.random.default_rng(seed)
    losses = rising_losses(rng, int(rng.integers(1, 60)), 6, whole)
    control = control_risk(losses, method, eps, DELTA, seed=seed)
    order = np.random.default_rng(seed).permutation(len(losses))
    index = None
    for level in range(6):
        figure, limit = slow_figure(method, losses[order, level].tolist(), eps, DELTA)
        if figure > limit * (1 + 1e-9):
            break
        index = level
    assert control.index == index
    figure, limit = slow_figure(method, losses[order, index or 0].tolist(), eps, DELTA)
    assert control.bound == pytest.approx(figure, rel=1e-6, abs=1e-8)
    assert (control.bound <= limit) == (index is not None)
    assert control.risk == pytest.approx(0 if index is None else losses[:, index].mean())


def test_a_level_after_the_first_failure_is_not_taken(monkeypatch):
    monkeypatch.setattr(
        risk_module, "_passes", lambda losses, *_: np.array([True, True, False, True])[: losses.shape[1]]
    )
    assert control_risk(np.cumsum(np.full((10, 4), 0.1), axis=1), "ltt", 0.2).index == 1


def test_levels_that_lose_the_same_are_taken_to_the_last():
    losses = np.zeros((200, 5))
    losses[:50, 3:] = 1
    for method in RISK_METHODS:
        assert control_risk(losses, method, 0.05).index == 2
        assert control_risk(losses, method, 0.5).index == 4


def test_crc_needs_one_unit_less_than_1_over_eps():
    assert control_risk(np.zeros((49, 3)), "crc", 0.02).index == 2
    assert control_risk(np.zeros((48, 3)), "crc", 0.02).index is None
    # Three losses of 199 units: (3 + 1) / 200 is eps itself, and not above it.
    three = np.zeros((199, 1))
    three[:3] = 1
    assert control_risk(three, "crc", 0.02).index == 0


@pytest.mark.parametrize(("method", "eps"), list(product(RISK_METHODS, [0.01, 0.037, 0.2])))
def test_fewer_than_the_least_units_accept_nothing(method, eps):
    least = least_units(method, eps, DELTA)
    assert control_risk(np.zeros((least - 1, 1)), method, eps, DELTA).index is None
    enough = ceil(least * 1.05) if method == "ucb" else least
    assert control_risk(np.zeros((enough, 1)), method, eps, DELTA).index == 0


@pytest.mark.parametrize("method", RISK_METHODS)
def test_where_no_level_passes_the_eps_that_is_advised_does(method):
    losses = rising_losses(np.random.default_rng(1), 60, 5)
    control = control_risk(losses, method, 0.01, DELTA)
    assert control.index is None
    assert control.risk == 0
    assert control.least_eps is not None
    assert control_risk(losses, method, control.least_eps + 1e-9, DELTA).index is not None
    assert control_risk(losses, method, control.least_eps - 1e-4, DELTA).index is None
    advised = float(control.sentence.partition("at least ")[2].partition(" ")[0])
    assert control_risk(losses, method, advised, DELTA).index is not None
    assert f"at least {least_units(method, 0.01, DELTA)} units" in control.sentence


def test_units_that_always_lose_are_not_advised_an_eps():
    for method in RISK_METHODS:
        assert "no `eps` will do for these units" in control_risk(np.ones((30, 2)), method, 0.5).sentence


def test_the_sentence_tells_a_promise_in_the_mean_from_one_for_most_sets():
    losses = np.zeros((300, 2))
    assert "in the mean over calibration sets" in control_risk(losses, "crc", 0.02).sentence
    assert "but for 0.1 of all calibration sets" in control_risk(losses, "ucb", 0.02).sentence


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (7, 0.01), (200, 0.05), (3000, 0.3)])
def test_the_binomial_tail_is_exact(n, p):
    tail = binomial_cdf(n, p)
    if n <= 200:
        mass = [comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
        np.testing.assert_allclose(tail, np.cumsum(mass), rtol=1e-9)
    stats = pytest.importorskip("scipy.stats")
    np.testing.assert_allclose(tail, stats.binom.cdf(np.arange(n + 1), n, p), rtol=1e-8, atol=1e-300)


def test_betting_sees_the_units_in_an_order_of_the_seed():
    losses = np.zeros((60, 1))
    losses[:3] = 1
    bounds = {control_risk(losses, "ucb", 0.2, DELTA, seed=seed).bound for seed in range(10)}
    assert len(bounds) > 1
    assert control_risk(losses, "ucb", 0.2, DELTA, seed=3) == control_risk(losses, "ucb", 0.2, DELTA, seed=3)


# The guarantees


@pytest.mark.parametrize(("n", "risk"), [(60, 0.1), (250, 0.1)])
def test_a_column_whose_risk_is_above_eps_passes_in_at_most_delta_of_all_samples(n, risk):
    rng = np.random.default_rng(n)
    columns = (rng.random((n, 4000)) < risk + 1e-6).astype(float)
    limit = DELTA + 3 * sqrt(DELTA * (1 - DELTA) / 4000)
    assert betting_passes(columns, risk, DELTA).mean() <= limit
    assert (hoeffding_bentkus(columns, risk) <= DELTA).mean() <= limit
    # The mean itself is no bound: the same check refutes it.
    assert (columns.mean(axis=0) <= risk).mean() > limit


def test_the_experiment_refutes_a_method_that_takes_the_mean_at_its_word(monkeypatch):
    rng = np.random.default_rng(0)
    losses = rising_losses(rng, 2000, 30)
    made_up = guarantees.Population(
        "score", "loss", losses, losses, np.tile(np.linspace(1, 0.1, 30), (2000, 1)), np.arange(2000) % 9
    )
    honest = list(guarantees.from_draws(made_up, 300, 100))
    assert {row["verdict"] for row in honest} == {"holds"}
    assert {(row["method"], row["eps"]) for row in honest} == set(product(RISK_METHODS, guarantees.EPS))

    monkeypatch.setattr(risk_module, "_passes", lambda losses, method, eps, delta: losses.mean(axis=0) <= eps)
    believing = list(guarantees.from_draws(made_up, 300, 100))
    assert {row["verdict"] for row in believing if row["method"] != "crc"} == {"refuted"}


def test_the_experiment_by_subject_measures_on_those_left_out(monkeypatch):
    monkeypatch.setattr(guarantees, "RISK_METHODS", ("crc",))
    subject = np.repeat(np.arange(9), 60)
    # One subject of nine always loses, so that it is calibrated without in a third of all choices of six.
    losses = np.repeat((subject == 4).astype(float)[:, None], 2, axis=1)
    made_up = guarantees.Population("score", "loss", losses, losses, np.full((540, 2), 0.5), subject)
    rows = [row for row in guarantees.from_subjects(made_up, 6) if row["unit"] == "window"]
    assert {row["draws"] for row in rows} == {84}
    for row in rows:
        assert row["exceeds_eps"] == pytest.approx(1 / 3, abs=1e-4)
        assert row["found_nothing"] == pytest.approx(2 / 3, abs=1e-4)
        assert row["largest_risk"] == pytest.approx(1 / 3, abs=1e-4)
        assert row["verdict"] == "beyond"


# Bad input

FINE = np.zeros((50, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (FINE, "ubc", 0.1),
            r"`method` must be one of: crc, ltt, ucb\. Received: 'ubc'\. Did you mean 'ucb'",
        ),
        ((FINE, "crc", 0.0), r"`eps` must be between 0 and 1.*Received: 0\.0"),
        ((FINE, "crc", 1.0), r"`eps` must be between 0 and 1"),
        ((FINE, "crc", float("nan")), r"`eps` must be between 0 and 1"),
        ((FINE, "ltt", 0.1, 1.0), r"`delta` must be between 0 and 1"),
        ((FINE - 0.1, "crc", 0.1), r"`losses` must lie in \[0, 1\]\. Received: values from -0\.1"),
        ((FINE + 1.1, "crc", 0.1), r"`losses` must lie in \[0, 1\]"),
        ((FINE * np.nan, "crc", 0.1), r"`losses` must lie in \[0, 1\]"),
        ((FINE[:0], "crc", 0.1), r"`losses` must be \(units, levels\), at least one of each"),
        ((FINE[:, :0], "crc", 0.1), r"`losses` must be \(units, levels\), at least one of each"),
        ((FINE[0], "crc", 0.1), r"`losses` must be \(units, levels\)"),
        ((np.array([[0.5, 0.4]]), "crc", 0.1), r"`losses` must not fall along the levels"),
        ((np.array([[True, False]]), "crc", 0.1), r"`losses` must not fall along the levels"),
    ],
)
def test_bad_input_to_control_risk_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        control_risk(*arguments)


def test_bad_input_to_the_losses_is_refused():
    predicted, y = np.zeros((5, 3), int), np.zeros(5, int)
    probabilities = np.full((5, 3, 4), 0.25)
    with pytest.raises(InputError, match=r"`loss` must be one of.*Did you mean 'brier_gap'"):
        exit_losses("brier", predicted, y)
    with pytest.raises(InputError, match=r"`predicted` must be \(windows, exits\)"):
        exit_losses("consistency", predicted, y[:3])
    for wrong in (None, probabilities[:, :2], probabilities[:, :, 0]):
        with pytest.raises(InputError, match=r"`probabilities` must be \(windows, exits, classes\)"):
            exit_losses("brier_gap", predicted, y, wrong)
    for wrong in (probabilities * 2, probabilities * np.nan):
        with pytest.raises(InputError, match="add up to 1"):
            exit_losses("brier_gap", predicted, y, wrong)
    with pytest.raises(InputError, match="`y` must be class indices from 0 to 3"):
        exit_losses("brier_gap", predicted, y - 1, probabilities)


def test_levels_and_losses_that_do_not_fit_are_refused():
    scores, losses, levels = np.zeros((5, 2), int), np.zeros((5, 3)), threshold_levels([9, 9], [0, 0])
    with pytest.raises(InputError, match="`scores` and `levels` must fit `losses`"):
        losses_along(scores[:, :1], losses, levels)
    with pytest.raises(InputError, match="`scores` and `levels` must fit `losses`"):
        losses_along(scores, losses, levels[:, :1])
    with pytest.raises(InputError, match="`levels` must go from the strictest"):
        losses_along(scores, losses, levels[::-1])
    with pytest.raises(InputError, match="`subject` needs one value per window"):
        by_subject(losses, np.zeros(4, int))
    with pytest.raises(InputError, match="need one value per early exit"):
        threshold_levels([9, 9], [0])
    with pytest.raises(InputError, match="`highest` must not be below `lowest`"):
        threshold_levels([0], [9])
    with pytest.raises(InputError, match="`n_levels` must be at least 2"):
        threshold_levels([9], [0], n_levels=1)
