"""The figure of a training: what every epoch gave, and where phases begin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mexit_edge.errors import InputError
from mexit_edge.report import canvas

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

PHASE_NAME_POINTS = 8.0


def plot_training(
    history: Sequence[dict[str, Any]],
    quantity: Literal["accuracy", "loss"] = "accuracy",
    ax: Axes | None = None,
    phase_names: Sequence[str] = (),
) -> Axes:
    """Draw a quantity over epochs, training dashed and validation solid, one colour per exit.

    A training of several phases has a vertical line with a name where each begins. Validation figures of an
    exit from before it first learns are those of an untrained head, and are left out.

    Args:
        history: one dict per epoch, with keys like ``epoch``, ``loss``, ``val_loss``, ``exit_01_accuracy``
            and ``val_exit_01_accuracy``, and ``phase`` (a number from 1). A key that is missing, None or NaN
            in an epoch leaves a gap.
        quantity: draws the keys that are this word, or end in ``_`` and this word.
        ax: where to draw; a new figure when None.
        phase_names: name per phase; a phase without one is called by its number.

    Returns:
        The axes drawn on.

    Raises:
        InputError: no epoch holds a number under such a key.
        MissingExtraError: matplotlib is not installed.
    """
    curves = training_curves(history, quantity)
    if not curves:
        received = sorted({key for epoch in history for key in epoch})
        raise InputError(
            f"`history` must hold a key that ends in {quantity!r}, and a number, in at least one epoch. "
            f"Received keys: {received}. Log {quantity} per exit, or draw another `quantity`."
        )
    ax = canvas.axes(ax)
    epochs = epochs_of(history)
    colours = canvas.cycle()
    names = sorted({key.removeprefix("val_") for key in curves})
    for key, values in sorted(curves.items()):
        name = key.removeprefix("val_")
        validation, lonely = key != name, _lonely(values)
        shown = name.removesuffix(f"_{quantity}") if name != quantity else "total"
        ax.plot(
            epochs,
            values,
            color=colours[names.index(name) % len(colours)],
            linestyle="-" if validation else "--",
            linewidth=1.8 if validation else 1.2,
            # A figure between two gaps would be a line of no length.
            marker="o" if lonely else None,
            markersize=4,
            markevery=lonely or None,
            label=f"{shown}, {'validation' if validation else 'training'}",
        )
    ax.set_xlabel("epoch")
    ax.set_ylabel(quantity)
    ax.locator_params(axis="x", integer=True)
    ax.legend(loc="best", frameon=True)
    _mark_phases(ax, phases_of(history, phase_names))
    return ax


def _mark_phases(ax: Axes, phases: Sequence[tuple[str, float]]) -> None:
    """Draw a line where a phase begins, and the names above the axes, on several levels where narrow."""
    if len(phases) < 2:
        return
    low, high = ax.get_xlim()
    figure: Any = ax.figure
    width_points = 72 * figure.get_figwidth() * ax.get_position().width
    level_ends: list[float] = []
    for number, (name, start) in enumerate(phases):
        if number:
            ax.axvline(start, linewidth=0.9, linestyle=":", color=canvas.muted())
        begins = width_points * (start - low) / (high - low)
        level = next((k for k, end in enumerate(level_ends) if end <= begins), len(level_ends))
        # Letters are about 0.6 of their size wide; one more keeps neighbours apart.
        ends = begins + 0.6 * PHASE_NAME_POINTS * (len(name) + 1)
        level_ends[level : level + 1] = [ends]
        ax.annotate(
            name,
            (start, 1),
            (1, 3 + 1.25 * PHASE_NAME_POINTS * level),
            xycoords=ax.get_xaxis_transform(),
            textcoords="offset points",
            ha="left",
            va="bottom",
            fontsize=PHASE_NAME_POINTS,
            parse_math=False,
        )


def training_curves(history: Sequence[dict[str, Any]], quantity: str) -> dict[str, list[float]]:
    """Return key -> value per epoch of the keys that carry ``quantity``, nan where there is nothing to draw.

    Validation figures start where the training figure beside them does.
    """
    keys = {key for epoch in history for key in epoch if key == quantity or key.endswith(f"_{quantity}")}
    found = {
        key: [np.nan if epoch.get(key) is None else float(epoch[key]) for epoch in history] for key in keys
    }
    curves = {}
    for key, values in found.items():
        there = np.isfinite(found.get(key.removeprefix("val_"), values))
        begins = int(np.argmax(there)) if there.any() else len(values)
        shown = [np.nan] * begins + values[begins:]
        if not np.isnan(shown).all():
            curves[key] = shown
    return curves


def epochs_of(history: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the number of each epoch; its place, from 1, where it has none."""
    return [float(epoch.get("epoch", place)) for place, epoch in enumerate(history, start=1)]


def phases_of(history: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> list[tuple[str, float]]:
    """Return name and start of each phase of a history; nothing where it does not tell phases apart.

    A phase starts half an epoch before its first epoch, the very first one at its epoch.
    """
    phases: list[tuple[str, float]] = []
    before: int | None = None
    for epoch, row in zip(epochs_of(history), history, strict=True):
        if row.get("phase") is None:
            continue
        number = int(row["phase"])
        if number != before:
            name = names[number - 1] if 0 < number <= len(names) else f"phase {number}"
            phases.append((name, epoch if before is None else epoch - 0.5))
            before = number
    return phases


def _lonely(values: Sequence[float]) -> list[int]:
    """Return the places of values between two gaps."""
    there = np.isfinite([np.nan, *values, np.nan])
    return np.flatnonzero(there[1:-1] & ~there[:-2] & ~there[2:]).tolist()
