"""Is a slower clock cheaper here? Energy of a period at every clock that a device runs at.

A slower clock infers longer at less power. What the clock drives costs the same per cycle at any clock; only
the static power lasts longer, in exchange for the power of resting:

    energy at f - energy at f0 = (static power - rest power) * cycles * (1 / f - 1 / f0)

So slower is cheaper where the static power is below that of the rest: when idling, which takes the static
power and more, but hardly ever where the processor sleeps instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from mexit_edge.estimate.device import Device, Stack
from mexit_edge.estimate.energy.period import Period, PeriodEnergy, energy_at_power
from mexit_edge.estimate.energy.power import active_power_mw, rest_power_mw, static_power_mw, wake_up_ms
from mexit_edge.estimate.interval import Estimate


@dataclass(frozen=True)
class Difference:
    """A difference, of either sign, with its interval.

    Args:
        value: the estimate.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClockChoice:
    """What a period costs at one clock.

    Args:
        clock_mhz: the clock.
        is_own: whether it is the one that the device's figures hold at.
        estimated_latency_ms: at this clock.
        energy: of the period.
        more_than_own_uj: energy of a period here minus that at the device's own clock. Cycles and powers, and
            so their errors, are the same in both: the totals alone would tell less. None where it is unknown.
    """

    clock_mhz: float
    is_own: bool
    estimated_latency_ms: Estimate
    energy: PeriodEnergy
    more_than_own_uj: Difference | None


def clock_choices(
    cycles: Estimate, device: Device, stack: Stack, period: Period, longest: Estimate | None = None
) -> tuple[ClockChoice, ...]:
    """Estimate a period at the device's own clock and at every other one it runs at, from slow to fast.

    A clock is a choice if the longest inference fits into the period up to the high end of its interval; the
    device's own clock always is. The active power at a clock f is static + (active - static) * f / f0. Where
    the static power is unknown, it lies between 0 and the idle power, which contains it.

    Cycles, the power of the rest and the time to wake up are taken as the same at every clock, and so is the
    voltage of the core. In truth slower clocks need fewer wait states of the flash, hence fewer cycles, and
    many processors lower the core's voltage for them: slower clocks are not dearer than said here.

    Args:
        cycles: of the period's inference, or of its mean over windows.
        longest: cycles of the longest inference there is, where `cycles` is a mean; `cycles` itself if None.
        device: the device.
        stack: the kernel library.
        period: the period.

    Returns:
        One choice per clock; energies at other clocks are None where static and idle power are unknown.

    Raises:
        InputError: the latency does not fit into the period at the device's own clock, or see
            `power.supply_factor`.
    """
    own_mhz = device.clock_mhz.value
    active = active_power_mw(device, stack, period.supply_v)
    static = static_power_mw(device, period.supply_v)
    choices = []
    for clock in sorted({own_mhz, *device.clock_choices_mhz}):
        if clock != own_mhz and not _surely_fits((longest or cycles).times(1e-3 / clock), device, period):
            continue
        latency = cycles.times(1e-3 / clock)
        power = active if clock == own_mhz else _active_at(clock / own_mhz, active, static)
        choices.append(
            ClockChoice(
                clock_mhz=clock,
                is_own=clock == own_mhz,
                estimated_latency_ms=latency,
                energy=energy_at_power(latency, power, device, period),
                more_than_own_uj=_more_than_own(cycles, clock, device, stack, period),
            )
        )
    return tuple(choices)


def clock_notes(device: Device) -> tuple[str, ...]:
    """Say what a comparison of clocks takes for granted."""
    same = "Taken as the same at every clock: the power of the rest, and the cycles."
    if device.static_power_mw is not None or device.idle_power_mw is None:
        return (same,)
    return (same, "The static power is unknown: taken to lie between 0 and the idle power.")


def cheapest_clock(choices: Sequence[ClockChoice]) -> float | None:
    """Return the clock in MHz that costs least, None if it cannot be told.

    It is the cheapest of those that are cheaper than the device's own clock whatever the errors (up to a tie
    at an end of the interval), or the device's own clock if no other one can be cheaper.

    Args:
        choices: of `clock_choices`.
    """
    known = [(choice, choice.more_than_own_uj) for choice in choices if choice.more_than_own_uj is not None]
    cheaper = {choice.clock_mhz: more.value for choice, more in known if more.high <= 0 > more.value}
    if cheaper:
        return min(cheaper, key=cheaper.__getitem__)
    if all(more.low >= 0 for _, more in known):
        return next((choice.clock_mhz for choice, _ in known if choice.is_own), None)
    return None


def may_be_as_cheap(choices: Sequence[ClockChoice]) -> bool:
    """Tell whether another clock may cost exactly as much as `cheapest_clock`, at an end of the interval.

    Args:
        choices: of `clock_choices`.
    """
    cheapest = cheapest_clock(choices)
    known = [(choice, choice.more_than_own_uj) for choice in choices if choice.more_than_own_uj is not None]
    if any(choice.is_own and choice.clock_mhz == cheapest for choice, _ in known):
        return any(more.low <= 0 for choice, more in known if not choice.is_own)
    return any(more.high >= 0 for choice, more in known if choice.clock_mhz == cheapest)


def _surely_fits(latency_ms: Estimate, device: Device, period: Period) -> bool:
    waking = wake_up_ms(device, period.rest)
    return latency_ms.high + (0.0 if waking is None else waking.high) <= period.period_ms


def _active_at(ratio: float, active: Estimate | None, static: Estimate | None) -> Estimate | None:
    """Return the active power at a clock that is `ratio` times the device's own."""
    if active is None or static is None:
        return None

    def at(active_mw: float, static_mw: float) -> float:
        # Intervals of both may overlap; none of the active power is static beyond all of it.
        stays = min(static_mw, active_mw)
        return stays + (active_mw - stays) * ratio

    value = at(active.value, static.value)
    ends = [at(*corner) for corner in product((active.low, active.high), (static.low, static.high))]
    return Estimate(value, min(value, *ends), max(value, *ends))


def _more_than_own(
    cycles: Estimate, clock_mhz: float, device: Device, stack: Stack, period: Period
) -> Difference | None:
    """Return what a period costs more than at the device's own clock, None where it is unknown.

    It is linear in every figure, so its extremes are at their ends. Waking up at less power makes a slower
    clock cheaper still.
    """
    active = active_power_mw(device, stack, period.supply_v)
    static = static_power_mw(device, period.supply_v)
    rest = rest_power_mw(device, period.rest, period.supply_v)
    waking = wake_up_ms(device, period.rest)
    if active is None or static is None or rest is None or waking is None:
        return None
    own_mhz = device.clock_mhz.value
    # Where idling bounds the static power, it does so whatever its own power really is.
    static_is_below_rest = device.static_power_mw is None and period.rest == "idle"

    def more(n_cycles: float, active_mw: float, static_mw: float, rest_mw: float, waking_ms: float) -> float:
        stays = min(static_mw, rest_mw) if static_is_below_rest else static_mw
        inferring_uj = (stays - rest_mw) * n_cycles * 1e-3 * (1 / clock_mhz - 1 / own_mhz)
        return inferring_uj + waking_ms * (active_mw - stays) * (clock_mhz / own_mhz - 1)

    figures = (cycles, active, static, rest, waking)
    value = more(*(figure.value for figure in figures))
    ends = [more(*corner) for corner in product(*((figure.low, figure.high) for figure in figures))]
    return Difference(value, min(value, *ends), max(value, *ends))
