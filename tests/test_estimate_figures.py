"""Figures of an estimate: bars are as long as what they stand for, and nothing is cut off."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from fixtures_networks import HandModel, bundle_of, hand_whole
from typer.testing import CliRunner

from mexit_edge.bundle import Bundle
from mexit_edge.cli.app import app
from mexit_edge.errors import InputError
from mexit_edge.estimate import estimate_bundle, estimate_model
from mexit_edge.estimate.latency.terms import TERMS
from mexit_edge.report.estimate_figures import LABELS, estimate_picture, stage_figure, term_figure

pytest.importorskip("matplotlib")

REFERENCE = Path(__file__).parents[1] / "tflite_models" / "reference.mexit"


@pytest.fixture(scope="module")
def reference():
    return estimate_bundle(Bundle.load(REFERENCE))


def bar_ends(ax) -> dict[int, float]:
    """Row -> where its stacked bar ends."""
    ends: dict[int, float] = {}
    for patch in ax.patches:
        row = round(patch.get_y() + patch.get_height() / 2)
        ends[row] = max(ends.get(row, 0.0), patch.get_x() + patch.get_width())
    return ends


def test_bars_end_at_the_exits_latency_and_whiskers_at_its_interval(reference):
    ax = stage_figure(reference)
    latencies = [one.estimated_latency_ms for one in reference.exits]
    assert bar_ends(ax) == pytest.approx({row: one.value for row, one in enumerate(latencies)}, rel=0.01)
    # One segment per stage that a window runs through.
    assert len(ax.patches) == 1 + 2 + 3
    (whiskers,) = ax.containers[-1].lines[2]
    ends = np.array([segment[:, 0] for segment in whiskers.get_segments()])
    assert ends == pytest.approx(np.array([[one.low, one.high] for one in latencies]))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["exit_01", "exit_02", "exit_03"]


def test_terms_of_a_stage_add_up_to_its_cycles(reference):
    ax = term_figure(reference)
    millions = {row: one.estimated_cycles.value / 1e6 for row, one in enumerate(reference.stages)}
    assert "millions" in ax.get_xlabel()
    assert bar_ends(ax) == pytest.approx(millions)


def test_a_model_is_one_bar():
    estimate = estimate_model(hand_whole())
    ax = term_figure(estimate)
    assert "thousands" in ax.get_xlabel()
    assert bar_ends(ax) == pytest.approx({0: estimate.estimated_cycles.value / 1e3})


def test_every_term_has_a_name_in_the_legend():
    assert set(LABELS) == {*TERMS, "priced"}


@pytest.mark.parametrize("draw", [stage_figure, term_figure])
def test_nothing_lies_outside_of_the_picture(reference, draw):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for estimate in (reference, estimate_bundle(bundle_of(hand_whole()))):
        ax = draw(estimate)
        canvas = FigureCanvasAgg(ax.figure)
        canvas.draw()
        box, edge = ax.get_tightbbox(canvas.get_renderer()), ax.figure.bbox
        assert box.x0 >= edge.x0
        assert box.x1 <= edge.x1 + 1
        assert box.y0 >= edge.y0 - 1
        assert box.y1 <= edge.y1 + 1


def test_unknown_cycles_are_refused_by_the_operators_name():
    model = HandModel()
    window = model.window((1, 4, 4))
    found = model.operator("CUSTOM", [window], model.tensor((1, 4, 4)))
    model.model.operatorCodes[-1].customCode = b"fft"
    content = model.finish({"exit_01": model.add(found, window)})
    with pytest.raises(InputError, match=r"must have known cycles.*custom:fft.*`prices`"):
        term_figure(estimate_model(content))


def test_pictures_are_files_of_their_kind_and_the_same_again(reference):
    svg = estimate_picture(reference, "svg")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert svg == estimate_picture(reference, "svg")
    assert estimate_picture(estimate_model(hand_whole()), "png").startswith(b"\x89PNG")


def test_the_command_writes_a_picture_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["estimate", str(REFERENCE), "--figure", "a.png"]
    first, again = (CliRunner().invoke(app, arguments) for _ in range(2))
    assert first.exit_code == 0, first.stderr
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    assert again.exit_code == 2
    assert "`a.png` exists already" in again.stderr
    assert again.stdout == ""
