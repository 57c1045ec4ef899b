"""The converter's own process: a saved model and representative windows in, one int8 .tflite out.

Run as a script with the folder of both and the name of a quantizer; it imports nothing of this package, so
that it starts with TensorFlow alone.
"""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

SAVED_MODEL = "saved_model"
REPRESENTATIVE = "representative.npy"
MODEL = "model.tflite"
REFUSAL = "refusal.txt"
REFUSED = 3
MLIR, LEGACY = "mlir", "legacy"

_UNKNOWN_OPERATOR = re.compile(
    r"'tf\.(\w+)' op is neither a custom op nor a flex op|\btf\.(\w+)\s*\("
    r"|Quantization not yet supported for op: '(\w+)'"
)


def main(folder: Path, quantizer: str) -> int:
    """Convert; write the model, or the reason why the network cannot become int8."""
    import numpy as np
    import tensorflow as tf

    windows = np.load(folder / REPRESENTATIVE, allow_pickle=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / SAVED_MODEL))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([windows[index : index + 1]] for index in range(len(windows)))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.experimental_new_quantizer = quantizer == MLIR
    converter.inference_input_type = converter.inference_output_type = tf.int8
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = converter.convert()
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        (folder / REFUSAL).write_text(_sentence(error), encoding="utf-8")
        return REFUSED
    except Exception as error:
        # ConverterError has no public name: it is told by its own.
        if type(error).__name__ != "ConverterError":
            raise
        (folder / REFUSAL).write_text(_sentence(error), encoding="utf-8")
        return REFUSED
    (folder / MODEL).write_bytes(content)
    return 0


def _sentence(error: Exception) -> str:
    """Return one sentence that names the operators the converter has no int8 form for."""
    text = str(error)
    names = sorted({name for found in _UNKNOWN_OPERATOR.findall(text) for name in found if name})
    if names:
        return f"the operator {', '.join(names)}."
    return " ".join(text.split())[:300].rstrip(".") + "."


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
