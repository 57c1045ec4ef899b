"""Parity between engines: every tensor that leaves a stage, and every decision, against the reference engine.

Engines round differently, each step of arithmetic by one step of int8 at most, and stages hand their
differences on. What counts is whether a decision changes, and why: one that stood within a few steps of its
threshold fell to rounding; one that stood clear of it shows a defect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle import Bundle
from mexit_edge.errors import InputError, unknown_name
from mexit_edge.exits import Score, passes
from mexit_edge.runtime.engines import available_engines, reference_engine
from mexit_edge.runtime.loop import Runtime
from mexit_edge.runtime.trial import try_bundle

# Steps of int8 that the difference of two logits may move between engines that differ by rounding alone.
ROUNDING_STEPS = 4
CHUNK = 512  # windows whose boundary tensors are kept at a time
MAX_SPREAD = 255  # largest difference of two int8

Int8 = NDArray[np.int8]


@dataclass(frozen=True)
class TensorParity:
    """How one tensor that leaves a stage compares with the reference engine's.

    Args:
        engine: name of the engine.
        exit: name of the exit whose stage makes the tensor; for the window itself, of the first.
        tensor: its name in the manifest; the logits of the exit, or part of the boundary.
        windows: number of windows compared.
        elements: number of elements compared.
        differing_windows: windows with at least one differing element.
        differing_elements: elements that differ.
        largest_difference: in int8 steps.
    """

    engine: str
    exit: str
    tensor: str
    windows: int
    elements: int
    differing_windows: int
    differing_elements: int
    largest_difference: int

    @property
    def share(self) -> float:
        """Share of elements that differ."""
        return self.differing_elements / self.elements


@dataclass(frozen=True)
class DifferingDecision:
    """A window on which an engine decides otherwise than the reference engine.

    Args:
        window: its place among those compared.
        label: index of the class that the engine decides on.
        exit: number of the exit that the window leaves at.
        reference_label: the same on the reference engine.
        reference_exit: the same on the reference engine.
        parted_at: number of the exit at which the two decisions part: one leaves there and the other does not
            (``"threshold"``), or both leave there with other labels (``"label"``).
        cause: which of the two.
        score_minus_threshold: of the reference engine at that exit, in integer units of the score; None for a
            label.
        logit_margin: of the reference engine at that exit, in int8 steps: largest minus second largest logit.
        steps: int8 steps by which the reference engine's largest logit would have to move against the others
            for its decision to change.
    """

    window: int
    label: int
    exit: int
    reference_label: int
    reference_exit: int
    parted_at: int
    cause: Literal["threshold", "label"]
    score_minus_threshold: int | None
    logit_margin: int
    steps: int


@dataclass(frozen=True)
class EngineParity:
    """How one engine compares with the reference engine on a set of windows.

    Args:
        engine: name of the engine.
        reference: name of the engine it is compared with.
        windows: number of windows.
        tensors: one row per tensor that leaves a stage, in the manifest's order.
        decisions: those that differ.
    """

    engine: str
    reference: str
    windows: int
    tensors: tuple[TensorParity, ...]
    decisions: tuple[DifferingDecision, ...]

    def defects(self, within: int = ROUNDING_STEPS) -> tuple[DifferingDecision, ...]:
        """Return the differing decisions that rounding does not explain.

        Args:
            within: largest distance from a threshold, in int8 steps, that rounding explains.
        """
        return tuple(decision for decision in self.decisions if decision.steps > within)


@dataclass(frozen=True)
class GoldenParity:
    """How the golden tensors compare with what a machine makes of the golden windows.

    Args:
        engine: that ran here: the one that made them, or what stands for it (`reference_engine`).
        reference: the engine that made them.
        tensors: one row per golden tensor.
    """

    engine: str
    reference: str
    tensors: tuple[TensorParity, ...]

    @property
    def wrong(self) -> tuple[str, ...]:
        """Names of the tensors that differ, by more than rounding where another engine ran."""
        allowed = 0 if self.engine == self.reference else ROUNDING_STEPS
        return tuple(row.tensor for row in self.tensors if row.largest_difference > allowed)


def verify_golden_tensors(bundle: Bundle) -> GoldenParity:
    """Run the golden windows through every stage and compare all that the golden vectors hold.

    Args:
        bundle: with golden vectors.

    Raises:
        InputError: the bundle has none; or as for `Runtime`.
    """
    golden = bundle.golden
    if golden is None:
        raise InputError("`bundle` must hold golden vectors. Received: none. Make them with `make_golden`.")
    engine = golden.reference if golden.reference in available_engines() else reference_engine()
    made_by = {tensor.name: stage.exit for stage in bundle.manifest.stages for tensor in stage.outputs}
    first = bundle.manifest.exits[0]
    got = Runtime(bundle, engine).run_all_exits(golden.windows)
    return GoldenParity(
        engine,
        golden.reference,
        tuple(
            TensorParity(engine, made_by.get(name, first), name, *_counted(got[name], expected))
            for name, expected in golden.tensors.items()
        ),
    )


def compare_engines(
    bundle: Bundle, windows: NDArray[Any], engines: Sequence[str] | None = None
) -> tuple[EngineParity, ...]:
    """Run windows through every stage on several engines and compare with the engine of the device.

    The reference is TFLM, or LiteRT's reference kernels where TFLM is not installed. Each engine runs its own
    chain of stages, so that a difference in one stage shows in those that follow.

    Args:
        bundle: what to run.
        windows: (n, time, channels), int16 counts or float32 / float64 in the sensor's units.
        engines: names; None for all that this machine can run.

    Returns:
        One per engine other than the reference; the reference itself only when it is named or alone.

    Raises:
        InputError: an engine is unknown, or the windows are none, or not the sensor's.
        MissingExtraError: an engine is not installed.
    """
    reference = reference_engine()
    if engines is None:
        engines = [name for name in available_engines() if name != reference]
    if unknown := [name for name in engines if name not in available_engines()]:
        raise unknown_name("engines", unknown[0], available_engines())
    try_bundle(bundle, (reference, *engines))  # of a file: one child for all
    theirs = Runtime(bundle, reference)
    theirs.quantizer.check(windows, "windows", batch=True)
    if not len(windows):
        raise InputError("`windows` must hold at least one window. Received: none.")
    runtimes = {name: Runtime(bundle, name) for name in dict.fromkeys(engines)}
    counts = {name: _Counts(bundle) for name in runtimes}
    logits: dict[str, list[Int8]] = {name: [] for name in (reference, *runtimes)}
    for chunk in _chunks(windows):
        expected = theirs.run_all_exits(chunk)
        logits[reference].append(_logits(bundle, expected))
        for name, runtime in runtimes.items():
            got = expected if name == reference else runtime.run_all_exits(chunk)
            counts[name].add(got, expected)
            if name != reference:
                logits[name].append(_logits(bundle, got))
    joined = {name: np.concatenate(parts) for name, parts in logits.items()}
    judge = _Judge(bundle, joined[reference])
    return tuple(
        EngineParity(name, reference, len(windows), counts[name].rows(name), judge.differing(joined[name]))
        for name in runtimes
    )


def steps_to_turn(
    score: Score, logits: Sequence[int], threshold: int, state: Sequence[int] = ()
) -> int | None:
    """Return how far a window's largest logit must move against the others to cross a threshold.

    Args:
        score: of the exit.
        logits: int8 logits of one window.
        threshold: integer threshold of the exit.
        state: what the window carries from the exits before (`Score.n_state`).

    Returns:
        Steps of int8, at least 1; None where no movement within int8 does it.
    """
    place = max(range(len(logits)), key=lambda index: logits[index])
    leaves = passes(score.one(logits, list(state))[0], threshold)
    moved = list(logits)
    for steps in range(1, MAX_SPREAD + 1):
        moved[place] += -1 if leaves else 1
        if max(moved) - min(moved) > MAX_SPREAD:
            return None
        if passes(score.one(moved, list(state))[0], threshold) != leaves:
            return steps
    return None


def _margin(logits: list[int]) -> int:
    second, first = sorted(logits)[-2:]
    return first - second


def _chunks(windows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (windows[start : start + CHUNK] for start in range(0, len(windows), CHUNK))


def _logits(bundle: Bundle, tensors: dict[str, Int8]) -> Int8:
    return np.stack([tensors[stage.outputs[0].name] for stage in bundle.manifest.stages], axis=1)


def _counted(got: Int8, expected: Int8) -> tuple[int, int, int, int, int]:
    """Return windows, elements, differing windows, differing elements and the largest difference."""
    n = len(expected)
    difference = np.abs(got.reshape(n, -1).astype(np.int16) - expected.reshape(n, -1))
    differs = difference > 0
    return (
        n,
        difference.size,
        int(differs.any(axis=1).sum()),
        int(differs.sum()),
        int(difference.max(initial=0)),
    )


class _Counts:
    """Sums over chunks of windows, per tensor that leaves a stage."""

    def __init__(self, bundle: Bundle) -> None:
        self._exit_of = {
            tensor.name: stage.exit for stage in bundle.manifest.stages for tensor in stage.outputs
        }
        # Per tensor: windows, elements, differing windows, differing elements, largest difference.
        self._sums = {name: [0, 0, 0, 0, 0] for name in self._exit_of}

    def add(self, got: dict[str, Int8], expected: dict[str, Int8]) -> None:
        for name, sums in self._sums.items():
            *found, largest = _counted(got[name], expected[name])
            sums[:4] = [total + more for total, more in zip(sums, found, strict=False)]
            sums[4] = max(sums[4], largest)

    def rows(self, engine: str) -> tuple[TensorParity, ...]:
        return tuple(
            TensorParity(engine, exit_, name, *self._sums[name]) for name, exit_ in self._exit_of.items()
        )


class _Judge:
    """Decides by the bundle's policy, and says where and how closely two decisions part."""

    def __init__(self, bundle: Bundle, reference: Int8) -> None:
        self._rule = bundle.manifest.exit_rule()
        self._reference = reference
        self._exit, self._label = self._rule.decide(reference)

    def differing(self, logits: Int8) -> tuple[DifferingDecision, ...]:
        exit_, label = self._rule.decide(logits)
        differs = np.flatnonzero((label != self._label) | (exit_ != self._exit))
        return tuple(
            self._explain(int(window), int(label[window]), int(exit_[window]), logits[window])
            for window in differs
        )

    def _state_before(self, window: int, exit_: int) -> list[int]:
        """Return what a window carries into an exit by the reference engine's logits."""
        state = [0] * self._rule.n_state
        for place in range(exit_ - 1):
            if self._rule.enabled[place]:
                self._rule.scores[place].one(self._reference[window, place].tolist(), state)
        return state

    def _explain(self, window: int, label: int, exit_: int, got: Int8) -> DifferingDecision:
        reference_exit = int(self._exit[window])
        parted_at = min(exit_, reference_exit)
        score = self._rule.scores[parted_at - 1]
        logits = self._reference[window, parted_at - 1].tolist()
        margin = _margin(logits)
        distance: int | None = None
        steps: int | None = margin
        if exit_ != reference_exit:
            threshold = self._rule.thresholds[parted_at - 1]
            state = self._state_before(window, parted_at)
            distance = score.one(logits, list(state))[0] - threshold
            steps = steps_to_turn(score, logits, threshold, state)
        if self._rule.n_state:
            # A score with a memory may have turned at an exit before, where the engines name other classes.
            turned = [
                _margin(mine.tolist())
                for mine, other in zip(self._reference[window, :parted_at], got, strict=False)
                if mine.argmax() != other.argmax()
            ]
            steps = min([*turned, *(() if steps is None else (steps,))], default=None)
        return DifferingDecision(
            window=window,
            label=label,
            exit=exit_,
            reference_label=int(self._label[window]),
            reference_exit=reference_exit,
            parted_at=parted_at,
            cause="label" if exit_ == reference_exit else "threshold",
            score_minus_threshold=distance,
            logit_margin=margin,
            # Beyond what int8 can hold: as far as can be.
            steps=MAX_SPREAD + 1 if steps is None else steps,
        )
