"""Do one run of a sweep: train, quantize, cut, and keep what every exit says of the judged windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mexit_edge.benchmark.quality_cost import SCORE
from mexit_edge.benchmark.record import RunRecord
from mexit_edge.benchmark.sweep import OUT_OF_FOLD, Protocol, Run
from mexit_edge.bundle import Bundle
from mexit_edge.compress import Quantization, export, fine_tuning_epochs
from mexit_edge.compress.quantize_aware import FINE_TUNING_RATE, fake_quantized
from mexit_edge.data import HeldOutTest, Split, dataset, hold_out_test, load, split_by_subject
from mexit_edge.data.windows_file import load_windows
from mexit_edge.errors import InputError, RunError
from mexit_edge.estimate import single_exit_macs
from mexit_edge.files import sha256
from mexit_edge.regimes import PhaseCost, Recipe, StopAfterEpoch, cross_fit
from mexit_edge.regimes.cross_fit import OutOfFold, subject_folds
from mexit_edge.regimes.equal_cost import epochs_of_equal_cost
from mexit_edge.regimes.recipe import LAST_SHARE
from mexit_edge.runtime import Runtime
from mexit_edge.signals import (
    Mirror,
    Normalisation,
    Perturbation,
    Windows,
    apply_perturbations,
    inertial_perturbations,
    severity_strength,
)
from mexit_edge.simulate import LeastCost, calibrate_out_of_fold, exit_costs, judge, raw_windows, with_policy
from mexit_edge.simulate.out_of_fold import in_steps

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A trained network and what it cost.

    Args:
        model: a `MultiExitModel`.
        epochs: it was trained for.
        costs: of every network that was trained for it.
        out_of_fold: what the fold networks said, cross-fitted.
        fine_tuned: the model after fine-tuning with fake quantization; None without.
    """

    model: Any
    epochs: int
    costs: tuple[PhaseCost, ...]
    out_of_fold: OutOfFold | None = None
    fine_tuned: Any = None


def perform(run: Run) -> RunRecord:
    """Do a run.

    Raises:
        InputError: the data, subjects or windows do not suffice for it.
    """
    everybody = subject_sets(run, _load(run))
    sets, judged = with_fewer(everybody, run), everybody.test
    recipe = _recipe(run)
    # How many of them a regime trains on must not change what it is judged on.
    normalisation = Normalisation.fit(everybody.train)
    fitted = _fine_tuned(run, _fit(run, recipe, sets), sets)
    quantized = fitted.model if fitted.fine_tuned is None else fitted.fine_tuned
    quantization = Quantization(input_limit=run.protocol.input_limit)
    bundle = export(quantized, sets.train, quantization=quantization, name=run.data, seed=run.seed)
    engine = _known(run.protocol.engine, "`engine` must be settled in a run")
    bundle, calibration_y, calibration_logits = _calibrated(run, bundle, sets, fitted, engine)
    severities = run.protocol.severities if judged.sensor.rigid_bodies else (0.0,)
    runtime = Runtime(bundle, engine)
    int8_logits = [
        runtime.all_logits(raw_windows(bundle, perturbed(judged, normalisation, severity, run.seed)))
        for severity in severities
    ]
    predicted = fitted.model.predict(judged, batch_size=512, verbose=0)
    manifest = bundle.manifest
    return RunRecord(
        run=run,
        classes=judged.classes,
        exits=manifest.exits,
        subjects=_subjects(sets),
        n_training_windows=len(sets.train),
        y=judged.y,
        subject=judged.subject,
        float_logits=np.stack([predicted[exit_] for exit_ in manifest.exits], axis=1),
        severities=severities,
        int8_logits=np.stack(int8_logits),
        calibration_y=calibration_y,
        calibration_logits=calibration_logits,
        scales=tuple(stage.outputs[0].scale for stage in manifest.stages),
        thresholds=manifest.exit_rule().thresholds,
        exit_macs=manifest.cumulative_macs,
        plain_macs=_known(single_exit_macs(bundle), "every operator of a bundle must have a known cost"),
        training_cost=tuple(cost.to_dict() for cost in fitted.costs),
        epochs=fitted.epochs,
        engine=engine,
        versions=dict(bundle.manifest.versions),
    )


