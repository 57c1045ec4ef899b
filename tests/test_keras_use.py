"""Every regime is used as any Keras model: data, callbacks, files, networks, unlabelled windows."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_networks import (
    N_CLASSES,
    SENSOR,
    TRAIN_REASON,
    attached_network,
    long_skip_network,
    random_samples,
    synthetic_windows,
)

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
import tensorflow as tf
from keras import layers

from mexit_edge.errors import InputError
from mexit_edge.regimes import REGIMES, Consistency, MultiExitModel, Regime, make_regime
from mexit_edge.regimes.fitting import _Fit
from mexit_edge.signals import Normalisation

pytestmark = pytest.mark.train
EACH_REGIME = pytest.mark.parametrize("regime", list(REGIMES))
EXITS = ("exit_01", "exit_02")
FIGURES = {"loss"} | {f"{exit_}_{kind}" for exit_ in EXITS for kind in ("loss", "accuracy")}
BATCH = 16
# Beyond the options that all regimes share.
OPTIONS: dict[str, dict[str, Any]] = {
    "boosted": {"ratio": 0.7, "gradient_equilibrium": False},
    "consistency": {"target": "ensemble", "weak": "hard", "confidence": 0.3, "ramp": 0.5},
    "disjoint": {"shares": (1.0, 2.0)},
    "distill": {"teacher": "later", "share": 0.3, "temperature": 2.0, "anneal": True},
    "weighted": {"p": 1.2, "hidden": 8, "centre": "global", "meta_interval": 2},
}


def tiny_network() -> keras.Model:
    """Two exits, batch normalisation in the backbone, dropout in the heads."""
    window = keras.Input(SENSOR.shape, name="window")
    features = layers.Conv1D(6, 5, strides=2, use_bias=False, name="stem")(window)
    features = layers.ReLU()(layers.BatchNormalization(name="norm")(features))
    outputs = {}
    for exit_ in EXITS:
        pooled = layers.Dropout(0.2)(layers.GlobalAveragePooling1D()(features))
        outputs[exit_] = layers.Dense(N_CLASSES, name=exit_)(pooled)
        features = layers.Conv1D(6, 3, activation="relu")(features)
    return keras.Model(window, outputs)


def shake(x: Any, sensor: object, rng: np.random.Generator) -> Any:
    """A perturbation that takes samples of any structure."""
    return keras.tree.map_structure(
        lambda one: one + rng.normal(0, 0.3, one.shape).astype(np.asarray(one).dtype), x
    )


def compiled(
    regime: str | Regime, network: Callable[[], keras.Model] = tiny_network, **options: Any
) -> MultiExitModel:
    """Eager, since a few steps cost less than a graph."""
    keras.utils.set_random_seed(7)
    model = MultiExitModel(network(), regime, **{"perturbations": (shake,), **options})
    model.compile(optimizer=keras.optimizers.SGD(0.05), run_eagerly=True)
    return model


def n_phases(regime: str | Regime) -> int:
    return len(make_regime(regime).phases(len(EXITS)))


def weights_of(model: MultiExitModel) -> np.ndarray:
    return np.concatenate([np.asarray(weight).ravel() for weight in model.network.weights])


def data_set(x: Any, y: Any, *, drop_remainder: bool = False) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH, drop_remainder=drop_remainder)


def leave_out_the_count(patch: pytest.MonkeyPatch) -> None:
    """Leave out the count of operations, which traces a graph per phase."""
    patch.setattr(_Fit, "_macs_per_window", lambda self: None)


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_the_count(monkeypatch)


def assert_whole_history(
    model: MultiExitModel, history: keras.callbacks.History, epochs: int, *more: str
) -> None:
    """All columns; numbers where a phase runs an exit, NaN where it does not."""
    columns = history.history
    assert set(columns) == FIGURES | {f"val_{name}" for name in FIGURES} | {"phase", *more}
    assert history.epoch == list(range(epochs))
    phases = model.phases
    assert sorted(set(columns["phase"])) == list(range(1, len(phases) + 1))
    assert columns["phase"] == sorted(columns["phase"])
    for name, values in columns.items():
        assert len(values) == epochs
        for number, value in zip(columns["phase"], values, strict=True):
            runs = [exit_ for exit_ in EXITS if name.startswith(exit_)]
            idle = any(int(exit_[-2:]) not in phases[number - 1].exits for exit_ in runs)
            assert np.isnan(value) == idle, (name, number)


# --- Data ---------------------------------------------------------------------------------------------------

TRAIN, VALIDATION = synthetic_windows(40), synthetic_windows(20, seed=1)


# Batches of a data set reach every regime alike: one of each kind of step is enough there.
@pytest.mark.parametrize(
    ("regime", "data"),
    [
        *((one, "arrays") for one in REGIMES),
        *((one, "whole batches") for one in ("joint", "mixed", "weighted")),
    ],
)
@pytest.mark.usefixtures("uncounted")
def test_fit_evaluate_and_predict_take_every_kind_of_data(regime: str, data: str) -> None:
    model = compiled(regime)
    epochs = n_phases(regime)
    arrays = (VALIDATION.x, VALIDATION.y)
    validation, fit = {
        "arrays": ((*arrays, np.ones(20)), {"x": TRAIN.x, "y": TRAIN.y, "batch_size": BATCH}),
        "whole batches": (data_set(*arrays), {"x": data_set(TRAIN.x, TRAIN.y, drop_remainder=True)}),
    }[data]
    before = weights_of(model)
    history = model.fit(**fit, epochs=epochs, validation_data=validation, verbose=0)
    assert_whole_history(model, history, epochs)
    assert np.abs(weights_of(model) - before).max() > 1e-4
    given = validation if data == "arrays" else (validation,)
    got = model.evaluate(*given[:2], verbose=0, return_dict=True)
    assert set(got) == FIGURES
    logits = model.predict(given[0], verbose=0)
    for exit_ in EXITS:
        right = (logits[exit_].argmax(1) == VALIDATION.y).mean()
        assert got[f"{exit_}_accuracy"] == pytest.approx(right)
        assert history.history[f"val_{exit_}_accuracy"][-1] == pytest.approx(right)


@EACH_REGIME
@pytest.mark.usefixtures("uncounted")
def test_a_data_set_with_a_smaller_last_batch(regime: str) -> None:
    # As a graph, where the size of a batch is unknown while it is traced.
    model = compiled(regime)
    model.compile(optimizer=keras.optimizers.SGD(0.05))
    ragged = data_set(TRAIN.x, TRAIN.y)
    if model.regime.needs_full_batches:
        with pytest.raises(InputError, match=r"batches may differ. Use `batch\(n, drop_remainder=True\)`"):
            model.fit(ragged, epochs=n_phases(regime), verbose=0)
        return
    model.fit(ragged, epochs=n_phases(regime), verbose=0)
    # The fit counts what it has seen: the last eight windows too.
    assert [cost.windows for cost in model.training_cost] == [40] * n_phases(regime)


# --- Callbacks and files ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """A model that was trained as a graph under non-default options, and what its callbacks wrote."""

    name: str
    model: MultiExitModel
    history: keras.callbacks.History
    epochs: int
    seen: list[tuple[int, int]]
    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "whole.keras"


def train_with_callbacks(name: str, folder: Path) -> Trained:
    folder.mkdir(exist_ok=True)
    shared = {"label_smoothing": 0.1, "gradient_equilibrium": True}
    if name != "layerwise":
        shared["exit_weights"] = (1.0, 3.0)
    regime = make_regime(name, **{**shared, **OPTIONS.get(name, {})})
    keras.utils.set_random_seed(5)
    model = MultiExitModel(tiny_network(), regime, seed=4)
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    seen: list[tuple[int, int]] = []
    callbacks = keras.callbacks
    epochs = 3 * n_phases(regime)
    history = model.fit(
        TRAIN,
        batch_size=BATCH,
        epochs=epochs,
        validation_data=VALIDATION,
        verbose=0,
        callbacks=[
            callbacks.CSVLogger(str(folder / "log.csv")),
            callbacks.TensorBoard(str(folder / "board")),
            # No improvement is ever large enough: the rate falls from the third epoch of a phase on.
            callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=1e9),
            callbacks.ModelCheckpoint(
                str(folder / "best.keras"), monitor="val_exit_02_accuracy", save_best_only=True
            ),
            callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: epoch or model.save(folder / "1.keras")
            ),
            callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch, logs["phase"]))),
        ],
    )
    trained = Trained(name, model, history, epochs, seen, folder)
    model.save(trained.file)
    # From here on a few batches are predicted, which costs less than a graph.
    model.run_eagerly = True
    return trained


def write_scalar(name: str, data: Any, step: int) -> None:
    """What `tf.summary.scalar` does, which comes with the package of TensorBoard alone."""
    tf.summary.write(name, tf.cast(data, tf.float32), step=step)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """One training per regime for all tests of this section."""
    folder = tmp_path_factory.mktemp("regimes")

    @cache
    def trained(name: str) -> Trained:
        with pytest.MonkeyPatch.context() as patch:
            leave_out_the_count(patch)
            if find_spec("tensorboard") is None:
                # The module that the callback imports; imported later, it would undo the patch.
                patch.setattr(import_module("tensorflow.summary"), "scalar", write_scalar)
            return train_with_callbacks(name, folder / name)

    return trained


@EACH_REGIME
def test_callbacks_see_all_epochs_of_all_phases(regime: str, shelf: Callable[[str], Trained]) -> None:
    trained = shelf(regime)
    # The rate is what ReduceLROnPlateau adds.
    assert_whole_history(trained.model, trained.history, trained.epochs, "learning_rate")
    phases = trained.history.history["phase"]
    assert trained.seen == list(enumerate(phases))
    with (trained.folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["epoch"]), int(row["phase"])) for row in rows] == trained.seen
    logged = [float(row["val_exit_02_loss"]) for row in rows]
    np.testing.assert_allclose(logged, trained.history.history["val_exit_02_loss"], rtol=1e-5)
    # Every phase begins at the optimizer's own rate.
    rates = trained.history.history["learning_rate"]
    places = [place - phases.index(number) for place, number in enumerate(phases)]
    assert max(places) >= 2
    assert rates == pytest.approx([0.01 * 0.5 ** max(0, place - 1) for place in places])
    best = keras.saving.load_model(trained.folder / "best.keras")
    best.run_eagerly = True
    accuracies = trained.history.history["val_exit_02_accuracy"]
    got = best.evaluate(VALIDATION, verbose=0, return_dict=True)
    assert got["exit_02_accuracy"] == pytest.approx(max(accuracies))


@EACH_REGIME
def test_tensorboard_has_every_epoch(regime: str, shelf: Callable[[str], Trained]) -> None:
    trained = shelf(regime)
    for part in ("train", "validation"):
        steps = set()
        for path in (trained.folder / "board" / part).glob("events*"):
            for record in tf.data.TFRecordDataset(str(path)):
                event = tf.compat.v1.Event.FromString(record.numpy())
                if any(value.tag == "epoch_exit_02_loss" for value in event.summary.value):
                    steps.add(event.step)
        assert steps == set(range(trained.epochs))


IN_A_FRESH_PROCESS = """
import json, sys, warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
import keras
from mexit_edge.regimes.fitting import _Fit
from fixtures_networks import synthetic_windows

