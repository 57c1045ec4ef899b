"""Read a TFLite flatbuffer, audit its operations and types, cut it into stages, make it batchable."""

from mexit_edge.tflite.audit import audit_int8, is_int8
from mexit_edge.tflite.batch import batchable
from mexit_edge.tflite.cut import CutStage, cut_at_exits
from mexit_edge.tflite.graph import Graph, Operator, Tensor

__all__ = ["CutStage", "Graph", "Operator", "Tensor", "audit_int8", "batchable", "cut_at_exits", "is_int8"]
