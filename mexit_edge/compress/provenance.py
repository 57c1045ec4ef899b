"""What a bundle says of a network that was trained, and then made smaller."""

from __future__ import annotations

from mexit_edge.bundle import Training


def fine_tuned(training: Training, how: str) -> Training:
    """Return where a network came from, with what a fine-tuning did to it behind its regime.

    Args:
        training: of the network before.
        how: for example ``"quantization-aware"``.
    """
    return training.model_copy(update={"regime": ", ".join(filter(None, (training.regime, how)))})
