"""Which exit answers for which window of a batch, as a budgeted exit policy would hand them out."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, isfinite
from typing import Any

import tensorflow as tf

from mexit_edge.errors import InputError

# Shares come out of floating point: 49 windows times a share of 1/49 is .9999999999999999, and means 1.
_ROUNDING = 1e-9


def exit_shares(n_exits: int, p: float) -> tuple[float, ...]:
    """Return the share of windows that leaves at each exit: q_e = p^e / sum_j p^j, e = 1..E.

    Args:
        n_exits: E.
        p: how the shares go on from exit to exit; below 1 most windows leave early, above 1 late.

    Returns:
        E shares that sum to 1.

    Raises:
        InputError: no exit, or ``p`` is not a finite number above 0.

    Reference:
        Huang et al., "Multi-Scale Dense Networks for Resource Efficient Image Classification", arXiv
        1703.09844 (budgeted batch classification).
    """
    if n_exits < 1:
        raise InputError(f"`n_exits` must be at least 1. Received: {n_exits}.")
    if not (isfinite(p) and p > 0):
        raise InputError(f"`p` must be a finite number above 0. Received: {p}. The default is 0.75.")
    # Relative to the largest power, so that none overflows.
    last = 0 if p <= 1 else n_exits - 1
    powers = [float(p) ** (index - last) for index in range(n_exits)]
    return tuple(power / sum(powers) for power in powers)


def exit_counts(n: int, n_exits: int, p: float) -> tuple[int, ...]:
    """Return how many of ``n`` windows each exit gets: floor(n q_e), and the rest for the last.

    Args:
        n: number of windows.
        n_exits: E.
        p: see `exit_shares`.

    Raises:
        InputError: a negative number of windows, or see `exit_shares`.
    """
    if n < 0:
        raise InputError(f"`n` must be at least 0. Received: {n}.")
    early = [floor(n * share + _ROUNDING) for share in exit_shares(n_exits, p)[:-1]]
    return (*early, n - sum(early))


def exit_counts_of_batch(n: Any, n_exits: int, p: float) -> Any:
    """Return `exit_counts` for a number of windows that is known only when the graph runs.

    Args:
        n: integer tensor, scalar.
        n_exits: E.
        p: see `exit_shares`.

    Returns:
        int32 tensor (E,).

    Raises:
        InputError: see `exit_shares`.
    """
    shares = tf.constant(exit_shares(n_exits, p)[:-1], tf.float64)
    early = tf.cast(tf.floor(tf.cast(n, tf.float64) * shares + _ROUNDING), tf.int32)
    return tf.concat([early, [tf.cast(n, tf.int32) - tf.reduce_sum(early)]], axis=0)


def smallest_batch(n_exits: int, p: float) -> int:
    """Return the smallest number of windows whose every exit is due at least one: floor(n q_e) >= 1.

    Any larger number does as well. A regime that splits its batch in halves needs twice as many.

    Args:
        n_exits: E.
        p: see `exit_shares`.

    Raises:
        InputError: a share is too small to be told from zero, or see `exit_shares`.
    """
    smallest = min(exit_shares(n_exits, p))
    if smallest <= _ROUNDING:
        raise InputError(
            f"`p` must leave each of {n_exits} exits a share of windows. Received: {p}, whose smallest share "
            f"is {smallest:.3g}. Take a value nearer to 1."
        )
    return ceil((1 - _ROUNDING) / smallest)


def assign_exits(confidence: Any, counts: Sequence[int] | Any) -> Any:
    """Hand windows out: each exit takes its most confident ones among those not yet taken.

    Args:
        confidence: real tensor (n, E), finite: maximum probability of each exit on each window.
        counts: E numbers of windows that sum to n (`exit_counts`), or an integer tensor (E,). The last
            exit takes the rest whatever its number says.

    Returns:
        Tensor (n, E) of the confidence's type: 1 where the exit answers for the window, else 0. Each row
        sums to 1. Of equally confident windows the first ones go first. No gradient flows through it.

    Reference:
        "Learning to Weight Samples for Dynamic Early-exiting Networks", arXiv 2209.08310.
    """
    confidence = tf.stop_gradient(tf.convert_to_tensor(confidence))
    n = tf.shape(confidence)[0]
    free = tf.ones([n], confidence.dtype)
    columns = []
    for number in range(confidence.shape[1] - 1):
        # The pool must really shrink; if it did not, the last exit would answer for most of the batch.
        pool = tf.where(free > 0, confidence[:, number], confidence.dtype.as_numpy_dtype(float("-inf")))
        # top_k puts the lower index first among equals, as its documentation promises.
        chosen = tf.math.top_k(pool, counts[number], sorted=True).indices
        taken = tf.scatter_nd(chosen[:, None], tf.ones_like(chosen, confidence.dtype), [n])
        columns.append(taken)
        free = free - taken
    return tf.stack([*columns, free], axis=1)
