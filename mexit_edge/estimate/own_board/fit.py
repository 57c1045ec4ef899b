"""Fit a device to models that were measured on it.

What is known of the kernel library on other boards is the prior; the measurements update it (`rates`), and
they alone tell how fast the board is (`of_any_speed`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from pydantic import ValidationError

from mexit_edge.errors import InputError, first_violation
from mexit_edge.estimate.coefficients import Range, cycles_per, fitted_terms, rounded
from mexit_edge.estimate.device import CyclesPer, Device, Figure, Stack
from mexit_edge.estimate.interval import Estimate
from mexit_edge.estimate.latency.rates import QUANTILE, Floats, LogRates
from mexit_edge.estimate.latency.terms import MAC_TERMS, Amounts
from mexit_edge.estimate.latency.workload import workload
from mexit_edge.estimate.own_board.measured_cycles import MeasuredCycles, of_any_speed
from mexit_edge.estimate.own_board.measurements import MeasuredModel
from mexit_edge.estimate.own_board.plausible import plausibility

# Of the log power of models on one board: mean error 3.5 % of a constant power over the 27 systems with
# published energy (MLPerf Tiny v0.5 to v1.1), times the root of pi / 2 for a standard deviation. It counts as
# much as two models.
POWER_DEVIATION = 0.044
POWER_WEIGHT = 2
# Of a board -> the option that states it.
_FIGURES = {
    "clock_mhz": "--clock-mhz",
    "flash_bytes": "--flash-kib",
    "ram_bytes": "--ram-kib",
    "supply_v": "--supply-v",
}


@dataclass(frozen=True)
class Board:
    """What the measurements do not tell of a board.

    Args:
        name: of the device, in lower case.
        title: of the board.
        core: of the processor.
        clock_mhz: at which it measured.
        flash_bytes: for program and models.
        ram_bytes: for data, in one block.
        supply_v: at which it measured.

    Raises:
        InputError: a figure is not finite or not above 0.
    """

    name: str
    title: str
    core: str
    clock_mhz: float
    flash_bytes: int
    ram_bytes: int
    supply_v: float

    def __post_init__(self) -> None:
        for field, option in _FIGURES.items():
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise InputError(
                    f"`{field}` must be a number above 0. Received: {value}. State what the board has "
                    f"(`{option}`)."
                )


@dataclass(frozen=True)
class ModelFit:
    """A measured model and what the device file says of it.

    Args:
        model: its name.
        measured_ms: measured latency.
        estimated_ms: by the fit to all models.
        left_out_ms: by a fit to the other models alone; None where there are none.
        contradicts: whether it is more than 3 times off from what the others let expect.
    """

    model: str
    measured_ms: float
    estimated_ms: Estimate
    left_out_ms: Estimate | None
    contradicts: bool

    @property
    def error_percent(self) -> float:
        """Of the fit to all models; above 0 where it estimates too much."""
        return 100 * (self.estimated_ms.value / self.measured_ms - 1)

    @property
    def left_out_error_percent(self) -> float | None:
        """Of the fit to the other models; above 0 where it estimates too much, None where there are none."""
        if self.left_out_ms is None:
            return None
        return 100 * (self.left_out_ms.value / self.measured_ms - 1)


@dataclass(frozen=True)
class Fitted:
    """A device made of measurements.

    Args:
        device: the device.
        models: how well it estimates the measured models, in their order.
        times_expected: geometric mean over them of measured latency by what other boards let expect.
        warnings: a sentence on everything that is doubtful of the measurements.
    """

    device: Device
    models: tuple[ModelFit, ...]
    times_expected: float
    warnings: tuple[str, ...]

    @property
    def mean_left_out_error_percent(self) -> float | None:
        """Mean over the models, without regard to the sign; None for a single model."""
        errors = [one.left_out_error_percent for one in self.models]
        known = [abs(error) for error in errors if error is not None]
        return fmean(known) if known else None

    @property
    def half_width_percent(self) -> float:
        """Half the width of the 90 % interval of a model like these: the median over them."""
        widths = [one.estimated_ms.high / one.estimated_ms.value for one in self.models]
        return 100 * (float(np.median(widths)) - 1)


def fit_device(
    measured: Sequence[MeasuredModel],
    board: Board,
    prior: Stack,
    *,
    version: str,
    source: str,
    date: str,
    keep_contradictions: bool = False,
) -> Fitted:
    """Fit a device to measured models.

    Args:
        measured: one or more models (`read_measurements`), each another one.
        board: where.
        prior: what is known of the kernel library elsewhere (`relative_stack`).
        version: of the kernel library.
        source: where the measurements are, for the device file.
        date: of the measurements, YYYY-MM or YYYY-MM-DD.
        keep_contradictions: warn of measurements that cannot be right, instead of refusing them.

    Raises:
        InputError: a model holds an operator without a rule or computes on another type than the library's
            figures hold for; a measurement contradicts the others by more than 3 times, or all together other
            boards by more than 30 times; or the device file cannot say this (a name with spaces).
    """
    cycles = MeasuredCycles(
        np.array([_amounts(model, prior) for model in measured]),
        np.array([model.cycles for model in measured]),
    )
    known = of_any_speed(prior.cycles_per.log_rates)
    found = plausibility(measured, cycles, prior, known, keep=keep_contradictions)
    strayed = cycles.likeliest(known)
    words = (
        f"Fit to {counted(len(measured))} measured on this board ({date}, {source}), prior: {prior.source}"
    )
    try:
        stack = Stack(
            name=prior.family,
            family=prior.family,
            version=version,
            dtype=prior.dtype,
            folds_constant_channels=prior.folds_constant_channels,
            source=words,
            date=date,
            fitted_on=tuple(model.name for model in measured),
            cycles_per=_coefficients(cycles.rates(strayed), prior.cycles_per, measured, cycles.asked),
            active_power_mw=_power(measured, source, date),
        )
        device = Device(
            name=board.name,
            title=board.title,
            core=board.core,
            clock_mhz=_given(board.clock_mhz, date),
            supply_v=_given(board.supply_v, date),
            flash_bytes=_given(board.flash_bytes, date),
            ram_bytes=_given(board.ram_bytes, date),
            stacks=(stack,),
        )
    except ValidationError as error:
        raise InputError(
            "a device must follow the schema `mexit_edge.estimate.Device`. "
            f"Received: {first_violation(error, 'the device')}. Correct it."
        ) from error
    left_out = cycles.left_out(known)
    ms_per_cycle = 1 / board.clock_mhz / 1e3
    models = tuple(
        ModelFit(
            model=model.name,
            measured_ms=model.latency_ms,
            estimated_ms=stack.cycles_per.log_rates.cycles(asked).times(ms_per_cycle),
            left_out_ms=None if by_others is None else by_others.times(ms_per_cycle),
            contradicts=place in found.contradicting,
        )
        for place, (model, asked, by_others) in enumerate(zip(measured, cycles.asked, left_out, strict=True))
    )
    return Fitted(device, models, found.times_expected, found.warnings)


def counted(models: int, which: str = "") -> str:
    """Return how many models there are, such as `3 measured models`."""
    return f"{models} {which}model{'' if models == 1 else 's'}"


def _amounts(model: MeasuredModel, prior: Stack) -> Amounts:
    asked = workload(model.costs, prior)
    if asked.unknown:
        raise InputError(
            f"`measurements` must be of models whose operators have a rule. Received: {model.name} on line "
            f"{model.lines[0]}, with {', '.join(asked.unknown)}. Take it out."
        )
    return asked.amounts


def _coefficients(
    rates: LogRates, published: CyclesPer, measured: Sequence[MeasuredModel], asked: Floats
) -> CyclesPer:
    fitted = fitted_terms(rates, published.log_rates, asked)
    ranges = {term: published.term(term).macs_per_output for term in MAC_TERMS}
    return cycles_per(rates, fitted, _widened(ranges, measured))


def _widened(
    ranges: Mapping[str, Range | None], measured: Sequence[MeasuredModel]
) -> dict[str, Range | None]:
    """Return the multiply-accumulates per output of the layers behind each term, published and measured."""
    widened = dict(ranges)
    for cost in (cost for model in measured for cost in model.costs if cost.kind in ranges and cost.macs):
        here = (cost.macs or 0) / cost.output_elements
        low, high = widened[cost.kind] or (here, here)
        widened[cost.kind] = (min(low, here), max(high, here))
    return widened


def _power(measured: Sequence[MeasuredModel], source: str, date: str) -> Figure | None:
    """Return the power while inferring: one for all models, as uncertain as they differ."""
    powers = [model.power_mw for model in measured if model.power_mw is not None]
    if not powers:
        return None
    logs = np.log(powers)
    squares = POWER_WEIGHT * POWER_DEVIATION**2 + float(np.square(logs - logs.mean()).sum())
    variance = squares / (POWER_WEIGHT + len(logs) - 1)
    factor = math.exp(QUANTILE * math.sqrt(variance * (1 + 1 / len(logs))))
    value = math.exp(float(logs.mean()))
    return Figure(
        value=rounded(value),
        low=rounded(value / factor),
        high=rounded(value * factor),
        source=f"Energy over latency of {counted(len(logs))} measured on this board ({date}, {source})",
        date=date,
        status="measured",
    )


def _given(value: float, date: str) -> Figure:
    return Figure(value=value, source="Stated with the measurements", date=date, status="unverified")
