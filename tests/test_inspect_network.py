"""`mexit inspect` of a .keras file."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fixtures_networks import N_CLASSES, SENSOR, TRAIN_REASON, user_model
from typer.testing import CliRunner

from mexit_edge.cli.app import app
from mexit_edge.cli.guarded import EXIT_INPUT
from mexit_edge.cli.inspect_network import network_facts
from mexit_edge.cli.models import committed_figures
from mexit_edge.signals import Sensor

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
from keras import layers

from mexit_edge.models import attach_exits, build, layer_table
from mexit_edge.models.running_sum import add_running_sums
from mexit_edge.regimes import MultiExitModel

pytestmark = pytest.mark.train


def inspect(*arguments: Any) -> Any:
    return CliRunner(env={"COLUMNS": "120", "TERM": "dumb"}).invoke(app, ["inspect", *map(str, arguments)])


def saved(model: keras.Model, folder: Path) -> Path:
    path = folder / "network.keras"
    model.save(path)
    return path


@cache
def boosted_network() -> keras.Model:
    """Exits inside a nested model, and running sums, which are a layer of this package."""
    window = keras.Input((12, 4), name="window")
    signal = keras.Input((12, 4))
    inner = keras.Model(signal, layers.Conv1D(6, 3, activation="relu", name="conv")(signal), name="inner")
    pooled = layers.GlobalMaxPooling1D(name="pool")(inner(window))
    model = keras.Model(window, layers.Dense(3, name="classes")(pooled), name="mine")
    return add_running_sums(attach_exits(model, at=["inner/conv"], dropout=0), 0.5)


def blocked_network() -> keras.Model:
    window = keras.Input((12, 4), name="signal")
    x = layers.LayerNormalization(name="norm")(layers.Conv1D(6, 3, name="conv")(window))
    return keras.Model(window, layers.Dense(3, name="classes")(layers.GRU(5, name="loop")(x)))


def test_the_table_totals_and_exits(tmp_path: Path) -> None:
    network = boosted_network()
    result = inspect(saved(network, tmp_path))
    assert result.exit_code == 0, result.output
    conv, head, classes = 10 * 3 * 4 * 6, 12 * 3, 6 * 3
    total = conv + head + classes
    assert (
        f"Inputs: window 12x4 float32. {network.count_params():,} parameters, {total:,} MACs."
        in result.stdout
    )
    assert f"exit_01: {conv + head:,} MACs, {(conv + head) / total:.1%} of all (exit_01)." in result.stdout
    assert f"exit_02: {total:,} MACs, 100.0% of all (exit_02_running_sum)." in result.stdout
    assert "No layer blocks an int8 export." in result.stdout
    assert all(row.name in result.stdout for row in layer_table(network))


def test_the_same_as_json(tmp_path: Path) -> None:
    network = boosted_network()
    facts = json.loads(inspect(saved(network, tmp_path), "--json").stdout)
    assert facts["inputs"] == [{"name": "window", "shape": [12, 4], "type": "float32"}]
    assert [one["name"] for one in facts["outputs"]] == ["exit_01", "exit_02"]
    assert facts["outputs"][1]["share"] == 1
    assert facts["macs"] == sum(row["macs"] for row in facts["layers"])
    rows = {row.name: row for row in layer_table(network)}
    assert {row["name"] for row in facts["layers"]} == set(rows)
    conv = next(row for row in facts["layers"] if row["name"] == "conv")
    assert conv["cumulative_macs"] == rows["conv"].cumulative_macs == 10 * 3 * 4 * 6
    assert conv["int8"] == {"converts": True, "reason": None, "suggestion": None}


def test_macs_up_to_an_exit_are_those_of_the_stages_up_to_it(tmp_path: Path) -> None:
    figures = next(one for one in committed_figures() if (one.backbone, one.preset) == ("dscnn", "medium"))
    network = build("dscnn", Sensor.plain(figures.channels, figures.window), figures.classes)
    facts = network_facts(saved(network, tmp_path))
    assert tuple(one["macs"] for one in facts["outputs"]) == figures.exit_macs
    assert facts["outputs"][-1]["share"] == 1


def test_two_names_of_one_tensor_are_two_outputs(tmp_path: Path) -> None:
    window = keras.Input((4,))
    logits = layers.Dense(3, name="classes")(window)
    facts = network_facts(saved(keras.Model(window, {"exit_01": logits, "exit_02": logits}), tmp_path))
    assert [(one["name"], one["macs"]) for one in facts["outputs"]] == [("exit_01", 12), ("exit_02", 12)]
    assert facts["layers"][0]["outputs"] == ("exit_01", "exit_02")


def test_nothing_but_the_result_is_printed(tmp_path: Path) -> None:
    path = saved(with_layer(layers.Dense(5)), tmp_path)
    code = "import sys; from mexit_edge.cli import main; sys.argv = ['mexit', *sys.argv[1:]]; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", str(path), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stderr == ""
    assert json.loads(done.stdout)["parameters"] == 43


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(with_layer(layers.Dense(5)), tmp_path)
    monkeypatch.setattr("mexit_edge.cli.keras_file.MAX_BYTES", 100)
    result = inspect(path)
    assert result.exit_code == EXIT_INPUT
    assert "unpacks to at most 100 bytes" in result.output


def test_layers_that_block_int8_are_named_with_a_way_out(tmp_path: Path) -> None:
    result = inspect(saved(blocked_network(), tmp_path))
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    assert "norm (LayerNormalization) blocks int8: it takes a dozen operators" in words
    assert "loop (GRU) blocks int8: it is a loop, which crashes the converter. Use `unroll=True`" in words
    assert "No layer blocks" not in words
    facts = json.loads(inspect(tmp_path / "network.keras", "--json").stdout)
    blocks = [row["name"] for row in facts["layers"] if row["int8"]["converts"] is False]
    assert blocks == ["norm", "loop"]


def test_an_unknown_count_is_said_and_not_0(tmp_path: Path) -> None:
    window = keras.Input((6, 4))
    attended = layers.MultiHeadAttention(2, 3, name="attention")(window, window)
    model = keras.Model(window, layers.Dense(3)(layers.Flatten()(attended)))
    path = saved(model, tmp_path)
    assert "parameters, unknown MACs." in inspect(path).stdout
    assert json.loads(inspect(path, "--json").stdout)["macs"] is None


def test_of_a_saved_training_model_its_network_is_shown(tmp_path: Path) -> None:
    model = MultiExitModel(attach_exits(user_model(), at=["pool_a"]), "joint")
    model.compile()
    facts = json.loads(inspect(saved(model, tmp_path), "--json").stdout)
    assert [one["name"] for one in facts["outputs"]] == ["exit_01", "exit_02"]
    assert facts["inputs"][0]["shape"] == list(SENSOR.shape)


class Foreign(layers.Layer):
    """A layer that nobody registered."""

    def call(self, inputs: Any) -> Any:
        return inputs


class Subclassed(keras.Model):
    """A model without a graph."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.classify = layers.Dense(N_CLASSES)

    def call(self, inputs: Any) -> Any:
        return self.classify(inputs)


