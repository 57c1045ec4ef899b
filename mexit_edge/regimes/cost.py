"""What a training cost: counted multiply-accumulates, and measured time and memory."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from mexit_edge.regimes.macs import StepMacs


@dataclass(frozen=True)
class PhaseCost:
    """Cost of one phase; over the whole of it, resumed parts included.

    Args:
        phase: its name.
        epochs: that were run.
        steps: training steps, of one batch each.
        windows: that went through the network for training.
        forward_macs: multiply-accumulates of the forward passes for training; None where the graph cannot be
            counted. Those of validation are not included.
        backward_macs: likewise of the gradients.
        measured_seconds: wall time, validation included.
        measured_peak_memory_bytes: largest resident memory of the process during the phase; None where the
            system does not tell.
    """

    phase: str
    epochs: int
    steps: int
    windows: int
    forward_macs: int | None
    backward_macs: int | None
    measured_seconds: float
    measured_peak_memory_bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures in plain types."""
        return asdict(self)


class CostMeter(keras.callbacks.Callback):
    """Measures a phase.

    Args:
        before: cost of the same phase before an interrupt, or None.
        first_step: number of the phase's first step.
        macs: per window; None where unknown.
    """

    def __init__(
        self, before: PhaseCost | None, macs: tuple[float, float] | None, first_step: int = 0
    ) -> None:
        super().__init__()
        self._first_step = first_step
        self._before, self._macs = before, macs
        self._epochs = before.epochs if before else 0
        self._seconds = before.measured_seconds if before else 0.0
        self._peak = before.measured_peak_memory_bytes if before else None
        self._started = time.perf_counter()
        self._resettable = reset_peak_memory()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the epoch."""
        self._epochs += 1

    def cost(self) -> PhaseCost:
        """Return the cost so far."""
        model = self.model
        windows = int(model.windows_seen)
        forward, backward = self._macs or (None, None)
        peak = peak_memory_bytes() if self._resettable else None
        known = [one for one in (self._peak, peak) if one is not None]
        return PhaseCost(
            phase=model.active.phase.name,
            epochs=self._epochs,
            steps=int(model.step) - self._first_step,
            windows=windows,
            forward_macs=None if forward is None else round(forward * windows),
            backward_macs=None if backward is None else round(backward * windows),
            measured_seconds=round(self._seconds + time.perf_counter() - self._started, 3),
            measured_peak_memory_bytes=max(known, default=None),
        )


def per_window(macs: StepMacs | None, windows: int) -> tuple[float, float] | None:
    """Return forward and backward multiply-accumulates per window of a step; None where unknown."""
    return None if macs is None else (macs.forward / windows, macs.backward / windows)


def reset_peak_memory() -> bool:
    """Let the system forget the largest resident memory; False where it cannot (other than Linux)."""
    try:
        # See proc(5): 5 resets VmHWM.
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_memory_bytes() -> int | None:
    """Return the largest resident memory of this process since the last reset; None where unknown."""
    try:
        status = Path("/proc/self/status").read_text("ascii", errors="replace")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
