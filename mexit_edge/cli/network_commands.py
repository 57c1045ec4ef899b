"""The options of the commands on Keras networks: `mexit models`, `export`, and those that fine-tune one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mexit_edge.cli.options import (
    DEFAULTS,
    KNOWN,
    AsJson,
    FineTuningEpochs,
    FineTuningRate,
    FineTuningSeed,
    InputLimit,
    KerasOut,
    Overwrite,
    OwnWindows,
    SavedNetwork,
    TrainedOn,
)
from mexit_edge.cli.settings import BUNDLES, MAX_SEED

if TYPE_CHECKING:
    from mexit_edge.cli.compressing import CompressSettings


def models(
    data: Annotated[
        str | None, typer.Option(help=f"Measure anew for the windows of this data set. {KNOWN}")
    ] = None,
    window: Annotated[int | None, typer.Option(min=1, help="Measure anew: samples per window.")] = None,
    channels: Annotated[int | None, typer.Option(min=1, help="Measure anew: channels per sample.")] = None,
    classes: Annotated[int | None, typer.Option(min=2, help="Measure anew: number of classes.")] = None,
    backbone: Annotated[str | None, typer.Option(help=f"Only this network. {KNOWN}")] = None,
    preset: Annotated[str | None, typer.Option(help=f"Only this size. {KNOWN}")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what every network and size costs as int8 stages: parameters, MACs, bytes, arena."""
    from mexit_edge.cli.models import models_and_print

    models_and_print(data, (window, channels, classes), backbone, preset, as_json=as_json)


def export(
    network: SavedNetwork,
    data: TrainedOn = None,
    windows: OwnWindows = None,
    quantization: Annotated[
        str, typer.Option(help=f"Kind of numbers; any but int8 gives one .tflite. {KNOWN}")
    ] = "int8",
    io: Annotated[
        str | None,
        typer.Option(help=f"Type of inputs and outputs: float32, or that of the kind (default). {KNOWN}"),
    ] = None,
    per_tensor: Annotated[
        bool, typer.Option("--per-tensor", help="One scale per kernel instead of one per channel (int8).")
    ] = False,
    input_limit: InputLimit = None,
    keep_names: Annotated[
        bool, typer.Option("--keep-names", help="Keep tensor names, metadata and signatures in the stages.")
    ] = False,
    phone: Annotated[
        bool, typer.Option("--phone", help="Put phone.tflite into the bundle: all stages in one file.")
    ] = False,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_SEED,
            help="Of the choice of windows for ranges, and of a data set's split where the network knows no "
            "subjects.",
        ),
    ] = DEFAULTS.seed,
    out: Annotated[
        Path | None, typer.Option(help=f"Bundle or .tflite to write (default: a new name in {BUNDLES}/).")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Quantize a trained network: to a bundle of int8 stages without a policy, or to one .tflite."""
    from mexit_edge.cli.export import ExportSettings, export_and_print
    from mexit_edge.cli.training_windows import WindowsSource

    settings = ExportSettings(
        network=network,
        source=WindowsSource(data=data, windows=windows, seed=seed),
        quantization=quantization,
        io=io,
        per_channel=not per_tensor,
        input_limit=input_limit,
        keep_names=keep_names,
        phone=phone,
        seed=seed,
        out=out,
        overwrite=overwrite,
    )
    export_and_print(settings, as_json=as_json)


def prune(
    network: SavedNetwork,
    data: TrainedOn = None,
    windows: OwnWindows = None,
    sparsity: Annotated[float, typer.Option(help="Share of every kernel that becomes zero.")] = 0.5,
    epochs: FineTuningEpochs = 20,
    learning_rate: FineTuningRate = 1e-3,
    seed: FineTuningSeed = DEFAULTS.seed,
    out: KerasOut = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Set the smallest weights of a trained network to zero: a smaller file once it is compressed."""
    from mexit_edge.cli.prune import prune_and_print

    settings = _settings(network, data, windows, epochs, learning_rate, seed, out, overwrite)
    prune_and_print(settings, sparsity, as_json=as_json)


def cluster(
    network: SavedNetwork,
    data: TrainedOn = None,
    windows: OwnWindows = None,
    clusters: Annotated[int, typer.Option(min=3, help="Largest number of distinct values per kernel.")] = 16,
    epochs: FineTuningEpochs = 3,
    learning_rate: FineTuningRate = 1e-3,
    seed: FineTuningSeed = DEFAULTS.seed,
    out: KerasOut = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Give every kernel of a trained network few distinct values: a smaller file once it is compressed."""
    from mexit_edge.cli.cluster import cluster_and_print

    settings = _settings(network, data, windows, epochs, learning_rate, seed, out, overwrite)
    cluster_and_print(settings, clusters, as_json=as_json)


def quantize_aware(
    network: SavedNetwork,
    data: TrainedOn = None,
    windows: OwnWindows = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of the fine-tuning (default: a tenth of the training's).")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="At the start of the fine-tuning (default: a tenth of that of `mexit train`)."),
    ] = None,
    seed: FineTuningSeed = DEFAULTS.seed,
    out: KerasOut = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a trained network on the steps of int8, for `mexit export`, as --qat does after training."""
    from mexit_edge.cli.quantize_aware import quantize_aware_and_print

    settings = _settings(network, data, windows, epochs, learning_rate, seed, out, overwrite)
    quantize_aware_and_print(settings, as_json=as_json)


def _settings(
    network: Path,
    data: str | None,
    windows: Path | None,
    epochs: int | None,
    learning_rate: float | None,
    seed: int,
    out: Path | None,
    overwrite: bool,
) -> CompressSettings:
    """Return what all commands that fine-tune a network are given."""
    from mexit_edge.cli.compressing import CompressSettings
    from mexit_edge.cli.training_windows import WindowsSource

    return CompressSettings(
        network=network,
        source=WindowsSource(data=data, windows=windows, seed=seed),
        epochs=epochs,
        learning_rate=learning_rate,
        seed=seed,
        out=out,
        overwrite=overwrite,
    )
