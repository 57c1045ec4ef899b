"""Write devices as TOML that reads well: a line per figure, and a line per row of a correlation.

General writers of TOML put every number of a nested array on a line of its own. Values here are strings,
numbers, booleans and arrays, whose JSON form is TOML as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mexit_edge.estimate.device import CyclesPer, Device, Stack
from mexit_edge.estimate.latency.terms import TERMS


def device_toml(device: Device) -> str:
    """Return the text of a device file; `parse_device` reads it back equal."""
    facts = device.model_dump(exclude={"stacks"}, exclude_none=True, exclude_defaults=True)
    lines = [f"{key} = {_value(value)}" for key, value in facts.items()]
    return "\n".join([*lines, *(f"\n{stack_toml(stack)}" for stack in device.stacks)]) + "\n"


def stack_toml(stack: Stack, table: str = "stacks") -> str:
    """Return the text of one stack.

    Args:
        stack: the stack.
        table: name of the array of tables that it is an element of.
    """
    facts = stack.model_dump(exclude={"cycles_per"}, exclude_none=True)
    lines = [f"[[{table}]]", *(f"{key} = {_value(value)}" for key, value in facts.items())]
    return "\n".join([*lines, f"[{table}.cycles_per]", *cycles_per_toml(stack.cycles_per)])


def cycles_per_toml(cycles_per: CyclesPer) -> Iterator[str]:
    """Give the lines of a stack's figures."""
    for name in TERMS:
        yield f"{name} = {_value(cycles_per.term(name).model_dump(exclude_none=True))}"
    yield f"model_error = {_value(cycles_per.model_error)}"
    if cycles_per.correlation is not None:
        yield "correlation = ["
        yield from (f"  {_value(row)}," for row in cycles_per.correlation)
        yield "]"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    # The one character that JSON takes as it is and TOML does not.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
