"""`mexit verify`: what it runs, what it prints, and when it fails."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures_networks import SENSOR, bundle_of, hand_whole, random_samples, synthetic_windows
from typer.testing import CliRunner

from mexit_edge.cli.app import app
from mexit_edge.cli.verify import read_windows
from mexit_edge.data import LoadedWindows
from mexit_edge.errors import InputError
from mexit_edge.runtime import Runtime, available_engines, reference_engine, verify_golden_tensors
from mexit_edge.runtime.engines import LiteRTModel
from mexit_edge.simulate import make_golden

OTHERS = [name for name in available_engines() if name != reference_engine()]


@pytest.fixture(autouse=True)
def here(command_folder: Path) -> Path:
    return command_folder


@pytest.fixture
def plain():
    return bundle_of(hand_whole(), thresholds=(8, 10))


@pytest.fixture
def golden(plain):
    made = make_golden(plain, synthetic_windows(60, noise=2.0), 12)
    made.save("whole.mexit")
    return made


def verify(*arguments: object):
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def facts(*arguments: object) -> dict:
    result = verify(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_golden_vectors_are_run_on_every_engine(golden):
    found = facts("whole.mexit")
    assert found["reference"] == reference_engine()
    assert [row["engine"] for row in found["golden"]] == list(available_engines())
    assert [row["decisions_wrong"] for row in found["golden"]] == [0] * len(available_engines())
    (compared,) = found["compared"]
    assert compared["windows_of"] == "golden vectors"
    assert [row["engine"] for row in compared["engines"]] == OTHERS
    assert all(row["windows"] == 12 for row in compared["engines"])


def test_the_tables_fit_a_narrow_terminal_and_name_every_tensor(golden):
    result = verify("whole.mexit")
    assert result.exit_code == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 80
    for stage in golden.manifest.stages:
        for tensor in stage.outputs:
            assert result.stdout.count(tensor.name) == len(OTHERS)
    for engine in available_engines():
        assert f"Golden vectors, {engine}: 0 of 12 decisions differ." in result.stdout


def test_only_the_engines_named_are_compared(golden):
    found = facts("whole.mexit", "--engine", "litert-builtin", "--engine", "litert-xnnpack")
    assert [row["engine"] for row in found["golden"]] == ["litert-xnnpack", "litert-builtin"]
    assert [row["engine"] for row in found["compared"][0]["engines"]] == ["litert-builtin", "litert-xnnpack"]


@pytest.mark.parametrize("name", ["counts.npy", "floats.npz", "named.npz"])
def test_windows_of_a_file_are_run_too(golden, name):
    counts = np.random.default_rng(0).integers(-9000, 9000, (30, *SENSOR.shape)).astype(np.int16)
    floats = random_samples(30, SENSOR.shape)
    if name == "counts.npy":
        np.save(name, counts)
    elif name == "floats.npz":
        np.savez(name, floats)
    else:
        np.savez(name, labels=np.zeros(30), windows=floats)
    found = facts("whole.mexit", "--windows", name, "--engine", "litert-reference", "--limit", 7)
    of_golden, of_file = found["compared"]
    assert (of_golden["windows_of"], of_file["windows_of"]) == ("golden vectors", name)
    chosen = (counts if name == "counts.npy" else floats)[[0, 5, 10, 14, 19, 24, 29]]
    got = Runtime(golden, "litert-reference").run_all_exits(chosen)
    expected = Runtime(golden, reference_engine()).run_all_exits(chosen)
    (row,) = of_file["engines"]
    for tensor in row["tensors"]:
        assert tensor["windows"] == 7
        differs = got[tensor["tensor"]] != expected[tensor["tensor"]]
        assert tensor["differing_elements"] == int(differs.sum())


def test_a_data_set_is_run_by_its_test_subjects(plain, monkeypatch):
    x = synthetic_windows(60)
    subject = np.arange(60) // 10
    loaded = LoadedWindows(x.x, x.y, subject, x.sensor, x.classes, "hapt", (4, 5))
    monkeypatch.setattr("mexit_edge.cli.verify.load", lambda name: loaded)
    plain.save("plain.mexit")
    (compared,) = facts("plain.mexit", "--data", "hapt")["compared"]
    assert compared["windows_of"] == "hapt"
    assert compared["engines"][0]["windows"] == 20


def test_the_reference_is_compared_with_the_golden_vectors_alone(golden):
    result = verify("whole.mexit", "--engine", reference_engine())
    assert result.exit_code == 0, result.stderr
    elements = sum(tensor.size for tensor in golden.golden.tensors.values())
    assert result.stdout.splitlines() == [
        f"Golden vectors, {reference_engine()}: 0 of 12 decisions differ.",
        f"Golden tensors, {reference_engine()}: 0 of {elements:,} elements differ.",
    ]
    np.save("x.npy", synthetic_windows(20).x)
    refused = verify("whole.mexit", "--engine", reference_engine(), "--windows", "x.npy")
    assert refused.exit_code == 2
    assert "`--engine` must name one to compare with the reference" in refused.stderr
    both = facts("whole.mexit", "--engine", reference_engine(), "--engine", OTHERS[0])
    assert [row["engine"] for row in both["compared"][0]["engines"]] == [OTHERS[0]]


# --- Failing ------------------------------------------------------------------------------------------------


def test_a_golden_decision_that_is_not_reproduced_fails_after_printing(golden, plain):
    exits = golden.golden.exits["litert-xnnpack"].copy()
    exits[2] = exits[2] % 3 + 1
    changed = replace(golden.golden, exits=golden.golden.exits | {"litert-xnnpack": exits})
    plain.with_golden(changed).save("changed.mexit")
    result = verify("changed.mexit")
    assert result.exit_code == 1
    assert "Golden vectors, litert-xnnpack: 1 of 12 decisions differ." in result.stdout
    assert "changed.mexit` must be reproduced. Received: others on litert-xnnpack." in result.stderr
    # The other engines hold what was stated for them.
    assert verify("changed.mexit", "--engine", "litert-builtin").exit_code == 0


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_golden_tensor_that_is_not_reproduced_fails_after_printing(golden, plain, command):
    # Decisions and hashes fit all the same.
    changed = {name: values.copy() for name, values in golden.golden.tensors.items()}
    changed["exit_02_logits"][3, ..., 1] ^= 1
    changed["stage_01_features_01"] ^= 4
    plain.with_golden(replace(golden.golden, tensors=changed)).save("changed.mexit")
    result = CliRunner().invoke(app, [command, "changed.mexit"])
    assert result.exit_code == 1
    n = 1 + changed["stage_01_features_01"].size
    elements = sum(tensor.size for tensor in changed.values())
    line = (
        f"Golden tensors, {reference_engine()}: {n} of {elements:,} elements differ, by at most 4 int8 steps."
    )
    assert line in " ".join(result.stdout.split())
    assert "0 of 12 decisions differ" in result.stdout
    assert "the golden tensors of `changed.mexit` must be reproduced." in result.stderr
    assert "stage_01_features_01" in result.stderr
    assert "exit_02_logits" in result.stderr


def test_golden_tensors_of_an_absent_engine_may_differ_by_rounding_alone(golden, monkeypatch):
    name = "exit_01_logits"
    expected = golden.golden.tensors[name]
    for room in ("engines", "engine_parity"):
        monkeypatch.setattr(
            f"mexit_edge.runtime.{room}.available_engines", lambda: ("litert-xnnpack", "litert-reference")
        )
    own = (
        Runtime(golden, "litert-reference").run_all_exits(golden.golden.windows)[name].reshape(expected.shape)
    )
    for steps, wrong in ((4, ()), (5, (name,))):
        moved = np.where(own > 0, own - steps, own + steps)
        parity = verify_golden_tensors(
            replace(golden, golden=replace(golden.golden, reference="tflm", tensors={name: moved}))
        )
        assert (parity.engine, parity.reference, parity.wrong) == ("litert-reference", "tflm", wrong)


def test_a_defect_of_an_engine_fails_and_rounding_does_not(plain, monkeypatch):
    honest = LiteRTModel.run_batch
    shift = 1

    def run_batch(self, inputs):
        outputs = honest(self, inputs)
        if self._kernels == "builtin":
            logits = outputs[0].astype(int)
            rows = np.arange(len(logits))
            logits[rows, logits.argmax(axis=1)] -= shift
            outputs[0] = np.clip(logits, -128, 127).astype(np.int8)
        return outputs

    monkeypatch.setattr(LiteRTModel, "run_batch", run_batch)
    plain.save("plain.mexit")
    np.save("x.npy", synthetic_windows(300, noise=2.0).x)
    arguments = ("plain.mexit", "--windows", "x.npy", "--engine", "litert-builtin")
    rounding = verify(*arguments)
    assert rounding.exit_code == 0
    assert "int8 steps from turning: all within 4 steps, as rounding does." in " ".join(
        rounding.stdout.split()
    )
    assert verify(*arguments, "--within", 0).exit_code == 1
    shift = 60
    defect = verify(*arguments)
    assert defect.exit_code == 1
    assert "must differ from" in defect.stderr
    assert "others on litert-builtin" in defect.stderr
    assert "which rounding does not explain" in " ".join(defect.stdout.split())
    # The window, what was decided on both sides, and how far off.
    assert ", not class " in defect.stdout
    assert json.loads(verify(*arguments, "--json").stdout)["compared"][0]["engines"][0]["decisions"]


# --- Wrong input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.mexit"], "`path` must be a bundle"),
        (["plain.mexit"], "`plain.mexit` must hold golden vectors, or windows must come with `--data`"),
        (["plain.mexit", "--data", "hatp"], "Did you mean 'hapt'?"),
        (["plain.mexit", "--engine", "tflmm", "--windows", "good.npy"], "`engine` must be one of"),
        (["plain.mexit", "--data", "hapt", "--windows", "good.npy"], "must not be given together"),
        (["plain.mexit", "--windows", "nothing.npy"], "`--windows` must be a .npy or .npz of numbers"),
        (["plain.mexit", "--windows", "text.npy"], "`--windows` must be a .npy or .npz of numbers"),
        (["plain.mexit", "--windows", "objects.npy"], "`--windows` must be a .npy or .npz of numbers"),
        (["plain.mexit", "--windows", "two.npz"], "one array, or with one called 'windows'. Received: a, b"),
        (["plain.mexit", "--windows", "wide.npy"], "int16 counts, or float32 / float64. Received: int64"),
        (["plain.mexit", "--windows", "flat.npy"], "`windows` must be an array of shape (n, 32, 3)"),
        (["plain.mexit", "--windows", "none.npy"], "at least one window. Received: none"),
        (["plain.mexit", "--windows", "nan.npy"], "`windows` must hold finite samples. Received: nan"),
    ],
)
def test_wrong_input_is_refused(plain, arguments, message):
    plain.save("plain.mexit")
    good = random_samples(3, SENSOR.shape)
    arrays = {
        "good": good,
        "wide": np.zeros((2, *SENSOR.shape), np.int64),
        "flat": np.float32(1.0),
        "none": good[:0],
        "nan": good * np.nan,
    }
    for name, values in arrays.items():
        np.save(f"{name}.npy", values)
    Path("text.npy").write_text("1, 2, 3")
    np.save("objects.npy", np.asarray([{}, {}]), allow_pickle=True)
    np.savez("two.npz", a=good, b=good)
    result = verify(*arguments)
    assert result.exit_code == 2, result.stdout
    assert message in result.stderr
    assert result.stdout == ""


def test_a_file_that_asks_for_too_much_memory_is_refused(here, monkeypatch):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999, 32, 3), }"
    Path("huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    with pytest.raises(InputError, match=r"`--windows` must be a .npy or .npz of numbers"):
        read_windows(Path("huge.npy"))
    np.savez_compressed("zeros.npz", np.zeros((64, 32, 3)))
    monkeypatch.setattr("mexit_edge.data.windows_file.MAX_WINDOWS_BYTES", 10_000)
    with pytest.raises(InputError, match=r"must be at most 10000 bytes. Received: 49"):
        read_windows(Path("zeros.npz"))
