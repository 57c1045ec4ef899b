"""How far off the latency and energy estimates are, on boards and models that they have not seen.

    python benchmarks/estimator_mlperf.py --results mlperf_tiny_results.csv --models FOLDER [--jobs 2]

The table of published results and the four reference models come from outside (`MEXIT_EDGE_DIR`,
`MEXIT_TFLITE_DIR`); `mlperf.FILTER` says which rows count. Nothing is dropped: every row that counts is
hidden and predicted once per setting (`SETTINGS`). All figures that the estimator learns, its spreads
included (`population.choose_spreads`), come from the rows that the setting leaves visible; its prior and its
quantile are fixed in the package. Reference predictors see the same rows.

Writes to benchmarks/results:
- estimator_settings.csv: the spreads of every fold; one of the same table of results is not computed again
- estimator_mlperf.csv: errors and coverage per setting and predictor, with 95 % bootstrap intervals over boards
- estimator_paired.csv: ours against every reference predictor on the rows that both predict
- estimator_energy.csv: energy given latency
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import references
import tables
from joblib import Parallel, delayed
from mlperf import FILTER, Result, cortex_m, measurements, read_results
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from mexit_edge.estimate.latency.population import (
    GROUPS,
    Measurement,
    Population,
    Prior,
    Spreads,
    choose_spreads,
)
from mexit_edge.estimate.latency.rates import QUANTILE
from mexit_edge.files import sha256

RESULTS = Path(__file__).parent / "results"
SETTINGS_CSV = RESULTS / "estimator_settings.csv"
RESAMPLES = 4000
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


@dataclass(frozen=True)
class Prediction:
    """One hidden row and what is said about it.

    Args:
        row: its index.
        fold: number of the fold, the same for every predictor of a setting.
        log_ratio: log of predicted over measured.
        deviation: the predictor's own standard deviation of it, None where it states none.
    """

    row: int
    fold: int
    log_ratio: float
    deviation: float | None = None

    @property
    def error(self) -> float:
        """Of the prediction, over the measured value."""
        return abs(float(np.expm1(self.log_ratio)))


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


SETTINGS: dict[str, Callable[[Rows], Iterator[Fold]]] = {
    "model hidden on every board": model_hidden,
    "one measured model": one_measured,
    "three measured models": three_measured,
    "board hidden": board_hidden,
    "board and model hidden": board_and_model_hidden,
    "one measured model, model hidden on every board": one_measured_model_hidden,
}
# Which reference predictor makes sense where.
REFERENCES: dict[str, dict[str, references.Predictor]] = {
    "model hidden on every board": {
        "MACs only": references.macs_only,
        "four rates by least squares": references.least_squares,
        "four rates with prior ratios": references.four_rates,
    },
    "one measured model": {"siblings' ratios": references.siblings_ratio},
    "board hidden": {"same core and library": references.same_core_and_library},
}


def spreads_of(folds: Sequence[Fold], rows: Rows, jobs: int) -> dict[str, Spreads]:
    """Choose the spreads of every fold on what is visible in it, and keep them."""
    table = fingerprint(rows)
    chosen = {row["fold"]: _spreads(row) for row in tables.read(SETTINGS_CSV) if row["table"] == table}
    missing = {fold.name: fold.learned_on for fold in folds if fold.name not in chosen}
    population = Population(rows.measured)
    found = Parallel(n_jobs=jobs, return_as="generator")(
        delayed(choose_spreads)(population, known) for known in missing.values()
    )
    for name, spreads in zip(missing, track(found, "choosing spreads", len(missing)), strict=True):
        chosen[name] = spreads
        tables.write(SETTINGS_CSV, [_spreads_row(fold, table, one) for fold, one in chosen.items()])
    return chosen


def fingerprint(rows: Rows) -> str:
    """Return what tells this table of results, and these models, from others."""
    told = [
        (one.system.groups(), one.model, f"{one.cycles:.9g}", one.amounts.tolist()) for one in rows.measured
    ]
    return sha256(repr(told).encode())[:16]


def _spreads_row(fold: str, table: str, spreads: Spreads) -> dict[str, Any]:
    parts = {"speed": spreads.speed, "preference": spreads.preference, "error": spreads.error}
    values = {
        f"{part} {group}": f"{value:.6g}"
        for part, own in parts.items()
        for group, value in zip(GROUPS, own, strict=True)
    }
    return {"fold": fold, "table": table, **values}


def _spreads(row: dict[str, str]) -> Spreads:
    return Spreads(
        *(
            tuple(float(row[f"{part} {group}"]) for group in GROUPS)
            for part in ("speed", "preference", "error")
        )
    )


def ours(
    folds: Sequence[Fold],
    rows: Rows,
    spreads: dict[str, Spreads],
    prior: Prior = Prior(),  # noqa: B008
) -> list[Prediction]:
    """Predict every hidden row."""
    truth = np.log([one.cycles for one in rows.measured])
    found = []
    for number, fold in enumerate(folds):
        mean, deviation = Population(rows.measured, spreads[fold.name], prior).predict(fold.known)
        found += [
            Prediction(int(row), number, float(mean[row] - truth[row]), float(deviation[row]))
            for row in fold.hidden
        ]
    return found


def reference(folds: Sequence[Fold], rows: Rows, predict: references.Predictor) -> list[Prediction]:
    """Predict every hidden row that a reference predictor can predict."""
    found = []
    for number, fold in enumerate(folds):
        for row in fold.hidden:
            cycles = predict(rows.results, rows.measured, fold.known, int(row))
            if cycles is not None:
                measured = rows.measured[row].cycles
                found.append(Prediction(int(row), number, float(np.log(max(cycles, 1.0) / measured))))
    return found


def summary(setting: str, predictor: str, found: Sequence[Prediction], rows: Rows) -> dict[str, Any]:
    """Return errors and coverage, with bootstrap intervals over boards."""
    errors = np.array([one.error for one in found])
    index = np.array([one.row for one in found])
    low, high = bootstrap(errors, rows.board[index])
    deviations = [one.deviation for one in found if one.deviation is not None]
    inside = [abs(one.log_ratio) <= QUANTILE * one.deviation for one in found if one.deviation is not None]
    return {
        "setting": setting,
        "predictor": predictor,
        "rows": FILTER,
        "predictions": len(found),
        "systems": len(set(rows.system[index])),
        "boards": len(set(rows.board[index])),
        "mean_error_percent": f"{100 * errors.mean():.1f}",
        "mean_error_low": f"{100 * low:.1f}",
        "mean_error_high": f"{100 * high:.1f}",
        "median_error_percent": f"{100 * np.median(errors):.1f}",
        "p90_error_percent": f"{100 * np.quantile(errors, 0.9):.1f}",
        "bias_percent": f"{100 * np.mean([np.expm1(one.log_ratio) for one in found]):.1f}",
        "coverage_of_90_percent": f"{100 * np.mean(inside):.1f}" if inside else "",
        "median_half_width_percent": f"{100 * np.expm1(QUANTILE * np.median(deviations)):.1f}"
        if deviations
        else "",
    }


def paired(
    setting: str, name: str, own: Sequence[Prediction], other: Sequence[Prediction], rows: Rows
) -> dict[str, Any]:
    """Return how much smaller our errors are on the rows that both predict, and whether rows can show it."""
    theirs = {(one.fold, one.row): one.error for one in other}
    both = [one for one in own if (one.fold, one.row) in theirs]
    less = np.array([theirs[one.fold, one.row] - one.error for one in both])
    low, high = bootstrap(less, rows.board[[one.row for one in both]])
    return {
        "setting": setting,
        "against": name,
        "predictions": len(both),
        "ours_mean_error_percent": f"{100 * np.mean([one.error for one in both]):.1f}",
        "theirs_mean_error_percent": f"{100 * np.mean([theirs[one.fold, one.row] for one in both]):.1f}",
        "difference_points": f"{100 * less.mean():.1f}",
        "difference_low": f"{100 * low:.1f}",
        "difference_high": f"{100 * high:.1f}",
        "verdict": "better" if low > 0 else "worse" if high < 0 else "tie",
    }


def bootstrap(values: NDArray[np.float64], boards: NDArray[Any]) -> tuple[float, float]:
    """Return the 95 % interval of a mean when boards are drawn anew."""
    names = np.unique(boards.astype(str))
    sums = np.array([values[boards == name].sum() for name in names])
    counts = np.array([(boards == name).sum() for name in names])
    draws = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def energy_tables(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return how well power measured with a system's other models tells the energy of a hidden one.

    Energy is power times latency, so that the error of energy, the latency being given, is that of power.
    """
    measured = [one for one in results if one.power_mw is not None]
    table = []
    for name, middle in (("mexit_edge: median power", np.median), ("mean power", np.mean)):
        errors, boards, systems = [], [], []
        for one in measured:
            others = [
                other.power_mw
                for other in measured
                if other.system == one.system and other.supply_v == one.supply_v and other.model != one.model
            ]
            if others and one.power_mw is not None:
                errors.append(abs(float(middle(others)) / one.power_mw - 1))
                boards.append(one.system.board)
                systems.append((one.system.name, one.supply_v))
        low, high = bootstrap(np.array(errors), np.array(boards, dtype=object))
        table.append(
            {
                "predictor": name,
                "predictions": len(errors),
                "systems": len(set(systems)),
                "boards": len(set(boards)),
                "mean_error_percent": f"{100 * np.mean(errors):.2f}",
                "mean_error_low": f"{100 * low:.2f}",
                "mean_error_high": f"{100 * high:.2f}",
                "median_error_percent": f"{100 * np.median(errors):.2f}",
                "largest_error_percent": f"{100 * np.max(errors):.1f}",
            }
        )
    return table


