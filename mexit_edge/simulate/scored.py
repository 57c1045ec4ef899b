"""Score calibration windows: temperatures and gates are fitted here, and exits that are off left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle import Manifest
from mexit_edge.exits import (
    Exits,
    Gate,
    Score,
    TemperatureFit,
    fit_gates,
    fit_temperature,
    judge_temperature,
    make_scores,
    score_exits,
    tempered,
)
from mexit_edge.signals import Windows
from mexit_edge.simulate.goals import Scoring

GATE_FOLDS = 5

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Judged:
    """Calibration windows with what every exit says of them.

    Args:
        logits: (n, E, classes) int8, of every exit.
        windows: (n), of which only label, subject and name are read.
        engine: that made the logits; None for out-of-fold logits.
        folds: number of networks that made out-of-fold logits; None for logits of the bundle itself.
    """

    logits: NDArray[np.int8]
    windows: Windows
    engine: str | None = None
    folds: int | None = None


@dataclass(frozen=True, eq=False)
class Scored:
    """What the exits that are on say of the calibration windows; the final exit comes last.

    Thresholds are searched over these exits alone: one that is off cannot be left at.
    """

    on: NDArray[np.intp]  # places of the exits that are on
    of_exit: tuple[Score, ...]
    scales: tuple[float, ...]
    scores: Integers
    predicted: Integers
    temperatures: tuple[float, ...] | None
    fits: tuple[TemperatureFit, ...]
    gates: tuple[Gate, ...]


def score_windows(manifest: Manifest, judged: Judged, scoring: Scoring) -> Scored:
    """Fit temperatures and gates where they are asked for, and score the windows."""
    scales, n_classes = [stage.outputs[0].scale for stage in manifest.stages], len(manifest.classes)
    enabled = [name not in scoring.off for name in manifest.exits]
    fits = _fit_temperatures(judged, scales) if scoring.tempered else ()
    temperatures = tuple(fit.temperature for fit in fits) or None
    exits = tempered(scales, n_classes, temperatures)
    learns = scoring.score == "learned"
    gates = fit_gates(exits, judged.logits, judged.windows.y, enabled) if learns else ()
    scores = make_scores(
        scoring.score, scales, n_classes, temperatures=temperatures, options=scoring.options, gates=gates
    )
    columns, labels = score_exits(scores, judged.logits, enabled)
    if learns:
        columns = held_out_gate_scores(exits, judged, enabled)
    on = np.flatnonzero(enabled)
    return Scored(
        on=on,
        of_exit=tuple(scores[place] for place in on[:-1]),
        scales=tuple(exits.scales[place] for place in on),
        scores=columns[:, on],
        predicted=labels[:, on],
        temperatures=temperatures,
        fits=fits,
        gates=gates,
    )


def _fit_temperatures(judged: Judged, scales: list[float]) -> tuple[TemperatureFit, ...]:
    fits = []
    for place, scale in enumerate(scales):
        logits = judged.logits[:, place].astype(np.float64) * scale
        temperature = fit_temperature(logits, judged.windows.y)
        fits.append(judge_temperature(temperature, logits, judged.windows.y))
    return tuple(fits)


def held_out_gate_scores(exits: Exits, judged: Judged, enabled: list[bool]) -> Integers:
    """Return (n, E) scores of gates that did not see the window they score.

    A gate is surer of the windows it was fitted on. Folds are subjects where there are several, else
    stretches of time, because neighbouring windows overlap.
    """
    n, y = len(judged.windows), judged.windows.y
    subjects, fold = np.unique(judged.windows.subject, return_inverse=True)
    if len(subjects) < 2:
        fold = np.arange(n) * GATE_FOLDS // n
    found = np.zeros((n, len(enabled)), np.int64)
    for number in np.unique(fold):
        held = fold == number
        gates = fit_gates(exits, judged.logits[~held], y[~held], enabled)
        scores = make_scores("learned", exits.scales, exits.n_classes, gates=gates)
        found[held] = score_exits(scores, judged.logits[held], enabled)[0]
    return found
