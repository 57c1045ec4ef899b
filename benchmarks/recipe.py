"""The training recipe on HAPT: joint and mixed, float and int8, three seeds.

    python benchmarks/recipe.py [--out results.csv]

Plain convolutional network with three exits, 60 epochs of AdamW with cosine decay, batches of 64 perturbed
windows; trained on all 21 subjects that are not official test subjects, without validation: the last epoch
counts. Balanced accuracy of every exit on the nine official test subjects, of the float network and of its
int8 stages on the engine that stands for the device. One row per regime, seed and exit; rows that the file
has are not computed again. About four minutes per training on two cores.

At the end the means are printed beside one published seed of the same recipe, float: joint .930 / .964 /
.968, mixed .923 / .960 / .972.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tables

import mexit_edge as mx
from mexit_edge.exits import balanced_accuracy
from mexit_edge.regimes import adamw_cosine

REGIMES, SEEDS, EPOCHS, BATCH = ("joint", "mixed"), (0, 1, 2), 60, 64
ONE_SEED = {"joint": (0.930, 0.964, 0.968), "mixed": (0.923, 0.960, 0.972)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "recipe.csv")
    out = parser.parse_args().out
    rows = tables.read(out)
    windows = mx.data.load("hapt")
    test = windows.of_subjects(windows.official_test_subjects)
    train = windows.of_subjects(set(windows.subjects) - set(test.subjects))
    for seed in SEEDS:
        for regime in REGIMES:
            if not any((row["regime"], int(row["seed"])) == (regime, seed) for row in rows):
                rows += one_training(regime, seed, train, test)
                tables.write(out, rows)
    show(rows)


def one_training(regime: str, seed: int, train: Any, test: Any) -> list[dict[str, Any]]:
    keras.utils.set_random_seed(seed)
    network = mx.models.build("cnn", train.sensor, train.n_classes)
    model = mx.MultiExitModel(network, regime, seed=seed)
    model.compile(adamw_cosine(len(train), EPOCHS, BATCH), steps_per_execution=17)
    model.fit(train, epochs=EPOCHS, batch_size=BATCH, verbose=2)
    logits = model.predict(test, batch_size=512, verbose=0)
    simulation = mx.simulate(mx.export(model, train, name=f"hapt-{regime}"), test)
    cost = model.training_cost
    return [
        {
            "regime": regime,
            "seed": seed,
            "exit": exit_,
            "macs": int(simulation.exit_macs[number]),
            "float_balanced_accuracy": round(balanced_accuracy(test.y, logits[exit_].argmax(axis=1)), 5),
            "int8_balanced_accuracy": round(simulation.balanced_accuracies[number], 5),
            "engine": simulation.engine,
            "forward_macs": sum(phase.forward_macs for phase in cost),
            "backward_macs": sum(phase.backward_macs for phase in cost),
        }
        for number, exit_ in enumerate(model.exits)
    ]


def show(rows: list[dict[str, Any]]) -> None:
    print("regime  exit      one seed, published   float: mean (all)            int8: mean (all)")
    for regime in REGIMES:
        exits = sorted({row["exit"] for row in rows if row["regime"] == regime})
        for published, exit_ in zip(ONE_SEED[regime], exits, strict=True):
            figures = []
            for kind in ("float", "int8"):
                values = [
                    float(row[f"{kind}_balanced_accuracy"])
                    for row in rows
                    if (row["regime"], row["exit"]) == (regime, exit_)
                ]
                figures.append(f"{np.mean(values):.4f} ({', '.join(f'{value:.4f}' for value in values)})")
            print(f"{regime:7} {exit_}   {published:.3f}                 {figures[0]}   {figures[1]}")


if __name__ == "__main__":
    main()
