"""The bundle: int8 stage models, one exit rule, and what is known about both. Trusts nothing it reads."""

from mexit_edge.bundle.bundle import Bundle
from mexit_edge.bundle.card import model_card
from mexit_edge.bundle.crossings import Crossing, crossings
from mexit_edge.bundle.golden import Golden
from mexit_edge.bundle.policy import (
    Calibration,
    ControllerSpec,
    GateSpec,
    Policy,
    RiskSpec,
    SupportSpec,
    TemperatureSpec,
    TemporalSpec,
)
from mexit_edge.bundle.policy_file import PolicyFile, load_policy, save_policy
from mexit_edge.bundle.schema import (
    ENGINES,
    SCHEMA_VERSION,
    ExitQuality,
    FixedPointInput,
    GoldenSpec,
    InputSpec,
    Manifest,
    NormalisationSpec,
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
    "ControllerSpec",
    "Crossing",
    "ExitQuality",
    "FixedPointInput",
    "GateSpec",
    "Golden",
    "GoldenSpec",
    "InputSpec",
    "Manifest",
    "NormalisationSpec",
    "Policy",
    "PolicyFile",
    "PolicyQuality",
    "Quality",
    "RiskSpec",
    "SensorSpec",
    "StageSpec",
    "SupportSpec",
    "TemperatureSpec",
    "TemporalSpec",
    "TensorSpec",
    "Training",
    "crossings",
    "load_policy",
    "model_card",
    "save_policy",
]
