"""A window between two stages, stored and resumed."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from fixtures_networks import (
    EACH_ENGINE,
    N_CLASSES,
    bundle_of,
    hand_whole,
    synthetic_windows,
    with_policy,
    with_stage,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.bundle import Bundle
from mexit_edge.errors import InputError
from mexit_edge.exits import NEVER, SCORES
from mexit_edge.runtime import Decision, Runtime, Suspended
from mexit_edge.runtime.suspended import boundary

ENGINE = "litert-reference"
WINDOWS = synthetic_windows(40, noise=2.0)


def unsure(score: str, off: tuple[str, ...] = ()) -> Bundle:
    """The bundle under a score by which no window leaves early."""
    bundle = with_policy(bundle_of(hand_whole()), score, (NEVER, NEVER))
    return bundle.with_manifest(policy=bundle.manifest.policy.model_copy(update={"off": off}))


@EACH_ENGINE
@pytest.mark.parametrize("after", [1, 2])
def test_a_resumed_window_decides_as_an_uninterrupted_one(engine, after):
    bundle = unsure("logit_margin")
    runtime, fresh = Runtime(bundle, engine), Runtime(bundle, engine)
    for window in WINDOWS.counts()[:10]:
        stored = runtime.store(runtime.suspend(window, after))
        decision, whole = fresh.resume(fresh.restore(stored)), fresh.infer(window)
        assert decision[:4] == whole[:4]
        assert decision.way_in == "fixed_point"


@pytest.mark.parametrize("score", sorted(SCORES))
@pytest.mark.parametrize("off", [(), ("exit_01",), ("exit_01", "exit_02")])
def test_what_a_score_remembers_survives(score, off):
    bundle = unsure(score, off)
    runtime = Runtime(bundle, ENGINE)
    for window in WINDOWS.x[:6]:
        for after in (1, 2):
            suspended = runtime.restore(runtime.store(runtime.suspend(window, after)))
            whole = runtime.infer(window)
            assert runtime.resume(suspended)[:4] == whole[:4]
            assert suspended.scores == whole.scores[:after]
            assert suspended.way_in == "float"


def test_a_window_that_has_left_is_decided_and_not_stored():
    runtime = Runtime(with_policy(bundle_of(hand_whole()), "logit_margin", (0, 0)), ENGINE)
    found = runtime.suspend(WINDOWS.x[0], 1)
    assert isinstance(found, Decision)
    assert found.exit == 1


def test_only_what_later_stages_read_is_stored():
    runtime = Runtime(unsure("logit_margin"), ENGINE)
    manifest = runtime.bundle.manifest
    for after in (1, 2):
        suspended = runtime.suspend(WINDOWS.x[0], after)
        assert isinstance(suspended, Suspended)
        assert list(suspended.tensors) == [tensor.name for tensor in boundary(manifest, after)]
        n_bytes = sum(values.size for values in suspended.tensors.values())
        assert len(runtime.store(suspended)) == 14 + 4 * after + 2 + n_bytes + 4


@pytest.mark.parametrize("after", [0, 3, 1.0])
def test_there_is_no_boundary_before_the_first_or_after_the_last_stage(after):
    with pytest.raises(InputError, match=r"`after` must be a number of stages from 1 to 2"):
        Runtime(unsure("logit_margin"), ENGINE).suspend(WINDOWS.x[0], after)


# --- Bytes that are damaged or not ours ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored() -> tuple[Runtime, bytes]:
    runtime = Runtime(unsure("vote"), ENGINE)
    return runtime, runtime.store(runtime.suspend(WINDOWS.x[0], 1))


@given(data=st.data())
@settings(max_examples=60)
def test_any_changed_or_missing_byte_is_noticed(stored, data):
    runtime, content = stored
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        changed = content[:place]
    else:
        changed = bytearray(content)
        changed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InputError, match="suspended window must be"):
        runtime.restore(bytes(changed))


@given(data=st.data())
@settings(max_examples=60)
def test_bytes_with_a_right_checksum_and_wrong_content_end_in_a_message_or_a_window(stored, data):
    runtime, content = stored
    changed = bytearray(content[:-4])
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, 30))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        changed += bytes(data.draw(st.integers(0, 8)))
    sealed = bytes(changed) + struct.pack("<I", zlib.crc32(changed))
    try:
        suspended = runtime.restore(sealed)
    except InputError:
        return
    assert all(tensor.dtype == np.int8 for tensor in suspended.tensors.values())
    assert 0 <= runtime.resume(suspended).label < N_CLASSES


@pytest.mark.parametrize("score", ["ensemble", "boosted", "max_prob"])
def test_a_window_of_another_policy_on_the_same_stages_is_refused(stored, score):
    with pytest.raises(InputError, match="other stages or another policy"):
        Runtime(unsure(score), ENGINE).restore(stored[1])


def test_thresholds_of_a_controller_hold_across_the_break():
    runtime = Runtime(unsure("logit_margin"), ENGINE)
    for thresholds in ((NEVER, 0), (NEVER, NEVER)):
        suspended = runtime.restore(runtime.store(runtime.suspend(WINDOWS.x[0], 1, thresholds)))
        assert runtime.resume(suspended, thresholds)[:4] == runtime.infer(WINDOWS.x[0], thresholds)[:4]
    assert isinstance(runtime.suspend(WINDOWS.x[0], 1, (0, 0)), Decision)


def test_a_window_of_another_bundle_is_refused(stored):
    bundle, content = unsure("vote"), stored[1]
    other = Runtime(with_stage(bundle, 1, bundle.stages[1] + bytes(16)), ENGINE)
    with pytest.raises(InputError, match="resumed by the bundle that suspended it"):
        other.restore(content)


# --- Thresholds from window to window -----------------------------------------------------------------------


def test_thresholds_given_for_one_window_take_the_policys_place():
    bundle = with_policy(bundle_of(hand_whole()), "logit_margin", (8, 8))
    runtime = Runtime(bundle, ENGINE)
    for thresholds in ((0, 0), (NEVER, 0), (NEVER, NEVER)):
        other = Runtime(with_policy(bundle, "logit_margin", thresholds), ENGINE)
        for window in WINDOWS.x[:5]:
            assert runtime.infer(window, thresholds)[:4] == other.infer(window)[:4]
    with pytest.raises(InputError, match=r"`thresholds` needs one value per early exit \(exit_01, exit_02\)"):
        runtime.infer(WINDOWS.x[0], (1,))


def test_an_exit_that_is_off_is_passed_without_a_score():
    bundle = with_policy(bundle_of(hand_whole()), "logit_margin", (0, 0))
    bundle = bundle.with_manifest(policy=bundle.manifest.policy.model_copy(update={"off": ("exit_01",)}))
    runtime = Runtime(bundle, ENGINE)
    for window in WINDOWS.x[:5]:
        decision = runtime.infer(window)
        assert decision.exit == 2
        assert decision.scores[0] is None
    assert set(runtime.infer_batch(WINDOWS.x).exit) == {2}
