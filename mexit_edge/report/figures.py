"""Figures of a simulation. Each returns its `matplotlib.axes.Axes` and follows the rcParams in force.

Figures are made with matplotlib's object interface alone: no pyplot, no global figure, no change of back end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.exits import BINS
from mexit_edge.report import canvas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from mexit_edge.simulate import Simulation

LONGEST_NAME = 24
SMALLEST_LABELLED_SHARE = 0.1
CLOSE_EXITS = (0.27, 0.2)
MOST_CLASSES_WITH_PERCENT = 7


def plot_tradeoff(
    simulation: Simulation, ax: Axes | None = None, float_points: Sequence[float] | None = None
) -> Axes:
    """Draw balanced accuracy (percent) against the mean cost per window (kMACs).

    Args:
        simulation: gives the curve of the score, every single exit, the oracle and the policy.
        ax: where to draw; a new figure when None.
        float_points: (E,) balanced accuracy, as shares, of the float network at each exit.

    Returns:
        The axes drawn on.

    Raises:
        InputError: ``float_points`` has another length than the exits.
        MissingExtraError: matplotlib is not installed.
    """
    if float_points is not None and len(float_points) != len(simulation.exits):
        raise InputError(
            f"`float_points` needs one value per exit ({len(simulation.exits)}). "
            f"Received: {list(float_points)}. Pass None where the float network was not evaluated."
        )
    ax = canvas.axes(ax)
    colours = canvas.cycle()
    kmacs = simulation.exit_macs / 1e3
    curve_macs, curve_quality = simulation.tradeoff()
    ax.plot(
        curve_macs / 1e3, 100 * curve_quality, color=colours[0], linewidth=1.8, label="one threshold, swept"
    )
    single = 100 * np.asarray(simulation.balanced_accuracies)
    ax.plot(
        kmacs, single, "o", color=colours[1 % len(colours)], markersize=7, label="all windows at one exit"
    )
    if float_points is not None:
        float_percent = 100 * np.asarray(float_points)
        ax.plot(
            kmacs,
            float_percent,
            "o",
            markerfacecolor="none",
            color=colours[1 % len(colours)],
            markersize=10,
            label="same, float network",
        )
    ax.plot(
        simulation.oracle_mean_macs / 1e3,
        100 * simulation.oracle_balanced_accuracy,
        "D",
        color=colours[2 % len(colours)],
        markersize=7,
        label="oracle (knows the label)",
    )
    ax.plot(
        simulation.mean_macs / 1e3,
        100 * simulation.policy_balanced_accuracy,
        "*",
        color=colours[3 % len(colours)],
        markersize=15,
        label="policy",
        zorder=5,
    )
    _label_exits(ax, simulation, single)
    ax.margins(x=0.09, y=0.14)
    ax.set_ylim(top=min(ax.get_ylim()[1], 101.5))
    ax.xaxis.set_major_formatter("{x:,g}")
    ax.set_xlabel(f"mean kMACs per window (full network: {simulation.full_macs / 1e3:,.1f})")
    ax.set_ylabel("balanced accuracy (%)")
    ax.legend(loc="lower right", frameon=True)
    return ax


def _label_exits(ax: Axes, simulation: Simulation, percent: NDArray[np.float64]) -> None:
    """Write the exits' names below their points; where points are close, on two levels in turn."""
    near_macs, near_percent = CLOSE_EXITS[0] * simulation.full_macs, CLOSE_EXITS[1] * np.ptp(percent)
    is_lowered, before = False, (-np.inf, 0.0)
    for name, macs, y in zip(simulation.exits, simulation.exit_macs, percent, strict=True):
        is_close = macs - before[0] < near_macs and abs(y - before[1]) <= near_percent
        is_lowered, before = bool(is_close and not is_lowered), (macs, y)
        # To the right of the point, away from the curve that rises there; the last one stays in the axes.
        is_last = name == simulation.exits[-1]
        ax.annotate(
            name,
            (macs / 1e3, y),
            (0, -21 if is_lowered else -9) if is_last else (7, -16 if is_lowered else -4),
            textcoords="offset points",
            ha="center" if is_last else "left",
            va="top",
        )


