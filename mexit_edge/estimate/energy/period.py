"""Energy: of an inference, of a period with its rest, and how long a battery lasts on it.

    energy of a period = active power * (latency + wake-up) + rest power * the rest + sensor power * period

Powers are those of the whole processor, in mW; a mW for a ms is a uJ.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

from mexit_edge.errors import InputError, unknown_name
from mexit_edge.estimate.device import Device, Stack
from mexit_edge.estimate.energy.power import Rest, active_power_mw, rest_power_mw, supply_factor, wake_up_ms
from mexit_edge.estimate.interval import Estimate

BATTERY_NOTE = (
    "Battery life counts the nominal capacity in full: no self-discharge, ageing or limit on peak current."
)

# A primary lithium cell, and a lithium polymer cell, which supplies above the former's voltage need.
_COIN_CELL_V, _LITHIUM_POLYMER_V = 3.0, 3.7
_SECONDS_PER_HOUR = 3600
_HOURS_PER_DAY = 24


@dataclass(frozen=True)
class Period:
    """What repeats: one inference, and rest until the next one is due.

    Args:
        period_ms: from one inference to the next.
        rest: ``"idle"`` waits for an interrupt with the clocks on, ``"sleep"`` goes to the deepest state that
            keeps the RAM and wakes up again in time.
        sensor_power_mw: drawn by the sensor all the time, at any supply; None leaves the sensor out.
        supply_v: of the processor; None for the one that the device's powers hold at.

    Raises:
        InputError: a figure is out of its range, or there is no such rest.
    """

    period_ms: float
    rest: Rest = "idle"
    sensor_power_mw: float | None = None
    supply_v: float | None = None

    def __post_init__(self) -> None:
        _check_positive("period_ms", self.period_ms, "Give the time from one inference to the next.")
        if self.rest not in get_args(Rest):
            raise unknown_name("rest", self.rest, get_args(Rest))
        if self.sensor_power_mw is not None and not 0 <= self.sensor_power_mw < inf:
            raise InputError(
                "`sensor_power_mw` must be finite and at least 0. "
                f"Received: {self.sensor_power_mw}. Leave it out where it is unknown."
            )
        if self.supply_v is not None:
            _check_positive("supply_v", self.supply_v, "Leave it out for the supply of the device file.")


@dataclass(frozen=True)
class PeriodEnergy:
    """What a period costs.

    The total's value is the sum of its parts' values. Its interval lies within the sum of theirs: a long
    latency comes with a short rest, so the total goes from the cheaper to the dearer end of the latency.

    Args:
        period: that it holds for.
        supply_v: that the powers hold at.
        regulator: of the device.
        estimated_active_uj: of inferring, None where the active power is unknown.
        estimated_rest_uj: of idling or sleeping, None where that power or the time to wake up is unknown.
        estimated_wake_up_uj: of waking up, None where its time or the active power is unknown; 0 from idle.
        estimated_sensor_uj: of the sensor, None where its power was not given.
        estimated_total_uj: of all of it, without the sensor where its power was not given; None where a
            figure of the device is unknown.
        duty_cycle: share of the period that goes into inferring, from 0 to 1.
        unknown: figures of the device that the total wants and that are unknown.
        notes: what is not counted, and what was assumed.
    """

    period: Period
    supply_v: float
    regulator: Literal["LDO", "SMPS"] | None
    estimated_active_uj: Estimate | None
    estimated_rest_uj: Estimate | None
    estimated_wake_up_uj: Estimate | None
    estimated_sensor_uj: Estimate | None
    estimated_total_uj: Estimate | None
    duty_cycle: Estimate
    unknown: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def estimated_mean_power_mw(self) -> Estimate | None:
        """Mean power, None where the total is unknown."""
        total = self.estimated_total_uj
        return None if total is None else total.times(1 / self.period.period_ms)

    @property
    def estimated_energy_mj_per_hour(self) -> Estimate | None:
        """Energy of an hour, None where the total is unknown."""
        power = self.estimated_mean_power_mw
        return None if power is None else power.times(_SECONDS_PER_HOUR)


def energy_of_inference(
    latency_ms: Estimate, device: Device, stack: Stack, supply_v: float | None = None
) -> Estimate | None:
    """Return active power times latency in uJ, None where the power is unknown.

    Ends multiply with ends, the one rule of `Estimate`. Power and latency err independently, so the interval
    is wider than need be, by at most sqrt(2) in the logarithm (where both are equally uncertain). It is never
    too narrow, and powers are known much better than latencies.

    Args:
        latency_ms: of the inference.
        device: the device.
        stack: the kernel library.
        supply_v: None for the device's own.

    Raises:
        InputError: see `power.supply_factor`.
    """
    return _product(active_power_mw(device, stack, supply_v), latency_ms)


def energy_over_period(latency_ms: Estimate, device: Device, stack: Stack, period: Period) -> PeriodEnergy:
    """Estimate what one inference per period costs, with the rest in between.

    Args:
        latency_ms: of the period's inference; a mean over windows gives the mean energy.
        device: the device.
        stack: the kernel library.
        period: the period.

    Raises:
        InputError: the latency (and waking up) does not fit into the period, or see `power.supply_factor`.
    """
    return energy_at_power(latency_ms, active_power_mw(device, stack, period.supply_v), device, period)


def energy_at_power(
    latency_ms: Estimate, active_mw: Estimate | None, device: Device, period: Period
) -> PeriodEnergy:
    """Do as `energy_over_period`, with the active power given at the period's supply or unknown (None)."""
    rest_mw = rest_power_mw(device, period.rest, period.supply_v)
    waking_ms = wake_up_ms(device, period.rest)
    busy_ms = latency_ms if waking_ms is None else latency_ms + waking_ms
    _check_fits(latency_ms, busy_ms, device, period)
    period_ms = period.period_ms
    sensor_uj = None if period.sensor_power_mw is None else period.sensor_power_mw * period_ms
    total = None
    if active_mw is not None and rest_mw is not None and waking_ms is not None:
        total = _total(_at_most(period_ms, busy_ms), active_mw, rest_mw, period_ms, sensor_uj or 0.0)
    wanted = {"active power": active_mw, f"{period.rest} power": rest_mw, "wake-up time": waking_ms}
    return PeriodEnergy(
        period=period,
        supply_v=device.supply_v.value if period.supply_v is None else period.supply_v,
        regulator=device.regulator,
        estimated_active_uj=_product(active_mw, _at_most(period_ms, latency_ms)),
        estimated_rest_uj=None if waking_ms is None else _product(rest_mw, _rest_of(period_ms, busy_ms)),
        # Idling needs no waking up, whatever the active power.
        estimated_wake_up_uj=waking_ms if period.rest == "idle" else _product(active_mw, waking_ms),
        estimated_sensor_uj=None if sensor_uj is None else Estimate(sensor_uj, sensor_uj, sensor_uj),
        estimated_total_uj=total,
        duty_cycle=_at_most(1.0, latency_ms.times(1 / period_ms)),
        unknown=tuple(name for name, figure in wanted.items() if figure is None),
        notes=_notes(busy_ms, device, period),
    )


