"""What `mexit calibrate` was asked: a goal, a score, rules over streams, and what to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mexit_edge.bundle import TemporalSpec
from mexit_edge.cli.option_words import with_option_names
from mexit_edge.cli.settings import parse_options
from mexit_edge.errors import InputError
from mexit_edge.exits import Chain, make_temporal
from mexit_edge.simulate import (
    Budget,
    BudgetedShares,
    Floor,
    Given,
    Goal,
    LeastCost,
    OnlineBudget,
    Risk,
    Scoring,
)

_SAME_NAMES = (
    *("max_drop", "floor", "budget", "ratio", "eps", "thresholds", "method", "loss", "delta", "unit"),
    *("score", "off", "cost", "device", "online_budget"),
)
# What the arguments of the library are called on the command line.
OPTIONS = {
    **{name: f"--{name.replace('_', '-')}" for name in _SAME_NAMES},
    "horizon": "--online-horizon",
    "cost='macs'": "--cost macs",
}


@dataclass(frozen=True, kw_only=True)
class CalibrateRequest:
    """The options of `mexit calibrate`.

    Args:
        data: name of a data set; None for the default one, or where there are windows.
        windows: a .npz of windows of one's own.
        seed: of the data set's split.
        goals: option -> value of everything that may be a goal; at most one is not None.
        risk: options of `Risk` beside eps.
        score: name of a score.
        score_options: NAME=VALUE.
        off: exits to switch off.
        tempered: whether temperatures are fitted.
        cost: what a window costs; None for the default.
        device: to estimate the cost on.
        temporal: RULE:NAME=VALUE,...
        online_budget: mean cost that a controller holds.
        online_horizon: number of windows over which it is to hold.
        out: bundle to write.
        policy_out: policy to write in place of a bundle.
        curve: CSV of the budgeted curve.
        figure: picture of it.
        overwrite: whether files of these names may be replaced.
    """

    data: str | None = None
    windows: Path | None = None
    seed: int = 0
    goals: Mapping[str, float | str | None] = field(default_factory=dict)
    risk: Mapping[str, Any] = field(default_factory=dict)
    score: str = "logit_margin"
    score_options: Sequence[str] = ()
    off: Sequence[str] = ()
    tempered: bool = False
    cost: str | None = None
    device: str | None = None
    temporal: Sequence[str] = ()
    online_budget: float | None = None
    online_horizon: int | None = None
    out: Path | None = None
    policy_out: Path | None = None
    curve: Path | None = None
    figure: Path | None = None
    overwrite: bool = False

    def goal(self) -> Goal:
        """Return the goal that was asked for.

        Raises:
            InputError: several were.
        """
        given = {name: value for name, value in self.goals.items() if value is not None}
        if len(given) > 1:
            raise InputError(
                f"one goal must be given at most ({', '.join(f'--{name}' for name in self.goals)}). "
                f"Received: {', '.join(f'--{name}' for name in given)}. Leave all but one out."
            )
        if not given:
            return LeastCost()
        name, value = next(iter(given.items()))
        if name == "thresholds":
            return Given(parse_thresholds(str(value)))
        number = float(value)
        if name == "eps":
            return Risk(number, **self.risk)
        kinds: dict[str, Any] = {
            "max-drop": LeastCost,
            "floor": Floor,
            "budget": Budget,
            "ratio": BudgetedShares,
        }
        return kinds[name](number)

    def scoring(self) -> Scoring:
        """Return what is scored."""
        options = parse_options(self.score_options, "--score-option")
        return Scoring(self.score, options, tuple(self.off), self.tempered)

    def rules(self) -> list[TemporalSpec]:
        """Return the rules over streams.

        Raises:
            InputError: there is no such rule or option, or they do not follow one another.
        """
        specs = [parse_temporal(one) for one in self.temporal]
        if specs:
            Chain(tuple(make_temporal(spec.name, **spec.options) for spec in specs))
        return specs

    def online(self) -> OnlineBudget | None:
        """Return what a controller holds, if anything."""
        if self.online_budget is None:
            return None
        return OnlineBudget(self.online_budget, self.online_horizon)


def parse_thresholds(text: str) -> dict[str, float]:
    """Return thresholds given as EXIT=VALUE,...; a whole number is an int, in steps of the score.

    Raises:
        InputError: the text is another.
    """
    found: dict[str, float] = {}
    for one in text.split(","):
        name, _, value = one.strip().partition("=")
        try:
            number = int(value) if value.strip().lstrip("-").isdigit() else float(value)
        except ValueError:
            number = float("nan")
        if not name or name in found or not np.isfinite(number):
            raise InputError(
                "`--thresholds` must be EXIT=VALUE,..., each exit once, such as exit_01=16,exit_02=9. "
                f"Received: {text!r}."
            )
        found[name] = number
    return found


def parse_temporal(text: str) -> TemporalSpec:
    """Return a rule given as RULE or RULE:NAME=VALUE,...

    Raises:
        InputError: there is no such rule or option, or a value is no whole number.
    """
    name, _, rest = text.partition(":")
    options = {}
    for one in filter(None, rest.split(",")):
        option, _, value = one.partition("=")
        if not value.strip().isdigit():
            raise InputError(
                "`--temporal` must be RULE:NAME=VALUE,... with whole numbers, such as majority:n=5. "
                f"Received: {text!r}."
            )
        options[option.strip()] = int(value)
    make_temporal(name.strip(), **options)
    return TemporalSpec(name=name.strip(), options=options)


def in_option_words(text: str) -> str:
    """Return what the library says in the words of the command line."""
    return with_option_names(text, OPTIONS)
