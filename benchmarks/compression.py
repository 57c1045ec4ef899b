"""Pruning, clustering and the QAT of TensorFlow Model Optimization on HAPT: accuracy, size, memory.

    python benchmarks/compression.py --work FOLDER --choose
    python benchmarks/compression.py --work FOLDER [--seeds 0 1 2]

Trains the dscnn of `mexit run` once per seed (30 epochs, regime joint), keeps it in FOLDER, and compresses
copies of it. One row per seed and variant: accuracy of the int8 stages per exit on the official test
subjects, share of zeros in the int8 kernels, bytes of the whole .tflite as it is and after DEFLATE, arena,
multiply-accumulates and live ones (without all-zero channels) per stage. Rows that are there are not computed
again. With `--choose`, which comes first, settings of the fine-tuning are tried on seed 0, one row each, and
judged on validation subjects; test subjects are not looked at. Of each method those with the lowest mean
cross-entropy over exits are taken. `--epochs` and `--stride` are for a short try.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tables
from rich.console import Console

from mexit_edge.cli.progress import JobProgress
from mexit_edge.cli.settings import RunSettings
from mexit_edge.cli.training import train
from mexit_edge.compress import bundle_from_whole, export_with_whole
from mexit_edge.compress.tfmot import cluster, prune, tfmot_quantize_aware
from mexit_edge.compress.weights import sparsity, zipped_bytes
from mexit_edge.data import load, split_by_subject
from mexit_edge.simulate import simulate

RESULTS = Path(__file__).parent / "results"
Facts = dict[str, Any]

GRID: dict[str, list[Facts]] = {
    "dense": [{}],
    "prune": [
        {"epochs": epochs, "learning_rate": rate}
        for epochs, rate in ((5, 1e-3), (10, 1e-3), (10, 3e-3), (20, 1e-3))
    ],
    "cluster": [{"epochs": 3, "learning_rate": rate} for rate in (1e-3, 1e-4)],
    "tfmot_qat": [{"epochs": 5, "learning_rate": rate} for rate in (1e-3, 1e-4)],
}
VARIANTS = ("dense", "pruned_50", "pruned_80", "clustered_16", "pruned_80_clustered_16", "tfmot_qat")


@dataclass
class Job:
    """One seed: its network, its windows, and what is at hand while its variants are made."""

    settings: RunSettings
    sets: Any
    model: Any
    chosen: dict[str, Facts]
    pruned_80: Any = None

    def options(self, method: str) -> Facts:
        """Return the settings of a method's fine-tuning."""
        return {**self.chosen[method], "seed": self.settings.seed, "verbose": 2}

    def made(self, variant: str) -> Any:
        """Return a compressed model, or the bytes of one."""
        train_windows = self.sets.train
        if variant == "pruned_50":
            return prune(self.model, train_windows, sparsity=0.5, **self.options("prune"))
        if variant in ("pruned_80", "pruned_80_clustered_16"):
            if self.pruned_80 is None:
                self.pruned_80 = prune(self.model, train_windows, sparsity=0.8, **self.options("prune"))
            if variant == "pruned_80":
                return self.pruned_80
            return cluster(self.pruned_80, train_windows, clusters=16, **self.options("cluster"))
        if variant == "clustered_16":
            return cluster(self.model, train_windows, clusters=16, **self.options("cluster"))
        if variant == "tfmot_qat":
            return tfmot_quantize_aware(self.model, train_windows, **self.options("tfmot_qat"))
        return self.model

    def cut(self, made: Any) -> tuple[bytes, Any]:
        """Return the whole int8 model and the bundle of its stages."""
        if not isinstance(made, bytes):
            bundle, whole = export_with_whole(
                made, self.sets.train, name=self.settings.data, seed=self.settings.seed
            )
            return whole, bundle
        windows = self.sets.train
        bundle = bundle_from_whole(
            made,
            exits=self.model.exits,
            name=self.settings.data,
            sensor=windows.sensor,
            normalisation=self.model.normalisation,
            classes=windows.classes,
            training=self.model.provenance,
        )
        return made, bundle


def begin(seed: int, work: Path, epochs: int | None, stride: int, chosen: dict[str, Facts]) -> Job:
    """Return a seed's job with its dense network, trained now if FOLDER does not have it."""
    settings = RunSettings(seed=seed, epochs=epochs)
    windows = load(settings.data)
    windows = windows.take(np.arange(0, len(windows), stride))
    sets = split_by_subject(windows, test="official", seed=seed)
    path = work / f"dscnn_joint_seed_{seed}_epochs_{settings.n_epochs}_stride_{stride}.keras"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        train(settings, sets, JobProgress(Console(stderr=True))).model.save(path)
    return Job(settings, sets, keras.models.load_model(path), chosen)


