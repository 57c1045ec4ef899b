"""The data sets there are, by name. Each has a card in datasets/ and a module of its own in this room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mexit_edge.data import hapt, watch
from mexit_edge.errors import InputError, unknown_name
from mexit_edge.signals import Recording, Windows, cut_windows


@dataclass(frozen=True)
class DataSet:
    """What is known of a data set before it is read.

    Args:
        name: the name by which `load` knows it; its card is ``datasets/NAME.md``.
        title: what it is, in a few words.
        licence: under which its authors publish it.
        source: whom and where it comes from.
        classes: name per class.
        official_test_subjects: the test subjects of its authors; None when they named none.
        load_recordings: reads it.
    """

    name: str
    title: str
    licence: str
    source: str
    classes: tuple[str, ...]
    official_test_subjects: tuple[int, ...] | None
    load_recordings: Callable[[], list[Recording]]

    @property
    def standard_test(self) -> str | None:
        """What `split_by_subject` takes as ``test``: official subjects where there are any, else a draw."""
        return "official" if self.official_test_subjects else None


@dataclass(frozen=True, eq=False)
class LoadedWindows(Windows):
    """Windows that know the official test subjects; what `take` and `of_subjects` return knows them too.

    Args:
        official_test_subjects: see `DataSet`.
    """

    official_test_subjects: tuple[int, ...] | None = None


DATASETS: dict[str, DataSet] = {
    entry.name: entry
    for entry in (
        DataSet(
            name="hapt",
            title="UCI HAPT: six activities, phone at the waist, 30 subjects",
            licence="CC BY 4.0",
            source="Reyes-Ortiz et al., UCI Machine Learning Repository, data set 341 (2015)",
            classes=hapt.CLASSES,
            official_test_subjects=hapt.OFFICIAL_TEST_SUBJECTS,
            load_recordings=hapt.load_recordings,
        ),
        DataSet(
            name="watch",
            title="Shoulder exercises: seven exercises, watch at the wrist, 10 subjects",
            licence="BSD-3-Clause",
            source="Burns et al., Physiological Measurement 39 (2018), as shipped with seglearn",
            classes=watch.CLASSES,
            official_test_subjects=None,
            load_recordings=watch.load_recordings,
        ),
    )
}


def dataset(name: str) -> DataSet:
    """Return what is known of a data set, without reading it.

    Args:
        name: a key of `DATASETS`.

    Raises:
        InputError: no such data set.
    """
    if name not in DATASETS:
        raise unknown_name("data", name, DATASETS)
    return DATASETS[name]


def load(name: str, window: int | None = None, hop: int | None = None) -> LoadedWindows:
    """Read a data set and cut it into windows that lie inside one class.

    Args:
        name: a key of `DATASETS`.
        window: samples per window; the data set's own if None.
        hop: samples between the starts of two windows; the data set's own if None.

    Returns:
        x (n, time, channels) float32 in the sensor's units, y, subject, sensor and classes.

    Raises:
        InputError: no such data set, a window or hop that is no positive integer, or longer than any stretch.
        MissingExtraError: the package that brings the data is not installed.

    Example:
        >>> windows = load("hapt")  # doctest: +SKIP
        >>> windows.x.shape  # doctest: +SKIP
        (10017, 128, 6)
    """
    entry = dataset(name)
    for argument, value in (("window", window), ("hop", hop)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InputError(
                f"`{argument}` must be a positive number of samples, or None for the data set's own. "
                f"Received: {value!r}."
            )
    cut = cut_windows(entry.load_recordings(), entry.classes, window, hop)
    return LoadedWindows(
        x=cut.x,
        y=cut.y,
        subject=cut.subject,
        sensor=cut.sensor,
        classes=cut.classes,
        name=entry.name,
        official_test_subjects=entry.official_test_subjects,
    )
