"""Whether measurements of a board can be right: what cannot is refused, or kept with a warning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mexit_edge.errors import InputError, in_digits
from mexit_edge.estimate.device import Stack
from mexit_edge.estimate.latency.rates import LogRates, log_cycles
from mexit_edge.estimate.own_board.measured_cycles import Contradiction, MeasuredCycles
from mexit_edge.estimate.own_board.measurements import CONTRADICTION, MeasuredModel

# Times as slow or fast as published boards. The 46 systems of MLPerf Tiny v0.5 to v1.1 with three models or
# more lie within 0.15 and 4.7 of their own figures: beyond the first it is more of a mistake than of a board,
# and beyond the second it is one.
SUSPICIOUS = 5.0
IMPOSSIBLE = 30.0
KEEP = "pass `keep_contradictions=True` (`--keep-contradictions`) if it is right"


@dataclass(frozen=True)
class Plausibility:
    """What is doubtful of measurements that were taken.

    Args:
        contradicting: places of the models that contradict the others.
        times_expected: geometric mean over the models of measured cycles by what other boards let expect.
        warnings: a sentence per doubt.
    """

    contradicting: frozenset[int]
    times_expected: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Doubt:
    rule: str
    received: str
    way_out: str
    is_certain: bool


def plausibility(
    measured: Sequence[MeasuredModel], cycles: MeasuredCycles, prior: Stack, rates: LogRates, *, keep: bool
) -> Plausibility:
    """Look for mistakes in measurements.

    Args:
        measured: models.
        cycles: the same, with what the models ask for.
        prior: what is known of the kernel library elsewhere.
        rates: the same, for a board of any speed.
        keep: whether to warn of what cannot be right, instead of refusing it.

    Raises:
        InputError: there is a mistake for certain, and `keep` is False.
    """
    expected, _ = log_cycles(rates.mean, cycles.asked)
    times = float(np.exp(np.mean(np.log(cycles.cycles) - expected)))
    contradictions = cycles.contradictions(rates, CONTRADICTION)
    doubts = [
        *(_contradiction(measured[one.index], one) for one in contradictions),
        *_speed(times, prior.family, measured[0]),
        *_power(measured),
    ]
    for doubt in doubts:
        if doubt.is_certain and not keep:
            raise InputError(f"{doubt.rule}. Received: {doubt.received}. {doubt.way_out}, or {KEEP}.")
    return Plausibility(
        contradicting=frozenset(one.index for one in contradictions),
        times_expected=times,
        warnings=tuple(f"{one.rule}. Received: {one.received}. {one.way_out}." for one in doubts),
    )


def _contradiction(model: MeasuredModel, found: Contradiction) -> _Doubt:
    ms = found.expected.times(model.latency_ms / model.cycles)
    return _Doubt(
        f"`measurements` must not contradict each other by more than {CONTRADICTION:g} times",
        f"{in_digits(model.latency_ms)} ms for {_place(model)}, where the others let expect "
        f"{in_digits(ms.value)} ms ({in_digits(ms.low)} to {in_digits(ms.high)})",
        "Check its unit and `stack` (`--stack`), measure it again or take it out",
        found.is_certain,
    )


def _speed(times: float, family: str, model: MeasuredModel) -> Iterator[_Doubt]:
    """Doubt a board that is too slow or fast as a whole."""
    if 1 / SUSPICIOUS <= times <= SUSPICIOUS:
        return
    is_certain = not 1 / IMPOSSIBLE <= times <= IMPOSSIBLE
    factor = f"{in_digits(times)} times" if times > 1 else f"1/{in_digits(1 / times)} of"
    limit = IMPOSSIBLE if is_certain else SUSPICIOUS
    yield _Doubt(
        f"`measurements` must be within {limit:g} times of what other boards with {family} let expect",
        f"{factor} that{_cause(times, model) if is_certain else ''}",
        "Check the unit, `--clock-mhz`, `--core` and `--stack`",
        is_certain,
    )


def _cause(times: float, model: MeasuredModel) -> str:
    """Say which mistaken unit makes a board so slow or fast; nothing where none comes near."""
    clock_mhz = model.cycles / model.latency_ms / 1e3
    factors = {
        "microseconds under latency_ms": 1e3,
        "milliseconds under latency_us or seconds under latency_ms": 1e-3,
        "cycles under latency_us": clock_mhz,
        "microseconds under cycles": 1 / clock_mhz,
        "cycles under latency_ms": 1e3 * clock_mhz,
        "milliseconds under cycles": 1e-3 / clock_mhz,
    }
    distances = {cause: abs(math.log(times / factor)) for cause, factor in factors.items()}
    nearest = min(distances, key=distances.__getitem__)
    return f", as {nearest} would be" if distances[nearest] <= math.log(SUSPICIOUS) else ""


def _power(measured: Sequence[MeasuredModel]) -> Iterator[_Doubt]:
    """Doubt powers that differ too much: what runs hardly changes them."""
    powers = {model: power for model in measured if (power := model.power_mw) is not None}
    if not powers:
        return
    weak, strong = (choose(powers, key=powers.__getitem__) for choose in (min, max))
    if powers[strong] > CONTRADICTION * powers[weak]:
        yield _Doubt(
            f"`energy_uj` must not contradict itself by more than {CONTRADICTION:g} times",
            f"{in_digits(powers[weak])} mW for {_place(weak)} and {in_digits(powers[strong])} mW for "
            f"{_place(strong)}",
            "Check the unit and measure again",
            True,
        )


def _place(model: MeasuredModel) -> str:
    return f"{model.name} (line {', '.join(map(str, model.lines))})"
