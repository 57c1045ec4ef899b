"""Run the converter in a process of its own.

Some graphs (rolled recurrent layers among them) crash the interpreter that the converter runs in: then the
caller gets an error and nothing is lost.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from mexit_edge.compress import converter_child
from mexit_edge.errors import InputError, RunError

TIMEOUT_S = 900


class Refusal(InputError):
    """The converter has no form of the kind asked for of some operators.

    Args:
        operators: name -> scope in the network, "" where the converter does not say it.
    """

    def __init__(self, operators: dict[str, str]) -> None:
        super().__init__(
            "`network` must consist of operators that the converter has a form for. "
            f"Received: {', '.join(operators)}. Replace the layers that make them."
        )
        self.operators = operators


def run_child(workshop: Path, quantizer: str) -> bytes:
    """Convert what stands in a folder and return the .tflite.

    Args:
        workshop: with the files that `converter_child` reads.
        quantizer: name of one of its quantizers.

    Raises:
        Refusal: the network has an operator that has no form of the kind asked for.
        RunError: the converter crashed or took longer than 15 minutes.
    """
    command = [sys.executable, str(Path(converter_child.__file__)), str(workshop), quantizer]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"The TFLite converter did not finish within {TIMEOUT_S} seconds.") from None
    refusal = workshop / converter_child.REFUSAL
    if done.returncode == converter_child.REFUSED and refusal.is_file():
        raise Refusal(json.loads(refusal.read_text("utf-8")))
    if done.returncode != 0:
        raise RunError(
            f"The TFLite converter crashed ({_reason(done.returncode)}). Nothing was written. "
            f"Its last words: {done.stderr.strip()[-400:] or 'none'}"
        )
    return (workshop / converter_child.MODEL).read_bytes()


def _reason(returncode: int) -> str:
    if returncode < 0:
        return f"killed by signal {signal.Signals(-returncode).name}"
    return f"exit status {returncode}"
