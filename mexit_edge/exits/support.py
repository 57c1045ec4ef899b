"""Whether calibration windows can support a threshold, with the interval that says so.

A threshold that three windows have set says little about the next window that passes it. So per early exit:
how many windows leave there, and how many of them are lost, which the final exit would have got right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.exits.metrics import Interval
from mexit_edge.exits.risk_bounds import binomial_cdf, least_passing
from mexit_edge.exits.rule import NEVER, decide
from mexit_edge.exits.search import checked_scores

LEVEL = 0.90
# Without a single loss, this is the least number of windows that holds the loss rate below one in ten at the
# interval's upper end: 0.05 ** (1 / 29) > 0.9.
MIN_WINDOWS = 29


@dataclass(frozen=True)
class ExitSupport:
    """What calibration windows say about the threshold of one early exit.

    Every window counts the same here, whatever its class, and windows are taken as independent.

    Args:
        exit: number of the exit, from 1.
        threshold: of the exit; `NEVER` where it is not used.
        n_windows: calibration windows.
        windows: of these, those that leave here.
        losses: of these, those that the final exit gets right and this exit does not.
        interval: of the loss rate, losses among the windows that leave here; None without such windows.
        max_drop: share of all windows that may be lost; None where nothing is asked.
    """

    exit: int
    threshold: int
    n_windows: int
    windows: int
    losses: int
    interval: Interval | None
    max_drop: float | None

    @property
    def loss_rate(self) -> float | None:
        """Losses per window that leaves here; None without such windows."""
        return self.losses / self.windows if self.windows else None

    @property
    def drop_upper(self) -> float | None:
        """Share of all windows that is lost here at the upper end of the interval; None without windows."""
        return self.interval.high * self.windows / self.n_windows if self.interval else None

    @property
    def supported(self) -> bool:
        """Whether the windows can support the threshold.

        They can when enough of them leave here to tell anything (`MIN_WINDOWS`), and when even at the upper
        end of the interval this exit by itself loses no more than is allowed. Otherwise the data does not
        rule out that this one threshold breaks the limit. Several exits may still do so together: that is for
        the bound of the search, or for risk control. An exit that is not used needs no support.
        """
        if self.threshold == NEVER:
            return True
        if self.drop_upper is None or self.windows < MIN_WINDOWS:
            return False
        return self.max_drop is None or self.drop_upper <= self.max_drop


def threshold_support(
    thresholds: Sequence[int],
    scores: NDArray[Any],
    predicted: NDArray[Any],
    y: NDArray[Any],
    max_drop: float | None = None,
) -> tuple[ExitSupport, ...]:
    """Tell for every early exit whether the windows can support its threshold.

    Args:
        thresholds: one integer per early exit.
        scores: (n, E - 1) or (n, E) integer scores; the final exit's own are never looked at.
        predicted: (n, E) class decided when a window leaves at each exit.
        y: (n,) labels.
        max_drop: share of all windows that may be lost; None to ask only for enough windows.

    Raises:
        InputError: shapes do not fit.
    """
    scores = checked_scores(scores, predicted, y)
    left_at = decide(scores, thresholds)
    correct = predicted == y[:, None]
    supports = []
    for number, threshold in enumerate(thresholds, start=1):
        here = left_at == number
        windows, losses = int(here.sum()), int((here & correct[:, -1] & ~correct[:, number - 1]).sum())
        interval = clopper_pearson(losses, windows) if windows else None
        supports.append(ExitSupport(number, int(threshold), len(y), windows, losses, interval, max_drop))
    return tuple(supports)


def clopper_pearson(events: int, n: int, level: float = LEVEL) -> Interval:
    """Return the interval of a probability that covers it at least as often as it says.

    The ends are the probabilities at which so many events or more, so many or fewer, have probability
    (1 - level) / 2 (Clopper and Pearson, Biometrika 26, 1934, doi 10.1093/biomet/26.4.404).

    Args:
        events: how often it happened.
        n: out of how many times, at least one.
        level: nominal coverage, between 0 and 1.

    Raises:
        InputError: more events than times, none of the latter, or a level outside (0, 1).
    """
    if not 0 <= events <= n or n < 1 or not 0 < level < 1:
        raise InputError(
            "`events` must be from 0 to `n`, `n` at least 1 and `level` between 0 and 1. "
            f"Received: {events}, {n} and {level}."
        )
    return Interval(1 - _upper_end(n - events, n, level), _upper_end(events, n, level), level)


def _upper_end(events: int, n: int, level: float) -> float:
    """Return the probability at which so many events or fewer have probability (1 - level) / 2."""
    if events == n:
        return 1.0
    return least_passing(lambda p: bool(binomial_cdf(n, p)[events] <= (1 - level) / 2))
