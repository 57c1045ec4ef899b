"""One block of memory for the loop: nothing that is in use together overlaps, and little is wasted."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mexit_edge.bundle import (
    Bundle,
    InputSpec,
    Manifest,
    NormalisationSpec,
    SensorSpec,
    StageSpec,
    TensorSpec,
)
from mexit_edge.estimate import plan_memory
from mexit_edge.estimate.memory import ALIGNMENT


def tensor(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, shape=(1, *shape), scale=0.1, zero_point=0)


def manifest_of(arenas: list[int | None], reads: list[list[int]], sizes: list[int]) -> Manifest:
    """A manifest whose stage k makes tensor k of ``sizes[k - 1]`` bytes and reads those of ``reads[k - 1]``.

    Tensor 0 is the window, of 32 bytes.
    """
    made = [tensor("window", 16, 2), *(tensor(f"features_{n}", size) for n, size in enumerate(sizes, 1))]
    stages = tuple(
        StageSpec(
            file=f"stage_{number:02d}.tflite",
            sha256="0" * 64,
            flash_bytes=1,
            exit=f"exit_{number:02d}",
            inputs=tuple(made[place] for place in read),
            outputs=(tensor(f"logits_{number}", 2), *made[number : number + 1]),
            ops={"CONV_2D": 1},
            macs=1,
            live_macs=1,
            arena_bytes=arena,
        )
        for number, (arena, read) in enumerate(zip(arenas, reads, strict=True), start=1)
    )
    return Manifest(
        name="loop",
        sensor=SensorSpec(channels=("a", "b"), units=("g", "g"), sampling_rate_hz=50, window=16, hop=8),
        normalisation=NormalisationSpec(offset=(0, 0), scale=(1, 1)),
        classes=("walk", "sit"),
        input=InputSpec(scale=0.1, zero_point=0),
        stages=stages,
    )


@st.composite
def loops(draw: Any) -> tuple[list[int], list[list[int]], list[int]]:
    n_stages = draw(st.integers(1, 5))
    reads = [[0]] + [
        sorted(draw(st.sets(st.integers(0, number), min_size=1))) for number in range(1, n_stages)
    ]
    size = st.integers(1, 5000)
    arenas = draw(st.lists(size, min_size=n_stages, max_size=n_stages))
    return arenas, reads, draw(st.lists(size, min_size=n_stages - 1, max_size=n_stages - 1))


@given(data=st.data())
def test_nothing_in_use_together_overlaps(data: st.DataObject) -> None:
    arenas, reads, sizes = data.draw(loops())
    plan = plan_memory(manifest_of(arenas, reads, sizes))
    buffers = plan.buffers
    for one in buffers:
        assert one.offset % ALIGNMENT == 0
        for other in buffers:
            if (
                one is not other
                and one.first_stage <= other.last_stage
                and other.first_stage <= one.last_stage
            ):
                assert one.end <= other.offset or other.end <= one.offset, (one, other)
    at_once = [
        sum(one.bytes for one in buffers if one.first_stage <= number <= one.last_stage)
        for number in range(1, len(arenas) + 1)
    ]
    assert max(at_once) <= plan.ram_bytes
    assert plan.ram_bytes < sum(one.bytes + ALIGNMENT for one in buffers)
    # Every tensor lives from the stage that makes it to the last one that reads it.
    readers: dict[int, int] = {}
    for number, places in enumerate(reads, start=1):
        readers |= dict.fromkeys(places, number)
    lifetimes = {(one.first_stage, one.last_stage) for one in buffers if not one.name.endswith("_arena")}
    assert lifetimes == {(max(1, made), last) for made, last in readers.items() if last > max(1, made)}


def test_arenas_overlap_each_other_and_a_dead_tensor() -> None:
    plan = plan_memory(manifest_of([4000, 1000, 6000], [[0], [1], [2]], [512, 256]))
    places = {one.name: (one.offset, one.bytes) for one in plan.buffers}
    assert {places[f"stage_{number:02d}_arena"][0] for number in (1, 3)} == {0}
    # Between stages 1 and 2 the first boundary is alive; the last arena may lie where it was.
    assert places["features_1"][0] < 6000
    assert plan.ram_bytes == 6000 + 256
    assert (plan.arena_bytes, plan.boundary_bytes) == (6000, 512)


def test_an_unknown_arena_leaves_the_block_unknown() -> None:
    plan = plan_memory(manifest_of([4000, None], [[0], [1]], [512]))
    assert (plan.ram_bytes, plan.arena_bytes, plan.boundary_bytes) == (None, None, 512)
    assert [one.name for one in plan.buffers] == ["features_1"]


def test_a_window_that_a_later_stage_reads_stays() -> None:
    plan = plan_memory(manifest_of([400, 400], [[0], [0]], [64]))
    (window,) = [one for one in plan.buffers if not one.name.endswith("_arena")]
    assert (window.name, window.first_stage, window.last_stage, window.bytes) == ("window", 1, 2, 32)


def test_of_a_bundle(tiny_bundle: Bundle) -> None:
    assert plan_memory(tiny_bundle.manifest).boundary_bytes == 32 + 16
