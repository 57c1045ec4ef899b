"""`mexit export`: a trained network as a bundle of int8 stages, or as one .tflite of another kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mexit_edge.bundle import Bundle
from mexit_edge.cli.keras_file import check_saved, load_saved
from mexit_edge.cli.progress import JobProgress
from mexit_edge.cli.settings import BUNDLES, refuse_file_name
from mexit_edge.cli.tables import console, print_json, stage_table
from mexit_edge.cli.training_windows import WindowsSource, training_windows
from mexit_edge.errors import InputError
from mexit_edge.files import free_name, refuse_existing, refuse_unwritable, write_bytes
from mexit_edge.runtime import CaughtStderr
from mexit_edge.signals import Windows


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """The options of `mexit export`.

    Args:
        network: a .keras file of a multi-exit network.
        source: of the windows on which the ranges of integer kinds are observed.
        quantization: name of a kind.
        io: type of inputs and outputs; None for that of the kind.
        per_channel: whether weights have a scale per output channel.
        input_limit: magnitude beyond which inputs saturate, after normalisation; None for the range of the
            windows.
        keep_names: whether the stages keep tensor names, metadata and a signature.
        phone: whether the bundle also holds all stages as signatures of one file.
        seed: of the choice of representative windows.
        out: what to write; None for a new name.
        overwrite: whether something of that name may be replaced.
    """

    network: Path
    source: WindowsSource
    quantization: str = "int8"
    io: str | None = None
    per_channel: bool = True
    input_limit: float | None = None
    keep_names: bool = False
    phone: bool = False
    seed: int = 0
    out: Path | None = None
    overwrite: bool = False

    @property
    def is_bundle(self) -> bool:
        """Whether the result is a bundle, which has int8 inputs and outputs, or one .tflite."""
        return self.quantization == "int8" and self.io in (None, "int8")


def export_and_print(settings: ExportSettings, *, as_json: bool) -> None:
    """Quantize a network, write the result and print what it is.

    Raises:
        InputError: an option is wrong, the file holds no multi-exit network, or it cannot be quantized so.
        RunError: the converter crashed.
    """
    screen = console(quiet=as_json)
    progress = JobProgress(screen)
    is_bundle = settings.is_bundle
    target = _target(settings)
    check_saved(settings.network, "network")
    with progress.step("Loading TensorFlow and the network"), CaughtStderr():
        from mexit_edge.compress import Quantization
        from mexit_edge.compress.convert import refuse_other_ranges
        from mexit_edge.compress.fake_quant import carries_ranges

        quantization = Quantization(
            settings.quantization, settings.io or "", settings.per_channel, settings.input_limit
        )
        if not is_bundle and (settings.keep_names or settings.phone):
            raise InputError(
                "`--keep-names` and `--phone` must come with int8, which alone gives stages. "
                f"Received: {quantization.kind!r} with {quantization.io} inputs and outputs. "
                "Use `mexit cut` on the .tflite."
            )
        model = load_saved(settings.network, "network")
    windows: Windows | None = None
    said: str | None = None
    own_ranges = carries_ranges(getattr(model, "network", model))
    if own_ranges:
        refuse_other_ranges(quantization)
        screen.print("The ranges of activations come with the network: none are observed.")
    # Of a bundle they say the sensor and the classes too.
    if quantization.is_integer and (is_bundle or not own_ranges):
        with progress.step(f"Reading windows of {settings.source.name}"):
            windows, said = training_windows(model, settings.source)
        if not own_ranges:
            screen.print(f"Ranges are observed on {said}", markup=False, soft_wrap=True)
    bundle: Bundle | None = None
    if windows is not None and is_bundle:
        bundle = _export_bundle(settings, model, windows, quantization, target, progress)
        facts = _bundle_facts(bundle, target)
    else:
        facts = _export_model(settings, model, windows, quantization, target, progress)
    facts = {
        "kind": quantization.kind,
        "per_channel": quantization.per_channel,
        "input_limit": quantization.input_limit,
        **facts,
    }
    if as_json:
        print_json({**facts, "windows": said})
        return
    if bundle is not None:
        screen.print(stage_table(bundle.manifest))
        screen.print("The bundle has no policy yet: `mexit_edge.calibrate` sets one.")
    screen.print(f"{facts['kind']}, {facts['bytes']:,} bytes: {target}", markup=False, soft_wrap=True)


def _target(settings: ExportSettings) -> Path:
    """Return what to write, after checking that it may be written."""
    suffix = ".mexit" if settings.is_bundle else ".tflite"
    target = settings.out or free_name(BUNDLES / f"{settings.source.name}{suffix}")
    if settings.is_bundle:
        refuse_file_name(
            settings.out, "a bundle, NAME.mexit or NAME.zip, which int8 gives (one .tflite: `--io float32`)"
        )
        return Bundle.check_target(target, overwrite=settings.overwrite)
    refuse_unwritable(target)
    if target.suffix != suffix:
        raise InputError(
            f"`--out` must end in .tflite for the quantization {settings.quantization!r} with "
            f"{settings.io or 'its own'} inputs and outputs; only int8 throughout gives a bundle. "
            f"Received: {target}."
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
) -> Bundle:
    from mexit_edge.compress import export
    from mexit_edge.tflite import phone_bundle

    with progress.step("Quantizing to int8 as one model, and cutting it into stages"):
        bundle = export(
            model,
            windows,
            quantization=quantization,
            name=settings.network.stem,
            keep_names=settings.keep_names,
            seed=settings.seed,
        )
        if settings.phone:
            bundle = bundle.with_phone(phone_bundle(bundle))
        bundle.save(target, overwrite=settings.overwrite)
    return bundle


def _bundle_facts(bundle: Bundle, target: Path) -> dict[str, Any]:
    return {
        "bytes": sum(stage.flash_bytes for stage in bundle.manifest.stages),
        "bundle": str(target),
        "stages": [stage.model_dump(mode="json") for stage in bundle.manifest.stages],
        "phone_sha256": bundle.manifest.phone_sha256,
    }


def _export_model(
    settings: ExportSettings,
    model: Any,
    windows: Windows | None,
    quantization: Any,
    target: Path,
    progress: JobProgress,
) -> dict[str, Any]:
    from mexit_edge.compress import convert, representative_sample

    normalisation = getattr(model, "normalisation", None)
    with progress.step(f"Converting to {quantization.kind} as one model"):
        x = None if windows is None else representative_sample(windows, seed=settings.seed).x
        x = x if x is None or normalisation is None else normalisation.apply(x)
        content = convert(getattr(model, "network", model), x, quantization)
        write_bytes(target, content, overwrite=settings.overwrite)
    return {
        "bytes": len(content),
        "model": str(target),
    }
