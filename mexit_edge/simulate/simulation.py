"""What a bundle did on windows: every exit of every window, and the policy's run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from mexit_edge.estimate import BundleEstimate, unknown_operations
from mexit_edge.exits import (
    ExitRule,
    Interval,
    balanced_accuracy,
    decide,
    expected_calibration_error,
    oracle_exits,
    paired_drop_interval,
    softmax,
)


@dataclass(frozen=True, eq=False)
class Simulation:
    """Results of one bundle on one set of windows, executed by one engine.

    Args:
        engine: name of the engine that computed every figure.
        data: name of the data set.
        y: (n,) labels.
        subject: (n,) subject per window.
        classes: name per class.
        exits: name per exit, E of them.
        logits: (n, E, classes) int8 logits of every exit, whether or not the policy went that far.
        scales: (E,) quantization scale of each exit's logits.
        stage_macs: (E,) multiply-accumulates of each stage.
        rule: what decided.
        has_policy: whether thresholds were in force; without any, every window ran to the final exit.
        exit: (n,) exit at which the policy's own staged run left, 1 to E.
        label: (n,) class that this run decided on.
        invocations: (E,) windows that each stage was run for in the policy's run.
        estimate: latency and energy on a device, or None.
    """

    engine: str
    data: str
    y: NDArray[np.int64]
    subject: NDArray[np.int64]
    classes: tuple[str, ...]
    exits: tuple[str, ...]
    logits: NDArray[np.int8]
    scales: tuple[float, ...]
    stage_macs: tuple[int, ...]
    rule: ExitRule
    has_policy: bool
    exit: NDArray[np.int64]
    label: NDArray[np.int64]
    invocations: tuple[int, ...]
    estimate: BundleEstimate | None = None

    def __str__(self) -> str:
        """Return a line per exit, one for the policy, and one on what the policy loses."""
        lines = [f"{len(self):,} windows of {self.data}, executed on int8 stages ({self.engine})"]
        for index, name in enumerate(self.exits):
            lines.append(
                f"{name}: balanced accuracy {self.balanced_accuracies[index]:.4f}, "
                f"{self.exit_macs[index]:,} MACs"
            )
        lines.append(
            f"policy: balanced accuracy {self.policy_balanced_accuracy:.4f}, {self.mean_macs:,.0f} MACs "
            f"({self.mean_macs / self.full_macs:.1%} of all), exits "
            + " / ".join(f"{share:.1%}" for share in self.exit_shares)
        )
        lines.append(self.drop_sentence)
        if self.estimate is not None:
            lines.append(self._latency_sentence(self.estimate))
        return "\n".join(lines)

    def _latency_sentence(self, estimate: BundleEstimate) -> str:
        latency = estimate.expected(self.exit_shares).estimated_latency_ms
        where = f"{estimate.device} ({estimate.stack})"
        if latency is None:
            unknown = unknown_operations(chain.from_iterable(estimate.operations))
            return f"Latency on {where} is unknown: nothing is known of {', '.join(unknown)}."
        return (
            f"Estimated on {where}: {latency.value:.2f} ms per window [{latency.low:.2f}, {latency.high:.2f}]"
        )

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.y)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(n, E) class with the largest logit at each exit; ties take the lowest class."""
        return self.logits.argmax(axis=2)

    @cached_property
    def exit_macs(self) -> NDArray[np.int64]:
        """(E,) multiply-accumulates of a window that leaves at each exit."""
        return np.cumsum(self.stage_macs)

    @cached_property
    def scores(self) -> NDArray[np.int64]:
        """(n, E) integer scores of every exit."""
        return self.rule.score(self.logits)[0]

    @cached_property
    def rule_labels(self) -> NDArray[np.int64]:
        """(n, E) class that the rule gives a window which leaves at each exit; `predicted` but for votes."""
        return self.rule.score(self.logits)[1]

    @property
    def score(self) -> str:
        """Name of the policy's score."""
        return self.rule.scores[0].name

    @property
    def thresholds_int(self) -> tuple[int, ...]:
        """(E - 1,) integer thresholds; none without a policy."""
        return self.rule.thresholds if self.has_policy else ()

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Accuracy when every window leaves at each exit."""
        return tuple(float(np.mean(column == self.y)) for column in self.predicted.T)

    @property
    def balanced_accuracies(self) -> tuple[float, ...]:
        """Balanced accuracy when every window leaves at each exit."""
        return tuple(balanced_accuracy(self.y, column) for column in self.predicted.T)

    @property
    def policy_accuracy(self) -> float:
        """Accuracy of the policy."""
        return float(np.mean(self.label == self.y))

    @property
    def policy_balanced_accuracy(self) -> float:
        """Balanced accuracy of the policy."""
        return balanced_accuracy(self.y, self.label)

    @property
    def drop(self) -> float:
        """Balanced accuracy that the policy loses against the final exit, as a share."""
        return self.balanced_accuracies[-1] - self.policy_balanced_accuracy

    @cached_property
    def drop_interval(self) -> Interval | None:
        """Bootstrap interval of `drop` over subjects, level 0.95; None with fewer than two subjects."""
        return paired_drop_interval(self.y, self.predicted[:, -1], self.label, self.subject)

    @property
    def drop_sentence(self) -> str:
        """What the policy loses, with its interval, in one sentence."""
        if not self.has_policy:
            return "There is no policy: every window ran to the final exit."
        loss = f"The policy loses {100 * self.drop:.2f} points of balanced accuracy against the final exit"
        interval = self.drop_interval
        if interval is None:
            return f"{loss} (interval unknown: one subject)."
        return (
            f"{loss} [{100 * interval.low:.2f}, {100 * interval.high:.2f}] "
            f"({interval.level:.0%} subject bootstrap)."
        )

    @property
    def exit_shares(self) -> tuple[float, ...]:
        """Share of windows that leave at each exit."""
        return tuple(float(np.mean(self.exit == number)) for number in range(1, len(self.exits) + 1))

    @property
    def mean_macs(self) -> float:
        """Mean multiply-accumulates per window under the policy."""
        return float(self.exit_macs[self.exit - 1].mean())

    @property
    def full_macs(self) -> int:
        """Multiply-accumulates of the full network."""
        return int(self.exit_macs[-1])

    @cached_property
    def oracle_exit(self) -> NDArray[np.int64]:
        """(n,) exit of the oracle: the first correct one, else the last."""
        return oracle_exits(self.y, self.predicted)

    @property
    def oracle_balanced_accuracy(self) -> float:
        """Balanced accuracy of the oracle."""
        rows = np.arange(len(self))
        return balanced_accuracy(self.y, self.predicted[rows, self.oracle_exit - 1])

    @property
    def oracle_mean_macs(self) -> float:
        """Mean multiply-accumulates per window of the oracle."""
        return float(self.exit_macs[self.oracle_exit - 1].mean())

    def probabilities(self, exit_number: int) -> NDArray[np.float64]:
        """Return (n, classes) softmax probabilities of exit 1 to E, from its dequantized logits."""
        index = exit_number - 1
        return softmax(self.logits[:, index].astype(np.float64) * self.scales[index])

    def calibration_error(self, exit_number: int) -> float:
        """Return the expected calibration error of exit 1 to E (15 bins of equal mass)."""
        confidence = self.probabilities(exit_number).max(axis=1)
        return expected_calibration_error(confidence, self.predicted[:, exit_number - 1] == self.y)

    def tradeoff(self, steps: int = 200) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the curve of the score: one threshold, swept over all exits at once.

        Thresholds are compared in the score's own float unit, so that one value means the same at each exit.
        The sweep looks at labels only to draw the curve; no threshold is taken from it.

        Args:
            steps: number of thresholds, at quantiles of the scores.

        Returns:
            mean MACs (steps,) in ascending order, and balanced accuracy (steps,).
        """
        early = (self.scores * np.asarray([score.unit for score in self.rule.scores]))[:, :-1]
        on = np.asarray(self.rule.enabled[:-1], bool)
        if not on.any():
            return np.asarray([float(self.full_macs)]), np.asarray(self.balanced_accuracies[-1:])
        sweep = np.append(np.quantile(early[:, on], np.linspace(0, 1, steps - 1)), np.inf)
        rows = np.arange(len(self))
        exits = [decide(early, np.where(on, threshold, np.inf).tolist()) for threshold in sweep]
        macs = np.asarray([self.exit_macs[exit_ - 1].mean() for exit_ in exits])
        quality = np.asarray(
            [balanced_accuracy(self.y, self.rule_labels[rows, exit_ - 1]) for exit_ in exits]
        )
        order = np.argsort(macs, kind="stable")
        return macs[order], quality[order]
