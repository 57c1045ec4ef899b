"""Where training batches come from: `Windows`, arrays and data sets in one shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mexit_edge.errors import InputError
from mexit_edge.files import sha256
from mexit_edge.regimes.batches import (
    Change,
    CheckedBatches,
    PerturbedDataset,
    TrainingBatches,
    weighted_by_class,
    with_labels_checked,
)
from mexit_edge.regimes.checks import (
    check_arrays,
    refuse_absent_class,
    refuse_given,
    weight_per_class,
    window_weights,
)
from mexit_edge.signals import (
    Normalisation,
    Perturbation,
    Sensor,
    Windows,
    apply_perturbations,
    inertial_perturbations,
)


@dataclass(frozen=True, eq=False)
class Source:
    """Training data as `keras.Model.fit` takes them.

    Args:
        data: arguments for `keras.Model.fit`.
        begin_epoch: gives a number to the epoch that comes.
        steps_per_epoch: None where unknown.
        batch_size: windows per step; None where batches may differ.
        facts: what makes the data what they are, as far as known, for checkpoints.
        normalisation: of the windows; None where they are taken as they are.
    """

    data: dict[str, Any]
    begin_epoch: Callable[[int], None]
    steps_per_epoch: int | None
    batch_size: int | None
    facts: dict[str, Any]
    normalisation: Normalisation | None = None


def make_source(
    model: Any,
    x: Any,
    y: Any,
    batch_size: int,
    class_weight: dict[int, float] | None,
    sample_weight: Any,
    shuffle: bool | None,
) -> Source:
    """Return the training data of `MultiExitModel.fit`, checked; see there.

    Raises:
        InputError: they do not fit the network or the regime.
    """
    if batch_size < 1:
        raise InputError(f"`batch_size` must be at least 1. Received: {batch_size}.")
    if isinstance(x, Windows):
        reason = "`Windows` have labels, and are shuffled anew in every epoch"
        refuse_given(reason, y=y, shuffle=shuffle)
        return _from_windows(model, x, batch_size, class_weight, sample_weight)
    if hasattr(x, "__array__") or isinstance(x, list | tuple | dict):
        return _from_arrays(model, x, y, batch_size, class_weight, sample_weight, shuffle)
    reason = "a data set yields (x, y) or (x, y, sample_weight)"
    refuse_given(reason, y=y, sample_weight=sample_weight)
    return _from_dataset(model, x, class_weight, shuffle)


def _from_windows(
    model: Any,
    windows: Windows,
    batch_size: int,
    class_weight: dict[int, float] | None,
    sample_weight: Any,
) -> Source:
    if len(model.network.inputs) != 1:
        names = ", ".join(tensor.name for tensor in model.network.inputs)
        raise InputError(
            f"`x` must be arrays or a data set for a network of several inputs ({names}). Received: Windows."
        )
    check_arrays(
        windows.x, windows.y, model.network, model.n_classes, unlabelled=model.regime.uses_unlabelled
    )
    refuse_absent_class(windows.y, model.n_classes, windows.classes)
    weights = window_weights(windows.y, model.n_classes, class_weight, sample_weight)
    # The model gets it when training begins: a fit that is refused leaves no trace of its windows.
    normalisation = model.normalisation or Normalisation.fit(windows)
    perturbations = _perturbations(model, windows.sensor, normalisation)
    batches = TrainingBatches(
        windows.x,
        windows.y,
        weights,
        batch_size=batch_size,
        seed=model.seed,
        perturb=_change(perturbations, windows.sensor),
        normalise=normalisation.apply,
        twins=model.regime.perturbs,
    )
    facts = {"subjects": list(windows.subjects), "perturbations": _named(perturbations)}
    return _of_batches(batches, facts, normalisation)


def _from_arrays(
    model: Any,
    x: Any,
    y: Any,
    batch_size: int,
    class_weight: dict[int, float] | None,
    sample_weight: Any,
    shuffle: bool | None,
) -> Source:
    samples, labels = check_arrays(
        x, y, model.network, model.n_classes, unlabelled=model.regime.uses_unlabelled
    )
    refuse_absent_class(labels, model.n_classes)
    weights = window_weights(labels, model.n_classes, class_weight, sample_weight)
    perturbations = _perturbations(model)
    batches = TrainingBatches(
        samples,
        labels,
        weights,
        batch_size=batch_size,
        seed=model.seed,
        perturb=_change(perturbations, _plain_sensor(samples)),
        twins=model.regime.perturbs,
        shuffle=shuffle is None or shuffle,
        keep_ragged=not model.regime.needs_full_batches,
    )
    return _of_batches(batches, {"perturbations": _named(perturbations)}, None)


def _of_batches(
    batches: TrainingBatches, facts: dict[str, Any], normalisation: Normalisation | None
) -> Source:
    ragged = batches.keep_ragged and len(batches.y) % batches.batch_size
    return Source(
        data={"x": batches, "shuffle": False},
        begin_epoch=batches.begin_epoch,
        steps_per_epoch=len(batches),
        batch_size=None if ragged else batches.batch_size,
        facts={
            "windows": len(batches.y),
            "batch_size": batches.batch_size,
            "labels": _digest(batches.y),
            "weights of windows": _digest(batches.sample_weight),
            "shuffle": batches.shuffle,
            "normalisation": normalisation and [list(normalisation.offset), list(normalisation.scale)],
            **facts,
        },
        normalisation=normalisation,
    )


def _from_dataset(
    model: Any, dataset: Any, class_weight: dict[int, float] | None, shuffle: bool | None
) -> Source:
    perturbations = _perturbations(model)
    facts = {"perturbations": _named(perturbations), "class_weight": str(class_weight)}
    begin_epoch: Callable[[int], None] = _nothing
    if isinstance(dataset, tf.data.Dataset):
        dataset = with_labels_checked(dataset, model.n_classes, unlabelled=model.regime.uses_unlabelled)
        if class_weight:
            dataset = weighted_by_class(dataset, weight_per_class(class_weight, model.n_classes))
        batch_size = _static_batch_size(dataset)
        change = _change(perturbations, None)
        if change is not None:
            perturbed = PerturbedDataset(dataset, change, model.seed, twins=model.regime.perturbs)
            dataset, begin_epoch = perturbed.dataset, perturbed.begin_epoch
        steps = int(dataset.cardinality())
        return Source(
            # A tf.data.Dataset is shuffled by its owner; Keras would warn of its own default.
            data={"x": dataset, "shuffle": bool(shuffle)},
            begin_epoch=begin_epoch,
            steps_per_epoch=steps if steps > 0 else None,
            batch_size=batch_size,
            facts=facts,
        )
    if not isinstance(dataset, keras.utils.PyDataset):
        raise InputError(
            "`x` must be `Windows`, arrays, a tf.data.Dataset or a PyDataset. "
            f"Received: {type(dataset).__name__}."
        )
    if perturbations:
        raise InputError(
            "`x` must be `Windows`, arrays or a tf.data.Dataset to be perturbed. "
            f"Received: {type(dataset).__name__}. Perturb in it, or leave `perturbations` and the regime "
            f"{model.regime.name!r}."
        )
    # Keras wants a weight of every class.
    by_class = dict(enumerate(weight_per_class(class_weight, model.n_classes))) if class_weight else None
    return Source(
        data={
            "x": CheckedBatches(dataset, model.n_classes, unlabelled=model.regime.uses_unlabelled),
            "class_weight": by_class,
            "shuffle": bool(shuffle),
        },
        begin_epoch=begin_epoch,
        steps_per_epoch=len(dataset),
        batch_size=None,
        facts=facts,
    )


def _perturbations(
    model: Any, sensor: Sensor | None = None, normalisation: Normalisation | None = None
) -> Sequence[Perturbation]:
    """Return what perturbs windows, those of a sensor where the data know of one."""
    chosen: Sequence[Perturbation] = ()
    if model.perturbations is None:
        raise InputError(
            "`perturbations` must be set again after loading: a file does not keep those that are objects. "
            'Received: None. Use `model.perturbations = ...`, ``"auto"`` or `()`.'
        )
    if not isinstance(model.perturbations, str):
        chosen = model.perturbations
    elif sensor is not None and normalisation is not None and sensor.rigid_bodies:
        chosen = inertial_perturbations(normalisation.scale)
    if model.regime.perturbs and not chosen:
        raise InputError(
            f"`perturbations` must be given for the regime {model.regime.name!r}: there are standard ones "
            f"for `Windows` of sensors with rigid bodies alone. Received: {model.perturbations!r}. For "
            "example `perturbations=(ChannelScale(), Speed())` from mexit_edge.signals, or functions of "
            "one's own (x, sensor, rng)."
        )
    return chosen


def _change(perturbations: Sequence[Perturbation], sensor: Sensor | None) -> Change | None:
    if not perturbations:
        return None

    def change(x: Any, rng: np.random.Generator) -> Any:
        return apply_perturbations(x, sensor or _plain_sensor(x), perturbations, rng)  # type: ignore[arg-type]

    return change


def _named(perturbations: Sequence[Perturbation]) -> list[str]:
    """Return perturbations as text that is the same in another process."""
    return [
        repr(one) if is_dataclass(one) else getattr(one, "__qualname__", type(one).__name__)
        for one in perturbations
    ]


def _digest(array: np.ndarray[Any, Any] | None) -> str | None:
    return None if array is None else sha256(np.ascontiguousarray(array).tobytes())


def _plain_sensor(samples: Any) -> Sensor | None:
    """Return a sensor for bare arrays (n, time, channels); None for anything else."""
    if isinstance(samples, np.ndarray) and samples.ndim == 3:
        return Sensor.plain(samples.shape[2], samples.shape[1])
    return None


def _static_batch_size(dataset: tf.data.Dataset) -> int | None:
    shape = keras.tree.flatten(dataset.element_spec)[-1].shape
    return None if not shape.rank or shape[0] is None else int(shape[0])


def _nothing(epoch: int) -> None:
    """Do nothing: the data set has its own order."""


def specs_of(source: Source, network: Any, *, twins: bool) -> tuple[Any, Any, int]:
    """Return shapes of (x, y) of one step for tracing, and the windows in it.

    Args:
        source: training data; where its batches may differ, two windows stand for a batch.
        network: gives the shapes.
        twins: whether every window is there twice.
    """
    n = source.batch_size or 2
    rows = 2 * n if twins else n
    # Several inputs come in the network's own structure, such as a dict.
    inputs = network.inputs[0] if len(network.inputs) == 1 else network.input
    x = keras.tree.map_structure(
        lambda tensor: tf.TensorSpec((rows, *tensor.shape[1:]), tensor.dtype), inputs
    )
    return x, tf.TensorSpec((n,), tf.int64), n
