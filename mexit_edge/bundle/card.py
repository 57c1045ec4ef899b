"""The model card: the manifest in sentences and tables."""

from __future__ import annotations

from mexit_edge.bundle.policy import Calibration, TemporalSpec
from mexit_edge.bundle.schema import Manifest
from mexit_edge.exits import NEVER


def model_card(manifest: Manifest) -> str:
    """Return the bundle's model card as Markdown; what is unknown is said to be."""
    sections = [_head(manifest), _stages(manifest), _policy(manifest), _quality(manifest), _origin(manifest)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(manifest: Manifest) -> str:
    sensor = manifest.sensor
    channels = ", ".join(f"{name} ({unit})" for name, unit in zip(sensor.channels, sensor.units, strict=True))
    return (
        f"# {manifest.name}\n\n"
        f"A multi-exit int8 network of {len(manifest.stages)} stages. Input: windows of {sensor.window} "
        f"samples at {sensor.sampling_rate_hz:g} Hz, one every {sensor.hop} samples; channels {channels}. "
        f"Classes: {', '.join(manifest.classes)}."
    )


def _stages(manifest: Manifest) -> str:
    rows = [
        f"| {stage.exit} | {stage.macs:,} | {stage.flash_bytes:,} | "
        f"{'unknown' if stage.arena_bytes is None else f'{stage.arena_bytes:,}'} |"
        for stage in manifest.stages
    ]
    return "\n".join(
        [
            "## Stages",
            "",
            "| exit | MACs | flash bytes | TFLM arena bytes (64-bit host) |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _policy(manifest: Manifest) -> str:
    policy = manifest.policy
    if policy is None:
        return "## Policy\n\nNone set: every window runs to the final exit."
    limits = ", ".join(
        f"{name}: never" if number == NEVER else f"{name}: {number} ({value:.3f})"
        for name, number, value in zip(manifest.exits, policy.thresholds_int, policy.thresholds, strict=False)
    )
    text = f"## Policy\n\nLeave at the first exit with `{policy.score}` at or above its threshold: {limits}."
    if policy.off:
        text += f" Switched off: {', '.join(policy.off)}."
    if policy.temporal:
        text += f" Over a stream: {', '.join(temporal_words(rule) for rule in policy.temporal)}."
    calibration = policy.calibration
    if calibration is None:
        return text
    caveat = calibration_caveat(calibration)
    logits = calibration.engine if caveat is None else "float, out-of-fold"
    text += (
        f" Set on {calibration.n_windows:,} windows of subjects "
        f"{', '.join(map(str, calibration.subjects))} of {calibration.data} ({logits}), for "
        f"{calibration_goal(calibration)}: loss of balanced accuracy {100 * calibration.drop:.2f} points, "
        f"upper 90 % bound {100 * calibration.drop_upper:.2f}."
    )
    unsupported = [one.exit for one in calibration.support if not one.supported]
    if unsupported:
        text += f" These windows do not support the thresholds of {', '.join(unsupported)}."
    return text if caveat is None else f"{text}\n\n{caveat}"


def calibration_goal(calibration: Calibration) -> str:
    """Return what the thresholds were set for, for the middle of a sentence."""
    risk = calibration.risk
    if calibration.max_drop is not None:
        return f"least {calibration.cost} with a loss of at most {100 * calibration.max_drop:.2f} points"
    if calibration.floor is not None:
        return f"least {calibration.cost} with a balanced accuracy of at least {calibration.floor:.4f}"
    if calibration.budget is not None:
        return f"best balanced accuracy within {calibration.budget:,.6g} {calibration.cost} in the mean"
    if calibration.ratio is not None:
        return f"shares of windows that change by {calibration.ratio:g} from exit to exit"
    if risk is None:
        return "nothing: they were given"
    return (
        f"a {risk.loss} of at most {risk.eps:g} by {risk.method}"
        + ("" if risk.method == "crc" else f", missed with probability {risk.delta:g} at most")
        + f", for {risk.unit}s like these {risk.n:,}"
        + ("" if risk.level is not None else ", which nothing that leaves early holds")
    )


def temporal_words(rule: TemporalSpec) -> str:
    """Return a temporal rule as it is written on the command line: name:option=value,..."""
    options = ",".join(f"{name}={value}" for name, value in rule.options.items())
    return f"{rule.name}:{options}" if options else rule.name


def calibration_caveat(calibration: Calibration) -> str | None:
    """Return what keeps a calibration's bound from saying anything about the bundle itself, or None."""
    if calibration.kind == "held_out":
        return None
    return (
        f"The thresholds were set on out-of-fold logits of {calibration.folds} fold networks: each window "
        "was judged by a float network trained without its subject, and the logits were rounded to this "
        "bundle's int8 steps. The network in this bundle is another one, refitted on all training subjects. "
        "Loss and bound are those of the fold networks, and guarantee nothing for the refitted network."
    )


def _quality(manifest: Manifest) -> str:
    quality = manifest.quality
    if quality is None:
        return "## Quality\n\nNot measured."
    rows = [
        f"| {row.exit} | {row.accuracy:.4f} | {row.balanced_accuracy:.4f} | {macs:,} |"
        for row, macs in zip(quality.exits, manifest.cumulative_macs, strict=True)
    ]
    if quality.policy is not None:
        policy = quality.policy
        rows.append(
            f"| policy | {policy.accuracy:.4f} | {policy.balanced_accuracy:.4f} | {policy.mean_macs:,.0f} |"
        )
    return "\n".join(
        [
            "## Quality",
            "",
            f"On {quality.n_windows:,} windows of subjects {', '.join(map(str, quality.subjects))} of "
            f"{quality.data}, executed on the int8 stages ({quality.engine}).",
            "",
            "| exit | accuracy | balanced accuracy | MACs per window |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _origin(manifest: Manifest) -> str:
    training = manifest.training
    facts = {
        "Training data": training.data,
        "Backbone": training.backbone,
        "Preset": training.preset,
        "Regime": training.regime,
        "Seed": training.seed,
        "Epochs": training.epochs,
        "Training subjects": ", ".join(map(str, training.train_subjects)) or None,
        "Validation subjects": ", ".join(map(str, training.validation_subjects)) or None,
    }
    lines = [f"- {name}: {'unknown' if value is None else value}" for name, value in facts.items()]
    lines += [f"- {name} {version}" for name, version in manifest.versions.items()]
    return "## Origin\n\n" + "\n".join(lines)
