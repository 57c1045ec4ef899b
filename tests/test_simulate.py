"""Evaluation, calibration and golden vectors, on a bundle made by hand. No TensorFlow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures_networks import (
    EACH_ENGINE,
    N_CLASSES,
    SENSOR,
    bundle_of,
    hand_whole,
    synthetic_windows,
)
from hypothesis import given
from hypothesis import strategies as st

import mexit_edge
from mexit_edge.bundle import Bundle, TensorSpec, Training
from mexit_edge.cli.tables import estimate_table, quality_facts, quality_table
from mexit_edge.errors import InputError
from mexit_edge.estimate import OPERATIONS
from mexit_edge.exits import (
    SCORES,
    balanced_accuracy,
    balanced_weights,
    decide,
    float_scores,
    make_scores,
    score_exits,
    upper_bound_of_loss,
)
from mexit_edge.runtime import Runtime, available_engines, reference_engine, verify_golden
from mexit_edge.signals import UNLABELLED, Sensor, Windows
from mexit_edge.simulate import (
    Scoring,
    Simulation,
    calibrate,
    calibrate_out_of_fold,
    make_golden,
    oracle_gap,
    quality_of,
    raw_windows,
    seen_subjects,
    simulate,
)
from mexit_edge.simulate.out_of_fold import quantize

ENGINE = "litert-reference"


def simulate_seen(bundle: Bundle, windows: Windows, **options: str) -> Simulation:
    """Look at windows that the bundle was made with, where that is not the point of the test."""
    return simulate(bundle, windows, allow_seen=True, **options)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return bundle_of(hand_whole(), training=Training(data="synthetic", train_subjects=(0, 1)))


@pytest.fixture(scope="module")
def calibration() -> Windows:
    return synthetic_windows(600, seed=21, noise=1.5, name="elsewhere")


@pytest.fixture(scope="module")
def calibrated(bundle: Bundle, calibration: Windows) -> Bundle:
    return calibrate(bundle, calibration, max_drop=0.05, engine=ENGINE)


@pytest.fixture(scope="module")
def simulation(calibrated: Bundle) -> Simulation:
    return simulate_seen(calibrated, synthetic_windows(500, seed=22, noise=1.5), engine=ENGINE)


# --- Simulation ---------------------------------------------------------------------------------------------


@EACH_ENGINE
def test_invocations_equal_the_exit_counts(calibrated: Bundle, engine: str) -> None:
    result = simulate_seen(calibrated, synthetic_windows(300, seed=22, noise=1.5), engine=engine)
    assert result.engine == engine
    assert result.invocations == tuple(int((result.exit >= number).sum()) for number in (1, 2, 3))
    assert result.invocations[0] == 300 > result.invocations[1] > 0


def test_the_run_equals_the_rule_on_its_logits(simulation: Simulation) -> None:
    scores, _ = score_exits(make_scores(simulation.score, simulation.scales, N_CLASSES), simulation.logits)
    left_at = decide(scores, simulation.thresholds_int)
    np.testing.assert_array_equal(simulation.scores, scores)
    np.testing.assert_array_equal(simulation.exit, left_at)
    rows = np.arange(len(simulation))
    np.testing.assert_array_equal(simulation.label, simulation.logits[rows, left_at - 1].argmax(axis=1))


def test_figures_of_a_simulation(simulation: Simulation) -> None:
    predicted = simulation.logits.argmax(axis=2)
    for index in range(3):
        assert simulation.accuracies[index] == np.mean(predicted[:, index] == simulation.y)
        per_class = [np.mean(predicted[simulation.y == label, index] == label) for label in range(N_CLASSES)]
        assert simulation.balanced_accuracies[index] == pytest.approx(np.mean(per_class))
    assert sum(simulation.exit_shares) == pytest.approx(1)
    # MACs from the counters: what was really computed.
    computed = sum(n * macs for n, macs in zip(simulation.invocations, simulation.stage_macs, strict=True))
    assert simulation.mean_macs == pytest.approx(computed / len(simulation))
    assert simulation.full_macs == 6000
    assert simulation.drop == pytest.approx(
        simulation.balanced_accuracies[-1] - balanced_accuracy(simulation.y, simulation.label)
    )
    interval = simulation.drop_interval
    assert interval.low <= simulation.drop <= interval.high
    assert interval.level == 0.95
    # No policy is better than the oracle.
    assert simulation.oracle_balanced_accuracy >= max(simulation.balanced_accuracies)
    assert simulation.oracle_mean_macs <= simulation.full_macs
    for number in (1, 2, 3):
        np.testing.assert_allclose(simulation.probabilities(number).sum(axis=1), 1)
        assert 0 <= simulation.calibration_error(number) <= 1


def test_tradeoff_runs_from_the_first_exit_to_the_last(simulation: Simulation) -> None:
    macs, quality = simulation.tradeoff(50)
    assert (np.diff(macs) >= 0).all()
    assert macs[-1] == simulation.full_macs
    assert quality[-1] == pytest.approx(simulation.balanced_accuracies[-1])
    assert macs[0] < simulation.full_macs / 2


def test_the_summary_says_what_was_measured_and_what_estimated(calibrated: Bundle) -> None:
    windows = synthetic_windows(60, seed=22, noise=1.5)
    plain = str(simulate_seen(calibrated, windows, engine=ENGINE))
    assert plain.startswith("60 windows of synthetic, executed on int8 stages (litert-reference)")
    assert all(name in plain for name in ("exit_01", "exit_02", "exit_03", "policy"))
    assert "stimated" not in plain
    on_device = str(simulate_seen(calibrated, windows, engine=ENGINE, device="nucleo-l4r5zi"))
    assert on_device.startswith(plain)
    assert "Estimated on nucleo-l4r5zi" in on_device


def test_an_unknown_latency_is_said_and_no_policy_is_searched_by_it(
    bundle: Bundle, calibration: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(OPERATIONS, "ADD")
    simulation = simulate(bundle, calibration, engine=ENGINE, device="nucleo-l4r5zi")
    expected = "Latency on nucleo-l4r5zi (tflm-cmsis-nn) is unknown: nothing is known of ADD."
    assert expected in str(simulation)
    assert simulation.estimate is not None
    table = estimate_table(simulation, simulation.estimate)
    assert str(table.caption).endswith("\nUnknown: nothing is known of ADD.")
    assert list(table.columns[1].cells)[1:] == ["unknown"] * 3
    facts = quality_facts(simulation, simulation.estimate)
    assert [one["estimated_latency_ms"] is None for one in facts["exits"]] == [False, True, True]
    assert any("ADD" in note for note in facts["estimate_notes"])
    assert facts["oracle_gap"] is None
    with pytest.raises(InputError, match=r"`device` must.*Received: 'nucleo-l4r5zi' and ADD\."):
        calibrate(bundle, calibration, engine=ENGINE, device="nucleo-l4r5zi")
    assert calibrate(bundle, calibration, engine=ENGINE).manifest.policy is not None


def test_the_gap_to_the_oracle_is_told_in_table_and_json(calibrated: Bundle) -> None:
    windows = synthetic_windows(300, seed=22, noise=1.5)
    simulation = simulate_seen(calibrated, windows, engine=ENGINE, device="nucleo-l4r5zi")
    gap = oracle_gap(simulation)
    assert gap is not None
    assert simulation.estimate is not None
    facts = json.loads(json.dumps(quality_facts(simulation, simulation.estimate)))["oracle_gap"]
    assert facts["sentence"] == gap.sentence
    assert facts["policy_macs"] == gap.policy_macs
    table = quality_table(simulation, None)
    assert table.caption == gap.sentence
    assert list(table.columns[0].cells)[-3:] == ["policy", "hindsight", "oracle"]
    assert list(table.columns[5].cells)[-2] == f"{gap.hindsight_macs:,.0f}"


def test_without_a_policy_everything_runs(bundle: Bundle) -> None:
    result = simulate_seen(bundle, synthetic_windows(40), engine=ENGINE)
    assert set(result.exit) == {3}
    assert result.invocations == (40, 40, 40)
    assert result.drop == 0
    assert result.thresholds_int == ()


def test_the_default_engine_stands_for_the_device(bundle: Bundle) -> None:
    assert simulate_seen(bundle, synthetic_windows(8)).engine == reference_engine()


def test_floats_are_taken_where_no_counts_are_known() -> None:
    sensor = replace(SENSOR, units_per_count=None)
    plain = bundle_of(hand_whole(), sensor=sensor)
    windows = synthetic_windows(40, sensor=sensor)
    result = simulate_seen(plain, windows, engine=ENGINE)
    np.testing.assert_array_equal(result.logits, Runtime(plain, ENGINE).all_logits(windows.x))


def test_the_room_can_be_called(bundle: Bundle) -> None:
    windows = synthetic_windows(8, name="elsewhere")
    first, second = mexit_edge.simulate(bundle, windows), simulate(bundle, windows)
    np.testing.assert_array_equal(first.logits, second.logits)


def test_quality_is_the_simulations(simulation: Simulation, calibrated: Bundle) -> None:
    quality = quality_of(simulation)
    assert quality.policy is not None
    assert (quality.data, quality.engine, quality.n_windows) == ("synthetic", ENGINE, 500)
    assert quality.subjects == (0, 1, 2, 3, 4, 5)
    assert tuple(row.accuracy for row in quality.exits) == simulation.accuracies
    assert tuple(row.balanced_accuracy for row in quality.exits) == simulation.balanced_accuracies
    assert quality.policy.mean_macs == simulation.mean_macs
    assert quality.policy.drop == simulation.drop
    assert quality.policy.exit_shares == simulation.exit_shares
    assert calibrated.with_manifest(quality=quality).manifest.quality == quality


def other_classes() -> Windows:
    windows = synthetic_windows(8)
    return replace(windows, classes=("a", "b", "c", "d"))


def other_units() -> Windows:
    return synthetic_windows(8, sensor=replace(SENSOR, units=("m/s2",) * 3))


def other_length() -> Windows:
    return synthetic_windows(8, sensor=SENSOR.with_windowing(16, 8))


def other_rate() -> Windows:
    return synthetic_windows(8, sensor=replace(SENSOR, sampling_rate_hz=2 * SENSOR.sampling_rate_hz))


def partly_unlabelled() -> Windows:
    windows = synthetic_windows(8, name="elsewhere")
    return replace(windows, y=np.where(np.arange(8) < 3, UNLABELLED, windows.y))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (other_classes, r"bundle's classes \(lie, sit, stand, walk\). Received: a, b, c, d"),
        (other_units, "bundle's `units`"),
        (other_length, "bundle's `window`"),
        (other_rate, "bundle's `sampling_rate_hz`"),
        (lambda: synthetic_windows(8, sensor=Sensor.plain(3, 32)), "bundle's `channels`"),
        (lambda: synthetic_windows(8).take(np.zeros(0, int)), "at least one window"),
        (partly_unlabelled, r"labelled .*Received: 3 of 8 .*\(-1\).* `windows\.take\(windows\.labelled\)`"),
    ],
    ids=["classes", "units", "length", "rate", "channels", "empty", "unlabelled"],
)
@pytest.mark.parametrize("verb", [simulate, calibrate, make_golden])
def test_windows_that_do_not_fit_are_refused(
    bundle: Bundle, verb: object, make: object, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        verb(bundle, make())


def test_unknown_names_are_refused(bundle: Bundle) -> None:
    windows = synthetic_windows(8, name="elsewhere")
    with pytest.raises(InputError, match="Did you mean 'litert-reference'"):
        simulate_seen(bundle, windows, engine="litert-referense")
    with pytest.raises(InputError, match="`score` must be one of"):
        calibrate(bundle, windows, score="softness")
    with pytest.raises(InputError, match="`device` must"):
        calibrate(bundle, windows, device="nucleo-l4r5zj")
    with pytest.raises(InputError, match="`max_drop` must be a share"):
        calibrate(bundle, windows, max_drop=1.5)


# --- Calibration --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", list(SCORES))
@pytest.mark.parametrize("max_drop", [0.01, 0.05, 0.2])
def test_the_limit_holds_on_the_calibration_windows(
    bundle: Bundle, calibration: Windows, score: str, max_drop: float
) -> None:
    made = calibrate(bundle, calibration, max_drop=max_drop, score=score, engine=ENGINE)
    policy = made.manifest.policy
    assert policy is not None
    assert policy.calibration is not None
    assert policy.score == score
    assert policy.calibration.drop_upper <= max_drop
    # Once more by running it.
    result = simulate_seen(made, calibration, engine=ENGINE)
    if score != "learned":  # Its gates are judged on windows that they were not fitted on.
        assert result.drop == pytest.approx(policy.calibration.drop)
        assert result.policy_balanced_accuracy == pytest.approx(policy.calibration.balanced_accuracy)
        assert result.mean_macs == pytest.approx(policy.calibration.mean_cost)
    assert result.drop <= max_drop
    units = [one.unit for one in made.manifest.exit_rule().scores]
    for real, integer, unit in zip(policy.thresholds, policy.thresholds_int, units, strict=False):
        assert real == pytest.approx(integer * unit)


def test_a_wider_limit_never_costs_more(bundle: Bundle, calibration: Windows) -> None:
    macs = [
        simulate_seen(
            calibrate(bundle, calibration, max_drop=limit, engine=ENGINE), calibration, engine=ENGINE
        ).mean_macs
        for limit in (0.0, 0.02, 0.1, 1.0)
    ]
    assert macs == sorted(macs, reverse=True)
    assert macs[0] == 6000, "no loss allowed: nothing can be proven, everything runs to the end"
    assert macs[-1] == 1000, "any loss allowed: everything leaves at once"


def test_never_leaving_is_a_threshold_above_every_score(bundle: Bundle, calibration: Windows) -> None:
    made = calibrate(bundle, calibration, max_drop=0.0, engine=ENGINE)
    result = simulate_seen(made, calibration, engine=ENGINE)
    assert set(result.exit) == {3}
    assert result.drop == 0
    assert made.manifest.policy is not None
    assert made.manifest.policy.calibration is not None
    assert made.manifest.policy.calibration.drop_upper == 0


def test_no_cheaper_thresholds_exist(bundle: Bundle) -> None:
    # Exhaustive: every cheaper pair of thresholds breaks the limit, by the bound and the loss of the search.
    limit = 0.1
    windows = synthetic_windows(160, seed=30, noise=1.5, name="elsewhere")
    made = calibrate(bundle, windows, max_drop=limit, engine=ENGINE)
    assert made.manifest.policy is not None
    assert made.manifest.policy.calibration is not None
    assert made.manifest.policy.calibration.exact
    result = simulate_seen(made, windows, engine=ENGINE)
    weights = balanced_weights(windows.y)
    right = result.predicted == windows.y[:, None]
    # What the final exit gets right and an earlier one does not; gains earn nothing.
    loss = weights[:, None] * (right[:, -1:] & ~right)
    rows = np.arange(len(windows))
    cheaper = 0
    for first in np.unique(result.scores[:, 0]):
        for second in np.unique(result.scores[:, 1]):
            left_at = decide(result.scores, (int(first), int(second)))
            if result.exit_macs[left_at - 1].mean() >= result.mean_macs - 1e-9:
                continue
            lost = loss[rows, left_at - 1]
            assert upper_bound_of_loss(lost.sum(), (lost**2).sum(), len(lost), weights.max()) > limit
            cheaper += 1
    assert cheaper > 10


@pytest.mark.parametrize("subjects", [(0,), (1, 5)])
def test_subjects_of_training_are_refused(bundle: Bundle, subjects: tuple[int, ...]) -> None:
    windows = synthetic_windows(120).of_subjects(subjects)
    seen = sorted(set(subjects) & {0, 1})
    with pytest.raises(
        InputError, match=rf"new to the bundle.* Received: {', '.join(map(str, seen))} of synthetic"
    ):
        calibrate(bundle, windows)


def test_subjects_of_validation_are_refused() -> None:
    made = bundle_of(hand_whole(), training=Training(data="synthetic", validation_subjects=(4,)))
    with pytest.raises(InputError, match="Received: 4 of synthetic, from its validation set"):
        calibrate(made, synthetic_windows(60))
    assert calibrate(made, synthetic_windows(60).of_subjects([2, 3]), engine=ENGINE).manifest.policy


def test_the_same_numbers_in_another_data_set_are_other_people(bundle: Bundle) -> None:
    assert calibrate(bundle, synthetic_windows(60, name="elsewhere"), engine=ENGINE).manifest.policy


def test_what_is_left_without_the_unlabelled_windows_is_taken(bundle: Bundle) -> None:
    windows = partly_unlabelled()
    labelled = windows.take(windows.labelled)
    result = simulate(bundle, labelled, engine=ENGINE)
    np.testing.assert_array_equal(result.y, windows.y[3:])
    made = calibrate(bundle, labelled, engine=ENGINE)
    assert made.manifest.policy.calibration.n_windows == 5
    assert len(make_golden(made, labelled).golden.windows) == 5


def test_costs_are_macs_or_the_devices_time(bundle: Bundle, calibration: Windows) -> None:
    by_macs = calibrate(bundle, calibration, engine=ENGINE).manifest.policy
    by_time = calibrate(bundle, calibration, device="nucleo-l4r5zi", engine=ENGINE).manifest.policy
    assert by_macs is not None
    assert by_time is not None
    assert by_macs.calibration is not None
    assert by_time.calibration is not None
    assert by_macs.calibration.cost == "macs"
    assert by_time.calibration.cost.startswith("estimated_latency_ms on nucleo-l4r5zi")
    assert by_macs.calibration.engine == ENGINE
    assert by_macs.calibration.subjects == calibration.subjects


def test_calibration_leaves_the_stages_and_drops_old_golden_vectors(
    calibrated: Bundle, calibration: Windows
) -> None:
    golden = make_golden(calibrated, calibration, 8)
    assert golden.golden is not None
    again = calibrate(golden, calibration, max_drop=0.2, engine=ENGINE)
    assert again.stages == calibrated.stages
    assert again.golden is None
    assert again.manifest.golden is None


def test_one_exit_needs_no_thresholds() -> None:
    from mexit_edge.tflite import Graph

    alone = bundle_of(hand_whole(), exits=["exit_01"])
    assert len(Graph(alone.stages[0]).outputs) == 1
    made = calibrate(alone, synthetic_windows(40), engine=ENGINE)
    assert made.manifest.policy is not None
    assert made.manifest.policy.thresholds_int == ()
    result = simulate_seen(made, synthetic_windows(40), engine=ENGINE)
    assert set(result.exit) == {1}
    macs, quality = result.tradeoff()
    assert macs.tolist() == [1000.0]
    assert quality.tolist() == list(result.balanced_accuracies)


# --- Golden vectors -----------------------------------------------------------------------------------------


def test_golden_vectors_hold_every_exit_and_verify(calibrated: Bundle, calibration: Windows) -> None:
    made = make_golden(calibrated, calibration, 30)
    golden = made.golden
    assert golden is not None
    assert golden.windows.dtype == np.int16
    assert set(golden.exits) == set(available_engines())
    assert set(golden.exits[golden.reference]) == {1, 2, 3}
    assert set(golden.tensors) == {"window"} | {
        tensor.name for stage in made.manifest.stages for tensor in stage.outputs
    }
    for engine in available_engines():
        assert verify_golden(made, engine)[1] == 0
    rows, _ = verify_golden(made, golden.reference)
    assert [row.differing_elements for row in rows] == [0, 0, 0]


def test_golden_vectors_are_the_same_every_time(calibrated: Bundle, calibration: Windows) -> None:
    first, second = (make_golden(calibrated, calibration, 12).golden for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.to_bytes() == second.to_bytes()
    assert len(make_golden(calibrated, synthetic_windows(5), 12).golden.windows) == 5


@pytest.mark.parametrize("name", ["training", "validation", "calibration"])
def test_a_test_on_seen_subjects_is_refused_unless_asked_for(bundle: Bundle, name: str) -> None:
    windows = synthetic_windows(90)
    made = bundle_of(
        hand_whole(),
        training=Training(
            data="synthetic",
            train_subjects=(0,) if name == "training" else (),
            validation_subjects=(0,) if name == "validation" else (),
        ),
    )
    if name == "calibration":
        made = calibrate(made, windows.of_subjects([0]), engine=ENGINE)
    assert seen_subjects(made.manifest, "synthetic") == {name: (0,)}
    assert seen_subjects(made.manifest, "another") == {}
    with pytest.raises(InputError, match=f"Received: 0 of synthetic, from its {name} set"):
        simulate(made, windows, engine=ENGINE)
    assert len(simulate(made, windows, engine=ENGINE, allow_seen=True)) == 90
    assert len(simulate(made, windows.of_subjects([1, 2]), engine=ENGINE)) > 0


def test_counts_are_the_bundles_whatever_the_windows_were_counted_in() -> None:
    grid = replace(SENSOR, units_per_count=(1 / 4096,) * SENSOR.n_channels)
    coarse = replace(SENSOR, units_per_count=(1 / 256,) * SENSOR.n_channels)
    made = bundle_of(hand_whole(), sensor=grid)
    windows = synthetic_windows(40, sensor=grid)
    same = replace(windows, sensor=coarse)
    np.testing.assert_array_equal(raw_windows(made, same), raw_windows(made, windows))
    unknown = replace(windows, sensor=SENSOR)
    np.testing.assert_array_equal(raw_windows(made, unknown), raw_windows(made, windows))


def test_without_a_policy_nothing_is_said_of_one(bundle: Bundle) -> None:
    result = simulate_seen(bundle, synthetic_windows(60), engine=ENGINE)
    assert not result.has_policy
    assert quality_of(result).policy is None
    assert "There is no policy" in str(result)


def test_the_interval_of_one_subject_is_unknown(calibrated: Bundle) -> None:
    result = simulate_seen(calibrated, synthetic_windows(60).of_subjects([3]), engine=ENGINE)
    assert result.drop_interval is None
    assert "interval unknown" in result.drop_sentence
    policy = quality_of(result).policy
    assert policy is not None
    assert policy.drop_low is policy.drop_high is policy.drop_level is None


def test_a_path_is_as_good_as_a_bundle(calibrated: Bundle, tmp_path: Path) -> None:
    windows = synthetic_windows(30)
    path = calibrated.save(tmp_path / "made")
    from_path = simulate(path, windows, engine=ENGINE, allow_seen=True)
    np.testing.assert_array_equal(from_path.label, simulate_seen(calibrated, windows, engine=ENGINE).label)


# --- Out-of-fold calibration --------------------------------------------------------------------------------

EVERYONE = Training(data="elsewhere", train_subjects=(0, 1, 2, 3, 4, 5))


def float_logits(bundle: Bundle, windows: Windows) -> np.ndarray:
    """What a float network would give whose logits lie exactly on the bundle's int8 steps."""
    hand = bundle_of(hand_whole())
    logits = Runtime(hand, ENGINE).all_logits(raw_windows(hand, windows)).astype(np.float32)
    for index, stage in enumerate(bundle.manifest.stages):
        tensor = stage.outputs[0]
        logits[:, index] = (logits[:, index] - tensor.zero_point) * tensor.scale
    return logits


