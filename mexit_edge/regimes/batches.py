"""Training data as batches whose randomness derives from (seed, epoch, step) alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mexit_edge.regimes.checks import check_labels
from mexit_edge.signals import UNLABELLED

Change = Callable[[Any, np.random.Generator], Any]


class TrainingBatches(keras.utils.PyDataset):
    """Shuffled, perturbed and normalised batches of arrays.

    All randomness derives from (seed, epoch, step), so that it does not depend on what ran before.

    Args:
        x: samples (n, ...), or a dict, list or tuple of such arrays.
        y: (n,) labels.
        sample_weight: (n,) weight per window, or None.
        batch_size: windows per batch.
        seed: of the order and the perturbations.
        perturb: applied to a batch of ``x``; None for nothing.
        normalise: applied after that; None for nothing.
        twins: whether a batch holds every window twice: all as they are, then all perturbed.
        shuffle: whether every epoch has an order of its own.
        keep_ragged: whether an epoch ends with a smaller batch of what is left; without, these windows have
            their turn in other epochs.
    """

    def __init__(
        self,
        x: Any,
        y: NDArray[Any],
        sample_weight: NDArray[np.float32] | None = None,
        *,
        batch_size: int,
        seed: int,
        perturb: Change | None = None,
        normalise: Callable[[Any], Any] | None = None,
        twins: bool = False,
        shuffle: bool = True,
        keep_ragged: bool = False,
    ) -> None:
        super().__init__()
        self.x, self.y, self.sample_weight = x, y, sample_weight
        self.batch_size = min(batch_size, len(y))
        self.seed = seed
        self.perturb = perturb
        self.normalise = normalise
        self.twins = twins
        self.shuffle = shuffle
        self.keep_ragged = keep_ragged
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Give the order of an epoch, counted from 0."""
        self.epoch = epoch
        n = len(self.y)
        self._order = (
            np.random.default_rng((self.seed, epoch)).permutation(n) if self.shuffle else np.arange(n)
        )

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        n = len(self.y)
        return -(-n // self.batch_size) if self.keep_ragged else n // self.batch_size

    def __getitem__(self, step: int) -> tuple[Any, ...]:
        """Return (x, y) or (x, y, sample_weight) of one step."""
        chosen = self._order[step * self.batch_size : (step + 1) * self.batch_size]
        x = keras.tree.map_structure(lambda array: array[chosen], self.x)
        changed = x
        if self.perturb is not None:
            changed = self.perturb(x, np.random.default_rng((self.seed, self.epoch, step)))
        if self.normalise is not None:
            changed = self.normalise(changed)
        if self.twins:
            x = x if self.normalise is None else self.normalise(x)
            changed = keras.tree.map_structure(lambda *both: np.concatenate(both), x, changed)
        batch = (changed, self.y[chosen])
        return batch if self.sample_weight is None else (*batch, self.sample_weight[chosen])


class PerturbedDataset:
    """A tf.data.Dataset with perturbed inputs.

    Args:
        dataset: of (x, y) or (x, y, sample_weight).
        perturb: applied to a batch of ``x``.
        seed: of the perturbations.
        twins: see `TrainingBatches`.
    """

    def __init__(self, dataset: tf.data.Dataset, perturb: Change, seed: int, *, twins: bool) -> None:
        self._perturb, self._seed = perturb, seed
        self._epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        # One call after the other, without `num_parallel_calls`: the order stays.
        self.dataset = dataset.enumerate().map(lambda step, batch: self._changed(step, batch, twins=twins))

    def begin_epoch(self, epoch: int) -> None:
        """Give the perturbations of an epoch, counted from 0."""
        self._epoch.assign(epoch)

    def _changed(self, step: Any, batch: Any, *, twins: bool) -> Any:
        x, *rest = batch
        flat = keras.tree.flatten(x)

        def in_numpy(epoch: Any, step: Any, *arrays: Any) -> Any:
            rng = np.random.default_rng((self._seed, int(epoch), int(step)))
            perturbed = keras.tree.flatten(self._perturb(keras.tree.pack_sequence_as(x, arrays), rng))
            return [np.asarray(one, array.dtype) for one, array in zip(perturbed, arrays, strict=True)]

        changed = tf.numpy_function(
            in_numpy, [self._epoch.read_value(), step, *flat], [one.dtype for one in flat]
        )
        for one, original in zip(changed, flat, strict=True):
            one.set_shape(original.shape)
        if twins:
            changed = [tf.concat(both, axis=0) for both in zip(flat, changed, strict=True)]
        return (keras.tree.pack_sequence_as(x, changed), *rest)


class CheckedBatches(keras.utils.PyDataset):
    """Batches of a PyDataset, ended with an error at labels that are no class indices.

    Args:
        batches: of (x, y) or (x, y, sample_weight).
        n_classes: number of classes.
        unlabelled: whether -1 may stand for a window without a label.
    """

    def __init__(self, batches: keras.utils.PyDataset, n_classes: int, *, unlabelled: bool = False) -> None:
        super().__init__(
            workers=batches.workers,
            use_multiprocessing=batches.use_multiprocessing,
            max_queue_size=batches.max_queue_size,
        )
        self.batches, self.n_classes, self.unlabelled = batches, n_classes, unlabelled

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return len(self.batches)

    def __getitem__(self, step: int) -> Any:
        """Return the batch of a step."""
        batch = self.batches[step]
        check_labels(np.asarray(batch[1]), self.n_classes, " of a batch", unlabelled=self.unlabelled)
        return batch

    def on_epoch_begin(self) -> None:
        """Tell the batches."""
        self.batches.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Tell the batches."""
        self.batches.on_epoch_end()


def with_labels_checked(
    dataset: tf.data.Dataset, n_classes: int, *, unlabelled: bool = False
) -> tf.data.Dataset:
    """Return a data set that ends with an error at labels that are no class indices.

    A loss would take them for another class in silence, or become NaN far from the cause.

    Args:
        dataset: of (x, y) or (x, y, sample_weight).
        n_classes: number of classes.
        unlabelled: whether -1 may stand for a window without a label.
    """
    lowest = UNLABELLED if unlabelled else 0

    def check(x: Any, y: Any, *rest: Any) -> Any:
        known = tf.reduce_all(tf.logical_and(y >= lowest, y < n_classes))
        rule = f"`y` must hold class indices from 0 to {n_classes - 1}. Received a batch with:"
        with tf.control_dependencies([tf.debugging.Assert(known, [rule, y], summarize=64)]):
            return x, tf.identity(y), *rest

    return dataset.map(check)


def weighted_by_class(dataset: tf.data.Dataset, weights: list[float]) -> tf.data.Dataset:
    """Return a data set whose sample weights are multiplied by the weight of each window's class."""
    table = tf.constant(weights, tf.float32)

    def weigh(x: Any, y: Any, sample_weight: Any = None) -> Any:
        labels = tf.cast(y, tf.int32)
        # A window without a label belongs to no class, and counts 1 (`window_weights`).
        by_class = tf.where(labels < 0, 1.0, tf.gather(table, tf.maximum(labels, 0)))
        return x, y, by_class if sample_weight is None else by_class * tf.cast(sample_weight, tf.float32)

    return dataset.map(weigh)
