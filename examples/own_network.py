"""Exits attached to one's own functional Keras network.

python examples/own_network.py [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

import mexit_edge as mx
from mexit_edge.models import exit_candidates


def my_network(time: int, channels: int, n_classes: int) -> keras.Model:
    """A small residual network, as somebody may have it already; it ends in logits."""
    layers = keras.layers
    window = keras.Input((time, channels))
    x = layers.Conv1D(16, 5, strides=2, padding="same", activation="relu", name="early")(window)
    y = layers.Conv1D(16, 3, padding="same", activation="relu")(x)
    x = layers.Add(name="residual")([x, y])
    x = layers.Conv1D(32, 3, strides=2, padding="same", activation="relu", name="late")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(window, layers.Dense(n_classes)(x), name="my_network")


def main(folder: str | Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=1600)
    phase = 2 * np.pi * (np.arange(48) * np.asarray([0.05, 0.1, 0.2])[y][:, None] + rng.random((1600, 1)))
    x = np.sin(phase)[..., None] + rng.normal(0, 0.6, (1600, 48, 1))
    machine = rng.integers(8, size=1600)
    windows = mx.Windows.from_arrays(x, y, subject=machine, name="three tones")
    split = mx.data.split_by_subject(windows, seed=0)

    mine = my_network(48, 1, 3)
    for row in exit_candidates(mine):
        where = f"{row.share:6.1%} of the MACs, {row.live_tensors} tensors to keep"
        print(f"{row.layer:26} {where}: {row.reason or 'an exit can follow'}")
    # A name, or a share of the MACs: "50 %" is the sum of the residual block, never a place inside it.
    network = mx.attach_exits(mine, at=["early", "50 %"])
    model = mx.MultiExitModel(network)
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    model.fit(split.train, validation_data=split.validation, epochs=10, batch_size=32, verbose=2)

    bundle = mx.export(model, representative=split.train, name="my_network")
    bundle = mx.calibrate(bundle, split.calibration, max_drop=0.02)
    print(mx.simulate(bundle, split.test))
    path = bundle.save(Path(folder) / "my_network")
    decision = mx.Runtime(path).infer(split.test.x[0])
    print(f"{path}: class {decision.label} (it is {split.test.y[0]}) at exit {decision.exit}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(scratch)
