"""What each regime minimises, against slow references in NumPy; where gradients go, and how large."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from fixtures_networks import N_CLASSES, SENSOR, TRAIN_REASON, dscnn_network, synthetic_windows
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
import tensorflow as tf
from keras import layers

from mexit_edge.errors import InputError
from mexit_edge.regimes import REGIMES, Boosted, Consistency, Distill, Joint, MultiExitModel, make_regime
from mexit_edge.regimes.active_phase import ActivePhase
from mexit_edge.regimes.gradient_step import apply_gradients
from mexit_edge.regimes.regime import ExitOutputs, Regime
from mexit_edge.regimes.sources import make_source

pytestmark = pytest.mark.train
EACH_REGIME = pytest.mark.parametrize("regime", list(REGIMES))
SCHEMES = ("uniform", "linear", "sdn", "inverse_running_loss", "explicit")
FEW = settings(max_examples=60, deadline=None)
EPSILON = 1e-7
ZEROS = tf.UnconnectedGradients.ZERO


# --- References: float64, loops, straight from the equations ------------------------------------------------


def softmax(logits: Any) -> np.ndarray:
    powers = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return powers / powers.sum()


def log_softmax(logits: Any) -> np.ndarray:
    logits = np.asarray(logits, np.float64) - np.max(logits)
    return logits - np.log(np.exp(logits).sum())


def cross_entropy(logits: Any, label: int, smoothing: float = 0.0) -> float:
    target = np.full(len(logits), smoothing / len(logits))
    target[label] += 1 - smoothing
    return float(-(target * log_softmax(logits)).sum())


def kl(target: np.ndarray, logits: Any) -> float:
    return float(
        sum(
            share * (np.log(share) - other)
            for share, other in zip(target, log_softmax(logits), strict=True)
            if share > 0
        )
    )


def cross_entropies(case: Case) -> np.ndarray:
    table = np.zeros(case.logits.shape[:2])
    for window, label in enumerate(case.y):
        for place in range(len(case.exits)):
            table[window, place] = cross_entropy(case.logits[window, place], max(label, 0), case.smoothing)
    return table


@dataclass
class Case:
    """A training step: `logits` (B, exits of the phase, C); `perturbed` likewise for the dual loss."""

    logits: np.ndarray
    perturbed: np.ndarray
    y: np.ndarray
    sample_weight: np.ndarray | None
    smoothing: float
    scheme: str | tuple[float, ...]
    exits: tuple[int, ...]
    n_exits: int
    step: int
    progress: float

    @property
    def options(self) -> dict[str, Any]:
        return {"label_smoothing": self.smoothing, "exit_weights": self.scheme}

    def window_weight(self, window: int) -> float:
        return 1.0 if self.sample_weight is None else float(self.sample_weight[window])

    def outputs(self, state: Any, *, twins: bool = False) -> ExitOutputs:
        logits = np.concatenate([self.logits, self.perturbed]) if twins else self.logits
        return ExitOutputs(
            logits=tf.constant(logits),
            y=tf.constant(self.y),
            sample_weight=None if self.sample_weight is None else tf.constant(self.sample_weight),
            exits=self.exits,
            n_exits=self.n_exits,
            weighted=len(self.exits) > 1,
            step=tf.constant(self.step, tf.int64),
            progress=tf.constant(self.progress, tf.float32),
            state=state,
        )


def update_running(running: list[float], means: Any, exits: tuple[int, ...]) -> None:
    for mean, number in zip(means, exits, strict=True):
        running[number - 1] = 0.9 * running[number - 1] + 0.1 * float(mean)


def exit_weights(case: Case, means: Any, running: list[float]) -> list[float]:
    """Of the phase's exits; `running` has one value per exit of the network and is updated."""
    n = case.n_exits
    update_running(running, means, case.exits)
    if len(case.exits) == 1:
        return [1.0]
    if case.scheme == "uniform":
        every = [1 / n] * n
    elif case.scheme == "linear":
        every = [number / sum(range(1, n + 1)) for number in range(1, n + 1)]
    elif case.scheme == "sdn":
        steps = max(n - 2, 1)
        tau = [0.15 + number * (0.9 - 0.15) / steps for number in range(n - 1)]
        every = [*(min(one, 0.01 + case.progress * one) for one in tau), 1.0]
    elif case.scheme == "inverse_running_loss":
        inverse = [1 / max(one, EPSILON) for one in running]
        every = [one / sum(inverse) for one in inverse]
    else:
        every = [one / sum(case.scheme) for one in case.scheme]
    return [every[number - 1] for number in case.exits]


def weighted_total(case: Case, per_exit: np.ndarray, weights: list[float]) -> float:
    total = 0.0
    for window, losses in enumerate(per_exit):
        total += case.window_weight(window) * sum(w * loss for w, loss in zip(weights, losses, strict=True))
    return total / len(per_exit)


def joint_loss(case: Case, running: list[float]) -> float:
    per_exit = cross_entropies(case)
    return weighted_total(case, per_exit, exit_weights(case, per_exit.mean(axis=0), running))


def distill_loss(case: Case, regime: Distill, temperature: float, running: list[float]) -> float:
    """(1 - C) CE + C T^2 CE(softmax(f_t / T), softmax(f_e / T)) per early exit."""
    per_exit = cross_entropies(case)
    n, share = case.n_exits, regime.share
    for window in range(len(case.y)):
        for e in range(n - 1):
            teachers = {"last": [n - 1], "next": [e + 1], "later": list(range(e + 1, n))}[regime.teacher]
            soft = 0.0
            for t in teachers:
                target = softmax(case.logits[window, t] / temperature)
                soft -= (target * log_softmax(case.logits[window, e] / temperature)).sum() / len(teachers)
            per_exit[window, e] = (1 - share) * per_exit[window, e] + share * temperature**2 * soft
    return weighted_total(case, per_exit, exit_weights(case, per_exit.mean(axis=0), running))


