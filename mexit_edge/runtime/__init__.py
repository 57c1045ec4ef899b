"""The on-device loop in Python: run stage k, score, stop or go on. No TensorFlow from here on."""

from mexit_edge.runtime.engines import ENGINES, LoadedModel, available_engines, open_model, reference_engine
from mexit_edge.runtime.input import FixedPointArithmetic, InputQuantizer, fixed_point_affine
from mexit_edge.runtime.loop import BatchResult, Decision, Runtime
from mexit_edge.runtime.native import CaughtStderr
from mexit_edge.runtime.parity import ExitParity, staged_against_whole, verify_golden
from mexit_edge.runtime.tflm import arena_bytes

__all__ = [
    "ENGINES",
    "BatchResult",
    "CaughtStderr",
    "Decision",
    "ExitParity",
    "FixedPointArithmetic",
    "InputQuantizer",
    "LoadedModel",
    "Runtime",
    "arena_bytes",
    "available_engines",
    "fixed_point_affine",
    "open_model",
    "reference_engine",
    "staged_against_whole",
    "verify_golden",
]
