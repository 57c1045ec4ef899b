"""Which figures the page holds, each with its alternative text and caption."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mexit_edge.report import figures, training, words
from mexit_edge.report.tables import float_balanced_accuracies
from mexit_edge.report.theme import Picture, picture

if TYPE_CHECKING:
    from mexit_edge.simulate import Simulation

# Pages of networks with many exits stay small: figures of a few exits, tables of all.
MOST_PICTURED_EXITS = 5
MOST_CLASSES_ON_A_PHONE = 7


@dataclass(frozen=True)
class Pictures:
    """The page's figures.

    Args:
        tradeoff: balanced accuracy against MACs.
        exit_shares: where windows leave.
        confusion: per pictured exit, then the policy.
        reliability: per pictured exit.
        training: accuracy and loss, as far as the history holds them.
        pictured: names of the exits that have figures of their own.
        is_all: whether these are all exits.
    """

    tradeoff: Picture
    exit_shares: Picture
    confusion: tuple[Picture, ...]
    reliability: tuple[Picture, ...]
    training: tuple[Picture, ...]
    pictured: tuple[str, ...]
    is_all: bool


def make_pictures(
    simulation: Simulation,
    history: Sequence[dict[str, Any]],
    float_quality: Mapping[str, Any] | None,
    phase_names: Sequence[str] = (),
) -> Pictures:
    """Draw every figure of the page in both schemes.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    n_exits = len(simulation.exits)
    chosen = pictured_exits(n_exits)
    matrices: list[int | Literal["policy"]] = [*chosen, "policy"]
    return Pictures(
        tradeoff=_tradeoff(simulation, float_quality),
        exit_shares=_exit_shares(simulation),
        confusion=tuple(_confusion(simulation, number) for number in matrices),
        reliability=tuple(_reliability(simulation, number) for number in chosen),
        training=_training(history, phase_names),
        pictured=tuple(simulation.exits[number - 1] for number in chosen),
        is_all=len(chosen) == n_exits,
    )


def pictured_exits(n_exits: int) -> list[int]:
    """Return the exits that get figures: all of a few, else evenly spaced from the first to the last."""
    return [int(k) for k in np.unique(np.linspace(1, n_exits, min(n_exits, MOST_PICTURED_EXITS)).round())]


def _tradeoff(simulation: Simulation, float_quality: Mapping[str, Any] | None) -> Picture:
    floats = float_balanced_accuracies(simulation, float_quality)
    points = [floats[name] for name in simulation.exits] if len(floats) == len(simulation.exits) else None
    single = "; ".join(
        f"{name} {words.macs(macs)} MACs, {words.percent(quality)}"
        for name, macs, quality in zip(
            simulation.exits, simulation.exit_macs, simulation.balanced_accuracies, strict=True
        )
    )
    return picture(
        partial(figures.plot_tradeoff, simulation, float_points=points),
        alt=(
            "Balanced accuracy against mean MACs per window. "
            f"Policy: {words.macs(simulation.mean_macs)} MACs, "
            f"{words.percent(simulation.policy_balanced_accuracy)}. Every window at one exit: {single}. "
            f"Oracle: {words.macs(simulation.oracle_mean_macs)} MACs, "
            f"{words.percent(simulation.oracle_balanced_accuracy)}."
        ),
        caption=(
            f"The line sweeps one threshold of {simulation.score} over all exits at once; the star is the "
            "policy with its own thresholds. Up and to the left is better."
        ),
    )


def _exit_shares(simulation: Simulation) -> Picture:
    shares = ", ".join(
        f"{name} {words.percent(share)}"
        for name, share in zip(simulation.exits, simulation.exit_shares, strict=True)
    )
    return picture(
        partial(figures.plot_exit_shares, simulation),
        alt=f"Share of windows that leave at each exit, per true class. All windows: {shares}.",
        caption="Rows are true classes, with their number of windows.",
    )


def _confusion(simulation: Simulation, exit_number: int | Literal["policy"]) -> Picture:
    if exit_number == "policy":
        name, accuracy, balanced = "policy", simulation.policy_accuracy, simulation.policy_balanced_accuracy
    else:
        name = simulation.exits[exit_number - 1]
        accuracy = simulation.accuracies[exit_number - 1]
        balanced = simulation.balanced_accuracies[exit_number - 1]
    return picture(
        partial(figures.plot_confusion, simulation, exit_number),
        alt=f"Confusion matrix of {name}: {words.percent(accuracy)} of {len(simulation):,} windows right.",
        caption=f"{name}: accuracy {words.percent(accuracy)}, balanced {words.percent(balanced)}.",
        is_wide=len(simulation.classes) > MOST_CLASSES_ON_A_PHONE,
    )


def _reliability(simulation: Simulation, exit_number: int) -> Picture:
    name = simulation.exits[exit_number - 1]
    error = simulation.calibration_error(exit_number)
    return picture(
        partial(figures.plot_reliability, simulation, exit_number),
        alt=f"Reliability diagram of {name}: expected calibration error {error:.3f} over 15 bins.",
        caption="",
    )


def _training(history: Sequence[dict[str, Any]], phase_names: Sequence[str]) -> tuple[Picture, ...]:
    made = []
    phases = training.phases_of(history, phase_names)
    alt_phases = caption_phases = ""
    if len(phases) > 1:
        # A phase starts half an epoch before its first epoch.
        begun = ", ".join(f"{name} from epoch {math.ceil(start):,}" for name, start in phases)
        alt_phases = f" Phases: {begun}."
        caption_phases = (
            " A dotted line marks where a phase begins. An exit's training figures stand where the phase "
            "runs the exit, its validation figures from where it first learns."
        )
    quantities: tuple[Literal["accuracy", "loss"], ...] = ("accuracy", "loss")
    for quantity in quantities:
        if not training.training_curves(history, quantity):
            continue
        made.append(
            picture(
                partial(training.plot_training, history, quantity, phase_names=phase_names),
                alt=(
                    f"{quantity.capitalize()} per exit over {len(history)} epochs, training and validation."
                    f"{alt_phases}"
                ),
                caption=f"{quantity.capitalize()}: training dashed, validation solid.{caption_phases}",
            )
        )
    return tuple(made)
