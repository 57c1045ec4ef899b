"""What the windows of a batch decide: at the bundle's thresholds, or at those of the moment."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mexit_edge.exits import decide, passes
from mexit_edge.exits.temporal import UNDECIDED
from mexit_edge.runtime import Runtime
from mexit_edge.signals import WindowBatch, WindowStatus
from mexit_edge.simulate.brown_out import Interruption, WindowDecision, interrupt
from mexit_edge.simulate.timeline import Decided
from mexit_edge.simulate.way_in import WayIn, taking_int8


class Loop:
    """A bundle's loop, as streams are played through it.

    Args:
        runtime: the loop.

    Attributes:
        runtime: the loop.
        way_in: to it.
        quick: the same loop for windows that are int8 already.
        rule: that decides.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.way_in = WayIn(runtime)
        self.quick = taking_int8(runtime)
        self.rule = runtime.bundle.manifest.exit_rule()


class BatchDecisions:
    """Decides on one batch; nothing is computed before it is asked for.

    Args:
        loop: that decides.
        batch: the windows.
        quantized: the healthy ones among them, as stage 1 takes them.
        hits: place -> brown-out.
        all_exits: whether every window runs to the final exit.
    """

    def __init__(
        self,
        loop: Loop,
        batch: WindowBatch,
        quantized: NDArray[np.int8],
        hits: dict[int, Interruption],
        *,
        all_exits: bool,
    ) -> None:
        self._loop = loop
        self._batch = batch
        self._quantized = quantized
        self._hits = hits
        self._healthy = np.flatnonzero(batch.status == WindowStatus.OK)
        self._wants_all = all_exits and len(self._healthy) > 0

    @property
    def full_label(self) -> NDArray[np.int64]:
        """(n,) class that the rule gives at the final exit, or -1; see `Columns`."""
        return self._spread(self._scored[1][:, -1] if self._wants_all else None)

    @property
    def final_label(self) -> NDArray[np.int64]:
        """(n,) class with the largest logit at the final exit, or -1; see `Columns`."""
        return self._spread(self._logits[:, -1].argmax(axis=1) if self._wants_all else None)

    def all(self) -> Decided:
        """See `Decisions.all`."""
        return self._decided

    def one(self, place: int, thresholds: tuple[int, ...] | None) -> WindowDecision:
        """See `Decisions.one`."""
        if thresholds is None:
            return self._decided.at(place)
        if place in self._hits:
            return self._interrupted(place, thresholds)
        row = self._row_of[place]
        scores, labels = self._listed
        enabled = self._loop.rule.enabled
        exit_ = next(
            (
                number
                for number, (score, threshold, on) in enumerate(
                    zip(scores[row], thresholds, enabled, strict=False), start=1
                )
                if on and passes(score, threshold)
            ),
            len(enabled),
        )
        return WindowDecision(exit_, labels[row][exit_ - 1], hit=False, again=0)

    @cached_property
    def _row_of(self) -> dict[int, int]:
        return {place: row for row, place in enumerate(self._healthy.tolist())}

    @cached_property
    def _logits(self) -> NDArray[np.int8]:
        return self._loop.quick.all_logits(self._quantized)

    @cached_property
    def _scored(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self._loop.rule.score(self._logits)

    @cached_property
    def _listed(self) -> tuple[list[list[int]], list[list[int]]]:
        scores, labels = self._scored
        return scores[:, :-1].tolist(), labels.tolist()

    @cached_property
    def _decided(self) -> Decided:
        loop, healthy = self._loop, self._healthy
        decided = Decided.nothing(len(self._batch))
        if self._wants_all:
            scores, labels = self._scored
            exits = decide(scores, loop.rule.thresholds)
            decided.exit[healthy] = exits
            decided.label[healthy] = labels[np.arange(len(exits)), exits - 1]
        else:
            result = loop.quick.infer_batch(self._quantized)
            decided.exit[healthy], decided.label[healthy] = result.exit, result.label
        for place in self._hits:
            if self._batch.status[place] == WindowStatus.OK:
                decided.put(place, self._interrupted(place, None))
        return decided

    def _interrupted(self, place: int, thresholds: tuple[int, ...] | None) -> WindowDecision:
        window = self._loop.way_in.raw(self._batch.x[place : place + 1])[0]
        return interrupt(self._loop.runtime, window, self._hits[place], thresholds)

    def _spread(self, healthy_labels: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Return (n,) labels of all windows of those of the healthy ones, `UNDECIDED` for the others."""
        spread = np.full(len(self._batch), UNDECIDED)
        if healthy_labels is not None:
            spread[self._healthy] = healthy_labels
        return spread
