"""Which of Keras' activations a function is."""

from __future__ import annotations

from typing import Any

import keras


def activation_name(function: Any) -> str | None:
    """Return the name of an activation of Keras; None for any other function, and for a layer.

    By identity: a function of one's own may be called `relu` too.

    Args:
        function: of `keras.activations`, or None for the linear one.
    """
    if function is None:
        return "linear"
    name = str(getattr(function, "__name__", ""))
    return name if getattr(keras.activations, name, None) is function else None
