"""`mexit quantize-aware`: what it writes, prints and refuses, and that `mexit export` takes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fixtures_networks import (
    N_CLASSES,
    SENSOR,
    TRAIN_REASON,
    commands_on,
    flatten_network,
    leaving_out_the_count,
    synthetic_windows,
)
from typer.testing import CliRunner

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
import numpy as np
from keras import layers as kl

from mexit_edge.bundle import Bundle
from mexit_edge.cli.app import app
from mexit_edge.cli.keras_file import load_saved
from mexit_edge.cli.quantize_aware import _source_options, refuse_diverged
from mexit_edge.cli.settings import EPOCHS, LEARNING_RATE
from mexit_edge.cli.training_windows import WindowsSource
from mexit_edge.compress.fake_quant import carries_ranges
from mexit_edge.compress.quantize_aware import FINE_TUNING_RATE, fine_tuning_epochs, quantize_aware
from mexit_edge.errors import RunError
from mexit_edge.regimes import MultiExitModel
from mexit_edge.signals import Normalisation
from mexit_edge.tflite import Graph

pytestmark = pytest.mark.train
WINDOWS = synthetic_windows(96, name="watch")
TRAINED_ON = (0, 1, 2)
OWN = WINDOWS.of_subjects(TRAINED_ON)


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Iterator[Path]:
    with commands_on(WINDOWS, tmp_path), leaving_out_the_count():
        yield tmp_path


def mexit(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def saved_model(path: str, *, normalised: bool = True) -> MultiExitModel:
    """Save a model that says it was trained for 20 epochs."""
    model = MultiExitModel(
        flatten_network(), normalisation=Normalisation.fit(OWN) if normalised else None, seed=5
    )
    facts = {"data": "watch", "train_subjects": TRAINED_ON, "epochs": 20}
    model.provenance = model.provenance.model_copy(update=facts)
    model.save(path)
    return model


def kernels(model: Any) -> list[np.ndarray]:
    return [np.asarray(one) for one in model.trainable_variables]


def test_a_model_is_fine_tuned_and_exported_as_int8(here: Path) -> None:
    model = saved_model("model.keras")
    before = (here / "model.keras").read_bytes()
    result = mexit("quantize-aware", "model.keras", "--data", "watch", "--seed", 3, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["network"] == "model-quantization-aware.keras"
    assert (facts["epochs"], len(facts["history"])) == (2, 2)
    assert facts["learning_rate"] == pytest.approx(FINE_TUNING_RATE * LEARNING_RATE)
    assert "of the 3 subjects that the network was trained on; normalised" in facts["windows"]
    assert (here / "model.keras").read_bytes() == before
    tuned = load_saved(Path(facts["network"]), "network")
    assert isinstance(tuned, MultiExitModel)
    assert carries_ranges(tuned.network)
    assert (tuned.normalisation, tuned.seed) == (model.normalisation, 3)
    assert tuned.provenance.regime == "joint, quantization-aware"
    assert (tuned.provenance.epochs, tuned.provenance.train_subjects) == (22, TRAINED_ON)
    untouched = quantize_aware(model, OWN)
    assert any((one != other).any() for one, other in zip(kernels(tuned), kernels(untouched), strict=True))
    exported = mexit("export", facts["network"], "--data", "watch", "--out", "small.mexit")
    assert exported.exit_code == 0, exported.output
    assert "The ranges of activations come with the network" in exported.stdout
    assert "observed on" not in exported.stdout
    bundle = Bundle.load("small.mexit")
    assert bundle.manifest.training.regime == "joint, quantization-aware"
    for stage in bundle.stages:
        graph = Graph(stage)
        assert {graph.tensors[index].dtype for index in (*graph.inputs, *graph.outputs)} == {"INT8"}


def test_a_functional_network_comes_back_as_one(here: Path) -> None:
    flatten_network().save("network.keras")
    np.savez("own.npz", x=OWN.x, y=OWN.y)
    result = mexit("quantize-aware", "network.keras", "--windows", "own.npz", "--out", "my aware.keras")
    assert result.exit_code == 0, result.output
    # A tenth of the default, as the network knows of no training.
    assert f"epoch {fine_tuning_epochs(EPOCHS)}/{fine_tuning_epochs(EPOCHS)}: " in result.stdout
    assert "Next:    mexit export 'my aware.keras' --windows own.npz" in result.stdout
    tuned = load_saved(Path("my aware.keras"), "network")
    assert not isinstance(tuned, MultiExitModel)
    assert carries_ranges(tuned)
    assert list(tuned.output) == ["exit_01", "exit_02"]


def test_no_windows_are_read_for_one_tflite_with_ranges_of_its_own(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = []
    monkeypatch.setattr("mexit_edge.compress.convert", lambda *given: received.append(given[1]) or b"made")
    monkeypatch.setattr("mexit_edge.cli.export.training_windows", None)
    quantize_aware(flatten_network(), OWN).save("aware.keras")
    result = mexit("export", "aware.keras", "--io", "float32", "--out", "small.tflite")
    assert result.exit_code == 0, result.output
    assert received == [None]
    assert "The ranges of activations come with the network" in result.stdout


def test_windows_stay_as_they_are_for_a_model_without_normalisation(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `fit` would take that of these windows, under which the network has not been trained.
    seen = []
    fitted = SimpleNamespace(epoch=[], history={})
    monkeypatch.setattr(
        MultiExitModel, "fit", lambda self, *given, **options: seen.append(self.normalisation) or fitted
    )
    saved_model("model.keras", normalised=False)
    result = mexit("quantize-aware", "model.keras", "--data", "watch", "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert seen == [Normalisation.identity(SENSOR.n_channels)]


@pytest.mark.parametrize(
    ("seed", "knows", "options"),
    [
        (3, False, ["--data", "watch", "--seed", "3"]),
        (0, False, ["--data", "watch"]),
        (3, True, ["--data", "watch"]),
    ],
)
def test_the_next_command_takes_the_same_subjects(seed: int, knows: bool, options: list[str]) -> None:
    model = MultiExitModel(flatten_network())
    if knows:
        model.provenance = model.provenance.model_copy(update={"train_subjects": TRAINED_ON})
    tuned = model if knows else model.network
    assert _source_options(WindowsSource(data="watch", seed=seed), tuned) == options


def test_the_seed_of_own_windows_chooses_nothing(here: Path) -> None:
    np.savez("own.npz", x=OWN.x, y=OWN.y)
    source = WindowsSource(windows=Path("own.npz"), seed=3)
    assert _source_options(source, flatten_network()) == ["--windows", "own.npz"]


def test_too_few_epochs_are_refused_before_windows_are_read(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mexit_edge.cli.training_windows.load", None)
    MultiExitModel(flatten_network(), "mixed").save("mixed.keras")
    result = mexit("quantize-aware", "mixed.keras", "--data", "watch", "--epochs", 1)
    assert result.exit_code == 2, result.output
    assert "`--epochs` must be at least the number of phases (2: backbone, joint)" in result.stderr


def test_a_fine_tuning_that_diverges_fails_and_writes_nothing(here: Path) -> None:
    flatten_network().save("network.keras")
    np.savez("own.npz", x=OWN.x, y=OWN.y)
    options = ("--windows", "own.npz", "--learning-rate", "1e3")
    result = mexit("quantize-aware", "network.keras", *options)
    assert result.exit_code == 1, result.output
    assert "must stay below 10 times that of guessing, 1.39. Received: " in result.stderr
    assert "Lower `--learning-rate`" in result.stderr
    assert sorted(path.name for path in here.iterdir()) == ["network.keras", "own.npz"]


def test_the_last_loss_of_every_exit_counts() -> None:
    nan, exits = float("nan"), ("exit_01", "exit_02")
    wild, calm = {"exit_01_loss": 90.0, "exit_02_loss": 0.5}, {"exit_01_loss": 2.0, "exit_02_loss": 0.5}
    refuse_diverged([wild, calm], exits, N_CLASSES)
    refuse_diverged([calm, {"exit_01_loss": nan, "exit_02_loss": 0.4}], exits, N_CLASSES)
    # One epoch has nothing before it to compare with.
    with pytest.raises(RunError, match="Received: 90 of exit_01"):
        refuse_diverged([wild], exits, N_CLASSES)
    with pytest.raises(RunError, match=r"Received: 90 of exit_01\. Lower `--learning-rate`"):
        refuse_diverged([calm, wild, {"exit_01_loss": nan, "exit_02_loss": 0.4}], exits, N_CLASSES)


def test_no_extra_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mexit_edge.cli.compressing.find_spec", lambda name: None if name == "tf_keras" else True
    )
    assert "no such file" in mexit("quantize-aware", "nothing.keras").stderr


def gated_network() -> keras.Model:
    window = keras.Input(SENSOR.shape, name="window")
    outputs = {
        f"exit_{number:02d}": kl.Dense(N_CLASSES, name=f"exit_{number:02d}")(features)
        for number, features in enumerate((kl.Flatten()(window), kl.GRU(3, name="memory")(window)), start=1)
    }
    return keras.Model(window, outputs)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--epochs", "0"), "--epochs"),
        (("--learning-rate", "0"), "`--learning-rate` must be positive and finite"),
        (("--out", "aware.h5"), "must end in .keras. Received: aware.h5. Use aware.keras."),
        (("--out", "model.keras"), "exists already"),
        (("--out", "."), "must end in the name of what is written"),
        (("--out", "/"), "must end in the name of what is written"),
        (("--out", "x" * 300 + ".keras"), "File name too long"),
        (("--out", "model.keras/aware.keras"), "which is no folder"),
        (("--data", "wacth"), "Did you mean 'watch'?"),
    ],
)
def test_wrong_options_are_refused_before_tensorflow(
    here: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], words: str
) -> None:
    monkeypatch.setattr("mexit_edge.cli.compressing.load_saved", None)
    (here / "model.keras").write_text("nothing", encoding="utf-8")
    result = mexit("quantize-aware", "model.keras", *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert [path.name for path in here.iterdir()] == ["model.keras"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: quantize_aware(flatten_network(), OWN), "must be a network without fake quantization"),
        (gated_network, "memory"),
        (lambda: keras.Model(window := keras.Input(SENSOR.shape), kl.Flatten()(window)), "exit_01"),
    ],
    ids=["fake-quantized already", "a layer without such a form", "no exits"],
)
def test_a_network_that_cannot_be_quantized_so_is_refused(here: Path, make: Any, words: str) -> None:
    make().save("network.keras")
    np.savez("own.npz", x=OWN.x, y=OWN.y)
    result = mexit("quantize-aware", "network.keras", "--windows", "own.npz")
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert sorted(path.name for path in here.iterdir()) == ["network.keras", "own.npz"]
