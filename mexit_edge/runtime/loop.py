"""The loop over stages: run one, score its exit, stop or go on with the tensors that later stages need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle import Bundle
from mexit_edge.errors import InputError
from mexit_edge.exits import Score, make_score, passes
from mexit_edge.runtime.engines import LoadedModel, open_stage
from mexit_edge.runtime.input import InputQuantizer
from mexit_edge.runtime.trial import try_bundle

CHUNK = 4096  # windows whose boundary tensors `infer_batch` keeps at a time
NEVER = 1 << 31  # a threshold above every integer score


class Decision(NamedTuple):
    """What the loop decided for one window.

    Attributes:
        label: index of the class; ties take the lowest.
        exit: number of the exit that the window left at, from 1.
        scores: integer score of every exit that was run, in order.
        stages_run: names of the exits whose stages were run.
        invocations: per stage, how often it has been invoked since the `Runtime` was made.
        way_in: ``"fixed_point"`` for int16 counts, ``"float"`` for float windows.
        measured_latency_ms: time on this machine, not on the device.
    """

    label: int
    exit: int
    scores: tuple[int, ...]
    stages_run: tuple[str, ...]
    invocations: tuple[int, ...]
    way_in: str
    measured_latency_ms: float


@dataclass(frozen=True, eq=False)
class BatchResult:
    """What the loop decided for n windows.

    Args:
        label: (n,) index of the class.
        exit: (n,) number of the exit that each window left at, from 1.
        invocations: per stage, the number of windows that this batch ran it for.
    """

    label: NDArray[np.int64]
    exit: NDArray[np.int64]
    invocations: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Step:
    """One stage, ready to run: its model, its tensors' names, its score and threshold."""

    exit: str
    model: LoadedModel
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    score: Score
    threshold: int
    read_later: tuple[str, ...]


