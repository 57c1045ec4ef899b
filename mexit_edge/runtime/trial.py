"""A trial in a child process: what a file that is not ours does to an engine, it does to the child.

LiteRT and TFLM end the whole process on some damaged files, LiteRT on about one in several hundred that pass
every check made here (benchmarks/fuzz.py). Whatever opens models of a file from elsewhere asks here first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from mexit_edge.errors import InputError

CHILD_TIMEOUT_S = 60
ROOT = Path(__file__).parents[2]
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
            for n in (1, 3):
                model.run_batch([np.zeros((n, *one.shape[1:]), one.numpy_dtype) for one in inputs])
            model.set_input(0, np.zeros(inputs[0].shape, inputs[0].numpy_dtype))
            model.invoke()
            model.get_output(0)
        except Exception:
            pass
"""


def try_in_child(contents: Iterable[bytes], engines: Sequence[str] | None = None) -> None:
    """Open and run models once in a process of its own, where an engine may crash on a damaged one.

    Args:
        contents: .tflite files. The same ones are tried once per process.
        engines: that will run them; None for all that this machine can run.

    Raises:
        InputError: an engine crashed, or did not come back within a minute.
    """
    from mexit_edge.runtime.engines import available_engines

    if sys.executable:  # embedded in an application there may be no interpreter to start
        available = available_engines()
        _try_in_child(tuple(contents), tuple(name for name in engines or available if name in available))


@cache
def _try_in_child(contents: tuple[bytes, ...], engines: tuple[str, ...]) -> None:
    task = {"root": str(ROOT), "engines": engines, "models": [content.hex() for content in contents]}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD],
            input=json.dumps(task).encode(),
            capture_output=True,
            timeout=CHILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        ending = f"none after {CHILD_TIMEOUT_S} seconds"
    else:
        if done.returncode >= 0:
            return
        ending = f"signal {-done.returncode}"
    raise InputError(
        f"a model must be a whole .tflite that {' and '.join(engines)} can come back from. "
        f"Received: {ending}, from a trial in a child process. Export or convert it again."
    )
