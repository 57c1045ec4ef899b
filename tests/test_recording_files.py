"""Recordings of one's own: CSV, arrays, folders and standard input."""

from __future__ import annotations

import io
import os
import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.data import csv_file, open_streams
from mexit_edge.data.csv_file import CsvStream
from mexit_edge.errors import InputError
from mexit_edge.signals import Sensor, StreamWindows, adapt

SENSOR = Sensor(("acc_x", "acc_y"), ("g", "g"), 50.0, 4, 2, units_per_count=(0.001, 0.002))
CLASSES = ("walk", "sit")
HEADER = "acc_x,acc_y"


def samples(stream, size=4096) -> dict[str, np.ndarray]:
    chunks = list(stream.chunks(size))
    return {name: np.concatenate([getattr(one, name) for one in chunks]) for name in vars(chunks[0])}


@pytest.fixture
def csv_of(tmp_path):
    """Return a function text -> path of a CSV file."""

    def write(text, name="walk.csv"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def opened(path, sensor=SENSOR, classes=CLASSES, **options):
    (stream,) = open_streams(path, sensor, classes, **options)
    return stream


# CSV


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_file_says_channels_units_times_and_labels(size, end, csv_of):
    rows = [
        "\ufefftime_s,acc_y [m/s^2],label,acc_x (g)",
        "10.00,1,walk,0.5",
        "10.02,nan,1,-1e-3",
        "10.04,,,2",
        '10.10,"4",-1,inf',
        "",
    ]
    stream = opened(csv_of(end.join(rows)))
    got = samples(stream, size)
    assert (stream.sensor.channels, stream.sensor.units) == (("acc_y", "acc_x"), ("m/s^2", "g"))
    assert stream.sensor.sampling_rate_hz == pytest.approx(50.0)
    assert (stream.sensor.window, stream.sensor.hop, stream.assumed) == (4, 2, ())
    np.testing.assert_array_equal(got["x"], np.float32([[1, 0.5], [np.nan, -1e-3], [np.nan, 2], [4, np.inf]]))
    # 60 ms are three periods: two samples never came.
    assert got["index"].tolist() == [0, 1, 2, 5]
    np.testing.assert_allclose(got["time_s"], [0.0, 0.02, 0.04, 0.10], atol=1e-12)
    assert got["y"].tolist() == [0, 1, -1, -1]
    assert (stream.name, stream.classes) == ("walk.csv", CLASSES)


def test_what_a_file_does_not_say_is_the_sensors_and_is_told(csv_of):
    path = csv_of(f"{HEADER}\n1,2\n3,4\n")
    stream = opened(path)
    assert stream.sensor == SENSOR
    assert stream.assumed == ("units", "sampling_rate_hz")
    assert opened(path, sampling_rate_hz=20.0).sensor == replace(SENSOR, sampling_rate_hz=20.0)
    alone = opened(path, None, None, sampling_rate_hz=20.0)
    assert (alone.sensor.units, alone.sensor.window, alone.assumed) == (("1", "1"), 1, ())
    np.testing.assert_allclose(samples(alone)["time_s"], [0, 0.05])
    with pytest.raises(InputError, match=r"`sampling_rate_hz` of walk.csv must be known.*time_s"):
        opened(path, None, None)


@settings(max_examples=40)
@given(data=st.data())
def test_plain_rows_are_read_as_cell_by_cell(tmp_path_factory, data):
    """NumPy's parser and ours agree: quotes in any row send a block the slow way."""
    n = data.draw(st.integers(1, 12))
    values = st.one_of(
        st.floats(width=32), st.sampled_from(["1", " 2.5 ", "-.5", "1e-3", "+4", "NaN", "-inf", "1e60"])
    )
    table = [[str(data.draw(values)) for _ in range(2)] for _ in range(n)]
    labels = [data.draw(st.sampled_from(["walk", "sit", "0", "1", "-1", "1.0"])) for _ in range(n)]
    folder = tmp_path_factory.mktemp("rows")
    for name, quote in (("plain", ""), ("quoted", '"')):
        rows = [f"{a},{quote}{label}{quote},{b}" for (a, b), label in zip(table, labels, strict=True)]
        (folder / f"{name}.csv").write_text("\n".join(["acc_x,label,acc_y", *rows]) + "\n")
    plain, quoted = (samples(opened(folder / f"{name}.csv"), 5) for name in ("plain", "quoted"))
    for name, expected in plain.items():
        np.testing.assert_array_equal(expected, quoted[name], name)


@pytest.mark.parametrize(
    ("heading", "factor"),
    [("timestamp (ms)", 1e3), ("time [us]", 1e6), ("time (s)", 1), ("timestamp[ns]", 1e9)],
)
def test_the_rate_is_measured_on_the_times(heading, factor, csv_of):
    # 64 Hz in times that are rounded to a thousandth of a second, with two gaps.
    time_s = np.round(np.delete(np.arange(500), [40, 41, 42, 90]) / 64, 3) + 1_700_000_000
    rows = "".join(f"{time * factor:.6f};0;0\n" for time in time_s)
    stream = opened(csv_of(f"{heading};acc_x;acc_y\n{rows}"))
    assert stream.sensor.sampling_rate_hz == pytest.approx(64, rel=1e-3)
    np.testing.assert_array_equal(samples(stream, 7)["index"], np.delete(np.arange(500), [40, 41, 42, 90]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"must begin with a header.*an empty file"),
        ("\n1,2\n", r"must begin with a header.*an empty first line"),
        ("1,2\n3,4\n", r"must begin with a header that names every column\. Received: '1,2'"),
        (",acc_x,acc_y\n0,1,2\n", r"names every column"),
        (f"{HEADER}\n", r"must hold samples\. Received: a header and no row"),
        ("acc_x,acc_z\n1,2\n", r"must have the channels acc_x, acc_y.*without acc_y\. Did you mean 'acc_z'"),
        ("acc_x,acc_y,acc_x\n1,2,3\n", r"must name each channel once"),
        ("time,time_s,acc_x\n1,2,3\n", r"at most one of time"),
        ("time_s,label\n1,walk\n", r"one column per channel"),
        ("time (min),acc_x,acc_y\n1,2,3\n", r"s, ms, us, ns"),
        ("time_s,acc_x,acc_y\n1,2,3\n1,2,3\n", r"`time_s` of walk.csv must ascend.*1 of the first 1 steps"),
        ("time_s,acc_x,acc_y\n1,2,3\n", r"`time_s` of walk.csv must ascend over at least two.*1 rows"),
        (f"{HEADER}\n1,2\n3\n", r"must hold 2 cells in every row.*Received: 1 in line 3"),
        (f"{HEADER}\n1,2\n\n3,4,5\n", r"Received: 3 in line 4"),
        (f"{HEADER}\n1,2\n3,four\n", r"`acc_y` of walk.csv must hold a number.*Received: 'four' in line 3"),
        (f"{HEADER},label\n1,2,walk\n1,2,wak\n", r"`label`.*Received: 'wak' in line 3\. Did you mean 'walk'"),
        (f"{HEADER},label\n1,2,2\n", r"`label` of walk.csv must be a class \(walk, sit\).*Received: '2'"),
        ("time_s,acc_x,acc_y\n0,1,2\n1,1,2\n.5,1,2\n", r"`time_s`.*never go back.*-0.5 s to line 4"),
        ("time_s,acc_x,acc_y\n0,1,2\n1,1,2\n1e6,1,2\n", r"`time_s`.*more than a day.*999999 s to line 4"),
        ("time_s,acc_x,acc_y\n0,1,2\n1,1,2\n,1,2\n", r"must hold a time in every row.*none in line 4"),
        (f"{HEADER}\n1,2\n{'9' * 70_000}\n", r"lines of less than 65536 characters"),
        (b"acc_x,acc_y\n1,\xff\n", r"must be CSV in UTF-8"),
    ],
)
def test_csv_that_is_wrong_is_refused_with_its_place(text, message, csv_of):
    with pytest.raises(InputError, match=message):
        samples(opened(csv_of(text)), 2)