def plot_exit_shares(simulation: Simulation, ax: Axes | None = None) -> Axes:
    """Draw where windows leave under the policy: one stacked bar per class, and one for all windows.

    Args:
        simulation: gives the exit of each window and its class.
        ax: where to draw; a new figure when None.

    Returns:
        The axes drawn on.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    n_classes, n_exits = len(simulation.classes), len(simulation.exits)
    ax = canvas.axes(ax, height=1.0 + 0.18 * -(-n_exits // 3) + 0.3 * (n_classes + 1))
    groups = [np.ones(len(simulation), bool), *(simulation.y == index for index in range(n_classes))]
    counts = np.asarray(
        [[np.sum(simulation.exit[group] == number) for number in range(1, n_exits + 1)] for group in groups]
    )
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    left = np.zeros(len(groups))
    rows = np.arange(len(groups))
    for index, colour in enumerate(canvas.ramp(n_exits)):
        width = shares[:, index]
        ax.barh(rows, 100 * width, left=100 * left, height=0.72, color=colour, label=simulation.exits[index])
        for row in np.flatnonzero(width >= SMALLEST_LABELLED_SHARE):
            ax.text(
                float(100 * (left[row] + width[row] / 2)),
                float(row),
                f"{100 * width[row]:.0f}",
                color=canvas.ink_on(colour),
                ha="center",
                va="center",
                fontsize="small",
            )
        left = left + width
    names = ["all windows", *map(_short, simulation.classes)]
    labels = [f"{name} ({total:,})" for name, total in zip(names, totals[:, 0], strict=True)]
    ax.set_yticks(rows, labels, parse_math=False)
    ax.invert_yaxis()
    ax.axhline(0.5, linewidth=0.8, color=canvas.muted())
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of windows (%)")
    ax.grid(visible=False)
    ax.legend(
        loc="lower right",
        bbox_to_anchor=(1.02, 0.97),
        ncols=min(n_exits, 3),
        frameon=False,
        handlelength=1.2,
        columnspacing=1.2,
    )
    return ax


def plot_confusion(
    simulation: Simulation, exit_number: int | Literal["policy"], ax: Axes | None = None
) -> Axes:
    """Draw a confusion matrix: colour is the share of the true class, numbers are windows.

    Args:
        simulation: gives labels and predictions.
        exit_number: exit 1 to E where every window leaves, or ``"policy"``.
        ax: where to draw; a new figure when None.

    Returns:
        The axes drawn on.

    Raises:
        InputError: no such exit.
        MissingExtraError: matplotlib is not installed.
    """
    n_classes = len(simulation.classes)
    if exit_number == "policy":
        predicted, title = simulation.label, "policy"
    else:
        _check_exit(simulation, exit_number)
        predicted, title = simulation.predicted[:, exit_number - 1], simulation.exits[exit_number - 1]
    counts = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(counts, (simulation.y, predicted), 1)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = max(4.8, 1.9 + 0.42 * n_classes)
    ax = canvas.axes(ax, width=side, height=side * 0.92)
    ramp = canvas.colormap()
    # Vector cells: an embedded bitmap of 6 x 6 pixels would be blurred by the viewer.
    ax.pcolormesh(shares, cmap=ramp, vmin=0, vmax=1, edgecolors=canvas.background(), linewidth=1)
    for row, column in np.ndindex(counts.shape):
        if not counts[row, column]:
            continue
        text = f"{counts[row, column]:,}"
        if n_classes <= MOST_CLASSES_WITH_PERCENT:
            share = shares[row, column]
            text = f"{f'{100 * share:.0f}' if share >= 0.005 else '<1'} %\n{text}"
        colour = canvas.ink_on(ramp(shares[row, column]))
        ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, fontsize="small")
    names = [_short(name) for name in simulation.classes]
    places = np.arange(n_classes) + 0.5
    ax.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    ax.set_yticks(places, names, parse_math=False)
    ax.tick_params(length=0)
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.set_title(title)
    return ax


def plot_reliability(simulation: Simulation, exit_number: int, ax: Axes | None = None) -> Axes:
    """Draw accuracy against confidence in 15 bins of equal mass; the gaps make up the ECE in the title.

    Args:
        simulation: gives the probabilities of the exit's dequantized logits.
        exit_number: exit 1 to E.
        ax: where to draw; a new figure when None.

    Returns:
        The axes drawn on.

    Raises:
        InputError: no such exit.
        MissingExtraError: matplotlib is not installed.
    """
    _check_exit(simulation, exit_number)
    confidence, accuracy, _ = reliability_bins(simulation, exit_number)
    ax = canvas.axes(ax, width=4.0, height=3.6)
    colours = canvas.cycle()
    # Zoomed to where the bins are: bins of equal mass crowd near 1 in a good network.
    low = max(0.0, float(min(confidence.min(), accuracy.min())) - 0.03)
    ax.plot([low, 1], [low, 1], linestyle="--", linewidth=1, color=canvas.muted(), label="calibrated")
    ax.vlines(confidence, confidence, accuracy, colors=colours[1 % len(colours)], linewidth=2, label="gap")
    ax.plot(confidence, accuracy, "o", color=colours[0], markersize=5.5, label="bin of equal mass")
    ax.set_xlim(low, 1 + 0.02 * (1 - low))
    ax.set_ylim(low, 1 + 0.03 * (1 - low))
    ax.set_xlabel("mean confidence")
    ax.set_ylabel("accuracy")
    ece = simulation.calibration_error(exit_number)
    ax.set_title(f"{simulation.exits[exit_number - 1]}: ECE {ece:.3f}")
    ax.legend(loc="best", frameon=True)
    return ax


def reliability_bins(
    simulation: Simulation, exit_number: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return mean confidence, accuracy and size of each bin behind `Simulation.calibration_error`."""
    confidence = simulation.probabilities(exit_number).max(axis=1)
    correct = simulation.predicted[:, exit_number - 1] == simulation.y
    parts = np.array_split(np.argsort(confidence, kind="stable"), BINS)
    filled = [part for part in parts if len(part)]
    return (
        np.asarray([confidence[part].mean() for part in filled]),
        np.asarray([correct[part].mean() for part in filled]),
        np.asarray([len(part) for part in filled]),
    )


def _check_exit(simulation: Simulation, exit_number: int) -> None:
    n_exits = len(simulation.exits)
    if not isinstance(exit_number, int | np.integer) or not 1 <= exit_number <= n_exits:
        raise InputError(
            f"`exit_number` must be from 1 to {n_exits} ({', '.join(simulation.exits)}). "
            f"Received: {exit_number!r}. Exits count from 1."
        )


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."
