"""How far off the latency and energy estimates are, on boards and models that they have not seen.

    python benchmarks/estimator_mlperf.py --results mlperf_tiny_results.csv --models FOLDER [--jobs 2]

The table of published results and the four reference models come from outside (`MEXIT_EDGE_DIR`,
`MEXIT_TFLITE_DIR`); `mlperf.FILTER` says which rows count. Nothing is dropped: every row that counts is
hidden and predicted once per setting (`SETTINGS`). All figures that the estimator learns, its spreads
included (`population.choose_spreads`), come from the rows that the setting leaves visible; its prior and its
quantile are fixed in the package. Reference predictors see the same rows.

Writes to benchmarks/results:
- estimator_settings.csv: the spreads of every fold; one of the same table is not computed again
- estimator_mlperf.csv: errors and coverage per setting and predictor; 95 % bootstrap intervals over boards
- estimator_paired.csv: ours against every reference predictor on the rows that both predict
- estimator_energy.csv: energy given latency
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import estimator_predictors as predictors
import numpy as np
import references
import tables
from estimator_folds import (
    Fold,
    Rows,
    board_and_model_hidden,
    board_hidden,
    model_hidden,
    one_measured,
    one_measured_model_hidden,
    three_measured,
)
from estimator_predictors import Prediction
from joblib import Parallel, delayed
from mlperf import FILTER, cortex_m, measurements, read_results
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from mexit_edge.estimate.latency.population import (
    GROUPS,
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


# What the package itself does where, beside the prediction from the population.
DEVICE_FILE, DEVICE_FIT = "mexit_edge, as a device file", "mexit_edge, as `mexit device fit`"
FOLDING_UNKNOWN = ("model hidden on every board", "board and model hidden")


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
    """Return what tells this table of results, these models and what is believed at first from others."""
    told = [
        (one.system.groups(), one.model, f"{one.cycles:.9g}", one.amounts.tolist()) for one in rows.measured
    ]
    return sha256(repr((told, Prior(), Spreads())).encode())[:16]


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
        "inside_90_percent_interval": f"{sum(inside)} of {len(inside)}" if inside else "",
        "coverage_of_90_percent": f"{100 * np.mean(inside):.1f}" if inside else "",
        "median_half_width_percent": f"{100 * np.expm1(QUANTILE * np.median(deviations)):.1f}"
        if deviations
        else "",
    }


def paired(
    setting: str, name: str, own: Sequence[Prediction], other: Sequence[Prediction], rows: Rows
) -> dict[str, Any]:
    """Return how much smaller our errors are on the rows that both predict, and whether rows can show it."""
    ours, theirs = ({(one.fold, one.row): one.error for one in found} for found in (own, other))
    both = [one for one in ours if one in theirs]
    less = np.array([theirs[one] - ours[one] for one in both])
    interval = bootstrap(less, rows.board[[row for _, row in both]])
    return _paired_row(setting, name, {one: ours[one] for one in both}, theirs, interval)


def _paired_row(
    setting: str,
    name: str,
    own: Mapping[Any, float],
    other: Mapping[Any, float],
    ends: tuple[float, float],
) -> dict[str, Any]:
    mean, theirs = (100 * np.mean([errors[one] for one in own]) for errors in (own, other))
    low, high = (100 * end for end in ends)
    return {
        "setting": setting,
        "against": name,
        "predictions": len(own),
        "ours_mean_error_percent": f"{mean:.1f}",
        "theirs_mean_error_percent": f"{theirs:.1f}",
        "difference_points": f"{theirs - mean:.1f}",
        "difference_low": f"{low:.1f}",
        "difference_high": f"{high:.1f}",
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


def energy_tables(rows: Rows) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return how well the power of a system's other models tells a hidden one's, and median against mean."""
    own, mean = (predictors.energy_errors(rows.results, middle) for middle in (np.median, np.mean))
    table = []
    for name, errors in (("mexit_edge: median power", own), ("mean power", mean)):
        values, index = np.array(list(errors.values())), list(errors)
        low, high = bootstrap(values, rows.board[index])
        table.append(
            {
                "predictor": name,
                "predictions": len(errors),
                "systems": len({(rows.system[row], rows.results[row].supply_v) for row in index}),
                "boards": len(set(rows.board[index])),
                "mean_error_percent": f"{100 * values.mean():.2f}",
                "mean_error_low": f"{100 * low:.2f}",
                "mean_error_high": f"{100 * high:.2f}",
                "median_error_percent": f"{100 * np.median(values):.2f}",
                "largest_error_percent": f"{100 * values.max():.1f}",
            }
        )
    less = np.array([mean[row] - own[row] for row in own])
    return table, _paired_row(
        "energy, latency given", "mean power", own, mean, bootstrap(less, rows.board[list(own)])
    )


PATHS: dict[str, dict[str, Callable[[Sequence[Fold], Rows, dict[str, Spreads]], list[Prediction]]]] = {
    "model hidden on every board": {DEVICE_FILE: predictors.by_device_file},
    "one measured model": {DEVICE_FIT: predictors.by_device_fit},
    "three measured models": {DEVICE_FIT: predictors.by_device_fit},
    "board hidden": {DEVICE_FILE: predictors.by_device_file},
    "board and model hidden": {DEVICE_FILE: predictors.by_device_file},
    "one measured model, model hidden on every board": {DEVICE_FIT: predictors.by_device_fit},
}
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
    # That a library skips constant channels is known from the one model that has any: blind to that.
    blind = Rows(results, measurements([replace(one, folds=False) for one in results], arguments.models))
    screen = Console()
    screen.print(
        f"{len(results)} rows of {len(set(rows.system))} systems on {len(set(rows.board))} boards: {FILTER}. "
        "Spreads are chosen on the visible rows of every fold only."
    )
    folds = {setting: list(make(rows)) for setting, make in SETTINGS.items()}
    spreads = spreads_of([fold for own in folds.values() for fold in own], rows, arguments.jobs)
    table, pairs = [], []
    for setting, own in folds.items():
        predicted = predictors.ours(own, rows, spreads)
        table.append(summary(setting, "mexit_edge", predicted, rows))
        for name, predict in PATHS.get(setting, {}).items():
            table.append(summary(setting, name, predict(own, rows, spreads), rows))
        if setting in FOLDING_UNKNOWN:
            table.append(
                summary(
                    setting,
                    "mexit_edge, folding unknown",
                    predictors.folding_unknown(own, rows, blind, spreads),
                    rows,
                )
            )
        for name, predict in REFERENCES.get(setting, {}).items():
            theirs = predictors.reference(own, rows, predict)
            table.append(summary(setting, name, theirs, rows))
            pairs.append(paired(setting, name, predicted, theirs, rows))
        tables.write(RESULTS / "estimator_mlperf.csv", table)
    strict = "model hidden on every board"
    for name, (term, ratio) in SENSITIVITY.items():
        ratios = list(Prior().ratios)
        ratios[term] = ratio
        predicted = predictors.ours(folds[strict], rows, spreads, Prior(ratios=tuple(ratios)))
        table.append(summary(strict, f"mexit_edge, prior {name}", predicted, rows))
    tables.write(RESULTS / "estimator_mlperf.csv", table)
    energy, against = energy_tables(rows)
    pairs.append(against)
    tables.write(RESULTS / "estimator_paired.csv", pairs)
    tables.write(RESULTS / "estimator_energy.csv", energy)
    for one in (*table, *pairs, *energy):
        screen.print(one)


if __name__ == "__main__":
    main()
