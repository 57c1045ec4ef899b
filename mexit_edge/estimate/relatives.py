"""What is known of a kernel library on boards where it was never measured."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import resources

from pydantic import ValidationError

from mexit_edge.errors import InputError, RunError, did_you_mean, first_violation, unknown_name
from mexit_edge.estimate.device import Device, Spec, Stack, Text

# Vendors and families that may be left out of a core's name.
_FAMILY_WORDS = re.compile(r"^(arm)?(cortex|xtensa|andescore)?")
# Every published Cortex-M4 has the floating-point unit, and int8 kernels do not use it.
_SAME_CORES = {"m4": "m4f"}


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


def known_cores(family: str | None = None) -> tuple[str, ...]:
    """Return the cores that there are figures for, sorted.

    Args:
        family: of kernel libraries; any of them if None.
    """
    families = {one.stack.family for one in relatives()} if family is None else {family}
    found = {core for known in families for core in _by_core(known)}
    return tuple(sorted(core for core in found if core is not None))


@cache
def _by_core(family: str) -> dict[str | None, Relative]:
    """Return what is known of a family, by core; of all cores under None."""
    return {one.core: one for one in relatives() if one.stack.family == family}


def find_core(name: str) -> str | None:
    """Return the known core that goes by a name; None where there is none.

    Letter case and punctuation do not count, and vendor and family may be left out: ``"m4"``, ``"M4F"`` and
    ``"cortex-m4"`` are a Cortex-M4F, ``"LX6"`` is a Xtensa LX6.
    """
    return {_core_key(known): known for known in known_cores()}.get(_core_key(name))


def _core_key(name: str) -> str:
    letters = re.sub(r"[^a-z0-9+]", "", name.casefold()).replace("plus", "+")
    short = _FAMILY_WORDS.sub("", letters)
    return _SAME_CORES.get(short, short)


def relative(family: str, core: str) -> Relative:
    """Return what is known of a family of kernel libraries on a core, on a board never measured.

    Args:
        family: of kernel libraries.
        core: of the processor, see `find_core`; one without data gets the figures for all cores.

    Raises:
        InputError: the family is unknown.
    """
    by_core = _by_core(family)
    if not by_core:
        raise unknown_name("stack", family, {one.stack.family for one in relatives()})
    return by_core.get(find_core(core), by_core[None])


def relative_stack(family: str, core: str) -> Stack:
    """Return the stack of `relative`."""
    return relative(family, core).stack


def core_warning(family: str, core: str) -> str | None:
    """Say that figures are those of all cores; None where they are those of the core.

    Raises:
        InputError: the family is unknown.
    """
    if relative(family, core).core is not None:
        return None
    known = known_cores(family)
    return (
        f"No published figures for core {core!r} with {family}: those of all cores are taken. "
        f"Known cores: {', '.join(known)}.{'' if find_core(core) else did_you_mean(core, known)}"
    )


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
