"""The page's tables, as text cells. A losing row is printed like any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from mexit_edge.exits import balanced_accuracy, decide, expected_calibration_error
from mexit_edge.report.words import (
    NBSP,
    NOT_APPLICABLE,
    UNKNOWN,
    count,
    estimated,
    macs,
    percent,
    quantity,
    signed_points,
)

if TYPE_CHECKING:
    from mexit_edge.bundle import Manifest, StageSpec
    from mexit_edge.estimate import BundleEstimate
    from mexit_edge.simulate import OracleGap, Simulation

TOTAL = "total"
LATENCY = f"estimated ms [low,{NBSP}high]"
ENERGY = f"estimated uJ [low,{NBSP}high]"
HINDSIGHT = (
    "Hindsight: the cheapest thresholds of the same score that are as good as the policy, set with the "
    "labels of these very windows. "
)


@dataclass(frozen=True)
class Table:
    """One table; the first cell of a row is its heading.

    Args:
        caption: what the rows are and how to read them.
        columns: heading per column.
        rows: cells, one per column.
        is_text: whether cells are words, set flush left, instead of numbers.
        marked: heading of the row to set off, or None.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_text: bool = False
    marked: str | None = None


def exits_table(
    simulation: Simulation,
    estimate: BundleEstimate | None,
    float_quality: Mapping[str, Any] | None,
    gap: OracleGap | None,
) -> Table:
    """Return quality and cost of every exit, the policy, hindsight where there is a gap, and the oracle."""
    n_exits = len(simulation.exits)
    floats = float_balanced_accuracies(simulation, float_quality)
    rows = []
    for index, name in enumerate(simulation.exits):
        alone = np.full(len(simulation), index + 1)
        quality = (
            percent(simulation.accuracies[index]),
            percent(simulation.balanced_accuracies[index]),
            percent(floats[name]) if name in floats else UNKNOWN,
            f"{simulation.calibration_error(index + 1):.3f}",
        )
        leaving = percent(simulation.exit_shares[index])
        rows.append((name, *quality, *_cost(simulation, alone, estimate, leaving)))
    took = simulation.exit - 1
    confidence = np.stack(
        [simulation.probabilities(number).max(axis=1) for number in range(1, n_exits + 1)], axis=1
    )[np.arange(len(simulation)), took]
    ece = expected_calibration_error(confidence, simulation.label == simulation.y)
    quality = (
        percent(simulation.policy_accuracy),
        percent(simulation.policy_balanced_accuracy),
        NOT_APPLICABLE,
        f"{ece:.3f}",
    )
    rows.append(("policy", *quality, *_cost(simulation, simulation.exit, estimate, percent(1.0))))
    bounds = [("oracle", simulation.oracle_exit, simulation.predicted)]
    if gap is not None:
        left_at = decide(simulation.scores, gap.hindsight_thresholds)
        bounds.insert(0, ("hindsight", left_at, simulation.rule_labels))
    for name, left_at, labels in bounds:
        label = labels[np.arange(len(simulation)), left_at - 1]
        quality = (
            percent(float(np.mean(label == simulation.y))),
            percent(balanced_accuracy(simulation.y, label)),
            NOT_APPLICABLE,
            NOT_APPLICABLE,
        )
        rows.append((name, *quality, *_cost(simulation, left_at, estimate, NOT_APPLICABLE)))
    return Table(
        caption=(
            "A row of an exit: every window leaves there. Share of windows: how many leave there under the "
            f"policy. {'' if gap is None else HINDSIGHT}The oracle stops at the first exit that is right, "
            "which only the label can tell; it is a bound, not a policy. "
            f"{estimate_source(estimate)} {NOT_APPLICABLE}: does not apply."
        ),
        columns=(
            "exit",
            "accuracy",
            "balanced accuracy",
            "balanced accuracy, float network",
            "ECE",
            "mean MACs",
            "MACs of full network",
            "share of windows",
            LATENCY,
            ENERGY,
        ),
        rows=tuple(rows),
        marked="policy",
    )


