"""TensorFlow Lite Micro on the host: opening a model, and the arena it needs."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

from mexit_edge.errors import InputError
from mexit_edge.runtime.native import CaughtStderr

ARENA_START = 1 << 18
ARENA_LIMIT = 1 << 26
_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")


def open_interpreter(content: bytes) -> Any:
    """Return a TFLM interpreter with an arena that is large enough.

    Raises:
        InputError: TFLM cannot run the model in 64 MiB.
    """
    from tflite_micro import runtime

    size = ARENA_START
    while True:
        try:
            with CaughtStderr():
                return runtime.Interpreter.from_bytes(content, arena_size=size)
        except RuntimeError as error:
            size *= 4
            if size > ARENA_LIMIT:
                raise InputError(
                    f"a stage must run in TFLM within {ARENA_LIMIT} bytes of arena. Received: {error}."
                ) from error


def arena_bytes(content: bytes) -> int | None:
    """Return the tensor arena that TFLM needs for a model, in bytes on this 64-bit host.

    A 32-bit microcontroller needs less, because the persistent part holds pointers.

    Returns:
        The smallest arena that works; None where TFLM is not installed.
    """
    if find_spec("tflite_micro") is None:
        return None
    interpreter = open_interpreter(content)
    with CaughtStderr() as report:
        interpreter.print_allocations()
    found = _TOTAL.search(report.text())
    return _smallest_that_works(content, int(found.group(1))) if found else None


def _smallest_that_works(content: bytes, reported: int) -> int:
    """Return the smallest arena with which a model opens, at least the size that TFLM reports as used.

    Where the activations are small, planning them needs more memory for a moment than the finished plan.
    """
    if _opens(content, reported):
        return reported
    low, high = reported, 2 * reported
    while not _opens(content, high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _opens(content, middle) else (middle, high)
    return high


def _opens(content: bytes, size: int) -> bool:
    from tflite_micro import runtime

    try:
        with CaughtStderr():
            runtime.Interpreter.from_bytes(content, arena_size=size)
    except RuntimeError:
        return False
    return True
