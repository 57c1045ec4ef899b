"""What becomes of damaged stage files and manifests: an InputError or a correct run, never a dead process.

    python benchmarks/fuzz.py [--mutations N] [--seed S] [--tflm-every N]

Damages one file at a time of the reference bundle and of a small one made by hand (`mutations.py` says how),
makes every hash fit again, and takes it through all that reads such files: the graph, the cutter, the audit,
the count of operations, the bundle, and the loop on LiteRT; one in `--tflm-every` of those that LiteRT runs
goes on to TFLM, as a file.

The work is done in child processes that say what they are about to do, so that a death is counted and the
rest goes on. In them LiteRT runs without the trial that a bundle from a file goes through (`runtime.trial`),
which would take a process each. What LiteRT dies of is then given to `Runtime` as a file, trial and all, and
must be refused: the column `refused_by_trial`.

Writes benchmarks/results/fuzz.csv; anything but an InputError or a run is printed with its number, which
makes the same damage again, and makes the exit code 1; so do too few that were carried on to TFLM.
"""

from __future__ import annotations

import argparse
import json
import select
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mexit_edge.bundle import Bundle, model_card
from mexit_edge.errors import InputError
from mexit_edge.estimate import estimate_bundle, operations
from mexit_edge.files import sha256
from mexit_edge.runtime import Runtime
from mexit_edge.tflite import (
    CutStage,
    Graph,
    audit_int8,
    cut_at_exits,
    cut_into,
    cut_points,
    mended,
    phone_model,
)

HERE = Path(__file__).parent
if __name__ != "__main__":  # a test reads this file from elsewhere
    sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "tests"))
import tables  # noqa: E402
from fixtures_networks import bundle_of, hand_whole  # noqa: E402
from mutations import Mutation, mutation, with_signature  # noqa: E402

RESULTS = HERE / "results" / "fuzz.csv"
REFERENCE = HERE.parent / "tflite_models" / "reference.mexit"
LITERT = ("litert-xnnpack", "litert-builtin", "litert-reference")
DEVICE = "nucleo-l4r5zi"
SILENCE_S = 120.0
ON_TFLM = 20  # one mutation in so many must be carried on to TFLM
REFUSED, RAN, BY_TRIAL = "refused", "ran", "refused_by_trial"


class Patient:
    """A bundle in a folder, of which one file at a time is damaged.

    Args:
        bundle: whole; its golden vectors are left out.
        path: where it is to stand.
    """

    def __init__(self, bundle: Bundle, path: Path) -> None:
        self.specs = bundle.manifest.stages
        self.sensor = bundle.manifest.sensor
        # The signature makes a stage something that can be cut; the loop does not mind it.
        self.stages = tuple(with_signature(stage) for stage in bundle.stages)
        self.path = bundle.with_manifest(golden=None).save(path)
        self.manifest = (self.path / "manifest.json").read_bytes()

    def damage(self, seed: int, number: int) -> Mutation:
        """Write the bundle with damage of that number, whose hashes all fit."""
        change = mutation(self.manifest, self.stages, seed, number)
        stages, text = list(self.stages), self.manifest
        if change.target == "manifest":
            text = change.content
        else:
            stages[int(change.target)] = change.content
        for spec, content in zip(self.specs, stages, strict=True):
            text = text.replace(spec.sha256.encode(), sha256(content).encode())
            (self.path / spec.file).write_bytes(content)
        (self.path / "manifest.json").write_bytes(text)
        (self.path / "manifest.json.sha256").write_text(f"{sha256(text)}  manifest.json\n")
        return change

    def windows(self, number: int) -> np.ndarray:
        """Return three windows of counts."""
        shape = (3, self.sensor.window, len(self.sensor.channels))
        return np.random.default_rng(number).integers(-3000, 3000, shape).astype(np.int16)


def patients(folder: Path) -> tuple[Patient, ...]:
    """Return the bundles that are damaged: the reference, and a small one with a view and a long skip."""
    small = bundle_of(hand_whole(), thresholds=(8, 10))
    return (
        Patient(Bundle.load(REFERENCE), folder / "reference.mexit"),
        Patient(small, folder / "small.mexit"),
    )


