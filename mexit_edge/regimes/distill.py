"""Self-distillation: exits learn from the labels and from deeper exits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from mexit_edge.regimes.losses import cross_entropies, soft_cross_entropies
from mexit_edge.regimes.regime import (
    ExitOutputs,
    Regime,
    RegimeState,
    require_one_of,
    require_positive,
    require_share,
)

LAST, NEXT, LATER = "last", "next", "later"
ANNEALING_FACTOR, ANNEALING_CONFIDENCE = 1.05, 0.5


class DistillState(RegimeState):
    """Keeps the temperature.

    Args:
        n_exits: number of exits.
        temperature: at the beginning.
    """

    def __init__(self, n_exits: int, temperature: float) -> None:
        super().__init__(n_exits)
        self.temperature = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(temperature),
            trainable=False,
            name="temperature",
        )


@dataclass(frozen=True, kw_only=True)
class Distill(Regime):
    """L = sum_e w_e [(1 - C) CE_e + C T^2 CE(sg softmax(f_t / T), softmax(f_e / T))]; the final exit: CE_E.

    Args:
        teacher: f_t of exit e: the ``last`` exit, the ``next`` one, or every ``later`` one (their mean loss).
        share: C.
        temperature: T, at the beginning.
        anneal: whether T is multiplied by 1.05 after each step in which the mean largest probability of the
            tempered teachers exceeds .5, as Phuong and Lampert do.

    Raises:
        InputError: an option is out of its range.

    Reference:
        Phuong and Lampert, "Distillation-Based Training for Multi-Exit Architectures", ICCV 2019 (``last``,
        annealed T); Li et al., arXiv 1908.06294 (one-for-all from the last exit).
    """

    name = "distill"
    min_exits: ClassVar[int] = 2

    teacher: str = LAST
    share: float = 0.5
    temperature: float = 1.0
    anneal: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("teacher", self.teacher, (LAST, NEXT, LATER))
        require_share("share", self.share)
        require_positive("temperature", self.temperature)

    def make_state(self, n_exits: int, seed: int = 0) -> RegimeState:
        """See `Regime.make_state`."""
        return DistillState(n_exits, self.temperature)

    def loss(self, outputs: ExitOutputs) -> Any:
        """See `Regime.loss`."""
        ops = keras.ops
        exact = cross_entropies(outputs.logits, outputs.y, self.label_smoothing)
        temperature = ops.convert_to_tensor(outputs.state.temperature)
        tempered = outputs.logits / temperature
        teachers = ops.stop_gradient(ops.softmax(tempered, axis=-1))
        soft = self._from_teachers(teachers, tempered) * temperature**2
        if self.anneal:
            self._anneal(teachers, outputs.state)
        mixed = (1 - self.share) * exact[:, :-1] + self.share * soft
        return self.weighted_sum(ops.concatenate([mixed, exact[:, -1:]], axis=1), outputs)

    def _from_teachers(self, teachers: Any, tempered: Any) -> Any:
        """Return the losses of the early exits against their teachers, (batch, E - 1)."""
        early = tempered[:, :-1]
        if self.teacher == NEXT:
            return soft_cross_entropies(teachers[:, 1:], early)
        if self.teacher == LAST:
            return soft_cross_entropies(teachers[:, -1:], early)
        # Cross-entropy is linear in the target: the mean loss is the loss against the mean teacher.
        n_exits = tempered.shape[1]
        means = [keras.ops.mean(teachers[:, number:], axis=1) for number in range(1, n_exits)]
        return soft_cross_entropies(keras.ops.stack(means, axis=1), early)

    def _anneal(self, teachers: Any, state: Any) -> None:
        ops = keras.ops
        used = teachers[:, -1:] if self.teacher == LAST else teachers[:, 1:]
        sure = ops.mean(ops.max(used, axis=-1)) > ANNEALING_CONFIDENCE
        factor = ops.where(sure, ANNEALING_FACTOR, 1.0)
        state.temperature.assign(state.temperature * ops.cast(factor, state.temperature.dtype))
