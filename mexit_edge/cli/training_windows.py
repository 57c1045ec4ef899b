"""Windows for a trained network: to observe its ranges on, or to fine-tune it with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mexit_edge.cli.settings import RunSettings
from mexit_edge.data import dataset, load, split_by_subject
from mexit_edge.data.windows_file import read_labelled
from mexit_edge.errors import InputError
from mexit_edge.signals import Windows


@dataclass(frozen=True, kw_only=True)
class WindowsSource:
    """Where the windows come from: a data set, or a file of one's own.

    Args:
        data: name of the data set that the network was trained on; None for the default one.
        windows: a .npz of raw training windows ``x`` (n, time, channels), labels ``y`` (n,) and, where they
            are known, ``subject`` (n,); None for a data set.
        seed: of the split of a data set, where the network does not know its training subjects.

    Raises:
        InputError: both are given, the data set is unknown, or there is no such file.
    """

    data: str | None = None
    windows: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.data is not None and self.windows is not None:
            raise InputError(
                "`--data` and `--windows` must not be given together. Received: both. Leave one out."
            )
        if self.windows is None:
            dataset(self.name)
        elif not self.windows.is_file():
            raise InputError(
                f"`--windows` must be a .npz of windows. Received: {self.windows}, no such file."
            )

    @property
    def name(self) -> str:
        """Name of the data set, or of the file without its suffix."""
        return self.windows.stem if self.windows is not None else self.data or RunSettings().data


def known_subjects(model: Any) -> tuple[int, ...]:
    """Return the subjects that a network, as `load_saved` returns it, knows it was trained on."""
    provenance = getattr(model, "provenance", None)
    return () if provenance is None else tuple(provenance.train_subjects)


def training_windows(
    model: Any, source: WindowsSource, *, subjects: tuple[int, ...] | None = None
) -> tuple[Windows, str]:
    """Return the windows that a network may be shown: those of the subjects that it was trained on.

    Of a data set, a network that does not know them gets those that `mexit train` would train on with the
    same seed; of a file, all.

    Args:
        model: as `load_saved` returns it.
        source: checked.
        subjects: others whose windows are wanted, such as those of its validation; None for those it knows
            it was trained on.

    Returns:
        The windows, and a sentence that says whose they are and how they are normalised.

    Raises:
        InputError: the network has several inputs, was trained on another data set, the windows lack its
            subjects or do not fit it, or the file is none.
    """
    _refuse_several_inputs(getattr(model, "network", model))
    known = known_subjects(model) if subjects is None else subjects
    if source.windows is not None:
        windows, whose = _of_file(model, source.windows, known)
    else:
        windows, whose = _of_data_set(source, getattr(model, "provenance", None), known)
    how = (
        "normalised as the network knows"
        if getattr(model, "normalisation", None) is not None
        else "not normalised, for the network knows no normalisation"
    )
    n_subjects = f"{len(known)} subject" + "s" * (len(known) != 1)
    whose = whose.format(trained=f"the {n_subjects} that the network was trained on")
    return windows, f"{len(windows):,} windows of {source.windows or source.name}: {whose}; {how}."


def _refuse_several_inputs(network: Any) -> None:
    """Refuse a network that windows of one array do not fit, before they are read."""
    names = [tensor.name for tensor in network.inputs]
    if len(names) > 1:
        raise InputError(
            "`network` must have one input, the window. "
            f"Received: {len(names)} ({', '.join(names)}). Join them with `mexit_edge.models.join_inputs`."
        )


def _of_data_set(source: WindowsSource, provenance: Any, known: tuple[int, ...]) -> tuple[Windows, str]:
    windows = load(source.name)
    if not known:
        split = split_by_subject(windows, dataset(source.name).standard_test, seed=source.seed)
        return (
            split.train,
            f"training subjects of the split with seed {source.seed}, as the network knows none",
        )
    if provenance.data not in (None, source.name):
        raise InputError(
            "`--data` must be the data set that the network was trained on, "
            f"{provenance.data!r}. Received: {source.name!r}. Give windows of your own with `--windows`."
        )
    return windows.of_subjects(known), "of {trained}"


def _of_file(model: Any, path: Path, known: tuple[int, ...]) -> tuple[Windows, str]:
    arrays = read_labelled(path)
    outputs = getattr(model, "network", model).outputs
    windows = Windows.from_arrays(
        arrays["x"],
        arrays["y"],
        arrays.get("subject"),
        classes=[f"class_{index}" for index in range(outputs[0].shape[-1])],
        name=path.stem,
    )
    if not known or "subject" not in arrays:
        return windows, "all of them, as their subjects are not known to be those of the training"
    of_training = windows.of_subjects(known)
    if not len(of_training):
        raise InputError(
            "`--windows` must hold windows of the subjects that the network was trained on, "
            f"{', '.join(map(str, known))}. Received: {', '.join(map(str, windows.subjects)) or 'none'}. "
            "Leave `subject` out of the file where its numbers mean others."
        )
    return of_training, "of {trained}"
