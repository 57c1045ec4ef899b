"""The on-device loop in Python: run stage k, score, stop or go on. No TensorFlow from here on."""

from mexit_edge.runtime.engine_parity import (
    ROUNDING_STEPS,
    DifferingDecision,
    EngineParity,
    GoldenParity,
    TensorParity,
    compare_engines,
    verify_golden_tensors,
)
from mexit_edge.runtime.engines import ENGINES, LoadedModel, available_engines, open_model, reference_engine
from mexit_edge.runtime.input import FixedPointArithmetic, InputQuantizer, fixed_point_affine
from mexit_edge.runtime.loop import BatchResult, Decision, Runtime
from mexit_edge.runtime.native import CaughtStderr
from mexit_edge.runtime.parity import ExitParity, staged_against_whole, verify_golden
from mexit_edge.runtime.staged import CutParity, cut_parity, run_stages, run_whole
from mexit_edge.runtime.suspended import Suspended
from mexit_edge.runtime.tflm import arena_bytes

__all__ = [
    "ENGINES",
    "ROUNDING_STEPS",
    "BatchResult",
    "CaughtStderr",
    "CutParity",
    "Decision",
    "DifferingDecision",
    "EngineParity",
    "ExitParity",
    "FixedPointArithmetic",
    "GoldenParity",
    "InputQuantizer",
    "LoadedModel",
    "Runtime",
    "Suspended",
    "TensorParity",
    "arena_bytes",
    "available_engines",
    "compare_engines",
    "cut_parity",
    "fixed_point_affine",
    "open_model",
    "reference_engine",
    "run_stages",
    "run_whole",
    "staged_against_whole",
    "verify_golden",
    "verify_golden_tensors",
]
