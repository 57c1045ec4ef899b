"""A trial in a child process: what a file that is not ours does to an engine, it does to the child.

LiteRT and TFLM end the whole process on some damaged files, LiteRT on about one in several hundred that pass
every check made here (benchmarks/fuzz.py). Whatever opens models of a file from elsewhere asks here first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from mexit_edge.bundle import Bundle
from mexit_edge.errors import InputError, RunError
from mexit_edge.files import sha256

CHILD_TIMEOUT_S = 60
ROOT = Path(__file__).parents[2]
LAST_WORD = b"came through"
# It runs each model as the loop will: one window, then several at once. What an engine refuses without a
# crash passes: opening it afterwards says why.
_CHILD = """
import json, sys
task = json.load(sys.stdin)
sys.path.insert(0, task["root"])
import numpy as np
from mexit_edge.runtime.engines import open_model
from mexit_edge.tflite import Graph
for content in map(bytes.fromhex, task["models"]):
    for engine in task["engines"]:
        try:
            graph = Graph(content)
            model = open_model(engine, content)
            inputs = [graph.tensors[index] for index in graph.inputs]
            for place, one in enumerate(inputs):
                model.set_input(place, np.zeros(one.shape, one.numpy_dtype))
            model.invoke()
            model.get_output(0)
            for n in (1, 3):
                model.run_batch([np.zeros((n, *one.shape[1:]), one.numpy_dtype) for one in inputs])
        except Exception:
            pass
print(task["last_word"])
"""
# What came through: sha256 of a model, and engine.
_passed: set[tuple[str, str]] = set()


def try_bundle(bundle: Bundle, engines: Sequence[str] | None = None) -> None:
    """Try the stages of a bundle that was read from a file; one made in this process is trusted.

    Args:
        bundle: to be opened.
        engines: as for `try_in_child`.

    Raises:
        InputError, RunError: as for `try_in_child`.
    """
    if bundle.foreign:
        try_in_child(bundle.stages, engines)


def try_in_child(contents: Iterable[bytes], engines: Sequence[str] | None = None) -> None:
    """Open and run models once in a process of its own, where an engine may crash on a damaged one.

    Args:
        contents: .tflite files. The same one is tried once per engine and process.
        engines: that will run them; None for all that this machine can run.

    Raises:
        InputError: an engine crashed, or did not come back within a minute.
        RunError: the child could not do its work, so that nothing is known.
    """
    from mexit_edge.runtime.engines import available_engines

    if not sys.executable:  # embedded in an application there may be no interpreter to start
        return
    available = available_engines()
    names = [name for name in engines or available if name in available]
    by_hash = {sha256(content): content for content in contents}
    untried = [key for key in by_hash if not {(key, name) for name in names} <= _passed]
    if untried:
        _run_child([by_hash[key] for key in untried], names)
        _passed.update((key, name) for key in untried for name in names)


def _run_child(contents: Sequence[bytes], engines: Sequence[str]) -> None:
    task = {
        "root": str(ROOT),
        "engines": engines,
        "models": [content.hex() for content in contents],
        "last_word": LAST_WORD.decode(),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD],
            input=json.dumps(task).encode(),
            capture_output=True,
            timeout=CHILD_TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        raise RunError(
            f"a trial needs a child process. Received: {error}. Check that this Python can start another."
        ) from error
    except subprocess.TimeoutExpired:
        ending = f"none after {CHILD_TIMEOUT_S} seconds"
    else:
        if done.returncode == 0 and done.stdout.strip().endswith(LAST_WORD):
            return
        if done.returncode >= 0:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            words = lines[-1][:300] if lines else "nothing on standard error"
            raise RunError(
                "a trial in a child process must end with its last word. "
                f"Received: exit code {done.returncode}, {words}. Check that this Python can start another."
            )
        ending = f"signal {-done.returncode}"
    raise InputError(
        f"a model must be a whole .tflite that {' and '.join(engines)} can come back from. "
        f"Received: {ending}, from a trial in a child process. Export or convert it again."
    )
