"""What `mexit estimate` is asked: the model or bundle, the device, and the options, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import get_args

from mexit_edge.bundle import Bundle
from mexit_edge.cli.inspect_model import SUFFIX as TFLITE_SUFFIX
from mexit_edge.cli.model_file import read_model
from mexit_edge.cli.option_words import with_option_names
from mexit_edge.errors import InputError, unknown_name
from mexit_edge.estimate import (
    BundleEstimate,
    Cost,
    Device,
    ModelEstimate,
    device_names,
    estimate_bundle,
    estimate_model,
    load_device,
    operations,
    parse_device,
    unknown_operations,
)
from mexit_edge.estimate.energy.period import Period, check_battery, default_battery_v
from mexit_edge.estimate.energy.power import Rest
from mexit_edge.estimate.ethos_u import ACCELERATORS
from mexit_edge.files import refuse_existing, refuse_unwritable

DEVICE_SUFFIX = ".toml"
FIGURE_SUFFIXES = (".png", ".svg")
MAX_DEVICE_BYTES = 1 << 20

# What the arguments of the library are called on the command line.
OPTIONS = {
    "exit_shares": "--exit-shares",
    "period_ms": "--period-ms",
    "rest": "--rest",
    "sensor_power_mw": "--sensor-mw",
    "supply_v": "--supply-v",
    "battery_mah": "--battery-mah",
    "battery_v": "--battery-v",
    "prices": "--price",
}


def in_option_words(text: str) -> str:
    """Return what the library says in the words of the command line."""
    return with_option_names(text, OPTIONS)


def in_options(error: InputError) -> InputError:
    """Return the error in the words of the command line."""
    return InputError(in_option_words(str(error)))


@dataclass(frozen=True)
class ExitShares:
    """Shares of windows that leave at the exits, and who says so."""

    values: tuple[float, ...]
    source: str


@dataclass(frozen=True)
class Subject:
    """What is estimated: the content of a .tflite, or a bundle."""

    name: str
    whole: bytes | Bundle

    @classmethod
    def read(cls, path: Path) -> Subject:
        """Read a model or a bundle; neither is run.

        Raises:
            InputError: it is neither, or a bundle is not whole.
        """
        if path.suffix.lower() == TFLITE_SUFFIX:
            return cls(path.name, read_model(path, "path"))
        if not path.exists():
            raise InputError(
                "`path` must be a .tflite or a bundle, a folder NAME.mexit or a .zip. "
                f"Received: {path}, which is not there."
            )
        return cls(path.name, Bundle.load(path))

    @property
    def sensor_period_ms(self) -> float | None:
        """How often the bundle's sensor has a new window; None for a model."""
        return None if isinstance(self.whole, bytes) else self.whole.manifest.sensor.hop_ms

    @property
    def contents(self) -> tuple[bytes, ...]:
        """The model, or every stage of the bundle."""
        return (self.whole,) if isinstance(self.whole, bytes) else self.whole.stages


@dataclass(frozen=True)
class EnergyRequest:
    """The options on a period; None where not given."""

    period_ms: float | None = None
    rest: str | None = None
    sensor_mw: float | None = None
    supply_v: float | None = None
    battery_mah: float | None = None
    battery_v: float | None = None

    def period(self, subject: Subject) -> Period | None:
        """Return what repeats; None for a model whose period was not given.

        Raises:
            InputError: a figure is out of its range, or wants a period that is not known.
        """
        period_ms = subject.sensor_period_ms if self.period_ms is None else self.period_ms
        given = [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value is not None]
        if period_ms is None:
            if given:
                raise InputError(
                    f"`{given[0]}` needs a period. Received: a model, which does not say how often it runs. "
                    "Add `--period-ms`."
                )
            return None
        if self.battery_v is not None and self.battery_mah is None:
            raise InputError(
                f"`--battery-v` needs `--battery-mah`. Received: {self.battery_v:g} V alone. Add it."
            )
        rest = self.rest or "idle"
        if rest not in get_args(Rest):
            raise unknown_name("--rest", rest, get_args(Rest))
        found: Rest = "sleep" if rest == "sleep" else "idle"
        try:
            if self.battery_mah is not None:
                check_battery(self.battery_mah, self.battery_v)
            return Period(period_ms, found, self.sensor_mw, self.supply_v)
        except InputError as error:
            raise in_options(error) from error

    def volt(self, supply_v: float) -> float:
        """Return the battery's voltage: the one given, else the usual one for a supply."""
        return default_battery_v(supply_v) if self.battery_v is None else self.battery_v


