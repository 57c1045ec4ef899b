"""`MultiExitModel` under its regimes, in plain Keras `fit`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from fixtures_networks import (
    N_CLASSES,
    SENSOR,
    TRAIN_REASON,
    cascaded_network,
    dscnn_network,
    leaving_out_the_count,
    random_samples,
    synthetic_windows,
    user_model,
)

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
import tensorflow as tf
from keras import layers

from mexit_edge.errors import InputError
from mexit_edge.regimes import (
    REGIMES,
    Joint,
    MultiExitEarlyStopping,
    MultiExitModel,
    adamw_cosine,
    make_regime,
)
from mexit_edge.regimes.batches import TrainingBatches
from mexit_edge.regimes.sources import Source, _perturbations, make_source
from mexit_edge.signals import ChannelScale, Normalisation, Windows, inertial_perturbations

pytestmark = pytest.mark.train
EXITS = ("exit_01", "exit_02")
EACH_REGIME = pytest.mark.parametrize("regime", list(REGIMES))
IDENTITY = Normalisation.identity(3)


@pytest.fixture(scope="module", autouse=True)
def _uncounted() -> Iterator[None]:
    with leaving_out_the_count():
        yield


def pooled_network(dropout: float = 0.0) -> keras.Model:
    """Two exits, no batch normalisation, so that a step is easy to compute by hand."""
    window = keras.Input(SENSOR.shape, name="window")
    features = layers.Conv1D(6, 5, strides=2, activation="relu", name="one")(window)
    outputs = {}
    for number in (1, 2):
        pooled = layers.Dropout(dropout)(layers.GlobalAveragePooling1D()(features))
        outputs[f"exit_{number:02d}"] = layers.Dense(N_CLASSES, name=f"exit_{number:02d}")(pooled)
        features = layers.Conv1D(6, 3, activation="relu", name=f"more_{number}")(features)
    return keras.Model(window, outputs)


def compiled(
    regime: object = "joint", *, seed: int = 0, rate: float = 0.05, graph: bool = False, **options: object
) -> MultiExitModel:
    """Step by step in Python, since a few steps cost less than a graph."""
    keras.utils.set_random_seed(7)
    model = MultiExitModel(pooled_network(), regime, seed=seed, **options)
    model.compile(optimizer=keras.optimizers.SGD(rate), run_eagerly=not graph)
    return model


def cross_entropies(model: MultiExitModel, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, E) in NumPy, float64."""
    columns = []
    for exit_ in model.exits:
        logits = np.asarray(model.network(x)[exit_], np.float64)
        log_sum = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
        columns.append(log_sum - logits[np.arange(len(y)), y])
    return np.stack(columns, axis=1)


def source_of(
    model: MultiExitModel, windows: Windows, class_weight: object = None, sample_weight: object = None
) -> Source:
    return make_source(model, windows, None, 16, class_weight, sample_weight, None)


def weights_of(model: MultiExitModel) -> np.ndarray:
    return np.concatenate([np.asarray(weight).ravel() for weight in model.network.weights])


# --- Losses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exit_weights", ["uniform", (1.0, 3.0), (0.0, 2.0)])
@pytest.mark.parametrize("weighted", [False, True])
def test_joint_loss_equals_numpy(exit_weights: tuple[float, ...] | str, weighted: bool) -> None:
    windows = synthetic_windows(24)
    model = compiled(Joint(exit_weights=exit_weights))
    per_exit = cross_entropies(model, windows.x, windows.y)
    given = (1.0, 1.0) if exit_weights == "uniform" else exit_weights
    shares = np.asarray(given) / sum(given)
    sample_weight = np.linspace(0, 2, 24, dtype=np.float32) if weighted else np.ones(24, np.float32)
    # Keras' way of weighting: the weighted sum over the batch size.
    expected = np.mean((per_exit @ shares) * sample_weight)
    got = model.compute_loss(
        y=windows.y, y_pred=model.network(windows.x), sample_weight=sample_weight if weighted else None
    )
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_joint_step_equals_gradient_descent_on_that_loss() -> None:
    windows = synthetic_windows(16)
    model = compiled(Joint(exit_weights=(1.0, 3.0)), rate=0.1, normalisation=IDENTITY, perturbations=())
    with tf.GradientTape() as tape:
        outputs = model.network(windows.x, training=True)
        loss = sum(
            share
            * tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=windows.y, logits=outputs[exit_])
            )
            for share, exit_ in zip((0.25, 0.75), EXITS, strict=True)
        )
    gradients = tape.gradient(loss, [weight.value for weight in model.network.trainable_variables])
    expected = np.concatenate(
        [
            (np.asarray(weight) - 0.1 * (0 if gradient is None else np.asarray(gradient))).ravel()
            for weight, gradient in zip(model.network.trainable_variables, gradients, strict=True)
        ]
    )
    model.fit(windows, batch_size=16, verbose=0)
    np.testing.assert_allclose(weights_of(model), expected, atol=1e-6)


