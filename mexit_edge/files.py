"""Artefacts are written whole, to a temporary name and then renamed; their files are read with a bound."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mexit_edge.errors import InputError, RunError


def sha256(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 lowercase hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def read_from_folder(folder: Path, name: str, limit: int) -> bytes:
    """Return the bytes of a file of an artefact, never through a link, and none where it is too large.

    Args:
        folder: of the artefact.
        name: of the file.
        limit: largest number of bytes.

    Raises:
        InputError: there is no such file, it is a link, or it is above the limit.
    """
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise InputError(
            f"`{folder}` must hold the file {name}. Received: {'a link' if path.is_symlink() else 'none'}."
        )
    if path.stat().st_size > limit:
        raise InputError(f"`{name}` must be at most {limit} bytes. Received: {path.stat().st_size}.")
    return path.read_bytes()


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuse to write over something.

    Raises:
        InputError: ``path`` exists and ``overwrite`` is False.
    """
    if path.exists() and not overwrite:
        raise InputError(
            f"`{path}` exists already. Received: overwrite=False. "
            "Choose another name, or pass `overwrite=True` (`--overwrite`)."
        )


def refuse_unwritable(path: Path) -> None:
    """Refuse a place where nothing can be written, before the work whose result would be lost.

    Raises:
        InputError: what ``path`` lies in is no folder, cannot become one, or is not writable.
    """
    folder = path.absolute().parent
    while not (folder.exists() or folder.is_symlink()):
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "which is not writable" if folder.is_dir() else "which is no folder"
        raise InputError(
            f"`{path}` must lie in a folder that can be written to. Received: {folder}, {what}. "
            "Choose another place."
        )


def free_name(path: Path) -> Path:
    """Return ``path``, or the first of ``NAME-2``, ``NAME-3``, ... that does not exist yet."""
    number = 2
    candidate = path
    while candidate.exists():
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return candidate


@contextlib.contextmanager
def written_whole(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path to write to; rename it to ``path`` when the block ends without an error.

    The block may make a file or a folder of the temporary name. Until the renaming an existing artefact is
    untouched; when anything fails or interrupts, the temporary one is removed and the old one is still whole.

    A file is replaced in one step. A folder takes two, the old one aside and the new one in; when the process
    is killed or the power fails between them, both are whole in the folder ``.NAME.XXXXXXXX`` beside
    ``path``, the old one under the name ``replaced``, and have to be renamed by hand.

    Args:
        path: the final name.
        overwrite: whether an existing ``path`` may be replaced.

    Raises:
        InputError: ``path`` exists and ``overwrite`` is False, or its folder cannot be written to.
        RunError: neither the new one could be put in place nor the old one put back; says where both are.
    """
    refuse_existing(path, overwrite=overwrite)
    refuse_unwritable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    fresh, aside = workshop / path.name, workshop / "replaced"
    try:
        yield fresh
        _put_in_place(fresh, path, aside)
    except BaseException as error:
        if aside.exists() and not path.exists():
            raise RunError(
                f"`{path}` must be put back by hand: its renaming was cut short twice. Received: {error!r}. "
                f"Rename {aside}, the old one, or {fresh}, the new one."
            ) from error
        raise
    finally:
        # Never the last copy: as long as nothing stands at `path`, what was put aside stays.
        if path.exists() or not aside.exists():
            shutil.rmtree(workshop, ignore_errors=True)


def _put_in_place(fresh: Path, path: Path, aside: Path) -> None:
    """Rename ``fresh`` to ``path``; a folder in its place goes ``aside`` first, and back if that fails."""
    if not path.is_dir():
        fresh.replace(path)
        return
    try:
        path.rename(aside)
        fresh.rename(path)
    except BaseException:
        # An interrupt may come right after either renaming too: what stands where decides.
        if aside.exists() and not path.exists():
            aside.rename(path)
        raise


def write_bytes(path: Path, data: bytes, *, overwrite: bool = False) -> None:
    """Write one file whole (see `written_whole`)."""
    with written_whole(path, overwrite=overwrite) as fresh:
        fresh.write_bytes(data)
