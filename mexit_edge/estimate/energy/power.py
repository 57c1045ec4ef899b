"""What a device draws: inferring, resting and waking up, at any supply."""

from __future__ import annotations

from typing import Literal

from mexit_edge.errors import InputError
from mexit_edge.estimate.device import Device, Figure, Stack
from mexit_edge.estimate.interval import Estimate

# How a device waits for its next inference: for an interrupt with the clocks on, or in the deepest state that
# keeps the RAM.
Rest = Literal["idle", "sleep"]


def supply_factor(device: Device, supply_v: float | None) -> float:
    """Return by what factor the device's powers change at another supply.

    An LDO regulator turns the voltage that it does not need into heat: the current stays, and the power goes
    with the voltage (published: MLPerf Tiny v1.0 and v1.1 with X-CUBE-AI 7.3.0 on the STM32L4R5, 44.8 mW from
    1.8 V and 74.2 mW from 3.0 V). An SMPS draws the same power from any supply; its efficiency is taken as
    constant.

    Args:
        device: the device.
        supply_v: None for the device's own.

    Raises:
        InputError: the supply is another one and the device's regulator is unknown.
    """
    if supply_v is None or supply_v == device.supply_v.value:
        return 1.0
    if device.regulator is None:
        raise InputError(
            f"`supply_v` must be {device.supply_v.value:g} for {device.name}, whose regulator is unknown. "
            f"Received: {supply_v:g}. Leave it out, or add `regulator` to the device file."
        )
    return supply_v / device.supply_v.value if device.regulator == "LDO" else 1.0


def active_power_mw(device: Device, stack: Stack, supply_v: float | None = None) -> Estimate | None:
    """Return the power while inferring, None where it is unknown.

    Args:
        device: the device, at its own clock.
        stack: the kernel library.
        supply_v: None for the device's own.

    Raises:
        InputError: see `supply_factor`.
    """
    return _at_supply(device.power_mw(stack), device, supply_v)


def static_power_mw(device: Device, supply_v: float | None = None) -> Estimate | None:
    """Return the part of the active power that stays at any clock.

    Where the device file does not say, it lies between 0 and the idle power, which contains it; None where
    that is unknown as well. Arguments and errors are those of `rest_power_mw`.
    """
    if device.static_power_mw is not None or device.idle_power_mw is None:
        return _at_supply(device.static_power_mw, device, supply_v)
    idle = device.idle_power_mw.estimate
    return Estimate(idle.value / 2, 0.0, idle.high).times(supply_factor(device, supply_v))


def rest_power_mw(device: Device, rest: Rest, supply_v: float | None = None) -> Estimate | None:
    """Return the power while resting, None where it is unknown.

    Args:
        device: the device, at its own clock.
        rest: how it rests.
        supply_v: None for the device's own.

    Raises:
        InputError: see `supply_factor`.
    """
    figure = device.idle_power_mw if rest == "idle" else device.sleep_power_mw
    return _at_supply(figure, device, supply_v)


def wake_up_ms(device: Device, rest: Rest) -> Estimate | None:
    """Return the time to wake up, which is spent at active power: 0 from idle, None where it is unknown."""
    if rest == "idle":
        return Estimate(0.0, 0.0, 0.0)
    return None if device.wake_up_ms is None else device.wake_up_ms.estimate


def _at_supply(figure: Figure | None, device: Device, supply_v: float | None) -> Estimate | None:
    # Ahead of the test for None: a supply that cannot be had is refused whatever is known.
    factor = supply_factor(device, supply_v)
    return None if figure is None else figure.estimate.times(factor)
