"""Policies made on calibration windows: goals, costs, temperatures, gates, controllers, policy files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fixtures_networks import bundle_of, hand_whole, synthetic_windows, with_policy, with_stage

from mexit_edge.bundle import (
    Bundle,
    ControllerSpec,
    TemporalSpec,
    Training,
    load_policy,
    save_policy,
)
from mexit_edge.errors import InputError
from mexit_edge.estimate import Period
from mexit_edge.exits import NEVER, RISK_LOSSES, RISK_METHODS, budgeted_curve, search_thresholds
from mexit_edge.signals import Windows
from mexit_edge.simulate import (
    COSTS,
    Budget,
    BudgetedShares,
    Floor,
    Given,
    LeastCost,
    OnlineBudget,
    Risk,
    Scoring,
    budgeted_points,
    calibrate,
    exit_costs,
    judge,
    simulate,
)

ENGINE = "litert-reference"
DEVICE = "nucleo-l4r5zi"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return bundle_of(hand_whole(), training=Training(data="synthetic", train_subjects=(0, 1)))


@pytest.fixture(scope="module")
def windows() -> Windows:
    return synthetic_windows(600, seed=21, noise=1.5, name="elsewhere")


def policy_of(bundle: Bundle, windows: Windows, goal=None, **options):
    policy = calibrate(bundle, windows, goal, engine=ENGINE, **options).manifest.policy
    assert policy is not None
    assert policy.calibration is not None
    return policy, policy.calibration


# --- Goals --------------------------------------------------------------------------------------------------


def test_a_floor_is_the_limit_that_is_left_below_the_final_exit(bundle, windows):
    final = simulate(bundle, windows, engine=ENGINE).balanced_accuracies[-1]
    by_floor, said = policy_of(bundle, windows, Floor(final - 0.05))
    by_drop, _ = policy_of(bundle, windows, LeastCost(0.05))
    assert by_floor.thresholds_int == by_drop.thresholds_int
    assert (said.floor, said.max_drop) == (final - 0.05, None)


def test_a_budget_is_kept_and_a_larger_one_is_never_worse(bundle, windows):
    qualities = []
    for budget in (1500, 2500, 6000):
        _, said = policy_of(bundle, windows, Budget(budget))
        assert said.mean_cost <= budget
        qualities.append(said.balanced_accuracy)
    assert qualities == sorted(qualities)


def test_shares_fall_by_the_ratio(bundle, windows):
    _, said = policy_of(bundle, windows, BudgetedShares(0.5))
    first, second = (one.windows for one in said.support)
    assert first >= 600 * 4 / 7 - 1
    assert said.ratio == 0.5
    assert first + second <= 600


@pytest.mark.parametrize("method", RISK_METHODS)
@pytest.mark.parametrize("loss", RISK_LOSSES)
def test_a_controlled_risk_is_noted_and_held_on_the_windows(bundle, windows, method, loss):
    policy, said = policy_of(bundle, windows, Risk(0.1, method, loss))
    assert said.risk.level is not None
    assert said.risk.risk <= 0.1
    assert said.risk.n == 600
    # One scalar: all thresholds are the same step of logit_margin.
    assert len(set(policy.thresholds_int)) == 1


def test_by_subject_there_are_as_many_units_as_subjects(bundle, windows):
    _, said = policy_of(bundle, windows, Risk(0.5, "crc", unit="subject"))
    assert said.risk.n == len(windows.subjects)


def test_where_nothing_holds_the_risk_nothing_leaves(bundle, windows):
    policy, said = policy_of(bundle, windows, Risk(0.001, "ltt"))
    assert said.risk.level is None
    assert policy.thresholds_int == (NEVER, NEVER)
    assert said.drop == 0


def test_thresholds_by_hand_are_steps_or_the_scores_unit(bundle, windows):
    policy, said = policy_of(bundle, windows, Given({"exit_01": 7, "exit_02": 0.5}))
    scores = bundle.manifest.exit_rule().scores
    assert policy.thresholds_int == (7, scores[1].to_integer(0.5))
    assert (said.max_drop, said.floor, said.budget, said.ratio, said.risk) == (None,) * 5


@pytest.mark.parametrize(
    ("given", "received"),
    [({"exit_01": 3}, "exit_01=3"), ({}, "none"), ({"exit_01": 1, "exit_02": 1, "exit_03": 1}, "exit_03=1")],
)
def test_thresholds_of_the_wrong_number_are_refused_by_exit(bundle, windows, given, received):
    with pytest.raises(InputError, match=rf"`thresholds`.*\(2: exit_01, exit_02\).*Received: .*{received}"):
        policy_of(bundle, windows, Given(given))


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        (Budget(900), r"`budget` must be at least.*1,?000.*Received: 900"),
        (Floor(0.9999), r"`floor` must not be above.*final exit reaches"),
        (Risk(0.02, "ucp"), "Did you mean 'ucb'"),
        (Risk(0.02, loss="consistancy"), "Did you mean 'consistency'"),
        (Risk(1.2), "`eps` must be between 0 and 1"),
    ],
)
def test_a_goal_out_of_reach_says_what_is_possible(bundle, windows, goal, message):
    with pytest.raises(InputError, match=message):
        policy_of(bundle, windows, goal)


def test_goals_that_are_none_are_refused(bundle, windows):
    with pytest.raises(InputError, match="`ratio` must lie between 1/64 and 64"):
        BudgetedShares(0)
    with pytest.raises(InputError, match="`unit` must be one of: subject, window"):
        Risk(0.1, unit="person")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`max_drop` must be left out where there is a `goal`"):
        policy_of(bundle, windows, Floor(0.5), max_drop=0.1)


def test_a_set_of_one_class_is_refused(bundle, windows):
    with pytest.raises(InputError, match=r"at least two classes.*Received: \d+ windows of sit"):
        policy_of(bundle, windows.take(windows.y == 1))


def test_a_guarantee_needs_a_score_that_is_fixed_beforehand(bundle, windows):
    for scoring in (Scoring("max_prob", tempered=True), Scoring("learned")):
        with pytest.raises(InputError, match="fixed beforehand"):
            policy_of(bundle, windows, Risk(0.1), score=scoring)
    with pytest.raises(InputError, match="`tempered` must be left out with the score learned"):
        policy_of(bundle, windows, score=Scoring("learned", tempered=True))


def test_a_running_sum_is_not_summed_twice(windows):
    boosted = bundle_of(hand_whole(), training=Training(regime="boosted"))
    with pytest.raises(InputError, match=r"`score` must not be boosted.*Use 'logit_margin'"):
        policy_of(boosted, windows, score="boosted")


# --- Scores -------------------------------------------------------------------------------------------------


def test_an_exit_that_is_off_is_never_left_at(bundle, windows):
    made = calibrate(bundle, windows, max_drop=0.05, score=Scoring(off=("exit_01",)), engine=ENGINE)
    policy = made.manifest.policy
    assert policy.off == ("exit_01",)
    assert policy.thresholds_int[0] == NEVER
    result = simulate(made, windows, engine=ENGINE, allow_seen=True)
    assert set(result.exit) == {2, 3}
    assert result.policy_balanced_accuracy == pytest.approx(policy.calibration.balanced_accuracy)
    # As if the exit were not there.
    judged = judge(bundle, windows, ENGINE)
    scores, predicted = bundle.manifest.exit_rule().score(judged.logits)
    found = search_thresholds(
        scores[:, 1:2], predicted[:, 1:], windows.y, bundle.manifest.cumulative_macs[1:], 0.05
    )
    assert policy.thresholds_int[1:] == found.thresholds


def test_an_unknown_exit_cannot_be_switched_off(bundle, windows):
    with pytest.raises(InputError, match=r"`off` must be one of: exit_01, exit_02.*Received: 'exit_03'"):
        policy_of(bundle, windows, score=Scoring(off=("exit_03",)))


def test_a_temperature_brings_the_calibration_error_down(bundle, windows):
    policy, said = policy_of(bundle, windows, score=Scoring("max_prob", tempered=True))
    assert policy.temperatures == tuple(one.temperature for one in said.temperatures)
    assert len(said.temperatures) == 3
    assert sum(one.ece_after for one in said.temperatures) < sum(one.ece_before for one in said.temperatures)


def test_the_gates_thresholds_are_set_on_windows_that_the_gates_did_not_see(bundle, windows):
    made = calibrate(bundle, windows, max_drop=0.05, score="learned", engine=ENGINE)
    assert len(made.manifest.policy.gates) == 2
    result = simulate(made, windows, engine=ENGINE, allow_seen=True)
    # The gates of the policy saw all windows, and are surer of them.
    assert result.mean_macs != pytest.approx(made.manifest.policy.calibration.mean_cost, abs=1e-9)
    one = windows.take(windows.subject == windows.subjects[0])
    assert calibrate(bundle, one, max_drop=0.2, score="learned", engine=ENGINE).manifest.policy.gates


# --- Costs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", COSTS)
def test_every_cost_ascends_and_says_its_unit(bundle, cost):
    costs = exit_costs(bundle, cost, None if cost == "macs" else DEVICE)
    assert list(costs.values) == sorted(costs.values)
    assert costs.values[0] > 0
    assert cost in costs.unit


def test_energy_of_a_day_counts_the_rest_and_the_sensor(bundle):
    plain = exit_costs(bundle, "energy_mj_per_day", DEVICE).values
    period_ms = 1e3 * bundle.manifest.sensor.hop / bundle.manifest.sensor.sampling_rate_hz
    watched = exit_costs(
        bundle, "energy_mj_per_day", DEVICE, period=Period(period_ms, sensor_power_mw=2.0)
    ).values
    # 2 mW for a day are 172,800 mJ.
    assert np.subtract(watched, plain) == pytest.approx([172_800] * 3, rel=1e-6)


@pytest.mark.parametrize(
    ("cost", "device", "message"),
    [
        ("uj", DEVICE, r"`cost` must be one of: energy_mj_per_day, energy_uj, latency_ms, macs"),
        ("energy_uj", None, r"`device` must be given for the cost energy_uj"),
        ("energy_uj", "andes-d45", r"`device` must be one whose power is known"),
    ],
)
def test_a_cost_that_cannot_be_known_is_refused(bundle, cost, device, message):
    with pytest.raises(InputError, match=message):
        exit_costs(bundle, cost, device)


# --- Streams ------------------------------------------------------------------------------------------------


def test_temporal_rules_and_a_controller_go_into_the_manifest_and_come_back(bundle, windows, tmp_path: Path):
    made = calibrate(
        bundle,
        windows,
        temporal=[TemporalSpec(name="skip", options={"stable": 2, "skip": 3}), TemporalSpec(name="majority")],
        online=OnlineBudget(2000, horizon=5000),
        engine=ENGINE,
    )
    loaded = Bundle.load(made.save(tmp_path / "made"))
    policy = loaded.manifest.policy
    assert [rule.name for rule in policy.temporal_rule().rules] == ["skip", "majority"]
    controller = policy.controller.to_controller()
    assert policy.controller.budget * policy.controller.unit_cost == pytest.approx(2000, rel=1e-6)
    assert np.asarray(controller.costs) * policy.controller.unit_cost == pytest.approx(
        bundle.manifest.cumulative_macs, rel=1e-6
    )
    assert controller.deviation_bound(5000) <= 0.05 * controller.budget
    assert (controller.step, controller.start) == (policy.controller.step, policy.controller.start)


def test_small_costs_are_made_whole_numbers_without_losing_them(bundle, windows):
    costs = exit_costs(bundle, "latency_ms", DEVICE)
    budget = 0.5 * (costs.values[0] + costs.values[1])
    policy, _ = policy_of(bundle, windows, cost=costs, online=OnlineBudget(budget))
    scaled = np.asarray(policy.controller.costs) * policy.controller.unit_cost
    assert scaled == pytest.approx(costs.values, rel=1e-2)
    assert policy.controller.horizon == round(86_400 / (bundle.manifest.sensor.hop / 50))


def test_a_controller_that_contradicts_itself_is_refused(bundle, windows):
    policy, _ = policy_of(bundle, windows, online=OnlineBudget(2000, horizon=5000))
    for change in ({"step": policy.controller.step + 1}, {"highest": 5}, {"budget": 10}):
        with pytest.raises(ValueError, match="must"):
            ControllerSpec(**(policy.controller.model_dump() | change))
    off, _ = policy_of(
        bundle, windows, online=OnlineBudget(4000, horizon=5000), score=Scoring(off=("exit_01",))
    )
    assert {row[0] for row in off.controller.family} == {NEVER}
    with pytest.raises(ValueError, match="`controller` must say 2147483647 in every row"):
        bundle.with_manifest(policy=policy.model_copy(update={"off": ("exit_01",)}))


def test_a_horizon_too_long_for_32_bits_is_refused(bundle, windows):
    with pytest.raises(InputError, match=r"`horizon` must leave the cheapest exit at least 100 steps"):
        policy_of(bundle, windows, online=OnlineBudget(2000, horizon=10**10))


@pytest.mark.parametrize(
    "make",
    [lambda: Budget(float("inf")), lambda: OnlineBudget(-1.0), lambda: OnlineBudget(5.0, horizon=0)],
)
def test_what_is_not_finite_is_refused_at_once(make):
    with pytest.raises(InputError, match=r"must be (finite|at least one window)"):
        make()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, 10**12])
def test_a_threshold_beyond_32_bits_is_refused(bundle, windows, value):
    with pytest.raises(InputError, match=r"`thresholds` must lie within 32 bits.*exit_01"):
        policy_of(bundle, windows, Given({"exit_01": value, "exit_02": 1}))


def test_a_numpy_integer_is_a_step_too(bundle, windows):
    plain, _ = policy_of(bundle, windows, Given({"exit_01": 7, "exit_02": 3}))
    numpy, _ = policy_of(bundle, windows, Given({"exit_01": np.int64(7), "exit_02": np.int16(3)}))
    assert plain.thresholds_int == numpy.thresholds_int == (7, 3)


@pytest.mark.parametrize("score", ["vote", "patience"])
def test_risk_control_leaves_where_exits_can_be_compared(bundle, windows, score):
    policy, said = policy_of(bundle, windows, Risk(0.2, "ltt"), score=score)
    assert said.risk.level is not None
    assert policy.thresholds_int[0] == NEVER
    assert policy.thresholds_int[1] < NEVER


def test_rules_and_controllers_that_are_none_are_refused(bundle, windows):
    with pytest.raises(ValueError, match="majorety"):
        calibrate(bundle, windows, temporal=[TemporalSpec(name="majorety")], engine=ENGINE)
    with pytest.raises(InputError, match=r"`budget` must lie between.*least possible"):
        calibrate(bundle, windows, online=OnlineBudget(10), engine=ENGINE)


# --- The curve, and policies as files -----------------------------------------------------------------------


def test_the_curve_is_that_of_the_scores_with_exits_switched_off_left_out(bundle, windows):
    costs = exit_costs(bundle)
    judged = judge(bundle, windows, ENGINE)
    plain = budgeted_points(bundle, judged, costs)
    scores, predicted = bundle.manifest.exit_rule().score(judged.logits)
    assert plain == budgeted_curve(scores, predicted, windows.y, costs.values)
    off = calibrate(bundle, windows, score=Scoring(off=("exit_02",)), engine=ENGINE)
    for point in budgeted_points(off, judged, costs):
        assert point.thresholds[1] == NEVER
        assert point.exit_shares[1] == 0
        assert sum(point.exit_shares) == pytest.approx(1)


def test_a_policy_moves_between_bundles_of_the_same_stages_only(bundle, windows, tmp_path: Path):
    made = calibrate(bundle, windows, max_drop=0.05, engine=ENGINE)
    path = save_policy(made, tmp_path / "policy.json")
    assert load_policy(bundle, path).manifest.policy == made.manifest.policy
    other = with_stage(bundle, 1, bundle.stages[1] + bytes(16))
    with pytest.raises(InputError, match=r"`policy` must be made for this bundle's stages.*Received"):
        load_policy(other, path)
    with pytest.raises(InputError, match="`bundle` must have a policy"):
        save_policy(bundle, tmp_path / "none.json")
    with pytest.raises(InputError, match="exists"):
        save_policy(made, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "{", "must follow the schema of policies"),
        (lambda text: text.replace('"score"', '"scores"'), "did you mean 'score'"),
        (lambda text: text.replace('"stages_sha256"', '"stages"'), "did you mean 'stages_sha256'"),
    ],
)
def test_a_damaged_policy_file_is_refused(bundle, tmp_path: Path, change, message):
    path = save_policy(with_policy(bundle, "logit_margin", (5, 5)), tmp_path / "policy.json")
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=message):
        load_policy(bundle, path)
    with pytest.raises(InputError, match="`policy` must be a file"):
        load_policy(bundle, tmp_path / "missing.json")
