"""`mexit export`: a saved network as a bundle or as one .tflite, and what it refuses."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from fixtures_networks import (
    SENSOR,
    TRAIN_REASON,
    converting_in_this_process,
    dscnn_network,
    randomise,
    synthetic_windows,
)
from typer.testing import CliRunner

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras

from mexit_edge.bundle import Bundle
from mexit_edge.cli.app import app
from mexit_edge.cli.export import ExportSettings, training_windows
from mexit_edge.cli.inspect_network import load_saved
from mexit_edge.regimes import MultiExitModel
from mexit_edge.runtime import Runtime
from mexit_edge.tflite import Graph

pytestmark = pytest.mark.train
WINDOWS = synthetic_windows(96, name="watch")
TRAINED_ON = (0, 1, 2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A `MultiExitModel` trained for one step, and its network alone."""
    folder = tmp_path_factory.mktemp("networks")
    keras.utils.set_random_seed(1)
    model = MultiExitModel(randomise(dscnn_network()))
    model.compile(run_eagerly=True)
    model.fit(WINDOWS.of_subjects(TRAINED_ON), epochs=1, batch_size=48, verbose=0)
    paths = {"model": folder / "model.keras", "network": folder / "network.keras"}
    model.save(paths["model"])
    model.network.save(paths["network"])
    return paths


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run in an empty folder on synthetic windows, converting in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mexit_edge.cli.export.load", lambda name: WINDOWS)
    with converting_in_this_process(), warnings.catch_warnings():
        warnings.simplefilter("default")
        yield tmp_path


def export(path: Path, *options: str):
    return CliRunner().invoke(app, ["export", str(path), "--data", "watch", *options])


def test_a_saved_model_becomes_a_bundle_with_its_normalisation(saved: dict[str, Path], here: Path) -> None:
    result = export(saved["model"], "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    bundle = Bundle.load(here / facts["bundle"])
    assert bundle.manifest.policy is None
    assert bundle.manifest.normalisation.scale == load_saved(saved["model"]).normalisation.scale
    assert bundle.manifest.training.train_subjects == TRAINED_ON
    assert [stage["exit"] for stage in facts["stages"]] == ["exit_01", "exit_02", "exit_03"]
    assert facts["bytes"] == sum(map(len, bundle.stages))
    assert Runtime(bundle).all_logits(WINDOWS.x[:2]).shape == (2, 3, 4)


def test_ranges_are_observed_on_training_subjects_only(saved: dict[str, Path]) -> None:
    settings = ExportSettings(network=saved["model"], data="watch")
    assert training_windows(load_saved(saved["model"]), settings).subjects == TRAINED_ON
    plain = training_windows(load_saved(saved["network"]), settings)
    assert set(plain.subjects) < set(WINDOWS.subjects)


def test_a_network_becomes_one_tflite_of_another_kind(saved: dict[str, Path], here: Path) -> None:
    result = export(saved["network"], "--quantization", "int16", "--out", "sixteen.tflite")
    assert result.exit_code == 0, result.stderr
    graph = Graph((here / "sixteen.tflite").read_bytes())
    assert {graph.tensors[index].dtype for index in (*graph.inputs, *graph.outputs)} == {"INT16"}
    assert graph.tensors[graph.inputs[0]].shape == (1, *SENSOR.shape)
    assert "int16, " in result.stdout
    again = export(saved["network"], "--quantization", "int16", "--out", "sixteen.tflite")
    assert again.exit_code == 2
    assert "exists already" in again.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quantization", "int9"], "`quantization` must be one of: dynamic, float16, float32, int16, int8"),
        (["--quantization", "int16", "--per-tensor"], "`per_channel` must be left out unless"),
        (["--quantization", "float16", "--out", "a.mexit"], "`--out` must end in .tflite"),
        (["--data", "wacth"], "`data` must be one of: "),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(
    saved: dict[str, Path], here: Path, options: list[str], message: str
) -> None:
    result = export(saved["network"], *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert list(here.iterdir()) == []


def test_a_file_that_is_no_network_is_refused(here: Path) -> None:
    file = here / "notes.keras"
    file.write_text("nothing", encoding="utf-8")
    assert export(file).exit_code == 2


def test_another_data_set_than_the_trained_one_is_refused(
    saved: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = CliRunner().invoke(app, ["export", str(saved["model"]), "--data", "hapt"])
    assert result.exit_code == 2
    assert "`--data` must be the data set that the network was trained on, 'watch'" in result.stderr
