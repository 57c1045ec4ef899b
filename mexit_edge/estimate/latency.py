"""The latency model: operations of one model on one stack, in cycles.

    cycles = sum over operators [ rate(kind) * MACs  or  cycles_per_element * elements ]
             + cycles_per_op * operators + cycles_per_invoke

Every coefficient brings its own interval, and lows and highs are summed apart. A layer outside the range of
those a rate was fitted on gets a wider one. What has no coefficient is said in the notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mexit_edge.errors import InputError
from mexit_edge.estimate.device import Rate, Stack
from mexit_edge.estimate.interval import Estimate, total
from mexit_edge.estimate.operations import OperationCost


@dataclass(frozen=True)
class Priced:
    """Cycles of one invocation of a model.

    Args:
        cycles: the estimate.
        extrapolated: names of operators with a layer outside the range its rate was fitted on, sorted.
        without_macs: names of operators priced by their elements, sorted.
    """

    cycles: Estimate
    extrapolated: tuple[str, ...]
    without_macs: tuple[str, ...]


def price(costs: Sequence[OperationCost], stack: Stack) -> Priced:
    """Estimate the cycles of one invocation.

    Args:
        costs: the model's operators.
        stack: the kernel library.

    Raises:
        InputError: an operator computes on another type than the stack's rates hold for.
    """
    parts = []
    extrapolated, without_macs = set(), set()
    for cost in costs:
        if cost.kind == "other":
            without_macs.add(cost.name)
            parts.append(stack.cycles_per_element.estimate.times(cost.elements))
            continue
        if cost.dtype != stack.dtype:
            raise InputError(
                f"`stack` {stack.name} has rates for {stack.dtype} only. Received: {cost.name} at place "
                f"{cost.index} that computes {cost.dtype}. Estimate the quantized model."
            )
        rate: Rate = getattr(stack.cycles_per_mac, cost.kind)
        cycles_per_mac = rate.estimate
        if not _inside(cost, rate):
            extrapolated.add(cost.name)
            widen = Estimate(1.0, *stack.extrapolation_factors)
            cycles_per_mac = cycles_per_mac * widen
        parts.append(cycles_per_mac.times(cost.live_macs if stack.folds_constant_channels else cost.macs))
    parts.append(stack.cycles_per_op.estimate.times(len(costs)))
    if stack.cycles_per_invoke is not None:
        parts.append(stack.cycles_per_invoke.estimate)
    return Priced(total(parts), tuple(sorted(extrapolated)), tuple(sorted(without_macs)))


def notes(priced: Sequence[Priced], stack: Stack) -> tuple[str, ...]:
    """Say what the cycles leave out and what they extrapolate.

    Args:
        priced: the models of one estimate.
        stack: the kernel library.
    """
    said = []
    if stack.cycles_per_invoke is None:
        said.append(f"Not priced: the fixed cost of an invocation, unknown for {stack.name}.")
    if stack.active_power_mw is None:
        said.append(f"Not priced: energy, the active power of {stack.name} is unknown.")
    extrapolated = sorted({name for one in priced for name in one.extrapolated})
    if extrapolated:
        low, high = stack.extrapolation_factors
        said.append(
            f"Extrapolated: layers of {', '.join(extrapolated)} have fewer or more multiply-accumulates per "
            f"output than those the rates were fitted on; their interval is widened by {low:g} and {high:g}."
        )
    elements = stack.cycles_per_element
    without_macs = sorted({name for one in priced for name in one.without_macs})
    if without_macs and elements.status == "extrapolated":
        said.append(
            f"Extrapolated: {', '.join(without_macs)} at {elements.value:g} cycles per element "
            f"({elements.estimate.low:g} to {elements.estimate.high:g})."
        )
    return tuple(said)


def _inside(cost: OperationCost, rate: Rate) -> bool:
    """Tell whether a layer is like those that the rate was fitted on."""
    least, most = rate.macs_per_output
    return least <= cost.macs / cost.output_elements <= most