def test_blank_lines_of_a_single_column_are_left_out(csv_of):
    sensor = Sensor(("ecg",), ("mV",), 100.0, 4, 2)
    got = samples(opened(csv_of("ecg (mV)\n1\n\n2\n\n"), sensor))
    assert got["x"].tolist() == [[1], [2]]
    assert got["index"].tolist() == [0, 1]


def test_without_names_of_classes_labels_are_indices(csv_of):
    assert samples(opened(csv_of(f"{HEADER},label\n1,2,7\n"), classes=None))["y"].tolist() == [7]
    with pytest.raises(InputError, match=r"indices only, as no class is named.*Received: 'walk'"):
        samples(opened(csv_of(f"{HEADER},label\n1,2,walk\n"), classes=None))


def test_a_csv_file_is_read_as_it_is_played(csv_of):
    path = csv_of(f"{HEADER}\n" + "1,2\n" * 10 + "oops,2\n")
    chunks = opened(path).chunks(5)
    assert [len(next(chunks)) for _ in range(2)] == [5, 5]
    with pytest.raises(InputError, match="line 12"):
        next(chunks)


# Standard input


def test_standard_input_is_played_once(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"time_s,{HEADER}\n0,1,2\n0.02,3,4\n0.04,5,6\n"))
    stream = opened("-")
    assert stream.name == "standard input"
    assert samples(stream, 2)["x"][:, 0].tolist() == [1, 3, 5]
    with pytest.raises(InputError, match=r"`-` must be played once"):
        next(stream.chunks())
    with pytest.raises(InputError, match=r"`-` must be given once"):
        open_streams(["-", "-"], SENSOR)


