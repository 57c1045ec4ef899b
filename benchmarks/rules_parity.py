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
  subject with some lost (reports, and which windows are wanted);
- `play` as it is against `play` with every stage invoked one by one, on the whole recordings of the test
  subjects with the times of a device: every score, then temporal rules, the budget controller, a clock too
  slow for the hop, brown-outs and faults, one at a time and all together.

Where a calibrated policy lets windows leave at one exit only, thresholds are quantiles of the calibration
scores instead, which the row says. rules_parity.csv has a row per data set and rule; `played` says how
recordings were played, and is empty where windows were not. Any difference ends the script with exit code 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import tables
from numpy.typing import NDArray

import mexit_edge as mx
from mexit_edge.bundle import Bundle
from mexit_edge.data import dataset
from mexit_edge.estimate import Device, load_device
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
from mexit_edge.signals import RecordingStream, Stream, Windows, apply_faults, parse_fault
from mexit_edge.simulate import (
    BrownOut,
    Columns,
    LeastCost,
    OnlineBudget,
    Outcome,
    PlayOptions,
    Scoring,
    exit_costs,
    play,
    raw_windows,
)
from mexit_edge.simulate.calibrate import with_policy
from mexit_edge.simulate.scored import Judged

ROOT = Path(__file__).parents[1]
ENGINE = "tflm"
DEVICE = "nucleo-l4r5zi"
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
# What a playback says of a window, but for `OTHER`, which is all the rest.
PLAYED = {
    "differing_exits": ("exit",),
    "differing_labels": ("label",),
    "differing_reports": ("reported",),
    "differing_outcomes": ("outcome", "reason", "again"),
    "differing_times": ("ready_ns", "start_ns", "finish_ns"),
}
OTHER = "differing_otherwise"
COLUMNS = (
    "data",
    "rule",
    "played",
    "thresholds_of",
    "windows",
    "left_at",
    "outcomes",
    *PLAYED,
    OTHER,
    "differing_scores",
    "differing_invocations",
    "vectors",
    "differing_from_twin",
    *DISTANCES,
    "differing_wanted",
)

Logits = NDArray[np.int8]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Way:
    """How recordings are played.

    Args:
        options: of `play`.
        faults: done to every recording, as text.
        controlled: whether a controller holds a mean cost, a fifth of the way from first exit to last.
        clock: of the device, as a share of its own.
    """

    options: PlayOptions = field(default_factory=PlayOptions)
    faults: tuple[str, ...] = ()
    controlled: bool = False
    clock: float = 1.0


BATCH = 20  # so that batches end inside every recording
SLOW_CLOCK = 1 / 40  # the last exit takes longer than a hop of either data set, the first one does not
BROWN_OUT = BrownOut(share=0.1, boot_ms=20.0, damaged=0.3)
# Bursts are longer than what is filled, and samples come more than a window late.
FAULTS = {
    "dropped": "dropped=0.5%,burst=8",
    "nan": "nan=0.05%",
    "late": "late=0.5%,delay_ms=3000",
}
WAYS = {
    "majority": Way(options=PlayOptions(temporal=(Majority(),))),
    "skip, hysteresis": Way(options=PlayOptions(temporal=(Skip(), Hysteresis()))),
    "budget controller": Way(controlled=True),
    "slow clock": Way(clock=SLOW_CLOCK),
    "brown-out": Way(options=PlayOptions(brown_out=BROWN_OUT)),
    **{name: Way(faults=(fault,)) for name, fault in FAULTS.items()},
    "all of these": Way(
        options=PlayOptions(temporal=(Skip(), Majority(), Hysteresis()), brown_out=BROWN_OUT, all_exits=True),
        faults=tuple(FAULTS.values()),
        controlled=True,
        clock=SLOW_CLOCK,
    ),
}


