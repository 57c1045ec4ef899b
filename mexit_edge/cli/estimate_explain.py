"""`mexit estimate --explain`: cycles by term, operator by operator, and where every figure comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mexit_edge.cli.devices import board_figures, figure_facts, print_figures
from mexit_edge.cli.estimate_tables import UNKNOWN, count, estimated, plain, show
from mexit_edge.errors import in_digits
from mexit_edge.estimate import BundleEstimate, Estimate, ModelEstimate, OperationCost, Stack
from mexit_edge.estimate.device import Figure
from mexit_edge.estimate.latency.terms import MAC_TERMS, TERMS, amounts
from mexit_edge.estimate.latency.workload import Workload, workload

UNITS = dict.fromkeys(MAC_TERMS, "MAC") | {
    "output": "output element",
    "element": "element operation",
    "operator": "operator",
    "invocation": "invocation",
}
# What an estimate without a period is made of.
ALWAYS_USED = ("clock_mhz", "flash_bytes", "ram_bytes", "active_power_mw")


def term_facts(estimate: ModelEstimate | BundleEstimate, prices: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return every term of the latency model with its figure and amount, in one run of all stages."""
    asked, per_unit = _asked(estimate, prices), estimate.library.cycles_per
    facts: list[dict[str, Any]] = []
    for name, amount in zip(TERMS, asked.amounts.tolist(), strict=True):
        one = per_unit.term(name)
        facts.append(
            {
                "term": name,
                "unit": UNITS[name],
                "cycles_per_unit": one.value,
                "cycles_per_unit_low": one.low,
                "cycles_per_unit_high": one.high,
                "status": one.status,
                "amount": amount,
                "estimated_cycles": one.value * amount,
            }
        )
    if asked.priced_cycles:
        unknown: dict[str, Any] = dict.fromkeys(
            ("cycles_per_unit", "cycles_per_unit_low", "cycles_per_unit_high")
        )
        facts.append(
            {"term": "priced", "unit": "as given", **unknown, "status": "given", "amount": None}
            | {"estimated_cycles": asked.priced_cycles}
        )
    total = sum(row["estimated_cycles"] for row in facts)
    return [row | {"share_of_cycles": row["estimated_cycles"] / total if total else None} for row in facts]


def operator_facts(
    estimate: ModelEstimate | BundleEstimate, prices: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return every operator, with its own cycles and their share of all stages' (None where unknown)."""
    placed = list(_operators(estimate))
    cycles = [_cycles(cost, estimate.library, prices) for _, cost in placed]
    total = estimate.exits[-1] if isinstance(estimate, BundleEstimate) else estimate
    whole = None if total.estimated_cycles is None else total.estimated_cycles.value
    return [
        {"stage": stage}
        | asdict(cost)
        | {"estimated_cycles": own, "share_of_cycles": None if own is None or not whole else own / whole}
        for (stage, cost), own in zip(placed, cycles, strict=True)
    ]


def explain_facts(estimate: ModelEstimate | BundleEstimate, prices: Mapping[str, float]) -> dict[str, Any]:
    """Return terms, operators and sources in plain types."""
    return {
        "terms": term_facts(estimate, prices),
        "operators": operator_facts(estimate, prices),
        "figures": figure_facts(used_figures(estimate, with_period=True)),
        "stack": estimate.library.model_dump(mode="json"),
    }


def used_figures(estimate: ModelEstimate | BundleEstimate, *, with_period: bool) -> dict[str, Figure | None]:
    """Return the figures of the device that the estimate is made of, the stack's cycles apart."""
    found = board_figures(estimate.board)
    found["active_power_mw"] = estimate.board.power_mw(estimate.library)
    return {name: figure for name, figure in found.items() if with_period or name in ALWAYS_USED}


def print_explanation(
    estimate: ModelEstimate | BundleEstimate,
    prices: Mapping[str, float],
    with_period: bool,
    screen: Console,
) -> None:
    """Print terms, operators and sources."""
    show(screen, _term_table(estimate, prices))
    show(screen, _operator_table(estimate, prices))
    print_figures(screen, f"Figures of {estimate.device}", used_figures(estimate, with_period=with_period))
    stack = estimate.library
    screen.print(f"Cycles per unit: {stack.version}. {stack.source}, {stack.date}.", markup=False)


def _asked(estimate: ModelEstimate | BundleEstimate, prices: Mapping[str, float]) -> Workload:
    if isinstance(estimate, ModelEstimate):
        return workload(estimate.operations, estimate.library, prices)
    return sum(estimate.workloads[1:], estimate.workloads[0])


def _operators(estimate: ModelEstimate | BundleEstimate) -> Iterator[tuple[str | None, OperationCost]]:
    if isinstance(estimate, ModelEstimate):
        yield from ((None, cost) for cost in estimate.operations)
        return
    for stage, costs in zip(estimate.stages, estimate.operations, strict=True):
        yield from ((stage.exit, cost) for cost in costs)


def _cycles(cost: OperationCost, stack: Stack, prices: Mapping[str, float]) -> float | None:
    """Return the cycles of one operator, without its part of the invocation."""
    if cost.kind == "unknown" and cost.name not in prices:
        return None
    asked = amounts([cost], folds_constant_channels=stack.folds_constant_channels)
    asked[TERMS.index("invocation")] = 0
    per_unit = np.array([stack.cycles_per.term(name).value for name in TERMS])
    return float(per_unit @ asked) + (prices[cost.name] if cost.kind == "unknown" else 0.0)


def _term_table(estimate: ModelEstimate | BundleEstimate, prices: Mapping[str, float]) -> Table:
    table = plain(
        "Cycles by term" + ("" if isinstance(estimate, ModelEstimate) else ", all stages"),
        "term",
        ("cycles each", "status", "amount", "cycles", "share"),
    )
    for row in term_facts(estimate, prices):
        value = row["cycles_per_unit"]
        interval = (
            None
            if value is None
            else Estimate(value, row["cycles_per_unit_low"], row["cycles_per_unit_high"])
        )
        table.add_row(
            row["term"],
            "" if interval is None else estimated(interval),
            row["status"],
            "" if row["amount"] is None else count(row["amount"]),
            count(row["estimated_cycles"]),
            _share(row["share_of_cycles"]),
        )
    return table


def _operator_table(estimate: ModelEstimate | BundleEstimate, prices: Mapping[str, float]) -> Table:
    headings = ("shapes", "MACs,\nlive", "of all\ncycles", "bytes:\nweights,\nactivations", "rounding")
    table = plain("Operators", "", headings)
    table.columns[1].justify = "left"
    before = None
    for row in operator_facts(estimate, prices):
        if row["stage"] != before:
            table.add_row(f"[bold]{row['stage']}[/bold]")
            before = row["stage"]
        shapes = [*map(_shape, row["input_shapes"]), *(f"-> {_shape(one)}" for one in row["output_shapes"])]
        table.add_row(
            f"{row['index']:>3} {escape(row['name'])}\n    {row['kind']}",
            "\n".join(shapes),
            f"{count(row['macs'])}\n{count(row['live_macs'])}",
            _share(row["share_of_cycles"]),
            f"{count(row['weight_bytes'])}\n{count(row['activation_bytes'])}",
            in_digits(row["channel_rounding"]),
        )
    return table


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _share(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share:.1%}"
