"""TensorFlow Lite Micro on the host: opening a model, and the arena it needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from mexit_edge.errors import InputError, RunError
from mexit_edge.runtime.guards import refuse_for_tflm
from mexit_edge.runtime.native import CaughtStderr
from mexit_edge.runtime.trial import try_in_child
from mexit_edge.tflite import Graph

ARENA_START = 1 << 18
ARENA_LIMIT = 1 << 26
_REPORT = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")


@dataclass(frozen=True)
class ArenaReport:
    """The tensor arena of a model, in bytes, as TFLM reports it on this 64-bit host.

    Args:
        total_bytes: head and tail.
        head_bytes: activations and scratch buffers (see `estimate.plan_activations`).
        tail_bytes: what stays there from one run to the next: structs, with pointers of this host.
    """

    total_bytes: int
    head_bytes: int
    tail_bytes: int


def open_interpreter(content: bytes) -> Any:
    """Return a TFLM interpreter with an arena that is large enough.

    Raises:
        InputError: TFLM cannot run the model, or not in 64 MiB, with TFLM's own words; or it would run it
            wrongly (`runtime.guards`).
    """
    from tflite_micro import runtime

    refuse_for_tflm(Graph(content))
    size = ARENA_START
    while True:
        try:
            with CaughtStderr(keep=True) as report:
                interpreter = runtime.Interpreter.from_bytes(content, arena_size=size)
                # Some operators (REDUCE_MAX of int16) refuse a type only when they run.
                interpreter.invoke()
                interpreter.reset()
                return interpreter
        except RuntimeError as error:
            size *= 4
            if size > ARENA_LIMIT:
                words = "; ".join(line.strip() for line in report.text().splitlines() if line.strip())
                raise InputError(
                    f"a model must be one that TFLM can run, within {ARENA_LIMIT} bytes of arena. "
                    f"Received: {str(error).rstrip('.')}. In TFLM's words: {words or 'none'}"
                ) from error


def arena_bytes(content: bytes) -> int | None:
    """Return the tensor arena that TFLM needs for a model, in bytes, as it reports on this 64-bit host.

    A 32-bit microcontroller needs less, because the persistent part holds pointers
    (`estimate.estimate_arena_bytes_32bit`). The file may be anybody's: it is tried in a child process, and
    LiteRT opens it first.

    Returns:
        The memory in use once the model is open, which is the smallest arena that works wherever the
        activations take more than a few hundred bytes; with less, TFLM's planning needs up to some two
        hundred bytes more for a moment. None where TFLM is not installed.

    Raises:
        InputError: LiteRT or TFLM cannot run the model, or an engine does not survive it.
        RunError: TFLM does not say, or cannot because this process has no standard error; or as for
            `try_in_child`.
    """
    if find_spec("tflite_micro") is None:
        return None
    from mexit_edge.runtime.engines import open_model

    try_in_child([content], ["tflm"])
    open_model("tflm", content)
    return own_arena_bytes(content)


def own_arena_bytes(content: bytes) -> int | None:
    """Return what `arena_bytes` does, for a model that was made in this process: it is opened untried."""
    report = own_arena_report(content)
    return None if report is None else report.total_bytes


def own_arena_report(content: bytes) -> ArenaReport | None:
    """Return the arena and its two parts, for a model that was made in this process: it is opened untried.

    Returns:
        None where TFLM is not installed.

    Raises:
        InputError: TFLM cannot run the model.
        RunError: TFLM does not say, or cannot because this process has no standard error.
    """
    if find_spec("tflite_micro") is None:
        return None
    interpreter = open_interpreter(content)
    with CaughtStderr(keep=True) as report:
        interpreter.print_allocations()
    found = {f"{part}_bytes": int(size) for part, size in _REPORT.findall(report.text())}
    if len(found) < 3:
        raise RunError(f"TFLM must report its arena on standard error. Received: {report.text()[:200]!r}.")
    return ArenaReport(**found)
