"""Where the weights of a network come from, noted while they learn."""

from __future__ import annotations

import logging
from typing import Any

import keras

from mexit_edge.signals import Windows

_logger = logging.getLogger(__name__)


class NoteProvenance(keras.callbacks.Callback):
    """Notes in the model's `provenance` what its weights have seen, once they have.

    The subjects after the first step and an epoch after each one: so a fit that fails before it begins leaves
    no trace, and one that is interrupted, stops early or writes checkpoints in between is noted as far as it
    came. Calibration refuses these subjects later.

    `Training` has one name for the data: that of the first data set stays, and the subjects of all fits are
    gathered under it. So what was seen is never forgotten, at the price that a number which stands for
    another person in a later data set is refused as well. Subjects of the later data set under its own name
    cannot be told from unseen ones, which the log says.

    Args:
        x: training data; only `Windows` know their subjects.
        validation_data: likewise.
    """

    def __init__(self, x: Any, validation_data: Any) -> None:
        super().__init__()
        both = {"train_subjects": x, "validation_subjects": validation_data}
        self._unnoted = {field: part for field, part in both.items() if isinstance(part, Windows)}

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the subjects, once."""
        for field, windows in self._unnoted.items():
            before = self.model.provenance
            data = before.data or windows.name
            if data != windows.name:
                _logger.warning(
                    "Trained on %r after %r: the provenance keeps the first name. Nothing will refuse to "
                    "calibrate or test on subjects of %r that were trained on.",
                    windows.name,
                    data,
                    windows.name,
                )
            subjects = tuple(sorted({*getattr(before, field), *windows.subjects}))
            self.model.provenance = before.model_copy(update={"data": data, field: subjects})
        self._unnoted = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the epoch."""
        before = self.model.provenance
        self.model.provenance = before.model_copy(update={"epochs": (before.epochs or 0) + 1})
