"""How much the loss of each exit counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from mexit_edge.errors import InputError, unknown_name

UNIFORM, LINEAR, SDN, INVERSE_RUNNING_LOSS = "uniform", "linear", "sdn", "inverse_running_loss"
SCHEMES = (UNIFORM, LINEAR, SDN, INVERSE_RUNNING_LOSS)
ExitWeights = str | tuple[float, ...]

# Kaya et al., "Shallow-Deep Networks", arXiv 1810.07052: final coefficients of the internal classifiers, and
# where all of them begin. The paper places six; here they are spread evenly over the early exits.
SDN_FIRST, SDN_LAST, SDN_START = 0.15, 0.9, 0.01


def checked_exit_weights(weights: str | Sequence[float]) -> ExitWeights:
    """Return a scheme's name, or weights as a tuple.

    Raises:
        InputError: no such scheme, a weight is negative or not finite, or all are zero.
    """
    if isinstance(weights, str):
        if weights not in SCHEMES:
            raise unknown_name("exit_weights", weights, SCHEMES)
        return weights
    # A list, as a .keras file gives it back, would make the regime unequal to the one saved.
    values = tuple(float(weight) for weight in weights)
    if not all(0 <= value < np.inf for value in values) or not sum(values):
        raise InputError(
            f"`exit_weights` must be finite, >= 0, with a positive sum. Received: {list(values)}."
        )
    return values


def check_number(weights: ExitWeights, n_exits: int) -> None:
    """Refuse fixed weights that are not one per exit.

    Raises:
        InputError: says how many there must be.
    """
    if not isinstance(weights, str) and len(weights) != n_exits:
        raise InputError(f"`exit_weights` needs one value per exit ({n_exits}). Received: {list(weights)}.")


def exit_weights_at(weights: ExitWeights, n_exits: int, progress: Any, running_losses: Any) -> Any:
    """Return the weights of all exits at a moment of the training, (E,).

    Args:
        weights: a scheme or E fixed weights, which are divided by their sum. ``uniform``: 1 / E. ``linear``:
            e / sum e (PABEE, arXiv 2006.04152). ``sdn``: min(tau_e, 0.01 + t tau_e / T) for the early exits
            with tau from .15 to .9, and 1 for the final one. ``inverse_running_loss``: inversely
            proportional to the running mean of each exit's loss, sum 1 (AdaLoss, arXiv 1708.06832).
        n_exits: number of exits E.
        progress: share t / T of the training that is done, a scalar.
        running_losses: running mean of each exit's loss, (E,).
    """
    ops = keras.ops
    if not isinstance(weights, str):
        return ops.convert_to_tensor([weight / sum(weights) for weight in weights])
    if weights == LINEAR:
        total = n_exits * (n_exits + 1) / 2
        return ops.convert_to_tensor([number / total for number in range(1, n_exits + 1)])
    if weights == SDN:
        tau = ops.convert_to_tensor([*np.linspace(SDN_FIRST, SDN_LAST, n_exits - 1).tolist(), 1.0])
        early = ops.minimum(tau, SDN_START + ops.cast(progress, tau.dtype) * tau)
        final = ops.convert_to_tensor([0.0] * (n_exits - 1) + [1.0])
        return ops.where(final > 0, final, early)
    if weights == INVERSE_RUNNING_LOSS:
        inverse = 1 / ops.maximum(running_losses, keras.config.epsilon())
        return inverse / ops.sum(inverse)
    return ops.convert_to_tensor([1 / n_exits] * n_exits)
