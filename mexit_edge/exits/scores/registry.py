"""The scores there are, by name, and how those of a network are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError, unknown_name
from mexit_edge.exits.scores.base import Exits, Integers, Score
from mexit_edge.exits.scores.ensembles import Boosted, Ensemble, GeometricEnsemble
from mexit_edge.exits.scores.gate import LARGEST_WEIGHT, Gate, Learned, n_weights
from mexit_edge.exits.scores.memory import Patience, Vote
from mexit_edge.exits.scores.softmax import Entropy, LogitMargin, Margin, MaxProb

SCORES: dict[str, type[Score]] = {
    kind.name: kind
    for kind in (
        LogitMargin,
        MaxProb,
        Entropy,
        Margin,
        Patience,
        Vote,
        Ensemble,
        GeometricEnsemble,
        Boosted,
        Learned,
    )
}
# Both ends excluded: at 0 a vote is a bare count, at 1 the bare share.
_RANGES = {"lambda": (0.0, 1.0), "rate": (0.0, 1.0)}


def make_scores(
    name: str,
    scales: Sequence[float],
    n_classes: int,
    *,
    temperatures: Sequence[float] | None = None,
    options: Mapping[str, float] | None = None,
    gates: Sequence[Gate] = (),
) -> tuple[Score, ...]:
    """Return the score of that name for every exit of a network.

    Args:
        name: a key of `SCORES`.
        scales: per exit, the quantization scale of its int8 logits.
        n_classes: number of logits.
        temperatures: per exit, what its logits are divided by; None for 1.
        options: over the score's own defaults, by name.
        gates: of `learned`: one per early exit (`fit_gates`).

    Raises:
        InputError: no such score or option, or numbers that do not fit.
    """
    kind = score_kind(name)
    exits = tempered(scales, n_classes, temperatures)
    chosen = _checked_options(kind, options or {})
    if kind is not Learned:
        if gates:
            raise InputError(f"`gates` belong to the score learned. Received: {len(gates)} for {name}.")
        return tuple(kind(exits, place, chosen) for place in range(len(exits.scales)))
    _check_gates(gates, len(exits.scales) - 1)
    return tuple(Learned(exits, place, chosen, gate) for place, gate in enumerate((*gates, None)))


def score_kind(name: str) -> type[Score]:
    """Return the class of a score.

    Raises:
        InputError: no such score.
    """
    if name not in SCORES:
        raise unknown_name("score", name, SCORES)
    return SCORES[name]


def tempered(scales: Sequence[float], n_classes: int, temperatures: Sequence[float] | None = None) -> Exits:
    """Return the exits with their temperatures folded into the scales.

    Raises:
        InputError: not one temperature per exit, or as for `Exits`.
    """
    if temperatures is None:
        return Exits(tuple(scales), n_classes)
    if len(temperatures) != len(scales) or not all(temperature > 0 for temperature in temperatures):
        raise InputError(
            f"`temperatures` needs one positive value per exit ({len(scales)}). "
            f"Received: {list(temperatures)}."
        )
    return Exits(
        tuple(scale / temperature for scale, temperature in zip(scales, temperatures, strict=True)), n_classes
    )


def score_exits(
    scores: Sequence[Score], logits: NDArray[np.int8], enabled: Sequence[bool] | None = None
) -> tuple[Integers, Integers]:
    """Score every exit of every window, as if none left early.

    Args:
        scores: one per exit.
        logits: (n, E, classes) int8.
        enabled: (E,) whether each exit is looked at; None for all. One that is not scores its lowest.

    Returns:
        (n, E) integer scores, and (n, E) classes that a window is given if it leaves there.
    """
    n, n_exits = logits.shape[:2]
    found, labels = np.empty((2, n, n_exits), np.int64)
    state = np.zeros((n, max(score.n_state for score in scores)), np.int64)
    for place, score in enumerate(scores):
        if enabled is None or enabled[place]:
            found[:, place], labels[:, place] = score.batch(logits[:, place], state)
        else:
            found[:, place], labels[:, place] = score.lowest, logits[:, place].argmax(axis=1)
    return found, labels


def _checked_options(kind: type[Score], options: Mapping[str, float]) -> dict[str, float]:
    for name, value in options.items():
        if name not in kind.options:
            if not kind.options:
                raise InputError(f"the score {kind.name} has no options. Received: {name!r}. Leave it out.")
            raise unknown_name(f"option of the score {kind.name}", name, kind.options)
        low, high = _RANGES[name]
        if not low < value < high:
            raise InputError(
                f"`{name}` of the score {kind.name} must lie between {low:g} and {high:g}. Received: {value}."
            )
    return {**kind.options, **options}


def _check_gates(gates: Sequence[Gate], n_early: int) -> None:
    expected = [n_weights(place) for place in range(n_early)]
    if [len(gate.weights) for gate in gates] != expected or any(
        abs(weight) > LARGEST_WEIGHT for gate in gates for weight in gate.weights
    ):
        raise InputError(
            f"`gates` of the score learned needs one per early exit ({n_early}) with {expected} weights "
            f"within +-{LARGEST_WEIGHT}. Received: {[len(gate.weights) for gate in gates]} weights."
        )
