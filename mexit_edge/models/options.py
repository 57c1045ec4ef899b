"""Checks of the sizes that backbones are built of, before Keras sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from numbers import Integral, Real
from typing import Any

from mexit_edge.errors import InputError

Check = Callable[[Any], bool]


def check_n_classes(n_classes: Any) -> None:
    """Refuse what is no number of classes.

    Raises:
        InputError: it is no whole number, or less than 2.
    """
    if not _is_positive_whole(n_classes) or n_classes < 2:
        raise InputError(f"`n_classes` must be at least 2, a whole number. Received: {n_classes!r}.")


def check_options(backbone: str, options: dict[str, Any]) -> None:
    """Refuse sizes that are none.

    Args:
        backbone: a key of `BACKBONES`.
        options: of that backbone, by name.

    Raises:
        InputError: an option is no number of its kind, or a block is empty.
    """
    for name, value in options.items():
        check, rule = _RULES_OF.get(backbone, {}).get(name) or _RULES.get(name, (_is_anything, ""))
        if not check(value):
            raise InputError(f"`{name}` must be {rule}. Received: {value!r}.")


def _is_anything(value: Any) -> bool:
    return True


def _is_positive_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0


def _is_positive(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < inf


def _is_share(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < 1


def _is_convolution(value: Any) -> bool:
    return _is_sequence(value, _is_positive_whole) and len(value) == 3


def _is_image_convolution(value: Any) -> bool:
    if not _is_sequence(value, _is_anything) or len(value) != 3:
        return False
    channels, kernel, stride = value
    both = _is_sequence(kernel, _is_positive_whole) and len(kernel) == 2
    return both and _is_positive_whole(channels) and _is_positive_whole(stride)


def _is_sequence(value: Any, check: Check) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(map(check, value))


def _is_filled(check: Check) -> Check:
    return lambda value: _is_sequence(value, check) and len(value) > 0


def _are_blocks(check: Check) -> Check:
    """Return a check of blocks: at least one, each with something in it."""
    return _is_filled(_is_filled(check))


_WHOLE = (_is_positive_whole, "a positive whole number")
_CONVOLUTIONS = "whole numbers (channels, kernel, stride), all positive"
_RULES: dict[str, tuple[Check, str]] = {
    "blocks": (_are_blocks(_is_convolution), f"one or more blocks of one or more {_CONVOLUTIONS}"),
    "dropout": (_is_share, "a rate from 0 on and below 1"),
    "growth": _WHOLE,
    "kernel": _WHOLE,
    "scales": _WHOLE,
    "stem": (_is_convolution, _CONVOLUTIONS),
    "width": (_is_positive, "a positive and finite number"),
}
# Backbones whose options of these names are made otherwise.
_RULES_OF: dict[str, dict[str, tuple[Check, str]]] = {
    "dscnn2d": {
        "stem": (
            _is_image_convolution,
            "whole numbers (channels, (kernel over frames, kernel over bins), stride), all positive",
        )
    },
    "msdnet": {"blocks": (_is_filled(_is_positive_whole), "one or more positive whole numbers of layers")},
    "tcn": {
        "blocks": (
            _are_blocks(_is_positive_whole),
            "one or more blocks of one or more positive numbers of channels",
        )
    },
}
