"""A fit that is interrupted and called again equals one that was not, to the bit."""

from __future__ import annotations

import io
import json
import pickle
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_networks import N_CLASSES, SENSOR, TRAIN_REASON, leaving_out_the_count, synthetic_windows

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
from keras import layers

from mexit_edge.errors import InputError, RunError
from mexit_edge.regimes import REGIMES, MultiExitEarlyStopping, MultiExitModel, make_regime
from mexit_edge.regimes.checkpoint import HEADER, Checkpoint
from mexit_edge.regimes.fitting import _Fit
from mexit_edge.signals import Windows

pytestmark = pytest.mark.train
BATCH = 16
TRAIN, VALIDATION = synthetic_windows(40), synthetic_windows(16, seed=1)


COUNT = _Fit._macs_per_window


@pytest.fixture(scope="module", autouse=True)
def _uncounted() -> Iterator[None]:
    with leaving_out_the_count():
        yield


def network_of(units: int = 5, dropout: float = 0.2) -> keras.Model:
    """Two exits, with batch normalisation and dropout; no layer has a name of its own but the exits."""
    window = keras.Input(SENSOR.shape, name="window")
    x = layers.Conv1D(units, 5, strides=4, use_bias=False)(window)
    x = layers.Dropout(dropout)(layers.ReLU()(layers.BatchNormalization()(x)))
    exit_01 = layers.Dense(N_CLASSES, name="exit_01")(layers.GlobalAveragePooling1D()(x))
    x = layers.Dropout(dropout)(layers.Dense(6, activation="relu")(layers.Flatten()(x)))
    return keras.Model(window, {"exit_01": exit_01, "exit_02": layers.Dense(N_CLASSES, name="exit_02")(x)})


def new_model(
    regime: Any, *, rate: float = 0.01, seed: int = 3, graph: bool = False, **options: Any
) -> MultiExitModel:
    """A fresh model with the same beginning every time.

    Tracing takes most of these tests' time. Step by step in Python, a fit resumes by the same rules; `graph`
    is for the tests that go through the whole of it.
    """
    keras.utils.set_random_seed(11)
    model = MultiExitModel(network_of(), regime, seed=seed, **options)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, 20)),
        run_eagerly=not graph,
    )
    return model


class Interrupt(keras.callbacks.Callback):
    """Ends the training as a user at the keyboard would.

    Args:
        epoch: from 0.
        moment: ``step`` is the second of the epoch; ``begin`` before its first; ``end`` after its last.
    """

    def __init__(self, epoch: int | None, moment: str = "step") -> None:
        super().__init__()
        self.at, self.moment = epoch, moment

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        self._maybe("begin")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 1:
            self._maybe("step")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._maybe("end")

    def _maybe(self, moment: str) -> None:
        if (self.epoch, moment) == (self.at, self.moment):
            raise KeyboardInterrupt


def fit(
    model: MultiExitModel, *more: Any, data: Any = TRAIN, epochs: int = 4, stop: Any = None, **options: Any
) -> Any:
    x, y = data if isinstance(data, tuple) else (data, None)
    # It may end phases early, which the resumed fit has to do at the same epoch.
    early = MultiExitEarlyStopping(patience=2) if stop is None else stop
    options = {"validation_data": VALIDATION, "batch_size": BATCH, "verbose": 0, **options}
    return model.fit(x, y, epochs=epochs, callbacks=[early, *more], **options)


def assert_same(one: MultiExitModel, history: Any, other: MultiExitModel, other_history: Any) -> None:
    """The same network, History and cost; NaN equals NaN."""
    for left, right in zip(one.network.variables, other.network.variables, strict=True):
        np.testing.assert_array_equal(np.array(left), np.array(right))
    for left, right in zip(one.regime_state.variables, other.regime_state.variables, strict=True):
        np.testing.assert_array_equal(np.array(left), np.array(right))
    x = VALIDATION.x
    # One batch of equal weights: no graph is needed to see that the exits are wired as before.
    one.run_eagerly = other.run_eagerly = True
    logits = other.predict(x, verbose=0)
    for exit_, values in one.predict(x, verbose=0).items():
        np.testing.assert_array_equal(values, logits[exit_])
    assert history.epoch == other_history.epoch == list(range(len(history.epoch)))
    assert list(history.history) == list(other_history.history)
    for name, values in history.history.items():
        np.testing.assert_array_equal(values, other_history.history[name], err_msg=name)
    # Time and memory are measured; all else is counted.
    counted = [
        [replace(cost, measured_seconds=0.0, measured_peak_memory_bytes=None) for cost in model.training_cost]
        for model in (one, other)
    ]
    assert counted[0] == counted[1]
    assert one.provenance == other.provenance


