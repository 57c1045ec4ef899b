"""The probe set: models that run anywhere, tell the terms of the latency model, and come with a program."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from fixtures_boards import CYCLES, asked_of, board_theta, probe_set, rates
from fixtures_networks import EACH_ENGINE, tflm

from mexit_edge.bundle import Bundle
from mexit_edge.errors import InputError
from mexit_edge.estimate import estimate_arena_bytes_32bit, plan_activations
from mexit_edge.estimate.latency.rates import log_cycles
from mexit_edge.estimate.latency.terms import TERMS
from mexit_edge.estimate.own_board.measurements import read_measurements
from mexit_edge.estimate.own_board.probe_builder import ProbeBuilder
from mexit_edge.estimate.own_board.probe_folder import REGISTRATIONS, write_probes
from mexit_edge.estimate.own_board.probes import ARENA_BYTES, probes
from mexit_edge.runtime import open_model
from mexit_edge.runtime.tflm import own_arena_bytes
from mexit_edge.tflite import Graph

REFERENCE = Path(__file__).parent.parent / "tflite_models" / "reference.mexit"
EACH_PROBE = pytest.mark.parametrize("probe", probe_set(), ids=lambda probe: probe.name)
# Term -> the probe that is there for it.
SHOWN = {
    "conv_kxk": "long_sums",
    "conv_1x1": "pointwise",
    "depthwise": "depthwise",
    "fully_connected": "dense",
    "output": "short_sums",
    "element": "elements",
    "operator": "operators",
}


def windows(content: bytes, n: int = 3) -> np.ndarray:
    graph = Graph(content)
    shape = graph.tensors[graph.inputs[0]].shape
    codes = 40 * np.random.default_rng(0).standard_normal((n, *shape[1:]))
    return np.clip(np.rint(codes), -128, 127).astype(np.int8)


@EACH_PROBE
@EACH_ENGINE
def test_every_engine_runs_every_probe_and_its_outputs_are_alive(engine, probe):
    output = open_model(engine, probe.content).run_batch([windows(probe.content)])[0]
    assert len(np.unique(output)) >= 5
    assert (np.abs(output.astype(int)) >= 127).mean() < 0.1
    assert (output[0] != output[1]).mean() > 0.2


@tflm
@EACH_PROBE
def test_tflm_and_litert_agree(probe):
    one, other = (
        open_model(engine, probe.content).run_batch([windows(probe.content)])[0].astype(int)
        for engine in ("tflm", "litert-reference")
    )
    assert np.abs(one - other).max() <= 1


@EACH_PROBE
def test_the_arena_of_the_program_is_large_enough(probe):
    plan = plan_activations(probe.content, "cmsis-nn")
    assert estimate_arena_bytes_32bit(probe.content, plan) < 0.6 * ARENA_BYTES
    assert (own_arena_bytes(probe.content) or 0) < 0.6 * ARENA_BYTES


def test_they_are_few_small_and_the_same_at_every_call():
    made = probe_set()
    assert probes() == made
    assert len(made) <= 8
    assert sum(len(probe.content) for probe in made) < 300_000
    assert len({probe.name for probe in made}) == len(made)


def test_each_term_but_the_invocation_has_a_probe_that_it_fills():
    _, shares = log_cycles(np.log(CYCLES), np.array([asked_of(probe.content) for probe in probe_set()]))
    by_name = {
        probe.name[9:]: dict(zip(TERMS, row, strict=True))
        for probe, row in zip(probe_set(), shares, strict=True)
    }
    for term, name in SHOWN.items():
        least = 0.5 if term == "output" else 0.8
        assert by_name[name][term] > least, term
    mixed = by_name["network"]
    assert max(mixed.values()) < 0.6
    assert all(mixed[term] > 0.05 for term in ("conv_kxk", "conv_1x1", "depthwise", "output", "element"))


def networks() -> dict[str, bytes]:
    """Networks that are no probes: of the kinds of the benchmarks, and the reference bundle's stages."""
    keywords = ProbeBuilder((1, 49, 10, 1), 1)
    last = keywords.convolution(keywords.window, 64, (10, 4), 2)
    for _ in range(4):
        last = keywords.convolution(keywords.depthwise(last, (3, 3)), 64, (1, 1))
    images = ProbeBuilder((1, 32, 32, 3), 2)
    block = images.convolution(images.window, 16, (3, 3))
    block = images.add(block, images.convolution(images.convolution(block, 16, (3, 3)), 16, (3, 3)))
    autoencoder = ProbeBuilder((1, 640), 3)
    code = autoencoder.window
    for width in (128, 128, 8, 128, 640):
        code = autoencoder.dense(code, width)
    stages = {
        f"stage {number}": content for number, content in enumerate(Bundle.load(REFERENCE).stages, start=1)
    }
    return stages | {
        "keywords": keywords.content(keywords.dense(keywords.mean(last), 12)),
        "images": images.content(images.dense(images.mean(images.convolution(block, 32, (3, 3), 2)), 10)),
        "autoencoder": autoencoder.content(code),
    }


