"""Devices and the kernel libraries measured on them: one TOML file each, every figure with its source."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mexit_edge.errors import InputError, first_violation, unknown_name
from mexit_edge.estimate.interval import Estimate
from mexit_edge.estimate.latency.rates import QUANTILE, LogRates
from mexit_edge.estimate.latency.terms import TERMS

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
# Unverified: from documentation or memory, not held against a datasheet or a measurement.
Status = Literal["measured", "fitted", "datasheet", "extrapolated", "unverified"]
Date = Annotated[str, Field(pattern=r"^\d{4}-\d{2}(-\d{2})?$")]


class Spec(BaseModel):
    """Frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(Spec):
    """One figure, its interval, and where it comes from.

    `low` and `high` default to `value`: a figure without an interval is meant to be exact. `date` is that of
    the publication or fit, or, for datasheets and compilations, of the entry.
    """

    value: NonNegative
    low: NonNegative | None = None
    high: NonNegative | None = None
    source: Text
    date: Date
    status: Status

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        if not low <= self.value <= high:
            raise ValueError("`low`, `value` and `high` must be in this order")
        return self

    @property
    def estimate(self) -> Estimate:
        """The figure with its interval."""
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        return Estimate(self.value, low, high)


class Coefficient(Spec):
    """Cycles per unit of one term of the latency model, with its 90 % interval.

    `macs_per_output` is, for terms that price multiply-accumulates, the range of multiply-accumulates per
    output element over the layers behind the figure; layers outside of it are extrapolated. None where no
    layer of this kind was measured: all are extrapolated.
    """

    value: Positive
    low: Positive
    high: Positive
    status: Status
    macs_per_output: tuple[Positive, Positive] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError("`low`, `value` and `high` must be in this order")
        if self.macs_per_output is not None and self.macs_per_output[0] > self.macs_per_output[1]:
            raise ValueError("`macs_per_output` must go from the least to the most")
        return self


class CyclesPer(Spec):
    """Cycles per unit of every term (`terms.TERMS`), and how certain they are together.

    `correlation` is that of the logarithms, in the order of the fields; None where they are independent.
    `model_error` is the standard deviation of the log cycles of a model when all figures are known.
    """

    conv_kxk: Coefficient
    conv_1x1: Coefficient
    depthwise: Coefficient
    fully_connected: Coefficient
    output: Coefficient
    element: Coefficient
    operator: Coefficient
    invocation: Coefficient
    correlation: tuple[tuple[Annotated[float, Field(ge=-1, le=1)], ...], ...] | None = None
    model_error: NonNegative

    @model_validator(mode="after")
    def _is_correlation(self) -> Self:
        if self.correlation is None:
            return self
        n = len(TERMS)
        if len(self.correlation) != n or any(len(row) != n for row in self.correlation):
            raise ValueError(f"`correlation` must have {n} rows of {n}")
        matrix = np.array(self.correlation)
        if not np.allclose(matrix, matrix.T) or not np.allclose(np.diag(matrix), 1):
            raise ValueError("`correlation` must be symmetric with ones on its diagonal")
        # Three decimals in the file may turn a tiny eigenvalue negative.
        if np.linalg.eigvalsh(matrix).min() < -0.01:
            raise ValueError("`correlation` must have no negative eigenvalue")
        return self

    def term(self, name: str) -> Coefficient:
        """Return the coefficient of a term."""
        found = getattr(self, name)
        assert isinstance(found, Coefficient)
        return found

    @property
    def log_rates(self) -> LogRates:
        """The same as a distribution of log cycles per unit."""
        terms = [self.term(name) for name in TERMS]
        deviation = np.array([np.log(one.high / one.low) / (2 * QUANTILE) for one in terms])
        correlation = np.eye(len(TERMS)) if self.correlation is None else np.array(self.correlation)
        return LogRates(
            mean=np.log([one.value for one in terms]),
            covariance=deviation[:, None] * correlation * deviation,
            model_error=self.model_error,
        )


