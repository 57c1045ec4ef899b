"""The manifest's schema: the one authority on what a bundle says about itself."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt, model_validator

from mexit_edge.bundle.policy import Policy
from mexit_edge.bundle.spec import (
    ExitName,
    FileName,
    Int8,
    Int32,
    Positive,
    Sha256,
    Share,
    Spec,
    StageFile,
    Subjects,
)
from mexit_edge.exits import NEVER, ExitRule, Gate, make_scores
from mexit_edge.signals import Normalisation, Sensor

SCHEMA_VERSION: Literal[1] = 1
MAX_STAGES = 64
# What may execute a bundle: LiteRT with three sets of kernels, and TFLM.
ENGINES = ("litert-xnnpack", "litert-builtin", "litert-reference", "tflm")


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

    @property
    def hop_ms(self) -> float:
        """Time from one window to the next."""
        return 1e3 * self.hop / self.sampling_rate_hz

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
    versions: dict[str, str] = Field(default_factory=dict)

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
