"""TensorFlow Lite Micro on the host: opening a model, trying a foreign one in a child, the arena it needs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from typing import Any

from mexit_edge.errors import InputError, RunError
from mexit_edge.runtime.native import CaughtStderr

ARENA_START = 1 << 18
ARENA_LIMIT = 1 << 26
CHILD_TIMEOUT_S = 60
_CHILD = """
import json, sys
from tflite_micro import runtime
for model in json.load(sys.stdin):
    try:
        runtime.Interpreter.from_bytes(bytes.fromhex(model), arena_size=int(sys.argv[1])).invoke()
    except Exception:
        pass
"""
_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")


def open_interpreter(content: bytes) -> Any:
    """Return a TFLM interpreter with an arena that is large enough.

    Raises:
        InputError: TFLM cannot run the model, or not in 64 MiB; with TFLM's own words.
    """
    from tflite_micro import runtime

    size = ARENA_START
    while True:
        try:
            with CaughtStderr(keep=True) as report:
                return runtime.Interpreter.from_bytes(content, arena_size=size)
        except RuntimeError as error:
            size *= 4
            if size > ARENA_LIMIT:
                words = "; ".join(line.strip() for line in report.text().splitlines() if line.strip())
                raise InputError(
                    f"a model must be one that TFLM can run, within {ARENA_LIMIT} bytes of arena. "
                    f"Received: {error}. In TFLM's words: {words or 'none'}"
                ) from error


def try_in_child(contents: Iterable[bytes]) -> None:
    """Open and run models once in a process of its own, where TFLM may crash on a damaged one.

    What TFLM refuses without a crash passes: opening it here says why.

    Args:
        contents: .tflite files. The same ones are tried once per process.

    Raises:
        InputError: TFLM crashed, or did not come back within a minute.
    """
    if find_spec("tflite_micro") is not None:
        _try_in_child(tuple(contents))


@cache
def _try_in_child(contents: tuple[bytes, ...]) -> None:
    command = [sys.executable, "-c", _CHILD, str(ARENA_LIMIT)]
    models = json.dumps([content.hex() for content in contents])
    try:
        done = subprocess.run(
            command, input=models.encode(), capture_output=True, timeout=CHILD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        ending = f"none after {CHILD_TIMEOUT_S} seconds"
    else:
        if done.returncode >= 0:
            return
        ending = f"signal {-done.returncode}"
    raise InputError(
        f"a model must be a whole .tflite that TFLM comes back from. Received: {ending}, from a trial in a "
        "child process. Export the bundle again."
    )


def arena_bytes(content: bytes) -> int | None:
    """Return the tensor arena that TFLM needs for a model, in bytes, as it reports on this 64-bit host.

    A 32-bit microcontroller needs less, because the persistent part holds pointers.

    Returns:
        The memory in use once the model is open, which is the smallest arena that works wherever the
        activations take more than a few hundred bytes; with less, TFLM's planning needs up to some two
        hundred bytes more for a moment. None where TFLM is not installed.

    Raises:
        InputError: TFLM cannot run the model.
        RunError: TFLM does not say, or cannot because this process has no standard error.
    """
    if find_spec("tflite_micro") is None:
        return None
    interpreter = open_interpreter(content)
    with CaughtStderr(keep=True) as report:
        interpreter.print_allocations()
    found = _TOTAL.search(report.text())
    if found is None:
        raise RunError(f"TFLM must report its arena on standard error. Received: {report.text()[:200]!r}.")
    return int(found.group(1))