def subject_sets(run: Run, windows: Windows) -> Split | HeldOutTest:
    """Return the windows to train on, of all training subjects, and those to judge on as its ``test``.

    Out of fold the test subjects are put away first: nothing of a choice may come from them.

    Raises:
        InputError: there are too few subjects.
    """
    protocol = run.protocol
    test: Any = None if run.windows_file else dataset(run.data).standard_test
    if protocol.split_seed is not None or run.judged_on == OUT_OF_FOLD:
        seed = run.seed if protocol.split_seed is None else protocol.split_seed
        held_out = hold_out_test(windows, test, seed)
        test = held_out.test.subjects
        if run.judged_on == OUT_OF_FOLD:
            windows = held_out.train
            test = subject_folds(windows.subjects, protocol.folds, run.seed)[run.fold or 0]
    split = split_by_subject if protocol.cross_fit is None else hold_out_test
    return split(windows, test, seed=run.seed)


def with_fewer(sets: Split | HeldOutTest, run: Run) -> Split | HeldOutTest:
    """Return the sets of `subject_sets` with as many training subjects as the protocol says.

    Raises:
        InputError: there are not as many.
    """
    wanted, there = run.protocol.training_subjects, sets.train.subjects
    if wanted is None:
        return sets
    if wanted > len(there):
        raise InputError(
            f"`training_subjects` must be at most what the split leaves for training ({len(there)}). "
            f"Received: {wanted}."
        )
    drawn = np.random.default_rng(run.seed).permutation(there)[:wanted]
    return replace(sets, train=sets.train.of_subjects(drawn.tolist()))


def check_sets(runs: Sequence[Run]) -> None:
    """Refuse windows whose subjects do not suffice for runs on them.

    Args:
        runs: on one file of windows.

    Raises:
        InputError: the file is none of windows, or some run has too few subjects, or too few of a class.
    """
    windows = _load(runs[0])
    # What else differs between runs decides about no subject.
    for run in {(one.seed, one.fold, one.protocol.training_subjects): one for one in runs}.values():
        try:
            sets = with_fewer(subject_sets(run, windows), run)
            if run.protocol.cross_fit is not None:
                subject_folds(sets.train.subjects, run.protocol.cross_fit, run.seed)
        except InputError as error:
            raise InputError(
                f"`data` must suffice for every run. Received: {run.windows_file}, seed {run.seed}: {error}"
            ) from error


def perturbed(windows: Windows, normalisation: Normalisation, severity: float, seed: int) -> Windows:
    """Return windows perturbed at a severity; the same for every network that is judged on them.

    Args:
        windows: of a sensor with rigid bodies.
        normalisation: of the windows of all training subjects, whose scale the jitter is relative to.
        severity: from 0, the windows as they are, to 5.
        seed: of the draw.
    """
    if severity == 0:
        return windows
    chain = inertial_perturbations(normalisation.scale, severity_strength(severity))
    rng = np.random.default_rng((seed, round(1000 * severity)))
    return replace(windows, x=apply_perturbations(windows.x, windows.sensor, chain, rng).astype(np.float32))


def _load(run: Run) -> Windows:
    if run.windows_file is None:
        windows: Windows = load(run.data)
    else:
        path = Path(run.windows_file)
        if sha256(path.read_bytes()) != run.windows_sha256:
            raise InputError(
                f"`data` must stay as it was when the sweep began. Received: {path}, which has changed."
            )
        windows = load_windows(path, "data")
    return windows.take(np.arange(0, len(windows), run.protocol.stride))


def _recipe(run: Run) -> Recipe:
    protocol = run.protocol
    return Recipe(
        backbone=run.network.name,
        preset=run.network.preset,
        backbone_options=run.network.options,
        regime=run.training.name,
        options=run.training.options,
        epochs=protocol.epochs,
        batch_size=protocol.batch_size,
        learning_rate=protocol.learning_rate,
        clip_norm=protocol.clip_norm,
        patience=protocol.patience,
        seed=run.seed,
    )


