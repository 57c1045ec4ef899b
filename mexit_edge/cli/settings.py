"""The options of `mexit run`, with their defaults: light, so that `mexit --help` can show them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mexit_edge.files import free_name

BUNDLES, RUNS = Path("tflite_models"), Path("runs")
EPOCHS, BATCH_SIZE = 30, 64
# A quarter of the windows, in batches of a quarter, so that an epoch has as many steps.
QUICK_EPOCHS, QUICK_BATCH_SIZE, QUICK_STRIDE = 8, 16, 4
# Steps per call into TensorFlow: Python between the steps costs as much as a small step itself.
STEPS_PER_EXECUTION = 17
MAX_SEED = 2**32 - 1  # what Keras takes


@dataclass(frozen=True)
class RunSettings:
    """The options of `mexit run`, see its help.

    Args:
        data: name of a data set.
        backbone: name of a network.
        regime: name of a training regime.
        device: name of a device to estimate for.
        epochs: epochs of training; None for the default, which depends on ``quick``.
        seed: of the split, the weights and the perturbations.
        max_drop: largest loss of balanced accuracy against the final exit, as a share.
        out: bundle to write; None for a new name.
        overwrite: whether an existing bundle may be replaced.
        quick: a short training on a quarter of the windows.
    """

    data: str = "hapt"
    backbone: str = "dscnn"
    regime: str = "joint"
    device: str = "nucleo-l4r5zi"
    epochs: int | None = None
    seed: int = 0
    max_drop: float = 0.005
    out: Path | None = None
    overwrite: bool = False
    quick: bool = False

    @property
    def n_epochs(self) -> int:
        """Epochs to train for."""
        return self.epochs or (QUICK_EPOCHS if self.quick else EPOCHS)

    @property
    def batch_size(self) -> int:
        """Windows per training step."""
        return QUICK_BATCH_SIZE if self.quick else BATCH_SIZE

    @property
    def target(self) -> Path:
        """Where the bundle goes."""
        return free_name(BUNDLES / f"{self.data}.mexit") if self.out is None else self.out