def test_standard_input_is_read_as_it_comes(monkeypatch):
    reader, writer = os.pipe()
    with open(reader) as source, open(writer, "w", buffering=1) as target:  # noqa: PTH123 (a descriptor)
        monkeypatch.setattr("sys.stdin", source)
        target.write(f"{HEADER}\n" + "1,2\n" * 4)
        windows = iter(StreamWindows(adapt(opened("-"), SENSOR), batch=1))
        first: list[object] = []
        waiting = threading.Thread(target=lambda: first.append(next(windows)), daemon=True)
        waiting.start()
        # The window is out although the writer goes on.
        waiting.join(timeout=20)
        assert len(first) == 1


# Arrays


def test_an_npy_file_is_samples_and_nothing_more(tmp_path):
    x = np.random.default_rng(0).standard_normal((50, 2))
    np.save(tmp_path / "walk.npy", x)
    stream = opened(tmp_path / "walk.npy")
    assert stream.assumed == ("channels", "units", "sampling_rate_hz")
    assert (stream.sensor, stream.n_samples) == (SENSOR, 50)
    got = samples(stream, 7)
    np.testing.assert_array_equal(got["x"], x.astype(np.float32))
    assert (got["y"] == -1).all()


def test_samples_of_which_nothing_is_said_have_numbered_channels(tmp_path):
    np.save(tmp_path / "walk.npy", np.zeros((50, 2)))
    stream = opened(tmp_path / "walk.npy", None, sampling_rate_hz=10)
    assert (stream.sensor.channels, stream.sensor.units) == (("channel_0", "channel_1"), ("1", "1"))


def test_an_npz_file_says_what_it_knows(tmp_path):
    x = np.arange(12.0).reshape(4, 3)
    np.savez_compressed(
        tmp_path / "walk.npz",
        x=x,
        y=np.array(["sit", "", "walk", "1"]),
        sampling_rate_hz=25.0,
        channels=["acc_y", "acc_x", "spare"],
        units=["mg", "g", "V"],
        subject=7,
    )
    stream = opened(tmp_path / "walk.npz")
    assert (stream.subject, stream.sensor.sampling_rate_hz, stream.assumed) == (7, 25.0, ())
    assert stream.sensor.units == ("mg", "g", "V")
    assert samples(stream)["y"].tolist() == [1, -1, 0, 1]
    adapted = adapt(stream, SENSOR, reorder=True, convert=True, resample=True)
    np.testing.assert_allclose(samples(adapted)["x"][0], [1.0, 0.0], atol=0.2)


def test_int16_samples_are_counts_of_the_sensor(tmp_path):
    counts = np.array([[1000, -500], [-32768, 32767]], np.int16)
    np.save(tmp_path / "counts.npy", counts)
    np.testing.assert_allclose(
        samples(opened(tmp_path / "counts.npy"))["x"], counts * [0.001, 0.002], rtol=1e-6
    )
    with pytest.raises(InputError, match=r"`x` of counts.npy must be floats in units.*Received: int16"):
        opened(tmp_path / "counts.npy", replace(SENSOR, units_per_count=None))
    np.savez(tmp_path / "counts.npz", x=counts, units=["g", "g"])
    with pytest.raises(InputError, match=r"`units` of counts.npz must be left out"):
        opened(tmp_path / "counts.npz")


