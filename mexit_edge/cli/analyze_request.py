"""What `mexit analyze` is asked for, and the networks and windows that it is about."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mexit_edge.cli.keras_file import check_saved, load_saved
from mexit_edge.cli.progress import JobProgress
from mexit_edge.cli.settings import RUNS, refuse_file_name
from mexit_edge.cli.training_windows import WindowsSource, training_windows
from mexit_edge.errors import InputError, MissingExtraError, unknown_name
from mexit_edge.files import free_name, refuse_existing, refuse_unwritable
from mexit_edge.runtime import CaughtStderr
from mexit_edge.signals import Windows

GRADIENTS, CONNECTIVITY, LANDSCAPE = "gradients", "connectivity", "landscape"
RANK, INFORMATION = "rank", "information"
ANALYSES = (GRADIENTS, CONNECTIVITY, LANDSCAPE, RANK, INFORMATION)
NETWORKS = "NETWORK.keras"
PAGE = "page.html"
# Module -> extra of what is imported later; `check_saved` looks for TensorFlow and Keras.
_MODULES = {"sklearn": "train", "matplotlib": "report", "jinja2": "report"}
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
                or what stands at the folder's place is not to be replaced.
            MissingExtraError: an extra is not installed.
        """
        for module, extra in _MODULES.items():
            if find_spec(module) is None:
                raise MissingExtraError(module, extra)
        for name in self.what or ():
            if name not in ANALYSES:
                raise unknown_name("--what", name, ANALYSES)
        if self.what is not None and CONNECTIVITY in self.what and not self.can_connect:
            raise InputError(
                f"`{NETWORKS}` must be two or three for connectivity. Received: {len(self.networks)}. "
                "Name the networks to go between, or leave connectivity out of `--what`."
            )
        refuse_file_name(self.out, "a folder")
        refuse_unwritable(self.target)
        refuse_existing(self.target, overwrite=self.overwrite)
        refuse_foreign(self.target)
        for path in self.networks:
            check_saved(path, NETWORKS)

    @property
    def can_connect(self) -> bool:
        """Whether there are as many networks as a line or a plane goes through."""
        return len(self.networks) in (2, 3)

    @property
    def wants_information(self) -> bool:
        """Whether windows are needed that probes are judged on."""
        return self.what is None or INFORMATION in self.what

    @property
    def target(self) -> Path:
        """The folder to write; without `out` a name that is free at this moment."""
        return free_name(RUNS / f"analysis-{self.networks[-1].stem}") if self.out is None else self.out

    @property
    def names(self) -> tuple[str, ...]:
        """A distinct name per network: of the file where that tells them apart, else its place too."""
        stems = [path.stem for path in self.networks]
        times = Counter(stems)
        return tuple(
            stem if times[stem] == 1 else f"{stem} ({number})" for number, stem in enumerate(stems, start=1)
        )


def refuse_foreign(folder: Path) -> None:
    """Refuse to replace anything but an earlier analysis, or an empty folder: somebody's networks, say.

    Raises:
        InputError: names what else stands there.
    """
    if not folder.exists():
        return
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [folder.name]
    others = [name for name in held if name not in (PAGE, *(f"{table}.csv" for table in ANALYSES))]
    if not folder.is_dir() or others or (held and PAGE not in held):
        raise InputError(
            f"`--out` must be a new folder, or one that holds an earlier analysis and nothing else. "
            f"Received: {folder} with {', '.join((others or held)[:3])}. Choose another name."
        )


@dataclass(frozen=True, eq=False)
class Loaded:
    """Networks and windows to analyze.

    Args:
        models: per file, a `MultiExitModel` or a functional network.
        windows: of the subjects that all of them were trained on, labelled.
        probed: of these, what probes are fitted on.
        judging: of other subjects, what probes are judged on; None where there is nobody else, or where
            information is not wanted.
        said: whose windows they are, as a sentence.
        said_of_judging: whose windows judge the probes, as a sentence; None where they are not wanted.
    """

    models: tuple[Any, ...]
    windows: Windows
    probed: Windows
    judging: Windows | None
    said: str
    said_of_judging: str | None


