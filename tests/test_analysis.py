"""Each analysis against a case whose answer is known, and what each of them refuses."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_networks import TRAIN_REASON, cascaded_network, synthetic_windows, two_heads_residual_network
from hypothesis import given
from hypothesis import strategies as st

if any(find_spec(module) is None for module in ("tensorflow", "keras", "sklearn")):
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
from keras import layers as kl

from mexit_edge.analysis import (
    gradient_dominance,
    information_flow,
    ksg,
    loss_landscape,
    mode_connectivity,
    numerical_rank,
)
from mexit_edge.analysis.features import block_features, block_outputs
from mexit_edge.analysis.inputs import exit_weights_of, shown
from mexit_edge.analysis.landscape import filter_normalised
from mexit_edge.analysis.probes import entropy
from mexit_edge.analysis.rank import effective_rank_of, rank_of, singular_values
from mexit_edge.analysis.weight_space import structure_of
from mexit_edge.analysis.window_information import Pairs, principal
from mexit_edge.compress.fake_quant import FakeQuant
from mexit_edge.errors import InputError
from mexit_edge.models import build
from mexit_edge.regimes import Joint, Mixed, MultiExitModel
from mexit_edge.regimes.active_phase import ActivePhase
from mexit_edge.signals import Normalisation, Sensor, Windows

pytestmark = pytest.mark.train
N_CLASSES = 3
SHAPE = (2, 3)


def random_windows(n: int = 40, shape: tuple[int, int] = SHAPE, seed: int = 0) -> Windows:
    rng = np.random.default_rng(seed)
    return Windows.from_arrays(
        rng.standard_normal((n, *shape)), np.arange(n) % N_CLASSES, np.arange(n) % 4, classes=list("abc")
    )


def linear_network(*, shared: int | None = 4, seed: int = 0) -> Any:
    """Two exits that are linear in what they read: the output of one dense layer, or the window itself."""
    keras.utils.set_random_seed(seed)
    window = keras.Input(SHAPE, name="window")
    features = kl.Flatten()(window)
    if shared:
        features = kl.Dense(shared, use_bias=False, name="shared")(features)
    outputs = {
        name: kl.Dense(N_CLASSES, use_bias=False, name=name)(features) for name in ("exit_01", "exit_02")
    }
    return keras.Model(window, outputs)


def normalised_network(seed: int = 0) -> Any:
    keras.utils.set_random_seed(seed)
    window = keras.Input(SHAPE, name="window")
    features = kl.Dense(4, use_bias=False, name="shared")(kl.Flatten()(window))
    features = kl.Dropout(0.5)(kl.BatchNormalization(name="norm")(features))
    outputs = {name: kl.Dense(N_CLASSES, name=name)(features) for name in ("exit_01", "exit_02")}
    return keras.Model(window, outputs)


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def loss_of(logits: np.ndarray, y: np.ndarray) -> float:
    return float(-log_probabilities(logits)[np.arange(len(y)), y].mean())


# --- Gradients ----------------------------------------------------------------------------------------------


def gradients_by_hand(network: Any, x: np.ndarray, y: np.ndarray, weights: tuple[float, ...]) -> np.ndarray:
    """Return (E, size) gradients of w_k CE_k for the shared kernel: mean of w_k x (p - 1_y) V_k'."""
    kernel, *heads = (np.asarray(one, float) for one in network.get_weights())
    flat, found = x.reshape(len(x), -1).astype(float), []
    for head, weight in zip(heads, weights, strict=True):
        wrong = np.exp(log_probabilities(flat @ kernel @ head)) - np.eye(N_CLASSES)[y]
        found.append((weight * flat.T @ (wrong @ head.T) / len(x)).ravel())
    return np.asarray(found)


