"""What the loop costs beyond the bare interpreter calls that it makes, as ratios measured by turns.

    python benchmarks/runtime_overhead.py [--bundle BUNDLE] [--repeats N]

One ratio is `infer` (checks, input quantization, scoring, result) over the same set / invoke / get calls with
windows that are int8 already; the other is `infer_batch` over the same batched calls. Both sides run on the
same interpreters, in turns, in one process; the figure is the median over the turns. Writes
benchmarks/results/runtime_overhead.csv.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

import numpy as np

from mexit_edge.data import load, split_by_subject
from mexit_edge.files import sha256
from mexit_edge.runtime import Runtime, available_engines
from mexit_edge.runtime.engines import BATCH, LoadedModel

HERE = Path(__file__).parent
REFERENCE = HERE.parent / "tflite_models" / "reference.mexit"
RESULTS = HERE / "results" / "runtime_overhead.csv"


def recorded_calls(runtime: Runtime, windows: np.ndarray) -> list[tuple[LoadedModel, list, int]]:
    """Return per stage run: its model, its input arrays, and how many outputs the loop fetched."""
    calls = []
    names = [step.outputs for step in runtime._steps]
    for window in windows:
        live = {runtime._input: runtime.quantizer.quantize(window[None])}
        n_run = runtime.infer(window).exit
        for number, step in enumerate(runtime._steps[:n_run], start=1):
            inputs = [live[name] for name in step.inputs]
            n_fetched = 1 if number == n_run else len(names[number - 1])
            calls.append((step.model, inputs, n_fetched))
            for place, value in enumerate(inputs):
                step.model.set_input(place, value)
            step.model.invoke()
            live |= {name: step.model.get_output(place) for place, name in enumerate(step.outputs)}
    return calls


def recorded_batches(runtime: Runtime, windows: np.ndarray) -> list[Callable[[], object]]:
    """Return the bare batched engine calls that `infer_batch` makes, with their inputs ready."""
    calls: list[Callable[[], object]] = []
    # LiteRT's batched call stands in `_compute`; engines that know no batch are called window by window.
    name = "_compute" if runtime.engine in ("litert-xnnpack", "litert-reference") else "run_batch"
    for step in runtime._steps:
        original = getattr(step.model, name)

        def recording(inputs, original=original):
            kept = [value.copy() for value in inputs]
            calls.append(lambda: original(kept))
            return original(inputs)

        setattr(step.model, name, recording)
    runtime.infer_batch(windows)
    for step in runtime._steps:
        delattr(step.model, name)
    return calls


def bare(calls: list[tuple[LoadedModel, list, int]]) -> None:
    for model, inputs, n_fetched in calls:
        for place, value in enumerate(inputs):
            model.set_input(place, value)
        model.invoke()
        for place in range(n_fetched):
            model.get_output(place)


def by_turns(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int
) -> tuple[float, float, float]:
    """Return median, lower and upper quartile of the ratio of times, ours over theirs."""
    ratios = []
    for turn in range(repeats + 2):
        seconds = []
        for work in (ours, theirs) if turn % 2 else (theirs, ours):
            started = perf_counter()
            work()
            seconds.append(perf_counter() - started)
        one, other = seconds if turn % 2 else reversed(seconds)
        ratios.append(one / other)
    kept = ratios[2:]  # the first turns warm caches
    low, _, high = quantiles(kept, n=4)
    return median(kept), low, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=REFERENCE)
    parser.add_argument("--repeats", type=int, default=21)
    options = parser.parse_args()
    counts = split_by_subject(load("hapt"), test="official").test.counts()
    rows = []
    for engine in available_engines():
        slow = engine in ("tflm", "litert-reference")
        windows = counts[:: 30 if slow else 3]
        runtime = Runtime(options.bundle, engine)
        calls = recorded_calls(runtime, windows)
        single = by_turns(
            lambda runtime=runtime, windows=windows: [runtime.infer(window) for window in windows],
            lambda calls=calls: bare(calls),
            options.repeats,
        )
        batch_windows = counts[:512] if slow else counts
        batches = recorded_batches(runtime, batch_windows)
        batch = by_turns(
            lambda runtime=runtime, windows=batch_windows: runtime.infer_batch(windows),
            lambda batches=batches: [call() for call in batches],
            max(5, options.repeats // (4 if slow else 1)),
        )
        decisions = runtime.infer_batch(counts)
        singles = [runtime.infer(window) for window in counts]
        same = all(
            (one.label, one.exit) == (label, exit_)
            for one, label, exit_ in zip(singles, decisions.label, decisions.exit, strict=True)
        )
        for path, n, (middle, low, high) in (
            ("infer", len(windows), single),
            ("infer_batch", len(batch_windows), batch),
        ):
            rows.append(
                {
                    "engine": engine,
                    "path": path,
                    "windows": n,
                    "batch": BATCH if path == "infer_batch" else 1,
                    "ratio_to_bare_calls": round(middle, 3),
                    "lower_quartile": round(low, 3),
                    "upper_quartile": round(high, 3),
                    "same_decisions_on_all_test_windows": same,
                    "bundle_sha256": sha256((options.bundle / "manifest.json").read_bytes())[:12],
                    "ai_edge_litert": version("ai-edge-litert"),
                    "numpy": version("numpy"),
                }
            )
            print(rows[-1])
    with RESULTS.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