def _fit(run: Run, recipe: Recipe, sets: Split | HeldOutTest) -> _Fitted:
    if run.protocol.equal_cost:
        recipe = replace(recipe, epochs=epochs_of_equal_cost(recipe, sets.train))
    if isinstance(sets, Split):
        model = _model(recipe, sets.train, run.protocol)
        model.fit(
            sets.train,
            validation_data=sets.validation,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            callbacks=[recipe.best_epoch()],
            verbose=0,
        )
        epochs = sum(cost.epochs for cost in model.training_cost)
        return _Fitted(model, epochs, model.training_cost)
    found = cross_fit(
        lambda train, fold: _model(recipe, train, run.protocol),
        sets.train,
        run.protocol.cross_fit or 0,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        seed=run.seed,
        last_share=LAST_SHARE,
        input_limit=run.protocol.input_limit,
    )
    model = _model(recipe, sets.train, run.protocol)
    model.fit(
        sets.train,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        callbacks=[StopAfterEpoch(found.epochs)],
        verbose=0,
    )
    costs = (*(cost for fold in found.costs for cost in fold), *model.training_cost)
    return _Fitted(model, found.epochs, costs, found)


def _fine_tuned(run: Run, fitted: _Fitted, sets: Split | HeldOutTest) -> _Fitted:
    """Return it with a model fine-tuned on the steps of int8, where the protocol asks for one."""
    protocol = run.protocol
    if protocol.qat_share is None:
        return fitted
    phases = len(fitted.model.phases)
    epochs = fine_tuning_epochs(protocol.epochs, protocol.qat_share, phases=phases)
    aware = fake_quantized(
        fitted.model,
        sets.train,
        epochs=epochs,
        batch_size=protocol.batch_size,
        learning_rate=FINE_TUNING_RATE * protocol.learning_rate,
        clip_norm=protocol.clip_norm,
        seed=run.seed,
    )
    aware.fit(sets.train, epochs=epochs, batch_size=protocol.batch_size, verbose=0)
    costs = (*fitted.costs, *aware.training_cost)
    return replace(fitted, fine_tuned=aware, epochs=fitted.epochs + epochs, costs=costs)


def _model(recipe: Recipe, train: Windows, protocol: Protocol) -> Any:
    """Return a new model whose training windows are perturbed as the protocol says."""
    chain: tuple[Perturbation, ...] = ()
    if protocol.mirror_axis is not None:
        chain += (Mirror(protocol.mirror_axis),)
    if protocol.perturbation_strength and train.sensor.rigid_bodies:
        chain += inertial_perturbations(Normalisation.fit(train).scale, protocol.perturbation_strength)
    return recipe.model(train, chain)


def _calibrated(
    run: Run, bundle: Bundle, sets: Split | HeldOutTest, fitted: _Fitted, engine: str
) -> tuple[Bundle, NDArray[np.int64], NDArray[np.int8]]:
    """Return the bundle with its policy, and labels and int8 logits of the windows that set it."""
    found, costs = fitted.out_of_fold, exit_costs(bundle, None, None)
    if found is None:
        assert isinstance(sets, Split)
        judged = judge(bundle, sets.calibration, engine)
        goal = LeastCost(run.protocol.max_drop)
        return with_policy(bundle, judged, goal, SCORE, costs), sets.calibration.y, judged.logits
    bundle = calibrate_out_of_fold(
        bundle,
        found.logits,
        found.windows,
        folds=len(found.folds),
        max_drop=run.protocol.max_drop,
        score=SCORE,
        cost=costs,
    )
    return bundle, found.windows.y, in_steps(bundle.manifest, found.logits)


def _known(value: T | None, rule: str) -> T:
    if value is None:
        raise RunError(f"{rule}. Received: None.")
    return value


def _subjects(sets: Split | HeldOutTest) -> dict[str, tuple[int, ...]]:
    names = {"train": "training", "test": "judged"}
    return {names.get(name, name): subjects for name, subjects in sets.subjects.items()}
