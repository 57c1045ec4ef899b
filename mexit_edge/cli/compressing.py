"""What `mexit prune` and `mexit cluster` have in common: a trained network in, a compressed one out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from mexit_edge.cli.inspect_network import check_saved, load_saved
from mexit_edge.cli.progress import JobProgress
from mexit_edge.cli.tables import console, print_json
from mexit_edge.cli.training_windows import WindowsSource, training_windows
from mexit_edge.errors import InputError, MissingExtraError
from mexit_edge.files import free_name, refuse_existing, refuse_unwritable, write_bytes
from mexit_edge.runtime import CaughtStderr
from mexit_edge.signals import Windows

# Module -> extra of what is imported later.
MODULES = {
    "tensorflow": "train",
    "keras": "train",
    "tf_keras": "compress",
    "tensorflow_model_optimization": "compress",
}


@dataclass(frozen=True, kw_only=True)
class CompressSettings:
    """The options of `mexit prune` and `mexit cluster`.

    Args:
        network: a .keras file of a multi-exit network.
        source: of the windows to fine-tune with.
        epochs: of the fine-tuning.
        learning_rate: at the start.
        seed: of the fine-tuning.
        out: what to write; None for a new name.
        overwrite: whether a file of that name may be replaced.
    """

    network: Path
    source: WindowsSource
    epochs: int
    learning_rate: float
    seed: int = 0
    out: Path | None = None
    overwrite: bool = False

    def fine_tuning(self, *, quiet: bool) -> dict[str, Any]:
        """Return the options of the fine-tuning, as the functions of the compress room take them."""
        return {
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "verbose": 0 if quiet else 2,
        }


def compress_and_print(
    settings: CompressSettings, done: str, compress: Callable[[Any, Windows], Any], *, as_json: bool
) -> None:
    """Load a network, compress it, write it and print what its kernels hold.

    Args:
        settings: checked by what they are used for.
        done: what happens to the network, as a participle; part of the file's name.
        compress: takes the network and its training windows, gives one of the same kind.
        as_json: whether to print JSON.

    Raises:
        InputError: an option is wrong, or the file holds no multi-exit network.
        MissingExtraError: an extra is not installed.
    """
    for module, extra in MODULES.items():
        if find_spec(module) is None:
            raise MissingExtraError(module, extra)
    progress = JobProgress(console(quiet=as_json))
    target = settings.out or free_name(Path(f"{settings.network.stem}-{done}.keras"))
    if target.suffix != ".keras":
        raise InputError(f"`--out` must end in .keras. Received: {target}.")
    refuse_existing(target, overwrite=settings.overwrite)
    refuse_unwritable(target)
    check_saved(settings.network)
    with progress.step("Loading TensorFlow and the network"), CaughtStderr():
        from mexit_edge.compress import kernel_facts, sparsity, zipped_bytes

        model = load_saved(settings.network)
    with progress.step(f"Reading windows of {settings.source.name}"):
        windows, said = training_windows(model, settings.source)
    progress.screen.print(f"Fine-tuned with {said}", markup=False, soft_wrap=True)
    before = zipped_bytes(_weights(model))
    with progress.step("Fine-tuning"):
        made = compress(model, windows)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "network.keras"
        made.save(fresh)
        write_bytes(target, fresh.read_bytes(), overwrite=settings.overwrite)
    network = getattr(made, "network", made)
    kernels, after = kernel_facts(network), zipped_bytes(_weights(made))
    if as_json:
        rows = [{**asdict(one), "sparsity": one.sparsity} for one in kernels]
        print_json(
            {
                "network": str(target),
                "windows": said,
                "sparsity": sparsity(network),
                "zipped_float32_weight_bytes": {"before": before, "after": after},
                "kernels": rows,
            }
        )
        return
    progress.screen.print(kernel_table(kernels))
    progress.screen.print(f"{sparsity(network):.1%} of all kernels' weights are zero.")
    progress.screen.print(f"All weights as float32, zipped: {before:,} -> {after:,} bytes.")
    progress.screen.print(f"Network: {target}", markup=False, soft_wrap=True)


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
