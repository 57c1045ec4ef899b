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

# That `tempfile.mkdtemp` puts behind a prefix.
RANDOM_CHARACTERS = 8


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


def refuse_nameless(path: Path) -> None:
    """Refuse to write to what has no name of its own: nothing, ``.``, ``..`` or ``/``.

    Raises:
        InputError: so it is.
    """
    if path.name in ("", ".."):
        raise InputError(
            f"`{path}` must end in the name of what is written. Received: {str(path)!r}, a folder that is "
            "there already. Add a name to it."
        )


def stands(path: Path) -> bool:
    """Return whether there is something at a place that is to be written to.

    Raises:
        InputError: the system cannot look there: the name is too long, or a folder is closed to us.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise InputError(
            f"`{path}` must be a place that can be written to. "
            f"Received: {getattr(error, 'strerror', None) or error}. Choose another name or folder."
        ) from error
    return True


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuse to write over something.

    Raises:
        InputError: ``path`` exists and ``overwrite`` is False, or it is no name for anything.
    """
    refuse_nameless(path)
    if stands(path) and not overwrite:
        raise InputError(
            f"`{path}` exists already. Received: overwrite=False. "
            "Choose another name, or pass `overwrite=True` (`--overwrite`)."
        )


def refuse_unwritable(path: Path) -> None:
    """Refuse a place where nothing can be written, before the work whose result would be lost.

    Raises:
        InputError: ``path`` is no name for anything, or what it lies in is no folder, cannot become one, or
            is not writable.
    """
    refuse_nameless(path)
    folder = path.absolute().parent
    while not (stands(folder) or folder.is_symlink()):
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "which is not writable" if folder.is_dir() else "which is no folder"
        raise InputError(
            f"`{path}` must lie in a folder that can be written to. Received: {folder}, {what}. "
            "Choose another place."
        )
    # Names below a folder that is not there yet are looked up by nobody: each is tried where one is.
    *between, _ = path.absolute().relative_to(folder).parts
    for name in (*between, _workshop_prefix(path) + "x" * RANDOM_CHARACTERS):
        stands(folder / name)


def free_name(path: Path) -> Path:
    """Return ``path``, or the first of ``NAME-2``, ``NAME-3``, ... that does not exist yet.

    Raises:
        InputError: the system takes no such name.
    """
    number = 2
    candidate = path
    while stands(candidate):
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
        InputError: ``path`` exists and ``overwrite`` is False, it is no name for anything, or its folder
            cannot be written to.
        RunError: neither the new one could be put in place nor the old one put back; says where both are.
    """
    refuse_existing(path, overwrite=overwrite)
    refuse_unwritable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=_workshop_prefix(path), dir=path.parent))
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


def _workshop_prefix(path: Path) -> str:
    return f".{path.name}."


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
