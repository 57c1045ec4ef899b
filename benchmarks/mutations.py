"""Damage for `fuzz.py`: stage files and manifests changed at random."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mexit_edge.tflite import Graph
from mexit_edge.tflite.flatbuffer import parse, serialize

Rng = np.random.Generator
INT32 = (-(1 << 31), (1 << 31) - 1)
HOSTILE_INTEGERS = (0, -1, 1, 2, 3, 127, -128, 255, 65_536, 1 << 24, *INT32)
HOSTILE_FLOATS = (0.0, -1.0, 1e-38, 1e38, float("inf"), float("nan"))
HOSTILE_JSON = (None, True, 0, -1, 2**31, 2**63, 10**40, 1e308, "", "..", "a" * 5000, [], {}, [[]], "exit_99")
MOST_BYTES = 8
TFLITE_KINDS = ("bytes", "truncated", "offset", "structure")
MANIFEST_KINDS = ("bytes", "truncated", "value")


@dataclass(frozen=True)
class Mutation:
    """A damaged file.

    Args:
        number: of the mutation; with the seed it gives the same damage again.
        target: what was damaged, ``"manifest"`` or the number of the stage from 0.
        kind: of damage, one of `TFLITE_KINDS` or `MANIFEST_KINDS`.
        content: the file now.
    """

    number: int
    target: str
    kind: str
    content: bytes


def mutation(manifest: bytes, stages: tuple[bytes, ...], seed: int, number: int) -> Mutation:
    """Return damage of that number: every fifth to the manifest, the others to the stages in turn."""
    rng = np.random.default_rng((seed, number))
    if number % 5 == 4:
        kind = str(rng.choice(MANIFEST_KINDS))
        return Mutation(number, "manifest", kind, _damaged(manifest, kind, rng))
    stage = number % len(stages)
    kind = TFLITE_KINDS[number // len(stages) % len(TFLITE_KINDS)]
    return Mutation(number, str(stage), kind, _damaged(stages[stage], kind, rng))


def with_signature(content: bytes) -> bytes:
    """Return a stage with a signature that names its outputs as exits, so that it can be cut."""
    model = Graph(content).model
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex, signature.inputs = b"serving_default", 0, []
    signature.outputs = []
    for number, tensor in enumerate(model.subgraphs[0].outputs, start=1):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = f"exit_{number:02d}".encode(), int(tensor)
        signature.outputs.append(entry)
    model.signatureDefs = [signature]
    return serialize(model)


def _damaged(content: bytes, kind: str, rng: Rng) -> bytes:
    if kind == "truncated":
        return content[: int(rng.integers(0, len(content)))]
    if kind == "structure":
        return _damaged_structure(content, rng)
    if kind == "value":
        return _damaged_value(content, rng)
    damaged = bytearray(content)
    if kind == "offset":
        place = 4 * int(rng.integers(0, len(content) // 4))
        value = int(rng.choice([0, 4, len(content), *INT32, int(rng.integers(0, len(content)))]))
        damaged[place : place + 4] = value.to_bytes(4, "little", signed=True)
    else:
        for _ in range(int(rng.integers(1, MOST_BYTES + 1))):
            damaged[int(rng.integers(0, len(content)))] = int(rng.integers(0, 256))
    return bytes(damaged)


def _damaged_structure(content: bytes, rng: Rng) -> bytes:
    """Change one field of the object form, and write the whole anew: well-formed, and wrong."""
    while True:
        model = parse(content)
        _change_one_field(model, rng)
        try:
            return serialize(model)
        except Exception:  # a value that the field cannot hold: another one
            continue


def _change_one_field(model: Any, rng: Rng) -> None:
    graph = model.subgraphs[0]
    groups: list[list[Any]] = [
        graph.tensors,
        graph.operators,
        [one.builtinOptions for one in graph.operators if one.builtinOptions],
        [one.quantization for one in graph.tensors if one.quantization],
        model.operatorCodes,
        model.buffers,
        [graph],
    ]
    group = [one for one in groups if one][int(rng.integers(0, len([one for one in groups if one])))]
    holder = group[int(rng.integers(0, len(group)))]
    name = str(rng.choice(sorted(vars(holder))))
    value = getattr(holder, name)
    setattr(holder, name, _hostile(value, rng))


def _hostile(value: Any, rng: Rng) -> Any:
    """Return something of the value's own form with something else in it."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return int(rng.choice([*HOSTILE_INTEGERS, value + 1, value - 1, 2 * value]))
    if isinstance(value, float):
        return float(rng.choice(HOSTILE_FLOATS))
    if value is None or not hasattr(value, "__len__") or isinstance(value, str | bytes) or not len(value):
        return None
    if rng.random() < 0.3:
        return value[: int(rng.integers(0, len(value)))]
    changed = list(copy.copy(value))
    place = int(rng.integers(0, len(changed)))
    if isinstance(changed[place], int | float | np.number):
        changed[place] = _hostile(
            changed[place].item() if hasattr(changed[place], "item") else changed[place], rng
        )
    elif len(changed) > 1:
        changed[place] = changed[(place + 1) % len(changed)]
    return np.asarray(changed).astype(value.dtype) if isinstance(value, np.ndarray) else changed


def _damaged_value(content: bytes, rng: Rng) -> bytes:
    """Replace one value anywhere in the manifest."""
    manifest = json.loads(content)
    places: list[tuple[Any, Any]] = []
    waiting = [manifest]
    while waiting:
        holder = waiting.pop()
        for key in holder if isinstance(holder, dict) else range(len(holder)):
            places.append((holder, key))
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])
    holder, key = places[int(rng.integers(0, len(places)))]
    value = holder[key]
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.6:
        holder[key] = value + 1 if rng.random() < 0.5 else -value
    elif rng.random() < 0.2 and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = HOSTILE_JSON[int(rng.integers(0, len(HOSTILE_JSON)))]
    return json.dumps(manifest).encode()
