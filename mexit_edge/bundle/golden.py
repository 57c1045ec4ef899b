"""Golden vectors: windows, every int8 that TFLM makes of them, and the decision of each engine."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle.schema import ENGINES, Manifest
from mexit_edge.errors import InputError

MAX_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Golden:
    """What an engine must reproduce.

    Args:
        windows: (n, time, channels), int16 counts, or float32 in the sensor's units where no counts exist.
        tensors: name of a tensor that crosses a stage's border -> (n, ...) int8, from the engine `reference`.
        reference: name of the engine that made `tensors`: TFLM, or LiteRT's reference kernels without it.
        labels: engine -> (n,) class the policy decides on.
        exits: engine -> (n,) exit the policy leaves at.
    """

    windows: NDArray[np.int16] | NDArray[np.float32]
    tensors: dict[str, NDArray[np.int8]]
    reference: str
    labels: dict[str, NDArray[np.int64]]
    exits: dict[str, NDArray[np.int64]]

    def check_fit(self, manifest: Manifest) -> None:
        """Check that these can be the golden vectors of this manifest's bundle.

        Raises:
            InputError: names what does not fit.
        """
        n, stated = len(self.windows), manifest.golden
        if stated is not None and n != stated.n_windows:
            raise _misfit("windows", f"the {stated.n_windows} windows that the manifest states", n)
        window = (manifest.sensor.window, len(manifest.sensor.channels))
        if self.windows.shape[1:] != window:
            raise _misfit("windows", f"windows of the sensor's shape {window}", self.windows.shape[1:])
        engines = sorted({self.reference, *self.labels, *self.exits})
        if not set(engines) <= set(ENGINES) or self.labels.keys() != self.exits.keys():
            raise _misfit("label", f"a label and an exit per engine of {', '.join(ENGINES)}", engines)
        stages = manifest.stages
        elements = {
            spec.name: prod(spec.shape) for stage in stages for spec in (*stage.inputs, *stage.outputs)
        }
        for name, tensor in self.tensors.items():
            if len(tensor) != n or tensor.size != n * elements.get(name, -1):
                raise _misfit("tensor", "tensors of the manifest, one per window", (name, tensor.shape))
        for kind, several, low, high in (
            ("label", self.labels, 0, len(manifest.classes) - 1),
            ("exit", self.exits, 1, len(stages)),
        ):
            for engine, values in several.items():
                if values.shape != (n,) or ((values < low) | (values > high)).any():
                    raise _misfit(f"{kind}.{engine}", f"{n} integers between {low} and {high}", values)

    def to_bytes(self) -> bytes:
        """Return the golden vectors as a compressed .npz."""
        arrays: dict[str, NDArray[Any]] = {"windows": self.windows}
        arrays |= {f"tensor.{self.reference}.{name}": values for name, values in self.tensors.items()}
        arrays |= {f"label.{engine}": values for engine, values in self.labels.items()}
        arrays |= {f"exit.{engine}": values for engine, values in self.exits.items()}
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, values in arrays.items():
                # A fixed date keeps the bytes a function of the content.
                entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                content = io.BytesIO()
                np.lib.format.write_array(content, np.ascontiguousarray(values), allow_pickle=False)
                archive.writestr(entry, content.getvalue())
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Golden:
        """Read what `to_bytes` wrote.

        Raises:
            InputError: the bytes are not golden vectors, or would unpack to more than 64 MiB.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                    raise InputError(f"`golden` must unpack to at most {MAX_BYTES} bytes. Received: more.")
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return cls._from_arrays({name: arrays[name] for name in arrays.files})
        except InputError:
            raise
        # Nothing but these bytes can be the cause, and what zipfile, zlib and NumPy's parser of headers raise
        # on hostile ones is no closed list (a header may also ask for more memory than there is).
        except Exception as error:
            raise InputError(f"`golden` must be an .npz of golden vectors. Received: {error}.") from error

    @classmethod
    def _from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Golden:
        tensors, labels, exits, reference = {}, {}, {}, ""
        for name, values in arrays.items():
            kind, _, rest = name.partition(".")
            if kind == "tensor":
                reference, _, tensor = rest.partition(".")
                tensors[tensor] = values
            elif kind == "label":
                labels[rest] = values
            elif kind == "exit":
                exits[rest] = values
        windows = arrays["windows"]
        if windows.dtype not in (np.dtype(np.int16), np.dtype(np.float32)) or windows.ndim != 3:
            raise InputError(
                "`windows` of the golden vectors must be int16 or float32 of shape (n, time, channels). "
                f"Received: {windows.dtype} of shape {windows.shape}."
            )
        for kind, several, dtype in (
            ("tensor", tensors, np.int8),
            ("label", labels, np.int64),
            ("exit", exits, np.int64),
        ):
            for name, values in several.items():
                if values.dtype != dtype or len(values) != len(windows):
                    raise InputError(
                        f"`{kind}.{name}` of the golden vectors must be {np.dtype(dtype)}, one per window "
                        f"({len(windows)}). Received: {values.dtype} of shape {values.shape}."
                    )
        return cls(windows, tensors, reference, labels, exits)


def _misfit(name: str, expected: str, received: object) -> InputError:
    return InputError(f"`{name}` of the golden vectors must hold {expected}. Received: {received}.")
