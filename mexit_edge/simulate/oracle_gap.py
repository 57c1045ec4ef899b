"""Where a policy's cost above the oracle's comes from: how its thresholds were set, or what it scores.

The oracle stops each window at its first correct exit, which only the label can tell. Between it and the
policy stands hindsight: the cheapest thresholds of the policy's own score, set with the labels of the very
windows that are judged. What the policy costs above hindsight is lost in calibration (other subjects, a limit
held with a margin); what hindsight costs above the oracle is lost in the score, which no thresholds mend.

Hindsight is a yardstick for reports. It has seen the labels, so nothing of it may go into a policy: it is
made of a `Simulation`, which no function that sets thresholds takes.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from mexit_edge.errors import InputError
from mexit_edge.exits import NEVER, ThresholdSearch, search_thresholds
from mexit_edge.simulate.simulation import Simulation


@dataclass(frozen=True)
class OracleGap:
    """What a policy computes above the oracle, in mean multiply-accumulates per window, in two parts.

    Args:
        policy_macs: of the policy.
        hindsight_macs: of the cheapest thresholds of the same score whose balanced accuracy on the same
            windows is at least the policy's; of the policy's own where none cheaper were found.
        hindsight_thresholds: integers, one per early exit; `NEVER` for an exit that is off or left unused.
        hindsight_balanced_accuracy: what those reach.
        full_quality_macs: of the cheapest thresholds that reach the final exit's balanced accuracy.
        oracle_macs: of the oracle, over all exits, also those that are switched off.
    """

    policy_macs: float
    hindsight_macs: float
    hindsight_thresholds: tuple[int, ...]
    hindsight_balanced_accuracy: float
    full_quality_macs: float
    oracle_macs: float

    @property
    def ratio(self) -> float:
        """The policy's cost over the oracle's."""
        return self.policy_macs / self.oracle_macs

    @property
    def calibration_part(self) -> float:
        """What the policy computes above hindsight; never negative, as its own thresholds would do."""
        return self.policy_macs - self.hindsight_macs

    @property
    def score_part(self) -> float:
        """What hindsight computes above the oracle.

        Negative where hindsight is cheaper: the oracle runs windows to the end that no exit gets right, and
        is right wherever any exit is; hindsight need only be as good as the policy.
        """
        return self.hindsight_macs - self.oracle_macs

    @property
    def sentence(self) -> str:
        """The gap and its parts, for people."""
        return (
            f"The policy computes {self.ratio:.2f} times the oracle's MACs ({self.policy_macs:,.0f} against "
            f"{self.oracle_macs:,.0f}). Calibration makes {self.calibration_part:+,.0f} of the gap, the "
            f"score {self.score_part:+,.0f}: thresholds set with hindsight are as good as the policy for "
            f"{self.hindsight_macs:,.0f}, and as good as the final exit for {self.full_quality_macs:,.0f}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything in plain types."""
        return {
            **asdict(self),
            "hindsight_thresholds": list(self.hindsight_thresholds),
            "ratio": self.ratio,
            "calibration_part": self.calibration_part,
            "score_part": self.score_part,
            "sentence": self.sentence,
        }


# Table, page and JSON of a run ask for the same one, and with five exits the searches take seconds.
@lru_cache(maxsize=1)
def oracle_gap(simulation: Simulation) -> OracleGap | None:
    """Split what a policy computes above the oracle; None without a policy, or with one exit.

    Args:
        simulation: of windows whose labels the policy has not seen.
    """
    n_exits = len(simulation.exits)
    if not simulation.has_policy or n_exits == 1:
        return None
    on = np.flatnonzero(simulation.rule.enabled)
    search = partial(
        search_thresholds,
        simulation.scores[:, on],
        simulation.rule_labels[:, on],
        simulation.y,
        simulation.exit_macs[on].tolist(),
    )
    reached, final = simulation.policy_balanced_accuracy, simulation.balanced_accuracies[-1]
    found: ThresholdSearch | None = None
    # Of more exits than are searched exactly, nothing as good as the policy may be found.
    with suppress(InputError):
        found = search(floor=reached, on_bound=False)
    thresholds = np.asarray(simulation.thresholds_int, np.int64)
    macs, quality = simulation.mean_macs, reached
    # A grid of quantiles may miss the policy's own thresholds, which are as good as themselves.
    if found is not None and found.mean_cost < macs:
        thresholds = np.full(n_exits - 1, NEVER, np.int64)
        thresholds[on[:-1]] = found.thresholds
        macs, quality = found.mean_cost, found.quality
    return OracleGap(
        policy_macs=simulation.mean_macs,
        hindsight_macs=macs,
        hindsight_thresholds=tuple(thresholds.tolist()),
        hindsight_balanced_accuracy=quality,
        full_quality_macs=search(floor=final, on_bound=False).mean_cost,
        oracle_macs=simulation.oracle_mean_macs,
    )
