"""Bundles are saved whole, and loading trusts nothing: every damage and every trick is an InputError."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import pickle
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mexit_edge.bundle import (
    Bundle,
    Calibration,
    ExitQuality,
    FixedPointInput,
    Golden,
    GoldenSpec,
    InputSpec,
    Manifest,
    Policy,
    PolicyQuality,
    Quality,
    TensorSpec,
    Training,
    model_card,
)
from mexit_edge.bundle import bundle as bundle_module
from mexit_edge.bundle import golden as golden_module
from mexit_edge.errors import InputError
from mexit_edge.files import sha256

FILES = {
    "manifest.json",
    "manifest.json.sha256",
    "model_card.md",
    "stage_01.tflite",
    "stage_02.tflite",
    "stage_03.tflite",
    "golden.npz",
}
CHECKED = sorted(FILES - {"model_card.md"})
MANIFEST = "manifest.json"


def same(one: Bundle, other: Bundle) -> bool:
    if one.manifest != other.manifest or one.stages != other.stages:
        return False
    if one.golden is None or other.golden is None:
        return one.golden is other.golden
    return one.golden.to_bytes() == other.golden.to_bytes()


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit_manifest(folder: Path, change) -> None:
    """Change a saved manifest as plain JSON, and its hash with it."""
    facts = json.loads((folder / "manifest.json").read_text())
    change(facts)
    write_manifest(folder, json.dumps(facts).encode())


def write_manifest(folder: Path, text: bytes) -> None:
    (folder / "manifest.json").write_bytes(text)
    (folder / "manifest.json.sha256").write_text(f"{sha256(text)}  manifest.json\n")


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and put its hash into the manifest, as somebody who means harm would."""
    (folder / name).write_bytes(content)

    def change(facts):
        for entry in [*facts["stages"], facts["golden"]]:
            if entry["file"] == name:
                entry["sha256"] = sha256(content)

    edit_manifest(folder, change)


@pytest.fixture
def saved(tiny_bundle, tmp_path) -> Path:
    return tiny_bundle.save(tmp_path / "tiny.mexit")


# Round trips


@pytest.mark.parametrize("name", ["tiny.mexit", "tiny.zip", "deep/er/tiny.mexit"])
def test_a_bundle_comes_back_as_it_went(tiny_bundle, tmp_path, name):
    path = tiny_bundle.save(tmp_path / name)
    assert path == tmp_path / name
    assert same(Bundle.load(path), tiny_bundle)
    assert same(Bundle.load(str(path)), tiny_bundle)


def test_a_folder_holds_these_files_and_a_zip_the_same(tiny_bundle, tmp_path):
    folder = tiny_bundle.save(tmp_path / "a.mexit")
    assert set(content_of(folder)) == FILES
    with zipfile.ZipFile(tiny_bundle.save(tmp_path / "a.zip")) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == content_of(folder)


def test_a_zip_is_compressed(tiny_bundle, tmp_path):
    with zipfile.ZipFile(tiny_bundle.save(tmp_path / "a.zip")) as archive:
        entry = archive.getinfo("manifest.json")
        assert entry.compress_type == zipfile.ZIP_DEFLATED
        assert entry.compress_size < entry.file_size / 2


@pytest.mark.parametrize("suffix", ["mexit", "zip"])
def test_the_bytes_are_a_function_of_the_bundle(tiny_bundle, tmp_path, suffix):
    one, two = (tiny_bundle.save(tmp_path / f"{name}.{suffix}") for name in "ab")
    if suffix == "zip":
        assert one.read_bytes() == two.read_bytes()
    else:
        assert content_of(one) == content_of(two)


def test_a_name_without_suffix_gets_one_and_keeps_its_dots(tiny_bundle, tmp_path):
    assert tiny_bundle.save(tmp_path / "hapt").name == "hapt.mexit"
    assert tiny_bundle.save(tmp_path / "hapt.v2").name == "hapt.v2.mexit"


def test_a_bundle_without_golden_vectors_comes_back_without(tiny_bundle, tmp_path):
    bare = tiny_bundle.with_manifest(golden=None)
    assert bare.golden is None
    folder = bare.save(tmp_path / "bare.mexit")
    assert set(content_of(folder)) == FILES - {"golden.npz"}
    assert same(Bundle.load(folder), bare)


def test_a_bundle_that_only_mentions_golden_vectors_saves_loadable(tiny_bundle, tmp_path):
    path = Bundle(tiny_bundle.manifest, tiny_bundle.stages).save(tmp_path / "tiny.mexit")
    assert Bundle.load(path).manifest.golden is None


