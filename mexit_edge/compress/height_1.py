"""Axes of tensors in the form of a network of height 1, where (time, channels) is (1, time, channels)."""

from __future__ import annotations

from typing import Any

from mexit_edge.errors import InputError


def axis_of(layer: Any, axis: int, rank: int) -> int:
    """Return an axis in the form of height 1.

    Args:
        layer: whose option it is, for the message.
        axis: as the layer has it, from either end.
        rank: of its tensors in the network, the batch included.

    Raises:
        InputError: it is the axis of the batch, along which windows would get mixed up.
    """
    positive = axis % rank
    if positive == 0:
        raise InputError(
            f"`network` must leave the axis of the batch alone. Received: axis={axis} in the layer "
            f"{layer.name!r} ({type(layer).__name__}), on tensors of rank {rank}. Give it the `axis` "
            f"{'1' if rank == 2 else f'1 to {rank - 1}'}."
        )
    return positive + 1 if rank == 3 else positive
