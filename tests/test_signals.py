"""Sensors, recordings, windows, normalisation and perturbations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.signals import (
    UNLABELLED,
    ChannelScale,
    Jitter,
    Mirror,
    Normalisation,
    Recording,
    Rotation,
    Sensor,
    Speed,
    Windows,
    apply_perturbations,
    cut_windows,
    inertial_perturbations,
)

SIX = {"channels": ("a", "b", "c", "d", "e", "f"), "units": ("g",) * 6}
GOOD = {**SIX, "sampling_rate_hz": 50.0, "window": 4, "hop": 2}


def noise(sensor: Sensor, n: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, *sensor.shape)).astype(np.float32)


def windows_of(x: np.ndarray, sensor: Sensor) -> Windows:
    return Windows(x, np.zeros(len(x), np.int64), np.zeros(len(x), np.int64), sensor, ("only",))


def recording_of(y: list[int], subject: int = 1, window: int = 3, hop: int = 1) -> Recording:
    """Two channels that count samples, so that every window tells where it began."""
    time = np.arange(len(y), dtype=np.float32)
    x = np.stack([time, -time], axis=1) if len(y) else np.empty((0, 2), np.float32)
    return Recording(x, np.asarray(y, np.int64), subject, Sensor.plain(2, window).with_windowing(window, hop))


# Sensor


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("channels", {"channels": (), "units": ()}),
        ("channels", {"channels": ("a", "a", "c", "d", "e", "f")}),
        ("units", {"units": ("g",)}),
        ("sampling_rate_hz", {"sampling_rate_hz": 0.0}),
        ("sampling_rate_hz", {"sampling_rate_hz": float("nan")}),
        ("sampling_rate_hz", {"sampling_rate_hz": float("inf")}),
        ("window", {"window": 0}),
        ("hop", {"hop": 0}),
        ("triads", {"triads": ((0, 1, 2), (2, 3, 4))}),
        ("triads", {"triads": ((0, 1, 6),)}),
        ("triads", {"triads": ((0, 1, -1),)}),
        ("triads", {"triads": ((),)}),
        ("rigid_bodies", {"triads": ((0, 1, 2),), "rigid_bodies": ((1,),)}),
        ("rigid_bodies", {"triads": ((0, 1, 2),), "rigid_bodies": ((0,), (0,))}),
        ("rigid_bodies", {"triads": ((0, 1),), "rigid_bodies": ((0,),)}),
        ("units_per_count", {"units_per_count": (0.1,)}),
        ("units_per_count", {"units_per_count": (0.1,) * 5 + (0.0,)}),
        ("units_per_count", {"units_per_count": (0.1,) * 5 + (float("nan"),)}),
    ],
)
def test_a_sensor_whose_fields_do_not_fit_is_refused(argument, change):
    with pytest.raises(InputError, match=rf"`{argument}`.*Received: "):
        Sensor(**(GOOD | change))


def test_a_sensor_knows_its_groups_shape_and_hop(phone):
    assert phone.n_channels == 7
    assert phone.shape == (32, 7)
    assert phone.groups == ((0, 1, 2), (3, 4, 5), (6,))


def test_with_windowing_changes_nothing_else(phone):
    other = phone.with_windowing(64, 8)
    assert (other.window, other.hop) == (64, 8)
    assert replace(other, window=32, hop=16) == phone


def test_a_plain_sensor_numbers_its_channels():
    sensor = Sensor.plain(2, 16)
    assert sensor.channels == ("channel_0", "channel_1")
    assert sensor.units == ("1", "1")
    assert (sensor.window, sensor.hop, sensor.units_per_count) == (16, 16, None)


# Recording


@pytest.mark.parametrize(
    ("argument", "x", "y"),
    [
        ("x", np.zeros((5, 3), np.float32), np.zeros(5, int)),
        ("x", np.zeros(5, np.float32), np.zeros(5, int)),
        ("x", np.zeros((5, 2), complex), np.zeros(5, int)),
        ("x", np.full((5, 2), "a"), np.zeros(5, int)),
        ("y", np.zeros((5, 2), np.float32), np.zeros(4, int)),
        ("y", np.zeros((5, 2), np.float32), np.full(5, 0.5)),
        ("x", np.array([[0, 1], [np.nan, 0]], np.float32), np.zeros(2, int)),
        ("x", np.array([[0, 1], [0, -np.inf]], np.float32), np.zeros(2, int)),
    ],
)
def test_a_recording_that_does_not_fit_is_refused_by_name(argument, x, y):
    with pytest.raises(InputError, match=rf"`{argument}` of walk .*Received: "):
        Recording(x, y, 1, Sensor.plain(2, 3), "walk")


def test_a_sample_that_is_not_finite_is_refused_with_its_place():
    x = np.zeros((4, 2), np.float32)
    x[2, 1] = np.inf
    with pytest.raises(InputError, match=r"Received: inf at index \(2, 1\)"):
        Recording(x, np.zeros(4, int), 1, Sensor.plain(2, 3))


# Windows


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("x", {"x": np.zeros((3, 4), np.float32)}),
        ("x", {"x": np.zeros((3, 4, 5), np.float32)}),
        ("x", {"x": np.zeros((3, 5, 6), np.float32)}),
        ("x", {"x": np.zeros((3, 4, 6), np.float64)}),
        ("x", {"x": np.full((3, 4, 6), np.nan, np.float32)}),
        ("y", {"y": np.zeros(2, np.int64)}),
        ("y", {"y": np.zeros((3, 1), np.int64)}),
        ("y", {"y": np.array([0.0, 1.0, 0.5])}),
        ("y", {"y": np.array([0, 1, 2])}),
        ("y", {"y": np.array([0, -2, 1])}),
        ("classes", {"classes": (), "y": np.full(3, UNLABELLED)}),
        ("subject", {"subject": np.zeros(4, np.int64)}),
        ("subject", {"subject": np.array([0.5, 1, 2])}),
    ],
)
def test_windows_that_do_not_fit_are_refused_by_name(argument, change):
    fields = {
        "x": np.zeros((3, 4, 6), np.float32),
        "y": np.array([0, 1, 1]),
        "subject": np.array([7, 7, 8]),
        "sensor": Sensor(**GOOD),
        "classes": ("walk", "sit"),
    }
    assert len(Windows(**fields)) == 3
    with pytest.raises(InputError, match=rf"`{argument}`.*Received: "):
        Windows(**(fields | change))


@pytest.mark.parametrize(
    ("argument", "x", "y", "subject"),
    [
        ("x", np.zeros((3, 4)), [0, 1, 0], None),
        ("x", np.full((3, 4, 2), "a"), [0, 1, 0], None),
        ("x", np.zeros((3, 4, 2), complex), [0, 1, 0], None),
        ("x", np.full((3, 4, 2), 1e300), [0, 1, 0], None),
        ("y", np.zeros((3, 4, 2)), [0.0, 1.0, 0.0], None),
        ("y", np.zeros((3, 4, 2)), [[1, 0], [0, 1], [1, 0]], None),
        ("y", np.zeros((3, 4, 2)), ["walk", "sit", "sit"], None),
        ("y", np.zeros((3, 4, 2)), [0, 1], None),
        ("y", np.zeros((3, 4, 2)), [0, 1, -2], None),
        ("y", np.zeros((3, 4, 2)), [-1, -1, -2], None),
        ("classes", np.zeros((3, 4, 2)), [-1, -1, -1], None),
        ("subject", np.zeros((3, 4, 2)), [0, 1, 0], ["P01", "P02", "P02"]),
        ("subject", np.zeros((3, 4, 2)), [0, 1, 0], [1.5, 2.5, 3.5]),
        ("subject", np.zeros((3, 4, 2)), [0, 1, 0], [1, 2]),
    ],
)
def test_ones_own_arrays_that_do_not_fit_are_refused_by_name(argument, x, y, subject):
    with pytest.raises(InputError, match=rf"`{argument}`.*Received: "):
        Windows.from_arrays(x, y, subject)


@pytest.mark.parametrize("classes", ["walk", ["walk", "sit", "walk"], [0, 1], []])
def test_class_names_are_several_distinct_texts(classes):
    x, y = np.zeros((3, 4, 2), np.float32), [0, 1, 0]
    with pytest.raises(InputError, match=r"`classes` must hold one distinct name per class\. Received: "):
        Windows.from_arrays(x, y, classes=classes)
    with pytest.raises(InputError, match="`classes` must hold one distinct name"):
        Windows(x, np.asarray(y), np.zeros(3, np.int64), Sensor.plain(2, 4), classes)
    with pytest.raises(InputError, match="`classes` must hold one distinct name"):
        cut_windows([recording_of([0] * 5)], classes)


@pytest.mark.parametrize("argument", ["x", "y", "subject"])
def test_ragged_lists_are_refused_by_name(argument):
    arrays = {"x": np.zeros((2, 4, 2)), "y": [0, 1], "subject": [1, 2], argument: [[1, 2], [3]]}
    with pytest.raises(InputError, match=rf"`{argument}` must be an array, or lists of equal length"):
        Windows.from_arrays(**arrays)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.float16, np.float64])
def test_ones_own_arrays_of_any_real_type_become_float32(dtype):
    x = np.arange(24).reshape(3, 4, 2).astype(dtype)
    windows = Windows.from_arrays(x, [2, 0, 1])
    assert windows.x.dtype == np.float32
    np.testing.assert_array_equal(windows.x, x)
    assert windows.classes == ("class_0", "class_1", "class_2")
    assert windows.subjects == (0,)
    assert windows.sensor == Sensor.plain(2, 4)


def test_ones_own_arrays_keep_what_is_said_of_them(phone):
    windows = Windows.from_arrays(noise(phone, 2), [0, 1], [4, 3], phone, ["walk", "sit", "lie"], "mine")
    assert windows.classes == ("walk", "sit", "lie")
    assert (windows.n_classes, windows.subjects, windows.name) == (3, (3, 4), "mine")
    assert windows.sensor is phone


@given(y=st.lists(st.integers(UNLABELLED, 4), min_size=1, max_size=12))
def test_unlabelled_windows_are_marked_and_can_be_left_out(y):
    x = np.zeros((len(y), 4, 2), np.float32)
    windows = Windows.from_arrays(x, y, classes=list("abcde"))
    assert windows.y.tolist() == y
    assert windows.labelled.dtype == np.bool_
    assert windows.labelled.tolist() == [label != -1 for label in y]
    assert windows.take(windows.labelled).y.tolist() == [label for label in y if label >= 0]
    if max(y) == UNLABELLED:
        with pytest.raises(InputError, match=r"`classes` must name the classes where no .*Received: None"):
            Windows.from_arrays(x, y)
    else:
        assert Windows.from_arrays(x, y).n_classes == max(y) + 1


def test_a_label_below_unlabelled_is_refused_with_the_rule():
    rule = r"`y` must .* from 0 to 1 \(a, b\), or -1 where the label is unknown"
    with pytest.raises(InputError, match=rf"{rule}\. Received: values from -2 to 1"):
        Windows.from_arrays(np.zeros((3, 4, 2)), [1, -2, -1], classes=["a", "b"])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_every_integer_type_of_label_can_be_asked_whether_it_is_one(dtype):
    y = np.array([1, 0]).astype(dtype)
    windows = Windows(np.zeros((2, 4, 2), np.float32), y, y, Sensor.plain(2, 4), ("a", "b"))
    assert windows.labelled.tolist() == [True, True]


def test_take_and_of_subjects_keep_rows_together():
    x = np.arange(6, dtype=np.float32).reshape(6, 1, 1)
    windows = Windows.from_arrays(x, [0, 1, 0, 1, 0, 1], [3, 3, 1, 1, 2, 2])
    assert windows.subjects == (1, 2, 3)
    of_two = windows.of_subjects([3, 2])
    np.testing.assert_array_equal(of_two.x.ravel(), [0, 1, 4, 5])
    np.testing.assert_array_equal(of_two.subject, [3, 3, 2, 2])
    np.testing.assert_array_equal(windows.take(np.array([5, 0])).y, [1, 0])
    assert len(windows.of_subjects([99])) == 0


@given(seed=st.integers(0, 2**32 - 1), exponent=st.floats(-6, 3))
@settings(deadline=None, max_examples=60)
def test_counts_give_back_every_int16_exactly(seed, exponent):
    per_count = (10.0**exponent, 3.0**exponent)
    sensor = replace(Sensor.plain(2, 8), units_per_count=per_count)
    counts = np.random.default_rng(seed).integers(-32768, 32768, (4, 8, 2)).astype(np.int16)
    counts[0, :2] = [[-32768, 32767], [32767, -32768]]
    windows = windows_of((counts * np.asarray(per_count)).astype(np.float32), sensor)
    assert windows.counts().dtype == np.int16
    np.testing.assert_array_equal(windows.counts(), counts)


def test_counts_saturate_instead_of_wrapping():
    sensor = replace(Sensor.plain(1, 2), units_per_count=(0.001,))
    windows = windows_of(np.array([[[1e6], [-1e6]]], np.float32), sensor)
    assert windows.counts().ravel().tolist() == [32767, -32768]


def test_counts_without_units_per_count_are_refused():
    with pytest.raises(InputError, match=r"`units_per_count`.*Received: None"):
        windows_of(np.zeros((1, 2, 1), np.float32), Sensor.plain(1, 2)).counts()


# Cutting


def cut_slowly(recording: Recording, n_classes: int, window: int, hop: int) -> list[tuple[int, int]]:
    """Return (first sample, label) of every window that must come out."""
    found = []
    start = 0
    while start + window <= len(recording.y):
        labels = {int(label) for label in recording.y[start : start + window]}
        if len(labels) == 1 and 0 <= min(labels) < n_classes:
            found.append((start, labels.pop()))
        start += hop
    return found


@given(
    runs=st.lists(
        st.lists(st.tuples(st.integers(-1, 2), st.integers(1, 12)), max_size=6), min_size=1, max_size=3
    ),
    window=st.integers(1, 8),
    hop=st.integers(1, 9),
)
@settings(deadline=None, max_examples=150)
def test_cutting_equals_a_slow_loop(runs, window, hop):
    recordings = [
        recording_of([label for label, length in stretch for _ in range(length)], subject, window, hop)
        for subject, stretch in enumerate(runs, start=5)
    ]
    expected = [
        (start, label, recording.subject)
        for recording in recordings
        for start, label in cut_slowly(recording, 3, window, hop)
    ]
    if not expected:
        with pytest.raises(InputError, match="`window`"):
            cut_windows(recordings, ("a", "b", "c"))
        return
    windows = cut_windows(recordings, ("a", "b", "c"))
    got = zip(windows.x[:, 0, 0].astype(int), windows.y, windows.subject, strict=True)
    assert [tuple(map(int, row)) for row in got] == expected
    steps = np.arange(window)
    np.testing.assert_array_equal(windows.x[:, :, 0] - windows.x[:, :1, 0], np.tile(steps, (len(windows), 1)))
    np.testing.assert_array_equal(windows.x[..., 1], -windows.x[..., 0])


def test_window_and_hop_may_replace_the_sensors_own():
    windows = cut_windows([recording_of([0] * 10, window=3, hop=1)], ("a",), window=5, hop=4)
    assert windows.x[:, 0, 0].tolist() == [0, 4]
    assert (windows.sensor.window, windows.sensor.hop) == (5, 4)


@pytest.mark.parametrize(("length", "n"), [(2, 0), (3, 1), (4, 1), (5, 2)])
def test_the_last_samples_give_a_window_only_where_it_is_whole(length, n):
    recordings = [recording_of([0] * length, window=3, hop=2), recording_of([0] * 3, window=3, hop=2)]
    assert len(cut_windows(recordings, ("a",))) == n + 1


def test_unlabelled_samples_and_changes_of_class_give_no_window():
    windows = cut_windows([recording_of([0, 0, 0, -1, -1, -1, 1, 1, 1, 0])], ("a", "b"))
    assert windows.x[:, 0, 0].tolist() == [0, 6]
    assert windows.y.tolist() == [0, 1]


@pytest.mark.parametrize("label", [2, -2])
def test_a_label_without_a_class_is_refused(label):
    # Left out without a word, a class missing from the list would never be missed.
    with pytest.raises(InputError, match=rf"`y` of recording .* from 0 to 1, or -1 .*Received: {label}\. "):
        cut_windows([recording_of([0] * 6), recording_of([0, 0, 0, label])], ("a", "b"))


def test_windows_do_not_share_memory_with_the_recording():
    recording = recording_of([0] * 6)
    windows = cut_windows([recording], ("a",))
    windows.x[0] = 99
    assert recording.x.max() == 5
    assert windows.x[1].max() == 3, "neighbouring windows overlap in time, not in memory"


@pytest.mark.parametrize(
    ("argument", "recordings", "options"),
    [
        ("recordings", [], {}),
        ("recordings", [recording_of([0] * 5), recording_of([0] * 5, window=4)], {}),
        ("window", [recording_of([0] * 2)], {}),
        ("window", [recording_of([0, 1, 0, 1])], {}),
        ("window", [recording_of([0] * 5)], {"window": 0}),
        ("hop", [recording_of([0] * 5)], {"hop": -1}),
    ],
)
def test_cutting_refuses_what_gives_no_window(argument, recordings, options):
    with pytest.raises(InputError, match=rf"`{argument}`.*Received: "):
        cut_windows(recordings, ("a", "b"), **options)


# Normalisation


def test_a_triad_shares_one_scale_and_nothing_is_centred(phone):
    x = noise(phone, 50) * np.array([1, 2, 3, 10, 20, 30, 0.5], np.float32) + np.float32(4)
    fitted = Normalisation.fit(windows_of(x, phone))
    wide = x.astype(np.float64)
    expected = [wide[..., :3].std()] * 3 + [wide[..., 3:6].std()] * 3 + [wide[..., 6].std()]
    np.testing.assert_allclose(fitted.scale, expected, rtol=1e-12)
    assert fitted.offset == (0.0,) * 7


def test_centring_subtracts_the_mean_of_each_channel(phone):
    x = noise(phone, 50) + np.arange(7, dtype=np.float32)
    fitted = Normalisation.fit(windows_of(x, phone), centre=True)
    np.testing.assert_allclose(fitted.apply(x).mean(axis=(0, 1)), 0, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 9.80665, -1e-30])
def test_a_constant_channel_is_refused_by_name(phone, value):
    x = noise(phone, 50)
    x[..., 6] = value
    with pytest.raises(InputError, match=r"`windows` must vary.*constant temperature"):
        Normalisation.fit(windows_of(x, phone))


def test_no_windows_cannot_be_fitted(phone):
    with pytest.raises(InputError, match=r"`windows`.*Received: none"):
        Normalisation.fit(windows_of(np.empty((0, *phone.shape), np.float32), phone))


def test_apply_is_the_affine_map_in_float32():
    normalised = Normalisation((1.0, -2.0), (2.0, 4.0)).apply(np.array([[[3, 2], [1, -2]]], np.float32))
    assert normalised.dtype == np.float32
    assert normalised.tolist() == [[[1.0, 1.0], [0.0, 0.0]]]


def test_identity_changes_nothing(phone):
    x = noise(phone)
    np.testing.assert_array_equal(Normalisation.identity(7).apply(x), x)


@pytest.mark.parametrize(
    ("offset", "scale"),
    [
        ((), ()),
        ((0.0,), (1.0, 1.0)),
        ((0.0,), (0.0,)),
        ((0.0,), (-1.0,)),
        ((0.0,), (float("nan"),)),
        ((0.0,), (float("inf"),)),
        ((float("nan"),), (1.0,)),
    ],
)
def test_a_normalisation_that_cannot_be_applied_is_refused(offset, scale):
    with pytest.raises(InputError, match="`offset` and `scale`"):
        Normalisation(offset, scale)


@pytest.mark.parametrize("limit", [0.5, 4.0])
def test_saturated_samples_are_those_whose_normalised_ones_are_clipped(phone, limit):
    normalisation = Normalisation((0.2,) * 7, (0.1, 0.1, 0.1, 2.0, 2.0, 2.0, 5.0))
    x = 3 * noise(phone)
    saturated = normalisation.saturated(x, limit)
    assert saturated.dtype == np.float32
    expected = np.clip(normalisation.apply(x), -limit, limit)
    np.testing.assert_allclose(normalisation.apply(saturated), expected, atol=1e-5)


# Perturbations

STRONG = (Rotation(3.0), ChannelScale(0.5), Speed(0.5, 2.0), Jitter(0.3, (1.0,) * 7))


@pytest.mark.parametrize("perturb", STRONG, ids=lambda one: type(one).__name__)
def test_a_perturbation_keeps_shape_type_and_original_and_follows_the_generator(phone, perturb):
    x = noise(phone)
    before = x.copy()
    one = perturb(x, phone, np.random.default_rng(3))
    np.testing.assert_array_equal(x, before)
    assert one.shape == x.shape
    assert one.dtype == np.float32
    assert not np.shares_memory(one, x)
    np.testing.assert_array_equal(one, perturb(x, phone, np.random.default_rng(3)))
    other = perturb(x, phone, np.random.default_rng(4))
    assert np.abs(one - other).max() > 0.01
    assert np.abs(one[0] - x[0]).max() > 0.001
    assert np.abs((one - x)[0] - (one - x)[1]).max() > 0.001


def test_strength_zero_is_the_identity(phone):
    x = noise(phone)
    perturbed = apply_perturbations(
        x, phone, inertial_perturbations((1.0,) * 7, strength=0), np.random.default_rng(0)
    )
    np.testing.assert_array_equal(perturbed, x)


def test_perturbations_are_applied_one_after_the_other(phone):
    x = noise(phone)
    chain = inertial_perturbations((1.0,) * 7)
    rng = np.random.default_rng(5)
    expected = x
    for perturb in chain:
        expected = perturb(expected, phone, rng)
    np.testing.assert_array_equal(apply_perturbations(x, phone, chain, np.random.default_rng(5)), expected)
    assert [type(one) for one in chain] == [Rotation, ChannelScale, Speed, Jitter]


@given(seed=st.integers(0, 2**32 - 1), angle=st.floats(0, 3.1))
@settings(deadline=None, max_examples=40)
def test_rotation_keeps_the_norm_of_each_triad_and_of_nothing_else_touches(seed, angle):
    sensor = Sensor(**GOOD, triads=((0, 1, 2), (3, 4, 5)), rigid_bodies=((0,),))
    x = noise(sensor, 5, seed % 1000)
    turned = Rotation(angle)(x, sensor, np.random.default_rng(seed))
    np.testing.assert_allclose(
        np.linalg.norm(turned[..., :3], axis=-1), np.linalg.norm(x[..., :3], axis=-1), rtol=2e-6, atol=1e-6
    )
    # The second triad is of no rigid body.
    np.testing.assert_array_equal(turned[..., 3:], x[..., 3:])


def rotation_between(x: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """Return the 3 x 3 matrix R with turned = x R^T, by least squares over time."""
    return np.linalg.lstsq(x.astype(np.float64), turned.astype(np.float64), rcond=None)[0].T


def test_one_rigid_body_turns_by_one_rotation_and_every_window_by_its_own(phone):
    x = noise(phone)
    turned = Rotation(0.35)(x, phone, np.random.default_rng(0))
    matrices = []
    for before, after in zip(x, turned, strict=True):
        accelerometer = rotation_between(before[:, :3], after[:, :3])
        gyroscope = rotation_between(before[:, 3:6], after[:, 3:6])
        np.testing.assert_allclose(accelerometer, gyroscope, atol=1e-5)
        np.testing.assert_allclose(accelerometer @ accelerometer.T, np.eye(3), atol=1e-5)
        assert np.linalg.det(accelerometer) == pytest.approx(1, abs=1e-5)
        angle = np.arccos(np.clip((np.trace(accelerometer) - 1) / 2, -1, 1))
        assert angle <= 0.35 + 1e-3
        matrices.append(accelerometer)
    assert np.abs(np.diff(matrices, axis=0)).max(axis=(1, 2)).min() > 1e-4
    np.testing.assert_array_equal(turned[..., 6], x[..., 6])


def test_two_rigid_bodies_turn_differently():
    sensor = Sensor(**GOOD, triads=((0, 1, 2), (3, 4, 5)), rigid_bodies=((0,), (1,)))
    x = noise(sensor, 1)
    turned = Rotation(1.0)(x, sensor, np.random.default_rng(1))[0]
    first, second = (rotation_between(x[0][:, axes], turned[:, axes]) for axes in ([0, 1, 2], [3, 4, 5]))
    assert np.abs(first - second).max() > 0.05


def mirrored_world(axis: int) -> np.ndarray:
    """Return the matrix that reverses one axis of space."""
    return np.diag([-1.0 if one == axis else 1.0 for one in range(3)])


@given(axis=st.sampled_from("xyz"), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_a_mirror_shows_what_a_mirrored_body_would_measure(axis, seed):
    """A point that turns with a body feels w x (w x r); its mirror image, the mirror image of that."""
    rng = np.random.default_rng(seed)
    sensor = Sensor(
        **{**GOOD, "units": ("g",) * 3 + ("rad/s",) * 3},
        triads=((0, 1, 2), (3, 4, 5)),
        rigid_bodies=((0, 1),),
    )
    rate, place = rng.standard_normal((2, 3))
    window = np.zeros((1, *sensor.shape), np.float32)
    window[..., :3], window[..., 3:6] = np.cross(rate, np.cross(rate, place)), rate
    seen = Mirror(axis, share=1.0)(window, sensor, rng)[0, 0]
    turned = mirrored_world("xyz".index(axis)) @ place
    np.testing.assert_allclose(
        seen[:3], np.cross(seen[3:6], np.cross(seen[3:6], turned)), rtol=1e-4, atol=1e-5
    )
    # What turns with the body moves along w x r.
    moved = mirrored_world("xyz".index(axis)) @ np.cross(rate, place)
    np.testing.assert_allclose(np.cross(seen[3:6], turned), moved, rtol=1e-4, atol=1e-5)
    again = Mirror(axis, share=1.0)(Mirror(axis, share=1.0)(window, sensor, rng), sensor, rng)
    np.testing.assert_array_equal(again, window)


def test_a_mirror_shows_the_share_of_windows_that_it_is_told(phone):
    x = noise(phone, 400)
    mirror = Mirror("y", share=0.3)
    whole = x * mirror.signs(phone)
    seen = mirror(x, phone, np.random.default_rng(0))
    is_mirrored = (seen == whole).all(axis=(1, 2))
    np.testing.assert_array_equal(seen[~is_mirrored], x[~is_mirrored])
    assert 0.2 < is_mirrored.mean() < 0.4


def test_what_cannot_be_mirrored_is_refused(phone):
    x = noise(phone, 1)
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="`axis` must be x, y or z"):
        Mirror("w")
    with pytest.raises(InputError, match="`share` must be from 0 to 1"):
        Mirror("x", 1.5)
    with pytest.raises(InputError, match="must have rigid bodies"):
        Mirror("x")(x, Sensor.plain(7, 32), rng)
    for units in (("uT",) * 3, ("g", "g", "rad/s"), ("furlong",) * 3):
        with pytest.raises(InputError, match=rf"to be mirrored. Received: {', '.join(units)}"):
            Mirror("x")(x, replace(phone, units=(*units, *phone.units[3:])), rng)


@pytest.mark.parametrize("units", [("mg", "dps"), ("m/s²", "°/s"), ("m/s**2", "mdps")])
def test_a_mirror_knows_every_spelling_of_a_unit(phone, units):
    spelled = replace(phone, units=(units[0],) * 3 + (units[1],) * 3 + ("degC",))
    assert Mirror("y").signs(spelled).tolist() == [1, -1, 1, -1, 1, -1, 1]


def test_speed_keeps_a_constant_signal_constant(phone):
    x = np.full((8, *phone.shape), 0.1, np.float32)
    played = Speed(0.5, 2.0)(x, phone, np.random.default_rng(0))
    np.testing.assert_allclose(played, x, rtol=2e-7)


@pytest.mark.parametrize(("factor", "middle"), [(0.5, 0.5), (2.0, 2.0)])
def test_speed_stretches_a_ramp_about_its_centre(phone, factor, middle):
    time = np.arange(32, dtype=np.float32)
    x = np.tile(time[None, :, None], (1, 1, 7))
    played = Speed(factor, factor)(x, phone, np.random.default_rng(0))[0, :, 0]
    expected = np.clip((time - 15.5) * factor + 15.5, 0, 31)
    np.testing.assert_allclose(played, expected, atol=1e-4)
    assert played[16] - played[15] == pytest.approx(middle, abs=1e-4)


def test_speed_leaves_windows_of_one_sample_alone():
    x = np.ones((2, 1, 1), np.float32)
    np.testing.assert_array_equal(Speed(0.5, 2.0)(x, Sensor.plain(1, 1), np.random.default_rng(0)), x)


def test_jitter_has_the_deviation_of_its_channel(phone):
    scale = (1.0, 1.0, 1.0, 20.0, 20.0, 20.0, 0.1)
    x = np.zeros((400, *phone.shape), np.float32)
    noisy = Jitter(0.05, scale)(x, phone, np.random.default_rng(0))
    # 12,800 samples: the relative error of a standard deviation is about 1 / sqrt(2 * 12,800) = 0.6 %.
    np.testing.assert_allclose(noisy.std(axis=(0, 1)), 0.05 * np.asarray(scale), rtol=0.03)
    assert (np.abs(noisy.mean(axis=(0, 1))) < 0.002 * np.asarray(scale)).all()


def test_channel_scale_multiplies_a_whole_channel_of_a_window(phone):
    x = np.abs(noise(phone, 500)) + 1
    factors = ChannelScale(0.1)(x, phone, np.random.default_rng(0)) / x
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1], factors.shape), rtol=1e-5)
    assert factors[:, 0].std() == pytest.approx(0.1, rel=0.05)
    assert factors[:, 0].mean() == pytest.approx(1.0, abs=0.01)
