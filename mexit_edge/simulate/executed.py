"""The slow way through a stream, as a device goes it: window after window, stage after stage.

It shares with the fast way (`timeline`, `play`) only what both call: the ring buffer, the loop over stages,
and the rules themselves. Its queue is a plain list, and nothing is computed ahead. Tests hold the fast way
against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.exits import BudgetController, Chain
from mexit_edge.exits.temporal import UNDECIDED
from mexit_edge.runtime import Runtime
from mexit_edge.signals import WindowBatch, WindowStatus
from mexit_edge.simulate.brown_out import Interruptions, WindowDecision, interrupt
from mexit_edge.simulate.columns import Columns, Outcome, Reason
from mexit_edge.simulate.costs import ServiceTimes


def executed_windows(
    batches: Iterator[WindowBatch],
    *,
    stream: int,
    runtime: Runtime,
    raw: Callable[[NDArray[np.float32]], NDArray[Any]],
    times: ServiceTimes,
    waiting: int,
    rule: Chain | None,
    controller: BudgetController | None,
    interruptions: Interruptions | None,
    all_exits: bool,
) -> Iterator[tuple[WindowBatch, Columns]]:
    """Play the windows of one stream one by one.

    Args:
        batches: of one window each.
        stream: number of the stream.
        runtime: the loop.
        raw: turns windows in the sensor's units into what the runtime takes.
        times: how long windows take.
        waiting: windows that may wait.
        rule: temporal rules, or None.
        controller: changed as windows pass; or None.
        interruptions: brown-outs, or None.
        all_exits: whether windows also run to the final exit.

    Yields:
        A window and its row.
    """
    state = [0] * (rule.n_state if rule else 0)
    finishes: list[int] = []
    last_ready_ns = 0
    for batch in batches:
        interruption = interruptions.of(batch.number).get(0) if interruptions else None
        ready_ns = max(round(float(batch.ready_s[0]) * 1e9), last_ready_ns)
        last_ready_ns = ready_ns
        status = int(batch.status[0])
        in_system = sum(finish > ready_ns for finish in finishes)
        window = raw(batch.x)[0] if status == WindowStatus.OK else None
        one, reason, outcome = None, Reason(status), Outcome.REJECTED
        if window is not None and in_system > waiting:
            reason = Reason.OVERRUN
        elif window is not None and rule is not None and not rule.wants(state):
            outcome = Outcome.SKIPPED
        elif window is not None:
            thresholds = None if controller is None else controller.thresholds()
            if interruption is None:
                decision = runtime.infer(window, thresholds)
                one = WindowDecision(decision.exit, decision.label, hit=False, again=0)
            else:
                one = interrupt(runtime, window, interruption, thresholds)
            outcome = Outcome.RESUMED if one.hit else Outcome.DECIDED
            reason = Reason.STARTED_ANEW if one.again else Reason.NONE
        label = UNDECIDED if one is None else one.label
        start_ns = finish_ns = -1
        if outcome != Outcome.REJECTED:
            start_ns = max([ready_ns, *finishes])
            service_ns = 0 if one is None else int(times.of(one.exit, one.hit, one.again))
            finish_ns = start_ns + service_ns
            # Those that are done with by now play no part any more.
            finishes = [finish for finish in finishes if finish > ready_ns] + [finish_ns]
        if controller is not None:
            spent = 0 if one is None else controller.costs[one.exit - 1]
            if one is not None and one.again:
                spent += controller.costs[one.again - 1]
            controller.update(spent)
        reported = label if rule is None else rule.step(state, label)
        full = final = UNDECIDED
        if all_exits and window is not None:
            logits = runtime.all_logits(window[None])
            full = int(runtime.bundle.manifest.exit_rule().score(logits)[1][0, -1])
            final = int(logits[0, -1].argmax())
        yield (
            batch,
            Columns.of(
                stream=np.asarray([stream]),
                number=batch.number,
                start=batch.start,
                ready_ns=np.asarray([ready_ns]),
                start_ns=np.asarray([start_ns]),
                finish_ns=np.asarray([finish_ns]),
                exit=np.asarray([0 if one is None else one.exit]),
                label=np.asarray([label]),
                reported=np.asarray([reported]),
                y=batch.y,
                outcome=np.asarray([outcome]),
                reason=np.asarray([reason]),
                filled=batch.filled,
                again=np.asarray([0 if one is None else one.again]),
                full_label=np.asarray([full]),
                final_label=np.asarray([final]),
            ),
        )