def steps(patient: Patient, change: Mutation, engines: Sequence[str]) -> dict[str, Callable[[], object]]:
    """Return what is to be done with a damaged file."""
    content = change.content
    of_a_model: dict[str, Callable[[], object]] = {
        "Graph": lambda: _read_all(Graph(content)),
        "cut_at_exits": lambda: cut_at_exits(content, sorted(Graph(content).signature_outputs)),
        "cut_points": lambda: cut_points(content),
        "cut_into": lambda: _halves(content),
        "keep_names": lambda: _halves(content, keep_names=True),
        "phone_model": lambda: phone_model(_halves(content)),
        "mended": lambda: mended(content),
        "audit_int8": lambda: audit_int8(content),
        "operations": lambda: operations(content),
    }
    todo = {} if change.target == "manifest" else of_a_model
    todo["Bundle.load"] = lambda: model_card(Bundle.load(patient.path).manifest)
    todo["estimate_bundle"] = lambda: estimate_bundle(Bundle.load(patient.path), DEVICE)
    for engine in engines:
        todo[f"Runtime {engine}"] = lambda engine=engine: _run(patient, change, engine)
    return todo


def outcomes(
    patient: Patient,
    change: Mutation,
    *,
    engines: Sequence[str],
    with_tflm: bool,
    say: Callable[[str], None],
) -> dict[str, str]:
    """Return step -> what came of it: refused, ran, or the fault.

    Args:
        patient: the damaged bundle.
        change: its damage.
        engines: of LiteRT.
        with_tflm: whether to go on to TFLM when every LiteRT engine ran.
        say: is told the name of each step before it is done.
    """
    todo = steps(patient, change, engines)
    found: dict[str, str] = {}

    def do(name: str, step: Callable[[], object]) -> None:
        say(name)
        try:
            step()
            found[name] = RAN
        except InputError:
            found[name] = REFUSED
        except Exception as error:
            found[name] = f"{type(error).__name__}: {str(error)[:150]}"

    for name, step in todo.items():
        do(name, step)
    if with_tflm and all(found[f"Runtime {engine}"] == RAN for engine in engines):
        do("Runtime tflm", lambda: _run(patient, change, "tflm", as_file=True))
    return found


def _read_all(graph: Graph) -> list[object]:
    seen: list[object] = [graph.tensors, graph.producers, graph.signature_outputs, graph.outputs]
    return seen + [graph.activations(operator) for operator in graph.operators]


def _halves(content: bytes, *, keep_names: bool = False) -> tuple[CutStage, ...]:
    return cut_into(content, 2, [cost.macs for cost in operations(content)], keep_names=keep_names)


def _run(patient: Patient, change: Mutation, engine: str, *, as_file: bool = False) -> None:
    """Run one window, then three; ``as_file`` with the trial that a bundle from a file goes through."""
    windows = patient.windows(change.number)
    bundle = Bundle.load(patient.path)
    runtime = Runtime(bundle if as_file else replace(bundle, foreign=False), engine)
    runtime.infer(windows[0])
    runtime.infer_batch(windows)


def work(seed: int, start: int, stop: int, tflm_every: int, engines: Sequence[str]) -> None:
    """Do the work of a child: a line before each step, one after each mutation."""
    with tempfile.TemporaryDirectory() as folder:
        several = patients(Path(folder))
        for number in range(start, stop):
            patient = several[number % len(several)]
            change = patient.damage(seed, number // len(several))
            entry = {"number": number, "target": change.target, "kind": change.kind}
            found = outcomes(
                patient,
                change,
                engines=engines,
                with_tflm=_drawn(seed, number, tflm_every),
                say=lambda step, entry=entry: _tell(entry | {"step": step}),
            )
            _tell(entry | {"found": found})


def _drawn(seed: int, number: int, tflm_every: int) -> bool:
    """Tell whether a mutation is among those for TFLM: at random, so that it goes with no kind of damage."""
    return bool(tflm_every) and not np.random.default_rng((seed, number, 1)).integers(0, tflm_every)


def _tell(entry: dict[str, Any]) -> None:
    print(json.dumps(entry), flush=True)


def supervise(
    seed: int, start: int, stop: int, tflm_every: int, engines: Sequence[str] = LITERT
) -> list[dict[str, Any]]:
    """Return one entry per mutation; behind one that kills or hangs its child, another child goes on."""
    done: list[dict[str, Any]] = []
    while start < stop:
        options = {"--work-from": start, "--work-to": stop, "--seed": seed, "--tflm-every": tflm_every}
        words = [str(word) for pair in options.items() for word in pair]
        command = [sys.executable, __file__, *words, "--engines", *engines]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            last, ending = _follow(child, done)
        if ending is None:
            break
        if last["step"].startswith("Runtime litert"):
            ending = as_file(seed, last["number"], last["step"].split()[1])
        done.append(last | {"found": {last["step"]: ending}})
        start = last["number"] + 1
    return done


def as_file(seed: int, number: int, engine: str) -> str:
    """Return what becomes of a damaged bundle that kills LiteRT when `Runtime` is given its path."""
    words = [str(word) for word in ("--seed", seed, "--as-file", number, engine)]
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, check=False)
    return done.stdout.decode().strip() if done.returncode == 0 else f"died of signal {-done.returncode}"


