"""A temperature per exit: found where the loss is least, and honest about data that cannot set one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.exits import (
    expected_calibration_error,
    fit_temperature,
    judge_temperature,
    log_loss,
    softmax,
)
from mexit_edge.exits.temperature import HIGHEST, LOWEST

seeds = st.integers(0, 2**32 - 1)


def drawn(seed, temperature, n=400, n_classes=5):
    """Logits, and labels drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, n_classes))
    chances = softmax(logits / temperature).cumsum(axis=1)
    return logits, (rng.random((n, 1)) > chances[:, :-1]).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    logits, y = drawn(0, temperature, n=20_000)
    found = fit_temperature(logits, y)
    assert found == pytest.approx(temperature, rel=0.03)
    fit = judge_temperature(found, logits, y)
    assert not fit.at_limit
    assert fit.ece_after < 0.01
    if temperature != 1:
        assert fit.ece_before > 0.05


@settings(max_examples=30)
@given(seeds, st.floats(0.2, 6.0))
def test_no_other_temperature_has_a_lower_loss(seed, temperature):
    logits, y = drawn(seed, temperature)
    found = fit_temperature(logits, y)
    least = log_loss((logits / found)[:, None], y)
    for other in np.geomspace(LOWEST, HIGHEST, 60):
        assert least <= log_loss((logits / other)[:, None], y) + 1e-9


@settings(max_examples=30)
@given(seeds, st.floats(0.5, 2.0))
def test_logits_of_another_scale_have_their_temperature_scaled(seed, factor):
    logits, y = drawn(seed, 1.0)
    assert fit_temperature(logits * factor, y) == pytest.approx(factor * fit_temperature(logits, y), rel=1e-6)


@pytest.mark.parametrize("gap", [1.0, 30.0])
def test_windows_that_are_all_right_end_at_the_lowest_temperature_and_say_so(gap):
    y = np.arange(20) % 4
    logits = np.eye(4)[y] * gap
    assert fit_temperature(logits, y) == LOWEST
    fit = judge_temperature(LOWEST, logits, y)
    assert fit.at_limit


def test_windows_that_are_all_wrong_end_at_the_highest():
    y = np.arange(20) % 4
    logits = np.eye(4)[(y + 1) % 4]
    assert fit_temperature(logits, y) == HIGHEST
    assert judge_temperature(HIGHEST, logits, y).at_limit


def test_logits_that_say_nothing_have_a_temperature_of_1():
    assert fit_temperature(np.full((6, 3), 2.5), np.arange(6) % 3) == 1


@given(seeds, st.floats(0.2, 6.0))
def test_the_figures_are_those_of_the_metrics(seed, temperature):
    logits, y = drawn(seed, temperature, n=60)
    found = fit_temperature(logits, y)
    fit = judge_temperature(found, logits, y)
    right = logits.argmax(axis=1) == y
    assert fit.temperature == found
    assert fit.ece_before == expected_calibration_error(softmax(logits).max(axis=1), right)
    assert fit.ece_after == expected_calibration_error(softmax(logits / found).max(axis=1), right)
    assert fit.nll_before == log_loss(logits[:, None], y)
    assert fit.nll_after <= fit.nll_before + 1e-12


@pytest.mark.parametrize("function", [fit_temperature, lambda *data: judge_temperature(1.0, *data)])
def test_bad_input_is_refused(function):
    logits, y = np.zeros((5, 3)), np.zeros(5, int)
    for wrong in (logits.astype(np.int8), logits[:0], logits[0], logits[:, :1]):
        with pytest.raises(InputError, match="`logits` must be floats"):
            function(wrong, y)
    with pytest.raises(InputError, match=r"`logits` must be finite\. Received: 15 values"):
        function(logits + np.inf, y)
    for wrong in (y[:4], y - 1, y + 3, y.astype(float)):
        with pytest.raises(InputError, match="`y` must be 5 class indices from 0 to 2"):
            function(logits, wrong)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(InputError, match="`temperature` must be positive"):
        judge_temperature(temperature, np.zeros((5, 3)), np.zeros(5, int))
