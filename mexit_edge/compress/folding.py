"""A network as int8 kernels see it: batch normalization folded away, 1-D layers as 2-D ones of height 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mexit_edge.compress.flat_graph import Call, FlatGraph
from mexit_edge.compress.folder import refuse_channels_first, refused
from mexit_edge.compress.folding_activations import ACTIVATIONS, form_of
from mexit_edge.compress.folding_rules import RULES, rule_of
from mexit_edge.compress.operators import unusable_operand
from mexit_edge.errors import InputError
from mexit_edge.models.activation_names import activation_name
from mexit_edge.models.int8_support import layer_suggestion

layers = keras.layers
Array = NDArray[np.float32]

KERNEL_LAYERS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
    layers.Dense,
)


def known_layers() -> list[str]:
    """Return the names of the layers that `fold` takes."""
    return sorted(kind.__name__ for kind in (*KERNEL_LAYERS, layers.BatchNormalization, *RULES))


def fold(network: keras.Model) -> keras.Model:
    """Return a float network that computes the same with fewer and simpler layers.

    Batch normalization is folded into the convolution or dense layer before it, or becomes a depthwise
    convolution of kernel 1 where there is none. Layers on (time, channels) become 2-D ones of height 1, a
    separable convolution becomes two layers, causal padding a layer of its own, and so does every activation.
    Nested networks are taken apart. Inputs and outputs stay as they are, and layers keep their names; a layer
    that is used twice is still one layer. Regularisers are left behind: they are made for unfolded kernels.

    Args:
        network: a functional or built Sequential model on (time, channels), (height, width, channels) or
            (features,).

    Raises:
        InputError: names the layer that has no such form, with what to do instead.
    """
    return _Folder(FlatGraph(network)).result()


class _Folder:
    def __init__(self, graph: FlatGraph) -> None:
        self.graph = graph
        self.tensors: dict[int, Any] = {}
        self.made: dict[tuple[int, str], Any] = {}
        self.norm_of = self._norms_to_fold()

    def result(self) -> keras.Model:
        network = self.graph.network
        inputs = [
            keras.Input(tensor.shape[1:], name=tensor.name, dtype=tensor.dtype) for tensor in network.inputs
        ]
        for number, tensor, old in zip(self.graph.inputs, inputs, network.inputs, strict=True):
            rank = len(old.shape)
            if None in old.shape[1:] or rank not in (2, 3, 4):
                raise InputError(
                    "`network` must take inputs of static shape (time, channels), (height, width, channels) "
                    f"or (features,). Received: {old.name!r} of shape {old.shape[1:]}."
                )
            name = self.graph.free_name(f"{old.name}_at_height_1")
            at_height_1 = layers.Reshape((1, *old.shape[1:]), name=name)
            self.tensors[number] = at_height_1(tensor) if rank == 3 else tensor
        for call in self.graph.calls:
            self.tensors[call.output] = self._run(call)
        structure = keras.tree.pack_sequence_as(network.input, inputs)
        return keras.Model(
            structure, keras.tree.map_structure(self._output, self.graph.outputs), name=network.name
        )

    def _output(self, number: int) -> Any:
        tensor = self.tensors[number]
        if len(self.graph.shapes[number]) != 3:
            return tensor
        return layers.Reshape(tensor.shape[2:], name=self.graph.free_name("at_rank_3"))(tensor)

    def _run(self, call: Call) -> Any:
        """Return what a call becomes, on tensors of height 1."""
        inputs = [self.tensors[number] for number in call.inputs]
        layer = call.layer
        # By exact type: a subclass of somebody's own may compute anything, whatever it inherits from.
        if type(layer) in KERNEL_LAYERS:
            return self._kernel_layer(call, inputs[0])
        if type(layer) is layers.BatchNormalization:
            before = self.norm_of.get(call.inputs[0])
            return inputs[0] if before is layer else self._lone_norm(call, inputs[0])
        rule = rule_of(layer)
        if rule is None:
            raise unusable_operand(layer, call.arguments) or refused(call)
        return rule(self, call, inputs)

    def once(self, call: Call, make: Callable[[str], Any], part: str = "") -> Any:
        """Return the new layer for a part of an old one, made at the first of its calls.

        Args:
            call: of the old layer.
            make: takes the name of the new one.
            part: what it is beside the layer that keeps the old one's name; "" for that one.
        """
        key = (id(call.layer), part)
        if key not in self.made:
            self.made[key] = make(self.graph.free_name(f"{call.name}_{part}") if part else call.name)
            self.made[key].trainable = getattr(call.layer, "trainable", True)
        return self.made[key]

    def rank(self, number: int) -> int:
        """Return the rank of a tensor of the old network, the batch included."""
        return len(self.graph.shapes[number])

    def shape(self, number: int) -> tuple[int | None, ...]:
        """Return the shape of a tensor of the old network, the batch first."""
        return self.graph.shapes[number]

    def _norms_to_fold(self) -> dict[int, Any]:
        """Return the batch normalization that folds into the layer that makes a tensor, by tensor.

        A layer that is called several times has one kernel: all its calls must go to one normalization.
        """
        found: dict[int, Any] = {}
        for call in self.graph.calls:
            layer = call.layer
            if type(layer) not in KERNEL_LAYERS or activation_name(layer.activation) != "linear":
                continue
            outputs = [one.output for one in self.graph.calls_of(layer)]
            readers = [self.graph.only_consumer(number) for number in outputs]
            norms = {id(reader.layer): reader.layer for reader in readers if reader is not None}
            norm = next(iter(norms.values()), None)
            if None in readers or len(norms) != 1 or type(norm) is not layers.BatchNormalization:
                continue
            found.update(dict.fromkeys(outputs, norm))
        return found

    def _kernel_layer(self, call: Call, tensor: Any) -> Any:
        """Return what a convolution or dense layer becomes, with the normalization behind it."""
        layer = call.layer
        is_1d = self.rank(call.inputs[0]) == 3
        refuse_channels_first(call)
        norm = self.norm_of.get(call.output)
        rank = self.rank(call.output)
        kernels, bias = _weights(layer, rank)
        scale, shift = (np.ones(1, np.float32),) * 2 if norm is None else _affine(norm, call, rank)
        bias = bias if norm is None else bias * scale + shift
        tensor, options = self._placed(call, tensor, is_1d)
        if isinstance(layer, layers.SeparableConv1D | layers.SeparableConv2D):
            depthwise, pointwise = kernels
            no_bias = np.zeros(depthwise.shape[2] * depthwise.shape[3], np.float32)
            tensor = self._depthwise(call, tensor, depthwise, no_bias, options, "depthwise")
            tensor = self._weighted(call, tensor, pointwise * scale, bias, {})
        elif isinstance(layer, layers.DepthwiseConv1D | layers.DepthwiseConv2D):
            scales = np.broadcast_to(scale, bias.shape).reshape(kernels[0].shape[2:])
            tensor = self._depthwise(call, tensor, kernels[0] * scales, bias, options)
        else:
            options |= {"groups": layer.groups} if isinstance(layer, layers.Conv1D | layers.Conv2D) else {}
            tensor = self._weighted(call, tensor, kernels[0] * scale, bias, options)
        return self.activated(call, tensor, layer.activation)

    def _weighted(self, call: Call, tensor: Any, kernel: Array, bias: Array, options: dict[str, Any]) -> Any:
        """Call the convolution or dense layer of these weights."""

        def make(name: str) -> Any:
            if kernel.ndim == 2:
                return _with_weights(layers.Dense(kernel.shape[1], name=name), tensor, kernel, bias)
            new = layers.Conv2D(kernel.shape[3], kernel.shape[:2], name=name, **options)
            return _with_weights(new, tensor, kernel, bias)

        return self.once(call, make)(tensor)

    def _depthwise(
        self, call: Call, tensor: Any, kernel: Array, bias: Array, options: dict[str, Any], part: str = ""
    ) -> Any:
        """Call the depthwise convolution of these weights."""

        def make(name: str) -> Any:
            new = layers.DepthwiseConv2D(
                kernel.shape[:2], depth_multiplier=kernel.shape[3], name=name, **options
            )
            return _with_weights(new, tensor, kernel, bias)

        return self.once(call, make, part)(tensor)

    def _placed(self, call: Call, tensor: Any, is_1d: bool) -> tuple[Any, dict[str, Any]]:
        """Return the input, padded where the layer pads causally, with 2-D options of stride and padding."""
        layer = call.layer
        if isinstance(layer, layers.Dense):
            return tensor, {}
        strides, dilation = tuple(layer.strides), tuple(layer.dilation_rate)
        padding = layer.padding
        if is_1d:
            if padding == "causal":
                left = dilation[0] * (layer.kernel_size[0] - 1)
                pad = self.once(
                    call, lambda name: layers.ZeroPadding2D(((0, 0), (left, 0)), name=name), "causal"
                )
                tensor, padding = pad(tensor), "valid"
            is_depthwise = not isinstance(layer, layers.Conv1D)
            # TensorFlow's depthwise convolution wants equal strides; at height 1 the first one moves nothing.
            strides = (strides[0] if is_depthwise else 1, strides[0])
            dilation = (1, dilation[0])
        return tensor, {"strides": strides, "padding": padding, "dilation_rate": dilation}

    def activated(self, call: Call, tensor: Any, activation: Any) -> Any:
        """Return the activation of a tensor, as layers of its own."""
        form = form_of(activation, self.rank(call.output))
        if form is None:
            names = [name for name in ACTIVATIONS if name != "linear"]
            raise refused(call, layer_suggestion(activation) or f"Use {', '.join(names)} or none, by name.")
        # Behind a convolution or dense layer, which keeps its name, it is a part.
        whole = (activation_name(activation) or activation.name) if type(call.layer) in KERNEL_LAYERS else ""

        def once(make: Callable[[str], Any], part: str = "") -> Any:
            return self.once(call, make, "_".join(filter(None, (whole, part))))

        return form(once, tensor)

    def _lone_norm(self, call: Call, tensor: Any) -> Any:
        """Return a batch normalization with nothing to fold into, as a depthwise convolution of kernel 1."""
        scale, shift = _affine(call.layer, call, self.rank(call.output))
        n_channels = len(scale)
        kernel = scale.reshape(1, 1, n_channels, 1)
        if self.rank(call.inputs[0]) != 2:
            return self._depthwise(call, tensor, kernel, shift, {})
        up = self.once(call, lambda name: layers.Reshape((1, 1, n_channels), name=name), "up")
        down = self.once(call, lambda name: layers.Flatten(name=name), "down")
        return down(self._depthwise(call, up(tensor), kernel, shift, {}))


def _with_weights(layer: Any, tensor: Any, kernel: Array, bias: Array) -> Any:
    layer.build(tensor.shape)
    layer.set_weights([kernel, bias])
    return layer


def _weights(layer: Any, rank: int) -> tuple[list[Array], Array]:
    """Return kernels as the 2-D form has them, (features, units) or (height, width, ...), and the bias."""
    arrays = [np.asarray(weight, np.float32) for weight in layer.get_weights()]
    bias = arrays.pop() if layer.use_bias else None
    if isinstance(layer, layers.Conv1D | layers.DepthwiseConv1D | layers.SeparableConv1D):
        arrays = [kernel[None] for kernel in arrays]
    elif isinstance(layer, layers.Dense) and rank > 2:
        arrays = [arrays[0][None, None]]
    is_depthwise = isinstance(layer, layers.DepthwiseConv1D | layers.DepthwiseConv2D)
    channels = arrays[-1].shape[2:] if is_depthwise else arrays[-1].shape[-1:]
    return arrays, np.zeros(int(np.prod(channels)), np.float32) if bias is None else bias


def _affine(norm: Any, call: Call, rank: int) -> tuple[Array, Array]:
    """Return factor and summand per channel of a batch normalization at inference."""
    if norm.axis not in (-1, rank - 1):
        raise refused(call, "Normalise the last axis.")
    variance, mean = (np.asarray(one, np.float64) for one in (norm.moving_variance, norm.moving_mean))
    scale = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = scale * np.asarray(norm.gamma, np.float64)
    shift = -mean * scale
    if norm.center:
        shift = shift + np.asarray(norm.beta, np.float64)
    return scale.astype(np.float32), shift.astype(np.float32)
