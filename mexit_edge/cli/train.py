"""`mexit train`: train a network in a folder of its own; an interrupted training goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console

from mexit_edge.cli.fine_tuning import forget_float
from mexit_edge.cli.progress import JobProgress
from mexit_edge.cli.run_folder import write_history
from mexit_edge.cli.settings import RUNS, TrainSettings, refuse_file_name
from mexit_edge.cli.tables import console, cost_table, print_json
from mexit_edge.cli.training import (
    Trained,
    check_train_settings,
    checked_sets,
    float_exits,
    train,
)
from mexit_edge.data import HeldOutTest, Split
from mexit_edge.errors import InputError
from mexit_edge.files import free_name, refuse_unwritable, stands, write_bytes, written_whole

SETTINGS, RESULT = "settings.json", "training.json"


def train_and_print(settings: TrainSettings, resume: Path | None, *, as_json: bool) -> None:
    """Train and print figures and cost.

    Args:
        settings: of a new training; not read with ``resume``.
        resume: folder of an interrupted training.
        as_json: whether to print JSON.

    Raises:
        InputError: an option is wrong, the folder exists, or there is nothing to resume.
    """
    folder = resume
    if resume is not None:
        settings = read_settings(resume)
    check_train_settings(settings, {"tensorflow": "train", "keras": "train"})
    if folder is None:
        refuse_file_name(settings.out, "a new folder")
        folder = settings.out or free_name(RUNS / f"{settings.data}-{settings.regime}")
        if stands(folder):
            raise InputError(
                f"`--out` must be a new folder: {folder} exists already. Received: {folder}. Choose another "
                "name, or go on with an interrupted training: --resume."
            )
    refuse_unwritable(folder / SETTINGS)
    screen = console(quiet=as_json)
    try:
        facts = run_in(folder, settings, screen)
    except KeyboardInterrupt:
        if folder.exists():
            typer.echo(f"Go on with: mexit train --resume {folder}", err=True)
        raise
    if as_json:
        print_json(facts)
        return
    screen.print(cost_table(facts["training_cost"]))
    for kind, rows in {"float": facts["validation"], "fine-tuned": facts.get("validation_qat", [])}.items():
        for row in rows:
            screen.print(
                f"{row['exit']}: balanced accuracy {row['balanced_accuracy']:.4f} on validation subjects, "
                f"{kind}",
                highlight=False,
                soft_wrap=True,
            )
    screen.print(f"Network: {folder / 'model.keras'}", markup=False, soft_wrap=True)


def run_in(folder: Path, settings: TrainSettings, screen: Console) -> dict[str, Any]:
    """Train in a folder, from the beginning or from where it was interrupted; return the facts."""
    progress = JobProgress(screen)
    sets = checked_sets(settings, progress)
    # What a training that can go on needs stands first; a wrong option has left nothing by now.
    write_bytes(folder / SETTINGS, _to_json(settings), overwrite=True)
    trained = train(settings, sets, progress, folder)
    facts = {
        "settings": {**_plain(settings), "epochs": settings.n_epochs},
        "subjects_of": {name: list(subjects) for name, subjects in sets.subjects.items()},
        "training_cost": trained.cost,
        # Test subjects are for the end: `mexit run` reports on them.
        "validation": _validation(trained.float_model, sets),
        **({"validation_qat": _validation(trained.model, sets)} if settings.qat else {}),
        "out_of_fold": _out_of_fold_facts(trained),
        "seconds": progress.seconds,
        "network": str(folder / "model.keras"),
    }
    _write(folder, trained, facts)
    return facts


def read_settings(folder: Path) -> TrainSettings:
    """Return the settings of an interrupted training.

    Raises:
        InputError: there is none in that folder.
    """
    rule = "`--resume` must be the folder of an interrupted `mexit train`."
    if (folder / RESULT).exists():
        raise InputError(f"{rule} Received: {folder}, which is finished.")
    try:
        stored = json.loads((folder / SETTINGS).read_text("utf-8"))
        if set(stored) != {field.name for field in fields(TrainSettings)}:
            raise ValueError("other settings")
        return replace(TrainSettings(**stored), out=folder)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{rule} Received: {folder} ({error}).") from error


def _write(folder: Path, trained: Trained, facts: dict[str, Any]) -> None:
    with written_whole(folder / "model.keras", overwrite=True) as fresh:
        trained.model.save(fresh)
    write_history(folder / "history.csv", trained.history)
    found = trained.out_of_fold
    if found is not None:
        with written_whole(folder / "out_of_fold.npz", overwrite=True) as fresh:
            np.savez(fresh, logits=found.logits, y=found.windows.y, subject=found.windows.subject)
    # Last: it says that all is done.
    write_bytes(folder / RESULT, (json.dumps(facts, indent=1) + "\n").encode(), overwrite=True)
    for file in folder.glob("fold_*.npz"):
        file.unlink()
    forget_float(folder)


def _validation(model: Any, sets: Split | HeldOutTest) -> list[dict[str, Any]]:
    return float_exits(model, sets.validation) if isinstance(sets, Split) else []


def _out_of_fold_facts(trained: Trained) -> dict[str, Any] | None:
    found = trained.out_of_fold
    if found is None:
        return None
    return {
        "folds": [list(fold) for fold in found.folds],
        "epochs": found.epochs,
        "losses": found.losses,
        "windows": len(found.windows),
    }


def _plain(settings: TrainSettings) -> dict[str, Any]:
    return {**asdict(settings), "out": None if settings.out is None else str(settings.out)}


def _to_json(settings: TrainSettings) -> bytes:
    return (json.dumps(_plain(settings), indent=1) + "\n").encode()
