"""Energy of inferences and periods, battery life, supplies and clocks; needs no model."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.estimate.device import Coefficient, CyclesPer, Device, Figure, Stack
from mexit_edge.estimate.energy.clocks import (
    Difference,
    cheapest_clock,
    clock_choices,
    clock_notes,
    may_be_as_cheap,
)
from mexit_edge.estimate.energy.period import (
    Period,
    PeriodEnergy,
    battery_life_days,
    default_battery_v,
    energy_of_inference,
    energy_over_period,
)
from mexit_edge.estimate.energy.power import static_power_mw, supply_factor
from mexit_edge.estimate.interval import Estimate
from mexit_edge.estimate.latency.terms import TERMS

Interval = float | tuple[float, float, float]


def figure(value: Interval) -> Figure:
    value, low, high = value if isinstance(value, tuple) else (value, value, value)
    return Figure(value=value, low=low, high=high, source="made up", date="2026-11", status="unverified")


ONE = Coefficient(value=1, low=1, high=1, status="unverified")
STACK = Stack(
    name="kernels-1",
    family="kernels",
    version="1",
    dtype="INT8",
    folds_constant_channels=False,
    source="made up",
    date="2026-11",
    fitted_on=(),
    cycles_per=CyclesPer(**dict.fromkeys(TERMS, ONE), model_error=0),
)
POWERS: dict[str, Interval] = {
    "active_power_mw": 40.0,
    "static_power_mw": 2.0,
    "idle_power_mw": 10.0,
    "sleep_power_mw": 0.5,
    "wake_up_ms": 0.25,
}


def board(
    regulator: str | None = "LDO", choices: tuple[float, ...] = (), **figures: Interval | None
) -> Device:
    """Return a device at 100 MHz and 1.8 V; figures given as None are unknown."""
    known = {name: value for name, value in (POWERS | figures).items() if value is not None}
    fields: dict[str, Any] = {name: figure(value) for name, value in known.items()}
    return Device(
        name="board",
        title="Board",
        core="Cortex-M4",
        clock_mhz=figure(100),
        clock_choices_mhz=choices,
        supply_v=figure(1.8),
        regulator=regulator,
        flash_bytes=figure(1024),
        ram_bytes=figure(1024),
        stacks=(STACK,),
        **fields,
    )


def exactly(value: float) -> Estimate:
    return Estimate(value, value, value)


def total(energy: PeriodEnergy) -> Estimate:
    assert energy.estimated_total_uj is not None
    return energy.estimated_total_uj


def parts(energy: PeriodEnergy) -> list[Estimate]:
    found = (
        energy.estimated_active_uj,
        energy.estimated_rest_uj,
        energy.estimated_wake_up_uj,
        energy.estimated_sensor_uj,
    )
    return [part for part in found if part is not None]


def days(energy: PeriodEnergy, battery_mah: float = 200, battery_v: float | None = None) -> Estimate:
    life = battery_life_days(energy, battery_mah, battery_v)
    assert life is not None
    return life


@st.composite
def intervals(draw: st.DrawFn, low: float, high: float) -> tuple[float, float, float]:
    ends = sorted(draw(st.lists(st.floats(low, high), min_size=3, max_size=3)))
    return ends[1], ends[0], ends[2]


latencies = intervals(0.01, 400).map(lambda ends: Estimate(*ends))
boards = st.builds(
    board,
    active_power_mw=intervals(50, 200),
    static_power_mw=st.none() | intervals(0, 20),
    idle_power_mw=intervals(0, 50),
    sleep_power_mw=intervals(0, 1),
    wake_up_ms=intervals(0, 10),
)
# Long enough for every latency that is drawn, wake-up included.
periods = st.builds(
    Period,
    period_ms=st.floats(411, 1e5),
    rest=st.sampled_from(["idle", "sleep"]),
    sensor_power_mw=st.none() | st.floats(0, 10),
    supply_v=st.none() | st.floats(1.7, 3.6),
)


# --- inferences and supplies ---


def test_energy_of_an_inference_is_power_times_latency_end_by_end() -> None:
    device = board(active_power_mw=(40, 36, 44))
    assert energy_of_inference(Estimate(10, 8, 13), device, STACK) == Estimate(400, 288, 572)
    assert energy_of_inference(exactly(10), board(active_power_mw=None), STACK) is None


def test_the_stack_s_own_power_comes_first() -> None:
    own = STACK.model_copy(update={"active_power_mw": figure(7)})
    assert energy_of_inference(exactly(10), board(), own) == exactly(70)


@pytest.mark.parametrize(("regulator", "factor"), [("LDO", 3.0 / 1.8), ("SMPS", 1.0)])
def test_powers_at_another_supply(regulator: str, factor: float) -> None:
    """A linear regulator keeps the current, a switching one the power."""
    here, there = Period(1000, "sleep"), Period(1000, "sleep", supply_v=3.0)
    low, high = (energy_over_period(exactly(10), board(regulator), STACK, period) for period in (here, there))
    assert total(high).value == pytest.approx(factor * total(low).value)
    inference = energy_of_inference(exactly(10), board(regulator), STACK, 3.0)
    assert inference is not None
    assert inference.value == pytest.approx(400 * factor)
    assert any("constant current" in note for note in high.notes) == (regulator == "LDO")
    assert high.supply_v == 3.0


def test_published_powers_at_two_supplies() -> None:
    """MLPerf Tiny, X-CUBE-AI 7.3.0 on the STM32L4R5: 44.8 mW at 1.8 V (v1.0), 74.2 mW at 3.0 V (v1.1)."""
    assert 44.8 * supply_factor(board(), 3.0) == pytest.approx(74.2, rel=0.01)


def test_a_supply_that_cannot_be_had_is_refused() -> None:
    unknown = board(None)
    assert supply_factor(unknown, 1.8) == 1
    with pytest.raises(InputError, match=r"`supply_v` must be 1\.8 for board.*Received: 3\. .*`regulator`"):
        energy_over_period(exactly(10), unknown, STACK, Period(1000, supply_v=3.0))
    with pytest.raises(InputError, match="`supply_v`"):
        energy_of_inference(exactly(10), board(None, active_power_mw=None), STACK, 3.0)


# --- periods ---


@pytest.mark.parametrize(
    "figures",
    [
        {"period_ms": 0},
        {"period_ms": float("nan")},
        {"period_ms": float("inf")},
        {"period_ms": 10, "rest": "nap"},
        {"period_ms": 10, "sensor_power_mw": -1.0},
        {"period_ms": 10, "sensor_power_mw": float("nan")},
        {"period_ms": 10, "supply_v": 0.0},
    ],
)
def test_a_period_refuses_what_cannot_be(figures: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"`{list(figures)[-1]}` must be .* Received: "):
        Period(**figures)


def test_a_period_by_hand() -> None:
    """10 ms at 40 mW and 0.25 ms of waking up, 989.75 ms at 0.5 mW, and a sensor of 0.2 mW for a second."""
    energy = energy_over_period(exactly(10), board(), STACK, Period(1000, "sleep", sensor_power_mw=0.2))
    assert [part.value for part in parts(energy)] == [400, 494.875, 10, 200]
    assert total(energy) == exactly(1104.875)
    assert energy.duty_cycle == exactly(0.01)
    assert energy.estimated_mean_power_mw is not None
    assert energy.estimated_mean_power_mw.value == pytest.approx(1.104875)
    assert energy.estimated_energy_mj_per_hour is not None
    assert energy.estimated_energy_mj_per_hour.value == pytest.approx(3600 * 1.104875)
    assert (energy.unknown, energy.notes) == ((), ())


def test_idling_needs_no_waking_up() -> None:
    device = board(sleep_power_mw=None, wake_up_ms=None)
    energy = energy_over_period(exactly(10), device, STACK, Period(1000))
    assert energy.estimated_wake_up_uj == exactly(0)
    assert total(energy) == exactly(400 + 9900)
    assert energy.estimated_sensor_uj is None
    assert energy.notes == ("Not counted: the sensor, whose power was not given.",)


@pytest.mark.parametrize(
    ("rest", "unknown", "words"),
    [
        ("idle", ["active_power_mw"], ("active power",)),
        ("idle", ["idle_power_mw"], ("idle power",)),
        ("sleep", ["sleep_power_mw", "wake_up_ms"], ("sleep power", "wake-up time")),
        ("sleep", ["active_power_mw", "wake_up_ms"], ("active power", "wake-up time")),
        ("sleep", ["wake_up_ms"], ("wake-up time",)),
    ],
)
def test_unknown_is_named_and_never_0(rest: Any, unknown: list[str], words: tuple[str, ...]) -> None:
    device = board(**dict.fromkeys(unknown))
    energy = energy_over_period(exactly(10), device, STACK, Period(1000, rest, sensor_power_mw=1.0))
    assert energy.unknown == words
    assert energy.estimated_total_uj is None
    assert energy.estimated_mean_power_mw is None
    assert energy.estimated_energy_mj_per_hour is None
    assert battery_life_days(energy, 200) is None
    assert (energy.estimated_active_uj is None) == ("active_power_mw" in unknown)
    waking_is_unknown = rest == "sleep" and bool({"wake_up_ms", "active_power_mw"} & set(unknown))
    assert (energy.estimated_wake_up_uj is None) == waking_is_unknown
    rests_on = {f"{rest}_power_mw", "wake_up_ms"} if rest == "sleep" else {"idle_power_mw"}
    assert (energy.estimated_rest_uj is None) == bool(rests_on & set(unknown))
    assert energy.estimated_sensor_uj == exactly(1000)


def test_what_does_not_fit_into_the_period() -> None:
    both = r"`period_ms` must be at least the latency on board, 12\.5 ms\. Received: 12\. "
    with pytest.raises(InputError, match=both):
        energy_over_period(Estimate(12.5, 10, 15), board(), STACK, Period(12))
    with pytest.raises(InputError, match=r"12\.5 ms and 0\.25 ms to wake up\. Received: 12\.6\. "):
        energy_over_period(Estimate(12.5, 10, 15), board(), STACK, Period(12.6, "sleep"))
    energy = energy_over_period(Estimate(12.5, 10, 15), board(), STACK, Period(12.6))
    assert energy.notes[0].startswith("At the high end of its interval, 15 ms, an inference does not fit")
    assert energy.duty_cycle.high == 1
    assert total(energy).high == pytest.approx(40 * 12.6)


@given(latencies, boards, periods)
def test_the_total_is_the_sum_of_its_parts(latency: Estimate, device: Device, period: Period) -> None:
    energy = energy_over_period(latency, device, STACK, period)
    found, whole = parts(energy), total(energy)
    assert len(found) == 3 + (period.sensor_power_mw is not None)
    assert whole.value == pytest.approx(sum(part.value for part in found))
    assert whole.low >= sum(part.low for part in found) * (1 - 1e-9)
    assert whole.high <= sum(part.high for part in found) * (1 + 1e-9)
    assert 0 <= energy.duty_cycle.low <= energy.duty_cycle.high <= 1


@given(latencies, boards, periods, st.floats(0, 1))
def test_the_interval_holds_whatever_is_true(
    latency: Estimate, device: Device, period: Period, share: float
) -> None:
    """Every latency with every power of their intervals is inside, and a narrower one would not do."""
    whole = total(energy_over_period(latency, device, STACK, period))
    between = latency.low + share * (latency.high - latency.low)
    found = [
        total(energy_over_period(exactly(ms), pinned(device, end), STACK, period)).value
        for ms, end in product((latency.low, between, latency.high), ("low", "value", "high"))
    ]
    assert min(found) >= whole.low * (1 - 1e-9)
    assert max(found) <= whole.high * (1 + 1e-9)
    if period.rest == "idle":
        assert min(*found, whole.value) == pytest.approx(whole.low)
        assert max(*found, whole.value) == pytest.approx(whole.high)


def pinned(device: Device, end: str) -> Device:
    """Return the device with all figures at one end of their intervals."""
    ends = {
        name: figure(getattr(found.estimate, end))
        for name in POWERS
        if (found := getattr(device, name)) is not None
    }
    return device.model_copy(update=ends)


@given(latencies, boards, periods, st.floats(1, 3))
def test_more_of_anything_costs_more(
    latency: Estimate, device: Device, period: Period, factor: float
) -> None:
    """Longer inferences (of a processor that rests at less power), longer periods, more of any power."""
    slack = 1 - 1e-12
    before = energy_over_period(latency, device, STACK, period)
    longer = energy_over_period(latency, device, STACK, replace(period, period_ms=factor * period.period_ms))
    assert total(longer).value >= slack * total(before).value
    assert longer.duty_cycle.value <= before.duty_cycle.value / slack
    for name in POWERS:
        if name.endswith("power_mw") and getattr(device, name) is not None:
            found = getattr(device, name).estimate.times(factor)
            more = device.model_copy(update={name: figure((found.value, found.low, found.high))})
            dearer = energy_over_period(latency, more, STACK, period)
            assert total(dearer).value >= slack * total(before).value
            if total(before).low > 0:
                assert days(dearer).value <= days(before).value / slack
    slower = energy_over_period(latency.times(factor), device, STACK, replace(period, period_ms=1e6))
    quicker = energy_over_period(latency, device, STACK, replace(period, period_ms=1e6))
    rests_at = device.idle_power_mw if period.rest == "idle" else device.sleep_power_mw
    assert device.active_power_mw is not None
    assert rests_at is not None
    cheaper_at_rest = device.active_power_mw.value >= rests_at.value
    one, other = (quicker, slower) if cheaper_at_rest else (slower, quicker)
    assert total(other).value >= slack * total(one).value


# --- batteries ---


def test_a_battery_by_hand() -> None:
    """200 mAh over 1.0 mA (1.8 mW at 1.8 V), and 600 mWh over 1.8 mW."""
    device = {"active_power_mw": 1.8, "idle_power_mw": 1.8}
    linear, switching = (
        energy_over_period(exactly(10), board(one, **device), STACK, Period(100)) for one in ("LDO", "SMPS")
    )
    assert days(linear).value == pytest.approx(200 / 24)
    assert days(linear, battery_v=3.7) == days(linear)
    assert days(switching).value == pytest.approx(600 / 1.8 / 24)
    assert days(switching, battery_v=3.7).value == pytest.approx(740 / 1.8 / 24)


def test_the_current_behind_a_linear_regulator_does_not_hang_on_its_supply() -> None:
    at_3_v = energy_over_period(exactly(10), board(), STACK, Period(100, supply_v=3.0))
    at_1_8_v = energy_over_period(exactly(10), board(), STACK, Period(100))
    assert days(at_3_v).value == pytest.approx(days(at_1_8_v).value)


def test_a_battery_behind_an_unknown_regulator() -> None:
    energy = energy_over_period(exactly(10), board(None), STACK, Period(100))
    assert battery_life_days(energy, 200) is None
    linear = energy_over_period(exactly(10), board("LDO"), STACK, Period(100))
    assert battery_life_days(energy, 200, 1.8) == days(linear)


def test_a_battery_that_is_not_given_has_the_voltage_that_the_supply_needs() -> None:
    assert [default_battery_v(volt) for volt in (1.8, 3.0, 3.3)] == [3.0, 3.0, 3.7]
    for supply_v, battery_v in ((3.0, 3.0), (3.3, 3.7)):
        energy = energy_over_period(exactly(10), board("SMPS"), STACK, Period(100, supply_v=supply_v))
        assert days(energy) == days(energy, battery_v=battery_v)


def test_a_linear_regulator_raises_no_voltage() -> None:
    linear, switching = (
        energy_over_period(exactly(10), board(one), STACK, Period(100, supply_v=3.3))
        for one in ("LDO", "SMPS")
    )
    said = r"`battery_v` must be at least `supply_v`, 3\.3 V.*Received: 3 V\. Give a higher `battery_v` or"
    with pytest.raises(InputError, match=said):
        battery_life_days(linear, 200, 3.0)
    # Whatever else is unknown.
    with pytest.raises(InputError, match=said):
        battery_life_days(replace(linear, estimated_total_uj=None), 200, 3.0)
    assert days(linear, battery_v=3.3) == days(linear)
    assert days(switching, battery_v=3.0).value > 0


@given(latencies, boards, st.sampled_from(["LDO", "SMPS"]), periods, st.floats(0.7, 5))
def test_no_more_comes_out_of_a_battery_than_is_in_it(
    latency: Estimate, device: Device, regulator: Any, period: Period, battery_v: float
) -> None:
    device = device.model_copy(update={"regulator": regulator})
    energy = energy_over_period(latency, device, STACK, period)
    if regulator == "LDO" and battery_v < energy.supply_v:
        with pytest.raises(InputError, match="`battery_v`"):
            days(energy, 200, battery_v)
        return
    power = energy.estimated_mean_power_mw
    assert power is not None
    assert days(energy, 200, battery_v).value * 24 * power.value <= 200 * battery_v * (1 + 1e-9)


def test_the_dear_end_of_the_energy_is_the_short_end_of_the_life() -> None:
    device = board(active_power_mw=(40, 20, 80), idle_power_mw=(10, 5, 20))
    life = days(energy_over_period(exactly(10), device, STACK, Period(100)))
    assert life.low == pytest.approx(life.value / 2)
    assert life.high == pytest.approx(life.value * 2)


@pytest.mark.parametrize(
    ("argument", "figures"),
    [("battery_mah", (0.0, 3.0)), ("battery_mah", (float("nan"), 3.0)), ("battery_v", (200.0, -3.0))],
)
def test_a_battery_refuses_what_cannot_be(argument: str, figures: tuple[float, float]) -> None:
    energy = energy_over_period(exactly(10), board(), STACK, Period(100))
    with pytest.raises(InputError, match=f"`{argument}` must be .* Received: "):
        battery_life_days(energy, *figures)


# --- clocks ---

MEGACYCLES = exactly(1e6)


def test_clocks_by_hand() -> None:
    """A million cycles: 10 ms at 40 mW, or 20 ms at 2 + 38 / 2 mW; idling at 10 mW meanwhile."""
    choices = clock_choices(MEGACYCLES, board(choices=(50, 100, 25)), STACK, Period(100))
    assert [choice.clock_mhz for choice in choices] == [25, 50, 100]
    assert [choice.is_own for choice in choices] == [False, False, True]
    assert [choice.estimated_latency_ms.value for choice in choices] == [40, 20, 10]
    # 40 x 11.5 + 60 x 10, 20 x 21 + 80 x 10, 10 x 40 + 90 x 10
    assert [total(choice.energy).value for choice in choices] == [1060, 1220, 1300]
    assert [choice.more_than_own_uj for choice in choices] == [
        Difference(-240, -240, -240),
        Difference(-80, -80, -80),
        Difference(0, 0, 0),
    ]
    assert cheapest_clock(choices) == 25


def test_only_clocks_that_surely_fit_are_choices() -> None:
    cycles = Estimate(1e6, 0.8e6, 1.3e6)
    device = board(choices=(50, 25, 200))
    assert [one.clock_mhz for one in clock_choices(cycles, device, STACK, Period(26.1))] == [50, 100, 200]
    assert [one.clock_mhz for one in clock_choices(cycles, device, STACK, Period(25.9))] == [100, 200]
    sleeping = Period(26.2, "sleep")
    assert [one.clock_mhz for one in clock_choices(cycles, device, STACK, sleeping)] == [100, 200]
    with pytest.raises(InputError, match="`period_ms`"):
        clock_choices(cycles, device, STACK, Period(9))


def test_a_clock_must_keep_up_with_the_longest_inference_too() -> None:
    """A mean of 0.5 million cycles would fit at 25 MHz; one of 1.3 million takes 52 ms there."""
    mean, longest = Estimate(0.5e6, 0.4e6, 0.6e6), Estimate(1e6, 0.8e6, 1.3e6)
    device = board(choices=(50, 25))
    alone, both = (clock_choices(mean, device, STACK, Period(50), one) for one in (None, longest))
    assert [one.clock_mhz for one in alone] == [25, 50, 100]
    assert [one.clock_mhz for one in both] == [50, 100]
    assert both == alone[1:]


@given(
    intervals(1e4, 1e6),
    boards,
    st.sampled_from(["idle", "sleep"]),
    st.sampled_from([25.0, 50.0, 80.0, 160.0]),
)
def test_the_difference_is_that_of_the_totals(
    cycles: tuple[float, float, float], device: Device, rest: Any, clock: float
) -> None:
    """With all figures at one end; and inside of the interval, which is narrower than the totals' own."""
    device = device.model_copy(update={"clock_choices_mhz": (clock,)})
    period = Period(1000, rest)
    whole = {one.is_own: one for one in clock_choices(Estimate(*cycles), device, STACK, period)}
    limits = whole[False].more_than_own_uj
    assert limits is not None
    for value, end in product(cycles, ("low", "value", "high")):
        at = {one.is_own: one for one in clock_choices(exactly(value), pinned(device, end), STACK, period)}
        more = at[False].more_than_own_uj
        assert more is not None
        apart = total(at[False].energy).value - total(at[True].energy).value
        assert more.value == pytest.approx(apart, rel=1e-6, abs=1e-6)
        slack = 1e-9 * (1 + abs(limits.low) + abs(limits.high))
        assert limits.low - slack <= more.value <= limits.high + slack


