"""Fit the stacks of the package's device files to published latencies, and write them.

    python benchmarks/fit_devices.py --results mlperf_tiny_results.csv --models FOLDER

Both come from outside (`MEXIT_EDGE_DIR`, `MEXIT_TFLITE_DIR`). What stands in a device file above its first
`[[stacks]]` is written by hand and kept; everything from there on is written anew, and so is
mexit_edge/estimate/relatives.toml, what is known of libraries on boards that were never measured. All
general-purpose processors of the table take part, and the cycles of `published`.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from mlperf import DATES, FOLDING, MODEL_FILES, Result, measurement, measurements, read_results
from published import KERNEL_DEVIATION, ORDER, PERSON_DETECTION, PUBLISHED, TITLES, UNMEASURED, Published

from mexit_edge.estimate import Figure, Stack, operations, parse_device
from mexit_edge.estimate.coefficients import Range, cycles_per, fitted_terms, rounded
from mexit_edge.estimate.device_toml import stack_toml
from mexit_edge.estimate.latency.population import (
    Measurement,
    Population,
    Prior,
    Spreads,
    System,
    choose_spreads,
)
from mexit_edge.estimate.latency.terms import MAC_TERMS, TERMS, rate_term
from mexit_edge.estimate.operations import OperationCost

PACKAGE = Path(__file__).parents[1] / "mexit_edge" / "estimate"
# When relatives were last fitted to other rows.
FITTED = "2026-11"
PLAIN_C = "tflm-reference"
# Kernels in plain C prefer other terms than SIMD kernels do, and share no speed with them: they have a
# population of their own, of seven rows, too few to choose spreads from. Vague ones: a factor of two or so in
# every ratio and speed. A multiply-accumulate takes them some 20 cycles (Cortex-M4: 21.2, arXiv:2010.08678,
# visual wake words), an output 40 to 100 instructions, an element of ADD 92, and TFLM adds 660 to 960 cycles
# per operator.
PLAIN_C_SPREADS = Spreads(
    speed=(0.7, 0.0, 0.0, 0.7, 0.0, 0.15, 0.03), preference=(0.4, 0.0, 0.0, 0.2, 0.0, 0.05, 0.0)
)
PLAIN_C_PRIOR = Prior(
    cycles_per_mac=20.0,
    ratios=(1.0, 1.0, 2.0, 1.0, 3.0, 3.0, 40.0, 40.0),
    vagueness=(1.0, 1.0, 1.0, 1.0, 1.5, 1.5, 1.5, 2.0),
)


@dataclass(frozen=True)
class Known:
    """Everything that was published, and what it makes of systems.

    Args:
        results: of the table.
        simd: measurements of all libraries but those in plain C.
        plain_c: the others.
        macs_per_output: of every layer or kernel that was measured, by family and term.
    """

    results: tuple[Result, ...]
    simd: Population
    plain_c: Population
    macs_per_output: dict[str, dict[str, list[float]]]

    def population(self, family: str) -> Population:
        """Return the population that a family belongs to."""
        return self.plain_c if family == PLAIN_C else self.simd

    def stack(self, system: System, *, several: bool = False) -> Stack:
        """Return what is known of a library on a board; one of several versions there is named after it."""
        population = self.population(system.family)
        own = [one for one in population.measurements if replace(one.system, name="") == system]
        rates = population.rates(replace(system, name="another"))
        before = population.rates(replace(system, name="another"), [])
        asked = np.array([one.amounts for one in own]).reshape(-1, len(TERMS))
        source, when = _source(
            [one for one in self.results if replace(one.system, name="") == system],
            [one for one in PUBLISHED if replace(one.system, name="") == system],
        )
        ranges: dict[str, Range | None] = {
            term: (min(found), max(found))
            for term, found in self.macs_per_output.get(system.family, {}).items()
        }
        return Stack(
            name=f"{system.family}-{system.version}" if several else system.family,
            family=system.family,
            version=f"{TITLES[system.family]} {system.version}",
            dtype="INT8",
            folds_constant_channels=(system.family, system.version) in FOLDING,
            source=source,
            date=when,
            fitted_on=tuple(sorted({one.model for one in own})),
            cycles_per=cycles_per(rates, fitted_terms(rates, before, asked), ranges),
        )


def learn(results: list[Result], models: Path) -> Known:
    """Read what was published, and choose how much microcontrollers share."""
    counted = {name: operations((models / file).read_bytes()) for name, file in MODEL_FILES.items()}
    counted["person detection"] = operations((models / PERSON_DETECTION).read_bytes())
    measured = [
        *measurements(results, models),
        *(_measured(one, counted["person detection"]) for one in PUBLISHED),
    ]
    simd = Population([one for one in measured if one.system.family != PLAIN_C])
    # What microcontrollers share is not learned from a Raspberry Pi, from soft cores or from single kernels.
    arm = [
        index
        for index, one in enumerate(simd.measurements)
        if one.system.core.startswith("Cortex-M") and one.model in MODEL_FILES
    ]
    return Known(
        results=tuple(results),
        simd=simd.with_spreads(choose_spreads(simd, arm)),
        plain_c=Population(
            [one for one in measured if one.system.family == PLAIN_C], PLAIN_C_SPREADS, PLAIN_C_PRIOR
        ),
        macs_per_output=_depths(measured, counted),
    )


def _measured(one: Published, person: tuple[OperationCost, ...]) -> Measurement:
    if one.amounts is None:
        return measurement(one.system, one.what, person, False, one.cycles)
    amounts = np.array([one.amounts.get(term, 0.0) for term in TERMS])
    return Measurement(one.system, one.what, amounts, one.cycles, KERNEL_DEVIATION)


def _depths(
    measured: Sequence[Measurement], counted: dict[str, tuple[OperationCost, ...]]
) -> dict[str, dict[str, list[float]]]:
    """Return the multiply-accumulates per output of every layer and kernel, by family and term."""
    found: dict[str, dict[str, list[float]]] = {}
    for one in measured:
        for cost in counted.get(one.model, ()):
            term = rate_term(cost.kind)
            if term is not None and cost.macs:
                of_family = found.setdefault(one.system.family, {})
                of_family.setdefault(term, []).append(cost.macs / cost.output_elements)
    for kernel in PUBLISHED:
        for term in MAC_TERMS:
            if kernel.amounts and kernel.macs_per_output and term in kernel.amounts:
                found[kernel.system.family].setdefault(term, []).append(kernel.macs_per_output)
    return found


def _source(published: list[Result], elsewhere: list[Published]) -> tuple[str, str]:
    fit = "with what it shares with other boards and libraries (benchmarks/fit_devices.py)"
    if published:
        date = max(DATES[one.version] for one in published)
        return f"Fit to latencies of MLPerf Tiny {_rounds(published)}, {fit}", date
    if elsewhere:
        sources = " and ".join(dict.fromkeys(one.source for one in elsewhere))
        return f"Fit to {sources}, {fit}", max(one.date for one in elsewhere)
    return "From other boards and libraries (benchmarks/fit_devices.py)", FITTED


def _rounds(results: list[Result]) -> str:
    return ", ".join(dict.fromkeys(f"{one.version} ({one.submitter})" for one in results))


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


def write_device(path: Path, known: Known) -> None:
    """Replace the stacks of a device file."""
    head = path.read_text(encoding="utf-8").split("[[stacks]]")[0].rstrip()
    facts = tomllib.loads(head)
    measured = [*known.simd.measurements, *known.plain_c.measurements]
    systems = {replace(one.system, name="") for one in measured if one.system.board == path.stem}
    systems |= {
        System(board, facts["core"], family, version, "")
        for board, family, version in UNMEASURED
        if board == path.stem
    }
    # Newest first within a family: sorting keeps the order of what is equal.
    newest = sorted(systems, key=lambda one: _version(one.version), reverse=True)
    ordered = sorted(newest, key=lambda one: (_place(one.family), one.family))
    families = [one.family for one in ordered]
    texts = []
    for system in ordered:
        stack = known.stack(system, several=families.count(system.family) > 1)
        power = active_power(
            [one for one in known.results if replace(one.system, name="") == system],
            facts["supply_v"]["value"],
        )
        texts.append(stack_toml(stack.model_copy(update={"active_power_mw": power})))
    text = "\n\n".join([head, *texts]) + "\n"
    parse_device(text)
    path.write_text(text, encoding="utf-8")
    print(f"{path.name}: {', '.join(families)}")


def _version(words: str) -> tuple[int, ...]:
    return tuple(int(part) for part in words.split("."))


def _place(family: str) -> int:
    return ORDER.index(family) if family in ORDER else len(ORDER)


def write_relatives(known: Known) -> None:
    """Write what is known of every family of libraries on every core, on a board never measured."""
    systems = [one.system for one in (*known.simd.measurements, *known.plain_c.measurements)]
    arm = {one.core for one in systems if one.core.startswith("Cortex-M")}
    texts = [
        "# What is known of kernel libraries on boards where they were never measured: per family, its\n"
        "# last version on every core that it was measured on (any Cortex-M, if on one) and on any other.\n"
        "# Written by benchmarks/fit_devices.py."
    ]
    for family in sorted({one.family for one in systems}):
        version = max((one.version for one in systems if one.family == family), key=_version)
        cores = {one.core for one in systems if one.family == family}
        if cores & arm:
            cores |= arm
        for core in (*sorted(cores), None):
            stack = known.stack(System("another", core or "another", family, version, ""))
            text = stack_toml(stack, "relatives.stack").replace("[[relatives.stack]]", "[relatives.stack]")
            head = "[[relatives]]" + (f'\ncore = "{core}"' if core else "")
            texts.append(f"{head}\n{text}")
    (PACKAGE / "relatives.toml").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    print(f"relatives.toml: {len(texts) - 1} entries")


def main() -> None:
    """Fit, and write the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, help="table of published results")
    parser.add_argument("--models", type=Path, required=True, help="folder of the reference models")
    arguments = parser.parse_args()
    known = learn(read_results(arguments.results), arguments.models)
    print(known.simd.spreads)
    for path in sorted((PACKAGE / "devices").glob("*.toml")):
        write_device(path, known)
    write_relatives(known)


if __name__ == "__main__":
    main()
