"""Read arrays that a command is given in a file, without pickle."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError

MAX_WINDOWS_BYTES = 1 << 30
ARRAY, ARRAYS = ".npy", ".npz"


def read_arrays(path: Path, suffixes: tuple[str, ...] = (ARRAYS,)) -> dict[str, NDArray[Any]]:
    """Return the arrays of `--windows` by name; the one of a .npy under the name "".

    Args:
        path: of the file.
        suffixes: of what is taken, for the message; a .npy only where it is among them.

    Raises:
        InputError: it is none of these, or unpacks to more than 1 GiB.
    """
    try:
        is_single = ARRAY in suffixes and path.suffix != ARRAYS
        size = path.stat().st_size if is_single else _unpacked_bytes(path)
        if size > MAX_WINDOWS_BYTES:
            raise InputError(f"`--windows` must be at most {MAX_WINDOWS_BYTES} bytes. Received: {size}.")
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
            f"`--windows` must be a {' or '.join(suffixes)} of numbers. Received: {path}: {error}."
        ) from error


def read_labelled(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of `--windows` by name, x and y among them.

    Raises:
        InputError: one of them is missing, or as for `read_arrays`.
    """
    arrays = read_arrays(path)
    if not {"x", "y"} <= set(arrays):
        raise InputError(
            "`--windows` must hold the arrays x and y, and subject where it is known. "
            f"Received: {', '.join(arrays) or 'none'}."
        )
    return arrays


def _unpacked_bytes(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist())