@given(st.floats(0, 50), st.floats(0, 50), st.sampled_from([25.0, 80.0, 160.0]))
def test_slower_is_cheaper_exactly_where_the_static_power_is_below_that_of_idling(
    static: float, idle: float, clock: float
) -> None:
    device = board(choices=(clock,), active_power_mw=60.0, static_power_mw=static, idle_power_mw=idle)
    found = cheapest_clock(clock_choices(MEGACYCLES, device, STACK, Period(1000)))
    slow, fast = sorted((clock, 100.0))
    if abs(static - idle) < 1e-9:  # A tie, or as good as one.
        return
    assert found == (slow if static < idle else fast)


def test_the_verdict_shares_the_errors_of_the_cycles() -> None:
    """The totals overlap by far, and still the slower clock is cheaper for every number of cycles."""
    device = board(choices=(50,))
    choices = clock_choices(Estimate(1e6, 0.5e6, 2e6), device, STACK, Period(100))
    slow, own = (total(choice.energy) for choice in choices)
    assert slow.high > own.low
    assert choices[0].more_than_own_uj == Difference(-80, -160, -40)
    assert cheapest_clock(choices) == 50


def test_errors_of_different_powers_are_not_shared() -> None:
    """3 to 5 mW of static power against 4 to 6 mW of idling: the slower clock may be either."""
    device = board(choices=(50,), static_power_mw=(4, 3, 5), idle_power_mw=(5, 4, 6))
    assert cheapest_clock(clock_choices(MEGACYCLES, device, STACK, Period(100))) is None


