"""Run cut stages one after another, for models that are no bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError, MissingExtraError
from mexit_edge.runtime.engines import LoadedModel, open_model
from mexit_edge.runtime.trial import try_in_child
from mexit_edge.tflite import CutStage, Graph, Tensor, mended, tensor_names

Array = NDArray[Any]


@dataclass(frozen=True)
class CutParity:
    """How cut stages compare with the model they were cut from, on one engine.

    Args:
        engine: that ran both.
        windows: number of random windows compared.
        elements: output elements compared; None where the engine refuses the model.
        differing_elements: those that differ; None where the engine refuses the model.
        refusal: the engine's words, or None.
    """

    engine: str
    windows: int
    elements: int | None = None
    differing_elements: int | None = None
    refusal: str | None = None


def run_stages(stages: Sequence[CutStage], inputs: Mapping[str, Array], engine: str) -> dict[str, Array]:
    """Run cut stages on n windows, each window by itself.

    Args:
        stages: in order.
        inputs: (n, ...) per input of the model, of the type that the model takes. The n windows take the
            place of a leading batch of 1; a tensor without one gets a new leading axis.
        engine: one of `mexit_edge.runtime.ENGINES`.

    Returns:
        Every tensor that crosses a border by name, (n, ...): inputs, boundaries and outputs.

    Raises:
        InputError: an input is missing, of another shape or type, or the engine refuses a stage.
        MissingExtraError: the engine is not installed.
    """
    live = dict(inputs)
    for stage in stages:
        for name, tensor in stage.inputs:
            check_input(live.get(name), name, tensor)
        model = open_model(engine, stage.content)
        shapes = [tensor.shape for _, tensor in stage.inputs]
        results = run_each(model, [live[name] for name, _ in stage.inputs], shapes)
        live |= {name: values for (name, _), values in zip(stage.outputs, results, strict=True)}
    return live


def run_whole(content: bytes, inputs: Mapping[str, Array], engine: str) -> dict[str, Array]:
    """Run a whole model on n windows, each window by itself.

    Args:
        content: a .tflite.
        inputs: as for `run_stages`, by the names of `tflite.tensor_names`.
        engine: as for `run_stages`.

    Returns:
        The model's outputs by the names of `tflite.tensor_names`, (n, ...).

    Raises:
        InputError: as for `run_stages`.
        MissingExtraError: the engine is not installed.
    """
    graph = Graph(content)
    names = tensor_names(graph)
    for index in graph.inputs:
        check_input(inputs.get(names[index]), names[index], graph.tensors[index])
    shapes = [graph.tensors[index].shape for index in graph.inputs]
    results = run_each(open_model(engine, content), [inputs[names[index]] for index in graph.inputs], shapes)
    return {names[index]: values for index, values in zip(graph.outputs, results, strict=True)}


def run_each(model: LoadedModel, inputs: Sequence[Array], shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Return the outputs of a model, (n, ...) each, for inputs (n, ...), one window at a time.

    Unlike `LoadedModel.run_batch`, no engine computes several windows at once: kernels may round a batch
    otherwise, and a foreign model need not stand one, or have a batch at all.

    Args:
        model: opened in an engine.
        inputs: per input, n windows of `window_shape`.
        shapes: of the model's inputs.
    """
    rows: list[list[Array]] = [[] for _ in range(model.n_outputs)]
    for index in range(len(inputs[0])):
        for place, (values, shape) in enumerate(zip(inputs, shapes, strict=True)):
            model.set_input(place, values[index].reshape(shape))
        model.invoke()
        for place, row in enumerate(rows):
            value = model.get_output(place)
            row.append(value.reshape(window_shape(value.shape)))
    return [np.stack(row) for row in rows]


