"""The probe set as a folder: models, C arrays, a program for TFLM that times them, and a table to fill in."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from string import Template

from mexit_edge.estimate.own_board.probes import ARENA_BYTES, Probe, probes
from mexit_edge.files import written_whole
from mexit_edge.tflite import Graph

MEASUREMENTS = "measurements.csv"
BYTES_PER_LINE = 16
# Operator -> the method of `tflite::MicroMutableOpResolver` that registers it, of those that probes hold.
# Source: tensorflow/lite/micro/micro_mutable_op_resolver.h of github.com/tensorflow/tflite-micro.
REGISTRATIONS = {
    "ADD": "AddAdd",
    "AVERAGE_POOL_2D": "AddAveragePool2D",
    "CONV_2D": "AddConv2D",
    "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
    "FULLY_CONNECTED": "AddFullyConnected",
    "MAX_POOL_2D": "AddMaxPool2D",
    "MEAN": "AddMean",
    "RESHAPE": "AddReshape",
}


def write_probes(folder: Path, *, overwrite: bool = False) -> tuple[Probe, ...]:
    """Write the probe set and what it takes to time it on a board.

    Args:
        folder: to write.
        overwrite: whether an existing one may be replaced, with the measurements in it.

    Returns:
        What was written.

    Raises:
        InputError: the folder exists, or cannot be written to.
    """
    made = probes()
    with written_whole(folder, overwrite=overwrite) as fresh:
        fresh.mkdir()
        for name, content in _files(made).items():
            (fresh / name).write_bytes(content)
    return made


def _files(made: tuple[Probe, ...]) -> dict[str, bytes]:
    """Return the content of every file."""
    models = {f"{probe.name}.tflite": probe.content for probe in made}
    texts = {
        **{f"{probe.name}.c": _array(probe) for probe in made},
        "probes.h": _header(made),
        "main.cc": _program(made),
        MEASUREMENTS: "".join(["model,latency_us,runs\n", *(f"{name},,\n" for name in models)]),
        "README.md": _readme(made),
    }
    return models | {name: text.encode() for name, text in texts.items()}


def _array(probe: Probe) -> str:
    lines = [
        "  " + " ".join(f"0x{byte:02x}," for byte in probe.content[start : start + BYTES_PER_LINE])
        for start in range(0, len(probe.content), BYTES_PER_LINE)
    ]
    # TFLM reads the tensors where they are: their alignment is that of the file.
    return "\n".join(
        [
            f"/* {probe.purpose} */",
            '#include "probes.h"',
            "",
            f"const unsigned char {probe.name}[{len(probe.content)}] __attribute__((aligned(16))) = {{",
            *lines,
            "};",
            "",
        ]
    )


def _header(made: tuple[Probe, ...]) -> str:
    return "\n".join(
        [
            "#ifndef PROBES_H",
            "#define PROBES_H",
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
            *(f"extern const unsigned char {probe.name}[{len(probe.content)}];" for probe in made),
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "",
            "#endif",
            "",
        ]
    )


def _program(made: tuple[Probe, ...]) -> str:
    operators = sorted({operator.name for probe in made for operator in Graph(probe.content).operators})
    return _template("probe_main.cc").substitute(
        arena_bytes=ARENA_BYTES,
        table="\n".join(f'    {{"{probe.name}.tflite", {probe.name}}},' for probe in made),
        n_operators=len(operators),
        registrations="\n".join(f"  resolver.{REGISTRATIONS[name]}();" for name in operators),
    )


def _readme(made: tuple[Probe, ...]) -> str:
    return _template("probe_readme.md").substitute(
        flash_kb=round(sum(len(probe.content) for probe in made) / 1000),
        arena_kib=ARENA_BYTES // 1024,
    )


def _template(name: str) -> Template:
    file = resources.files("mexit_edge.estimate.own_board") / "templates" / name
    return Template(file.read_text(encoding="utf-8"))
