"""The policy in the manifest: what decides, and what it rests on."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt, model_validator

from mexit_edge.bundle.spec import ExitName, Int32, Positive, Share, Spec, Subjects
from mexit_edge.exits import MOST_RULES, BudgetController, Chain, RiskControl, make_temporal


class RiskSpec(Spec):
    """A risk that was controlled; see `mexit_edge.exits.RiskControl`. Without a `level` nothing passed."""

    method: str
    loss: str
    eps: Share
    delta: Share
    unit: Literal["window", "subject"]
    n: PositiveInt
    level: NonNegativeInt | None
    risk: FiniteFloat
    bound: FiniteFloat
    least_eps: FiniteFloat | None

    def to_control(self) -> RiskControl:
        """Return the risk control that this describes."""
        return RiskControl(
            self.level, self.risk, self.bound, self.least_eps, self.n, self.method, self.eps, self.delta
        )


class SupportSpec(Spec):
    """What the calibration windows say of one threshold; see `mexit_edge.exits.ExitSupport`."""

    exit: ExitName
    windows: NonNegativeInt
    losses: NonNegativeInt
    loss_rate_low: Share | None
    loss_rate_high: Share | None
    supported: bool


class TemperatureSpec(Spec):
    """What a temperature does on the calibration windows; see `mexit_edge.exits.TemperatureFit`."""

    exit: ExitName
    temperature: Positive
    ece_before: Share
    ece_after: Share
    at_limit: bool


class Calibration(Spec):
    """How and on whose data the thresholds were set.

    `held_out`: on logits of this bundle, executed by `engine`, on windows of subjects new to its network.
    `out_of_fold`: on logits of `folds` float networks, each trained without the subjects whose windows it
    judged, so that no engine was involved; the bundle's own network is another one, refitted on all subjects.

    Of `max_drop`, `floor`, `budget`, `ratio` and `risk` one is there: what the thresholds were set for; none
    where they were set by hand. `exact` is None where nothing was searched. `mean_cost`, `balanced_accuracy`,
    `drop` and `support` are those of the calibration windows, which the thresholds were fitted to.
    """

    came_later = (
        "kind",
        "folds",
        "floor",
        "budget",
        "ratio",
        "risk",
        "mean_cost",
        "balanced_accuracy",
        "support",
        "temperatures",
    )

    data: str
    subjects: Subjects
    n_windows: PositiveInt
    max_drop: Share | None
    drop: FiniteFloat
    drop_upper: FiniteFloat
    cost: str
    exact: bool | None
    engine: str | None
    kind: Literal["held_out", "out_of_fold"] = "held_out"
    folds: Annotated[int, Field(ge=2)] | None = None
    floor: Share | None = None
    budget: Positive | None = None
    ratio: Positive | None = None
    risk: RiskSpec | None = None
    mean_cost: FiniteFloat | None = None
    balanced_accuracy: Share | None = None
    support: tuple[SupportSpec, ...] = ()
    temperatures: tuple[TemperatureSpec, ...] = ()

    @model_validator(mode="after")
    def _kind_fits(self) -> Self:
        if self.kind == "held_out" and (self.engine is None or self.folds is not None):
            raise ValueError("a `held_out` calibration needs its `engine`, and has no `folds`")
        if self.kind == "out_of_fold" and (self.folds is None or self.engine is not None):
            raise ValueError("an `out_of_fold` calibration needs its `folds`, and has no `engine`")
        goals = (self.max_drop, self.floor, self.budget, self.ratio, self.risk)
        if sum(goal is not None for goal in goals) > 1:
            raise ValueError("a calibration has one goal: `max_drop`, `floor`, `budget`, `ratio` or `risk`")
        return self


class GateSpec(Spec):
    """Integers of one exit's gate, for the score `learned`; see `mexit_edge.exits.Gate`."""

    weights: tuple[Int32, ...]
    bias: Int32


class TemporalSpec(Spec):
    """A rule over the decisions of a stream; see `mexit_edge.exits.make_temporal`."""

    name: str
    options: dict[str, int] = Field(default_factory=dict)


class ControllerSpec(Spec):
    """What holds a mean cost at run time; see `mexit_edge.exits.BudgetController`.

    Costs and budget are whole numbers, of which one stands for `unit_cost` of `unit`. `step`, `start`,
    `lowest` and `highest` follow from the rest and are there for the firmware.
    """

    family: Annotated[tuple[tuple[Int32, ...], ...], Field(min_length=2, max_length=1024)]
    costs: tuple[PositiveInt, ...]
    budget: PositiveInt
    unit: str
    unit_cost: Positive
    horizon: PositiveInt
    tolerance: Share
    step: PositiveInt
    start: Int32
    lowest: Int32
    highest: Int32

    @classmethod
    def of(cls, controller: BudgetController, *, unit: str, unit_cost: float) -> Self:
        """Return what describes a controller."""
        return cls(
            family=tuple(tuple(row) for row in controller.family.tolist()),
            costs=controller.costs,
            budget=controller.budget,
            unit=unit,
            unit_cost=unit_cost,
            horizon=controller.horizon,
            tolerance=controller.tolerance,
            step=controller.step,
            start=controller.start,
            lowest=controller.lowest,
            highest=controller.highest,
        )

    @model_validator(mode="after")
    def _follows(self) -> Self:
        made = self.to_controller()
        for name in ("step", "start", "lowest", "highest"):
            if getattr(made, name) != getattr(self, name):
                raise ValueError(f"`{name}` must be {getattr(made, name)}, as the other fields make it")
        return self

    def to_controller(self) -> BudgetController:
        """Return the controller that this describes."""
        return BudgetController(
            self.family, self.costs, self.budget, horizon=self.horizon, tolerance=self.tolerance
        )


class Policy(Spec):
    """Score and thresholds, one per early exit; the integers decide, the floats are for display.

    An exit in `off` is never scored, and its threshold is not looked at. `temporal` holds rules for streams,
    in the order in which they act on decisions. Over a stream a `controller` may take the thresholds' place.
    """

    came_later = ("score_options", "gates", "off", "temporal", "controller")

    score: str
    thresholds: tuple[FiniteFloat, ...]
    thresholds_int: tuple[Int32, ...]
    temperatures: tuple[Positive, ...] | None = None
    calibration: Calibration | None = None
    score_options: dict[str, FiniteFloat] = Field(default_factory=dict)
    gates: tuple[GateSpec, ...] = ()
    off: tuple[ExitName, ...] = ()
    temporal: Annotated[tuple[TemporalSpec, ...], Field(max_length=MOST_RULES)] = ()
    controller: ControllerSpec | None = None

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.thresholds) != len(self.thresholds_int):
            raise ValueError("`thresholds` and `thresholds_int` need the same length")
        if self.controller is not None and len(self.controller.costs) != len(self.thresholds) + 1:
            raise ValueError(f"`controller` needs one cost per exit ({len(self.thresholds) + 1})")
        self.temporal_rule()
        return self

    def temporal_rule(self) -> Chain | None:
        """Return the rules over decisions of a stream as one; None where there is none."""
        rules = tuple(make_temporal(rule.name, **rule.options) for rule in self.temporal)
        return Chain(rules) if rules else None