def assert_resumes(
    tmp_path: Path, make: Any, interrupts: list[tuple[int, str]], epochs: int = 4, **options: Any
) -> tuple[MultiExitModel, Any]:
    """Fit without an interrupt, and once more with all of them, each time in a fresh model."""
    whole = make()
    history = fit(whole, epochs=epochs, **options)
    path = tmp_path / "fit.checkpoint"
    for epoch, moment in interrupts:
        with pytest.raises(KeyboardInterrupt):
            fit(make(), Interrupt(epoch, moment), epochs=epochs, checkpoint=path, **options)
        assert [one.name for one in tmp_path.iterdir()] == ["fit.checkpoint"]
    resumed = make()
    assert_same(whole, history, resumed, fit(resumed, epochs=epochs, checkpoint=path, **options))
    # Removed after success, and nothing else is left behind.
    assert list(tmp_path.iterdir()) == []
    return whole, history


# --- An interrupt inside an epoch ---------------------------------------------------------------------------


def inside_each_phase(regime: str) -> list[int]:
    """The last epoch of every phase of two epochs or more, so that one of its epochs is done before."""
    n_phases = len(make_regime(regime).phases(2))
    return [2 * number + 1 for number in range(n_phases)]


@pytest.mark.parametrize("regime", list(REGIMES))
def test_a_fit_interrupted_in_every_phase_equals_one_that_was_not(regime: str, tmp_path: Path) -> None:
    interrupts = inside_each_phase(regime)
    epochs = 2 * len(interrupts) if len(interrupts) > 1 else 3
    # One regime of several phases goes through graphs: how they are traced is Keras' own.
    assert_resumes(
        tmp_path,
        lambda: new_model(regime, graph=regime == "mixed"),
        [(epoch, "step") for epoch in interrupts],
        epochs,
    )


OPTIONS = {
    "running loss": ("mixed", {"exit_weights": "inverse_running_loss"}),
    "annealed": ("distill", {"anneal": True, "temperature": 0.2}),
    "schedule of weights": ("joint", {"exit_weights": "sdn"}),
}


@pytest.mark.parametrize("name", list(OPTIONS))
def test_what_a_regime_remembers_is_kept(name: str, tmp_path: Path) -> None:
    regime, options = OPTIONS[name]
    epochs = 4 if regime == "mixed" else 2
    whole, _ = assert_resumes(
        tmp_path, lambda: new_model(make_regime(regime, **options)), [(epochs - 1, "step")], epochs
    )
    if name == "running loss":
        assert all(float(loss) != 1.0 for loss in whole.regime_state.running_losses)
    if name == "annealed":
        assert float(whole.regime_state.temperature) > 0.21


def test_arrays_go_on_too(tmp_path: Path) -> None:
    # A ragged last batch: 40 windows in steps of 16.
    data = (TRAIN.x, TRAIN.y)
    weights = {"sample_weight": np.linspace(0.5, 1.5, len(TRAIN.y))}
    validation = {"validation_data": (VALIDATION.x, VALIDATION.y)}
    assert_resumes(tmp_path, lambda: new_model("joint"), [(1, "step")], 2, data=data, **weights, **validation)


# --- At the border of two phases ----------------------------------------------------------------------------


def test_an_interrupt_at_the_border_of_two_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The resumed fit counts what a step computes on its own, and its costs are the same.
    monkeypatch.setattr(_Fit, "_macs_per_window", COUNT)
    # After the last epoch of phase 1, before its checkpoint and after it; before the first step of phase 2.
    interrupts = [(1, "end"), (2, "begin"), (2, "step")]
    whole, _ = assert_resumes(tmp_path, lambda: new_model("mixed"), interrupts, 4)
    assert all(cost.forward_macs and cost.backward_macs for cost in whole.training_cost)


class KillBorder(keras.callbacks.Callback):
    """Interrupts when a phase has ended, before the next begins."""

    def on_train_end(self, logs: Any = None) -> None:
        raise KeyboardInterrupt


