"""`mexit analyze`: what it writes, prints and refuses."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_networks import (
    TRAIN_REASON,
    attached_network,
    commands_on,
    flatten_network,
    synthetic_windows,
    user_model,
)
from typer.testing import CliRunner

if any(find_spec(module) is None for module in ("tensorflow", "keras", "sklearn")):
    pytest.skip(TRAIN_REASON, allow_module_level=True)
pytest.importorskip("matplotlib", reason="matplotlib is not installed (the [report] extra)")
pytest.importorskip("jinja2", reason="jinja2 is not installed (the [report] extra)")

import keras

from mexit_edge import analysis
from mexit_edge.analysis import loss_landscape
from mexit_edge.cli import analyze
from mexit_edge.cli.analyze_request import refuse_other_subjects
from mexit_edge.cli.app import app
from mexit_edge.regimes import Joint, MultiExitModel
from mexit_edge.report import theme
from mexit_edge.report.analysis_sections import Analyses
from mexit_edge.signals import Normalisation

pytestmark = pytest.mark.train
WINDOWS = synthetic_windows(192, name="watch")
TRAINED_ON, VALIDATED_ON, TESTED_ON = (0, 1, 2), (3, 4), (5,)
OWN = WINDOWS.of_subjects(TRAINED_ON)


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Iterator[Path]:
    with commands_on(WINDOWS, tmp_path):
        yield tmp_path


def mexit(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["analyze", *map(str, arguments)])


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw for light surfaces alone, and a coarse landscape: both take most of the time."""
    monkeypatch.setitem(loss_landscape.__kwdefaults__, "n_points", 5)
    draw = theme._data_uri
    monkeypatch.setattr(
        theme, "_data_uri", lambda figure, scheme: draw(figure, scheme) if scheme is theme.LIGHT else "data:,"
    )


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the page's figures out."""
    monkeypatch.setattr(theme, "_data_uri", lambda figure, scheme: "data:,")


def save(
    path: str,
    network: Any = None,
    *,
    seed: int = 1,
    data: str = "watch",
    trained_on: Any = TRAINED_ON,
    validated_on: Any = VALIDATED_ON,
    **options: Any,
) -> None:
    """Save a model that says whom it was trained and validated on."""
    keras.utils.set_random_seed(seed)
    options = {"normalisation": Normalisation.fit(OWN), **options}
    model = MultiExitModel(network or attached_network(), **options)
    facts = {"data": data, "train_subjects": trained_on, "validation_subjects": validated_on}
    model.provenance = model.provenance.model_copy(update=facts)
    model.save(path)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.usefixtures("coarse")
