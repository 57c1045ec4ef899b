"""Figures of an estimate: where latency arises, stage by stage and term by term.

Each returns its `matplotlib.axes.Axes` and follows the rcParams in force.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mexit_edge.errors import InputError
from mexit_edge.estimate import BundleEstimate, Estimate, ModelEstimate
from mexit_edge.estimate.latency.rates import LEVEL
from mexit_edge.estimate.latency.terms import TERMS
from mexit_edge.report import canvas, theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR = 0.62
# In inches: of a bar, of what is above and below them, of an entry of the legend, and the width of all.
ROW, AROUND, ENTRY, WIDTH = 0.36, 0.9, 0.21, 7.2

# Term -> what the legend calls it.
LABELS = {
    "conv_kxk": "k x k convolution",
    "conv_1x1": "1 x 1 convolution",
    "depthwise": "depthwise convolution",
    "fully_connected": "fully connected",
    "output": "output elements",
    "element": "other operators",
    "operator": "operator calls",
    "invocation": "invocation",
    "priced": "priced by the user",
}


def stage_figure(estimate: BundleEstimate, ax: Axes | None = None) -> Axes:
    """Draw latency (ms) up to each exit: one bar per exit of stacked stages, with its 90 % interval.

    Args:
        estimate: of a bundle.
        ax: where to draw; a new figure when None.

    Returns:
        The axes drawn on.

    Raises:
        InputError: the latency of a stage is unknown.
        MissingExtraError: matplotlib is not installed.
    """
    stages = np.array([_known(one.estimated_latency_ms, estimate).value for one in estimate.stages])
    exits = [_known(one.estimated_latency_ms, estimate) for one in estimate.exits]
    ax = canvas.axes(ax, width=WIDTH, height=_height(len(exits), len(stages) + 1))
    rows = np.arange(len(exits))
    starts = np.concatenate([[0.0], np.cumsum(stages)])
    for number, (width, colour) in enumerate(zip(stages, canvas.ramp(len(stages)), strict=True)):
        reached = rows[number:]
        ax.barh(reached, width, left=starts[number], height=BAR, color=colour, label=f"stage {number + 1}")
    ends = np.array([one.value for one in exits])
    ax.errorbar(
        ends,
        rows,
        xerr=np.array([[one.value - one.low for one in exits], [one.high - one.value for one in exits]]),
        fmt="none",
        ecolor=canvas.load_matplotlib().rcParams["axes.labelcolor"],
        elinewidth=1.2,
        capsize=3,
        label=f"{100 * LEVEL:.0f} % interval",
    )
    ax.set_yticks(rows, [one.exit for one in estimate.exits])
    ax.set_xlabel("estimated latency of a window that leaves there (ms)")
    ax.set_title(f"{estimate.device}, {estimate.stack}")
    _finish(ax, len(exits))
    return ax


def term_figure(estimate: BundleEstimate | ModelEstimate, ax: Axes | None = None) -> Axes:
    """Draw cycles by term of the latency model: one stacked bar per stage, or one for a model.

    Args:
        estimate: of a bundle or of a model.
        ax: where to draw; a new figure when None.

    Returns:
        The axes drawn on.

    Raises:
        InputError: the cycles of a stage are unknown.
        MissingExtraError: matplotlib is not installed.
    """
    bars = {"model": estimate} if isinstance(estimate, ModelEstimate) else _by_stage(estimate)
    totals = [_known(one.estimated_cycles, estimate).value for one in bars.values()]
    ax = canvas.axes(ax, width=WIDTH, height=_height(len(bars), len(TERMS)))
    unit, name = (1e6, "millions") if max(totals) >= 1e6 else (1e3, "thousands")
    rows, left = np.arange(len(bars)), np.zeros(len(bars))
    colours = dict(zip(TERMS, _colours(), strict=True)) | {"priced": canvas.muted()}
    for term, colour in colours.items():
        width = np.array([one.estimated_cycles_by_term.get(term, 0.0) / unit for one in bars.values()])
        if not width.any():
            continue
        ax.barh(rows, width, left=left, height=BAR, color=colour, label=LABELS[term])
        left = left + width
    ax.set_yticks(rows, list(bars))
    ax.set_xlabel(f"estimated cycles ({name})")
    ax.set_title(f"{estimate.device}, {estimate.stack}")
    _finish(ax, len(bars))
    return ax


def estimate_picture(estimate: BundleEstimate | ModelEstimate, kind: Literal["png", "svg"]) -> bytes:
    """Draw an estimate as a file: cycles by term, and of a bundle the latency up to each exit above it.

    Args:
        estimate: of a bundle or of a model.
        kind: of file.

    Raises:
        InputError: the latency is unknown.
        MissingExtraError: matplotlib is not installed.
    """
    draw = (
        partial(_both, estimate) if isinstance(estimate, BundleEstimate) else partial(term_figure, estimate)
    )
    return theme.drawn(draw, kind)


def _both(estimate: BundleEstimate) -> Axes:
    canvas.load_matplotlib()
    from matplotlib.figure import Figure

    n = len(estimate.stages)
    heights = [_height(n, n + 1), _height(n, len(TERMS))]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=heights)
    stage_figure(estimate, upper)
    term_figure(estimate, lower).set_title("")
    return upper


def _by_stage(estimate: BundleEstimate) -> dict[str, Any]:
    return {f"stage {number}": one for number, one in enumerate(estimate.stages, start=1)}


def _colours() -> list[Any]:
    colours = canvas.cycle()
    return [colours[index % len(colours)] for index in range(len(TERMS))]


def _known(figure: Estimate | None, estimate: BundleEstimate | ModelEstimate) -> Estimate:
    if figure is None:
        said = [note for note in estimate.notes if note.startswith("Unknown: the cycles")]
        raise InputError(
            f"`estimate` must have known cycles for a figure. Received: unknown ones. {' '.join(said)}"
        )
    return figure


def _height(n_bars: int, n_entries: int) -> float:
    return AROUND + max(ROW * n_bars, ENTRY * n_entries)


def _finish(ax: Axes, n_bars: int) -> None:
    """Put the first bar on top, and the legend beside the bars."""
    # One bar alone would fill the height that the legend needs.
    around = 0.5 if n_bars > 1 else 0.9
    ax.set_ylim(n_bars - 1 + around, -around)
    ax.set_xlim(left=0)
    ax.grid(visible=False, axis="y")
    ax.xaxis.set_major_formatter("{x:,g}")
    # Beside the bars, which are as many as there are stages: below them it would lie on a long axis label.
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, handlelength=1.2)
