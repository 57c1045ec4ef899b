"""Quantization-aware training as TensorFlow Model Optimization has it."""

from __future__ import annotations

import json
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mexit_edge.compress import converter, converter_child
from mexit_edge.compress.quantization import Quantization
from mexit_edge.compress.tfmot.fine_tuning import FineTuning, Task
from mexit_edge.errors import InputError
from mexit_edge.tflite import audit_int8

TFMOT_QUANTIZATION_AWARE = "tfmot quantization-aware"


def tfmot_quantize_aware(
    network: Any,
    x: Any,
    y: Any = None,
    *,
    epochs: int = 5,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
    verbose: int | str = "auto",
) -> bytes:
    """Fine-tune with the fake quantization of TensorFlow Model Optimization, and convert to int8.

    Offered as it is, to compare with. Its activation ranges begin at +-6 and follow the data slowly, by an
    average with a factor of 0.999 per step: a short fine-tuning leaves them too wide or too narrow. It knows
    fewer layers than the bridge: no product, no activation but ReLU and softmax, no normalisation that does
    not follow a convolution. The loss is the mean cross-entropy of all exits.

    Args:
        network: a trained `MultiExitModel`, or a functional network with outputs ``exit_01``, ...; it stays
            as it is.
        x: training `Windows` or arrays, see `prune`.
        y: (n,) class indices, with arrays only.
        epochs: of the fine-tuning.
        batch_size: windows per step.
        learning_rate: at the start; it falls to zero along a cosine.
        seed: of order, perturbations and dropout; sets the global seeds (`keras.utils.set_random_seed`).
        verbose: as in `keras.Model.fit`.

    Returns:
        One int8 .tflite with a static batch of 1 and outputs ``exit_01``, ..., for `bundle_from_whole`, which
        takes ``fine_tuned(model.provenance, TFMOT_QUANTIZATION_AWARE)`` as its `training`.

    Raises:
        InputError: an argument is out of range, a layer is unknown to tf_keras or has no fake quantization,
            by name, the windows do not fit, or an operator is left in float.
        MissingExtraError: the [compress] extra is not installed.
        RunError: the converter crashed.

    Reference:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference", arXiv 1712.05877.
    """
    settings = FineTuning(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed, verbose=verbose
    )
    task = Task(network, x, y, settings)
    try:
        twin = task.extra.tfmot.quantization.keras.quantize_model(task.bridged.twin)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            "`network` must consist of layers that TensorFlow Model Optimization can quantize. "
            f"Received: {str(error).partition('. ')[0]}. Use another quantization-aware training."
        ) from error
    task.fine_tune(twin)
    content = _converted(twin, task)
    audit_int8(content)
    return content


def _converted(twin: Any, task: Task) -> bytes:
    """Return the fake-quantized twin as an int8 .tflite whose signature names the exits."""
    import tensorflow as tf

    exits = task.bridged.exits
    # A static batch of 1: see `convert`.
    specs = [tf.TensorSpec((1, *tensor.shape[1:]), tf.float32, tensor.name) for tensor in task.network.inputs]

    def serve(*inputs: Any) -> dict[str, Any]:
        outputs = twin(list(inputs) if len(inputs) > 1 else inputs[0], training=False)
        # tf_keras gives a single output without its list.
        return dict(zip(exits, tf.nest.flatten(outputs), strict=True))

    holder = tf.Module()
    holder.twin_variables = list(twin.variables)
    holder.serve = tf.function(serve, input_signature=specs)
    with tempfile.TemporaryDirectory(prefix="mexit-convert-") as folder, warnings.catch_warnings():
        # TensorFlow tells of the layers it does not save for training.
        warnings.simplefilter("ignore")
        workshop = Path(folder)
        saved_model = str(workshop / converter_child.SAVED_MODEL)
        tf.saved_model.save(holder, saved_model, signatures={"serving_default": holder.serve})
        # Without representative windows: the ranges are those of the fake quantization.
        (workshop / converter_child.REQUEST).write_text(json.dumps(asdict(Quantization("int8"))), "utf-8")
        return converter.run_child(workshop, converter_child.MLIR)
