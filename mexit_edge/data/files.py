"""Recordings of one's own: files, folders and standard input, opened as streams."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from mexit_edge.data.array_file import ArrayStream
from mexit_edge.data.csv_file import STANDARD_INPUT, CsvStream
from mexit_edge.data.file_stream import FileStream, refuse_rate
from mexit_edge.errors import InputError
from mexit_edge.signals import Sensor
from mexit_edge.signals.windows import class_names

_READERS: dict[str, type[ArrayStream] | type[CsvStream]] = {
    ".csv": CsvStream,
    ".npy": ArrayStream,
    ".npz": ArrayStream,
}
# Recordings of a folder, and what is looked at to find them.
MAX_FILES = 10_000
_MAX_ENTRIES = 100_000


def open_streams(
    paths: Iterable[Path | str] | Path | str,
    sensor: Sensor | None = None,
    classes: Iterable[str] | None = None,
    *,
    sampling_rate_hz: float | None = None,
) -> list[FileStream]:
    """Open recordings; their samples are read when they are played.

    The streams come in their files' own order of channels, units and rate: `adapt` makes them those of the
    sensor, if asked to.

    Args:
        paths: .csv, .npy and .npz files, folders of such (read with their subfolders, in order of names), or
            "-" for CSV on standard input (see `CsvStream` and `ArrayStream` for what they hold).
        sensor: of the bundle, for what a file does not say (`FileStream.assumed`); its channels must all be
            there. None where there is no bundle.
        classes: name per class, in the order of the bundle; None to read labels as indices.
        sampling_rate_hz: of all of them; None for what each file says.

    Returns:
        One stream per recording, named by its path as given; the second of one path has " (2)" behind it.

    Raises:
        InputError: no recording, a file that cannot be read or is not as described, a channel that is
            missing, a class that is unknown, too many files, or a link in a folder.

    Example:
        >>> streams = open_streams(["walk.csv", "day/"], bundle.sensor, bundle.classes)  # doctest: +SKIP
    """
    if sampling_rate_hz is not None:
        refuse_rate(sampling_rate_hz, "recordings")
    names = None if classes is None else class_names(classes)
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if [str(path) for path in given].count(STANDARD_INPUT) > 1:
        raise InputError("`-` must be given once: there is one standard input. Received: several.")
    files = [file for path in given for file in _files(path)]
    if not files:
        raise InputError("`paths` must hold at least one recording. Received: none.")
    return [
        CsvStream(path, sensor, names, sampling_rate_hz)
        if path == STANDARD_INPUT
        else _READERS[Path(path).suffix.lower()](Path(path), sensor, names, sampling_rate_hz, name)
        for path, name in _numbered(files)
    ]


def _numbered(files: Iterable[tuple[Path | str, str]]) -> Iterator[tuple[Path | str, str]]:
    """Yield files with names that are told apart, so that chance hits each at places of its own."""
    seen: Counter[str] = Counter()
    for file, name in files:
        seen[name] += 1
        yield file, name if seen[name] == 1 else f"{name} ({seen[name]})"


def _files(path: Path | str) -> list[tuple[Path | str, str]]:
    """Return the recordings at a path, each with its name."""
    if str(path) == STANDARD_INPUT:
        return [(STANDARD_INPUT, STANDARD_INPUT)]
    place = Path(path)
    if place.is_dir():
        return [(file, file.as_posix()) for file in _in_folder(place)]
    if place.suffix.lower() not in _READERS:
        raise InputError(
            f"`paths` must be {', '.join(_READERS)} files, folders, or {STANDARD_INPUT} for standard input. "
            f"Received: {str(path)!r}."
        )
    if not place.is_file():
        raise InputError(f"`{place}` must be a file. Received: none of that name.")
    return [(place, place.as_posix())]


def _in_folder(folder: Path) -> list[Path]:
    """Return the recordings of a folder and its subfolders, in order of their names.

    Raises:
        InputError: there is none, there are too many, or one is a link, which may lead out of the folder.
    """
    entries = list(islice(_walk(folder), _MAX_ENTRIES + 1))
    found = sorted(file for file in entries if file.suffix.lower() in _READERS)
    if len(entries) > _MAX_ENTRIES or len(found) > MAX_FILES:
        raise InputError(
            f"`{folder}` must hold at most {MAX_FILES} recordings among {_MAX_ENTRIES} files. "
            "Received: more. Name a part of it."
        )
    links = [file for file in found if file.is_symlink() or not file.is_file()]
    if links:
        raise InputError(
            f"`{folder}` must hold files, and no links. Received: {links[0].relative_to(folder)}. "
            "Name what it leads to instead."
        )
    if not found:
        raise InputError(f"`{folder}` must hold {', '.join(_READERS)} files. Received: none.")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder but for hidden ones; links to folders are not followed."""
    for place, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in files if not name.startswith("."))
