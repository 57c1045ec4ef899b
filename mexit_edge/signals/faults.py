"""Faults on request, by name or as text: what happens to a sensor in the field, done to a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, get_type_hints

from mexit_edge.errors import InputError, unknown_name
from mexit_edge.signals.fault import FAULTS, Fault
from mexit_edge.signals.faults_of_arrival import ClockDrift, Dropped, Late
from mexit_edge.signals.faults_of_values import NotANumber, Saturated, Stuck, WrongAxis
from mexit_edge.signals.stream import Stream

__all__ = [
    "FAULTS",
    "ClockDrift",
    "Dropped",
    "Fault",
    "Late",
    "NotANumber",
    "Saturated",
    "Stuck",
    "WrongAxis",
    "apply_faults",
    "make_fault",
    "parse_fault",
]

_SUFFIXES = {"%": 1e-2, "ppm": 1e-6}


def make_fault(name: str, **options: Any) -> Fault:
    """Make a fault by name.

    Args:
        name: a key of `FAULTS`.
        options: fields of the fault.

    Raises:
        InputError: no such fault or option, or a value that does not fit.

    Example:
        >>> make_fault("dropped", share=0.02)
        Dropped(share=0.02, burst=1, seed=0)
    """
    hints = _options(name)
    for option, value in options.items():
        if option not in hints:
            raise unknown_name(f"fault {name}", option, hints)
        _refuse_type(option, value, hints[option])
    main = next(iter(hints))
    if main not in options:
        raise InputError(f"`{main}` of {name} must be given. Received: none. See `{name}={main.upper()}`.")
    return FAULTS[name](**options)


def parse_fault(text: str, seed: int = 0) -> Fault:
    """Make a fault of text: its name, "=" and its first field; further fields as ",name=value".

    Args:
        text: for example "dropped=0.02", "dropped=2%,burst=5", "late=0.05,delay_ms=200",
            "stuck=acc_x,from_s=10,for_s=5", "saturated=4,limit=2", "wrong_axis=acc,flip=z" or
            "clock_drift=200ppm".
        seed: of faults that draw, where the text names none.

    Raises:
        InputError: no such fault or option, or a value that does not fit.
    """
    first, *others = (part.strip() for part in text.split(","))
    name, equals, value = (part.strip() for part in first.partition("="))
    hints = _options(name)
    main = next(iter(hints))
    if not (equals and value):
        raise InputError(
            f"`fault` {name} must be given with its {main}. Received: {text!r}. "
            f"Use `{name}={main.upper()}`; further options are {', '.join(list(hints)[1:]) or 'none'}."
        )
    options: dict[str, Any] = {main: _value(main, value, hints[main])}
    for other in others:
        option, equals, value = (part.strip() for part in other.partition("="))
        if option not in hints:
            raise unknown_name(f"fault {name}", option, hints)
        if option in options or not value:
            raise InputError(f"`{option}` must be given once, with a value. Received: {text!r}.")
        options[option] = _value(option, value, hints[option])
    if "seed" in hints:
        options.setdefault("seed", seed)
    return make_fault(name, **options)


def apply_faults(stream: Stream, faults: Iterable[Fault]) -> Stream:
    """Apply faults one after the other; of several of one name, each hits samples of its own."""
    places: Counter[str] = Counter()
    for fault in faults:
        stream = fault(stream, places[fault.name])
        places[fault.name] += 1
    return stream


def _options(name: str) -> dict[str, Any]:
    """Return field -> type of a fault, in order."""
    if name not in FAULTS:
        raise unknown_name("fault", name, FAULTS)
    hints = get_type_hints(FAULTS[name])
    return {field.name: hints[field.name] for field in fields(FAULTS[name])}


def _refuse_type(option: str, value: object, hint: Any) -> None:
    # A whole number is a number too, a truth value is not.
    wanted = hint | int if hint in (float, float | None) else hint
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise InputError(f"`{option}` must be {_kind(hint)}. Received: {value!r}.")


def _value(option: str, text: str, hint: Any) -> Any:
    """Return what the text of an option says."""
    if not _is_number(hint):
        return text
    suffix = next((suffix for suffix in _SUFFIXES if text.endswith(suffix)), "")
    try:
        if hint is int:
            return int(text)
        number = float(text.removesuffix(suffix))
    except ValueError as error:
        raise InputError(f"`{option}` must be {_kind(hint)}. Received: {text!r}.") from error
    return number * _SUFFIXES.get(suffix, 1.0)


def _is_number(hint: Any) -> bool:
    return hint in (int, float, float | None)


def _kind(hint: Any) -> str:
    if hint is int:
        return "a whole number"
    return "a number, in figures or with % or ppm" if _is_number(hint) else "text"