@pytest.fixture(scope="module")
def refitted() -> Bundle:
    return bundle_of(hand_whole(), training=EVERYONE)


def with_steps(bundle: Bundle, scales: tuple[float, ...], zero_points: tuple[int, ...]) -> Bundle:
    """The bundle with other steps of its logits; no engine would open it."""
    stages = []
    for stage, scale, zero_point in zip(bundle.manifest.stages, scales, zero_points, strict=True):
        logits = stage.outputs[0].model_copy(update={"scale": scale, "zero_point": zero_point})
        stages.append(stage.model_copy(update={"outputs": (logits, *stage.outputs[1:])}))
    return bundle.with_manifest(stages=tuple(stages))


@pytest.mark.parametrize("device", [None, "nucleo-l4r5zi"])
@pytest.mark.parametrize("score", list(SCORES))
def test_out_of_fold_equals_calibrate_on_the_same_int8_logits(
    bundle: Bundle, refitted: Bundle, calibration: Windows, score: str, device: str | None
) -> None:
    options = {"max_drop": 0.1, "score": score, "device": device}
    held_out = calibrate(bundle, calibration, engine=ENGINE, **options).manifest.policy
    made = calibrate_out_of_fold(
        refitted, float_logits(refitted, calibration), calibration, folds=3, **options
    )
    policy = made.manifest.policy
    assert policy is not None
    assert policy.thresholds_int == held_out.thresholds_int
    # Some windows leave early: else any search would agree.
    assert simulate_seen(bundle.with_manifest(policy=policy), calibration, engine=ENGINE).exit.min() < 3
    assert (policy.calibration.kind, policy.calibration.folds, policy.calibration.engine) == (
        "out_of_fold",
        3,
        None,
    )
    changes = {"kind": "held_out", "folds": None, "engine": ENGINE}
    assert (
        policy.model_copy(update={"calibration": policy.calibration.model_copy(update=changes)}) == held_out
    )


