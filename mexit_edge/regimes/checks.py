"""What `MultiExitModel.fit` takes: whatever does not fit is refused by the argument's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.signals.windows import as_array, refuse_non_finite


def check_arrays(
    x: Any, y: Any, shape: Sequence[int], n_classes: int, part: str = ""
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return samples and labels as arrays that fit the network.

    Args:
        x: (n, ...), as the network takes it.
        y: (n,) class indices.
        shape: of one window.
        n_classes: number of classes.
        part: where both came from, for messages, as in " of `validation_data`".

    Raises:
        InputError: they do not fit, or a sample is not finite.
    """
    samples, labels = as_array(x, "x"), as_array(y, "y")
    if samples.dtype.kind not in "iuf" or samples.shape[1:] != tuple(shape):
        raise InputError(
            f"`x`{part} must be real numbers of shape (n, {', '.join(map(str, shape))}). "
            f"Received: {samples.dtype} of shape {samples.shape}."
        )
    refuse_non_finite(samples, f"`x`{part}")
    if labels.shape != samples.shape[:1] or labels.dtype.kind not in "iu":
        raise InputError(
            f"`y`{part} must be integers of shape ({len(samples)},). "
            f"Received: {labels.dtype} of shape {labels.shape}."
        )
    if not len(labels) or labels.min() < 0 or labels.max() >= n_classes:
        got = f"values from {labels.min()} to {labels.max()}" if len(labels) else "none"
        raise InputError(f"`y`{part} must hold class indices from 0 to {n_classes - 1}. Received: {got}.")
    return samples, labels


def refuse_absent_class(y: NDArray[Any], n_classes: int, names: Sequence[str] = ()) -> None:
    """Refuse training labels without one of the network's classes.

    Args:
        y: (n,) class indices.
        n_classes: logits per exit of the network.
        names: name per class, as far as known.

    Raises:
        InputError: names the absent classes.
    """
    absent = np.flatnonzero(np.bincount(y, minlength=n_classes) == 0)
    if len(absent):
        named = [names[index] if index < len(names) else f"class {index}" for index in absent.tolist()]
        raise InputError(
            f"`x` must hold windows of every class. Received: none of {', '.join(named)}. "
            "Take other training subjects, or leave the class out."
        )


def check_class_weight(class_weight: Mapping[int, float] | None, n_classes: int) -> None:
    """Refuse weights of classes that there are not.

    Raises:
        InputError: a key is no class index, or a weight is negative or not finite.
    """
    weights = class_weight or {}
    if not set(weights) <= set(range(n_classes)) or not all(0 <= w < np.inf for w in weights.values()):
        raise InputError(
            f"`class_weight` must map class indices from 0 to {n_classes - 1} to finite weights >= 0. "
            f"Received: {class_weight}."
        )


def window_weights(
    y: NDArray[Any],
    n_classes: int,
    class_weight: Mapping[int, float] | None,
    sample_weight: Any,
    argument: str = "sample_weight",
) -> NDArray[np.float32] | None:
    """Return the weight of each window, or None where all count alike.

    Args:
        y: (n,) class indices.
        n_classes: number of classes.
        class_weight: class index -> weight; 1 for classes it does not name.
        sample_weight: (n,) weights, multiplied with those of the classes, or None.
        argument: name of the latter, for messages.

    Raises:
        InputError: there is not one finite weight >= 0 per window.
    """
    if class_weight is None and sample_weight is None:
        return None
    weights = np.asarray([(class_weight or {}).get(index, 1.0) for index in range(n_classes)])[y]
    if sample_weight is not None:
        given = as_array(sample_weight, argument)
        if given.shape != y.shape or given.dtype.kind not in "iuf":
            raise InputError(
                f"`{argument}` needs one real number per window, shape ({len(y)},). "
                f"Received: {given.dtype} of shape {given.shape}."
            )
        if not (np.isfinite(given) & (given >= 0)).all():
            raise InputError(
                f"`{argument}` must hold finite weights >= 0. "
                f"Received: values from {given.min()} to {given.max()}."
            )
        weights = weights * given
    return weights.astype(np.float32)


def refuse_given(reason: str, **arguments: Any) -> None:
    """Refuse arguments that have no meaning with this kind of data.

    Args:
        reason: what makes them meaningless, and the way out.
        **arguments: name -> what came, None for nothing.

    Raises:
        InputError: names the first that was given.
    """
    for argument, value in arguments.items():
        if value is not None:
            raise InputError(f"`{argument}` must be left out: {reason}. Received: {type(value).__name__}.")
