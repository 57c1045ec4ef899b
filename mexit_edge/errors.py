"""The errors a user can cause or meet, and the one shape of their messages.

What must hold, with the argument in backticks; then ``Received:``; then the way out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


class InputError(ValueError):
    """The caller's input is wrong; nothing was written. The command line exits with code 2."""


class RunError(RuntimeError):
    """The input was right and the work failed all the same. The command line exits with code 1."""


class MissingExtraError(InputError):
    """An optional part of the package is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        """Say which extra to install.

        Args:
            what: what is missing, as the subject of a sentence.
            extra: name of the extra that brings it.
        """
        super().__init__(f"{what} is not installed. Install it with: pip install 'mexit-edge[{extra}]'")
        self.extra = extra


def unknown_name(argument: str, received: object, known: Iterable[str]) -> InputError:
    """Make the error for a name that is not in a list of names.

    Args:
        argument: the argument that carried the name.
        received: what came.
        known: the names there are.

    Returns:
        An error that lists the known names and suggests the nearest.
    """
    names = sorted(known)
    suggestion = did_you_mean(received, names)
    return InputError(f"`{argument}` must be one of: {', '.join(names)}. Received: {received!r}.{suggestion}")


def did_you_mean(received: object, known: Sequence[str]) -> str:
    """Return the sentence that suggests the nearest of known names, a space before it; empty without one."""
    near = _nearest(received, known)
    return f" Did you mean {near!r}?" if near else ""


def _nearest(received: object, known: Sequence[str]) -> str | None:
    return next(iter(get_close_matches(str(received), known, n=1, cutoff=0.5)), None)


def in_digits(value: float) -> str:
    """Return a number with three digits, or all of a whole number, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def first_violation(error: ValidationError, whole: str, schema: type[BaseModel] | None = None) -> str:
    """Return where data first violates its schema and how, for the middle of a message.

    Args:
        error: of pydantic.
        whole: what the data is called where the violation has no place in it.
        schema: of the data. With it, a key that the schema does not know goes before all else, with the
            nearest one it knows: where a key is misspelt, it is what is wrong, and not that one is missing.
    """
    violations = error.errors(include_url=False)
    unknown = [one for one in violations if one["type"] == "extra_forbidden"]
    first = unknown[0] if schema is not None and unknown else violations[0]
    place = first["loc"]
    hint = ""
    if schema is not None and unknown:
        known = _keys(schema, place[:-1])
        near = _nearest(place[-1], known)
        hint = f" (did you mean {near!r}?)" if near else f" (known there: {', '.join(known)})"
    # Pydantic's own words before a sentence of ours.
    said = first["msg"].removeprefix("Value error, ")
    return f"at {'.'.join(map(str, place)) or whole}: {said}{hint}"


def _keys(schema: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Return the keys that a schema knows at a place."""
    for step in place:
        if isinstance(step, str):
            schema = _schema_in(schema.model_fields[step].annotation) or schema
    return list(schema.model_fields)


def _schema_in(annotation: Any) -> Any:
    """Return the schema in a type such as `tuple[Stack, ...]` or `Figure | None`; None without one."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next(filter(None, map(_schema_in, get_args(annotation))), None)