def read_choice(path: Path, epochs: int | None) -> dict[str, Facts]:
    """Return the best settings per method; any, with few epochs, for a short try."""
    if epochs is not None:
        return {method: {**GRID[method][0], "epochs": epochs} for method in GRID}
    rows = [row for row in tables.read(path) if row["epochs"]]
    missing = {method for method in GRID if GRID[method] != [{}]} - {row["method"] for row in rows}
    if missing:
        raise SystemExit(f"{path} has no settings for {', '.join(sorted(missing))}: run with --choose first.")
    # The last of a method is the best one.
    rows.sort(key=lambda row: -float(row["mean_cross_entropy"]))
    return {
        row["method"]: {"epochs": int(row["epochs"]), "learning_rate": float(row["learning_rate"])}
        for row in rows
    }


def row_of(job: Job, variant: str) -> Facts:
    whole, bundle = job.cut(job.made(variant))
    simulation = simulate(bundle, job.sets.test)
    stages = bundle.manifest.stages
    row: Facts = {"seed": job.settings.seed, "variant": variant}
    for name, accuracy, balanced in zip(
        simulation.exits, simulation.accuracies, simulation.balanced_accuracies, strict=True
    ):
        row[f"{name}_accuracy"] = round(accuracy, 5)
        row[f"{name}_balanced_accuracy"] = round(balanced, 5)
    row |= {
        "windows": len(simulation),
        "engine": simulation.engine,
        "sparsity": round(sparsity(whole), 4),
        "tflite_bytes": len(whole),
        "zipped_bytes": zipped_bytes(whole),
        "stages_bytes": sum(stage.flash_bytes for stage in stages),
        "stages_zipped_bytes": sum(zipped_bytes(content) for content in bundle.stages),
    }
    for number, stage in enumerate(stages, start=1):
        row[f"stage_{number:02d}_arena_bytes"] = stage.arena_bytes
        row[f"stage_{number:02d}_macs"] = stage.macs
        row[f"stage_{number:02d}_live_macs"] = stage.live_macs
    return row


def choice_row(job: Job, method: str, settings: Facts) -> Facts:
    """Return how one setting does on validation subjects, int8."""
    made: Any = job.model
    windows = job.sets.train
    options = {**settings, "seed": 0, "verbose": 2}
    if method == "prune":
        made = prune(job.model, windows, sparsity=0.8, **options)
    elif method == "cluster":
        made = cluster(job.model, windows, clusters=16, **options)
    elif method == "tfmot_qat":
        made = tfmot_quantize_aware(job.model, windows, **options)
    # The same subjects stopped the training of the dense network: that is what they are for.
    simulation = simulate(job.cut(made)[1], job.sets.validation, allow_seen=True)
    row: Facts = {"method": method, **{name: settings.get(name, "") for name in ("epochs", "learning_rate")}}
    losses = [cross_entropy(simulation, number) for number in range(1, len(simulation.exits) + 1)]
    row["mean_cross_entropy"] = round(float(np.mean(losses)), 5)
    for name, balanced in zip(simulation.exits, simulation.balanced_accuracies, strict=True):
        row[f"{name}_balanced_accuracy"] = round(balanced, 5)
    return row


def cross_entropy(simulation: Any, exit_number: int) -> float:
    """Return the mean over windows at one exit."""
    chosen = np.take_along_axis(simulation.probabilities(exit_number), simulation.y[:, None], axis=1)
    # A softmax of int8 logits may round to 0.
    return float(-np.mean(np.log(np.maximum(chosen, 1e-12))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the trained networks")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "compression.csv")
    parser.add_argument("--choice", type=Path, default=RESULTS / "compression_choice.csv")
    parser.add_argument("--epochs", type=int, help="of every training, for a short try")
    parser.add_argument("--stride", type=int, default=1, help="every how many windows to take")
    options = parser.parse_args()
    out = options.choice if options.choose else options.out
    rows: list[Facts] = tables.read(out)

    def add(row: Facts) -> None:
        rows.append(row)
        tables.write(out, rows)
        print(row, flush=True)

    if options.choose:
        job = begin(0, options.work, options.epochs, options.stride, {})
        done = {(row["method"], str(row["epochs"]), str(row["learning_rate"])) for row in rows}
        grid = [(method, one) for method, all_ in GRID.items() for one in all_]
        # The short ones first.
        for method, settings in sorted(grid, key=lambda one: one[1].get("epochs", 0)):
            key = (method, *(str(settings.get(name, "")) for name in ("epochs", "learning_rate")))
            if key not in done:
                add(choice_row(job, method, settings))
        return
    chosen = read_choice(options.choice, options.epochs)
    for seed in options.seeds:
        done_variants = {row["variant"] for row in rows if str(row["seed"]) == str(seed)}
        missing = [variant for variant in options.variants if variant not in done_variants]
        if missing:
            job = begin(seed, options.work, options.epochs, options.stride, chosen)
            for variant in missing:
                add(row_of(job, variant))


if __name__ == "__main__":
    main()
