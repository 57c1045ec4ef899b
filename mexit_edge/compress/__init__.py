"""Quantization, conversion to TFLite, and export to a bundle."""

from mexit_edge.compress.convert import convert
from mexit_edge.compress.export import bundle_from_whole, export, export_with_whole
from mexit_edge.compress.provenance import fine_tuned
from mexit_edge.compress.quantization import Quantization
from mexit_edge.compress.quantize_aware import fine_tuning_epochs, quantize_aware
from mexit_edge.compress.representative import representative_sample
from mexit_edge.compress.tfmot import cluster, keep_zeros, prune, tfmot_quantize_aware
from mexit_edge.compress.weights import KernelFacts, kernel_facts, sparsity, zipped_bytes

__all__ = [
    "KernelFacts",
    "Quantization",
    "bundle_from_whole",
    "cluster",
    "convert",
    "export",
    "export_with_whole",
    "fine_tuned",
    "fine_tuning_epochs",
    "keep_zeros",
    "kernel_facts",
    "prune",
    "quantize_aware",
    "representative_sample",
    "sparsity",
    "tfmot_quantize_aware",
    "zipped_bytes",
]
