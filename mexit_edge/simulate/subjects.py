"""Which subjects a bundle has seen: the one rule that keeps its test honest."""

from __future__ import annotations

from collections.abc import Collection

from mexit_edge.bundle import Manifest
from mexit_edge.errors import InputError
from mexit_edge.signals import Windows

FITTED = ("training", "validation")
SEEN = (*FITTED, "calibration")


def seen_subjects(manifest: Manifest, data: str) -> dict[str, tuple[int, ...]]:
    """Return the subjects of a data set that a bundle was made with: by set, training first.

    Args:
        manifest: of the bundle.
        data: name of the data set; subjects of another one are other people.
    """
    training = manifest.training
    calibration = manifest.policy.calibration if manifest.policy else None
    known = {
        "training": training.train_subjects if training.data == data else (),
        "validation": training.validation_subjects if training.data == data else (),
        "calibration": calibration.subjects if calibration and calibration.data == data else (),
    }
    return {name: subjects for name, subjects in known.items() if subjects}


def refuse_seen(manifest: Manifest, windows: Windows, sets: Collection[str]) -> None:
    """Refuse windows of subjects that stand in one of these sets of the bundle.

    Args:
        manifest: of the bundle.
        windows: that are to be new to it.
        sets: names of sets, see `SEEN`.

    Raises:
        InputError: names the set and the subjects.
    """
    for name, subjects in seen_subjects(manifest, windows.name).items():
        overlap = sorted(set(subjects) & set(windows.subjects))
        if name in sets and overlap:
            raise InputError(
                f"`windows` must come from subjects that are new to the bundle. Received: "
                f"{', '.join(map(str, overlap))} of {windows.name}, from its {name} set. If these are other "
                "people, say so by the `name` or `subject` of the windows; to look at seen windows all the "
                "same, pass `allow_seen=True` to `simulate`."
            )
