"""A run as tidy rows: one figure a row, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.benchmark.quality_cost import (
    curve_area_share,
    decided,
    quality_cost_curve,
    scored,
)
from mexit_edge.exits import balanced_accuracy

if TYPE_CHECKING:
    from mexit_edge.benchmark.record import RunRecord
    from mexit_edge.benchmark.sweep import Run

RUN_COLUMNS = ("data", "backbone", "regime", "seed", "judged_on", "fold")
COLUMNS = (*RUN_COLUMNS, "metric", "kind", "exit", "severity", "cost_share", "value")
TIME_COLUMNS = (*RUN_COLUMNS, "phase", "measured_seconds", "measured_peak_memory_bytes")
COST_SHARES = (0.25, 0.5, 0.75, 1.0)
FLOAT, INT8 = "float", "int8"
POLICY, PLAIN = "policy", "plain"
DECIMALS = 6

Integers = NDArray[np.int64]


def cells_of(run: Run) -> dict[str, Any]:
    """Return what stands in every row of a run: a dict with the keys `RUN_COLUMNS`."""
    return {name: getattr(run, name) for name in RUN_COLUMNS}


def rows_of(record: RunRecord) -> list[dict[str, Any]]:
    """Return every figure of a run but what a clock measured: dicts with the keys `COLUMNS`.

    - accuracy, balanced_accuracy, macro_f1, kappa: per exit, of the float network at severity 0 and of the
      int8 stages at every one; and of the exit ``policy``;
    - mean_macs_share: per severity, mean cost of the policy as a share of the plain network's;
    - macs: per exit, and of ``plain``, the same network with the final exit alone;
    - calibration_balanced_accuracy: per exit, of the int8 stages on the windows that set the thresholds; when
      cross-fitted, all training windows, each judged by a network that never saw its subject;
    - quality_at_cost: per severity and cost share, balanced accuracy of the curve;
    - curve_area_share: per severity, area under the curve over the oracle's;
    - forward_macs, backward_macs (of all networks that the run trained), epochs, training_windows.

    Floats have six decimals; None is what does not apply, and a value that is unknown.
    """
    head = cells_of(record.run)
    empty = dict.fromkeys(COLUMNS)
    return [
        {**empty, **head, **figure, "value": _rounded(figure["value"])}
        for figure in (*_per_exit(record), *_per_severity(record), *_of_run(record))
    ]


def times_of(record: RunRecord) -> list[dict[str, Any]]:
    """Return what was measured in training, one row per phase of every network: keys `TIME_COLUMNS`."""
    head = cells_of(record.run)
    measured = ("phase", "measured_seconds", "measured_peak_memory_bytes")
    return [{**head, **{name: cost[name] for name in measured}} for cost in record.training_cost]


def figures_of_merit(y: Integers, predicted: Integers) -> dict[str, float | None]:
    """Return accuracy, balanced accuracy, macro F1 and Cohen's kappa of predictions.

    Kappa is None where labels and predictions all name one class: agreement beyond chance is undefined.
    """
    from sklearn.metrics import cohen_kappa_score, f1_score

    alone = len(np.union1d(y, predicted)) == 1
    return {
        "accuracy": float(np.mean(predicted == y)),
        "balanced_accuracy": balanced_accuracy(y, predicted),
        "macro_f1": float(f1_score(y, predicted, average="macro")),
        "kappa": None if alone else float(cohen_kappa_score(y, predicted)),
    }


def _per_exit(record: RunRecord) -> Iterator[dict[str, Any]]:
    for exit_, predicted in zip(record.exits, record.float_logits.argmax(axis=2).T, strict=True):
        yield from _merits(record.y, predicted, FLOAT, exit_, 0.0)
    for exit_, predicted in zip(record.exits, record.calibration_logits.argmax(axis=2).T, strict=True):
        quality = balanced_accuracy(record.calibration_y, predicted)
        yield {"metric": "calibration_balanced_accuracy", "kind": INT8, "exit": exit_, "value": quality}
    for severity in record.severities:
        for exit_, predicted in zip(record.exits, scored(record, severity)[1].T, strict=True):
            yield from _merits(record.y, predicted, INT8, exit_, severity)
        left_at, labels = decided(record, severity)
        yield from _merits(record.y, labels, INT8, POLICY, severity)
        mean_macs = float(np.mean(np.asarray(record.exit_macs)[left_at - 1]))
        yield {
            "metric": "mean_macs_share",
            "kind": INT8,
            "exit": POLICY,
            "severity": severity,
            "value": mean_macs / record.plain_macs,
        }


def _merits(
    y: Integers, predicted: Integers, kind: str, exit_: str, severity: float
) -> Iterator[dict[str, Any]]:
    for metric, value in figures_of_merit(y, predicted).items():
        yield {"metric": metric, "kind": kind, "exit": exit_, "severity": severity, "value": value}


def _per_severity(record: RunRecord) -> Iterator[dict[str, Any]]:
    for severity in record.severities:
        of_curve = {"kind": INT8, "severity": severity}
        curve = quality_cost_curve(record, severity)
        for share in COST_SHARES:
            value = curve.quality_at(share)
            yield {"metric": "quality_at_cost", **of_curve, "cost_share": share, "value": value}
        yield {"metric": "curve_area_share", **of_curve, "value": curve_area_share(record, severity)}


def _of_run(record: RunRecord) -> Iterator[dict[str, Any]]:
    for exit_, macs in zip((*record.exits, PLAIN), (*record.exit_macs, record.plain_macs), strict=True):
        yield {"metric": "macs", "exit": exit_, "value": macs}
    for name in ("forward_macs", "backward_macs"):
        parts = [cost[name] for cost in record.training_cost]
        yield {"metric": name, "value": None if None in parts else sum(parts)}
    yield {"metric": "epochs", "value": record.epochs}
    yield {"metric": "training_windows", "value": record.n_training_windows}


def _rounded(value: float | None) -> float | None:
    return round(value, DECIMALS) if isinstance(value, float) else value
