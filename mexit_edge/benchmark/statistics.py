"""Intervals, paired tests and ranks: what tells two regimes apart, and when nothing can.

scipy is imported inside functions: it comes with the extra that trains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.exits import Interval
from mexit_edge.exits.metrics import drawn_balanced_means, drawn_subjects

if TYPE_CHECKING:
    from mexit_edge.benchmark.record import RunRecord

LEVEL = 0.95
ALPHA = 1 - LEVEL
# With five pairs the least two-sided p of a signed-rank test is 2 / 2**5 = .0625.
FEWEST_PAIRS = 6
DRAWS = 2000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairedDifference:
    """What one regime has over another, pair by pair of the same data, backbone and seed.

    Args:
        mean: of the differences.
        interval: of the mean, by Student's t on the differences; None with one pair.
        p_value: two-sided, exact, of Wilcoxon's signed ranks; None below six pairs, where it cannot fall
            below .05.
        pairs: number of them.
        wins: pairs where the regime is better, whichever direction better is.
        ties: pairs without a difference.
        losses: pairs where it is worse.
    """

    mean: float
    interval: Interval | None
    p_value: float | None
    pairs: int
    wins: int
    ties: int
    losses: int

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves out 0; False where there is none."""
        return leaves_out_zero(self.interval)


@dataclass(frozen=True)
class Ranking:
    """Average ranks over blocks, 1 the best (Demsar, JMLR 7, 2006).

    Args:
        regimes: best first.
        ranks: average rank of each.
        blocks: number of blocks in which all of them have a run.
        friedman_p: that all regimes rank alike; None below three regimes or two blocks.
        cliques: largest sets of neighbours in rank of which no two are told apart; none where no two of all
            could be, whatever came out.
        note: what was tested, or why nothing was.
    """

    regimes: tuple[str, ...]
    ranks: tuple[float, ...]
    blocks: int
    friedman_p: float | None
    cliques: tuple[tuple[str, ...], ...]
    note: str


def leaves_out_zero(interval: Interval | None) -> bool:
    """Return whether an interval of a difference leaves out 0; False where there is none."""
    return interval is not None and not interval.low <= 0 <= interval.high


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Return the 95 % interval of a mean by Student's t; None with fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = _t_quantile(n - 1) * deviation / n**0.5
    return Interval(mean - half, mean + half, LEVEL)


def paired_difference(
    ours: Sequence[float], theirs: Sequence[float], *, lower_is_better: bool = False
) -> PairedDifference:
    """Compare two regimes pair by pair.

    Args:
        ours: (pairs,) at least one.
        theirs: (pairs,) of the other, in the same order.
        lower_is_better: whether a smaller figure wins.
    """
    differences = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    better = -differences if lower_is_better else differences
    return PairedDifference(
        mean=float(differences.mean()),
        interval=mean_interval(differences.tolist()),
        p_value=signed_rank_p(differences),
        pairs=len(differences),
        wins=int(np.sum(better > 0)),
        ties=int(np.sum(better == 0)),
        losses=int(np.sum(better < 0)),
    )


def signed_rank_p(differences: NDArray[np.float64]) -> float | None:
    """Return the two-sided p of Wilcoxon's signed ranks (1945), exact also with ties; None below six pairs.

    Differences of 0 are left out, as Wilcoxon did; equal ones share their mean rank. Exact: over all 2**n
    signs of the ranks that came out.
    """
    if len(differences) < FEWEST_PAIRS:
        return None
    from scipy import stats

    differences = differences[differences != 0]
    # Twice the ranks, which are then whole numbers even where two share one.
    doubled = np.rint(2 * stats.rankdata(np.abs(differences))).astype(np.int64)
    share = np.ones(1)
    for rank in doubled:
        share = 0.5 * (np.pad(share, (0, rank)) + np.pad(share, (rank, 0)))
    lesser = min(int(doubled[differences > 0].sum()), int(doubled[differences < 0].sum()))
    return min(1.0, 2 * float(share[: lesser + 1].sum()))


def holm(p_values: Sequence[float | None], alpha: float = ALPHA) -> list[bool]:
    """Tell which hypotheses Holm's step-down procedure (1979) rejects; None is never rejected."""
    rejected = [False] * len(p_values)
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    for step, (p, place) in enumerate(known):
        if p > alpha / (len(p_values) - step):
            break
        rejected[place] = True
    return rejected


