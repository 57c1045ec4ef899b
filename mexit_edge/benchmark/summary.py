"""A sweep's rows together: means and intervals over seeds, paired differences, ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mexit_edge.benchmark.rows import COLUMNS, INT8, POLICY
from mexit_edge.benchmark.statistics import (
    PairedDifference,
    Ranking,
    mean_interval,
    paired_difference,
    rank_regimes,
)
from mexit_edge.errors import InputError
from mexit_edge.exits import Interval

# Figures of which less is better.
COSTS = frozenset({"mean_macs_share", "macs", "forward_macs", "backward_macs", "training_macs", "epochs"})
# Robustness is the mean over the severities from here to 5, the highest, at which the runs were judged.
LEAST_ROBUST_SEVERITY = 3.0
_NUMBERS = ("seed", "fold", "severity", "cost_share", "value")


class Setting(NamedTuple):
    """What regimes are compared on.

    Args:
        data: name of the data set.
        backbone: label.
        judged_on: ``"test"`` or ``"out_of_fold"``.
    """

    data: str
    backbone: str
    judged_on: str

    def __str__(self) -> str:
        """Return what tables show."""
        return f"{self.data}, {self.backbone}{'' if self.judged_on == 'test' else ', out of fold'}"


class Measure(NamedTuple):
    """Which figure: the columns of a row that say so; None where one does not apply."""

    metric: str
    kind: str | None = None
    exit: str | None = None
    severity: float | None = None
    cost_share: float | None = None

    @property
    def lower_is_better(self) -> bool:
        """Whether it is a cost."""
        return self.metric in COSTS


# Under one name, whatever the backbone's number of exits.
FINAL_QUALITY = Measure("final_balanced_accuracy", INT8)
TRAINING_MACS = Measure("training_macs")
TRAINING_WINDOWS = Measure("training_windows")
ROBUST_QUALITY = Measure("robust_balanced_accuracy", INT8, POLICY)
ROBUST_COST = Measure("mean_macs_share", INT8, POLICY)


def robust_severities(judged: Iterable[float]) -> tuple[float, ...]:
    """Return those of the severities at which runs were judged that robustness is the mean over."""
    return tuple(sorted(severity for severity in judged if severity >= LEAST_ROBUST_SEVERITY))


def policy_quality(severity: float = 0.0) -> Measure:
    """Return the balanced accuracy of the runs' own policies, on int8 stages."""
    return Measure("balanced_accuracy", INT8, POLICY, severity)


def policy_cost(severity: float = 0.0) -> Measure:
    """Return the mean cost of the runs' own policies as a share of the plain network's."""
    return Measure("mean_macs_share", INT8, POLICY, severity)


def exit_quality(exit_: str, kind: str = INT8) -> Measure:
    """Return the balanced accuracy when every window leaves at an exit."""
    return Measure("balanced_accuracy", kind, exit_, 0.0)


def quality_at(share: float) -> Measure:
    """Return the balanced accuracy of the curve at a share of the plain network's cost."""
    return Measure("quality_at_cost", INT8, None, 0.0, share)


@dataclass(frozen=True)
class Cell:
    """A figure of one regime.

    Args:
        mean: over seeds, of the mean over the folds of each.
        interval: of the mean, by Student's t over seeds; None with one seed.
        seeds: number of them.
    """

    mean: float
    interval: Interval | None
    seeds: int


Key = tuple[Setting, str, Measure]
# (seed, fold) -> value; the fold is None on the test.
Values = Mapping[tuple[int, int | None], float]


