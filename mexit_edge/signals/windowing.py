"""Cut recordings into windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mexit_edge.errors import InputError
from mexit_edge.signals.recording import Recording
from mexit_edge.signals.sensor import Sensor
from mexit_edge.signals.windows import Windows, class_names


def cut_windows(
    recordings: Iterable[Recording], classes: Sequence[str], window: int | None = None, hop: int | None = None
) -> Windows:
    """Cut every recording at multiples of the hop and keep the windows that lie inside one class.

    Args:
        recordings: recordings of one sensor.
        classes: name per class; a window whose samples carry no label (-1), or several, is left out.
        window: samples per window; the sensor's own if None.
        hop: samples between two starts; the sensor's own if None.

    Returns:
        Windows in the order of the recordings, in time order within each.

    Raises:
        InputError: no recording, recordings of different sensors, a label without a class, or no recording
            that gives a window.
    """
    names = class_names(classes)
    several = list(recordings)
    if not several:
        raise InputError("`recordings` must hold at least one recording. Received: none.")
    sensor = several[0].sensor
    if any(recording.sensor != sensor for recording in several):
        raise InputError("`recordings` must share one sensor. Received: recordings of different sensors.")
    sensor = sensor.with_windowing(
        sensor.window if window is None else window, sensor.hop if hop is None else hop
    )
    for recording in several:
        _refuse_unknown_labels(recording, len(names))
    parts = [_cut_one(recording, sensor) for recording in several]
    x = np.concatenate([part[0] for part in parts])
    if not len(x):
        raise InputError(
            f"`window` of {sensor.window} samples must fit into a stretch of one class. "
            f"Received: {len(several)} recordings without such a stretch."
        )
    y = np.concatenate([part[1] for part in parts])
    subject = np.repeat([recording.subject for recording in several], [len(part[1]) for part in parts])
    return Windows(x, y, subject.astype(np.int64), sensor, names)


def _refuse_unknown_labels(recording: Recording, n_classes: int) -> None:
    """Refuse labels that are no class and not -1: dropping them would hide a wrong list of classes."""
    unknown = np.unique(recording.y[(recording.y < -1) | (recording.y >= n_classes)])
    if len(unknown):
        raise InputError(
            f"`y` of {recording.name} must hold class indices from 0 to {n_classes - 1}, or -1 for no label. "
            f"Received: {', '.join(map(str, unknown[:5]))}. Name every class in `classes`, or label such "
            "samples -1."
        )


def _cut_one(
    recording: Recording, sensor: Sensor
) -> tuple[
    np.ndarray[tuple[int, ...], np.dtype[np.float32]], np.ndarray[tuple[int, ...], np.dtype[np.int64]]
]:
    """Return x (n, time, channels) and y (n,) of one recording."""
    if len(recording.x) < sensor.window:
        return np.empty((0, *sensor.shape), np.float32), np.empty(0, np.int64)
    labels = sliding_window_view(recording.y, sensor.window)[:: sensor.hop]
    first = labels[:, 0]
    inside = (labels == first[:, None]).all(axis=1) & (first >= 0)
    samples = sliding_window_view(recording.x, sensor.window, axis=0)[:: sensor.hop][inside]
    return np.ascontiguousarray(samples.transpose(0, 2, 1), np.float32), first[inside].astype(np.int64)
