"""Scores of confidence, each with the integers that decide on a device."""

from mexit_edge.exits.scores.base import Exits, Score
from mexit_edge.exits.scores.definitions import float_scores
from mexit_edge.exits.scores.gate import Gate, fit_gates
from mexit_edge.exits.scores.registry import SCORES, make_scores, score_exits, score_kind, tempered

__all__ = [
    "SCORES",
    "Exits",
    "Gate",
    "Score",
    "fit_gates",
    "float_scores",
    "make_scores",
    "score_exits",
    "score_kind",
    "tempered",
]
