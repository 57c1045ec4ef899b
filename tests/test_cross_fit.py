"""Cross-fitting: folds by subject, logits of windows that a network never saw, and the epoch they choose."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from fixtures_networks import (
    N_CLASSES,
    SENSOR,
    TRAIN_REASON,
    converting_in_this_process,
    counting_once,
    synthetic_windows,
)
from hypothesis import given
from hypothesis import strategies as st

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
from keras import layers

from mexit_edge.compress import export
from mexit_edge.errors import InputError
from mexit_edge.exits import log_loss
from mexit_edge.regimes import MultiExitModel, StopAfterEpoch, cross_fit
from mexit_edge.regimes.cross_fit import subject_folds
from mexit_edge.signals import UNLABELLED, Windows
from mexit_edge.simulate import calibrate_out_of_fold, simulate

pytestmark = pytest.mark.train
WINDOWS = synthetic_windows(120)
EPOCHS, FOLDS = 3, 3


@pytest.fixture(scope="module", autouse=True)
def _counted_once() -> Iterator[None]:
    with counting_once():
        yield


def network() -> keras.Model:
    window = keras.Input(SENSOR.shape, name="window")
    features = layers.Conv1D(6, 5, strides=2, activation="relu", name="one")(window)
    outputs = {}
    for number in (1, 2):
        pooled = layers.Dropout(0.2)(layers.GlobalAveragePooling1D()(features))
        outputs[f"exit_{number:02d}"] = layers.Dense(N_CLASSES, name=f"exit_{number:02d}")(pooled)
        features = layers.Conv1D(6, 3, activation="relu", name=f"more_{number}")(features)
    return keras.Model(window, outputs)


def new_model(regime: str = "joint", *, graph: bool = False) -> MultiExitModel:
    """Step by step in Python, since a few steps cost less than a graph."""
    keras.utils.set_random_seed(11)
    model = MultiExitModel(network(), regime, seed=4)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.03, 30)), run_eagerly=not graph
    )
    return model


class Recorder:
    """Makes models, and remembers on whom each is trained."""

    def __init__(self, regime: str = "joint", *, graph: bool = False) -> None:
        self.regime, self.graph = regime, graph
        self.models: list[MultiExitModel] = []
        self.subjects: list[tuple[int, ...]] = []

    def __call__(self, windows: Windows, fold: int) -> MultiExitModel:
        assert fold == len(self.models)
        self.subjects.append(windows.subjects)
        self.models.append(new_model(self.regime, graph=self.graph))
        return self.models[-1]


@pytest.fixture(scope="module")
def fitted():
    recorder = Recorder()
    return recorder, cross_fit(recorder, WINDOWS, FOLDS, epochs=EPOCHS, batch_size=20, seed=2)


@given(
    subjects=st.sets(st.integers(0, 99), min_size=2, max_size=30),
    n_folds=st.integers(2, 30),
    seed=st.integers(0, 5),
)
def test_folds_deal_subjects_out_evenly(subjects: set[int], n_folds: int, seed: int) -> None:
    if n_folds > len(subjects):
        with pytest.raises(InputError, match="`n_folds` must be from 2 to the number of training subjects"):
            subject_folds(tuple(subjects), n_folds, seed)
        return
    folds = subject_folds(tuple(subjects), n_folds, seed)
    assert sorted(subject for fold in folds for subject in fold) == sorted(subjects)
    sizes = [len(fold) for fold in folds]
    assert len(folds) == n_folds
    assert max(sizes) - min(sizes) <= 1
    assert folds == subject_folds(sorted(subjects, reverse=True), n_folds, seed)


def test_no_network_judges_whom_it_saw(fitted) -> None:
    recorder, found = fitted
    for fold, subjects, model in zip(found.folds, recorder.subjects, recorder.models, strict=True):
        assert not set(fold) & set(subjects)
        assert model.provenance.train_subjects == subjects
        assert set(fold) | set(subjects) == set(WINDOWS.subjects)


def test_logits_stand_in_the_order_of_their_windows(fitted) -> None:
    recorder, found = fitted
    assert sorted(found.windows.x.sum(axis=(1, 2))) == pytest.approx(sorted(WINDOWS.x.sum(axis=(1, 2))))
    assert found.logits.shape == (len(WINDOWS), 2, N_CLASSES)
    # The fold networks stand as the last epoch left them: where that was chosen, they say the same again.
    last = cross_fit(Recorder(), WINDOWS, FOLDS, epochs=EPOCHS, batch_size=20, seed=2)
    np.testing.assert_array_equal(last.logits, found.logits)
    for fold, model in zip(found.folds, recorder.models, strict=True):
        chosen = np.isin(found.windows.subject, fold)
        predicted = model.predict(found.windows.take(chosen), verbose=0)
        again = np.stack([predicted[exit_] for exit_ in model.exits], axis=1)
        assert np.allclose(again, found.logits[chosen], atol=1e-5) == (found.epochs == EPOCHS)


def test_held_out_inputs_saturate_where_those_of_the_network_for_use_will(fitted) -> None:
    recorder = Recorder()
    found = cross_fit(
        recorder, WINDOWS, FOLDS, epochs=1, batch_size=20, seed=2, last_share=1.0, input_limit=0.5
    )
    assert found.folds == fitted[1].folds
    np.testing.assert_array_equal(found.windows.x, fitted[1].windows.x)
    for fold, model in zip(found.folds, recorder.models, strict=True):
        chosen = np.isin(found.windows.subject, fold)
        held_out = found.windows.take(chosen)
        normalised = np.clip(model.normalisation.apply(held_out.x), -0.5, 0.5)
        predicted = model.network.predict(normalised, verbose=0)
        again = np.stack([predicted[exit_] for exit_ in model.exits], axis=1)
        np.testing.assert_allclose(again, found.logits[chosen], atol=1e-5)


def test_the_epoch_of_the_lowest_loss_is_chosen(fitted) -> None:
    _, found = fitted
    assert list(found.losses) == [1, 2, 3]
    assert found.losses[found.epochs] == min(found.losses.values())
    assert found.losses[found.epochs] == pytest.approx(log_loss(found.logits, found.windows.y))
    assert [[cost.epochs for cost in fold] for fold in found.costs] == [[EPOCHS]] * FOLDS


def test_log_loss_by_hand() -> None:
    logits = np.log(np.asarray([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], [[0.2, 0.2, 0.6], [1 / 3] * 3]]))
    y = np.asarray([0, 2])
    assert log_loss(logits + 7, y) == pytest.approx(-np.mean(np.log([0.5, 0.1, 0.6, 1 / 3])))


def test_a_refit_stops_after_the_epoch_of_the_plan() -> None:
    whole, stopped = new_model("2-3"), new_model("2-3")
    kept = {}

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            kept[epoch + 1] = [np.array(weight) for weight in self.model.network.weights]

    whole.fit(WINDOWS, epochs=6, batch_size=20, callbacks=[Keep()], verbose=0)
    history = stopped.fit(WINDOWS, epochs=6, batch_size=20, callbacks=[StopAfterEpoch(5)], verbose=0)
    assert history.epoch == [0, 1, 2, 3, 4]
    for weight, array in zip(stopped.network.weights, kept[5], strict=True):
        np.testing.assert_array_equal(np.asarray(weight), array)


def test_only_epochs_at_the_end_of_the_last_phase_can_be_chosen() -> None:
    found = cross_fit(Recorder("2-3", graph=True), WINDOWS, 2, epochs=6, batch_size=20, last_share=0.5)
    # The last phase has epochs 4 to 6.
    assert list(found.losses) == [5, 6]
    assert [[cost.phase for cost in fold] for fold in found.costs] == [["joint", "heads"]] * 2


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        if batch == 1 and self.epoch == 1:
            raise KeyboardInterrupt

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.epoch = epoch


def test_an_interrupted_cross_fit_goes_on_where_it_was(fitted, tmp_path: Path) -> None:
    _, uninterrupted = fitted
    options = {"epochs": EPOCHS, "batch_size": 20, "seed": 2, "checkpoint": tmp_path / "folds"}
    with pytest.raises(KeyboardInterrupt):
        cross_fit(
            Recorder(), WINDOWS, FOLDS, callbacks=lambda fold: [Interrupt()] if fold == 1 else [], **options
        )
    assert sorted(file.name for file in (tmp_path / "folds").iterdir()) == [
        "fold_01.npz",
        "fold_02.unfinished.npz",
    ]
    epochs_run: dict[int, list[int]] = {}

    def count(fold: int) -> list[keras.callbacks.Callback]:
        def note(epoch: int, logs: object) -> None:
            epochs_run.setdefault(fold, []).append(epoch)

        return [keras.callbacks.LambdaCallback(on_epoch_end=note)]

    resumed = cross_fit(Recorder(), WINDOWS, FOLDS, callbacks=count, **options)
    assert epochs_run == {1: [1, 2], 2: [0, 1, 2]}
    np.testing.assert_array_equal(resumed.logits, uninterrupted.logits)
    assert (resumed.losses, resumed.epochs) == (uninterrupted.losses, uninterrupted.epochs)
    with pytest.raises(InputError, match="`checkpoint` must belong to this training: same epochs"):
        cross_fit(Recorder(), WINDOWS, FOLDS, **{**options, "epochs": 4})


def test_a_class_that_one_fold_holds_alone_is_refused_before_any_training() -> None:
    alone = WINDOWS.take((WINDOWS.y != 2) | (WINDOWS.subject == 3))
    recorder = Recorder()
    with pytest.raises(InputError, match="must hold windows of every class"):
        cross_fit(recorder, alone, FOLDS, epochs=1)
    assert recorder.models == []


def test_windows_without_a_label_are_trained_on_and_never_judged() -> None:
    y = WINDOWS.y.copy()
    y[1::5] = UNLABELLED
    windows = Windows(WINDOWS.x, y, WINDOWS.subject, SENSOR, WINDOWS.classes, WINDOWS.name)
    found = cross_fit(Recorder("consistency"), windows, 2, epochs=1, batch_size=20)
    assert len(found.windows) == 96
    assert found.windows.labelled.all()


def test_thresholds_of_a_bundle_come_out_of_fold(fitted) -> None:
    _, found = fitted
    model = new_model()
    model.fit(WINDOWS, epochs=EPOCHS, batch_size=20, callbacks=[StopAfterEpoch(found.epochs)], verbose=0)
    with converting_in_this_process():
        exported = export(model, WINDOWS)
    bundle = calibrate_out_of_fold(
        exported, found.logits, found.windows, folds=len(found.folds), max_drop=0.5
    )
    calibration = bundle.manifest.policy.calibration
    assert (calibration.kind, calibration.folds) == ("out_of_fold", FOLDS)
    assert calibration.subjects == WINDOWS.subjects
    with pytest.raises(InputError, match="new to the bundle"):
        simulate(bundle, WINDOWS)
