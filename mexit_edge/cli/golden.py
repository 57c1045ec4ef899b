"""Golden vectors, as `mexit inspect` and `mexit verify` check and print them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from mexit_edge.bundle import Bundle
from mexit_edge.errors import RunError
from mexit_edge.runtime import GoldenParity, available_engines, verify_golden, verify_golden_tensors
from mexit_edge.runtime.trial import try_bundle


@dataclass(frozen=True)
class GoldenCheck:
    """What came of a bundle's golden vectors; empty where it has none.

    Args:
        engines: per engine what it decides, in plain types.
        tensors: what the stages give.
    """

    engines: tuple[dict[str, Any], ...] = ()
    tensors: GoldenParity | None = None

    def facts(self) -> dict[str, Any]:
        """Return what JSON tells."""
        tensors = None if self.tensors is None else asdict(self.tensors) | {"wrong": self.tensors.wrong}
        return {"golden": list(self.engines), "golden_tensors": tensors}


def check_golden(bundle: Bundle, engines: Sequence[str] = ()) -> GoldenCheck:
    """Run the golden windows: their decisions on the engines, their tensors on the one that made them.

    Args:
        bundle: with golden vectors or without.
        engines: names; none for all that this machine can run.
    """
    golden = bundle.golden
    if golden is None:
        return GoldenCheck()
    try_bundle(bundle)  # of a file: one child for all engines
    facts = []
    for engine in available_engines():
        if engine in golden.labels and (not engines or engine in engines):
            rows, wrong = verify_golden(bundle, engine)
            facts.append(
                {
                    "engine": engine,
                    "windows": len(golden.windows),
                    "decisions_wrong": wrong,
                    "reference": golden.reference,
                    "logits_against_reference": [asdict(row) for row in rows],
                }
            )
    return GoldenCheck(tuple(facts), verify_golden_tensors(bundle))


def print_golden(check: GoldenCheck, screen: Console) -> None:
    """Print a line per engine, and one for the tensors."""
    for fact in check.engines:
        found = f"{fact['decisions_wrong']} of {fact['windows']} decisions differ"
        screen.print(f"Golden vectors, {fact['engine']}: {found}.", markup=False)
    if check.tensors is None:
        return
    parity = check.tensors
    made_by = "" if parity.engine == parity.reference else f" (made by {parity.reference})"
    differing = sum(row.differing_elements for row in parity.tensors)
    largest = max(row.largest_difference for row in parity.tensors)
    screen.print(
        f"Golden tensors{made_by}, {parity.engine}: {differing:,} of "
        f"{sum(row.elements for row in parity.tensors):,} elements differ"
        f"{f', by at most {largest} int8 steps' if differing else ''}.",
        markup=False,
    )


def refuse_wrong_golden(path: Path, check: GoldenCheck) -> None:
    """Raise for golden vectors that were not reproduced.

    Raises:
        RunError: names the engines, or the tensors.
    """
    found = []
    if wrong := [fact["engine"] for fact in check.engines if fact["decisions_wrong"]]:
        found.append(f"others on {', '.join(wrong)}")
    if check.tensors is not None and check.tensors.wrong:
        found.append(f"other values of {', '.join(check.tensors.wrong)} on {check.tensors.engine}")
    if found:
        raise RunError(
            f"the golden {'decisions' if wrong else 'tensors'} of `{path}` must be reproduced. "
            f"Received: {'; '.join(found)}. "
            "The bundle was changed, or this version of the engine computes otherwise; export it again."
        )
