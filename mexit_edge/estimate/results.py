"""What an estimate says: of a model, of a stage, of an exit, of a bundle, and expected over windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mexit_edge.errors import InputError
from mexit_edge.estimate.interval import Estimate, total
from mexit_edge.estimate.memory import MemoryPlan


@dataclass(frozen=True)
class ModelEstimate:
    """What one run of one .tflite costs.

    Args:
        device: name of the device.
        stack: name of the kernel library.
        macs: multiply-accumulates.
        live_macs: those that can depend on the input.
        flash_bytes: size of the file; kernels and program are not in it.
        estimated_cycles: processor cycles.
        estimated_latency_ms: time.
        estimated_energy_uj: energy at the active power, None where that is unknown.
        notes: what is extrapolated and what is not priced.
    """

    device: str
    stack: str
    macs: int
    live_macs: int
    flash_bytes: int
    estimated_cycles: Estimate
    estimated_latency_ms: Estimate
    estimated_energy_uj: Estimate | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class StageEstimate:
    """What one run of one stage costs.

    Args:
        exit: name of the exit that the stage ends in.
        macs: multiply-accumulates.
        live_macs: those that can depend on the stage's inputs.
        flash_bytes: size of the stage's file.
        arena_bytes: as TFLM reports it on a 64-bit host, None where unknown.
        estimated_cycles: processor cycles.
        estimated_latency_ms: time.
        estimated_energy_uj: energy at the active power, None where that is unknown.
    """

    exit: str
    macs: int
    live_macs: int
    flash_bytes: int
    arena_bytes: int | None
    estimated_cycles: Estimate
    estimated_latency_ms: Estimate
    estimated_energy_uj: Estimate | None


@dataclass(frozen=True)
class ExitEstimate:
    """What a window costs that leaves at this exit: all stages up to it.

    Args:
        exit: name of the exit.
        macs: multiply-accumulates, summed.
        live_macs: summed.
        flash_bytes: summed.
        arena_bytes: largest of the stages, which share one arena; None where one is unknown.
        estimated_cycles: summed.
        estimated_latency_ms: summed.
        estimated_energy_uj: summed, None where the active power is unknown.
    """

    exit: str
    macs: int
    live_macs: int
    flash_bytes: int
    arena_bytes: int | None
    estimated_cycles: Estimate
    estimated_latency_ms: Estimate
    estimated_energy_uj: Estimate | None


@dataclass(frozen=True)
class MemoryFit:
    """What the models take of the device's memory; program, kernels and stack come on top.

    Args:
        flash_bytes: all stages.
        device_flash_bytes: the device has.
        plan: of one block for the arenas of all stages and the tensors between them.
        device_ram_bytes: the device has.
    """

    flash_bytes: int
    device_flash_bytes: int
    plan: MemoryPlan
    device_ram_bytes: int

    @property
    def fits(self) -> bool | None:
        """Whether flash and RAM suffice for the models alone; None when that hangs on an unknown arena."""
        plan = self.plan
        if self.flash_bytes > self.device_flash_bytes or plan.boundary_bytes > self.device_ram_bytes:
            return False
        return None if plan.ram_bytes is None else plan.ram_bytes <= self.device_ram_bytes


@dataclass(frozen=True)
class ExpectedEstimate:
    """The mean over windows that leave at different exits.

    Args:
        estimated_latency_ms: mean time per window.
        estimated_energy_uj: mean energy per window, None where the active power is unknown.
        mean_macs: mean multiply-accumulates per window.
    """

    estimated_latency_ms: Estimate
    estimated_energy_uj: Estimate | None
    mean_macs: float


@dataclass(frozen=True)
class BundleEstimate:
    """What a bundle costs on a device.

    Args:
        device: name of the device.
        stack: name of the kernel library.
        stages: one per stage.
        exits: one per exit, cumulative.
        memory: what of the device's memory it takes.
        notes: what is extrapolated and what is not priced.
    """

    device: str
    stack: str
    stages: tuple[StageEstimate, ...]
    exits: tuple[ExitEstimate, ...]
    memory: MemoryFit
    notes: tuple[str, ...]

    def expected(self, exit_shares: Sequence[float]) -> ExpectedEstimate:
        """Return the mean cost per window when these shares of windows leave at the exits.

        Args:
            exit_shares: one share per exit, from 0, with sum 1.

        Raises:
            InputError: the shares are not a distribution over the exits.
        """
        shares = [float(share) for share in exit_shares]
        if len(shares) != len(self.exits):
            raise InputError(
                f"`exit_shares` needs one share per exit ({len(self.exits)}: "
                f"{', '.join(one.exit for one in self.exits)}). Received: {shares}."
            )
        if not all(share >= 0 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise InputError(f"`exit_shares` must be at least 0 with sum 1. Received: {shares}.")
        pairs = list(zip(self.exits, shares, strict=True))
        energies = [
            one.estimated_energy_uj.times(share)
            for one, share in pairs
            if one.estimated_energy_uj is not None
        ]
        return ExpectedEstimate(
            estimated_latency_ms=total(one.estimated_latency_ms.times(share) for one, share in pairs),
            estimated_energy_uj=total(energies) if len(energies) == len(pairs) else None,
            mean_macs=sum(one.macs * share for one, share in pairs),
        )