def test_an_unknown_static_power_is_below_that_of_idling() -> None:
    device = board(choices=(50, 200), static_power_mw=None, idle_power_mw=(10, 8, 12))
    assert static_power_mw(device) == Estimate(5, 0, 12)
    choices = clock_choices(MEGACYCLES, device, STACK, Period(100))
    # 10 ms longer at 0 to all of the idle power less.
    assert choices[0].more_than_own_uj == Difference(-50, -120, 0)
    assert cheapest_clock(choices) == 50
    assert may_be_as_cheap(choices)
    assert "between 0 and the idle power" in clock_notes(device)[1]


@pytest.mark.parametrize(("static", "own"), [((4, 3, 5), False), ((12, 10, 14), True), ((12, 11, 14), True)])
def test_a_tie_is_possible_where_an_interval_ends_at_0(static: Interval, own: bool) -> None:
    device = board(choices=(50,), static_power_mw=static)
    choices = clock_choices(MEGACYCLES, device, STACK, Period(100))
    assert cheapest_clock(choices) == (100 if own else 50)
    assert may_be_as_cheap(choices) == (static == (12, 10, 14))
    assert len(clock_notes(device)) == 1


def test_an_unknown_static_power_says_nothing_of_sleeping() -> None:
    device = board(choices=(50,), static_power_mw=None)
    choices = clock_choices(MEGACYCLES, device, STACK, Period(100, "sleep"))
    assert all(choice.energy.estimated_total_uj is not None for choice in choices)
    assert cheapest_clock(choices) is None


def test_racing_to_sleep_is_cheaper_where_static_power_is_high() -> None:
    choices = clock_choices(MEGACYCLES, board(choices=(50,)), STACK, Period(100, "sleep"))
    assert cheapest_clock(choices) == 100


@pytest.mark.parametrize(
    "unknown", [["static_power_mw", "idle_power_mw"], ["active_power_mw"], ["wake_up_ms"]]
)
def test_no_verdict_without_figures(unknown: list[str]) -> None:
    device = board(choices=(50,), **dict.fromkeys(unknown))
    slow, own = clock_choices(MEGACYCLES, device, STACK, Period(100, "sleep"))
    assert slow.energy.estimated_total_uj is None
    assert (own.energy.estimated_total_uj is None) == (unknown[0] != "static_power_mw")
    assert slow.more_than_own_uj is None
    assert cheapest_clock((slow, own)) is None


def test_a_device_of_one_clock_has_no_choice() -> None:
    assert cheapest_clock(clock_choices(MEGACYCLES, board(), STACK, Period(100))) == 100
    assert cheapest_clock(()) is None
