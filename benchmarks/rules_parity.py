"""Do simulated, executed and integer-by-integer decisions agree? Every rule, on every test window.

    python benchmarks/rules_parity.py --watch BUNDLE [--out FOLDER]

For HAPT (the reference bundle, official test subjects) and watch (a bundle of `mexit run --data watch`, test
subjects of the same split) every score gets a policy of calibration subjects. Then, with engine TFLM:

- simulated against executed: logits of all exits in batch and the exit rule on arrays, against
  `Runtime.infer` on one window after the other, which stops where it is sure: exits, classes and scores, and
  how often every stage was invoked;
- the integer twin against its definition: `Score.one` on plain integers against `Score.batch` on arrays, on
  the int8 logits of all these windows and on a million random int8 logit vectors per score: scores, classes
  and what is remembered from exit to exit;
- how far the integers are from the formulas in float (`float_scores`), at most, as a float and in integer
  steps; empty for `learned`, which has no formula, and where an exit is off, which the formulas do not know;
- temporal rules: whole streams at once against one window after the other, on the executed decisions of every
  subject with some lost (reports, and which windows are wanted).

Where a calibrated policy lets windows leave at one exit only, thresholds are quantiles of the calibration
scores instead, which the row says. rules_parity.csv has a row per data set and rule; any difference ends the
script with exit code 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tables
from numpy.typing import NDArray

import mexit_edge as mx
from mexit_edge.bundle import Bundle
from mexit_edge.exits import (
    NEVER,
    SCORES,
    UNDECIDED,
    Chain,
    ExitRule,
    Gate,
    Hysteresis,
    Majority,
    Score,
    Skip,
    TemporalRule,
    float_scores,
    make_scores,
)
from mexit_edge.runtime import Runtime
from mexit_edge.signals import Windows
from mexit_edge.simulate import LeastCost, Scoring, exit_costs, raw_windows
from mexit_edge.simulate.calibrate import with_policy
from mexit_edge.simulate.scored import Judged

ROOT = Path(__file__).parents[1]
ENGINE = "tflm"
RULES = {
    **{name: Scoring(name) for name in SCORES},
    "max_prob, tempered": Scoring("max_prob", tempered=True),
    "ensemble, tempered": Scoring("ensemble", tempered=True),
    "boosted, exit_01 off": Scoring("boosted", off=("exit_01",)),
    "learned, exit_02 off": Scoring("learned", off=("exit_02",)),
}
TEMPORAL: dict[str, TemporalRule] = {
    "majority": Majority(),
    "hysteresis": Hysteresis(),
    "skip": Skip(),
    "skip, majority, hysteresis": Chain((Skip(), Majority(), Hysteresis())),
}
RANDOM_NETWORKS, RANDOM_EXITS, RANDOM_WINDOWS = 10, 4, 25_000
LOST = 0.05
DISTANCES = ("distance_from_float", "distance_in_steps")
COLUMNS = (
    "data",
    "rule",
    "thresholds_of",
    "windows",
    "left_at",
    "differing_exits",
    "differing_labels",
    "differing_scores",
    "differing_invocations",
    "vectors",
    "differing_from_twin",
    *DISTANCES,
    "differing_wanted",
)

Logits = NDArray[np.int8]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Case:
    """A bundle with the windows it is calibrated and tested on, and what every exit says of them."""

    bundle: Bundle
    calibration: Windows
    test: Windows
    samples: NDArray[Any]
    calibration_logits: Logits
    logits: Logits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--watch", type=Path, required=True, help="bundle of `mexit run --data watch`")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    rows = []
    for row in all_rows(options.watch):
        row |= {name: float(f"{row[name]:.3g}") for name in DISTANCES if name in row}
        rows.append({name: row.get(name, "") for name in COLUMNS})
        print(*(f"{name}={value}" for name, value in row.items()), flush=True)
    tables.write(options.out / "rules_parity.csv", rows)
    differing = sum(int(row[name] or 0) for row in rows for name in row if name.startswith("differing_"))
    print(f"{len(rows)} rows, {differing} differences")
    return 1 if differing else 0


def all_rows(watch: Path) -> Iterator[dict[str, Any]]:
    yield from case_rows(case_of("hapt", "official", ROOT / "tflite_models" / "reference.mexit"))
    yield from case_rows(case_of("watch", None, watch))
    yield from random_rows()


def case_of(data: str, test: str | None, path: Path) -> Case:
    split = mx.data.split_by_subject(mx.data.load(data), test=test, seed=0)
    bundle = Bundle.load(path)
    runtime = Runtime(bundle, ENGINE)
    samples = raw_windows(bundle, split.test)
    return Case(
        bundle=bundle,
        calibration=split.calibration,
        test=split.test,
        samples=samples,
        calibration_logits=runtime.all_logits(raw_windows(bundle, split.calibration)),
        logits=runtime.all_logits(samples),
    )


def case_rows(case: Case) -> Iterator[dict[str, Any]]:
    labels: dict[str, Integers] = {}
    for name, scoring in RULES.items():
        bundle, thresholds_of = calibrated(case, scoring)
        rule = bundle.manifest.exit_rule()
        row, labels[name] = executed_against_simulated(case, bundle, rule)
        whole = all(rule.enabled) and scoring.score != "learned"
        yield {
            "data": case.test.name,
            "rule": name,
            "thresholds_of": thresholds_of,
            **row,
            "vectors": case.logits.shape[0] * sum(rule.enabled),
            "differing_from_twin": differing_from_twin(rule.scores, case.logits, rule.enabled),
            **(distance_from_float(rule.scores, case.logits) if whole else {}),
        }
    for name, temporal in TEMPORAL.items():
        yield {
            "data": case.test.name,
            "rule": name,
            **temporal_against_steps(temporal, labels["logit_margin"], case.test.subject),
        }


def calibrated(case: Case, scoring: Scoring) -> tuple[Bundle, str]:
    """Return the bundle with a policy under which calibration windows leave at several exits."""
    judged = Judged(case.calibration_logits, case.calibration, engine=ENGINE)
    bundle = with_policy(case.bundle, judged, LeastCost(), scoring, exit_costs(case.bundle, "macs", None))
    policy, rule = bundle.manifest.policy, bundle.manifest.exit_rule()
    assert policy is not None
    if len(np.unique(rule.decide(case.calibration_logits)[0])) > 1:
        return bundle, "calibration"
    scores, _ = rule.score(case.calibration_logits)
    thresholds = tuple(
        at_quantile(column) if is_on else NEVER
        for column, is_on in zip(scores.T[:-1], rule.enabled, strict=False)
    )
    fresh = policy.model_copy(
        update={
            "thresholds_int": thresholds,
            "thresholds": tuple(
                0.0 if threshold == NEVER else score.to_float(threshold)
                for score, threshold in zip(rule.scores, thresholds, strict=False)
            ),
            "calibration": None,
        }
    )
    return bundle.with_manifest(policy=fresh, golden=None), "quantiles"


def at_quantile(column: Integers) -> int:
    """Return a score that about half of the windows reach and some do not; `NEVER` where all are equal."""
    distinct = np.unique(column)
    return NEVER if len(distinct) == 1 else int(max(distinct[1], np.quantile(column, 0.5, method="lower")))


def executed_against_simulated(case: Case, bundle: Bundle, rule: ExitRule) -> tuple[dict[str, Any], Integers]:
    """Run every window stage by stage; return what differs, and the classes decided."""
    simulated_exit, simulated_label = rule.decide(case.logits)
    simulated_scores, _ = rule.score(case.logits)
    runtime = Runtime(bundle, ENGINE)
    decisions = [runtime.infer(window) for window in case.samples]
    exits = np.asarray([decision.exit for decision in decisions])
    labels = np.asarray([decision.label for decision in decisions])
    expected = [
        tuple(int(score) if is_on else None for score, is_on in zip(row, rule.enabled, strict=True))
        for row in simulated_scores
    ]
    pairs = zip(decisions, expected, strict=True)
    n_exits = len(rule.scores)
    # Counted where stages are invoked: each ran for the windows that came so far, and for no other.
    reached = [int((simulated_exit > place).sum()) for place in range(n_exits)]
    return {
        "windows": len(exits),
        "left_at": " / ".join(str(int((exits == number).sum())) for number in range(1, n_exits + 1)),
        "differing_exits": int((exits != simulated_exit).sum()),
        "differing_labels": int((labels != simulated_label).sum()),
        "differing_scores": sum(decision.scores != scores[: decision.exit] for decision, scores in pairs),
        "differing_invocations": sum(
            abs(ran - came) for ran, came in zip(runtime.invocations, reached, strict=True)
        ),
    }, labels


def differing_from_twin(scores: Sequence[Score], logits: Logits, enabled: Sequence[bool]) -> int:
    """Return how many logit vectors the two paths of a score disagree on: score, class, or state."""
    n_state = max(score.n_state for score in scores)
    state = np.zeros((len(logits), n_state), np.int64)
    states = [[0] * n_state for _ in logits]
    differing = 0
    for place, (score, is_on) in enumerate(zip(scores, enabled, strict=True)):
        if not is_on:
            continue
        found, labels = score.batch(logits[:, place], state)
        one_by_one = [
            (*score.one(vector, own), *own)
            for vector, own in zip(logits[:, place].tolist(), states, strict=True)
        ]
        whole = np.column_stack([found, labels, state])
        differing += int((whole != np.asarray(one_by_one)).any(axis=1).sum())
    return differing


def distance_from_float(scores: Sequence[Score], logits: Logits) -> dict[str, float]:
    """Return the largest difference of an integer score from its formula, and the largest in steps."""
    exits, state = scores[0].exits, np.zeros((len(logits), max(score.n_state for score in scores)), np.int64)
    exact = float_scores(scores[0].name, logits * np.asarray(exits.scales)[:, None])
    distances, steps = [], []
    for place, score in enumerate(scores):
        found = score.batch(logits[:, place], state)[0] * score.unit
        distances.append(float(np.abs(found - exact[:, place]).max()))
        steps.append(distances[-1] / score.unit)
    return {"distance_from_float": max(distances), "distance_in_steps": max(steps)}


def random_rows() -> Iterator[dict[str, Any]]:
    """Compare the paths of every score on random logits of random networks."""
    for name in SCORES:
        rng = np.random.default_rng(6)
        vectors, differing, distances = 0, 0, []  # type: int, int, list[dict[str, float]]
        for _ in range(RANDOM_NETWORKS):
            n_classes = int(rng.integers(2, 13))
            scales = np.exp(rng.uniform(np.log(0.01), np.log(0.5), RANDOM_EXITS)).tolist()
            gates = random_gates(rng) if name == "learned" else ()
            scores = make_scores(name, scales, n_classes, gates=gates)
            logits = random_logits(rng, n_classes)
            differing += differing_from_twin(scores, logits, (True,) * RANDOM_EXITS)
            vectors += logits.shape[0] * RANDOM_EXITS
            if name != "learned":
                distances.append(distance_from_float(scores, logits))
        yield {
            "data": "random",
            "rule": name,
            "vectors": vectors,
            "differing_from_twin": differing,
            **{key: max(one[key] for one in distances) for key in DISTANCES if distances},
        }


def random_gates(rng: np.random.Generator) -> tuple[Gate, ...]:
    """Return gates with weights of up to +-8 and a bias of up to +-4."""
    return tuple(
        Gate(tuple(rng.integers(-2048, 2049, 3 + place).tolist()), int(rng.integers(-(1 << 25), 1 << 25)))
        for place in range(RANDOM_EXITS - 1)
    )


def random_logits(rng: np.random.Generator, n_classes: int) -> Logits:
    """Return int8 logits, a window's from a range of its own: wide ones, and narrow ones full of ties."""
    shape = (RANDOM_WINDOWS, RANDOM_EXITS, n_classes)
    low = rng.integers(-128, 128, (RANDOM_WINDOWS, 1, 1))
    high = np.minimum(low + rng.choice([0, 1, 3, 20, 255], (RANDOM_WINDOWS, 1, 1)), 127)
    return rng.integers(low, high + 1, shape).astype(np.int8)


def temporal_against_steps(rule: TemporalRule, labels: Integers, subject: Integers) -> dict[str, Any]:
    """Return what differs between whole streams and single windows; some windows are lost at random."""
    lost = np.random.default_rng(0).random(len(labels)) < LOST
    labels = np.where(lost, UNDECIDED, labels)
    reports, wanted = rule.batch(labels, subject)
    stepped, wants = np.empty(len(labels), np.int64), np.empty(len(labels), bool)
    state = [0] * rule.n_state
    for place, label in enumerate(labels.tolist()):
        if place and subject[place] != subject[place - 1]:
            state = [0] * rule.n_state
        wants[place] = rule.wants(state)
        stepped[place] = rule.step(state, label)
    return {
        "windows": len(labels),
        "differing_labels": int((reports != stepped).sum()),
        "differing_wanted": int((wanted != wants).sum()),
    }


if __name__ == "__main__":
    raise SystemExit(main())
