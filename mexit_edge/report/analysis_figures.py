"""Figures of gradients, ranks and information. Each returns its `matplotlib.axes.Axes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import unknown_name
from mexit_edge.report import canvas
from mexit_edge.report.loss_figures import MOST_NAMED, colours_of, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from mexit_edge.analysis import (
        GradientDominance,
        InformationFlow,
        NumericalRank,
    )


def plot_gradient_shares(found: GradientDominance, ax: Axes | None = None) -> Axes:
    """Draw the share of every exit in the gradient of every block and head, in percent.

    Args:
        found: of one network.
        ax: where to draw; a new figure when None.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    ax = canvas.axes(ax, height=1.4 + 0.36 * len(found.groups))
    text = [[f"{100 * one:.0f}" if np.isfinite(one) else "–" for one in row] for row in found.share]
    _heat(ax, found.share, text, canvas.colormap(), (0, 1), found.groups, found.exits)
    ax.set_title("share of the squared gradient (%)")
    return ax


def plot_gradient_conflicts(found: GradientDominance, ax: Axes | None = None) -> Axes:
    """Draw the cosine between the gradients of each two exits, for all groups that both of them reach.

    Args:
        found: of one network of two exits at least.
        ax: where to draw; a new figure when None.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    pairs = list(zip(*np.triu_indices(len(found.exits), 1), strict=True))
    values = np.asarray([[of_group[pair] for pair in pairs] for of_group in found.conflict])
    reached = np.isfinite(values).any(axis=1)
    groups = [group for group, is_reached in zip(found.groups, reached, strict=True) if is_reached]
    values = values[reached]
    ax = canvas.axes(ax, height=1.4 + 0.36 * max(1, len(groups)))
    text = [[f"{one:+.2f}" if np.isfinite(one) else "–" for one in row] for row in values]
    names = [f"{_number(found.exits[i])} and {_number(found.exits[j])}" for i, j in pairs]
    _heat(ax, values, text, _two_sided(), (-1, 1), groups, names)
    ax.set_xlabel("exits")
    ax.set_title("cosine between gradients")
    return ax


def plot_shares_over_training(
    found: Sequence[GradientDominance], names: Sequence[str], group: str, ax: Axes | None = None
) -> Axes:
    """Draw the share of every exit in one group's gradient over several networks, such as checkpoints.

    Args:
        found: per network, in order.
        names: of the networks.
        group: one of their groups.
        ax: where to draw; a new figure when None.

    Raises:
        InputError: a network has no such group.
        MissingExtraError: matplotlib is not installed.
    """
    for one in found:
        if group not in one.groups:
            raise unknown_name("group", group, one.groups)
    ax = canvas.axes(ax)
    rows, deviations = (
        100 * np.asarray([getattr(one, name)[one.groups.index(group)] for one in found])
        for name in ("share", "share_deviation")
    )
    at = np.arange(len(found))
    for k, (exit_, colour) in enumerate(zip(found[0].exits, colours_of(rows.shape[1]), strict=True)):
        ax.plot(at, rows[:, k], "o-", color=colour, markersize=4, label=exit_)
        ax.fill_between(
            at,
            rows[:, k] - deviations[:, k],
            rows[:, k] + deviations[:, k],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
    _name_places(ax, names)
    ax.set_ylim(-3, 103)
    ax.set_ylabel("share of the squared gradient (%)")
    ax.set_title(group)
    ax.legend(frameon=True)
    return ax


def plot_rank(found: Sequence[NumericalRank], names: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw the rank of every block's output as a share of what it could be, and the effective rank below.

    Args:
        found: per network.
        names: of the networks.
        ax: where to draw; a new figure when None.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    ax = canvas.axes(ax)
    at = np.arange(len(found[0].exits))
    for one, name, colour in zip(found, names, colours_of(len(found)), strict=True):
        ax.plot(at, 100 * one.share, "o-", color=colour, markersize=5, label=_label(name, names))
        ax.plot(at, 100 * one.effective_rank / one.largest, "s--", color=colour, markersize=4, linewidth=1)
    ax.set_xticks(at, found[0].exits)
    ax.set_ylim(0, 105)
    ax.set_ylabel("share of the largest possible rank (%)")
    ax.set_title("rank (solid), effective rank (dashed)")
    _legend(ax, found)
    return ax


def plot_singular_values(found: NumericalRank, ax: Axes | None = None) -> Axes:
    """Draw the singular values of every block's output, as shares of its largest one.

    Args:
        found: of one network.
        ax: where to draw; a new figure when None.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    ax = canvas.axes(ax)
    for exit_, values, colour in zip(
        found.exits, found.singular_values, colours_of(len(found.exits)), strict=True
    ):
        if values[0] > 0:
            ax.plot(
                np.arange(1, len(values) + 1), np.maximum(values / values[0], 1e-6), color=colour, label=exit_
            )
        else:
            ax.plot([], [], color=colour, label=f"{exit_}: constant")
    ax.axhline(found.threshold, linestyle="--", linewidth=1, color=canvas.muted())
    ax.set_yscale("log")
    ax.set_ylim(1e-5, 1.5)
    ax.set_xlabel("number of the singular value")
    ax.set_ylabel("share of the largest")
    ax.set_title("singular values")
    ax.legend(frameon=True)
    return ax


