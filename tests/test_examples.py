"""Every example runs, as its own docstring says."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run_example(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_example_is_run_here():
    tested = {"device_loop.py", "fit_own_arrays.py", "own_network.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def test_device_loop():
    output = run_example("device_loop.py")
    assert "0 decisions differ" in output
    assert "TensorFlow loaded: False" in output


@pytest.mark.train
@pytest.mark.slow
@pytest.mark.parametrize("name", ["fit_own_arrays.py", "own_network.py"])
def test_training_example(name, tmp_path):
    if find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed (the [train] extra)")
    run_example(name, str(tmp_path))
    assert len(list(tmp_path.glob("*.mexit/stage_01.tflite"))) == 1
