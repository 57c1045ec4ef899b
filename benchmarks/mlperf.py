"""Published results of MLPerf Tiny, as measurements for the latency model and rows for the power model.

The table of results is not part of the repository (`MEXIT_EDGE_DIR`); its columns are those of the published
logs: version, division, submitter, system, board, cpu, clock_MHz, supply_V, stack, model, dtype, latency_ms,
energy_uJ, latency_ms_energy_mode, general_purpose_cpu, source. The four models are the closed division's
reference models (`MEXIT_TFLITE_DIR`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mexit_edge.estimate import operations
from mexit_edge.estimate.latency.population import Measurement, System
from mexit_edge.estimate.latency.terms import amounts
from mexit_edge.estimate.operations import OperationCost

MODEL_FILES = {
    "ad": "ad01_int8.tflite",
    "ic": "pretrainedResnet_quant.tflite",
    "kws": "kws_ref_model.tflite",
    "vww": "vww_96_int8.tflite",
}
DATES = {"v0.5": "2021-06", "v0.7": "2022-04", "v1.0": "2022-11", "v1.1": "2023-06"}
FILTER = "closed division, int8, general-purpose processor, Arm Cortex-M core"

# Libraries by the words of the submission: family, and version within it. The first match counts.
_STACKS: tuple[tuple[str, str, Callable[[re.Match[str]], str]], ...] = (
    (r"X-CUBE-AI v(\d+\.\d+)", "x-cube-ai", lambda found: found[1]),
    (r"Plumerai Inference Engine (\d{4})", "plumerai", lambda found: found[1]),
    (r"Plumerai", "plumerai", lambda _: "2022"),
    (r"\(HALE\) version (\d+\.\d+)", "hale", lambda found: found[1]),
    (r"ONNC", "onnc-cmsis-nn", lambda _: "2023"),
    (r"microTVM.*CMSIS_NN", "microtvm-cmsis-nn", lambda _: "2022"),
    (r"microTVM", "microtvm", lambda _: "2022"),
    (r"Andes NN", "tflm-andes-nn", lambda _: "2022"),
    (r"tflite-micro.*CMSIS", "tflm-cmsis-nn", lambda _: "2022"),
    (r"TensorFlow Lite for Microcontrollers v2\.3\.1", "tflm-cmsis-nn", lambda _: "2021"),
    # Its 30 to 50 cycles per multiply-accumulate are those of the reference kernels.
    (r"Tensorflow Lite Micro 2\.3\.1", "tflm-reference", lambda _: "2021"),
    (r"LEIP", "leip", lambda _: "2021"),
)
# The submissions whose visual wake words latency shows that they skip channels that do not depend on the
# input.
FOLDING = {("x-cube-ai", "8.1"), ("plumerai", "2023"), ("onnc-cmsis-nn", "2023")}
_CORES = (
    (r"Cortex®?-M0\+", "Cortex-M0+"),
    (r"Cortex®?-M33", "Cortex-M33"),
    (r"Cortex®?-M4", "Cortex-M4F"),
    (r"Cortex®?-M7", "Cortex-M7"),
    (r"RXv2", "RXv2"),
    (r"D25F", "AndesCore D25F"),
    (r"D45", "AndesCore D45"),
    (r"NX27V", "AndesCore NX27V"),
    (r"RV32IMAC", "RV32IMAC"),
    (r"BCM2711", "Cortex-A72"),
)
_BOARDS = {
    "nucleo-h7a3zi-q": "nucleo-h7a3zi",
    "nucleo-u575zi-q": "nucleo-u575zi",
    "raspberry-pi-4b": "raspberry-pi-4",
}


@dataclass(frozen=True)
class Result:
    """One published row.

    Args:
        system: where.
        model: a key of `MODEL_FILES`.
        folds: whether the library skips channels that do not depend on the input.
        clock_mhz: of the processor.
        supply_v: of the energy run, None where it was not stated.
        latency_ms: of one inference.
        power_mw: mean power of the energy run, None where there was none.
        version: of the benchmark.
        submitter: who measured.
    """

    system: System
    model: str
    folds: bool
    clock_mhz: float
    supply_v: float | None
    latency_ms: float
    power_mw: float | None
    version: str
    submitter: str

    @property
    def cycles(self) -> float:
        """Of one inference."""
        return self.latency_ms * 1e3 * self.clock_mhz


def read_results(path: Path) -> list[Result]:
    """Return the closed division's int8 rows on general-purpose processors."""
    table = pd.read_csv(path)
    table = table[(table["division"] == "closed") & (table["dtype"] == "int8") & table["general_purpose_cpu"]]
    return [_result(row) for row in table.to_dict("records")]


def cortex_m(results: list[Result]) -> list[Result]:
    """Return those on Arm Cortex-M cores: the rows that figures of error are about."""
    return [one for one in results if one.system.core.startswith("Cortex-M")]


def measurements(results: list[Result], models: Path) -> list[Measurement]:
    """Return the latencies as measurements of the latency model."""
    counted = {name: operations((models / file).read_bytes()) for name, file in MODEL_FILES.items()}
    return [measurement(one.system, one.model, counted[one.model], one.folds, one.cycles) for one in results]


def measurement(
    system: System, model: str, costs: tuple[OperationCost, ...], folds: bool, cycles: float
) -> Measurement:
    """Return the latency of a model as a measurement of the latency model."""
    return Measurement(system, model, amounts(costs, folds_constant_channels=folds), cycles)


def _result(row: dict[str, object]) -> Result:
    family, version = _stack(str(row["stack"]))
    board = re.sub(r"[ _/]+", "-", str(row["board"]).lower())
    core = _core(str(row["cpu"]))
    if core.startswith("AndesCore"):
        board = core.lower().replace("andescore ", "andes-")
    power = None
    if pd.notna(row["energy_uJ"]) and pd.notna(row["latency_ms_energy_mode"]):
        power = float(str(row["energy_uJ"])) / float(str(row["latency_ms_energy_mode"]))
    return Result(
        system=System(
            board=_BOARDS.get(board, board),
            core=core,
            family=family,
            version=version,
            # Operating systems and supplies make systems of one submitter differ.
            name=f"{row['version']} {row['submitter']} {row['system']}",
        ),
        model=str(row["model"]),
        folds=(family, version) in FOLDING,
        clock_mhz=float(str(row["clock_MHz"])),
        supply_v=float(str(row["supply_V"])) if pd.notna(row["supply_V"]) else None,
        latency_ms=float(str(row["latency_ms"])),
        power_mw=power,
        version=str(row["version"]),
        submitter=str(row["submitter"]),
    )


def _stack(words: str) -> tuple[str, str]:
    for pattern, family, version in _STACKS:
        found = re.search(pattern, words)
        if found:
            return family, version(found)
    raise SystemExit(f"no kernel library is known by these words: {words[:120]!r}; add them to _STACKS")


def _core(words: str) -> str:
    for pattern, core in _CORES:
        if re.search(pattern, words):
            return core
    raise SystemExit(f"no core is known by these words: {words!r}; add them to _CORES")
