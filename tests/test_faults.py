"""Faults of a stream: what each does, that chunks do not matter, and their names as text."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.signals import (
    FAULTS,
    Health,
    Recording,
    RecordingStream,
    Sensor,
    StreamWindows,
    WindowStatus,
    apply_faults,
    make_fault,
    parse_fault,
)
from mexit_edge.signals.faults import ClockDrift, Dropped, Late, NotANumber, Saturated, Stuck, WrongAxis

# One of each name, and more where a fault has several ways.
TEXTS = [
    "dropped=0.1",
    "dropped=10%,burst=7",
    "late=0.1,delay_ms=35",
    "nan=0.02",
    "nan=0.02,channel=gyr_y",
    "stuck=acc_x",
    "stuck=acc_x,from_s=1.5,for_s=2",
    "saturated=40",
    "saturated=4,limit=2,channel=acc_z",
    "wrong_axis=acc",
    "wrong_axis=gyr,swap=xz",
    "wrong_axis=acc,flip=y",
    "clock_drift=200ppm",
    "clock_drift=-3%",
]


PHONE = Sensor(
    channels=("acc_x", "acc_y", "acc_z", "gyr_x", "gyr_y", "gyr_z", "temperature"),
    units=("g",) * 3 + ("rad/s",) * 3 + ("degC",),
    sampling_rate_hz=50.0,
    window=32,
    hop=16,
    triads=((0, 1, 2), (3, 4, 5)),
    units_per_count=(0.001,) * 3 + (0.0005,) * 3 + (0.01,),
)


@pytest.fixture
def stream() -> RecordingStream:
    return stream_of()


def stream_of(n=400, name="walk") -> RecordingStream:
    x = np.random.default_rng(3).standard_normal((n, 7)).astype(np.float32)
    return RecordingStream(Recording(x, np.arange(n) // 50 % 3, 1, PHONE, name))


def samples(stream, size=4096) -> dict[str, np.ndarray]:
    chunks = list(stream.chunks(size))
    return {name: np.concatenate([getattr(one, name) for one in chunks]) for name in vars(chunks[0])}


# Every fault


def test_every_fault_is_tried_here():
    assert {text.partition("=")[0] for text in TEXTS} == set(FAULTS)


@settings(max_examples=40)
@given(sizes=st.tuples(st.integers(1, 60), st.integers(1, 500)), text=st.sampled_from(TEXTS))
def test_the_size_of_chunks_does_not_change_a_fault(sizes, text):
    faulty = parse_fault(text, seed=4)(stream_of())
    first, second = (samples(faulty, size) for size in sizes)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], name)
    # Another pass is the same again: nothing is remembered from the one before.
    np.testing.assert_array_equal(samples(faulty, sizes[0])["x"], first["x"])


@pytest.mark.parametrize("text", TEXTS)
def test_every_window_of_a_faulty_stream_has_an_outcome(text, stream):
    original = stream.recording.x.copy()
    batches = list(StreamWindows(parse_fault(text)(stream), batch=7))
    x, status = (np.concatenate([getattr(one, name) for one in batches]) for name in ("x", "status"))
    n_samples = parse_fault(text)(stream).n_samples
    assert len(x) == (n_samples - 32) // 16 + 1
    assert np.isfinite(x[status == WindowStatus.OK]).all()
    np.testing.assert_array_equal(stream.recording.x, original)


@pytest.mark.parametrize("text", ["dropped=0.1", "late=0.1", "nan=0.1"])
def test_seed_and_name_of_the_stream_decide_what_is_hit(text):
    def seconds_and_x(seed, name):
        got = samples(parse_fault(text, seed)(stream_of(name=name)))
        return got["time_s"].tolist(), str(got["x"].tolist())

    assert seconds_and_x(1, "walk") == seconds_and_x(1, "walk")
    assert seconds_and_x(1, "walk") != seconds_and_x(2, "walk")
    assert seconds_and_x(1, "walk") != seconds_and_x(1, "sit")


# Each fault


def test_dropped_samples_leave_their_counter_free():
    stream = stream_of(n=20_000)
    got = samples(Dropped(0.1)(stream))
    np.testing.assert_array_equal(got["x"], stream.recording.x[got["index"]])
    # 2,000 expected, standard deviation 42.
    assert abs(20_000 - len(got["index"]) - 2000) < 200
    got = samples(Dropped(0.1, burst=10)(stream))
    missing = np.setdiff1d(np.arange(20_000), got["index"])
    assert len(missing) % 10 == 0
    assert (missing.reshape(-1, 10) % 10 == np.arange(10)).all()


def test_a_stream_of_which_nothing_arrives_still_has_its_windows(stream):
    assert not list(Dropped(1.0)(stream).chunks(100))
    (batch,) = StreamWindows(Dropped(1.0)(stream))
    assert (batch.status == WindowStatus.MISSING_SAMPLES).all()
    assert len(batch) == (400 - 32) // 16 + 1


def test_late_samples_keep_their_counter(stream):
    got = samples(Late(0.2, delay_ms=250)(stream))
    delay = got["time_s"] - got["index"] / 50
    late = delay > 1e-6
    np.testing.assert_allclose(delay[late], 0.25)
    assert 40 < late.sum() < 120
    np.testing.assert_array_equal(got["index"], np.arange(400))
    np.testing.assert_array_equal(got["x"], stream.recording.x)


def test_nan_hits_a_share_of_the_samples(stream):
    got = np.isnan(samples(NotANumber(0.2)(stream))["x"])
    assert 40 < got.any(axis=1).sum() < 120
    assert (got.any(axis=1) == got.all(axis=1)).all()
    one = np.isnan(samples(NotANumber(0.2, channel="temperature")(stream))["x"])
    np.testing.assert_array_equal(one[:, 6], got[:, 6])
    assert not one[:, :6].any()


def test_a_stuck_channel_holds_the_value_it_had_and_is_noticed(stream):
    got = samples(Stuck("acc_y", from_s=2, for_s=3)(stream), size=30)["x"]
    expected = stream.recording.x.copy()
    expected[100:250, 1] = expected[100, 1]
    np.testing.assert_array_equal(got, expected)
    status = np.concatenate([one.status for one in StreamWindows(Stuck("acc_y", from_s=2, for_s=3)(stream))])
    start = np.arange(len(status)) * 16
    inside = (start >= 100) & (start + 32 <= 250)
    assert inside.any()
    np.testing.assert_array_equal(status == WindowStatus.STUCK_CHANNEL, inside)


def test_a_saturated_sensor_is_clipped_at_its_limits_and_is_noticed(stream):
    got = samples(Saturated(40)(stream))["x"]
    # int16 counts of 0.001 g.
    np.testing.assert_allclose(got[:, 0], np.clip(stream.recording.x[:, 0] * 40, -32.768, 32.767), rtol=1e-6)
    status = next(iter(StreamWindows(Saturated(40)(stream)))).status
    assert (status == WindowStatus.SATURATED_CHANNEL).all()
    got = samples(Saturated(4, limit=2, channel="acc_z")(stream))["x"]
    expected = stream.recording.x.copy()
    expected[:, 2] = np.clip(expected[:, 2] * 4, -2, 2)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    health = Health(limits=(-2, 2))
    assert (next(iter(StreamWindows(Saturated(40, limit=2)(stream), health=health))).status == 4).all()


def test_a_wrong_axis_is_exchanged_or_turned(stream):
    x = stream.recording.x
    np.testing.assert_array_equal(samples(WrongAxis("acc")(stream))["x"], x[:, [1, 0, 2, 3, 4, 5, 6]])
    np.testing.assert_array_equal(
        samples(WrongAxis("gyr", swap="xz")(stream))["x"], x[:, [0, 1, 2, 5, 4, 3, 6]]
    )
    np.testing.assert_array_equal(
        samples(WrongAxis("acc", flip="z")(stream))["x"], x * np.array([1, 1, -1, 1, 1, 1, 1])
    )


@pytest.mark.parametrize("drift", [0.02, -0.02])
def test_a_clock_that_drifts_samples_at_other_times(drift):
    true_s = np.arange(2000) / 50
    x = np.tile(np.sin(2 * np.pi * 0.5 * true_s)[:, None], (1, 7)).astype(np.float32)
    stream = RecordingStream(Recording(x, np.arange(2000) // 100, 1, PHONE))
    faulty = ClockDrift(drift)(stream)
    got = samples(faulty)
    np.testing.assert_array_equal(got["index"], np.arange(faulty.n_samples))
    assert abs(faulty.n_samples - 2000 * (1 + drift)) < 2
    taken_s = got["index"] / (50 * (1 + drift))
    np.testing.assert_allclose(got["time_s"], taken_s, atol=1e-9)
    # Linear interpolation: (pi f / rate)^2 / 2 = 0.0005 at 0.5 Hz.
    np.testing.assert_allclose(got["x"][:, 0], np.sin(2 * np.pi * 0.5 * taken_s), atol=6e-4)
    assert (np.abs(got["y"] - taken_s / 2) <= 1.02).all()
    assert ClockDrift(0.0)(stream) is stream


def test_faults_are_applied_one_after_the_other(stream):
    both = samples(apply_faults(stream, [WrongAxis("acc"), Dropped(0.3)]))
    kept = samples(Dropped(0.3)(stream))["index"]
    np.testing.assert_array_equal(both["index"], kept)
    np.testing.assert_array_equal(both["x"][:, 0], stream.recording.x[kept, 1])


@pytest.mark.parametrize("text", ["dropped=0.3", "late=0.3", "nan=0.3"])
def test_two_faults_of_one_name_hit_samples_of_their_own(text):
    def share_hit(*faults):
        got = samples(apply_faults(stream_of(n=20_000), faults))
        late = got["time_s"] - got["index"] / 50 > 1e-6
        bad = late | np.isnan(got["x"]).any(axis=1)
        return (20_000 - len(bad) + bad.sum()) / 20_000

    fault = parse_fault(text)
    assert share_hit(fault) == pytest.approx(0.3, abs=0.02)
    assert share_hit(fault, fault) == pytest.approx(0.51, abs=0.02)
    # A fault of another name between or before them changes nothing.
    assert share_hit(parse_fault("wrong_axis=acc"), fault, fault) == share_hit(fault, fault)


# Names and options


def test_a_fault_is_made_by_name_or_text():
    assert make_fault("dropped", share=0.02) == parse_fault("dropped=2%") == Dropped(0.02)
    assert parse_fault("dropped=0.5, burst=4", seed=9) == Dropped(0.5, 4, 9)
    assert parse_fault("dropped=0.5,seed=3", seed=9) == Dropped(0.5, seed=3)
    assert parse_fault("late=0.05,delay_ms=200") == Late(0.05, 200.0)
    assert parse_fault(" stuck = acc_x ") == Stuck("acc_x", 0.0, inf)
    assert parse_fault("saturated=4,limit=2") == make_fault("saturated", gain=4, limit=2)
    assert parse_fault("wrong_axis=acc,flip=z") == WrongAxis("acc", flip="z")
    assert parse_fault("clock_drift=200ppm").drift == pytest.approx(2e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("droped=0.1", r"`fault` must be one of: .*Received: 'droped'\. Did you mean 'dropped'\?"),
        ("", r"`fault` must be one of: "),
        ("dropped", r"`fault` dropped must be given with its share\. Received: 'dropped'.*burst"),
        ("dropped=", r"given with its share"),
        ("dropped=much", r"`share` must be a number.*Received: 'much'"),
        ("dropped=nan", r"`share` must be from 0 to 1\. Received: nan"),
        ("dropped=2", r"`share` must be from 0 to 1\. Received: 2"),
        ("dropped=0.1,bursts=2", r"Received: 'bursts'\. Did you mean 'burst'\?"),
        ("dropped=0.1,burst=2.5", r"`burst` must be a whole number\. Received: '2.5'"),
        ("dropped=0.1,burst=0", r"`burst` must be from 1 .*Received: 0"),
        ("dropped=0.1,seed=-1", r"`seed` must be at least 0\. Received: -1"),
        ("dropped=0.1,burst=2,burst=3", r"`burst` must be given once"),
        ("dropped=0.1,burst=1000000000000", r"`burst` must be from 1 to 1,000,000,000 samples"),
        ("late=0.1,delay_ms=inf", r"`delay_ms` must.*Received: inf"),
        (
            "late=0.1,delay_ms=1e300",
            r"`delay_ms` must be from 0 to 3,600,000 .*Received: 1e\+300",
        ),
        ("late=0.1,delay_ms=nan", r"`delay_ms` must.*Received: nan"),
        (
            "saturated=1e300",
            r"`gain` and `limit` must be positive and at most 1e\+30\..*gain 1e\+300",
        ),
        ("saturated=4,limit=1e300", r"`gain` and `limit` must.*limit 1e\+300"),
        ("stuck=acc_x,from_s=-1", r"`from_s`.*Received: from_s -1"),
        ("stuck=acc_x,for_s=0", r"`for_s`.*for_s 0"),
        ("saturated=0", r"`gain`.*Received: gain 0"),
        ("saturated=2,limit=-1", r"`limit`.*limit -1"),
        ("wrong_axis=acc,swap=xx", r"`swap`.*Received: swap 'xx'"),
        ("wrong_axis=acc,flip=w", r"`flip`.*flip 'w'"),
        ("clock_drift=60%", r"`drift` must be a share.*Received: 0.6"),
    ],
)
def test_text_that_is_no_fault_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_fault(text)


def test_an_unknown_option_is_refused_with_the_nearest_one():
    with pytest.raises(InputError, match=r"Received: 'shares'\. Did you mean 'share'"):
        make_fault("dropped", shares=0.1)


@pytest.mark.parametrize("options", [{"share": "0.1"}, {"share": True}, {"share": 0.1, "burst": 1.5}, {}])
def test_options_of_a_wrong_type_are_refused(options):
    with pytest.raises(InputError, match=r"`(share|burst)`.*must be.*Received: "):
        make_fault("dropped", **options)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Stuck("acc_w"), r"`channel` must be one of: .*'acc_w'\. Did you mean 'acc_"),
        (NotANumber(0.1, channel="x"), r"`channel` must be one of"),
        (WrongAxis("gyro"), r"`triad` must be one of: acc, gyr\. Received: 'gyro'\. Did you mean 'gyr'"),
    ],
)
def test_a_fault_of_what_the_sensor_has_not_is_refused(fault, message, stream):
    with pytest.raises(InputError, match=message):
        fault(stream)


def test_what_a_sensor_does_not_say_has_to_be_given(stream):
    stream.sensor = replace(stream.sensor, units_per_count=None, triads=(), rigid_bodies=())
    with pytest.raises(InputError, match=r"`limit` must be given.*Received: None"):
        Saturated(4)(stream)
    with pytest.raises(InputError, match=r"`triad` needs a sensor with a triad"):
        WrongAxis("acc")(stream)
