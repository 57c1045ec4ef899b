"""Recordings, windows and what is done to them before a network sees them. NumPy only."""

from mexit_edge.signals.normalisation import Normalisation
from mexit_edge.signals.perturbations import (
    ChannelScale,
    Jitter,
    Perturbation,
    Rotation,
    Speed,
    apply_perturbations,
    inertial_perturbations,
)
from mexit_edge.signals.recording import Recording
from mexit_edge.signals.sensor import Sensor
from mexit_edge.signals.windowing import cut_windows
from mexit_edge.signals.windows import UNLABELLED, Windows

__all__ = [
    "UNLABELLED",
    "ChannelScale",
    "Jitter",
    "Normalisation",
    "Perturbation",
    "Recording",
    "Rotation",
    "Sensor",
    "Speed",
    "Windows",
    "apply_perturbations",
    "cut_windows",
    "inertial_perturbations",
]
