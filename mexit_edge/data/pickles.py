"""Reading old pickles that arrive inside pip packages, without importing the packages or trusting the files.

Three fences, one behind the other: the file must not be larger than expected, it must have the pinned
SHA-256, and the unpickler builds nothing but what an explicit list allows.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import io
import pickle
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError, MissingExtraError
from mexit_edge.files import sha256

EXTRA = "data"

# (module, name) as the pickle spells them -> what stands in for it.
Allowed = Mapping[tuple[str, str], Callable[..., Any]]


class Inert:
    """A stand-in that keeps what the pickle hands to a class and does nothing with it.

    Attributes:
        arguments: what the constructor was called with.
        state: what the pickle set as the object's state, None if it set none.
    """

    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> Inert:
        """Keep the arguments."""
        self = super().__new__(cls)
        self.arguments = arguments
        self.state = None
        return self

    def __init__(self, *arguments: Any) -> None:
        """Do nothing; `__new__` has kept the arguments, because some opcodes of a pickle skip `__init__`."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _empty_array(*_: Any) -> NDArray[Any]:
    """Stand in for NumPy's `_reconstruct`, whatever class and shape it is asked for; the state follows."""
    return np.empty(0, np.int8)


def _dtype(code: str, *_: Any) -> np.dtype[Any]:
    """Make a dtype of its code alone: old pickles pass `align` as an integer, which NumPy deprecates."""
    return np.dtype(code)


def _latin1(text: str, *_: Any) -> bytes:
    """Stand in for `_codecs.encode`, by which Python 3 writes bytes into a pickle that Python 2 can read."""
    return text.encode("latin1")


# `numpy.core` is the old name of `numpy._core`; the stand-ins need neither.
NUMPY_ARRAYS: Allowed = {
    ("_codecs", "encode"): _latin1,
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): Inert,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
}


class _RestrictedUnpickler(pickle.Unpickler):
    """Finds no class and no function but those of a list."""

    def __init__(self, content: io.BytesIO, allowed: Allowed, name: str) -> None:
        super().__init__(content, encoding="latin1")
        self._allowed = allowed
        self._name = name

    def find_class(self, module: str, name: str, /) -> Any:
        """Return the stand-in; this is the only way from a pickle to code."""
        if (module, name) not in self._allowed:
            known = ", ".join(sorted(".".join(pair) for pair in self._allowed))
            raise InputError(
                f"`{self._name}` may name only {known}. Received: {module}.{name}. "
                "The file is not the one this reader was written for; do not open it by other means."
            )
        return self._allowed[module, name]


def unpickle(content: bytes, allowed: Allowed, name: str) -> Any:
    """Return the object in a pickle, built of plain Python values and the allowed stand-ins only.

    Args:
        content: the pickle.
        allowed: what the pickle may name, and what stands in for it.
        name: name of the file, for messages.

    Raises:
        InputError: the pickle names anything else, or is damaged.
    """
    try:
        return _RestrictedUnpickler(io.BytesIO(content), allowed, name).load()
    except InputError:
        raise
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
    ) as error:
        raise InputError(f"`{name}` must be a whole pickle. Received: a damaged one ({error}).") from error


def read_packaged(distribution: str, path: str, expected_sha256: str, max_bytes: int) -> bytes:
    """Return a file of an installed distribution, found through its list of files.

    Args:
        distribution: name of the distribution, as pip knows it.
        path: path inside the distribution, with forward slashes.
        expected_sha256: 64 lowercase hexadecimal digits.
        max_bytes: largest size that is read at all.

    Raises:
        MissingExtraError: the distribution is not installed.
        InputError: the file is absent, too large, or not the pinned one.
    """
    located = _locate(distribution, path)
    size = located.stat().st_size
    if size > max_bytes:
        raise InputError(
            f"`{path}` of {distribution} must not be larger than {max_bytes} bytes. Received: {size} bytes. "
            f"{_reinstall()}"
        )
    content = located.read_bytes()
    received = sha256(content)
    if received != expected_sha256:
        raise InputError(
            f"`{path}` of {distribution} must have the SHA-256 {expected_sha256}. Received: {received}. "
            f"{_reinstall()}"
        )
    return content


def gunzip(content: bytes, max_bytes: int, name: str) -> bytes:
    """Return what a .gz holds, and never unpack more than ``max_bytes``.

    Args:
        content: the .gz.
        max_bytes: largest size of the content.
        name: name of the file, for messages.

    Raises:
        InputError: the content is larger, or the .gz is damaged.
    """
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            unpacked = stream.read(max_bytes + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"`{name}` must be a whole .gz. Received: a damaged one ({error}).") from error
    if len(unpacked) > max_bytes:
        raise InputError(f"`{name}` must not hold more than {max_bytes} bytes. Received: more.")
    return unpacked


def _locate(distribution: str, path: str) -> Path:
    """Return where the file lies; nothing of the distribution is imported to find out."""
    try:
        files = importlib.metadata.files(distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtraError(f"The data package {distribution}", EXTRA) from error
    for file in files or ():
        located = Path(str(file.locate()))
        if file.as_posix() == path and located.is_file():
            return located
    raise InputError(
        f"the data package {distribution} must hold `{path}`. Received: an installation without it. "
        f"{_reinstall()}"
    )


def _reinstall() -> str:
    return f"Install the pinned release anew: pip install --force-reinstall 'mexit-edge[{EXTRA}]'"
