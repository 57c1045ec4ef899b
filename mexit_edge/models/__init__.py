"""Multi-exit networks: backbones by name, and exits attached to any functional Keras model."""

from mexit_edge.models.attach import attach_exits
from mexit_edge.models.build import BACKBONES, build

__all__ = ["BACKBONES", "attach_exits", "build"]
