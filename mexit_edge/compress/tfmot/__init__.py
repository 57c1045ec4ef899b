"""Pruning, clustering and quantization-aware training through TensorFlow Model Optimization.

That package knows Keras 2 and 2-D convolutions only: networks are rebuilt in tf_keras (`bridge`), trained
there, and come back as networks of Keras 3 with the same architecture and names.
"""

from mexit_edge.compress.tfmot.bridge import Bridged, bridge
from mexit_edge.compress.tfmot.clustering import cluster
from mexit_edge.compress.tfmot.pruning import keep_zeros, prune
from mexit_edge.compress.tfmot.quantization import tfmot_quantize_aware

__all__ = ["Bridged", "bridge", "cluster", "keep_zeros", "prune", "tfmot_quantize_aware"]
