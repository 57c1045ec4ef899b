"""What `fit` refuses, keeps and gives back, whatever the regime."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from fixtures_networks import N_CLASSES, SENSOR, TRAIN_REASON, counting_once, synthetic_windows

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
import tensorflow as tf
from keras import layers

from mexit_edge.errors import InputError, RunError
from mexit_edge.models.running_sum import add_running_sums
from mexit_edge.regimes import Boosted, Joint, Mixed, MultiExitEarlyStopping, MultiExitModel, Weighted
from mexit_edge.regimes.active_phase import ActivePhase
from mexit_edge.regimes.batches import weighted_by_class
from mexit_edge.signals import ChannelScale, Normalisation

pytestmark = pytest.mark.train
WINDOWS = synthetic_windows(48)
IDENTITY = Normalisation.identity(3)


@pytest.fixture(scope="module", autouse=True)
def _counted_once() -> Iterator[None]:
    with counting_once():
        yield


def network() -> keras.Model:
    window = keras.Input(SENSOR.shape, name="window")
    features, outputs = window, {}
    for number in (1, 2, 3):
        features = layers.Conv1D(4, 3, strides=2, activation="relu", name=f"block_{number}")(features)
        pooled = layers.GlobalAveragePooling1D()(features)
        outputs[f"exit_{number:02d}"] = layers.Dense(N_CLASSES, name=f"exit_{number:02d}")(pooled)
    return keras.Model(window, outputs)


def compiled(
    regime: object = "joint", optimizer: object = None, *, graph: bool = False, **options: object
) -> MultiExitModel:
    """Step by step in Python, since a few steps cost less than a graph."""
    keras.utils.set_random_seed(5)
    model = MultiExitModel(network(), regime, **options)
    model.compile(optimizer or keras.optimizers.SGD(0.05), run_eagerly=not graph)
    return model


class InterruptAfter(keras.callbacks.Callback):
    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        if epoch == self.epochs:
            raise KeyboardInterrupt


def interrupted(path: Path, epochs: int = 4, after: int = 2, **options: object) -> MultiExitModel:
    model = compiled(**options)
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            WINDOWS,
            batch_size=16,
            epochs=epochs,
            checkpoint=path,
            verbose=0,
            callbacks=[
                keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.9 * rate),
                InterruptAfter(after),
            ],
        )
    return model


def test_initial_epoch_does_not_go_with_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    model = interrupted(path)
    with pytest.raises(InputError, match="`initial_epoch` must be 0 with `checkpoint`"):
        model.fit(WINDOWS, epochs=4, initial_epoch=2, checkpoint=path, verbose=0)
    assert path.exists()


def test_the_same_model_goes_on_although_a_callback_changed_the_rate(tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    model = interrupted(path)
    history = model.fit(WINDOWS, batch_size=16, epochs=4, checkpoint=path, verbose=0)
    assert history.epoch == [0, 1, 2, 3]
    assert not path.exists()


@pytest.mark.parametrize(
    ("windows", "options", "differs"),
    [
        (WINDOWS.of_subjects([0, 1, 2, 3, 4]), {}, "(subjects|windows)"),
        (WINDOWS, {"class_weight": {0: 2.0}}, "weights of windows"),
    ],
)
def test_a_checkpoint_knows_its_windows_and_weights(
    tmp_path: Path, windows: object, options: dict, differs: str
) -> None:
    path = tmp_path / "fit.npz"
    interrupted(path)
    with pytest.raises(InputError, match=f"`checkpoint` must belong to this training: same {differs}"):
        compiled().fit(windows, batch_size=16, epochs=4, checkpoint=path, verbose=0, **options)


def test_a_checkpoint_knows_perturbations_and_the_kind_of_data(tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    interrupted(path)
    with pytest.raises(InputError, match="same perturbations"):
        compiled(perturbations=(ChannelScale(0.3),)).fit(
            WINDOWS, batch_size=16, epochs=4, checkpoint=path, verbose=0
        )
    with pytest.raises(InputError, match="`checkpoint` must belong to this training"):
        compiled().fit(data_set(), epochs=4, checkpoint=path, verbose=0)
    with pytest.raises(InputError, match="`steps_per_epoch` must be left out with `checkpoint`"):
        compiled().fit(data_set(), epochs=4, steps_per_epoch=2, checkpoint=tmp_path / "new", verbose=0)


def data_set() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((WINDOWS.x, WINDOWS.y)).batch(16)


def test_a_refused_fit_leaves_no_normalisation() -> None:
    model = compiled(Weighted())
    with pytest.raises(InputError, match="`batch_size` must be even"):
        model.fit(WINDOWS, batch_size=3, verbose=0)
    assert model.normalisation is None


class Labelled(keras.utils.PyDataset):
    def __init__(self, y: np.ndarray) -> None:
        super().__init__()
        self.y = y

    def __len__(self) -> int:
        return 3

    def __getitem__(self, step: int) -> tuple:
        chosen = slice(16 * step, 16 * (step + 1))
        return WINDOWS.x[chosen], self.y[chosen]


def test_labels_of_every_kind_of_data_are_checked() -> None:
    wrong = np.where(np.arange(48) == 40, -1, WINDOWS.y)
    # As a graph, which checks while it runs.
    model = compiled(graph=True)
    model.fit(Labelled(WINDOWS.y), validation_data=Labelled(WINDOWS.y), verbose=0)
    for use in (
        lambda: model.fit(Labelled(wrong), verbose=0),
        lambda: model.fit(Labelled(WINDOWS.y), validation_data=Labelled(wrong), verbose=0),
        lambda: model.evaluate(Labelled(wrong), verbose=0),
        lambda: model.evaluate(WINDOWS.x, wrong, verbose=0),
    ):
        with pytest.raises((InputError, tf.errors.InvalidArgumentError), match="must hold class indices"):
            use()
    with pytest.raises(InputError, match="Received: generator"):
        model.fit((one for one in ()), verbose=0)


@pytest.mark.parametrize("argument", ["metrics", "weighted_metrics"])
def test_metrics_are_refused(argument: str) -> None:
    with pytest.raises(InputError, match=f"`{argument}` must not be given"):
        MultiExitModel(network()).compile("adam", **{argument: ["accuracy"]})


def test_fit_needs_compile_and_a_batch() -> None:
    with pytest.raises(InputError, match="`compile` must be called before `fit`"):
        MultiExitModel(network()).fit(WINDOWS, verbose=0)
    with pytest.raises(InputError, match=r"`batch_size` must be at least 1\. Received: 0"):
        compiled().fit(WINDOWS, batch_size=0, verbose=0)


def test_windows_without_a_label_weigh_1_in_a_data_set_too() -> None:
    data = tf.data.Dataset.from_tensor_slices((np.zeros(4), np.asarray([-1, 0, 1, -1]))).batch(4)
    ((_, _, weights),) = list(weighted_by_class(data, [5.0, 0.0]))
    assert weights.numpy().tolist() == [1, 5, 0, 1]


def test_equilibrium_counts_the_exits_of_the_phase() -> None:
    model = MultiExitModel(network(), Mixed(gradient_equilibrium=True))
    kernels = [model.network.get_layer(f"block_{number}").kernel for number in (1, 2, 3)]
    backbone, joint = model.regime.phases(3)
    model.active = ActivePhase(model.network, model.anatomy, backbone)
    assert model.equilibrium(kernels) == [1, 1, 1]
    model.active = ActivePhase(model.network, model.anatomy, joint)
    assert model.equilibrium(kernels) == pytest.approx([1 / 3, 1 / 2, 1])


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """One's own, and not registered with Keras."""

    def __call__(self, step: object) -> object:
        return 0.1 * 0.5 ** (tf.cast(step, tf.float32) / 6)

    def get_config(self) -> dict:
        return {}


