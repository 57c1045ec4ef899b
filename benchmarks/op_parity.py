"""Whether engines compute every int8 operator alike: TFLM, built-in and XNNPACK against LiteRT's reference.

    python benchmarks/op_parity.py [--draws N] [--windows N]

Each operator runs alone, on random int8: those made by hand in `op_cases.py`, with several draws of weights
and quantizations, and every operator of the reference bundle, of the converted networks of the tests (where
TensorFlow is installed), and of the models that MEXIT_TFLITE_DIR holds, taken out of their models. So an
engine's difference in one operator is not mixed with that of another.

Writes benchmarks/results/op_parity.csv, a row per operator, origin, variant and engine; where an engine
refuses a model, its count says so. Where the reference kernels lack an operator, the built-in ones stand in.
TFLM is held to the reference: identical but for FULLY_CONNECTED, one step at most, and for the two variants
that it computes otherwise altogether (`WRONG_ON_TFLM`); else the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from mexit_edge.bundle import Bundle
from mexit_edge.errors import InputError
from mexit_edge.runtime import available_engines, open_model, tflm
from mexit_edge.runtime.staged import run_each, window_shape
from mexit_edge.tflite import Graph
from mexit_edge.tflite.extract import extract

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import tables  # noqa: E402
from op_cases import Case, hand_made  # noqa: E402

RESULTS = HERE / "results" / "op_parity.csv"
# The second stands in where the reference kernels lack an operator, or are refused for computing it wrongly.
REFERENCE, SECOND = "litert-reference", "litert-builtin"
BUNDLE = HERE.parent / "tflite_models" / "reference.mexit"
NETWORKS = ("dscnn", "long_skip", "residual", "cascaded", "dilated", "attached", "two_heads_residual")
# Large operators get fewer random inputs, so that TFLM's plain loops do not take hours.
MOST_ELEMENTS, FEWEST = 200_000, 5
# What TFLM may differ by from the reference kernels, in int8 steps; every other operator by nothing.
ALLOWED = {"FULLY_CONNECTED": 1}
# What TFLM computes otherwise altogether: it clamps in the quantization of the input and does not go on to
# that of the output; it fills what it pads with 0 in place of the zero point. `runtime.guards` refuses both.
WRONG_ON_TFLM = {("RELU6", "another quantization"), ("SPACE_TO_BATCH_ND", "padded")}


@dataclass
class Tally:
    """Sums over models of one operator, origin and variant on one engine."""

    against: str
    models: int = 0
    refused: int = 0
    elements: int = 0
    differing: int = 0
    largest: int = 0


def of_model(content: bytes) -> Iterator[Case]:
    """Take every int8 operator out of a model."""
    graph = Graph(content)
    for operator in graph.operators:
        inputs = list(dict.fromkeys(graph.activations(operator)))
        types = {graph.tensors[index].dtype for index in (*inputs, *operator.outputs)}
        if inputs and types == {"INT8"}:
            yield Case(operator.name, "", extract(graph, [operator.index], inputs, list(operator.outputs)))


def all_cases(draws: int) -> Iterator[tuple[str, Case]]:
    """Return every case with its origin."""
    yield from (("by hand", case) for case in hand_made(draws))
    yield from of_bundle()
    if find_spec("tensorflow") is not None:
        from fixtures_networks import converted

        for name in NETWORKS:
            yield from (("converted networks", case) for case in of_model(converted(name).whole))
    folder = os.environ.get("MEXIT_TFLITE_DIR")
    for path in sorted(Path(folder).glob("*.tflite")) if folder else []:
        yield from ((path.name, case) for case in of_model(path.read_bytes()))


def of_bundle() -> Iterator[tuple[str, Case]]:
    """Return every operator of the reference bundle."""
    for stage in Bundle.load(BUNDLE).stages:
        yield from (("reference bundle", case) for case in of_model(stage))


def compare(cases: Iterator[tuple[str, Case]], n_windows: int) -> dict[tuple[str, str, str, str], Tally]:
    """Run every case on every engine; (operator, origin, variant, engine) -> sums."""
    tallies: dict[tuple[str, str, str, str], Tally] = {}
    for number, (origin, case) in enumerate(cases):
        results = {engine: run(case.content, engine, number, n_windows) for engine in available_engines()}
        against = REFERENCE if results[REFERENCE] is not None else SECOND
        expected = results[against]
        for engine, got in results.items():
            tally = tallies.setdefault((case.operator, origin, case.variant, engine), Tally(against))
            tally.models += 1
            if got is None:
                tally.refused += 1
            if got is None or expected is None:
                continue
            difference = np.abs(got.astype(np.int64) - expected)
            tally.elements += difference.size
            tally.differing += int((difference > 0).sum())
            tally.largest = max(tally.largest, int(difference.max()))
    return tallies


def run(content: bytes, engine: str, seed: int, n_windows: int) -> Any:
    """Return every output of a model on random int8, flat; None where the engine refuses it."""
    graph = Graph(content)
    work = max(graph.tensors[index].elements for index in (*graph.inputs, *graph.outputs))
    n_windows = max(FEWEST, min(n_windows, MOST_ELEMENTS // work))
    rng = np.random.default_rng(seed)
    shapes = [graph.tensors[index].shape for index in graph.inputs]
    inputs = [rng.integers(-128, 128, (n_windows, *window_shape(shape)), np.int8) for shape in shapes]
    try:
        # Without the guard that keeps such models from TFLM: this shows what it guards against.
        with patch.object(tflm, "refuse_for_tflm"):
            model = open_model(engine, content)
        return np.concatenate([values.ravel() for values in run_each(model, inputs, shapes)])
    except InputError:
        return None


def rows_of(tallies: dict[tuple[str, str, str, str], Tally]) -> list[dict[str, Any]]:
    """Return the rows of the table, in alphabetical order."""
    return [
        {
            "operator": operator,
            "origin": origin,
            "variant": variant,
            "engine": engine,
            "against": tally.against,
            "models": tally.models,
            "models_refused": tally.refused,
            "elements": tally.elements,
            "elements_differing": tally.differing,
            "largest_difference_int8_steps": tally.largest if tally.elements else "",
        }
        for (operator, origin, variant, engine), tally in sorted(tallies.items())
    ]


def beyond(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows in which TFLM differs from the reference by more than it may."""
    return [
        row
        for row in rows
        if row["engine"] == "tflm"
        and row["against"] == REFERENCE
        and (row["operator"], row["variant"]) not in WRONG_ON_TFLM
        and row["largest_difference_int8_steps"] != ""
        and int(row["largest_difference_int8_steps"]) > ALLOWED.get(row["operator"], 0)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=8, help="of weights and quantizations, by hand")
    parser.add_argument("--windows", type=int, default=100, help="random inputs per model")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = rows_of(compare(all_cases(options.draws), options.windows))
    tables.write(options.out, rows)
    for row in rows:
        if row["engine"] != REFERENCE and (row["elements_differing"] or row["models_refused"]):
            print(
                f"{row['operator']:24} {row['origin']:18} {row['variant']:24} {row['engine']:16} "
                f"{row['elements_differing']:>9,} of {row['elements']:>11,}, at most "
                f"{row['largest_difference_int8_steps']}, {row['models_refused']} of {row['models']} refused"
            )
    wrong = beyond(rows)
    for row in wrong:
        print(f"TFLM differs: {row}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
