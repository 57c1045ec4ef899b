"""One self-contained HTML page: no script, no request, both colour schemes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mexit_edge.errors import InputError
from mexit_edge.files import refuse_existing, write_bytes
from mexit_edge.report import provenance, tables, words
from mexit_edge.report.environment import load_template
from mexit_edge.report.pictures import make_pictures
from mexit_edge.simulate import oracle_gap

if TYPE_CHECKING:
    from mexit_edge.bundle import Manifest
    from mexit_edge.estimate import BundleEstimate, Estimate
    from mexit_edge.simulate import Simulation


@dataclass(frozen=True)
class KeyFigure:
    """One large number: what it is, the number, and one line of context."""

    name: str
    value: str
    context: str


def render_page(
    *,
    manifest: Manifest,
    simulation: Simulation,
    estimate: BundleEstimate | None,
    history: Sequence[dict[str, Any]] | None,
    settings: Mapping[str, object],
    float_quality: Mapping[str, Any] | None,
    parity: Sequence[Mapping[str, Any]] | None,
    versions: Mapping[str, str],
    training_cost: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the whole page as HTML.

    Args:
        manifest: of the bundle that was simulated.
        simulation: results on the test windows.
        estimate: cost on a device; None prints "unknown".
        history: one dict per epoch (see `plot_training`); None or empty where training is not known.
        settings: the run's settings by name.
        float_quality: ``{"exits": [{"exit", "accuracy", "balanced_accuracy"}, ...]}`` of the float network on
            the same windows, or None.
        parity: rows ``{"engine", "windows", "exit", "differing_elements"}``, or None where not checked.
        versions: tool name -> version.
        training_cost: rows of `mexit_edge.regimes.PhaseCost.to_dict`, one per phase in order, whose names the
            training figures use too; empty where unknown.

    Raises:
        InputError: manifest and simulation are not of the same bundle.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    _check_same_bundle(manifest, simulation)
    calibration = provenance.calibration_table(manifest)
    gap = oracle_gap(simulation)
    template = load_template("page.html.j2")
    page: str = template.render(
        name=manifest.name,
        about=_about(manifest),
        title=_title(manifest, simulation),
        headline=headline(simulation),
        key_figures=_key_figures(simulation, estimate),
        pictures=make_pictures(
            simulation, history or [], float_quality, [str(row["phase"]) for row in training_cost]
        ),
        training_cost=tables.training_cost_table(training_cost) if training_cost else None,
        comparison=tables.comparison_table(simulation, gap),
        leaving=tables.leaving_table(simulation),
        exits=tables.exits_table(simulation, estimate, float_quality, gap),
        gap=None if gap is None else gap.sentence,
        stages=tables.stages_table(manifest, simulation, estimate),
        thresholds=provenance.thresholds_table(manifest, simulation),
        calibration=calibration,
        parity=provenance.parity_table(parity) if parity else None,
        settings=provenance.settings_table(settings),
        versions=provenance.versions_table(versions, manifest),
        origin=provenance.origin(manifest),
        notes=provenance.notes(manifest, simulation, estimate),
    )
    return page


def write_page(
    path: Path | str,
    *,
    manifest: Manifest,
    simulation: Simulation,
    estimate: BundleEstimate | None,
    history: Sequence[dict[str, Any]] | None,
    settings: Mapping[str, object],
    float_quality: Mapping[str, Any] | None,
    parity: Sequence[Mapping[str, Any]] | None,
    versions: Mapping[str, str],
    training_cost: Sequence[Mapping[str, Any]] = (),
    overwrite: bool = False,
) -> Path:
    """Write the page of `render_page` as one file, whole or not at all.

    Args:
        path: file to write.
        manifest: see `render_page`, as for all arguments up to ``training_cost``.
        simulation: see `render_page`.
        estimate: see `render_page`.
        history: see `render_page`.
        settings: see `render_page`.
        float_quality: see `render_page`.
        parity: see `render_page`.
        versions: see `render_page`.
        training_cost: see `render_page`.
        overwrite: whether an existing file may be replaced.

    Returns:
        The path written.

    Raises:
        InputError: the file exists and ``overwrite`` is False, or as `render_page` does.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    path = Path(path)
    # Refused before the drawing, not after.
    refuse_existing(path, overwrite=overwrite)
    page = render_page(
        manifest=manifest,
        simulation=simulation,
        estimate=estimate,
        history=history,
        settings=settings,
        float_quality=float_quality,
        parity=parity,
        versions=versions,
        training_cost=training_cost,
    )
    write_bytes(path, page.encode(), overwrite=overwrite)
    return path


