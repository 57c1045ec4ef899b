"""Cut foreign int8 models at every operator boundary and into 2, 3 and 5 parts, on every engine.

    MEXIT_TFLITE_DIR=FOLDER python benchmarks/cut_models.py [--windows N] [--models NAME ...] [--out FILE]

FOLDER holds .tflite files: the MLPerf Tiny reference models (anomaly detection, keyword spotting, image
classification, visual wake words) and TFLM's person detection example. For every model and engine: the file
is cut in two at every boundary between operators that leaves at most three tensors alive, and into 2, 3 and 5
stages of nearly equal MACs. The stages run one after the other on random inputs, one by one. Every output is
compared with that of the uncut file on the same engine, and every boundary tensor with what the uncut file
computes there, made visible by a copy of the file that gives all of them as outputs. An engine that lacks an
operator is asked no further, and its words are kept. LiteRT refuses the person detection file for the axis of
its biases: there the uncut file is the mended one (`tflite.mended`; the column says so). Writes
benchmarks/results/cut_models.csv, one row per model and engine; a row that is there already is not computed
again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import tables

from mexit_edge.errors import InputError
from mexit_edge.estimate import operations
from mexit_edge.files import sha256
from mexit_edge.runtime import available_engines
from mexit_edge.runtime.staged import random_inputs, run_stages, run_whole
from mexit_edge.tflite import CutStage, Graph, cut_at_positions, cut_into, cut_points, mended
from mexit_edge.tflite.flatbuffer import serialize

RESULTS = Path(__file__).parent / "results" / "cut_models.csv"
PARTS = (2, 3, 5)


def cuts(content: bytes) -> Iterator[tuple[str, tuple[CutStage, ...]]]:
    """Give every way of cutting, by name."""
    for point in cut_points(content):
        yield f"before operator {point.position}", cut_at_positions(content, [point.position])
    macs = [cost.macs for cost in operations(content)]
    for n in PARTS:
        yield f"into {n}", cut_into(content, n, macs)


def with_all_outputs(content: bytes) -> bytes:
    """Give a copy of a model whose outputs are its own and every tensor that a cut leaves alive."""
    graph = Graph(content)
    inside = {tensor.index for point in cut_points(content) for tensor in point.live} - set(graph.inputs)
    graph.subgraph.outputs = [*graph.outputs, *sorted(inside - set(graph.outputs))]
    return serialize(graph.model)


def compare(content: bytes, engine: str, n_windows: int) -> dict[str, Any]:
    """Return how all cuts of one model do on one engine."""
    inputs = random_inputs(content, n_windows)
    row: dict[str, Any] = {
        "cuts": 0,
        "outputs_compared": 0,
        "outputs_differing": 0,
        "boundary_elements_compared": 0,
        "boundary_elements_differing": 0,
        "largest_difference": 0,
        "refused": "",
    }
    try:
        outputs = run_whole(content, inputs, engine)
    except InputError as error:
        return row | {"refused": str(error)}
    truth = run_whole(with_all_outputs(content), inputs, engine) | outputs
    for _, stages in cuts(content):
        staged = run_stages(stages, inputs, engine)
        row["cuts"] += 1
        for name in staged.keys() - inputs.keys():
            kind = "outputs" if name in outputs else "boundary_elements"
            difference = np.abs(staged[name].astype(np.int64) - truth[name])
            row[f"{kind}_compared"] += difference.size
            row[f"{kind}_differing"] += int((difference > 0).sum())
            row["largest_difference"] = max(row["largest_difference"], int(difference.max()))
    return row


def seconds_to_cut(content: bytes) -> float:
    """Return the median time of cutting in five, of five trials."""
    macs = [cost.macs for cost in operations(content)]
    times = []
    for _ in range(5):
        started = perf_counter()
        cut_into(content, 5, macs)
        times.append(perf_counter() - started)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--windows", type=int, default=50, help="random inputs per model")
    parser.add_argument("--models", nargs="*", help="file names without .tflite (default: all in the folder)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    folder = os.environ.get("MEXIT_TFLITE_DIR")
    if not folder:
        parser.error("the environment variable MEXIT_TFLITE_DIR must name a folder of .tflite files")
    rows = tables.read(options.out)
    done = {(row["model"], row["engine"]) for row in rows}
    for path in sorted(Path(folder).glob("*.tflite")):
        if options.models and path.stem not in options.models:
            continue
        content = path.read_bytes()
        for engine in available_engines():
            if (path.stem, engine) in done:
                continue
            facts = {
                "model": path.stem,
                "sha256": sha256(content)[:12],
                "bytes": len(content),
                "mended": mended(content) != content,
                "operators": len(operations(content)),
                "engine": engine,
                "windows": options.windows,
            }
            result = compare(mended(content), engine, options.windows)
            rows.append(
                facts
                | result
                | {
                    "measured_cut_into_5_seconds": f"{seconds_to_cut(content):.3f}",
                    "ai_edge_litert": version("ai-edge-litert"),
                    "tflite_micro": version("tflite-micro") if engine == "tflm" else "",
                }
            )
            tables.write(options.out, rows)
            print(path.stem, engine, result)


if __name__ == "__main__":
    main()
