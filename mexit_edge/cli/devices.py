"""`mexit devices`: the devices there are, and for one of them every figure with its status and source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, get_args

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from mexit_edge.cli.estimate_request import read_device
from mexit_edge.cli.estimate_tables import UNKNOWN, counts, estimated, fitted, plain, show
from mexit_edge.cli.tables import console, print_json
from mexit_edge.errors import in_digits
from mexit_edge.estimate import Device, Estimate, Figure, Stack, device_names, load_device
from mexit_edge.estimate.device import Status
from mexit_edge.estimate.ethos_u import ACCELERATORS
from mexit_edge.estimate.latency.terms import TERMS

FIGURES = (
    *("clock_mhz", "supply_v", "flash_bytes", "ram_bytes", "active_power_mw", "static_power_mw"),
    *("idle_power_mw", "sleep_power_mw", "wake_up_ms"),
)
# Statuses of figures that are no more than guesses, and what a list marks them with.
GUESSED, MARK = ("extrapolated", "unverified"), "~"
POWERS = ("active_power_mw", "idle_power_mw", "sleep_power_mw")


def devices_and_print(name: str | None, *, as_json: bool) -> None:
    """Print all devices, or every figure of one.

    Args:
        name: of a device, or the path of a device file; None for a line per device.
        as_json: whether to print JSON.

    Raises:
        InputError: there is no such device, or the file does not follow the schema.
    """
    if name is None:
        devices = [load_device(known) for known in device_names()]
        if as_json:
            print_json({"devices": [_facts(one) for one in devices], "ethos_u": list(ACCELERATORS)})
            return
        screen = console(quiet=False)
        show(screen, _devices_table(devices))
        for sentence in (
            f"{MARK}: {' or '.join(GUESSED)}; all other powers are measured, fitted or from a datasheet.",
            "In brackets: how many models, published for the device, the stack was fitted to; and how many "
            "single kernels.",
            f"By Arm's compiler, where it is installed: {', '.join(ACCELERATORS)}.",
        ):
            screen.print(sentence, markup=False)
        return
    device = read_device(name)
    if as_json:
        statuses = dict(_statuses(device))
        print_json({"device": device.model_dump(mode="json"), "statuses": statuses})
    else:
        _print_one(device)


def board_figures(device: Device) -> dict[str, Figure | None]:
    """Return the figures of a board by name, those of its stacks apart; None of one that is unknown."""
    return {name: getattr(device, name) for name in FIGURES}


def figure_facts(figures: Mapping[str, Figure | None]) -> dict[str, Any]:
    """Return figures in plain types."""
    return {name: None if one is None else one.model_dump(mode="json") for name, one in figures.items()}


def print_figures(screen: Console, title: str, figures: Mapping[str, Figure | None]) -> None:
    """Print every figure with its interval, status and date, and its source below it."""
    screen.print(f"\n[bold]{escape(title)}[/bold]")
    for name, one in figures.items():
        if one is None:
            screen.print(f"{name}: {UNKNOWN}")
            continue
        screen.print(f"{name}: {estimated(one.estimate)}, {one.status}, {one.date}")
        screen.print(Padding(escape(one.source), (0, 0, 0, 4)))


def _devices_table(devices: list[Device]) -> Table:
    table = plain("Devices", "", ("flash,\nRAM", "active\nmW", "idle\nmW", "sleep\nmW", "stacks"))
    for column in table.columns[1:-1]:
        column.no_wrap = True
    table.columns[-1].justify = "left"
    for one in devices:
        facts = _facts(one)
        table.add_row(
            f"{one.name}\n  {one.core}, {in_digits(one.clock_mhz.value)} MHz",
            f"{_size(one.flash_bytes.value)}\n{_size(one.ram_bytes.value)}",
            *(_power(facts[name]) for name in POWERS),
            "\n".join(f"{stack.name} ({_seen(stack)})" for stack in one.stacks),
        )
    return table


def _seen(stack: Stack) -> str:
    """Return what a stack was fitted to; of models alone their number, since the column is narrow."""
    found = counts(stack)
    return ", ".join(found) if len(found) > 1 else found[0].split()[0] if found else "extrapolated"


def _power(facts: Mapping[str, Any] | None) -> str:
    if facts is None:
        return UNKNOWN
    return (MARK if facts["status"] in GUESSED else "") + in_digits(facts["value"])


def _size(bytes_: float) -> str:
    """Return a size in the largest binary unit of which it holds one."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if bytes_ >= size:
            return f"{bytes_ / size:.3g} {unit}"
    return f"{bytes_ / 2**10:.3g} KiB"


def _facts(device: Device) -> dict[str, Any]:
    """Return the line of a device in plain types; powers are None where they are unknown."""
    powers = {name: getattr(device, name) for name in POWERS}
    powers["active_power_mw"] = device.power_mw(device.stacks[0])
    return {
        "name": device.name,
        "title": device.title,
        "core": device.core,
        "clock_mhz": device.clock_mhz.value,
        "flash_bytes": device.flash_bytes.value,
        "ram_bytes": device.ram_bytes.value,
        **{
            name: None if figure is None else asdict(figure.estimate) | {"status": figure.status}
            for name, figure in powers.items()
        },
        "stacks": [
            {"name": stack.name, "version": stack.version, "fitted_on": list(stack.fitted_on)}
            for stack in device.stacks
        ],
    }


def _statuses(device: Device) -> Counter[str]:
    """Count all known figures by their status, those of the stacks included; a status without one is 0."""
    figures = [*board_figures(device).values(), *(stack.active_power_mw for stack in device.stacks)]
    found = Counter(dict.fromkeys(get_args(Status), 0))
    found.update(one.status for one in figures if one is not None)
    found.update(stack.cycles_per.term(term).status for stack in device.stacks for term in TERMS)
    return found


def _print_one(device: Device) -> None:
    screen = console(quiet=False)
    screen.print(f"{device.name}: {device.title}, {device.core}", markup=False)
    print_figures(screen, "Figures of the board", board_figures(device))
    clocks = ", ".join(map(in_digits, sorted(device.clock_choices_mhz))) or "none listed"
    screen.print(f"Other clocks, MHz: {clocks}. Regulator: {device.regulator or UNKNOWN}.", markup=False)
    for stack in device.stacks:
        show(screen, _stack_table(stack))
        screen.print(
            f"{stack.version}, {stack.dtype}; {fitted(stack, device.name)}. {stack.source}, {stack.date}.",
            markup=False,
        )
        if (power := stack.active_power_mw) is not None:
            screen.print(
                f"While inferring: {in_digits(power.value)} mW, {power.status}. "
                f"{power.source}, {power.date}.",
                markup=False,
            )
    counted = ", ".join(f"{n} {status}" for status, n in _statuses(device).items())
    screen.print(f"\nFigures, those of the stacks included: {counted}.", markup=False)


def _stack_table(stack: Stack) -> Table:
    table = plain(stack.name, "cycles per", ("value", "status", "seen at MACs\nper output"))
    for name in TERMS:
        one = stack.cycles_per.term(name)
        seen = one.macs_per_output
        table.add_row(
            name,
            estimated(Estimate(one.value, one.low, one.high)),
            one.status,
            "" if seen is None else f"{in_digits(seen[0])} to {in_digits(seen[1])}",
        )
    return table
