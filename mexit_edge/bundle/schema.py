"""The manifest's schema: the one authority on what a bundle says about itself."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from mexit_edge.exits import (
    MOST_RULES,
    NEVER,
    BudgetController,
    Chain,
    ExitRule,
    Gate,
    RiskControl,
    make_scores,
    make_temporal,
)
from mexit_edge.signals import Normalisation, Sensor

SCHEMA_VERSION: Literal[1] = 1
MAX_STAGES = 64
# What may execute a bundle: LiteRT with three sets of kernels, and TFLM.
ENGINES = ("litert-xnnpack", "litert-builtin", "litert-reference", "tflm")

# A plain file name: no separator, no leading dot, so that no path can leave the bundle's folder.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}$")]
# With this suffix no stage can take the name of the manifest, the golden vectors or the model card.
StageFile = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,92}\.tflite$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Int8 = Annotated[int, Field(ge=-128, le=127)]
ExitName = Annotated[str, Field(pattern=r"^exit_\d{2}$")]
Subjects = tuple[int, ...]


class Spec(BaseModel):
    """Frozen, and unknown keys are errors.

    Fields that came later are left out while they have their defaults: an older manifest keeps its bytes, and
    an older reader, to whom the new key is an error, still reads what does not use it. Guarded by
    `test_a_manifest_from_before_kinds_of_calibration_keeps_its_bytes`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    came_later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        facts: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        unused = {name for name in self.came_later if getattr(self, name) == fields[name].default}
        return {name: fact for name, fact in facts.items() if name not in unused}


class SensorSpec(Spec):
    """See `mexit_edge.signals.Sensor`."""

    channels: tuple[str, ...]
    units: tuple[str, ...]
    sampling_rate_hz: Positive
    window: PositiveInt
    hop: PositiveInt
    triads: tuple[tuple[int, ...], ...] = ()
    rigid_bodies: tuple[tuple[int, ...], ...] = ()
    units_per_count: tuple[Positive, ...] | None = None

    def to_sensor(self) -> Sensor:
        """Return the sensor that this describes."""
        return Sensor(**self.model_dump())


class NormalisationSpec(Spec):
    """See `mexit_edge.signals.Normalisation`."""

    offset: tuple[FiniteFloat, ...]
    scale: tuple[Positive, ...]

    def to_normalisation(self) -> Normalisation:
        """Return the normalisation that this describes."""
        return Normalisation(self.offset, self.scale)


class FixedPointInput(Spec):
    """int16 counts to int8: q = clamp((count * multiplier[c] + bias[c]) >> shift), all within int32.

    The rounding half is part of the bias; the shift is arithmetic.
    """

    multiplier: tuple[Int32, ...]
    bias: tuple[Int32, ...]
    shift: Annotated[int, Field(ge=0, le=30)]


class InputSpec(Spec):
    """Quantization of the network's input, and the fixed-point way from raw counts."""

    scale: Positive
    zero_point: Int8
    fixed_point: FixedPointInput | None = None


class TensorSpec(Spec):
    """A tensor that crosses a stage's border; real value = scale * (int8 - zero_point)."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,100}$")]
    shape: Annotated[tuple[PositiveInt, ...], Field(max_length=8)]
    dtype: Literal["int8"] = "int8"
    scale: Positive
    zero_point: Int8


class StageSpec(Spec):
    """One stage: its file, its tensors and what it costs.

    The first output holds the exit's logits; the others, if any, are the boundary to later stages.
    `arena_bytes` is what TFLM reports on a 64-bit host, None where TFLM has no wheel.
    """

    file: StageFile
    sha256: Sha256
    flash_bytes: PositiveInt
    exit: ExitName
    inputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1, max_length=32)]
    outputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1, max_length=32)]
    ops: dict[str, PositiveInt]
    macs: NonNegativeInt
    live_macs: NonNegativeInt
    arena_bytes: PositiveInt | None


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
    options: dict[str, int] = {}


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
    score_options: dict[str, FiniteFloat] = {}
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


class ExitQuality(Spec):
    """How good one exit is when every window leaves there."""

    exit: ExitName
    accuracy: Share
    balanced_accuracy: Share


class PolicyQuality(Spec):
    """How good the policy is, and what it computes."""

    accuracy: Share
    balanced_accuracy: Share
    drop: FiniteFloat
    drop_low: FiniteFloat | None
    drop_high: FiniteFloat | None
    drop_level: Share | None
    exit_shares: tuple[Share, ...]
    mean_macs: FiniteFloat


class Quality(Spec):
    """Measured on windows of these subjects, executed on the int8 stages by this engine."""

    data: str
    subjects: Subjects
    n_windows: PositiveInt
    engine: str
    exits: tuple[ExitQuality, ...]
    policy: PolicyQuality | None


class Training(Spec):
    """Where the network came from; None where the user's own code knows and we do not."""

    came_later = ("preset",)

    data: str | None = None
    backbone: str | None = None
    preset: str | None = None
    regime: str | None = None
    seed: int | None = None
    epochs: int | None = None
    train_subjects: Subjects = ()
    validation_subjects: Subjects = ()


