"""What is known of a kernel library on boards where it was never measured."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

from pydantic import ValidationError

from mexit_edge.errors import InputError, RunError, first_violation, unknown_name
from mexit_edge.estimate.device import Device, Spec, Stack, Text


class Relative(Spec):
    """A kernel library on any board with this core; None stands for all cores.

    Its figures are those of a board that nothing is known of but library and core.
    """

    core: Text | None = None
    stack: Stack


class _Relatives(Spec):
    relatives: tuple[Relative, ...]


@cache
def relatives() -> tuple[Relative, ...]:
    """Return what `benchmarks/fit_devices.py` found for every family of libraries and core."""
    file = resources.files("mexit_edge.estimate") / "relatives.toml"
    try:
        return _Relatives.model_validate(tomllib.loads(file.read_text(encoding="utf-8"))).relatives
    except ValidationError as error:
        raise RunError(f"relatives.toml must be whole. Received: {first_violation(error, 'it')}.") from error


def relative_stack(family: str, core: str) -> Stack:
    """Return what is known of a family of kernel libraries on a core, on a board never measured.

    Args:
        family: of kernel libraries.
        core: of the processor; one without data gets the figures for any core.

    Raises:
        InputError: the family is unknown.
    """
    of_family = {one.core: one.stack for one in relatives() if one.stack.family == family}
    if not of_family:
        raise unknown_name("stack", family, {one.stack.family for one in relatives()})
    return of_family.get(core, of_family[None])


def find_stack(device: Device, name: str | None, *, extrapolate: bool) -> Stack:
    """Return a stack of a device, or, if asked for, what is known of it elsewhere.

    Args:
        device: the device.
        name: of the stack or its family; the device's first one if None.
        extrapolate: take what other boards say of the family where the device has no such stack.

    Raises:
        InputError: the device has no such stack, and it was not asked to extrapolate, or nobody has it.
    """
    try:
        return device.stack(name)
    except InputError as error:
        known = {one.stack.family for one in relatives()}
        if extrapolate:
            return relative_stack(str(name), device.core)
        if name in known:
            raise InputError(
                f"`stack` must be one that {device.name} has data for: "
                f"{', '.join(stack.name for stack in device.stacks)}. Received: {name!r}. Pass "
                "`extrapolate=True` (`--extrapolate`) to take it from other boards, with a wider interval."
            ) from error
        raise
