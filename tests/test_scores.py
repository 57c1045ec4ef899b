"""Scores as floats and integers: of one exit, with a memory, on ensembles, learned."""

from __future__ import annotations

from itertools import product
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.exits import (
    NEVER,
    SCORES,
    ExitRule,
    Exits,
    Gate,
    Score,
    expected_calibration_error,
    fit_gates,
    float_scores,
    make_scores,
    score_exits,
    tempered,
)
from mexit_edge.exits.scores.gate import HIGHEST_OUTPUT, LARGEST_WEIGHT, LOWEST_OUTPUT, n_weights

Q15 = 1 << 15
INT32 = 1 << 31
LN2 = log(2)
OF_ONE_EXIT = ["entropy", "logit_margin", "margin", "max_prob"]
WITH_MEMORY = sorted(set(SCORES) - set(OF_ONE_EXIT))
SOFTMAX_SCORES = sorted(set(OF_ONE_EXIT) - {"logit_margin"})

seeds = st.integers(0, 2**32 - 1)
scales = st.floats(1e-3, 1.0)
int8 = st.integers(-128, 127)


def score_of(name: str, scale: float, n_classes: int) -> Score:
    return make_scores(name, [scale], n_classes)[0]


def one(score: Score, logits: list[int]) -> int:
    """Score one window at its first exit."""
    return score.one(list(logits), [0] * score.n_state)[0]


def batch(score: Score, logits: np.ndarray) -> np.ndarray:
    """Score windows at their first exit."""
    return score.batch(logits, np.zeros((len(logits), score.n_state), np.int64))[0]


def float_score(name: str, logits: np.ndarray) -> np.ndarray:
    return float_scores(name, logits[:, None])[:, 0]


@st.composite
def logits_batches(draw, max_windows=12):
    """(n, classes) int8 logits: uniform, or crowded so that many are equal, or at the ends of the range."""
    n, n_classes = draw(st.integers(1, max_windows)), draw(st.integers(2, 20))
    rng = np.random.default_rng(draw(seeds))
    low, high = draw(st.sampled_from([(-128, 127), (-2, 2), (120, 127), (-128, -120)]))
    logits = rng.integers(low, high + 1, (n, n_classes))
    if draw(st.booleans()):
        logits[:, rng.integers(n_classes)] = 127
    return logits.astype(np.int8)


def float_error_bound(name: str, n_classes: int) -> float:
    """Return how far an integer score may be from its definition.

    Every weight is rounded by at most half a step of Q15, and the sum of weights is at least 1: C/2 steps on
    the sum, half a step on the numerator, one for the division that rounds down. The entropy has the same on
    its second sum, up to four steps from the logarithm, and is divided by log C.
    """
    if name == "logit_margin":
        return 0.0
    steps = n_classes / 2 + 2
    if name == "entropy":
        steps = (n_classes + 4) / log(n_classes) + 2
    return steps / Q15


# Of one exit