class Runtime:
    """Runs a bundle stage by stage and stops each window at the first exit that is sure.

    Args:
        bundle: a `Bundle`, or the path of one.
        engine: one of `mexit_edge.runtime.ENGINES`.

    Raises:
        InputError: the bundle is not whole, the engine is unknown or refuses a stage, or does not survive
            one of a bundle that was read from a file (`runtime.trial`).
        MissingExtraError: the engine is not installed.

    Example:
        ```python
        decision = Runtime("tflite_models/reference.mexit").infer(window)
        ```
    """

    def __init__(self, bundle: Bundle | str | Path, engine: str = "litert-xnnpack") -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        self.engine = engine
        # A bundle from a file may be anybody's, and an engine may crash on what it does not expect.
        try_bundle(self.bundle, (engine,))
        manifest = self.bundle.manifest
        self.quantizer = InputQuantizer(manifest)
        policy = manifest.policy
        n_exits = len(manifest.stages)
        thresholds = (*policy.thresholds_int, None) if policy else (*[NEVER] * (n_exits - 1), None)
        self._steps = tuple(
            _Step(
                exit=spec.exit,
                model=open_stage(engine, content, spec),
                inputs=tuple(tensor.name for tensor in spec.inputs),
                outputs=tuple(tensor.name for tensor in spec.outputs),
                score=make_score(
                    policy.score if policy else "logit_margin", spec.outputs[0].scale, len(manifest.classes)
                ),
                # The final exit takes whatever comes: every score is at least this.
                threshold=-NEVER if threshold is None else threshold,
                read_later=tuple(
                    {tensor.name for later in manifest.stages[number:] for tensor in later.inputs}
                ),
            )
            for number, (spec, content, threshold) in enumerate(
                zip(manifest.stages, self.bundle.stages, thresholds, strict=True), start=1
            )
        )
        self._models = [step.model for step in self._steps]
        self._exits = manifest.exits
        self._input = manifest.input_name

    @property
    def invocations(self) -> tuple[int, ...]:
        """Per stage, the number of windows it was run for since this object was made."""
        return tuple([model.invocations for model in self._models])

    def infer(self, window: NDArray[Any]) -> Decision:
        """Decide on one window.

        Args:
            window: (time, channels), int16 counts or float32 / float64 in the sensor's units.

        Raises:
            InputError: wrong shape or dtype, NaN or infinite samples.
        """
        started = perf_counter_ns()
        self.quantizer.check(window, "window", batch=False)
        live = {self._input: self.quantizer.quantize(window[None], "window")}
        scores: list[int] = []
        for step in self._steps:
            model = step.model
            for place, name in enumerate(step.inputs):
                model.set_input(place, live[name])
            model.invoke()
            out = model.get_output(0)
            logits = out[0].tolist()
            score = step.score.one(logits)
            scores.append(score)
            if passes(score, step.threshold):
                break
            live[step.outputs[0]] = out
            for place in range(1, len(step.outputs)):
                live[step.outputs[place]] = model.get_output(place)
        return Decision(
            label=logits.index(max(logits)),
            exit=len(scores),
            scores=tuple(scores),
            stages_run=self._exits[: len(scores)],
            invocations=self.invocations,
            way_in=self.quantizer.way_in(window),
            measured_latency_ms=(perf_counter_ns() - started) / 1e6,
        )

    def infer_batch(self, windows: NDArray[Any]) -> BatchResult:
        """Decide on many windows, with the decisions of `infer`: each stage runs for those that remain.

        Args:
            windows: (n, time, channels), int16 counts or float32 / float64 in the sensor's units.

        Raises:
            InputError: wrong shape or dtype, NaN or infinite samples.
        """
        self.quantizer.check(windows, "windows", batch=True)
        before = self.invocations
        label = np.empty(len(windows), np.int64)
        left_at = np.empty(len(windows), np.int64)
        for start in range(0, len(windows), CHUNK):
            chunk = slice(start, start + CHUNK)
            self._decide_chunk(windows[chunk], label[chunk], left_at[chunk])
        invocations = tuple(
            after - at_first for after, at_first in zip(self.invocations, before, strict=True)
        )
        return BatchResult(label, left_at, invocations)

    def run_all_exits(self, windows: NDArray[Any]) -> dict[str, NDArray[np.int8]]:
        """Run every stage for every window, whatever its scores: for evaluation and golden vectors.

        Args:
            windows: as for `infer_batch`.

        Returns:
            Name of every tensor that crosses a stage's border -> (n, ...) int8, the logits among them.

        Raises:
            InputError: wrong shape or dtype, NaN or infinite samples.
        """
        self.quantizer.check(windows, "windows", batch=True)
        if not len(windows):
            raise InputError("`windows` must hold at least one window. Received: none.")
        live = {self._input: self.quantizer.quantize(windows)}
        for step in self._steps:
            outputs = step.model.run_batch([live[name] for name in step.inputs])
            live |= dict(zip(step.outputs, outputs, strict=True))
        return live

    def all_logits(self, windows: NDArray[Any]) -> NDArray[np.int8]:
        """Return (n, E, classes) int8 logits of every exit, whatever its scores."""
        tensors = self.run_all_exits(windows)
        return np.stack([tensors[step.outputs[0]] for step in self._steps], axis=1)

    def _decide_chunk(
        self, windows: NDArray[Any], label: NDArray[np.int64], left_at: NDArray[np.int64]
    ) -> None:
        """Fill ``label`` and ``left_at`` for one chunk of windows."""
        live = {self._input: self.quantizer.quantize(windows)}
        remaining = np.arange(len(windows))
        for number, step in enumerate(self._steps, start=1):
            outputs = step.model.run_batch([live[name] for name in step.inputs])
            logits = outputs[0]
            leaves = passes(step.score.batch(logits), step.threshold)
            label[remaining[leaves]] = logits[leaves].argmax(axis=1)
            left_at[remaining[leaves]] = number
            stays = ~leaves
            if not stays.any():
                return
            live |= dict(zip(step.outputs, outputs, strict=True))
            live = {name: live[name][stays] for name in step.read_later if name in live}
            remaining = remaining[stays]
