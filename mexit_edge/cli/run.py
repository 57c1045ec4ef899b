"""`mexit run`: the main job, from recordings to decisions and a page about them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from mexit_edge.bundle import Bundle
from mexit_edge.cli.progress import JobProgress
from mexit_edge.cli.run_folder import write_run_folder
from mexit_edge.cli.settings import RUNS, RunSettings, refuse_file_name, refuse_not_positive
from mexit_edge.cli.tables import (
    console,
    estimate_table,
    print_json,
    quality_facts,
    quality_table,
    stage_table,
)
from mexit_edge.cli.training import (
    Trained,
    check_train_settings,
    checked_sets,
    float_exits,
    train,
)
from mexit_edge.data import HeldOutTest, Split
from mexit_edge.errors import InputError
from mexit_edge.estimate import BundleEstimate, estimate_bundle, load_device
from mexit_edge.files import free_name, refuse_unwritable
from mexit_edge.runtime import available_engines, staged_against_whole
from mexit_edge.signals import Windows
from mexit_edge.simulate import (
    Simulation,
    calibrate,
    calibrate_out_of_fold,
    make_golden,
    quality_of,
    raw_windows,
    simulate,
)


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
    modules = {"tensorflow": "train", "keras": "train", "matplotlib": "report", "jinja2": "report"}
    check_train_settings(settings, modules)
    load_device(settings.device)
    if not 0 <= settings.max_drop <= 1:
        raise InputError(f"`--max-drop` must be a share between 0 and 1. Received: {settings.max_drop}.")
    refuse_not_positive({"input-limit": settings.input_limit})
    if settings.input_limit is not None and settings.qat:
        raise InputError(
            "`--input-limit` must be left out with `--qat`, whose fine-tuning sets the ranges. "
            f"Received: {settings.input_limit:g}."
        )
    refuse_file_name(settings.out, "a bundle, NAME.mexit or NAME.zip")
    Bundle.check_target(settings.target, overwrite=settings.overwrite)
    refuse_unwritable(_run_folder(settings))


def run(settings: RunSettings, screen: Console) -> Outcome:
    """Do the main job.

    Args:
        settings: checked options.
        screen: for progress.
    """
    progress = JobProgress(screen)
    sets = checked_sets(settings, progress)
    trained = train(settings, sets, progress)
    with progress.step("Quantizing to int8 as one model, and cutting it into stages"):
        whole, bundle = quantize_and_cut(settings, trained.model, sets.train)
    with progress.step("Setting thresholds and making golden vectors"):
        bundle = with_policy(settings, bundle, sets, trained)
    with progress.step("Running the test subjects stage by stage"):
        simulation = simulate(bundle, sets.test)
        bundle = bundle.with_manifest(quality=quality_of(simulation))
        floats = float_exits(trained.float_model, sets.test)
    with progress.step("Comparing the stages with the whole model on every engine"):
        samples = raw_windows(bundle, sets.test)
        parity = [
            asdict(row)
            for engine in available_engines()
            for row in staged_against_whole(bundle, whole, samples, engine)
        ]
    estimate = estimate_bundle(bundle, settings.device)
    folder = _run_folder(settings)
    facts = {
        **quality_facts(simulation, estimate),
        "float": floats,
        "parity": parity,
        "subjects_of": {name: list(subjects) for name, subjects in sets.subjects.items()},
        "training_cost": trained.cost,
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


def _run_folder(settings: RunSettings) -> Path:
    """Return where the page and the network go."""
    return free_name(RUNS / settings.target.stem)


def with_policy(settings: RunSettings, bundle: Bundle, sets: Split | HeldOutTest, trained: Trained) -> Bundle:
    """Return the bundle with thresholds and golden vectors: of calibration subjects, or out of fold."""
    if isinstance(sets, Split):
        bundle = calibrate(bundle, sets.calibration, max_drop=settings.max_drop, device=settings.device)
        return make_golden(bundle, sets.calibration)
    found: Any = trained.out_of_fold
    bundle = calibrate_out_of_fold(
        bundle,
        found.logits,
        found.windows,
        folds=len(found.folds),
        max_drop=settings.max_drop,
        device=settings.device,
    )
    return make_golden(bundle, found.windows)


def quantize_and_cut(settings: RunSettings, model: Any, training: Windows) -> tuple[bytes, Bundle]:
    """Return the whole int8 model, and the bundle of its stages."""
    from mexit_edge.compress import Quantization, export_with_whole

    bundle, whole = export_with_whole(
        model,
        training,
        quantization=Quantization(input_limit=settings.input_limit),
        name=settings.data,
        seed=settings.seed,
    )
    return whole, bundle
