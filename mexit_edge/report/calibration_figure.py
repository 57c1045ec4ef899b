"""Figure of a calibration: quality over cost on the calibration windows, and where the policy stands."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from mexit_edge.exits import BudgetedPoint, balanced_accuracy, oracle_exits
from mexit_edge.report import canvas, theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mexit_edge.bundle import Manifest
    from mexit_edge.simulate import ExitCosts, Judged


def plot_calibration(
    manifest: Manifest,
    judged: Judged,
    costs: ExitCosts,
    points: Sequence[BudgetedPoint],
    ax: Axes | None = None,
) -> Axes:
    """Draw balanced accuracy over mean cost: the budgeted curve, every exit alone, policy and oracle.

    Args:
        manifest: of the calibrated bundle.
        judged: the calibration windows.
        costs: of a window that leaves at each exit.
        points: of the curve (`mexit_edge.simulate.budgeted_points`).
        ax: where to draw; a new figure when None.

    Returns:
        The axes drawn on.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    ax = canvas.axes(ax, width=6.4, height=4.2)
    colours = canvas.cycle()
    y, prices = judged.windows.y, np.asarray(costs.values)
    predicted = judged.logits.argmax(axis=2)
    oracle = oracle_exits(y, predicted)
    of_oracle = balanced_accuracy(y, predicted[np.arange(len(y)), oracle - 1])
    curve = sorted((point.mean_cost, 100 * point.quality) for point in points)
    ax.plot(
        *zip(*curve, strict=True),
        ".-",
        color=colours[0],
        linewidth=1.2,
        label="shares of windows, p = .05 to 1.95",
    )
    ax.plot(
        prices,
        [100 * balanced_accuracy(y, predicted[:, place]) for place in range(len(prices))],
        "o",
        color=colours[1 % len(colours)],
        markersize=7,
        label="every window at one exit",
    )
    calibration = None if manifest.policy is None else manifest.policy.calibration
    stars = [(float(prices[oracle - 1].mean()), of_oracle, "D", "oracle (knows the label)")]
    if calibration is not None and calibration.mean_cost is not None:
        # As noted: gates that are learned are judged on windows that they were not fitted on.
        stars.append((calibration.mean_cost, calibration.balanced_accuracy or 0.0, "*", "policy"))
    for cost, quality, marker, name in stars:
        ax.plot(
            cost,
            100 * quality,
            marker,
            color=colours[(3 if name == "policy" else 2) % len(colours)],
            markersize=15 if name == "policy" else 7,
            linestyle="none",
            label=name,
            zorder=5,
        )
    for name, price, place in zip(manifest.exits, prices, range(len(prices)), strict=True):
        quality = 100 * balanced_accuracy(y, predicted[:, place])
        is_last = place == len(prices) - 1
        ax.annotate(
            name,
            (price, quality),
            (0, -9) if is_last else (7, -4),
            textcoords="offset points",
            ha="center" if is_last else "left",
            va="top",
        )
    ax.margins(x=0.09, y=0.14)
    ax.set_xlabel(f"mean cost per window: {costs.unit}")
    ax.set_ylabel("balanced accuracy (%)")
    ax.set_title(f"{judged.windows.name}: {len(y):,} calibration windows")
    ax.xaxis.set_major_formatter("{x:,g}")
    # Below the axes: points may lie in any corner.
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
    return ax


def calibration_picture(
    manifest: Manifest,
    judged: Judged,
    costs: ExitCosts,
    points: Sequence[BudgetedPoint],
    kind: Literal["png", "svg"],
) -> bytes:
    """Draw `plot_calibration` as a file of that kind."""
    return theme.drawn(partial(plot_calibration, manifest, judged, costs, points), kind)
