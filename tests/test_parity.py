"""Parity between engines: what is counted, where decisions part, and what rounding explains."""

from __future__ import annotations

import csv
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from fixtures_networks import (
    EACH_ENGINE,
    HAS_TFLM,
    SENSOR,
    bundle_of,
    hand_whole,
    random_samples,
    synthetic_windows,
    tflm,
    with_policy,
)
from hypothesis import given
from hypothesis import strategies as st

from mexit_edge.cli import settings
from mexit_edge.errors import InputError
from mexit_edge.exits import SCORES, make_scores, passes
from mexit_edge.runtime import (
    ROUNDING_STEPS,
    Runtime,
    available_engines,
    compare_engines,
    reference_engine,
)
from mexit_edge.runtime.engine_parity import steps_to_turn
from mexit_edge.runtime.engines import LiteRTModel

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import op_parity  # noqa: E402

THRESHOLDS = (8, 10)
BUILTIN = "litert-builtin"


@pytest.fixture(scope="module")
def bundle():
    return bundle_of(hand_whole(), thresholds=THRESHOLDS)


def test_the_command_line_knows_the_same_number_of_steps():
    assert settings.ROUNDING_STEPS == ROUNDING_STEPS


# --- Counting -----------------------------------------------------------------------------------------------


def test_every_tensor_that_leaves_a_stage_has_a_row_per_engine(bundle):
    windows = synthetic_windows(20, noise=2.0).x
    rows = compare_engines(bundle, windows)
    assert [row.engine for row in rows] == [
        name for name in available_engines() if name != reference_engine()
    ]
    names = [tensor.name for stage in bundle.manifest.stages for tensor in stage.outputs]
    for row in rows:
        assert (row.windows, row.reference) == (20, reference_engine())
        assert [tensor.tensor for tensor in row.tensors] == names
        assert [tensor.elements for tensor in row.tensors] == [20 * n for n in (4, 24, 4, 24, 4)]


@pytest.mark.parametrize("chunk", [7, 512])
@EACH_ENGINE
def test_counts_are_those_of_the_tensors_themselves(bundle, engine, chunk, monkeypatch):
    monkeypatch.setattr("mexit_edge.runtime.engine_parity.CHUNK", chunk)
    windows = random_samples(60, SENSOR.shape)
    (row,) = compare_engines(bundle, windows, [engine])
    got = Runtime(bundle, engine).run_all_exits(windows)
    expected = Runtime(bundle, reference_engine()).run_all_exits(windows)
    for tensor in row.tensors:
        difference = np.abs(got[tensor.tensor].astype(int) - expected[tensor.tensor])
        assert tensor.differing_elements == (difference > 0).sum()
        assert tensor.differing_windows == (difference > 0).any(axis=1).sum()
        assert tensor.largest_difference == difference.max()
        assert tensor.share == (difference > 0).mean()


# Thresholds that some windows pass and some do not.
MIDDLE = {
    "logit_margin": (8, 10),
    "max_prob": (20_000, 20_000),
    "margin": (9_000, 9_000),
    "patience": (1, 1),
    "vote": (1 << 15, 40_000),
    "ensemble": (20_000, 20_000),
    "geometric_ensemble": (200_000, 200_000),
    "boosted": (200_000, 300_000),
    "learned": (1_000, 1_000),
}


@pytest.mark.parametrize("score", sorted(SCORES))
def test_decisions_are_those_of_the_loop(bundle, score):
    policed = with_policy(bundle, score, MIDDLE.get(score, (12_000, 12_000)))
    windows = synthetic_windows(200, noise=2.0).x
    (row,) = compare_engines(policed, windows, ["litert-xnnpack"])
    got = Runtime(policed, "litert-xnnpack").infer_batch(windows)
    expected = Runtime(policed, reference_engine()).infer_batch(windows)
    differs = np.flatnonzero((got.label != expected.label) | (got.exit != expected.exit))
    assert [one.window for one in row.decisions] == differs.tolist()
    for one in row.decisions:
        assert (one.label, one.exit) == (got.label[one.window], got.exit[one.window])
        assert (one.reference_label, one.reference_exit) == (
            expected.label[one.window],
            expected.exit[one.window],
        )


def test_without_a_policy_every_window_runs_to_the_end():
    (row,) = compare_engines(bundle_of(hand_whole()), random_samples(50, SENSOR.shape), [BUILTIN])
    assert all(one.exit == one.reference_exit == 3 for one in row.decisions)


# --- Where decisions part -----------------------------------------------------------------------------------


def moved(monkeypatch: pytest.MonkeyPatch, by: int) -> None:
    """Let the built-in kernels give a largest logit that is lower by so many steps."""
    honest = LiteRTModel.run_batch

    def run_batch(self, inputs):
        outputs = honest(self, inputs)
        if self._kernels == "builtin":
            logits = outputs[0].astype(int)
            rows = np.arange(len(logits))
            logits[rows, logits.argmax(axis=1)] -= by
            outputs[0] = np.clip(logits, -128, 127).astype(np.int8)
        return outputs

    monkeypatch.setattr(LiteRTModel, "run_batch", run_batch)


