"""Estimate operations, memory, latency and energy on a device. Intervals, sources, and refusals by name."""

from mexit_edge.estimate.device import (
    Coefficient,
    CyclesPer,
    Device,
    Figure,
    Stack,
    device_names,
    load_device,
    parse_device,
)
from mexit_edge.estimate.energy.clocks import ClockChoice, cheapest_clock, clock_choices
from mexit_edge.estimate.energy.period import (
    BATTERY_NOTE,
    Period,
    PeriodEnergy,
    battery_life_days,
    energy_over_period,
)
from mexit_edge.estimate.estimate import DEFAULT_DEVICE, estimate_bundle, estimate_model
from mexit_edge.estimate.ethos_u import EthosUEstimate, EthosULayer, estimate_ethos_u
from mexit_edge.estimate.interval import Estimate
from mexit_edge.estimate.memory.activations import ActivationBuffer, ActivationPlan, plan_activations
from mexit_edge.estimate.memory.arena import estimate_arena_bytes_32bit
from mexit_edge.estimate.memory.plan import (
    Buffer,
    BundleMemory,
    FlashBytes,
    MemoryPlan,
    ModelMemory,
    bundle_memory,
    flash_bytes,
    model_memory,
    plan_memory,
)
from mexit_edge.estimate.operation_rules import MAC_KINDS, OPERATIONS, Kind
from mexit_edge.estimate.operations import (
    OperationCost,
    operations,
    total_live_macs,
    total_macs,
    unknown_operations,
)
from mexit_edge.estimate.results import (
    BundleEstimate,
    Cost,
    ExitEstimate,
    MemoryFit,
    ModelEstimate,
    StageEstimate,
)
from mexit_edge.estimate.single_exit import single_exit_cost, single_exit_macs, single_exit_operations

__all__ = [
    "BATTERY_NOTE",
    "DEFAULT_DEVICE",
    "MAC_KINDS",
    "OPERATIONS",
    "ActivationBuffer",
    "ActivationPlan",
    "Buffer",
    "BundleEstimate",
    "BundleMemory",
    "ClockChoice",
    "Coefficient",
    "Cost",
    "CyclesPer",
    "Device",
    "Estimate",
    "EthosUEstimate",
    "EthosULayer",
    "ExitEstimate",
    "Figure",
    "FlashBytes",
    "Kind",
    "MemoryFit",
    "MemoryPlan",
    "ModelEstimate",
    "ModelMemory",
    "OperationCost",
    "Period",
    "PeriodEnergy",
    "Stack",
    "StageEstimate",
    "battery_life_days",
    "bundle_memory",
    "cheapest_clock",
    "clock_choices",
    "device_names",
    "energy_over_period",
    "estimate_arena_bytes_32bit",
    "estimate_bundle",
    "estimate_ethos_u",
    "estimate_model",
    "flash_bytes",
    "load_device",
    "model_memory",
    "operations",
    "parse_device",
    "plan_activations",
    "plan_memory",
    "single_exit_cost",
    "single_exit_macs",
    "single_exit_operations",
    "total_live_macs",
    "total_macs",
    "unknown_operations",
]
