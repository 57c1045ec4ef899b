"""The errors a user can cause or meet, and the one shape of their messages.

What must hold, with the argument in backticks; then ``Received:``; then the way out.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


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
    near = get_close_matches(str(received), names, n=1, cutoff=0.5)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(f"`{argument}` must be one of: {', '.join(names)}. Received: {received!r}.{suggestion}")


def first_violation(error: ValidationError, whole: str) -> str:
    """Return where data first violates its schema and how, for the middle of a message.

    Args:
        error: of pydantic.
        whole: what the data is called where the violation has no place in it.
    """
    first = error.errors(include_url=False)[0]
    return f"at {'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"