def targets_of(case: Case, target: str) -> np.ndarray:
    p = np.stack([[softmax(logits) for logits in window] for window in case.logits])
    if target == "last":
        p[:] = p[:, -1:]
    elif target == "ensemble":
        p[:] = p.mean(axis=1, keepdims=True)
    return p


def consistency_loss(case: Case, regime: Consistency, running: list[float]) -> float:
    """CE over the labelled windows, lambda m D over all (``label``: over the labelled)."""
    exact = cross_entropies(case)
    known = [window for window, label in enumerate(case.y) if label != -1]
    means = exact[known].mean(axis=0) if known else np.zeros(exact.shape[1])
    weights = exit_weights(case, means, running)
    targets = targets_of(case, regime.target)
    supervised = weak = 0.0
    for window, label in enumerate(case.y):
        of_window = case.window_weight(window)
        for e, w in enumerate(weights):
            logits, q = case.perturbed[window, e], targets[window, e]
            if label != -1:
                supervised += of_window * w * exact[window, e] / len(known)
            if regime.weak == "label":
                if label != -1:
                    weak += of_window * w * cross_entropy(logits, label, case.smoothing) / len(known)
                continue
            if q.max() < regime.confidence:
                continue
            if regime.weak == "hard":
                distance = cross_entropy(logits, int(q.argmax()))
            else:
                tempered = q ** (1 / regime.temperature)
                distance = kl(tempered / tempered.sum(), logits)
            weak += of_window * w * distance / len(case.y)
    rise = 1.0 if not regime.ramp else min(1.0, case.progress / regime.ramp)
    return supervised + regime.strength * rise * weak


# --- Cases --------------------------------------------------------------------------------------------------

# Multiples of 1/8, so that logits are equal or clearly different.
EIGHTHS = st.integers(-64, 64)


@st.composite
def cases(draw: Any, *, unlabelled: bool = False, phase: bool = False, min_exits: int = 2) -> Case:
    batch, n_exits, n_classes = (
        draw(st.integers(1, 4)),
        draw(st.integers(min_exits, 4)),
        draw(st.integers(2, 4)),
    )
    exits = tuple(range(1, n_exits + 1))
    if phase:
        exits = tuple(sorted(draw(st.sets(st.sampled_from(exits), min_size=1))))
    shape = (batch, len(exits), n_classes)
    logits, perturbed = (
        draw(arrays(np.int64, shape, elements=EIGHTHS)).astype(np.float32) / 8 for _ in range(2)
    )
    lowest = -1 if unlabelled else 0
    weight = st.none() | arrays(np.float32, batch, elements=st.integers(0, 12).map(lambda q: q / 4))
    scheme = draw(st.sampled_from(SCHEMES))
    if scheme == "explicit":
        scheme = tuple(draw(st.lists(st.integers(0, 5), min_size=n_exits, max_size=n_exits).filter(any)))
    return Case(
        logits=logits,
        perturbed=perturbed,
        y=draw(arrays(np.int64, batch, elements=st.integers(lowest, n_classes - 1))),
        sample_weight=draw(weight),
        smoothing=draw(st.sampled_from([0.0, 0.1, 0.5])),
        scheme=scheme,
        exits=exits,
        n_exits=n_exits,
        step=draw(st.integers(0, 5)),
        progress=draw(st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.7, 1.0])),
    )


def close(got: Any, expected: float) -> None:
    assert float(got) == pytest.approx(expected, rel=1e-5, abs=1e-5)


# --- Losses -------------------------------------------------------------------------------------------------


@FEW
@given(cases(min_exits=1, phase=True))
def test_joint_loss_in_any_phase(case: Case) -> None:
    regime = Joint(**case.options)
    close(regime.loss(case.outputs(regime.make_state(case.n_exits))), joint_loss(case, [1.0] * case.n_exits))


@FEW
@given(cases())
def test_alternating_loss(case: Case) -> None:
    """Steps count from 1, and `step` is the number of those done."""
    regime = make_regime("alternating", **case.options)
    if case.step % 2 == 0:
        final = cross_entropies(case)[:, -1]
        expected = sum(case.window_weight(window) * loss for window, loss in enumerate(final)) / len(final)
    else:
        expected = joint_loss(case, [1.0] * case.n_exits)
    close(regime.loss(case.outputs(regime.make_state(case.n_exits))), expected)


@FEW
@given(
    cases(),
    st.sampled_from(["last", "next", "later"]),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.sampled_from([0.5, 1.0, 3.0]),
    st.booleans(),
)
def test_distill_loss_and_temperature(
    case: Case, teacher: str, share: float, temperature: float, anneal: bool
) -> None:
    regime = Distill(teacher=teacher, share=share, temperature=temperature, anneal=anneal, **case.options)
    state = regime.make_state(case.n_exits)
    running = [1.0] * case.n_exits
    for _ in range(2):
        close(regime.loss(case.outputs(state)), distill_loss(case, regime, temperature, running))
        used = [case.n_exits - 1] if teacher == "last" else range(1, case.n_exits)
        sure = np.mean([softmax(window[t] / temperature).max() for window in case.logits for t in used])
        # At one half sharp, float32 and float64 may differ about who is sure.
        assume(abs(sure - 0.5) > 1e-5 or not anneal)
        if anneal and sure > 0.5:
            temperature *= 1.05
        assert float(state.temperature) == pytest.approx(temperature, rel=1e-6)