@dataclass(frozen=True)
class EstimateRequest:
    """The options of `mexit estimate`; None where not given."""

    device: str | None = None
    stack: str | None = None
    extrapolate: bool = False
    price: Sequence[str] = ()
    exit_shares: str | None = None
    energy: EnergyRequest = EnergyRequest()
    compare: bool = False
    explain: bool = False
    figure: Path | None = None

    @property
    def reports(self) -> bool:
        """Whether one device is reported: always, except where a comparison alone was asked for."""
        return not self.compare or self.device is not None or self.explain or self.figure is not None

    def prices(self) -> dict[str, float]:
        """Return the cycles per run of operators that were given a price.

        Raises:
            InputError: one is no NAME=CYCLES, or an operator comes twice.
        """
        prices: dict[str, float] = {}
        for text in self.price:
            # A custom operator's name may hold the sign.
            name, _, cycles = text.rpartition("=")
            try:
                price = float(cycles)
            except ValueError:
                name, price = "", 0.0
            if not name or name in prices:
                raise InputError(
                    "`--price` must be NAME=CYCLES, each operator once. "
                    f"Received: {text!r}. Example: --price custom:fft=120000"
                )
            prices[name] = price
        return prices

    def refuse_short_names(self, subject: Subject) -> None:
        """Refuse a price of a custom operator without its prefix, and say the whole name.

        Raises:
            InputError: names the operator.
        """
        prices = self.prices()
        if not prices:
            return
        unknown = {name for content in subject.contents for name in unknown_operations(operations(content))}
        for name in prices:
            whole = f"custom:{name}"
            if name not in unknown and whole in unknown:
                raise InputError(
                    f"`--price` must be of an operator without a rule. Received: {name!r}. "
                    f"Did you mean {whole!r}?"
                )

    def shares(self, subject: Subject) -> ExitShares | None:
        """Return the shares of windows per exit: those given, else those that the bundle states.

        Raises:
            InputError: they are no numbers, or come with a model.
        """
        whole = subject.whole
        if self.exit_shares is not None:
            if isinstance(whole, bytes):
                raise InputError(
                    "`--exit-shares` must come with a bundle. Received: a model, which has one exit. "
                    "Leave it out."
                )
            try:
                values = tuple(float(part) for part in self.exit_shares.split(","))
            except ValueError as error:
                raise InputError(
                    "`--exit-shares` must be numbers with commas between them. "
                    f"Received: {self.exit_shares!r}. Example: --exit-shares 0.6,0.3,0.1"
                ) from error
            return ExitShares(values, "given")
        if isinstance(whole, bytes) or whole.manifest.quality is None:
            return None
        quality = whole.manifest.quality
        if quality.policy is None:
            return None
        return ExitShares(
            quality.policy.exit_shares,
            f"the bundle's policy on {quality.n_windows:,} windows of {quality.data} (manifest)",
        )

    def estimate(self, subject: Subject, device: Device) -> ModelEstimate | BundleEstimate:
        """Estimate on a device.

        Raises:
            InputError: as for `estimate_model`.
        """
        prices = self.prices()
        whole, stack, extrapolate = subject.whole, self.stack, self.extrapolate
        try:
            if isinstance(whole, bytes):
                return estimate_model(whole, device, stack, prices=prices, extrapolate=extrapolate)
            return estimate_bundle(whole, device, stack, prices=prices, extrapolate=extrapolate)
        except InputError as error:
            raise in_options(error) from error

    def check_figure(self) -> None:
        """Refuse a picture that cannot be written, before the work.

        Raises:
            InputError: its suffix is neither .png nor .svg, it exists, or its folder cannot be written to.
        """
        if self.figure is None:
            return
        if self.figure.suffix.lower() not in FIGURE_SUFFIXES:
            raise InputError(
                f"`--figure` must end in {' or '.join(FIGURE_SUFFIXES)}. Received: {self.figure}. "
                f"Name it {self.figure.with_suffix(FIGURE_SUFFIXES[0])}."
            )
        refuse_existing(self.figure, overwrite=False)
        refuse_unwritable(self.figure)


def unpriced(estimate: ModelEstimate | BundleEstimate, prices: Mapping[str, float]) -> tuple[str, ...]:
    """Return the operators without a rule and without a price, which leave the latency unknown."""
    if isinstance(estimate, ModelEstimate):
        found = unknown_operations(estimate.operations)
    else:
        found = unknown_operations(chain.from_iterable(estimate.operations))
    return tuple(name for name in found if name not in prices)


def unknown_latency(option: str, operators: Sequence[str]) -> InputError:
    """Make the error for an option that wants a latency where operators have neither a rule nor a price."""
    return InputError(
        f"`{option}` must come with a known latency. Received: {', '.join(operators)} without a rule. "
        f"Add `--price {operators[0]}=CYCLES`{', and so on' if len(operators) > 1 else ''}."
    )


def expected_cost(estimate: ModelEstimate | BundleEstimate, shares: ExitShares | None) -> Cost | None:
    """Return the mean over windows; None where the shares are unknown.

    Raises:
        InputError: the shares are no distribution over the exits.
    """
    if shares is None or isinstance(estimate, ModelEstimate):
        return None
    try:
        return estimate.expected(shares.values)
    except InputError as error:
        raise in_options(error) from error


def read_device(name: str) -> Device:
    """Return a device of the package by its name, or one of a user's own from its file.

    Args:
        name: see `device_names`, or the path of a .toml.

    Raises:
        InputError: there is no such device or file, or the file does not follow the schema.
    """
    path = Path(name)
    if path.suffix.lower() != DEVICE_SUFFIX:
        if name not in device_names():
            raise unknown_name("device", name, (*device_names(), *ACCELERATORS))
        return load_device(name)
    if not path.is_file() or path.stat().st_size > MAX_DEVICE_BYTES:
        what = f"of more than {MAX_DEVICE_BYTES:,} bytes" if path.is_file() else "which is no file"
        raise InputError(
            f"`device` must be a name that `mexit devices` lists, or a device file. Received: {name}, {what}."
        )
    try:
        return parse_device(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise InputError(f"a device file must be TOML, in UTF-8. Received: {name}: {error}.") from error
