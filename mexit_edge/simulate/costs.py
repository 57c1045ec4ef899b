"""What a window costs of a device: how long it takes, at each end of the estimate, and what it draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle import Bundle
from mexit_edge.errors import InputError
from mexit_edge.estimate import (
    BATTERY_NOTE,
    BundleEstimate,
    Device,
    Estimate,
    Period,
    PeriodEnergy,
    Stack,
    battery_life_days,
    energy_over_period,
    estimate_bundle,
    single_exit_cost,
    unknown_operations,
)
from mexit_edge.estimate.device import Figure
from mexit_edge.estimate.energy.period import check_battery, energy_at_power
from mexit_edge.estimate.energy.power import Rest, wake_up_ms
from mexit_edge.estimate.interval import total

End = Literal["value", "low", "high"]
NS_PER_MS = 1_000_000
NOTHING = Estimate(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Supply:
    """How a device rests, and what it runs on.

    Args:
        rest: ``"idle"`` waits for the next window with the clocks on; ``"sleep"`` goes to the deepest state
            that keeps the RAM, and wakes up for every window that is computed, also for one that waited.
        sensor_power_mw: drawn by the sensor all the time; None leaves the sensor out.
        supply_v: of the processor; None for the one that the device's powers hold at.
        battery_mah: nominal capacity; None for no battery.
        battery_v: nominal voltage; None for that of the battery that the supply is taken to come from.

    Raises:
        InputError: a figure is out of its range, or there is no such rest.
    """

    rest: Rest = "idle"
    sensor_power_mw: float | None = None
    supply_v: float | None = None
    battery_mah: float | None = None
    battery_v: float | None = None

    def __post_init__(self) -> None:
        self.period(1.0)
        if self.battery_mah is not None:
            check_battery(self.battery_mah, self.battery_v)

    def period(self, period_ms: float) -> Period:
        """Return a period with this rest, sensor and supply."""
        return Period(period_ms, self.rest, self.sensor_power_mw, self.supply_v)


@dataclass(frozen=True, eq=False)
class PlayedEnergy:
    """What the device drew while streams were played, its sensor included where its power is known.

    Energy is linear in the time that the processor is busy, so the energy of the mean window over the mean
    time from one computed window to the next, times the number of windows, is that of the whole: nothing is
    lost by the mean. The processor wakes up for every computed window; where none was computed, the whole
    time is one period of rest.

    Args:
        per_window: of the mean period from one computed window to the next, or of the one without any.
        n_periods: number of these: of the computed windows, or 1.
        battery_days: how long the battery lasts, None where none was given or the energy is unknown.
    """

    per_window: PeriodEnergy
    n_periods: int
    battery_days: Estimate | None

    @property
    def parts_mj(self) -> dict[str, Estimate | None]:
        """What active, rest, wake-up and sensor drew over the whole played time; None where unknown."""
        one = self.per_window
        parts = {
            "active": one.estimated_active_uj,
            "rest": one.estimated_rest_uj,
            "wake_up": one.estimated_wake_up_uj,
            "sensor": one.estimated_sensor_uj,
        }
        return {name: self._of_all(part) for name, part in parts.items()}

    @property
    def total_mj(self) -> Estimate | None:
        """All of it, None where a figure of the device is unknown (`per_window.unknown` names it)."""
        return self._of_all(self.per_window.estimated_total_uj)

    @property
    def mj_per_hour(self) -> Estimate | None:
        """Energy of an hour, None where a figure is unknown."""
        return self.per_window.estimated_energy_mj_per_hour

    def _of_all(self, per_window_uj: Estimate | None) -> Estimate | None:
        return None if per_window_uj is None else per_window_uj.times(self.n_periods / 1000)


@dataclass(frozen=True, eq=False)
class ServiceTimes:
    """How long a window keeps the processor busy, in whole nanoseconds.

    Args:
        latency_ns: (E + 1,) of a window that leaves at each exit; 0 at place 0, of no exit.
        wake_up_ns: before every computed window.
        boot_ns: after a brown-out.
    """

    latency_ns: NDArray[np.int64]
    wake_up_ns: int = 0
    boot_ns: int = 0

    def of(self, exit: Any, hit: Any, again: Any) -> Any:
        """Return the time of windows, arrays or one of each.

        Args:
            exit: number of the exit, 0 for a window that is not computed.
            hit: whether the supply was lost.
            again: number of stages that were run a second time.
        """
        latency = self.latency_ns
        return latency[exit] + (exit != 0) * self.wake_up_ns + hit * self.boot_ns + latency[again]


@dataclass(frozen=True, eq=False)
class DeviceCosts:
    """What windows cost on a device.

    Args:
        estimate: of the bundle; the latency of every exit is known.
        supply: of the device.
        single_exit_ms: time to compute any window where the network has no early heads (`as_single_exit`);
            None where every window takes what its exit takes.
    """

    estimate: BundleEstimate
    supply: Supply
    single_exit_ms: Estimate | None = None

    @property
    def latencies(self) -> tuple[Estimate, ...]:
        """Per exit, time to compute a window that leaves there, without waking up."""
        if self.single_exit_ms is not None:
            return (self.single_exit_ms,) * len(self.estimate.exits)
        return tuple(one.estimated_latency_ms or NOTHING for one in self.estimate.exits)

    @property
    def board(self) -> Device:
        """The device."""
        return self.estimate.board

    @property
    def library(self) -> Stack:
        """The kernel library."""
        return self.estimate.library

    @property
    def wake_up_ms(self) -> Estimate:
        """Time to wake up for a window; 0 where it is unknown, which the notes say."""
        return wake_up_ms(self.board, self.supply.rest) or NOTHING

    def service_times(self, boot_ms: float = 0.0, end: End = "value") -> ServiceTimes:
        """Return how long windows keep the processor busy, at one end of the estimates.

        Args:
            boot_ms: after a brown-out.
            end: of the intervals.
        """
        latencies = [0.0, *(getattr(one, end) for one in self.latencies)]
        wake_up: float = getattr(self.wake_up_ms, end)
        return ServiceTimes(
            np.asarray([_nanoseconds(one) for one in latencies]), _nanoseconds(wake_up), _nanoseconds(boot_ms)
        )

    def extra_ms(self, n_boots: int, boot_ms: float, again: NDArray[np.int64]) -> Estimate:
        """Return what brown-outs took on top: boots, and stages that were run again.

        Args:
            n_boots: number of brown-outs.
            boot_ms: of each.
            again: per brown-out, number of stages that were run a second time.
        """
        boots = Estimate(boot_ms, boot_ms, boot_ms).times(n_boots)
        return total([boots, *(self.latencies[stages - 1] for stages in again.tolist() if stages)])

    def mean_latency_ms(self, exit_counts: Sequence[int], extra: Estimate = NOTHING) -> Estimate:
        """Return the mean time to compute a window, without waking up.

        Args:
            exit_counts: per exit, windows that left there; the mean over none is 0.
            extra: spent by all windows together on top, in ms: on boots, and on stages that were run again.
        """
        n_windows = sum(exit_counts)
        if not n_windows:
            return NOTHING
        mean = self.single_exit_ms
        if mean is None:
            mean = self.estimate.expected([count / n_windows for count in exit_counts]).estimated_latency_ms
        return (mean or NOTHING) + extra.times(1 / n_windows)

    def energy(self, mean_latency_ms: Estimate, n_windows: int, played_s: float) -> PlayedEnergy:
        """Return the energy of played streams.

        Args:
            mean_latency_ms: of the computed windows.
            n_windows: number of these; without any, all of the time is rest, and neither the active power nor
                the time to wake up has to be known.
            played_s: how long the streams took, above 0.
        """
        if not n_windows:
            period = self.supply.period(played_s * 1000)
            return self._played(energy_at_power(NOTHING, NOTHING, _never_woken(self.board), period), 1)
        busy_ms = mean_latency_ms.value + self.wake_up_ms.value
        # A processor that never rests is busy for all of the played time, up to rounding.
        period = self.supply.period(max(played_s * 1000 / n_windows, busy_ms))
        return self._played(energy_over_period(mean_latency_ms, self.board, self.library, period), n_windows)

    def _played(self, energy: PeriodEnergy, n_periods: int) -> PlayedEnergy:
        mah = self.supply.battery_mah
        days = None if mah is None else battery_life_days(energy, mah, self.supply.battery_v)
        return PlayedEnergy(energy, n_periods, days)

    def notes(self) -> tuple[str, ...]:
        """Say what the costs leave out."""
        said = list(self.estimate.notes)
        if wake_up_ms(self.board, self.supply.rest) is None:
            said.append(f"Not counted: waking up, whose time on {self.board.name} is unknown.")
        if self.supply.battery_mah is not None:
            said.append(BATTERY_NOTE)
        return tuple(said)

    def as_single_exit(self, bundle: Bundle) -> DeviceCosts | None:
        """Return the costs of the same network without its early heads; None where they are unknown.

        Args:
            bundle: that the costs are of.
        """
        alone_ms = single_exit_cost(bundle, self.board, self.library.name).estimated_latency_ms
        return None if alone_ms is None else replace(self, single_exit_ms=alone_ms)


def device_costs(
    bundle: Bundle, device: str | Device | BundleEstimate | None, stack: str | None, supply: Supply
) -> tuple[DeviceCosts | None, tuple[str, ...]]:
    """Return what windows cost on a device, and what is to be said about it.

    Args:
        bundle: the bundle.
        device: a name, a device, or an estimate of this bundle that is made already; None for no times.
        stack: a kernel library of the device; the first one if None.
        supply: of the device.

    Returns:
        None for the costs without a device, or where the latency of an operator is unknown.

    Raises:
        InputError: no such device or stack, an estimate of another bundle, or as for `estimate_bundle`.
    """
    if device is None:
        return None, ("No device: no times, no queue and no energy; no window is lost to a busy processor.",)
    estimate = device if isinstance(device, BundleEstimate) else estimate_bundle(bundle, device, stack)
    if len(estimate.exits) != len(bundle.manifest.stages):
        raise InputError(
            f"`device` must be an estimate of this bundle, with {len(bundle.manifest.stages)} exits. "
            f"Received: one with {len(estimate.exits)}."
        )
    if any(one.estimated_latency_ms is None for one in estimate.exits):
        names = ", ".join(unknown_operations(chain.from_iterable(estimate.operations)))
        return None, (
            *estimate.notes,
            f"The latency on {estimate.device} is unknown, because nothing is known of {names}: no times, no "
            "queue and no energy.",
        )
    costs = DeviceCosts(estimate, supply)
    return costs, costs.notes()


def _never_woken(board: Device) -> Device:
    """Return the device as it is where no window wakes it up: that takes no time, known or not."""
    supply = board.supply_v
    none = Figure(value=0.0, source="no window was computed", date=supply.date, status=supply.status)
    return board.model_copy(update={"wake_up_ms": none})


def _nanoseconds(ms: float) -> int:
    return round(ms * NS_PER_MS)
