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
from mexit_edge.signals import Sensor, StreamWindows, adapt, apply_faults, parse_fault
from mexit_edge.signals.adapt import Rates

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
    assert (stream.name.endswith("/walk.csv"), stream.classes) == (True, CLASSES)


def test_what_a_file_does_not_say_is_the_sensors_and_is_told(csv_of):
    path = csv_of(f"{HEADER}\n1,2\n3,4\n")
    stream = opened(path)
    assert stream.sensor == SENSOR
    assert stream.assumed == ("units", "sampling_rate_hz")
    assert opened(path, sampling_rate_hz=20.0).sensor == replace(SENSOR, sampling_rate_hz=20.0)
    alone = opened(path, None, None, sampling_rate_hz=20.0)
    assert (alone.sensor.units, alone.sensor.window, alone.assumed) == (("1", "1"), 1, ())
    np.testing.assert_allclose(samples(alone)["time_s"], [0, 0.05])
    with pytest.raises(InputError, match=r"`sampling_rate_hz` of .*walk.csv must be known.*time_s"):
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


def csv_with_times(time_s, heading="time_s"):
    return f"{heading},{HEADER}\n" + "".join(f"{time:.9f},1,2\n" for time in time_s)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    jitter=st.floats(0, 0.2),
    rate_hz=st.floats(10, 400),
    measured=st.booleans(),
    size=st.integers(1, 5000),
)
def test_jitter_makes_no_samples_and_no_time(tmp_path_factory, seed, jitter, rate_hz, measured, size):
    path = tmp_path_factory.mktemp("jitter") / "walk.csv"
    noise = np.random.default_rng(seed).normal(0, jitter, 1000).clip(-0.7, 0.7)
    path.write_text(csv_with_times(np.maximum.accumulate(np.arange(1000) + noise) / rate_hz))
    stream = opened(path, sampling_rate_hz=None if measured else rate_hz)
    assert stream.sensor.sampling_rate_hz == pytest.approx(rate_hz, rel=5e-3)
    index = samples(stream, size)["index"]
    # A jump of two standard deviations and more, twice, is not told from a sample that is missing.
    assert index[-1] <= 999 + (2 if jitter > 0.1 else 0)
    np.testing.assert_array_equal(index, samples(stream, 37)["index"])


@pytest.mark.parametrize("jitter", [0.0, 0.05, 0.1])
@pytest.mark.parametrize("stated_hz", [None, 50.0, 50.4])
def test_gaps_are_seen_through_jitter(jitter, stated_hz, csv_of):
    rng = np.random.default_rng(5)
    counters = np.sort(rng.choice(3000, 2900, replace=False))
    counters -= counters[0]
    time_s = (counters + rng.uniform(-jitter, jitter, 2900)) / 50
    got = samples(opened(csv_of(csv_with_times(time_s)), sampling_rate_hz=stated_hz), 256)
    np.testing.assert_array_equal(got["index"], counters)
    np.testing.assert_allclose(got["time_s"], time_s - time_s[0], atol=1e-8)


@pytest.mark.parametrize("true_hz", [49.6, 50.4])
def test_a_rate_that_is_slightly_off_adds_and_hides_no_samples(true_hz, csv_of):
    counters = np.delete(np.arange(20_000), slice(15_000, 15_010))
    got = samples(opened(csv_of(csv_with_times(counters / true_hz)), sampling_rate_hz=50.0))
    np.testing.assert_array_equal(got["index"], counters)