def test_class_weight_equals_the_same_sample_weight() -> None:
    windows = synthetic_windows(48)
    by_class = {0: 0.2, 1: 3.0, 3: 0.0}
    per_window = np.asarray([by_class.get(int(label), 1.0) for label in windows.y], np.float32)
    results = []
    for data in ("windows", "arrays"):
        for options in ({"class_weight": by_class}, {"sample_weight": per_window}):
            model = compiled(normalisation=IDENTITY, perturbations=())
            if data == "windows":
                model.fit(windows, batch_size=48, epochs=2, verbose=0, **options)
            else:
                model.fit(windows.x, windows.y, batch_size=48, epochs=2, verbose=0, **options)
            results.append(weights_of(model))
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=1e-6)
    plain = compiled(normalisation=IDENTITY, perturbations=())
    plain.fit(windows, batch_size=48, epochs=2, verbose=0)
    assert np.abs(weights_of(plain) - results[0]).max() > 1e-4


def test_class_and_sample_weight_multiply() -> None:
    windows = synthetic_windows(16)
    weight = np.linspace(0.5, 2, 16, dtype=np.float32)
    model = compiled(normalisation=IDENTITY, perturbations=())
    batches = source_of(model, windows, class_weight={1: 3.0}, sample_weight=weight).data["x"]
    np.testing.assert_allclose(batches.sample_weight, weight * np.where(windows.y == 1, 3.0, 1.0))


def test_regularisers_count() -> None:
    window = keras.Input(SENSOR.shape)
    features = layers.Flatten()(window)
    head = layers.Dense(N_CLASSES, name="exit_01", kernel_regularizer=keras.regularizers.L2(0.1))
    model = MultiExitModel(keras.Model(window, {"exit_01": head(features)}))
    windows = synthetic_windows(8)
    got = float(model.compute_loss(y=windows.y, y_pred=model(windows.x)))
    plain = cross_entropies(model, windows.x, windows.y).mean()
    assert got == pytest.approx(plain + 0.1 * float((np.asarray(head.kernel) ** 2).sum()), rel=1e-5)


@pytest.mark.parametrize("weights", [(-1.0, 2.0), (0.0, 0.0), (1.0, float("nan")), (float("inf"), 1.0)])
def test_exit_weights_are_checked(weights: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="`exit_weights` must be finite, >= 0, with a positive sum"):
        Joint(exit_weights=weights)
    with pytest.raises(InputError, match=r"one value per exit \(2\). Received: \[1.0\]"):
        compiled(Joint(exit_weights=(1.0,))).fit(synthetic_windows(8), verbose=0)


# --- Every regime -------------------------------------------------------------------------------------------


@EACH_REGIME
def test_training_learns(regime: str) -> None:
    train, other = synthetic_windows(96), synthetic_windows(60, seed=5)
    keras.utils.set_random_seed(3)
    model = MultiExitModel(pooled_network(), regime, perturbations=(ChannelScale(0.05),))
    model.compile(optimizer=keras.optimizers.Adam(0.05))
    phases = len(make_regime(regime).phases(len(EXITS)))

    def figures() -> dict[str, float]:
        # Two batches cost less than a graph, which the training is.
        model.run_eagerly = True
        found = model.evaluate(other, verbose=0, return_dict=True)
        model.run_eagerly = False
        return found

    before = figures()
    model.fit(train, batch_size=32, epochs=10 * phases, verbose=0)
    after = figures()
    assert all(after[f"{exit_}_loss"] < 0.7 * before[f"{exit_}_loss"] for exit_ in EXITS)
    assert after["loss"] < 0.5 * before["loss"]
    assert after["exit_02_accuracy"] > 0.7


