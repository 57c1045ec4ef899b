"""From a trained network to a bundle of stages."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import keras
import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle import (
    Bundle,
    InputSpec,
    Manifest,
    NormalisationSpec,
    SensorSpec,
    StageSpec,
    TensorSpec,
    Training,
)
from mexit_edge.compress.convert import convert
from mexit_edge.compress.convertible import check_convertible
from mexit_edge.compress.quantization import Quantization, as_quantization
from mexit_edge.compress.representative import representative_arrays, representative_sample
from mexit_edge.errors import InputError
from mexit_edge.estimate import operations, total_live_macs, total_macs, unknown_operations
from mexit_edge.files import sha256
from mexit_edge.models.heads import exit_names
from mexit_edge.regimes import MultiExitModel
from mexit_edge.runtime import fixed_point_affine
from mexit_edge.runtime.tflm import own_arena_bytes
from mexit_edge.signals import Normalisation, Sensor, Windows
from mexit_edge.signals.windows import class_names
from mexit_edge.tflite import CutStage, Tensor, cut_at_exits

PACKAGES = ("mexit-edge", "tensorflow", "keras", "ai-edge-litert", "tflite-micro", "numpy")


def export(
    model: MultiExitModel | keras.Model,
    representative: Windows | NDArray[np.float32],
    *,
    quantization: str | Quantization = "int8",
    name: str = "model",
    sensor: Sensor | None = None,
    classes: Sequence[str] | None = None,
    training: Training | None = None,
    keep_names: bool = False,
    seed: int = 0,
) -> Bundle:
    """Quantize a network to int8 as one model, cut it into stages and describe them.

    The bundle has no policy yet: `mexit_edge.simulate.calibrate` sets one.

    Args:
        model: a `MultiExitModel`, or a functional network with outputs ``exit_01``, ...
        representative: training windows; a class-balanced choice of them is used. An array is taken as it is,
            (n, time, channels) as the network takes it.
        quantization: ``"int8"``, per channel or per tensor, with a limit of inputs or without; bundles have
            int8 inputs and outputs.
        name: of the bundle.
        sensor: what the windows are; known from `Windows`, needed with arrays only if more than shapes is
            to be known.
        classes: name per class; known from `Windows`.
        training: where the network came from, for the manifest; a `MultiExitModel` knows it.
        keep_names: whether the stages keep tensor names, metadata and a signature, which cost bytes.
        seed: of the choice of representative windows.

    Raises:
        InputError: the network cannot become int8, has no named exits or several inputs, or the windows,
            sensor or classes do not fit it.
        RunError: the converter crashed.
    """
    return export_with_whole(
        model,
        representative,
        quantization=quantization,
        name=name,
        sensor=sensor,
        classes=classes,
        training=training,
        keep_names=keep_names,
        seed=seed,
    )[0]


def export_with_whole(
    model: MultiExitModel | keras.Model,
    representative: Windows | NDArray[np.float32],
    *,
    quantization: str | Quantization = "int8",
    name: str = "model",
    sensor: Sensor | None = None,
    classes: Sequence[str] | None = None,
    training: Training | None = None,
    keep_names: bool = False,
    seed: int = 0,
) -> tuple[Bundle, bytes]:
    """Return what `export` does, and the whole int8 .tflite that the stages were cut from.

    Args and Raises: see `export`.
    """
    kind = _refuse_other_than_int8(quantization)
    network = model.network if isinstance(model, MultiExitModel) else model
    exits = exit_names(network, "model")
    check_convertible(network)
    expected = _window_shape(network)
    normalisation = None
    if isinstance(model, MultiExitModel):
        normalisation, training = model.normalisation, training or model.provenance
    if isinstance(representative, Windows):
        sensor, classes = sensor or representative.sensor, classes or representative.classes
        normalisation = normalisation or Normalisation.identity(sensor.n_channels)
        representative = normalisation.apply(representative_sample(representative, seed=seed).x)
    windows = representative_arrays(network, representative)
    sensor = sensor or Sensor.plain(expected[1], expected[0])
    if sensor.shape != expected:
        raise InputError(
            f"`sensor` must have the network's window and channels {expected}. Received: {sensor.shape}."
        )
    n_classes = int(network.output[exits[0]].shape[-1])
    names = class_names(classes or [f"class_{index}" for index in range(n_classes)])
    if len(names) != n_classes:
        raise InputError(
            f"`classes` needs one name per logit ({n_classes}). Received: {len(names)} ({', '.join(names)})."
        )
    whole = convert(network, windows, kind)
    bundle = bundle_from_whole(
        whole,
        exits=exits,
        name=name,
        sensor=sensor,
        normalisation=normalisation or Normalisation.identity(sensor.n_channels),
        classes=names,
        training=training or Training(),
        keep_names=keep_names,
    )
    return bundle, whole


def _refuse_other_than_int8(quantization: str | Quantization) -> Quantization:
    kind = as_quantization(quantization)
    if (kind.kind, kind.io) != ("int8", "int8"):
        raise InputError(
            "`quantization` of a bundle must be 'int8' with int8 inputs and outputs. "
            f"Received: {kind.kind!r} with {kind.io} inputs and outputs. Bundles hold nothing else; "
            "`mexit_edge.compress.convert` and `mexit cut` take every kind."
        )
    return kind


def _window_shape(network: keras.Model) -> tuple[int, int]:
    """Return (time, channels) of a network's one input.

    Raises:
        InputError: it has several, or one that is no window.
    """
    names = [tensor.name for tensor in network.inputs]
    if len(names) != 1:
        raise InputError(
            f"`model` must have one input to become a bundle. Received: {len(names)} ({', '.join(names)}). "
            "Join them into one window with `mexit_edge.models.join_inputs`."
        )
    shape = tuple(network.inputs[0].shape[1:])
    if len(shape) != 2:
        raise InputError(
            f"`model` must take windows (time, channels) to become a bundle. Received: an input {shape}. "
            "Put a `Reshape` before its first layer."
        )
    return shape[0], shape[1]


def bundle_from_whole(
    whole: bytes,
    *,
    exits: Sequence[str],
    name: str,
    sensor: Sensor,
    normalisation: Normalisation,
    classes: Sequence[str],
    training: Training,
    keep_names: bool = False,
) -> Bundle:
    """Cut a whole int8 model into the stages of a bundle.

    Args:
        whole: a .tflite with a signature that names its outputs.
        exits: output names in the order in which the exits run.
        name: of the bundle.
        sensor: what the windows are.
        normalisation: that was applied before the network.
        classes: name per class.
        training: where the network came from.
        keep_names: as for `export`.

    Raises:
        InputError: the exits do not fit the model, the sensor's counts do not fit int32, or an operator has
            no known cost, which a bundle states.
    """
    cuts = cut_at_exits(whole, exits, keep_names=keep_names)
    window = _tensor_spec(*cuts[0].inputs[0])
    manifest = Manifest(
        name=name,
        sensor=SensorSpec(**{field: getattr(sensor, field) for field in SensorSpec.model_fields}),
        normalisation=NormalisationSpec(offset=normalisation.offset, scale=normalisation.scale),
        classes=tuple(classes),
        input=InputSpec(
            scale=window.scale,
            zero_point=window.zero_point,
            fixed_point=fixed_point_affine(sensor, normalisation, window.scale, window.zero_point),
        ),
        stages=tuple(
            _stage_spec(number, exit_, cut)
            for number, (exit_, cut) in enumerate(zip(exits, cuts, strict=True), start=1)
        ),
        training=training,
        versions=tool_versions(),
    )
    return Bundle(manifest, tuple(cut.content for cut in cuts))


def tool_versions() -> dict[str, str]:
    """Return the versions of the packages that take part in making a bundle, as far as installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _stage_spec(number: int, exit_: str, cut: CutStage) -> StageSpec:
    macs, live_macs = _counted(cut.content)
    return StageSpec(
        file=f"stage_{number:02d}.tflite",
        sha256=sha256(cut.content),
        flash_bytes=len(cut.content),
        exit=exit_,
        inputs=tuple(_tensor_spec(*tensor) for tensor in cut.inputs),
        outputs=tuple(_tensor_spec(*tensor) for tensor in cut.outputs),
        ops=cut.operators,
        macs=macs,
        live_macs=live_macs,
        arena_bytes=own_arena_bytes(cut.content),
    )


def _counted(content: bytes) -> tuple[int, int]:
    """Return the multiply-accumulates of a stage, and the live ones among them.

    Raises:
        InputError: names the operators without a rule.
    """
    macs, live_macs = total_macs(content), total_live_macs(content)
    if macs is None or live_macs is None:
        raise InputError(
            "`model` must become operators whose multiply-accumulates are known, which a bundle states. "
            f"Received: {', '.join(unknown_operations(operations(content)))}. Replace the layers that make "
            "them; `mexit_edge.compress.convert` and `mexit cut` take every model."
        )
    return macs, live_macs


def _tensor_spec(name: str, tensor: Tensor) -> TensorSpec:
    # The audit has made sure that every activation is int8 with one scale.
    if tensor.scale is None or tensor.zero_point is None:
        raise InputError(f"tensor {name} must be quantized as a whole. Received: no single scale.")
    return TensorSpec(name=name, shape=tensor.shape, scale=tensor.scale, zero_point=tensor.zero_point)
