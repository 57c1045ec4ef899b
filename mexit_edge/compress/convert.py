"""Quantize a whole multi-exit network and convert it to one .tflite."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mexit_edge.compress import converter, converter_child
from mexit_edge.compress.convertible import check_convertible, layer_of, refused
from mexit_edge.compress.quantization import Quantization, as_quantization
from mexit_edge.compress.representative import Representative, representative_arrays
from mexit_edge.errors import InputError, RunError
from mexit_edge.tflite import audit, is_integer
from mexit_edge.tflite.flatbuffer import parse


def convert(
    network: keras.Model,
    representative: Representative | None = None,
    quantization: str | Quantization = "int8",
) -> bytes:
    """Return a network as one .tflite with a static batch of 1.

    The same network and windows give the same bytes, in any process.

    Args:
        network: a functional model with named outputs.
        representative: (n, ...) normalised windows on which the ranges of activations are observed, for
            integer kinds; with several inputs a tuple of arrays in their order, or arrays by input name. Not
            read for a network that carries its own ranges (`quantize_aware`), nor for the other kinds.
        quantization: a kind's name, or an object with its options.

    Raises:
        InputError: the network carries its own ranges, which ``quantization`` would change; it has a rolled
            recurrent layer, a dynamic shape, an operator without the form asked for, or one that TFLite does
            not have; it is too large; a weight is not finite; or the representative windows do not fit it.
        RunError: the converter crashed or took longer than 15 minutes.

    Example:
        ```python
        whole = convert(model.network, windows, Quantization("int16", io="float32"))
        ```
    """
    kind = as_quantization(quantization)
    check_convertible(network)
    windows = _observed(network, representative, kind)
    with tempfile.TemporaryDirectory(prefix="mexit-convert-") as folder:
        workshop = Path(folder)
        _export(network, workshop / converter_child.SAVED_MODEL)
        (workshop / converter_child.REQUEST).write_text(json.dumps(asdict(kind)), encoding="utf-8")
        if windows is not None:
            # With a prefix: an input may be named like an argument of this function.
            arrays = {converter_child.INPUT + name: values for name, values in windows.items()}
            np.savez(workshop / converter_child.REPRESENTATIVE, allow_pickle=False, **arrays)
        content = _converted(network, workshop, kind)
    if kind.is_integer:
        if not kind.per_channel and not _passes(content, kind):
            raise InputError(
                "`per_channel` must be True for this network: with one scale per tensor the converter leaves "
                f"operators of it in float. Received: {kind}."
            )
        audit(
            content,
            kind.kind.upper(),
            float_ends=kind.io == "float32",
            layer_of=lambda tensor: layer_of(network, tensor),
        )
    return content


def _converted(network: keras.Model, workshop: Path, kind: Quantization) -> bytes:
    """Run the converter, and once more where it leaves floats behind that its older quantizer does not.

    The newer one (MLIR) gives up on some graphs, among them a residual sum that feeds both a head and a
    convolution, and leaves float operators without a word. For int16 there is only the older one.

    Raises:
        InputError: an operator has no form of this kind, with the layer it came from, where that is known; or
            the network has control flow.
        RunError: the converter crashed.
    """
    try:
        content = converter.run_child(workshop, converter_child.MLIR)
    except converter.Refusal as refusal:
        raise refused(network, refusal.operators, kind.kind) from refusal
    n_subgraphs = len(parse(content).subgraphs)
    if n_subgraphs != 1:
        raise InputError(
            "`network` must have no loops or branches in its layers, which the stages cannot be cut around. "
            f"Received: one that becomes {n_subgraphs} subgraphs. Unroll the loop."
        )
    observed = (workshop / converter_child.REPRESENTATIVE).is_file()
    if kind.kind == "int8" and observed and not _passes(content, kind):
        # What the older one cannot take either is told from what the newer one left, which names the layer.
        with suppress(InputError, RunError):
            content = converter.run_child(workshop, converter_child.LEGACY)
    return content


def _passes(content: bytes, kind: Quantization) -> bool:
    return is_integer(content, kind.kind.upper(), float_ends=kind.io == "float32")


def refuse_other_ranges(kind: Quantization) -> None:
    """Refuse what a network that carries its own ranges cannot become.

    Raises:
        InputError: another kind than int8 per channel, or one with a limit of inputs.
    """
    if kind.kind != "int8" or not kind.per_channel:
        raise InputError(
            "`quantization` must be 'int8', per channel, for a network that carries its own ranges. "
            f"Received: {kind}."
        )
    if kind.input_limit is not None:
        raise InputError(
            "`input_limit` must be left out for a network that carries its own ranges. "
            f"Received: {kind.input_limit}. Quantize the network from before its fine-tuning."
        )


def _observed(
    network: keras.Model, representative: Representative | None, kind: Quantization
) -> dict[str, NDArray[Any]] | None:
    """Return the windows to observe by input name; None where no range is to be observed.

    Raises:
        InputError: they are needed and missing, or do not fit the network.
    """
    if _carries_ranges(network):
        refuse_other_ranges(kind)
        return None
    if not kind.is_integer:
        return None
    if representative is None:
        raise InputError(
            f"`representative` must hold windows to observe ranges on, for {kind.kind!r}. Received: None. "
            "Give normalised training windows; only a network of `quantize_aware` carries its own ranges."
        )
    arrays = representative_arrays(network, representative)
    if kind.input_limit is None:
        return arrays
    # The ranges of what follows are observed on inputs that saturate, as they do when the model runs.
    return {name: np.clip(one, -kind.input_limit, kind.input_limit) for name, one in arrays.items()}


def _carries_ranges(network: keras.Model) -> bool:
    from mexit_edge.compress.fake_quant import carries_ranges

    return carries_ranges(network)


def _export(network: keras.Model, folder: Path) -> None:
    """Write the network as a saved model whose inputs have a static batch of 1.

    With a dynamic batch the converter emits SPACE_TO_BATCH_ND for dilations, which TFLM computes wrongly
    without an error; with a static batch of 1 it fuses them.
    """

    def specification(tensor: Any, **name: str) -> keras.InputSpec:
        return keras.InputSpec(shape=(1, *tensor.shape[1:]), dtype="float32", **name)

    if len(network.inputs) == 1:
        signature: Any = specification(network.inputs[0])
    else:
        signature = keras.tree.map_structure(
            lambda tensor: specification(tensor, name=tensor.name), network.input
        )
    network.export(str(folder), format="tf_saved_model", input_signature=[signature], verbose=False)