@settings(max_examples=150, deadline=None)
@given(
    cases(unlabelled=True, min_exits=1),
    st.sampled_from(["self", "last", "ensemble"]),
    st.sampled_from(["soft", "hard", "label"]),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([0.0, 0.4, 0.7, 0.95, 1.0]),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.sampled_from([0.0, 0.1, 0.3, 1.0]),
)
def test_consistency_loss(
    case: Case, target: str, weak: str, temperature: float, confidence: float, strength: float, ramp: float
) -> None:
    regime = Consistency(
        target=target,
        weak=weak,
        temperature=temperature,
        confidence=confidence,
        strength=strength,
        ramp=ramp,
        **case.options,
    )
    ordered = np.sort(targets_of(case, target), axis=-1)
    # On the edge of the mask, and between equals of a mean, float32 may decide otherwise than float64.
    assume((np.abs(ordered[..., -1] - confidence) > 1e-5).all())
    assume(weak != "hard" or target != "ensemble" or (ordered[..., -1] - ordered[..., -2] > 1e-5).all())
    got = regime.loss(case.outputs(regime.make_state(case.n_exits), twins=True))
    close(got, consistency_loss(case, regime, [1.0] * case.n_exits))


@settings(max_examples=15, deadline=None)
@given(cases(), st.sampled_from(["per_sample", "per_exit", "global"]), st.sampled_from([0.3, 0.8, 3.0]))
def test_weighted_loss(case: Case, centre: str, eps: float) -> None:
    """L = E sum_e w_e mean_b(W_be l_be), W = 1 + eps times the centred output of the MLP, at least 0."""
    regime = make_regime("weighted", centre=centre, eps=eps, hidden=5, **case.options)
    state = regime.make_state(case.n_exits)
    per_exit = cross_entropies(case)
    hidden_kernel, hidden_bias, kernel, bias = map(np.array, state.weight_network.weights)
    said = np.tanh(np.maximum(per_exit @ hidden_kernel + hidden_bias, 0) @ kernel + bias)
    axis = {"per_sample": 1, "per_exit": 0, "global": None}[centre]
    learned = np.maximum(1 + eps * (said - said.mean(axis=axis, keepdims=True)), 0)
    weights = exit_weights(case, per_exit.mean(axis=0), [1.0] * case.n_exits)
    expected = case.n_exits * weighted_total(case, learned * per_exit, weights)
    close(regime.loss(case.outputs(state)), expected)


def test_mask_takes_a_confidence_that_is_met_exactly() -> None:
    even = np.zeros((1, 1, 2), np.float32)
    perturbed = np.array([[[1, 0]]], np.float32)
    case = Case(even, perturbed, np.array([0]), None, 0.0, "uniform", (1,), 1, 0, 1.0)
    for confidence, expected in ((0.5, kl(np.array([0.5, 0.5]), [1, 0])), (0.51, 0.0)):
        regime = Consistency(confidence=confidence)
        loss = regime.loss(case.outputs(regime.make_state(1), twins=True))
        close(float(loss) - np.log(2), expected)


def test_running_losses_over_several_steps_and_phases() -> None:
    """A phase moves the running losses of its own exits; the others keep theirs, and count in the sum."""
    rng = np.random.default_rng(0)
    regime = Joint(exit_weights="inverse_running_loss")
    state, running = regime.make_state(3), [1.0] * 3
    for exits in ((1, 2, 3), (1, 2, 3), (1, 2), (3,), (1, 2, 3)):
        logits = rng.normal(0, 3, (5, len(exits), 4)).astype(np.float32)
        y = rng.integers(0, 4, 5)
        case = Case(logits, logits, y, None, 0.0, "inverse_running_loss", exits, 3, 0, 0.0)
        close(regime.loss(case.outputs(state)), joint_loss(case, running))
        assert [float(one) for one in state.running_losses] == pytest.approx(running, rel=1e-5)
    assert len({round(one, 3) for one in running}) == 3


@pytest.mark.parametrize("scheme", ["linear", "inverse_running_loss", "sdn"])
def test_exit_weights_carry_no_gradient(scheme: str) -> None:
    """The gradient is that of constant weights, even where they follow the losses."""
    rng = np.random.default_rng(1)
    logits, y = rng.normal(size=(4, 3, 3)).astype(np.float32), np.array([0, 1, 2, 1])
    regime = Joint(exit_weights=scheme)
    case = Case(logits, logits, y, None, 0.0, scheme, (1, 2, 3), 3, 0, 0.4)
    (got,) = gradients_at(case.outputs(regime.make_state(3)), regime)
    weights = np.reshape(exit_weights(case, cross_entropies(case).mean(axis=0), [1.0] * 3), (3, 1))
    expected = [
        weights * (np.apply_along_axis(softmax, 1, logits[b]) - np.eye(3)[y[b]]) / 4 for b in range(4)
    ]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def gradients_at(outputs: ExitOutputs, regime: Regime, parts: int = 1) -> list[np.ndarray]:
    """Gradients of a regime's loss with respect to the logits, divided among `parts` of the batch."""
    pieces = tf.split(outputs.logits, parts)
    with tf.GradientTape() as tape:
        tape.watch(pieces)
        loss = regime.loss(replace(outputs, logits=tf.concat(pieces, axis=0)))
    return [np.asarray(one) for one in tape.gradient(loss, pieces, unconnected_gradients=ZEROS)]


