"""What `MultiExitModel.fit` takes: whatever does not fit is refused by the argument's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.signals import UNLABELLED, Windows
from mexit_edge.signals.windows import as_array, refuse_non_finite


def check_arrays(
    x: Any, y: Any, network: Any, n_classes: int, part: str = "", *, unlabelled: bool = False
) -> tuple[Any, NDArray[Any]]:
    """Return samples and labels as arrays that fit the network.

    Args:
        x: (n, ...), as the network takes it; a dict, list or tuple of such arrays for several inputs.
        y: (n,) class indices.
        network: a functional model.
        n_classes: number of classes.
        part: where both came from, for messages, as in " of `validation_data`".
        unlabelled: whether -1 may stand for a window without a label.

    Raises:
        InputError: they do not fit, or a sample is not finite.
    """
    labels = as_array(y, "y")
    samples = _samples(x, network, part)
    n = len(next(iter(keras.tree.flatten(samples))))
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise InputError(
            f"`y`{part} must be integers of shape ({n},). Received: {labels.dtype} of shape {labels.shape}."
        )
    check_labels(labels, n_classes, part, unlabelled=unlabelled)
    return samples, labels


def check_labels(labels: NDArray[Any], n_classes: int, part: str = "", *, unlabelled: bool = False) -> None:
    """Refuse labels that are no class indices.

    Raises:
        InputError: says which values there are.
    """
    if not len(labels) or labels.min() < (UNLABELLED if unlabelled else 0) or labels.max() >= n_classes:
        got = f"values from {labels.min()} to {labels.max()}" if len(labels) else "none"
        hint = ""
        if len(labels) and labels.min() == UNLABELLED:
            hint = (
                " Windows without a label are for training with the regime `consistency` alone; leave them "
                "out, with `windows.take(windows.labelled)` for instance."
            )
        raise InputError(
            f"`y`{part} must hold class indices from 0 to {n_classes - 1}. Received: {got}.{hint}"
        )


def _samples(x: Any, network: Any, part: str) -> Any:
    """Return samples that fit the network's inputs: an array, or the structure of arrays that came."""
    inputs = network.inputs
    if len(inputs) == 1 and not isinstance(x, dict):
        samples = as_array(x, "x")
        _check_samples(samples, inputs[0].shape[1:], f"`x`{part}")
        return samples
    named = [tensor.name for tensor in inputs]
    if isinstance(x, dict):
        if set(x) != set(named):
            raise InputError(
                f"`x`{part} must have the network's inputs ({', '.join(named)}). Received: {', '.join(x)}."
            )
        arrays = {name: as_array(x[name], f"x[{name!r}]") for name in named}
    elif isinstance(x, list | tuple) and len(x) == len(inputs):
        arrays = {name: as_array(one, f"x[{name!r}]") for name, one in zip(named, x, strict=True)}
    else:
        raise InputError(
            f"`x`{part} must be one array per input of the network ({', '.join(named)}), in a dict or a "
            f"list. Received: {type(x).__name__}."
        )
    for name, tensor in zip(named, inputs, strict=True):
        _check_samples(arrays[name], tensor.shape[1:], f"`x[{name!r}]`{part}")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise InputError(f"`x`{part} must have as many windows in every input. Received: {lengths}.")
    return arrays if isinstance(x, dict) else tuple(arrays.values())


def _check_samples(samples: NDArray[Any], shape: Sequence[int | None], argument: str) -> None:
    fits = samples.ndim == len(shape) + 1 and all(
        wanted in (None, got) for wanted, got in zip(shape, samples.shape[1:], strict=True)
    )
    if samples.dtype.kind not in "iuf" or not fits:
        raise InputError(
            f"{argument} must be real numbers of shape (n, {', '.join(map(str, shape))}). "
            f"Received: {samples.dtype} of shape {samples.shape}."
        )
    refuse_non_finite(samples, argument)


def check_validation(data: Any, network: Any, n_classes: int) -> None:
    """Refuse validation data that do not fit; a data set shows its samples only while it is read.

    Raises:
        InputError: they are neither `Windows` nor (x, y) nor (x, y, sample_weight), do not fit the network,
            or a window has no label.
    """
    part = " of `validation_data`"
    if isinstance(data, Windows):
        check_arrays(data.x, data.y, network, n_classes, part)
    elif isinstance(data, list | tuple):
        if len(data) not in (2, 3):
            raise InputError(
                "`validation_data` must be `Windows`, a data set, (x, y) or (x, y, sample_weight). "
                f"Received: {len(data)} values."
            )
        _, y = check_arrays(data[0], data[1], network, n_classes, part)
        window_weights(y, n_classes, None, [*data, None][2], "sample_weight of validation_data")


def refuse_absent_class(y: NDArray[Any], n_classes: int, names: Sequence[str] = ()) -> None:
    """Refuse training labels without one of the network's classes.

    Args:
        y: (n,) class indices; -1 for windows without a label.
        n_classes: logits per exit of the network.
        names: name per class, as far as known.

    Raises:
        InputError: names the absent classes.
    """
    absent = np.flatnonzero(np.bincount(y[y != UNLABELLED], minlength=n_classes) == 0)
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


def weight_per_class(class_weight: Mapping[int, float] | None, n_classes: int) -> list[float]:
    """Return the weight of every class, 1 for those that are not named."""
    return [(class_weight or {}).get(index, 1.0) for index in range(n_classes)]


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
    by_class = np.asarray(weight_per_class(class_weight, n_classes))
    # A window without a label belongs to no class, and counts 1.
    weights = np.where(y == UNLABELLED, 1.0, by_class[y])
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
