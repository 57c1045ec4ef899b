"""Windows on which ranges are observed: their choice, and what is refused of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from fixtures_networks import N_CLASSES, TRAIN_REASON, random_samples, synthetic_windows

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
from keras import layers

from mexit_edge.compress import convert, representative_sample
from mexit_edge.compress.representative import representative_arrays
from mexit_edge.errors import InputError
from mexit_edge.signals import UNLABELLED, Windows

pytestmark = pytest.mark.train


@cache
def network(*shapes: tuple[int, ...]) -> keras.Model:
    """One input per shape, called a, b, ..., and one exit."""
    inputs = [keras.Input(shape, name=name) for shape, name in zip(shapes, "abc", strict=False)]
    flat = [layers.Flatten()(tensor) for tensor in inputs]
    joined = flat[0] if len(flat) == 1 else layers.Concatenate()(flat)
    return keras.Model(inputs, {"exit_01": layers.Dense(2, name="exit_01")(joined)})


A, B = random_samples(6, (8, 2)), random_samples(6, (4, 1), seed=1)


def relabelled(labels: np.ndarray) -> Windows:
    return replace(synthetic_windows(len(labels)), y=labels)


# --- Choice -------------------------------------------------------------------------------------------------


def test_the_choice_is_balanced_and_repeats() -> None:
    windows = synthetic_windows(400)
    chosen = representative_sample(windows, 40)
    assert np.bincount(chosen.y).tolist() == [10] * N_CLASSES
    np.testing.assert_array_equal(chosen.x, representative_sample(windows, 40).x)
    assert np.abs(chosen.x - representative_sample(windows, 40, seed=1).x).max() > 0
    with pytest.raises(InputError, match="`representative` must hold at least one window"):
        representative_sample(windows.take(np.zeros(0, int)))


@pytest.mark.parametrize(
    ("n_labelled", "from_labelled", "from_unlabelled"),
    [(200, 40, 0), (8, 8, 32), (0, 0, 40)],
    ids=["enough labels", "few labels", "no labels"],
)
def test_unlabelled_windows_fill_up_the_choice(
    n_labelled: int, from_labelled: int, from_unlabelled: int
) -> None:
    windows = synthetic_windows(400)
    order = np.argsort(windows.y, kind="stable").reshape(N_CLASSES, -1).T.ravel()
    keeps = order[:n_labelled]
    pool = replace(windows, y=np.full(400, UNLABELLED))
    pool.y[keeps] = windows.y[keeps]
    chosen = representative_sample(pool, 40)
    assert len(np.unique(chosen.x, axis=0)) == 40
    assert np.bincount(chosen.y + 1, minlength=N_CLASSES + 1).tolist() == [
        from_unlabelled,
        *[from_labelled // N_CLASSES] * N_CLASSES,
    ]
    np.testing.assert_array_equal(chosen.x, representative_sample(pool, 40).x)


@pytest.mark.parametrize("n", [0, N_CLASSES - 1, 40.0])
def test_fewer_windows_than_classes_are_refused(n: Any) -> None:
    with pytest.raises(InputError, match=rf"`n` must .* window per class \(4\). Received: {n}"):
        representative_sample(synthetic_windows(40), n)


def test_windows_of_one_class_are_refused() -> None:
    with pytest.raises(InputError, match=r"windows of every class.*Received: 8 windows, all of 'sit'"):
        representative_sample(relabelled(np.ones(8, int)))
    # Unlabelled ones may be of any class, and two classes are more than one.
    mixed = representative_sample(relabelled(np.where(np.arange(8) < 4, 1, UNLABELLED)))
    assert set(mixed.y) == {UNLABELLED, 1}
    assert len(representative_sample(relabelled(np.arange(8) % 2))) == 8


# --- Arrays -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", [(A, B), {"a": A, "b": B}, {"b": B, "a": A}], ids=["tuple", "dict", "turned"]
)
def test_several_inputs_take_a_tuple_or_names(given: Any) -> None:
    arrays = representative_arrays(network((8, 2), (4, 1)), given)
    assert list(arrays) == ["a", "b"]
    np.testing.assert_array_equal(arrays["a"], A)
    np.testing.assert_array_equal(arrays["b"], B)


@pytest.mark.parametrize("given", [A, (A,), {"a": A}, A.tolist()], ids=["array", "tuple", "dict", "lists"])
def test_one_input_takes_them_too(given: Any) -> None:
    arrays = representative_arrays(network((8, 2)), given)
    assert {name: values.dtype for name, values in arrays.items()} == {"a": np.float32}
    np.testing.assert_array_equal(arrays["a"], A)


WITH_NAN = A.copy()
WITH_NAN[1, 2, 0] = np.nan


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (A[:0], "`representative` must hold at least one window"),
        (WITH_NAN, r"`representative` must hold finite samples. Received: nan at index \(1, 2, 0\)"),
        (A[:, :7], r"`representative` must hold windows of the network's shape \(8, 2\). Received: \(7, 2\)"),
        (A.astype(str), "`representative` must hold windows .*Received: .*<U"),
        ({"window": A}, r"an array per input \(a\). Received: window"),
        ((A, A), r"an array per input \(1: a\). Received: 2"),
        ([[1.0], [1.0, 2.0]], "`representative` must be an array, or lists of equal length"),
    ],
    ids=["none", "nan", "shape", "text", "name", "two", "ragged"],
)
def test_what_does_not_fit_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        representative_arrays(network((8, 2)), given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (A, r"an array per input \(2: a, b\). Received: 1. Give a tuple"),
        ((B, A), r"`representative\['a'\]` must hold windows of the network's shape \(8, 2\)"),
        ((A, B[:5]), r"as many windows for every input. Received: \{'a': 6, 'b': 5\}"),
        ({"a": A}, r"an array per input \(a, b\). Received: a"),
    ],
    ids=["one", "swapped", "lengths", "missing"],
)
def test_what_does_not_fit_several_inputs_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        representative_arrays(network((8, 2), (4, 1)), given)


def test_integer_kinds_need_windows() -> None:
    with pytest.raises(InputError, match=r"windows to observe ranges on, for 'int16'. Received: None"):
        convert(network((8, 2)), None, "int16")
