"""The exit rule, its scores and how thresholds are set. Pure NumPy, with the integers that decide."""

from mexit_edge.exits.metrics import (
    BINS,
    Interval,
    balanced_accuracy,
    balanced_weights,
    expected_calibration_error,
    log_loss,
    paired_drop_interval,
    softmax,
)
from mexit_edge.exits.oracle import oracle_exits
from mexit_edge.exits.rule import decide, passes
from mexit_edge.exits.scores import SCORES, Score, float_score, make_score
from mexit_edge.exits.thresholds import ThresholdSearch, search_thresholds, upper_bound_of_loss

__all__ = [
    "BINS",
    "SCORES",
    "Interval",
    "Score",
    "ThresholdSearch",
    "balanced_accuracy",
    "balanced_weights",
    "decide",
    "expected_calibration_error",
    "float_score",
    "log_loss",
    "make_score",
    "oracle_exits",
    "paired_drop_interval",
    "passes",
    "search_thresholds",
    "softmax",
    "upper_bound_of_loss",
]
