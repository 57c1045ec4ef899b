"""What the commands that fine-tune a trained network have in common: one .keras in, another one out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from mexit_edge.cli.keras_file import check_saved, load_saved
from mexit_edge.cli.progress import JobProgress
from mexit_edge.cli.settings import refuse_not_positive
from mexit_edge.cli.tables import console, print_json
from mexit_edge.cli.training_windows import WindowsSource, training_windows
from mexit_edge.errors import InputError, MissingExtraError
from mexit_edge.files import free_name, refuse_existing, refuse_unwritable, written_whole
from mexit_edge.runtime import CaughtStderr
from mexit_edge.signals import Windows

# Module -> extra of what is imported later.
TRAINING_MODULES = {"tensorflow": "train", "keras": "train"}
TFMOT_MODULES = {**TRAINING_MODULES, "tf_keras": "compress", "tensorflow_model_optimization": "compress"}


@dataclass(frozen=True, kw_only=True)
class CompressSettings:
    """The options of `mexit prune`, `mexit cluster` and `mexit quantize-aware`.

    Args:
        network: a .keras file of a multi-exit network.
        source: of the windows to fine-tune with.
        epochs: of the fine-tuning; None where the network tells.
        learning_rate: at the start; None for the default of the method.
        seed: of the fine-tuning.
        out: what to write; None for a new name.
        overwrite: whether a file of that name may be replaced.

    Raises:
        InputError: the learning rate is not positive.
    """

    network: Path
    source: WindowsSource
    epochs: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    out: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        refuse_not_positive({"learning-rate": self.learning_rate})

    def tfmot_options(self, *, quiet: bool) -> dict[str, Any]:
        """Return the options of the fine-tuning, as `prune` and `cluster` of the compress room take them."""
        return {
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "verbose": 0 if quiet else 2,
        }


@dataclass(frozen=True, eq=False)
class Loaded:
    """A trained network, and what its fine-tuning needs.

    Args:
        model: a `MultiExitModel` or a functional network.
        windows: to fine-tune with.
        said: whose windows they are, as a sentence.
        target: what to write; nothing stands in the way.
    """

    model: Any
    windows: Windows
    said: str
    target: Path


def load_for_tuning(
    settings: CompressSettings,
    done: str,
    modules: Mapping[str, str],
    progress: JobProgress,
    check: Callable[[Any], None] = lambda model: None,
) -> Loaded:
    """Check everything that can be checked before, then load the network and its windows.

    Args:
        settings: of the command.
        done: what happens to the network, as a participle; part of the new file's name.
        modules: module -> extra of what is imported later.
        progress: shows the steps.
        check: refuses a network that the options do not fit, before its windows are read.

    Raises:
        InputError: an option is wrong, the file holds no network, or ``check`` refuses it.
        MissingExtraError: an extra is not installed.
    """
    for module, extra in modules.items():
        if find_spec(module) is None:
            raise MissingExtraError(module, extra)
    target = settings.out or free_name(Path(f"{settings.network.stem}-{done}.keras"))
    refuse_unwritable(target)
    if target.suffix != ".keras":
        raise InputError(
            f"`--out` must end in .keras. Received: {target}. Use {target.with_suffix('.keras')}."
        )
    refuse_existing(target, overwrite=settings.overwrite)
    check_saved(settings.network, "network")
    with progress.step("Loading TensorFlow and the network"), CaughtStderr():
        model = load_saved(settings.network, "network")
        check(model)
    with progress.step(f"Reading windows of {settings.source.name}"):
        windows, said = training_windows(model, settings.source)
    progress.screen.print(f"Fine-tuned with {said}", markup=False, soft_wrap=True)
    return Loaded(model, windows, said, target)


def save_network(model: Any, target: Path, *, overwrite: bool) -> None:
    """Write a .keras file whole."""
    with written_whole(target, overwrite=overwrite) as fresh:
        model.save(fresh)


def compress_and_print(
    settings: CompressSettings, done: str, compress: Callable[[Any, Windows], Any], *, as_json: bool
) -> None:
    """Load a network, compress it with TensorFlow Model Optimization, write it, print what its kernels hold.

    Args:
        settings: of the command.
        done: what happens to the network, as a participle; part of the file's name.
        compress: takes the network and its training windows, gives one of the same kind.
        as_json: whether to print JSON.

    Raises:
        InputError: an option is wrong, or the file holds no multi-exit network.
        MissingExtraError: an extra is not installed.
    """
    progress = JobProgress(console(quiet=as_json))
    loaded = load_for_tuning(settings, done, TFMOT_MODULES, progress)
    from mexit_edge.compress import kernel_facts, sparsity, zipped_bytes

    before = zipped_bytes(_weights(loaded.model))
    with progress.step("Fine-tuning"):
        made = compress(loaded.model, loaded.windows)
    save_network(made, loaded.target, overwrite=settings.overwrite)
    network = getattr(made, "network", made)
    kernels, after = kernel_facts(network), zipped_bytes(_weights(made))
    if as_json:
        rows = [{**asdict(one), "sparsity": one.sparsity} for one in kernels]
        print_json(
            {
                "network": str(loaded.target),
                "windows": loaded.said,
                "sparsity": sparsity(network),
                "zipped_float32_weight_bytes": {"before": before, "after": after},
                "kernels": rows,
            }
        )
        return
    progress.screen.print(kernel_table(kernels))
    progress.screen.print(f"{sparsity(network):.1%} of all kernels' weights are zero.")
    progress.screen.print(f"All weights as float32, zipped: {before:,} -> {after:,} bytes.")
    progress.screen.print(f"Network: {loaded.target}", markup=False, soft_wrap=True)


def _weights(model: Any) -> bytes:
    """Return all weights of a network one after another, as float32."""
    network = getattr(model, "network", model)
    return b"".join(np.asarray(one, np.float32).tobytes() for one in network.weights)


def kernel_table(kernels: Sequence[Any]) -> Table:
    """Return the facts of kernels as a table."""
    table = Table("layer", "kernel")
    for heading in ("weights", "zeros", "distinct values"):
        table.add_column(heading, justify="right")
    for one in kernels:
        table.add_row(one.layer, one.kernel, f"{one.elements:,}", f"{one.sparsity:.1%}", f"{one.distinct:,}")
    return table