class Rising(keras.callbacks.Callback):
    """Validation losses that rise from the first epoch on, so that phases end early at a known epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs.update({f"val_{exit_}_loss": 1.0 + epoch for exit_ in self.model.exits})


@pytest.mark.parametrize("kill", [KillBorder, lambda: Interrupt(3, "begin")], ids=["before", "after"])
def test_an_interrupt_after_a_phase_that_ended_early(kill: Any, tmp_path: Path) -> None:
    # Of 12 epochs in two phases, patience 2 leaves 3 + 3.
    path = tmp_path / "fit.checkpoint"
    whole, cut, resumed = (new_model("mixed") for _ in range(3))

    def run(model: MultiExitModel, *more: Any, **options: Any) -> Any:
        stop = MultiExitEarlyStopping(patience=2)
        return fit(model, stop, *more, stop=Rising(), epochs=12, **options)

    history = run(whole)
    assert history.history["phase"] == [1, 1, 1, 2, 2, 2]
    with pytest.raises(KeyboardInterrupt):
        run(cut, kill(), checkpoint=path)
    assert path.exists()
    assert_same(whole, history, resumed, run(resumed, checkpoint=path))
    assert not path.exists()


def test_an_interrupt_after_the_last_epoch(tmp_path: Path) -> None:
    path = tmp_path / "fit.checkpoint"
    whole, cut, resumed = (new_model("joint") for _ in range(3))
    history = fit(whole, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        fit(cut, KillBorder(), epochs=2, checkpoint=path)
    assert_same(whole, history, resumed, fit(resumed, epochs=2, checkpoint=path))


# --- Another process ----------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import test_resume
import keras
import numpy as np

folder, kill = Path(sys.argv[2]), sys.argv[3] == "kill"

class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.windows_seen) > 2 * 32 and self.model.active.phase.name == "joint":
            os.kill(os.getpid(), signal.SIGKILL)

model = test_resume.new_model("mixed", graph=True)
history = test_resume.fit(model, *([Kill()] if kill else []), checkpoint=folder / "fit.checkpoint", epochs=6)
np.savez(folder / "weights.npz", *[np.array(one) for one in model.network.variables])
np.savez(folder / "history.npz", **history.history)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_a_killed_process_is_taken_up_by_another(tmp_path: Path) -> None:
    def child(kill: str) -> int:
        command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(tmp_path), kill]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr[-2000:]
        return done.returncode

    assert child("kill") == -signal.SIGKILL
    assert [one.name for one in tmp_path.iterdir()] == ["fit.checkpoint"]
    position = Checkpoint.load(tmp_path / "fit.checkpoint").position
    assert (position["phase"], position["epochs_done"]) == (1, 5)
    assert child("go on") == 0
    model = new_model("mixed", graph=True)
    history = fit(model, epochs=6).history
    with np.load(tmp_path / "weights.npz") as stored:
        for left, right in zip(model.network.variables, stored.values(), strict=True):
            np.testing.assert_array_equal(np.array(left), right)
    with np.load(tmp_path / "history.npz") as stored:
        assert set(stored.files) == set(history)
        for name, values in history.items():
            np.testing.assert_array_equal(values, stored[name])


# --- What is refused ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The checkpoint of one epoch of joint training."""
    path = tmp_path_factory.mktemp("interrupted") / "fit.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit(new_model("joint"), Interrupt(1, "begin"), epochs=3, checkpoint=path)
    return path.read_bytes()


def other_network() -> MultiExitModel:
    keras.utils.set_random_seed(11)
    model = MultiExitModel(network_of(units=6), "joint", seed=3)
    model.compile(optimizer=new_model("joint").optimizer)
    return model


def other_optimizer() -> MultiExitModel:
    model = new_model("joint")
    model.compile(optimizer="sgd")
    return model