# --- Through networks ---------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("test_regime_losses")
class ScaledIdentity(layers.Layer):
    """Passes values on, and gradients times a factor: the identities of IMTA (arXiv 1908.06294)."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def call(self, inputs: Any) -> Any:
        @tf.custom_gradient
        def scaled(tensor: Any) -> tuple[Any, Callable[[Any], Any]]:
            return tf.identity(tensor), lambda upstream: upstream * self.factor

        return scaled(inputs)


def small_network(kind: str = "chain", *, identities: bool = False) -> keras.Model:
    """Three exits on dense layers whose names begin with `block_n` or are those of the exits.

    Args:
        kind: ``long_skip``: block 1 is added again in block 3. ``two_tensors``: both halves of block 2 cross
            the second cut.
        identities: whether gradients are in equilibrium by two scaled identities per early exit.
    """

    def branch_off(number: int, alive: list[Any]) -> tuple[list[Any], list[Any]]:
        """Tensors for head `number`, and for the blocks after it."""
        if not identities:
            return alive, alive
        here = [ScaledIdentity(1 / (3 - number + 1))(tensor) for tensor in alive]
        return here, [ScaledIdentity(3 - number)(tensor) for tensor in here]

    def block(tensor: Any, name: str) -> Any:
        return layers.Dense(5, activation="tanh", name=name)(tensor)

    window = keras.Input(SENSOR.shape, name="window")
    one = block(layers.Flatten()(window), "block_1")
    (head_1,), (one,) = branch_off(1, [one])
    if kind == "chain":
        heads, (two,) = branch_off(2, [block(one, "block_2")])
        head_2, three = heads[0], block(two, "block_3")
    elif kind == "long_skip":
        # The skip is alive at both cuts, though head 2 does not read it.
        heads, (two, skip) = branch_off(2, [block(one, "block_2"), one])
        head_2, three = heads[0], layers.Add()([block(two, "block_3"), skip])
    else:
        halves = [block(one, "block_2_left"), block(one, "block_2_right")]
        heads, onward = branch_off(2, halves)
        head_2, three = layers.Add()(heads), block(layers.Multiply()(onward), "block_3")
    outputs = {
        f"exit_{number:02d}": layers.Dense(N_CLASSES, name=f"exit_{number:02d}")(features)
        for number, features in enumerate((head_1, head_2, three), start=1)
    }
    return keras.Model(window, outputs)


def small_model(
    regime: Any = "joint", kind: str = "chain", rate: float = 0.1, **options: Any
) -> MultiExitModel:
    keras.utils.set_random_seed(3)
    model = MultiExitModel(small_network(kind), regime, **options)
    model.compile(keras.optimizers.SGD(rate), run_eagerly=True)
    model.optimizer.build(model.trainable_variables)
    return model


def batch(n: int = 8) -> tuple[np.ndarray, np.ndarray]:
    windows = synthetic_windows(n)
    return windows.x.astype(np.float32), windows.y


def named_weights(network: keras.Model) -> dict[str, np.ndarray]:
    return {
        f"{layer.name}/{weight.name}": np.array(weight)
        for layer in network.layers
        for weight in layer.weights
    }


def logits_of(network: keras.Model, x: np.ndarray) -> np.ndarray:
    outputs = network(x, training=True)
    return np.stack([np.asarray(outputs[exit_]) for exit_ in sorted(outputs)], axis=1)


PHASES = {
    "disjoint": [((3,), "block_1 block_2 block_3 exit_03"), ((1, 2), "exit_01 exit_02")],
    "mixed": [((3,), "block_1 block_2 block_3 exit_03"), ((1, 2, 3), "all")],
    "1-2-3": [
        ((3,), "block_1 block_2 block_3 exit_03"),
        ((1, 2, 3), "all"),
        ((1, 2), "exit_01 exit_02"),
    ],
    "2-3": [((1, 2, 3), "all"), ((1, 2), "exit_01 exit_02")],
    "layerwise": [((1,), "block_1 exit_01"), ((2,), "block_2 exit_02"), ((3,), "block_3 exit_03")],
}


@pytest.mark.parametrize("scheme", ["uniform", (1.0, 2.0, 3.0)])
@pytest.mark.parametrize("regime", list(PHASES))
def test_loss_and_what_learns_inside_each_phase(regime: str, scheme: Any) -> None:
    x, y = batch()
    weight = np.linspace(0, 2, len(y), dtype=np.float32)
    options = {} if regime == "layerwise" else {"exit_weights": scheme}
    model = small_model(make_regime(regime, label_smoothing=0.1, **options))
    phases = model.regime.phases(3)
    logits = logits_of(model.network, x)
    assert len(phases) == len(PHASES[regime])
    for phase, (exits, learning) in zip(phases, PHASES[regime], strict=True):
        model.active = ActivePhase(model.network, model.anatomy, phase)
        of_phase = logits[:, [number - 1 for number in exits]]
        case = Case(of_phase, of_phase, y, weight, 0.1, scheme, exits, 3, 0, 0.0)
        before = named_weights(model.network)
        y_pred, loss = model.regime.step(model, x, y, weight)
        assert sorted(y_pred) == [f"exit_{number:02d}" for number in exits]
        close(loss, joint_loss(case, [1.0] * 3))
        moved = {
            name.split("/")[0]
            for name, value in named_weights(model.network).items()
            if (value != before[name]).any()
        }
        everything = {name.split("/")[0] for name in before}
        assert moved == (everything if learning == "all" else set(learning.split()))
        logits = logits_of(model.network, x)


def test_alternating_trains_the_plain_network_at_odd_steps() -> None:
    model = small_model("alternating")
    for heads_move in (False, True, False):
        before = named_weights(model.network)
        model.train_step(batch())
        after = named_weights(model.network)
        for name, value in after.items():
            moves = heads_move or not name.startswith(("exit_01", "exit_02"))
            assert (value != before[name]).any() == moves, name


@pytest.mark.parametrize("ratio", [0.5, 2.0])
@pytest.mark.parametrize("scheme", ["uniform", "linear", (1.0, 0.0, 3.0)])
def test_boosted_loss_through_the_network(ratio: float, scheme: Any) -> None:
    x, y = batch()
    weight = np.linspace(0, 2, len(y), dtype=np.float32)
    regime = Boosted(ratio=ratio, exit_weights=scheme, label_smoothing=0.1)
    model = small_model(regime)
    own = logits_of(small_model().network, x).astype(np.float64)
    sums = own.copy()
    for e in (1, 2):
        sums[:, e] = own[:, e] + ratio * sums[:, e - 1]
    case = Case(sums, sums, y, weight, 0.1, scheme, (1, 2, 3), 3, 0, 0.0)
    y_pred = model(x, training=True)
    np.testing.assert_allclose(logits_of(model.network, x), sums, atol=1e-5)
    close(model.compute_loss(y=y, y_pred=y_pred, sample_weight=weight), 3 * joint_loss(case, [1.0] * 3))
    if scheme == "uniform":
        per_exit = [
            np.mean([weight[b] * cross_entropy(sums[b, e], y[b], 0.1) for b in range(len(y))])
            for e in range(3)
        ]
        close(model.compute_loss(y=y, y_pred=y_pred, sample_weight=weight), sum(per_exit))


@pytest.mark.parametrize("regime", ["consistency", "distill"])
def test_loss_of_a_model_counts_steps(regime: str) -> None:
    """Progress is the share of steps done: the ramp and the schedule begin at 0."""
    x, y = batch()
    model = small_model(
        make_regime(regime, exit_weights="sdn", **({"ramp": 0.5} if regime == "consistency" else {}))
    )
    model.n_steps.assign(8)
    for step in (0, 2, 4, 8):
        model.step.assign(step)
        y_pred = model(np.concatenate([x, x + 1]) if regime == "consistency" else x, training=True)
        logits = np.stack([np.asarray(y_pred[exit_]) for exit_ in model.exits], axis=1)
        case = Case(logits[:8], logits[8:], y, None, 0.0, "sdn", (1, 2, 3), 3, step, step / 8)
        reference = (
            consistency_loss(case, model.regime, [1.0] * 3)
            if regime == "consistency"
            else distill_loss(case, model.regime, 1.0, [1.0] * 3)
        )
        close(model.compute_loss(y=y, y_pred=y_pred), reference)


# --- Targets carry no gradient ------------------------------------------------------------------------------


@pytest.mark.parametrize("later", [2, 3])
def test_boosted_exits_take_the_sum_before_as_a_constant(later: int) -> None:
    x, y = batch()
    model = small_model(Boosted(ratio=0.5))
    plain = small_model().network
    logits = logits_of(model.network, x)
    with tf.GradientTape(persistent=True) as tape:
        loss = _mean_cross_entropy(y, model(x, training=True)[f"exit_{later:02d}"])
        own = plain(x, training=True)[f"exit_{later:02d}"]
        # The same by hand: F_{e-1} as a number.
        by_hand = _mean_cross_entropy(y, own + 0.5 * logits[:, later - 2])
    for network, value in ((model.network, loss), (plain, by_hand)):
        for number in range(1, later):
            head = network.get_layer(f"exit_{number:02d}")
            sources = [variable.value for variable in head.trainable_variables]
            for gradient in tape.gradient(value, sources, unconnected_gradients=ZEROS):
                assert not np.asarray(gradient).any()
    # Block 1 learns from the later exit by way of its own features alone.
    for layer in ("block_1", f"block_{later}", f"exit_{later:02d}"):
        got = tape.gradient(loss, model.network.get_layer(layer).kernel.value)
        expected = tape.gradient(by_hand, plain.get_layer(layer).kernel.value)
        assert np.abs(expected).max() > 1e-4
        np.testing.assert_allclose(got, expected, atol=1e-7)


def _mean_cross_entropy(y: np.ndarray, logits: Any) -> Any:
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))


@pytest.mark.parametrize("weak", ["soft", "hard"])
@pytest.mark.parametrize("target", ["self", "last", "ensemble"])
@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_consistency_term_leaves_clean_logits_alone(target: str, weak: str, temperature: float) -> None:
    rng = np.random.default_rng(2)
    logits, perturbed = rng.normal(size=(2, 5, 3, 4)).astype(np.float32)
    regime = Consistency(target=target, weak=weak, temperature=temperature, ramp=0.0)
    # Without labels nothing but the consistency term is left.
    case = Case(logits, perturbed, np.full(5, -1), None, 0.0, "uniform", (1, 2, 3), 3, 0, 0.5)
    clean, changed = gradients_at(case.outputs(regime.make_state(3), twins=True), regime, parts=2)
    assert not clean.any()
    q = targets_of(case, target)
    if weak == "hard":
        q = np.eye(4)[q.argmax(axis=-1)]
    else:
        q = q ** (1 / temperature)
        q /= q.sum(axis=-1, keepdims=True)
    p = np.stack([[softmax(one) for one in window] for window in perturbed])
    np.testing.assert_allclose(changed, (p - q) / (5 * 3), atol=1e-6)


@pytest.mark.parametrize(("teacher", "learner"), [(t, e) for t in ("last", "next", "later") for e in (1, 2)])
def test_teachers_learn_nothing_from_their_pupils(teacher: str, learner: int) -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(5, 3, 4)).astype(np.float32)
    only = tuple(float(number == learner) for number in (1, 2, 3))
    regime = Distill(teacher=teacher, share=1.0, temperature=2.0, exit_weights=only)
    case = Case(logits, logits, np.zeros(5, np.int64), None, 0.0, only, (1, 2, 3), 3, 0, 0.0)
    (got,) = gradients_at(case.outputs(regime.make_state(3)), regime)
    assert not np.delete(got, learner - 1, axis=1).any()
    tempered = np.stack([[softmax(one / 2) for one in window] for window in logits])
    taught_by = {"last": [2], "next": [learner], "later": list(range(learner, 3))}[teacher]
    expected = 2.0 * (tempered[:, learner - 1] - tempered[:, taught_by].mean(axis=1)) / 5
    np.testing.assert_allclose(got[:, learner - 1], expected, atol=1e-6)


# --- Gradient equilibrium -----------------------------------------------------------------------------------


NETWORKS = {
    "dscnn": dscnn_network,
    "chain": small_network,
    "long_skip": lambda: small_network("long_skip"),
    "two_tensors": lambda: small_network("two_tensors"),
}


def gradients_of(model: MultiExitModel, x: np.ndarray, y: np.ndarray) -> tuple[list[Any], list[Any]]:
    """Plain gradients of the regime's loss, and what the optimizer gets of them."""
    with tf.GradientTape() as tape:
        loss = model.compute_loss(y=y, y_pred=model(x, training=True), training=True)
    plain = tape.gradient(loss, model.trainable_weights)
    passed: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.optimizer, "apply_gradients", passed.extend)
        apply_gradients(model, plain)
    assert [variable for _, variable in passed] == list(model.trainable_weights)
    return plain, [gradient for gradient, _ in passed]