def rank_regimes(
    values: NDArray[np.float64], regimes: Sequence[str], *, lower_is_better: bool = False
) -> Ranking:
    """Rank regimes over blocks, and find those that are not told apart.

    Friedman's test first; where it rejects, every pair by Wilcoxon's signed ranks with Holm's correction.
    Unlike a critical difference of mean ranks, these do not depend on which other regimes are compared
    (Benavoli et al., JMLR 17, 2016).

    Args:
        values: (blocks, regimes).
        regimes: name per column.
        lower_is_better: whether rank 1 is the smallest.
    """
    from scipy import stats

    n_blocks, n_regimes = values.shape
    if n_regimes < 2:
        return Ranking((), (), n_blocks, None, (), "With one regime there is nothing to rank.")
    if not n_blocks:
        return Ranking((), (), n_blocks, None, (), "There is no block in which all regimes have a run.")
    mean_ranks = stats.rankdata(values if lower_is_better else -values, axis=1).mean(axis=0)
    order = np.argsort(mean_ranks, kind="stable").tolist()
    names = tuple(regimes[place] for place in order)
    ordered = values[:, order]
    friedman_p = _friedman_p(ordered)
    shown = names, tuple(float(mean_ranks[place]) for place in order), n_blocks, friedman_p
    n_pairs = n_regimes * (n_regimes - 1) // 2
    least = 2.0 ** (1 - n_blocks)
    if n_blocks < FEWEST_PAIRS or least > ALPHA / n_pairs:
        enough = max(FEWEST_PAIRS, int(np.ceil(1 + np.log2(n_pairs / ALPHA))))
        return Ranking(
            *shown,
            (),
            f"Too few blocks ({n_blocks}) for any two of {n_regimes} regimes to be told apart: the least p "
            f"of the signed-rank test is {least:.2g}, and Holm's correction for {n_pairs} "
            f"pair{'s' if n_pairs > 1 else ''} asks for {ALPHA / n_pairs:.2g} first. It takes {enough} "
            "blocks.",
        )
    if friedman_p is not None and friedman_p > ALPHA:
        return Ranking(*shown, (names,), f"Friedman's test tells no regimes apart (p = {friedman_p:.2g}).")
    pairs = list(combinations(range(n_regimes), 2))
    p_values = [signed_rank_p(ordered[:, one] - ordered[:, other]) for one, other in pairs]
    apart = {pair for pair, is_rejected in zip(pairs, holm(p_values), strict=True) if is_rejected}
    said = f"{len(apart)} of {n_pairs} pairs are told apart by signed ranks with Holm's correction."
    return Ranking(*shown, tuple(tuple(names[p] for p in one) for one in _cliques(n_regimes, apart)), said)


def subject_bootstrap(
    records_a: Sequence[RunRecord],
    records_b: Sequence[RunRecord],
    figure: Callable[[RunRecord], Floats | None],
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval | None:
    """Return the 95 % interval of the balanced accuracy that ``records_a`` have over ``records_b``.

    Whole judged subjects are drawn with replacement, the same for both and for all seeds; differences are
    averaged over the folds of a seed, then over seeds. So it says how far the result holds for other
    subjects, with these trainings; an interval over seeds says how far for other trainings on these subjects.

    Args:
        records_a: of one regime, data set and backbone.
        records_b: of another; runs are paired by seed and fold.
        figure: record -> (n,) how far each window is told right, 0 to 1: `quality_cost.final_credit`,
            `policy_credit`, or `credit_at` at a share. None where it does not apply.
        draws: number of bootstrap samples.
        seed: of the draws.

    Returns:
        The interval; None with fewer than two subjects, or where the figure does not apply.

    Raises:
        InputError: no two runs have seed and fold in common, or a pair was judged on different windows.
    """
    pairs = _pairs(records_a, records_b)
    subjects = np.unique(np.concatenate([one.subject for one, _ in pairs]))
    if len(subjects) < 2:
        return None
    times = drawn_subjects(len(subjects), draws, seed)
    of_seed = Counter(one.run.seed for one, _ in pairs)
    total, weights = np.zeros((2, draws))
    for one, other in pairs:
        credits = figure(one), figure(other)
        if credits[0] is None or credits[1] is None:
            return None
        column = np.searchsorted(subjects, one.subject)
        difference = drawn_balanced_means(credits[0] - credits[1], one.y, column, times)
        # A draw may hold none of a fold's subjects: the other folds and seeds stand for it.
        is_there = np.isfinite(difference)
        total[is_there] += difference[is_there] / of_seed[one.run.seed]
        weights[is_there] += 1 / of_seed[one.run.seed]
    low, high = np.quantile(total[weights > 0] / weights[weights > 0], [ALPHA / 2, 1 - ALPHA / 2])
    return Interval(float(low), float(high), LEVEL)


def _pairs(
    records_a: Sequence[RunRecord], records_b: Sequence[RunRecord]
) -> list[tuple[RunRecord, RunRecord]]:
    keyed: list[Mapping[tuple[str, str, int, int | None], RunRecord]] = [
        {(one.run.data, one.run.backbone, one.run.seed, one.run.fold): one for one in records}
        for records in (records_a, records_b)
    ]
    common = [key for key in keyed[0] if key in keyed[1]]
    if not common or len({key[:2] for key in common}) > 1:
        raise InputError(
            "`records_a` and `records_b` must be of one data set and backbone, with a seed and fold in "
            f"common. Received: {sorted(map(str, keyed[0]))} and {sorted(map(str, keyed[1]))}."
        )
    pairs = [(keyed[0][key], keyed[1][key]) for key in common]
    for one, other in pairs:
        if not (np.array_equal(one.y, other.y) and np.array_equal(one.subject, other.subject)):
            raise InputError(
                "`records_a` and `records_b` must be judged on the same windows. "
                f"Received: others for {one.run} and {other.run}."
            )
    return pairs


def _friedman_p(values: Floats) -> float | None:
    from scipy import stats

    n_blocks, n_regimes = values.shape
    if n_regimes < 3 or n_blocks < 2:
        return None
    if (values == values[:, :1]).all():
        return 1.0
    return float(stats.friedmanchisquare(*values.T).pvalue)


def _cliques(n_regimes: int, apart: set[tuple[int, int]]) -> list[range]:
    """Return the largest runs of two or more neighbours in rank of which no pair is told apart."""
    found: list[range] = []
    for first in range(n_regimes):
        last = first
        while last + 1 < n_regimes and not any((one, last + 1) in apart for one in range(first, last + 1)):
            last += 1
        if last > first and (not found or last > found[-1][-1]):
            found.append(range(first, last + 1))
    return found


@lru_cache(maxsize=256)
def _t_quantile(degrees: int) -> float:
    from scipy import stats

    return float(stats.t.ppf(1 - ALPHA / 2, degrees))