def plot_class_information(
    found: Sequence[InformationFlow], names: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Draw what every block's output tells of the class at least, by the linear and the other probe.

    Args:
        found: per network; of one alone both probes have whiskers.
        names: of the networks.
        ax: where to draw; a new figure when None.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    ax = canvas.axes(ax)
    at = np.arange(len(found[0].exits))
    colours = colours_of(len(found))
    for one, name, colour in zip(found, names, colours, strict=True):
        for shift, bounds, style, probe in (
            (-0.06, one.linear, "s--", "linear"),
            (0.06, one.mlp, "o-", "MLP"),
        ):
            values = np.asarray([bound.value for bound in bounds])
            label = f"{probe} probe" if len(found) == 1 else _label(name, names) if probe == "MLP" else None
            ax.plot(at + shift, values, style, color=colour, markersize=5, linewidth=1.3, label=label)
            ends = [(bound.interval.low, bound.interval.high) for bound in bounds if bound.interval]
            if len(found) == 1 and len(ends) == len(values):
                low, high = np.asarray(ends).T
                ax.vlines(at + shift, low, high, colors=[colour], linewidth=1.2)
    ax.axhline(found[0].label_entropy, linestyle=":", color=canvas.muted())
    ax.annotate(
        "H(Y)", (at[-1], found[0].label_entropy), (0, -3), textcoords="offset points", va="top", ha="right"
    )
    ax.set_xticks(at, found[0].exits)
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    ax.set_ylabel("I(Z; Y) at least (nats)")
    ax.set_title("of the class" if len(found) == 1 else "of the class: MLP (solid), linear (dashed)")
    ax.legend(frameon=True, loc="lower right")
    return ax


def plot_window_information(
    found: Sequence[InformationFlow], names: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Draw what every block's output tells of the window, as estimated, and what limits the estimate.

    Of one network also the Gaussian channel of the same size, as it is and as the estimator sees it.

    Args:
        found: per network.
        names: of the networks.
        ax: where to draw; a new figure when None.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    ax = canvas.axes(ax)
    at = np.arange(len(found[0].exits))
    for one, name, colour in zip(found, names, colours_of(len(found)), strict=True):
        for estimates, style in ((one.of_window, "o-"), (one.shuffled, "x:")):
            means = np.asarray([estimate.mean for estimate in estimates])
            deviations = np.asarray([estimate.deviation for estimate in estimates])
            label = _label(name, names) if style == "o-" else None
            ax.plot(at, means, style, color=colour, markersize=5, linewidth=1.3, label=label)
            ax.vlines(at, means - deviations, means + deviations, colors=[colour], linewidth=1.2)
    if len(found) == 1:
        known = [one.known for one in found[0].channel]
        seen = [one.found.mean for one in found[0].channel]
        ax.plot(at, known, "^--", color=canvas.muted(), markersize=5, linewidth=1, label="channel, known")
        ax.plot(at, seen, "v-", color=canvas.muted(), markersize=5, linewidth=1, label="channel, estimated")
    ax.set_xticks(at, found[0].exits)
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    ax.set_ylabel("I(X; Z + noise), estimate (nats)")
    ax.set_title("of the window (shuffled: dotted)")
    ax.legend(frameon=True)
    return ax


def _heat(
    ax: Axes,
    values: NDArray[np.float64],
    text: Sequence[Sequence[str]],
    colours: Any,
    limits: tuple[float, float],
    rows: Sequence[str],
    columns: Sequence[str],
) -> None:
    """Draw cells with their text; an undefined one stays as the background."""
    # Vector cells: an embedded bitmap of few pixels would be blurred by the viewer.
    low, high = limits
    masked = np.ma.masked_invalid(np.atleast_2d(values))
    ax.pcolormesh(masked, cmap=colours, vmin=low, vmax=high, edgecolors=canvas.background(), linewidth=1)
    for row, column in np.ndindex(masked.shape):
        value = values[row, column]
        behind = colours((value - low) / (high - low)) if np.isfinite(value) else None
        colour = canvas.muted() if behind is None else canvas.ink_on(behind)
        ax.text(column + 0.5, row + 0.5, text[row][column], ha="center", va="center", color=colour)
    ax.set_xticks(np.arange(len(columns)) + 0.5, columns)
    ax.set_yticks(np.arange(len(rows)) + 0.5, rows)
    ax.tick_params(length=0)
    ax.invert_yaxis()
    ax.grid(visible=False)


def _two_sided() -> Any:
    """Return the colour map of cosines: against each other in the second colour, together in the first."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = canvas.cycle()
    return LinearSegmentedColormap.from_list("cosines", [colours[1], canvas.background(), colours[0]])


def _label(name: str, names: Sequence[str]) -> str | None:
    is_named = len(names) <= MOST_NAMED or name in (names[0], names[-1])
    return short(name) if is_named else None


def _legend(ax: Axes, found: Sequence[object]) -> None:
    if len(found) > 1:
        ax.legend(frameon=True)


def _name_places(ax: Axes, names: Sequence[str]) -> None:
    """Name places on the x axis; of many, about six."""
    step = -(-len(names) // MOST_NAMED)
    at = list(range(0, len(names), step))
    ax.set_xticks(at, [short(names[place]) for place in at], rotation=30, ha="right", parse_math=False)


def _number(exit_: str) -> str:
    return str(int(exit_.removeprefix("exit_")))
