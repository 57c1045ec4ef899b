"""Multi-exit networks: backbones by name, and exits attached to any functional Keras model."""

from mexit_edge.models.attach import attach_exits
from mexit_edge.models.build import BACKBONES, build
from mexit_edge.models.candidates import ExitCandidate, choose_exits, exit_candidates
from mexit_edge.models.heads import HEADS, make_head
from mexit_edge.models.join import join_inputs
from mexit_edge.models.layer_table import LayerRow, layer_table
from mexit_edge.models.presets import PRESETS

__all__ = [
    "BACKBONES",
    "HEADS",
    "PRESETS",
    "ExitCandidate",
    "LayerRow",
    "attach_exits",
    "build",
    "choose_exits",
    "exit_candidates",
    "join_inputs",
    "layer_table",
    "make_head",
]