@EACH_REGIME
def test_regimes_build_again_from_their_config(regime: str) -> None:
    config = make_regime(regime).get_config()
    again = make_regime(config.pop("name"), **config)
    assert again == make_regime(regime)
    assert make_regime(again) is again


def test_metrics_are_those_of_evaluate() -> None:
    windows = synthetic_windows(40)
    model = compiled()
    model.fit(windows, batch_size=20, verbose=0)
    got = model.evaluate(windows, verbose=0, return_dict=True)
    assert model.normalisation is not None
    x = model.normalisation.apply(windows.x)
    per_exit = cross_entropies(model, x, windows.y).mean(axis=0)
    logits = model.predict(windows, verbose=0)
    for index, exit_ in enumerate(EXITS):
        assert got[f"{exit_}_loss"] == pytest.approx(per_exit[index], rel=1e-4)
        assert got[f"{exit_}_accuracy"] == pytest.approx((logits[exit_].argmax(1) == windows.y).mean())
    assert got["loss"] == pytest.approx(per_exit.mean(), rel=1e-4)
    arrays = model.evaluate(x, windows.y, verbose=0, return_dict=True)
    assert arrays["loss"] == pytest.approx(got["loss"], rel=1e-5)


def test_callbacks_watch_an_exit() -> None:
    windows = synthetic_windows(32)
    model = compiled()
    stop = keras.callbacks.EarlyStopping("val_exit_02_accuracy", mode="max", patience=1, baseline=2.0)
    history = model.fit(windows, epochs=9, validation_data=windows, callbacks=[stop], verbose=0)
    assert 1 <= len(history.history["loss"]) <= 3


def test_best_epoch_is_restored_among_the_late_ones() -> None:
    windows, validation = synthetic_windows(48), synthetic_windows(24, seed=5)
    kept: dict[int, np.ndarray] = {}

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            kept[epoch] = weights_of(self.model)

    model = compiled(rate=4.0, graph=True)
    callback = MultiExitEarlyStopping(last_share=0.3)
    losses = model.fit(
        windows, epochs=10, batch_size=16, validation_data=validation, callbacks=[Keep(), callback], verbose=0
    ).history["val_loss"]
    best = min(range(7, 10), key=lambda epoch: losses[epoch])
    # Else this would not tell the late ones from all.
    assert min(losses) < losses[best]
    np.testing.assert_array_equal(weights_of(model), kept[best])


def test_learning_rate_falls_to_zero() -> None:
    schedule = adamw_cosine(640, 5, batch_size=64, learning_rate=0.01)._learning_rate
    assert float(schedule(0)) == pytest.approx(0.01)
    assert float(schedule(50)) == pytest.approx(0.0, abs=1e-9)


# --- Determinism --------------------------------------------------------------------------------------------


def test_batches_depend_on_seed_epoch_and_step_alone() -> None:
    windows = synthetic_windows(50)
    perturbations = inertial_perturbations((1.0,) * 3)

    def batches(seed: int, epoch: int = 0) -> TrainingBatches:
        model = compiled(seed=seed, perturbations=perturbations)
        source = source_of(model, windows)
        source.begin_epoch(epoch)
        return source.data["x"]

    one, two = batches(3), batches(3)
    assert len(one) == 3
    two[2]  # what ran before does not matter
    for left, right in zip(one[1], two[1], strict=True):
        np.testing.assert_array_equal(left, right)
    assert np.abs(one[0][0] - batches(4)[0][0]).max() > 0
    one.begin_epoch(1)
    assert np.abs(one[0][0] - two[0][0]).max() > 0
    # An epoch reached or started at: the same.
    np.testing.assert_array_equal(one[0][0], batches(3, epoch=1)[0][0])
    labels = np.concatenate([batches(3)[step][1] for step in range(3)])
    assert len(labels) == 48


