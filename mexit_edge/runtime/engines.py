"""Engines behind one small interface: LiteRT with three sets of kernels, and TFLM.

An engine opens one .tflite as a `LoadedModel`, which takes one window by set, invoke and get, or many by
`run_batch`, and counts the windows that it computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle import ENGINES as ENGINES
from mexit_edge.bundle import StageSpec, TensorSpec
from mexit_edge.errors import InputError, MissingExtraError, unknown_name
from mexit_edge.runtime.guards import refuse_for_reference, refuse_untrue_shapes
from mexit_edge.runtime.native import CaughtStderr
from mexit_edge.tflite import Graph, Tensor, batchable

Int8 = NDArray[np.int8]
BATCH = 256  # windows per call of an interpreter that takes several
# What the interpreters raise on a model that passed their checks when it was opened, and on a value that does
# not fit it. Nothing is spent on catching them as long as nothing is raised.
REFUSALS = (ValueError, RuntimeError, IndexError)


class LoadedModel(ABC):
    """A model opened in an engine.

    Attributes:
        invocations: number of windows computed so far.
    """

    def __init__(self) -> None:
        self.invocations = 0

    @abstractmethod
    def set_input(self, place: int, value: Int8) -> None:
        """Copy one window's tensor to the input of that place."""

    @abstractmethod
    def invoke(self) -> None:
        """Compute one window."""

    @abstractmethod
    def get_output(self, place: int) -> Int8:
        """Return a copy of the output of that place."""

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """Number of outputs of the model."""

    def run_batch(self, inputs: Sequence[Int8]) -> list[Int8]:
        """Compute n windows, with the results of computing them one by one, which is the way of this base.

        Args:
            inputs: per input (n, ...).

        Returns:
            Per output (n, ...).
        """
        rows: list[list[Int8]] = [[] for _ in range(self.n_outputs)]
        for index in range(len(inputs[0])):
            for place, value in enumerate(inputs):
                self.set_input(place, value[index : index + 1])
            self.invoke()
            for place, row in enumerate(rows):
                row.append(self.get_output(place))
        return [np.concatenate(row) for row in rows]


class LiteRTModel(LoadedModel):
    """A model in the LiteRT interpreter, one thread.

    Args:
        content: a .tflite with a static batch of 1.
        kernels: ``"xnnpack"``, ``"builtin"`` or ``"reference"``.

    Raises:
        InputError: LiteRT refuses the file, or would compute it wrongly (`runtime.guards`).
    """

    def __init__(self, content: bytes, kernels: str) -> None:
        super().__init__()
        # First: LiteRT ends the whole process on some files that this refuses.
        graph = Graph(content)
        if kernels == "reference":
            refuse_for_reference(graph)
        self._content = content
        self._kernels = kernels
        self._interpreter = _litert(content, kernels)
        try:
            self._inputs = [detail["index"] for detail in self._interpreter.get_input_details()]
            outputs = self._interpreter.get_output_details()
        except REFUSALS as error:
            raise _does_not_run("LiteRT", error) from error
        # The loop counts on these; what is inside of the model LiteRT computes anew.
        refuse_untrue_shapes(graph, _shapes(outputs))
        self._outputs = [detail["index"] for detail in outputs]
        # Bound once: these three calls are the inner loop of every window.
        self._set, self._invoke = self._interpreter.set_tensor, self._interpreter.invoke
        self._get = self._interpreter.get_tensor
        self._batch: Any = None
        self._batch_size = 0

    def set_input(self, place: int, value: Int8) -> None:
        """See `LoadedModel.set_input`."""
        try:
            self._set(self._inputs[place], value)
        except REFUSALS as error:
            raise _does_not_run("LiteRT", error) from error

    def invoke(self) -> None:
        """See `LoadedModel.invoke`."""
        try:
            self._invoke()
        except REFUSALS as error:
            raise _does_not_run("LiteRT", error) from error
        self.invocations += 1

    def get_output(self, place: int) -> Int8:
        """See `LoadedModel.get_output`."""
        try:
            return self._get(self._outputs[place])
        except REFUSALS as error:
            raise _does_not_run("LiteRT", error) from error

    @property
    def n_outputs(self) -> int:
        """See `LoadedModel.n_outputs`."""
        return len(self._outputs)

    def run_batch(self, inputs: Sequence[Int8]) -> list[Int8]:
        """See `LoadedModel.run_batch`."""
        # FULLY_CONNECTED of the built-in kernels rounds a batch differently, by one step now and then.
        if self._kernels == "builtin":
            return super().run_batch(inputs)
        starts, done = range(0, len(inputs[0]), BATCH), self.invocations
        try:
            parts = [self._compute([value[start : start + BATCH] for value in inputs]) for start in starts]
        except InputError:
            # Some operators name the batch of 1 in constants of their own (TRANSPOSE_CONV, slices of it).
            self.invocations = done
            return super().run_batch(inputs)
        return parts[0] if len(parts) == 1 else [np.concatenate(part) for part in zip(*parts, strict=True)]

    def _compute(self, inputs: Sequence[Int8]) -> list[Int8]:
        """Compute at most `BATCH` windows in one call of the interpreter."""
        n = len(inputs[0])
        try:
            self._resize(n)
            details = self._batch.get_input_details()
            for detail, value in zip(details, inputs, strict=True):
                self._batch.set_tensor(detail["index"], value)
            self._batch.invoke()
            outputs = [self._batch.get_tensor(detail["index"]) for detail in self._batch.get_output_details()]
        except InputError:
            raise
        except REFUSALS as error:
            raise _does_not_run("LiteRT", error) from error
        self.invocations += n
        return outputs

    def _resize(self, n: int) -> None:
        if self._batch is None:
            self._batch = _litert(batchable(self._content), self._kernels)
        if n != self._batch_size:
            for detail in self._batch.get_input_details():
                self._batch.resize_tensor_input(detail["index"], [n, *detail["shape"][1:]])
            self._batch.allocate_tensors()
            self._batch_size = n


