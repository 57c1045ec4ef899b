"""`mexit estimate --compare`: the same model or bundle on every device of the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mexit_edge.cli.estimate_request import (
    EstimateRequest,
    Subject,
    expected_cost,
    in_option_words,
    in_options,
    unpriced,
)
from mexit_edge.cli.estimate_tables import INTERVAL, counts, estimated, flat, plain, show
from mexit_edge.errors import InputError, in_digits, unknown_name
from mexit_edge.estimate import (
    BundleEstimate,
    Cost,
    Device,
    Estimate,
    ModelEstimate,
    Stack,
    device_names,
    load_device,
)
from mexit_edge.estimate.energy.period import (
    BATTERY_NOTE,
    Period,
    PeriodEnergy,
    battery_life_days,
    energy_over_period,
)
from mexit_edge.estimate.latency.rates import LEVEL

FITS = {True: "yes", False: "no", None: "unknown"}


@dataclass(frozen=True)
class Candidate:
    """What it costs on one device.

    Args:
        device: name.
        stack: name; None where nothing was estimated.
        cost: of the model, expected over windows, or of the final exit.
        what: which of these.
        fits: whether the device has the memory; None where that is unknown.
        library: the stack; None where nothing was estimated.
        energy: of a period; None without one, with unknown latency, or where it was refused.
        days: on the battery; None without one, or where they are unknown.
        battery_v: its voltage here; None without one.
        refusals: why there is no energy of a period, or no battery life, though it was asked for.
        unknown_because: why nothing was estimated, or why latency or arena are unknown.
        notes: what is extrapolated and what is not priced.
    """

    device: str
    stack: str | None = None
    cost: Cost | None = None
    what: str = ""
    fits: bool | None = None
    library: Stack | None = None
    energy: PeriodEnergy | None = None
    days: Estimate | None = None
    battery_v: float | None = None
    refusals: tuple[str, ...] = ()
    unknown_because: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def latency_ms(self) -> Estimate | None:
        """Latency, None where it is unknown."""
        return None if self.cost is None else self.cost.estimated_latency_ms

    @property
    def energy_uj(self) -> Estimate | None:
        """Energy of an inference, None where it is unknown."""
        return None if self.cost is None else self.cost.estimated_energy_uj

    @property
    def mean_power_mw(self) -> Estimate | None:
        """Mean power at the period, None where it is unknown."""
        return None if self.energy is None else self.energy.estimated_mean_power_mw

    @property
    def unknown(self) -> tuple[str, ...]:
        """Figures of the device that the energy of a period wants and that are unknown."""
        return () if self.energy is None else self.energy.unknown


@dataclass(frozen=True)
class Comparison:
    """What was compared, and on which devices.

    Args:
        name: of the model or bundle.
        period: from one inference to the next; None where it is unknown.
        battery_mah: of the battery; None without one.
        candidates: the fastest first, those of unknown latency last.
    """

    name: str
    period: Period | None
    battery_mah: float | None
    candidates: tuple[Candidate, ...]


def compare(subject: Subject, request: EstimateRequest, own: Device, period: Period | None) -> Comparison:
    """Estimate on every device of the package and on a user's own, the fastest first.

    Args:
        subject: what is estimated.
        request: the options; with a stack, devices that have none of that name are left out.
        own: the device that was asked for.
        period: from one inference to the next; None where it is unknown.

    Raises:
        InputError: no device has the stack, or none can be estimated.
    """
    known = {name: load_device(name) for name in device_names()} | {own.name: own}
    boards = [board for board in known.values() if request.extrapolate or _has(board, request.stack)]
    if not boards:
        names = {name for board in known.values() for stack in board.stacks for name in _names(stack)}
        raise unknown_name("stack", request.stack, names)
    found = [_candidate(subject, request, board, period) for board in boards]
    if all(one.cost is None for one in found):
        raise InputError(found[0].unknown_because[0])
    return Comparison(subject.name, period, request.energy.battery_mah, tuple(sorted(found, key=_order)))


def _order(candidate: Candidate) -> tuple[float, str]:
    return (inf if candidate.latency_ms is None else candidate.latency_ms.value, candidate.device)


def _names(stack: Stack) -> tuple[str, str]:
    return (stack.name, stack.family)


def _has(board: Device, stack: str | None) -> bool:
    return stack is None or any(stack in _names(one) for one in board.stacks)


def _candidate(subject: Subject, request: EstimateRequest, board: Device, period: Period | None) -> Candidate:
    try:
        estimate = request.estimate(subject, board)
    except InputError as error:
        return Candidate(board.name, unknown_because=(str(error),))
    what, cost = _typical(estimate, expected_cost(estimate, request.shares(subject)))
    energy, days, volt = None, None, None
    refusals: tuple[str, ...] = ()
    if period is not None and cost.estimated_latency_ms is not None:
        try:
            energy = energy_over_period(cost.estimated_latency_ms, board, estimate.library, period)
            if request.energy.battery_mah is not None:
                volt = request.energy.volt(energy.supply_v)
                days = battery_life_days(energy, request.energy.battery_mah, volt)
        except InputError as error:
            refusals = (str(in_options(error)),)
    return Candidate(
        device=board.name,
        stack=estimate.stack,
        cost=cost,
        what=what,
        fits=estimate.fit.fits,
        library=estimate.library,
        energy=energy,
        days=days,
        battery_v=volt,
        refusals=refusals,
        unknown_because=(
            *(f"no rule for {name}" for name in unpriced(estimate, request.prices())),
            *estimate.memory.unknown_because,
        ),
        notes=tuple(map(in_option_words, estimate.notes)),
    )


def _typical(estimate: ModelEstimate | BundleEstimate, expected: Cost | None) -> tuple[str, Cost]:
    """Return what devices are compared by: the model, the mean over windows, or else the final exit."""
    if isinstance(estimate, ModelEstimate):
        return "model", estimate
    return (estimate.exits[-1].exit, estimate.exits[-1]) if expected is None else ("expected", expected)


def print_comparison(comparison: Comparison, screen: Console) -> None:
    """Print a row per device, and what is unknown."""
    show(screen, _table(comparison))
    for sentence in _sentences(comparison):
        screen.print(sentence, markup=False)


def _table(comparison: Comparison) -> Table:
    """Return a row per device."""
    what = next(one.what for one in comparison.candidates if one.what)
    period, battery_mah = comparison.period, comparison.battery_mah
    # Of mean power and what follows from it, one column: more do not fit on a terminal.
    power = "mean, mW" if battery_mah is None else f"days on\n{battery_mah:g} mAh"
    last = () if period is None else (power,)
    title = f"{comparison.name} ({what}) on every device"
    if period is not None:
        rest = "idling" if period.rest == "idle" else "asleep"
        title += f", every {in_digits(period.period_ms)} ms, {rest} in between"
    table = plain(title, "", ("latency, ms", "energy, uJ", *last, "fits,\nfitted to"))
    for one in comparison.candidates:
        if one.library is None:
            continue
        table.add_row(
            escape(f"{one.device}\n  {one.stack}"),
            estimated(one.latency_ms, "\n"),
            estimated(one.energy_uj, "\n"),
            *(estimated(one.mean_power_mw if battery_mah is None else one.days, "\n") for _ in last),
            "\n".join([FITS[one.fits], *(counts(one.library) or ["nothing"])]),
        )
    return table


def _sentences(comparison: Comparison) -> list[str]:
    """Say what the table means, and what is not in it."""
    candidates = comparison.candidates
    unknown: dict[str, list[str]] = {}
    for one in candidates:
        for figure in one.unknown:
            unknown.setdefault(figure, []).append(one.device)
    volts = sorted({f"{one.battery_v:g} V" for one in candidates if one.battery_v is not None})
    by_supply = ", by the supply of the device" if len(volts) > 1 else ""
    return [
        f"In brackets: {INTERVAL} intervals. Fitted to: models and single kernels published for the device; "
        "to nothing: extrapolated.",
        *_shared([one.notes for one in candidates if one.library is not None]),
        *_shared([one.energy.notes for one in candidates if one.energy is not None]),
        *([f"Battery: {' or '.join(volts)}{by_supply}. {BATTERY_NOTE}"] if volts else []),
        *(f"Unknown {figure}: {', '.join(devices)}." for figure, devices in unknown.items()),
        *(f"Refused on {one.device}: {why}" for one in candidates for why in one.refusals),
        *(
            f"No estimate for {one.device}: {why}"
            for one in candidates
            if one.library is None
            for why in one.unknown_because
        ),
    ]


def _shared(notes: Sequence[tuple[str, ...]]) -> list[str]:
    """Return what is said of all of them."""
    return [note for note in notes[0] if all(note in one for one in notes)] if notes else []


def compare_facts(comparison: Comparison) -> dict[str, Any]:
    """Return the same in plain types."""
    period = comparison.period
    return {
        "name": comparison.name,
        "interval_level": LEVEL,
        "period": None if period is None else asdict(period),
        "battery_mah": comparison.battery_mah,
        "compare": [_row(one) for one in comparison.candidates],
    }


def _row(one: Candidate) -> dict[str, Any]:
    return {
        "device": one.device,
        "stack": one.stack,
        "what": one.what or None,
        **flat("estimated_latency_ms", one.latency_ms),
        **flat("estimated_energy_uj", one.energy_uj),
        **flat("estimated_mean_power_mw", one.mean_power_mw),
        **flat("estimated_battery_days", one.days),
        "battery_v": one.battery_v,
        "unknown": list(one.unknown),
        "fits": one.fits,
        "fitted_on": [] if one.library is None else list(one.library.fitted_on),
        "unknown_because": list(one.unknown_because),
        "refusals": list(one.refusals),
        "notes": [*one.notes, *(() if one.energy is None else one.energy.notes)],
    }
