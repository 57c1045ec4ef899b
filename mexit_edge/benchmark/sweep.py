"""What a sweep compares: data x backbones x regimes x seeds, checked before anything runs."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from mexit_edge.bundle.spec import Positive, Sha256, Spec
from mexit_edge.data import dataset
from mexit_edge.errors import InputError, first_violation, unknown_name
from mexit_edge.files import read_from_folder, sha256
from mexit_edge.runtime import ENGINES, reference_engine
from mexit_edge.signals.perturbations import MAX_STRENGTH, Axis

MAX_SWEEP_BYTES = 1 << 20
MAX_RUNS = 100_000
MAX_SEED = 2**32 - 1
# Severities of perturbed test windows; `mexit_edge.signals.severity_strength` has what they multiply by.
SEVERITIES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
TEST: Literal["test"] = "test"
OUT_OF_FOLD: Literal["out_of_fold"] = "out_of_fold"
OWN_WINDOWS = ".npz"
JOINT = "joint"

# What tables and files call something.
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+ %=-]{0,59}$")]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Count = Annotated[int, Field(ge=1)]


class Backbone(Spec):
    """One network of a sweep.

    Args:
        name: a key of `mexit_edge.models.BACKBONES`.
        preset: its size.
        options: over the preset's.
        label: what results call it; name and preset if None.
    """

    name: str
    preset: str = "medium"
    options: dict[str, Any] = Field(default_factory=dict)
    label: Label | None = None

    @property
    def shown(self) -> str:
        """What results call it."""
        return self.label or f"{self.name} {self.preset}"


# Settings of the protocol that a regime may have of its own: how it trains, and not what it is judged on.
TRAINING_SETTINGS = (
    "batch_size",
    "learning_rate",
    "clip_norm",
    "patience",
    "perturbation_strength",
    "mirror_axis",
    "qat_share",
    "input_limit",
    "training_subjects",
)


class RegimeChoice(Spec):
    """One way of training in a sweep.

    Args:
        name: a key of `mexit_edge.regimes.REGIMES`.
        options: of the regime.
        label: what results call it; its name if None.
        seeds: instead of the sweep's.
        epochs: instead of the sweep's.
        settings: of the protocol, instead of the sweep's: those of `TRAINING_SETTINGS`.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    label: Label | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = None
    epochs: Count | None = None
    settings: dict[str, Any] = Field(default_factory=dict)

    came_later: ClassVar[tuple[str, ...]] = ("settings",)

    @field_validator("settings")
    @classmethod
    def _of_training(cls, settings: dict[str, Any]) -> dict[str, Any]:
        unknown = next((name for name in settings if name not in TRAINING_SETTINGS), None)
        if unknown is not None:
            raise ValueError(f"settings must be of: {', '.join(TRAINING_SETTINGS)}, not {unknown!r}")
        return settings

    @property
    def shown(self) -> str:
        """What results call it."""
        return self.label or self.name


