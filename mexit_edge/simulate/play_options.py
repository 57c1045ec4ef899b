"""How streams are played."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from mexit_edge.bundle import Manifest
from mexit_edge.errors import InputError
from mexit_edge.exits import BudgetController, Chain, TemporalRule
from mexit_edge.signals import Health
from mexit_edge.signals.stream_windows import MAX_FILL
from mexit_edge.simulate.brown_out import BrownOut
from mexit_edge.simulate.costs import Supply
from mexit_edge.simulate.queue import Queue

# Of 128 samples of six channels, half overlapping, 200 MB.
MAX_BATCH = 65_536


@dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """How streams are played.

    Args:
        temporal: rules over the decisions of a stream, in the order in which they act; None for those of the
            bundle's policy. They start anew with each stream.
        controller: sets the thresholds from window to window, from its start on; it is not changed.
            A window costs it what its exit costs in its table, a stage that is run again counts once more,
            and a window that is not computed costs 0. None for that of the bundle's policy, if it has one.
        fixed_thresholds: whether the thresholds of the policy are kept, whatever controller there is.
        brown_out: where the supply is lost; None for never.
        waiting: windows that may wait while another is computed; one more is lost ("overrun").
        supply: how the device rests, and its battery.
        max_fill: missing samples in a row that are filled (`StreamWindows`).
        health: which windows are rejected for their samples; None for the defaults.
        all_exits: also run every window to the final exit, which `compare` needs; costs of the device and
            decisions stay as they are.
        executed: invoke stage after stage, window after window, as a device does: the slow way that the fast
            one is tested against.
        batch: windows that are played at a time, at most `MAX_BATCH`: memory grows with it, and with nothing
            else but 60 bytes per window. What comes out does not depend on it.

    Raises:
        InputError: a figure is out of its range.
    """

    temporal: tuple[TemporalRule, ...] | None = None
    controller: BudgetController | None = None
    fixed_thresholds: bool = False
    brown_out: BrownOut | None = None
    waiting: int = 1
    supply: Supply = field(default_factory=Supply)
    max_fill: int = MAX_FILL
    health: Health | None = None
    all_exits: bool = False
    executed: bool = False
    batch: int = 2048

    def __post_init__(self) -> None:
        Queue(self.waiting)
        if not 1 <= self.batch <= MAX_BATCH:
            raise InputError(
                f"`batch` must be a number of windows from 1 to {MAX_BATCH:,}. Received: {self.batch}. "
                "It changes no result."
            )
        if self.temporal:
            Chain(self.temporal)

    def temporal_rule(self, manifest: Manifest) -> Chain | None:
        """Return the temporal rules in force, as one; None where there is none."""
        if self.temporal is None:
            return manifest.policy.temporal_rule() if manifest.policy else None
        return Chain(self.temporal) if self.temporal else None

    def budget_controller(self, manifest: Manifest) -> BudgetController | None:
        """Return the controller in force, at its start and one's own to change; None where there is none.

        Raises:
            InputError: the one of these options has not one cost per exit.
        """
        if self.fixed_thresholds:
            return None
        if self.controller is None:
            spec = manifest.policy.controller if manifest.policy else None
            return None if spec is None else spec.to_controller()
        controller, exits = copy.copy(self.controller), manifest.exits
        if len(controller.costs) != len(exits):
            raise InputError(
                f"`controller` must have one cost per exit ({len(exits)}: {', '.join(exits)}). "
                f"Received: {len(controller.costs)} costs."
            )
        controller.reset()
        return controller

    def boot_ms(self) -> float:
        """Return what a brown-out takes until the processor goes on."""
        return self.brown_out.boot_ms if self.brown_out else 0.0