def test_phases_take_a_schedule_of_ones_own() -> None:
    rates = []
    model = compiled("mixed", keras.optimizers.SGD(Halving()))
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: rates.append(float(model.optimizer.learning_rate))
    )
    model.fit(WINDOWS, batch_size=16, epochs=4, callbacks=[note], verbose=0)
    # Three steps an epoch at twice the pace of a schedule for all twelve.
    assert rates == pytest.approx([0.05, 0.025, 0.05, 0.025])


def test_a_csv_logger_is_given_back_as_it_came(tmp_path: Path) -> None:
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    compiled("2-3").fit(WINDOWS, batch_size=16, epochs=2, callbacks=[logger], verbose=0)
    assert logger.append is False
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("perturbations", "after"), [("auto", "auto"), ((), ()), ((ChannelScale(0.2),), None)]
)
def test_a_file_knows_whether_windows_are_perturbed(
    tmp_path: Path, perturbations: object, after: object
) -> None:
    compiled(perturbations=perturbations).save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    model.run_eagerly = True
    assert model.perturbations == after
    if after is None:
        with pytest.raises(InputError, match="`perturbations` must be set again after loading"):
            model.fit(WINDOWS, verbose=0)
        model.perturbations = perturbations
    model.fit(WINDOWS, batch_size=16, verbose=0)


