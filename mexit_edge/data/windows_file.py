"""Windows of one's own in a .npz, and other arrays in files, read without pickle."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.signals import Windows

MAX_WINDOWS_BYTES = 1 << 30
ARRAY, ARRAYS = ".npy", ".npz"


def read_arrays(
    path: Path, suffixes: tuple[str, ...] = (ARRAYS,), argument: str = "--windows"
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file by name; the one of a .npy under the name "".

    Args:
        path: of the file.
        suffixes: of what is taken, for the message; a .npy only where it is among them.
        argument: that named the file, for messages.

    Raises:
        InputError: it is none of these, or unpacks to more than 1 GiB.
    """
    try:
        is_single = ARRAY in suffixes and path.suffix != ARRAYS
        size = path.stat().st_size if is_single else _unpacked_bytes(path)
        if size > MAX_WINDOWS_BYTES:
            raise InputError(f"`{argument}` must be at most {MAX_WINDOWS_BYTES} bytes. Received: {size}.")
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {"": found}
        with found as arrays:
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    except InputError:
        raise
    # What NumPy and zipfile raise on a damaged file is no closed list; nothing but the file can be the cause.
    except Exception as error:
        raise InputError(
            f"`{argument}` must be a {' or '.join(suffixes)} of numbers. Received: {path}: {error}."
        ) from error


def read_labelled(path: Path, argument: str = "--windows") -> dict[str, NDArray[Any]]:
    """Return the arrays of a file by name, x and y among them.

    Raises:
        InputError: one of them is missing, or as for `read_arrays`.
    """
    arrays = read_arrays(path, argument=argument)
    if not {"x", "y"} <= set(arrays):
        raise InputError(
            f"`{argument}` must hold the arrays x and y, and subject where it is known. "
            f"Received: {', '.join(arrays) or 'none'}."
        )
    return arrays


def load_windows(path: Path, argument: str = "windows") -> Windows:
    """Return the windows of a .npz, named after the file.

    Args:
        path: of a .npz with raw windows ``x`` (n, time, channels), labels ``y`` (n,) and, where they are
            known, ``subject`` (n,).
        argument: that named the file, for messages.

    Raises:
        InputError: as for `read_labelled` and `Windows.from_arrays`.
    """
    arrays = read_labelled(path, argument)
    return Windows.from_arrays(arrays["x"], arrays["y"], arrays.get("subject"), name=path.stem)


def _unpacked_bytes(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist())
