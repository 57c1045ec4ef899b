"""Recordings in .npy and .npz, without pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.data.file_stream import FileStream, class_indices, file_sensor
from mexit_edge.errors import InputError, unknown_name
from mexit_edge.signals import UNLABELLED, Sensor
from mexit_edge.signals.stream import CHUNK_SAMPLES, Chunk, refuse_size

# A .npz is unpacked into memory as a whole; a .npy is mapped, whatever its size.
MAX_UNPACKED_BYTES = 1 << 30
_NAMES = ("x", "y", "sampling_rate_hz", "channels", "units", "subject")


class ArrayStream(FileStream):
    """A .npy of samples, or a .npz with more to say, as a stream.

    A .npy is x. A .npz holds x (time, channels), and if wanted y (time,) as indices or names of classes,
    sampling_rate_hz, channels, units and subject. Samples of type int16 are counts of the bundle's sensor, as
    everywhere; all others are in units.

    Args:
        path: of the file.
        sensor: of the bundle, for what the file does not say; None where there is none.
        classes: name per class.
        sampling_rate_hz: what the caller knows; goes before what the file says.
        name: for messages; the file's if None.

    Raises:
        InputError: the file cannot be read, holds other arrays, objects, or arrays that do not fit.
    """

    def __init__(
        self,
        path: Path,
        sensor: Sensor | None = None,
        classes: tuple[str, ...] | None = None,
        sampling_rate_hz: float | None = None,
        name: str | None = None,
    ) -> None:
        name = name or path.name
        self._path = path
        arrays = _read(path, name)
        x = arrays["x"]
        if x.dtype.kind not in "iuf" or x.ndim != 2 or not x.size:
            raise InputError(
                f"`x` of {name} must be real numbers of shape (time, channels), none of them 0. "
                f"Received: {x.dtype} of shape {x.shape}."
            )
        own, assumed = file_sensor(
            name,
            _texts(arrays, "channels", name),
            _texts(arrays, "units", name),
            _number(arrays, "sampling_rate_hz", name) if sampling_rate_hz is None else sampling_rate_hz,
            x.shape[1],
            sensor,
        )
        super().__init__(own, assumed, name, int(_number(arrays, "subject", name) or 0), classes, len(x))
        self._check_labels(arrays.get("y"), len(x))
        self._step = _counts(self, sensor) if x.dtype == np.int16 else None

    def chunks(self, size: int = CHUNK_SAMPLES) -> Iterator[Chunk]:
        """Yield slices of the arrays.

        Raises:
            InputError: the file cannot be read any more, or is another one by now.
        """
        refuse_size(size)
        # Read anew: of a thousand recordings that are opened, one is in memory.
        arrays = _read(self._path, self.name)
        whole, y = arrays["x"], arrays.get("y")
        if whole.shape != (self.n_samples, self.sensor.n_channels):
            raise InputError(
                f"`{self.name}` must stay as it is while it is played. Received: samples of another shape, "
                f"{whole.shape}."
            )
        self._check_labels(y, len(whole))
        for start in range(0, len(whole), size):
            part = slice(start, start + size)
            samples = np.asarray(whole[part])
            index = np.arange(start, start + len(samples))
            # What float32 cannot hold becomes infinite, and its window is rejected.
            with np.errstate(over="ignore"):
                x = np.asarray(samples if self._step is None else samples * self._step, np.float32)
            labels = (
                np.full(len(index), UNLABELLED)
                if y is None
                else class_indices(y[part], self.classes, self.name)
            )
            yield Chunk(index, index / self.sensor.sampling_rate_hz, x, labels)

    def _check_labels(self, y: NDArray[Any] | None, n_samples: int) -> None:
        """Refuse labels that are none; part by part, since a day of them as text takes more than the file."""
        if y is None:
            return
        if y.shape != (n_samples,) or y.dtype.kind not in "iuU":
            raise InputError(
                f"`y` of {self.name} needs one class per sample ({n_samples}), as index or name. "
                f"Received: {y.dtype} of shape {y.shape}."
            )
        for start in range(0, len(y), CHUNK_SAMPLES):
            class_indices(y[start : start + CHUNK_SAMPLES], self.classes, self.name)


def _read(path: Path, name: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file by name.

    Raises:
        InputError: it is none, is too large, holds objects, or lacks x.
    """
    try:
        # Refuses objects; the content decides, and not the suffix.
        if not zipfile.is_zipfile(path):
            return {"x": np.lib.format.open_memmap(path, mode="r")}
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_UNPACKED_BYTES:
            raise InputError(
                f"`{name}` must unpack to at most {MAX_UNPACKED_BYTES} bytes. Received: {size}. "
                "Save `x` as a .npy, which is read as it is played."
            )
        with np.load(path, allow_pickle=False) as archive:
            for member in archive.files:
                if member not in _NAMES:
                    raise unknown_name(f"arrays of {name}", member, _NAMES)
            if "x" not in archive.files:
                raise InputError(f"`{name}` must hold the samples as `x`. Received: {archive.files}.")
            return {member: np.asarray(archive[member]) for member in archive.files}
    except InputError:
        raise
    # What NumPy and zipfile raise on a damaged file is no closed list; nothing but the file can be the cause.
    except Exception as error:
        raise InputError(
            f"`{name}` must be a .npy or .npz of numbers and texts, without objects. Received: {error}."
        ) from error


def _texts(arrays: dict[str, NDArray[Any]], key: str, name: str) -> tuple[str, ...] | None:
    if key not in arrays:
        return None
    if arrays[key].dtype.kind != "U" or arrays[key].ndim != 1:
        raise InputError(
            f"`{key}` of {name} must be one text per channel. "
            f"Received: {arrays[key].dtype} of shape {arrays[key].shape}."
        )
    return tuple(map(str, arrays[key]))


def _number(arrays: dict[str, NDArray[Any]], key: str, name: str) -> float | None:
    if key not in arrays:
        return None
    value = arrays[key]
    if value.dtype.kind not in "iuf" or value.size != 1 or not np.isfinite(value).all():
        raise InputError(
            f"`{key}` of {name} must be one finite number. Received: {value.dtype} of shape {value.shape}."
        )
    return float(value.reshape(())[()])


def _counts(stream: ArrayStream, sensor: Sensor | None) -> NDArray[np.float64]:
    """Return the units per count of each channel of int16 samples.

    Raises:
        InputError: the bundle's sensor does not say them, or the file says units besides.
    """
    known = sensor is not None and sensor.units_per_count is not None
    if sensor is None or not known or not set(stream.sensor.channels) <= set(sensor.channels):
        raise InputError(
            f"`x` of {stream.name} must be floats in units: int16 samples are counts, and there is no "
            "`units_per_count` of a sensor for every channel. Received: int16. "
            "Multiply the counts and save float32."
        )
    if "units" not in stream.assumed:
        raise InputError(
            f"`units` of {stream.name} must be left out: int16 samples are counts of the sensor. "
            f"Received: {', '.join(stream.sensor.units)}."
        )
    steps = dict(zip(sensor.channels, sensor.units_per_count or (), strict=True))
    return np.array([steps[channel] for channel in stream.sensor.channels])
