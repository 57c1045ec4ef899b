"""Fit the stacks of the package's device files to published latencies, and write them.

    python benchmarks/fit_devices.py --results mlperf_tiny_results.csv --models FOLDER

Both come from outside (`MEXIT_EDGE_DIR`, `MEXIT_TFLITE_DIR`). What stands in a device file above its first
`[[stacks]]` is written by hand and kept; everything from there on is written anew, and so is
mexit_edge/estimate/relatives.toml, what is known of libraries on boards that were never measured. All
general-purpose processors of the table take part, and the latencies of `PUBLISHED`.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
from mlperf import DATES, MODEL_FILES, Result, measurement, measurements, read_results

from mexit_edge.estimate import Figure, Stack, operations, parse_device
from mexit_edge.estimate.coefficients import cycles_per, rounded
from mexit_edge.estimate.device_toml import stack_toml
from mexit_edge.estimate.latency.population import Measurement, Population, System, choose_spreads
from mexit_edge.estimate.latency.rates import LogRates
from mexit_edge.estimate.latency.terms import MAC_TERMS, TERMS, rate_term
from mexit_edge.estimate.operations import OperationCost

PACKAGE = Path(__file__).parents[1] / "mexit_edge" / "estimate"
PERSON_DETECTION = "tflm_person_detect_model_data.tflite"


@dataclass(frozen=True)
class Published:
    """Cycles published elsewhere than in the table.

    Args:
        system: where.
        what: the model or kernel that was timed.
        amounts: that it asks for, by term; None for TFLM's person detection model.
        cycles: of one run.
        source: who published it.
        date: when.
    """

    system: System
    what: str
    amounts: Mapping[str, float] | None
    cycles: float
    source: str
    date: str


def _person_detection(
    board: str, core: str, stack: str, ms: float, mhz: float, source: str, when: str
) -> Published:
    family, version = stack.split(" ")
    system = System(board, core, family, version, f"{board} {family}")
    return Published(system, "person detection", None, ms * 1e3 * mhz, source, when)


def _s3_kernel(what: str, optimised: float, plain: float, **amounts: float) -> tuple[Published, Published]:
    """Return a row of esp-nn's table of kernels on the ESP32-S3: cycles of a call, without TFLM around it."""
    source = "esp-nn README: table of kernels on ESP32-S3"
    return (
        Published(_S3_ESP_NN, what, amounts, optimised, source, "2026-11"),
        Published(_S3_REFERENCE, what, amounts, plain, source, "2026-11"),
    )


_ESP = ("esp-nn README: invoke() of TFLM's person detection, internal memory", "2026-11")
_NRF52840 = ("guberti/tvm-arduino-profiling README: TFLM person detection, Arduino Nano 33 BLE", "2021-08")
_S3_ESP_NN = System("esp32-s3", "Xtensa LX7", "esp-nn", "1.2", "esp32-s3 esp-nn")
_S3_REFERENCE = System("esp32-s3", "Xtensa LX7", "tflm-reference", "2023", "esp32-s3 tflm-reference")
PUBLISHED = (
    _person_detection("esp32", "Xtensa LX6", "esp-nn 1.2", 380, 240, *_ESP),
    _person_detection("esp32", "Xtensa LX6", "tflm-reference 2023", 4084, 240, *_ESP),
    _person_detection("esp32-s3", "Xtensa LX7", "esp-nn 1.2", 54, 240, *_ESP),
    _person_detection("esp32-s3", "Xtensa LX7", "tflm-reference 2023", 2300, 240, *_ESP),
    _person_detection("esp32-c3", "RV32IMC", "esp-nn 1.2", 426, 160, *_ESP),
    _person_detection("esp32-c3", "RV32IMC", "tflm-reference 2023", 3355, 160, *_ESP),
    _person_detection("nrf52840-dk", "Cortex-M4F", "tflm-cmsis-nn 2021", 653.005, 64, *_NRF52840),
    *_s3_kernel("conv 1x1 64x64 kernel", 331_008, 4_712_500, conv_1x1=409_600, output=6_400),
    *_s3_kernel("conv 1x1 16x16 kernel", 39_022, 312_754, conv_1x1=16_384, output=1_024),
    *_s3_kernel("conv 3x3 16x16 kernel", 46_838, 362_880, conv_kxk=36_864, output=256),
    *_s3_kernel("depthwise 3x3 kernel", 184_176, 1_159_831, depthwise=36_864),
    *_s3_kernel("depthwise 5x5 kernel", 372_435, 1_671_363, depthwise=80_000),
    *_s3_kernel("depthwise 1x3 kernel", 2_137_390, 10_845_578, depthwise=147_456),
    *_s3_kernel("fully connected 271x3 kernel", 1_543, 8_439, fully_connected=813, output=3),
    *_s3_kernel("add kernel", 74_440, 281_337, element=3_230),
    *_s3_kernel("mul kernel", 35_002, 122_703, element=3_230),
    *_s3_kernel("softmax kernel", 11_107, 15_209, element=256),
)
# Of the log cycles of single kernels, which differ more than models do: the three depthwise ones of that
# table take 5.0, 4.7 and 14.5 cycles per multiply-accumulate.
KERNEL_DEVIATION = 0.6
# Stacks that a device file has without any latency of that library on that board.
UNMEASURED = (
    ("raspberry-pi-pico", "tflm-cmsis-nn", "2022"),
    ("raspberry-pi-pico", "tflm-reference", "2023"),
)
# Order of stacks in a device file, newest version first: the first is the default.
PREFERRED = ("tflm-cmsis-nn", "esp-nn", "x-cube-ai", "microtvm-cmsis-nn", "tflm-andes-nn", "plumerai", "hale")
TITLES = {
    "x-cube-ai": "X-CUBE-AI",
    "plumerai": "Plumerai Inference Engine",
    "hale": "Bosch Hardware-Aware Lowering Engine",
    "onnc-cmsis-nn": "ONNC with CMSIS-NN",
    "microtvm-cmsis-nn": "microTVM with CMSIS-NN",
    "microtvm": "microTVM without CMSIS-NN",
    "tflm-andes-nn": "TensorFlow Lite Micro with the Andes NN library",
    "tflm-cmsis-nn": "TensorFlow Lite Micro with CMSIS-NN",
    "tflm-reference": "TensorFlow Lite Micro with reference kernels",
    "leip": "LEIP",
    "esp-nn": "TensorFlow Lite Micro with esp-nn",
}
FOLDING = {("x-cube-ai", "8.1"), ("plumerai", "2023"), ("onnc-cmsis-nn", "2023")}


