"""The latency model: what a model asks for, priced by a stack.

    cycles = sum over terms of cycles_per_unit[term] * amount[term]        (`terms`, `rates`)

The interval is that of the stack's own fit. Layers unlike those that its figures come from make it wider, and
are named. Nothing is priced at 0 because nobody listed it: an operator without a rule makes the cycles
unknown, unless its price is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mexit_edge.errors import InputError
from mexit_edge.estimate.device import Stack
from mexit_edge.estimate.interval import Estimate
from mexit_edge.estimate.latency.rates import QUANTILE, log_cycles
from mexit_edge.estimate.latency.terms import MAC_TERMS, STAND_INS, TERMS, Amounts, amounts, rate_term
from mexit_edge.estimate.operations import OperationCost, unknown_operations

# Work per output is 40 to 100 instructions on a Cortex-M4; at 3 to 18 multiply-accumulates per output that is
# up to about twice what the rate of a deep reduction says. Kinds without published latencies get the same
# factor.
EXTRAPOLATION_FACTOR = 2.0
# A rate whose interval is wider than this, end over end, is said to be hardly known: two each way.
HARDLY_KNOWN = 4.0


@dataclass(frozen=True)
class Workload:
    """What one or more invocations ask of a stack. Workloads of stages add up.

    Args:
        amounts: per term (`terms.TERMS`), (8,).
        extrapolated: the part of it that lies outside of what the stack's figures come from, (8,).
        priced_cycles: of operators whose price was given.
        unknown: names of operators without a rule and without a price, in order.
        notes: what is extrapolated, each once.
    """

    amounts: Amounts
    extrapolated: Amounts
    priced_cycles: float
    unknown: tuple[str, ...]
    notes: tuple[str, ...]

    def __add__(self, other: Workload) -> Workload:
        """Return both, one after the other."""
        return Workload(
            self.amounts + other.amounts,
            self.extrapolated + other.extrapolated,
            self.priced_cycles + other.priced_cycles,
            tuple(dict.fromkeys((*self.unknown, *other.unknown))),
            tuple(dict.fromkeys((*self.notes, *other.notes))),
        )

    def times(self, share: float) -> Workload:
        """Return a share of it, from 0: the mean over windows of which this share asks for it."""
        return Workload(
            self.amounts * share,
            self.extrapolated * share,
            self.priced_cycles * share,
            self.unknown,
            self.notes,
        )


def workload(
    costs: Sequence[OperationCost], stack: Stack, prices: Mapping[str, float] | None = None
) -> Workload:
    """Return what one invocation of a model asks of a stack.

    Args:
        costs: the model's operators.
        stack: the kernel library.
        prices: cycles per run of operators without a rule, by name (see `refuse_prices`).

    Raises:
        InputError: an operator with multiply-accumulates computes on another type than the stack's figures
            hold for.
    """
    prices = {} if prices is None else prices
    unknown = [cost.name for cost in costs if cost.kind == "unknown"]
    for cost in costs:
        _refuse_other_type(cost, stack)
    outside = [cost for cost in costs if _is_outside(cost, stack)]
    beyond = amounts(outside, folds_constant_channels=stack.folds_constant_channels)
    # They bring multiply-accumulates only: operators, outputs and the invocation are priced as anywhere.
    beyond[len(MAC_TERMS) :] = 0
    return Workload(
        amounts=amounts(costs, folds_constant_channels=stack.folds_constant_channels),
        extrapolated=beyond,
        priced_cycles=sum(prices.get(name, 0.0) for name in unknown),
        unknown=tuple(dict.fromkeys(name for name in unknown if name not in prices)),
        notes=tuple(_notes(costs, outside, stack)),
    )


def cycles(asked: Workload, stack: Stack) -> Estimate | None:
    """Estimate the cycles of a workload; None where it has operators without rule and price.

    Args:
        asked: what is asked for.
        stack: of whom.
    """
    if asked.unknown:
        return None
    rates = stack.cycles_per.log_rates
    if not asked.amounts.any():
        return Estimate(0.0, 0.0, 0.0) + _exactly(asked.priced_cycles)
    _, (shares,) = log_cycles(rates.mean, asked.amounts[None])
    known = np.divide(asked.extrapolated, asked.amounts, out=np.zeros(len(TERMS)), where=asked.amounts > 0)
    deviation = math.log(EXTRAPOLATION_FACTOR) / QUANTILE * float(shares @ known)
    return rates.cycles(asked.amounts, deviation) + _exactly(asked.priced_cycles)


def cycles_by_term(asked: Workload, stack: Stack) -> dict[str, float]:
    """Return the estimated cycles of every term, and of priced operators; they add up to the total.

    Args:
        asked: what is asked for.
        stack: of whom.
    """
    per_unit = np.exp(stack.cycles_per.log_rates.mean)
    parts = dict(zip(TERMS, (per_unit * asked.amounts).tolist(), strict=True))
    return parts | ({"priced": asked.priced_cycles} if asked.priced_cycles else {})


def _exactly(value: float) -> Estimate:
    return Estimate(value, value, value)


def refuse_prices(prices: Mapping[str, float], costs: Iterable[OperationCost]) -> None:
    """Refuse prices that are none, or not of operators without a rule; those that have one keep it.

    Args:
        prices: cycles per run, by name.
        costs: every operator of a model, or of all stages of a bundle.

    Raises:
        InputError: names the price, and the operators without a rule.
    """
    unknown = unknown_operations(costs)
    for name, price in prices.items():
        if not (math.isfinite(price) and price >= 0):
            raise InputError(
                f"`prices` must be cycles per run of an operator, from 0. Received: {price} for {name}."
            )
        if name not in unknown:
            raise InputError(
                f"`prices` must be of operators without a rule ({', '.join(unknown) or 'here are none'}). "
                f"Received: {name!r}. Leave it out: those with a rule keep it."
            )


def _refuse_other_type(cost: OperationCost, stack: Stack) -> None:
    if rate_term(cost.kind) is not None and cost.dtype != stack.dtype:
        raise InputError(
            f"`stack` {stack.name} has rates for {stack.dtype} only. Received: {cost.name} at place "
            f"{cost.index} that computes {cost.dtype}. Estimate the quantized model."
        )


def _is_outside(cost: OperationCost, stack: Stack) -> bool:
    """Tell whether a layer with multiply-accumulates is unlike those that the stack's figures come from."""
    term = rate_term(cost.kind)
    if term is None or not cost.output_elements:
        return False
    inside = stack.cycles_per.term(term).macs_per_output
    if cost.kind in STAND_INS or inside is None:
        return True
    return not inside[0] <= (cost.macs or 0) / cost.output_elements <= inside[1]


def _notes(costs: Iterable[OperationCost], outside: Sequence[OperationCost], stack: Stack) -> Iterable[str]:
    for cost in outside:
        if cost.kind in STAND_INS:
            yield (
                f"Extrapolated: {cost.name} at the rate of {STAND_INS[cost.kind]}, for want of published "
                f"latencies; its cycles may be off by another factor of {EXTRAPOLATION_FACTOR:g} each way."
            )
    unlike = sorted({cost.name for cost in outside if cost.kind not in STAND_INS})
    if unlike:
        yield (
            f"Extrapolated: layers of {', '.join(unlike)} have fewer or more multiply-accumulates per output "
            f"than those the rates were fitted on; their cycles may be off by another "
            f"factor of {EXTRAPOLATION_FACTOR:g} each way."
        )
    by_work = sorted({cost.name for cost in costs if cost.work})
    element = stack.cycles_per.element
    if by_work and element.high > HARDLY_KNOWN * element.low:
        yield (
            f"Hardly known: {', '.join(by_work)} at {element.value:.3g} cycles per element "
            f"({element.low:.3g} to {element.high:.3g})."
        )
