"""Recordings, windows and what is done to them before a network sees them. NumPy only."""

from mexit_edge.signals.adapt import adapt
from mexit_edge.signals.faults import FAULTS, Fault, apply_faults, make_fault, parse_fault
from mexit_edge.signals.health import Health, WindowStatus
from mexit_edge.signals.normalisation import Normalisation
from mexit_edge.signals.perturbations import (
    ChannelScale,
    Jitter,
    Mirror,
    Perturbation,
    Rotation,
    Speed,
    apply_perturbations,
    inertial_perturbations,
    severity_strength,
)
from mexit_edge.signals.recording import Recording
from mexit_edge.signals.sensor import Sensor
from mexit_edge.signals.stream import Chunk, RecordingStream, Stream
from mexit_edge.signals.stream_windows import StreamWindows, WindowBatch
from mexit_edge.signals.windowing import cut_windows
from mexit_edge.signals.windows import UNLABELLED, Windows

__all__ = [
    "FAULTS",
    "UNLABELLED",
    "ChannelScale",
    "Chunk",
    "Fault",
    "Health",
    "Jitter",
    "Mirror",
    "Normalisation",
    "Perturbation",
    "Recording",
    "RecordingStream",
    "Rotation",
    "Sensor",
    "Speed",
    "Stream",
    "StreamWindows",
    "WindowBatch",
    "WindowStatus",
    "Windows",
    "adapt",
    "apply_faults",
    "apply_perturbations",
    "cut_windows",
    "inertial_perturbations",
    "make_fault",
    "parse_fault",
    "severity_strength",
]
