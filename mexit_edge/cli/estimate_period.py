"""`mexit estimate`: energy of a period with its rest, days on a battery, and what slower clocks save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from mexit_edge.cli.estimate_request import EstimateRequest, in_options, unknown_latency, unpriced
from mexit_edge.cli.estimate_tables import estimated, flat, plain, show
from mexit_edge.errors import InputError, in_digits
from mexit_edge.estimate import BundleEstimate, Cost, Device, Estimate, ModelEstimate
from mexit_edge.estimate.energy.clocks import (
    ClockChoice,
    cheapest_clock,
    clock_choices,
    clock_notes,
    may_be_as_cheap,
)
from mexit_edge.estimate.energy.period import (
    BATTERY_NOTE,
    Period,
    PeriodEnergy,
    battery_life_days,
    energy_over_period,
)
from mexit_edge.estimate.energy.power import supply_factor


@dataclass(frozen=True)
class Repeated:
    """What it costs to infer once per period.

    Args:
        period: from one inference to the next.
        board: the device.
        energies: per case (model, exit or expected) that fits into the period.
        refusals: per case that does not, or whose latency is unknown: why.
        clocks: the last of the cases at every clock that keeps up with the longest inference; none where no
            other clock does, or the case was refused.
        days: on the battery, per case; None without a battery.
        battery: what battery; "" without one.
        notes: what is assumed and what is not counted.
    """

    period: Period
    board: Device
    energies: Mapping[str, PeriodEnergy]
    refusals: Mapping[str, str]
    clocks: tuple[ClockChoice, ...]
    days: Mapping[str, Estimate | None] | None
    battery: str
    notes: tuple[str, ...]


def repeated(
    estimate: ModelEstimate | BundleEstimate, expected: Cost | None, period: Period, request: EstimateRequest
) -> Repeated:
    """Estimate a period of the model, of the mean over windows, or else of every exit.

    Args:
        estimate: of a model or a bundle.
        expected: the mean over windows; None where it is unknown.
        period: from one inference to the next.
        request: the battery, and prices of operators.

    Raises:
        InputError: the device cannot have the supply, or the battery is none.
    """
    board, library = estimate.board, estimate.library
    volt = request.energy.volt(board.supply_v.value if period.supply_v is None else period.supply_v)
    cases = _cases(estimate, expected)
    energies: dict[str, PeriodEnergy] = {}
    refusals: dict[str, str] = {}
    try:
        # A supply that cannot be had is refused before anything is said of the period.
        supply_factor(board, period.supply_v)
        for name, cost in cases.items():
            if cost.estimated_latency_ms is None:
                refusals[name] = str(unknown_latency("--period-ms", unpriced(estimate, request.prices())))
                continue
            try:
                energies[name] = energy_over_period(cost.estimated_latency_ms, board, library, period)
            except InputError as error:
                refusals[name] = str(in_options(error))
        days = _days(energies, request.energy.battery_mah, volt)
    except InputError as error:
        raise in_options(error) from error
    last, cost = list(cases.items())[-1]
    return Repeated(
        period=period,
        board=board,
        energies=energies,
        refusals=refusals,
        clocks=_clocks(estimate, cost, period) if last in energies else (),
        days=days,
        battery="" if days is None else f"{request.energy.battery_mah:g} mAh at {volt:g} V",
        notes=(
            *(f"No energy per period of {name}: {why}" for name, why in refusals.items()),
            *dict.fromkeys(note for one in energies.values() for note in one.notes),
            *_last_exit_notes(estimate, expected, period),
            *_supply_notes(board, period),
            *_battery_notes(days),
        ),
    )


def _cases(estimate: ModelEstimate | BundleEstimate, expected: Cost | None) -> dict[str, Cost]:
    if isinstance(estimate, ModelEstimate):
        return {"model": estimate}
    if expected is not None:
        return {"expected": expected}
    return {one.exit: one for one in estimate.exits}


def _days(
    energies: Mapping[str, PeriodEnergy], battery_mah: float | None, volt: float
) -> dict[str, Estimate | None] | None:
    if battery_mah is None:
        return None
    return {name: battery_life_days(one, battery_mah, volt) for name, one in energies.items()}


def _clocks(estimate: ModelEstimate | BundleEstimate, cost: Cost, period: Period) -> tuple[ClockChoice, ...]:
    """Return what a case costs at every clock that keeps up with the longest inference."""
    longest = (estimate.exits[-1] if isinstance(estimate, BundleEstimate) else estimate).estimated_cycles
    # Where no share of the windows leaves at the last exit, the mean is known and its latency need not be.
    if cost.estimated_cycles is None or longest is None:
        return ()
    found = clock_choices(cost.estimated_cycles, estimate.board, estimate.library, period, longest)
    return found if len(found) > 1 else ()


def _last_exit_notes(
    estimate: ModelEstimate | BundleEstimate, expected: Cost | None, period: Period
) -> Sequence[str]:
    """Say where single windows may be late though the mean is not."""
    if expected is None or isinstance(estimate, ModelEstimate):
        return ()
    latency_ms = estimate.exits[-1].estimated_latency_ms
    if latency_ms is None or latency_ms.high <= period.period_ms:
        return ()
    name, high = estimate.exits[-1].exit, in_digits(latency_ms.high)
    return (f"A window that runs to {name} may take {high} ms, longer than the period.",)


def _supply_notes(board: Device, period: Period) -> Sequence[str]:
    if supply_factor(board, period.supply_v) == 1:
        return ()
    return (f"Energies without a period hold at {board.supply_v.value:g} V.",)


def _battery_notes(days: Mapping[str, Estimate | None] | None) -> Sequence[str]:
    if days is None:
        return ()
    unknown = "Days are unknown where the total is, or where the regulator of the board is."
    return (BATTERY_NOTE, unknown) if None in days.values() else (BATTERY_NOTE,)


def print_repeated(found: Repeated, screen: Console) -> None:
    """Print energy, notes and clocks."""
    if found.energies:
        show(screen, _period_table(found))
    unknown = dict.fromkeys(name for one in found.energies.values() for name in one.unknown)
    if unknown:
        said = f"Unknown of {found.board.name}: {', '.join(unknown)}, and with it the total."
        screen.print(said, markup=False)
    for note in found.notes:
        screen.print(note, markup=False)
    if found.clocks:
        show(screen, _clock_table(found.clocks))
        for sentence in (_clock_sentence(found), *clock_notes(found.board)):
            screen.print(sentence, markup=False)


def repeated_facts(found: Repeated) -> dict[str, Any]:
    """Return the same in plain types."""
    return {
        "cases": [
            {"what": name, **_period_facts(one)}
            | ({} if found.days is None else flat("estimated_battery_days", found.days[name]))
            for name, one in found.energies.items()
        ],
        "battery": found.battery or None,
        "clocks": [
            {
                "clock_mhz": one.clock_mhz,
                "is_own": one.is_own,
                **flat("estimated_latency_ms", one.estimated_latency_ms),
                **flat("estimated_total_uj", one.energy.estimated_total_uj),
                **flat("more_than_own_uj", one.more_than_own_uj),
            }
            for one in found.clocks
        ],
        "cheapest_clock_mhz": cheapest_clock(found.clocks) if found.clocks else None,
        "another_clock_may_be_as_cheap": may_be_as_cheap(found.clocks),
        "clock_notes": list(clock_notes(found.board)) if found.clocks else [],
        "notes": list(found.notes),
    }


def _period_table(found: Repeated) -> Table:
    period = found.period
    energies = list(found.energies.values())
    table = plain(
        f"One inference every {in_digits(period.period_ms)} ms, "
        f"{'idling' if period.rest == 'idle' else 'asleep'} in between, at {energies[0].supply_v:g} V",
        "",
        list(found.energies),
    )
    parts = {
        "inferring, uJ": "estimated_active_uj",
        "idling, uJ" if period.rest == "idle" else "sleeping, uJ": "estimated_rest_uj",
        "waking up, uJ": "estimated_wake_up_uj",
        "sensor, uJ": "estimated_sensor_uj",
        "all of it, uJ": "estimated_total_uj",
        "mean power, mW": "estimated_mean_power_mw",
        "per hour, mJ": "estimated_energy_mj_per_hour",
    }
    for what, field in parts.items():
        is_left_out = field == "estimated_sensor_uj" and period.sensor_power_mw is None
        cells = ["not given" if is_left_out else estimated(getattr(one, field)) for one in energies]
        table.add_row(what, *cells)
    table.add_row("duty cycle, %", *(estimated(one.duty_cycle.times(100)) for one in energies))
    if found.days is not None:
        table.add_row(f"days on {found.battery}", *map(estimated, found.days.values()))
    return table


def _period_facts(energy: PeriodEnergy) -> dict[str, Any]:
    facts: dict[str, Any] = asdict(energy.period) | {"supply_v": energy.supply_v}
    for name in ("active_uj", "rest_uj", "wake_up_uj", "sensor_uj", "total_uj", "mean_power_mw"):
        facts |= flat(f"estimated_{name}", getattr(energy, f"estimated_{name}"))
    facts |= flat("estimated_energy_mj_per_hour", energy.estimated_energy_mj_per_hour)
    return facts | flat("duty_cycle", energy.duty_cycle) | {"unknown": list(energy.unknown)}


def _clock_table(choices: Sequence[ClockChoice]) -> Table:
    headings = ("latency, ms", "energy of a period, uJ", "more than at the own clock, uJ")
    table = plain("Is a slower clock cheaper here?", "MHz", headings)
    for one in choices:
        table.add_row(
            in_digits(one.clock_mhz),
            estimated(one.estimated_latency_ms),
            estimated(one.energy.estimated_total_uj),
            "own clock" if one.is_own else estimated(one.more_than_own_uj),
        )
    return table


def _clock_sentence(found: Repeated) -> str:
    """Say which clock is cheapest, and which ones are too slow."""
    cheapest = cheapest_clock(found.clocks)
    best = "Cheapest or as cheap" if may_be_as_cheap(found.clocks) else "Cheapest"
    said = (
        "Which clock is cheapest cannot be told from what is known."
        if cheapest is None
        else f"{best}: {in_digits(cheapest)} MHz, whatever the errors."
    )
    slow = sorted(set(found.board.clock_choices_mhz) - {one.clock_mhz for one in found.clocks})
    too_slow = "Too slow for the period at the high end of the longest latency"
    return said + (f" {too_slow}: {', '.join(map(in_digits, slow))} MHz." if slow else "")
