"""Batches of windows, perturbed anew in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from mexit_edge.signals import Normalisation, Perturbation, Windows, apply_perturbations


class WindowBatches(keras.utils.PyDataset):
    """Shuffled, perturbed and normalised batches of windows.

    All randomness derives from (seed, epoch, step), so that it does not depend on what ran before. The last
    batch of an epoch is left out when it is not full; shuffling gives its windows a turn in other epochs.

    Args:
        windows: training windows.
        normalisation: applied after the perturbations.
        perturbations: applied in the sensor's units.
        batch_size: windows per batch.
        seed: of the order and the perturbations.
        first_epoch: number of the epoch that comes first.
        sample_weight: (n,) weight per window, or None.
    """

    def __init__(
        self,
        windows: Windows,
        normalisation: Normalisation,
        perturbations: Sequence[Perturbation],
        batch_size: int,
        seed: int,
        first_epoch: int = 0,
        sample_weight: np.ndarray[Any, np.dtype[np.float32]] | None = None,
    ) -> None:
        super().__init__()
        self.windows = windows
        self.normalisation = normalisation
        self.perturbations = perturbations
        self.batch_size = min(batch_size, len(windows))
        self.seed = seed
        self.epoch = first_epoch
        self.sample_weight = sample_weight
        self._order = self._shuffled()

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return len(self.windows) // self.batch_size

    def __getitem__(self, step: int) -> tuple[Any, ...]:
        """Return (x, y) or (x, y, sample_weight) of one step."""
        chosen = self._order[step * self.batch_size : (step + 1) * self.batch_size]
        rng = np.random.default_rng((self.seed, self.epoch, step))
        x = apply_perturbations(self.windows.x[chosen], self.windows.sensor, self.perturbations, rng)
        batch = (self.normalisation.apply(x), self.windows.y[chosen])
        return batch if self.sample_weight is None else (*batch, self.sample_weight[chosen])

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        self.epoch += 1
        self._order = self._shuffled()

    def _shuffled(self) -> Any:
        return np.random.default_rng((self.seed, self.epoch)).permutation(len(self.windows))
