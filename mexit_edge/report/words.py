"""Numbers as the page prints them. Unknown is said to be unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mexit_edge.estimate import Estimate

UNKNOWN = "unknown"
NOT_APPLICABLE = "–"
NBSP = "\N{NO-BREAK SPACE}"


def count(value: int | None) -> str:
    """Return a whole number with thousands separated."""
    return UNKNOWN if value is None else f"{value:,}"


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as percent; the sign never stands alone on a line."""
    return UNKNOWN if share is None or not isfinite(share) else f"{100 * share:.{digits}f}{NBSP}%"


def signed_points(share: float) -> str:
    """Return a difference of shares in percentage points with its sign."""
    text = points(share)
    return text if text.startswith("-") or float(text) == 0 else f"+{text}"


def points(share: float, digits: int = 2) -> str:
    """Return a difference of shares in percentage points, without a unit and never as -0.00."""
    text = f"{100 * share:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def macs(value: float | None) -> str:
    """Return a number of multiply-accumulates in a readable unit."""
    if value is None:
        return UNKNOWN
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:,.2f}{NBSP}{unit}"
    return f"{value:,.0f}"


def quantity(value: float | None) -> str:
    """Return a number with about three significant digits."""
    if value is None or not isfinite(value):
        return UNKNOWN
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def interval(low: float, high: float) -> str:
    """Return an interval in square brackets."""
    return f"[{quantity(low)},{NBSP}{quantity(high)}]"


def estimated(estimate: Estimate | None) -> str:
    """Return an estimate with its interval."""
    if estimate is None:
        return UNKNOWN
    return f"{quantity(estimate.value)} {interval(estimate.low, estimate.high)}"


def numbers(values: Iterable[int]) -> str:
    """Return distinct whole numbers in order, runs of three or more as a range: ``1, 2, 5-9``."""
    runs: list[list[int]] = []
    for value in sorted({int(value) for value in values}):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def subjects(values: Iterable[int]) -> str:
    """Return ``subject 3`` or ``subjects 1, 2, 5-9``."""
    distinct = {int(value) for value in values}
    if not distinct:
        return "no subjects"
    return f"subject{'s' if len(distinct) > 1 else ''} {numbers(distinct)}"


def setting(value: object) -> str:
    """Return a setting's value as text; None is a setting that was left open."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {setting(part)}" for key, part in value.items()) or "none"
    if isinstance(value, list | tuple | set | frozenset):
        parts = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return ", ".join(map(setting, parts)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
