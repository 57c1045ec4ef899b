"""Figures of a sweep. Each returns its `matplotlib.axes.Axes` and follows the rcParams in force.

With a dozen regimes, one colour each would tell nobody anything: every regime has a panel of its own, where
it is drawn in colour, the reference in the text's colour and what all regimes span in grey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.benchmark.statistics import leaves_out_zero
from mexit_edge.errors import InputError
from mexit_edge.report import canvas, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mexit_edge.benchmark.quality_cost import QualityCostCurve
    from mexit_edge.benchmark.statistics import Ranking
    from mexit_edge.exits import Interval

Floats = NDArray[np.float64]

PANELS_ABREAST = 4
# In inches; all figures of a page are as wide, so that letters are of one size.
WIDTH, PANEL_HEIGHT, ROW, AROUND = 9.8, 1.9, 0.3, 1.0
# Around and between the panels of a figure, for their numbers, titles and legend.
LEFT, RIGHT, TOP, BOTTOM, GAP, LINE = 0.62, 0.12, 0.62, 0.48, 0.14, 0.3
# A panel is two inches wide: more points are not seen, and make the page larger.
GRID_POINTS = 21
# What the legend of panels calls what.
OWN, SEEDS = "the regime above, mean over seeds", "lowest to highest seed"
BOUND, SPAN = "its oracle", "all regimes"
# Curves rise steeply from the first exit: a scale down to the worst of them would hide the rest.
LOWEST_QUANTILE = 0.02


@dataclass(frozen=True, eq=False)
class Line:
    """A figure of one regime along something.

    Args:
        x: (points,) ascending, the same for all lines of a figure.
        mean: (points,) over seeds.
        low: (points,) the lowest seed.
        high: (points,) the highest seed.
        bound: (points,) mean of what cannot be passed; None where there is nothing of the kind.
    """

    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    bound: Floats | None = None


@dataclass(frozen=True)
class Difference:
    """One row of a forest plot, in percentage points.

    Args:
        mean: over pairs.
        seeds: interval over seeds; None with one pair.
        subjects: interval over judged subjects; None where it is unknown.
    """

    mean: float
    seeds: Interval | None
    subjects: Interval | None = None


@dataclass(frozen=True)
class Spot:
    """One regime in the figure of training cost.

    Args:
        macs: forward and backward, mean over seeds.
        quality: mean over seeds, as a share.
        interval: of the quality; None with one seed.
        is_marked: whether it is the best, or shown to be as good.
    """

    macs: float
    quality: float
    interval: Interval | None
    is_marked: bool


def curve_line(seeds: Sequence[Sequence[tuple[QualityCostCurve, QualityCostCurve]]], low: float) -> Line:
    """Put the curves of several seeds on one grid of cost shares.

    Args:
        seeds: per seed, the curve and the oracle's of every fold.
        low: where the grid begins, not below any curve's first point; it ends at the plain network's cost.
    """
    # Close where curves rise steeply, at the first exit's cost.
    grid = np.geomspace(low, 1.0, GRID_POINTS)
    # (seeds, curve or oracle, points), the mean over folds.
    drawn = np.stack(
        [
            np.mean([[np.interp(grid, one.cost, one.quality) for one in fold] for fold in folds], axis=0)
            for folds in seeds
        ]
    )
    curves, bounds = drawn[:, 0], drawn[:, 1]
    return Line(100 * grid, curves.mean(axis=0), curves.min(axis=0), curves.max(axis=0), bounds.mean(axis=0))


def plot_panels(
    lines: Mapping[str, Line], reference: str, xlabel: str, ylabel: str, ax: Axes | None = None
) -> Axes:
    """Draw a panel per regime: its line, the band of its seeds, the reference's line, what all span in grey.

    Args:
        lines: regime -> line; values are shares, drawn in percent.
        reference: regime that every panel shows; none where it is not among them.
        xlabel: of all panels.
        ylabel: of all panels.
        ax: draw the first regime's panel alone, there; a new figure of all when None.

    Returns:
        The axes of the first panel.

    Raises:
        InputError: there is no line.
        MissingExtraError: matplotlib is not installed.
    """
    if not lines:
        raise InputError("`lines` must hold at least one regime. Received: none.")
    if ax is not None:
        _panel(ax, next(iter(lines)), lines, reference)
        return ax
    canvas.load_matplotlib()
    from matplotlib.figure import Figure

    down = ceil(len(lines) / PANELS_ABREAST)
    # Laid out by hand: matplotlib's layout engine would draw all panels once more to measure them.
    height = PANEL_HEIGHT * down + TOP + BOTTOM
    figure = Figure(figsize=(WIDTH, height))
    grid = figure.add_gridspec(
        down,
        PANELS_ABREAST,
        left=LEFT / WIDTH,
        right=1 - RIGHT / WIDTH,
        bottom=BOTTOM / height,
        top=1 - TOP / height,
        wspace=GAP * PANELS_ABREAST / (WIDTH - LEFT - RIGHT),
        hspace=LINE / (PANEL_HEIGHT - LINE),
    )
    panels: list[Axes] = []
    for place, name in enumerate(lines):
        shared = panels[0] if panels else None
        panel = figure.add_subplot(grid[place], sharex=shared, sharey=shared)
        _panel(panel, name, lines, reference)
        # Numbers where no panel stands below, or to the left.
        panel.tick_params(
            labelbottom=place + PANELS_ABREAST >= len(lines), labelleft=place % PANELS_ABREAST == 0, length=0
        )
        panel.grid(visible=False, axis="x")
        panel.locator_params(axis="x", nbins=6)
        panel.locator_params(axis="y", nbins=5)
        panels.append(panel)
    first = panels[0]
    _shared_range(first, list(lines.values()))
    figure.supxlabel(xlabel, fontsize=9.5, y=0.08 / height)
    figure.supylabel(ylabel, fontsize=9.5, x=0.08 / WIDTH)
    # The reference's own panel has no line of the reference: any other panel names all there is.
    named: dict[str, Any] = {}
    for panel in panels:
        named |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    handles = {label: named[label] for label in (OWN, SEEDS, reference, BOUND, SPAN) if label in named}
    figure.legend(list(handles.values()), list(handles), loc="upper left", ncols=len(handles), frameon=False)
    return first


def plot_forest(
    rows: Mapping[str, Difference | None], xlabel: str, ax: Axes | None = None, *, named: bool = True
) -> Axes:
    """Draw what every regime has over the reference: one row each, with both intervals.

    Args:
        rows: regime -> difference; None leaves the row empty.
        xlabel: what the difference is of, and of what.
        ax: where to draw; a new figure when None.
        named: whether to write the regimes' names.

    Raises:
        InputError: there is no row.
        MissingExtraError: matplotlib is not installed.
    """
    if not rows:
        raise InputError("`rows` must hold at least one regime. Received: none.")
    ax = canvas.axes(ax, width=5.6, height=AROUND + ROW * len(rows))
    colours, ink = canvas.cycle(), canvas.load_matplotlib().rcParams["axes.labelcolor"]
    ax.axvline(0, color=ink, linewidth=1)
    drawn = [(place, one) for place, one in enumerate(rows.values()) if one is not None]
    for place, one in drawn:
        apart = leaves_out_zero(one.seeds)
        colour = (colours[0] if one.mean > 0 else colours[1 % len(colours)]) if apart else canvas.muted()
        if one.subjects is not None:
            ends = [one.subjects.low, one.subjects.high]
            ax.plot(ends, [place + 0.2] * 2, color=colour, linewidth=1, linestyle=(0, (1, 1.5)))
        if one.seeds is not None:
            ax.plot([one.seeds.low, one.seeds.high], [place, place], color=colour, linewidth=1.8)
        ax.plot(one.mean, place, "o" if apart else "D", color=colour, markersize=6 if apart else 5)
    ax.set_yticks(range(len(rows)), list(rows) if named else [""] * len(rows))
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(xlabel)
    return ax


def plot_forests(forests: Mapping[str, Mapping[str, Difference | None]], xlabel: str) -> Axes:
    """Draw several forest plots of the same regimes side by side; returns the first one's axes.

    Args:
        forests: title -> rows, as of `plot_forest`; at least one. All have the same names in one order,
            since these stand at the first alone.
        xlabel: of all of them.

    Raises:
        InputError: names differ.
    """
    names = {tuple(rows) for rows in forests.values()}
    if len(names) > 1:
        raise InputError(
            f"`forests` must have the same rows in one order. Received: {'; '.join(map(', '.join, names))}."
        )
    canvas.load_matplotlib()
    from matplotlib.figure import Figure

    n_rows = max(map(len, forests.values()))
    figure = Figure(figsize=(WIDTH, AROUND + 0.3 + ROW * n_rows), layout="constrained")
    panels = figure.subplots(1, len(forests), squeeze=False)[0]
    for place, (panel, (title, rows)) in enumerate(zip(panels, forests.items(), strict=True)):
        plot_forest(rows, "", panel, named=place == 0).set_title(title, fontsize=9.5)
    figure.supxlabel(xlabel, fontsize=9.5)
    first: Axes = panels[0]
    return first


def plot_training_cost(spots: Mapping[str, Spot], xlabel: str) -> Axes:
    """Draw quality beside what training cost, cheapest first; the best and what is as good in colour.

    Two panels with one row per regime: names beside the points of a cloud would lie on each other.

    Args:
        spots: regime -> spot.
        xlabel: what the quality is, in percent.

    Returns:
        The axes of the quality.

    Raises:
        InputError: there is no spot.
        MissingExtraError: matplotlib is not installed.
    """
    if not spots:
        raise InputError("`spots` must hold at least one regime. Received: none.")
    canvas.load_matplotlib()
    from matplotlib.figure import Figure

    order = sorted(spots, key=lambda name: spots[name].macs)
    figure = Figure(figsize=(WIDTH, AROUND + ROW * len(order)), layout="constrained")
    quality, cost = figure.subplots(1, 2, width_ratios=(3, 2))
    for place, name in enumerate(order):
        one = spots[name]
        colour = canvas.cycle()[0] if one.is_marked else canvas.muted()
        if one.interval is not None:
            ends = [100 * one.interval.low, min(100 * one.interval.high, 100.0)]
            quality.plot(ends, [place, place], color=colour, linewidth=1.8)
        quality.plot(100 * one.quality, place, "o" if one.is_marked else "D", color=colour, markersize=6)
        cost.barh(place, one.macs, height=0.6, color=colour)
        cost.annotate(
            words.macs(one.macs),
            (one.macs, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    for panel, names in ((quality, order), (cost, [""] * len(order))):
        panel.set_yticks(range(len(order)), names)
        panel.set_ylim(len(order) - 0.4, -0.6)
        panel.grid(visible=False, axis="y")
    quality.set_xlabel(xlabel)
    # Room for the last bar's figure.
    cost.set_xlim(0, 1.25 * max(one.macs for one in spots.values()))
    cost.set_xticks([])
    cost.set_xlabel("training, forward and backward MACs")
    first: Axes = quality
    return first


def plot_ranks(ranking: Ranking, title: str, ax: Axes | None = None) -> Axes:
    """Draw average ranks with a bar over regimes that are not told apart (Demsar, JMLR 7, 2006).

    Args:
        ranking: of at least two regimes; without cliques no bar is drawn.
        title: what they were ranked by.
        ax: where to draw; a new figure when None.

    Raises:
        InputError: nothing was ranked.
        MissingExtraError: matplotlib is not installed.
    """
    n = len(ranking.regimes)
    if n < 2:
        raise InputError(f"`ranking` must hold at least two regimes. Received: {n}. {ranking.note}")
    bars = [clique for clique in ranking.cliques if len(clique) > 1]
    half = ceil(n / 2)
    levels = 0.55 * len(bars) + half + 0.5
    ax = canvas.axes(ax, width=WIDTH, height=0.9 + 0.24 * levels)
    ink = canvas.load_matplotlib().rcParams["axes.labelcolor"]
    place = dict(zip(ranking.regimes, ranking.ranks, strict=True))
    for level, clique in enumerate(bars):
        y = 0.45 + 0.55 * level
        ends = [place[clique[0]] - 0.04, place[clique[-1]] + 0.04]
        ax.plot(ends, [y, y], color=canvas.cycle()[0], linewidth=4, solid_capstyle="butt")
    below = 0.55 * len(bars) + 0.9
    # Room at both sides for the names.
    edge = 0.02 * (n - 1)
    for number, (name, rank) in enumerate(place.items()):
        is_left = number < half
        y = below + (number if is_left else n - 1 - number)
        side = 1 - edge if is_left else n + edge
        ax.plot([rank, rank, side], [0, y, y], color=canvas.muted(), linewidth=1)
        ax.plot(rank, 0, "o", color=ink, markersize=4, clip_on=False)
        ax.annotate(
            f"{name}  {rank:.2f}" if is_left else f"{rank:.2f}  {name}",
            (side, y),
            (-4 if is_left else 4, 0),
            textcoords="offset points",
            ha="right" if is_left else "left",
            va="center",
            fontsize=8.5,
            annotation_clip=False,
            parse_math=False,
        )
    ax.set_ylim(below + half - 0.4, 0)
    ax.set_xlim(1 - edge, n + edge)
    ax.xaxis.tick_top()
    ax.locator_params(axis="x", integer=True)
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.spines["left"].set_visible(False)
    ax.spines["bottom"].set_visible(False)
    ax.spines["top"].set_visible(True)
    ax.set_title(f"{title}: average rank, 1 is best", fontsize=9.5, pad=10)
    return ax


def _panel(ax: Axes, name: str, lines: Mapping[str, Line], reference: str) -> None:
    colours, rc = canvas.cycle(), canvas.load_matplotlib().rcParams
    means = 100 * np.stack([line.mean for line in lines.values()])
    own = lines[name]
    ax.fill_between(
        own.x, means.min(axis=0), means.max(axis=0), color=rc["grid.color"], linewidth=0, label=SPAN
    )
    if own.bound is not None:
        ax.plot(
            own.x,
            100 * own.bound,
            color=colours[2 % len(colours)],
            linewidth=1,
            linestyle="--",
            label=BOUND,
        )
    ax.fill_between(
        own.x,
        100 * own.low,
        100 * own.high,
        color=colours[0],
        alpha=0.22,
        linewidth=0,
        label=SEEDS,
    )
    if reference in lines and reference != name:
        ax.plot(own.x, 100 * lines[reference].mean, color=rc["axes.labelcolor"], linewidth=1, label=reference)
    ax.plot(own.x, 100 * own.mean, color=colours[0], linewidth=1.9, label=OWN)
    ax.set_title(name, fontsize=9, parse_math=False)


def _shared_range(ax: Axes, lines: Sequence[Line]) -> None:
    """Let the lines fill the panels; of curves over cost the worst first exit does not set the scale."""
    has_bounds = any(line.bound is not None for line in lines)
    values = 100 * np.concatenate([line.mean if has_bounds else line.low for line in lines])
    low = float(np.quantile(values, LOWEST_QUANTILE)) if has_bounds else float(values.min())
    tops = [100 * (line.high if line.bound is None else np.maximum(line.high, line.bound)) for line in lines]
    high = float(np.max(tops))
    margin = 0.04 * max(high - low, 1.0)
    ax.set_ylim(low - margin, high + margin)