def test_checkpoints_are_analyzed_written_and_printed(here: Path) -> None:
    save("one.keras", flatten_network(), seed=1)
    save("two.keras", flatten_network(), seed=2)
    result = mexit("one.keras", "two.keras", "--data", "watch", "--out", "found", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    names = ["gradients", "rank", "information", "connectivity", "landscape"]
    assert list(facts["analyses"]) == names
    assert (facts["folder"], facts["left_out"]) == ("found", [])
    assert facts["networks"] == {"one": "one.keras", "two": "two.keras"}
    assert "of the 3 subjects that the network was trained on; normalised" in facts["windows"]
    assert "2 validation subjects" in facts["judging"]
    assert sorted(path.name for path in Path("found").iterdir()) == sorted(
        [*(f"{name}.csv" for name in names), "page.html"]
    )
    for name in names:
        # A table says what JSON says; what is not defined is empty there and null here.
        written = rows(Path("found", f"{name}.csv"))
        assert written == [
            {key: "" if value is None else str(value) for key, value in row.items()}
            for row in facts["analyses"][name]
        ]
    assert {row["network"] for row in facts["analyses"]["gradients"]} == {"one", "two"}
    assert {row["network"] for row in facts["analyses"]["landscape"]} == {"two"}
    # 96 windows fill 20 batches of four; between heads there is no angle.
    assert {row["n_batches"] for row in facts["analyses"]["gradients"]} == {0, 20}
    barriers = [row for row in facts["analyses"]["connectivity"] if row["what"] == "barrier"]
    assert [row["exit"] for row in barriers] == ["exit_01", "exit_02", "mean"]
    assert all(row["loss_nats"] >= 0 for row in barriers)
    page = Path("found", "page.html").read_text("utf-8")
    for heading in (
        "Gradient dominance",
        "Mode connectivity",
        "Loss landscape",
        "Numerical rank",
        "Information",
    ):
        assert heading in page
    assert "subjects 3, 4" in page
    assert "fewer than 10 they are narrower than their level says" in " ".join(page.split())
    assert "<script" not in page
    assert page.count("<img") == page.count("<source") >= 10


@pytest.mark.usefixtures("unpainted")
def test_one_network_without_a_regime_goes_to_a_new_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flatten_network().save("mine.keras")
    np.savez("own.npz", x=OWN.x, y=OWN.y, subject=OWN.subject)
    what = ("--what", "rank, gradients")
    result = mexit("mine.keras", "--windows", "own.npz", *what)
    assert result.exit_code == 0, result.output
    folder = Path("runs", "analysis-mine")
    assert f"Written: {folder / 'rank.csv'}" in result.stdout
    assert "Rank of mine: " in result.stdout
    assert "connectivity" not in result.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["gradients.csv", "page.html", "rank.csv"]
    before = (folder / "rank.csv").read_bytes()
    rank = analysis.numerical_rank

    def overtaken(*arguments: Any, **options: Any) -> Any:
        Path("runs", "analysis-mine-2").mkdir()
        return rank(*arguments, **options)

    # Another analysis may end first: the name is one that is free when this one does.
    with monkeypatch.context() as patch:
        patch.setattr(analysis, "numerical_rank", overtaken)
        again = mexit("mine.keras", "--windows", "own.npz", *what, "--json")
    assert json.loads(again.stdout)["folder"] == "runs/analysis-mine-3"
    assert (Path("runs", "analysis-mine-3") / "rank.csv").read_bytes() == before
    refused = mexit("mine.keras", "--windows", "own.npz", *what, "--out", folder)
    assert (refused.exit_code, "exists already" in refused.stderr) == (2, True)
    over = mexit("mine.keras", "--windows", "own.npz", "--what", "rank", "--out", folder, "--overwrite")
    assert over.exit_code == 0, over.output
    assert sorted(path.name for path in folder.iterdir()) == ["page.html", "rank.csv"]
    # Nobody is needed to judge: the subjects of the file are left alone.
    assert json.loads(again.stdout)["judging"] is None


@pytest.mark.usefixtures("unpainted")
def test_windows_of_one_subject_are_not_probed_and_exit_weights_apply(here: Path) -> None:
    save("model.keras", flatten_network(), regime=Joint(exit_weights=(1.0, 0.0)))
    np.savez("own.npz", x=OWN.x, y=OWN.y)
    result = mexit("model.keras", "--windows", "own.npz", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert list(facts["analyses"]) == ["gradients", "rank", "landscape"]
    assert len(facts["left_out"]) == 2
    shares = {
        (row["group"], row["exit"]): row["value"]
        for row in facts["analyses"]["gradients"]
        if row["figure"] == "share"
    }
    assert shares["block_01", "exit_01"] == 1
    assert shares["head_02", "exit_02"] is None
    refused = mexit("model.keras", "--windows", "own.npz", "--what", "information")
    assert refused.exit_code == 2
    assert "`--windows` must hold windows of two subjects at least" in refused.stderr


@pytest.mark.usefixtures("unpainted")
def test_what_cannot_be_done_is_said_before_any_analysis(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def nothing(request: Any, loaded: Any, wanted: Any, progress: Any) -> Analyses:
        done.append(wanted)
        return Analyses(request.names)

    monkeypatch.setattr(analyze, "_analyze", nothing)
    save("a.keras", flatten_network())
    diverged = flatten_network()
    diverged.set_weights([np.full(one.shape, np.nan) for one in diverged.get_weights()])
    save("nan.keras", diverged)
    np.savez("one.npz", x=OWN.x, y=np.zeros_like(OWN.y), subject=OWN.subject)
    three = ["a.keras"] * 3
    result = mexit(*three, "--windows", "one.npz", "--json")
    assert result.exit_code == 0, result.output
    assert done == [["gradients", "landscape", "rank"]]
    connectivity, information = json.loads(result.stdout)["left_out"]
    assert connectivity.startswith("No connectivity: `NETWORK.keras` must span a plane. Received: ")
    assert information.startswith("No information: `--windows` must hold two classes at least. Received: ")
    for arguments, said in (
        (["--what", "rank,connectivity"], "Or leave connectivity out of `--what`."),
        (["--what", "rank,information"], "`--windows` must hold two classes"),
        (["nan.keras"], "`NETWORK.keras` must have finite weights"),
    ):
        refused = mexit(*three, "--windows", "one.npz", *arguments)
        assert (refused.exit_code, said in " ".join(refused.stderr.split())) == (2, True)
    assert len(done) == 1


def test_a_network_without_a_regime_stands_beside_one_that_knows_no_subjects() -> None:
    network = flatten_network()
    refuse_other_subjects(("one", "other"), (network, MultiExitModel(network)))


@pytest.mark.usefixtures("unpainted")
def test_subjects_of_a_file_judge_in_place_of_validation_subjects(here: Path) -> None:
    flatten_network().save("mine.keras")
    np.savez("own.npz", x=OWN.x, y=OWN.y, subject=OWN.subject)
    result = mexit("mine.keras", "--windows", "own.npz", "--what", "information", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert "judged on 1 of the 3 subjects" in facts["judging"]
    assert all(row["low"] is None for row in facts["analyses"]["information"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.keras", "--what", "ranks"], "`--what` must be one of:.*Did you mean 'rank'"),
        (["a.keras", "--what", "connectivity"], "`NETWORK.keras` must be two or three.*Received: 1"),
        (["a.keras", "b.keras"], "`NETWORK.keras` must have the same structure.*number 2"),
        (["a.keras", "others.keras"], "`NETWORK.keras` must have the same.*others with other training sub"),
        (["a.keras", "judges.keras"], "`NETWORK.keras` must have the same.*judges with other validation sub"),
        (["a.keras", "hapt.keras"], "`NETWORK.keras` must have the same data.*hapt with other data than a"),
        (["a.keras", "--out", ".", "--overwrite"], "must end in the name"),
        (["a.keras", "--out", "mine", "--overwrite"], "`--out` must be a new folder.*mine with a.keras"),
        (["a.keras", "--out", "old", "--overwrite"], "`--out` must be a new folder.*old with rank.csv"),
        (["a.keras", "--out", "file", "--overwrite"], "`--out` must"),
        (["single.keras"], "`NETWORK.keras` must be a functional Keras model with a dict of outputs"),
        (["two.keras"], "`NETWORK.keras` must have one input, the window. Received: 2"),
        (["none.keras"], "`NETWORK.keras` must be a .keras file.*no such file"),
        (["a.keras", "--windows", "short.npz", "--what", "rank"], "`x` of `--windows` must be real numbers"),
        (["a.keras", "--out", "a.keras"], "`--out` must name a folder"),
        (["a.keras", "--data", "hapt"], "`--data` must be the data set that the network was trained on"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(here: Path, arguments: list[str], said: str) -> None:
    for name in arguments:
        if name == "a.keras":
            save(name, flatten_network())
        elif name == "b.keras":
            save(name)
        elif name == "others.keras":
            save(name, flatten_network(), trained_on=(0, 1))
        elif name == "judges.keras":
            save(name, flatten_network(), validated_on=(4, 5))
        elif name == "hapt.keras":
            save(name, flatten_network(), data="hapt")
        elif name in ("mine", "old"):
            Path(name).mkdir()
            Path(name, "rank.csv").write_text("of somebody")
            if name == "mine":
                Path(name, "a.keras").write_text("of somebody")
        elif name == "file":
            Path(name).write_text("of somebody")
        elif name == "single.keras":
            user_model().save(name)
        elif name == "two.keras":
            windows = [keras.Input((4,), name=one) for one in ("left", "right")]
            joined = keras.layers.Concatenate()(windows)
            keras.Model(windows, {"exit_01": keras.layers.Dense(2, name="exit_01")(joined)}).save(name)
        elif name == "short.npz":
            np.savez(name, x=OWN.x[:, :5], y=OWN.y)
    before = {path: path.is_file() and path.read_bytes() for path in here.rglob("*")}
    result = mexit(*arguments)
    assert result.exit_code == 2, result.output
    message = " ".join(result.stderr.split())
    assert message.startswith("Error: ")
    assert "Received: " in message
    assert re.search(said, message), message
    assert {path: path.is_file() and path.read_bytes() for path in here.rglob("*")} == before
