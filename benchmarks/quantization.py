"""What int8 costs in accuracy on HAPT: quantized after training, and with quantization-aware fine-tuning.

    python benchmarks/quantization.py [--out results.csv] [--work FOLDER]
    python benchmarks/quantization.py --choose [--work FOLDER]

Joint training of dscnn as `mexit run` does it (30 epochs, the best of the last tenth on validation
subjects), three seeds; then int8 with ranges observed on representative training windows (ptq), and int8
after 3 epochs of fine-tuning with fake quantization (qat), three times per network. Accuracy and balanced
accuracy of every exit on the nine official test subjects, of the int8 stages on the engine that stands for
the device. One row per network, seed, kind and draw; rows that the file has are not computed again, and float
networks in FOLDER are not trained again. `--backbones` takes other networks. About five minutes per training
on two cores, one per row after it.

With `--choose`, settings of the fine-tuning are tried on the validation subjects of seed 0, and test subjects
are left alone; the rows go to results/quantization_choice.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tables
from numpy.typing import NDArray

import mexit_edge as mx
from mexit_edge.compress.fake_quant import MEMORY, fake_quants
from mexit_edge.compress.quantize_aware import FINE_TUNING_RATE, fine_tuning_epochs, quantize_aware
from mexit_edge.exits import balanced_accuracy
from mexit_edge.regimes import MultiExitEarlyStopping, adamw_cosine
from mexit_edge.regimes.recipe import LEARNING_RATE
from mexit_edge.runtime import reference_engine

BACKBONES, SEEDS, EPOCHS, BATCH = ("dscnn",), (0, 1, 2), 30, 64
KINDS = ("float", "ptq", "qat")
RESULTS = Path(__file__).parent / "results"
# Kind -> share of the training's learning rate, and batches that the range counts for (None: it never moves).
TUNINGS: dict[str, tuple[float, float | None]] = {
    "qat": (FINE_TUNING_RATE, MEMORY),
    "qat, ranges stay": (FINE_TUNING_RATE, None),
    "qat, rate 0.03": (0.03, MEMORY),
}
# Fine-tunings per network: order and dropout alone move an exit by up to half a point.
DRAWS, FURTHER = 3, 1000
STEPS_PER_EXECUTION = 17
CHOICE = ("float", "ptq", *TUNINGS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, help="folder of float networks")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--every", type=int, default=1, help="take every n-th window only")
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--seeds", nargs="+", type=int)
    options = parser.parse_args()
    name, seeds, kinds = (
        ("quantization_choice", (0,), CHOICE) if options.choose else ("quantization", SEEDS, KINDS)
    )
    out, seeds, draws = (
        options.out or RESULTS / f"{name}.csv",
        options.seeds or seeds,
        1 if options.choose else DRAWS,
    )
    rows = tables.read(out)
    windows = mx.data.load("hapt")
    windows = windows.take(np.arange(0, len(windows), options.every))
    for backbone in options.backbones:
        for seed in seeds:
            there = {
                (row["kind"], int(row["draw"]))
                for row in rows
                if (row["backbone"], int(row["seed"])) == (backbone, seed)
            }
            todo = [(kind, draw) for kind in kinds for draw in range(draws if kind in TUNINGS else 1)]
            todo = [one for one in todo if one not in there]
            if not todo:
                continue
            split = mx.data.split_by_subject(windows, test="official", seed=seed)
            model = float_model(backbone, seed, split, options.epochs, options.work)
            judged = split.validation if options.choose else split.test
            for kind, draw in todo:
                accuracies = one_kind(kind, model, split, judged, options.epochs, seed, draw)
                rows.append({"backbone": backbone, "seed": seed, "kind": kind, "draw": draw, **accuracies})
                tables.write(out, rows)
                print(rows[-1], flush=True)
    if not options.choose:
        show(rows)


def float_model(backbone: str, seed: int, split: Any, epochs: int, work: Path | None) -> Any:
    """Train a float network, or load the one that was trained before."""
    file = None if work is None else work / f"{backbone}_{seed}_{epochs}_{len(split.train)}.keras"
    if file is not None and file.exists():
        return keras.saving.load_model(file)
    keras.utils.set_random_seed(seed)
    network = mx.models.build(backbone, split.train.sensor, split.train.n_classes)
    model = mx.MultiExitModel(network, "joint", seed=seed)
    optimizer = adamw_cosine(len(split.train), epochs, BATCH)
    model.compile(optimizer, steps_per_execution=STEPS_PER_EXECUTION)
    model.fit(
        split.train,
        validation_data=split.validation,
        epochs=epochs,
        batch_size=BATCH,
        callbacks=[MultiExitEarlyStopping(last_share=0.1)],
        verbose=2,
    )
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        model.save(file)
    return model


def one_kind(
    kind: str, model: Any, split: Any, judged: Any, epochs: int, seed: int, draw: int
) -> dict[str, float]:
    """Return accuracy and balanced accuracy per exit."""
    if kind == "float":
        logits = model.predict(judged, batch_size=512, verbose=0)
        labels = np.stack([logits[exit_].argmax(axis=1) for exit_ in model.exits], axis=1)
        return figures(labels, judged.y)
    if kind in TUNINGS:
        # So that the figures do not depend on what else was computed in this process.
        keras.utils.set_random_seed(seed + FURTHER * draw)
        model = fine_tuned(model, split, epochs, *TUNINGS[kind], seed + FURTHER * draw)
    bundle = mx.export(model, split.train, name=f"hapt-{kind}", seed=seed)
    logits = mx.Runtime(bundle, reference_engine()).all_logits(judged.x)
    return figures(logits.argmax(axis=2), judged.y)


def fine_tuned(model: Any, split: Any, epochs: int, rate: float, memory: float | None, seed: int) -> Any:
    """Return the model after quantization-aware fine-tuning."""
    aware = quantize_aware(model, split.train)
    aware.seed = seed
    for one in fake_quants(aware.network):
        if one.memory is not None:  # else a range that a kernel demands
            one.memory = memory
    n_epochs = fine_tuning_epochs(epochs)
    optimizer = adamw_cosine(len(split.train), n_epochs, BATCH, rate * LEARNING_RATE)
    aware.compile(optimizer, steps_per_execution=STEPS_PER_EXECUTION)
    aware.fit(split.train, epochs=n_epochs, batch_size=BATCH, verbose=2)
    return aware


def figures(labels: Any, y: Any) -> dict[str, float]:
    found = {}
    for number in range(labels.shape[1]):
        exit_ = f"exit_{number + 1:02d}"
        found[f"{exit_}_accuracy"] = round(float(np.mean(labels[:, number] == y)), 5)
        found[f"{exit_}_balanced_accuracy"] = round(balanced_accuracy(y, labels[:, number]), 5)
    return found


def mean_of_draws(rows: list[dict[str, Any]], kind: str, column: str) -> NDArray[np.float64]:
    """Return a figure per seed."""
    seeds = sorted({int(row["seed"]) for row in rows})
    found = [
        [float(row[column]) for row in rows if (row["kind"], int(row["seed"])) == (kind, seed)]
        for seed in seeds
    ]
    return np.array([np.mean(values) for values in found])


def show(rows: list[dict[str, Any]]) -> None:
    print("mean over seeds, in points: float, and what is lost to it by ptq and qat (seed by seed)")
    for backbone in dict.fromkeys(row["backbone"] for row in rows):
        own = [row for row in rows if row["backbone"] == backbone]
        for column in [name for name in own[0] if name.startswith("exit_")]:
            of = {kind: 100 * mean_of_draws(own, kind, column) for kind in KINDS}
            lost = [of["float"] - of[kind] for kind in KINDS[1:]]
            told = ", ".join(
                f"{kind} {values.mean():+.2f} ({' '.join(f'{one:+.2f}' for one in values)})"
                for kind, values in zip(KINDS[1:], lost, strict=True)
            )
            print(f"{backbone:6} {column:28} {of['float'].mean():.2f}: {told}")


if __name__ == "__main__":
    main()
