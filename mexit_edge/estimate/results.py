"""What an estimate says: of a model, of a stage, of an exit, of a bundle, and expected over windows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mexit_edge.errors import InputError, MissingExtraError
from mexit_edge.estimate.device import Device, Stack
from mexit_edge.estimate.energy.period import energy_of_inference
from mexit_edge.estimate.interval import Estimate
from mexit_edge.estimate.latency.workload import Workload, cycles, cycles_by_term
from mexit_edge.estimate.memory.plan import BundleMemory, ModelMemory
from mexit_edge.estimate.operations import OperationCost, known_sum

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What some work takes of a device.

    Args:
        macs: multiply-accumulates, None where an operator is unknown; a mean need not be whole.
        live_macs: those that can depend on the input, None where an operator is unknown.
        estimated_cycles: processor cycles, None where an operator is unknown and has no price.
        estimated_latency_ms: time, None as for cycles.
        estimated_energy_uj: energy at the active power, None also where that is unknown.
        estimated_cycles_by_term: what the cycles are made of (`terms.TERMS`); empty where they are unknown.
    """

    macs: float | None
    live_macs: float | None
    estimated_cycles: Estimate | None
    estimated_latency_ms: Estimate | None
    estimated_energy_uj: Estimate | None
    estimated_cycles_by_term: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StageEstimate(Cost):
    """What one run of one stage costs.

    Args:
        exit: name of the exit that the stage ends in.
        file_bytes: size of the stage's file as it is.
        flash_bytes: stored on the device (`FlashBytes.c_array_bytes`).
        arena_bytes: as TFLM reports it on a 64-bit host, None where unknown.
        estimated_arena_bytes_32bit: of a 32-bit microcontroller, None where unknown.
    """

    exit: str
    file_bytes: int
    flash_bytes: int
    arena_bytes: int | None
    estimated_arena_bytes_32bit: int | None = None


@dataclass(frozen=True, kw_only=True)
class ExitEstimate(StageEstimate):
    """What a window costs that leaves at this exit: all stages up to it, whose arenas share one block.

    Sizes of files and of flash are summed, arenas are the largest of the stages.
    """


@dataclass(frozen=True, kw_only=True)
class MemoryFit:
    """What models take of the device's memory; program, kernels and stack come on top.

    Args:
        flash_bytes: the models, each a multiple of 16 bytes, without what no kernel reads.
        device_flash_bytes: the device has.
        estimated_ram_bytes: one block for arenas and for the tensors between stages, None where unknown.
        device_ram_bytes: the device has in one block.
    """

    flash_bytes: int
    device_flash_bytes: int
    estimated_ram_bytes: int | None
    device_ram_bytes: int

    @property
    def too_much(self) -> str:
        """By how much memory is exceeded, in words; "" where it is not."""
        missing = {"flash": self.missing_flash_bytes, "RAM": self.missing_ram_bytes}
        return " and ".join(
            f"{bytes_:,} bytes of {what} too many" for what, bytes_ in missing.items() if bytes_
        )

    @property
    def verdict(self) -> str:
        """Whether it fits, and by how many bytes it does not, in words."""
        if self.fits is None:
            return "whether it fits is unknown"
        return "it fits" if self.fits else f"it does not fit: {self.too_much}"

    @property
    def missing_flash_bytes(self) -> int:
        """By how much the models exceed the device's flash; 0 where they fit."""
        return max(0, self.flash_bytes - self.device_flash_bytes)

    @property
    def missing_ram_bytes(self) -> int | None:
        """By how much the block exceeds the device's RAM; 0 where it fits, None where it is unknown."""
        needed = self.estimated_ram_bytes
        return None if needed is None else max(0, needed - self.device_ram_bytes)

    @property
    def fits(self) -> bool | None:
        """Whether flash and RAM suffice for the models alone; None when that hangs on an unknown arena."""
        if self.missing_flash_bytes:
            return False
        return None if self.missing_ram_bytes is None else self.missing_ram_bytes == 0


@dataclass(frozen=True, kw_only=True)
class OnDevice:
    """On what an estimate was made.

    Args:
        board: the device.
        library: the kernel library.
        fit: whether the device has the memory.
        notes: what is extrapolated and what is not priced.
    """

    board: Device
    library: Stack
    fit: MemoryFit
    notes: tuple[str, ...]

    @property
    def device(self) -> str:
        """Name of the device."""
        return self.board.name

    @property
    def stack(self) -> str:
        """Name of the kernel library."""
        return self.library.name