def test_out_of_fold_every_exit_has_its_own_steps(refitted: Bundle, calibration: Windows) -> None:
    plain = calibrate_out_of_fold(
        refitted, float_logits(refitted, calibration), calibration, folds=3, max_drop=0.1
    ).manifest.policy
    other = with_steps(refitted, (0.5, 0.02, 0.1), (-9, 40, 127))
    policy = calibrate_out_of_fold(
        other, float_logits(other, calibration), calibration, folds=3, max_drop=0.1
    ).manifest.policy
    assert policy.thresholds_int == plain.thresholds_int
    assert policy.thresholds == pytest.approx([0.5 * plain.thresholds_int[0], 0.02 * plain.thresholds_int[1]])


def test_out_of_fold_thresholds_follow_the_logits_not_the_bundle(
    refitted: Bundle, calibration: Windows
) -> None:
    logits = float_logits(refitted, calibration)
    sure = np.repeat(logits[:, -1:], 3, axis=1)
    calibrated = calibrate_out_of_fold(refitted, logits, calibration, folds=3, max_drop=0.05)
    # A first exit that agrees with the final one everywhere loses nothing: every window may leave there.
    eager = calibrate_out_of_fold(refitted, sure, calibration, folds=3, max_drop=0.05)
    assert eager.manifest.policy.calibration.drop == 0
    steps = np.sort(quantize(sure[:, 0], refitted.manifest.stages[0].outputs[0]).astype(int), axis=1)
    assert eager.manifest.policy.thresholds_int[0] == min(steps[:, -1] - steps[:, -2])
    assert calibrated.manifest.policy.thresholds_int[0] > eager.manifest.policy.thresholds_int[0]


