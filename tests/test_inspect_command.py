"""`mexit inspect`: the picture of a bundle's stages, and the operators of any model."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from fixtures_networks import HandModel, bundle_of, hand_whole
from typer.testing import CliRunner

from mexit_edge.bundle import Bundle, crossings
from mexit_edge.cli.app import app
from mexit_edge.errors import InputError
from mexit_edge.estimate import operations
from mexit_edge.report import plot_stages
from mexit_edge.tflite import Graph, cut_at_exits, cut_points, phone_bundle, phone_model

REFERENCE = Path(__file__).parent.parent / "tflite_models" / "reference.mexit"


@pytest.fixture(autouse=True)
def here(command_folder: Path) -> Path:
    return command_folder


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
        # In use from the stage that makes it to the last one that reads it.
        "│ stage_01_features_01 │",
    ):
        assert fact in result.stdout
    assert "One block of RAM for the loop" in result.stdout
    assert "Host unknown: the bundle does not state every arena." in result.stdout


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


def test_a_view_beside_what_it_shows_is_alive_once_as_it_is_for_a_cut():
    model = HandModel()
    window = model.window((1, 4, 2))
    view = model.view(window, (1, 8))
    twice = model.add(view, view, scale=0.2)
    content = model.finish({"exit_01": model.add(twice, model.view(window, (1, 8)), scale=0.3)})
    Path("views.tflite").write_bytes(content)
    rows = json.loads(inspect("views.tflite", "--json").stdout)["operators"]
    assert [(row["operator"], row["live_tensors"]) for row in rows] == [
        ("RESHAPE", 1),
        ("ADD", 2),
        ("RESHAPE", 2),
        ("ADD", 1),
    ]
    (point,) = cut_points(content)
    assert len(point.live) == rows[1]["live_tensors"]


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
    output = model.operator("UNIQUE", [model.add(window, window)], model.tensor((1, 4)))
    Path("odd.tflite").write_bytes(model.finish({"exit_01": output}))
    facts = json.loads(inspect("odd.tflite", "--json").stdout)
    assert (facts["macs"], [row["macs"] for row in facts["operators"]]) == (None, [0, None])
    shown = " ".join(inspect("odd.tflite").stdout.split())
    assert "unknown MACs" in shown
    assert "MACs are unknown: nothing is known of UNIQUE." in shown


def test_macs_are_unknown_where_a_shape_does_not_fit():
    model = HandModel()
    window = model.window((1, 4))
    output = model.operator("FULLY_CONNECTED", [window, model.tensor((2, 2, 4))], model.tensor((1, 2)))
    Path("odd.tflite").write_bytes(model.finish({"exit_01": output}))
    facts = json.loads(inspect("odd.tflite", "--json").stdout)
    assert (facts["macs"], facts["operators"][0]["macs"]) == (None, None)
    assert "must give FULLY_CONNECTED at place 0" in facts["macs_unknown_because"]


def test_the_case_of_a_suffix_does_not_matter():
    Path("WHOLE.TFLITE").write_bytes(hand_whole())
    assert "WHOLE.TFLITE: operators" in inspect("WHOLE.TFLITE").stdout


def test_one_file_of_all_stages_is_listed_signature_by_signature():
    stages = cut_at_exits(hand_whole(), ("exit_01", "exit_02", "exit_03"))
    Path("phone.tflite").write_bytes(phone_model(stages))
    parts = json.loads(inspect("phone.tflite", "--json").stdout)["signatures"]
    assert list(parts) == ["stage_01", "stage_02", "stage_03"]
    for facts, stage in zip(parts.values(), stages, strict=True):
        costs = operations(stage.content)
        assert [row["operator"] for row in facts["operators"]] == [cost.name for cost in costs]
        assert facts["macs"] == sum(cost.macs for cost in costs)
        assert facts["weight_bytes"] > 0
    shown = inspect("phone.tflite").stdout
    assert all(f"phone.tflite, {key}: operators" in shown for key in parts)
    # The names are those of the signature that belongs to the part.
    graphs = Graph.of_signatures(phone_model(stages))
    assert [next(iter(graph.signature_outputs)) for graph in graphs.values()] == [
        "exit_01_logits",
        "exit_02_logits",
        "exit_03_logits",
    ]
    with pytest.raises(InputError, match=r"3 subgraphs, with the signatures stage_01, stage_02, stage_03\."):
        Graph(phone_model(stages))


def test_what_cut_wrote_is_shown_and_checked(here):
    Path("whole.tflite").write_bytes(hand_whole())
    made = CliRunner().invoke(app, ["cut", "whole.tflite", "--into", "2", "--out", "parts", "--phone"])
    assert made.exit_code == 0, made.stderr
    for path in ("parts", "parts/cut.json"):
        result = inspect(path)
        assert result.exit_code == 0, result.stderr
        assert "whole.tflite: 2 stages" in result.stdout
        assert "stage_02.tflite" in result.stdout
        assert json.loads(inspect(path, "--json").stdout)["stages"][1]["file"] == "stage_02.tflite"
    assert "`--svg` must come with a bundle" in inspect("parts", "--svg", "x.svg").stderr
    for name in ("stage_02.tflite", "phone.tflite"):
        content = (here / "parts" / name).read_bytes()
        (here / "parts" / name).write_bytes(b"another")
        result = inspect("parts")
        assert result.exit_code == 2
        assert f"`{name}` must have the sha256 that cut.json states" in " ".join(result.stderr.split())
        (here / "parts" / name).unlink()
        said = " ".join(inspect("parts").stderr.split())
        assert f"`parts` must hold the file {name}. Received: none" in said
        (here / "parts" / name).write_bytes(content)
    (here / "parts" / "cut.json").write_text('{"stages": [{"file": "../x"}]}')
    assert "must be a cut.json as `mexit cut` writes it" in " ".join(inspect("parts").stderr.split())
    said = " ".join(inspect("nothing/cut.json").stderr.split())
    assert "must hold the file cut.json. Received: none" in said


def test_a_bundle_says_that_it_holds_the_file_for_phones(bundle):
    bundle.save("plain.mexit")
    phone = phone_bundle(bundle)
    bundle.with_phone(phone).save("phone.mexit")
    assert "phone.tflite" not in inspect("plain.mexit").stdout
    assert f"phone.tflite: {len(phone):,} bytes" in inspect("phone.mexit").stdout


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