@pytest.mark.parametrize("entry", [{"file": "vectors.npz"}, {"sha256": "0" * 64}])
def test_golden_vectors_packed_anew_still_load(tiny_bundle, tmp_path, entry):
    # What another zlib packed, or another name: the manifest must state what is written now.
    spec = GoldenSpec(**(tiny_bundle.manifest.golden.model_dump() | entry))
    path = tiny_bundle.with_manifest(golden=spec).save(tmp_path / "tiny.mexit")
    assert same(Bundle.load(path), tiny_bundle)


def test_a_full_manifest_comes_back(tiny_bundle, tmp_path):
    full = tiny_bundle.with_manifest(
        input=InputSpec(
            scale=0.05,
            zero_point=-1,
            fixed_point=FixedPointInput(multiplier=(5, -6), bias=(2**31 - 1, -(2**31)), shift=12),
        ),
        policy=Policy(
            score="entropy",
            thresholds=(0.1, 0.2),
            thresholds_int=(3277, 6554),
            temperatures=(1.0, 1.1, 1.2),
            calibration=Calibration(
                data="hapt",
                subjects=(4, 5),
                n_windows=1234,
                max_drop=0.01,
                drop=0.002,
                drop_upper=0.008,
                cost="macs",
                exact=True,
                engine="tflm",
            ),
        ),
        quality=quality(),
        training=Training(
            data="hapt", backbone="dscnn", regime="joint", seed=0, epochs=4, train_subjects=(1,)
        ),
        versions={"mexit_edge": "0.1.0"},
    )
    assert same(Bundle.load(full.save(tmp_path / "full.mexit")), full)


def quality(n_exits: int = 3) -> Quality:
    return Quality(
        data="hapt",
        subjects=(8, 9),
        n_windows=500,
        engine="tflm",
        exits=tuple(
            ExitQuality(exit=f"exit_{number:02d}", accuracy=0.9, balanced_accuracy=0.875)
            for number in range(1, n_exits + 1)
        ),
        policy=PolicyQuality(
            accuracy=0.91,
            balanced_accuracy=0.89,
            drop=0.001,
            drop_low=-0.002,
            drop_high=0.004,
            drop_level=0.95,
            exit_shares=(0.5, 0.25, 0.25),
            mean_macs=2250.0,
        ),
    )


def test_cumulative_macs_add_up_the_stages(tiny_bundle):
    assert tiny_bundle.manifest.cumulative_macs == (1000, 3000, 6000)
    assert tiny_bundle.manifest.exits == ("exit_01", "exit_02", "exit_03")
    assert tiny_bundle.manifest.input_name == "window"


def test_stages_that_do_not_fit_the_manifest_are_refused(tiny_bundle):
    with pytest.raises(InputError, match=r"`stages` needs one model per stage \(3\). Received: 2"):
        Bundle(tiny_bundle.manifest, tiny_bundle.stages[:2])
    with pytest.raises(InputError, match=r"`stage_01.tflite` must have the sha256"):
        Bundle(tiny_bundle.manifest, (b"other", *tiny_bundle.stages[1:]))


# Overwriting


@pytest.mark.parametrize("name", ["tiny.mexit", "tiny.zip"])
def test_a_bundle_is_replaced_only_with_overwrite(tiny_bundle, tmp_path, name):
    path = tiny_bundle.save(tmp_path / name)
    other = tiny_bundle.with_manifest(name="other", golden=None)
    with pytest.raises(InputError, match="exists already"):
        other.save(path)
    assert same(Bundle.load(path), tiny_bundle)
    other.save(path, overwrite=True)
    assert same(Bundle.load(path), other)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_overwriting_leaves_no_file_of_the_old_bundle(tiny_bundle, saved):
    tiny_bundle.with_manifest(golden=None).save(saved, overwrite=True)
    assert not (saved / "golden.npz").exists()


def make_foreign_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("precious")


def make_foreign_file(path: Path) -> None:
    path.write_text("precious")


def make_foreign_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thesis.tex", "precious")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("work.mexit", make_foreign_folder),
        ("work.mexit", make_foreign_file),
        ("work.zip", make_foreign_zip),
        ("work.zip", make_foreign_file),
        ("work.zip", make_foreign_folder),
    ],
)
def test_what_is_no_bundle_is_never_overwritten(tiny_bundle, tmp_path, name, make):
    path = tmp_path / name
    make(path)
    before = path.read_bytes() if path.is_file() else content_of(path)
    with pytest.raises(InputError, match=r"`path` with `overwrite=True` must be an existing bundle"):
        tiny_bundle.save(path, overwrite=True)
    assert (path.read_bytes() if path.is_file() else content_of(path)) == before
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_an_empty_folder_may_be_overwritten(tiny_bundle, tmp_path):
    (tmp_path / "tiny.mexit").mkdir()
    path = tiny_bundle.save(tmp_path / "tiny.mexit", overwrite=True)
    assert same(Bundle.load(path), tiny_bundle)


# An interrupt or a full disk in the middle