def test_out_of_fold_drops_old_golden_vectors_and_keeps_the_stages(
    refitted: Bundle, calibration: Windows
) -> None:
    golden = make_golden(refitted, calibration, 8)
    made = calibrate_out_of_fold(golden, float_logits(refitted, calibration), calibration, folds=2)
    assert made.stages == refitted.stages
    assert made.golden is made.manifest.golden is None


def test_out_of_fold_subjects_are_no_test(refitted: Bundle, calibration: Windows) -> None:
    some = calibration.of_subjects([0, 1, 2])
    made = calibrate_out_of_fold(refitted, float_logits(refitted, some), some, folds=3)
    assert seen_subjects(made.manifest, "elsewhere") == {
        "training": (0, 1, 2, 3, 4, 5),
        "calibration": (0, 1, 2),
    }
    with pytest.raises(InputError, match="Received: 2 of elsewhere, from its training set"):
        simulate(made, calibration.of_subjects([2]), engine=ENGINE)
    with pytest.raises(InputError, match="from its training set"):
        calibrate(made, calibration.of_subjects([4]), engine=ENGINE)


@pytest.mark.parametrize(
    ("training", "received"),
    [
        (Training(data="elsewhere", train_subjects=(0, 1, 2, 4)), "3, 5 of elsewhere, .* on 0, 1, 2, 4"),
        (Training(data="elsewhere", validation_subjects=(0,)), "0, 1, 2, 3, 4, 5 .* on nobody"),
        (Training(data="another", train_subjects=(0, 1, 2, 3, 4, 5)), "of elsewhere, .* on nobody"),
        (Training(), "on nobody"),
    ],
    ids=["some", "validation", "another data set", "unknown"],
)
def test_out_of_fold_windows_of_strangers_are_refused(
    refitted: Bundle, calibration: Windows, training: Training, received: str
) -> None:
    with pytest.raises(InputError, match=f"bundle's training subjects.*Received: .*{received}"):
        calibrate_out_of_fold(
            refitted.with_manifest(training=training),
            float_logits(refitted, calibration),
            calibration,
            folds=2,
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: logits[:-1], r"shape \(600, 3, 4\): .* Received: float32 of shape \(599, 3, 4\)"),
        (lambda logits: logits[:, :2], r"Received: float32 of shape \(600, 2, 4\)"),
        (lambda logits: logits[:, 0], r"Received: float32 of shape \(600, 4\)"),
        (lambda logits: logits.astype(np.int8), r"float array .* Received: int8 of shape \(600, 3, 4\)"),
        (lambda logits: logits.tolist(), "float array .* Received: list"),
        (lambda logits: np.where(logits == logits[7, 1, 2], np.nan, logits), "finite. Received: nan at"),
        (lambda logits: np.where(logits == logits.max(), np.inf, logits), "finite. Received: inf at"),
    ],
    ids=["windows", "exits", "one exit", "int8", "list", "nan", "inf"],
)
def test_out_of_fold_logits_that_do_not_fit_are_refused(
    refitted: Bundle, calibration: Windows, change: object, message: str
) -> None:
    with pytest.raises(InputError, match=f"`logits` must be .*{message}"):
        calibrate_out_of_fold(refitted, change(float_logits(refitted, calibration)), calibration, folds=2)