def stack_of(
    population: Population,
    system: System,
    fitted_on: tuple[str, ...],
    source: str,
    published: str,
    ranges: dict[str, tuple[float, float]],
    several: bool,
) -> Stack:
    """Return what a population says of a system."""
    rates = population.rates(system)
    fitted = fitted_terms(rates, population.rates(system, [])) if fitted_on else set()
    return Stack(
        name=f"{system.family}-{system.version}" if several else system.family,
        family=system.family,
        version=f"{TITLES[system.family]} {system.version}",
        dtype="INT8",
        folds_constant_channels=(system.family, system.version) in FOLDING,
        source=source,
        date=published,
        fitted_on=fitted_on,
        cycles_per=cycles_per(rates, fitted, ranges),
    )


def fitted_terms(rates: LogRates, before: LogRates) -> set[str]:
    """Return the terms whose uncertainty the measurements halved."""
    narrow = 4 * np.diag(rates.covariance) < np.diag(before.covariance)
    return {term for term, is_narrow in zip(TERMS, narrow, strict=True) if is_narrow}


def ranges_of(models: list[tuple[OperationCost, ...]]) -> dict[str, tuple[float, float]]:
    """Return the multiply-accumulates per output, least and most, of each kind over the models' layers."""
    found: dict[str, list[float]] = {}
    for costs in models:
        for cost in costs:
            term = rate_term(cost.kind)
            if term in MAC_TERMS and cost.macs:
                found.setdefault(term, []).append(cost.macs / cost.output_elements)
    return {term: (min(own), max(own)) for term, own in found.items()}


def active_power(results: list[Result], supply_v: float) -> Figure | None:
    """Return the median power of energy runs at this supply (one is 29 % off), with their whole spread."""
    own = [one for one in results if one.power_mw is not None and one.supply_v == supply_v]
    if not own:
        return None
    power = np.array([one.power_mw for one in own])
    middle = float(np.median(power))
    # 7 %: twice the mean error of constant power on a model not seen.
    low, high = min(power.min(), middle / 1.07), max(power.max(), middle * 1.07)
    return Figure(
        value=rounded(middle),
        low=rounded(low),
        high=rounded(high),
        source=(
            f"Median of the energy runs of MLPerf Tiny {_rounds(own)} at {supply_v:g} V ({len(own)} models; "
            "their spread, at least 7 %)"
        ),
        date=max(DATES[one.version] for one in own),
        status="measured",
    )


def _rounds(results: list[Result]) -> str:
    submitters = dict.fromkeys(f"{one.version} ({one.submitter})" for one in results)
    return ", ".join(submitters)


