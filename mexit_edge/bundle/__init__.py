"""The bundle: int8 stage models, one exit rule, and what is known about both. Trusts nothing it reads."""

from mexit_edge.bundle.bundle import Bundle
from mexit_edge.bundle.card import model_card
from mexit_edge.bundle.crossings import Crossing, crossings
from mexit_edge.bundle.golden import Golden
from mexit_edge.bundle.schema import (
    ENGINES,
    SCHEMA_VERSION,
    Calibration,
    ExitQuality,
    FixedPointInput,
    GoldenSpec,
    InputSpec,
    Manifest,
    NormalisationSpec,
    Policy,
    PolicyQuality,
    Quality,
    SensorSpec,
    StageSpec,
    TensorSpec,
    Training,
)

__all__ = [
    "ENGINES",
    "SCHEMA_VERSION",
    "Bundle",
    "Calibration",
    "Crossing",
    "ExitQuality",
    "FixedPointInput",
    "Golden",
    "GoldenSpec",
    "InputSpec",
    "Manifest",
    "NormalisationSpec",
    "Policy",
    "PolicyQuality",
    "Quality",
    "SensorSpec",
    "StageSpec",
    "TensorSpec",
    "Training",
    "crossings",
    "model_card",
]
