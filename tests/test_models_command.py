"""`mexit models`, the committed figures of the presets, and `--preset` of the commands that train."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from fixtures_networks import HAS_TFLM, converting_in_this_process, train
from typer.testing import CliRunner

from mexit_edge.cli import models
from mexit_edge.cli.app import app
from mexit_edge.cli.models import PresetFigures, committed_figures
from mexit_edge.cli.settings import TrainSettings
from mexit_edge.signals import Sensor

CSV = Path(models.__file__).parent.parent / "models" / "presets.csv"
FIGURES = PresetFigures("cnn", "tiny", 20, 3, 4, 1234, (1000, 25_000), 5678, None)


def mexit(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_committed_figures_are_printed_without_tensorflow() -> None:
    code = (
        "import sys; sys.argv = ['mexit', 'models', '--json']\n"
        "from mexit_edge.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    print(*({'tensorflow', 'keras'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr.strip() == ""
    printed = json.loads(done.stdout)["models"]
    expected = [{**asdict(one), "exits": len(one.exit_macs)} for one in committed_figures()]
    assert printed == json.loads(json.dumps(expected))


def test_the_table_shows_every_figure() -> None:
    result = mexit("models")
    assert result.exit_code == 0
    for one in committed_figures():
        assert f"{one.parameters:,}" in result.stdout
        assert f"{one.int8_bytes:,}" in result.stdout
        assert " ".join(f"{macs / 1000:,.0f}" for macs in one.exit_macs) in result.stdout
        assert one.largest_arena_bytes is not None
        assert f"{one.largest_arena_bytes:,}" in result.stdout


def test_rows_are_chosen_by_name() -> None:
    chosen = json.loads(mexit("models", "--backbone", "tcn", "--preset", "small", "--json").stdout)["models"]
    assert [(one["backbone"], one["preset"]) for one in chosen] == [("tcn", "small")]
    assert len(json.loads(mexit("models", "--preset", "tiny", "--json").stdout)["models"]) > 3


@pytest.mark.parametrize("figures", [FIGURES, *committed_figures()[:2]])
def test_a_row_is_read_as_it_was_written(figures: PresetFigures) -> None:
    assert PresetFigures.of_row({name: str(value) for name, value in figures.row.items()}) == figures


def test_the_file_has_no_other_columns() -> None:
    with CSV.open(encoding="utf-8") as stream:
        assert csv.DictReader(stream).fieldnames == list(FIGURES.row)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backbone", "tnc"], "`backbone` must be one of: cnn, dscnn, dscnn2d, msdnet, resnet, tcn."),
        (["--preset", "large"], "`preset` must be one of: medium, small, tiny."),
        (["--data", "hatp"], "Did you mean 'hapt'"),
        (["--window", "64"], "must come together. Received: 64, None, None."),
        (["--window", 10**12, "--channels", 3, "--classes", 4], "must be at most 1,048,576"),
        (["--window", 64, "--channels", 3, "--classes", 10**9], "`--classes` at most 10,000"),
        (["--data", "hapt", "--classes", "3"], "must be left out with `--data`"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_measured(arguments: list[str], message: str) -> None:
    result = mexit("models", *arguments)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())


def test_without_tensorflow_nothing_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "find_spec", lambda module: None)
    result = mexit("models", "--window", 64, "--channels", 3, "--classes", 4)
    assert result.exit_code == 2
    assert "mexit-edge[train]" in result.stderr


@pytest.mark.skipif(find_spec("tensorflow") is None or find_spec("keras") is None, reason="needs the extra")
@pytest.mark.parametrize(
    ("arguments", "shape"),
    [(["--window", 64, "--channels", 3, "--classes", 4], (64, 3, 4)), (["--data", "hapt"], (128, 6, 6))],
)
def test_another_shape_is_measured_anew(
    monkeypatch: pytest.MonkeyPatch, arguments: list[object], shape: tuple[int, int, int]
) -> None:
    asked = []

    def measure(backbone: str, preset: str, sensor: Sensor, n_classes: int) -> PresetFigures:
        asked.append((backbone, preset, *sensor.shape, n_classes))
        return FIGURES

    sensor = Sensor.plain(6, 128)
    monkeypatch.setattr(models, "measure", measure)
    monkeypatch.setattr("mexit_edge.data.load", lambda name: SimpleNamespace(sensor=sensor))
    result = mexit("models", *arguments, "--backbone", "cnn", "--json")
    assert result.exit_code == 0, result.output
    assert asked == [("cnn", preset, *shape) for preset in ("tiny", "small", "medium")]
    assert (
        json.loads(result.stdout)["models"] == [{**json.loads(json.dumps(asdict(FIGURES))), "exits": 2}] * 3
    )
    assert "quantizing and cutting cnn medium" in result.stderr
    assert "unknown" in mexit("models", *arguments, "--preset", "tiny").stdout


@train
def test_every_preset_has_its_row_and_nothing_else_has() -> None:
    from mexit_edge.models import BACKBONES, PRESETS

    assert set(PRESETS) == set(BACKBONES)
    rows = [(one.backbone, one.preset) for one in committed_figures()]
    assert rows == [(backbone, preset) for backbone in sorted(PRESETS) for preset in PRESETS[backbone]]
    shapes = {one.backbone: (one.window, one.channels, one.classes) for one in committed_figures()}
    assert shapes.pop("dscnn2d") == (49, 10, 12)
    assert set(shapes.values()) == {(128, 6, 6)}


@train
@pytest.mark.parametrize(("backbone", "preset"), [("cnn", "tiny"), ("msdnet", "tiny")])
def test_the_committed_figures_can_be_measured_again(backbone: str, preset: str) -> None:
    (committed,) = (one for one in committed_figures() if (one.backbone, one.preset) == (backbone, preset))
    sensor = Sensor.plain(committed.channels, committed.window)
    with converting_in_this_process():
        measured = asdict(models.measure(backbone, preset, sensor, committed.classes))
    if not HAS_TFLM:
        assert measured.pop("largest_arena_bytes") is None
    assert measured == {name: value for name, value in asdict(committed).items() if name in measured}


# --- The preset of a training -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "train"])
def test_a_training_takes_a_preset(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    given = []
    monkeypatch.setattr(
        f"mexit_edge.cli.{command}.{command}_and_print",
        lambda settings, *rest, **options: given.append(settings),
    )
    assert mexit(command, "--preset", "tiny").exit_code == 0
    assert mexit(command).exit_code == 0
    assert [settings.preset for settings in given] == ["tiny", "medium"]


@train
def test_an_unknown_preset_lists_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = mexit("train", "--preset", "tiney")
    assert result.exit_code == 2, result.output
    assert "`preset` must be one of: medium, small, tiny." in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


@train
def test_the_preset_decides_the_network() -> None:
    from fixtures_networks import synthetic_windows

    from mexit_edge.cli.training import build_model

    windows = synthetic_windows(12)
    stems = {
        preset: build_model(TrainSettings(preset=preset), windows).network.get_layer("stem").filters
        for preset in ("tiny", "small", "medium")
    }
    assert stems == {"tiny": 8, "small": 12, "medium": 16}
