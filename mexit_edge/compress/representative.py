"""The windows on which the ranges of activations are observed before quantization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mexit_edge.errors import InputError
from mexit_edge.signals import Windows
from mexit_edge.signals.windows import as_array, refuse_non_finite

N_REPRESENTATIVE = 300

# One array, or one per input: in the order of the inputs, or by name.
Representative = ArrayLike | tuple[ArrayLike, ...] | Mapping[str, ArrayLike]


def representative_sample(windows: Windows, n: int = N_REPRESENTATIVE, seed: int = 0) -> Windows:
    """Choose windows on which the ranges of activations are observed: the same number of every class.

    Unlabelled windows are chosen, at random, only for what labelled ones leave of ``n``.

    Args:
        windows: of training subjects, labelled or not.
        n: number of windows in all, at most.
        seed: of the choice.

    Raises:
        InputError: there is no window, ``n`` is less than one per class, or all chosen windows are of one
            class of several.
    """
    if not len(windows):
        raise InputError("`representative` must hold at least one window. Received: none.")
    rng = np.random.default_rng(seed)
    present = np.unique(windows.y[windows.labelled])
    if not isinstance(n, int) or n < max(1, len(present)):
        raise InputError(
            f"`n` must be a whole number, at least one window per class ({len(present)}). Received: {n}."
        )
    per_class = n // max(1, len(present))
    chosen = [rng.permutation(np.flatnonzero(windows.y == label))[:per_class] for label in present]
    rest = max(0, n - sum(map(len, chosen)))
    chosen.append(rng.permutation(np.flatnonzero(~windows.labelled))[:rest])
    sample = windows.take(np.sort(np.concatenate(chosen)))
    if windows.n_classes > 1 and len(present) == 1 and sample.labelled.all():
        raise InputError(
            "`representative` must hold windows of every class: the ranges of one class alone clip the "
            f"others. Received: {len(sample)} windows, all of {windows.classes[present[0]]!r}."
        )
    return sample


def representative_arrays(network: keras.Model, representative: Representative) -> dict[str, NDArray[Any]]:
    """Return representative windows as one float32 array (n, ...) per input of a network, by name.

    Args:
        network: a functional model.
        representative: an array for a network with one input; a tuple in the order of the inputs, or arrays
            by input name, for one with several.

    Raises:
        InputError: an input is missing or unknown, the arrays differ in length or do not have the shapes of
            the inputs, there is no window, or a sample is not finite.
    """
    shapes = {tensor.name: tuple(tensor.shape[1:]) for tensor in network.inputs}
    given = _by_name(list(shapes), representative)
    arrays = {}
    for name, shape in shapes.items():
        argument = "representative" if len(shapes) == 1 else f"representative[{name!r}]"
        values = as_array(given[name], argument)
        if values.dtype.kind not in "iuf" or values.shape[1:] != shape:
            raise InputError(
                f"`{argument}` must hold windows of the network's shape {shape}. "
                f"Received: {values.shape[1:]}, {values.dtype}."
            )
        if not len(values):
            raise InputError(f"`{argument}` must hold at least one window. Received: none.")
        arrays[name] = values.astype(np.float32)
        refuse_non_finite(arrays[name], f"`{argument}`")
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise InputError(f"`representative` must hold as many windows for every input. Received: {lengths}.")
    return arrays


def _by_name(names: list[str], representative: Representative) -> dict[str, ArrayLike]:
    """Return what was given for each input."""
    if isinstance(representative, Mapping):
        if set(representative) != set(names):
            raise InputError(
                f"`representative` needs an array per input ({', '.join(names)}). "
                f"Received: {', '.join(map(str, representative)) or 'none'}."
            )
        return dict(representative)
    if len(names) == 1 and not isinstance(representative, tuple):
        return {names[0]: representative}
    given = representative if isinstance(representative, tuple) else (representative,)
    if len(given) != len(names):
        raise InputError(
            f"`representative` needs an array per input ({len(names)}: {', '.join(names)}). "
            f"Received: {len(given)}. Give a tuple in this order, or arrays by name."
        )
    return dict(zip(names, given, strict=True))