@dataclass(frozen=True, eq=False)
class Summary:
    """Every figure of a sweep.

    Args:
        reference: regime that the others are compared with.
        settings: in the order of the rows.
        regimes: likewise.
        folds: of every setting, those of any network on the same data; a seed that lacks one of them has no
            mean, since what it has is of other subjects than the means beside it.
        values: of every run, by setting, regime and measure. Unknown ones are left out.
    """

    reference: str
    settings: tuple[Setting, ...]
    regimes: tuple[str, ...]
    folds: Mapping[Setting, frozenset[int | None]]
    values: Mapping[Key, Values]

    def regimes_of(self, setting: Setting) -> tuple[str, ...]:
        """Return the regimes that have a run there."""
        there = {key[1] for key in self.values if key[0] == setting}
        return tuple(regime for regime in self.regimes if regime in there)

    def exits_of(self, setting: Setting) -> tuple[str, ...]:
        """Return the names of the exits there, in order."""
        names = {m.exit for s, _, m in self.values if s == setting and m.kind == INT8 and m.exit}
        return tuple(sorted(names - {POLICY}))

    def severities_of(self, setting: Setting) -> tuple[float, ...]:
        """Return the severities that the policies were judged at there."""
        return _severities_of(self.values, setting)

    def seeds(self, setting: Setting, regime: str, measure: Measure) -> dict[int, float]:
        """Return seed -> value, the mean over its folds, of every seed that has them all."""
        values = self.values.get((setting, regime, measure), {})
        folds = self.folds[setting]
        whole = {seed for seed, _ in values if all((seed, fold) in values for fold in folds)}
        return _over_folds({run: value for run, value in values.items() if run[0] in whole})

    def cell(self, setting: Setting, regime: str, measure: Measure) -> Cell | None:
        """Return a figure over seeds; None where no run has it."""
        values = list(self.seeds(setting, regime, measure).values())
        return Cell(float(np.mean(values)), mean_interval(values), len(values)) if values else None

    def difference(
        self, setting: Setting, regime: str, measure: Measure, reference: str | None = None
    ) -> PairedDifference | None:
        """Compare a regime with another over the seeds that both have; None where there is none.

        Args:
            setting: of both.
            regime: whose figure it is.
            measure: the figure.
            reference: what is taken away from it; the sweep's reference if None.
        """
        ours = self.values.get((setting, regime, measure), {})
        theirs = self.values.get((setting, reference or self.reference, measure), {})
        # Folds that one of them lacks would compare different subjects.
        common = [run for run in ours if run in theirs]
        if not common:
            return None
        mine, other = (_over_folds({run: values[run] for run in common}) for values in (ours, theirs))
        return paired_difference(
            list(mine.values()), list(other.values()), lower_is_better=measure.lower_is_better
        )

    def standing(self, setting: Setting, regime: str, measure: Measure) -> float | None:
        """Return what to order regimes by: the mean, as if of the reference's seeds; None without one.

        Seeds may split subjects in other ways, so means over other seeds compare splits, not regimes.
        """
        cell = self.cell(setting, regime, measure)
        found = self.difference(setting, regime, measure)
        of_reference = self.cell(setting, self.reference, measure)
        if cell is None or found is None or of_reference is None:
            return None if cell is None else cell.mean
        return of_reference.mean + found.mean

    def ratio(self, setting: Setting, regime: str, measure: Measure) -> float | None:
        """Return a figure as a share of the reference's, over the seeds that both have; None without one."""
        ours, theirs = (self.seeds(setting, one, measure) for one in (regime, self.reference))
        common = ours.keys() & theirs.keys()
        total = sum(theirs[seed] for seed in common)
        return sum(ours[seed] for seed in common) / total if total else None

    def ranking(self, measure: Measure) -> Ranking:
        """Rank all regimes over the blocks (data, backbone, seed, fold) in which each of them has a run."""
        blocks = []
        for setting in self.settings:
            columns = [self.values.get((setting, regime, measure), {}) for regime in self.regimes]
            runs = [run for run in columns[0] if all(run in column for column in columns)]
            blocks += [[column[run] for column in columns] for run in runs]
        return rank_regimes(
            np.asarray(blocks, np.float64).reshape(-1, len(self.regimes)),
            self.regimes,
            lower_is_better=measure.lower_is_better,
        )

    def to_frame(self) -> Any:
        """Return a pandas DataFrame: a row per figure, with what it has over the reference's beside it."""
        import pandas as pd

        return pd.DataFrame([self._row(*key) for key in self.values])

    def _row(self, setting: Setting, regime: str, measure: Measure) -> dict[str, Any]:
        cell, difference = (
            self.cell(setting, regime, measure),
            self.difference(setting, regime, measure) if regime != self.reference else None,
        )
        interval = None if cell is None else cell.interval
        apart = None if difference is None else difference.interval
        return {
            **setting._asdict(),
            "regime": regime,
            **measure._asdict(),
            "seeds": None if cell is None else cell.seeds,
            "mean": None if cell is None else cell.mean,
            "low": None if interval is None else interval.low,
            "high": None if interval is None else interval.high,
            "difference": None if difference is None else difference.mean,
            "difference_low": None if apart is None else apart.low,
            "difference_high": None if apart is None else apart.high,
            **{
                name: None if difference is None else getattr(difference, name)
                for name in ("pairs", "wins", "ties", "losses", "p_value")
            },
        }


