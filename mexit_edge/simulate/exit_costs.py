"""What a window costs that leaves at each exit: in work, time, energy, or energy of a day."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from mexit_edge.bundle import Bundle
from mexit_edge.errors import InputError, unknown_name
from mexit_edge.estimate import (
    BundleEstimate,
    Device,
    Estimate,
    Period,
    energy_over_period,
    estimate_bundle,
    unknown_operations,
)

COSTS = ("macs", "latency_ms", "energy_uj", "energy_mj_per_day")
MS_PER_DAY = 86_400_000


@dataclass(frozen=True)
class ExitCosts:
    """Cost of a window that leaves at each exit.

    Args:
        values: E values in ascending order.
        unit: what they are, for people and the manifest.
    """

    values: tuple[float, ...]
    unit: str


def exit_costs(
    bundle: Bundle,
    cost: str | None = None,
    device: str | Device | None = None,
    stack: str | None = None,
    period: Period | None = None,
) -> ExitCosts:
    """Return what a window costs that leaves at each exit.

    Args:
        bundle: the stages.
        cost: one of `COSTS`; None for latency where there is a device, else multiply-accumulates.
        device: a name or a device; needed by all but ``"macs"``.
        stack: a kernel library of the device; its first one if None.
        period: of ``"energy_mj_per_day"``; None for one inference per hop of the sensor, idling in between.

    Raises:
        InputError: no such cost or device, no device, or what the cost wants is unknown there.
    """
    kind = cost or ("macs" if device is None else "latency_ms")
    if kind not in COSTS:
        raise unknown_name("cost", kind, COSTS)
    if kind == "macs":
        return ExitCosts(tuple(float(macs) for macs in bundle.manifest.cumulative_macs), "macs")
    if device is None:
        raise InputError(f"`device` must be given for the cost {kind}. Received: None. Use `cost='macs'`.")
    estimate = estimate_bundle(bundle, device, stack)
    if kind == "latency_ms":
        found = [exit_.estimated_latency_ms for exit_ in estimate.exits]
    elif kind == "energy_uj":
        found = [exit_.estimated_energy_uj for exit_ in estimate.exits]
    else:
        found = _energies_of_a_day(bundle, estimate, period)
    known = tuple(one.value for one in found if one is not None)
    if len(known) != len(found):
        raise _unknown(kind, estimate)
    return ExitCosts(known, f"estimated_{kind} on {estimate.device}")


def _energies_of_a_day(
    bundle: Bundle, estimate: BundleEstimate, period: Period | None
) -> list[Estimate | None]:
    """Return the energy in mJ of a day on which every window leaves at each exit."""
    repeated = period or Period(bundle.manifest.sensor.hop_ms)
    per_day = MS_PER_DAY / repeated.period_ms
    totals = [
        None
        if exit_.estimated_latency_ms is None
        else energy_over_period(
            exit_.estimated_latency_ms, estimate.board, estimate.library, repeated
        ).estimated_total_uj
        for exit_ in estimate.exits
    ]
    return [None if total is None else total.times(per_day / 1e3) for total in totals]


def _unknown(kind: str, estimate: BundleEstimate) -> InputError:
    operators = unknown_operations(chain.from_iterable(estimate.operations))
    if operators:
        return InputError(
            "`device` must be one where the latency of every operator in the bundle is known. "
            f"Received: {estimate.device!r} and {', '.join(operators)}. Leave `device` out to search by "
            "multiply-accumulates, or replace the layers that make these operators."
        )
    return InputError(
        f"`device` must be one whose power is known, for the cost {kind}. Received: {estimate.device!r}, "
        "whose device file has no such figure. Use the cost latency_ms, or another device."
    )