def try_as_file(seed: int, number: int, engine: str) -> str:
    """Be the child of `as_file`."""
    with tempfile.TemporaryDirectory() as folder:
        several = patients(Path(folder))
        patient = several[number % len(several)]
        change = patient.damage(seed, number // len(several))
        try:
            _run(patient, change, engine, as_file=True)
        except InputError:
            return BY_TRIAL
        return RAN


def _follow(child: subprocess.Popen[bytes], done: list[dict[str, Any]]) -> tuple[dict[str, Any], str | None]:
    """Read what a child tells until it ends; return its last step, and how it ended if not as it should."""
    last: dict[str, Any] = {}
    assert child.stdout is not None
    while True:
        if not select.select([child.stdout], [], [], SILENCE_S)[0]:
            child.kill()
            return last, f"silent for {SILENCE_S:g} s"
        line = child.stdout.readline()
        if not line:
            break
        entry = json.loads(line)
        if "found" in entry:
            done.append(entry)
        else:
            last = entry
    status = child.wait()
    if status > 0:
        raise RuntimeError(f"the benchmark's own code failed after {last}; run it with --work-from to see")
    return last, None if status == 0 else f"died of signal {-status}"


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per kind of file, of damage, and step."""
    counts: Counter[tuple[str, str, str, str]] = Counter()
    for entry in found:
        file = "manifest" if entry["target"] == "manifest" else "stage"
        for step, outcome in entry["found"].items():
            kind = (
                outcome if outcome in (REFUSED, RAN, BY_TRIAL) else "dead" if _is_death(outcome) else "fault"
            )
            counts[file, entry["kind"], step, kind] += 1
    return [
        {
            "file": file,
            "damage": kind,
            "step": step,
            **{
                outcome: counts[file, kind, step, outcome]
                for outcome in (REFUSED, RAN, BY_TRIAL, "fault", "dead")
            },
        }
        for file, kind, step in dict.fromkeys(key[:3] for key in sorted(counts))
    ]


def _is_death(outcome: str) -> bool:
    return outcome.startswith(("died", "silent"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--start", type=int, default=0, help="number of the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tflm-every", type=int, default=5, help="0 for none")
    parser.add_argument("--engines", nargs="+", default=LITERT, help="of LiteRT")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work-from", type=int, help="be the child")
    parser.add_argument("--work-to", type=int)
    parser.add_argument("--as-file", nargs=2, metavar=("NUMBER", "ENGINE"), help="be the other child")
    options = parser.parse_args()
    if options.as_file is not None:
        print(try_as_file(options.seed, int(options.as_file[0]), options.as_file[1]))
        return 0
    if options.work_from is not None:
        work(options.seed, options.work_from, options.work_to, options.tflm_every, options.engines)
        return 0
    stop = options.start + options.mutations
    found = supervise(options.seed, options.start, stop, options.tflm_every, options.engines)
    rows = summary(found)
    tables.write(options.out, rows)
    bad = 0
    for entry in found:
        for step, outcome in entry["found"].items():
            if outcome not in (REFUSED, RAN, BY_TRIAL):
                bad += 1
                print(f"{entry['number']} {entry['target']} {entry['kind']}: {step}: {outcome}")
    on_tflm = sum(row[REFUSED] + row[RAN] for row in rows if row["step"] == "Runtime tflm")
    print(f"{len(found):,} mutations, {on_tflm:,} of them carried on to TFLM; {bad} ended in something else")
    wanted = options.mutations // ON_TFLM if options.tflm_every else 0
    if on_tflm < wanted:
        print(f"at least {wanted:,} were to be carried on to TFLM: lower --tflm-every")
    return 1 if bad or on_tflm < wanted else 0


if __name__ == "__main__":
    sys.exit(main())
