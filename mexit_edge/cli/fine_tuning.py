"""Quantization-aware fine-tuning: `--qat`, after the training of `mexit run` and `mexit train`, and alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mexit_edge.cli.progress import EpochLines
from mexit_edge.cli.settings import TrainSettings
from mexit_edge.cli.training import Trained, epoch_callback, epoch_rows
from mexit_edge.data import HeldOutTest, Split
from mexit_edge.files import write_bytes, written_whole

FLOAT, FLOAT_FIGURES, UNFINISHED = "float.keras", "float.json", "unfinished_qat.npz"


def n_tuning_epochs(settings: TrainSettings, model: Any, epochs: int) -> int:
    """Return the epochs of fine-tuning after a training of so many; 0 without `--qat`."""
    if not settings.qat:
        return 0
    from mexit_edge.compress.quantize_aware import fine_tuning_epochs

    return fine_tuning_epochs(epochs, settings.qat_share, phases=len(model.phases))


def fine_tune(
    settings: TrainSettings,
    sets: Split | HeldOutTest,
    trained: Trained,
    n_epochs: int,
    lines: EpochLines,
    folder: Path | None,
) -> Trained:
    """Return the network after fine-tuning with fake quantization, its epochs as further phases.

    Args:
        settings: of the training.
        sets: that the float network was trained on.
        trained: the float network.
        n_epochs: of fine-tuning.
        lines: shows the epochs.
        folder: for a checkpoint, so that an interrupted fine-tuning goes on; None for none.
    """
    from mexit_edge.compress.quantize_aware import FINE_TUNING_RATE, fake_quantized

    if folder is not None:
        _keep_float(folder, trained)
    model = fake_quantized(
        trained.model,
        sets.train,
        epochs=n_epochs,
        batch_size=settings.batch_size,
        learning_rate=FINE_TUNING_RATE * settings.learning_rate,
        clip_norm=settings.clip_norm,
        seed=settings.seed,
    )
    done, phases = len(trained.history), max(row["phase"] for row in trained.history)
    fitted = model.fit(
        sets.train,
        validation_data=sets.validation if isinstance(sets, Split) else None,
        epochs=n_epochs,
        batch_size=settings.batch_size,
        callbacks=[epoch_callback(lines, done=done)],
        checkpoint=None if folder is None else folder / UNFINISHED,
        verbose=0,
    )
    rows = [
        {**row, "epoch": done + row["epoch"], "phase": phases + row["phase"]} for row in epoch_rows(fitted)
    ]
    return replace(trained, model=model, history=[*trained.history, *rows], before=trained)


def _keep_float(folder: Path, trained: Trained) -> None:
    """Write what an interrupted fine-tuning begins with anew: network, history and cost of the training."""
    with written_whole(folder / FLOAT, overwrite=True) as fresh:
        trained.model.save(fresh)
    facts = {
        "history": trained.history,
        "training_cost": [cost.to_dict() for cost in trained.model.training_cost],
    }
    # Last: it says that the network is there.
    write_bytes(folder / FLOAT_FIGURES, (json.dumps(facts) + "\n").encode(), overwrite=True)


def kept_float(folder: Path) -> Trained | None:
    """Return what `fine_tune` left of the float network; None where the training is not done."""
    if not (folder / FLOAT_FIGURES).exists():
        return None
    import keras

    from mexit_edge.regimes import PhaseCost

    facts = json.loads((folder / FLOAT_FIGURES).read_text("utf-8"))
    model = keras.saving.load_model(folder / FLOAT)
    model.training_cost = tuple(PhaseCost(**cost) for cost in facts["training_cost"])
    return Trained(model, facts["history"])


def forget_float(folder: Path) -> None:
    """Remove what `fine_tune` left of the float network."""
    for name in (FLOAT_FIGURES, FLOAT):
        (folder / name).unlink(missing_ok=True)
