"""Estimate what a bundle costs on a device: latency, energy and memory, per stage and per exit."""

from __future__ import annotations

from collections.abc import Sequence

from mexit_edge.bundle import Bundle, Manifest, StageSpec
from mexit_edge.estimate.device import Device, Stack, load_device
from mexit_edge.estimate.interval import Estimate, total
from mexit_edge.estimate.latency import Priced, notes, price
from mexit_edge.estimate.memory import plan_memory
from mexit_edge.estimate.operations import operations
from mexit_edge.estimate.results import BundleEstimate, ExitEstimate, MemoryFit, ModelEstimate, StageEstimate

DEFAULT_DEVICE = "nucleo-l4r5zi"


def estimate_model(
    content: bytes, device: str | Device = DEFAULT_DEVICE, stack: str | None = None
) -> ModelEstimate:
    """Estimate one run of one .tflite.

    Args:
        content: a .tflite.
        device: a name (see `device_names`) or a device.
        stack: name of a kernel library of the device; the first one if None.

    Raises:
        InputError: the device or stack is unknown, or an operator cannot be priced.
    """
    board = load_device(device) if isinstance(device, str) else device
    library = board.stack(stack)
    costs = operations(content)
    priced = price(costs, library)
    latency_ms, energy_uj = _time_and_energy(priced.cycles, board, library)
    return ModelEstimate(
        device=board.name,
        stack=library.name,
        macs=sum(cost.macs for cost in costs),
        live_macs=sum(cost.live_macs for cost in costs),
        flash_bytes=len(content),
        estimated_cycles=priced.cycles,
        estimated_latency_ms=latency_ms,
        estimated_energy_uj=energy_uj,
        notes=notes([priced], library),
    )


def estimate_bundle(
    bundle: Bundle, device: str | Device = DEFAULT_DEVICE, stack: str | None = None
) -> BundleEstimate:
    """Estimate a bundle stage by stage and exit by exit; each stage is one invocation.

    Energy is that of computing; sensor, radio and idling between windows are not in it.

    Args:
        bundle: the bundle.
        device: a name (see `device_names`) or a device.
        stack: name of a kernel library of the device; the first one if None.

    Raises:
        InputError: the device or stack is unknown, or an operator cannot be priced.
    """
    board = load_device(device) if isinstance(device, str) else device
    library = board.stack(stack)
    stages, priced = [], []
    for spec, content in zip(bundle.manifest.stages, bundle.stages, strict=True):
        stage, one = _stage(spec, content, board, library)
        stages.append(stage)
        priced.append(one)
    return BundleEstimate(
        device=board.name,
        stack=library.name,
        stages=tuple(stages),
        exits=tuple(_up_to(stages[: number + 1]) for number in range(len(stages))),
        memory=MemoryFit(
            flash_bytes=sum(stage.flash_bytes for stage in stages),
            device_flash_bytes=int(board.flash_bytes.value),
            plan=plan_memory(bundle.manifest),
            device_ram_bytes=int(board.ram_bytes.value),
        ),
        notes=(
            *notes(priced, library),
            "Not priced: the exit rule, quantizing the window and copying boundary tensors.",
            *_misstated(bundle.manifest, stages),
        ),
    )


def _stage(spec: StageSpec, content: bytes, board: Device, library: Stack) -> tuple[StageEstimate, Priced]:
    costs = operations(content)
    priced = price(costs, library)
    latency_ms, energy_uj = _time_and_energy(priced.cycles, board, library)
    stage = StageEstimate(
        exit=spec.exit,
        macs=sum(cost.macs for cost in costs),
        live_macs=sum(cost.live_macs for cost in costs),
        flash_bytes=len(content),
        arena_bytes=spec.arena_bytes,
        estimated_cycles=priced.cycles,
        estimated_latency_ms=latency_ms,
        estimated_energy_uj=energy_uj,
    )
    return stage, priced


def _misstated(manifest: Manifest, stages: Sequence[StageEstimate]) -> tuple[str, ...]:
    """Say where the manifest states other multiply-accumulates than its files hold."""
    wrong = [
        spec.exit
        for spec, stage in zip(manifest.stages, stages, strict=True)
        if (spec.macs, spec.live_macs) != (stage.macs, stage.live_macs)
    ]
    if not wrong:
        return ()
    return (
        f"The manifest states other MACs for {', '.join(wrong)} than its files hold, which are used here.",
    )


def _time_and_energy(cycles: Estimate, board: Device, library: Stack) -> tuple[Estimate, Estimate | None]:
    """Return milliseconds, and microjoules (mW times ms) if the power is known."""
    latency_ms = cycles.times(1e-3 / board.clock_mhz.value)
    power = library.active_power_mw
    return latency_ms, None if power is None else latency_ms * power.estimate


def _up_to(stages: Sequence[StageEstimate]) -> ExitEstimate:
    """Return the cost of running these stages one after the other."""
    energies = [stage.estimated_energy_uj for stage in stages if stage.estimated_energy_uj is not None]
    return ExitEstimate(
        exit=stages[-1].exit,
        macs=sum(stage.macs for stage in stages),
        live_macs=sum(stage.live_macs for stage in stages),
        flash_bytes=sum(stage.flash_bytes for stage in stages),
        arena_bytes=_largest([stage.arena_bytes for stage in stages]),
        estimated_cycles=total(stage.estimated_cycles for stage in stages),
        estimated_latency_ms=total(stage.estimated_latency_ms for stage in stages),
        estimated_energy_uj=total(energies) if len(energies) == len(stages) else None,
    )


def _largest(sizes: Sequence[int | None]) -> int | None:
    """Return the largest size; None when one is unknown."""
    known = [size for size in sizes if size is not None]
    return max(known) if len(known) == len(sizes) else None
