"""Weight clustering: every kernel keeps a handful of distinct values."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from mexit_edge.compress.tfmot.fine_tuning import FineTuning, Network, Task
from mexit_edge.compress.tfmot.pruning import kernel_to_compress
from mexit_edge.errors import InputError


def cluster(
    network: Network,
    x: Any,
    y: Any = None,
    *,
    clusters: int = 16,
    epochs: int = 3,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
    verbose: int | str = "auto",
) -> Network:
    """Return a copy of a trained network whose kernels have few distinct values each.

    Values begin at centroids by k-means++ and learn on in a fine-tuning of the mean cross-entropy of all
    exits, whatever the regime was. Kernels of convolutions and dense layers are clustered; depthwise
    kernels, biases and normalisations are not, as TensorFlow Model Optimization has it. Zeros of a pruned
    network stay zeros, and count as one of the values. A later `fit` makes the values differ again.

    An int8 model has at most as many distinct values within every output channel, but more in a kernel as a
    whole: each channel has a scale of its own, and batch normalisation is folded into it.

    What is given stays as it is, also when the fine-tuning is interrupted.

    Args:
        network: a trained `MultiExitModel`, or a functional network with outputs ``exit_01``, ...
        x: training `Windows` or arrays, see `prune`.
        y: (n,) class indices, with arrays only.
        clusters: largest number of distinct values per kernel, at least 3.
        epochs: of the fine-tuning.
        batch_size: windows per step.
        learning_rate: at the start; it falls to zero along a cosine.
        seed: of order, perturbations and dropout; sets the global seeds (`keras.utils.set_random_seed`).
        verbose: as in `keras.Model.fit`.

    Returns:
        A network of the same kind, with the same architecture and names; a `MultiExitModel` has to be
        compiled before it learns on, and its provenance says ``clustered 16``.

    Raises:
        InputError: an argument is out of range, a layer with a kernel is frozen or unknown to tf_keras, or
            the windows do not fit.
        MissingExtraError: the [compress] extra is not installed.

    Reference:
        Han, Mao and Dally, "Deep Compression", arXiv 1510.00149 (weight sharing).
    """
    if isinstance(clusters, bool) or not isinstance(clusters, int | np.integer) or clusters < 3:
        raise InputError(f"`clusters` must be a whole number of at least 3. Received: {clusters}.")
    settings = FineTuning(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed, verbose=verbose
    )
    task = Task(network, x, y, settings)
    tools = task.extra.tfmot.clustering.keras
    wrapped = task.extra.keras.models.clone_model(
        task.bridged.twin, clone_function=lambda layer: _wrapped(layer, tools, int(clusters))
    )
    task.fine_tune(wrapped)
    return task.result(tools.strip_clustering(wrapped), f"clustered {clusters}")


def _wrapped(layer: Any, tools: Any, clusters: int) -> Any:
    """Return a layer of the twin with centroids if it has a kernel to cluster; all others as they are."""
    kernel = kernel_to_compress(layer)
    if kernel is None:
        return layer
    values = kernel.numpy()
    if len(np.unique(values)) <= clusters:
        return layer
    # Only the experimental form knows zeros; it is not to be reached as an attribute of its package.
    experimental = import_module(
        "tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster"
    )
    return experimental.cluster_weights(
        layer,
        clusters,
        tools.CentroidInitialization.KMEANS_PLUS_PLUS,
        preserve_sparsity=bool((values == 0).any()),
    )
