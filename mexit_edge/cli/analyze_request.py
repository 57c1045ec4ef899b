"""What `mexit analyze` is asked for, and the networks and windows that it is about."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from mexit_edge.cli.keras_file import check_saved, load_saved
from mexit_edge.cli.progress import JobProgress
from mexit_edge.cli.settings import RUNS, refuse_file_name
from mexit_edge.cli.training_windows import WindowsSource, known_subjects, training_windows
from mexit_edge.errors import InputError, MissingExtraError, unknown_name
from mexit_edge.files import free_name, refuse_existing, refuse_unwritable
from mexit_edge.runtime import CaughtStderr
from mexit_edge.signals import Windows

GRADIENTS, CONNECTIVITY, LANDSCAPE = "gradients", "connectivity", "landscape"
RANK, INFORMATION = "rank", "information"
ANALYSES = (GRADIENTS, CONNECTIVITY, LANDSCAPE, RANK, INFORMATION)
NETWORKS = "NETWORK.keras"
# Module -> extra of what is imported later.
_MODULES = {
    "tensorflow": "train",
    "keras": "train",
    "sklearn": "train",
    "matplotlib": "report",
    "jinja2": "report",
}
# One of so many subjects judges the probes, where the network knows no validation subjects.
_JUDGING = 3


@dataclass(frozen=True, kw_only=True)
class AnalyzeRequest:
    """The options of `mexit analyze`.

    Args:
        networks: .keras files, one at least.
        source: of the windows.
        what: names of analyses; None for all that fit.
        out: folder to write; None for a new name.
        overwrite: whether a folder of that name may be replaced.
        seed: of all draws.
    """

    networks: tuple[Path, ...]
    source: WindowsSource
    what: tuple[str, ...] | None = None
    out: Path | None = None
    overwrite: bool = False
    seed: int = 0

    def check(self) -> None:
        """Refuse what can be refused before TensorFlow is loaded.

        Raises:
            InputError: an analysis is unknown or does not fit the number of networks, a file is no network,
                or the folder stands in the way.
            MissingExtraError: an extra is not installed.
        """
        for module, extra in _MODULES.items():
            if find_spec(module) is None:
                raise MissingExtraError(module, extra)
        for name in self.what or ():
            if name not in ANALYSES:
                raise unknown_name("--what", name, ANALYSES)
        if self.what is not None and CONNECTIVITY in self.what and len(self.networks) not in (2, 3):
            raise InputError(
                f"`{NETWORKS}` must be two or three for connectivity. Received: {len(self.networks)}. "
                "Name the networks to go between, or leave connectivity out of `--what`."
            )
        refuse_file_name(self.out, "a folder")
        refuse_unwritable(self.target)
        refuse_existing(self.target, overwrite=self.overwrite)
        for path in self.networks:
            check_saved(path, NETWORKS)

    @property
    def target(self) -> Path:
        """The folder to write."""
        return free_name(RUNS / f"analysis-{self.networks[-1].stem}") if self.out is None else self.out

    @property
    def names(self) -> tuple[str, ...]:
        """A distinct name per network: of the file where that tells them apart, else its place too."""
        stems = [path.stem for path in self.networks]
        times = Counter(stems)
        return tuple(
            stem if times[stem] == 1 else f"{stem} ({number})" for number, stem in enumerate(stems, start=1)
        )


@dataclass(frozen=True, eq=False)
class Loaded:
    """Networks and windows to analyze.

    Args:
        models: per file, a `MultiExitModel` or a functional network.
        windows: of the subjects that all of them were trained on, labelled.
        probed: of these, what probes are fitted on.
        judging: of other subjects, what probes are judged on; None where there is nobody else.
        said: whose windows they are, as a sentence.
        said_of_judging: whose windows judge the probes, as a sentence.
    """

    models: tuple[Any, ...]
    windows: Windows
    probed: Windows
    judging: Windows | None
    said: str
    said_of_judging: str


def load(request: AnalyzeRequest, progress: JobProgress) -> Loaded:
    """Read networks and windows.

    Args:
        request: checked.
        progress: shows the steps.

    Raises:
        InputError: a file holds no multi-exit network, they differ in structure, normalisation or training
            subjects, or windows do not fit.
    """
    with progress.step("Loading TensorFlow and the networks"), CaughtStderr():
        models = tuple(load_saved(path, NETWORKS) for path in request.networks)
        from mexit_edge.analysis.weight_space import refuse_unlike
        from mexit_edge.models.heads import exit_names

        exit_names(getattr(models[0], "network", models[0]), NETWORKS)
        refuse_unlike(models, NETWORKS)
    _refuse_other_subjects(request, models)
    with progress.step(f"Reading windows of {request.source.name}"):
        windows, said = training_windows(models[0], request.source)
        windows = windows.take(windows.labelled)
        validation = _validation_windows(models[0], request.source)
    if not len(windows):
        raise InputError("`--windows` must hold labelled windows. Received: none.")
    return _with_judging(request, models, windows, said, validation)


def _with_judging(
    request: AnalyzeRequest, models: tuple[Any, ...], windows: Windows, said: str, validation: Windows | None
) -> Loaded:
    if validation is not None and len(validation) and not set(validation.subjects) & set(windows.subjects):
        whose = (
            f"Probes: judged on the {len(validation.subjects)} validation subjects of the training, "
            "which early "
            "stopping may have looked at."
        )
        return Loaded(models, windows, windows, validation, said, whose)
    subjects = windows.subjects
    if len(subjects) < 2:
        return Loaded(models, windows, windows, None, said, "No probes: the windows are of one subject.")
    drawn = np.random.default_rng(request.seed).permutation(subjects)[: max(1, len(subjects) // _JUDGING)]
    apart = np.isin(windows.subject, drawn)
    whose = (
        f"Probes: judged on {len(drawn)} of the {len(subjects)} subjects, which the network itself "
        "may have been "
        "trained on."
    )
    return Loaded(models, windows, windows.take(~apart), windows.take(apart), said, whose)


def _validation_windows(model: Any, source: WindowsSource) -> Windows | None:
    """Return the labelled windows of the network's validation subjects; None where there are none."""
    provenance = getattr(model, "provenance", None)
    if provenance is None or not provenance.validation_subjects:
        return None
    # They are found as the training subjects are.
    asked = SimpleNamespace(
        network=model.network,
        normalisation=model.normalisation,
        provenance=provenance.model_copy(update={"train_subjects": provenance.validation_subjects}),
    )
    try:
        windows, _ = training_windows(asked, source)
    except InputError:
        # A file of one's own need not hold them.
        return None
    return windows.take(windows.labelled)


def _refuse_other_subjects(request: AnalyzeRequest, models: tuple[Any, ...]) -> None:
    first = known_subjects(models[0])
    for name, model in zip(request.names, models, strict=True):
        if known_subjects(model) != first:
            raise InputError(
                f"`{NETWORKS}` must have been trained on the same subjects. Received: {name} with "
                "others than "
                f"{request.names[0]}. Analyze each on its own."
            )