_Fit._macs_per_window = lambda self: None
train, validation = synthetic_windows(16), synthetic_windows(20, seed=1)
results = {}
for path in sys.argv[2:]:
    model = keras.saving.load_model(path)
    model.run_eagerly = True
    if Path(path).stem == "whole":
        np.savez(Path(path).with_suffix(".npz"), **model.predict(validation, verbose=0))
    facts = {
        "regime": repr(model.regime),
        "layers": [layer.name for layer in model.network.layers],
        "evaluate": model.evaluate(validation, verbose=0, return_dict=True),
        "iterations": int(model.optimizer.iterations),
        "variables": len(model.optimizer.variables),
        "state": np.concatenate([np.ravel(one) for one in model.regime_state.variables]).tolist(),
        "metadata": [model.seed, repr(model.normalisation), model.provenance.epochs],
    }
    before = [np.array(weight) for weight in model.network.weights]
    epochs = len(model.regime.phases(2))
    history = model.fit(train, batch_size=16, epochs=epochs, verbose=0)
    facts["moved"] = max(
        float(np.abs(a - b).max()) for a, b in zip(before, map(np.array, model.network.weights))
    )
    facts["epochs"] = len(history.epoch)
    results[path] = facts
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def loaded(shelf: Callable[[str], Trained]) -> dict[str, dict[str, Any]]:
    """What a fresh process finds in the files: of the whole trainings, and of their first epoch."""
    paths = [str(path) for name in REGIMES for path in (shelf(name).file, shelf(name).folder / "1.keras")]
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, str(Path(__file__).parent), *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@EACH_REGIME
def test_files_load_compiled_in_a_fresh_process(
    regime: str, shelf: Callable[[str], Trained], loaded: dict[str, dict[str, Any]]
) -> None:
    trained = shelf(regime)
    model, facts = trained.model, loaded[str(trained.file)]
    assert facts["regime"] == repr(model.regime)
    assert facts["regime"] != repr(make_regime(regime))
    assert facts["metadata"] == [4, repr(model.normalisation), trained.epochs]
    # A boosted network has its sums once.
    assert facts["layers"] == [layer.name for layer in model.network.layers]
    with np.load(trained.file.with_suffix(".npz")) as logits:
        for exit_, expected in model.predict(VALIDATION, verbose=0).items():
            np.testing.assert_allclose(logits[exit_], expected, atol=1e-6)
    expected = model.evaluate(VALIDATION, verbose=0, return_dict=True)
    assert facts["evaluate"] == pytest.approx(expected, rel=1e-5)
    state = np.concatenate([np.ravel(one) for one in model.regime_state.variables])
    np.testing.assert_allclose(facts["state"], state)
    assert facts["moved"] > 1e-4
    assert facts["epochs"] == n_phases(model.regime)


