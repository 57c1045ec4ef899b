"""The terms of the latency model, and how much of each a model asks for.

    cycles = sum over terms of cycles_per_unit[term] * amount[term]

The cycles per unit belong to a kernel library on a board, the amounts to a model. All that latency estimates
know of a model is its amounts, so that stages run one after the other add, and a mean over windows is a mean
of amounts.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mexit_edge.estimate.operation_rules import Kind
from mexit_edge.estimate.operations import OperationCost

MAC_TERMS = ("conv_kxk", "conv_1x1", "depthwise", "fully_connected")
TERMS = (*MAC_TERMS, "output", "element", "operator", "invocation")

# Kinds without published latencies take the rate of the kind whose inner loop is most like theirs.
STAND_INS: dict[Kind, str] = {
    "transpose_conv": "conv_kxk",
    "batch_matmul": "fully_connected",
    "recurrent": "fully_connected",
}

Amounts = NDArray[np.float64]


def rate_term(kind: Kind) -> str | None:
    """Return the term that prices a kind's multiply-accumulates; None for kinds without any."""
    return STAND_INS.get(kind, kind if kind in MAC_TERMS else None)


def amounts(costs: Iterable[OperationCost], *, folds_constant_channels: bool) -> Amounts:
    """Return what one invocation of a model asks for, one figure per term of `TERMS`.

    Multiply-accumulates count with their channel rounding. ``output`` counts the output elements of
    operators with multiply-accumulates (requantizing and storing), except of depthwise convolutions, which do
    all their work per output: their rate includes it. ``element`` counts the work of the other operators.
    Operators without a rule (kind ``"unknown"``) count as operators only: the caller has to price or refuse
    them.

    Args:
        costs: the model's operators.
        folds_constant_channels: count live multiply-accumulates and live outputs only, for libraries that
            fold channels whose values do not depend on the input.

    Returns:
        Of shape (8,).
    """
    total = dict.fromkeys(TERMS, 0.0)
    total["invocation"] = 1.0
    for cost in costs:
        total["operator"] += 1
        term = rate_term(cost.kind)
        if term is None:
            total["element"] += cost.work
            continue
        macs = cost.live_macs if folds_constant_channels else cost.macs
        outputs = cost.live_output_elements if folds_constant_channels else cost.output_elements
        total[term] += (macs or 0) * cost.channel_rounding
        if term != "depthwise":
            total["output"] += outputs
    return np.array([total[term] for term in TERMS])
