"""`mexit run`: the main job, from recordings to decisions and a page about them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mexit_edge.bundle import Bundle
from mexit_edge.cli.progress import EpochLines, JobProgress
from mexit_edge.cli.tables import (
    console,
    estimate_table,
    print_json,
    quality_facts,
    quality_table,
    stage_table,
)
from mexit_edge.data import Split, dataset, load, split_by_subject
from mexit_edge.errors import InputError, MissingExtraError, unknown_name
from mexit_edge.estimate import BundleEstimate, estimate_bundle, load_device
from mexit_edge.exits import balanced_accuracy
from mexit_edge.files import free_name, refuse_existing, written_whole
from mexit_edge.runtime import CaughtStderr, ExitParity, available_engines, staged_against_whole
from mexit_edge.signals import Normalisation, Windows
from mexit_edge.simulate import Simulation, calibrate, make_golden, quality_of, simulate
from mexit_edge.simulate.evaluate import raw_windows

BUNDLES, RUNS = Path("tflite_models"), Path("runs")
EPOCHS, BATCH_SIZE = 45, 64
# A quarter of the windows, in batches of a quarter, so that an epoch has as many steps.
QUICK_EPOCHS, QUICK_BATCH_SIZE, QUICK_STRIDE = 8, 16, 4


@dataclass(frozen=True)
class RunSettings:
    """The options of `mexit run`, see its help."""

    data: str = "hapt"
    backbone: str = "dscnn"
    regime: str = "joint"
    device: str = "nucleo-l4r5zi"
    epochs: int | None = None
    seed: int = 0
    max_drop: float = 0.005
    out: Path | None = None
    overwrite: bool = False
    quick: bool = False

    @property
    def n_epochs(self) -> int:
        """Epochs to train for."""
        return self.epochs or (QUICK_EPOCHS if self.quick else EPOCHS)

    @property
    def batch_size(self) -> int:
        """Windows per training step."""
        return QUICK_BATCH_SIZE if self.quick else BATCH_SIZE

    @property
    def bundle_path(self) -> Path:
        """Where the bundle goes."""
        if self.out is None:
            return free_name(BUNDLES / f"{self.data}.mexit")
        return self.out if self.out.suffix in (".mexit", ".zip") else Path(f"{self.out}.mexit")


@dataclass(frozen=True, eq=False)
class Trained:
    """What training leaves behind: the whole int8 model, its stages, and the float network's figures."""

    bundle: Bundle
    whole: bytes
    history: list[dict[str, float]]
    float_exits: list[dict[str, Any]]
    save_network: Callable[[Path], None]


def run_and_print(settings: RunSettings, *, as_json: bool) -> None:
    """Do the main job and print its result.

    Raises:
        InputError: an option is wrong; checked before anything long begins.
    """
    check_settings(settings)
    screen = console(quiet=as_json)
    facts, simulation, estimate, bundle = run(settings, screen)
    if as_json:
        print_json(facts)
        return
    screen.print(stage_table(bundle.manifest))
    screen.print(quality_table(simulation, [row["balanced_accuracy"] for row in facts["float"]]))
    screen.print(estimate_table(simulation, estimate))
    screen.print(simulation.drop_sentence, markup=False)
    screen.print(f"Bundle: {facts['bundle']}\nPage:   {facts['page']}", markup=False, soft_wrap=True)


def check_settings(settings: RunSettings) -> None:
    """Check every option that can be checked without TensorFlow.

    Raises:
        InputError: names the option, what was expected and what came.
    """
    require_extras()
    dataset(settings.data)
    load_device(settings.device)
    if not 0 <= settings.max_drop <= 1:
        raise InputError(f"`--max-drop` must be a share between 0 and 1. Received: {settings.max_drop}.")
    refuse_existing(settings.bundle_path, overwrite=settings.overwrite)


def require_extras() -> None:
    """Check that everything the job will import later is installed.

    Raises:
        MissingExtraError: names the first extra that is not.
    """
    for module, extra in (
        ("tensorflow", "train"),
        ("keras", "train"),
        ("matplotlib", "report"),
        ("jinja2", "report"),
    ):
        if find_spec(module) is None:
            raise MissingExtraError(module, extra)


def check_names(settings: RunSettings) -> None:
    """Check the options whose names stand in rooms that load TensorFlow.

    Raises:
        InputError: lists the known names.
    """
    from mexit_edge.models import BACKBONES
    from mexit_edge.regimes import make_regime

    if settings.backbone not in BACKBONES:
        raise unknown_name("backbone", settings.backbone, BACKBONES)
    make_regime(settings.regime)


def run(settings: RunSettings, screen: Console) -> tuple[dict[str, Any], Simulation, BundleEstimate, Bundle]:
    """Do the main job.

    Args:
        settings: checked options.
        screen: for progress.

    Returns:
        The facts of the result, the test simulation, the estimate and the bundle.
    """
    progress = JobProgress(screen)
    # TensorFlow writes notices about absent GPUs past Python's streams, whatever its log level says.
    with progress.step("Loading TensorFlow"), CaughtStderr():
        check_names(settings)
    with progress.step(f"Reading {settings.data} and cutting windows"):
        split = load_split(settings)
    trained = train(settings, split, progress)
    with progress.step("Setting thresholds on the calibration subjects"):
        bundle = calibrate(
            trained.bundle, split.calibration, max_drop=settings.max_drop, device=settings.device
        )
        bundle = make_golden(bundle, split.calibration)
    with progress.step("Running the test subjects stage by stage"):
        simulation = simulate(bundle, split.test)
        bundle = bundle.with_manifest(quality=quality_of(simulation))
    with progress.step("Comparing the stages with the whole model on every engine"):
        samples = raw_windows(bundle, split.test)
        parity = [
            row
            for engine in available_engines()
            for row in staged_against_whole(bundle, trained.whole, samples, engine)
        ]
    estimate = estimate_bundle(bundle, settings.device)
    facts = quality_facts(simulation, estimate)
    facts |= {
        "float": trained.float_exits,
        "parity": [asdict(row) for row in parity],
        "subjects_of": {name: list(subjects) for name, subjects in split.subjects.items()},
        "settings": _plain(settings),
        "seconds": progress.seconds,
    }
    with progress.step("Writing the bundle and the page"):
        facts["bundle"] = str(bundle.save(settings.bundle_path, overwrite=settings.overwrite))
        folder = free_name(RUNS / Path(facts["bundle"]).stem)
        facts["page"] = str(folder / "page.html")
        _write_run_folder(folder, facts, trained, bundle, simulation, estimate, parity)
    if any(row.differing_elements for row in parity):
        screen.print("WARNING: the stages differ from the whole model; see the parity table of the page.")
    if bundle.manifest.stages[0].arena_bytes is None:
        screen.print("tflite-micro has no wheel here: arena unknown, LiteRT's reference kernels stand in.")
    return facts, simulation, estimate, bundle