def main() -> None:
    """Fit, and write the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, help="table of published results")
    parser.add_argument("--models", type=Path, required=True, help="folder of the reference models")
    arguments = parser.parse_args()
    results = read_results(arguments.results)
    person = operations((arguments.models / PERSON_DETECTION).read_bytes())
    measured: list[Measurement] = [
        *measurements(results, arguments.models),
        *(_measured(one, person) for one in PUBLISHED),
    ]
    population = Population(measured)
    # What microcontrollers share is not learned from a Raspberry Pi or from soft cores.
    arm = [
        index
        for index, one in enumerate(measured)
        if one.system.core.startswith("Cortex-M") and one.model in MODEL_FILES
    ]
    population = population.with_spreads(choose_spreads(population, arm))
    print(population.spreads)
    counted = [operations(path.read_bytes()) for path in sorted(arguments.models.glob("*.tflite"))]
    ranges = ranges_of(counted)
    for path in sorted((PACKAGE / "devices").glob("*.toml")):
        write_device(path, population, results, ranges)
    write_relatives(population, ranges)


def _measured(one: Published, person: tuple[OperationCost, ...]) -> Measurement:
    if one.amounts is None:
        return measurement(one.system, one.what, person, False, one.cycles)
    amounts = np.array([one.amounts.get(term, 0.0) for term in TERMS])
    return Measurement(one.system, one.what, amounts, one.cycles, KERNEL_DEVIATION)


def write_device(
    path: Path, population: Population, results: list[Result], ranges: dict[str, tuple[float, float]]
) -> None:
    """Replace the stacks of a device file."""
    head = path.read_text(encoding="utf-8").split("[[stacks]]")[0].rstrip()
    name, facts = path.stem, tomllib.loads(head)
    own = [one for one in population.measurements if one.system.board == name]
    systems = list(dict.fromkeys(replace(one.system, name="") for one in own))
    for board, family, version in UNMEASURED:
        if board == name:
            systems.append(System(board, facts["core"], family, version, ""))
    order = {family: place for place, family in enumerate(PREFERRED)}
    systems.sort(key=lambda one: one.version, reverse=True)
    systems.sort(key=lambda one: (order.get(one.family, len(order)), one.family))
    families = [one.family for one in systems]
    texts = []
    for system in systems:
        published = [one for one in results if replace(one.system, name="") == system]
        models = tuple(sorted({one.model for one in own if replace(one.system, name="") == system}))
        elsewhere = [one for one in PUBLISHED if replace(one.system, name="") == system]
        source, when = _source(published, elsewhere)
        stack = stack_of(
            population,
            replace(system, name="another"),
            models,
            source,
            when,
            ranges,
            families.count(system.family) > 1,
        )
        texts.append(
            stack_toml(
                stack.model_copy(
                    update={"active_power_mw": active_power(published, facts["supply_v"]["value"])}
                )
            )
        )
    text = "\n\n".join([head, *texts]) + "\n"
    parse_device(text)
    path.write_text(text, encoding="utf-8")
    print(f"{path.name}: {', '.join(families)}")


def _source(published: list[Result], elsewhere: list[Published]) -> tuple[str, str]:
    fit = "with what it shares with other boards and libraries (benchmarks/fit_devices.py)"
    if published:
        return (
            f"Fit to latencies of MLPerf Tiny {_rounds(published)}, {fit}",
            max(DATES[one.version] for one in published),
        )
    if elsewhere:
        sources = " and ".join(dict.fromkeys(one.source for one in elsewhere))
        return f"Fit to {sources}, {fit}", elsewhere[0].date
    return (
        "From other boards and libraries (benchmarks/fit_devices.py)",
        date.today().strftime("%Y-%m"),
    )


def write_relatives(population: Population, ranges: dict[str, tuple[float, float]]) -> None:
    """Write what is known of every family of libraries on every core, on a board never measured."""
    systems = [one.system for one in population.measurements]
    arm = sorted({one.core for one in systems if one.core.startswith("Cortex-M")})
    texts = [
        "# What is known of kernel libraries on boards where they were never measured: per family, its",
        "# last version on every core that it was measured on (any Cortex-M, if on one) and on any other.",
        "# Written by benchmarks/fit_devices.py.",
    ]
    for family in sorted({one.family for one in systems}):
        version = max(one.version for one in systems if one.family == family)
        cores = sorted({one.core for one in systems if one.family == family})
        if set(cores) & set(arm):
            cores = sorted({*cores, *arm})
        for core in (*cores, None):
            stack = stack_of(
                population,
                System("another", core or "another", family, version, "another"),
                (),
                _source([], [])[0],
                _source([], [])[1],
                ranges,
                several=False,
            )
            head = "[[relatives]]" + (f'\ncore = "{core}"' if core else "")
            texts.append(
                f"{head}\n"
                + stack_toml(stack, "relatives.stack").replace("[[relatives.stack]]", "[relatives.stack]")
            )
    path = PACKAGE / "relatives.toml"
    path.write_text("\n\n".join(texts[3:] and ["\n".join(texts[:3]), *texts[3:]]) + "\n", encoding="utf-8")
    print(f"relatives.toml: {len(texts) - 3} entries")


if __name__ == "__main__":
    main()