@pytest.mark.parametrize("folds", [1, 0, -3, 7, True, 2.0, None])
def test_out_of_fold_needs_two_folds_and_a_subject_for_each(
    refitted: Bundle, calibration: Windows, folds: object
) -> None:
    with pytest.raises(InputError, match=rf"from 2 to one per training subject \(6\). Received: {folds}"):
        calibrate_out_of_fold(refitted, float_logits(refitted, calibration), calibration, folds=folds)


def test_out_of_fold_refuses_what_calibrate_refuses(refitted: Bundle, calibration: Windows) -> None:
    logits = float_logits(refitted, calibration)
    for options, message in (
        ({"score": "softness"}, "`score` must be one of"),
        ({"max_drop": 1.5}, "`max_drop` must be a share"),
        ({"device": "nucleo-l4r5zj"}, "`device` must"),
    ):
        with pytest.raises(InputError, match=message):
            calibrate_out_of_fold(refitted, logits, calibration, folds=np.int64(6), **options)
    with pytest.raises(InputError, match="bundle's classes"):
        calibrate_out_of_fold(refitted, logits, replace(calibration, classes=("a", "b", "c", "d")), folds=2)


SCALES = st.floats(1e-3, 1.0)
ZERO_POINTS = st.integers(-128, 127)
ROWS = st.lists(
    st.lists(st.floats(-200, 200, width=32), min_size=N_CLASSES, max_size=N_CLASSES), min_size=2, max_size=12
)


