"""What one run leaves: logits of the judged windows and what they cost, from which every figure follows."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.benchmark.sweep import Run
from mexit_edge.errors import InputError
from mexit_edge.files import write_bytes

VERSION = 1
# A record unpacks to less: 100,000 windows, 10 exits, 100 classes, float and six severities.
MAX_RECORD_BYTES = 1 << 30
_FACTS = "facts"
_ARRAYS = ("y", "subject", "float_logits", "int8_logits", "calibration_y", "calibration_logits")


@dataclass(frozen=True, eq=False)
class RunRecord:
    """What one run leaves.

    Args:
        run: its settings.
        classes: name per class.
        exits: name per exit, E of them.
        subjects: set -> subjects: training, validation, calibration and judged; those that there were.
        n_training_windows: that the judged network was trained on.
        y: (n,) labels of the judged windows.
        subject: (n,) subject per judged window.
        float_logits: (n, E, classes) of the float network on the windows as they are.
        severities: S of them, from 0, the windows as they are.
        int8_logits: (S, n, E, classes) of the int8 stages per severity.
        calibration_y: (m,) labels of the windows that set thresholds.
        calibration_logits: (m, E, classes) int8, of the stages; cross-fitted, of the fold networks, in the
            stages' steps.
        scales: (E,) quantization scale of each exit's logits.
        thresholds: (E - 1,) integers of the policy.
        exit_macs: (E,) multiply-accumulates of a window that leaves at each exit.
        plain_macs: of the same network with the final exit alone.
        training_cost: rows of `mexit_edge.regimes.PhaseCost.to_dict`, every network of the run.
        epochs: that the judged network was trained for.
        engine: that executed the stages.
        versions: package -> version.
    """

    run: Run
    classes: tuple[str, ...]
    exits: tuple[str, ...]
    subjects: dict[str, tuple[int, ...]]
    n_training_windows: int
    y: NDArray[np.int64]
    subject: NDArray[np.int64]
    float_logits: NDArray[np.float32]
    severities: tuple[float, ...]
    int8_logits: NDArray[np.int8]
    calibration_y: NDArray[np.int64]
    calibration_logits: NDArray[np.int8]
    scales: tuple[float, ...]
    thresholds: tuple[int, ...]
    exit_macs: tuple[int, ...]
    plain_macs: int
    training_cost: tuple[dict[str, Any], ...]
    epochs: int
    engine: str
    versions: dict[str, str]

    def save(self, path: Path) -> None:
        """Write the record whole, over an older one of the same run."""
        facts: dict[str, Any] = {"version": VERSION, "run": self.run.model_dump(mode="json")}
        for field in fields(self):
            if field.name not in (*_ARRAYS, "run"):
                facts[field.name] = getattr(self, field.name)
        content = io.BytesIO()
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        np.savez_compressed(content, **{**arrays, _FACTS: np.array(json.dumps(facts))})
        write_bytes(path, content.getvalue(), overwrite=True)

    @classmethod
    def load(cls, path: Path) -> RunRecord:
        """Return the record of a file.

        Raises:
            InputError: it is none, is of another version, or unpacks to more than 1 GiB.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > MAX_RECORD_BYTES:
                raise ValueError(f"unpacks to {size} bytes")
            with np.load(path, allow_pickle=False) as stored:
                facts = json.loads(str(stored[_FACTS]))
                arrays: dict[str, Any] = {name: np.asarray(stored[name]) for name in _ARRAYS}
            if facts.pop("version") != VERSION:
                raise ValueError("of another version")
            run = Run.model_validate(facts.pop("run"))
            subjects = {name: tuple(numbers) for name, numbers in facts.pop("subjects").items()}
            return cls(run=run, subjects=subjects, **{k: _tuples(v) for k, v in facts.items()}, **arrays)
        # What NumPy, zipfile and json raise on a damaged file is no closed list.
        except Exception as error:
            raise InputError(
                f"`{path.name}` must be the record of a run, of version {VERSION}. Received: {error}. "
                "Remove it, and the run is done again."
            ) from error


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