class GoldenSpec(Spec):
    """The file of golden vectors."""

    file: FileName
    sha256: Sha256
    n_windows: PositiveInt


class Manifest(Spec):
    """Everything a bundle says about itself."""

    came_later = ("phone_sha256",)

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    sensor: SensorSpec
    normalisation: NormalisationSpec
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    input: InputSpec
    stages: Annotated[tuple[StageSpec, ...], Field(min_length=1, max_length=MAX_STAGES)]
    policy: Policy | None = None
    quality: Quality | None = None
    training: Training = Training()
    golden: GoldenSpec | None = None
    phone_sha256: Sha256 | None = None
    versions: dict[str, str] = {}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        n_exits = len(self.stages)
        expected = tuple(f"exit_{number:02d}" for number in range(1, n_exits + 1))
        if tuple(stage.exit for stage in self.stages) != expected:
            raise ValueError(f"`stages` must carry the exits {', '.join(expected)} in this order")
        if self.policy is not None and len(self.policy.thresholds) != n_exits - 1:
            raise ValueError(f"`policy` needs one threshold per early exit ({n_exits - 1})")
        if self.policy is not None and (strangers := sorted(set(self.policy.off) - set(expected[:-1]))):
            raise ValueError(f"`off` must name early exits ({', '.join(expected[:-1])}), not {strangers[0]}")
        if self.policy is not None and self.policy.controller is not None:
            off = [place for place, name in enumerate(expected[:-1]) if name in self.policy.off]
            if any(row[place] != NEVER for row in self.policy.controller.family for place in off):
                raise ValueError(f"`controller` must say {NEVER} in every row for an exit in `off`")
        if self.quality is not None and tuple(row.exit for row in self.quality.exits) != expected:
            raise ValueError(f"`quality` needs one row per exit ({', '.join(expected)})")
        # Sensor and Normalisation check their own fields.
        self.sensor.to_sensor()
        self.normalisation.to_normalisation()
        n_channels = len(self.sensor.channels)
        if len(self.normalisation.scale) != n_channels or len(self.normalisation.offset) != n_channels:
            raise ValueError(f"`normalisation` needs one value per channel ({n_channels})")
        window = (self.sensor.window, n_channels)
        if prod(self.stages[0].inputs[0].shape) != prod(window):
            raise ValueError(
                f"the input of {self.stages[0].file}, {self.stages[0].inputs[0].shape}, must have as many "
                f"elements as a window of the sensor, {window}"
            )
        fixed = self.input.fixed_point
        if fixed is not None and not len(fixed.multiplier) == len(fixed.bias) == n_channels:
            raise ValueError(f"`fixed_point` needs one value per channel ({n_channels})")
        files = [stage.file for stage in self.stages]
        if len(set(files)) != n_exits:
            raise ValueError("`stages` need a file of its own each")
        self._tensors_connect()
        # Makes the scores, which check themselves.
        self.exit_rule()
        return self

    def exit_rule(self) -> ExitRule:
        """Return what decides: the policy, or without one a rule by which nothing leaves early."""
        n_early = len(self.stages) - 1
        policy = self.policy or Policy(
            score="logit_margin", thresholds=(0.0,) * n_early, thresholds_int=(NEVER,) * n_early
        )
        scores = make_scores(
            policy.score,
            [stage.outputs[0].scale for stage in self.stages],
            len(self.classes),
            temperatures=policy.temperatures,
            options=policy.score_options,
            gates=[Gate(gate.weights, gate.bias) for gate in policy.gates],
        )
        enabled = tuple(name not in policy.off for name in self.exits)
        thresholds = tuple(
            threshold if on else NEVER
            for threshold, on in zip(policy.thresholds_int, enabled[:-1], strict=True)
        )
        return ExitRule(scores, thresholds, enabled)

    def _tensors_connect(self) -> None:
        """Every stage's inputs must be the network's input or an output of an earlier stage."""
        live = {self.input_name: self.stages[0].inputs[0]}
        for stage in self.stages:
            for tensor in stage.inputs:
                if live.get(tensor.name) != tensor:
                    raise ValueError(f"input {tensor.name} of {stage.file} is no output of an earlier stage")
            for tensor in stage.outputs:
                if tensor.name in live:
                    raise ValueError(f"tensor {tensor.name} has two producers")
                live[tensor.name] = tensor
            logits = stage.outputs[0]
            if logits.shape != (1, len(self.classes)):
                raise ValueError(
                    f"{stage.exit} must give one logit per class, shape (1, {len(self.classes)})"
                )

    @property
    def input_name(self) -> str:
        """Name of the tensor that carries the window."""
        return self.stages[0].inputs[0].name

    @property
    def exits(self) -> tuple[str, ...]:
        """Names of the exits, in order."""
        return tuple(stage.exit for stage in self.stages)

    @property
    def cumulative_macs(self) -> tuple[int, ...]:
        """Multiply-accumulates of a window that leaves at each exit."""
        return tuple(sum(stage.macs for stage in self.stages[: k + 1]) for k in range(len(self.stages)))