class Protocol(Spec):
    """How every run of a sweep trains and is judged.

    Args:
        judged_on: ``"test"``: the official test subjects of a data set, else a draw; or ``"out_of_fold"``:
            these subjects are put away, and the others are judged fold by fold, each by a network that never
            saw them. Choices are made out of fold; the test says what they are worth.
        split_seed: of the draw of test subjects; None for the run's own seed. Out of fold, data without
            official test subjects need it, and the sweep that tests needs the same: else people are tested on
            whose folds the choice was made.
        training_subjects: so many of the training subjects are trained on, drawn by the seed: how it would be
            with fewer people; None for all.
        folds: of ``"out_of_fold"``.
        cross_fit: number of folds that set epochs and thresholds before a network is fitted on all training
            subjects; None for four disjoint sets of subjects.
        epochs: of training, over all phases.
        equal_cost: whether ``epochs`` are those of `joint`, and every other regime gets as many as cost the
            same forward and backward multiply-accumulates.
        batch_size: windows per step.
        learning_rate: at the start of every phase; falls to 0 along a cosine.
        clip_norm: largest norm of the gradient; None for no limit.
        patience: epochs without an improvement of any exit that end a phase; None to train all epochs.
        perturbation_strength: of the training windows; 1 is the standard strength.
        mirror_axis: of the device; half of the windows that training perturbs are seen as if it were worn on
            the other side (`mexit_edge.signals.Mirror`). None for none.
        qat_share: epochs of a fine-tuning with fake quantization afterwards, as a share of ``epochs``; None
            for none, the float network is quantized as it is.
        input_limit: standard deviations beyond which int8 inputs saturate; None for the range of the
            representative windows (`mexit_edge.compress.Quantization`).
        severities: of the judged windows.
        engine: that executes the int8 stages; None for the one that stands for the device.
        max_drop: largest loss of balanced accuracy that the policy is calibrated for, as a share.
        stride: every so many-th window is taken, for a quick look; 1 for all.
    """

    judged_on: Literal["test", "out_of_fold"] = TEST
    folds: Annotated[int, Field(ge=2)] = 3
    cross_fit: Annotated[int, Field(ge=2)] | None = None
    epochs: Count = 30
    equal_cost: bool = False
    batch_size: Count = 64
    learning_rate: Positive = 2e-3
    clip_norm: Positive | None = None
    patience: Count | None = None
    perturbation_strength: Annotated[float, Field(ge=0, le=MAX_STRENGTH)] = 1.0
    severities: tuple[Annotated[float, Field(ge=0, le=5)], ...] = SEVERITIES
    engine: str | None = None
    max_drop: Annotated[float, Field(ge=0, le=1)] = 0.005
    stride: Count = 1
    split_seed: Seed | None = None
    training_subjects: Count | None = None
    qat_share: Annotated[float, Field(gt=0, le=1)] | None = None
    mirror_axis: Axis | None = None
    input_limit: Positive | None = None

    # A run keeps its name when a setting is added that it does not use.
    came_later: ClassVar[tuple[str, ...]] = (
        "split_seed",
        "training_subjects",
        "qat_share",
        "mirror_axis",
        "input_limit",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Protocol:
        if self.equal_cost and (self.patience is not None or self.cross_fit is not None):
            # Both end trainings early, and each somewhere else.
            raise ValueError("equal_cost must be left out with patience and with cross_fit")
        if self.cross_fit is not None and self.patience is not None:
            raise ValueError("patience must be left out with cross_fit, which chooses the epochs itself")
        if self.equal_cost and self.qat_share is not None:
            raise ValueError("qat_share must be left out with equal_cost, which counts one training")
        if self.input_limit is not None and self.qat_share is not None:
            raise ValueError("input_limit must be left out with qat_share, which sets the ranges in training")
        if not self.severities or self.severities[0] != 0 or len(set(self.severities)) < len(self.severities):
            raise ValueError("severities must begin with 0, the windows as they are, and be distinct")
        return self


class Run(Spec):
    """One training and what it is judged on; everything that its record depends on.

    Args:
        data: name of a data set, or of a file of windows without its suffix.
        windows_file: the file; None for a data set.
        windows_sha256: of the file.
        network: the backbone.
        training: the regime.
        seed: of split, folds, weights, order and perturbations.
        fold: of ``"out_of_fold"``, from 0; None on the test.
        protocol: of the sweep, with this run's epochs.
    """

    data: str
    windows_file: str | None = None
    windows_sha256: Sha256 | None = None
    network: Backbone
    training: RegimeChoice
    seed: Seed
    fold: Annotated[int, Field(ge=0)] | None = None
    protocol: Protocol

    @property
    def backbone(self) -> str:
        """What results call the backbone."""
        return self.network.shown

    @property
    def regime(self) -> str:
        """What results call the regime."""
        return self.training.shown

    @property
    def judged_on(self) -> str:
        """Of the protocol."""
        return self.protocol.judged_on

    @property
    def key(self) -> str:
        """Name of its files: readable, and different for whatever differs in any setting.

        Where a file of windows lies is no part of it; what it holds is.
        """
        facts = json.dumps(self.model_dump(mode="json", exclude={"windows_file"}), sort_keys=True)
        digest = hashlib.sha256(facts.encode()).hexdigest()[:12]
        words = [self.data, self.backbone, self.regime, f"s{self.seed}"]
        if self.fold is not None:
            words.append(f"f{self.fold}")
        return f"{re.sub(r'[^A-Za-z0-9]+', '-', '-'.join(words))[:100]}-{digest}"

    def __str__(self) -> str:
        """Return what progress shows."""
        fold = "" if self.fold is None else f", fold {self.fold + 1} of {self.protocol.folds}"
        return f"{self.data}, {self.backbone}, {self.regime}, seed {self.seed}{fold}"


class Sweep(Spec):
    """Data x backbones x regimes x seeds, under one protocol.

    Args:
        data: names of data sets, or .npz files of windows (see `mexit_edge.data.windows_file`).
        backbones: to compare.
        regimes: to compare.
        seeds: of every regime that has none of its own.
        protocol: of every run.
        reference: label of the regime that the others are compared with; None for `joint` where it is
            there, else the first.
    """

    data: Annotated[tuple[str, ...], Field(min_length=1)]
    backbones: Annotated[tuple[Backbone, ...], Field(min_length=1)] = (Backbone(name="cnn"),)
    regimes: Annotated[tuple[RegimeChoice, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    protocol: Protocol = Protocol()
    reference: str | None = None

    @model_validator(mode="after")
    def _told_apart(self) -> Sweep:
        seeds = [self.seeds, *(regime.seeds for regime in self.regimes if regime.seeds is not None)]
        named: list[tuple[str, list[str], str]] = [
            ("data", [data_name(one) for one in self.data], "leave one out, or rename a file"),
            ("backbones", [one.shown for one in self.backbones], "give one a `label`"),
            ("regimes", [one.shown for one in self.regimes], "give one a `label`"),
            *(("seeds", list(map(str, some)), "leave one out") for some in seeds),
        ]
        for what, names, way_out in named:
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise ValueError(f"{what} must differ, {twice[0]!r} stands twice; {way_out}")
        return self

    @model_validator(mode="after")
    def _settings_fit(self) -> Sweep:
        for one in self.regimes:
            try:
                self.protocol_of(one)
            except ValidationError as error:
                raise ValueError(
                    f"the regime {one.shown!r} with its settings, {first_violation(error, 'the protocol')}"
                ) from error
        return self

    def protocol_of(self, training: RegimeChoice) -> Protocol:
        """Return the protocol with what a regime has of its own."""
        own = {**training.settings, "epochs": training.epochs or self.protocol.epochs}
        return Protocol.model_validate({**self.protocol.model_dump(), **own})

    @property
    def compared_with(self) -> str:
        """Label of the regime that the others are compared with."""
        shown = [one.shown for one in self.regimes]
        return self.reference or (JOINT if JOINT in shown else shown[0])

    @property
    def n_runs(self) -> int:
        """How many there are; no file is read for it."""
        folds = self.protocol.folds if self.protocol.judged_on == OUT_OF_FOLD else 1
        trainings = sum(len(self._seeds(one)) for one in self.regimes)
        return len(self.data) * len(self.backbones) * trainings * folds

    def runs(self) -> tuple[Run, ...]:
        """Return every run, seed by seed, so that an unfinished sweep can be compared already.

        Raises:
            InputError: a file of windows cannot be read, or there are more than 100,000.
        """
        if self.n_runs > MAX_RUNS:
            raise InputError(f"`sweep` must have at most {MAX_RUNS:,} runs. Received: {self.n_runs:,}.")
        files = {one: _file_facts(one) for one in self.data}
        found = []
        for seed in sorted({seed for one in self.regimes for seed in self._seeds(one)}):
            for one in self.data:
                for network in self.backbones:
                    for training in self.regimes:
                        if seed in self._seeds(training):
                            found += list(self._folds(files[one], network, training, seed))
        return tuple(found)

    def _seeds(self, training: RegimeChoice) -> tuple[int, ...]:
        return self.seeds if training.seeds is None else training.seeds

    def _folds(
        self, data: dict[str, str], network: Backbone, training: RegimeChoice, seed: int
    ) -> Iterator[Run]:
        # One engine for all: a worker without the device's own would take another, and say nothing.
        engine = self.protocol.engine or reference_engine()
        protocol = self.protocol_of(training).model_copy(update={"engine": engine})
        # What is settled above is no part of the run: the same training in another sweep is the same run.
        alone = training.model_copy(update={"seeds": None, "epochs": None, "settings": {}})
        judged = range(protocol.folds) if protocol.judged_on == OUT_OF_FOLD else (None,)
        for fold in judged:
            yield Run(**data, network=network, training=alone, seed=seed, fold=fold, protocol=protocol)


def data_name(entry: str) -> str:
    """Return what results call an entry of ``data``."""
    return Path(entry).stem if entry.endswith(OWN_WINDOWS) else entry


def read_sweep(path: Path) -> Sweep:
    """Return the sweep of a TOML file; files of windows are looked for beside it.

    Raises:
        InputError: it is no such file, a key is unknown, or as `check_sweep`.
    """
    try:
        facts = tomllib.loads(read_from_folder(path.parent, path.name, MAX_SWEEP_BYTES).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"`sweep` must be a TOML file. Received: {path}: {error}.") from error
    if isinstance(facts.get("data"), list):
        facts["data"] = [_beside(path.parent, one) for one in facts["data"]]
    return make_sweep(facts, f"the sweep file {path.name}")


def make_sweep(facts: dict[str, Any], source: str) -> Sweep:
    """Return the sweep of plain facts, checked.

    Args:
        facts: as in a file.
        source: where they come from, for messages.

    Raises:
        InputError: a key is unknown or a value wrong, or as `check_sweep`.
    """
    try:
        sweep = Sweep.model_validate(facts)
    except ValidationError as error:
        raise InputError(
            f"`sweep` must hold data, regimes and settings as the documentation of `mexit bench` says. "
            f"Received: {source}, {first_violation(error, 'the sweep', Sweep)}."
        ) from error
    check_sweep(sweep)
    return sweep


def check_sweep(sweep: Sweep) -> None:
    """Refuse what cannot run, before anything does; loads TensorFlow.

    Raises:
        InputError: a data set, backbone, preset, regime, option, engine or reference is unknown, a file of
            windows is none, does not suffice for a run or cannot be mirrored, or test subjects would be
            judged out of fold.
    """
    from mexit_edge.benchmark.run import check_sets
    from mexit_edge.models.build import check_backbone
    from mexit_edge.regimes import make_regime

    for one in sweep.data:
        official = None if one.endswith(OWN_WINDOWS) else dataset(one).official_test_subjects
        protocol = sweep.protocol
        if protocol.judged_on == OUT_OF_FOLD and not official and protocol.split_seed is None:
            raise InputError(
                f"`split_seed` must be given to judge {data_name(one)} out of fold: it has no official test "
                "subjects. Received: none, so that another seed would test on whom this one judges. Take "
                "`split_seed = 0` (`--split-seed 0`), here and in the sweep that tests."
            )
    for network in sweep.backbones:
        check_backbone(network.name, network.preset, network.options)
    for regime in sweep.regimes:
        make_regime(regime.name, **regime.options)
    shown = [one.shown for one in sweep.regimes]
    if sweep.compared_with not in shown:
        raise unknown_name("reference", sweep.compared_with, shown)
    engine = sweep.protocol.engine
    if engine is not None and engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    mirrored = next((one for one in sweep.regimes if sweep.protocol_of(one).mirror_axis is not None), None)
    for one in sweep.data:
        if one.endswith(OWN_WINDOWS):
            if mirrored is not None:
                raise InputError(
                    "`mirror_axis` must be left out for windows of one's own, which have no rigid bodies. "
                    f"Received: {data_name(one)} with the regime {mirrored.shown!r}."
                )
            check_sets(sweep.model_copy(update={"data": (one,)}).runs())


def _beside(folder: Path, entry: Any) -> Any:
    is_file = isinstance(entry, str) and entry.endswith(OWN_WINDOWS)
    return str((folder / entry).absolute()) if is_file else entry


def _file_facts(entry: str) -> dict[str, str]:
    if not entry.endswith(OWN_WINDOWS):
        return {"data": entry}
    path = Path(entry)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"`data` must name data sets or .npz files of windows. Received: {entry}: {error.strerror}."
        ) from error
    return {
        "data": data_name(entry),
        "windows_file": str(path.absolute()),
        "windows_sha256": sha256(content),
    }