def test_measured_without_error_they_tell_the_cycles_of_any_network_within_5_percent():
    probed = np.array([asked_of(probe.content) for probe in probe_set()])
    wanted = {name: asked_of(content) for name, content in networks().items()}
    known = rates(model_error=0.02)
    for seed in range(40):
        theta = board_theta(seed)
        found = known.updated(list(probed), np.exp(log_cycles(theta, probed)[0]).tolist())
        for name, asked in wanted.items():
            took = float(np.exp(log_cycles(theta, asked[None])[0][0]))
            before, after = known.cycles(asked), found.cycles(asked)
            assert abs(after.value / took - 1) < 0.05, (name, seed)
            assert after.high / after.low < 0.5 * before.high / before.low, (name, seed)


def test_the_test_above_can_fail():
    probed = np.array([asked_of(probe.content) for probe in probe_set() if "depthwise" not in probe.name])
    asked = asked_of(networks()["keywords"])
    theta = rates().mean + np.log(3) * (np.array(TERMS) == "depthwise")
    found = rates(0.02).updated(list(probed), np.exp(log_cycles(theta, probed)[0]).tolist())
    assert abs(found.cycles(asked).value / np.exp(log_cycles(theta, asked[None])[0][0]) - 1) > 0.02


# The folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("made") / "probes"
    write_probes(path)
    return path


@EACH_PROBE
def test_the_c_array_is_the_model(probe, folder):
    assert (folder / f"{probe.name}.tflite").read_bytes() == probe.content
    text = (folder / f"{probe.name}.c").read_text()
    assert bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2}),", text)) == probe.content
    declaration = f"const unsigned char {probe.name}[{len(probe.content)}]"
    assert declaration in text
    assert f"extern {declaration};" in (folder / "probes.h").read_text()


def test_the_program_registers_the_operators_of_the_models_and_no_other(folder):
    program = (folder / "main.cc").read_text()
    names = {operator.name for probe in probe_set() for operator in Graph(probe.content).operators}
    assert sorted(re.findall(r"resolver\.(\w+)\(\)", program)) == sorted(
        REGISTRATIONS[name] for name in names
    )
    assert names == set(REGISTRATIONS)
    assert f"MicroMutableOpResolver<{len(names)}>" in program
    assert "$" not in program + (folder / "README.md").read_text()


def test_the_table_to_fill_in_names_every_model_and_is_refused_empty(folder):
    lines = (folder / "measurements.csv").read_text().splitlines()
    assert lines == ["model,latency_us,runs", *(f"{probe.name}.tflite,," for probe in probe_set())]
    with pytest.raises(
        InputError, match=r"`latency_us` must be a number above 0, .* Received: nothing for probe_01"
    ):
        read_measurements(folder / "measurements.csv", 80.0)


