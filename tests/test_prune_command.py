"""`mexit prune` and `mexit cluster`: what they write, print and refuse."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fixtures_networks import TRAIN_REASON, flatten_network, synthetic_windows
from typer.testing import CliRunner

if find_spec("tensorflow") is None or find_spec("tensorflow_model_optimization") is None:
    pytest.skip(f"{TRAIN_REASON}, or the [compress] extra", allow_module_level=True)

import keras
import numpy as np

from mexit_edge.cli.app import app
from mexit_edge.cli.keras_file import load_saved
from mexit_edge.compress import kernel_facts
from mexit_edge.regimes import MultiExitModel

pytestmark = pytest.mark.train
WINDOWS = synthetic_windows(96, name="watch")


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved network in an empty folder, with synthetic windows for every data set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mexit_edge.cli.training_windows.load", lambda name: WINDOWS)
    path = tmp_path / "network.keras"
    flatten_network().save(path)
    return path


def mexit(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_prune_writes_a_network_and_says_what_it_holds(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # HAPT's official test subjects are not among these windows.
    monkeypatch.setattr(
        "mexit_edge.cli.training_windows.dataset", lambda name: type("Data", (), {"standard_test": None})
    )
    before = network.read_bytes()
    result = mexit("prune", network, "--sparsity", "0.8", "--epochs", "8", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["network"] == "network-pruned.keras"
    assert all(one["sparsity"] >= 0.8 for one in facts["kernels"])
    written = kernel_facts(keras.models.load_model("network-pruned.keras"))
    assert [one.zeros for one in written] == [one["zeros"] for one in facts["kernels"]]
    assert network.read_bytes() == before
    sizes = facts["zipped_float32_weight_bytes"]
    assert sizes["after"] < sizes["before"]
    assert "training subjects of the split with seed 0" in facts["windows"]


@pytest.mark.parametrize(("command", "how"), [("prune", "pruned"), ("cluster", "clustered")])
def test_a_saved_model_comes_back_as_one(network: Path, command: str, how: str) -> None:
    model = MultiExitModel(flatten_network())
    model.compile(run_eagerly=True)
    model.fit(WINDOWS.of_subjects((0, 1, 2)), epochs=1, batch_size=48, verbose=0)
    model.save("model.keras")
    result = mexit(command, "model.keras", "--data", "watch", "--epochs", 8, "--out", "small.keras", "--json")
    assert result.exit_code == 0, result.output
    small = load_saved(Path("small.keras"), "network")
    assert isinstance(small, MultiExitModel)
    assert small.normalisation == model.normalisation
    assert (small.provenance.data, small.provenance.train_subjects) == ("watch", (0, 1, 2))
    assert how in small.provenance.regime
    kernels = json.loads(result.stdout)["kernels"]
    assert all(one["sparsity"] >= 0.5 if how == "pruned" else one["distinct"] <= 16 for one in kernels)


def test_cluster_prints_a_table(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What clustering does is tested elsewhere: here a network that comes back as it is.
    received = {}

    def compressed(model: Any, windows: Any, **options: Any) -> Any:
        received.update(options, windows=len(windows))
        return model

    monkeypatch.setattr("mexit_edge.compress.cluster", compressed)
    monkeypatch.setattr(
        "mexit_edge.cli.training_windows.dataset", lambda name: type("Data", (), {"standard_test": None})
    )
    result = mexit("cluster", network, "--clusters", "9", "--out", "few.keras")
    assert result.exit_code == 0, result.output
    assert received["clusters"] == 9
    assert 0 < received["windows"] < len(WINDOWS)
    assert "distinct values" in result.output
    assert "All weights as float32, zipped: " in result.output
    old, new = (keras.models.load_model(path).weights for path in (network, "few.keras"))
    for one, other in zip(old, new, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_a_missing_extra_is_said_before_anything_is_loaded(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mexit_edge.cli.compressing.find_spec", lambda name: None if name == "tf_keras" else True
    )
    result = mexit("prune", network)
    assert result.exit_code == 2
    assert "tf_keras is not installed" in result.output
    assert "mexit-edge[compress]" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("prune", "network.keras", "--sparsity", "1.5"), "`--sparsity` must be a share"),
        (("prune", "network.keras", "--learning-rate", "nan"), "`--learning-rate` must be positive"),
        (("prune", "network.keras", "--out", "network.keras"), "network.keras"),
        (("cluster", "network.keras", "--out", "few.h5"), "must end in .keras"),
        (("prune", "network.keras", "--out", "."), "must end in the name of what is written"),
        (("cluster", "network.keras", "--out", ""), "must end in the name of what is written"),
        (("prune", "network.keras", "--out", "x" * 300), "File name too long"),
        (("cluster", "x" * 300), "File name too long"),
        (("cluster", "x" * 300, "--out", "few.keras"), "no such file"),
        (("cluster", "nothing.keras"), "no such file"),
        (("prune", "nothing.keras", "--out", "network.keras/few.keras"), "which is no folder"),
        (("cluster", "network.keras", "--data", "hapd"), "hapt"),
    ],
)
def test_bad_input(network: Path, arguments: tuple[str, ...], words: str) -> None:
    before = network.read_bytes()
    result = mexit(*arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert network.read_bytes() == before
    assert [path.name for path in Path().iterdir()] == ["network.keras"]
