"""Read a TFLite flatbuffer, audit its operations and types, cut it into stages, make it batchable."""

from mexit_edge.tflite.audit import audit, audit_int8, is_integer
from mexit_edge.tflite.batch import batchable
from mexit_edge.tflite.cut import CutStage, cut_at, cut_at_exits, cut_at_positions, cut_into
from mexit_edge.tflite.extract import mended
from mexit_edge.tflite.graph import Graph, Operator, Tensor
from mexit_edge.tflite.liveness import alive_after
from mexit_edge.tflite.names import short_name, tensor_names
from mexit_edge.tflite.phone import phone_bundle, phone_model
from mexit_edge.tflite.points import CutPoint, cut_points

__all__ = [
    "CutPoint",
    "CutStage",
    "Graph",
    "Operator",
    "Tensor",
    "alive_after",
    "audit",
    "audit_int8",
    "batchable",
    "cut_at",
    "cut_at_exits",
    "cut_at_positions",
    "cut_into",
    "cut_points",
    "is_integer",
    "mended",
    "phone_bundle",
    "phone_model",
    "short_name",
    "tensor_names",
]