def logits_tensor(scale: float, zero_point: int) -> TensorSpec:
    return TensorSpec(name="logits", shape=(1, N_CLASSES), scale=scale, zero_point=zero_point)


@given(scale=SCALES, zero_point=ZERO_POINTS)
def test_quantizing_gives_back_every_int8(scale: float, zero_point: int) -> None:
    steps = np.arange(-128, 128)
    values = ((steps - zero_point) * np.float32(scale)).astype(np.float32)
    np.testing.assert_array_equal(
        quantize(values, logits_tensor(float(np.float32(scale)), zero_point)), steps
    )


@given(rows=ROWS, scale=SCALES, zero_point=ZERO_POINTS)
def test_quantizing_is_monotone_and_moves_a_margin_by_at_most_a_step(
    rows: list[list[float]], scale: float, zero_point: int
) -> None:
    values = np.asarray(rows, np.float32)
    steps = quantize(values, logits_tensor(scale, zero_point))
    assert (np.diff(steps.ravel()[np.argsort(values.ravel(), kind="stable")].astype(int)) >= 0).all()
    margin = float_scores("logit_margin", values[:, None])[:, 0] / scale
    integer, _ = make_scores("logit_margin", [scale], N_CLASSES)[0].batch(steps, np.empty((len(steps), 0)))
    # The tolerance is that of float division. Saturation takes from a margin and never adds to it.
    assert (integer <= margin + 1 + 1e-6).all()
    inside = (np.abs(values / scale + zero_point) < 127).all(axis=1)
    assert (np.abs(integer - margin)[inside] <= 1 + 1e-6).all()
    # So a window that is surer by two steps is never taken for a less sure one.
    surer = (margin[:, None] - margin[None, :] > 2 + 1e-6) & inside[:, None]
    assert (integer[:, None] >= integer[None, :])[surer].all()


def test_quantizing_saturates_and_rounds_half_to_even() -> None:
    values = np.array([[-3e38, 3e38, 0.25, 0.75], [-0.25, -0.75, 1.0, -70.0]], np.float32)
    steps = quantize(values, logits_tensor(0.5, -4))
    assert steps.tolist() == [[-128, 127, -4, -2], [-4, -6, -2, -128]]
    assert quantize(np.array([1e308]), logits_tensor(1e-3, 0)).tolist() == [127]


def test_the_curve_leaves_at_no_exit_that_is_switched_off(bundle: Bundle, calibration: Windows) -> None:
    for off, cheapest in ((("exit_01",), 3000), (("exit_01", "exit_02"), 6000)):
        made = calibrate(bundle, calibration, score=Scoring(off=off), engine=ENGINE)
        macs, quality = simulate_seen(made, calibration, engine=ENGINE).tradeoff(20)
        assert macs[0] == cheapest
        assert len(macs) == len(quality)
