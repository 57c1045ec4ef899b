"""Figures of the loss between and around networks. Each returns its `matplotlib.axes.Axes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import unknown_name
from mexit_edge.report import canvas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from mexit_edge.analysis import Connectivity, Line, LossLandscape, Plane

# Lines of a figure that get a name of their own; of more, the first and the last do.
MOST_NAMED = 6
_CONTOURS = 14


def plot_line(line: Line, exits: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw the loss between two networks, of all exits and of each, and where the barrier is.

    Args:
        line: of `mexit_edge.analysis.mode_connectivity`.
        exits: name per exit.
        ax: where to draw; a new figure when None.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    ax = canvas.axes(ax)
    for k, (exit_, colour) in enumerate(zip(exits, colours_of(len(exits)), strict=True)):
        ax.plot(line.a, line.loss[:, k], color=colour, linewidth=1.2, label=exit_)
    ax.plot(line.a, line.total, color=_ink(), linewidth=2.2, label="mean of exits")
    chord = line.chord
    ax.plot(line.a[[0, -1]], chord[[0, -1]], "--", color=canvas.muted(), linewidth=1)
    top = int(np.argmax(line.total - chord))
    if line.barrier > 0:
        ax.vlines(line.a[top], chord[top], line.total[top], colors=[canvas.muted()], linewidth=1.4)
    ax.set_xticks([0, 0.5, 1], [short(line.ends[0]), "halfway", short(line.ends[1])], parse_math=False)
    ax.set_ylabel("cross-entropy (nats)")
    ax.set_ylim(bottom=0)
    ax.set_title(f"barrier {line.barrier:.3f} nats")
    ax.legend(frameon=True)
    return ax


def plot_plane(plane: Plane, ax: Axes | None = None) -> Axes:
    """Draw the mean loss of all exits on the plane through three networks.

    Args:
        plane: of `mexit_edge.analysis.mode_connectivity`.
        ax: where to draw; a new figure when None.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    ax = canvas.axes(ax, height=4.0)
    _contours(ax, plane.u, plane.v, plane.total)
    # Dots alone would drown in the contours: a surface of the page's own behind them.
    style = {"markerfacecolor": canvas.background(), "markeredgecolor": canvas.cycle()[1], "markersize": 8}
    ax.plot(plane.places[:, 0], plane.places[:, 1], "o", **style)
    for name, (u, v) in zip(plane.corners, plane.places, strict=True):
        box = {"facecolor": canvas.background(), "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
        ax.annotate(
            short(name), (u, v), (0, 9), textcoords="offset points", ha="center", bbox=box, parse_math=False
        )
    ax.set_aspect("equal")
    ax.set_xlabel("distance in weight space")
    ax.set_title("mean loss of the exits (nats)")
    return ax


def plot_landscape(found: LossLandscape, exit_: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the loss around a network, in contours at equal ratios.

    Args:
        found: of `mexit_edge.analysis.loss_landscape`.
        exit_: whose loss; None for the mean over the exits.
        ax: where to draw; a new figure when None.

    Raises:
        InputError: there is no such exit.
        MissingExtraError: matplotlib is not installed.
    """
    if exit_ is not None and exit_ not in found.exits:
        raise unknown_name("exit_", exit_, found.exits)
    ax = canvas.axes(ax, width=3.9, height=3.5)
    loss = found.total if exit_ is None else found.loss[..., found.exits.index(exit_)]
    _contours(ax, found.steps, found.steps, loss)
    ax.plot(0, 0, "+", color=canvas.cycle()[1], markersize=11, markeredgewidth=2)
    ax.set_aspect("equal")
    ax.set_xlabel("first direction")
    ax.set_ylabel("second direction")
    middle = len(found.steps) // 2
    ax.set_title(f"{exit_ or 'mean of exits'}: {loss[middle, middle]:.3f} nats at +")
    return ax


def barriers(found: Connectivity) -> str:
    """Return the barriers of all lines in words, for who cannot see the figures."""
    return "; ".join(f"{line.ends[0]} to {line.ends[1]} {line.barrier:.3f} nats" for line in found.lines)


def _contours(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], loss: NDArray[np.float64]) -> None:
    """Draw filled contours at equal ratios, with some of their values; losses span decades."""
    # Far out a loss may overflow; such a place stays empty.
    loss = np.ma.masked_invalid(loss)
    if not loss.count():
        ax.set(xlim=x[[0, -1]], ylim=y[[0, -1]])
        ax.text(0.5, 0.6, "no finite loss", ha="center", color=canvas.muted(), transform=ax.transAxes)
        return
    low = max(float(loss.min()), 1e-6)
    high = max(float(loss.max()), 1.01 * low)
    steps = np.log(np.geomspace(low, high, _CONTOURS))
    shown = np.ma.log(np.ma.clip(loss, low, high))
    ax.contourf(x, y, shown, levels=steps, cmap=canvas.colormap())
    ax.grid(visible=False)
    if float(loss.max()) < high:
        # A loss that is the same everywhere, as where all weights are 0, has no contours.
        return
    # Without a style, levels below 0, here losses below 1, would be dashed.
    lines = ax.contour(
        x, y, shown, levels=steps[1:-1:2], colors=[canvas.muted()], linewidths=0.7, linestyles="solid"
    )
    ax.clabel(lines, fmt=lambda step: f"{np.exp(step):.3g}", fontsize=7, colors=[_ink()])


def _ink() -> Any:
    return canvas.load_matplotlib().rcParams["text.color"]


def colours_of(n: int) -> list[Any]:
    """Return colours for what is ordered, or few lines that are not: the cycle as far as it goes."""
    cycle = canvas.cycle()
    return cycle[:n] if n <= MOST_NAMED else canvas.ramp(n)


def short(name: str, longest: int = 18) -> str:
    """Return a name, or the end of one that is too long."""
    return name if len(name) <= longest else f"…{name[1 - longest :]}"