@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize("j", [1, 2, 3])
def test_every_exit_moves_block_n_by_the_same_share(network: str, j: int) -> None:
    x, y = batch()
    only = tuple(float(number == j) for number in (1, 2, 3))
    keras.utils.set_random_seed(3)
    model = MultiExitModel(NETWORKS[network](), Joint(exit_weights=only, gradient_equilibrium=True))
    model.compile(keras.optimizers.SGD(1.0))
    reached = set()
    for variable, plain, passed in zip(model.trainable_weights, *gradients_of(model, x, y), strict=True):
        if plain is None or not np.asarray(plain).any():
            continue
        layer = variable.path.split("/")[-2]
        block = 1 if layer.startswith("stem") else int(layer.split("_")[1])
        n = None if layer.startswith("exit") else block
        reached.add(n)
        share = 1.0 if n is None else 1 / (3 - n + 1)
        np.testing.assert_allclose(passed, np.asarray(plain) * share, rtol=1e-6, err_msg=layer)
    assert reached == {None, *range(1, j + 1)}


@pytest.mark.parametrize("kind", ["chain", "long_skip", "two_tensors"])
@pytest.mark.parametrize("scheme", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), "uniform"])
def test_equilibrium_equals_scaled_identities_in_the_network(kind: str, scheme: Any) -> None:
    """After one step of plain gradient descent at rate 1."""
    x, y = batch()
    model = small_model(Joint(exit_weights=scheme, gradient_equilibrium=True), kind, rate=1.0)
    by_hand = small_network(kind, identities=True)
    start = named_weights(model.network)
    for layer in by_hand.layers:
        for weight in layer.weights:
            weight.assign(start[f"{layer.name}/{weight.name}"])
    shares = (1 / 3,) * 3 if scheme == "uniform" else scheme
    with tf.GradientTape() as tape:
        outputs = by_hand(x, training=True)
        loss = sum(
            share * _mean_cross_entropy(y, outputs[exit_])
            for share, exit_ in zip(shares, sorted(outputs), strict=True)
        )
    for variable, gradient in zip(
        by_hand.trainable_variables,
        tape.gradient(loss, [v.value for v in by_hand.trainable_variables]),
        strict=True,
    ):
        if gradient is not None:
            variable.assign_sub(gradient)
    model.regime.step(model, x, y, None)
    expected, got = named_weights(by_hand), named_weights(model.network)
    assert set(expected) == set(got)
    for name, value in got.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-6, err_msg=name)
    assert any((value != start[name]).any() for name, value in got.items() if name.startswith("block_1"))


