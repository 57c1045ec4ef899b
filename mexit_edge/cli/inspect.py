"""`mexit inspect`: what is in a bundle, and does it still do what it says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from mexit_edge.bundle import Bundle
from mexit_edge.cli.tables import console, print_json, stage_table
from mexit_edge.errors import RunError
from mexit_edge.runtime import available_engines, verify_golden
from mexit_edge.runtime.tflm import try_in_child


def inspect_and_print(path: Path, *, as_json: bool) -> None:
    """Load, verify and describe a bundle.

    Raises:
        InputError: it is not a whole bundle.
        RunError: its golden vectors are decided otherwise here; after all was printed.
    """
    bundle = Bundle.load(path)
    golden = _golden_facts(bundle)
    if as_json:
        print_json({"manifest": bundle.manifest.model_dump(mode="json"), "golden": golden})
    else:
        _print(bundle, golden)
    wrong = [row["engine"] for row in golden if row["decisions_wrong"]]
    if wrong:
        raise RunError(
            f"the golden decisions of `{path}` must be reproduced. Received: others on {', '.join(wrong)}. "
            "The bundle was changed, or this version of the engine computes otherwise; export it again."
        )


def _print(bundle: Bundle, golden: list[dict[str, Any]]) -> None:
    screen = console(quiet=False)
    screen.print(stage_table(bundle.manifest))
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
