"""A day under the online budget controller, against thresholds set with hindsight and against fixed ones.

    python benchmarks/online_budget.py [--seeds 3] [--choose] [--out FOLDER]

A day is 24 hours at one window every 1.28 s: 67,500 windows. They are real windows of HAPT's test subjects,
drawn in stretches of consecutive windows of one subject and activity, 30 s to 5 min long, with several
wearers a day and the activities of the scenario's hours. Logits are the reference bundle's, int8, of TFLM.

The controller's family is made of the bundle's calibration subjects alone. Hindsight is the best pair of
thresholds under the same budget, searched on the very day with its labels. online_budget.csv has a row per
scenario, seed and budget; the exit code is 1 where the mean cost is more than 5 % off the budget, or the
balanced accuracy more than 1 point below hindsight.

With --choose no test window is touched: ways to make the family are compared on days of the calibration and
validation subjects, made of the one and played with the other (online_budget_families.csv).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tables

import mexit_edge as mx
from mexit_edge.exits import (
    ALWAYS,
    NEVER,
    BudgetController,
    ThresholdSearch,
    balanced_accuracy,
    decide,
    search_thresholds,
    threshold_family,
)

ROOT = Path(__file__).parents[1]
N_WINDOWS = 67_500
HOUR = N_WINDOWS / 24
STRETCH = (24, 240)
SHARES = (0.15, 0.2, 0.3)
MAX_DEVIATION, MAX_LOSS = 0.05, 0.01
# Of every family that is compared.
N_ROWS = 63

WALK, UP, DOWN, SIT, STAND, LAY = range(6)
COMMUTE = {WALK: 0.7, UP: 0.15, DOWN: 0.15}
DESK = {SIT: 0.8, STAND: 0.15, WALK: 0.05}
EXERCISE = {WALK: 0.34, UP: 0.33, DOWN: 0.33}
REST = {LAY: 0.6, SIT: 0.2, STAND: 0.2}
SHIFT = {WALK: 0.4, STAND: 0.4, UP: 0.1, DOWN: 0.1}
# Hours and the mix of activities in them.
SCENARIOS: dict[str, tuple[tuple[float, dict[int, float]], ...]] = {
    "office": (
        (7, {LAY: 1}),
        (1, COMMUTE),
        (4, DESK),
        (1, {WALK: 0.5, SIT: 0.3, UP: 0.1, DOWN: 0.1}),
        (4, DESK),
        (1, COMMUTE),
        (1, {UP: 0.5, DOWN: 0.5}),
        (3, {SIT: 0.6, LAY: 0.4}),
        (2, {LAY: 1}),
    ),
    "ward": (
        (6, {LAY: 1}),
        (1, {WALK: 1}),
        (8, SHIFT),
        (1, {SIT: 1}),
        (6, {SIT: 0.5, STAND: 0.3, LAY: 0.2}),
        (2, {LAY: 1}),
    ),
    "night_shift": (
        (8, {WALK: 0.3, STAND: 0.4, SIT: 0.2, UP: 0.05, DOWN: 0.05}),
        (1, COMMUTE),
        (8, {LAY: 1}),
        (7, {SIT: 0.5, STAND: 0.2, WALK: 0.2, UP: 0.05, DOWN: 0.05}),
    ),
    "hard_then_easy": ((12, EXERCISE), (12, REST)),
    "easy_then_hard": ((12, REST), (12, EXERCISE)),
    "relay": ((24, dict.fromkeys(range(6), 1.0)),),
}
WEARERS = {"relay": 12}
DEFAULT_WEARERS = 4


@dataclass(frozen=True)
class People:
    """Windows of some subjects with what the bundle says of them.

    Args:
        scores: (n, E - 1) integers.
        predicted: (n, E).
        y: (n,).
        subject: (n,).
        costs: MACs of a window that leaves at each exit.
    """

    scores: Any
    predicted: Any
    y: Any
    subject: Any
    costs: tuple[int, ...]

    def at(self, places: Any) -> People:
        """Return these windows, in this order."""
        chosen = (values[places] for values in (self.scores, self.predicted, self.y, self.subject))
        return People(*chosen, self.costs)

    def judged(self, exits: Any) -> tuple[float, float]:
        """Return mean cost and balanced accuracy of windows that leave at these exits, 1 to E."""
        labels = self.predicted[np.arange(len(self.y)), exits - 1]
        return float(np.asarray(self.costs)[exits - 1].mean()), balanced_accuracy(self.y, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--choose", action="store_true", help="compare families, without test windows")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    bundle = mx.Bundle.load(ROOT / "tflite_models" / "reference.mexit")
    split = mx.data.split_by_subject(mx.data.load("hapt"), test="official", seed=0)
    set_by = bundle.manifest.policy.calibration.subjects
    if tuple(split.calibration.subjects) != tuple(set_by):
        raise SystemExit(f"the split's calibration subjects are not the bundle's: {set_by}")
    calibration = known(bundle, split.calibration)
    if options.choose:
        rows = compared(calibration, known(bundle, split.validation), options.seeds)
        tables.write(options.out / "online_budget_families.csv", rows)
        print(*rows, sep="\n")
        return
    rows = played(calibration, known(bundle, split.test), options.seeds)
    tables.write(options.out / "online_budget.csv", rows)
    over = [row for row in rows if not row["within_limits"]]
    loss = np.asarray([row["loss"] for row in rows])
    following = np.asarray([row["same_cost"] - row["controller"] for row in rows])
    print(f"{len(rows)} days, {len(over)} over a limit")
    print(f"largest deviation {max(abs(row['deviation']) for row in rows):.4f} of the budget")
    print(f"loss against hindsight: mean {loss.mean():.4f}, worst {loss.max():.4f}")
    print(f"of it against the family's own row of the same cost: mean {following.mean():.4f}")
    print(*over, sep="\n")
    sys.exit(bool(over))


def known(bundle: Any, windows: Any) -> People:
    """Return what the bundle says of windows, on TFLM."""
    result = mx.simulate(bundle, windows, engine="tflm", allow_seen=True)
    costs = tuple(int(macs) for macs in result.exit_macs)
    return People(result.scores[:, : len(costs) - 1], result.predicted, result.y, windows.subject, costs)


def hindsight_of(people: People, budget: float) -> ThresholdSearch:
    """Return the best thresholds under a mean cost for these very windows, whose labels they see."""
    return search_thresholds(people.scores, people.predicted, people.y, people.costs, budget=budget)


def day(people: People, scenario: str, seed: int) -> People:
    """Return a day of windows."""
    hours, mixes = zip(*SCENARIOS[scenario], strict=True)
    ends = np.cumsum(hours) * HOUR
    rng = np.random.default_rng((seed, list(SCENARIOS).index(scenario)))
    subjects = np.unique(people.subject)
    wearers = np.resize(rng.permutation(subjects), WEARERS.get(scenario, DEFAULT_WEARERS))
    stretches: list[Any] = []
    n = 0
    while n < N_WINDOWS:
        mix = mixes[int(np.searchsorted(ends, n, side="right"))]
        shares = np.asarray(list(mix.values()))
        activity = rng.choice(list(mix), p=shares / shares.sum())
        wearer = wearers[n * len(wearers) // N_WINDOWS]
        own = np.flatnonzero((people.subject == wearer) & (people.y == activity))
        length, first = int(rng.integers(*STRETCH)), int(rng.integers(len(own)))
        stretches.append(own[(first + np.arange(length)) % len(own)])
        n += length
    return people.at(np.concatenate(stretches)[:N_WINDOWS])


def played(calibration: People, test: People, n_seeds: int) -> list[dict[str, Any]]:
    """Return a row per scenario, seed and budget."""
    costs = calibration.costs
    names = [(scenario, seed) for scenario in SCENARIOS for seed in range(n_seeds)]
    days = [day(test, scenario, seed) for scenario, seed in names]
    scores = np.stack([one.scores for one in days])
    rows = []
    for share in SHARES:
        budget = round(share * costs[-1])
        family = threshold_family(calibration.scores, costs, budget)
        controller = BudgetController(family, costs, budget, horizon=N_WINDOWS, tolerance=MAX_DEVIATION)
        streams = controller.batch(scores)
        searched = hindsight_of(calibration, budget).thresholds
        fine = threshold_family(calibration.scores, costs, budget, n_rows=255)
        for (scenario, seed), one, exits, spent in zip(
            names, days, streams.exits, streams.spent, strict=True
        ):
            mean_cost, accuracy = one.judged(exits)
            hindsight = hindsight_of(one, budget)
            along = [one.judged(decide(one.scores, row)) for row in np.unique(fine, axis=0).tolist()]
            same_cost = min(along, key=lambda point: abs(point[0] - mean_cost))
            unchanged = one.judged(decide(one.scores, family[len(family) // 2].tolist()))
            fixed = one.judged(decide(one.scores, searched))
            hourly = np.asarray([hour.mean() for hour in np.array_split(spent, 24)])
            worst = int(np.abs(hourly - budget).argmax())
            deviation, loss = mean_cost / budget - 1, hindsight.quality - accuracy
            rows.append(
                {
                    "scenario": scenario,
                    "seed": seed,
                    "budget_share": share,
                    "budget_macs": budget,
                    "mean_macs": round(mean_cost),
                    "deviation": round(deviation, 4),
                    "controller": round(accuracy, 4),
                    "hindsight": round(hindsight.quality, 4),
                    "loss": round(loss, 4),
                    "hindsight_macs": round(hindsight.mean_cost),
                    "same_cost": round(same_cost[1], 4),
                    "family_middle": round(unchanged[1], 4),
                    "family_middle_macs": round(unchanged[0]),
                    "calibrated": round(fixed[1], 4),
                    "calibrated_macs": round(fixed[0]),
                    "worst_hour": worst,
                    "worst_hour_macs": round(hourly[worst]),
                    "within_limits": abs(deviation) <= MAX_DEVIATION and loss <= MAX_LOSS,
                }
            )
            print(rows[-1], flush=True)
    return rows


def compared(one: People, other: People, n_seeds: int) -> list[dict[str, Any]]:
    """Return a row per budget and way to make a family: made of some people, played with the others."""
    names = [(scenario, seed) for scenario in SCENARIOS for seed in range(n_seeds)]
    rows = []
    for share in (0.12, *SHARES):
        budget = round(share * one.costs[-1])
        outcomes: dict[str, list[tuple[float, float]]] = {name: [] for name in FAMILIES}
        for made_of, played_with in ((one, other), (other, one)):
            days = [day(played_with, scenario, seed) for scenario, seed in names]
            best = [
                search_thresholds(d.scores, d.predicted, d.y, d.costs, budget=budget).quality for d in days
            ]
            for name, make in FAMILIES.items():
                controller = BudgetController(make(made_of, budget), one.costs, budget, horizon=N_WINDOWS)
                exits = controller.batch(np.stack([one_day.scores for one_day in days])).exits
                judged = [one_day.judged(left) for one_day, left in zip(days, exits, strict=True)]
                outcomes[name] += [
                    (cost / budget - 1, quality - accuracy)
                    for (cost, accuracy), quality in zip(judged, best, strict=True)
                ]
        for name, pairs in outcomes.items():
            deviation, loss = np.asarray(pairs).T
            rows.append(
                {
                    "family": name,
                    "budget_share": share,
                    "days": len(pairs),
                    "mean_loss": round(float(loss.mean()), 4),
                    "worst_loss": round(float(loss.max()), 4),
                    "largest_deviation": round(float(np.abs(deviation).max()), 4),
                }
            )
    return rows


def along_costs(make: Callable[[People, float], Any], people: People, budget: int) -> Any:
    """Return rows whose mean costs lie as those of `threshold_family` do, made for one mean cost each."""
    place = np.linspace(1, -1, N_ROWS)
    ends = np.where(place > 0, people.costs[-1] / budget, people.costs[0] / budget)
    rows = np.asarray([make(people, cost) for cost in budget * ends ** (place**2)], np.int64)
    rows[0], rows[-1] = NEVER, ALWAYS
    return np.minimum.accumulate(rows, axis=0)


def cheaper_than(people: People, cost: float, vectors: Any) -> Any:
    """Return the dearest of threshold vectors, strictest last, that costs at most this."""
    low, high = 0, len(vectors) - 1
    while low < high:
        middle = (low + high + 1) // 2
        spends = people.judged(decide(people.scores, vectors[middle].tolist()))[0]
        low, high = (middle, high) if spends <= cost * (1 + 1e-12) else (low, middle - 1)
    return vectors[low]


def common_threshold(people: People, budget: int) -> Any:
    """One threshold for all exits, whose units are nearly the same in the reference bundle."""
    levels = np.arange(people.scores.max() + 2)
    vectors = np.repeat(levels[:, None], people.scores.shape[1], axis=1)
    return along_costs(lambda who, cost: cheaper_than(who, cost, vectors), people, budget)


def common_quantile(people: People, budget: int) -> Any:
    """The same quantile of its own scores at each exit."""
    vectors = np.sort(people.scores, axis=0)
    return along_costs(lambda who, cost: cheaper_than(who, cost, vectors), people, budget)


def searched_ladder(people: People, budget: int) -> Any:
    """The best thresholds on labels under each mean cost."""

    def best(who: People, cost: float) -> Any:
        return hindsight_of(who, max(cost, who.costs[0])).thresholds

    return along_costs(best, people, budget)


FAMILIES: dict[str, Callable[[People, int], Any]] = {
    "shares": lambda people, budget: threshold_family(people.scores, people.costs, budget),
    "common_threshold": common_threshold,
    "common_quantile": common_quantile,
    "searched": searched_ladder,
}


if __name__ == "__main__":
    main()
