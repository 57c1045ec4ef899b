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

from mexit_edge.errors import unknown_name
from mexit_edge.exits import SCORES
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


class Calibration(Spec):
    """How and on whose data the thresholds were set.

    `held_out`: on logits of this bundle, executed by `engine`, on windows of subjects new to its network.
    `out_of_fold`: on logits of `folds` float networks, each trained without the subjects whose windows it
    judged, so that no engine was involved; the bundle's own network is another one, refitted on all subjects.
    """

    came_later = ("kind", "folds")

    data: str
    subjects: Subjects
    n_windows: PositiveInt
    max_drop: Share
    drop: FiniteFloat
    drop_upper: FiniteFloat
    cost: str
    exact: bool
    engine: str | None
    kind: Literal["held_out", "out_of_fold"] = "held_out"
    folds: Annotated[int, Field(ge=2)] | None = None

    @model_validator(mode="after")
    def _kind_fits(self) -> Self:
        if self.kind == "held_out" and (self.engine is None or self.folds is not None):
            raise ValueError("a `held_out` calibration needs its `engine`, and has no `folds`")
        if self.kind == "out_of_fold" and (self.folds is None or self.engine is not None):
            raise ValueError("an `out_of_fold` calibration needs its `folds`, and has no `engine`")
        return self


class Policy(Spec):
    """Score and thresholds, one per early exit; the integers decide, the floats are for display."""

    score: str
    thresholds: tuple[FiniteFloat, ...]
    thresholds_int: tuple[int, ...]
    temperatures: tuple[Positive, ...] | None = None
    calibration: Calibration | None = None

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.thresholds) != len(self.thresholds_int):
            raise ValueError("`thresholds` and `thresholds_int` need the same length")
        return self


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
        if self.policy is not None and self.policy.score not in SCORES:
            raise unknown_name("score", self.policy.score, SCORES)
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
        return self

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
