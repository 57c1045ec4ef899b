"""`mexit estimate`: what a model or a bundle costs on a device, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from mexit_edge.cli.estimate_period import Repeated, print_repeated, repeated, repeated_facts
from mexit_edge.cli.estimate_request import (
    EstimateRequest,
    ExitShares,
    Subject,
    expected_cost,
    in_option_words,
    read_device,
    unknown_latency,
    unpriced,
)
from mexit_edge.cli.estimate_tables import certainty, cost_table, fit_facts, memory_sentence, show
from mexit_edge.cli.tables import console, print_json
from mexit_edge.errors import InputError
from mexit_edge.estimate import DEFAULT_DEVICE, BundleEstimate, Cost, Device, ModelEstimate
from mexit_edge.estimate.energy.period import Period
from mexit_edge.estimate.ethos_u import ACCELERATORS
from mexit_edge.estimate.latency.rates import LEVEL
from mexit_edge.files import write_bytes


@dataclass(frozen=True)
class Report:
    """All that is said of one device.

    Args:
        name: of the model or bundle.
        estimate: of it.
        shares: of windows per exit; None where unknown, or for a model.
        expected: the mean over windows; None where shares are unknown.
        repeated: at a period; None where none is known.
        prices: of operators without a rule.
    """

    name: str
    estimate: ModelEstimate | BundleEstimate
    shares: ExitShares | None
    expected: Cost | None
    repeated: Repeated | None
    prices: Mapping[str, float]


def estimate_and_print(path: Path, request: EstimateRequest, *, as_json: bool) -> None:
    """Estimate a model or a bundle on a device, or on all of them, and print it.

    Args:
        path: of a .tflite or of a bundle.
        request: the options.
        as_json: whether to print JSON.

    Raises:
        InputError: an option or the model is wrong; or, after all was printed, the device has not the memory,
            or is too slow for the period that was asked for.
        MissingExtraError: a figure is wanted and matplotlib is not installed, or an Ethos-U and Vela is not.
    """
    request.check_figure()
    subject = Subject.read(path)
    if request.device in ACCELERATORS:
        from mexit_edge.cli.estimate_ethos_u import estimate_ethos_u_and_print

        estimate_ethos_u_and_print(subject, request, as_json=as_json)
        return
    request.refuse_short_names(subject)
    period = request.energy.period(subject)
    device = read_device(DEFAULT_DEVICE if request.device is None else request.device)
    report = _report(subject, request, device, period) if request.reports else None
    facts: dict[str, Any] = {}
    screen = console(quiet=as_json)
    if report is not None:
        facts = _facts(report, explain=request.explain) if as_json else {}
        if request.figure is not None:
            _write_figure(report, request.figure)
        if not as_json:
            _print(report, screen, explain=request.explain)
    if request.compare:
        from mexit_edge.cli.estimate_compare import compare, compare_facts, print_comparison

        comparison = compare(subject, request, device, period)
        facts |= compare_facts(comparison)
        if not as_json:
            print_comparison(comparison, screen)
    if as_json:
        print_json(facts)
    if report is not None:
        _refuse(report, asked_period=request.energy.period_ms is not None)


def _report(subject: Subject, request: EstimateRequest, device: Device, period: Period | None) -> Report:
    estimate = request.estimate(subject, device)
    shares = request.shares(subject)
    expected = expected_cost(estimate, shares)
    return Report(
        name=subject.name,
        estimate=estimate,
        shares=shares,
        expected=expected,
        repeated=None if period is None else repeated(estimate, expected, period, request),
        prices=request.prices(),
    )


def _write_figure(report: Report, path: Path) -> None:
    from mexit_edge.report.estimate_figures import estimate_picture

    if operators := unpriced(report.estimate, report.prices):
        raise unknown_latency("--figure", operators)
    kind: Literal["png", "svg"] = "svg" if path.suffix.lower() == ".svg" else "png"
    write_bytes(path, estimate_picture(report.estimate, kind))


def _print(report: Report, screen: Console, *, explain: bool) -> None:
    estimate = report.estimate
    show(screen, cost_table(report.name, estimate, report.expected))
    for sentence in _sentences(report):
        screen.print(sentence, markup=False)
    if report.repeated is not None:
        print_repeated(report.repeated, screen)
    if explain:
        from mexit_edge.cli.estimate_explain import print_explanation

        print_explanation(estimate, report.prices, report.repeated is not None, screen)


def _sentences(report: Report) -> Sequence[str]:
    estimate = report.estimate
    if report.shares is not None:
        shares = ", ".join(f"{100 * share:.1f}" for share in report.shares.values)
        said = [f"Expected where {shares} % of windows leave at the exits; {report.shares.source}."]
    elif isinstance(estimate, BundleEstimate):
        said = [
            "No expected cost: the bundle does not state where windows leave. "
            "Add --exit-shares, or a policy with `mexit run`."
        ]
    else:
        said = []
    return [
        *said,
        memory_sentence(estimate.fit, estimate.memory.unknown_because),
        certainty(estimate.library, estimate.device),
        *map(in_option_words, estimate.notes),
    ]


def _facts(report: Report, *, explain: bool) -> dict[str, Any]:
    estimate, shares = report.estimate, report.shares
    library = estimate.library
    rows = (
        estimate.rows()
        if isinstance(estimate, ModelEstimate)
        else estimate.rows(None if shares is None else shares.values)
    )
    facts: dict[str, Any] = {
        "name": report.name,
        "device": estimate.device,
        "stack": estimate.stack,
        "stack_version": library.version,
        "fitted_on": list(library.fitted_on),
        "source": library.source,
        "date": library.date,
        "interval_level": LEVEL,
        "rows": rows,
        "exit_shares": None if shares is None else list(shares.values),
        "exit_shares_source": None if shares is None else shares.source,
        "memory": fit_facts(estimate),
        "notes": [in_option_words(note) for note in estimate.notes],
        "energy": None if report.repeated is None else repeated_facts(report.repeated),
    }
    if explain:
        from mexit_edge.cli.estimate_explain import explain_facts

        facts["explain"] = explain_facts(estimate, report.prices)
    return facts


def _refuse(report: Report, *, asked_period: bool) -> None:
    """Refuse what is printed and cannot be done: too large for the device, or too slow for the period."""
    fit = report.estimate.fit
    if fit.fits is False:
        raise InputError(
            f"`path` must fit into the memory of {report.estimate.device}. Received: {report.name}, "
            f"{fit.too_much}. Take a smaller model or a larger device: `--compare` says where it fits."
        )
    if asked_period and report.repeated is not None and report.repeated.refusals:
        raise InputError(next(iter(report.repeated.refusals.values())))