@pytest.mark.parametrize(
    ("make", "options", "what"),
    [
        (other_network, {}, "network"),
        (lambda: new_model("alternating"), {}, "regime"),
        (lambda: new_model(make_regime("joint", exit_weights="linear")), {}, "regime"),
        (lambda: new_model("joint"), {"epochs": 4}, "epochs"),
        (lambda: new_model("joint", seed=4), {}, "seed"),
        (other_optimizer, {}, "optimizer"),
        (lambda: new_model("joint", rate=0.005), {}, "optimizer"),
        (lambda: new_model("joint"), {"batch_size": 8}, "batch_size"),
        (lambda: new_model("joint"), {"data": TRAIN.of_subjects([0, 1, 2, 3])}, "windows"),
        (lambda: new_model("joint"), {"stop": Interrupt(None)}, "callbacks"),
        (lambda: new_model("joint"), {"stop": MultiExitEarlyStopping(patience=5)}, "callbacks"),
    ],
    ids=[
        *("network", "regime", "option of the regime", "epochs", "seed", "optimizer", "learning rate"),
        *("batch size", "windows", "no early stopping", "other patience"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    make: Any, options: dict[str, Any], what: str, interrupted: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "fit.checkpoint"
    path.write_bytes(interrupted)
    message = rf"`checkpoint` must belong to this training: same {what}\. .*remove the file"
    with pytest.raises(InputError, match=message):
        fit(make(), checkpoint=path, **{"epochs": 3, **options})
    # Not ours to remove.
    assert path.read_bytes() == interrupted


def test_early_stopping_added_later_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fit.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit(new_model("joint"), stop=Interrupt(1, "begin"), checkpoint=path)
    with pytest.raises(InputError, match=r"same callbacks\. "):
        fit(new_model("joint"), checkpoint=path)


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{HEADER: np.asarray([Path("/"), object], dtype=object)})
    return buffer.getvalue()


def archive_of(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def header(value: Any) -> bytes:
    return archive_of(**{HEADER: np.frombuffer(json.dumps(value).encode(), np.uint8)})


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    return buffer.getvalue()


FOREIGN = {
    "empty": lambda whole: b"",
    "text": lambda whole: b"epoch,loss\n1,0.5\n",
    "plain pickle": lambda whole: pickle.dumps({"weights": [1, 2]}),
    "pickled header": lambda whole: pickled(),
    "half": lambda whole: whole[: len(whole) // 2],
    "without its last byte": lambda whole: whole[:-1],
    "flipped": lambda whole: whole[:2000] + bytes(255 - one for one in whole[2000:2064]) + whole[2064:],
    "another archive": lambda whole: zipped(),
    "arrays alone": lambda whole: archive_of(array_00000=np.zeros(3)),
    "one array": lambda whole: _npy(),
    "header of text": lambda whole: header("version 1"),
    "other version": lambda whole: header({"version": 99}),
    "header without the rest": lambda whole: header({"version": 1}),
    "fewer arrays": lambda whole: header(
        {
            "version": 1,
            "fingerprint": {},
            "position": {},
            "variables": 0,
            "callbacks": [{"plain": {}, "arrays": 2}],
        }
    ),
}


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", list(FOREIGN))
def test_a_broken_or_foreign_file_is_refused(kind: str, interrupted: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fit.checkpoint"
    path.write_bytes(FOREIGN[kind](interrupted))
    message = r"`checkpoint` must be a file that an interrupted `fit` left. Received: .*Remove it"
    with pytest.raises(InputError, match=message):
        Checkpoint.load(path)


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`checkpoint` must be a file that an interrupted `fit` left"):
        fit(new_model("joint"), checkpoint=tmp_path)


def test_a_refused_file_stops_the_fit_before_its_first_step(tmp_path: Path) -> None:
    path = tmp_path / "fit.checkpoint"
    path.write_bytes(b"not ours")
    model = new_model("joint")
    before = [np.array(one) for one in model.network.variables]
    with pytest.raises(InputError, match="`checkpoint`"):
        fit(model, checkpoint=path)
    for left, right in zip(before, model.network.variables, strict=True):
        np.testing.assert_array_equal(left, np.array(right))
    assert path.read_bytes() == b"not ours"


# --- The file -----------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_last_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fit.checkpoint"
    whole, cut, resumed = (new_model("joint") for _ in range(3))
    history = fit(whole, epochs=3)
    real, written = Path.write_bytes, []

    def full_disk(self: Path, data: bytes) -> int:
        if self.name != path.name:
            return real(self, data)
        written.append(len(data))
        if len(written) == 2:
            real(self, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        fit(cut, epochs=3, checkpoint=path)
    assert [one.name for one in tmp_path.iterdir()] == ["fit.checkpoint"]
    assert Checkpoint.load(path).position["epochs_done"] == 1
    assert_same(whole, history, resumed, fit(resumed, epochs=3, checkpoint=path))


def test_the_folder_of_a_checkpoint_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "fit.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit(new_model("joint"), Interrupt(1, "begin"), epochs=2, checkpoint=str(path))
    assert [one.name for one in path.parent.iterdir()] == ["fit.checkpoint"]


def test_a_learning_rate_set_by_a_callback_does_not_make_another_training(tmp_path: Path) -> None:
    def make() -> MultiExitModel:
        model = new_model("joint")
        model.compile(optimizer=keras.optimizers.SGD(0.1))
        return model

    def slower() -> Any:
        return keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))

    path = tmp_path / "fit.checkpoint"
    whole, resumed = make(), make()
    history = fit(whole, slower(), epochs=3)
    with pytest.raises(KeyboardInterrupt):
        fit(make(), slower(), Interrupt(2), epochs=3, checkpoint=path)
    assert_same(whole, history, resumed, fit(resumed, slower(), epochs=3, checkpoint=path))


# --- A loss that is no finite number ------------------------------------------------------------------------


class Poison(keras.callbacks.Callback):
    """Makes a head's bias infinite before a step, so that its loss is not finite from that step on.

    Args:
        epoch: from 0.
        batch: of the epoch, from 0; with several steps per execution the first of one.
        layer: whose bias.
    """

    def __init__(self, epoch: int, batch: int, layer: str) -> None:
        super().__init__()
        self.at, self.layer = (epoch, batch), layer

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if (self.epoch, batch) == self.at:
            bias = self.model.network.get_layer(self.layer).bias
            bias.assign(np.full(bias.shape, np.nan, np.float32))


@pytest.mark.parametrize(
    ("regime", "at", "layer", "said"),
    [
        (
            "joint",
            (1, 1),
            "exit_01",
            "step 2 of epoch 2, phase 'joint'",
        ),
        (
            "mixed",
            (0, 0),
            "exit_02",
            "step 1 of epoch 1, phase 'backbone'",
        ),
        (
            "mixed",
            (3, 1),
            "exit_01",
            "step 2 of epoch 4, phase 'joint'",
        ),
    ],
)
def test_the_message_names_step_exit_epoch_and_phase(
    regime: str, at: tuple[int, int], layer: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "fit.checkpoint"
    with pytest.raises(
        RunError, match=rf"Received: {layer}, the regime's loss without at {said}\. "
    ) as caught:
        # The first regime as a graph, in which nothing is known before the step has ended.
        fit(new_model(regime, graph=regime == "joint"), Poison(*at, layer), checkpoint=path)
    if at[0] == 0:
        assert "kept" not in str(caught.value)
        assert not path.exists()
        return
    assert str(path) in str(caught.value)
    # The weights of the last whole epoch, without the poison: going on without it is as if it never was.
    stored = Checkpoint.load(path)
    assert stored.position["epochs_done"] == at[0]
    assert all(np.isfinite(array).all() for array in stored.variables)
    whole, resumed = (new_model(regime, graph=regime == "joint") for _ in range(2))
    assert_same(whole, fit(whole), resumed, fit(resumed, checkpoint=path))


def extreme_at(number: int) -> Windows:
    """Windows of which one is so large that the network's arithmetic overflows."""
    x = TRAIN.x.copy()
    x[number] = 1e38
    return replace(TRAIN, x=x)


@pytest.mark.parametrize("per_execution", [1, 2, 4])
def test_the_step_of_an_extreme_sample_is_found(per_execution: int, tmp_path: Path) -> None:
    # Where the sample comes in an epoch is worked out from (seed, epoch), independently of the training.
    y = TRAIN.y
    number = int(np.random.default_rng((3, 0)).permutation(len(y))[14])
    # Validation would be traced too.
    plain = {"stop": Interrupt(None), "validation_data": None}
    x, step = extreme_at(number).x, 14 // 4
    model = new_model("joint", perturbations=())
    model.compile(optimizer=keras.optimizers.SGD(0.01), steps_per_execution=per_execution)
    with pytest.raises(
        RunError, match=rf"at step {step + 1} of epoch 1, phase 'joint'\. .*Give `checkpoint`"
    ):
        fit(model, data=(x, y), batch_size=4, **plain)
    # The other windows are harmless.
    model = new_model("joint")
    model.compile(optimizer=keras.optimizers.SGD(0.01), steps_per_execution=per_execution)
    history = fit(model, data=(TRAIN.x, y), batch_size=4, epochs=1, **plain)
    assert np.isfinite(history.history["loss"]).all()


def test_a_lower_learning_rate_begins_anew_as_the_message_says(tmp_path: Path) -> None:
    path = tmp_path / "fit.checkpoint"
    with pytest.raises(RunError) as caught:
        fit(new_model("joint"), Poison(1, 0, "exit_01"), checkpoint=path)
    assert f"kept in {path}" in str(caught.value)
    # Another learning rate is another training.
    with pytest.raises(InputError, match=r"same optimizer\. .*remove the file"):
        fit(new_model("joint", rate=0.001), checkpoint=path)
    assert "remove it to train with another learning rate" in str(caught.value)
    path.unlink()
    history = fit(new_model("joint", rate=0.001), checkpoint=path)
    assert np.isfinite(history.history["loss"]).all()
    assert list(tmp_path.iterdir()) == []
