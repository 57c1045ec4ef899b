"""Estimate operations, memory, latency and energy on a device. Intervals, sources, and refusals by name."""

from mexit_edge.estimate.device import Device, Figure, Rate, Stack, device_names, load_device, parse_device
from mexit_edge.estimate.estimate import DEFAULT_DEVICE, estimate_bundle, estimate_model
from mexit_edge.estimate.interval import Estimate
from mexit_edge.estimate.memory import Buffer, MemoryPlan, plan_memory
from mexit_edge.estimate.operations import OPERATIONS, OperationCost, operations, total_live_macs, total_macs
from mexit_edge.estimate.results import (
    BundleEstimate,
    ExitEstimate,
    ExpectedEstimate,
    MemoryFit,
    ModelEstimate,
    StageEstimate,
)

__all__ = [
    "DEFAULT_DEVICE",
    "OPERATIONS",
    "Buffer",
    "BundleEstimate",
    "Device",
    "Estimate",
    "ExitEstimate",
    "ExpectedEstimate",
    "Figure",
    "MemoryFit",
    "MemoryPlan",
    "ModelEstimate",
    "OperationCost",
    "Rate",
    "Stack",
    "StageEstimate",
    "device_names",
    "estimate_bundle",
    "estimate_model",
    "load_device",
    "operations",
    "parse_device",
    "plan_memory",
    "total_live_macs",
    "total_macs",
]
