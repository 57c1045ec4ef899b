"""Fit a device to models that were measured on it.

What is known of the kernel library on other boards is the prior; the measurements update it (`rates`), and
they alone tell how fast the board is (`of_any_speed`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import ValidationError

from mexit_edge.errors import InputError, first_violation
from mexit_edge.estimate.coefficients import Range, cycles_per, rounded
from mexit_edge.estimate.device import CyclesPer, Device, Figure, Stack
from mexit_edge.estimate.interval import Estimate
from mexit_edge.estimate.latency.rates import QUANTILE, Floats, LogRates, log_cycles
from mexit_edge.estimate.latency.terms import MAC_TERMS, TERMS, Amounts
from mexit_edge.estimate.latency.workload import workload
from mexit_edge.estimate.own_board.measured_cycles import MeasuredCycles, of_any_speed
from mexit_edge.estimate.own_board.measurements import CONTRADICTION, MeasuredModel

# A coefficient whose deviation fell below this share of the prior's was moved by the measurements.
FITTED_SHARE = 0.8
# Of the log power of models on one board: mean error 3.5 % of a constant power over the 27 systems with
# published energy (MLPerf Tiny v0.5 to v1.1), times the root of pi / 2 for a standard deviation. It counts as
# much as two models.
POWER_DEVIATION = 0.044
POWER_WEIGHT = 2


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
        for field in ("clock_mhz", "flash_bytes", "ram_bytes", "supply_v"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"`{field}` must be a number above 0. Received: {value}.")


@dataclass(frozen=True)
class ModelFit:
    """A measured model and what the device file says of it.

    Args:
        model: its name.
        measured_ms: measured latency.
        estimated_ms: by the fit to all models.
        left_out_ms: by a fit to the other models alone.
    """

    model: str
    measured_ms: float
    estimated_ms: Estimate
    left_out_ms: Estimate

    @property
    def error_percent(self) -> float:
        """Of the fit to all models; above 0 where it estimates too much."""
        return 100 * (self.estimated_ms.value / self.measured_ms - 1)

    @property
    def left_out_error_percent(self) -> float:
        """Of the fit to the other models; above 0 where it estimates too much."""
        return 100 * (self.left_out_ms.value / self.measured_ms - 1)


@dataclass(frozen=True)
class Fitted:
    """A device made of measurements.

    Args:
        device: the device.
        models: how well it estimates the measured models, in their order.
        times_expected: geometric mean over them of measured latency by what other boards let expect.
    """

    device: Device
    models: tuple[ModelFit, ...]
    times_expected: float

    @property
    def half_width_percent(self) -> float:
        """Half the width of the 90 % interval of a model like these: the median over them."""
        widths = [one.estimated_ms.high / one.estimated_ms.value for one in self.models]
        return 100 * (float(np.median(widths)) - 1)


def fit_device(
    measured: Sequence[MeasuredModel], board: Board, prior: Stack, *, version: str, source: str, date: str
) -> Fitted:
    """Fit a device to measured models.

    Args:
        measured: one or more models (`read_measurements`), each another one.
        board: where.
        prior: what is known of the kernel library elsewhere (`relative_stack`).
        version: of the kernel library.
        source: where the measurements are, for the device file.
        date: of the measurements, YYYY-MM or YYYY-MM-DD.

    Raises:
        InputError: a model holds an operator without a rule or computes on another type than the library's
            figures hold for; a measurement contradicts the others by more than 3 times; or the device file
            cannot say this (a name with spaces).
    """
    cycles = MeasuredCycles(
        np.array([_amounts(model, prior) for model in measured]),
        np.array([model.cycles for model in measured]),
    )
    known = of_any_speed(prior.cycles_per.log_rates)
    _refuse_contradiction(measured, board, cycles, known)
    known = cycles.likeliest(known)
    words = f"Fit to {len(measured)} models measured on this board ({date}, {source}), prior: {prior.source}"
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
            cycles_per=_coefficients(cycles.rates(known), prior.cycles_per, measured, cycles.asked),
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
    expected, _ = log_cycles(known.mean, cycles.asked)
    return Fitted(
        device=device,
        models=_model_fits(measured, board, stack.cycles_per.log_rates, cycles, known),
        times_expected=float(np.exp(np.mean(np.log(cycles.cycles) - expected))),
    )


def _amounts(model: MeasuredModel, prior: Stack) -> Amounts:
    asked = workload(model.costs, prior)
    if asked.unknown:
        raise InputError(
            f"`measurements` must be of models whose operators have a rule. Received: {model.name} on line "
            f"{model.lines[0]}, with {', '.join(asked.unknown)}. Take it out."
        )
    return asked.amounts


def _refuse_contradiction(
    measured: Sequence[MeasuredModel], board: Board, cycles: MeasuredCycles, prior: LogRates
) -> None:
    found = cycles.contradiction(prior, CONTRADICTION)
    if found is None:
        return
    model, expected = measured[found[0]], found[1].times(1 / board.clock_mhz / 1e3)
    raise InputError(
        f"`measurements` must not contradict each other by more than {CONTRADICTION:g} times. Received: "
        f"{model.latency_ms:.4g} ms for {model.name} (line {', '.join(map(str, model.lines))}), where the "
        f"others let expect {expected.value:.4g} ms ({expected.low:.4g} to {expected.high:.4g}). Check its "
        "unit and measure it again, or take it out."
    )


def _model_fits(
    measured: Sequence[MeasuredModel], board: Board, rates: LogRates, cycles: MeasuredCycles, prior: LogRates
) -> tuple[ModelFit, ...]:
    ms_per_cycle = 1 / board.clock_mhz / 1e3
    return tuple(
        ModelFit(
            model=model.name,
            measured_ms=model.latency_ms,
            estimated_ms=rates.cycles(asked).times(ms_per_cycle),
            left_out_ms=left_out.times(ms_per_cycle),
        )
        for model, asked, left_out in zip(measured, cycles.asked, cycles.left_out(prior), strict=True)
    )


def _coefficients(
    rates: LogRates, published: CyclesPer, measured: Sequence[MeasuredModel], asked: Floats
) -> CyclesPer:
    moved = _deviations(rates) < FITTED_SHARE * _deviations(published.log_rates)
    # What no model asks for was not measured, even where the others tell how fast the board is.
    fitted = {term for place, term in enumerate(TERMS) if moved[place] and asked[:, place].any()}
    ranges = {term: published.term(term).macs_per_output for term in MAC_TERMS}
    return cycles_per(rates, fitted, _widened(ranges, measured))


def _deviations(rates: LogRates) -> Floats:
    return np.sqrt(np.diag(rates.covariance))


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
    powers = {one: one.energy_uj / one.latency_ms for one in measured if one.energy_uj is not None}
    if not powers:
        return None
    weak, strong = (choose(powers, key=powers.__getitem__) for choose in (min, max))
    if powers[strong] > CONTRADICTION * powers[weak]:
        raise InputError(
            f"`energy_uj` must not contradict itself by more than {CONTRADICTION:g} times. Received: "
            f"{powers[weak]:.4g} mW for {weak.name} (line {weak.lines[0]}) and {powers[strong]:.4g} mW for "
            f"{strong.name} (line {strong.lines[0]}). Check the unit and measure again."
        )
    logs = np.log(list(powers.values()))
    squares = POWER_WEIGHT * POWER_DEVIATION**2 + float(np.square(logs - logs.mean()).sum())
    variance = squares / (POWER_WEIGHT + len(logs) - 1)
    factor = math.exp(QUANTILE * math.sqrt(variance * (1 + 1 / len(logs))))
    value = math.exp(float(logs.mean()))
    return Figure(
        value=rounded(value),
        low=rounded(value / factor),
        high=rounded(value * factor),
        source=f"Energy over latency of {len(logs)} models measured on this board ({date}, {source})",
        date=date,
        status="measured",
    )


def _given(value: float, date: str) -> Figure:
    return Figure(value=value, source="Stated with the measurements", date=date, status="unverified")
