"""How a result came about and what limits it: thresholds, parity, settings, versions, origin, notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mexit_edge.bundle.card import calibration_caveat, calibration_goal
from mexit_edge.exits import NEVER
from mexit_edge.report.tables import Table
from mexit_edge.report.words import (
    NOT_APPLICABLE,
    UNKNOWN,
    count,
    numbers,
    percent,
    points,
    setting,
    subjects,
)
from mexit_edge.simulate import seen_subjects

if TYPE_CHECKING:
    from mexit_edge.bundle import Manifest, SupportSpec
    from mexit_edge.estimate import BundleEstimate
    from mexit_edge.simulate import Simulation

# Below this many subjects a percentile bootstrap over subjects covers less than its level says.
FEW_SUBJECTS = 10


def thresholds_table(manifest: Manifest, simulation: Simulation) -> Table:
    """Return the thresholds of the simulated run, and beside them the manifest's floats where they agree."""
    policy = manifest.policy
    if not simulation.has_policy:
        return Table("There is no policy: every window runs to the final exit.", ("exit",), ())
    agrees = policy is not None and policy.thresholds_int == tuple(simulation.thresholds_int)
    floats = policy.thresholds if policy is not None and agrees else (None,) * len(simulation.thresholds_int)
    return Table(
        caption="A window leaves at the first exit whose score reaches the threshold. The integers decide.",
        columns=("exit", "score", "threshold (integer)", "threshold (float, for display)"),
        rows=tuple(
            (name, simulation.score, "never", NOT_APPLICABLE)
            if integer == NEVER
            else (name, simulation.score, count(integer), UNKNOWN if value is None else f"{value:.4g}")
            for name, integer, value in zip(
                simulation.exits[:-1], simulation.thresholds_int, floats, strict=True
            )
        ),
    )


def calibration_table(manifest: Manifest) -> Table | None:
    """Return how the thresholds were set, or None where the manifest does not say."""
    calibration = None if manifest.policy is None else manifest.policy.calibration
    if calibration is None:
        return None
    caveat = calibration_caveat(calibration)
    made_by = (
        ("engine", str(calibration.engine))
        if caveat is None
        else ("logits", f"out-of-fold, of {calibration.folds} float networks")
    )
    rows = (
        ("data", calibration.data),
        ("subjects", numbers(calibration.subjects) or UNKNOWN),
        ("windows", count(calibration.n_windows)),
        made_by,
        ("cost", calibration.cost),
        ("set for", calibration_goal(calibration)),
        ("loss on these windows, gains counted", f"{points(calibration.drop)} points"),
        (
            "upper 90 % bound of what is lost, gains not counted, windows taken as independent",
            f"{points(calibration.drop_upper)} points",
        ),
        *(
            ()
            if calibration.exact is None
            else (("every threshold tried", "yes" if calibration.exact else "no: improved two at a time"),)
        ),
        *((f"threshold of {one.exit}", _support(one)) for one in calibration.support),
        *(
            (
                f"temperature of {one.exit}",
                f"{one.temperature:.3g}; ECE {one.ece_before:.3f} before, {one.ece_after:.3f} after",
            )
            for one in calibration.temperatures
        ),
    )
    caption = "Recorded in the bundle's manifest." + ("" if caveat is None else f" {caveat}")
    return Table(caption, ("calibration", "value"), rows, is_text=True)


def _support(one: SupportSpec) -> str:
    if one.loss_rate_low is None or one.loss_rate_high is None:
        return "no window leaves here"
    verdict = "" if one.supported else ": too little to support it"
    return (
        f"{one.windows:,} windows leave, {one.losses:,} of them lost "
        f"(90 % interval {percent(one.loss_rate_low)} to {percent(one.loss_rate_high)}){verdict}"
    )


def parity_table(parity: Sequence[Mapping[str, Any]]) -> Table:
    """Return how many elements differ between staged and whole execution."""
    return Table(
        caption="Elements of the exit's int8 logits that differ between the stages and the whole model.",
        columns=("engine", "exit", "windows", "differing elements"),
        rows=tuple(
            (str(row["engine"]), str(row["exit"]), count(row["windows"]), count(row["differing_elements"]))
            for row in parity
        ),
    )


def settings_table(settings: Mapping[str, object]) -> Table:
    """Return the settings of the run."""
    rows = tuple((str(name), setting(value)) for name, value in settings.items())
    return Table("Settings of this run.", ("setting", "value"), rows, is_text=True)


def versions_table(versions: Mapping[str, str], manifest: Manifest) -> Table:
    """Return tool versions of this run beside those recorded in the bundle."""
    made = manifest.versions
    rows = tuple(
        (name, versions.get(name, NOT_APPLICABLE), made.get(name, NOT_APPLICABLE))
        for name in dict.fromkeys([*versions, *made])
    )
    caption = (
        f"Versions that made this page, and those recorded in the bundle. {NOT_APPLICABLE}: not recorded."
    )
    return Table(caption, ("tool", "this page", "bundle"), rows, is_text=True)


def origin(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """Return where the network came from: fact and value; what the manifest does not say is unknown."""
    training = manifest.training
    facts = {
        "training data": training.data,
        "backbone": training.backbone,
        "preset": training.preset,
        "regime": training.regime,
        "seed": training.seed,
        "epochs": training.epochs,
        "training subjects": numbers(training.train_subjects) or None,
        "validation subjects": numbers(training.validation_subjects) or None,
    }
    return tuple((name, UNKNOWN if fact is None else str(fact)) for name, fact in facts.items())


def notes(manifest: Manifest, simulation: Simulation, estimate: BundleEstimate | None) -> tuple[str, ...]:
    """Return what limits the results, and what the estimate says of itself."""
    n_subjects = len(np.unique(simulation.subject))
    lines = [
        f"Decisions and quality were computed by {simulation.engine} on the int8 stages, on "
        f"{simulation.data}. Another engine may round some logits differently.",
        "The tradeoff curve sweeps one threshold over the test windows for the drawing only; the policy's "
        "thresholds are not taken from it.",
        "TFLM arena bytes are those of a 64-bit host; on a 32-bit device pointers are half as wide, and its "
        "kernels may ask for other scratch buffers.",
    ]
    if n_subjects < FEW_SUBJECTS:
        lines.append(
            f"The bootstrap draws whole subjects, and there are {n_subjects}: with fewer than "
            f"{FEW_SUBJECTS} the interval is narrower than its level says."
        )
    lines += _overlaps(manifest, simulation)
    calibration = None if manifest.policy is None else manifest.policy.calibration
    if calibration is not None and calibration.kind == "out_of_fold":
        lines.append(
            "The thresholds were set on other networks than the one in this bundle, those of "
            f"{calibration.folds} folds: only the test windows tell what the policy loses here."
        )
    if manifest.policy is not None and manifest.policy.thresholds_int != tuple(simulation.thresholds_int):
        lines.append("The simulation ran with other thresholds than the manifest holds; the run's are shown.")
    if estimate is not None:
        lines.extend(estimate.notes)
    return tuple(lines)


def _overlaps(manifest: Manifest, simulation: Simulation) -> list[str]:
    """Return a warning for every set that shares subjects with the test windows."""
    tested = set(np.unique(simulation.subject).tolist())
    return [
        f"The test windows share {subjects(shared)} with the {name} set: quality is overstated."
        for name, members in seen_subjects(manifest, simulation.data).items()
        if (shared := tested & set(members))
    ]
