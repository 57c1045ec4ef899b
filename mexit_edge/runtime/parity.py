"""Parity: the stages against the whole model, and an engine against the golden vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle import Bundle
from mexit_edge.errors import InputError
from mexit_edge.runtime.engines import open_model
from mexit_edge.runtime.loop import Runtime
from mexit_edge.tflite import Graph


@dataclass(frozen=True)
class ExitParity:
    """How one exit of the staged run compares with something that should be equal.

    Args:
        engine: name of the engine that ran both.
        exit: name of the exit.
        windows: number of windows compared.
        differing_windows: windows with at least one differing logit.
        differing_elements: logits that differ.
        largest_difference: in int8 steps.
    """

    engine: str
    exit: str
    windows: int
    differing_windows: int
    differing_elements: int
    largest_difference: int


def staged_against_whole(
    bundle: Bundle, whole: bytes, windows: NDArray[Any], engine: str
) -> tuple[ExitParity, ...]:
    """Compare the stages of a bundle with the model they were cut from, window by window.

    Args:
        bundle: the stages.
        whole: the multi-output .tflite before cutting, with its signature.
        windows: (n, time, channels), as for `Runtime.infer_batch`.
        engine: runs both.

    Returns:
        One row per exit.
    """
    runtime = Runtime(bundle, engine)
    staged = runtime.all_logits(windows)
    graph = Graph(whole)
    places = [graph.outputs.index(graph.signature_outputs[name]) for name in bundle.manifest.exits]
    outputs = open_model(engine, whole).run_batch([runtime.quantizer.quantize(windows)])
    return _rows(engine, bundle, staged, np.stack([outputs[place] for place in places], axis=1))


def verify_golden(bundle: Bundle, engine: str) -> tuple[tuple[ExitParity, ...], int]:
    """Run the golden windows and compare with what the bundle states.

    Args:
        bundle: with golden vectors.
        engine: to verify.

    Returns:
        The logits against those of the golden vectors' reference engine, one row per exit; and the number of
        decisions that differ from the golden ones of this engine.

    Raises:
        InputError: the bundle has no golden vectors, none for this engine, or not the logits of every exit.
    """
    golden = bundle.golden
    if golden is None or engine not in golden.labels:
        known = "none" if golden is None else ", ".join(golden.labels)
        raise InputError(
            f"`engine` must be one that the golden vectors hold ({known}). Received: {engine!r}."
        )
    names = [stage.outputs[0].name for stage in bundle.manifest.stages]
    if missing := sorted(set(names) - set(golden.tensors)):
        raise InputError(
            f"the golden vectors must hold the logits of every exit ({', '.join(names)}). "
            f"Received: none of {', '.join(missing)}."
        )
    runtime = Runtime(bundle, engine)
    result = runtime.infer_batch(golden.windows)
    wrong = int(np.sum((result.label != golden.labels[engine]) | (result.exit != golden.exits[engine])))
    got = runtime.all_logits(golden.windows)
    expected = np.stack([golden.tensors[name].reshape(len(got), -1) for name in names], axis=1)
    return _rows(engine, bundle, got, expected), wrong


def _rows(
    engine: str, bundle: Bundle, got: NDArray[np.int8], expected: NDArray[np.int8]
) -> tuple[ExitParity, ...]:
    difference = np.abs(got.astype(np.int16) - expected)
    return tuple(
        ExitParity(
            engine=engine,
            exit=name,
            windows=len(got),
            differing_windows=int((difference[:, index] > 0).any(axis=1).sum()),
            differing_elements=int((difference[:, index] > 0).sum()),
            largest_difference=int(difference[:, index].max(initial=0)),
        )
        for index, name in enumerate(bundle.manifest.exits)
    )