ERRORS = [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")]


@pytest.mark.parametrize("error", ERRORS, ids=["interrupt", "disk full"])
@pytest.mark.parametrize("nth", range(1, len(FILES) + 1))
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_fails_at_any_file_leaves_what_was_there(
    tiny_bundle, tmp_path, monkeypatch, error, nth, overwrite
):
    path = tmp_path / "tiny.mexit"
    if overwrite:
        tiny_bundle.save(path)
    write, calls = Path.write_bytes, []

    def failing(self, data):
        calls.append(self)
        if len(calls) == nth:
            write(self, data[: len(data) // 2])
            raise error
        return write(self, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", failing)
        with pytest.raises(type(error)):
            tiny_bundle.with_manifest(name="new").save(path, overwrite=overwrite)
    assert len(calls) == nth
    if overwrite:
        assert same(Bundle.load(path), tiny_bundle)
    assert [entry.name for entry in tmp_path.iterdir()] == (["tiny.mexit"] if overwrite else [])


@pytest.mark.parametrize("error", ERRORS, ids=["interrupt", "disk full"])
@pytest.mark.parametrize("nth", range(1, len(FILES) + 1))
def test_a_zip_that_fails_at_any_file_leaves_what_was_there(tiny_bundle, tmp_path, monkeypatch, error, nth):
    path = tiny_bundle.save(tmp_path / "tiny.zip")
    before = path.read_bytes()
    write, calls = zipfile.ZipFile.writestr, []

    def failing(self, entry, data, *rest, **options):
        # The golden vectors are an archive of their own, made in memory.
        if isinstance(self.fp, io.BytesIO):
            return write(self, entry, data, *rest, **options)
        calls.append(entry)
        if len(calls) == nth:
            raise error
        return write(self, entry, data, *rest, **options)

    with monkeypatch.context() as patched:
        patched.setattr(zipfile.ZipFile, "writestr", failing)
        with pytest.raises(type(error)):
            tiny_bundle.with_manifest(name="new").save(path, overwrite=True)
    assert len(calls) == nth
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.zip"]


# Tampering


@pytest.mark.parametrize("name", [name for name in CHECKED if name != "manifest.json.sha256"])
@pytest.mark.parametrize("place", [0, -1])
def test_a_changed_byte_is_found(saved, name, place):
    content = bytearray((saved / name).read_bytes())
    content[place] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"`{name}` must have the sha256.*Received: [0-9a-f]{{12}}"):
        Bundle.load(saved)


def lower_the_first_threshold(text: bytes) -> bytes:
    changed = text.replace(b'"thresholds_int": [\n   5,', b'"thresholds_int": [\n   4,')
    assert changed != text
    return changed


def test_a_changed_number_of_the_manifest_is_found(tiny_bundle, saved, tmp_path):
    manifest = saved / "manifest.json"
    manifest.write_bytes(lower_the_first_threshold(manifest.read_bytes()))
    message = r"`manifest.json` must have the sha256 that manifest.json.sha256 states"
    with pytest.raises(InputError, match=message):
        Bundle.load(saved)
    archive = tiny_bundle.save(tmp_path / "tiny.zip")
    repack(archive, lambda files: files.update({MANIFEST: lower_the_first_threshold(files[MANIFEST])}))
    with pytest.raises(InputError, match=message):
        Bundle.load(archive)


@pytest.mark.parametrize("text", [b"", b"\xff" * 64, b"0" * 64])
def test_a_damaged_hash_of_the_manifest_is_found(saved, text):
    (saved / "manifest.json.sha256").write_bytes(text)
    with pytest.raises(InputError, match=r"that manifest.json.sha256 states.*Received: [0-9a-f]{12}"):
        Bundle.load(saved)


def test_the_hash_is_that_of_sha256sum(saved):
    expected = f"{hashlib.sha256((saved / MANIFEST).read_bytes()).hexdigest()}  manifest.json\n"
    assert (saved / "manifest.json.sha256").read_text() == expected


@pytest.mark.parametrize("name", CHECKED)
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(InputError, match=rf"must hold the file {name}. Received: none"):
        Bundle.load(saved)


@pytest.mark.parametrize("name", CHECKED)
def test_a_file_missing_from_a_zip_is_named(tiny_bundle, tmp_path, name):
    path = tiny_bundle.save(tmp_path / "tiny.zip")
    repack(path, lambda files: files.pop(name))
    with pytest.raises(InputError, match=rf"must hold the file {name}. Received: none"):
        Bundle.load(path)


@pytest.mark.parametrize("name", CHECKED)
def test_a_link_is_not_followed(saved, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    (saved / name).rename(elsewhere)
    (saved / name).symlink_to(elsewhere)
    with pytest.raises(InputError, match=rf"must hold the file {name}. Received: a link"):
        Bundle.load(saved)


def test_a_folder_in_place_of_a_file_is_refused(saved):
    (saved / "stage_01.tflite").unlink()
    (saved / "stage_01.tflite").mkdir()
    with pytest.raises(InputError, match=r"must hold the file stage_01.tflite"):
        Bundle.load(saved)


@pytest.mark.parametrize(
    "path",
    [
        "../stage_01.tflite",
        "..",
        "/etc/passwd.tflite",
        "sub/stage_01.tflite",
        "sub\\stage_01.tflite",
        ".hidden.tflite",
        "C:stage.tflite",
        "stage_01.tflite\n",
        "stage\u0000.tflite",
        "a" * 101 + ".tflite",
        "manifest.json",
        "model_card.md",
        "golden.npz",
        "",
    ],
)
def test_a_path_that_is_no_plain_name_of_a_stage_is_refused(saved, tmp_path, path):
    (tmp_path / "stage_01.tflite").write_bytes((saved / "stage_01.tflite").read_bytes())
    edit_manifest(saved, lambda facts: facts["stages"][0].update(file=path))
    with pytest.raises(InputError, match=r"Received: at stages.0.file"):
        Bundle.load(saved)


@pytest.mark.parametrize("path", ["../golden.npz", "/golden.npz", "a/golden.npz", ".golden.npz"])
def test_a_golden_path_that_is_no_plain_name_is_refused(saved, path):
    edit_manifest(saved, lambda facts: facts["golden"].update(file=path))
    with pytest.raises(InputError, match=r"Received: at golden.file"):
        Bundle.load(saved)


@pytest.mark.parametrize("version", [0, 2, "2", None])
def test_an_unknown_schema_version_is_refused(saved, version):
    edit_manifest(saved, lambda facts: facts.update(schema_version=version))
    with pytest.raises(InputError, match="Received: at schema_version"):
        Bundle.load(saved)


def set_in(*keys_and_value):
    """Return a change that sets a nested entry."""
    *keys, last, value = keys_and_value

    def change(facts):
        for key in keys:
            facts = facts[key]
        facts[last] = value

    return change


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("unexpected", set_in("unexpected", 1)),
        ("sensor.unexpected", set_in("sensor", "unexpected", 1)),
        ("stages.1.unexpected", set_in("stages", 1, "unexpected", 1)),
        ("stages.0.outputs.0.dtype", set_in("stages", 0, "outputs", 0, "dtype", "float32")),
        ("stages.0.outputs.0.scale", set_in("stages", 0, "outputs", 0, "scale", 0)),
        ("stages.0.outputs.0.scale", set_in("stages", 0, "outputs", 0, "scale", float("nan"))),
        ("stages.0.outputs.0.zero_point", set_in("stages", 0, "outputs", 0, "zero_point", 128)),
        ("stages.0.outputs.0.name", set_in("stages", 0, "outputs", 0, "name", "a/b")),
        ("stages.0.outputs.0.shape.1", set_in("stages", 0, "outputs", 0, "shape", [1, 0])),
        ("stages.0.outputs.0.shape", set_in("stages", 0, "outputs", 0, "shape", [1] * 9)),
        ("stages.0.macs", set_in("stages", 0, "macs", -1)),
        ("stages.0.sha256", set_in("stages", 0, "sha256", "0" * 63)),
        ("stages.0.exit", set_in("stages", 0, "exit", "exit_1")),
        ("stages", set_in("stages", [])),
        ("classes", set_in("classes", ["only"])),
        ("input.scale", set_in("input", "scale", float("inf"))),
        ("normalisation.scale.0", set_in("normalisation", "scale", [0, 1])),
        ("policy.thresholds.0", set_in("policy", "thresholds", [float("nan"), 1])),
        ("sensor.sampling_rate_hz", set_in("sensor", "sampling_rate_hz", -50)),
        ("sensor.window", set_in("sensor", "window", 0)),
    ],
)
def test_a_manifest_off_the_schema_is_refused_with_the_place(saved, place, change):
    edit_manifest(saved, change)
    with pytest.raises(InputError, match=rf"`manifest.json`.*Received: at {place}: "):
        Bundle.load(saved)


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_refused(saved, text):
    write_manifest(saved, text)
    with pytest.raises(InputError, match=r"`manifest.json` of .* must follow the bundle schema"):
        Bundle.load(saved)


@pytest.mark.parametrize("path", ["nothing.mexit", "nothing.zip", ""])
def test_what_is_not_there_is_no_bundle(tmp_path, path):
    with pytest.raises(InputError, match="must"):
        Bundle.load(tmp_path / path)


def test_a_file_beyond_the_limit_is_not_read(saved, monkeypatch):
    monkeypatch.setattr(bundle_module, "MAX_FILE_BYTES", 100)
    with pytest.raises(InputError, match=r"`stage_01.tflite` must be at most 100 bytes. Received: 140"):
        Bundle.load(saved)


def test_a_manifest_beyond_the_limit_is_not_read(saved):
    with (saved / "manifest.json").open("ab") as stream:
        stream.truncate(bundle_module.MAX_MANIFEST_BYTES + 1)
    with pytest.raises(InputError, match=r"`manifest.json` must be at most 1048576 bytes"):
        Bundle.load(saved)


# Cross checks of the manifest


def tensor(name: str, shape: tuple[int, ...] = (1, 4)) -> dict:
    return TensorSpec(name=name, shape=shape, scale=0.1, zero_point=3).model_dump()


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("input nowhere of stage_02.tflite is no output", set_in("stages", 1, "inputs", [tensor("nowhere")])),
        ("input boundary_1 of stage_02", set_in("stages", 1, "inputs", 0, "scale", 0.2)),
        ("input boundary_1 of stage_02", set_in("stages", 1, "inputs", 0, "shape", [1, 4, 8])),
        ("input logits_3 of stage_02", set_in("stages", 1, "inputs", [tensor("logits_3")])),
        ("tensor logits_1 has two producers", set_in("stages", 1, "outputs", 0, "name", "logits_1")),
        ("tensor window has two producers", set_in("stages", 0, "outputs", 1, "name", "window")),
        (
            "exit_03 must give one logit per class",
            set_in("stages", 2, "outputs", [tensor("logits_3", (1, 5))]),
        ),
        ("exit_01 must give one logit per class", set_in("classes", ["a", "b", "c"])),
        ("`stages` must carry the exits exit_01", set_in("stages", 0, "exit", "exit_02")),
        ("`stages` need a file of its own", set_in("stages", 1, "file", "stage_01.tflite")),
        (
            "`policy` needs one threshold per early exit",
            set_in("policy", {"score": "margin", "thresholds": [1.0], "thresholds_int": [1]}),
        ),
        ("need the same length", set_in("policy", "thresholds_int", [5])),
        ("`normalisation` needs one value", set_in("normalisation", {"offset": [0], "scale": [1]})),
        ("need one finite value per channel", set_in("normalisation", {"offset": [0], "scale": [1, 1]})),
        (
            "`fixed_point` needs one value",
            set_in("input", "fixed_point", {"multiplier": [1], "bias": [0, 0], "shift": 3}),
        ),
        ("`units` needs one unit per channel", set_in("sensor", "units", ["g"])),
        ("`channels` needs distinct names", set_in("sensor", "channels", ["left", "left"])),
        ("`score` must be one of: boosted", set_in("policy", "score", "[/x]")),
        (r"must have as many elements as a window.*\(17, 2\)", set_in("sensor", "window", 17)),
        ("`quality` needs one row per exit", set_in("quality", quality(2).model_dump(mode="json"))),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(saved, message, change):
    edit_manifest(saved, change)
    with pytest.raises(InputError, match=message):
        Bundle.load(saved)


def test_with_manifest_checks_the_whole_again(tiny_bundle):
    with pytest.raises(ValidationError, match="one threshold per early exit"):
        tiny_bundle.with_manifest(policy=Policy(score="margin", thresholds=(), thresholds_int=()))


def test_another_policy_drops_what_was_made_under_the_old_one(tiny_bundle):
    measured = tiny_bundle.with_manifest(quality=quality())
    assert measured.golden is tiny_bundle.golden, "the policy is the same"
    assert measured.with_manifest(policy=measured.manifest.policy.model_copy()).golden is not None
    other = measured.manifest.policy.model_copy(update={"thresholds_int": (6, 3)})
    for policy in (other, None):
        changed = measured.with_manifest(policy=policy)
        assert changed.golden is changed.manifest.golden is changed.manifest.quality is None
    given = measured.with_manifest(policy=other, quality=quality(), golden=measured.manifest.golden)
    assert given.manifest.quality == quality()
    assert given.golden is measured.golden


def test_a_manifest_is_frozen(tiny_bundle):
    with pytest.raises(ValidationError, match="frozen"):
        tiny_bundle.manifest.name = "other"


# Archives


def repack(path: Path, change) -> None:
    """Unpack a zip, change its files, and pack it again."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def test_a_zip_bomb_is_not_unpacked(tiny_bundle, tmp_path, monkeypatch):
    path = tiny_bundle.save(tmp_path / "tiny.zip")
    monkeypatch.setattr(bundle_module, "MAX_FILE_BYTES", 1 << 20)
    repack(path, lambda files: files.update({"stage_02.tflite": bytes(2 << 20)}))
    assert path.stat().st_size < 20_000
    with pytest.raises(
        InputError, match=r"`stage_02.tflite` must be at most 1048576 bytes. Received: 2097152"
    ):
        Bundle.load(path)


def test_a_zip_bomb_that_lies_about_its_size_is_not_unpacked(tiny_bundle, tmp_path, monkeypatch):
    path = tiny_bundle.save(tmp_path / "tiny.zip")
    repack(path, lambda files: files.update({"stage_02.tflite": bytes(2 << 20)}))
    content = path.read_bytes().replace(struct.pack("<I", 2 << 20), struct.pack("<I", 60))
    path.write_bytes(content)
    read, sizes = zipfile.ZipExtFile.read, []

    def watched(self, n=-1):
        data = read(self, n)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(zipfile.ZipExtFile, "read", watched)
    with pytest.raises(InputError):
        Bundle.load(path)
    assert sum(sizes) < 100_000


def test_a_path_in_a_zip_leads_nowhere(tiny_bundle, tmp_path):
    path = tiny_bundle.save(tmp_path / "tiny.zip")
    repack(path, lambda files: files.update({"../../evil.txt": b"x"}))
    assert same(Bundle.load(path), tiny_bundle)
    assert not list(tmp_path.parent.rglob("evil.txt"))


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all" * 50])
def test_a_file_that_is_no_zip_is_refused(tmp_path, content):
    path = tmp_path / "tiny.zip"
    path.write_bytes(content)
    with pytest.raises(InputError, match="`path` must be a bundle"):
        Bundle.load(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_half_a_zip_is_refused(tiny_bundle, tmp_path, share):
    path = tiny_bundle.save(tmp_path / "tiny.zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError):
        Bundle.load(path)


@pytest.mark.parametrize("step", range(7))
def test_any_flipped_byte_of_a_zip_is_refused_or_harmless(tiny_bundle, tmp_path, step):
    path = tiny_bundle.save(tmp_path / "tiny.zip")
    content = path.read_bytes()
    # Every seventh byte per case: seven cases see them all.
    for place in range(step, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            loaded = Bundle.load(path)
        except InputError:
            continue
        assert same(loaded, tiny_bundle), place


# Golden vectors


def test_golden_vectors_come_back(tiny_bundle):
    golden = tiny_bundle.golden
    again = Golden.from_bytes(golden.to_bytes())
    np.testing.assert_array_equal(again.windows, golden.windows)
    assert again.windows.dtype == np.int16
    assert again.reference == "tflm"
    assert set(again.tensors) == {"logits_1"}
    np.testing.assert_array_equal(again.tensors["logits_1"], golden.tensors["logits_1"])
    np.testing.assert_array_equal(again.labels["tflm"], golden.labels["tflm"])
    np.testing.assert_array_equal(again.exits["tflm"], golden.exits["tflm"])


def npz(**arrays) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


class Pickled:
    """Tells when it is unpickled."""

    unpickled = False

    def __reduce__(self):
        return _mark_unpickled, ()


def _mark_unpickled() -> None:
    Pickled.unpickled = True


WINDOWS = np.zeros((2, 16, 2), np.int16)


def test_a_pickle_in_the_golden_vectors_is_refused_and_never_run(saved):
    pickle.loads(pickle.dumps(Pickled()))  # noqa: S301 (our own bytes: shows that the trap works)
    assert Pickled.unpickled
    Pickled.unpickled = False
    array = np.empty(1, object)
    array[0] = Pickled()
    replace_file(saved, "golden.npz", npz(windows=WINDOWS, label=array))
    with pytest.raises(InputError, match=r"`golden` must be an .npz of golden vectors.*allow_pickle"):
        Bundle.load(saved)
    assert not Pickled.unpickled


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        npz(other=WINDOWS),
        npz(windows=WINDOWS.astype(np.float64)),
        npz(windows=WINDOWS[0]),
        npz(**{"windows": WINDOWS, "tensor.tflm.logits": np.zeros((2, 4), np.float32)}),
        npz(**{"windows": WINDOWS, "tensor.tflm.logits": np.zeros((3, 4), np.int8)}),
        npz(**{"windows": WINDOWS, "label.tflm": np.array(["a", "b"])}),
        npz(**{"windows": WINDOWS, "exit.tflm": np.zeros(1, np.int64)}),
        npz(**{"windows": WINDOWS, "exit.tflm": np.int64(3)}),
    ],
)
def test_what_are_no_golden_vectors_is_refused(content):
    with pytest.raises(InputError, match=r"`.*Received"):
        Golden.from_bytes(content)


def test_golden_vectors_that_would_unpack_to_too_much_are_refused(monkeypatch):
    monkeypatch.setattr(golden_module, "MAX_BYTES", 100_000)
    content = npz(windows=np.zeros((100, 1000, 2), np.int16))
    assert len(content) < 2000
    with pytest.raises(InputError, match="`golden` must unpack to at most 100000 bytes"):
        Golden.from_bytes(content)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|i1', 'fortran_order': False, 'shape': (1000000000000000,), }",
        "{'descr': '<i2', 'fortran_order': False, 'shape': (9223372036854775807, 9, 9), }",
        "{'descr': '<i2', 'fortran_order': False, 'shape': (-1, 2, 2), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': ",
        "((((",
        "'''",
    ],
)
def test_a_hostile_header_is_refused(header):
    text = (header + " " * (117 - len(header)) + "\n").encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(
            "windows.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)
        )
    with pytest.raises(InputError, match=r"`golden`|`windows`"):
        Golden.from_bytes(stream.getvalue())


@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_changed_bytes_of_golden_vectors_are_refused_or_read(data):
    content = bytearray(GOLDEN_BYTES)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    # Nothing else may come out of it than golden vectors or this error.
    with contextlib.suppress(InputError):
        assert Golden.from_bytes(bytes(content)).windows.ndim == 3


GOLDEN_BYTES = Golden(
    windows=WINDOWS,
    tensors={"logits_1": np.ones((2, 4), np.int8)},
    reference="tflm",
    labels={"tflm": np.arange(2)},
    exits={"tflm": np.arange(2)},
).to_bytes()


def test_a_number_of_golden_windows_that_is_not_true_is_refused(saved):
    edit_manifest(saved, set_in("golden", "n_windows", 6))
    with pytest.raises(InputError, match=r"`windows` of the golden.* the 6 windows.*Received: 5"):
        Bundle.load(saved)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("`windows`.*sensor's shape", {"windows": np.zeros((5, 15, 2), np.int16)}),
        (r"`tensor`.*Received: \('other'", {"tensors": {"other": np.zeros((5, 4), np.int8)}}),
        (r"`tensor`.*Received: \('logits_1'", {"tensors": {"logits_1": np.zeros((5, 3), np.int8)}}),
        ("`label`.*Received: .*'tpu'", {"reference": "tpu"}),
        ("`label`.*per engine", {"labels": {}}),
        ("`label`.*per engine", {"labels": {"tpu": np.zeros(5, int)}, "exits": {"tpu": np.ones(5, int)}}),
        ("`label.tflm`.*between 0 and 3", {"labels": {"tflm": np.array([0, 1, 2, 3, 4])}}),
        ("`label.tflm`.*between 0 and 3", {"labels": {"tflm": np.array([-1, 1, 2, 3, 3])}}),
        ("`label.tflm`.* 5 integers", {"labels": {"tflm": np.zeros((5, 2), np.int64)}}),
        ("`exit.tflm`.*between 1 and 3", {"exits": {"tflm": np.array([0, 1, 2, 3, 3])}}),
        ("`exit.tflm`.*between 1 and 3", {"exits": {"tflm": np.array([1, 1, 2, 3, 4])}}),
    ],
)
def test_golden_vectors_of_another_bundle_are_refused(tiny_bundle, saved, message, changes):
    foreign = replace(tiny_bundle.golden, **changes)
    with pytest.raises(InputError, match=message):
        tiny_bundle.with_golden(foreign)
    replace_file(saved, "golden.npz", foreign.to_bytes())
    with pytest.raises(InputError, match=message):
        Bundle.load(saved)


def test_golden_vectors_replace_others_of_another_number(tiny_bundle):
    golden = tiny_bundle.golden
    fewer = Golden(
        windows=golden.windows[:3],
        tensors={name: values[:3] for name, values in golden.tensors.items()},
        reference=golden.reference,
        labels={"tflm": golden.labels["tflm"][:3]},
        exits={"tflm": golden.exits["tflm"][:3]},
    )
    assert tiny_bundle.with_golden(fewer).manifest.golden.n_windows == 3


# The model card


def test_the_card_states_what_is_unknown_as_unknown(tiny_bundle):
    card = model_card(tiny_bundle.with_manifest(policy=None).manifest)
    assert "| exit_02 | 2,000 | 140 | unknown |" in card
    assert "| exit_01 | 1,000 | 140 | 2,048 |" in card
    assert "None set: every window runs to the final exit." in card
    assert "## Quality\n\nNot measured." in card
    for fact in ("Training data", "Backbone", "Regime", "Seed", "Epochs", "Training subjects"):
        assert f"- {fact}: unknown\n" in card
    assert "None:" not in card
    assert ": None" not in card


def test_the_card_of_a_bundle_without_policy_shows_its_exits(tiny_bundle):
    measured = quality().model_copy(update={"policy": None})
    card = model_card(tiny_bundle.with_manifest(policy=None, quality=measured).manifest)
    assert "| exit_03 | 0.9000 | 0.8750 | 6,000 |" in card
    assert "| policy |" not in card


def test_the_card_states_what_is_known(tiny_bundle, tmp_path):
    bundle = tiny_bundle.with_manifest(
        quality=quality(),
        training=Training(data="hapt", seed=0, train_subjects=(1, 2)),
        versions={"numpy": "2.0"},
        policy=Policy(
            score="logit_margin",
            thresholds=(0.5, 0.3),
            thresholds_int=(5, 3),
            calibration=Calibration(
                data="hapt",
                subjects=(4, 5),
                n_windows=1234,
                max_drop=0.01,
                drop=0.002,
                drop_upper=0.0081,
                cost="macs",
                exact=True,
                engine="tflm",
            ),
        ),
    )
    card = (bundle.save(tmp_path / "tiny") / "model_card.md").read_text()
    for fact in (
        "# tiny\n",
        "channels left (g), right (g)",
        "Classes: walk, sit, stand, lie.",
        "`logit_margin`",
        "1,234 windows of subjects 4, 5 of hapt (tflm)",
        "for least macs with a loss of at most 1.00 points",
        "upper 90 % bound 0.81.",
        "| exit_03 | 0.9000 | 0.8750 | 6,000 |",
        "| policy | 0.9100 | 0.8900 | 2,250 |",
        "- Training data: hapt\n",
        "- Seed: 0\n",
        "- Training subjects: 1, 2\n",
        "- Regime: unknown\n",
        "- numpy 2.0",
    ):
        assert fact in card, fact


# How the policy was calibrated

HELD_OUT = {
    "data": "hapt",
    "subjects": (4, 5),
    "n_windows": 1234,
    "max_drop": 0.01,
    "drop": 0.002,
    "drop_upper": 0.0081,
    "cost": "macs",
    "exact": True,
    "engine": "tflm",
}
OUT_OF_FOLD = HELD_OUT | {"engine": None, "kind": "out_of_fold", "folds": 5}


def calibrated(bundle: Bundle, facts: dict) -> Bundle:
    policy = bundle.manifest.policy.model_copy(update={"calibration": Calibration(**facts)})
    return bundle.with_manifest(policy=policy)


def test_a_manifest_from_before_kinds_of_calibration_keeps_its_bytes():
    text = (Path(__file__).parent / "data" / "manifest_of_schema_1.json").read_text()
    assert '"kind"' not in text
    assert '"mean_cost"' not in text
    manifest = Manifest.model_validate_json(text)
    assert manifest.policy.calibration.kind == "held_out"
    assert manifest.policy.calibration.folds is None
    assert manifest.policy.controller is None
    assert manifest.model_dump_json(indent=1) + "\n" == text


def test_what_came_later_is_left_out_at_its_default():
    assert "preset" not in Training(backbone="cnn").model_dump()
    assert Training(preset="tiny").model_dump()["preset"] == "tiny"
    assert '"preset":"tiny"' in Training(preset="tiny").model_dump_json()


@pytest.mark.parametrize("facts", [HELD_OUT, OUT_OF_FOLD], ids=["held out", "out of fold"])
def test_a_calibration_comes_back(tiny_bundle, tmp_path, facts):
    bundle = calibrated(tiny_bundle, facts)
    path = bundle.save(tmp_path / "tiny.mexit")
    assert same(Bundle.load(path), bundle)
    written = json.loads((path / MANIFEST).read_text())["policy"]["calibration"]
    assert written == facts | {"subjects": [4, 5]}


@pytest.mark.parametrize(
    ("facts", "changes"),
    [
        (HELD_OUT, {"folds": 5}),
        (HELD_OUT, {"engine": None}),
        (HELD_OUT, {"kind": "in_fold"}),
        (OUT_OF_FOLD, {"folds": None}),
        (OUT_OF_FOLD, {"folds": 1}),
        (OUT_OF_FOLD, {"engine": "tflm"}),
    ],
)
def test_a_calibration_of_two_kinds_is_refused(facts, changes):
    with pytest.raises(ValidationError, match=r"folds|engine|held_out"):
        Calibration(**(facts | changes))


def test_the_card_says_whose_logits_set_the_thresholds(tiny_bundle):
    held_out = model_card(calibrated(tiny_bundle, HELD_OUT).manifest)
    assert "1,234 windows of subjects 4, 5 of hapt (tflm), for least" in held_out
    assert "fold" not in held_out
    card = model_card(calibrated(tiny_bundle, OUT_OF_FOLD).manifest)
    for fact in (
        "1,234 windows of subjects 4, 5 of hapt (float, out-of-fold), for least",
        "loss of balanced accuracy 0.20 points",
        "set on out-of-fold logits of 5 fold networks",
        "The network in this bundle is another one, refitted on all training subjects.",
        "guarantee nothing for the refitted network",
    ):
        assert fact in card, fact
    assert "None" not in card.split("## Policy")[1].split("## Quality")[0]
