"""From a network with several inputs of one window length to one that takes the whole window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from mexit_edge.errors import InputError, unknown_name
from mexit_edge.models.layer_calls import input_name, layer_calls

WINDOW = "window"
LISTED_CHANNELS = 10


@keras.saving.register_keras_serializable("mexit_edge")
class SelectChannels(keras.layers.Layer):
    """Some of a window's channels, in the order given.

    Called with (batch, time, channels). Channels at equal distances make one slice, others several and a
    concatenation: both are int8 operators that move data and change no value.

    Args:
        channels: indices, at least one.
    """

    def __init__(self, channels: Sequence[int], **options: Any) -> None:
        super().__init__(**options)
        self.channels = [int(channel) for channel in channels]

    def call(self, inputs: Any) -> Any:
        """Return (batch, time, selected channels)."""
        parts = [inputs[:, :, slice(*bounds)] for bounds in slices_of(self.channels)]
        return parts[0] if len(parts) == 1 else keras.ops.concatenate(parts, axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the input with the selected channels."""
        return (*input_shape[:-1], len(self.channels))

    def get_config(self) -> dict[str, Any]:
        """Return the channels with Keras' own options."""
        return {**super().get_config(), "channels": self.channels}


def slices_of(channels: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return slices (start, stop, step) that select these channels in turn, one for equal distances."""
    slices: list[tuple[int, int, int]] = []
    place = 0
    while place < len(channels):
        start = channels[place]
        step = channels[place + 1] - start if place + 1 < len(channels) else 1
        length = 1
        rest = channels[place:]
        while step > 0 and length < len(rest) and rest[length] == start + length * step:
            length += 1
        slices.append((start, channels[place + length - 1] + 1, max(step, 1) if length > 1 else 1))
        place += length
    return slices


def join_inputs(model: keras.Model, channels: Mapping[str, Sequence[int]]) -> keras.Model:
    """Return a network of the same layers that takes one window of all channels instead of several inputs.

    `Windows`, normalisation, `export` and bundles take networks of one input. The network around two sensors,
    for example, becomes one that hands each branch its channels.

    Args:
        model: functional, with or without exits; every input is (batch, time, channels), with the same time.
        channels: per input, by its name, the indices of its channels in the joined window. A channel may go
            to several inputs, and none may be left out.

    Returns:
        A functional model with the input "window" (batch, time, channels), and the model's outputs. Nested
        models are opened.

    Raises:
        InputError: the model is not functional or has one input; the inputs differ in time, have none that is
            fixed, or are no windows; or the channels do not fit the inputs.

    Example:
        ```python
        network = join_inputs(two_sensors, {"acc": [0, 1, 2], "gyr": [3, 4, 5]})
        ```
    """
    inputs = {input_name(tensor): tensor for tensor in layer_calls(model).flat_inputs}
    _check_inputs(inputs)
    _check_channels(channels, inputs)
    n_channels = 1 + max(index for chosen in channels.values() for index in chosen)
    time = next(iter(inputs.values())).shape[1]
    window = keras.Input((time, n_channels), name=WINDOW)
    selected = [SelectChannels(channels[name], name=f"select_{name}")(window) for name in inputs]
    network = layer_calls(model, inputs=selected)
    return keras.Model(window, network.outputs, name=f"{model.name}_joined")


def _check_inputs(inputs: Mapping[str, Any]) -> None:
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in inputs.items()}
    if len(inputs) < 2:
        raise InputError(
            f"`model` must have several inputs. Received: one, {next(iter(inputs))!r}. Use it as it is."
        )
    if any(len(shape) != 2 for shape in shapes.values()) or len({shape[0] for shape in shapes.values()}) > 1:
        raise InputError(
            f"`model` must have inputs (time, channels) of one length. Received: {shapes}. "
            "Resample or pad in front of the network."
        )
    if any(None in shape for shape in shapes.values()):
        raise InputError(
            f"`model` must have inputs of a fixed length and number of channels. Received: {shapes}. "
            "Build it for windows of one length."
        )


def _check_channels(channels: Mapping[str, Sequence[int]], inputs: Mapping[str, Any]) -> None:
    for name in channels:
        if name not in inputs:
            raise unknown_name("channels", name, inputs)
    missing = [name for name in inputs if name not in channels]
    if missing:
        raise InputError(
            f"`channels` needs the channels of every input ({', '.join(inputs)}). "
            f"Received: none for {', '.join(missing)}."
        )
    for name, chosen in channels.items():
        n_channels = inputs[name].shape[-1]
        whole = all(isinstance(index, int) and not isinstance(index, bool) and index >= 0 for index in chosen)
        if not whole or len(chosen) != n_channels:
            raise InputError(
                f"`channels` needs {n_channels} indices from 0 on for the input {name!r}. "
                f"Received: {list(chosen)}."
            )
    used = {index for chosen in channels.values() for index in chosen}
    n_unused = max(used) + 1 - len(used)
    if n_unused:
        # Among so many numbers this many are free; the largest channel itself may be a slip of any size.
        first = [index for index in range(len(used) + LISTED_CHANNELS) if index not in used]
        listed = ", ".join(map(str, first[: min(n_unused, LISTED_CHANNELS)]))
        rest = f" and {n_unused - LISTED_CHANNELS} others" if n_unused > LISTED_CHANNELS else ""
        raise InputError(
            f"`channels` must give every channel from 0 to {max(used)} to an input. Received: none for "
            f"{listed}{rest}. Leave such channels out of the windows."
        )