def load(request: AnalyzeRequest, progress: JobProgress) -> Loaded:
    """Read networks and windows.

    Args:
        request: checked.
        progress: shows the steps.

    Raises:
        InputError: a file holds no multi-exit network or weights that are not finite, they differ in
            structure, normalisation or training subjects, or windows do not fit.
    """
    with progress.step("Loading TensorFlow and the networks"), CaughtStderr():
        models = tuple(load_saved(path, NETWORKS) for path in request.networks)
        from mexit_edge.analysis.inputs import network_of, require_finite, shown
        from mexit_edge.analysis.weight_space import refuse_unlike
        from mexit_edge.models.heads import exit_names

        exit_names(network_of(models[0]), NETWORKS)
        refuse_unlike(models, NETWORKS)
        for model in models:
            require_finite(network_of(model), NETWORKS)
    refuse_other_subjects(request.names, models)
    with progress.step(f"Reading windows of {request.source.name}"):
        windows, said = training_windows(models[0], request.source)
        windows = windows.take(windows.labelled)
        wanted = request.wants_information
        validation = _validation_windows(models[0], request.source) if wanted else None
    if not len(windows):
        raise InputError("`--windows` must hold labelled windows. Received: none. Add their classes as `y`.")
    for given in (windows, validation):
        if given is not None and len(given):
            shown(models[0], given)
    if not wanted:
        return Loaded(models, windows, windows, None, said, None)
    return _with_judging(request, models, windows, said, validation)


def _with_judging(
    request: AnalyzeRequest, models: tuple[Any, ...], windows: Windows, said: str, validation: Windows | None
) -> Loaded:
    if validation is not None and len(validation) and not set(validation.subjects) & set(windows.subjects):
        whose = (
            f"Probes: judged on the {len(validation.subjects)} validation subjects of the training, which "
            "early stopping may have looked at."
        )
        return Loaded(models, windows, windows, validation, said, whose)
    subjects = windows.subjects
    if len(subjects) < 2:
        return Loaded(models, windows, windows, None, said, "No probes: the windows are of one subject.")
    drawn = np.random.default_rng(request.seed).permutation(subjects)[: max(1, len(subjects) // _JUDGING)]
    apart = np.isin(windows.subject, drawn)
    whose = (
        f"Probes: judged on {len(drawn)} of the {len(subjects)} subjects, which the network itself may have "
        "been trained on."
    )
    return Loaded(models, windows, windows.take(~apart), windows.take(apart), said, whose)


def _validation_windows(model: Any, source: WindowsSource) -> Windows | None:
    """Return the labelled windows of the network's validation subjects; None where there are none."""
    provenance = getattr(model, "provenance", None)
    if provenance is None or not provenance.validation_subjects:
        return None
    try:
        windows, _ = training_windows(model, source, subjects=tuple(provenance.validation_subjects))
    except InputError:
        # A file of one's own need not hold them.
        return None
    return windows.take(windows.labelled)


def refuse_other_subjects(names: tuple[str, ...], models: tuple[Any, ...]) -> None:
    """Refuse networks that disagree on data or subjects: what one was trained on may test another.

    Raises:
        InputError: says which of them differs from the first, and in what.
    """
    first = _origin(models[0])
    for name, model in zip(names, models, strict=True):
        for what, here, there in zip(("data", "training subjects", "validation subjects"), first,
                                     _origin(model), strict=True):  # fmt: skip
            if here != there:
                raise InputError(
                    f"`{NETWORKS}` must have the same data, training and validation subjects. "
                    f"Received: {name} with other {what} than {names[0]}. Analyze each on its own."
                )


def _origin(model: Any) -> tuple[Any, ...]:
    provenance = getattr(model, "provenance", None)
    if provenance is None:
        return None, set(), set()
    return provenance.data, set(provenance.train_subjects), set(provenance.validation_subjects)