@dataclass(frozen=True, eq=False)
class Case:
    """A bundle with the windows it is calibrated and tested on, and what every exit says of them.

    The streams are the whole recordings of the subjects whose windows it is tested on.
    """

    bundle: Bundle
    calibration: Windows
    test: Windows
    samples: NDArray[Any]
    calibration_logits: Logits
    logits: Logits
    streams: tuple[Stream, ...]

    @property
    def judged(self) -> Judged:
        """The windows that policies are made from."""
        return Judged(self.calibration_logits, self.calibration, engine=ENGINE)


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
    yield from case_rows(case_of("hapt", ROOT / "tflite_models" / "reference.mexit"))
    yield from case_rows(case_of("watch", watch))
    yield from random_rows()


def case_of(data: str, path: Path) -> Case:
    entry = dataset(data)
    split = mx.data.split_by_subject(mx.data.load(data), test=entry.standard_test, seed=0)
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
        streams=tuple(
            RecordingStream(recording, entry.classes)
            for recording in entry.load_recordings()
            if recording.subject in split.test.subjects
        ),
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
    for name in SCORES:
        yield played_row(case, RULES[name], "as recorded", Way())
    for played, way in WAYS.items():
        yield played_row(case, RULES["logit_margin"], played, way)


def calibrated(case: Case, scoring: Scoring) -> tuple[Bundle, str]:
    """Return the bundle with a policy under which calibration windows leave at several exits."""
    costs = exit_costs(case.bundle, "macs", None)
    bundle = with_policy(case.bundle, case.judged, LeastCost(), scoring, costs)
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


def played_row(case: Case, scoring: Scoring, played: str, way: Way) -> dict[str, Any]:
    """Play all recordings the fast way and the executed one; return in how many windows they differ."""
    bundle, thresholds_of = calibrated(case, scoring)
    if way.controlled:
        costs = exit_costs(case.bundle, "macs", None)
        macs = case.bundle.manifest.cumulative_macs
        online = OnlineBudget(macs[0] + (macs[-1] - macs[0]) / 5, horizon=200)
        bundle = with_policy(case.bundle, case.judged, LeastCost(), scoring, costs, online=online)
        thresholds_of = "controller"
    faults = [parse_fault(fault) for fault in way.faults]
    streams = [apply_faults(stream, faults) for stream in case.streams]
    device = at_clock(way.clock)
    fast, executed = (
        play(bundle, streams, device=device, engine=ENGINE, options=options).columns
        for options in (replace(way.options, batch=BATCH), replace(way.options, executed=True))
    )
    known = {name for names in PLAYED.values() for name in names}
    compared = {**PLAYED, OTHER: tuple(one.name for one in fields(Columns) if one.name not in known)}
    return {
        "data": case.test.name,
        "rule": scoring.score,
        "played": played,
        "thresholds_of": thresholds_of,
        "windows": len(executed),
        "left_at": " / ".join(
            str(int((executed.exit == number).sum())) for number in range(1, len(bundle.manifest.exits) + 1)
        ),
        "outcomes": ", ".join(
            f"{n} {one.word}" for one in Outcome if (n := int((executed.outcome == one).sum()))
        ),
        **{column: differing_windows(fast, executed, names) for column, names in compared.items()},
    }


def at_clock(share: float) -> Device:
    """Return the device at a share of its clock."""
    device = load_device(DEVICE)
    clock = device.clock_mhz
    return device.model_copy(update={"clock_mhz": clock.model_copy(update={"value": clock.value * share})})


def differing_windows(one: Columns, other: Columns, names: Sequence[str]) -> int:
    """Return how many windows differ in any of these; a window that only one of them has differs, too."""
    both = min(len(one), len(other))
    differing = np.zeros(max(len(one), len(other)), bool)
    differing[both:] = True
    for name in names:
        differing[:both] |= getattr(one, name)[:both] != getattr(other, name)[:both]
    return int(differing.sum())


if __name__ == "__main__":
    raise SystemExit(main())