def test_running_sums_keep_their_ratio() -> None:
    boosted = add_running_sums(network(), 0.5)
    assert MultiExitModel(boosted, Boosted()).network is boosted
    with pytest.raises(InputError, match="`ratio` must be that of the network's running sums"):
        MultiExitModel(boosted, Boosted(ratio=0.9))


def test_a_phase_without_anything_to_learn_is_refused_before_the_first_epoch() -> None:
    window = keras.Input(SENSOR.shape)
    first = layers.Dense(N_CLASSES, name="exit_01")(layers.Flatten()(window))
    cascaded = keras.Model(window, {"exit_01": first, "exit_02": layers.Dense(N_CLASSES)(first)})
    model = MultiExitModel(cascaded, "1-2-3")
    model.compile("sgd")
    seen = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: pytest.fail("it began"))
    with pytest.raises(InputError, match="must have weights that learn in the phase 'heads'"):
        model.fit(WINDOWS, epochs=3, callbacks=[seen], verbose=0)


def test_progress_counts_epochs_done_before_and_the_steps_asked_for() -> None:
    model = compiled(Joint(exit_weights="sdn"))
    counts = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: counts.append((int(model.step), int(model.n_steps)))
    )
    model.fit(WINDOWS, batch_size=16, epochs=4, initial_epoch=2, callbacks=[note], verbose=0)
    assert counts == [(9, 12), (12, 12)]
    assert [(cost.steps, cost.epochs) for cost in model.training_cost] == [(6, 2)]
    counts.clear()
    model.fit(data_set().repeat(), epochs=2, steps_per_epoch=2, callbacks=[note], verbose=0)
    assert counts == [(2, 4), (4, 4)]


def test_what_a_spoilt_step_has_seen_is_noted() -> None:
    model = compiled()
    model.network.get_layer("exit_02").bias.assign(np.full(N_CLASSES, np.nan))
    with pytest.raises(RunError, match="exit_02"):
        model.fit(WINDOWS, batch_size=16, verbose=0)
    assert model.provenance.train_subjects == WINDOWS.subjects


def test_some_epoch_can_be_the_best() -> None:
    with pytest.raises(InputError, match="`last_share` must be positive"):
        MultiExitEarlyStopping(last_share=0)


def test_each_seed_begins_with_weights_of_its_own_for_the_weight_network() -> None:
    def first(seed: int) -> np.ndarray:
        return np.asarray(
            MultiExitModel(network(), "weighted", seed=seed).regime_state.weight_network.weights[0]
        )

    assert np.array_equal(first(1), first(1))
    assert not np.array_equal(first(1), first(2))
