"""Consistent exit training: exits keep their opinion when the window is perturbed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from mexit_edge.regimes.losses import (
    cross_entropies,
    divergences,
    labelled,
    labelled_mean,
    weighted_mean,
)
from mexit_edge.regimes.regime import (
    ExitOutputs,
    Regime,
    require_at_least_0,
    require_one_of,
    require_positive,
    require_share,
)

SELF, LAST, ENSEMBLE = "self", "last", "ensemble"
SOFT, HARD, LABEL = "soft", "hard", "label"


@dataclass(frozen=True, kw_only=True)
class Consistency(Regime):
    """L = sum_e w_e [CE(y, f_e(x)) + lambda(t) m_e(x) D(q_e(x), f_e(x~))], x~ = T(x): the dual loss.

    Windows and their perturbed twins run as one batch, so that batch normalisation sees one set of
    statistics. CE is averaged over the labelled windows, D over all: y = -1 marks a window without a label.
    The paper has no public code; distance, weights and perturbations are ours. Its control is
    ``weak="label"``, plain augmentation at the same number of forward passes; ``strength=0`` is CE alone.

    Args:
        target: q_e = sg p: of the exit ``self``, of the ``last`` exit, or the mean over all (``ensemble``).
        weak: ``soft``: D = KL(q^(1/T) / sum, f~). ``hard``: D = CE(argmax q, f~). ``label``: D = CE(y, f~),
            without a mask, for labelled windows.
        temperature: T, below 1 sharpens.
        confidence: tau of the mask m_e = 1[max q_e >= tau], on q before it is tempered.
        strength: lambda after the ramp.
        ramp: share of the steps over which lambda rises linearly from 0; 0 for none.

    Raises:
        InputError: an option is out of its range.

    Reference:
        Saeed, "Consistency Training of Multi-exit Architectures for Sensor Data", arXiv 2109.13192.
    """

    name = "consistency"
    uses_unlabelled: ClassVar[bool] = True
    perturbs: ClassVar[bool] = True

    target: str = SELF
    weak: str = SOFT
    temperature: float = 1.0
    confidence: float = 0.0
    strength: float = 1.0
    ramp: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("target", self.target, (SELF, LAST, ENSEMBLE))
        require_one_of("weak", self.weak, (SOFT, HARD, LABEL))
        require_positive("temperature", self.temperature)
        require_share("confidence", self.confidence)
        require_at_least_0("strength", self.strength)
        require_share("ramp", self.ramp)

    @property
    def follows_progress(self) -> bool:
        """See `Regime.follows_progress`."""
        return super().follows_progress or bool(self.ramp and self.strength)

    def loss(self, outputs: ExitOutputs) -> Any:
        """See `Regime.loss`."""
        ops = keras.ops
        clean, perturbed = ops.split(outputs.logits, 2, axis=0)
        exact = cross_entropies(clean, outputs.y, self.label_smoothing)
        weights = self.weights_of(_labelled_means(exact, outputs.y), outputs)
        supervised = labelled_mean(ops.sum(exact * weights, axis=1), outputs.y, outputs.sample_weight)
        consistency = ops.sum(self._distances(clean, perturbed, outputs.y) * weights, axis=1)
        if self.weak == LABEL:
            weak = labelled_mean(consistency, outputs.y, outputs.sample_weight)
        else:
            weak = weighted_mean(consistency, outputs.sample_weight)
        return supervised + self._strength_at(outputs.progress) * weak

    def _distances(self, clean: Any, perturbed: Any, y: Any) -> Any:
        """Return m_e D(q_e, f_e(x~)), (batch, E)."""
        ops = keras.ops
        if self.weak == LABEL:
            return cross_entropies(perturbed, y, self.label_smoothing)
        target = self._targets(clean)
        confidence = ops.max(target, axis=-1)
        if self.weak == HARD:
            # An exact one-hot target: its divergence is the cross-entropy.
            target = ops.one_hot(ops.argmax(target, axis=-1), target.shape[-1], dtype=target.dtype)
        elif self.temperature != 1:
            target = _tempered(target, self.temperature)
        mask = ops.cast(confidence >= self.confidence, target.dtype)
        return mask * divergences(target, perturbed)

    def _targets(self, clean: Any) -> Any:
        """Return q_e, (batch, E, classes), without a gradient."""
        ops = keras.ops
        target = ops.stop_gradient(ops.softmax(clean, axis=-1))
        if self.target == SELF:
            return target
        one = target[:, -1:] if self.target == LAST else ops.mean(target, axis=1, keepdims=True)
        return ops.broadcast_to(one, ops.shape(target))

    def _strength_at(self, progress: Any) -> Any:
        if not self.ramp:
            return self.strength
        return self.strength * keras.ops.minimum(1.0, progress / self.ramp)


def _labelled_means(per_exit: Any, y: Any) -> Any:
    """Return the mean loss per exit over the labelled windows, (E,)."""
    ops = keras.ops
    known = labelled(y, per_exit.dtype)
    return ops.sum(per_exit * known[:, None], axis=0) / ops.maximum(ops.sum(known), 1)


def _tempered(target: Any, temperature: float) -> Any:
    """Return p^(1/T) / sum."""
    powered = target ** (1 / temperature)
    return powered / keras.ops.sum(powered, axis=-1, keepdims=True)
