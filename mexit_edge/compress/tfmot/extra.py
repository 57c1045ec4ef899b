"""The second Keras and TensorFlow Model Optimization, loaded when they are needed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from types import ModuleType

from mexit_edge.errors import MissingExtraError


@dataclass(frozen=True)
class Extra:
    """The modules of the [compress] extra.

    Args:
        keras: `tf_keras`, the Keras 2 that TensorFlow Model Optimization is written for.
        tfmot: `tensorflow_model_optimization`.
    """

    keras: ModuleType
    tfmot: ModuleType


def load_extra() -> Extra:
    """Return the modules of the [compress] extra.

    Raises:
        MissingExtraError: it is not installed.
    """
    if any(find_spec(name) is None for name in ("tf_keras", "tensorflow_model_optimization")):
        raise MissingExtraError("TensorFlow Model Optimization", "compress")
    return _imported()


@cache
def _imported() -> Extra:
    # Both warn of their own use of NumPy and TensorFlow while they are imported.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_model_optimization as tfmot
        import tf_keras

    return Extra(tf_keras, tfmot)