def test_every_window_comes_once_per_epoch_with_its_label() -> None:
    windows = synthetic_windows(32)
    numbers = np.arange(32, dtype=np.float32)
    batches = TrainingBatches(windows.x, windows.y, numbers, batch_size=8, seed=0)
    rows = [batches[step] for step in range(len(batches))]
    weights = np.concatenate([row[2] for row in rows]).astype(int)
    assert sorted(weights) == list(range(32))
    np.testing.assert_array_equal(np.concatenate([row[0] for row in rows]), windows.x[weights])
    np.testing.assert_array_equal(np.concatenate([row[1] for row in rows]), windows.y[weights])


def test_two_fits_of_one_seed_give_equal_weights() -> None:
    windows = synthetic_windows(48)

    def trained(seed: int) -> np.ndarray:
        model = compiled(seed=seed, graph=True)
        model.fit(windows, batch_size=16, epochs=2, verbose=0)
        return weights_of(model)

    first = trained(1)
    np.testing.assert_array_equal(first, trained(1))
    assert np.abs(first - trained(2)).max() > 0


def test_a_run_in_two_parts_equals_one_run() -> None:
    windows = synthetic_windows(48)
    whole, parts = compiled(), compiled()
    whole.fit(windows, batch_size=16, epochs=3, verbose=0)
    parts.fit(windows, batch_size=16, epochs=1, verbose=0)
    parts.fit(windows, batch_size=16, epochs=3, initial_epoch=1, verbose=0)
    np.testing.assert_array_equal(weights_of(parts), weights_of(whole))


def test_perturbations_need_a_rigid_body() -> None:
    assert len(_perturbations(compiled(), SENSOR, IDENTITY)) == 4
    windows = synthetic_windows(16)
    alone = replace(windows, sensor=replace(SENSOR, rigid_bodies=()))
    assert source_of(compiled(), windows).data["x"].perturb is not None
    assert source_of(compiled(), alone).data["x"].perturb is None
    assert source_of(compiled(perturbations=()), windows).data["x"].perturb is None


@pytest.mark.parametrize("perturbations", ["autoo", "none", ["rotation"]])
def test_perturbations_are_checked_at_once(perturbations: object) -> None:
    with pytest.raises(InputError, match='`perturbations` must be "auto" or a sequence'):
        MultiExitModel(pooled_network(), perturbations=perturbations)


def test_normalisation_is_fitted_once() -> None:
    windows = synthetic_windows(24)
    model = compiled()
    model.fit(windows, batch_size=8, verbose=0)
    first = model.normalisation
    assert first == Normalisation.fit(windows)
    model.fit(replace(windows, x=5 * windows.x), batch_size=8, verbose=0)
    assert model.normalisation is first


# --- Saving and provenance ----------------------------------------------------------------------------------


