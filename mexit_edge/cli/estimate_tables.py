"""Tables and sentences of an estimate, and the same facts in plain types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mexit_edge.cli.tables import memory_facts
from mexit_edge.errors import in_digits
from mexit_edge.estimate import (
    BundleEstimate,
    BundleMemory,
    Cost,
    Estimate,
    MemoryFit,
    ModelEstimate,
    Stack,
    device_names,
)
from mexit_edge.estimate.energy.clocks import Difference
from mexit_edge.estimate.latency.rates import LEVEL

UNKNOWN = "unknown"
# Device files name kernels that were timed alone so.
KERNEL = " kernel"
INTERVAL = f"{100 * LEVEL:.0f} %"


def estimated(estimate: Estimate | Difference | None, between: str = " ") -> str:
    """Return an estimate with its interval, for a cell of a table.

    Args:
        estimate: None where unknown.
        between: value and interval: a new line where columns are many.
    """
    if estimate is None:
        return UNKNOWN
    low, high = in_digits(estimate.low), in_digits(estimate.high)
    return escape(in_digits(estimate.value) + ("" if low == high else f"{between}[{low}, {high}]"))


def count(value: float | None) -> str:
    """Return a whole number, or the mean of whole numbers."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def flat(name: str, estimate: Estimate | Difference | None) -> dict[str, float | None]:
    """Return an estimate as three facts, named like those of `rows()`."""
    ends = ("", "_low", "_high")
    values = (None,) * 3 if estimate is None else (estimate.value, estimate.low, estimate.high)
    return {f"{name}{end}": value for end, value in zip(ends, values, strict=True)}


def plain(title: str, first: str, headings: Sequence[str]) -> Table:
    """Return a table of names and numbers; a cell of numbers that is too wide goes on in the next line."""
    table = Table(title=escape(title), box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    return table


def show(screen: Console, table: Table) -> None:
    """Print a table below its title, which is not wrapped to the table's width."""
    headline, table.title = table.title, None
    screen.print(f"\n[bold]{headline}[/bold]")
    screen.print(table)


def title(name: str, estimate: ModelEstimate | BundleEstimate) -> str:
    """Return what is estimated, and where it runs."""
    board = estimate.board
    return (
        f"{name} on {board.name} ({board.core}, {in_digits(board.clock_mhz.value)} MHz) with {estimate.stack}"
    )


def cost_table(name: str, estimate: ModelEstimate | BundleEstimate, expected: Cost | None) -> Table:
    """Return what stages and exits cost, or a model.

    Args:
        name: of the model or bundle.
        estimate: of it.
        expected: the mean over windows; None where exit shares are unknown.
    """
    headings = ("MACs", "latency, ms", "energy, uJ", "flash,\nbytes", "arena,\nest.\n32-bit,\nbytes")
    table = plain(title(name, estimate), "", headings)
    if isinstance(estimate, ModelEstimate):
        memory = estimate.memory
        _add(table, "model", estimate, (memory.flash.c_array_bytes, memory.estimated_arena_bytes_32bit))
        return table
    for number_, stage in enumerate(estimate.stages, start=1):
        _add(table, f"stage {number_}", stage, (stage.flash_bytes, stage.estimated_arena_bytes_32bit))
    table.add_row()
    for one in estimate.exits:
        _add(table, one.exit, one, (one.flash_bytes, one.estimated_arena_bytes_32bit))
    if expected is not None:
        table.add_row()
        _add(table, "expected", expected, ())
    return table


def _add(table: Table, what: str, cost: Cost, sizes: Sequence[int | None]) -> None:
    latency_ms, energy_uj = cost.estimated_latency_ms, cost.estimated_energy_uj
    table.add_row(what, count(cost.macs), estimated(latency_ms), estimated(energy_uj), *map(count, sizes))


def certainty(stack: Stack, device: str) -> str:
    """Say what the intervals are, and what the stack's figures come from."""
    return (
        f"In brackets: {INTERVAL} intervals. {stack.name} was {fitted(stack, device)}. Its figures are of "
        f"{stack.version}. Source: {stack.source}, {stack.date}."
    )


def fitted(stack: Stack, device: str) -> str:
    """Say what a stack's figures on a device come from."""
    if not stack.fitted_on:
        return f"never measured on {device}: extrapolated from other boards and libraries"
    # Published on the board itself or on another one with its chip, as the source says.
    how = "published" if device in device_names() else "measured"
    return f"fitted to {' and '.join(counts(stack))} {how} for it ({', '.join(stack.fitted_on)})"


def counts(stack: Stack) -> list[str]:
    """Return how many models and how many single kernels a stack was fitted to; nothing of what is none."""
    kernels = sum(name.endswith(KERNEL) for name in stack.fitted_on)
    found = {"model": len(stack.fitted_on) - kernels, "kernel": kernels}
    return [f"{n} {what}{'s' if n > 1 else ''}" for what, n in found.items() if n]


def memory_sentence(fit: MemoryFit, unknown_because: Sequence[str]) -> str:
    """Say what is taken of the device's memory, and whether it fits."""
    ram = UNKNOWN if fit.estimated_ram_bytes is None else f"{fit.estimated_ram_bytes:,}"
    said = (
        f"Memory: {fit.flash_bytes:,} of {fit.device_flash_bytes:,} bytes of flash, {ram} of "
        f"{fit.device_ram_bytes:,} bytes of RAM; {fit.verdict}. Program, kernels and stack come on top."
    )
    return " ".join([said, *(f"RAM unknown: {reason}" for reason in unknown_because)])


def fit_facts(estimate: ModelEstimate | BundleEstimate) -> dict[str, Any]:
    """Return what is taken of the device's memory, in plain types."""
    fit, memory = estimate.fit, estimate.memory
    facts = asdict(fit) | {
        "missing_flash_bytes": fit.missing_flash_bytes,
        "missing_ram_bytes": fit.missing_ram_bytes,
        "fits": fit.fits,
        "unknown_because": list(memory.unknown_because),
    }
    if isinstance(memory, BundleMemory):
        return facts | {"plan": memory_facts(memory)}
    return facts | {"flash": asdict(memory.flash)}
