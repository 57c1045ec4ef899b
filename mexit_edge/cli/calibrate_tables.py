"""`mexit calibrate`: what the policy does on the calibration windows, for people and for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mexit_edge.bundle import Bundle, Calibration, Policy
from mexit_edge.bundle.card import calibration_goal, temporal_words
from mexit_edge.errors import InputError
from mexit_edge.exits import NEVER, BudgetedPoint
from mexit_edge.simulate import ExitCosts


def print_calibration(bundle: Bundle, costs: ExitCosts, written: Path, screen: Console) -> None:
    """Print the thresholds of a calibrated bundle, what they rest on, and where it was written."""
    policy, calibration = _calibrated(bundle)
    screen.print(_table(bundle, policy, calibration))
    for line in _sentences(policy, calibration, costs):
        screen.print(line, markup=False)
    screen.print(f"Written: {written}", markup=False, soft_wrap=True)


def _table(bundle: Bundle, policy: Policy, calibration: Calibration) -> Table:
    table = Table(
        title=f"{policy.score} on {calibration.n_windows:,} windows of {calibration.data}, subjects "
        f"{', '.join(map(str, calibration.subjects))}"
    )
    table.add_column("exit", no_wrap=True)
    for heading in (
        "threshold",
        "integer",
        "windows\nleave",
        "of them\nlost",
        "90 % interval",
        "sup-\nported",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    support = {one.exit: one for one in calibration.support}
    for name, value, integer in zip(
        bundle.manifest.exits, policy.thresholds, policy.thresholds_int, strict=False
    ):
        if name in policy.off or integer == NEVER:
            table.add_row(name, "off" if name in policy.off else "never", "", "0", "", "", "")
            continue
        one = support[name]
        known = one.loss_rate_low is not None and one.loss_rate_high is not None
        table.add_row(
            name,
            f"{value:.4g}",
            f"{integer:,}",
            f"{one.windows:,}",
            f"{one.losses:,}",
            f"{one.loss_rate_low:.1%} to {one.loss_rate_high:.1%}" if known else "unknown",
            "yes" if one.supported else "NO",
        )
    return table


def _sentences(policy: Policy, calibration: Calibration, costs: ExitCosts) -> list[str]:
    lines = [
        f"Set for {calibration_goal(calibration)}.",
        f"On these windows: balanced accuracy {calibration.balanced_accuracy:.4f}, "
        f"{100 * calibration.drop:.2f} points below the final exit (upper 90 % bound of what is lost: "
        f"{100 * calibration.drop_upper:.2f}), mean cost {calibration.mean_cost:,.6g} of "
        f"{costs.values[-1]:,.6g} {costs.unit}.",
    ]
    if unsupported := [one.exit for one in calibration.support if not one.supported]:
        lines.append(
            f"NOT SUPPORTED: {', '.join(unsupported)}. These windows are too few, or lose too much at the "
            "upper end of the interval, to rely on this threshold: calibrate on more windows, switch the "
            "exit off, or allow a larger loss."
        )
    if calibration.risk is not None:
        lines.append(calibration.risk.to_control().sentence)
        lines.append(
            "That holds for units drawn as these were; windows of other subjects are not. docs/decisions.md "
            "has what it is worth to them."
        )
    if policy.temperatures is not None:
        lines += [
            f"{one.exit}: temperature {one.temperature:.3g}, calibration error {one.ece_before:.4f} before, "
            f"{one.ece_after:.4f} after"
            + (" (the temperature is at the end of its range: too little data)" if one.at_limit else "")
            for one in calibration.temperatures
        ]
    if policy.temporal:
        lines.append(f"Over a stream: {', '.join(temporal_words(rule) for rule in policy.temporal)}.")
    if policy.controller is not None:
        held = policy.controller
        lines.append(
            f"A controller holds {held.budget * held.unit_cost:,.6g} {held.unit} in the mean over "
            f"{held.horizon:,} windows, within {held.tolerance:.0%}, with {len(held.family)} levels."
        )
    return lines


def calibration_facts(
    bundle: Bundle, costs: ExitCosts, points: Sequence[BudgetedPoint], written: Path
) -> dict[str, Any]:
    """Return the policy, what windows cost, and the budgeted curve, in plain types."""
    policy, _ = _calibrated(bundle)
    return {
        "written": str(written),
        "policy": policy.model_dump(mode="json"),
        "costs": dict(zip(bundle.manifest.exits, costs.values, strict=True)),
        "cost_unit": costs.unit,
        "curve": [
            {
                "ratio": point.p,
                "thresholds_int": list(point.thresholds),
                "mean_cost": point.mean_cost,
                "balanced_accuracy": point.quality,
                "exit_shares": list(point.exit_shares),
            }
            for point in points
        ],
    }


def _calibrated(bundle: Bundle) -> tuple[Policy, Calibration]:
    policy = bundle.manifest.policy
    if policy is None or policy.calibration is None:
        raise InputError("the bundle must be calibrated. Received: one without a policy.")
    return policy, policy.calibration
