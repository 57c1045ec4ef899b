"""Windows of equal length with label and subject: what networks are trained and judged on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mexit_edge.errors import InputError
from mexit_edge.signals.sensor import Sensor

# The label of a window whose class nobody knows; some training regimes learn from such windows too.
UNLABELLED = -1


def refuse_non_finite(x: NDArray[Any], argument: str) -> None:
    """Refuse NaN and infinite samples.

    Raises:
        InputError: with the place of the first one.
    """
    if not np.isfinite(x).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
        raise InputError(
            f"{argument} must hold finite samples. Received: {x[place]} at index {place}. "
            "Remove or interpolate such samples before."
        )


def as_array(values: ArrayLike, argument: str) -> NDArray[Any]:
    """Return an array of whatever was given for one.

    Raises:
        InputError: the rows have different lengths.
    """
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(
            f"`{argument}` must be an array, or lists of equal length. Received: {error}."
        ) from error


def class_names(classes: Iterable[str]) -> tuple[str, ...]:
    """Return the names of classes as a tuple.

    Raises:
        InputError: it is one text instead of several, there is none, a name is no text, or stands twice.
    """
    names = (classes,) if isinstance(classes, str) else tuple(classes)
    texts = all(isinstance(name, str) for name in names)
    if isinstance(classes, str) or not names or not texts or len(set(names)) != len(names):
        raise InputError(
            f"`classes` must hold one distinct name per class. Received: {classes!r}. "
            'Use a list of texts: `classes=["walk", "sit"]`.'
        )
    return names


def refuse_unlabelled(windows: Windows, argument: str) -> None:
    """Refuse windows of which some have no label, where every figure needs one.

    Raises:
        InputError: says how many there are and how to leave them out.
    """
    n_unlabelled = len(windows) - int(windows.labelled.sum())
    if n_unlabelled:
        raise InputError(
            f"`{argument}` must hold labelled windows only. "
            f"Received: {n_unlabelled} of {len(windows)} without a label ({UNLABELLED}). "
            "Leave them out with `windows.take(windows.labelled)`."
        )


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows cut from recordings.

    Args:
        x: (n, time, channels), float32 in the sensor's units.
        y: (n,), class index, 0 to n_classes - 1; -1 where the label is unknown.
        subject: (n,), whom each window was recorded from.
        sensor: what was measured.
        classes: name per class.
        name: of the data set, for results.

    Raises:
        InputError: shapes or labels do not fit, a class name stands twice, or a sample is not finite.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    subject: NDArray[np.int64]
    sensor: Sensor
    classes: tuple[str, ...]
    name: str = "windows"

    def __post_init__(self) -> None:
        class_names(self.classes)
        if self.x.ndim != 3 or self.x.shape[1:] != self.sensor.shape:
            raise InputError(
                f"`x` must have shape (n, {self.sensor.window}, {self.sensor.n_channels}). "
                f"Received: {self.x.shape}."
            )
        if self.x.dtype != np.float32:
            raise InputError(f"`x` must be float32. Received: {self.x.dtype}. Use `Windows.from_arrays`.")
        for name, values in (("y", self.y), ("subject", self.subject)):
            if values.dtype.kind not in "iu" or values.shape != self.x.shape[:1]:
                raise InputError(
                    f"`{name}` needs one integer per window ({len(self.x)}). "
                    f"Received: {values.dtype} of shape {values.shape}."
                )
        if len(self.y) and not UNLABELLED <= self.y.min() <= self.y.max() < self.n_classes:
            raise InputError(
                f"`y` must hold class indices from 0 to {self.n_classes - 1} ({', '.join(self.classes)}), "
                f"or {UNLABELLED} where the label is unknown. "
                f"Received: values from {self.y.min()} to {self.y.max()}."
            )
        refuse_non_finite(self.x, "`x`")

    @classmethod
    def from_arrays(
        cls,
        x: ArrayLike,
        y: ArrayLike,
        subject: ArrayLike | None = None,
        sensor: Sensor | None = None,
        classes: Iterable[str] | None = None,
        name: str = "windows",
    ) -> Windows:
        """Make windows of one's own arrays.

        Args:
            x: (n, time, channels), any real number type, in the sensor's units.
            y: (n,), integers; -1 where the label is unknown.
            subject: (n,), integers; None when all come from one subject.
            sensor: what was measured; None for numbered channels without a unit.
            classes: name per class; None for ``class_0``, ``class_1``, ... up to the largest label.
            name: of the data set, for results.

        Raises:
            InputError: the arrays are not numbers, or do not fit each other or the class names, or there are
                neither labels nor class names.
        """
        samples = as_array(x, "x")
        labels = as_array(y, "y")
        if samples.dtype.kind not in "iuf" or samples.ndim != 3:
            raise InputError(
                "`x` must be real numbers of shape (n, time, channels). "
                f"Received: {samples.dtype} of shape {samples.shape}."
            )
        if labels.dtype.kind not in "iu" or labels.ndim != 1:
            raise InputError(
                f"`y` must be integers of shape (n,). Received: {labels.dtype} of shape {labels.shape}."
            )
        whom = np.zeros(len(labels), np.int64) if subject is None else as_array(subject, "subject")
        if whom.dtype.kind not in "iu":
            raise InputError(
                f"`subject` must be integers of shape (n,). Received: {whom.dtype} of shape {whom.shape}. "
                "Number the subjects, for example with `np.unique(names, return_inverse=True)[1]`."
            )
        if classes is None:
            if len(labels) and (labels == UNLABELLED).all():
                raise InputError(
                    "`classes` must name the classes where no window is labelled. "
                    f'Received: None, and {UNLABELLED} for every `y`. Use `classes=["walk", "sit"]`.'
                )
            classes = (f"class_{index}" for index in range(int(labels.max(initial=0)) + 1))
        # What float32 cannot hold becomes infinite and is refused with its place.
        with np.errstate(over="ignore"):
            samples = np.ascontiguousarray(samples, dtype=np.float32)
        return cls(
            x=samples,
            y=labels.astype(np.int64),
            subject=whom.astype(np.int64),
            sensor=sensor or Sensor.plain(samples.shape[2], samples.shape[1]),
            classes=class_names(classes),
            name=name,
        )

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.x)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def subjects(self) -> tuple[int, ...]:
        """The distinct subjects, in ascending order."""
        return tuple(int(subject) for subject in np.unique(self.subject))

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(n,) whether each window has a label; ``windows.take(windows.labelled)`` leaves the others out."""
        return np.asarray(self.y >= 0)

    def take(self, chosen: NDArray[Any]) -> Windows:
        """Return the windows of an index array or boolean mask."""
        return replace(self, x=self.x[chosen], y=self.y[chosen], subject=self.subject[chosen])

    def of_subjects(self, subjects: Iterable[int]) -> Windows:
        """Return the windows of these subjects."""
        return self.take(np.isin(self.subject, list(subjects)))

    def counts(self) -> NDArray[np.int16]:
        """Return the windows as the int16 counts that the sensor delivers, (n, time, channels).

        Raises:
            InputError: the sensor's `units_per_count` is unknown.
        """
        if self.sensor.units_per_count is None:
            raise InputError(
                "`counts` needs the sensor's `units_per_count`. Received: None. "
                "Give it in `Sensor(units_per_count=...)`, or stay with float windows."
            )
        counts = np.rint(self.x / np.asarray(self.sensor.units_per_count, np.float64))
        return np.clip(counts, -32768, 32767).astype(np.int16)
