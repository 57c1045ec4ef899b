"""Early stopping for several exits."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.regimes.regime import require_positive, require_share

Snapshot = list[NDArray[Any]]


def eligible_from(phase_epochs: tuple[int, int], last_share: float) -> int:
    """Return the first epoch, from 0, that may be chosen.

    Args:
        phase_epochs: of the plan, first and one past the last.
        last_share: share of them, at the end, among which the best is chosen.
    """
    first, last = phase_epochs
    return first + int((last - first) * (1 - last_share) + 1e-9)


class MultiExitEarlyStopping(keras.callbacks.Callback):
    """Ends a phase when no exit improves any more, and goes back to its best epoch.

    One patience counter per exit of the phase, on the exit's validation loss; the phase ends when all have
    run out. The best epoch is the one with the lowest mean validation loss over these exits; where the
    backbone is frozen, each head goes back to its own best epoch. A regime of several phases goes on with the
    next. (The rule of arXiv 2407.14320, section 4, except that the paper's code keeps an epoch whenever any
    exit improves, which leaves "best" undefined.)

    Args:
        patience: epochs without an improvement of an exit after which it has run out; None to never end a
            phase early.
        min_delta: smallest improvement that counts for the counters.
        last_share: share of a phase's epochs, at its end, among which the best is chosen. Early in a
            schedule, at a high learning rate, a low loss on few validation subjects is chance: on HAPT with
            two such subjects the best epoch of all was 1 to 3 points of balanced accuracy worse than the last
            one on other held-out subjects.
        restore_best: whether to go back to the best epoch.

    Raises:
        InputError: an option is out of its range; in `fit`, there is no `validation_data`.
    """

    def __init__(
        self,
        patience: int | None = None,
        *,
        min_delta: float = 0.0,
        last_share: float = 1.0,
        restore_best: bool = True,
    ) -> None:
        super().__init__()
        if patience is not None and patience < 1:
            raise InputError(f"`patience` must be at least 1 epoch, or None. Received: {patience}.")
        require_share("last_share", last_share)
        require_positive("last_share", last_share)
        self.patience, self.min_delta = patience, min_delta
        self.last_share, self.restore_best = last_share, restore_best
        self._resumed: tuple[dict[str, Any], list[NDArray[Any]]] | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin a phase, or go on inside one."""
        self._weights = self._groups()
        self._best_loss = dict.fromkeys(self.model.active.exits, np.inf)
        self._waited = dict.fromkeys(self.model.active.exits, 0)
        self._best: dict[str, float] = dict.fromkeys(self._weights, np.inf)
        self._snapshots: dict[str, Snapshot] = {}
        if self._resumed is not None:
            self._take_up(*self._resumed)
            self._resumed = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare the epoch with the best so far."""
        losses = self._losses(logs or {})
        if epoch >= eligible_from(self.model.phase_epochs, self.last_share):
            for group, variables in self._weights.items():
                loss = losses[group] if group in losses else float(np.mean(list(losses.values())))
                if loss < self._best[group]:
                    self._best[group] = loss
                    self._snapshots[group] = [np.array(variable) for variable in variables]
        for exit_, loss in losses.items():
            improved = loss < self._best_loss[exit_] - self.min_delta
            self._waited[exit_] = 0 if improved else self._waited[exit_] + 1
            self._best_loss[exit_] = min(loss, self._best_loss[exit_])
        if self.patience is not None and min(self._waited.values()) >= self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Go back to the best epoch of the phase."""
        if not self.restore_best:
            return
        for group, arrays in self._snapshots.items():
            for variable, array in zip(self._weights[group], arrays, strict=True):
                variable.assign(array)

    def get_config(self) -> dict[str, Any]:
        """Return the options."""
        options = ("patience", "min_delta", "last_share", "restore_best")
        return {name: getattr(self, name) for name in options}

    def state(self) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        """Return what a checkpoint needs to go on from here: plain values, and arrays."""
        plain = {
            "best_loss": self._best_loss,
            "waited": self._waited,
            "best": self._best,
            "snapshots": {group: len(arrays) for group, arrays in self._snapshots.items()},
        }
        return plain, [array for arrays in self._snapshots.values() for array in arrays]

    def resume(self, plain: dict[str, Any], arrays: list[NDArray[Any]]) -> None:
        """Take the state of a checkpoint, to be used when training begins."""
        self._resumed = plain, arrays

    def _take_up(self, plain: dict[str, Any], arrays: list[NDArray[Any]]) -> None:
        self._best_loss, self._waited, self._best = plain["best_loss"], plain["waited"], plain["best"]
        rest = iter(arrays)
        self._snapshots = {
            group: [next(rest) for _ in range(number)] for group, number in plain["snapshots"].items()
        }

    def _groups(self) -> dict[str, list[Any]]:
        """Return what goes back together: each head alone on a frozen backbone, else all weights."""
        active, network = self.model.active, self.model.network
        heads = dict(zip(self.model.exits, self.model.anatomy.heads, strict=True))
        if active.only_heads_learn:
            return {
                exit_: [weight for name in heads[exit_] for weight in network.get_layer(name).weights]
                for exit_ in active.exits
            }
        return {"all": list(active.network.weights)}

    def _losses(self, logs: dict[str, Any]) -> dict[str, float]:
        names = {exit_: f"val_{exit_}_loss" for exit_ in self.model.active.exits}
        if not set(names.values()) <= set(logs):
            raise InputError(
                "`validation_data` must be given to `fit` in every epoch for MultiExitEarlyStopping. "
                f"Received: an epoch with {', '.join(sorted(logs)) or 'no figures'}."
            )
        return {exit_: float(logs[name]) for exit_, name in names.items()}
