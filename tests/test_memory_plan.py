"""One block of memory for the loop: nothing that is in use together overlaps, and little is wasted."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any, cast

import pytest
from fixtures_networks import hand_whole
from hypothesis import given, settings
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
from mexit_edge.cli.tables import memory_facts, memory_table
from mexit_edge.errors import InputError
from mexit_edge.estimate import bundle_memory, flash_bytes, model_memory, plan_memory
from mexit_edge.estimate.memory.kernels import KernelLibrary
from mexit_edge.estimate.memory.placement import ALIGNMENT, Span, first_fit, most_in_use, tight_fit

REFERENCE = Path(__file__).parent.parent / "tflite_models" / "reference.mexit"


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
    assert [plan.stage_bytes(number) for number in range(1, len(arenas) + 1)] == at_once
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
    assert plan.stage_bytes(1) is None
    assert [one.name for one in plan.buffers] == ["features_1"]


def test_a_window_that_a_later_stage_reads_stays() -> None:
    plan = plan_memory(manifest_of([400, 400], [[0], [0]], [64]))
    (window,) = [one for one in plan.buffers if not one.name.endswith("_arena")]
    assert (window.name, window.first_stage, window.last_stage, window.bytes) == ("window", 1, 2, 32)


def test_of_a_bundle(tiny_bundle: Bundle) -> None:
    assert plan_memory(tiny_bundle.manifest).boundary_bytes == 32 + 16


def test_arenas_may_be_others_than_the_manifest_states() -> None:
    manifest = manifest_of([4000, None], [[0], [1]], [512])
    plan = plan_memory(manifest, [3000, 2000])
    # What crosses lies below: on top of an arena of 3,000 bytes it would begin at 3,008.
    assert (plan.ram_bytes, plan.arena_bytes, plan.stage_bytes(2)) == (512 + 3000, 3000, 512 + 2000)
    with pytest.raises(InputError, match=r"`arenas` needs one value per stage \(2\)\. Received: 1 values"):
        plan_memory(manifest, [3000])


# --- Few buffers lie in as few bytes as any plan takes ------------------------------------------------------


@st.composite
def spans(draw: Any, n: int) -> list[Span]:
    steps = st.tuples(st.integers(1, 4), st.integers(1, 4)).map(sorted)
    return [Span(draw(st.integers(1, 150)), *draw(steps)) for _ in range(draw(st.integers(0, n)))]


def height(some: list[Span], offsets: list[int]) -> int:
    return max((offset + one.bytes for one, offset in zip(some, offsets, strict=True)), default=0)


def overlap(one: Span, start: int, other: Span, begin: int) -> bool:
    together = bool({*range(one.first, one.last + 1)} & {*range(other.first, other.last + 1)})
    return together and bool({*range(start, start + one.bytes)} & {*range(begin, begin + other.bytes)})


def least_height(some: list[Span]) -> int:
    """Of all orders, each buffer in turn as low as it can be, one step of 16 bytes after the other."""
    heights = []
    for order in permutations(some):
        placed: list[tuple[Span, int]] = []
        for one in order:
            offset = 0
            while any(overlap(one, offset, *other) for other in placed):
                offset += ALIGNMENT
            placed.append((one, offset))
        heights.append(max((offset + one.bytes for one, offset in placed), default=0))
    return min(heights)


@given(some=spans(5))
@settings(max_examples=40)
def test_few_buffers_lie_as_brute_force_lays_them(some: list[Span]) -> None:
    offsets = tight_fit(some)
    assert all(offset % ALIGNMENT == 0 for offset in offsets)
    placed = list(zip(some, offsets, strict=True))
    assert not any(overlap(*one, *other) for place, one in enumerate(placed) for other in placed[:place])
    assert most_in_use(some) <= height(some, offsets) == least_height(some)


def test_the_larger_first_is_not_always_best() -> None:
    some = [Span(64, 4, 4), Span(48, 1, 1), Span(32, 1, 3), Span(16, 3, 4)]
    # 64 and 48 at 0, then 32 above 48, then 16 above both 64 and 32; but 48 has room above 32.
    assert first_fit(some) == [0, 0, 48, 80]
    assert tight_fit(some) == [0, 32, 0, 64]


@given(some=spans(9))
@settings(max_examples=40)
def test_many_buffers_lie_no_worse_than_the_larger_first(some: list[Span]) -> None:
    larger_first = sorted(some, key=lambda one: -one.bytes)
    assert most_in_use(some) <= height(some, tight_fit(some)) <= height(larger_first, first_fit(larger_first))


# --- A whole model, a whole bundle --------------------------------------------------------------------------


def test_flash_of_a_file_with_names_and_of_one_without() -> None:
    whole = hand_whole()
    flash = flash_bytes(whole)
    assert flash.file_bytes == len(whole)
    assert flash.stripped_bytes is not None
    assert flash.stripped_bytes < len(whole) - len(b"some_long_tensor_name_0") * 10
    assert flash.c_array_bytes - ALIGNMENT < flash.stripped_bytes <= flash.c_array_bytes
    assert flash.c_array_bytes % ALIGNMENT == 0
    stage = (REFERENCE / "stage_02.tflite").read_bytes()
    assert flash_bytes(stage).stripped_bytes == len(stage) == 14_104
    assert flash_bytes(stage).c_array_bytes == 14_112


def test_flash_of_what_cannot_be_stripped() -> None:
    flash = flash_bytes(b"no model" * 4 + b".")
    assert (flash.file_bytes, flash.stripped_bytes, flash.c_array_bytes) == (33, None, 48)


def test_a_bundle_takes_less_on_32_bits() -> None:
    bundle = Bundle.load(REFERENCE)
    memory = bundle_memory(bundle)
    assert memory.host == plan_memory(bundle.manifest)
    host, device = memory.host.ram_bytes, memory.estimated_32bit.ram_bytes
    assert host is not None
    assert device is not None
    assert device < host
    for number, (spec, stage) in enumerate(zip(bundle.manifest.stages, memory.stages, strict=True), start=1):
        assert stage.activations is not None
        arena = stage.estimated_arena_bytes_32bit
        assert arena is not None
        assert spec.arena_bytes is not None
        assert stage.activations.bytes < arena < spec.arena_bytes
        assert stage.flash.file_bytes == spec.flash_bytes
        peak = memory.estimated_32bit.stage_bytes(number)
        assert peak is not None
        assert arena <= peak <= device
    assert memory.unknown_because == ()


def test_kernels_of_a_device_ask_for_more() -> None:
    bundle = Bundle.load(REFERENCE)
    reference, cmsis = (bundle_memory(bundle, kernels) for kernels in ("reference", "cmsis-nn"))
    assert cmsis.estimated_32bit.ram_bytes > reference.estimated_32bit.ram_bytes
    with pytest.raises(InputError, match="`kernels` must be one of: cmsis-nn, reference"):
        model_memory(bundle.stages[0], cast(KernelLibrary, "esp-nn"))


def test_what_is_unknown_has_a_reason(tiny_bundle: Bundle) -> None:
    memory = bundle_memory(tiny_bundle)
    assert memory.estimated_32bit.ram_bytes is None
    assert [stage.estimated_arena_bytes_32bit for stage in memory.stages] == [None] * 3
    assert len(memory.unknown_because) == 1
    assert "must be a .tflite file" in memory.unknown_because[0]
    table = memory_table(memory)
    assert str(table.caption).startswith("Host unknown")
    assert "32-bit unknown: " in str(table.caption)


def test_facts_of_memory_are_plain() -> None:
    facts = memory_facts(bundle_memory(Bundle.load(REFERENCE)))
    assert (facts["arena_bytes"], facts["ram_bytes"]) == (12_384, 12_384 + 1_024)
    assert facts["estimated_32bit"]["arena_bytes"] == facts["stages"][2]["estimated_arena_bytes_32bit"]
    assert facts["stages"][2]["estimated_peak_bytes_32bit"] == facts["estimated_32bit"]["ram_bytes"]
    assert [stage["activation_bytes"] for stage in facts["stages"]] == [2_560, 2_816, 4_096]
    assert json.loads(json.dumps(facts))["stages"][0]["unknown_because"] == []
