"""The converter's own process: a saved model, representative windows and a request in, one .tflite out.

Run as a script with the folder of these and the name of a quantizer; it imports nothing of this package, so
that it starts with TensorFlow alone.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SAVED_MODEL = "saved_model"
REPRESENTATIVE, INPUT = "representative.npz", "input_"
REQUEST = "request.json"
MODEL = "model.tflite"
REFUSAL = "refusal.txt"
REFUSED = 3
MLIR, LEGACY = "mlir", "legacy"

# The first names the scope that the operator stands in: functional_1/my_layer_1/Betainc.
_WITHOUT_A_FORM = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")
_SCOPE = re.compile(r'fused\["(\w+):", "([^"@]+)@')
_NOT_QUANTIZED = re.compile(r"Quantization(?: to 16x8-bit)? not yet supported for op: '(\w+)'")


def main(folder: Path, quantizer: str) -> int:
    """Convert; write the model, or the operators for which the converter has no form of the kind asked for.

    The request holds the fields of a `Quantization`. Without representative windows the ranges are those
    that the network itself carries.

    Any other failure of the converter is raised: it says nothing about the network.
    """
    import tensorflow as tf

    request = json.loads((folder / REQUEST).read_text("utf-8"))
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / SAVED_MODEL))
    converter.experimental_new_quantizer = quantizer == MLIR
    _configure(converter, request, _representative(folder / REPRESENTATIVE))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = converter.convert()
    except Exception as error:
        # The converter raises a private type for some operators and RuntimeError for others.
        operators = _refused_operators(str(error))
        if not operators:
            raise
        (folder / REFUSAL).write_text(json.dumps(operators), encoding="utf-8")
        return REFUSED
    (folder / MODEL).write_bytes(content)
    return 0


def _configure(converter: Any, request: dict[str, Any], dataset: Callable[[], Iterator[Any]] | None) -> None:
    import tensorflow as tf

    kind = request["kind"]
    if kind == "float32":
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind in ("float16", "dynamic"):
        return
    converter.representative_dataset = dataset
    sets = tf.lite.OpsSet
    operators = {
        "int8": sets.TFLITE_BUILTINS_INT8,
        "int16": sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
    }
    if dataset is not None:
        converter.target_spec.supported_ops = [operators[kind]]
    converter._experimental_disable_per_channel = not request["per_channel"]
    converter.inference_input_type = converter.inference_output_type = tf.as_dtype(request["io"])


def _representative(file: Path) -> Callable[[], Iterator[Any]] | None:
    """Return what the converter observes: one window at a time, by place or, with several inputs, by name."""
    import numpy as np

    if not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as stored:
        arrays = {name.removeprefix(INPUT): stored[name] for name in stored.files}

    def windows() -> Iterator[Any]:
        for index in range(len(next(iter(arrays.values())))):
            sample = {name: values[index : index + 1] for name, values in arrays.items()}
            yield sample if len(sample) > 1 else list(sample.values())

    return windows


def _refused_operators(text: str) -> dict[str, str]:
    """Return the operators that an error of the converter says it has no form for -> scope, "" if unknown."""
    scopes = dict(_SCOPE.findall(text))
    names = {*_WITHOUT_A_FORM.findall(text), *_NOT_QUANTIZED.findall(text)}
    return {name: scopes.get(name, "") for name in sorted(names)}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
