"""`mexit run`: the main job, from recordings to decisions and a page about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from rich.console import Console

from mexit_edge.bundle import Bundle
from mexit_edge.cli.progress import EpochLines, JobProgress
from mexit_edge.cli.run_folder import write_run_folder
from mexit_edge.cli.settings import QUICK_STRIDE, RUNS, STEPS_PER_EXECUTION, RunSettings
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
from mexit_edge.files import free_name
from mexit_edge.runtime import CaughtStderr, available_engines, staged_against_whole
from mexit_edge.signals import Normalisation, Windows
from mexit_edge.simulate import Simulation, calibrate, make_golden, quality_of, raw_windows, simulate


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained Keras model with the figures of its epochs."""

    model: Any
    history: list[dict[str, float]]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the main job found: facts in plain types, and the objects behind them."""

    facts: dict[str, Any]
    bundle: Bundle
    simulation: Simulation
    estimate: BundleEstimate


def run_and_print(settings: RunSettings, *, as_json: bool) -> None:
    """Do the main job and print its result.

    Raises:
        InputError: an option is wrong; checked before anything long begins.
    """
    check_settings(settings)
    screen = console(quiet=as_json)
    outcome = run(settings, screen)
    facts = outcome.facts
    if as_json:
        print_json(facts)
        return
    screen.print(stage_table(outcome.bundle.manifest))
    screen.print(quality_table(outcome.simulation, [row["balanced_accuracy"] for row in facts["float"]]))
    screen.print(estimate_table(outcome.simulation, outcome.estimate))
    screen.print(outcome.simulation.drop_sentence, markup=False)
    screen.print(f"Bundle: {facts['bundle']}\nPage:   {facts['page']}", markup=False, soft_wrap=True)


def check_settings(settings: RunSettings) -> None:
    """Check every option that can be checked without TensorFlow.

    Raises:
        InputError: names the option, what was expected and what came.
        MissingExtraError: something that the job imports later is not installed.
    """
    for module, extra in (
        ("tensorflow", "train"),
        ("keras", "train"),
        ("matplotlib", "report"),
        ("jinja2", "report"),
    ):
        if find_spec(module) is None:
            raise MissingExtraError(module, extra)
    dataset(settings.data)
    load_device(settings.device)
    if not 0 <= settings.max_drop <= 1:
        raise InputError(f"`--max-drop` must be a share between 0 and 1. Received: {settings.max_drop}.")
    Bundle.check_target(settings.target, overwrite=settings.overwrite)


def run(settings: RunSettings, screen: Console) -> Outcome:
    """Do the main job.

    Args:
        settings: checked options.
        screen: for progress.
    """
    progress = JobProgress(screen)
    # TensorFlow writes notices about absent GPUs past Python's streams, whatever its log level says.
    with progress.step("Loading TensorFlow"), CaughtStderr():
        _check_names(settings)
    with progress.step(f"Reading {settings.data} and cutting windows"):
        split = load_split(settings)
    trained = train(settings, split.train, split.validation, progress)
    with progress.step("Quantizing to int8 as one model, and cutting it into stages"):
        whole, bundle = quantize_and_cut(settings, trained.model, split.train)
    with progress.step("Setting thresholds on the calibration subjects"):
        bundle = calibrate(bundle, split.calibration, max_drop=settings.max_drop, device=settings.device)
        bundle = make_golden(bundle, split.calibration)
    with progress.step("Running the test subjects stage by stage"):
        simulation = simulate(bundle, split.test)
        bundle = bundle.with_manifest(quality=quality_of(simulation))
        floats = float_exits(trained.model, split.test)
    with progress.step("Comparing the stages with the whole model on every engine"):
        samples = raw_windows(bundle, split.test)
        parity = [
            asdict(row)
            for engine in available_engines()
            for row in staged_against_whole(bundle, whole, samples, engine)
        ]
    estimate = estimate_bundle(bundle, settings.device)
    folder = free_name(RUNS / settings.target.stem)
    facts = {
        **quality_facts(simulation, estimate),
        "float": floats,
        "parity": parity,
        "subjects_of": {name: list(subjects) for name, subjects in split.subjects.items()},
        "settings": {**asdict(settings), "out": str(settings.target), "epochs": settings.n_epochs},
        "seconds": progress.seconds,
        "page": str(folder / "page.html"),
    }
    with progress.step("Writing the bundle and the page"):
        # The folder first: it never stands in the way, and holds the network should the bundle fail.
        write_run_folder(
            folder,
            facts=facts,
            bundle=bundle,
            simulation=simulation,
            estimate=estimate,
            history=trained.history,
            whole=whole,
            save_network=trained.model.save,
        )
        facts["bundle"] = str(bundle.save(settings.target, overwrite=settings.overwrite))
    if any(row["differing_elements"] for row in parity):
        screen.print("WARNING: the stages differ from the whole model; see the parity table of the page.")
    if "tflm" not in available_engines():
        screen.print(
            "TFLM is not installed ('mexit-edge[tflm]', Linux x86-64 only): the arena is unknown, and "
            "LiteRT's reference kernels stand in for the device.",
            markup=False,
        )
    return Outcome(facts, bundle, simulation, estimate)


def load_split(settings: RunSettings) -> Split:
    """Return the four sets of windows, thinned out with `quick`."""
    windows: Windows = load(settings.data)
    if settings.quick:
        windows = windows.take(np.arange(0, len(windows), QUICK_STRIDE))
    return split_by_subject(windows, test=dataset(settings.data).standard_test, seed=settings.seed)


def train(settings: RunSettings, training: Windows, validation: Windows, progress: JobProgress) -> Trained:
    """Build a network and train it."""
    import keras

    from mexit_edge.models import build
    from mexit_edge.regimes import MultiExitModel, adamw_cosine, restore_best_epoch

    keras.utils.set_random_seed(settings.seed)
    with CaughtStderr():
        network = build(settings.backbone, training.sensor, training.n_classes)
    model = MultiExitModel(
        network, settings.regime, normalisation=Normalisation.fit(training), seed=settings.seed
    )
    model.compile(
        adamw_cosine(len(training), settings.n_epochs, settings.batch_size),
        steps_per_execution=STEPS_PER_EXECUTION,
    )
    history: list[dict[str, float]] = []
    with progress.training(settings.n_epochs) as lines:
        model.fit(
            training,
            validation_data=validation,
            epochs=settings.n_epochs,
            batch_size=settings.batch_size,
            callbacks=[
                restore_best_epoch(settings.n_epochs),
                keras.callbacks.LambdaCallback(on_epoch_end=_recorder(history, lines)),
            ],
            verbose=0,
        )
    return Trained(model, history)


def quantize_and_cut(settings: RunSettings, model: Any, training: Windows) -> tuple[bytes, Bundle]:
    """Return the whole int8 model, and the bundle of its stages."""
    from mexit_edge.compress import bundle_from_whole, convert_int8, representative_sample

    representative = model.normalisation.apply(representative_sample(training, seed=settings.seed).x)
    whole = convert_int8(model.network, representative)
    bundle = bundle_from_whole(
        whole,
        exits=model.exits,
        name=settings.data,
        sensor=training.sensor,
        normalisation=model.normalisation,
        classes=training.classes,
        training=model.provenance.model_copy(update={"backbone": settings.backbone}),
    )
    return whole, bundle


def float_exits(model: Any, windows: Windows) -> list[dict[str, Any]]:
    """Return accuracy and balanced accuracy of the float network per exit."""
    logits = model.predict(windows, batch_size=512, verbose=0)
    predicted = {name: logits[name].argmax(axis=1) for name in model.exits}
    return [
        {
            "exit": name,
            "accuracy": float(np.mean(labels == windows.y)),
            "balanced_accuracy": balanced_accuracy(windows.y, labels),
        }
        for name, labels in predicted.items()
    ]


def _check_names(settings: RunSettings) -> None:
    """Check the options whose names stand in rooms that load TensorFlow.

    Raises:
        InputError: lists the known names.
    """
    from mexit_edge.models import BACKBONES
    from mexit_edge.regimes import make_regime

    if settings.backbone not in BACKBONES:
        raise unknown_name("backbone", settings.backbone, BACKBONES)
    make_regime(settings.regime)


def _recorder(history: list[dict[str, float]], lines: EpochLines) -> Callable[[int, dict[str, float]], None]:
    """Return a callback that keeps an epoch's figures and shows them."""

    def epoch_done(epoch: int, logs: dict[str, float]) -> None:
        history.append({"epoch": epoch + 1, **{name: float(value) for name, value in sorted(logs.items())}})
        lines.epoch_done(epoch + 1, logs)

    return epoch_done
