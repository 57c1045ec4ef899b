"""How the main job trains: optimizer, steps per call, and which epoch counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from mexit_edge.models.build import build
from mexit_edge.regimes.early_stopping import MultiExitEarlyStopping
from mexit_edge.regimes.model import MultiExitModel
from mexit_edge.regimes.regime import make_regime
from mexit_edge.signals import Normalisation, Perturbation, Windows

LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-3
# Steps per call into TensorFlow: Python between the steps costs as much as a small step itself.
STEPS_PER_EXECUTION = 17
# Of the epochs, among which the best one on validation subjects is chosen, unless patience may end the
# training before they are reached.
LAST_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to train and how, apart from the windows.

    Args:
        backbone: a key of `mexit_edge.models.BACKBONES`.
        preset: its size.
        backbone_options: of the backbone, over the preset's.
        regime: a key of `REGIMES`.
        options: of the regime.
        epochs: over all phases.
        batch_size: windows per step.
        learning_rate: at the start of every phase; falls to 0 along a cosine.
        clip_norm: largest norm of the gradient; None for no limit.
        patience: epochs without an improvement of any exit that end a phase; None to train all epochs.
        seed: of weights, order and perturbations.
    """

    backbone: str
    preset: str = "medium"
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    regime: str = "joint"
    options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int
    batch_size: int = 64
    learning_rate: float = LEARNING_RATE
    clip_norm: float | None = None
    patience: int | None = None
    seed: int = 0

    def model(self, windows: Windows, perturbations: Sequence[Perturbation] | str = "auto") -> MultiExitModel:
        """Return a new model for these training windows, compiled.

        Raises:
            InputError: there is no such backbone, preset, regime or option.
        """
        keras.utils.set_random_seed(self.seed)
        network = build(
            self.backbone, windows.sensor, windows.n_classes, preset=self.preset, **self.backbone_options
        )
        model = MultiExitModel(
            network,
            make_regime(self.regime, **self.options),
            normalisation=Normalisation.fit(windows),
            perturbations=perturbations,
            seed=self.seed,
        )
        model.provenance = model.provenance.model_copy(
            update={"backbone": self.backbone, "preset": self.preset}
        )
        optimizer = adamw_cosine(
            len(windows), self.epochs, self.batch_size, self.learning_rate, self.clip_norm
        )
        model.compile(optimizer, steps_per_execution=STEPS_PER_EXECUTION)
        return model

    def best_epoch(self) -> MultiExitEarlyStopping:
        """Return the callback that chooses the epoch on validation windows."""
        return MultiExitEarlyStopping(self.patience, last_share=LAST_SHARE if self.patience is None else 1.0)


def adamw_cosine(
    n_windows: int,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = LEARNING_RATE,
    clip_norm: float | None = None,
) -> keras.optimizers.Optimizer:
    """Return AdamW whose learning rate falls to zero along a cosine over the whole training.

    Args:
        n_windows: training windows.
        epochs: epochs in all.
        batch_size: windows per step.
        learning_rate: at the start.
        clip_norm: largest norm of the gradient of all weights together; None for no limit.

    Reference:
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101.
    """
    steps = max(1, n_windows // batch_size) * epochs
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    return keras.optimizers.AdamW(schedule, weight_decay=WEIGHT_DECAY, global_clipnorm=clip_norm)
