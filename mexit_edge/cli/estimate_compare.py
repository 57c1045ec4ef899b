"""`mexit estimate --compare`: the same model or bundle on every device of the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mexit_edge.cli.estimate_request import EstimateRequest, Subject, expected_cost, in_options
from mexit_edge.cli.estimate_tables import INTERVAL, estimated, flat, plain, show
from mexit_edge.errors import InputError, unknown_name
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
from mexit_edge.estimate.energy.period import Period, PeriodEnergy, energy_over_period

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
        fitted_on: the models that the stack was fitted to on this device; none where it is extrapolated.
        energy: of a period, or why there is none; None without a period or with unknown latency.
        reason: why nothing was estimated, None where it was.
    """

    device: str
    stack: str | None = None
    cost: Cost | None = None
    what: str = ""
    fits: bool | None = None
    fitted_on: tuple[str, ...] = ()
    energy: PeriodEnergy | str | None = None
    reason: str | None = None

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
        return self.energy.estimated_mean_power_mw if isinstance(self.energy, PeriodEnergy) else None

    @property
    def unknown(self) -> tuple[str, ...]:
        """Figures of the device that the energy of a period wants and that are unknown."""
        return self.energy.unknown if isinstance(self.energy, PeriodEnergy) else ()


def compare(
    subject: Subject, request: EstimateRequest, own: Device, period: Period | None
) -> tuple[Candidate, ...]:
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
    if all(one.reason is not None for one in found):
        raise InputError(str(found[0].reason))
    return tuple(sorted(found, key=_order))


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
        return Candidate(board.name, reason=str(error))
    what, cost = _typical(estimate, expected_cost(estimate, request.shares(subject)))
    return Candidate(
        device=board.name,
        stack=estimate.stack,
        cost=cost,
        what=what,
        fits=estimate.fit.fits,
        fitted_on=estimate.library.fitted_on,
        energy=_energy(cost, estimate.library, board, period),
    )


def _typical(estimate: ModelEstimate | BundleEstimate, expected: Cost | None) -> tuple[str, Cost]:
    """Return what devices are compared by: the model, the mean over windows, or else the final exit."""
    if isinstance(estimate, ModelEstimate):
        return "model", estimate
    return (estimate.exits[-1].exit, estimate.exits[-1]) if expected is None else ("expected", expected)


def _energy(cost: Cost, library: Stack, board: Device, period: Period | None) -> PeriodEnergy | str | None:
    if period is None or cost.estimated_latency_ms is None:
        return None
    try:
        return energy_over_period(cost.estimated_latency_ms, board, library, period)
    except InputError as error:
        return str(in_options(error))


def print_comparison(name: str, candidates: Sequence[Candidate], screen: Console) -> None:
    """Print a row per device, and what is unknown."""
    show(screen, _table(name, candidates))
    for sentence in _sentences(candidates):
        screen.print(sentence, markup=False)


def _table(name: str, candidates: Sequence[Candidate]) -> Table:
    """Return a row per device, the fastest first, those of unknown latency last."""
    what = next(one.what for one in candidates if one.what)
    has_period = any(one.energy is not None for one in candidates)
    headings = ["latency, ms", "energy, uJ", *(["mean, mW"] if has_period else []), "fits", "fitted\nhere"]
    table = plain(f"{name} ({what}) on every device", "", headings)
    for one in candidates:
        if one.reason is not None:
            continue
        table.add_row(
            escape(f"{one.device}\n  {one.stack}"),
            estimated(one.latency_ms, "\n"),
            estimated(one.energy_uj, "\n"),
            *([estimated(one.mean_power_mw, "\n")] if has_period else []),
            FITS[one.fits],
            "yes" if one.fitted_on else "no",
        )
    return table


def _sentences(candidates: Sequence[Candidate]) -> list[str]:
    """Say what the table means, and what is not in it."""
    unknown: dict[str, list[str]] = {}
    for one in candidates:
        for figure in one.unknown:
            unknown.setdefault(figure, []).append(one.device)
    return [
        f"In brackets: {INTERVAL} intervals. Fitted here: the stack was fitted to models measured on this "
        "device; else it is extrapolated.",
        *(f"Unknown {figure}: {', '.join(devices)}." for figure, devices in unknown.items()),
        *(
            f"No mean power of {one.device}: {one.energy}"
            for one in candidates
            if isinstance(one.energy, str)
        ),
        *(f"No estimate for {one.device}: {one.reason}" for one in candidates if one.reason is not None),
    ]


def compare_facts(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return the same in plain types."""
    return [
        {
            "device": one.device,
            "stack": one.stack,
            "what": one.what or None,
            **flat("estimated_latency_ms", one.latency_ms),
            **flat("estimated_energy_uj", one.energy_uj),
            **flat("estimated_mean_power_mw", one.mean_power_mw),
            "unknown": list(one.unknown),
            "fits": one.fits,
            "fitted_on": list(one.fitted_on),
            "unknown_because": one.reason,
        }
        for one in candidates
    ]
