"""What native libraries write past Python's own streams."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import BinaryIO


class CaughtStderr:
    """Catch what native code writes to file descriptor 2; where that is closed, nothing happens.

    Args:
        keep: whether `text` is to return what was written; else it is thrown away, which takes no file.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self._text = ""

    def __enter__(self) -> CaughtStderr:
        self._file: BinaryIO | None = None
        try:
            self._stderr = os.dup(2)
        except OSError:
            return self
        self._file = _unnamed_file() if self._keep else Path(os.devnull).open("wb")
        os.dup2(self._file.fileno(), 2)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is None:
            return
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        with self._file:
            if self._keep:
                self._file.seek(0)
                self._text = self._file.read().decode("utf-8", "replace")

    def text(self) -> str:
        """Return what was written, if it was to be kept."""
        return self._text


def _unnamed_file() -> BinaryIO:
    # In memory where the system can, so that no folder needs to be writable.
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()
