"""Streams played through a bundle's loop: the fast way equals the executed one, and every window ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_networks import (
    CLASSES,
    HAS_TFLM,
    N_CLASSES,
    SENSOR,
    TFLM_REASON,
    bundle_of,
    hand_whole,
    with_policy,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.bundle import Bundle, ControllerSpec, TemporalSpec
from mexit_edge.data.hapt import load_recordings
from mexit_edge.errors import InputError, MissingExtraError
from mexit_edge.estimate import (
    OPERATIONS,
    BundleEstimate,
    Device,
    Figure,
    battery_life_days,
    energy_over_period,
    estimate_bundle,
    load_device,
)
from mexit_edge.exits import (
    NEVER,
    SCORES,
    BudgetController,
    TemporalRule,
    balanced_accuracy,
    make_temporal,
    threshold_family,
)
from mexit_edge.runtime import Decision, Runtime
from mexit_edge.signals import (
    Chunk,
    Fault,
    Health,
    Recording,
    RecordingStream,
    Stream,
    StreamWindows,
    WindowBatch,
    Windows,
    apply_faults,
    cut_windows,
    parse_fault,
)
from mexit_edge.simulate import (
    BrownOut,
    Columns,
    Outcome,
    Playback,
    PlayOptions,
    Reason,
    Supply,
    compare,
    play,
)
from mexit_edge.simulate.columns import MOST_PARTS
from mexit_edge.simulate.way_in import BLOCK, WayIn

ENGINE = "litert-reference"
DEVICE = "nucleo-l4r5zi"
TFLM = [pytest.mark.tflm, pytest.mark.skipif(not HAS_TFLM, reason=TFLM_REASON)]
FAULTS = {
    "none": (),
    "dropped": ("dropped=0.04,burst=3",),
    "late": ("late=0.05,delay_ms=400",),
    "nan": ("nan=0.004",),
    "stuck": ("stuck=acc_x,from_s=4,for_s=6",),
    "saturated": ("saturated=3,limit=2",),
    "wrong_axis": ("wrong_axis=acc",),
    "clock_drift": ("clock_drift=2%",),
    "several": ("dropped=0.02,burst=5", "late=0.1,delay_ms=900", "nan=0.006"),
}


def recording(n_windows: int = 24, seed: int = 0, subject: int = 3) -> Recording:
    """Stretches of one class each, in noise, that the hand-made network tells apart."""
    rng = np.random.default_rng(seed)
    n = (n_windows - 1) * SENSOR.hop + SENSOR.window
    y = np.repeat(rng.integers(0, N_CLASSES, n // 96 + 1), 96)[:n]
    shapes = np.random.default_rng(99).standard_normal((N_CLASSES, *SENSOR.shape))
    x = shapes[y, np.arange(n) % SENSOR.window] + 0.8 * rng.standard_normal((n, 3))
    return Recording(x.astype(np.float32), y, subject, SENSOR, f"recording {seed}")


def streams(*faults: str, n_windows: int = 24) -> list[Stream]:
    """Two recordings with these faults."""
    made: list[Fault] = [parse_fault(fault) for fault in faults]
    return [
        apply_faults(RecordingStream(recording(n_windows, seed, subject=seed + 3), CLASSES), made)
        for seed in (0, 1)
    ]


@cache
def policy_bundle(score: str = "logit_margin") -> Bundle:
    """Windows leave at every exit, but not at the first one where its score is always the same."""
    plain = bundle_of(hand_whole())
    windows = cut_windows([recording(100, seed=7)], CLASSES)
    logits = Runtime(plain, ENGINE).all_logits(windows.counts())
    open_ = with_policy(plain, score, (NEVER, NEVER)).manifest.exit_rule()
    scores, _ = open_.score(logits)
    early = scores.T[:-1]
    return with_policy(
        plain, score, [max(int(np.quantile(column, 0.6)), int(column.min()) + 1) for column in early]
    )


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return policy_bundle()


@pytest.fixture(scope="module")
def slow_device(bundle: Bundle) -> Device:
    """So slow that the final exit takes longer than a hop, and the first one does not."""
    return at_clock(0.12)


def at_clock(mhz: float) -> Device:
    clock = Figure(value=mhz, source="made up", date="2026-11", status="unverified")
    return load_device(DEVICE).model_copy(update={"clock_mhz": clock})


@cache
def controller() -> BudgetController:
    bundle = policy_bundle()
    windows = cut_windows([recording(100, seed=7)], CLASSES)
    logits = Runtime(bundle, ENGINE).all_logits(windows.counts())
    scores, _ = bundle.manifest.exit_rule().score(logits)
    costs = bundle.manifest.cumulative_macs
    family = threshold_family(scores, costs, 3500, n_rows=9)
    return BudgetController(family, costs, 3500, horizon=200, tolerance=0.2)


@cache
def opened(bundle: Bundle, engine: str) -> Runtime:
    """Opened once for all tests: it remembers nothing of windows."""
    return Runtime(bundle, engine)


def estimated(bundle: Bundle, device: Device | str) -> BundleEstimate:
    return _estimated(bundle) if device == DEVICE else estimate_bundle(bundle, device)


@cache
def _estimated(bundle: Bundle) -> BundleEstimate:
    return estimate_bundle(bundle, DEVICE)


def assert_same(one: Playback, other: Playback) -> None:
    for field in fields(Columns):
        np.testing.assert_array_equal(
            getattr(one.columns, field.name), getattr(other.columns, field.name), err_msg=field.name
        )
    assert one.streams == other.streams
    assert str(one.summary) == str(other.summary)


def both_ways(
    bundle: Bundle, given_: list[Stream], options: PlayOptions, device: Device | str, engine: str
) -> Playback:
    runtime, estimate = opened(bundle, engine), estimated(bundle, device)
    fast = play(runtime, given_, device=estimate, options=options)
    slow = play(runtime, given_, device=estimate, options=replace(options, executed=True))
    assert_same(fast, slow)
    assert_every_window_ends(fast)
    return fast


def assert_every_window_ends(playback: Playback) -> None:
    """No window without an outcome, and nothing said that is not known."""
    columns = playback.columns
    assert set(np.unique(columns.outcome)) <= {int(one) for one in Outcome}
    computed = np.isin(columns.outcome, (Outcome.DECIDED, Outcome.RESUMED))
    np.testing.assert_array_equal(columns.exit > 0, computed)
    np.testing.assert_array_equal(columns.label >= 0, computed)
    rejected = columns.outcome == Outcome.REJECTED
    np.testing.assert_array_equal(columns.start_ns < 0, rejected)
    np.testing.assert_array_equal(columns.finish_ns < 0, rejected)
    assert (columns.reason[rejected] > 0).all()
    assert (columns.ready_ns[~rejected] <= columns.start_ns[~rejected]).all()
    for row in playback.rows():
        assert not any(isinstance(value, float) and np.isnan(value) for value in row.values())
        assert (row["label"] is None) == (row["outcome"] in ("rejected", "skipped"))
        assert (row["reason"] != "") == (row["outcome"] == "rejected" or "anew" in row["reason"])


# --- The fast way equals the executed one -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "engine"),
    [*((fault, ENGINE) for fault in FAULTS), pytest.param("several", "tflm", marks=TFLM)],
)
def test_the_fast_way_equals_the_executed_one_for_every_fault(
    bundle: Bundle, slow_device: Device, fault: str, engine: str
) -> None:
    given_ = streams(*FAULTS[fault], n_windows=18)
    result = both_ways(bundle, given_, PlayOptions(batch=11), slow_device, engine)
    outcomes = result.summary.outcomes
    assert outcomes["decided"] > 5
    assert outcomes["rejected"] > 0


@pytest.mark.parametrize("score", SCORES)
def test_the_fast_way_equals_the_executed_one_for_every_score(score: str) -> None:
    options = PlayOptions(batch=15, all_exits=True, brown_out=BrownOut(share=0.15, boot_ms=5.0))
    result = both_ways(policy_bundle(score), streams("nan=0.006")[:1], options, DEVICE, ENGINE)
    assert result.summary.outcomes["resumed"] > 0


TEMPORAL: dict[str, tuple[TemporalRule, ...]] = {
    "majority": (make_temporal("majority", n=3),),
    "hysteresis": (make_temporal("hysteresis", n=2),),
    "skip": (make_temporal("skip", stable=2, skip=2),),
    "skip_majority": (make_temporal("skip", stable=2, skip=3), make_temporal("majority", n=3)),
}


@pytest.mark.parametrize("rules", TEMPORAL)
@pytest.mark.parametrize("controlled", [False, True])
def test_the_fast_way_equals_the_executed_one_for_every_rule_over_time(
    bundle: Bundle, slow_device: Device, rules: str, controlled: bool
) -> None:
    options = PlayOptions(
        batch=17,
        temporal=TEMPORAL[rules],
        controller=controller() if controlled else None,
        brown_out=BrownOut(share=0.1, boot_ms=40.0, damaged=0.4, seed=2),
        supply=Supply(rest="sleep"),
    )
    result = both_ways(bundle, streams(*FAULTS["several"]), options, slow_device, ENGINE)
    assert (result.summary.outcomes["skipped"] > 0) == ("skip" in rules)


@settings(max_examples=8)
@given(
    st.sampled_from(list(FAULTS)),
    st.sampled_from([None, *TEMPORAL]),
    st.integers(0, 3),
    st.floats(0.05, 1.0),
    st.integers(1, 50),
    st.booleans(),
)
def test_whatever_is_played_both_ways_agree(
    fault: str, rules: str | None, waiting: int, mhz: float, batch: int, controlled: bool
) -> None:
    bundle = policy_bundle()
    options = PlayOptions(
        batch=batch,
        waiting=waiting,
        temporal=None if rules is None else TEMPORAL[rules],
        controller=controller() if controlled else None,
    )
    both_ways(bundle, streams(*FAULTS[fault], n_windows=15), options, at_clock(mhz), ENGINE)


@pytest.mark.parametrize("batch", [7, 1000])
def test_the_batch_changes_nothing(bundle: Bundle, slow_device: Device, batch: int) -> None:
    options = PlayOptions(brown_out=BrownOut(share=0.2), temporal=TEMPORAL["majority"])
    given_ = streams(*FAULTS["several"])
    expected = play(bundle, given_, device=slow_device, engine=ENGINE, options=options)
    other = play(bundle, given_, device=slow_device, engine=ENGINE, options=replace(options, batch=batch))
    assert_same(expected, other)


def test_the_controller_moves_thresholds_and_is_not_changed(bundle: Bundle) -> None:
    budget = controller()
    before = budget.debt
    fixed = play(bundle, streams(), engine=ENGINE)
    held = play(bundle, streams(), engine=ENGINE, options=PlayOptions(controller=budget))
    assert budget.debt == before
    assert (fixed.columns.exit != held.columns.exit).any()
    # The controller's own array path, on the scores of the same windows.
    logits = np.concatenate(
        [Runtime(bundle, ENGINE).all_logits(cut_all(recording(seed=seed)).counts()) for seed in (0, 1)]
    )
    scores, _ = bundle.manifest.exit_rule().score(logits)
    np.testing.assert_array_equal(held.columns.exit, budget.batch(scores[None]).exits[0])


def cut_all(one: Recording) -> Windows:
    """Every window of a recording, whatever its labels."""
    return cut_windows([replace(one, y=np.zeros_like(one.y))], CLASSES)


# --- Decisions, reports and quality -------------------------------------------------------------------------


def test_without_a_device_decisions_are_those_of_the_loop_and_no_time_is_known(bundle: Bundle) -> None:
    result = play(bundle, streams(), engine=ENGINE)
    expected = [
        Runtime(bundle, ENGINE).infer_batch(cut_all(recording(seed=seed)).counts()) for seed in (0, 1)
    ]
    np.testing.assert_array_equal(result.columns.exit, np.concatenate([one.exit for one in expected]))
    np.testing.assert_array_equal(result.columns.label, np.concatenate([one.label for one in expected]))
    summary = result.summary
    assert (summary.latency, summary.utilisation, summary.energy) == (None, None, None)
    assert any("No device" in note for note in summary.notes)
    row = next(result.rows())
    assert (row["start_s"], row["finish_s"], row["latency_ms"]) == (None, None, None)


def test_quality_is_that_of_labelled_windows(bundle: Bundle) -> None:
    options = PlayOptions(temporal=TEMPORAL["majority"])
    result = play(bundle, streams("nan=0.006"), engine=ENGINE, options=options)
    columns, summary = result.columns, result.summary
    known = (columns.y >= 0) & (columns.label >= 0)
    assert 0 < known.sum() < len(columns)
    assert summary.quality.n_windows == known.sum()
    assert summary.quality.accuracy == pytest.approx(np.mean(columns.y[known] == columns.label[known]))
    assert summary.quality.balanced_accuracy == pytest.approx(
        balanced_accuracy(columns.y[known].astype(int), columns.label[known].astype(int))
    )
    # A rejected window is held to what the stream still reports.
    assert summary.reported_quality.n_windows > summary.quality.n_windows
    macs = np.asarray([0, *bundle.manifest.cumulative_macs])
    assert summary.mean_macs == pytest.approx(macs[columns.exit].mean())
    assert sum(summary.exit_shares) == pytest.approx(1)


def test_the_policys_own_temporal_rules_are_in_force(bundle: Bundle) -> None:
    policy = bundle.manifest.policy
    assert policy is not None
    specs = (TemporalSpec(name="skip", options={"stable": 2, "skip": 2}),)
    with_rule = bundle.with_manifest(policy=policy.model_copy(update={"temporal": specs}))
    own = play(with_rule, streams(), engine=ENGINE)
    assert_same(own, play(bundle, streams(), engine=ENGINE, options=PlayOptions(temporal=TEMPORAL["skip"])))
    none = play(with_rule, streams(), engine=ENGINE, options=PlayOptions(temporal=()))
    assert none.summary.outcomes["skipped"] == 0 < own.summary.outcomes["skipped"]


def test_the_policys_own_controller_is_in_force_unless_thresholds_are_fixed(bundle: Bundle) -> None:
    policy, budget = bundle.manifest.policy, controller()
    assert policy is not None
    spec = ControllerSpec.of(budget, unit="macs", unit_cost=1.0)
    held = bundle.with_manifest(policy=policy.model_copy(update={"controller": spec}))
    own = play(held, streams(), engine=ENGINE)
    assert_same(own, play(bundle, streams(), engine=ENGINE, options=PlayOptions(controller=budget)))
    plain = play(bundle, streams(), engine=ENGINE)
    assert (own.columns.exit != plain.columns.exit).any()
    for given_ in (None, budget):
        fixed = PlayOptions(controller=given_, fixed_thresholds=True)
        assert_same(plain, play(held, streams(), engine=ENGINE, options=fixed))
    # One that is given goes before the policy's.
    final = BudgetController([[NEVER, NEVER], [NEVER, NEVER]], budget.costs, budget.costs[-1], horizon=200)
    other = play(held, streams(), engine=ENGINE, options=PlayOptions(controller=final))
    assert set(other.columns.exit.tolist()) == {3}


def test_thresholds_that_move_need_no_second_runtime(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Runtime] = []
    start = Runtime.__init__

    def spy(self: Runtime, *given_: Any) -> None:
        made.append(self)
        start(self, *given_)

    monkeypatch.setattr(Runtime, "__init__", spy)
    for executed in (False, True):
        options = PlayOptions(controller=controller(), executed=executed)
        made.clear()
        play(bundle, streams(), engine=ENGINE, options=options)
        assert len(made) == 1


@settings(max_examples=25)
@given(data=st.data())
def test_the_quick_way_to_int8_is_that_of_counts(data: st.DataObject) -> None:
    runtime = Runtime(policy_bundle(), ENGINE)
    way_in = WayIn(runtime)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    # More windows than one block has, and a last row that is not full.
    n = 2 * BLOCK * SENSOR.window + SENSOR.hop + SENSOR.window
    counts = rng.integers(-32768, 32768, (n, 3)).astype(np.float64)
    kind = data.draw(st.sampled_from(["plain", "ties", "near ties", "anything", "beyond", "one of a kind"]))
    if kind in ("ties", "near ties"):
        counts += 0.5 + (kind == "near ties") * rng.normal(0, 1e-3, counts.shape)
    elif kind == "anything":
        counts += rng.uniform(-0.5, 0.5, counts.shape)
    elif kind == "beyond":
        counts[rng.random(n) < 0.01] *= rng.choice([1.0001, 3.0, 1e30])
    elif kind == "one of a kind":
        counts[rng.integers(n)] += 0.5
    x = (counts * np.asarray(SENSOR.units_per_count)).astype(np.float32)
    stream = RecordingStream(Recording(x, np.zeros(n, int), 0, SENSOR, kind))
    (batch,) = StreamWindows(stream, batch=1000, health=Health(stuck=False, saturated_share=None))
    whole = Windows(np.ascontiguousarray(batch.x), batch.y, batch.y, SENSOR, CLASSES)
    expected = runtime.quantizer.quantize(whole.counts())
    np.testing.assert_array_equal(way_in.quantized(batch), expected)
    np.testing.assert_array_equal(way_in.raw(batch.x), whole.counts())
    # Windows that are left out, with samples that are not finite.
    x[rng.integers(n)] = np.nan
    (batch,) = StreamWindows(stream, batch=1000, health=Health(stuck=False, saturated_share=None))
    healthy = batch.status == 0
    assert 0 < (~healthy).sum() < 5
    np.testing.assert_array_equal(way_in.quantized(batch), expected[healthy])


def test_each_stream_starts_anew(bundle: Bundle, slow_device: Device) -> None:
    options = PlayOptions(temporal=TEMPORAL["skip_majority"])
    one, other = streams()
    together = play(bundle, [one, other], device=slow_device, engine=ENGINE, options=options)
    alone = play(bundle, [other], device=slow_device, engine=ENGINE, options=options)
    second = together.columns.of_stream(1)
    for name in ("exit", "reported", "outcome", "start_ns", "finish_ns"):
        np.testing.assert_array_equal(getattr(second, name), getattr(alone.columns, name))
    assert together.played_s == pytest.approx(sum(stream.played_s for stream in together.streams))


def test_float_bundles_and_hops_without_overlap_play(bundle: Bundle) -> None:
    for changes in ({"units_per_count": None}, {"hop": SENSOR.window}, {"hop": 40}, {"hop": 11}):
        sensor = replace(SENSOR, **changes)
        given_: list[Stream] = [RecordingStream(replace(recording(15), sensor=sensor))]
        other = bundle_of(hand_whole(), sensor=sensor, thresholds=(20, 15))
        both_ways(other, given_, PlayOptions(batch=9), DEVICE, ENGINE)


def test_an_estimate_that_is_made_already_is_as_good_as_the_devices_name(bundle: Bundle) -> None:
    estimate = estimate_bundle(bundle, DEVICE)
    assert_same(
        play(bundle, streams(), device=estimate, engine=ENGINE),
        play(bundle, streams(), device=DEVICE, engine=ENGINE),
    )
    other = replace(estimate, exits=estimate.exits[:2])
    with pytest.raises(InputError, match=r"`device` must be an estimate of this bundle, with 3 exits"):
        play(bundle, streams(), device=other, engine=ENGINE)


def test_a_stream_shorter_than_a_window_has_none(bundle: Bundle) -> None:
    short = replace(recording(), x=recording().x[:20], y=recording().y[:20])
    result = play(bundle, [RecordingStream(short)], device=DEVICE, engine=ENGINE)
    summary = result.summary
    assert (len(result), summary.latency, summary.energy) == (0, None, None)
    assert summary.played_s == pytest.approx(20 / 50)
    assert summary.quality.accuracy is None
    assert list(result.rows()) == []
    assert "0 windows" in str(result)


def test_batches_are_handed_on_as_they_come(bundle: Bundle) -> None:
    seen: list[tuple[WindowBatch, Columns]] = []
    result = play(
        bundle,
        streams(),
        engine=ENGINE,
        options=PlayOptions(batch=16),
        on_batch=lambda windows, columns: seen.append((windows, columns)),
    )
    assert [len(columns) for _, columns in seen] == [16, 8] * 2
    assert all(len(windows) == len(columns) for windows, columns in seen)
    np.testing.assert_array_equal(np.concatenate([columns.exit for _, columns in seen]), result.columns.exit)


def test_an_opened_runtime_is_played_as_it_is(bundle: Bundle) -> None:
    runtime = Runtime(bundle, ENGINE)
    assert_same(play(runtime, streams()), play(bundle, streams(), engine=ENGINE))
    # It still refuses what it refused before, and knows what it was used for.
    assert runtime.invocations[0] == 48
    with pytest.raises(InputError, match="`windows` must be int16 counts"):
        runtime.infer_batch(np.zeros((1, *SENSOR.shape), np.int8))
    with pytest.raises(InputError, match=r"`engine` must be that of the runtime.*Received: 'tflm'"):
        play(runtime, streams(), engine="tflm")


def test_rows_are_small_and_samples_are_not_kept(bundle: Bundle) -> None:
    result = play(bundle, streams(), device=DEVICE, engine=ENGINE)
    assert result.columns.nbytes <= 100 * len(result)


def test_the_frame_holds_the_rows(bundle: Bundle) -> None:
    pytest.importorskip("pandas")
    result = play(bundle, streams("nan=0.006"), device=DEVICE, engine=ENGINE)
    frame = result.to_frame()
    assert len(frame) == len(result)
    assert list(frame.columns) == list(next(result.rows()))
    assert set(frame["outcome"]) == {"decided", "rejected"}
    assert frame["subject"].unique().tolist() == [3, 4]


# --- Time and energy ----------------------------------------------------------------------------------------


def test_a_device_in_time_takes_what_its_exits_take(bundle: Bundle) -> None:
    result = play(bundle, streams(), device=DEVICE, engine=ENGINE)
    assert result.costs is not None
    latencies = [one.value for one in result.costs.latencies]
    rows = list(result.rows())
    expected = [latencies[row["exit"] - 1] for row in rows]
    assert [row["latency_ms"] for row in rows] == pytest.approx(expected, abs=1e-6)
    assert rows[0]["ready_s"] == pytest.approx((SENSOR.window - 1) / 50)
    latency = result.summary.latency
    assert latency is not None
    assert latency.max.value == pytest.approx(max(latencies), abs=1e-5)
    assert latency.p50.low < latency.p50.value < latency.p50.high
    assert latency.p50.value <= latency.p95.value <= latency.p99.value <= latency.max.value


def test_the_ends_of_latencies_are_those_of_the_queue_at_the_ends(bundle: Bundle) -> None:
    """Played again on a device that really is that slow, or that fast, the percentiles are the ends."""
    result = play(bundle, streams(), device=DEVICE, engine=ENGINE, options=PlayOptions(waiting=1000))
    assert result.costs is not None
    assert result.summary.latency is not None
    for end in ("low", "high"):
        ms = [getattr(one, end) for one in result.costs.latencies]
        expected = np.percentile([ms[exit_ - 1] for exit_ in result.columns.exit], 95)
        assert getattr(result.summary.latency.p95, end) == pytest.approx(expected, abs=1e-5)


def test_an_overloaded_device_loses_windows_and_says_so(bundle: Bundle) -> None:
    result = play(bundle, streams(), device=at_clock(0.05), engine=ENGINE)
    summary = result.summary
    assert summary.reasons == {"overrun": summary.outcomes["rejected"]}
    assert summary.utilisation is not None
    assert summary.utilisation.value > 1
    assert any(note.startswith("Overloaded") for note in summary.notes)
    # Its energy is that of a processor that hardly rests.
    assert summary.energy is not None
    assert summary.energy.per_window.duty_cycle.value > 0.9
    roomy = play(bundle, streams(), device=at_clock(0.05), engine=ENGINE, options=PlayOptions(waiting=1000))
    assert roomy.summary.outcomes["rejected"] == 0
    assert roomy.summary.latency is not None
    assert roomy.summary.latency.max.value > 1000
    assert roomy.played_s > result.played_s


def test_energy_is_that_of_the_mean_window_over_the_mean_period(bundle: Bundle) -> None:
    supply = Supply(rest="sleep", sensor_power_mw=0.3, battery_mah=225)
    result = play(bundle, streams(), device=DEVICE, engine=ENGINE, options=PlayOptions(supply=supply))
    energy, costs = result.summary.energy, result.costs
    assert energy is not None
    assert costs is not None
    latency = costs.estimate.expected(result.summary.exit_shares).estimated_latency_ms
    assert latency is not None
    # By hand: what the processor and the sensor draw over the whole played time.
    n, total_ms = len(result), result.played_s * 1000
    board, library = costs.board, costs.library
    active_mw = board.power_mw(library)
    assert active_mw is not None
    assert board.sleep_power_mw is not None
    assert board.wake_up_ms is not None
    busy_ms = n * (latency.value + board.wake_up_ms.value)
    expected = (
        active_mw.value * busy_ms + board.sleep_power_mw.value * (total_ms - busy_ms) + 0.3 * total_ms
    ) / 1000
    assert energy.total_mj is not None
    assert energy.total_mj.value == pytest.approx(expected)
    parts = [part.value for part in energy.parts_mj.values() if part is not None]
    assert sum(parts) == pytest.approx(expected)
    assert energy.mj_per_hour is not None
    assert energy.mj_per_hour.value == pytest.approx(expected / total_ms * 3.6e6)
    period = energy_over_period(latency, board, library, supply.period(total_ms / n))
    assert energy.battery_days == battery_life_days(period, 225)


def test_skipping_saves_energy(bundle: Bundle) -> None:
    every, skipping = (
        play(bundle, streams(), device=DEVICE, engine=ENGINE, options=PlayOptions(temporal=rules)).summary
        for rules in ((), TEMPORAL["skip"])
    )
    assert every.energy is not None
    assert skipping.energy is not None
    assert every.energy.total_mj is not None
    assert skipping.energy.total_mj is not None
    assert skipping.energy.total_mj.value < every.energy.total_mj.value
    assert skipping.mean_macs < every.mean_macs


def test_unknown_powers_and_latencies_are_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    blind = load_device(DEVICE).model_copy(update={"sleep_power_mw": None, "wake_up_ms": None})
    options = PlayOptions(supply=Supply(rest="sleep", battery_mah=100))
    summary = play(bundle, streams(), device=blind, engine=ENGINE, options=options).summary
    assert summary.latency is not None
    assert summary.energy is not None
    assert (summary.energy.total_mj, summary.energy.battery_days) == (None, None)
    assert "energy unknown: nothing is known of sleep power, wake-up time" in str(summary)
    assert any("waking up" in note for note in summary.notes)
    monkeypatch.delitem(OPERATIONS, "ADD")
    unknown = play(bundle, streams(), device=DEVICE, engine=ENGINE)
    assert unknown.costs is None
    assert any("ADD" in note and "no times" in note for note in unknown.summary.notes)
    assert unknown.summary.outcomes["decided"] == len(unknown)


# --- Brown-outs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("after", [1, 2])
def test_a_brown_out_behind_any_stage_resumes_to_the_same_decision(score: str, after: int) -> None:
    bundle = policy_bundle(score)
    given_ = streams()[:1]
    runtime, estimate = opened(bundle, ENGINE), estimated(bundle, DEVICE)
    plain = play(runtime, given_, device=estimate)
    options = PlayOptions(brown_out=BrownOut(share=0.3, after=after, boot_ms=2.0))
    hit = play(runtime, given_, device=estimate, options=options)
    for name in ("exit", "label", "reported"):
        np.testing.assert_array_equal(getattr(plain.columns, name), getattr(hit.columns, name))
    resumed = hit.columns.outcome == Outcome.RESUMED
    assert resumed.any()
    assert (plain.columns.exit[resumed] > after).all()
    later_ns = (hit.columns.finish_ns - plain.columns.finish_ns)[resumed]
    assert (later_ns == 2_000_000).all()
    energies = [one.summary.energy for one in (plain, hit)]
    assert all(energy is not None and energy.total_mj is not None for energy in energies)
    extra = energies[1].parts_mj["active"].value - energies[0].parts_mj["active"].value  # type: ignore
    active_mw = hit.costs.board.power_mw(hit.costs.library)  # type: ignore[union-attr]
    assert extra == pytest.approx(resumed.sum() * 2.0 * active_mw.value / 1000)  # type: ignore[union-attr]


def test_the_runtime_that_resumes_is_a_new_one(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    suspended_by: list[Runtime] = []
    resumed_by: list[Runtime] = []
    suspend, resume = Runtime.suspend, Runtime.resume

    def spy_suspend(self: Runtime, *given_: Any) -> object:
        suspended_by.append(self)
        return suspend(self, *given_)

    def spy_resume(self: Runtime, *given_: Any) -> Decision:
        resumed_by.append(self)
        return resume(self, *given_)

    monkeypatch.setattr(Runtime, "suspend", spy_suspend)
    monkeypatch.setattr(Runtime, "resume", spy_resume)
    options = PlayOptions(brown_out=BrownOut(windows=(3, 5, 8), after=1))
    result = play(bundle, streams(), engine=ENGINE, options=options)
    assert len(suspended_by) == 6
    assert len(resumed_by) == result.summary.outcomes["resumed"] > 0
    assert not {id(one) for one in suspended_by} & {id(one) for one in resumed_by}


@pytest.mark.parametrize("after", [1, 2])
def test_a_brown_out_keeps_the_controllers_thresholds(bundle: Bundle, after: int) -> None:
    """Before it, after it, and where the window has to start anew."""
    costs = bundle.manifest.cumulative_macs
    to_the_end = BudgetController([[NEVER, NEVER], [NEVER, NEVER]], costs, costs[-1], horizon=200)
    brown_out = BrownOut(share=1.0, after=after, damaged=0.5)
    options = PlayOptions(controller=to_the_end, brown_out=brown_out)
    runtime = opened(bundle, ENGINE)
    assert (play(runtime, streams()).columns.exit < 3).any()
    hit = play(runtime, streams(), options=options).columns
    assert set(hit.exit.tolist()) == {3}
    assert set(hit.outcome.tolist()) == {Outcome.RESUMED}
    assert set(hit.again.tolist()) == {0, after}


def test_a_damaged_store_starts_the_window_anew(bundle: Bundle) -> None:
    plain = play(bundle, streams(), device=DEVICE, engine=ENGINE)
    options = PlayOptions(brown_out=BrownOut(share=1.0, after=2, damaged=1.0))
    hit = play(bundle, streams(), device=DEVICE, engine=ENGINE, options=options)
    np.testing.assert_array_equal(plain.columns.label, hit.columns.label)
    anew = hit.columns.reason == Reason.STARTED_ANEW
    np.testing.assert_array_equal(anew, plain.columns.exit == 3)
    assert hit.summary.reasons == {"started anew": int(anew.sum())}
    assert hit.summary.mean_macs > plain.summary.mean_macs
    assert hit.costs is not None
    again_ns = round(hit.costs.latencies[1].value * 1e6)
    assert ((hit.columns.finish_ns - plain.columns.finish_ns)[anew] == again_ns).all()


# --- Side by side -------------------------------------------------------------------------------------------


def test_always_full_is_what_a_bundle_without_policy_does(bundle: Bundle, slow_device: Device) -> None:
    options = PlayOptions(all_exits=True, temporal=TEMPORAL["skip_majority"])
    faulty = streams("nan=0.006")
    result = play(bundle, faulty, device=slow_device, engine=ENGINE, options=options)
    sides = compare(result, bundle)
    assert [one.name for one in sides] == ["policy", "always_full", "single_exit"]
    assert sides.policy is result
    bare = bundle.with_manifest(policy=None)
    assert_same(sides.always_full, play(bare, faulty, device=slow_device, engine=ENGINE, options=options))
    for one in sides:
        assert_every_window_ends(one)


def test_a_single_exit_decides_as_the_final_one_and_costs_less_than_all_stages(bundle: Bundle) -> None:
    result = play(bundle, streams(), device=DEVICE, engine=ENGINE, options=PlayOptions(all_exits=True))
    sides = compare(result, bundle)
    np.testing.assert_array_equal(sides.single_exit.columns.label, result.columns.final_label)
    full, single, policy = (one.summary for one in (sides.always_full, sides.single_exit, sides.policy))
    assert single.quality == full.quality
    assert single.mean_macs < full.mean_macs
    energies: list[float] = []
    for summary in (policy, single, full):
        assert summary.energy is not None
        assert summary.energy.total_mj is not None
        energies.append(summary.energy.total_mj.value)
    assert energies[1] < energies[2]
    assert sides.single_exit.costs is not None
    assert single.latency is not None
    assert single.latency.p50.value == pytest.approx(sides.single_exit.costs.latencies[0].value, abs=1e-5)


def test_a_brown_out_costs_a_single_exit_a_whole_run(bundle: Bundle) -> None:
    options = PlayOptions(all_exits=True, brown_out=BrownOut(windows=(4,), boot_ms=1.0))
    sides = compare(play(bundle, streams(), device=DEVICE, engine=ENGINE, options=options), bundle)
    single, full = sides.single_exit.columns, sides.always_full.columns
    assert (single.outcome == Outcome.RESUMED).sum() == (full.outcome == Outcome.RESUMED).sum() == 2
    assert (single.reason == Reason.STARTED_ANEW).sum() == 2 > (full.reason == Reason.STARTED_ANEW).sum() == 0
    assert sides.single_exit.costs is not None
    once = sides.single_exit.costs.latencies[0].value
    hit = single.outcome == Outcome.RESUMED
    taken_ms = (single.finish_ns - single.start_ns)[hit] / 1e6
    np.testing.assert_allclose(taken_ms, 2 * once + 1.0, atol=1e-5)


def test_without_all_exits_nothing_is_compared(bundle: Bundle) -> None:
    result = play(bundle, streams(), engine=ENGINE)
    with pytest.raises(InputError, match=r"`playback` must know the final exit.*all_exits=True"):
        compare(result, bundle)
    result = play(bundle, streams(), engine=ENGINE, options=PlayOptions(all_exits=True))
    stages = tuple(one.model_copy(update={"macs": one.macs + 1}) for one in bundle.manifest.stages)
    with pytest.raises(InputError, match="`bundle` must be the one that was played"):
        compare(result, bundle.with_manifest(stages=stages))


# --- Bad input ----------------------------------------------------------------------------------------------


class Mislabelled(Stream):
    """Labels beyond the bundle's classes."""

    def chunks(self, size: int = 4096) -> Iterator[Chunk]:
        n = 4 * SENSOR.window
        rng = np.random.default_rng(0)
        yield Chunk(
            np.arange(n), np.arange(n) / 50, rng.standard_normal((n, 3)).astype(np.float32), np.full(n, 9)
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "`batch` must be a number of windows from 1 to 65,536"),
        ({"batch": 65_537}, "`batch` must be a number of windows from 1 to 65,536"),
        ({"waiting": -1}, "`waiting` must be"),
        ({"temporal": (make_temporal("majority"), make_temporal("skip"))}, "only the first may skip"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PlayOptions(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields_", "message"),
    [
        ({}, "a `share` above 0"),
        ({"share": 0.5, "windows": (3,)}, "and not both"),
        ({"share": 1.5}, "a `share` above 0 and up to 1"),
        ({"share": 0.1, "damaged": 2.0}, "`damaged` must be a share"),
        ({"share": 0.1, "boot_ms": -1.0}, "`boot_ms` from 0 to 3,600,000"),
        ({"share": 0.1, "boot_ms": 1e300}, "`boot_ms` from 0 to 3,600,000"),
        ({"share": 0.1, "seed": -1}, "`seed` at least 0"),
    ],
)
def test_brown_outs_that_make_no_sense_are_refused(fields_: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BrownOut(**fields_)  # type: ignore[arg-type]


def test_supplies_that_make_no_sense_are_refused() -> None:
    for options in ({"rest": "nap"}, {"sensor_power_mw": -1.0}, {"battery_mah": 0.0}):
        with pytest.raises(InputError, match="Received: "):
            Supply(**options)  # type: ignore[arg-type]


def test_what_does_not_fit_the_bundle_is_refused(bundle: Bundle) -> None:
    with pytest.raises(InputError, match=r"`streams` must hold at least one stream. Received: none"):
        play(bundle, [], engine=ENGINE)
    with pytest.raises(InputError, match=r"`streams` must have the bundle's classes.*Received: a, b"):
        play(bundle, [RecordingStream(recording(), ("a", "b"))], engine=ENGINE)
    slow = replace(SENSOR, sampling_rate_hz=20.0)
    with pytest.raises(InputError, match=r"20 samples per second.*`resample=True`"):
        play(bundle, [replace(recording(), sensor=slow)], engine=ENGINE)
    with pytest.raises(
        InputError, match=r"`y` of mislabelled must hold the bundle's classes, 0 to 3.*Received: 9"
    ):
        play(bundle, [Mislabelled(SENSOR, "mislabelled")], engine=ENGINE)
    with pytest.raises(InputError, match="device"):
        play(bundle, streams(), device="toaster", engine=ENGINE)
    for after in (0, 3):
        nowhere = PlayOptions(brown_out=BrownOut(share=1.0, after=after))
        with pytest.raises(InputError, match=rf"`after` must be .* from 1 to 2.*Received: {after}"):
            play(bundle, streams(), engine=ENGINE, options=nowhere)
    two = BudgetController([[NEVER], [0]], [1000, 3000], 2000, horizon=500)
    with pytest.raises(InputError, match=r"`controller` must have one cost per exit \(3.*Received: 2 costs"):
        play(bundle, streams(), engine=ENGINE, options=PlayOptions(controller=two))


# --- On real recordings -------------------------------------------------------------------------------------


def test_the_reference_bundle_plays_as_it_executes() -> None:
    try:
        recordings = load_recordings()
    except MissingExtraError as error:
        pytest.skip(str(error))
    reference = Bundle.load(Path(__file__).parent.parent / "tflite_models" / "reference.mexit")
    (one,) = [one for one in recordings if one.name == "hapt subject 2 recording 1"]
    part = replace(one, x=one.x[:2_000], y=one.y[:2_000])
    options = PlayOptions(brown_out=BrownOut(share=0.03, boot_ms=20.0))
    played = both_ways(reference, [RecordingStream(part)], options, DEVICE, ENGINE)
    assert played.summary.outcomes["decided"] > 20


def test_windows_played_one_by_one_take_no_more_memory_than_their_rows() -> None:
    parts: list[Columns] = []
    one = play(policy_bundle(), [RecordingStream(recording(3))], engine=ENGINE).columns
    for _ in range(3 * MOST_PARTS):
        Columns.gathered(parts, one)
        assert len(parts) <= MOST_PARTS
    assert len(Columns.joined(parts)) == 3 * MOST_PARTS * len(one)


def test_what_a_stream_recorded_does_not_hang_on_what_is_known_of_its_length() -> None:
    class Unknown(RecordingStream):
        @property
        def n_samples(self) -> None:
            return None

    made = recording(9)
    known, unknown = (
        play(policy_bundle(), [kind(made)], engine=ENGINE) for kind in (RecordingStream, Unknown)
    )
    assert known.streams[0].recorded_s == pytest.approx(len(made.x) / SENSOR.sampling_rate_hz)
    assert known.streams == unknown.streams
    # A sensor whose clock is half as fast again gives more samples in the same time.
    (fast,) = [parse_fault("clock_drift=0.5")(RecordingStream(made))]
    drifting = play(policy_bundle(), [fast], engine=ENGINE)
    assert len(drifting) > len(known)
    assert drifting.streams[0].recorded_s == pytest.approx(known.streams[0].recorded_s, rel=0.02)