def test_without_equilibrium_gradients_are_passed_as_they_are() -> None:
    plain, passed = gradients_of(small_model(), *batch())
    assert all(np.array_equal(one, other) for one, other in zip(plain, passed, strict=True))


# --- Cost, weights of windows, one batch --------------------------------------------------------------------


def shift(x: np.ndarray, sensor: Any, rng: np.random.Generator) -> np.ndarray:
    return x + np.float32(1.0)


def test_ablations_of_consistency_use_equal_forward_passes() -> None:
    n = 4
    x = [tf.TensorSpec((rows, *SENSOR.shape), tf.float32) for rows in (n, 2 * n)]
    y = tf.TensorSpec((n,), tf.int64)
    model = small_model()
    joint = model.regime.step_macs(model, x[0], y)
    # By hand: flattened window to block 1, two more blocks, three heads.
    assert joint.forward == n * (SENSOR.window * SENSOR.n_channels * 5 + 2 * 25 + 3 * 5 * N_CLASSES)
    variants = [
        {"strength": 0.0},
        {"weak": "label"},
        *({"target": target} for target in ("self", "last", "ensemble")),
        {"weak": "hard", "target": "last"},
    ]
    for options in variants:
        model = small_model(Consistency(**options))
        assert model.regime.step_macs(model, x[1], y).forward == 2 * joint.forward, options


