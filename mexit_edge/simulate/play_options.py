"""How streams are played."""

from __future__ import annotations

from dataclasses import dataclass, field

from mexit_edge.bundle import Manifest
from mexit_edge.errors import InputError
from mexit_edge.exits import BudgetController, Chain, TemporalRule, make_temporal
from mexit_edge.signals import Health
from mexit_edge.signals.stream_windows import MAX_FILL
from mexit_edge.simulate.brown_out import BrownOut
from mexit_edge.simulate.costs import Supply
from mexit_edge.simulate.queue import Queue


@dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """How streams are played.

    Args:
        temporal: rules over the decisions of a stream, in the order in which they act; None for those of the
            bundle's policy. They start anew with each stream.
        controller: sets the thresholds from window to window, from its start on; it is not changed.
            A window costs it what its exit costs in its table, a stage that is run again counts once more,
            and a window that is not computed costs 0. None for the thresholds of the policy.
        brown_out: where the supply is lost; None for never.
        waiting: windows that may wait while another is computed; one more is lost ("overrun").
        supply: how the device rests, and its battery.
        max_fill: missing samples in a row that are filled (`StreamWindows`).
        health: which windows are rejected for their samples; None for the defaults.
        all_exits: also run every window to the final exit, which `compare` needs; costs of the device and
            decisions stay as they are.
        executed: invoke stage after stage, window after window, as a device does: the slow way that the fast
            one is tested against.
        batch: windows that are played at a time: memory grows with it, and with nothing else but 60 bytes per
            window. What comes out does not depend on it.

    Raises:
        InputError: a figure is out of its range.
    """

    temporal: tuple[TemporalRule, ...] | None = None
    controller: BudgetController | None = None
    brown_out: BrownOut | None = None
    waiting: int = 1
    supply: Supply = field(default_factory=Supply)
    max_fill: int = MAX_FILL
    health: Health | None = None
    all_exits: bool = False
    executed: bool = False
    batch: int = 1024

    def __post_init__(self) -> None:
        Queue(self.waiting)
        if self.batch < 1:
            raise InputError(f"`batch` must be a positive number of windows. Received: {self.batch}.")
        if self.temporal:
            Chain(self.temporal)

    def temporal_rule(self, manifest: Manifest) -> Chain | None:
        """Return the temporal rules in force, as one; None where there is none."""
        rules = self.temporal
        if rules is None:
            specs = manifest.policy.temporal if manifest.policy else ()
            rules = tuple(make_temporal(spec.name, **spec.options) for spec in specs)
        return Chain(rules) if rules else None

    def boot_ms(self) -> float:
        """Return what a brown-out takes until the processor goes on."""
        return self.brown_out.boot_ms if self.brown_out else 0.0