TRUTH = [
    # scale ln 2: a difference of d halves the weight d times.
    # logits, logit_margin, max_prob, margin
    ([1, 0], 1, 2 * Q15 // 3, Q15 // 3),
    ([0, 1], 1, 2 * Q15 // 3, Q15 // 3),
    ([5, 5], 0, Q15 // 2, 0),
    ([-128, -128, -128, -128], 0, Q15 // 4, 0),
    ([7, 7, 6], 0, 2 * Q15 // 5, 0),
    ([3, 1, 1], 2, 2 * Q15 // 3, Q15 // 2),
    ([127, -128], 255, Q15, Q15),
    ([-128, 127, -128], 255, Q15, Q15),
]


@pytest.mark.parametrize(("logits", "logit_margin", "max_prob", "margin"), TRUTH)
def test_scores_computed_by_hand(logits, logit_margin, max_prob, margin):
    expected = {"logit_margin": logit_margin, "max_prob": max_prob, "margin": margin}
    for name, value in expected.items():
        score = score_of(name, LN2, len(logits))
        assert one(score, logits) == value, name
        assert batch(score, np.array([logits], np.int8)).tolist() == [value], name


@pytest.mark.parametrize(
    ("logits", "share_of_certainty"),
    [
        ([0, 0], 0.0),
        ([9, 9, 9, 9], 0.0),
        ([127, -128], 1.0),
        ([1, 0], 1 - (log(3) - 2 / 3 * LN2) / LN2),  # p = 2/3, 1/3
        ([1, 1, 0, 0], 1 - (log(6) - 2 / 3 * LN2) / log(4)),  # p = 1/3, 1/3, 1/6, 1/6
    ],
)
def test_entropy_computed_by_hand_is_high_where_the_exit_is_sure(logits, share_of_certainty):
    score = score_of("entropy", LN2, len(logits))
    assert score.to_float(one(score, logits)) == pytest.approx(share_of_certainty, abs=2**-13)
    assert float_score("entropy", LN2 * np.array([logits], float))[0] == pytest.approx(share_of_certainty)


@pytest.mark.parametrize("name", OF_ONE_EXIT)
def test_every_score_ranks_sure_above_unsure(name):
    score = score_of(name, 0.05, 4)
    sure, unsure, none = one(score, [100, 0, -20, 3]), one(score, [20, 10, 5, 3]), one(score, [7, 7, 7, 7])
    assert sure > unsure > none
    dequantized = 0.05 * np.array([[100, 0, -20, 3], [20, 10, 5, 3], [7, 7, 7, 7]])
    assert (np.diff(float_score(name, dequantized)) < 0).all()


@given(logits=logits_batches(), scale=scales)
@settings(deadline=None, max_examples=100)
def test_batch_equals_one_for_every_score(logits, scale):
    for name in OF_ONE_EXIT:
        score = score_of(name, scale, logits.shape[1])
        found = batch(score, logits)
        assert found.dtype == np.int64
        assert found.tolist() == [one(score, row) for row in logits.tolist()], name


@given(logits=logits_batches(), scale=scales, zero_point=int8)
@settings(deadline=None, max_examples=100)
def test_the_integer_score_is_close_to_its_definition(logits, scale, zero_point):
    dequantized = scale * (logits.astype(np.float64) - zero_point)
    for name in OF_ONE_EXIT:
        score = score_of(name, scale, logits.shape[1])
        got = batch(score, logits) * score.unit
        # The float margin itself is a difference of rounded products.
        slack = 1e-9
        np.testing.assert_allclose(
            got,
            float_score(name, dequantized),
            rtol=0,
            atol=float_error_bound(name, logits.shape[1]) + slack,
            err_msg=name,
        )


@pytest.mark.parametrize("name", SOFTMAX_SCORES)
def test_up_to_ten_classes_a_softmax_score_is_within_two_to_the_minus_12(name):
    rng = np.random.default_rng(0)
    for n_classes, scale in product(range(2, 11), (0.003, 0.02, 0.08, 0.3)):
        logits = rng.integers(-128, 128, (500, n_classes)).astype(np.int8)
        score = score_of(name, scale, n_classes)
        error = batch(score, logits) * score.unit - float_score(name, scale * logits.astype(float))
        assert np.abs(error).max() <= 2**-12


@given(logits=st.lists(int8, min_size=2, max_size=12), scale=scales, seed=seeds)
@settings(deadline=None, max_examples=60)
def test_a_score_does_not_depend_on_the_order_of_classes(logits, scale, seed):
    shuffled = np.random.default_rng(seed).permutation(logits).tolist()
    for name in OF_ONE_EXIT:
        score = score_of(name, scale, len(logits))
        assert one(score, shuffled) == one(score, logits), name


@given(logits=st.lists(st.integers(-128, 126), min_size=2, max_size=12), scale=scales)
@settings(deadline=None, max_examples=100)
def test_raising_the_largest_logit_never_makes_an_exit_less_sure(logits, scale):
    raised = list(logits)
    raised[logits.index(max(logits))] += 1
    for name in OF_ONE_EXIT:
        score = score_of(name, scale, len(logits))
        # Only the entropy rounds two sums against each other.
        slack = 2 * float_error_bound(name, len(logits)) * Q15 if name == "entropy" else 0
        assert one(score, raised) >= one(score, logits) - slack, name


@given(logits=logits_batches(), scale=scales)
@settings(deadline=None, max_examples=60)
def test_integer_scores_stay_in_their_range(logits, scale):
    for name in OF_ONE_EXIT:
        score = score_of(name, scale, logits.shape[1])
        low, high = (0, 255) if name == "logit_margin" else (0, Q15)
        if name == "entropy":
            low = -float_error_bound(name, logits.shape[1]) * Q15
        found = batch(score, logits)
        assert found.min() >= low, name
        assert found.max() <= high, name


@given(name=st.sampled_from(OF_ONE_EXIT), scale=scales, k=st.integers(0, Q15 + 1))
@settings(deadline=None, max_examples=150)
def test_an_integer_threshold_survives_the_way_over_its_float(name, scale, k):
    score = score_of(name, scale, 4)
    assert score.to_integer(score.to_float(k)) == k


@given(name=st.sampled_from(OF_ONE_EXIT), scale=scales, steps=st.floats(0, 300))
@settings(deadline=None, max_examples=150)
def test_to_integer_is_the_ceiling(name, scale, steps):
    score = score_of(name, scale, 4)
    threshold = steps * score.unit
    k = score.to_integer(threshold)
    assert score.to_float(k) >= threshold - 2e-6 * score.unit
    assert score.to_float(k - 1) < threshold


@pytest.mark.parametrize(
    ("threshold", "k"), [(0.0, 0), (0.1, 1), (0.11, 2), (0.19, 2), (0.3, 3), (0.7, 7), (-0.05, 0)]
)
def test_to_integer_on_a_grid_that_floats_cannot_hold(threshold, k):
    assert score_of("logit_margin", 0.1, 3).to_integer(threshold) == k


def test_an_unknown_score_lists_the_known_ones():
    for make in (lambda: score_of("entropi", 0.1, 3), lambda: float_score("entropi", np.zeros((1, 3)))):
        with pytest.raises(InputError, match=r"boosted, ensemble, entropy.*vote.*Did you mean 'entropy'"):
            make()


@pytest.mark.parametrize(
    ("scale", "n_classes"), [(0, 3), (-1, 3), (float("nan"), 3), (float("inf"), 3), (1, 1)]
)
def test_a_score_without_scale_or_classes_is_refused(scale, n_classes):
    for name in OF_ONE_EXIT:
        with pytest.raises(InputError, match=r"`scales`.*`n_classes`.*Received"):
            score_of(name, scale, n_classes)


# Of several exits


@st.composite
def networks(draw, name: str | None = None):
    """A score's name, its scores, and (n, E, classes) int8 logits of as many exits."""
    name = name or draw(st.sampled_from(sorted(SCORES)))
    n_exits, n_classes = draw(st.integers(1, 6)), draw(st.integers(2, 7))
    rng = np.random.default_rng(draw(seeds))
    low, high = draw(st.sampled_from([(-128, 127), (-2, 2), (-128, -126)]))
    logits = rng.integers(low, high + 1, (draw(st.integers(1, 10)), n_exits, n_classes)).astype(np.int8)
    network = rng.uniform(1e-3, 0.5, n_exits)
    return name, scores_for(name, network, n_classes, rng), logits


def scores_for(
    name: str, scale_of: np.ndarray, n_classes: int, rng: np.random.Generator
) -> tuple[Score, ...]:
    gates = [
        Gate(tuple(rng.integers(-LARGEST_WEIGHT, LARGEST_WEIGHT, n_weights(place)).tolist()), int(bias))
        for place, bias in enumerate(rng.integers(-(1 << 30), 1 << 30, len(scale_of) - 1))
    ]
    return make_scores(name, scale_of.tolist(), n_classes, gates=gates if name == "learned" else ())


def stepped(rule_scores, logits, enabled) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Score window by window on plain integers; the third are the states after the last exit."""
    found, labels, states = [], [], []
    for window in logits.tolist():
        state = [0] * max(score.n_state for score in rule_scores)
        pairs = [
            score.one(row, state) if on else (score.lowest, row.index(max(row)))
            for score, row, on in zip(rule_scores, window, enabled, strict=True)
        ]
        found.append([score for score, _ in pairs])
        labels.append([label for _, label in pairs])
        states.append(state)
    return found, labels, states


@given(network=networks(), seed=seeds)
@settings(deadline=None, max_examples=200)
def test_arrays_and_plain_integers_agree_for_every_score_with_exits_switched_off(network, seed):
    _, scores, logits = network
    enabled = [*(np.random.default_rng(seed).random(len(scores) - 1) < 0.7), True]
    found, labels = score_exits(scores, logits, enabled)
    got, named, states = stepped(scores, logits, enabled)
    assert found.dtype == labels.dtype == np.int64
    assert found.tolist() == got
    assert labels.tolist() == named
    # What a device carries from exit to exit fits its 32 bits.
    assert all(-INT32 <= value < INT32 for state in states for value in state)


@given(network=networks())
@settings(deadline=None, max_examples=100)
def test_scores_stay_within_what_they_say(network):
    name, scores, logits = network
    found, _ = score_exits(scores, logits)
    for place, score in enumerate(scores):
        assert found[:, place].max() <= score.highest, name
        assert found[:, place].min() >= score.lowest, name
        assert score.highest < NEVER


@pytest.mark.parametrize("name", sorted(set(SCORES) - {"learned"}))
@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_the_integers_are_close_to_the_formula_at_every_exit(name, data):
    _, scores, logits = data.draw(networks(name))
    n_exits = len(scores)
    dequantized = logits * np.array([score.scale for score in scores])[None, :, None]
    # Of logits that are exactly equal the float sums may differ by an ulp, and votes then go elsewhere.
    found, _ = score_exits(scores, logits)
    got = found * np.array([score.unit for score in scores])
    expected = float_scores(name, dequantized if name not in ("vote", "patience") else logits.astype(float))
    if name in ("geometric_ensemble", "boosted"):
        # Half a step of the factor per int8 step and exit; every product with the rate rounds down.
        bound = n_exits * (256 * scores[0].unit + scores[0].unit)
    elif name in ("vote", "patience"):
        bound = n_exits / Q15
    else:
        bound = max(float_error_bound(each, logits.shape[2]) for each in OF_ONE_EXIT)
    assert np.abs(got - expected).max() <= bound + 1e-9


@pytest.mark.parametrize("name", WITH_MEMORY)
def test_at_the_first_exit_the_class_is_the_largest_logit(name):
    rng = np.random.default_rng(3)
    logits = rng.integers(-128, 128, (50, 3, 5)).astype(np.int8)
    _, labels = score_exits(scores_for(name, np.array([0.1, 0.2, 0.1]), 5, rng), logits)
    assert (labels[:, 0] == logits[:, 0].argmax(axis=1)).all()


# Rows: exits in order, each as the class that it names, and what the score says there.
PATIENCE = [
    ("AAAA", [0, 1, 2, 3]),
    ("AABB", [0, 1, 0, 1]),
    ("ABAB", [0, 0, 0, 0]),
    ("ABBB", [0, 0, 1, 2]),
]
VOTE = [
    ("AAAA", [1, 2 / 2**0.5, 3 / 3**0.5, 4 / 4**0.5], "AAAA"),
    ("ABBCC", [1, 1 / 2**0.5, 2 / 3**0.5, 2 / 4**0.5, 2 / 5**0.5], "ABBBC"),
    # Of equals the exit's own class wins where it is among them, else the lowest; the final exit decides.
    ("BAC", [1, 1 / 2**0.5, 1 / 3**0.5], "BAC"),
    ("CCBBAA", [1, 2 / 2**0.5, 2 / 3**0.5, 2 / 4**0.5, 2 / 5**0.5, 2 / 6**0.5], "CCCBBA"),
]


def naming(names: str) -> np.ndarray:
    """(1, E, 3) logits of exits that name these classes."""
    logits = np.zeros((1, len(names), 3), np.int8)
    for place, name in enumerate(names):
        logits[0, place, "ABC".index(name)] = 10
    return logits


@pytest.mark.parametrize(("names", "expected"), PATIENCE)
def test_patience_counts_agreements_in_a_row(names, expected):
    logits = naming(names)
    found, labels = score_exits(make_scores("patience", [0.1] * len(names), 3), logits)
    assert found[0].tolist() == expected
    assert labels[0].tolist() == ["ABC".index(name) for name in names]


@pytest.mark.parametrize(("names", "expected", "named"), VOTE)
def test_votes_are_counted_by_hand(names, expected, named):
    scores = make_scores("vote", [0.1] * len(names), 3)
    found, labels = score_exits(scores, naming(names))
    assert found[0] / Q15 == pytest.approx(expected, abs=len(names) / Q15)
    assert "".join("ABC"[label] for label in labels[0]) == named


def test_an_exit_that_is_off_has_no_vote_and_breaks_no_row():
    logits = naming("ABA")
    on = [True, False, True]
    assert score_exits(make_scores("patience", [0.1] * 3, 3), logits, on)[0][0, 2] == 1
    found, labels = score_exits(make_scores("vote", [0.1] * 3, 3), logits, on)
    assert found[0, 2] == pytest.approx(2 / 2**0.5 * Q15, abs=2)
    assert labels[0, 2] == 0


def test_ensembles_computed_by_hand():
    # Scale ln 2: exit 1 says p = 4/5, 1/5, exit 2 says 1/9, 8/9, and exit 3, the final one, 2/3, 1/3.
    logits = np.array([[[2, 0], [0, 3], [1, 0]]], np.int8)
    found, labels = score_exits(make_scores("ensemble", [LN2] * 3, 2), logits)
    means = [4 / 5, (1 / 5 + 8 / 9) / 2, max(4 / 5 + 1 / 9 + 2 / 3, 1 / 5 + 8 / 9 + 1 / 3) / 3]
    assert (found[0] / Q15).tolist() == pytest.approx(means, abs=1e-4)
    assert labels[0].tolist() == [0, 1, 0]
    scores = make_scores("geometric_ensemble", [LN2] * 3, 2)
    found, labels = score_exits(scores, logits)
    assert (found[0] * scores[0].unit).tolist() == pytest.approx([2 * LN2, LN2 / 2, 0], abs=1e-3)
    assert labels[0].tolist() == [0, 1, 0]
    scores = make_scores("boosted", [LN2] * 3, 2)
    found, labels = score_exits(scores, logits)
    # F_2 = (0, 3) + (2, 0) / 2 = (1, 3), F_3 = (1, 0) + F_2 / 2 = (3/2, 3/2).
    assert (found[0] * scores[0].unit).tolist() == pytest.approx([2 * LN2, 2 * LN2, 0], abs=1e-3)
    assert labels[0].tolist() == [0, 1, 0]


def test_exits_of_other_scales_count_by_their_real_values():
    # Ten steps of .01 at exit 1 are outweighed by two of .1 at exit 2.
    logits = np.array([[[10, 0], [0, 2], [0, 0]]], np.int8)
    scores = make_scores("geometric_ensemble", [0.01, 0.1, 0.1], 2)
    found, labels = score_exits(scores, logits)
    assert labels[0].tolist() == [0, 1, 0]
    assert found[0, 1] * scores[0].unit == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize("name", sorted(SCORES))
def test_the_final_exit_decides_by_itself(name):
    rng = np.random.default_rng(7)
    logits = rng.integers(-128, 128, (200, 3, 4)).astype(np.int8)
    _, labels = score_exits(scores_for(name, np.array([0.3, 0.2, 0.1]), 4, rng), logits)
    assert (labels[:, -1] == logits[:, -1].argmax(axis=1)).all()


@given(temperature=st.floats(0.2, 5), scale=st.floats(0.01, 0.3), seed=seeds)
@settings(deadline=None, max_examples=50)
def test_a_temperature_divides_the_scale(temperature, scale, seed):
    logits = np.random.default_rng(seed).integers(-128, 128, (20, 2, 4)).astype(np.int8)
    for name in ("max_prob", "ensemble"):
        warm = make_scores(name, [scale] * 2, 4, temperatures=[temperature] * 2)
        plain = make_scores(name, [scale / temperature] * 2, 4)
        assert (score_exits(warm, logits)[0] == score_exits(plain, logits)[0]).all()


# The learned gate


def correctness(seed: int, n: int, n_exits: int = 3, n_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose margin tells how likely the exit is right, and labels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    signal = rng.normal(20, 25, (n, n_exits, 1)) * (np.arange(n_classes) == y[:, None, None])
    return np.clip(signal + rng.normal(0, 12, (n, n_exits, n_classes)), -128, 127).astype(np.int8), y


def test_a_gate_says_how_likely_its_exit_is_right():
    exits = Exits((0.1, 0.1, 0.1), 4)
    logits, y = correctness(0, 4000)
    gates = fit_gates(exits, logits, y)
    fresh, truth = correctness(1, 4000)
    scores = make_scores("learned", exits.scales, 4, gates=gates)
    found, labels = score_exits(scores, fresh)
    for place in range(2):
        right = labels[:, place] == truth
        p = 1 / (1 + np.exp(-found[:, place] * scores[place].unit))
        # A line in three features cannot be right everywhere; in the mean it is.
        assert expected_calibration_error(p, right, bins=8) < 0.05
        # It ranks at least as well as the best of its features alone.
        best = max(
            area(score_exits(make_scores(name, exits.scales, 4), fresh)[0][:, place], right)
            for name in ("max_prob", "entropy", "margin")
        )
        assert area(found[:, place], right) > best - 0.01
    assert not found[:, -1].any()


def area(scores: np.ndarray, right: np.ndarray) -> float:
    """Area under the ROC curve."""
    order = np.argsort(np.argsort(scores))
    n = right.sum()
    return float((order[right].sum() - n * (n - 1) / 2) / (n * (len(right) - n)))


def test_the_fit_is_the_optimum_of_the_penalised_likelihood():
    from sklearn.linear_model import LogisticRegression

    from mexit_edge.exits.scores.gate import RIDGE, _fit

    rng = np.random.default_rng(5)
    features = rng.uniform(-1, 1, (300, 3))
    right = rng.random(300) < 1 / (1 + np.exp(-(features @ [3, -2, 0.5] + 0.3)))
    ours = _fit(features, right)
    design = np.vstack([features, features.mean(axis=0), features.mean(axis=0)])
    target = np.concatenate([right, [True, False]])
    theirs = LogisticRegression(C=1 / RIDGE, tol=1e-10, max_iter=1000).fit(design, target)
    assert ours == pytest.approx([*theirs.coef_[0], theirs.intercept_[0]], abs=1e-4)


@pytest.mark.parametrize("always", [True, False])
def test_a_gate_of_an_exit_that_is_always_or_never_right_is_finite(always):
    logits, y = correctness(2, 50)
    told = logits[:, 0].argmax(axis=1)
    y = told if always else (told + 1) % 4
    gates = fit_gates(Exits((0.1,) * 3, 4), logits, y)
    found, _ = score_exits(make_scores("learned", [0.1] * 3, 4, gates=gates), logits)
    assert (found[:, 0] > 0).all() == always
    assert LOWEST_OUTPUT <= found.min() <= found.max() <= HIGHEST_OUTPUT


def test_the_gate_of_an_exit_that_is_off_is_left_empty_and_not_looked_at():
    exits = tempered([0.1] * 3, 4)
    logits, y = correctness(3, 400)
    gates = fit_gates(exits, logits, y, [False, True, True])
    assert gates[0] == Gate((0, 0, 0), 0)
    scores = make_scores("learned", exits.scales, 4, gates=gates)
    other = logits.copy()
    other[:, 0] = 0
    on = [False, True, True]
    assert (score_exits(scores, logits, on)[0] == score_exits(scores, other, on)[0]).all()


# The rule over scores


@given(network=networks(), seed=seeds)
@settings(deadline=None, max_examples=60)
def test_the_rule_decides_as_a_loop_over_plain_integers_does(network, seed):
    _, scores, logits = network
    rng = np.random.default_rng(seed)
    enabled = (*(rng.random(len(scores) - 1) < 0.7).tolist(), True)
    found, _ = score_exits(scores, logits, enabled)
    thresholds = tuple(
        int(rng.choice(found[:, place])) if on else NEVER for place, on in enumerate(enabled[:-1])
    )
    exits, labels = ExitRule(scores, thresholds, enabled).decide(logits)
    for window, exit_, label in zip(logits.tolist(), exits, labels, strict=True):
        state = [0] * max(score.n_state for score in scores)
        for number, (score, row, on) in enumerate(zip(scores, window, enabled, strict=True), start=1):
            if not on:
                continue
            value, named = score.one(row, state)
            if number == len(scores) or value >= thresholds[number - 1]:
                break
        assert (exit_, label) == (number, named)


def test_a_rule_needs_a_threshold_per_early_exit_and_a_final_exit():
    scores = make_scores("logit_margin", [0.1] * 3, 4)
    assert ExitRule(scores, (1, NEVER), (True, False, True)).n_state == 0
    for thresholds, enabled in (((1,), (True,) * 3), ((1, 2), (True,) * 2), ((1, 2), (True, True, False))):
        with pytest.raises(InputError, match=r"`thresholds`.*early exit \(2\).*Received"):
            ExitRule(scores, thresholds, enabled)


# Bad input


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vote", {"lamda": 0.5}, r"option of the score vote.*Did you mean 'lambda'"),
        ("vote", {"lambda": 1.0}, r"`lambda`.*between 0 and 1.*Received: 1.0"),
        ("boosted", {"rate": -1}, r"`rate`.*Received: -1"),
        ("patience", {"rate": 0.5}, r"patience has no options.*'rate'"),
    ],
)
def test_options_that_a_score_does_not_know_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        make_scores(name, [0.1], 3, options=options)


@pytest.mark.parametrize("scale", [1e-310, 1e300])
def test_scales_that_would_overflow_the_arithmetic_are_refused(scale):
    for name in ("boosted", "geometric_ensemble", "logit_margin"):
        with pytest.raises(InputError, match="`scales` must hold one number from 1e-12 to 1e"):
            make_scores(name, [0.1, scale], 3)


@pytest.mark.parametrize("temperatures", [[1.0], [1.0, 0.0], [1.0, float("nan")]])
def test_temperatures_must_be_one_positive_number_per_exit(temperatures):
    with pytest.raises(InputError, match=r"`temperatures` needs one positive value per exit \(2\)"):
        make_scores("max_prob", [0.1, 0.1], 3, temperatures=temperatures)


@pytest.mark.parametrize(
    "gates",
    [[], [Gate((1, 2), 0), Gate((1,) * 4, 0)], [Gate((1, 2, LARGEST_WEIGHT + 1), 0), Gate((1,) * 4, 0)]],
)
def test_gates_that_do_not_fit_the_exits_are_refused(gates):
    with pytest.raises(InputError, match=r"`gates` of the score learned needs one per early exit \(2\)"):
        make_scores("learned", [0.1] * 3, 3, gates=gates)


def test_gates_belong_to_the_learned_score():
    with pytest.raises(InputError, match=r"`gates` belong to the score learned.*max_prob"):
        make_scores("max_prob", [0.1] * 2, 3, gates=[Gate((1, 2, 3), 0)])


def test_a_learned_score_has_no_formula():
    with pytest.raises(InputError, match=r"`score` must be one with a formula"):
        float_scores("learned", np.zeros((1, 2, 3)))


def test_the_table_of_scores_is_filled_by_their_own_names():
    assert all(kind.name == name for name, kind in SCORES.items())


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_table_for_the_firmware_is_of_plain_integers_within_32_bits(name):
    scores = scores_for(name, np.array([0.1, 0.2, 0.05]), 4, np.random.default_rng(0))
    for score in scores:
        for table in score.tables.values():
            assert all(isinstance(value, int) and -INT32 <= value < INT32 for value in table)
