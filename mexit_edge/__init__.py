"""mexit_edge: sensor recordings in, a bundle of int8 stage models with one exit rule out.

The public names below are loaded when they are first used, so that importing the package costs nothing and
never loads TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mexit_edge import (
        analysis,
        bundle,
        compress,
        data,
        estimate,
        exits,
        models,
        regimes,
        report,
        runtime,
        signals,
    )
    from mexit_edge.bundle import Bundle
    from mexit_edge.compress import export
    from mexit_edge.estimate import estimate_bundle
    from mexit_edge.models import attach_exits
    from mexit_edge.regimes import MultiExitModel
    from mexit_edge.runtime import Runtime
    from mexit_edge.signals import Recording, Sensor, Windows
    from mexit_edge.simulate import calibrate, play, simulate

_ROOMS = (
    "analysis",
    "bundle",
    "compress",
    "data",
    "estimate",
    "exits",
    "models",
    "regimes",
    "report",
    "runtime",
    "signals",
)
_NAMES = {
    "Bundle": "bundle",
    "MultiExitModel": "regimes",
    "Recording": "signals",
    "Runtime": "runtime",
    "Sensor": "signals",
    "Windows": "signals",
    "attach_exits": "models",
    "calibrate": "simulate",
    "estimate_bundle": "estimate",
    "export": "compress",
    "play": "simulate",
    "simulate": "simulate",
}

__all__ = [
    "Bundle",
    "MultiExitModel",
    "Recording",
    "Runtime",
    "Sensor",
    "Windows",
    "__version__",
    "analysis",
    "attach_exits",
    "bundle",
    "calibrate",
    "compress",
    "data",
    "estimate",
    "estimate_bundle",
    "exits",
    "export",
    "models",
    "play",
    "regimes",
    "report",
    "runtime",
    "signals",
    "simulate",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    if name in _NAMES:
        return getattr(_room(_NAMES[name]), name)
    if name in _ROOMS:
        return _room(name)
    raise AttributeError(f"module 'mexit_edge' has no attribute {name!r}")


def _room(name: str) -> ModuleType:
    """Import a room; where it needs TensorFlow and there is none, say which extra brings it."""
    try:
        return import_module(f"mexit_edge.{name}")
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "keras"):
            raise
        from mexit_edge.errors import MissingExtraError

        raise MissingExtraError("TensorFlow with Keras", "train") from error


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