@dataclass(frozen=True, kw_only=True)
class ModelEstimate(OnDevice, Cost):
    """What one run of one .tflite costs.

    Args:
        operations: of the model, in order of execution.
        memory: what the model takes.
    """

    operations: tuple[OperationCost, ...]
    memory: ModelMemory

    def rows(self) -> list[dict[str, Any]]:
        """Return the estimate as one row, names as in `to_frame`."""
        return [
            {
                "what": "model",
                **_row(self),
                "file_bytes": self.memory.flash.file_bytes,
                "flash_bytes": self.memory.flash.c_array_bytes,
                "estimated_arena_bytes_32bit": self.memory.estimated_arena_bytes_32bit,
            }
        ]

    def to_frame(self) -> pd.DataFrame:
        """Return `rows` as a table. Needs pandas."""
        return _frame(self.rows())


@dataclass(frozen=True, kw_only=True)
class BundleEstimate(OnDevice):
    """What a bundle costs on a device.

    Args:
        workloads: what the stages ask for.
        stages: one per stage.
        exits: one per exit, cumulative.
        operations: of every stage.
        memory: what the bundle takes.
    """

    workloads: tuple[Workload, ...]
    stages: tuple[StageEstimate, ...]
    exits: tuple[ExitEstimate, ...]
    operations: tuple[tuple[OperationCost, ...], ...]
    memory: BundleMemory

    def expected(self, exit_shares: Sequence[float]) -> Cost:
        """Return the mean cost per window when these shares of windows leave at the exits.

        Args:
            exit_shares: one share per exit, from 0, with sum 1.

        Raises:
            InputError: the shares are not a distribution over the exits.
        """
        shares = self._distribution(exit_shares)
        # A stage runs for every window that leaves behind it.
        runs = [sum(shares[number:]) for number in range(len(shares))]
        asked = [one.times(share) for one, share in zip(self.workloads, runs, strict=True) if share > 0]
        return Cost(
            **priced(sum(asked[1:], asked[0]), self.board, self.library),
            macs=_mean([stage.macs for stage in self.stages], runs),
            live_macs=_mean([stage.live_macs for stage in self.stages], runs),
        )

    def _distribution(self, exit_shares: Sequence[float]) -> list[float]:
        shares = [float(share) for share in exit_shares]
        if len(shares) != len(self.exits):
            raise InputError(
                f"`exit_shares` needs one share per exit ({len(self.exits)}: "
                f"{', '.join(one.exit for one in self.exits)}). Received: {shares}. Give the share "
                "of windows that leaves at each, in this order."
            )
        if not all(share >= 0 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise InputError(
                f"`exit_shares` must be at least 0 with sum 1. Received: {shares}, with sum "
                f"{sum(shares):.6g}. Divide the windows that leave at each by all windows."
            )
        return shares

    def rows(self, exit_shares: Sequence[float] | None = None) -> list[dict[str, Any]]:
        """Return a row per stage and per exit, names as in `to_frame`.

        Args:
            exit_shares: as for `expected`, for one more row; none if None.
        """
        named = [("stage", one) for one in self.stages] + [("exit", one) for one in self.exits]
        rows = [
            {
                "what": what,
                "exit": one.exit,
                **_row(one),
                "file_bytes": one.file_bytes,
                "flash_bytes": one.flash_bytes,
                "estimated_arena_bytes_32bit": one.estimated_arena_bytes_32bit,
            }
            for what, one in named
        ]
        if exit_shares is not None:
            rows.append({"what": "expected", **_row(self.expected(exit_shares))})
        return rows

    def to_frame(self, exit_shares: Sequence[float] | None = None) -> pd.DataFrame:
        """Return `rows` as a table. Needs pandas.

        Args:
            exit_shares: as for `rows`.
        """
        return _frame(self.rows(exit_shares))


def priced(asked: Workload, device: Device, stack: Stack) -> dict[str, Any]:
    """Return the fields of a `Cost` that are estimated."""
    needed = cycles(asked, stack)
    latency_ms = None if needed is None else needed.times(1e-3 / device.clock_mhz.value)
    return {
        "estimated_cycles": needed,
        "estimated_latency_ms": latency_ms,
        "estimated_energy_uj": None if latency_ms is None else energy_of_inference(latency_ms, device, stack),
        "estimated_cycles_by_term": {} if needed is None else cycles_by_term(asked, stack),
    }


def _mean(counts: Sequence[float | None], runs: Sequence[float]) -> float | None:
    return known_sum(
        None if count is None else count * share for count, share in zip(counts, runs, strict=True)
    )


def _row(one: Cost) -> dict[str, Any]:
    row: dict[str, Any] = {"macs": one.macs, "live_macs": one.live_macs}
    for name in ("estimated_cycles", "estimated_latency_ms", "estimated_energy_uj"):
        estimate: Estimate | None = getattr(one, name)
        row[name] = None if estimate is None else estimate.value
        row[f"{name}_low"] = None if estimate is None else estimate.low
        row[f"{name}_high"] = None if estimate is None else estimate.high
    return row


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError("pandas", "train") from error
    return pd.DataFrame(rows)
