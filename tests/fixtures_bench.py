"""Records of runs that never were: logits by hand or at random; and windows; for the tests of sweeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mexit_edge.benchmark.record import RunRecord
from mexit_edge.benchmark.sweep import Backbone, Protocol, RegimeChoice, Run, Sweep

SEVERITIES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
EXITS = ("exit_01", "exit_02", "exit_03")
CLASSES = ("walk", "sit", "stand", "lie")


def save_windows(file: Path, n_subjects: int = 8) -> Path:
    """Thirty windows of three classes per subject."""
    n, rng = 30 * n_subjects, np.random.default_rng(0)
    y = np.arange(n) % 3
    x = rng.normal(size=(n, 32, 2)) + y[:, None, None] * np.sin(np.arange(32))[None, :, None]
    np.savez(file, x=x.astype(np.float32), y=y, subject=np.arange(n) // 30)
    return file


def run_of(data: str = "hapt", regime: str = "joint", seed: int = 0, fold: int | None = None) -> Run:
    protocol = Protocol(judged_on="test" if fold is None else "out_of_fold")
    training = RegimeChoice(name="joint", label=regime)
    return Run(
        data=data, network=Backbone(name="cnn"), training=training, seed=seed, fold=fold, protocol=protocol
    )


def sweep_of(records: list[RunRecord], **changes: Any) -> Sweep:
    regimes = {one.run.regime: RegimeChoice(name="joint", label=one.run.regime) for one in records}
    facts: dict[str, Any] = {
        "data": tuple({one.run.data: None for one in records}),
        "regimes": tuple(regimes.values()),
        "seeds": tuple(sorted({one.run.seed for one in records})),
    }
    return Sweep(**{**facts, **changes})


def phase_cost(forward: int | None = 1000, backward: int | None = 2000, **changes: Any) -> dict[str, Any]:
    return {
        "phase": "joint",
        "epochs": 30,
        "steps": 60,
        "windows": 3000,
        "forward_macs": forward,
        "backward_macs": backward,
        "measured_seconds": 12.5,
        "measured_peak_memory_bytes": 1_000_000,
        **changes,
    }


def hand_record(**changes: Any) -> RunRecord:
    """Two exits, two classes, four windows of two subjects, at 100 and 200 MACs; a single exit costs 190.

    | window | class | margin at exit 1 | exit 1 | exit 2 |
    |---|---|---|---|---|
    | 0 | 0 | 40 | right | right |
    | 1 | 0 | 10 | wrong | right |
    | 2 | 1 | 30 | right | wrong |
    | 3 | 1 | 20 | wrong | right |

    The calibration windows have the same logits; thresholds of budgets can then be 40, 30, 20, 10 or none.
    """
    says = [(0, 40, 0), (1, 10, 0), (1, 30, 0), (0, 20, 1)]
    logits = np.zeros((4, 2, 2), np.int8)
    for window, (first, margin, last) in enumerate(says):
        logits[window, 0, first] = margin
        logits[window, 1, last] = 50
    y = np.array([0, 0, 1, 1])
    record = RunRecord(
        run=run_of(),
        classes=("walk", "sit"),
        exits=EXITS[:2],
        subjects={"training": (1, 2), "judged": (7, 8)},
        n_training_windows=100,
        y=y,
        subject=np.array([7, 7, 8, 8]),
        float_logits=logits.astype(np.float32),
        severities=(0.0,),
        int8_logits=logits[None],
        calibration_y=y,
        calibration_logits=logits,
        scales=(0.1, 0.1),
        thresholds=(30,),
        exit_macs=(100, 200),
        plain_macs=190,
        training_cost=(phase_cost(),),
        epochs=30,
        engine="litert",
        versions={"numpy": "2"},
    )
    return replace(record, **changes)


def drawn_record(
    run: Run,
    strength: tuple[float, float, float] = (2.0, 3.0, 4.0),
    *,
    n: int = 120,
    robustness: float = 0.5,
    cost: float = 1.0,
    n_training_windows: int = 1000,
    severities: tuple[float, ...] = SEVERITIES,
    draw: int = 0,
) -> RunRecord:
    """Logits at random whose margin towards the right class grows with ``strength`` of the exit.

    Windows depend on the data set and seed alone, so that regimes are judged on the same ones.
    """
    windows = np.random.default_rng((1, *run.data.encode()))
    y, subject = windows.integers(len(CLASSES), size=n), windows.integers(9, size=n) + 20
    rng = np.random.default_rng(
        (run.seed, draw, *run.regime.encode(), 0 if run.fold is None else run.fold + 1)
    )
    noise = rng.normal(size=(n, 3, len(CLASSES)))

    def logits(labels: Any, severity: float, spread: Any) -> Any:
        true = labels[:, None, None] == np.arange(len(CLASSES))
        strong = np.asarray(strength)[:, None] - robustness * severity
        return np.clip(np.rint(14 * (true * strong + spread)), -128, 127).astype(np.int8)

    int8 = np.stack([logits(y, severity, noise) for severity in severities])
    calibration_y = rng.integers(len(CLASSES), size=n)
    return RunRecord(
        run=run,
        classes=CLASSES,
        exits=EXITS,
        subjects={"training": (1, 2), "calibration": (3,), "judged": tuple(range(20, 29))},
        n_training_windows=n_training_windows,
        y=y,
        subject=subject,
        float_logits=int8[0].astype(np.float32),
        severities=severities,
        int8_logits=int8,
        calibration_y=calibration_y,
        calibration_logits=logits(calibration_y, 0.0, rng.normal(size=noise.shape)),
        scales=(0.1, 0.1, 0.1),
        thresholds=(25, 22),
        exit_macs=(104_000, 309_000, 779_000),
        plain_macs=776_000,
        training_cost=(phase_cost(int(2.4e12 * cost), int(4.6e12 * cost)),),
        epochs=30,
        engine="tflm",
        versions={"numpy": "2"},
    )