def read_rows(path: Path) -> Any:
    """Return the rows of a sweep's CSV file as a pandas DataFrame.

    Raises:
        InputError: it is no such file, or has other columns.
    """
    import pandas as pd

    # A regime may be called "None": only numbers have missing values, and these are empty.
    types = {name: "float64" if name in _NUMBERS else "str" for name in COLUMNS}
    try:
        frame = pd.read_csv(
            path, dtype=types, keep_default_na=False, na_values={name: [""] for name in _NUMBERS}
        )
    except (OSError, ValueError) as error:
        raise InputError(f"`{path}` must be the CSV file of a sweep. Received: {error}.") from error
    _check_columns(frame.columns, str(path))
    return frame


def summarise(frame: Any, reference: str = "joint") -> Summary:
    """Gather the rows of a sweep.

    Added to what the rows hold: the final exit's quality under one name, training cost (forward and backward
    together), and robustness (the policy's mean quality and cost over `robust_severities`).

    Args:
        frame: of `read_rows`, or made of the rows of `rows_of`.
        reference: regime that the others are compared with.

    Raises:
        InputError: the columns are not those of `rows_of`, a run stands in it twice, or there is no row.
    """
    _check_columns(frame.columns, "a table")
    if not len(frame):
        raise InputError("`frame` must hold the rows of at least one run. Received: none.")
    values: dict[Key, dict[tuple[int, int | None], float]] = {}
    settings: dict[Setting, None] = {}
    regimes: dict[str, None] = {}
    folds: dict[tuple[str, str], set[int | None]] = {}
    for row in frame[list(COLUMNS)].itertuples(index=False):
        setting = Setting(row.data, row.backbone, row.judged_on)
        settings[setting] = regimes[row.regime] = None
        number = _number(row.fold)
        run = int(row.seed), None if number is None else int(number)
        folds.setdefault((row.data, row.judged_on), set()).add(run[1])
        value = _number(row.value)
        if value is None:
            continue
        measure = Measure(
            row.metric, _text(row.kind), _text(row.exit), _number(row.severity), _number(row.cost_share)
        )
        of_runs = values.setdefault((setting, row.regime, measure), {})
        if run in of_runs:
            raise InputError(
                f"`frame` must hold every figure of a run once. Received: {measure.metric} of {row.regime} "
                f"on {setting}, seed {run[0]}, twice. Were two sweeps put together?"
            )
        of_runs[run] = value
    for setting in settings:
        severe = robust_severities(_severities_of(values, setting))
        for regime in regimes:
            _add_sums(values, setting, regime, severe)
    whole = {setting: frozenset(folds[setting.data, setting.judged_on]) for setting in settings}
    return Summary(reference, tuple(settings), tuple(regimes), whole, values)


def _severities_of(values: Iterable[Key], setting: Setting) -> tuple[float, ...]:
    found = {m.severity for s, _, m in values if s == setting and m.metric == "balanced_accuracy"}
    return tuple(sorted(severity for severity in found if severity is not None))


def _add_sums(
    values: dict[Key, dict[tuple[int, int | None], float]],
    setting: Setting,
    regime: str,
    severe: Sequence[float],
) -> None:
    """Add what is made of several figures of the same run, where it has all of them."""
    exits = [m.exit for s, r, m in values if (s, r) == (setting, regime) and m.kind == INT8 and m.exit]
    final = max((exit_ for exit_ in exits if exit_ != POLICY), default=POLICY)
    made: dict[Measure, tuple[Sequence[Measure], float]] = {
        FINAL_QUALITY: ([exit_quality(final)], 1.0),
        TRAINING_MACS: ([Measure("forward_macs"), Measure("backward_macs")], 1.0),
    }
    if severe:
        made[ROBUST_QUALITY] = [policy_quality(severity) for severity in severe], 1 / len(severe)
        made[ROBUST_COST] = [policy_cost(severity) for severity in severe], 1 / len(severe)
    for measure, (parts, factor) in made.items():
        columns = [values.get((setting, regime, part), {}) for part in parts]
        runs = [run for run in columns[0] if all(run in column for column in columns)]
        if runs:
            values[setting, regime, measure] = {
                run: factor * sum(column[run] for column in columns) for run in runs
            }


def _over_folds(values: Values) -> dict[int, float]:
    by_seed: dict[int, list[float]] = {}
    for (seed, _), value in values.items():
        by_seed.setdefault(seed, []).append(value)
    return {seed: float(np.mean(by_seed[seed])) for seed in sorted(by_seed)}


def _check_columns(columns: Iterable[str], where: str) -> None:
    if list(columns) != list(COLUMNS):
        raise InputError(
            f"`frame` must have the columns {', '.join(COLUMNS)}. Received: {where} with "
            f"{', '.join(map(str, columns))}. Make it anew with this version's `mexit bench`."
        )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)
