"""What the library says of its arguments, in the words of the command line."""

from __future__ import annotations

from collections.abc import Mapping


def with_option_names(text: str, options: Mapping[str, str]) -> str:
    """Return a message in which arguments in backticks have the names of their options.

    Args:
        text: of the library.
        options: what stands in the backticks -> what is to stand there.
    """
    for argument, option in options.items():
        text = text.replace(f"`{argument}`", f"`{option}`")
    return text
