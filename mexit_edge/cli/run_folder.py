"""What a run leaves beside its bundle: page, facts, history, decisions, whole model, Keras network."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mexit_edge.bundle import Bundle
from mexit_edge.estimate import BundleEstimate
from mexit_edge.files import written_whole
from mexit_edge.simulate import Simulation


def write_run_folder(
    folder: Path,
    *,
    facts: dict[str, Any],
    bundle: Bundle,
    simulation: Simulation,
    estimate: BundleEstimate,
    history: Sequence[dict[str, float]],
    whole: bytes,
    save_network: Callable[[Path], None],
) -> None:
    """Write the folder of a run, all or nothing.

    Args:
        folder: does not exist yet.
        facts: what `mexit run --json` prints.
        bundle: the stages.
        simulation: of the test subjects.
        estimate: for the same bundle.
        history: figures per epoch.
        whole: the int8 model before cutting.
        save_network: writes the Keras model to a path.
    """
    from mexit_edge.report import write_page

    with written_whole(folder) as fresh:
        fresh.mkdir()
        (fresh / "result.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        (fresh / "whole.tflite").write_bytes(whole)
        save_network(fresh / "model.keras")
        write_history(fresh / "history.csv", history)
        columns = (simulation.subject, simulation.y, simulation.label, simulation.exit)
        decisions = np.stack(columns, axis=1).tolist()
        _write_csv(fresh / "decisions.csv", ["subject", "y", "label", "exit"], decisions)
        write_page(
            fresh / "page.html",
            manifest=bundle.manifest,
            simulation=simulation,
            estimate=estimate,
            history=history,
            settings=facts["settings"],
            float_quality={"exits": facts["float"]},
            parity=facts["parity"],
            versions=bundle.manifest.versions,
            training_cost=facts["training_cost"],
        )


def write_history(path: Path, history: Sequence[dict[str, float]]) -> None:
    """Write the figures per epoch as CSV."""
    _write_csv(path, list(history[0]), [list(row.values()) for row in history])


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