def default_battery_v(supply_v: float) -> float:
    """Return the nominal voltage of the battery that a supply is taken to come from, where none is given.

    Args:
        supply_v: of the processor. Up to 3.0 V a lithium coin cell has it, above that a lithium polymer cell
            of 3.7 V is taken.
    """
    return _COIN_CELL_V if supply_v <= _COIN_CELL_V else _LITHIUM_POLYMER_V


def check_battery(battery_mah: float, battery_v: float | None = None) -> None:
    """Refuse a battery that is none; arguments and errors are those of `battery_life_days`."""
    _check_positive("battery_mah", battery_mah, "Give the capacity printed on the battery.")
    if battery_v is not None:
        _check_positive("battery_v", battery_v, "Give the voltage printed on the battery.")


def battery_life_days(
    energy: PeriodEnergy, battery_mah: float, battery_v: float | None = None
) -> Estimate | None:
    """Return how long a battery lasts, in days; `BATTERY_NOTE` says what that leaves out.

    Behind an LDO regulator the current counts, which is the mean power over the supply that it holds at: what
    the battery has above that becomes heat. An SMPS draws the same power at any voltage, so the battery's
    energy counts. The sensor is taken to hang on the same regulator.

    Args:
        energy: of a period.
        battery_mah: nominal capacity.
        battery_v: nominal voltage; None for `default_battery_v` of the supply that the energy holds at.

    Returns:
        None where the total energy is unknown, or where the regulator is and `battery_v` is not the supply
        that the energy holds at.

    Raises:
        InputError: capacity or voltage is not above 0, or an LDO regulator would have to raise the voltage.
    """
    check_battery(battery_mah, battery_v)
    volt = default_battery_v(energy.supply_v) if battery_v is None else battery_v
    if energy.regulator == "LDO" and volt < energy.supply_v:
        raise InputError(
            f"`battery_v` must be at least `supply_v`, {energy.supply_v:g} V: an LDO regulator only lowers a "
            f"voltage. Received: {volt:g} V. Give a higher `battery_v` or a lower `supply_v`."
        )
    power = energy.estimated_mean_power_mw
    if power is None or (energy.regulator is None and volt != energy.supply_v):
        return None
    capacity_mwh = battery_mah * (energy.supply_v if energy.regulator == "LDO" else volt)
    value, low, high = (
        capacity_mwh / mw / _HOURS_PER_DAY if mw else inf for mw in (power.value, power.high, power.low)
    )
    return Estimate(value, low, high)