def test_decisions_close_to_their_threshold_fall_to_rounding(bundle, monkeypatch):
    moved(monkeypatch, 2)
    (row,) = compare_engines(bundle, synthetic_windows(400, noise=2.0).x, [BUILTIN])
    assert row.decisions
    assert {one.cause for one in row.decisions} == {"threshold", "label"}
    assert row.defects() == ()
    for one in row.decisions:
        # One step more: the built-in kernels round on their own too.
        assert one.steps <= 3
        if one.cause == "threshold":
            assert one.parted_at == one.reference_exit < one.exit
            threshold = THRESHOLDS[one.parted_at - 1]
            assert one.logit_margin - threshold == one.score_minus_threshold == one.steps - 1
        else:
            assert one.score_minus_threshold is None
            assert one.exit == one.reference_exit
            assert one.steps == one.logit_margin


def test_decisions_far_from_their_threshold_show_a_defect(bundle, monkeypatch):
    moved(monkeypatch, 40)
    windows = synthetic_windows(400, noise=2.0).x
    (row,) = compare_engines(bundle, windows, [BUILTIN])
    assert len(row.defects()) > 10
    assert all(one.steps > ROUNDING_STEPS for one in row.defects())
    assert row.defects(within=300) == ()
    assert len(row.defects(within=0)) >= len(row.defects())


@given(
    name=st.sampled_from(["entropy", "logit_margin", "margin", "max_prob"]),
    logits=st.lists(st.integers(-128, 127), min_size=2, max_size=6),
    share=st.floats(0, 1),
)
def test_steps_to_turn_is_the_smallest_movement_that_turns(name, logits, share):
    (score,) = make_scores(name, [0.1], len(logits))
    threshold = int(share * (255 if name == "logit_margin" else 1 << 15))
    steps = steps_to_turn(score, logits, threshold)
    place = max(range(len(logits)), key=lambda index: logits[index])
    leaves = passes(score.one(logits, [])[0], threshold)

    def turned(movement: int) -> bool:
        other = list(logits)
        other[place] += -movement if leaves else movement
        return passes(score.one(other, [])[0], threshold) != leaves

    if steps is None:
        spread = max(logits) - min(logits)
        assert not any(turned(movement) for movement in range(1, 255 - spread))
    else:
        assert turned(steps)
        assert not any(turned(movement) for movement in range(1, steps))
    if name == "logit_margin" and steps is not None:
        distance = score.one(logits, [])[0] - threshold
        assert steps == (distance + 1 if leaves else -distance)


# --- What is refused ----------------------------------------------------------------------------------------


def test_unknown_engines_and_no_windows_are_refused(bundle):
    with pytest.raises(InputError, match=r"`engines` must be one of.*Received: 'tpu'"):
        compare_engines(bundle, random_samples(2, SENSOR.shape), ["tpu"])
    with pytest.raises(InputError, match=r"at least one window. Received: none"):
        compare_engines(bundle, random_samples(0, SENSOR.shape))
    with pytest.raises(InputError, match="must be an array of shape"):
        compare_engines(bundle, random_samples(2, (5, 5)), [BUILTIN])


def test_rows_are_plain_facts(bundle):
    (row,) = compare_engines(bundle, random_samples(3, SENSOR.shape), [BUILTIN])
    assert asdict(row)["tensors"][0]["engine"] == BUILTIN


# --- Operator by operator -----------------------------------------------------------------------------------


def committed() -> list[dict[str, str]]:
    with op_parity.RESULTS.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_committed_table_holds_what_it_is_said_to_show():
    rows = committed()
    assert op_parity.beyond(rows) == []
    shown = {row["operator"] for row in rows if row["engine"] == "tflm" and int(row["elements"]) > 1000}
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MEAN", "SOFTMAX", "TRANSPOSE"} <= shown
    assert len(shown) > 30


@tflm
def test_a_slice_of_the_table_comes_out_the_same():
    def cases():
        yield from (("by hand", case) for case in op_parity.hand_made(1))
        yield from op_parity.of_bundle()

    rows = op_parity.rows_of(op_parity.compare(cases(), 5))
    assert op_parity.beyond(rows) == []
    on_tflm = [row for row in rows if row["engine"] == "tflm"]
    wrong = {(row["operator"], row["variant"]) for row in on_tflm if row["elements_differing"]}
    # Should TFLM mend one of these, its line in WRONG_ON_TFLM and its guard may go.
    assert {key for key in wrong if key[0] != "FULLY_CONNECTED"} == op_parity.WRONG_ON_TFLM
    here = {(row["operator"], row["origin"], row["variant"]) for row in on_tflm}
    assert here <= {(row["operator"], row["origin"], row["variant"]) for row in committed()}


@pytest.mark.skipif(not HAS_TFLM, reason="the reference is LiteRT's own without TFLM")
def test_boundaries_of_the_reference_bundle_are_one_on_tflm_and_the_reference_kernels():
    from mexit_edge.bundle import Bundle

    bundle = Bundle.load(op_parity.BUNDLE)
    (row,) = compare_engines(bundle, bundle.golden.windows, ["litert-reference"])
    for tensor in row.tensors:
        assert tensor.largest_difference <= ("logits" in tensor.tensor)