def with_layer(layer: Any) -> keras.Model:
    window = keras.Input((4,))
    return keras.Model(window, layers.Dense(3)(layer(window)))


def test_python_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    code = layers.Lambda(lambda x: x + 1, output_shape=(4,))
    result = inspect(saved(with_layer(code), tmp_path))
    assert result.exit_code == EXIT_INPUT
    assert "a Lambda layer, which is Python code. Use a layer or `keras.ops`" in result.output


def test_layers_that_are_not_registered_are_refused(tmp_path: Path) -> None:
    path = saved(with_layer(Foreign(name="own")), tmp_path)
    result = inspect(path)
    assert result.exit_code == EXIT_INPUT
    assert "'Foreign', which is not registered here" in result.output


@pytest.mark.parametrize("content", [None, b"", b"not a zip", "folder", "cut", "empty zip"])
def test_what_is_no_keras_file_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "network.keras"
    if content == "folder":
        path.mkdir()
    elif content == "cut":
        saved(with_layer(layers.Dense(5)), tmp_path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif content == "empty zip":
        import zipfile

        zipfile.ZipFile(path, "w").close()
    elif content is not None:
        path.write_bytes(content)
    result = inspect(path)
    assert result.exit_code == EXIT_INPUT, result.output
    assert result.output.startswith("Error: `path` must be a .keras file")
    assert "network.keras" in result.output