def headline(simulation: Simulation) -> str:
    """Return the result in one sentence; a loss reads as a loss."""
    final = simulation.balanced_accuracies[-1]
    return (
        f"On {len(simulation):,} windows of {words.subjects(simulation.subject)}, the policy computes "
        f"{words.percent(simulation.mean_macs / simulation.full_macs)} of the full network's MACs "
        f"({words.macs(simulation.mean_macs)} of {words.macs(simulation.full_macs)} per window), balanced "
        f"accuracy {words.percent(simulation.policy_balanced_accuracy)} against {words.percent(final)} of "
        f"the final exit: drop {words.points(simulation.drop)}{words.NBSP}points "
        f"{_drop_interval(simulation)}."
    )


def _title(manifest: Manifest, simulation: Simulation) -> str:
    return (
        f"{manifest.name}: {words.percent(simulation.mean_macs / simulation.full_macs)} of the MACs, "
        f"balanced accuracy {words.percent(simulation.policy_balanced_accuracy)} against "
        f"{words.percent(simulation.balanced_accuracies[-1])}"
    )


def _drop_interval(simulation: Simulation) -> str:
    interval = simulation.drop_interval
    if interval is None:
        return "(interval unknown: one subject)"
    return (
        f"[{words.points(interval.low)},{words.NBSP}{words.points(interval.high)}], "
        f"{100 * interval.level:.0f} % by subject bootstrap"
    )


def _check_same_bundle(manifest: Manifest, simulation: Simulation) -> None:
    ours = (manifest.exits, manifest.classes, tuple(stage.macs for stage in manifest.stages))
    theirs = (tuple(simulation.exits), tuple(simulation.classes), tuple(simulation.stage_macs))
    for name, expected, received in zip(("exits", "classes", "stage_macs"), ours, theirs, strict=True):
        if expected != received:
            raise InputError(
                f"`simulation` must be of the manifest's bundle, with the same {name}: {expected}. "
                f"Received: {received}. Simulate this bundle, or pass its own manifest."
            )


def _about(manifest: Manifest) -> str:
    sensor, training = manifest.sensor, manifest.training
    origin = [str(part) for part in (training.backbone, training.regime, training.data) if part is not None]
    channels = ", ".join(f"{name} ({unit})" for name, unit in zip(sensor.channels, sensor.units, strict=True))
    return (
        f"{' / '.join(origin) + '. ' if origin else ''}int8 network with {len(manifest.stages)} exits and "
        f"{len(manifest.classes)} classes. Windows of {sensor.window} samples at "
        f"{sensor.sampling_rate_hz:g} Hz, one every {sensor.hop} samples; channels {channels}."
    )


def _key_figures(simulation: Simulation, estimate: BundleEstimate | None) -> tuple[KeyFigure, ...]:
    where = "no device given" if estimate is None else f"{estimate.device}, {estimate.stack}"
    latency = energy = (words.UNKNOWN, where)
    if estimate is not None:
        policy, full = estimate.expected(simulation.exit_shares), estimate.exits[-1]
        latency = _beside(policy.estimated_latency_ms, full.estimated_latency_ms, where)
        energy = _beside(policy.estimated_energy_uj, full.estimated_energy_uj, where)
    return (
        KeyFigure(
            "MACs per window",
            words.percent(simulation.mean_macs / simulation.full_macs),
            f"of the full network: {words.macs(simulation.mean_macs)} of {words.macs(simulation.full_macs)}",
        ),
        KeyFigure(
            "balanced accuracy lost",
            f"{words.points(simulation.drop)} points",
            _drop_interval(simulation),
        ),
        KeyFigure(
            "leave at the first exit",
            words.percent(simulation.exit_shares[0]),
            f"{int(np.sum(simulation.exit == 1)):,} of {len(simulation):,} windows",
        ),
        KeyFigure("estimated ms per window", *latency),
        KeyFigure("estimated uJ per window", *energy),
    )


def _beside(policy: Estimate | None, full: Estimate | None, where: str) -> tuple[str, str]:
    """Return the policy's estimate, and its interval with the full network's beside it."""
    if policy is None or full is None:
        return words.UNKNOWN, where
    return (
        words.quantity(policy.value),
        f"{words.interval(policy.low, policy.high)}; full network {words.estimated(full)}; {where}",
    )