def test_keras_file_loads_in_a_fresh_process(tmp_path: Path) -> None:
    windows = synthetic_windows(24)
    keras.utils.set_random_seed(2)
    model = MultiExitModel(dscnn_network(), Joint(exit_weights=(1.0, 2.0, 1.0)), seed=5)
    model.compile(optimizer="adam")
    model.fit(windows, batch_size=12, verbose=0)
    expected = model.predict(windows.x, verbose=0)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "arrays.npz", x=windows.x, **expected)
    code = (
        "import sys\n"
        "import keras\n"
        "import numpy as np\n"
        "from mexit_edge import MultiExitModel\n"
        "folder = sys.argv[1]\n"
        "model = keras.saving.load_model(folder + '/model.keras')\n"
        "assert isinstance(model, MultiExitModel)\n"
        "arrays = np.load(folder + '/arrays.npz')\n"
        "outputs = model.predict(arrays['x'], verbose=0)\n"
        "for name, values in outputs.items():\n"
        "    np.testing.assert_array_equal(values, arrays[name])\n"
        "print(model.regime, model.seed, model.normalisation, model.provenance.train_subjects)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == f"{model.regime} 5 {model.normalisation} (0, 1, 2, 3, 4, 5)"


def test_a_second_fit_keeps_the_subjects_of_the_first() -> None:
    # Else calibration on subjects that the weights have seen would not be refused.
    windows = synthetic_windows(96)
    model = compiled()
    model.fit(windows.of_subjects([0, 1]), batch_size=8, validation_data=windows.of_subjects([2]), verbose=0)
    model.fit(windows.of_subjects([3, 4]), batch_size=8, validation_data=windows.of_subjects([5]), verbose=0)
    assert model.provenance.train_subjects == (0, 1, 3, 4)
    assert model.provenance.validation_subjects == (2, 5)
    assert (model.provenance.data, model.provenance.regime) == ("synthetic", "joint")


def test_a_second_data_set_does_not_hide_the_first(caplog: pytest.LogCaptureFixture) -> None:
    first, second = synthetic_windows(96), synthetic_windows(96, seed=1, name="other")
    model = compiled()
    model.fit(first.of_subjects([0, 1]), batch_size=8, validation_data=first.of_subjects([2]), verbose=0)
    assert caplog.text == ""
    model.fit(second.of_subjects([3, 4]), batch_size=8, validation_data=second.of_subjects([5]), verbose=0)
    assert "Trained on 'other' after 'synthetic'" in caplog.text
    assert model.provenance.data == "synthetic"
    assert model.provenance.train_subjects == (0, 1, 3, 4)
    assert model.provenance.validation_subjects == (2, 5)


def test_validation_subjects_of_a_fit_on_arrays_are_known() -> None:
    windows = synthetic_windows(48)
    model = compiled()
    model.fit(windows.x, windows.y, validation_data=windows.of_subjects([5]), verbose=0)
    assert (model.provenance.data, model.provenance.validation_subjects) == ("synthetic", (5,))


def test_epochs_add_up() -> None:
    windows = synthetic_windows(24)
    model = compiled()
    model.fit(windows, batch_size=8, epochs=2, verbose=0)
    model.fit(windows, batch_size=8, epochs=2, verbose=0)
    assert model.provenance.epochs == 4
    model.fit(windows, batch_size=8, epochs=7, initial_epoch=4, verbose=0)
    assert model.provenance.epochs == 7


@pytest.mark.parametrize("as_list", [True, False])
def test_an_early_stopped_fit_is_noted_as_far_as_it_came(as_list: bool) -> None:
    windows = synthetic_windows(24)
    stop = keras.callbacks.EarlyStopping("loss", patience=1, baseline=0.0)
    model = compiled()
    done = model.fit(windows, batch_size=8, epochs=9, callbacks=[stop] if as_list else stop, verbose=0)
    assert model.provenance.epochs == len(done.epoch) < 9


class Interrupt(keras.callbacks.Callback):
    """Ends the training as a user at the keyboard would, in the second step of the second epoch."""

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        if batch == 1 and self.epoch == 1:
            raise KeyboardInterrupt

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.epoch = epoch


def test_an_interrupted_fit_is_noted_as_far_as_it_came() -> None:
    # Its weights can be exported: what they have seen must be refused in calibration.
    model = compiled()
    with pytest.raises(KeyboardInterrupt):
        model.fit(synthetic_windows(24), batch_size=8, epochs=5, callbacks=[Interrupt()], verbose=0)
    assert model.provenance.epochs == 1
    assert model.provenance.train_subjects == (0, 1, 2, 3, 4, 5)


def test_a_checkpoint_knows_what_it_has_seen(tmp_path: Path) -> None:
    model = compiled()
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    model.fit(synthetic_windows(24), batch_size=8, epochs=2, callbacks=[checkpoint], verbose=0)
    provenance = keras.saving.load_model(tmp_path / "1.keras", compile=False).provenance
    assert (provenance.epochs, provenance.data) == (1, "synthetic")
    assert provenance.train_subjects == (0, 1, 2, 3, 4, 5)


def test_a_refused_fit_leaves_no_trace() -> None:
    model = compiled()
    before = model.provenance
    with pytest.raises(InputError):
        model.fit(synthetic_windows(8).take(np.arange(2)), verbose=0)
    with pytest.raises(InputError, match="of `validation_data`"):
        model.fit(synthetic_windows(8), validation_data=(HOLE, Y), verbose=0)
    assert model.provenance == before
    assert model.normalisation is None


def test_a_fit_that_fails_before_its_first_step_leaves_no_trace() -> None:
    class Refuse(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
            raise InterruptedError

    model = compiled()
    before = model.provenance
    with pytest.raises(InterruptedError):
        model.fit(synthetic_windows(8), epochs=3, callbacks=[Refuse()], verbose=0)
    assert model.provenance == before


# --- What is refused ----------------------------------------------------------------------------------------

X, Y = random_samples(8, SENSOR.shape), np.arange(8) % N_CLASSES
HOLE = X.copy()
HOLE[3, 2, 1] = np.nan


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y + 1, "class indices from 0 to 3. Received: values from 1 to 4"),
        (X, Y - 1, "class indices from 0 to 3. Received: values from -1"),
        (X, Y.astype(float), r"`y` must be integers of shape \(8,\). Received: float64"),
        (X, np.eye(N_CLASSES)[Y], r"`y` must be integers"),
        (X, Y[:7], r"integers of shape \(8,\). Received: int64 of shape \(7,\)"),
        (HOLE, Y, r"`x` must hold finite samples. Received: nan at index \(3, 2, 1\)"),
        (X[:, :31], Y, r"shape \(n, 32, 3\). Received: float32 of shape \(8, 31, 3\)"),
        (X.astype(str), Y, "must be real numbers"),
        (X[:0], Y[:0], "class indices from 0 to 3. Received: none"),
        (X, np.where(Y == 2, 0, Y), "`x` must hold windows of every class. Received: none of class 2"),
        (X, None, r"`y` must be integers of shape \(8,\). Received: object"),
        ([[1.0, 2.0], [3.0]], Y, "`x` must be an array, or lists of equal length"),
        (X, [[1], [2, 3]], "`y` must be an array, or lists of equal length"),
    ],
    ids=[
        *("too high", "negative", "float", "one-hot", "too few", "nan", "shape", "text", "none"),
        *("absent class", "no labels", "ragged x", "ragged y"),
    ],
)
def test_bad_arrays_are_refused(x: np.ndarray, y: np.ndarray, message: str) -> None:
    model = compiled()
    with pytest.raises(InputError, match=message):
        model.fit(x, y, verbose=0)


