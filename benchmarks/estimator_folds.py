"""What is visible when published rows are predicted: one fold maker per setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from mlperf import Result
from numpy.typing import NDArray

from mexit_edge.estimate.latency.population import Measurement

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Fold:
    """What is visible when some rows are predicted.

    Args:
        name: of what is hidden; folds of one name share their spreads.
        learned_on: rows that the spreads are chosen on.
        known: rows that count as known.
        hidden: rows to predict.
    """

    name: str
    learned_on: Indices
    known: Indices
    hidden: Indices


class Rows:
    """The rows that count, with the labels by which they are hidden."""

    def __init__(self, results: Sequence[Result], measured: Sequence[Measurement]) -> None:
        self.results, self.measured = tuple(results), tuple(measured)
        self.model = np.array([one.model for one in results], dtype=object)
        self.board = np.array([one.system.board for one in results], dtype=object)
        self.system = np.array([one.system.name for one in results], dtype=object)
        self.all = np.arange(len(self.results))

    def where(self, *conditions: NDArray[np.bool_]) -> Indices:
        """Return the rows for which all conditions hold."""
        return np.flatnonzero(np.logical_and.reduce(conditions))


def model_hidden(rows: Rows) -> Iterator[Fold]:
    """Hide one model on every board; the board's other models are known."""
    for model in np.unique(rows.model):
        visible = rows.where(rows.model != model)
        yield Fold(f"without {model}", visible, visible, rows.where(rows.model == model))


def one_measured(rows: Rows) -> Iterator[Fold]:
    """Hide a board but for one model of one system; other boards tell of the model too."""
    return _some_measured(rows, lambda own: ([one] for one in own))


def three_measured(rows: Rows) -> Iterator[Fold]:
    """Hide a board but for all models but one of one system."""
    return _some_measured(rows, lambda own: (np.delete(own, place) for place in range(len(own))), at_least=3)


def board_hidden(rows: Rows) -> Iterator[Fold]:
    """Hide a board; other boards tell of the model."""
    for board in np.unique(rows.board):
        visible = rows.where(rows.board != board)
        yield Fold(f"without {board}", visible, visible, rows.where(rows.board == board))


def board_and_model_hidden(rows: Rows) -> Iterator[Fold]:
    """Hide a board, and the predicted model on every other one."""
    for board in np.unique(rows.board):
        for model in np.unique(rows.model):
            visible = rows.where(rows.board != board, rows.model != model)
            hidden = rows.where(rows.board == board, rows.model == model)
            yield Fold(f"without {board} and {model}", visible, visible, hidden)


def one_measured_model_hidden(rows: Rows) -> Iterator[Fold]:
    """As one measured, and the predicted model is hidden on every other board too: a user's own network."""
    for fold in board_and_model_hidden(rows):
        for row in fold.hidden:
            others = rows.where(rows.system == rows.system[row], rows.model != rows.model[row])
            for other in others:
                yield replace(fold, known=np.append(fold.known, other), hidden=np.array([row]))


def _some_measured(rows: Rows, choose: Callable[[Indices], Any], at_least: int = 1) -> Iterator[Fold]:
    for fold in board_hidden(rows):
        for system in dict.fromkeys(rows.system[fold.hidden]):
            own = rows.where(rows.system == system)
            for known in choose(own):
                if len(known) >= at_least:
                    yield replace(fold, known=np.append(fold.known, known), hidden=np.setdiff1d(own, known))
