"""`mexit cluster`: a trained network with a handful of distinct values per kernel."""

from __future__ import annotations

from typing import Any

from mexit_edge.cli.compressing import CompressSettings, compress_and_print
from mexit_edge.signals import Windows


def cluster_and_print(settings: CompressSettings, clusters: int, *, as_json: bool) -> None:
    """Cluster a network, write it and print what its kernels hold; see `mexit_edge.compress.cluster`.

    Raises:
        InputError: an option is wrong, or the file holds no multi-exit network.
        MissingExtraError: an extra is not installed.
    """

    def compress(model: Any, windows: Windows) -> Any:
        from mexit_edge.compress import cluster

        return cluster(model, windows, clusters=clusters, **settings.tfmot_options(quiet=as_json))

    compress_and_print(settings, "clustered", compress, as_json=as_json)