def test_times_stamped_by_the_packet_need_a_rate_and_then_make_no_gaps(csv_of):
    # Ten samples every 200 ms, half a millisecond apart in their packet.
    number = np.delete(np.arange(2000), slice(1200, 1300))
    path = csv_of(csv_with_times(number // 10 * 0.2 + number % 10 * 5e-4))
    message = r"`time_s` of .* about a sampling period.*from 0.5 to 195.5 ms.*Use `sampling_rate_hz`"
    with pytest.raises(InputError, match=message):
        opened(path)
    index = samples(opened(path, sampling_rate_hz=50.0))["index"]
    np.testing.assert_array_equal(index[:1200], np.arange(1200))
    # Ten packets are missing; how many samples that is, jitter of a packet leaves open by half a packet.
    assert 90 <= index[1200] - 1200 <= 110
    assert index[-1] <= 2010


def test_times_without_any_regularity_tell_no_rate(csv_of):
    time_s = np.cumsum(np.random.default_rng(1).exponential(0.02, 500))
    with pytest.raises(InputError, match=r"`time_s` of .* about a sampling period"):
        opened(csv_of(csv_with_times(time_s)))


@pytest.mark.parametrize(("factor", "unit"), [(1e3, "ms"), (1e6, "us"), (1e9, "ns")])
@pytest.mark.parametrize("stated_hz", [None, 50.0])
def test_times_in_another_unit_than_they_say_are_refused_with_it(factor, unit, stated_hz, csv_of):
    time = np.arange(200) * 0.02 * factor
    path = csv_of(csv_with_times(time, "timestamp"))
    with pytest.raises(
        InputError, match=rf"`timestamp` of .*Received: none.* Name it `timestamp \({unit}\)`"
    ):
        opened(path, sampling_rate_hz=stated_hz)
    named = opened(csv_of(csv_with_times(time, f"timestamp ({unit})")), sampling_rate_hz=stated_hz)
    assert named.sensor.sampling_rate_hz == pytest.approx(50)


@settings(max_examples=200)
@given(
    times=st.lists(
        st.one_of(
            st.floats(allow_nan=False, allow_infinity=False),
            st.floats(0, 10),
            st.integers(0, 9),
            st.sampled_from([0.0, 1e-300, 1e-9, 86400.0, 1.7e9, 1.7e18]),
        ),
        min_size=1,
        max_size=12,
    ),
    is_sorted=st.booleans(),
    stated_hz=st.sampled_from([None, 1e-9, 50.0, 1e9]),
)
def test_whatever_times_say_they_are_counted_or_refused(tmp_path_factory, times, is_sorted, stated_hz):
    path = tmp_path_factory.mktemp("times") / "walk.csv"
    ordered = sorted(times) if is_sorted else times
    path.write_text("time,acc_x,acc_y\n" + "".join(f"{time!r},1,2\n" for time in ordered))
    try:
        got = samples(opened(path, sampling_rate_hz=stated_hz), 5)
    except InputError as error:
        assert "Received: " in str(error)  # noqa: PT017 (refused or counted)
    else:
        assert got["index"][0] == 0
        assert (np.diff(got["index"]) > 0).all()


def test_slow_times_that_name_their_unit_are_taken_at_their_word(csv_of):
    assert opened(csv_of(csv_with_times(np.arange(9) * 20.0))).sensor.sampling_rate_hz == pytest.approx(0.05)
    path = csv_of(csv_with_times(np.arange(9) * 20.0, "time (s)"))
    assert opened(path).sensor.sampling_rate_hz == pytest.approx(0.05)


def test_gaps_of_more_than_a_day_in_all_are_refused(csv_of):
    # Five nights of seven hours, after 128 rows each.
    time_s = (np.arange(640) * 0.02).reshape(5, 128) + np.arange(5)[:, None] * 7 * 3600.0
    stream = opened(csv_of(csv_with_times(time_s.ravel())))
    message = r"`time_s` of .* more than a day in all.*gaps of 1.17 days, too long in line 514"
    with pytest.raises(InputError, match=message):
        samples(stream)
    assert samples(opened(csv_of(csv_with_times(time_s[:4].ravel()))))["index"][-1] > 3 * 7 * 3600 * 50


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
        ("time_s,acc_x,acc_y\n1,2,3\n1,2,3\n", r"`time_s` of .*walk.csv must ascend.*1 of the first 1 steps"),
        ("time_s,acc_x,acc_y\n\n\n", r"`time_s` of .*walk.csv must ascend over at least two"),
        ("time_s,acc_x,acc_y\n1,2,3\n", r"`time_s` of .*walk.csv must ascend over at least two.*1 rows"),
        (f"{HEADER}\n1,2\n3\n", r"must hold 2 cells in every row.*Received: 1 in line 3"),
        (f"{HEADER}\n1,2\n\n3,4,5\n", r"Received: 3 in line 4"),
        (f"{HEADER}\n1,2\n3,four\n", r"`acc_y` of .*walk.csv must hold a number.*Received: 'four' in line 3"),
        (f"{HEADER},label\n1,2,walk\n1,2,wak\n", r"`label`.*Received: 'wak' in line 3\. Did you mean 'walk'"),
        (f"{HEADER},label\n1,2,2\n", r"`label` of .*walk.csv must be a class \(walk, sit\).*Received: '2'"),
        ("time_s,acc_x,acc_y\n0,1,2\n1,1,2\n.5,1,2\n", r"`time_s`.*never go back.*-0.5 s to line 4"),
        ("time_s,acc_x,acc_y\n0,1,2\n1,1,2\n1e6,1,2\n", r"`time_s`.*more than a day.*999999 s to line 4"),
        ("time_s,acc_x,acc_y\n0,1,2\n1,1,2\n,1,2\n", r"must hold a time in every row.*none in line 4"),
        ("time_s,acc_x,acc_y\n0,1,2\n1,1,2\ninf,1,2\n", r"must hold a time in every row.*inf in line 4"),
        ("time_s,acc_x,acc_y\n-1e308,1,2\n", r"must hold a time in every row.*-1e\+308 in line 2"),
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


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, "U5"])
def test_labels_of_a_long_recording_cost_no_more_than_themselves(dtype, tmp_path):
    names = np.array(CLASSES) if dtype == "U5" else np.arange(2)
    y = np.repeat(names, 50_000).astype(dtype)
    x = np.zeros((len(y), 2), np.float32)
    np.savez(tmp_path / "walk.npz", x=x, y=y)
    size = x.nbytes + y.nbytes
    tracemalloc.start()
    try:
        stream = opened(tmp_path / "walk.npz")
        found = sum(int(chunk.y.sum()) for chunk in stream.chunks(1000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == 50_000
    # What a chunk takes comes on top.
    assert peak < size + 2e6


def test_a_wrong_label_late_in_the_file_is_refused_when_it_is_opened(tmp_path):
    y = np.zeros(40_000, np.int64)
    y[-1] = 7
    np.savez(tmp_path / "walk.npz", x=np.zeros((len(y), 2)), y=y)
    with pytest.raises(InputError, match=r"`label` of .*walk.npz must be a class.*Received: '7'"):
        opened(tmp_path / "walk.npz")


def test_int16_samples_are_counts_of_the_sensor(tmp_path):
    counts = np.array([[1000, -500], [-32768, 32767]], np.int16)
    np.save(tmp_path / "counts.npy", counts)
    np.testing.assert_allclose(
        samples(opened(tmp_path / "counts.npy"))["x"], counts * [0.001, 0.002], rtol=1e-6
    )
    with pytest.raises(InputError, match=r"`x` of .*counts.npy must be floats in units.*Received: int16"):
        opened(tmp_path / "counts.npy", replace(SENSOR, units_per_count=None))
    np.savez(tmp_path / "counts.npz", x=counts, units=["g", "g"])
    with pytest.raises(InputError, match=r"`units` of .*counts.npz must be left out"):
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
        ({"x": np.zeros(4)}, r"`x` of .*walk.npz must be real.*shape \(4,\)"),
        ({"x": np.zeros((0, 2))}, r"`x` of .*walk.npz must be real"),
        ({"x": np.zeros((4, 2), complex)}, r"`x` of .*walk.npz must be real"),
        ({"x": np.zeros((4, 3))}, r"one column per channel \(2: acc_x, acc_y\)\. Received: 3"),
        ({"x": np.array([[None, 1]])}, r"without objects"),
        (GOOD | {"y": np.zeros(3, int)}, r"`y` of .*walk.npz needs one class per sample \(4\)"),
        (GOOD | {"y": np.full(4, 2)}, r"`label`.*Received: '2'"),
        (GOOD | {"channels": np.array([1, 2])}, r"`channels` of .*walk.npz must be one text per channel"),
        (GOOD | {"channels": ["acc_x", "acc_z"]}, r"without acc_y"),
        (GOOD | {"units": ["g"]}, r"`units` of .*walk.npz needs one per channel \(2\)"),
        (GOOD | {"sampling_rate_hz": 0.0}, r"`sampling_rate_hz` of .*walk.npz must be positive"),
        (GOOD | {"sampling_rate_hz": np.ones(2)}, r"`sampling_rate_hz` of .*walk.npz must be one finite"),
        (GOOD | {"subject": np.nan}, r"`subject` of .*walk.npz must be one finite number"),
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
    wanted = ["a.CSV", "b.csv", "d.npy", "sub/c.csv", "b.csv (2)"]
    assert [stream.name for stream in streams] == [f"{tmp_path.as_posix()}/{name}" for name in wanted]


def test_recordings_of_one_file_name_are_told_apart_and_hit_at_other_places(csv_of, tmp_path, monkeypatch):
    for folder in ("mon", "tue"):
        (tmp_path / folder).mkdir()
        csv_of(f"{HEADER}\n" + "1,2\n" * 400, f"{folder}/walk.csv")
    monkeypatch.chdir(tmp_path)
    streams = open_streams(["mon/walk.csv", "tue", "mon/walk.csv"], SENSOR)
    assert [one.name for one in streams] == ["mon/walk.csv", "tue/walk.csv", "mon/walk.csv (2)"]
    kept = [samples(apply_faults(one, [parse_fault("dropped=0.3")]))["index"].tolist() for one in streams]
    assert kept[0] != kept[1] != kept[2] != kept[0]


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


@pytest.mark.parametrize(
    ("own_hz", "as_one", "resampled"), [(50.0, False, False), (49.6, True, False), (49.4, False, True)]
)
def test_rates_say_whether_one_is_taken_for_the_other(own_hz, as_one, resampled, csv_of):
    rates = Rates(own_hz, SENSOR.sampling_rate_hz)
    assert (rates.taken_as_one, rates.need_resampling) == (as_one, resampled)
    stream = opened(csv_of(f"{HEADER}\n" + "1,2\n" * 9), sampling_rate_hz=own_hz)
    if resampled:
        with pytest.raises(InputError, match="`resample=True`"):
            adapt(stream, SENSOR)
    else:
        assert adapt(stream, SENSOR).sensor == SENSOR


def test_a_file_that_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"must be a file that can be read"):
        CsvStream(tmp_path)
    assert csv_file.STANDARD_INPUT == "-"
