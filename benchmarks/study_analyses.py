"""Why regimes differ: joint, disjoint and mixed from the same initial weights, analysed along their training.

    python benchmarks/study_analyses.py

HAPT, `cnn`, training subjects of seed 0. Networks and checkpoints go to runs/study/analyses; the tables of
`mexit analyze` to results/study: of the three trained networks together (analyses_*.csv), and of each along
its training (analyses_REGIME_*.csv).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import keras

import mexit_edge as mx
from mexit_edge.regimes import Recipe

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "study"
RUNS = HERE.parent / "runs" / "study" / "analyses"
REGIMES = ("joint", "disjoint", "mixed")
EPOCHS, CHECKPOINTS = 60, 6


def main() -> None:
    split = mx.data.split_by_subject(mx.data.load("hapt"), test="official", seed=0)
    RUNS.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    chosen = [EPOCHS * number // CHECKPOINTS for number in range(1, CHECKPOINTS + 1)]
    for regime in REGIMES:
        if not file_of(regime, EPOCHS).exists():
            train(regime, split)
        analyse([file_of(regime, epoch) for epoch in chosen], "gradients,rank", f"analyses_{regime}")
    analyse([file_of(regime, EPOCHS) for regime in REGIMES], None, "analyses")


def train(regime: str, split: mx.data.Split) -> None:
    """Train a network; the seed gives all three the same initial weights."""
    recipe = Recipe(backbone="cnn", regime=regime, epochs=EPOCHS)
    model = recipe.model(split.train)

    def save(epoch: int, logs: object) -> None:
        # The file of the last epoch says that the training is done: it is there whole, or not at all.
        unfinished = RUNS / f"unfinished-{regime}.keras"
        model.save(unfinished)
        unfinished.replace(file_of(regime, epoch + 1))

    model.fit(
        split.train,
        validation_data=split.validation,
        epochs=EPOCHS,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=save)],
        verbose=2,
    )


def analyse(files: list[Path], what: str | None, target: str) -> None:
    """Run `mexit analyze` and copy its tables."""
    out = RUNS / target
    command = [sys.executable, "-m", "mexit_edge", "analyze", *files, "--data", "hapt", "--out", out]
    command += ["--overwrite", *(("--what", what) if what else ())]
    subprocess.run([str(part) for part in command], check=True)
    for table in out.glob("*.csv"):
        shutil.copyfile(table, RESULTS / f"{target}_{table.name}")


def file_of(regime: str, epoch: int) -> Path:
    return RUNS / f"{regime}-{epoch:03d}.keras"


if __name__ == "__main__":
    main()
