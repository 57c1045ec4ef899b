"""`mexit inspect`: the picture of a bundle's stages, and the operators of any model."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from fixtures_networks import HandModel, bundle_of, hand_whole
from typer.testing import CliRunner

from mexit_edge.bundle import Bundle
from mexit_edge.cli.app import app
from mexit_edge.estimate import operations
from mexit_edge.report import plot_stages
from mexit_edge.report.stages import crossings

REFERENCE = Path(__file__).parent.parent / "tflite_models" / "reference.mexit"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEXIT_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


@pytest.fixture
def bundle() -> Bundle:
    return bundle_of(hand_whole(), thresholds=(8, 10))


def inspect(*arguments: object):
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


# --- A bundle's stages --------------------------------------------------------------------------------------


def test_crossings_follow_views_and_long_skips(bundle):
    found = {one.tensor.name: (one.made_by, one.read_by) for one in crossings(bundle.manifest)}
    assert found == {
        "window": (0, (1, 2)),
        "exit_01_logits": (1, ()),
        "stage_01_features_01": (1, (2, 3)),
        "exit_02_logits": (2, ()),
        "stage_02_features_01": (2, (3,)),
        "exit_03_logits": (3, ()),
    }


def test_the_terminal_shows_every_stage_and_every_boundary(bundle):
    bundle.save("hand.mexit")
    result = inspect("hand.mexit")
    assert result.exit_code == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 80
    for stage in bundle.manifest.stages:
        for fact in (
            stage.file,
            f"{stage.macs:,} MACs",
            f"file {stage.flash_bytes:,} bytes",
            "arena unknown",
        ):
            assert fact in result.stdout
    for fact in (
        "32 samples x 3 channels at 50 Hz",
        "window: 1x32x3 int8, 96 bytes",
        "scale 0.03, zero point 0",
        "stage_01_features_01: 1x24 int8, 24 bytes",
        "read by exit_02, exit_03",
        "leaves if logit_margin >= 8",
        "leaves if logit_margin >= 10",
        "takes every window left",
        "One block of RAM for the loop: unknown",
        # In use from the stage that makes it to the last one that reads it.
        "│ stage_01_features_01 │",
    ):
        assert fact in result.stdout


def test_names_with_brackets_and_dollars_are_shown_as_they_are(tiny_bundle, here):
    stage = tiny_bundle.manifest.stages[0].model_copy(update={"ops": {"[bold]A$b$": 2}})
    changed = tiny_bundle.with_manifest(stages=(stage, *tiny_bundle.manifest.stages[1:]), golden=None)
    changed.save("tiny.mexit")
    result = inspect("tiny.mexit", "--svg", "s.svg")
    assert result.exit_code == 0, result.stderr
    assert "2 [bold]A$b$" in result.stdout


def test_the_picture_holds_the_boxes_and_what_crosses(bundle):
    pytest.importorskip("matplotlib")
    ax = plot_stages(bundle.manifest)
    shown = [text.get_text() for text in ax.texts]
    assert len(ax.patches) == 3
    for stage in bundle.manifest.stages:
        assert stage.exit in shown
        assert stage.outputs[0].name in shown
    assert "window, 1x32x3 int8, 96 bytes" in shown
    assert "read by exit_02, exit_03" in shown
    # Two tensors pass a stage by: the window to exit_02, the first features to exit_03.
    assert len(ax.lines) == 2


def test_no_text_of_the_picture_runs_into_another_or_out_of_it():
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for manifest in (Bundle.load(REFERENCE).manifest, bundle_of(hand_whole(), thresholds=(8, 10)).manifest):
        ax = plot_stages(manifest)
        renderer = FigureCanvasAgg(ax.figure).get_renderer()
        boxes = [text.get_window_extent(renderer) for text in ax.texts if text.get_text()]
        edge = ax.figure.bbox
        assert all(box.x0 >= edge.x0 and box.x1 <= edge.x1 for box in boxes)
        assert all(box.y0 >= edge.y0 and box.y1 <= edge.y1 for box in boxes)
        assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])


def test_svg_is_written_once(bundle):
    pytest.importorskip("matplotlib")
    bundle.save("hand.mexit")
    assert inspect("hand.mexit", "--svg", "stages.svg").exit_code == 0
    content = Path("stages.svg").read_bytes()
    assert ElementTree.fromstring(content).tag.endswith("svg")
    again = inspect("hand.mexit", "--svg", "stages.svg")
    assert again.exit_code == 2
    assert "`stages.svg` exists already" in again.stderr
    assert inspect("hand.mexit", "--svg", "other.svg").exit_code == 0
    assert Path("other.svg").read_bytes() == content


# --- Any model ----------------------------------------------------------------------------------------------


def test_a_model_is_listed_operator_by_operator():
    Path("whole.tflite").write_bytes(hand_whole())
    facts = json.loads(inspect("whole.tflite", "--json").stdout)
    costs = operations(hand_whole())
    assert [row["operator"] for row in facts["operators"]] == [cost.name for cost in costs]
    assert [row["macs"] for row in facts["operators"]] == [cost.macs for cost in costs]
    assert facts["macs"] == sum(cost.macs for cost in costs)
    # RESHAPE, dense, dense, ADD, ADD, then the three heads: by hand from the sizes 96, 24 and 4.
    assert [row["live_tensors"] for row in facts["operators"]] == [1, 2, 2, 2, 3, 3, 3, 3]
    assert [row["live_bytes"] for row in facts["operators"]] == [96, 120, 48, 48, 72, 52, 32, 12]
    assert facts["most_live_bytes"] == 120
    assert facts["inputs"][0]["shape"] == [1, 32, 3]


def test_the_table_of_a_model_fits_and_names_its_operators():
    Path("whole.tflite").write_bytes(hand_whole())
    result = inspect("whole.tflite")
    assert result.exit_code == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "whole.tflite: operators" in result.stdout
    # Two of 96 x 24, three heads of 24 x 4.
    assert "8 operators, 4,896 MACs" in " ".join(result.stdout.split())


def test_macs_are_unknown_where_an_operator_has_no_known_cost():
    model = HandModel()
    window = model.window((1, 4))
    output = model.tensor((1, 4))
    Path("odd.tflite").write_bytes(model.finish({"exit_01": model.operator("CUMSUM", [window], output)}))
    facts = json.loads(inspect("odd.tflite", "--json").stdout)
    assert (facts["macs"], facts["operators"][0]["macs"]) == (None, None)
    shown = " ".join(inspect("odd.tflite").stdout.split())
    assert "unknown MACs" in shown
    assert "Received: CUMSUM" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.tflite"], "`path` must be a .tflite file. Received: nothing.tflite"),
        (["text.tflite"], "a model must be a .tflite file"),
        (["half.tflite"], "Received: a damaged one"),
        (["whole.tflite", "--svg", "x.svg"], "`--svg` must come with a bundle"),
    ],
)
def test_wrong_input_is_refused(here, arguments, message):
    Path("text.tflite").write_text("no model at all")
    Path("whole.tflite").write_bytes(hand_whole())
    Path("half.tflite").write_bytes(hand_whole()[:900])
    result = inspect(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert not (here / "x.svg").exists()
