"""`mexit inspect`: what is in a bundle, and does it still do what it says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from mexit_edge.bundle import Bundle
from mexit_edge.cli.tables import console, print_json, stage_table
from mexit_edge.runtime import available_engines, verify_golden


def inspect_and_print(path: Path, *, as_json: bool) -> None:
    """Load, verify and describe a bundle.

    Raises:
        InputError: it is not a whole bundle.
    """
    bundle = Bundle.load(path)
    golden = _golden_facts(bundle)
    if as_json:
        print_json({"manifest": bundle.manifest.model_dump(mode="json"), "golden": golden})
        return
    screen = console(quiet=False)
    screen.print(stage_table(bundle.manifest))
    policy = bundle.manifest.policy
    if policy is None:
        screen.print("No policy: every window runs to the final exit.")
    else:
        limits = ", ".join(map(str, policy.thresholds_int)) or "none"
        screen.print(f"Policy: {policy.score}, integer thresholds {limits}.")
    for row in golden:
        screen.print(
            f"Golden vectors, {row['engine']}: {row['decisions_wrong']} of {row['windows']} decisions differ."
        )
    if not golden:
        screen.print("No golden vectors.")


def _golden_facts(bundle: Bundle) -> list[dict[str, Any]]:
    if bundle.golden is None:
        return []
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
