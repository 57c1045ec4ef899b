"""`mexit export`: a trained network as a bundle of int8 stages, or as one .tflite of another kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mexit_edge.bundle import Bundle
from mexit_edge.cli.inspect_network import load_saved
from mexit_edge.cli.progress import JobProgress
from mexit_edge.cli.settings import BUNDLES
from mexit_edge.cli.tables import console, print_json, stage_table
from mexit_edge.data import dataset, load, split_by_subject
from mexit_edge.errors import InputError
from mexit_edge.files import free_name, refuse_existing, write_bytes
from mexit_edge.runtime import CaughtStderr
from mexit_edge.signals import Windows


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """The options of `mexit export`.

    Args:
        network: a .keras file of a multi-exit network.
        data: name of the data set that it was trained on.
        quantization: name of a kind.
        per_channel: whether weights have a scale per output channel.
        seed: of the choice of representative windows, and of the split where the network does not know its
            training subjects.
        out: what to write; None for a new name.
        overwrite: whether something of that name may be replaced.
    """

    network: Path
    data: str
    quantization: str = "int8"
    per_channel: bool = True
    seed: int = 0
    out: Path | None = None
    overwrite: bool = False


def export_and_print(settings: ExportSettings, *, as_json: bool) -> None:
    """Quantize a network, write the result and print what it is.

    Raises:
        InputError: an option is wrong, the file holds no multi-exit network, or it cannot be quantized so.
        RunError: the converter crashed.
    """
    screen = console(quiet=as_json)
    progress = JobProgress(screen)
    dataset(settings.data)
    with progress.step("Loading TensorFlow and the network"), CaughtStderr():
        from mexit_edge.compress import Quantization

        quantization = Quantization(settings.quantization, per_channel=settings.per_channel)
        is_bundle = quantization.kind == "int8"
        target = _target(settings, is_bundle)
        model = load_saved(settings.network)
    with progress.step(f"Reading {settings.data} and cutting windows"):
        windows = training_windows(model, settings)
    if is_bundle:
        facts = _export_bundle(settings, model, windows, quantization, target, progress)
    else:
        facts = _export_model(settings, model, windows, quantization, target, progress)
    if as_json:
        print_json(facts)
        return
    if is_bundle:
        screen.print(stage_table(Bundle.load(target).manifest))
        screen.print("The bundle has no policy yet: `mexit_edge.calibrate` sets one.")
    screen.print(f"{facts['kind']}, {facts['bytes']:,} bytes: {target}", markup=False, soft_wrap=True)


def training_windows(model: Any, settings: ExportSettings) -> Windows:
    """Return the windows that ranges may be observed on: those of the subjects the network was trained on.

    A network that does not know them gets those that `mexit train` would train on with the same seed.

    Raises:
        InputError: the network was trained on another data set, or the data set lacks its subjects.
    """
    windows = load(settings.data)
    provenance = getattr(model, "provenance", None)
    if provenance is None or not provenance.train_subjects:
        return split_by_subject(windows, dataset(settings.data).standard_test, seed=settings.seed).train
    if provenance.data not in (None, settings.data):
        raise InputError(
            "`--data` must be the data set that the network was trained on, "
            f"{provenance.data!r}. Received: {settings.data!r}."
        )
    return windows.of_subjects(provenance.train_subjects)


def _target(settings: ExportSettings, is_bundle: bool) -> Path:
    """Return what to write, after checking that it may be written."""
    suffix = ".mexit" if is_bundle else ".tflite"
    target = settings.out or free_name(BUNDLES / f"{settings.data}{suffix}")
    if is_bundle:
        return Bundle.check_target(target, overwrite=settings.overwrite)
    if target.suffix != suffix:
        raise InputError(
            f"`--out` must end in .tflite for the quantization {settings.quantization!r}; only int8 gives a "
            f"bundle. Received: {target}."
        )
    refuse_existing(target, overwrite=settings.overwrite)
    return target


def _export_bundle(
    settings: ExportSettings,
    model: Any,
    windows: Windows,
    quantization: Any,
    target: Path,
    progress: JobProgress,
) -> dict[str, Any]:
    from mexit_edge.compress import export

    with progress.step("Quantizing to int8 as one model, and cutting it into stages"):
        bundle = export(
            model, windows, quantization=quantization, name=settings.network.stem, seed=settings.seed
        )
        bundle.save(target, overwrite=settings.overwrite)
    return {
        "kind": quantization.kind,
        "per_channel": quantization.per_channel,
        "bytes": sum(stage.flash_bytes for stage in bundle.manifest.stages),
        "bundle": str(target),
        "stages": [stage.model_dump(mode="json") for stage in bundle.manifest.stages],
    }


def _export_model(
    settings: ExportSettings,
    model: Any,
    windows: Windows,
    quantization: Any,
    target: Path,
    progress: JobProgress,
) -> dict[str, Any]:
    from mexit_edge.compress import convert, representative_sample

    normalisation = getattr(model, "normalisation", None)
    with progress.step(f"Converting to {quantization.kind} as one model"):
        x = representative_sample(windows, seed=settings.seed).x
        x = x if normalisation is None else normalisation.apply(x)
        content = convert(getattr(model, "network", model), x, quantization)
        write_bytes(target, content, overwrite=settings.overwrite)
    return {
        "kind": quantization.kind,
        "per_channel": quantization.per_channel,
        "bytes": len(content),
        "model": str(target),
    }