def window_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of one window of a tensor: without its leading batch of 1, if it has one."""
    return shape[1:] if shape[:1] == (1,) else shape


def check_input(values: Array | None, name: str, tensor: Tensor) -> None:
    """Refuse what does not fit an input.

    Raises:
        InputError: it is missing, or of another shape or type.
    """
    shape = window_shape(tensor.shape)
    if (
        values is None
        or values.dtype != tensor.numpy_dtype
        or not values.ndim
        or values.shape[1:] != shape
        or not len(values)
    ):
        found = "none" if values is None else f"{values.dtype} of shape {values.shape}"
        expected = ", ".join(map(str, ("n", *shape)))
        raise InputError(
            f"`inputs` must hold {name} as {tensor.dtype} of shape ({expected}) with at least one window. "
            f"Received: {found}."
        )


def random_inputs(content: bytes, n: int, seed: int = 0) -> dict[str, Array]:
    """Return random values for every input of a model, (n, ...), by the names of `tflite.tensor_names`.

    Args:
        content: a .tflite.
        n: number of windows.
        seed: of the values.

    Raises:
        InputError: an input has a type that NumPy does not know; or as for `Graph`.
    """
    graph = Graph(content)
    names = tensor_names(graph)
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for index in graph.inputs:
        tensor = graph.tensors[index]
        dtype = tensor.numpy_dtype
        if dtype is None:
            raise InputError(f"inputs must be plain numbers. Received: {names[index]}, {tensor.dtype}.")
        shape = (n, *window_shape(tensor.shape))
        if dtype.kind == "f":
            made[names[index]] = rng.standard_normal(shape).astype(dtype)
        elif dtype.itemsize > 2 or dtype.kind == "b":
            # Wide integers are indices: small ones are there in any table.
            made[names[index]] = rng.integers(0, 2, shape).astype(dtype)
        else:
            limits = np.iinfo(dtype)
            made[names[index]] = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return made


def cut_parity(
    content: bytes,
    stages: Sequence[CutStage],
    engines: Sequence[str],
    n_windows: int = 5,
    seed: int = 0,
) -> tuple[CutParity, ...]:
    """Compare stages with the model they were cut from, on random windows, output by output.

    The files are tried in a child process first, as the model may be anybody's.

    Args:
        content: the whole .tflite.
        stages: of it.
        engines: of `mexit_edge.runtime.ENGINES`.
        n_windows: number of random windows.
        seed: of the windows.

    Returns:
        One row per engine.

    Raises:
        InputError: an engine is unknown, or runs the whole model and refuses a stage, or as for `Graph`.
        MissingExtraError: an engine is not installed.
    """
    whole = mended(content)
    files = [whole, *(stage.content for stage in stages)]
    refusals = _refusals(files, engines)
    return tuple(
        CutParity(engine, n_windows, refusal=refusals[engine])
        if engine in refusals
        else _parity_on(engine, whole, stages, random_inputs(whole, n_windows, seed), n_windows)
        for engine in engines
    )


def _refusals(files: Sequence[bytes], engines: Sequence[str]) -> dict[str, str]:
    """Return which engines do not come back from the files, in one trial where all do."""
    with suppress(InputError):
        try_in_child(files, engines)
        return {}
    found = {}
    for engine in engines:
        try:
            try_in_child(files, [engine])
        except InputError as error:
            found[engine] = str(error)
    return found


def _parity_on(
    engine: str, whole: bytes, stages: Sequence[CutStage], inputs: Mapping[str, Array], n_windows: int
) -> CutParity:
    graph = Graph(whole)
    names = tensor_names(graph)
    try:
        expected = run_whole(whole, inputs, engine)
    except MissingExtraError:
        raise
    except InputError as error:
        return CutParity(engine, n_windows, refusal=str(error))
    by_stage = {
        name: inputs[names[tensor.index]]
        for stage in stages
        for name, tensor in stage.inputs
        if tensor.index in graph.inputs
    }
    live = run_stages(stages, by_stage, engine)
    pairs = [
        (live[name], expected[names[tensor.index]])
        for stage in stages
        for name, tensor in stage.outputs
        if tensor.index in graph.outputs
    ]
    return CutParity(
        engine=engine,
        windows=n_windows,
        elements=sum(left.size for left, _ in pairs),
        differing_elements=sum(_differing(left, right) for left, right in pairs),
    )


def _differing(left: Array, right: Array) -> int:
    """Count elements that differ; NaN equals NaN."""
    same = (left == right) | ((left != left) & (right != right))
    return int((~same).sum())
