"""Post-training int8 quantization, conversion to TFLite, and export to a bundle."""

from mexit_edge.compress.convert import convert_int8, representative_sample
from mexit_edge.compress.export import bundle_from_whole, export

__all__ = ["bundle_from_whole", "convert_int8", "export", "representative_sample"]
