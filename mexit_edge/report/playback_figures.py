"""Figures of played streams: exits over time, latency, energy, battery; small however long the streams.

Each returns its `matplotlib.axes.Axes`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mexit_edge.report import canvas, theme
from mexit_edge.report.playback_tables import days, parts_mj_per_hour, per_hour, way_name
from mexit_edge.simulate import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mexit_edge.simulate import Columns, Playback, SideBySide

# Cells of a strip and strips of a figure, points of a curve.
MOST_CELLS = 1000
MOST_STRIPS = 16
CURVE_POINTS = 400
LONGEST_NAME = 30
_CLASS_COLOURS = 6
# Rows of pixels per strip: exits, rejected windows, labels, and a gap.
_EXITS, _REJECTED, _LABELS = slice(0, 5), slice(5, 7), slice(7, 9)
_STRIP = 11
_PERCENTILES = (50, 95, 99)


def plot_exits_over_time(playback: Playback, hop_s: float, ax: Axes | None = None) -> Axes:
    """Draw a strip per stream: exits over time, rejected windows below them, true classes at the bottom.

    A strip has at most `MOST_CELLS` cells; a cell of several windows shows their mean exit, which share of
    them was rejected, and the class of its first labelled window.

    Args:
        playback: of which the first `MOST_STRIPS` streams are drawn.
        hop_s: from one window to the next.
        ax: where to draw; a new figure when None.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    n_strips = min(len(playback.streams), MOST_STRIPS)
    ax = canvas.axes(ax, width=9.6, height=1.7 + 0.36 * n_strips)
    strips = [playback.columns.of_stream(number) for number in range(n_strips)]
    n_windows = max(1, *(int(own.number.max(initial=0)) + 1 for own in strips))
    per_cell = -(-n_windows // MOST_CELLS)
    n_cells = -(-n_windows // per_cell)
    image = np.zeros((_STRIP * n_strips, n_cells, 4))
    for place, own in enumerate(strips):
        rows = image[_STRIP * place : _STRIP * (place + 1)]
        _paint(rows, own, own.number // per_cell, len(playback.exits), len(playback.classes))
    length_s = n_cells * per_cell * hop_s
    unit, seconds = next((one for one in (("h", 3600), ("min", 60)) if length_s > 3 * one[1]), ("s", 1))
    ax.imshow(
        image,
        aspect="auto",
        interpolation="none",
        extent=(0, length_s / seconds, len(image), 0),
        origin="upper",
    )
    ax.set_yticks(
        [_STRIP * place + _EXITS.stop / 2 for place in range(n_strips)],
        [_short(one.name) for one in playback.streams[:n_strips]],
    )
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False)
    ax.set_xlabel(f"time since the start of the stream ({unit})")
    _exits_legend(ax, playback, strips)
    return ax


def _paint(
    rows: NDArray[np.float64], own: Columns, cell: NDArray[np.int32], n_exits: int, n_classes: int
) -> None:
    """Paint one strip, (rows, cells, RGBA)."""
    from matplotlib.colors import to_rgb, to_rgba

    n_cells = rows.shape[1]

    def per_cell(chosen: NDArray[np.bool_], weights: NDArray[Any] | None = None) -> NDArray[np.float64]:
        part = None if weights is None else weights[chosen].astype(np.float64)
        return np.bincount(cell[chosen], part, minlength=n_cells).astype(np.float64)

    computed, every = per_cell(own.computed), per_cell(own.number >= 0)
    mean_exit = per_cell(own.computed, own.exit) / np.maximum(computed, 1)
    colours = np.asarray([to_rgb(colour) for colour in canvas.ramp(n_exits)])
    for channel in range(3):
        rows[_EXITS, :, channel] = np.interp(mean_exit, np.arange(1, n_exits + 1), colours[:, channel])
    rows[_EXITS, :, 3] = computed > 0
    skipped = (per_cell(own.outcome == Outcome.SKIPPED) > 0) & (computed == 0)
    rows[_EXITS, skipped] = to_rgba(_skipped_colour())
    rejected = per_cell(own.rejected) / np.maximum(every, 1)
    rows[_REJECTED, :, :3] = to_rgb(_rejected_colour())
    rows[_REJECTED, :, 3] = np.where(rejected > 0, 0.35 + 0.65 * rejected, 0)
    known = np.flatnonzero(own.y >= 0)
    # Of several windows of a cell the first one stays, as it is written last.
    places = cell[known][::-1]
    rows[_LABELS, places] = np.asarray([to_rgba(one) for one in class_colours(n_classes)])[own.y[known][::-1]]


def class_colours(n_classes: int) -> list[Any]:
    """Return a colour per class; two greys in turn where there are too many to tell apart."""
    if n_classes > _CLASS_COLOURS:
        return [(canvas.muted(), _skipped_colour())[index % 2] for index in range(n_classes)]
    colours = canvas.cycle()
    # The first one is that of exits, the second one that of rejected windows.
    return [colours[(index + 2) % len(colours)] for index in range(n_classes)]


def _rejected_colour() -> Any:
    return canvas.cycle()[1]


def _skipped_colour() -> Any:
    return canvas.load_matplotlib().rcParams["grid.color"]


def _exits_legend(ax: Axes, playback: Playback, strips: list[Columns]) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(color=colour, label=name)
        for name, colour in zip(playback.exits, canvas.ramp(len(playback.exits)), strict=True)
    ]
    if len(handles) > _CLASS_COLOURS:
        handles = [handles[0], handles[-1]]
    if any((own.outcome == Outcome.SKIPPED).any() for own in strips):
        handles.append(Patch(color=_skipped_colour(), label="skipped"))
    if any(own.rejected.any() for own in strips):
        handles.append(Patch(color=_rejected_colour(), label="rejected"))
    if any((own.y >= 0).any() for own in strips) and len(playback.classes) <= _CLASS_COLOURS:
        handles += [
            Patch(color=colour, label=name)
            for name, colour in zip(playback.classes, class_colours(len(playback.classes)), strict=True)
        ]
    ax.figure.legend(handles=handles, loc="outside upper left", ncols=6, frameon=False, handlelength=1.2)


def _short(name: str) -> str:
    return (
        name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2]}…{name[-LONGEST_NAME // 2 + 1 :]}"
    )


def plot_latencies(sides: SideBySide, hop_ms: float, ax: Axes | None = None) -> Axes:
    """Draw which share of the windows was decided within which time, for the three ways.

    Args:
        sides: the ways; one without times is left out.
        hop_ms: from one window to the next.
        ax: where to draw; a new figure when None.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    ax = canvas.axes(ax, width=5.6, height=3.6)
    colours = canvas.cycle()
    share = np.linspace(0, 1, CURVE_POINTS)
    for place, one in enumerate(sides):
        columns = one.columns
        latency_ms = (columns.finish_ns - columns.ready_ns)[columns.computed] / 1e6
        if one.costs is None or not len(latency_ms):
            continue
        curve = np.quantile(latency_ms, share, method="inverted_cdf")
        ax.plot(curve, 100 * share, drawstyle="steps-post", color=colours[place], label=way_name(one))
        if one is sides.policy:
            _mark_percentiles(ax, latency_ms, colours[place])
    ax.axvline(hop_ms, color=canvas.muted(), linestyle="--", linewidth=1.2, label="one hop")
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:,g}")
    ax.set_ylim(0, 103)
    ax.set_xlabel("estimated latency (ms)")
    ax.set_ylabel("windows decided (%)")
    ax.legend(loc="lower right", frameon=True)
    return ax


def _mark_percentiles(ax: Axes, latency_ms: NDArray[np.float64], colour: Any) -> None:
    """Mark p50, p95 and p99; those that fall together share a label."""
    marks: dict[float, list[int]] = {}
    for percentile in _PERCENTILES:
        marks.setdefault(float(np.percentile(latency_ms, percentile)), []).append(percentile)
    for at, percentiles in marks.items():
        ax.plot([at] * len(percentiles), percentiles, "o", color=colour, markersize=5)
        ax.annotate(
            ", ".join(f"p{one}" for one in percentiles),
            (at, percentiles[0]),
            (-6, -3),
            textcoords="offset points",
            ha="right",
        )


def plot_energy(sides: SideBySide, ax: Axes | None = None) -> Axes:
    """Draw the energy of an hour by part, a bar for each of the three ways, with the interval of its sum.

    A part that is unknown is left out; so is the sum then.

    Args:
        sides: the ways.
        ax: where to draw; a new figure when None.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    ax = canvas.axes(ax, width=5.6, height=2.9)
    ways, colours = list(sides), canvas.cycle()
    left = np.zeros(len(ways))
    for place, name in enumerate(("active", "wake-up", "rest", "sensor")):
        parts = [parts_mj_per_hour(one).get(name) for one in ways]
        width = np.asarray([0.0 if part is None else part.value for part in parts])
        if width.any():
            ax.barh(range(len(ways)), width, left=left, color=colours[place], height=0.55, label=name)
        left += width
    for row, one in enumerate(ways):
        whole = per_hour(one)
        if whole is not None:
            spread = [[whole.value - whole.low], [whole.high - whole.value]]
            ax.errorbar(whole.value, row, xerr=spread, color=canvas.muted(), capsize=3, linewidth=1.2)
    ax.set_yticks(range(len(ways)), [way_name(one) for one in ways])
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_formatter("{x:,g}")
    ax.xaxis.set_major_locator(_few_ticks())
    ax.set_xlabel("estimated energy (mJ per hour)")
    if ax.get_legend_handles_labels()[0]:
        ax.figure.legend(loc="outside upper left", ncols=4, frameon=False, handlelength=1.2)
    return ax


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5)


def plot_battery(sides: SideBySide, ax: Axes | None = None) -> Axes:
    """Draw what is left of the battery if every hour goes on like the played ones, for the three ways.

    Args:
        sides: the ways; one of unknown energy is left out.
        ax: where to draw; a new figure when None.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    ax = canvas.axes(ax, width=5.6, height=3.2)
    colours = canvas.cycle()
    for place, one in enumerate(sides):
        life = days(one)
        if life is None or not np.isfinite(life.value):
            continue
        ax.plot([0, life.value], [100, 0], color=colours[place], label=way_name(one))
        if np.isfinite(life.high):
            ax.fill([0, life.low, life.high], [100, 0, 0], color=colours[place], alpha=0.13, linewidth=0)
    ax.set_xlim(left=0)
    ax.set_ylim(0, 101)
    ax.set_xlabel("days")
    ax.set_ylabel("battery left (%), estimated")
    ax.legend(loc="upper right", frameon=True)
    return ax


def exits_picture(playback: Playback, hop_s: float, kind: Literal["png", "svg"]) -> bytes:
    """Draw `plot_exits_over_time` as a file of that kind."""
    return theme.drawn(partial(plot_exits_over_time, playback, hop_s), kind)
