"""The options of `mexit run` and `mexit train`, with their defaults: light, so that help can show them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from mexit_edge.errors import InputError
from mexit_edge.files import free_name

BUNDLES, RUNS = Path("tflite_models"), Path("runs")
EPOCHS, BATCH_SIZE = 30, 64
# A quarter of the windows, in batches of a quarter, so that an epoch has as many steps.
QUICK_EPOCHS, QUICK_BATCH_SIZE, QUICK_STRIDE = 8, 16, 4
# That of `regimes.recipe`, which would load TensorFlow; a test holds the two equal.
LEARNING_RATE = 2e-3
# That of `runtime.engine_parity`, which would load NumPy; a test holds the two equal.
ROUNDING_STEPS = 4
MAX_SEED = 2**32 - 1  # what Keras takes
# Of one network or model: no names of folders and bundles.
FILE_SUFFIXES = (".keras", ".tflite")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What to train, and how.

    Args:
        data: name of a data set.
        backbone: name of a network.
        preset: name of its size.
        regime: name of a training regime.
        options: of the regime, by name.
        epochs: epochs of training, over all phases; None for the default, which depends on ``quick``.
        batch: windows per step; None for the default, which depends on ``quick``.
        learning_rate: at the start of every phase.
        clip_norm: largest norm of the gradient; None for no limit.
        patience: epochs without an improvement of any exit that end a phase; None to train all epochs.
        cross_fit: number of folds; None to set validation and calibration subjects apart.
        qat: whether the network is fine-tuned with fake quantization afterwards.
        qat_share: epochs of that fine-tuning, as a share of ``epochs``.
        seed: of the split, the folds, the weights and the perturbations.
        out: what to write; None for a new name.
        quick: a short training on a quarter of the windows.
    """

    data: str = "hapt"
    backbone: str = "dscnn"
    preset: str = "medium"
    regime: str = "joint"
    options: dict[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    batch: int | None = None
    learning_rate: float = LEARNING_RATE
    clip_norm: float | None = None
    patience: int | None = None
    cross_fit: int | None = None
    qat: bool = False
    qat_share: float = 0.1
    seed: int = 0
    out: Path | None = None
    quick: bool = False

    @property
    def n_epochs(self) -> int:
        """Epochs to train for."""
        return self.epochs or (QUICK_EPOCHS if self.quick else EPOCHS)

    @property
    def batch_size(self) -> int:
        """Windows per training step."""
        return self.batch or (QUICK_BATCH_SIZE if self.quick else BATCH_SIZE)


@dataclass(frozen=True, kw_only=True)
class RunSettings(TrainSettings):
    """The options of `mexit run`, see its help.

    Args:
        device: name of a device to estimate for.
        max_drop: largest loss of balanced accuracy against the final exit, as a share.
        input_limit: standard deviations beyond which int8 inputs saturate; None for the range of training
            windows.
        overwrite: whether a bundle of the name in ``out`` may be replaced.
    """

    device: str = "nucleo-l4r5zi"
    max_drop: float = 0.005
    input_limit: float | None = None
    overwrite: bool = False

    @property
    def target(self) -> Path:
        """Where the bundle goes."""
        return free_name(BUNDLES / f"{self.data}.mexit") if self.out is None else self.out


def refuse_not_positive(options: Mapping[str, float | None]) -> None:
    """Refuse options, given by name without the dashes, that are neither left out nor positive and finite.

    Raises:
        InputError: names the first one.
    """
    for option, value in options.items():
        if value is not None and not 0 < value < inf:
            raise InputError(f"`--{option}` must be positive and finite. Received: {value}.")


def refuse_file_name(out: Path | None, rule: str) -> None:
    """Refuse the name of one file where a folder or a bundle is written.

    Args:
        out: as given; None for a new name.
        rule: what must be named instead.

    Raises:
        InputError: it ends as a network or a model does.
    """
    if out is not None and out.suffix in FILE_SUFFIXES:
        raise InputError(f"`--out` must name {rule}. Received: {out}. Leave out {out.suffix}.")


def parse_options(given: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """Return options given as NAME=VALUE; a value is JSON where it can be, else text.

    Raises:
        InputError: one has no name, or a name comes twice.
    """
    options: dict[str, Any] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or not name or name in options:
            why = "twice" if name in options else repr(one)
            raise InputError(f"`{option}` must be NAME=VALUE, each name once. Received: {name} {why}.")
        try:
            options[name] = json.loads(text)
        except json.JSONDecodeError:
            options[name] = text
    return options