def _check_fits(latency_ms: Estimate, busy_ms: Estimate, device: Device, period: Period) -> None:
    if busy_ms.value <= period.period_ms:
        return
    waking_ms = busy_ms.value - latency_ms.value
    waking = f" and {waking_ms:.4g} ms to wake up" if waking_ms else ""
    raise InputError(
        f"`period_ms` must be at least the latency on {device.name}, {latency_ms.value:.4g} ms{waking}. "
        f"Received: {period.period_ms:g}. Give a longer period, a smaller model or a faster device."
    )


def _total(
    busy_ms: Estimate, active_mw: Estimate, rest_mw: Estimate, period_ms: float, sensor_uj: float
) -> Estimate:
    """Return the energy of a period: it grows with the powers, and with the busy time or against it."""

    def at(busy: float, active: float, rest: float) -> float:
        return active * busy + rest * (period_ms - busy) + sensor_uj

    value = at(busy_ms.value, active_mw.value, rest_mw.value)
    ends = (busy_ms.low, busy_ms.high)
    # The value is among them since rounding may put it an ulp beyond ends that equal it.
    low = min(value, *(at(busy, active_mw.low, rest_mw.low) for busy in ends))
    high = max(value, *(at(busy, active_mw.high, rest_mw.high) for busy in ends))
    return Estimate(value, low, high)


def _notes(busy_ms: Estimate, device: Device, period: Period) -> tuple[str, ...]:
    """Say what a period leaves out and what was assumed."""
    said = []
    if busy_ms.high > period.period_ms:
        said.append(
            f"At the high end of its interval, {busy_ms.high:.4g} ms, an inference does not fit into the "
            f"period of {period.period_ms:g} ms; its energy is counted up to the end of the period."
        )
    if period.sensor_power_mw is None:
        said.append("Not counted: the sensor, whose power was not given.")
    if supply_factor(device, period.supply_v) != 1:
        said.append(
            f"Powers are scaled from {device.supply_v.value:g} to {period.supply_v:g} V at constant current."
        )
    return tuple(said)


def _product(one: Estimate | None, other: Estimate | None) -> Estimate | None:
    return None if one is None or other is None else one * other


def _at_most(limit: float, estimate: Estimate) -> Estimate:
    return Estimate(min(estimate.value, limit), min(estimate.low, limit), min(estimate.high, limit))


def _rest_of(period_ms: float, busy_ms: Estimate) -> Estimate:
    value, low, high = (max(period_ms - one, 0.0) for one in (busy_ms.value, busy_ms.high, busy_ms.low))
    return Estimate(value, low, high)


def _check_positive(argument: str, received: float, way_out: str) -> None:
    if not 0 < received < inf:
        raise InputError(f"`{argument}` must be finite and above 0. Received: {received}. {way_out}")
