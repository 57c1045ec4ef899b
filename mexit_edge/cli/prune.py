"""`mexit prune`: a trained network with a share of every kernel set to zero."""

from __future__ import annotations

from typing import Any

from mexit_edge.cli.compressing import CompressSettings, compress_and_print
from mexit_edge.errors import InputError
from mexit_edge.signals import Windows


def prune_and_print(settings: CompressSettings, sparsity: float, *, as_json: bool) -> None:
    """Prune a network, write it and print what its kernels hold; see `mexit_edge.compress.prune`.

    Raises:
        InputError: an option is wrong, or the file holds no multi-exit network.
        MissingExtraError: an extra is not installed.
    """
    if not 0 < sparsity < 1:
        raise InputError(f"`--sparsity` must be a share between 0 and 1. Received: {sparsity}.")

    def compress(model: Any, windows: Windows) -> Any:
        from mexit_edge.compress import prune

        return prune(model, windows, sparsity=sparsity, **settings.tfmot_options(quiet=as_json))

    compress_and_print(settings, "pruned", compress, as_json=as_json)
