"""Which activation of Keras a function is."""

from __future__ import annotations

import sys
from typing import Any

import keras


def activation_name(function: Any) -> str | None:
    """Return the name that an activation has in Keras; None for any other function, and for a layer.

    Functions of `keras.ops` and `tf.nn` that compute the same go by that name too. All of them are told by
    identity: a function of one's own may be called `relu` as well.

    Args:
        function: of `keras.activations`, `keras.ops` or `tf.nn`, or None for the linear one.
    """
    if function is None:
        return "linear"
    # Functions of a second generation say so: `tf.nn.softmax` calls itself softmax_v2.
    name = str(getattr(function, "__name__", "")).removesuffix("_v2")
    # Where nobody has imported TensorFlow, no function is one of its own.
    tensorflow = sys.modules.get("tensorflow")
    homes = (keras.activations, keras.ops, *([tensorflow.nn] if tensorflow else []))
    found = any(getattr(home, name, None) is function for home in homes)
    activation = getattr(keras.activations, name, None)
    # By default it approximates, where the one of `keras.activations` is exact.
    if not found or activation is None or function is keras.ops.gelu:
        return None
    return str(activation.__name__)
