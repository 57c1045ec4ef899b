"""Streams, the windows that a device cuts from them, their health, and streams of another sensor."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.data import dataset, load, split_by_subject
from mexit_edge.errors import InputError
from mexit_edge.signals import (
    Chunk,
    Health,
    Recording,
    RecordingStream,
    Sensor,
    Stream,
    StreamWindows,
    WindowStatus,
    adapt,
    cut_windows,
)
from mexit_edge.signals.health import MIN_STUCK_SAMPLES, count_limits, rejections
from mexit_edge.signals.resample import ResampledStream, linear_kernel, low_pass_kernel

OK, MISSING = WindowStatus.OK, WindowStatus.MISSING_SAMPLES
NO_CHECKS = Health(stuck=False, saturated_share=None)


class ListStream(Stream):
    """A stream of the rows of one chunk."""

    def __init__(self, chunk: Chunk, sensor: Sensor, n_samples: int | None = None) -> None:
        super().__init__(sensor, "list", n_samples=n_samples)
        self.chunk = chunk
        self.n_read = 0

    def chunks(self, size=4096):
        for start in range(0, len(self.chunk), size):
            self.n_read = min(start + size, len(self.chunk))
            yield self.chunk.take(slice(start, start + size))


def chunk_of(index, time_s=None, x=None, y=None, rate=10.0) -> Chunk:
    """A chunk of two channels; the samples tell their counter."""
    index = np.asarray(index, np.int64)
    return Chunk(
        index,
        index / rate if time_s is None else np.asarray(time_s, np.float64),
        np.stack([index, -index], axis=1).astype(np.float32) if x is None else np.asarray(x, np.float32),
        np.zeros(len(index), np.int64) if y is None else np.asarray(y, np.int64),
    )


def sensor_of(window: int, hop: int, rate: float = 10.0) -> Sensor:
    return Sensor(("a", "b"), ("g", "g"), rate, window, hop)


def joined(parts) -> dict[str, np.ndarray]:
    """The arrays of chunks or batches, joined."""
    parts = list(parts)
    if not parts:
        return {}
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])}


def recording(n: int, sensor: Sensor, seed: int = 0) -> Recording:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, sensor.n_channels)).astype(np.float32)
    return Recording(x, rng.integers(-1, 2, n // 8 + 1).repeat(8)[:n], 3, sensor, "noise")


# Streams


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_a_recording_is_played_as_it_is_at_any_chunk_size(size):
    one = recording(100, sensor_of(8, 4))
    stream = RecordingStream(one, ("walk", "sit"))
    chunks = list(stream.chunks(size))
    assert max(map(len, chunks)) <= size
    got = joined(chunks)
    np.testing.assert_array_equal(got["x"], one.x)
    np.testing.assert_array_equal(got["y"], one.y)
    np.testing.assert_array_equal(got["index"], np.arange(100))
    np.testing.assert_allclose(got["time_s"], np.arange(100) / 10)
    assert (stream.name, stream.subject, stream.classes) == ("noise", 3, ("walk", "sit"))


def test_a_chunk_needs_samples():
    with pytest.raises(InputError, match=r"`size`.*Received: 0"):
        next(RecordingStream(recording(10, sensor_of(8, 4))).chunks(0))


# Windows of a stream


def slow_windows(chunk: Chunk, sensor: Sensor, max_fill: int, n_samples: int) -> list[dict[str, object]]:
    """The definition, sample by sample."""
    window, hop, rate = sensor.window, sensor.hop, sensor.sampling_rate_hz
    rows, last = [], None
    at = {int(counter): place for place, counter in enumerate(chunk.index)}
    for counter in range(n_samples):
        if counter in at:
            last = at[counter]
            rows.append((chunk.x[last], chunk.y[last], chunk.time_s[last], 0))
            continue
        age = max_fill + 1 + counter if last is None else counter - int(chunk.index[last])
        time_s = counter / rate if last is None else chunk.time_s[last] + age / rate
        lost = age > max_fill
        x = np.full(chunk.x.shape[1], np.nan) if lost else chunk.x[last]
        rows.append((x, -1 if lost else chunk.y[last], time_s, age))
    windows = []
    for number in range((n_samples - window) // hop + 1 if n_samples >= window else 0):
        part = rows[number * hop : number * hop + window]
        labels = {int(row[1]) for row in part}
        ages = [row[3] for row in part]
        windows.append(
            {
                "number": number,
                "start": number * hop,
                "ready_s": max(row[2] for row in part),
                "x": np.array([row[0] for row in part], np.float32),
                "y": labels.pop() if len(labels) == 1 else -1,
                "status": MISSING if max(ages) > max_fill else OK,
                "filled": sum(0 < age <= max_fill for age in ages),
            }
        )
    return windows


@settings(max_examples=100)
@given(data=st.data())
def test_windows_of_a_stream_are_those_of_the_definition(data):
    window, hop = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 12))
    n = data.draw(st.integers(0, 60))
    gaps = data.draw(st.lists(st.sampled_from([1, 1, 1, 1, 2, 3, 5, 40]), min_size=n, max_size=n))
    index = np.cumsum(gaps) - 1 if data.draw(st.booleans()) else np.arange(n)
    late = data.draw(st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.55]), min_size=n, max_size=n))
    labels = data.draw(st.lists(st.integers(-1, 1), min_size=n // 6 + 1, max_size=n // 6 + 1))
    chunk = chunk_of(index, index / 10 + np.array(late), y=np.repeat(labels, 6)[:n])
    sensor = sensor_of(window, hop)
    end = int(index[-1]) + 1 if n else 0
    n_samples = data.draw(st.sampled_from([None, end, end + 7]))
    max_fill = data.draw(st.integers(0, 3))
    stream = ListStream(chunk, sensor, n_samples)
    batch = data.draw(st.integers(1, 6))
    batches = list(StreamWindows(stream, batch=batch, max_fill=max_fill, health=NO_CHECKS))
    expected = slow_windows(chunk, sensor, max_fill, end if n_samples is None else n_samples)
    assert sum(map(len, batches)) == len(expected)
    assert all(len(one) == batch for one in batches[:-1])
    if expected:
        got = joined(batches)
        status, _ = got.pop("status"), got.pop("samples")
        np.testing.assert_allclose(got.pop("ready_s"), [one["ready_s"] for one in expected], atol=1e-12)
        for name, values in got.items():
            np.testing.assert_array_equal(values, np.array([one[name] for one in expected]), name)
        # Samples that are lost are NaN, and their window is never taken for one that is fit.
        np.testing.assert_array_equal(status, [int(one["status"]) for one in expected])


def test_windows_of_a_clean_recording_are_those_that_networks_are_trained_on():
    sensor = sensor_of(16, 8)
    one = recording(1000, sensor)
    trained = cut_windows([one], ("walk", "sit"))
    got = joined(StreamWindows(RecordingStream(one), batch=17))
    assert (got["status"] == OK).all()
    assert (got["filled"] == 0).all()
    inside = got["y"] >= 0
    np.testing.assert_array_equal(got["x"][inside], trained.x)
    np.testing.assert_array_equal(got["y"][inside], trained.y)


def test_a_recording_shorter_than_a_window_gives_none():
    assert not list(StreamWindows(RecordingStream(recording(15, sensor_of(16, 8)))))


def test_a_late_sample_makes_its_windows_late():
    time_s = np.arange(12) / 10
    time_s[5] += 2.0
    got = joined(StreamWindows(ListStream(chunk_of(np.arange(12), time_s), sensor_of(4, 4))))
    np.testing.assert_allclose(got["ready_s"], [0.3, 2.5, 1.1])


def test_a_sample_that_is_not_finite_rejects_its_windows_and_no_others():
    x = np.random.default_rng(0).standard_normal((64, 2))
    x[20, 1], x[50, 0] = np.nan, -np.inf
    got = joined(StreamWindows(ListStream(chunk_of(np.arange(64), x=x), sensor_of(16, 16))))
    assert got["status"].tolist() == [OK, WindowStatus.NOT_FINITE, OK, WindowStatus.NOT_FINITE]


def test_single_windows_come_as_soon_as_they_are_complete():
    stream = ListStream(chunk_of(np.arange(1000)), sensor_of(16, 4))
    for batch in StreamWindows(stream, batch=1):
        assert len(batch) == 1
        # What has been read ends with the hop in which the window was completed.
        assert stream.n_read - (int(batch.start[0]) + 16) < 4


def test_a_batch_may_be_kept():
    windows = iter(StreamWindows(ListStream(chunk_of(np.arange(100)), sensor_of(8, 2)), batch=3))
    first = next(windows)
    kept = first.x.copy()
    list(windows)
    np.testing.assert_array_equal(first.x, kept)
    # Windows share their samples: writing to one would change others.
    assert np.shares_memory(first.x, first.samples)
    assert not first.x.flags.writeable


@pytest.mark.parametrize("options", [{"batch": 0}, {"max_fill": -1}])
def test_a_batch_without_windows_is_refused(options):
    with pytest.raises(InputError, match=r"`batch`.*`max_fill`.*Received: "):
        StreamWindows(ListStream(chunk_of([0]), sensor_of(8, 2)), **options)


HOURS = 8


class DayStream(Stream):
    """Hours at 50 Hz of six channels, made chunk by chunk, with a hole in each."""

    def __init__(self, sensor: Sensor) -> None:
        super().__init__(sensor, "day", n_samples=HOURS * 3600 * 50)

    def chunks(self, size=4096):
        x = np.random.default_rng(0).standard_normal((size, 6)).astype(np.float32)
        for start in range(0, self.n_samples, size):
            index = np.arange(start, min(start + size, self.n_samples))
            index = index[index % (3600 * 50) > 20]
            yield Chunk(index, index / 50, x[: len(index)], np.zeros(len(index), np.int64))


def test_memory_grows_with_the_batch_and_not_with_the_recording():
    sensor = Sensor(tuple("abcdef"), ("g",) * 6, 50.0, 128, 64)
    tracemalloc.start()
    try:
        status = np.concatenate([batch.status for batch in StreamWindows(DayStream(sensor), batch=100)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(status) == (HOURS * 3600 * 50 - 128) // 64 + 1
    assert rejections(status).keys() == {"missing samples"}
    # 100 windows of 128 x 6 float32 are 0.3 MB, the whole stream is 35 MB.
    assert peak < 4e6


# Health


def test_the_reason_that_comes_first_is_given():
    x = np.random.default_rng(0).standard_normal((5, 16, 2)).astype(np.float32)
    x[1, :, 0] = 2.0
    x[2, :, 0], x[2, 3, 1] = 2.0, np.nan
    x[3, :4, 1] = 40.0
    x[4, :3, 1] = 40.0
    sensor = replace(sensor_of(16, 8), units_per_count=(0.001, 0.001))
    samples, sensor = x.reshape(-1, 2), replace(sensor, hop=16)
    status = Health().check(samples, sensor)
    stuck, not_finite, saturated = (WindowStatus(code) for code in (3, 2, 4))
    assert status.tolist() == [OK, stuck, not_finite, saturated, OK]
    assert stuck.reason == "stuck channel"
    assert rejections(status) == {"not finite": 1, "stuck channel": 1, "saturated channel": 1}
    off = Health(stuck=False, saturated_share=None).check(samples, sensor)
    assert off.tolist() == [OK, OK, not_finite, OK, OK]


def slow_health(window: np.ndarray, limits: np.ndarray, share: float) -> WindowStatus:
    """The checks of one window, channel by channel."""
    if not np.isfinite(window).all():
        return WindowStatus.NOT_FINITE
    if len(window) >= MIN_STUCK_SAMPLES and any(len(set(column)) == 1 for column in window.T.tolist()):
        return WindowStatus.STUCK_CHANNEL
    for column, (low, high) in zip(window.T, limits, strict=True):
        if sum(not low < value < high for value in column.tolist()) / len(column) > share:
            return WindowStatus.SATURATED_CHANNEL
    return OK


@settings(max_examples=100)
@given(data=st.data())
def test_the_health_of_overlapping_windows_is_that_of_each(data):
    window, hop = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 50))
    n = data.draw(st.integers(0, 400))
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    # Few values, so that the same one comes at the start, in the middle and at the end of many windows.
    x = rng.integers(-2, 3, (n, 2)).astype(np.float32)
    for _ in range(data.draw(st.integers(0, 4))):
        start, length = int(rng.integers(0, n + 1)), int(rng.integers(1, 60))
        value = rng.choice([0.0, 3.0, -3.0, 4.0, np.nan, np.inf, -np.inf])
        x[start : start + length, rng.integers(2)] = value
    limits, share = ((-3.0, 3.0), (-9.0, 3.5)), data.draw(st.sampled_from([0.0, 0.2, 0.5]))
    found = Health(limits=limits, saturated_share=share).check(x, sensor_of(window, hop))
    starts = range(0, n - window + 1, hop)
    expected = [int(slow_health(x[start : start + window], np.array(limits), share)) for start in starts]
    assert found.tolist() == expected


def test_limits_may_be_given_and_are_unknown_without_counts():
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 16, 2)).astype(np.float32)
    x[1, :8, 0] = -1.0
    samples, sensor = x.reshape(-1, 2), sensor_of(16, 16)
    assert Health().check(samples, sensor).tolist() == [OK, OK]
    for limits in ((-1.0, 1.0), ((-1.0, 1.0), (-9.0, 9.0))):
        assert Health(limits=limits).check(samples, sensor).tolist() == [OK, 4]
    with pytest.raises(InputError, match=r"`limits`.*Received: 3"):
        Health(limits=((0.0, 1.0),) * 3).check(samples, sensor)


def test_both_ends_of_int16_are_limits():
    sensor = replace(sensor_of(4, 4), units_per_count=(0.1, 0.25))
    counts = np.array([[-32768, 32767], [32767, -32768], [-32767, 32766], [32766, -32767]])
    x = (counts * np.array([0.1, 0.25])).astype(np.float32)
    at_limit = Health(stuck=False).check(x.repeat(4, axis=0), sensor) == WindowStatus.SATURATED_CHANNEL
    assert at_limit.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(np.stack(count_limits(sensor)), [x[[0, 1], [0, 1]], x[[1, 0], [0, 1]]])


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("saturated_share", {"saturated_share": 1.0}),
        ("saturated_share", {"saturated_share": float("nan")}),
        ("limits", {"limits": (1.0, 1.0)}),
        ("limits", {"limits": (1.0, 2.0, 3.0)}),
    ],
)
def test_checks_that_make_no_sense_are_refused(argument, options):
    with pytest.raises(InputError, match=rf"`{argument}`.*Received: "):
        Health(**options)


@pytest.mark.parametrize("name", ["hapt", "watch"])
def test_no_clean_window_is_rejected_by_default(name):
    try:
        recordings = dataset(name).load_recordings()
    except InputError as error:
        pytest.skip(str(error))
    held_out = dataset(name).official_test_subjects or split_by_subject(load(name), seed=0).test.subjects
    status = np.concatenate(
        [
            batch.status
            for one in recordings
            if one.subject not in held_out
            for batch in StreamWindows(RecordingStream(one))
        ]
    )
    assert len(status) > 1500
    assert rejections(status) == {}


# Another rate


def sine(frequency_hz: float, rate: float, seconds: float = 4.0) -> RecordingStream:
    x = np.sin(2 * np.pi * frequency_hz * np.arange(int(rate * seconds)) / rate + 0.3)
    sensor = Sensor(("a",), ("g",), rate, 16, 8)
    return RecordingStream(Recording(x[:, None].astype(np.float32), np.zeros(len(x), int), 0, sensor))


@pytest.mark.parametrize(("rate", "wanted"), [(100.0, 50.0), (64.0, 50.0), (50.0, 64.0), (360.0, 50.0)])
def test_resampling_keeps_low_tones_and_removes_what_would_fold(rate, wanted):
    factor, slower = wanted / rate, min(rate, wanted)

    def resampled(frequency_hz):
        stream = ResampledStream(
            sine(frequency_hz, rate), factor, low_pass_kernel(factor), sensor_of(1, 1, wanted)
        )
        got = joined(stream.chunks(500))
        np.testing.assert_array_equal(got["index"], np.arange(stream.n_samples))
        time_s = got["index"] / wanted
        np.testing.assert_allclose(got["time_s"], time_s, atol=1e-9)
        # Away from the ends, where the recording is not known.
        inside = (time_s > 1) & (time_s < 3)
        return got["x"][inside, 0], np.sin(2 * np.pi * frequency_hz * time_s[inside] + 0.3)

    for share in (0.05, 0.2, 0.35):
        got, true = resampled(share * slower)
        assert np.abs(got - true).max() < 1e-3
    for share in (0.5, 0.6, 0.9):
        if wanted < rate and share * slower < rate / 2:
            assert np.abs(resampled(share * slower)[0]).max() < 1e-3


@settings(max_examples=30)
@given(
    size=st.integers(1, 300),
    factor=st.sampled_from([0.5, 50 / 64, 1.001, 0.99, 1.28, 3.0]),
    linear=st.booleans(),
    missing=st.lists(st.integers(0, 299), max_size=5),
)
def test_the_size_of_chunks_does_not_change_what_is_resampled(size, factor, linear, missing):
    sensor = sensor_of(8, 4)
    one = next(RecordingStream(recording(300, sensor)).chunks(300))
    one.x[150, 0] = np.nan
    stream = ListStream(one.take(~np.isin(one.index, missing)), sensor, 300)
    kernel = linear_kernel() if linear else low_pass_kernel(factor)
    got, whole = (joined(ResampledStream(stream, factor, kernel, sensor).chunks(n)) for n in (size, 300))
    for name, values in whole.items():
        np.testing.assert_array_equal(got[name], values, name)
    # A new sample between two old ones is there exactly if both are.
    there = np.setdiff1d(np.arange(300), missing)
    place = got["index"] / factor
    assert np.isin(np.floor(place + 1e-9), there).all()
    assert np.isin(np.ceil(place - 1e-9), there).all()
    every = np.arange(int(299 * factor) + 1) / factor
    between = np.isin(np.floor(every + 1e-9), there) & np.isin(np.ceil(every - 1e-9), there)
    assert len(got["index"]) == between.sum()


def test_a_constant_stays_what_it_is_up_to_its_ends():
    sensor = sensor_of(8, 4)
    stream = ListStream(chunk_of(np.arange(90), x=np.full((90, 2), 9.81)), sensor)
    got = joined(ResampledStream(stream, 0.3, low_pass_kernel(0.3), sensor).chunks(11))
    np.testing.assert_allclose(got["x"], 9.81, rtol=1e-6)


# Another sensor


BUNDLE = Sensor(
    ("acc_x", "acc_y", "gyr"), ("g", "g", "rad/s"), 50.0, 32, 16, units_per_count=(0.001, 0.001, 0.01)
)


def other(**changes) -> Recording:
    return recording(200, replace(BUNDLE, units_per_count=None, window=8, hop=8, **changes))


def test_a_stream_of_the_same_sensor_passes_with_the_bundles_windows():
    one = other(sampling_rate_hz=50.2)
    stream = adapt(one, BUNDLE)
    assert stream.sensor == BUNDLE
    np.testing.assert_array_equal(joined(stream.chunks(33))["x"], one.x)


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("reorder", {"channels": ("gyr", "acc_x", "acc_y"), "units": ("rad/s", "g", "g")}),
        ("convert", {"units": ("m/s^2", "g", "dps")}),
        ("resample", {"sampling_rate_hz": 64.0}),
    ],
)
def test_a_difference_is_refused_until_it_is_allowed(argument, changes):
    one = other(**changes)
    others = {"reorder": True, "convert": True, "resample": True, argument: False}
    with pytest.raises(InputError, match=rf"`noise` must.*Received: .*Allow it with `{argument}=True`\.$"):
        adapt(one, BUNDLE, **others)
    assert adapt(one, BUNDLE, **{argument: True}).sensor == BUNDLE


def test_all_that_differs_is_named_at_once():
    one = other(channels=("acc_y", "acc_x", "gyr"), units=("mg", "mg", "rad/s"), sampling_rate_hz=25.0)
    with pytest.raises(InputError, match=r"`reorder=True`, `convert=True`, `resample=True`"):
        adapt(RecordingStream(one), BUNDLE)
    stream = adapt(one, BUNDLE, reorder=True, convert=True, resample=True)
    assert len(joined(stream.chunks())["index"]) == stream.n_samples == 399


def test_reordering_and_converting_keep_every_value():
    sensor = Sensor(("spare", "gyr", "acc_y", "acc_x"), ("1", "°/s", "m/s²", "mg"), 50.0, 1, 1)
    one = recording(40, sensor)
    got = joined(adapt(one, BUNDLE, reorder=True, convert=True).chunks(7))["x"]
    expected = np.stack([one.x[:, 3] / 1000, one.x[:, 2] / 9.80665, np.radians(one.x[:, 1])], axis=1)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_what_cannot_be_adapted_is_refused_by_name():
    everything = {"reorder": True, "convert": True, "resample": True}
    with pytest.raises(InputError, match=r"without gyr\. Did you mean 'gyro'\?"):
        adapt(other(channels=("acc_x", "acc_y", "gyro")), BUNDLE, **everything)
    with pytest.raises(InputError, match=r"`units` of gyr of noise must be rad/s.*deg/s.*Received: 'g'"):
        adapt(other(units=("g", "g", "g")), BUNDLE, **everything)
    with pytest.raises(InputError, match=r"within a factor of 1000.*Received: 100,000"):
        adapt(other(sampling_rate_hz=1e5), BUNDLE, **everything)
