"""`mexit export`: a saved network as a bundle or as one .tflite, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from fixtures_networks import (
    SENSOR,
    TRAIN_REASON,
    commands_on,
    dscnn_network,
    randomise,
    synthetic_windows,
)
from typer.testing import CliRunner

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
import numpy as np

from mexit_edge.bundle import Bundle
from mexit_edge.cli.app import app
from mexit_edge.cli.keras_file import load_saved
from mexit_edge.cli.training_windows import WindowsSource, training_windows
from mexit_edge.compress import Quantization
from mexit_edge.data.windows_file import read_arrays
from mexit_edge.errors import InputError
from mexit_edge.regimes import MultiExitModel
from mexit_edge.runtime import Runtime
from mexit_edge.tflite import Graph, phone_bundle

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
def here(tmp_path: Path) -> Iterator[Path]:
    with commands_on(WINDOWS, tmp_path):
        yield tmp_path


def two_sensors() -> keras.Model:
    inputs = [keras.Input((SENSOR.window, 3), name=name) for name in ("acc", "gyr")]
    flat = keras.layers.Flatten()(keras.layers.Concatenate()(inputs))
    return keras.Model(
        inputs, {name: keras.layers.Dense(4, name=name)(flat) for name in ("exit_01", "exit_02")}
    )


def export(path: Path, *options: str):
    return CliRunner().invoke(app, ["export", str(path), "--data", "watch", *options])


def test_a_saved_model_becomes_a_bundle_with_its_normalisation(saved: dict[str, Path], here: Path) -> None:
    result = export(saved["model"], "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    bundle = Bundle.load(here / facts["bundle"])
    assert bundle.manifest.policy is None
    assert bundle.manifest.normalisation.scale == load_saved(saved["model"], "network").normalisation.scale
    assert bundle.manifest.training.train_subjects == TRAINED_ON
    assert [stage["exit"] for stage in facts["stages"]] == ["exit_01", "exit_02", "exit_03"]
    assert facts["bytes"] == sum(map(len, bundle.stages))
    assert Runtime(bundle).all_logits(WINDOWS.x[:2]).shape == (2, 3, 4)


def test_inputs_saturate_where_they_are_told_to(saved: dict[str, Path], here: Path) -> None:
    result = export(saved["model"], "--input-limit", "0.5", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["input_limit"] == 0.5
    bundle = Bundle.load(here / facts["bundle"])
    assert bundle.manifest.input.scale == pytest.approx(1 / 255, rel=0.01)
    normalisation = load_saved(saved["model"], "network").normalisation
    runtime, windows = Runtime(bundle), WINDOWS.x[:20]
    assert np.abs(normalisation.apply(windows)).max() > 1
    # The ends of the range lie at most half a step off the limit.
    np.testing.assert_array_equal(
        runtime.all_logits(windows), runtime.all_logits(normalisation.saturated(windows, 0.503))
    )


def test_names_and_the_file_for_phones_come_on_request(saved: dict[str, Path], here: Path) -> None:
    result = export(saved["model"], "--keep-names", "--phone", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    bundle = Bundle.load(here / facts["bundle"])
    assert bundle.phone == phone_bundle(bundle)
    assert facts["phone_sha256"] == bundle.manifest.phone_sha256
    for spec, content in zip(bundle.manifest.stages, bundle.stages, strict=True):
        assert list(Graph(content).signature_outputs) == [tensor.name for tensor in spec.outputs]


def test_ranges_are_observed_on_training_subjects_only(saved: dict[str, Path]) -> None:
    source = WindowsSource(data="watch")
    windows, said = training_windows(load_saved(saved["model"], "network"), source)
    assert windows.subjects == TRAINED_ON
    whose = "of the 3 subjects that the network was trained on; normalised as the network knows"
    assert said == f"{len(windows)} windows of watch: {whose}."
    plain, said = training_windows(load_saved(saved["network"], "network"), source)
    assert set(plain.subjects) < set(WINDOWS.subjects)
    assert "the split with seed 0, as the network knows none; not normalised" in said


def own_windows(path: Path, **arrays: np.ndarray) -> WindowsSource:
    np.savez(path, **{"x": WINDOWS.x, "y": WINDOWS.y, **arrays})
    return WindowsSource(windows=path)


def test_windows_of_ones_own_take_the_place_of_a_data_set(saved: dict[str, Path], here: Path) -> None:
    model = load_saved(saved["model"], "network")
    windows, said = training_windows(model, own_windows(here / "own.npz", subject=WINDOWS.subject))
    assert (windows.subjects, windows.name, windows.n_classes) == (TRAINED_ON, "own", 4)
    assert "own.npz: of the 3 subjects that the network was trained on; normalised" in said
    windows, said = training_windows(model, own_windows(here / "own.npz"))
    np.testing.assert_array_equal(windows.x, WINDOWS.x)
    assert "all of them, as their subjects are not known to be those of the training" in said
    with pytest.MonkeyPatch.context() as patch:
        # The table is that of the bundle in hand.
        patch.setattr(Bundle, "load", None)
        result = CliRunner().invoke(app, ["export", str(saved["network"]), "--windows", "own.npz"])
    assert result.exit_code == 0, result.stderr
    assert "network: stages" in result.stdout
    assert "Ranges are observed on 96 windows of own.npz: all of them" in result.stdout
    assert Bundle.load(here / "tflite_models" / "own.mexit").manifest.training.data is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": WINDOWS.x}, "`--windows` must hold the arrays x and y.*Received: x"),
        ({"x": WINDOWS.x, "y": WINDOWS.y + 3}, "`y` must hold class indices from 0 to 3"),
        (
            {"x": WINDOWS.x, "y": WINDOWS.y, "subject": WINDOWS.subject + 90},
            "Received: 90, .*Leave `subject`",
        ),
    ],
)
def test_own_windows_that_do_not_fit_are_refused(
    saved: dict[str, Path], here: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(here / "own.npz", **arrays)
    with pytest.raises(InputError, match=message):
        training_windows(load_saved(saved["model"], "network"), WindowsSource(windows=here / "own.npz"))


def test_a_source_of_windows_is_one_and_there(here: Path) -> None:
    (here / "text.npz").write_text("nothing", encoding="utf-8")
    with pytest.raises(InputError, match="must not be given together"):
        WindowsSource(data="watch", windows=here / "text.npz")
    with pytest.raises(InputError, match="no such file"):
        WindowsSource(windows=here / "other.npz")
    with pytest.raises(InputError, match=r"`--windows` must be a \.npz of numbers"):
        read_arrays(here / "text.npz")


@pytest.mark.parametrize(
    ("options", "asked", "reads"),
    [
        (("--quantization", "float16"), Quantization("float16"), False),
        (("--io", "float32", "--out", "ends.tflite"), Quantization("int8", io="float32"), True),
    ],
)
def test_windows_are_read_for_integer_kinds_only(
    saved: dict[str, Path],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    asked: Quantization,
    reads: bool,
) -> None:
    received = []
    monkeypatch.setattr("mexit_edge.compress.convert", lambda *given: received.append(given) or b"made")
    if not reads:
        monkeypatch.setattr("mexit_edge.cli.training_windows.load", None)
    result = export(saved["network"], *options)
    assert result.exit_code == 0, result.stderr
    ((_, x, quantization),) = received
    assert quantization == asked
    assert (x is not None) is reads
    assert [path.read_bytes() for path in here.rglob("*.tflite")] == [b"made"]


@pytest.mark.parametrize(
    "options", [(), ("--quantization", "int16", "--out", "a.tflite")], ids=["bundle", "one .tflite"]
)
def test_a_network_with_two_inputs_is_told_to_join_them_before_windows_are_read(
    here: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr("mexit_edge.cli.training_windows.load", None)
    two_sensors().save("two.keras")
    result = export(Path("two.keras"), *options)
    assert result.exit_code == 2, result.output
    assert "`network` must have one input, the window. Received: 2 (acc, gyr)" in result.stderr
    assert "`mexit_edge.models.join_inputs`" in result.stderr


@pytest.mark.parametrize("out", ["taken/a.mexit", "taken/deeper/a.mexit"])
def test_a_place_where_nothing_can_be_written_is_refused_first(here: Path, out: str) -> None:
    (here / "taken").write_text("a file", encoding="utf-8")
    result = export(here / "nothing.keras", "--out", out)
    assert result.exit_code == 2
    assert "must lie in a folder that can be written to" in result.stderr
    assert "taken, which is no folder" in result.stderr


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
        (["--quantization", "int16", "--phone"], "`--keep-names` and `--phone` must come with int8"),
        (["--quantization", "int16", "--per-tensor"], "`per_channel` must be left out unless"),
        (["--quantization", "float16", "--input-limit", "4"], "`input_limit` must be left out for 'float16'"),
        (["--input-limit", "0"], "`input_limit` must be positive and finite"),
        (["--quantization", "float16", "--out", "a.mexit"], "`--out` must end in .tflite"),
        (["--out", "a.tflite"], "`--out` must name a bundle"),
        (["--out", ".."], "must end in the name of what is written. Received: '..'"),
        (["--io", "float32", "--out", "."], "must end in the name of what is written. Received: '.'"),
        (["--out", "x" * 300], "File name too long"),
        (["--io", "float32", "--out", "x" * 300 + ".tflite"], "File name too long"),
        (["--io", "int16"], "`io` must be one of: int8, float32"),
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
    with pytest.MonkeyPatch.context() as patch:
        # Said without TensorFlow, which takes seconds to load.
        patch.setattr("mexit_edge.cli.export.load_saved", None)
        result = export(file)
    assert result.exit_code == 2
    assert "`network` must be a .keras file" in result.stderr


def test_another_data_set_than_the_trained_one_is_refused(
    saved: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = CliRunner().invoke(app, ["export", str(saved["model"]), "--data", "hapt"])
    assert result.exit_code == 2
    assert "`--data` must be the data set that the network was trained on, 'watch'" in result.stderr
