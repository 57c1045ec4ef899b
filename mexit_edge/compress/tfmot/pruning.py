"""Magnitude pruning: the smallest weights of every kernel become zero while the rest goes on learning."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import keras
import numpy as np

from mexit_edge.compress.tfmot.fine_tuning import FineTuning, Network, Task
from mexit_edge.compress.weights import kernels
from mexit_edge.errors import InputError


@dataclass(frozen=True)
class _Schedule:
    """When masks are renewed, in steps counted from 1."""

    begin: int
    end: int
    frequency: int


def prune(
    network: Network,
    x: Any,
    y: Any = None,
    *,
    sparsity: float = 0.5,
    epochs: int = 20,
    begin: float = 0.0,
    end: float = 0.6,
    frequency: int | None = None,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
    verbose: int | str = "auto",
) -> Network:
    """Return a copy of a trained network in which a share of every kernel is zero.

    Masks grow along a polynomial of degree 3 between two points of a fine-tuning, in which the mean
    cross-entropy of all exits is trained, whatever the regime was. Kernels of convolutions and dense layers
    are pruned; depthwise kernels, biases and normalisations are not, as TensorFlow Model Optimization has
    it. The zeros are zeros of the int8 model too, since its weights are symmetric. A later `fit` fills them
    again, unless `keep_zeros` is called before it.

    What is given stays as it is, also when the fine-tuning is interrupted.

    Args:
        network: a trained `MultiExitModel`, or a functional network with outputs ``exit_01``, ...
        x: training `Windows`, normalised and perturbed as a `MultiExitModel` does it (a plain network takes
            them as they are); or arrays as the network takes them, with ``y``.
        y: (n,) class indices, with arrays only.
        sparsity: share of every kernel that becomes zero, rounded up to whole weights; at least one weight
            stays.
        epochs: of the fine-tuning.
        begin: share of the fine-tuning's steps before the first weight is pruned.
        end: share of the steps after which masks stay as they are.
        frequency: steps between two changes of the masks; None for 20 changes in all.
        batch_size: windows per step.
        learning_rate: at the start; it falls to zero along a cosine.
        seed: of order, perturbations and dropout; sets the global seeds (`keras.utils.set_random_seed`).
        verbose: as in `keras.Model.fit`.

    Returns:
        A network of the same kind, with the same architecture and names; a `MultiExitModel` has to be
        compiled before it learns on, and its provenance says ``pruned 50 %``.

    Raises:
        InputError: an argument is out of range, a layer with a kernel is frozen or unknown to tf_keras, or
            the windows do not fit.
        MissingExtraError: the [compress] extra is not installed.

    Example:
        ```python
        pruned = mexit_edge.compress.prune(model, split.train, sparsity=0.8)
        bundle = mexit_edge.export(pruned, representative=split.train)
        ```

    Reference:
        Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression",
        arXiv 1710.01878.
    """
    if not 0 < sparsity < 1:
        raise InputError(f"`sparsity` must be a share between 0 and 1. Received: {sparsity}.")
    settings = FineTuning(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed, verbose=verbose
    )
    if not 0 <= begin < end <= 1:
        raise InputError(
            f"`begin` and `end` must be shares of the steps, the first below the second. "
            f"Received: {begin}, {end}."
        )
    if frequency is not None and frequency < 1:
        raise InputError(f"`frequency` must be at least 1 step. Received: {frequency}.")
    task = Task(network, x, y, settings)
    schedule = _schedule(task.n_steps, begin, end, frequency)
    tools = task.extra.tfmot.sparsity.keras
    wrapped = task.extra.keras.models.clone_model(
        task.bridged.twin, clone_function=lambda layer: _wrapped(layer, tools, sparsity, schedule)
    )
    task.fine_tune(wrapped, [tools.UpdatePruningStep()])
    return task.result(tools.strip_pruning(wrapped), f"pruned {100 * sparsity:.3g} %")


def keep_zeros(network: keras.Model) -> None:
    """Let the kernels' zeros stay zero in every later training of a network, under any regime.

    Sets a constraint on every kernel, which Keras applies after each step of the optimizer. It lasts as long
    as the object: a file does not keep it.

    Args:
        network: a pruned network, or a `MultiExitModel` of one. It is changed.

    Raises:
        InputError: no kernel has a zero.
    """
    found = [(variable, np.asarray(variable)) for _, _, variable in kernels(network)]
    masks = [(variable, values != 0) for variable, values in found if not values.all()]
    if not masks:
        raise InputError("`network` must have kernels with zeros. Received: none. Use `prune` before.")
    for variable, mask in masks:
        variable.constraint = _Masked(mask)


class _Masked(keras.constraints.Constraint):
    """Multiplies a kernel by a mask."""

    def __init__(self, mask: Any) -> None:
        self._mask = mask.astype(np.float32)

    def __call__(self, w: Any) -> Any:
        """Return the masked kernel."""
        return w * keras.ops.cast(self._mask, w.dtype)


def _schedule(n_steps: int, begin: float, end: float, frequency: int | None) -> _Schedule:
    """Return a schedule whose last change is one that happens: at ``begin`` plus whole frequencies.

    With a frequency as long as the fine-tuning (100 steps by default, in TensorFlow Model Optimization)
    nothing would ever be pruned, without a word.
    """
    first = max(1, round(begin * n_steps))
    last = max(1, round(end * n_steps))
    every = frequency or max(1, (last - first) // 20)
    changes = (last - first) // every
    if changes < 1:
        raise InputError(
            f"`frequency` must be at most the steps between `begin` and `end` ({last - first} of {n_steps}). "
            f"Received: {every}. Give more `epochs`, or a smaller `batch_size`."
        )
    return _Schedule(first, first + changes * every, every)


def _wrapped(layer: Any, tools: Any, sparsity: float, schedule: _Schedule) -> Any:
    """Return a layer of the twin with masks if it has a kernel to prune; all others as they are."""
    kernel = kernel_to_compress(layer)
    if kernel is None:
        return layer
    size = int(np.prod(kernel.shape))
    # The whole number of weights that makes the share at least the one asked for.
    final = min(ceil(sparsity * size), size - 1) / size
    return tools.prune_low_magnitude(
        layer,
        pruning_schedule=tools.PolynomialDecay(
            0.0, final, schedule.begin, schedule.end, power=3, frequency=schedule.frequency
        ),
    )


def kernel_to_compress(layer: Any) -> Any | None:
    """Return the kernel of a layer of the twin that is pruned or clustered; None for depthwise ones.

    A normalisation must not be wrapped: the wrapper of clustering would run it in inference mode.

    Raises:
        InputError: the layer is frozen.
    """
    names = {"SeparableConv2D": "pointwise_kernel", "Conv2D": "kernel", "Dense": "kernel"}
    name = names.get(type(layer).__name__)
    if name is None:
        return None
    if not layer.trainable:
        raise InputError(
            "`network` must have no frozen layer with a kernel. "
            f"Received: {layer.name!r}. Set `layer.trainable = True` before."
        )
    return getattr(layer, name)
