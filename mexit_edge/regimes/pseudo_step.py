"""One step of a Keras optimizer as a differentiable function of the gradients, with no state touched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mexit_edge.errors import InputError

_SUPPORTED = (keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.AdamW)


def check_pseudo_step(optimizer: Any) -> None:
    """Refuse an optimizer whose step `pseudo_step` does not know.

    Args:
        optimizer: any Keras optimizer, built or not.

    Raises:
        InputError: it is not exactly one of SGD, Adam and AdamW (a subclass may step otherwise), or it has an
            option that makes a step something else: amsgrad, gradient accumulation, loss scaling, weights
            overwritten by their moving average.
    """
    if type(optimizer) not in _SUPPORTED:
        known = ", ".join(f"keras.optimizers.{kind.__name__}" for kind in _SUPPORTED)
        raise InputError(
            f"`optimizer` must be one of: {known}. Received: {type(optimizer).__name__}. "
            "Only these have a step that can be differentiated here."
        )
    options = {
        "amsgrad": getattr(optimizer, "amsgrad", False),
        "gradient_accumulation_steps": optimizer.gradient_accumulation_steps,
        "loss_scale_factor": optimizer.loss_scale_factor,
        "ema_overwrite_frequency": optimizer.use_ema and optimizer.ema_overwrite_frequency,
    }
    for option, value in options.items():
        if value:
            raise InputError(
                f"`optimizer` must not use {option} here, which changes what one step does. "
                f"Received: {type(optimizer).__name__} with {option}={value}. Leave the option out."
            )


def pseudo_step(
    optimizer: Any, values: Sequence[Any], gradients: Sequence[Any], variables: Sequence[Any]
) -> list[Any]:
    """Return what the variables would hold after the optimizer's next step, were these their gradients.

    The step uses the optimizer as it stands: learning rate (of a schedule, at the present iteration),
    momenta, bias correction, clipping, decoupled weight decay, and the variables' constraints. The global
    norm is taken over the gradients given.

    Args:
        optimizer: SGD, Adam or AdamW of Keras, built on at least these variables.
        values: a tensor per variable, where the step starts.
        gradients: a tensor per variable; None for a variable that the loss does not reach, which keeps its
            value without weight decay, as in Keras.
        variables: Keras variables, by which momenta are found.

    Returns:
        A tensor per variable, differentiable in ``values`` and ``gradients``.

    Raises:
        InputError: see `check_pseudo_step`; or the optimizer is not built, or not on these variables.
    """
    check_pseudo_step(optimizer)
    # Private names of keras 3.15 from here on: _var_key, _trainable_variables_indices, _get_variable_index,
    # _use_weight_decay, and the buffers in _sgd and _adam (guarded by test_equals_the_real_step).
    if not optimizer.built:
        raise InputError(
            "`optimizer` must be built before its step is imitated. Received: "
            f"{type(optimizer).__name__} without state. Call optimizer.build(variables) first."
        )
    strangers = [
        variable.path
        for variable in variables
        if optimizer._var_key(variable) not in optimizer._trainable_variables_indices
    ]
    if strangers:
        raise InputError(f"`variables` must be ones that `optimizer` was built on. Received: {strangers}.")
    rule = _sgd if type(optimizer) is keras.optimizers.SGD else _adam
    after = []
    for value, gradient, variable in zip(values, _clipped(optimizer, gradients), variables, strict=True):
        if gradient is None:
            after.append(value)
            continue
        rate = tf.cast(optimizer.learning_rate, value.dtype)
        change = rule(optimizer, tf.cast(gradient, value.dtype), variable, rate)
        # `.value` is what Keras asks with on TensorFlow; it remembers its first answer per variable.
        if optimizer.weight_decay is not None and optimizer._use_weight_decay(variable.value):
            value = value - value * tf.cast(optimizer.weight_decay, value.dtype) * rate
        value = value + change
        after.append(value if variable.constraint is None else variable.constraint(value))
    return after


def _sgd(optimizer: Any, gradient: Any, variable: Any, rate: Any) -> Any:
    if optimizer.momentum == 0:
        return -gradient * rate
    momentum = tf.cast(optimizer.momentum, gradient.dtype)
    buffer = _tensor(optimizer.momentums[optimizer._get_variable_index(variable)])
    velocity = buffer * momentum - gradient * rate
    return velocity * momentum - gradient * rate if optimizer.nesterov else velocity


def _adam(optimizer: Any, gradient: Any, variable: Any, rate: Any) -> Any:
    dtype = gradient.dtype
    index = optimizer._get_variable_index(variable)
    step = tf.cast(optimizer.iterations.value + 1, dtype)
    first, second = _tensor(optimizer._momentums[index]), _tensor(optimizer._velocities[index])
    first = first + (gradient - first) * (1 - optimizer.beta_1)
    second = second + (tf.square(gradient) - second) * (1 - optimizer.beta_2)
    powers = [tf.pow(tf.cast(beta, dtype), step) for beta in (optimizer.beta_1, optimizer.beta_2)]
    rate = rate * tf.sqrt(1 - powers[1]) / (1 - powers[0])
    return -first * rate / (_root(second) + optimizer.epsilon)


def _clipped(optimizer: Any, gradients: Sequence[Any]) -> list[Any]:
    """Return the gradients as Keras clips them; the constructor takes one kind of clipping at most."""
    # A gather leaves IndexedSlices.
    given = [None if gradient is None else tf.convert_to_tensor(gradient) for gradient in gradients]
    present = [gradient for gradient in given if gradient is not None]
    if optimizer.clipnorm:
        return [None if one is None else tf.clip_by_norm(one, optimizer.clipnorm) for one in given]
    if optimizer.global_clipnorm and present:
        norm = _root(tf.add_n([tf.reduce_sum(tf.square(one)) for one in present]))
        scale = optimizer.global_clipnorm / tf.maximum(norm, optimizer.global_clipnorm)
        return [None if one is None else one * scale for one in given]
    if optimizer.clipvalue:
        limit = optimizer.clipvalue
        return [None if one is None else tf.clip_by_value(one, -limit, limit) for one in given]
    return given


def _root(square: Any) -> Any:
    """Return the square root, with derivative 0 where the square is 0.

    sqrt'(0) is infinite, and times the derivative of the square, 0, it is NaN: one weight behind a nearly
    dead ReLU would spoil the whole meta gradient. TensorFlow's kernel answers 0 where nothing comes down to
    it, but not where a gradient is so small that its square is 0 and it is not. With the root's derivative
    taken as 0 there, Adam's first step, which is proportional to g / (c |g| + epsilon), gets its true
    derivative at g = 0, 1 / epsilon: that of |g| enters only multiplied by g.
    """
    # Subnormal numbers too: kernels flush them to 0, in the root or in the comparison.
    positive = square > np.finfo(square.dtype.as_numpy_dtype).tiny
    root = tf.sqrt(tf.where(positive, square, tf.ones_like(square)))
    return tf.where(positive, root, tf.zeros_like(square))


def _tensor(variable: Any) -> Any:
    return tf.convert_to_tensor(variable.value)