def _cost(
    simulation: Simulation, exits: Any, estimate: BundleEstimate | None, leaving: str
) -> tuple[str, str, str, str, str]:
    """Return mean MACs, their share, share of windows, ms and uJ when windows leave at ``exits``."""
    mean_macs = float(simulation.exit_macs[exits - 1].mean())
    expected = None
    if estimate is not None:
        expected = estimate.expected(exit_shares(exits, len(simulation.exits)))
    return (
        f"{mean_macs:,.0f}",
        percent(mean_macs / simulation.full_macs),
        leaving,
        UNKNOWN if expected is None else estimated(expected.estimated_latency_ms),
        UNKNOWN if expected is None else estimated(expected.estimated_energy_uj),
    )


def exit_shares(exits: Any, n_exits: int) -> tuple[float, ...]:
    """Return the share of windows that leave at each exit, from exit numbers (n,)."""
    return tuple(float(np.mean(exits == number)) for number in range(1, n_exits + 1))


def float_balanced_accuracies(
    simulation: Simulation, float_quality: Mapping[str, Any] | None
) -> dict[str, float]:
    """Return exit name -> balanced accuracy of the float network, for the exits that were evaluated."""
    rows = [] if float_quality is None else float_quality.get("exits", [])
    return {
        row["exit"]: float(row["balanced_accuracy"])
        for row in rows
        if row["exit"] in simulation.exits and row.get("balanced_accuracy") is not None
    }


def estimate_source(estimate: BundleEstimate | None) -> str:
    """Return the sentence that says where estimated figures come from."""
    if estimate is None:
        return "No estimate was made for a device: time and energy are unknown."
    return f"Time and energy are estimated for {estimate.device} with {estimate.stack}, not measured."


def comparison_table(simulation: Simulation, gap: OracleGap | None) -> Table:
    """Return what the policy gains or loses against every fixed choice, hindsight and the oracle."""
    others = [
        *zip(simulation.exits, simulation.exit_macs, simulation.balanced_accuracies, strict=True),
        *([] if gap is None else [("hindsight", gap.hindsight_macs, gap.hindsight_balanced_accuracy)]),
        ("oracle", simulation.oracle_mean_macs, simulation.oracle_balanced_accuracy),
    ]
    return Table(
        caption="Negative points: the policy is worse. MACs below 100 %: it is cheaper.",
        columns=("policy against", "balanced accuracy, points", "MACs, of the other's"),
        rows=tuple(
            (
                name,
                signed_points(simulation.policy_balanced_accuracy - quality),
                percent(simulation.mean_macs / macs),
            )
            for name, macs, quality in others
        ),
    )


def leaving_table(simulation: Simulation) -> Table:
    """Return how right the windows are that leave at each exit, and how right the final exit is on them."""
    rows = []
    final = simulation.predicted[:, -1]
    for number, name in enumerate(simulation.exits, start=1):
        here = simulation.exit == number
        cells = (UNKNOWN, UNKNOWN)
        if here.any():
            cells = (
                percent(float(np.mean(simulation.label[here] == simulation.y[here]))),
                percent(float(np.mean(final[here] == simulation.y[here]))),
            )
        rows.append((name, count(int(here.sum())), *cells))
    return Table(
        caption="Accuracy on the windows that leave there, and that of the final exit on the same windows.",
        columns=("leave at", "windows", "accuracy", "final exit on them"),
        rows=tuple(rows),
    )