# Other beliefs about what was not measured, to see how much hangs on them.
SENSITIVITY = {
    "output ratio 10": (4, 10.0),
    "output ratio 40": (4, 40.0),
    "fully connected ratio 1": (3, 1.0),
    "fully connected ratio 2": (3, 2.0),
    "depthwise ratio 2": (2, 2.0),
    "depthwise ratio 8": (2, 8.0),
}


def main() -> None:
    """Run everything, print and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, help="table of published results")
    parser.add_argument("--models", type=Path, required=True, help="folder of the reference models")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    results = cortex_m(read_results(arguments.results))
    rows = Rows(results, measurements(results, arguments.models))
    screen = Console()
    screen.print(
        f"{len(results)} rows of {len(set(rows.system))} systems on {len(set(rows.board))} boards: {FILTER}. "
        "Spreads are chosen on the visible rows of every fold only."
    )
    folds = {setting: list(make(rows)) for setting, make in SETTINGS.items()}
    spreads = spreads_of([fold for own in folds.values() for fold in own], rows, arguments.jobs)
    table, pairs = [], []
    for setting, own in folds.items():
        predicted = ours(own, rows, spreads)
        table.append(summary(setting, "mexit_edge", predicted, rows))
        for name, predict in REFERENCES.get(setting, {}).items():
            theirs = reference(own, rows, predict)
            table.append(summary(setting, name, theirs, rows))
            pairs.append(paired(setting, name, predicted, theirs, rows))
        tables.write(RESULTS / "estimator_mlperf.csv", table)
    strict = "model hidden on every board"
    for name, (term, ratio) in SENSITIVITY.items():
        ratios = list(Prior().ratios)
        ratios[term] = ratio
        predicted = ours(folds[strict], rows, spreads, Prior(ratios=tuple(ratios)))
        table.append(summary(strict, f"mexit_edge, prior {name}", predicted, rows))
    tables.write(RESULTS / "estimator_mlperf.csv", table)
    tables.write(RESULTS / "estimator_paired.csv", pairs)
    energy = energy_tables(results)
    tables.write(RESULTS / "estimator_energy.csv", energy)
    for one in (*table, *pairs, *energy):
        screen.print(one)


if __name__ == "__main__":
    main()
