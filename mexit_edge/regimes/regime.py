"""What a training regime is: how the losses of the exits become the loss of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import keras

from mexit_edge.errors import InputError, unknown_name

REGIMES: dict[str, type[Regime]] = {}


@dataclass(frozen=True)
class Regime(ABC):
    """A regime is a frozen dataclass whose fields are its options; it holds no state of the training.

    `MultiExitModel` calls `loss` in every step with the cross-entropies per window and exit.
    """

    name: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        """Enter the regime under its name."""
        super().__init_subclass__(**options)
        REGIMES[cls.name] = cls

    @abstractmethod
    def loss(self, cross_entropies: Any, sample_weight: Any | None) -> Any:
        """Return the scalar loss of a step.

        Args:
            cross_entropies: Keras tensor (batch, E), in nats.
            sample_weight: Keras tensor (batch,), or None.
        """

    def get_config(self) -> dict[str, Any]:
        """Return name and options, from which `make_regime` builds the regime again."""
        return {"name": self.name, **asdict(self)}


def weighted_mean(per_window: Any, sample_weight: Any | None) -> Any:
    """Return the mean over the batch, each window counted by its weight (Keras' sum over batch size)."""
    if sample_weight is None:
        return keras.ops.mean(per_window)
    return keras.ops.mean(per_window * keras.ops.cast(sample_weight, per_window.dtype))


def make_regime(regime: str | Regime, **options: Any) -> Regime:
    """Return a regime of a name, or the object itself.

    Args:
        regime: a key of `REGIMES`, or a regime.
        **options: fields of the regime, with a name only.

    Raises:
        InputError: no such regime, or no such option.
    """
    if isinstance(regime, Regime):
        return regime
    if regime not in REGIMES:
        raise unknown_name("regime", regime, REGIMES)
    try:
        return REGIMES[regime](**options)
    except TypeError as error:
        raise InputError(f"`{regime}` must get options that it has. Received: {error}.") from error
