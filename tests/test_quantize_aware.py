"""Fake-quantized networks become true int8; every regime fine-tunes them; files and checkpoints hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_networks import (
    N_CLASSES,
    NETWORKS,
    SENSOR,
    TRAIN_REASON,
    converting_in_this_process,
    int8_logits,
    leaving_out_the_count,
    randomise,
    synthetic_windows,
)

pytest.importorskip("tensorflow", reason=TRAIN_REASON)

import keras
from keras import layers as kl
from rich.console import Console
from typer.testing import CliRunner

from mexit_edge.cli import training
from mexit_edge.cli.app import app
from mexit_edge.cli.progress import JobProgress
from mexit_edge.cli.settings import TrainSettings
from mexit_edge.compress import Quantization, convert, export
from mexit_edge.compress.fake_quant import carries_ranges, fake_quants
from mexit_edge.compress.quantize_aware import fine_tuning_epochs, quantize_aware
from mexit_edge.data import Split
from mexit_edge.errors import InputError
from mexit_edge.models import build, join_inputs
from mexit_edge.models.anatomy import anatomy
from mexit_edge.models.running_sum import add_running_sums
from mexit_edge.regimes import REGIMES, MultiExitModel, make_regime
from mexit_edge.tflite import Graph, audit_int8

pytestmark = pytest.mark.train
WINDOWS = synthetic_windows(96)
# Kernels round once more here and there. With random weights one such step grows behind sums, products and
# further layers; elsewhere it stays one.
MOST_STEPS = {"dscnn": 2, "cascaded": 3, "attached": 4, "boosted": 3, "branches": 5}


@pytest.fixture(scope="module", autouse=True)
def _uncounted() -> Iterator[None]:
    with leaving_out_the_count():
        yield


def branches_network() -> keras.Model:
    """Branches of several ranges, pooled and plain, concatenated twice; a gate; averages on both sides."""
    window = keras.Input(SENSOR.shape, name="window")
    stem = kl.Conv1D(6, 3, padding="same", activation="relu")(window)
    pooled = kl.MaxPooling1D(3, 1, padding="same")(stem)
    left = kl.Conv1D(6, 1, padding="same", activation="relu")(stem)
    inner = kl.Concatenate()([pooled, left])
    gate = kl.Dense(12, activation="sigmoid")(kl.GlobalAveragePooling1D(keepdims=True)(inner))
    outer = kl.Concatenate()([kl.Multiply()([inner, gate]), inner, pooled])
    late = kl.AveragePooling1D(2)(kl.LeakyReLU(0.1)(kl.SeparableConv1D(8, 3, padding="same")(outer)))
    outputs = {
        f"exit_{number:02d}": kl.Dense(N_CLASSES, name=f"exit_{number:02d}")(kl.Flatten()(features))
        for number, features in enumerate((inner, late), start=1)
    }
    return keras.Model(window, outputs)


def joined_network() -> keras.Model:
    """Two sensors in one window; a layer's name is what the range at the entrance would be called."""
    left, right = keras.Input((32, 2), name="left"), keras.Input((32, 2), name="right")
    one = kl.Conv1D(4, 3, padding="same", activation="relu", name="window_range")(left)
    both = kl.Concatenate()([one, kl.Conv1D(4, 3, padding="same", activation="relu")(right)])
    late = kl.Conv1D(6, 3, strides=2, activation="relu")(both)
    outputs = {
        f"exit_{number:02d}": kl.Dense(N_CLASSES, name=f"exit_{number:02d}")(kl.Flatten()(features))
        for number, features in enumerate((one, late), start=1)
    }
    model = keras.Model([left, right], outputs)
    return join_inputs(model, {"left": [2, 0], "right": [0, 1]})


INT8_NETWORKS: dict[str, Callable[[], keras.Model]] = {
    **{name: NETWORKS[name] for name in ("dscnn", "residual", "dilated", "cascaded", "attached")},
    "boosted": lambda: add_running_sums(NETWORKS["dscnn"](), 0.5),
    "branches": branches_network,
    "joined": joined_network,
}