def figures_by_hand(gradients: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    squares, whole = (gradients**2).sum(axis=1), gradients.sum(axis=0)
    cosine = gradients[0] @ gradients[1] / np.sqrt(squares.prod())
    return squares / squares.sum(), gradients @ whole / (whole @ whole), float(cosine)


def test_gradients_of_a_linear_model_are_those_by_hand() -> None:
    network, windows = linear_network(), random_windows(40)
    model = MultiExitModel(
        network, Joint(exit_weights=(1.0, 3.0)), normalisation=Normalisation((0.5, 0, -1), (2, 1, 0.5))
    )
    found = gradient_dominance(model, windows, batch_size=40, seed=5)
    # 40 windows make 20 batches of two, in the order of the draw.
    assert (found.n_batches, found.batch_size) == (20, 2)
    x = (windows.x - [0.5, 0, -1]) / [2, 1, 0.5]
    each = [
        figures_by_hand(gradients_by_hand(network, x[batch], windows.y[batch], (0.25, 0.75)))
        for batch in np.random.default_rng(5).permutation(40).reshape(20, 2)
    ]
    assert found.groups == ("block_01", "head_01", "head_02")
    np.testing.assert_allclose(found.exit_weights, [0.25, 0.75], rtol=1e-6)
    for place, name in enumerate(("share", "projection")):
        values = np.asarray([one[place] for one in each])
        np.testing.assert_allclose(getattr(found, name)[0], values.mean(axis=0), rtol=1e-3)
        np.testing.assert_allclose(
            getattr(found, f"{name}_deviation")[0], values.std(axis=0, ddof=1), rtol=1e-3
        )
    cosines = [one[2] for one in each]
    assert found.conflict[0, 0, 1] == pytest.approx(np.mean(cosines), abs=1e-4)
    assert found.conflict_deviation[0, 0, 1] == pytest.approx(np.std(cosines, ddof=1), abs=1e-4)
    np.testing.assert_allclose(found.conflict[0], found.conflict[0].T)
    np.testing.assert_allclose(found.share.sum(axis=1), 1)
    np.testing.assert_allclose(found.projection.sum(axis=1), 1, rtol=1e-5)
    # A head has the gradient of its own exit alone, and no angle to one that is not there.
    np.testing.assert_array_equal(found.share[1:], [[1, 0], [0, 1]])
    assert np.isnan(found.conflict[1, 0, 1])


def test_exit_weights_are_those_where_the_training_stands(tmp_path: Path) -> None:
    model = MultiExitModel(linear_network(), Joint(exit_weights="sdn"))
    model.n_steps.assign(100)
    model.step.assign(50)
    model.save(tmp_path / "halfway.keras")
    halfway = keras.saving.load_model(tmp_path / "halfway.keras", compile=False)
    # Shallow-Deep Networks: min(tau, 0.01 + t tau / T) with tau = 0.15 for the one early exit.
    np.testing.assert_allclose(exit_weights_of(halfway), [0.01 + 0.5 * 0.15, 1], rtol=1e-6)
    np.testing.assert_array_equal(exit_weights_of(linear_network()), [0.5, 0.5])
    # In the middle of a phase that trains one exit alone the weights are those of all.
    mixed = MultiExitModel(linear_network(), Mixed(exit_weights=(1.0, 3.0)))
    mixed.active = ActivePhase(mixed.network, mixed.anatomy, mixed.regime.phases(2)[0])
    assert mixed.active.exits == ("exit_02",)
    np.testing.assert_allclose(exit_weights_of(mixed), [0.25, 0.75])


def test_where_no_gradient_is_there_is_no_figure() -> None:
    model = MultiExitModel(linear_network(), Joint(exit_weights=(1.0, 0.0)))
    rows = gradient_dominance(model, random_windows(4), batch_size=4).rows()
    value = {(row["group"], row["figure"], row["exit"]): row["value"] for row in rows}
    assert value["block_01", "share", "exit_01"] == value["block_01", "projection", "exit_01"] == 1
    assert value["block_01", "cosine", "exit_01"] is None
    assert value["head_02", "share", "exit_02"] is None
    assert value["head_02", "projection", "exit_02"] is None
    # Four windows are four batches, none of which defines what is not there.
    assert {row["n_batches"] for row in rows if row["value"] is None} == {0}
    assert {row["n_batches"] for row in rows if row["value"] is not None} == {4}
    one = gradient_dominance(model, random_windows(1)).rows()
    # Of one batch there is no deviation.
    assert {(row["n_batches"], row["sd_over_batches"]) for row in one if row["value"] is not None} == {
        (1, None)
    }


def test_gradients_leave_the_network_as_it_is() -> None:
    network = normalised_network()
    before = network.get_weights()
    first = gradient_dominance(network, random_windows(), batch_size=2)
    for one, other in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # Dropout does not draw: the figures come again.
    np.testing.assert_array_equal(
        first.share, gradient_dominance(network, random_windows(), batch_size=2).share
    )


def test_what_is_frozen_counts_as_if_it_learned() -> None:
    network, windows = normalised_network(), random_windows()
    free = gradient_dominance(network, windows, batch_size=2)
    # One by one: the model itself still says that it learns.
    for layer in network.layers:
        layer.trainable = False
    frozen = gradient_dominance(network, windows, batch_size=2)
    assert frozen.groups == free.groups == ("block_01", "head_01", "head_02")
    np.testing.assert_array_equal(frozen.share, free.share)
    assert not network.trainable_variables


# --- Connectivity -------------------------------------------------------------------------------------------


def test_between_equal_networks_there_is_no_barrier() -> None:
    network, windows = normalised_network(), random_windows()
    before = network.get_weights()
    found = mode_connectivity([network, network], windows, n_points=5)
    (line,) = found.lines
    assert line.barrier == 0
    assert (line.exit_barriers == 0).all()
    assert line.distance == 0
    assert np.ptp(line.loss, axis=0).tolist() == [0, 0]
    assert (found.n_windows, found.n_statistics, found.plane) == (40, 40, None)
    for one, other in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_where_the_loss_is_convex_there_is_no_barrier() -> None:
    windows = random_windows()
    ends = [linear_network(shared=None, seed=seed) for seed in (1, 2)]
    (line,) = mode_connectivity(ends, windows, n_points=9).lines
    # The cross-entropy of a linear model is convex in its weights; only the ends touch the chord.
    assert line.barrier == pytest.approx(0, abs=1e-9)
    assert (line.total[1:-1] < line.total[0] + line.a[1:-1] * (line.total[-1] - line.total[0])).all()
    weights = [np.asarray(one, float) for end in ends for one in end.get_weights()]
    for k in (0, 1):
        middle = (weights[k] + weights[2 + k]) / 2
        expected = loss_of(windows.x.reshape(40, -1) @ middle, windows.y)
        assert line.loss[4, k] == pytest.approx(expected, rel=1e-5)
        predicted = (windows.x.reshape(40, -1) @ middle).argmax(axis=1)
        assert line.accuracy[4, k] == pytest.approx(np.mean(predicted == windows.y))


def test_the_barrier_between_a_network_and_its_mirror_image() -> None:
    one, other = linear_network(), linear_network()
    kernel, head, _ = one.get_weights()
    one.set_weights([20 * kernel, head, 2 * head])
    x = random_windows().x
    # Both exits are right and sure, and the surer, the larger their weights.
    y = np.asarray(x.reshape(40, -1) @ kernel @ head).argmax(axis=1)
    windows = Windows.from_arrays(x, y, np.arange(40) % 4, classes=list("abc"))
    # With both layers negated the network is the same function; halfway all weights are 0.
    other.set_weights([-weight for weight in one.get_weights()])
    (line,) = mode_connectivity([one, other], windows, n_points=5).lines
    losses = np.asarray(
        [loss_of(x.reshape(40, -1) @ (20.0 * kernel) @ own, y) for own in one.get_weights()[1:]]
    )
    assert losses.max() < 0.3
    np.testing.assert_allclose(line.loss[2], np.log(N_CLASSES), rtol=1e-6)
    np.testing.assert_allclose(line.loss[[0, -1]], [losses, losses], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(line.exit_barriers, np.log(N_CLASSES) - losses, rtol=1e-5)
    assert line.barrier == pytest.approx(np.log(N_CLASSES) - losses.mean(), rel=1e-5)
    np.testing.assert_allclose(line.chord, losses.mean(), rtol=1e-4, atol=1e-6)
    assert line.distance == pytest.approx(
        2 * np.sqrt(sum((weight**2).sum() for weight in one.get_weights())), rel=1e-5
    )


def test_a_recurrent_layer_draws_nothing_between_networks() -> None:
    keras.utils.set_random_seed(0)
    window = keras.Input((4, 3), name="window")
    features = kl.Bidirectional(kl.GRU(2, dropout=0.5, recurrent_dropout=0.5, unroll=True))(window)
    features = kl.BatchNormalization()(kl.GaussianNoise(1.0)(features))
    network = keras.Model(window, {"exit_01": kl.Dense(N_CLASSES, name="exit_01")(features)})
    (line,) = mode_connectivity([network, network], random_windows(shape=(4, 3)), n_points=3).lines
    assert np.ptp(line.loss, axis=0).tolist() == [0]
    assert network.layers[1].forward_layer.dropout == 0.5


def test_statistics_of_batch_normalisation_are_taken_anew_from_the_training_windows() -> None:
    network, windows, training = normalised_network(), random_windows(), random_windows(90, seed=7)
    network.get_layer("norm").moving_mean.assign([100.0] * 4)
    network.get_layer("norm").trainable = False
    found = mode_connectivity([network, network], windows, statistics=training, n_points=3)
    kernel = network.get_layer("shared").get_weights()[0]
    gamma, beta, *_ = network.get_layer("norm").get_weights()
    hidden = training.x.reshape(90, -1) @ kernel
    features = windows.x.reshape(40, -1) @ kernel
    features = gamma * (features - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-3) + beta
    for k, name in enumerate(("exit_01", "exit_02")):
        head, bias = network.get_layer(name).get_weights()
        assert found.lines[0].loss[0, k] == pytest.approx(
            loss_of(features @ head + bias, windows.y), rel=1e-4
        )
    assert found.n_statistics == 90


def test_a_point_where_the_loss_overflows_leaves_the_others_alone() -> None:
    far, near, windows = normalised_network(), normalised_network(), random_windows()
    far.get_layer("shared").kernel.assign(np.full((6, 4), 3e38))
    found = mode_connectivity([far, near], windows, n_points=3)
    (alone,) = mode_connectivity([near, near], windows, n_points=3).lines
    (line,) = found.lines
    assert np.isnan(line.loss[:2]).all()
    np.testing.assert_array_equal(line.loss[2], alone.loss[2])
    # JSON knows no NaN.
    nats = [row["loss_nats"] for row in found.rows()]
    assert nats == [None] * 6 + [pytest.approx(one) for one in (*line.loss[2], line.total[2])] + [None] * 3
    rows = loss_landscape(linear_network(), windows, n_points=3, reach=1e30).rows()
    assert {row["loss_nats"] is None for row in rows if row["first"] and row["second"]} == {True}


def ranged_network(n_batches: float = 0, seed: int = 0) -> Any:
    keras.utils.set_random_seed(seed)
    window = keras.Input(SHAPE, name="window")
    features = FakeQuant(low=-1, high=1, name="range")(kl.Dense(4, name="shared")(kl.Flatten()(window)))
    network = keras.Model(window, {"exit_01": kl.Dense(N_CLASSES, name="exit_01")(features)})
    network.get_layer("range").n_batches.assign(n_batches)
    return network


def test_the_way_is_that_of_the_weights_that_learn() -> None:
    ends, windows = [ranged_network(500, seed) for seed in (1, 2)], random_windows()
    ends[0].get_layer("shared").trainable = False
    (line,) = mode_connectivity(ends, windows, n_points=3).lines
    kernels = [[np.asarray(end.get_layer(name).kernel) for name in ("shared", "exit_01")] for end in ends]
    squares = sum(((one - other) ** 2).sum() for one, other in zip(*kernels, strict=True))
    assert line.distance == pytest.approx(squares**0.5)
    # Between other ranges there is nothing halfway: 500 batches are no distance.
    with pytest.raises(InputError, match=r"number 2 differs from number 1 in range/n_batches"):
        mode_connectivity([ranged_network(), ranged_network(500)], windows)


def test_the_plane_goes_through_three_networks() -> None:
    ends, windows = [linear_network(seed=seed) for seed in (1, 2, 3)], random_windows()
    found = mode_connectivity(ends, windows, names=["p", "q", "r"], n_points=3, n_plane_points=3)
    weights = [np.concatenate([one.ravel() for one in end.get_weights()]).astype(float) for end in ends]
    plane = found.plane
    assert plane is not None
    assert [line.ends for line in found.lines] == [("p", "q"), ("p", "r"), ("q", "r")]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        apart = np.linalg.norm(weights[i] - weights[j])
        assert np.linalg.norm(plane.places[i] - plane.places[j]) == pytest.approx(apart)
    first = (weights[1] - weights[0]) / plane.places[1, 0]
    second = (weights[2] - weights[0] - plane.places[2, 0] * first) / plane.places[2, 1]
    point = weights[0] + plane.u[2] * first + plane.v[0] * second
    kernel, head = point[:24].reshape(6, 4), point[24:36].reshape(4, 3)
    assert plane.loss[0, 2, 0] == pytest.approx(
        loss_of(windows.x.reshape(40, -1) @ kernel @ head, windows.y), rel=1e-4
    )
    rows = found.rows()
    assert {row["what"] for row in rows} == {"line", "plane", "barrier"}
    assert len(rows) == 3 * (3 * 3) + 3 * 9 + 3 * 3


def test_structure_does_not_depend_on_names() -> None:
    assert structure_of(two_heads_residual_network()) == structure_of(two_heads_residual_network())
    assert structure_of(linear_network()) != structure_of(linear_network(shared=5))
    # An option may be spelled like some layer's name, and layers are told apart in a nested model too.
    assert structure_of(named_network("elu")) == structure_of(named_network("other"))
    assert structure_of(named_network("elu")) != structure_of(named_network("elu", activation="relu"))
    assert structure_of(named_network("elu")) != structure_of(named_network("elu", crossed=True))


def named_network(name: str, *, activation: str = "elu", crossed: bool = False) -> Any:
    inside = keras.Input(SHAPE)
    one, other = kl.Dense(2, activation=activation, name=name)(inside), kl.Dense(2)(inside)
    nested = keras.Model(inside, kl.Subtract()([other, one] if crossed else [one, other]))
    window = keras.Input(SHAPE, name="window")
    features = kl.Flatten()(nested(window))
    return keras.Model(window, {"exit_01": kl.Dense(N_CLASSES, name="exit_01")(features)})


# --- Landscape ----------------------------------------------------------------------------------------------


def test_the_landscape_is_centred_on_the_network() -> None:
    network, windows = normalised_network(), random_windows()
    found = loss_landscape(network, windows, n_points=3, seed=4)
    logits = network(windows.x, training=False)
    expected = [loss_of(np.asarray(logits[name]), windows.y) for name in found.exits]
    np.testing.assert_allclose(found.loss[1, 1], expected, rtol=1e-5)
    np.testing.assert_allclose(found.total, found.loss.mean(axis=-1))
    assert len(found.rows()) == 9 * 3


def test_a_point_of_the_landscape_is_the_loss_of_filters_moved_by_hand() -> None:
    keras.utils.set_random_seed(2)
    window = keras.Input((4, 3), name="window")
    features = kl.DepthwiseConv1D(2, depth_multiplier=2, bias_initializer="ones", name="depthwise")(window)
    features = kl.Flatten()(kl.BatchNormalization(name="norm")(features))
    network = keras.Model(window, {"exit_01": kl.Dense(N_CLASSES, name="exit_01")(features)})
    windows = random_windows(shape=(4, 3))
    found = loss_landscape(network, windows, n_points=3, reach=0.5, seed=4)
    rng = np.random.default_rng(4)
    learned = [weight for weight in network.weights if "moving" not in weight.path]
    centre = [np.asarray(weight) for weight in learned]
    for step in (0.5, -0.5):
        for weight, value in zip(learned, centre, strict=True):
            drawn = rng.standard_normal(value.shape)
            if not weight.path.endswith("kernel"):
                continue
            # Per channel and multiplier of the depthwise kernel, per output of the dense one.
            for place in np.ndindex(*value.shape[1:]):
                of_filter = drawn[:, *place]
                drawn[:, *place] = of_filter / np.linalg.norm(of_filter) * np.linalg.norm(value[:, *place])
            weight.assign(np.asarray(weight) + step * drawn)
    logits = np.asarray(network(windows.x, training=False)["exit_01"])
    # First direction to the right, second one up.
    assert found.loss[0, 2, 0] == pytest.approx(loss_of(logits, windows.y), rel=1e-5)


@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    depthwise=st.booleans(),
    seed=st.integers(0, 99),
)
def test_directions_have_the_norms_of_the_filters(shape: list[int], depthwise: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight, direction = rng.standard_normal(shape), rng.standard_normal(shape)
    found = filter_normalised(direction, weight, depthwise=depthwise)
    axes = tuple(range(len(shape) - (2 if depthwise else 1)))
    np.testing.assert_allclose((found**2).sum(axis=axes), (weight**2).sum(axis=axes))
    np.testing.assert_array_equal(np.sign(found), np.sign(direction))
    np.testing.assert_array_equal(filter_normalised(direction[0, 0].ravel(), weight[0, 0].ravel()), 0)


# --- Rank ---------------------------------------------------------------------------------------------------


@given(
    rank=st.integers(1, 5),
    n=st.integers(12, 20),
    m=st.integers(6, 30),
    seed=st.integers(0, 99),
    shift=st.floats(-9, 9),
)
def test_rank_of_a_constructed_matrix(rank: int, n: int, m: int, seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    # Orthonormal, and at a right angle to the ones, so that centring takes nothing away.
    left = np.linalg.qr(np.column_stack([np.ones(n), rng.standard_normal((n, rank + 1))]))[0][:, 1:]
    right = np.linalg.qr(rng.standard_normal((m, rank + 1)))[0]
    # One value below the threshold, the others above.
    sizes = np.asarray([10.0, *np.geomspace(5, 0.02, rank - 1), 0.005])
    matrix = left * sizes @ right.T + shift
    found = singular_values(matrix)
    assert rank_of(found) == rank
    np.testing.assert_allclose(found[: rank + 1], sizes, rtol=1e-4)
    assert effective_rank_of(np.ones(rank)) == pytest.approx(rank)


def test_rank_passes_through_a_network() -> None:
    network, windows = linear_network(), random_windows(40)
    rng = np.random.default_rng(1)
    network.get_layer("shared").set_weights([rng.standard_normal((6, 2)) @ rng.standard_normal((2, 4))])
    found = numerical_rank(network, windows)
    assert found.rank.tolist() == [2, 2]
    assert found.share.tolist() == [0.5, 0.5]
    assert found.rows()[0]["all_features"] == 4
    capped = numerical_rank(network, windows, max_features=1, n_windows=30)
    assert (capped.rank.tolist(), capped.n_features.tolist(), capped.n_windows) == ([1, 1], [1, 1], 30)
    assert capped.all_features.tolist() == [4, 4]
    # Nothing varies behind weights of 0.
    network.get_layer("shared").set_weights([np.zeros((6, 4))])
    dead = numerical_rank(network, windows)
    assert (dead.rank.tolist(), dead.share.tolist(), dead.largest.tolist()) == ([0, 0], [0, 0], [4, 4])


def test_an_exit_reads_the_output_of_its_block() -> None:
    windows = synthetic_windows(8)
    network = build("cnn", windows.sensor, windows.n_classes, preset="tiny")
    read = block_outputs(network)
    assert [len(tensors) for tensors in read.values()] == [1, 1, 1]
    assert all(len(tensors[0].shape) == 3 for tensors in read.values())
    last = read["exit_03"][0]._keras_history.operation
    assert isinstance(last, kl.ReLU)
    # The logits before, which a cascaded head reads too, are no output of its block.
    cascaded = block_outputs(cascaded_network())
    assert [tuple(one.shape[1:]) for one in cascaded["exit_02"]] == [(32, 8)]
    features, sizes = block_features(shown(network, windows))
    expected = np.asarray(keras.Model(network.inputs[0], read["exit_02"][0])(windows.x)).reshape(8, -1)
    np.testing.assert_allclose(features["exit_02"], expected, rtol=1e-5)
    assert sizes["exit_02"] == expected.shape[1]


# --- Information --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.0, 1.0, 10.0])
def test_information_of_a_gaussian_channel(ratio: float) -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(4):
        x = rng.standard_normal((800, 1))
        found.append(ksg(x, np.sqrt(ratio) * x + rng.standard_normal((800, 1))))
    assert np.mean(found) == pytest.approx(0.5 * np.log(1 + ratio), abs=0.05)


def test_neither_units_nor_ties_change_the_information() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1000, 2))
    z = x + 0.3 * rng.standard_normal((1000, 2))
    found = ksg(x, z)
    # In two dimensions it falls short by some 5 %.
    assert found == pytest.approx(np.log(1 + 1 / 0.09), abs=0.25)
    assert ksg(1e-6 * x + 3, [1e3, 1e-3] * z) == pytest.approx(found, abs=1e-3)
    said, other = rng.integers(0, 2, (2, 1000, 1))
    assert ksg(said, said) == pytest.approx(np.log(2), abs=0.03)
    assert ksg(said, other) == pytest.approx(0, abs=0.05)
    assert ksg(np.full((200, 1), 0.1), np.full((200, 1), 0.1)) == pytest.approx(0, abs=0.2)


def channel(n: int, flip: float, seed: int) -> Windows:
    """Windows that say which of two classes, wrong for a share of every subject's; and noise beside it."""
    rng, index = np.random.default_rng(seed), np.arange(n)
    y = index % 2
    wrong = (index // 10) % round(1 / flip) == 0 if flip else np.zeros(n, bool)
    said = np.where(wrong, 1 - y, y)
    x = np.stack([2.0 * said - 1, rng.standard_normal(n)], axis=1)[:, None, :]
    return Windows.from_arrays(x, y, 10 * seed + index % 5, Sensor.plain(2, 1), ["no", "yes"])


def transparent_network(channels: int = 2) -> Any:
    window = keras.Input((1, channels), name="window")
    features = kl.Flatten()(window)
    return keras.Model(window, {name: kl.Dense(2, name=name)(features) for name in ("exit_01", "exit_02")})


@pytest.mark.parametrize("flip", [0.0, 0.1])
def test_probes_find_the_information_of_a_binary_channel(flip: float) -> None:
    found = information_flow(
        transparent_network(), channel(600, flip, 1), channel(600, flip, 2), n_pairs=50, components=2
    )
    known = [one for one in (flip, 1 - flip) if one]
    truth = np.log(2) + sum(one * np.log(one) for one in known)
    assert found.label_entropy == pytest.approx(np.log(2))
    assert found.judged_subjects == tuple(range(20, 25))
    for bound in (*found.linear, *found.mlp):
        assert bound.value <= found.label_entropy
        assert bound.value == pytest.approx(truth, abs=0.03)
        assert bound.interval is not None
        assert bound.interval.low - 0.02 <= truth <= bound.interval.high + 0.02
        assert bound.accuracy == pytest.approx(1 - flip, abs=0.05)
    assert len(found.rows()) == 2 * 6


def test_information_of_the_window_is_that_of_the_noise_put_on() -> None:
    rng = np.random.default_rng(3)
    parts = [
        Windows.from_arrays(rng.standard_normal((600, 1, 1)), np.arange(600) % 2, np.full(600, whom))
        for whom in (1, 2)
    ]
    found = information_flow(transparent_network(1), *parts, noise=0.5, components=1, n_pairs=550)
    # Signal 1, noise 1/4: both exits read the window itself.
    for estimate, nothing in zip(found.of_window, found.shuffled, strict=True):
        assert estimate.mean == pytest.approx(0.5 * np.log(1 + 4), abs=0.06)
        assert nothing.mean == pytest.approx(0, abs=0.06)
        assert 0 < estimate.deviation < 0.1
    # The channel beside it is of the same kind, and what it misses is the stated error.
    for estimate, beside in zip(found.of_window, found.channel, strict=True):
        assert beside.known == pytest.approx(0.5 * np.log(1 + 4), rel=1e-6)
        assert beside.error == pytest.approx(beside.found.mean - beside.known)
        assert abs(estimate.mean - beside.known) <= abs(beside.error) + 3 * estimate.deviation
    # What is known of the channel was not drawn.
    (known, _) = (row for row in found.rows() if row["estimate"] == "Gaussian channel, known")
    assert known["nats"] == found.channel[0].known
    assert known["sd_over_draws"] is known["error_nats"] is None
    # Nobody can be drawn from one subject.
    assert all(bound.interval is None for bound in found.linear)


@pytest.mark.parametrize(("components", "noise", "most"), [(2, 0.3, 0.25), (8, 0.1, 15)])
def test_the_stated_error_is_that_of_a_gaussian_window(components: int, noise: float, most: float) -> None:
    rng = np.random.default_rng(2)
    # Of unequal variances, so that the channel has to have the same ones.
    x = rng.standard_normal((1000, components)) * np.linspace(1, 2, components)
    pairs = Pairs(principal(x, components, 0), noise, 800, seed=0)
    estimate, beside = pairs.repeated(pairs.x), pairs.channel(pairs.x)
    shares = x.var(axis=0) / x.var(axis=0).mean()
    assert beside.known == pytest.approx(0.5 * np.log(1 + shares / noise**2).sum(), rel=0.02)
    # What is far off is said to be: corrected by its error the estimate is the truth.
    assert -most < beside.error < 0
    assert estimate.mean - beside.error == pytest.approx(beside.known, abs=0.15)
    assert (beside.error < -10) == (components == 8)


def test_entropy_of_shares() -> None:
    assert entropy(np.asarray([0, 0, 2, 2])) == pytest.approx(np.log(2))
    assert entropy(np.asarray([1, 1])) == 0


# --- Bad input ----------------------------------------------------------------------------------------------


def diverged() -> Any:
    network = linear_network()
    network.get_layer("shared").kernel.assign(np.full((6, 4), np.nan))
    return network


def unlabelled() -> Windows:
    return Windows.from_arrays(np.zeros((4, *SHAPE)), [0, 1, -1, 2])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda one, w: gradient_dominance(one, w, n_batches=19), "`n_batches` must be .* at least 20"),
        (lambda one, w: gradient_dominance(one, unlabelled()), "`windows` must hold labelled"),
        (lambda one, w: gradient_dominance(one, random_windows(shape=(5, 3))), "`x` of `windows` must be"),
        (lambda one, w: gradient_dominance(one, w.take(np.arange(0))), "`windows` must hold at least one"),
        (lambda one, w: gradient_dominance(keras.Sequential([keras.Input((2,))]), w), "`model` must be"),
        (lambda one, w: mode_connectivity([one], w), "`models` must be two networks.*Received: 1"),
        (lambda one, w: mode_connectivity([one, linear_network(shared=5)], w), "`models` must have the same"),
        (lambda one, w: mode_connectivity([one, one, one], w), "`models` must span a plane"),
        (lambda one, w: mode_connectivity([one, one], w, n_points=2), "`n_points` must be .* at least 3"),
        (lambda one, w: mode_connectivity([one, one], w, names=["p"]), "`names` needs one per network"),
        (lambda one, w: loss_landscape(one, w, n_points=4), "`n_points` must be odd. Received: 4. Use 5"),
        (lambda one, w: loss_landscape(one, w, reach=0), "`reach` must be positive"),
        (lambda one, w: numerical_rank(one, w, n_windows=0), "`n_windows` must be .* at least 1"),
        (lambda one, w: numerical_rank(one, w, max_features=0.5), "`max_features` must be a whole"),
        (lambda one, w: information_flow(one, w, w), "`held_out` must hold windows of other subjects"),
        (lambda one, w: information_flow(one, w.take([0, 4, 8]), w.take([1])), "`windows` must hold more"),
        (lambda one, w: information_flow(one, w.take([0] * 5), w.take([1])), "`windows` must hold two cl"),
        (lambda one, w: information_flow(one, w, w, noise=0), "`noise` must be positive"),
        (lambda one, w: information_flow(one, w, w, components=17), "`components` must be at most 16"),
        (lambda one, w: ksg(np.zeros((4, 1)), np.zeros((4, 1))), "`neighbours` must be below"),
        (lambda one, w: ksg(np.zeros((9, 1)), np.zeros((9, 1)), 0), "`neighbours` must be a whole"),
        (lambda one, w: ksg(np.zeros((9, 1)), np.zeros((8, 1))), "`x` and `z` must hold the same points"),
        (lambda one, w: ksg(np.arange(9.0), np.arange(9.0)), "`x` must be finite numbers .n, dimensions."),
        (lambda one, w: ksg(np.zeros((9, 1)), np.full((9, 1), np.nan)), "`z` must be finite numbers"),
        (lambda one, w: numerical_rank(diverged(), w), "`model` must have finite weights.*NaN.*shared"),
        (lambda one, w: mode_connectivity([one, diverged()], w), "`models` must have finite weights"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        call(linear_network(), random_windows())
    assert "Received: " in str(refused.value)


def test_networks_of_different_normalisation_are_not_connected() -> None:
    models = [
        MultiExitModel(linear_network(), normalisation=Normalisation((0.0,) * 3, (scale,) * 3))
        for scale in (1.0, 2.0)
    ]
    with pytest.raises(InputError, match=r"`models` must normalise windows alike.*number 2"):
        mode_connectivity(models, random_windows())
