"""One self-contained HTML page: no script, no request, both colour schemes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mexit_edge.errors import InputError, MissingExtraError
from mexit_edge.files import refuse_existing, write_bytes
from mexit_edge.report import tables, words
from mexit_edge.report.pictures import make_pictures

if TYPE_CHECKING:
    from mexit_edge.bundle import Manifest
    from mexit_edge.estimate import BundleEstimate
    from mexit_edge.simulate import Simulation

# Below this many subjects a percentile bootstrap over subjects covers less than its level says.
FEW_SUBJECTS = 10


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

    Raises:
        InputError: manifest and simulation are not of the same bundle.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    _check_same_bundle(manifest, simulation)
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "report") from error
    # Class names, settings and notes come from users: everything is escaped, and a misspelt name is an error.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mexit_edge.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    calibration = tables.calibration_table(manifest)
    return environment.get_template("page.html.j2").render(
        name=manifest.name,
        about=_about(manifest),
        title=_title(manifest, simulation),
        headline=headline(simulation),
        key_figures=_key_figures(manifest, simulation, estimate),
        pictures=make_pictures(simulation, history or [], float_quality),
        comparison=tables.comparison_table(simulation),
        leaving=tables.leaving_table(simulation),
        exits=tables.exits_table(simulation, estimate, float_quality),
        stages=tables.stages_table(manifest, simulation, estimate),
        thresholds=tables.thresholds_table(manifest, simulation),
        calibration=calibration,
        parity=tables.parity_table(parity) if parity else None,
        settings=tables.settings_table(settings),
        versions=tables.versions_table(versions, manifest),
        origin=_origin(manifest),
        notes=_notes(manifest, simulation, estimate),
    )


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
    overwrite: bool = False,
) -> Path:
    """Write the page of `render_page` as one file, whole or not at all.

    Args:
        path: file to write.
        manifest: see `render_page`, as for all arguments up to ``versions``.
        simulation: see `render_page`.
        estimate: see `render_page`.
        history: see `render_page`.
        settings: see `render_page`.
        float_quality: see `render_page`.
        parity: see `render_page`.
        versions: see `render_page`.
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
        f"accuracy {words.percent(simulation.policy_balanced_accuracy)} against {words.percent(final)} of the "
        f"final exit: drop {words.points(simulation.drop)}{words.NBSP}points {_drop_interval(simulation)}."
    )


def _title(manifest: Manifest, simulation: Simulation) -> str:
    return (
        f"{manifest.name}: {words.percent(simulation.mean_macs / simulation.full_macs)} of the MACs, balanced "
        f"accuracy {words.percent(simulation.policy_balanced_accuracy)} against "
        f"{words.percent(simulation.balanced_accuracies[-1])}"
    )


def _drop_interval(simulation: Simulation) -> str:
    if len(np.unique(simulation.subject)) < 2:
        return "(interval unknown: one subject)"
    interval = simulation.drop_interval
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


def _key_figures(
    manifest: Manifest, simulation: Simulation, estimate: BundleEstimate | None
) -> tuple[KeyFigure, ...]:
    where = "no device given" if estimate is None else f"{estimate.device}, {estimate.stack}"
    policy = None if estimate is None else estimate.expected(simulation.exit_shares)
    full_shares = tuple(float(name == simulation.exits[-1]) for name in simulation.exits)
    full = None if estimate is None else estimate.expected(full_shares)
    latency = (
        (None, None)
        if policy is None or full is None
        else (policy.estimated_latency_ms, full.estimated_latency_ms)
    )
    energy = (
        (None, None)
        if policy is None or full is None
        else (policy.estimated_energy_uj, full.estimated_energy_uj)
    )
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
        KeyFigure("estimated ms per window", *_estimate_pair(*latency, where)),
        KeyFigure("estimated uJ per window", *_estimate_pair(*energy, where)),
    )


def _estimate_pair(policy: Any, full: Any, where: str) -> tuple[str, str]:
    """Return the policy's estimate, and its interval with the full network's beside it."""
    if policy is None or full is None:
        return words.UNKNOWN, where
    return (
        words.quantity(policy.value),
        f"{words.interval(policy.low, policy.high)}; full network {words.estimated(full)}; {where}",
    )


def _origin(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    training = manifest.training
    facts = {
        "training data": training.data,
        "backbone": training.backbone,
        "regime": training.regime,
        "seed": training.seed,
        "epochs": training.epochs,
        "training subjects": words.numbers(training.train_subjects) or None,
        "validation subjects": words.numbers(training.validation_subjects) or None,
    }
    return tuple((name, words.UNKNOWN if fact is None else str(fact)) for name, fact in facts.items())


def _notes(manifest: Manifest, simulation: Simulation, estimate: BundleEstimate | None) -> tuple[str, ...]:
    n_subjects = len(np.unique(simulation.subject))
    notes = [
        f"Decisions and quality were computed by {simulation.engine} on the int8 stages, on {simulation.data}. "
        "Another engine may round some logits differently.",
        "The tradeoff curve sweeps one threshold over the test windows for the drawing only; the policy's "
        "thresholds are not taken from it.",
        "TFLM arena bytes are those of a 64-bit host; on a 32-bit device they are smaller.",
    ]
    if n_subjects < FEW_SUBJECTS:
        notes.append(
            f"The bootstrap draws whole subjects, and there are {n_subjects}: with fewer than {FEW_SUBJECTS} the "
            "interval is narrower than its level says."
        )
    notes += _overlaps(manifest, simulation)
    if manifest.policy is not None and manifest.policy.thresholds_int != tuple(simulation.thresholds_int):
        notes.append("The simulation ran with other thresholds than the manifest holds; the run's are shown.")
    if estimate is not None:
        notes.extend(estimate.notes)
    return tuple(notes)


def _overlaps(manifest: Manifest, simulation: Simulation) -> list[str]:
    """Return a warning for every set that shares subjects with the test windows."""
    training, tested = manifest.training, set(np.unique(simulation.subject).tolist())
    sets = [
        ("training", training.data, training.train_subjects),
        ("validation", training.data, training.validation_subjects),
    ]
    if manifest.policy is not None and manifest.policy.calibration is not None:
        sets.append(("calibration", manifest.policy.calibration.data, manifest.policy.calibration.subjects))
    return [
        f"The test windows share {words.subjects(shared)} with the {name} set: quality is overstated."
        for name, data, members in sets
        if data == simulation.data and (shared := tested & set(members))
    ]
