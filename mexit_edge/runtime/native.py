"""What native libraries write past Python's own streams."""

from __future__ import annotations

import os
import tempfile


class CaughtStderr:
    """Catch what native code writes to file descriptor 2."""

    def __enter__(self) -> CaughtStderr:
        self._kept = os.dup(2)
        self._file = tempfile.TemporaryFile()
        os.dup2(self._file.fileno(), 2)
        return self

    def __exit__(self, *exception: object) -> None:
        os.dup2(self._kept, 2)
        os.close(self._kept)
        self._file.seek(0)
        self._text = self._file.read().decode("utf-8", "replace")
        self._file.close()

    def text(self) -> str:
        """Return what was written."""
        return self._text
