"""Regimes that are a sequence of phases with the loss of joint training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from mexit_edge.errors import InputError
from mexit_edge.regimes.phases import Phase
from mexit_edge.regimes.regime import Regime, require_positive

MakePhase = Callable[[int, float], Phase]


@dataclass(frozen=True, kw_only=True)
class PhaseRegime(Regime):
    """Phases one after the other, each with an optimizer and a schedule of its own.

    Args:
        shares: of the epochs per phase, relative to each other; None for equal shares.

    Raises:
        InputError: there is not one positive share per phase.
    """

    min_exits: ClassVar[int] = 2
    sequence: ClassVar[tuple[MakePhase, ...]]

    shares: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shares is None:
            return
        object.__setattr__(self, "shares", tuple(self.shares))
        if len(self.shares) != len(self.sequence):
            raise InputError(
                f"`shares` needs one value per phase ({len(self.sequence)}). Received: {list(self.shares)}."
            )
        for share in self.shares:
            require_positive("shares", share)

    def phases(self, n_exits: int) -> tuple[Phase, ...]:
        """See `Regime.phases`."""
        shares = self.shares or (1.0,) * len(self.sequence)
        return tuple(make(n_exits, share) for make, share in zip(self.sequence, shares, strict=True))
