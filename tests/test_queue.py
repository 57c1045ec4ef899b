"""The queue in front of the processor: the fast way, the slow way, and a plain count agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexit_edge.errors import InputError
from mexit_edge.simulate.queue import MAX_WAITING, NEVER_SERVED, Queue

# Small numbers, so that ties are common: ready just when another is taken up or done with.
CASES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8)), max_size=60)


def plainly(gaps: list[tuple[int, int]], waiting: int) -> list[tuple[int, int]]:
    """Start and finish of every window, by counting at each arrival who is in service and who waits."""
    times: list[tuple[int, int]] = []
    now = 0
    for gap, service in gaps:
        now += gap
        taken = [one for one in times if one[0] != NEVER_SERVED]
        in_service = sum(start <= now < finish for start, finish in taken)
        in_line = sum(start > now for start, _ in taken)
        if in_service + in_line > waiting:
            times.append((NEVER_SERVED, NEVER_SERVED))
        else:
            start = max([now, *(finish for _, finish in taken)])
            times.append((start, start + service))
    return times


def arrays(gaps: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.asarray(gaps, np.int64).reshape(len(gaps), 2)
    return np.cumsum(pairs[:, 0]), pairs[:, 1]


@given(CASES, st.integers(0, 4), st.integers(0, 60))
def test_batches_equal_one_by_one_and_a_plain_count(
    gaps: list[tuple[int, int]], waiting: int, split: int
) -> None:
    ready, service = arrays(gaps)
    expected = plainly(gaps, waiting)
    batched = Queue(waiting)
    parts = [
        batched.serve_all(ready[part], service[part]) for part in (slice(0, split), slice(split, len(gaps)))
    ]
    start = np.concatenate([part.start_ns for part in parts])
    finish = np.concatenate([part.finish_ns for part in parts])
    assert list(zip(start.tolist(), finish.tolist(), strict=True)) == expected
    single = Queue(waiting)
    assert [
        single.serve(now, long) if single.has_room(now) else (NEVER_SERVED, NEVER_SERVED)
        for now, long in zip(ready.tolist(), service.tolist(), strict=True)
    ] == expected


@given(CASES)
def test_with_room_for_all_nothing_is_lost_and_the_processor_never_waits_for_work_it_has(
    gaps: list[tuple[int, int]],
) -> None:
    ready, service = arrays(gaps)
    served = Queue(len(gaps)).serve_all(ready, service)
    assert not served.lost.any()
    np.testing.assert_array_equal(served.finish_ns - served.start_ns, service)
    before = np.concatenate([[0], served.finish_ns[:-1]])[: len(ready)]
    np.testing.assert_array_equal(served.start_ns, np.maximum(ready, before))


def test_one_spare_buffer_loses_the_newest() -> None:
    served = Queue(1).serve_all(np.asarray([0, 1, 2, 9, 20]), np.asarray([10, 10, 10, 10, 10]))
    assert served.lost.tolist() == [False, False, True, True, False]
    assert served.start_ns.tolist() == [0, 10, NEVER_SERVED, NEVER_SERVED, 20]


def test_without_a_spare_buffer_a_busy_processor_loses_windows() -> None:
    served = Queue(0).serve_all(np.asarray([0, 9, 10]), np.asarray([10, 10, 10]))
    assert served.lost.tolist() == [False, True, False]


@pytest.mark.parametrize("waiting", [-1, 1.5, True, 10**12])
def test_room_is_a_number_of_windows(waiting: object) -> None:
    with pytest.raises(InputError, match=r"`waiting` must be .*Received: "):
        Queue(waiting)  # type: ignore[arg-type]
    Queue(MAX_WAITING)