@pytest.mark.parametrize(
    ("validation_data", "message"),
    [
        ((HOLE, Y), r"`x` of `validation_data` must hold finite samples. Received: nan at index \(3, 2, 1\)"),
        ((X[:, :31], Y), r"`x` of `validation_data` must be real numbers of shape \(n, 32, 3\)"),
        ((X, Y + 1), "`y` of `validation_data` must hold class indices from 0 to 3"),
        ((X, Y, Y[:5]), r"`sample_weight of validation_data` needs one real number per window, shape \(8,\)"),
        ((X,), "`validation_data` must be .* Received: 1 values"),
        (synthetic_windows(8, sensor=SENSOR.with_windowing(16, 8)), "`x` of `validation_data` must be real"),
    ],
    ids=["nan", "shape", "label", "weights", "alone", "windows"],
)
def test_bad_validation_data_are_refused(validation_data: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compiled().fit(X, Y, validation_data=validation_data, verbose=0)


def data_set() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (synthetic_windows(8), {"y": Y}, "`y` must be left out: `Windows` have labels"),
        (synthetic_windows(8), {"shuffle": True}, "`shuffle` must be left out: `Windows` .* are shuffled"),
        (data_set(), {"y": Y}, "`y` must be left out: a data set yields"),
        (data_set(), {"sample_weight": np.ones(8)}, r"`sample_weight` must be left out: .* sample_weight\)"),
    ],
    ids=["y", "shuffle", "data set y", "data set weight"],
)
def test_arguments_without_a_meaning_are_refused(x: object, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compiled().fit(x, verbose=0, **options)


@pytest.mark.parametrize("data", [(synthetic_windows(8), None), (X, Y)], ids=["windows", "arrays"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_weight": np.ones(7)}, r"`sample_weight` needs .* shape \(8,\). Received: float64 .*\(7,\)"),
        ({"sample_weight": np.ones((8, 1))}, "`sample_weight` needs one real number per window"),
        ({"sample_weight": [1.0] * 7 + [np.nan]}, "`sample_weight` must hold finite weights >= 0"),
        ({"sample_weight": [1.0] * 7 + [-1.0]}, "`sample_weight` must hold finite weights >= 0"),
        ({"class_weight": {7: 1.0}}, r"`class_weight` must map class indices from 0 to 3 .*Received: \{7: 1"),
        ({"class_weight": {0: -1.0}}, "`class_weight` must map .* finite weights >= 0"),
    ],
    ids=["few", "column", "nan", "negative", "no class", "negative class"],
)
def test_weights_that_do_not_fit_are_refused(data: tuple, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compiled().fit(*data, verbose=0, **options)


def test_class_weight_of_a_data_set() -> None:
    weighted, plain = compiled(), compiled()
    weighted.fit(data_set(), class_weight={0: 5.0}, verbose=0)
    plain.fit(data_set(), verbose=0)
    assert np.abs(weights_of(weighted) - weights_of(plain)).max() > 1e-4
    with pytest.raises(InputError, match="`class_weight` must map"):
        compiled().fit(data_set(), class_weight={4: 1.0}, verbose=0)


def test_class_and_sample_weight_go_together_with_arrays() -> None:
    models = [compiled(), compiled()]
    models[0].fit(X, Y, class_weight={1: 3.0}, sample_weight=np.full(8, 2.0), shuffle=False, verbose=0)
    models[1].fit(X, Y, sample_weight=np.where(Y == 1, 6.0, 2.0), shuffle=False, verbose=0)
    np.testing.assert_allclose(weights_of(models[0]), weights_of(models[1]), atol=1e-6)


def test_a_class_absent_from_training_is_refused() -> None:
    windows = synthetic_windows(40)
    without: Windows = windows.take(windows.y != 2)
    with pytest.raises(InputError, match=r"windows of every class. Received: none of stand"):
        compiled().fit(without, verbose=0)


def test_windows_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(n, 32, 3\)"):
        compiled().fit(synthetic_windows(8, sensor=SENSOR.with_windowing(16, 8)), verbose=0)


def test_a_loss_is_refused() -> None:
    model = MultiExitModel(pooled_network())
    with pytest.raises(InputError, match="`loss` must not be given: the regime defines it"):
        model.compile(optimizer="adam", loss="mse")


def test_unknown_regimes_and_options_are_refused() -> None:
    with pytest.raises(InputError, match=r"`regime` must be one of: .*Did you mean 'joint'"):
        MultiExitModel(pooled_network(), "jiont")
    with pytest.raises(InputError, match=r"option of joint` must be one of: .*Did you mean 'exit_weights'"):
        make_regime("joint", exit_wieghts=(1.0,))


def list_outputs() -> keras.Model:
    window = keras.Input((4,))
    return keras.Model(window, [layers.Dense(3)(window), layers.Dense(3)(window)])


def wrong_names() -> keras.Model:
    window = keras.Input((4,))
    return keras.Model(window, {"exit_1": layers.Dense(3)(window), "exit_2": layers.Dense(3)(window)})


def unequal_exits() -> keras.Model:
    window = keras.Input((4,))
    return keras.Model(window, {"exit_01": layers.Dense(3)(window), "exit_02": layers.Dense(4)(window)})


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            user_model,
            "dict of outputs exit_01.*Received: Functional with outputs without names.*attach_exits",
        ),
        (list_outputs, "without names"),
        (wrong_names, "with outputs exit_1, exit_2"),
        (unequal_exits, "same number of logits"),
        (lambda: "network", "Received: str"),
    ],
    ids=["single", "list", "names", "sizes", "text"],
)
def test_networks_without_named_exits_are_refused(network: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MultiExitModel(network())


def test_exits_come_in_order_whatever_the_order_of_the_dict() -> None:
    network = cascaded_network()
    turned = keras.Model(network.inputs[0], dict(reversed(network.output.items())))
    assert MultiExitModel(turned).exits == EXITS
    assert MultiExitModel(turned).n_classes == N_CLASSES


@dataclass(frozen=True)
class _Unused:
    """Not a regime."""


def test_an_object_that_is_no_regime_is_refused() -> None:
    with pytest.raises(InputError, match="`regime` must be one of"):
        MultiExitModel(pooled_network(), _Unused())
