"""Stages against the whole model, bit by bit, for networks of every shape; and what the stages weigh.

    python benchmarks/staged_parity.py [--windows 500] [--networks NAME ...] [--out FOLDER]

Every network of benchmarks/networks.py is given the statistics of HAPT windows, quantized to int8 and cut at
its exits. The same windows then run through the whole model and through its stages on every engine;
staged_parity.csv counts the int8 logits that differ, one row per network and engine. stage_sizes.csv holds
the bytes of the whole model and of its stages, with and without names, and the arenas that TFLM reports on
this 64-bit host. The weights are not trained: what is compared does not depend on it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tables
from networks import NETWORKS

import mexit_edge as mx
from mexit_edge.compress import convert
from mexit_edge.models.heads import exit_names
from mexit_edge.runtime import available_engines, open_model, run_stages
from mexit_edge.runtime.tflm import own_arena_bytes
from mexit_edge.signals import Normalisation
from mexit_edge.tflite import CutStage, Graph, cut_at_exits

RESULTS = Path(__file__).parent / "results"
N_REPRESENTATIVE = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--windows", type=int, default=500)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    recorded = recorded_windows(options.windows + N_REPRESENTATIVE)
    parity: list[dict[str, Any]] = []
    sizes: list[dict[str, Any]] = []
    for name in options.networks:
        keras.utils.set_random_seed(0)
        network = NETWORKS[name]()
        inputs = {
            one.name: shaped(recorded, one.shape[1:], place) for place, one in enumerate(network.inputs)
        }
        settle(network, inputs)
        representative = {key: values[:N_REPRESENTATIVE] for key, values in inputs.items()}
        whole = convert(network, representative if len(inputs) > 1 else next(iter(representative.values())))
        exits = exit_names(network)
        stages = cut_at_exits(whole, exits)
        samples = {key: values[N_REPRESENTATIVE:] for key, values in inputs.items()}
        parity += [compared(name, whole, stages, exits, samples, engine) for engine in available_engines()]
        sizes.append(weighed(name, whole, stages, exits))
        print(sizes[-1], [row["differing_logits"] for row in parity[-4:]], flush=True)
        tables.write(options.out / "staged_parity.csv", parity)
        tables.write(options.out / "stage_sizes.csv", sizes)


def recorded_windows(n: int) -> Any:
    """Return n normalised windows of HAPT's training subjects, every few of them."""
    windows = mx.data.load("hapt")
    train = windows.of_subjects(set(windows.subjects) - set(windows.official_test_subjects))
    chosen = train.take(np.linspace(0, len(train) - 1, n).astype(int))
    return Normalisation.fit(train).apply(chosen.x)


def shaped(windows: Any, shape: tuple[int, ...], place: int) -> Any:
    """Return windows of another shape, made of the same samples."""
    if windows.shape[1:] == shape:
        return windows
    if windows.shape[1] == shape[0] and len(shape) == 2:
        return np.ascontiguousarray(windows[..., place * shape[1] : (place + 1) * shape[1]])
    flat = windows.transpose(0, 2, 1).reshape(len(windows), -1)
    return np.ascontiguousarray(flat[:, : np.prod(shape)].reshape(-1, *shape))


def settle(network: keras.Model, inputs: dict[str, Any]) -> None:
    """Give batch normalisation the statistics of these windows, as training would."""
    values = [inputs[one.name] for one in network.inputs]
    for _ in range(60):
        network(values if len(values) > 1 else values[0], training=True)


def compared(
    name: str, whole: bytes, stages: Any, exits: Any, samples: dict[str, Any], engine: str
) -> dict[str, Any]:
    graph = Graph(whole)
    codes = quantized(graph, stages, samples)
    outputs = open_model(engine, whole).run_batch([codes[key] for key in by_file(graph, stages, codes)])
    expected = [outputs[graph.outputs.index(graph.signature_outputs[exit_])] for exit_ in exits]
    live = run_stages(stages, codes, engine)
    staged = [live[stage.outputs[0][0]] for stage in stages]
    differing = [int(np.sum(a != b)) for a, b in zip(staged, expected, strict=True)]
    return {
        "network": name,
        "engine": engine,
        "exits": len(exits),
        "windows": len(expected[0]),
        "logits": sum(one.size for one in expected),
        "differing_logits": sum(differing),
    }


def by_file(graph: Graph, stages: Any, codes: dict[str, Any]) -> list[str]:
    """Return the names of the inputs in the order in which the whole file has them."""
    names = {tensor.index: name for stage in stages for name, tensor in stage.inputs if name in codes}
    return [names[index] for index in graph.inputs]


def quantized(graph: Graph, stages: Any, samples: dict[str, Any]) -> dict[str, Any]:
    tensors = {tensor.index: (name, tensor) for stage in stages for name, tensor in stage.inputs}
    codes = {}
    for index in graph.inputs:
        name, tensor = tensors[index]
        values = samples[name] if name in samples else next(iter(samples.values()))
        assert tensor.scale is not None
        codes[name] = np.clip(np.rint(values / tensor.scale) + tensor.zero_point, -128, 127).astype(np.int8)
    return codes


def weighed(name: str, whole: bytes, stages: tuple[CutStage, ...], exits: Any) -> dict[str, Any]:
    named = cut_at_exits(whole, exits, keep_names=True)
    stripped_bytes = sum(len(stage.content) for stage in stages)
    named_bytes = sum(len(stage.content) for stage in named)
    arenas = [own_arena_bytes(stage.content) for stage in stages]
    return {
        "network": name,
        "stages": len(stages),
        "whole_bytes": len(whole),
        "stages_bytes": named_bytes,
        "stages_share": round(named_bytes / len(whole), 3),
        "stripped_stages_bytes": stripped_bytes,
        "stripped_stages_share": round(stripped_bytes / len(whole), 3),
        "whole_arena_bytes": own_arena_bytes(whole),
        "largest_stage_arena_bytes": max(one for one in arenas if one is not None),
    }


if __name__ == "__main__":
    main()