@pytest.mark.parametrize("name", list(INT8_NETWORKS))
def test_int8_computes_what_the_network_says(name: str) -> None:
    keras.utils.set_random_seed(1)
    network, x = randomise(INT8_NETWORKS[name]()), WINDOWS.x.astype(np.float32)
    if any(isinstance(layer, kl.BatchNormalization) for layer in network.layers):
        # Statistics of these windows: with others hardly anything of them would reach the logits.
        for _ in range(40):
            network(x, training=True)
    aware = quantize_aware(network, x)
    assert anatomy(aware).exits == anatomy(network).exits
    with converting_in_this_process():
        whole = convert(aware)
    audit_int8(whole)
    if name == "dscnn":
        # Averages beside maxima borrow the range: one scale on both sides of the concatenation.
        assert "QUANTIZE" not in {operator.name for operator in Graph(whole).operators}
    expected, floats = aware(x), network(x)
    for exit_, (logits, scale) in int8_logits(whole, x).items():
        steps = np.abs(logits - np.asarray(expected[exit_])) / scale
        assert steps.max() < MOST_STEPS.get(name, 1) + 0.01, exit_
        assert (steps < 1.01).mean() > 0.85, exit_
        # Not merely equal to itself: 256 steps per tensor are close to floats.
        assert np.abs(logits - np.asarray(floats[exit_])).mean() < 4 * scale
        assert np.ptp(logits, axis=0).max() > 15 * scale


@cache
def aware_network() -> keras.Model:
    keras.utils.set_random_seed(1)
    return quantize_aware(randomise(NETWORKS["dscnn"]()), WINDOWS.x.astype(np.float32))


def test_blocks_and_heads_are_those_of_the_network() -> None:
    plain, aware = anatomy(NETWORKS["dscnn"]()), anatomy(aware_network())
    for one, other in zip((*plain.blocks, *plain.heads), (*aware.blocks, *aware.heads), strict=True):
        names = {name for name in one if not name.endswith("_norm")}
        assert names <= set(other)
        assert all(name.endswith(("_range", "_height_1")) for name in set(other) - names)


def test_ranges_are_those_of_the_windows() -> None:
    network, x = NETWORKS["residual"](), WINDOWS.x.astype(np.float32)
    aware = quantize_aware(network, x)
    entrance = aware.get_layer("window_range")
    assert float(entrance.low) == pytest.approx(x.min())
    assert float(entrance.high) == pytest.approx(x.max())
    rectified = [one for one in fake_quants(aware) if "relu" in one.name]
    assert rectified
    # No code is spent below 0 where nothing is.
    assert {float(one.low) for one in rectified} == {0.0}


def test_a_network_comes_back_from_its_file(tmp_path: Path) -> None:
    model = MultiExitModel(NETWORKS["dscnn"](), "boosted")
    aware = quantize_aware(model, WINDOWS)
    aware.save(tmp_path / "aware.keras")
    again = keras.saving.load_model(tmp_path / "aware.keras")
    assert carries_ranges(again.network)
    x = WINDOWS.x.astype(np.float32)
    for exit_, logits in aware.network(x).items():
        np.testing.assert_array_equal(logits, again.network(x)[exit_])
    assert again.provenance == aware.provenance


@pytest.mark.parametrize("regime", list(REGIMES))
def test_every_regime_fine_tunes(regime: str) -> None:
    keras.utils.set_random_seed(2)
    network = build("dscnn", SENSOR, N_CLASSES, stem=(4, 5, 2), blocks=(((4, 3, 1),), ((6, 3, 2),)))
    model = MultiExitModel(network, regime, seed=3)
    aware = quantize_aware(model, WINDOWS)
    assert (aware.regime, aware.seed) == (model.regime, 3)
    assert aware.provenance.regime == f"{regime}, quantization-aware"
    before = {variable.path: np.array(variable) for variable in aware.network.variables}
    # A few steps cost less than a graph.
    aware.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    n_phases = len(make_regime(regime).phases(2))
    n_epochs = fine_tuning_epochs(10, phases=n_phases)
    history = aware.fit(WINDOWS, batch_size=48, epochs=n_epochs, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    moved = {
        variable.path for variable in aware.network.variables if (before[variable.path] != variable).any()
    }
    assert {variable.path for variable in aware.network.trainable_variables} <= moved
    assert all(float(one.n_batches) > 0 for one in fake_quants(aware.network))
    assert aware.provenance.epochs == n_phases


@pytest.mark.parametrize("kind", ["windows", "weighted classes"])
def test_a_fit_goes_on_after_an_interrupt(tmp_path: Path, kind: str) -> None:
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    def tuned(interrupted: bool) -> MultiExitModel:
        keras.utils.set_random_seed(4)
        model = quantize_aware(MultiExitModel(NETWORKS["residual"](), seed=1), WINDOWS)
        model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
        options = {
            "epochs": 2,
            "batch_size": 48,
            "checkpoint": tmp_path / "fit.npz",
            "class_weight": {0: 2.0} if kind == "weighted classes" else None,
            "verbose": 0,
        }
        if interrupted:
            with pytest.raises(KeyboardInterrupt):
                model.fit(WINDOWS, callbacks=[Stop()], **options)
            keras.utils.set_random_seed(4)
            model = quantize_aware(MultiExitModel(NETWORKS["residual"](), seed=1), WINDOWS)
            model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
        model.fit(WINDOWS, **options)
        return model

    whole, resumed = tuned(False), tuned(True)
    for one, other in zip(whole.network.variables, resumed.network.variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_memory_of_the_regime_goes_on() -> None:
    model = MultiExitModel(NETWORKS["residual"](), "distill", perturbations=())
    model.regime_state.temperature.assign(2.5)
    aware = quantize_aware(model, WINDOWS)
    assert float(aware.regime_state.temperature) == 2.5
    assert aware.perturbations == ()


def test_a_bundle_says_that_it_was_fine_tuned() -> None:
    model = quantize_aware(MultiExitModel(NETWORKS["residual"]()), WINDOWS)
    with converting_in_this_process():
        bundle = export(model, WINDOWS)
    assert bundle.manifest.training.regime == "joint, quantization-aware"


def test_a_copy_of_a_copy_is_refused() -> None:
    with pytest.raises(InputError, match="without fake quantization"):
        quantize_aware(aware_network(), WINDOWS.x)


@pytest.mark.parametrize(
    ("representative", "message"),
    [
        (WINDOWS.x[:0], "at least one window"),
        (WINDOWS.x[:, :5], "windows of the network's shape"),
        (np.full((4, *SENSOR.shape), np.nan), "finite"),
        (WINDOWS.take(WINDOWS.y == 0), "every class"),
    ],
)
def test_windows_that_do_not_fit_are_refused(representative: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        quantize_aware(NETWORKS["residual"](), representative)


@pytest.mark.parametrize(
    ("epochs", "share", "phases", "expected"),
    [(30, 0.1, 1, 3), (30, 0.1, 3, 3), (8, 0.1, 1, 1), (8, 0.1, 3, 3), (10, 1.0, 2, 10), (2, 0.0, 1, 1)],
)
def test_fine_tuning_is_a_share_of_the_epochs(epochs: int, share: float, phases: int, expected: int) -> None:
    assert fine_tuning_epochs(epochs, share, phases=phases) == expected


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"share": -0.1}, {"phases": 0}])
def test_shares_are_shares(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"`{next(iter(wrong))}`"):
        fine_tuning_epochs(10, **wrong)


