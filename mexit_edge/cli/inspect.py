"""`mexit inspect`: what is in a bundle, and does it still do what it says; or what is in a file."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from mexit_edge.bundle import Bundle
from mexit_edge.cli.inspect_model import SUFFIX as TFLITE_SUFFIX
from mexit_edge.cli.inspect_model import inspect_model_and_print
from mexit_edge.cli.inspect_network import SUFFIX as KERAS_SUFFIX
from mexit_edge.cli.inspect_network import inspect_network_and_print
from mexit_edge.cli.stage_drawing import stage_drawing
from mexit_edge.cli.tables import console, memory_table, print_json, stage_table
from mexit_edge.errors import InputError, RunError
from mexit_edge.estimate import plan_memory
from mexit_edge.files import refuse_existing, write_bytes
from mexit_edge.runtime import available_engines, verify_golden
from mexit_edge.runtime.trial import try_in_child


def inspect_and_print(path: Path, *, as_json: bool, svg: Path | None = None) -> None:
    """Load, verify and describe a bundle; of a .keras file, its layers; of a .tflite, its operators.

    Args:
        path: of the file.
        as_json: whether to print JSON.
        svg: where to draw a bundle's stages; None for no picture.

    Raises:
        InputError: it is not whole, or ``svg`` exists or comes without a bundle.
        RunError: a bundle's golden vectors are decided otherwise here; after all was printed.
    """
    describe = {KERAS_SUFFIX: inspect_network_and_print, TFLITE_SUFFIX: inspect_model_and_print}.get(
        path.suffix
    )
    if describe is None:
        _inspect_bundle(path, as_json=as_json, svg=svg)
        return
    if svg is not None:
        raise InputError(f"`--svg` must come with a bundle, whose stages it draws. Received: {path}.")
    describe(path, as_json=as_json)


def _inspect_bundle(path: Path, *, as_json: bool, svg: Path | None) -> None:
    if svg is not None:
        refuse_existing(svg, overwrite=False)
    bundle = Bundle.load(path)
    golden = _golden_facts(bundle)
    if svg is not None:
        _write_picture(bundle, svg)
    if as_json:
        memory = plan_memory(bundle.manifest)
        print_json(
            {
                "manifest": bundle.manifest.model_dump(mode="json"),
                "memory": {**asdict(memory), "ram_bytes": memory.ram_bytes},
                "golden": golden,
            }
        )
    else:
        _print(bundle, golden)
    wrong = [row["engine"] for row in golden if row["decisions_wrong"]]
    if wrong:
        raise RunError(
            f"the golden decisions of `{path}` must be reproduced. Received: others on {', '.join(wrong)}. "
            "The bundle was changed, or this version of the engine computes otherwise; export it again."
        )


def _write_picture(bundle: Bundle, path: Path) -> None:
    from mexit_edge.report import plot_stages
    from mexit_edge.report.theme import svg

    write_bytes(path, svg(partial(plot_stages, bundle.manifest)))


def _print(bundle: Bundle, golden: list[dict[str, Any]]) -> None:
    screen = console(quiet=False)
    screen.print(stage_table(bundle.manifest))
    screen.print(stage_drawing(bundle.manifest))
    screen.print(memory_table(plan_memory(bundle.manifest)))
    policy = bundle.manifest.policy
    if policy is None:
        screen.print("No policy: every window runs to the final exit.")
    else:
        limits = ", ".join(map(str, policy.thresholds_int)) or "none"
        screen.print(f"Policy: {policy.score}, integer thresholds {limits}.", markup=False)
    for row in golden:
        found = f"{row['decisions_wrong']} of {row['windows']} decisions differ"
        screen.print(f"Golden vectors, {row['engine']}: {found}.", markup=False)
    if not golden:
        screen.print("No golden vectors.")


def _golden_facts(bundle: Bundle) -> list[dict[str, Any]]:
    if bundle.golden is None:
        return []
    try_in_child(bundle.stages)
    facts = []
    for engine in available_engines():
        if engine in bundle.golden.labels:
            rows, wrong = verify_golden(bundle, engine)
            facts.append(
                {
                    "engine": engine,
                    "windows": len(bundle.golden.windows),
                    "decisions_wrong": wrong,
                    "reference": bundle.golden.reference,
                    "logits_against_reference": [asdict(row) for row in rows],
                }
            )
    return facts