def stages_table(manifest: Manifest, simulation: Simulation, estimate: BundleEstimate | None) -> Table:
    """Return size and cost of every stage."""
    costs = {} if estimate is None else {stage.exit: stage for stage in estimate.stages}
    rows = []
    for stage, invocations in zip(manifest.stages, simulation.invocations, strict=True):
        cost = costs.get(stage.exit)
        rows.append(
            (
                stage.exit,
                count(stage.macs),
                count(stage.live_macs),
                count(stage.flash_bytes),
                count(stage.arena_bytes),
                UNKNOWN if cost is None else count(cost.estimated_arena_bytes_32bit),
                _boundary(stage),
                UNKNOWN if cost is None else estimated(cost.estimated_latency_ms),
                UNKNOWN if cost is None else estimated(cost.estimated_energy_uj),
                f"{invocations:,}",
            )
        )
    return Table(
        caption=(
            "What runs between two exits. Live MACs leave out what cannot depend on the input, such as "
            "all-zero channels. Boundary: int8 tensors kept for later stages. Ran for: windows that the "
            f"stage was invoked for in the policy's run, of {len(simulation):,}. "
            f"{_memory(estimate)}{estimate_source(estimate)}"
        ),
        columns=(
            "stage to",
            "MACs",
            "live MACs",
            "flash bytes",
            "TFLM arena bytes (64-bit host)",
            "estimated arena bytes (32-bit)",
            "boundary: shape, bytes",
            LATENCY,
            ENERGY,
            "ran for",
        ),
        rows=tuple(rows),
    )


def training_cost_table(training_cost: Sequence[Mapping[str, Any]]) -> Table:
    """Return what the training cost, phase by phase and in all; a sum with an unknown part is unknown.

    Args:
        training_cost: rows of `mexit_edge.regimes.PhaseCost.to_dict`, one per phase, at least one. With a
            key ``training`` rows say which of several trainings they belong to, such as a fold.
    """
    several = len({row.get("training") for row in training_cost}) > 1
    # The total stands in the first column, which marks the row.
    total: dict[str, Any] = {"training": TOTAL, "phase": "" if several else TOTAL}
    for name in ("epochs", "steps", "windows", "forward_macs", "backward_macs", "measured_seconds"):
        total[name] = _unless_unknown(sum, [row[name] for row in training_cost])
    peaks = [row["measured_peak_memory_bytes"] for row in training_cost]
    total["measured_peak_memory_bytes"] = _unless_unknown(max, peaks)
    return Table(
        caption=(
            "Counted: the multiply-accumulates of the forward and backward passes of the training steps; "
            "validation is not included. Measured: wall time, validation included, and the process's peak "
            "memory."
        ),
        columns=(
            *(("training",) if several else ()),
            "phase",
            "epochs",
            "steps",
            "windows",
            "forward MACs",
            "backward MACs",
            "measured seconds",
            "measured peak memory, MB",
        ),
        rows=tuple(
            (
                *((str(row.get("training", UNKNOWN)),) if several else ()),
                str(row["phase"]),
                count(row["epochs"]),
                count(row["steps"]),
                count(row["windows"]),
                macs(row["forward_macs"]),
                macs(row["backward_macs"]),
                quantity(row["measured_seconds"]),
                _megabytes(row["measured_peak_memory_bytes"]),
            )
            for row in (*training_cost, total)
        ),
        marked=TOTAL,
    )


def _unless_unknown(combine: Callable[[list[Any]], Any], values: list[Any]) -> Any:
    return None if None in values else combine(values)


def _megabytes(n_bytes: int | None) -> str:
    return UNKNOWN if n_bytes is None else quantity(n_bytes / 1e6)


def _memory(estimate: BundleEstimate | None) -> str:
    """Return what the models take of the device's memory, as a sentence with a blank after it, or nothing."""
    if estimate is None:
        return ""
    fit, plan = estimate.fit, estimate.memory.estimated_32bit
    return (
        f"On {estimate.device}, without program and kernels: {count(fit.flash_bytes)} of "
        f"{count(fit.device_flash_bytes)} flash bytes; {count(fit.estimated_ram_bytes)} of "
        f"{count(fit.device_ram_bytes)} RAM bytes, estimated for 32 bits, for one block that the arenas "
        f"share ({count(plan.arena_bytes)} the largest) with the boundaries "
        f"({count(plan.boundary_bytes)} at most): {fit.verdict}. "
    )


def _boundary(stage: StageSpec) -> str:
    """Return shapes and bytes of the tensors that a stage hands on; int8, so one byte per element."""
    tensors = [
        f"{' x '.join(map(str, tensor.shape))}: {prod(tensor.shape):,}" for tensor in stage.outputs[1:]
    ]
    return "; ".join(tensors) or "none"