@pytest.mark.parametrize("name", ["walk.npy", "walk.csv"])
def test_a_long_recording_is_never_in_memory_as_a_whole(name, tmp_path):
    x = np.zeros((100_000, 2))
    if name.endswith("npy"):
        np.save(tmp_path / name, x)
    else:
        (tmp_path / name).write_text(f"{HEADER}\n" + "0.125,0.25\n" * len(x))
    del x
    tracemalloc.start()
    try:
        n = sum(map(len, opened(tmp_path / name).chunks(1000)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n == 100_000
    # The file holds 1.2 MB or more.
    assert peak < 6e5


GOOD = {"x": np.zeros((4, 2))}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"samples": np.zeros((4, 2))}, r"Received: 'samples'"),
        ({"y": np.zeros(4, int)}, r"must hold the samples as `x`"),
        ({"x": np.zeros(4)}, r"`x` of walk.npz must be real.*shape \(4,\)"),
        ({"x": np.zeros((0, 2))}, r"`x` of walk.npz must be real"),
        ({"x": np.zeros((4, 2), complex)}, r"`x` of walk.npz must be real"),
        ({"x": np.zeros((4, 3))}, r"one column per channel \(2: acc_x, acc_y\)\. Received: 3"),
        ({"x": np.array([[None, 1]])}, r"without objects"),
        (GOOD | {"y": np.zeros(3, int)}, r"`y` of walk.npz needs one class per sample \(4\)"),
        (GOOD | {"y": np.full(4, 2)}, r"`label`.*Received: '2'"),
        (GOOD | {"channels": np.array([1, 2])}, r"`channels` of walk.npz must be one text per channel"),
        (GOOD | {"channels": ["acc_x", "acc_z"]}, r"without acc_y"),
        (GOOD | {"units": ["g"]}, r"`units` of walk.npz needs one per channel \(2\)"),
        (GOOD | {"sampling_rate_hz": 0.0}, r"`sampling_rate_hz` of walk.npz must be positive"),
        (GOOD | {"sampling_rate_hz": np.ones(2)}, r"`sampling_rate_hz` of walk.npz must be one finite"),
        (GOOD | {"subject": np.nan}, r"`subject` of walk.npz must be one finite number"),
    ],
)
def test_arrays_that_are_wrong_are_refused_by_name(arrays, message, tmp_path):
    np.savez(tmp_path / "walk.npz", **arrays)
    with pytest.raises(InputError, match=message):
        samples(opened(tmp_path / "walk.npz"))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04 and no more", b"text"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_damaged_file_is_refused(content, suffix, tmp_path):
    (tmp_path / f"walk{suffix}").write_bytes(content)
    with pytest.raises(InputError, match=r"must be a \.npy or \.npz"):
        opened(tmp_path / f"walk{suffix}")


def test_what_unpacks_to_too_much_is_refused_unread(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "walk.npz", x=np.zeros((10_000, 2)))
    monkeypatch.setattr("mexit_edge.data.array_file.MAX_UNPACKED_BYTES", 100_000)
    with pytest.raises(InputError, match=r"must unpack to at most 100000 bytes\. Received: 160"):
        opened(tmp_path / "walk.npz")


# Folders


def test_a_folder_is_its_files_in_order_of_their_names(csv_of, tmp_path):
    text = f"{HEADER}\n1,2\n"
    (tmp_path / "sub").mkdir()
    for name in ("b.csv", "a.CSV", "sub/c.csv", ".hidden.csv", "notes.txt"):
        csv_of(text, name)
    np.save(tmp_path / "d.npy", np.zeros((3, 2)))
    streams = open_streams([tmp_path, tmp_path / "b.csv"], SENSOR)
    assert [stream.name for stream in streams] == ["a.CSV", "b.csv", "d.npy", "sub/c.csv", "b.csv"]


def test_a_link_in_a_folder_is_not_followed(csv_of, tmp_path):
    (tmp_path / "day").mkdir()
    (tmp_path / "elsewhere").mkdir()
    csv_of(f"{HEADER}\n1,2\n", "elsewhere/secret.csv")
    (tmp_path / "day" / "folder").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"must hold \.csv, .* files\. Received: none"):
        open_streams(tmp_path / "day", SENSOR)
    (tmp_path / "day" / "link.csv").symlink_to(tmp_path / "elsewhere" / "secret.csv")
    with pytest.raises(InputError, match=r"and no links\. Received: link\.csv"):
        open_streams(tmp_path / "day", SENSOR)


def test_a_folder_is_bounded(csv_of, tmp_path, monkeypatch):
    for name in "abc":
        csv_of(f"{HEADER}\n1,2\n", f"{name}.csv")
    monkeypatch.setattr("mexit_edge.data.files.MAX_FILES", 2)
    with pytest.raises(InputError, match=r"at most 2 recordings.*Received: more"):
        open_streams(tmp_path, SENSOR)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], r"`paths` must hold at least one recording"),
        ("walk.txt", r"`paths` must be \.csv, \.npy, \.npz files.*Received: 'walk.txt'"),
        ("gone.csv", r"`gone.csv` must be a file\. Received: none"),
    ],
)
def test_paths_that_are_no_recording_are_refused(paths, message, command_folder):
    with pytest.raises(InputError, match=message):
        open_streams(paths, SENSOR)


def test_a_rate_that_is_none_is_refused(csv_of):
    with pytest.raises(InputError, match=r"`sampling_rate_hz` of recordings must be positive.*Received: 0"):
        opened(csv_of(f"{HEADER}\n1,2\n"), sampling_rate_hz=0)


def test_a_file_that_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"must be a file that can be read"):
        CsvStream(tmp_path)
    assert csv_file.STANDARD_INPUT == "-"
