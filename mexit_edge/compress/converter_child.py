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

_REFUSED_OPERATOR = re.compile(
    r"'tf\.(\w+)' op is neither a custom op nor a flex op|Quantization not yet supported for op: '(\w+)'"
)


def main(folder: Path, quantizer: str) -> int:
    """Convert; write the model, or the operators for which the converter has no int8 form.

    Any other failure of the converter is raised: it says nothing about the network.
    """
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
    except Exception as error:
        # The converter raises a private type for some operators and RuntimeError for others.
        operators = _refused_operators(str(error))
        if not operators:
            raise
        (folder / REFUSAL).write_text(f"the operator {', '.join(operators)}.", encoding="utf-8")
        return REFUSED
    (folder / MODEL).write_bytes(content)
    return 0


def _refused_operators(text: str) -> list[str]:
    """Return the operators that an error of the converter says it has no int8 form for."""
    return sorted({name for found in _REFUSED_OPERATOR.findall(text) for name in found if name})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
