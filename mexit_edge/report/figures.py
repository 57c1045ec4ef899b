"""Figures of a simulation. Each returns its `matplotlib.axes.Axes` and follows the rcParams in force.

Figures are made with matplotlib's object interface alone: no pyplot, no global figure, no change of back end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError, MissingExtraError
from mexit_edge.exits import BINS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from mexit_edge.simulate import Simulation

WIDTH_INCHES = 5.0
LONGEST_NAME = 24
SMALLEST_LABELLED_SHARE = 0.09
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
    ax = _axes(ax)
    colours = _cycle()
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
    for number, (name, x, y) in enumerate(zip(simulation.exits, kmacs, single, strict=True), start=1):
        last = number == len(kmacs)
        # Below and to the right, away from the curve; the last one to the left, inside the axes.
        ax.annotate(
            name,
            (x, y),
            (2, -9) if last else (7, -4),
            textcoords="offset points",
            ha="right" if last else "left",
            va="top",
        )
    ax.margins(x=0.09, y=0.14)
    ax.set_ylim(top=min(ax.get_ylim()[1], 101.5))
    ax.xaxis.set_major_formatter("{x:,g}")
    ax.set_xlabel(f"mean kMACs per window (full network: {simulation.full_macs / 1e3:,.1f})")
    ax.set_ylabel("balanced accuracy (%)")
    ax.legend(loc="lower right", frameon=True)
    return ax


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
    ax = _axes(ax, height=1.1 + 0.32 * (n_classes + 1))
    groups = [np.ones(len(simulation), bool), *(simulation.y == index for index in range(n_classes))]
    counts = np.asarray(
        [[np.sum(simulation.exit[group] == number) for number in range(1, n_exits + 1)] for group in groups]
    )
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    left = np.zeros(len(groups))
    rows = np.arange(len(groups))
    for index, colour in enumerate(_ramp(n_exits)):
        width = shares[:, index]
        ax.barh(rows, 100 * width, left=100 * left, height=0.72, color=colour, label=simulation.exits[index])
        for row in np.flatnonzero(width >= SMALLEST_LABELLED_SHARE):
            middle = 100 * (left[row] + width[row] / 2)
            ax.text(middle, row, f"{100 * width[row]:.0f}", color=_ink_on(colour), ha="center", va="center")
        left = left + width
    names = ["all windows", *map(_short, simulation.classes)]
    labels = [f"{name} ({total:,})" for name, total in zip(names, totals[:, 0], strict=True)]
    ax.set_yticks(rows, labels, parse_math=False)
    ax.invert_yaxis()
    ax.axhline(0.5, linewidth=0.8, color=_muted())
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of windows (%)")
    ax.grid(visible=False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(n_exits, 5), frameon=False)
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
    side = max(WIDTH_INCHES, 1.9 + 0.42 * n_classes)
    ax = _axes(ax, width=side, height=side * 0.92)
    ramp = _colormap()
    # Vector cells: an embedded bitmap of 6 x 6 pixels would be blurred by the viewer.
    ax.pcolormesh(shares, cmap=ramp, vmin=0, vmax=1, edgecolors=_background(), linewidth=1)
    for row, column in np.ndindex(counts.shape):
        if not counts[row, column]:
            continue
        text = f"{counts[row, column]:,}"
        if n_classes <= MOST_CLASSES_WITH_PERCENT:
            share = shares[row, column]
            text = f"{f'{100 * share:.0f}' if share >= 0.005 else '<1'} %\n{text}"
        colour = _ink_on(ramp(shares[row, column]))
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
    ax = _axes(ax, width=4.0, height=3.6)
    colours = _cycle()
    # Zoomed to where the bins are: bins of equal mass crowd near 1 in a good network.
    low = max(0.0, float(min(confidence.min(), accuracy.min())) - 0.03)
    ax.plot([low, 1], [low, 1], linestyle="--", linewidth=1, color=_muted(), label="calibrated")
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


def plot_training(
    history: Sequence[dict[str, Any]],
    quantity: Literal["accuracy", "loss"] = "accuracy",
    ax: Axes | None = None,
) -> Axes:
    """Draw a quantity over epochs, training dashed and validation solid, one colour per exit.

    Args:
        history: one dict per epoch, with keys like ``epoch``, ``loss``, ``val_loss``, ``exit_01_accuracy``
            and ``val_exit_01_accuracy``. A key missing in an epoch leaves a gap.
        quantity: draws the keys that are this word, or end in ``_`` and this word.
        ax: where to draw; a new figure when None.

    Returns:
        The axes drawn on.

    Raises:
        InputError: no epoch holds such a key.
        MissingExtraError: matplotlib is not installed.
    """
    curves = training_curves(history, quantity)
    if not curves:
        received = sorted({key for epoch in history for key in epoch})
        raise InputError(
            f"`history` must hold a key that ends in {quantity!r} in at least one epoch. "
            f"Received keys: {received}. Log {quantity} per exit, or draw another `quantity`."
        )
    ax = _axes(ax)
    epochs = [float(epoch.get("epoch", place)) for place, epoch in enumerate(history, start=1)]
    colours = _cycle()
    names = sorted({key.removeprefix("val_") for key in curves})
    for key, values in sorted(curves.items()):
        name = key.removeprefix("val_")
        validation = key != name
        shown = name.removesuffix(f"_{quantity}") if name != quantity else "total"
        ax.plot(
            epochs,
            values,
            color=colours[names.index(name) % len(colours)],
            linestyle="-" if validation else "--",
            linewidth=1.8 if validation else 1.2,
            marker="o" if len(epochs) == 1 else None,
            label=f"{shown}, {'validation' if validation else 'training'}",
        )
    ax.set_xlabel("epoch")
    ax.set_ylabel(quantity)
    ax.locator_params(axis="x", integer=True)
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


def training_curves(history: Sequence[dict[str, Any]], quantity: str) -> dict[str, list[float]]:
    """Return key -> value per epoch (nan where missing) of the keys that carry ``quantity``."""
    keys = {key for epoch in history for key in epoch if key == quantity or key.endswith(f"_{quantity}")}
    return {
        key: [np.nan if epoch.get(key) is None else float(epoch[key]) for epoch in history] for key in keys
    }


def _axes(ax: Axes | None, width: float = WIDTH_INCHES, height: float = 3.7) -> Axes:
    """Return ``ax``, or the axes of a new figure of that size in inches."""
    _matplotlib()
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report") from error
    return matplotlib


def _check_exit(simulation: Simulation, exit_number: int) -> None:
    n_exits = len(simulation.exits)
    if not isinstance(exit_number, int | np.integer) or not 1 <= exit_number <= n_exits:
        raise InputError(
            f"`exit_number` must be from 1 to {n_exits} ({', '.join(simulation.exits)}). "
            f"Received: {exit_number!r}. Exits count from 1."
        )


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def _cycle() -> list[Any]:
    return list(_matplotlib().rcParams["axes.prop_cycle"].by_key()["color"])


def _muted() -> Any:
    return _matplotlib().rcParams["xtick.color"]


def _background() -> Any:
    return _matplotlib().rcParams["axes.facecolor"]


def _colormap() -> Any:
    """Return the colour map of shares: from the background to the first colour of the cycle."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb, to_rgba

    background = _background()
    start = np.asarray(to_rgb(background) if to_rgba(background)[3] else (1.0, 1.0, 1.0))
    end = np.asarray(to_rgb(_cycle()[0]))
    # Not quite the background at 0, so that an empty cell is still a cell.
    return LinearSegmentedColormap.from_list("shares", [tuple(0.94 * start + 0.06 * end), tuple(end)])


def _ramp(n_exits: int) -> list[Any]:
    """Return one colour per exit, in the order of the colour map: exits are ordered, not categories."""
    return [_colormap()(place) for place in np.linspace(0.3, 1.0, n_exits)]


def _ink_on(colour: Any) -> str:
    """Return black or white for small text on ``colour``, by WCAG's relative luminance.

    Equal contrast is at 0.18; on saturated blues white still reads better up to about 0.26, at a ratio of 3.4.
    """
    from matplotlib.colors import to_rgb

    channels = np.asarray(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return "black" if float(linear @ [0.2126, 0.7152, 0.0722]) > 0.26 else "white"
