"""Tables for the terminal, and the same facts as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mexit_edge.bundle import Manifest
from mexit_edge.estimate import BundleEstimate, BundleMemory, Estimate, MemoryPlan, unknown_operations
from mexit_edge.simulate import Simulation, oracle_gap


def print_json(facts: dict[str, Any]) -> None:
    """Print facts on standard output."""
    print(json.dumps(facts, indent=1))


def quality_facts(simulation: Simulation, estimate: BundleEstimate) -> dict[str, Any]:
    """Return what a simulation and an estimate tell, in plain types."""
    interval = simulation.drop_interval
    expected = estimate.expected(simulation.exit_shares)
    gap = oracle_gap(simulation)
    return {
        "engine": simulation.engine,
        "data": simulation.data,
        "windows": len(simulation),
        "subjects": [int(subject) for subject in np.unique(simulation.subject)],
        "exits": [
            {
                "exit": name,
                "accuracy": simulation.accuracies[index],
                "balanced_accuracy": simulation.balanced_accuracies[index],
                "macs": int(simulation.exit_macs[index]),
                "estimated_latency_ms": _interval(estimate.exits[index].estimated_latency_ms),
                "estimated_energy_uj": _interval(estimate.exits[index].estimated_energy_uj),
            }
            for index, name in enumerate(simulation.exits)
        ],
        "policy": None
        if not simulation.has_policy
        else {
            "score": simulation.score,
            "thresholds_int": list(simulation.thresholds_int),
            "accuracy": simulation.policy_accuracy,
            "balanced_accuracy": simulation.policy_balanced_accuracy,
            "drop": simulation.drop,
            "drop_interval": None if interval is None else [interval.low, interval.high],
            "drop_interval_level": None if interval is None else interval.level,
            "mean_macs": simulation.mean_macs,
            "share_of_full_macs": simulation.mean_macs / simulation.full_macs,
            "exit_shares": list(simulation.exit_shares),
            "invocations": list(simulation.invocations),
            "estimated_latency_ms": _interval(expected.estimated_latency_ms),
            "estimated_energy_uj": _interval(expected.estimated_energy_uj),
        },
        "oracle": {
            "balanced_accuracy": simulation.oracle_balanced_accuracy,
            "mean_macs": simulation.oracle_mean_macs,
        },
        "oracle_gap": None if gap is None else gap.to_dict(),
        "device": estimate.device,
        "stack": estimate.stack,
        "estimate_notes": list(estimate.notes),
    }


def quality_table(simulation: Simulation, float_balanced: list[float] | None) -> Table:
    """Return what exits, policy, hindsight and oracle achieve, what they compute, and where the gap is.

    Args:
        simulation: of the int8 stages.
        float_balanced: balanced accuracy of the float network per exit, or None where it is not known.
    """
    gap = oracle_gap(simulation)
    table = Table(
        title=f"{len(simulation):,} test windows of {simulation.data}, int8 on {simulation.engine}",
        caption=None if gap is None else gap.sentence,
    )
    table.add_column("")
    for heading in ("balanced\naccuracy", "float\nnetwork", "accuracy", "windows\nleave", "MACs", "of full"):
        table.add_column(heading, justify="right", no_wrap=True)
    full = simulation.full_macs
    policy = "policy" if simulation.has_policy else "no policy"
    for index, name in enumerate(simulation.exits):
        table.add_row(
            name,
            f"{simulation.balanced_accuracies[index]:.4f}",
            "" if float_balanced is None else f"{float_balanced[index]:.4f}",
            f"{simulation.accuracies[index]:.4f}",
            f"{simulation.exit_shares[index]:.1%}",
            f"{simulation.exit_macs[index]:,}",
            f"{simulation.exit_macs[index] / full:.1%}",
        )
    table.add_section()
    for name, balanced, accuracy, macs in (
        (policy, simulation.policy_balanced_accuracy, simulation.policy_accuracy, simulation.mean_macs),
        *([] if gap is None else [("hindsight", gap.hindsight_balanced_accuracy, None, gap.hindsight_macs)]),
        ("oracle", simulation.oracle_balanced_accuracy, None, simulation.oracle_mean_macs),
    ):
        table.add_row(
            name,
            f"{balanced:.4f}",
            "",
            "" if accuracy is None else f"{accuracy:.4f}",
            "",
            f"{macs:,.0f}",
            f"{macs / full:.1%}",
            style="bold" if name == policy else None,
        )
    return table


def estimate_table(simulation: Simulation, estimate: BundleEstimate) -> Table:
    """Return estimated time and energy per exit, and expected under the policy's exits."""
    caption = f"{estimate.stack}; value \\[low, high]"
    if estimate.exits[-1].estimated_latency_ms is None:
        unknown = unknown_operations(chain.from_iterable(estimate.operations))
        caption += escape(f"\nUnknown: nothing is known of {', '.join(unknown)}.")
    table = Table(title=f"Estimated for {estimate.device}", caption=caption)
    table.add_column("")
    table.add_column("latency, ms", justify="right", no_wrap=True)
    table.add_column("energy, uJ", justify="right", no_wrap=True)
    for exit_ in estimate.exits:
        table.add_row(exit_.exit, _text(exit_.estimated_latency_ms), _text(exit_.estimated_energy_uj))
    expected = estimate.expected(simulation.exit_shares)
    table.add_section()
    table.add_row(
        "policy",
        _text(expected.estimated_latency_ms),
        _text(expected.estimated_energy_uj),
        style="bold",
    )
    return table