def test_training_cost_of_consistency_is_twice_that_of_joint() -> None:
    x, y = batch(16)
    costs = []
    for regime in ("joint", "consistency"):
        model = small_model(regime, perturbations=(shift,))
        model.fit(x, y, batch_size=8, epochs=2, verbose=0)
        (cost,) = model.training_cost
        assert (cost.steps, cost.windows) == (4, 32)
        costs.append(cost.forward_macs)
    assert costs[1] == 2 * costs[0] > 0


BY_CLASS = {0: 0.2, 1: 3.0, 3: 0.0}


def training_data(kind: str, n: int, weights: str) -> tuple[tuple[Any, Any], dict[str, Any]]:
    """(x, y) and options of `fit`, with `weights` as ``class``, ``sample`` or ``none``."""
    windows = synthetic_windows(n)
    per_window = np.asarray([BY_CLASS.get(int(label), 1.0) for label in windows.y], np.float32)
    options = {
        "class_weight": BY_CLASS if weights == "class" else None,
        "sample_weight": per_window if weights == "sample" and kind != "tf.data" else None,
    }
    if kind == "windows":
        return (windows, None), options
    if kind == "arrays":
        return (windows.x, windows.y), options
    parts = (windows.x, windows.y, *([per_window] if weights == "sample" else []))
    return (tf.data.Dataset.from_tensor_slices(parts).batch(16, drop_remainder=True), None), options


KINDS = ("windows", "arrays", "tf.data")


def first_batch(model: MultiExitModel, kind: str, weights: str) -> tuple[Any, ...]:
    (x, y), options = training_data(kind, 16, weights)
    source = make_source(model, x, y, 16, shuffle=None, **options)
    return tuple(np.asarray(part) for part in next(iter(source.data["x"])))


@EACH_REGIME
def test_class_weight_equals_the_same_sample_weight(regime: str) -> None:
    """A step sees its batch alone, and the batches are equal bit for bit; steps without weights differ."""
    model = small_model(regime, perturbations=(shift,))
    for kind in KINDS:
        by_class, by_window = (first_batch(model, kind, weights) for weights in ("class", "sample"))
        for one, other in zip(by_class, by_window, strict=True):
            np.testing.assert_array_equal(one, other)
        expected = [np.float32(BY_CLASS.get(int(label), 1.0)) for label in by_class[1]]
        np.testing.assert_array_equal(by_class[2], expected)
    batches = [first_batch(model, "arrays", weights) for weights in ("class", "none")]
    start = model.get_weights()
    results = []
    for data in batches:
        model.set_weights(start)
        for phase in model.regime.phases(3):
            model.active = ActivePhase(model.network, model.anatomy, phase)
            model.train_step(tuple(map(tf.convert_to_tensor, data)))
        results.append(np.concatenate([one.ravel() for one in named_weights(model.network).values()]))
    assert np.abs(results[0] - results[1]).max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_class_weight_equals_the_same_sample_weight_in_fit(kind: str) -> None:
    def trained(weights: str) -> dict[str, np.ndarray]:
        model = small_model()
        (x, y), options = training_data(kind, 32, weights)
        options = {name: value for name, value in options.items() if value is not None}
        model.fit(x, y, batch_size=16, epochs=2, verbose=0, **options)
        return named_weights(model.network)

    by_window = trained("sample")
    for name, value in trained("class").items():
        np.testing.assert_allclose(value, by_window[name], rtol=0, atol=1e-6, err_msg=name)


def test_clean_and_perturbed_windows_run_as_one_batch() -> None:
    """Batch normalisation moves once per step, by the statistics of both together."""
    seen = []

    class Spy(layers.Layer):
        def call(self, inputs: Any) -> Any:
            seen.append(tuple(inputs.shape))
            return inputs

    x, y = batch(8)
    window = keras.Input(SENSOR.shape, name="window")
    norm = layers.BatchNormalization(momentum=0.9, name="norm")
    features = layers.Flatten()(Spy()(norm(window)))
    outputs = {f"exit_{n:02d}": layers.Dense(N_CLASSES, name=f"exit_{n:02d}")(features) for n in (1, 2)}
    model = MultiExitModel(keras.Model(window, outputs), "consistency", perturbations=(shift,))
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    seen.clear()
    model.fit(x, y, batch_size=8, verbose=0)
    # Once when the step is counted, once when it is made.
    assert seen == [(16, *SENSOR.shape)] * 2
    both = np.concatenate([x, x + 1]).astype(np.float64)
    np.testing.assert_allclose(norm.moving_mean, 0.1 * both.mean(axis=(0, 1)), atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, 0.9 + 0.1 * both.var(axis=(0, 1)), atol=1e-5)


# --- Options ------------------------------------------------------------------------------------------------

