"""The latency model: what models ask for, what that takes, how far off it may be, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.estimate import Coefficient, CyclesPer, Estimate, OperationCost, Stack
from mexit_edge.estimate.latency.rates import QUANTILE, LogRates, log_cycles
from mexit_edge.estimate.latency.terms import MAC_TERMS, TERMS, amounts
from mexit_edge.estimate.latency.workload import (
    EXTRAPOLATION_FACTOR,
    Workload,
    cycles,
    cycles_by_term,
    refuse_prices,
    workload,
)

VALUES = dict(zip(TERMS, (3.0, 2.5, 12.0, 4.0, 50.0, 20.0, 900.0, 1000.0), strict=True))
CONV = {"name": "CONV_2D", "kind": "conv_kxk", "macs": 72_000, "output_elements": 800}
POOL = {"name": "MAX_POOL_2D", "kind": "pooling", "work": 640, "output_elements": 160}


def cost(**changes: Any) -> OperationCost:
    """Return a cost; live counts are the whole ones where they are not given."""
    known = {"kind": "unknown", "name": "UNIQUE", "macs": None, "output_elements": 0, **changes}
    facts = {
        "index": 0,
        "live_macs": known["macs"],
        "input_shapes": (),
        "output_shapes": (),
        "weight_bytes": 0,
        "activation_bytes": 0,
        "live_output_elements": known["output_elements"],
        "work": 0,
        "channel_rounding": 1.0,
        "dtype": "INT8",
    }
    return OperationCost(**{**facts, **known})


def stack(factor: float = 1.0, model_error: float = 0.0, **changes: Any) -> Stack:
    """Return a stack whose figures lie in an interval of this factor each way, exact for 1."""
    coefficients = {
        term: Coefficient(
            value=value,
            low=value / factor,
            high=value * factor,
            status="fitted",
            macs_per_output=(8, 600) if term in MAC_TERMS else None,
        )
        for term, value in VALUES.items()
    }
    facts = {
        "name": "kernels-1",
        "family": "kernels",
        "version": "1",
        "dtype": "INT8",
        "folds_constant_channels": False,
        "source": "made up",
        "date": "2026-11",
        "fitted_on": ("kws",),
        "cycles_per": CyclesPer(**coefficients, model_error=model_error),
    }
    return Stack(**{**facts, **changes})


def ways(estimate: Estimate | None) -> float:
    """Return the factor from the value to the high end; the low end is as far in logarithms."""
    assert estimate is not None
    assert estimate.high / estimate.value == pytest.approx(estimate.value / estimate.low)
    return estimate.high / estimate.value


# --- What models ask for ------------------------------------------------------------------------------------


def asked(*costs: OperationCost, folds: bool = False) -> dict[str, float]:
    """Return the amounts that are not 0."""
    found = amounts(costs, folds_constant_channels=folds)
    return {term: value for term, value in zip(TERMS, found.tolist(), strict=True) if value}


def test_every_kind_asks_for_its_own_terms():
    assert asked() == {"invocation": 1}
    base = {"invocation": 1, "operator": 1}
    for kind in MAC_TERMS:
        outputs = {} if kind == "depthwise" else {"output": 800}
        assert asked(cost(kind=kind, macs=7200, output_elements=800)) == {**base, kind: 7200, **outputs}
    assert asked(cost(**POOL)) == {**base, "element": 640}
    assert asked(cost()) == base


@pytest.mark.parametrize(
    ("kind", "term"),
    [("transpose_conv", "conv_kxk"), ("batch_matmul", "fully_connected"), ("recurrent", "fully_connected")],
)
def test_kinds_without_published_latencies_count_as_those_most_like_them(kind, term):
    found = asked(cost(kind=kind, macs=500, output_elements=20))
    assert found == {"invocation": 1, "operator": 1, term: 500, "output": 20}


def test_multiply_accumulates_count_with_their_channel_rounding():
    rounded = asked(cost(**CONV, channel_rounding=28 / 27))
    assert rounded["conv_kxk"] == pytest.approx(72_000 * 28 / 27)
    assert rounded["output"] == 800


def test_only_a_library_that_folds_is_asked_for_live_work_alone():
    some = cost(**{**CONV, "live_macs": 18_000, "live_output_elements": 200})
    assert (asked(some)["conv_kxk"], asked(some)["output"]) == (72_000, 800)
    assert (asked(some, folds=True)["conv_kxk"], asked(some, folds=True)["output"]) == (18_000, 200)
    folding = stack(folds_constant_channels=True)
    assert (
        workload([some], folding).amounts.tolist() == amounts([some], folds_constant_channels=True).tolist()
    )


kinds = st.sampled_from([*MAC_TERMS, "transpose_conv", "recurrent", "pooling", "elementwise", "movement"])
some_costs = st.lists(
    st.builds(
        lambda kind, macs, outputs, work, rounding, live: cost(
            name=kind.upper(),
            kind=kind,
            **(
                {"macs": 0, "work": work}
                if kind in ("pooling", "elementwise", "movement")
                else {"macs": macs, "live_macs": int(live * macs), "channel_rounding": rounding}
            ),
            output_elements=outputs,
        ),
        kinds,
        st.integers(1, 10**7),
        st.integers(1, 10**5),
        st.integers(1, 10**5),
        st.floats(1, 4),
        st.floats(0, 1),
    ),
    max_size=8,
)


@given(some_costs, some_costs)
def test_workloads_of_stages_add_and_shares_of_them_scale(one, other):
    left, right = workload(one, stack()), workload(other, stack())
    both = left + right
    together = workload([*one, *other], stack())
    # Two stages are two invocations.
    assert both.amounts - np.eye(len(TERMS))[-1] == pytest.approx(together.amounts)
    assert both.extrapolated == pytest.approx(together.extrapolated)
    assert set(both.notes) >= set(left.notes) | set(right.notes)
    assert len(set(both.notes)) == len(both.notes)
    half = both.times(0.5)
    assert (half + half).amounts == pytest.approx(both.amounts)
    assert half.notes == both.notes


# --- What it takes ------------------------------------------------------------------------------------------


@given(some_costs, st.booleans())
def test_cycles_are_the_sum_of_values_times_amounts(costs, folds):
    library = stack(folds_constant_channels=folds)
    expected = 1000.0
    for one in costs:
        expected += 900 + 20 * one.work
        if one.kind in ("pooling", "elementwise", "movement"):
            continue
        rate = {"transpose_conv": 3.0, "recurrent": 4.0}.get(one.kind) or VALUES[one.kind]
        expected += rate * (one.live_macs if folds else one.macs) * one.channel_rounding
        if one.kind != "depthwise":
            expected += 50 * one.output_elements
    work = workload(costs, library)
    assert cycles(work, library).value == pytest.approx(expected)
    assert sum(cycles_by_term(work, library).values()) == pytest.approx(expected)


@given(some_costs, some_costs)
def test_more_work_never_takes_less(one, other):
    library = stack(1.5)
    first, both = workload(one, library), workload([*one, *other], library)
    assert cycles(both, library).value >= cycles(first, library).value
    assert cycles(first + both, library).value > cycles(both, library).value


def test_no_work_takes_nothing():
    nothing = workload([cost(**CONV)], stack()).times(0)
    assert cycles(nothing, stack()) == Estimate(0, 0, 0)


# --- How far off it may be ----------------------------------------------------------------------------------


def test_exact_figures_and_no_model_error_make_an_exact_estimate():
    assert ways(cycles(workload([cost(**CONV), cost(**POOL)], stack()), stack())) == pytest.approx(1)


def test_independent_errors_of_terms_average_out():
    """Two terms of equal share and uncertainty: 1/sqrt(2) of the deviation of one."""
    amount = np.zeros(len(TERMS))
    amount[:2] = 1e6 / VALUES["conv_kxk"], 1e6 / VALUES["conv_1x1"]
    library = stack(1.5)
    both = Workload(amount, np.zeros(len(TERMS)), 0.0, (), ())
    assert math.log(ways(cycles(both, library))) == pytest.approx(math.log(1.5) / math.sqrt(2))
    fully = CyclesPer(**_terms(library), correlation=tuple(map(tuple, np.ones((8, 8)))), model_error=0.0)
    together = library.model_copy(update={"cycles_per": fully})
    assert ways(cycles(both, together)) == pytest.approx(1.5)


def _terms(library: Stack) -> dict[str, Coefficient]:
    return {term: library.cycles_per.term(term) for term in TERMS}


def test_what_eight_terms_do_not_tell_of_a_model_is_part_of_the_interval():
    library = stack(model_error=0.1)
    found = cycles(workload([cost(**CONV)], library), library)
    assert ways(found) == pytest.approx(math.exp(QUANTILE * 0.1))


def test_the_interval_is_that_of_sampled_rates():
    """On a mixed model the linear form gives the deviation of samples of the log cycles."""
    rng = np.random.default_rng(0)
    factors = rng.normal(0, 0.05, (8, 8))
    rates = LogRates(np.log(list(VALUES.values())), factors @ factors.T, model_error=0.1)
    mixed = np.array([2e5, 3e5, 4e4, 2e3, 1e4, 2e4, 20.0, 3.0])
    _, (shares,) = log_cycles(rates.mean, mixed[None])
    assert shares.max() < 0.4
    theta = rng.multivariate_normal(rates.mean, rates.covariance, 40_000)
    sampled = np.log(np.exp(theta) @ mixed) + rng.normal(0, rates.model_error, len(theta))
    estimate = rates.cycles(mixed)
    assert math.log(ways(estimate)) / QUANTILE == pytest.approx(sampled.std(), rel=0.02)
    assert estimate.value == pytest.approx(np.exp(np.median(sampled)), rel=0.02)
    # The interval is wider than 90 % by Student's t: QUANTILE instead of 1.645.
    inside = np.mean((np.log(estimate.low) < sampled) & (sampled < np.log(estimate.high)))
    assert inside == pytest.approx(math.erf(QUANTILE / math.sqrt(2)), abs=0.01)


@given(
    st.lists(st.floats(-3, 3), min_size=8, max_size=8), st.lists(st.floats(1, 1e6), min_size=8, max_size=8)
)
def test_log_cycles_and_shares_are_the_sum_and_its_slope(theta, amount):
    point, asks = np.array(theta), np.array([amount])
    (value,), (shares,) = log_cycles(point, asks)
    assert value == pytest.approx(math.log(sum(math.exp(t) * a for t, a in zip(theta, amount, strict=True))))
    steps = 1e-5 * np.eye(8)
    slopes = [(log_cycles(point + s, asks)[0] - log_cycles(point - s, asks)[0])[0] / 2e-5 for s in steps]
    assert shares == pytest.approx(slopes, abs=1e-6)


# --- What lies outside of the data --------------------------------------------------------------------------


@pytest.mark.parametrize("macs_per_output", [4, 700])
def test_a_layer_unlike_those_fitted_on_widens_its_part_and_is_named(macs_per_output):
    known, unlike = cost(**CONV), cost(**{**CONV, "macs": 800 * macs_per_output})
    alone = workload([known], stack())
    assert alone.notes == ()
    both = workload([known, unlike], stack())
    parts = cycles_by_term(both, stack())
    share = 3.0 * unlike.macs / sum(parts.values())
    assert ways(cycles(both, stack())) == pytest.approx(EXTRAPOLATION_FACTOR**share)
    (note,) = both.notes
    assert note.startswith("Extrapolated: layers of CONV_2D")


def test_a_kind_of_which_nothing_was_measured_is_extrapolated():
    never = _terms(stack()) | {
        "conv_kxk": stack().cycles_per.conv_kxk.model_copy(update={"macs_per_output": None})
    }
    library = stack(cycles_per=CyclesPer(**never, model_error=0.0))
    found = workload([cost(**CONV)], library)
    assert ways(cycles(found, library)) > 1.5
    assert "CONV_2D" in found.notes[0]


def test_a_stand_in_is_extrapolated_whatever_its_size_and_said_to_be_one():
    other = cost(**{**CONV, "name": "TRANSPOSE_CONV", "kind": "transpose_conv"})
    found = workload([other], stack())
    share = 3.0 * 72_000 / (3.0 * 72_000 + 50 * 800 + 900 + 1000)
    assert ways(cycles(found, stack())) == pytest.approx(EXTRAPOLATION_FACTOR**share)
    assert found.notes[0].startswith("Extrapolated: TRANSPOSE_CONV at the rate of conv_kxk")
    assert found.extrapolated[0] == 72_000
    assert not found.extrapolated[1:].any()


def test_extrapolated_work_of_a_stage_weighs_less_in_the_whole():
    unlike = workload([cost(**{**CONV, "macs": 3200})], stack())
    whole = unlike + workload([cost(**CONV)], stack())
    assert 1 < ways(cycles(whole, stack())) < ways(cycles(unlike, stack()))
    # A mean over windows is the same mix.
    assert ways(cycles(whole.times(0.25), stack())) == pytest.approx(ways(cycles(whole, stack())))


def test_work_per_element_is_said_to_be_hardly_known():
    (note,) = workload([cost(**POOL), cost(**POOL)], stack(3.0)).notes
    assert note == "Hardly known: MAX_POOL_2D at 20 cycles per element (6.67 to 60)."
    assert workload([cost(**POOL)], stack(2.0)).notes == ()


# --- What is refused, and what is unknown -------------------------------------------------------------------


def test_a_float_layer_is_refused_by_int8_rates():
    layer = cost(**{**CONV, "dtype": "FLOAT32", "index": 4})
    with pytest.raises(InputError, match=r"`stack` kernels-1.*CONV_2D at place 4 that computes FLOAT32"):
        workload([layer], stack())
    # Operators at either end of an int8 model read or write floats.
    workload([replace(cost(**POOL), dtype="FLOAT32")], stack())


def test_an_operator_without_a_rule_makes_the_cycles_unknown():
    found = workload([cost(**CONV), cost(), cost(name="custom:Mine"), cost()], stack())
    assert found.unknown == ("UNIQUE", "custom:Mine")
    assert cycles(found, stack()) is None
    assert cycles(workload([cost(**CONV)], stack()) + found, stack()) is None


def test_a_price_is_paid_per_run_and_exactly():
    costs = [cost(**CONV), cost(), cost()]
    priced = workload(costs, stack(1.5), {"UNIQUE": 5000})
    free = workload(costs, stack(1.5), {"UNIQUE": 0})
    assert priced.unknown == free.unknown == ()
    paid, unpaid = cycles(priced, stack(1.5)), cycles(free, stack(1.5))
    for end in ("low", "value", "high"):
        assert getattr(paid, end) - getattr(unpaid, end) == pytest.approx(10_000)
    assert cycles_by_term(priced, stack())["priced"] == 10_000
    assert "priced" not in cycles_by_term(free, stack())
    assert cycles(priced.times(0.5), stack(1.5)).value == pytest.approx(paid.value / 2)


@pytest.mark.parametrize(
    ("prices", "message"),
    [
        ({"CONV_2D": 5.0}, r"`prices` must be of operators without a rule \(UNIQUE\).*'CONV_2D'"),
        ({"UNIQUE": -1.0}, r"`prices` must be cycles per run.*Received: -1.0 for UNIQUE"),
        ({"UNIQUE": math.nan}, r"`prices` must be"),
        ({"UNIQUE": math.inf}, r"`prices` must be"),
    ],
)
def test_prices_that_are_none_are_refused(prices, message):
    with pytest.raises(InputError, match=message):
        refuse_prices(prices, [cost(**CONV), cost()])


def test_without_unknown_operators_there_is_nothing_to_price():
    with pytest.raises(InputError, match=r"\(here are none\)\. Received: 'CONV_2D'"):
        refuse_prices({"CONV_2D": 5.0}, [cost(**CONV)])
