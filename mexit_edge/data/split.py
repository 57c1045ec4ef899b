"""Four disjoint sets, split by subject: windows of one person never stand on two sides."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from operator import index

import numpy as np

from mexit_edge.data.catalogue import LoadedWindows
from mexit_edge.errors import InputError
from mexit_edge.signals import Windows
from mexit_edge.signals.windows import refuse_unlabelled

# How many subjects, or which ones.
Subjects = int | Iterable[int]

OFFICIAL = "official"
TEST_SHARE = 0.3
MIN_SUBJECTS = 4


@dataclass(frozen=True, eq=False)
class Split:
    """Windows for each of the four purposes, of different subjects.

    Args:
        train: what networks are fitted on; some of its windows may be unlabelled.
        validation: what early stopping looks at.
        calibration: what thresholds, temperatures and risk are set on.
        test: what results are reported on; never seen before.

    Raises:
        InputError: a subject stands in two sets, a set is empty, sensors or classes differ, or a window
            outside ``train`` is unlabelled.
    """

    train: Windows
    validation: Windows
    calibration: Windows
    test: Windows

    def __post_init__(self) -> None:
        _check_parts(self.parts)

    @property
    def parts(self) -> dict[str, Windows]:
        """Name -> windows, in the order train, validation, calibration, test."""
        return {
            "train": self.train,
            "validation": self.validation,
            "calibration": self.calibration,
            "test": self.test,
        }

    @property
    def subjects(self) -> dict[str, tuple[int, ...]]:
        """Name -> subjects, in the same order."""
        return _subjects_of(self.parts)


@dataclass(frozen=True, eq=False)
class HeldOutTest:
    """Windows to train on and windows to test on, of different subjects: for cross-fitting.

    Args:
        train: of all subjects that are not for the test; some of its windows may be unlabelled.
        test: what results are reported on; never seen before.

    Raises:
        InputError: as for `Split`.
    """

    train: Windows
    test: Windows

    def __post_init__(self) -> None:
        _check_parts(self.parts)

    @property
    def parts(self) -> dict[str, Windows]:
        """Name -> windows, in the order train, test."""
        return {"train": self.train, "test": self.test}

    @property
    def subjects(self) -> dict[str, tuple[int, ...]]:
        """Name -> subjects, in the same order."""
        return _subjects_of(self.parts)


def hold_out_test(windows: Windows, test: Subjects | str | None = None, seed: int = 0) -> HeldOutTest:
    """Set test subjects apart and leave all others for training, as cross-fitting wants it.

    Args:
        windows: windows of at least three subjects.
        test: see `split_by_subject`, which draws the same ones.
        seed: of the draw.

    Raises:
        InputError: fewer than two subjects are left, a subject is unknown, the data set has no official test
            subjects, a class has no training windows, or a test window is unlabelled.
    """
    everyone = windows.subjects
    _require_seed(seed)
    wanted = _test_subjects(windows, test)
    n_test = wanted if isinstance(wanted, int) else len(wanted)
    if len(everyone) - n_test < 2:
        raise InputError(
            f"`test` must leave at least two subjects for cross-fitting. Received: {len(everyone)} subjects, "
            f"{n_test} of them for the test. Test on fewer, for example `test=1`, or record more people."
        )
    drawn = _draw({"test": wanted}, everyone, seed)
    train = windows.of_subjects(drawn["train"])
    _refuse_absent_class(train, seed)
    return HeldOutTest(train, windows.of_subjects(drawn["test"]))


def split_by_subject(
    windows: Windows,
    test: Subjects | str | None = None,
    validation: Subjects | None = None,
    calibration: Subjects | None = None,
    seed: int = 0,
) -> Split:
    """Split windows into four sets of different subjects.

    Subjects that are named go where they are named; then test, validation and calibration, in this order,
    draw what they lack from the others; the rest is for training. Only training windows may be unlabelled:
    where other subjects have such windows too, split the labelled ones and give `train` its own back.

    Args:
        windows: windows of at least four subjects.
        test: ``"official"`` for the test subjects of the data set's authors (windows from `load` know them),
            the subjects themselves, how many to draw, or None to draw 30 % of all, at least one.
        validation: the subjects, how many to draw, or None to draw one of fifteen, at least one.
        calibration: the subjects, how many to draw, or None to draw one of four, at least one, at most three.
        seed: of the draw; the same seed gives the same split.

    Raises:
        InputError: there are too few subjects, a subject is unknown or named twice, the data set has no
            official test subjects, a class has no training windows, or a window outside `train` is
            unlabelled.

    Example:
        >>> split = split_by_subject(windows.take(windows.labelled))  # doctest: +SKIP
        >>> train = windows.of_subjects(split.train.subjects)  # doctest: +SKIP
        >>> split = dataclasses.replace(split, train=train)  # doctest: +SKIP
    """
    everyone = windows.subjects
    if len(everyone) < MIN_SUBJECTS:
        raise InputError(
            f"`windows` needs at least {MIN_SUBJECTS} subjects: one each for train, validation, calibration "
            f"and test. Received: {len(everyone)} ({_listed(everyone)}). "
            "Say whom each window comes from in `Windows.from_arrays(subject=...)`, or record more people."
        )
    _require_seed(seed)
    if validation is None:
        validation = max(1, len(everyone) // 15)
    if calibration is None:
        calibration = max(1, min(3, len(everyone) // 4))
    wanted = {
        "test": _test_subjects(windows, test),
        "validation": _wanted("validation", validation, everyone),
        "calibration": _wanted("calibration", calibration, everyone),
    }
    chosen = _draw(wanted, everyone, seed)
    train = windows.of_subjects(chosen["train"])
    _refuse_absent_class(train, seed)
    return Split(
        train=train,
        validation=windows.of_subjects(chosen["validation"]),
        calibration=windows.of_subjects(chosen["calibration"]),
        test=windows.of_subjects(chosen["test"]),
    )


def _require_seed(seed: int) -> None:
    try:
        at_least_0 = index(seed) >= 0
    except TypeError:
        at_least_0 = False
    if not at_least_0:
        raise InputError(f"`seed` must be an integer of at least 0. Received: {seed!r}.")


def _test_subjects(windows: Windows, test: Subjects | str | None) -> int | frozenset[int]:
    """Return the test subjects, or how many to draw."""
    everyone = windows.subjects
    if test is None:
        return max(1, round(TEST_SHARE * len(everyone)))
    if not isinstance(test, str):
        return _wanted("test", test, everyone)
    if test != OFFICIAL:
        raise InputError(
            f'`test` must be "{OFFICIAL}", subjects, a number of subjects, or None. Received: {test!r}.'
        )
    # Windows made by other means than `load` have no official split either.
    official = windows.official_test_subjects if isinstance(windows, LoadedWindows) else None
    if official is None:
        what = f"data set {windows.name!r}" if isinstance(windows, LoadedWindows) else "windows of one's own"
        raise InputError(
            f'`test="{OFFICIAL}"` needs a data set whose authors named test subjects. Received: {what}, '
            f"without such. Use `test=None` to draw {TEST_SHARE:.0%} of the subjects, or name them: "
            "`test=[...]`."
        )
    missing = set(official) - set(everyone)
    if missing:
        raise InputError(
            f'`test="{OFFICIAL}"` needs all official test subjects ({_listed(official)}). '
            f"Received: windows without {_listed(missing)}. Name those you mean: `test=[...]`."
        )
    return frozenset(official)


def _wanted(argument: str, value: Subjects, everyone: Collection[int]) -> int | frozenset[int]:
    """Return a set of known subjects, or how many to draw."""
    rule = f"`{argument}` must be a positive number of subjects or some of the subjects {_listed(everyone)}."
    if isinstance(value, bool | str):
        raise InputError(f"{rule} Received: {value!r}.")
    try:
        # Any integer type is a number; what is none must be iterable, and hold integers.
        named = (
            frozenset(index(subject) for subject in value) if isinstance(value, Iterable) else index(value)
        )
    except TypeError as error:
        raise InputError(f"{rule} Received: {value!r}.") from error
    if isinstance(named, int):
        if named < 1:
            raise InputError(f"{rule} Received: {named}.")
        return named
    unknown = named - set(everyone)
    if unknown or not named:
        raise InputError(f"{rule} Received: {_listed(unknown) if unknown else 'none of them'}.")
    return named


def _draw(
    wanted: Mapping[str, int | frozenset[int]], everyone: Collection[int], seed: int
) -> dict[str, Collection[int]]:
    """Return name -> subjects for the wanted sets, and for training."""
    chosen: dict[str, Collection[int]] = {
        name: subjects for name, subjects in wanted.items() if not isinstance(subjects, int)
    }
    _refuse_overlap(chosen)
    named = {subject for subjects in chosen.values() for subject in subjects}
    free = sorted(set(everyone) - named)
    counts = {name: count for name, count in wanted.items() if isinstance(count, int)}
    if sum(counts.values()) >= len(free):
        asked = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
        raise InputError(
            "`test`, `validation` and `calibration` must leave at least one subject for training. "
            f"Received: {len(everyone)} subjects, {len(named)} of them named, and to be drawn: {asked}. "
            "Ask for fewer, for example `test=1, validation=1, calibration=1`."
        )
    drawn = [free[place] for place in np.random.default_rng(seed).permutation(len(free))]
    for name, count in counts.items():
        chosen[name], drawn = drawn[:count], drawn[count:]
    return {**chosen, "train": drawn}


def _subjects_of(parts: Mapping[str, Windows]) -> dict[str, tuple[int, ...]]:
    return {name: windows.subjects for name, windows in parts.items()}


def _check_parts(parts: Mapping[str, Windows]) -> None:
    """Refuse sets that are empty, unlike, unlabelled outside `train`, or share a subject."""
    train = parts["train"]
    for name, windows in parts.items():
        if not len(windows):
            raise InputError(f"`{name}` must hold at least one window. Received: none.")
        if (windows.sensor, windows.classes) != (train.sensor, train.classes):
            raise InputError(
                f"`{name}` must have the sensor and classes of `train` ({train.classes}). "
                f"Received: {windows.classes}, {windows.sensor}. Cut all sets from one `Windows`."
            )
        if name != "train":
            refuse_unlabelled(windows, name)
    _refuse_overlap(_subjects_of(parts))


def _refuse_overlap(sets: Mapping[str, Collection[int]]) -> None:
    for (one, here), (other, there) in combinations(sets.items(), 2):
        common = set(here) & set(there)
        if common:
            raise InputError(
                f"`{one}` and `{other}` must have no subject in common. Received: {_listed(common)} in both. "
                "Name each subject once."
            )


def _refuse_absent_class(train: Windows, seed: int) -> None:
    present = set(np.unique(train.y).tolist())
    absent = [name for number, name in enumerate(train.classes) if number not in present]
    if absent:
        raise InputError(
            f"`train` needs windows of every class ({', '.join(train.classes)}). "
            f"Received: none of {', '.join(absent)} from subjects {_listed(train.subjects)} (seed {seed}). "
            "Use another `seed`, ask for fewer subjects in the other sets, or name the subjects of each set."
        )


def _listed(subjects: Iterable[int]) -> str:
    return ", ".join(str(subject) for subject in sorted(subjects)) or "none"