@EACH_REGIME
def test_a_file_written_inside_a_phase_loads_with_its_optimizer(
    regime: str, shelf: Callable[[str], Trained], loaded: dict[str, dict[str, Any]]
) -> None:
    trained = shelf(regime)
    facts = loaded[str(trained.folder / "1.keras")]
    # Adam: two slots per variable, the count of steps, the learning rate. One epoch of two steps.
    assert facts["variables"] == 2 * len(trained.model.trainable_variables) + 2
    assert facts["iterations"] == 2 * trained.model.regime.updates_per_step
    got = {f"val_{name}": value for name, value in facts["evaluate"].items() if name != "loss"}
    expected = {name: trained.history.history[name][0] for name in got}
    assert got == pytest.approx(expected, rel=1e-4)
    assert facts["moved"] > 1e-4


@pytest.mark.parametrize("regime", ["joint", "mixed"])
@pytest.mark.usefixtures("uncounted")
def test_early_stopping_ends_a_phase(regime: str) -> None:
    stop = keras.callbacks.EarlyStopping("val_exit_02_accuracy", mode="max", patience=1, baseline=2.0)
    history = compiled(regime).fit(
        TRAIN, batch_size=BATCH, epochs=8, validation_data=VALIDATION, callbacks=[stop], verbose=0
    )
    counts = [history.history["phase"].count(number + 1) for number in range(n_phases(regime))]
    assert all(1 <= count <= 2 for count in counts)
    assert len(history.epoch) == sum(counts)