def test_ranges_of_its_own_have_no_limit_of_inputs() -> None:
    aware = quantize_aware(MultiExitModel(NETWORKS["residual"](), seed=1), WINDOWS)
    with pytest.raises(InputError, match=r"`input_limit` must be left out .* carries its own ranges"):
        convert(aware.network, None, Quantization(input_limit=4.0))


@pytest.mark.parametrize("command", ["run", "train"])
@pytest.mark.parametrize("share", ["0", "1.5", "nan"])
def test_a_wrong_share_is_refused(command: str, share: str) -> None:
    result = CliRunner().invoke(app, [command, "--qat", "--qat-share", share])
    assert result.exit_code == 2
    assert "`--qat-share` must be a share above 0" in result.output


def test_the_command_fine_tunes_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(settings: TrainSettings, windows: Any) -> MultiExitModel:
        keras.utils.set_random_seed(settings.seed)
        model = MultiExitModel(NETWORKS["residual"](), seed=settings.seed)
        model.compile("adam", run_eagerly=True)
        return model

    shown: list[int] = []
    interrupts = [True]

    def watched(lines: Any, done: int = 0) -> Any:
        def epoch_done(epoch: int, logs: Any) -> None:
            shown.append(done + epoch + 1)
            if shown[-1] == 3 and interrupts.pop():
                raise KeyboardInterrupt

        return keras.callbacks.LambdaCallback(on_epoch_end=epoch_done)

    monkeypatch.setattr(training, "build_model", small)
    monkeypatch.setattr("mexit_edge.cli.fine_tuning.epoch_callback", watched)
    windows = WINDOWS.of_subjects([0, 1, 2])
    sets = Split(windows, *(WINDOWS.of_subjects([subject]) for subject in (3, 4, 5)))
    settings = TrainSettings(qat=True, qat_share=0.5, epochs=2, batch=24)
    progress = JobProgress(Console(quiet=True))
    with pytest.raises(KeyboardInterrupt):
        training.train(settings, sets, progress, tmp_path)
    interrupts.extend([False, False])
    trained = training.train(settings, sets, progress, tmp_path)
    assert shown == [3, 3]
    assert [(row["epoch"], row["phase"]) for row in trained.history] == [(1, 1), (2, 1), (3, 2)]
    assert [row["training"] for row in trained.cost] == ["network", "fine-tuning"]
    assert not carries_ranges(trained.float_model.network)
    assert carries_ranges(trained.model.network)
    once = training.train(settings, sets, progress)
    for one, other in zip(once.model.network.variables, trained.model.network.variables, strict=True):
        np.testing.assert_array_equal(one, other)
