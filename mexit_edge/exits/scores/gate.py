"""`learned`: a logistic gate per exit on what the exit says of itself and what the gates before it said.

    z_e = w_e . [max_prob, entropy, margin, z_1 / 8, ..., z_{e-1} / 8] + b_e

All features lie within [-1, 1] and are integers in Q15, weights are integers in Q8. z is the logit of the
probability that the exit is right, in Q12 and held within +-8. The rule needs no sigmoid, which is monotone.
A gate is fitted to whether its exit was right, by ridge-regularised logistic regression (Newton's method).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mexit_edge.exits.scores.base import Exits, Integers, Logits, Score
from mexit_edge.exits.scores.softmax import Q15, Entropy, Margin, MaxProb

OUTPUT_BITS = 12
WEIGHT_BITS = 8
# A product of feature and weight has 23 fractional bits.
SHIFT = 15 + WEIGHT_BITS - OUTPUT_BITS
LARGEST_WEIGHT, LARGEST_BIAS = (1 << 15) - 1, (1 << 31) - 1
LOWEST_OUTPUT, HIGHEST_OUTPUT = -(1 << 15), (1 << 15) - 1
FEATURES = (MaxProb, Entropy, Margin)
# Of the squared weights, against the summed log-likelihood: as strong as one window at each end.
RIDGE = 1.0
NEWTON_STEPS = 50
SMALLEST_GAIN = 1e-10


@dataclass(frozen=True)
class Gate:
    """The integers of one exit's gate.

    Args:
        weights: in Q8, one per feature: max_prob, entropy, margin, then the gates of all exits before.
        bias: in Q23.
    """

    weights: tuple[int, ...]
    bias: int


class Learned(Score):
    """See the module. State: z of every exit before; 0 where that exit is switched off.

    Sums need 64 bits. The final exit has no gate; its score is not looked at and is 0.

    Args:
        exits: all exits of the network.
        place: index of this exit among them, from 0.
        options: none.
        gate: of this exit; None for the final one.
    """

    name = "learned"
    highest = HIGHEST_OUTPUT
    lowest = LOWEST_OUTPUT

    def __init__(
        self, exits: Exits, place: int, options: Mapping[str, float], gate: Gate | None = None
    ) -> None:
        super().__init__(exits, place, options)
        self.gate = gate
        self._features = [kind(exits, place, {}) for kind in FEATURES]
        self._weights = np.asarray(() if gate is None else gate.weights, np.int64)

    @property
    def n_state(self) -> int:
        """See `Score.n_state`."""
        return len(self.exits.scales) - 1

    @property
    def unit(self) -> float:
        """One step of Q12."""
        return 1 / (1 << OUTPUT_BITS)

    @property
    def tables(self) -> dict[str, tuple[int, ...]]:
        """See `Score.tables`."""
        gate = {} if self.gate is None else {"weights": self.gate.weights, "bias": (self.gate.bias,)}
        # The entropy's tables hold those of the other two.
        return {**self._features[1].tables, **gate}

    def features(self, logits: Logits, state: Integers) -> Integers:
        """Return (n, 3 + place) features in Q15."""
        own = [feature.scored(logits) for feature in self._features]
        return np.column_stack([*own, state[:, : self.place]])

    def batch(self, logits: Logits, state: Integers) -> tuple[Integers, Integers]:
        """See `Score.batch`."""
        label = logits.argmax(axis=1)
        if self.gate is None:
            return np.zeros(len(logits), np.int64), label
        total = self.features(logits, state) @ self._weights + self.gate.bias
        score = np.clip(total >> SHIFT, LOWEST_OUTPUT, HIGHEST_OUTPUT)
        state[:, self.place] = score
        return score, label

    def one(self, logits: Sequence[int], state: list[int]) -> tuple[int, int]:
        """See `Score.one`."""
        label = logits.index(max(logits))
        if self.gate is None:
            return 0, label
        features = [feature.scored_one(logits) for feature in self._features] + state[: self.place]
        total = self.gate.bias
        for feature, weight in zip(features, self.gate.weights, strict=True):
            total += feature * weight
        state[self.place] = min(max(total >> SHIFT, LOWEST_OUTPUT), HIGHEST_OUTPUT)
        return state[self.place], label


def n_weights(place: int) -> int:
    """Return how many weights the gate of the exit with this index has."""
    return len(FEATURES) + place


def fit_gates(
    exits: Exits, logits: Logits, y: NDArray[np.int64], enabled: Sequence[bool] | None = None
) -> tuple[Gate, ...]:
    """Fit the gates of all early exits, the first exit first, because later ones look at earlier ones.

    Args:
        exits: all exits of the network.
        logits: (n, E, classes) int8.
        y: (n,) labels.
        enabled: (E,) whether each exit is looked at; None for all. The gate of one that is not is all zeros.

    Returns:
        One gate per early exit, E - 1 of them.
    """
    n_early = len(exits.scales) - 1
    state = np.zeros((len(logits), n_early), np.int64)
    gates = []
    for place in range(n_early):
        gate = Gate((0,) * n_weights(place), 0)
        if enabled is None or enabled[place]:
            features = Learned(exits, place, {}).features(logits[:, place], state) / Q15
            gate = _in_integers(_fit(features, logits[:, place].argmax(axis=1) == y))
            Learned(exits, place, {}, gate).batch(logits[:, place], state)
        gates.append(gate)
    return tuple(gates)


def _fit(features: NDArray[np.float64], is_right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return weights and, last, the bias that maximise the penalised log-likelihood.

    The bias is not penalised; one window of either outcome is added, so that it stays finite.
    """
    design = np.column_stack([features, np.ones(len(features))])
    centre = np.append(features.mean(axis=0), 1.0)
    design = np.vstack([design, centre, centre])
    target = np.concatenate([is_right, [True, False]]).astype(np.float64)
    penalty = np.full(design.shape[1], RIDGE)
    penalty[-1] = 0.0
    weights = np.zeros(design.shape[1])
    loss = _penalised_loss(design, target, penalty, weights)
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (p - target) + penalty * weights
        curvature = (design * (p * (1 - p))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        # Halved until the loss falls: far from the optimum a full step may overshoot.
        size = 1.0
        while (after := _penalised_loss(design, target, penalty, weights - size * step)) > loss:
            size /= 2
        weights, gained, loss = weights - size * step, loss - after, after
        if gained < SMALLEST_GAIN * abs(loss):
            break
    return weights


def _penalised_loss(
    design: NDArray[np.float64],
    target: NDArray[np.float64],
    penalty: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> float:
    z = design @ weights
    return float(np.sum(np.logaddexp(0, z) - target * z) + 0.5 * np.sum(penalty * weights**2))


def _in_integers(weights: NDArray[np.float64]) -> Gate:
    rounded = np.clip(np.rint(weights[:-1] * (1 << WEIGHT_BITS)), -LARGEST_WEIGHT, LARGEST_WEIGHT)
    bias = round(float(weights[-1]) * (1 << (15 + WEIGHT_BITS)))
    return Gate(tuple(int(value) for value in rounded), max(-LARGEST_BIAS, min(bias, LARGEST_BIAS)))