def load_split(settings: RunSettings) -> Split:
    """Return the four sets of windows, thinned out with `quick`."""
    windows: Windows = load(settings.data)
    if settings.quick:
        windows = windows.take(np.arange(0, len(windows), QUICK_STRIDE))
    official = dataset(settings.data).official_test_subjects
    return split_by_subject(windows, test="official" if official else None, seed=settings.seed)


def train(settings: RunSettings, split: Split, progress: JobProgress) -> Trained:
    """Train a network, quantize it as one model and cut it into stages."""
    import keras

    from mexit_edge.compress import bundle_from_whole, convert_int8, representative_sample
    from mexit_edge.models import build
    from mexit_edge.regimes import MultiExitModel, adamw_cosine, restore_best_epoch

    keras.utils.set_random_seed(settings.seed)
    with CaughtStderr():
        network = build(settings.backbone, split.train.sensor, split.train.n_classes)
    normalisation = Normalisation.fit(split.train)
    model = MultiExitModel(network, settings.regime, normalisation=normalisation, seed=settings.seed)
    model.compile(adamw_cosine(len(split.train), settings.n_epochs, settings.batch_size))
    history: list[dict[str, float]] = []
    with progress.training(settings.n_epochs) as lines:
        model.fit(
            split.train,
            validation_data=split.validation,
            epochs=settings.n_epochs,
            batch_size=settings.batch_size,
            callbacks=[
                restore_best_epoch(settings.n_epochs),
                keras.callbacks.LambdaCallback(
                    on_epoch_end=lambda epoch, logs: _epoch_done(epoch + 1, logs, history, lines)
                ),
            ],
            verbose=0,
        )
    with progress.step("Quantizing to int8 as one model, and cutting it into stages"):
        representative = normalisation.apply(representative_sample(split.train, seed=settings.seed).x)
        whole = convert_int8(network, representative)
        bundle = bundle_from_whole(
            whole,
            exits=model.exits,
            name=settings.data,
            sensor=split.train.sensor,
            normalisation=normalisation,
            classes=split.train.classes,
            training=model.provenance.model_copy(update={"backbone": settings.backbone}),
        )
    return Trained(bundle, whole, history, _float_exits(model, split), model.save)


def _epoch_done(
    epoch: int, logs: dict[str, float], history: list[dict[str, float]], lines: EpochLines
) -> None:
    history.append({"epoch": epoch, **{name: float(value) for name, value in sorted(logs.items())}})
    lines.epoch_done(epoch, logs)


def _float_exits(model: Any, split: Split) -> list[dict[str, Any]]:
    """Return accuracy and balanced accuracy of the float network per exit, on the test subjects."""
    logits = model.predict(split.test, batch_size=512, verbose=0)
    rows = []
    for name in model.exits:
        predicted = logits[name].argmax(axis=1)
        rows.append(
            {
                "exit": name,
                "accuracy": float(np.mean(predicted == split.test.y)),
                "balanced_accuracy": balanced_accuracy(split.test.y, predicted),
            }
        )
    return rows


def _write_run_folder(
    folder: Path,
    facts: dict[str, Any],
    trained: Trained,
    bundle: Bundle,
    simulation: Simulation,
    estimate: BundleEstimate,
    parity: list[ExitParity],
) -> None:
    """Write page, facts, history, the whole model and the Keras network of a run, all or nothing."""
    from mexit_edge.report import write_page

    with written_whole(folder) as fresh:
        fresh.mkdir()
        (fresh / "result.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        (fresh / "whole.tflite").write_bytes(trained.whole)
        trained.save_network(fresh / "model.keras")
        with (fresh / "history.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(trained.history[0]))
            writer.writeheader()
            writer.writerows(trained.history)
        _write_decisions(fresh / "decisions.csv", simulation)
        write_page(
            fresh / "page.html",
            manifest=bundle.manifest,
            simulation=simulation,
            estimate=estimate,
            history=trained.history,
            settings=facts["settings"],
            float_quality={"exits": trained.float_exits},
            parity=[asdict(row) for row in parity],
            versions=bundle.manifest.versions,
        )


def _write_decisions(path: Path, simulation: Simulation) -> None:
    """Write what the policy decided for every test window, in the order of the data set."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["subject", "y", "label", "exit"])
        columns = (simulation.subject, simulation.y, simulation.label, simulation.exit)
        writer.writerows(np.stack(columns, axis=1).tolist())


def _plain(settings: RunSettings) -> dict[str, Any]:
    facts = asdict(settings)
    facts["out"] = str(settings.bundle_path)
    facts["epochs"] = settings.n_epochs
    return facts
