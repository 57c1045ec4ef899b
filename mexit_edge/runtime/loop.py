"""The loop over stages: run one, score its exit, stop or go on with the tensors that later stages need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle import Bundle
from mexit_edge.errors import InputError
from mexit_edge.exits import NEVER, Score, passes
from mexit_edge.runtime.engines import LoadedModel, open_stage
from mexit_edge.runtime.input import InputQuantizer
from mexit_edge.runtime.suspended import Suspended, pack, unpack
from mexit_edge.runtime.trial import try_bundle

UNDECIDED = -1  # in place of a class
CHUNK = 4096  # windows whose boundary tensors `infer_batch` keeps at a time


class Decision(NamedTuple):
    """What the loop decided for one window.

    Attributes:
        label: index of the class; ties take the lowest.
        exit: number of the exit that the window left at, from 1.
        scores: integer score of every exit that was run, in order; None where the exit is switched off.
        stages_run: names of the exits whose stages were run.
        invocations: per stage, how often it has been invoked since the `Runtime` was made.
        way_in: ``"fixed_point"`` for int16 counts, ``"float"`` for float windows.
        measured_latency_ms: time on this machine, not on the device; of the resumed part where the window was
            suspended.
    """

    label: int
    exit: int
    scores: tuple[int | None, ...]
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
    """One stage, ready to run: its model, its tensors' names, its score and threshold; no score if off."""

    exit: str
    model: LoadedModel
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    score: Score | None
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
        rule = manifest.exit_rule()
        self._steps = tuple(
            _Step(
                exit=spec.exit,
                model=open_stage(engine, content, spec),
                inputs=tuple(tensor.name for tensor in spec.inputs),
                outputs=tuple(tensor.name for tensor in spec.outputs),
                score=score if is_on else None,
                threshold=threshold,
                read_later=tuple(
                    {tensor.name: None for later in manifest.stages[number:] for tensor in later.inputs}
                ),
            )
            for number, (spec, content, score, threshold, is_on) in enumerate(
                # The final exit takes whatever comes: every score is at least this.
                zip(
                    manifest.stages,
                    self.bundle.stages,
                    rule.scores,
                    (*rule.thresholds, -NEVER),
                    rule.enabled,
                    strict=True,
                ),
                start=1,
            )
        )
        self._n_state = rule.n_state
        self._models = [step.model for step in self._steps]
        self._exits = manifest.exits
        self._input = manifest.input_name

    @property
    def invocations(self) -> tuple[int, ...]:
        """Per stage, the number of windows it was run for since this object was made."""
        return tuple([model.invocations for model in self._models])

    def infer(self, window: NDArray[Any], thresholds: Sequence[int] | None = None) -> Decision:
        """Decide on one window.

        Args:
            window: (time, channels), int16 counts or float32 / float64 in the sensor's units.
            thresholds: one integer per early exit, as a `BudgetController` gives them for the next window;
                None for those of the policy.

        Raises:
            InputError: wrong shape or dtype, NaN or infinite samples, or not one threshold per early exit.
        """
        started = perf_counter_ns()
        self.quantizer.check(window, "window", batch=False)
        live = {self._input: self.quantizer.quantize(window[None], "window")}
        scores: list[int | None] = []
        label = self._run(self._steps_at(thresholds), live, [0] * self._n_state, scores)
        return self._decision(label, scores, self.quantizer.way_in(window), started)

    def suspend(
        self, window: NDArray[Any], after: int, thresholds: Sequence[int] | None = None
    ) -> Suspended | Decision:
        """Run the first stages of a window and stop there, as a device does that loses its supply.

        Args:
            window: as for `infer`.
            after: number of stages to run, from 1 to one less than there are.
            thresholds: as for `infer`.

        Returns:
            What must be stored to go on; the decision where the window has left by then.

        Raises:
            InputError: no such boundary, or as for `infer`.
        """
        if not isinstance(after, int) or not 1 <= after < len(self._steps):
            raise InputError(
                f"`after` must be a number of stages from 1 to {len(self._steps) - 1}. Received: {after!r}."
            )
        started = perf_counter_ns()
        self.quantizer.check(window, "window", batch=False)
        live = {self._input: self.quantizer.quantize(window[None], "window")}
        state, scores = [0] * self._n_state, []  # type: list[int], list[int | None]
        label = self._run(self._steps_at(thresholds)[:after], live, state, scores)
        way_in = self.quantizer.way_in(window)
        if label != UNDECIDED:
            return self._decision(label, scores, way_in, started)
        wanted = self._steps[after - 1].read_later
        return Suspended(
            tensors={name: live[name] for name in wanted if name in live},
            state=tuple(state),
            scores=tuple(scores),
            way_in=way_in,
        )

    def resume(self, suspended: Suspended, thresholds: Sequence[int] | None = None) -> Decision:
        """Run the stages that are left of a suspended window: the decision is that of `infer`.

        Args:
            suspended: as `suspend` or `restore` gave it.
            thresholds: as for `infer`; the same as when the window began.

        Raises:
            InputError: not one threshold per early exit.
        """
        started = perf_counter_ns()
        scores = list(suspended.scores)
        label = self._run(
            self._steps_at(thresholds)[len(scores) :], dict(suspended.tensors), list(suspended.state), scores
        )
        return self._decision(label, scores, suspended.way_in, started)

    def store(self, suspended: Suspended) -> bytes:
        """Return a suspended window as the bytes that survive without supply (`runtime.suspended`)."""
        return pack(suspended, self.bundle.manifest)

    def restore(self, content: bytes) -> Suspended:
        """Read what `store` wrote.

        Raises:
            InputError: the bytes were changed, cut off, or written for another bundle.
        """
        return unpack(content, self.bundle.manifest)

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

    def _steps_at(self, thresholds: Sequence[int] | None) -> tuple[_Step, ...]:
        """Return the stages with these thresholds, or with the policy's; an exit that is off stays off."""
        if thresholds is None:
            return self._steps
        if len(thresholds) != len(self._steps) - 1:
            raise InputError(
                f"`thresholds` needs one value per early exit ({', '.join(self._exits[:-1]) or 'none'}). "
                f"Received: {len(thresholds)}."
            )
        limits = (*thresholds, self._steps[-1].threshold)
        return tuple(replace(step, threshold=limit) for step, limit in zip(self._steps, limits, strict=True))

    def _run(
        self,
        steps: Sequence[_Step],
        live: dict[str, NDArray[np.int8]],
        state: list[int],
        scores: list[int | None],
    ) -> int:
        """Run stages until the window leaves; return its class, `UNDECIDED` where it has not left.

        Args:
            steps: the stages to run at most.
            live: name -> tensor; those that later stages read are added.
            state: what the score remembers; brought up to date.
            scores: those of the stages run are added.
        """
        for step in steps:
            model = step.model
            for place, name in enumerate(step.inputs):
                model.set_input(place, live[name])
            model.invoke()
            out = model.get_output(0)
            if step.score is None:
                scores.append(None)
            else:
                score, label = step.score.one(out[0].tolist(), state)
                scores.append(score)
                if passes(score, step.threshold):
                    return label
            live[step.outputs[0]] = out
            for place in range(1, len(step.outputs)):
                live[step.outputs[place]] = model.get_output(place)
        return UNDECIDED

    def _decision(self, label: int, scores: Sequence[int | None], way_in: str, started: int) -> Decision:
        return Decision(
            label=label,
            exit=len(scores),
            scores=tuple(scores),
            stages_run=self._exits[: len(scores)],
            invocations=self.invocations,
            way_in=way_in,
            measured_latency_ms=(perf_counter_ns() - started) / 1e6,
        )

    def _decide_chunk(
        self, windows: NDArray[Any], label: NDArray[np.int64], left_at: NDArray[np.int64]
    ) -> None:
        """Fill ``label`` and ``left_at`` for one chunk of windows."""
        live = {self._input: self.quantizer.quantize(windows)}
        remaining = np.arange(len(windows))
        state = np.zeros((len(windows), self._n_state), np.int64)
        for number, step in enumerate(self._steps, start=1):
            outputs = step.model.run_batch([live[name] for name in step.inputs])
            live |= dict(zip(step.outputs, outputs, strict=True))
            live = {name: live[name] for name in step.read_later if name in live}
            if step.score is None:
                continue
            scores, labels = step.score.batch(outputs[0], state)
            leaves = passes(scores, step.threshold)
            label[remaining[leaves]] = labels[leaves]
            left_at[remaining[leaves]] = number
            stays = ~leaves
            if not stays.any():
                return
            live = {name: values[stays] for name, values in live.items()}
            remaining, state = remaining[stays], state[stays]
