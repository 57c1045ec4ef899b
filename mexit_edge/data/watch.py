"""Shoulder exercises with a smartwatch at the wrist, 10 subjects (datasets/watch.md).

Source: Burns et al., "Shoulder physiotherapy exercise recognition: machine learning the inertial signals
from a smartwatch", Physiological Measurement 39 (2018), doi 10.1088/1361-6579/aacfd9, arXiv 1802.01489.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from mexit_edge.data import pickles
from mexit_edge.errors import InputError
from mexit_edge.signals import Recording, Sensor

DISTRIBUTION = "seglearn"
FILE = "seglearn/data/watch_dataset.npy"
SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
MAX_FILE_BYTES = 32 << 20

# The file's short names, in the order of its labels, and what they stand for.
_EXERCISES = {
    "PEN": "pendulum",
    "ABD": "abduction",
    "FEL": "forward_elevation",
    "IR": "internal_rotation",
    "ER": "external_rotation",
    "TRAP": "lower_trapezius_row",
    "ROW": "bent_over_row",
}
CLASSES = tuple(_EXERCISES.values())

_COLUMNS = ("ax", "ay", "az", "wx", "wy", "wz")

SENSOR = Sensor(
    channels=("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"),
    units=("g",) * 3 + ("rad/s",) * 3,
    sampling_rate_hz=50.0,
    window=128,
    hop=64,
    triads=((0, 1, 2), (3, 4, 5)),
    rigid_bodies=((0, 1),),
    # The samples are decimals of six digits, on no grid that an int16 could hold (datasets/watch.md).
    units_per_count=None,
)


def load_recordings() -> list[Recording]:
    """Return the 140 recordings, in the file's order; each holds one exercise of one subject on one side.

    Samples (time, 6) are acceleration including gravity in g and angular rate in rad/s.

    Raises:
        MissingExtraError: the data package is not installed.
        InputError: its file is not the pinned one.
    """
    content = pickles.read_packaged(DISTRIBUTION, FILE, SHA256, MAX_FILE_BYTES)
    data: dict[str, Any] = pickles.unpickle(
        content[_start_of_pickle(content) :], pickles.NUMPY_ARRAYS, FILE
    ).item()
    if tuple(data["X_labels"]) != _COLUMNS or tuple(data["y_labels"]) != tuple(_EXERCISES):
        raise InputError(
            f"`{FILE}` must hold the columns {', '.join(_COLUMNS)} and exercises {', '.join(_EXERCISES)}. "
            f"Received: {data['X_labels']}, {data['y_labels']}."
        )
    return [
        Recording(
            x=np.ascontiguousarray(x, np.float32),
            y=np.full(len(x), exercise, np.int64),
            subject=int(subject),
            sensor=SENSOR,
            name=f"watch subject {subject} {CLASSES[exercise]} {'right' if side else 'left'}",
        )
        for x, exercise, subject, side in zip(
            data["X"], data["y"], data["subject"], data["side"], strict=True
        )
    ]


def _start_of_pickle(content: bytes) -> int:
    """Return where the pickle begins in a .npy of one object; `allow_pickle=True` would run whatever it says.

    Raises:
        InputError: the content is no such .npy.
    """
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"version {version}")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        if shape != () or dtype != np.dtype(object):
            raise ValueError(f"{dtype} of shape {shape}")
    except ValueError as error:
        raise InputError(f"`{FILE}` must be a .npy of one object. Received: {error}.") from error
    return stream.tell()