class Stack(Spec):
    """A kernel library on a device; its cycles hold for one type of activations.

    `family` names the library and stands for its first listed version on the device. `source` and `date` are
    those of all of `cycles_per`. `fitted_on` names the models that were measured on this very device with
    this library: none where all is taken over from relatives. `folds_constant_channels` tells whether it
    skips multiply-accumulates that are not live. `active_power_mw` is measured while inferring, at the
    device's clock and supply; None where that is unknown (see `Device.active_power_mw`).
    """

    name: Text
    family: Text
    version: Text
    dtype: Text
    folds_constant_channels: bool
    source: Text
    date: Date
    fitted_on: tuple[Text, ...]
    cycles_per: CyclesPer
    active_power_mw: Figure | None = None


class Device(Spec):
    """A board: its core, clock, supply, memory and power, and the stacks that are known on it.

    Powers are of the whole processor at `supply_v`; None where they are unknown.

    Args:
        name: of the file, in lower case.
        title: of the board.
        core: of the processor.
        clock_mhz: at which latency and power hold.
        clock_choices_mhz: at which the processor runs as well, in any order; empty where not listed.
        supply_v: at which powers hold.
        regulator: ``"LDO"`` draws the same current at any supply, ``"SMPS"`` the same power.
        flash_bytes: for program and models.
        ram_bytes: for data, in one block.
        active_power_mw: running code, where a stack has no figure of its own.
        static_power_mw: the part of the active power that stays at any clock.
        idle_power_mw: waiting for an interrupt, clocks on.
        sleep_power_mw: in the deepest state that keeps the RAM.
        wake_up_ms: from that state, at active power.
        stacks: kernel libraries; the first is the default.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: Text
    core: Text
    clock_mhz: Figure
    clock_choices_mhz: tuple[Positive, ...] = ()
    supply_v: Figure
    regulator: Literal["LDO", "SMPS"] | None = None
    flash_bytes: Figure
    ram_bytes: Figure
    active_power_mw: Figure | None = None
    static_power_mw: Figure | None = None
    idle_power_mw: Figure | None = None
    sleep_power_mw: Figure | None = None
    wake_up_ms: Figure | None = None
    stacks: Annotated[tuple[Stack, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [stack.name for stack in self.stacks]
        if len(set(names)) != len(names):
            raise ValueError("`stacks` must have different names")
        if self.clock_mhz.value <= 0 or self.supply_v.value <= 0:
            raise ValueError("`clock_mhz` and `supply_v` must be above 0")
        return self

    def stack(self, name: str | None = None) -> Stack:
        """Return a stack by its name or that of its family; the first one for None.

        Raises:
            InputError: the device has no such stack.
        """
        if name is None:
            return self.stacks[0]
        families = {stack.family: stack for stack in reversed(self.stacks)}
        known = families | {stack.name: stack for stack in self.stacks}
        if name not in known:
            raise unknown_name("stack", name, known)
        return known[name]

    def power_mw(self, stack: Stack) -> Figure | None:
        """Return the active power with a stack: its own, else that of any code, else None."""
        return stack.active_power_mw or self.active_power_mw


def device_names() -> tuple[str, ...]:
    """Return the names of the devices that come with the package, sorted."""
    folder = resources.files("mexit_edge.estimate") / "devices"
    return tuple(
        sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    )


def load_device(name: str) -> Device:
    """Return a device that comes with the package.

    Args:
        name: see `device_names`.

    Raises:
        InputError: there is no such device.
    """
    if name not in device_names():
        raise unknown_name("device", name, device_names())
    file = resources.files("mexit_edge.estimate") / "devices" / f"{name}.toml"
    return parse_device(file.read_text(encoding="utf-8"), f"{name}.toml")


def parse_device(text: str, path: str | None = None) -> Device:
    """Read a device from TOML, for boards of one's own; the package's files show the form.

    Args:
        text: the content of a device file.
        path: of the file, for messages; None where unknown.

    Raises:
        InputError: it is no TOML, a key is unknown or missing, or a figure lacks its source.
    """
    what = "a device file" if path is None else f"the device file `{path}`"
    try:
        return Device.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"{what} must be TOML. Received: {error}. Correct it; `mexit device fit` writes such a file."
        ) from error
    except ValidationError as error:
        raise InputError(
            f"{what} must follow the schema `mexit_edge.estimate.Device`. "
            f"Received: {first_violation(error, 'the file', Device)}. Add, remove or correct that key."
        ) from error
