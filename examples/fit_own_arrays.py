"""A Keras fit script with one's own NumPy arrays, from `fit` to int8 decisions.

Replace `my_arrays` by whatever gives you x (n, time, channels), y (n,) and the subject or machine that each
window comes from.

    python examples/fit_own_arrays.py [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import mexit_edge as mx

CLASSES = ("idle", "running", "worn bearing")


def my_arrays(n: int = 1600, time: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vibration of eight machines in two channels: noise, a turning shaft, and one with a ringing bearing."""
    rng = np.random.default_rng(seed)
    machine = rng.integers(8, size=n)
    y = rng.integers(3, size=n)
    t = np.arange(time)
    shaft_hz = 0.03 + 0.002 * machine
    shaft = np.sin(2 * np.pi * (shaft_hz[:, None] * t + rng.random((n, 1))))
    ringing = np.sin(2 * np.pi * 0.31 * t) * (shaft > 0.8)
    one_axis = (y > 0)[:, None] * shaft + (y == 2)[:, None] * ringing
    x = np.stack([one_axis, 0.5 * np.roll(one_axis, 3, axis=1)], axis=2)
    return x + rng.normal(0, 0.35, x.shape), y, machine


def main(folder: str | Path) -> None:
    x, y, machine = my_arrays()
    windows = mx.Windows.from_arrays(x, y, subject=machine, classes=CLASSES, name="my machines")
    split = mx.data.split_by_subject(windows, seed=0)

    network = mx.models.build(
        "dscnn", windows.sensor, windows.n_classes, stem=(8, 5, 2), blocks=[[(16, 5, 2)], [(24, 5, 1)]]
    )
    model = mx.MultiExitModel(network, regime="joint")
    model.compile(optimizer=mx.regimes.adamw_cosine(len(split.train), epochs=25, batch_size=32))
    model.fit(split.train, validation_data=split.validation, epochs=25, batch_size=32, verbose=2)

    bundle = mx.export(model, representative=split.train, name="my_machines")
    bundle = mx.calibrate(bundle, split.calibration, max_drop=0.02)
    result = mx.simulate(bundle, split.test)
    path = bundle.save(Path(folder) / "my_machines")

    print(f"{path}: {len(result)} test windows, executed by {result.engine}")
    print(f"final exit {result.balanced_accuracies[-1]:.3f}, policy {result.policy_balanced_accuracy:.3f}")
    print(f"the policy computes {result.mean_macs / result.full_macs:.0%} of the full network's MACs")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(scratch)
