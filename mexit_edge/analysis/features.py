"""What an exit reads of a window: the output of its block."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mexit_edge.analysis.inputs import Shown
from mexit_edge.models.anatomy import anatomy
from mexit_edge.models.running_sum import own_logits

MAX_FEATURES = 8000
_BATCH_SIZE = 256


def block_outputs(network: keras.Model) -> dict[str, list[Any]]:
    """Return exit -> the Keras tensors that its head reads.

    Found by going back from the logits, through the layers of the head, and through global pooling,
    flattening, concatenation and dropout, as the final exit's head is otherwise one layer alone (see
    `anatomy`). Logits of an earlier exit, which a cascaded head reads too, are left out.

    Args:
        network: a functional model with outputs exit_01, ...
    """
    parts = anatomy(network)
    logits = {exit_: own_logits(network, exit_) for exit_ in parts.exits}
    ends = {id(tensor) for tensor in logits.values()} | {id(one) for one in network.output.values()}
    return {
        exit_: _read_by(logits[exit_], frozenset(head), ends)
        for exit_, head in zip(parts.exits, parts.heads, strict=True)
    }


def _read_by(logits: Any, head: frozenset[str], ends: set[int]) -> list[Any]:
    found: dict[int, Any] = {}
    waiting, seen = list(_inputs_of(logits)), set()
    while waiting:
        tensor = waiting.pop(0)
        if id(tensor) in seen or id(tensor) in ends:
            continue
        seen.add(id(tensor))
        layer = tensor._keras_history.operation
        passes = not isinstance(layer, keras.layers.InputLayer) and (
            layer.name in head or isinstance(layer, _READ_OUT)
        )
        if passes:
            waiting.extend(_inputs_of(tensor))
        else:
            found[id(tensor)] = tensor
    return list(found.values())


def _inputs_of(tensor: Any) -> list[Any]:
    layer, call, _ = tensor._keras_history
    return list(layer._inbound_nodes[call].input_tensors)


# What gathers features for a dense layer without changing them by weights.
_READ_OUT = (
    keras.layers.Concatenate,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
)


def block_features(
    given: Shown, max_features: int = MAX_FEATURES, seed: int = 0
) -> tuple[dict[str, NDArray[np.float32]], dict[str, int]]:
    """Return exit -> its block's output (n, m) in inference mode, and exit -> the number of all its features.

    Args:
        given: network and windows.
        max_features: where a block has more, so many are drawn at random.
        seed: of the draw, the same for every network.
    """
    tensors = block_outputs(given.network)
    reader = keras.Model(given.network.inputs[0], tensors)
    sizes = {exit_: values.shape[1] for exit_, values in _run(reader, given.x[:1])}
    chosen = {exit_: _drawn(size, max_features, seed) for exit_, size in sizes.items()}
    parts: dict[str, list[NDArray[np.float32]]] = {exit_: [] for exit_ in tensors}
    for start in range(0, len(given.x), _BATCH_SIZE):
        for exit_, values in _run(reader, given.x[start : start + _BATCH_SIZE]):
            parts[exit_].append(values[:, chosen[exit_]])
    return {exit_: np.concatenate(own) for exit_, own in parts.items()}, sizes


def _run(reader: keras.Model, x: NDArray[np.float32]) -> list[tuple[str, NDArray[np.float32]]]:
    """Return every exit with its block's output, (n, all features)."""
    outputs = reader(x, training=False)
    return [(exit_, _flat([keras.ops.convert_to_numpy(one) for one in keras.tree.flatten(tensors)]))
            for exit_, tensors in outputs.items()]  # fmt: skip


def _flat(values: list[NDArray[Any]]) -> NDArray[np.float32]:
    return np.concatenate([one.reshape(len(one), -1) for one in values], axis=1).astype(np.float32)


def _drawn(size: int, limit: int, seed: int) -> NDArray[np.int64]:
    if size <= limit:
        return np.arange(size)
    return np.sort(np.random.default_rng(seed).permutation(size)[:limit])