def _litert(content: bytes, kernels: str) -> Any:
    """Return an allocated LiteRT interpreter."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = {
        "xnnpack": OpResolverType.AUTO,
        "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "reference": OpResolverType.BUILTIN_REF,
    }[kernels]
    try:
        # LiteRT announces its delegate on file descriptor 2, once per process.
        with CaughtStderr():
            interpreter = Interpreter(
                model_content=content, num_threads=1, experimental_op_resolver_type=resolver
            )
            interpreter.allocate_tensors()
    except REFUSALS as error:
        raise _does_not_run("LiteRT", error) from error
    return interpreter


def _shapes(details: Sequence[Any]) -> dict[int, tuple[int, ...]]:
    """Return tensor index -> shape as LiteRT computes it."""
    return {detail["index"]: tuple(detail["shape"].tolist()) for detail in details}


def _does_not_run(engine: str, error: Exception) -> InputError:
    """Return the error for a model that an engine refuses, be it when it is opened or when it is run."""
    return InputError(f"a model must be a .tflite that {engine} can run. Received: {error}.")


class TflmModel(LoadedModel):
    """A model in TensorFlow Lite Micro on the host: the microcontroller's exact arithmetic.

    TFLM trusts its input and may crash the process on a damaged file. LiteRT, which verifies a file's
    structure, opens each one first, in this process. What only TFLM trips over is not guarded here;
    the stages of a bundle from a file are tried in a child process first (`runtime.trial`).

    Args:
        content: a .tflite.

    Raises:
        InputError: LiteRT or TFLM refuses the file, or TFLM would compute it wrongly (`runtime.guards`).
        MissingExtraError: TFLM is not installed.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__()
        if find_spec("tflite_micro") is None:
            raise MissingExtraError("tflite-micro (wheels for Linux x86-64 only)", "tflm")
        from mexit_edge.runtime.tflm import open_interpreter

        graph = Graph(content)
        # Not the reference kernels: they lack operators that TFLM has, ELU among them.
        details = _litert(content, "builtin").get_tensor_details()
        refuse_untrue_shapes(graph, _shapes(details))
        self._interpreter = open_interpreter(content)
        self._n_outputs = len(graph.outputs)

    def set_input(self, place: int, value: Int8) -> None:
        """See `LoadedModel.set_input`."""
        try:
            self._interpreter.set_input(value, place)
        except REFUSALS as error:
            raise _does_not_run("TFLM", error) from error

    def invoke(self) -> None:
        """See `LoadedModel.invoke`."""
        try:
            self._interpreter.invoke()
        except REFUSALS as error:
            raise _does_not_run("TFLM", error) from error
        self.invocations += 1

    def get_output(self, place: int) -> Int8:
        """See `LoadedModel.get_output`."""
        try:
            return self._interpreter.get_output(place)
        except REFUSALS as error:
            raise _does_not_run("TFLM", error) from error

    @property
    def n_outputs(self) -> int:
        """See `LoadedModel.n_outputs`."""
        return self._n_outputs


def available_engines() -> tuple[str, ...]:
    """Return the engines that this machine can run."""
    return ENGINES if find_spec("tflite_micro") is not None else ENGINES[:-1]


def reference_engine() -> str:
    """Return the engine that stands for the device: TFLM, or LiteRT's reference kernels without it."""
    return "tflm" if "tflm" in available_engines() else "litert-reference"


def open_model(engine: str, content: bytes) -> LoadedModel:
    """Open a .tflite in an engine.

    Args:
        engine: one of `ENGINES`.
        content: the file.

    Raises:
        InputError: no such engine, or the file is refused.
        MissingExtraError: the engine is not installed.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    if engine == "tflm":
        return TflmModel(content)
    return LiteRTModel(content, engine.removeprefix("litert-"))


def open_stage(engine: str, content: bytes, spec: StageSpec) -> LoadedModel:
    """Open a stage of a bundle, whose file must have the inputs and outputs that the manifest states.

    Args:
        engine: one of `ENGINES`.
        content: the file.
        spec: what the manifest says about it.

    Raises:
        InputError: the file has other inputs or outputs, in number, shape, type, scale or zero point; or as
            for `open_model`.
        MissingExtraError: the engine is not installed.
    """
    model = open_model(engine, content)
    graph = Graph(content)
    for kind, tensors, indices in (
        ("inputs", spec.inputs, graph.inputs),
        ("outputs", spec.outputs, graph.outputs),
    ):
        stated = [_facts(tensor, tensor.dtype.upper()) for tensor in tensors]
        found = [_facts(graph.tensors[index], graph.tensors[index].dtype) for index in indices]
        if stated != found:
            raise InputError(
                f"the {kind} of `{spec.file}` must be those of the manifest (shape, type, scale, zero "
                f"point): {stated}. Received: {found}. Export the bundle again."
            )
    return model


def _facts(tensor: TensorSpec | Tensor, dtype: str) -> tuple[Any, ...]:
    return tensor.shape, dtype, tensor.scale, tensor.zero_point