def test_an_existing_folder_is_replaced_when_asked_only(tmp_path):
    place = tmp_path / "probes"
    place.mkdir()
    (place / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_probes(place)
    assert [path.name for path in place.iterdir()] == ["mine.txt"]
    write_probes(place, overwrite=True)
    assert (place / "main.cc").is_file()
    assert not (place / "mine.txt").exists()


# What `main.cc` uses of TFLM; every run moves the clock on by as many microseconds as its model has bytes.
STUBS = {
    "tensorflow/lite/schema/schema_generated.h": """
namespace tflite {
struct Model { const void* data; };
inline const Model* GetModel(const void* data) { static Model model; model.data = data; return &model; }
}
""",
    "tensorflow/lite/micro/micro_log.h": """
#include <cstdarg>
#include <cstdio>
inline void MicroPrintf(const char* format, ...) {
  va_list values; va_start(values, format); vprintf(format, values); va_end(values); puts("\\r");
}
""",
    "tensorflow/lite/micro/micro_mutable_op_resolver.h": """
namespace tflite {
template <unsigned int n> struct MicroMutableOpResolver { int added = 0; REGISTRATIONS };
}
""",
    "tensorflow/lite/micro/micro_interpreter.h": """
#include <cstddef>
#include <cstdint>
#include "tensorflow/lite/schema/schema_generated.h"
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
struct TfLiteTensor { size_t bytes; struct { int8_t* int8; } data; };
extern "C" uint32_t now;
extern "C" uint32_t took(const void* model);
namespace tflite {
struct MicroInterpreter {
  template <class R> MicroInterpreter(const Model* m, const R&, uint8_t* arena, size_t) : model(m->data) {
    tensor.bytes = 4; tensor.data.int8 = reinterpret_cast<int8_t*>(arena);
  }
  TfLiteStatus AllocateTensors() { return kTfLiteOk; }
  TfLiteStatus Invoke() { now += took(model); return kTfLiteOk; }
  TfLiteTensor* input(size_t) { return &tensor; }
  const void* model;
  TfLiteTensor tensor;
};
}
""",
}


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_the_program_compiles_and_prints_the_table_of_measurements(folder, tmp_path):
    registrations = " ".join(f"void {name}() {{ ++added; }}" for name in REGISTRATIONS.values())
    for name, text in STUBS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("#pragma once\n" + text.replace("REGISTRATIONS", registrations))
    arrays = "".join(
        f"const unsigned char {probe.name}[{len(probe.content)}] = {{1}};\n" for probe in probe_set()
    )
    cases = "".join(f"  if (model == {probe.name}) return sizeof {probe.name};\n" for probe in probe_set())
    # The clock is about to overflow.
    board = f"""
#include <cstdint>
#include "probes.h"
{arrays}
extern "C" uint32_t now; uint32_t now = 0xffff0000u;
extern "C" uint32_t took(const void* model) {{
{cases}  return 0;
}}
extern "C" uint32_t probe_microseconds(void) {{ return now; }}
"""
    (tmp_path / "board.cc").write_text(board)
    program = tmp_path / "program"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-O0", f"-I{tmp_path}", f"-I{folder}"]
    subprocess.run(["g++", *flags, folder / "main.cc", tmp_path / "board.cc", "-o", program], check=True)
    printed = subprocess.run([program], check=True, capture_output=True).stdout
    table = tmp_path / "measurements.csv"
    table.write_bytes(printed)
    for probe in probe_set():
        (tmp_path / f"{probe.name}.tflite").write_bytes(probe.content)
    measured = read_measurements(table, 80.0)
    assert [one.name for one in measured] == [f"{probe.name}.tflite" for probe in probe_set()]
    assert [round(1e3 * one.latency_ms) for one in measured] == [len(probe.content) for probe in probe_set()]
    runs = [int(line.split(",")[2]) for line in printed.decode().split()[1:]]
    for probe, n in zip(probe_set(), runs, strict=True):
        assert n * len(probe.content) >= 200_000
        assert n == 1 or n // 2 * len(probe.content) < 200_000


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_the_arrays_are_c(folder):
    subprocess.run(
        ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", folder / "probe_02_short_sums.c"],
        check=True,
    )
