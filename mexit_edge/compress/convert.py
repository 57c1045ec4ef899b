"""Quantize a whole multi-exit network to int8 and convert it to one .tflite.

The converter runs in a child process, because some graphs (rolled recurrent layers among them) crash the
interpreter it runs in: then the caller gets an error and nothing is lost.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from mexit_edge.compress import converter_child
from mexit_edge.errors import InputError, RunError
from mexit_edge.signals import Windows
from mexit_edge.tflite import audit_int8, is_int8

TIMEOUT_S = 900
N_REPRESENTATIVE = 300


def representative_sample(windows: Windows, n: int = N_REPRESENTATIVE, seed: int = 0) -> Windows:
    """Choose windows on which the ranges of activations are observed: the same number of every class.

    Unlabelled windows are chosen, at random, only for what labelled ones leave of ``n``.

    Args:
        windows: of training subjects, labelled or not.
        n: number of windows in all, at most.
        seed: of the choice.

    Raises:
        InputError: there is no window.
    """
    if not len(windows):
        raise InputError("`representative` must hold at least one window. Received: none.")
    rng = np.random.default_rng(seed)
    present = np.unique(windows.y[windows.labelled])
    per_class = max(1, n // max(1, len(present)))
    chosen = [rng.permutation(np.flatnonzero(windows.y == label))[:per_class] for label in present]
    rest = max(0, n - sum(map(len, chosen)))
    chosen.append(rng.permutation(np.flatnonzero(~windows.labelled))[:rest])
    return windows.take(np.sort(np.concatenate(chosen)))


def convert_int8(network: keras.Model, representative: NDArray[np.float32]) -> bytes:
    """Return the network as one int8 .tflite with int8 inputs and outputs and a static batch of 1.

    Args:
        network: a functional model with one input and named outputs.
        representative: (n, ...) normalised windows on which activation ranges are observed.

    Raises:
        InputError: the network has a rolled recurrent layer, an operator without an int8 form, or one that
            TFLite does not have.
        RunError: the converter crashed or took longer than 15 minutes.
    """
    _refuse_rolled_recurrence(network)
    with tempfile.TemporaryDirectory(prefix="mexit-convert-") as folder:
        workshop = Path(folder)
        # With a dynamic batch the converter emits SPACE_TO_BATCH_ND for dilations, which TFLM computes
        # wrongly without an error; with a static batch of 1 it fuses them.
        specification = keras.InputSpec(shape=(1, *network.inputs[0].shape[1:]), dtype="float32")
        network.export(
            str(workshop / converter_child.SAVED_MODEL),
            format="tf_saved_model",
            input_signature=[specification],
            verbose=False,
        )
        np.save(workshop / converter_child.REPRESENTATIVE, representative.astype(np.float32))
        content = _run_child(workshop, converter_child.MLIR)
        if is_int8(content):
            return content
        # The converter's MLIR quantizer gives up on some graphs, among them a residual sum that feeds both a
        # head and a convolution, and leaves float operators without a word. Its older one takes these.
        content = _run_child(workshop, converter_child.LEGACY)
    audit_int8(content)
    return content


def _refuse_rolled_recurrence(network: keras.Model) -> None:
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.RNN) and not getattr(layer, "unroll", False):
            raise InputError(
                "`network` must consist of layers that have an int8 form. Received: the recurrent layer "
                f"{layer.name!r} ({type(layer).__name__}). Use `unroll=True`, or a convolutional network."
            )


def _run_child(workshop: Path, quantizer: str) -> bytes:
    """Run the converter in a process of its own and return what it wrote."""
    command = [sys.executable, str(Path(converter_child.__file__)), str(workshop), quantizer]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"The TFLite converter did not finish within {TIMEOUT_S} seconds.") from None
    refusal = workshop / converter_child.REFUSAL
    if done.returncode == converter_child.REFUSED and refusal.is_file():
        raise InputError(
            "`network` must consist of operators that have an int8 form in TFLite. "
            f"Received: {refusal.read_text('utf-8')} Replace the layer that makes it."
        )
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
