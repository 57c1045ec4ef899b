"""What every analysis is given: a trained network, and windows as that network takes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.models.heads import exit_names
from mexit_edge.regimes import MultiExitModel
from mexit_edge.regimes.checks import check_arrays
from mexit_edge.signals import Normalisation, Windows
from mexit_edge.signals.windows import refuse_unlabelled


@dataclass(frozen=True, eq=False)
class Shown:
    """A network with windows as it takes them.

    Args:
        network: functional, with a dict of outputs exit_01, ...
        exits: their names.
        x: (n, time, channels) float32, normalised.
        y: (n,) class indices.
        subject: (n,).
    """

    network: keras.Model
    exits: tuple[str, ...]
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    subject: NDArray[np.int64]

    @property
    def n_classes(self) -> int:
        """Number of logits per exit."""
        return int(self.network.output[self.exits[0]].shape[-1])


def shown(model: keras.Model, windows: Windows, argument: str = "windows") -> Shown:
    """Return a network with its windows, checked against each other.

    Args:
        model: a `MultiExitModel`, whose normalisation is applied, or a functional network with outputs
            exit_01, ..., which takes windows as they are.
        windows: labelled.
        argument: that carried them, for messages.

    Raises:
        InputError: the network has no such exits, several inputs or weights that are not finite, or the
            windows are none, unlabelled, or do not fit it.
    """
    network = network_of(model)
    exits = exit_names(network, "model")
    if len(network.inputs) != 1:
        names = ", ".join(tensor.name for tensor in network.inputs)
        raise InputError(
            f"`model` must have one input, the window. Received: {len(network.inputs)} ({names}). "
            "Join them with `mexit_edge.models.join_inputs`."
        )
    require_finite(network, "model")
    if not len(windows):
        raise InputError(f"`{argument}` must hold at least one window. Received: none.")
    refuse_unlabelled(windows, argument)
    n_classes = int(network.output[exits[0]].shape[-1])
    x, y = check_arrays(windows.x, windows.y, network, n_classes, f" of `{argument}`")
    normalisation = normalisation_of(model)
    if normalisation is not None:
        x = normalisation.apply(x)
    return Shown(network, exits, x, y, windows.subject)


def network_of(model: keras.Model) -> keras.Model:
    """Return the functional network of a `MultiExitModel`, or the network itself."""
    return model.network if isinstance(model, MultiExitModel) else model


def require_finite(network: keras.Model, argument: str) -> None:
    """Refuse a network some weights of which are not finite, such as those of a training that diverged.

    Raises:
        InputError: says which weight.
    """
    for weight in network.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise InputError(
                f"`{argument}` must have finite weights. Received: NaN or infinity in {weight.path}. "
                "Take a checkpoint from before the training diverged."
            )


def normalisation_of(model: keras.Model) -> Normalisation | None:
    """Return what a `MultiExitModel` applies to windows; None where they are taken as they are."""
    return model.normalisation if isinstance(model, MultiExitModel) else None


def exit_weights_of(model: keras.Model) -> NDArray[np.float64]:
    """Return the weights (E,) of the exits' losses in a phase of the regime that trains all exits.

    So the pull of each exit is compared on one footing in every network, also in one saved during a phase
    that trains some exits only. Weights that change along the training are those where it stands. Of a
    functional network, which knows no regime, the uniform ones: 1 / E.
    """
    n_exits = len(exit_names(network_of(model), "model"))
    if not isinstance(model, MultiExitModel):
        return np.full(n_exits, 1 / n_exits)
    every = tuple(range(1, n_exits + 1))
    outputs = replace(model.exit_outputs(None, None, None), exits=every, weighted=True)
    return np.asarray(keras.ops.convert_to_numpy(model.regime.present_weights(outputs)), np.float64)


def sampled(windows: Windows, n: int | None, seed: int) -> Windows:
    """Return at most ``n`` windows drawn at random without repetition, in their order; None for all.

    Raises:
        InputError: fewer than one is wanted.
    """
    if n is not None:
        require_whole("n_windows", n, 1)
    if n is None or n >= len(windows):
        return windows
    return windows.take(np.sort(np.random.default_rng(seed).permutation(len(windows))[:n]))


def require_whole(argument: str, value: Any, least: int) -> None:
    """Refuse what is no whole number of at least so much.

    Raises:
        InputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"`{argument}` must be a whole number of at least {least}. Received: {value!r}.")


def or_none(value: float) -> float | None:
    """Return a number for a row of a table, None in place of NaN and infinity: there is none."""
    return float(value) if np.isfinite(value) else None
