"""Estimate what a model or a bundle costs on a device: latency, energy and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from mexit_edge.bundle import Bundle, Manifest
from mexit_edge.estimate.device import Device, Stack, load_device
from mexit_edge.estimate.latency.workload import Workload, refuse_prices, workload
from mexit_edge.estimate.memory.kernels import KernelLibrary
from mexit_edge.estimate.memory.plan import ModelMemory, bundle_memory, model_memory
from mexit_edge.estimate.operations import known_sum, operations
from mexit_edge.estimate.relatives import core_warning, find_stack
from mexit_edge.estimate.results import (
    BundleEstimate,
    ExitEstimate,
    MemoryFit,
    ModelEstimate,
    StageEstimate,
    priced,
)
from mexit_edge.tflite import Graph

DEFAULT_DEVICE = "nucleo-l4r5zi"


def estimate_model(
    content: bytes,
    device: str | Device = DEFAULT_DEVICE,
    stack: str | None = None,
    *,
    prices: Mapping[str, float] | None = None,
    extrapolate: bool = False,
) -> ModelEstimate:
    """Estimate one run of one .tflite.

    Args:
        content: a .tflite.
        device: a name (see `device_names`) or a device.
        stack: a kernel library of the device, by name or family; the first one if None.
        prices: cycles per run of operators without a rule, by name.
        extrapolate: take a library without data on this device from what is known of it elsewhere.

    Raises:
        InputError: the device or stack is unknown, the model computes on a type that the stack has no figures
            for, or a price is no price.
    """
    board = load_device(device) if isinstance(device, str) else device
    library = find_stack(board, stack, extrapolate=extrapolate)
    graph = Graph(content)
    costs = operations(graph)
    refuse_prices(prices or {}, costs)
    asked = workload(costs, library, prices)
    memory = model_memory(content, _kernels(library), graph)
    return ModelEstimate(
        **priced(asked, board, library),
        macs=known_sum(cost.macs for cost in costs),
        live_macs=known_sum(cost.live_macs for cost in costs),
        board=board,
        library=library,
        operations=costs,
        memory=memory,
        fit=_fit(board, library, [memory], memory.estimated_arena_bytes_32bit),
        notes=_notes([asked], board, library),
    )


def estimate_bundle(
    bundle: Bundle,
    device: str | Device = DEFAULT_DEVICE,
    stack: str | None = None,
    *,
    prices: Mapping[str, float] | None = None,
    extrapolate: bool = False,
) -> BundleEstimate:
    """Estimate a bundle stage by stage and exit by exit; each stage is one invocation.

    Energy is that of computing; `energy.energy_over_period` adds sensor, waking up and idling between
    windows.

    Args:
        bundle: the bundle.
        device: as for `estimate_model`.
        stack: as for `estimate_model`.
        prices: as for `estimate_model`.
        extrapolate: as for `estimate_model`.

    Raises:
        InputError: as for `estimate_model`.
    """
    board = load_device(device) if isinstance(device, str) else device
    library = find_stack(board, stack, extrapolate=extrapolate)
    graphs = [Graph(content) for content in bundle.stages]
    counted = tuple(operations(graph) for graph in graphs)
    refuse_prices(prices or {}, chain.from_iterable(counted))
    asked = [workload(costs, library, prices) for costs in counted]
    memory = bundle_memory(bundle, _kernels(library), graphs)
    stages = tuple(
        StageEstimate(
            **priced(one, board, library),
            macs=known_sum(cost.macs for cost in costs),
            live_macs=known_sum(cost.live_macs for cost in costs),
            exit=spec.exit,
            file_bytes=len(content),
            flash_bytes=needed.flash.c_array_bytes,
            arena_bytes=spec.arena_bytes,
            estimated_arena_bytes_32bit=needed.estimated_arena_bytes_32bit,
        )
        for spec, content, costs, one, needed in zip(
            bundle.manifest.stages, bundle.stages, counted, asked, memory.stages, strict=True
        )
    )
    return BundleEstimate(
        board=board,
        library=library,
        workloads=tuple(asked),
        stages=stages,
        exits=tuple(
            _up_to(stages[:number], asked[:number], board, library) for number in range(1, len(stages) + 1)
        ),
        operations=counted,
        memory=memory,
        fit=_fit(board, library, memory.stages, memory.estimated_32bit.ram_bytes),
        notes=(
            *_notes(asked, board, library),
            "Not priced: the exit rule, quantizing the window and copying boundary tensors.",
            *_misstated(bundle.manifest, stages),
        ),
    )


def _kernels(library: Stack) -> KernelLibrary:
    """Return whose scratch buffers lie in the arena."""
    return "cmsis-nn" if "cmsis-nn" in library.family else "reference"


def _plans_as_tflm(library: Stack) -> bool:
    """Tell whether the arena is TFLM's: other runtimes plan memory of their own."""
    return library.family.startswith(("tflm", "esp-nn"))


def _fit(board: Device, library: Stack, models: Sequence[ModelMemory], ram_bytes: int | None) -> MemoryFit:
    return MemoryFit(
        flash_bytes=sum(model.flash.c_array_bytes for model in models),
        device_flash_bytes=int(board.flash_bytes.value),
        estimated_ram_bytes=ram_bytes if _plans_as_tflm(library) else None,
        device_ram_bytes=int(board.ram_bytes.value),
    )


def _up_to(
    stages: Sequence[StageEstimate], asked: Sequence[Workload], board: Device, library: Stack
) -> ExitEstimate:
    """Return the cost of running these stages one after the other."""
    return ExitEstimate(
        **priced(sum(asked[1:], asked[0]), board, library),
        macs=known_sum(stage.macs for stage in stages),
        live_macs=known_sum(stage.live_macs for stage in stages),
        exit=stages[-1].exit,
        file_bytes=sum(stage.file_bytes for stage in stages),
        flash_bytes=sum(stage.flash_bytes for stage in stages),
        arena_bytes=_largest([stage.arena_bytes for stage in stages]),
        estimated_arena_bytes_32bit=_largest([stage.estimated_arena_bytes_32bit for stage in stages]),
    )


def _notes(asked: Sequence[Workload], board: Device, library: Stack) -> tuple[str, ...]:
    """Say what the estimate leaves out and what it extrapolates."""
    unknown = tuple(dict.fromkeys(name for one in asked for name in one.unknown))
    notes = [note for one in asked for note in one.notes]
    if unknown:
        notes.append(
            f"Unknown: the cycles of {', '.join(unknown)}, and with them every total. Price them: `prices`."
        )
    if not library.fitted_on:
        notes.append(
            f"Extrapolated: {library.name} was never measured on {board.name}; its figures come from other "
            "boards and libraries, and the interval says how far these differ."
        )
    if library not in board.stacks and (warning := core_warning(library.family, board.core)):
        notes.append(warning)
    if not _plans_as_tflm(library):
        notes.append(
            f"Unknown: the RAM that {library.name} needs. The arenas are those that TFLM would need."
        )
    if board.power_mw(library) is None:
        notes.append(f"Not priced: energy, the active power of {board.name} is unknown.")
    return tuple(dict.fromkeys(notes))


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


def _largest(sizes: Sequence[int | None]) -> int | None:
    """Return the largest size; None when one is unknown."""
    known = [size for size in sizes if size is not None]
    return max(known) if len(known) == len(sizes) else None
