"""`mexit cut`: stages in a folder, a list of places, and nothing written where it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema
from fixtures_networks import hand_whole
from typer.testing import CliRunner

from mexit_edge.cli import cut as cut_module
from mexit_edge.cli import model_file
from mexit_edge.cli.app import app
from mexit_edge.cli.cut import CutManifest
from mexit_edge.estimate import total_macs
from mexit_edge.files import sha256
from mexit_edge.runtime import CutParity, available_engines
from mexit_edge.tflite import Graph, cut_at_exits, cut_points, phone_model
from mexit_edge.tflite.flatbuffer import parse, serialize
from mexit_edge.tflite.points import MAX_LIVE

EXITS = ("exit_01", "exit_02", "exit_03")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder, so that whatever is written shows."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MEXIT_DEBUG", raising=False)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "hand.tflite"
    path.write_bytes(hand_whole())
    return path


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], CutParity]], None]:
    """Say what the comparison of stages and whole finds, instead of starting every engine in a child."""

    def set_parity(row: Callable[[str], CutParity]) -> None:
        monkeypatch.setattr(
            cut_module, "cut_parity", lambda content, stages, engines, n: tuple(map(row, engines))
        )

    return set_parity


def mexit(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_without_a_place_the_places_are_listed_and_nothing_is_written(model: Path, here: Path) -> None:
    result = mexit("cut", model)
    assert result.exit_code == 0, result.output
    facts = json.loads(mexit("cut", model, "--json").stdout)
    points = cut_points(hand_whole())
    assert [row["index"] for row in facts["cut_points"]] == [point.last.index for point in points]
    assert [len(row["live"]) for row in facts["cut_points"]] == [len(point.live) for point in points]
    shares = [row["cumulative_macs"] / row["total_macs"] for row in facts["cut_points"]]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1
    for row, share in zip(facts["cut_points"], shares, strict=True):
        assert re.search(rf"^│ +{row['index']} │", result.stdout, re.MULTILINE)
        assert f"{share:.1%}" in result.stdout
    assert not list(here.iterdir())


def test_exits_give_the_stages_of_a_bundle_and_a_manifest(model: Path, here: Path) -> None:
    options = [part for name in EXITS for part in ("--exits", name)]
    result = mexit("cut", model, *options, "--phone", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    folder = here / facts.pop("folder")
    assert folder.name == "hand_stages"
    manifest = CutManifest.model_validate_json((folder / "cut.json").read_text("utf-8"))
    assert manifest.model_dump(mode="json") == facts
    stages = cut_at_exits(hand_whole(), EXITS)
    assert {path.name for path in folder.iterdir()} == {
        *(f"stage_{number:02d}.tflite" for number in (1, 2, 3)),
        "cut.json",
        "phone.tflite",
    }
    for spec, stage in zip(manifest.stages, stages, strict=True):
        content = (folder / spec.file).read_bytes()
        assert content == stage.content
        assert (spec.sha256, spec.bytes) == (sha256(content), len(content))
        assert spec.macs == total_macs(content)
        assert [tensor.name for tensor in spec.outputs] == [name for name, _ in stage.outputs]
        assert spec.outputs[0].shape == (1, 4)
        assert spec.outputs[0].scale == stage.outputs[0][1].scale
        assert spec.inputs[0].dtype == "INT8"
    assert manifest.source_sha256 == sha256(hand_whole())
    phone = (folder / "phone.tflite").read_bytes()
    assert phone == phone_model(stages)
    assert manifest.phone_sha256 == sha256(phone)
    assert [row.engine for row in manifest.parity] == list(available_engines())
    # 5 windows, 3 exits, 4 classes.
    assert {(row.elements, row.differing_elements) for row in manifest.parity} == {(60, 0)}


def test_parts_and_tensors_are_written_where_asked_with_names_kept(
    model: Path, here: Path, parity: Any
) -> None:
    parity(lambda engine: CutParity(engine, 5, 60, 0))
    result = mexit("cut", model, "--into", 2, "--out", "two", "--keep-names")
    assert result.exit_code == 0, result.output
    assert "stage_02.tflite" in result.stdout
    assert "0 of 60 output elements differ" in " ".join(result.stdout.split())
    graph = Graph((here / "two" / "stage_02.tflite").read_bytes())
    assert set(graph.signature_outputs) <= set(EXITS)
    assert any(tensor.name.startswith("some_long_tensor_name") for tensor in graph.tensors)
    index = cut_points(hand_whole())[0].last.index
    result = mexit("cut", model, "--at", f"#{index}", "--out", "at", "--json")
    stages = json.loads(result.stdout)["stages"]
    assert len(stages) == 2
    assert sum(stage["macs"] for stage in stages) == total_macs(hand_whole())
    assert not (here / "at" / "phone.tflite").exists()


def test_the_most_tensors_at_a_boundary_can_be_chosen(model: Path) -> None:
    for most in (1, 2, 3):
        rows = json.loads(mexit("cut", model, "--json", "--max-live", most).stdout)["cut_points"]
        expected = [point.last.index for point in cut_points(hand_whole(), most)]
        assert [row["index"] for row in rows] == expected
    assert len(cut_points(hand_whole(), 1)) < len(cut_points(hand_whole()))
    help_text = " ".join(mexit("cut", "--help").stdout.replace("│", " ").split())
    assert f"for --into and the list (default: {MAX_LIVE})" in help_text


def test_a_file_without_a_signature_is_cut_at_tensors(model: Path, parity: Any) -> None:
    parity(lambda engine: CutParity(engine, 5, 60, 0))
    raw = parse(hand_whole())
    raw.signatureDefs = None
    model.write_bytes(serialize(raw))
    result = mexit("cut", model, "--exits", "exit_01")
    assert result.exit_code == 2
    assert "`--exits` need a signature of the file" in " ".join(result.output.split())
    assert "`mexit cut --at`" in " ".join(result.output.split())
    assert mexit("cut", model, "--at", cut_points(hand_whole())[0].last.index).exit_code == 0


def test_a_listed_name_is_one_that_a_cut_takes(model: Path, parity: Any) -> None:
    parity(lambda engine: CutParity(engine, 5, 60, 0))
    place = cut_points(hand_whole())[0].last.index
    fused = parse(hand_whole())
    fused.subgraphs[0].tensors[place].name = b"relu;add;bias"
    model.write_bytes(serialize(fused))
    assert "relu;" not in mexit("cut", model).stdout
    assert "relu" in mexit("cut", model).stdout
    by_name, by_index = (
        json.loads(mexit("cut", model, "--at", at, "--json").stdout) for at in ("relu", place)
    )
    assert by_name["stages"] == by_index["stages"]


def test_a_new_name_is_found_but_a_given_folder_is_never_written_over(
    model: Path, here: Path, parity: Any
) -> None:
    parity(lambda engine: CutParity(engine, 5, 60, 0))
    assert mexit("cut", model, "--into", 2).exit_code == 0
    assert mexit("cut", model, "--into", 2).exit_code == 0
    assert {path.name for path in here.iterdir()} == {"hand_stages", "hand_stages-2"}
    (here / "mine").mkdir()
    result = mexit("cut", model, "--into", 2, "--out", "mine")
    assert result.exit_code == 2
    assert "`--out` must be a new folder" in result.output
    result = mexit("cut", model, "--into", 2, "--out", "x" * 300)
    assert result.exit_code == 2
    assert "File name too long" in result.output
    assert not list((here / "mine").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--at", "nothing"], "must be one of"),
        (["--at", 9999], "`--at` must be one of, by index or name: "),
        (["--into", 90], "`--into` must be from 2 to"),
        (["--into", 90, "--max-live", 1], "Allow more tensors at a boundary (`--max-live`)"),
        (["--at", 1, "--max-live", 1], "`--max-live` must come with `--into`"),
        (["--exits", "exit_09"], "must name outputs of the model (exit_01, exit_02, exit_03)"),
        (["--exits", "exit_03", "--exits", "exit_03"], "must be distinct tensors"),
        (["--into", 2, "--at", "#1"], "must not be combined. Received: --at and --into"),
        (["--phone"], "need a place to cut at"),
        (["--out", "stages"], "need a place to cut at"),
    ],
)
def test_what_cannot_be_done_is_refused(model: Path, here: Path, options: list[Any], message: str) -> None:
    result = mexit("cut", model, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must be a .tflite file"),
        (b"no model", "without its mark"),
        (hand_whole()[:900], "damaged one"),
    ],
    ids=["none", "text", "truncated"],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, here: Path, content: Any, message: str) -> None:
    path = tmp_path / "file.tflite"
    if content is not None:
        path.write_bytes(hand_whole()[:content] if isinstance(content, int) else content)
    for options in ([], ["--into", 2]):
        result = mexit("cut", path, *options)
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())
    assert not list(here.iterdir())


def test_a_model_above_the_bound_is_not_even_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "MAX_MODEL_BYTES", 100)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("it was read"))
    for command in (("cut", model, "--into", 2), ("inspect", model)):
        result = mexit(*command)
        assert result.exit_code == 2
        assert "at most 100 bytes" in result.output


def test_stages_that_compute_something_else_are_not_written(model: Path, here: Path, parity: Any) -> None:
    parity(lambda engine: CutParity(engine, 5, 60, int(engine == "litert-builtin")))
    result = mexit("cut", model, "--into", 2)
    assert result.exit_code == 1
    assert "other results on litert-builtin. Nothing was written" in " ".join(result.output.split())
    assert not list(here.iterdir())


def test_a_model_that_no_engine_runs_is_refused_and_one_that_some_run_is_cut(
    model: Path, here: Path, parity: Any
) -> None:
    parity(lambda engine: CutParity(engine, 5, refusal="lacks the operator SPIN"))
    result = mexit("cut", model, "--into", 2)
    assert result.exit_code == 2
    assert "lacks the operator SPIN" in " ".join(result.output.split())
    assert not list(here.iterdir())
    parity(
        lambda engine: (
            CutParity(engine, 5, 60, 0)
            if engine == "litert-reference"
            else CutParity(engine, 5, refusal="lacks the operator SPIN")
        )
    )
    result = mexit("cut", model, "--into", 2)
    assert result.exit_code == 0
    assert "litert-xnnpack: refuses the model: lacks the operator SPIN." in " ".join(result.output.split())
    rows = json.loads((here / "hand_stages" / "cut.json").read_text("utf-8"))["parity"]
    assert {row["engine"]: row["elements"] for row in rows}["litert-xnnpack"] is None


def test_unknown_costs_are_unknown_and_parts_need_them(model: Path, parity: Any) -> None:
    parity(lambda engine: CutParity(engine, 5, 60, 0))
    # The second ADD, which only the last exit needs, becomes an operator that nobody can count.
    parsed = parse(hand_whole())
    second = [one.index for one in Graph(hand_whole()).operators if one.name == "ADD"][1]
    code = parsed.operatorCodes[parsed.subgraphs[0].operators[second].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.LSH_PROJECTION
    model.write_bytes(serialize(parsed))
    said = "MACs are unknown: nothing is known of LSH_PROJECTION."
    facts = json.loads(mexit("cut", model, "--json").stdout)
    assert facts["macs_unknown_because"] == said
    assert facts["cut_points"][0]["cumulative_macs"] == 96 * 24
    assert facts["cut_points"][-1]["cumulative_macs"] is None
    assert {row["total_macs"] for row in facts["cut_points"]} == {None}
    assert said in " ".join(mexit("cut", model).stdout.split())
    result = mexit("cut", model, "--into", 2)
    assert result.exit_code == 2
    refusal = " ".join(result.stderr.split())
    assert "`--into` needs a model whose MACs are known" in refusal
    assert "Received: LSH_PROJECTION of unknown MACs. Cut at tensors or at exits." in refusal
    exits = [part for name in EXITS for part in ("--exits", name)]
    result = mexit("cut", model, *exits, "--json")
    macs = [stage["macs"] for stage in json.loads(result.stdout)["stages"]]
    assert macs[:2] == [96 * 24 + 24 * 4] * 2
    assert macs[2] is None
    shown = " ".join(mexit("cut", model, *exits, "--out", "again").stdout.split())
    assert said in shown
    assert "2,400 unknown" in shown.replace("│ ", "")
