"""Sample counters from times that jitter: which step is a gap, and how fast the sensor samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A step of more than this many usual ones is a gap, where all others are equal. With jitter it takes more:
# so many times the mean by which times lie off; of normal jitter 2.4 standard deviations.
_GAP = 1.5
_JITTERS = 3.0
# Share of a sample's deviation by which the clock is set right: small enough for jitter to average out, large
# enough to follow a sampling rate that is off by 1 % with a lag of a third of a period.
_CORRECTION = 1 / 32
# First rows tell no sampling rate where they lie further off than this, in periods in the mean, or with more
# than two gaps that take more than this share of the time: rows that are stamped by the packet, for example.
_MAX_JITTER = 1 / 3
_MAX_GAP_TIME = 0.25
_FEW_GAPS = 2
# Steps up to this one are none.
_NO_STEP_S = 1e-9
_MAX_STEPS = 1e9


@dataclass(frozen=True)
class FirstTimes:
    """What the times of the first rows tell about the sampling.

    Args:
        rate_hz: sampling rate; None where they are too few or too irregular to tell.
        jitter: mean deviation of a time from where its counter puts it, in periods.
        equal: how many of the steps are 0.
        steps_s: the shortest, the usual and the longest step in seconds; None where none is longer than 0.
    """

    rate_hz: float | None
    jitter: float
    equal: int
    steps_s: tuple[float, float, float] | None


class Clock:
    """Counters of samples, from their times.

    A sample is due one period after the one before was due, set right by a small share of each deviation:
    jitter thus neither makes gaps nor adds up, and a rate that is slightly off is followed. A sample that
    comes so late that jitter does not explain it ends a gap of as many periods as it is late, rounded. In
    strong jitter a short gap may be seen a few samples late.

    Args:
        rate_hz: sampling rate.
        jitter: mean deviation of a time to begin with, in periods.
    """

    def __init__(self, rate_hz: float, jitter: float) -> None:
        self._rate_hz = rate_hz
        self._jitter = jitter
        self._counter = -1
        self._due_s: float | None = None

    def read(self, times_s: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the counter (m,) of each row by its time in seconds; block after block."""
        rate_hz, jitter, counter = self._rate_hz, self._jitter, self._counter
        due_s = float(times_s[0]) if self._due_s is None else self._due_s
        index = np.empty(len(times_s), np.int64)
        for row, time_s in enumerate(times_s.tolist()):
            counter += 1
            late = (time_s - due_s) * rate_hz
            if late > _GAP - 1 + _JITTERS * jitter:
                missing = max(1, round(late))
                counter += missing
                due_s += missing / rate_hz
                late -= missing
            # Twice what comes early: a gap that is not seen yet makes samples late, and is no jitter.
            jitter += _CORRECTION * (2 * max(-late, 0.0) - jitter)
            # At first the mean of all samples, so that the jitter of the very first does not stay.
            due_s += (1 + max(_CORRECTION, 1 / (counter + 2)) * late) / rate_hz
            index[row] = counter
        self._jitter, self._counter, self._due_s = jitter, counter, due_s
        return index


def read_first_times(times_s: NDArray[np.float64]) -> FirstTimes:
    """Return what the times of the first rows tell.

    The rate is the slope of the line through counters and times, so that samples which are missing count as
    time and jitter averages out. Times rounded to more than two thirds of a period, such as milliseconds at
    800 Hz, look like lost samples: there the rate has to be stated.

    Args:
        times_s: (m,) in seconds, as they stand in the file.
    """
    steps_s = np.diff(times_s)
    moving_s = steps_s[steps_s > _NO_STEP_S]
    equal = int((np.abs(steps_s) <= _NO_STEP_S).sum())
    if not len(moving_s):
        return FirstTimes(None, 0.0, equal, None)
    # One that is there, also of an even number.
    usual_s = float(np.sort(moving_s)[(len(moving_s) - 1) // 2])
    told = (float(steps_s.min()), usual_s, float(steps_s.max()))
    near_s = moving_s[moving_s < 1.75 * usual_s]
    jitter = float(np.abs(near_s / usual_s - 1).mean())
    is_gap = steps_s > (_GAP + _JITTERS * jitter) * usual_s
    many_gaps = is_gap.sum() > _FEW_GAPS and steps_s[is_gap].sum() > _MAX_GAP_TIME * steps_s.sum()
    if many_gaps or told[0] < 0 or told[2] > _MAX_STEPS * usual_s:
        return FirstTimes(None, jitter, equal, told)
    # The one guess is better without gaps, the other with gaps that jitter hides.
    guesses_s = steps_s[~is_gap].mean(), near_s[near_s > 0.25 * usual_s].mean()
    jitter, period_s = min(_fit(times_s, float(guess_s), jitter) for guess_s in guesses_s)
    return FirstTimes(1 / period_s if jitter <= _MAX_JITTER else None, jitter, equal, told)


def _fit(times_s: NDArray[np.float64], period_s: float, jitter: float) -> tuple[float, float]:
    """Return jitter and period of the line through counters and times, the counters by a period's guess."""
    index = Clock(1 / period_s, jitter).read(times_s)
    periods = (times_s - times_s[0]) / period_s
    slope, start = np.polyfit(index, periods, 1)
    return float(np.abs(periods - start - slope * index).mean() / slope), float(slope * period_s)
