"""A device loses its supply between two stages, boots, and goes on with the window from what it stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.runtime import Decision, Runtime

# Columns of the draws per window: whether there is a brown-out, behind which stage, whether the store is
# damaged, and where.
_DRAWS = 4
_DRAWN, _STAGE, _DAMAGED, _PLACE = range(_DRAWS)
# An hour: what takes longer is no boot. Times are whole nanoseconds, which have to fit into 64 bits.
MAX_BOOT_MS = 3.6e6


@dataclass(frozen=True)
class BrownOut:
    """In which windows the supply is lost, and what it takes to come back.

    Which windows are hit is drawn per stream and window number, so neither the batch nor the engine changes
    it. What temporal rules and a controller remember is taken to survive with the window.

    Args:
        share: of the windows, drawn; or
        windows: numbers of the windows, in every stream.
        after: number of stages that have run by then, from 1 to one less than there are; None draws one.
        boot_ms: from the return of the supply until the processor goes on, at active power; at most
            `MAX_BOOT_MS`.
        damaged: share of the brown-outs whose store comes back with a byte changed, so that the window has
            to start anew.
        seed: of the draws.

    Raises:
        InputError: not just one of `share` and `windows`, or a figure is out of its range.
    """

    share: float = 0.0
    windows: tuple[int, ...] = ()
    after: int | None = None
    boot_ms: float = 0.0
    damaged: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.share > 0) == bool(self.windows) or not 0 <= self.share <= 1:
            raise InputError(
                "a brown-out needs a `share` above 0 and up to 1, or `windows`, and not both. "
                f"Received: share {self.share}, windows {self.windows}."
            )
        if not 0 <= self.damaged <= 1 or not 0 <= self.boot_ms <= MAX_BOOT_MS or self.seed < 0:
            raise InputError(
                f"`damaged` must be a share from 0 to 1, `boot_ms` from 0 to {MAX_BOOT_MS:,.0f}, `seed` at "
                f"least 0. Received: {self.damaged}, {self.boot_ms}, {self.seed}."
            )

    def check_fit(self, n_stages: int) -> None:
        """Refuse a bundle without such a boundary.

        Raises:
            InputError: says which boundaries there are.
        """
        if n_stages < 2 or (self.after is not None and not 1 <= self.after < n_stages):
            raise InputError(
                f"`after` must be a number of stages from 1 to {n_stages - 1}, and the bundle have at least "
                f"two stages. Received: {self.after} for {n_stages} stages."
            )


@dataclass(frozen=True)
class Interruption:
    """One brown-out.

    Args:
        after: number of stages that have run by then.
        damaged_at: where a byte of the store is changed, as a share of its length; None where it is whole.
    """

    after: int
    damaged_at: float | None


@dataclass(frozen=True)
class WindowDecision:
    """What one window decided, and what that took.

    Args:
        exit: that the window left at, from 1.
        label: class.
        hit: whether the supply was lost; False where it was not to be, or the window had left by then.
        again: stages run a second time because the store was damaged; 0 where it was whole.
    """

    exit: int
    label: int
    hit: bool
    again: int


class Interruptions:
    """Draws the brown-outs of one stream, window after window.

    Args:
        brown_out: what is drawn.
        stream: number of the stream.
        n_stages: of the bundle.
    """

    def __init__(self, brown_out: BrownOut, stream: int, n_stages: int) -> None:
        self._brown_out = brown_out
        self._n_stages = n_stages
        self._rng = np.random.default_rng((brown_out.seed, stream))

    def of(self, number: NDArray[np.int64]) -> dict[int, Interruption]:
        """Return place -> interruption for the next windows of the stream.

        Args:
            number: (n,) of windows; every window of the stream must pass, in order.
        """
        drawn = self._rng.random((len(number), _DRAWS))
        one = self._brown_out
        hit = np.isin(number, one.windows) if one.windows else drawn[:, _DRAWN] < one.share
        stages = 1 + (drawn[:, _STAGE] * (self._n_stages - 1)).astype(np.int64)
        return {
            place: Interruption(
                after=one.after or int(stages[place]),
                damaged_at=float(drawn[place, _PLACE]) if drawn[place, _DAMAGED] < one.damaged else None,
            )
            for place in np.flatnonzero(hit).tolist()
        }


def interrupt(
    runtime: Runtime, window: NDArray[Any], interruption: Interruption, thresholds: Sequence[int] | None
) -> WindowDecision:
    """Run a window, lose the supply, and go on with a new runtime of the bundle from the stored bytes.

    Args:
        runtime: that loses its supply.
        window: (time, channels), as for `Runtime.infer`.
        interruption: when, and whether the store survives.
        thresholds: in force for this window; None for those of the policy.
    """
    after = interruption.after
    suspended = runtime.suspend(window, after, thresholds)
    if isinstance(suspended, Decision):
        return WindowDecision(suspended.exit, suspended.label, hit=False, again=0)
    content = runtime.store(suspended)
    if interruption.damaged_at is not None:
        content = _damage(content, interruption.damaged_at)
    rebooted = Runtime(runtime.bundle, runtime.engine)
    try:
        restored = rebooted.restore(content)
    except InputError:  # the store is not whole
        decision = rebooted.infer(window, thresholds)
        return WindowDecision(decision.exit, decision.label, hit=True, again=after)
    decision = rebooted.resume(restored, thresholds)
    return WindowDecision(decision.exit, decision.label, hit=True, again=0)


def _damage(content: bytes, share: float) -> bytes:
    place = int(share * len(content))
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
