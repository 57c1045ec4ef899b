"""Temporal rules: step by step, whole streams at once, and what each costs in delay."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.exits import (
    TEMPORAL_RULES,
    UNDECIDED,
    Chain,
    Hysteresis,
    Majority,
    Skip,
    make_temporal,
)

INT32_MAX = (1 << 31) - 1
counts = st.integers(1, 5)
majorities, hystereses = st.builds(Majority, counts), st.builds(Hysteresis, counts)
skips = st.builds(Skip, counts, counts)
chains = st.builds(
    lambda first, rest: Chain((first, *rest)),
    skips | majorities | hystereses,
    st.lists(majorities | hystereses, min_size=1, max_size=2),
)
rules = majorities | hystereses | skips | chains


@st.composite
def labels_of(draw):
    """Runs of few classes, so that changes and ties come up, with gaps."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(0, 60))
    runs = np.repeat(rng.integers(0, 3, n), rng.integers(1, draw(st.integers(2, 9)), n))[:n]
    return np.where(rng.random(n) < draw(st.sampled_from([0, 0.2])), UNDECIDED, runs).tolist()


def stepped(rule, labels):
    """What is reported and wanted, window by window, with the state watched."""
    state, reports, wanted = [0] * rule.n_state, [], []
    for label in labels:
        wanted.append(rule.wants(state))
        reports.append(rule.step(state, label))
        assert len(state) == rule.n_state
        assert all(type(value) is int and 0 <= value <= INT32_MAX for value in state)
    return reports, wanted


@settings(max_examples=200)
@given(rules, st.lists(labels_of(), min_size=1, max_size=3))
def test_whole_streams_at_once_equal_stepping_each_from_zeros(rule, streams):
    expected = [stepped(rule, labels) for labels in streams]
    flat = np.array([label for labels in streams for label in labels], np.int64)
    stream = np.repeat(np.arange(len(streams)), [len(labels) for labels in streams])
    reports, wanted = rule.batch(flat, stream)
    assert reports.tolist() == [report for reports, _ in expected for report in reports]
    assert wanted.tolist() == [want for _, wants in expected for want in wants]
    alone, _ = rule.batch(np.array(streams[0], np.int64))
    assert alone.tolist() == expected[0][0]


@given(rules, labels_of())
def test_a_report_is_a_class_that_was_decided_and_nothing_comes_before_the_first(rule, labels):
    reports, wanted = stepped(rule, labels)
    seen = set()
    for label, want, report in zip(labels, wanted, reports, strict=True):
        seen |= {label} if want and label != UNDECIDED else set()
        assert report in seen if seen else report == UNDECIDED


@given(majorities | hystereses, labels_of())
def test_windows_without_a_decision_are_held_over_and_count_for_nothing(rule, labels):
    reports, _ = stepped(rule, labels)
    of_decided, _ = stepped(rule, [label for label in labels if label != UNDECIDED])
    assert [report for report, label in zip(reports, labels, strict=True) if label != UNDECIDED] == of_decided
    for number, label in enumerate(labels):
        if label == UNDECIDED:
            assert reports[number] == (reports[number - 1] if number else UNDECIDED)


def test_majority_counts_the_last_n_and_breaks_ties_for_the_most_recent():
    assert stepped(Majority(3), [0, 0, 1, 1, 2, 0, 1])[0] == [0, 0, 0, 1, 1, 0, 1]
    # Two of each among the last four: the one decided last wins, although 0 came first.
    assert stepped(Majority(4), [0, 1, 1, 0])[0] == [0, 1, 1, 0]


@given(st.integers(1, 12))
def test_majority_follows_a_change_at_decision_half_of_n(n):
    reports, _ = stepped(Majority(n), [0] * 2 * n + [1] * n)
    assert reports.index(1) - 2 * n + 1 == -(-n // 2)


@given(st.integers(1, 12))
def test_hysteresis_follows_a_change_at_decision_n_and_never_sees_a_shorter_one(n):
    reports, _ = stepped(Hysteresis(n), [0] * 2 * n + [1] * n)
    assert reports.index(1) - 2 * n + 1 == n
    reports, _ = stepped(Hysteresis(n), [0] * n + [1] * (n - 1) + [0] * n)
    assert set(reports) == {0}


def test_hysteresis_needs_agreement_on_one_other_class():
    assert stepped(Hysteresis(2), [0, 1, 2, 1, 2, 2])[0] == [0, 0, 0, 0, 0, 2]


def test_skip_repeats_the_last_class_and_looks_again():
    rule = Skip(stable=2, skip=2)
    labels = [0, 0, 1, 1, 0, 1, 1, 1, 1, 1]
    reports, wanted = stepped(rule, labels)
    #                  0  0  (skipped)    0: skips on    1: counts anew ... twice: skips
    assert wanted == [True, True, False, False, True, False, False, True, True, False]
    assert reports == [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]


def test_skip_wants_the_next_window_instead_of_one_without_a_decision():
    reports, wanted = stepped(Skip(stable=1, skip=1), [0, 1, UNDECIDED, UNDECIDED, 2, 0])
    assert wanted == [True, False, True, True, True, False]
    assert reports == [0, 0, 0, 0, 2, 2]


@given(st.integers(1, 5), st.integers(1, 9))
def test_a_steady_scene_costs_one_window_in_skip_plus_one(stable, skip):
    rounds = 20
    _, wanted = Skip(stable, skip).batch(np.zeros(stable + rounds * (skip + 1), np.int64))
    assert wanted.sum() == stable + rounds


def test_a_class_that_skip_repeats_does_not_vote():
    chain = Chain((Skip(stable=2, skip=3), Majority(5)))
    labels = [0, 0, 9, 9, 9, 1, 1, 9, 9, 9]
    reports, wanted = stepped(chain, labels)
    assert wanted == [True, True, False, False, False, True, True, False, False, False]
    # Votes are 0, 0, 1, 1: with the repeated 0s among the last five the report would stay 0.
    assert reports == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("name", sorted(TEMPORAL_RULES))
def test_every_rule_is_made_by_name_with_its_options(name):
    kind = TEMPORAL_RULES[name]
    options = {one.name: 7 for one in fields(kind)}
    assert make_temporal(name, **options) == kind(**options)
    assert make_temporal(name) == kind()
    assert kind.__doc__


def test_wrong_names_options_and_orders_are_refused():
    with pytest.raises(InputError, match="Did you mean 'majority'"):
        make_temporal("majorty")
    with pytest.raises(InputError, match=r"`options of skip`.*'stabel'.*Did you mean 'stable'"):
        make_temporal("skip", stabel=3)
    for wrong in (0, -1, 2.0, True):
        with pytest.raises(InputError, match="`n` of majority"):
            make_temporal("majority", n=wrong)
    with pytest.raises(InputError, match="Put `skip` first"):
        Chain((Majority(), Skip()))
    with pytest.raises(InputError, match="needs one to 8 rules"):
        Chain(())
    with pytest.raises(InputError, match="same shape"):
        Majority().batch(np.zeros(3, np.int64), np.zeros(2, np.int64))
