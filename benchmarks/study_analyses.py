"""Why regimes differ: joint, disjoint and mixed from the same initial weights, analysed along their training.

    python benchmarks/study_analyses.py              # ten minutes
    python benchmarks/study_analyses.py --figure     # only draws what the tables hold

HAPT, `cnn`, training subjects of seed 0. Networks and checkpoints go to runs/study/analyses; the tables of
`mexit analyze` to results/study: of the three trained networks together (analyses_*.csv), and of each along
its training (analyses_REGIME_*.csv). docs/study_why.svg is drawn from these.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import keras
import tables
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import mexit_edge as mx
from mexit_edge.benchmark.figures import WIDTH
from mexit_edge.files import write_bytes
from mexit_edge.regimes import Recipe
from mexit_edge.report import canvas
from mexit_edge.report.theme import svg

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "study"
RUNS = HERE.parent / "runs" / "study" / "analyses"
FIGURE = HERE.parent / "docs" / "study_why.svg"
REGIMES = ("joint", "disjoint", "mixed")
EPOCHS, CHECKPOINTS = 60, 6
# Of disjoint and mixed, which give it half of the epochs.
PHASE_1_ENDS = EPOCHS // 2
FIRST_AND_LAST = {"figure": "cosine", "group": "block_01", "exit": "exit_01", "other_exit": "exit_03"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--figure", action="store_true", help="only draw what the tables hold")
    if not parser.parse_args().figure:
        conduct()
    write_bytes(FIGURE, svg(draw), overwrite=True)


def conduct() -> None:
    """Train and analyse the networks; what was trained before is not trained again."""
    split = mx.data.split_by_subject(mx.data.load("hapt"), test="official", seed=0)
    RUNS.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    epochs = [EPOCHS * number // CHECKPOINTS for number in range(1, CHECKPOINTS + 1)]
    for regime in REGIMES:
        if not file_of(regime, EPOCHS).exists():
            train(regime, split)
        analyse([file_of(regime, epoch) for epoch in epochs], "gradients,rank", f"analyses_{regime}")
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


def draw() -> Axes:
    """Draw how exits get along, what the last block spans, and the loss between the networks."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    cosine, rank, line = figure.subplots(1, 3)
    colours = canvas.cycle()
    for regime, colour in zip(REGIMES, colours[:3], strict=True):
        # disjoint is mixed until phase 1 ends: its line shows on both sides of the other.
        width, alpha = (6, 0.45) if regime == "disjoint" else (1.5, 1.0)
        style = {"color": colour, "linewidth": width, "alpha": alpha, "marker": "o", "markersize": 4}
        style["label"] = regime
        at, values = along(f"analyses_{regime}_gradients", "value", **FIRST_AND_LAST)
        cosine.plot(at, values, **style)
        at, values = along(f"analyses_{regime}_rank", "effective_rank", exit="exit_03")
        rank.plot(at, values, **style)
    cosine.set_title("cosine between the gradients\nof exits 1 and 3 in block 1")
    rank.set_title("effective rank of block 3")
    rank.set_ylim(bottom=0)
    cosine.set_ylim(-0.3, 1)
    for panel in (cosine, rank):
        panel.axvline(PHASE_1_ENDS, color=canvas.muted(), linestyle="--", linewidth=1)
        panel.set_xlabel("epochs; dashed: phase 1 ends")
        panel.legend(loc="lower right")
    for colour, (start, end) in zip(colours[3:6], combinations(REGIMES, 2), strict=True):
        names = {"from": f"{start}-{EPOCHS:03d}", "to": f"{end}-{EPOCHS:03d}"}
        rows = chosen("analyses_connectivity", what="line", exit="mean", **names)
        places, losses = ([float(row[name]) for row in rows] for name in ("a", "loss_nats"))
        line.plot(places, losses, color=colour, label=f"{start} to {end}")
    line.set_title("mean cross-entropy of the exits\nbetween two networks (nats)")
    line.set_xticks([0, 0.5, 1], ["the first", "halfway", "the second"])
    line.set_ylim(bottom=0)
    line.legend()
    return cosine


def along(table: str, column: str, **wanted: str) -> tuple[list[int], list[float]]:
    """Return the epochs of checkpoints, and what a column says of each."""
    rows = chosen(table, **wanted)
    return [int(row["network"].rpartition("-")[2]) for row in rows], [float(row[column]) for row in rows]


def chosen(table: str, **wanted: str) -> list[dict[str, str]]:
    """Return the rows of a table that have these cells.

    Raises:
        ValueError: there is none.
    """
    rows = tables.read(RESULTS / f"{table}.csv")
    found = [row for row in rows if all(row[name] == cell for name, cell in wanted.items())]
    if not found:
        raise ValueError(f"{table}.csv must have rows of {wanted}. It has none: run without --figure.")
    return found


def file_of(regime: str, epoch: int) -> Path:
    return RUNS / f"{regime}-{epoch:03d}.keras"


if __name__ == "__main__":
    main()
