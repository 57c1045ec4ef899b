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
    """Return the tensor arena that TFLM needs for a model, in bytes, as it reports on this 64-bit host.

    A 32-bit microcontroller needs less, because the persistent part holds pointers.

    Returns:
        The memory in use once the model is open, which is the smallest arena that works wherever the
        activations take more than a few hundred bytes; with less, TFLM's planning needs up to some two
        hundred bytes more for a moment. None where TFLM is not installed.
    """
    if find_spec("tflite_micro") is None:
        return None
    interpreter = open_interpreter(content)
    with CaughtStderr() as report:
        interpreter.print_allocations()
    found = _TOTAL.search(report.text())
    return int(found.group(1)) if found else None