@pytest.mark.usefixtures("uncounted")
def test_figures_that_a_callback_adds_are_in_the_history() -> None:
    class Twice(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            logs["twice"] = 2 * epoch

    history = compiled("mixed").fit(TRAIN, batch_size=BATCH, epochs=3, callbacks=[Twice()], verbose=0)
    assert history.history["twice"] == [0, 2, 4]


# --- Networks -----------------------------------------------------------------------------------------------


def image_network() -> keras.Model:
    """Two exits on windows seen as images."""
    image = keras.Input((16, 12, 1), name="image")
    first = layers.Conv2D(4, 3, strides=2, activation="relu")(image)
    second = layers.Conv2D(4, 3, activation="relu")(first)
    return keras.Model(
        image,
        {
            exit_: layers.Dense(N_CLASSES, name=exit_)(layers.GlobalAveragePooling2D()(features))
            for exit_, features in zip(EXITS, (first, second), strict=True)
        },
    )


def two_inputs(structure: type) -> keras.Model:
    """A motion and a scalar input, in a dict or a list."""
    motion, rate = keras.Input(SENSOR.shape, name="motion"), keras.Input((2,), name="rate")
    first = layers.GlobalAveragePooling1D()(layers.Conv1D(6, 5, activation="relu")(motion))
    second = layers.Dense(8, activation="relu")(layers.Concatenate()([first, rate]))
    outputs = {
        exit_: layers.Dense(N_CLASSES, name=exit_)(features)
        for exit_, features in zip(EXITS, (first, second), strict=True)
    }
    inputs = {"motion": motion, "rate": rate} if structure is dict else [motion, rate]
    return keras.Model(inputs, outputs)


RATES = random_samples(40, (2,), seed=3)
SEVERAL: dict[type, Any] = {
    dict: {"motion": TRAIN.x, "rate": RATES},
    list: [TRAIN.x, RATES],
}


@pytest.mark.parametrize(
    ("network", "shape"),
    [(long_skip_network, SENSOR.shape), (attached_network, SENSOR.shape), (image_network, (16, 12, 1))],
    ids=["own", "attached", "images"],
)
@pytest.mark.parametrize("regime", ["1-2-3", "consistency"])
@pytest.mark.usefixtures("uncounted")
def test_networks_that_somebody_else_made(network: Callable, shape: tuple, regime: str) -> None:
    model = compiled(regime, network)
    epochs = len(model.phases)
    x, y = random_samples(40, shape), np.arange(40) % N_CLASSES
    before = weights_of(model)
    history = model.fit(x, y, batch_size=BATCH, epochs=epochs, validation_data=(x, y), verbose=0)
    assert np.isfinite(history.history["val_loss"]).all()
    assert np.abs(weights_of(model) - before).max() > 1e-4
    assert model.predict(x, verbose=0)[model.exits[-1]].shape == (40, N_CLASSES)


@EACH_REGIME
def test_several_inputs(regime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = regime in ("boosted", "consistency", "weighted")
    if not counted:
        leave_out_the_count(monkeypatch)
    model = compiled(regime, lambda: two_inputs(dict))
    x, y = SEVERAL[dict], TRAIN.y
    model.fit(x, y, batch_size=BATCH, epochs=n_phases(regime), validation_data=(x, y), verbose=0)
    logits = model.predict(x, verbose=0)
    assert {exit_: values.shape for exit_, values in logits.items()} == dict.fromkeys(EXITS, (40, N_CLASSES))
    for cost in model.training_cost:
        assert bool(cost.forward_macs) == bool(cost.backward_macs) == counted


@pytest.mark.parametrize("structure", [dict, list])
@pytest.mark.parametrize("regime", ["disjoint", "consistency", "weighted"])
@pytest.mark.usefixtures("uncounted")
def test_several_inputs_give_the_same_as_arrays_and_as_a_data_set(structure: type, regime: str) -> None:
    x, y = SEVERAL[structure], TRAIN.y
    models = [compiled(regime, lambda: two_inputs(structure)) for _ in range(2)]
    epochs = n_phases(regime)
    whole = keras.tree.map_structure(lambda one: one[:32], x)
    models[0].fit(whole, y[:32], batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0)
    parts = tuple(x) if structure is list else x
    models[1].fit(data_set(parts, y, drop_remainder=True), epochs=epochs, verbose=0)
    np.testing.assert_allclose(weights_of(models[0]), weights_of(models[1]), atol=1e-6)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (TRAIN, r"`x` must be arrays or a data set for a network of several inputs \(motion, rate\)"),
        ({"motion": TRAIN.x}, r"`x` must have the network's inputs \(motion, rate\). Received: motion"),
        ({"motion": TRAIN.x, "rates": RATES}, "Received: motion, rates"),
        ({"motion": TRAIN.x, "rate": RATES[:39]}, r"as many windows in every input. .*'rate': 39"),
        ({"motion": TRAIN.x, "rate": RATES[:, :1]}, r"`x\['rate'\]` must be real numbers of shape \(n, 2\)"),
        ([TRAIN.x], "one array per input of the network"),
        (TRAIN.x, "one array per input .* Received: ndarray"),
    ],
    ids=["windows", "missing", "name", "length", "shape", "few", "array"],
)
def test_inputs_that_do_not_fit_are_refused(x: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compiled("joint", lambda: two_inputs(dict)).fit(x, None if x is TRAIN else TRAIN.y, verbose=0)


# --- Windows without a label --------------------------------------------------------------------------------

HALF = replace(TRAIN, y=np.where(np.arange(40) % 8 < 4, TRAIN.y, -1))
UNUSED = [name for name, regime in REGIMES.items() if not regime.uses_unlabelled]
KINDS = ("windows", "arrays", "tf.data")
CONSISTENT = Consistency(ramp=0.0)


def fit_on(model: MultiExitModel, windows: Any, kind: str, **options: Any) -> keras.callbacks.History:
    options = {"verbose": 0, **options}
    if kind == "windows":
        return model.fit(windows, batch_size=8, **options)
    if kind == "arrays":
        return model.fit(windows.x, windows.y, batch_size=8, **options)
    return model.fit(tf.data.Dataset.from_tensor_slices((windows.x, windows.y)).batch(8), **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("uncounted")
def test_consistency_learns_from_unlabelled_windows(kind: str) -> None:
    options = {"normalisation": Normalisation.identity(3)}
    both, labelled = compiled(CONSISTENT, **options), compiled(CONSISTENT, **options)
    columns = fit_on(both, HALF, kind).history
    assert np.isfinite(columns["loss"]).all()
    # Steps of eight, four of them labelled: fours of the labelled ones alone make as many steps.
    known = HALF.take(HALF.labelled)
    labelled.fit(known.x, known.y, batch_size=4, shuffle=kind != "tf.data", verbose=0)
    assert np.abs(weights_of(both) - weights_of(labelled)).max() > 1e-4


@pytest.mark.usefixtures("uncounted")
def test_metrics_count_labelled_windows_alone() -> None:
    # A rate of 0 keeps the network: the figures are those of the labelled windows, to be computed by hand.
    model = compiled(CONSISTENT, attached_network, perturbations=(shake,))
    model.compile(optimizer=keras.optimizers.SGD(0.0), run_eagerly=True)
    columns = model.fit(HALF.x, HALF.y, batch_size=40, verbose=0).history
    known = HALF.labelled
    for metric, exit_ in zip(model.exit_accuracies, model.exits, strict=True):
        assert float(metric.count) == known.sum()
        assert columns[f"{exit_}_accuracy"][0] == pytest.approx(float(metric.total) / known.sum())
    logits = random_samples(40, (len(model.exits), N_CLASSES))
    by_hand = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    model.reset_metrics()
    y_pred = {exit_: logits[:, number] for number, exit_ in enumerate(model.exits)}
    twins = {exit_: np.concatenate([values, values]) for exit_, values in y_pred.items()}
    model.compute_loss(y=HALF.y, y_pred=twins, training=True)
    got = model.compute_metrics(None, HALF.y, twins)
    for number, exit_ in enumerate(model.exits):
        right = logits[known, number].argmax(1) == HALF.y[known]
        assert float(got[f"{exit_}_accuracy"]) == pytest.approx(right.mean())
        loss = -by_hand[known, number, HALF.y[known]].mean()
        assert float(got[f"{exit_}_loss"]) == pytest.approx(loss, rel=1e-5)


@pytest.mark.usefixtures("uncounted")
def test_plain_augmentation_ignores_unlabelled_windows() -> None:
    # Statistics of batch normalisation see every window; this network has none.
    half = HALF.take(np.arange(24))
    still = half.x.copy()
    still[~half.labelled] += 1.0
    models = [compiled(Consistency(weak="label"), long_skip_network) for _ in range(2)]
    for model, x in zip(models, (half.x, still), strict=True):
        model.fit(x, half.y, batch_size=8, verbose=0)
    np.testing.assert_allclose(weights_of(models[0]), weights_of(models[1]), atol=1e-6)
    soft = [compiled(CONSISTENT, long_skip_network) for _ in range(2)]
    for model, x in zip(soft, (half.x, still), strict=True):
        model.fit(x, half.y, batch_size=8, verbose=0)
    assert np.abs(weights_of(soft[0]) - weights_of(soft[1])).max() > 1e-4


@pytest.mark.parametrize("regime", UNUSED)
def test_every_other_regime_refuses_windows_without_a_label(regime: str) -> None:
    model = compiled(regime)
    message = "`y` must hold class indices from 0 to 3. .* Windows without a label are for training with the"
    for kind in ("windows", "arrays"):
        with pytest.raises(InputError, match=message):
            fit_on(model, HALF, kind)


@pytest.mark.parametrize("regime", ["joint", "consistency"])
@pytest.mark.usefixtures("uncounted")
def test_a_data_set_shows_wrong_labels_when_it_is_read(regime: str) -> None:
    # A label of -1 must never count as class 0 in silence.
    model = compiled(regime)
    wrong = HALF.y if regime == "joint" else np.where(TRAIN.y == 3, 4, TRAIN.y)
    sets = {"training": data_set(TRAIN.x, wrong), "other": data_set(TRAIN.x, HALF.y)}
    with pytest.raises(tf.errors.InvalidArgumentError, match="`y` must hold class indices from"):
        model.fit(sets["training"], verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="`y` must hold class indices from 0 to 3"):
        model.fit(data_set(TRAIN.x, TRAIN.y), validation_data=sets["other"], verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="`y` must hold class indices from 0 to 3"):
        model.evaluate(sets["other"], verbose=0)


@pytest.mark.parametrize("validation", [HALF, (HALF.x, HALF.y)], ids=["windows", "arrays"])
def test_validation_needs_labels(validation: Any) -> None:
    with pytest.raises(InputError, match="`y` of `validation_data` must hold class indices from 0 to 3"):
        compiled("consistency").fit(HALF, validation_data=validation, verbose=0)
    with pytest.raises(InputError, match=r"labelled|without a label"):
        compiled("consistency").evaluate(HALF, verbose=0)


# --- Perturbations and randomness ---------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "given"), [("arrays", "auto"), ("tf.data", "auto"), ("windows", ())])
def test_consistency_needs_perturbations(kind: str, given: Any) -> None:
    with pytest.raises(InputError, match=r"`perturbations` must be given .*perturbations=\(ChannelScale"):
        fit_on(compiled("consistency", perturbations=given), TRAIN, kind)


@pytest.mark.parametrize("regime", ["joint", "consistency"])
@pytest.mark.usefixtures("uncounted")
def test_one_seed_gives_the_same_weights_for_every_kind_of_data(regime: str) -> None:
    def trained(kind: str, seed: int = 3, **options: Any) -> np.ndarray:
        model = compiled(regime, seed=seed, normalisation=Normalisation.identity(3))
        fit_on(model, TRAIN.take(np.arange(16)), kind, epochs=2, **options)
        return weights_of(model)

    shuffled = trained("windows")
    # Once more, and from another kind of data.
    np.testing.assert_array_equal(trained("arrays"), shuffled)
    assert np.abs(trained("windows", seed=4) - shuffled).max() > 1e-5
    ordered = trained("arrays", shuffle=False)
    of_data_set = trained("tf.data")
    np.testing.assert_array_equal(trained("tf.data"), of_data_set)
    np.testing.assert_allclose(of_data_set, ordered, atol=1e-6)
    assert np.abs(trained("tf.data", seed=4) - ordered).max() > 1e-5


# --- Progress -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "regime", [make_regime("joint", exit_weights="sdn"), Consistency(ramp=0.5)], ids=["sdn", "ramp"]
)
@pytest.mark.usefixtures("uncounted")
def test_losses_that_follow_the_progress_need_its_length(regime: Regime) -> None:
    endless = data_set(TRAIN.x, TRAIN.y).repeat()
    unknown = data_set(TRAIN.x, TRAIN.y).filter(lambda x, y: True)
    for data in (endless, unknown):
        with pytest.raises(InputError, match=r"`steps_per_epoch` must be given.*follows the progress"):
            compiled(regime).fit(data, epochs=2, verbose=0)
    model = compiled(regime)
    model.fit(endless, epochs=2, steps_per_epoch=3, verbose=0)
    assert int(model.n_steps) == int(model.step) == 6
