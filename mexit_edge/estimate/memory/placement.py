"""Where buffers lie in one block of memory: lowest free place first, and the best order of a few."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

ALIGNMENT = 16  # bytes; what TFLM asks of an arena and of every tensor in it
EXHAUSTIVE = 7  # so many buffers are tried in all orders: 5,040 at most


class Span(NamedTuple):
    """A buffer and when it is in use.

    Args:
        bytes: its size.
        first: step at which its use begins.
        last: last step of its use.
    """

    bytes: int
    first: int
    last: int

    def meets(self, other: Span) -> bool:
        """Tell whether both are in use at some step, so that they must not overlap."""
        return self.first <= other.last and other.first <= self.last


def aligned(size: int) -> int:
    """Return the next multiple of 16."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def first_fit(spans: Sequence[Span]) -> list[int]:
    """Place buffers one after the other, each at the lowest aligned offset that is free while it is in use.

    Args:
        spans: in the order in which they are to be placed.

    Returns:
        One offset per span, a multiple of 16.
    """
    placed: list[tuple[int, Span]] = []
    offsets = []
    for span in spans:
        offsets.append(_lowest(span, placed))
        insort(placed, (offsets[-1], span))
    return offsets


def tight_fit(spans: Sequence[Span]) -> list[int]:
    """Place buffers in few bytes: of up to seven in as few as any plan can, of more the larger ones first.

    A smallest plan comes out of `first_fit` if its buffers are placed in the order of their offsets: none
    then lies higher than there. So all orders of a few buffers hold a smallest plan among them.

    Args:
        spans: in any order.

    Returns:
        One offset per span, a multiple of 16.
    """
    by_size = sorted(range(len(spans)), key=lambda index: -spans[index].bytes)
    offsets = dict(zip(by_size, first_fit([spans[index] for index in by_size]), strict=True))
    if len(spans) <= EXHAUSTIVE:
        limit = max((offset + spans[index].bytes for index, offset in offsets.items()), default=0)
        offsets = _smaller(spans, {}, limit) or offsets
    return [offsets[index] for index in range(len(spans))]


def most_in_use(spans: Sequence[Span]) -> int:
    """Return the most bytes in use at one step, below which no plan can be."""
    # A buffer is still in use at its last step: what begins there comes before what ends.
    begins = [(one.first, 0, one.bytes) for one in spans]
    ends = [(one.last, 1, -one.bytes) for one in spans]
    return max(accumulate(size for _, _, size in sorted(begins + ends)), default=0)


def _lowest(span: Span, placed: Sequence[tuple[int, Span]]) -> int:
    """Return the lowest free offset; those placed are sorted by theirs."""
    offset = 0
    for start, other in placed:
        if not other.meets(span):
            continue
        if offset + span.bytes <= start:
            break
        offset = max(offset, aligned(start + other.bytes))
    return offset


def _smaller(spans: Sequence[Span], offsets: dict[int, int], limit: int) -> dict[int, int] | None:
    """Return the smallest completion of a plan that ends below a limit, or None."""
    if len(offsets) == len(spans):
        return offsets
    best = None
    for index in set(range(len(spans))) - set(offsets):
        offset = _lowest(spans[index], sorted((start, spans[other]) for other, start in offsets.items()))
        if offset + spans[index].bytes >= limit:
            continue
        found = _smaller(spans, offsets | {index: offset}, limit)
        if found is not None:
            best, limit = found, max(start + spans[other].bytes for other, start in found.items())
    return best