NAN, INFINITE = float("nan"), float("inf")
OUT_OF_RANGE = [
    *(
        (regime, option, value)
        for regime in REGIMES
        for option, values in {
            "label_smoothing": (-0.1, 1.0, NAN),
            "exit_weights": ("unifrom", (), (0.0, 0.0), (-1.0, 2.0), (NAN, 1.0), (INFINITE, 1.0)),
            "gradient_equilibrium": ("yes",),
        }.items()
        for value in values
    ),
    *(
        (regime, "shares", value)
        for regime, n in {"disjoint": 2, "mixed": 2, "2-3": 2, "1-2-3": 3}.items()
        for value in ((), (1.0,) * (n - 1), (1.0,) * (n + 1), (0.0,) * n, (-1.0,) * n, (NAN,) * n)
    ),
    *(("boosted", "ratio", value) for value in (0.0, -0.5, NAN, INFINITE)),
    *(("distill", "teacher", value) for value in ("first", "", "Last")),
    *(("distill", "share", value) for value in (-0.1, 1.1, NAN)),
    *(("distill", "temperature", value) for value in (0.0, -1.0, NAN, INFINITE)),
    ("consistency", "target", "next"),
    ("consistency", "weak", "sharp"),
    *(("consistency", "temperature", value) for value in (0.0, -1.0, NAN, INFINITE)),
    *(("consistency", "confidence", value) for value in (-0.1, 1.1, NAN)),
    *(("consistency", "strength", value) for value in (-0.1, NAN, INFINITE)),
    *(("consistency", "ramp", value) for value in (-0.1, 1.1, NAN)),
    *(("weighted", "p", value) for value in (0.0, -1.0, NAN, INFINITE)),
    *(("weighted", "eps", value) for value in (0.0, -1.0, NAN, INFINITE)),
    *(("weighted", "learning_rate", value) for value in (0.0, -1.0, NAN, INFINITE)),
    *(("weighted", "weight_decay", value) for value in (-1.0, NAN, INFINITE)),
    *(
        ("weighted", option, value)
        for option in ("hidden", "meta_interval")
        for value in (0, -1, 1.5, NAN, INFINITE)
    ),
    ("weighted", "centre", "per_window"),
    ("weighted", "pseudo_step", "head"),
]


@pytest.mark.parametrize(("regime", "option", "value"), OUT_OF_RANGE)
def test_options_out_of_range_are_refused(regime: str, option: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"`{option}` .*Received: "):
        make_regime(regime, **{option: value})


@EACH_REGIME
def test_every_option_has_a_case_out_of_range(regime: str) -> None:
    covered = {option for name, option, _ in OUT_OF_RANGE if name == regime}
    truths = {"anneal", "balance_classes", "swap"}
    assert {field.name for field in fields(REGIMES[regime])} - truths == covered


@EACH_REGIME
@pytest.mark.parametrize("option", ["label_smothing", "exit_weight", "gradient_equilibrum"])
def test_unknown_options_name_the_nearest(regime: str, option: str) -> None:
    nearest = {"label_smothing": "label_smoothing", "exit_weight": "exit_weights"}.get(
        option, "gradient_equilibrium"
    )
    with pytest.raises(InputError, match=rf"option of `?{regime}`.*Did you mean '{nearest}'\?"):
        make_regime(regime, **{option: 0.1})


@pytest.mark.parametrize(
    ("regime", "option", "nearest"),
    [
        ("boosted", "ration", "ratio"),
        ("distill", "temprature", "temperature"),
        ("consistency", "confidance", "confidence"),
        ("mixed", "share", "shares"),
        ("weighted", "meta_intervall", "meta_interval"),
    ],
)
def test_unknown_own_options_name_the_nearest(regime: str, option: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"Did you mean '{nearest}'"):
        make_regime(regime, **{option: 1.0})


def test_unknown_regime_names_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"`regime` must be one of: .*Received: 'consistent'\. Did you mean 'consistency'"
    ):
        make_regime("consistent")


@pytest.mark.parametrize("regime", sorted(set(REGIMES) - {"layerwise"}))
def test_number_of_exit_weights_is_checked_before_training(regime: str) -> None:
    with pytest.raises(
        InputError, match=r"`exit_weights` needs one value per exit \(3\). Received: \[1.0, 2.0\]"
    ):
        MultiExitModel(small_network(), make_regime(regime, exit_weights=(1.0, 2.0)))


def test_the_only_early_head_keeps_its_weight_among_all_exits() -> None:
    # Phase 3 of two exits is (1 / E) CE_1; phases for one exit alone count it as it is.
    logits, y = (
        tf.constant(np.random.default_rng(0).normal(size=(5, 1, 3)), tf.float32),
        tf.zeros(5, tf.int64),
    )
    phases = {phase.name: phase for phase in make_regime("1-2-3").phases(2)}
    losses = {}
    for name in ("backbone", "heads"):
        outputs = ExitOutputs(
            logits=logits,
            y=y,
            sample_weight=None,
            exits=phases[name].exits,
            n_exits=2,
            weighted=phases[name].weighted,
            step=tf.constant(0, tf.int64),
            progress=tf.constant(0.0),
            state=make_regime("1-2-3").make_state(2),
        )
        losses[name] = float(make_regime("1-2-3").loss(outputs))
    assert losses["heads"] == pytest.approx(losses["backbone"] / 2, rel=1e-6)


def test_layerwise_has_no_use_for_exit_weights() -> None:
    with pytest.raises(InputError, match="`exit_weights` must be left out"):
        make_regime("layerwise", exit_weights="linear")
