"""Read a .tflite that a command is given."""

from __future__ import annotations

from pathlib import Path

from mexit_edge.errors import InputError
from mexit_edge.tflite.verify import MAX_MODEL_BYTES


def read_model(path: Path, argument: str) -> bytes:
    """Return the bytes of a file, of which none is read where it is too large.

    Args:
        path: of the file.
        argument: of the command, for the message.

    Raises:
        InputError: there is no such file, or it is above the bound of `tflite.verify`.
    """
    if not path.is_file():
        raise InputError(f"`{argument}` must be a .tflite file. Received: {path}, which is none.")
    size = path.stat().st_size
    if size > MAX_MODEL_BYTES:
        raise InputError(f"`{argument}` must be at most {MAX_MODEL_BYTES} bytes. Received: {size} bytes.")
    return path.read_bytes()
