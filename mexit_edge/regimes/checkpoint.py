"""A training that can be interrupted: one file per fit, written whole after every epoch."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.files import sha256, write_bytes

VERSION = 1
HEADER = "header"
_NO_CHECKPOINT = (OSError, EOFError, ValueError, KeyError, TypeError, StopIteration, zipfile.BadZipFile)
Resumable = Any  # a callback with `state` and `resume`, see `MultiExitEarlyStopping`


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a fit needs to go on as if it had not been interrupted.

    Args:
        fingerprint: of everything that makes the training what it is; must be equal to go on.
        position: phase, epoch, history and cost, in plain values.
        variables: weights, optimizer, random states and the regime's memory, in order.
        callbacks: state of the callbacks that have one, in order: plain values and arrays.
    """

    fingerprint: dict[str, Any]
    position: dict[str, Any]
    variables: list[NDArray[Any]]
    callbacks: list[tuple[dict[str, Any], list[NDArray[Any]]]]

    def save(self, path: Path) -> None:
        """Write the file whole, over an older one."""
        header = {
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "position": self.position,
            "variables": len(self.variables),
            "callbacks": [{"plain": plain, "arrays": len(arrays)} for plain, arrays in self.callbacks],
        }
        arrays = [*self.variables, *(array for _, own in self.callbacks for array in own)]
        named: dict[str, Any] = {f"array_{number:05d}": array for number, array in enumerate(arrays)}
        named[HEADER] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **named)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, buffer.getvalue(), overwrite=True)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read the file.

        Raises:
            InputError: it is no such file.
        """
        try:
            # Opened here: NumPy leaves a broken archive open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                header = json.loads(stored[HEADER].tobytes())
                if header["version"] != VERSION:
                    raise ValueError(f"version {header['version']}")
                arrays = [stored[f"array_{number:05d}"] for number in range(len(stored.files) - 1)]
            variables, rest = arrays[: header["variables"]], iter(arrays[header["variables"] :])
            callbacks = [
                (one["plain"], [next(rest) for _ in range(one["arrays"])]) for one in header["callbacks"]
            ]
            return cls(header["fingerprint"], header["position"], variables, callbacks)
        except _NO_CHECKPOINT as error:
            raise InputError(
                f"`checkpoint` must be a file that an interrupted `fit` left. Received: {path} ({error}). "
                "Remove it to begin anew."
            ) from error

    def check(self, fingerprint: Mapping[str, Any], path: Path) -> None:
        """Refuse to go on with another training.

        Raises:
            InputError: names what differs.
        """
        # As JSON gives them back.
        expected = json.loads(json.dumps(fingerprint))
        for name in {**expected, **self.fingerprint}:
            value, stored = expected.get(name), self.fingerprint.get(name)
            if stored != value:
                raise InputError(
                    f"`checkpoint` must belong to this training: same {name}. Received: {path} with "
                    f"{_short(stored)}, here {_short(value)}. Train as before, or remove the file to begin "
                    "anew."
                )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


class SaveCheckpoint(keras.callbacks.Callback):
    """Writes the checkpoint at the end of every epoch; stands after all callbacks whose state it keeps.

    Args:
        write: does it.
    """

    def __init__(self, write: Any) -> None:
        super().__init__()
        self._write = write

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write."""
        self._write()


def network_facts(network: keras.Model) -> list[list[Any]]:
    """Return shape and path of each variable, without the numbers that Keras counts through a session."""
    return [
        [*variable.shape, re.sub(r"_\d+(?=[a-z_]*/)", "", variable.path)] for variable in network.variables
    ]


def training_facts(model: Any, epochs: int) -> dict[str, Any]:
    """Return what makes a training what it is, apart from its data.

    Args:
        model: a compiled `MultiExitModel`.
        epochs: over all phases.
    """
    return {
        "network": network_facts(model.network),
        "layers": _layers_digest(model.network),
        "regime": model.regime.get_config(),
        "epochs": epochs,
        "seed": model.seed,
        "optimizer": model.optimizer_facts,
    }


def without_names(config: Any) -> Any:
    """Return the config of an optimizer without its name and that of its schedule."""
    if not isinstance(config, dict):
        return config
    return {key: without_names(value) for key, value in config.items() if key != "name"}


def _layers_digest(network: keras.Model) -> str:
    """Return a digest of all layers' options, without automatic names."""
    layers = [[type(layer).__name__, without_names(layer.get_config())] for layer in network.layers]
    text = json.dumps(layers, sort_keys=True, default=lambda value: type(value).__name__)
    return sha256(re.sub(r"_\d+", "", text).encode())


def resumable(callbacks: Sequence[Any]) -> list[Resumable]:
    """Return the callbacks that have a state to keep."""
    return [one for one in callbacks if hasattr(one, "state") and hasattr(one, "resume")]