def cost_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return what a training cost, phase by phase."""
    table = Table(title="Training cost", caption="MACs of the training steps, without validation")
    table.add_column("training")
    table.add_column("phase")
    for heading in ("epochs", "steps", "forward\nGMACs", "backward\nGMACs", "measured\ns", "peak\nMB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["training"],
            row["phase"],
            f"{row['epochs']}",
            f"{row['steps']:,}",
            *(_scaled(row[name], 1e9) for name in ("forward_macs", "backward_macs")),
            f"{row['measured_seconds']:.1f}",
            _scaled(row["measured_peak_memory_bytes"], 1e6),
        )
    return table


def stage_table(manifest: Manifest) -> Table:
    """Return the stages of a bundle as a table."""
    table = Table(title=f"{escape(manifest.name)}: stages")
    table.add_column("stage")
    for heading in ("ops", "MACs", "live MACs", "flash\nbytes", "arena\nbytes", "boundary, int8"):
        table.add_column(heading, justify="right", no_wrap=True)
    for stage in manifest.stages:
        boundary = ["x".join(map(str, tensor.shape)) for tensor in stage.outputs[1:]]
        table.add_row(
            stage.exit,
            str(sum(stage.ops.values())),
            f"{stage.macs:,}",
            f"{stage.live_macs:,}",
            f"{stage.flash_bytes:,}",
            "unknown" if stage.arena_bytes is None else f"{stage.arena_bytes:,}",
            "\n".join(boundary) or "-",
        )
    return table


def memory_table(memory: BundleMemory) -> Table:
    """Return where everything lies that the loop over stages needs besides the models."""
    unknown = [f"32-bit unknown: {reason}" for reason in memory.unknown_because]
    if memory.host.ram_bytes is None:
        unknown.insert(0, "Host unknown: the bundle does not state every arena.")
    table = Table(
        title="One block of RAM for the loop: as TFLM reports it on a 64-bit host, and estimated for 32 bits",
        caption=escape("\n".join(unknown)) or None,
    )
    table.add_column("buffer")
    for heading in ("in use\nin stages", "bytes,\nhost", "from\nbyte", "bytes,\n32-bit", "from\nbyte"):
        table.add_column(heading, justify="right", no_wrap=True)
    plans = (memory.host, memory.estimated_32bit)
    places = [{one.name: (f"{one.bytes:,}", f"{one.offset:,}") for one in plan.buffers} for plan in plans]
    # Where an arena is unknown, its side has none.
    for one in {one.name: one for plan in plans for one in plan.buffers}.values():
        stages = "-".join(dict.fromkeys((str(one.first_stage), str(one.last_stage))))
        cells = [cell for side in places for cell in side.get(one.name, ("-", "-"))]
        table.add_row(escape(one.name), stages, *cells)
    sizes = ["unknown" if plan.ram_bytes is None else f"{plan.ram_bytes:,}" for plan in plans]
    table.add_section()
    table.add_row("the whole block", "", sizes[0], "", sizes[1], "")
    return table


def memory_facts(memory: BundleMemory) -> dict[str, Any]:
    """Return what a bundle takes of flash and RAM, in plain types."""
    return {
        **_plan_facts(memory.host),
        "estimated_32bit": _plan_facts(memory.estimated_32bit),
        "stages": [
            {
                **asdict(stage.flash),
                "activation_bytes": None if stage.activations is None else stage.activations.bytes,
                "estimated_arena_bytes_32bit": stage.estimated_arena_bytes_32bit,
                "estimated_peak_bytes_32bit": memory.estimated_32bit.stage_bytes(number),
                "unknown_because": stage.unknown_because,
            }
            for number, stage in enumerate(memory.stages, start=1)
        ],
    }


def _plan_facts(plan: MemoryPlan) -> dict[str, Any]:
    return {**asdict(plan), "ram_bytes": plan.ram_bytes}


def console(*, quiet: bool) -> Console:
    """Return where people read: standard output, or standard error when that belongs to JSON."""
    return Console(stderr=quiet, highlight=False)


def _interval(estimate: Estimate | None) -> dict[str, float] | None:
    return None if estimate is None else {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _scaled(value: int | None, unit: float) -> str:
    return "unknown" if value is None else f"{value / unit:,.1f}"


def _text(estimate: Estimate | None) -> str:
    if estimate is None:
        return "unknown"
    digits = 2 if estimate.value < 100 else 0
    text = f"{estimate.value:,.{digits}f} [{estimate.low:,.{digits}f}, {estimate.high:,.{digits}f}]"
    return escape(text)
