"""Devices and the kernel libraries measured on them: one TOML file each, every figure with its source."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mexit_edge.errors import InputError, first_violation, unknown_name
from mexit_edge.estimate.interval import Estimate

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
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
    status: Literal["measured", "fitted", "datasheet", "extrapolated"]

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


class Rate(Figure):
    """Cycles per multiply-accumulate of one kind of operator.

    `macs_per_output` is the range, over the layers behind the figure, of multiply-accumulates per output
    element. Below it, the work per output weighs more than the rate knows; above it, less.
    """

    macs_per_output: tuple[Positive, Positive]


class CyclesPerMac(Spec):
    """One rate per kind of operator that has multiply-accumulates."""

    conv_kxk: Rate
    conv_1x1: Rate
    depthwise: Rate
    fully_connected: Rate


class InSample(Spec):
    """A published measurement among those the rates were fitted on, and what the model says about it."""

    model: Text
    measured_latency_ms: Positive
    measured_energy_uj: Positive
    estimated_latency_ms: Positive
    estimated_energy_uj: Positive
    latency_error_percent: float
    energy_error_percent: float
    source: Text
    date: Date


class Stack(Spec):
    """A kernel library on a device; rates hold for one type of activations.

    `folds_constant_channels` tells whether it skips MACs that are not live. `extrapolation_factors` widen a
    rate (low, high) for a layer outside its `macs_per_output`. Powers are None where they are unknown, and so
    is `cycles_per_invoke`.
    """

    name: Text
    version: Text
    dtype: Text
    folds_constant_channels: bool
    cycles_per_mac: CyclesPerMac
    extrapolation_factors: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(ge=1)]]
    cycles_per_element: Figure
    cycles_per_op: Figure
    cycles_per_invoke: Figure | None = None
    active_power_mw: Figure | None = None
    idle_power_mw: Figure | None = None
    in_sample: tuple[InSample, ...] = ()


class Device(Spec):
    """A board: its core, clock, supply and memory, and the stacks that are known on it."""

    name: Text
    title: Text
    core: Text
    clock_mhz: Figure
    supply_v: Figure
    flash_bytes: Figure
    ram_bytes: Figure
    stacks: Annotated[tuple[Stack, ...], Field(min_length=1)]

    def stack(self, name: str | None = None) -> Stack:
        """Return a stack by name; the first one for None.

        Raises:
            InputError: the device has no stack of that name.
        """
        if name is None:
            return self.stacks[0]
        known = {stack.name: stack for stack in self.stacks}
        if name not in known:
            raise unknown_name("stack", name, known)
        return known[name]


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
    return parse_device(file.read_text(encoding="utf-8"))


def parse_device(text: str) -> Device:
    """Read a device from TOML, for boards of one's own; the package's files show the form.

    Args:
        text: the content of a device file.

    Raises:
        InputError: it is no TOML, a key is unknown or missing, or a figure lacks its source.
    """
    try:
        return Device.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"a device file must be TOML. Received: {error}.") from error
    except ValidationError as error:
        raise InputError(
            "a device file must follow the schema `mexit_edge.estimate.Device`. "
            f"Received: {first_violation(error, 'the file')}. Add, remove or correct that key."
        ) from error
